/* SPDX-License-Identifier: Apache-2.0 */
/* Hops of keys: what limits a request may set, and what it is told. The pool of
 * a stream is given segments of several hop counts, as a virtual stream's have
 * whose route changed. */
#include "support/pair_case.h"

#include <stdlib.h>
#include <string.h>

static int teardown(void **state)
{
	(void)state;
	return end_case(true);
}

static qg_err ask(uint32_t min_hops, uint32_t max_hops, uint32_t number)
{
	qg_issue_request req = { .master = "sae-alice", .slave = "sae-bob", .number = number, .size_bytes = 32,
				 .min_hops = min_hops, .max_hops = max_hops };
	return pair_issue_req(&p->end[0], &req, k);
}

/* A full pool at A that does not change any more; segment i has hops[i % n]. */
static void start_with(const pair_options *o, const uint32_t *hops, uint32_t n, uint32_t most)
{
	p = pair_start(o);
	assert_true(pair_wait_idle(p, 0));
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	qg_stream *st = pair_out(p, 0);
	pthread_mutex_lock(&st->lock);
	st->hops_most = most;
	for (uint32_t i = 0; i < st->newest->n_seg; i++)
		if (st->newest->seg[i] != NULL)
			st->newest->seg[i]->hops = hops[i % n];
	pthread_mutex_unlock(&st->lock);
}

static void start(const uint32_t *hops, uint32_t n, uint32_t most)
{
	start_with(NULL, hops, n, most);
}

static bool all_have(const pair_keys *keys, uint32_t hops)
{
	for (size_t i = 0; i < keys->n; i++)
		if (keys->hops[i] != hops)
			return false;
	return true;
}

static bool delivers(void)
{
	return pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, k->n, got) == QG_OK &&
	       got->bytes == k->bytes && memcmp(got->key, k->key, k->bytes) == 0;
}

/* Chunks at A not issued yet, in segments of so many hops. */
static uint64_t left_with(uint32_t hops)
{
	uint64_t n = 0;
	qg_stream *st = pair_out(p, 0);
	pthread_mutex_lock(&st->lock);
	for (uint32_t i = 0; i < st->newest->n_seg; i++) {
		const qg_segment *s = st->newest->seg[i];
		if (s != NULL && s->phase == QG_SEG_CONFIRMED && s->hops == hops)
			n += s->hi - s->cursor;
	}
	pthread_mutex_unlock(&st->lock);
	return n;
}

static void a_link_has_none(void **state)
{
	(void)state;
	p = pair_start(NULL);
	assert_true(pair_wait_ready(p, 0, 100));
	assert_int_equal(ask(1, UINT32_MAX, 1), QG_E_STATE);
	assert_int_equal(ask(3, 5, 1), QG_E_STATE);
	assert_null(k->key);
	assert_int_equal(ask(0, 0, 2), QG_OK);
	assert_true(all_have(k, 0) && delivers());
	assert_int_equal(ask(0, 7, 2), QG_OK);
	assert_true(all_have(k, 0) && delivers());
	qg_issue_request here = { .master = "sae-alice", .slave = "sae-dave", .number = 1, .size_bytes = 32,
				  .min_hops = 1, .max_hops = UINT32_MAX };
	assert_int_equal(pair_issue_req(&p->end[0], &here, k), QG_E_STATE);
	here.min_hops = here.max_hops = 0;
	assert_int_equal(pair_issue_req(&p->end[0], &here, k), QG_OK);
	assert_true(all_have(k, 0));
}

static void others_are_passed_over(void **state)
{
	static const uint32_t hops[] = { 2, 0, 1 };
	(void)state;
	start(hops, 3, 2);
	uint64_t none = left_with(0), one = left_with(1), two = left_with(2);
	assert_true(none >= 60 && one >= 60 && two >= 60);
	assert_int_equal(ask(0, 0, 50), QG_OK);
	assert_true(all_have(k, 0) && delivers());
	assert_int_equal(left_with(0), none - 50);
	assert_int_equal(left_with(1), one);
	assert_int_equal(left_with(2), two);
	assert_int_equal(ask(1, 1, 50), QG_OK);
	assert_true(all_have(k, 1) && delivers());
	assert_int_equal(ask(2, 14, 50), QG_OK);
	assert_true(all_have(k, 2) && delivers());
	assert_int_equal(left_with(0), none - 50);
	assert_int_equal(left_with(1), one - 50);
	assert_int_equal(left_with(2), two - 50);
	/* Without limits: in their order, each with its own. */
	assert_int_equal(ask(0, UINT32_MAX, 100), QG_OK);
	assert_true(!all_have(k, k->hops[0]) && delivers());
}

/* Short of them is not the same as never: a pool may fill again. */
static void short_is_not_never(void **state)
{
	static const uint32_t hops[] = { 2, 0 };
	(void)state;
	start(hops, 2, 3);
	assert_int_equal(ask(3, 3, 1), QG_E_EMPTY);
	assert_true(k->retry_after_s > 0);
	assert_int_equal(ask(1, 1, 1), QG_E_EMPTY);
	assert_int_equal(ask(4, UINT32_MAX, 1), QG_E_STATE);
	uint64_t two = left_with(2);
	assert_int_equal(ask(2, 2, (uint32_t)two + 1), QG_E_EMPTY);
	assert_int_equal(left_with(2), two);
	qg_stream *st = pair_out(p, 0);
	pthread_mutex_lock(&st->lock);
	st->hops_least = 1;
	pthread_mutex_unlock(&st->lock);
	assert_int_equal(ask(0, 0, 1), QG_E_STATE);
}

/* The durable mark follows to where such keys are, further than the small
 * leases of this pair come in the attempts that a request has. */
static void beyond_the_mark(void **state)
{
	static const uint32_t hops[] = { 5, 5, 5, 5, 5, 5, 5, 5, 5, 1 };
	(void)state;
	start_with(&(pair_options){ .lease_chunks = 64, .ready_chunks = 640, .reserve_percent = 0 }, hops, 10, 5);
	epoch_view v = pair_epoch(pair_out(p, 0));
	assert_true(v.mark < 4 * PAIR_SEGMENT);
	assert_int_equal(ask(0, 1, 20), QG_OK);
	assert_true(all_have(k, 1) && delivers());
	assert_true(pair_epoch(pair_out(p, 0)).mark >= 9 * PAIR_SEGMENT + 20);
	assert_int_equal(ask(5, 5, 100), QG_OK);
	assert_true(all_have(k, 5) && delivers());
}

static void told_with_additional_slaves(void **state)
{
	static const char *const extra[] = { "sae-dave" };
	static const uint32_t hops[] = { 3 };
	(void)state;
	start(hops, 1, 3);
	qg_issue_request req = { .master = "sae-alice", .slave = "sae-bob", .extra = extra, .n_extra = 1, .number = 4,
				 .size_bytes = 32, .min_hops = 3, .max_hops = 3 };
	assert_int_equal(pair_issue_req(&p->end[0], &req, k), QG_OK);
	assert_true(all_have(k, 3) && delivers());
	atomic_store(&p->end[0].store.fault, FAULT_FAILS);
	assert_int_equal(pair_issue_req(&p->end[0], &req, k), QG_E_IO);
	atomic_store(&p->end[0].store.fault, FAULT_NONE);
}

/* --- by the configuration -------------------------------------------------------- */

static const char *const none[1], *const b[] = { "B" }, *const bc[] = { "B", "C" };

static void range_is(const qg_config *cfg, qg_config_stream st, uint32_t least, uint32_t most)
{
	uint32_t lo = 99, hi = 99;
	st.neighbour = "Z";
	qg_hops_range(cfg, &st, &lo, &hi);
	assert_int_equal(lo, least);
	assert_int_equal(hi, most);
}

static void what_a_stream_can_have(void **state)
{
	static const qg_config_link line[] = { { "B", "A", 1 }, { "B", "C", 1 }, { "Z", "C", 1 }, { "X", "Y", 1 } };
	static const qg_config_link direct[] = { { "B", "A", 1 }, { "B", "Z", 1 }, { "Z", "A", 1000 } };
	static const qg_config_route routes[] = { { bc, 2 }, { b, 1 } }, with_link[] = { { none, 0 }, { bc, 2 } };
	const qg_config bare = { .kme_id = "A" }, far = { .kme_id = "A", .links = line, .n_links = 4 };
	const qg_config near = { .kme_id = "A", .links = direct, .n_links = 3 };
	const qg_config lost = { .kme_id = "A", .links = line + 1, .n_links = 3 };
	(void)state;
	range_is(&far, (qg_config_stream){ .relayed = false }, 0, 0);
	const qg_config_stream found = { .relayed = true, .relay = { .max_hops = 14 } };
	range_is(&bare, found, 0, 14);
	range_is(&far, found, 2, 14);
	range_is(&near, found, 0, 14);
	range_is(&lost, found, 0, 14);
	qg_config_stream fixed = { .relayed = true, .relay = { .max_hops = 14, .routes = routes, .n_routes = 2 } };
	range_is(&far, fixed, 1, 2);
	fixed.relay.routes = with_link;
	range_is(&far, fixed, 0, 2);
	fixed.relay.max_hops = 1;
	range_is(&far, fixed, 0, 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_link_has_none),
		TEST(others_are_passed_over),
		TEST(short_is_not_never),
		TEST(beyond_the_mark),
		TEST(told_with_additional_slaves),
		cmocka_unit_test(what_a_stream_can_have),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
