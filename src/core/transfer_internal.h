/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TRANSFER_INTERNAL_H
#define QKDGATE_TRANSFER_INTERNAL_H

#include <pthread.h>
#include <sodium.h>

#include "qkdgate/transfer.h"

/* Transferred keys: transfer.c has records, index and adding,
 * transfer_claim.c deliveries, transfer_purge.c the housekeeping. */

#define QG_TRANSFER_AD_MAX 1024 /* SAE IDs are shorter */

typedef struct qg_transfer_target {
	char *sae; /* in the record's block */
	qg_target_state state;
	bool claimed;
} target;

struct qg_transfer {
	qg_transfer *next; /* in its bucket */
	int64_t row;
	qg_uuid id;
	char *initiator; /* in this block */
	qg_transfer_state state;
	uint32_t size_bytes;
	uint64_t expiry_ms;
	uint8_t *sealed; /* NULL once no target is left */
	size_t sealed_len;
	bool value_stored; /* the store still has the sealed value */
	bool purging;      /* a job of the housekeeping has it */
	size_t claims;     /* under way */
	size_t n_targets;
	target targets[];
};

/* The lock covers everything but what a record never changes (id, initiator,
 * size, expiry, names) and what a claim pins (the sealed value). It is never
 * held over a wait. */
struct qg_transfers {
	pthread_mutex_t lock;
	qg_sealer *sealer;
	unsigned char hash_key[crypto_shorthash_KEYBYTES];
	qg_transfer **buckets; /* by key ID */
	size_t n_buckets;      /* a power of two */
	size_t count;
};

/* The caller holds the lock, or owns the record alone. */
bool qg_transfer_is_open(const target *t);       /* could still be given the value */
bool qg_transfer_is_spent(const qg_transfer *x); /* no target is open */
void qg_transfer_drop_value(qg_transfer *x);     /* from memory */
void qg_transfer_record_free(qg_transfer *x);

/* The caller holds the lock. */
qg_transfer *qg_transfer_find(const qg_transfers *t, const char *initiator, const qg_uuid *id);
void qg_transfer_take_out(qg_transfers *t, qg_transfer *x);

/* What a sealed value is bound to: a blob moved to another record does not
 * open. QG_E_RANGE. */
qg_err qg_transfer_ad(const qg_transfer *x, uint8_t ad[QG_TRANSFER_AD_MAX], size_t *len) QG_CHECKED;

#endif
