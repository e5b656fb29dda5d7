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
#include "qkdgate/passwords.h"

/* Inside the admin interface:
 *   admin.c          start, stop, listeners, who is there, answers
 *   admin_reads.c    GET /api/v1/...
 *   admin_acts.c     POST /api/v1/...
 *   admin_query.c    arguments of queries
 *   admin_later.c    answers that take long, in threads of their own
 *   admin_audit.c    the audit log: shows it, checks it, goes on in another file
 *   admin_accounting.c  totals by day
 *   admin_peers.c    key managers of other networks, keys with an ID of their own
 *   admin_entries.c  SAEs and rules at run time
 *   admin_health.c   /healthz, /readyz
 *   admin_metrics.c  /metrics
 *   admin_sources.c  GET /api/v1/sources: tries whether they can be reached
 *   admin_rates.c    a thread that looks once a second: rates of the streams
 *   admin_history.c  GET /api/v1/streams/{stream}/history: rates of the last hour and day
 *   admin_alarms.c   GET /api/v1/alarms
 *   admin_dashboard.c the page
 *   admin_session.c  sessions of those who signed in with a password
 *   admin_sign_in.c  signing in
 *   admin_limit.c    how often somebody may try that */

struct json_t;

/* --- rates and history ---------------------------------------------------------- */

/* Of one stream, smoothed over some ten seconds, in bits per second. */
typedef struct qg_admin_rate {
	double in_bps, out_bps;
} qg_admin_rate;

typedef struct qg_admin_rates qg_admin_rates;

qg_err qg_admin_rates_start(qg_core *core, qg_admin_rates **out) QG_CHECKED;
void qg_admin_rates_stop(qg_admin_rates **r);
void qg_admin_rates_of(qg_admin_rates *r, size_t stream, qg_admin_rate *out);
struct json_t *qg_admin_rates_history(qg_admin_rates *r, size_t stream, size_t span);

/* Of one stream. One thread at a time. */
typedef struct qg_admin_history qg_admin_history;

#define QG_ADMIN_SPANS 2 /* hour, day */
qg_admin_history *qg_admin_history_new(void); /* NULL: no memory */
void qg_admin_history_free(qg_admin_history *h);
/* What went in and out in all, in bits, and lies there to be handed out, at that time. */
void qg_admin_history_note(qg_admin_history *h, uint64_t now_ms, uint64_t in, uint64_t out, uint64_t stock_bytes);
bool qg_admin_history_span(const char *name, size_t *out);
struct json_t *qg_admin_history_json(const qg_admin_history *h, size_t span);

/* --- how often ------------------------------------------------------------------- */

#define QG_ADMIN_LIMIT_KEY 16
#define QG_ADMIN_LIMITS 512
typedef struct qg_admin_bucket {
	bool used;
	uint8_t key[QG_ADMIN_LIMIT_KEY];
	double level;
	uint64_t at_ms;
} qg_admin_bucket;

typedef struct qg_admin_limit {
	double most, step_s;
	qg_admin_bucket all, of[QG_ADMIN_LIMITS];
} qg_admin_limit;

/* Each name has `most` attempts, and one more after every step_s. */
void qg_admin_limit_init(qg_admin_limit *l, unsigned most, unsigned step_s, uint64_t now_ms);
/* Takes an attempt from each of the names and returns 0, or the seconds to wait. */
unsigned qg_admin_limit_take(qg_admin_limit *l, const uint8_t keys[][QG_ADMIN_LIMIT_KEY], size_t n, uint64_t now_ms);
/* One that was no failure. */
void qg_admin_limit_give_back(qg_admin_limit *l, const uint8_t keys[][QG_ADMIN_LIMIT_KEY], size_t n, uint64_t now_ms);

/* --- sessions --------------------------------------------------------------------- */

#define QG_ADMIN_TOKEN_ROOM 44 /* 32 bytes in base64url */
struct qg_admin_session;
typedef struct qg_admin_sessions {
	const qg_config_passwords *cfg;
	char cookie[32]; /* its name */
	pthread_mutex_t lock;
	struct qg_admin_session *of;
} qg_admin_sessions;

qg_err qg_admin_sessions_init(qg_admin_sessions *s, const qg_config_passwords *cfg, const char *kme_id) QG_CHECKED;
void qg_admin_sessions_fini(qg_admin_sessions *s);
/* Begins one. cookie, token: its secrets, the caller's to wipe. */
void qg_admin_sessions_begin(qg_admin_sessions *s, const qg_account *account, char cookie[QG_ADMIN_TOKEN_ROOM],
			     char token[QG_ADMIN_TOKEN_ROOM]);
void qg_admin_sessions_end(qg_admin_sessions *s, const uint8_t id[32]);
/* Ends those whose account is not among these. */
void qg_admin_sessions_keep(qg_admin_sessions *s, const qg_passwords *known);
/* Which session the request's cookie names, if it has one. */
bool qg_admin_cookie_id(const qg_admin_sessions *s, const qg_http_request *http, uint8_t id[32]);

/* Of qg_http_options. */
const void *qg_admin_identify_request(const qg_http_request *http, void *admin);
void qg_admin_forget_request(const void *peer, void *admin);

/* Whether no other page made a browser send it. */
bool qg_admin_is_ours(const qg_http_request *http);
/* Whether it bears the token of its session, where it is of one. */
bool qg_admin_has_token(const qg_http_request *http);

typedef struct qg_admin_sign_in qg_admin_sign_in;
qg_err qg_admin_sign_in_start(qg_admin *a, char *why, size_t why_room) QG_CHECKED;
void qg_admin_sign_in_stop(qg_admin *a); /* after the listeners */

/* --- the whole -------------------------------------------------------------------- */

struct qg_admin {
	qg_admin_parts p;
	const qg_config_admin *cfg;
	qg_http_server *local, *https, *scrape;
	qg_admin_rates *rates;
	qg_admin_sign_in *sign_in; /* NULL: nobody signs in with a password */
	qg_admin_sessions sessions;
	pthread_mutex_t looking;   /* of the next two */
	struct json_t *certificates; /* alarms of them */
	uint64_t certificates_ms;
	pthread_mutex_t acting; /* one act at a time */
	atomic_uint trying;     /* threads that try sources */
	int64_t started_ms;     /* wall clock */
	uint64_t begun_ms;
};

/* --- who and what (admin.c) --------------------------------------------------- */

#define QG_ADMIN_WHO_ROOM 160
/* The caller, for the audit log: "admin:NAME", "password:NAME", "uid:N". */
void qg_admin_who(qg_http_request *http, char who[QG_ADMIN_WHO_ROOM]);
/* Whether the caller may act, and means to; else the request is answered 403. */
bool qg_admin_may_act(qg_http_request *http);
/* Whether it came over the scrape listener. */
bool qg_admin_is_scraper(const qg_http_request *http);

/* Answers with a JSON document, which it takes; NULL: no memory, 503. */
void qg_admin_answer(qg_http_request *http, int status, struct json_t *body);
/* Answers {"message": ...}; an error becomes its status here. */
void qg_admin_answer_error(qg_http_request *http, qg_err err, const char *fmt, ...) QG_PRINTF(3, 4);

/* Headers for an answer that a browser may see. */
void qg_admin_guard_answer(qg_http_request *http);

/* The files of certificates that are in use, and what for. */
typedef void qg_admin_files_fn(const char *of, const qg_tls_files *f, void *ctx);
void qg_admin_each_files(const qg_config *cfg, qg_admin_files_fn *each, void *ctx);

/* What was found out about certificates is no longer so. */
void qg_admin_forget_alarms(qg_admin *a);

/* {"done": what} */
void qg_admin_answer_done(qg_http_request *http, const char *what);

/* How suspending (on) or resuming ended. */
void qg_admin_answer_suspend(qg_http_request *http, const char *what, bool on, qg_err err);

/* A page of transferred keys, as the query asks for it, and where the next begins. On
 * failure the request is answered. */
bool qg_admin_transfers_page(qg_admin *a, qg_http_request *http, struct json_t **list, struct json_t **next);

/* Names of the entries of that list that were made at run time: those in force, in
 * their order, and as the result those left out. */
struct json_t *qg_admin_left_out(qg_admin *a, const char *list, struct json_t **names);

/* The body, an object or nothing, that has only members of the list (NULL ends it;
 * no list: any), from a caller who may act. On failure the request is answered. */
bool qg_admin_take_body(qg_http_request *http, const char *const *members, struct json_t **out);
/* An argument of a query: `set` takes its value into what the handler asks for;
 * where that is false the caller is told what is `right`. */
typedef struct qg_admin_argument {
	const char *name;
	bool (*set)(void *into, const char *value);
	const char *right;
} qg_admin_argument;

/* Takes all arguments of the query, after a table of at most 8. On failure the
 * request is answered. */
bool qg_admin_take_query(qg_http_request *http, const qg_admin_argument *known, size_t n, void *into);

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
	X(index) X(page) X(session) X(sign_in) X(sign_out) X(alarms) X(history) X(sources) X(healthz) X(readyz) X(metrics) \
	X(openapi) X(status) X(node) X(neighbours) X(streams) X(stream) X(routes) X(transfers) X(saes) X(limits) \
	X(certificates) X(store) X(logs) X(reload) X(drain) X(reopen) X(delete_keys) X(suspend_sae) X(resume_sae) \
	X(suspend_pair) X(resume_pair) X(set_log) X(reopen_log) X(zeroize) \
	X(audit) X(verify_audit) X(rotate_audit) X(rules) X(add_sae) X(remove_sae) X(add_rule) X(remove_rule) \
	X(accounting) X(rotate_master_key) X(peers) X(suspend_peer) X(resume_peer)

#define QG_ADMIN_DECLARE(name) void qg_admin_on_##name(qg_http_request *http, void *admin);
QG_ADMIN_HANDLERS(QG_ADMIN_DECLARE)

#endif
