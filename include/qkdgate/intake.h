/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_INTAKE_H
#define QKDGATE_INTAKE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/config.h"
#include "qkdgate/error.h"
#include "qkdgate/uuid.h"

/* Between a 004 session (south) and its key stream (core). The stream knows
 * what it wants next; the session's thread asks for it, does it at the 004 key
 * manager, and reports. So the session keeps no state but its connection, and
 * the stream never waits for the network. All calls about one stream come from
 * its session's one thread. */

typedef struct qg_intake qg_intake; /* one configured stream, owned by core */

typedef enum qg_intake_what {
	QG_INTAKE_OPEN,  /* OPEN_CONNECT with ksid, or null when ksid is null */
	QG_INTAKE_GET,   /* GET_KEY index .. index + count - 1, in order */
	QG_INTAKE_CLOSE, /* CLOSE ksid */
	QG_INTAKE_WAIT,  /* nothing for wait_ms (the call below has waited) */
	QG_INTAKE_STOP   /* the gateway ends: close the connection, end the thread */
} qg_intake_what;

typedef struct qg_intake_order {
	qg_intake_what what;
	qg_uuid ksid;
	uint32_t index;
	uint32_t count;
} qg_intake_order;

const qg_config_stream *qg_intake_config(const qg_intake *in);

/* What to do next; waits up to 1 s while there is nothing. */
void qg_intake_next(qg_intake *in, qg_intake_order *order);

/* Wakes a session that waits in qg_intake_next (core itself does when it has
 * an order). */

/* OPEN answered with status 0 or 1, or 5 for a KSID that is ours; chunk_size
 * as the key manager will deliver. */
void qg_intake_opened(qg_intake *in, const qg_uuid *ksid, uint32_t chunk_size);

/* OPEN did not work: the connection failed (status 0, err says how) or the key
 * manager answered with `status` of ETSI GS QKD 004 table 2. Reported by the
 * core; the session waits its backoff before it asks again. */
void qg_intake_open_failed(qg_intake *in, qg_err err, uint32_t status);

/* A chunk arrived; key has len bytes and stays the caller's (who wipes it).
 * QG_E_FULL: the stream takes no more now (push profiles hold back);
 * QG_E_PROTO: not the index or size asked for, the order is void. */
qg_err qg_intake_chunk(qg_intake *in, const qg_uuid *ksid, uint32_t index, const uint8_t *key, size_t len) QG_CHECKED;

/* GET_KEY failed: as for open_failed. After status 2 and 6 the session simply
 * asks again; after others and connection errors it reconnects and the core
 * decides whether to open again. */
void qg_intake_get_failed(qg_intake *in, uint32_t index, qg_err err, uint32_t status);

/* CLOSE was answered, or could not be (err). */
void qg_intake_closed(qg_intake *in, const qg_uuid *ksid, qg_err err);

#endif
