/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

/* From a plan to the configuration of each node. */

void net_plan_link(net_plan *pl, unsigned a, unsigned b)
{
	must(pl->n_links < NET_LINKS, "too many links");
	pl->link[pl->n_links++] = (net_link){ .a = a, .b = b };
	for (unsigned top = (a > b ? a : b) + 1; pl->nodes < top;)
		pl->nodes = top;
	must(pl->nodes <= NET_NODES, "too many nodes");
}

void net_plan_line(net_plan *pl, unsigned nodes)
{
	*pl = (net_plan){ .nodes = nodes };
	for (unsigned i = 0; i + 1 < nodes; i++)
		net_plan_link(pl, i, i + 1);
}

void net_plan_ring(net_plan *pl, unsigned nodes)
{
	net_plan_line(pl, nodes);
	net_plan_link(pl, 0, nodes - 1);
}

void net_plan_diamond(net_plan *pl)
{
	*pl = (net_plan){ .nodes = 4 };
	net_plan_link(pl, 0, 1);
	net_plan_link(pl, 1, 2);
	net_plan_link(pl, 0, 3);
	net_plan_link(pl, 3, 2);
}

net_far *net_plan_far(net_plan *pl, unsigned from, unsigned to)
{
	must(pl->n_fars < NET_FARS, "too many virtual streams");
	net_far *far = &pl->far[pl->n_fars++];
	*far = (net_far){ .from = from, .to = to };
	return far;
}

void net_plan_both(net_plan *pl, unsigned a, unsigned b)
{
	net_plan_far(pl, a, b);
	net_plan_far(pl, b, a);
}

#define USUAL(m, v) pl->m = pl->m != 0 ? pl->m : (v)
static void plan_default(net_plan *pl)
{
	USUAL(chunk_size, PAIR_CHUNK);
	USUAL(segment_chunks, PAIR_SEGMENT);
	USUAL(node_chunks, 512);
	USUAL(node_percent, 60);
	USUAL(ready_chunks, 256);
	USUAL(inbound_chunks, 4096);
	USUAL(issue_s, 3600);
	USUAL(fetch_s, 3600);
	USUAL(lease_chunks, 256);
	USUAL(flush_ms, 50);
	USUAL(epoch_age_s, 30 * 86400);
	USUAL(own_percent, 10);
	USUAL(relay_timeout_ms, 3000);
	USUAL(penalty_s, 1);
	USUAL(kms_timeout_ms, 1000);
}
#undef USUAL

static uint32_t or_plan(uint32_t own, uint32_t of_plan)
{
	return own == UINT32_MAX ? 0 : own != 0 ? own : of_plan;
}

/* "a-to-b" */
static void put_name(char *out, size_t room, const char *between, unsigned a, unsigned b)
{
	int n = snprintf(out, room, "%c-%s-%c", 'a' + (int)a, between, 'a' + (int)b);
	must(n > 0 && (size_t)n < room, "a name is too long");
}

static void add_neighbour(core_node *e, unsigned other)
{
	const char *id = e->net->node[other].id;
	for (size_t i = 0; i < e->cfg.n_neighbours; i++)
		if (strcmp(e->neighbours[i].id, id) == 0)
			return;
	e->neighbours[e->cfg.n_neighbours++] = (qg_config_neighbour){ .id = id, .url = "https://127.0.0.1:1" };
}

/* The stream `from` to `to` at this node, one of them. */
static qg_config_stream *add_stream(core_node *e, const char *between, unsigned from, unsigned to)
{
	size_t i = e->cfg.n_streams++;
	must(i < NET_STREAMS, "too many streams");
	bool ours = e->index == from;
	put_name(e->names[i], sizeof e->names[i], between, from, to);
	e->owner[i] = from;
	add_neighbour(e, ours ? to : from);
	e->streams[i] = (qg_config_stream){ .name = e->names[i], .neighbour = e->net->node[ours ? to : from].id,
					    .direction = ours ? QG_DIRECTION_OUTBOUND : QG_DIRECTION_INBOUND };
	return &e->streams[i];
}

static void add_link(core_node *e, const net_link *l)
{
	const net_plan *pl = &e->net->plan;
	for (int back = 0; back < 2; back++) {
		unsigned from = back ? l->b : l->a, to = back ? l->a : l->b;
		qg_config_stream *s = add_stream(e, "to", from, to);
		s->chunk_size = or_plan(l->chunk_size, pl->chunk_size);
		s->segment_chunks = or_plan(l->segment_chunks, pl->segment_chunks);
		s->node_chunks = or_plan(l->node_chunks, pl->node_chunks);
		s->node_percent = or_plan(l->node_percent, pl->node_percent);
		atomic_store(&e->source[s - e->streams].rate, l->rate);
	}
}

static void add_far(core_node *e, const net_far *f)
{
	const net_plan *pl = &e->net->plan;
	qg_config_stream *s = add_stream(e, "over", f->from, f->to);
	s->relayed = true;
	s->chunk_size = or_plan(f->chunk_size, pl->chunk_size);
	s->segment_chunks = or_plan(f->segment_chunks, pl->segment_chunks);
	s->node_chunks = f->node_chunks;
	s->node_percent = pl->node_percent;
	s->relay = (qg_config_relay){ .paths = f->paths != 0 ? f->paths : 1, .fewer_paths = f->fewer_paths,
				      .max_hops = f->max_hops != 0 ? f->max_hops : 14, .routes = f->routes,
				      .n_routes = f->n_routes };
}

static void node_people(core_node *e)
{
	const core_net *n = e->net;
	for (int i = 0; i < 2; i++)
		e->saes[i] = (qg_config_sae){ .id = e->sae[i], .match = { .cn = e->sae[i] } };
	for (unsigned i = 0; i < n->plan.nodes; i++)
		for (int j = 0; j < 2 && i != e->index; j++)
			e->places[e->cfg.n_directory++] =
				(qg_config_place){ .sae = n->node[i].sae[j], .kme = n->node[i].id };
	e->cfg.saes = e->saes;
	e->cfg.n_saes = 2;
	e->cfg.directory = e->places;
}

static void node_streams(core_node *e)
{
	const net_plan *pl = &e->net->plan;
	for (size_t i = 0; i < pl->n_links; i++)
		if (pl->link[i].a == e->index || pl->link[i].b == e->index)
			add_link(e, &pl->link[i]);
	for (size_t i = 0; i < pl->n_fars; i++)
		if (pl->far[i].from == e->index || pl->far[i].to == e->index)
			add_far(e, &pl->far[i]);
	e->cfg.streams = e->streams;
	e->cfg.neighbours = e->neighbours;
}

static void node_config(core_node *e)
{
	static const char *const anybody[] = { "*" };
	static const qg_config_rule all = { .master = "*", .slaves = anybody, .n_slaves = 1, .both_ways = true,
					    .min_key_bits = 8, .max_key_bits = 32760, .default_key_bits = 256,
					    .max_keys = 128, .max_extra_slaves = 16 };
	const net_plan *pl = &e->net->plan;
	e->cfg = (qg_config){ .kme_id = e->id, .policy = &all, .n_policy = 1, .key_ring_rotate_s = 86400,
			      .flush_ms = pl->flush_ms, .ready_chunks = pl->ready_chunks,
			      .inbound_chunks = pl->inbound_chunks, .issue_s = pl->issue_s, .fetch_s = pl->fetch_s,
			      .reserve_percent = pl->reserve_percent, .lease_chunks = pl->lease_chunks,
			      .epoch_age_s = pl->epoch_age_s, .kms_timeout_ms = pl->kms_timeout_ms,
			      .transfer_timeout_ms = 8000,
			      .clock_jump_s = 86400, .links = e->net->links, .n_links = pl->n_links,
			      .relay_own_percent = pl->own_percent,
			      .relay_neighbour_bytes_per_s = pl->neighbour_bytes_per_s,
			      .relay_route_bytes_per_s = pl->route_bytes_per_s,
			      .relay_timeout_ms = pl->relay_timeout_ms, .relay_penalty_s = pl->penalty_s };
	node_people(e);
	node_streams(e);
}

static void net_links(core_net *n)
{
	for (size_t i = 0; i < n->plan.n_links; i++) {
		const net_link *l = &n->plan.link[i];
		n->links[i] = (qg_config_link){ .a = n->node[l->a].id, .b = n->node[l->b].id,
						.cost = l->cost != 0 ? l->cost : 1 };
	}
}
