/* SPDX-License-Identifier: Apache-2.0 */
/* Names are found through a keyed 128-bit hash and stand for it from then on:
 * no name is stored, and who chooses names cannot make them collide. */
#include "qkdgate/limits.h"

#include <pthread.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/secret.h"

#define NAMES_MAX 65536u
#define NONE 0u /* entries are numbered from 1, so that zeroed memory is an empty table */

#define WINDOW_PARTS 32u
#define WINDOW_SLOTS QG_WINDOW_SLOTS /* one more than parts: the oldest counts until its newest amount is too old */

typedef struct name_id {
	uint8_t b[crypto_shorthash_siphashx24_BYTES];
} name_id;

typedef struct name_entry {
	name_id id;
	uint32_t chain;        /* next in the same bucket */
	uint32_t older, newer; /* by last use */
} name_entry;

typedef struct names {
	uint8_t key[crypto_shorthash_siphashx24_KEYBYTES];
	uint32_t used;
	uint32_t oldest, newest;
	uint32_t bucket[NAMES_MAX];
	name_entry entry[NAMES_MAX + 1];
} names;

/* Untouched pages of calloc cost nothing, so the full size is asked for. */
static names *
names_new(void)
{
	names *t = calloc(1, sizeof *t);
	if (t != NULL)
		qg_random(t->key, sizeof t->key);
	return t;
}

static name_id
names_id(const names *t, const char *name)
{
	name_id id;
	crypto_shorthash_siphashx24(id.b, (const uint8_t *)name, strlen(name), t->key);
	return id;
}

static uint32_t *
names_bucket(names *t, const name_id *id)
{
	uint32_t h;
	memcpy(&h, id->b, sizeof h);
	return &t->bucket[h % NAMES_MAX];
}

static uint32_t
names_find(names *t, const name_id *id)
{
	uint32_t i = *names_bucket(t, id);
	while (i != NONE && memcmp(&t->entry[i].id, id, sizeof *id) != 0)
		i = t->entry[i].chain;
	return i;
}

static void
names_unlink(names *t, uint32_t i)
{
	name_entry *e = &t->entry[i];
	*(e->older != NONE ? &t->entry[e->older].newer : &t->oldest) = e->newer;
	*(e->newer != NONE ? &t->entry[e->newer].older : &t->newest) = e->older;
}

static void
names_link_newest(names *t, uint32_t i)
{
	t->entry[i].older = t->newest;
	t->entry[i].newer = NONE;
	*(t->newest != NONE ? &t->entry[t->newest].newer : &t->oldest) = i;
	t->newest = i;
}

/* Takes the entry that was not used for longest out of the table. */
static uint32_t
names_evict(names *t)
{
	uint32_t i = t->oldest;
	names_unlink(t, i);
	uint32_t *at = names_bucket(t, &t->entry[i].id);
	while (*at != i)
		at = &t->entry[*at].chain;
	*at = t->entry[i].chain;
	return i;
}

/* The entry of the name, made when there is none; it is now the newest. */
static uint32_t
names_get_id(names *t, name_id id, bool *made)
{
	uint32_t i = names_find(t, &id);
	*made = i == NONE;
	if (i != NONE) {
		names_unlink(t, i);
	} else {
		i = t->used < NAMES_MAX ? ++t->used : names_evict(t);
		uint32_t *head = names_bucket(t, &id);
		t->entry[i].id = id;
		t->entry[i].chain = *head;
		*head = i;
	}
	names_link_newest(t, i);
	return i;
}

static uint32_t
names_get(names *t, const char *name, bool *made)
{
	return names_get_id(t, names_id(t, name), made);
}

/* Rounded up to whole seconds, at least one, at most what the type holds. */
static uint32_t
retry_seconds(uint64_t wait_ms)
{
	uint64_t s = wait_ms / 1000 + (wait_ms % 1000 != 0);
	if (s == 0)
		return 1;
	return s > UINT32_MAX ? UINT32_MAX : (uint32_t)s;
}

/* Tokens are counted in thousandths: per_s of them come each millisecond. */
typedef struct bucket {
	uint64_t milli;
	uint64_t last_ms;
} bucket;

struct qg_limits {
	pthread_mutex_t lock;
	_Atomic uint32_t per_s;
	uint64_t full_milli;
	bool begin_empty;
	uint64_t begin_ms; /* then: as of this time */
	names *names;
	bucket *bucket;
};

qg_err
qg_limits_new(uint32_t per_s, uint32_t burst, qg_limits **out)
{
	qg_limits *l = calloc(1, sizeof *l);
	if (l == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&l->lock, NULL);
	qg_limits_set(l, per_s, burst);
	/* Also without a rate: there may be one later. */
	l->names = names_new();
	l->bucket = calloc(NAMES_MAX + 1, sizeof *l->bucket);
	if (l->names == NULL || l->bucket == NULL) {
		qg_limits_free(&l);
		return QG_E_NOMEM;
	}
	*out = l;
	return QG_OK;
}

void
qg_limits_set(qg_limits *l, uint32_t per_s, uint32_t burst)
{
	pthread_mutex_lock(&l->lock);
	l->full_milli = (uint64_t)(burst > per_s ? burst : per_s) * 1000;
	atomic_store(&l->per_s, per_s);
	pthread_mutex_unlock(&l->lock);
}

void
qg_limits_free(qg_limits **l)
{
	if (l == NULL || *l == NULL)
		return;
	pthread_mutex_destroy(&(*l)->lock);
	free((*l)->names);
	free((*l)->bucket);
	free(*l);
	*l = NULL;
}

/* Readings taken by several threads come in any order: an older one adds
 * nothing. */
static void
bucket_fill(const qg_limits *l, bucket *b, uint64_t now_ms)
{
	if (b->milli > l->full_milli) /* it was more when that came in */
		b->milli = l->full_milli;
	if (now_ms <= b->last_ms)
		return;
	uint64_t gone_ms = now_ms - b->last_ms;
	uint64_t missing = l->full_milli - b->milli;
	b->milli = gone_ms >= missing / l->per_s + 1 ? l->full_milli : b->milli + gone_ms * l->per_s;
	if (b->milli > l->full_milli)
		b->milli = l->full_milli;
	b->last_ms = now_ms;
}

/* The name's, made where there is none. */
static bucket *
bucket_of(qg_limits *l, const char *name, uint64_t now_ms)
{
	bool made;
	bucket *b = &l->bucket[names_get(l->names, name, &made)];
	if (made && l->begin_empty)
		*b = (bucket){.last_ms = l->begin_ms};
	else if (made)
		*b = (bucket){.milli = l->full_milli, .last_ms = now_ms};
	return b;
}

void
qg_limits_begin_empty(qg_limits *l, uint64_t now_ms)
{
	pthread_mutex_lock(&l->lock);
	l->begin_empty = true;
	l->begin_ms = now_ms;
	pthread_mutex_unlock(&l->lock);
}

bool
qg_limits_level(qg_limits *l, const char *name, uint64_t now_ms, uint64_t *milli)
{
	bool some = false;
	pthread_mutex_lock(&l->lock);
	if (l->per_s != 0) {
		bucket *b = bucket_of(l, name, now_ms);
		bucket_fill(l, b, now_ms);
		some = b->milli < l->full_milli;
		if (some)
			*milli = b->milli;
	}
	pthread_mutex_unlock(&l->lock);
	return some;
}

void
qg_limits_put(qg_limits *l, const char *name, uint64_t milli, uint64_t away_ms, uint64_t now_ms)
{
	pthread_mutex_lock(&l->lock);
	if (l->per_s != 0) {
		bucket *b = bucket_of(l, name, now_ms);
		*b = (bucket){.milli = milli, .last_ms = now_ms};
		bucket_fill(l, b, now_ms);
		b->last_ms = 0; /* what came meanwhile: elapsed time may begin with the machine */
		bucket_fill(l, b, away_ms);
		b->last_ms = now_ms;
	}
	pthread_mutex_unlock(&l->lock);
}

static qg_err
bucket_take(const qg_limits *l, bucket *b, uint32_t n, uint32_t *retry_after_s)
{
	uint64_t want = (uint64_t)n * 1000;
	if (want <= b->milli) {
		b->milli -= want;
		return QG_OK;
	}
	/* More than a full bucket never passes; the time to fill it is all
	 * that can be said. */
	uint64_t target = want < l->full_milli ? want : l->full_milli;
	*retry_after_s = retry_seconds((target - b->milli + l->per_s - 1) / l->per_s);
	return QG_E_LIMIT;
}

qg_err
qg_limits_take(qg_limits *l, const char *name, uint32_t n, uint64_t now_ms, uint32_t *retry_after_s)
{
	if (l->per_s == 0)
		return QG_OK;
	qg_err err = QG_OK;
	pthread_mutex_lock(&l->lock);
	if (l->per_s != 0) { /* it may have changed */
		bucket *b = bucket_of(l, name, now_ms);
		bucket_fill(l, b, now_ms);
		err = bucket_take(l, b, n, retry_after_s);
	}
	pthread_mutex_unlock(&l->lock);
	return err;
}

/* Amounts by slot of time; an amount counts for the window and at most one
 * slot longer, never shorter. */
typedef struct history {
	uint64_t newest; /* number of the newest slot */
	uint64_t sum;
	uint64_t slot[WINDOW_SLOTS];
	bool changed;
	uint32_t next_changed; /* stays with the entry, whoever has it */
} history;

struct qg_window {
	pthread_mutex_t lock;
	uint64_t most;
	uint64_t window_ms;
	uint64_t slot_ms;
	names *names;
	history *history;
	uint32_t changed; /* the first */
};

qg_err
qg_window_new(uint32_t window_s, uint64_t most, qg_window **out)
{
	if (window_s == 0)
		return QG_E_INVAL;
	qg_window *w = calloc(1, sizeof *w);
	if (w == NULL)
		return QG_E_NOMEM;
	w->most = most;
	w->window_ms = (uint64_t)window_s * 1000;
	w->slot_ms = (w->window_ms + WINDOW_PARTS - 1) / WINDOW_PARTS;
	pthread_mutex_init(&w->lock, NULL);
	w->names = names_new();
	w->history = calloc(NAMES_MAX + 1, sizeof *w->history);
	if (w->names == NULL || w->history == NULL) {
		qg_window_free(&w);
		return QG_E_NOMEM;
	}
	*out = w;
	return QG_OK;
}

void
qg_window_free(qg_window **w)
{
	if (w == NULL || *w == NULL)
		return;
	pthread_mutex_destroy(&(*w)->lock);
	free((*w)->names);
	free((*w)->history);
	free(*w);
	*w = NULL;
}

/* Counted from WINDOW_SLOTS, so that slots before the first have numbers too;
 * and slot k is forgotten at k * slot_ms. */
static uint64_t
slot_number(const qg_window *w, uint64_t now_ms)
{
	return now_ms / w->slot_ms + WINDOW_SLOTS;
}

/* Nothing, as of the slot; whether it is to be written stays. */
static void
history_begin(history *h, uint64_t number)
{
	memset(h->slot, 0, sizeof h->slot);
	h->sum = 0;
	h->newest = number;
}

static void
history_advance(history *h, uint64_t number)
{
	if (number <= h->newest)
		return;
	if (number - h->newest >= WINDOW_SLOTS) {
		history_begin(h, number);
		return;
	}
	while (h->newest < number) {
		uint64_t *slot = &h->slot[++h->newest % WINDOW_SLOTS];
		h->sum -= *slot;
		*slot = 0;
	}
}

/* When so many of the oldest slots are forgotten that n fits. */
static uint64_t
history_wait_ms(const qg_window *w, const history *h, uint64_t n, uint64_t now_ms)
{
	if (n > w->most)
		return w->window_ms;
	uint64_t number = h->newest - WINDOW_PARTS, left = h->sum;
	while (number < h->newest) {
		left -= h->slot[number % WINDOW_SLOTS];
		if (left <= w->most - n)
			break;
		number++;
	}
	uint64_t then_ms = number * w->slot_ms;
	return then_ms > now_ms ? then_ms - now_ms : 0;
}

static qg_err
history_add(const qg_window *w, history *h, uint64_t n, uint64_t now_ms, uint32_t *retry_after_s)
{
	if (w->most > 0 && (h->sum > w->most || n > w->most - h->sum)) {
		*retry_after_s = retry_seconds(history_wait_ms(w, h, n, now_ms));
		return QG_E_LIMIT;
	}
	if (n > UINT64_MAX - h->sum) /* only without a limit */
		n = UINT64_MAX - h->sum;
	h->slot[h->newest % WINDOW_SLOTS] += n;
	h->sum += n;
	return QG_OK;
}

/* Of the name, as of now; made when there is none. */
static uint32_t
history_get(qg_window *w, name_id id, uint64_t now_ms)
{
	bool made;
	const uint32_t i = names_get_id(w->names, id, &made);
	history *h = &w->history[i];
	if (made) /* nothing of who had the entry before */
		history_begin(h, slot_number(w, now_ms));
	history_advance(h, slot_number(w, now_ms));
	return i;
}

static void
history_changed(qg_window *w, uint32_t i)
{
	history *h = &w->history[i];
	if (h->changed)
		return;
	h->changed = true;
	h->next_changed = w->changed;
	w->changed = i;
}

qg_err
qg_window_add(qg_window *w, const char *name, uint64_t n, uint64_t now_ms, uint32_t *retry_after_s)
{
	pthread_mutex_lock(&w->lock);
	const uint32_t i = history_get(w, names_id(w->names, name), now_ms);
	qg_err err = history_add(w, &w->history[i], n, now_ms, retry_after_s);
	if (err == QG_OK)
		history_changed(w, i);
	pthread_mutex_unlock(&w->lock);
	return err;
}

uint64_t
qg_window_sum(qg_window *w, const char *name, uint64_t now_ms)
{
	uint64_t sum = 0;
	pthread_mutex_lock(&w->lock);
	name_id id = names_id(w->names, name);
	uint32_t i = names_find(w->names, &id);
	if (i != NONE) {
		history_advance(&w->history[i], slot_number(w, now_ms));
		sum = w->history[i].sum;
	}
	pthread_mutex_unlock(&w->lock);
	return sum;
}

/* --- over a restart --- */

void
qg_window_use_key(qg_window *w, const uint8_t key[QG_WINDOW_KEY])
{
	_Static_assert(QG_WINDOW_KEY == crypto_shorthash_siphashx24_KEYBYTES, "key of the hash");
	_Static_assert(QG_WINDOW_NAME == sizeof(name_id), "size of the hash");
	memcpy(w->names->key, key, QG_WINDOW_KEY);
}

static void
copy_amounts(const qg_window *w, uint32_t i, uint64_t now_ms, qg_window_amounts *out)
{
	const history *h = &w->history[i];
	const uint64_t number = slot_number(w, now_ms), gone = number > h->newest ? number - h->newest : 0;
	*out = (qg_window_amounts){.slot_ms = w->slot_ms, .began_ms_ago = now_ms % w->slot_ms + gone * w->slot_ms};
	memcpy(out->name, w->names->entry[i].id.b, sizeof out->name);
	for (size_t k = 0; k < WINDOW_SLOTS; k++)
		out->n[k] = h->slot[(h->newest - k) % WINDOW_SLOTS];
}

size_t
qg_window_changed(qg_window *w, uint64_t now_ms, qg_window_amounts *out, size_t most)
{
	size_t n = 0;
	pthread_mutex_lock(&w->lock);
	while (w->changed != NONE && n < most) {
		const uint32_t i = w->changed;
		copy_amounts(w, i, now_ms, &out[n++]);
		w->changed = w->history[i].next_changed;
		w->history[i].changed = false;
	}
	pthread_mutex_unlock(&w->lock);
	return n;
}

void
qg_window_again(qg_window *w, const qg_window_amounts *a, size_t n)
{
	pthread_mutex_lock(&w->lock);
	for (size_t i = 0; i < n; i++) {
		name_id id;
		memcpy(id.b, a[i].name, sizeof id.b);
		const uint32_t at = names_find(w->names, &id);
		if (at != NONE)
			history_changed(w, at);
	}
	pthread_mutex_unlock(&w->lock);
}

void
qg_window_put(qg_window *w, const qg_window_amounts *a, uint64_t now_ms)
{
	name_id id;
	memcpy(id.b, a->name, sizeof id.b);
	pthread_mutex_lock(&w->lock);
	history *h = &w->history[history_get(w, id, now_ms)];
	for (uint64_t k = 0; k < WINDOW_SLOTS; k++) {
		/* At the latest it was added when its slot ended, or now. */
		const uint64_t began_ms_ago = a->began_ms_ago + k * a->slot_ms;
		const uint64_t ago_ms = began_ms_ago > a->slot_ms ? began_ms_ago - a->slot_ms : 0;
		const uint64_t back = ago_ms / w->slot_ms;
		if (back >= WINDOW_SLOTS)
			break;
		const uint64_t n = a->n[k] < UINT64_MAX - h->sum ? a->n[k] : UINT64_MAX - h->sum;
		h->slot[(h->newest - back) % WINDOW_SLOTS] += n;
		h->sum += n;
	}
	pthread_mutex_unlock(&w->lock);
}
