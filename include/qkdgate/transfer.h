/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TRANSFER_H
#define QKDGATE_TRANSFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/committer.h"
#include "qkdgate/error.h"
#include "qkdgate/seal.h"
#include "qkdgate/secret.h"
#include "qkdgate/store.h"
#include "qkdgate/uuid.h"

/* Keys that come with an ID of their own (DESIGN, idea 5; SOUNDNESS 14, 18):
 * one record with a state, keyed by (initiator, key ID), held by its targets.
 * An index in memory, every change durable before it takes effect. The value
 * is in the sealed blob only; a fetch unseals it. All functions: any thread,
 * but those marked job, which run on the committer's thread inside a job's
 * run. */

typedef struct qg_transfers qg_transfers;

/* Loads what the store has. Before the committer starts. */
qg_err qg_transfers_open(qg_store *store, qg_sealer *sealer, qg_transfers **out) QG_CHECKED;
void qg_transfers_close(qg_transfers **t);

/* A record being made: sealed now, visible only after _added. */
typedef struct qg_transfer qg_transfer;

/* Prepares a HELD record of origin "local" with targets PENDING. value stays
 * the caller's. expiry_ms on the lifetime clock (lifetime.h). QG_E_EXISTS when
 * the index has (initiator, id). */
qg_err qg_transfer_prepare(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *const *targets,
			   size_t n_targets, const uint8_t *value, uint32_t size_bytes, uint64_t expiry_ms,
			   qg_transfer **out) QG_CHECKED;
qg_err qg_transfer_store(qg_transfer *x, qg_store *store) QG_CHECKED; /* job */
/* After the commit: enters the index (QG_OK) or is freed (any other). Takes x. */
void qg_transfer_added(qg_transfers *t, qg_transfer *x, qg_err committed);

/* A delivery to one target under way. */
typedef struct qg_transfer_claim qg_transfer_claim;

/* Claims the key for `target`: QG_E_NOTFOUND when there is no record with the
 * caller as target (the ID may still be a stream's); QG_E_CONSUMED when
 * delivered or voided or expired before; QG_E_AGAIN while another claim for
 * the same target is under way. The claim is ended by _claim_end. */
qg_err qg_transfer_claim_new(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *target,
			     uint64_t now_ms, qg_transfer_claim **out) QG_CHECKED;
uint32_t qg_transfer_claim_size(const qg_transfer_claim *c);
/* job: marks the target DELIVERED; forgets the value with the last target. */
qg_err qg_transfer_claim_store(qg_transfer_claim *c, qg_store *store) QG_CHECKED;
/* Copies the value (size bytes) out of the sealed blob; call before _end. */
qg_err qg_transfer_claim_value(qg_transfer_claim *c, uint8_t *out) QG_CHECKED;
/* Ends the claim: QG_OK delivered; QG_E_CLOSED given up, the target is as
 * before; any other error: the outcome is unknown, so it counts as delivered.
 * Takes *c. */
void qg_transfer_claim_end(qg_transfers *t, qg_transfer_claim **c, qg_err committed);

/* Whether the ID is known with another initiator or target: 401 instead of
 * 400. */
bool qg_transfer_known(qg_transfers *t, const qg_uuid *id);

/* Queues the deletion of expired records with the committer; returns how many. */
size_t qg_transfers_expire(qg_transfers *t, qg_committer *c, uint64_t now_ms);

size_t qg_transfers_count(qg_transfers *t);

/* The oldest generation (seal.h) that a value still to be delivered is sealed
 * under: it must not be destroyed yet. UINT32_MAX when there is none. */
uint32_t qg_transfers_oldest_generation(qg_transfers *t);

#endif
