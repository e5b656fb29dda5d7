/* SPDX-License-Identifier: Apache-2.0 */
/* The 004 server: a thread per connection. Requests that wait in the socket
 * are all answered before anything is sent, in one write. */
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
#define FIRST_REQUEST_MS 30000 /* where a connection has only one */

typedef struct connection {
	sim_server *server;
	pthread_t thread;
	bool used, ended; /* with the server's lock */
	int fd;
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
	connection connections[SIM_CONNECTIONS_MAX];
};

/* --- one connection ----------------------------------------------------------- */

static qg_err
flush(connection *c)
{
	qg_err err = QG_OK;
	if (c->answers.len > 0)
		err = qg_conn_send(c->conn, c->out->data, c->answers.len, SEND_MS);
	qg_wipe(c->out->data, c->answers.len);
	c->answers = qg_writer_of(c->out->data, c->out->room);
	return err;
}

/* Dialect A's metadata ends in NUL and its request has no room for an answer's. */
static void
add_metadata(const sim *s, const qg_etsi004_request *q, uint32_t age_ms, char *text, size_t room,
	     qg_etsi004_response *a)
{
	int n = snprintf(text, room, "{\"age\":%u,\"hops\":0}", age_ms);
	if (n < 0 || (size_t)n >= room)
		return;
	bool is_a = s->opt.profile == &qg_etsi004_bin_a;
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

/* What is answered already goes out before this one waits for key. */
static qg_err
answer_get(connection *c, const qg_etsi004_request *q, uint64_t received_ms)
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
	if (a.status == QG_ETSI004_SUCCESS && metadata)
		add_metadata(s, q, age_ms, text, sizeof text, &a);
	qg_err put = s->opt.profile->put_response(s->opt.profile, &a, &c->answers);
	return err != QG_OK ? err : put;
}

static qg_err
answer(connection *c, uint8_t *frame, size_t n, uint64_t received_ms)
{
	sim *s = c->server->s;
	qg_etsi004_request q;
	qg_etsi004_response a;
	qg_err err = s->opt.profile->get_request(s->opt.profile, frame, n, &q);
	if (err != QG_OK) {
		const qg_etsi004_profile *seen = NULL;
		bool other = qg_etsi004_bin_detect(frame, n, &seen) == QG_OK && seen != s->opt.profile;
		qg_log(QG_LOG_WARN, "sim", "event=malformed_request error=\"%s\" other_dialect=%s",
		       qg_err_text(err), other ? "yes" : "no");
		return err;
	}
	if (c->answers.room - c->answers.len < ANSWER_MAX && (err = flush(c)) != QG_OK)
		return err;
	if (q.op == QG_ETSI004_GET_KEY)
		return answer_get(c, &q, received_ms);
	if (q.op == QG_ETSI004_OPEN_CONNECT) {
		if ((err = flush(c)) != QG_OK)
			return err;
		sim_open(s, &q, &a);
	} else {
		sim_close(s, &q, &a);
	}
	return s->opt.profile->put_response(s->opt.profile, &a, &c->answers);
}

/* Answers every whole request that is there. */
static qg_err
answer_all(connection *c, size_t *answered)
{
	const qg_etsi004_profile *p = c->server->s->opt.profile;
	uint64_t received_ms = qg_clock_elapsed_ms();
	size_t at = 0;
	for (;;) {
		size_t total = 0;
		qg_err err = p->frame(p, c->in + at, c->in_len - at, &total);
		if (err == QG_OK && total > IN_ROOM)
			return QG_E_RANGE;
		if (err == QG_E_AGAIN || (err == QG_OK && total > c->in_len - at))
			break;
		if (err == QG_OK)
			err = answer(c, c->in + at, total, received_ms);
		if (err != QG_OK)
			return err;
		at += total;
		(*answered)++;
		if (!p->persistent)
			break;
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

static void
serve(connection *c)
{
	bool persistent = c->server->s->opt.profile->persistent;
	uint64_t start_ms = qg_clock_elapsed_ms();
	size_t answered = 0;
	while (!server_stopping(c->server) && (persistent || answered == 0)) {
		size_t got = 0;
		qg_err err = qg_conn_recv_some(c->conn, c->in + c->in_len, IN_ROOM - c->in_len, TURN_MS, &got);
		if (err == QG_E_TIMEOUT && (persistent || qg_clock_elapsed_ms() - start_ms < FIRST_REQUEST_MS))
			continue;
		if (err != QG_OK)
			return;
		c->in_len += got;
		if (answer_all(c, &answered) != QG_OK)
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
	server->listener = sim_socket_listen(&s->opt.listen);
	if (server->listener < 0 || pthread_create(&server->thread, NULL, server_main, server) != 0) {
		if (server->listener >= 0)
			close(server->listener);
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
	close(gone->listener);
	pthread_mutex_destroy(&gone->lock);
	free(gone);
}
