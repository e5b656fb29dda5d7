/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_HTTP_SERVER_H
#define QKDGATE_HTTP_SERVER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

/* A listener for HTTPS with client certificates, or for HTTP on a Unix socket or
 * a plain address, over libmicrohttpd: a thread per
 * core, each with a daemon of its own on the same port (SO_REUSEPORT), driven
 * by our loop over its epoll descriptor. A route's handler runs on one of
 * these threads once the body is complete, and answers at once or later, from
 * any thread; it never blocks. Each request has an ID (request_id.h), taken from
 * its header or made; the answer bears it, and it is that of the thread while the
 * handler runs. */

struct qg_config_listener;

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

typedef enum qg_http_transport {
	QG_HTTP_TLS,   /* HTTPS, client certificates */
	QG_HTTP_PLAIN, /* HTTP for anybody who reaches the address */
	QG_HTTP_UNIX   /* HTTP over a Unix socket, whose mode decides */
} qg_http_transport;

/* Who is at the other end of a Unix socket, as the kernel says. */
typedef struct qg_http_local {
	bool known;
	uid_t uid;
	gid_t gid;
	pid_t pid;
} qg_http_local;

/* What the server answers by itself, for those who want to know more of it. */
typedef struct qg_http_refused {
	int status;         /* as in qg_http_error_body; also 401 */
	const char *text;
	const char *method;
	const char *path;   /* without its query */
	const void *peer;   /* NULL with 401 */
} qg_http_refused;

typedef struct qg_http_options {
	qg_http_transport transport;
	const char *address;            /* IP address to listen on; QG_HTTP_UNIX: the socket's path */
	unsigned port;                  /* 0: any, see qg_http_server_port */
	unsigned socket_mode;           /* QG_HTTP_UNIX */
	const char *socket_group;       /* QG_HTTP_UNIX; NULL: that of the process */
	qg_tls_files tls;               /* QG_HTTP_TLS */
	bool certificate_optional;      /* clients are asked for a certificate and need have none;
					   one that is not trusted still ends the handshake */
	unsigned threads;               /* 0: one per core */
	unsigned max_connections;       /* in all */
	unsigned max_per_address;       /* 0: no limit */
	unsigned address_handshakes_per_s; /* connections that begin, from one address; 0: no limit */
	unsigned idle_timeout_s;        /* connection without progress is closed */
	unsigned ticket_key_s;          /* sessions can be resumed, with another ticket key after
					   this time; 0: they cannot */
	const qg_http_route *routes;    /* table, outlives the server */
	size_t n_routes;
	qg_http_error_body *error_body;
	const char *error_type;         /* Content-Type of error_body and refuse */
	void *ctx;                      /* for handlers and identify */
	/* Maps a verified certificate to its owner, once per connection and again
	 * after qg_http_server_identify_again or _reload_tls; what it returns is qg_http_peer of every
	 * request on it, and lives until `forget`, or longer than the server. NULL:
	 * requests are answered 401 with no body, before any handler. */
	const void *(*identify)(const qg_tls_identity *id, void *ctx);
	/* The same for connections without TLS. */
	const void *(*identify_local)(const qg_http_local *who, void *ctx);
	/* Who makes this one request, where the connection says nothing, by its headers;
	 * may be NULL. What it returns is the request's peer until forget_request, which
	 * comes with the request's end: a deferred one must not ask for it any more. Both
	 * on the thread of the connection. */
	const void *(*identify_request)(const qg_http_request *req, void *ctx);
	void (*forget_request)(const void *peer, void *ctx);
	/* With identify_request: whether the route is for nobody too, whose peer is NULL. */
	bool (*is_open)(const qg_http_route *route);
	/* The connection is done with what identify returned; may be NULL. Each
	 * is on the thread of the connection. */
	void (*forget)(const void *peer, void *ctx);
	/* Before and after a run over all that came in, with true and false, on the
	 * thread of the handlers that are called in between; may be NULL. */
	void (*running)(bool begins, void *ctx);
	/* What is deferred waits for others than the disk: it costs nothing meanwhile,
	 * and a little more when it goes on. */
	bool waits_long;
	/* An unknown or failing request, for the audit; may be NULL. */
	void (*on_refused)(int status, const char *method, const char *path, void *ctx);
	/* In place of error_body and on_refused; NULL: those. Writes the body as
	 * error_body does, also for 401. */
	size_t (*refuse)(const qg_http_refused *r, char *buf, size_t room, void *ctx);
} qg_http_options;

/* Where and how a section of the configuration says to listen, over TLS; the rest is zero. Its
 * strings are those of the configuration. */
qg_http_options qg_http_options_of(const struct qg_config_listener *l);

/* Starts listening; a Unix socket is made, and removed at the stop. `why` gets a text that names what failed. QG_E_IO,
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

/* Who is who has changed: each connection is identified again with its next
 * request. Any thread. */
void qg_http_server_identify_again(qg_http_server *s);

/* --- figures --------------------------------------------------------------- */

/* Bounds of the latency histogram, in microseconds; one more bucket is for what
 * takes longer. */
#define QG_HTTP_BUCKETS 14
extern const uint32_t qg_http_bucket_us[QG_HTTP_BUCKETS];

/* Statuses that are told apart; the last one stands for all others. */
#define QG_HTTP_STATUSES 9
extern const int qg_http_status_of[QG_HTTP_STATUSES];

typedef struct qg_http_route_stats {
	struct {
		_Atomic uint64_t count, sum_ns;
		_Atomic uint64_t bucket[QG_HTTP_BUCKETS + 1];
	} of[QG_HTTP_STATUSES];
} qg_http_route_stats;

typedef struct qg_http_stats {
	uint64_t handshakes, failed_handshakes;
	uint64_t limited; /* not let in: too many from one address */
	unsigned connections;
} qg_http_stats;

/* The sums over all threads since the start; costs the request path nothing. */
void qg_http_server_stats(const qg_http_server *s, qg_http_stats *out);
/* How many routes the table has, and the i-th; NULL: i is their number. */
size_t qg_http_server_routes(const qg_http_server *s);
const qg_http_route *qg_http_server_route(const qg_http_server *s, size_t i);
/* Of the i-th route of the table (i = n_routes: what fitted none), added to *out. */
void qg_http_server_route_stats(const qg_http_server *s, size_t i, qg_http_route_stats *out);

/* New requests are answered 503; those that wait for a late answer get it, or
 * 503 after half a second. No handler runs after it returns. Late answers may
 * still come: they are dropped. Clears *s. */
void qg_http_server_stop(qg_http_server **s);

/* --- the request, inside a handler (views live until the answer) --------- */

const void *qg_http_peer(const qg_http_request *req);
/* The same where identify_request said who it is, else NULL. */
const void *qg_http_visitor(const qg_http_request *req);
/* Who is at the other end of a Unix socket; NULL elsewhere. Inside the handler only. */
const qg_http_local *qg_http_local_peer(const qg_http_request *req);
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

/* The address of a client, without its port; false: it has none. Inside the handler only. */
bool qg_http_address(const qg_http_request *req, uint8_t out[16]);

/* Adds a header to the coming answer (copied). Without a Cache-Control it says no-store. */
void qg_http_set_header(qg_http_request *req, const char *name, const char *value);

/* Answers with a copied body (len 0: none, type may be NULL). */
void qg_http_answer(qg_http_request *req, int status, const char *type, const void *body, size_t len);

/* Answers with a body that is wiped when sent; takes the secret. */
void qg_http_answer_secret(qg_http_request *req, int status, const char *type, qg_secret *body);

/* From now on no secret leaves through any server of the process: answers with one
 * become 503. There is no way back. Any thread. */
void qg_http_forbid_secrets(void);

/* Says inside the handler that the answer comes later, from any thread. The
 * request stays valid until then. Without it a handler that returns without
 * an answer makes the server answer 500. */
void qg_http_defer(qg_http_request *req);

/* Between true and false on one thread: who waits for the late answers that it
 * gives is woken once, at the end, and not with each. */
void qg_http_gather(bool on);

#endif
