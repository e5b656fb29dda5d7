/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "multicast_internal.h"
#include "qkdgate/log.h"
#include "transfer_internal.h"

/* Acks of a peer: of keys that it was given, and of voids (SOUNDNESS 18). All
 * containers of a request are taken, or none. That a key is relayed is durable
 * before the peer is answered. */

#define ACKS_MAX 1024 /* containers of one request */

/* A key that is relayed, of a request under way. */
typedef struct relayed {
	qg_mc *op;         /* held */
	qg_mc_part *part;
	qg_transfer *x;    /* pinned */
	uint32_t at;
} relayed;

typedef struct acks_in {
	qg_job job; /* first member */
	struct qg_core *core;
	const char *home; /* of the directory */
	qg_interop_answer *answer;
	void *ctx;
	size_t n;
	relayed r[];
} acks_in;

/* --- looking ---------------------------------------------------------------------- */

/* What an ack for one key comes to. */
typedef enum verdict {
	ACK_NOTHING, /* known already, or it changes nothing */
	ACK_TAKE,
	ACK_ABSENT,
	ACK_LATER    /* a request for it is just ending */
} verdict;

static bool
is_final(qg_transfer_state state)
{
	return state == QG_TRANSFER_HELD || state == QG_TRANSFER_RELEASED;
}

/* Of voids, that we asked for or that went the other way. */
static verdict
judge_void_ack(const qg_transfer *x)
{
	return x->state == QG_TRANSFER_VOIDING || x->state == QG_TRANSFER_OFFERED ? ACK_TAKE : ACK_NOTHING;
}

/* Under both locks. A target set that is not ours is no ack of ours. */
static verdict
judge_key(const acks_in *in, const qg_interop_ack *ack, const qg_transfer *x)
{
	if (x == NULL)
		return ACK_ABSENT;
	if (x->origin != NULL && strcmp(x->origin, in->home) == 0)
		return ack->status == QG_INTEROP_RELAYED || ack->status == QG_INTEROP_FAILED ? ACK_ABSENT
											       : ACK_NOTHING;
	if (!qg_transfer_is_for(x, in->home, ack->saes.targets, ack->saes.n_targets))
		return ACK_ABSENT;
	if (ack->status != QG_INTEROP_RELAYED)
		return judge_void_ack(x);
	if (is_final(x->state))
		return ACK_NOTHING;
	if (x->state != QG_TRANSFER_OFFERED)
		return ACK_ABSENT;
	return x->op != NULL ? ACK_TAKE : ACK_LATER;
}

static void
hold(acks_in *in, qg_transfer *x)
{
	qg_mc *op = x->op;
	qg_mc_hold(op);
	x->pins++;
	in->r[in->n++] = (relayed){
		.op = op, .part = qg_mc_part_of(op, in->home), .x = x, .at = x->op_at};
}

/* Finds and holds what is relayed. */
static verdict
look_all(acks_in *in, const qg_interop_ack *ack, size_t n)
{
	struct qg_core *core = in->core;
	verdict worst = ACK_NOTHING;
	pthread_mutex_lock(&core->multicast->lock);
	pthread_mutex_lock(&core->transfers->lock);
	for (size_t i = 0; i < n && worst < ACK_ABSENT; i++) {
		for (size_t k = 0; k < ack[i].n_ids && worst < ACK_ABSENT; k++) {
			qg_transfer *x =
				qg_transfer_find(core->transfers, ack[i].saes.initiator, &ack[i].ids[k]);
			const verdict v = judge_key(in, &ack[i], x);
			if (v == ACK_TAKE && ack[i].status == QG_INTEROP_RELAYED)
				hold(in, x);
			worst = v > worst ? v : worst;
		}
	}
	pthread_mutex_unlock(&core->transfers->lock);
	pthread_mutex_unlock(&core->multicast->lock);
	return worst;
}

/* --- taking ----------------------------------------------------------------------------- */

static void
let_all(acks_in *in, bool got)
{
	struct qg_core *core = in->core;
	for (size_t i = 0; i < in->n; i++) {
		relayed *r = &in->r[i];
		if (got && r->part != NULL)
			qg_mc_part_got(r->part, &r->at, 1);
		qg_transfer_void_stored(core->transfers, r->x); /* unpins it */
		qg_mc_let(r->op);
	}
	in->n = 0;
}

static void
finish(acks_in *in, qg_interop_result result, const char *why)
{
	in->answer(in->ctx, &(qg_interop_reply){.result = result, .why = why});
	free(in);
}

/* What is void or failed at the peer. */
static void
take_others(const acks_in *in, const qg_interop_ack *ack)
{
	if (ack->status == QG_INTEROP_RELAYED)
		return;
	if (ack->status != QG_INTEROP_FAILED_TO_VOID)
		for (size_t k = 0; k < ack->n_ids; k++)
			qg_mc_end_of(in->core, ack->saes.initiator, &ack->ids[k],
				     "the other network has not relayed it", in->home);
	qg_ix_heard(in->core, in->home, ack);
}

static qg_err
acks_run(qg_job *job, qg_store *store)
{
	const acks_in *in = (const acks_in *)job;
	for (size_t i = 0; i < in->n; i++) {
		const qg_transfer *x = in->r[i].x;
		for (size_t k = 0; k < x->n_targets; k++) {
			if (x->targets[k].home == NULL || strcmp(x->targets[k].home, in->home) != 0)
				continue;
			const qg_err err = store->ops->target_state(store, x->row, x->targets[k].sae,
								     QG_TARGET_PENDING, QG_TARGET_RELAYED);
			if (err != QG_OK && err != QG_E_STATE)
				return err;
		}
	}
	return QG_OK;
}

static void
acks_done(qg_job *job, qg_err err)
{
	acks_in *in = (acks_in *)job;
	let_all(in, err == QG_OK);
	if (err == QG_OK)
		finish(in, QG_INTEROP_ACCEPTED, "");
	else
		finish(in, QG_INTEROP_UNAVAILABLE, "the database refuses");
}

static void
take(acks_in *in, const qg_interop_ack *ack, size_t n)
{
	for (size_t i = 0; i < n; i++)
		take_others(in, &ack[i]);
	qg_conductor_kick(in->core);
	if (in->n == 0) {
		finish(in, QG_INTEROP_ACCEPTED, "");
		return;
	}
	in->job.run = acks_run;
	in->job.done = acks_done;
	qg_committer_submit(in->core->committer, &in->job);
}

static size_t
count_ids(const qg_interop_ack *ack, size_t n)
{
	size_t ids = 0;
	for (size_t i = 0; i < n; i++) {
		if (ack[i].n_ids == 0 || ack[i].n_ids > QG_INTEROP_KEYS_MAX || ack[i].saes.n_targets == 0)
			return 0;
		ids += ack[i].n_ids;
	}
	return ids;
}

void
qg_interop_receive_acks(qg_interop *ip, const char *peer, const qg_interop_ack *ack, size_t n,
			qg_interop_answer *answer, void *ctx)
{
	struct qg_core *core = ip->core;
	const char *home = qg_directory_peer_home(core->part.directory, peer);
	const size_t ids = n <= ACKS_MAX ? count_ids(ack, n) : 0;
	acks_in *in = home != NULL && ids > 0 ? calloc(1, sizeof *in + ids * sizeof in->r[0]) : NULL;
	if (in == NULL) {
		const qg_interop_result r = home == NULL ? QG_INTEROP_DENIED
					    : ids == 0	 ? QG_INTEROP_MALFORMED
							 : QG_INTEROP_UNAVAILABLE;
		answer(ctx, &(qg_interop_reply){.result = r, .why = "no such peer, no key, or no memory"});
		return;
	}
	in->core = core;
	in->home = home;
	in->answer = answer;
	in->ctx = ctx;
	const verdict v = look_all(in, ack, n);
	if (v < ACK_ABSENT) {
		take(in, ack, n);
		return;
	}
	let_all(in, false);
	if (v == ACK_ABSENT)
		finish(in, QG_INTEROP_ABSENT, "a key is not known as one that was given to this peer");
	else
		finish(in, QG_INTEROP_UNAVAILABLE, "a key is just being decided");
}
