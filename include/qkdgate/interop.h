/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_INTEROP_H
#define QKDGATE_INTEROP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/uuid.h"

/* Between the HTTPS of the Kxi interface (east) and the transfer engine (core):
 * keys that other networks' key managers bring and take (ETSI GS QKD 020,
 * ITU-T Kxi and Kxi'). The core sees no JSON, no URL and no HTTP status: east
 * maps the standard's bodies to these structs, either dialect, and results to
 * answers. A peer is named by its ID in the configuration (`peers[].id`), of
 * whoever showed its certificate. Names, IDs and texts that one side hands over
 * are its own and valid during the call only. */

#define QG_INTEROP_KEYS_MAX 1024   /* keys in one request, whatever a peer's limit is */
#define QG_INTEROP_TARGETS_MAX 32  /* targets of one key */
#define QG_INTEROP_KEY_BYTES_MAX 4095
#define QG_INTEROP_TEXT_MAX 4096   /* bytes of the text of a key's extension */
#define QG_INTEROP_OPTIONAL_MAX 65536 /* and of extension_optional */

/* SAE IDs as they stand in the bodies, decoded. */
typedef struct qg_interop_saes {
	const char *initiator;
	const char *const *targets; /* none twice */
	size_t n_targets;           /* 1 to QG_INTEROP_TARGETS_MAX */
} qg_interop_saes;

typedef struct qg_interop_key {
	qg_uuid id;
	const uint8_t *value;  /* secret; masked where the request has a mask */
	uint32_t size_bytes;   /* 1 to QG_INTEROP_KEY_BYTES_MAX */
	const char *extension; /* JSON object text, passed on unchanged; NULL: none */
} qg_interop_key;

/* What masks the values of a request on a Kxi with a QKD stream between the two
 * gateways: node key of `link`, as in the messages between neighbours
 * (kms_msg.h): the first 64 bytes of `pad` are MAC keys, the others the pad of
 * all values, one after the other in the order of the keys. The MAC covers
 * direction (both KME IDs), initiator, targets, IDs, sizes, extensions and the
 * masked values. In the bodies it is an extension that both gateways know. */
typedef struct qg_interop_mask {
	char link[QG_KMS_NAME_MAX + 1];
	size_t n_pads;
	qg_kms_pad pad[QG_KMS_PADS_MAX];
	uint32_t oldest_mac, oldest_pad; /* as of qg_kms_masked */
	uint8_t mac[QG_MAC_BYTES];
} qg_interop_mask;

typedef struct qg_interop_keys {
	qg_interop_saes saes;
	const qg_interop_key *key;
	size_t n_keys;
	const char *optional;        /* extension_optional without the mask: passed on unchanged; NULL: none */
	const qg_interop_mask *mask; /* NULL: the values are as they are */
	/* Incoming: 0: asynchronous, outcomes travel in acks; else the outcome is
	 * wanted in the answer, within so many milliseconds. Outgoing: how long the
	 * core waits for an answer at most; the peer's configuration says whether
	 * the request is synchronous. */
	unsigned wait_ms;
} qg_interop_keys;

typedef enum qg_interop_status {
	QG_INTEROP_RELAYED,        /* "relayed" */
	QG_INTEROP_FAILED,         /* "failed" */
	QG_INTEROP_VOIDED,         /* "voided" */
	QG_INTEROP_FAILED_TO_VOID, /* "failed to void" */
	QG_INTEROP_NOT_PRESENT     /* "key not present" */
} qg_interop_status;

/* One ack_container. */
typedef struct qg_interop_ack {
	qg_interop_status status;
	qg_interop_saes saes;
	const qg_uuid *ids;
	size_t n_ids;        /* 1 to QG_INTEROP_KEYS_MAX */
	const char *message; /* fixed text for the operator there, or NULL */
} qg_interop_ack;

typedef struct qg_interop_void {
	qg_interop_saes saes;
	const qg_uuid *ids;
	size_t n_ids;     /* at most QG_INTEROP_KEYS_MAX; 0 with all alone */
	bool all;         /* every key between these SAEs (empty list, all_confirmation) */
	unsigned wait_ms; /* as of qg_interop_keys */
} qg_interop_void;

/* --- what comes in ----------------------------------------------------------------- */

typedef struct qg_interop qg_interop; /* core's side */

/* What becomes of a request. In brackets what ETSI GS QKD 020 says for it. After
 * those of 400 and 401 nothing is kept of the request. */
typedef enum qg_interop_result {
	QG_INTEROP_ACCEPTED,   /* durable, acks follow (202; of an ack: 200) */
	QG_INTEROP_DONE,       /* the outcome is in acks (200; only where it was waited for) */
	QG_INTEROP_TIMEOUT,    /* not decided in time (408 timeout): what was taken is being voided */
	QG_INTEROP_NO_TARGET,  /* 400 key-routing-error, target_sae_id_not_recognized */
	QG_INTEROP_ROUTING,    /* 400 key-routing-error, invalid_routing: back to where it came from,
				  seen from another side, or an ID of this gateway's own */
	QG_INTEROP_MALFORMED,  /* 400 (missing-parameters, void-request-not-understood,
				  ack-not-understood): counts, sizes or repeats that east let pass */
	QG_INTEROP_ABSENT,     /* 400 key-not-present; of an ack */
	QG_INTEROP_DENIED,     /* 401 unauthorized: not the peer's initiator, not allowed this target,
				  or a mask that is missing, forged or used before */
	QG_INTEROP_NO_ROUTE,   /* 503 key-routing-error, no_known_route: no node key leads there */
	QG_INTEROP_NO_KEY,     /* 503 insufficient-key-material: the mask names key that is not here */
	QG_INTEROP_CONFLICT,   /* 503 server-side-general-error: the ID stands for another key, or is void */
	QG_INTEROP_FULL,       /* 503 server-side-general-error: no room, or beyond a limit */
	QG_INTEROP_UNAVAILABLE /* 503 server-side-general-error: the store refuses, or it stops */
} qg_interop_result;

typedef struct qg_interop_reply {
	qg_interop_result result;
	const char *why;           /* fixed text for the problem's details; never NULL */
	const qg_interop_ack *ack; /* with QG_INTEROP_DONE, valid inside */
	size_t n_acks;
} qg_interop_reply;

/* Called exactly once for each request, before the call returns or later, from
 * any thread; must not block. */
typedef void qg_interop_answer(void *ctx, const qg_interop_reply *reply);

/* ext_keys of an authenticated peer: all keys are taken or none, durable before
 * the answer. The identical request again is answered the same; acks that were
 * given come again. What is secret in it is copied into sealed records or wiped
 * secrets. Any thread. */
void qg_interop_receive_keys(qg_interop *ip, const char *peer, const qg_interop_keys *m, qg_interop_answer *answer,
			     void *ctx);

/* The containers of one ack request: all are taken (QG_INTEROP_ACCEPTED, after
 * they are durable), or none (QG_INTEROP_ABSENT: a key is not known as one that
 * this peer was given; QG_INTEROP_MALFORMED). Any thread. */
void qg_interop_receive_acks(qg_interop *ip, const char *peer, const qg_interop_ack *ack, size_t n,
			     qg_interop_answer *answer, void *ctx);

/* void of a peer, from the side that brought the keys or from one that was given
 * them. What is not known here is remembered as void. Any thread. */
void qg_interop_receive_void(qg_interop *ip, const char *peer, const qg_interop_void *m, qg_interop_answer *answer,
			     void *ctx);

/* --- the way out, implemented by east/etsi020 ------------------------------------------ */

typedef struct qg_interop_way qg_interop_way;

typedef enum qg_interop_outcome {
	QG_INTEROP_OUT_ACCEPTED, /* 202; of acks: 200 */
	QG_INTEROP_OUT_ACKS,     /* 200 with outcomes; the draft's 200: `relayed` for all targets */
	QG_INTEROP_OUT_REFUSED,  /* 400, 401: the peer holds nothing of the request */
	QG_INTEROP_OUT_UNKNOWN   /* 408, 503, anything else, or no answer: it may hold it */
} qg_interop_outcome;

typedef struct qg_interop_sent {
	qg_interop_outcome outcome;
	const char *why;           /* problem type and detail, or why no answer came: for log and audit,
				      made safe for them by east; never NULL */
	bool absent;               /* REFUSED acks: key-not-present */
	bool no_key;               /* UNKNOWN keys: insufficient-key-material, as QG_INTEROP_NO_KEY is
				      answered: the mask names node key that the peer has not (any more) */
	const qg_interop_ack *ack; /* with OUT_ACKS, valid inside */
	size_t n_acks;
} qg_interop_sent;

/* Exactly once for each request that was sent, on another thread; must not block. */
typedef void qg_interop_done(void *ctx, const qg_interop_sent *sent);

/* Each copies what it is given into a wiped secret and returns at once. On an
 * error `done` is not called: QG_E_NOTFOUND unknown peer, QG_E_NOMEM,
 * QG_E_CLOSED. Called with core's locks held: must not call back into the core
 * before it returns. */
typedef struct qg_interop_ops {
	/* wait_ms as the core set it; east makes the request synchronous, gives it
	 * a callback, or speaks the draft, as the peer's configuration says. */
	qg_err (*send_keys)(qg_interop_way *way, const char *peer, const qg_interop_keys *m, qg_interop_done *done,
			    void *ctx);
	qg_err (*send_acks)(qg_interop_way *way, const char *peer, const qg_interop_ack *ack, size_t n,
			    qg_interop_done *done, void *ctx);
	qg_err (*send_void)(qg_interop_way *way, const char *peer, const qg_interop_void *m, qg_interop_done *done,
			    void *ctx);
} qg_interop_ops;

struct qg_interop_way {
	const qg_interop_ops *ops;
};

#endif
