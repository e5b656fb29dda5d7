/* SPDX-License-Identifier: Apache-2.0 */
/* Relaying while nodes fail, lie, or have no room (docs/relay.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/core_net.c"

static core_net *n;

static int teardown(void **state)
{
	(void)state;
	net_free(&n);
	return 0;
}

static void test_both_directions_of_a_line(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, 0, 2);
	n = net_start(&pl);
	for (int i = 0; i < 20; i++) {
		assert_true(net_deliver(n, 0, 2, 4, 32));
		assert_true(net_deliver(n, 2, 0, 4, 32));
	}
	size_t messages = 0;
	assert_true(net_all_fresh(n, &messages));
	print_message("%zu messages\n", messages);
}

static void test_a_share_on_each_path(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_diamond(&pl);
	net_plan_far(&pl, 0, 2)->paths = 2;
	n = net_start(&pl);
	for (int i = 0; i < 20; i++)
		assert_true(net_deliver(n, 0, 2, 4, 32));
	size_t messages = 0;
	assert_true(net_all_fresh(n, &messages));
	print_message("%zu messages\n", messages);
}

static void test_another_route_when_a_hop_fails(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_diamond(&pl);
	net_plan_far(&pl, 0, 2);
	n = net_start(&pl);
	assert_true(net_deliver(n, 0, 2, 4, 32));
	for (int k = 0; k < 3; k++) {
		node_crash(&n->node[1]);
		for (int i = 0; i < 50; i++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
		node_start(&n->node[1]);
		node_crash(&n->node[3]);
		for (int i = 0; i < 50; i++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
		node_start(&n->node[3]);
	}
}

static void test_the_ends_restart(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, 0, 2);
	n = net_start(&pl);
	for (int k = 0; k < 4; k++) {
		for (int i = 0; i < 20; i++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
		unsigned who = k % 2 ? 0 : 2;
		if (k < 2)
			node_crash(&n->node[who]);
		else
			node_stop(&n->node[who]);
		node_start(&n->node[who]);
	}
}

typedef struct liar {
	unsigned from, to, left;
	bool answers;       /* alters answers instead of messages */
	bool lose_answer;
	unsigned done, lost;
	/* messages altered, whose answers are to verify */
	struct {
		size_t record;
		uint8_t tag[QG_MAC_BYTES], key[QG_KMS_MAC_OVERHEAD];
	} altered[8];
} liar;

/* The answer as the node that lies would give it. */
static void answer_again(liar *l, net_wire *w)
{
	qg_kms_forward_answer a;
	for (unsigned i = 0; !l->lose_answer && i < l->done; i++) {
		if (l->altered[i].record != w->record || qg_kms_forward_answer_decode(w->body, w->len, &a) != QG_OK)
			continue;
		qg_masked_forward_mac(l->altered[i].key + QG_MAC_KEY_BYTES, l->altered[i].tag, &a, a.mac);
		assert_int_equal(qg_kms_forward_answer_encode(&a, w->body, w->room, &w->len), QG_OK);
	}
}

static void lie(void *ctx, net_wire *w)
{
	liar *l = ctx;
	if (w->kind != QG_KMS_FORWARD_KEYS || w->from != l->from || w->to != l->to)
		return;
	if (!w->answer && l->left == 0)
		return;
	if (w->answer && l->answers && l->left > 0) {
		qg_kms_forward_answer a;
		if (qg_kms_forward_answer_decode(w->body, w->len, &a) != QG_OK || a.result != QG_KMS_FORWARD_DELIVERED)
			return;
		a.mac[3] ^= 1;
		assert_int_equal(qg_kms_forward_answer_encode(&a, w->body, w->room, &w->len), QG_OK);
		l->left--;
		l->done++;
	} else if (w->answer) {
		answer_again(l, w);
		w->lost = l->lose_answer && l->left + l->done == 1 && l->done == 1 && !l->answers && !l->lost++;
	} else if (!l->answers) {
		static qg_kms_forward m;
		static uint8_t pad[QG_KMS_MAC_OVERHEAD];
		assert_int_equal(qg_kms_forward_decode(w->body, w->len, &m), QG_OK);
		l->altered[l->done].record = w->record;
		memcpy(l->altered[l->done].tag, m.masked.mac, QG_MAC_BYTES);
		size_t macs = 0, sum = 0;
		while (sum < sizeof pad)
			sum += m.masked.pad[macs++].len;
		assert_true(net_pad_bytes(w->net, m.masked.pad, macs, pad, sizeof pad));
		memcpy(l->altered[l->done].key, pad, QG_KMS_MAC_OVERHEAD);
		m.masked.data[5] ^= 0x10;
		net_mac(w->net, &m);
		assert_int_equal(qg_kms_forward_encode(&m, w->body, w->room, &w->len), QG_OK);
		l->left--;
		l->done++;
	}
}

static void test_a_lying_node_costs_segments_only(void **state)
{
	(void)state;
	static liar l; /* hooked until the network ends */
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, 0, 2);
	n = net_new(&pl);
	l = (liar){ .from = 1, .to = 2, .left = 2 };
	net_set_hook(n, lie, &l);
	for (unsigned i = 0; i < 3; i++)
		node_start(&n->node[i]);
	for (int i = 0; i < 20; i++)
		assert_true(net_deliver(n, 0, 2, 16, 32));
	assert_int_equal(l.done, 2);
	assert_true(net_far_stream(n, 0, 2, 0)->n_bad > 0);
}

static void test_other_bytes_end_the_epoch(void **state)
{
	(void)state;
	static liar l; /* hooked until the network ends */
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, 0, 2);
	pl.relay_timeout_ms = 400;
	n = net_new(&pl);
	l = (liar){ .from = 1, .to = 2, .left = 1, .lose_answer = true };
	net_set_hook(n, lie, &l);
	for (unsigned i = 0; i < 3; i++)
		node_start(&n->node[i]);
	/* The hook loses answers while it lies: the first is taken with other bytes. */
	l.lose_answer = true;
	for (int i = 0; i < 20; i++)
		assert_true(net_deliver(n, 0, 2, 16, 32));
	assert_int_equal(l.done, 1);
}

static void test_wrong_answers_isolate_a_neighbour(void **state)
{
	(void)state;
	static liar l; /* hooked until the network ends */
	net_plan pl;
	net_plan_diamond(&pl);
	net_plan_far(&pl, 0, 2);
	n = net_new(&pl);
	l = (liar){ .from = 0, .to = 1, .left = 1000000, .answers = true };
	net_set_hook(n, lie, &l);
	net_down(n, 0, 3, true);
	for (unsigned i = 0; i < 4; i++)
		node_start(&n->node[i]);
	qg_relay_counts c = { 0 };
	for (int i = 0; i < 400 && c.wrong < 3; i++) {
		pair_nap(50);
		qg_relay_counts_get(n->node[0].core, &c);
	}
	net_down(n, 0, 3, false);
	for (int i = 0; i < 40; i++)
		assert_true(net_deliver(n, 0, 2, 32, 32));
	qg_relay_counts_get(n->node[0].core, &c);
	print_message("wrong %llu, sent %llu\n", (unsigned long long)c.wrong, (unsigned long long)c.sent);
	assert_true(c.wrong >= 3 && c.wrong < 12);
	net_set_hook(n, NULL, NULL);
}

static void test_no_key_over_fewer_paths_than_wanted(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_diamond(&pl);
	net_far *f = net_plan_far(&pl, 0, 2);
	f->paths = 2;
	n = net_start(&pl);
	assert_true(net_deliver(n, 0, 2, 16, 32));
	node_crash(&n->node[1]);
	pair_keys *k = keys_new();
	qg_err err = QG_OK;
	for (int i = 0; i < 100 && err == QG_OK; i++)
		err = net_issue(n, 0, "sae-a", "sae-c", 16, 32, k);
	assert_int_equal(err, QG_E_EMPTY);
	keys_free(&k);
	node_start(&n->node[1]);
	for (int i = 0; i < 30; i++)
		assert_true(net_deliver(n, 0, 2, 32, 32));
	for (int i = 0; i < 6; i++) {
		unsigned who = (unsigned)i % 4;
		node_crash(&n->node[who]);
		node_start(&n->node[who]);
		for (int j = 0; j < 20; j++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
	}
}

static void test_fewer_paths_where_allowed(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_diamond(&pl);
	net_far *f = net_plan_far(&pl, 0, 2);
	f->paths = 2;
	f->fewer_paths = true;
	n = net_start(&pl);
	for (int i = 0; i < 20; i++)
		assert_true(net_deliver(n, 0, 2, 16, 32));
	for (int k = 0; k < 3; k++) {
		node_crash(&n->node[k % 2 ? 1 : 3]);
		for (int i = 0; i < 40; i++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
		node_start(&n->node[k % 2 ? 1 : 3]);
	}
}

/* Nobody fetches: the far end fills, the stream waits, and goes on afterwards.
 * The links' far ends fill as well, and must give node key nevertheless. */
static void test_a_full_far_end_holds_back(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, 0, 2);
	pl.inbound_chunks = 768;
	pl.ready_chunks = 1536;
	n = net_start(&pl);
	static pair_keys *k[128];
	size_t got = 0;
	uint64_t last_ms = qg_clock_elapsed_ms();
	while (got < 128 && qg_clock_elapsed_ms() - last_ms < 12000) {
		k[got] = k[got] == NULL ? keys_new() : k[got];
		if (net_issue(n, 0, "sae-a", "sae-c", 16, 32, k[got]) == QG_OK) {
			last_ms = qg_clock_elapsed_ms();
			got++;
		}
		pair_nap(2);
	}
	print_message("%zu chunks issued\n", got * 16);
	assert_true(got * 16 <= 768 && got * 16 > 640);
	assert_true(net_far_stream(n, 0, 2, 2)->held <= 768);
	pair_keys *r = keys_new();
	for (size_t i = 0; i < got; i++)
		assert_int_equal(net_fetch(n, 2, "sae-a", "sae-c", k[i]->id, 16, r), QG_OK);
	for (int i = 0; i < 40; i++)
		assert_true(net_deliver(n, 0, 2, 16, 32));
	for (size_t i = 0; i < 128; i++)
		if (k[i] != NULL)
			keys_free(&k[i]);
	keys_free(&r);
}

static void test_a_quota_slows_a_stream(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, 0, 2);
	pl.route_bytes_per_s = 4096;
	n = net_start(&pl);
	uint64_t begin = qg_clock_elapsed_ms();
	for (int i = 0; i < 48; i++) /* 24 KiB */
		assert_true(net_deliver(n, 0, 2, 16, 32));
	uint64_t ms = qg_clock_elapsed_ms() - begin;
	print_message("%llu ms\n", (unsigned long long)ms);
	assert_true(ms > 1500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_both_directions_of_a_line, teardown),
		cmocka_unit_test_teardown(test_a_share_on_each_path, teardown),
		cmocka_unit_test_teardown(test_another_route_when_a_hop_fails, teardown),
		cmocka_unit_test_teardown(test_the_ends_restart, teardown),
		cmocka_unit_test_teardown(test_a_lying_node_costs_segments_only, teardown),
		cmocka_unit_test_teardown(test_other_bytes_end_the_epoch, teardown),
		cmocka_unit_test_teardown(test_wrong_answers_isolate_a_neighbour, teardown),
		cmocka_unit_test_teardown(test_no_key_over_fewer_paths_than_wanted, teardown),
		cmocka_unit_test_teardown(test_fewer_paths_where_allowed, teardown),
		cmocka_unit_test_teardown(test_a_full_far_end_holds_back, teardown),
		cmocka_unit_test_teardown(test_a_quota_slows_a_stream, teardown),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
