/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "directory_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "qkdgate/pattern.h"
#include "qkdgate/secret.h"

#define TELL_AGAIN_MS 60000
#define BUCKETS_MIN 64

/* An SAE and the neighbour that was the first to claim it. */
typedef struct claim {
	struct claim *chain;   /* of the same bucket */
	struct claim *sibling; /* of the same neighbour */
	const struct teacher *owner;
	bool stale;            /* not in the list that is being taken in */
	char id[];
} claim;

/* A neighbour from which is learned. */
typedef struct teacher {
	const qg_config_neighbour *cfg;
	claim *claims;
	uint64_t told_ms; /* of the last refusal in the log; 0: none yet */
} teacher;

struct qg_learned {
	pthread_rwlock_t lock;
	_Atomic size_t n; /* read without the lock while nothing is learned */
	claim **buckets;
	size_t mask;
	unsigned char key[crypto_shorthash_KEYBYTES];
	size_t n_teachers;
	atomic_flag cut_told; /* that not all SAEs fit into a message */
	teacher teachers[];
};

qg_err
qg_learned_new(const qg_config *cfg, qg_learned **out)
{
	size_t n = 0, buckets = BUCKETS_MIN;
	for (size_t i = 0; i < cfg->n_neighbours; i++)
		n += cfg->neighbours[i].n_learn > 0;
	qg_learned *l = calloc(1, sizeof *l + n * sizeof l->teachers[0]);
	if (l == NULL)
		return QG_E_NOMEM;
	while (buckets < QG_DIRECTORY_LEARNED_MAX && buckets < n * QG_KMS_SAES_MAX)
		buckets *= 2;
	l->buckets = calloc(buckets, sizeof(claim *));
	if (l->buckets == NULL || pthread_rwlock_init(&l->lock, NULL) != 0) {
		free(l->buckets);
		free(l);
		return QG_E_NOMEM;
	}
	l->mask = buckets - 1;
	for (size_t i = 0; i < cfg->n_neighbours; i++)
		if (cfg->neighbours[i].n_learn > 0)
			l->teachers[l->n_teachers++].cfg = &cfg->neighbours[i];
	atomic_flag_clear(&l->cut_told);
	qg_random(l->key, sizeof l->key);
	*out = l;
	return QG_OK;
}

void
qg_learned_free(qg_learned **l)
{
	if (l == NULL || *l == NULL)
		return;
	for (size_t i = 0; i < (*l)->n_teachers; i++)
		for (claim *c = (*l)->teachers[i].claims, *next; c != NULL; c = next) {
			next = c->sibling;
			free(c);
		}
	free((*l)->buckets);
	pthread_rwlock_destroy(&(*l)->lock);
	free(*l);
	*l = NULL;
}

/* --- the table, under the lock ---------------------------------------------------- */

static claim **
bucket_of(const qg_learned *l, const char *id)
{
	uint64_t hash = 0;
	_Static_assert(sizeof hash == crypto_shorthash_BYTES, "the hash is one word");
	(void)crypto_shorthash((unsigned char *)&hash, (const unsigned char *)id, strlen(id), l->key);
	return &l->buckets[(size_t)hash & l->mask];
}

static claim *
find_claim(const qg_learned *l, const char *id)
{
	claim *c = *bucket_of(l, id);
	while (c != NULL && strcmp(c->id, id) != 0)
		c = c->chain;
	return c;
}

static qg_err
add_claim(qg_learned *l, teacher *t, const char *id)
{
	const size_t len = strlen(id);
	if (l->n >= QG_DIRECTORY_LEARNED_MAX)
		return QG_E_FULL;
	claim *c = malloc(sizeof *c + len + 1);
	if (c == NULL)
		return QG_E_NOMEM;
	claim **const bucket = bucket_of(l, id);
	*c = (claim){.chain = *bucket, .sibling = t->claims, .owner = t};
	memcpy(c->id, id, len + 1);
	*bucket = t->claims = c;
	l->n++;
	return QG_OK;
}

static void
remove_claim(qg_learned *l, claim *gone)
{
	claim **at = bucket_of(l, gone->id);
	while (*at != gone)
		at = &(*at)->chain;
	*at = gone->chain;
	l->n--;
	free(gone);
}

static unsigned
remove_stale(qg_learned *l, teacher *t)
{
	unsigned n = 0;
	for (claim **at = &t->claims; *at != NULL;) {
		claim *const c = *at;
		if (!c->stale) {
			at = &c->sibling;
			continue;
		}
		*at = c->sibling;
		remove_claim(l, c);
		n++;
	}
	return n;
}

const char *
qg_learned_home(qg_learned *l, const char *sae_id)
{
	if (atomic_load_explicit(&l->n, memory_order_acquire) == 0)
		return NULL;
	pthread_rwlock_rdlock(&l->lock);
	const claim *const c = find_claim(l, sae_id);
	const char *const kme = c == NULL ? NULL : c->owner->cfg->id;
	pthread_rwlock_unlock(&l->lock);
	return kme;
}

/* --- a list ------------------------------------------------------------------------- */

/* What becomes of a list; of the refused ones the first is kept for the log. */
typedef struct lesson {
	unsigned learned, dropped, refused;
	const char *sae, *why;
	size_t all;
} lesson;

static void
refuse(lesson *le, const char *sae, const char *why)
{
	if (le->refused++ > 0)
		return;
	le->sae = sae;
	le->why = why;
}

static bool
may_teach(const teacher *t, const char *sae)
{
	for (size_t i = 0; i < t->cfg->n_learn; i++)
		if (qg_pattern_matches(t->cfg->learn[i], sae))
			return sae[0] != '\0';
	return false;
}

static void
take_claim(const qg_directory *d, qg_learned *l, teacher *t, const char *sae, lesson *le)
{
	if (!may_teach(t, sae))
		return;
	const char *const home = qg_directory_configured(d, sae);
	if (home != NULL) {
		if (strcmp(home, t->cfg->id) != 0)
			refuse(le, sae, "it lives elsewhere by the configuration");
		return;
	}
	claim *const c = find_claim(l, sae);
	if (c != NULL && c->owner == t)
		c->stale = false;
	else if (c != NULL)
		refuse(le, sae, "another neighbour claims it");
	else if (add_claim(l, t, sae) == QG_OK)
		le->learned++;
	else
		refuse(le, sae, "there is no room");
}

static teacher *
find_teacher(qg_learned *l, const char *kme)
{
	for (size_t i = 0; i < l->n_teachers; i++)
		if (strcmp(l->teachers[i].cfg->id, kme) == 0)
			return &l->teachers[i];
	return NULL;
}

/* Once a minute for each neighbour. */
static bool
refusal_due(teacher *t)
{
	const uint64_t now_ms = qg_clock_elapsed_ms();
	if (t->told_ms != 0 && now_ms - t->told_ms < TELL_AGAIN_MS)
		return false;
	t->told_ms = now_ms > 0 ? now_ms : 1;
	return true;
}

void
qg_directory_learn(qg_directory *d, const char *kme, const qg_kms_saes *saes)
{
	lesson le = {.learned = 0};
	bool told = false;
	qg_learned *const l = qg_directory_learned(d);
	teacher *const t = find_teacher(l, kme);
	if (t == NULL)
		return;
	pthread_rwlock_wrlock(&l->lock);
	for (claim *c = t->claims; c != NULL; c = c->sibling)
		c->stale = true;
	for (size_t i = 0; i < saes->n && i < QG_KMS_SAES_MAX; i++)
		take_claim(d, l, t, saes->id[i], &le);
	le.dropped = remove_stale(l, t);
	le.all = l->n;
	if (le.refused > 0)
		told = refusal_due(t);
	pthread_rwlock_unlock(&l->lock);
	if (le.learned > 0 || le.dropped > 0)
		qg_log(QG_LOG_INFO, "directory", "event=saes_learned neighbour=%s new=%u gone=%u all=%zu",
		       t->cfg->id, le.learned, le.dropped, le.all);
	if (told)
		qg_log(QG_LOG_WARN, "directory", "event=saes_refused neighbour=%s n=%u sae=%s reason=\"%s\"", t->cfg->id,
		       le.refused, qg_log_safe(le.sae), le.why);
}

/* --- what is told ----------------------------------------------------------------------- */

void
qg_learned_tell(qg_learned *l, const qg_config *cfg, qg_kms_saes *out)
{
	out->n = 0;
	for (size_t i = 0; i < cfg->n_saes && out->n < QG_KMS_SAES_MAX; i++) {
		const size_t len = strlen(cfg->saes[i].id);
		if (len <= QG_KMS_SAE_MAX)
			memcpy(out->id[out->n++], cfg->saes[i].id, len + 1);
	}
	if (out->n < cfg->n_saes && !atomic_flag_test_and_set(&l->cut_told))
		qg_log(QG_LOG_WARN, "directory", "event=saes_not_told known=%zu told=%zu", cfg->n_saes, out->n);
}
