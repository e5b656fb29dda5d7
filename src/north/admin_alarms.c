/* SPDX-License-Identifier: Apache-2.0 */
/* GET /api/v1/alarms: what is wrong with this gateway and what to do about it, for the
 * dashboard, qkdgatectl and whoever else asks. Nothing here waits for others. */
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "admin_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define EXPIRES_SOON_S ((int64_t)14 * 86400)
#define DISK_LEAST ((uint64_t)64 * 1024 * 1024)
#define EMPTY_SOON_S 600.0
#define LOW 4 /* a stock is low below this part of its limit */
#define CERTIFICATES_MS 60000 /* between looks at the files */

typedef enum severity { CRITICAL, WARNING, NOTICE } severity;

static const char *const severities[] = {
	[CRITICAL] = "critical",
	[WARNING] = "warning",
	[NOTICE] = "notice",
};

static void QG_PRINTF(5, 6)
raise_alarm(json_t *list, severity how, const char *of, const char *advice, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	const int n = vsnprintf(text, sizeof text, fmt, ap);
	va_end(ap);
	/* Cut in the middle of a character it would be no string to jansson. */
	json_t *said = n >= 0 ? json_string(text) : NULL;
	for (char *c = text; said == NULL && n >= 0 && *c != '\0'; c++)
		*c = (unsigned char)*c >= 0x7f ? '?' : *c;
	(void)json_array_append_new(list, json_pack("{s:s,s:s,s:o,s:s}", "severity", severities[how], "of", of, "finding",
						    said != NULL ? said : json_string(text), "advice", advice));
}

/* --- the gateway and its disk ------------------------------------------------------ */

static void
look_at_node(qg_admin *a, const qg_core_figures *f, json_t *list)
{
	qg_admin_health h;
	qg_admin_look(a, &h);
	if (!h.alive)
		raise_alarm(list, CRITICAL, "gateway", "restart the gateway and keep its log",
			    "the gateway has come to a standstill");
	if (a->p.ops->draining(a->p.ctx))
		raise_alarm(list, WARNING, "gateway", "wait for its end and start it again",
			    "the gateway is being taken out of service");
	if (!f->commits.works)
		raise_alarm(list, CRITICAL, "store",
			    "make room or replace the disk; see the log for database_failed or write_failed",
			    "the database cannot be written");
	if (!f->anchor_works)
		raise_alarm(list, CRITICAL, "store",
			    "make room or replace the disk; see the log for database_failed or write_failed",
			    "the anchor cannot be written");
	if (!f->audit_works)
		raise_alarm(list, CRITICAL, "store",
			    "make room or replace the disk; see the log for database_failed or write_failed",
			    "the audit log cannot be written");
}

static void
look_at_disk(const char *what, const char *path, json_t *list)
{
	struct statvfs fs;
	if (statvfs(path, &fs) != 0)
		return;
	const uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (left < DISK_LEAST)
		raise_alarm(list, WARNING, "store", "make room on that disk",
			    "%s: only %" PRIu64 " MiB are free beside %s", what, left / 1048576, path);
}

static void
look_at_log(qg_admin *a, json_t *list)
{
	const qg_log_state state = qg_log_get_state();
	const char *const to = a->p.cfg->log_to == QG_LOG_FILE	    ? a->p.cfg->log_file
			       : a->p.cfg->log_to == QG_LOG_JOURNAL ? "the journal"
								    : "standard error";
	if (!state.works)
		raise_alarm(list, WARNING, "log", "make room, or put the folder back; then qkdgatectl reopen-log",
			    "the log cannot be written to %s; %" PRIu64 " lines are lost", to, state.lost);
}

/* --- streams and neighbours ---------------------------------------------------------- */

static void
look_at_stock(qg_admin *a, size_t i, const qg_stream_view *v, json_t *list)
{
	qg_admin_rate rate;
	qg_admin_rates_of(a->rates, i, &rate);
	const double falls_bps = rate.out_bps - rate.in_bps;
	const double ready_bits = (double)v->ready_chunks * v->cfg->chunk_size * 8;
	if (v->ready_chunks == 0)
		raise_alarm(list, CRITICAL, "streams", "look at its source and at the neighbour",
			    "stream %s has no key ready", v->cfg->name);
	else if (v->ready_chunks < v->most_chunks / LOW && falls_bps > 1.0 && ready_bits / falls_bps < EMPTY_SOON_S)
		raise_alarm(list, WARNING, "streams", "ask for less key, or give the stream more",
			    "stream %s runs out of key in %.0f s", v->cfg->name, ready_bits / falls_bps);
}

static void
look_at_streams(qg_admin *a, json_t *list)
{
	for (size_t i = 0; i < qg_core_view_streams(a->p.core); i++) {
		qg_stream_view v;
		qg_core_view_stream(a->p.core, i, &v);
		const bool inbound = v.cfg->direction == QG_DIRECTION_INBOUND;
		if (v.state != QG_STREAM_STATE_RUNNING)
			raise_alarm(list, WARNING, "streams",
				    inbound ? "look at the neighbour, which opens it" : "look at its source and at the log",
				    "stream %s is not open: it is %s%s%s", v.cfg->name, qg_stream_state_name(v.state),
				    v.trouble != NULL ? ", " : "", v.trouble != NULL ? v.trouble : "");
		else if (v.source_failure != NULL)
			raise_alarm(list, WARNING, "streams", "look at its source and at the log",
				    "stream %s gets no key: its source does not answer: %s", v.cfg->name, v.source_failure);
		if (!inbound)
			look_at_stock(a, i, &v, list);
	}
}

static void
look_at_neighbours(qg_admin *a, json_t *list)
{
	for (size_t i = 0; i < qg_core_view_neighbours(a->p.core); i++) {
		qg_neighbour_view v;
		qg_err last = QG_OK;
		uint64_t ago_ms = 0;
		qg_core_view_neighbour(a->p.core, i, &v);
		if (a->p.ops->reached(a->p.ctx, v.cfg->id, &last, &ago_ms) && last != QG_OK)
			raise_alarm(list, CRITICAL, "neighbours", "is it up? check network, url and certificates",
				    "neighbour %s cannot be reached: %s", v.cfg->id, qg_err_text(last));
	}
}

static void
look_at_peers(qg_admin *a, json_t *list)
{
	for (size_t i = 0; i < a->p.cfg->n_peers; i++) {
		const char *const id = a->p.cfg->peers[i].id;
		bool answered = false;
		uint64_t ago_ms = 0;
		if (!qg_directory_peer_suspended(a->p.directory, id) &&
		    a->p.ops->peer_reached(a->p.ctx, id, &answered, &ago_ms) && !answered)
			raise_alarm(list, WARNING, "peers", "is it up? check network, url and certificates",
				    "peer %s did not answer the last call", id);
	}
}

static void
add_suspension(const qg_suspension_rec *r, void *list)
{
	if (strcmp(r->kind, "peer") == 0)
		raise_alarm(list, NOTICE, "peers", "resume it when keys may go there again", "peer %s is suspended", r->name);
	else if (r->other[0] == '\0')
		raise_alarm(list, NOTICE, "saes", "resume it when it may have keys again", "SAE %s is suspended", r->name);
	else
		raise_alarm(list, NOTICE, "saes", "resume the pair when it may have keys again",
			    "no keys between %s and %s: suspended", r->name, r->other);
}

/* Also of those whom the configuration no longer names. */
static void
look_at_suspensions(qg_admin *a, json_t *list)
{
	a->p.ops->suspensions(a->p.ctx, add_suspension, list);
}

/* --- certificates ---------------------------------------------------------------------- */

typedef struct cert_look {
	json_t *list;
	const char *of;
	int64_t now_s;
} cert_look;

static void
look_at_item(const qg_tls_item *item, void *ctx)
{
	cert_look *l = ctx;
	const int64_t left_s = item->until_s - l->now_s;
	if (item->until_s == 0)
		return;
	if (left_s < 0)
		raise_alarm(l->list, CRITICAL, "certificates", "put a new one in place and reload", "%s: %s %s has expired",
			    l->of, item->what, item->file);
	else if (left_s < EXPIRES_SOON_S)
		raise_alarm(l->list, WARNING, "certificates", "put a new one in place and reload",
			    "%s: %s %s expires in %" PRId64 " days", l->of, item->what, item->file, left_s / 86400);
}

static void
look_at_files(const char *of, const qg_tls_files *f, void *ctx)
{
	cert_look *l = ctx;
	l->of = of;
	if (qg_tls_describe(f, look_at_item, l) != QG_OK)
		raise_alarm(l->list, CRITICAL, "certificates", "put the files back and reload", "%s: %s cannot be read", of,
			    f->certificate);
}

/* From the files, so not with every question. */
static void
look_at_certificates(qg_admin *a, json_t *list)
{
	const uint64_t now_ms = qg_clock_elapsed_ms();
	pthread_mutex_lock(&a->looking);
	if (a->certificates == NULL || now_ms - a->certificates_ms >= CERTIFICATES_MS) {
		cert_look l = {.list = json_array(), .now_s = qg_clock_wall_ms() / 1000};
		qg_admin_each_files(qg_directory_config(a->p.directory), look_at_files, &l);
		json_decref(a->certificates);
		a->certificates = l.list;
		a->certificates_ms = now_ms;
	}
	json_t *copy = json_deep_copy(a->certificates); /* the other listener may ask too */
	pthread_mutex_unlock(&a->looking);
	(void)json_array_extend(list, copy);
	json_decref(copy);
}

void
qg_admin_forget_alarms(qg_admin *a)
{
	pthread_mutex_lock(&a->looking);
	json_decref(a->certificates);
	a->certificates = NULL;
	pthread_mutex_unlock(&a->looking);
}

/* --- all -------------------------------------------------------------------------------- */

static json_t *
by_severity(const json_t *list)
{
	json_t *sorted = json_array();
	for (size_t how = 0; how < sizeof severities / sizeof severities[0]; how++) {
		size_t i;
		json_t *alarm;
		json_array_foreach(list, i, alarm)
			if (strcmp(json_string_value(json_object_get(alarm, "severity")), severities[how]) == 0)
				(void)json_array_append(sorted, alarm);
	}
	return sorted;
}

void
qg_admin_on_alarms(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	qg_core_figures f;
	json_t *list = json_array();
	qg_core_view_figures(a->p.core, &f);
	look_at_node(a, &f, list);
	look_at_certificates(a, list);
	look_at_disk("database", a->p.cfg->database, list);
	look_at_disk("anchor", a->p.cfg->anchor, list);
	look_at_disk("key_ring", a->p.cfg->key_ring, list);
	look_at_disk("audit", a->p.cfg->audit_file, list);
	look_at_log(a, list);
	look_at_streams(a, list);
	look_at_neighbours(a, list);
	look_at_peers(a, list);
	look_at_suspensions(a, list);
	json_t *sorted = by_severity(list);
	json_decref(list);
	qg_admin_answer(http, 200, json_pack("{s:o}", "alarms", sorted));
}
