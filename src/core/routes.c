/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "routes_graph_internal.h"

/* The graph of the configuration, made once: its nodes and links never change. */

#define STATIC_MAX 64        /* routes of one stream that are looked at */
#define STATIC_STEPS 200000

/* --- names and links -------------------------------------------------------------- */

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

uint32_t
qg_routes_node(const qg_routes *r, const char *name)
{
	const char *const *found = bsearch(&name, r->name, r->n_nodes, sizeof *r->name, by_name);
	return found == NULL ? QG_NO_NODE : (uint32_t)(found - (const char *const *)r->name);
}

static int
by_ends(const void *x, const void *y)
{
	const qg_link *l = x, *m = y;
	if (l->a != m->a)
		return l->a < m->a ? -1 : 1;
	return l->b == m->b ? 0 : l->b < m->b ? -1 : 1;
}

qg_link *
qg_routes_link(const qg_routes *r, uint32_t from, uint32_t to, unsigned *way)
{
	if (from == QG_NO_NODE || to == QG_NO_NODE || from == to)
		return NULL;
	bool back = from > to;
	qg_link wanted = {.a = back ? to : from, .b = back ? from : to};
	qg_link *l = bsearch(&wanted, r->link, r->n_links, sizeof *r->link, by_ends);
	if (l != NULL)
		*way = back;
	return l;
}

bool
qg_routes_has_link(const qg_routes *r, const char *a, const char *b)
{
	unsigned way = 0;
	return qg_routes_link(r, qg_routes_node(r, a), qg_routes_node(r, b), &way) != NULL;
}

/* --- from the configuration --------------------------------------------------------- */

/* Calls `see` with both ends of every link that the configuration names:
 * those of the topology; without one, those to the neighbours at the other end
 * of this gateway's own streams; and those of static routes. */
typedef void see_link(qg_routes *r, const char *a, const char *b, uint32_t cost, bool topology);

static void
each_static_link(qg_routes *r, const qg_config_stream *st, see_link *see)
{
	for (size_t i = 0; st->relayed && i < st->relay.n_routes; i++) {
		const qg_config_route *route = &st->relay.routes[i];
		const char *from = r->cfg->kme_id;
		for (size_t j = 0; j < route->n_via; from = route->via[j++])
			see(r, from, route->via[j], 1, false);
		see(r, from, st->neighbour, 1, false);
	}
}

static void
each_link(qg_routes *r, see_link *see)
{
	const qg_config *cfg = r->cfg;
	for (size_t i = 0; i < cfg->n_links; i++)
		see(r, cfg->links[i].a, cfg->links[i].b, cfg->links[i].cost, true);
	for (size_t i = 0; i < cfg->n_streams; i++) {
		if (cfg->n_links == 0 && !cfg->streams[i].relayed)
			see(r, cfg->kme_id, cfg->streams[i].neighbour, 1, true);
		each_static_link(r, &cfg->streams[i], see);
	}
}

static void
count_link(qg_routes *r, const char *a, const char *b, uint32_t cost, bool topology)
{
	(void)a, (void)b, (void)cost, (void)topology;
	r->n_links++;
}

static void
add_names(qg_routes *r, const char *a, const char *b, uint32_t cost, bool topology)
{
	(void)cost, (void)topology;
	r->name[r->n_nodes++] = a;
	r->name[r->n_nodes++] = b;
}

static void
add_link(qg_routes *r, const char *a, const char *b, uint32_t cost, bool topology)
{
	uint32_t x = qg_routes_node(r, a), y = qg_routes_node(r, b);
	if (x == y)
		return;
	r->link[r->n_links++] = (qg_link){
		.a = x < y ? x : y,
		.b = x < y ? y : x,
		.cost = cost > 0 ? cost : 1,
		.topology = topology,
	};
}

static void
unify_names(qg_routes *r)
{
	qsort(r->name, r->n_nodes, sizeof *r->name, by_name);
	size_t n = 0;
	for (size_t i = 0; i < r->n_nodes; i++)
		if (n == 0 || strcmp(r->name[n - 1], r->name[i]) != 0)
			r->name[n++] = r->name[i];
	r->n_nodes = n;
}

/* Of a link that stands there twice the topology's word counts, and of that
 * the cheapest. */
static int
by_ends_and_worth(const void *x, const void *y)
{
	const qg_link *l = x, *m = y;
	int d = by_ends(l, m);
	if (d != 0)
		return d;
	if (l->topology != m->topology)
		return l->topology ? -1 : 1;
	return l->cost == m->cost ? 0 : l->cost < m->cost ? -1 : 1;
}

static void
unify_links(qg_routes *r)
{
	qsort(r->link, r->n_links, sizeof *r->link, by_ends_and_worth);
	size_t n = 0;
	for (size_t i = 0; i < r->n_links; i++)
		if (n == 0 || by_ends(&r->link[n - 1], &r->link[i]) != 0)
			r->link[n++] = r->link[i];
	r->n_links = n;
}

qg_err
qg_routes_new(const qg_config *cfg, qg_routes **out)
{
	qg_routes *r = calloc(1, sizeof *r);
	if (r == NULL)
		return QG_E_NOMEM;
	r->cfg = cfg;
	r->penalty_ms = (uint64_t)cfg->relay_penalty_s * 1000;
	pthread_mutex_init(&r->lock, NULL);
	each_link(r, count_link);
	r->name = calloc(2 * r->n_links + 1, sizeof *r->name);
	r->link = calloc(r->n_links + 1, sizeof *r->link);
	r->origin = calloc(2 * r->n_links + 1, sizeof *r->origin);
	if (r->name == NULL || r->link == NULL || r->origin == NULL) {
		qg_routes_free(&r);
		return QG_E_NOMEM;
	}
	r->n_links = 0;
	r->name[r->n_nodes++] = cfg->kme_id;
	each_link(r, add_names);
	unify_names(r);
	each_link(r, add_link);
	unify_links(r);
	r->self = qg_routes_node(r, cfg->kme_id);
	*out = r;
	return QG_OK;
}

void
qg_routes_free(qg_routes **rp)
{
	if (rp == NULL || *rp == NULL)
		return;
	qg_routes *r = *rp;
	pthread_mutex_destroy(&r->lock);
	free(r->name);
	free(r->link);
	free(r->origin);
	free(r);
	*rp = NULL;
}

/* --- over the topology ---------------------------------------------------------------- */

typedef struct snapshot {
	qg_graph graph;
	uint32_t *first;
	qg_graph_arc *arc;
} snapshot;

static void
snapshot_free(snapshot *s)
{
	free(s->first);
	free(s->arc);
}

/* Under the lock: the links as they are now. Their order makes each node's arcs
 * lead to lower nodes first, then to higher ones, both in order. */
static void
snapshot_fill(const qg_routes *r, snapshot *s, uint64_t now_ms)
{
	for (int pass = 0; pass < 2; pass++) {
		for (size_t i = 0; i < r->n_links; i++)
			for (unsigned way = 0; way < 2; way++) {
				const qg_link *l = &r->link[i];
				uint64_t cost = l->topology ? qg_routes_cost(l, way, now_ms) : 0;
				uint32_t from = way == 0 ? l->a : l->b, to = way == 0 ? l->b : l->a;
				if (cost == 0)
					continue;
				if (pass == 0)
					s->first[from + 1]++;
				else
					s->arc[s->first[from]++] = (qg_graph_arc){.to = to, .cost = cost};
			}
		/* First sums: where each node's arcs begin. Then back by one node,
		 * since each now stands where its arcs end. */
		for (size_t v = 0; pass == 0 && v < r->n_nodes; v++)
			s->first[v + 1] += s->first[v];
	}
	memmove(s->first + 1, s->first, r->n_nodes * sizeof *s->first);
	s->first[0] = 0;
	s->graph = (qg_graph){.n_nodes = r->n_nodes, .first = s->first, .arc = s->arc};
}

static qg_err
snapshot_take(qg_routes *r, snapshot *s, uint64_t now_ms)
{
	*s = (snapshot){.first = calloc(r->n_nodes + 2, sizeof *s->first),
			.arc = calloc(2 * r->n_links + 1, sizeof *s->arc)};
	if (s->first == NULL || s->arc == NULL) {
		snapshot_free(s);
		return QG_E_NOMEM;
	}
	pthread_mutex_lock(&r->lock);
	snapshot_fill(r, s, now_ms);
	pthread_mutex_unlock(&r->lock);
	return QG_OK;
}

static size_t
find_in_topology(qg_routes *r, uint32_t to, unsigned k, unsigned max_arcs, uint64_t now_ms, qg_path *path)
{
	snapshot s;
	size_t n = 0;
	if (snapshot_take(r, &s, now_ms) != QG_OK)
		return 0;
	if (qg_paths_find(&s.graph, r->self, to, k, max_arcs, path, &n) != QG_OK)
		n = 0;
	snapshot_free(&s);
	return n;
}

/* --- among the static routes ------------------------------------------------------------ */

typedef struct choice {
	size_t n;
	qg_path path[STATIC_MAX]; /* usable ones, cheapest first */
	unsigned k;
	size_t picked[QG_PATHS_MAX], best[QG_PATHS_MAX], n_best;
	uint64_t best_cost;
	unsigned steps;
} choice;

/* A configured route as a path, without its cost. False: it is none, or too long. */
static bool
static_path(const qg_routes *r, const qg_config_stream *st, const qg_config_route *route, unsigned max_arcs,
	    qg_path *p)
{
	if (route->n_via + 1 > max_arcs)
		return false;
	*p = (qg_path){.n = 1, .node[0] = r->self};
	for (size_t i = 0; i <= route->n_via; i++) {
		uint32_t node = qg_routes_node(r, i < route->n_via ? route->via[i] : st->neighbour);
		for (size_t j = 0; j < p->n; j++)
			if (p->node[j] == node)
				return false;
		p->node[p->n++] = node;
	}
	return true;
}

/* Under the lock. */
static bool
static_cost(const qg_routes *r, qg_path *p, uint64_t now_ms)
{
	for (size_t i = 0; i + 1 < p->n; i++) {
		unsigned way = 0;
		const qg_link *l = qg_routes_link(r, p->node[i], p->node[i + 1], &way);
		uint64_t cost = l == NULL ? 0 : qg_routes_cost(l, way, now_ms);
		if (cost == 0)
			return false;
		p->cost += cost;
	}
	return true;
}

/* Two that are both the direct link share it. */
static bool
disjoint(const qg_path *p, const qg_path *q)
{
	for (size_t i = 1; i + 1 < p->n; i++)
		for (size_t j = 1; j + 1 < q->n; j++)
			if (p->node[i] == q->node[j])
				return false;
	return p->n > 2 || q->n > 2;
}

static bool
fits(const choice *c, size_t n, size_t i)
{
	for (size_t j = 0; j < n; j++)
		if (!disjoint(&c->path[c->picked[j]], &c->path[i]))
			return false;
	return true;
}

/* More routes are better, then cheaper ones, then those configured first. */
static void
choose(choice *c, size_t n, size_t from, uint64_t cost)
{
	if (n > c->n_best || (n == c->n_best && cost < c->best_cost)) {
		memcpy(c->best, c->picked, sizeof c->best);
		c->n_best = n;
		c->best_cost = cost;
	}
	if (n == c->k)
		return;
	for (size_t i = from; i < c->n && c->steps < STATIC_STEPS; i++) {
		uint64_t least = cost + (c->k - n) * c->path[i].cost;
		if (n + (c->n - i) < c->n_best || (c->n_best == c->k && least >= c->best_cost))
			return;
		c->steps++;
		if (!fits(c, n, i))
			continue;
		c->picked[n] = i;
		choose(c, n + 1, i + 1, cost + c->path[i].cost);
	}
}

/* Puts it behind those that cost as much or less. */
static void
insert(choice *c, const qg_path *p)
{
	size_t i = c->n++;
	for (; i > 0 && c->path[i - 1].cost > p->cost; i--)
		c->path[i] = c->path[i - 1];
	c->path[i] = *p;
}

static size_t
find_static(qg_routes *r, const qg_config_stream *st, unsigned k, unsigned max_arcs, uint64_t now_ms,
	    qg_path *path)
{
	choice *c = calloc(1, sizeof *c);
	if (c == NULL)
		return 0;
	c->k = k;
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < st->relay.n_routes && c->n < STATIC_MAX; i++) {
		qg_path p;
		if (static_path(r, st, &st->relay.routes[i], max_arcs, &p) && static_cost(r, &p, now_ms))
			insert(c, &p);
	}
	pthread_mutex_unlock(&r->lock);
	choose(c, 0, 0, 0);
	size_t n = c->n_best;
	for (size_t i = 0; i < n; i++)
		path[i] = c->path[c->best[i]];
	free(c);
	return n;
}

/* --- results ---------------------------------------------------------------------------- */

static void
path_route(qg_routes *r, const qg_path *p, uint64_t now_ms, qg_route *out)
{
	*out = (qg_route){.n = p->n, .cost = p->cost, .bytes = UINT64_MAX};
	pthread_mutex_lock(&r->lock);
	for (size_t i = 0; i < p->n; i++) {
		unsigned way = 0;
		out->node[i] = r->name[p->node[i]];
		if (i + 1 == p->n)
			break;
		const qg_link *l = qg_routes_link(r, p->node[i], p->node[i + 1], &way);
		uint64_t bytes = qg_routes_bytes(l, way, now_ms);
		if (bytes < out->bytes)
			out->bytes = bytes;
	}
	pthread_mutex_unlock(&r->lock);
}

void
qg_routes_find(qg_routes *r, const qg_config_stream *stream, unsigned k, uint64_t now_ms, qg_route *out, size_t *n)
{
	qg_path path[QG_PATHS_MAX];
	unsigned max_arcs = QG_KMS_PATH_MAX - 1;
	if (stream->relay.max_hops < max_arcs - 1)
		max_arcs = stream->relay.max_hops + 1;
	if (k > QG_PATHS_MAX)
		k = QG_PATHS_MAX;
	uint32_t to = qg_routes_node(r, stream->neighbour);
	size_t found = 0;
	if (to != QG_NO_NODE && to != r->self && stream->relay.n_routes > 0)
		found = find_static(r, stream, k, max_arcs, now_ms, path);
	else if (to != QG_NO_NODE && to != r->self)
		found = find_in_topology(r, to, k, max_arcs, now_ms, path);
	for (size_t i = 0; i < found; i++)
		path_route(r, &path[i], now_ms, &out[i]);
	*n = found;
}
