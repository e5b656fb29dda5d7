/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_PEERS_H
#define QKDGATE_PEERS_H

#include <stddef.h>

#include "qkdgate/error.h"
#include "qkdgate/kms_msg.h"

/* Between the neighbours' HTTPS (east) and the streams (core): messages as
 * bytes, so that what was sent once is sent again byte for byte. */

typedef struct qg_peers qg_peers; /* core's side */

/* Answers a message: body valid inside. Called exactly once. */
typedef void qg_peer_answer(void *ctx, int http_status, const char *body, size_t len);

/* A message of an authenticated neighbour; the body is the caller's and needed
 * during the call only. `answer` comes before the return or later, from any
 * thread. Malformed: answered 400. Any thread. */
void qg_peers_receive(qg_peers *p, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
		      qg_peer_answer *answer, void *ctx);

/* The way out, implemented by east/kms.c. */
typedef struct qg_channel qg_channel;

/* The answer to a sent message: err QG_OK with the HTTP status and body, or why
 * none came. Exactly once, on another thread; must not block. */
typedef void qg_channel_done(void *ctx, qg_err err, int http_status, const char *body, size_t len);

typedef struct qg_channel_ops {
	/* Sends; body is copied. timeout_ms 0: the configured one. On an error
	 * `done` is not called. Does not block. QG_E_NOTFOUND for an unknown
	 * neighbour, QG_E_NOMEM, QG_E_CLOSED. */
	qg_err (*send)(qg_channel *ch, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
		       unsigned timeout_ms, qg_channel_done *done, void *ctx);
} qg_channel_ops;

struct qg_channel {
	const qg_channel_ops *ops;
};

#endif
