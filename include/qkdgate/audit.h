/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_AUDIT_H
#define QKDGATE_AUDIT_H

#include <stdbool.h>
#include <stddef.h>

#include "qkdgate/error.h"
#include "qkdgate/uuid.h"

/* The audit log: an append-only file, one JSON line per key delivered or
 * refused and per act that changes what keys exist. Each line carries a
 * sequence number and a tag over itself and the tag before it, so that a
 * changed, cut out or inserted line breaks the chain at that line. Never key
 * material. Events are queued as they are and formatted and written by a
 * thread of the module; the file may lag behind by one flush (at most 200 ms)
 * and is synced about once a second.
 *
 *   {"seq":N[,"id":"UUID"],"time":"...","act":"..."[,"caller":"..."]
 *   [,"peer":"..."][,"bits":N][,"reason":"..."][,"request":"..."],"tag":"32 hex digits"}
 *
 * `request` is the ID that whoever asked gave the request (request_id.h); one that
 * was made here has no place in it: it would end every run below.
 *
 * in one line. The text from `,"time"` up to `,"tag"` is the line's common
 * part, the text before it its own part. Lines that follow one another with
 * the same common part are a run. The run's key is the keyed BLAKE2b (16
 * bytes) of the tag before the run (16 bytes; zeroes at the start of the file)
 * and the common part; a line's tag is the SipHash-2-4-128 under the run's key
 * of the tag before the line and its own part. (One BLAKE2b per line alone
 * would cost more than all else that is done for a key.) In strings, bytes
 * that are not printable ASCII stand as \u00XX. */

typedef enum qg_audit_act {
	QG_AUDIT_ISSUED,    /* enc_keys handed a key to the master */
	QG_AUDIT_FETCHED,   /* dec_keys handed a key to a slave */
	QG_AUDIT_REFUSED,   /* a request for a key was refused */
	QG_AUDIT_DESTROYED, /* key material ended without delivery */
	QG_AUDIT_EPOCH,     /* an epoch was opened or ended */
	QG_AUDIT_START,     /* the gateway started */
	QG_AUDIT_STOP,      /* the gateway stopped */
	QG_AUDIT_MADE,      /* another KME brought a key for SAEs here */
	QG_AUDIT_VOIDED,    /* a key was made void before anyone had it */
	QG_AUDIT_REPAIRED,  /* a torn last line was cut off; written by the module */
	QG_AUDIT_ACCEPTED,  /* another network brought a key, or one goes to it: it is durable here */
	QG_AUDIT_RELAYED,   /* every target of a key of another network has it */
	QG_AUDIT_RELEASED,  /* the other network has the key, the master here may get it */
	QG_AUDIT_ADMIN      /* an administrator (caller) acted: peer is what on, reason what */
} qg_audit_act;

/* Of each string at most 256 bytes are kept. */
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

/* Opens (or makes, mode 0600) the file, reads its last lines to continue the
 * chain, and starts the writer. A torn last line, left by a crash, is cut off
 * and a line says so. `key` has 32 bytes and is copied. QG_E_IO, QG_E_NOMEM,
 * QG_E_MODE, QG_E_EXISTS when another process writes it, QG_E_CORRUPT when the
 * last lines do not verify. */
qg_err qg_audit_open(const char *path, const unsigned char key[32], qg_audit **out) QG_CHECKED;

/* Queues an event; everything is copied. Any thread; blocks only while the
 * queue (65,536 lines, 8 MiB) is full. While the file cannot be written,
 * writing is tried again every second. A NULL log takes and drops it (tests). */
void qg_audit_write(qg_audit *a, const qg_audit_event *e);

/* Waits until everything queued so far is written and synced. QG_E_IO when
 * the file can no longer be written. */
qg_err qg_audit_sync(qg_audit *a) QG_CHECKED;

/* False while the file cannot be written: then no key should be delivered,
 * and the queue fills. Any thread; costs a load. */
bool qg_audit_healthy(const qg_audit *a);

/* Writes what is queued, syncs, closes. No other thread may use it any more. What cannot be written is lost, and
 * the operating log says so. */
void qg_audit_close(qg_audit **a);

/* Checks a whole file. *bad_line is the first line (from 1) that does not
 * verify. QG_E_CORRUPT then; QG_E_IO. */
qg_err qg_audit_verify(const char *path, const unsigned char key[32], size_t *bad_line) QG_CHECKED;

#endif
