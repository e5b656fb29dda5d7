/* SPDX-License-Identifier: Apache-2.0 */
#ifndef ROUTES_NET_H
#define ROUTES_NET_H

/* A network of numbered nodes for the tests of routes, and the best routes
 * found by trying all. Included by one .c file of each program. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../src/core/routes_internal.h"
#include "seed.h"

#define NODES_MAX 400
#define LINKS_MAX 4000
#define PENALTY_S 10
#define PENALTY_MS UINT64_C(10000)
#define EXTRA UINT64_C(1000000)
#define PLENTY (UINT64_C(1) << 20)

/* --- a network --------------------------------------------------------------------- */

typedef struct net {
	char name[NODES_MAX][16];
	unsigned n_nodes;
	qg_config_link link[LINKS_MAX];
	qg_config_stream stream[4]; /* the first: from the first node to the last */
	qg_config cfg;
	qg_routes *r;
} net;

static net the_net;

static uint64_t random_state;

static unsigned
rnd(unsigned below)
{
	random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
	return (unsigned)(random_state >> 33) % below;
}

static void
seeded(void)
{
	random_state = test_seed();
}

/* Names whose order has nothing to do with their numbers. */
static net *
net_new(unsigned n_nodes)
{
	net *t = &the_net;
	memset(t, 0, sizeof *t);
	t->n_nodes = n_nodes;
	for (unsigned i = 0; i < n_nodes; i++)
		snprintf(t->name[i], sizeof t->name[i], "N%u-%u", (i * 7919u + 13u) % 1000u, i);
	t->stream[0].name = "virtual";
	t->stream[0].neighbour = t->name[n_nodes - 1];
	t->stream[0].relayed = true;
	t->stream[0].relay.paths = 1;
	t->stream[0].relay.max_hops = 14;
	t->cfg.kme_id = t->name[0];
	t->cfg.links = t->link;
	t->cfg.streams = t->stream;
	t->cfg.n_streams = 1;
	t->cfg.relay_penalty_s = PENALTY_S;
	return t;
}

static void
net_link(net *t, unsigned a, unsigned b, uint32_t cost)
{
	t->link[t->cfg.n_links++] = (qg_config_link){.a = t->name[a], .b = t->name[b], .cost = cost};
}

static void
net_run(net *t)
{
	assert_int_equal(qg_routes_new(&t->cfg, &t->r), QG_OK);
}

static void
net_stop(net *t)
{
	qg_routes_free(&t->r);
	assert_null(t->r);
}

static unsigned
number_of(const net *t, const char *name)
{
	for (unsigned i = 0; i < t->n_nodes; i++)
		if (t->name[i] == name) /* the configuration's string itself */
			return i;
	fail_msg("a name that the configuration does not have: %s", name);
	return 0;
}

static size_t
find(net *t, unsigned k, uint64_t now_ms, qg_route *route)
{
	size_t n = 99;
	qg_routes_find(t->r, &t->stream[0], k, now_ms, route, &n);
	assert_in_range(n, 0, k);
	return n;
}

/* "0-1-2" of the routes, one after the other. */
static const char *
text_of(const net *t, const qg_route *route, size_t n)
{
	static char text[512];
	size_t at = 0;
	text[0] = '\0';
	for (size_t i = 0; i < n; i++)
		for (size_t j = 0; j < route[i].n; j++)
			at += (size_t)snprintf(text + at, sizeof text - at, "%s%u",
					       j > 0 ? "-" : i > 0 ? " " : "",
					       number_of(t, route[i].node[j]));
	return text;
}

static const char *
found(net *t, unsigned k, uint64_t now_ms)
{
	qg_route route[8];
	size_t n = find(t, k, now_ms, route);
	return text_of(t, route, n);
}

static bool
has_link(const net *t, const char *a, const char *b)
{
	for (size_t i = 0; i < t->cfg.n_links; i++)
		if ((t->link[i].a == a && t->link[i].b == b) || (t->link[i].a == b && t->link[i].b == a))
			return true;
	return false;
}

/* From here to there, over links of the configuration, no node twice in a
 * route (no loop) or in two of them. */
static void
assert_sound(const net *t, const qg_route *route, size_t n, unsigned max_hops)
{
	bool seen[NODES_MAX] = {false};
	size_t direct = 0;
	for (size_t i = 0; i < n; i++) {
		const qg_route *r = &route[i];
		assert_in_range(r->n, 2, QG_KMS_PATH_MAX);
		assert_true(QG_ROUTE_HOPS(r) <= max_hops);
		assert_ptr_equal(r->node[0], t->name[0]);
		assert_ptr_equal(r->node[r->n - 1], t->stream[0].neighbour);
		for (size_t j = 0; j + 1 < r->n; j++)
			assert_true(has_link(t, r->node[j], r->node[j + 1]));
		for (size_t j = 1; j + 1 < r->n; j++) {
			unsigned at = number_of(t, r->node[j]);
			assert_true(at != 0 && at != t->n_nodes - 1);
			assert_false(seen[at]);
			seen[at] = true;
		}
		direct += r->n == 2;
	}
	assert_true(direct <= 1);
}

/* --- by trying everything ------------------------------------------------------------ */

#define SMALL 8
#define NONE UINT64_MAX

/* What the ways of each link cost, as the test sees it; 0: none. */
typedef struct model {
	unsigned n;
	uint64_t cost[SMALL][SMALL];
	uint64_t single[1u << (SMALL - 2)]; /* cheapest path over exactly these nodes */
} model;

static void
walk(model *m, unsigned at, unsigned used, unsigned left, uint64_t cost)
{
	unsigned to = m->n - 1;
	if (left == 0)
		return;
	if (m->cost[at][to] != 0 && cost + m->cost[at][to] < m->single[used])
		m->single[used] = cost + m->cost[at][to];
	for (unsigned v = 1; v < to; v++)
		if (m->cost[at][v] != 0 && (used & (1u << (v - 1))) == 0)
			walk(m, v, used | (1u << (v - 1)), left - 1, cost + m->cost[at][v]);
}

static void
best_sets(const model *m, unsigned k, unsigned from, unsigned used, unsigned n, uint64_t cost, uint64_t *best)
{
	if (cost < best[n])
		best[n] = cost;
	for (unsigned s = from; n < k && s < 1u << (m->n - 2); s++)
		if (m->single[s] != NONE && (s & used) == 0)
			best_sets(m, k, s + 1, used | s, n + 1, cost + m->single[s], best);
}

static void
assert_best(net *t, model *m, unsigned k, unsigned max_hops, uint64_t now_ms)
{
	qg_route route[3];
	uint64_t best[4] = {NONE, NONE, NONE, NONE}, sum = 0;
	for (unsigned s = 0; s < 1u << (m->n - 2); s++)
		m->single[s] = NONE;
	walk(m, 0, 0, max_hops + 1, 0);
	best_sets(m, k, 0, 0, 0, 0, best);
	unsigned expected = k;
	while (best[expected] == NONE)
		expected--;
	t->stream[0].relay.max_hops = max_hops;
	size_t n = find(t, k, now_ms, route);
	assert_sound(t, route, n, max_hops);
	for (size_t i = 0; i < n; i++) {
		sum += route[i].cost;
		assert_true(i == 0 || route[i - 1].cost <= route[i].cost);
	}
	if (n != expected || (n > 0 && sum != best[n]))
		fail_msg("k %u hops %u: %zu routes of %llu, not %u of %llu: %s", k, max_hops, n,
			 (unsigned long long)sum, expected, (unsigned long long)best[expected],
			 text_of(t, route, n));
}

static void
random_net(net *t, model *m, unsigned density)
{
	memset(m, 0, sizeof *m);
	m->n = t->n_nodes;
	for (unsigned a = 0; a < t->n_nodes; a++)
		for (unsigned b = a + 1; b < t->n_nodes; b++)
			if (rnd(100) < density) {
				uint32_t cost = 1 + rnd(rnd(2) == 0 ? 5 : 1000);
				m->cost[a][b] = m->cost[b][a] = cost;
				net_link(t, rnd(2) == 0 ? a : b, 0, cost);
				qg_config_link *l = &t->link[t->cfg.n_links - 1];
				l->b = l->a == t->name[a] ? t->name[b] : t->name[a];
			}
}

#endif
