/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ROUTES_GRAPH_INTERNAL_H
#define QKDGATE_ROUTES_GRAPH_INTERNAL_H

#include <pthread.h>

#include "routes_internal.h"

/* What the files of the routes share: the graph of the configuration with what
 * is known of its links (routes_cost.c), and the search on numbers alone
 * (routes_paths.c, routes_bounded.c). */

/* --- the search: no names, no time, no lock -------------------------------- */

typedef struct qg_graph_arc {
	uint32_t to;
	uint64_t cost; /* 1 to QG_ARC_COST_MAX */
} qg_graph_arc;

#define QG_ARC_COST_MAX UINT64_C(100000000)

/* Directed; the arcs of v are arc[first[v]] .. arc[first[v + 1] - 1]. */
typedef struct qg_graph {
	size_t n_nodes;
	const uint32_t *first;
	const qg_graph_arc *arc;
} qg_graph;

typedef struct qg_path {
	size_t n; /* nodes, both ends counted */
	uint32_t node[QG_KMS_PATH_MAX];
	uint64_t cost;
} qg_path;

#define QG_PATHS_MAX 8

/* Up to k paths from s to t that share no node but these and no arc, each of at
 * most max_arcs arcs (1 to QG_KMS_PATH_MAX - 1): as many as there are, and of
 * those the ones that cost least together, then those with the fewest arcs. The
 * same graph gives the same paths, cheapest first.
 *
 * This holds without reserve for k = 1, and wherever the best paths of any
 * length keep max_arcs. Where they do not, finding the best is NP-hard: a
 * search with a fixed number of steps then takes the best it saw, which on
 * small networks is the best there is, and on large ones may cost more, or be
 * fewer than there are. What it returns always keeps max_arcs and shares no
 * node. QG_E_NOMEM. */
qg_err qg_paths_find(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, qg_path *out,
		     size_t *n) QG_CHECKED;

/* Weights order by cost, then by number of arcs. `charge` makes arcs dear. */
#define QG_ARC_WEIGHT(cost, charge) ((((cost) + (charge)) << 16) + 1)

/* k paths of whatever length that cost least with `charge` added to each arc;
 * *found of them, *fit: all keep max_arcs, and only then out is written.
 * routes_paths.c. */
qg_err qg_paths_flow(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, uint64_t charge,
		     qg_path *out, size_t *found, bool *fit) QG_CHECKED;

/* Exactly k paths that keep max_arcs, better than those in out if *have: then
 * these are kept where nothing better is found. routes_bounded.c. */
qg_err qg_paths_bounded(const qg_graph *g, uint32_t s, uint32_t t, unsigned k, unsigned max_arcs, qg_path *out,
			bool *have) QG_CHECKED;

uint64_t qg_paths_weight(const qg_path *p, size_t n);

/* --- the links ------------------------------------------------------------- */

/* What is known of one direction of a link. */
typedef struct qg_link_way {
	bool faulted;            /* since it last worked */
	qg_route_fault fault;
	unsigned level;          /* the penalty is 2^level times the configured one */
	uint64_t until_ms;
	bool reported;
	qg_kms_link_state state; /* as reported */
	uint64_t bytes, reported_ms;
} qg_link_way;

typedef struct qg_link {
	uint32_t a, b;         /* nodes, a < b */
	uint32_t cost;
	bool topology;         /* else only a static route has it */
	bool wrong;
	uint64_t wrong_until_ms;
	qg_link_way way[2];    /* from a to b, from b to a */
} qg_link;

typedef struct qg_origin {
	bool heard;
	uint64_t sequence, heard_ms;
} qg_origin;

struct qg_routes {
	const qg_config *cfg;
	uint64_t penalty_ms;
	size_t n_nodes, n_links;
	const char **name;     /* sorted; the configuration's strings */
	qg_link *link;         /* sorted by a, b */
	uint32_t self;
	pthread_mutex_t lock;  /* of all below and of the links' faults and reports */
	qg_origin *origin;     /* one for each node */
};

#define QG_NO_NODE UINT32_MAX

uint32_t qg_routes_node(const qg_routes *r, const char *name);
/* NULL: none. *way: the direction from `from`. */
qg_link *qg_routes_link(const qg_routes *r, uint32_t from, uint32_t to, unsigned *way);

/* Under the lock: what the link costs in that direction now; 0: not usable. */
uint64_t qg_routes_cost(const qg_link *l, unsigned way, uint64_t now_ms);
/* Under the lock: node key known to be ready; UINT64_MAX: not known. */
uint64_t qg_routes_bytes(const qg_link *l, unsigned way, uint64_t now_ms);

#endif
