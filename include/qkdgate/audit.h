/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_AUDIT_H
#define QKDGATE_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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
 * that are not printable ASCII stand as \u00XX.
 *
 * The log goes on in another file when the one in use is large enough or when it is
 * told to. The one before then has the number of its last line behind its name (12
 * digits or more), and the new one begins with a line of act "rotated", whose reason
 * is "follows line N TAG": number and tag of the line before, covered by its own. */

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
	QG_AUDIT_ROTATED,   /* a file follows another; written by the module */
	QG_AUDIT_CUT,       /* lines that the database knows of are missing before this one */
	QG_AUDIT_ADMIN      /* an administrator (caller) acted: peer is what on, reason what */
} qg_audit_act;

#define QG_AUDIT_ACTS (QG_AUDIT_ADMIN + 1)

/* The name of an act as the lines have it; NULL: no act. */
const char *qg_audit_act_name(size_t act);

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

/* A request of the caller that a rate refused: only counted here, so that nobody fills
 * the log with them. Any thread; a short lock. */
void qg_audit_limited(qg_audit *a, const char *caller);

/* Writes a line for each caller that rates refused since its last such line, with how
 * many: a caller has one a minute at most; `all`: whoever is left, before the log is
 * closed. Nothing while the file cannot be written. By one thread, every second. */
void qg_audit_tell_limited(qg_audit *a, bool all);

/* Waits until everything queued so far is written and synced. QG_E_IO when
 * the file can no longer be written. */
qg_err qg_audit_sync(qg_audit *a) QG_CHECKED;

/* False while the file cannot be written: then no key should be delivered,
 * and the queue fills. Any thread; costs a load. */
bool qg_audit_healthy(const qg_audit *a);

/* Writes what is queued, syncs, closes. No other thread may use it any more. What cannot be written is lost, and
 * the operating log says so. */
void qg_audit_close(qg_audit **a);

/* A NULL log is taken by all that follows here, and has nothing (QG_E_NOTFOUND).
 *
 * The file goes on in another one from this size on; 0 (the state after opening): never. */
void qg_audit_rotate_at(qg_audit *a, uint64_t bytes);

/* Goes on in another file now. QG_E_IO when that cannot be made: then the one in use stays. */
qg_err qg_audit_rotate(qg_audit *a) QG_CHECKED;

/* --- reading ------------------------------------------------------------------ */

/* The end of a chain: who keeps it elsewhere notices that lines were cut off. */
#define QG_AUDIT_TAG_BYTES 16
typedef struct qg_audit_end {
	uint64_t seq; /* 0: no line */
	uint8_t tag[QG_AUDIT_TAG_BYTES];
} qg_audit_end;

/* The last line that is synced. Any thread. */
void qg_audit_synced(qg_audit *a, qg_audit_end *out);

/* The files of a log in the order of their lines, that at `path` last; as many as
 * are there. Freed with qg_audit_paths_free. QG_E_IO, QG_E_NOMEM. */
typedef struct qg_audit_paths {
	char **path;
	size_t n;
} qg_audit_paths;
qg_err qg_audit_paths_find(const char *path, qg_audit_paths *out) QG_CHECKED;
void qg_audit_paths_free(qg_audit_paths *p);

#define QG_AUDIT_WHAT 160
typedef struct qg_audit_report {
	uint64_t first;     /* number of the first line; 1: the log is there from its start */
	qg_audit_end end;   /* the last line that verifies */
	uint64_t lines;     /* that verify */
	size_t bad_file;    /* of the list, with QG_E_CORRUPT */
	size_t bad_line;    /* of that file, from 1 */
	char what[QG_AUDIT_WHAT]; /* what is wrong there */
} qg_audit_report;

/* Checks files as one log, whatever order they are given in. With `known`, an end
 * that the log had once, also that it passes through it. A file may be written
 * meanwhile. QG_E_CORRUPT: the report says where; QG_E_IO: bad_file could not be
 * read; QG_E_NOMEM. */
qg_err qg_audit_verify_files(const char *const *paths, size_t n, const unsigned char key[32],
			     const qg_audit_end *known, qg_audit_report *out) QG_CHECKED;

/* Checks all files of an open log with its own key, and up to what it wrote last.
 * *paths are the caller's but with QG_E_NOMEM, and QG_E_IO where they are none.
 * Errors as of qg_audit_verify_files. */
qg_err qg_audit_check(qg_audit *a, qg_audit_paths *paths, qg_audit_report *out) QG_CHECKED;

/* Checks one file. *bad_line is the first line (from 1) that does not verify.
 * QG_E_CORRUPT then; QG_E_IO. */
qg_err qg_audit_verify(const char *path, const unsigned char key[32], size_t *bad_line) QG_CHECKED;

/* Which lines; NULL: any. Texts are compared as they stand in the lines. */
typedef struct qg_audit_filter {
	const char *act;
	const char *who;   /* the caller or the peer */
	const char *id;    /* of the key */
	const char *since; /* "2026-01-31T12:00:00", or its beginning */
	size_t most;       /* so many of the newest */
} qg_audit_filter;

/* The newest lines that match, oldest first. They are not verified. `each` gets a
 * line without its newline. At most 256 MiB are looked through, from the end;
 * *all is false when older lines were not looked at. QG_E_IO, QG_E_NOMEM. */
qg_err qg_audit_find(const char *const *paths, size_t n, const qg_audit_filter *f,
		     void (*each)(const char *line, size_t len, void *ctx), void *ctx, bool *all) QG_CHECKED;

#endif
