/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ADMIN_INTERNAL_H
#define QKDGATE_ADMIN_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/admin.h"
#include "qkdgate/core_view.h"

/* Inside the admin interface:
 *   admin.c          start, stop, listeners, who is there, answers
 *   admin_reads.c    GET /api/v1/...
 *   admin_acts.c     POST /api/v1/...
 *   admin_later.c    answers that take long, in threads of their own
 *   admin_audit.c    the audit log: shows it, checks it, goes on in another file
 *   admin_health.c   /healthz, /readyz
 *   admin_metrics.c  /metrics
 *   admin_sources.c  GET /api/v1/sources: tries whether they can be reached
 *   admin_rates.c    a thread that looks once a second: rates of the streams */

struct json_t;

/* Of one stream, smoothed over some ten seconds, in bits per second. */
typedef struct qg_admin_rate {
	double in_bps, out_bps;
} qg_admin_rate;

typedef struct qg_admin_rates qg_admin_rates;

qg_err qg_admin_rates_start(qg_core *core, qg_admin_rates **out) QG_CHECKED;
void qg_admin_rates_stop(qg_admin_rates **r);
void qg_admin_rates_of(qg_admin_rates *r, size_t stream, qg_admin_rate *out);

struct qg_admin {
	qg_admin_parts p;
	const qg_config_admin *cfg;
	qg_http_server *local, *https, *scrape;
	qg_admin_rates *rates;
	pthread_mutex_t acting; /* one act at a time */
	atomic_uint trying;     /* threads that try sources */
	int64_t started_ms;     /* wall clock */
	uint64_t begun_ms;
};

/* --- who and what (admin.c) --------------------------------------------------- */

#define QG_ADMIN_WHO_ROOM 160
/* The caller, for the audit log: "admin:NAME", "uid:N". */
void qg_admin_who(qg_http_request *http, char who[QG_ADMIN_WHO_ROOM]);
/* Whether the caller may act; else the request is answered 403. */
bool qg_admin_may_act(qg_http_request *http);
/* Whether it came over the scrape listener. */
bool qg_admin_is_scraper(const qg_http_request *http);

/* Answers with a JSON document, which it takes; NULL: no memory, 503. */
void qg_admin_answer(qg_http_request *http, int status, struct json_t *body);
/* Answers {"message": ...}; an error becomes its status here. */
void qg_admin_answer_error(qg_http_request *http, qg_err err, const char *fmt, ...) QG_PRINTF(3, 4);

/* {"done": what} */
void qg_admin_answer_done(qg_http_request *http, const char *what);

/* The body, an object or nothing, that has only members of the list (NULL ends it),
 * from a caller who may act. On failure the request is answered. */
bool qg_admin_take_body(qg_http_request *http, const char *const *members, struct json_t **out);
/* From a caller who may act, with no body or an empty object. On failure the request is answered. */
bool qg_admin_take_nothing(qg_http_request *http);

/* A line in the audit log about what an administrator did, or was refused. */
void qg_admin_audit(qg_admin *a, const char *who, const char *what, const char *on, qg_err err);

/* Runs `work` in a thread of its own, which answers the request and frees arg; where
 * too many do so already, or there is no memory, the request is answered 503 and
 * arg freed with free. */
void qg_admin_later(qg_admin *a, qg_http_request *http,
		    void (*work)(qg_admin *a, qg_http_request *http, void *arg), void *arg);

/* The stream of that name, or -1 after the request was answered 404. */
long qg_admin_find_stream(qg_admin *a, qg_http_request *http, const char *name);

/* --- health --------------------------------------------------------------------- */

#define QG_ADMIN_REASONS_MAX 32
typedef struct qg_admin_health {
	bool alive, ready;
	size_t n; /* reasons of either */
	char reason[QG_ADMIN_REASONS_MAX][160];
} qg_admin_health;

void qg_admin_look(qg_admin *a, qg_admin_health *out);

/* --- handlers --------------------------------------------------------------------- */

#define QG_ADMIN_HANDLERS(X) \
	X(sources) X(healthz) X(readyz) X(metrics) X(openapi) X(status) X(node) X(neighbours) X(streams) X(stream) X(routes) \
	X(transfers) X(saes) X(limits) X(certificates) X(store) X(logs) X(reload) X(drain) X(reopen) \
	X(delete_keys) X(suspend_sae) X(resume_sae) X(suspend_pair) X(resume_pair) X(set_log) X(reopen_log) X(zeroize) \
	X(audit) X(verify_audit) X(rotate_audit)

#define QG_ADMIN_DECLARE(name) void qg_admin_on_##name(qg_http_request *http, void *admin);
QG_ADMIN_HANDLERS(QG_ADMIN_DECLARE)

#endif
