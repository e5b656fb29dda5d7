/* SPDX-License-Identifier: Apache-2.0 */
/* What key managers of other networks ask. Form and limits here; the core says
 * what becomes of it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "etsi020_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/embed.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"

#define SUSPENDED_RETRY_S 60

/* --- a request --------------------------------------------------------------------- */

static const qg_020_refusal refusal_of[] = {
	[QG_020_FORM] = QG_020_BAD_FORM,
	[QG_020_TARGETS_TOO_MANY] = QG_020_MANY_TARGETS,
	[QG_020_SELF] = QG_020_SELF_TARGET,
	[QG_020_NO_IDS] = QG_020_BARE_VOID,
};

/* A call with room for the IDs, or NULL; then it is answered. */
static qg_020_call *
call_new(qg_etsi020 *e, qg_http_request *http, qg_020_method method, size_t n_ids)
{
	qg_020_call *const call = calloc(1, sizeof *call + n_ids * sizeof call->ids[0]);
	if (call == NULL) {
		qg_http_answer(http, 503, NULL, NULL, 0);
		return NULL;
	}
	call->http = http;
	call->audit = e->audit;
	call->peer = qg_http_peer(http); /* 401 before any handler if there is none */
	call->method = method;
	return call;
}

static void
refuse(qg_etsi020 *e, qg_http_request *http, qg_020_method method, qg_020_refusal refusal, const char *text,
       unsigned retry_after_s)
{
	qg_020_call *const call = call_new(e, http, method, 0);
	if (call != NULL)
		qg_020_refuse_call(call, refusal, text, retry_after_s);
}

/* application/json, if with a charset, then UTF-8. */
static bool
type_is_json(const char *type)
{
	static const char json[] = "application/json";
	static const char charset[] = "charset=";
	if (type == NULL || strncasecmp(type, json, sizeof json - 1) != 0)
		return false;
	type += sizeof json - 1;
	type += strspn(type, " \t");
	if (*type == '\0')
		return true;
	if (*type != ';')
		return false;
	type += 1 + strspn(type + 1, " \t");
	if (strncasecmp(type, charset, sizeof charset - 1) != 0)
		return false;
	type += sizeof charset - 1;
	return strcasecmp(type, "utf-8") == 0 || strcasecmp(type, "\"utf-8\"") == 0;
}

/* Rate, Content-Type, JSON: the document, or NULL, then it is answered. */
static struct json_t *
admit(qg_etsi020 *e, qg_http_request *http, qg_020_method method)
{
	const qg_config_peer *const peer = qg_http_peer(http);
	uint32_t retry_after_s = 0;
	struct json_t *doc = NULL;
	qg_json_error why = {.what = "is empty", .member = ""};
	char text[128];
	size_t len = 0;
	if (qg_limits_take(e->requests[peer - e->cfg->peers], "", 1, qg_clock_elapsed_ms(), &retry_after_s) != QG_OK) {
		refuse(e, http, method, QG_020_RATE, "more requests than agreed", retry_after_s);
		return NULL;
	}
	if (!type_is_json(qg_http_header(http, "Content-Type"))) {
		refuse(e, http, method, QG_020_BAD_FORM, "Content-Type is not application/json in UTF-8", 0);
		return NULL;
	}
	const char *const body = qg_http_body(http, &len);
	const qg_err err = method == QG_020_ACK ? qg_json_parse_array(body, len, &doc, &why)
						: qg_json_parse_object(body, len, &doc, &why);
	if (err == QG_OK)
		return doc;
	(void)snprintf(text, sizeof text, "the body%s%s %s", why.member[0] != '\0' ? ": member " : "",
		       qg_log_safe(why.member), why.what);
	refuse(e, http, method, err == QG_E_PARSE ? QG_020_BAD_FORM : QG_020_BUSY,
	       err == QG_E_PARSE ? text : "out of memory", 0);
	return NULL;
}

/* The reader did not take the document. */
static void
refuse_read(qg_etsi020 *e, qg_http_request *http, qg_020_method method, qg_err err, const qg_020_problem *why)
{
	if (err == QG_E_PARSE)
		refuse(e, http, method, refusal_of[why->fault], why->text, 0);
	else
		refuse(e, http, method, QG_020_BUSY, "out of memory", 0);
}

static bool
is_agreed_callback(const qg_config_peer *peer, const char *url)
{
	return peer->callback_url != NULL && strcmp(peer->callback_url, url) == 0;
}

/* The call of a request that was read. */
static qg_020_call *
call_of(qg_etsi020 *e, qg_http_request *http, qg_020_method method, const char *initiator, const void *first, size_t n,
	size_t stride)
{
	qg_020_call *const call = call_new(e, http, method, n);
	if (call == NULL)
		return NULL;
	/* As long as the readers let it be. */
	memcpy(call->initiator, initiator, strlen(initiator) + 1);
	for (size_t i = 0; i < n; i++)
		memcpy(&call->ids[i], (const char *)first + i * stride, sizeof call->ids[i]);
	call->n_ids = n;
	return call;
}

/* --- views -------------------------------------------------------------------------- */

qg_interop_saes
qg_020_saes_view(const qg_020_saes *s)
{
	return (qg_interop_saes){.initiator = s->initiator, .targets = s->target, .n_targets = s->n_targets};
}

static const qg_interop_status statuses[QG_020_STATUSES] = {
	[QG_020_RELAYED] = QG_INTEROP_RELAYED,
	[QG_020_FAILED] = QG_INTEROP_FAILED,
	[QG_020_VOIDED] = QG_INTEROP_VOIDED,
	[QG_020_FAILED_TO_VOID] = QG_INTEROP_FAILED_TO_VOID,
	[QG_020_NOT_PRESENT] = QG_INTEROP_NOT_PRESENT,
};

qg_interop_ack *
qg_020_acks_view(const qg_020_acks *m)
{
	qg_interop_ack *const out = calloc(m->n, sizeof *out);
	for (size_t i = 0; out != NULL && i < m->n; i++)
		out[i] = (qg_interop_ack){
			.status = statuses[m->ack[i].status],
			.saes = qg_020_saes_view(&m->ack[i].saes),
			.ids = m->ack[i].ids,
			.n_ids = m->ack[i].n_ids,
		};
	return out;
}

static qg_interop_key *
keys_view(const qg_020_keys *m)
{
	qg_interop_key *const out = calloc(m->n_keys, sizeof *out);
	for (size_t i = 0; out != NULL && i < m->n_keys; i++)
		out[i] = (qg_interop_key){
			.id = m->key[i].id,
			.value = m->key[i].value,
			.size_bytes = m->key[i].size,
			.extension = m->key[i].extension,
		};
	return out;
}

static void
mask_view(const qg_020_mask *m, qg_interop_mask *out)
{
	memcpy(out->link, m->link, sizeof out->link);
	memcpy(out->pad, m->pad, sizeof out->pad);
	memcpy(out->mac, m->mac, sizeof out->mac);
	out->n_pads = m->n_pads;
	out->oldest_mac = m->oldest_mac;
	out->oldest_pad = m->oldest_pad;
}

/* --- ext_keys ----------------------------------------------------------------------------- */

/* The one extension that may be mandatory: the mask, where a stream is agreed. */
static qg_err
read_mask(const qg_config_peer *peer, const qg_020_keys *m, qg_interop_mask *out, bool *masked)
{
	char name[QG_020_MASK_NAME_MAX];
	qg_020_mask mask;
	const bool known = peer->link == QG_PEER_KXI && peer->stream != NULL;
	qg_020_mask_name(peer->extension_pen, name);
	*masked = false;
	if (qg_020_mandatory_unknown(m->mandatory, known ? name : NULL) != NULL)
		return QG_E_UNSUPPORTED;
	const qg_err err = qg_020_mask_read(m->mandatory, name, &mask);
	if (err == QG_E_NOTFOUND)
		return QG_OK;
	if (err != QG_OK)
		return err;
	mask_view(&mask, out);
	*masked = true;
	return QG_OK;
}

/* To the core. m is the caller's still; the call is answered. */
static void
pass_keys(qg_etsi020 *e, qg_020_call *call, const qg_020_keys *m)
{
	const qg_config_peer *const peer = call->peer;
	qg_interop_mask mask;
	bool masked = false;
	if (qg_directory_peer_suspended(e->directory, peer->id)) {
		qg_020_refuse_call(call, QG_020_BUSY, "keys of this network are not taken at the moment", SUSPENDED_RETRY_S);
		return;
	}
	const qg_err err = read_mask(peer, m, &mask, &masked);
	if (m->callback != NULL && !is_agreed_callback(peer, m->callback)) {
		qg_020_refuse_call(call, QG_020_FOREIGN_CALLBACK, "ack_callback_url is not the one agreed", 0);
		return;
	}
	if (err != QG_OK) {
		qg_020_refuse_call(call, err == QG_E_UNSUPPORTED ? QG_020_MANDATORY : QG_020_BAD_FORM,
				   err == QG_E_UNSUPPORTED ? "extension_mandatory has a property that is not known"
							   : "extension_mandatory has a malformed mask", 0);
		return;
	}
	qg_interop_key *const keys = keys_view(m);
	if (keys == NULL) {
		qg_020_refuse_call(call, QG_020_BUSY, "out of memory", 0);
		return;
	}
	const qg_interop_keys view = {
		.saes = qg_020_saes_view(&m->saes),
		.key = keys,
		.n_keys = m->n_keys,
		.optional = m->optional,
		.mask = masked ? &mask : NULL,
		.wait_ms = m->callback != NULL ? 0 : peer->ack_timeout_ms,
	};
	/* The answer may be there before the call returns, from another thread. */
	qg_http_defer(call->http);
	qg_interop_receive_keys(e->interop, peer->id, &view, qg_020_answer_call, call);
	free(keys);
}

static void
handle_keys(qg_etsi020 *e, qg_http_request *http, qg_020_method method)
{
	const qg_config_peer *const peer = qg_http_peer(http);
	struct json_t *doc = admit(e, http, method);
	qg_020_problem why;
	qg_020_keys m;
	if (doc == NULL)
		return;
	const qg_err err = method == QG_020_KEYS
				   ? qg_020_keys_read(doc, peer->max_keys, &m, &why)
				   : qg_020_draft_keys_read(doc, qg_http_path_part(http, 0),
							    qg_http_path_part(http, 1), peer->max_keys, &m, &why);
	if (err == QG_OK) {
		qg_020_call *const call = call_of(e, http, method, m.saes.initiator, m.key, m.n_keys, sizeof *m.key);
		if (call != NULL)
			pass_keys(e, call, &m);
		qg_020_keys_fini(&m);
	} else {
		refuse_read(e, http, method, err, &why);
	}
	qg_json_free(&doc);
}

void
qg_020_post_keys(qg_http_request *http, void *ctx)
{
	handle_keys(ctx, http, QG_020_KEYS);
}

void
qg_020_post_draft_keys(qg_http_request *http, void *ctx)
{
	handle_keys(ctx, http, QG_020_DRAFT);
}

/* --- ack ------------------------------------------------------------------------------------ */

/* The first container speaks for all in the audit. */
static void
pass_acks(qg_etsi020 *e, qg_http_request *http, const qg_020_acks *m)
{
	const qg_020_ack *const first = &m->ack[0];
	qg_020_call *const call = call_of(e, http, QG_020_ACK, first->saes.initiator, first->ids, first->n_ids,
					  sizeof first->ids[0]);
	qg_interop_ack *const acks = call == NULL ? NULL : qg_020_acks_view(m);
	if (call == NULL)
		return;
	if (acks == NULL) {
		qg_020_refuse_call(call, QG_020_BUSY, "out of memory", 0);
		return;
	}
	for (size_t i = 0; i < m->n; i++)
		if (m->ack[i].message != NULL)
			qg_log(QG_LOG_INFO, QG_020_MODULE, "event=ack_message peer=%s message=\"%s\"", call->peer->id,
			       qg_log_safe(m->ack[i].message));
	qg_http_defer(http);
	qg_interop_receive_acks(e->interop, call->peer->id, acks, m->n, qg_020_answer_call, call);
	free(acks);
}

void
qg_020_post_ack(qg_http_request *http, void *ctx)
{
	qg_etsi020 *const e = ctx;
	const qg_config_peer *const peer = qg_http_peer(http);
	struct json_t *doc = admit(e, http, QG_020_ACK);
	qg_020_problem why;
	qg_020_acks m;
	if (doc == NULL)
		return;
	const qg_err err = qg_020_acks_read(doc, peer->draft_acks, &m, &why);
	if (err == QG_OK) {
		pass_acks(e, http, &m);
		qg_020_acks_fini(&m);
	} else {
		refuse_read(e, http, QG_020_ACK, err, &why);
	}
	qg_json_free(&doc);
}

/* --- void ----------------------------------------------------------------------------------- */

/* Draft 0.4.1 has the confirmation in the query. */
static bool
confirmed_by_query(const qg_http_request *http, const qg_config_peer *peer)
{
	const char *name = NULL, *value = NULL;
	for (size_t i = 0; peer->draft_acks && i < qg_http_query_count(http); i++) {
		qg_http_query_at(http, i, &name, &value);
		if (strcmp(name, "all_confirmation") == 0)
			return strcmp(value, "true") == 0;
	}
	return false;
}

static void
pass_void(qg_etsi020 *e, qg_http_request *http, const qg_020_void *m)
{
	qg_020_call *const call = call_of(e, http, QG_020_VOID, m->saes.initiator, m->ids, m->n_ids, sizeof *m->ids);
	if (call == NULL)
		return;
	if (m->callback != NULL && !is_agreed_callback(call->peer, m->callback)) {
		qg_020_refuse_call(call, QG_020_FOREIGN_CALLBACK, "ack_callback_url is not the one agreed", 0);
		return;
	}
	const qg_interop_void view = {
		.saes = qg_020_saes_view(&m->saes),
		.ids = m->ids,
		.n_ids = m->n_ids,
		.all = m->n_ids == 0,
		.wait_ms = m->callback != NULL ? 0 : call->peer->ack_timeout_ms,
	};
	qg_http_defer(http);
	qg_interop_receive_void(e->interop, call->peer->id, &view, qg_020_answer_call, call);
}

void
qg_020_post_void(qg_http_request *http, void *ctx)
{
	qg_etsi020 *const e = ctx;
	const qg_config_peer *const peer = qg_http_peer(http);
	struct json_t *doc = admit(e, http, QG_020_VOID);
	qg_020_problem why;
	qg_020_void m;
	if (doc == NULL)
		return;
	const qg_err err = qg_020_void_read(doc, confirmed_by_query(http, peer), &m, &why);
	if (err == QG_OK) {
		pass_void(e, http, &m);
		qg_020_void_fini(&m);
	} else {
		refuse_read(e, http, QG_020_VOID, err, &why);
	}
	qg_json_free(&doc);
}

/* --- what is offered ----------------------------------------------------------------------------- */

void
qg_020_get_versions(qg_http_request *http, void *ctx)
{
	static const char body[] = "{\"versions\":[\"v1\"],\"capabilities\":[\"synchronous_mode\"]}";
	(void)ctx;
	qg_http_answer(http, 200, QG_020_JSON_TYPE, body, sizeof body - 1);
}

void
qg_020_get_openapi(qg_http_request *http, void *ctx)
{
	(void)ctx; /* every peer may read it */
	qg_http_answer(http, 200, "application/yaml", qg_embed_openapi_etsi020_yaml,
		       qg_embed_openapi_etsi020_yaml_len);
}
