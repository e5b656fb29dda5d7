/* SPDX-License-Identifier: Apache-2.0 */
/* GET /api/v1/...: what the core shows of itself, as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "admin_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "qkdgate/version.h"

static void
put(json_t *object, const char *name, json_t *value)
{
	(void)json_object_set_new(object, name, value); /* qg_admin_answer sees that one is missing */
}

static void
put_number(json_t *object, const char *name, uint64_t value)
{
	put(object, name, json_integer((json_int_t)value));
}

static json_t *
text_or_null(const char *text)
{
	return text != NULL ? json_string(text) : json_null();
}

/* --- streams --------------------------------------------------------------------- */

static const char *const directions[] = {
	[QG_DIRECTION_OUTBOUND] = "outbound",
	[QG_DIRECTION_INBOUND] = "inbound",
	[QG_DIRECTION_SHARED] = "shared",
};

static json_t *
ksid_of(const qg_stream_view *v)
{
	char text[QG_UUID_TEXT];
	if (!v->has_ksid)
		return json_null();
	qg_uuid_format(&v->ksid, text);
	return json_string(text);
}

/* Seconds until what is ready runs out; null while it does not fall. */
static json_t *
eta_of(const qg_stream_view *v, const qg_admin_rate *rate)
{
	const double falls_bps = rate->out_bps - rate->in_bps;
	const double ready_bits = (double)v->ready_chunks * v->cfg->chunk_size * 8;
	return falls_bps > 1.0 && v->cfg->direction != QG_DIRECTION_INBOUND ? json_real(ready_bits / falls_bps)
									     : json_null();
}

static json_t *
stream_json(qg_admin *a, size_t i)
{
	qg_stream_view v;
	qg_admin_rate rate;
	qg_core_view_stream(a->p.core, i, &v);
	qg_admin_rates_of(a->rates, i, &rate);
	const qg_config_stream *c = v.cfg;
	json_t *j = json_pack("{s:s,s:s,s:s,s:b,s:s}", "name", c->name, "neighbour", c->neighbour, "direction",
			      directions[c->direction], "virtual", c->relayed, "state",
			      qg_stream_state_name(v.state));
	put(j, "ksid", ksid_of(&v));
	put(j, "profile", c->relayed ? json_null() : json_string(qg_config_profile_name(c->source.profile)));
	put(j, "agreed", json_boolean(v.agreed));
	put(j, "full", json_boolean(v.full));
	put(j, "trouble", text_or_null(v.trouble));
	put(j, "source_failure", text_or_null(v.source_failure));
	put_number(j, "open_failures", v.open_fails);
	put_number(j, "epochs", v.epochs);
	put(j, "epoch_age_s", v.epoch_created_ms != 0 && qg_clock_wall_ms() > v.epoch_created_ms
				      ? json_integer((qg_clock_wall_ms() - v.epoch_created_ms) / 1000)
				      : json_null());
	put_number(j, "chunk_bytes", c->chunk_size);
	put_number(j, "segment_chunks", c->segment_chunks);
	put_number(j, "next_index", v.next_index);
	put_number(j, "mark", v.mark);
	put_number(j, "ready_chunks", v.ready_chunks);
	put_number(j, "ready_bytes", v.ready_chunks * c->chunk_size);
	put_number(j, "most_chunks", v.most_chunks);
	put_number(j, "held_chunks", v.held_chunks);
	put_number(j, "node_bytes", v.node_bytes);
	put_number(j, "taken_chunks", v.taken_chunks);
	put_number(j, "issued_chunks", v.issued_chunks);
	put_number(j, "fetched_chunks", v.fetched_chunks);
	put_number(j, "segments", v.segments);
	put_number(j, "bad_segments", v.bad_segments);
	put(j, "in_bps", json_real(rate.in_bps));
	put(j, "out_bps", json_real(rate.out_bps));
	put(j, "empty_in_s", eta_of(&v, &rate));
	return j;
}

static json_t *
streams_json(qg_admin *a)
{
	json_t *list = json_array();
	for (size_t i = 0; i < qg_core_view_streams(a->p.core); i++)
		(void)json_array_append_new(list, stream_json(a, i));
	return list;
}

void
qg_admin_on_streams(qg_http_request *http, void *admin)
{
	qg_admin_answer(http, 200, json_pack("{s:o}", "streams", streams_json(admin)));
}

void
qg_admin_on_stream(qg_http_request *http, void *admin)
{
	const long i = qg_admin_find_stream(admin, http, qg_http_path_part(http, 0));
	if (i >= 0)
		qg_admin_answer(http, 200, stream_json(admin, (size_t)i));
}

/* --- node, neighbours, routes -------------------------------------------------------- */

static json_t *
node_json(qg_admin *a)
{
	qg_admin_health h;
	qg_admin_look(a, &h);
	json_t *j = json_pack("{s:s,s:s,s:I,s:I,s:b,s:b,s:b}", "kme", a->p.cfg->kme_id, "version", QG_VERSION,
			      "started_ms", (json_int_t)a->started_ms, "uptime_s",
			      (json_int_t)((qg_clock_elapsed_ms() - a->begun_ms) / 1000), "alive", h.alive, "ready",
			      h.ready, "draining", a->p.ops->draining(a->p.ctx));
	json_t *reasons = json_array();
	for (size_t i = 0; i < h.n; i++)
		(void)json_array_append_new(reasons, json_string(h.reason[i]));
	put(j, "reasons", reasons);
	put(j, "time_ms", json_integer(qg_clock_wall_ms()));
	return j;
}

void
qg_admin_on_node(qg_http_request *http, void *admin)
{
	qg_admin_answer(http, 200, node_json(admin));
}

static json_t *
neighbours_json(qg_admin *a)
{
	json_t *list = json_array();
	for (size_t i = 0; i < qg_core_view_neighbours(a->p.core); i++) {
		qg_neighbour_view v;
		qg_core_view_neighbour(a->p.core, i, &v);
		json_t *streams = json_array();
		for (size_t k = 0; k < a->p.cfg->n_streams; k++)
			if (strcmp(a->p.cfg->streams[k].neighbour, v.cfg->id) == 0)
				(void)json_array_append_new(streams, json_string(a->p.cfg->streams[k].name));
		json_t *j = json_pack("{s:s,s:s,s:b,s:o}", "kme", v.cfg->id, "url", v.cfg->url, "answered",
				      v.answered, "streams", streams);
		put(j, "link", text_or_null(v.link));
		qg_err last = QG_OK;
		uint64_t ago_ms = 0;
		const bool called = a->p.ops->reached(a->p.ctx, v.cfg->id, &last, &ago_ms);
		put(j, "reached", called ? json_boolean(last == QG_OK) : json_null());
		put(j, "failure", called && last != QG_OK ? json_string(qg_err_text(last)) : json_null());
		put(j, "called_s_ago", called ? json_integer((json_int_t)(ago_ms / 1000)) : json_null());
		(void)json_array_append_new(list, j);
	}
	return list;
}

void
qg_admin_on_neighbours(qg_http_request *http, void *admin)
{
	qg_admin_answer(http, 200, json_pack("{s:o}", "neighbours", neighbours_json(admin)));
}

static json_t *
route_json(const qg_route_view *v, size_t i)
{
	json_t *nodes = json_array();
	for (size_t k = 0; k < v->route[i].n_nodes; k++)
		(void)json_array_append_new(nodes, json_string(v->route[i].node[k]));
	return json_pack("{s:o,s:I}", "nodes", nodes, "cost", (json_int_t)v->route[i].cost);
}

static json_t *
routes_json(qg_admin *a)
{
	json_t *list = json_array();
	for (size_t i = 0; i < a->p.cfg->n_streams; i++) {
		qg_route_view v;
		if (qg_core_view_routes(a->p.core, i, &v) != QG_OK)
			continue;
		json_t *ways = json_array();
		for (size_t k = 0; k < v.n; k++)
			(void)json_array_append_new(ways, route_json(&v, k));
		const qg_config_stream *c = &a->p.cfg->streams[i];
		(void)json_array_append_new(list, json_pack("{s:s,s:s,s:i,s:o}", "stream", c->name, "to", c->neighbour,
							    "paths", (int)c->relay.paths, "routes", ways));
	}
	return list;
}

void
qg_admin_on_routes(qg_http_request *http, void *admin)
{
	qg_admin_answer(http, 200, json_pack("{s:o}", "routes", routes_json(admin)));
}

void
qg_admin_on_transfers(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	qg_core_figures f;
	json_t *list = NULL, *next = NULL;
	if (!qg_admin_transfers_page(a, http, &list, &next))
		return;
	qg_core_view_figures(a->p.core, &f);
	json_t *j = json_object();
	put_number(j, "records", f.transfers);
	put_number(j, "keys", f.transfer_keys);
	put_number(j, "voiding", f.transfers_voiding);
	json_t *relay = json_object();
	put_number(relay, "sent", f.relay_sent);
	put_number(relay, "delivered", f.relay_delivered);
	put_number(relay, "forwarded", f.relay_forwarded);
	put_number(relay, "forwarded_bytes", f.relay_forwarded_bytes);
	put_number(relay, "taken", f.relay_taken);
	put_number(relay, "repeated", f.relay_repeated);
	put_number(relay, "refused", f.relay_refused);
	put_number(relay, "wrong", f.relay_wrong);
	put(j, "relay", relay);
	put(j, "list", list);
	put(j, "next", next);
	qg_admin_answer(http, 200, j);
}

/* --- SAEs ------------------------------------------------------------------------------ */

static json_t *
sae_json(qg_admin *a, const char *id, bool in_file)
{
	qg_sae_use u;
	qg_etsi014_use(a->p.etsi014, id, &u);
	json_t *j = json_pack("{s:s,s:s,s:b}", "id", id, "origin", in_file ? "file" : "run-time", "suspended", u.suspended);
	put_number(j, "requests", u.requests);
	put_number(j, "issued", u.issued);
	put_number(j, "fetched", u.fetched);
	put_number(j, "refused", u.refused);
	put_number(j, "limited", u.limited);
	put(j, "last_ms", u.last_ms != 0 ? json_integer(u.last_ms) : json_null());
	return j;
}

static void
add_pair(const char *one, const char *other, void *ctx)
{
	(void)json_array_append_new(ctx, json_pack("[s,s]", one, other));
}

void
qg_admin_on_saes(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	const qg_config *cfg = qg_directory_config(a->p.directory);
	json_t *list = json_array(), *pairs = json_array();
	for (size_t i = 0; i < cfg->n_saes; i++)
		(void)json_array_append_new(list, sae_json(a, cfg->saes[i].id, i < cfg->n_file_saes));
	qg_etsi014_suspended_pairs(a->p.etsi014, add_pair, pairs);
	json_t *names = NULL, *left_out = qg_admin_left_out(a, "saes", &names);
	json_decref(names);
	qg_admin_answer(http, 200, json_pack("{s:o,s:o,s:o}", "saes", list, "suspended_pairs", pairs, "left_out", left_out));
}

void
qg_admin_on_limits(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	const qg_config *cfg = qg_directory_config(a->p.directory);
	json_t *hit = json_array(), *j = json_object();
	for (size_t i = 0; i < cfg->n_saes; i++) {
		qg_sae_use u;
		qg_etsi014_use(a->p.etsi014, cfg->saes[i].id, &u);
		if (u.limited > 0)
			(void)json_array_append_new(hit, json_pack("{s:s,s:I}", "sae", cfg->saes[i].id, "limited",
								   (json_int_t)u.limited));
	}
	put_number(j, "sae_keys_per_s", cfg->sae_keys_per_s);
	put_number(j, "sae_requests_per_s", cfg->sae_requests_per_s);
	put_number(j, "pair_chunks", a->p.cfg->pair_chunks);
	put(j, "hit", hit);
	qg_admin_answer(http, 200, j);
}

/* --- certificates ------------------------------------------------------------------------ */

typedef struct cert_list {
	json_t *list;
	const char *of;
	int64_t now_s;
} cert_list;

static void
add_item(const qg_tls_item *item, void *ctx)
{
	cert_list *l = ctx;
	json_t *j = json_pack("{s:s,s:s,s:s,s:s*}", "of", l->of, "what", item->what, "file", item->file, "name",
			      item->name);
	put(j, "from_s", json_integer(item->from_s));
	put(j, "until_s", item->until_s != 0 ? json_integer(item->until_s) : json_null());
	put(j, "expires_in_s", item->until_s != 0 ? json_integer(item->until_s - l->now_s) : json_null());
	(void)json_array_append_new(l->list, j);
}

static void
add_files(const char *of, const qg_tls_files *f, void *ctx)
{
	cert_list *l = ctx;
	l->of = of;
	if (qg_tls_describe(f, add_item, l) != QG_OK)
		(void)json_array_append_new(
			l->list, json_pack("{s:s,s:s,s:s,s:s,s:n,s:n,s:n}", "of", of, "what", "unreadable", "file",
					   f->certificate, "name", "", "from_s", "until_s", "expires_in_s"));
}

void
qg_admin_each_files(const qg_config *cfg, qg_admin_files_fn *each, void *ctx)
{
	each("sae_listener", &cfg->sae.tls, ctx);
	each("kms_listener", &cfg->kms.tls, ctx);
	each("kms_client", &cfg->kms_client, ctx);
	if (cfg->kxi.address != NULL)
		each("kxi_listener", &cfg->kxi.tls, ctx);
	if (cfg->app_listener.present)
		each("app_listener", &cfg->app_listener.at.tls, ctx);
	if (cfg->push.address != NULL)
		each("push_listener", &cfg->push.tls, ctx);
	if (cfg->admin.has_listener)
		each("admin.listener", &cfg->admin.listener.tls, ctx);
	for (size_t i = 0; i < cfg->n_streams; i++)
		if (!cfg->streams[i].relayed && cfg->streams[i].source.tls)
			each(cfg->streams[i].name, &cfg->streams[i].source.files, ctx);
}

void
qg_admin_on_certificates(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	cert_list l = {.list = json_array(), .now_s = qg_clock_wall_ms() / 1000};
	qg_admin_each_files(qg_directory_config(a->p.directory), add_files, &l);
	qg_admin_answer(http, 200, json_pack("{s:o}", "certificates", l.list));
}

/* --- store and logs ------------------------------------------------------------------------ */

static json_t *
file_json(const char *what, const char *path)
{
	struct stat st;
	struct statvfs fs;
	json_t *j = json_pack("{s:s,s:s}", "what", what, "file", path);
	put(j, "bytes", stat(path, &st) == 0 ? json_integer((json_int_t)st.st_size) : json_null());
	put(j, "free_bytes", statvfs(path, &fs) == 0 ? json_integer((json_int_t)(fs.f_bavail * fs.f_frsize))
						      : json_null());
	return j;
}

void
qg_admin_on_store(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	qg_core_figures f;
	qg_core_view_figures(a->p.core, &f);
	const qg_config *cfg = a->p.cfg;
	json_t *files = json_array(), *j = json_object();
	(void)json_array_append_new(files, file_json("database", cfg->database));
	(void)json_array_append_new(files, file_json("anchor", cfg->anchor));
	(void)json_array_append_new(files, file_json("key_ring", cfg->key_ring));
	(void)json_array_append_new(files, file_json("audit", cfg->audit_file));
	put(j, "database_works", json_boolean(f.commits.works));
	put(j, "anchor_works", json_boolean(f.anchor_works));
	put(j, "audit_works", json_boolean(f.audit_works));
	put(j, "master_key_pending", json_boolean(a->p.ops->master_pending(a->p.ctx)));
	put_number(j, "commits", f.commits.groups);
	put_number(j, "jobs", f.commits.jobs);
	put_number(j, "failures", f.commits.failures);
	put(j, "mean_commit_ms", f.commits.groups > 0 ? json_real((double)f.commits.sum_ns / 1e6 / (double)f.commits.groups)
						     : json_null());
	put(j, "files", files);
	qg_admin_answer(http, 200, j);
}

static void
add_level(const char *module, qg_log_level level, void *ctx)
{
	put(ctx, module, json_string(qg_log_level_name(level)));
}

void
qg_admin_on_logs(qg_http_request *http, void *admin)
{
	static const char *const places[] = {
		[QG_LOG_STDERR] = "stderr", [QG_LOG_JOURNAL] = "journal", [QG_LOG_FILE] = "file"};
	const qg_admin *a = admin;
	const qg_log_state state = qg_log_get_state();
	json_t *modules = json_object(), *j;
	qg_log_levels(add_level, modules);
	j = json_pack("{s:s,s:o,s:s,s:b}", "level", qg_log_level_name(qg_log_get_level()), "modules", modules, "to",
		      places[a->p.cfg->log_to], "works", state.works);
	put(j, "file", a->p.cfg->log_to == QG_LOG_FILE ? json_string(a->p.cfg->log_file) : json_null());
	put_number(j, "lost", state.lost);
	qg_admin_answer(http, 200, j);
}

/* --- all in one ------------------------------------------------------------------------------ */

void
qg_admin_on_status(qg_http_request *http, void *admin)
{
	qg_admin_answer(http, 200, json_pack("{s:o,s:o,s:o,s:o}", "node", node_json(admin), "neighbours",
					     neighbours_json(admin), "streams", streams_json(admin), "routes",
					     routes_json(admin)));
}
