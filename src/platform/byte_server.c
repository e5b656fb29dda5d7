/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "byte_internal.h"
#include "qkdgate/clock.h"

/* The threads: each accepts, waits and answers for connections of its own. */

#define EVENTS 64
#define SWEEP_MS 500

/* --- connections of a worker --------------------------------------------------------- */

static void
join(qg_byte_worker *w, qg_byte_conn *c)
{
	c->next = w->conns;
	if (w->conns != NULL)
		w->conns->prev = c;
	w->conns = c;
}

static void
leave(qg_byte_worker *w, qg_byte_conn *c)
{
	if (c->prev != NULL)
		c->prev->next = c->next;
	else
		w->conns = c->next;
	if (c->next != NULL)
		c->next->prev = c->prev;
	c->next = c->prev = NULL;
}

/* Its peer is known now, or it ends. */
static void
grow_up(qg_byte_worker *w, qg_byte_conn *c)
{
	w->n_young -= c->young;
	c->young = false;
}

static void
conn_end(qg_byte_worker *w, qg_byte_conn *c)
{
	grow_up(w, c);
	leave(w, c);
	if (c->counted)
		qg_census_leave(w->server->census, &c->key);
	if (!c->shaken)
		atomic_fetch_add_explicit(&w->server->failed_handshakes, 1, memory_order_relaxed);
	(void)epoll_ctl(w->epoll_fd, EPOLL_CTL_DEL, c->fd, NULL);
	qg_byte_conn_shut(c);
	qg_byte_conn_put(c);
}

static bool
watch(qg_byte_worker *w, qg_byte_conn *c, uint32_t events)
{
	struct epoll_event e = {.events = events, .data.ptr = c};
	if (events == c->watched)
		return true;
	c->watched = events;
	return epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, c->fd, &e) == 0;
}

/* What is waited for in each case: QG_BYTE_WAIT and QG_BYTE_MORE wait for nothing of
 * the socket. */
static const uint32_t events_of[] = {[QG_BYTE_READ] = EPOLLIN, [QG_BYTE_WRITE] = EPOLLOUT, [QG_BYTE_END] = 0};

static void
run(qg_byte_worker *w, qg_byte_conn *c)
{
	const qg_byte_wish wish = qg_byte_conn_run(c);
	if (c->up)
		grow_up(w, c);
	/* Of a connection that cannot be watched nothing would be heard any more. */
	if (wish == QG_BYTE_END || !watch(w, c, events_of[wish])) {
		/* Its turn in the list of the others first. */
		if (c->queued)
			c->over = true;
		else
			conn_end(w, c);
	} else if (wish == QG_BYTE_MORE && !c->queued) {
		c->queued = true;
		c->again = w->again;
		w->again = c;
	}
}

static void
accept_one(qg_byte_worker *w, int fd, const struct sockaddr *from)
{
	qg_byte_conn *c = qg_byte_conn_new(w, fd);
	int on = 1;
	if (c == NULL) {
		close(fd);
		return;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	c->counted = qg_arrivals_let_in(w->server->arrivals, from) &&
		     qg_census_enter(w->server->census, from, &c->key);
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
	c->watched = EPOLLIN;
	if (!c->counted || epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, fd, &e) != 0) {
		if (c->counted)
			qg_census_leave(w->server->census, &c->key);
		qg_byte_conn_shut(c);
		qg_byte_conn_put(c);
		return;
	}
	c->young = true;
	w->n_young++;
	join(w, c);
}

/* Without descriptors the listening socket would say so with every wait. */
static void
listen_again(qg_byte_worker *w, bool on)
{
	struct epoll_event e = {.events = on ? EPOLLIN : 0, .data.ptr = &w->listen_fd};
	if (epoll_ctl(w->epoll_fd, EPOLL_CTL_MOD, w->listen_fd, &e) == 0)
		w->deaf = !on;
}

/* Those that began first make room before strangers have all of it. */
static void
thin_out(qg_byte_worker *w)
{
	const qg_byte_server *s = w->server;
	const size_t most = qg_listen_most_young(s->o.max_connections, s->n);
	if (w->n_young <= most)
		return;
	size_t keep = most - most / 4;
	qg_byte_conn *next;
	for (qg_byte_conn *c = w->conns; c != NULL; c = next) {
		next = c->next;
		if (!c->young || c->queued)
			continue;
		if (keep > 0)
			keep--;
		else
			conn_end(w, c);
	}
}

static void
accept_some(qg_byte_worker *w)
{
	for (int i = 0; i < EVENTS; i++) {
		struct sockaddr_storage a = {0};
		socklen_t len = sizeof a;
		const int fd = accept4(w->listen_fd, (struct sockaddr *)&a, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			accept_one(w, fd, (const struct sockaddr *)&a);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)
			listen_again(w, false);
		return;
	}
}

/* --- the loop ---------------------------------------------------------------------------- */

/* What other threads answered. */
static void
take_answers(qg_byte_worker *w)
{
	uint64_t count;
	if (read(w->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
		return;
	pthread_mutex_lock(&w->lock);
	qg_byte_conn *list = w->answered;
	w->answered = NULL;
	pthread_mutex_unlock(&w->lock);
	while (list != NULL) {
		qg_byte_conn *c = list;
		list = c->answered_next;
		const bool gone = c->shut;
		c->busy = false;
		c->since_ms = qg_clock_elapsed_ms(); /* from here on the client is waited for */
		qg_byte_conn_put(c); /* the answer's share */
		/* Whose right ended meanwhile gets no answer. */
		if (!gone && !qg_byte_conn_known(c))
			conn_end(w, c);
		else if (!gone)
			run(w, c);
	}
}

static void
sweep(qg_byte_worker *w, uint64_t now_ms)
{
	if (now_ms < w->sweep_at_ms)
		return;
	w->sweep_at_ms = now_ms + SWEEP_MS;
	if (w->deaf)
		listen_again(w, true);
	const uint64_t idle_ms = (uint64_t)w->server->o.idle_timeout_s * 1000;
	qg_byte_conn *next;
	for (qg_byte_conn *c = w->conns; c != NULL; c = next) {
		next = c->next;
		const uint64_t most_ms = c->up || idle_ms < QG_HANDSHAKE_MS ? idle_ms : QG_HANDSHAKE_MS;
		if (c->queued)
			continue;
		if ((!c->busy && now_ms - c->since_ms > most_ms) || (c->up && !qg_byte_conn_known(c)))
			conn_end(w, c); /* an answer that is awaited will be dropped */
	}
}

static void
run_again(qg_byte_worker *w)
{
	qg_byte_conn *list = w->again;
	w->again = NULL;
	while (list != NULL) {
		qg_byte_conn *c = list;
		list = c->again;
		c->queued = false;
		if (c->over)
			conn_end(w, c);
		else
			run(w, c);
	}
}

/* The other side is gone; where an answer is awaited, it will be dropped. */
static bool
is_gone(const struct epoll_event *e, const qg_byte_conn *c)
{
	return (e->events & (EPOLLERR | EPOLLHUP)) != 0 && (c->watched & (EPOLLIN | EPOLLOUT)) == 0;
}

static void
see_conn(qg_byte_worker *w, const struct epoll_event *e, qg_byte_conn *c)
{
	if (c->queued)
		return;
	if (is_gone(e, c))
		conn_end(w, c);
	else if (!c->busy)
		run(w, c);
}

/* What can end others than the connection that an event is of comes behind all
 * events: one of them may be of these. */
static void *
worker_run(void *arg)
{
	qg_byte_worker *w = arg;
	struct epoll_event ev[EVENTS];
	while (!atomic_load(&w->server->stopping)) {
		const int n = epoll_wait(w->epoll_fd, ev, EVENTS, w->again != NULL ? 0 : SWEEP_MS);
		bool knock = false, answered = false;
		for (int i = 0; i < n; i++) {
			if (ev[i].data.ptr == &w->listen_fd)
				knock = true;
			else if (ev[i].data.ptr == &w->wake_fd)
				answered = true;
			else
				see_conn(w, &ev[i], ev[i].data.ptr);
		}
		if (answered)
			take_answers(w);
		if (knock)
			accept_some(w);
		run_again(w);
		thin_out(w);
		sweep(w, qg_clock_elapsed_ms());
	}
	return NULL;
}

/* --- from any thread ----------------------------------------------------------------------- */

void
qg_byte_answer(qg_byte_conn *c, qg_secret *bytes, bool last)
{
	qg_byte_worker *w = c->worker;
	c->out = bytes;
	c->out_at = 0;
	c->answered = true;
	c->last |= last;
	if (pthread_equal(pthread_self(), w->thread) && c->inside) {
		c->busy = false; /* qg_byte_conn_run goes on with it */
		qg_byte_conn_put(c);
		return;
	}
	const uint64_t one = 1;
	pthread_mutex_lock(&w->lock);
	const bool stopped = w->stopped;
	if (!stopped) {
		c->answered_next = w->answered;
		w->answered = c;
	}
	pthread_mutex_unlock(&w->lock);
	if (stopped)
		qg_byte_conn_put(c);
	else if (write(w->wake_fd, &one, sizeof one) < 0) {
		/* The counter is full: it is awake. */
	}
}

/* --- starting and stopping ------------------------------------------------------------------ */

static bool
epoll_add(int epoll_fd, int fd, void *what)
{
	struct epoll_event e = {.events = EPOLLIN, .data.ptr = what};
	return epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0;
}

static qg_err
worker_start(qg_byte_server *s, qg_byte_worker *w, bool first)
{
	w->server = s;
	w->listen_fd = -1;
	pthread_mutex_init(&w->lock, NULL);
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (w->epoll_fd < 0 || w->wake_fd < 0)
		return QG_E_IO;
	qg_err err = qg_listen_open(s->o.address, &s->port, first, &w->listen_fd);
	if (err != QG_OK)
		return err;
	if (!epoll_add(w->epoll_fd, w->listen_fd, &w->listen_fd) || !epoll_add(w->epoll_fd, w->wake_fd, &w->wake_fd))
		return QG_E_IO;
	if (pthread_create(&w->thread, NULL, worker_run, w) != 0)
		return QG_E_NOMEM;
	pthread_setname_np(w->thread, "qg-apps");
	w->running = true;
	return QG_OK;
}

void
qg_byte_server_stats(const qg_byte_server *s, qg_http_stats *out)
{
	*out = (qg_http_stats){
		.handshakes = atomic_load_explicit(&s->handshakes, memory_order_relaxed),
		.failed_handshakes = atomic_load_explicit(&s->failed_handshakes, memory_order_relaxed),
		.limited = qg_arrivals_refused(s->arrivals),
		.connections = qg_census_count(s->census),
	};
}

qg_err
qg_byte_server_reload_tls(qg_byte_server *s, const qg_tls_files *f, char *why, size_t why_room)
{
	return qg_tls_context_reload(s->tls, f, why, why_room);
}

void
qg_byte_server_forbid(qg_byte_server *s)
{
	atomic_store(&s->forbidden, true);
}

void
qg_byte_server_identify_again(qg_byte_server *s)
{
	atomic_fetch_add(&s->generation, 1);
}

qg_err
qg_byte_server_start(const qg_byte_options *o, qg_byte_server **out, char *why, size_t why_room)
{
	qg_byte_server *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	s->o = *o;
	s->port = o->port;
	atomic_init(&s->stopping, false);
	atomic_init(&s->generation, 0);
	atomic_init(&s->forbidden, false);
	s->n = qg_listen_threads(o->threads);
	qg_err err = qg_tls_context_new(&o->tls, QG_TLS_SERVER, why, why_room, &s->tls);
	if (err == QG_OK)
		qg_tls_context_tickets(s->tls, o->ticket_key_s);
	if (err == QG_OK)
		err = qg_census_new(o->max_connections, o->max_per_address, &s->census);
	if (err == QG_OK)
		err = qg_arrivals_new(o->address_handshakes_per_s, &s->arrivals);
	s->worker = calloc(s->n, sizeof *s->worker);
	if (err == QG_OK && s->worker == NULL)
		err = QG_E_NOMEM;
	for (unsigned i = 0; err == QG_OK && i < s->n; i++) {
		err = worker_start(s, &s->worker[i], i == 0);
		s->n_made = i + 1;
		if (err != QG_OK)
			qg_tls_say(why, why_room, "cannot listen on %s port %u: %s", o->address, s->port,
				   err == QG_E_IO ? strerror(errno) : qg_err_text(err));
	}
	if (err != QG_OK) {
		qg_byte_server_stop(s);
		qg_byte_server_free(&s);
		return err;
	}
	*out = s;
	return QG_OK;
}

unsigned
qg_byte_server_port(const qg_byte_server *s)
{
	return s->port;
}

static void
worker_end(qg_byte_worker *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopped = true;
	qg_byte_conn *list = w->answered;
	w->answered = NULL;
	pthread_mutex_unlock(&w->lock);
	while (list != NULL) {
		qg_byte_conn *c = list;
		list = c->answered_next;
		qg_byte_conn_put(c);
	}
	while (w->conns != NULL)
		conn_end(w, w->conns);
}

void
qg_byte_server_stop(qg_byte_server *s)
{
	const uint64_t one = 1;
	atomic_store(&s->stopping, true);
	for (unsigned i = 0; i < s->n_made; i++) {
		qg_byte_worker *w = &s->worker[i];
		if (!w->running)
			continue;
		if (write(w->wake_fd, &one, sizeof one) < 0) {
			/* It wakes by itself soon. */
		}
		pthread_join(w->thread, NULL);
		w->running = false;
		worker_end(w);
	}
}

void
qg_byte_server_free(qg_byte_server **sp)
{
	if (sp == NULL || *sp == NULL)
		return;
	qg_byte_server *s = *sp;
	*sp = NULL;
	for (unsigned i = 0; i < s->n_made; i++) {
		qg_byte_worker *w = &s->worker[i];
		if (w->epoll_fd >= 0)
			close(w->epoll_fd);
		if (w->wake_fd >= 0)
			close(w->wake_fd);
		if (w->listen_fd >= 0)
			close(w->listen_fd);
		pthread_mutex_destroy(&w->lock);
	}
	free(s->worker);
	qg_census_free(&s->census);
	qg_arrivals_free(&s->arrivals);
	qg_tls_context_free(&s->tls);
	free(s);
}
