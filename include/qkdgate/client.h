/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CLIENT_H
#define QKDGATE_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* libqkdgate: keys for applications, from any key manager that serves ETSI GS
 * QKD 014 (V1.1.1) or key streams of ETSI GS QKD 004 (V2.1.1, profile `bin`).
 * Calls block. A handle belongs to one thread at a time; several threads take
 * several handles. Keys lie in locked memory that is wiped when it is freed.
 *
 * The first call that makes a handle sets up libsodium and, as keys pass
 * through JSON, makes jansson wipe what it frees, in the whole process. */

#ifdef __cplusplus
extern "C" {
#endif

#define QG_CLIENT_ID_TEXT 37 /* a UUID as text, and its NUL */

/* PEM files. The strings are copied. */
typedef struct qg_client_files {
	const char *certificate; /* the application's chain, leaf first */
	const char *key;         /* mode 0600 or 0400, else QG_E_MODE */
	const char *ca;          /* authorities that the key manager's certificate chains to */
} qg_client_files;

/* --- ETSI GS QKD 014 ----------------------------------------------------------- */

typedef struct qg_client qg_client;

/* `url` is https://HOST[:PORT] of the key manager; calls end after timeout_ms
 * (0: 10 s). QG_E_INVAL (the URL), QG_E_IO, QG_E_MODE, QG_E_PARSE, QG_E_MISMATCH,
 * QG_E_EXPIRED (the files), QG_E_NOMEM; `why` (of why_room bytes) says more. */
qg_err qg_client_open(const char *url, const qg_client_files *files, unsigned timeout_ms, qg_client **out, char *why,
		      size_t why_room) QG_CHECKED;
void qg_client_close(qg_client **c);

typedef struct qg_client_key {
	char id[QG_CLIENT_ID_TEXT];
	const uint8_t *bytes;
	size_t len;
} qg_client_key;

/* Keys of one answer; freed, and the keys wiped, by qg_client_keys_free. */
typedef struct qg_client_keys {
	size_t n;
	const qg_client_key *key;
} qg_client_keys;

/* enc_keys (clause 6.2): `number` new keys of size_bits (0: the key manager's
 * default for both) to share with `slave`, an SAE ID as it is, not escaped.
 *
 * Errors of all calls: QG_E_DENIED (401), QG_E_INVAL (400, or an argument),
 * QG_E_EMPTY (503: no key just now, try again in a while), QG_E_AUTH (one side's
 * certificate is not accepted), QG_E_TIMEOUT, QG_E_IO (no connection), QG_E_CLOSED,
 * QG_E_PROTO (no answer of the standard), QG_E_NOMEM. */
qg_err qg_client_enc_keys(qg_client *c, const char *slave, unsigned number, unsigned size_bits,
			  qg_client_keys **out) QG_CHECKED;

/* dec_keys (clause 6.3): the keys with these IDs, in their order, that `master`
 * shares with this application. All or none. A key is delivered once. */
qg_err qg_client_dec_keys(qg_client *c, const char *master, const char *const *ids, size_t n,
			  qg_client_keys **out) QG_CHECKED;

void qg_client_keys_free(qg_client_keys **keys);

typedef struct qg_client_status {
	uint64_t key_size_bits, stored_key_count, max_key_count;
	uint64_t max_key_per_request, max_key_size_bits, min_key_size_bits;
} qg_client_status;

/* status (clause 6.1). */
qg_err qg_client_get_status(qg_client *c, const char *slave, qg_client_status *out) QG_CHECKED;

/* What the key manager, or this side, said about the last call that failed: one
 * line, without key. Lives until the next call. Never NULL. */
const char *qg_client_why(const qg_client *c);

/* --- ETSI GS QKD 004 ------------------------------------------------------------- */

typedef struct qg_client_stream qg_client_stream;

typedef enum qg_client_profile { QG_CLIENT_BIN_A, QG_CLIENT_BIN_B } qg_client_profile;

typedef struct qg_client_stream_options {
	const char *host;
	unsigned port;
	qg_client_profile profile;
	const qg_client_files *files;   /* NULL: TCP without TLS, and the keys cross in clear */
	const char *server_name;        /* in the key manager's certificate; NULL: host */
	const char *source_uri, *destination_uri;
	const char *ksid;               /* predefined or handed over; NULL: a new one */
	uint32_t chunk_size;            /* bytes; as are max_bps and all below, 0 leaves it to the key manager */
	uint32_t max_bps, min_bps, jitter_bps, priority, ttl_s;
	uint32_t timeout_ms;            /* how long OPEN waits for the peer, GET_KEY for a chunk */
	bool metadata;                  /* ask for application/json */
} qg_client_stream_options;

/* OPEN_CONNECT (clause 6.1). QG_E_STATE when the key manager says no: *status
 * is its status (table 2), and of 7 the chunk size it offers instead stands in
 * *chunk_size. Other errors as above, with *status 0. status and chunk_size may
 * be NULL. */
qg_err qg_client_stream_open(const qg_client_stream_options *o, qg_client_stream **out, unsigned *status,
			     uint32_t *chunk_size) QG_CHECKED;

/* To be handed to the peer, who opens with it. */
const char *qg_client_stream_ksid(const qg_client_stream *s);
uint32_t qg_client_stream_chunk_size(const qg_client_stream *s);
/* Status 1 at OPEN: the peer is still to come. */
bool qg_client_stream_waits_for_peer(const qg_client_stream *s);

typedef struct qg_client_chunk {
	uint32_t index;
	size_t len;
	bool has_metadata;
	uint32_t age_ms, hops; /* of the metadata */
} qg_client_chunk;

/* GET_KEY: the chunk of that index into `room` bytes of `key` (which the caller
 * wipes). The same index again is the same chunk, until CLOSE or its TTL.
 * QG_E_AGAIN: not there yet (statuses 2 and 6); QG_E_STATE: another status,
 * see _status; QG_E_RANGE: no room. A connection that broke is made again. */
qg_err qg_client_stream_get(qg_client_stream *s, uint32_t index, uint8_t *key, size_t room,
			    qg_client_chunk *out) QG_CHECKED;

/* The status of the last answer. */
unsigned qg_client_stream_status(const qg_client_stream *s);

/* CLOSE, and the handle ends whatever the answer. Clears *s. */
qg_err qg_client_stream_close(qg_client_stream **s) QG_CHECKED;
/* Ends the handle alone: the stream stays open at the key manager, and can be
 * opened again with its KSID. */
void qg_client_stream_leave(qg_client_stream **s);

#ifdef __cplusplus
}
#endif

#endif
