/* SPDX-License-Identifier: Apache-2.0 */
/* GET /metrics in the text format of Prometheus. Names of ETSI GS QKD 015 where
 * it has one: skr, eskr, expected_consumption. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>

#include "admin_internal.h"
#include "qkdgate/log.h"
#include "qkdgate/version.h"

#define TYPE "text/plain; version=0.0.4; charset=utf-8"

/* --- text -------------------------------------------------------------------------- */

typedef struct text {
	char *p;
	size_t len, room;
	bool failed;
} text;

static void QG_PRINTF(2, 3)
say(text *t, const char *fmt, ...)
{
	for (int tries = 0; tries < 2 && !t->failed; tries++) {
		va_list ap;
		va_start(ap, fmt);
		const int n = vsnprintf(t->p + t->len, t->room - t->len, fmt, ap);
		va_end(ap);
		if (n >= 0 && (size_t)n < t->room - t->len) {
			t->len += (size_t)n;
			return;
		}
		const size_t room = 2 * t->room + (n > 0 ? (size_t)n : 0);
		char *more = n < 0 ? NULL : realloc(t->p, room);
		t->failed = more == NULL;
		t->p = more != NULL ? more : t->p;
		t->room = more != NULL ? room : t->room;
	}
}

static void
head(text *t, const char *name, const char *type, const char *help)
{
	say(t, "# HELP qkdgate_%s %s\n# TYPE qkdgate_%s %s\n", name, help, name, type);
}

/* Names of the configuration are printable ASCII without quote and backslash, but
 * for what is a text: those are made so. */
static void
one(text *t, const char *name, const char *type, const char *help, double value)
{
	head(t, name, type, help);
	say(t, "qkdgate_%s %.17g\n", name, value);
}

/* --- streams ------------------------------------------------------------------------- */

typedef struct stream_now {
	qg_stream_view v;
	qg_admin_rate rate;
} stream_now;

static double
effective(const qg_admin_rate *r)
{
	return r->in_bps > r->out_bps ? r->in_bps - r->out_bps : 0.0;
}

#define GET(name, value)                                \
	static double get_##name(const stream_now *s)   \
	{                                               \
		return (double)(value);                 \
	}
#define BYTES(chunks) ((double)s->v.chunks * s->v.cfg->chunk_size)
GET(skr, s->rate.in_bps)
GET(use, s->rate.out_bps)
GET(eskr, effective(&s->rate))
GET(up, s->v.state == QG_STREAM_STATE_RUNNING && s->v.source_failure == NULL)
GET(ready, BYTES(ready_chunks))
GET(most, BYTES(most_chunks))
GET(held, BYTES(held_chunks))
GET(node, s->v.node_bytes)
GET(taken, BYTES(taken_chunks))
GET(issued, BYTES(issued_chunks))
GET(fetched, BYTES(fetched_chunks))
GET(pads, s->v.pad_bytes)
GET(segments, s->v.segments)
GET(bad, s->v.bad_segments)

static const struct stream_metric {
	const char *name, *type, *help;
	double (*get)(const stream_now *s);
} stream_metrics[] = {
	{"link_skr", "gauge", "Secret key rate of the key stream in bits per second (ETSI GS QKD 015: skr).", get_skr},
	{"link_eskr", "gauge", "Of it, what is not used up: effective secret key rate (ETSI GS QKD 015: eskr).", get_eskr},
	{"link_expected_consumption", "gauge",
	 "Key used in bits per second (ETSI GS QKD 015: expected_consumption).", get_use},
	{"stream_up", "gauge", "1 while the key stream is open and its source answers.", get_up},
	{"stream_ready_bytes", "gauge", "Key that can be handed out now.", get_ready},
	{"stream_ready_limit_bytes", "gauge", "At so much ready key intake stops.", get_most},
	{"stream_held_bytes", "gauge", "Key held for fetching here.", get_held},
	{"stream_node_bytes", "gauge", "Key kept for relaying.", get_node},
	{"stream_taken_bytes_total", "counter", "Key taken from the source or relayed in.", get_taken},
	{"stream_issued_bytes_total", "counter", "Key handed out to masters.", get_issued},
	{"stream_fetched_bytes_total", "counter", "Key handed out to slaves.", get_fetched},
	{"stream_pad_bytes_total", "counter", "Key used between nodes.", get_pads},
	{"stream_segments_total", "counter", "Segments confirmed with the neighbour.", get_segments},
	{"stream_bad_segments_total", "counter", "Segments given up, mismatches among them.", get_bad},
};

static void
say_streams(qg_admin *a, text *t)
{
	const size_t n = qg_core_view_streams(a->p.core);
	stream_now *all = calloc(n + 1, sizeof *all);
	t->failed = t->failed || all == NULL;
	for (size_t i = 0; all != NULL && i < n; i++) {
		qg_core_view_stream(a->p.core, i, &all[i].v);
		qg_admin_rates_of(a->rates, i, &all[i].rate);
	}
	for (size_t m = 0; all != NULL && m < sizeof stream_metrics / sizeof stream_metrics[0]; m++) {
		head(t, stream_metrics[m].name, stream_metrics[m].type, stream_metrics[m].help);
		for (size_t i = 0; i < n; i++)
			say(t, "qkdgate_%s{stream=\"%s\",neighbour=\"%s\"} %.17g\n", stream_metrics[m].name,
			    all[i].v.cfg->name, all[i].v.cfg->neighbour, stream_metrics[m].get(&all[i]));
	}
	free(all);
}

static void
say_neighbours(qg_admin *a, text *t)
{
	head(t, "neighbour_up", "gauge", "1 when the last call to the neighbour was answered.");
	for (size_t i = 0; i < qg_core_view_neighbours(a->p.core); i++) {
		qg_neighbour_view v;
		qg_core_view_neighbour(a->p.core, i, &v);
		qg_err last = QG_OK;
		uint64_t ago_ms = 0;
		const bool up = a->p.ops->reached(a->p.ctx, v.cfg->id, &last, &ago_ms) && last == QG_OK;
		say(t, "qkdgate_neighbour_up{neighbour=\"%s\"} %d\n", v.cfg->id, up);
	}
}

/* --- requests ------------------------------------------------------------------------ */

static void
say_histogram(text *t, const char *labels, const qg_http_route_stats *r, size_t slot)
{
	uint64_t sum = 0;
	for (size_t b = 0; b <= QG_HTTP_BUCKETS; b++) {
		sum += atomic_load_explicit(&r->of[slot].bucket[b], memory_order_relaxed);
		if (b < QG_HTTP_BUCKETS)
			say(t, "qkdgate_request_seconds_bucket{%s,le=\"%g\"} %" PRIu64 "\n", labels,
			    qg_http_bucket_us[b] / 1e6, sum);
		else
			say(t, "qkdgate_request_seconds_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", labels, sum);
	}
	say(t, "qkdgate_request_seconds_sum{%s} %.9g\n", labels,
	    (double)atomic_load_explicit(&r->of[slot].sum_ns, memory_order_relaxed) / 1e9);
	say(t, "qkdgate_request_seconds_count{%s} %" PRIu64 "\n", labels, sum);
}

static void
say_route(text *t, const qg_admin_listener *l, size_t i)
{
	qg_http_route_stats sum = {0};
	const qg_http_route *route = qg_http_server_route(l->http, i);
	qg_http_server_route_stats(l->http, i, &sum);
	for (size_t slot = 0; slot < QG_HTTP_STATUSES; slot++) {
		char labels[256], status[16] = "other";
		if (atomic_load_explicit(&sum.of[slot].count, memory_order_relaxed) == 0)
			continue;
		if (qg_http_status_of[slot] != 0)
			(void)snprintf(status, sizeof status, "%d", qg_http_status_of[slot]);
		const int n = snprintf(labels, sizeof labels, "listener=\"%s\",method=\"%s\",route=\"%s\",status=\"%s\"",
				       l->name, route != NULL ? route->method : "other",
				       route != NULL ? route->pattern : "other", status);
		if (n > 0 && (size_t)n < sizeof labels)
			say_histogram(t, labels, &sum, slot);
	}
}

static void
say_requests(qg_admin *a, text *t)
{
	head(t, "request_seconds", "histogram", "Time from a request's headers to its answer, by route and status.");
	for (size_t i = 0; i < a->p.n_listeners; i++)
		for (size_t r = 0; a->p.listener[i].http != NULL && r <= qg_http_server_routes(a->p.listener[i].http); r++)
			say_route(t, &a->p.listener[i], r);
}

static void
say_listeners(qg_admin *a, text *t)
{
	qg_http_stats s[QG_ADMIN_LISTENERS_MAX];
	for (size_t i = 0; i < a->p.n_listeners; i++)
		if (a->p.listener[i].http != NULL)
			qg_http_server_stats(a->p.listener[i].http, &s[i]);
		else
			qg_byte_server_stats(a->p.listener[i].bytes, &s[i]);
	head(t, "tls_handshakes_total", "counter", "TLS handshakes that succeeded.");
	for (size_t i = 0; i < a->p.n_listeners; i++)
		say(t, "qkdgate_tls_handshakes_total{listener=\"%s\"} %" PRIu64 "\n", a->p.listener[i].name,
		    s[i].handshakes);
	head(t, "tls_handshake_failures_total", "counter", "Connections that ended before their TLS handshake did.");
	for (size_t i = 0; i < a->p.n_listeners; i++)
		say(t, "qkdgate_tls_handshake_failures_total{listener=\"%s\"} %" PRIu64 "\n", a->p.listener[i].name,
		    s[i].failed_handshakes);
	head(t, "tls_handshakes_limited_total", "counter",
	     "Connections closed before their handshake: too many from one address.");
	for (size_t i = 0; i < a->p.n_listeners; i++)
		say(t, "qkdgate_tls_handshakes_limited_total{listener=\"%s\"} %" PRIu64 "\n", a->p.listener[i].name,
		    s[i].limited);
	head(t, "connections", "gauge", "Connections that are open.");
	for (size_t i = 0; i < a->p.n_listeners; i++)
		say(t, "qkdgate_connections{listener=\"%s\"} %u\n", a->p.listener[i].name, s[i].connections);
}

/* --- core ------------------------------------------------------------------------------- */

static void
say_commits(const qg_committer_times *c, text *t)
{
	uint64_t sum = 0;
	head(t, "commit_seconds", "histogram", "Time of a transaction of the database with its sync.");
	for (size_t b = 0; b <= QG_COMMIT_BUCKETS; b++) {
		sum += c->bucket[b];
		if (b < QG_COMMIT_BUCKETS)
			say(t, "qkdgate_commit_seconds_bucket{le=\"%g\"} %" PRIu64 "\n", qg_commit_bucket_us[b] / 1e6, sum);
		else
			say(t, "qkdgate_commit_seconds_bucket{le=\"+Inf\"} %" PRIu64 "\n", sum);
	}
	say(t, "qkdgate_commit_seconds_sum %.9g\nqkdgate_commit_seconds_count %" PRIu64 "\n", (double)c->sum_ns / 1e9, sum);
	one(t, "commit_jobs_total", "counter", "Changes that were committed.", (double)c->jobs);
	one(t, "commit_failures_total", "counter", "Transactions that the database refused.", (double)c->failures);
}

static void
say_figures(qg_admin *a, text *t)
{
	qg_core_figures f;
	qg_core_view_figures(a->p.core, &f);
	say_commits(&f.commits, t);
	one(t, "database_up", "gauge", "1 while the database can be written.", f.commits.works);
	one(t, "anchor_up", "gauge", "1 while the anchor can be written.", f.anchor_works);
	one(t, "audit_up", "gauge", "1 while the audit log can be written.", f.audit_works);
	one(t, "log_up", "gauge", "1 while the operating log can be written.", qg_log_get_state().works);
	one(t, "log_lost_lines_total", "counter", "Lines of the operating log that could not be written.",
	    (double)qg_log_get_state().lost);
	one(t, "relay_sent_total", "counter", "Relay messages sent as source.", (double)f.relay_sent);
	one(t, "relay_delivered_total", "counter", "Of them, those that reached the far end.", (double)f.relay_delivered);
	one(t, "relay_forwarded_total", "counter", "Relay messages passed on for others.", (double)f.relay_forwarded);
	one(t, "relay_forwarded_bytes_total", "counter", "Key passed on for others.", (double)f.relay_forwarded_bytes);
	one(t, "relay_taken_total", "counter", "Relay messages taken in as far end.", (double)f.relay_taken);
	one(t, "relay_refused_total", "counter", "Relay messages of neighbours that were refused.", (double)f.relay_refused);
	one(t, "relay_wrong_total", "counter", "Answers of neighbours that did not verify.", (double)f.relay_wrong);
	one(t, "transfer_records", "gauge", "Records of keys with an ID of their own.", (double)f.transfers);
	one(t, "transfer_keys", "gauge", "Of them, those with a key still to be delivered.", (double)f.transfer_keys);
	one(t, "transfers_voiding", "gauge", "Of them, those being made void at other nodes.", (double)f.transfers_voiding);
}

/* --- SAEs, certificates, node ------------------------------------------------------------- */

static void
say_sae(text *t, const char *name, const char *id, uint64_t value)
{
	say(t, "qkdgate_%s", name);
	if (id != NULL)
		say(t, "{sae=\"%s\"}", id);
	say(t, " %" PRIu64 "\n", value);
}

/* By SAE, or only the sums where names are not to be told. */
static void
say_saes(qg_admin *a, text *t, bool names)
{
	static const struct {
		const char *name, *help;
		size_t at;
	} all[] = {
		{"sae_requests_total", "Requests of SAEs.", offsetof(qg_sae_use, requests)},
		{"sae_keys_issued_total", "Keys handed out to masters.", offsetof(qg_sae_use, issued)},
		{"sae_keys_fetched_total", "Keys handed out to slaves.", offsetof(qg_sae_use, fetched)},
		{"sae_refused_total", "Requests for keys that were refused.", offsetof(qg_sae_use, refused)},
		{"sae_limited_total", "Of them, those beyond a rate.", offsetof(qg_sae_use, limited)},
	};
	const qg_config *cfg = qg_directory_config(a->p.directory);
	for (size_t m = 0; m < sizeof all / sizeof all[0]; m++) {
		uint64_t sum = 0, value;
		head(t, all[m].name, "counter", all[m].help);
		for (size_t i = 0; i < cfg->n_saes; i++) {
			qg_sae_use u;
			qg_etsi014_use(a->p.etsi014, cfg->saes[i].id, &u);
			memcpy(&value, (const char *)&u + all[m].at, sizeof value);
			sum += value;
			if (names)
				say_sae(t, all[m].name, cfg->saes[i].id, value);
		}
		if (!names)
			say_sae(t, all[m].name, NULL, sum);
	}
}

typedef struct soonest {
	int64_t until_s;
} soonest;

static void
note_expiry(const qg_tls_item *item, void *ctx)
{
	soonest *s = ctx;
	if (item->until_s != 0 && (s->until_s == 0 || item->until_s < s->until_s))
		s->until_s = item->until_s;
}

static void
say_certificates(qg_admin *a, text *t)
{
	const qg_config *cfg = qg_directory_config(a->p.directory);
	const struct {
		const char *name;
		const qg_tls_files *files;
	} all[] = {
		{"sae_listener", &cfg->sae.tls}, {"kms_listener", &cfg->kms.tls}, {"kms_client", &cfg->kms_client},
		{"kxi_listener", cfg->kxi.address != NULL ? &cfg->kxi.tls : NULL},
		{"app_listener", cfg->app_listener.present ? &cfg->app_listener.at.tls : NULL},
		{"admin_listener", cfg->admin.has_listener ? &cfg->admin.listener.tls : NULL},
	};
	head(t, "certificate_expiry_seconds", "gauge",
	     "Unix time at which the first of the certificates and revocation lists in use expires.");
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		soonest s = {0};
		if (all[i].files != NULL && qg_tls_describe(all[i].files, note_expiry, &s) == QG_OK && s.until_s != 0)
			say(t, "qkdgate_certificate_expiry_seconds{of=\"%s\"} %" PRId64 "\n", all[i].name, s.until_s);
	}
}

static void
say_node(qg_admin *a, text *t)
{
	qg_admin_health h;
	struct rusage u;
	qg_admin_look(a, &h);
	head(t, "info", "gauge", "Always 1; the labels tell which gateway this is.");
	say(t, "qkdgate_info{kme=\"%s\",version=\"%s\"} 1\n", a->p.cfg->kme_id, QG_VERSION);
	one(t, "ready", "gauge", "1 while the gateway can deliver keys.", h.ready);
	one(t, "start_time_seconds", "gauge", "Unix time of the start.", (double)a->started_ms / 1000.0);
	if (getrusage(RUSAGE_SELF, &u) != 0)
		return;
	one(t, "cpu_seconds_total", "counter", "Processor time used.",
	    (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
	one(t, "resident_most_bytes", "gauge", "Most memory that was resident.", (double)u.ru_maxrss * 1024.0);
}

void
qg_admin_on_metrics(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	text t = {.p = malloc(16384), .room = 16384};
	t.failed = t.p == NULL;
	say_node(a, &t);
	say_streams(a, &t);
	say_neighbours(a, &t);
	say_requests(a, &t);
	say_listeners(a, &t);
	say_figures(a, &t);
	say_saes(a, &t, !qg_admin_is_scraper(http) || a->cfg->scrape_saes);
	say_certificates(a, &t);
	if (t.failed)
		qg_admin_answer(http, 503, NULL);
	else
		qg_http_answer(http, 200, TYPE, t.p, t.len);
	free(t.p);
}
