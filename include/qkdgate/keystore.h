/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KEYSTORE_H
#define QKDGATE_KEYSTORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

/* Keys out: what the northern interfaces ask for. The keystore draws from the
 * outbound directions of all streams towards the slave's home KME, delivers
 * from the inbound ones, and keeps the keys that have an ID of their own
 * (pairs on this node, additional slaves). It checks no policy. */

typedef struct qg_keystore qg_keystore;

#define QG_KEYSTORE_KEYS_MAX 1024 /* keys in one request */

typedef struct qg_issue_request {
	const char *master;             /* SAE IDs, decoded */
	const char *slave;
	const char *const *extra;       /* additional slaves, on any nodes */
	size_t n_extra;
	uint32_t number;                /* 1 to QG_KEYSTORE_KEYS_MAX */
	uint32_t size_bytes;            /* 1 to the stream's largest */
	uint32_t max_age_ms;            /* 0: any */
	uint32_t min_hops, max_hops;    /* trusted nodes in between; 0 and UINT32_MAX: any */
	const char *kme;                /* at which the slave is; NULL: where the directory has it */
	const char *account;            /* whose quota it counts against; NULL: the pair's */
} qg_issue_request;

/* Keys in the order of ids, each size_bytes long, one after the other. */
typedef struct qg_issue_result {
	qg_err err;              /* QG_OK; QG_E_EMPTY (503), QG_E_LIMIT (503), QG_E_IO
				    (503, the store refuses), QG_E_RANGE (size or number
				    beyond the stream's largest), QG_E_STATE (the age cannot
				    be met, or the hops by no stream towards that KME ever;
				    while keys of such hops are merely short: QG_E_EMPTY),
				    QG_E_NOTFOUND (no stream to that KME) */
	const qg_uuid *ids;      /* number of them, valid inside done */
	const uint32_t *hops;    /* of each, by the route it was relayed over; valid inside
				    done. NULL: all 0 */
	qg_secret *keys;         /* done takes it; NULL unless QG_OK */
	uint32_t retry_after_s;  /* with QG_E_EMPTY, QG_E_LIMIT */
} qg_issue_result;

typedef void qg_issue_done(void *ctx, qg_issue_result *result);

/* Issues all keys or none. `done` is called exactly once: before the call
 * returns where no durable write is needed (keys over a link), else later on
 * the committer's thread. The request's pointers must live until done. Any
 * thread. */
void qg_keystore_issue(qg_keystore *ks, const qg_issue_request *req, qg_issue_done *done, void *ctx);

typedef struct qg_fetch_request {
	const char *master;   /* from the path */
	const char *slave;    /* the caller */
	const char *kme;      /* at which the master is; NULL: where the directory has it */
	const qg_uuid *ids;   /* without repeats */
	size_t n;             /* 1 to QG_KEYSTORE_KEYS_MAX */
} qg_fetch_request;

typedef struct qg_fetch_result {
	qg_err err;              /* QG_OK; QG_E_DENIED (401), QG_E_NOTFOUND (400), QG_E_IO
				    (503, not delivered, state unknown) */
	qg_secret *keys;         /* one after the other; done takes it */
	const uint16_t *sizes;   /* bytes of each, valid inside done */
} qg_fetch_result;

typedef void qg_fetch_done(void *ctx, qg_fetch_result *result);

/* Delivers all keys or none; their consumption is durable before done. `done`
 * is called exactly once, on this or the committer's thread. The request's
 * pointers must live until then. Any thread. */
void qg_keystore_fetch(qg_keystore *ks, const qg_fetch_request *req, qg_fetch_done *done, void *ctx);

/* Between true and false on one thread, which does not wait in between: what it
 * asks for is committed together, from the end on. */
void qg_keystore_gather(qg_keystore *ks, bool on);

typedef struct qg_keystore_level {
	uint64_t stored_bytes;   /* ready to issue towards that KME */
	uint64_t max_bytes;      /* the pools' limit */
	uint32_t max_key_bytes;  /* largest key the streams carry, 0: no stream */
	bool known;              /* there is a stream, or it is this node */
} qg_keystore_level;

/* The stock towards a KME. Any thread. */
void qg_keystore_level_of(qg_keystore *ks, const char *kme, qg_keystore_level *out);

#endif
