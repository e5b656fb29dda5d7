/* SPDX-License-Identifier: Apache-2.0 */
/* SOUNDNESS 17: what gateways tell one another of their links. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/core_net.c"

#define EXTRA UINT64_C(1000000)
#define FAR_AHEAD (UINT64_C(1) << 50) /* no clock gets there */

static core_net *n;

static int
teardown(void **state)
{
	(void)state;
	net_free(&n);
	atomic_store(&pair_wall_ahead_ms, 0);
	return 0;
}

static void
start_line(unsigned nodes)
{
	net_plan pl;
	net_plan_line(&pl, nodes);
	n = net_start(&pl);
}

/* --- what was sent -------------------------------------------------------------------- */

/* Reports of an origin with at least this sequence that `from` sent to `to`,
 * from record `since` on; the last of them in *last, if not NULL. */
static unsigned
reports(unsigned from, unsigned to, unsigned origin, uint64_t sequence, size_t since, qg_kms_report *last)
{
	unsigned count = 0;
	for (long i = (long)since - 1; (i = net_find(n, from, to, QG_KMS_POST_STATUS, (size_t)(i + 1))) >= 0;) {
		net_record r;
		qg_kms_report m;
		assert_true(net_record_get(n, (size_t)i, &r));
		assert_int_equal(qg_kms_report_decode(r.body, r.len, &m), QG_OK);
		net_record_free(&r);
		if (strcmp(m.origin, n->node[origin].id) != 0 || m.sequence < sequence)
			continue;
		count++;
		if (last != NULL)
			*last = m;
	}
	return count;
}

typedef struct told {
	unsigned from, to, origin, peer;
	qg_kms_link_state state;
	size_t since;
	qg_kms_link link; /* as found */
} told;

static bool
is_told(core_net *net, void *ctx)
{
	told *t = ctx;
	qg_kms_report m;
	if (reports(t->from, t->to, t->origin, 0, t->since, &m) == 0)
		return false;
	for (size_t i = 0; i < m.n; i++)
		if (strcmp(m.link[i].peer, net->node[t->peer].id) == 0 && m.link[i].state == t->state) {
			t->link = m.link[i];
			return true;
		}
	return false;
}

/* `from` tells `to` that the link from `origin` to `peer` is in this state. */
static qg_kms_link
wait_told(unsigned from, unsigned to, unsigned origin, unsigned peer, qg_kms_link_state state, size_t since)
{
	told t = {.from = from, .to = to, .origin = origin, .peer = peer, .state = state, .since = since};
	assert_true(net_wait(n, is_told, &t));
	return t.link;
}

/* Best route as node `at` sees it; 0: none. */
static uint64_t
route_cost(unsigned at, unsigned to, uint64_t *bytes)
{
	qg_config_stream st = {.neighbour = n->node[to].id, .relayed = true, .relay = {.max_hops = 14}};
	qg_route route;
	size_t found = 0;
	qg_routes_find(n->node[at].core->routes, &st, 1, qg_clock_elapsed_ms(), &route, &found);
	if (found == 0)
		return 0;
	if (bytes != NULL)
		*bytes = route.bytes;
	return route.cost;
}

typedef struct cost_wish {
	unsigned at, to;
	uint64_t from, below;
} cost_wish;

static bool
costs(core_net *net, void *ctx)
{
	(void)net;
	const cost_wish *w = ctx;
	uint64_t cost = route_cost(w->at, w->to, NULL);
	return cost >= w->from && cost < w->below;
}

static void
wait_cost(unsigned at, unsigned to, uint64_t from, uint64_t below)
{
	cost_wish w = {at, to, from, below};
	assert_true(net_wait(n, costs, &w));
}

/* --- our own links ------------------------------------------------------------------------ */

static void
reports_reach_everybody(void **state)
{
	(void)state;
	uint64_t from_ms = qg_clock_elapsed_ms(), bytes = UINT64_MAX;
	start_line(4);
	for (unsigned i = 0; i < 3; i++) {
		qg_kms_link there = wait_told(1, 0, i + 1, i, QG_KMS_LINK_UP, 0);
		assert_in_range(there.bytes, 1, 512 * 32);
		if (i > 0) {
			there = wait_told(1, 0, i, i + 1, QG_KMS_LINK_UP, 0);
			assert_in_range(there.bytes, 1, 512 * 32);
		}
	}
	wait_cost(0, 3, 1, EXTRA);
	assert_true(route_cost(0, 3, &bytes) >= 3);
	assert_in_range(bytes, 1, 512 * 32);
	/* Because of changes at most every half second, else every five. */
	uint64_t took_ms = qg_clock_elapsed_ms() - from_ms;
	unsigned own = reports(0, 1, 0, 0, 0, NULL);
	assert_in_range(own, 1, 3 + took_ms / 500);
	/* Nobody is told of itself, nor told again what it told. */
	for (unsigned to = 0; to < 4; to++) {
		for (unsigned from = 0; from < 4; from++)
			assert_int_equal(reports(from, to, to, 0, 0, NULL), 0);
		for (unsigned origin = to + 1; to > 0 && origin < 4; origin++)
			assert_int_equal(reports(to - 1, to, origin, 0, 0, NULL), 0);
	}
}

static void
links_without_key_starve(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	n = net_new(&pl);
	net_dry_from(n, 1, 2, true);
	for (unsigned i = 0; i < 3; i++)
		node_start(&n->node[i]);
	qg_kms_link link = wait_told(1, 0, 1, 2, QG_KMS_LINK_STARVING, 0);
	assert_int_equal(link.bytes, 0);
	/* The way back has key of its own. */
	link = wait_told(1, 0, 2, 1, QG_KMS_LINK_UP, 0);
	assert_true(link.bytes > 0);
	wait_cost(0, 2, EXTRA, 2 * EXTRA);
	assert_true(route_cost(2, 0, NULL) < EXTRA);
	size_t since = net_records(n);
	net_dry_from(n, 1, 2, false);
	link = wait_told(1, 0, 1, 2, QG_KMS_LINK_UP, since);
	assert_true(link.bytes >= 512 * 32 / 5);
	wait_cost(0, 2, 1, EXTRA);
}

static void
links_to_the_unreachable_are_down(void **state)
{
	(void)state;
	start_line(3);
	wait_told(1, 0, 1, 2, QG_KMS_LINK_UP, 0);
	wait_cost(0, 2, 1, EXTRA);
	size_t since = net_records(n);
	net_down(n, 1, 2, true);
	/* Relaying sees it at once; the report follows what it tried itself. */
	qg_routes_fault(n->node[1].core->routes, n->node[1].id, n->node[2].id, QG_ROUTE_DOWN,
			qg_clock_elapsed_ms());
	uint64_t from_ms = qg_clock_elapsed_ms();
	wait_told(1, 0, 1, 2, QG_KMS_LINK_DOWN, since);
	assert_true(qg_clock_elapsed_ms() - from_ms < 4000);
	wait_cost(0, 2, 2 * EXTRA, UINT64_MAX);
	since = net_records(n);
	net_down(n, 1, 2, false);
	wait_told(1, 0, 1, 2, QG_KMS_LINK_UP, since);
	wait_cost(0, 2, 1, EXTRA);
}

/* Six links fail one after the other, faster than that is told. */
static void
many_changes_make_few_reports(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 2);
	for (unsigned i = 2; i < 8; i++)
		net_plan_link(&pl, 0, i);
	n = net_start(&pl);
	for (unsigned i = 1; i < 8; i++)
		wait_told(0, 1, 0, i, QG_KMS_LINK_UP, 0);
	pair_nap(600);
	size_t since = net_records(n);
	uint64_t from_ms = qg_clock_elapsed_ms();
	for (unsigned i = 2; i < 8; i++) {
		net_down(n, 0, i, true);
		qg_routes_fault(n->node[0].core->routes, n->node[0].id, n->node[i].id, QG_ROUTE_DOWN,
				qg_clock_elapsed_ms());
		pair_nap(220);
	}
	for (unsigned i = 2; i < 8; i++)
		wait_told(0, 1, 0, i, QG_KMS_LINK_DOWN, since);
	/* Each at most half a second after the one before, and one every five. */
	uint64_t took_ms = qg_clock_elapsed_ms() - from_ms;
	assert_in_range(reports(0, 1, 0, 0, since, NULL), 2, 1 + took_ms / 500 + (took_ms + 4999) / 5000);
}

/* That relaying takes a link for down is no proof for others. */
static void
a_penalty_alone_is_not_told(void **state)
{
	(void)state;
	start_line(3);
	wait_told(1, 0, 1, 2, QG_KMS_LINK_UP, 0);
	pair_nap(600);
	size_t since = net_records(n);
	qg_routes_fault(n->node[1].core->routes, n->node[1].id, n->node[2].id, QG_ROUTE_DOWN,
			qg_clock_elapsed_ms());
	pair_nap(800);
	qg_kms_report m;
	assert_true(reports(1, 2, 1, 0, since, &m) > 0); /* it was tried */
	for (size_t i = 0; i < m.n; i++)
		assert_int_equal(m.link[i].state, QG_KMS_LINK_UP);
	assert_true(reports(1, 0, 1, 0, since, &m) == 0 || m.link[1].state == QG_KMS_LINK_UP);
}

static void
sequences_grow_over_restarts(void **state)
{
	(void)state;
	start_line(2);
	wait_told(0, 1, 0, 1, QG_KMS_LINK_UP, 0);
	for (int i = 0; i < 2; i++) {
		size_t since = net_records(n);
		if (i == 0)
			node_stop(&n->node[0]);
		else
			node_crash(&n->node[0]);
		node_start(&n->node[0]);
		wait_told(0, 1, 0, 1, QG_KMS_LINK_UP, since);
	}
	/* Over a clock that goes back while it runs, too. */
	atomic_store(&pair_wall_ahead_ms, -3600 * INT64_C(1000));
	size_t since = net_records(n);
	net_dry_from(n, 0, 1, true);
	net_down(n, 0, 1, true);
	pair_nap(100);
	net_down(n, 0, 1, false);
	qg_routes_fault(n->node[0].core->routes, n->node[0].id, n->node[1].id, QG_ROUTE_DOWN,
			qg_clock_elapsed_ms());
	pair_nap(1500);
	assert_true(reports(0, 1, 0, 0, since, NULL) > 0);
	uint64_t last = 0;
	for (long i = -1; (i = net_find(n, 0, 1, QG_KMS_POST_STATUS, (size_t)(i + 1))) >= 0;) {
		net_record r;
		qg_kms_report m;
		assert_true(net_record_get(n, (size_t)i, &r));
		assert_int_equal(qg_kms_report_decode(r.body, r.len, &m), QG_OK);
		net_record_free(&r);
		assert_true(m.sequence > last);
		last = m.sequence;
	}
}

static void
who_does_not_relay_tells_nothing(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	for (size_t i = 0; i < pl.n_links; i++)
		pl.link[i].node_chunks = UINT32_MAX;
	n = net_new(&pl);
	for (unsigned i = 0; i < 3; i++) {
		n->node[i].cfg.n_links = 0;
		node_start(&n->node[i]);
	}
	assert_true(net_deliver(n, 0, 1, 4, 32));
	pair_nap(700);
	assert_int_equal(net_find(n, NET_NODES, NET_NODES, QG_KMS_POST_STATUS, 0), -1);
}

/* --- what others tell ------------------------------------------------------------------------ */

/* Of `origin`, whose link to `peer` is in this state, handed to `to` as if the
 * neighbour `from` sent it. The HTTP status of the answer. */
static int
hand(unsigned from, unsigned to, const char *origin, const char *peer, uint64_t sequence, qg_kms_link_state state)
{
	static net_answer answer;
	qg_kms_report m = {.sequence = sequence, .n = 1, .link[0].state = state};
	char text[1024];
	size_t len = 0;
	snprintf(m.origin, sizeof m.origin, "%s", origin);
	snprintf(m.link[0].peer, sizeof m.link[0].peer, "%s", peer);
	assert_int_equal(qg_kms_report_encode(&m, text, sizeof text, &len), QG_OK);
	net_inject(n, from, to, QG_KMS_POST_STATUS, text, len, &answer);
	if (answer.status == 200) {
		assert_int_equal(answer.len, strlen("{\"version\":1}"));
		assert_memory_equal(answer.body, "{\"version\":1}", answer.len);
	}
	return answer.status;
}

/* Nothing with so high a sequence was passed on by anyone. */
static void
assert_not_passed_on(void)
{
	pair_nap(500);
	for (unsigned from = 0; from < n->plan.nodes; from++)
		for (unsigned to = 0; to < n->plan.nodes; to++)
			for (unsigned origin = 0; origin < n->plan.nodes; origin++)
				assert_int_equal(reports(from, to, origin, FAR_AHEAD, 0, NULL), 0);
}

static void
soundness_17_reports_that_concern_nobody_are_dropped(void **state)
{
	(void)state;
	start_line(4);
	wait_told(1, 0, 3, 2, QG_KMS_LINK_UP, 0);
	wait_cost(0, 3, 1, EXTRA);
	const char *a = n->node[0].id, *b = n->node[1].id, *c = n->node[2].id, *d = n->node[3].id;
	/* Nodes and links that the topology does not have. */
	assert_int_equal(hand(1, 0, "KME-X", c, FAR_AHEAD, QG_KMS_LINK_UP), 200);
	assert_int_equal(hand(1, 0, d, "KME-X", FAR_AHEAD, QG_KMS_LINK_UP), 200);
	assert_int_equal(hand(1, 0, d, a, FAR_AHEAD + 1, QG_KMS_LINK_UP), 200);
	assert_false(qg_routes_has_link(n->node[0].core->routes, d, a));
	/* About B itself, told to B; and by one that B has no link with. */
	assert_int_equal(hand(2, 1, b, c, FAR_AHEAD, QG_KMS_LINK_DOWN), 200);
	assert_int_equal(hand(3, 1, c, d, FAR_AHEAD, QG_KMS_LINK_DOWN), 200);
	assert_true(route_cost(1, 3, NULL) != 0);
	/* An old one. */
	assert_int_equal(hand(1, 0, c, d, 1, QG_KMS_LINK_DOWN), 200);
	wait_cost(0, 3, 1, EXTRA);
	assert_not_passed_on();
}

static void
malformed_reports_are_refused(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"", "{}", "[]", "{\"version\":1}", "{\"version\":1,\"origin\":\"KME-B\",\"sequence\":-1,\"links\":[]}",
		"{\"version\":2,\"origin\":\"KME-B\",\"sequence\":1,\"links\":[]}",
		"{\"version\":1,\"origin\":\"KME-B\",\"sequence\":1,\"links\":[],\"more\":0}",
		"{\"version\":1,\"origin\":\"B\",\"sequence\":1,\"links\":[{\"peer\":\"A\",\"state\":\"gone\",\"bytes\":1}]}",
		"{\"version\":1,\"origin\":\"KME-B\",\"sequence\":1,\"links\":[",
	};
	static net_answer answer;
	start_line(2);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		net_inject(n, 1, 0, QG_KMS_POST_STATUS, bad[i], strlen(bad[i]), &answer);
		assert_int_equal(answer.status, 400);
	}
}

/* Round a ring every gateway passes a report on once, and it ends. */
static void
reports_do_not_circle(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_ring(&pl, 5);
	n = net_start(&pl);
	wait_told(1, 0, 2, 1, QG_KMS_LINK_UP, 0);
	const char *c = n->node[2].id, *b = n->node[1].id;
	assert_int_equal(hand(1, 0, c, b, FAR_AHEAD, QG_KMS_LINK_UP), 200);
	assert_int_equal(hand(1, 0, c, b, FAR_AHEAD, QG_KMS_LINK_UP), 200);
	pair_nap(1000);
	assert_int_equal(reports(0, 4, 2, FAR_AHEAD, 0, NULL), 1);
	assert_int_equal(reports(4, 3, 2, FAR_AHEAD, 0, NULL), 1);
	for (unsigned from = 0; from < 5; from++)
		for (unsigned to = 0; to < 5; to++)
			if (!(from == 0 && to == 4) && !(from == 4 && to == 3))
				assert_int_equal(reports(from, to, 2, FAR_AHEAD, 0, NULL), 0);
}

/* However many come, few are passed on, and of these the newest. */
static void
soundness_17_floods_of_reports_are_dammed(void **state)
{
	(void)state;
	start_line(3);
	wait_told(1, 0, 2, 1, QG_KMS_LINK_UP, 0);
	uint64_t from_ms = qg_clock_elapsed_ms(), sequence = FAR_AHEAD;
	while (qg_clock_elapsed_ms() < from_ms + 900)
		assert_int_equal(hand(2, 1, n->node[2].id, n->node[1].id, ++sequence, QG_KMS_LINK_UP), 200);
	uint64_t took_ms = qg_clock_elapsed_ms() - from_ms;
	assert_true(sequence > FAR_AHEAD + 20);
	pair_nap(600);
	qg_kms_report m;
	assert_in_range(reports(1, 0, 2, FAR_AHEAD, 0, &m), 2, 2 + (took_ms + 600) / 200);
	assert_int_equal(m.sequence, sequence);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(reports_reach_everybody, teardown),
		cmocka_unit_test_teardown(links_without_key_starve, teardown),
		cmocka_unit_test_teardown(links_to_the_unreachable_are_down, teardown),
		cmocka_unit_test_teardown(many_changes_make_few_reports, teardown),
		cmocka_unit_test_teardown(a_penalty_alone_is_not_told, teardown),
		cmocka_unit_test_teardown(sequences_grow_over_restarts, teardown),
		cmocka_unit_test_teardown(who_does_not_relay_tells_nothing, teardown),
		cmocka_unit_test_teardown(soundness_17_reports_that_concern_nobody_are_dropped, teardown),
		cmocka_unit_test_teardown(malformed_reports_are_refused, teardown),
		cmocka_unit_test_teardown(reports_do_not_circle, teardown),
		cmocka_unit_test_teardown(soundness_17_floods_of_reports_are_dammed, teardown),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("link_state", tests, NULL, NULL);
}
