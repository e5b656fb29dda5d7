/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that a rate refused: one line for each caller and minute with their number,
 * so that nobody fills the log with them. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit_internal.h"
#include "qkdgate/bytes.h"
#include "qkdgate/clock.h"

#define CALLERS_MAX 1024u /* names of the configuration; those beyond count as "" */
#define BUCKETS 256u
#define EVERY_MS 60000

typedef struct caller {
	uint16_t next; /* of the same bucket; 0: none */
	uint64_t n;    /* refused, and not yet in a line */
	bool told;
	uint64_t told_ms;
	char name[QG_AUDIT_STRING_MAX + 1];
} caller;

struct qg_audit_tally {
	pthread_mutex_t lock;
	size_t used; /* from 1; the one at 0 has no name */
	uint16_t bucket[BUCKETS];
	caller caller[CALLERS_MAX];
};

qg_err
qg_audit_tally_new(qg_audit_tally **out)
{
	qg_audit_tally *t = calloc(1, sizeof *t);
	if (t == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&t->lock, NULL);
	t->used = 1;
	*out = t;
	return QG_OK;
}

void
qg_audit_tally_free(qg_audit_tally **t)
{
	if (*t == NULL)
		return;
	pthread_mutex_destroy(&(*t)->lock);
	free(*t);
	*t = NULL;
}

/* Under the lock. */
static caller *
caller_of(qg_audit_tally *t, const char *name)
{
	const size_t len = strnlen(name, QG_AUDIT_STRING_MAX);
	uint16_t *const bucket = &t->bucket[qg_hash(name, len) % BUCKETS];
	for (uint16_t i = *bucket; i != 0; i = t->caller[i].next)
		if (strlen(t->caller[i].name) == len && memcmp(t->caller[i].name, name, len) == 0)
			return &t->caller[i];
	if (len == 0 || t->used == CALLERS_MAX)
		return &t->caller[0];
	caller *c = &t->caller[t->used];
	memcpy(c->name, name, len);
	c->next = *bucket;
	*bucket = (uint16_t)t->used++;
	return c;
}

void
qg_audit_limited(qg_audit *a, const char *name)
{
	qg_audit_tally *t = qg_audit_tally_of(a);
	if (t == NULL)
		return;
	pthread_mutex_lock(&t->lock);
	caller_of(t, name)->n++;
	pthread_mutex_unlock(&t->lock);
}

/* Under the lock; how many are to be told of now. */
static uint64_t
take_due(caller *c, uint64_t now_ms, bool all)
{
	const uint64_t n = c->n;
	if (n == 0 || (!all && c->told && now_ms - c->told_ms < EVERY_MS))
		return 0;
	c->n = 0;
	c->told = true;
	c->told_ms = now_ms;
	return n;
}

void
qg_audit_tell_limited(qg_audit *a, bool all)
{
	qg_audit_tally *t = qg_audit_tally_of(a);
	const uint64_t now_ms = qg_clock_elapsed_ms();
	if (t == NULL || !qg_audit_healthy(a)) /* its queue is kept for keys */
		return;
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < t->used; i++) {
		char reason[64];
		caller *c = &t->caller[i];
		const uint64_t n = take_due(c, now_ms, all);
		if (n == 0)
			continue;
		(void)snprintf(reason, sizeof reason, "rate limit exceeded: %llu requests", (unsigned long long)n);
		pthread_mutex_unlock(&t->lock); /* the name stays */
		qg_audit_write(a, &(qg_audit_event){
					  .act = QG_AUDIT_REFUSED, .caller = c->name, .peer = "", .reason = reason});
		pthread_mutex_lock(&t->lock);
	}
	pthread_mutex_unlock(&t->lock);
}
