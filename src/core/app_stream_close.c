/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* CLOSE, and app_stream_closed, which tells the other KME of it. */

#define AGAIN_MS 1000
#define TEXT_MAX 512

typedef struct closing {
	qg_app_closed_fn *done;
	void *ctx;
} closing;

static void
closed_stored(qg_as_stream *st, qg_err err, void *ctx)
{
	closing *c = ctx;
	(void)st;
	/* In memory it is closed in any case. */
	c->done(c->ctx, err == QG_OK ? QG_ETSI004_SUCCESS : QG_ETSI004_NO_CONNECTION);
	free(c);
}

/* Under the lock: the end's key goes, the other's stays until it closes, too. */
static void
close_end(qg_as_stream *st, unsigned end, qg_as_done *done)
{
	st->end[end].state = QG_AS_CLOSED;
	qg_secret_free(&st->cache[end].plain);
	qg_as_audit(st, end, QG_AUDIT_EPOCH, "application closed its key stream");
	if (!qg_as_local(st)) {
		st->tell = true;
		st->tell_at_ms = 0;
		qg_as_drop_all(st);
	}
	qg_as_serve(st, done);
}

/* Both are closed, or the other one never came: nobody is left. */
static bool
is_over(const qg_as_stream *st)
{
	return qg_as_local(st) && st->end[0].state != QG_AS_OPEN && st->end[1].state != QG_AS_OPEN;
}

void
qg_as_withdraw(qg_as_stream *st, unsigned end, qg_as_done *done)
{
	close_end(st, end, done);
	qg_as_save(st);
	if (is_over(st))
		qg_as_end_stream(st, done);
}

void
qg_app_streams_close(qg_app_streams *all, const qg_config_sae *sae, const qg_uuid *ksid, qg_app_closed_fn *done_fn,
		     void *ctx)
{
	qg_as_done done = {0};
	closing *c = malloc(sizeof *c);
	pthread_mutex_lock(&all->lock);
	qg_as_stream *st = c == NULL ? NULL : qg_as_find(all, ksid);
	const int end = st == NULL ? -1 : qg_as_end_of(st, sae);
	if (end < 0 || st->end[end].state != QG_AS_OPEN) {
		const bool others = st != NULL && end < 0;
		pthread_mutex_unlock(&all->lock);
		free(c);
		done_fn(ctx, others ? QG_ETSI004_IN_USE : QG_ETSI004_NO_CONNECTION);
		return;
	}
	*c = (closing){.done = done_fn, .ctx = ctx};
	st->pins++;
	close_end(st, (unsigned)end, &done);
	qg_err err = qg_as_save_then(st, NULL, closed_stored, c);
	if (is_over(st))
		qg_as_end_stream(st, &done);
	qg_as_leave(st, &done);
	if (err != QG_OK) {
		free(c);
		done_fn(ctx, QG_ETSI004_NO_CONNECTION);
	}
}

/* --- telling ---------------------------------------------------------------------------- */

static void
told(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_as_stream *st = ctx;
	struct qg_app_streams *all = st->all;
	qg_as_done done = {0};
	(void)body, (void)len;
	pthread_mutex_lock(&all->lock);
	st->telling = false;
	if (err == QG_OK && http_status == 200) {
		st->tell = false;
		qg_as_end_stream(st, &done);
	} else {
		st->tell_at_ms = qg_clock_elapsed_ms() + AGAIN_MS;
	}
	qg_as_leave(st, &done);
}

void
qg_as_tell_send(qg_as_stream *st)
{
	struct qg_app_streams *all = st->all;
	qg_channel *ch = all->core->part.channel;
	const qg_kms_app_closed m = {.ksid = st->ksid};
	char text[TEXT_MAX];
	size_t len = 0;
	if (qg_kms_app_closed_encode(&m, text, sizeof text, &len) == QG_OK &&
	    ch->ops->send(ch, st->kme, QG_KMS_APP_STREAM_CLOSED, text, len, 0, told, st) == QG_OK)
		return;
	pthread_mutex_lock(&all->lock);
	st->telling = false;
	st->tell_at_ms = qg_clock_elapsed_ms() + AGAIN_MS;
	qg_as_unpin(st);
	pthread_mutex_unlock(&all->lock);
}

static void
whole_told(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_as_done *done = ctx;
	(void)err, (void)http_status, (void)body, (void)len;
	qg_as_done_run(done);
	free(done);
}

/* Should it be lost, the other KME's next message about it is answered that it
 * is unknown. The calls are answered after it, so that an application that
 * takes the KSID again is not overtaken by it. */
void
qg_as_tell_whole(struct qg_app_streams *all, const char *kme, const qg_uuid *ksid, qg_as_done *calls)
{
	qg_channel *ch = all->core->part.channel;
	const qg_kms_app_closed m = {.ksid = *ksid, .whole = true};
	char text[TEXT_MAX];
	size_t len = 0;
	qg_as_done *done = malloc(sizeof *done);
	if (done != NULL)
		*done = *calls;
	if (done != NULL && qg_kms_app_closed_encode(&m, text, sizeof text, &len) == QG_OK &&
	    ch->ops->send(ch, kme, QG_KMS_APP_STREAM_CLOSED, text, len, 0, whole_told, done) == QG_OK)
		/* cppcheck-suppress memleak ; it is whole_told's */
		return;
	free(done);
	qg_as_done_run(calls);
}

/* --- hearing ------------------------------------------------------------------------------ */

static const char empty_object[] = "{}";

void
qg_app_closed_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		      qg_peer_answer *answer, void *ctx)
{
	struct qg_app_streams *all = core->app_streams;
	qg_kms_app_closed m;
	qg_as_done done = {0};
	if (qg_kms_app_closed_decode(body, len, &m) != QG_OK) {
		answer(ctx, 400, NULL, 0);
		return;
	}
	pthread_mutex_lock(&all->lock);
	qg_as_stream *st = qg_as_find(all, &m.ksid);
	if (st == NULL || strcmp(st->kme, neighbour) != 0) {
		pthread_mutex_unlock(&all->lock);
		answer(ctx, 200, empty_object, sizeof empty_object - 1);
		return;
	}
	st->pins++;
	if (st->end[1].state != QG_AS_CLOSED)
		qg_as_audit(st, 1, QG_AUDIT_EPOCH, "application closed its key stream");
	st->end[1].state = QG_AS_CLOSED;
	/* Nobody here holds it, or the other KME gave it up. */
	if (m.whole || st->end[0].state != QG_AS_OPEN) {
		qg_as_end_stream(st, &done);
	} else {
		qg_as_serve(st, &done);
		qg_as_settle_calls(st, &done);
		if (st->stored)
			qg_as_save(st);
	}
	qg_as_leave(st, &done);
	answer(ctx, 200, empty_object, sizeof empty_object - 1);
}
