/* SPDX-License-Identifier: Apache-2.0 */
/* Stream connections of the 004 profiles, over TCP or mutual TLS. Sockets do
 * not block; every wait is a poll against one deadline for the whole call. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qkdgate/clock.h"
#include "qkdgate/tls.h"
#include "tls_internal.h"

struct qg_conn {
	int fd;
	qg_tls_context *ctx; /* NULL: plain TCP */
	qg_tls_session *tls;
	char *peer_name;
	atomic_bool aborted;
	bool broken; /* a message was cut in the middle: the stream is out of step */
};

static uint64_t
deadline_in(unsigned timeout_ms)
{
	return qg_clock_elapsed_ms() + timeout_ms;
}

static qg_err
wait_for(qg_conn *c, short events, uint64_t deadline_ms)
{
	for (;;) {
		uint64_t now = qg_clock_elapsed_ms();
		uint64_t left = now < deadline_ms ? deadline_ms - now : 0;
		struct pollfd p = {.fd = c->fd, .events = events};
		int n = poll(&p, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (atomic_load(&c->aborted))
			return QG_E_CLOSED;
		if (n > 0)
			return QG_OK;
		if (n < 0 && errno != EINTR)
			return QG_E_IO;
		if (n == 0 && left == 0)
			return QG_E_TIMEOUT;
	}
}

/* --- one step of reading or writing, TLS or not --------------------------- */

static qg_tls_step
step_of_errno(void)
{
	return errno == EINTR ? QG_TLS_WANT_READ : QG_TLS_FAILED;
}

static qg_tls_step
send_step(qg_conn *c, const void *p, size_t n, size_t *sent)
{
	if (c->tls != NULL)
		return qg_tls_session_send(c->tls, p, n, sent);
	ssize_t rc = send(c->fd, p, n, MSG_NOSIGNAL);
	if (rc >= 0) {
		*sent = (size_t)rc;
		return QG_TLS_DONE;
	}
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? QG_TLS_WANT_WRITE : QG_TLS_FAILED;
}

static qg_tls_step
recv_step(qg_conn *c, void *p, size_t n, size_t *got)
{
	if (c->tls != NULL)
		return qg_tls_session_recv(c->tls, p, n, got);
	ssize_t rc = recv(c->fd, p, n, 0);
	if (rc > 0) {
		*got = (size_t)rc;
		return QG_TLS_DONE;
	}
	if (rc == 0)
		return QG_TLS_EOF;
	return errno == EAGAIN || errno == EWOULDBLOCK ? QG_TLS_WANT_READ : step_of_errno();
}

/* Waits as the step asks, or says how it failed. */
static qg_err
after_step(qg_conn *c, qg_tls_step step, uint64_t deadline_ms)
{
	switch (step) {
	case QG_TLS_WANT_READ:
		return wait_for(c, POLLIN, deadline_ms);
	case QG_TLS_WANT_WRITE:
		return wait_for(c, POLLOUT, deadline_ms);
	case QG_TLS_DONE:
		return QG_OK;
	case QG_TLS_EOF:
		return QG_E_CLOSED;
	case QG_TLS_REFUSED:
		return QG_E_AUTH;
	case QG_TLS_FAILED:
		break;
	}
	return atomic_load(&c->aborted) ? QG_E_CLOSED : QG_E_IO;
}

static qg_err
handshake(qg_conn *c, uint64_t deadline_ms)
{
	for (;;) {
		qg_tls_step step = qg_tls_session_handshake(c->tls);
		qg_err err = after_step(c, step, deadline_ms);
		if (err == QG_E_CLOSED && !atomic_load(&c->aborted))
			return QG_E_IO; /* the peer left in the middle of it */
		if (err != QG_OK || step == QG_TLS_DONE)
			return err;
	}
}

/* --- connecting ----------------------------------------------------------- */

static qg_err
connect_result(int fd)
{
	int error = 0;
	socklen_t len = sizeof error;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0)
		return QG_E_IO;
	return QG_OK;
}

static qg_err
connect_to(qg_conn *c, const struct addrinfo *ai, uint64_t deadline_ms)
{
	c->fd = socket(ai->ai_family, ai->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, ai->ai_protocol);
	if (c->fd < 0)
		return QG_E_IO;
	qg_err err = QG_OK;
	if (connect(c->fd, ai->ai_addr, ai->ai_addrlen) != 0)
		err = errno == EINPROGRESS ? wait_for(c, POLLOUT, deadline_ms) : QG_E_IO;
	if (err == QG_OK)
		err = connect_result(c->fd);
	if (err != QG_OK) {
		close(c->fd);
		c->fd = -1;
	}
	return err;
}

/* Tries every address of the host in turn. Numeric hosts need no resolver;
 * that of the C library keeps a time of its own. */
static qg_err
connect_host(qg_conn *c, const char *host, unsigned port, uint64_t deadline_ms)
{
	char service[16];
	int n = snprintf(service, sizeof service, "%u", port);
	if (n < 0 || (size_t)n >= sizeof service || port == 0 || port > 65535)
		return QG_E_INVAL;
	struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	if (getaddrinfo(host, service, &hints, &list) != 0)
		return QG_E_IO;
	qg_err err = QG_E_IO;
	for (const struct addrinfo *ai = list; ai != NULL && err != QG_OK && err != QG_E_TIMEOUT; ai = ai->ai_next)
		err = connect_to(c, ai, deadline_ms);
	freeaddrinfo(list);
	return err;
}

static void
tune(int fd)
{
	int on = 1;
	/* Requests and answers are one write each: waiting for more gains nothing. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
}

static qg_conn *
conn_new(int fd)
{
	qg_conn *c = calloc(1, sizeof *c);
	if (c != NULL) {
		c->fd = fd;
		atomic_init(&c->aborted, false);
	}
	return c;
}

static qg_err
secure(qg_conn *c, const qg_tls_files *tls, qg_tls_role role, const char *peer_name, bool verify_client,
	uint64_t deadline_ms)
{
	qg_err err = QG_OK;
	if (peer_name != NULL && (c->peer_name = strdup(peer_name)) == NULL)
		return QG_E_NOMEM;
	err = qg_tls_context_new(tls, role, NULL, 0, &c->ctx);
	if (err == QG_OK)
		err = qg_tls_session_new(c->ctx, c->fd, c->peer_name, verify_client, &c->tls);
	return err == QG_OK ? handshake(c, deadline_ms) : err;
}

qg_err
qg_conn_open(const char *host, unsigned port, const qg_tls_files *tls, const char *server_name,
	     unsigned timeout_ms, qg_conn **out)
{
	uint64_t deadline_ms = deadline_in(timeout_ms);
	qg_conn *c = conn_new(-1);
	if (c == NULL)
		return QG_E_NOMEM;
	qg_err err = connect_host(c, host, port, deadline_ms);
	if (err == QG_OK) {
		tune(c->fd);
		if (tls != NULL)
			err = secure(c, tls, QG_TLS_CLIENT, server_name != NULL ? server_name : host, false, deadline_ms);
	}
	if (err != QG_OK) {
		qg_conn_close(&c);
		return err;
	}
	*out = c;
	return QG_OK;
}

static bool
make_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);
	return flags >= 0 && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0;
}

qg_err
qg_conn_accept(int fd, const qg_tls_files *tls, bool require_client_cert, unsigned timeout_ms, qg_conn **out)
{
	uint64_t deadline_ms = deadline_in(timeout_ms);
	qg_conn *c = conn_new(fd);
	if (c == NULL) {
		close(fd);
		return QG_E_NOMEM;
	}
	qg_err err = make_nonblocking(fd) ? QG_OK : QG_E_IO;
	if (err == QG_OK) {
		tune(fd);
		if (tls != NULL)
			err = secure(c, tls, QG_TLS_SERVER, NULL, require_client_cert, deadline_ms);
	}
	if (err != QG_OK) {
		qg_conn_close(&c);
		return err;
	}
	*out = c;
	return QG_OK;
}

/* --- using ---------------------------------------------------------------- */

static qg_err
usable(const qg_conn *c)
{
	if (atomic_load(&c->aborted))
		return QG_E_CLOSED;
	return c->broken ? QG_E_IO : QG_OK;
}

qg_err
qg_conn_send(qg_conn *c, const void *p, size_t n, unsigned timeout_ms)
{
	uint64_t deadline_ms = deadline_in(timeout_ms);
	const uint8_t *at = p;
	qg_err err = usable(c);
	while (n > 0 && err == QG_OK) {
		size_t sent = 0;
		err = after_step(c, send_step(c, at, n, &sent), deadline_ms);
		at += sent;
		n -= sent;
	}
	/* How much of it went out nobody knows. */
	c->broken = c->broken || (err != QG_OK);
	return err;
}

qg_err
qg_conn_recv(qg_conn *c, void *p, size_t n, unsigned timeout_ms)
{
	uint64_t deadline_ms = deadline_in(timeout_ms);
	uint8_t *at = p;
	size_t have = 0;
	qg_err err = usable(c);
	while (have < n && err == QG_OK) {
		size_t got = 0;
		err = after_step(c, recv_step(c, at + have, n - have, &got), deadline_ms);
		have += got;
	}
	if (err == QG_OK)
		return QG_OK;
	if (err == QG_E_AUTH)
		err = QG_E_IO; /* TLS 1.3: the server's no to our certificate comes after the handshake */
	c->broken = c->broken || have > 0 || err == QG_E_IO;
	if (have > 0 && err == QG_E_CLOSED && !atomic_load(&c->aborted))
		err = QG_E_IO; /* cut in the middle */
	if (have > 0)
		qg_wipe(p, have);
	return err;
}

qg_err
qg_conn_recv_some(qg_conn *c, void *p, size_t room, unsigned timeout_ms, size_t *got)
{
	uint64_t deadline_ms = deadline_in(timeout_ms);
	size_t n = 0;
	qg_err err = room > 0 ? usable(c) : QG_E_INVAL;
	while (n == 0 && err == QG_OK)
		err = after_step(c, recv_step(c, p, room, &n), deadline_ms);
	if (err == QG_E_AUTH)
		err = QG_E_IO; /* as in qg_conn_recv */
	c->broken = c->broken || err == QG_E_IO;
	if (n > 0 && err == QG_OK)
		*got = n;
	return err;
}

void
qg_conn_close(qg_conn **c)
{
	if (c == NULL || *c == NULL)
		return;
	qg_conn *old = *c;
	*c = NULL;
	qg_tls_session_free(&old->tls);
	qg_tls_context_free(&old->ctx);
	if (old->fd >= 0)
		close(old->fd);
	free(old->peer_name);
	free(old);
}

void
qg_conn_abort(qg_conn *c)
{
	atomic_store(&c->aborted, true);
	(void)shutdown(c->fd, SHUT_RDWR);
}
