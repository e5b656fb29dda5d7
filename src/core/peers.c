/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "records_internal.h"
#include "relay_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* key_stream_closed and get_status, and the table of what neighbours send. */

#define TELL_AGAIN_MS 2000
#define ASK_AGAIN_MS 2000

static const char empty_object[] = "{}";

/* --- key_stream_closed ---------------------------------------------------------- */

static void
closed_sent(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	(void)body;
	(void)len;
	qg_epoch *e = ctx;
	qg_stream *st = e->stream;
	pthread_mutex_lock(&st->lock);
	e->telling = false;
	e->pins--;
	if (err == QG_OK && http_status == 200)
		e->tell_closed = false;
	else
		e->tell_at_ms = qg_clock_elapsed_ms() + TELL_AGAIN_MS;
	pthread_mutex_unlock(&st->lock);
}

static void
tell_closed(qg_stream *st, qg_epoch *e)
{
	qg_kms_closed m = {.ksid = e->ksid, .reason = e->reason};
	memcpy(m.epoch, e->id, sizeof m.epoch);
	strncpy(m.stream, st->cfg->name, sizeof m.stream - 1);
	char text[1024];
	size_t len = 0;
	if (qg_kms_closed_encode(&m, text, sizeof text, &len) != QG_OK)
		return;
	qg_channel *ch = st->core->part.channel;
	e->telling = true;
	e->pins++;
	if (ch->ops->send(ch, st->neighbour->id, QG_KMS_KEY_STREAM_CLOSED, text, len, 0, closed_sent, e) !=
	    QG_OK) {
		e->telling = false;
		e->pins--;
		e->tell_at_ms = qg_clock_elapsed_ms() + TELL_AGAIN_MS;
	}
}

void
qg_closed_step(qg_stream *st, uint64_t now_ms)
{
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		if (e->tell_closed && !e->telling && now_ms >= e->tell_at_ms)
			tell_closed(st, e);
}

void
qg_closed_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		  qg_peer_answer *answer, void *ctx)
{
	qg_kms_closed m;
	if (qg_kms_closed_decode(body, len, &m) != QG_OK) {
		answer(ctx, 400, NULL, 0);
		return;
	}
	qg_stream *st = qg_stream_find(core, neighbour, m.stream);
	if (st != NULL) {
		pthread_mutex_lock(&st->lock);
		qg_epoch *e = qg_epoch_find(st, m.epoch);
		if (e != NULL && (e->state == QG_EPOCH_FILLING ||
				  (m.reason == QG_KMS_CLOSE_ROLLBACK && e->state == QG_EPOCH_ENDED)))
			qg_epoch_end(e, m.reason, false);
		pthread_mutex_unlock(&st->lock);
	}
	answer(ctx, 200, empty_object, sizeof empty_object - 1);
}

/* --- get_status ------------------------------------------------------------------ */

typedef struct status_question {
	struct qg_core *core;
	size_t index; /* of the neighbour */
} status_question;

static void
disowned(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	(void)ctx, (void)err, (void)http_status, (void)body, (void)len;
}

/* The neighbour has an epoch that this end has no longer. Should the message
 * be lost, the next new_key_batch for it is answered that it is unknown. */
static void
disown_epoch(qg_stream *st, const uint8_t id[16])
{
	qg_kms_closed m = {.reason = QG_KMS_CLOSE_ROLLBACK};
	memcpy(m.epoch, id, sizeof m.epoch);
	strncpy(m.stream, st->cfg->name, sizeof m.stream - 1);
	char text[1024];
	size_t len = 0;
	qg_channel *ch = st->core->part.channel;
	if (qg_kms_closed_encode(&m, text, sizeof text, &len) != QG_OK ||
	    ch->ops->send(ch, st->neighbour->id, QG_KMS_KEY_STREAM_CLOSED, text, len, 0, disowned, NULL) !=
		    QG_OK)
		qg_log(QG_LOG_WARN, "stream", "event=epoch_not_disowned stream=%s", st->cfg->name);
}

/* What the neighbour saw of an epoch must not be ahead of what we know of it:
 * else our store is an old one (SOUNDNESS 9). */
static bool
compare_epoch(struct qg_core *core, const char *neighbour, const qg_kms_epoch_status *s)
{
	qg_stream *st = qg_stream_find(core, neighbour, s->stream);
	if (st == NULL)
		return false;
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_find(st, s->epoch);
	/* One that is being handed over right now is not yet in the list. */
	bool opening = st->phase == QG_STREAM_APP_SENT || st->phase == QG_STREAM_STORING;
	if (e == NULL && s->state != (uint8_t)QG_EPOCH_DRAINING && !opening)
		disown_epoch(st, s->epoch);
	/* Epochs that ended for this very reason stay behind, and prove nothing new. */
	bool old = e != NULL && e->row > core->rollback_row &&
		   (s->seen_mark > e->mark || s->seen_segments > e->decided_out ||
		    qg_pads_rolled_back(e, s->seen_mac, s->seen_pad));
	if (old)
		qg_log(QG_LOG_ERROR, "stream", "event=rollback_noticed stream=%s neighbour=%s", st->cfg->name,
		       neighbour);
	pthread_mutex_unlock(&st->lock);
	return old;
}

typedef struct rollback_job {
	qg_job job;
	int64_t row;
} rollback_job;

static qg_err
rollback_run(qg_job *job, qg_store *store)
{
	return store->ops->number_put(store, "rollback_row", ((rollback_job *)job)->row);
}

static void
rollback_done(qg_job *job, qg_err err)
{
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "store", "event=rollback_not_saved reason=\"%s\"", qg_err_text(err));
	free(job);
}

static void
save_rollback_row(struct qg_core *core)
{
	rollback_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return;
	j->job.run = rollback_run;
	j->job.done = rollback_done;
	j->row = core->rollback_row;
	qg_committer_submit(core->committer, &j->job);
}

/* Keys of an old store may have been handed out since, in either direction and
 * with any neighbour: all epochs end and all keys go, as at a start that finds
 * it by the anchor. */
static void
end_old_store(struct qg_core *core)
{
	core->rolled_back = true;
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		pthread_mutex_lock(&st->lock);
		for (qg_epoch *e = st->newest; e != NULL; e = e->older) {
			if (core->rollback_row < e->row)
				core->rollback_row = e->row;
			qg_epoch_end(e, QG_KMS_CLOSE_ROLLBACK, true);
		}
		pthread_mutex_unlock(&st->lock);
		qg_flush_destroy(st);
	}
	save_rollback_row(core);
	/* What a start took up again may have been delivered since. */
	qg_multicast_fail_all(core, "the database was put back");
	(void)qg_transfers_expire(core->transfers, core->committer, UINT64_MAX);
	qg_app_streams_end_all(core);
}

/* An epoch that we fill and the neighbour has no longer leads nowhere. */
static void
end_unknown_epoch(qg_stream *st, const qg_kms_status *status)
{
	qg_epoch *e = qg_epoch_filling(st);
	if (e == NULL || !e->restored)
		return;
	for (size_t i = 0; i < status->n; i++)
		if (memcmp(status->epoch[i].epoch, e->id, sizeof e->id) == 0 &&
		    status->epoch[i].state == (uint8_t)QG_EPOCH_FILLING)
			return;
	qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
}

/* Issuing waits for the first outcome only: a neighbour that cannot be reached
 * does not block a start (SOUNDNESS 9), but is asked again. */
static void
neighbour_checked(struct qg_core *core, const char *neighbour, const qg_kms_status *status)
{
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		if (strcmp(st->neighbour->id, neighbour) != 0)
			continue;
		pthread_mutex_lock(&st->lock);
		if (status != NULL) {
			end_unknown_epoch(st, status);
			qg_pads_agreed(st);
			st->vouched = true;
		}
		st->checked = true;
		qg_stream_kick(st);
		pthread_mutex_unlock(&st->lock);
	}
}

/* After the first outcome fetches need not wait for this neighbour any more. */
static void
check_outcome(struct qg_core *core, size_t index, bool answered)
{
	pthread_mutex_lock(&core->lock);
	qg_neighbour_check *check = &core->check[index];
	bool first = !check->settled;
	check->settled = true;
	check->asking = false;
	check->answered = answered;
	check->ask_at_ms = qg_clock_elapsed_ms() + ASK_AGAIN_MS;
	pthread_mutex_unlock(&core->lock);
	if (first)
		qg_fetch_settled(core);
}

static void
status_answered(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	status_question *q = ctx;
	struct qg_core *core = q->core;
	const char *neighbour = core->part.cfg->neighbours[q->index].id;
	qg_kms_status *status = calloc(1, sizeof *status);
	if (err == QG_OK && http_status != 200)
		err = QG_E_PROTO;
	if (err == QG_OK)
		err = status == NULL ? QG_E_NOMEM : qg_kms_status_decode(body, len, status);
	bool old = false;
	if (err == QG_OK) {
		qg_directory_learn(core->part.directory, neighbour, &status->saes);
		for (size_t i = 0; i < status->n; i++)
			old |= compare_epoch(core, neighbour, &status->epoch[i]);
	} else {
		/* Why stands in the log already, once a minute. */
		qg_log(QG_LOG_DEBUG, "stream", "event=neighbour_not_asked neighbour=%s reason=\"%s\"",
		       neighbour, qg_err_text(err));
	}
	if (old)
		end_old_store(core);
	neighbour_checked(core, neighbour, err == QG_OK ? status : NULL);
	check_outcome(core, q->index, err == QG_OK);
	free(status);
	free(q);
}

static bool
status_due(struct qg_core *core, size_t index, uint64_t now_ms)
{
	qg_neighbour_check *check = &core->check[index];
	pthread_mutex_lock(&core->lock);
	bool due = !check->asking && !check->answered && now_ms >= check->ask_at_ms;
	if (due)
		check->asking = true;
	pthread_mutex_unlock(&core->lock);
	return due;
}

void
qg_status_step(struct qg_core *core, uint64_t now_ms)
{
	qg_channel *ch = core->part.channel;
	for (size_t i = 0; i < core->part.cfg->n_neighbours; i++) {
		const char *id = core->part.cfg->neighbours[i].id;
		if (!status_due(core, i, now_ms))
			continue;
		status_question *q = calloc(1, sizeof *q);
		if (q != NULL) {
			q->core = core;
			q->index = i;
		}
		if (q != NULL && ch->ops->send(ch, id, QG_KMS_GET_STATUS, empty_object,
					       sizeof empty_object - 1, 0, status_answered, q) == QG_OK)
			continue;
		free(q);
		neighbour_checked(core, id, NULL);
		check_outcome(core, i, false);
	}
}

static void
status_add(qg_kms_status *status, qg_stream *st, bool filling)
{
	pthread_mutex_lock(&st->lock);
	for (const qg_epoch *e = st->newest; e != NULL && status->n < QG_KMS_STATUS_MAX; e = e->older) {
		if (e->row == 0 || filling != (e->state == QG_EPOCH_FILLING))
			continue;
		qg_kms_epoch_status *s = &status->epoch[status->n++];
		strncpy(s->stream, st->cfg->name, sizeof s->stream - 1);
		memcpy(s->epoch, e->id, sizeof s->epoch);
		s->state = (uint8_t)e->state;
		s->seen_mark = e->seen_mark;
		s->seen_segments = e->last_in;
		s->seen_mac = e->seen_mac;
		s->seen_pad = e->seen_pad;
	}
	pthread_mutex_unlock(&st->lock);
}

static void
status_add_all(struct qg_core *core, const char *neighbour, bool filling, qg_kms_status *status)
{
	for (size_t i = 0; i < core->n_streams; i++)
		if (strcmp(core->stream[i].neighbour->id, neighbour) == 0)
			status_add(status, &core->stream[i], filling);
}

void
qg_status_receive(struct qg_core *core, const char *neighbour, qg_peer_answer *answer, void *ctx)
{
	qg_kms_status *status = calloc(1, sizeof *status);
	char *text = malloc(QG_KMS_MSG_MAX);
	size_t len = 0;
	qg_err err = status == NULL || text == NULL ? QG_E_NOMEM : QG_OK;
	/* Those being filled first: if one were missing for want of room, the
	 * neighbour would take it for lost. */
	if (err == QG_OK) {
		status_add_all(core, neighbour, true, status);
		status_add_all(core, neighbour, false, status);
		qg_directory_tell(core->part.directory, &status->saes);
		err = qg_kms_status_encode(status, text, QG_KMS_MSG_MAX, &len);
	}
	if (err == QG_OK)
		answer(ctx, 200, text, len);
	else
		answer(ctx, 503, NULL, 0);
	free(text);
	free(status);
}

/* --- the table ------------------------------------------------------------------- */

static void
receive_status(struct qg_core *core, const char *neighbour, const char *body, size_t len,
	       qg_peer_answer *answer, void *ctx)
{
	if (len != sizeof empty_object - 1 || memcmp(body, empty_object, len) != 0)
		answer(ctx, 400, NULL, 0);
	else
		qg_status_receive(core, neighbour, answer, ctx);
}

void
qg_peers_receive(qg_peers *p, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
		 qg_peer_answer *answer, void *ctx)
{
	typedef void receiver(struct qg_core *, const char *, const char *, size_t, qg_peer_answer *, void *);
	static receiver *const receivers[QG_KMS_KINDS] = {
		[QG_KMS_NEW_APP] = qg_app_receive,
		[QG_KMS_NEW_KEY_BATCH] = qg_accept_batch,
		[QG_KMS_KEY_STREAM_CLOSED] = qg_closed_receive,
		[QG_KMS_GET_STATUS] = receive_status,
		[QG_KMS_FORWARD_KEYS] = qg_forward_receive,
		[QG_KMS_POST_STATUS] = qg_report_receive,
		[QG_KMS_MAKE_KEYS_EXTERNAL] = qg_make_receive,
		[QG_KMS_DELETE_KEYS] = qg_delete_receive,
		[QG_KMS_NEW_APP_STREAM] = qg_app_stream_receive,
		[QG_KMS_NEW_APP_KEYS] = qg_app_keys_receive,
		[QG_KMS_WANT_APP_KEYS] = qg_app_want_receive,
		[QG_KMS_APP_STREAM_CLOSED] = qg_app_closed_receive,
	};
	receivers[kind](p->core, neighbour, body, len, answer, ctx);
}
