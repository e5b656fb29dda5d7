/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "qkdgate/log.h"
#include "routes_graph_internal.h"

/* What a link costs: its configured cost, times what the node key known to be
 * ready there makes of it, and more under a penalty. Nothing here adds a node
 * or a link (SOUNDNESS 17). */

#define MODULE "routes"
#define PENALTY_LEVEL_MAX 4 /* 16 times */
#define REPORT_LIFE_MS 30000
#define PLENTY_BYTES (UINT64_C(64) * 1024)
#define FACTOR_MAX 8
/* More than any route without penalty costs: 15 links of 1000 times 8. */
#define EXTRA_COST UINT64_C(1000000)

static bool
report_lives(const qg_link_way *w, uint64_t now_ms)
{
	return w->reported && now_ms < w->reported_ms + REPORT_LIFE_MS;
}

static bool
penalised(const qg_link_way *w, uint64_t now_ms)
{
	return w->faulted && now_ms < w->until_ms;
}

static bool
down(const qg_link *l, unsigned way, uint64_t now_ms)
{
	const qg_link_way *w = &l->way[way];
	return (l->wrong && now_ms < l->wrong_until_ms) || (penalised(w, now_ms) && w->fault == QG_ROUTE_DOWN);
}

uint64_t
qg_routes_bytes(const qg_link *l, unsigned way, uint64_t now_ms)
{
	const qg_link_way *w = &l->way[way];
	return report_lives(w, now_ms) ? w->bytes : UINT64_MAX;
}

/* In steps, so that routes do not swing with every message. */
static uint64_t
scarcity(uint64_t bytes)
{
	uint64_t factor = 1;
	for (uint64_t enough = PLENTY_BYTES; bytes < enough && factor < FACTOR_MAX; enough /= 2)
		factor *= 2;
	return factor;
}

uint64_t
qg_routes_cost(const qg_link *l, unsigned way, uint64_t now_ms)
{
	const qg_link_way *w = &l->way[way];
	bool told = report_lives(w, now_ms);
	if (down(l, way, now_ms))
		return 0;
	uint64_t cost = l->cost * scarcity(qg_routes_bytes(l, way, now_ms));
	if (penalised(w, now_ms) || (told && w->state == QG_KMS_LINK_STARVING))
		cost += EXTRA_COST;
	/* Hearsay: it puts a link last, but what was seen here alone takes it away. */
	if (told && w->state == QG_KMS_LINK_DOWN)
		cost += 2 * EXTRA_COST;
	return cost;
}

/* --- faults ------------------------------------------------------------------- */

static const char *const fault_names[] = {
	[QG_ROUTE_DOWN] = "down",
	[QG_ROUTE_STARVING] = "starving",
	[QG_ROUTE_BUSY] = "busy",
	[QG_ROUTE_WRONG] = "wrong",
};

/* Faults while a penalty runs are its echo: messages that were on their way.
 * One after its end doubles the next, unless the link was quiet for long. */
static bool
add_fault(const qg_routes *r, qg_link_way *w, qg_route_fault fault, uint64_t now_ms)
{
	bool runs = penalised(w, now_ms);
	if (runs && (w->fault == QG_ROUTE_DOWN || fault != QG_ROUTE_DOWN))
		return false;
	if (!runs) {
		bool goes_on = w->faulted && now_ms < w->until_ms + (r->penalty_ms << PENALTY_LEVEL_MAX);
		w->level = goes_on ? w->level + (w->level < PENALTY_LEVEL_MAX) : 0;
	}
	w->faulted = true;
	w->fault = fault;
	w->until_ms = now_ms + (r->penalty_ms << w->level);
	return true;
}

static bool
add_wrong(const qg_routes *r, qg_link *l, uint64_t now_ms)
{
	bool runs = l->wrong && now_ms < l->wrong_until_ms;
	l->wrong = true;
	l->wrong_until_ms = now_ms + (r->penalty_ms << PENALTY_LEVEL_MAX);
	return !runs;
}

/* True when the link was not avoided for this before. */
static bool
fault_link(const qg_routes *r, qg_link *l, unsigned way, qg_route_fault fault, uint64_t now_ms)
{
	if (fault == QG_ROUTE_WRONG)
		return add_wrong(r, l, now_ms);
	bool fresh = add_fault(r, &l->way[way], fault, now_ms);
	if (fault == QG_ROUTE_DOWN)
		(void)add_fault(r, &l->way[!way], fault, now_ms);
	return fresh;
}

void
qg_routes_fault(qg_routes *r, const char *at, const char *next, qg_route_fault fault, uint64_t now_ms)
{
	unsigned way = 0;
	qg_link *l = qg_routes_link(r, qg_routes_node(r, at), qg_routes_node(r, next), &way);
	if (l == NULL)
		return;
	pthread_mutex_lock(&r->lock);
	bool fresh = fault_link(r, l, way, fault, now_ms);
	uint64_t until_ms = fault == QG_ROUTE_WRONG ? l->wrong_until_ms : l->way[way].until_ms;
	pthread_mutex_unlock(&r->lock);
	if (fresh)
		qg_log(QG_LOG_WARN, MODULE, "event=link_avoided at=%s next=%s reason=%s for_ms=%llu", at, next,
		       fault_names[fault], (unsigned long long)(until_ms - now_ms));
}

void
qg_routes_suspect(qg_routes *r, const qg_route *route, uint64_t now_ms)
{
	for (size_t i = 0; i + 1 < route->n; i++)
		qg_routes_fault(r, route->node[i], route->node[i + 1], QG_ROUTE_WRONG, now_ms);
}

void
qg_routes_worked(qg_routes *r, const qg_route *route)
{
	for (size_t i = 0; i + 1 < route->n; i++) {
		unsigned way = 0;
		qg_link *l = qg_routes_link(r, qg_routes_node(r, route->node[i]),
					    qg_routes_node(r, route->node[i + 1]), &way);
		if (l == NULL)
			continue;
		pthread_mutex_lock(&r->lock);
		qg_link_way *w = &l->way[way], *back = &l->way[!way];
		bool was = w->faulted;
		w->faulted = false;
		/* What came before tells less than a message that got through. */
		if (w->state != QG_KMS_LINK_UP)
			w->reported = false;
		if (back->fault == QG_ROUTE_DOWN)
			back->faulted = false;
		pthread_mutex_unlock(&r->lock);
		if (was)
			qg_log(QG_LOG_INFO, MODULE, "event=link_works at=%s next=%s", route->node[i],
			       route->node[i + 1]);
	}
}

bool
qg_routes_is_down(qg_routes *r, const char *at, const char *next, uint64_t now_ms)
{
	unsigned way = 0;
	const qg_link *l = qg_routes_link(r, qg_routes_node(r, at), qg_routes_node(r, next), &way);
	if (l == NULL)
		return false;
	pthread_mutex_lock(&r->lock);
	bool is = down(l, way, now_ms);
	pthread_mutex_unlock(&r->lock);
	return is;
}

/* --- reports -------------------------------------------------------------------- */

/* Links of which the origin is an end, and which the configuration has. */
static size_t
take_links(qg_routes *r, uint32_t origin, const qg_kms_report *report, uint64_t now_ms)
{
	for (size_t i = 0; i < r->n_links; i++)
		if (r->link[i].a == origin || r->link[i].b == origin)
			r->link[i].way[r->link[i].b == origin].reported = false;
	size_t taken = 0;
	for (size_t i = 0; i < report->n && i < QG_KMS_LINKS_MAX; i++) {
		unsigned way = 0;
		qg_link *l = qg_routes_link(r, origin, qg_routes_node(r, report->link[i].peer), &way);
		if (l == NULL)
			continue;
		l->way[way].reported = true;
		l->way[way].reported_ms = now_ms;
		l->way[way].state = report->link[i].state;
		l->way[way].bytes = report->link[i].bytes;
		taken++;
	}
	return taken;
}

/* A sequence counts as long as its report: should an origin's clock have been
 * put back while it was down, it is heard again when that is forgotten. */
bool
qg_routes_report(qg_routes *r, const qg_kms_report *report, uint64_t now_ms)
{
	uint32_t node = qg_routes_node(r, report->origin);
	if (node == QG_NO_NODE)
		return false;
	pthread_mutex_lock(&r->lock);
	qg_origin *o = &r->origin[node];
	bool fresh = !o->heard || report->sequence > o->sequence || now_ms >= o->heard_ms + REPORT_LIFE_MS;
	if (fresh) {
		*o = (qg_origin){.heard = true, .sequence = report->sequence, .heard_ms = now_ms};
		fresh = take_links(r, node, report, now_ms) > 0;
	}
	pthread_mutex_unlock(&r->lock);
	return fresh;
}
