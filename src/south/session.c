/* SPDX-License-Identifier: Apache-2.0 */
#include "south_internal.h"

#include <assert.h>
#include <string.h>

#include "qkdgate/clock.h"

#define CONNECT_MS 3000
#define SEND_MS 3000
#define ANSWER_SLACK_MS 2000 /* beyond the time-out that the key manager itself keeps */
#define IDLE_MS 1000         /* after so long the server may have closed */
#define ANSWER_FIXED 512     /* every member of an answer but key and metadata */

qg_err
qg_session_fit(qg_source *s)
{
	/* A byte of key has four characters at most. */
	size_t room = ANSWER_FIXED + 4 * (size_t)s->chunk_size + (size_t)QG_ETSI004_METADATA_MAX;
	if (s->frames != NULL && s->frames->room >= room)
		return QG_OK;
	qg_secret *fresh = NULL;
	qg_err err = qg_secret_new(room, &fresh);
	if (err != QG_OK)
		return err;
	if (s->frames != NULL && qg_secret_append(fresh, s->frames->data + s->read,
						  s->frames->len - s->read) != QG_OK) {
		qg_secret_free(&fresh); /* cannot be: the new one is larger */
		return QG_E_RANGE;
	}
	qg_secret_free(&s->frames);
	s->frames = fresh;
	s->read = 0;
	return QG_OK;
}

/* --- waiting ---------------------------------------------------------------- */

bool
qg_session_stopping(qg_source *s)
{
	pthread_mutex_lock(&s->lock);
	bool stopping = s->stopping;
	pthread_mutex_unlock(&s->lock);
	return stopping;
}

struct timespec
qg_session_after_ms(unsigned ms)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

void
qg_session_nap(qg_source *s, unsigned ms)
{
	const struct timespec until = qg_session_after_ms(ms);
	pthread_mutex_lock(&s->lock);
	while (!s->stopping && pthread_cond_timedwait(&s->wake, &s->lock, &until) == 0)
		;
	pthread_mutex_unlock(&s->lock);
}

/* --- the connection --------------------------------------------------------- */

void
qg_session_drop(qg_source *s)
{
	pthread_mutex_lock(&s->lock);
	qg_conn *c = s->conn;
	s->conn = NULL;
	pthread_mutex_unlock(&s->lock);
	qg_conn_close(&c);
	qg_wipe(s->frames->data, s->frames->len);
	s->frames->len = 0;
	s->read = 0;
	s->last = false;
	s->pushing = false;
}

/* Whether a connection that was idle is still good: nothing to be read and not
 * closed. A server may end idle connections, which is no failure. */
static bool
still_good(qg_source *s)
{
	uint8_t byte;
	size_t got = 0;
	if (s->last || s->frames->len > s->read)
		return false; /* it ends, or has an answer that nobody asked for */
	if (qg_clock_elapsed_ms() - s->used_ms < IDLE_MS)
		return true;
	return qg_conn_recv_some(s->conn, &byte, 1, 0, &got) == QG_E_TIMEOUT;
}

qg_err
qg_session_connect(qg_source *s)
{
	const qg_config_source *src = &s->cfg->source;
	if (s->conn != NULL) {
		if (still_good(s))
			return QG_OK;
		qg_session_drop(s);
	}
	const char *name = src->server_name != NULL ? src->server_name : src->host;
	qg_conn *c = NULL;
	pthread_mutex_lock(&s->lock);
	bool aborted = s->aborted;
	pthread_mutex_unlock(&s->lock);
	if (aborted)
		return QG_E_CLOSED;
	qg_err err = qg_conn_open(src->host, src->port, src->tls ? &src->files : NULL, name, CONNECT_MS, &c);
	if (err != QG_OK)
		return err;
	pthread_mutex_lock(&s->lock);
	if (s->aborted)
		err = QG_E_CLOSED;
	else
		s->conn = c;
	pthread_mutex_unlock(&s->lock);
	if (err != QG_OK)
		qg_conn_close(&c);
	s->used_ms = qg_clock_elapsed_ms();
	return err;
}

/* --- messages --------------------------------------------------------------- */

qg_err
qg_session_send(qg_source *s, const qg_etsi004_request *q, size_t n)
{
	qg_writer w = qg_writer_of(s->requests, QG_SOUTH_REQUESTS_ROOM);
	for (size_t i = 0; i < n; i++) {
		qg_etsi004_request request = q[i];
		request.authority = s->authority;
		qg_err err = s->profile->put_request(s->profile, &request, &w);
		if (err != QG_OK)
			return err;
	}
	return qg_conn_send(s->conn, s->requests, w.len, SEND_MS);
}

bool
qg_session_waiting(qg_source *s)
{
	size_t got = 0;
	qg_secret *f = s->frames;
	if (s->conn == NULL)
		return false;
	if (f->len > s->read)
		return true;
	qg_wipe(f->data, f->len);
	f->len = s->read = 0;
	if (qg_conn_recv_some(s->conn, f->data, f->room, 0, &got) != QG_OK)
		return false;
	f->len = got;
	return true;
}

static qg_err
faulty(qg_source *s, const char *fault)
{
	s->fault = fault;
	return QG_E_PROTO;
}

/* Receives more bytes behind what is there, before the deadline. */
static qg_err
receive_more(qg_source *s, uint64_t deadline_ms)
{
	qg_secret *f = s->frames;
	uint64_t now = qg_clock_elapsed_ms();
	if (now >= deadline_ms)
		return QG_E_TIMEOUT;
	size_t got = 0;
	qg_err err = qg_conn_recv_some(s->conn, f->data + f->len, f->room - f->len,
				       (unsigned)(deadline_ms - now), &got);
	if (err != QG_OK)
		return err;
	assert(got > 0 && got <= f->room - f->len);
	f->len += got;
	return QG_OK;
}

/* Moves what is not read yet to the front and wipes what it leaves behind. */
static void
compact(qg_source *s)
{
	qg_secret *f = s->frames;
	size_t left = f->len - s->read;
	if (left > 0)
		memmove(f->data, f->data + s->read, left);
	qg_wipe(f->data + left, f->len - left);
	f->len = left;
	s->read = 0;
}

/* The next whole frame as a view. */
static qg_err
next_frame(qg_source *s, uint64_t deadline_ms, uint8_t **frame, size_t *n)
{
	for (;;) {
		qg_secret *f = s->frames;
		size_t have = f->len - s->read, total = 0;
		qg_err err = s->profile->frame(s->profile, f->data + s->read, have, &total);
		if (err == QG_OK && total > f->room)
			err = QG_E_RANGE;
		if (err != QG_OK && err != QG_E_AGAIN)
			return faulty(s, "oversized");
		if (err == QG_OK && have >= total) {
			*frame = f->data + s->read;
			*n = total;
			s->read += total;
			return QG_OK;
		}
		if (s->read > 0)
			compact(s);
		else if (f->len == f->room)
			return faulty(s, "oversized");
		err = receive_more(s, deadline_ms);
		if (err != QG_OK)
			return err;
	}
}

unsigned
qg_session_patience_ms(const qg_source *s)
{
	return s->cfg->source.timeout_ms + ANSWER_SLACK_MS;
}

qg_err
qg_session_answer_within(qg_source *s, qg_etsi004_op op, unsigned ms, qg_etsi004_response *a)
{
	const qg_etsi004_due due = {.op = op, .chunk_size = s->chunk_size};
	uint8_t *frame = NULL;
	size_t n = 0;
	qg_err err = next_frame(s, qg_clock_elapsed_ms() + ms, &frame, &n);
	if (err != QG_OK)
		return err;
	if (s->profile->get_response(s->profile, &due, frame, n, a) != QG_OK)
		return faulty(s, "malformed");
	if (a->op == QG_ETSI004_ERROR && a->status <= QG_ETSI004_PEER_NOT_CONNECTED)
		return faulty(s, "error_without_status");
	if (a->op != QG_ETSI004_ERROR && a->op != op)
		return faulty(s, "other_call");
	s->used_ms = qg_clock_elapsed_ms();
	s->last = a->last;
	return QG_OK;
}

qg_err
qg_session_answer(qg_source *s, qg_etsi004_op op, qg_etsi004_response *a)
{
	return qg_session_answer_within(s, op, qg_session_patience_ms(s), a);
}

qg_err
qg_session_call(qg_source *s, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	s->fault = NULL;
	qg_err err = qg_session_connect(s);
	if (err == QG_OK)
		err = qg_session_send(s, q, 1);
	if (err == QG_OK)
		err = qg_session_answer(s, q->op, a);
	return err;
}
