/* SPDX-License-Identifier: Apache-2.0 */
/* Keys between nodes that share no link (docs/relay.md): what arrives, over what
 * faults of the network, and what it takes of the links. Crashes are in
 * test_relay_crash.c, forgeries in test_relay_hostile.c, several paths in
 * test_relay_paths.c. */
#include "support/net_case.h"

#include <limits.h>

/* Whatever a test did, no pad may have masked twice, and nothing have been drawn
 * twice. */
static int teardown(void **state)
{
	(void)state;
	size_t repeats = 0;
	bool fresh = n == NULL || (net_all_fresh(n, NULL) && net_drawn_once(n, &repeats));
	return end_case(fresh);
}

static void start_line(unsigned nodes)
{
	net_plan pl;
	net_plan_line(&pl, nodes);
	net_plan_both(&pl, 0, nodes - 1);
	n = net_start(&pl);
}

/* --- keys arrive ------------------------------------------------------------------ */

/* A message names 16 ranges of node key: links with the smallest segments, first
 * the source's own and then a hop's, mask less at once than it would hold. */
static void test_links_with_small_segments_relay(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		net_plan pl;
		net_plan_line(&pl, 3);
		pl.node_chunks = 2048;
		pl.ready_chunks = 2048;
		pl.link[i].segment_chunks = 20;
		net_plan_far(&pl, A, C);
		pl.far[0].segment_chunks = 512;
		n = net_start(&pl);
		assert_true(net_wait_ready(n, A, C, 1536));
		assert_true(net_wait_quiet(n));
		/* All node key is there: batches are as large as they get. */
		for (int j = 0; j < 24; j++)
			assert_true(net_deliver(n, A, C, 64, 32));
		assert_true(net_wait_ready(n, A, C, 1536));
		if (i == 0)
			net_free(&n);
	}
}

static void test_neighbours_of_a_line_share_keys(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, B, 4, 32));
	assert_true(net_deliver(n, B, A, 4, 32));
	assert_true(net_deliver(n, C, B, 4, 32));
	node_crash(&n->node[B]);
	node_start(&n->node[B]);
	assert_true(net_deliver(n, A, B, 4, 32));
	assert_true(net_deliver(n, B, C, 4, 32));
}

/* What asks for the state of the streams has nothing to say. */
static void test_a_question_for_the_state_is_empty(void **state)
{
	(void)state;
	static const struct {
		const char *body;
		int status;
	} asked[] = { { "{}", 200 }, { "[]", 400 }, { "{ }", 400 }, { "", 400 } };
	net_plan pl;
	net_plan_line(&pl, 2);
	n = net_start(&pl);
	for (size_t i = 0; i < COUNT(asked); i++) {
		static net_answer a;
		net_inject(n, A, B, QG_KMS_GET_STATUS, asked[i].body, strlen(asked[i].body), &a);
		assert_int_equal(a.status, asked[i].status);
	}
}

static void test_garbage_of_every_kind_is_refused(void **state)
{
	(void)state;
	static const char *const garbage[] = { "", "x", "[]", "{\"a\":1}", "{\"epoch\":\"\"" };
	net_plan pl;
	net_plan_line(&pl, 2);
	n = net_start(&pl);
	for (int kind = 0; kind < QG_KMS_KINDS; kind++)
		for (size_t i = 0; i < COUNT(garbage); i++) {
			static net_answer a;
			net_inject(n, A, B, (qg_kms_kind)kind, garbage[i], strlen(garbage[i]), &a);
			assert_int_equal(a.status, 400);
		}
	assert_true(net_deliver(n, A, B, 4, 32));
}

static atomic_uint spoiled;

static void spoil_answers(void *ctx, net_wire *w)
{
	(void)ctx;
	if (!w->answer || w->kind != QG_KMS_FORWARD_KEYS || w->len == 0)
		return;
	w->body[0] = 'x';
	atomic_fetch_add(&spoiled, 1);
}

static bool were_spoiled(core_net *net, void *ctx)
{
	(void)net, (void)ctx;
	return atomic_load(&spoiled) >= 2;
}

/* Answers that cannot be read, at the source and at the hop in between. */
static void test_unreadable_answers_only_delay(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, A, C);
	n = net_new(&pl);
	net_set_hook(n, spoil_answers, NULL);
	for (unsigned i = A; i <= C; i++)
		node_start(&n->node[i]);
	assert_true(net_wait(n, were_spoiled, NULL));
	net_set_hook(n, NULL, NULL);
	assert_true(net_wait_ready(n, A, C, 64));
	assert_true(net_deliver(n, A, C, 4, 32));
}

/* How many hops a message with chunks of that segment went over; 0: it is another. */
static uint32_t travelled(const net_record *r, const qg_segment *s, unsigned to)
{
	static qg_kms_forward m;
	return net_forward_of(r, &m) && m.hop == 0 && strcmp(m.path[m.n_path - 1], n->node[to].id) == 0 &&
			       memcmp(m.epoch, s->epoch->id, sizeof m.epoch) == 0 && m.segment == s->number
		       ? (uint32_t)m.n_path - 2
		       : 0;
}

static uint32_t most_travelled(const qg_segment *s, unsigned from, unsigned to)
{
	uint32_t most = 0;
	for (long i = net_find(n, from, NET_NODES, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, from, NET_NODES, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		assert_true(net_record_get(n, (size_t)i, &r));
		const uint32_t hops = travelled(&r, s, to);
		most = hops > most ? hops : most;
		net_record_free(&r);
	}
	return most;
}

/* That no segment's chunks went over more hops than it says. It may say those of the
 * ring's other way, if that was tried first and there was no key for the first message. */
static void check_hops(unsigned from, unsigned to)
{
	unsigned checked = 0;
	qg_stream *st = net_far_stream(n, from, to, from);
	pthread_mutex_lock(&st->lock);
	for (const qg_epoch *e = st->newest; e != NULL; e = e->older)
		for (uint32_t i = 0; i < e->n_seg; i++) {
			if (e->seg[i] == NULL || e->seg[i]->phase != QG_SEG_CONFIRMED)
				continue;
			checked++;
			const uint32_t most = most_travelled(e->seg[i], from, to), said = e->seg[i]->hops;
			if (most == 0 || most > said || said > 2)
				checked = UINT_MAX / 2;
		}
	pthread_mutex_unlock(&st->lock);
	assert_in_range(checked, 1, UINT_MAX / 2 - 1);
}

/* The most hops of a confirmed segment, as the source says. */
static uint32_t hops_of(unsigned from, unsigned to)
{
	uint32_t hops = 0;
	qg_stream *st = net_far_stream(n, from, to, from);
	pthread_mutex_lock(&st->lock);
	for (const qg_epoch *e = st->newest; e != NULL; e = e->older)
		for (uint32_t i = 0; i < e->n_seg; i++)
			if (e->seg[i] != NULL && e->seg[i]->phase == QG_SEG_CONFIRMED && e->seg[i]->hops > hops)
				hops = e->seg[i]->hops;
	pthread_mutex_unlock(&st->lock);
	return hops;
}

static void test_keys_over_one_node(void **state)
{
	(void)state;
	start_line(3);
	assert_true(net_deliver(n, A, C, 8, 32));
	assert_true(net_deliver(n, C, A, 8, 64));
	assert_int_equal(hops_of(A, C), 1);
}

static void test_keys_over_three_nodes(void **state)
{
	(void)state;
	start_line(5);
	assert_true(net_deliver(n, A, E, 8, 32));
	assert_true(net_deliver(n, E, A, 8, 256));
	assert_int_equal(hops_of(A, E), 3);
}

static void test_keys_around_a_ring(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_ring(&pl, 5);
	net_plan_both(&pl, A, C);
	net_plan_both(&pl, B, E);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 8, 32));
	assert_true(net_deliver(n, C, A, 8, 32));
	assert_true(net_deliver(n, B, E, 8, 32));
	assert_true(net_deliver(n, E, B, 8, 32));
	check_hops(A, C);
	check_hops(B, E);
}

/* The sizes of chunks of links and stream have nothing to do with each other. */
static void test_links_of_different_chunk_sizes(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 4);
	pl.link[0].chunk_size = 16;
	pl.link[0].segment_chunks = 128;
	pl.link[1].chunk_size = 40;
	pl.link[2].chunk_size = 8;
	pl.link[2].segment_chunks = 256;
	net_plan_far(&pl, A, D)->chunk_size = 24;
	n = net_start(&pl);
	assert_true(net_deliver(n, A, D, 8, 32));
	assert_true(net_deliver(n, A, D, 4, 100));
}

/* More than any pool or stock of node key holds at once. */
static void test_more_keys_than_were_ever_in_stock(void **state)
{
	(void)state;
	start_line(3);
	for (int i = 0; i < 40; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
}

/* Neither masked key nor what it stands for is written where it passes. */
static void test_a_hop_writes_no_relayed_key(void **state)
{
	(void)state;
	start_line(3);
	assert_int_equal(net_issue_wait(n, A, "sae-a", "sae-c", 32, 32, k), QG_OK);
	for (uint32_t i = 0; i < 32; i++) {
		assert_false(net_on_disk(n, k->key + 32 * i, 32));
		assert_false(net_on_disk(n, k->key + 32 * i, 8));
	}
	assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 32, got), QG_OK);
	assert_memory_equal(k->key, got->key, k->bytes);
}

/* What crosses the connections is masked: the key itself is in no message. */
static void test_no_message_holds_the_key(void **state)
{
	(void)state;
	start_line(3);
	assert_int_equal(net_issue_wait(n, A, "sae-a", "sae-c", 64, 32, k), QG_OK);
	static qg_kms_forward m;
	bool matched[2][64] = { { false } };
	size_t n_matched = 0;
	uint8_t plain[QG_KMS_DATA_MAX];
	for (long i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		assert_true(net_record_get(n, (size_t)i, &r) && net_forward_of(&r, &m));
		unsigned from = r.from;
		net_record_free(&r);
		assert_true(net_unmask(n, &m.masked, plain));
		for (uint32_t j = 0; j < 64; j++) {
			assert_null(memmem(m.masked.data, m.masked.data_len, k->key + 32 * j, 32));
			if (memmem(plain, m.masked.data_len, k->key + 32 * j, 32) == NULL)
				continue;
			/* On a busy machine a batch may go twice, under fresh pad. */
			n_matched += !matched[from == A][j];
			matched[from == A][j] = true;
		}
	}
	/* The pads recomputed from the links' key do lead to it, at both links. */
	assert_int_equal(n_matched, 2 * 64);
}

/* --- a bad network ------------------------------------------------------------------ */

static void every_fault(core_net *net, void (*set)(net_fault *f))
{
	for (unsigned i = 0; i < net->plan.nodes; i++)
		for (unsigned j = 0; j < net->plan.nodes; j++)
			set(net_fault_of(net, i, j, QG_KMS_FORWARD_KEYS));
}

static void set_twice(net_fault *f)
{
	atomic_store(&f->twice, true);
	atomic_store(&f->jitter_ms, 20);
}

static void test_messages_delivered_twice_and_out_of_order(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 4);
	net_plan_both(&pl, A, D);
	n = net_new(&pl);
	every_fault(n, set_twice);
	for (unsigned i = 0; i < 4; i++)
		node_start(&n->node[i]);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, D, 32, 32) && net_deliver(n, D, A, 32, 32));
}

/* Every loss costs a penalty of a second or more. */
static void set_lossy(net_fault *f)
{
	atomic_store(&f->lose_answers, 1);
	atomic_store(&f->lose_requests, 1);
}

static void test_lost_messages_and_answers(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, A, C);
	pl.relay_timeout_ms = 400;
	n = net_new(&pl);
	every_fault(n, set_lossy);
	for (unsigned i = 0; i < 3; i++)
		node_start(&n->node[i]);
	assert_true(net_deliver(n, A, C, 32, 32) && net_deliver(n, C, A, 32, 32));
	every_fault(n, set_lossy);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32) && net_deliver(n, C, A, 64, 32));
}

static void test_a_partition_ends_and_nothing_is_stuck(void **state)
{
	(void)state;
	start_line(3);
	assert_true(net_deliver(n, A, C, 32, 32));
	for (int i = 0; i < 3; i++) {
		net_down(n, i % 2 == 0 ? B : A, i % 2 == 0 ? C : B, true);
		pair_nap(150);
		net_down(n, i % 2 == 0 ? B : A, i % 2 == 0 ? C : B, false);
		/* More than the stock. */
		for (int j = 0; j < 5; j++)
			assert_true(net_deliver(n, A, C, 64, 32));
	}
}

/* --- dry links ------------------------------------------------------------------------- */

static void test_a_dry_link_runs_the_pool_down_and_it_refills(void **state)
{
	(void)state;
	start_line(3);
	assert_true(net_wait_ready(n, A, C, 128));
	net_dry(n, B, C, true);
	qg_err err = QG_OK;
	unsigned issued = 0;
	for (; issued < 1000 && err == QG_OK; issued++) {
		err = net_issue(n, A, "sae-a", "sae-c", 32, 32, k);
		if (err == QG_OK) {
			assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 32, got), QG_OK);
			assert_memory_equal(k->key, got->key, k->bytes);
		}
		for (int i = 0; i < 100 && err == QG_E_EMPTY; i++) {
			pair_nap(10); /* what was in stock of node key goes on for a while */
			err = net_issue(n, A, "sae-a", "sae-c", 32, 32, k);
		}
	}
	assert_int_equal(err, QG_E_EMPTY);
	assert_true(k->retry_after_s >= 1);
	net_dry(n, B, C, false);
	assert_true(net_deliver(n, A, C, 32, 32));
}

/* --- accounts -------------------------------------------------------------------------- */

#define HOPS 4

/* At a quiet moment: what the ends sent, and what each link used, to E and back. */
typedef struct books {
	qg_relay_counts a, e;
	qg_pad_account there[HOPS], back[HOPS];
} books;

static books take_books(void)
{
	books now;
	qg_relay_counts_get(n->node[A].core, &now.a);
	qg_relay_counts_get(n->node[E].core, &now.e);
	for (unsigned i = 0; i < HOPS; i++) {
		now.there[i] = net_account(n, A + i, A + i + 1, A + i);
		now.back[i] = net_account(n, A + i + 1, A + i, A + i + 1);
	}
	return now;
}

/* Whether every message of a node's own streams was delivered. */
static bool all_arrived(const qg_relay_counts *before, const qg_relay_counts *now)
{
	return now->sent > before->sent && now->sent - before->sent == now->delivered - before->delivered;
}

/* Keys both ways, between two quiet moments; a link that is slow to get its node
 * key refuses, which costs pads: then another try. */
static bool a_run_without_losses(books *before, books *now)
{
	bool whole = false;
	start_line(HOPS + 1);
	assert_true(net_deliver(n, A, E, 64, 32) && net_deliver(n, E, A, 16, 32));
	for (int tries = 0; tries < 8 && !whole; tries++) {
		assert_true(net_wait_quiet(n));
		*before = take_books();
		for (int i = 0; i < 14; i++)
			assert_true(net_deliver(n, A, E, 64, 32) && net_deliver(n, E, A, 16, 32));
		assert_true(net_wait_quiet(n));
		assert_true(net_accounts_add_up(n, stdout));
		*now = take_books();
		whole = all_arrived(&before->a, &now->a) && all_arrived(&before->e, &now->e);
	}
	return whole;
}

/* What the network used in between one way: hops times what the first link did. */
static uint64_t check_way(const qg_pad_account *before, const qg_pad_account *now, unsigned first)
{
	uint64_t all = 0;
	for (unsigned i = 0; i < HOPS; i++)
		all += now[i].used - before[i].used;
	const uint64_t data = now[first].data - before[first].data;
	const uint64_t messages = now[first].messages - before[first].messages;
	print_message("%u x (%llu + 64 x %llu) = %llu\n", HOPS, (unsigned long long)data,
		      (unsigned long long)messages, (unsigned long long)all);
	assert_int_equal(all, HOPS * (data + 64 * messages));
	return data;
}

static void test_accounts_add_up_to_the_byte(void **state)
{
	(void)state;
	books before, now;
	assert_true(a_run_without_losses(&before, &now));
	assert_true(check_way(before.there, now.there, 0) >= 10 * 64 * 32);
	assert_true(check_way(before.back, now.back, HOPS - 1) >= 10 * 16 * 32);
}

static void test_accounts_add_up_over_losses(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 4);
	net_plan_both(&pl, A, D);
	pl.relay_timeout_ms = 400;
	n = net_new(&pl);
	every_fault(n, set_lossy);
	for (unsigned i = 0; i < 4; i++)
		node_start(&n->node[i]);
	for (int i = 0; i < 4; i++)
		assert_true(net_deliver(n, A, D, 64, 32) && net_deliver(n, D, A, 16, 32));
	assert_true(net_wait_quiet(n));
	assert_true(net_accounts_add_up(n, stdout));
}

/* --- rule 16 --------------------------------------------------------------------------- */

static void test_rule_16_every_transmission_has_fresh_pad(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 4);
	net_plan_both(&pl, A, D);
	pl.relay_timeout_ms = 400;
	n = net_new(&pl);
	every_fault(n, set_lossy);
	every_fault(n, set_twice);
	for (unsigned i = 0; i < 4; i++)
		node_start(&n->node[i]);
	for (int i = 0; i < 12; i++)
		assert_true(net_deliver(n, A, D, 64, 32));
	size_t messages = 0;
	assert_true(net_all_fresh(n, &messages));
	assert_true(messages > 20);
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_neighbours_of_a_line_share_keys),
		CASE(test_a_question_for_the_state_is_empty),
		CASE(test_garbage_of_every_kind_is_refused),
		CASE(test_unreadable_answers_only_delay),
		CASE(test_links_with_small_segments_relay),
		CASE(test_keys_over_one_node),
		CASE(test_keys_over_three_nodes),
		CASE(test_keys_around_a_ring),
		CASE(test_links_of_different_chunk_sizes),
		CASE(test_more_keys_than_were_ever_in_stock),
		CASE(test_a_hop_writes_no_relayed_key),
		CASE(test_no_message_holds_the_key),
		CASE(test_messages_delivered_twice_and_out_of_order),
		CASE(test_lost_messages_and_answers),
		CASE(test_a_partition_ends_and_nothing_is_stuck),
		CASE(test_a_dry_link_runs_the_pool_down_and_it_refills),
		CASE(test_accounts_add_up_to_the_byte),
		CASE(test_accounts_add_up_over_losses),
		CASE(test_rule_16_every_transmission_has_fresh_pad),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
