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
#define QG_KMS_SAE_MAX 128   /* characters of an SAE ID */
#define QG_KMS_SAES_MAX 64   /* SAE IDs in one message */
#define QG_MAC_BYTES 16
#define QG_MAC_KEY_BYTES 32

typedef enum qg_kms_kind {
	QG_KMS_NEW_APP,
	QG_KMS_NEW_KEY_BATCH,
	QG_KMS_KEY_STREAM_CLOSED,
	QG_KMS_GET_STATUS,
	QG_KMS_FORWARD_KEYS,
	QG_KMS_MAKE_KEYS_EXTERNAL,
	QG_KMS_DELETE_KEYS,
	QG_KMS_POST_STATUS,
	QG_KMS_NEW_APP_STREAM, /* this and the next: kms_app_msg.h */
	QG_KMS_NEW_APP_KEYS,
	QG_KMS_WANT_APP_KEYS,
	QG_KMS_APP_STREAM_CLOSED,
	QG_KMS_KINDS
} qg_kms_kind;

/* "new_app", ... */
const char *qg_kms_kind_name(qg_kms_kind kind);

/* Whether the messages can name that SAE: 1 to QG_KMS_SAE_MAX characters, each
 * printable ASCII. */
bool qg_kms_sae_fits(const char *id);

/* The SAEs that live at the sender, so that the directory can be learned; n 0
 * and the member absent when the sender tells none. */
typedef struct qg_kms_saes {
	size_t n;
	char id[QG_KMS_SAES_MAX][QG_KMS_SAE_MAX + 1];
} qg_kms_saes;

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
	qg_kms_saes saes;                 /* not part of the epoch ID */
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
	qg_kms_saes saes;
} qg_kms_new_app_answer;

/* The epoch ID: the first 16 bytes of BLAKE2b-256 over the version and every
 * member of both but saes. Both ends compute it. */
void qg_kms_epoch_id(const qg_kms_new_app *m, const qg_kms_new_app_answer *a, uint8_t out[16]);

/* What a segment's chunks are for (SOUNDNESS 6). Node key is of two kinds, for
 * pads and for one-time MAC keys: an application that knows the key which a
 * lost message carried, and sees the message, knows bytes of its pad; no such
 * byte may ever stand as a MAC key. */
typedef enum qg_segment_use { QG_USE_APPLICATION = 1, QG_USE_PAD = 2, QG_USE_MAC = 3 } qg_segment_use;

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
	/* likewise, node segments of the asker that it opened, as a message said: it
	 * cannot hold one below unused, unless its store is an old one (SOUNDNESS 9) */
	uint32_t seen_mac, seen_pad;
} qg_kms_epoch_status;

typedef struct qg_kms_status {
	size_t n;
	qg_kms_epoch_status epoch[QG_KMS_STATUS_MAX];
	qg_kms_saes saes;
} qg_kms_status;

/* --- messages that carry key (docs/relay.md) -------------------------------
 *
 * Each is masked and authenticated with node key (segments of use "node") of
 * one stream between sender and receiver, owned by the sender. Of the bytes
 * that `pads` names, in order, the first QG_MAC_KEY_BYTES are the one-time key
 * of the message's MAC, the next QG_MAC_KEY_BYTES that of the answer's MAC, the
 * rest masks `data`, byte for byte: their sum is 64 + data_len. The MAC covers
 * the canonical bytes (every member but data and mac), then the masked data.
 * The first 64 bytes come from segments of use "mac", the others from segments
 * of use "pad"; no range reaches from one to the other. */

#define QG_KMS_PATH_MAX 16      /* KMEs of a route, both ends counted */
#define QG_KMS_PADS_MAX 16      /* ranges of node key of one message */
#define QG_KMS_DATA_MAX 16384   /* bytes of masked key in one message */
#define QG_KMS_MAC_OVERHEAD (2 * QG_MAC_KEY_BYTES)

/* Bytes of a node segment, counted from its first usable chunk. */
typedef struct qg_kms_pad {
	uint8_t epoch[16];
	uint32_t segment;
	uint32_t offset, len;
} qg_kms_pad;

/* What masks a message: common to both kinds. */
typedef struct qg_kms_masked {
	char link[QG_KMS_NAME_MAX + 1]; /* the stream that pads name bytes of */
	size_t n_pads;
	qg_kms_pad pad[QG_KMS_PADS_MAX];
	/* What is left of segments with lower numbers is spent, and destroyed: of
	 * MAC segments of the first pad's epoch, of pad segments of the last one's. */
	uint32_t oldest_mac, oldest_pad;
	/* Of the last pad's epoch: the sender opened all pad segments with lower
	 * numbers, and names next what is left of them. They can be in its store only
	 * if that is an old one. 0 says nothing. */
	uint32_t opened_pad;
	uint8_t mac[QG_MAC_BYTES];
	size_t data_len;
	uint8_t data[QG_KMS_DATA_MAX]; /* masked; base64 in the message */
} qg_kms_masked;

/* forward_keys: chunks of a virtual stream, hop by hop. */
typedef struct qg_kms_forward {
	char stream[QG_KMS_NAME_MAX + 1]; /* the virtual stream */
	uint8_t epoch[16];                /* its epoch */
	uint32_t segment;
	uint32_t first, count;            /* chunks within the segment */
	uint32_t chunk_size;              /* data_len is count * chunk_size */
	uint8_t share, shares;            /* 0-based; 1 share: the key itself; more:
					     their XOR is the key */
	size_t n_path;
	char path[QG_KMS_PATH_MAX][QG_KMS_NAME_MAX + 1]; /* source ... target: KME IDs */
	uint8_t hop;                      /* index in path of the sender */
	uint32_t timeout_ms;              /* that the rest of the way may take */
	qg_kms_masked masked;
} qg_kms_forward;

typedef enum qg_kms_forward_result {
	QG_KMS_FORWARD_DELIVERED, /* the target has it */
	QG_KMS_FORWARD_DOWN,      /* the next hop cannot be reached, or did not answer */
	QG_KMS_FORWARD_STARVING,  /* no node key towards the next hop */
	QG_KMS_FORWARD_BUSY,      /* beyond a quota there */
	QG_KMS_FORWARD_FULL,      /* the target has no room */
	QG_KMS_FORWARD_UNKNOWN,   /* the target has no such live epoch, or the segment is decided there */
	QG_KMS_FORWARD_MISMATCH,  /* the target holds other bytes for this batch */
	QG_KMS_FORWARD_REFUSED,   /* a MAC, the path or a repeated pad: taken for forged */
	QG_KMS_FORWARD_NO_PAD     /* the receiver has no such node key (any more) */
} qg_kms_forward_result;

/* Answer of a hop: what became of the message at or after it. All but REFUSED
 * and NO_PAD, for which there is no key, carry a MAC. */
typedef struct qg_kms_forward_answer {
	qg_kms_forward_result result;
	char at[QG_KMS_NAME_MAX + 1]; /* KME that says so */
	uint8_t mac[QG_MAC_BYTES];    /* absent with REFUSED and NO_PAD */
} qg_kms_forward_answer;

/* make_keys_external: keys that have an ID already, for SAEs at the receiver
 * (multicast, and keys of other networks). Goes over one stream, real or
 * virtual, between its two ends. All of its keys are taken, or none. */
#define QG_KMS_MAKE_MAX 128
typedef struct qg_kms_made_key {
	qg_uuid id;
	uint32_t size; /* bytes */
} qg_kms_made_key;

typedef struct qg_kms_make {
	char from[QG_KMS_NAME_MAX + 1], to[QG_KMS_NAME_MAX + 1]; /* KME IDs */
	char initiator[QG_KMS_SAE_MAX + 1];                      /* the master */
	qg_kms_saes targets;
	uint32_t lifetime_s;
	size_t n_keys;
	qg_kms_made_key key[QG_KMS_MAKE_MAX]; /* data: their values one after the other */
	qg_kms_masked masked;
} qg_kms_make;

typedef enum qg_kms_make_result {
	QG_KMS_MAKE_HELD,     /* stored for all targets, now or by an earlier message */
	QG_KMS_MAKE_UNKNOWN,  /* a target does not live here, or may not get keys of the initiator */
	QG_KMS_MAKE_EXISTS,   /* the ID stands for another key, or was voided or delivered */
	QG_KMS_MAKE_FULL,
	QG_KMS_MAKE_REFUSED,
	QG_KMS_MAKE_NO_PAD,
	QG_KMS_MAKE_PENDING,  /* stored; it goes to another network, whose answer is awaited */
	QG_KMS_MAKE_FAILED    /* the other network does not have it: void here */
} qg_kms_make_result;

typedef struct qg_kms_make_answer {
	qg_kms_make_result result;
	uint8_t mac[QG_MAC_BYTES]; /* absent with REFUSED and NO_PAD */
} qg_kms_make_answer;

/* delete_keys: voids keys that make_keys_external of the sender brought. */
typedef struct qg_kms_delete {
	char initiator[QG_KMS_SAE_MAX + 1];
	size_t n;
	qg_uuid id[QG_KMS_MAKE_MAX];
} qg_kms_delete;

typedef struct qg_kms_delete_answer {
	uint32_t voided;    /* now void for all targets, or never known: never delivered later */
	uint32_t delivered; /* too late: a target has it */
} qg_kms_delete_answer;

/* post_status: the links of one KME, flooded through the network. It may change
 * what routes cost, never which nodes and links there are (SOUNDNESS 17). */
#define QG_KMS_LINKS_MAX 64
typedef enum qg_kms_link_state { QG_KMS_LINK_UP, QG_KMS_LINK_DOWN, QG_KMS_LINK_STARVING } qg_kms_link_state;

typedef struct qg_kms_link {
	char peer[QG_KMS_NAME_MAX + 1]; /* KME ID of the other end */
	qg_kms_link_state state;        /* towards it */
	uint64_t bytes;                 /* of node key ready towards it */
} qg_kms_link;

typedef struct qg_kms_report {
	char origin[QG_KMS_NAME_MAX + 1];
	uint64_t sequence;              /* grows with each report of the origin, over its restarts */
	size_t n;
	qg_kms_link link[QG_KMS_LINKS_MAX];
} qg_kms_report;

/* Canonical bytes that the MACs cover before the masked data; and of the answers. */
#define QG_KMS_MASKED_CANONICAL_MAX 16384
void qg_kms_forward_canonical(const qg_kms_forward *m, qg_writer *w);
void qg_kms_make_canonical(const qg_kms_make *m, qg_writer *w);
void qg_kms_forward_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], const qg_kms_forward_answer *a,
				     qg_writer *w);
void qg_kms_make_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], const qg_kms_make_answer *a, qg_writer *w);

/* Encoders write JSON without a NUL into out and return its length in *len;
 * QG_E_RANGE when room is too small (QG_KMS_MSG_MAX always suffices, and for
 * forward_keys QG_KMS_FORWARD_MAX). Decoders take len bytes. */
#define QG_KMS_MSG_MAX 65536
#define QG_KMS_FORWARD_MAX 32768
#define QG_KMS_CODEC(name, type)                                                                  \
	qg_err qg_kms_##name##_encode(const type *m, char *out, size_t room, size_t *len) QG_CHECKED; \
	qg_err qg_kms_##name##_decode(const char *json, size_t len, type *m) QG_CHECKED
QG_KMS_CODEC(new_app, qg_kms_new_app);
QG_KMS_CODEC(new_app_answer, qg_kms_new_app_answer);
QG_KMS_CODEC(batch, qg_kms_batch);
QG_KMS_CODEC(batch_answer, qg_kms_batch_answer);
QG_KMS_CODEC(closed, qg_kms_closed);
QG_KMS_CODEC(status, qg_kms_status);
QG_KMS_CODEC(forward, qg_kms_forward);
QG_KMS_CODEC(forward_answer, qg_kms_forward_answer);
QG_KMS_CODEC(make, qg_kms_make);
QG_KMS_CODEC(make_answer, qg_kms_make_answer);
QG_KMS_CODEC(delete, qg_kms_delete);
QG_KMS_CODEC(delete_answer, qg_kms_delete_answer);
QG_KMS_CODEC(report, qg_kms_report);

#endif
