/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_HTTP_CLIENT_H
#define QKDGATE_HTTP_CLIENT_H

#include <stddef.h>

#include "qkdgate/error.h"
#include "qkdgate/tls.h"

/* Outgoing HTTPS over curl, one thread for all. Connections are kept and
 * reused. The server's certificate must chain to tls.ca, not be revoked, and
 * bear the host name of the URL. A call bears the ID of the request that the
 * caller's thread works on (request_id.h), if any, and `done` runs under it. */

typedef struct qg_http_client qg_http_client;

/* Runs on the client's thread; must not block; body is valid inside only.
 * err is QG_OK whenever an HTTP answer came, whatever its status. */
typedef void qg_http_done(void *ctx, qg_err err, int status, const char *body, size_t len);

typedef struct qg_http_call {
	const char *method;
	const char *url;
	const char *type;     /* Content-Type of the body, or NULL */
	const void *body;     /* copied into wiped memory, or NULL */
	size_t len;
	unsigned timeout_ms;  /* in all */
	size_t answer_limit;  /* bytes; a longer answer is QG_E_RANGE */
	const qg_tls_match *server; /* what the server's certificate must bear besides the
				       host name, else nothing is sent and it is
				       QG_E_AUTH; outlives the call; NULL: nothing more */
	qg_http_done *done;   /* called exactly once */
	void *ctx;
} qg_http_call;

/* Starts the thread. tls is copied, its strings are not. */
qg_err qg_http_client_start(const qg_tls_files *tls, qg_http_client **out) QG_CHECKED;

/* Sends; on an error `done` is not called. Any thread, also from `done`. */
qg_err qg_http_client_send(qg_http_client *c, const qg_http_call *call) QG_CHECKED;

/* Ends every call under way with QG_E_CLOSED, then the thread. Clears *c. */
void qg_http_client_stop(qg_http_client **c);

#endif
