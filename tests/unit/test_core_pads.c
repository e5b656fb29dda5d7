/* SPDX-License-Identifier: Apache-2.0 */
/* Node key: pads and MAC keys are used once, at both ends alike, and never as
 * a key of an application (SOUNDNESS 6 and 16). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "support/pad_pair.c"

/* --- rule 6 ------------------------------------------------------------------------ */

/* One of which nothing was issued. */
static qg_segment *stored_of(qg_stream *st, bool ours, qg_segment_use use)
{
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		for (uint32_t i = 0; i < e->n_seg; i++) {
			qg_segment *s = e->seg[i];
			if (s != NULL && s->ours == ours && s->use == use && s->phase == QG_SEG_CONFIRMED &&
			    s->row != 0 && s->cursor == s->lo)
				return s;
		}
	return NULL;
}

/* An ID for a place in a segment, as only the owner could make it. */
static void forge_id(qg_epoch *e, uint32_t number, qg_uuid *id)
{
	qg_key_id_pair pair;
	qg_key_id_pair_of(e->keys_out, "sae-alice", "sae-bob", &pair);
	qg_key_id_position pos = { .index = number * e->segment_chunks + 60, .size_bytes = 32 };
	qg_key_id_make(e->keys_out, &pair, pos, id);
	qg_wipe(&pair, sizeof pair);
}

static void test_rule_06_node_key_is_never_fetched(void **state)
{
	(void)state;
	static const qg_segment_use uses[] = { QG_USE_MAC, QG_USE_PAD, QG_USE_APPLICATION };
	message *m = calloc(1, sizeof *m);
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	qg_stream *st = pair_out(p, 0);
	wait_level(0, 64 * SEG_BYTES / 2);
	/* What is issued is never node key. */
	assert_true(pair_deliver(p, 0, 100, 32));
	for (int i = 0; i < 3; i++) {
		qg_uuid id;
		pthread_mutex_lock(&st->lock);
		qg_segment *s = stored_of(st, true, uses[i]);
		must(s != NULL || uses[i] == QG_USE_MAC, "no such segment");
		qg_epoch *e = st->newest;
		uint32_t number = s != NULL ? s->number : qg_pads_stock(st, uses[i])->out->number;
		forge_id(e, number, &id);
		pthread_mutex_unlock(&st->lock);
		qg_err err = pair_fetch(&p->end[1], "sae-alice", "sae-bob", &id, 1, got);
		assert_int_equal(err, uses[i] == QG_USE_APPLICATION ? QG_OK : QG_E_NOTFOUND);
	}
	/* Nor one that is open at the far end. */
	take(0, 100, m);
	assert_int_equal(receive(0, m), QG_OK);
	for (size_t i = 0; i < m->use.n; i++) {
		qg_uuid id;
		pthread_mutex_lock(&st->lock);
		forge_id(st->newest, m->use.pad[i].segment, &id);
		pthread_mutex_unlock(&st->lock);
		assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", &id, 1, got), QG_E_NOTFOUND);
	}
	free(m);
}

typedef struct verdict {
	sem_t told;
	qg_kms_batch_result result;
} verdict;

static void answer_result(void *ctx, int status, const char *body, size_t len)
{
	verdict *v = ctx;
	qg_kms_batch_answer a;
	must(status == 200 && qg_kms_batch_answer_decode(body, len, &a) == QG_OK, "answer");
	v->result = a.result;
	sem_post(&v->told);
}

static bool on_offer(core_pair *pair, void *ctx)
{
	(void)ctx;
	qg_stream *st = pair_out(pair, 0), *in = pair_in(pair, 0);
	pthread_mutex_lock(&st->lock);
	bool good = st->offer != NULL && st->offer->phase == QG_SEG_OFFERED;
	pthread_mutex_unlock(&st->lock);
	pthread_mutex_lock(&in->lock);
	qg_segment *s = in->newest != NULL ? qg_epoch_segment(in->newest, 0) : NULL;
	good &= s != NULL && s->phase == QG_SEG_FULL;
	pthread_mutex_unlock(&in->lock);
	return good;
}

static bool has_epoch(core_pair *pair, void *ctx)
{
	(void)ctx;
	return pair_epoch(pair_in(pair, 0)).any && pair_epoch(pair_out(pair, 0)).any;
}

/* The key-ID root in a node segment: a right MAC does not help. */
static void test_rule_06_the_root_is_not_in_a_node_segment(void **state)
{
	(void)state;
	p = pair_new(&(pair_options){ .node_chunks = 640, .node_percent = 100 });
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, has_epoch, NULL));
	atomic_store(&p->end[0].link_down, true);
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, false);
	assert_true(pair_wait(p, on_offer, NULL));
	qg_stream *st = pair_out(p, 0);
	qg_kms_batch m;
	pthread_mutex_lock(&st->lock);
	qg_segment *s = st->offer;
	must(qg_kms_batch_decode(s->message, s->message_len, &m) == QG_OK, "batch");
	assert_int_equal(m.use, QG_USE_APPLICATION);
	assert_true(m.root);
	m.use = QG_USE_PAD;
	qg_segment_request_mac(s, &m, m.mac);
	pthread_mutex_unlock(&st->lock);
	char text[2048];
	size_t len = 0;
	verdict v = { .result = QG_KMS_BATCH_CONFIRMED };
	must(sem_init(&v.told, 0, 0) == 0, "semaphore");
	assert_int_equal(qg_kms_batch_encode(&m, text, sizeof text, &len), QG_OK);
	qg_peers_receive(qg_core_peers(p->end[1].core), "KME-A", QG_KMS_NEW_KEY_BATCH, text, len, answer_result, &v);
	while (sem_wait(&v.told) != 0)
		;
	assert_int_equal(v.result, QG_KMS_BATCH_MISMATCH);
	assert_int_equal(ready_bytes(pair_in(p, 0)), 0);
	atomic_store(&p->end[0].link_down, false);
	pass(0, 500);
	assert_true(pair_deliver(p, 0, 10, 32));
}

/* --- rule 16: each byte once -------------------------------------------------------- */

static void check_agree(int side, uint64_t messages, uint64_t data)
{
	qg_pad_account o = account(pair_out(p, side), true), f = account(pair_in(p, side), false);
	assert_int_equal(o.messages, messages);
	assert_int_equal(f.messages, messages);
	assert_int_equal(o.data, data);
	assert_int_equal(f.data, data);
	assert_int_equal(o.used, data + messages * QG_KMS_MAC_OVERHEAD);
	assert_int_equal(f.used, o.used);
}

/* No byte is passed over at a boundary. */
static void check_no_waste(void)
{
	for (size_t i = 0; i < n_used; i++) {
		bool first = used[i].offset == 0, found = first;
		for (size_t j = 0; j < n_used && !found; j++)
			found = used[j].segment == used[i].segment && memcmp(used[j].epoch, used[i].epoch, 16) == 0 &&
				used[j].offset + used[j].len == used[i].offset;
		assert_true(found);
	}
}

/* A shared stream waits for segments that the other owner passes over. */
static void both_agree(bool shared, int messages)
{
	start_full(&(pair_options){ .node_chunks = 1000, .node_percent = 50, .shared = shared });
	size_t ranges = 0, epochs = 0;
	uint64_t data = 0;
	for (int i = 0; i < messages; i++) {
		static message m;
		size_t n = i % 7 == 0 ? 0 : below(2 * SEG_BYTES);
		take(0, n, &m);
		assert_int_equal(receive(0, &m), QG_OK);
		settle(0, &m);
		data += n;
		ranges += m.use.n > 2;
		for (size_t j = 1; j < m.use.n; j++)
			epochs += memcmp(m.use.pad[j].epoch, m.use.pad[0].epoch, 16) != 0;
		if (i % 40 == 20)
			end_epoch(0);
	}
	check_agree(0, (uint64_t)messages, data);
	check_no_waste();
	assert_int_equal(account(pair_out(p, 0), true).given_up, 0);
	printf("%zu messages over segments, %zu over epochs\n", ranges, epochs);
	assert_true(ranges > 20 && epochs > 0);
}

static void test_rule_16_both_ends_agree_and_no_byte_comes_twice(void **state)
{
	(void)state;
	both_agree(false, 400);
	pair_free(&p);
	n_used = 0;
	both_agree(true, 80);
}

#define PILE 40

static void test_rule_16_reordered_and_repeated(void **state)
{
	(void)state;
	message *m = calloc(PILE, sizeof *m);
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, PILE * 1500);
	uint64_t data = 0;
	for (int i = 0; i < PILE; i++) {
		take(0, below(1500), &m[i]);
		data += m[i].n;
	}
	int order[PILE];
	for (int i = 0; i < PILE; i++)
		order[i] = i;
	for (int i = PILE - 1; i > 0; i--) {
		int j = (int)below((uint32_t)i + 1), was = order[i];
		order[i] = order[j];
		order[j] = was;
	}
	for (int i = 0; i < PILE; i++) {
		const message *one = &m[order[i]];
		assert_int_equal(receive(0, one), QG_OK);
		/* Every one so far is refused now. */
		for (int j = 0; j <= i; j += 7)
			assert_int_equal(receive(0, &m[order[j]]), QG_E_CONSUMED);
	}
	check_agree(0, PILE, data);
	for (int i = 0; i < PILE; i++)
		settle(0, &m[i]);
	/* The far end may forget them by the next message: refused all the same. */
	pass(0, 100);
	for (int i = 0; i < PILE; i++) {
		qg_err err = receive(0, &m[i]);
		assert_true(err == QG_E_CONSUMED || err == QG_E_NOTFOUND);
	}
	check_agree(0, PILE + 1, data + 100);
	free(m);
}

/* The owner still names an old segment, so that the far end cannot forget what
 * was used up since: only the last of it is remembered, and none comes twice. */
static void test_rule_16_what_is_forgotten_stays_used(void **state)
{
	(void)state;
	static message held, first;
	start_full(&(pair_options){ .node_chunks = 1000, .node_percent = 50 });
	take(0, 100, &held);
	take(0, SEG_BYTES, &first);
	assert_int_equal(receive(0, &first), QG_OK);
	for (int i = 0; i < 100; i++)
		pass(0, SEG_BYTES);
	qg_stream *st = pair_in(p, 0);
	pthread_mutex_lock(&st->lock);
	size_t remembered = st->pads->n_spent;
	pthread_mutex_unlock(&st->lock);
	assert_true(remembered > 0 && remembered <= 64);
	qg_err err = receive(0, &first);
	assert_true(err == QG_E_CONSUMED || err == QG_E_NOTFOUND);
	assert_int_equal(receive(0, &held), QG_OK);
	assert_int_not_equal(receive(0, &held), QG_OK);
	settle(0, &first);
	settle(0, &held);
	pass(0, 100);
}

/* A message that shares one byte with a used one is refused whole. */
static void test_rule_16_overlap_refuses(void **state)
{
	(void)state;
	static message a, b, c;
	start_full(&(pair_options){ .node_chunks = 2000, .node_percent = 50 });
	take(0, 300, &a);
	take(0, 300, &b);
	assert_int_equal(receive(0, &a), QG_OK);
	c = b;
	size_t last = b.use.n - 1;
	assert_true(b.use.pad[last].offset > 0 && b.use.n == 2);
	c.use.pad[last].offset--; /* one byte of a's pad */
	assert_int_equal(peek_pads(0, c.use.pad, c.use.n, NULL), QG_E_CONSUMED);
	assert_int_equal(spend(0, &c), QG_E_CONSUMED);
	c = b;
	c.use.pad[0].offset--; /* of its MAC keys */
	assert_int_equal(peek_pads(0, c.use.pad, c.use.n, NULL), QG_E_CONSUMED);
	assert_int_equal(spend(0, &c), QG_E_CONSUMED);
	/* The refused ones used nothing up. */
	assert_int_equal(receive(0, &b), QG_OK);
	/* Verified, and another used it meanwhile. */
	assert_int_equal(spend(0, &b), QG_E_CONSUMED);
	check_agree(0, 2, 600);
}

static void test_rule_16_peek_consumes_nothing(void **state)
{
	(void)state;
	static message m;
	start_full(&(pair_options){ .node_chunks = 1000, .node_percent = 50 });
	take(0, 5000, &m);
	for (int i = 0; i < 10; i++)
		assert_int_equal(peek(0, &m), QG_OK);
	assert_int_equal(account(pair_in(p, 0), false).opened, 0);
	for (size_t i = 0; i < m.use.n; i++)
		assert_true(row_there(&p->end[1], m.use.pad[i].segment));
	/* Not opened, not to be used. */
	assert_int_equal(spend(0, &m), QG_E_NOTFOUND);
	assert_int_equal(open_named_pads(0, &m), QG_OK);
	for (int i = 0; i < 10; i++)
		assert_int_equal(peek(0, &m), QG_OK);
	assert_int_equal(account(pair_in(p, 0), false).used, 0);
	assert_int_equal(spend(0, &m), QG_OK);
	assert_int_equal(peek(0, &m), QG_E_CONSUMED);
}

static void expect_invalid(const qg_kms_pad *pad, size_t n, qg_err err)
{
	assert_int_equal(peek_pads(0, pad, n, NULL), err);
	qg_stream *st = pair_in(p, 0);
	pthread_mutex_lock(&st->lock);
	assert_int_not_equal(qg_pads_spend(st, pad, n, 0, 0), QG_OK);
	pthread_mutex_unlock(&st->lock);
}

static void test_rule_16_ranges_that_cannot_be(void **state)
{
	(void)state;
	static message m;
	qg_kms_pad pad[QG_KMS_PADS_MAX + 1];
	start_full(&(pair_options){ .node_chunks = 2000, .node_percent = 50 });
	take(0, 200, &m);
	assert_int_equal(m.use.n, 2);
	const qg_kms_pad mac = m.use.pad[0], data = m.use.pad[1];
	assert_int_equal(open_named_pads(0, &m), QG_OK);
#define FRESH() (pad[0] = mac, pad[1] = data)
	expect_invalid(pad, 0, QG_E_INVAL);
	FRESH();
	pad[1].len = 0;
	expect_invalid(pad, 2, QG_E_INVAL);
	FRESH();
	pad[1].offset = SEG_BYTES - 199;
	expect_invalid(pad, 2, QG_E_INVAL);
	FRESH();
	pad[1].offset = UINT32_MAX - 100;
	expect_invalid(pad, 2, QG_E_INVAL);
	FRESH();
	pad[1].len = UINT32_MAX;
	expect_invalid(pad, 2, QG_E_INVAL);
	FRESH();
	pad[2] = data;
	expect_invalid(pad, 3, QG_E_INVAL);
	pad[2].offset += 199; /* its last byte */
	expect_invalid(pad, 3, QG_E_INVAL);
	FRESH();
	pad[0].len = 63; /* too short, or reaches over */
	expect_invalid(pad, 1, QG_E_INVAL);
	expect_invalid(pad, 2, QG_E_INVAL);
	pad[0].len = 65;
	expect_invalid(pad, 2, QG_E_INVAL);
	/* A pad as MAC key, a MAC key as pad. */
	FRESH();
	pad[0] = data;
	pad[0].len = 64;
	expect_invalid(pad, 1, QG_E_INVAL);
	FRESH();
	pad[1] = mac;
	pad[1].offset += 64;
	expect_invalid(pad, 2, QG_E_INVAL);
	for (uint32_t i = 0; i <= QG_KMS_PADS_MAX; i++) {
		pad[i] = i < 2 ? mac : data;
		pad[i].offset = i < 2 ? mac.offset + i * 32 : data.offset + i;
		pad[i].len = i < 2 ? 32 : 1;
	}
	expect_invalid(pad, QG_KMS_PADS_MAX + 1, QG_E_INVAL);
	assert_int_equal(peek_pads(0, pad, QG_KMS_PADS_MAX, NULL), QG_OK);
	/* Nothing of that name; an application's; one of our own. */
	FRESH();
	pad[1].segment = UINT32_MAX;
	expect_invalid(pad, 2, QG_E_NOTFOUND);
	FRESH();
	pad[1].epoch[3] ^= 1;
	expect_invalid(pad, 2, QG_E_NOTFOUND);
	FRESH();
	pad[1].segment = 0;
	expect_invalid(pad, 2, QG_E_NOTFOUND);
	assert_int_equal(account(pair_in(p, 0), false).used, 0);
	assert_int_equal(receive(0, &m), QG_OK);
}

static void test_the_owner_takes_only_what_a_message_holds(void **state)
{
	(void)state;
	static message m;
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	assert_int_equal(try_take(pair_out(p, 0), QG_KMS_DATA_MAX + 1, &m), QG_E_INVAL);
	take(0, QG_KMS_DATA_MAX, &m);
	assert_int_equal(receive(0, &m), QG_OK);
	settle(0, &m);
	/* Not in the other direction. */
	assert_int_equal(peek_pads(1, m.use.pad, m.use.n, NULL), QG_E_NOTFOUND);
	assert_int_equal(try_take(pair_in(p, 0), 10, &m), QG_E_EMPTY);
	pair_free(&p);
	n_used = 0;
	/* Small segments: 16 ranges do not hold it; nothing is used up. */
	start_full(&(pair_options){ .chunk_size = 8, .segment_chunks = 40, .node_chunks = 4000, .ready_chunks = 512,
				    .node_percent = 50 });
	wait_level(0, 12000);
	qg_err err = QG_E_EMPTY;
	for (int i = 0; i < 5000 && err == QG_E_EMPTY; i++) {
		err = try_take(pair_out(p, 0), 6000, &m);
		pair_nap(2);
	}
	assert_int_equal(err, QG_E_RANGE);
	assert_int_equal(account(pair_out(p, 0), true).used, 0);
	pass(0, 1500);
}

/* --- shares --------------------------------------------------------------------------------- */

typedef struct uses {
	unsigned application, mac, pad;
} uses;

static uses count_uses(int side)
{
	uses u = { 0 };
	bool *seen = calloc(1 << 16, sizeof *seen);
	pthread_mutex_lock(&p->record_lock);
	for (size_t i = 0; i < p->n_records; i++) {
		const pair_record *r = &p->record[i];
		qg_kms_batch m;
		if (r->side != side || r->kind != QG_KMS_NEW_KEY_BATCH || qg_kms_batch_decode(r->body, r->len, &m) != QG_OK ||
		    m.segment >= 1 << 16 || seen[m.segment])
			continue;
		seen[m.segment] = true;
		*(m.use == QG_USE_APPLICATION ? &u.application : m.use == QG_USE_MAC ? &u.mac : &u.pad) += 1;
	}
	pthread_mutex_unlock(&p->record_lock);
	free(seen);
	return u;
}

static bool many_segments(core_pair *pair, void *ctx)
{
	(void)pair;
	uses u = count_uses(0);
	return u.application + u.mac + u.pad >= *(unsigned *)ctx;
}

static void check_share(uint32_t percent)
{
	unsigned want = 120;
	p = pair_start(&(pair_options){ .node_chunks = 1 << 20, .node_percent = percent, .ready_chunks = 1 << 20,
					.inbound_chunks = 1 << 21 });
	assert_true(pair_wait(p, many_segments, &want));
	uses u = count_uses(0);
	unsigned all = u.application + u.mac + u.pad - 1; /* the first is not in turns */
	assert_int_equal(u.mac + u.pad, all * percent / 100);
	printf("%u%%: %u for applications, %u for MACs, %u for pads\n", percent, u.application, u.mac, u.pad);
	pair_free(&p);
}

static void test_segments_are_shared_out_exactly(void **state)
{
	(void)state;
	static const uint32_t percents[] = { 0, 1, 25, 33, 50, 90, 100 };
	for (size_t i = 0; i < sizeof percents / sizeof *percents; i++)
		check_share(percents[i]);
}

/* Each pool is filled though the other is full, and is not overfilled. */
static void test_a_full_pool_leaves_the_segments_to_the_other(void **state)
{
	(void)state;
	static const uint32_t percents[] = { 0, 100 };
	for (int i = 0; i < 2; i++) {
		start_full(&(pair_options){ .node_chunks = 1500, .node_percent = percents[i], .ready_chunks = 600 });
		uint64_t ready = pair_ready(p, 0), node;
		qg_stream *st = pair_out(p, 0);
		pthread_mutex_lock(&st->lock);
		uint64_t mac = 0, pad = 0;
		const pad_stock *stocks[] = { qg_pads_stock(st, QG_USE_MAC), qg_pads_stock(st, QG_USE_PAD) };
		mac = stocks[0]->stored_bytes + stocks[0]->opening_bytes + stocks[0]->open_bytes;
		pad = stocks[1]->stored_bytes + stocks[1]->opening_bytes + stocks[1]->open_bytes;
		pthread_mutex_unlock(&st->lock);
		node = (mac + pad) / PAIR_CHUNK;
		assert_true(ready + PAIR_SEGMENT > 600 && ready <= 600);
		assert_true(node >= 1500 && node < 1500 + PAIR_SEGMENT);
		assert_true(mac >= 1500 / 8 * PAIR_CHUNK && mac < (1500 / 8 + PAIR_SEGMENT) * PAIR_CHUNK);
		/* What is used comes again. */
		for (int j = 0; j < 60; j++)
			pass(0, 1000);
		assert_true(pair_deliver(p, 0, 200, 32));
		pair_free(&p);
		n_used = 0;
	}
}

/* With the least of configured node key both kinds are there. */
static void test_a_small_wish_gives_both_kinds(void **state)
{
	(void)state;
	start_full(&(pair_options){ .node_chunks = 1, .node_percent = 10 });
	for (int i = 0; i < 80; i++)
		pass(0, below(500));
	for (int i = 0; i < 80; i++)
		pass(0, 0); /* MACs alone run out */
	pass(0, 800);
}

static void test_without_node_key_all_is_for_applications(void **state)
{
	(void)state;
	static message m;
	p = pair_start(NULL);
	assert_true(pair_wait_idle(p, 0));
	assert_true(pair_deliver(p, 0, 300, 32));
	assert_true(pair_wait_idle(p, 0));
	uses u = count_uses(0);
	assert_true(u.application > 5 && u.mac == 0 && u.pad == 0);
	qg_stream *st = pair_out(p, 0);
	pthread_mutex_lock(&st->lock);
	assert_false(qg_pads_want(st));
	pthread_mutex_unlock(&st->lock);
	assert_int_equal(try_take(st, 10, &m), QG_E_EMPTY);
	assert_int_equal(ready_bytes(st), 0);
	assert_true(pair_ready(p, 0) <= 512 && pair_ready(p, 0) + PAIR_SEGMENT > 512);
}

/* Leases reach over node segments, in stock or gone, so that large requests are
 * served at once. */
static void test_leases_reach_over_node_segments(void **state)
{
	(void)state;
	start_full(&(pair_options){ .node_chunks = 2000, .node_percent = 80, .ready_chunks = 1024 });
	for (int i = 0; i < 25; i++) {
		assert_true(pair_deliver(p, 0, 10, 700));
		pass(0, 1200);
		pass(0, 1200);
		assert_true(pair_wait_ready(p, 0, 512));
		/* 300 chunks in one go, of some segments. */
		assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 300, 32, k), QG_OK);
		assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 300, got), QG_OK);
		assert_memory_equal(k->key, got->key, 300 * 32);
	}
}

/* A far end that is full of node key does not keep the applications' out. */
static void test_node_key_that_the_far_end_refuses_stops_nothing(void **state)
{
	(void)state;
	p = pair_new(&(pair_options){ .node_chunks = 2000, .node_percent = 50, .issue_s = 86400 });
	p->end[1].cfg.inbound_chunks = 600;
	p->end[0].cfg.ready_chunks = 300;
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait_idle(p, 0));
	assert_true(ready_bytes(pair_out(p, 0)) <= (600 + PAIR_SEGMENT) * PAIR_CHUNK);
	assert_true(qg_pads_held(pair_in(p, 0)) <= 600);
	/* As after a restart: the owner does not know how much may be held. */
	qg_stream *st = pair_out(p, 0);
	pthread_mutex_lock(&st->lock);
	st->peer_inbound = 0;
	pthread_cond_broadcast(&st->wake);
	pthread_mutex_unlock(&st->lock);
	for (int i = 0; i < 60; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
	assert_true(qg_pads_held(pair_in(p, 0)) <= 600);
	pass(0, 1000);
}

/* --- waiting ---------------------------------------------------------------------------------- */

static void test_who_waits_is_told_once(void **state)
{
	(void)state;
	static message m;
	gate g;
	gate_init(&g);
	p = pair_new(&(pair_options){ .node_chunks = 1000, .node_percent = 50 });
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	qg_stream *st = pair_out(p, 0);
	qg_secret *none = NULL;
	pthread_mutex_lock(&st->lock);
	assert_int_equal(qg_pads_take(st, 100, &m.use, &none, &g.waiter), QG_E_EMPTY);
	pthread_mutex_unlock(&st->lock);
	assert_false(gate_wait(&g, 50));
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, false);
	assert_true(gate_wait(&g, PAIR_WAIT_MS));
	assert_int_equal(g.err, QG_OK);
	pass(0, 100);
	assert_false(gate_wait(&g, 20));
	/* At a stop. */
	drain_open();
	atomic_store(&p->end[0].link_down, true);
	gate_init(&g);
	qg_err err = QG_OK;
	while (err == QG_OK) {
		pthread_mutex_lock(&st->lock);
		err = qg_pads_take(st, QG_KMS_DATA_MAX, &m.use, &none, &g.waiter);
		pthread_mutex_unlock(&st->lock);
		qg_secret_free(&none);
	}
	assert_int_equal(err, QG_E_EMPTY);
	qg_core_wind_down(p->end[0].core);
	assert_true(gate_wait(&g, PAIR_WAIT_MS));
	assert_true(g.err == QG_E_CLOSED || g.err == QG_OK);
	assert_int_equal(try_take(st, 10, &m), QG_E_CLOSED);
	end_stop(&p->end[0]);
}

/* --- many at once -------------------------------------------------------------------------------- */

#define THREADS 4
#define PER_THREAD 60

static atomic_uint wrong;

static void *pass_many(void *arg)
{
	unsigned own = *(unsigned *)arg;
	message *m = calloc(1, sizeof *m);
	uint8_t *key = malloc(sizeof m->key);
	for (unsigned i = 0; i < PER_THREAD; i++) {
		qg_stream *st = pair_out(p, 0), *in = pair_in(p, 0);
		while (try_take(st, (own * 131 + i * 37) % 1400, m) != QG_OK)
			pair_nap(1);
		if (peek_pads(0, m->use.pad, m->use.n, key) != QG_OK || memcmp(key, m->key, QG_KMS_MAC_OVERHEAD + m->n) != 0)
			atomic_fetch_add(&wrong, 1);
		qg_err err = QG_E_AGAIN;
		while (err == QG_E_AGAIN) {
			gate g;
			gate_init(&g);
			pthread_mutex_lock(&in->lock);
			err = qg_pads_open(in, m->use.pad, m->use.n, m->use.opened_pad, &g.waiter);
			pthread_mutex_unlock(&in->lock);
			if (err == QG_E_AGAIN && !gate_wait(&g, PAIR_WAIT_MS))
				atomic_fetch_add(&wrong, 1);
		}
		if (err != QG_OK || spend(0, m) != QG_OK || spend(0, m) == QG_OK)
			atomic_fetch_add(&wrong, 1);
		settle(0, m);
	}
	free(key);
	free(m);
	return NULL;
}

static void test_rule_16_many_at_once(void **state)
{
	(void)state;
	pthread_t t[THREADS];
	unsigned own[THREADS];
	start_full(&(pair_options){ .node_chunks = 1000, .node_percent = 50, .flush_ms = 20 });
	for (unsigned i = 0; i < THREADS; i++) {
		own[i] = i;
		assert_int_equal(pthread_create(&t[i], NULL, pass_many, &own[i]), 0);
	}
	for (int i = 0; i < 10; i++) {
		assert_true(pair_deliver(p, 0, 20, 32));
		if (i == 5)
			end_epoch(0);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&wrong), 0);
	qg_pad_account o = account(pair_out(p, 0), true), f = account(pair_in(p, 0), false);
	assert_int_equal(o.messages, THREADS * PER_THREAD);
	assert_int_equal(o.used, f.used);
	assert_int_equal(o.given_up, 0);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_rule_06_node_key_is_never_fetched),
		TEST(test_rule_06_the_root_is_not_in_a_node_segment),
		TEST(test_rule_16_both_ends_agree_and_no_byte_comes_twice),
		TEST(test_rule_16_reordered_and_repeated),
		TEST(test_rule_16_what_is_forgotten_stays_used),
		TEST(test_rule_16_overlap_refuses),
		TEST(test_rule_16_peek_consumes_nothing),
		TEST(test_rule_16_ranges_that_cannot_be),
		TEST(test_the_owner_takes_only_what_a_message_holds),
		TEST(test_segments_are_shared_out_exactly),
		TEST(test_a_full_pool_leaves_the_segments_to_the_other),
		TEST(test_a_small_wish_gives_both_kinds),
		TEST(test_without_node_key_all_is_for_applications),
		TEST(test_leases_reach_over_node_segments),
		TEST(test_node_key_that_the_far_end_refuses_stops_nothing),
		TEST(test_who_waits_is_told_once),
		TEST(test_rule_16_many_at_once),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
