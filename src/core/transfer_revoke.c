/* SPDX-License-Identifier: Apache-2.0 */
/* Keys that another node brought: known again when they come twice, and void
 * when it says so (SOUNDNESS 18). */
#include <stdlib.h>
#include <string.h>

#include "transfer_internal.h"

#define TARGETS_MAX 64 /* of a key that another node brings */

/* --- the same key again ------------------------------------------------------------ */

static bool
same_origin(const char *a, const char *b)
{
	return a != NULL && b != NULL ? strcmp(a, b) == 0 : a == b;
}

static bool
is_target(const qg_transfer *x, const char *home, const char *sae)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (strcmp(x->targets[i].sae, sae) == 0 &&
		    (home == NULL || (x->targets[i].home != NULL && strcmp(x->targets[i].home, home) == 0)))
			return true;
	return false;
}

static size_t
targets_at(const qg_transfer *x, const char *home)
{
	size_t n = 0;
	for (size_t i = 0; i < x->n_targets; i++)
		n += home == NULL ||
		     (x->targets[i].home != NULL && strcmp(x->targets[i].home, home) == 0);
	return n;
}

/* Neither side names one twice. */
bool
qg_transfer_is_for(const qg_transfer *x, const char *home, const char *const *targets, size_t n)
{
	if (targets_at(x, home) != n)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!is_target(x, home, targets[i]))
			return false;
	return true;
}

static bool
same_targets(const qg_transfer *x, const qg_transfer_plan *plan)
{
	if (x->n_targets != plan->n_to)
		return false;
	for (size_t i = 0; i < plan->n_to; i++)
		if (!is_target(x, NULL, plan->to[i].sae))
			return false;
	return true;
}

static bool
same_value(const qg_transfers *t, const qg_transfer *x, const qg_transfer_plan *plan)
{
	uint8_t ad[QG_TRANSFER_AD_MAX];
	size_t ad_len;
	QG_SECRET_AUTO *value = NULL;
	if (x->sealed == NULL && x->printed && x->size_bytes == plan->size_bytes) {
		uint8_t print[QG_TRANSFER_PRINT];
		qg_transfer_print(t, plan->value, plan->size_bytes, print);
		return qg_equal_ct(print, x->print, sizeof print);
	}
	return x->sealed != NULL && x->size_bytes == plan->size_bytes &&
	       qg_transfer_ad(x, ad, &ad_len) == QG_OK &&
	       qg_sealer_unseal(t->sealer, ad, ad_len, x->sealed, x->sealed_len, &value) == QG_OK &&
	       value->len == plan->size_bytes && qg_equal_ct(value->data, plan->value, value->len);
}

/* One that is being deleted is known no more. */
static qg_transfer *
find_lasting(const qg_transfers *t, const char *initiator, const qg_uuid *id)
{
	qg_transfer *x = qg_transfer_find(t, initiator, id);
	return x != NULL && x->purging == QG_PURGE_ALL ? NULL : x;
}

qg_err
qg_transfer_compare(qg_transfers *t, const qg_transfer_plan *plan)
{
	qg_err err = QG_E_NOTFOUND;
	pthread_mutex_lock(&t->lock);
	const qg_transfer *x = find_lasting(t, plan->initiator, &plan->id);
	if (x != NULL) {
		const bool same = (x->state == QG_TRANSFER_HELD || x->state == QG_TRANSFER_OFFERED) &&
				  (x->purging == QG_PURGE_NOT || x->printed) &&
				  same_origin(x->origin, plan->origin) && same_targets(x, plan) &&
				  same_value(t, x, plan);
		err = !same ? QG_E_EXISTS : x->state == QG_TRANSFER_HELD ? QG_OK : QG_E_AGAIN;
	}
	pthread_mutex_unlock(&t->lock);
	return err;
}

bool
qg_transfer_from_elsewhere(qg_transfers *t, const char *origin, const char *initiator, const qg_uuid *id)
{
	pthread_mutex_lock(&t->lock);
	const qg_transfer *x = find_lasting(t, initiator, id);
	const bool elsewhere = x != NULL && !same_origin(x->origin, origin);
	pthread_mutex_unlock(&t->lock);
	return elsewhere;
}

/* --- void ---------------------------------------------------------------------------- */

struct qg_transfer_revocation {
	qg_transfer *x;   /* pinned, or the tombstone; NULL: nothing is to be written */
	bool tombstone;
	bool listed;      /* it is being voided already */
	char *owed;       /* the record's from now on */
	qg_revoked what;
	/* What the store said of the targets; set by the job. */
	uint64_t voided;
	bool delivered;
};

/* The store has the last word on what is delivered; memory may know of more,
 * where a commit's outcome was not known. */
static bool
any_delivered(const qg_transfer *x)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (x->targets[i].state == QG_TARGET_DELIVERED)
			return true;
	return false;
}

static void
judge(qg_transfer *x, const char *origin, qg_transfer_revocation *r)
{
	r->what = QG_REVOKED_OTHER;
	if (!same_origin(x->origin, origin))
		return;
	r->listed = x->state == QG_TRANSFER_VOIDING;
	if (x->state == QG_TRANSFER_OFFERED)
		r->what = QG_REVOKED_OFFERED;
	else if (r->listed || (x->state == QG_TRANSFER_HELD && qg_transfer_goes_on(x)))
		r->what = QG_REVOKED_PENDING;
	else
		r->what = any_delivered(x) || x->state == QG_TRANSFER_FAILED ? QG_REVOKED_DELIVERED
									      : QG_REVOKED_VOID;
	if (x->state != QG_TRANSFER_HELD && !r->listed)
		return;
	r->x = x;
	x->pins++;
}

qg_err
qg_transfer_revoke_new(qg_transfers *t, const char *origin, const char *initiator, const qg_uuid *id,
		       uint64_t expiry_ms, bool plant, qg_transfer_revocation **out)
{
	const qg_transfer_plan plan = {.initiator = initiator,
				       .origin = origin,
				       .id = *id,
				       .size_bytes = 1, /* whatever it would have been */
				       .expiry_ms = expiry_ms};
	qg_transfer_revocation *r = calloc(1, sizeof *r);
	qg_transfer *stone = qg_transfer_record_new(&plan);
	if (r == NULL || stone == NULL) {
		free(r);
		free(stone);
		return QG_E_NOMEM;
	}
	stone->state = QG_TRANSFER_VOIDED;
	pthread_mutex_lock(&t->lock);
	qg_transfer *x = find_lasting(t, initiator, id);
	if (x != NULL)
		judge(x, origin, r);
	pthread_mutex_unlock(&t->lock);
	if (x == NULL && plant) {
		r->x = stone;
		r->tombstone = true;
	} else {
		qg_transfer_record_free(stone);
	}
	if (x == NULL && !plant)
		r->what = QG_REVOKED_OTHER;
	*out = r;
	return QG_OK;
}

/* Its homes elsewhere are told first. */
static qg_transfer_state
next_state(const qg_transfer_revocation *r)
{
	if (qg_transfer_goes_on(r->x))
		return QG_TRANSFER_VOIDING;
	return r->delivered ? QG_TRANSFER_FAILED : QG_TRANSFER_VOIDED;
}

qg_err
qg_transfer_revoke_owe(qg_transfers *t, qg_transfer_revocation *r)
{
	if (r->x == NULL || r->tombstone || r->what != QG_REVOKED_PENDING)
		return QG_OK;
	pthread_mutex_lock(&t->lock);
	const bool ending = r->x->finishing;
	pthread_mutex_unlock(&t->lock);
	if (ending)
		return QG_E_AGAIN;
	r->owed = strdup(r->x->origin);
	return r->owed != NULL ? QG_OK : QG_E_NOMEM;
}

qg_revoked
qg_transfer_revoke_seen(const qg_transfer_revocation *r)
{
	if (r->x == NULL || r->tombstone || r->listed || qg_transfer_goes_on(r->x))
		return r->what;
	return r->delivered ? QG_REVOKED_DELIVERED : QG_REVOKED_VOID;
}

bool
qg_transfer_is_there(qg_transfers *t, const char *initiator, const qg_uuid *id)
{
	pthread_mutex_lock(&t->lock);
	const qg_transfer *x = find_lasting(t, initiator, id);
	const bool there = x != NULL && x->n_targets > 0;
	pthread_mutex_unlock(&t->lock);
	return there;
}

bool
qg_transfer_is_held(qg_transfers *t, const char *initiator, const qg_uuid *id)
{
	pthread_mutex_lock(&t->lock);
	const qg_transfer *x = find_lasting(t, initiator, id);
	const bool held = x != NULL && x->state == QG_TRANSFER_HELD;
	pthread_mutex_unlock(&t->lock);
	return held;
}

qg_revoked
qg_transfer_revoke_what(const qg_transfer_revocation *r)
{
	return r->what;
}

/* May be run twice. */
static qg_err
revoke_record(qg_transfer_revocation *r, qg_store *store)
{
	const qg_transfer *x = r->x;
	r->voided = 0;
	r->delivered = r->what == QG_REVOKED_DELIVERED;
	for (size_t i = 0; i < x->n_targets && i < TARGETS_MAX; i++) {
		if (x->targets[i].home != NULL)
			continue;
		const qg_err err = store->ops->target_state(store, x->row, x->targets[i].sae,
							     QG_TARGET_PENDING, QG_TARGET_VOIDED);
		if (err == QG_OK)
			r->voided |= UINT64_C(1) << i;
		else if (err == QG_E_STATE)
			r->delivered = true;
		else
			return err;
	}
	const qg_err err = store->ops->transfer_state(store, x->row, QG_TRANSFER_HELD, next_state(r));
	return err == QG_OK ? store->ops->transfer_unseal(store, x->row) : err;
}

qg_err
qg_transfer_revoke_store(qg_transfer_revocation *r, qg_store *store)
{
	if (r->x == NULL)
		return QG_OK;
	if (r->tombstone)
		return qg_transfer_store(r->x, store);
	const qg_err err = r->listed ? QG_OK : revoke_record(r, store);
	return err == QG_OK && r->owed != NULL ? store->ops->transfer_owe(store, r->x->row, r->owed) : err;
}

/* A delivery under way lost against us in the store, and ends by itself. */
static void
revoked(qg_transfers *t, qg_transfer_revocation *r)
{
	qg_transfer *x = r->x;
	if (r->owed != NULL) {
		free(x->owed);
		x->owed = r->owed;
		r->owed = NULL;
	}
	if (r->listed)
		return;
	if (!qg_transfer_goes_on(x))
		r->what = r->delivered ? QG_REVOKED_DELIVERED : QG_REVOKED_VOID;
	x->state = next_state(r);
	for (size_t i = 0; i < x->n_targets && i < TARGETS_MAX; i++)
		if ((r->voided >> i & 1) != 0 && x->targets[i].state == QG_TARGET_PENDING)
			x->targets[i].state = QG_TARGET_VOIDED;
	x->value_stored = false;
	if (x->claims == 0)
		qg_transfer_drop_value(x);
	if (x->state == QG_TRANSFER_VOIDING)
		qg_transfer_list_void(t, x);
}

qg_revoked
qg_transfer_revoke_end(qg_transfers *t, qg_transfer_revocation **rp, qg_err committed)
{
	qg_transfer_revocation *r = *rp;
	if (r->tombstone) {
		qg_transfer_added(t, r->x, committed);
	} else if (r->x != NULL) {
		pthread_mutex_lock(&t->lock);
		r->x->pins--;
		if (committed == QG_OK)
			revoked(t, r);
		pthread_mutex_unlock(&t->lock);
	}
	const qg_revoked what = r->what;
	free(r->owed);
	free(r);
	*rp = NULL;
	return what;
}
