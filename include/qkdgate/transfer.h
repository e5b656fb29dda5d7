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
 * run.
 *
 * A key whose targets live at several nodes is a record at each of them: at
 * the master's node with every target and the KME that keeps it for each, at
 * the others with the targets there and the master's KME as origin. Where such
 * a record of another KME goes on to further homes (other networks' keys, and
 * keys for them), it is OFFERED until all of these hold it, then HELD. */

typedef struct qg_transfers qg_transfers;

/* Whether the name of an origin or a home is that of a peer, a key manager of
 * another network (QG_PEER_PREFIX of config.h). NULL: no. */
bool qg_transfer_is_peer(const char *kme);

/* Loads what the store has. What was prepared there and not released is being
 * voided from now on. Before the committer starts. */
qg_err qg_transfers_open(qg_store *store, qg_sealer *sealer, qg_transfers **out) QG_CHECKED;
void qg_transfers_close(qg_transfers **t);

/* By how much the far end's reading of the lifetime clock (SOUNDNESS 11) is
 * behind the owner's: what other KMEs brought lives by it. Before any use. */
void qg_transfers_far_behind(qg_transfers *t, uint64_t behind_ms);

/* A record being made: sealed now, visible only after _added. */
typedef struct qg_transfer qg_transfer;

typedef struct qg_transfer_to {
	const char *sae;
	const char *home; /* KME that keeps the key for it; NULL: this node */
} qg_transfer_to;

typedef struct qg_transfer_plan {
	const char *initiator;
	const char *origin;  /* KME that brings it; NULL: issued here */
	qg_uuid id;
	const qg_transfer_to *to;
	size_t n_to;
	const uint8_t *value;
	uint32_t size_bytes;
	uint64_t expiry_ms;  /* lifetime clock: the owner's, with an origin the far end's */
	const char *extension, *optional; /* passed on to another network; NULL: none */
} qg_transfer_plan;

/* Prepares a record. With a target elsewhere it is PREPARED, or OFFERED where
 * it has an origin or goes to a peer: nobody is given the key, and the record
 * stays where it is, until _released or _void_begin; else it is HELD. The value
 * is kept where there is a target here, and with an origin. The plan stays the
 * caller's. QG_E_EXISTS when the index has (initiator, id). */
qg_err qg_transfer_plan_new(qg_transfers *t, const qg_transfer_plan *plan, qg_transfer **out) QG_CHECKED;

/* The same for a key issued here whose targets are all here. */
qg_err qg_transfer_prepare(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *const *targets,
			   size_t n_targets, const uint8_t *value, uint32_t size_bytes, uint64_t expiry_ms,
			   qg_transfer **out) QG_CHECKED;
qg_err qg_transfer_store(qg_transfer *x, qg_store *store) QG_CHECKED; /* job */
/* After the commit: enters the index (QG_OK) or is freed (any other). Takes x. */
void qg_transfer_added(qg_transfers *t, qg_transfer *x, qg_err committed);

/* --- as the master's node: keys with targets elsewhere -------------------------- */

/* job: to RELEASED; with an origin, to HELD. QG_E_STATE when it is being voided. */
qg_err qg_transfer_release_store(qg_transfer *x, qg_store *store) QG_CHECKED;
/* After that was committed: it can be fetched here, and x is no longer the
 * caller's. */
void qg_transfer_released(qg_transfers *t, qg_transfer *x);

/* Nobody is ever given this key, whatever becomes of the writes: from now on it
 * is void here, and on the list of what the KMEs among `homes` are to be told.
 * The others were not offered it. x is pinned until _void_stored. */
void qg_transfer_void_begin(qg_transfers *t, qg_transfer *x, const char *const *homes, size_t n_homes);
/* job: PREPARED or OFFERED, or what _released makes of it when that commit's
 * outcome is not known, to VOIDING. */
qg_err qg_transfer_void_store(qg_transfer *x, qg_store *store) QG_CHECKED;
/* After it, whatever its outcome: x is no longer the caller's. */
void qg_transfer_void_stored(qg_transfers *t, qg_transfer *x);

/* Keys of one initiator that one home is to be told are void. */
typedef struct qg_transfer_void qg_transfer_void;

/* The next ones due, at most `most`; NULL when there are none, with in
 * *next_ms when there will be some (UINT64_MAX: not by time). now_ms as of
 * qg_clock_elapsed_ms. Ended by _void_answered or _void_put_off. Also ends what
 * needs no answer any more. */
qg_transfer_void *qg_transfer_void_next(qg_transfers *t, qg_committer *c, uint64_t now_ms, size_t most,
					uint64_t *next_ms);
const char *qg_transfer_void_home(const qg_transfer_void *v);
const char *qg_transfer_void_initiator(const qg_transfer_void *v);
const qg_uuid *qg_transfer_void_ids(const qg_transfer_void *v, size_t *n);
/* The targets at a peer, the same for all of its keys; as many as there is room for. */
size_t qg_transfer_void_targets(const qg_transfer_void *v, const char **sae, size_t room);
/* Whether every key of it has expired by the owner's clock. */
bool qg_transfer_void_expired(const qg_transfer_void *v, uint64_t now_ms);

/* The home says so. Records that need no other answer are written as VOIDED, or
 * FAILED where a target had the key, by a job. Takes *v. False: it has to be
 * asked key by key, since it said that of some of several they were delivered. */
bool qg_transfer_void_answered(qg_transfers *t, qg_committer *c, qg_transfer_void **v, size_t n_voided,
			       size_t n_delivered);
/* A peer says what became of one key at its side, asked or not. False: nothing
 * of the kind is being voided. */
bool qg_transfer_void_told(qg_transfers *t, const char *home, const char *initiator, const qg_uuid *id,
			   bool delivered);
/* No answer: again later, ever less often. Takes *v. */
void qg_transfer_void_put_off(qg_transfers *t, qg_transfer_void **v, uint64_t now_ms);
/* Records on the list. */
size_t qg_transfers_voiding(qg_transfers *t);

/* --- as another node --------------------------------------------------------------- */

/* What the index has for the plan's (initiator, id): QG_E_NOTFOUND nothing;
 * QG_OK the same key for the same targets from the same origin, not void and its
 * value not yet forgotten; QG_E_AGAIN the same, and it is OFFERED; QG_E_EXISTS
 * anything else. */
qg_err qg_transfer_compare(qg_transfers *t, const qg_transfer_plan *plan) QG_CHECKED;

/* Whether (initiator, id) is known as a key of another origin: it went round. */
bool qg_transfer_from_elsewhere(qg_transfers *t, const char *origin, const char *initiator, const qg_uuid *id);

/* A key being made void because its origin says so. */
typedef struct qg_transfer_revocation qg_transfer_revocation;

typedef enum qg_revoked {
	QG_REVOKED_VOID,      /* no target has it, none will */
	QG_REVOKED_DELIVERED, /* a target has it; the others will not */
	QG_REVOKED_PENDING,   /* no target here will have it, homes are yet to be told */
	QG_REVOKED_OFFERED,   /* it is being brought on: nothing was changed, that has to end first */
	QG_REVOKED_OTHER      /* it is not of that origin: nothing was changed */
} qg_revoked;

/* Begins it. Where the ID is not known, with `plant` a tombstone is made (kept
 * until expiry_ms, far end's clock, and as long as retries may come), else it
 * is QG_REVOKED_OTHER. */
qg_err qg_transfer_revoke_new(qg_transfers *t, const char *origin, const char *initiator, const qg_uuid *id,
			      uint64_t expiry_ms, bool plant, qg_transfer_revocation **out) QG_CHECKED;
/* The origin is a peer that is to be told the outcome where homes are asked
 * first (QG_REVOKED_PENDING). Before _store. QG_E_NOMEM; QG_E_AGAIN: it is about
 * to end, begin again. */
qg_err qg_transfer_revoke_owe(qg_transfers *t, qg_transfer_revocation *r) QG_CHECKED;
/* What it is going to be, as far as that is known before the job. */
qg_revoked qg_transfer_revoke_what(const qg_transfer_revocation *r);
/* job. QG_E_EXISTS: it came to be known meanwhile; begin again. */
qg_err qg_transfer_revoke_store(qg_transfer_revocation *r, qg_store *store) QG_CHECKED;
/* Ends it. The outcome counts with QG_OK only. Takes *r. */
qg_revoked qg_transfer_revoke_end(qg_transfers *t, qg_transfer_revocation **r, qg_err committed);

/* --- deliveries ---------------------------------------------------------------------- */

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
/* Copies the value (size bytes) out of the sealed blob; call before _store, so that what
 * there is no memory for (QG_E_NOMEM) is not delivered. Any thread. */
qg_err qg_transfer_claim_value(qg_transfer_claim *c, uint8_t *out) QG_CHECKED;
/* Ends the claim: QG_OK delivered; QG_E_CLOSED given up, the target is as
 * before; any other error: the outcome is unknown, so it counts as delivered.
 * Takes *c. */
void qg_transfer_claim_end(qg_transfers *t, qg_transfer_claim **c, qg_err committed);

/* Whether the ID is known with another initiator or target: 401 instead of
 * 400. */
bool qg_transfer_known(qg_transfers *t, const qg_uuid *id);

/* Queues the deletion of records whose time has passed with the committer, and
 * returns how many; forgets values that nobody can be given any more. now_ms by
 * the owner's clock. */
size_t qg_transfers_expire(qg_transfers *t, qg_committer *c, uint64_t now_ms);

/* A record for operators: never its value. Texts are cut where they are longer. */
#define QG_TRANSFER_TARGETS_SHOWN 66
typedef struct qg_transfer_view {
	int64_t row;           /* in the order of their making */
	qg_uuid id;
	const char *state;     /* fixed text */
	char initiator[257];
	char origin[97];       /* "": issued here */
	uint32_t size_bytes;
	bool has_value;        /* key is still kept here */
	uint64_t age_ms;       /* since it was made, or the gateway started */
	uint64_t left_ms;      /* until it expires */
	size_t n_targets;      /* of them at most QG_TRANSFER_TARGETS_SHOWN are shown */
	struct {
		char sae[257], home[97]; /* home "": this node */
		const char *state;
	} target[QG_TRANSFER_TARGETS_SHOWN];
} qg_transfer_view;

/* The first `most` records whose row is above `after`, in the order of their rows;
 * returns how many. now_ms is the owner's lifetime clock. Any thread. */
size_t qg_transfers_list(qg_transfers *t, int64_t after, uint64_t now_ms, qg_transfer_view *out, size_t most);

size_t qg_transfers_count(qg_transfers *t);
/* Of them, those that are more than a tombstone; and the tombstones of one origin. */
size_t qg_transfers_keys(qg_transfers *t);
size_t qg_transfers_stones(qg_transfers *t, const char *origin);

/* The oldest generation (seal.h) that a value still to be delivered is sealed
 * under: it must not be destroyed yet. UINT32_MAX when there is none. */
uint32_t qg_transfers_oldest_generation(qg_transfers *t);

#endif
