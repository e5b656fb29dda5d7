/* SPDX-License-Identifier: Apache-2.0 */
/* The three calls of ETSI GS QKD 004 at this end. */
#include "sim_internal.h"

#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

static void
wait_changed(sim *s, uint64_t until_ms)
{
	const struct timespec until = sim_until(until_ms);
	pthread_cond_timedwait(&s->changed, &s->lock, &until);
}

/* --- OPEN_CONNECT ---------------------------------------------------------------- */

/* What this link can do of what is asked for; true when that is all of it. */
static bool
negotiate(const sim *s, qg_etsi004_qos *q)
{
	bool met = true;
	if (q->chunk_size == 0)
		q->chunk_size = SIM_CHUNK_DEFAULT;
	if (q->chunk_size > SIM_CHUNK_MAX) {
		q->chunk_size = SIM_CHUNK_MAX;
		met = false;
	}
	if (s->opt.rate_bps > 0 && q->min_bps > s->opt.rate_bps) {
		q->min_bps = (uint32_t)s->opt.rate_bps;
		q->max_bps = (uint32_t)s->opt.rate_bps;
		met = false;
	}
	if (q->oblivious) {
		q->oblivious = false;
		met = false;
	}
	if (q->mimetype[0] != '\0' && strcmp(q->mimetype, "application/json") != 0) {
		q->mimetype = "application/json";
		met = false;
	}
	return met;
}

static void
answer_with(qg_etsi004_response *a, uint32_t status, const qg_uuid *ksid, const qg_etsi004_qos *qos)
{
	*a = (qg_etsi004_response){.op = QG_ETSI004_OPEN_CONNECT, .status = status, .has_qos = true,
				   .ksid = *ksid, .qos = *qos};
	/* The stream may be gone before the answer is written. */
	a->qos.mimetype = qos->mimetype[0] != '\0' ? "application/json" : "";
}

static void
log_open(const sim_stream *st, uint32_t status)
{
	char text[QG_UUID_TEXT];
	qg_uuid_format(&st->ksid, text);
	qg_log(QG_LOG_INFO, "sim", "event=open ksid=%s source=%s destination=%s chunk_size=%u status=%u peer=%s",
	       text, qg_log_safe(st->source), qg_log_safe(st->destination), st->qos.chunk_size, status,
	       st->there ? "yes" : "no");
}

static void
open_here(sim *s, sim_stream *st)
{
	st->here = true;
	st->tell_open = true;
	st->tell_closed = false;
	st->used_ms = qg_clock_elapsed_ms();
	pthread_cond_signal(&s->work);
	pthread_cond_broadcast(&s->changed);
}

/* Dialect A has one answer for "again" and "new"; B says that it is in use. */
static void
open_again(const sim_stream *st, const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	bool same = strcmp(st->source, q->source) == 0 && strcmp(st->destination, q->destination) == 0;
	bool fine = same && p == &qg_etsi004_bin_a;
	answer_with(a, fine ? QG_ETSI004_SUCCESS : QG_ETSI004_IN_USE, &st->ksid, &st->qos);
}

/* OPEN_CONNECT with a KSID waits for the peer (table 1). Who understands status
 * 1 gets it when none came; for the others the call has failed. */
static void
open_wait_for_peer(sim *s, const qg_etsi004_profile *p, const qg_uuid *ksid, qg_etsi004_response *a)
{
	sim_stream *st = sim_stream_find(s, ksid);
	uint64_t until_ms = qg_clock_elapsed_ms() + st->qos.timeout_ms;
	while (st != NULL && !st->there && !s->stopping && qg_clock_elapsed_ms() < until_ms) {
		wait_changed(s, until_ms);
		st = sim_stream_find(s, ksid);
	}
	if (st == NULL || !st->here) {
		a->status = QG_ETSI004_NO_CONNECTION; /* closed meanwhile */
	} else if (!st->there && p == &qg_etsi004_bin_a) {
		a->status = QG_ETSI004_PEER_NOT_CONNECTED;
	} else if (!st->there) {
		a->status = QG_ETSI004_TIMEOUT;
		sim_stream_close_here(s, st, false);
	}
}

static void
open_new(sim *s, const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	qg_etsi004_qos qos = q->qos;
	bool met = negotiate(s, &qos);
	qg_uuid ksid = q->ksid;
	bool predefined = !qg_uuid_is_null(&ksid);
	/* A counter-proposal opens nothing in dialect A and the stream in B. */
	if (!met && p == &qg_etsi004_bin_a) {
		answer_with(a, QG_ETSI004_QOS, &ksid, &qos);
		return;
	}
	if (!predefined)
		qg_uuid_random(&ksid);
	sim_stream *st = sim_stream_new(s, &ksid, &qos, q->source, q->destination);
	if (st == NULL) {
		answer_with(a, QG_ETSI004_NO_CONNECTION, &ksid, &qos);
		return;
	}
	open_here(s, st);
	answer_with(a, met ? QG_ETSI004_SUCCESS : QG_ETSI004_QOS, &ksid, &st->qos);
	log_open(st, a->status);
	if (predefined && met)
		open_wait_for_peer(s, p, &ksid, a);
}

void
sim_open(sim *s, const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	pthread_mutex_lock(&s->lock);
	sim_stream *st = qg_uuid_is_null(&q->ksid) ? NULL : sim_stream_find(s, &q->ksid);
	if (st == NULL || (!st->here && !st->there)) {
		open_new(s, p, q, a);
	} else if (st->here) {
		open_again(st, p, q, a);
	} else { /* the peer is there already: its QoS counts (clause 6.1) */
		open_here(s, st);
		answer_with(a, QG_ETSI004_SUCCESS, &st->ksid, &st->qos);
		log_open(st, a->status);
	}
	pthread_mutex_unlock(&s->lock);
}

/* --- GET_KEY ---------------------------------------------------------------------- */

/* Copies the chunk if it can be read now; else *at_ms says when, if known. */
static bool
read_chunk(sim_stream *st, uint32_t index, uint64_t now_ms, qg_secret *key, uint32_t *age_ms, uint64_t *at_ms)
{
	const sim_block *b = st->blocks[index / SIM_BLOCK % st->n_blocks];
	size_t at = index % SIM_BLOCK, size = st->qos.chunk_size;
	if (b->ready_ms[at] > now_ms) {
		*at_ms = b->ready_ms[at];
		return false;
	}
	memcpy(key->data, b->keys->data + at * size, size);
	key->len = size;
	if (b->flipped[at])
		key->data[0] ^= 1;
	*age_ms = (uint32_t)(now_ms - b->ready_ms[at]);
	if (st->mark <= index)
		st->mark = (uint64_t)index + 1;
	return true;
}

/* A status, or SIM_WOULD_WAIT with *until_ms the time to look again. */
static uint32_t
try_get(sim *s, const qg_etsi004_request *q, uint64_t received_ms, qg_secret *key, uint32_t *age_ms,
	bool *metadata, uint64_t *until_ms)
{
	sim_stream *st = sim_stream_find(s, &q->ksid);
	uint64_t now_ms = qg_clock_elapsed_ms();
	if (st == NULL || !st->here)
		return QG_ETSI004_NO_CONNECTION;
	st->used_ms = now_ms;
	uint64_t passed = q->index < st->next ? q->index : st->next;
	if (st->mark < passed)
		st->mark = passed;
	if (q->index < st->first)
		return QG_ETSI004_NO_CONNECTION; /* gone: read long ago, or too old */
	*metadata = st->mimetype[0] != '\0';
	*until_ms = received_ms + st->qos.timeout_ms;
	uint64_t ready_ms = *until_ms;
	if (!s->outage && q->index < st->next && read_chunk(st, q->index, now_ms, key, age_ms, &ready_ms))
		return QG_ETSI004_SUCCESS;
	if (q->index >= st->next && st->there_closed)
		return QG_ETSI004_NO_CONNECTION;
	if (q->index >= st->next && !st->there)
		return QG_ETSI004_NO_PEER;
	if (st->qos.timeout_ms == 0)
		return QG_ETSI004_NO_KEY;
	if (now_ms >= *until_ms)
		return QG_ETSI004_TIMEOUT;
	if (ready_ms < *until_ms)
		*until_ms = ready_ms;
	return SIM_WOULD_WAIT;
}

void
sim_get(sim *s, const qg_etsi004_request *q, uint64_t received_ms, bool may_wait, qg_secret *key,
	uint32_t *age_ms, bool *metadata, qg_etsi004_response *a)
{
	uint64_t until_ms = 0;
	*a = (qg_etsi004_response){.op = QG_ETSI004_GET_KEY, .index = q->index, .qos.mimetype = ""};
	pthread_mutex_lock(&s->lock);
	for (;;) {
		a->status = try_get(s, q, received_ms, key, age_ms, metadata, &until_ms);
		if (a->status != SIM_WOULD_WAIT || !may_wait)
			break;
		if (s->stopping) {
			a->status = QG_ETSI004_TIMEOUT;
			break;
		}
		wait_changed(s, until_ms);
	}
	pthread_mutex_unlock(&s->lock);
	if (a->status == QG_ETSI004_SUCCESS) {
		a->key = key->data;
		a->key_len = key->len;
	}
}

/* --- CLOSE ------------------------------------------------------------------------- */

void
sim_close(sim *s, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	char text[QG_UUID_TEXT];
	*a = (qg_etsi004_response){.op = QG_ETSI004_CLOSE, .status = QG_ETSI004_NO_CONNECTION,
				   .qos.mimetype = ""};
	pthread_mutex_lock(&s->lock);
	sim_stream *st = sim_stream_find(s, &q->ksid);
	if (st != NULL && st->here) {
		sim_stream_close_here(s, st, true);
		a->status = QG_ETSI004_SUCCESS;
		qg_uuid_format(&q->ksid, text);
		qg_log(QG_LOG_INFO, "sim", "event=close ksid=%s", text);
	}
	pthread_mutex_unlock(&s->lock);
}
