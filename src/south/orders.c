/* SPDX-License-Identifier: Apache-2.0 */
/* OPEN_CONNECT and CLOSE, and what all orders share. */
#include "south_internal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

qg_err
qg_order_err_of_status(uint32_t status)
{
	static const qg_err errs[] = {
		[QG_ETSI004_SUCCESS] = QG_OK,
		[QG_ETSI004_PEER_NOT_CONNECTED] = QG_OK,
		[QG_ETSI004_NO_KEY] = QG_E_EMPTY,
		[QG_ETSI004_NO_PEER] = QG_E_AGAIN,
		[QG_ETSI004_NO_CONNECTION] = QG_E_NOTFOUND,
		[QG_ETSI004_IN_USE] = QG_E_EXISTS,
		[QG_ETSI004_TIMEOUT] = QG_E_TIMEOUT,
		[QG_ETSI004_QOS] = QG_E_RANGE,
		[QG_ETSI004_METADATA_SIZE] = QG_E_FULL,
	};
	return status < sizeof errs / sizeof errs[0] ? errs[status] : QG_E_UNSUPPORTED;
}

bool
qg_order_may(qg_source *s, unsigned most_ms)
{
	uint64_t now = qg_clock_elapsed_ms();
	if (now < s->not_before_ms) {
		uint64_t left = s->not_before_ms - now;
		qg_session_nap(s, left < most_ms ? (unsigned)left : most_ms);
	}
	return !qg_session_stopping(s) && qg_clock_elapsed_ms() >= s->not_before_ms;
}

qg_err
qg_order_failed(qg_source *s, const char *what, qg_err err, uint32_t status)
{
	uint64_t now = qg_clock_elapsed_ms();
	unsigned held = 0;
	const char *fault = err == QG_E_PROTO && s->fault != NULL ? s->fault : "-";
	if (err == QG_OK)
		err = qg_order_err_of_status(status);
	/* A fault is a literal too, so each kind is a reason of its own. */
	if (qg_reasons_due(&s->reasons, fault[0] != '-' ? fault : what, err, status, now, &held))
		qg_log(QG_LOG_WARN, "source", "event=%s stream=%s status=%u error=\"%s\" fault=%s repeated=%u",
		       what, qg_log_safe(s->cfg->name), status, qg_err_text(err), fault, held);
	s->failing = true;
	s->not_before_ms = now + qg_backoff_take(&s->reconnect);
	return err;
}

void
qg_order_worked(qg_source *s)
{
	if (s->failing)
		qg_log(QG_LOG_INFO, "source", "event=recovered stream=%s", qg_log_safe(s->cfg->name));
	s->failing = false;
	s->not_before_ms = 0;
	qg_backoff_reset(&s->reconnect);
	qg_backoff_reset(&s->retry);
}

/* --- OPEN_CONNECT ----------------------------------------------------------- */

static void
qos_of_config(const qg_source *s, qg_etsi004_qos *q)
{
	const qg_config_source *c = &s->cfg->source;
	*q = (qg_etsi004_qos){
		.chunk_size = s->cfg->chunk_size,
		.max_bps = c->max_bps,
		.min_bps = c->min_bps,
		.jitter_bps = c->jitter_bps,
		.priority = c->priority,
		.timeout_ms = c->timeout_ms,
		.ttl_s = c->ttl_s,
		.mimetype = c->mimetype != NULL ? c->mimetype : "",
	};
}

/* A success has the KSID that was asked for, or any but the null one. */
static bool
ksid_fits(const qg_uuid *asked, const qg_uuid *got)
{
	return qg_uuid_is_null(asked) ? !qg_uuid_is_null(got) : qg_uuid_equal(asked, got);
}

/* One OPEN_CONNECT. Connections of one request end here. */
static qg_err
open_call(qg_source *s, const qg_uuid *ksid, const qg_etsi004_qos *qos, qg_etsi004_response *a)
{
	const qg_config_source *c = &s->cfg->source;
	const qg_etsi004_request q = {.op = QG_ETSI004_OPEN_CONNECT, .ksid = *ksid, .source = c->source_uri,
				      .destination = c->destination_uri, .qos = *qos};
	qg_err err = qg_session_call(s, &q, a);
	/* Where the profile's success may say nothing it is what was asked for. */
	if (err == QG_OK && a->status <= QG_ETSI004_PEER_NOT_CONNECTED && !a->has_qos) {
		a->ksid = *ksid;
		a->qos = *qos;
	}
	if (err == QG_OK && a->status <= QG_ETSI004_PEER_NOT_CONNECTED &&
	    (!ksid_fits(ksid, &a->ksid) || a->qos.chunk_size > QG_ETSI004_KEY_MAX)) {
		s->fault = a->qos.chunk_size > QG_ETSI004_KEY_MAX ? "chunk_size" : "ksid";
		err = QG_E_PROTO;
	}
	return err;
}

/* The counter-proposal of status 7 is taken when chunks stay as they are, the
 * rate is enough, keys live at least as long as one call may last, and the
 * metadata is of a kind that we know or not there. */
static bool
acceptable(const qg_source *s, const qg_etsi004_response *a)
{
	const qg_config_source *c = &s->cfg->source;
	const qg_etsi004_qos *q = &a->qos;
	return a->has_qos && q->chunk_size == s->cfg->chunk_size &&
	       (q->max_bps == 0 || q->max_bps >= c->min_bps) &&
	       (q->ttl_s == 0 || (uint64_t)q->ttl_s * 1000 >= c->timeout_ms) &&
	       (q->mimetype[0] == '\0' || strcmp(q->mimetype, "application/json") == 0);
}

/* A server may hold the stream of a proposal open (dialect B does); one that
 * we do not take is closed, whatever comes of that. */
static void
refuse_proposal(qg_source *s, const qg_uuid *ksid)
{
	const qg_etsi004_request q = {.op = QG_ETSI004_CLOSE, .ksid = *ksid};
	qg_etsi004_response a;
	if (!s->profile->persistent || qg_uuid_is_null(ksid))
		return;
	if (qg_session_call(s, &q, &a) != QG_OK)
		qg_session_drop(s);
}

/* Opens, with one more try for an acceptable proposal. *a has the last answer,
 * its strings in mimetype. */
static qg_err
negotiate(qg_source *s, qg_uuid *ksid, qg_etsi004_response *a)
{
	char mimetype[QG_ETSI004_MIMETYPE_MAX + 1];
	qg_etsi004_qos qos;
	qos_of_config(s, &qos);
	qg_err err = open_call(s, ksid, &qos, a);
	if (err != QG_OK || a->status != QG_ETSI004_QOS)
		return err;
	const qg_uuid proposed = a->ksid;
	if (!acceptable(s, a) || !(qg_uuid_is_null(ksid) || ksid_fits(ksid, &proposed))) {
		refuse_proposal(s, &proposed);
		a->status = QG_ETSI004_QOS;
		return QG_OK;
	}
	qos = a->qos;
	int n = snprintf(mimetype, sizeof mimetype, "%s", a->qos.mimetype);
	if (n < 0 || (size_t)n >= sizeof mimetype)
		return QG_E_RANGE;
	qos.mimetype = mimetype;
	qg_log(QG_LOG_INFO, "source", "event=counter_proposal stream=%s max_bps=%u min_bps=%u ttl_s=%u",
	       qg_log_safe(s->cfg->name), qos.max_bps, qos.min_bps, qos.ttl_s);
	if (qg_uuid_is_null(ksid))
		*ksid = proposed;
	if (!s->profile->persistent)
		qg_session_drop(s);
	err = open_call(s, ksid, &qos, a);
	if (err == QG_OK && !a->has_qos)
		a->qos = qos; /* in use means: as proposed */
	if (qos.max_bps != 0 && (s->rate.max_bps == 0 || qos.max_bps < s->rate.max_bps))
		s->rate.max_bps = qos.max_bps;
	a->qos.mimetype = "";
	return err;
}

static void
opened(qg_source *s, const qg_uuid *ksid, uint32_t chunk_size)
{
	char text[QG_UUID_TEXT];
	s->chunk_size = chunk_size > 0 && chunk_size <= QG_ETSI004_KEY_MAX ? chunk_size : s->cfg->chunk_size;
	qg_err err = qg_session_fit(s);
	if (err != QG_OK) {
		qg_intake_open_failed(s->in, qg_order_failed(s, "open_failed", err, 0), 0);
		return;
	}
	if (s->inbox != NULL)
		qg_inbox_opened(s, ksid);
	s->not_before_ms = 0; /* the backoff itself starts anew with the first chunk */
	qg_uuid_format(ksid, text);
	qg_log(QG_LOG_INFO, "source", "event=open stream=%s ksid=%s chunk_size=%u",
	       qg_log_safe(s->cfg->name), text, s->chunk_size);
	qg_intake_opened(s->in, ksid, s->chunk_size);
}

void
qg_order_open(qg_source *s, const qg_intake_order *o)
{
	qg_etsi004_response a = {.status = 0};
	qg_uuid ksid = o->ksid;
	/* An OPEN_CONNECT is ordered once and waits for its report. */
	if (!qg_order_may(s, UINT_MAX)) {
		qg_intake_open_failed(s->in, QG_E_CLOSED, 0);
		return;
	}
	qg_order_forget(s);
	s->rate.max_bps = s->cfg->source.max_bps;
	qg_err err = negotiate(s, &ksid, &a);
	if (err != QG_OK || !s->profile->persistent)
		qg_session_drop(s); /* the answer's numbers are in a */
	if (err != QG_OK)
		qg_intake_open_failed(s->in, qg_order_failed(s, "open_failed", err, 0), 0);
	else if (a.status <= QG_ETSI004_PEER_NOT_CONNECTED)
		opened(s, &a.ksid, a.qos.chunk_size);
	else if (a.status == QG_ETSI004_IN_USE && !qg_uuid_is_null(&ksid))
		opened(s, &ksid, a.has_qos ? a.qos.chunk_size : s->chunk_size); /* ours, from before */
	else
		qg_intake_open_failed(s->in, qg_order_failed(s, "open_failed", QG_OK, a.status), a.status);
}

/* --- CLOSE ------------------------------------------------------------------ */

void
qg_order_close(qg_source *s, const qg_intake_order *o)
{
	char text[QG_UUID_TEXT];
	const qg_etsi004_request q = {.op = QG_ETSI004_CLOSE, .ksid = o->ksid};
	qg_etsi004_response a = {.status = 0};
	qg_order_forget(s);
	/* No backoff here: the gateway may be about to end, and it is said once. */
	qg_err err = qg_session_call(s, &q, &a);
	if (err != QG_OK || !s->profile->persistent)
		qg_session_drop(s);
	if (err == QG_OK)
		err = qg_order_err_of_status(a.status);
	qg_uuid_format(&o->ksid, text);
	qg_log(QG_LOG_INFO, "source", "event=close stream=%s ksid=%s result=\"%s\"",
	       qg_log_safe(s->cfg->name), text, qg_err_text(err));
	qg_intake_closed(s->in, &o->ksid, err);
}
