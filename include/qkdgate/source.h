/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_SOURCE_H
#define QKDGATE_SOURCE_H

#include "qkdgate/error.h"
#include "qkdgate/intake.h"

/* A 004 session as a client of the QKD module or key manager below: one thread
 * that does what the stream's intake orders, over the profile of its
 * configuration, reconnecting with backoff (0.2 s doubling to 10 s, with
 * jitter), never faster than the stream's max_bps. */

typedef struct qg_source qg_source;

/* Starts the thread. */
qg_err qg_source_start(qg_intake *in, qg_source **out) QG_CHECKED;

/* Waits for the thread's end, which QG_INTAKE_STOP brings; a call that hangs
 * is aborted after grace_ms. Clears *s. */
void qg_source_stop(qg_source **s, unsigned grace_ms);

/* Where QKD modules push key, for the sources whose profile does so over
 * connections of the module's own: HTTPS with client certificates, section
 * `push_listener`. Who pushes is known by the source's `pusher`. */
typedef struct qg_push_listener qg_push_listener;

/* Starts listening for those of the n sources that are pushed to; *out is NULL
 * where none is. The sources outlive the listener, the array need not. `why` gets
 * a text that names what failed. As qg_http_server_start. */
qg_err qg_push_listen(const qg_config *cfg, qg_source *const *sources, size_t n, qg_push_listener **out, char *why,
		      size_t why_room) QG_CHECKED;

/* Clears *l; takes NULL and pointers to NULL. */
void qg_push_unlisten(qg_push_listener **l);

/* qg_http_server_reload_tls of it; l NULL: nothing. */
qg_err qg_push_reload_tls(qg_push_listener *l, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;

#endif
