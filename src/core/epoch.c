/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "pad_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

qg_err
qg_epoch_new(qg_stream *st, const qg_uuid *ksid, const uint8_t id[16], bool opener, uint32_t chunk_size,
	     uint32_t segment_chunks, qg_epoch **out)
{
	qg_epoch *e = calloc(1, sizeof *e);
	if (e == NULL)
		return QG_E_NOMEM;
	e->stream = st;
	e->ksid = *ksid;
	memcpy(e->id, id, sizeof e->id);
	e->opener = opener;
	e->state = QG_EPOCH_FILLING;
	e->chunk_size = chunk_size;
	e->segment_chunks = segment_chunks;
	e->created_ms = qg_clock_wall_ms();
	*out = e;
	return QG_OK;
}

void
qg_epoch_free(qg_epoch **e)
{
	if (e == NULL || *e == NULL)
		return;
	for (uint32_t i = 0; i < (*e)->n_seg; i++)
		qg_segment_free(&(*e)->seg[i]);
	free((*e)->seg);
	qg_epoch_lists_free(*e);
	qg_secret_free(&(*e)->root_out);
	qg_secret_free(&(*e)->root_in);
	qg_key_id_keys_free(&(*e)->keys_out);
	qg_key_id_keys_free(&(*e)->keys_in);
	free(*e);
	*e = NULL;
}

qg_epoch *
qg_epoch_find(qg_stream *st, const uint8_t id[16])
{
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		if (memcmp(e->id, id, sizeof e->id) == 0)
			return e;
	return NULL;
}

qg_epoch *
qg_epoch_filling(qg_stream *st)
{
	qg_epoch *e = st->newest;
	return e != NULL && e->state == QG_EPOCH_FILLING ? e : NULL;
}

qg_segment *
qg_epoch_segment(const qg_epoch *e, uint32_t number)
{
	if (number < e->base || number - e->base >= e->n_seg)
		return NULL;
	return e->seg[number - e->base];
}

static qg_err
epoch_make_room(qg_epoch *e, uint32_t slots)
{
	if (slots <= e->room_seg)
		return QG_OK;
	uint32_t room = e->room_seg * 2 > slots ? e->room_seg * 2 : slots + 16;
	qg_segment **seg = realloc(e->seg, room * sizeof(qg_segment *));
	if (seg == NULL)
		return QG_E_NOMEM;
	e->seg = seg;
	e->room_seg = room;
	return QG_OK;
}

/* Makes empty slots in front: a shared stream reads what the other owner had
 * not had confirmed again although later segments are stored. */
static qg_err
epoch_open_front(qg_epoch *e, uint32_t slots)
{
	qg_err err = epoch_make_room(e, e->n_seg + slots);
	if (err != QG_OK)
		return err;
	memmove(e->seg + slots, e->seg, e->n_seg * sizeof *e->seg);
	for (uint32_t i = 0; i < slots; i++)
		e->seg[i] = NULL;
	e->n_seg += slots;
	e->base -= slots;
	e->empty = 0;
	return QG_OK;
}

qg_err
qg_epoch_add(qg_epoch *e, qg_segment *s)
{
	if (e->n_seg == 0)
		e->base = s->number;
	if (s->number < e->base && epoch_open_front(e, e->base - s->number) != QG_OK)
		return QG_E_NOMEM;
	uint32_t slot = s->number - e->base;
	qg_err err = epoch_make_room(e, slot + 1);
	if (err == QG_OK)
		err = qg_epoch_list(e, s);
	if (err != QG_OK)
		return err;
	for (uint32_t i = e->n_seg; i <= slot; i++)
		e->seg[i] = NULL;
	if (slot >= e->n_seg)
		e->n_seg = slot + 1;
	assert(e->seg[slot] == NULL);
	e->seg[slot] = s;
	if (slot < e->empty)
		e->empty = slot;
	/* One that is read again may lie below what was passed over. */
	if (s->ours && s->number < e->issue_from)
		e->issue_from = s->number;
	return QG_OK;
}

/* Drops empty slots in front once they are the larger part. */
static void
epoch_compact(qg_epoch *e)
{
	while (e->empty < e->n_seg && e->seg[e->empty] == NULL)
		e->empty++;
	if (e->empty < e->n_seg && e->empty < 64 + e->n_seg / 2)
		return;
	memmove(e->seg, e->seg + e->empty, (e->n_seg - e->empty) * sizeof(qg_segment *));
	e->n_seg -= e->empty;
	e->base += e->empty;
	e->empty = 0;
}

void
qg_epoch_remove(qg_epoch *e, qg_segment *s)
{
	if (s->removed)
		return;
	uint32_t slot = s->number - e->base;
	assert(slot < e->n_seg && e->seg[slot] == s);
	e->seg[slot] = NULL;
	qg_epoch_unlist(e, s);
	if (s->phase == QG_SEG_CONFIRMED && s->use != QG_USE_APPLICATION)
		qg_pads_left(s);
	else if (s->phase == QG_SEG_CONFIRMED && s->ours)
		e->stream->ready -= s->hi - s->cursor;
	else if (s->phase == QG_SEG_CONFIRMED)
		e->stream->held -= s->left;
	s->removed = true;
	qg_secret_free(&s->data);
	if (s->pins == 0)
		qg_segment_free(&s);
	epoch_compact(e);
}

void
qg_segment_unpin(qg_segment *s)
{
	assert(s->pins > 0);
	if (--s->pins == 0 && s->removed)
		qg_segment_free(&s);
}

bool
qg_epoch_is_ours(const qg_epoch *e, uint32_t number)
{
	switch (e->stream->cfg->direction) {
	case QG_DIRECTION_OUTBOUND:
		return true;
	case QG_DIRECTION_INBOUND:
		return false;
	case QG_DIRECTION_SHARED:
		break;
	}
	return (number % 2 == 0) == e->opener;
}

uint32_t
qg_epoch_next_segment(const qg_epoch *e)
{
	switch (e->stream->cfg->direction) {
	case QG_DIRECTION_OUTBOUND:
		return e->decided_out;
	case QG_DIRECTION_INBOUND:
		return e->decided_in;
	case QG_DIRECTION_SHARED:
		break;
	}
	return e->decided_in < e->decided_out ? e->decided_in : e->decided_out;
}

qg_err
qg_epoch_set_root(qg_epoch *e, bool ours, qg_secret **root)
{
	const char *self = e->stream->core->part.cfg->kme_id, *peer = e->stream->neighbour->id;
	qg_key_id_binding b = {.owner = ours ? self : peer, .far_end = ours ? peer : self, .ksid = e->ksid};
	memcpy(b.epoch, e->id, sizeof b.epoch);
	qg_key_id_keys **keys = ours ? &e->keys_out : &e->keys_in;
	assert(*keys == NULL);
	qg_err err = qg_key_id_keys_new((*root)->data, (*root)->len, &b, keys);
	if (err != QG_OK)
		return err;
	*(ours ? &e->root_out : &e->root_in) = *root;
	*root = NULL;
	return QG_OK;
}

size_t
qg_epoch_ad(const qg_epoch *e, const char *what, uint32_t number, uint8_t *out, size_t room)
{
	qg_writer w = qg_writer_of(out, room);
	qg_put_lstr(&w, "qkdgate 1");
	qg_put_lstr(&w, what);
	qg_put_lstr(&w, e->stream->cfg->name);
	qg_put_bytes(&w, e->id, sizeof e->id);
	qg_put_u32(&w, number);
	assert(!w.bad);
	return w.len;
}

static qg_err
epoch_seal_root(const qg_epoch *e, const char *what, const qg_secret *root, uint8_t **blob, size_t *len)
{
	if (root == NULL)
		return QG_OK;
	uint8_t ad[QG_KMS_BATCH_CANONICAL_MAX];
	size_t ad_len = qg_epoch_ad(e, what, 0, ad, sizeof ad);
	uint8_t *out = malloc(root->len + QG_SEAL_OVERHEAD);
	if (out == NULL)
		return QG_E_NOMEM;
	qg_err err = qg_sealer_seal(e->stream->core->part.sealer, ad, ad_len, root->data, root->len, out);
	if (err != QG_OK) {
		free(out);
		return err;
	}
	*blob = out;
	*len = root->len + QG_SEAL_OVERHEAD;
	return QG_OK;
}

qg_err
qg_epoch_snapshot(const qg_epoch *e, qg_epoch_image *img)
{
	memset(img, 0, sizeof *img);
	qg_epoch_rec *r = &img->rec;
	qg_err err = epoch_seal_root(e, "root-out", e->root_out, &img->root_out, &r->root_out_len);
	if (err == QG_OK)
		err = epoch_seal_root(e, "root-in", e->root_in, &img->root_in, &r->root_in_len);
	if (err != QG_OK) {
		qg_epoch_image_free(img);
		return err;
	}
	r->row = e->row;
	r->stream = e->stream->cfg->name;
	r->ksid = e->ksid;
	memcpy(r->epoch, e->id, sizeof r->epoch);
	r->state = e->state;
	r->opener = e->opener;
	r->chunk_size = e->chunk_size;
	r->segment_chunks = e->segment_chunks;
	r->mark = e->mark;
	r->seen_mark = e->seen_mark;
	r->next_segment = e->decided_in;
	r->next_index = (uint64_t)e->decided_out * e->segment_chunks;
	r->root_out = img->root_out;
	r->root_in = img->root_in;
	if (e->has_probe) {
		memcpy(img->probe, e->probe, sizeof img->probe);
		r->probe = img->probe;
		r->probe_len = sizeof img->probe;
		r->probe_index = e->probe_index;
	}
	r->created_ms = e->created_ms;
	r->end_ms = e->end_ms;
	return QG_OK;
}

void
qg_epoch_image_free(qg_epoch_image *img)
{
	free(img->root_out);
	free(img->root_in);
	img->root_out = img->root_in = NULL;
}

void
qg_epoch_make_probe(const struct qg_core *core, const uint8_t *chunk, size_t n, uint8_t out[16])
{
	crypto_generichash(out, 16, chunk, n, core->probe_key, sizeof core->probe_key);
	qg_wipe_stack();
}

void
qg_epoch_put_probe(qg_epoch *e, const qg_segment *s)
{
	if (e->has_probe && e->probe_index > s->first_index)
		return;
	qg_epoch_make_probe(e->stream->core, qg_segment_chunk(s, s->count - 1), e->chunk_size, e->probe);
	e->probe_index = s->first_index + s->count - 1;
	e->has_probe = true;
}

typedef struct epoch_job {
	qg_job job;
	qg_epoch *epoch;
	qg_epoch_image img;
} epoch_job;

static qg_err
epoch_job_run(qg_job *job, qg_store *store)
{
	epoch_job *j = (epoch_job *)job;
	return store->ops->epoch_update(store, &j->img.rec);
}

static void
epoch_job_done(qg_job *job, qg_err err)
{
	epoch_job *j = (epoch_job *)job;
	qg_stream *st = j->epoch->stream;
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "stream", "event=epoch_not_saved stream=%s reason=\"%s\"", st->cfg->name,
		       qg_err_text(err));
	pthread_mutex_lock(&st->lock);
	j->epoch->pins--;
	pthread_mutex_unlock(&st->lock);
	qg_epoch_image_free(&j->img);
	free(j);
}

void
qg_epoch_save(qg_epoch *e)
{
	if (e->row == 0)
		return; /* no longer in the store */
	epoch_job *j = calloc(1, sizeof *j);
	if (j == NULL || qg_epoch_snapshot(e, &j->img) != QG_OK) {
		qg_log(QG_LOG_ERROR, "stream", "event=epoch_not_saved stream=%s reason=\"no memory\"",
		       e->stream->cfg->name);
		free(j);
		return;
	}
	j->job.run = epoch_job_run;
	j->job.done = epoch_job_done;
	j->epoch = e;
	e->pins++;
	qg_committer_submit(e->stream->core->committer, &j->job);
}

static const char *const close_reasons[] = {
	[QG_KMS_CLOSE_STOP] = "stop",     [QG_KMS_CLOSE_MISMATCH] = "mismatch",
	[QG_KMS_CLOSE_AGE] = "age",       [QG_KMS_CLOSE_ROLLBACK] = "rollback",
	[QG_KMS_CLOSE_SOURCE] = "source",
};

void
qg_audit_epoch(struct qg_core *core, const qg_epoch *e, const char *what)
{
	qg_audit_event ev = {.act = QG_AUDIT_EPOCH,
			     .caller = e->stream->neighbour->id,
			     .peer = e->stream->cfg->name,
			     .reason = what,
			     .ids = &e->ksid,
			     .n_ids = 1};
	qg_audit_write(core->part.audit, &ev);
}

/* Segments that both ends do not hold for sure end with the taking of chunks;
 * one being written or on offer ends when its job or answer comes back. */
static void
epoch_drop_unconfirmed(qg_epoch *e)
{
	for (qg_segment *s = e->open.first, *next; s != NULL; s = next) {
		next = qg_segment_next(s);
		if (s->phase == QG_SEG_FILLING || s->phase == QG_SEG_FULL)
			qg_epoch_remove(e, s);
	}
}

uint64_t
qg_epoch_end_ms(const struct qg_core *core)
{
	const qg_config *cfg = core->part.cfg;
	return qg_lifetime_far_ms(&core->life) + ((uint64_t)cfg->issue_s + cfg->fetch_s) * 1000;
}

void
qg_epoch_end(qg_epoch *e, qg_kms_close_reason reason, bool tell)
{
	qg_stream *st = e->stream;
	if (e->state != QG_EPOCH_FILLING && reason != QG_KMS_CLOSE_ROLLBACK)
		return;
	bool was_filling = e->state == QG_EPOCH_FILLING;
	e->state = reason == QG_KMS_CLOSE_ROLLBACK ? QG_EPOCH_DRAINING : QG_EPOCH_ENDED;
	e->reason = reason;
	e->tell_closed = tell;
	e->end_ms = qg_epoch_end_ms(st->core);
	epoch_drop_unconfirmed(e);
	if (reason == QG_KMS_CLOSE_ROLLBACK)
		qg_pads_forget_epoch(st, e->id);
	qg_log(reason == QG_KMS_CLOSE_STOP || reason == QG_KMS_CLOSE_AGE ? QG_LOG_INFO : QG_LOG_WARN,
	       "stream", "event=epoch_ended stream=%s reason=%s", st->cfg->name, close_reasons[reason]);
	qg_audit_epoch(st->core, e, close_reasons[reason]);
	qg_epoch_save(e);
	if (was_filling) {
		qg_stream_close_ksid(st, &e->ksid);
		qg_stream_epoch_over(st, e->keys_out != NULL || e->keys_in != NULL);
		qg_stream_reopen(st);
	}
	qg_stream_kick(st);
}

void
qg_epoch_retire_old(qg_stream *st)
{
	unsigned n = 0;
	for (qg_epoch *e = st->newest; e != NULL; e = e->older) {
		/* The newest counts, for it will have keys. */
		if ((e->keys_out == NULL && e != st->newest) || n++ < QG_ISSUE_EPOCHS || e->state != QG_EPOCH_ENDED)
			continue;
		e->state = QG_EPOCH_DRAINING;
		qg_epoch_save(e);
	}
}
