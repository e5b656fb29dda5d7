/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "multicast_internal.h"
#include "qkdgate/clock.h"
#include "transfer_internal.h"

/* Requests whose keys another KME brought and that go on: they are as durable as
 * their records, are waited for, and stop and start with the gateway. */

static qg_err
adopt_targets(qg_mc *op, const qg_transfer *first)
{
	qg_transfer_to *to = calloc(first->n_targets, sizeof *to);
	if (to == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < first->n_targets; i++)
		to[i] = (qg_transfer_to){.sae = first->targets[i].sae, .home = first->targets[i].home};
	const qg_err err = qg_mc_add_targets(op, first->initiator, to, first->n_targets);
	free(to);
	return err;
}

/* The targets at a peer that said so before. */
static bool
was_relayed(const qg_transfer *x, const char *home)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (x->targets[i].home != NULL && strcmp(x->targets[i].home, home) == 0 &&
		    x->targets[i].state != QG_TARGET_RELAYED)
			return false;
	return true;
}

static void
adopt_relayed(qg_mc *op)
{
	for (size_t i = 0; i < op->n_parts; i++) {
		qg_mc_part *p = op->part[i];
		for (uint32_t k = 0; p->peer != NULL && k < op->number; k++) {
			p->got[k] = was_relayed(op->x[k], p->m.to);
			p->held += p->got[k];
			p->taken += p->got[k] && p->taken == k;
		}
	}
}

/* A peer may ask for less time than this node would take. */
uint64_t
qg_mc_deadline(const qg_mc *op, uint32_t wait_ms)
{
	uint32_t most_ms = wait_ms;
	for (size_t i = 0; i < op->n_parts; i++)
		if (op->part[i]->peer != NULL && op->part[i]->peer->ack_timeout_ms < most_ms)
			most_ms = op->part[i]->peer->ack_timeout_ms;
	return qg_clock_elapsed_ms() + most_ms;
}

qg_err
qg_mc_adopt(struct qg_core *core, const char *origin, bool tell, uint32_t wait_ms, qg_transfer *const *x, uint32_t n,
	    const uint8_t *values, qg_mc **out)
{
	qg_mc *op = calloc(1, sizeof *op);
	if (op == NULL)
		return QG_E_NOMEM;
	op->core = core;
	op->request = qg_request_id_now();
	op->max_hops = UINT32_MAX;
	qg_err err = qg_mc_room(op, n, x[0]->n_targets);
	if (err == QG_OK)
		err = qg_ix_from_new(core, origin, tell, &op->from);
	for (uint32_t i = 0; err == QG_OK && i < n; i++) {
		op->ids[i] = x[i]->id;
		op->x[i] = x[i];
		op->size[i] = x[i]->size_bytes;
		op->at[i + 1] = op->at[i] + x[i]->size_bytes;
	}
	if (err == QG_OK)
		err = qg_secret_new(op->at[n], &op->keys);
	if (err == QG_OK)
		err = qg_secret_append(op->keys, values, op->at[n]);
	if (err == QG_OK)
		err = adopt_targets(op, x[0]);
	if (err != QG_OK) {
		qg_mc_free(op);
		return err;
	}
	op->n_x = n;
	adopt_relayed(op);
	op->deadline_ms = qg_mc_deadline(op, wait_ms);
	*out = op;
	return QG_OK;
}

void
qg_mc_drop(qg_mc **op)
{
	if (*op != NULL)
		qg_mc_free(*op);
	*op = NULL;
}

/* What is durable goes on after the next start. */
static void
suspend(qg_mc *op)
{
	struct qg_core *core = op->core;
	qg_mc_mark(op, NULL);
	for (uint32_t i = 0; i < op->n_x; i++)
		qg_transfer_void_stored(core->transfers, op->x[i]); /* unpins it */
	op->n_x = 0;
	qg_mc_end(op, QG_IX_STOPPED);
}

void
qg_mc_stop(qg_mc *op)
{
	if (op->from == NULL) {
		qg_mc_fail(op, QG_MC_SENDING, "the gateway stops", NULL);
		return;
	}
	pthread_mutex_lock(&op->core->multicast->lock);
	const bool mine = op->phase == QG_MC_SENDING;
	if (mine)
		op->phase = QG_MC_ENDED;
	pthread_mutex_unlock(&op->core->multicast->lock);
	if (mine)
		suspend(op);
}

/* With a flight of its own until it stands: all of it may be held already. */
void
qg_mc_start(qg_mc *op)
{
	struct qg_multicast *mc = op->core->multicast;
	qg_mc_mark(op, op);
	pthread_mutex_lock(&mc->lock);
	op->phase = QG_MC_SENDING;
	op->flights++;
	op->next = mc->ops;
	mc->ops = op;
	const bool stopping = mc->stopping;
	pthread_mutex_unlock(&mc->lock);
	if (stopping)
		qg_mc_stop(op);
	qg_mc_let(op);
}

void
qg_mc_start_waited(qg_mc *op, qg_ix_waiter *w)
{
	qg_ix_from_wait(op->from, w);
	qg_mc_start(op);
}

/* Under the lock. */
static qg_mc *
op_of(struct qg_core *core, const char *initiator, const qg_uuid *id)
{
	pthread_mutex_lock(&core->transfers->lock);
	const qg_transfer *x = qg_transfer_find(core->transfers, initiator, id);
	qg_mc *op = x != NULL ? x->op : NULL;
	pthread_mutex_unlock(&core->transfers->lock);
	return op;
}

bool
qg_mc_wait(struct qg_core *core, const char *initiator, const qg_uuid *id, qg_ix_waiter *w)
{
	struct qg_multicast *mc = core->multicast;
	pthread_mutex_lock(&mc->lock);
	qg_mc *op = op_of(core, initiator, id);
	const bool waits = op != NULL && op->from != NULL && op->phase != QG_MC_ENDED && !mc->stopping;
	if (waits)
		qg_ix_from_wait(op->from, w);
	pthread_mutex_unlock(&mc->lock);
	if (waits)
		qg_conductor_kick(core);
	return waits;
}

void
qg_mc_end_of(struct qg_core *core, const char *initiator, const qg_uuid *id, const char *why, const char *home)
{
	struct qg_multicast *mc = core->multicast;
	pthread_mutex_lock(&mc->lock);
	qg_mc *op = op_of(core, initiator, id);
	if (op != NULL)
		op->flights++;
	pthread_mutex_unlock(&mc->lock);
	if (op == NULL)
		return;
	qg_mc_fail(op, QG_MC_SENDING, why, home);
	qg_mc_let(op);
}

void
qg_multicast_fail_all(struct qg_core *core, const char *why)
{
	struct qg_multicast *mc = core->multicast;
	for (;;) {
		pthread_mutex_lock(&mc->lock);
		qg_mc *op = mc->ops;
		while (op != NULL && op->phase != QG_MC_SENDING)
			op = op->next;
		if (op != NULL)
			op->flights++;
		pthread_mutex_unlock(&mc->lock);
		if (op == NULL)
			return;
		qg_mc_fail(op, QG_MC_SENDING, why, NULL);
		qg_mc_let(op);
	}
}

uint64_t
qg_mc_outstanding(struct qg_core *core, const char *origin)
{
	struct qg_multicast *mc = core->multicast;
	uint64_t n = 0;
	pthread_mutex_lock(&mc->lock);
	for (const qg_mc *op = mc->ops; op != NULL; op = op->next)
		if (op->from != NULL && strcmp(op->from->name, origin) == 0)
			n += op->number;
	pthread_mutex_unlock(&mc->lock);
	return n;
}
