/* SPDX-License-Identifier: Apache-2.0 */
/* The server as a whole: its sockets and threads, its certificates, its start
 * and its end. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "http_internal.h"

typedef struct qg_http_worker worker;

/* --- sockets ---------------------------------------------------------------- */

static qg_err
listen_unix(worker *w, qg_http_server *s, char *why, size_t why_room)
{
	qg_err err = qg_listen_unix(s->o.address, s->o.socket_mode, s->o.socket_group, &w->listen_fd);
	if (err == QG_E_EXISTS)
		qg_tls_say(why, why_room, "%s: in use by another process, or no socket", s->o.address);
	else if (err == QG_E_NOTFOUND)
		qg_tls_say(why, why_room, "%s: there is no group %s", s->o.address, s->o.socket_group);
	else if (err == QG_E_INVAL)
		qg_tls_say(why, why_room, "%s: too long for the name of a Unix socket", s->o.address);
	else if (err != QG_OK)
		qg_tls_say(why, why_room, "%s: %s", s->o.address, strerror(errno));
	s->has_name = err == QG_OK;
	return err == QG_OK ? QG_OK : QG_E_IO;
}

static qg_err
listen_address(worker *w, qg_http_server *s, bool first, char *why, size_t why_room)
{
	qg_err err = qg_listen_open(s->o.address, &s->port, first, &w->listen_fd);
	if (err == QG_OK)
		return QG_OK;
	qg_tls_say(why, why_room, "%s port %u: %s", s->o.address, s->port,
		   err == QG_E_INVAL ? "not an IP address and port" : strerror(errno));
	return QG_E_IO;
}

static qg_err
worker_open(worker *w, qg_http_server *s, bool first, char *why, size_t why_room)
{
	w->server = s;
	w->daemon_fd = -1;
	qg_err err = qg_http_counts_init(&w->counts, s->o.n_routes);
	if (err == QG_OK)
		err = s->o.transport == QG_HTTP_UNIX ? listen_unix(w, s, why, why_room)
						     : listen_address(w, s, first, why, why_room);
	if (err != QG_OK)
		return err;
	w->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	w->park_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w->wake_fd < 0 || w->park_fd < 0) {
		qg_tls_say(why, why_room, "%s", strerror(errno));
		return QG_E_IO;
	}
	err = qg_http_daemon_start(w);
	if (err != QG_OK) {
		if (w->daemon == NULL)
			w->listen_fd = -1; /* it closed that */
		qg_tls_say(why, why_room, "%s port %u: %s", s->o.address, s->port, s->trouble);
	}
	return err;
}

/* --- threads ---------------------------------------------------------------- */

/* Signals are the main thread's. */
static qg_err
worker_start(worker *w)
{
	sigset_t all;
	sigset_t old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	w->running = pthread_create(&w->thread, NULL, qg_http_worker_main, w) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return w->running ? QG_OK : QG_E_NOMEM;
}

static void
worker_end(worker *w)
{
	if (w->running) {
		qg_late_wake(w);
		pthread_join(w->thread, NULL);
	}
	qg_http_daemon_stop(w);
	if (w->listen_fd >= 0)
		close(w->listen_fd);
	if (w->wake_fd >= 0)
		close(w->wake_fd);
	if (w->park_fd >= 0)
		close(w->park_fd);
	qg_http_counts_fini(&w->counts);
	pthread_mutex_destroy(&w->lock);
}

/* A Unix socket has one listener. */
static unsigned
n_threads(const qg_http_options *o)
{
	return o->transport == QG_HTTP_UNIX ? 1 : qg_listen_threads(o->threads);
}

static qg_err
open_workers(qg_http_server *s, char *why, size_t why_room)
{
	unsigned n = n_threads(&s->o);
	s->workers = calloc(n, sizeof *s->workers);
	if (s->workers == NULL)
		return QG_E_NOMEM;
	for (unsigned i = 0; i < n; i++) {
		worker *w = &s->workers[i];
		w->listen_fd = w->wake_fd = w->park_fd = -1;
		pthread_mutex_init(&w->lock, NULL);
		s->n_workers = i + 1;
		qg_err err = worker_open(w, s, i == 0, why, why_room);
		if (err != QG_OK)
			return err;
	}
	s->started = true;
	for (unsigned i = 0; i < n; i++) {
		qg_err err = worker_start(&s->workers[i]);
		if (err != QG_OK)
			return err;
	}
	return QG_OK;
}

qg_err
qg_http_server_reload_tls(qg_http_server *s, const qg_tls_files *f, char *why, size_t why_room)
{
	return qg_tls_context_reload(s->tls, f, why, why_room);
}

void
qg_http_server_identify_again(qg_http_server *s)
{
	atomic_fetch_add_explicit(&s->generation, 1, memory_order_release);
}

/* --- start and stop ----------------------------------------------------------- */

static qg_err
start_all(qg_http_server *s, char *why, size_t why_room)
{
	qg_err err = qg_router_new(s->o.routes, s->o.n_routes, &s->router);
	if (err != QG_OK) {
		qg_tls_say(why, why_room, "the table of routes is wrong");
		return err;
	}
	if (s->o.transport == QG_HTTP_TLS) {
		err = qg_tls_context_new(&s->o.tls, QG_TLS_SERVER, why, why_room, &s->tls);
		if (err == QG_OK)
			qg_tls_context_tickets(s->tls, s->o.ticket_key_s);
		if (err == QG_OK && s->o.certificate_optional)
			qg_tls_context_optional(s->tls);
	}
	if (err == QG_OK)
		err = qg_census_new(s->o.max_connections, s->o.max_per_address, &s->census);
	if (err == QG_OK)
		err = qg_arrivals_new(s->o.transport == QG_HTTP_UNIX ? 0 : s->o.address_handshakes_per_s, &s->arrivals);
	return err == QG_OK ? open_workers(s, why, why_room) : err;
}

/* Without TLS somebody has to say who is there, and with it who may come in. */
static bool
knows_callers(const qg_http_options *o)
{
	return o->transport == QG_HTTP_TLS ? o->identify != NULL : o->identify_local != NULL;
}

qg_err
qg_http_server_start(const qg_http_options *o, qg_http_server **out, char *why, size_t why_room)
{
	if (!knows_callers(o)) {
		qg_tls_say(why, why_room, "nothing says who may use it");
		return QG_E_INVAL;
	}
	qg_http_server *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	qg_tls_say(why, why_room, "out of memory");
	s->o = *o;
	s->port = o->port;
	atomic_init(&s->stopping, false);
	qg_err err = start_all(s, why, why_room);
	if (err != QG_OK) {
		qg_http_server_stop(&s);
		return err;
	}
	*out = s;
	return QG_OK;
}

unsigned
qg_http_server_port(const qg_http_server *s)
{
	return s->port;
}

void
qg_http_server_stop(qg_http_server **s)
{
	if (s == NULL || *s == NULL)
		return;
	qg_http_server *old = *s;
	*s = NULL;
	atomic_store(&old->stopping, true);
	if (old->has_name) /* before the socket closes: nobody else has the name yet */
		(void)unlink(old->o.address);
	for (unsigned i = 0; i < old->n_workers; i++)
		if (old->workers[i].running)
			qg_late_wake(&old->workers[i]);
	for (unsigned i = 0; i < old->n_workers; i++)
		worker_end(&old->workers[i]);
	free(old->workers);
	qg_census_free(&old->census);
	qg_arrivals_free(&old->arrivals);
	qg_tls_context_free(&old->tls);
	qg_router_free(&old->router);
	free(old);
}
