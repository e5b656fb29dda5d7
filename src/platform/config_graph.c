/* SPDX-License-Identifier: Apache-2.0 */
/* Paths that share no node, counted as a flow of units (Menger): every node is
 * split in two with one arc from its way in to its way out, and every arc
 * carries one path. An arc and its reverse stand side by side. */
#include "config_internal.h"

#define NONE SIZE_MAX

typedef struct arc {
	size_t to, next; /* next: of the same tail */
	bool open;
} arc;

struct cfg_graph {
	size_t n_arcs, n_points; /* points: two for each node */
	arc *arcs;
	size_t *head;  /* of each point: its first arc */
	size_t *by;    /* search: the arc over which a point was reached */
	size_t *queue;
};

static size_t
way_in(size_t node)
{
	return 2 * node;
}

static size_t
way_out(size_t node)
{
	return 2 * node + 1;
}

static void
add_arc(cfg_graph *g, size_t from, size_t to)
{
	g->arcs[g->n_arcs] = (arc){.to = to, .next = g->head[from]};
	g->head[from] = g->n_arcs++;
	g->arcs[g->n_arcs] = (arc){.to = from, .next = g->head[to]};
	g->head[to] = g->n_arcs++;
}

cfg_graph *
qg_cfg_graph_new(cfg_mem *m, size_t nodes, size_t links)
{
	if (nodes > QG_CFG_NODES_MAX || links > QG_CFG_NODES_MAX)
		return NULL;
	cfg_graph *g = qg_cfg_alloc(m, sizeof *g);
	if (g == NULL)
		return NULL;
	g->n_points = 2 * nodes;
	g->arcs = qg_cfg_alloc(m, (2 * nodes + 4 * links + 1) * sizeof *g->arcs);
	g->head = qg_cfg_alloc(m, (g->n_points + 1) * sizeof *g->head);
	g->by = qg_cfg_alloc(m, (g->n_points + 1) * sizeof *g->by);
	g->queue = qg_cfg_alloc(m, (g->n_points + 1) * sizeof *g->queue);
	if (g->arcs == NULL || g->head == NULL || g->by == NULL || g->queue == NULL)
		return NULL;
	for (size_t i = 0; i < g->n_points; i++)
		g->head[i] = NONE;
	for (size_t i = 0; i < nodes; i++)
		add_arc(g, way_in(i), way_out(i));
	return g;
}

void
qg_cfg_graph_link(cfg_graph *g, size_t a, size_t b)
{
	add_arc(g, way_out(a), way_in(b));
	add_arc(g, way_out(b), way_in(a));
}

/* Breadth first, so over the fewest arcs. */
static bool
search(cfg_graph *g, size_t from, size_t to)
{
	size_t done = 0, found = 0;
	for (size_t i = 0; i < g->n_points; i++)
		g->by[i] = NONE;
	g->queue[found++] = from;
	while (done < found && g->by[to] == NONE) {
		const size_t at = g->queue[done++];
		for (size_t i = g->head[at]; i != NONE; i = g->arcs[i].next) {
			const size_t next = g->arcs[i].to;
			if (!g->arcs[i].open || next == from || g->by[next] != NONE)
				continue;
			g->by[next] = i;
			g->queue[found++] = next;
		}
	}
	return g->by[to] != NONE;
}

/* Turns the arcs of the path around and counts them. */
static size_t
take_path(cfg_graph *g, size_t from, size_t to)
{
	size_t n = 0;
	for (size_t at = to; at != from; n++) {
		const size_t i = g->by[at];
		g->arcs[i].open = false;
		g->arcs[i ^ 1].open = true;
		at = g->arcs[i ^ 1].to;
	}
	return n;
}

unsigned
qg_cfg_graph_paths(cfg_graph *g, size_t from, size_t to, unsigned most, size_t *hops)
{
	unsigned n = 0;
	*hops = 0;
	for (size_t i = 0; i < g->n_arcs; i++)
		g->arcs[i].open = i % 2 == 0;
	for (; n < most && from != to && search(g, way_out(from), way_in(to)); n++) {
		const size_t arcs = take_path(g, way_out(from), way_in(to));
		if (n == 0)
			*hops = (arcs - 1) / 2;
	}
	return n;
}
