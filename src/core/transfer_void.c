/* SPDX-License-Identifier: Apache-2.0 */
/* Keys with targets elsewhere at the master's node: released for all of them,
 * or made void at all of them (SOUNDNESS 18). */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/log.h"
#include "transfer_internal.h"

#define MOST 128 /* keys that a home is told of at once; records that end in one job */
#define AGAIN_MS UINT64_C(1000)
#define AGAIN_DOUBLES 6 /* to about a minute */
#define FINISH_AGAIN_MS 1000
#define VOID_TARGETS 64

struct qg_transfer_void {
	const char *home, *initiator; /* of the first record */
	size_t n;
	uint64_t expiry_ms; /* latest */
	qg_uuid id[MOST];
	qg_transfer *x[MOST];
};

/* --- the list ------------------------------------------------------------------- */

void
qg_transfer_list_void(qg_transfers *t, qg_transfer *x)
{
	x->state = QG_TRANSFER_VOIDING;
	for (size_t i = 0; i < x->n_targets; i++)
		if (x->targets[i].home == NULL && x->targets[i].state == QG_TARGET_PENDING)
			x->targets[i].state = QG_TARGET_VOIDED;
	x->void_prev = NULL;
	x->void_next = t->voiding;
	if (t->voiding != NULL)
		t->voiding->void_prev = x;
	t->voiding = x;
	t->n_voiding++;
}

static void
unlist(qg_transfers *t, qg_transfer *x)
{
	if (x->void_prev != NULL)
		x->void_prev->void_next = x->void_next;
	else
		t->voiding = x->void_next;
	if (x->void_next != NULL)
		x->void_next->void_prev = x->void_prev;
	x->void_next = x->void_prev = NULL;
	t->n_voiding--;
}

size_t
qg_transfers_voiding(qg_transfers *t)
{
	pthread_mutex_lock(&t->lock);
	const size_t n = t->n_voiding;
	pthread_mutex_unlock(&t->lock);
	return n;
}

/* --- release --------------------------------------------------------------------- */

/* What has no target here leaves nothing to do here, unless another KME, or
 * another network, may yet ask for it. */
static bool
is_done_with(const qg_transfer *x)
{
	return x->origin == NULL && !qg_transfer_has_target_here(x) && !qg_transfer_has_peer(x);
}

static qg_transfer_state
released_state(const qg_transfer *x)
{
	return x->origin != NULL ? QG_TRANSFER_HELD : QG_TRANSFER_RELEASED;
}

qg_err
qg_transfer_release_store(qg_transfer *x, qg_store *store)
{
	const qg_err err = store->ops->transfer_state(store, x->row, qg_transfer_first_state(x), released_state(x));
	if (err != QG_OK || qg_transfer_has_target_here(x))
		return err;
	return is_done_with(x) ? store->ops->transfer_delete(store, x->row)
			       : store->ops->transfer_unseal(store, x->row);
}

void
qg_transfer_released(qg_transfers *t, qg_transfer *x)
{
	pthread_mutex_lock(&t->lock);
	assert(x->state == QG_TRANSFER_PREPARED || x->state == QG_TRANSFER_OFFERED);
	x->pins--;
	x->state = released_state(x);
	const bool over = is_done_with(x);
	if (over)
		qg_transfer_take_out(t, x);
	else if (!qg_transfer_has_target_here(x)) {
		qg_transfer_drop_value(x);
		x->value_stored = false;
	}
	pthread_mutex_unlock(&t->lock);
	if (over)
		qg_transfer_record_free(x);
}

/* --- void here --------------------------------------------------------------------- */

static bool
is_among(const char *home, const char *const *homes, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(homes[i], home) == 0)
			return true;
	return false;
}

void
qg_transfer_void_begin(qg_transfers *t, qg_transfer *x, const char *const *homes, size_t n_homes)
{
	pthread_mutex_lock(&t->lock);
	assert(x->state == QG_TRANSFER_PREPARED || x->state == QG_TRANSFER_OFFERED);
	x->maybe_released = true;
	for (size_t i = 0; i < x->n_targets; i++) {
		target *tg = &x->targets[i];
		if (tg->home != NULL && !is_among(tg->home, homes, n_homes))
			tg->state = QG_TARGET_VOIDED;
	}
	qg_transfer_list_void(t, x);
	qg_transfer_drop_value(x);
	pthread_mutex_unlock(&t->lock);
}

/* From whatever state before the end the store has it in. */
static qg_err
state_to(const qg_transfer *x, qg_store *store, qg_transfer_state now)
{
	static const qg_transfer_state before[] = {QG_TRANSFER_PREPARED, QG_TRANSFER_OFFERED,
						   QG_TRANSFER_VOIDING, QG_TRANSFER_RELEASED,
						   QG_TRANSFER_HELD};
	const size_t all = sizeof before / sizeof before[0], n = x->maybe_released ? all : all - 2;
	qg_err err = QG_E_STATE;
	for (size_t i = 0; err == QG_E_STATE && i < n; i++)
		err = store->ops->transfer_state(store, x->row, before[i], now);
	return err;
}

qg_err
qg_transfer_void_store(qg_transfer *x, qg_store *store)
{
	const qg_err err = state_to(x, store, QG_TRANSFER_VOIDING);
	return err != QG_OK ? err : store->ops->transfer_unseal(store, x->row);
}

/* Should the write have failed, the record is PREPARED in the store, which is
 * as good at the next start; and its end is written in any case. */
void
qg_transfer_void_stored(qg_transfers *t, qg_transfer *x)
{
	pthread_mutex_lock(&t->lock);
	x->pins--;
	pthread_mutex_unlock(&t->lock);
}

/* --- the end of it ------------------------------------------------------------------- */

typedef struct finish {
	qg_job job; /* first */
	qg_transfers *owner;
	void *kept; /* of the hook */
	size_t n;
	qg_transfer *x[MOST];
} finish;

qg_transfer_state
qg_transfer_end_state(const qg_transfer *x)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (x->targets[i].state == QG_TARGET_DELIVERED)
			return QG_TRANSFER_FAILED;
	return QG_TRANSFER_VOIDED;
}

static qg_err
finish_one(const qg_transfer *x, qg_store *store)
{
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < x->n_targets; i++) {
		const target *tg = &x->targets[i];
		err = store->ops->target_state(store, x->row, tg->sae, QG_TARGET_PENDING, tg->state);
		if (err == QG_E_STATE)
			err = store->ops->target_state(store, x->row, tg->sae, QG_TARGET_RELAYED, tg->state);
		if (err == QG_E_STATE) /* written before */
			err = QG_OK;
	}
	if (err == QG_OK)
		err = store->ops->transfer_unseal(store, x->row);
	if (err == QG_E_NOTFOUND) /* it was released after all, and had no target here */
		return QG_OK;
	return err == QG_OK ? state_to(x, store, qg_transfer_end_state(x)) : err;
}

static qg_err
finish_run(qg_job *job, qg_store *store)
{
	finish *f = (finish *)job;
	const qg_transfers *t = f->owner;
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < f->n; i++)
		err = finish_one(f->x[i], store);
	if (err == QG_OK && t->finish != NULL)
		err = t->finish(t->finish_ctx, store, f->x, f->n, &f->kept);
	return err;
}

/* What could not be written is tried again by _void_next. */
static void
finish_done(qg_job *job, qg_err err)
{
	finish *f = (finish *)job;
	qg_transfers *t = f->owner;
	if (f->kept != NULL)
		t->finished(t->finish_ctx, f->kept, err);
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < f->n; i++) {
		qg_transfer *x = f->x[i];
		x->finishing = false;
		x->pins--;
		if (err != QG_OK)
			continue;
		x->state = qg_transfer_end_state(x);
		x->value_stored = false;
		unlist(t, x);
	}
	pthread_mutex_unlock(&t->lock);
	if (err != QG_OK && err != QG_E_CLOSED)
		qg_log(QG_LOG_WARN, "transfer", "event=void_not_saved records=%zu error=\"%s\"", f->n,
		       qg_err_text(err));
	free(f);
}

static bool
is_unsettled(const target *tg)
{
	return tg->home != NULL && (tg->state == QG_TARGET_PENDING || tg->state == QG_TARGET_RELAYED);
}

static bool
is_settled(const qg_transfer *x)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (is_unsettled(&x->targets[i]))
			return false;
	return true;
}

static bool
wants_finish(const qg_transfer *x, uint64_t now_ms)
{
	return !x->finishing && x->pins == 0 && x->finish_at_ms <= now_ms && is_settled(x);
}

static void
finish_settled(qg_transfers *t, qg_committer *c, uint64_t now_ms)
{
	finish *f = NULL;
	pthread_mutex_lock(&t->lock);
	for (qg_transfer *x = t->voiding; x != NULL && (f == NULL || f->n < MOST); x = x->void_next) {
		if (!wants_finish(x, now_ms))
			continue;
		if (f == NULL)
			f = calloc(1, sizeof *f);
		if (f == NULL)
			break;
		x->finishing = true;
		x->pins++;
		x->finish_at_ms = now_ms + FINISH_AGAIN_MS;
		f->x[f->n++] = x;
	}
	pthread_mutex_unlock(&t->lock);
	if (f == NULL)
		return;
	f->job = (qg_job){.run = finish_run, .done = finish_done};
	f->owner = t;
	qg_committer_submit(c, &f->job);
}

/* --- telling the homes ------------------------------------------------------------------ */

static bool
is_unasked(const target *tg)
{
	return is_unsettled(tg) && !tg->asking;
}

/* A target of the record whose home is to be told now; of `home` alone, if any. */
static const target *
due_target(const qg_transfer *x, const char *home, uint64_t now_ms, uint64_t *next_ms)
{
	for (size_t i = 0; i < x->n_targets; i++) {
		const target *tg = &x->targets[i];
		if (!is_unasked(tg) || (home != NULL && strcmp(tg->home, home) != 0))
			continue;
		if (tg->ask_at_ms <= now_ms)
			return tg;
		if (tg->ask_at_ms < *next_ms)
			*next_ms = tg->ask_at_ms;
	}
	return NULL;
}

static void
take_in(const qg_transfers *t, qg_transfer_void *v, qg_transfer *x)
{
	const uint64_t behind_ms = x->origin != NULL ? t->far_behind_ms : 0;
	for (size_t i = 0; i < x->n_targets; i++)
		if (is_unasked(&x->targets[i]) && strcmp(x->targets[i].home, v->home) == 0)
			x->targets[i].asking = true;
	if (v->expiry_ms < x->expiry_ms + behind_ms)
		v->expiry_ms = x->expiry_ms + behind_ms;
	x->pins++;
	v->id[v->n] = x->id;
	v->x[v->n++] = x;
}

/* Both at the home of v: a message to a peer names one set of targets. */
static bool
same_set(const qg_transfer_void *v, const qg_transfer *x)
{
	const char *sae[VOID_TARGETS];
	const size_t n = qg_transfer_void_targets(v, sae, VOID_TARGETS);
	return qg_transfer_is_for(x, v->home, sae, n);
}

static bool
fits(const qg_transfer_void *v, const qg_transfer *x)
{
	return v->n == 0 || (!v->x[0]->singly && !x->singly && strcmp(v->initiator, x->initiator) == 0 &&
			     (!qg_transfer_is_peer(v->home) || same_set(v, x)));
}

static void
gather(const qg_transfers *t, uint64_t now_ms, size_t most, qg_transfer_void *v, uint64_t *next_ms)
{
	for (qg_transfer *x = t->voiding; x != NULL && v->n < most; x = x->void_next) {
		const target *tg = fits(v, x) ? due_target(x, v->home, now_ms, next_ms) : NULL;
		if (tg == NULL)
			continue;
		if (v->n == 0) {
			v->home = tg->home;
			v->initiator = x->initiator;
		}
		take_in(t, v, x);
	}
}

qg_transfer_void *
qg_transfer_void_next(qg_transfers *t, qg_committer *c, uint64_t now_ms, size_t most, uint64_t *next_ms)
{
	*next_ms = UINT64_MAX;
	finish_settled(t, c, now_ms);
	pthread_mutex_lock(&t->lock);
	const bool any = t->voiding != NULL;
	pthread_mutex_unlock(&t->lock);
	qg_transfer_void *v = any ? calloc(1, sizeof *v) : NULL;
	if (v == NULL)
		return NULL;
	pthread_mutex_lock(&t->lock);
	gather(t, now_ms, most < MOST ? most : MOST, v, next_ms);
	pthread_mutex_unlock(&t->lock);
	if (v->n > 0)
		return v;
	free(v);
	return NULL;
}

const char *
qg_transfer_void_home(const qg_transfer_void *v)
{
	return v->home;
}

const char *
qg_transfer_void_initiator(const qg_transfer_void *v)
{
	return v->initiator;
}

const qg_uuid *
qg_transfer_void_ids(const qg_transfer_void *v, size_t *n)
{
	*n = v->n;
	return v->id;
}

size_t
qg_transfer_void_targets(const qg_transfer_void *v, const char **sae, size_t room)
{
	const qg_transfer *x = v->x[0];
	size_t n = 0;
	for (size_t i = 0; i < x->n_targets && n < room; i++)
		if (x->targets[i].home != NULL && strcmp(x->targets[i].home, v->home) == 0)
			sae[n++] = x->targets[i].sae;
	return n;
}

bool
qg_transfer_void_expired(const qg_transfer_void *v, uint64_t now_ms)
{
	return v->expiry_ms <= now_ms;
}

/* The targets of the home that was asked, of one record. */
static void
each_asked(const qg_transfer_void *v, qg_transfer *x, void (*f)(target *tg, uint64_t arg), uint64_t arg)
{
	for (size_t i = 0; i < x->n_targets; i++) {
		target *tg = &x->targets[i];
		if (!tg->asking || strcmp(tg->home, v->home) != 0)
			continue;
		tg->asking = false;
		f(tg, arg);
	}
}

static void
set_state(target *tg, uint64_t state)
{
	tg->state = (qg_target_state)state;
}

static void
ask_now(target *tg, uint64_t unused)
{
	(void)unused;
	tg->ask_at_ms = 0;
}

static void
ask_later(target *tg, uint64_t now_ms)
{
	tg->ask_at_ms = now_ms + (AGAIN_MS << tg->tries);
	if (tg->tries < AGAIN_DOUBLES)
		tg->tries++;
}

bool
qg_transfer_void_answered(qg_transfers *t, qg_committer *c, qg_transfer_void **vp, size_t n_voided,
			  size_t n_delivered)
{
	qg_transfer_void *v = *vp;
	const bool all = n_voided == v->n && n_delivered == 0, known = all || v->n == 1;
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < v->n; i++) {
		v->x[i]->pins--;
		v->x[i]->singly |= !known;
		if (known)
			each_asked(v, v->x[i], set_state, all ? QG_TARGET_VOIDED : QG_TARGET_DELIVERED);
		else
			each_asked(v, v->x[i], ask_now, 0);
	}
	pthread_mutex_unlock(&t->lock);
	free(v);
	*vp = NULL;
	finish_settled(t, c, 0);
	return known;
}

bool
qg_transfer_void_told(qg_transfers *t, const char *home, const char *initiator, const qg_uuid *id, bool delivered)
{
	pthread_mutex_lock(&t->lock);
	qg_transfer *x = qg_transfer_find(t, initiator, id);
	const bool any = x != NULL && x->state == QG_TRANSFER_VOIDING && qg_transfer_has_home(x, home);
	for (size_t i = 0; any && i < x->n_targets; i++) {
		target *tg = &x->targets[i];
		if (is_unsettled(tg) && strcmp(tg->home, home) == 0)
			tg->state = delivered ? QG_TARGET_DELIVERED : QG_TARGET_VOIDED;
	}
	pthread_mutex_unlock(&t->lock);
	return any;
}

void
qg_transfer_void_put_off(qg_transfers *t, qg_transfer_void **v, uint64_t now_ms)
{
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < (*v)->n; i++) {
		(*v)->x[i]->pins--;
		each_asked(*v, (*v)->x[i], ask_later, now_ms);
	}
	pthread_mutex_unlock(&t->lock);
	free(*v);
	*v = NULL;
}
