/* SPDX-License-Identifier: Apache-2.0 */
/* Crashes, stops and old databases of the source, a hop and the target of a
 * virtual stream (SOUNDNESS 16): no wrong key, no pad twice, nothing drawn
 * twice, and afterwards keys flow again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/core_net.c"

enum { A, B, C, D };

static core_net *n;
static pair_keys *k, *got, *kept;

static int setup(void **state)
{
	(void)state;
	k = keys_new();
	got = keys_new();
	kept = keys_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	size_t repeats = 0;
	bool good = n == NULL || (net_all_fresh(n, NULL) && net_drawn_once(n, &repeats));
	net_free(&n);
	keys_free(&k);
	keys_free(&got);
	keys_free(&kept);
	return good ? 0 : -1;
}

static void plan_line(net_plan *pl)
{
	net_plan_line(pl, 3);
	net_plan_both(pl, A, C);
	pl->relay_timeout_ms = 500;
	pl->kms_timeout_ms = 500;
}

static void start_all(void)
{
	for (unsigned i = 0; i < n->plan.nodes; i++)
		node_start(&n->node[i]);
}

static void keys_flow(void)
{
	for (int i = 0; i < 6; i++)
		assert_true(net_deliver(n, A, C, 64, 32) && net_deliver(n, C, A, 64, 32));
}

/* --- at a chosen moment ------------------------------------------------------------- */

/* Everything of one kind between two nodes is held up from the nth message on:
 * requests never arrive, or answers are lost. */
typedef struct stopper {
	unsigned from, to;
	qg_kms_kind kind;
	bool answer;
	atomic_int after; /* so many pass first */
	atomic_uint held;
} stopper;

static void hold_up(void *ctx, net_wire *w)
{
	stopper *s = ctx;
	if (w->kind != s->kind || w->answer != s->answer || w->from != s->from || w->to != s->to)
		return;
	if (atomic_fetch_sub(&s->after, 1) > 0)
		return;
	w->lost = true;
	atomic_fetch_add(&s->held, 1);
}

static bool is_held(core_net *net, void *ctx)
{
	(void)net;
	return atomic_load(&((stopper *)ctx)->held) > 0;
}

static void run_until(stopper *s)
{
	net_set_hook(n, hold_up, s);
	for (int i = 0; i < 200 && atomic_load(&s->held) == 0; i++) {
		if (net_issue(n, A, "sae-a", "sae-c", 32, 32, k) == QG_OK)
			assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 32, got), QG_OK);
		pair_nap(5);
	}
	assert_true(net_wait(n, is_held, s));
}

/* What was issued before must be fetched after. */
static void crash_and_go_on(unsigned node, stopper *s)
{
	assert_int_equal(net_issue_wait(n, A, "sae-a", "sae-c", 16, 32, kept), QG_OK);
	run_until(s);
	net_set_hook(n, NULL, NULL);
	node_crash(&n->node[node]);
	node_start(&n->node[node]);
	assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", kept->id, 16, got), QG_OK);
	assert_memory_equal(kept->key, got->key, kept->bytes);
	keys_flow();
}

static void crash_at(unsigned node, unsigned from, unsigned to, qg_kms_kind kind, bool answer, int after)
{
	net_plan pl;
	static stopper s;
	plan_line(&pl);
	/* Several messages by segment. */
	pl.far[0].segment_chunks = pl.far[1].segment_chunks = 256;
	pl.ready_chunks = 768;
	s = (stopper){ .from = from, .to = to, .kind = kind, .answer = answer, .after = after };
	n = net_new(&pl);
	start_all();
	crash_and_go_on(node, &s);
}

static void test_the_source_crashes_before_the_first_send(void **state)
{
	(void)state;
	crash_at(A, A, B, QG_KMS_FORWARD_KEYS, false, 0);
}

static void test_the_source_crashes_in_the_middle_of_a_segment(void **state)
{
	(void)state;
	crash_at(A, A, B, QG_KMS_FORWARD_KEYS, false, 3);
}

static void test_the_source_crashes_with_all_delivered_and_nothing_confirmed(void **state)
{
	(void)state;
	crash_at(A, A, C, QG_KMS_NEW_KEY_BATCH, false, 2);
}

static void test_the_source_crashes_with_the_confirmation_on_its_way(void **state)
{
	(void)state;
	crash_at(A, A, C, QG_KMS_NEW_KEY_BATCH, true, 2);
}

static void test_the_hop_crashes_with_a_message_in_hand(void **state)
{
	(void)state;
	crash_at(B, B, C, QG_KMS_FORWARD_KEYS, false, 3);
}

static void test_the_hop_crashes_with_an_answer_in_hand(void **state)
{
	(void)state;
	crash_at(B, A, B, QG_KMS_FORWARD_KEYS, true, 3);
}

static void test_the_target_crashes_in_the_middle_of_a_segment(void **state)
{
	(void)state;
	crash_at(C, B, C, QG_KMS_FORWARD_KEYS, false, 3);
}

static void test_the_target_crashes_before_it_confirms(void **state)
{
	(void)state;
	crash_at(C, A, C, QG_KMS_NEW_KEY_BATCH, false, 2);
}

static void test_the_target_crashes_after_it_confirmed(void **state)
{
	(void)state;
	crash_at(C, A, C, QG_KMS_NEW_KEY_BATCH, true, 2);
}

/* --- what was issued ---------------------------------------------------------------------- */

static void test_issued_keys_outlive_crashes_of_all(void **state)
{
	(void)state;
	net_plan pl;
	plan_line(&pl);
	n = net_start(&pl);
	for (unsigned node = A; node <= C; node++) {
		assert_int_equal(net_issue_wait(n, A, "sae-a", "sae-c", 16, 32, k), QG_OK);
		node_crash(&n->node[node]);
		node_start(&n->node[node]);
		assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 16, got), QG_OK);
		assert_memory_equal(k->key, got->key, k->bytes);
		assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 16, got), QG_E_NOTFOUND);
	}
	keys_flow();
}

/* The source's segment is stored, the store of its crash has it or not: what is
 * sent again is the same, or never sent. */
static void test_rule_16_a_range_is_never_drawn_again(void **state)
{
	(void)state;
	net_plan pl;
	static stopper s;
	plan_line(&pl);
	pl.far[0].segment_chunks = 256;
	pl.ready_chunks = 768;
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 16, 32));
	size_t repeats = 0;
	for (int i = 0; i < 4; i++) {
		s = (stopper){ .from = A, .to = B, .kind = QG_KMS_FORWARD_KEYS, .answer = i % 2 == 1, .after = i };
		run_until(&s);
		node_crash(&n->node[A]);
		net_set_hook(n, NULL, NULL);
		node_start(&n->node[A]);
		assert_true(net_deliver(n, A, C, 64, 32));
	}
	assert_true(net_drawn_once(n, &repeats));
	assert_true(repeats > 0); /* something was sent again: the comparison was of use */
}

/* --- one after the other ---------------------------------------------------------------------- */

static void test_every_node_crashes_in_turn_under_load(void **state)
{
	(void)state;
	net_plan pl;
	plan_line(&pl);
	n = net_start(&pl);
	for (int i = 0; i < 9; i++) {
		core_node *e = &n->node[i % 3];
		for (int j = 0; j < 3; j++)
			assert_true(net_deliver(n, A, C, 64, 32) && net_deliver(n, C, A, 64, 32));
		node_crash(e);
		node_start(e);
	}
	keys_flow();
}

static void test_every_node_stops_and_starts_in_turn(void **state)
{
	(void)state;
	net_plan pl;
	plan_line(&pl);
	n = net_start(&pl);
	for (int i = 0; i < 6; i++) {
		core_node *e = &n->node[i % 3];
		assert_true(net_deliver(n, A, C, 64, 32) && net_deliver(n, C, A, 64, 32));
		node_stop(e);
		node_start(e);
	}
	keys_flow();
}

/* --- old databases ------------------------------------------------------------------------------ */

/* The pads that were used since the copy are in it, whole. With the anchor of
 * now, the start itself notices; with the one of then, the neighbours tell. */
static void old_database(unsigned node, bool with_anchor)
{
	net_plan pl;
	plan_line(&pl);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 16, 32));
	assert_true(net_wait_quiet(n));
	node_copy(&n->node[node], "copy", with_anchor);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32) && net_deliver(n, C, A, 64, 32));
	node_stop(&n->node[node]);
	node_put_back(&n->node[node], "copy", with_anchor);
	node_start(&n->node[node]);
	keys_flow();
	assert_true(net_all_fresh(n, NULL));
}

static void test_an_old_database_of_the_source_masks_nothing_twice(void **state)
{
	(void)state;
	old_database(A, false);
}

static void test_an_old_database_of_the_hop_masks_nothing_twice(void **state)
{
	(void)state;
	old_database(B, false);
}

static void test_an_old_database_with_its_anchor_masks_nothing_twice(void **state)
{
	(void)state;
	old_database(B, true);
}

/* --- replays -------------------------------------------------------------------------------------- */

/* Every message that was ever sent to a node, again: none is good twice, whatever
 * the node forgot. */
static void replay_all(unsigned node)
{
	static net_answer a;
	unsigned tried = 0;
	size_t end = net_records(n);
	qg_pad_account before = net_account(n, node == B ? A : B, node, node);
	for (long i = net_find(n, NET_NODES, node, QG_KMS_FORWARD_KEYS, 0); i >= 0 && (size_t)i < end;
	     i = net_find(n, NET_NODES, node, QG_KMS_FORWARD_KEYS, (size_t)i + 1), tried++) {
		net_record r;
		qg_kms_forward_answer out;
		assert_true(net_record_get(n, (size_t)i, &r));
		net_inject(n, r.from, r.to, QG_KMS_FORWARD_KEYS, r.body, r.len, &a);
		net_record_free(&r);
		assert_int_equal(a.status, 200);
		assert_int_equal(qg_kms_forward_answer_decode(a.body, a.len, &out), QG_OK);
		assert_true(out.result == QG_KMS_FORWARD_REFUSED || out.result == QG_KMS_FORWARD_NO_PAD);
	}
	assert_true(tried >= 8);
	assert_int_equal(net_account(n, node == B ? A : B, node, node).used, before.used);
}

/* A to C only, and nothing under way. */
static void busy_then_quiet(void)
{
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, A, C);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 16, 32));
	assert_true(net_wait_quiet(n));
	node_copy(&n->node[C], "c", false);
	node_copy(&n->node[B], "b", false);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(net_wait_quiet(n));
}

static void test_no_old_message_is_good_after_a_crash(void **state)
{
	(void)state;
	busy_then_quiet();
	for (unsigned node = B; node <= C; node++) {
		node_crash(&n->node[node]);
		node_start(&n->node[node]);
		replay_all(node);
	}
}

static void test_no_old_message_is_good_for_an_old_database(void **state)
{
	(void)state;
	static const char *const copies[] = { [B] = "b", [C] = "c" };
	busy_then_quiet();
	for (unsigned node = B; node <= C; node++) {
		node_stop(&n->node[node]);
		node_put_back(&n->node[node], copies[node], false);
		node_start(&n->node[node]);
		replay_all(node);
	}
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_the_source_crashes_before_the_first_send),
		CASE(test_the_source_crashes_in_the_middle_of_a_segment),
		CASE(test_the_source_crashes_with_all_delivered_and_nothing_confirmed),
		CASE(test_the_source_crashes_with_the_confirmation_on_its_way),
		CASE(test_the_hop_crashes_with_a_message_in_hand),
		CASE(test_the_hop_crashes_with_an_answer_in_hand),
		CASE(test_the_target_crashes_in_the_middle_of_a_segment),
		CASE(test_the_target_crashes_before_it_confirms),
		CASE(test_the_target_crashes_after_it_confirmed),
		CASE(test_issued_keys_outlive_crashes_of_all),
		CASE(test_rule_16_a_range_is_never_drawn_again),
		CASE(test_every_node_crashes_in_turn_under_load),
		CASE(test_every_node_stops_and_starts_in_turn),
		CASE(test_an_old_database_of_the_source_masks_nothing_twice),
		CASE(test_an_old_database_of_the_hop_masks_nothing_twice),
		CASE(test_an_old_database_with_its_anchor_masks_nothing_twice),
		CASE(test_no_old_message_is_good_after_a_crash),
		CASE(test_no_old_message_is_good_for_an_old_database),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
