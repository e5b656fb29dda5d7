/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "relay_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* The far end's side of a segment's confirmation: the request's MAC proves that
 * both ends hold the same key; the segment is durable before the answer, and
 * the answer is stored with it and repeated byte for byte (SOUNDNESS 5). */

#define WINDOW_MAX_S (10u * 365 * 86400)

static void
answer_plain(qg_kms_batch_result result, qg_peer_answer *answer, void *ctx)
{
	qg_kms_batch_answer a = {.result = result};
	char text[512];
	size_t len = 0;
	if (qg_kms_batch_answer_encode(&a, text, sizeof text, &len) == QG_OK)
		answer(ctx, 200, text, len);
	else
		answer(ctx, 500, NULL, 0);
}

/* Destroys a segment that cannot become usable and counts it. */
static void
refuse_segment(qg_epoch *e, uint32_t number, bool mismatch, const char *why)
{
	qg_segment *s = qg_epoch_segment(e, number);
	if (s != NULL) {
		s->phase = QG_SEG_DEAD;
		qg_epoch_remove(e, s);
	}
	if (e->decided_in <= number)
		e->decided_in = number + 1;
	qg_segment_report(e, number, mismatch, why);
	if (e->bad_in_row >= QG_BAD_LIMIT)
		qg_epoch_end(e, QG_KMS_CLOSE_MISMATCH, true);
	else
		qg_epoch_save(e);
}

/* That a segment is refused is durable before the owner hears of it: it is not
 * accepted after a crash either (SOUNDNESS 5). */
typedef struct refuse_job {
	qg_job job;
	qg_kms_batch_result result;
	qg_peer_answer *answer;
	void *ctx;
} refuse_job;

static qg_err
refuse_run(qg_job *job, qg_store *store)
{
	(void)job, (void)store; /* the epoch's record stands before it in the queue */
	return QG_OK;
}

static void
refuse_done(qg_job *job, qg_err err)
{
	refuse_job *j = (refuse_job *)job;
	if (err == QG_OK)
		answer_plain(j->result, j->answer, j->ctx);
	else
		j->answer(j->ctx, 503, NULL, 0);
	free(j);
}

static void
refuse_batch(qg_epoch *e, uint32_t number, bool mismatch, const char *why, qg_peer_answer *answer, void *ctx)
{
	refuse_job *j = calloc(1, sizeof *j);
	refuse_segment(e, number, mismatch, why);
	if (j == NULL) {
		answer(ctx, 503, NULL, 0);
		return;
	}
	*j = (refuse_job){.job = {.run = refuse_run, .done = refuse_done},
			  .answer = answer,
			  .ctx = ctx,
			  .result = mismatch ? QG_KMS_BATCH_MISMATCH : QG_KMS_BATCH_GONE};
	qg_committer_submit(e->stream->core->committer, &j->job);
}

/* --- storing what verified ---------------------------------------------------- */

/* The answer of the segment before was got: the owner went on. */
static void
forget_last(qg_epoch *e, uint32_t number)
{
	uint32_t last = e->last_in;
	e->last_in = number + 1;
	qg_segment *s = last > 0 ? qg_epoch_segment(e, last - 1) : NULL;
	if (s != NULL)
		qg_segment_set_dirty(s, true); /* the flush deletes it if nothing is left in it */
}

/* The next segment brings the direction's root anew. */
static void
forget_root(qg_segment *s)
{
	if (!s->root)
		return;
	qg_key_id_keys_free(&s->epoch->keys_in);
	qg_secret_free(&s->epoch->root_in);
}

static void
accept_done(qg_job *job, qg_err err)
{
	qg_segment_job *j = (qg_segment_job *)job;
	qg_segment *s = j->seg;
	qg_epoch *e = s->epoch;
	qg_stream *st = e->stream;
	pthread_mutex_lock(&st->lock);
	if (err == QG_OK && !s->removed) {
		s->row = j->rec.row;
		qg_segment_confirmed(s);
		s->ready_wall_ms = j->rec.ready_wall_ms;
		if (s->use != QG_USE_APPLICATION)
			qg_pads_confirmed(s);
		else
			st->held += s->left;
		e->bad_in_row = 0;
		forget_last(e, s->number);
	} else if (err != QG_OK) {
		forget_root(s);
		refuse_segment(e, s->number, false, "it could not be stored");
	}
	/* The message lives as long as the segment; copy it for the answer. */
	char text[512];
	size_t len = s->message_len < sizeof text ? s->message_len : 0;
	memcpy(text, s->message, len);
	e->pins--;
	qg_segment_unpin(s);
	pthread_mutex_unlock(&st->lock);
	if (err == QG_OK && len > 0)
		j->answer(j->ctx, 200, text, len);
	else
		j->answer(j->ctx, 503, NULL, 0);
	qg_stream_kick(st);
	qg_segment_job_free(j);
}

static qg_err
make_answer(qg_segment *s)
{
	qg_kms_batch_answer a = {.result = QG_KMS_BATCH_CONFIRMED};
	qg_segment_answer_mac(s, s->tag, a.mac);
	s->message = malloc(512);
	if (s->message == NULL)
		return QG_E_NOMEM;
	return qg_kms_batch_answer_encode(&a, s->message, 512, &s->message_len);
}

/* Segments of the owner before this one will never be confirmed; full ones, or
 * filling ones too. */
static void
drop_earlier(qg_epoch *e, uint32_t number, bool filling)
{
	for (qg_segment *s = e->open.first, *next; s != NULL && s->number < number; s = next) {
		next = qg_segment_next(s);
		if (s->ours)
			continue;
		if (s->phase == QG_SEG_FULL || (filling && s->phase == QG_SEG_FILLING))
			qg_epoch_remove(e, s);
	}
}

static qg_err
accept_job_new(qg_segment *s, const qg_kms_batch *m, qg_segment_job **out)
{
	s->issue_s = m->issue_s;
	s->fetch_s = m->fetch_s;
	s->use = m->use;
	s->born_ms = qg_lifetime_far_ms(&s->epoch->stream->core->life);
	memcpy(s->tag, m->mac, sizeof s->tag);
	qg_err err = make_answer(s);
	if (err == QG_OK)
		err = qg_segment_take_root(s);
	if (err == QG_OK) {
		qg_segment_wipe_reserved(s);
		err = qg_segment_job_new(s, out);
	}
	if (err == QG_OK)
		(*out)->job.done = accept_done;
	return err;
}

/* --- judging ------------------------------------------------------------------ */

static void
verify_and_store(qg_segment *s, const qg_kms_batch *m, qg_peer_answer *answer, void *ctx)
{
	qg_epoch *e = s->epoch;
	uint8_t mac[QG_MAC_BYTES];
	qg_segment_set_root(s, m->root);
	qg_segment_request_mac(s, m, mac);
	if (!qg_equal_ct(mac, m->mac, sizeof mac)) {
		refuse_batch(e, s->number, true, "the two ends hold different key", answer, ctx);
		return;
	}
	qg_segment_job *j = NULL;
	e->seen_mark = m->mark;
	drop_earlier(e, s->number, true);
	e->decided_in = s->number + 1;
	if (accept_job_new(s, m, &j) != QG_OK) {
		refuse_batch(e, s->number, false, "no memory", answer, ctx);
		return;
	}
	qg_relay_part_free(s);
	s->phase = QG_SEG_STORING;
	s->pins++;
	e->pins++;
	j->answer = answer;
	j->ctx = ctx;
	qg_committer_submit(e->stream->core->committer, &j->job);
}

/* Each use has a bound of its own, so that neither keeps the other out. */
static uint64_t
held_of(const qg_stream *st, qg_segment_use use)
{
	return use != QG_USE_APPLICATION ? qg_pads_held(st) : st->held;
}

static void
judge_complete(qg_segment *s, const qg_kms_batch *m, qg_peer_answer *answer, void *ctx)
{
	qg_epoch *e = s->epoch;
	qg_stream *st = e->stream;
	if (m->mark < e->seen_mark) {
		qg_log(QG_LOG_ERROR, "stream", "event=mark_fell_back stream=%s neighbour=%s", st->cfg->name,
		       st->neighbour->id);
		qg_epoch_end(e, QG_KMS_CLOSE_ROLLBACK, true);
		answer_plain(QG_KMS_BATCH_MISMATCH, answer, ctx);
	} else if (m->root != (e->keys_in == NULL) || (m->root && m->use != QG_USE_APPLICATION)) {
		refuse_batch(e, s->number, true, "the key-ID root is not where it belongs", answer, ctx);
	} else if (held_of(st, m->use) + s->count > st->core->part.cfg->inbound_chunks) {
		answer_plain(QG_KMS_BATCH_FULL, answer, ctx);
	} else {
		verify_and_store(s, m, answer, ctx);
	}
}

/* The owner offers in order, so what lies before will never be confirmed. If
 * it waited here for its offer until there was no room for more, the segment
 * that is on offer would never come. */
static void
go_on_at(qg_stream *st, qg_epoch *e, uint32_t number)
{
	drop_earlier(e, number, false);
	pthread_cond_broadcast(&st->wake);
}

static void
judge_batch(qg_stream *st, qg_epoch *e, const qg_kms_batch *m, qg_peer_answer *answer, void *ctx)
{
	qg_segment *s = qg_epoch_segment(e, m->segment);
	if (s != NULL && s->phase == QG_SEG_STORING) {
		answer_plain(QG_KMS_BATCH_PENDING, answer, ctx);
	} else if (s != NULL && s->phase == QG_SEG_CONFIRMED && qg_equal_ct(s->tag, m->mac, sizeof s->tag)) {
		answer(ctx, 200, s->message, s->message_len);
	} else if (e->state != QG_EPOCH_FILLING) {
		answer_plain(QG_KMS_BATCH_UNKNOWN, answer, ctx);
	} else if (m->segment < e->decided_in) {
		answer_plain(QG_KMS_BATCH_MISMATCH, answer, ctx);
	} else if (s != NULL && s->phase == QG_SEG_FULL) {
		judge_complete(s, m, answer, ctx);
	} else if (s == NULL && !st->cfg->relayed && st->next_index >= m->first_index + m->count) {
		refuse_batch(e, m->segment, false, "chunks were missing here", answer, ctx);
	} else {
		if (m->segment >= st->next_index / e->segment_chunks)
			go_on_at(st, e, m->segment);
		answer_plain(QG_KMS_BATCH_PENDING, answer, ctx);
	}
}

static bool
batch_fits(const qg_epoch *e, const qg_kms_batch *m)
{
	return m->count == e->segment_chunks && m->first_index == (uint64_t)m->segment * e->segment_chunks &&
	       !qg_epoch_is_ours(e, m->segment) && qg_uuid_equal(&m->ksid, &e->ksid) && m->issue_s > 0 &&
	       m->issue_s <= WINDOW_MAX_S && m->fetch_s > 0 && m->fetch_s <= WINDOW_MAX_S;
}

void
qg_accept_batch(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		qg_peer_answer *answer, void *ctx)
{
	qg_kms_batch m;
	if (qg_kms_batch_decode(body, len, &m) != QG_OK) {
		answer(ctx, 400, NULL, 0);
		return;
	}
	qg_stream *st = qg_stream_find(core, neighbour, m.stream);
	if (st == NULL) {
		answer_plain(QG_KMS_BATCH_UNKNOWN, answer, ctx);
		return;
	}
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_find(st, m.epoch);
	/* The neighbour may have the new epoch before it is stored here. */
	bool opening = st->phase == QG_STREAM_APP_SENT || st->phase == QG_STREAM_STORING;
	if (e == NULL || e->row == 0)
		answer_plain(opening ? QG_KMS_BATCH_PENDING : QG_KMS_BATCH_UNKNOWN, answer, ctx);
	else if (!batch_fits(e, &m))
		answer(ctx, 400, NULL, 0);
	else
		judge_batch(st, e, &m, answer, ctx);
	pthread_mutex_unlock(&st->lock);
}
