/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* Leases (DESIGN, idea 6): the durable mark of an epoch runs ahead of what is
 * issued, in steps that follow the demand, so that no request waits for the
 * disk and a crash wastes little. */

#define STEP_MIN 64
#define FAST_MS 50
#define SLOW_MS 1000

typedef struct lease_job {
	qg_job job;
	qg_epoch *epoch;
	uint64_t mark;
} lease_job;

uint32_t
qg_lease_room(const qg_segment *s)
{
	uint64_t mark = s->epoch->mark;
	if (mark <= s->first_index + s->cursor)
		return 0;
	uint64_t end = mark - s->first_index < s->hi ? mark - s->first_index : s->hi;
	return end > s->cursor ? (uint32_t)end - s->cursor : 0;
}

static qg_err
lease_run(qg_job *job, qg_store *store)
{
	lease_job *j = (lease_job *)job;
	qg_err err = store->ops->epoch_mark(store, j->epoch->row, j->mark);
	if (err == QG_OK)
		qg_commit_note_mark(j->epoch->stream->core, j->epoch->id, j->mark);
	return err;
}

static void
lease_done(qg_job *job, qg_err err)
{
	lease_job *j = (lease_job *)job;
	qg_stream *st = j->epoch->stream;
	if (err == QG_OK && !qg_commit_anchored(st->core))
		err = QG_E_IO;
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "stream", "event=lease_not_saved stream=%s reason=\"%s\"", st->cfg->name,
		       qg_err_text(err));
	pthread_mutex_lock(&st->lock);
	if (err == QG_OK)
		j->epoch->mark = j->mark;
	j->epoch->lease_wish = 0;
	j->epoch->pins--;
	qg_waiter *waiters = st->lease_waiters;
	st->lease_waiters = NULL;
	pthread_mutex_unlock(&st->lock);
	qg_stream_run_waiters(waiters, err);
	free(j);
}

static void
adapt_step(qg_stream *st)
{
	uint64_t now_ms = qg_clock_elapsed_ms();
	uint64_t since_ms = now_ms - st->leased_at_ms;
	uint32_t most = st->core->part.cfg->lease_chunks;
	if (st->lease_step < STEP_MIN)
		st->lease_step = STEP_MIN;
	else if (since_ms < FAST_MS)
		st->lease_step = st->lease_step * 2 < most ? st->lease_step * 2 : most;
	else if (since_ms > SLOW_MS)
		st->lease_step = st->lease_step / 2 > STEP_MIN ? st->lease_step / 2 : STEP_MIN;
	st->leased_at_ms = now_ms;
}

static bool
issuable(const qg_segment *s)
{
	return s != NULL && s->ours && s->phase == QG_SEG_CONFIRMED && s->use == QG_USE_APPLICATION &&
	       s->cursor < s->hi;
}

/* The first segment that may have something to issue: a large stock is not looked
 * through from its beginning. */
static uint32_t
first_of(const qg_epoch *e)
{
	return e->issue_from > e->base ? e->issue_from - e->base : 0;
}

/* First chunk that may be issued next, the end of what is confirmed as far as it
 * matters, which is behind the mark or not, and how many chunks in between are
 * under the mark. */
static bool
issue_range(const qg_epoch *e, uint64_t *from, uint64_t *end, uint64_t *left)
{
	bool any = false;
	*left = 0;
	for (uint32_t i = first_of(e); i < e->n_seg; i++) {
		const qg_segment *s = e->seg[i];
		if (!issuable(s))
			continue;
		if (!any)
			*from = s->first_index + s->cursor;
		*end = s->first_index + s->hi;
		*left += qg_lease_room(s);
		any = true;
		if (*end > e->mark)
			break;
	}
	return any;
}

/* The index behind the next n chunks that may be issued, from `from` on, or the
 * end of what is confirmed. What is not for applications does not count: a mark
 * in the midst of it would lease nothing. */
static uint64_t
mark_ahead(const qg_epoch *e, uint64_t from, uint64_t n)
{
	uint64_t mark = from;
	for (uint32_t i = first_of(e); i < e->n_seg && n > 0; i++) {
		const qg_segment *s = e->seg[i];
		if (!issuable(s) || s->first_index + s->hi <= from)
			continue;
		uint64_t at = s->first_index + s->cursor > from ? s->first_index + s->cursor : from;
		uint64_t room = s->first_index + s->hi - at;
		uint64_t take = room < n ? room : n;
		mark = at + take;
		n -= take;
	}
	return mark;
}

void
qg_lease_step(qg_epoch *e, uint32_t need)
{
	qg_stream *st = e->stream;
	uint64_t from = 0, end = 0, left = 0;
	if (e->lease_wish != 0 || e->state == QG_EPOCH_DRAINING || e->row == 0 || st->stopping)
		return;
	/* The common case, kept cheap: enough is left. */
	const qg_segment *first = qg_epoch_segment(e, e->issue_from);
	if (need == 0 && issuable(first) &&
	    e->mark > first->first_index + first->cursor + st->lease_step / 2)
		return;
	if (!issue_range(e, &from, &end, &left) || e->mark >= end)
		return;
	if (need == 0 && left > st->lease_step / 2)
		return;
	adapt_step(st);
	uint64_t ahead = (uint64_t)need * 2 > st->lease_step ? (uint64_t)need * 2 : st->lease_step;
	uint64_t mark = mark_ahead(e, from, ahead);
	uint64_t least = mark_ahead(e, e->mark > from ? e->mark : from, ahead / 2);
	if (least > mark)
		mark = least;
	lease_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return;
	j->job.run = lease_run;
	j->job.done = lease_done;
	j->epoch = e;
	j->mark = e->lease_wish = mark;
	e->pins++;
	qg_committer_submit(st->core->committer, &j->job);
}
