/* SPDX-License-Identifier: Apache-2.0 */
#include <stdatomic.h>
#include <time.h>

#include "core_internal.h"
#include "interop_internal.h"
#include "records_internal.h"
#include "relay_internal.h"
#include "qkdgate/clock.h"

/* The conductor: one thread that does what is due, stream by stream: hand-overs,
 * offers, retries, flushes, expiry. It never waits for disk or network. */

#define IDLE_MS 200
#define EXPIRE_MS 500
#define CHECKPOINT_MS 5000
#define ROTATE_CHECK_MS 60000
#define ROTATE_AGAIN_MS 500
#define ACCOUNT_MS 1000 /* what is counted for accounting is lost with a crash for so long */

void
qg_conductor_kick(struct qg_core *core)
{
	pthread_mutex_lock(&core->lock);
	core->kicked = true;
	pthread_cond_signal(&core->wake);
	pthread_mutex_unlock(&core->lock);
}

static void
earlier(uint64_t *due_ms, uint64_t at_ms, uint64_t now_ms)
{
	if (at_ms > now_ms && at_ms < *due_ms)
		*due_ms = at_ms;
}

static void
conduct_stream(qg_stream *st, uint64_t now_ms, uint64_t *due_ms)
{
	qg_pads_step(st);
	pthread_mutex_lock(&st->lock);
	qg_pads_tell(st, now_ms, false);
	qg_app_step(st, now_ms);
	qg_offer_step(st, now_ms);
	qg_closed_step(st, now_ms);
	pthread_mutex_unlock(&st->lock);
	qg_relay_out_pump(st);
	pthread_mutex_lock(&st->lock);
	earlier(due_ms, qg_relay_out_due_ms(st), now_ms);
	earlier(due_ms, st->retry_at_ms, now_ms);
	earlier(due_ms, st->offer_at_ms, now_ms);
	for (const qg_epoch *e = st->newest; e != NULL; e = e->older)
		earlier(due_ms, e->tell_at_ms, now_ms);
	pthread_mutex_unlock(&st->lock);
}

static void
conduct_time(struct qg_core *core, uint64_t now_ms)
{
	if (now_ms >= core->expire_at_ms) {
		core->expire_at_ms = now_ms + (core->part.cfg->flush_ms < EXPIRE_MS ? core->part.cfg->flush_ms
										    : EXPIRE_MS);
		for (size_t i = 0; i < core->n_streams; i++)
			qg_flush_expire(&core->stream[i]);
		qg_transfers_expire(core->transfers, core->committer, qg_lifetime_owner_ms(&core->life));
	}
	if (now_ms >= core->flush_at_ms) {
		core->flush_at_ms = now_ms + core->part.cfg->flush_ms;
		for (size_t i = 0; i < core->n_streams; i++)
			qg_flush_stream(&core->stream[i]);
	}
	if (now_ms >= core->checkpoint_at_ms) {
		core->checkpoint_at_ms = now_ms + CHECKPOINT_MS;
		qg_flush_checkpoint(core);
	}
	if (now_ms >= core->account_at_ms) {
		core->account_at_ms = now_ms + ACCOUNT_MS;
		qg_accounts_flush(core->accounts);
		qg_pair_window_flush(core);
		qg_audit_tell_limited(core->part.audit, false);
	}
	if (now_ms >= core->rotate_at_ms || atomic_exchange(&core->rotate_now, false)) {
		core->rotate_at_ms = now_ms + (qg_rotate_ring(core) ? ROTATE_CHECK_MS : ROTATE_AGAIN_MS);
	}
}

static bool
conductor_sleep(struct qg_core *core, uint64_t wait_ms)
{
	struct timespec ts;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	uint64_t ns = (uint64_t)ts.tv_nsec + wait_ms * UINT64_C(1000000);
	ts.tv_sec += (time_t)(ns / UINT64_C(1000000000));
	ts.tv_nsec = (long)(ns % UINT64_C(1000000000));
	pthread_mutex_lock(&core->lock);
	while (!core->kicked && !core->stopping)
		if (pthread_cond_timedwait(&core->wake, &core->lock, &ts) != 0)
			break;
	core->kicked = false;
	bool go_on = !core->stopping;
	pthread_mutex_unlock(&core->lock);
	return go_on;
}

void *
qg_conductor_run(void *arg)
{
	struct qg_core *core = arg;
	uint64_t wait_ms;
	do {
		uint64_t now_ms = qg_clock_elapsed_ms(), due_ms = now_ms + IDLE_MS;
		atomic_store(&core->beat_ms, now_ms);
		for (size_t i = 0; i < core->n_streams; i++)
			conduct_stream(&core->stream[i], now_ms, &due_ms);
		qg_status_step(core, now_ms);
		qg_link_state_step(core, now_ms);
		earlier(&due_ms, qg_multicast_step(core, now_ms), now_ms);
		earlier(&due_ms, qg_app_streams_step(core, now_ms), now_ms);
		earlier(&due_ms, qg_interop_step(core, now_ms), now_ms);
		conduct_time(core, now_ms);
		earlier(&due_ms, core->flush_at_ms, now_ms);
		wait_ms = due_ms - now_ms;
	} while (conductor_sleep(core, wait_ms));
	return NULL;
}
