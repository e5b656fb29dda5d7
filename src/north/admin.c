/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/admin.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/embed.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"
#include "qkdgate/nearest.h"

#define MODULE "admin"
#define JSON_TYPE "application/json"
#define BODY 4096
#define ENTRY_BODY 65536 /* of an SAE or a rule */
#define LOCAL_CONNECTIONS 64
#define SCRAPE_CONNECTIONS 16
#define LOCAL_IDLE_S 60

static const qg_http_route routes[] = {
	{"GET", "/healthz", qg_admin_on_healthz, 0},
	{"GET", "/readyz", qg_admin_on_readyz, 0},
	{"GET", "/metrics", qg_admin_on_metrics, 0},
	{"GET", "/openapi.yaml", qg_admin_on_openapi, 0},
	{"GET", "/", qg_admin_on_index, 0},
	{"GET", "/dashboard/{file}", qg_admin_on_page, 0},
	{"GET", "/api/v1/session", qg_admin_on_session, 0},
	{"POST", "/api/v1/session", qg_admin_on_sign_in, BODY},
	{"DELETE", "/api/v1/session", qg_admin_on_sign_out, 0},
	{"GET", "/api/v1/status", qg_admin_on_status, 0},
	{"GET", "/api/v1/alarms", qg_admin_on_alarms, 0},
	{"GET", "/api/v1/node", qg_admin_on_node, 0},
	{"GET", "/api/v1/neighbours", qg_admin_on_neighbours, 0},
	{"GET", "/api/v1/streams", qg_admin_on_streams, 0},
	{"GET", "/api/v1/streams/{stream}", qg_admin_on_stream, 0},
	{"GET", "/api/v1/streams/{stream}/history", qg_admin_on_history, 0},
	{"POST", "/api/v1/streams/{stream}/reopen", qg_admin_on_reopen, BODY},
	{"POST", "/api/v1/streams/{stream}/delete-keys", qg_admin_on_delete_keys, BODY},
	{"GET", "/api/v1/sources", qg_admin_on_sources, 0},
	{"GET", "/api/v1/routes", qg_admin_on_routes, 0},
	{"GET", "/api/v1/transfers", qg_admin_on_transfers, 0},
	{"GET", "/api/v1/saes", qg_admin_on_saes, 0},
	{"POST", "/api/v1/saes", qg_admin_on_add_sae, ENTRY_BODY},
	{"DELETE", "/api/v1/saes/{SAE_ID}", qg_admin_on_remove_sae, BODY},
	{"GET", "/api/v1/rules", qg_admin_on_rules, 0},
	{"POST", "/api/v1/rules", qg_admin_on_add_rule, ENTRY_BODY},
	{"DELETE", "/api/v1/rules/{rule}", qg_admin_on_remove_rule, BODY},
	{"POST", "/api/v1/saes/{SAE_ID}/suspend", qg_admin_on_suspend_sae, BODY},
	{"POST", "/api/v1/saes/{SAE_ID}/resume", qg_admin_on_resume_sae, BODY},
	{"POST", "/api/v1/pairs/{SAE_ID}/{other_SAE_ID}/suspend", qg_admin_on_suspend_pair, BODY},
	{"POST", "/api/v1/pairs/{SAE_ID}/{other_SAE_ID}/resume", qg_admin_on_resume_pair, BODY},
	{"GET", "/api/v1/limits", qg_admin_on_limits, 0},
	{"GET", "/api/v1/certificates", qg_admin_on_certificates, 0},
	{"GET", "/api/v1/store", qg_admin_on_store, 0},
	{"GET", "/api/v1/logs", qg_admin_on_logs, 0},
	{"POST", "/api/v1/logs", qg_admin_on_set_log, BODY},
	{"GET", "/api/v1/peers", qg_admin_on_peers, 0},
	{"POST", "/api/v1/peers/{peer}/suspend", qg_admin_on_suspend_peer, BODY},
	{"POST", "/api/v1/peers/{peer}/resume", qg_admin_on_resume_peer, BODY},
	{"GET", "/api/v1/accounting", qg_admin_on_accounting, 0},
	{"POST", "/api/v1/logs/reopen", qg_admin_on_reopen_log, BODY},
	{"GET", "/api/v1/audit", qg_admin_on_audit, 0},
	{"GET", "/api/v1/audit/verify", qg_admin_on_verify_audit, 0},
	{"POST", "/api/v1/audit/rotate", qg_admin_on_rotate_audit, BODY},
	{"POST", "/api/v1/reload", qg_admin_on_reload, BODY},
	{"POST", "/api/v1/drain", qg_admin_on_drain, BODY},
	{"POST", "/api/v1/master-key/rotate", qg_admin_on_rotate_master_key, BODY},
	{"POST", "/api/v1/zeroize", qg_admin_on_zeroize, BODY},
};
#define N_ROUTES (sizeof routes / sizeof routes[0])
#define N_SCRAPED 3 /* the first ones, which anybody may read where it is configured */

/* The page, which holds nothing of this gateway, and the way in. */
static bool
is_open(const qg_http_route *route)
{
	return route->handler == qg_admin_on_index || route->handler == qg_admin_on_page ||
	       route->handler == qg_admin_on_sign_in;
}

/* --- who is there -------------------------------------------------------------- */

static const qg_config_admin_user local_user = {.name = "local"};
static const qg_config_admin_user scraper = {.name = "scraper", .read_only = true};

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	const qg_admin *a = ctx;
	const qg_config_admin *now = &qg_directory_config(a->p.directory)->admin;
	for (size_t i = 0; i < now->n_users; i++)
		if (qg_tls_matches(&now->users[i].match, id))
			return &now->users[i];
	qg_log(QG_LOG_WARN, MODULE, "event=unknown_admin cn=%s fingerprint=%s", qg_log_safe(id->cn),
	       qg_log_safe(id->fingerprint));
	return NULL;
}

static const void *
identify_local(const qg_http_local *who, void *ctx)
{
	(void)ctx;
	return who->known ? &local_user : NULL;
}

static const void *
identify_scraper(const qg_http_local *who, void *ctx)
{
	(void)who, (void)ctx;
	return &scraper;
}

void
qg_admin_who(qg_http_request *http, char who[QG_ADMIN_WHO_ROOM])
{
	const qg_config_admin_user *user = qg_http_peer(http);
	const qg_http_local *local = qg_http_local_peer(http);
	int n = local != NULL ? snprintf(who, QG_ADMIN_WHO_ROOM, "uid:%u", (unsigned)local->uid)
			      : snprintf(who, QG_ADMIN_WHO_ROOM, "%s:%s",
					 qg_http_visitor(http) != NULL ? "password" : "admin", user->name);
	if (n < 0)
		who[0] = '\0';
}

bool
qg_admin_may_act(qg_http_request *http)
{
	const qg_config_admin_user *user = qg_http_peer(http);
	if (!qg_admin_is_ours(http) || !qg_admin_has_token(http)) {
		qg_admin_answer_error(http, QG_E_DENIED, "this did not come from the dashboard");
		return false;
	}
	if (!user->read_only)
		return true;
	qg_admin_answer_error(http, QG_E_DENIED, "%s may look, but change nothing", user->name);
	return false;
}

bool
qg_admin_is_scraper(const qg_http_request *http)
{
	return qg_http_peer(http) == &scraper;
}

static void
on_refused(int status, const char *method, const char *path, void *ctx)
{
	(void)ctx;
	qg_log(QG_LOG_INFO, MODULE, "event=refused status=%d method=%s path=%s", status, qg_log_safe(method),
	       qg_log_safe(path));
}

/* --- answers -------------------------------------------------------------------- */

static const struct {
	qg_err err;
	int status;
} statuses[] = {
	{QG_E_INVAL, 400}, {QG_E_PARSE, 400}, {QG_E_RANGE, 400}, {QG_E_DENIED, 403},
	{QG_E_NOTFOUND, 404}, {QG_E_STATE, 409}, {QG_E_EXISTS, 409}, {QG_E_FULL, 409},
};

static int
status_of(qg_err err)
{
	for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++)
		if (statuses[i].err == err)
			return statuses[i].status;
	return 503;
}

void
qg_admin_answer(qg_http_request *http, int status, json_t *body)
{
	static const char no_memory[] = "{\"message\":\"out of memory\"}";
	const bool whole = !qg_json_ran_out();
	char *text = body != NULL ? json_dumps(body, JSON_COMPACT | JSON_REAL_PRECISION(6)) : NULL;
	json_decref(body);
	qg_admin_guard_answer(http);
	if (text != NULL && whole)
		qg_http_answer(http, status, JSON_TYPE, text, strlen(text));
	else
		qg_http_answer(http, 503, JSON_TYPE, no_memory, sizeof no_memory - 1);
	free(text);
}

void
qg_admin_answer_error(qg_http_request *http, qg_err err, const char *fmt, ...)
{
	char text[1024];
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof text, fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	for (char *c = text; *c != '\0'; c++)
		if ((unsigned char)*c >= 0x7f) /* cut in the middle, it might be no UTF-8 */
			*c = '?';
	qg_admin_answer(http, status_of(err), json_pack("{s:s}", "message", text));
}

static size_t
error_body(int status, const char *text, char *buf, size_t room)
{
	(void)status;
	json_t *object = json_pack("{s:s}", "message", text);
	size_t len = json_dumpb(object, buf, room, JSON_COMPACT);
	json_decref(object);
	return len <= room ? len : 0;
}

long
qg_admin_find_stream(qg_admin *a, qg_http_request *http, const char *name)
{
	const qg_config *cfg = a->p.cfg;
	const char *names[64];
	size_t n = 0;
	for (size_t i = 0; i < cfg->n_streams; i++) {
		if (strcmp(cfg->streams[i].name, name) == 0)
			return (long)i;
		if (n < sizeof names / sizeof names[0])
			names[n++] = cfg->streams[i].name;
	}
	const char *near = qg_nearest(name, names, n);
	qg_admin_answer_error(http, QG_E_NOTFOUND, "no stream %s%s%s%s", qg_log_safe(name),
			      near != NULL ? ": is " : "", near != NULL ? near : "", near != NULL ? " meant?" : "");
	return -1;
}

void
qg_admin_on_openapi(qg_http_request *http, void *admin)
{
	(void)admin;
	qg_http_answer(http, 200, "application/yaml", qg_embed_openapi_admin_yaml, qg_embed_openapi_admin_yaml_len);
}

/* --- listeners ------------------------------------------------------------------- */

static qg_http_options
common_options(qg_admin *a)
{
	return (qg_http_options){
		.threads = 1,
		.idle_timeout_s = LOCAL_IDLE_S,
		.routes = routes,
		.n_routes = N_ROUTES,
		.error_body = error_body,
		.error_type = JSON_TYPE,
		.ctx = a,
		.on_refused = on_refused,
	};
}

static qg_err
listen_local(qg_admin *a, char *why, size_t why_room)
{
	qg_http_options o = common_options(a);
	if (a->cfg->socket == NULL)
		return QG_OK;
	o.transport = QG_HTTP_UNIX;
	o.address = a->cfg->socket;
	o.socket_mode = a->cfg->socket_mode;
	o.socket_group = a->cfg->socket_group;
	o.max_connections = LOCAL_CONNECTIONS;
	o.identify_local = identify_local;
	return qg_http_server_start(&o, &a->local, why, why_room);
}

static qg_err
listen_https(qg_admin *a, char *why, size_t why_room)
{
	const qg_config_listener *l = &a->cfg->listener;
	qg_http_options o = common_options(a);
	if (!a->cfg->has_listener)
		return QG_OK;
	if (a->cfg->n_users == 0 && a->sign_in == NULL) {
		(void)snprintf(why, why_room, "admin.listener: no authentication, there are no admins");
		return QG_E_INVAL;
	}
	o.transport = QG_HTTP_TLS;
	o.address = l->address;
	o.port = l->port;
	o.tls = l->tls;
	o.max_connections = l->max_connections;
	o.max_per_address = l->max_per_address;
	if (o.max_per_address == 0 && a->sign_in != NULL) /* who has nothing to show gets through the handshake, too */
		o.max_per_address = l->max_connections / 4 + 1;
	o.address_handshakes_per_s = l->address_handshakes_per_s;
	o.idle_timeout_s = l->idle_timeout_s;
	o.identify = identify;
	if (a->sign_in != NULL) {
		o.certificate_optional = true;
		o.identify_request = qg_admin_identify_request;
		o.forget_request = qg_admin_forget_request;
		o.is_open = is_open;
	}
	return qg_http_server_start(&o, &a->https, why, why_room);
}

static qg_err
listen_scrape(qg_admin *a, char *why, size_t why_room)
{
	qg_http_options o = common_options(a);
	if (!a->cfg->has_scrape)
		return QG_OK;
	o.transport = QG_HTTP_PLAIN;
	o.address = a->cfg->scrape_address;
	o.port = a->cfg->scrape_port;
	o.n_routes = N_SCRAPED;
	o.max_connections = SCRAPE_CONNECTIONS;
	o.identify_local = identify_scraper;
	return qg_http_server_start(&o, &a->scrape, why, why_room);
}

qg_err
qg_admin_start(const qg_admin_parts *parts, qg_admin **out, char *why, size_t why_room)
{
	*out = NULL;
	if (!parts->cfg->admin.given)
		return QG_OK;
	qg_admin *a = calloc(1, sizeof *a);
	if (a == NULL)
		return QG_E_NOMEM;
	a->p = *parts;
	a->cfg = &parts->cfg->admin;
	a->started_ms = qg_clock_wall_ms();
	a->begun_ms = qg_clock_elapsed_ms();
	pthread_mutex_init(&a->acting, NULL);
	pthread_mutex_init(&a->looking, NULL);
	qg_err err = qg_admin_rates_start(parts->core, &a->rates);
	if (err == QG_OK)
		err = qg_admin_sign_in_start(a, why, why_room);
	if (err == QG_OK)
		err = listen_local(a, why, why_room);
	if (err == QG_OK)
		err = listen_https(a, why, why_room);
	if (err == QG_OK)
		err = listen_scrape(a, why, why_room);
	if (err != QG_OK) {
		qg_admin_stop(&a);
		return err;
	}
	*out = a;
	return QG_OK;
}

qg_err
qg_admin_reload_tls(qg_admin *a, const qg_tls_files *f, char *why, size_t why_room)
{
	if (a != NULL)
		qg_admin_forget_alarms(a); /* files of other listeners may be new ones, too */
	return a != NULL && a->https != NULL ? qg_http_server_reload_tls(a->https, f, why, why_room) : QG_OK;
}

void
qg_admin_renew(qg_admin *a)
{
	if (a != NULL && a->https != NULL)
		qg_http_server_identify_again(a->https);
}

void
qg_admin_stop(qg_admin **a)
{
	if (a == NULL || *a == NULL)
		return;
	qg_http_server_stop(&(*a)->scrape);
	qg_http_server_stop(&(*a)->https);
	qg_http_server_stop(&(*a)->local);
	while (atomic_load(&(*a)->trying) > 0) /* a few seconds at most; their answers are dropped */
		(void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	qg_admin_sign_in_stop(*a);
	qg_admin_rates_stop(&(*a)->rates);
	json_decref((*a)->certificates);
	pthread_mutex_destroy(&(*a)->looking);
	pthread_mutex_destroy(&(*a)->acting);
	free(*a);
	*a = NULL;
}
