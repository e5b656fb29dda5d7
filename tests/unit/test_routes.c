/* SPDX-License-Identifier: Apache-2.0 */
/* SOUNDNESS 17: which routes are found. */
#include "routes_net.h"

#include "qkdgate/clock.h"

static void
routes_are_the_best_of_all(void **state)
{
	(void)state;
	seeded();
	for (int round = 0; round < 4000; round++) {
		net *t = net_new(2 + rnd(SMALL - 1));
		model m;
		random_net(t, &m, 20 + rnd(80));
		net_run(t);
		for (unsigned k = 1; k <= 3; k++)
			for (unsigned hops = 0; hops <= 7; hops++)
				assert_best(t, &m, k, hops, 1000);
		net_stop(t);
	}
}

static void
routes_are_the_best_while_links_fail(void **state)
{
	(void)state;
	seeded();
	for (int round = 0; round < 1000; round++) {
		net *t = net_new(3 + rnd(SMALL - 2));
		model m;
		random_net(t, &m, 60);
		net_run(t);
		for (size_t i = 0; i < t->cfg.n_links; i++) {
			const qg_config_link *l = &t->link[i];
			unsigned a = number_of(t, l->a), b = number_of(t, l->b), what = rnd(8);
			if (what > QG_ROUTE_WRONG)
				continue;
			qg_routes_fault(t->r, l->a, l->b, (qg_route_fault)what, 1000);
			if (what == QG_ROUTE_DOWN || what == QG_ROUTE_WRONG)
				m.cost[a][b] = m.cost[b][a] = 0;
			else
				m.cost[a][b] += EXTRA;
		}
		for (unsigned k = 1; k <= 3; k++)
			assert_best(t, &m, k, rnd(8), 1000);
		net_stop(t);
	}
}

/* Two disjoint routes exist, but not with the shortest one as one of them. */
static void
shortest_route_may_stand_in_the_way(void **state)
{
	(void)state;
	net *t = net_new(6);
	net_link(t, 0, 1, 1);
	net_link(t, 1, 2, 1);
	net_link(t, 2, 5, 1);
	net_link(t, 0, 3, 3);
	net_link(t, 3, 2, 1);
	net_link(t, 1, 4, 1);
	net_link(t, 4, 5, 2);
	net_run(t);
	assert_string_equal(found(t, 1, 0), "0-1-2-5");
	assert_string_equal(found(t, 2, 0), "0-1-4-5 0-3-2-5");
	assert_string_equal(found(t, 3, 0), "0-1-4-5 0-3-2-5");
	assert_string_equal(found(t, 0, 0), "");
	net_stop(t);
}

static void
hops_are_bounded(void **state)
{
	(void)state;
	net *t = net_new(20);
	for (unsigned i = 0; i + 1 < 16; i++)
		net_link(t, i == 15 ? 19 : i, i + 1 == 15 ? 19 : i + 1, 1);
	net_run(t);
	qg_route route[8];
	assert_int_equal(find(t, 1, 0, route), 1);
	assert_int_equal(QG_ROUTE_HOPS(&route[0]), 14);
	t->stream[0].relay.max_hops = 13;
	assert_int_equal(find(t, 1, 0, route), 0);
	t->stream[0].relay.max_hops = UINT32_MAX;
	assert_int_equal(find(t, 1, 0, route), 1);
	net_stop(t);

	/* One more node, and no message has room for the route, whatever is configured. */
	t = net_new(20);
	for (unsigned i = 0; i + 1 < 17; i++)
		net_link(t, i, i + 1 == 16 ? 19 : i + 1, 1);
	t->stream[0].relay.max_hops = UINT32_MAX;
	net_run(t);
	assert_int_equal(find(t, 1, 0, route), 0);
	net_stop(t);
}

static void
direct_links_have_no_hops(void **state)
{
	(void)state;
	net *t = net_new(3);
	net_link(t, 0, 2, 500);
	net_link(t, 0, 1, 1);
	net_link(t, 1, 2, 1);
	t->stream[0].relay.max_hops = 0;
	net_run(t);
	qg_route route[8];
	assert_int_equal(find(t, 8, 0, route), 1);
	assert_int_equal(QG_ROUTE_HOPS(&route[0]), 0);
	t->stream[0].relay.max_hops = 1;
	assert_string_equal(found(t, 1, 0), "0-1-2");
	assert_string_equal(found(t, 8, 0), "0-1-2 0-2");
	net_stop(t);
}

/* The order of the configuration does not matter, and twice the same is found. */
static void
ties_are_broken_alike(void **state)
{
	(void)state;
	seeded();
	for (int round = 0; round < 200; round++) {
		net *t = net_new(8);
		for (unsigned v = 1; v < 7; v++) {
			net_link(t, 0, v, 3);
			net_link(t, v, 7, 3);
			net_link(t, v, v % 6 + 1, 3);
		}
		char first[512] = "";
		for (int again = 0; again < 3; again++) {
			for (size_t i = 0; i < t->cfg.n_links; i++) {
				size_t j = rnd((unsigned)t->cfg.n_links);
				qg_config_link l = t->link[i];
				t->link[i] = t->link[j];
				t->link[j] = l;
			}
			net_run(t);
			if (again == 0)
				snprintf(first, sizeof first, "%s", found(t, 3, 0));
			assert_string_equal(found(t, 3, 0), first);
			assert_string_equal(found(t, 3, 0), first);
			net_stop(t);
		}
	}
}

/* A link configured twice counts once, at the lower cost; one to itself never. */
static void
odd_topologies_do_no_harm(void **state)
{
	(void)state;
	net *t = net_new(4);
	net_link(t, 0, 0, 1);
	net_link(t, 0, 1, 9);
	net_link(t, 1, 0, 4);
	net_link(t, 1, 3, 1);
	net_link(t, 3, 3, 1);
	net_run(t);
	qg_route route[8];
	assert_int_equal(find(t, 8, 0, route), 1);
	assert_int_equal(route[0].cost, 5);
	assert_true(qg_routes_has_link(t->r, t->name[1], t->name[0]));
	assert_true(qg_routes_has_link(t->r, t->name[0], t->name[1]));
	assert_false(qg_routes_has_link(t->r, t->name[0], t->name[0]));
	assert_false(qg_routes_has_link(t->r, t->name[0], t->name[3]));
	assert_false(qg_routes_has_link(t->r, t->name[0], t->name[2]));
	assert_false(qg_routes_has_link(t->r, "", "nobody"));
	/* To a node of no link, and to this gateway itself. */
	t->stream[0].neighbour = t->name[2];
	assert_int_equal(find(t, 2, 0, route), 0);
	t->stream[0].neighbour = t->name[0];
	assert_int_equal(find(t, 2, 0, route), 0);
	net_stop(t);
	qg_routes_free(&t->r);
	qg_routes_free(NULL);
}

static void
neighbours_are_known_without_a_topology(void **state)
{
	(void)state;
	net *t = net_new(4);
	t->stream[1] = (qg_config_stream){.name = "real", .neighbour = t->name[3]};
	t->stream[2] = (qg_config_stream){.name = "other", .neighbour = t->name[1]};
	t->cfg.n_streams = 3;
	net_run(t);
	assert_string_equal(found(t, 2, 0), "0-3");
	assert_true(qg_routes_has_link(t->r, t->name[1], t->name[0]));
	assert_false(qg_routes_has_link(t->r, t->name[1], t->name[3]));
	net_stop(t);

	/* A virtual stream is no link; and a topology says all there is. */
	t->cfg.n_streams = 1;
	net_run(t);
	assert_string_equal(found(t, 2, 0), "");
	net_stop(t);
	t->cfg.n_streams = 3;
	net_link(t, 0, 1, 1);
	net_run(t);
	assert_string_equal(found(t, 2, 0), "");
	assert_false(qg_routes_has_link(t->r, t->name[0], t->name[3]));
	net_stop(t);
}

static void
large_networks_are_quick(void **state)
{
	(void)state;
	seeded();
	for (int round = 0; round < 3; round++) {
		net *t = net_new(NODES_MAX);
		/* The third is long: its links lead to near numbers, and the way takes
		 * 13 links or more, if at all. */
		unsigned reach = round == 2 ? 32 : NODES_MAX;
		for (unsigned v = 1; v < NODES_MAX; v++)
			net_link(t, v - 1 - rnd(v < reach ? v : reach), v, 1 + rnd(1000));
		while (t->cfg.n_links < LINKS_MAX - 1) {
			unsigned a = rnd(NODES_MAX), b = a + 1 + rnd(reach);
			net_link(t, a, round == 2 && b >= NODES_MAX ? a : b % NODES_MAX, 1 + rnd(1000));
		}
		net_run(t);
		for (unsigned hops = 2; hops <= 14; hops += 2) {
			qg_route route[8];
			t->stream[0].relay.max_hops = hops;
			uint64_t from_ms = qg_clock_elapsed_ms();
			size_t one = find(t, 1, 0, route), n = find(t, 8, 0, route);
			uint64_t took_ms = qg_clock_elapsed_ms() - from_ms;
			assert_sound(t, route, n, hops);
			assert_true(n >= one);
			print_message("%u hops: %zu routes in %llu ms\n", hops, n, (unsigned long long)took_ms);
			assert_true(took_ms < 10000); /* also under valgrind */
		}
		net_stop(t);
	}
}

/* --- static routes --------------------------------------------------------------------- */

static const char *via_names[4][16];
static qg_config_route via_routes[64];

static void
net_static(net *t, size_t n, ...)
{
	va_list ap;
	va_start(ap, n);
	size_t i = t->stream[0].relay.n_routes++;
	for (size_t j = 0; j < n; j++)
		via_names[i][j] = t->name[va_arg(ap, unsigned)];
	va_end(ap);
	via_routes[i] = (qg_config_route){.via = via_names[i], .n_via = n};
	t->stream[0].relay.routes = via_routes;
}

static void
static_routes_alone_are_used(void **state)
{
	(void)state;
	net *t = net_new(6);
	net_link(t, 0, 5, 1);
	net_link(t, 0, 1, 5);
	net_link(t, 1, 5, 5);
	net_link(t, 0, 2, 10);
	net_link(t, 2, 5, 10);
	net_link(t, 1, 2, 1);
	net_static(t, 2u, 1u, 2u);
	net_static(t, 1u, 2u);
	net_static(t, 1u, 1u);
	net_run(t);
	assert_string_equal(found(t, 1, 0), "0-1-5");
	assert_string_equal(found(t, 2, 0), "0-1-5 0-2-5");
	assert_string_equal(found(t, 3, 0), "0-1-5 0-2-5");
	/* The first is dear, but goes over what is left. */
	qg_routes_fault(t->r, t->name[1], t->name[5], QG_ROUTE_DOWN, 0);
	qg_routes_fault(t->r, t->name[0], t->name[2], QG_ROUTE_DOWN, 0);
	assert_string_equal(found(t, 2, 0), "0-1-2-5");
	qg_routes_fault(t->r, t->name[2], t->name[5], QG_ROUTE_STARVING, 0);
	assert_string_equal(found(t, 2, 0), "0-1-2-5");
	qg_routes_fault(t->r, t->name[2], t->name[5], QG_ROUTE_DOWN, 0);
	assert_string_equal(found(t, 2, 0), "");
	t->stream[0].relay.max_hops = 0;
	assert_string_equal(found(t, 2, PENALTY_MS), "");
	net_stop(t);
}

/* One route through both others is cheapest, and leaves nothing beside it. */
static void
static_routes_are_chosen_together(void **state)
{
	(void)state;
	net *t = net_new(5);
	net_link(t, 0, 1, 1);
	net_link(t, 1, 2, 1);
	net_link(t, 2, 4, 1);
	net_link(t, 1, 4, 50);
	net_link(t, 0, 2, 50);
	net_link(t, 0, 4, 900);
	net_static(t, 2u, 1u, 2u);
	net_static(t, 1u, 1u);
	net_static(t, 1u, 2u);
	net_run(t);
	assert_string_equal(found(t, 1, 0), "0-1-2-4");
	assert_string_equal(found(t, 2, 0), "0-1-4 0-2-4");
	net_stop(t);
	net_static(t, 0u);
	net_run(t);
	assert_string_equal(found(t, 2, 0), "0-1-4 0-2-4");
	assert_string_equal(found(t, 3, 0), "0-1-4 0-2-4 0-4");
	/* The direct link twice is one route. */
	via_routes[0].n_via = via_routes[1].n_via = via_routes[2].n_via = 0;
	assert_string_equal(found(t, 3, 0), "0-4");
	net_stop(t);
}

static void
static_routes_need_no_topology(void **state)
{
	(void)state;
	net *t = net_new(5);
	net_static(t, 2u, 1u, 2u);
	t->stream[1] = t->stream[0]; /* another one, to the same, without routes */
	t->stream[1].name = "free";
	t->stream[1].relay.n_routes = 0;
	t->cfg.n_streams = 2;
	net_run(t);
	assert_string_equal(found(t, 1, 0), "0-1-2-4");
	assert_true(qg_routes_has_link(t->r, t->name[2], t->name[1]));
	qg_route route[1];
	size_t n = 9;
	qg_routes_find(t->r, &t->stream[1], 1, 0, route, &n);
	assert_int_equal(n, 0);
	net_stop(t);
}

static void
soundness_17_static_loops_are_no_routes(void **state)
{
	(void)state;
	net *t = net_new(5);
	net_link(t, 0, 1, 1);
	net_link(t, 1, 2, 1);
	net_link(t, 2, 4, 1);
	net_link(t, 1, 4, 1);
	net_static(t, 3u, 1u, 2u, 1u);
	net_static(t, 2u, 1u, 0u);
	net_static(t, 2u, 4u, 1u);
	net_run(t);
	assert_string_equal(found(t, 3, 0), "");
	net_stop(t);
}

static void
static_choice_is_the_best_of_all(void **state)
{
	(void)state;
	seeded();
	static const char *names[12][3];
	for (int round = 0; round < 2000; round++) {
		net *t = net_new(SMALL);
		model m;
		random_net(t, &m, 70);
		for (unsigned s = 0; s < 1u << (m.n - 2); s++)
			m.single[s] = NONE;
		size_t n_routes = 1 + rnd(12);
		for (size_t i = 0; i < n_routes; i++) {
			unsigned at = 0, used = 0, n_via = rnd(4);
			uint64_t cost = 0;
			bool whole = true;
			for (size_t j = 0; j <= n_via; j++) {
				unsigned to = j == n_via ? SMALL - 1 : 1 + rnd(SMALL - 2);
				if (j < n_via) {
					names[i][j] = t->name[to];
					whole = whole && (used & (1u << (to - 1))) == 0;
					used |= 1u << (to - 1);
				}
				/* A static link that the topology lacks costs 1. */
				cost += m.cost[at][to] != 0 ? m.cost[at][to] : 1;
				at = to;
			}
			via_routes[i] = (qg_config_route){.via = names[i], .n_via = n_via};
			if (whole && cost < m.single[used])
				m.single[used] = cost;
		}
		t->stream[0].relay.routes = via_routes;
		t->stream[0].relay.n_routes = n_routes;
		net_run(t);
		for (unsigned k = 1; k <= 3; k++) {
			qg_route route[3];
			uint64_t best[4] = {NONE, NONE, NONE, NONE}, sum = 0;
			best_sets(&m, k, 0, 0, 0, 0, best);
			unsigned expected = k;
			while (best[expected] == NONE)
				expected--;
			size_t n = find(t, k, 0, route);
			for (size_t i = 0; i < n; i++)
				sum += route[i].cost;
			assert_int_equal(n, expected);
			assert_true(n == 0 || sum == best[n]);
		}
		net_stop(t);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(routes_are_the_best_of_all),
		cmocka_unit_test(routes_are_the_best_while_links_fail),
		cmocka_unit_test(shortest_route_may_stand_in_the_way),
		cmocka_unit_test(hops_are_bounded),
		cmocka_unit_test(direct_links_have_no_hops),
		cmocka_unit_test(ties_are_broken_alike),
		cmocka_unit_test(odd_topologies_do_no_harm),
		cmocka_unit_test(neighbours_are_known_without_a_topology),
		cmocka_unit_test(large_networks_are_quick),
		cmocka_unit_test(static_routes_alone_are_used),
		cmocka_unit_test(static_routes_are_chosen_together),
		cmocka_unit_test(static_routes_need_no_topology),
		cmocka_unit_test(soundness_17_static_loops_are_no_routes),
		cmocka_unit_test(static_choice_is_the_best_of_all),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("routes", tests, NULL, NULL);
}
