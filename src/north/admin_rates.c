/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "admin_internal.h"
#include "qkdgate/clock.h"

#define LOOK_MS 1000
#define SMOOTH_MS 10000.0 /* what is older counts less than a third */

typedef struct seen {
	uint64_t in, out; /* bits, since the start */
	uint64_t at_ms;
	qg_admin_rate rate;
	qg_admin_history *history;
} seen;

struct qg_admin_rates {
	qg_core *core;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping;
	size_t n;
	seen *seen;
};

static double
smooth(double old, uint64_t bits, uint64_t took_ms)
{
	const double now = (double)bits * 1000.0 / (double)took_ms;
	const double keep = exp(-(double)took_ms / SMOOTH_MS);
	const double rate = keep * old + (1.0 - keep) * now;
	return rate < 0.5 ? 0.0 : rate;
}

static void
look(qg_admin_rates *r, size_t i)
{
	qg_stream_view v;
	qg_core_view_stream(r->core, i, &v);
	const uint64_t bits = (uint64_t)v.cfg->chunk_size * 8, now_ms = qg_clock_elapsed_ms();
	const uint64_t in = v.taken_chunks * bits;
	const uint64_t out = (v.issued_chunks + v.fetched_chunks) * bits + v.pad_bytes * 8;
	seen *s = &r->seen[i];
	pthread_mutex_lock(&r->lock);
	if (s->at_ms != 0 && now_ms > s->at_ms) {
		s->rate.in_bps = smooth(s->rate.in_bps, in - s->in, now_ms - s->at_ms);
		s->rate.out_bps = smooth(s->rate.out_bps, out - s->out, now_ms - s->at_ms);
	}
	s->in = in;
	s->out = out;
	s->at_ms = now_ms;
	const uint64_t stock = v.cfg->direction == QG_DIRECTION_INBOUND ? v.held_chunks : v.ready_chunks;
	qg_admin_history_note(s->history, now_ms, in, out, stock * v.cfg->chunk_size);
	pthread_mutex_unlock(&r->lock);
}

static bool
sleep_on(qg_admin_rates *r)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += LOOK_MS / 1000;
	pthread_mutex_lock(&r->lock);
	while (!r->stopping && pthread_cond_timedwait(&r->wake, &r->lock, &t) == 0)
		;
	const bool go_on = !r->stopping;
	pthread_mutex_unlock(&r->lock);
	return go_on;
}

static void *
rates_main(void *arg)
{
	qg_admin_rates *r = arg;
	do
		for (size_t i = 0; i < r->n; i++)
			look(r, i);
	while (sleep_on(r));
	return NULL;
}

static bool
start_thread(qg_admin_rates *r)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	const bool ok = pthread_create(&r->thread, NULL, rates_main, r) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ok;
}

static void
rates_free(qg_admin_rates *r)
{
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->wake);
	for (size_t i = 0; r->seen != NULL && i < r->n; i++)
		qg_admin_history_free(r->seen[i].history);
	free(r->seen);
	free(r);
}

static bool
make_room(qg_admin_rates *r)
{
	r->seen = calloc(r->n + 1, sizeof *r->seen);
	bool ok = r->seen != NULL;
	for (size_t i = 0; ok && i < r->n; i++)
		ok = (r->seen[i].history = qg_admin_history_new()) != NULL;
	return ok;
}

qg_err
qg_admin_rates_start(qg_core *core, qg_admin_rates **out)
{
	qg_admin_rates *r = calloc(1, sizeof *r);
	if (r == NULL)
		return QG_E_NOMEM;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->wake, &attr);
	pthread_condattr_destroy(&attr);
	r->core = core;
	r->n = qg_core_view_streams(core);
	if (!make_room(r) || !start_thread(r)) {
		rates_free(r);
		return QG_E_NOMEM;
	}
	*out = r;
	return QG_OK;
}

void
qg_admin_rates_stop(qg_admin_rates **r)
{
	if (r == NULL || *r == NULL)
		return;
	pthread_mutex_lock(&(*r)->lock);
	(*r)->stopping = true;
	pthread_cond_signal(&(*r)->wake);
	pthread_mutex_unlock(&(*r)->lock);
	pthread_join((*r)->thread, NULL);
	rates_free(*r);
	*r = NULL;
}

void
qg_admin_rates_of(qg_admin_rates *r, size_t stream, qg_admin_rate *out)
{
	pthread_mutex_lock(&r->lock);
	*out = r->seen[stream].rate;
	pthread_mutex_unlock(&r->lock);
}

json_t *
qg_admin_rates_history(qg_admin_rates *r, size_t stream, size_t span)
{
	pthread_mutex_lock(&r->lock);
	json_t *j = qg_admin_history_json(r->seen[stream].history, span);
	pthread_mutex_unlock(&r->lock);
	return j;
}
