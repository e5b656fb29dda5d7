/* SPDX-License-Identifier: Apache-2.0 */
/* The same key for SAEs at several nodes (SOUNDNESS 18). */
#include "../../src/core/records_internal.h"
#include "multicast_net.h"
#include "seed.h"

/* Each once, the same, and strangers none. */
static void expect_once(const char *sae, uint32_t number)
{
	unsigned home = home_of(sae);
	assert_int_equal(fetch_at(home, sae, k->id, number), QG_OK);
	assert_int_equal(got->bytes, k->bytes);
	assert_memory_equal(got->key, k->key, k->bytes);
	assert_int_equal(fetch_at(home, sae, k->id, number), QG_E_NOTFOUND);
}

/* --- it works ---------------------------------------------------------------------- */

static void test_each_of_three_nodes_gets_it_once(void **state)
{
	(void)state;
	start_star();
	qg_issue_request req = request(3);
	assert_int_equal(issue(&req), QG_OK);
	assert_int_equal(fetch_at(C, "sae-a", k->id, 1), QG_E_DENIED);
	assert_int_equal(net_fetch(n, B, "sae-a2", "sae-b2", k->id, 1, got), QG_E_DENIED);
	assert_false(net_on_disk(n, k->key, 32));
	expect_once("sae-b", 3);
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 3);
	assert_true(net_all_fresh(n, NULL));
	/* What has left holds no value; A keeps nothing for others. */
	assert_int_equal(voiding_at(A), 0);
}

static void test_a_slave_on_the_masters_node_and_one_elsewhere(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c" };
	start_star();
	qg_issue_request req = { .master = "sae-a", .slave = "sae-a2", .extra = extra, .n_extra = 1, .number = 2,
				 .size_bytes = 100, .max_hops = UINT32_MAX };
	assert_int_equal(issue(&req), QG_OK);
	expect_once("sae-a2", 2);
	expect_once("sae-c", 2);
}

static void test_restarts_keep_what_is_held(void **state)
{
	(void)state;
	start_star();
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_OK);
	for (unsigned i = 0; i < 3; i++) {
		node_crash(&n->node[i]);
		node_start(&n->node[i]);
	}
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 2);
	node_crash(&n->node[C]);
	node_start(&n->node[C]);
	expect_void("sae-c", k->id, 2);
}

static void test_over_a_virtual_stream(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c", "sae-c2" };
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, A, C)->node_chunks = 192;
	n = net_start(&pl);
	qg_issue_request req = { .master = "sae-a", .slave = "sae-b", .extra = extra, .n_extra = 2, .number = 2,
				 .size_bytes = 32, .max_hops = UINT32_MAX };
	qg_err err = QG_E_EMPTY;
	for (unsigned i = 0; i < 60 && err == QG_E_EMPTY; i++) {
		err = issue(&req);
		pair_nap(100);
	}
	assert_int_equal(err, QG_OK);
	expect_once("sae-c", 2);
	expect_once("sae-c2", 2);
	assert_int_equal(fetch_at(B, "sae-b", k->id, 2), QG_OK);
	/* The pads passed B: not with fewer trusted nodes. */
	req.max_hops = 0;
	assert_int_equal(issue(&req), QG_E_STATE);
}

static void test_more_than_one_message_holds(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-b2", "sae-c" };
	net_plan pl;
	plan_star(&pl);
	pl.node_chunks = 2048;
	pl.kms_timeout_ms = 10000;
	n = net_start(&pl);
	assert_true(net_wait(n, pads_open, net_stream(n, A, C, A)));
	qg_issue_request req = { .master = "sae-a", .slave = "sae-a2", .extra = extra, .n_extra = 2, .number = 200,
				 .size_bytes = 150, .max_hops = UINT32_MAX };
	assert_int_equal(issue(&req), QG_OK);
	for (size_t i = 0; i < COUNT(extra); i++)
		expect_once(extra[i], 200);
	size_t messages = 0;
	assert_true(net_all_fresh(n, &messages));
	assert_true(messages >= 4);
	req.number = 1024; /* more than the stream ever keeps */
	assert_int_equal(issue(&req), QG_E_RANGE);
}

/* One neighbour's keys have a quota at each node; the others' have their own. */
/* Tries that are refused use key up: all that a message may carry is there again. */
static bool has_for_a_message(core_net *net, void *ctx)
{
	qg_stream *st = ctx;
	(void)net;
	pthread_mutex_lock(&st->lock);
	bool has = qg_pads_ready_bytes(st) >= QG_KMS_DATA_MAX && st->ready >= 100;
	pthread_mutex_unlock(&st->lock);
	return has;
}

/* On a busy machine a request may run out of its time. */
static void issue_at_last(const qg_issue_request *req, unsigned home)
{
	qg_err err = QG_E_EMPTY;
	for (int i = 0; i < 20 && err == QG_E_EMPTY; i++) {
		assert_true(net_wait(n, has_for_a_message, net_stream(n, A, home, A)));
		err = issue(req);
	}
	assert_int_equal(err, QG_OK);
}

static void test_a_neighbour_hands_over_no_more_than_its_quota(void **state)
{
	(void)state;
	static const char *extra[] = { "sae-b" };
	net_plan pl;
	plan_star(&pl);
	pl.node_chunks = 2048;
	n = net_start(&pl);
	set_number(B, &n->node[B].cfg.relay_neighbour_bytes_per_s, 1); /* and one message at once */
	qg_issue_request req = { .master = "sae-a", .slave = "sae-a2", .extra = extra, .n_extra = 1, .number = 100,
				 .size_bytes = 100, .max_hops = UINT32_MAX };
	assert_true(net_wait(n, has_for_a_message, net_stream(n, A, B, A)));
	assert_int_equal(issue(&req), QG_OK);
	assert_int_equal(fetch_at(B, "sae-b", k->id, 100), QG_OK);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	extra[0] = "sae-c";
	issue_at_last(&req, C);
	extra[0] = "sae-b";
	set_number(B, &n->node[B].cfg.relay_neighbour_bytes_per_s, 0);
	issue_at_last(&req, B);
}

static void test_rule_18_lost_answers_and_doubles_deliver_once(void **state)
{
	(void)state;
	start_star();
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->lose_requests, 1);
	atomic_store(&net_fault_of(n, A, B, QG_KMS_MAKE_KEYS_EXTERNAL)->lose_answers, 2);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_OK);
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 2);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->twice, true);
	assert_int_equal(issue(&req), QG_OK);
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 2);
	assert_true(net_all_fresh(n, NULL));
}

/* --- it fails ---------------------------------------------------------------------- */

static void test_rule_18_a_home_that_is_down_voids_all(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	net_down(n, A, C, true);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_true(k->retry_after_s > 0);
	assert_null(k->key);
	size_t keys = sent_ids(B, 0, ids);
	assert_int_equal(keys, 2);
	/* Until C was told, A remembers, over a restart too. */
	expect_void("sae-a2", ids, keys);
	node_crash(&n->node[A]);
	node_start(&n->node[A]);
	assert_int_equal(voiding_at(A), 2);
	expect_void("sae-a2", ids, keys);
	net_down(n, A, C, false);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, keys);
	/* C never got the message: when it comes now, it is too late. */
	long at = net_find(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL, 0);
	net_record r;
	net_answer *a = calloc(1, sizeof *a);
	assert_true(at >= 0 && a != NULL && net_record_get(n, (size_t)at, &r));
	net_inject(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL, r.body, r.len, a);
	qg_kms_make_answer ma;
	assert_int_equal(a->status, 200);
	assert_int_equal(qg_kms_make_answer_decode(a->body, a->len, &ma), QG_OK);
	assert_true(ma.result == QG_KMS_MAKE_EXISTS || ma.result == QG_KMS_MAKE_NO_PAD);
	net_record_free(&r);
	free(a);
	expect_void_everywhere(ids, keys);
}

/* The master's node dies between the sending and the answer. */
static void test_rule_18_a_crash_of_the_master_voids_all(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	unsigned node = C;
	start_star();
	set_number(A, &n->node[A].cfg.kms_timeout_ms, 20000);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->lose_answers, -1);
	qg_issue_request req = request(2);
	keys_issue_begin(n->node[A].core, &req, k);
	assert_true(net_wait(n, is_held, &node));
	atomic_store(&net_fault_of(n, A, B, QG_KMS_DELETE_KEYS)->down, true);
	node_crash(&n->node[A]);
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	assert_true(sent_ids(C, 0, ids) == 2);
	/* B restarts too, and is told later. */
	node_crash(&n->node[B]);
	node_start(&n->node[B]);
	node_start(&n->node[A]);
	assert_int_equal(voiding_at(A), 2);
	expect_void("sae-a2", ids, 2);
	pair_nap(300);
	assert_int_equal(voiding_at(A), 2);
	atomic_store(&net_fault_of(n, A, B, QG_KMS_DELETE_KEYS)->down, false);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
	for (unsigned i = 0; i < 3; i++) {
		node_crash(&n->node[i]);
		node_start(&n->node[i]);
	}
	assert_int_equal(voiding_at(A), 0);
	expect_void_everywhere(ids, 2);
}

static bool holds_four(core_net *net, void *ctx)
{
	(void)ctx;
	return qg_transfers_count(net->node[B].core->transfers) >= 4;
}

/* As where the database turns out to be an old one: whoever waits is answered, once, and
 * what homes hold already is void. */
static void test_all_that_is_under_way_ends_at_once(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	set_number(A, &n->node[A].cfg.kms_timeout_ms, 20000);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->down, true);
	qg_issue_request req = request(2);
	keys_issue_begin(n->node[A].core, &req, k);
	keys_issue_begin(n->node[A].core, &req, got);
	assert_true(net_wait(n, holds_four, NULL));
	assert_int_equal(sent_ids(B, 0, ids), 2);
	qg_multicast_fail_all(n->node[A].core, "of this test");
	qg_multicast_fail_all(n->node[A].core, "of this test"); /* nothing is under way */
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	assert_int_equal(keys_wait(got), QG_E_EMPTY);
	assert_int_equal(atomic_load(&k->calls), 1);
	assert_int_equal(atomic_load(&got->calls), 1);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->down, false);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
	assert_int_equal(issue(&req), QG_OK);
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 2);
}

static void test_an_orderly_stop_answers_and_voids(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	unsigned node = B;
	start_star();
	set_number(A, &n->node[A].cfg.kms_timeout_ms, 20000);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->down, true);
	qg_issue_request req = request(2);
	keys_issue_begin(n->node[A].core, &req, k);
	assert_true(net_wait(n, is_held, &node));
	node_stop(&n->node[A]);
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	assert_int_equal(atomic_load(&k->calls), 1);
	assert_int_equal(sent_ids(B, 0, ids), 2);
	node_start(&n->node[A]);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
}

static void test_a_home_that_cannot_store_voids_all(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	atomic_store(&n->node[C].store.fault, FAULT_FAILS);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_int_equal(sent_ids(C, 0, ids), 2);
	atomic_store(&n->node[C].store.fault, FAULT_NONE);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
}

static void test_a_master_that_cannot_store_sends_nothing(void **state)
{
	(void)state;
	start_star();
	atomic_store(&n->node[A].store.fault, FAULT_FAILS);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_IO);
	atomic_store(&n->node[A].store.fault, FAULT_NONE);
	assert_int_equal(net_find(n, A, NET_NODES, QG_KMS_MAKE_KEYS_EXTERNAL, 0), -1);
	assert_int_equal(issue(&req), QG_OK);
}

/* From the last home's answer on, A's commits end in the given way. */
typedef struct release_fault {
	int fault;
	unsigned answers;
} release_fault;

static void fault_at_release(void *ctx, net_wire *w)
{
	release_fault *f = ctx;
	if (w->kind == QG_KMS_MAKE_KEYS_EXTERNAL && w->answer && ++f->answers == 2)
		atomic_store(&w->net->node[A].store.fault, f->fault);
}

static void test_rule_18_a_release_that_may_have_failed_voids_all(void **state)
{
	(void)state;
	static const int faults[] = { FAULT_FAILS, FAULT_UNKNOWN_DONE, FAULT_UNKNOWN_UNDONE };
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	for (size_t i = 0; i < COUNT(faults); i++) {
		release_fault f = { .fault = faults[i] };
		size_t from = net_records(n);
		net_set_hook(n, fault_at_release, &f);
		qg_issue_request req = request(2);
		assert_int_equal(issue(&req), QG_E_EMPTY);
		net_set_hook(n, NULL, NULL);
		assert_int_equal(sent_ids(C, from, ids), 2);
		expect_void("sae-a2", ids, 2);
		atomic_store(&n->node[A].store.fault, FAULT_NONE);
		assert_true(net_wait(n, all_void, NULL));
		expect_void_everywhere(ids, 2);
	}
	node_crash(&n->node[A]);
	node_start(&n->node[A]);
	expect_void_everywhere(ids, 2);
}

static void test_without_node_key_it_waits_and_then_fails(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c" };
	net_plan pl;
	plan_star(&pl);
	pl.node_chunks = 192;
	n = net_start(&pl);
	wait_pads();
	net_dry_from(n, A, C, true);
	qg_issue_request req = { .master = "sae-a", .slave = "sae-a2", .extra = extra, .n_extra = 1, .number = 16,
				 .size_bytes = 64, .max_hops = UINT32_MAX };
	qg_err err = QG_OK;
	for (unsigned i = 0; i < 50 && err == QG_OK; i++)
		err = issue(&req);
	assert_int_equal(err, QG_E_EMPTY);
	assert_true(net_wait(n, all_void, NULL));
	/* It waits for what comes in time. */
	node_stop(&n->node[A]);
	n->node[A].cfg.kms_timeout_ms = 20000;
	node_start(&n->node[A]);
	keys_issue_begin(n->node[A].core, &req, k);
	pair_nap(50);
	net_dry_from(n, A, C, false);
	assert_int_equal(keys_wait(k), QG_OK);
	expect_once("sae-c", 16);
}

static void test_a_link_without_node_key_is_none(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c" }, *const nobody[] = { "sae-x" };
	net_plan pl;
	plan_star(&pl);
	pl.link[1].node_chunks = UINT32_MAX;
	n = net_start(&pl);
	assert_true(net_wait_ready(n, A, B, 50));
	uint64_t ready = net_stream_ready(net_stream(n, A, B, A));
	qg_issue_request req = { .master = "sae-a", .slave = "sae-b", .extra = extra, .n_extra = 1, .number = 1,
				 .size_bytes = 32, .max_hops = UINT32_MAX };
	assert_int_equal(issue(&req), QG_E_NOTFOUND);
	req.extra = nobody;
	assert_int_equal(issue(&req), QG_E_NOTFOUND);
	assert_true(net_stream_ready(net_stream(n, A, B, A)) >= ready);
}

/* --- all at once ---------------------------------------------------------------------------- */

#define ROUNDS 12

/* Losses, delays and crashes at random: no key is delivered twice or after it
 * was refused to the master, and nothing is stuck. */
static void test_rule_18_under_losses_and_crashes(void **state)
{
	(void)state;
	srandom(test_seed());
	start_star();
	for (unsigned i = 0; i < ROUNDS; i++) {
		qg_uuid ids[QG_KMS_MAKE_MAX];
		size_t from = net_records(n);
		for (unsigned to = B; to <= C; to++) {
			net_fault *f = net_fault_of(n, A, to, QG_KMS_MAKE_KEYS_EXTERNAL);
			atomic_store(&f->lose_answers, (int)(random() % 3));
			atomic_store(&f->lose_requests, (int)(random() % 2));
			atomic_store(&f->jitter_ms, (unsigned)(random() % 30));
			atomic_store(&net_fault_of(n, A, to, QG_KMS_DELETE_KEYS)->lose_answers, (int)(random() % 2));
		}
		qg_issue_request req = request(2);
		keys_issue_begin(n->node[A].core, &req, k);
		core_node *e = &n->node[random() % 3];
		if (random() % 2 == 0) {
			pair_nap((unsigned)(random() % 40));
			node_crash(e);
			node_start(e);
		}
		qg_err err = keys_wait(k);
		assert_true(err == QG_OK || err == QG_E_EMPTY || err == QG_E_IO);
		for (unsigned to = B; to <= C; to++) {
			net_fault *f = net_fault_of(n, A, to, QG_KMS_MAKE_KEYS_EXTERNAL);
			atomic_store(&f->lose_answers, 0);
			atomic_store(&f->lose_requests, 0);
		}
		assert_true(net_wait(n, all_void, NULL));
		if (err == QG_OK) {
			for (size_t j = 0; j < COUNT(everywhere); j++)
				expect_once(everywhere[j], 2);
		} else if (net_find(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL, from) >= 0) {
			expect_void_everywhere(ids, sent_ids(C, from, ids));
		}
		wait_pads();
	}
	assert_true(net_all_fresh(n, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_each_of_three_nodes_gets_it_once),
		TEST(test_a_slave_on_the_masters_node_and_one_elsewhere),
		TEST(test_restarts_keep_what_is_held),
		TEST(test_over_a_virtual_stream),
		TEST(test_more_than_one_message_holds),
		TEST(test_a_neighbour_hands_over_no_more_than_its_quota),
		TEST(test_rule_18_lost_answers_and_doubles_deliver_once),
		TEST(test_rule_18_a_home_that_is_down_voids_all),
		TEST(test_rule_18_a_crash_of_the_master_voids_all),
		TEST(test_all_that_is_under_way_ends_at_once),
		TEST(test_an_orderly_stop_answers_and_voids),
		TEST(test_a_home_that_cannot_store_voids_all),
		TEST(test_a_master_that_cannot_store_sends_nothing),
		TEST(test_rule_18_a_release_that_may_have_failed_voids_all),
		TEST(test_without_node_key_it_waits_and_then_fails),
		TEST(test_a_link_without_node_key_is_none),
		TEST(test_rule_18_under_losses_and_crashes),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
