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

/* Open ahead of use: at least this, or what a segment holds. */
#define AHEAD_PAD 16384
#define AHEAD_MAC 2048
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
	if (!p->counted && !p->lost)
		a->opened += p->len; /* as good as: it cannot be used any more */
	p->counted = true;
	a->given_up += p->left;
	if (ours && !p->lost) {
		pad_stock *k = qg_pads_stock(st, p->use);
		*(p->open ? &k->open_bytes : &k->opening_bytes) -= p->left;
	}
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
		p->open = p->counted = true;
		q->open_backoff_ms = 0;
		q->account[true].opened += p->len;
		pad_stock *k = qg_pads_stock(st, p->use);
		k->opening_bytes -= p->left;
		k->open_bytes += p->left;
		*k->out_end = p;
		k->out_end = &p->next;
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
may_open(const qg_segment *s, qg_segment_use use)
{
	return s->ours && s->use == use && s->row != 0 && s->data != NULL && !qg_segment_expired(s);
}

/* The first of the oldest epoch. */
static qg_segment *
next_stored(const qg_stream *st, qg_segment_use use)
{
	qg_segment *found = NULL;
	for (const qg_epoch *e = st->newest; e != NULL; e = e->older) {
		if (e->state == QG_EPOCH_DRAINING || (e->restored && !st->pads->agreed))
			continue;
		qg_segment *s = e->node.first;
		while (s != NULL && !may_open(s, use))
			s = qg_segment_next(s);
		found = s != NULL ? s : found;
	}
	return found;
}

static uint64_t
segment_bytes(const qg_stream *st)
{
	return (uint64_t)st->cfg->segment_chunks * st->cfg->chunk_size;
}

static bool
runs_short(const qg_stream *st, qg_segment_use use, uint64_t more)
{
	const pad_stock *k = qg_pads_stock(st, use);
	uint64_t ahead = use == QG_USE_MAC ? AHEAD_MAC : AHEAD_PAD;
	if (use == QG_USE_PAD && segment_bytes(st) > ahead)
		ahead = segment_bytes(st);
	if (k->wanted > ahead)
		ahead = k->wanted;
	return k->stored_bytes > 0 && k->open_bytes + k->opening_bytes < ahead + more;
}

/* Adds up to `room` segments of one use to the list that is being opened; `more`:
 * bytes beyond those that it is to have at least. */
static size_t
choose_segments(qg_stream *st, qg_segment_use use, size_t room, uint64_t more)
{
	size_t n = 0;
	pad_segment **end = &st->pads->opening;
	while (*end != NULL)
		end = &(*end)->next;
	for (; n < room && runs_short(st, use, more); n++) {
		qg_segment *s = next_stored(st, use);
		pad_segment *p = s != NULL ? qg_pads_detach(s) : NULL;
		if (p == NULL)
			break;
		qg_pads_stock(st, use)->opening_bytes += p->left;
		*end = p;
		end = &p->next;
	}
	return n;
}

static uint64_t
more_pads(qg_stream *st)
{
	return (qg_pads_pace(&st->pads->pace, qg_clock_elapsed_ms()) - 1) * segment_bytes(st);
}

void
qg_pads_refill(qg_stream *st)
{
	qg_pads *q = st->pads;
	if (q->job || st->stopping || qg_clock_elapsed_ms() < q->open_at_ms)
		return;
	const bool pads_short = runs_short(st, QG_USE_PAD, 0);
	if (q->opening == NULL && !runs_short(st, QG_USE_MAC, 0) && !pads_short)
		return;
	open_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return;
	j->again = q->opening != NULL;
	if (q->opening == NULL) {
		size_t n = choose_segments(st, QG_USE_MAC, OPEN_AT_ONCE / 2, 0);
		if (pads_short)
			choose_segments(st, QG_USE_PAD, OPEN_AT_ONCE - n, more_pads(st));
	}
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

static void
collect(pad_stock *k)
{
	pad_segment **at = &k->out;
	while (*at != NULL) {
		pad_segment *p = *at;
		if (p->left > 0 || p->named > 0) {
			at = &p->next;
			continue;
		}
		*at = p->next;
		qg_pads_segment_free(&p);
	}
	k->out_end = at;
}

void
qg_pads_collect_out(qg_stream *st)
{
	for (int i = 0; i < PAD_KINDS; i++)
		collect(&st->pads->stock[i]);
}

static size_t
ranges_of(const pad_stock *k, size_t n)
{
	size_t ranges = 0;
	for (const pad_segment *p = k->out; p != NULL && n > 0; p = p->next) {
		ranges += p->left > 0;
		n -= p->left < n ? p->left : n;
	}
	return ranges;
}

/* What the far end may destroy: nothing of ours below is wanted any more. 0
 * destroys nothing. */
static uint32_t
oldest_of(const pad_stock *k, const uint8_t epoch[16])
{
	bool any = false;
	uint32_t oldest = 0;
	for (const pad_segment *p = k->out; p != NULL; p = p->next)
		if (memcmp(p->epoch, epoch, sizeof p->epoch) == 0 && (!any || p->number < oldest)) {
			oldest = p->number;
			any = true;
		}
	return oldest;
}

/* What the far end may open: of that epoch nothing below is in the store, all of it
 * was opened. */
static uint32_t
opened_of(const pad_stock *k, const uint8_t epoch[16])
{
	uint32_t opened = 0;
	for (const pad_segment *p = k->out; p != NULL; p = p->next)
		if (memcmp(p->epoch, epoch, sizeof p->epoch) == 0)
			opened = p->number + 1; /* they are opened in order */
	return opened;
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

/* n bytes in order from the segments of one use. */
static void
take_bytes(pad_stock *k, size_t n, qg_pad_use *use, qg_secret *to)
{
	k->open_bytes -= n;
	k->wanted = 0;
	for (pad_segment *p = k->out; p != NULL && n > 0; p = p->next) {
		uint32_t here = p->left < n ? p->left : (uint32_t)n;
		if (here > 0)
			take_from(p, here, use, to);
		n -= here;
	}
	assert(n == 0);
}

static bool
has_bytes(pad_stock *k, size_t n)
{
	if (k->open_bytes >= n)
		return true;
	if (k->wanted < n)
		k->wanted = n;
	return false;
}

static void
wait_for_more(qg_stream *st, qg_waiter *w)
{
	qg_pads *q = st->pads;
	qg_pads_refill(st);
	if (w == NULL)
		return;
	w->next = q->waiters;
	q->waiters = w;
}

qg_err
qg_pads_wait(qg_stream *st, qg_waiter *w)
{
	qg_pads *q = st->pads;
	if (!q->job || st->stopping)
		return QG_E_EMPTY;
	w->next = q->waiters;
	q->waiters = w;
	return QG_OK;
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
qg_pads_take(qg_stream *st, size_t data_len, qg_pad_use *use, qg_secret **out, qg_waiter *w)
{
	pad_stock *mac = qg_pads_stock(st, QG_USE_MAC), *pad = qg_pads_stock(st, QG_USE_PAD);
	if (data_len > QG_KMS_DATA_MAX)
		return QG_E_INVAL;
	if (st->stopping)
		return QG_E_CLOSED;
	qg_pads_expire_out(st);
	bool enough = has_bytes(mac, QG_KMS_MAC_OVERHEAD);
	if (!has_bytes(pad, data_len) || !enough) {
		wait_for_more(st, w);
		return QG_E_EMPTY;
	}
	if (ranges_of(mac, QG_KMS_MAC_OVERHEAD) + ranges_of(pad, data_len) > QG_KMS_PADS_MAX)
		return QG_E_RANGE;
	qg_secret *to = NULL;
	qg_err err = qg_secret_new(QG_KMS_MAC_OVERHEAD + data_len, &to);
	if (err != QG_OK)
		return err;
	use->n = 0;
	take_bytes(mac, QG_KMS_MAC_OVERHEAD, use, to);
	take_bytes(pad, data_len, use, to);
	use->oldest_mac = oldest_of(mac, use->pad[0].epoch);
	use->oldest_pad = oldest_of(pad, use->pad[use->n - 1].epoch);
	use->opened_pad = opened_of(pad, use->pad[use->n - 1].epoch);
	qg_pads_count_message(&st->pads->account[true], data_len);
	qg_pads_refill(st);
	wake_intake(st);
	*out = to;
	return QG_OK;
}

static pad_segment *
find_out(const qg_pads *q, const qg_kms_pad *pad)
{
	for (int i = 0; i < PAD_KINDS; i++)
		for (pad_segment *p = q->stock[i].out; p != NULL; p = p->next)
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
	bool any = false;
	uint64_t now_ms = qg_lifetime_owner_ms(&st->core->life);
	for (int i = 0; i < PAD_KINDS; i++)
		for (pad_segment *p = st->pads->stock[i].out; p != NULL; p = p->next)
			if (p->left > 0 && now_ms >= p->end_ms) {
				qg_pads_lose(st, true, p);
				any = true;
			}
	if (any)
		qg_pads_collect_out(st);
}

static bool
of_epoch(const pad_segment *p, const uint8_t *epoch)
{
	return epoch == NULL || memcmp(p->epoch, epoch, sizeof p->epoch) == 0;
}

void
qg_pads_forget_out(qg_stream *st, const uint8_t *epoch)
{
	qg_pads *q = st->pads;
	for (pad_segment *p = q->opening; p != NULL; p = p->next)
		if (!p->lost && of_epoch(p, epoch))
			qg_pads_lose(st, true, p);
	for (int i = 0; i < PAD_KINDS; i++)
		for (pad_segment *p = q->stock[i].out; p != NULL; p = p->next)
			if (of_epoch(p, epoch)) {
				if (p->left > 0)
					qg_pads_lose(st, true, p);
				p->named = 0;
			}
	qg_pads_collect_out(st);
}
