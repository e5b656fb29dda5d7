/* SPDX-License-Identifier: Apache-2.0 */
/* What relaying asks: each stream has one origin, each virtual one a route that
 * begins with node key of this gateway, and links stand once in the topology. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

#define ROUTES_MAX 16 /* static ones of a stream, as the schema has it */
#define LINKS_PER_KME 64 /* that a report of its links can name */

typedef struct relay_rules {
	cfg_rules *r;
	const char *self;       /* NULL: not known */
	cfg_names neighbours;
	cfg_names keyed;        /* neighbours towards which a link has node key */
	cfg_names ends;         /* of all links */
	cfg_graph *graph;       /* nodes: places in `ends` */
	bool searched;          /* the own links were looked at already */
} relay_rules;

static bool
is(const cfg_node *map, const char *option, const char *value)
{
	const char *const text = qg_cfg_text(map, option);
	return text != NULL && strcmp(text, value) == 0;
}

/* --- each stream by itself ---------------------------------------------------- */

static void
check_origin(cfg_rules *r, const cfg_node *stream)
{
	const cfg_node *const source = qg_cfg_find(stream, "source");
	cfg_node *const relay = qg_cfg_find(stream, "relay");
	if (source == NULL && relay == NULL)
		qg_cfg_missing(r->report, stream, "source",
			       "is missing: give source for a stream of a link, or relay for a virtual one");
	else if (source != NULL && relay != NULL && !relay->bad)
		qg_cfg_problem(r->report, relay, "stands beside source in line %u: keep one of them",
			       source->line);
}

static void
check_node_key(cfg_rules *r, const cfg_node *stream)
{
	uint64_t wanted = 0, segment = 0;
	cfg_node *const n = qg_cfg_find(stream, "node_chunks");
	if (!qg_cfg_number(stream, "node_chunks", &wanted) || wanted == 0)
		return;
	if (is(stream, "direction", "inbound"))
		qg_cfg_problem(r->report, n,
			       "has no use with direction inbound: give it at the other end, which owns the "
			       "stream");
	else if (qg_cfg_number(stream, "segment_chunks", &segment) && wanted < segment)
		qg_cfg_problem(r->report, n,
			       "%" PRIu64 " is less than a segment: give 0, or at least %" PRIu64, wanted, segment);
}

static void
check_virtual(cfg_rules *r, const cfg_node *stream)
{
	static const char *const of_outbound[] = {"random", "routes"};
	const cfg_node *const relay = qg_cfg_find(stream, "relay");
	if (relay == NULL || relay->bad || relay->kind != CFG_MAP)
		return;
	if (is(stream, "direction", "shared"))
		qg_cfg_problem(r->report, qg_cfg_find(stream, "direction"),
			       "shared does not go with relay: give outbound or inbound");
	for (size_t i = 0; i < sizeof of_outbound / sizeof of_outbound[0]; i++) {
		cfg_node *const n = qg_cfg_find(relay, of_outbound[i]);
		if (n != NULL && !n->bad && is(stream, "direction", "inbound"))
			qg_cfg_problem(r->report, n,
				       "has no use with direction inbound: give it at the other end");
	}
}

/* --- first hops ------------------------------------------------------------------ */

static size_t
count_entries(const cfg_node *first)
{
	return first == NULL ? 0 : first->parent->last->index + 1;
}

/* What is wrong elsewhere is reported there and does not count here. */
static bool
may_have_node_key(const cfg_node *stream)
{
	const cfg_node *const n = qg_cfg_find(stream, "node_chunks");
	return qg_cfg_find(stream, "relay") == NULL && !is(stream, "direction", "inbound") &&
	       (n == NULL || n->bad || !is(stream, "node_chunks", "0"));
}

static void
list_keyed(relay_rules *x)
{
	const cfg_node *const streams = qg_cfg_entries(x->r->root, "streams");
	x->keyed = qg_cfg_names_new(x->r, count_entries(streams));
	for (const cfg_node *s = streams; x->keyed.v != NULL && s != NULL; s = s->next)
		if (qg_cfg_text(s, "neighbour") != NULL && may_have_node_key(s))
			x->keyed.v[x->keyed.n++] = qg_cfg_find(s, "neighbour");
	qg_cfg_names_sort(&x->keyed);
}

/* The report goes to the node where the first hop stands. */
static void
check_first_hop(relay_rules *x, const char *hop, cfg_node *n)
{
	const char *const shown = qg_cfg_show(x->r->report, hop);
	if (n->bad)
		return;
	if (!qg_cfg_has_name(&x->neighbours, hop))
		qg_cfg_problem(x->r->report, n, "%s is the first hop but no neighbour: give an id of neighbours",
			       shown);
	else if (!qg_cfg_has_name(&x->keyed, hop))
		qg_cfg_problem(x->r->report, n,
			       "%s is the first hop, but there is no node key for it: give node_chunks to an "
			       "outbound or shared stream of a link to it", shown);
}

/* --- static routes ------------------------------------------------------------------ */

static cfg_node *
via_of(const cfg_node *route)
{
	return qg_cfg_entries(route, "via");
}

static bool
is_good_route(const cfg_node *route)
{
	const cfg_node *const via = qg_cfg_find(route, "via");
	if (route->bad || via == NULL || via->bad || via->kind != CFG_LIST)
		return false;
	for (const cfg_node *n = via->first; n != NULL; n = n->next)
		if (n->bad)
			return false;
	return true;
}

static const cfg_node *
find_hop(const cfg_node *route, const char *name, const cfg_node *before)
{
	for (const cfg_node *n = via_of(route); n != NULL && n != before; n = n->next)
		if (!n->bad && strcmp(n->text, name) == 0)
			return n;
	return NULL;
}

static void
check_hops(relay_rules *x, const cfg_node *route, const char *far)
{
	for (cfg_node *n = via_of(route); n != NULL; n = n->next) {
		if (n->bad)
			continue;
		if (x->self != NULL && strcmp(n->text, x->self) == 0)
			qg_cfg_problem(x->r->report, n, "is this KME itself: take it out");
		else if (strcmp(n->text, far) == 0)
			qg_cfg_problem(x->r->report, n, "is the end of the route: take it out");
		else if (find_hop(route, n->text, n) != NULL)
			qg_cfg_problem(x->r->report, n, "%s is already in this route: take it out",
				       qg_cfg_show(x->r->report, n->text));
	}
}

static bool
same_route(const cfg_node *a, const cfg_node *b)
{
	const cfg_node *p = via_of(a), *q = via_of(b);
	while (p != NULL && q != NULL && strcmp(p->text, q->text) == 0) {
		p = p->next;
		q = q->next;
	}
	return p == NULL && q == NULL;
}

static void
check_repeated(relay_rules *x, cfg_node *route)
{
	for (const cfg_node *o = route->parent->first; o != route; o = o->next)
		if (is_good_route(o) && same_route(o, route)) {
			qg_cfg_problem(x->r->report, route, "is the route of line %u again: take one out",
				       o->line);
			return;
		}
}

static void
check_route(relay_rules *x, cfg_node *route, const char *far, const cfg_node *relay)
{
	uint64_t most = 0;
	cfg_node *const via = qg_cfg_find(route, "via");
	const size_t hops = count_entries(via_of(route));
	check_hops(x, route, far);
	if (!is_good_route(route))
		return;
	if (qg_cfg_number(relay, "max_hops", &most) && hops > most)
		qg_cfg_problem(x->r->report, via, "has %zu KMEs: max_hops allows %" PRIu64, hops, most);
	else
		check_repeated(x, route);
	if (hops > 0)
		check_first_hop(x, via->first->text, via->first);
	else
		check_first_hop(x, far, via);
}

static bool
disjoint(const cfg_node *a, const cfg_node *b)
{
	for (const cfg_node *n = via_of(a); n != NULL; n = n->next)
		if (find_hop(b, n->text, NULL) != NULL)
			return false;
	return true;
}

/* The most routes of which no two share a KME: those taken so far and the best
 * of `left`, a set of bits. */
static unsigned
most_disjoint(const uint32_t *friends, uint32_t left, unsigned taken)
{
	unsigned best = taken;
	for (unsigned i = 0; left >> i != 0; i++) {
		if ((left >> i & 1) == 0)
			continue;
		left &= ~(UINT32_C(1) << i);
		const unsigned n = most_disjoint(friends, left & friends[i], taken + 1);
		best = n > best ? n : best;
	}
	return best;
}

static unsigned
count_disjoint(const cfg_node *first)
{
	const cfg_node *route[ROUTES_MAX];
	uint32_t friends[ROUTES_MAX] = {0};
	unsigned n = 0;
	for (const cfg_node *o = first; o != NULL && n < ROUTES_MAX; o = o->next)
		route[n++] = o;
	for (unsigned i = 0; i < n; i++)
		for (unsigned j = 0; j < n; j++)
			if (i != j && disjoint(route[i], route[j]))
				friends[i] |= UINT32_C(1) << j;
	return most_disjoint(friends, n == 0 ? 0 : UINT32_MAX >> (32 - n), 0);
}

static void
report_paths(relay_rules *x, const cfg_node *relay, unsigned have, const char *what)
{
	cfg_node *const n = qg_cfg_find(relay, "paths");
	uint64_t wanted = 0;
	if (!qg_cfg_number(relay, "paths", &wanted) || have >= wanted || is(relay, "fewer_paths", "true"))
		return;
	qg_cfg_problem(x->r->report, n,
		       "%" PRIu64 " paths without a common KME are not in the %s, only %u: give %s that, or "
		       "fewer_paths: true", wanted, what, have, what);
}

static void
check_static(relay_rules *x, const cfg_node *relay, const char *far)
{
	bool good = true;
	cfg_node *const first = qg_cfg_entries(relay, "routes");
	if (count_entries(first) > ROUTES_MAX)
		return;
	for (cfg_node *route = first; route != NULL; route = route->next) {
		check_route(x, route, far, relay);
		good &= is_good_route(route);
	}
	if (good)
		report_paths(x, relay, count_disjoint(first), "routes");
}

/* --- topology -------------------------------------------------------------------------- */

static cfg_node *
links_of(const relay_rules *x)
{
	return qg_cfg_entries(qg_cfg_find(x->r->root, "topology"), "links");
}

static bool
is_good_link(const cfg_node *link)
{
	return !link->bad && qg_cfg_text(link, "a") != NULL && qg_cfg_text(link, "b") != NULL;
}

/* Ends in the order of their names. */
static void
ends_of(const cfg_node *link, const char *end[2])
{
	const char *const a = qg_cfg_text(link, "a"), *const b = qg_cfg_text(link, "b");
	const bool turned = strcmp(a, b) > 0;
	end[0] = turned ? b : a;
	end[1] = turned ? a : b;
}

static int
compare_ends(const cfg_node *x, const cfg_node *y)
{
	const char *a[2], *b[2];
	ends_of(x, a);
	ends_of(y, b);
	const int order = strcmp(a[0], b[0]);
	return order != 0 ? order : strcmp(a[1], b[1]);
}

static int
by_ends(const void *p, const void *q)
{
	cfg_node *const *x = p, *const *y = q;
	const int order = compare_ends(*x, *y);
	if (order != 0)
		return order;
	return (*x)->index < (*y)->index ? -1 : (*x)->index > (*y)->index;
}

static void
check_loops(relay_rules *x)
{
	for (cfg_node *link = links_of(x); link != NULL; link = link->next)
		if (is_good_link(link) && is(link, "b", qg_cfg_text(link, "a")))
			qg_cfg_problem(x->r->report, qg_cfg_find(link, "b"),
				       "is the other end too: give another KME");
}

static void
check_links_once(relay_rules *x)
{
	cfg_names all = qg_cfg_names_new(x->r, count_entries(links_of(x)));
	if (all.v == NULL)
		return;
	for (cfg_node *link = links_of(x); link != NULL; link = link->next)
		if (is_good_link(link))
			all.v[all.n++] = link;
	if (all.n > 0)
		qsort(all.v, all.n, sizeof(cfg_node *), by_ends);
	for (size_t i = 1, first = 0; i < all.n; i++) {
		if (compare_ends(all.v[first], all.v[i]) != 0)
			first = i;
		else
			qg_cfg_problem(x->r->report, all.v[i],
				       "joins the same two KMEs as line %u: keep one of them",
				       all.v[first]->line);
	}
}

static void
list_ends(relay_rules *x)
{
	static const char *const options[] = {"a", "b"};
	x->ends = qg_cfg_names_new(x->r, 2 * count_entries(links_of(x)));
	for (const cfg_node *link = links_of(x); x->ends.v != NULL && link != NULL; link = link->next)
		for (size_t i = 0; i < 2 && is_good_link(link); i++)
			x->ends.v[x->ends.n++] = qg_cfg_find(link, options[i]);
	qg_cfg_names_sort(&x->ends);
	for (size_t i = LINKS_PER_KME; i < x->ends.n; i++)
		if (strcmp(x->ends.v[i - LINKS_PER_KME]->text, x->ends.v[i]->text) == 0)
			qg_cfg_problem(x->r->report, x->ends.v[i],
				       "%s has more than %d links: give at most so many",
				       qg_cfg_show(x->r->report, x->ends.v[i]->text), LINKS_PER_KME);
}

/* The node of the graph: the first place of the name. SIZE_MAX: it has no link. */
static size_t
place_of(const cfg_names *ends, const char *name)
{
	size_t from = 0, to = ends->n;
	while (from < to) {
		const size_t mid = from + (to - from) / 2;
		if (strcmp(ends->v[mid]->text, name) < 0)
			from = mid + 1;
		else
			to = mid;
	}
	return from < ends->n && strcmp(ends->v[from]->text, name) == 0 ? from : SIZE_MAX;
}

static void
make_graph(relay_rules *x)
{
	x->graph = qg_cfg_graph_new(x->r->report->mem, x->ends.n, count_entries(links_of(x)));
	if (x->graph == NULL) {
		x->r->report->nomem = true;
		return;
	}
	for (const cfg_node *link = links_of(x); link != NULL; link = link->next)
		if (is_good_link(link))
			qg_cfg_graph_link(x->graph, place_of(&x->ends, qg_cfg_text(link, "a")),
					  place_of(&x->ends, qg_cfg_text(link, "b")));
}

/* Every link of this gateway may become the first of a route. */
static void
check_own_links(relay_rules *x)
{
	if (x->searched)
		return;
	x->searched = true;
	for (const cfg_node *link = links_of(x); link != NULL; link = link->next) {
		if (!is_good_link(link))
			continue;
		if (is(link, "a", x->self))
			check_first_hop(x, qg_cfg_text(link, "b"), qg_cfg_find(link, "b"));
		else if (is(link, "b", x->self))
			check_first_hop(x, qg_cfg_text(link, "a"), qg_cfg_find(link, "a"));
	}
}

static void
check_found(relay_rules *x, cfg_node *relay, const char *far)
{
	size_t hops = 0;
	uint64_t most = 0, wanted = 0;
	if (links_of(x) == NULL) {
		qg_cfg_problem(x->r->report, relay, "has no routes: give them, or the links of topology");
		return;
	}
	if (x->self == NULL || x->graph == NULL || !qg_cfg_number(relay, "max_hops", &most) ||
	    !qg_cfg_number(relay, "paths", &wanted))
		return;
	const size_t from = place_of(&x->ends, x->self), to = place_of(&x->ends, far);
	const unsigned n = from == SIZE_MAX || to == SIZE_MAX
				   ? 0 : qg_cfg_graph_paths(x->graph, from, to, (unsigned)wanted, &hops);
	if (n == 0)
		qg_cfg_problem(x->r->report, relay,
			       "has no routes, and topology has none to %s: give them, or the links",
			       qg_cfg_show(x->r->report, far));
	else if (hops > most)
		qg_cfg_problem(x->r->report, qg_cfg_find(relay, "max_hops"),
			       "%" PRIu64 " is too few: the shortest route to %s in topology has %zu", most,
			       qg_cfg_show(x->r->report, far), hops);
	else
		report_paths(x, relay, n, "topology");
	check_own_links(x);
}

/* --- all ---------------------------------------------------------------------------------- */

static void
check_route_of(relay_rules *x, const cfg_node *stream)
{
	cfg_node *const relay = qg_cfg_find(stream, "relay");
	const char *const far = qg_cfg_text(stream, "neighbour");
	if (relay == NULL || relay->kind != CFG_MAP || relay->bad || far == NULL ||
	    !is(stream, "direction", "outbound"))
		return;
	const cfg_node *const routes = qg_cfg_find(relay, "routes");
	if (routes == NULL || (routes->kind == CFG_LIST && routes->first == NULL))
		check_found(x, relay, far);
	else if (!routes->bad)
		check_static(x, relay, far);
}

void
qg_cfg_rule_relay(cfg_rules *r)
{
	relay_rules x = {
		.r = r,
		.self = qg_cfg_text(qg_cfg_find(r->root, "kme"), "id"),
		.neighbours = qg_cfg_names_of(r, "neighbours", "id"),
	};
	const cfg_node *const streams = qg_cfg_entries(r->root, "streams");
	list_keyed(&x);
	check_loops(&x);
	check_links_once(&x);
	list_ends(&x);
	make_graph(&x);
	for (const cfg_node *s = streams; s != NULL && !r->report->nomem; s = s->next) {
		if (s->bad || s->kind != CFG_MAP)
			continue;
		check_origin(r, s);
		check_node_key(r, s);
		check_virtual(r, s);
		check_route_of(&x, s);
	}
}
