/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "routes_graph_internal.h"

/* Disjoint paths of at most so many arcs each: depth first, path by path, cut
 * off by what the rest costs at least, and after so many steps. */

#define STEPS_MAX 200000
#define FAR UINT64_MAX

typedef struct search {
	uint32_t n_nodes, s, t;
	unsigned k, max_arcs;
	const uint32_t *first;
	qg_graph_arc *arc;  /* those of a node: the most promising first; cost: a weight */
	uint64_t *least;    /* least[h * n_nodes + v]: from v to t over at most h arcs */
	bool *used;
	uint64_t best;
	bool have;
	unsigned steps;
	qg_path path[QG_PATHS_MAX];
	qg_path *out;
} search;

static uint64_t
least(const search *q, unsigned arcs, uint32_t v)
{
	return q->least[(size_t)arcs * q->n_nodes + v];
}

static uint64_t
plus(uint64_t a, uint64_t b)
{
	return a == FAR || b == FAR ? FAR : a + b;
}

static void
fill_least(search *q)
{
	for (uint32_t v = 0; v < q->n_nodes; v++)
		q->least[v] = v == q->t ? 0 : FAR;
	for (unsigned h = 1; h <= q->max_arcs; h++)
		for (uint32_t v = 0; v < q->n_nodes; v++) {
			uint64_t best = least(q, h - 1, v);
			for (uint32_t i = q->first[v]; i < q->first[v + 1]; i++) {
				uint64_t w = plus(q->arc[i].cost, least(q, h - 1, q->arc[i].to));
				if (w < best)
					best = w;
			}
			q->least[(size_t)h * q->n_nodes + v] = best;
		}
}

/* By insertion: qsort has no way to hand over `least`. */
static void
sort_arcs(search *q)
{
	for (uint32_t v = 0; v < q->n_nodes; v++)
		for (uint32_t i = q->first[v] + 1; v != q->t && i < q->first[v + 1]; i++) {
			qg_graph_arc a = q->arc[i];
			uint64_t key = plus(a.cost, least(q, q->max_arcs, a.to));
			uint32_t j = i;
			for (; j > q->first[v] &&
			       plus(q->arc[j - 1].cost, least(q, q->max_arcs, q->arc[j - 1].to)) > key;
			     j--)
				q->arc[j] = q->arc[j - 1];
			q->arc[j] = a;
		}
}

static qg_err
search_init(search *q, const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs)
{
	*q = (search){.n_nodes = (uint32_t)g->n_nodes, .s = s, .t = t, .k = k, .max_arcs = max_arcs};
	uint32_t n_arcs = g->first[g->n_nodes];
	q->first = g->first;
	q->arc = calloc((size_t)n_arcs + 1, sizeof *q->arc);
	q->least = calloc((size_t)(max_arcs + 1) * g->n_nodes, sizeof *q->least);
	q->used = calloc(g->n_nodes, sizeof *q->used);
	if (q->arc == NULL || q->least == NULL || q->used == NULL)
		return QG_E_NOMEM;
	for (uint32_t i = 0; i < n_arcs; i++) {
		q->arc[i].to = g->arc[i].to;
		q->arc[i].cost = QG_ARC_WEIGHT(g->arc[i].cost, 0);
	}
	fill_least(q);
	sort_arcs(q);
	q->used[s] = true;
	return QG_OK;
}

static void
search_fini(search *q)
{
	free(q->arc);
	free(q->least);
	free(q->used);
}

static void extend(search *q, unsigned i, uint32_t from, uint32_t first, uint64_t weight);

/* Path i has reached t by its arc `first` out of s. The next ones begin with
 * later arcs, since their order does not matter. */
static void
path_done(search *q, unsigned i, uint32_t first, uint64_t weight)
{
	if (i + 1 < q->k) {
		q->path[i + 1] = (qg_path){.n = 1, .node[0] = q->s};
		extend(q, i + 1, first + 1, first, weight);
		return;
	}
	q->best = weight;
	q->have = true;
	memcpy(q->out, q->path, q->k * sizeof q->path[0]);
}

/* Tries the arcs after `from` as the next one of path i. */
static void
extend(search *q, unsigned i, uint32_t from, uint32_t first, uint64_t weight)
{
	qg_path *p = &q->path[i];
	uint32_t at = p->node[p->n - 1];
	unsigned left = q->max_arcs - (unsigned)p->n; /* after this arc */
	for (uint32_t a = from; a < q->first[at + 1]; a++) {
		const qg_graph_arc *arc = &q->arc[a];
		if (++q->steps > STEPS_MAX)
			return;
		uint64_t w = plus(weight + arc->cost, least(q, left, arc->to));
		uint64_t others = least(q, q->max_arcs, q->s);
		if (q->used[arc->to] || w == FAR || w + (q->k - i - 1) * others >= q->best)
			continue;
		p->node[p->n++] = arc->to;
		p->cost += arc->cost >> 16;
		if (at == q->s)
			first = a;
		q->used[arc->to] = arc->to != q->t;
		if (arc->to == q->t)
			path_done(q, i, first, weight + arc->cost);
		else
			extend(q, i, q->first[arc->to], first, weight + arc->cost);
		q->used[arc->to] = false;
		p->cost -= arc->cost >> 16;
		p->n--;
	}
}

qg_err
qg_paths_bounded(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, qg_path *out, bool *have)
{
	if (k == 0)
		return QG_OK;
	search q;
	qg_err err = search_init(&q, g, s, t, k, max_arcs);
	if (err == QG_OK) {
		q.out = out;
		q.best = *have ? qg_paths_weight(out, k) : FAR;
		q.path[0] = (qg_path){.n = 1, .node[0] = s};
		/* What one path costs is known: no step leads astray. */
		if (k == 1 && !*have)
			q.best = plus(least(&q, max_arcs, s), 1);
		if (least(&q, max_arcs, s) != FAR)
			extend(&q, 0, q.first[s], q.first[s], 0);
		*have |= q.have;
	}
	search_fini(&q);
	return err;
}
