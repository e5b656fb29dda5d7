/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define FIRST_BACKOFF_MS 200
#define REOPEN_MAX_MS 10000

void
qg_stream_kick(qg_stream *st)
{
	pthread_cond_broadcast(&st->wake);
	qg_conductor_kick(st->core);
}

void
qg_stream_go(qg_stream *st, qg_stream_phase phase)
{
	st->phase = phase;
	st->retry_at_ms = 0;
	st->backoff_ms = FIRST_BACKOFF_MS;
	qg_stream_kick(st);
}

void
qg_stream_retry(qg_stream *st, qg_stream_phase phase, unsigned max_ms)
{
	st->phase = phase;
	st->retry_at_ms = qg_clock_elapsed_ms() + st->backoff_ms;
	st->backoff_ms = st->backoff_ms * 2 < max_ms ? st->backoff_ms * 2 : max_ms;
	qg_stream_kick(st);
}

void
qg_stream_close_ksid(qg_stream *st, const qg_uuid *ksid)
{
	if (st->ksid_open && qg_uuid_equal(&st->ksid, ksid))
		st->ksid_open = false;
	if (st->n_to_close == QG_LIVE_EPOCHS) {
		memmove(st->to_close, st->to_close + 1, (QG_LIVE_EPOCHS - 1) * sizeof *st->to_close);
		st->n_to_close--;
	}
	st->to_close[st->n_to_close++] = *ksid;
}

/* What follows when no epoch is being filled: the opener chooses a KSID at its
 * key manager and hands it over; with a predefined one the hand-over comes
 * first, since an OPEN_CONNECT with a KSID waits for the peer's. */
void
qg_stream_reopen(qg_stream *st)
{
	memset(&st->ksid, 0, sizeof st->ksid);
	st->ksid_open = false;
	st->reopening = false;
	st->probe_fails = st->open_fails = st->abandoned = st->get_fails = 0;
	if (st->stopping || !st->opener) {
		qg_stream_go(st, QG_STREAM_IDLE);
		return;
	}
	const char *fixed = st->cfg->source.ksid;
	bool predefined = fixed != NULL && qg_uuid_parse(fixed, strlen(fixed), &st->ksid) == QG_OK;
	st->backoff_ms = st->reopen_ms > FIRST_BACKOFF_MS ? st->reopen_ms : FIRST_BACKOFF_MS;
	qg_stream_retry(st, predefined ? QG_STREAM_APP : QG_STREAM_OPEN, REOPEN_MAX_MS);
}

/* Every epoch leaves rows and records for as long as keys live: neither a key
 * manager that gives nothing of use nor a neighbour may make them at will. */
void
qg_stream_epoch_over(qg_stream *st, bool fruitful)
{
	if (fruitful)
		st->reopen_ms = 0;
	else if (st->reopen_ms == 0)
		st->reopen_ms = FIRST_BACKOFF_MS;
	else
		st->reopen_ms = st->reopen_ms * 2 < REOPEN_MAX_MS ? st->reopen_ms * 2 : REOPEN_MAX_MS;
	/* Half of what the opener, if honest, waits; the first ones come at once. */
	bool waits = st->reopen_ms > FIRST_BACKOFF_MS;
	st->accept_from_ms = waits ? qg_clock_elapsed_ms() + st->reopen_ms / 2 : 0;
}

qg_stream *
qg_stream_find(struct qg_core *core, const char *neighbour, const char *name)
{
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		if (strcmp(st->cfg->name, name) == 0 && strcmp(st->neighbour->id, neighbour) == 0)
			return st;
	}
	return NULL;
}

void
qg_stream_run_waiters(qg_waiter *list, qg_err err)
{
	while (list != NULL) {
		qg_waiter *w = list;
		list = w->next;
		w->next = NULL;
		w->again(w, err);
	}
}
