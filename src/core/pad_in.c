/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "pad_parts_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* Node key as the far end of its owner uses it: a message names its bytes, in
 * whatever order messages come. Bytes are looked at to verify the message, and
 * only one that verified opens segments and uses bytes up. */

#define SPENT_MAX 64 /* used-up segments remembered */
#define SEEN_NAME_MAX 40
#define AHEAD_SEARCH 64 /* segments looked at, since those for MACs stand between */
#define OPEN_MAX (QG_KMS_PADS_MAX + PAD_PACE_MAX)

/* --- finding ------------------------------------------------------------------- */

static pad_segment *
find_in(const qg_stream *st, const qg_kms_pad *pad)
{
	for (pad_segment *p = st->pads->in; p != NULL; p = p->next)
		if (qg_pads_is(p, pad->epoch, pad->segment))
			return p;
	return NULL;
}

static qg_segment *
find_stored(qg_stream *st, const qg_kms_pad *pad)
{
	const qg_epoch *e = qg_epoch_find(st, pad->epoch);
	qg_segment *s = e != NULL ? qg_epoch_segment(e, pad->segment) : NULL;
	if (s == NULL || s->ours || s->use == QG_USE_APPLICATION || s->phase != QG_SEG_CONFIRMED || s->row == 0 ||
	    s->data == NULL || qg_segment_expired(s))
		return NULL;
	return s;
}

static bool
overlap(const qg_kms_pad *a, const qg_kms_pad *b)
{
	return a->segment == b->segment && memcmp(a->epoch, b->epoch, sizeof a->epoch) == 0 &&
	       a->offset < b->offset + b->len && b->offset < a->offset + a->len;
}

/* Whether the ranges can stand in one message, and for what each is: MAC keys
 * first, and none reaches into the pads. That each lies in its segment is for
 * others to look up. */
static qg_err
check_ranges(const qg_kms_pad *pad, size_t n, qg_segment_use use[QG_KMS_PADS_MAX], size_t *data_len)
{
	size_t sum = 0;
	if (n == 0 || n > QG_KMS_PADS_MAX)
		return QG_E_INVAL;
	for (size_t i = 0; i < n; i++) {
		if (pad[i].len == 0 || pad[i].len > QG_KMS_DATA_MAX + QG_KMS_MAC_OVERHEAD ||
		    pad[i].offset > UINT32_MAX - pad[i].len)
			return QG_E_INVAL;
		for (size_t j = 0; j < i; j++)
			if (overlap(&pad[i], &pad[j]))
				return QG_E_INVAL;
		use[i] = sum < QG_KMS_MAC_OVERHEAD ? QG_USE_MAC : QG_USE_PAD;
		sum += pad[i].len;
		if (use[i] == QG_USE_MAC && sum > QG_KMS_MAC_OVERHEAD)
			return QG_E_INVAL;
	}
	if (sum < QG_KMS_MAC_OVERHEAD || sum > QG_KMS_DATA_MAX + QG_KMS_MAC_OVERHEAD)
		return QG_E_INVAL;
	*data_len = sum - QG_KMS_MAC_OVERHEAD;
	return QG_OK;
}

/* Where the bytes of one range stand, for looking only. */
static qg_err
look_up(qg_stream *st, const qg_kms_pad *pad, qg_segment_use use, const uint8_t **at)
{
	const pad_segment *p = find_in(st, pad);
	if (p != NULL) {
		if (p->use != use || pad->offset + pad->len > p->len)
			return QG_E_INVAL;
		if (p->data == NULL)
			return p->lost ? QG_E_NOTFOUND : QG_E_CONSUMED;
		if (qg_bits_any(p->used, pad->offset, pad->len))
			return QG_E_CONSUMED;
		*at = p->data->data + pad->offset;
		return QG_OK;
	}
	const qg_segment *s = find_stored(st, pad);
	if (s == NULL)
		return QG_E_NOTFOUND;
	if (s->use != use || pad->offset + pad->len > (s->hi - s->lo) * s->epoch->chunk_size)
		return QG_E_INVAL;
	*at = qg_segment_chunk(s, s->lo) + pad->offset;
	return QG_OK;
}

qg_err
qg_pads_peek(qg_stream *st, const qg_kms_pad *pad, size_t n, qg_secret **out)
{
	const uint8_t *at[QG_KMS_PADS_MAX];
	qg_segment_use use[QG_KMS_PADS_MAX];
	size_t data_len = 0;
	qg_pads_expire_in(st);
	qg_err err = check_ranges(pad, n, use, &data_len);
	for (size_t i = 0; i < n && err == QG_OK; i++)
		err = look_up(st, &pad[i], use[i], &at[i]);
	QG_SECRET_AUTO *copy = NULL;
	if (err == QG_OK)
		err = qg_secret_new(QG_KMS_MAC_OVERHEAD + data_len, &copy);
	for (size_t i = 0; i < n && err == QG_OK; i++)
		err = qg_secret_append(copy, at[i], pad[i].len);
	if (err != QG_OK)
		return err;
	*out = copy;
	copy = NULL;
	return QG_OK;
}

/* --- opening ------------------------------------------------------------------- */

/* What the owner is told if it was put back has to outlive a restart here. */
static qg_err
seen_name(int64_t epoch_row, char *out, size_t room)
{
	int n = snprintf(out, room, "node_seen_%lld", (long long)epoch_row);
	return n > 0 && (size_t)n < room ? QG_OK : QG_E_RANGE;
}

static qg_err
put_seen(qg_store *store, int64_t epoch_row, uint32_t seen_mac, uint32_t seen_pad)
{
	char name[SEEN_NAME_MAX];
	qg_err err = seen_name(epoch_row, name, sizeof name);
	/* A segment has 18 chunks or more, so numbers stay below 2^28. */
	int64_t both = (int64_t)((uint64_t)seen_mac << 32 | seen_pad);
	return err == QG_OK ? store->ops->number_put(store, name, both) : err;
}

qg_err
qg_pads_forget_seen(int64_t epoch_row, qg_store *store)
{
	return put_seen(store, epoch_row, 0, 0);
}

qg_err
qg_pads_load_seen(qg_epoch *e, qg_store *store)
{
	char name[SEEN_NAME_MAX];
	int64_t both = 0;
	qg_err err = seen_name(e->row, name, sizeof name);
	if (err == QG_OK)
		err = store->ops->number_get(store, name, &both);
	if (err == QG_OK) {
		e->seen_mac = (uint32_t)((uint64_t)both >> 32);
		e->seen_pad = (uint32_t)((uint64_t)both & UINT32_MAX);
	}
	return err;
}

typedef struct open_job {
	qg_job job;
	qg_stream *stream;
	size_t n;
	pad_segment *seg[OPEN_MAX];
	struct {
		int64_t row;
		int64_t epoch_row; /* 0: a later one of that epoch tells what is seen of it */
		uint32_t mac, pad; /* seen of that epoch */
	} what[OPEN_MAX];
} open_job;

static qg_err
open_run(qg_job *job, qg_store *store)
{
	open_job *j = (open_job *)job;
	for (size_t i = 0; i < j->n; i++) {
		qg_err err = store->ops->segment_delete(store, j->what[i].row);
		if (err == QG_OK && j->what[i].epoch_row != 0)
			err = put_seen(store, j->what[i].epoch_row, j->what[i].mac, j->what[i].pad);
		if (err != QG_OK)
			return err;
	}
	qg_commit_note_change(j->stream->core);
	return QG_OK;
}

static void
remove_in(qg_stream *st, pad_segment *p)
{
	qg_pads *q = st->pads;
	pad_segment **at = &q->in;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	q->n_spent -= p->open && !p->lost && p->left == 0;
	qg_pads_segment_free(&p);
}

/* What is left of one is destroyed. One that is being opened goes with its job. */
static void
give_up(qg_stream *st, pad_segment *p)
{
	if (p->left > 0) {
		st->pads->in_chunks -= p->chunks;
		qg_pads_lose(st, false, p);
	}
	if (p->open)
		remove_in(st, p);
}

/* The segment of the job, once it is decided; its waiters go to *list. */
static void
decide(qg_stream *st, pad_segment *p, qg_err err, qg_waiter **list)
{
	while (p->waiters != NULL) {
		qg_waiter *w = p->waiters;
		p->waiters = w->next;
		w->next = *list;
		*list = w;
	}
	if (err == QG_OK && !p->lost) {
		if (!p->counted)
			st->pads->account[false].opened += p->len;
		p->open = p->counted = true;
		return;
	}
	give_up(st, p);
	remove_in(st, p);
}

static void
open_done(qg_job *job, qg_err err)
{
	open_job *j = (open_job *)job;
	qg_stream *st = j->stream;
	qg_waiter *waiters = NULL;
	if (err == QG_OK && !qg_commit_anchored(st->core))
		err = QG_E_IO;
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "stream", "event=pads_not_opened stream=%s side=far_end reason=\"%s\"",
		       st->cfg->name, qg_err_text(err));
	pthread_mutex_lock(&st->lock);
	for (size_t i = 0; i < j->n; i++)
		decide(st, j->seg[i], err, &waiters);
	pthread_mutex_unlock(&st->lock);
	qg_stream_run_waiters(waiters, err);
	free(j);
}

/* What the neighbour is told to have opened up to, once the job is done. */
static void
note_seen(open_job *j, qg_epoch *e, const pad_segment *p)
{
	uint32_t *seen = p->use == QG_USE_MAC ? &e->seen_mac : &e->seen_pad;
	if (*seen <= p->number)
		*seen = p->number + 1;
	for (size_t i = 0; i < j->n; i++)
		if (j->what[i].epoch_row == e->row)
			j->what[i].epoch_row = 0;
	j->what[j->n].epoch_row = e->row;
	j->what[j->n].mac = e->seen_mac;
	j->what[j->n].pad = e->seen_pad;
}

static qg_err
open_stored(qg_stream *st, open_job *j, qg_segment *s)
{
	qg_epoch *e = s->epoch;
	pad_segment *p = qg_pads_detach(s);
	if (p == NULL)
		return QG_E_NOMEM;
	note_seen(j, e, p);
	p->turn = st->pads->turns;
	p->next = st->pads->in;
	st->pads->in = p;
	st->pads->in_chunks += p->chunks;
	j->what[j->n].row = p->row;
	j->seg[j->n++] = p;
	return QG_OK;
}

/* Where pads are used up fast, those that the owner opened as well: it names them
 * next, and none of them can be in its store any more. */
static void
open_ahead(qg_stream *st, open_job *j, const qg_kms_pad *pad, uint32_t opened)
{
	const size_t most = j->n + qg_pads_pace(&st->pads->in_pace, qg_clock_elapsed_ms()) - 1;
	const uint32_t first = pad->segment + 1; /* it is stored here, so this is below 2^28 */
	const uint32_t end = opened > first + AHEAD_SEARCH ? first + AHEAD_SEARCH : opened;
	for (uint32_t number = first; number < end && j->n < most; number++) {
		qg_kms_pad next = {.segment = number};
		memcpy(next.epoch, pad->epoch, sizeof next.epoch);
		qg_segment *s = find_stored(st, &next);
		if (s != NULL && s->use == QG_USE_PAD && open_stored(st, j, s) != QG_OK)
			return;
	}
}

/* Jobs are done in their order: who waits, waits for the last one. */
static void
wait_for(pad_segment *p, pad_segment **last)
{
	if (!p->open && (*last == NULL || (*last)->turn < p->turn))
		*last = p;
}

/* `next`: the last one of the pads, if it had to be opened. */
static qg_err
open_named(qg_stream *st, const qg_kms_pad *pad, size_t n, open_job *j, const qg_kms_pad **next, pad_segment **last)
{
	for (size_t i = 0; i < n; i++) {
		pad_segment *p = find_in(st, &pad[i]);
		*next = NULL;
		if (p == NULL) {
			qg_segment *s = find_stored(st, &pad[i]);
			qg_err err = s == NULL ? QG_E_NOTFOUND : open_stored(st, j, s);
			if (err != QG_OK)
				return err;
			p = st->pads->in;
			*next = p->use == QG_USE_PAD ? &pad[i] : NULL;
		}
		if (p->lost)
			return QG_E_NOTFOUND;
		wait_for(p, last);
	}
	return QG_OK;
}

qg_err
qg_pads_open(qg_stream *st, const qg_kms_pad *pad, size_t n, uint32_t opened_pad, qg_waiter *w)
{
	pad_segment *last = NULL;
	const qg_kms_pad *next = NULL;
	if (n == 0 || n > QG_KMS_PADS_MAX)
		return QG_E_INVAL;
	open_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return QG_E_NOMEM;
	st->pads->turns++;
	qg_err err = open_named(st, pad, n, j, &next, &last);
	if (err == QG_OK && next != NULL)
		open_ahead(st, j, next, opened_pad);
	bool begun = j->n > 0;
	if (begun) {
		j->job.run = open_run;
		j->job.done = open_done;
		j->stream = st;
		qg_committer_submit(st->core->committer, &j->job);
	} else {
		free(j);
	}
	if (err != QG_OK)
		return err;
	if (last == NULL)
		return QG_OK;
	if (w != NULL) {
		w->next = last->waiters;
		last->waiters = w;
	}
	return QG_E_AGAIN;
}

/* --- using up ------------------------------------------------------------------ */

static qg_err
check_spend(const qg_stream *st, const qg_kms_pad *pad, size_t n, size_t *data_len)
{
	qg_segment_use use[QG_KMS_PADS_MAX];
	qg_err err = check_ranges(pad, n, use, data_len);
	for (size_t i = 0; i < n && err == QG_OK; i++) {
		const pad_segment *p = find_in(st, &pad[i]);
		if (p == NULL || !p->open)
			err = QG_E_NOTFOUND;
		else if (p->use != use[i] || pad[i].offset + pad[i].len > p->len)
			err = QG_E_INVAL;
		else if (p->data == NULL || qg_bits_any(p->used, pad[i].offset, pad[i].len))
			err = QG_E_CONSUMED;
	}
	return err;
}

/* The last of those that were used up: the list is newest first. */
static void
drop_spent(qg_stream *st)
{
	pad_segment *last = NULL;
	for (pad_segment *p = st->pads->in; p != NULL; p = p->next)
		if (p->open && p->left == 0)
			last = p;
	if (last != NULL)
		remove_in(st, last);
}

static void
spend_range(qg_stream *st, const qg_kms_pad *pad)
{
	pad_segment *p = find_in(st, pad);
	qg_bits_set(p->used, pad->offset, pad->len);
	qg_wipe(p->data->data + pad->offset, pad->len);
	p->left -= pad->len;
	if (p->left > 0)
		return;
	qg_secret_free(&p->data);
	free(p->used);
	p->used = NULL;
	st->pads->in_chunks -= p->chunks;
	if (++st->pads->n_spent > SPENT_MAX)
		drop_spent(st);
}

/* The owner will not name them any more. */
static void
destroy_below(qg_stream *st, qg_segment_use use, const uint8_t epoch[16], uint32_t oldest)
{
	for (pad_segment *p = st->pads->in, *next; p != NULL; p = next) {
		next = p->next;
		if (p->use == use && p->number < oldest && memcmp(p->epoch, epoch, sizeof p->epoch) == 0)
			give_up(st, p);
	}
	qg_epoch *e = qg_epoch_find(st, epoch);
	if (e == NULL)
		return;
	for (qg_segment *s = e->node.first, *next; s != NULL && s->number < oldest; s = next) {
		next = qg_segment_next(s);
		if (!s->ours && s->use == use)
			qg_flush_delete(s);
	}
}

qg_err
qg_pads_spend(qg_stream *st, const qg_kms_pad *pad, size_t n, uint32_t oldest_mac, uint32_t oldest_pad)
{
	size_t data_len = 0;
	qg_err err = check_spend(st, pad, n, &data_len);
	if (err != QG_OK)
		return err;
	for (size_t i = 0; i < n; i++)
		spend_range(st, &pad[i]);
	qg_pads_count_message(&st->pads->account[false], data_len);
	destroy_below(st, QG_USE_MAC, pad[0].epoch, oldest_mac);
	destroy_below(st, QG_USE_PAD, pad[n - 1].epoch, oldest_pad);
	return QG_OK;
}

/* --- ending -------------------------------------------------------------------- */

void
qg_pads_expire_in(qg_stream *st)
{
	uint64_t now_ms = st->pads->in != NULL ? qg_lifetime_far_ms(&st->core->life) : 0;
	for (pad_segment *p = st->pads->in, *next; p != NULL; p = next) {
		next = p->next;
		if (now_ms >= p->end_ms)
			give_up(st, p);
	}
}

void
qg_pads_forget_in(qg_stream *st, const uint8_t *epoch)
{
	for (pad_segment *p = st->pads->in, *next; p != NULL; p = next) {
		next = p->next;
		if (epoch == NULL || memcmp(p->epoch, epoch, sizeof p->epoch) == 0)
			give_up(st, p);
	}
}
