/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "records_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* Keys to masters: allocation from our directions of the streams towards the
 * slave's KME. Under the durable mark it needs no disk; a request that is ahead
 * of the mark waits for the lease under way. */

#define LEASE_TRIES 8

typedef struct issue_op {
	qg_waiter waiter;
	struct qg_core *core;
	const qg_issue_request *req;
	qg_issue_done *done;
	void *ctx;
	unsigned tries;
} issue_op;

/* The streams a request may draw from, locked together in their order. */
typedef struct source_set {
	qg_stream *st[QG_STREAMS_PER_KME];
	size_t n;
} source_set;

static void
lock_all(source_set *set)
{
	for (size_t i = 0; i < set->n; i++)
		pthread_mutex_lock(&set->st[i]->lock);
}

static void
unlock_all(source_set *set)
{
	for (size_t i = set->n; i-- > 0;)
		pthread_mutex_unlock(&set->st[i]->lock);
}

static qg_err
choose_streams(struct qg_core *core, const qg_issue_request *req, const char *home, source_set *set)
{
	bool any = false, near = false;
	set->n = 0;
	const bool whichever = qg_transfer_is_peer(home);
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		if (st->cfg->direction == QG_DIRECTION_INBOUND ||
		    (!whichever && strcmp(st->neighbour->id, home) != 0))
			continue;
		any = true;
		if (st->hops_most < req->min_hops || st->hops_least > req->max_hops)
			continue;
		near = true;
		uint32_t most = qg_segment_max_key_bytes(st->cfg->chunk_size, st->cfg->segment_chunks);
		if (req->size_bytes <= most && set->n < QG_STREAMS_PER_KME)
			set->st[set->n++] = st;
	}
	if (!any)
		return QG_E_NOTFOUND;
	if (!near)
		return QG_E_STATE;
	return set->n > 0 ? QG_OK : QG_E_RANGE;
}

static uint32_t
chunks_of(const qg_epoch *e, uint32_t size_bytes)
{
	return (size_bytes + e->chunk_size - 1) / e->chunk_size;
}

/* Those of other hops are passed over, not consumed. */
static bool
segment_issuable(const qg_segment *s, const qg_issue_request *req, uint64_t now_ms)
{
	return s != NULL && s->ours && s->phase == QG_SEG_CONFIRMED && s->use == QG_USE_APPLICATION &&
	       s->cursor < s->hi && s->hops >= req->min_hops && s->hops <= req->max_hops &&
	       now_ms < s->born_ms + (uint64_t)s->issue_s * 1000;
}

static bool
epoch_issuable(const qg_stream *st, const qg_epoch *e)
{
	return e->row != 0 && e->state != QG_EPOCH_DRAINING && e->keys_out != NULL && st->checked;
}

/* Oldest first. */
static size_t
list_epochs(const qg_stream *st, qg_epoch *list[QG_ISSUE_EPOCHS])
{
	qg_epoch *found[QG_ISSUE_EPOCHS];
	size_t n = 0;
	for (qg_epoch *e = st->newest; e != NULL && n < QG_ISSUE_EPOCHS; e = e->older)
		if (epoch_issuable(st, e))
			found[n++] = e;
	for (size_t i = 0; i < n; i++)
		list[i] = found[n - 1 - i];
	return n;
}

/* What a stock can give: keys under the mark, keys in all, and the age of the
 * first chunk that would be taken. */
typedef struct stock {
	uint64_t leased, total, ready_chunks, need_chunks;
	int64_t oldest_wall_ms;
} stock;

static void
count_epoch(const qg_epoch *e, const qg_issue_request *req, uint64_t now_ms, stock *k)
{
	uint32_t c = chunks_of(e, req->size_bytes);
	uint32_t from = e->issue_from > e->base ? e->issue_from - e->base : 0;
	k->need_chunks = (uint64_t)c * req->number;
	for (uint32_t i = from; i < e->n_seg && k->leased < req->number; i++) {
		const qg_segment *s = e->seg[i];
		if (!segment_issuable(s, req, now_ms))
			continue;
		if (k->total == 0)
			k->oldest_wall_ms = s->ready_wall_ms;
		k->leased += qg_lease_room(s) / c;
		k->total += (s->hi - s->cursor) / c;
	}
}

static void
count_stock(const source_set *set, const qg_issue_request *req, uint64_t now_ms, stock *k)
{
	memset(k, 0, sizeof *k);
	for (size_t i = 0; i < set->n; i++) {
		qg_epoch *list[QG_ISSUE_EPOCHS];
		size_t n = list_epochs(set->st[i], list);
		for (size_t j = 0; j < n; j++)
			count_epoch(list[j], req, now_ms, k);
		k->ready_chunks += set->st[i]->ready;
	}
}

static void
pair_name(const qg_issue_request *req, char *out, size_t room)
{
	const char *first = req->account != NULL ? req->account : req->master;
	const char *second = req->account != NULL ? "" : req->slave;
	size_t n = strlen(first), m = strlen(second);
	n = n < room / 2 - 1 ? n : room / 2 - 1;
	m = m < room / 2 - 1 ? m : room / 2 - 1;
	memcpy(out, first, n);
	out[n] = '\x1f';
	memcpy(out + n + 1, second, m);
	out[n + 1 + m] = '\0';
}

/* One SAE that never fetches must not starve the link (SOUNDNESS 15): a pair
 * has a quota within T_fetch, and the last part of the pool is for pairs that
 * took less than that part. */
static qg_err
fair_share(struct qg_core *core, const qg_issue_request *req, const stock *k, uint64_t now_ms,
	   uint32_t *retry_after_s)
{
	char name[1024];
	pair_name(req, name, sizeof name);
	uint64_t reserve = (uint64_t)core->part.cfg->ready_chunks * core->part.cfg->reserve_percent / 100;
	if (k->ready_chunks < k->need_chunks + reserve &&
	    qg_window_sum(core->pair_window, name, now_ms) + k->need_chunks > reserve) {
		*retry_after_s = 1;
		return QG_E_EMPTY;
	}
	return qg_window_add(core->pair_window, name, k->need_chunks, now_ms, retry_after_s);
}

/* What was taken so far. */
typedef struct issued {
	uint32_t n;
	qg_uuid *ids;
	uint32_t *hops;
	qg_secret *keys;
} issued;

static void
take_from_segment(qg_segment *s, const qg_key_id_pair *pair, const qg_issue_request *req, issued *got)
{
	qg_epoch *e = s->epoch;
	uint32_t c = chunks_of(e, req->size_bytes), first = s->cursor, room = qg_lease_room(s) / c;
	for (; room > 0 && got->n < req->number; room--) {
		qg_key_id_position pos = {.index = (uint32_t)(s->first_index + s->cursor),
					  .size_bytes = (uint16_t)req->size_bytes};
		qg_key_id_make(e->keys_out, pair, pos, &got->ids[got->n]);
		got->hops[got->n] = s->hops;
		memcpy(got->keys->data + got->keys->len, qg_segment_chunk(s, s->cursor), req->size_bytes);
		got->keys->len += req->size_bytes;
		s->cursor += c;
		got->n++;
	}
	/* A tail too short for this key is given up: what is issued only moves up. */
	if (got->n < req->number && s->hi - s->cursor < c)
		s->cursor = s->hi;
	qg_segment_wipe(s, first, s->cursor - first);
	e->stream->ready -= s->cursor - first;
	e->stream->n_issued += s->cursor - first;
}

/* Segments that have nothing left to issue are passed over from now on. */
static void
advance_issue_from(qg_epoch *e)
{
	uint32_t n = e->issue_from > e->base ? e->issue_from : e->base;
	for (; n - e->base < e->n_seg; n++) {
		const qg_segment *s = e->seg[n - e->base];
		if (s == NULL || !s->ours || (s->use != QG_USE_APPLICATION && s->phase == QG_SEG_CONFIRMED))
			continue;
		if (s->phase != QG_SEG_CONFIRMED || s->cursor < s->hi)
			break;
	}
	e->issue_from = n;
}

static void
take_from_epoch(qg_epoch *e, const qg_issue_request *req, uint64_t now_ms, issued *got)
{
	qg_key_id_pair pair;
	uint32_t from = e->issue_from > e->base ? e->issue_from - e->base : 0;
	qg_key_id_pair_find(e->keys_out, req->master, req->slave, &pair);
	for (uint32_t i = from; i < e->n_seg && got->n < req->number; i++) {
		qg_segment *s = e->seg[i];
		if (segment_issuable(s, req, now_ms))
			take_from_segment(s, &pair, req, got);
	}
	advance_issue_from(e);
	qg_lease_step(e, 0);
	qg_wipe(&pair, sizeof pair);
}

static void
take_from_set(source_set *set, const qg_issue_request *req, uint64_t now_ms, issued *got)
{
	for (size_t i = 0; i < set->n && got->n < req->number; i++) {
		qg_epoch *list[QG_ISSUE_EPOCHS];
		size_t n = list_epochs(set->st[i], list);
		for (size_t j = 0; j < n && got->n < req->number; j++)
			take_from_epoch(list[j], req, now_ms, got);
		if (set->st[i]->wants_room) {
			set->st[i]->wants_room = false;
			pthread_cond_broadcast(&set->st[i]->wake);
		}
	}
	assert(got->n == req->number);
}

static void lease_again(qg_waiter *w, qg_err err);

/* Chunks behind the mark up to the end of what the request would take; 0: the
 * epoch has nothing more for it. */
static uint32_t
lease_need(const qg_epoch *e, const qg_issue_request *req, uint64_t now_ms)
{
	uint32_t from_seg = e->issue_from > e->base ? e->issue_from - e->base : 0;
	for (uint32_t i = from_seg; i < e->n_seg; i++) {
		const qg_segment *s = e->seg[i];
		if (!segment_issuable(s, req, now_ms) || s->first_index + s->hi <= e->mark)
			continue;
		const uint64_t from = s->first_index + s->cursor;
		return (from > e->mark ? (uint32_t)(from - e->mark) : 0) +
		       chunks_of(e, req->size_bytes) * req->number;
	}
	return 0;
}

/* Asks for leases and, when one is under way, leaves the request to wait. */
static qg_err
wait_for_lease(source_set *set, const qg_issue_request *req, uint64_t now_ms, issue_op *op)
{
	for (size_t i = 0; i < set->n; i++) {
		qg_epoch *list[QG_ISSUE_EPOCHS];
		size_t n = list_epochs(set->st[i], list);
		for (size_t j = 0; j < n; j++) {
			const uint32_t need = lease_need(list[j], req, now_ms);
			if (need > 0)
				qg_lease_step(list[j], need);
			if (need == 0 || list[j]->lease_wish == 0)
				continue;
			op->waiter.again = lease_again;
			op->waiter.next = set->st[i]->lease_waiters;
			set->st[i]->lease_waiters = &op->waiter;
			return QG_E_AGAIN;
		}
	}
	return QG_E_EMPTY;
}

static qg_err
issue_locked(issue_op *op, source_set *set, issued *got, uint32_t *retry_after_s)
{
	struct qg_core *core = op->core;
	uint64_t now_ms = qg_lifetime_owner_ms(&core->life);
	stock k;
	count_stock(set, op->req, now_ms, &k);
	if (k.total < op->req->number)
		return QG_E_EMPTY;
	if (op->req->max_age_ms > 0 && qg_clock_wall_ms() - k.oldest_wall_ms > (int64_t)op->req->max_age_ms)
		return QG_E_STATE;
	if (k.leased < op->req->number)
		return op->tries++ < LEASE_TRIES ? wait_for_lease(set, op->req, now_ms, op) : QG_E_EMPTY;
	qg_err err = fair_share(core, op->req, &k, qg_clock_elapsed_ms(), retry_after_s);
	if (err == QG_OK)
		take_from_set(set, op->req, now_ms, got);
	return err;
}

/* --- entry ----------------------------------------------------------------------- */

/* What a request with additional slaves tells of its keys, kept until their
 * records are stored. */
typedef struct hops_told {
	qg_issue_done *done;
	void *ctx;
	uint32_t hops[];
} hops_told;

static void
tell_hops(void *ctx, qg_issue_result *r)
{
	hops_told *t = ctx;
	r->hops = t->hops;
	t->done(t->ctx, r);
	free(t);
}

static void
issue_extra(issue_op *op, const issued *got, qg_secret **keys)
{
	const qg_issue_request *req = op->req;
	hops_told *t = malloc(sizeof *t + got->n * sizeof t->hops[0]);
	if (t == NULL) {
		op->done(op->ctx, &(qg_issue_result){.err = QG_E_IO});
		return;
	}
	t->done = op->done;
	t->ctx = op->ctx;
	memcpy(t->hops, got->hops, got->n * sizeof t->hops[0]);
	qg_records_issue(op->core, req, false, got->ids, keys, tell_hops, t);
}

/* For a slave of another network, of a master at its border: the value is drawn
 * from a stream of ours, which nobody fetches at the far end, and from this
 * node's own randomness, so that no other node has it. */
static void
issue_abroad(issue_op *op, qg_secret **keys)
{
	static _Thread_local qg_uuid ids[QG_KEYSTORE_KEYS_MAX];
	const qg_issue_request *req = op->req;
	QG_SECRET_AUTO *own = NULL;
	if (qg_secret_new((*keys)->len, &own) != QG_OK) {
		op->done(op->ctx, &(qg_issue_result){.err = QG_E_IO});
		return;
	}
	qg_random(own->data, (*keys)->len);
	for (size_t i = 0; i < (*keys)->len; i++)
		(*keys)->data[i] ^= own->data[i];
	for (uint32_t i = 0; i < req->number; i++)
		qg_uuid_random(&ids[i]);
	qg_records_issue(op->core, req, true, ids, keys, op->done, op->ctx);
}

static void
issue_deliver(issue_op *op, qg_err err, const issued *got, qg_secret **keys, uint32_t retry_after_s)
{
	if (err == QG_OK && qg_directory_foreign(op->core->part.directory, op->req->slave)) {
		issue_abroad(op, keys);
		return;
	}
	if (err == QG_OK && op->req->n_extra > 0) {
		issue_extra(op, got, keys);
		return;
	}
	qg_issue_result r = {.err = err, .ids = got->ids, .hops = got->hops, .retry_after_s = retry_after_s};
	if (err == QG_OK) {
		r.keys = *keys;
		*keys = NULL;
	}
	op->done(op->ctx, &r);
}

/* Whether keys are not of a stream: for a slave here; and for one of another
 * network, under the streams to its border, or at a border that has none. */
static bool
is_drawn(const issue_op *op, const char *home)
{
	struct qg_core *core = op->core;
	if (strcmp(home, core->part.cfg->kme_id) == 0)
		return true;
	if (!qg_directory_foreign(core->part.directory, op->req->slave))
		return false;
	for (size_t i = 0; qg_transfer_is_peer(home) && i < core->n_streams; i++)
		if (core->stream[i].cfg->direction != QG_DIRECTION_INBOUND)
			return false;
	return true;
}

/* Takes op: frees it, or leaves it to a lease under way. */
static void
issue_try(issue_op *op)
{
	static _Thread_local qg_uuid ids[QG_KEYSTORE_KEYS_MAX];
	static _Thread_local uint32_t hops[QG_KEYSTORE_KEYS_MAX];
	const qg_issue_request *req = op->req;
	const char *home =
		req->kme != NULL ? req->kme : qg_directory_home(op->core->part.directory, req->slave);
	source_set set;
	uint32_t retry_after_s = 1;
	QG_SECRET_AUTO *keys = NULL;

	qg_err err = home == NULL ? QG_E_NOTFOUND : qg_records_check(op->core, req);
	if (err == QG_OK && is_drawn(op, home)) {
		qg_records_draw(op->core, req, ids, op->done, op->ctx);
		free(op);
		return;
	}
	if (err == QG_OK)
		err = choose_streams(op->core, req, home, &set);
	if (err == QG_OK && qg_secret_new((size_t)req->number * req->size_bytes, &keys) != QG_OK)
		err = QG_E_IO;
	issued got = {.ids = ids, .hops = hops, .keys = keys};
	if (err == QG_OK) {
		lock_all(&set);
		err = issue_locked(op, &set, &got, &retry_after_s);
		unlock_all(&set);
	}
	if (err == QG_E_AGAIN)
		return;
	issue_deliver(op, err, &got, &keys, retry_after_s);
	free(op);
}

static void
lease_again(qg_waiter *w, qg_err err)
{
	issue_op *op = (issue_op *)w;
	if (err == QG_OK) {
		issue_try(op);
		return;
	}
	op->done(op->ctx, &(qg_issue_result){.err = QG_E_IO});
	free(op);
}

void
qg_keystore_issue(qg_keystore *ks, const qg_issue_request *req, qg_issue_done *done, void *ctx)
{
	if (req->number == 0 || req->number > QG_KEYSTORE_KEYS_MAX || req->size_bytes == 0 ||
	    req->size_bytes > 4095) {
		done(ctx, &(qg_issue_result){.err = QG_E_RANGE});
		return;
	}
	issue_op *op = calloc(1, sizeof *op);
	if (op == NULL) {
		done(ctx, &(qg_issue_result){.err = QG_E_IO});
		return;
	}
	op->core = ks->core;
	op->req = req;
	op->done = done;
	op->ctx = ctx;
	issue_try(op);
	/* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): one that waits is in a stream's list */
}
