/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* new_app: the opener hands the KSID over and both ends begin an epoch. */

#define APP_MAX_MS 5000
#define TELL_AGAIN_MS 60000
#define APP_TEXT_MAX (1024 + QG_KMS_SAES_MAX * (QG_KMS_SAE_MAX + 4)) /* SAE IDs, quoted */

typedef struct app_job {
	qg_job job;
	qg_epoch *epoch;
	qg_epoch_image img;
	qg_peer_answer *answer; /* as receiver */
	void *ctx;
} app_job;

static qg_err
app_run(qg_job *job, qg_store *store)
{
	app_job *j = (app_job *)job;
	qg_err err = store->ops->epoch_put(store, &j->img.rec);
	if (err == QG_OK)
		qg_commit_note_mark(j->epoch->stream->core, j->epoch->id, 0);
	return err;
}

static void
app_link(qg_stream *st, qg_epoch *e)
{
	e->older = st->newest;
	st->newest = e;
	qg_epoch_retire_old(st);
	st->next_index = 0;
	st->ksid = e->ksid;
	qg_audit_epoch(st->core, e, "opened");
	char text[QG_UUID_TEXT];
	qg_uuid_format(&e->ksid, text);
	st->trouble = QG_OK;
	qg_log(QG_LOG_INFO, "stream", "event=epoch_opened stream=%s ksid=%s neighbour=%s", st->cfg->name,
	       text, st->neighbour->id);
}

static void
answer_app(const qg_kms_new_app_answer *a, qg_peer_answer *answer, void *ctx)
{
	char text[APP_TEXT_MAX];
	size_t len = 0;
	if (qg_kms_new_app_answer_encode(a, text, sizeof text, &len) == QG_OK)
		answer(ctx, 200, text, len);
	else
		answer(ctx, 500, NULL, 0);
}

static void
app_done(qg_job *job, qg_err err)
{
	app_job *j = (app_job *)job;
	qg_epoch *e = j->epoch;
	qg_stream *st = e->stream;
	pthread_mutex_lock(&st->lock);
	qg_kms_new_app_answer a = st->app_answer;
	bool wanted = st->phase == QG_STREAM_STORING && !st->stopping;
	if (err == QG_OK) {
		e->row = j->img.rec.row;
		app_link(st, e);
		if (!wanted)
			qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
		else if (st->ksid_open)
			qg_stream_go(st, QG_STREAM_RUN);
		else
			qg_stream_go(st, QG_STREAM_OPEN);
	} else {
		qg_log(QG_LOG_ERROR, "stream", "event=epoch_not_saved stream=%s reason=\"%s\"", st->cfg->name,
		       qg_err_text(err));
		qg_epoch_free(&e);
		st->app_valid = false;
		if (st->ksid_open)
			qg_stream_close_ksid(st, &st->ksid);
		qg_stream_reopen(st);
	}
	pthread_mutex_unlock(&st->lock);
	if (j->answer != NULL && err == QG_OK)
		answer_app(&a, j->answer, j->ctx);
	else if (j->answer != NULL)
		j->answer(j->ctx, 503, NULL, 0);
	qg_epoch_image_free(&j->img);
	free(j);
}

/* Makes the epoch of st->app and st->app_answer durable. */
static qg_err
app_store(qg_stream *st, bool opener, qg_peer_answer *answer, void *ctx)
{
	uint8_t id[16];
	app_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return QG_E_NOMEM;
	qg_kms_epoch_id(&st->app, &st->app_answer, id);
	qg_err err = qg_epoch_new(st, &st->app.ksid, id, opener, st->cfg->chunk_size,
				  st->app_answer.segment_chunks, &j->epoch);
	if (err == QG_OK)
		err = qg_epoch_snapshot(j->epoch, &j->img);
	if (err != QG_OK) {
		qg_epoch_free(&j->epoch);
		free(j);
		return err;
	}
	st->peer_inbound = opener ? st->app_answer.inbound_chunks : st->app.inbound_chunks;
	j->job.run = app_run;
	j->job.done = app_done;
	j->answer = answer;
	j->ctx = ctx;
	qg_stream_go(st, QG_STREAM_STORING);
	qg_committer_submit(st->core->committer, &j->job);
	return QG_OK;
}

/* --- as opener ----------------------------------------------------------------- */

static const uint8_t owner_codes[] = {
	[QG_DIRECTION_OUTBOUND] = 0, [QG_DIRECTION_INBOUND] = 1, [QG_DIRECTION_SHARED] = 2};

/* The same trouble is told once a minute; in between it is for debugging. */
static qg_log_level
told_level(qg_stream *st, qg_log_level level, qg_err err)
{
	uint64_t now_ms = qg_clock_elapsed_ms();
	if (st->trouble == err && now_ms - st->trouble_ms < TELL_AGAIN_MS)
		return QG_LOG_DEBUG;
	st->trouble = err;
	st->trouble_ms = now_ms;
	return level;
}

static void
app_answered(qg_stream *st, qg_err err, int http_status, const char *body, size_t len)
{
	qg_kms_new_app_answer a = {.result = QG_KMS_APP_UNKNOWN_STREAM};
	if (err == QG_OK && http_status == 200)
		err = qg_kms_new_app_answer_decode(body, len, &a);
	else if (err == QG_OK)
		err = QG_E_PROTO;
	if (err == QG_OK && a.result == QG_KMS_APP_ACCEPTED &&
	    (a.segment_chunks > st->app.segment_chunks ||
	     !qg_segment_size_fits(st->cfg->chunk_size, a.segment_chunks)))
		err = QG_E_PROTO;
	if (err == QG_OK && a.result == QG_KMS_APP_ACCEPTED) {
		qg_directory_learn(st->core->part.directory, st->neighbour->id, &a.saes);
		st->app_answer = a;
		st->app_valid = false;
		err = app_store(st, true, NULL, NULL);
	} else if (err == QG_OK) {
		qg_log(told_level(st, QG_LOG_ERROR, QG_E_DENIED), "stream",
		       "event=stream_refused stream=%s neighbour=%s reason=\"%s\"", st->cfg->name,
		       st->neighbour->id,
		       a.result == QG_KMS_APP_UNKNOWN_STREAM ? "no such stream there"
							     : "chunk size or direction differ");
		err = QG_E_DENIED;
	} else {
		qg_log(told_level(st, QG_LOG_WARN, err), "stream",
		       "event=neighbour_unreachable stream=%s neighbour=%s reason=\"%s\"", st->cfg->name,
		       st->neighbour->id, qg_err_text(err));
	}
	if (err != QG_OK)
		qg_stream_retry(st, QG_STREAM_APP, APP_MAX_MS);
}

static void
app_sent(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_stream *st = ctx;
	pthread_mutex_lock(&st->lock);
	if (st->phase == QG_STREAM_APP_SENT)
		app_answered(st, err, http_status, body, len);
	pthread_mutex_unlock(&st->lock);
}

void
qg_app_step(qg_stream *st, uint64_t now_ms)
{
	if (st->phase != QG_STREAM_APP || now_ms < st->retry_at_ms || st->stopping)
		return;
	const qg_config *cfg = st->core->part.cfg;
	qg_kms_new_app *m = &st->app;
	if (!st->app_valid || !qg_uuid_equal(&m->ksid, &st->ksid)) {
		memset(m, 0, sizeof *m);
		strncpy(m->stream, st->cfg->name, sizeof m->stream - 1);
		strncpy(m->opener, cfg->kme_id, sizeof m->opener - 1);
		strncpy(m->peer, st->neighbour->id, sizeof m->peer - 1);
		m->ksid = st->ksid;
		qg_random(m->nonce, sizeof m->nonce);
		m->chunk_size = st->cfg->chunk_size;
		m->segment_chunks = st->cfg->segment_chunks;
		m->owner = owner_codes[st->cfg->direction];
		m->inbound_chunks = cfg->inbound_chunks;
		qg_directory_tell(st->core->part.directory, &m->saes);
		st->app_valid = true;
	}
	char text[APP_TEXT_MAX];
	size_t len = 0;
	qg_channel *ch = st->core->part.channel;
	st->phase = QG_STREAM_APP_SENT;
	qg_err err = qg_kms_new_app_encode(m, text, sizeof text, &len);
	if (err == QG_OK)
		err = ch->ops->send(ch, st->neighbour->id, QG_KMS_NEW_APP, text, len, 0, app_sent, st);
	if (err != QG_OK)
		qg_stream_retry(st, QG_STREAM_APP, APP_MAX_MS);
}

/* --- as receiver --------------------------------------------------------------- */

static qg_kms_app_result
app_judge(const qg_stream *st, const qg_kms_new_app *m)
{
	if (st->opener || strcmp(m->opener, st->neighbour->id) != 0 ||
	    strcmp(m->peer, st->core->part.cfg->kme_id) != 0 || m->chunk_size != st->cfg->chunk_size ||
	    !qg_segment_size_fits(m->chunk_size, m->segment_chunks))
		return QG_KMS_APP_DISAGREE;
	static const qg_stream_direction mine[] = {QG_DIRECTION_INBOUND, QG_DIRECTION_OUTBOUND,
						   QG_DIRECTION_SHARED};
	return m->owner < 3 && mine[m->owner] == st->cfg->direction ? QG_KMS_APP_ACCEPTED
								    : QG_KMS_APP_DISAGREE;
}

/* Whether the opener sends what it sent before: the answer was lost. */
static bool
same_app(const qg_kms_new_app *a, const qg_kms_new_app *b)
{
	return qg_uuid_equal(&a->ksid, &b->ksid) && memcmp(a->nonce, b->nonce, sizeof a->nonce) == 0 &&
	       a->chunk_size == b->chunk_size && a->segment_chunks == b->segment_chunks &&
	       a->owner == b->owner && a->inbound_chunks == b->inbound_chunks;
}

static void
app_accept(qg_stream *st, const qg_kms_new_app *m, qg_peer_answer *answer, void *ctx)
{
	qg_kms_new_app_answer refused = {.result = app_judge(st, m)};
	qg_epoch *e = qg_epoch_filling(st);
	bool again = st->app_valid && same_app(&st->app, m);
	if (refused.result != QG_KMS_APP_ACCEPTED) {
		qg_log(told_level(st, QG_LOG_ERROR, QG_E_DENIED), "stream",
		       "event=stream_disagrees stream=%s neighbour=%s", st->cfg->name, st->neighbour->id);
		answer_app(&refused, answer, ctx);
	} else if (st->phase == QG_STREAM_STORING || st->stopping) {
		answer(ctx, 503, NULL, 0);
	} else if (again && e != NULL && qg_uuid_equal(&e->ksid, &m->ksid)) {
		answer_app(&st->app_answer, answer, ctx);
	} else if (qg_clock_elapsed_ms() < st->accept_from_ms) {
		answer(ctx, 503, NULL, 0);
	} else {
		if (e != NULL)
			qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, false);
		qg_kms_new_app_answer *a = &st->app_answer;
		memset(a, 0, sizeof *a);
		qg_random(a->nonce, sizeof a->nonce);
		a->segment_chunks = st->cfg->segment_chunks < m->segment_chunks ? st->cfg->segment_chunks
										: m->segment_chunks;
		a->inbound_chunks = st->core->part.cfg->inbound_chunks;
		qg_directory_tell(st->core->part.directory, &a->saes);
		qg_directory_learn(st->core->part.directory, st->neighbour->id, &m->saes);
		st->app = *m;
		st->app_valid = true;
		st->ksid_open = false;
		if (app_store(st, false, answer, ctx) != QG_OK)
			answer(ctx, 503, NULL, 0);
	}
}

void
qg_app_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
	       qg_peer_answer *answer, void *ctx)
{
	qg_kms_new_app m;
	memset(&m, 0, sizeof m);
	if (qg_kms_new_app_decode(body, len, &m) != QG_OK) {
		answer(ctx, 400, NULL, 0);
		return;
	}
	qg_stream *st = qg_stream_find(core, neighbour, m.stream);
	if (st == NULL) {
		qg_kms_new_app_answer a = {.result = QG_KMS_APP_UNKNOWN_STREAM};
		answer_app(&a, answer, ctx);
		return;
	}
	pthread_mutex_lock(&st->lock);
	app_accept(st, &m, answer, ctx);
	pthread_mutex_unlock(&st->lock);
}
