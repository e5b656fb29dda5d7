/* SPDX-License-Identifier: Apache-2.0 */
/* A module that pushes over the session's connection: one GET_KEY, and from
 * then on chunks come unasked. They are read only as the stream wants them; what
 * it does not want yet stays in the connection, whose flow control tells the
 * module to wait. That is all the profile has to tell it. */
#include "south_internal.h"

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define NAP_MS 1000
#define SLICE_MS 200 /* a stop is noticed so soon */

typedef struct pushed_run {
	qg_uuid ksid;
	uint32_t next, end; /* the index in turn, and the first beyond the order */
} pushed_run;

/* One GET_KEY on this connection, unless what it gives is what is wanted. */
static qg_err
begin(qg_source *s, const pushed_run *r)
{
	if (s->conn != NULL && s->pushing && r->next >= s->pushed)
		return QG_OK;
	if (s->pushing)
		qg_session_drop(s);
	const qg_etsi004_request q = qg_order_get_request(s, &r->ksid, r->next);
	qg_err err = qg_session_connect(s);
	if (err == QG_OK)
		err = qg_session_send(s, &q, 1);
	if (err == QG_OK) {
		s->pushing = true;
		s->pushed = 0;
	}
	return err;
}

/* The next message, with an eye on a stop. */
static qg_err
receive(qg_source *s, qg_etsi004_response *a)
{
	uint64_t end_ms = qg_clock_elapsed_ms() + qg_session_patience_ms(s);
	for (;;) {
		qg_err err = qg_session_answer_within(s, QG_ETSI004_GET_KEY, SLICE_MS, a);
		if (err != QG_E_TIMEOUT)
			return err;
		if (qg_session_stopping(s))
			return QG_E_CLOSED;
		if (qg_clock_elapsed_ms() >= end_ms)
			return err;
	}
}

/* Chunks that the stream went on behind. */
static void
say_skipped(qg_source *s)
{
	unsigned held = 0;
	if (s->skipped == 0 || !qg_reasons_due(&s->reasons, "skipped", QG_OK, 0, qg_clock_elapsed_ms(), &held))
		return;
	qg_log(QG_LOG_INFO, "source", "event=push_skipped stream=%s chunks=%llu", qg_log_safe(s->cfg->name),
	       (unsigned long long)s->skipped);
	s->skipped = 0;
}

/* The module is not kept waiting any longer. */
static void
say_resumed(qg_source *s)
{
	if (s->held)
		qg_log(QG_LOG_INFO, "source", "event=push_resumed stream=%s held_ms=%llu",
		       qg_log_safe(s->cfg->name), (unsigned long long)(qg_clock_elapsed_ms() - s->held_ms));
	s->held = false;
}

/* Gives the order up: the connection is of no more use. */
static void
broken(qg_source *s, uint32_t index, qg_err err)
{
	qg_session_drop(s);
	if (err == QG_E_CLOSED && qg_session_stopping(s))
		return;
	err = qg_order_failed(s, "get_failed", err, 0);
	qg_intake_get_failed(s->in, index, err, 0);
}

/* Whether more is to be read. A status instead of key. */
static bool
by_status(qg_source *s, const pushed_run *r, uint32_t status)
{
	if (status == QG_ETSI004_NO_KEY || status == QG_ETSI004_NO_PEER || status == QG_ETSI004_TIMEOUT) {
		/* Nobody says whether it pushes on. */
		qg_session_drop(s);
		qg_order_wait_for_key(s, r->next, status);
		return false;
	}
	qg_session_drop(s);
	qg_intake_get_failed(s->in, r->next, qg_order_failed(s, "get_failed", QG_OK, status), status);
	return false;
}

/* Whether more is to be read of this order. */
static bool
take(qg_source *s, pushed_run *r, const qg_etsi004_response *a)
{
	if (a->key_len != s->chunk_size) {
		s->fault = "key_size";
		broken(s, r->next, QG_E_PROTO);
		return false;
	}
	bool again = a->index < s->pushed; /* the stream judges an index that falls back */
	s->pushed = (uint64_t)a->index + 1;
	if (a->index < r->next && !again) {
		s->skipped++;
		return true;
	}
	qg_order_worked(s);
	qg_rate_spend(&s->rate, s->chunk_size);
	qg_err err = qg_intake_chunk(s->in, &r->ksid, a->index, a->key, a->key_len);
	/* What it does not take is asked for again, over another connection. */
	if (err == QG_E_FULL || again)
		qg_session_drop(s);
	if (err != QG_OK || a->index != r->next)
		return false;
	return ++r->next != r->end;
}

void
qg_push_get(qg_source *s, const qg_intake_order *o)
{
	uint32_t most = UINT32_MAX - o->index;
	pushed_run r = {.ksid = o->ksid, .next = o->index,
			.end = o->index + (o->count < most ? o->count : most)};
	qg_etsi004_response a;
	bool more = r.next != r.end;
	while (more && qg_order_may(s, NAP_MS)) {
		s->fault = NULL;
		if (qg_order_allowed(s, 1) == 0)
			break;
		qg_err err = begin(s, &r);
		if (err == QG_OK)
			err = receive(s, &a);
		if (err == QG_E_TIMEOUT && s->pushing) {
			more = by_status(s, &r, QG_ETSI004_TIMEOUT);
			continue;
		}
		if (err != QG_OK) {
			broken(s, r.next, err);
			break;
		}
		say_resumed(s);
		more = a.status == QG_ETSI004_SUCCESS ? take(s, &r, &a) : by_status(s, &r, a.status);
	}
	say_skipped(s);
}

void
qg_push_open(qg_source *s, const qg_intake_order *o)
{
	if (s->pushing)
		qg_session_drop(s);
	qg_order_open(s, o);
}

/* CLOSE goes over a connection in which no key is under way. */
void
qg_push_close(qg_source *s, const qg_intake_order *o)
{
	qg_session_drop(s);
	s->held = false;
	qg_order_close(s, o);
}

/* The stream wants nothing; the module may have something. */
void
qg_push_wait(qg_source *s, const qg_intake_order *o)
{
	(void)o;
	if (s->held || !s->pushing || !qg_session_waiting(s))
		return;
	s->held = true;
	s->held_ms = qg_clock_elapsed_ms();
	qg_log(QG_LOG_INFO, "source", "event=push_held stream=%s", qg_log_safe(s->cfg->name));
}
