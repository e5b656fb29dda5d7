/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/kms.h"

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/http_client.h"
#include "qkdgate/http_server.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/limits.h"
#include "qkdgate/log.h"
#include "qkdgate/request_id.h"

#define MODULE "kms"
#define PATH "/api/v1/kms/"
#define JSON_TYPE "application/json"

/* Lines in the log about refused callers: they can have as many as they like
 * to be refused. */
#define REFUSED_PER_S 1
#define REFUSED_BURST 20

typedef enum listener_state { LISTENER_DOWN, LISTENER_CHANGING, LISTENER_UP } listener_state;

/* How the last call to a neighbour ended. */
typedef struct outcome {
	_Atomic qg_err err;
	_Atomic uint64_t at_ms; /* 0: there was none */
} outcome;

struct qg_kms {
	qg_channel channel; /* first: a send gets it back as the whole */
	const qg_config *cfg;
	const qg_directory *directory;
	qg_http_client *client;
	qg_limits *refused; /* lines about them */

	/* The server is started and stopped outside the lock, by whoever changed
	 * the state to CHANGING. */
	pthread_mutex_t lock;
	pthread_cond_t changed;
	listener_state state;
	qg_http_server *server;
	qg_peers *peers;

	atomic_ullong sent[QG_KMS_KINDS], received[QG_KMS_KINDS];
	outcome *last; /* of each neighbour of the configuration */
};

/* --- out ----------------------------------------------------------------- */

typedef struct outgoing {
	qg_channel_done *done;
	void *ctx;
	const char *neighbour; /* the configuration's */
	outcome *last;
	qg_kms_kind kind;
	char url[];
} outgoing;

static const qg_config_neighbour *
neighbour_of(const qg_config *cfg, const char *id)
{
	for (size_t i = 0; i < cfg->n_neighbours; i++) {
		if (strcmp(cfg->neighbours[i].id, id) == 0)
			return &cfg->neighbours[i];
	}
	return NULL;
}

static outgoing *
outgoing_new(const qg_config_neighbour *n, outcome *last, qg_kms_kind kind, qg_channel_done *done, void *ctx)
{
	const char *name = qg_kms_kind_name(kind);
	size_t room = strlen(n->url) + sizeof PATH + strlen(name);
	outgoing *o = malloc(sizeof *o + room);
	int len;

	if (!o)
		return NULL;
	*o = (outgoing){.done = done, .ctx = ctx, .neighbour = n->id, .last = last, .kind = kind};
	len = snprintf(o->url, room, "%s" PATH "%s", n->url, name);
	if (len < 0 || (size_t)len >= room) {
		free(o);
		return NULL;
	}
	return o;
}

static void
outgoing_done(void *ctx, qg_err err, int status, const char *body, size_t len)
{
	outgoing *o = ctx;

	atomic_store(&o->last->err, err);
	atomic_store(&o->last->at_ms, qg_clock_elapsed_ms());
	if (err == QG_OK)
		qg_log(QG_LOG_DEBUG, MODULE, "event=answer kind=%s neighbour=%s status=%d len=%zu",
		       qg_kms_kind_name(o->kind), qg_log_safe(o->neighbour), status, len);
	else
		qg_log(QG_LOG_DEBUG, MODULE, "event=no_answer kind=%s neighbour=%s error=\"%s\"",
		       qg_kms_kind_name(o->kind), qg_log_safe(o->neighbour), qg_err_text(err));
	o->done(o->ctx, err, status, body, len);
	free(o);
}

static qg_err
send_now(qg_channel *ch, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
	 unsigned timeout_ms, qg_channel_done *done, void *ctx)
{
	qg_kms *k = (qg_kms *)ch;
	const qg_config_neighbour *n = neighbour_of(k->cfg, neighbour);
	outgoing *o;
	qg_err err;

	if (!n)
		return QG_E_NOTFOUND;
	o = outgoing_new(n, &k->last[n - k->cfg->neighbours], kind, done, ctx);
	if (!o)
		return QG_E_NOMEM;
	qg_log(QG_LOG_DEBUG, MODULE, "event=send kind=%s neighbour=%s len=%zu", qg_kms_kind_name(kind),
	       qg_log_safe(n->id), len);
	/* Counted first: the answer may be there before the call returns. */
	atomic_fetch_add(&k->sent[kind], 1);
	err = qg_http_client_send(k->client, &(qg_http_call){
		.method = "POST",
		.url = o->url,
		.type = JSON_TYPE,
		.body = body,
		.len = len,
		.timeout_ms = timeout_ms > 0 ? timeout_ms : k->cfg->kms_timeout_ms,
		.answer_limit = QG_KMS_MSG_MAX,
		.server = &n->match,
		.done = outgoing_done,
		.ctx = o,
	});
	if (err != QG_OK) {
		atomic_fetch_sub(&k->sent[kind], 1);
		free(o);
	}
	return err;
}

/* What belongs to no request has an ID of its own, so that both ends tell of it
 * under the same. */
static qg_err
send_message(qg_channel *ch, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
	     unsigned timeout_ms, qg_channel_done *done, void *ctx)
{
	const qg_request_id id = qg_request_id_now_or_new(), *before = qg_request_id_enter(&id);
	const qg_err err = send_now(ch, neighbour, kind, body, len, timeout_ms, done, ctx);

	(void)qg_request_id_enter(before);
	return err;
}

static const qg_channel_ops channel_ops = {.send = send_message};

qg_channel *
qg_kms_channel(qg_kms *k)
{
	return &k->channel;
}

/* --- in ------------------------------------------------------------------ */

static size_t
error_body(int status, const char *text, char *buf, size_t room)
{
	json_t *object = json_pack("{s:s}", "message", text);
	size_t len = json_dumpb(object, buf, room, JSON_COMPACT);

	(void)status;
	json_decref(object);
	return len <= room ? len : 0;
}

static const struct {
	int status;
	const char *text;
} error_texts[] = {
	{400, "not the message that it should be"},
	{404, "no such message is understood here"},
	{0, "not now, try again later"},
};

/* An error that the streams give no text for. */
static void
answer_error(qg_http_request *req, int status)
{
	char body[128];
	size_t i = 0, len;

	while (error_texts[i].status != status && error_texts[i].status != 0)
		i++;
	len = error_body(status, error_texts[i].text, body, sizeof body);
	qg_http_answer(req, status, JSON_TYPE, body, len);
}

/* A message that the streams have not answered yet. The server keeps the
 * request valid until it is answered, also when it stops meanwhile; what else
 * the request holds it may then have given back. */
typedef struct incoming {
	qg_http_request *req;
	const char *neighbour;
	qg_kms_kind kind;
	qg_request_id id;
} incoming;

static void
answer_message(void *ctx, int http_status, const char *body, size_t len)
{
	incoming *in = ctx;
	const qg_request_id *before = qg_request_id_enter(&in->id);

	qg_log(QG_LOG_DEBUG, MODULE, "event=answered kind=%s neighbour=%s status=%d len=%zu",
	       qg_kms_kind_name(in->kind), qg_log_safe(in->neighbour), http_status, len);
	(void)qg_request_id_enter(before);
	if (http_status >= 400 && len == 0)
		answer_error(in->req, http_status);
	else
		qg_http_answer(in->req, http_status, len > 0 ? JSON_TYPE : NULL, body, len);
	free(in);
}

static void
receive_message(qg_http_request *req, qg_kms *k, qg_kms_kind kind)
{
	const qg_config_neighbour *n = qg_http_peer(req);
	size_t len;
	const char *view = qg_http_body(req, &len);
	char *body = malloc(len + 1);
	incoming *in = malloc(sizeof *in);

	if (!in || !body) {
		free(body);
		free(in);
		answer_error(req, 503);
		return;
	}
	atomic_fetch_add(&k->received[kind], 1);
	qg_log(QG_LOG_DEBUG, MODULE, "event=received kind=%s neighbour=%s len=%zu", qg_kms_kind_name(kind),
	       qg_log_safe(n->id), len);
	*in = (incoming){.req = req, .neighbour = n->id, .kind = kind, .id = qg_request_id_now()};
	/* The answer may come from another thread while the streams still read,
	 * and takes the request's views with it. What of it is key is masked. */
	if (len > 0)
		memcpy(body, view, len);
	qg_http_defer(req);
	qg_peers_receive(k->peers, n->id, kind, body, len, answer_message, in);
	free(body);
}

#define ON(name, kind) \
	static void on_##name(qg_http_request *req, void *ctx) \
	{ \
		receive_message(req, ctx, (kind)); \
	}
ON(new_app, QG_KMS_NEW_APP)
ON(new_key_batch, QG_KMS_NEW_KEY_BATCH)
ON(key_stream_closed, QG_KMS_KEY_STREAM_CLOSED)
ON(get_status, QG_KMS_GET_STATUS)
ON(forward_keys, QG_KMS_FORWARD_KEYS)
ON(make_keys_external, QG_KMS_MAKE_KEYS_EXTERNAL)
ON(delete_keys, QG_KMS_DELETE_KEYS)
ON(post_status, QG_KMS_POST_STATUS)
ON(new_app_stream, QG_KMS_NEW_APP_STREAM)
ON(new_app_keys, QG_KMS_NEW_APP_KEYS)
ON(want_app_keys, QG_KMS_WANT_APP_KEYS)
ON(app_stream_closed, QG_KMS_APP_STREAM_CLOSED)

/* Bytes of a body: of a few members; of a list of names; with masked key. */
#define BODY_SMALL 4096
#define BODY_LIST 32768

static const qg_http_route routes[] = {
	{"POST", PATH "new_app", on_new_app, BODY_LIST},
	{"POST", PATH "new_key_batch", on_new_key_batch, BODY_SMALL},
	{"POST", PATH "key_stream_closed", on_key_stream_closed, BODY_SMALL},
	{"POST", PATH "get_status", on_get_status, BODY_SMALL},
	{"POST", PATH "forward_keys", on_forward_keys, QG_KMS_MSG_MAX},
	{"POST", PATH "make_keys_external", on_make_keys_external, QG_KMS_MSG_MAX},
	{"POST", PATH "delete_keys", on_delete_keys, BODY_LIST},
	{"POST", PATH "post_status", on_post_status, BODY_LIST},
	{"POST", PATH "new_app_stream", on_new_app_stream, BODY_SMALL},
	{"POST", PATH "new_app_keys", on_new_app_keys, BODY_LIST},
	{"POST", PATH "want_app_keys", on_want_app_keys, BODY_SMALL},
	{"POST", PATH "app_stream_closed", on_app_stream_closed, BODY_SMALL},
};

static bool
may_log_refused(const qg_kms *k)
{
	uint32_t retry_after_s;

	return qg_limits_take(k->refused, "", 1, qg_clock_elapsed_ms(), &retry_after_s) == QG_OK;
}

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	const qg_kms *k = ctx;
	const qg_config_neighbour *n = qg_directory_neighbour(k->directory, id);

	if (!n && may_log_refused(k))
		qg_log(QG_LOG_WARN, MODULE, "event=unknown_neighbour cn=%s fingerprint=%s", qg_log_safe(id->cn),
		       qg_log_safe(id->fingerprint));
	return n;
}

static void
on_refused(int status, const char *method, const char *path, void *ctx)
{
	if (may_log_refused(ctx))
		qg_log(QG_LOG_INFO, MODULE, "event=refused status=%d method=%s path=%s", status, qg_log_safe(method),
		       qg_log_safe(path));
}

/* Waits out a change under way, and begins one if the state is `from`. */
static bool
begin_change(qg_kms *k, listener_state from)
{
	bool begun;

	pthread_mutex_lock(&k->lock);
	while (k->state == LISTENER_CHANGING)
		pthread_cond_wait(&k->changed, &k->lock);
	begun = k->state == from;
	if (begun)
		k->state = LISTENER_CHANGING;
	pthread_mutex_unlock(&k->lock);
	return begun;
}

static void
end_change(qg_kms *k, listener_state to)
{
	pthread_mutex_lock(&k->lock);
	k->state = to;
	pthread_cond_broadcast(&k->changed);
	pthread_mutex_unlock(&k->lock);
}

qg_err
qg_kms_listen(qg_kms *k, qg_peers *peers, char *why, size_t why_room)
{
	qg_http_options o = qg_http_options_of(&k->cfg->kms);
	qg_err err;

	if (!begin_change(k, LISTENER_DOWN)) {
		/* Cut to the room that there is. */
		(void)snprintf(why, why_room, "the neighbours' listener runs already");
		return QG_E_STATE;
	}
	k->peers = peers;
	o.routes = routes;
	o.n_routes = sizeof routes / sizeof *routes;
	o.error_body = error_body;
	o.error_type = JSON_TYPE;
	o.ctx = k;
	o.identify = identify;
	o.waits_long = true;
	o.on_refused = on_refused;
	err = qg_http_server_start(&o, &k->server, why, why_room);
	end_change(k, err == QG_OK ? LISTENER_UP : LISTENER_DOWN);
	return err;
}

bool
qg_kms_reached(const qg_kms *k, const char *neighbour, qg_err *last, uint64_t *ago_ms)
{
	const qg_config_neighbour *n = neighbour_of(k->cfg, neighbour);
	const outcome *o = n != NULL ? &k->last[n - k->cfg->neighbours] : NULL;
	const uint64_t at_ms = o != NULL ? atomic_load(&o->at_ms) : 0;

	if (at_ms == 0)
		return false;
	*last = atomic_load(&o->err);
	*ago_ms = qg_clock_elapsed_ms() - at_ms;
	return true;
}

qg_err
qg_kms_reload_tls(qg_kms *k, const qg_tls_files *f, char *why, size_t why_room)
{
	return k->server != NULL ? qg_http_server_reload_tls(k->server, f, why, why_room) : QG_OK;
}

const qg_http_server *
qg_kms_http(const qg_kms *k)
{
	return k->server;
}

void
qg_kms_unlisten(qg_kms *k)
{
	if (!begin_change(k, LISTENER_UP))
		return;
	qg_http_server_stop(&k->server);
	end_change(k, LISTENER_DOWN);
}

/* --- both ---------------------------------------------------------------- */

qg_err
qg_kms_new(const qg_config *cfg, const qg_directory *directory, qg_kms **out)
{
	qg_kms *k = calloc(1, sizeof *k);
	qg_err err;

	if (!k)
		return QG_E_NOMEM;
	k->channel.ops = &channel_ops;
	k->cfg = cfg;
	k->directory = directory;
	if (pthread_mutex_init(&k->lock, NULL) != 0) {
		free(k);
		return QG_E_NOMEM;
	}
	if (pthread_cond_init(&k->changed, NULL) != 0) {
		err = QG_E_NOMEM;
		goto no_cond;
	}
	k->last = calloc(cfg->n_neighbours + 1, sizeof *k->last);
	err = k->last != NULL ? qg_limits_new(REFUSED_PER_S, REFUSED_BURST, &k->refused) : QG_E_NOMEM;
	if (err == QG_OK)
		err = qg_http_client_start(&cfg->kms_client, &k->client);
	if (err != QG_OK)
		goto no_client;
	*out = k;
	return QG_OK;

no_client:
	free(k->last);
	qg_limits_free(&k->refused);
	pthread_cond_destroy(&k->changed);
no_cond:
	pthread_mutex_destroy(&k->lock);
	free(k);
	return err;
}

void
qg_kms_counts(const qg_kms *k, unsigned long long sent[QG_KMS_KINDS],
	      unsigned long long received[QG_KMS_KINDS])
{
	for (int i = 0; i < QG_KMS_KINDS; i++) {
		sent[i] = atomic_load(&k->sent[i]);
		received[i] = atomic_load(&k->received[i]);
	}
}

static void
log_counts(const qg_kms *k)
{
	unsigned long long sent[QG_KMS_KINDS], received[QG_KMS_KINDS];
	char text[2048] = "";
	size_t len = 0;

	qg_kms_counts(k, sent, received);
	for (int i = 0; i < QG_KMS_KINDS; i++) {
		const char *name = qg_kms_kind_name((qg_kms_kind)i);
		int n = snprintf(text + len, sizeof text - len, " sent_%s=%llu received_%s=%llu", name, sent[i], name,
				 received[i]);

		if (n < 0 || (size_t)n >= sizeof text - len)
			break;
		len += (size_t)n;
	}
	qg_log(QG_LOG_INFO, MODULE, "event=counts%s", text);
}

void
qg_kms_free(qg_kms **k)
{
	if (!k || !*k)
		return;
	qg_kms_unlisten(*k);
	qg_http_client_stop(&(*k)->client);
	log_counts(*k);
	qg_limits_free(&(*k)->refused);
	free((*k)->last);
	pthread_cond_destroy(&(*k)->changed);
	pthread_mutex_destroy(&(*k)->lock);
	free(*k);
	*k = NULL;
}
