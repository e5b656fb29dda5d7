/* SPDX-License-Identifier: Apache-2.0 */
/* What each SAE did since the start, and who is suspended. An SAE is entered when
 * its certificate is first seen, and stays: so a reload takes nothing away from
 * under a request. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "etsi014_internal.h"
#include "qkdgate/bytes.h"

#define BUCKETS 4096u
#define PAIRS_MAX 256u

typedef struct pair {
	char a[QG_014_SAE_ID_MAX + 1], b[QG_014_SAE_ID_MAX + 1];
} pair;

struct qg_014_uses {
	pthread_mutex_t lock;
	atomic_uint n_suspended; /* SAEs and pairs: so that a request need not lock where there is none */
	atomic_uint n_pairs;
	pair pair[PAIRS_MAX];
	qg_014_sae *bucket[BUCKETS];
};

qg_err
qg_014_uses_new(qg_014_uses **out)
{
	qg_014_uses *u = calloc(1, sizeof *u);
	if (u == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&u->lock, NULL);
	*out = u;
	return QG_OK;
}

void
qg_014_uses_free(qg_014_uses **u)
{
	if (u == NULL || *u == NULL)
		return;
	for (size_t i = 0; i < BUCKETS; i++)
		for (qg_014_sae *sae = (*u)->bucket[i]; sae != NULL;) {
			qg_014_sae *next = sae->next;
			free(sae);
			sae = next;
		}
	pthread_mutex_destroy(&(*u)->lock);
	free(*u);
	*u = NULL;
}

/* Only IDs of the configuration are entered: nobody chooses clashes. */
static qg_014_sae **
find(qg_014_uses *u, const char *id)
{
	qg_014_sae **at = &u->bucket[qg_hash(id, strlen(id)) % BUCKETS];
	while (*at != NULL && strcmp((*at)->id, id) != 0)
		at = &(*at)->next;
	return at;
}

qg_014_sae *
qg_014_uses_get(qg_014_uses *u, const char *id)
{
	const size_t len = strlen(id) + 1;
	pthread_mutex_lock(&u->lock);
	qg_014_sae **at = find(u, id);
	if (*at == NULL) {
		*at = calloc(1, sizeof **at + len);
		if (*at != NULL)
			memcpy((*at)->id, id, len);
	}
	qg_014_sae *sae = *at;
	pthread_mutex_unlock(&u->lock);
	return sae;
}

void
qg_etsi014_use(const qg_etsi014 *s, const char *sae, qg_sae_use *out)
{
	*out = (qg_sae_use){0};
	pthread_mutex_lock(&s->uses->lock);
	const qg_014_sae *x = *find(s->uses, sae);
	pthread_mutex_unlock(&s->uses->lock);
	if (x == NULL)
		return;
	*out = (qg_sae_use){
		.requests = atomic_load(&x->requests),
		.issued = atomic_load(&x->issued),
		.fetched = atomic_load(&x->fetched),
		.refused = atomic_load(&x->refused),
		.limited = atomic_load(&x->limited),
		.last_ms = atomic_load(&x->last_ms),
		.suspended = atomic_load(&x->suspended),
	};
}

/* --- suspending -------------------------------------------------------------- */

static size_t
find_pair(const qg_014_uses *u, const char *a, const char *b)
{
	const size_t n = atomic_load(&u->n_pairs);
	size_t i = 0;
	for (; i < n; i++) {
		const pair *p = &u->pair[i];
		if ((strcmp(p->a, a) == 0 && strcmp(p->b, b) == 0) || (strcmp(p->a, b) == 0 && strcmp(p->b, a) == 0))
			break;
	}
	return i;
}

static bool
other_is_suspended(qg_014_uses *u, const char *other)
{
	const qg_014_sae *sae = *find(u, other);
	return sae != NULL && atomic_load(&sae->suspended);
}

bool
qg_014_is_suspended(qg_014_uses *u, const qg_014_sae *caller, const char *other)
{
	if (atomic_load_explicit(&caller->suspended, memory_order_relaxed))
		return true;
	if (atomic_load_explicit(&u->n_suspended, memory_order_relaxed) == 0)
		return false;
	pthread_mutex_lock(&u->lock);
	const bool is = find_pair(u, caller->id, other) < atomic_load(&u->n_pairs) || other_is_suspended(u, other);
	pthread_mutex_unlock(&u->lock);
	return is;
}

static qg_err
change_pair(qg_014_uses *u, const char *a, const char *b, bool on)
{
	const unsigned n = atomic_load(&u->n_pairs);
	const size_t at = find_pair(u, a, b);
	if (strlen(a) > QG_014_SAE_ID_MAX || strlen(b) > QG_014_SAE_ID_MAX)
		return QG_E_RANGE;
	if (on == (at < n))
		return QG_OK;
	if (!on) {
		u->pair[at] = u->pair[n - 1];
		atomic_store(&u->n_pairs, n - 1);
		atomic_fetch_sub(&u->n_suspended, 1);
		return QG_OK;
	}
	if (n == PAIRS_MAX)
		return QG_E_FULL;
	memcpy(u->pair[n].a, a, strlen(a) + 1);
	memcpy(u->pair[n].b, b, strlen(b) + 1);
	atomic_store(&u->n_pairs, n + 1);
	atomic_fetch_add(&u->n_suspended, 1);
	return QG_OK;
}

qg_err
qg_etsi014_suspend(qg_etsi014 *s, const char *sae, const char *other, bool on)
{
	if (other == NULL) {
		qg_014_sae *x = qg_014_uses_get(s->uses, sae);
		if (x != NULL && atomic_exchange(&x->suspended, on) != on)
			(void)(on ? atomic_fetch_add(&s->uses->n_suspended, 1)
				  : atomic_fetch_sub(&s->uses->n_suspended, 1));
		return x != NULL ? QG_OK : QG_E_NOMEM;
	}
	pthread_mutex_lock(&s->uses->lock);
	const qg_err err = change_pair(s->uses, sae, other, on);
	pthread_mutex_unlock(&s->uses->lock);
	return err;
}

bool
qg_etsi014_is_suspended(const qg_etsi014 *s, const char *sae, const char *other)
{
	if (atomic_load_explicit(&s->uses->n_suspended, memory_order_relaxed) == 0)
		return false;
	pthread_mutex_lock(&s->uses->lock);
	const bool is = find_pair(s->uses, sae, other) < atomic_load(&s->uses->n_pairs) ||
			other_is_suspended(s->uses, sae) || other_is_suspended(s->uses, other);
	pthread_mutex_unlock(&s->uses->lock);
	return is;
}

void
qg_etsi014_suspended_pairs(const qg_etsi014 *s, void (*each)(const char *a, const char *b, void *ctx), void *ctx)
{
	pthread_mutex_lock(&s->uses->lock);
	for (unsigned i = 0; i < atomic_load(&s->uses->n_pairs); i++)
		each(s->uses->pair[i].a, s->uses->pair[i].b, ctx);
	pthread_mutex_unlock(&s->uses->lock);
}
