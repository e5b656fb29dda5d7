/* SPDX-License-Identifier: Apache-2.0 */
/* Deliveries to targets (SOUNDNESS 10 and 18). */
#include <stdlib.h>
#include <string.h>

#include "transfer_internal.h"

struct qg_transfer_claim {
	qg_transfers *owner;
	qg_transfer *record;
	target *target;
	qg_target_state was; /* when it was claimed: what is void since is not delivered */
	bool forgot; /* the job took the value out of the store */
};

static target *
find_target(qg_transfer *x, const char *sae)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (strcmp(x->targets[i].sae, sae) == 0)
			return &x->targets[i];
	return NULL;
}

/* SOUNDNESS 18: what is not held yet is not there, what has left is gone. */
static qg_err
may_claim(const qg_transfers *t, const qg_transfer *x, const target *tg, uint64_t now_ms)
{
	if (x->state == QG_TRANSFER_PREPARED || x->state == QG_TRANSFER_OFFERED)
		return QG_E_NOTFOUND;
	if (x->state != QG_TRANSFER_HELD && x->state != QG_TRANSFER_RELEASED)
		return QG_E_CONSUMED;
	if (!qg_transfer_is_open(tg))
		return QG_E_CONSUMED;
	if (tg->claimed) /* not yet consumed: its outcome decides (SOUNDNESS 10) */
		return QG_E_AGAIN;
	if (x->sealed == NULL || x->purging != QG_PURGE_NOT || x->expiry_ms <= qg_transfer_clock(t, x, now_ms))
		return QG_E_CONSUMED;
	return QG_OK;
}

static qg_err
claim_locked(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *sae, uint64_t now_ms,
	     qg_transfer_claim *c)
{
	qg_transfer *x = qg_transfer_find(t, initiator, id);
	target *tg = x == NULL ? NULL : find_target(x, sae);
	if (tg == NULL)
		return QG_E_NOTFOUND;
	const qg_err err = may_claim(t, x, tg, now_ms);
	if (err != QG_OK)
		return err;
	tg->claimed = true;
	x->claims++;
	*c = (qg_transfer_claim){.owner = t, .record = x, .target = tg, .was = tg->state};
	return QG_OK;
}

qg_err
qg_transfer_claim_new(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *target_sae,
		      uint64_t now_ms, qg_transfer_claim **out)
{
	qg_transfer_claim *c = malloc(sizeof *c);
	if (c == NULL)
		return QG_E_NOMEM;
	pthread_mutex_lock(&t->lock);
	const qg_err err = claim_locked(t, initiator, id, target_sae, now_ms, c);
	pthread_mutex_unlock(&t->lock);
	if (err == QG_OK)
		*out = c;
	else
		free(c);
	return err;
}

uint32_t
qg_transfer_claim_size(const qg_transfer_claim *c)
{
	return c->record->size_bytes;
}

/* Whether the claim's target is the last one. Two claims of one group of jobs
 * both say no, because neither's outcome is known yet; the housekeeping then
 * forgets the value. */
static bool
is_last(const qg_transfer_claim *c)
{
	bool last = true;
	pthread_mutex_lock(&c->owner->lock);
	for (size_t i = 0; i < c->record->n_targets; i++) {
		const target *other = &c->record->targets[i];
		last = last && (other == c->target || !qg_transfer_is_open(other));
	}
	pthread_mutex_unlock(&c->owner->lock);
	return last;
}

qg_err
qg_transfer_claim_store(qg_transfer_claim *c, qg_store *store)
{
	const qg_transfer *x = c->record;
	c->forgot = false;
	qg_err err = store->ops->target_state(store, x->row, c->target->sae, c->was, QG_TARGET_DELIVERED);
	if (err != QG_OK)
		return err == QG_E_STATE ? QG_E_CONSUMED : err;
	if (!is_last(c))
		return QG_OK;
	err = store->ops->transfer_unseal(store, x->row);
	c->forgot = err == QG_OK;
	return err;
}

qg_err
qg_transfer_claim_value(qg_transfer_claim *c, uint8_t *out)
{
	return qg_transfer_value(c->owner, c->record, out);
}

void
qg_transfer_claim_end(qg_transfers *t, qg_transfer_claim **c, qg_err committed)
{
	if (c == NULL || *c == NULL)
		return;
	qg_transfer *x = (*c)->record;
	target *tg = (*c)->target;
	pthread_mutex_lock(&t->lock);
	tg->claimed = false;
	x->claims--;
	if (committed != QG_E_CLOSED)
		tg->state = QG_TARGET_DELIVERED;
	if (committed == QG_OK && (*c)->forgot)
		x->value_stored = false;
	if (qg_transfer_is_spent(x) && x->claims == 0)
		qg_transfer_drop_value(x);
	pthread_mutex_unlock(&t->lock);
	free(*c);
	*c = NULL;
}
