/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_BYTE_INTERNAL_H
#define QKDGATE_BYTE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "http_internal.h"
#include "qkdgate/byte_server.h"
#include "tls_internal.h"

/* The parts of the byte server: byte_server.c has its threads, byte_conn.c a
 * connection's course. */

typedef struct qg_byte_worker {
	qg_byte_server *server;
	pthread_t thread;
	int epoll_fd, wake_fd, listen_fd;
	bool running;
	uint64_t sweep_at_ms;
	bool deaf;              /* accepts nothing until the next sweep */
	size_t n_young;         /* connections whose peer is not known yet */
	qg_byte_conn *conns;    /* open */
	qg_byte_conn *again;    /* have more to do at once */
	pthread_mutex_t lock;   /* of what follows */
	qg_byte_conn *answered; /* by other threads */
	bool stopped;
} qg_byte_worker;

struct qg_byte_server {
	qg_byte_options o;
	unsigned port;
	qg_tls_context *tls;
	qg_census *census;
	qg_arrivals *arrivals;
	qg_byte_worker *worker;
	unsigned n, n_made;
	atomic_bool stopping;
	atomic_uint generation; /* of who is who */
	atomic_bool forbidden;  /* to send */
	_Atomic uint64_t handshakes, failed_handshakes;
};

/* Two owners: its worker, and whoever owes the answer. */
struct qg_byte_conn {
	qg_byte_worker *worker;
	qg_byte_conn *prev, *next, *again, *answered_next;
	atomic_uint refs;
	int fd;
	bool counted, young;
	qg_census_key key;
	uint32_t watched;  /* epoll events */
	bool queued, over; /* in the list `again`; ended meanwhile */
	bool shut;         /* the socket is closed */
	bool sniffed, up;  /* the first byte was seen; TLS, if any, is up */
	bool shaken;       /* TLS is up, whoever it is; or it needs none */
	bool busy;         /* an answer is awaited */
	bool inside;       /* inside `request` */
	bool last;         /* closed once `out` went out */
	bool answered;     /* `out` is to be sent, if there is any */
	qg_tls_session *tls;
	const void *peer;
	unsigned generation; /* under which it was looked up */
	uint64_t since_ms; /* the last whole request */
	uint8_t *in;
	size_t in_len, in_room, in_used; /* used: of the request under way */
	qg_secret *out;
	size_t out_at;
	_Alignas(max_align_t) uint8_t state[];
};

/* What a connection waits for. */
typedef enum qg_byte_wish { QG_BYTE_READ, QG_BYTE_WRITE, QG_BYTE_WAIT, QG_BYTE_MORE, QG_BYTE_END } qg_byte_wish;

/* Owns the socket on success. NULL: no memory. */
qg_byte_conn *qg_byte_conn_new(qg_byte_worker *w, int fd);
void qg_byte_conn_shut(qg_byte_conn *c);
void qg_byte_conn_put(qg_byte_conn *c);
/* Whether its owner is known, looked up anew where it may be another. */
bool qg_byte_conn_known(qg_byte_conn *c);
/* Goes on as far as it can; for a fair share of the time. */
qg_byte_wish qg_byte_conn_run(qg_byte_conn *c);

#endif
