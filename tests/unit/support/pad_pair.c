/* SPDX-License-Identifier: Apache-2.0 */
#include "core_pair.c"

/* Messages masked with node key of a pair, for the tests of it: what each end
 * does with one, and a record of every byte that was ever taken. Included as a
 * .c file after cmocka.h. */

#include <stdio.h>

#include "../../../src/core/pad_parts_internal.h"
#include "../../../src/core/pad_internal.h"

#define USED_MAX 65536
#define SEG_BYTES ((PAIR_SEGMENT - 2) * PAIR_CHUNK) /* of node key in a segment */

static core_pair *p;
static pair_keys *k, *got;

/* Every range that was ever taken, to see that none comes twice. */
static qg_kms_pad used[USED_MAX];
static size_t n_used;
static uint64_t seed;

static int setup(void **state)
{
	(void)state;
	k = keys_new();
	got = keys_new();
	n_used = 0;
	seed = 20240607;
	printf("seed %llu\n", (unsigned long long)seed);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	bool once = p == NULL || pair_signed_once(p);
	pair_free(&p);
	keys_free(&k);
	keys_free(&got);
	return once ? 0 : -1;
}

static uint32_t below(uint32_t n)
{
	seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (uint32_t)(seed >> 33) % n;
}

/* --- both sides -------------------------------------------------------------------- */

typedef struct message {
	qg_pad_use use;
	size_t n; /* of data */
	uint8_t key[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
} message;

typedef struct gate {
	qg_waiter waiter; /* first member */
	sem_t told;
	qg_err err;
} gate;

static void gate_opens(qg_waiter *w, qg_err err)
{
	gate *g = (gate *)w;
	g->err = err;
	sem_post(&g->told);
}

static void gate_init(gate *g)
{
	*g = (gate){ .waiter = { .again = gate_opens }, .err = QG_E_STATE };
	must(sem_init(&g->told, 0, 0) == 0, "semaphore");
}

static bool gate_wait(gate *g, unsigned ms)
{
	for (; ms > 0; ms--) {
		if (sem_trywait(&g->told) == 0)
			return true;
		pair_nap(1);
	}
	return false;
}

static bool overlaps(const qg_kms_pad *a, const qg_kms_pad *b)
{
	return a->segment == b->segment && memcmp(a->epoch, b->epoch, 16) == 0 && a->offset < b->offset + b->len &&
	       b->offset < a->offset + a->len;
}

static void note_used(const qg_pad_use *use)
{
	for (size_t i = 0; i < use->n; i++) {
		for (size_t j = 0; j < n_used; j++)
			assert_false(overlaps(&use->pad[i], &used[j]));
		assert_true(n_used < USED_MAX);
		used[n_used++] = use->pad[i];
	}
}

static qg_err try_take(qg_stream *st, size_t n, message *m)
{
	qg_secret *key = NULL;
	pthread_mutex_lock(&st->lock);
	qg_err err = qg_pads_take(st, n, &m->use, &key, NULL);
	pthread_mutex_unlock(&st->lock);
	if (err != QG_OK)
		return err;
	m->n = n;
	must(key->len == QG_KMS_MAC_OVERHEAD + n, "length");
	memcpy(m->key, key->data, key->len);
	qg_secret_free(&key);
	return QG_OK;
}

static void take(int side, size_t n, message *m)
{
	qg_err err = QG_E_EMPTY;
	for (unsigned ms = 0; ms < PAIR_WAIT_MS && err == QG_E_EMPTY; ms++) {
		err = try_take(pair_out(p, side), n, m);
		if (err == QG_E_EMPTY)
			pair_nap(1);
	}
	assert_int_equal(err, QG_OK);
	note_used(&m->use);
}

static void settle(int side, const message *m)
{
	qg_stream *st = pair_out(p, side);
	pthread_mutex_lock(&st->lock);
	qg_pads_settle(st, &m->use);
	pthread_mutex_unlock(&st->lock);
}

static qg_err peek_pads(int side, const qg_kms_pad *pad, size_t n, uint8_t *out)
{
	qg_stream *st = pair_in(p, side);
	qg_secret *key = NULL;
	pthread_mutex_lock(&st->lock);
	qg_err err = qg_pads_peek(st, pad, n, &key);
	pthread_mutex_unlock(&st->lock);
	if (err == QG_OK && out != NULL)
		memcpy(out, key->data, key->len);
	qg_secret_free(&key);
	return err;
}

static qg_err peek(int side, const message *m)
{
	static uint8_t key[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
	qg_err err = peek_pads(side, m->use.pad, m->use.n, key);
	if (err == QG_OK)
		assert_memory_equal(key, m->key, QG_KMS_MAC_OVERHEAD + m->n);
	return err;
}

static qg_err open_named_pads(int side, const message *m)
{
	qg_stream *st = pair_in(p, side);
	for (int i = 0; i < 8; i++) {
		gate g;
		gate_init(&g);
		pthread_mutex_lock(&st->lock);
		qg_err err = qg_pads_open(st, m->use.pad, m->use.n, m->use.opened_pad, &g.waiter);
		pthread_mutex_unlock(&st->lock);
		if (err != QG_E_AGAIN)
			return err;
		assert_true(gate_wait(&g, PAIR_WAIT_MS));
		if (g.err != QG_OK)
			return g.err;
	}
	return QG_E_AGAIN;
}

static qg_err spend(int side, const message *m)
{
	qg_stream *st = pair_in(p, side);
	pthread_mutex_lock(&st->lock);
	qg_err err = qg_pads_spend(st, m->use.pad, m->use.n, m->use.oldest_mac, m->use.oldest_pad);
	pthread_mutex_unlock(&st->lock);
	return err;
}

/* The whole of what the far end does with a message. */
static qg_err receive(int side, const message *m)
{
	qg_err err = peek(side, m);
	if (err == QG_OK)
		err = open_named_pads(side, m);
	if (err == QG_OK)
		err = spend(side, m);
	return err;
}

static void pass(int side, size_t n)
{
	static message m;
	take(side, n, &m);
	assert_int_equal(receive(side, &m), QG_OK);
	settle(side, &m);
}

static qg_pad_account account(qg_stream *st, bool ours)
{
	qg_pad_account a;
	pthread_mutex_lock(&st->lock);
	qg_pads_account(st, ours, &a);
	pthread_mutex_unlock(&st->lock);
	assert_int_equal(a.opened, a.used + a.given_up + a.open);
	assert_int_equal(a.used, a.data + a.overhead);
	assert_int_equal(a.overhead, a.messages * QG_KMS_MAC_OVERHEAD);
	return a;
}

static uint64_t ready_bytes(qg_stream *st)
{
	pthread_mutex_lock(&st->lock);
	uint64_t n = qg_pads_ready_bytes(st);
	pthread_mutex_unlock(&st->lock);
	return n;
}

typedef struct level {
	int side;
	uint64_t bytes;
} level;

static bool has_level(core_pair *pair, void *ctx)
{
	const level *l = ctx;
	return ready_bytes(pair_out(pair, l->side)) >= l->bytes;
}

static void wait_level(int side, uint64_t bytes)
{
	assert_true(pair_wait(p, has_level, &(level){ side, bytes }));
}

static bool is_open(core_pair *pair, void *ctx)
{
	qg_stream *st = pair_out(pair, *(int *)ctx);
	pthread_mutex_lock(&st->lock);
	bool open = qg_pads_open_bytes(st) > 0 && !st->pads->job && st->pads->opening == NULL;
	pthread_mutex_unlock(&st->lock);
	return open;
}

/* Full, and nothing is under way. */
static void start_full(const pair_options *o)
{
	int side = 0;
	p = pair_start(o);
	assert_true(pair_wait_idle(p, side));
	assert_true(pair_wait(p, is_open, &side));
}

/* --- rows of the store --------------------------------------------------------------- */

typedef struct row_wish {
	bool ours, found;
	uint32_t segment;
} row_wish;

static qg_err find_row(const qg_segment_rec *rec, void *ctx)
{
	row_wish *w = ctx;
	w->found |= rec->ours == w->ours && rec->number == w->segment;
	return QG_OK;
}

/* Whether the store of an end has the segment of KME-A's stream; its epoch is
 * the only one. */
static bool row_there(core_end *e, uint32_t segment)
{
	row_wish w = { .ours = e->side == 0, .segment = segment };
	end_hold_commits(e);
	must(e->store.inner->ops->load_segments(e->store.inner, find_row, &w) == QG_OK, "rows");
	end_let_commits(e);
	return w.found;
}

static void end_epoch(int side)
{
	qg_stream *st = pair_out(p, side);
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_filling(st);
	if (e != NULL)
		qg_epoch_end(e, QG_KMS_CLOSE_AGE, true);
	pthread_mutex_unlock(&st->lock);
}

/* Takes what is open until no more comes. */
static void drain_open(void)
{
	static message m;
	while (try_take(pair_out(p, 0), 1000, &m) == QG_OK) {
		note_used(&m.use);
		settle(0, &m);
	}
}
