/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/etsi014.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "etsi014_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/embed.h"
#include "qkdgate/log.h"

#define MODULE "etsi014"

/* Lines in the audit log for all certificates together that name no SAE: who
 * has one could else fill the disk. */
#define STRANGERS_PER_S 10
#define STRANGERS_BURST 100

/* --- who may ask what ------------------------------------------------------- */

/* The pair first: only where it fails does it matter whether `other` exists. */
static qg_err
check_pair(qg_014_call *call)
{
	const qg_config *cfg = qg_directory_config(call->s->parts.directory);
	const qg_err err = qg_policy_pair(cfg, call->master, call->slave, &call->terms);
	call->other_home = qg_directory_home(call->s->parts.directory, call->other);
	if (err == QG_OK && call->other_home != NULL)
		return qg_directory_home_suspended(call->s->parts.directory, call->other_home) ? QG_E_DENIED : QG_OK;
	if (call->other_home != NULL || !qg_policy_may_know(cfg, call->caller, call->other))
		return QG_E_DENIED;
	qg_014_say(&call->why, call->method == QG_014_DEC ? "unknown master_SAE_ID" : "unknown slave_SAE_ID");
	return QG_E_INVAL;
}

static void
narrow(uint32_t *limit, uint32_t most)
{
	if (*limit > most)
		*limit = most;
}

/* Terms and stock become one set of limits, so that a Status tells what
 * enc_keys will grant. */
static void
narrow_terms(qg_014_call *call)
{
	qg_policy_terms *t = &call->terms;
	narrow(&t->max_keys, QG_KEYSTORE_KEYS_MAX);
	narrow(&t->max_extra_slaves, QG_014_EXTRA_MAX);
	if (call->method == QG_014_DEC)
		return;
	qg_keystore_level_of(call->s->parts.keystore, call->other_home, &call->level);
	if (call->level.max_key_bytes > 0 && call->level.max_key_bytes < UINT32_MAX / 8)
		narrow(&t->max_key_bits, call->level.max_key_bytes * 8);
	narrow(&t->default_key_bits, t->max_key_bits);
}

static qg_err
check_path(qg_014_call *call)
{
	const char *field = call->method == QG_014_DEC ? "master_SAE_ID" : "slave_SAE_ID";
	const char *other = qg_http_path_part(call->http, 0);
	if (!qg_014_sae_id_valid(other)) {
		qg_014_say(&call->why, "%s is blank or malformed, or longer than %d bytes", field,
			   QG_014_SAE_ID_MAX);
		return QG_E_INVAL;
	}
	call->other = other;
	call->master = call->method == QG_014_DEC ? call->other : call->caller;
	call->slave = call->method == QG_014_DEC ? call->caller : call->other;
	if (strcmp(call->caller, call->other) != 0)
		return QG_OK;
	qg_014_say(&call->why, "%s is the caller's own ID", field);
	return QG_E_INVAL;
}

qg_err
qg_014_admit(qg_etsi014 *s, qg_http_request *http, qg_014_method method, qg_014_call *call)
{
	/* 401 before any handler if there is none; its figures change. */
	qg_014_sae *caller = (qg_014_sae *)(uintptr_t)qg_http_peer(http);
	call->s = s;
	call->http = http;
	call->method = method;
	call->sae = caller;
	call->caller = caller->id;
	call->other = "";
	call->why.n_details = 0;
	/* First of all: what is refused below leaves a line in the audit log. */
	uint32_t retry_after_s = 0;
	atomic_fetch_add_explicit(&caller->requests, 1, memory_order_relaxed);
	qg_err err = qg_limits_take(s->requests, call->caller, 1, qg_clock_elapsed_ms(), &retry_after_s);
	if (err == QG_OK)
		err = check_path(call);
	if (err == QG_OK)
		err = check_pair(call);
	if (err == QG_OK && qg_014_is_suspended(s->uses, caller, call->other))
		err = QG_E_DENIED;
	if (err == QG_OK)
		narrow_terms(call);
	else
		qg_014_refuse(call, err, retry_after_s, NULL, 0);
	return err;
}

size_t
qg_014_args(qg_http_request *http, qg_014_arg args[QG_014_ARGS_MAX])
{
	size_t n = qg_http_query_count(http);
	if (n > QG_014_ARGS_MAX)
		n = QG_014_ARGS_MAX; /* one of them is refused */
	for (size_t i = 0; i < n; i++)
		qg_http_query_at(http, i, &args[i].name, &args[i].value);
	return n;
}

qg_err
qg_014_posted(qg_014_call *call, const char **body, size_t *len)
{
	qg_014_arg args[QG_014_ARGS_MAX];
	const qg_err err = qg_014_no_query(args, qg_014_args(call->http, args), &call->why);
	if (err != QG_OK)
		return err;
	*body = qg_http_body(call->http, len);
	if (*len == 0 || qg_014_type_is_json(qg_http_header(call->http, "Content-Type")))
		return QG_OK;
	qg_014_say(&call->why, "Content-Type must be application/json");
	return QG_E_INVAL;
}

qg_err
qg_014_take(qg_014_call *call, size_t n, uint32_t *retry_after_s)
{
	if (!qg_audit_healthy(call->s->parts.audit))
		return QG_E_IO; /* no key leaves without a record */
	if (call->method == QG_014_ENC && atomic_load_explicit(&call->s->draining, memory_order_relaxed))
		return QG_E_CLOSED;
	return qg_limits_take(call->s->keys, call->caller, (uint32_t)n, qg_clock_elapsed_ms(), retry_after_s);
}

/* --- audit --------------------------------------------------------------------- */

static void
count_event(const qg_014_key_event *e)
{
	qg_014_sae *sae = e->sae;
	_Atomic uint64_t *const delivered = e->method == QG_014_ENC ? &sae->issued : &sae->fetched;
	if (e->err == QG_OK)
		atomic_fetch_add_explicit(delivered, e->n, memory_order_relaxed);
	else
		atomic_fetch_add_explicit(&sae->refused, 1, memory_order_relaxed);
	if (e->err == QG_E_LIMIT)
		atomic_fetch_add_explicit(&sae->limited, 1, memory_order_relaxed);
	atomic_store_explicit(&sae->last_ms, qg_clock_wall_ms(), memory_order_relaxed);
}

static void
account(const qg_etsi014 *s, const qg_014_key_event *e)
{
	const bool given = e->err == QG_OK, enc = e->method == QG_014_ENC;
	const uint64_t keys = given ? e->n : 0, bits = given && e->bits != 0 ? e->bits : keys * e->size_bits;
	const qg_account_rec rec = {
		.sae = e->caller,
		.other = e->other,
		.requests = 1,
		.issued = enc ? keys : 0,
		.issued_bits = enc ? bits : 0,
		.fetched = enc ? 0 : keys,
		.fetched_bits = enc ? 0 : bits,
		.refused = !given,
		.limited = e->err == QG_E_LIMIT,
	};
	if (e->method != QG_014_STATUS)
		qg_accounts_count(s->parts.accounts, &rec, given);
}

static void
log_event(const qg_014_key_event *e)
{
	static const char *const names[] = {
		[QG_014_STATUS] = "status", [QG_014_ENC] = "enc_keys", [QG_014_DEC] = "dec_keys"};
	qg_log(QG_LOG_DEBUG, MODULE, "event=answered method=%s sae=%s other=%s keys=%zu result=\"%s\"",
	       names[e->method], qg_log_safe(e->caller), qg_log_safe(e->other), e->n,
	       e->err == QG_OK ? "ok" : qg_014_reason(e->method, e->err));
}

void
qg_014_audit(const qg_etsi014 *s, const qg_014_key_event *e)
{
	count_event(e);
	account(s, e);
	if (qg_log_wants(QG_LOG_DEBUG, MODULE))
		log_event(e);
	if (e->method == QG_014_STATUS)
		return;
	/* Rates protect the log too: what they refuse has a line a minute. No refusal has
	 * one while the log cannot be written: its queue is kept for keys. */
	if (e->err == QG_E_LIMIT) {
		qg_audit_limited(s->parts.audit, e->caller);
		return;
	}
	if (e->err != QG_OK && !qg_audit_healthy(s->parts.audit))
		return;
	const qg_audit_act delivered = e->method == QG_014_ENC ? QG_AUDIT_ISSUED : QG_AUDIT_FETCHED;
	const qg_audit_event event = {
		.act = e->err == QG_OK ? delivered : QG_AUDIT_REFUSED,
		.caller = e->caller,
		.peer = e->other,
		.reason = e->err == QG_OK ? "" : qg_014_reason(e->method, e->err),
		.size_bits = e->size_bits,
		.ids = e->ids,
		.n_ids = e->n,
	};
	qg_audit_write(s->parts.audit, &event);
}

void
qg_014_refuse(qg_014_call *call, qg_err err, uint32_t retry_after_s, const qg_uuid *ids, size_t n)
{
	qg_014_audit(call->s, &(qg_014_key_event){
				      .method = call->method,
				      .sae = call->sae,
				      .err = err,
				      .caller = call->caller,
				      .other = call->other,
				      .ids = ids,
				      .n = n,
			      });
	qg_014_outcome outcome = {
		.method = call->method, .err = err, .retry_after_s = retry_after_s, .why = &call->why};
	qg_014_answer(call->http, &outcome);
}

/* What the HTTP server refused by itself. */
static void
on_refused(int status, const char *method, const char *path, void *ctx)
{
	const qg_etsi014 *s = ctx;
	qg_log(QG_LOG_DEBUG, MODULE, "event=refused status=%d method=%s path=%s", status,
	       qg_log_safe(method), qg_log_safe(path));
	uint32_t retry_after_s;
	if (status != 401 || !qg_audit_healthy(s->parts.audit) ||
	    qg_limits_take(s->strangers, "", 1, qg_clock_elapsed_ms(), &retry_after_s) != QG_OK)
		return;
	const qg_audit_event event = {
		.act = QG_AUDIT_REFUSED,
		.caller = "",
		.peer = "",
		.reason = "certificate names no registered SAE",
	};
	qg_audit_write(s->parts.audit, &event);
}

/* --- the server ------------------------------------------------------------------ */

static void
get_openapi(qg_http_request *http, void *ctx)
{
	(void)ctx; /* every registered SAE may read it */
	qg_http_answer(http, 200, "application/yaml", qg_embed_openapi_etsi014_yaml,
		       qg_embed_openapi_etsi014_yaml_len);
}

/* Has a body of at most limits.body_bytes where the limit here is not 0. */
static const qg_http_route routes[] = {
	{"GET", "/api/v1/keys/{slave_SAE_ID}/status", qg_014_get_status, 0},
	{"GET", "/api/v1/keys/{slave_SAE_ID}/enc_keys", qg_014_get_enc, 0},
	{"POST", "/api/v1/keys/{slave_SAE_ID}/enc_keys", qg_014_post_enc, 1},
	{"GET", "/api/v1/keys/{master_SAE_ID}/dec_keys", qg_014_get_dec, 0},
	{"POST", "/api/v1/keys/{master_SAE_ID}/dec_keys", qg_014_post_dec, 1},
	{"GET", "/openapi.yaml", get_openapi, 0},
};
#define N_ROUTES (sizeof routes / sizeof routes[0])

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	const qg_etsi014 *s = ctx;
	const qg_config_sae *sae = qg_directory_identify(s->parts.directory, id);
	return sae != NULL ? qg_014_uses_get(s->uses, sae->id) : NULL;
}

/* Fetches that come in together are committed together. */
static void
running(bool begins, void *ctx)
{
	const qg_etsi014 *s = ctx;
	qg_keystore_gather(s->parts.keystore, begins);
}

/* Every request that policy allows must fit an idle SAE's bucket. */
static uint32_t
keys_burst(const qg_config *cfg)
{
	uint32_t burst = cfg->sae_keys_per_s;
	for (size_t i = 0; i < cfg->n_policy; i++) {
		uint32_t most = cfg->policy[i].max_keys;
		narrow(&most, QG_KEYSTORE_KEYS_MAX);
		if (burst < most)
			burst = most;
	}
	return burst;
}

/* --- over a restart --------------------------------------------------------------- */

#define RATES(s) {{"requests", (s)->requests}, {"keys", (s)->keys}}
typedef struct rate {
	const char *name;
	qg_limits *limits;
} rate;

static void
take_levels(qg_etsi014 *s, const qg_etsi014_levels *levels)
{
	const rate rates[] = RATES(s);
	const uint64_t now_ms = qg_clock_elapsed_ms();
	for (size_t k = 0; k < sizeof rates / sizeof rates[0]; k++) {
		if (!levels->known)
			qg_limits_begin_empty(rates[k].limits, now_ms);
		for (size_t i = 0; i < levels->n; i++)
			if (strcmp(levels->level[i].rate, rates[k].name) == 0)
				qg_limits_put(rates[k].limits, levels->level[i].name, levels->level[i].milli,
					      levels->away_ms, now_ms);
	}
}

void
qg_etsi014_each_level(const qg_etsi014 *s, const char *sae, void (*each)(const qg_level_rec *rec, void *ctx), void *ctx)
{
	const rate rates[] = RATES(s);
	for (size_t k = 0; k < sizeof rates / sizeof rates[0]; k++) {
		qg_level_rec rec = {.rate = rates[k].name, .name = sae};
		if (qg_limits_level(rates[k].limits, sae, qg_clock_elapsed_ms(), &rec.milli))
			each(&rec, ctx);
	}
}

static qg_err
take_suspended(qg_etsi014 *s, const qg_etsi014_suspended *all)
{
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < all->n; i++) {
		const qg_suspension_rec *r = &all->rec[i];
		if (strcmp(r->kind, "peer") != 0)
			err = qg_etsi014_suspend(s, r->name, r->other[0] != '\0' ? r->other : NULL, true);
	}
	return err;
}

static qg_err
init(qg_etsi014 *s, const qg_etsi014_parts *parts)
{
	const qg_config *cfg = parts->cfg;
	s->parts = *parts;
	atomic_init(&s->pending, 0);
	s->routes = malloc(sizeof routes);
	if (s->routes == NULL)
		return QG_E_NOMEM;
	memcpy(s->routes, routes, sizeof routes);
	for (size_t i = 0; i < N_ROUTES; i++)
		if (s->routes[i].body_limit > 0)
			s->routes[i].body_limit = cfg->body_bytes;
	qg_err err = qg_limits_new(cfg->sae_requests_per_s, cfg->sae_requests_per_s, &s->requests);
	if (err == QG_OK)
		err = qg_limits_new(cfg->sae_keys_per_s, keys_burst(cfg), &s->keys);
	if (err == QG_OK)
		err = qg_limits_new(STRANGERS_PER_S, STRANGERS_BURST, &s->strangers);
	if (err == QG_OK)
		err = qg_014_uses_new(&s->uses);
	if (err == QG_OK && parts->levels != NULL)
		take_levels(s, parts->levels);
	if (err == QG_OK && parts->suspended != NULL)
		err = take_suspended(s, parts->suspended);
	s->parts.levels = NULL;
	s->parts.suspended = NULL;
	return err;
}

static qg_err
listen_on(qg_etsi014 *s, char *why, size_t why_room)
{
	qg_http_options o = qg_http_options_of(&s->parts.cfg->sae);
	o.routes = s->routes;
	o.n_routes = N_ROUTES;
	o.error_body = qg_014_http_error;
	o.error_type = "application/json";
	o.ctx = s;
	o.identify = identify;
	o.running = running;
	o.on_refused = on_refused;
	return qg_http_server_start(&o, &s->http, why, why_room);
}

static void
destroy(qg_etsi014 *s)
{
	qg_limits_free(&s->requests);
	qg_limits_free(&s->keys);
	qg_limits_free(&s->strangers);
	qg_014_uses_free(&s->uses);
	free(s->routes);
	free(s);
}

qg_err
qg_etsi014_start(const qg_etsi014_parts *parts, qg_etsi014 **out, char *why, size_t why_room)
{
	if (why_room > 0)
		why[0] = '\0';
	qg_etsi014 *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	qg_err err = init(s, parts);
	if (err == QG_OK)
		err = listen_on(s, why, why_room);
	if (err != QG_OK) {
		destroy(s);
		return err;
	}
	*out = s;
	return QG_OK;
}

const qg_http_server *
qg_etsi014_http(const qg_etsi014 *s)
{
	return s->http;
}

qg_err
qg_etsi014_reload_tls(qg_etsi014 *s, const qg_tls_files *f, char *why, size_t why_room)
{
	return qg_http_server_reload_tls(s->http, f, why, why_room);
}

void
qg_etsi014_renew(qg_etsi014 *s, const qg_config *cfg)
{
	qg_limits_set(s->requests, cfg->sae_requests_per_s, cfg->sae_requests_per_s);
	qg_limits_set(s->keys, cfg->sae_keys_per_s, keys_burst(cfg));
	qg_http_server_identify_again(s->http);
}

void
qg_etsi014_drain(qg_etsi014 *s, bool on)
{
	atomic_store(&s->draining, on);
}

void
qg_etsi014_unlisten(qg_etsi014 *s)
{
	qg_http_server_stop(&s->http);
	/* The keystore still holds requests whose answers will be dropped. */
	while (atomic_load(&s->pending) > 0)
		(void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

void
qg_etsi014_stop(qg_etsi014 **s)
{
	if (s == NULL || *s == NULL)
		return;
	qg_etsi014_unlisten(*s);
	destroy(*s);
	*s = NULL;
}
