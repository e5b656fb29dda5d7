/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/transfer.h"

#include <assert.h>
#include <inttypes.h>
#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/bytes.h"
#include "qkdgate/log.h"

#define BUCKETS_MIN 1024
#define SCAN_BUCKETS 1024 /* looked at by the housekeeping under one lock */
#define PURGE_ROWS 128    /* in one job of it */
#define AD_MAX 1024       /* SAE IDs are shorter */

typedef struct target {
	char *sae; /* in the record's block */
	qg_target_state state;
	bool claimed;
} target;

struct qg_transfer {
	qg_transfer *next; /* in its bucket */
	int64_t row;
	qg_uuid id;
	char *initiator; /* in this block */
	qg_transfer_state state;
	uint32_t size_bytes;
	uint64_t expiry_ms;
	uint8_t *sealed; /* NULL once no target is left */
	size_t sealed_len;
	bool value_stored; /* the store still has the sealed value */
	bool purging;      /* a job of the housekeeping has it */
	size_t claims;     /* under way */
	size_t n_targets;
	target targets[];
};

struct qg_transfer_claim {
	qg_transfers *owner;
	qg_transfer *record;
	target *target;
	bool forgot; /* the job took the value out of the store */
};

/* The lock covers everything but what a record never changes (id, initiator,
 * size, expiry, names) and what a claim pins (the sealed value). It is never
 * held over a wait. */
struct qg_transfers {
	pthread_mutex_t lock;
	qg_sealer *sealer;
	unsigned char hash_key[crypto_shorthash_KEYBYTES];
	qg_transfer **buckets; /* by key ID */
	size_t n_buckets;      /* a power of two */
	size_t count;
};

/* --- records ------------------------------------------------------------------ */

static void
record_free(qg_transfer *x)
{
	if (x == NULL)
		return;
	free(x->sealed);
	free(x);
}

static size_t
text_bytes(const char *initiator, const char *const *saes, size_t n)
{
	size_t bytes = strlen(initiator) + 1;
	for (size_t i = 0; i < n; i++)
		bytes += strlen(saes[i]) + 1;
	return bytes;
}

static char *
keep(char **at, const char *s)
{
	const size_t len = strlen(s) + 1;
	char *copy = memcpy(*at, s, len);
	*at += len;
	return copy;
}

/* A record with its names; the rest is zero. */
static qg_transfer *
record_new(const char *initiator, const qg_uuid *id, const char *const *saes, size_t n)
{
	if (n == 0 || n > SIZE_MAX / 2 / sizeof(target))
		return NULL;
	const size_t fixed = sizeof(qg_transfer) + n * sizeof(target);
	qg_transfer *x = calloc(1, fixed + text_bytes(initiator, saes, n));
	if (x == NULL)
		return NULL;
	char *at = (char *)x + fixed;
	x->id = *id;
	x->initiator = keep(&at, initiator);
	x->n_targets = n;
	for (size_t i = 0; i < n; i++)
		x->targets[i].sae = keep(&at, saes[i]);
	return x;
}

/* What a sealed value is bound to: a blob moved to another record does not
 * open. */
static qg_err
associated_data(const qg_transfer *x, uint8_t ad[AD_MAX], size_t *len)
{
	qg_writer w = qg_writer_of(ad, AD_MAX);
	qg_put_cstr(&w, "qkdgate transfer 1");
	qg_put_lstr(&w, x->initiator);
	qg_put_bytes(&w, x->id.b, sizeof x->id.b);
	qg_put_u32(&w, x->size_bytes);
	if (w.bad)
		return QG_E_RANGE;
	*len = w.len;
	return QG_OK;
}

static qg_err
record_seal(qg_transfer *x, qg_sealer *sealer, const uint8_t *value)
{
	uint8_t ad[AD_MAX];
	size_t ad_len;
	const qg_err err = associated_data(x, ad, &ad_len);
	if (err != QG_OK)
		return err;
	x->sealed_len = (size_t)x->size_bytes + QG_SEAL_OVERHEAD;
	x->sealed = malloc(x->sealed_len);
	if (x->sealed == NULL)
		return QG_E_NOMEM;
	return qg_sealer_seal(sealer, ad, ad_len, value, x->size_bytes, x->sealed);
}

static bool
is_open(const target *t)
{
	return t->state == QG_TARGET_PENDING || t->state == QG_TARGET_RELAYED;
}

/* Whether no target is left that could be given the value. */
static bool
is_spent(const qg_transfer *x)
{
	for (size_t i = 0; i < x->n_targets; i++)
		if (is_open(&x->targets[i]))
			return false;
	return true;
}

static void
drop_value(qg_transfer *x)
{
	free(x->sealed); /* ciphertext */
	x->sealed = NULL;
	x->sealed_len = 0;
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

static qg_transfer *
find(const qg_transfers *t, const char *initiator, const qg_uuid *id)
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

static void
insert(qg_transfers *t, qg_transfer *x)
{
	grow(t);
	qg_transfer **bucket = bucket_of(t, &x->id);
	x->next = *bucket;
	*bucket = x;
	t->count++;
}

static void
take_out(qg_transfers *t, qg_transfer *x)
{
	qg_transfer **at = bucket_of(t, &x->id);
	while (*at != x)
		at = &(*at)->next;
	*at = x->next;
	t->count--;
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

static qg_transfer *
record_of(const qg_transfer_rec *rec)
{
	if (rec->n_targets == 0 || rec->n_targets > SIZE_MAX / 2 / sizeof(char *))
		return NULL;
	const char **saes = calloc(rec->n_targets, sizeof *saes);
	if (saes == NULL)
		return NULL;
	for (size_t i = 0; i < rec->n_targets; i++)
		saes[i] = rec->target[i].sae;
	qg_transfer *x = record_new(rec->initiator, &rec->key_id, saes, rec->n_targets);
	free(saes);
	return x;
}

static qg_err
load(const qg_transfer_rec *rec, void *ctx)
{
	qg_transfers *t = ctx;
	if (rec->n_targets == 0)
		return QG_E_CORRUPT;
	qg_transfer *x = record_of(rec);
	if (x == NULL)
		return QG_E_NOMEM;
	x->row = rec->row;
	x->state = rec->state;
	x->size_bytes = rec->size_bytes;
	x->expiry_ms = rec->expiry_ms;
	for (size_t i = 0; i < x->n_targets; i++)
		x->targets[i].state = rec->target[i].state;
	const qg_err err = copy_sealed(x, rec);
	if (err != QG_OK) {
		record_free(x);
		return err;
	}
	if (is_spent(x))
		drop_value(x);
	insert(t, x);
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
			assert(x->claims == 0 && !x->purging);
			record_free(x);
		}
	}
	free((*t)->buckets);
	(void)pthread_mutex_destroy(&(*t)->lock);
	free(*t);
	*t = NULL;
}

size_t
qg_transfers_count(qg_transfers *t)
{
	pthread_mutex_lock(&t->lock);
	const size_t count = t->count;
	pthread_mutex_unlock(&t->lock);
	return count;
}

bool
qg_transfer_known(qg_transfers *t, const qg_uuid *id)
{
	pthread_mutex_lock(&t->lock);
	const qg_transfer *x = *bucket_of(t, id);
	while (x != NULL && !qg_uuid_equal(&x->id, id))
		x = x->next;
	pthread_mutex_unlock(&t->lock);
	return x != NULL;
}

/* --- adding -------------------------------------------------------------------------- */

static bool
exists(qg_transfers *t, const char *initiator, const qg_uuid *id)
{
	pthread_mutex_lock(&t->lock);
	const bool found = find(t, initiator, id) != NULL;
	pthread_mutex_unlock(&t->lock);
	return found;
}

qg_err
qg_transfer_prepare(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *const *targets,
		    size_t n_targets, const uint8_t *value, uint32_t size_bytes, uint64_t expiry_ms, qg_transfer **out)
{
	if (n_targets == 0 || size_bytes == 0)
		return QG_E_INVAL;
	if (exists(t, initiator, id))
		return QG_E_EXISTS;
	qg_transfer *x = record_new(initiator, id, targets, n_targets);
	if (x == NULL)
		return QG_E_NOMEM;
	x->state = QG_TRANSFER_HELD;
	x->size_bytes = size_bytes;
	x->expiry_ms = expiry_ms;
	for (size_t i = 0; i < n_targets; i++)
		x->targets[i].state = QG_TARGET_PENDING;
	const qg_err err = record_seal(x, t->sealer, value);
	if (err != QG_OK) {
		record_free(x);
		return err;
	}
	*out = x;
	return QG_OK;
}

qg_err
qg_transfer_store(qg_transfer *x, qg_store *store)
{
	qg_target_rec *targets = calloc(x->n_targets, sizeof *targets);
	if (targets == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < x->n_targets; i++)
		targets[i] = (qg_target_rec){.sae = x->targets[i].sae, .state = x->targets[i].state};
	qg_transfer_rec rec = {
		.initiator = x->initiator,
		.key_id = x->id,
		.state = x->state,
		.origin = "local",
		.sealed = x->sealed,
		.sealed_len = x->sealed_len,
		.size_bytes = x->size_bytes,
		.expiry_ms = x->expiry_ms,
		.target = targets,
		.n_targets = x->n_targets,
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
		record_free(x);
		return;
	}
	x->value_stored = true;
	pthread_mutex_lock(&t->lock);
	insert(t, x); /* the store has refused a second one */
	pthread_mutex_unlock(&t->lock);
}

/* --- claims ---------------------------------------------------------------------------- */

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
may_claim(const qg_transfer *x, const target *tg, uint64_t now_ms)
{
	if (x->state == QG_TRANSFER_PREPARED || x->state == QG_TRANSFER_OFFERED)
		return QG_E_NOTFOUND;
	if (x->state != QG_TRANSFER_HELD && x->state != QG_TRANSFER_RELEASED)
		return QG_E_CONSUMED;
	if (!is_open(tg))
		return QG_E_CONSUMED;
	if (tg->claimed) /* not yet consumed: its outcome decides (SOUNDNESS 10) */
		return QG_E_AGAIN;
	if (x->sealed == NULL || x->purging || x->expiry_ms <= now_ms)
		return QG_E_CONSUMED;
	return QG_OK;
}

static qg_err
claim_locked(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *sae, uint64_t now_ms,
	     qg_transfer_claim *c)
{
	qg_transfer *x = find(t, initiator, id);
	target *tg = x == NULL ? NULL : find_target(x, sae);
	if (tg == NULL)
		return QG_E_NOTFOUND;
	const qg_err err = may_claim(x, tg, now_ms);
	if (err != QG_OK)
		return err;
	tg->claimed = true;
	x->claims++;
	*c = (qg_transfer_claim){.owner = t, .record = x, .target = tg};
	return QG_OK;
}

qg_err
qg_transfer_claim_new(qg_transfers *t, const char *initiator, const qg_uuid *id, const char *target_sae, uint64_t now_ms,
		      qg_transfer_claim **out)
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
		last = last && (other == c->target || !is_open(other));
	}
	pthread_mutex_unlock(&c->owner->lock);
	return last;
}

qg_err
qg_transfer_claim_store(qg_transfer_claim *c, qg_store *store)
{
	const qg_transfer *x = c->record;
	c->forgot = false;
	qg_err err = store->ops->target_state(store, x->row, c->target->sae, c->target->state, QG_TARGET_DELIVERED);
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
	const qg_transfer *x = c->record;
	uint8_t ad[AD_MAX];
	size_t ad_len;
	qg_err err = associated_data(x, ad, &ad_len);
	if (err != QG_OK)
		return err;
	QG_SECRET_AUTO *value = NULL;
	err = qg_sealer_unseal(c->owner->sealer, ad, ad_len, x->sealed, x->sealed_len, &value);
	if (err != QG_OK)
		return err;
	if (value->len != x->size_bytes)
		return QG_E_CORRUPT;
	memcpy(out, value->data, value->len);
	return QG_OK;
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
	if (is_spent(x))
		drop_value(x);
	pthread_mutex_unlock(&t->lock);
	free(*c);
	*c = NULL;
}

/* --- housekeeping ------------------------------------------------------------------------ */

typedef struct purge_item {
	qg_transfer *record;
	bool expired; /* delete it; else only its value is forgotten */
} purge_item;

typedef struct purge {
	qg_job job; /* first */
	qg_transfers *owner;
	size_t n;
	purge_item items[PURGE_ROWS];
} purge;

static qg_err
purge_run(qg_job *job, qg_store *store)
{
	const purge *p = (const purge *)job;
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < p->n; i++) {
		const int64_t row = p->items[i].record->row;
		err = p->items[i].expired ? store->ops->transfer_delete(store, row)
					  : store->ops->transfer_unseal(store, row);
	}
	return err;
}

/* What could not be written is taken up again next time. */
static void
purge_done(qg_job *job, qg_err err)
{
	purge *p = (purge *)job;
	qg_transfers *t = p->owner;
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < p->n; i++) {
		qg_transfer *x = p->items[i].record;
		x->purging = false;
		if (err != QG_OK)
			continue;
		x->value_stored = false;
		if (p->items[i].expired) {
			take_out(t, x);
			record_free(x);
		}
	}
	pthread_mutex_unlock(&t->lock);
	if (err != QG_OK && err != QG_E_CLOSED)
		qg_log(QG_LOG_WARN, "transfer", "event=purge_failed records=%zu error=\"%s\"", p->n, qg_err_text(err));
	free(p);
}

/* False when p is full before the bucket's end. */
static bool
collect_bucket(qg_transfer *first, uint64_t now_ms, purge *p)
{
	for (qg_transfer *x = first; x != NULL; x = x->next) {
		const bool expired = x->expiry_ms <= now_ms;
		if (x->purging || x->claims > 0 || !(expired || (x->value_stored && is_spent(x))))
			continue;
		if (p->n == PURGE_ROWS)
			return false;
		x->purging = true;
		p->items[p->n++] = (purge_item){.record = x, .expired = expired};
	}
	return true;
}

/* Looks at some buckets from *at on. Returns whether more are left. */
static bool
collect(qg_transfers *t, uint64_t now_ms, size_t *at, purge *p)
{
	pthread_mutex_lock(&t->lock);
	bool room = true;
	for (size_t i = 0; room && i < SCAN_BUCKETS && *at < t->n_buckets; i++) {
		room = collect_bucket(t->buckets[*at], now_ms, p);
		*at += room;
	}
	const bool more = *at < t->n_buckets;
	pthread_mutex_unlock(&t->lock);
	return more;
}

static size_t
count_expired(const purge *p)
{
	size_t n = 0;
	for (size_t i = 0; i < p->n; i++)
		n += p->items[i].expired;
	return n;
}

size_t
qg_transfers_expire(qg_transfers *t, qg_committer *c, uint64_t now_ms)
{
	size_t expired = 0;
	size_t at = 0;
	bool more = true;
	while (more) {
		purge *p = calloc(1, sizeof *p);
		if (p == NULL)
			break;
		p->job = (qg_job){.run = purge_run, .done = purge_done};
		p->owner = t;
		more = collect(t, now_ms, &at, p);
		expired += count_expired(p);
		if (p->n > 0)
			qg_committer_submit(c, &p->job);
		else
			free(p);
	}
	return expired;
}
