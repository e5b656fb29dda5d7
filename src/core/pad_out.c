/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "pad_parts_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* Node key as its owner uses it: segments are opened in order, one job at a
 * time, and their bytes are taken in order. What a job could not delete for
 * sure is never used, and nothing after it is opened before it is deleted: so
 * whatever the store holds of ours lies above all that was ever used. */

#define AHEAD_BYTES 16384
#define OPEN_AT_ONCE 16
#define AGAIN_MS 1000
#define AGAIN_MAX_MS 60000

/* --- opening ------------------------------------------------------------------- */

typedef struct open_job {
	qg_job job;
	qg_stream *stream;
	bool again; /* only to delete what was given up */
	size_t n;
	int64_t row[OPEN_AT_ONCE];
} open_job;

static qg_err
open_run(qg_job *job, qg_store *store)
{
	open_job *j = (open_job *)job;
	for (size_t i = 0; i < j->n; i++) {
		qg_err err = store->ops->segment_delete(store, j->row[i]);
		if (err != QG_OK && !(j->again && err == QG_E_NOTFOUND))
			return err;
	}
	qg_commit_note_change(j->stream->core);
	return QG_OK;
}

void
qg_pads_lose(qg_stream *st, bool ours, pad_segment *p)
{
	qg_pads *q = st->pads;
	qg_pad_account *a = &q->account[ours];
	if (!p->open && !p->lost)
		a->opened += p->len; /* as good as: it cannot be used any more */
	a->given_up += p->left;
	if (ours && !p->lost)
		*(p->open ? &q->open_bytes : &q->opening_bytes) -= p->left;
	p->lost = true;
	p->left = 0;
	qg_secret_free(&p->data);
}

/* The bytes that may be used, and the outcome for the job's segments. */
static void
opened(qg_stream *st)
{
	qg_pads *q = st->pads;
	while (q->opening != NULL) {
		pad_segment *p = q->opening;
		q->opening = p->next;
		p->next = NULL;
		if (p->lost) {
			qg_pads_segment_free(&p);
			continue;
		}
		p->open = true;
		q->open_backoff_ms = 0;
		q->account[true].opened += p->len;
		q->opening_bytes -= p->left;
		q->open_bytes += p->left;
		*q->out_end = p;
		q->out_end = &p->next;
	}
}

static void
not_opened(qg_stream *st, qg_err err)
{
	qg_pads *q = st->pads;
	qg_log(QG_LOG_ERROR, "stream", "event=pads_not_opened stream=%s side=owner reason=\"%s\"", st->cfg->name,
	       qg_err_text(err));
	for (pad_segment *p = q->opening; p != NULL; p = p->next)
		if (!p->lost)
			qg_pads_lose(st, true, p);
	unsigned ms = q->open_backoff_ms == 0 ? AGAIN_MS : q->open_backoff_ms * 2;
	q->open_backoff_ms = ms < AGAIN_MAX_MS ? ms : AGAIN_MAX_MS;
	q->open_at_ms = qg_clock_elapsed_ms() + q->open_backoff_ms;
}

static void
open_done(qg_job *job, qg_err err)
{
	open_job *j = (open_job *)job;
	qg_stream *st = j->stream;
	if (err == QG_OK && !qg_commit_anchored(st->core))
		err = QG_E_IO;
	pthread_mutex_lock(&st->lock);
	qg_waiter *waiters = st->pads->waiters;
	st->pads->waiters = NULL;
	st->pads->job = false;
	if (err == QG_OK)
		opened(st);
	else
		not_opened(st, err);
	qg_pads_refill(st);
	pthread_mutex_unlock(&st->lock);
	qg_stream_run_waiters(waiters, err);
	free(j);
}

static bool
may_open(const qg_segment *s)
{
	return s != NULL && s->ours && s->use == QG_USE_NODE && s->phase == QG_SEG_CONFIRMED && s->row != 0 &&
	       s->data != NULL && !qg_segment_expired(s);
}

/* The first of the oldest epoch. */
static qg_segment *
next_stored(const qg_stream *st)
{
	qg_segment *found = NULL;
	for (const qg_epoch *e = st->newest; e != NULL; e = e->older) {
		if (e->state == QG_EPOCH_DRAINING || (e->restored && !st->pads->agreed))
			continue;
		for (uint32_t i = 0; i < e->n_seg; i++)
			if (may_open(e->seg[i])) {
				found = e->seg[i];
				break;
			}
	}
	return found;
}

static uint64_t
bytes_ahead(const qg_stream *st)
{
	uint64_t ahead = (uint64_t)st->cfg->segment_chunks * st->cfg->chunk_size;
	if (ahead < AHEAD_BYTES)
		ahead = AHEAD_BYTES;
	return st->pads->wanted > ahead ? st->pads->wanted : ahead;
}

static void
choose_segments(qg_stream *st)
{
	qg_pads *q = st->pads;
	uint64_t ahead = bytes_ahead(st);
	pad_segment **end = &q->opening;
	for (int n = 0; n < OPEN_AT_ONCE && q->stored_bytes > 0 && q->open_bytes + q->opening_bytes < ahead; n++) {
		qg_segment *s = next_stored(st);
		pad_segment *p = s != NULL ? qg_pads_detach(s) : NULL;
		if (p == NULL)
			break;
		q->opening_bytes += p->left;
		*end = p;
		end = &p->next;
	}
}

void
qg_pads_refill(qg_stream *st)
{
	qg_pads *q = st->pads;
	if (q->job || st->stopping || qg_clock_elapsed_ms() < q->open_at_ms)
		return;
	open_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return;
	j->again = q->opening != NULL;
	if (q->opening == NULL)
		choose_segments(st);
	for (const pad_segment *p = q->opening; p != NULL; p = p->next)
		j->row[j->n++] = p->row;
	if (j->n == 0) {
		free(j);
		return;
	}
	j->job.run = open_run;
	j->job.done = open_done;
	j->stream = st;
	q->job = true;
	qg_committer_submit(st->core->committer, &j->job);
}

void
qg_pads_step(qg_stream *st)
{
	if (st->cfg->direction == QG_DIRECTION_INBOUND)
		return;
	pthread_mutex_lock(&st->lock);
	if (st->pads->opening != NULL || st->pads->open_bytes < bytes_ahead(st))
		qg_pads_refill(st);
	pthread_mutex_unlock(&st->lock);
}

qg_waiter *
qg_pads_stop(qg_stream *st)
{
	qg_waiter *waiters = st->pads->waiters;
	st->pads->waiters = NULL;
	return waiters;
}

/* --- taking -------------------------------------------------------------------- */

void
qg_pads_collect_out(qg_stream *st)
{
	qg_pads *q = st->pads;
	pad_segment **at = &q->out;
	while (*at != NULL) {
		pad_segment *p = *at;
		if (p->left > 0 || p->named > 0) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		qg_pads_segment_free(&p);
	}
	q->out_end = at;
}

static size_t
ranges_of(const qg_pads *q, size_t n)
{
	size_t ranges = 0;
	for (const pad_segment *p = q->out; p != NULL && n > 0; p = p->next) {
		ranges += p->left > 0;
		n -= p->left < n ? p->left : n;
	}
	return ranges;
}

/* What the far end may destroy: nothing of ours below is wanted any more. */
static uint32_t
oldest_of(const qg_pads *q, const uint8_t epoch[16])
{
	uint32_t oldest = UINT32_MAX;
	for (const pad_segment *p = q->out; p != NULL; p = p->next)
		if (memcmp(p->epoch, epoch, sizeof p->epoch) == 0 && p->number < oldest)
			oldest = p->number;
	return oldest;
}

static void
take_from(pad_segment *p, uint32_t n, qg_pad_use *use, qg_secret *to)
{
	qg_kms_pad *pad = &use->pad[use->n++];
	memcpy(pad->epoch, p->epoch, sizeof pad->epoch);
	pad->segment = p->number;
	pad->offset = p->at;
	pad->len = n;
	memcpy(to->data + to->len, p->data->data + p->at, n);
	qg_wipe(p->data->data + p->at, n);
	to->len += n;
	p->at += n;
	p->left -= n;
	p->named++;
	if (p->left == 0)
		qg_secret_free(&p->data);
}

static void
wait_for_more(qg_stream *st, size_t n, qg_waiter *w)
{
	qg_pads *q = st->pads;
	if (q->wanted < n)
		q->wanted = n;
	qg_pads_refill(st);
	if (w == NULL)
		return;
	w->next = q->waiters;
	q->waiters = w;
}

/* The pools may be short now. */
static void
wake_intake(qg_stream *st)
{
	if (!st->wants_room)
		return;
	st->wants_room = false;
	pthread_cond_broadcast(&st->wake);
}

qg_err
qg_pads_take(qg_stream *st, size_t n, qg_pad_use *use, qg_secret **out, qg_waiter *w)
{
	qg_pads *q = st->pads;
	if (n == 0 || n > QG_KMS_DATA_MAX + QG_KMS_MAC_OVERHEAD)
		return QG_E_INVAL;
	if (st->stopping)
		return QG_E_CLOSED;
	qg_pads_expire_out(st);
	if (q->open_bytes < n) {
		wait_for_more(st, n, w);
		return QG_E_EMPTY;
	}
	if (ranges_of(q, n) > QG_KMS_PADS_MAX)
		return QG_E_RANGE;
	qg_secret *to = NULL;
	qg_err err = qg_secret_new(n, &to);
	if (err != QG_OK)
		return err;
	use->n = 0;
	for (pad_segment *p = q->out; p != NULL && to->len < n; p = p->next)
		if (p->left > 0)
			take_from(p, p->left < n - to->len ? p->left : (uint32_t)(n - to->len), use, to);
	assert(to->len == n);
	use->oldest = oldest_of(q, use->pad[0].epoch);
	q->open_bytes -= n;
	q->wanted = 0;
	qg_pads_count_message(&q->account[true], n);
	if (q->open_bytes + q->opening_bytes < bytes_ahead(st))
		qg_pads_refill(st);
	wake_intake(st);
	*out = to;
	return QG_OK;
}

static pad_segment *
find_out(const qg_pads *q, const qg_kms_pad *pad)
{
	for (pad_segment *p = q->out; p != NULL; p = p->next)
		if (qg_pads_is(p, pad->epoch, pad->segment))
			return p;
	return NULL;
}

void
qg_pads_settle(qg_stream *st, const qg_pad_use *use)
{
	for (size_t i = 0; i < use->n; i++) {
		pad_segment *p = find_out(st->pads, &use->pad[i]);
		if (p != NULL && p->named > 0)
			p->named--;
	}
	qg_pads_collect_out(st);
}

void
qg_pads_disown(qg_stream *st, const qg_pad_use *use)
{
	for (size_t i = 0; i < use->n; i++) {
		pad_segment *p = find_out(st->pads, &use->pad[i]);
		if (p == NULL || p->left == 0)
			continue;
		qg_log(QG_LOG_WARN, "stream", "event=pads_disowned stream=%s segment=%u bytes=%u", st->cfg->name,
		       p->number, p->left);
		qg_pads_lose(st, true, p);
	}
	qg_pads_settle(st, use);
	qg_pads_refill(st);
}

/* --- ending --------------------------------------------------------------------- */

void
qg_pads_expire_out(qg_stream *st)
{
	qg_pads *q = st->pads;
	bool any = false;
	uint64_t now_ms = q->out != NULL ? qg_lifetime_owner_ms(&st->core->life) : 0;
	for (pad_segment *p = q->out; p != NULL; p = p->next)
		if (p->left > 0 && now_ms >= p->end_ms) {
			qg_pads_lose(st, true, p);
			any = true;
		}
	if (any)
		qg_pads_collect_out(st);
}

void
qg_pads_forget_out(qg_stream *st, const uint8_t *epoch)
{
	qg_pads *q = st->pads;
	for (pad_segment *p = q->opening; p != NULL; p = p->next)
		if (!p->lost && (epoch == NULL || memcmp(p->epoch, epoch, sizeof p->epoch) == 0))
			qg_pads_lose(st, true, p);
	for (pad_segment *p = q->out; p != NULL; p = p->next)
		if (epoch == NULL || memcmp(p->epoch, epoch, sizeof p->epoch) == 0) {
			if (p->left > 0)
				qg_pads_lose(st, true, p);
			p->named = 0;
		}
	qg_pads_collect_out(st);
}
