/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KMS_APP_MSG_H
#define QKDGATE_KMS_APP_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/kms_msg.h"

/* What neighbouring KMSs tell each other of the key streams of applications
 * (ETSI GS QKD 004, docs/neighbours.md). Encoding and decoding only; pure, with
 * the rules of kms_msg.h. A stream has two ends, each at the KME of its
 * application; one of the two KMEs, the owner, takes its key from a stream
 * that it issues from, and tells the other one the key IDs. */

#define QG_KMS_BLOCK_IDS_MAX 128 /* key IDs in one new_app_keys */

/* Of a stream, as it was registered. */
typedef struct qg_kms_app_qos {
	uint32_t chunk_size; /* bytes */
	uint32_t max_bps, min_bps, jitter_bps, priority;
	uint32_t timeout_ms, ttl_s;
	bool metadata;       /* application/json, else none */
} qg_kms_app_qos;

/* new_app_stream: an application at the sender opened its end. */
typedef struct qg_kms_app_stream {
	qg_uuid ksid;
	bool fresh; /* the sender drew the KSID for this call: another that waits will do */
	bool owns;  /* the sender takes itself for the owner */
	char source[QG_KMS_URI_MAX + 1];      /* URI of the application at the sender, */
	char destination[QG_KMS_URI_MAX + 1]; /* at the receiver */
	char sae[QG_KMS_SAE_MAX + 1];         /* whose certificate the source showed */
	qg_kms_app_qos qos;
} qg_kms_app_stream;

typedef enum qg_kms_app_stream_result {
	QG_KMS_APP_STREAM_WAITING, /* registered; the application here is yet to come */
	QG_KMS_APP_STREAM_JOINED,  /* both applications are connected */
	QG_KMS_APP_STREAM_OTHER,   /* to a fresh one: ksid waits here for the same pair */
	QG_KMS_APP_STREAM_IN_USE,  /* the KSID is another pair's */
	QG_KMS_APP_STREAM_UNKNOWN, /* no such application, or the two may not share keys */
	QG_KMS_APP_STREAM_FULL
} qg_kms_app_stream_result;

typedef struct qg_kms_app_stream_answer {
	qg_kms_app_stream_result result;
	qg_uuid ksid;                 /* with OTHER only */
	uint8_t owner;                /* with WAITING and JOINED, as all below: 0 the sender of
					 the request, 1 that of the answer */
	char sae[QG_KMS_SAE_MAX + 1]; /* to which the destination belongs */
	qg_kms_app_qos qos;           /* as registered */
} qg_kms_app_stream_answer;

/* new_app_keys: which keys a run of chunks of a stream is made of, from its
 * owner. The keys, one after the other, are a one-time key of QG_MAC_KEY_BYTES
 * for the MAC, another for the answer's, and then the chunks; what is left
 * over is destroyed. The MAC covers the canonical bytes, then the chunks. */
typedef struct qg_kms_app_keys {
	qg_uuid ksid;
	uint32_t serial;     /* grows with each run that the owner draws */
	uint32_t first, count;
	uint32_t chunk_size; /* bytes */
	uint32_t key_size;   /* bytes of each key */
	uint32_t hops;       /* trusted nodes that the key passed, at most */
	size_t n;
	qg_uuid id[QG_KMS_BLOCK_IDS_MAX];
	uint8_t mac[QG_MAC_BYTES];
} qg_kms_app_keys;

/* "qkdgate new_app_keys", version, and every member but mac. */
#define QG_KMS_APP_KEYS_CANONICAL_MAX 4096
void qg_kms_app_keys_canonical(const qg_kms_app_keys *m, qg_writer *w);

typedef enum qg_kms_app_keys_result {
	QG_KMS_APP_KEYS_HELD,    /* stored, now or by an earlier message */
	QG_KMS_APP_KEYS_GONE,    /* these keys cannot be had here, or are not those meant: never
				    held, destroyed */
	QG_KMS_APP_KEYS_UNKNOWN, /* no such stream, or not at that index: it is over */
	QG_KMS_APP_KEYS_FULL     /* no room just now */
} qg_kms_app_keys_result;

typedef struct qg_kms_app_keys_answer {
	qg_kms_app_keys_result result;
	uint8_t mac[QG_MAC_BYTES]; /* with HELD only, else absent */
} qg_kms_app_keys_answer;

/* What the answer's MAC covers: "qkdgate new_app_keys held", the request's mac. */
void qg_kms_app_keys_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], qg_writer *w);

/* want_app_keys: the application at the sender asks for chunks that the owner
 * has not told it yet. */
typedef struct qg_kms_app_want {
	qg_uuid ksid;
	uint32_t until; /* the index after the last one wanted */
} qg_kms_app_want;

typedef enum qg_kms_app_word { QG_KMS_APP_KNOWN, QG_KMS_APP_UNKNOWN } qg_kms_app_word;

typedef struct qg_kms_app_want_answer {
	qg_kms_app_word result;
} qg_kms_app_want_answer;

/* app_stream_closed: the application at the sender closed its end, or the
 * sender gave the whole stream up. The answer is {}. */
typedef struct qg_kms_app_closed {
	qg_uuid ksid;
	bool whole;
} qg_kms_app_closed;

QG_KMS_CODEC(app_stream, qg_kms_app_stream);
QG_KMS_CODEC(app_stream_answer, qg_kms_app_stream_answer);
QG_KMS_CODEC(app_keys, qg_kms_app_keys);
QG_KMS_CODEC(app_keys_answer, qg_kms_app_keys_answer);
QG_KMS_CODEC(app_want, qg_kms_app_want);
QG_KMS_CODEC(app_want_answer, qg_kms_app_want_answer);
QG_KMS_CODEC(app_closed, qg_kms_app_closed);

#endif
