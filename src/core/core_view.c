/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/core_view.h"

#include <string.h>

#include "core_internal.h"
#include "pad_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "relay_internal.h"
#include "routes_internal.h"

_Static_assert(QG_VIEW_NODES_MAX >= QG_KMS_PATH_MAX, "a route has room");

const char *
qg_stream_state_name(qg_stream_state state)
{
	static const char *const names[] = {
		[QG_STREAM_STATE_WAITING] = "waiting",
		[QG_STREAM_STATE_OPENING] = "opening",
		[QG_STREAM_STATE_RUNNING] = "running",
		[QG_STREAM_STATE_STOPPING] = "stopping",
	};
	return names[state];
}

/* --- streams ---------------------------------------------------------------- */

size_t
qg_core_view_streams(const qg_core *core)
{
	return core->n_streams;
}

static qg_stream_state
state_of(const qg_stream *st)
{
	if (st->stopping)
		return QG_STREAM_STATE_STOPPING;
	if (st->phase == QG_STREAM_RUN)
		return QG_STREAM_STATE_RUNNING;
	return st->phase == QG_STREAM_IDLE ? QG_STREAM_STATE_WAITING : QG_STREAM_STATE_OPENING;
}

static void
view_epochs(const qg_stream *st, qg_stream_view *v)
{
	for (const qg_epoch *e = st->newest; e != NULL; e = e->older) {
		v->epochs++;
		if (e->state != QG_EPOCH_FILLING)
			continue;
		v->epoch_created_ms = e->created_ms;
		v->ksid = e->ksid;
		v->has_ksid = true;
		v->mark = e->mark;
	}
}

void
qg_core_view_stream(qg_core *core, size_t i, qg_stream_view *out)
{
	qg_stream *st = &core->stream[i];
	qg_pad_account pads = {0};
	*out = (qg_stream_view){.cfg = st->cfg, .most_chunks = core->part.cfg->ready_chunks};
	pthread_mutex_lock(&st->lock);
	out->state = state_of(st);
	out->agreed = st->vouched;
	out->full = st->wants_room;
	out->trouble = st->trouble != QG_OK ? qg_err_text(st->trouble) : NULL;
	out->open_fails = st->open_fails;
	out->source_failure = st->source_err != QG_OK ? qg_err_text(st->source_err) : NULL;
	view_epochs(st, out);
	out->next_index = st->next_index;
	out->ready_chunks = qg_keystore_chunks_ready(st);
	out->held_chunks = st->held;
	out->node_bytes = qg_pads_ready_bytes(st);
	out->taken_chunks = st->n_chunks;
	out->issued_chunks = st->n_issued;
	out->fetched_chunks = st->n_fetched;
	out->segments = st->n_segments;
	out->bad_segments = st->n_bad;
	qg_pads_account(st, true, &pads);
	pthread_mutex_unlock(&st->lock);
	out->pad_bytes = pads.used;
}

/* --- neighbours and routes ---------------------------------------------------- */

size_t
qg_core_view_neighbours(const qg_core *core)
{
	return core->part.cfg->n_neighbours;
}

void
qg_core_view_neighbour(qg_core *core, size_t i, qg_neighbour_view *out)
{
	*out = (qg_neighbour_view){.cfg = &core->part.cfg->neighbours[i]};
	pthread_mutex_lock(&core->lock);
	out->answered = core->check[i].answered;
	pthread_mutex_unlock(&core->lock);
	out->link = qg_link_state_of(core, out->cfg->id);
}

qg_err
qg_core_view_routes(qg_core *core, size_t stream, qg_route_view *out)
{
	const qg_config_stream *cfg = core->stream[stream].cfg;
	qg_route found[QG_VIEW_ROUTES_MAX];
	if (!cfg->relayed || cfg->direction != QG_DIRECTION_OUTBOUND)
		return QG_E_INVAL;
	memset(out, 0, sizeof *out);
	qg_routes_find(core->routes, cfg, cfg->relay.paths, qg_clock_elapsed_ms(), found, &out->n);
	for (size_t i = 0; i < out->n; i++) {
		out->route[i].n_nodes = found[i].n;
		out->route[i].cost = found[i].cost;
		memcpy(out->route[i].node, found[i].node, found[i].n * sizeof found[i].node[0]);
	}
	return QG_OK;
}

/* --- figures ------------------------------------------------------------------ */

void
qg_core_view_figures(qg_core *core, qg_core_figures *out)
{
	qg_relay_counts relay;
	qg_relay_counts_get(core, &relay);
	const uint64_t now_ms = qg_clock_elapsed_ms(), beat_ms = atomic_load(&core->beat_ms);
	*out = (qg_core_figures){
		.relay_sent = relay.sent,
		.relay_delivered = relay.delivered,
		.relay_forwarded = relay.forwarded,
		.relay_forwarded_bytes = relay.forwarded_bytes,
		.relay_taken = relay.taken,
		.relay_repeated = relay.repeated,
		.relay_refused = relay.refused,
		.relay_wrong = relay.wrong,
		.transfers = qg_transfers_count(core->transfers),
		.transfer_keys = qg_transfers_keys(core->transfers),
		.transfers_voiding = qg_transfers_voiding(core->transfers),
		.anchor_works = !atomic_load(&core->anchor_bad),
		.audit_works = qg_audit_healthy(core->part.audit),
		.beat_ms = beat_ms != 0 && now_ms > beat_ms ? now_ms - beat_ms : 0,
	};
	qg_committer_times_get(core->committer, &out->commits);
}

/* --- acts ---------------------------------------------------------------------- */

static qg_stream *
find_stream(qg_core *core, const char *name)
{
	for (size_t i = 0; i < core->n_streams; i++)
		if (strcmp(core->stream[i].cfg->name, name) == 0)
			return &core->stream[i];
	return NULL;
}

qg_err
qg_core_reopen(qg_core *core, const char *stream)
{
	qg_stream *st = find_stream(core, stream);
	if (st == NULL)
		return QG_E_NOTFOUND;
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = st->stopping ? NULL : qg_epoch_filling(st);
	if (e != NULL)
		qg_epoch_end(e, QG_KMS_CLOSE_STOP, true);
	pthread_mutex_unlock(&st->lock);
	return e != NULL ? QG_OK : QG_E_STATE;
}

qg_err
qg_core_delete_keys(qg_core *core, const char *stream, uint64_t *chunks)
{
	qg_stream *st = find_stream(core, stream);
	if (st == NULL)
		return QG_E_NOTFOUND;
	pthread_mutex_lock(&st->lock);
	*chunks = st->ready + st->held;
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		if (e->state != QG_EPOCH_DRAINING)
			qg_epoch_end(e, QG_KMS_CLOSE_ROLLBACK, true);
	pthread_mutex_unlock(&st->lock);
	qg_flush_destroy(st);
	return QG_OK;
}

void
qg_core_rotate(qg_core *core)
{
	atomic_store(&core->rotate_now, true);
	qg_conductor_kick(core);
}

size_t
qg_core_view_transfers(qg_core *core, int64_t after, qg_transfer_view *out, size_t most)
{
	return qg_transfers_list(core->transfers, after, qg_lifetime_owner_ms(&core->life), out, most);
}
