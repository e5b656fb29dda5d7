/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "byte_internal.h"
#include "qkdgate/clock.h"

/* The course of one connection: first byte, TLS, request, answer, and again. */

#define TURN 16           /* requests in a row, before others have their turn */
#define ROOM_FIRST 1024
#define TLS_HANDSHAKE 0x16 /* the first byte of a TLS connection */

qg_byte_conn *
qg_byte_conn_new(qg_byte_worker *w, int fd)
{
	qg_byte_conn *c = calloc(1, sizeof *c + w->server->o.state_bytes);
	if (c == NULL)
		return NULL;
	c->worker = w;
	c->fd = fd;
	c->since_ms = qg_clock_elapsed_ms();
	atomic_init(&c->refs, 1);
	return c;
}

void
qg_byte_conn_shut(qg_byte_conn *c)
{
	c->shut = true;
	qg_tls_session_free(&c->tls);
	close(c->fd);
}

void
qg_byte_conn_put(qg_byte_conn *c)
{
	if (atomic_fetch_sub(&c->refs, 1) != 1)
		return;
	if (c->in != NULL)
		qg_wipe(c->in, c->in_room);
	free(c->in);
	qg_secret_free(&c->out);
	free(c);
}

const void *
qg_byte_peer(const qg_byte_conn *c)
{
	return c->peer;
}

void *
qg_byte_state(qg_byte_conn *c)
{
	return c->state;
}

/* --- one step of reading or writing --------------------------------------------------- */

static qg_tls_step
step_of_errno(qg_tls_step again)
{
	return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? again : QG_TLS_FAILED;
}

static qg_tls_step
recv_step(qg_byte_conn *c, void *p, size_t n, size_t *got)
{
	if (c->tls != NULL)
		return qg_tls_session_recv(c->tls, p, n, got);
	const ssize_t rc = recv(c->fd, p, n, 0);
	if (rc < 0)
		return step_of_errno(QG_TLS_WANT_READ);
	*got = (size_t)rc;
	return rc == 0 ? QG_TLS_EOF : QG_TLS_DONE;
}

static qg_tls_step
send_step(qg_byte_conn *c, const void *p, size_t n, size_t *sent)
{
	if (c->tls != NULL)
		return qg_tls_session_send(c->tls, p, n, sent);
	const ssize_t rc = send(c->fd, p, n, MSG_NOSIGNAL);
	if (rc < 0)
		return step_of_errno(QG_TLS_WANT_WRITE);
	*sent = (size_t)rc;
	return QG_TLS_DONE;
}

static qg_byte_wish
wish_of(qg_tls_step step)
{
	return step == QG_TLS_WANT_READ ? QG_BYTE_READ : step == QG_TLS_WANT_WRITE ? QG_BYTE_WRITE : QG_BYTE_END;
}

/* --- beginning --------------------------------------------------------------------------- */

static bool
look_up(qg_byte_conn *c)
{
	const qg_byte_options *o = &c->worker->server->o;
	qg_tls_identity id;
	c->generation = atomic_load(&c->worker->server->generation);
	c->peer = NULL;
	if (c->tls == NULL)
		c->peer = o->identify(NULL, o->ctx);
	else if (qg_tls_session_identify(c->tls, &id) == QG_OK)
		c->peer = o->identify(&id, o->ctx);
	return c->peer != NULL;
}

bool
qg_byte_conn_known(qg_byte_conn *c)
{
	if (c->generation == atomic_load(&c->worker->server->generation) &&
	    (c->tls == NULL || qg_tls_session_is_current(c->tls)))
		return c->peer != NULL;
	return look_up(c);
}

/* QG_BYTE_MORE: it can go on. */
static qg_byte_wish
sniff(qg_byte_conn *c)
{
	const qg_byte_options *o = &c->worker->server->o;
	uint8_t first;
	const ssize_t n = recv(c->fd, &first, 1, MSG_PEEK);
	if (n < 0)
		return wish_of(step_of_errno(QG_TLS_WANT_READ));
	if (n == 0)
		return QG_BYTE_END;
	c->sniffed = true;
	if (first == TLS_HANDSHAKE)
		return qg_tls_session_new(c->worker->server->tls, c->fd, NULL, true, &c->tls) == QG_OK ? QG_BYTE_MORE
												    : QG_BYTE_END;
	c->shaken = o->plain;
	c->up = o->plain && look_up(c);
	return c->up ? QG_BYTE_MORE : QG_BYTE_END;
}

static qg_byte_wish
shake_hands(qg_byte_conn *c)
{
	const qg_tls_step step = qg_tls_session_handshake(c->tls);
	if (step != QG_TLS_DONE)
		return wish_of(step);
	c->shaken = true;
	atomic_fetch_add_explicit(&c->worker->server->handshakes, 1, memory_order_relaxed);
	c->up = look_up(c);
	c->since_ms = qg_clock_elapsed_ms();
	return c->up ? QG_BYTE_MORE : QG_BYTE_END;
}

/* --- answering ------------------------------------------------------------------------------ */

/* The request's bytes are not needed any more. */
static void
drop_request(qg_byte_conn *c)
{
	if (c->in_used == 0)
		return;
	memmove(c->in, c->in + c->in_used, c->in_len - c->in_used);
	c->in_len -= c->in_used;
	qg_wipe(c->in + c->in_len, c->in_used);
	c->in_used = 0;
}

static qg_byte_wish
send_answer(qg_byte_conn *c)
{
	while (c->out != NULL && c->out_at < c->out->len) {
		size_t sent = 0;
		if (atomic_load(&c->worker->server->forbidden))
			return QG_BYTE_END;
		const qg_tls_step step = send_step(c, c->out->data + c->out_at, c->out->len - c->out_at, &sent);
		if (step != QG_TLS_DONE)
			return wish_of(step);
		c->out_at += sent;
	}
	qg_secret_free(&c->out);
	c->answered = false;
	c->since_ms = qg_clock_elapsed_ms();
	return c->last ? QG_BYTE_END : QG_BYTE_MORE;
}

/* --- reading -------------------------------------------------------------------------------- */

static bool
grow(qg_byte_conn *c)
{
	const size_t most = c->worker->server->o.request_max;
	size_t room = c->in_room > 0 ? 2 * c->in_room : ROOM_FIRST;
	room = room < most ? room : most;
	if (room <= c->in_room)
		return false;
	uint8_t *in = malloc(room);
	if (in == NULL)
		return false;
	if (c->in_len > 0)
		memcpy(in, c->in, c->in_len);
	if (c->in != NULL)
		qg_wipe(c->in, c->in_room);
	free(c->in);
	c->in = in;
	c->in_room = room;
	return true;
}

/* QG_BYTE_MORE: there are more bytes than before. */
static qg_byte_wish
read_some(qg_byte_conn *c)
{
	size_t got = 0;
	if (c->in_len == c->in_room && !grow(c))
		return QG_BYTE_END; /* more than any request has */
	const qg_tls_step step = recv_step(c, c->in + c->in_len, c->in_room - c->in_len, &got);
	if (step != QG_TLS_DONE)
		return wish_of(step);
	c->in_len += got;
	return QG_BYTE_MORE;
}

static void
begin_call(qg_byte_conn *c)
{
	c->busy = c->inside = true;
	atomic_fetch_add(&c->refs, 1); /* the answer's */
}

static qg_err
end_call(qg_byte_conn *c, qg_err err)
{
	c->inside = false;
	if (err == QG_OK)
		return err;
	c->busy = false;
	qg_byte_conn_put(c);
	return err;
}

/* QG_E_AGAIN: no whole request is here. */
static qg_err
take_request(qg_byte_conn *c)
{
	const qg_byte_options *o = &c->worker->server->o;
	size_t used = 0;
	if (c->in_len == 0)
		return QG_E_AGAIN;
	if (!qg_byte_conn_known(c))
		return QG_E_AUTH;
	begin_call(c);
	const qg_err err = end_call(c, o->request(c, c->in, c->in_len, &used, o->ctx));
	if (err != QG_OK)
		return err;
	c->since_ms = qg_clock_elapsed_ms();
	c->in_used = used;
	return QG_OK;
}

/* QG_E_AGAIN: there is nothing to say. */
static qg_err
take_unasked(qg_byte_conn *c)
{
	const qg_byte_options *o = &c->worker->server->o;
	if (o->unasked == NULL)
		return QG_E_AGAIN;
	if (!qg_byte_conn_known(c))
		return QG_E_AUTH;
	begin_call(c);
	return end_call(c, o->unasked(c, o->ctx));
}

/* Something that is to be answered, or else bytes. */
static qg_byte_wish
take_up(qg_byte_conn *c)
{
	qg_err err = take_request(c);
	if (err == QG_E_AGAIN) {
		const qg_byte_wish wish = read_some(c); /* NOLINT(clang-analyzer-unix.Malloc): the worker has a share, too */
		if (wish != QG_BYTE_READ)
			return wish;
		err = take_unasked(c);
		if (err == QG_E_AGAIN)
			return QG_BYTE_READ;
	}
	if (err != QG_OK)
		return QG_BYTE_END;
	return c->busy ? QG_BYTE_WAIT : QG_BYTE_MORE;
}

qg_byte_wish
qg_byte_conn_run(qg_byte_conn *c)
{
	qg_byte_wish wish = QG_BYTE_MORE;
	for (int i = 0; i < TURN && wish == QG_BYTE_MORE; i++) {
		if (c->answered) {
			drop_request(c);
			wish = send_answer(c);
		} else if (!c->sniffed) {
			wish = sniff(c);
		} else if (!c->up) {
			wish = shake_hands(c);
		} else {
			wish = take_up(c);
		}
	}
	return wish;
}
