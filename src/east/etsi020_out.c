/* SPDX-License-Identifier: Apache-2.0 */
/* The calls to key managers of other networks, in the dialect and mode that each
 * is configured with. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etsi020_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"
#include "qkdgate/request_id.h"

typedef enum kind { SEND_KEYS, SEND_DRAFT, SEND_ACKS, SEND_VOID } kind;

static const char *const kind_names[] = {
	[SEND_KEYS] = "ext_keys", [SEND_DRAFT] = "ext_keys_draft", [SEND_ACKS] = "ack", [SEND_VOID] = "void"};

/* A call under way: one block of malloc. */
typedef struct outgoing {
	qg_etsi020 *e;
	qg_interop_done *done;
	void *ctx;
	const qg_config_peer *peer;
	kind kind;
	bool waits; /* the outcome is wanted in the answer */
	char url[QG_020_URL_MAX + QG_020_DRAFT_PATH_MAX];
	/* Of a draft's keys: what its answer is about. */
	char initiator[QG_020_SAE_MAX + 1], target[QG_020_SAE_MAX + 1];
	size_t n_ids;
	qg_uuid ids[];
} outgoing;

static const qg_config_peer *
peer_of(const qg_etsi020 *e, const char *id)
{
	for (size_t i = 0; i < e->cfg->n_peers; i++)
		if (strcmp(e->cfg->peers[i].id, id) == 0)
			return &e->cfg->peers[i];
	return NULL;
}

/* --- the answer ----------------------------------------------------------------- */

/* Any answer shows that it is there. */
static void
note(const outgoing *o, const qg_interop_sent *sent)
{
	qg_020_seen *seen = &o->e->seen[o->peer - o->e->cfg->peers];
	atomic_store(&seen->unanswered, sent->outcome == QG_INTEROP_OUT_UNKNOWN);
	atomic_store(&seen->at_ms, qg_clock_elapsed_ms() + 1);
}

bool
qg_etsi020_reached(const qg_etsi020 *e, const char *id, bool *answered, uint64_t *ago_ms)
{
	const qg_config_peer *peer = e != NULL ? peer_of(e, id) : NULL;
	const uint64_t at_ms = peer != NULL ? atomic_load(&e->seen[peer - e->cfg->peers].at_ms) : 0;
	if (at_ms == 0)
		return false;
	*answered = !atomic_load(&e->seen[peer - e->cfg->peers].unanswered);
	*ago_ms = qg_clock_elapsed_ms() + 1 - at_ms;
	return true;
}

static void
tell(outgoing *o, const qg_interop_sent *sent)
{
	qg_log(QG_LOG_DEBUG, QG_020_MODULE, "event=answer peer=%s method=%s outcome=%d acks=%zu reason=\"%s\"",
	       o->peer->id, kind_names[o->kind], (int)sent->outcome, sent->n_acks, sent->why);
	note(o, sent);
	o->done(o->ctx, sent);
	free(o);
}

/* The draft's 200: every key is at its target. */
static void
tell_relayed(outgoing *o)
{
	const char *const targets[] = {o->target};
	const qg_interop_ack ack = {
		.status = QG_INTEROP_RELAYED,
		.saes = {.initiator = o->initiator, .targets = targets, .n_targets = 1},
		.ids = o->ids,
		.n_ids = o->n_ids,
	};
	tell(o, &(qg_interop_sent){.outcome = QG_INTEROP_OUT_ACKS, .why = "", .ack = &ack, .n_acks = 1});
}

/* A 200 with outcomes. One that cannot be read tells nothing. */
static void
tell_acks(outgoing *o, const char *body, size_t len)
{
	struct json_t *doc = NULL;
	qg_json_error error;
	qg_020_problem why;
	qg_020_acks m = {.n = 0};
	qg_interop_sent sent = {.outcome = QG_INTEROP_OUT_UNKNOWN, .why = "the outcomes in its answer are malformed"};
	qg_interop_ack *acks = NULL;
	if (qg_json_parse_array(body, len, &doc, &error) == QG_OK &&
	    qg_020_acks_read(doc, o->peer->draft_acks, &m, &why) == QG_OK)
		acks = qg_020_acks_view(&m);
	if (acks != NULL)
		sent = (qg_interop_sent){.outcome = QG_INTEROP_OUT_ACKS, .why = "", .ack = acks, .n_acks = m.n};
	tell(o, &sent);
	free(acks);
	qg_020_acks_fini(&m);
	qg_json_free(&doc);
}

static void
tell_problem(outgoing *o, int status, const char *body, size_t len)
{
	char text[256];
	qg_json_error error;
	struct json_t *doc = NULL;
	qg_020_problem_seen seen = {.type = ""};
	if (qg_json_parse_object(body, len, &doc, &error) == QG_OK)
		qg_020_problem_read(doc, &seen);
	qg_json_free(&doc);
	(void)snprintf(text, sizeof text, "%d %s: %s", status, seen.type, seen.detail); /* cut to the room */
	tell(o, &(qg_interop_sent){
			.outcome = status == 400 || status == 401 ? QG_INTEROP_OUT_REFUSED : QG_INTEROP_OUT_UNKNOWN,
			.why = text,
			.absent = o->kind == SEND_ACKS && strcmp(seen.type, "key-not-present") == 0,
			.no_key = o->kind == SEND_KEYS && strcmp(seen.type, "insufficient-key-material") == 0,
		});
}

/* Only what the standard has for the request counts as an answer to it. */
static void
on_answer(void *ctx, qg_err err, int status, const char *body, size_t len)
{
	outgoing *const o = ctx;
	if (err != QG_OK)
		tell(o, &(qg_interop_sent){.outcome = QG_INTEROP_OUT_UNKNOWN, .why = qg_err_text(err)});
	else if (status == 200 && o->kind == SEND_DRAFT)
		tell_relayed(o);
	else if (status == 200 && o->kind != SEND_ACKS && o->waits)
		tell_acks(o, body, len);
	else if (status == (o->kind == SEND_ACKS ? 200 : 202) && !o->waits)
		tell(o, &(qg_interop_sent){.outcome = QG_INTEROP_OUT_ACCEPTED, .why = ""});
	else
		tell_problem(o, status, body, len);
}

/* --- the request ---------------------------------------------------------------- */

static outgoing *
outgoing_new(const qg_config_peer *peer, kind k, bool waits, size_t n_ids, qg_interop_done *done, void *ctx)
{
	outgoing *const o = calloc(1, sizeof *o + n_ids * sizeof o->ids[0]);
	if (o != NULL)
		*o = (outgoing){.done = done, .ctx = ctx, .peer = peer, .kind = k, .waits = waits, .n_ids = n_ids};
	return o;
}

/* Takes the body. On an error o is freed and never told. */
static qg_err
send_now(qg_etsi020 *e, outgoing *o, unsigned wait_ms, qg_secret **body)
{
	const unsigned patience_ms = o->waits ? o->peer->ack_timeout_ms : o->peer->timeout_ms;
	qg_log(QG_LOG_DEBUG, QG_020_MODULE, "event=send peer=%s method=%s len=%zu", o->peer->id, kind_names[o->kind],
	       (*body)->len);
	const qg_err err = qg_http_client_send(e->client, &(qg_http_call){
		.method = "POST",
		.url = o->url,
		.type = QG_020_JSON_TYPE,
		.body = (*body)->data,
		.len = (*body)->len,
		.timeout_ms = wait_ms > 0 && wait_ms < patience_ms ? wait_ms : patience_ms,
		.answer_limit = e->cfg->kxi_body_bytes,
		.server = &o->peer->server,
		.done = on_answer,
		.ctx = o,
	});
	qg_secret_free(body);
	if (err != QG_OK)
		free(o);
	return err;
}

/* As towards neighbours: what belongs to no request has an ID of its own. */
static qg_err
send_body(qg_etsi020 *e, outgoing *o, unsigned wait_ms, qg_secret **body)
{
	o->e = e;
	const qg_request_id id = qg_request_id_now_or_new(), *const before = qg_request_id_enter(&id);
	const qg_err err = send_now(e, o, wait_ms, body);
	(void)qg_request_id_enter(before);
	return err;
}

static qg_err
set_url(outgoing *o, const char *base, const char *path, const char *rest)
{
	const int n = snprintf(o->url, sizeof o->url, "%s%s%s", base, path, rest);
	return n > 0 && (size_t)n < sizeof o->url ? QG_OK : QG_E_RANGE;
}

/* --- keys ----------------------------------------------------------------------------- */

static qg_err
mask_text(const qg_config_peer *peer, const qg_interop_mask *from, char **out)
{
	char name[QG_020_MASK_NAME_MAX];
	qg_020_mask m = {.n_pads = 0};
	if (from == NULL)
		return QG_OK;
	qg_020_mask_name(peer->extension_pen, name);
	memcpy(m.link, from->link, sizeof m.link);
	memcpy(m.pad, from->pad, sizeof m.pad);
	memcpy(m.mac, from->mac, sizeof m.mac);
	m.n_pads = from->n_pads;
	m.oldest_mac = from->oldest_mac;
	m.oldest_pad = from->oldest_pad;
	return qg_020_mask_write(&m, name, out);
}

/* The writers take extensions as text that they do not change. */
static qg_020_key *
keys_of(const qg_interop_keys *m)
{
	qg_020_key *const out = calloc(m->n_keys, sizeof *out);
	for (size_t i = 0; out != NULL && i < m->n_keys; i++)
		out[i] = (qg_020_key){
			.id = m->key[i].id,
			.value = m->key[i].value,
			.size = m->key[i].size_bytes,
			.extension = (char *)(uintptr_t)m->key[i].extension,
		};
	return out;
}

static qg_err
keys_body(const outgoing *o, const qg_interop_keys *m, qg_secret **out)
{
	char *mask = NULL;
	qg_020_key *const keys = keys_of(m);
	qg_err err = keys == NULL ? QG_E_NOMEM : mask_text(o->peer, m->mask, &mask);
	const qg_020_keys_out body = {
		.initiator = m->saes.initiator,
		.targets = m->saes.targets,
		.n_targets = m->saes.n_targets,
		.callback = o->waits ? NULL : o->peer->our_callback_url,
		.key = keys,
		.n_keys = m->n_keys,
		.optional = m->optional,
		.mandatory = mask,
	};
	if (err == QG_OK)
		err = o->kind == SEND_DRAFT ? qg_020_draft_keys_write(&body, out) : qg_020_keys_write(&body, out);
	free(mask);
	free(keys);
	return err;
}

/* A draft's request has its SAEs in the path, and its answer speaks of all. */
static qg_err
set_draft(outgoing *o, const qg_interop_keys *m)
{
	char rest[QG_020_DRAFT_PATH_MAX];
	const char *const initiator = m->saes.initiator, *const target = m->saes.targets[0];
	if (strlen(initiator) >= sizeof o->initiator || strlen(target) >= sizeof o->target)
		return QG_E_UNSUPPORTED;
	memcpy(o->initiator, initiator, strlen(initiator) + 1);
	memcpy(o->target, target, strlen(target) + 1);
	for (size_t i = 0; i < m->n_keys; i++)
		o->ids[i] = m->key[i].id;
	const qg_err err = qg_020_draft_path(initiator, target, rest, sizeof rest);
	return err == QG_OK ? set_url(o, o->peer->url, QG_020_PATH, rest) : err;
}

static qg_err
send_keys(qg_interop_way *way, const char *id, const qg_interop_keys *m, qg_interop_done *done, void *ctx)
{
	qg_etsi020 *const e = (qg_etsi020 *)way;
	const qg_config_peer *const peer = peer_of(e, id);
	qg_secret *body = NULL;
	if (peer == NULL)
		return QG_E_NOTFOUND;
	if (qg_directory_peer_suspended(e->directory, id))
		return QG_E_EMPTY; /* it waits, as for key of the link, and is void when its time is over */
	const bool draft = peer->dialect == QG_DIALECT_DRAFT_URL;
	if (draft && m->saes.n_targets != 1)
		return QG_E_UNSUPPORTED;
	outgoing *const o = outgoing_new(peer, draft ? SEND_DRAFT : SEND_KEYS,
					 draft || peer->mode == QG_PEER_SYNCHRONOUS, draft ? m->n_keys : 0, done, ctx);
	if (o == NULL)
		return QG_E_NOMEM;
	qg_err err = draft ? set_draft(o, m) : set_url(o, peer->url, QG_020_PATH, "");
	if (err == QG_OK)
		err = keys_body(o, m, &body);
	if (err != QG_OK) {
		free(o);
		return err;
	}
	return send_body(e, o, m->wait_ms, &body);
}

/* --- acks and voids --------------------------------------------------------------------- */

static const qg_020_status statuses[] = {
	[QG_INTEROP_RELAYED] = QG_020_RELAYED,
	[QG_INTEROP_FAILED] = QG_020_FAILED,
	[QG_INTEROP_VOIDED] = QG_020_VOIDED,
	[QG_INTEROP_FAILED_TO_VOID] = QG_020_FAILED_TO_VOID,
	[QG_INTEROP_NOT_PRESENT] = QG_020_NOT_PRESENT,
};

qg_err
qg_020_acks_body(const qg_interop_ack *ack, size_t n, qg_secret **out)
{
	qg_020_ack_out *const acks = calloc(n > 0 ? n : 1, sizeof *acks);
	if (acks == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < n; i++)
		acks[i] = (qg_020_ack_out){
			.status = statuses[ack[i].status],
			.initiator = ack[i].saes.initiator,
			.targets = ack[i].saes.targets,
			.n_targets = ack[i].saes.n_targets,
			.ids = ack[i].ids,
			.n_ids = ack[i].n_ids,
			.message = ack[i].message,
		};
	const qg_err err = qg_020_acks_write(acks, n, out);
	free(acks);
	return err;
}

static qg_err
send_acks(qg_interop_way *way, const char *id, const qg_interop_ack *ack, size_t n, qg_interop_done *done, void *ctx)
{
	qg_etsi020 *const e = (qg_etsi020 *)way;
	const qg_config_peer *const peer = peer_of(e, id);
	qg_secret *body = NULL;
	if (peer == NULL)
		return QG_E_NOTFOUND;
	if (peer->callback_url == NULL)
		return QG_E_UNSUPPORTED;
	outgoing *const o = outgoing_new(peer, SEND_ACKS, false, 0, done, ctx);
	if (o == NULL)
		return QG_E_NOMEM;
	qg_err err = set_url(o, peer->callback_url, "", "");
	if (err == QG_OK)
		err = qg_020_acks_body(ack, n, &body);
	if (err != QG_OK) {
		free(o);
		return err;
	}
	return send_body(e, o, 0, &body);
}

static qg_err
send_void(qg_interop_way *way, const char *id, const qg_interop_void *m, qg_interop_done *done, void *ctx)
{
	qg_etsi020 *const e = (qg_etsi020 *)way;
	const qg_config_peer *const peer = peer_of(e, id);
	qg_secret *body = NULL;
	if (peer == NULL)
		return QG_E_NOTFOUND;
	outgoing *const o = outgoing_new(peer, SEND_VOID, peer->our_callback_url == NULL, 0, done, ctx);
	if (o == NULL)
		return QG_E_NOMEM;
	qg_err err = set_url(o, peer->url, QG_020_PATH, "/void");
	if (err == QG_OK)
		err = qg_020_void_write(m->saes.initiator, m->saes.targets, m->saes.n_targets, peer->our_callback_url,
					m->ids, m->n_ids, &body);
	if (err != QG_OK) {
		free(o);
		return err;
	}
	return send_body(e, o, m->wait_ms, &body);
}

const qg_interop_ops qg_020_way_ops = {.send_keys = send_keys, .send_acks = send_acks, .send_void = send_void};
