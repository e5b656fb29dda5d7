/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* OPEN_CONNECT (ETSI GS QKD 004, clauses 6.1, 6.2.2 to 6.2.6). */

/* --- which stream -------------------------------------------------------------------- */

/* The end of the stream that is the caller's: the one not connected yet, else
 * the open one. -1: none. */
static int
end_of(const qg_as_stream *st, const qg_as_names *n)
{
	int found = -1;
	for (int e = 0; e < (qg_as_local(st) ? 2 : 1); e++) {
		const qg_as_end *mine = &st->end[e], *other = &st->end[1 - e];
		const bool straight = strcmp(mine->uri, n->mine) == 0 && strcmp(other->uri, n->other) == 0;
		/* Both ends under one certificate, named alike by both. */
		const bool alike = qg_as_local(st) && strcmp(mine->uri, n->other) == 0 &&
				   strcmp(other->uri, n->mine) == 0 && mine->state == QG_AS_NONE;
		if ((!straight && !alike) || strcmp(mine->sae, n->sae->id) != 0 || mine->state == QG_AS_CLOSED)
			continue;
		if (found < 0 || mine->state == QG_AS_NONE)
			found = e;
	}
	return found;
}

static bool
kme_is(const qg_as_stream *st, const qg_as_names *n)
{
	return strcmp(st->kme, n->kme != NULL ? n->kme : "") == 0;
}

/* One of the pair at which the other application waits, the oldest. */
static qg_as_stream *
find_waiting(struct qg_app_streams *all, const qg_as_names *n, int *end)
{
	qg_as_stream *best = NULL;
	for (size_t i = 0; i < QG_AS_BUCKETS; i++) {
		for (qg_as_stream *st = all->bucket[i]; st != NULL; st = st->next) {
			const int e = kme_is(st, n) ? end_of(st, n) : -1;
			if (e < 0 || st->end[e].state != QG_AS_NONE || st->end[1 - e].state != QG_AS_OPEN)
				continue;
			if (best == NULL || st->used_ms < best->used_ms) {
				best = st;
				*end = e;
			}
		}
	}
	return best;
}

/* --- doing it --------------------------------------------------------------------------- */

static void
opened_audit(const qg_as_stream *st, unsigned end)
{
	qg_as_audit(st, end, QG_AUDIT_EPOCH, "application connected to its key stream");
}

/* Under the lock; st is known. */
static void
attach(qg_as_stream *st, qg_as_call *call, int end, qg_as_done *done)
{
	qg_as_end *mine = &st->end[end];
	call->end = (unsigned)end;
	call->deadline_ms = qg_clock_elapsed_ms() + st->qos.timeout_ms;
	st->used_ms = qg_as_now_ms(st);
	mine->dialect = call->open->dialect;
	if (mine->state == QG_AS_NONE) {
		mine->state = QG_AS_OPEN;
		qg_as_call_wait(st, call);
		opened_audit(st, (unsigned)end);
		if (!qg_as_local(st))
			qg_as_announce(st);
		else
			qg_as_settle(st, done);
		return;
	}
	/* Its own again, after a lost connection: status 1 while the peer is yet to
	 * come, unless a call waits for it, with which this one waits. */
	const bool alone = st->end[1 - end].state == QG_AS_NONE;
	bool waits = st->announcing;
	for (const qg_as_call *c = st->calls; c != NULL; c = c->next)
		waits |= !c->get;
	qg_as_call_wait(st, call);
	if (!alone || waits) {
		qg_as_settle_calls(st, done);
		return;
	}
	qg_as_call_leave(st, call);
	call->opened = (qg_app_opened){
		.status = QG_ETSI004_PEER_NOT_CONNECTED, .has_qos = true, .ksid = st->ksid};
	qg_as_qos_out(&st->qos, &call->opened.qos);
	qg_as_done_add(done, call);
}

static void
name_ends(qg_as_stream *st, const qg_as_names *n)
{
	qg_as_name(st->end[0].uri, sizeof st->end[0].uri, n->mine);
	qg_as_name(st->end[1].uri, sizeof st->end[1].uri, n->other);
	qg_as_name(st->end[0].sae, sizeof st->end[0].sae, n->sae->id);
	if (n->other_sae != NULL)
		qg_as_name(st->end[1].sae, sizeof st->end[1].sae, n->other_sae);
	if (n->kme != NULL)
		qg_as_name(st->kme, sizeof st->kme, n->kme);
}

/* Under the lock. The stream, pinned; NULL: refused. */
static qg_as_stream *
create(struct qg_app_streams *all, const qg_as_names *n, const qg_kms_app_qos *qos, qg_as_call *call,
       const qg_uuid *ksid, qg_as_done *done)
{
	qg_as_stream *st = NULL;
	qg_uuid drawn;
	qg_uuid_random(&drawn);
	const bool fresh = qg_uuid_is_null(ksid);
	if (all->stopping || qg_as_count(all, n->sae->id) >= all->core->part.cfg->app_streams.per_sae ||
	    qg_as_new(all, fresh ? &drawn : ksid, &st) != QG_OK) {
		qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, done);
		return NULL;
	}
	st->pins++;
	name_ends(st, n);
	st->owner = true;
	st->fresh = fresh;
	st->qos = *qos;
	st->end[0].state = QG_AS_OPEN;
	st->end[0].dialect = call->open->dialect;
	st->used_ms = qg_as_now_ms(st);
	call->deadline_ms = qg_clock_elapsed_ms() + qos->timeout_ms;
	qg_as_call_wait(st, call);
	opened_audit(st, 0);
	qg_as_log(st, "opened");
	if (qg_as_local(st)) {
		qg_as_settle(st, done);
	} else {
		st->creating = true;
		qg_as_announce(st);
	}
	return st;
}

/* Status 7 with what could be had instead. */
static void
counter(qg_as_call *call, const qg_kms_app_qos *qos, qg_as_done *done)
{
	call->opened = (qg_app_opened){.status = QG_ETSI004_QOS, .has_qos = true};
	qg_as_qos_out(qos, &call->opened.qos);
	/* What we prefer, in the place of what we lack. */
	call->opened.qos.mimetype = "application/json";
	if (call->open->qos.mimetype[0] == '\0')
		call->opened.qos.mimetype = "";
	qg_as_done_add(done, call);
}

/* True: there is one by now, which it has to be seen against. */
static bool
open_new(struct qg_app_streams *all, const qg_as_names *n, qg_as_call *call, const qg_uuid *ksid, qg_as_done *done)
{
	qg_kms_app_qos qos;
	const qg_err err = qg_as_grant(all, n, &call->open->qos, &qos);
	if (err == QG_E_STATE && call->open->qos_opens)
		call->lowered = true;
	else if (err == QG_E_STATE || err == QG_E_UNSUPPORTED || (err == QG_OK && call->open->qos.oblivious)) {
		counter(call, &qos, done);
		return false;
	} else if (err != QG_OK) {
		qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, done);
		return false;
	}
	qg_as_stream *st = NULL;
	pthread_mutex_lock(&all->lock);
	/* A moment ago there was none: the other KME, or another thread. */
	int end;
	const bool there = qg_uuid_is_null(ksid) ? find_waiting(all, n, &end) != NULL : qg_as_find(all, ksid) != NULL;
	if (!there)
		st = create(all, n, &qos, call, ksid, done);
	if (st != NULL)
		qg_as_leave(st, done);
	else
		pthread_mutex_unlock(&all->lock);
	return there;
}

static void
log_refused(const qg_as_call *call, const char *why)
{
	const qg_audit_event e = {.act = QG_AUDIT_REFUSED,
				  .caller = call->open->sae->id,
				  .peer = "",
				  .reason = why,
				  .ids = &call->open->ksid,
				  .n_ids = qg_uuid_is_null(&call->open->ksid) ? 0 : 1};
	qg_audit_write(call->all->core->part.audit, &e);
}

/* True: there is such a stream by now, so once more. */
static bool
open_once(qg_as_call *call, const qg_uuid *ksid)
{
	struct qg_app_streams *all = call->all;
	const qg_app_open *q = call->open;
	qg_as_done done = {0};
	qg_as_names n;
	qg_as_stream *st = NULL;
	int end = -1;
	const qg_err err = qg_as_resolve(all->core, q->sae, q->source, q->destination, &n);
	pthread_mutex_lock(&all->lock);
	const bool suspended =
		err == QG_OK && qg_as_suspended(all, q->sae->id, n.other_sae != NULL ? n.other_sae : "");
	if (err != QG_OK || suspended) {
		const bool known = !suspended && !qg_uuid_is_null(ksid) && qg_as_find(all, ksid) != NULL;
		pthread_mutex_unlock(&all->lock);
		log_refused(call, suspended ? "suspended"
				  : known   ? "the key stream is another pair's"
					    : "no such application, or not the caller's, or not allowed");
		qg_as_refuse(call, known ? QG_ETSI004_IN_USE : QG_ETSI004_NO_CONNECTION, &done);
		qg_as_done_run(&done);
		return false;
	}
	st = qg_uuid_is_null(ksid) ? find_waiting(all, &n, &end) : qg_as_find(all, ksid);
	if (st != NULL) {
		st->pins++;
		qg_as_judge_rights(st, &done);
	}
	if (st != NULL && end < 0)
		end = kme_is(st, &n) ? end_of(st, &n) : -1;
	if (st != NULL && st->ended) {
		qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, &done);
	} else if (st != NULL && end < 0) {
		log_refused(call, "the key stream is another pair's");
		qg_as_refuse(call, QG_ETSI004_IN_USE, &done);
	} else if (st != NULL) {
		attach(st, call, end, &done);
	}
	if (st != NULL) {
		qg_as_leave(st, &done);
		return false;
	}
	pthread_mutex_unlock(&all->lock);
	const bool again = open_new(all, &n, call, ksid, &done);
	qg_as_done_run(&done);
	return again;
}

static void
open_call(qg_as_call *call, const qg_uuid *ksid)
{
	while (open_once(call, ksid))
		;
}

void
qg_as_open_again(qg_as_call *call, const qg_uuid *ksid)
{
	open_call(call, ksid);
}

void
qg_app_streams_open(qg_app_streams *all, const qg_app_open *req, qg_app_opened_fn *done, void *ctx)
{
	uint32_t wait_s;
	qg_as_call *call = qg_as_call_new(all);
	const bool limited = qg_limits_take(all->opens, req->sae->id, 1, qg_clock_elapsed_ms(), &wait_s) != QG_OK;
	if (limited)
		qg_audit_limited(all->core->part.audit, req->sae->id);
	if (call == NULL || limited) {
		free(call);
		done(ctx, &(qg_app_opened){.status = QG_ETSI004_NO_CONNECTION, .qos = {.mimetype = ""}});
		return;
	}
	call->open = req;
	call->opened_done = done;
	call->ctx = ctx;
	call->at_once = qg_uuid_is_null(&req->ksid);
	open_call(call, &req->ksid);
}
