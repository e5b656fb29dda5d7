/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "pad_internal.h"
#include "qkdgate/core_view.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* Housekeeping of what rests in the store: consumed key leaves the blobs,
 * spent and expired segments are deleted, ended epochs go (SOUNDNESS 11, 12). */

#define FLUSH_AT_ONCE 512 /* segments written per pass and stream */

typedef struct flush_job {
	qg_job job;
	qg_segment *seg;
	int64_t row;
	uint8_t *blob;
	size_t len;
	bool delete;
} flush_job;

static qg_err
flush_run(qg_job *job, qg_store *store)
{
	flush_job *j = (flush_job *)job;
	if (j->delete)
		return store->ops->segment_delete(store, j->row);
	return store->ops->segment_reseal(store, j->row, j->blob, j->len);
}

static void
flush_done(qg_job *job, qg_err err)
{
	flush_job *j = (flush_job *)job;
	qg_segment *s = j->seg;
	qg_epoch *e = s->epoch;
	qg_stream *st = e->stream;
	pthread_mutex_lock(&st->lock);
	s->flushing = false;
	if (err == QG_OK)
		s->stored_generation = 0;
	if (err != QG_OK) {
		qg_segment_set_dirty(s, true);
		qg_log(QG_LOG_ERROR, "stream", "event=flush_failed stream=%s segment=%u reason=\"%s\"",
		       st->cfg->name, s->number, qg_err_text(err));
	}
	e->pins--;
	qg_segment_unpin(s);
	pthread_mutex_unlock(&st->lock);
	free(j->blob);
	free(j);
}

/* Under the stream's lock. A deleted segment leaves memory at once; a delete
 * that fails leaves a row that the next start finds used up or expired. False: no
 * memory, and nothing is done. */
static bool
flush_segment(qg_segment *s, bool delete)
{
	qg_epoch *e = s->epoch;
	flush_job *j = calloc(1, sizeof *j);
	/* Until it is done the database has the blob before. */
	if (s->stored_generation == 0)
		s->stored_generation = s->generation;
	if (j == NULL || (!delete &&s->data != NULL && qg_segment_seal(s, &j->blob, &j->len) != QG_OK)) {
		free(j);
		return false;
	}
	j->job.run = flush_run;
	j->job.done = flush_done;
	j->seg = s;
	j->row = s->row;
	j->delete = delete;
	qg_segment_set_dirty(s, false);
	s->flushing = true;
	s->pins++;
	e->pins++;
	if (delete)
		qg_epoch_remove(e, s);
	qg_committer_submit(e->stream->core->committer, &j->job);
	return true;
}

void
qg_flush_delete(qg_segment *s)
{
	(void)flush_segment(s, true);
}

/* Whether nothing in the segment can be issued or fetched any more. The last
 * confirmed one of the neighbour stays, for its answer. */
static bool
segment_spent(const qg_epoch *e, const qg_segment *s)
{
	if (s->ours)
		return s->cursor == s->hi;
	return s->left == 0 && e->last_in != s->number + 1;
}

/* Whether what is stored of it is to be written anew. One on offer is only
 * sealed again: its generation must not be destroyed under it. */
static bool
is_stale(const qg_segment *s, uint32_t generation)
{
	return s->data != NULL && s->generation != 0 && s->generation != generation;
}

static bool
wants_flush(const qg_segment *s, uint32_t generation)
{
	if (s->flushing || s->row == 0)
		return false;
	const bool stale = is_stale(s, generation);
	return s->phase == QG_SEG_CONFIRMED ? s->dirty || stale : s->phase == QG_SEG_OFFERED && stale;
}

static unsigned
flush_dirty(qg_epoch *e, uint32_t generation, unsigned most)
{
	unsigned n = 0;
	for (qg_segment *s = e->dirty.first, *next; s != NULL && n < most; s = next) {
		next = qg_segment_next_dirty(s);
		if (!wants_flush(s, generation))
			continue;
		(void)flush_segment(s, s->phase == QG_SEG_CONFIRMED && segment_spent(e, s));
		n++;
	}
	return n;
}

/* After a rotation of the key ring every segment is looked at, until no blob is left
 * that was sealed before it: what is sealed now is sealed under the new one. */
static unsigned
flush_stale(qg_stream *st, uint32_t generation, unsigned most)
{
	unsigned n = 0;
	bool left = false;
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		for (uint32_t i = 0; i < e->n_seg; i++) {
			qg_segment *s = e->seg[i];
			if (s == NULL || !is_stale(s, generation))
				continue;
			if (n < most && wants_flush(s, generation)) {
				(void)flush_segment(s, false);
				n++;
			}
			left |= is_stale(s, generation);
		}
	st->resealed = left ? 0 : generation;
	return n;
}

unsigned
qg_flush_stream(qg_stream *st)
{
	unsigned n = 0;
	pthread_mutex_lock(&st->lock);
	const uint32_t generation = qg_sealer_generation(st->core->part.sealer);
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		n += flush_dirty(e, generation, FLUSH_AT_ONCE - n);
	if (st->resealed != generation)
		n += flush_stale(st, generation, FLUSH_AT_ONCE - n);
	pthread_mutex_unlock(&st->lock);
	return n;
}

void
qg_flush_destroy(qg_stream *st)
{
	pthread_mutex_lock(&st->lock);
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		for (uint32_t n = e->base, end = e->base + e->n_seg; n < end; n++) {
			qg_segment *s = qg_epoch_segment(e, n);
			if (s != NULL && s->phase == QG_SEG_CONFIRMED)
				(void)flush_segment(s, true);
		}
	qg_pads_forget_epoch(st, NULL);
	pthread_mutex_unlock(&st->lock);
}

/* --- time -------------------------------------------------------------------------- */

bool
qg_segment_expired(const qg_segment *s)
{
	const qg_epoch *e = s->epoch;
	const struct qg_core *core = e->stream->core;
	assert(s->phase == QG_SEG_CONFIRMED);
	if (s->ours)
		return e->state == QG_EPOCH_DRAINING ||
		       qg_lifetime_owner_ms(&core->life) >= s->born_ms + (uint64_t)s->issue_s * 1000;
	return qg_lifetime_far_ms(&core->life) >= s->born_ms + ((uint64_t)s->issue_s + s->fetch_s) * 1000;
}

static void
expire_segments(qg_stream *st, qg_epoch *e, bool ours)
{
	for (qg_segment *s; (s = qg_epoch_first_to_end(e, ours)) != NULL && qg_segment_expired(s);) {
		if (s->ours ? s->cursor < s->hi : s->left > 0) {
			qg_audit_event ev = {.act = QG_AUDIT_DESTROYED,
					     .caller = st->neighbour->id,
					     .peer = st->cfg->name,
					     .reason = "expired",
					     .ids = &e->ksid,
					     .n_ids = 1};
			qg_audit_write(st->core->part.audit, &ev);
			qg_log(QG_LOG_INFO, "stream", "event=segment_expired stream=%s segment=%u side=%s",
			       st->cfg->name, s->number, s->ours ? "owner" : "far_end");
		}
		if (!flush_segment(s, true))
			break;
	}
}

typedef struct forget_job {
	qg_job job;
	qg_epoch *epoch;
} forget_job;

static qg_err
forget_run(qg_job *job, qg_store *store)
{
	forget_job *j = (forget_job *)job;
	if (j->epoch->row == 0)
		return QG_OK;
	qg_err err = store->ops->epoch_delete(store, j->epoch->row);
	if (err == QG_OK)
		err = qg_pads_forget_seen(j->epoch->row, store);
	if (err == QG_OK)
		qg_commit_note_mark(j->epoch->stream->core, j->epoch->id, UINT64_MAX);
	return err;
}

static void
forget_done(qg_job *job, qg_err err)
{
	forget_job *j = (forget_job *)job;
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "stream", "event=epoch_not_deleted stream=%s reason=\"%s\"",
		       j->epoch->stream->cfg->name, qg_err_text(err));
	qg_epoch_free(&j->epoch);
	free(j);
}

/* Its last windows have passed; or no ID was ever made in it, and a source that
 * is lost again and again must not leave a heap of such epochs. */
static bool
epoch_over(const qg_epoch *e, uint64_t now_ms)
{
	if (e->state == QG_EPOCH_FILLING || e->pins > 0 || e->n_of[false] + e->n_of[true] > 0)
		return false;
	return now_ms >= e->end_ms || (e->keys_out == NULL && e->keys_in == NULL && !e->tell_closed);
}

/* Takes such an epoch out; its key-ID keys go too. */
static void
forget_epochs(qg_stream *st)
{
	uint64_t now_ms = qg_lifetime_far_ms(&st->core->life);
	for (qg_epoch **at = &st->newest; *at != NULL;) {
		qg_epoch *e = *at;
		forget_job *j = NULL;
		if (epoch_over(e, now_ms))
			j = calloc(1, sizeof *j);
		if (j == NULL) {
			at = &e->older;
			continue;
		}
		*at = e->older;
		j->job.run = forget_run;
		j->job.done = forget_done;
		j->epoch = e;
		qg_pads_forget_epoch(st, e->id);
		qg_audit_epoch(st->core, e, "destroyed");
		qg_committer_submit(st->core->committer, &j->job);
	}
}

void
qg_flush_expire(qg_stream *st)
{
	pthread_mutex_lock(&st->lock);
	int64_t age_ms = (int64_t)st->core->part.cfg->epoch_age_s * 1000;
	qg_epoch *filling = qg_epoch_filling(st);
	if (filling != NULL && filling->opener && qg_clock_wall_ms() - filling->created_ms > age_ms)
		qg_epoch_end(filling, QG_KMS_CLOSE_AGE, true);
	qg_pads_expire(st);
	for (qg_epoch *e = st->newest; e != NULL; e = e->older) {
		expire_segments(st, e, false);
		expire_segments(st, e, true);
		if (e->state == QG_EPOCH_ENDED && e->n_of[true] == 0) {
			e->state = QG_EPOCH_DRAINING;
			qg_epoch_save(e);
		}
	}
	forget_epochs(st);
	pthread_mutex_unlock(&st->lock);
}

/* --- checkpoint ----------------------------------------------------------- */

typedef struct checkpoint_job {
	qg_job job;
	struct qg_core *core;
	qg_lifetime_checkpoint c;
	qg_audit_end audit; /* the last line that is synced */
} checkpoint_job;

static qg_err
checkpoint_run(qg_job *job, qg_store *store)
{
	checkpoint_job *j = (checkpoint_job *)job;
	/* What was committed last before the load ended. */
	if (j->core->anchored.commits < (uint64_t)j->core->commits)
		qg_commit_note_change(j->core);
	qg_err err = store->ops->number_put(store, "life_owner_ms", (int64_t)j->c.owner_ms);
	if (err == QG_OK)
		err = store->ops->number_put(store, "life_far_ms", (int64_t)j->c.far_ms);
	if (err == QG_OK)
		err = store->ops->number_put(store, "life_wall_ms", j->c.wall_ms);
	if (err == QG_OK)
		err = store->ops->number_put(store, QG_CORE_AUDIT_LINES, (int64_t)j->audit.seq);
	return err;
}

static void
checkpoint_done(qg_job *job, qg_err err)
{
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "store", "event=checkpoint_failed reason=\"%s\"", qg_err_text(err));
	free(job);
}

void
qg_flush_checkpoint(struct qg_core *core)
{
	checkpoint_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return;
	j->core = core;
	qg_lifetime_now(&core->life, &j->c);
	qg_audit_synced(core->part.audit, &j->audit);
	j->job.run = checkpoint_run;
	j->job.done = checkpoint_done;
	qg_committer_submit(core->committer, &j->job);
}
