/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/clock.h"
#include "qkdgate/transfer.h"

#include <assert.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/bytes.h"
#include "qkdgate/config.h"
#include "transfer_internal.h"

#define BUCKETS_MIN 1024
#define LOCAL "local" /* the origin, as the store has it */

/* --- records ------------------------------------------------------------------ */

void
qg_transfer_record_free(qg_transfer *x)
{
	if (x == NULL)
		return;
	free(x->sealed);
	free(x->owed);
	free(x);
}

bool
qg_transfer_is_peer(const char *kme)
{
	return kme != NULL && strncmp(kme, QG_PEER_PREFIX, sizeof QG_PEER_PREFIX - 1) == 0;
}

bool
qg_transfer_has_home(const qg_transfer *x, const char *home)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (x->targets[i].home != NULL && strcmp(x->targets[i].home, home) == 0)
			return true;
	return false;
}

bool
qg_transfer_has_peer(const qg_transfer *x)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (qg_transfer_is_peer(x->targets[i].home))
			return true;
	return false;
}

bool
qg_transfer_has_target_here(const qg_transfer *x)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (x->targets[i].home == NULL)
			return true;
	return false;
}

bool
qg_transfer_goes_on(const qg_transfer *x)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (x->targets[i].home != NULL)
			return true;
	return false;
}

static size_t
text_bytes(const char *s)
{
	return s != NULL ? strlen(s) + 1 : 0;
}

static char *
keep(char **at, const char *s)
{
	if (s == NULL)
		return NULL;
	const size_t len = strlen(s) + 1;
	char *copy = memcpy(*at, s, len);
	*at += len;
	return copy;
}

qg_transfer *
qg_transfer_record_new(const qg_transfer_plan *plan)
{
	const size_t n = plan->n_to;
	if (n > SIZE_MAX / 4 / sizeof(target))
		return NULL;
	const size_t fixed = sizeof(qg_transfer) + n * sizeof(target);
	size_t text = text_bytes(plan->initiator) + text_bytes(plan->origin) + text_bytes(plan->extension) +
		      text_bytes(plan->optional);
	for (size_t i = 0; i < n; i++)
		text += text_bytes(plan->to[i].sae) + text_bytes(plan->to[i].home);
	qg_transfer *x = calloc(1, fixed + text);
	if (x == NULL)
		return NULL;
	char *at = (char *)x + fixed;
	x->id = plan->id;
	x->size_bytes = plan->size_bytes;
	x->expiry_ms = plan->expiry_ms;
	x->born_ms = qg_clock_elapsed_ms();
	x->initiator = keep(&at, plan->initiator);
	x->origin = keep(&at, plan->origin);
	x->extension = keep(&at, plan->extension);
	x->optional = keep(&at, plan->optional);
	x->n_targets = n;
	for (size_t i = 0; i < n; i++) {
		x->targets[i].sae = keep(&at, plan->to[i].sae);
		x->targets[i].home = keep(&at, plan->to[i].home);
		x->targets[i].state = QG_TARGET_PENDING;
	}
	return x;
}

qg_err
qg_transfer_ad(const qg_transfer *x, uint8_t ad[QG_TRANSFER_AD_MAX], size_t *len)
{
	qg_writer w = qg_writer_of(ad, QG_TRANSFER_AD_MAX);
	qg_put_cstr(&w, "qkdgate transfer 1");
	qg_put_lstr(&w, x->initiator);
	qg_put_bytes(&w, x->id.b, sizeof x->id.b);
	qg_put_u32(&w, x->size_bytes);
	if (w.bad)
		return QG_E_RANGE;
	*len = w.len;
	return QG_OK;
}

qg_err
qg_transfer_value(const qg_transfers *t, const qg_transfer *x, uint8_t *out)
{
	uint8_t ad[QG_TRANSFER_AD_MAX];
	size_t ad_len;
	QG_SECRET_AUTO *value = NULL;
	qg_err err = x->sealed != NULL ? qg_transfer_ad(x, ad, &ad_len) : QG_E_NOTFOUND;
	if (err == QG_OK)
		err = qg_sealer_unseal(t->sealer, ad, ad_len, x->sealed, x->sealed_len, &value);
	if (err == QG_OK && value->len != x->size_bytes)
		err = QG_E_CORRUPT;
	if (err == QG_OK)
		memcpy(out, value->data, value->len);
	return err;
}

static qg_err
record_seal(qg_transfer *x, qg_sealer *sealer, const uint8_t *value)
{
	uint8_t ad[QG_TRANSFER_AD_MAX];
	size_t ad_len;
	const qg_err err = qg_transfer_ad(x, ad, &ad_len);
	if (err != QG_OK)
		return err;
	x->sealed_len = (size_t)x->size_bytes + QG_SEAL_OVERHEAD;
	x->sealed = malloc(x->sealed_len);
	if (x->sealed == NULL)
		return QG_E_NOMEM;
	return qg_sealer_seal(sealer, ad, ad_len, value, x->size_bytes, x->sealed);
}

bool
qg_transfer_is_open(const target *t)
{
	return t->home == NULL && (t->state == QG_TARGET_PENDING || t->state == QG_TARGET_RELAYED);
}

/* One that is still to be brought on needs its value, whoever its targets are. */
static bool
is_on_its_way(const qg_transfer *x)
{
	return x->origin != NULL && x->state == QG_TRANSFER_OFFERED;
}

bool
qg_transfer_is_spent(const qg_transfer *x)
{
	if (is_on_its_way(x))
		return false;
	for (size_t i = 0; i < x->n_targets; i++)
		if (qg_transfer_is_open(&x->targets[i]))
			return false;
	return true;
}

void
qg_transfer_drop_value(qg_transfer *x)
{
	free(x->sealed); /* ciphertext */
	x->sealed = NULL;
	x->sealed_len = 0;
}

uint64_t
qg_transfer_clock(const qg_transfers *t, const qg_transfer *x, uint64_t now_ms)
{
	if (x->origin == NULL)
		return now_ms;
	return now_ms > t->far_behind_ms ? now_ms - t->far_behind_ms : 0;
}

/* Tells nothing to who has not the random key. */
void
qg_transfer_print(const qg_transfers *t, const uint8_t *value, size_t len, uint8_t print[QG_TRANSFER_PRINT])
{
	(void)crypto_generichash(print, QG_TRANSFER_PRINT, value, len, t->print_key, sizeof t->print_key);
	qg_wipe_stack();
}

/* --- the index ------------------------------------------------------------------ */

static qg_transfer **
bucket_of(const qg_transfers *t, const qg_uuid *id)
{
	uint64_t hash = 0;
	_Static_assert(sizeof hash == crypto_shorthash_BYTES, "the hash is one word");
	(void)crypto_shorthash((unsigned char *)&hash, id->b, sizeof id->b, t->hash_key);
	return &t->buckets[(size_t)hash & (t->n_buckets - 1)];
}

qg_transfer *
qg_transfer_find(const qg_transfers *t, const char *initiator, const qg_uuid *id)
{
	qg_transfer *x = *bucket_of(t, id);
	while (x != NULL && !(qg_uuid_equal(&x->id, id) && strcmp(x->initiator, initiator) == 0))
		x = x->next;
	return x;
}

/* Keeps chains short; without memory they grow instead. */
static void
grow(qg_transfers *t)
{
	if (t->count < t->n_buckets || t->n_buckets > SIZE_MAX / 4 / sizeof *t->buckets)
		return;
	qg_transfer **old = t->buckets;
	const size_t n_old = t->n_buckets;
	qg_transfer **buckets = calloc(2 * n_old, sizeof *buckets);
	if (buckets == NULL)
		return;
	t->buckets = buckets;
	t->n_buckets = 2 * n_old;
	for (size_t i = 0; i < n_old; i++) {
		for (qg_transfer *x = old[i], *next; x != NULL; x = next) {
			next = x->next;
			qg_transfer **bucket = bucket_of(t, &x->id);
			x->next = *bucket;
			*bucket = x;
		}
	}
	free(old);
}

static qg_transfer_stones *
stones_of(const qg_transfers *t, const char *origin)
{
	qg_transfer_stones *s = t->stones;
	while (s != NULL && strcmp(s->origin, origin) != 0)
		s = s->next;
	return s;
}

static bool
is_stone(const qg_transfer *x)
{
	return x->n_targets == 0 && x->origin != NULL;
}

/* Without memory it is counted for nobody. */
static void
count_stone(qg_transfers *t, const qg_transfer *x)
{
	qg_transfer_stones *s = stones_of(t, x->origin);
	t->n_stones++;
	if (s == NULL) {
		const size_t len = strlen(x->origin) + 1;
		s = calloc(1, sizeof *s + len);
		if (s == NULL)
			return;
		memcpy(s->origin, x->origin, len);
		s->next = t->stones;
		t->stones = s;
	}
	s->n++;
}

static void
discount_stone(qg_transfers *t, const qg_transfer *x)
{
	qg_transfer_stones *s = stones_of(t, x->origin);
	t->n_stones--;
	if (s != NULL && s->n > 0)
		s->n--;
}

void
qg_transfer_insert(qg_transfers *t, qg_transfer *x)
{
	grow(t);
	if (is_stone(x))
		count_stone(t, x);
	qg_transfer **bucket = bucket_of(t, &x->id);
	x->next = *bucket;
	*bucket = x;
	t->count++;
}

void
qg_transfer_take_out(qg_transfers *t, qg_transfer *x)
{
	qg_transfer **at = bucket_of(t, &x->id);
	while (*at != x)
		at = &(*at)->next;
	*at = x->next;
	t->count--;
	if (is_stone(x))
		discount_stone(t, x);
}

/* --- open and close ---------------------------------------------------------------- */

static qg_err
copy_sealed(qg_transfer *x, const qg_transfer_rec *rec)
{
	if (rec->sealed == NULL)
		return QG_OK;
	if (rec->sealed_len != (size_t)rec->size_bytes + QG_SEAL_OVERHEAD)
		return QG_E_CORRUPT;
	x->sealed = malloc(rec->sealed_len);
	if (x->sealed == NULL)
		return QG_E_NOMEM;
	memcpy(x->sealed, rec->sealed, rec->sealed_len);
	x->sealed_len = rec->sealed_len;
	x->value_stored = true;
	return QG_OK;
}

static const char *
text_of(const char *s)
{
	return s != NULL && s[0] != '\0' ? s : NULL;
}

static qg_transfer *
record_of(const qg_transfer_rec *rec)
{
	if (rec->n_targets > SIZE_MAX / 4 / sizeof(target))
		return NULL;
	qg_transfer_to *to = calloc(rec->n_targets + 1, sizeof *to);
	if (to == NULL)
		return NULL;
	for (size_t i = 0; i < rec->n_targets; i++)
		to[i] = (qg_transfer_to){.sae = rec->target[i].sae, .home = rec->target[i].home};
	const qg_transfer_plan plan = {
		.initiator = rec->initiator,
		.origin = strcmp(rec->origin, LOCAL) == 0 ? NULL : rec->origin,
		.id = rec->key_id,
		.to = to,
		.n_to = rec->n_targets,
		.size_bytes = rec->size_bytes,
		.expiry_ms = rec->expiry_ms,
		.extension = text_of(rec->extension),
		.optional = text_of(rec->optional),
	};
	qg_transfer *x = qg_transfer_record_new(&plan);
	free(to);
	return x;
}

/* The request that was prepared is gone, and with it whoever could be answered;
 * what another KME brought goes on. */
static bool
is_orphan(const qg_transfer *x)
{
	return x->state == QG_TRANSFER_VOIDING ||
	       (x->origin == NULL &&
		(x->state == QG_TRANSFER_PREPARED || x->state == QG_TRANSFER_OFFERED));
}

static qg_err
load(const qg_transfer_rec *rec, void *ctx)
{
	qg_transfers *t = ctx;
	if (rec->n_targets == 0 && rec->state != QG_TRANSFER_VOIDED) /* a tombstone has none */
		return QG_E_CORRUPT;
	qg_transfer *x = record_of(rec);
	if (x == NULL)
		return QG_E_NOMEM;
	x->row = rec->row;
	x->state = rec->state;
	for (size_t i = 0; i < x->n_targets; i++)
		x->targets[i].state = rec->target[i].state;
	qg_err err = copy_sealed(x, rec);
	if (err == QG_OK && text_of(rec->owed) != NULL) {
		x->owed = strdup(rec->owed);
		err = x->owed != NULL ? QG_OK : QG_E_NOMEM;
	}
	if (err != QG_OK) {
		qg_transfer_record_free(x);
		return err;
	}
	if (is_orphan(x))
		qg_transfer_list_void(t, x);
	if (qg_transfer_is_spent(x))
		qg_transfer_drop_value(x);
	qg_transfer_insert(t, x);
	return QG_OK;
}

qg_err
qg_transfers_open(qg_store *store, qg_sealer *sealer, qg_transfers **out)
{
	qg_transfers *t = calloc(1, sizeof *t);
	if (t == NULL)
		return QG_E_NOMEM;
	t->n_buckets = BUCKETS_MIN;
	t->buckets = calloc(t->n_buckets, sizeof *t->buckets);
	if (t->buckets == NULL || pthread_mutex_init(&t->lock, NULL) != 0) {
		free(t->buckets);
		free(t);
		return QG_E_NOMEM;
	}
	t->sealer = sealer;
	qg_random(t->hash_key, sizeof t->hash_key);
	qg_random(t->print_key, sizeof t->print_key);
	const qg_err err = store->ops->load_transfers(store, load, t);
	if (err != QG_OK) {
		qg_transfers_close(&t);
		return err;
	}
	*out = t;
	return QG_OK;
}

void
qg_transfers_close(qg_transfers **t)
{
	if (t == NULL || *t == NULL)
		return;
	for (size_t i = 0; i < (*t)->n_buckets; i++) {
		for (qg_transfer *x = (*t)->buckets[i], *next; x != NULL; x = next) {
			next = x->next;
			assert(x->claims == 0 && x->pins == 0 && x->purging == QG_PURGE_NOT);
			qg_transfer_record_free(x);
		}
	}
	for (qg_transfer_stones *s = (*t)->stones, *next; s != NULL; s = next) {
		next = s->next;
		free(s);
	}
	free((*t)->buckets);
	(void)pthread_mutex_destroy(&(*t)->lock);
	free(*t);
	*t = NULL;
}

void
qg_transfers_far_behind(qg_transfers *t, uint64_t behind_ms)
{
	t->far_behind_ms = behind_ms;
}

size_t
qg_transfers_count(qg_transfers *t)
{
	pthread_mutex_lock(&t->lock);
	const size_t count = t->count;
	pthread_mutex_unlock(&t->lock);
	return count;
}

size_t
qg_transfers_keys(qg_transfers *t)
{
	pthread_mutex_lock(&t->lock);
	const size_t keys = t->count - t->n_stones;
	pthread_mutex_unlock(&t->lock);
	return keys;
}

size_t
qg_transfers_stones(qg_transfers *t, const char *origin)
{
	pthread_mutex_lock(&t->lock);
	const qg_transfer_stones *s = stones_of(t, origin);
	const size_t n = s != NULL ? s->n : 0;
	pthread_mutex_unlock(&t->lock);
	return n;
}

bool
qg_transfer_known(qg_transfers *t, const qg_uuid *id)
{
	pthread_mutex_lock(&t->lock);
	const qg_transfer *x = *bucket_of(t, id);
	while (x != NULL && !(qg_uuid_equal(&x->id, id) && x->n_targets > 0))
		x = x->next;
	pthread_mutex_unlock(&t->lock);
	return x != NULL;
}

/* --- adding -------------------------------------------------------------------------- */

static bool
exists(qg_transfers *t, const char *initiator, const qg_uuid *id)
{
	pthread_mutex_lock(&t->lock);
	const bool found = qg_transfer_find(t, initiator, id) != NULL;
	pthread_mutex_unlock(&t->lock);
	return found;
}

/* SOUNDNESS 18: what goes to another network stands as offered before the first
 * message; so does what another KME brought and that goes on, which a restart
 * takes up again. */
qg_transfer_state
qg_transfer_first_state(const qg_transfer *x)
{
	if (!qg_transfer_goes_on(x))
		return QG_TRANSFER_HELD;
	return x->origin != NULL || qg_transfer_has_peer(x) ? QG_TRANSFER_OFFERED : QG_TRANSFER_PREPARED;
}

static qg_err
fill(qg_transfers *t, const qg_transfer_plan *plan, qg_transfer *x)
{
	x->state = qg_transfer_first_state(x);
	x->pins = x->state != QG_TRANSFER_HELD;
	if (x->origin != NULL && qg_transfer_goes_on(x)) {
		qg_transfer_print(t, plan->value, plan->size_bytes, x->print);
		x->printed = true;
	}
	return qg_transfer_has_target_here(x) || x->origin != NULL ? record_seal(x, t->sealer, plan->value)
								    : QG_OK;
}

qg_err
qg_transfer_plan_new(qg_transfers *t, const qg_transfer_plan *plan, qg_transfer **out)
{
	if (plan->n_to == 0 || plan->size_bytes == 0)
		return QG_E_INVAL;
	if (exists(t, plan->initiator, &plan->id))
		return QG_E_EXISTS;
	qg_transfer *x = qg_transfer_record_new(plan);
	if (x == NULL)
		return QG_E_NOMEM;
	const qg_err err = fill(t, plan, x);
	if (err != QG_OK) {
		qg_transfer_record_free(x);
		return err;
	}
	*out = x;
	return QG_OK;
}

qg_err
qg_transfer_prepare(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *const *targets,
		    size_t n_targets, const uint8_t *value, uint32_t size_bytes, uint64_t expiry_ms,
		    qg_transfer **out)
{
	qg_transfer_to *to = calloc(n_targets + 1, sizeof *to);
	if (to == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < n_targets; i++)
		to[i].sae = targets[i];
	const qg_transfer_plan plan = {
		.initiator = initiator,
		.id = *id,
		.to = to,
		.n_to = n_targets,
		.value = value,
		.size_bytes = size_bytes,
		.expiry_ms = expiry_ms,
	};
	const qg_err err = qg_transfer_plan_new(t, &plan, out);
	free(to);
	return err;
}

qg_err
qg_transfer_store(qg_transfer *x, qg_store *store)
{
	qg_target_rec *targets = calloc(x->n_targets + 1, sizeof *targets);
	if (targets == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < x->n_targets; i++)
		targets[i] = (qg_target_rec){
			.sae = x->targets[i].sae, .state = x->targets[i].state, .home = x->targets[i].home};
	qg_transfer_rec rec = {
		.initiator = x->initiator,
		.key_id = x->id,
		.state = x->state,
		.origin = x->origin != NULL ? x->origin : LOCAL,
		.sealed = x->sealed,
		.sealed_len = x->sealed_len,
		.size_bytes = x->size_bytes,
		.expiry_ms = x->expiry_ms,
		.target = targets,
		.n_targets = x->n_targets,
		.extension = x->extension,
		.optional = x->optional,
	};
	const qg_err err = store->ops->transfer_put(store, &rec);
	if (err == QG_OK)
		x->row = rec.row;
	free(targets);
	return err;
}

void
qg_transfer_added(qg_transfers *t, qg_transfer *x, qg_err committed)
{
	if (x == NULL)
		return;
	if (committed != QG_OK) {
		qg_transfer_record_free(x);
		return;
	}
	x->value_stored = x->sealed != NULL;
	pthread_mutex_lock(&t->lock);
	qg_transfer_insert(t, x); /* the store has refused a second one */
	pthread_mutex_unlock(&t->lock);
}
