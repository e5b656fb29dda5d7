/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_HTTP_INTERNAL_H
#define QKDGATE_HTTP_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>

#include "qkdgate/error.h"
#include "qkdgate/http_server.h"
#include "qkdgate/request_id.h"
#include "qkdgate/secret.h"
#include "router_internal.h"
#include "tls_internal.h"

/* The parts of the server that do not need libmicrohttpd. */

/* --- a request (http_request.c) ------------------------------------------- */

#define QG_HTTP_METHOD_MAX 16
#define QG_HTTP_TEXT_MAX 128
#define QG_HTTP_SWALLOW_BYTES ((size_t)256 * 1024) /* of a refused body, before the connection is cut */

typedef enum qg_http_late { QG_HTTP_OPEN, QG_HTTP_ANSWERED, QG_HTTP_ABANDONED } qg_http_late;

typedef struct qg_http_field {
	struct qg_http_field *next;
	char *value;
	char name[];
} qg_http_field;

struct qg_http_worker;
struct qg_http_link;
struct MHD_Connection;
struct MHD_Daemon;
struct MHD_Response;

/* Two owners: the worker until libmicrohttpd has completed it and, once
 * deferred, whoever answers late. */
struct qg_http_request {
	struct qg_http_worker *worker;
	struct qg_http_link *link;  /* its connection, the worker's */
	struct MHD_Connection *mhd; /* the same to libmicrohttpd; NULL: the client left */
	atomic_uint refs;
	const void *peer;
	bool visitor; /* peer is of this request alone */
	uint64_t begun_ns;
	qg_request_id id;
	char method[QG_HTTP_METHOD_MAX];
	qg_target target;
	qg_route_match match;
	char allow[QG_ROUTER_ALLOW_MAX];
	int refused; /* status, or 0 */
	char refused_text[QG_HTTP_TEXT_MAX];
	qg_secret *body;
	size_t swallowed;
	bool handled;
	bool deferred; /* set before anybody else knows of the request */
	/* the worker's, of a deferred one: */
	bool slow;      /* has seen a sweep */
	bool suspended;
	bool back;      /* answered, or given up */
	_Atomic qg_http_late late;
	qg_http_field *fields; /* of the answer */
	struct MHD_Response *response;
	int status;
	qg_http_request *late_next; /* in the worker's queue of late answers */
	qg_http_request *prev;      /* in the worker's list of deferred ones */
	qg_http_request *next;
	char scratch[];
};

/* One with a single owner and room to take its target apart; NULL: no memory. */
qg_http_request *qg_http_request_new(const char *method, const char *raw_target);

/* Gives up one share; the last one frees all but the response. */
void qg_http_request_put(qg_http_request *req);

/* The worker's list of deferred ones. */
void qg_http_request_join(qg_http_request *req, qg_http_request **list);
void qg_http_request_leave(qg_http_request *req, qg_http_request **list);

/* Notes that the request is to be refused; the first reason counts. */
void qg_http_refuse(qg_http_request *req, int status, const char *fmt, ...) QG_PRINTF(3, 4);

/* Finds the route of the target, or refuses. */
void qg_http_find_route(qg_http_request *req, const qg_router *router, const char *raw_target);

/* What the headers say of where the request ends, and of its ID; NULL: absent. */
typedef struct qg_http_framing {
	const char *coding, *length, *request_id;
	unsigned n_codings, n_lengths, n_request_ids;
	bool bad_name; /* the name of a field is no token (RFC 9110, 5.6.2) */
} qg_http_framing;

/* Counts a header field in. */
void qg_http_see_field(qg_http_framing *f, const char *name, const char *value);

/* Refuses what does not fit the route or can be read in more than one way.
 * False: the body cannot even be swallowed, so the refusal must go out at once. */
bool qg_http_foresee_body(qg_http_request *req, const qg_http_framing *f);

/* Takes n bytes of the body and wipes them where they were. False: more than
 * can be swallowed. */
bool qg_http_take_body(qg_http_request *req, void *data, size_t n);

/* An IPv6 or mapped IPv4 address. */
typedef struct qg_census_key {
	uint8_t bytes[16];
} qg_census_key;

/* --- client connections (http_links.c) ------------------------------------ */

typedef struct qg_http_link qg_http_link;

/* One client connection; only its worker touches it. */
struct qg_http_link {
	struct MHD_Connection *mhd;
	qg_http_link **list; /* the list it is in: its head */
	qg_http_link *prev;
	qg_http_link *next;
	int fd;
	bool counted; /* in the census, under key */
	qg_census_key key;
	qg_tls_trust *trust; /* of its session */
	qg_tls_in in;
	qg_tls_out out;
	bool identified;     /* peer holds what identify said under this trust */
	const void *peer;
	uint64_t generation; /* of the server when it did */
	bool up;             /* the handshake is done */
	unsigned looks;      /* how often it was seen to wait in the handshake */
	qg_http_local local; /* without TLS: who it is */
	bool waiting;      /* for a late answer: no time limit of ours */
	bool answering;    /* a whole request is here, and its answer not yet all out */
	uint64_t ended_ms; /* when its client said that nothing more comes; 0: it has not */
	bool watched;      /* qg_link_watch knows the socket */
	bool ends;         /* qg_links_watch_end was there */
	uint64_t since_ms; /* the last time a request was begun or answered */
	char *target;      /* of the request that is being read, as it came */
	size_t target_room;
};

void qg_link_leave(qg_http_link *l);
void qg_link_join(qg_http_link *l, qg_http_link **list); /* leaves its list, if any */
void qg_link_free(qg_http_link *l);

/* Keeps a copy of the request target; without memory it is NULL after. */
void qg_link_keep_target(qg_http_link *l, const char *target);

/* Shuts the sockets of those that have taken longer; libmicrohttpd finds out. */
void qg_links_cut(const qg_http_link *list, uint64_t now_ms, uint64_t most_ms);

/* The same for those behind the first `keep` of the list: who joined it first. */
void qg_links_cut_behind(const qg_http_link *list, size_t keep);
/* And for the one that has been idle longest. */
void qg_links_cut_oldest(const qg_http_link *list);
/* And for those who ended before they had sent a whole request: libmicrohttpd does
 * not see an end that comes together with the last bytes. */
void qg_links_cut_ended(const qg_http_link *list, uint64_t now_ms);

/* Has the epoll descriptor say once when there is something to read. */
bool qg_link_watch(qg_http_link *l, int epoll_fd);
/* Or once for each of these when its client has ended; what cannot be watched is
 * left to the time limits. Those watched already cost nothing. */
void qg_links_watch_end(qg_http_link *list, int epoll_fd);
/* The next one that has something, or NULL. Does not wait. */
qg_http_link *qg_link_next(int epoll_fd);

/* --- figures (http_stats.c) ------------------------------------------------ */

/* What one worker counts; only it writes. */
typedef struct qg_http_counts {
	qg_http_route_stats *route; /* of each route, and one more for what has none */
	_Atomic uint64_t handshakes, failed_handshakes;
} qg_http_counts;

/* QG_E_NOMEM. */
qg_err qg_http_counts_init(qg_http_counts *c, size_t n_routes) QG_CHECKED;
void qg_http_counts_fini(qg_http_counts *c);
/* Counts an answer; route NULL: none fitted. */
void qg_http_count_answer(qg_http_counts *c, const qg_http_options *o, const qg_http_route *route, int status,
			  uint64_t took_ns);
void qg_http_count_handshake(qg_http_counts *c, bool done);

/* --- the server and its workers (http_workers.c) --------------------------- */
typedef struct qg_census qg_census; /* how many connections there are, below */
typedef struct qg_arrivals qg_arrivals; /* and how often they begin */

/* One thread per core with a daemon of libmicrohttpd. */
struct qg_http_worker {
	qg_http_server *server;
	struct MHD_Daemon *daemon;
	int daemon_fd; /* libmicrohttpd's epoll descriptor */
	int listen_fd;
	int wake_fd;
	pthread_t thread;
	bool running;
	bool draining;
	uint64_t next_sweep_ms;
	uint64_t came;         /* connections that libmicrohttpd told of */
	uint64_t came_before;  /* as of the last sweep */
	bool stuck;            /* somebody waited to be let in then */
	size_t active;         /* requests that libmicrohttpd holds */
	int park_fd;           /* epoll descriptor of the parked */
	qg_http_link *young;   /* in the TLS handshake, or just out of it */
	qg_http_link *parked;  /* in the handshake and waiting: suspended */
	size_t n_young;        /* of both, with TLS */
	qg_http_link *settled; /* the others */
	qg_http_request *deferred;
	size_t asked;          /* of these, those that are not suspended */
	pthread_mutex_t lock;  /* of the next two */
	qg_http_request *late;
	size_t owed;           /* wakes that threads which gather answers owe */
	qg_http_counts counts;
};

struct qg_http_server {
	qg_http_options o;
	qg_router *router;
	qg_tls_context *tls;
	_Atomic uint64_t generation;    /* counts changes of who is who */
	qg_census *census;
	qg_arrivals *arrivals;
	unsigned port;
	atomic_bool stopping;
	char trouble[QG_HTTP_TEXT_MAX]; /* what libmicrohttpd said while starting */
	bool started;
	bool has_name;                  /* of a Unix socket, to be removed */
	unsigned n_workers;
	struct qg_http_worker *workers;
};

/* http_server.c, for the threads of http_workers.c: makes the daemon on the
 * worker's listening socket, which is its from then on, and sets daemon and
 * daemon_fd; and: the thread. */
qg_err qg_http_daemon_start(struct qg_http_worker *w) QG_CHECKED;
void qg_http_daemon_stop(struct qg_http_worker *w);
void *qg_http_worker_main(void *worker);

/* --- late answers (http_server_late.c) -------------------------------------- */

/* The deferred request has its response and status. Any thread. */
void qg_late_answer(qg_http_request *req);
/* Has the worker look at its queue and at what it is to do. Any thread. */
void qg_late_wake(struct qg_http_worker *w);

/* On the worker's thread: requests whose answer has come are asked again. */
void qg_late_take(struct qg_http_worker *w);
/* Suspends those whose answer was not there at the last sweep either. */
void qg_late_suspend_slow(struct qg_http_worker *w);
/* Gives up those whose answer has not come. */
void qg_late_abandon(struct qg_http_worker *w);
/* At the end: nobody will touch the worker any more after it. */
void qg_late_wait_owed(struct qg_http_worker *w);

/* --- listening and counting (http_listen.c) ------------------------------- */

/* Opens a listening socket on an IP address; *port 0: any, and is set. The
 * first of a group fails when anybody else listens there already; the others
 * share its port with SO_REUSEPORT. QG_E_INVAL: not an IP address. QG_E_IO
 * with errno. */
qg_err qg_listen_open(const char *address, unsigned *port, bool first, int *fd) QG_CHECKED;

/* Makes a Unix socket of that mode and group (NULL: the process's) and listens on
 * it; one that nobody listens at any more is replaced. QG_E_EXISTS: somebody
 * does; QG_E_NOTFOUND: no such group; QG_E_IO with errno. */
qg_err qg_listen_unix(const char *path, unsigned mode, const char *group, int *fd) QG_CHECKED;

/* How many threads to serve with; wanted 0: one per core that we may use. */
unsigned qg_listen_threads(unsigned wanted);

/* How many connections there are, in all and per address. Any thread. */
/* most_each 0: no limit per address. QG_E_NOMEM. */
qg_err qg_census_new(unsigned most, unsigned most_each, qg_census **out) QG_CHECKED;
void qg_census_free(qg_census **c);
/* Whether one more would be let in now. */
bool qg_census_has_room(qg_census *c, const struct sockaddr *from);
/* Counts one more, or says no. */
bool qg_census_enter(qg_census *c, const struct sockaddr *from, qg_census_key *key);
unsigned qg_census_count(qg_census *c);
void qg_census_leave(qg_census *c, const qg_census_key *key);
qg_census_key qg_census_key_of(const struct sockaddr *from);

/* How many connections of one thread may be in the handshake at a time: half of
 * all, so that those who never finish theirs leave room for the others. */
unsigned qg_listen_most_young(unsigned max_connections, unsigned threads);

/* --- how often connections begin (http_arrivals.c) ------------------------- */

#define QG_HANDSHAKE_MS 10000 /* it must be done by then */

/* Per address, for IPv6 per /64, in a second, over ten seconds. per_s 0: *out is
 * NULL, which lets all in. QG_E_NOMEM. */
qg_err qg_arrivals_new(unsigned per_s, qg_arrivals **out) QG_CHECKED;
void qg_arrivals_free(qg_arrivals **a);
/* Whether one more may begin now; counts it. Any thread. */
bool qg_arrivals_let_in(qg_arrivals *a, const struct sockaddr *from);
/* How many were not let in. Any thread. */
uint64_t qg_arrivals_refused(qg_arrivals *a);

#endif
