/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/etsi020.h"

#include <stdlib.h>

#include "etsi020_internal.h"

/* Lines in the audit log about requests that nobody known here sent, or that
 * the HTTP server refused: who can make them could else fill the disk. */
#define STRANGERS_PER_S 10
#define STRANGERS_BURST 100

/* Has a body of at most limits.kxi_body_bytes where the limit here is not 0. */
static const qg_http_route routes[] = {
	{"GET", "/kmapi/versions", qg_020_get_versions, 0},
	{"POST", "/kmapi/v1/ext_keys", qg_020_post_keys, 1},
	{"POST", "/kmapi/v1/ext_keys/ack", qg_020_post_ack, 1},
	{"POST", "/kmapi/v1/ext_keys/void", qg_020_post_void, 1},
	{"POST", "/kmapi/v1/ext_keys/{initiator_SAE_ID}/{target_SAE_ID}", qg_020_post_draft_keys, 1},
	{"GET", "/openapi.yaml", qg_020_get_openapi, 0},
};
#define N_ROUTES (sizeof routes / sizeof routes[0])

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	const qg_etsi020 *const e = ctx;
	return qg_directory_peer(e->directory, id);
}

static qg_err
init(qg_etsi020 *e)
{
	const qg_config *const cfg = e->cfg;
	e->requests = calloc(cfg->n_peers + 1, sizeof(qg_limits *));
	e->seen = calloc(cfg->n_peers + 1, sizeof *e->seen);
	e->routes = malloc(sizeof routes);
	qg_err err = e->requests == NULL || e->seen == NULL || e->routes == NULL ? QG_E_NOMEM : QG_OK;
	for (size_t i = 0; err == QG_OK && i < N_ROUTES; i++) {
		e->routes[i] = routes[i];
		if (routes[i].body_limit > 0)
			e->routes[i].body_limit = cfg->kxi_body_bytes;
	}
	for (size_t i = 0; err == QG_OK && i < cfg->n_peers; i++)
		err = qg_limits_new(cfg->peers[i].requests_per_s, cfg->peers[i].requests_per_s, &e->requests[i]);
	if (err == QG_OK)
		err = qg_limits_new(STRANGERS_PER_S, STRANGERS_BURST, &e->strangers);
	return err == QG_OK ? qg_http_client_start(&cfg->kxi_client, &e->client) : err;
}

qg_err
qg_etsi020_new(const qg_config *cfg, const qg_directory *directory, qg_audit *audit, qg_etsi020 **out)
{
	qg_etsi020 *e = calloc(1, sizeof *e);
	if (e == NULL)
		return QG_E_NOMEM;
	e->way.ops = &qg_020_way_ops;
	e->cfg = cfg;
	e->directory = directory;
	e->audit = audit;
	const qg_err err = init(e);
	if (err == QG_OK)
		*out = e;
	else
		qg_etsi020_free(&e);
	return err;
}

qg_interop_way *
qg_etsi020_way(qg_etsi020 *e)
{
	return &e->way;
}

qg_err
qg_etsi020_listen(qg_etsi020 *e, qg_interop *interop, char *why, size_t why_room)
{
	qg_http_options o = qg_http_options_of(&e->cfg->kxi);
	e->interop = interop;
	o.routes = e->routes;
	o.n_routes = N_ROUTES;
	o.error_type = QG_020_JSON_TYPE;
	o.refuse = qg_020_http_refuse;
	o.ctx = e;
	o.identify = identify;
	o.waits_long = true;
	return qg_http_server_start(&o, &e->server, why, why_room);
}

qg_err
qg_etsi020_reload_tls(qg_etsi020 *e, const qg_tls_files *f, char *why, size_t why_room)
{
	return e != NULL && e->server != NULL ? qg_http_server_reload_tls(e->server, f, why, why_room) : QG_OK;
}

const qg_http_server *
qg_etsi020_http(const qg_etsi020 *e)
{
	return e->server;
}

void
qg_etsi020_unlisten(qg_etsi020 *e)
{
	qg_http_server_stop(&e->server);
}

void
qg_etsi020_free(qg_etsi020 **e)
{
	if (e == NULL || *e == NULL)
		return;
	qg_etsi020 *const old = *e;
	qg_etsi020_unlisten(old);
	qg_http_client_stop(&old->client);
	for (size_t i = 0; old->requests != NULL && i < old->cfg->n_peers; i++)
		qg_limits_free(&old->requests[i]);
	free(old->requests);
	free(old->seen);
	free(old->routes);
	qg_limits_free(&old->strangers);
	free(old);
	*e = NULL;
}
