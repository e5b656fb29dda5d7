/* SPDX-License-Identifier: Apache-2.0 */
/* The 004 server: a thread per connection. Requests that wait in the socket
 * are all answered before anything is sent, in one write. A connection that
 * pushes sends chunk after chunk until a request comes. */
#include "sim_internal.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define IN_ROOM ((size_t)QG_ETSI004_METADATA_MAX + 8192) /* requests */
#define OUT_ROOM ((size_t)65536)                         /* answers, one write */
#define ANSWER_MAX ((size_t)SIM_CHUNK_MAX + 512)
#define HANDSHAKE_MS 5000
#define SEND_MS 10000
#define TURN_MS 1000
#define PUSH_MS (24u * 3600 * 1000) /* an application may keep a push waiting */
#define FIRST_REQUEST_MS 30000 /* where a connection has only one */

typedef struct connection {
	sim_server *server;
	pthread_t thread;
	bool used, ended; /* with the server's lock */
	int fd;
	const qg_etsi004_profile *profile; /* NULL until the first request */
	bool last;        /* the application wants no more of the connection */
	bool pushing;
	qg_uuid push_ksid;
	uint32_t push_index;
	qg_conn *conn;    /* with the server's lock; used by its thread */
	uint8_t *in;
	size_t in_len;
	qg_secret *out, *key;
	qg_writer answers;
} connection;

struct sim_server {
	sim *s;
	int listener;
	pthread_t thread;
	pthread_mutex_t lock;
	bool stopping;
	sim_pushers *pushers;
	connection connections[SIM_CONNECTIONS_MAX];
};

/* --- one connection ----------------------------------------------------------- */

static qg_err
flush_within(connection *c, unsigned ms)
{
	qg_err err = QG_OK;
	if (c->answers.len > 0)
		err = qg_conn_send(c->conn, c->out->data, c->answers.len, ms);
	qg_wipe(c->out->data, c->answers.len);
	c->answers = qg_writer_of(c->out->data, c->out->room);
	return err;
}

static qg_err
flush(connection *c)
{
	return flush_within(c, SEND_MS);
}

/* Dialect A's metadata ends in NUL and its request has no room for an answer's. */
static void
add_metadata(const qg_etsi004_profile *p, const qg_etsi004_request *q, uint32_t age_ms, char *text, size_t room,
	     qg_etsi004_response *a)
{
	int n = snprintf(text, room, "{\"age\":%u,\"hops\":0}", age_ms);
	if (n < 0 || (size_t)n >= room)
		return;
	const bool is_a = p->metadata_nul;
	size_t len = (size_t)n + (is_a ? 1 : 0);
	if (!is_a && q->metadata_max == 0)
		return;
	if (!is_a && q->metadata_max < len) {
		*a = (qg_etsi004_response){.op = QG_ETSI004_GET_KEY, .status = QG_ETSI004_METADATA_SIZE,
					   .index = q->index, .qos.mimetype = "",
					   .metadata_needed = (uint32_t)len};
		return;
	}
	a->metadata = (const uint8_t *)text;
	a->metadata_len = len;
}

/* The chunk of an index as an answer behind the others. What is answered already
 * goes out before this one waits for key. */
static qg_err
put_chunk(connection *c, const qg_etsi004_request *q, uint64_t received_ms, uint32_t *status)
{
	sim *s = c->server->s;
	qg_etsi004_response a;
	uint32_t age_ms = 0;
	bool metadata = false;
	char text[64];
	qg_err err = QG_OK;
	sim_get(s, q, received_ms, false, c->key, &age_ms, &metadata, &a);
	if (a.status == SIM_WOULD_WAIT) {
		err = flush(c);
		sim_get(s, q, received_ms, true, c->key, &age_ms, &metadata, &a);
	}
	*status = a.status;
	/* A push has nothing to say while there is no key. */
	if (c->pushing && (a.status == QG_ETSI004_NO_KEY || a.status == QG_ETSI004_NO_PEER ||
			   a.status == QG_ETSI004_TIMEOUT))
		return err;
	if (a.status == QG_ETSI004_SUCCESS && metadata)
		add_metadata(c->profile, q, age_ms, text, sizeof text, &a);
	qg_err put = c->profile->put_response(c->profile, &a, &c->answers);
	return err != QG_OK ? err : put;
}

static qg_err
answer_get(connection *c, const qg_etsi004_request *q, uint64_t received_ms)
{
	const qg_etsi004_profile *p = c->profile;
	uint32_t status = 0;
	if (p->push != NULL) {
		const qg_etsi004_response a = {
			.op = QG_ETSI004_GET_KEY, .qos.mimetype = "",
			.status = sim_push_from(c->server->pushers, p, &q->ksid, q->index)};
		return p->put_response(p, &a, &c->answers);
	}
	c->pushing = c->server->s->opt.push && (p->modes & QG_ETSI004_PUSH) != 0;
	c->push_ksid = q->ksid;
	c->push_index = q->index;
	return c->pushing ? QG_OK : put_chunk(c, q, received_ms, &status);
}

/* One more chunk of a connection that pushes. */
static qg_err
push_one(connection *c)
{
	const qg_etsi004_request q = {.op = QG_ETSI004_GET_KEY, .ksid = c->push_ksid, .index = c->push_index,
				      .metadata_max = QG_ETSI004_METADATA_MAX};
	uint32_t status = 0;
	qg_err err = put_chunk(c, &q, qg_clock_elapsed_ms(), &status);
	if (status == QG_ETSI004_SUCCESS)
		c->push_index++;
	else if (status == QG_ETSI004_NO_KEY || status == QG_ETSI004_NO_PEER)
		poll(NULL, 0, 10);
	else if (status != QG_ETSI004_TIMEOUT)
		c->pushing = false;
	return err == QG_OK ? flush_within(c, PUSH_MS) : err;
}

static qg_err
malformed(connection *c, const uint8_t *frame, size_t n, qg_err err)
{
	const qg_etsi004_profile *seen = NULL;
	bool other = qg_etsi004_bin_detect(frame, n, &seen) == QG_OK && seen != c->profile;
	qg_log(QG_LOG_WARN, "sim", "event=malformed_request error=\"%s\" other_dialect=%s", qg_err_text(err),
	       other ? "yes" : "no");
	if (c->profile != NULL && qg_etsi004_put_error(c->profile, &c->answers) == QG_OK &&
	    flush(c) != QG_OK)
		return QG_E_IO;
	return err;
}

static qg_err
answer(connection *c, const qg_etsi004_request *q, uint64_t received_ms)
{
	sim *s = c->server->s;
	qg_etsi004_response a;
	qg_err err;
	if (c->answers.room - c->answers.len < ANSWER_MAX && (err = flush(c)) != QG_OK)
		return err;
	c->last = q->last || !c->profile->persistent;
	if (q->op == QG_ETSI004_GET_KEY)
		return answer_get(c, q, received_ms);
	c->pushing = false;
	if (q->op == QG_ETSI004_OPEN_CONNECT) {
		if ((err = flush(c)) != QG_OK)
			return err;
		sim_open(s, c->profile, q, &a);
	} else {
		sim_close(s, q, &a);
	}
	a.last = q->last;
	return c->profile->put_response(c->profile, &a, &c->answers);
}

/* Answers every whole request that is there. */
static qg_err
answer_all(connection *c)
{
	uint64_t received_ms = qg_clock_elapsed_ms();
	size_t at = 0;
	while (!c->last) {
		size_t used = 0;
		qg_etsi004_request q;
		qg_err err = qg_etsi004_next_request(&c->profile, c->in + at, c->in_len - at, &q, &used);
		if (err == QG_E_AGAIN)
			break;
		err = err == QG_OK ? answer(c, &q, received_ms) : malformed(c, c->in + at, c->in_len - at, err);
		if (err != QG_OK)
			return err;
		at += used;
	}
	memmove(c->in, c->in + at, c->in_len - at);
	c->in_len -= at;
	return flush(c);
}

static bool
server_stopping(sim_server *server)
{
	pthread_mutex_lock(&server->lock);
	bool is = server->stopping;
	pthread_mutex_unlock(&server->lock);
	return is;
}

/* Until the first request a connection of one request has only so long. */
static bool
may_wait(const connection *c, uint64_t start_ms)
{
	bool persistent = c->profile != NULL && c->profile->persistent;
	return persistent || qg_clock_elapsed_ms() - start_ms < FIRST_REQUEST_MS;
}

static void
serve(connection *c)
{
	uint64_t start_ms = qg_clock_elapsed_ms();
	c->profile = c->server->s->opt.profile;
	while (!server_stopping(c->server) && !c->last) {
		size_t got = 0;
		qg_err err = qg_conn_recv_some(c->conn, c->in + c->in_len, IN_ROOM - c->in_len,
					       c->pushing ? 0 : TURN_MS, &got);
		if (err == QG_E_TIMEOUT && c->pushing) {
			if (push_one(c) != QG_OK)
				return;
			continue;
		}
		if (err == QG_E_TIMEOUT && may_wait(c, start_ms))
			continue;
		if (err != QG_OK)
			return;
		c->in_len += got;
		if (answer_all(c) != QG_OK)
			return;
	}
}

static qg_err
connection_prepare(connection *c)
{
	const sim_options *o = &c->server->s->opt;
	qg_conn *conn = NULL;
	c->in = malloc(IN_ROOM);
	qg_err err = c->in == NULL ? QG_E_NOMEM : qg_secret_new(OUT_ROOM, &c->out);
	if (err == QG_OK)
		err = qg_secret_new(SIM_CHUNK_MAX, &c->key);
	if (err != QG_OK) {
		close(c->fd);
		return err;
	}
	c->in_len = 0;
	c->answers = qg_writer_of(c->out->data, c->out->room);
	err = qg_conn_accept(c->fd, o->tls ? &o->files : NULL, o->require_client_certificate, HANDSHAKE_MS, &conn);
	if (err != QG_OK)
		return err;
	pthread_mutex_lock(&c->server->lock);
	c->conn = conn;
	pthread_mutex_unlock(&c->server->lock);
	return QG_OK;
}

static void *
connection_main(void *connection_)
{
	connection *c = connection_;
	qg_err err = connection_prepare(c);
	if (err == QG_OK)
		serve(c);
	else
		qg_log(QG_LOG_INFO, "sim", "event=refused error=\"%s\"", qg_err_text(err));
	pthread_mutex_lock(&c->server->lock);
	qg_conn *conn = c->conn;
	c->conn = NULL;
	pthread_mutex_unlock(&c->server->lock);
	qg_conn_close(&conn);
	qg_secret_free(&c->out);
	qg_secret_free(&c->key);
	free(c->in);
	pthread_mutex_lock(&c->server->lock);
	c->ended = true;
	pthread_mutex_unlock(&c->server->lock);
	return NULL;
}

/* --- the listener --------------------------------------------------------------- */

/* A free place; threads that have ended are taken in. */
static connection *
place(sim_server *server)
{
	for (size_t i = 0; i < SIM_CONNECTIONS_MAX; i++) {
		connection *c = &server->connections[i];
		pthread_mutex_lock(&server->lock);
		bool ended = c->ended;
		pthread_mutex_unlock(&server->lock);
		if (c->used && !ended)
			continue;
		if (c->used)
			pthread_join(c->thread, NULL);
		*c = (connection){.server = server};
		return c;
	}
	return NULL;
}

static void
accept_one(sim_server *server)
{
	int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	connection *c = place(server);
	if (c == NULL) {
		qg_log(QG_LOG_WARN, "sim", "event=too_many_connections");
		close(fd);
		return;
	}
	c->fd = fd;
	c->used = true;
	if (pthread_create(&c->thread, NULL, connection_main, c) != 0) {
		c->used = false;
		close(fd);
	}
}

static void *
server_main(void *server_)
{
	sim_server *server = server_;
	struct pollfd p = {.fd = server->listener, .events = POLLIN};
	while (!server_stopping(server))
		if (poll(&p, 1, 100) > 0)
			accept_one(server);
	return NULL;
}

qg_err
sim_server_start(sim *s, sim_server **out)
{
	sim_server *server = calloc(1, sizeof *server);
	if (server == NULL)
		return QG_E_NOMEM;
	server->s = s;
	pthread_mutex_init(&server->lock, NULL);
	if (sim_pushers_new(s, &server->pushers) != QG_OK) {
		pthread_mutex_destroy(&server->lock);
		free(server);
		return QG_E_NOMEM;
	}
	server->listener = sim_socket_listen(&s->opt.listen);
	if (server->listener < 0 || pthread_create(&server->thread, NULL, server_main, server) != 0) {
		if (server->listener >= 0)
			close(server->listener);
		sim_pushers_free(&server->pushers);
		pthread_mutex_destroy(&server->lock);
		free(server);
		return QG_E_IO;
	}
	*out = server;
	return QG_OK;
}

void
sim_server_stop(sim_server **server)
{
	sim_server *gone = *server;
	*server = NULL;
	pthread_mutex_lock(&gone->lock);
	gone->stopping = true;
	for (size_t i = 0; i < SIM_CONNECTIONS_MAX; i++)
		if (gone->connections[i].conn != NULL)
			qg_conn_abort(gone->connections[i].conn);
	pthread_mutex_unlock(&gone->lock);
	pthread_join(gone->thread, NULL);
	for (size_t i = 0; i < SIM_CONNECTIONS_MAX; i++)
		if (gone->connections[i].used)
			pthread_join(gone->connections[i].thread, NULL);
	sim_pushers_free(&gone->pushers);
	close(gone->listener);
	pthread_mutex_destroy(&gone->lock);
	free(gone);
}
