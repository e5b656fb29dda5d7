/* SPDX-License-Identifier: Apache-2.0 */
/* The one place where what became of a request is an HTTP status and a problem
 * type of ETSI GS QKD 020. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etsi020_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define MEMBERS_MAX 2
#define BODY_ROOM 1024

/* --- problems --------------------------------------------------------------------- */

typedef enum problem {
	MISSING,      /* 400 of ext_keys */
	NO_TARGET,
	ROUTING,
	BAD_VOID,     /* 400 of void */
	NO_IDS,
	BAD_ACK,      /* 400 of ack */
	ABSENT,
	UNAUTHORIZED, /* 401 */
	TIMEOUT,      /* 408 */
	GENERAL,      /* 503 */
	NO_ROUTE,
	MANY_TARGETS,
	NO_KEY,
	UNSUPPORTED
} problem;

static const struct problem_row {
	int status;
	const char *type, *title;
	const char *member[MEMBERS_MAX]; /* of details */
} problems[] = {
	[MISSING] = {400, "missing-parameters", "Parameters are missing or malformed", {"missing_parameters"}},
	[NO_TARGET] = {400, "key-routing-error", "The keys cannot be routed", {"target_sae_id_not_recognized"}},
	[ROUTING] = {400, "key-routing-error", "The keys cannot be routed", {"invalid_routing"}},
	[BAD_VOID] = {400, "void-request-not-understood", "The void request is not understood",
		      {"key_voiding_error"}},
	[NO_IDS] = {400, "no-key-ids-or-confirmation", "Neither key IDs nor a confirmation for all",
		    {"no_key_ids_or_confirmation", "no_all_confirmation"}},
	[BAD_ACK] = {400, "ack-not-understood", "The acknowledgement is not understood", {"ack_not_understood"}},
	[ABSENT] = {400, "key-not-present", "A key is not present", {"key_not_present"}},
	[UNAUTHORIZED] = {401, "unauthorized", "Not authorised", {"unauthorized"}},
	[TIMEOUT] = {408, "timeout", "Not done in time", {"timeout"}},
	[GENERAL] = {503, "server-side-general-error", "The request cannot be served",
		     {"server_side_general_error"}},
	[NO_ROUTE] = {503, "key-routing-error", "The keys cannot be routed", {"no_known_route"}},
	[MANY_TARGETS] = {503, "key-routing-error", "The keys cannot be routed", {"no_route_multiple_targets"}},
	[NO_KEY] = {503, "insufficient-key-material", "Not enough key", {"insufficient_key_material"}},
	[UNSUPPORTED] = {503, "unsupported-mandatory-extension", "A mandatory extension is not known",
			 {"unsupported_mandatory_extension"}},
};

/* What came of a request, for ext_keys in both forms, ack and void. */
typedef enum group { OF_KEYS, OF_ACK, OF_VOID, GROUPS } group;

static const group groups[QG_020_METHODS] = {
	[QG_020_KEYS] = OF_KEYS, [QG_020_DRAFT] = OF_KEYS, [QG_020_ACK] = OF_ACK, [QG_020_VOID] = OF_VOID};

static const problem refusals[QG_020_REFUSALS][GROUPS] = {
	[QG_020_BAD_FORM] = {MISSING, BAD_ACK, BAD_VOID},
	[QG_020_MANY_TARGETS] = {MANY_TARGETS, BAD_ACK, BAD_VOID},
	[QG_020_SELF_TARGET] = {ROUTING, BAD_ACK, BAD_VOID},
	[QG_020_BARE_VOID] = {MISSING, BAD_ACK, NO_IDS},
	[QG_020_FOREIGN_CALLBACK] = {UNAUTHORIZED, UNAUTHORIZED, UNAUTHORIZED},
	[QG_020_MANDATORY] = {UNSUPPORTED, UNSUPPORTED, UNSUPPORTED},
	[QG_020_RATE] = {GENERAL, GENERAL, GENERAL},
	[QG_020_BUSY] = {GENERAL, GENERAL, GENERAL},
};

static const problem results[][GROUPS] = {
	[QG_INTEROP_TIMEOUT] = {TIMEOUT, GENERAL, TIMEOUT},
	[QG_INTEROP_NO_TARGET] = {NO_TARGET, BAD_ACK, BAD_VOID},
	[QG_INTEROP_ROUTING] = {ROUTING, BAD_ACK, BAD_VOID},
	[QG_INTEROP_MALFORMED] = {MISSING, BAD_ACK, BAD_VOID},
	[QG_INTEROP_ABSENT] = {GENERAL, ABSENT, BAD_VOID},
	[QG_INTEROP_DENIED] = {UNAUTHORIZED, UNAUTHORIZED, UNAUTHORIZED},
	[QG_INTEROP_NO_ROUTE] = {NO_ROUTE, GENERAL, GENERAL},
	[QG_INTEROP_NO_KEY] = {NO_KEY, GENERAL, GENERAL},
	[QG_INTEROP_CONFLICT] = {GENERAL, GENERAL, GENERAL},
	[QG_INTEROP_FULL] = {GENERAL, GENERAL, GENERAL},
	[QG_INTEROP_UNAVAILABLE] = {GENERAL, GENERAL, GENERAL},
};

static size_t
problem_body(const struct problem_row *p, const char *text, char *buf, size_t room)
{
	char type[128];
	(void)snprintf(type, sizeof type, QG_020_PROBLEM_PREFIX "%s", p->type); /* of the table: all fit */
	return qg_020_problem_write(type, p->title, p->status, p->member, p->member[1] != NULL ? 2 : 1, text, buf,
				    room);
}

/* --- log and audit ------------------------------------------------------------------- */

static const char *const method_names[QG_020_METHODS] = {
	[QG_020_KEYS] = "ext_keys", [QG_020_DRAFT] = "ext_keys_draft", [QG_020_ACK] = "ack", [QG_020_VOID] = "void"};

#define CALLER_ROOM (sizeof QG_PEER_PREFIX + QG_KMS_NAME_MAX)

static void
name_caller(const qg_config_peer *peer, char out[CALLER_ROOM])
{
	out[0] = '\0';
	if (peer != NULL)
		(void)snprintf(out, CALLER_ROOM, QG_PEER_PREFIX "%s", peer->id);
}

static void
audit_refused(qg_audit *audit, const qg_config_peer *peer, const char *initiator, const char *reason,
	      const qg_uuid *ids, size_t n_ids)
{
	char caller[CALLER_ROOM];
	/* The queue of a log that cannot be written is kept for keys. */
	if (!qg_audit_healthy(audit))
		return;
	name_caller(peer, caller);
	const qg_audit_event event = {
		.act = QG_AUDIT_REFUSED,
		.caller = caller,
		.peer = initiator,
		.reason = reason,
		.ids = ids,
		.n_ids = n_ids,
	};
	qg_audit_write(audit, &event);
}

/* --- answers ------------------------------------------------------------------------------ */

static void
answer_problem(qg_020_call *call, problem which, const char *text, bool audited)
{
	char body[BODY_ROOM];
	const struct problem_row *const p = &problems[which];
	const size_t len = problem_body(p, text, body, sizeof body);
	qg_log(QG_LOG_INFO, QG_020_MODULE, "event=refused peer=%s method=%s status=%d type=%s reason=\"%s\"",
	       call->peer->id, method_names[call->method], p->status, p->type, text);
	if (audited)
		audit_refused(call->audit, call->peer, call->initiator, text, call->ids, call->n_ids);
	qg_http_answer(call->http, p->status, len > 0 ? QG_020_JSON_TYPE : NULL, body, len);
	free(call);
}

void
qg_020_refuse_call(qg_020_call *call, qg_020_refusal refusal, const char *text, unsigned retry_after_s)
{
	char seconds[16];
	if (retry_after_s > 0) {
		(void)snprintf(seconds, sizeof seconds, "%u", retry_after_s);
		qg_http_set_header(call->http, "Retry-After", seconds);
	}
	if (refusal == QG_020_RATE) {
		char caller[CALLER_ROOM];
		name_caller(call->peer, caller);
		qg_audit_limited(call->audit, caller);
	}
	answer_problem(call, refusals[refusal][groups[call->method]], text, refusal != QG_020_RATE);
}

static bool
all_relayed(const qg_interop_reply *r)
{
	for (size_t i = 0; i < r->n_acks; i++)
		if (r->ack[i].status != QG_INTEROP_RELAYED)
			return false;
	return r->n_acks > 0;
}

/* Outcomes in the answer: the drafts' one says only that all went well. */
static void
answer_acks(qg_020_call *call, const qg_interop_reply *r)
{
	qg_secret *body = NULL;
	if (call->method == QG_020_DRAFT) {
		char message[128];
		const size_t len = qg_020_message_write("the keys were relayed", message, sizeof message);
		if (!all_relayed(r)) {
			answer_problem(call, GENERAL, "not all keys could be relayed", true);
			return;
		}
		qg_http_answer(call->http, 200, QG_020_JSON_TYPE, message, len);
	} else if (qg_020_acks_body(r->ack, r->n_acks, &body) != QG_OK) {
		answer_problem(call, GENERAL, "out of memory", true);
		return;
	} else {
		qg_http_answer_secret(call->http, 200, QG_020_JSON_TYPE, body);
	}
	free(call);
}

void
qg_020_answer_call(void *ctx, const qg_interop_reply *reply)
{
	qg_020_call *const call = ctx;
	switch (reply->result) {
	case QG_INTEROP_ACCEPTED:
		qg_http_answer(call->http, call->method == QG_020_ACK ? 200 : 202, NULL, NULL, 0);
		free(call);
		break;
	case QG_INTEROP_DONE:
		answer_acks(call, reply);
		break;
	default:
		answer_problem(call, results[reply->result][groups[call->method]], reply->why, true);
		break;
	}
}

/* --- what the HTTP server refuses --------------------------------------------------------- */

/* The problem that says 400 on that path; others are about:blank (RFC 9457, 4.2.1). */
static const struct problem_row *
bad_request_on(const char *path)
{
	if (strcmp(path, QG_020_PATH "/ack") == 0)
		return &problems[BAD_ACK];
	if (strcmp(path, QG_020_PATH "/void") == 0)
		return &problems[BAD_VOID];
	return strncmp(path, QG_020_PATH, sizeof QG_020_PATH - 1) == 0 ? &problems[MISSING] : NULL;
}

static const struct problem_row *
problem_of(const qg_http_refused *r)
{
	switch (r->status) {
	case 400:
	case 413:
		return bad_request_on(r->path);
	case 401:
		return &problems[UNAUTHORIZED];
	case 503:
		return &problems[GENERAL];
	default:
		return NULL;
	}
}

size_t
qg_020_http_refuse(const qg_http_refused *r, char *buf, size_t room, void *ctx)
{
	const qg_etsi020 *const e = ctx;
	uint32_t retry_after_s;
	const bool stranger = r->peer == NULL;
	const char *const reason = stranger ? "certificate names no peer" : r->text;
	const struct problem_row *const p = problem_of(r);
	/* Everything here costs the caller nothing, so the log is protected. */
	if (qg_limits_take(e->strangers, "", 1, qg_clock_elapsed_ms(), &retry_after_s) == QG_OK) {
		qg_log(QG_LOG_INFO, QG_020_MODULE, "event=refused status=%d method=%s path=%s reason=\"%s\"",
		       r->status, qg_log_safe(r->method), qg_log_safe(r->path), reason);
		audit_refused(e->audit, r->peer, "", reason, NULL, 0);
	}
	if (p != NULL)
		return problem_body(p, reason, buf, room);
	return qg_020_problem_write("about:blank", r->text, r->status, NULL, 0, "", buf, room);
}
