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

#endif
