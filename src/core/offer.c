/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "relay_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* The owner's side of a segment's confirmation (DESIGN, idea 3; SOUNDNESS 4
 * and 5): the segment and its exact request are durable before the first send,
 * every retry is byte-identical, and only an answer that verifies makes the
 * segment usable. One segment of a stream is on offer at a time, in order. */

#define PENDING_MS 5
#define PENDING_MAX_MS 1000
#define FULL_MS 1000
#define FULL_MAX_MS 10000
#define LINK_MS 200
#define LINK_MAX_MS 5000
#define BAD_ANSWERS 3
#define BATCH_TEXT_MAX 2048

static void
offer_release(qg_stream *st)
{
	qg_segment *s = st->offer;
	if (st->relay != NULL)
		qg_relay_out_end(st, false);
	st->offer = NULL;
	st->offer_flight = false;
	st->offer_at_ms = 0;
	st->offer_backoff_ms = st->offer_bad = 0;
	s->epoch->pins--;
	qg_segment_unpin(s);
}

static void
offer_again(qg_stream *st, unsigned first_ms, unsigned max_ms)
{
	unsigned ms = st->offer_backoff_ms < first_ms ? first_ms : st->offer_backoff_ms * 2;
	st->offer_backoff_ms = ms < max_ms ? ms : max_ms;
	st->offer_at_ms = qg_clock_elapsed_ms() + st->offer_backoff_ms;
	qg_conductor_kick(st->core);
}

/* --- giving up --------------------------------------------------------------- */

static qg_err
drop_run(qg_job *job, qg_store *store)
{
	qg_segment_job *j = (qg_segment_job *)job;
	qg_err err = j->rec.row != 0 ? store->ops->segment_delete(store, j->rec.row) : QG_OK;
	return err == QG_OK ? store->ops->epoch_update(store, &j->img.rec) : err;
}

static void
drop_done(qg_job *job, qg_err err)
{
	qg_segment_job *j = (qg_segment_job *)job;
	qg_epoch *e = j->seg->epoch;
	qg_stream *st = e->stream;
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "stream", "event=segment_not_deleted stream=%s reason=\"%s\"",
		       st->cfg->name, qg_err_text(err));
	pthread_mutex_lock(&st->lock);
	e->pins--;
	qg_segment_unpin(j->seg);
	pthread_mutex_unlock(&st->lock);
	qg_segment_job_free(j);
}

/* Tombstones the segment on offer: destroyed here, never offered again. Only a
 * mismatch counts against the epoch. */
static void
offer_drop(qg_stream *st, bool mismatch, const char *why)
{
	qg_segment *s = st->offer;
	qg_epoch *e = s->epoch;
	qg_segment_report(e, s->number, mismatch, why);
	qg_segment_job *j = calloc(1, sizeof *j);
	if (j != NULL && qg_epoch_snapshot(e, &j->img) == QG_OK) {
		j->job.run = drop_run;
		j->job.done = drop_done;
		j->seg = s;
		j->rec.row = s->row;
		s->pins++;
		e->pins++;
		qg_committer_submit(st->core->committer, &j->job);
	} else {
		free(j);
	}
	if (st->relay != NULL)
		qg_relay_out_end(st, mismatch);
	s->phase = QG_SEG_DEAD;
	if (!s->removed)
		qg_epoch_remove(e, s);
	offer_release(st);
	if (e->bad_in_row >= QG_BAD_LIMIT)
		qg_epoch_end(e, QG_KMS_CLOSE_MISMATCH, true);
}

void
qg_offer_give_up(qg_stream *st, bool mismatch, const char *why)
{
	assert(st->offer->phase == QG_SEG_OFFERED && !st->offer_flight);
	offer_drop(st, mismatch, why);
}

/* --- confirmed --------------------------------------------------------------- */

static qg_err
confirm_run(qg_job *job, qg_store *store)
{
	qg_segment_job *j = (qg_segment_job *)job;
	qg_err err = store->ops->segment_confirm(store, j->rec.row, j->rec.ready_wall_ms, j->rec.hops);
	if (err == QG_OK && j->img.rec.row != 0)
		err = store->ops->epoch_update(store, &j->img.rec);
	return err;
}

static void
confirm_done(qg_job *job, qg_err err)
{
	qg_segment_job *j = (qg_segment_job *)job;
	qg_segment *s = j->seg;
	qg_epoch *e = s->epoch;
	qg_stream *st = e->stream;
	pthread_mutex_lock(&st->lock);
	if (err != QG_OK) {
		qg_log(QG_LOG_ERROR, "stream", "event=segment_not_saved stream=%s segment=%u reason=\"%s\"",
		       st->cfg->name, s->number, qg_err_text(err));
		s->phase = QG_SEG_OFFERED;
		offer_again(st, LINK_MS, LINK_MAX_MS);
	} else {
		qg_segment_confirmed(s);
		s->ready_wall_ms = j->rec.ready_wall_ms;
		qg_segment_wipe_reserved(s);
		if (s->use != QG_USE_APPLICATION)
			qg_pads_confirmed(s);
		else
			st->ready += s->hi - s->cursor;
		e->bad_in_row = 0;
		offer_release(st);
		qg_lease_step(e, 0);
		qg_offer_step(st, qg_clock_elapsed_ms());
		qg_stream_kick(st);
	}
	pthread_mutex_unlock(&st->lock);
	qg_segment_job_free(j);
}

static void
offer_confirm(qg_stream *st)
{
	qg_segment *s = st->offer;
	qg_segment_job *j = calloc(1, sizeof *j);
	qg_err err = j == NULL ? QG_E_NOMEM : qg_segment_take_root(s);
	if (err == QG_OK && s->root)
		err = qg_epoch_snapshot(s->epoch, &j->img);
	if (err != QG_OK) {
		free(j);
		offer_again(st, LINK_MS, LINK_MAX_MS);
		return;
	}
	j->job.run = confirm_run;
	j->job.done = confirm_done;
	j->seg = s;
	j->rec.row = s->row;
	j->rec.ready_wall_ms = qg_clock_wall_ms();
	j->rec.hops = s->hops;
	s->phase = QG_SEG_STORING;
	qg_committer_submit(st->core->committer, &j->job);
}

/* --- asking ------------------------------------------------------------------ */

/* Nothing is issued whose number of hops would be a guess. With the root the
 * epoch goes too: the far end has taken it, and will take no other. */
static void
drop_unknown_way(qg_stream *st)
{
	qg_epoch *e = st->offer->epoch;
	bool root = st->offer->root;
	offer_drop(st, false, "which way it went before the stop is not known");
	if (root)
		qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
}

static void
answer_confirmed(qg_stream *st, const qg_kms_batch_answer *a)
{
	uint8_t mac[QG_MAC_BYTES];
	qg_segment_answer_mac(st->offer, st->offer->tag, mac);
	bool verifies = qg_equal_ct(mac, a->mac, sizeof mac);
	if (verifies && st->relay != NULL && !qg_relay_out_hops(st, &st->offer->hops))
		drop_unknown_way(st);
	else if (verifies)
		offer_confirm(st);
	else if (++st->offer_bad >= BAD_ANSWERS)
		offer_drop(st, true, "the answer does not verify");
	else
		offer_again(st, LINK_MS, LINK_MAX_MS);
}

/* No use is to be kept out for long by the other's, at the far end's pools. */
static void
answer_full(qg_stream *st)
{
	if (st->offer->use != QG_USE_APPLICATION && qg_pads_far_full(st))
		offer_drop(st, false, "the far end has no room for node key");
	else if (st->offer->use == QG_USE_APPLICATION && qg_pads_app_full(st))
		offer_drop(st, false, "the far end has no room for more keys of applications");
	else
		offer_again(st, FULL_MS, FULL_MAX_MS);
}

static void
answer_pending(qg_stream *st)
{
	if (st->relay != NULL)
		qg_relay_out_again(st, qg_clock_elapsed_ms());
	if (st->offer != NULL)
		offer_again(st, PENDING_MS, PENDING_MAX_MS);
}

static void
offer_answered(qg_stream *st, const qg_kms_batch_answer *a)
{
	switch (a->result) {
	case QG_KMS_BATCH_CONFIRMED:
		answer_confirmed(st, a);
		return;
	case QG_KMS_BATCH_PENDING:
		answer_pending(st);
		return;
	case QG_KMS_BATCH_FULL:
		qg_log(QG_LOG_DEBUG, "stream", "event=far_end_full stream=%s segment=%u", st->cfg->name,
		       st->offer->number);
		answer_full(st);
		return;
	case QG_KMS_BATCH_MISMATCH:
		offer_drop(st, true, "the far end holds another segment");
		return;
	case QG_KMS_BATCH_GONE:
		offer_drop(st, false, "the far end has given it up");
		return;
	case QG_KMS_BATCH_UNKNOWN:
		break;
	}
	qg_epoch *e = st->offer->epoch;
	offer_drop(st, false, "the far end has ended the epoch");
	qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, false);
}

/* A message that the far end does not take for one will not get better. */
static void
offer_unanswered(qg_stream *st, int http_status)
{
	if (http_status >= 400 && http_status < 500 && st->offer_backoff_ms < LINK_MAX_MS)
		qg_log(QG_LOG_WARN, "stream", "event=batch_refused stream=%s segment=%u status=%d", st->cfg->name,
		       st->offer->number, http_status);
	offer_again(st, LINK_MS, LINK_MAX_MS);
}

static void
offer_done(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_segment *s = ctx;
	qg_epoch *e = s->epoch;
	qg_stream *st = e->stream;
	qg_kms_batch_answer a;
	if (err == QG_OK && http_status != 200)
		err = QG_E_PROTO;
	if (err == QG_OK)
		err = qg_kms_batch_answer_decode(body, len, &a);
	pthread_mutex_lock(&st->lock);
	if (st->offer == s && st->offer_flight) {
		st->offer_flight = false;
		if (err == QG_OK)
			offer_answered(st, &a);
		else
			offer_unanswered(st, http_status);
	}
	e->pins--;
	qg_segment_unpin(s);
	pthread_mutex_unlock(&st->lock);
}

/* Not while the gateway stops, since the channel ends before the core does: the
 * next start sends what is stored. */
static void
offer_send(qg_stream *st)
{
	qg_segment *s = st->offer;
	if (st->stopping)
		return;
	qg_channel *ch = st->core->part.channel;
	s->pins++;
	s->epoch->pins++;
	st->offer_flight = true;
	qg_err err = ch->ops->send(ch, st->neighbour->id, QG_KMS_NEW_KEY_BATCH, s->message, s->message_len, 0,
				   offer_done, s);
	if (err == QG_OK)
		return;
	s->epoch->pins--;
	s->pins--;
	st->offer_flight = false;
	offer_again(st, LINK_MS, LINK_MAX_MS);
}

/* Sends what is due: of a virtual stream the key first, which the conductor does. */
static void
offer_go(qg_stream *st)
{
	if (st->relay == NULL || qg_relay_out_step(st, qg_clock_elapsed_ms()))
		offer_send(st);
}

/* --- storing ----------------------------------------------------------------- */

static void
store_done(qg_job *job, qg_err err)
{
	qg_segment_job *j = (qg_segment_job *)job;
	qg_segment *s = j->seg;
	qg_stream *st = s->epoch->stream;
	pthread_mutex_lock(&st->lock);
	if (err != QG_OK) {
		/* It may be stored; since nothing was sent, giving it up is safe. */
		offer_drop(st, false, "it could not be stored");
	} else {
		s->row = j->rec.row;
		s->phase = QG_SEG_OFFERED;
		offer_go(st);
		if (st->relay != NULL)
			qg_conductor_kick(st->core);
	}
	pthread_mutex_unlock(&st->lock);
	qg_segment_job_free(j);
}

static qg_err
offer_message(qg_segment *s)
{
	qg_epoch *e = s->epoch;
	const qg_config *cfg = e->stream->core->part.cfg;
	qg_kms_batch m = {.ksid = e->ksid,
			  .segment = s->number,
			  .first_index = s->first_index,
			  .count = s->count,
			  .use = s->use,
			  .root = e->keys_out == NULL,
			  .issue_s = cfg->issue_s,
			  .fetch_s = cfg->fetch_s,
			  .mark = e->mark};
	memcpy(m.epoch, e->id, sizeof m.epoch);
	strncpy(m.stream, e->stream->cfg->name, sizeof m.stream - 1);
	qg_segment_set_root(s, m.root);
	qg_segment_request_mac(s, &m, m.mac);
	memcpy(s->tag, m.mac, sizeof s->tag);
	s->issue_s = m.issue_s;
	s->fetch_s = m.fetch_s;
	char text[BATCH_TEXT_MAX];
	qg_err err = qg_kms_batch_encode(&m, text, sizeof text, &s->message_len);
	if (err != QG_OK)
		return err;
	s->message = malloc(s->message_len);
	if (s->message == NULL)
		return QG_E_NOMEM;
	memcpy(s->message, text, s->message_len);
	return QG_OK;
}

static qg_err
offer_job_new(qg_segment *s, qg_segment_job **out)
{
	s->born_ms = qg_lifetime_owner_ms(&s->epoch->stream->core->life);
	qg_err err = offer_message(s);
	if (err == QG_OK)
		err = qg_segment_job_new(s, out);
	if (err == QG_OK)
		(*out)->job.done = store_done;
	return err;
}

/* The first segment of ours in a phase that comes before confirmation. */
static qg_segment *
first_in_phase(const qg_epoch *e, qg_segment_phase phase)
{
	qg_segment *s = e->open.first;
	while (s != NULL && (!s->ours || s->phase != phase))
		s = qg_segment_next(s);
	return s;
}

/* One that was stored before a start and not answered: sent as it is. */
static qg_segment *
stored_offer(const qg_stream *st)
{
	qg_segment *found = NULL;
	for (const qg_epoch *e = st->newest; e != NULL && found == NULL; e = e->older)
		found = first_in_phase(e, QG_SEG_OFFERED);
	return found;
}

static void
offer_attach(qg_stream *st, qg_segment *s)
{
	st->offer = s;
	s->pins++;
	s->epoch->pins++;
}

static void
offer_begin(qg_stream *st, qg_segment *s)
{
	qg_epoch *e = s->epoch;
	qg_segment_job *j = NULL;
	uint32_t decided = e->decided_out;
	s->use = qg_pads_choose_use(st, e);
	if (s->use == QG_USE_APPLICATION && qg_pads_app_held(st))
		return;
	if (e->decided_out <= s->number)
		e->decided_out = s->number + 1;
	qg_err err = offer_job_new(s, &j);
	if (err != QG_OK) {
		e->decided_out = decided;
		free(s->message);
		s->message = NULL;
		qg_log(QG_LOG_ERROR, "stream", "event=segment_not_offered stream=%s segment=%u reason=\"%s\"",
		       st->cfg->name, s->number, qg_err_text(err));
		return;
	}
	s->phase = QG_SEG_STORING;
	offer_attach(st, s);
	if (st->relay != NULL)
		qg_relay_out_begin(st);
	qg_committer_submit(st->core->committer, &j->job);
}

void
qg_offer_step(qg_stream *st, uint64_t now_ms)
{
	if (st->offer != NULL) {
		if (st->offer->phase == QG_SEG_OFFERED && !st->offer_flight && now_ms >= st->offer_at_ms)
			offer_go(st);
		return;
	}
	if (st->stopping || st->cfg->direction == QG_DIRECTION_INBOUND)
		return;
	qg_segment *s = stored_offer(st);
	if (s != NULL) {
		offer_attach(st, s);
		offer_go(st);
		return;
	}
	qg_epoch *e = qg_epoch_filling(st);
	/* Put back together with its anchor, a store may have forgotten an offer:
	 * the same one-time key must not sign another. The neighbour tells. */
	bool vouched = e != NULL && (!e->restored || st->vouched);
	s = vouched ? first_in_phase(e, QG_SEG_FULL) : NULL;
	if (s != NULL)
		offer_begin(st, s);
}
