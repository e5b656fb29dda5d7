/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/grow.h"
#include "qkdgate/log.h"

/* Streams and blocks at rest. Jobs are queued under the lock, so their order is
 * that of the changes; what they write is copied then. */

/* --- blocks -------------------------------------------------------------------------- */

void
qg_as_block_free(qg_as_block **b)
{
	if (*b == NULL)
		return;
	free((*b)->sealed);
	free((*b)->message);
	free(*b);
	*b = NULL;
}

qg_err
qg_as_block_add(qg_as_stream *st, qg_as_block *b)
{
	if (st->n_block == st->room_block) {
		const size_t room = st->room_block > 0 ? 2 * st->room_block : 16;
		qg_as_block **list = reallocarray(st->block, room, sizeof *list);
		if (list == NULL)
			return QG_E_NOMEM;
		st->block = list;
		st->room_block = room;
	}
	st->block[st->n_block++] = b;
	st->held_bytes += (uint64_t)b->count * st->qos.chunk_size;
	return QG_OK;
}

qg_as_block *
qg_as_block_of(const qg_as_stream *st, uint64_t index, size_t *at)
{
	size_t lo = 0, hi = st->n_block;
	while (lo < hi) {
		const size_t mid = lo + (hi - lo) / 2;
		qg_as_block *b = st->block[mid];
		if (index < b->first) {
			hi = mid;
		} else if (index >= (uint64_t)b->first + b->count) {
			lo = mid + 1;
		} else {
			if (at != NULL)
				*at = mid;
			return b;
		}
	}
	return NULL;
}

#define AD_MAX 64

static size_t
block_ad(const qg_as_stream *st, const qg_as_block *b, uint8_t out[AD_MAX])
{
	qg_writer w = qg_writer_of(out, AD_MAX);
	qg_put_lstr(&w, "qkdgate app block");
	qg_put_bytes(&w, st->ksid.b, sizeof st->ksid.b);
	qg_put_u32(&w, b->first);
	qg_put_u32(&w, b->serial);
	return w.len;
}

qg_err
qg_as_seal(const qg_as_stream *st, qg_as_block *b, uint32_t chunk_size, const uint8_t expect[QG_MAC_BYTES],
	   const uint8_t *chunks)
{
	const size_t bytes = (size_t)b->count * chunk_size;
	uint8_t ad[AD_MAX];
	QG_SECRET_AUTO *plain = NULL;
	qg_err err = qg_secret_new(QG_MAC_BYTES + bytes, &plain);
	if (err == QG_OK)
		err = qg_secret_append(plain, expect, QG_MAC_BYTES);
	if (err == QG_OK)
		err = qg_secret_append(plain, chunks, bytes);
	if (err != QG_OK)
		return err;
	const size_t ad_len = block_ad(st, b, ad);
	b->sealed_len = plain->len + QG_SEAL_OVERHEAD;
	b->sealed = malloc(b->sealed_len);
	if (b->sealed == NULL)
		return QG_E_NOMEM;
	return qg_sealer_seal(st->all->core->part.sealer, ad, ad_len, plain->data, plain->len, b->sealed);
}

qg_err
qg_as_unseal(const qg_as_stream *st, const qg_as_block *b, qg_secret **out)
{
	uint8_t ad[AD_MAX];
	const size_t ad_len = block_ad(st, b, ad);
	qg_secret *plain = NULL;
	const qg_err err =
		qg_sealer_unseal(st->all->core->part.sealer, ad, ad_len, b->sealed, b->sealed_len, &plain);
	if (err != QG_OK)
		return err;
	if (plain->len != QG_MAC_BYTES + (size_t)b->count * st->qos.chunk_size) {
		qg_secret_free(&plain);
		return QG_E_CORRUPT;
	}
	*out = plain;
	return QG_OK;
}

/* --- jobs ------------------------------------------------------------------------------- */

typedef enum save_what {
	SAVE_PUT = 1,
	SAVE_UPDATE = 2,
	SAVE_BLOCK = 4,
	SAVE_HELD = 8,
	SAVE_DROP = 16,
	SAVE_DELETE = 32
} save_what;

typedef struct save_job {
	qg_job job;
	qg_as_stream *st; /* pinned */
	unsigned what;
	qg_app_stream_rec rec;
	qg_app_block_rec block; /* its pointers: the copies below */
	uint8_t tag[QG_MAC_BYTES];
	char sae[2][QG_KMS_SAE_MAX + 1]; /* copies; the other names never change */
	qg_as_block *dropped;
	qg_as_stored_fn *then;
	void *ctx;
	uint8_t bytes[]; /* message, sealed */
} save_job;

static qg_err
save_block(const save_job *j, qg_store *store)
{
	qg_app_block_rec rec = j->block;
	const int64_t row = j->st->row;
	rec.stream_row = row;
	if ((j->what & SAVE_BLOCK) != 0)
		return store->ops->app_block_put(store, &rec);
	if ((j->what & SAVE_HELD) != 0)
		return store->ops->app_block_held(store, row, rec.first, rec.since_ms);
	return (j->what & SAVE_DROP) != 0 ? store->ops->app_block_delete(store, row, rec.first) : QG_OK;
}

static qg_err
save_run(qg_job *job, qg_store *store)
{
	save_job *j = (save_job *)job;
	qg_err err = QG_OK;
	if ((j->what & SAVE_PUT) != 0) {
		err = store->ops->app_stream_put(store, &j->rec);
		if (err == QG_OK)
			j->st->row = j->rec.row;
	}
	j->rec.row = j->st->row;
	if (err == QG_OK && (j->what & SAVE_UPDATE) != 0)
		err = store->ops->app_stream_update(store, &j->rec);
	if (err == QG_OK)
		err = save_block(j, store);
	if (err == QG_OK && (j->what & SAVE_DELETE) != 0)
		err = store->ops->app_stream_delete(store, j->rec.row);
	if (err == QG_OK)
		qg_commit_note_change(j->st->all->core);
	return err;
}

static void
save_done(qg_job *job, qg_err err)
{
	save_job *j = (save_job *)job;
	qg_as_stream *st = j->st;
	struct qg_app_streams *all = st->all;
	if (err != QG_OK && err != QG_E_CLOSED && (j->what & SAVE_DELETE) == 0)
		qg_log(QG_LOG_WARN, "app", "event=app_stream_not_saved error=\"%s\"", qg_err_text(err));
	if (j->then != NULL)
		j->then(st, err, j->ctx);
	qg_as_block_free(&j->dropped);
	qg_wipe(j->bytes, j->block.message_len + j->block.sealed_len);
	free(j);
	pthread_mutex_lock(&all->lock);
	qg_as_unpin(st);
	pthread_mutex_unlock(&all->lock);
}

static void
take_record(const qg_as_stream *st, save_job *j)
{
	for (unsigned e = 0; e < 2; e++)
		qg_as_name(j->sae[e], sizeof j->sae[e], st->end[e].sae);
	j->rec = (qg_app_stream_rec){
		.ksid = st->ksid,
		.kme = st->kme,
		.owner = st->owner,
		.uri = {st->end[0].uri, st->end[1].uri},
		.sae = {j->sae[0], j->sae[1]},
		.chunk_size = st->qos.chunk_size,
		.max_bps = st->qos.max_bps,
		.min_bps = st->qos.min_bps,
		.jitter_bps = st->qos.jitter_bps,
		.priority = st->qos.priority,
		.timeout_ms = st->qos.timeout_ms,
		.ttl_s = st->qos.ttl_s,
		.metadata = st->qos.metadata,
		.state = {st->end[0].state, st->end[1].state},
		.sequence = {st->end[0].sequence, st->end[1].sequence},
		.next_index = st->next_index,
		.serial = st->serial,
		.tell = st->tell,
		.used_ms = st->used_ms,
	};
}

static void
copy_block(save_job *j, const qg_as_block *b)
{
	memcpy(j->tag, b->tag, sizeof j->tag);
	if (b->message_len > 0)
		memcpy(j->bytes, b->message, b->message_len);
	memcpy(j->bytes + b->message_len, b->sealed, b->sealed_len);
	j->block = (qg_app_block_rec){
		.first = b->first,
		.count = b->count,
		.serial = b->serial,
		.hops = b->hops,
		.held = b->held,
		.since_ms = b->since_ms,
		.tag = j->tag,
		.message = b->message != NULL ? j->bytes : NULL,
		.message_len = b->message_len,
		.sealed = j->bytes + b->message_len,
		.sealed_len = b->sealed_len,
	};
}

/* Takes `dropped` in any case. */
static qg_err
submit(qg_as_stream *st, unsigned what, const qg_as_block *b, qg_as_block *dropped, qg_as_stored_fn *then,
       void *ctx)
{
	const bool whole = b != NULL && (what & SAVE_BLOCK) != 0;
	const size_t bytes = whole ? b->message_len + b->sealed_len : 0;
	save_job *j = calloc(1, sizeof *j + bytes);
	if (j == NULL) {
		qg_log(QG_LOG_WARN, "app", "event=app_stream_not_saved error=\"%s\"", qg_err_text(QG_E_NOMEM));
		qg_as_block_free(&dropped);
		return QG_E_NOMEM;
	}
	st->pins++;
	j->st = st;
	j->what = what;
	j->then = then;
	j->ctx = ctx;
	j->dropped = dropped;
	take_record(st, j);
	if (whole)
		copy_block(j, b);
	else if (b != NULL)
		j->block = (qg_app_block_rec){.first = b->first, .since_ms = b->since_ms};
	j->job.run = save_run;
	j->job.done = save_done;
	qg_committer_submit(st->all->core->committer, &j->job);
	return QG_OK;
}

/* What fails here is written with the next change, or has no consequence. */
static void
submit_only(qg_as_stream *st, unsigned what, const qg_as_block *b, qg_as_block *dropped)
{
	if (submit(st, what, b, dropped, NULL, NULL) != QG_OK)
		st->stored &= (what & SAVE_PUT) == 0;
}

static unsigned
save_stream(qg_as_stream *st)
{
	const unsigned what = st->stored ? SAVE_UPDATE : SAVE_PUT;
	st->stored = true;
	return what;
}

void
qg_as_save(qg_as_stream *st)
{
	submit_only(st, save_stream(st), NULL, NULL);
}

qg_err
qg_as_save_then(qg_as_stream *st, const qg_as_block *b, qg_as_stored_fn *then, void *ctx)
{
	return submit(st, save_stream(st) | (b != NULL ? SAVE_BLOCK : 0), b, NULL, then, ctx);
}

void
qg_as_save_held(qg_as_stream *st, const qg_as_block *b)
{
	submit_only(st, SAVE_HELD, b, NULL);
}

void
qg_as_drop_block(qg_as_stream *st, size_t i)
{
	qg_as_block *b = st->block[i];
	st->held_bytes -= (uint64_t)b->count * st->qos.chunk_size;
	memmove(&st->block[i], &st->block[i + 1], (st->n_block - i - 1) * sizeof(qg_as_block *));
	st->n_block--;
	for (unsigned e = 0; e < 2; e++)
		if (st->cache[e].plain != NULL && st->cache[e].serial == b->serial)
			qg_secret_free(&st->cache[e].plain);
	submit_only(st, SAVE_DROP, b, b);
}

void
qg_as_drop_all(qg_as_stream *st)
{
	while (st->n_block > 0)
		qg_as_drop_block(st, st->n_block - 1);
}

void
qg_as_delete(qg_as_stream *st)
{
	submit_only(st, SAVE_DELETE, NULL, NULL);
}

/* --- loading ------------------------------------------------------------------------------ */

typedef struct loading {
	struct qg_app_streams *all;
	int64_t *row;
	size_t n, room;
} loading;

static qg_err
load_stream(const qg_app_stream_rec *r, void *ctx)
{
	loading *l = ctx;
	qg_as_stream *st = NULL;
	if (strlen(r->kme) > QG_KMS_NAME_MAX)
		return QG_E_CORRUPT;
	for (unsigned e = 0; e < 2; e++)
		if (strlen(r->uri[e]) > QG_KMS_URI_MAX || strlen(r->sae[e]) > QG_KMS_SAE_MAX)
			return QG_E_CORRUPT;
	const qg_err err = qg_as_new(l->all, &r->ksid, &st);
	if (err != QG_OK)
		return err;
	qg_as_name(st->kme, sizeof st->kme, r->kme);
	for (unsigned e = 0; e < 2; e++) {
		qg_as_name(st->end[e].uri, sizeof st->end[e].uri, r->uri[e]);
		qg_as_name(st->end[e].sae, sizeof st->end[e].sae, r->sae[e]);
		st->end[e].state = r->state[e];
		st->end[e].sequence = r->sequence[e];
	}
	st->owner = r->owner;
	st->qos = (qg_kms_app_qos){.chunk_size = r->chunk_size,
				   .max_bps = r->max_bps,
				   .min_bps = r->min_bps,
				   .jitter_bps = r->jitter_bps,
				   .priority = r->priority,
				   .timeout_ms = r->timeout_ms,
				   .ttl_s = r->ttl_s,
				   .metadata = r->metadata};
	st->row = r->row;
	st->stored = st->settled = true;
	st->next_index = st->want = st->asked = r->next_index;
	st->serial = r->serial;
	st->tell = r->tell;
	st->used_ms = r->used_ms;
	return QG_OK;
}

static qg_as_stream *
by_row(struct qg_app_streams *all, int64_t row)
{
	for (size_t i = 0; i < QG_AS_BUCKETS; i++)
		for (qg_as_stream *st = all->bucket[i]; st != NULL; st = st->next)
			if (st->row == row)
				return st;
	return NULL;
}

static qg_err
copy_bytes(const uint8_t *from, size_t n, void *to)
{
	void *copy = malloc(n > 0 ? n : 1);
	if (copy == NULL)
		return QG_E_NOMEM;
	memcpy(copy, from, n);
	memcpy(to, &copy, sizeof copy);
	/* cppcheck-suppress memleak ; it is *to's */
	return QG_OK;
}

static qg_err
load_block(const qg_app_block_rec *r, void *ctx)
{
	loading *l = ctx;
	static _Thread_local qg_as_stream *last;
	qg_as_stream *st = last != NULL && l->n > 0 && last->row == r->stream_row ? last : by_row(l->all, r->stream_row);
	qg_as_block *b = calloc(1, sizeof *b);
	if (st == NULL || b == NULL) {
		free(b);
		return b == NULL ? QG_E_NOMEM : QG_E_CORRUPT;
	}
	last = st;
	l->n++;
	b->first = r->first;
	b->count = r->count;
	b->serial = r->serial;
	b->hops = r->hops;
	b->held = r->held || qg_as_local(st); /* here there is nobody else to hold it */
	b->since_ms = r->since_ms;
	if (r->tag != NULL)
		memcpy(b->tag, r->tag, sizeof b->tag);
	qg_err err = copy_bytes(r->sealed, r->sealed_len, &b->sealed);
	b->sealed_len = r->sealed_len;
	if (err == QG_OK && r->message != NULL) {
		err = copy_bytes(r->message, r->message_len, &b->message);
		b->message_len = r->message_len;
	}
	if (err == QG_OK)
		err = qg_as_block_add(st, b);
	if (err != QG_OK) {
		qg_as_block_free(&b);
		return err;
	}
	/* At the far end a change of the stream may have been written after it. */
	if (st->next_index < (uint64_t)b->first + b->count)
		st->next_index = st->want = st->asked = (uint64_t)b->first + b->count;
	st->filling |= st->owner && !b->held; /* is sent again */
	return QG_OK;
}

static qg_err
list_row(const qg_app_stream_rec *r, void *ctx)
{
	loading *l = ctx;
	int64_t *more = qg_grown(l->row, &l->room, l->n, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	l->row = more;
	l->row[l->n++] = r->row;
	return QG_OK;
}

static qg_err
drop_rows(qg_store *store, const loading *l)
{
	qg_err err = store->ops->begin(store);
	if (err != QG_OK)
		return err;
	for (size_t i = 0; i < l->n && err == QG_OK; i++)
		err = store->ops->app_stream_delete(store, l->row[i]);
	if (err == QG_OK)
		return store->ops->commit(store);
	store->ops->rollback(store);
	return err;
}

qg_err
qg_app_streams_load(struct qg_core *core, bool drop)
{
	qg_store *store = core->part.store;
	loading l = {.all = core->app_streams};
	qg_err err;
	if (drop) {
		err = store->ops->load_app_streams(store, list_row, &l);
		if (err == QG_OK && l.n > 0)
			err = drop_rows(store, &l);
		free(l.row);
		return err;
	}
	err = store->ops->load_app_streams(store, load_stream, &l);
	return err == QG_OK ? store->ops->load_app_blocks(store, load_block, &l) : err;
}

uint32_t
qg_app_streams_oldest_generation(struct qg_core *core)
{
	struct qg_app_streams *all = core->app_streams;
	uint32_t oldest = UINT32_MAX;
	pthread_mutex_lock(&all->lock);
	for (size_t i = 0; i < QG_AS_BUCKETS; i++) {
		for (const qg_as_stream *st = all->bucket[i]; st != NULL; st = st->next) {
			for (size_t k = 0; k < st->n_block; k++) {
				const qg_as_block *b = st->block[k];
				const uint32_t g = qg_seal_generation(b->sealed, b->sealed_len);
				oldest = g < oldest ? g : oldest;
			}
		}
	}
	pthread_mutex_unlock(&all->lock);
	return oldest;
}
