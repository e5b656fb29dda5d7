/* SPDX-License-Identifier: Apache-2.0 */
/* Memory that is not to be had, at each place where key is drawn, relayed over a node
 * and given to applications as streams, in turn. */
#include "support/refusal_starts.h"

#include "app_rig.h"

static app_getting ga, gc;
static pair_keys *k, *got;

static const qg_etsi004_qos soon = {.chunk_size = 32, .timeout_ms = 300, .mimetype = "application/json"};

static qg_app_opened open_from(unsigned node, unsigned peer, const qg_uuid *ksid)
{
	return open_end(open_begin(node, 0, ksid, uri(node, 0), uri(peer, 0), &soon));
}

static bool is_open(const qg_app_opened *o)
{
	return o->status == QG_ETSI004_SUCCESS || o->status == QG_ETSI004_QOS;
}

/* Whatever both ends get of an index is the same. */
static void use_stream(unsigned peer)
{
	const qg_app_opened a = open_from(A, peer, NULL);
	if (!is_open(&a))
		return;
	const qg_app_opened c = open_from(peer, A, &a.ksid);
	for (int64_t i = 0; i < 3 && is_open(&c); i++) {
		const bool first = get_at(&ga, A, 0, &a.ksid, i) == QG_ETSI004_SUCCESS;
		if (get_at(&gc, peer, 0, &a.ksid, i) == QG_ETSI004_SUCCESS && first)
			assert_memory_equal(ga.key, gc.key, 32);
	}
	(void)close_at(A, 0, &a.ksid);
	(void)close_at(peer, 0, &a.ksid);
}

/* A key that was issued is there, the same, once. */
static void use_keys(void)
{
	qg_issue_request req = {.master = "sae-a", .slave = "sae-c", .number = 32, .size_bytes = 32,
				.max_hops = UINT32_MAX};
	keys_issue_begin(n->node[A].core, &req, k);
	if (keys_wait(k) != QG_OK)
		return;
	bool fetched = net_fetch(n, C, "sae-a", "sae-c", k->id, k->n, got) == QG_OK;
	(void)refusal_disarm();
	for (unsigned tries = 0; tries < 1000 && !fetched; tries++) {
		pair_nap(10);
		fetched = net_fetch(n, C, "sae-a", "sae-c", k->id, k->n, got) == QG_OK;
	}
	assert_true(fetched);
	assert_int_equal(got->bytes, k->bytes);
	assert_memory_equal(got->key, k->key, k->bytes);
	assert_int_not_equal(net_fetch(n, C, "sae-a", "sae-c", k->id, k->n, got), QG_OK);
}

/* What only lost time is tried again: the machine may stand still meanwhile. */
static qg_app_opened open_soon(unsigned node, unsigned peer, const qg_uuid *ksid)
{
	qg_app_opened o = open_at(node, peer, ksid);
	for (unsigned tries = 0; tries < 60 && o.status != QG_ETSI004_SUCCESS; tries++)
		o = open_at(node, peer, ksid);
	return o;
}

static void use_all(void)
{
	use_stream(C);
	use_stream(B);
	use_keys();
}

static bool none_left(core_net *net, void *ctx)
{
	(void)ctx;
	for (unsigned i = 0; i < net->plan.nodes; i++)
		if (qg_app_streams_count(apps(i)) > 0)
			return false;
	return true;
}

static void test_streams_and_relayed_keys_stay_the_same_at_both_ends(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, A, C);
	pl.kms_timeout_ms = 300; /* what is lost is soon sent again */
	plan_apps(&pl);
	for (unsigned i = 0; i < n->plan.nodes; i++)
		n->node[i].cfg.app_streams.per_sae = REFUSAL_ROUNDS;
	run_apps();
	assert_true(net_wait_ready(n, A, C, 64));
	k = keys_new();
	got = keys_new();
	store_refuses = send_refuses = refusal_due;
	refusal_rounds(use_all);
	store_refuses = send_refuses = NULL;
	assert_true(net_wait_ready(n, A, C, 64));
	const qg_app_opened a = open_soon(A, C, NULL);
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_soon(C, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, C, 0, &a.ksid, 0, 20);
	assert_int_equal(close_at(A, 0, &a.ksid), QG_ETSI004_SUCCESS);
	atomic_fetch_add(&pair_ahead_ms, 3601000); /* beyond idle_s */
	assert_true(net_wait(n, none_left, NULL));
	size_t repeats = 0;
	assert_true(net_all_fresh(n, NULL));
	assert_true(net_drawn_once(n, &repeats));
	keys_free(&k);
	keys_free(&got);
}

/* A start that is refused leaves a stream's stored blocks; the next has them, the same. */
static void test_a_start_keeps_streams_whole(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_soon(A, B, NULL);
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_soon(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &a.ksid, 0, 40);
	node_stop(&n->node[A]);
	store_refuses = refusal_due;
	refusal_of_starts = true;
	unsigned quiet = 0, rounds = 0, failed = 0;
	for (; quiet < REFUSAL_QUIET && rounds < REFUSAL_ROUNDS; rounds++) {
		const bool started = node_try_start(&n->node[A]) == QG_OK;
		assert_true(started || refusal_met_start);
		assert_false(refusal_silent_start);
		failed += !started;
		quiet = refusal_met_start ? 0 : quiet + 1;
		node_stop(&n->node[A]);
	}
	refusal_of_starts = false;
	store_refuses = NULL;
	assert_true(failed > 10);
	node_start(&n->node[A]);
	compare(A, 0, B, 0, &a.ksid, 0, 40);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		TEST(test_streams_and_relayed_keys_stay_the_same_at_both_ends),
		TEST(test_a_start_keeps_streams_whole),
	};
	return pair_init() != 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
