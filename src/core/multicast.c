/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "multicast_internal.h"
#include "transfer_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* The course of a request with targets at several nodes (SOUNDNESS 18). The
 * phase decides alone, under the lock: a request is released or void, once. */

#define RETRY_AFTER_S 1

/* --- the list ----------------------------------------------------------------------- */

qg_err
qg_multicast_new(struct qg_core *core)
{
	struct qg_multicast *mc = calloc(1, sizeof *mc);
	if (mc == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&mc->lock, NULL);
	core->multicast = mc;
	return QG_OK;
}

void
qg_multicast_free(struct qg_core *core)
{
	if (core->multicast == NULL)
		return;
	assert(core->multicast->ops == NULL);
	pthread_mutex_destroy(&core->multicast->lock);
	free(core->multicast);
	core->multicast = NULL;
}

static void
lock(const qg_mc *op)
{
	pthread_mutex_lock(&op->core->multicast->lock);
}

static void
unlock(const qg_mc *op)
{
	pthread_mutex_unlock(&op->core->multicast->lock);
}

void
qg_mc_free(qg_mc *op)
{
	for (size_t i = 0; i < op->n_parts; i++) {
		qg_secret_free(&op->part[i]->answer_key);
		free(op->part[i]->got);
		free(op->part[i]);
	}
	qg_secret_free(&op->keys);
	qg_ix_from_free(&op->from);
	free(op->part);
	free(op->ids);
	free(op->size);
	free(op->at);
	free(op->x);
	free(op);
}

/* Under the lock. True: nobody points to it any more, the caller frees it. */
static bool
is_left(qg_mc *op)
{
	if (op->phase != QG_MC_ENDED || op->flights > 0)
		return false;
	qg_mc **at = &op->core->multicast->ops;
	while (*at != NULL && *at != op)
		at = &(*at)->next;
	if (*at != NULL)
		*at = op->next;
	return true;
}

/* --- making one ---------------------------------------------------------------------- */

qg_stream *
qg_multicast_link(struct qg_core *core, const char *home, uint32_t max_hops)
{
	qg_stream *st = qg_masked_link(core, home, true);
	if (st != NULL && st->cfg->relayed && st->cfg->relay.max_hops > max_hops)
		st = qg_masked_link(core, home, false);
	return st;
}

qg_mc_part *
qg_mc_part_of(qg_mc *op, const char *home)
{
	for (size_t i = 0; i < op->n_parts; i++)
		if (strcmp(op->part[i]->m.to, home) == 0)
			return op->part[i];
	return NULL;
}

/* A peer, of another network. */
static qg_err
part_abroad(qg_mc_part *p, const char *home)
{
	p->peer = qg_ix_peer(p->op->core, home);
	p->got = calloc(p->op->number, sizeof *p->got);
	p->most = p->peer != NULL ? p->peer->max_keys : 0;
	p->op->abroad = true;
	return p->got == NULL ? QG_E_NOMEM : p->peer == NULL ? QG_E_NOTFOUND : QG_OK;
}

static qg_mc_part *
part_of(qg_mc *op, const char *home)
{
	qg_mc_part *p = qg_mc_part_of(op, home);
	if (p != NULL)
		return p;
	p = calloc(1, sizeof *p);
	if (p == NULL)
		return NULL;
	p->op = op;
	p->most = QG_KMS_MAKE_MAX;
	if (qg_transfer_is_peer(home) && part_abroad(p, home) != QG_OK) {
		free(p->got);
		free(p);
		return NULL;
	}
	strncpy(p->m.from, op->core->part.cfg->kme_id, sizeof p->m.from - 1);
	strncpy(p->m.to, home, sizeof p->m.to - 1);
	p->m.lifetime_s = op->core->part.cfg->fetch_s;
	op->part[op->n_parts++] = p;
	return p;
}

/* Names were measured by qg_records_check. */
qg_err
qg_mc_add_targets(qg_mc *op, const char *initiator, const qg_transfer_to *to, size_t n_to)
{
	for (size_t i = 0; i < n_to; i++) {
		if (to[i].home == NULL)
			continue;
		qg_mc_part *p = part_of(op, to[i].home);
		if (p == NULL)
			return QG_E_NOMEM;
		if (p->m.targets.n == QG_KMS_SAES_MAX)
			return QG_E_RANGE;
		op->abroad |= qg_directory_foreign(op->core->part.directory, to[i].sae);
		strncpy(p->m.initiator, initiator, sizeof p->m.initiator - 1);
		strncpy(p->m.targets.id[p->m.targets.n++], to[i].sae, QG_KMS_SAE_MAX);
	}
	return QG_OK;
}

static qg_err
add_records(qg_mc *op, const char *initiator, const qg_transfer_to *to, size_t n_to)
{
	const struct qg_core *core = op->core;
	qg_transfer_plan plan = {
		.initiator = initiator,
		.to = to,
		.n_to = n_to,
		.expiry_ms = qg_lifetime_owner_ms(&core->life) + (uint64_t)core->part.cfg->fetch_s * 1000,
	};
	for (uint32_t i = 0; i < op->number; i++) {
		plan.id = op->ids[i];
		plan.size_bytes = op->size[i];
		plan.value = op->keys->data + op->at[i];
		const qg_err err = qg_transfer_plan_new(core->transfers, &plan, &op->x[i]);
		if (err != QG_OK)
			return err;
		op->n_x = i + 1;
	}
	return QG_OK;
}

qg_err
qg_mc_room(qg_mc *op, uint32_t number, size_t n_to)
{
	op->number = number;
	op->ids = calloc(number, sizeof *op->ids);
	op->size = calloc(number, sizeof *op->size);
	op->at = calloc((size_t)number + 1, sizeof *op->at);
	op->x = calloc(number, sizeof(qg_transfer *));
	op->part = calloc(n_to, sizeof(qg_mc_part *));
	return op->ids == NULL || op->size == NULL || op->at == NULL || op->x == NULL || op->part == NULL
		       ? QG_E_NOMEM
		       : QG_OK;
}

static qg_err
op_fill(qg_mc *op, const qg_issue_request *req, const qg_transfer_to *to, size_t n_to, const qg_uuid *ids)
{
	if (qg_mc_room(op, req->number, n_to) != QG_OK)
		return QG_E_NOMEM;
	memcpy(op->ids, ids, req->number * sizeof *ids);
	for (uint32_t i = 0; i < req->number; i++) {
		op->size[i] = req->size_bytes;
		op->at[i + 1] = op->at[i] + req->size_bytes;
	}
	const qg_err err = qg_mc_add_targets(op, req->master, to, n_to);
	return err == QG_OK ? add_records(op, req->master, to, n_to) : err;
}

/* --- the end -------------------------------------------------------------------------- */

/* With the keys in QG_OK. */
static void
answer(qg_mc *op, qg_err err)
{
	if (op->from != NULL)
		return;
	qg_issue_result r = {.err = err, .ids = op->ids, .retry_after_s = RETRY_AFTER_S};
	if (err == QG_OK) {
		r.keys = op->keys;
		op->keys = NULL;
	}
	op->done(op->ctx, &r);
}

void
qg_mc_end(qg_mc *op, qg_ix_end how)
{
	lock(op);
	op->phase = QG_MC_ENDED;
	op->flights++;
	qg_ix_waiter *waiters = qg_ix_from_waiters(op->from);
	unlock(op);
	qg_ix_run_waiters(waiters, how);
	qg_mc_let(op);
}

/* Its records can be found by it, and no more. */
void
qg_mc_mark(qg_mc *op, void *as)
{
	lock(op);
	for (uint32_t i = 0; i < op->n_x; i++) {
		op->x[i]->op = as;
		op->x[i]->op_at = i;
	}
	unlock(op);
}

static qg_err
void_run(qg_job *job, qg_store *store)
{
	qg_mc *op = (qg_mc *)job;
	for (uint32_t i = 0; i < op->n_x; i++) {
		const qg_err err = qg_transfer_void_store(op->x[i], store);
		if (err != QG_OK && err != QG_E_STATE)
			return err;
	}
	qg_commit_note_change(op->core);
	return qg_ix_from_store(op, store, QG_INTEROP_FAILED);
}

static void
void_done(qg_job *job, qg_err err)
{
	qg_mc *op = (qg_mc *)job;
	struct qg_core *core = op->core;
	if (err != QG_OK)
		qg_log(QG_LOG_WARN, "transfer", "event=void_not_saved records=%u error=\"%s\"", op->n_x,
		       qg_err_text(err));
	qg_ix_from_stored(op, err);
	qg_mc_mark(op, NULL);
	for (uint32_t i = 0; i < op->n_x; i++)
		qg_transfer_void_stored(core->transfers, op->x[i]);
	answer(op, QG_E_EMPTY);
	qg_mc_end(op, QG_IX_FAILED);
	qg_conductor_kick(core);
}

/* The phase is VOIDING, and ours. */
static void
void_op(qg_mc *op)
{
	struct qg_core *core = op->core;
	const char *homes[QG_KMS_SAES_MAX];
	const qg_request_id request = op->request, *before = qg_request_id_enter(&request);
	size_t n = 0;
	lock(op);
	for (size_t i = 0; i < op->n_parts && n < QG_KMS_SAES_MAX; i++)
		if (op->part[i]->told)
			homes[n++] = op->part[i]->m.to;
	unlock(op);
	qg_log(QG_LOG_WARN, "transfer", "event=multicast_failed kme=%s keys=%u reason=\"%s\"",
	       op->why_home != NULL ? op->why_home : "", op->number, op->why);
	qg_audit_event ev = {.act = QG_AUDIT_VOIDED,
			     .caller = op->part[0]->m.initiator,
			     .peer = op->why_home != NULL ? op->why_home : "",
			     .reason = op->why,
			     .size_bits = op->size[0] * 8,
			     .ids = op->ids,
			     .n_ids = op->number};
	qg_audit_write(core->part.audit, &ev);
	for (uint32_t i = 0; i < op->n_x; i++)
		qg_transfer_void_begin(core->transfers, op->x[i], homes, n);
	op->job.run = void_run;
	op->job.done = void_done;
	qg_committer_submit(core->committer, &op->job);
	(void)qg_request_id_enter(before);
}

/* The first failure ends it, and whoever finds it makes it void. */
void
qg_mc_fail(qg_mc *op, qg_mc_phase from, const char *why, const char *home)
{
	lock(op);
	const bool first = op->phase == from;
	if (first) {
		op->phase = QG_MC_VOIDING;
		(void)snprintf(op->why, sizeof op->why, "%s", why);
		op->why_home = home;
	}
	unlock(op);
	if (first)
		void_op(op);
}

static qg_err
release_run(qg_job *job, qg_store *store)
{
	qg_mc *op = (qg_mc *)job;
	for (uint32_t i = 0; i < op->n_x; i++) {
		const qg_err err = qg_transfer_release_store(op->x[i], store);
		if (err != QG_OK)
			return err;
	}
	qg_commit_note_change(op->core);
	return qg_ix_from_store(op, store, QG_INTEROP_RELAYED);
}

/* Of keys between networks alone. */
static void
audit_released(const qg_mc *op)
{
	const char *to = "";
	for (size_t i = 0; i < op->n_parts; i++)
		if (op->part[i]->peer != NULL)
			to = op->part[i]->m.to;
	if (op->from == NULL && to[0] == '\0')
		return;
	qg_audit_event ev = {.act = op->from != NULL ? QG_AUDIT_RELAYED : QG_AUDIT_RELEASED,
			     .caller = op->part[0]->m.initiator,
			     .peer = op->from != NULL ? op->from->name : to,
			     .reason = "",
			     .size_bits = op->size[0] * 8,
			     .ids = op->ids,
			     .n_ids = op->number};
	qg_audit_write(op->core->part.audit, &ev);
}

static void
release_done(qg_job *job, qg_err err)
{
	qg_mc *op = (qg_mc *)job;
	qg_ix_from_stored(op, err);
	if (err != QG_OK) {
		qg_mc_fail(op, QG_MC_RELEASING, "the database refuses", NULL);
		return;
	}
	qg_mc_mark(op, NULL);
	for (uint32_t i = 0; i < op->n_x; i++)
		qg_transfer_released(op->core->transfers, op->x[i]);
	audit_released(op);
	answer(op, QG_OK);
	qg_mc_end(op, QG_IX_HELD);
}

/* --- parts ------------------------------------------------------------------------------ */

/* Under the lock. */
static bool
all_held(const qg_mc *op)
{
	for (size_t i = 0; i < op->n_parts; i++)
		if (op->part[i]->held < op->number)
			return false;
	return true;
}

void
qg_mc_hold(qg_mc *op)
{
	op->flights++;
}

/* Gives a flight back; op may be gone afterwards. */
static void
let(qg_mc *op, qg_mc_part *p, uint64_t due_ms)
{
	struct qg_core *core = op->core;
	lock(op);
	if (p != NULL) {
		p->flight = false;
		p->due_ms = due_ms;
	}
	op->flights--;
	const bool release = op->phase == QG_MC_SENDING && all_held(op), left = is_left(op);
	if (release)
		op->phase = QG_MC_RELEASING;
	unlock(op);
	if (left) {
		qg_mc_free(op);
	} else if (release) {
		const qg_request_id request = op->request, *before = qg_request_id_enter(&request);
		op->job.run = release_run;
		op->job.done = release_done;
		qg_committer_submit(core->committer, &op->job);
		(void)qg_request_id_enter(before);
	} else {
		qg_conductor_kick(core);
	}
}

void
qg_mc_let(qg_mc *op)
{
	let(op, NULL, 0);
}

static void
land(qg_mc_part *p, uint64_t due_ms)
{
	let(p->op, p, due_ms);
}

void
qg_mc_part_got(qg_mc_part *p, const uint32_t *at, size_t n)
{
	lock(p->op);
	for (size_t i = 0; i < n; i++) {
		p->held += !p->got[at[i]];
		p->got[at[i]] = true;
	}
	unlock(p->op);
}

void
qg_mc_part_held(qg_mc_part *p, uint32_t n)
{
	lock(p->op);
	p->held += n;
	unlock(p->op);
	land(p, 0);
}

void
qg_mc_part_rest(qg_mc_part *p, uint64_t due_ms)
{
	land(p, due_ms);
}

/* The name in the part lives as long as the request does. */
void
qg_mc_part_failed(qg_mc_part *p, const char *why)
{
	qg_mc_fail(p->op, QG_MC_SENDING, why, p->m.to);
	land(p, 0);
}

void
qg_mc_part_refused(qg_mc_part *p, const char *why)
{
	lock(p->op);
	p->told = p->taken > 0;
	unlock(p->op);
	qg_mc_part_failed(p, why);
}

bool
qg_mc_part_tells(qg_mc_part *p)
{
	lock(p->op);
	const bool on = p->op->phase == QG_MC_SENDING;
	if (on)
		p->told = true;
	unlock(p->op);
	return on;
}

/* --- the beginning ------------------------------------------------------------------------ */

static qg_err
prepare_run(qg_job *job, qg_store *store)
{
	qg_mc *op = (qg_mc *)job;
	for (uint32_t i = 0; i < op->n_x; i++) {
		const qg_err err = qg_transfer_store(op->x[i], store);
		if (err != QG_OK)
			return err;
	}
	qg_commit_note_change(op->core);
	return QG_OK;
}

static void
prepare_done(qg_job *job, qg_err err)
{
	qg_mc *op = (qg_mc *)job;
	struct qg_core *core = op->core;
	for (uint32_t i = 0; i < op->n_x; i++)
		qg_transfer_added(core->transfers, op->x[i], err);
	if (err != QG_OK) {
		answer(op, QG_E_IO);
		op->n_x = 0;
		qg_mc_end(op, QG_IX_FAILED);
		return;
	}
	qg_mc_start(op);
}

/* --- a request ----------------------------------------------------------------------------- */

void
qg_multicast_issue(struct qg_core *core, const qg_issue_request *req, const qg_transfer_to *to, size_t n_to,
		   const qg_uuid *ids, qg_secret **keys, qg_issue_done *done, void *ctx)
{
	qg_mc *op = calloc(1, sizeof *op);
	if (op == NULL) {
		qg_secret_free(keys);
		done(ctx, &(qg_issue_result){.err = QG_E_IO});
		return;
	}
	op->core = core;
	op->request = qg_request_id_now();
	op->done = done;
	op->ctx = ctx;
	op->max_hops = req->max_hops;
	op->keys = *keys;
	*keys = NULL;
	if (op_fill(op, req, to, n_to, ids) != QG_OK) {
		for (uint32_t i = 0; i < op->n_x; i++)
			qg_transfer_added(core->transfers, op->x[i], QG_E_NOMEM);
		answer(op, QG_E_IO);
		qg_mc_free(op);
		return;
	}
	op->deadline_ms = op->abroad ? qg_mc_deadline(op, core->part.cfg->transfer_timeout_ms)
				     : qg_clock_elapsed_ms() + core->part.cfg->kms_timeout_ms;
	op->job.run = prepare_run;
	op->job.done = prepare_done;
	qg_committer_submit(core->committer, &op->job);
}

/* --- the conductor's part -------------------------------------------------------------------- */

/* Under the lock. */
static qg_mc_part *
due_part(const qg_mc *op, uint64_t now_ms, uint64_t *next_ms)
{
	for (size_t i = 0; i < op->n_parts; i++) {
		qg_mc_part *p = op->part[i];
		if (p->flight || p->held == op->number || (p->peer != NULL && p->taken == op->number))
			continue;
		if (p->due_ms <= now_ms)
			return p;
		if (p->due_ms < *next_ms)
			*next_ms = p->due_ms;
	}
	return NULL;
}

/* Something to do: a part whose flight is taken, or a request that is late. One
 * part is not taken up twice in a pass. */
static bool
find_due(struct qg_multicast *mc, uint64_t now_ms, qg_mc_part **part, qg_mc **late, uint64_t *next_ms)
{
	*part = NULL;
	*late = NULL;
	*next_ms = UINT64_MAX;
	pthread_mutex_lock(&mc->lock);
	for (qg_mc *op = mc->ops; op != NULL && *part == NULL && *late == NULL; op = op->next) {
		if (op->phase != QG_MC_SENDING)
			continue;
		if (now_ms >= op->deadline_ms || mc->stopping) {
			*late = op;
			op->flights++; /* keeps it */
			break;
		}
		if (op->deadline_ms < *next_ms)
			*next_ms = op->deadline_ms;
		*part = due_part(op, now_ms, next_ms);
		if (*part != NULL) {
			(*part)->flight = true;
			op->flights++;
		}
	}
	pthread_mutex_unlock(&mc->lock);
	return *part != NULL || *late != NULL;
}

static const char *
late_home(const qg_mc *op)
{
	const char *home = NULL;
	lock(op);
	for (size_t i = 0; i < op->n_parts && home == NULL; i++)
		if (op->part[i]->held < op->number)
			home = op->part[i]->m.to;
	unlock(op);
	return home;
}

static void
give_up(qg_mc *op, bool stopping)
{
	if (stopping)
		qg_mc_stop(op);
	else
		qg_mc_fail(op, QG_MC_SENDING, "no answer, or no node key, in time", late_home(op));
	qg_mc_let(op);
}

/* Waiters whose patience ended. */
static uint64_t
end_late_waiters(struct qg_multicast *mc, uint64_t now_ms)
{
	uint64_t next_ms = UINT64_MAX;
	qg_ix_waiter *late = NULL;
	pthread_mutex_lock(&mc->lock);
	for (qg_mc *op = mc->ops; op != NULL; op = op->next)
		if (op->from != NULL)
			qg_ix_from_late(op->from, now_ms, &late, &next_ms);
	pthread_mutex_unlock(&mc->lock);
	qg_ix_run_waiters(late, QG_IX_LATE);
	return next_ms;
}

static bool
is_stopping(struct qg_multicast *mc)
{
	pthread_mutex_lock(&mc->lock);
	const bool stopping = mc->stopping;
	pthread_mutex_unlock(&mc->lock);
	return stopping;
}

uint64_t
qg_multicast_step(struct qg_core *core, uint64_t now_ms)
{
	struct qg_multicast *mc = core->multicast;
	qg_mc_part *part;
	qg_mc *late;
	const uint64_t late_ms = end_late_waiters(mc, now_ms);
	uint64_t next_ms, void_ms = qg_multicast_tell_voids(core, now_ms);
	if (late_ms < void_ms)
		void_ms = late_ms;
	while (find_due(mc, now_ms, &part, &late, &next_ms)) {
		const qg_request_id request = late != NULL ? late->request : part->op->request;
		(void)qg_request_id_enter(&request); /* theirs may go meanwhile */
		if (late != NULL)
			give_up(late, is_stopping(mc));
		else
			qg_mc_part_send(part);
		(void)qg_request_id_enter(NULL);
	}
	return next_ms < void_ms ? next_ms : void_ms;
}

void
qg_multicast_wind_down(struct qg_core *core)
{
	struct qg_multicast *mc = core->multicast;
	if (mc == NULL)
		return;
	pthread_mutex_lock(&mc->lock);
	mc->stopping = true;
	pthread_mutex_unlock(&mc->lock);
	qg_mc_part *part;
	qg_mc *late;
	uint64_t next_ms;
	while (find_due(mc, 0, &part, &late, &next_ms))
		if (late != NULL)
			give_up(late, true);
}
