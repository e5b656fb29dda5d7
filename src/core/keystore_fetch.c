/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* Keys to slaves: every ID of a request is resolved to chunks of a confirmed
 * segment or to a transferred key, all are reserved, their consumption is
 * committed, and only then does key leave (DESIGN, idea 6; SOUNDNESS 10, 13). */

typedef struct fetch_item {
	qg_segment *seg; /* pinned, or NULL: claim */
	qg_transfer_claim *claim;
	uint32_t first, chunks;
} fetch_item;

typedef struct pair_cache {
	const qg_key_id_keys *keys;
	qg_key_id_pair pair;
} pair_cache;

typedef struct fetch_op {
	qg_job job;
	qg_waiter waiter;
	struct qg_core *core;
	const qg_fetch_request *req;
	qg_fetch_done *done;
	void *ctx;
	qg_secret *keys;
	uint16_t *sizes;
	size_t n_items;
	bool unreadable; /* a value of them */
	pair_cache cache[QG_LIVE_EPOCHS];
	size_t n_cache;
	fetch_item item[];
} fetch_op;

static void fetch_start(fetch_op *op);

/* --- finding --------------------------------------------------------------------- */

static const qg_key_id_pair *
pair_of(fetch_op *op, qg_key_id_keys *keys)
{
	for (size_t i = 0; i < op->n_cache; i++)
		if (op->cache[i].keys == keys)
			return &op->cache[i].pair;
	size_t slot = op->n_cache < QG_LIVE_EPOCHS ? op->n_cache++ : QG_LIVE_EPOCHS - 1;
	op->cache[slot].keys = keys;
	qg_key_id_pair_find(keys, op->req->master, op->req->slave, &op->cache[slot].pair);
	return &op->cache[slot].pair;
}

/* Whether the request itself holds one of the chunks: two IDs that overlap,
 * which no honest owner makes, must not wait for each other. */
static bool
is_own(const fetch_op *op, const qg_segment *s, uint32_t first, uint32_t chunks, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const fetch_item *it = &op->item[i];
		if (it->seg == s && first < it->first + it->chunks && it->first < first + chunks)
			return true;
	}
	return false;
}

/* Reserves the chunks of a position. QG_E_AGAIN while another request for one
 * of them is under way. */
static qg_err
reserve_position(fetch_op *op, qg_epoch *e, qg_key_id_position pos, size_t n)
{
	uint32_t number = pos.index / e->segment_chunks, first = pos.index % e->segment_chunks;
	uint32_t chunks = (pos.size_bytes + e->chunk_size - 1) / e->chunk_size;
	qg_segment *s = qg_epoch_segment(e, number);
	if (s == NULL || s->ours || s->phase != QG_SEG_CONFIRMED || s->use != QG_USE_APPLICATION ||
	    s->data == NULL || first < s->lo || first + chunks > s->hi || qg_segment_expired(s))
		return QG_E_NOTFOUND;
	if (qg_bits_any(s->used, first, chunks))
		return qg_bits_any(s->gone, first, chunks) || is_own(op, s, first, chunks, n) ? QG_E_NOTFOUND
											      : QG_E_AGAIN;
	qg_bits_set(s->used, first, chunks);
	s->pins++;
	e->pins++;
	op->item[n] = (fetch_item){.seg = s, .first = first, .chunks = chunks};
	op->sizes[n] = pos.size_bytes;
	return QG_OK;
}

/* Looks in the inbound directions of one stream. QG_E_NOTFOUND with *issued
 * false: not issued there. */
static qg_err
find_in_stream(fetch_op *op, qg_stream *st, const qg_uuid *id, size_t n, bool *issued)
{
	qg_err err = QG_E_NOTFOUND;
	unsigned tried = 0;
	pthread_mutex_lock(&st->lock);
	for (qg_epoch *e = st->newest; e != NULL && tried < QG_LIVE_EPOCHS && !*issued; e = e->older) {
		if (e->keys_in == NULL)
			continue;
		tried++;
		qg_key_id_position pos;
		qg_err opened = qg_key_id_open(e->keys_in, pair_of(op, e->keys_in), id, &pos);
		*issued = opened == QG_OK || opened == QG_E_DENIED;
		if (opened == QG_OK)
			err = reserve_position(op, e, pos, n);
		else if (opened == QG_E_DENIED)
			err = QG_E_DENIED;
	}
	pthread_mutex_unlock(&st->lock);
	return err;
}

/* For the status only: whether any live epoch issued the ID, whoever asks. */
static bool
issued_anywhere(fetch_op *op, const qg_uuid *id)
{
	struct qg_core *core = op->core;
	uint32_t wait_s = 0;
	if (qg_limits_take(core->unknown_limit, "", 1, qg_clock_elapsed_ms(), &wait_s) != QG_OK)
		return false;
	bool issued = false;
	static const qg_key_id_pair nobody;
	for (size_t i = 0; i < core->n_streams && !issued; i++) {
		qg_stream *st = &core->stream[i];
		qg_key_id_position pos;
		pthread_mutex_lock(&st->lock);
		for (qg_epoch *e = st->newest; e != NULL && !issued; e = e->older) {
			if (e->keys_in != NULL)
				issued = qg_key_id_open(e->keys_in, &nobody, id, &pos) != QG_E_NOTFOUND;
			if (e->keys_out != NULL && !issued)
				issued = qg_key_id_open(e->keys_out, &nobody, id, &pos) != QG_E_NOTFOUND;
		}
		pthread_mutex_unlock(&st->lock);
	}
	return issued;
}

static qg_err
find_key(fetch_op *op, const char *home, const qg_uuid *id, size_t n)
{
	struct qg_core *core = op->core;
	uint64_t now_ms = qg_lifetime_owner_ms(&core->life);
	qg_transfer_claim *claim = NULL;
	qg_err err =
		qg_transfer_claim_new(core->transfers, op->req->master, id, op->req->slave, now_ms, &claim);
	if (err == QG_OK) {
		op->item[n] = (fetch_item){.claim = claim};
		op->sizes[n] = (uint16_t)qg_transfer_claim_size(claim);
		return QG_OK;
	}
	if (err != QG_E_NOTFOUND)
		return err == QG_E_CONSUMED || err == QG_E_EXPIRED ? QG_E_NOTFOUND : err;
	bool issued = false;
	for (size_t i = 0; i < core->n_streams && home != NULL && !issued; i++) {
		qg_stream *st = &core->stream[i];
		if (st->cfg->direction != QG_DIRECTION_OUTBOUND && strcmp(st->neighbour->id, home) == 0)
			err = find_in_stream(op, st, id, n, &issued);
	}
	if (issued)
		return err;
	return qg_transfer_known(core->transfers, id) || issued_anywhere(op, id) ? QG_E_DENIED
										 : QG_E_NOTFOUND;
}

/* --- reserving all or none --------------------------------------------------------- */

static void
release_items(fetch_op *op)
{
	for (size_t i = 0; i < op->n_items; i++) {
		fetch_item *it = &op->item[i];
		if (it->claim != NULL)
			qg_transfer_claim_end(op->core->transfers, &it->claim, QG_E_CLOSED);
		if (it->seg == NULL)
			continue;
		qg_epoch *e = it->seg->epoch;
		qg_stream *st = e->stream;
		pthread_mutex_lock(&st->lock);
		qg_bits_clear(it->seg->used, it->first, it->chunks);
		e->pins--;
		qg_segment_unpin(it->seg);
		pthread_mutex_unlock(&st->lock);
		it->seg = NULL;
	}
	op->n_items = 0;
}

/* Every ID is judged, since a 401 of one outweighs a 400 of another. */
static qg_err
reserve_all(fetch_op *op)
{
	const char *home = op->req->kme != NULL
				   ? op->req->kme
				   : qg_directory_home(op->core->part.directory, op->req->master);
	bool denied = false, missing = false, again = false, failed = false;
	op->n_items = op->n_cache = 0;
	for (size_t i = 0; i < op->req->n; i++) {
		qg_err err = find_key(op, home, &op->req->ids[i], op->n_items);
		if (err == QG_OK)
			op->n_items++;
		denied |= err == QG_E_DENIED;
		missing |= err == QG_E_NOTFOUND;
		again |= err == QG_E_AGAIN;
		failed |= err != QG_OK && err != QG_E_DENIED && err != QG_E_NOTFOUND && err != QG_E_AGAIN;
	}
	if (!denied && !missing && !again && !failed)
		return QG_OK;
	release_items(op);
	if (denied)
		return QG_E_DENIED;
	if (missing)
		return QG_E_NOTFOUND;
	return failed ? QG_E_IO : QG_E_AGAIN;
}

/* --- committing ---------------------------------------------------------------------- */

static qg_err
fetch_run(qg_job *job, qg_store *store)
{
	fetch_op *op = (fetch_op *)job;
	for (size_t i = 0; i < op->n_items; i++) {
		fetch_item *it = &op->item[i];
		if (it->seg != NULL) {
			qg_err err = qg_commit_stage(op->core, store, it->seg, it->first, it->chunks);
			if (err != QG_OK)
				return err;
			continue;
		}
		qg_err err = qg_transfer_claim_store(it->claim, store);
		if (err != QG_OK)
			return err;
		qg_commit_note_consumed(op->core);
	}
	return QG_OK;
}

static qg_err
take_segment_item(fetch_op *op, fetch_item *it, uint16_t size)
{
	qg_segment *s = it->seg;
	qg_epoch *e = s->epoch;
	qg_stream *st = e->stream;
	qg_err err = QG_OK;
	pthread_mutex_lock(&st->lock);
	qg_bits_set(s->gone, it->first, it->chunks);
	if (s->removed || s->data == NULL) {
		err = QG_E_EXPIRED;
	} else {
		err = qg_secret_append(op->keys, qg_segment_chunk(s, it->first), size);
		qg_segment_wipe(s, it->first, it->chunks);
		s->left -= it->chunks;
		st->held -= it->chunks;
		st->n_fetched += it->chunks;
		if (s->left == 0)
			qg_segment_drop_data(s);
	}
	e->pins--;
	qg_segment_unpin(s);
	pthread_mutex_unlock(&st->lock);
	it->seg = NULL;
	return err;
}

static qg_err
take_claim_item(fetch_op *op, fetch_item *it, uint16_t size)
{
	op->keys->len += size; /* there since claims_unseal */
	qg_transfer_claim_end(op->core->transfers, &it->claim, QG_OK);
	return op->unreadable ? QG_E_NOTFOUND : QG_OK;
}

static qg_err
take_items(fetch_op *op)
{
	qg_err err = QG_OK;
	for (size_t i = 0; i < op->n_items; i++) {
		fetch_item *it = &op->item[i];
		qg_err one = it->seg != NULL ? take_segment_item(op, it, op->sizes[i])
					     : take_claim_item(op, it, op->sizes[i]);
		if (one != QG_OK)
			err = one;
	}
	return err;
}

/* A commit of unknown outcome: everything in it counts as consumed (SOUNDNESS
 * 9), and what the store holds is read again before it is compared. */
static void
lose_items(fetch_op *op)
{
	for (size_t i = 0; i < op->n_items; i++) {
		fetch_item *it = &op->item[i];
		if (it->claim != NULL)
			qg_transfer_claim_end(op->core->transfers, &it->claim, QG_E_UNKNOWN);
		if (it->seg == NULL)
			continue;
		qg_stream *st = it->seg->epoch->stream;
		pthread_mutex_lock(&st->lock);
		qg_bits_set(it->seg->gone, it->first, it->chunks);
		it->seg->reread = true;
		it->seg->epoch->pins--;
		qg_segment_unpin(it->seg);
		pthread_mutex_unlock(&st->lock);
		it->seg = NULL;
	}
}

static void
wake_waiters(struct qg_core *core)
{
	pthread_mutex_lock(&core->fetch_lock);
	qg_waiter *list = core->fetch_waiters;
	core->fetch_waiters = NULL;
	pthread_mutex_unlock(&core->fetch_lock);
	qg_stream_run_waiters(list, QG_OK);
}

static void
fetch_finish(fetch_op *op, qg_err err)
{
	qg_fetch_result r = {.err = err, .sizes = op->sizes};
	if (err == QG_OK) {
		r.keys = op->keys;
		op->keys = NULL;
	}
	op->done(op->ctx, &r);
	qg_secret_free(&op->keys);
	qg_wipe(op->cache, sizeof op->cache);
	free(op->sizes);
	free(op);
}

static void
fetch_done(qg_job *job, qg_err err)
{
	fetch_op *op = (fetch_op *)job;
	struct qg_core *core = op->core;
	if (err == QG_OK) {
		err = take_items(op);
		if (err != QG_OK)
			err = QG_E_NOTFOUND;
	} else if (err == QG_E_CONSUMED || err == QG_E_STATE) {
		/* The store decides: one of them was consumed before, so nothing of
		 * this request happened. */
		release_items(op);
		err = QG_E_NOTFOUND;
	} else if (err == QG_E_UNKNOWN) {
		lose_items(op);
		err = QG_E_IO;
	} else {
		release_items(op);
		err = QG_E_IO;
	}
	fetch_finish(op, err);
	wake_waiters(core);
}

/* --- entry ------------------------------------------------------------------------- */

static void
fetch_again(qg_waiter *w, qg_err err)
{
	(void)err;
	fetch_start((fetch_op *)((char *)w - offsetof(fetch_op, waiter)));
}

/* Reserving is done by one request at a time: so no other ever sees what is
 * reserved and let go again, and whoever waits, waits for a request that is
 * with the committer and wakes it. At start nothing is delivered before the
 * neighbours said whether the store is an old one (SOUNDNESS 9). */
static qg_err
reserve_or_wait(fetch_op *op)
{
	struct qg_core *core = op->core;
	pthread_mutex_lock(&core->fetch_lock);
	qg_err err = core->asking > 0 ? QG_E_AGAIN : reserve_all(op);
	if (err == QG_E_AGAIN) {
		op->waiter.again = fetch_again;
		op->waiter.next = core->fetch_waiters;
		core->fetch_waiters = &op->waiter;
	}
	pthread_mutex_unlock(&core->fetch_lock);
	return err;
}

/* Each value is put where it belongs among the keys before anything counts as delivered: what
 * there is no memory for stays, what cannot be read ever is gone. */
static qg_err
claims_unseal(fetch_op *op)
{
	size_t at = 0;
	for (size_t i = 0; i < op->n_items; at += op->sizes[i++]) {
		if (op->item[i].claim == NULL)
			continue;
		const qg_err err = qg_transfer_claim_value(op->item[i].claim, op->keys->data + at);
		if (err == QG_E_NOMEM)
			return err;
		op->unreadable |= err != QG_OK;
	}
	return QG_OK;
}

static void
fetch_start(fetch_op *op)
{
	qg_err err = reserve_or_wait(op);
	if (err == QG_E_AGAIN)
		return;
	size_t bytes = 0;
	for (size_t i = 0; i < op->n_items && err == QG_OK; i++)
		bytes += op->sizes[i];
	if (err == QG_OK && (qg_secret_new(bytes, &op->keys) != QG_OK || claims_unseal(op) != QG_OK)) {
		struct qg_core *core = op->core;
		release_items(op);
		fetch_finish(op, QG_E_IO);
		wake_waiters(core);
		return;
	}
	if (err != QG_OK) {
		fetch_finish(op, err);
		return;
	}
	op->job.run = fetch_run;
	op->job.done = fetch_done;
	qg_committer_submit(op->core->committer, &op->job);
}

void
qg_fetch_settled(struct qg_core *core)
{
	pthread_mutex_lock(&core->fetch_lock);
	bool last = --core->asking == 0;
	pthread_mutex_unlock(&core->fetch_lock);
	if (last)
		wake_waiters(core);
}

void
qg_keystore_fetch(qg_keystore *ks, const qg_fetch_request *req, qg_fetch_done *done, void *ctx)
{
	fetch_op *op = NULL;
	if (req->n > 0 && req->n <= QG_KEYSTORE_KEYS_MAX)
		op = calloc(1, sizeof *op + req->n * sizeof op->item[0]);
	if (op != NULL)
		op->sizes = calloc(req->n, sizeof *op->sizes);
	if (op == NULL || op->sizes == NULL) {
		free(op);
		done(ctx, &(qg_fetch_result){.err = QG_E_IO});
		return;
	}
	op->core = ks->core;
	op->req = req;
	op->done = done;
	op->ctx = ctx;
	fetch_start(op);
}
