/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_AUDIT_INTERNAL_H
#define QKDGATE_AUDIT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "qkdgate/audit.h"
#include "qkdgate/request_id.h"
#include "qkdgate/secret.h"

/* The chain of the audit log: how lines are put together and checked. No
 * files, no threads: one owner. */

#define QG_AUDIT_TAG 16
#define QG_AUDIT_STRING_MAX 256
/* Three strings with every byte escaped, a request's ID, and what stands around them. */
#define QG_AUDIT_COMMON_MAX (3 * 6 * QG_AUDIT_STRING_MAX + QG_REQUEST_ID_MAX + 208)
#define QG_AUDIT_LINE_MAX (QG_AUDIT_COMMON_MAX + 128)

/* What a run's key is made of, as it is hashed. */
typedef struct qg_audit_run {
	uint8_t before[QG_AUDIT_TAG]; /* tag of the line before the run */
	char common[QG_AUDIT_COMMON_MAX];
	size_t common_len; /* 0: no run */
} qg_audit_run;

typedef struct qg_audit_chain {
	qg_secret *keys; /* the log's key, then the run's */
	uint64_t seq;    /* of the last line, 0 before the first */
	uint8_t tag[QG_AUDIT_TAG];
	qg_audit_run run[2]; /* the one at hand, and room to make the next */
	unsigned at;         /* which is at hand */
	int64_t second;      /* Unix time, of: */
	char second_text[20]; /* to the point behind the seconds */
} qg_audit_chain;

/* What all lines of one event have in common; the strings are not terminated. */
typedef struct qg_audit_head {
	int64_t time_ms;
	const char *caller, *peer, *reason, *request;
	uint32_t size_bits;
	uint16_t caller_len, peer_len, reason_len; /* at most QG_AUDIT_STRING_MAX */
	uint16_t request_len;                      /* at most QG_REQUEST_ID_MAX */
	uint8_t act;
} qg_audit_head;

/* At the start of a file. QG_E_NOMEM. */
qg_err qg_audit_chain_init(qg_audit_chain *c, const uint8_t key[32]) QG_CHECKED;
void qg_audit_chain_fini(qg_audit_chain *c);

/* Makes the event's common part that of the lines to come. */
void qg_audit_chain_event(qg_audit_chain *c, const qg_audit_head *head);

/* Writes the next line with its newline to out, which has room for
 * QG_AUDIT_LINE_MAX; id may be NULL. Returns its length. */
size_t qg_audit_chain_line(qg_audit_chain *c, const qg_uuid *id, char *out);

/* Whether the n bytes (without newline) are the next line of the chain; if so,
 * goes on behind it. */
bool qg_audit_chain_check(qg_audit_chain *c, const char *line, size_t n);

/* The number of a line that has the form of one, whether or not it verifies. */
bool qg_audit_chain_number(const char *line, size_t n, uint64_t *seq);

/* Before the first line of a file is checked: where it says which line it follows
 * (its own tag covers that), the chain goes on from there, and true is returned. */
bool qg_audit_chain_begin(qg_audit_chain *c, const char *line, size_t n);
#define QG_AUDIT_FOLLOWS "follows line "

/* Writes such a line, the first of another file. */
size_t qg_audit_chain_follow(qg_audit_chain *c, int64_t time_ms, char *out);

/* Takes a line on trust, as the one before those to be checked. *other_run
 * tells whether its common part differs from the last one taken so. False when
 * it has not the form of a line. */
bool qg_audit_chain_skip(qg_audit_chain *c, const char *line, size_t n, bool *other_run);

/* --- what rates refused (audit_limited.c) ------------------------------------ */

typedef struct qg_audit_tally qg_audit_tally;
qg_err qg_audit_tally_new(qg_audit_tally **out) QG_CHECKED;
void qg_audit_tally_free(qg_audit_tally **t);
/* The log's; NULL for no log. */
qg_audit_tally *qg_audit_tally_of(qg_audit *a);

/* --- the file --------------------------------------------------------------- */

typedef struct qg_audit_file {
	int fd;
	off_t end; /* behind the last whole line */
} qg_audit_file;

/* Opens or makes the file, locks it, finds the chain at its end and cuts off a
 * torn last line. Errors as of qg_audit_open; only on success the caller has
 * the descriptor and the chain. */
qg_err qg_audit_file_open(const char *path, const uint8_t key[32], qg_audit_file *out,
			  qg_audit_chain *chain) QG_CHECKED;

/* The newest file that was put aside, the caller's to free; NULL where there is none. */
qg_err qg_audit_last_rotated(const char *path, char **out) QG_CHECKED;

/* Goes on in a new file: the old one gets the number of its last line behind its
 * name, unless someone has moved it away already. On failure all stays as it was:
 * QG_E_IO, QG_E_NOMEM. Both are synced. */
qg_err qg_audit_file_rotate(qg_audit_file *f, const char *path, qg_audit_chain *c) QG_CHECKED;

/* All n bytes, or QG_E_IO. */
qg_err qg_audit_read_at(int fd, char *to, size_t n, off_t at) QG_CHECKED;
qg_err qg_audit_sync_folder(const char *path) QG_CHECKED;
/* All n bytes, or QG_E_IO. */
qg_err qg_audit_write_at(int fd, const char *from, size_t n, off_t at) QG_CHECKED;

#endif
