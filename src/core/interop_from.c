/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "multicast_internal.h"
#include "transfer_internal.h"

/* Requests whose keys another KME brought: who waits for their end, and the ack
 * that is written with it. */

qg_err
qg_ix_from_new(struct qg_core *core, const char *name, bool tell, qg_ix_from **out)
{
	(void)core;
	qg_ix_from *f = calloc(1, sizeof *f);
	if (f == NULL)
		return QG_E_NOMEM;
	const int n = snprintf(f->name, sizeof f->name, "%s", name);
	if (n < 0 || (size_t)n >= sizeof f->name) {
		free(f);
		return QG_E_RANGE;
	}
	f->tell = tell && qg_transfer_is_peer(name);
	*out = f;
	return QG_OK;
}

void
qg_ix_from_free(qg_ix_from **f)
{
	free(*f);
	*f = NULL;
}

void
qg_ix_from_wait(qg_ix_from *f, qg_ix_waiter *w)
{
	w->next = f->waiters;
	f->waiters = w;
}

qg_ix_waiter *
qg_ix_from_waiters(qg_ix_from *f)
{
	qg_ix_waiter *list = f != NULL ? f->waiters : NULL;
	if (f != NULL)
		f->waiters = NULL;
	return list;
}

void
qg_ix_from_late(qg_ix_from *f, uint64_t now_ms, qg_ix_waiter **late, uint64_t *next_ms)
{
	for (qg_ix_waiter **at = &f->waiters, *w; (w = *at) != NULL;) {
		if (w->due_ms > now_ms) {
			*next_ms = w->due_ms < *next_ms ? w->due_ms : *next_ms;
			at = &w->next;
			continue;
		}
		*at = w->next;
		w->next = *late;
		*late = w;
	}
}

void
qg_ix_run_waiters(qg_ix_waiter *list, qg_ix_end how)
{
	for (qg_ix_waiter *w = list, *next; w != NULL; w = next) {
		next = w->next;
		w->ended(w, how);
	}
}

/* May be run twice. */
qg_err
qg_ix_from_store(qg_mc *op, qg_store *store, qg_interop_status status)
{
	qg_ix_from *f = op->from;
	if (f == NULL || !f->tell)
		return QG_OK;
	const qg_transfer *x = op->x[0];
	const char *targets[QG_KMS_SAES_MAX];
	size_t n = 0;
	for (; n < x->n_targets && n < QG_KMS_SAES_MAX; n++)
		targets[n] = x->targets[n].sae;
	qg_ix_telling_added(op->core, &f->telling, QG_E_CLOSED);
	qg_err err = qg_ix_telling_new(op->core, f->name, status, x->initiator, targets, n, op->ids, op->number,
				       &f->telling);
	if (err == QG_OK)
		err = qg_ix_telling_store(f->telling, store);
	return err == QG_E_NOTFOUND ? QG_OK : err;
}

void
qg_ix_from_stored(qg_mc *op, qg_err err)
{
	if (op->from != NULL)
		qg_ix_telling_added(op->core, &op->from->telling, err);
}
