/* SPDX-License-Identifier: Apache-2.0 */
#ifndef INTEROP_NET_H
#define INTEROP_NET_H

/* Two networks in one process: A and its border B, the border C and D behind
 * it; B and C are peers. Their own links only, or (KXI) one between the borders
 * besides, whose key masks what passes there. */
#include "support/net_case.h"

#include "../../src/core/interop_internal.h"
#include "../../src/core/multicast_internal.h"
#include "../../src/core/transfer_internal.h"

static int teardown(void **state)
{
	(void)state;
	return end_case(true);
}

static const char *const net1[] = { "sae-a*", "sae-b*" }, *const net2[] = { "sae-c*", "sae-d*" },
			 *const net3[] = { "sae-e*" }, *const anyone[] = { "*" };

static void add_peer(unsigned at, unsigned to, const char *const *saes, size_t n_saes, const char *stream)
{
	core_node *e = &n->node[at];
	e->peers[e->cfg.n_peers++] = (qg_config_peer){ .id = n->node[to].id, .url = "https://127.0.0.1:1",
						       .saes = saes, .n_saes = n_saes, .reach = anyone, .n_reach = 1,
						       .stream = stream, .max_keys = 1024, .outstanding_keys = 4096,
						       .timeout_ms = 1000, .ack_timeout_ms = 4000 };
	e->cfg.peers = e->peers;
}

/* Where the SAEs of other networks are, as each node knows it. */
static void set_place(unsigned at, unsigned of, unsigned border)
{
	core_node *e = &n->node[at];
	size_t keep = 0;
	for (size_t i = 0; i < e->cfg.n_directory; i++) {
		qg_config_place p = e->places[i];
		if (strcmp(p.kme, n->node[of].id) == 0 && !p.border) {
			if (border == at)
				continue; /* behind a peer of its own */
			p.kme = n->node[border].id;
			p.border = true;
		}
		e->places[keep++] = p;
	}
	e->cfg.n_directory = keep;
}

static char stream_bc[] = "b-to-c", stream_cb[] = "c-to-b";

static void two_networks(bool kxi)
{
	net_plan pl = { .nodes = 4 };
	net_plan_link(&pl, A, B);
	net_plan_link(&pl, C, D);
	if (kxi)
		net_plan_link(&pl, B, C);
	n = net_new(&pl);
	for (unsigned i = 0; i < 2; i++)
		for (unsigned of = 0; of < 2; of++) {
			set_place(i, C + of, B);
			set_place(C + i, of, C);
		}
	add_peer(B, C, net2, COUNT(net2), kxi ? stream_bc : NULL);
	add_peer(C, B, net1, COUNT(net1), kxi ? stream_cb : NULL);
}

static bool pads_open(core_net *net, void *ctx)
{
	qg_stream *st = ctx;
	(void)net;
	pthread_mutex_lock(&st->lock);
	bool ready = qg_pads_ready_bytes(st) >= 4096 && st->ready >= 100;
	pthread_mutex_unlock(&st->lock);
	return ready;
}

static qg_issue_request request(const char *master, const char *slave, uint32_t number)
{
	return (qg_issue_request){ .master = master, .slave = slave, .number = number, .size_bytes = 32,
				   .max_hops = UINT32_MAX };
}

static qg_err issue_at(unsigned at, const qg_issue_request *req)
{
	keys_issue_begin(n->node[at].core, req, k);
	return keys_wait(k);
}

static qg_err fetch_at(unsigned at, const char *master, const char *slave, const qg_uuid *ids, size_t number)
{
	return net_fetch(n, at, master, slave, ids, number, got);
}

static qg_transfer_state state_at(unsigned at, const char *initiator, const qg_uuid *id)
{
	qg_transfers *t = n->node[at].core->transfers;
	pthread_mutex_lock(&t->lock);
	const qg_transfer *x = qg_transfer_find(t, initiator, id);
	const qg_transfer_state s = x != NULL ? x->state : (qg_transfer_state)0;
	pthread_mutex_unlock(&t->lock);
	return s;
}

/* Nothing is under way any more, at any node. */
static bool all_settled(core_net *net, void *ctx)
{
	(void)ctx;
	for (unsigned i = 0; i < net->plan.nodes; i++) {
		qg_core *core = net->node[i].core;
		if (core == NULL) /* played by the test */
			continue;
		if (qg_transfers_voiding(core->transfers) > 0 || qg_ix_tellings(core) > 0)
			return false;
		pthread_mutex_lock(&core->multicast->lock);
		const bool busy = core->multicast->ops != NULL;
		pthread_mutex_unlock(&core->multicast->lock);
		if (busy)
			return false;
	}
	return true;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
