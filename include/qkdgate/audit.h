/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_AUDIT_H
#define QKDGATE_AUDIT_H

#include <stddef.h>

#include "qkdgate/error.h"
#include "qkdgate/uuid.h"

/* The audit log: an append-only file, one JSON line per key delivered or
 * refused and per act that changes what keys exist. Each line carries a
 * sequence number and a BLAKE2b tag over itself and the tag before it, keyed
 * by a key derived from the master key: a changed, cut out or inserted line
 * breaks the chain. Never key material. Events are queued as they are and
 * formatted and written by a thread of the module; the file may lag behind by
 * one flush (at most 200 ms). */

typedef enum qg_audit_act {
	QG_AUDIT_ISSUED,    /* enc_keys handed a key to the master */
	QG_AUDIT_FETCHED,   /* dec_keys handed a key to a slave */
	QG_AUDIT_REFUSED,   /* a request for a key was refused */
	QG_AUDIT_DESTROYED, /* key material ended without delivery */
	QG_AUDIT_EPOCH,     /* an epoch was opened or ended */
	QG_AUDIT_START,     /* the gateway started */
	QG_AUDIT_STOP       /* the gateway stopped */
} qg_audit_act;

typedef struct qg_audit_event {
	qg_audit_act act;
	const char *caller; /* SAE or KME that asked, or "" */
	const char *peer;   /* SAE or KME on the other side, or "" */
	const char *reason; /* fixed text: why refused or destroyed, or "" */
	unsigned size_bits; /* of each key, 0 where it does not apply */
	const qg_uuid *ids; /* one line each; n_ids 0 makes one line without ID */
	size_t n_ids;
} qg_audit_event;

typedef struct qg_audit qg_audit;

/* Opens (or makes, mode 0600) the file, reads its last line to continue the
 * chain, and starts the writer. `key` has 32 bytes and is copied. QG_E_IO,
 * QG_E_MODE, QG_E_CORRUPT when the last line does not verify. */
qg_err qg_audit_open(const char *path, const unsigned char key[32], qg_audit **out) QG_CHECKED;

/* Queues an event; everything is copied. Any thread; blocks only while the
 * queue of 65,536 lines is full. A NULL log takes and drops it (tests). */
void qg_audit_write(qg_audit *a, const qg_audit_event *e);

/* Waits until everything queued so far is written and synced. QG_E_IO when
 * the file can no longer be written. */
qg_err qg_audit_sync(qg_audit *a) QG_CHECKED;

/* Writes what is queued, syncs, closes. */
void qg_audit_close(qg_audit **a);

/* Checks a whole file. *bad_line is the first line (from 1) that does not
 * verify. QG_E_CORRUPT then; QG_E_IO. */
qg_err qg_audit_verify(const char *path, const unsigned char key[32], size_t *bad_line) QG_CHECKED;

#endif
