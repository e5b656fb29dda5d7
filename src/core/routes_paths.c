/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "routes_graph_internal.h"

/* Node-disjoint paths of least total cost: a flow of k units through a network
 * in which every node is an arc of its own (in -> out) that carries one unit,
 * found by successive shortest augmenting paths (Suurballe, Bhandari). */

typedef struct flow_arc {
	uint32_t to, next; /* next: of the same vertex, plus 1 */
	int64_t weight;
	bool open;         /* carries nothing yet; the reverse arc: something to take back */
} flow_arc;

/* Arc i and arc i ^ 1 are each other's reverse. */
typedef struct flow {
	size_t n_vertices;
	uint32_t n_arcs;
	uint32_t s, t;
	flow_arc *arc;
	uint32_t *head;  /* of each vertex, plus 1 */
	int64_t *dist;
	uint32_t *via;   /* arc to each vertex on the shortest path */
	uint32_t *queue;
	bool *queued;
} flow;

#define FAR INT64_MAX

static uint32_t
in_of(uint32_t node)
{
	return 2 * node;
}

static uint32_t
out_of(uint32_t node)
{
	return 2 * node + 1;
}

static void
flow_free(flow *f)
{
	free(f->arc);
	free(f->head);
	free(f->dist);
	free(f->via);
	free(f->queue);
	free(f->queued);
}

static void
add_arc(flow *f, uint32_t from, uint32_t to, int64_t weight)
{
	f->arc[f->n_arcs] = (flow_arc){.to = to, .next = f->head[from], .weight = weight, .open = true};
	f->head[from] = ++f->n_arcs;
	f->arc[f->n_arcs] = (flow_arc){.to = from, .next = f->head[to], .weight = -weight};
	f->head[to] = ++f->n_arcs;
}

static qg_err
flow_init(flow *f, const qg_graph *g, uint32_t s, uint32_t t, uint64_t charge)
{
	size_t n_links = g->first[g->n_nodes];
	*f = (flow){.n_vertices = 2 * g->n_nodes, .s = out_of(s), .t = in_of(t)};
	f->arc = calloc(2 * (g->n_nodes + n_links) + 1, sizeof *f->arc);
	f->head = calloc(f->n_vertices + 1, sizeof *f->head);
	f->dist = calloc(f->n_vertices + 1, sizeof *f->dist);
	f->via = calloc(f->n_vertices + 1, sizeof *f->via);
	f->queue = calloc(f->n_vertices + 1, sizeof *f->queue);
	f->queued = calloc(f->n_vertices + 1, sizeof *f->queued);
	if (f->arc == NULL || f->head == NULL || f->dist == NULL || f->via == NULL || f->queue == NULL ||
	    f->queued == NULL) {
		flow_free(f);
		return QG_E_NOMEM;
	}
	for (uint32_t v = 0; v < g->n_nodes; v++) {
		add_arc(f, in_of(v), out_of(v), 0);
		for (uint32_t i = g->first[v]; i < g->first[v + 1]; i++)
			add_arc(f, out_of(v), in_of(g->arc[i].to),
				(int64_t)QG_ARC_WEIGHT(g->arc[i].cost, charge));
	}
	return QG_OK;
}

static void
relax(flow *f, uint32_t v, size_t *end)
{
	for (uint32_t i = f->head[v]; i != 0; i = f->arc[i - 1].next) {
		const flow_arc *a = &f->arc[i - 1];
		if (!a->open || f->dist[v] + a->weight >= f->dist[a->to])
			continue;
		f->dist[a->to] = f->dist[v] + a->weight;
		f->via[a->to] = i - 1;
		if (!f->queued[a->to]) {
			f->queued[a->to] = true;
			f->queue[*end] = a->to;
			*end = (*end + 1) % (f->n_vertices + 1);
		}
	}
}

/* One unit more, along the shortest path that is left (Bellman-Ford: arcs that
 * take something back have negative weights, but there is no negative cycle). */
static bool
augment(flow *f)
{
	for (size_t v = 0; v < f->n_vertices; v++)
		f->dist[v] = FAR;
	f->dist[f->s] = 0;
	size_t begin = 0, end = 1;
	f->queue[0] = f->s;
	f->queued[f->s] = true;
	/* A vertex stands in the queue at most once, so it never fills up. */
	do {
		uint32_t v = f->queue[begin];
		begin = (begin + 1) % (f->n_vertices + 1);
		f->queued[v] = false;
		relax(f, v, &end);
	} while (begin != end);
	if (f->dist[f->t] == FAR)
		return false;
	for (uint32_t v = f->t; v != f->s; v = f->arc[f->via[v] ^ 1].to) {
		f->arc[f->via[v]].open = false;
		f->arc[f->via[v] ^ 1].open = true;
	}
	return true;
}

/* The arc that carries the unit on from an out-vertex; forward arcs are even. */
static uint32_t
used_arc(const flow *f, uint32_t v)
{
	uint32_t i = f->head[v];
	while ((i - 1) % 2 != 0 || f->arc[i - 1].open)
		i = f->arc[i - 1].next;
	return i - 1;
}

static bool
follow(const flow *f, uint32_t first_arc, unsigned max_arcs, uint64_t charge, qg_path *p)
{
	p->n = 1;
	p->node[0] = f->s / 2;
	p->cost = 0;
	for (uint32_t i = first_arc;; i = used_arc(f, out_of(f->arc[i].to / 2))) {
		if (p->n > max_arcs)
			return false;
		p->node[p->n++] = f->arc[i].to / 2;
		p->cost += ((uint64_t)f->arc[i].weight >> 16) - charge;
		if (f->arc[i].to == f->t)
			return true;
	}
}

static int
by_cost(const void *x, const void *y)
{
	const qg_path *p = x, *q = y;
	if (p->cost != q->cost)
		return p->cost < q->cost ? -1 : 1;
	if (p->n != q->n)
		return p->n < q->n ? -1 : 1;
	for (size_t i = 0; i < p->n; i++)
		if (p->node[i] != q->node[i])
			return p->node[i] < q->node[i] ? -1 : 1;
	return 0;
}

qg_err
qg_paths_flow(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, uint64_t charge,
	      qg_path *out, size_t *found, bool *fit)
{
	flow f;
	qg_err err = flow_init(&f, g, s, t, charge);
	if (err != QG_OK)
		return err;
	size_t n = 0;
	while (n < k && augment(&f))
		n++;
	qg_path path[QG_PATHS_MAX];
	size_t got = 0;
	bool all = true;
	for (uint32_t i = f.head[f.s]; i != 0 && all; i = f.arc[i - 1].next)
		if ((i - 1) % 2 == 0 && !f.arc[i - 1].open)
			all = follow(&f, i - 1, max_arcs, charge, &path[got++]);
	if (all)
		for (size_t i = 0; i < got; i++)
			out[i] = path[i];
	*found = n;
	*fit = all;
	flow_free(&f);
	return QG_OK;
}

uint64_t
qg_paths_weight(const qg_path *p, size_t n)
{
	uint64_t sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += (p[i].cost << 16) + p[i].n - 1;
	return sum;
}

/* Exactly k that keep max_arcs. Arcs are made dearer step by step, which leads
 * to paths of fewer arcs; the search goes on from the best of these. */
static qg_err
find_short(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, qg_path *out, bool *have)
{
	*have = false;
	for (uint64_t charge = 1; k > 1 && charge < 16 * QG_ARC_COST_MAX; charge *= 16) {
		qg_path path[QG_PATHS_MAX];
		size_t n = 0;
		bool fit = false;
		qg_err err = qg_paths_flow(g, s, t, k, max_arcs, charge, path, &n, &fit);
		if (err != QG_OK)
			return err;
		if (!fit || (*have && qg_paths_weight(path, k) >= qg_paths_weight(out, k)))
			continue;
		for (size_t i = 0; i < k; i++)
			out[i] = path[i];
		*have = true;
	}
	return qg_paths_bounded(g, s, t, k, max_arcs, out, have);
}

/* As many as there are, the cheapest; path[] has room for k. */
static qg_err
find_all(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, qg_path *path, size_t *n)
{
	bool have = false;
	while (k > 0 && !have) {
		size_t found = 0;
		qg_err err = qg_paths_flow(g, s, t, k, max_arcs, 0, path, &found, &have);
		k = (unsigned)found;
		if (err == QG_OK && !have)
			err = find_short(g, s, t, k, max_arcs, path, &have);
		if (err != QG_OK)
			return err;
		k -= !have;
	}
	if (k > 1)
		qsort(path, k, sizeof path[0], by_cost);
	*n = k;
	return QG_OK;
}

/* --- what is near enough ----------------------------------------------------------- */

typedef struct near_graph {
	qg_graph graph;
	uint32_t *first;
	qg_graph_arc *arc;
	unsigned *from_s, *to_t; /* arcs at least, up to max_arcs + 1 */
} near_graph;

static void
near_free(near_graph *w)
{
	free(w->first);
	free(w->arc);
	free(w->from_s);
	free(w->to_t);
}

static void
measure(const qg_graph *g, uint32_t s, uint32_t t, unsigned max_arcs, near_graph *w)
{
	for (uint32_t v = 0; v < g->n_nodes; v++) {
		w->from_s[v] = v == s ? 0 : max_arcs + 1;
		w->to_t[v] = v == t ? 0 : max_arcs + 1;
	}
	bool nearer = true;
	while (nearer) {
		nearer = false;
		for (uint32_t v = 0; v < g->n_nodes; v++)
			for (uint32_t i = g->first[v]; i < g->first[v + 1]; i++) {
				uint32_t to = g->arc[i].to;
				if (w->from_s[v] + 1 < w->from_s[to]) {
					w->from_s[to] = w->from_s[v] + 1;
					nearer = true;
				}
				if (w->to_t[to] + 1 < w->to_t[v]) {
					w->to_t[v] = w->to_t[to] + 1;
					nearer = true;
				}
			}
	}
}

/* The arcs that a path of at most max_arcs can take; near_free in any case. */
static qg_err
near_init(near_graph *w, const qg_graph *g, uint32_t s, uint32_t t, unsigned max_arcs)
{
	*w = (near_graph){.first = calloc(g->n_nodes + 1, sizeof *w->first),
			  .arc = calloc((size_t)g->first[g->n_nodes] + 1, sizeof *w->arc),
			  .from_s = calloc(g->n_nodes + 1, sizeof *w->from_s),
			  .to_t = calloc(g->n_nodes + 1, sizeof *w->to_t)};
	if (w->first == NULL || w->arc == NULL || w->from_s == NULL || w->to_t == NULL)
		return QG_E_NOMEM;
	measure(g, s, t, max_arcs, w);
	uint32_t n = 0;
	for (uint32_t v = 0; v < g->n_nodes; v++) {
		for (uint32_t i = g->first[v]; i < g->first[v + 1]; i++)
			if (w->from_s[v] + 1 + w->to_t[g->arc[i].to] <= max_arcs)
				w->arc[n++] = g->arc[i];
		w->first[v + 1] = n;
	}
	w->graph.n_nodes = g->n_nodes;
	w->graph.first = w->first;
	w->graph.arc = w->arc;
	return QG_OK;
}

qg_err
qg_paths_find(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, qg_path *out, size_t *n)
{
	qg_path path[QG_PATHS_MAX] = {{0}};
	near_graph w;
	if (k > QG_PATHS_MAX)
		k = QG_PATHS_MAX;
	if (max_arcs > QG_KMS_PATH_MAX - 1)
		max_arcs = QG_KMS_PATH_MAX - 1;
	if (s == t)
		k = 0;
	size_t found = 0;
	qg_err err = near_init(&w, g, s, t, max_arcs);
	if (err == QG_OK)
		err = find_all(&w.graph, s, t, k, max_arcs, path, &found);
	near_free(&w);
	if (err != QG_OK)
		return err;
	for (size_t i = 0; i < found; i++)
		out[i] = path[i];
	*n = found;
	return QG_OK;
}
