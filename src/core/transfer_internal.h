/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TRANSFER_INTERNAL_H
#define QKDGATE_TRANSFER_INTERNAL_H

#include <pthread.h>
#include <sodium.h>

#include "qkdgate/transfer.h"

/* Transferred keys: transfer.c has records, index and adding,
 * transfer_claim.c deliveries, transfer_purge.c the housekeeping,
 * transfer_void.c what is made void from here, transfer_revoke.c what another
 * node brought and makes void. */

#define QG_TRANSFER_PRINT 16
#define QG_TRANSFER_AD_MAX 1024 /* SAE IDs are shorter */

/* What came from another node is known for so long after it expired: no message
 * about it can be on its way any more (SOUNDNESS 18). */
#define QG_TRANSFER_GRACE_MS (UINT64_C(3600) * 1000)

typedef struct qg_transfer_target {
	char *sae;  /* in the record's block */
	char *home; /* there too; NULL: this node */
	qg_target_state state;
	bool claimed;
	bool asking; /* its home is being told that the key is void */
	uint8_t tries;
	uint64_t ask_at_ms;
} target;

typedef enum qg_purging { QG_PURGE_NOT, QG_PURGE_VALUE, QG_PURGE_ALL } qg_purging;

struct qg_transfer {
	qg_transfer *next; /* in its bucket */
	int64_t row;
	qg_uuid id;
	char *initiator; /* in this block */
	char *origin;    /* there too; NULL: issued here */
	qg_transfer_state state;
	uint32_t size_bytes;
	uint64_t expiry_ms;
	uint64_t born_ms;    /* elapsed time when it came into memory */
	uint8_t *sealed; /* NULL once no target is left */
	size_t sealed_len;
	char *extension, *optional; /* in this block; NULL: none */
	char *owed;          /* peer that is told whether it became void, or NULL */
	bool printed;        /* print is known: since the record was made */
	uint8_t print[QG_TRANSFER_PRINT]; /* keyed hash of the value, to know it again */
	void *op;            /* the request that brings it on (multicast.c), under its lock */
	uint32_t op_at;      /* which of its keys */
	bool value_stored; /* the store still has the sealed value */
	qg_purging purging; /* what a job of the housekeeping does to it */
	size_t claims;     /* under way */
	size_t pins;       /* requests and revocations under way that point here */
	/* being voided from here */
	qg_transfer *void_next, *void_prev;
	bool maybe_released; /* the store may say so */
	bool singly;         /* its homes are asked about it alone */
	bool finishing;      /* a job writes its end */
	uint64_t finish_at_ms;
	size_t n_targets;
	target targets[];
};

/* Tombstones of one origin: what it made void before it was known here. */
typedef struct qg_transfer_stones {
	struct qg_transfer_stones *next;
	size_t n;
	char origin[];
} qg_transfer_stones;

/* With the end of voided records: for those with `owed` the peer is to be told.
 * In the job that writes it, and after its outcome. What `finish` returns in
 * *kept is what `finished` gets. */
typedef qg_err qg_transfer_finish(void *ctx, qg_store *store, qg_transfer *const *x, size_t n, void **kept);
typedef void qg_transfer_finished(void *ctx, void *kept, qg_err err);

/* The lock covers everything but what a record never changes (id, initiator,
 * size, expiry, names) and what a claim pins (the sealed value). It is never
 * held over a wait. */
struct qg_transfers {
	pthread_mutex_t lock;
	qg_sealer *sealer;
	unsigned char hash_key[crypto_shorthash_KEYBYTES];
	unsigned char print_key[crypto_generichash_KEYBYTES];
	qg_transfer **buckets; /* by key ID */
	size_t n_buckets;      /* a power of two */
	size_t count;
	size_t n_stones;            /* of count */
	qg_transfer_stones *stones; /* of each origin that ever had any */
	uint64_t far_behind_ms;
	qg_transfer *voiding; /* last put there first */
	size_t n_voiding;
	qg_transfer_finish *finish; /* what else is written with a record's end */
	qg_transfer_finished *finished;
	void *finish_ctx;
};

/* The caller holds the lock, or owns the record alone. */
bool qg_transfer_is_open(const target *t);       /* could still be given the value */
bool qg_transfer_is_spent(const qg_transfer *x); /* no target is open */
void qg_transfer_drop_value(qg_transfer *x);     /* from memory */
void qg_transfer_record_free(qg_transfer *x);

/* now_ms of the owner's clock as the one that the record lives by. */
uint64_t qg_transfer_clock(const qg_transfers *t, const qg_transfer *x, uint64_t now_ms);

/* The caller holds the lock. */
void qg_transfer_insert(qg_transfers *t, qg_transfer *x);
void qg_transfer_list_void(qg_transfers *t, qg_transfer *x); /* VOIDING from now on */
qg_transfer_state qg_transfer_first_state(const qg_transfer *x); /* as it is stored first */
qg_transfer_state qg_transfer_end_state(const qg_transfer *x); /* of one that is void */
qg_transfer *qg_transfer_find(const qg_transfers *t, const char *initiator, const qg_uuid *id);
void qg_transfer_take_out(qg_transfers *t, qg_transfer *x);

/* A record with its names and texts and without a value; NULL without memory. */
qg_transfer *qg_transfer_record_new(const qg_transfer_plan *plan);

void qg_transfer_print(const qg_transfers *t, const uint8_t *value, size_t len,
		       uint8_t print[QG_TRANSFER_PRINT]);

/* Whether it is known as more than a tombstone; and held for its targets. */
bool qg_transfer_is_there(qg_transfers *t, const char *initiator, const qg_uuid *id);
bool qg_transfer_is_held(qg_transfers *t, const char *initiator, const qg_uuid *id);

/* What it came to, as far as the job has seen. */
qg_revoked qg_transfer_revoke_seen(const qg_transfer_revocation *r);

/* Unseals into out, size_bytes long. */
qg_err qg_transfer_value(const qg_transfers *t, const qg_transfer *x, uint8_t *out) QG_CHECKED;

/* Whether its targets, or those whose home is `home`, are exactly these. */
bool qg_transfer_is_for(const qg_transfer *x, const char *home, const char *const *targets, size_t n);
bool qg_transfer_has_home(const qg_transfer *x, const char *home);
bool qg_transfer_has_peer(const qg_transfer *x);
bool qg_transfer_has_target_here(const qg_transfer *x);
bool qg_transfer_goes_on(const qg_transfer *x); /* to any other node */

/* What a sealed value is bound to: a blob moved to another record does not
 * open. QG_E_RANGE. */
qg_err qg_transfer_ad(const qg_transfer *x, uint8_t ad[QG_TRANSFER_AD_MAX], size_t *len) QG_CHECKED;

#endif
