/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_HTTP_SERVER_H
#define QKDGATE_HTTP_SERVER_H

#include <stdbool.h>
#include <stddef.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

/* An HTTPS listener with client certificates over libmicrohttpd: a thread per
 * core, each with a daemon of its own on the same port (SO_REUSEPORT), driven
 * by our loop over its epoll descriptor. A route's handler runs on one of
 * these threads once the body is complete, and answers at once or later, from
 * any thread; it never blocks. */

typedef struct qg_http_server qg_http_server;
typedef struct qg_http_request qg_http_request;

typedef void qg_http_handler(qg_http_request *req, void *ctx);

typedef struct qg_http_route {
	const char *method;       /* "GET", "POST", ... */
	const char *pattern;      /* "/api/v1/keys/{slave_SAE_ID}/status" */
	qg_http_handler *handler;
	size_t body_limit;        /* bytes; 0: a body is refused with 400 */
} qg_http_route;

/* The look of the answers the server gives by itself (404, 405, 413, 400 for
 * bad escapes, 401, 503): writes a body for the status into buf and returns
 * its length (0: no body). `text` says what is wrong. A body over the limit is
 * status 413 here and 400 to the client (ETSI GS QKD 014 knows no 413). */
typedef size_t qg_http_error_body(int status, const char *text, char *buf, size_t room);

/* What the server answers by itself, for those who want to know more of it. */
typedef struct qg_http_refused {
	int status;         /* as in qg_http_error_body; also 401 */
	const char *text;
	const char *method;
	const char *path;   /* without its query */
	const void *peer;   /* NULL with 401 */
} qg_http_refused;

typedef struct qg_http_options {
	const char *address;            /* IP address to listen on */
	unsigned port;                  /* 0: any, see qg_http_server_port */
	qg_tls_files tls;
	unsigned threads;               /* 0: one per core */
	unsigned max_connections;       /* in all */
	unsigned max_per_address;       /* 0: no limit */
	unsigned idle_timeout_s;        /* connection without progress is closed */
	unsigned ticket_key_s;          /* sessions can be resumed, with another ticket key after
					   this time; 0: they cannot */
	const qg_http_route *routes;    /* table, outlives the server */
	size_t n_routes;
	qg_http_error_body *error_body;
	const char *error_type;         /* Content-Type of error_body and refuse */
	void *ctx;                      /* for handlers and identify */
	/* Maps a verified certificate to its owner, once per connection and once more
	 * on each after a reload; what it
	 * returns is qg_http_peer of every request on it, and outlives the server.
	 * NULL: requests are answered 401 with no body, before any handler. */
	const void *(*identify)(const qg_tls_identity *id, void *ctx);
	/* Before and after a run over all that came in, with true and false, on the
	 * thread of the handlers that are called in between; may be NULL. */
	void (*running)(bool begins, void *ctx);
	/* An unknown or failing request, for the audit; may be NULL. */
	void (*on_refused)(int status, const char *method, const char *path, void *ctx);
	/* In place of error_body and on_refused; NULL: those. Writes the body as
	 * error_body does, also for 401. */
	size_t (*refuse)(const qg_http_refused *r, char *buf, size_t room, void *ctx);
} qg_http_options;

/* Starts listening. `why` gets a text that names what failed. QG_E_IO,
 * QG_E_MODE, QG_E_PARSE, QG_E_NOMEM. */
qg_err qg_http_server_start(const qg_http_options *o, qg_http_server **out, char *why, size_t why_room) QG_CHECKED;

/* Certificate, key, authorities and revocation lists of the files as they are
 * now, for what begins from now on: kept connections and sessions that are
 * resumed are looked at again at their next request, which gets 401 where they
 * are no longer trusted. On failure nothing changes, `why` says what is wrong.
 * The strings may go; any thread. QG_E_IO, QG_E_MODE, QG_E_PARSE, QG_E_MISMATCH,
 * QG_E_NOMEM. */
qg_err qg_http_server_reload_tls(qg_http_server *s, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;

/* The port listened on. */
unsigned qg_http_server_port(const qg_http_server *s);

/* New requests are answered 503; those that wait for a late answer get it, or
 * 503 after half a second. No handler runs after it returns. Late answers may
 * still come: they are dropped. Clears *s. */
void qg_http_server_stop(qg_http_server **s);

/* --- the request, inside a handler (views live until the answer) --------- */

const void *qg_http_peer(const qg_http_request *req);
/* The n-th {part} of the pattern, percent-decoded, NUL-terminated, without
 * embedded NUL (such paths get 400 before the handler). */
const char *qg_http_path_part(const qg_http_request *req, size_t n);
/* How many query arguments, and the n-th (decoded; value "" when absent). */
size_t qg_http_query_count(const qg_http_request *req);
void qg_http_query_at(const qg_http_request *req, size_t n, const char **name, const char **value);
/* A header's value or NULL. Inside the handler only: not once deferred. */
const char *qg_http_header(const qg_http_request *req, const char *name);
/* The body, not NUL-terminated; it may hold key: it is in wiped memory. */
const char *qg_http_body(const qg_http_request *req, size_t *len);
const char *qg_http_method(const qg_http_request *req);
const char *qg_http_path(const qg_http_request *req);

/* --- the answer: exactly one qg_http_answer* per request ----------------- */

/* Adds a header to the coming answer (copied). */
void qg_http_set_header(qg_http_request *req, const char *name, const char *value);

/* Answers with a copied body (len 0: none, type may be NULL). */
void qg_http_answer(qg_http_request *req, int status, const char *type, const void *body, size_t len);

/* Answers with a body that is wiped when sent; takes the secret. */
void qg_http_answer_secret(qg_http_request *req, int status, const char *type, qg_secret *body);

/* Says inside the handler that the answer comes later, from any thread. The
 * request stays valid until then. Without it a handler that returns without
 * an answer makes the server answer 500. */
void qg_http_defer(qg_http_request *req);

/* Between true and false on one thread: who waits for the late answers that it
 * gives is woken once, at the end, and not with each. */
void qg_http_gather(bool on);

#endif
