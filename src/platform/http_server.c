/* SPDX-License-Identifier: Apache-2.0 */
/* The only file that includes libmicrohttpd.
 *
 * One worker thread per core with a daemon of its own, in epoll mode without
 * its internal thread: that one spins at 100 % of a core as soon as a client
 * sends a ClientHello and stops (see park). A deferred request is asked for its
 * answer with every run, which for a moment costs less than to suspend its
 * connection; one that takes longer is suspended. Its late answer goes to the
 * worker's queue, and the worker takes the whole queue at once. The request is
 * also the answerer's, so it stays valid until then, whether its client is still
 * there or not. */
#include <assert.h>
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "http_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/http_server.h"
#include "router_internal.h"
#include "tls_internal.h"

/* Memory of a connection for request line, headers, their index, read buffer
 * and the answer's headers. When a request just fills it, libmicrohttpd cannot
 * answer at all; so what is above HEADERS_MAX is refused while there is room. */
#define POOL_BYTES ((size_t)10 * 1024)
#define HEADERS_MAX ((size_t)8 * 1024)

#define RUNS_IN_A_ROW 3 /* of MHD_run while it asks for no wait */
#define LOOKS 3         /* at a handshake that waits, before it is suspended */
#define SWEEP_MS 500    /* between looks for connections that take too long */
#define DRAIN_MS 1000   /* when the server stops: for answers to go out */
#define LATE_MS 500     /* and for late answers to come */

typedef struct qg_http_worker worker;

typedef qg_http_link conn;

/* --- answers -------------------------------------------------------------- */

static bool
add_header(struct MHD_Response *r, const char *name, const char *value)
{
	return MHD_add_response_header(r, name, value) == MHD_YES;
}

static bool
has_field(const qg_http_field *f, const char *name)
{
	while (f != NULL && strcasecmp(f->name, name) != 0)
		f = f->next;
	return f != NULL;
}

static void
decorate(struct MHD_Response *r, const char *type, const qg_http_field *fields)
{
	if (!has_field(fields, MHD_HTTP_HEADER_CACHE_CONTROL))
		add_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
	if (type != NULL)
		add_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
}

static struct MHD_Response *
make_response(const void *body, size_t len)
{
	/* libmicrohttpd copies; the prototype merely lacks a const. */
	void *p = (void *)(uintptr_t)(len > 0 ? body : "");
	return MHD_create_response_from_buffer(len, p, len > 0 ? MHD_RESPMEM_MUST_COPY : MHD_RESPMEM_PERSISTENT);
}

static enum MHD_Result
queue(qg_http_request *req, int status, struct MHD_Response *r)
{
	if (r == NULL)
		return MHD_NO;
	if (req->worker->draining)
		add_header(r, MHD_HTTP_HEADER_CONNECTION, "close");
	uint64_t now_ns = qg_clock_elapsed_ns();
	req->link->since_ms = now_ns / 1000000;
	qg_http_count_answer(&req->worker->counts, &req->worker->server->o, req->match.route, status,
			     now_ns - req->begun_ns);
	add_header(r, QG_REQUEST_ID_HEADER, req->id.text);
	qg_tls_out_hold(&req->link->out);
	req->link->answering = true;
	enum MHD_Result rc = MHD_queue_response(req->mhd, (unsigned)status, r);
	MHD_destroy_response(r);
	return rc;
}

/* A body that is too large is an error of the client like any other: 413 is
 * what error_body hears, 400 what goes out (ETSI GS QKD 014 knows no 413). */
static enum MHD_Result
queue_refusal(qg_http_request *req, int status, const char *text)
{
	const qg_http_options *o = &req->worker->server->o;
	const qg_request_id *before = qg_request_id_enter(&req->id);
	char buf[1024];
	size_t len = 0;
	if (o->refuse != NULL)
		len = o->refuse(&(qg_http_refused){.status = status, .text = text, .method = req->method,
						   .path = req->target.path, .peer = req->peer},
				buf, sizeof buf, o->ctx);
	else if (status != MHD_HTTP_UNAUTHORIZED && o->error_body != NULL)
		len = o->error_body(status, text, buf, sizeof buf);
	struct MHD_Response *r = make_response(buf, len);
	if (r != NULL) {
		decorate(r, len > 0 ? o->error_type : NULL, NULL);
		if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
			add_header(r, MHD_HTTP_HEADER_ALLOW, req->allow);
	}
	if (o->on_refused != NULL && o->refuse == NULL)
		o->on_refused(status, req->method, req->target.path, o->ctx);
	(void)qg_request_id_enter(before);
	return queue(req, status == MHD_HTTP_CONTENT_TOO_LARGE ? MHD_HTTP_BAD_REQUEST : status, r);
}

static void
answer(qg_http_request *req, int status, const char *type, struct MHD_Response *r)
{
	assert(req->response == NULL && req->status == 0);
	if (r != NULL) {
		decorate(r, type, req->fields);
		for (const qg_http_field *h = req->fields; h != NULL; h = h->next)
			add_header(r, h->name, h->value);
	}
	req->response = r;
	req->status = status;
	if (req->deferred)
		qg_late_answer(req);
}

void
qg_http_answer(qg_http_request *req, int status, const char *type, const void *body, size_t len)
{
	answer(req, status, type, make_response(body, len));
}

static void
free_secret_body(void *cls)
{
	qg_secret *s = cls;
	qg_secret_free(&s);
}

static atomic_bool secrets_forbidden;

void
qg_http_forbid_secrets(void)
{
	atomic_store(&secrets_forbidden, true);
}

void
qg_http_answer_secret(qg_http_request *req, int status, const char *type, qg_secret *body)
{
	if (atomic_load(&secrets_forbidden)) {
		qg_secret_free(&body);
		qg_http_answer(req, MHD_HTTP_SERVICE_UNAVAILABLE, NULL, NULL, 0);
		return;
	}
	struct MHD_Response *r =
		MHD_create_response_from_buffer_with_free_callback_cls(body->len, body->data, free_secret_body, body);
	if (r == NULL)
		qg_secret_free(&body);
	answer(req, status, type, r);
}

void
qg_http_defer(qg_http_request *req)
{
	assert(!req->deferred && req->status == 0);
	req->deferred = true;
	req->link->waiting = true;
	atomic_fetch_add(&req->refs, 1);
	qg_http_request_join(req, &req->worker->deferred);
	req->suspended = req->worker->server->o.waits_long;
	if (req->suspended)
		MHD_suspend_connection(req->mhd);
	else
		req->worker->asked++;
}

const qg_http_local *
qg_http_local_peer(const qg_http_request *req)
{
	return req->link->local.known ? &req->link->local : NULL;
}

const char *
qg_http_header(const qg_http_request *req, const char *name)
{
	return MHD_lookup_connection_value(req->mhd, MHD_HEADER_KIND, name);
}

bool
qg_http_address(const qg_http_request *req, uint8_t out[16])
{
	const qg_http_link *link = req->link;
	if (link == NULL || !link->counted || req->worker->server->o.transport == QG_HTTP_UNIX)
		return false;
	memcpy(out, link->key.bytes, sizeof link->key.bytes);
	return true;
}

/* --- a request comes in --------------------------------------------------- */

static conn *
conn_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return info != NULL ? info->socket_context : NULL;
}

static void *
session_of(struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	return info != NULL ? info->tls_session : NULL;
}

/* libmicrohttpd shows the target as it came only here, before it decodes. */
static void *
on_target(void *cls, const char *target, struct MHD_Connection *mhd)
{
	(void)cls;
	conn *c = conn_of(mhd);
	if (c != NULL)
		qg_link_keep_target(c, target);
	return NULL;
}

/* No decoding by libmicrohttpd: ours is strict, and knows segments. */
static size_t
on_unescape(void *cls, struct MHD_Connection *mhd, char *text)
{
	(void)cls, (void)mhd;
	return strlen(text);
}

/* One whose certificate could not be read or is refused is looked at again with
 * its next request: for want of memory it would else be nobody for good. */
static void
identify_tls(qg_http_server *s, conn *c, void *session)
{
	static _Thread_local qg_tls_identity id; /* 8 KiB */
	c->identified = qg_tls_identify(s->tls, session, &c->trust, &id) == QG_OK;
	c->peer = c->identified ? s->o.identify(&id, s->o.ctx) : NULL;
}

static void
forget_peer(qg_http_server *s, conn *c)
{
	if (c->peer != NULL && s->o.forget != NULL)
		s->o.forget(c->peer, s->o.ctx);
	c->peer = NULL;
}

/* Once per connection, and again where it may have become another: looking at a
 * certificate costs as much as 40 requests. */
static const void *
peer_of(qg_http_server *s, conn *c, struct MHD_Connection *mhd)
{
	uint64_t generation = atomic_load_explicit(&s->generation, memory_order_acquire);
	bool tls = s->o.transport == QG_HTTP_TLS;
	if (c->identified && c->generation == generation && (!tls || qg_tls_is_current(s->tls, c->trust)))
		return c->peer;
	forget_peer(s, c);
	c->identified = true;
	if (tls)
		identify_tls(s, c, session_of(mhd));
	else
		c->peer = s->o.identify_local(&c->local, s->o.ctx);
	c->generation = generation;
	return c->peer;
}

/* Who makes the request, where neither the connection nor its route says that
 * this does not matter. */
static void
see_caller(qg_http_request *req, const qg_http_options *o)
{
	if (req->peer == NULL && o->identify_request != NULL) {
		req->peer = o->identify_request(req, o->ctx);
		req->visitor = req->peer != NULL;
	}
	const qg_http_route *route = req->match.route;
	const bool open = o->identify_request != NULL && route != NULL && o->is_open(route);
	if (req->peer != NULL || open)
		return;
	req->refused = 0; /* who is nobody does not learn what else is wrong */
	qg_http_refuse(req, MHD_HTTP_UNAUTHORIZED, "the certificate names nobody known here");
}

static enum MHD_Result
see_field(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	(void)kind;
	qg_http_see_field(cls, name, value != NULL ? value : "");
	return MHD_YES;
}

static enum MHD_Result
begin(worker *w, struct MHD_Connection *mhd, const char *method, void **con_cls)
{
	conn *c = conn_of(mhd);
	qg_http_request *req = c != NULL && c->target != NULL ? qg_http_request_new(method, c->target) : NULL;
	if (req == NULL)
		return MHD_NO;
	req->worker = w;
	req->link = c;
	req->mhd = mhd;
	w->active++;
	*con_cls = req;
	req->begun_ns = qg_clock_elapsed_ns();
	c->since_ms = req->begun_ns / 1000000;

	req->peer = peer_of(w->server, c, mhd);
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	if (info != NULL && info->header_size > HEADERS_MAX)
		qg_http_refuse(req, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE, "more than 8 KiB of headers");
	qg_http_find_route(req, w->server->router, c->target);
	see_caller(req, &w->server->o);
	/* Never an answer on this first call, it would end the connection: except
	 * where just that is wanted. */
	qg_http_framing framing = {0};
	(void)MHD_get_connection_values(mhd, MHD_HEADER_KIND, see_field, &framing);
	qg_request_id_take(&req->id, framing.n_request_ids == 1 ? framing.request_id : NULL);
	if (qg_http_foresee_body(req, &framing))
		return MHD_YES;
	return queue_refusal(req, req->refused, req->refused_text);
}

static enum MHD_Result
send_answer(qg_http_request *req)
{
	struct MHD_Response *r = req->response;
	if (r == NULL)
		return queue_refusal(req, MHD_HTTP_INTERNAL_SERVER_ERROR, "internal error");
	req->response = NULL;
	return queue(req, req->status, r);
}

/* The body is complete: handle it, or the request is back with its answer. */
static enum MHD_Result
finish(qg_http_request *req)
{
	if (req->deferred) {
		if (!req->back)
			return MHD_YES;
		if (atomic_load(&req->late) == QG_HTTP_ANSWERED)
			return send_answer(req);
		return queue_refusal(req, MHD_HTTP_SERVICE_UNAVAILABLE, "the server is stopping");
	}
	if (req->worker->draining)
		qg_http_refuse(req, MHD_HTTP_SERVICE_UNAVAILABLE, "the server is stopping");
	if (req->refused != 0)
		return queue_refusal(req, req->refused, req->refused_text);
	assert(!req->handled);
	req->handled = true;
	req->link->answering = true;
	const qg_request_id *before = qg_request_id_enter(&req->id);
	req->match.route->handler(req, req->worker->server->o.ctx);
	(void)qg_request_id_enter(before);
	/* Deferred, it may have been answered already: the queue has it then. */
	return req->deferred ? MHD_YES : send_answer(req);
}

static enum MHD_Result
on_access(void *cls, struct MHD_Connection *mhd, const char *url, const char *method, const char *version,
	  const char *data, size_t *size, void **con_cls)
{
	(void)url, (void)version;
	qg_http_request *req = *con_cls;
	if (req == NULL)
		return begin(cls, mhd, method, con_cls);
	if (*size == 0)
		return finish(req);
	/* The body may hold key and libmicrohttpd frees its buffers unwiped, so the
	 * bytes are wiped where they are: it is done with them. */
	bool ok = qg_http_take_body(req, (void *)(uintptr_t)data, *size);
	*size = 0;
	return ok ? MHD_YES : MHD_NO;
}

static void
on_completed(void *cls, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode how)
{
	(void)mhd, (void)how;
	worker *w = cls;
	qg_http_request *req = *con_cls;
	if (req == NULL)
		return;
	*con_cls = NULL;
	w->active--;
	if (req->visitor && w->server->o.forget_request != NULL)
		w->server->o.forget_request(req->peer, w->server->o.ctx);
	req->link->since_ms = qg_clock_elapsed_ms();
	req->link->answering = false;
	/* No body followed, and a client that reads nothing is not waited for. */
	if (!qg_tls_out_flush(&req->link->out))
		(void)shutdown(req->link->fd, SHUT_RDWR);
	if (req->deferred && !req->back) { /* the client left; the answer still comes */
		w->asked--;
		req->mhd = NULL;
		req->link->waiting = false;
	} else if (atomic_load(&req->late) != QG_HTTP_ABANDONED && req->response != NULL) {
		MHD_destroy_response(req->response);
	}
	req->link = NULL;
	qg_http_request_put(req);
}

/* --- connections ---------------------------------------------------------- */

static enum MHD_Result
on_accept(void *cls, const struct sockaddr *from, socklen_t len)
{
	(void)len; /* of a Unix socket there is no address but its kind */
	worker *w = cls;
	qg_http_server *s = w->server;
	w->came++;
	return qg_census_has_room(s->census, from) && qg_arrivals_let_in(s->arrivals, from) ? MHD_YES : MHD_NO;
}

static void
see_local(conn *c)
{
	struct ucred who;
	socklen_t len = sizeof who;
	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && len == sizeof who)
		c->local = (qg_http_local){.known = true, .uid = who.uid, .gid = who.gid, .pid = who.pid};
}

/* Whatever goes wrong here, the socket is shut and libmicrohttpd finds out. */
static bool
conn_start(worker *w, conn *c, struct MHD_Connection *mhd)
{
	static const struct sockaddr nowhere = {.sa_family = AF_UNIX};
	qg_http_server *s = w->server;
	const union MHD_ConnectionInfo *from = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	bool local = s->o.transport == QG_HTTP_UNIX;
	if (!local && from == NULL)
		return false;
	c->counted = qg_census_enter(s->census, local ? &nowhere : from->client_addr, &c->key);
	if (!c->counted)
		return false;
	if (local)
		see_local(c);
	if (s->o.transport != QG_HTTP_TLS) {
		qg_link_join(c, &w->settled);
		return true;
	}
	void *session = session_of(mhd);
	return session != NULL && qg_tls_adopt(s->tls, session, &c->in, &c->out, &c->trust) == QG_OK;
}

static void
conn_open(worker *w, struct MHD_Connection *mhd, void **context)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
	int fd = info != NULL ? info->connect_fd : -1;
	conn *c = calloc(1, sizeof *c);
	if (c != NULL) {
		c->mhd = mhd;
		c->fd = fd;
		qg_tls_in_init(&c->in, fd, &c->out);
		qg_tls_out_init(&c->out, fd);
		c->since_ms = qg_clock_elapsed_ms();
		qg_link_join(c, &w->young);
		w->n_young += w->server->o.transport == QG_HTTP_TLS;
		*context = c;
	}
	if (c == NULL || !conn_start(w, c, mhd))
		(void)shutdown(fd, SHUT_RDWR);
}

static void
conn_close(worker *w, conn *c)
{
	if (c == NULL)
		return;
	if (w->server->o.transport == QG_HTTP_TLS && !c->up) {
		w->n_young--;
		qg_http_count_handshake(&w->counts, c->target != NULL);
	}
	if (c->counted)
		qg_census_leave(w->server->census, &c->key);
	forget_peer(w->server, c);
	qg_tls_trust_put(&c->trust);
	qg_link_free(c);
}

static void
on_connection(void *cls, struct MHD_Connection *mhd, void **context, enum MHD_ConnectionNotificationCode code)
{
	worker *w = cls;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		conn_open(w, mhd, context);
	} else {
		conn_close(w, *context);
		*context = NULL;
	}
}

/* Whether what a connection waits for is to be left to epoll. Most answer to our
 * flight at once: to ask those again costs less than to suspend and resume. */
static bool
keeps_waiting(conn *c)
{
	return ++c->looks >= LOOKS;
}

/* A client that stops inside the handshake stays "ready" to libmicrohttpd,
 * which tries it again with every run: some hundreds of them would slow down
 * everybody. So they are suspended until they say something. */
static void
park(worker *w)
{
	for (conn *c = w->young; c != NULL;) {
		conn *next = c->next;
		/* One that has asked something is through, and may be suspended already. */
		switch (c->target != NULL ? QG_TLS_DONE : qg_tls_handshake_state(session_of(c->mhd))) {
		case QG_TLS_DONE:
			c->up = true;
			w->n_young--;
			qg_http_count_handshake(&w->counts, true);
			qg_link_join(c, &w->settled);
			break;
		case QG_TLS_WANT_READ:
			if (keeps_waiting(c) && qg_link_watch(c, w->park_fd)) {
				MHD_suspend_connection(c->mhd);
				qg_link_join(c, &w->parked);
			}
			break;
		default:
			break;
		}
		c = next;
	}
}

static void
unpark(worker *w, conn *c)
{
	qg_link_join(c, &w->young);
	c->looks = 0;
	MHD_resume_connection(c->mhd);
}

/* One of the watched has something to read, or its client has ended. */
static void
wake_link(worker *w, conn *c)
{
	if (c->list == &w->parked)
		unpark(w, c);
	else
		c->ended_ms = qg_clock_elapsed_ms();
}

/* Those that are parked longest make room before strangers have all of it. */
static void
thin_out(worker *w)
{
	const qg_http_server *s = w->server;
	const size_t most = qg_listen_most_young(s->o.max_connections, s->n_workers);
	if (w->n_young > most)
		qg_links_cut_behind(w->parked, most - most / 4);
}

/* Once there was no descriptor or memory for a connection, libmicrohttpd takes none
 * until one has left, and those that there are may be of use for ever. So where
 * nobody was let in from one sweep to the next though somebody waits, one leaves. */
static void
make_way(worker *w)
{
	struct pollfd p = {.fd = w->listen_fd, .events = POLLIN};
	const bool waits = poll(&p, 1, 0) == 1;
	if (waits && w->stuck && w->came == w->came_before)
		qg_links_cut_oldest(w->settled);
	w->stuck = waits;
	w->came_before = w->came;
}

/* --- the loop ------------------------------------------------------------- */

/* libmicrohttpd's timeout starts anew with every byte, and does not see the
 * parked. Here a handshake must be done within the idle timeout and ten seconds, a
 * request be complete and an answer taken within twice the idle timeout. */
static void
sweep(worker *w)
{
	uint64_t now = qg_clock_elapsed_ms();
	uint64_t idle_ms = (uint64_t)w->server->o.idle_timeout_s * 1000;
	if (now < w->next_sweep_ms || idle_ms == 0)
		return;
	w->next_sweep_ms = now + SWEEP_MS;
	qg_late_suspend_slow(w);
	const uint64_t handshake_ms = idle_ms < QG_HANDSHAKE_MS ? idle_ms : QG_HANDSHAKE_MS;
	qg_links_cut(w->parked, now, handshake_ms);
	qg_links_cut(w->young, now, 2 * handshake_ms);
	qg_links_cut(w->settled, now, 2 * idle_ms);
	qg_links_cut_ended(w->settled, now);
	qg_links_watch_end(w->settled, w->park_fd);
	make_way(w);
}

/* How long libmicrohttpd lets us sleep. It may say 0 for long, without cause:
 * hence the limit on runs in a row. While answers or handshakes are waited for it
 * always does. */
static int
run_daemon(worker *w)
{
	MHD_UNSIGNED_LONG_LONG wait_ms = SWEEP_MS;
	const qg_http_options *o = &w->server->o;
	for (int i = 0; i < RUNS_IN_A_ROW; i++) {
		if (o->running != NULL)
			o->running(true, o->ctx);
		MHD_run(w->daemon);
		if (o->running != NULL)
			o->running(false, o->ctx);
		if (MHD_get_timeout(w->daemon, &wait_ms) != MHD_YES)
			return SWEEP_MS;
		if (wait_ms != 0)
			return wait_ms < SWEEP_MS ? (int)wait_ms : SWEEP_MS;
		if (!w->draining)
			park(w);
		if (w->asked > 0 || w->young != NULL)
			break;
	}
	return 1;
}

static int
serve(worker *w, int wait_ms)
{
	enum { DAEMON, WAKE, PARK };
	struct pollfd p[] = {
		[DAEMON] = {.fd = w->daemon_fd, .events = POLLIN},
		[WAKE] = {.fd = w->wake_fd, .events = POLLIN},
		[PARK] = {.fd = w->park_fd, .events = POLLIN},
	};
	if (poll(p, sizeof p / sizeof p[0], wait_ms) > 0) {
		if (p[WAKE].revents != 0)
			qg_late_take(w);
		for (conn *c; p[PARK].revents != 0 && (c = qg_link_next(w->park_fd)) != NULL;)
			wake_link(w, c);
	}
	thin_out(w);
	sweep(w);
	return run_daemon(w);
}

static void
drain(worker *w)
{
	uint64_t deadline_ms = qg_clock_elapsed_ms() + DRAIN_MS;
	w->draining = true;
	(void)MHD_quiesce_daemon(w->daemon);
	close(w->listen_fd);
	w->listen_fd = -1;
	while (w->parked != NULL)
		unpark(w, w->parked);
	/* An answer under way may be a key whose consumption is being committed. */
	int wait_ms = run_daemon(w);
	uint64_t late_ms = qg_clock_elapsed_ms() + LATE_MS;
	while (w->deferred != NULL && qg_clock_elapsed_ms() < late_ms)
		wait_ms = serve(w, wait_ms < 20 ? wait_ms : 20);
	qg_late_abandon(w);
	wait_ms = run_daemon(w);
	while (w->deferred != NULL || (w->active > 0 && qg_clock_elapsed_ms() < deadline_ms))
		wait_ms = serve(w, wait_ms < 20 ? wait_ms : 20);
}

void *
qg_http_worker_main(void *arg)
{
	worker *w = arg;
	int wait_ms = 0;
	qg_tls_wipe_adopted();
	while (!atomic_load(&w->server->stopping))
		wait_ms = serve(w, wait_ms);
	drain(w);
	qg_late_wait_owed(w);
	MHD_stop_daemon(w->daemon);
	w->daemon = NULL;
	return NULL;
}

/* --- the daemon ------------------------------------------------------------ */

/* libmicrohttpd's words on single connections say nothing an operator can use,
 * and a stranger can have as many of them written as he likes. */
static void on_log(void *cls, const char *fmt, va_list ap) QG_PRINTF(2, 0);

static void
on_log(void *cls, const char *fmt, va_list ap)
{
	qg_http_server *s = cls;
	if (s->started)
		return;
	if (vsnprintf(s->trouble, sizeof s->trouble, fmt, ap) < 0)
		s->trouble[0] = '\0';
	s->trouble[strcspn(s->trouble, "\n")] = '\0';
}

qg_err
qg_http_daemon_start(worker *w)
{
	const qg_http_options *o = &w->server->o;
	bool tls = o->transport == QG_HTTP_TLS;
	unsigned flags = MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG;
	struct MHD_OptionItem certificate[] = {
		{MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)(uintptr_t)qg_tls_no_certificate()},
		{MHD_OPTION_END, 0, NULL},
	};
	/* clang-format off */
	w->daemon = MHD_start_daemon(flags | (tls ? MHD_USE_TLS : 0), 0, on_accept, w, on_access, w,
		MHD_OPTION_EXTERNAL_LOGGER, on_log, w->server,
		MHD_OPTION_LISTEN_SOCKET, w->listen_fd,
		MHD_OPTION_ARRAY, tls ? certificate : certificate + 1,
		MHD_OPTION_NOTIFY_CONNECTION, on_connection, w,
		MHD_OPTION_NOTIFY_COMPLETED, on_completed, w,
		MHD_OPTION_URI_LOG_CALLBACK, on_target, w,
		MHD_OPTION_UNESCAPE_CALLBACK, on_unescape, w,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, POOL_BYTES,
		MHD_OPTION_CONNECTION_LIMIT, o->max_connections + 16, /* on_accept rules */
		MHD_OPTION_CONNECTION_TIMEOUT, o->idle_timeout_s,
		MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
		MHD_OPTION_END);
	/* clang-format on */
	if (w->daemon == NULL)
		return QG_E_IO;
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(w->daemon, MHD_DAEMON_INFO_EPOLL_FD);
	if (info == NULL)
		return QG_E_IO;
	w->daemon_fd = info->epoll_fd;
	return QG_OK;
}

void
qg_http_daemon_stop(worker *w)
{
	if (w->daemon == NULL)
		return;
	MHD_stop_daemon(w->daemon); /* takes the listening socket along */
	w->daemon = NULL;
	w->listen_fd = -1;
}

