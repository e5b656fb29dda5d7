/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_RECORDS_INTERNAL_H
#define QKDGATE_RECORDS_INTERNAL_H

#include "core_internal.h"

/* Keys with IDs of their own (DESIGN, idea 5; SOUNDNESS 18): keystore_records.c
 * for targets on this node, multicast.c where some live on others: prepared
 * durably here, brought to every home by make_keys_external (multicast_part.c),
 * and released when all of them hold it; else void everywhere
 * (multicast_void.c). multicast_receive.c and multicast_delete.c are the
 * other side. */

/* Whether the additional slaves of a request can be served at all, before any
 * key is taken. QG_E_NOTFOUND no stream of ours with node key to a home;
 * QG_E_STATE not with so few hops; QG_E_RANGE more than that stream ever has;
 * QG_E_EMPTY no room for records. */
qg_err qg_records_check(struct qg_core *core, const qg_issue_request *req) QG_CHECKED;

/* Stores the keys for the additional slaves (and, with_slave, for the slave),
 * then answers; takes *keys. The request must live until done, ids for the
 * call. */
void qg_records_issue(struct qg_core *core, const qg_issue_request *req, bool with_slave, const qg_uuid *ids,
		      qg_secret **keys, qg_issue_done *done, void *ctx);

/* A pair on this node: draws keys and IDs at random. ids has room for
 * req->number. */
void qg_records_draw(struct qg_core *core, const qg_issue_request *req, qg_uuid *ids, qg_issue_done *done, void *ctx);

/* --- multicast.c -------------------------------------------------------------- */

qg_err qg_multicast_new(struct qg_core *core) QG_CHECKED; /* sets core->multicast */
void qg_multicast_free(struct qg_core *core);

/* The stream whose node key masks what goes to a home; NULL: none. */
qg_stream *qg_multicast_link(struct qg_core *core, const char *home, uint32_t max_hops);

/* Keys that another KME brought and that go on: a request that already is as
 * durable as its records, which are pinned and OFFERED. values: one after the
 * other, copied. Dropped before it was started, it leaves the records alone. */
typedef struct qg_mc qg_mc;
struct qg_ix_waiter;
qg_err qg_mc_adopt(struct qg_core *core, const char *origin, bool tell, uint32_t wait_ms, qg_transfer *const *x,
		   uint32_t n, const uint8_t *values, qg_mc **out) QG_CHECKED;
void qg_mc_start(qg_mc *op);
void qg_mc_start_waited(qg_mc *op, struct qg_ix_waiter *w);
void qg_mc_drop(qg_mc **op);

/* Calls w once when the request that brings this key on ends, or at w->due_ms.
 * False: there is none, w is not called. */
bool qg_mc_wait(struct qg_core *core, const char *initiator, const qg_uuid *id, struct qg_ix_waiter *w);
/* Such a request fails: all of its keys become void. home: as of the configuration, or NULL. */
void qg_mc_end_of(struct qg_core *core, const char *initiator, const qg_uuid *id, const char *why, const char *home);
/* Keys of an origin that are being brought on. */
uint64_t qg_mc_outstanding(struct qg_core *core, const char *origin);

/* As qg_records_issue, with targets of which some live elsewhere. */
void qg_multicast_issue(struct qg_core *core, const qg_issue_request *req, const qg_transfer_to *to, size_t n_to,
			const qg_uuid *ids, qg_secret **keys, qg_issue_done *done, void *ctx);

/* Sends what is due, ends what took too long, tells what is void. By the
 * conductor, without locks. Returns when something is due next. */
uint64_t qg_multicast_step(struct qg_core *core, uint64_t now_ms);

/* Every request under way fails: the store is an old one (SOUNDNESS 9). */
void qg_multicast_fail_all(struct qg_core *core, const char *why);

/* The gateway stops: what is under way becomes void and is answered. */
void qg_multicast_wind_down(struct qg_core *core);

/* --- multicast_void.c ------------------------------------------------------------ */

uint64_t qg_multicast_tell_voids(struct qg_core *core, uint64_t now_ms);

#endif
