/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "core_internal.h"
#include "interop_internal.h"
#include "records_internal.h"
#include "relay_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/http_server.h"
#include "qkdgate/log.h"

#define UNKNOWN_PER_S 1000 /* searches over all epochs for the status only */
#define TELL_WAIT_MS 1000

static qg_err
stream_init(struct qg_core *core, unsigned index)
{
	const qg_config *cfg = core->part.cfg;
	qg_stream *st = &core->stream[index];
	st->handle.stream = st;
	st->core = core;
	st->cfg = &cfg->streams[index];
	st->index = index;
	qg_hops_range(cfg, st->cfg, &st->hops_least, &st->hops_most);
	for (size_t i = 0; i < cfg->n_neighbours; i++)
		if (strcmp(cfg->neighbours[i].id, st->cfg->neighbour) == 0)
			st->neighbour = &cfg->neighbours[i];
	if (st->neighbour == NULL)
		return QG_E_INVAL;
	st->opener =
		st->cfg->direction == QG_DIRECTION_OUTBOUND ||
		(st->cfg->direction == QG_DIRECTION_SHARED && strcmp(cfg->kme_id, st->neighbour->id) < 0);
	qg_err err = qg_pads_new(st);
	if (err != QG_OK)
		return err;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&st->lock, NULL);
	pthread_cond_init(&st->wake, &attr);
	pthread_condattr_destroy(&attr);
	bool source = st->cfg->relayed && st->cfg->direction == QG_DIRECTION_OUTBOUND;
	return source ? qg_relay_out_new(st) : QG_OK;
}

static qg_err
core_new(const qg_core_parts *parts, qg_core **out)
{
	qg_core *core = calloc(1, sizeof *core);
	if (core == NULL)
		return QG_E_NOMEM;
	core->part = *parts;
	core->keystore.core = core->peers.core = core->interop.core = core;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&core->lock, NULL);
	pthread_mutex_init(&core->fetch_lock, NULL);
	pthread_cond_init(&core->wake, &attr);
	pthread_condattr_destroy(&attr);
	qg_sealer_derive(parts->sealer, "probe", core->probe_key);
	qg_err err = QG_OK;
	core->stream = calloc(parts->cfg->n_streams + 1, sizeof *core->stream);
	core->check = calloc(parts->cfg->n_neighbours + 1, sizeof *core->check);
	if (core->stream == NULL || core->check == NULL)
		err = QG_E_NOMEM;
	for (unsigned i = 0; err == QG_OK && i < parts->cfg->n_streams; i++) {
		err = stream_init(core, i);
		core->n_streams += err == QG_OK;
	}
	if (err == QG_OK)
		err = qg_window_new(parts->cfg->fetch_s,
				    parts->cfg->pair_chunks > 0 ? parts->cfg->pair_chunks : UINT64_MAX,
				    &core->pair_window);
	if (err == QG_OK)
		err = qg_limits_new(UNKNOWN_PER_S, UNKNOWN_PER_S, &core->unknown_limit);
	if (err == QG_OK)
		err = qg_routes_new(parts->cfg, &core->routes);
	if (err == QG_OK)
		err = qg_relay_new(core);
	if (err == QG_OK)
		err = qg_link_state_new(core);
	if (err == QG_OK)
		err = qg_multicast_new(core);
	if (err == QG_OK)
		err = qg_app_streams_new(core);
	if (err != QG_OK) {
		qg_core_stop(&core);
		return err;
	}
	*out = core;
	return QG_OK;
}

static qg_err
core_run(qg_core *core)
{
	qg_committer_hooks hooks = {.before_commit = qg_commit_before, .after = qg_commit_after, .ctx = core,
				    .telling = qg_http_gather};
	qg_err err = qg_transfers_open(core->part.store, core->part.sealer, &core->transfers);
	if (err == QG_OK)
		err = qg_pair_window_load(core);
	if (err == QG_OK)
		err = qg_committer_start(core->part.store, &hooks, &core->committer);
	if (err == QG_OK)
		err = qg_accounts_new(core->committer, &core->accounts);
	if (err != QG_OK)
		return err;
	qg_accounts_keep_days(core->accounts, core->part.cfg->accounting_days);
	qg_lifetime_checkpoint now;
	qg_lifetime_now(&core->life, &now);
	qg_transfers_far_behind(core->transfers, now.owner_ms - now.far_ms);
	err = qg_interop_open(core);
	if (err != QG_OK)
		return err;
	core->asking = (unsigned)core->part.cfg->n_neighbours;
	if (pthread_create(&core->conductor, NULL, qg_conductor_run, core) != 0)
		return QG_E_NOMEM;
	pthread_setname_np(core->conductor, "qg-conductor");
	core->conducting = true;
	/* Last: its answers come to a core that is there to stay. */
	return QG_OK;
}

qg_err
qg_core_start(const qg_core_parts *parts, qg_core **out, char *why, size_t why_room)
{
	qg_core *core = NULL;
	qg_err err = core_new(parts, &core);
	if (err == QG_OK)
		err = qg_restore_all(core, false, why, why_room);
	else
		snprintf(why, why_room, "%s", qg_err_text(err));
	if (err == QG_OK) {
		err = core_run(core);
		if (err != QG_OK)
			snprintf(why, why_room, "%s", qg_err_text(err));
	}
	if (err != QG_OK) {
		qg_core_stop(&core);
		return err;
	}
	*out = core;
	return QG_OK;
}

qg_err
qg_core_reset_epochs(const qg_core_parts *parts, char *why, size_t why_room)
{
	qg_core *core = NULL;
	qg_err err = core_new(parts, &core);
	if (err == QG_OK)
		err = qg_restore_all(core, true, why, why_room);
	qg_core_stop(&core);
	return err;
}

qg_keystore *
qg_core_keystore(qg_core *core)
{
	return &core->keystore;
}

void
qg_core_renew(qg_core *core)
{
	qg_conductor_kick(core);
}

qg_app_streams *
qg_core_app_streams(qg_core *core)
{
	return core->app_streams;
}

qg_peers *
qg_core_peers(qg_core *core)
{
	return &core->peers;
}

qg_interop *
qg_core_interop(qg_core *core)
{
	return &core->interop;
}

qg_accounts *
qg_core_accounts(qg_core *core)
{
	return core->accounts;
}

size_t
qg_core_intakes(const qg_core *core)
{
	return core->n_streams;
}

qg_intake *
qg_core_intake(qg_core *core, size_t i)
{
	return &core->stream[i].handle;
}

static void
stop_stream(qg_stream *st)
{
	pthread_mutex_lock(&st->lock);
	st->stopping = true;
	qg_epoch *e = qg_epoch_filling(st);
	if (e != NULL && e->row != 0)
		qg_epoch_end(e, QG_KMS_CLOSE_STOP, true);
	else if (st->ksid_open)
		qg_stream_close_ksid(st, &st->ksid);
	st->phase = QG_STREAM_IDLE;
	pthread_cond_broadcast(&st->wake);
	qg_waiter *waiters = qg_pads_stop(st);
	pthread_mutex_unlock(&st->lock);
	qg_stream_run_waiters(waiters, QG_E_CLOSED);
}

static bool
all_told(qg_core *core)
{
	bool told = true;
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		pthread_mutex_lock(&st->lock);
		for (const qg_epoch *e = st->newest; e != NULL; e = e->older)
			told &= !e->tell_closed || e->tell_at_ms != 0;
		pthread_mutex_unlock(&st->lock);
	}
	return told;
}

void
qg_core_wind_down(qg_core *core)
{
	qg_multicast_wind_down(core);
	qg_app_streams_wind_down(core);
	qg_interop_wind_down(core);
	for (size_t i = 0; i < core->n_streams; i++)
		stop_stream(&core->stream[i]);
	qg_conductor_kick(core);
	uint64_t end_ms = qg_clock_elapsed_ms() + TELL_WAIT_MS;
	while (!all_told(core) && qg_clock_elapsed_ms() < end_ms)
		nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	if (!core->conducting)
		return;
	pthread_mutex_lock(&core->lock);
	core->stopping = true;
	pthread_cond_signal(&core->wake);
	pthread_mutex_unlock(&core->lock);
	pthread_join(core->conductor, NULL);
	core->conducting = false;
}

static void
stream_fini(qg_stream *st)
{
	if (st->offer != NULL) {
		st->offer->epoch->pins--;
		qg_segment_unpin(st->offer);
	}
	while (st->newest != NULL) {
		qg_epoch *e = st->newest;
		st->newest = e->older;
		qg_epoch_free(&e);
	}
	qg_relay_out_free(st);
	qg_pads_tell(st, qg_clock_elapsed_ms(), true);
	qg_pads_free(st);
	pthread_mutex_destroy(&st->lock);
	pthread_cond_destroy(&st->wake);
}

static qg_err
nothing_run(qg_job *job, qg_store *store)
{
	(void)job, (void)store;
	return QG_OK;
}

/* A job's done may queue another under the stream's lock, which a committer
 * that stops would refuse there and then; so the queue is run dry first. Once
 * the streams are stopping no chain of jobs is longer than this. */
#define JOB_CHAIN 4

static void
drain_jobs(qg_core *core)
{
	for (int i = 0; i < JOB_CHAIN; i++) {
		qg_job job = {.run = nothing_run};
		if (qg_committer_run(core->committer, &job) != QG_OK)
			qg_log(QG_LOG_WARN, "store", "event=last_commit_failed");
	}
}

void
qg_core_stop(qg_core **corep)
{
	if (corep == NULL || *corep == NULL)
		return;
	qg_core *core = *corep;
	if (core->conducting)
		qg_core_wind_down(core);
	if (core->committer != NULL) {
		drain_jobs(core);
		for (size_t i = 0; i < core->n_streams; i++)
			while (qg_flush_stream(&core->stream[i]) > 0)
				;
		qg_audit_tell_limited(core->part.audit, true);
		(void)!qg_audit_sync(core->part.audit); /* so that the checkpoint knows its last lines */
		qg_flush_checkpoint(core);
		if (core->accounts != NULL)
			qg_accounts_flush(core->accounts);
		qg_pair_window_flush(core);
		drain_jobs(core);
		qg_committer_stop(&core->committer);
		core->anchored.commits = (uint64_t)core->commits_stored;
		if (qg_anchor_write(core->anchor, &core->anchored) != QG_OK)
			qg_log(QG_LOG_ERROR, "store", "event=anchor_not_written");
	}
	for (size_t i = 0; i < core->n_streams; i++)
		stream_fini(&core->stream[i]);
	free(core->stream);
	free(core->check);
	qg_accounts_free(&core->accounts);
	qg_interop_close(core);
	qg_multicast_free(core);
	qg_app_streams_free(core);
	qg_transfers_close(&core->transfers);
	qg_anchor_close(&core->anchor);
	qg_window_free(&core->pair_window);
	qg_limits_free(&core->unknown_limit);
	qg_link_state_free(core);
	qg_relay_free(core);
	qg_routes_free(&core->routes);
	qg_wipe(core->probe_key, sizeof core->probe_key);
	pthread_mutex_destroy(&core->lock);
	pthread_mutex_destroy(&core->fetch_lock);
	pthread_cond_destroy(&core->wake);
	free(core);
	*corep = NULL;
}
