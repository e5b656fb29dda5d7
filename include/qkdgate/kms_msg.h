/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KMS_MSG_H
#define QKDGATE_KMS_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/bytes.h"
#include "qkdgate/error.h"
#include "qkdgate/uuid.h"

/* The messages between neighbouring KMSs: JSON over HTTPS with client
 * certificates, POST /api/v1/kms/NAME. Encoding and decoding only; pure. UUIDs
 * in text form, byte strings in lower-case hex. Decoding is strict: unknown
 * members, duplicates, wrong types and values out of range are QG_E_PARSE. */

#define QG_KMS_VERSION 1
#define QG_KMS_NAME_MAX 64   /* characters of a stream or KME name */
#define QG_KMS_URI_MAX 256
#define QG_KMS_STATUS_MAX 64 /* epochs in a get_status answer */
#define QG_MAC_BYTES 16
#define QG_MAC_KEY_BYTES 32

typedef enum qg_kms_kind {
	QG_KMS_NEW_APP,
	QG_KMS_NEW_KEY_BATCH,
	QG_KMS_KEY_STREAM_CLOSED,
	QG_KMS_GET_STATUS,
	QG_KMS_KINDS
} qg_kms_kind;

/* "new_app", ... */
const char *qg_kms_kind_name(qg_kms_kind kind);

/* The opener hands over the KSID and registers itself as the stream's internal
 * application; carries no QKD MAC (SOUNDNESS 2): the epoch ID, which both ends
 * compute from it and the answer, binds every member into the MAC of the first
 * new_key_batch. */
typedef struct qg_kms_new_app {
	char stream[QG_KMS_NAME_MAX + 1];
	char opener[QG_KMS_NAME_MAX + 1]; /* KME ID of the sender */
	char peer[QG_KMS_NAME_MAX + 1];   /* KME ID of the receiver */
	qg_uuid ksid;
	uint8_t nonce[16];
	uint32_t chunk_size;
	uint32_t segment_chunks;          /* wished */
	uint8_t owner;                    /* 0 the opener, 1 the peer, 2 alternating,
					     even segments the opener's */
	uint32_t inbound_chunks;          /* how much the sender can hold */
} qg_kms_new_app;

typedef enum qg_kms_app_result {
	QG_KMS_APP_ACCEPTED,
	QG_KMS_APP_UNKNOWN_STREAM, /* no such stream with this neighbour */
	QG_KMS_APP_DISAGREE        /* chunk size or ownership configured otherwise */
} qg_kms_app_result;

typedef struct qg_kms_new_app_answer {
	qg_kms_app_result result;
	uint8_t nonce[16];
	uint32_t segment_chunks;   /* agreed: the smaller */
	uint32_t inbound_chunks;
} qg_kms_new_app_answer;

/* The epoch ID: the first 16 bytes of BLAKE2b-256 over the version and every
 * member of both. Both ends compute it. */
void qg_kms_epoch_id(const qg_kms_new_app *m, const qg_kms_new_app_answer *a, uint8_t out[16]);

typedef enum qg_segment_use { QG_USE_APPLICATION = 1, QG_USE_NODE = 2 } qg_segment_use;

typedef struct qg_kms_batch {
	char stream[QG_KMS_NAME_MAX + 1];
	qg_uuid ksid;
	uint8_t epoch[16];
	uint32_t segment;
	uint64_t first_index;
	uint32_t count;            /* chunks */
	qg_segment_use use;
	bool root;                 /* its first chunks are the key-ID root */
	uint32_t issue_s, fetch_s;
	uint64_t mark;             /* the owner's lease mark */
	uint8_t mac[QG_MAC_BYTES];
} qg_kms_batch;

/* The canonical bytes that the MAC covers before the key data (SOUNDNESS 4):
 * "qkdgate new_key_batch", version, and every member but mac. */
#define QG_KMS_BATCH_CANONICAL_MAX 512
void qg_kms_batch_canonical(const qg_kms_batch *m, qg_writer *w);

typedef enum qg_kms_batch_result {
	QG_KMS_BATCH_CONFIRMED,
	QG_KMS_BATCH_PENDING,  /* not here yet */
	QG_KMS_BATCH_FULL,
	QG_KMS_BATCH_MISMATCH,
	QG_KMS_BATCH_GONE,     /* given up here: chunks were missing, or nobody asked */
	QG_KMS_BATCH_UNKNOWN   /* no such live epoch */
} qg_kms_batch_result;

typedef struct qg_kms_batch_answer {
	qg_kms_batch_result result;
	uint8_t mac[QG_MAC_BYTES]; /* with CONFIRMED only, else absent */
} qg_kms_batch_answer;

/* What the answer's MAC covers: "qkdgate new_key_batch confirmed", the request's mac. */
void qg_kms_batch_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], qg_writer *w);

typedef enum qg_kms_close_reason {
	QG_KMS_CLOSE_STOP,      /* orderly stop: what was taken stays deliverable */
	QG_KMS_CLOSE_MISMATCH,  /* two mismatches in a row, index fell back */
	QG_KMS_CLOSE_AGE,       /* old or long enough */
	QG_KMS_CLOSE_ROLLBACK,  /* the sender's database was put back */
	QG_KMS_CLOSE_SOURCE     /* the 004 source lost the stream */
} qg_kms_close_reason;

typedef struct qg_kms_closed {
	char stream[QG_KMS_NAME_MAX + 1];
	qg_uuid ksid;
	uint8_t epoch[16];
	qg_kms_close_reason reason;
} qg_kms_closed;

/* get_status asks with {} for every live epoch with this neighbour. */
typedef struct qg_kms_epoch_status {
	char stream[QG_KMS_NAME_MAX + 1];
	uint8_t epoch[16];
	uint8_t state;          /* qg_epoch_state of store.h */
	uint64_t seen_mark;     /* highest mark the asker told the answerer */
	uint32_t seen_segments; /* segments of the asker confirmed by the answerer:
				   highest number + 1 */
} qg_kms_epoch_status;

typedef struct qg_kms_status {
	size_t n;
	qg_kms_epoch_status epoch[QG_KMS_STATUS_MAX];
} qg_kms_status;

/* Encoders write JSON without a NUL into out and return its length in *len;
 * QG_E_RANGE when room is too small (16 KiB always suffices). Decoders take
 * len bytes. */
#define QG_KMS_MSG_MAX 16384
#define QG_KMS_CODEC(name, type)                                                                  \
	qg_err qg_kms_##name##_encode(const type *m, char *out, size_t room, size_t *len) QG_CHECKED; \
	qg_err qg_kms_##name##_decode(const char *json, size_t len, type *m) QG_CHECKED
QG_KMS_CODEC(new_app, qg_kms_new_app);
QG_KMS_CODEC(new_app_answer, qg_kms_new_app_answer);
QG_KMS_CODEC(batch, qg_kms_batch);
QG_KMS_CODEC(batch_answer, qg_kms_batch_answer);
QG_KMS_CODEC(closed, qg_kms_closed);
QG_KMS_CODEC(status, qg_kms_status);

#endif
