/* SPDX-License-Identifier: Apache-2.0 */
#include "south_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qkdgate/log.h"

static bool
aborted(qg_source *s)
{
	pthread_mutex_lock(&s->lock);
	bool is = s->aborted;
	pthread_mutex_unlock(&s->lock);
	return is;
}

static const qg_source_kind session_kind = {
	.order = {[QG_INTAKE_OPEN] = qg_order_open,
		  [QG_INTAKE_GET] = qg_order_get,
		  [QG_INTAKE_CLOSE] = qg_order_close},
	.end = qg_session_drop,
};

static const qg_source_kind push_kind = {
	.order = {[QG_INTAKE_OPEN] = qg_push_open,
		  [QG_INTAKE_GET] = qg_push_get,
		  [QG_INTAKE_CLOSE] = qg_push_close,
		  [QG_INTAKE_WAIT] = qg_push_wait},
	.end = qg_session_drop,
};

static const qg_source_kind inbox_kind = {
	.order = {[QG_INTAKE_OPEN] = qg_inbox_open,
		  [QG_INTAKE_GET] = qg_inbox_get,
		  [QG_INTAKE_CLOSE] = qg_inbox_close,
		  [QG_INTAKE_WAIT] = qg_inbox_wait},
	.end = qg_session_drop,
};

static const qg_source_kind draw_kind = {
	.order = {[QG_INTAKE_OPEN] = qg_draw_open,
		  [QG_INTAKE_GET] = qg_draw_get,
		  [QG_INTAKE_CLOSE] = qg_draw_close},
	.end = qg_draw_end,
};

static const qg_source_kind *
kind_of(const qg_config_stream *cfg, const qg_etsi004_profile *profile)
{
	if (cfg->relayed)
		return &draw_kind;
	if (profile->push != NULL)
		return &inbox_kind;
	return cfg->source.mode == QG_MODE_PUSH ? &push_kind : &session_kind;
}

/* OPEN_CONNECT and GET_KEY do nothing while the session stops; what core orders
 * then, if all is well, is CLOSE and STOP. */
static void
do_order(qg_source *s, const qg_intake_order *o)
{
	if (o->what > QG_INTAKE_WAIT || s->kind->order[o->what] == NULL)
		return;
	if (o->what < QG_INTAKE_CLOSE && qg_session_stopping(s))
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	s->kind->order[o->what](s, o);
}

static void *
source_main(void *arg)
{
	qg_source *s = arg;
	for (;;) {
		qg_intake_order o = {.what = QG_INTAKE_WAIT};
		qg_intake_next(s->in, &o);
		if (o.what == QG_INTAKE_STOP || aborted(s))
			break;
		do_order(s, &o);
	}
	s->kind->end(s);
	pthread_mutex_lock(&s->lock);
	s->ended = true;
	pthread_cond_broadcast(&s->wake);
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

static void
source_free(qg_source *s)
{
	qg_order_forget(s);
	qg_draw_free(s);
	qg_inbox_free(s);
	qg_secret_free(&s->frames);
	free(s->requests);
	free(s->ask);
	pthread_cond_destroy(&s->wake);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* Naps end by the monotonic clock. */
static void
source_init_locks(qg_source *s)
{
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->wake, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&s->lock, NULL);
}

static qg_err
init_session(qg_source *s)
{
	s->rate.max_bps = s->cfg->source.max_bps;
	s->requests = malloc(QG_SOUTH_REQUESTS_ROOM);
	s->ask = calloc(1, QG_ETSI004_METADATA_MAX);
	qg_err err = s->requests == NULL || s->ask == NULL ? QG_E_NOMEM : qg_session_fit(s);
	if (err == QG_OK && s->profile->ask_len > 0)
		memcpy(s->ask, s->profile->ask, s->profile->ask_len);
	bool v6 = strchr(s->cfg->source.host, ':') != NULL;
	int n = snprintf(s->authority, sizeof s->authority, v6 ? "[%s]:%u" : "%s:%u", s->cfg->source.host,
			 s->cfg->source.port);
	if (err == QG_OK && (n < 0 || (size_t)n >= sizeof s->authority))
		err = QG_E_RANGE;
	return err == QG_OK && s->profile->push != NULL ? qg_inbox_new(s) : err;
}

qg_err
qg_source_start(qg_intake *in, qg_source **out)
{
	const qg_config_stream *cfg = qg_intake_config(in);
	const qg_etsi004_profile *profile = cfg->relayed ? NULL : qg_etsi004_profile_at(cfg->source.profile);
	if (profile == NULL && !cfg->relayed)
		return QG_E_UNSUPPORTED;
	if (cfg->chunk_size == 0 || cfg->chunk_size > QG_ETSI004_KEY_MAX)
		return QG_E_RANGE;
	qg_source *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	source_init_locks(s);
	s->in = in;
	s->cfg = cfg;
	s->profile = profile;
	s->chunk_size = cfg->chunk_size;
	s->kind = kind_of(cfg, profile);
	s->reconnect = (qg_backoff){.first_ms = 200, .last_ms = 10000};
	s->retry = (qg_backoff){.first_ms = 20, .last_ms = 1000};
	qg_err err = cfg->relayed ? qg_draw_new(s) : init_session(s);
	if (err == QG_OK && pthread_create(&s->thread, NULL, source_main, s) != 0)
		err = QG_E_NOMEM;
	if (err != QG_OK) {
		source_free(s);
		return err;
	}
	*out = s;
	return QG_OK;
}

/* Whether the thread ends within the time. */
static bool
ends_within(qg_source *s, unsigned grace_ms)
{
	const struct timespec until = qg_session_after_ms(grace_ms);
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_broadcast(&s->wake);
	while (!s->ended && pthread_cond_timedwait(&s->wake, &s->lock, &until) == 0)
		;
	bool ended = s->ended;
	pthread_mutex_unlock(&s->lock);
	return ended;
}

void
qg_source_stop(qg_source **s, unsigned grace_ms)
{
	if (s == NULL || *s == NULL)
		return;
	qg_source *gone = *s;
	*s = NULL;
	if (!ends_within(gone, grace_ms)) {
		qg_log(QG_LOG_WARN, "source", "event=abort stream=%s", qg_log_safe(gone->cfg->name));
		pthread_mutex_lock(&gone->lock);
		gone->aborted = true;
		if (gone->conn != NULL)
			qg_conn_abort(gone->conn);
		pthread_mutex_unlock(&gone->lock);
	}
	pthread_join(gone->thread, NULL);
	source_free(gone);
}
