/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "qkdgate/policy.h"

/* new_app_stream, both sides: the two KMEs come to know of both ends. A call of
 * an application is answered when both know, and have it durably, what its
 * answer says. */

#define AGAIN_MS 300
#define TEXT_MAX 2048

/* --- calls that wait ------------------------------------------------------------------ */

static void
answer_open(qg_as_stream *st, qg_as_call *call, uint32_t status, qg_as_done *done)
{
	call->opened.status = call->lowered && status == QG_ETSI004_SUCCESS ? QG_ETSI004_QOS : status;
	call->opened.has_qos = true;
	call->opened.ksid = st->ksid;
	qg_as_qos_out(&st->qos, &call->opened.qos);
	qg_as_done_add(done, call);
}

void
qg_as_settle_calls(qg_as_stream *st, qg_as_done *done)
{
	qg_as_call *next;
	for (qg_as_call *call = st->calls; call != NULL && st->settled && !st->announcing; call = next) {
		next = call->next;
		if (call->get || (!call->at_once && st->end[1 - call->end].state == QG_AS_NONE))
			continue;
		qg_as_call_leave(st, call);
		answer_open(st, call, QG_ETSI004_SUCCESS, done);
	}
}

static void
settled(qg_as_stream *st, qg_err err, void *ctx)
{
	struct qg_app_streams *all = st->all;
	qg_as_done done = {0};
	(void)ctx;
	pthread_mutex_lock(&all->lock);
	st->pins++;
	if (st->ended)
		err = QG_E_CLOSED;
	else if (err != QG_OK)
		qg_as_end_stream(st, &done);
	st->settled |= err == QG_OK;
	if (err == QG_OK) {
		qg_as_settle_calls(st, &done);
		qg_as_serve(st, &done);
	}
	qg_as_leave(st, &done);
}

static bool
needs_no_peer(const qg_as_stream *st)
{
	for (const qg_as_call *call = st->calls; call != NULL; call = call->next)
		if (!call->get && call->at_once)
			return true;
	return st->end[0].state != QG_AS_NONE && st->end[1].state != QG_AS_NONE;
}

/* One that only waits for its peer is not stored: after a crash the call that
 * waited is gone, too. */
void
qg_as_settle(qg_as_stream *st, qg_as_done *done)
{
	if (st->announcing || st->ended || (!st->stored && !needs_no_peer(st)))
		return;
	if (qg_as_save_then(st, NULL, settled, NULL) != QG_OK)
		qg_as_end_stream(st, done);
}

/* --- telling ---------------------------------------------------------------------------- */

void
qg_as_announce(qg_as_stream *st)
{
	st->announcing = true;
	st->heard = false;
	st->announce_at_ms = qg_clock_elapsed_ms();
	st->announce_for = qg_request_id_now();
}

/* Those that wait only for the other KME are told; the end that was to join is
 * as before. */
static void
announce_refused(qg_as_stream *st, uint32_t status, qg_as_done *done)
{
	st->announcing = false;
	if (!st->creating)
		st->end[0].state = QG_AS_NONE;
	qg_as_call *next;
	for (qg_as_call *call = st->calls; call != NULL; call = next) {
		next = call->next;
		if (call->get)
			continue;
		qg_as_call_leave(st, call);
		qg_as_refuse(call, status, done);
	}
	if (st->creating)
		qg_as_end_stream(st, done);
}

/* Those that asked for any stream of the pair get the one that waits there. */
static void
take_other(qg_as_stream *st, qg_as_done *done, qg_as_call **again)
{
	while (st->calls != NULL) {
		qg_as_call *call = st->calls;
		qg_as_call_leave(st, call);
		if (call->get) {
			qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, done);
			continue;
		}
		call->next = *again;
		*again = call;
	}
	qg_as_end_stream(st, done);
}

static bool
answer_sound(const qg_as_stream *st, const qg_kms_app_stream_answer *a)
{
	const struct qg_core *core = st->all->core;
	qg_policy_terms terms;
	const char *home = qg_directory_home(core->part.directory, a->sae);
	return home != NULL && strcmp(home, st->kme) == 0 &&
	       qg_as_policy(core, st->end[0].sae, a->sae, &terms) == QG_OK;
}

/* Until key is drawn for it, who owns it and how large its chunks are may change. */
static bool
is_unused(const qg_as_stream *st)
{
	return st->n_block == 0 && st->next_index == 0 && !st->filling;
}

static void
take_answer(qg_as_stream *st, const qg_kms_app_stream_answer *a, qg_as_done *done)
{
	if (!answer_sound(st, a)) {
		qg_as_audit(st, 0, QG_AUDIT_REFUSED, "the other application's SAE may not share keys");
		announce_refused(st, QG_ETSI004_NO_CONNECTION, done);
		return;
	}
	st->announcing = false;
	const bool unused = is_unused(st);
	if (unused)
		st->owner = a->owner == 0;
	if (unused || a->qos.chunk_size == st->qos.chunk_size)
		st->qos = a->qos;
	qg_as_name(st->end[1].sae, sizeof st->end[1].sae, a->sae);
	/* Its own word counts, also where it forgot the stream in a crash. */
	if (a->result == QG_KMS_APP_STREAM_JOINED && st->end[1].state == QG_AS_NONE)
		st->end[1].state = QG_AS_OPEN;
	else if (a->result == QG_KMS_APP_STREAM_WAITING && st->end[1].state == QG_AS_OPEN && !st->heard)
		st->end[1].state = QG_AS_NONE;
	qg_as_settle(st, done);
}

static uint32_t
status_of(qg_kms_app_stream_result result)
{
	return result == QG_KMS_APP_STREAM_IN_USE ? QG_ETSI004_IN_USE : QG_ETSI004_NO_CONNECTION;
}

/* A call that only waits for its peer may wait for the other KME, too. */
static bool
may_try_again(const qg_as_stream *st)
{
	for (const qg_as_call *call = st->calls; call != NULL; call = call->next)
		if (!call->get && call->at_once)
			return false;
	return st->calls != NULL;
}

static void
announced(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_as_stream *st = ctx;
	struct qg_app_streams *all = st->all;
	qg_kms_app_stream_answer a;
	qg_as_done done = {0};
	qg_as_call *again = NULL;
	if (err == QG_OK && http_status != 200)
		err = QG_E_AGAIN;
	if (err == QG_OK)
		err = qg_kms_app_stream_answer_decode(body, len, &a);
	pthread_mutex_lock(&all->lock);
	st->announce_sent = false;
	if (st->ended || !st->announcing) {
		/* Given up meanwhile; the step tells the other KME. */
	} else if (err != QG_OK && may_try_again(st)) {
		st->announce_at_ms = qg_clock_elapsed_ms() + AGAIN_MS;
	} else if (err != QG_OK) {
		announce_refused(st, QG_ETSI004_NO_CONNECTION, &done);
	} else if (a.result == QG_KMS_APP_STREAM_OTHER && st->fresh && st->creating) {
		take_other(st, &done, &again);
	} else if (a.result == QG_KMS_APP_STREAM_WAITING || a.result == QG_KMS_APP_STREAM_JOINED) {
		take_answer(st, &a, &done);
	} else {
		announce_refused(st, status_of(a.result), &done);
	}
	qg_as_leave(st, &done);
	while (again != NULL) {
		qg_as_call *call = again;
		again = call->next;
		qg_as_open_again(call, &a.ksid);
	}
}

void
qg_as_announce_send(qg_as_stream *st)
{
	struct qg_app_streams *all = st->all;
	qg_kms_app_stream m = {.ksid = st->ksid};
	char text[TEXT_MAX];
	size_t len = 0;
	pthread_mutex_lock(&all->lock);
	m.fresh = st->fresh && st->creating;
	m.owns = st->owner;
	m.qos = st->qos;
	const qg_request_id for_whom = st->announce_for;
	qg_as_name(m.source, sizeof m.source, st->end[0].uri);
	qg_as_name(m.destination, sizeof m.destination, st->end[1].uri);
	qg_as_name(m.sae, sizeof m.sae, st->end[0].sae);
	pthread_mutex_unlock(&all->lock);
	qg_channel *ch = all->core->part.channel;
	qg_err err = qg_kms_app_stream_encode(&m, text, sizeof text, &len);
	if (err == QG_OK) {
		pthread_mutex_lock(&all->lock);
		st->pins++;
		pthread_mutex_unlock(&all->lock);
		const qg_request_id *before = qg_request_id_enter(&for_whom);
		err = ch->ops->send(ch, st->kme, QG_KMS_NEW_APP_STREAM, text, len, 0, announced, st);
		(void)qg_request_id_enter(before);
		if (err == QG_OK)
			return;
		pthread_mutex_lock(&all->lock);
		qg_as_unpin(st);
		pthread_mutex_unlock(&all->lock);
	}
	qg_as_done done = {0};
	pthread_mutex_lock(&all->lock);
	st->announce_sent = false;
	if (st->announcing && !st->ended)
		announce_refused(st, QG_ETSI004_NO_CONNECTION, &done);
	pthread_mutex_unlock(&all->lock);
	qg_as_done_run(&done);
}

/* --- hearing --------------------------------------------------------------------------------- */

typedef struct hearing {
	qg_peer_answer *answer;
	void *ctx;
} hearing;

static void
answer_with(const qg_kms_app_stream_answer *a, qg_peer_answer *answer, void *ctx)
{
	char text[TEXT_MAX];
	size_t len = 0;
	if (qg_kms_app_stream_answer_encode(a, text, sizeof text, &len) == QG_OK)
		answer(ctx, 200, text, len);
	else
		answer(ctx, 500, NULL, 0);
}

static void
fill_answer(const qg_as_stream *st, qg_kms_app_stream_answer *a)
{
	*a = (qg_kms_app_stream_answer){
		.result = st->end[0].state == QG_AS_OPEN ? QG_KMS_APP_STREAM_JOINED : QG_KMS_APP_STREAM_WAITING,
		.owner = st->owner ? 1 : 0,
		.qos = st->qos,
	};
	qg_as_name(a->sae, sizeof a->sae, st->end[0].sae);
}

static void
heard_stored(qg_as_stream *st, qg_err err, void *ctx)
{
	struct qg_app_streams *all = st->all;
	hearing *h = ctx;
	qg_kms_app_stream_answer a;
	qg_as_done done = {0};
	pthread_mutex_lock(&all->lock);
	st->pins++;
	const bool ok = err == QG_OK && !st->ended;
	if (ok) {
		st->settled = true;
		fill_answer(st, &a);
		qg_as_settle_calls(st, &done);
		qg_as_serve(st, &done);
	} else {
		qg_as_end_stream(st, &done);
	}
	qg_as_leave(st, &done);
	if (ok)
		answer_with(&a, h->answer, h->ctx);
	else
		h->answer(h->ctx, 503, NULL, 0);
	free(h);
}

/* The SAE here whose application is meant, if the two may share keys. */
static const qg_config_sae *
target_of(struct qg_core *core, const char *neighbour, const qg_kms_app_stream *m)
{
	const char *home = qg_directory_home(core->part.directory, m->sae);
	const qg_config_sae *sae = qg_as_local_sae(core, m->destination);
	qg_policy_terms terms;
	if (home == NULL || strcmp(home, neighbour) != 0 || sae == NULL ||
	    qg_as_policy(core, sae->id, m->sae, &terms) != QG_OK)
		return NULL;
	const uint32_t bits = m->qos.chunk_size * 8;
	return bits >= terms.min_key_bits && bits <= terms.max_key_bits ? sae : NULL;
}

static bool
same_pair(const qg_as_stream *st, const char *neighbour, const qg_kms_app_stream *m)
{
	return strcmp(st->kme, neighbour) == 0 && strcmp(st->end[0].uri, m->destination) == 0 &&
	       strcmp(st->end[1].uri, m->source) == 0;
}

/* One of the pair whose application here waits for the other. Of two that are
 * being made at both KMEs at once, that of the KME with the lesser ID stands. */
static qg_as_stream *
find_waiting(struct qg_app_streams *all, const char *neighbour, const qg_kms_app_stream *m)
{
	const bool ours_first = strcmp(all->core->part.cfg->kme_id, neighbour) < 0;
	for (size_t i = 0; i < QG_AS_BUCKETS; i++)
		for (qg_as_stream *st = all->bucket[i]; st != NULL; st = st->next)
			if (same_pair(st, neighbour, m) && st->end[0].state == QG_AS_OPEN &&
			    st->end[1].state == QG_AS_NONE && (!st->announcing || ours_first))
				return st;
	return NULL;
}

/* It is known here. */
static qg_kms_app_stream_result
hear_known(qg_as_stream *st, const char *neighbour, const qg_kms_app_stream *m)
{
	if (!same_pair(st, neighbour, m) || st->end[1].state == QG_AS_CLOSED || st->end[0].state == QG_AS_CLOSED)
		return QG_KMS_APP_STREAM_IN_USE;
	const bool unused = is_unused(st);
	/* Both KMEs made it at once: it is that of the lesser ID. */
	if (st->owner && m->owns && unused && st->announcing &&
	    strcmp(st->all->core->part.cfg->kme_id, neighbour) > 0) {
		st->owner = false;
		st->qos = m->qos;
	} else if (!st->owner && !m->owns && unused) {
		st->owner = true; /* the one that was forgot it */
	}
	/* One that the other KME forgot in a crash before any key was drawn. */
	if (!st->owner && st->next_index == 0 && !st->filling && st->end[1].state == QG_AS_OPEN && !st->announcing)
		st->qos = m->qos;
	st->heard = true;
	st->end[1].state = QG_AS_OPEN;
	qg_as_name(st->end[1].sae, sizeof st->end[1].sae, m->sae);
	return QG_KMS_APP_STREAM_WAITING;
}

static qg_err
hear_new(struct qg_app_streams *all, const char *neighbour, const qg_kms_app_stream *m, const qg_config_sae *sae,
	 qg_as_stream **out)
{
	qg_as_stream *st = NULL;
	if (qg_as_count(all, sae->id) >= all->core->part.cfg->app_streams.per_sae)
		return QG_E_FULL;
	const qg_err err = qg_as_new(all, &m->ksid, &st);
	if (err != QG_OK)
		return err;
	qg_as_name(st->kme, sizeof st->kme, neighbour);
	qg_as_name(st->end[0].uri, sizeof st->end[0].uri, m->destination);
	qg_as_name(st->end[0].sae, sizeof st->end[0].sae, sae->id);
	qg_as_name(st->end[1].uri, sizeof st->end[1].uri, m->source);
	qg_as_name(st->end[1].sae, sizeof st->end[1].sae, m->sae);
	st->end[1].state = QG_AS_OPEN;
	st->owner = !m->owns;
	st->qos = m->qos;
	st->used_ms = qg_as_now_ms(st);
	qg_as_log(st, "announced");
	*out = st;
	return QG_OK;
}

/* Under the lock. QG_OK: *st is to be stored, and answered after that. */
static qg_err
hear(struct qg_app_streams *all, const char *neighbour, const qg_kms_app_stream *m, const qg_config_sae *sae,
     qg_as_stream **st, qg_kms_app_stream_answer *a)
{
	*st = qg_as_find(all, &m->ksid);
	if (*st != NULL) {
		a->result = hear_known(*st, neighbour, m);
		return a->result == QG_KMS_APP_STREAM_WAITING ? QG_OK : QG_E_EXISTS;
	}
	const qg_as_stream *other = m->fresh ? find_waiting(all, neighbour, m) : NULL;
	if (other != NULL) {
		a->result = QG_KMS_APP_STREAM_OTHER;
		a->ksid = other->ksid;
		return QG_E_EXISTS;
	}
	const qg_err err = all->stopping ? QG_E_FULL : hear_new(all, neighbour, m, sae, st);
	a->result = QG_KMS_APP_STREAM_FULL;
	return err;
}

void
qg_app_stream_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		      qg_peer_answer *answer, void *ctx)
{
	struct qg_app_streams *all = core->app_streams;
	qg_kms_app_stream m;
	qg_kms_app_stream_answer a = {.result = QG_KMS_APP_STREAM_UNKNOWN};
	qg_as_done done = {0};
	if (qg_kms_app_stream_decode(body, len, &m) != QG_OK) {
		answer(ctx, 400, NULL, 0);
		return;
	}
	const qg_config_sae *sae = target_of(core, neighbour, &m);
	hearing *h = sae == NULL ? NULL : malloc(sizeof *h);
	if (h == NULL) {
		answer_with(&a, answer, ctx);
		return;
	}
	*h = (hearing){.answer = answer, .ctx = ctx};
	qg_as_stream *st = NULL;
	pthread_mutex_lock(&all->lock);
	qg_err err = hear(all, neighbour, &m, sae, &st, &a);
	/* While its own telling is under way it is stored after that. */
	const bool later = err == QG_OK && st->announcing;
	if (later)
		fill_answer(st, &a);
	else if (err == QG_OK)
		err = qg_as_save_then(st, NULL, heard_stored, h);
	pthread_mutex_unlock(&all->lock);
	qg_as_done_run(&done);
	if (err == QG_OK && !later)
		return;
	free(h);
	answer_with(&a, answer, ctx);
}
