/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MULTICAST_NET_H
#define MULTICAST_NET_H

/* A network for keys of SAEs at several nodes. */
#include "support/net_case.h"

static int teardown(void **state)
{
	(void)state;
	return end_case(true);
}

/* A with a link to each of two homes. */
static void plan_star(net_plan *pl)
{
	*pl = (net_plan){ .nodes = 3 };
	net_plan_link(pl, A, B);
	net_plan_link(pl, A, C);
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

static void wait_pads(void)
{
	assert_true(net_wait(n, pads_open, net_stream(n, A, B, A)));
	assert_true(net_wait(n, pads_open, net_stream(n, A, C, A)));
}

static void start_star(void)
{
	net_plan pl;
	plan_star(&pl);
	n = net_start(&pl);
	wait_pads();
}

/* What a gateway was started with does not change under it. */
static void set_number(unsigned node, uint32_t *option, uint32_t value)
{
	node_stop(&n->node[node]);
	*option = value;
	node_start(&n->node[node]);
	wait_pads();
}

static const char *const everywhere[] = { "sae-a2", "sae-b2", "sae-c", "sae-c2" };

static qg_issue_request request(uint32_t number)
{
	return (qg_issue_request){ .master = "sae-a", .slave = "sae-b", .extra = everywhere,
				   .n_extra = COUNT(everywhere), .number = number, .size_bytes = 32,
				   .max_hops = UINT32_MAX };
}

static qg_err issue(const qg_issue_request *req)
{
	keys_issue_begin(n->node[A].core, req, k);
	return keys_wait(k);
}

static qg_err fetch_at(unsigned node, const char *sae, const qg_uuid *ids, size_t number)
{
	return net_fetch(n, node, "sae-a", sae, ids, number, got);
}

static unsigned home_of(const char *sae)
{
	return (unsigned)(sae[4] - 'a');
}

static void expect_void(const char *sae, const qg_uuid *ids, size_t number)
{
	/* Where the key never came, its ID says only that it is another's (401). */
	for (size_t i = 0; i < number; i++) {
		qg_err err = fetch_at(home_of(sae), sae, &ids[i], 1);
		assert_true(err == QG_E_NOTFOUND || err == QG_E_DENIED);
		assert_null(got->key);
	}
}

static size_t voiding_at(unsigned node)
{
	return qg_transfers_voiding(n->node[node].core->transfers);
}

static bool all_void(core_net *net, void *ctx)
{
	(void)net, (void)ctx;
	return voiding_at(A) == 0;
}

static qg_kms_make *make_of(size_t record)
{
	net_record r;
	qg_kms_make *m = calloc(1, sizeof *m);
	assert_non_null(m);
	assert_true(net_record_get(n, record, &r));
	assert_int_equal(qg_kms_make_decode(r.body, r.len, m), QG_OK);
	net_record_free(&r);
	return m;
}

/* IDs of the first message to a home from record i on. */
static size_t sent_ids(unsigned to, size_t i, qg_uuid *ids)
{
	long at = net_find(n, A, to, QG_KMS_MAKE_KEYS_EXTERNAL, i);
	assert_true(at >= 0);
	qg_kms_make *m = make_of((size_t)at);
	size_t keys = m->n_keys;
	for (size_t j = 0; j < keys; j++)
		ids[j] = m->key[j].id;
	free(m);
	return keys;
}

static void expect_void_everywhere(const qg_uuid *ids, size_t number)
{
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_void(everywhere[i], ids, number);
}

static bool is_held(core_net *net, void *ctx)
{
	const unsigned *node = ctx;
	return qg_transfers_count(net->node[*node].core->transfers) >= 2;
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

#endif
