/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_BYTE_SERVER_H
#define QKDGATE_BYTE_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/http_server.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

/* A listener for protocols of requests and answers over a stream of bytes: TLS
 * with client certificates and, where that is allowed, plain TCP, told apart by
 * the first byte. A few threads drive all connections over epoll; a connection
 * has one request under way at a time, and one that waits holds up no other. */

typedef struct qg_byte_server qg_byte_server;
typedef struct qg_byte_conn qg_byte_conn;

typedef struct qg_byte_options {
	const char *address;      /* IP address to listen on */
	unsigned port;            /* 0: any, see qg_byte_server_port */
	qg_tls_files tls;
	bool plain;               /* plain TCP is let in, too */
	unsigned ticket_key_s;    /* sessions can be resumed, with another ticket key after
				     this time; 0: not */
	unsigned threads;         /* 0: one per core */
	unsigned max_connections; /* in all */
	unsigned max_per_address; /* 0: no limit */
	unsigned address_handshakes_per_s; /* connections that begin, from one address; 0: no limit */
	unsigned idle_timeout_s;  /* without a whole request, or an answer that is taken */
	size_t request_max;       /* bytes of a request, at most */
	size_t state_bytes;       /* zeroed, for each connection */
	void *ctx;
	/* Maps a verified certificate to its owner, once per connection and again
	 * after qg_byte_server_identify_again or _reload_tls. id is NULL for plain
	 * TCP. NULL: the connection is closed, and what waits in it is not answered. */
	const void *(*identify)(const qg_tls_identity *id, void *ctx);
	/* Takes up the request that the n bytes begin with, which may be written
	 * over and stay where they are until its answer: QG_OK with the bytes it
	 * has in *used, and exactly one qg_byte_answer now or later, from any
	 * thread. QG_E_AGAIN: it is not whole yet. Else the connection is closed. */
	qg_err (*request)(qg_byte_conn *c, uint8_t *bytes, size_t n, size_t *used, void *ctx);
	/* For what is sent without a request; NULL: nothing is. Called when all that
	 * was answered is on its way and no whole request is here: QG_OK, and one
	 * qg_byte_answer, as above. QG_E_AGAIN: not before the next request. */
	qg_err (*unasked)(qg_byte_conn *c, void *ctx);
} qg_byte_options;

/* Starts listening. `why` gets a text that names what failed. QG_E_IO,
 * QG_E_MODE, QG_E_PARSE, QG_E_NOMEM. */
qg_err qg_byte_server_start(const qg_byte_options *o, qg_byte_server **out, char *why, size_t why_room) QG_CHECKED;

/* The port listened on. */
unsigned qg_byte_server_port(const qg_byte_server *s);

/* Its figures, as those of a server for HTTP. Any thread. */
void qg_byte_server_stats(const qg_byte_server *s, qg_http_stats *out);

/* Certificate, key, authorities and revocation lists for what begins from now on.
 * Connections that are open are looked at again within a second, before their
 * next request and before an answer that waits: those that are no longer trusted
 * are closed. As qg_http_server_reload_tls. */
qg_err qg_byte_server_reload_tls(qg_byte_server *s, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;

/* Who is who has changed: the same. Any thread. */
void qg_byte_server_identify_again(qg_byte_server *s);

/* From now on nothing is sent: connections end in place of their next answer.
 * There is no way back. Any thread. */
void qg_byte_server_forbid(qg_byte_server *s);

/* Closes everything; no request is taken up after it returns. Answers may still
 * be due: they are dropped. */
void qg_byte_server_stop(qg_byte_server *s);
/* After the last answer. Clears *s. */
void qg_byte_server_free(qg_byte_server **s);

/* Inside `request`, and until the answer. */
const void *qg_byte_peer(const qg_byte_conn *c);
void *qg_byte_state(qg_byte_conn *c);

/* Answers; takes the bytes. NULL: nothing is sent. `last`: the connection is
 * closed after them. */
void qg_byte_answer(qg_byte_conn *c, qg_secret *bytes, bool last);

#endif
