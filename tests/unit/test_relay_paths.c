/* SPDX-License-Identifier: Apache-2.0 */
/* Which ways keys take: shares over disjoint paths, around what fails, within
 * quotas, never over what the configuration lacks (SOUNDNESS 17). */
#include "support/net_case.h"

static qg_kms_forward m;

/* Whatever happened: no pad twice, nothing drawn twice, nothing over a link that
 * is not there, no two shares of a chunk at one node. */
static int teardown(void **state)
{
	(void)state;
	size_t repeats = 0;
	bool good = n == NULL || (net_all_fresh(n, NULL) && net_drawn_once(n, &repeats) && net_ways_known(n) &&
				  net_shares_apart(n));
	return end_case(good);
}

static void plan_diamond(net_plan *pl, uint32_t paths, bool fewer)
{
	net_plan_diamond(pl);
	net_far *far = net_plan_far(pl, A, C);
	far->paths = paths;
	far->fewer_paths = fewer;
	pl->relay_timeout_ms = 500;
}

static unsigned forwards(unsigned from, unsigned to)
{
	unsigned count = 0;
	for (long i = net_find(n, from, to, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, from, to, QG_KMS_FORWARD_KEYS, (size_t)i + 1))
		count++;
	return count;
}

static bool issue_fails(void)
{
	qg_err err = QG_OK;
	for (unsigned i = 0; i < 400 && err == QG_OK; i++) {
		err = net_issue(n, A, "sae-a", "sae-c", 32, 32, k);
		for (unsigned ms = 0; ms < 1500 && err == QG_E_EMPTY; ms += 10) {
			pair_nap(10);
			err = net_issue(n, A, "sae-a", "sae-c", 32, 32, k);
		}
		if (err == QG_OK && (net_fetch(n, C, "sae-a", "sae-c", k->id, 32, got) != QG_OK ||
				     memcmp(k->key, got->key, k->bytes) != 0))
			return false;
	}
	return err == QG_E_EMPTY && k->retry_after_s >= 1;
}

/* --- shares ------------------------------------------------------------------------ */

/* The plaintexts of all that was sent to one node, one after the other. */
static uint8_t *seen_by(unsigned node, size_t *len)
{
	uint8_t *all = NULL;
	*len = 0;
	for (long i = net_find(n, NET_NODES, node, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, NET_NODES, node, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		assert_true(net_record_get(n, (size_t)i, &r) && net_forward_of(&r, &m));
		net_record_free(&r);
		uint8_t *bigger = realloc(all, *len + m.masked.data_len);
		if (bigger == NULL)
			free(all);
		assert_non_null(bigger);
		all = bigger;
		assert_true(net_unmask(n, &m.masked, all + *len));
		*len += m.masked.data_len;
	}
	return all;
}

/* Whether one chunk of b XORed with some chunk of a is the key. */
static bool xor_is_key(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len, const uint8_t *key)
{
	uint8_t sum[32];
	for (size_t i = 0; i + 32 <= a_len; i += 32) {
		for (size_t j = 0; j < 32; j++)
			sum[j] = a[i + j] ^ key[j];
		if (memmem(b, b_len, sum, sizeof sum) != NULL)
			return true;
	}
	return false;
}

static void test_no_node_of_two_paths_sees_the_key(void **state)
{
	(void)state;
	net_plan pl;
	plan_diamond(&pl, 2, false);
	n = net_start(&pl);
	assert_int_equal(net_issue_wait(n, A, "sae-a", "sae-c", 32, 32, k), QG_OK);
	assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 32, got), QG_OK);
	assert_memory_equal(k->key, got->key, k->bytes);
	size_t b_len, d_len;
	uint8_t *b = seen_by(B, &b_len), *d = seen_by(D, &d_len);
	assert_true(b_len >= k->bytes && d_len >= k->bytes);
	static const uint8_t nothing[32];
	for (size_t i = 0; i < k->bytes; i += 32) {
		assert_null(memmem(b, b_len, k->key + i, 32));
		assert_null(memmem(d, d_len, k->key + i, 32));
		/* Nor do the chunks that either saw XOR to it; both together do. */
		assert_false(xor_is_key(b, b_len, b, b_len, k->key + i));
		assert_false(xor_is_key(d, d_len, d, d_len, k->key + i));
		assert_true(xor_is_key(b, b_len, d, d_len, k->key + i));
	}
	assert_null(memmem(b, b_len, nothing, sizeof nothing));
	free(b);
	free(d);
}

/* One path: what the node in between sees is the key, so that the case above
 * looks at the right thing. */
static void test_the_node_of_one_path_sees_the_key(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, A, C);
	n = net_start(&pl);
	assert_int_equal(net_issue_wait(n, A, "sae-a", "sae-c", 4, 32, k), QG_OK);
	size_t len;
	uint8_t *seen = seen_by(B, &len);
	for (size_t i = 0; i < k->bytes; i += 32)
		assert_non_null(memmem(seen, len, k->key + i, 32));
	free(seen);
}

static void test_two_paths_over_a_bad_network(void **state)
{
	(void)state;
	net_plan pl;
	plan_diamond(&pl, 2, false);
	n = net_new(&pl);
	for (unsigned i = 0; i < 4; i++)
		for (unsigned j = 0; j < 4; j++) {
			net_fault *f = net_fault_of(n, i, j, QG_KMS_FORWARD_KEYS);
			atomic_store(&f->jitter_ms, 15);
			atomic_store(&f->twice, true);
			atomic_store(&f->lose_answers, (int)(i + j) % 3);
		}
	for (unsigned i = 0; i < 4; i++)
		node_start(&n->node[i]);
	for (int i = 0; i < 10; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
}

static void some_keys(unsigned ms)
{
	for (unsigned i = 0; i < ms; i += 5) {
		if (net_issue(n, A, "sae-a", "sae-c", 32, 32, k) == QG_OK) {
			assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 32, got), QG_OK);
			assert_memory_equal(k->key, got->key, k->bytes);
		}
		pair_nap(5);
	}
}

/* In the middle of segments one way or the other starves, so that the other
 * becomes the cheaper: no share may change over to where another one was. */
static void test_shares_stay_apart_while_costs_change(void **state)
{
	(void)state;
	net_plan pl;
	plan_diamond(&pl, 2, false);
	pl.far[0].segment_chunks = 512;
	pl.ready_chunks = 1536;
	pl.link[2].cost = pl.link[3].cost = 2;
	n = net_start(&pl);
	some_keys(200);
	for (int i = 0; i < 6; i++) {
		unsigned over = i % 2 == 0 ? B : D;
		net_dry_from(n, over, C, true);
		some_keys(400);
		net_dry_from(n, over, C, false);
		some_keys(800);
	}
	unsigned both = forwards(A, B) < forwards(A, D) ? forwards(A, B) : forwards(A, D);
	assert_true(both > 8);
	assert_true(net_deliver(n, A, C, 64, 32));
}

/* --- fewer paths -------------------------------------------------------------------- */

static void test_without_a_second_path_nothing_is_sent(void **state)
{
	(void)state;
	net_plan pl;
	plan_diamond(&pl, 2, false);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 64, 32));
	node_stop(&n->node[D]);
	assert_true(issue_fails());
	node_start(&n->node[D]);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	for (long i = net_find(n, A, NET_NODES, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, A, NET_NODES, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		assert_true(net_forward_get(n, A, NET_NODES, (size_t)i, &m));
		assert_int_equal(m.shares, 2);
	}
}

static void test_with_fewer_paths_allowed_one_carries_all(void **state)
{
	(void)state;
	net_plan pl;
	plan_diamond(&pl, 2, true);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 64, 32));
	node_stop(&n->node[D]);
	for (int i = 0; i < 12; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(net_wait_quiet(n));
	unsigned single = 0;
	for (long i = net_find(n, A, B, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, A, B, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		assert_true(net_forward_get(n, A, B, (size_t)i, &m));
		single += m.shares == 1;
	}
	assert_true(single > 0);
	node_start(&n->node[D]);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
}

/* The target holds the source to what is configured: what A sends as the whole
 * key is not taken where two shares are wanted. */
static void test_a_target_takes_no_fewer_shares_than_configured(void **state)
{
	(void)state;
	net_plan pl;
	plan_diamond(&pl, 2, false);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 16, 32));
	assert_true(net_wait_quiet(n));
	assert_true(net_forward_get(n, B, C, 0, &m));
	static const uint8_t plain[QG_KMS_DATA_MAX];
	m.count = 1;
	m.masked.data_len = m.chunk_size;
	m.shares = 1;
	m.share = 0;
	m.segment += 1000;
	assert_true(net_pads_at(n, B, C, QG_USE_MAC, QG_USE_PAD, m.masked.data_len, &m.masked));
	net_seal(n, &m, plain);
	assert_int_equal(net_forward(n, B, C, &m, NULL), QG_KMS_FORWARD_UNKNOWN);
	assert_true(net_deliver(n, A, C, 16, 32));
}

/* --- around what fails --------------------------------------------------------------- */

typedef void mischief(bool on);

static void b_stops(bool on)
{
	if (on)
		node_stop(&n->node[B]);
	else
		node_start(&n->node[B]);
}

static void b_is_cut_off(bool on)
{
	net_down(n, A, B, on);
}

static void behind_b_is_cut_off(bool on)
{
	net_down(n, B, C, on);
}

static void behind_b_is_dry(bool on)
{
	net_dry(n, B, C, on);
}

/* Over B, which is cheaper; then around it, more than any stock; then back. Keys
 * that were issued are there all the time. */
static void around_b(mischief *does)
{
	net_plan pl;
	plan_diamond(&pl, 1, false);
	pl.link[2].cost = pl.link[3].cost = 3;
	n = net_start(&pl);
	for (unsigned i = 0; i < 200 && forwards(A, B) < 2; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_int_equal(net_issue_wait(n, A, "sae-a", "sae-c", 32, 32, k), QG_OK);
	does(true);
	unsigned around = forwards(A, D);
	for (int i = 0; i < 30; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(forwards(A, D) > around);
	assert_int_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, 32, got), QG_OK);
	assert_memory_equal(k->key, got->key, k->bytes);
	does(false);
	unsigned over = forwards(A, B);
	for (unsigned i = 0; i < 600 && forwards(A, B) < over + 4; i++) {
		assert_true(net_deliver(n, A, C, 64, 32));
		pair_nap(20);
	}
	assert_true(forwards(A, B) >= over + 4);
}

static void test_around_a_node_that_stops(void **state)
{
	(void)state;
	around_b(b_stops);
}

static void test_around_a_node_that_is_cut_off(void **state)
{
	(void)state;
	around_b(b_is_cut_off);
}

static void test_around_a_cut_behind_the_next_node(void **state)
{
	(void)state;
	around_b(behind_b_is_cut_off);
}

static void test_around_a_dry_link_behind_the_next_node(void **state)
{
	(void)state;
	around_b(behind_b_is_dry);
}

/* --- rule 17 ----------------------------------------------------------------------------- */

static void test_rule_17_static_routes_are_never_left(void **state)
{
	(void)state;
	static const char *const over_b[] = { "KME-B" };
	static const qg_config_route only_b = { .via = over_b, .n_via = 1 };
	net_plan pl;
	plan_diamond(&pl, 1, false);
	pl.far[0].routes = &only_b;
	pl.far[0].n_routes = 1;
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 64, 32));
	node_stop(&n->node[B]);
	assert_true(issue_fails());
	assert_int_equal(forwards(A, D), 0);
	node_start(&n->node[B]);
	assert_true(net_deliver(n, A, C, 64, 32));
	assert_int_equal(forwards(A, D), 0);
}

/* B tells of links and nodes that are not configured, in its own and in others'
 * names, and of wonderful stocks there. */
static void test_rule_17_reports_add_no_nodes_and_no_links(void **state)
{
	(void)state;
	static const struct {
		const char *origin, *peer;
	} lies[] = {
		{ "KME-B", "KME-Q" }, { "KME-Q", "KME-C" }, { "KME-A", "KME-C" }, { "KME-B", "KME-D" }, { "KME-D", "KME-B" },
	};
	net_plan pl;
	plan_diamond(&pl, 1, false);
	n = net_start(&pl);
	for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
		static qg_kms_report report;
		static char text[QG_KMS_MSG_MAX];
		static net_answer answer;
		size_t len = 0;
		report = (qg_kms_report){ .sequence = UINT64_C(1) << 60, .n = 1 };
		memcpy(report.origin, lies[i].origin, strlen(lies[i].origin) + 1);
		memcpy(report.link[0].peer, lies[i].peer, strlen(lies[i].peer) + 1);
		report.link[0].bytes = 1 << 30;
		assert_int_equal(qg_kms_report_encode(&report, text, sizeof text, &len), QG_OK);
		net_inject(n, B, A, QG_KMS_POST_STATUS, text, len, &answer);
		assert_false(qg_routes_has_link(n->node[A].core->routes, lies[i].origin, lies[i].peer));
	}
	for (int i = 0; i < 10; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(forwards(A, NET_NODES) > 0); /* teardown looks where they went */
}

/* --- fair use ------------------------------------------------------------------------------ */

static uint64_t node_key_ready(unsigned from, unsigned to)
{
	qg_stream *st = net_stream(n, from, to, from);
	pthread_mutex_lock(&st->lock);
	uint64_t ready = qg_pads_ready_bytes(st);
	pthread_mutex_unlock(&st->lock);
	return ready;
}

/* A takes all that B relays towards D; B's own part of its link stays, and B's
 * own keys for D go on. */
static void test_a_neighbour_cannot_drain_a_link(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 4);
	net_plan_far(&pl, A, D);
	net_plan_far(&pl, B, D);
	pl.own_percent = 50;
	pl.relay_timeout_ms = 500;
	n = net_start(&pl);
	assert_true(net_wait_ready(n, A, D, 192) && net_wait_ready(n, B, D, 192));
	assert_true(net_wait_quiet(n));
	uint64_t own = (uint64_t)n->plan.node_chunks * n->plan.chunk_size / 2;
	assert_true(node_key_ready(B, C) > own);
	net_dry_from(n, B, C, true);
	qg_err err = QG_OK;
	for (unsigned idle = 0; idle < 100;) {
		err = net_issue(n, A, "sae-a", "sae-d", 16, 32, k);
		idle = err == QG_OK ? 0 : idle + 1;
		if (err != QG_OK)
			pair_nap(10);
	}
	assert_int_equal(err, QG_E_EMPTY);
	assert_true(node_key_ready(B, C) >= own);
	assert_true(node_key_ready(B, C) < own + 4096);
	/* More than what was in B's pool. */
	for (int i = 0; i < 20; i++)
		assert_true(net_deliver(n, B, D, 16, 32));
	assert_true(node_key_ready(B, C) < own);
}

typedef struct flow {
	uint64_t bytes, first_ms, last_ms;
} flow;

/* What B passed on of one virtual stream, from a record on. */
static flow flow_of(const char *stream, size_t from)
{
	flow f = { 0 };
	for (long i = net_find(n, B, C, QG_KMS_FORWARD_KEYS, from); i >= 0;
	     i = net_find(n, B, C, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		assert_true(net_record_get(n, (size_t)i, &r) && net_forward_of(&r, &m));
		if (stream == NULL || strcmp(m.stream, stream) == 0) {
			f.bytes += m.masked.data_len;
			f.first_ms = f.first_ms == 0 ? r.sent_ms : f.first_ms;
			f.last_ms = r.sent_ms;
		}
		net_record_free(&r);
	}
	return f;
}

#define QUOTA 8192
#define BURST 16384 /* a bucket holds a whole message */

static void assert_within_quota(flow f)
{
	assert_true(f.bytes > BURST); /* it was the quota that held it */
	assert_true(f.bytes <= BURST + QUOTA * (f.last_ms - f.first_ms + 100) / 1000);
}

static void flood(net_plan *pl)
{
	n = net_start(pl);
	for (unsigned ms = 0; ms < 4000; ms += 5) {
		(void)net_issue(n, A, "sae-a", "sae-c", 64, 32, k);
		(void)net_issue(n, A, "sae-a", "sae-d", 64, 32, k);
		pair_nap(5);
	}
}

static void plan_flood(net_plan *pl)
{
	net_plan_line(pl, 4);
	net_plan_far(pl, A, C);
	net_plan_far(pl, A, D);
	pl->relay_timeout_ms = 500;
	pl->inbound_chunks = 65536;
}

static void test_what_is_relayed_for_a_neighbour_is_limited(void **state)
{
	(void)state;
	net_plan pl;
	plan_flood(&pl);
	pl.neighbour_bytes_per_s = QUOTA;
	flood(&pl);
	assert_within_quota(flow_of(NULL, 0));
}

static void test_what_is_relayed_of_a_stream_is_limited(void **state)
{
	(void)state;
	net_plan pl;
	plan_flood(&pl);
	pl.route_bytes_per_s = QUOTA;
	flood(&pl);
	assert_within_quota(flow_of("a-over-c", 0));
	assert_within_quota(flow_of("a-over-d", 0));
}

static void test_without_quotas_much_more_is_relayed(void **state)
{
	(void)state;
	net_plan pl;
	plan_flood(&pl);
	flood(&pl);
	flow f = flow_of(NULL, 0);
	assert_true(f.bytes > 2 * (BURST + QUOTA * (f.last_ms - f.first_ms) / 1000));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_no_node_of_two_paths_sees_the_key),
		CASE(test_the_node_of_one_path_sees_the_key),
		CASE(test_two_paths_over_a_bad_network),
		CASE(test_shares_stay_apart_while_costs_change),
		CASE(test_without_a_second_path_nothing_is_sent),
		CASE(test_with_fewer_paths_allowed_one_carries_all),
		CASE(test_a_target_takes_no_fewer_shares_than_configured),
		CASE(test_around_a_node_that_stops),
		CASE(test_around_a_node_that_is_cut_off),
		CASE(test_around_a_cut_behind_the_next_node),
		CASE(test_around_a_dry_link_behind_the_next_node),
		CASE(test_rule_17_static_routes_are_never_left),
		CASE(test_rule_17_reports_add_no_nodes_and_no_links),
		CASE(test_a_neighbour_cannot_drain_a_link),
		CASE(test_what_is_relayed_for_a_neighbour_is_limited),
		CASE(test_what_is_relayed_of_a_stream_is_limited),
		CASE(test_without_quotas_much_more_is_relayed),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
