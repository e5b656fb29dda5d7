/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_INTEROP_INTERNAL_H
#define QKDGATE_INTEROP_INTERNAL_H

#include "core_internal.h"
#include "qkdgate/interop.h"
#include "records_internal.h"
#include "relay_internal.h"

/* Keys between networks (ETSI GS QKD 020; SOUNDNESS 14, 18; docs/storage.md).
 * A key that a peer brings, or that a node of ours brings for a peer, is a
 * record like any other that goes on (transfer.h); the request that brings it on
 * is multicast.c's. Here is what comes of that towards peers:
 *
 * interop_keys.c: ext_keys of a peer. interop_acks.c: acks of a peer.
 * interop_void.c: void of a peer. interop_tell.c: what peers are told until they
 * answer (acks of ours, voids of what they brought). interop_ask.c: voids of what
 * they were given. interop_mask.c: values under node key. interop_from.c: who
 * waits for a request. interop_resume.c: what a start takes up again. */

#define QG_IX_NAME_MAX (QG_KMS_NAME_MAX + 1)

/* The peer whose home (of the directory) that is, or NULL. */
const qg_config_peer *qg_ix_peer(const struct qg_core *core, const char *home);
/* The neighbour that is the peer's gateway too, where its link has a stream of
 * its own; NULL. */
const char *qg_ix_neighbour(const struct qg_core *core, const qg_config_peer *peer);

qg_err qg_interop_open(struct qg_core *core) QG_CHECKED; /* before the conductor, after the committer */
void qg_interop_close(struct qg_core *core);
/* What is due; returns when something is next. By the conductor. */
uint64_t qg_interop_step(struct qg_core *core, uint64_t now_ms);
/* The gateway stops: who waits is answered. */
void qg_interop_wind_down(struct qg_core *core);

/* --- interop_from.c --------------------------------------------------------------- */

typedef enum qg_ix_end {
	QG_IX_HELD,
	QG_IX_FAILED,
	QG_IX_LATE,   /* w->due_ms came first */
	QG_IX_STOPPED /* the gateway stops; the records stay */
} qg_ix_end;

typedef struct qg_ix_waiter {
	struct qg_ix_waiter *next;
	uint64_t due_ms;
	void (*ended)(struct qg_ix_waiter *w, qg_ix_end how); /* without locks */
} qg_ix_waiter;

struct qg_ix_telling;

/* Who brought the keys of a request, and who waits for it. */
typedef struct qg_ix_from {
	char name[QG_KMS_NAME_MAX + 16]; /* as the records' origin */
	bool tell;                       /* a peer that wants acks */
	qg_ix_waiter *waiters;           /* under the lock of multicast.c */
	struct qg_ix_telling *telling;   /* of the job that ends it */
} qg_ix_from;

qg_err qg_ix_from_new(struct qg_core *core, const char *name, bool tell, qg_ix_from **out) QG_CHECKED;
void qg_ix_from_free(qg_ix_from **f);
void qg_ix_from_wait(qg_ix_from *f, qg_ix_waiter *w);
qg_ix_waiter *qg_ix_from_waiters(qg_ix_from *f) QG_CHECKED; /* takes them; NULL for NULL */
void qg_ix_from_late(qg_ix_from *f, uint64_t now_ms, qg_ix_waiter **late, uint64_t *next_ms);
void qg_ix_run_waiters(qg_ix_waiter *list, qg_ix_end how);
/* In the job that ends a request, and after it. Nothing for a master here. */
qg_err qg_ix_from_store(qg_mc *op, qg_store *store, qg_interop_status status) QG_CHECKED;
void qg_ix_from_stored(qg_mc *op, qg_err err);

/* --- interop_tell.c ------------------------------------------------------------------ */

#define QG_IX_TELL_VOID 5 /* beside the values of qg_interop_status */

typedef struct qg_ix_telling qg_ix_telling;

/* home: of the peer, as of the directory. QG_E_NOTFOUND: there is no such peer (any more). */
qg_err qg_ix_telling_new(struct qg_core *core, const char *home, unsigned what, const char *initiator,
			 const char *const *targets, size_t n_targets, const qg_uuid *ids, size_t n,
			 qg_ix_telling **out) QG_CHECKED;
qg_err qg_ix_telling_store(qg_ix_telling *t, qg_store *store) QG_CHECKED; /* job */
/* After the commit: takes *t. */
void qg_ix_telling_added(struct qg_core *core, qg_ix_telling **t, qg_err committed);

qg_err qg_ix_tellings_load(struct qg_core *core) QG_CHECKED;
void qg_ix_tellings_free(struct qg_core *core);
uint64_t qg_ix_tell(struct qg_core *core, uint64_t now_ms);
size_t qg_ix_tellings(struct qg_core *core);

/* --- interop_void.c ------------------------------------------------------------------- */

/* Keys whose ack a peer never took become void here (no target that has not got
 * it will), and the peer is told so unless it does not know them. */
void qg_ix_recall(struct qg_core *core, const qg_config_peer *peer, const qg_interop_void *m, bool tell);
qg_err qg_ix_voids_new(struct qg_core *core) QG_CHECKED;
void qg_ix_voids_free(struct qg_core *core);
void qg_ix_voids_stop(struct qg_core *core);
uint64_t qg_ix_voids_step(struct qg_core *core, uint64_t now_ms);

/* --- interop_ask.c ---------------------------------------------------------------------- */

/* void of keys that a peer was given. Takes *v. */
void qg_ix_ask(struct qg_core *core, qg_transfer_void **v, uint64_t now_ms);
/* What a peer said of keys being voided. */
void qg_ix_heard(struct qg_core *core, const char *home, const qg_interop_ack *ack);

/* --- interop_resume.c ------------------------------------------------------------------- */

qg_err qg_ix_resume(struct qg_core *core) QG_CHECKED;

/* --- interop_mask.c ---------------------------------------------------------------------- */

/* Masks the values (one after the other, in place) for a peer whose link has a
 * stream; m->mask is set to *mask. QG_E_EMPTY: no node key just now. *use is
 * settled by qg_masked_settle with *link. */
#define QG_IX_MASKED_KEYS 512
qg_err qg_ix_mask(struct qg_core *core, const qg_config_peer *peer, qg_interop_keys *m, uint8_t *values, size_t len,
		  qg_interop_mask *mask, qg_stream **link, qg_pad_use *use) QG_CHECKED;
/* Unmasks in place. As of qg_masked_open. */
qg_err qg_ix_unmask(struct qg_core *core, const qg_config_peer *peer, const qg_interop_keys *m, uint8_t *values,
		    size_t len, qg_waiter *w) QG_CHECKED;

/* --- multicast_receive.c -------------------------------------------------------------------- */

/* An ID that this node issued itself stands for a key of its own (SOUNDNESS 14). */
bool qg_issued_here(struct qg_core *core, const qg_uuid *id);

#endif
