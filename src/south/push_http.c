/* SPDX-License-Identifier: Apache-2.0 */
/* The listener that modules push key to. A chunk goes to the inbox of the source
 * whose stream is open under its KSID and whose module the caller is. */
#include "south_internal.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/http_server.h"
#include "qkdgate/log.h"

#define BODY_MAX ((size_t)QG_ETSI004_KEY_MAX * 4 / 3 + 4096)
#define ROUTES_MAX 8
#define ANSWER_ROOM 32
#define SAY_EVERY_MS 1000

struct qg_push_listener {
	qg_http_server *server;
	qg_http_route routes[ROUTES_MAX];
	size_t n_routes;
	qg_source **source;
	size_t n;
	_Atomic uint64_t said_ms; /* that somebody unknown came */
};

/* What an outcome is answered with. */
static const struct {
	qg_err err;
	int http;
	uint32_t status;
} outcomes[] = {
	{QG_OK, 201, QG_ETSI004_SUCCESS},
	{QG_E_FULL, 503, QG_ETSI004_TIMEOUT}, /* with Retry-After: the same chunk again */
	{QG_E_NOTFOUND, 500, QG_ETSI004_NO_CONNECTION},
	{QG_E_MISMATCH, 400, QG_ETSI004_IN_USE},
	{QG_E_EXPIRED, 400, QG_ETSI004_IN_USE},
	{QG_E_NOMEM, 503, QG_ETSI004_TIMEOUT},
	{QG_E_RANGE, 400, QG_ETSI004_NO_CONNECTION},
	{QG_E_PARSE, 400, QG_ETSI004_NO_CONNECTION}, /* last: and what else may be */
};

static void
answer(qg_http_request *req, const qg_etsi004_profile *p, qg_err err)
{
	uint8_t body[ANSWER_ROOM];
	qg_writer w = qg_writer_of(body, sizeof body);
	size_t i = 0;
	while (i + 1 < sizeof outcomes / sizeof outcomes[0] && outcomes[i].err != err)
		i++;
	if (p->push->put_answer(p, outcomes[i].status, &w) != QG_OK)
		w.len = 0;
	if (outcomes[i].http == 503)
		qg_http_set_header(req, "Retry-After", "1");
	qg_http_answer(req, outcomes[i].http, p->push->type, body, w.len);
}

/* The profile whose pushes come on this path. */
static const qg_etsi004_profile *
profile_of(const qg_http_request *req)
{
	const qg_etsi004_profile *p = NULL;
	for (size_t i = 0; (p = qg_etsi004_profile_at(i)) != NULL; i++)
		if (p->push != NULL && strcmp(p->push->path, qg_http_path(req)) == 0)
			break;
	return p;
}

static bool
same(const char *a, const char *b)
{
	return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

/* One certificate may be that of several sources: the first stands for all. */
static bool
same_module(const qg_source *a, const qg_source *b)
{
	const qg_tls_match *x = &a->cfg->source.pusher, *y = &b->cfg->source.pusher;
	return same(x->uri, y->uri) && same(x->dns, y->dns) && same(x->cn, y->cn) &&
	       same(x->fingerprint, y->fingerprint);
}

static qg_err
deliver(qg_push_listener *l, const qg_source *module, const qg_etsi004_profile *p, const qg_etsi004_response *a)
{
	for (size_t i = 0; i < l->n; i++) {
		qg_source *s = l->source[i];
		if (s->profile != p || !same_module(s, module) || !qg_inbox_is(s, &a->ksid))
			continue;
		return qg_inbox_put(s, &a->ksid, a->index, a->key, a->key_len);
	}
	return QG_E_NOTFOUND;
}

static void
on_push(qg_http_request *req, void *ctx)
{
	const qg_etsi004_profile *p = profile_of(req);
	qg_etsi004_response a;
	size_t len = 0;
	const char *text = qg_http_body(req, &len);
	QG_SECRET_AUTO *body = NULL; /* decoded in place */
	qg_err err = qg_secret_new(len + 1, &body);
	if (err == QG_OK)
		err = qg_secret_append(body, text, len);
	if (err == QG_OK)
		err = p->push->get(p, body->data, len, &a);
	if (err == QG_OK && a.status != QG_ETSI004_SUCCESS)
		err = QG_OK; /* no key: there is nothing to be taken */
	else if (err == QG_OK)
		err = deliver(ctx, qg_http_peer(req), p, &a);
	answer(req, p, err);
}

/* --- starting and stopping --------------------------------------------------------- */

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	qg_push_listener *l = ctx;
	for (size_t i = 0; i < l->n; i++)
		if (qg_tls_matches(&l->source[i]->cfg->source.pusher, id))
			return l->source[i];
	uint64_t now_ms = qg_clock_elapsed_ms(), said_ms = atomic_load(&l->said_ms);
	/* Of those who are refused not every one has a line. */
	if ((said_ms == 0 || now_ms - said_ms >= SAY_EVERY_MS) &&
	    atomic_compare_exchange_strong(&l->said_ms, &said_ms, now_ms))
		qg_log(QG_LOG_WARN, "source", "event=unknown_pusher cn=%s fingerprint=%s", qg_log_safe(id->cn),
		       qg_log_safe(id->fingerprint));
	return NULL;
}

static size_t
error_body(int status, const char *text, char *buf, size_t room)
{
	(void)text;
	int n = snprintf(buf, room, "{\"status\":%d}", status == 503 ? QG_ETSI004_TIMEOUT : QG_ETSI004_NO_CONNECTION);
	return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static void
add_route(qg_push_listener *l, const qg_etsi004_profile *p)
{
	for (size_t i = 0; i < l->n_routes; i++)
		if (strcmp(l->routes[i].pattern, p->push->path) == 0)
			return;
	if (l->n_routes < ROUTES_MAX)
		l->routes[l->n_routes++] = (qg_http_route){.method = p->push->method, .pattern = p->push->path,
							   .handler = on_push, .body_limit = BODY_MAX};
}

static qg_err
start(qg_push_listener *l, const qg_config_listener *c, char *why, size_t why_room)
{
	qg_http_options o = qg_http_options_of(c);
	o.routes = l->routes;
	o.n_routes = l->n_routes;
	o.error_body = error_body;
	o.error_type = "application/json";
	o.ctx = l;
	o.identify = identify;
	const qg_err err = qg_http_server_start(&o, &l->server, why, why_room);
	if (err == QG_OK)
		qg_log(QG_LOG_INFO, "source", "event=push_listener address=%s port=%u", c->address,
		       qg_http_server_port(l->server));
	return err;
}

qg_err
qg_push_listen(const qg_config *cfg, qg_source *const *sources, size_t n, qg_push_listener **out, char *why,
	       size_t why_room)
{
	qg_push_listener *l = calloc(1, sizeof *l);
	if (l != NULL)
		l->source = calloc(n + 1, sizeof(qg_source *));
	if (l == NULL || l->source == NULL) {
		free(l);
		return QG_E_NOMEM;
	}
	for (size_t i = 0; i < n; i++) {
		if (sources[i]->inbox == NULL)
			continue;
		l->source[l->n++] = sources[i];
		add_route(l, sources[i]->profile);
	}
	qg_err err = l->n > 0 ? start(l, &cfg->push, why, why_room) : QG_OK;
	if (err != QG_OK || l->n == 0)
		qg_push_unlisten(&l);
	if (err == QG_OK)
		*out = l;
	return err;
}

qg_err
qg_push_reload_tls(qg_push_listener *l, const qg_tls_files *f, char *why, size_t why_room)
{
	return l != NULL && l->server != NULL ? qg_http_server_reload_tls(l->server, f, why, why_room) : QG_OK;
}

void
qg_push_unlisten(qg_push_listener **l)
{
	if (l == NULL || *l == NULL)
		return;
	if ((*l)->server != NULL)
		qg_http_server_stop(&(*l)->server);
	free((*l)->source);
	free(*l);
	*l = NULL;
}
