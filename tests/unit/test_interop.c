/* SPDX-License-Identifier: Apache-2.0 */
/* Keys between two networks (ETSI GS QKD 020; SOUNDNESS 14, 18). */
#include "interop_net.h"

static void start_all(void)
{
	for (unsigned i = 0; i < n->plan.nodes; i++)
		node_start(&n->node[i]);
}

static void wait_pads(void)
{
	for (size_t i = 0; i < n->plan.n_links; i++) {
		const net_link *l = &n->plan.link[i];
		assert_true(net_wait(n, pads_open, net_stream(n, l->a, l->b, l->a)));
		assert_true(net_wait(n, pads_open, net_stream(n, l->b, l->a, l->b)));
	}
}

static net_way_fault *way_fault(unsigned from, unsigned to, net_post_kind kind)
{
	return &n->way_fault[from][to][kind];
}

/* The IDs that crossed between the borders, from the hook. */
typedef struct seen_ids {
	pthread_mutex_t lock;
	size_t n;
	qg_uuid id[256];
	uint8_t value[256][32];
	unsigned from[256], to[256];
} seen_ids;

static seen_ids seen = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void see_keys(void *ctx, unsigned from, unsigned to, net_post_kind kind, const void *m)
{
	const qg_interop_keys *keys = m;
	(void)ctx;
	if (kind != NET_POST_KEYS)
		return;
	pthread_mutex_lock(&seen.lock);
	for (size_t i = 0; i < keys->n_keys && seen.n < COUNT(seen.id); i++) {
		memcpy(seen.value[seen.n], keys->key[i].value, 32);
		seen.from[seen.n] = from;
		seen.to[seen.n] = to;
		seen.id[seen.n++] = keys->key[i].id;
	}
	pthread_mutex_unlock(&seen.lock);
}

static void watch(void)
{
	seen.n = 0;
	n->post_hook = see_keys;
}

static void expect_once(unsigned at, const char *master, const char *slave, uint32_t number)
{
	assert_int_equal(fetch_at(at, master, slave, k->id, number), QG_OK);
	assert_int_equal(got->bytes, k->bytes);
	assert_memory_equal(got->key, k->key, k->bytes);
	assert_int_equal(fetch_at(at, master, slave, k->id, number), QG_E_NOTFOUND);
}

static void start(bool kxi)
{
	two_networks(kxi);
	start_all();
	wait_pads();
}

/* --- it works ---------------------------------------------------------------------- */

static void test_from_an_inner_node_to_an_inner_node(void **state)
{
	(void)state;
	start(false);
	watch();
	qg_issue_request req = request("sae-a", "sae-d", 3);
	assert_int_equal(issue_at(A, &req), QG_OK);
	assert_int_equal(fetch_at(D, "sae-a", "sae-d2", k->id, 1), QG_E_DENIED);
	assert_int_equal(fetch_at(C, "sae-a", "sae-c", k->id, 1), QG_E_DENIED);
	expect_once(D, "sae-a", "sae-d", 3);
	assert_int_equal(seen.n, 3);
	assert_true(net_wait(n, all_settled, NULL));
	for (unsigned at = A; at <= C; at++)
		assert_false(folder_holds(n->node[at].dir, k->key, 32));
}

static void test_back_and_between_the_borders(void **state)
{
	(void)state;
	static const struct {
		unsigned from, to;
		const char *master, *slave;
	} ways[] = { { D, A, "sae-d", "sae-a" }, { B, C, "sae-b", "sae-c" }, { C, A, "sae-c", "sae-a2" },
		     { A, C, "sae-a", "sae-c2" }, { B, D, "sae-b2", "sae-d" } };
	start(false);
	for (size_t i = 0; i < COUNT(ways); i++) {
		qg_issue_request req = request(ways[i].master, ways[i].slave, 2);
		assert_int_equal(issue_at(ways[i].from, &req), QG_OK);
		expect_once(ways[i].to, ways[i].master, ways[i].slave, 2);
	}
	assert_true(net_wait(n, all_settled, NULL));
	assert_true(net_all_fresh(n, NULL));
}

static void test_several_slaves_in_both_networks(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c", "sae-b", "sae-a2" };
	start(false);
	qg_issue_request req = request("sae-a", "sae-d", 2);
	req.extra = extra;
	req.n_extra = COUNT(extra);
	assert_int_equal(issue_at(A, &req), QG_OK);
	expect_once(D, "sae-a", "sae-d", 2);
	expect_once(C, "sae-a", "sae-c", 2);
	expect_once(B, "sae-a", "sae-b", 2);
	expect_once(A, "sae-a", "sae-a2", 2);
	assert_true(net_wait(n, all_settled, NULL));
}

static void test_a_link_with_key_of_its_own_masks_the_values(void **state)
{
	(void)state;
	start(true);
	watch();
	qg_issue_request req = request("sae-a", "sae-d", 4);
	atomic_store(&way_fault(B, C, NET_POST_KEYS)->lose_requests, 1);
	assert_int_equal(issue_at(A, &req), QG_OK);
	assert_true(seen.n >= 8); /* again under fresh key */
	for (size_t i = 0; i < 4; i++) {
		assert_memory_not_equal(seen.value[i], k->key + 32 * i, 32);
		assert_memory_not_equal(seen.value[i], seen.value[4 + i], 32);
	}
	expect_once(D, "sae-a", "sae-d", 4);
	qg_issue_request back = request("sae-c", "sae-b", 2);
	assert_int_equal(issue_at(C, &back), QG_OK);
	expect_once(B, "sae-c", "sae-b", 2);
	assert_true(net_wait(n, all_settled, NULL));
}

/* --- through another network, over links with key of their own ----------------------- */

static const char *const sae_a[] = { "sae-a*" }, *const sae_x[] = { "sae-x*" },
			 *const sae_a_b[] = { "sae-a*", "sae-b*" }, *const sae_c_x[] = { "sae-c*", "sae-x*" },
			 *const sae_b_c_x[] = { "sae-b*", "sae-c*", "sae-x*" };

/* Each node is a network, each two have a link. A knows the way to sae-c over B, C the
 * way back. sae-x is always behind the next: at A behind B, there behind C, there behind A. */
static void start_round(void)
{
	static char names[3][2][8] = { { "a-to-b", "a-to-c" }, { "b-to-a", "b-to-c" }, { "c-to-b", "c-to-a" } };
	net_plan pl = { .nodes = 3 };
	net_plan_link(&pl, A, B);
	net_plan_link(&pl, B, C);
	net_plan_link(&pl, C, A);
	n = net_new(&pl);
	for (unsigned at = A; at <= C; at++)
		for (unsigned of = A; of <= C; of++)
			if (of != at)
				set_place(at, of, at);
	add_peer(A, B, sae_b_c_x, COUNT(sae_b_c_x), names[A][0]);
	add_peer(A, C, sae_a, COUNT(sae_a), names[A][1]);
	add_peer(B, A, sae_a, COUNT(sae_a), names[B][0]);
	add_peer(B, C, sae_c_x, COUNT(sae_c_x), names[B][1]);
	add_peer(C, B, sae_a_b, COUNT(sae_a_b), names[C][0]);
	add_peer(C, A, sae_x, COUNT(sae_x), names[C][1]);
	start_all();
	wait_pads();
}

/* What crossed went over B, both times, each time under other key, and never bare. */
static void expect_masked_over_b(unsigned first, unsigned last)
{
	bool to_b = false, from_b = false;
	pthread_mutex_lock(&seen.lock);
	for (size_t i = 0; i < seen.n; i++) {
		to_b |= seen.from[i] == first && seen.to[i] == B;
		from_b |= seen.from[i] == B && seen.to[i] == last;
		assert_true(seen.from[i] == B || seen.to[i] == B);
		for (size_t j = 0; j < k->bytes / 32; j++)
			assert_memory_not_equal(seen.value[i], k->key + 32 * j, 32);
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(seen.value[i], seen.value[j], 32);
	}
	pthread_mutex_unlock(&seen.lock);
	assert_true(to_b && from_b);
}

static void test_transit_is_masked_on_both_links(void **state)
{
	(void)state;
	start_round();
	watch();
	qg_issue_request there = request("sae-a", "sae-c", 3), back = request("sae-c", "sae-a", 2);
	atomic_store(&way_fault(B, C, NET_POST_KEYS)->lose_requests, 1);
	assert_int_equal(issue_at(A, &there), QG_OK);
	expect_masked_over_b(A, C);
	for (unsigned at = A; at <= C; at++)
		assert_false(folder_holds(n->node[at].dir, k->key, 32));
	assert_int_not_equal(fetch_at(B, "sae-a", "sae-b", k->id, 1), QG_OK);
	expect_once(C, "sae-a", "sae-c", 3);
	assert_true(net_wait(n, all_settled, NULL));
	watch();
	assert_int_equal(issue_at(C, &back), QG_OK);
	expect_masked_over_b(C, A);
	expect_once(A, "sae-c", "sae-a", 2);
	assert_true(net_wait(n, all_settled, NULL));
}

/* Every network believes that the next has it: it ends where it began, and is void
 * everywhere. */
static void test_transit_that_goes_round_is_void(void **state)
{
	(void)state;
	start_round();
	watch();
	qg_issue_request req = request("sae-a", "sae-x", 2);
	for (unsigned i = 0; i < 10 && seen.n < 6; i++) { /* A to B, B to C, C to A, or too late for it */
		assert_int_equal(issue_at(A, &req), QG_E_EMPTY);
		assert_null(k->key);
		assert_true(net_wait(n, all_settled, NULL));
	}
	assert_true(seen.n >= 6);
	for (size_t i = 0; i < seen.n; i++)
		for (unsigned at = A; at <= C; at++) {
			assert_int_not_equal(state_at(at, "sae-a", &seen.id[i]), QG_TRANSFER_HELD);
			assert_int_not_equal(state_at(at, "sae-a", &seen.id[i]), QG_TRANSFER_RELEASED);
		}
	req.slave = "sae-c";
	assert_int_equal(issue_at(A, &req), QG_OK);
	expect_once(C, "sae-a", "sae-c", 2);
}

/* A request as it crossed between the borders, kept by the hook. */
static struct {
	qg_interop_mask mask;
	qg_interop_key key;
	uint8_t value[32];
	bool spoil;
} caught;

static void catch_keys(void *ctx, unsigned from, unsigned to, net_post_kind kind, const void *m)
{
	const qg_interop_keys *keys = m;
	see_keys(ctx, from, to, kind, m);
	if (kind != NET_POST_KEYS || keys->mask == NULL)
		return;
	caught.mask = *keys->mask;
	caught.key = keys->key[0];
	memcpy(caught.value, keys->key[0].value, sizeof caught.value);
	/* the post is the test's own copy */
	union {
		const uint8_t *is;
		uint8_t *may;
	} v = { .is = keys->key[0].value };
	if (caught.spoil)
		v.may[0] ^= 1;
}

typedef struct verdict_told {
	sem_t came;
	qg_interop_result result;
} verdict_told;

static void on_reply(void *ctx, const qg_interop_reply *r)
{
	verdict_told *t = ctx;
	t->result = r->result;
	sem_post(&t->came);
}

static qg_interop_result as_peer_b(const qg_interop_mask *mask, const qg_uuid *id)
{
	static const char *const to_d[] = { "sae-d" };
	qg_interop_key key = { .id = *id, .value = caught.value, .size_bytes = 32 };
	const qg_interop_keys m = { .saes = { .initiator = "sae-a", .targets = to_d, .n_targets = 1 },
				    .key = &key, .n_keys = 1, .mask = mask };
	verdict_told t = { .result = QG_INTEROP_FULL };
	sem_init(&t.came, 0, 0);
	qg_interop_receive_keys(qg_core_interop(n->node[C].core), n->node[B].id, &m, on_reply, &t);
	while (sem_wait(&t.came) != 0)
		;
	sem_destroy(&t.came);
	return t.result;
}

static void test_rule_16_masks_that_are_missing_forged_or_used_before(void **state)
{
	(void)state;
	start(true);
	seen.n = 0;
	n->post_hook = catch_keys;
	qg_issue_request req = request("sae-a", "sae-d", 1);
	assert_int_equal(issue_at(A, &req), QG_OK);
	assert_true(net_wait(n, all_settled, NULL));
	const size_t before = qg_transfers_count(n->node[C].core->transfers);
	qg_uuid other;
	qg_uuid_random(&other);
	assert_int_equal(as_peer_b(NULL, &other), QG_INTEROP_DENIED);
	assert_int_equal(as_peer_b(&caught.mask, &caught.key.id), QG_INTEROP_DENIED); /* once is enough */
	assert_int_equal(as_peer_b(&caught.mask, &other), QG_INTEROP_DENIED);
	qg_interop_mask m = caught.mask;
	m.pad[0].segment += 1000;
	assert_int_equal(as_peer_b(&m, &other), QG_INTEROP_NO_KEY);
	m = caught.mask;
	memcpy(m.link, "c-to-b", sizeof "c-to-b"); /* not the sender's to use */
	assert_int_equal(as_peer_b(&m, &other), QG_INTEROP_NO_KEY);
	m = caught.mask;
	m.n_pads = QG_KMS_PADS_MAX + 1;
	assert_int_equal(as_peer_b(&m, &other), QG_INTEROP_DENIED);
	assert_int_equal(qg_transfers_count(n->node[C].core->transfers), before);
	expect_once(D, "sae-a", "sae-d", 1);
	/* changed on its way: refused, and void at home */
	caught.spoil = true;
	assert_int_equal(issue_at(A, &req), QG_E_EMPTY);
	caught.spoil = false;
	assert_true(net_wait(n, all_settled, NULL));
	assert_int_not_equal(fetch_at(D, "sae-a", "sae-d", &seen.id[seen.n - 1], 1), QG_OK);
	assert_int_equal(issue_at(A, &req), QG_OK);
	expect_once(D, "sae-a", "sae-d", 1);
}

/* --- it fails ------------------------------------------------------------------------- */

/* Void in both networks, whatever is still to be said. */
static void expect_void(const char *master, const char *slave, unsigned at, size_t number)
{
	assert_true(net_wait(n, all_settled, NULL));
	for (size_t i = 0; i < number; i++)
		assert_int_not_equal(fetch_at(at, master, slave, &seen.id[i], 1), QG_OK);
}

static void test_rule_18_lost_and_repeated_messages_deliver_once(void **state)
{
	(void)state;
	start(false);
	for (unsigned kind = 0; kind < NET_POST_VOID; kind++) {
		net_way_fault *f = kind == NET_POST_KEYS ? way_fault(B, C, NET_POST_KEYS) : way_fault(C, B, NET_POST_ACKS);
		qg_issue_request req = request("sae-a", "sae-d", 2);
		atomic_store(&f->lose_requests, 1);
		assert_int_equal(issue_at(A, &req), QG_OK);
		expect_once(D, "sae-a", "sae-d", 2);
		atomic_store(&f->lose_answers, 2);
		assert_int_equal(issue_at(A, &req), QG_OK);
		expect_once(D, "sae-a", "sae-d", 2);
		atomic_store(&f->twice, true);
		assert_int_equal(issue_at(A, &req), QG_OK);
		expect_once(D, "sae-a", "sae-d", 2);
		atomic_store(&f->twice, false);
	}
	assert_true(net_wait(n, all_settled, NULL));
}

static void test_rule_18_a_peer_that_is_down_voids_all(void **state)
{
	(void)state;
	start(false);
	watch();
	atomic_store(&way_fault(B, C, NET_POST_KEYS)->down, -1);
	qg_issue_request req = request("sae-a", "sae-d", 2);
	assert_int_equal(issue_at(A, &req), QG_E_EMPTY);
	assert_null(k->key);
	expect_void("sae-a", "sae-d", D, seen.n);
	atomic_store(&way_fault(B, C, NET_POST_KEYS)->down, 0);
	assert_int_equal(issue_at(A, &req), QG_OK);
	expect_once(D, "sae-a", "sae-d", 2);
}

static void test_rule_18_acks_that_never_come_void_all(void **state)
{
	(void)state;
	start(false);
	watch();
	atomic_store(&way_fault(C, B, NET_POST_ACKS)->lose_requests, -1);
	qg_issue_request req = request("sae-a", "sae-d", 2);
	assert_int_equal(issue_at(A, &req), QG_E_EMPTY);
	assert_int_equal(seen.n, 2);
	atomic_store(&way_fault(C, B, NET_POST_ACKS)->lose_requests, 0);
	expect_void("sae-a", "sae-d", D, 2);
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(state_at(B, "sae-a", &seen.id[i]), QG_TRANSFER_VOIDED);
		assert_int_equal(state_at(C, "sae-a", &seen.id[i]), QG_TRANSFER_VOIDED);
	}
}

static void test_a_target_whose_node_is_down_fails_at_once_or_in_time(void **state)
{
	(void)state;
	start(false);
	watch();
	n->node[C].peers[0].ack_timeout_ms = 1000;
	net_down(n, C, D, true);
	qg_issue_request req = request("sae-a", "sae-d", 2);
	assert_int_equal(issue_at(A, &req), QG_E_EMPTY);
	net_down(n, C, D, false);
	expect_void("sae-a", "sae-d", D, 2);
}

static void test_unknown_and_unallowed_targets(void **state)
{
	(void)state;
	static const char *const only_c[] = { "sae-c" };
	two_networks(false);
	n->node[C].peers[0].reach = only_c;
	start_all();
	wait_pads();
	qg_issue_request req = request("sae-a", "sae-d", 1);
	assert_int_equal(issue_at(A, &req), QG_E_EMPTY);
	req.slave = "sae-c";
	assert_int_equal(issue_at(A, &req), QG_OK);
	expect_once(C, "sae-a", "sae-c", 1);
	req.slave = "sae-x";
	assert_int_equal(issue_at(A, &req), QG_E_NOTFOUND);
}

/* --- crashes ------------------------------------------------------------------------------- */

/* One of the nodes crashes when the i-th request between the borders is on its
 * way, and starts again. */
static sem_t crash_now;
static atomic_int crash_in;

static void count_posts(void *ctx, unsigned from, unsigned to, net_post_kind kind, const void *m)
{
	see_keys(ctx, from, to, kind, m);
	if (atomic_fetch_sub(&crash_in, 1) == 1)
		sem_post(&crash_now);
}

/* Given the key or not, at most once. */
static void expect_at_most_once(void)
{
	for (size_t i = 0; i < seen.n; i++)
		if (fetch_at(D, "sae-a", "sae-d", &seen.id[i], 1) == QG_OK)
			assert_int_not_equal(fetch_at(D, "sae-a", "sae-d", &seen.id[i], 1), QG_OK);
}

/* What the master of a node that crashed was told after the crash is nothing. */
static void check_outcome(qg_err err, bool told)
{
	assert_true(err == QG_OK || err == QG_E_EMPTY || err == QG_E_IO);
	assert_true(net_wait(n, all_settled, NULL));
	if (err == QG_OK && !told) {
		expect_at_most_once();
	} else if (err == QG_OK) {
		expect_once(D, "sae-a", "sae-d", 2);
	} else {
		for (size_t i = 0; i < seen.n; i++)
			assert_int_not_equal(fetch_at(D, "sae-a", "sae-d", &seen.id[i], 1), QG_OK);
	}
}

static bool crash(core_node *e)
{
	int answers = 0;
	sem_getvalue(&k->told, &answers);
	const bool told = e->index != A || answers > 0;
	node_crash(e);
	node_start(e);
	return told;
}

static void crash_at(unsigned node, int post)
{
	seen.n = 0;
	n->post_hook = count_posts;
	sem_init(&crash_now, 0, 0);
	atomic_store(&crash_in, post);
	qg_issue_request req = request("sae-a", "sae-d", 2);
	keys_issue_begin(n->node[A].core, &req, k);
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += 20;
	const bool told = sem_timedwait(&crash_now, &ts) != 0 || crash(&n->node[node]);
	const qg_err err = keys_wait(k);
	n->post_hook = see_keys;
	check_outcome(err, told);
	wait_pads();
}

static void test_rule_18_crashes_at_every_step(void **state)
{
	(void)state;
	start(false);
	for (unsigned node = A; node <= D; node++)
		for (int post = 1; post <= 2; post++)
			crash_at(node, post);
}

/* --- all at once ------------------------------------------------------------------------------ */

#define ROUNDS 10

static void test_rule_18_under_losses_and_crashes(void **state)
{
	(void)state;
	unsigned seed = (unsigned)time(NULL);
	print_message("seed %u\n", seed);
	srandom(seed);
	start(false);
	for (unsigned i = 0; i < ROUNDS; i++) {
		watch();
		for (unsigned kind = 0; kind < NET_POST_KINDS; kind++) {
			atomic_store(&way_fault(B, C, kind)->lose_answers, (int)(random() % 3));
			atomic_store(&way_fault(B, C, kind)->lose_requests, (int)(random() % 2));
			atomic_store(&way_fault(C, B, kind)->lose_answers, (int)(random() % 3));
			atomic_store(&way_fault(C, B, kind)->lose_requests, (int)(random() % 2));
		}
		qg_issue_request req = request("sae-a", "sae-d", 2);
		keys_issue_begin(n->node[A].core, &req, k);
		bool told = true;
		if (random() % 2 == 0) {
			pair_nap((unsigned)(random() % 40));
			told = crash(&n->node[random() % 4]);
		}
		check_outcome(keys_wait(k), told);
		wait_pads();
	}
	assert_true(net_all_fresh(n, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_from_an_inner_node_to_an_inner_node),
		TEST(test_back_and_between_the_borders),
		TEST(test_several_slaves_in_both_networks),
		TEST(test_a_link_with_key_of_its_own_masks_the_values),
		TEST(test_transit_is_masked_on_both_links),
		TEST(test_transit_that_goes_round_is_void),
		TEST(test_rule_16_masks_that_are_missing_forged_or_used_before),
		TEST(test_rule_18_lost_and_repeated_messages_deliver_once),
		TEST(test_rule_18_a_peer_that_is_down_voids_all),
		TEST(test_rule_18_acks_that_never_come_void_all),
		TEST(test_a_target_whose_node_is_down_fails_at_once_or_in_time),
		TEST(test_unknown_and_unallowed_targets),
		TEST(test_rule_18_crashes_at_every_step),
		TEST(test_rule_18_under_losses_and_crashes),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
