/* SPDX-License-Identifier: Apache-2.0 */
/* Housekeeping: records whose time has passed, and values nobody is owed. */
#include <stdlib.h>

#include "qkdgate/log.h"
#include "transfer_internal.h"

#define SCAN_BUCKETS 1024 /* looked at under one lock */
#define PURGE_ROWS 128    /* in one job */

typedef struct purge {
	qg_job job; /* first */
	qg_transfers *owner;
	size_t n;
	qg_transfer *x[PURGE_ROWS];
} purge;

static qg_err
purge_run(qg_job *job, qg_store *store)
{
	const purge *p = (const purge *)job;
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < p->n; i++) {
		const int64_t row = p->x[i]->row;
		err = p->x[i]->purging == QG_PURGE_ALL ? store->ops->transfer_delete(store, row)
						       : store->ops->transfer_unseal(store, row);
	}
	return err;
}

/* What could not be written is taken up again next time. */
static void
purge_done(qg_job *job, qg_err err)
{
	purge *p = (purge *)job;
	qg_transfers *t = p->owner;
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < p->n; i++) {
		qg_transfer *x = p->x[i];
		const bool over = x->purging == QG_PURGE_ALL;
		x->purging = QG_PURGE_NOT;
		if (err != QG_OK)
			continue;
		x->value_stored = false;
		qg_transfer_drop_value(x);
		if (over) {
			qg_transfer_take_out(t, x);
			qg_transfer_record_free(x);
		}
	}
	pthread_mutex_unlock(&t->lock);
	if (err != QG_OK && err != QG_E_CLOSED)
		qg_log(QG_LOG_WARN, "transfer", "event=purge_failed records=%zu error=\"%s\"", p->n,
		       qg_err_text(err));
	free(p);
}

/* Whether nothing more is owed to the record or to be feared for it. */
static bool
is_over(const qg_transfer *x, uint64_t now_ms)
{
	const uint64_t grace_ms = x->origin != NULL ? QG_TRANSFER_GRACE_MS : 0;
	return x->state != QG_TRANSFER_VOIDING && x->expiry_ms <= now_ms && now_ms - x->expiry_ms >= grace_ms;
}

static bool
is_due(const qg_transfer *x, uint64_t now_ms)
{
	if (x->purging || x->claims > 0 || x->pins > 0)
		return false;
	return is_over(x, now_ms) ||
	       (x->value_stored && (x->expiry_ms <= now_ms || qg_transfer_is_spent(x)));
}

/* False when p is full before the bucket's end. */
static bool
collect_bucket(const qg_transfers *t, qg_transfer *first, uint64_t owner_ms, purge *p)
{
	for (qg_transfer *x = first; x != NULL; x = x->next) {
		const uint64_t now_ms = qg_transfer_clock(t, x, owner_ms);
		if (!is_due(x, now_ms))
			continue;
		if (p->n == PURGE_ROWS)
			return false;
		x->purging = is_over(x, now_ms) ? QG_PURGE_ALL : QG_PURGE_VALUE;
		p->x[p->n++] = x;
	}
	return true;
}

/* Looks at some buckets from *at on. Returns whether more are left. */
static bool
collect(qg_transfers *t, uint64_t now_ms, size_t *at, purge *p)
{
	pthread_mutex_lock(&t->lock);
	bool room = true;
	for (size_t i = 0; room && i < SCAN_BUCKETS && *at < t->n_buckets; i++) {
		room = collect_bucket(t, t->buckets[*at], now_ms, p);
		*at += room;
	}
	const bool more = *at < t->n_buckets;
	pthread_mutex_unlock(&t->lock);
	return more;
}

uint32_t
qg_transfers_oldest_generation(qg_transfers *t)
{
	uint32_t oldest = UINT32_MAX;
	bool more = true;
	for (size_t at = 0; more;) {
		pthread_mutex_lock(&t->lock);
		for (size_t i = 0; i < SCAN_BUCKETS && at < t->n_buckets; i++, at++) {
			for (const qg_transfer *x = t->buckets[at]; x != NULL; x = x->next) {
				if (x->sealed == NULL)
					continue;
				const uint32_t generation = qg_seal_generation(x->sealed, x->sealed_len);
				if (generation < oldest)
					oldest = generation;
			}
		}
		more = at < t->n_buckets;
		pthread_mutex_unlock(&t->lock);
	}
	return oldest;
}

static size_t
count_over(const purge *p)
{
	size_t n = 0;
	for (size_t i = 0; i < p->n; i++)
		n += p->x[i]->purging == QG_PURGE_ALL;
	return n;
}

size_t
qg_transfers_expire(qg_transfers *t, qg_committer *c, uint64_t now_ms)
{
	size_t expired = 0;
	size_t at = 0;
	bool more = true;
	while (more) {
		purge *p = calloc(1, sizeof *p);
		if (p == NULL)
			break;
		p->job = (qg_job){.run = purge_run, .done = purge_done};
		p->owner = t;
		more = collect(t, now_ms, &at, p);
		expired += count_over(p);
		if (p->n > 0)
			qg_committer_submit(c, &p->job);
		else
			free(p);
	}
	return expired;
}
