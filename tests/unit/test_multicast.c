/* SPDX-License-Identifier: Apache-2.0 */
/* The same key for SAEs at several nodes (SOUNDNESS 14, 17, 18). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/core_net.c"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
enum { A, B, C };

static core_net *n;
static pair_keys *k, *got;

static int setup(void **state)
{
	(void)state;
	k = keys_new();
	got = keys_new();
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	net_free(&n);
	keys_free(&k);
	keys_free(&got);
	return 0;
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

/* Each once, the same, and strangers none. */
static void expect_once(const char *sae, uint32_t number)
{
	unsigned home = home_of(sae);
	assert_int_equal(fetch_at(home, sae, k->id, number), QG_OK);
	assert_int_equal(got->bytes, k->bytes);
	assert_memory_equal(got->key, k->key, k->bytes);
	assert_int_equal(fetch_at(home, sae, k->id, number), QG_E_NOTFOUND);
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

/* --- it works ---------------------------------------------------------------------- */

static void test_each_of_three_nodes_gets_it_once(void **state)
{
	(void)state;
	start_star();
	qg_issue_request req = request(3);
	assert_int_equal(issue(&req), QG_OK);
	assert_int_equal(fetch_at(C, "sae-a", k->id, 1), QG_E_DENIED);
	assert_int_equal(net_fetch(n, B, "sae-a2", "sae-b2", k->id, 1, got), QG_E_DENIED);
	assert_false(net_on_disk(n, k->key, 32));
	expect_once("sae-b", 3);
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 3);
	assert_true(net_all_fresh(n, NULL));
	/* What has left holds no value; A keeps nothing for others. */
	assert_int_equal(voiding_at(A), 0);
}

static void test_a_slave_on_the_masters_node_and_one_elsewhere(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c" };
	start_star();
	qg_issue_request req = { .master = "sae-a", .slave = "sae-a2", .extra = extra, .n_extra = 1, .number = 2,
				 .size_bytes = 100, .max_hops = UINT32_MAX };
	assert_int_equal(issue(&req), QG_OK);
	expect_once("sae-a2", 2);
	expect_once("sae-c", 2);
}

static void test_restarts_keep_what_is_held(void **state)
{
	(void)state;
	start_star();
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_OK);
	for (unsigned i = 0; i < 3; i++) {
		node_crash(&n->node[i]);
		node_start(&n->node[i]);
	}
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 2);
	node_crash(&n->node[C]);
	node_start(&n->node[C]);
	expect_void("sae-c", k->id, 2);
}

static void test_over_a_virtual_stream(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c", "sae-c2" };
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, A, C)->node_chunks = 192;
	n = net_start(&pl);
	qg_issue_request req = { .master = "sae-a", .slave = "sae-b", .extra = extra, .n_extra = 2, .number = 2,
				 .size_bytes = 32, .max_hops = UINT32_MAX };
	qg_err err = QG_E_EMPTY;
	for (unsigned i = 0; i < 60 && err == QG_E_EMPTY; i++) {
		err = issue(&req);
		pair_nap(100);
	}
	assert_int_equal(err, QG_OK);
	expect_once("sae-c", 2);
	expect_once("sae-c2", 2);
	assert_int_equal(fetch_at(B, "sae-b", k->id, 2), QG_OK);
	/* The pads passed B: not with fewer trusted nodes. */
	req.max_hops = 0;
	assert_int_equal(issue(&req), QG_E_STATE);
}

static void test_more_than_one_message_holds(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-b2", "sae-c" };
	net_plan pl;
	plan_star(&pl);
	pl.node_chunks = 2048;
	pl.kms_timeout_ms = 10000;
	n = net_start(&pl);
	assert_true(net_wait(n, pads_open, net_stream(n, A, C, A)));
	qg_issue_request req = { .master = "sae-a", .slave = "sae-a2", .extra = extra, .n_extra = 2, .number = 200,
				 .size_bytes = 150, .max_hops = UINT32_MAX };
	assert_int_equal(issue(&req), QG_OK);
	for (size_t i = 0; i < COUNT(extra); i++)
		expect_once(extra[i], 200);
	size_t messages = 0;
	assert_true(net_all_fresh(n, &messages));
	assert_true(messages >= 4);
	req.number = 1024; /* more than the stream ever keeps */
	assert_int_equal(issue(&req), QG_E_RANGE);
}

static void test_rule_18_lost_answers_and_doubles_deliver_once(void **state)
{
	(void)state;
	start_star();
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->lose_requests, 1);
	atomic_store(&net_fault_of(n, A, B, QG_KMS_MAKE_KEYS_EXTERNAL)->lose_answers, 2);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_OK);
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 2);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->twice, true);
	assert_int_equal(issue(&req), QG_OK);
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_once(everywhere[i], 2);
	assert_true(net_all_fresh(n, NULL));
}

/* --- it fails ---------------------------------------------------------------------- */

static void expect_void_everywhere(const qg_uuid *ids, size_t number)
{
	for (size_t i = 0; i < COUNT(everywhere); i++)
		expect_void(everywhere[i], ids, number);
}

static void test_rule_18_a_home_that_is_down_voids_all(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	net_down(n, A, C, true);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_true(k->retry_after_s > 0);
	assert_null(k->key);
	size_t keys = sent_ids(B, 0, ids);
	assert_int_equal(keys, 2);
	/* Until C was told, A remembers, over a restart too. */
	expect_void("sae-a2", ids, keys);
	node_crash(&n->node[A]);
	node_start(&n->node[A]);
	assert_int_equal(voiding_at(A), 2);
	expect_void("sae-a2", ids, keys);
	net_down(n, A, C, false);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, keys);
	/* C never got the message: when it comes now, it is too late. */
	long at = net_find(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL, 0);
	net_record r;
	net_answer *a = calloc(1, sizeof *a);
	assert_true(at >= 0 && a != NULL && net_record_get(n, (size_t)at, &r));
	net_inject(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL, r.body, r.len, a);
	qg_kms_make_answer ma;
	assert_int_equal(a->status, 200);
	assert_int_equal(qg_kms_make_answer_decode(a->body, a->len, &ma), QG_OK);
	assert_true(ma.result == QG_KMS_MAKE_EXISTS || ma.result == QG_KMS_MAKE_NO_PAD);
	net_record_free(&r);
	free(a);
	expect_void_everywhere(ids, keys);
}

static bool is_held(core_net *net, void *ctx)
{
	const unsigned *node = ctx;
	return qg_transfers_count(net->node[*node].core->transfers) >= 2;
}

/* The master's node dies between the sending and the answer. */
static void test_rule_18_a_crash_of_the_master_voids_all(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	unsigned node = C;
	start_star();
	n->node[A].cfg.kms_timeout_ms = 20000;
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->lose_answers, -1);
	qg_issue_request req = request(2);
	keys_issue_begin(n->node[A].core, &req, k);
	assert_true(net_wait(n, is_held, &node));
	atomic_store(&net_fault_of(n, A, B, QG_KMS_DELETE_KEYS)->down, true);
	node_crash(&n->node[A]);
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	assert_true(sent_ids(C, 0, ids) == 2);
	/* B restarts too, and is told later. */
	node_crash(&n->node[B]);
	node_start(&n->node[B]);
	node_start(&n->node[A]);
	assert_int_equal(voiding_at(A), 2);
	expect_void("sae-a2", ids, 2);
	pair_nap(300);
	assert_int_equal(voiding_at(A), 2);
	atomic_store(&net_fault_of(n, A, B, QG_KMS_DELETE_KEYS)->down, false);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
	for (unsigned i = 0; i < 3; i++) {
		node_crash(&n->node[i]);
		node_start(&n->node[i]);
	}
	assert_int_equal(voiding_at(A), 0);
	expect_void_everywhere(ids, 2);
}

static void test_an_orderly_stop_answers_and_voids(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	unsigned node = B;
	start_star();
	n->node[A].cfg.kms_timeout_ms = 20000;
	atomic_store(&net_fault_of(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL)->down, true);
	qg_issue_request req = request(2);
	keys_issue_begin(n->node[A].core, &req, k);
	assert_true(net_wait(n, is_held, &node));
	node_stop(&n->node[A]);
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	assert_int_equal(atomic_load(&k->calls), 1);
	assert_int_equal(sent_ids(B, 0, ids), 2);
	node_start(&n->node[A]);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
}

static void test_a_home_that_cannot_store_voids_all(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	atomic_store(&n->node[C].store.fault, FAULT_FAILS);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_int_equal(sent_ids(C, 0, ids), 2);
	atomic_store(&n->node[C].store.fault, FAULT_NONE);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
}

static void test_a_master_that_cannot_store_sends_nothing(void **state)
{
	(void)state;
	start_star();
	atomic_store(&n->node[A].store.fault, FAULT_FAILS);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_IO);
	atomic_store(&n->node[A].store.fault, FAULT_NONE);
	assert_int_equal(net_find(n, A, NET_NODES, QG_KMS_MAKE_KEYS_EXTERNAL, 0), -1);
	assert_int_equal(issue(&req), QG_OK);
}

/* From the last home's answer on, A's commits end in the given way. */
typedef struct release_fault {
	int fault;
	unsigned answers;
} release_fault;

static void fault_at_release(void *ctx, net_wire *w)
{
	release_fault *f = ctx;
	if (w->kind == QG_KMS_MAKE_KEYS_EXTERNAL && w->answer && ++f->answers == 2)
		atomic_store(&w->net->node[A].store.fault, f->fault);
}

static void test_rule_18_a_release_that_may_have_failed_voids_all(void **state)
{
	(void)state;
	static const int faults[] = { FAULT_FAILS, FAULT_UNKNOWN_DONE, FAULT_UNKNOWN_UNDONE };
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	for (size_t i = 0; i < COUNT(faults); i++) {
		release_fault f = { .fault = faults[i] };
		size_t from = net_records(n);
		net_set_hook(n, fault_at_release, &f);
		qg_issue_request req = request(2);
		assert_int_equal(issue(&req), QG_E_EMPTY);
		net_set_hook(n, NULL, NULL);
		assert_int_equal(sent_ids(C, from, ids), 2);
		expect_void("sae-a2", ids, 2);
		atomic_store(&n->node[A].store.fault, FAULT_NONE);
		assert_true(net_wait(n, all_void, NULL));
		expect_void_everywhere(ids, 2);
	}
	node_crash(&n->node[A]);
	node_start(&n->node[A]);
	expect_void_everywhere(ids, 2);
}

static void test_without_node_key_it_waits_and_then_fails(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c" };
	net_plan pl;
	plan_star(&pl);
	pl.node_chunks = 192;
	n = net_start(&pl);
	wait_pads();
	net_dry_from(n, A, C, true);
	qg_issue_request req = { .master = "sae-a", .slave = "sae-a2", .extra = extra, .n_extra = 1, .number = 16,
				 .size_bytes = 64, .max_hops = UINT32_MAX };
	qg_err err = QG_OK;
	for (unsigned i = 0; i < 50 && err == QG_OK; i++)
		err = issue(&req);
	assert_int_equal(err, QG_E_EMPTY);
	assert_true(net_wait(n, all_void, NULL));
	/* It waits for what comes in time. */
	n->node[A].cfg.kms_timeout_ms = 20000;
	keys_issue_begin(n->node[A].core, &req, k);
	pair_nap(50);
	net_dry_from(n, A, C, false);
	assert_int_equal(keys_wait(k), QG_OK);
	expect_once("sae-c", 16);
}

static void test_a_link_without_node_key_is_none(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-c" }, *const nobody[] = { "sae-x" };
	net_plan pl;
	plan_star(&pl);
	pl.link[1].node_chunks = UINT32_MAX;
	n = net_start(&pl);
	assert_true(net_wait_ready(n, A, B, 50));
	uint64_t ready = net_stream_ready(net_stream(n, A, B, A));
	qg_issue_request req = { .master = "sae-a", .slave = "sae-b", .extra = extra, .n_extra = 1, .number = 1,
				 .size_bytes = 32, .max_hops = UINT32_MAX };
	assert_int_equal(issue(&req), QG_E_NOTFOUND);
	req.extra = nobody;
	assert_int_equal(issue(&req), QG_E_NOTFOUND);
	assert_true(net_stream_ready(net_stream(n, A, B, A)) >= ready);
}

/* --- judged by the home ------------------------------------------------------------- */

static void test_rule_18_the_homes_own_policy_decides(void **state)
{
	(void)state;
	static const char *const others[] = { "sae-b*" };
	static const qg_config_rule narrow = { .master = "sae-a*", .slaves = others, .n_slaves = 1, .both_ways = true,
					       .min_key_bits = 8, .max_key_bits = 32760, .default_key_bits = 256,
					       .max_keys = 128, .max_extra_slaves = 16 };
	qg_uuid ids[QG_KMS_MAKE_MAX];
	net_plan pl;
	plan_star(&pl);
	n = net_new(&pl);
	n->node[C].cfg.policy = &narrow;
	for (unsigned i = 0; i < 3; i++)
		node_start(&n->node[i]);
	wait_pads();
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_int_equal(sent_ids(C, 0, ids), 2);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
}

/* A forger who has the link's key: node key that A has not opened yet. */
typedef struct forger {
	qg_kms_masked at;
} forger;

static void make_mac(qg_kms_make *m)
{
	static uint8_t pad[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX], canonical[QG_KMS_MASKED_CANONICAL_MAX];
	qg_kms_masked *x = &m->masked;
	assert_true(net_pad_bytes(n, x->pad, x->n_pads, pad, QG_KMS_MAC_OVERHEAD + x->data_len));
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_make_canonical(m, &w);
	assert_false(w.bad);
	crypto_onetimeauth_state st;
	crypto_onetimeauth_init(&st, pad);
	crypto_onetimeauth_update(&st, canonical, w.len);
	crypto_onetimeauth_update(&st, x->data, x->data_len);
	crypto_onetimeauth_final(&st, x->mac);
}

/* Names the next bytes of node key, masks and signs. The value of each key is
 * made of its ID and `salt`. */
static void forge(forger *f, unsigned from, unsigned to, qg_kms_make *m, uint8_t salt)
{
	static uint8_t pad[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
	size_t len = 0;
	for (size_t i = 0; i < m->n_keys; i++)
		len += m->key[i].size;
	if (f->at.n_pads == 0) {
		assert_true(net_pads_at(n, from, to, QG_USE_MAC, QG_USE_PAD, len, &f->at));
	} else {
		f->at.pad[0].offset += f->at.pad[0].len;
		f->at.pad[1].offset += f->at.pad[1].len;
		f->at.pad[1].len = (uint32_t)len;
	}
	f->at.data_len = len;
	m->masked = f->at;
	assert_true(net_pad_bytes(n, m->masked.pad, 2, pad, QG_KMS_MAC_OVERHEAD + len));
	for (size_t i = 0, at = 0; i < m->n_keys; at += m->key[i++].size)
		for (uint32_t j = 0; j < m->key[i].size; j++)
			m->masked.data[at + j] = pad[QG_KMS_MAC_OVERHEAD + at + j] ^
						 (uint8_t)(m->key[i].id.b[j % 16] + j + salt);
	make_mac(m);
}

static qg_kms_make_result deliver_make(unsigned from, unsigned to, const qg_kms_make *m)
{
	static char text[QG_KMS_MSG_MAX];
	static net_answer a;
	qg_kms_make_answer out;
	size_t len = 0;
	assert_int_equal(qg_kms_make_encode(m, text, sizeof text, &len), QG_OK);
	net_inject(n, from, to, QG_KMS_MAKE_KEYS_EXTERNAL, text, len, &a);
	assert_int_equal(a.status, 200);
	assert_int_equal(qg_kms_make_answer_decode(a.body, a.len, &out), QG_OK);
	return out.result;
}

static void make_for(qg_kms_make *m, const char *initiator, const char *target)
{
	*m = (qg_kms_make){ .from = "KME-A", .to = "KME-C", .lifetime_s = 3600, .n_keys = 1, .targets.n = 1 };
	strcpy(m->initiator, initiator);
	strcpy(m->targets.id[0], target);
	qg_uuid_random(&m->key[0].id);
	m->key[0].size = 32;
}

static qg_kms_make_result forge_one(forger *f, qg_kms_make *m, uint8_t salt)
{
	forge(f, A, C, m, salt);
	return deliver_make(A, C, m);
}

static size_t held_at(unsigned node)
{
	return qg_transfers_count(n->node[node].core->transfers);
}

static void test_rule_14_18_what_a_home_refuses(void **state)
{
	(void)state;
	forger f = { 0 };
	qg_kms_make *m = calloc(1, sizeof *m);
	start_star();
	assert_true(net_wait_ready(n, C, A, 50));

	make_for(m, "sae-b", "sae-c"); /* a master of another node */
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_UNKNOWN);
	make_for(m, "sae-nobody", "sae-c");
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_UNKNOWN);
	make_for(m, "sae-c2", "sae-c"); /* one of its own */
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_UNKNOWN);
	make_for(m, "sae-a", "sae-b"); /* a target elsewhere */
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_UNKNOWN);
	make_for(m, "sae-a", "sae-c"); /* one target of two */
	m->targets.n = 2;
	strcpy(m->targets.id[1], "sae-b");
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_UNKNOWN);
	make_for(m, "sae-a", "sae-c");
	strcpy(m->from, "KME-B");
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_REFUSED);
	make_for(m, "sae-a", "sae-c");
	strcpy(m->to, "KME-B");
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_REFUSED);
	assert_int_equal(held_at(C), 0);

	/* an ID that C issued itself */
	assert_int_equal(net_issue(n, C, "sae-c", "sae-a", 1, 32, k), QG_OK);
	make_for(m, "sae-a", "sae-c");
	m->key[0].id = k->id[0];
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_EXISTS);
	assert_int_equal(held_at(C), 0);
	assert_int_equal(net_fetch(n, A, "sae-c", "sae-a", k->id, 1, got), QG_OK);
	free(m);
}

static void test_rule_18_the_same_is_held_once_and_nothing_else(void **state)
{
	(void)state;
	forger f = { 0 };
	qg_kms_make *m = calloc(1, sizeof *m), *x = calloc(1, sizeof *x);
	start_star();
	make_for(m, "sae-a", "sae-c");
	m->targets.n = 2;
	strcpy(m->targets.id[1], "sae-c2");
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_HELD);
	assert_int_equal(deliver_make(A, C, m), QG_KMS_MAKE_REFUSED); /* replayed */
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_HELD);
	assert_int_equal(held_at(C), 1);
	*x = *m;
	strcpy(x->targets.id[0], "sae-c2"); /* in another order */
	strcpy(x->targets.id[1], "sae-c");
	assert_int_equal(forge_one(&f, x, 0), QG_KMS_MAKE_HELD);
	assert_int_equal(forge_one(&f, m, 1), QG_KMS_MAKE_EXISTS); /* another value */
	*x = *m;
	x->targets.n = 1;
	assert_int_equal(forge_one(&f, x, 0), QG_KMS_MAKE_EXISTS);
	*x = *m;
	x->key[0].size = 31;
	assert_int_equal(forge_one(&f, x, 0), QG_KMS_MAKE_EXISTS);

	/* of two keys one is known as another: neither is taken */
	*x = *m;
	x->n_keys = 2;
	x->key[1].size = 32;
	qg_uuid_random(&x->key[1].id);
	assert_int_equal(forge_one(&f, x, 1), QG_KMS_MAKE_EXISTS);
	assert_int_equal(held_at(C), 1);
	/* ... or the same: the other is taken */
	assert_int_equal(forge_one(&f, x, 0), QG_KMS_MAKE_HELD);
	assert_int_equal(held_at(C), 2);

	/* what one has fetched is not delivered again to it, by no repetition */
	assert_int_equal(fetch_at(C, "sae-c", &m->key[0].id, 1), QG_OK);
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_HELD);
	assert_int_equal(fetch_at(C, "sae-c", &m->key[0].id, 1), QG_E_NOTFOUND);
	assert_int_equal(fetch_at(C, "sae-c2", &m->key[0].id, 1), QG_OK);
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_EXISTS);
	node_crash(&n->node[C]);
	node_start(&n->node[C]);
	assert_int_equal(fetch_at(C, "sae-c2", &m->key[0].id, 1), QG_E_NOTFOUND);
	free(m);
	free(x);
}

static void test_altered_messages_are_refused(void **state)
{
	(void)state;
	forger f = { 0 };
	qg_kms_make *m = calloc(1, sizeof *m), *x = calloc(1, sizeof *x);
	start_star();
	make_for(m, "sae-a", "sae-c");
	forge(&f, A, C, m, 0);
	for (unsigned i = 0; i < 8; i++) {
		*x = *m;
		switch (i) {
		case 0: strcpy(x->targets.id[0], "sae-c2"); break;
		case 1: strcpy(x->initiator, "sae-a2"); break;
		case 2: x->lifetime_s++; break;
		case 3: x->key[0].id.b[3] ^= 1; break;
		case 4: x->masked.data[0] ^= 1; break;
		case 5: x->masked.mac[15] ^= 0x80; break;
		case 6: x->masked.oldest_pad++; break;
		default: x->targets.n = 2; strcpy(x->targets.id[1], "sae-c2"); break;
		}
		assert_int_equal(deliver_make(A, C, x), QG_KMS_MAKE_REFUSED);
	}
	assert_int_equal(held_at(C), 0);
	/* none of them consumed anything */
	assert_int_equal(deliver_make(A, C, m), QG_KMS_MAKE_HELD);
	/* cut off, and from one who does not own the link */
	net_answer *a = calloc(1, sizeof *a);
	net_inject(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL, "{\"version\":1", 12, a);
	assert_int_equal(a->status, 400);
	net_inject(n, A, C, QG_KMS_DELETE_KEYS, "{}", 2, a);
	assert_int_equal(a->status, 400);
	free(a);
	free(m);
	free(x);
}

static void alter(void *ctx, net_wire *w)
{
	if (w->kind != QG_KMS_MAKE_KEYS_EXTERNAL || w->to != C || w->answer != *(bool *)ctx)
		return;
	if (w->answer) {
		qg_kms_make_answer a;
		assert_int_equal(qg_kms_make_answer_decode(w->body, w->len, &a), QG_OK);
		a.mac[0] ^= 1;
		assert_int_equal(qg_kms_make_answer_encode(&a, w->body, w->room, &w->len), QG_OK);
		return;
	}
	qg_kms_make *m = calloc(1, sizeof *m);
	assert_int_equal(qg_kms_make_decode(w->body, w->len, m), QG_OK);
	m->masked.data[5] ^= 4;
	assert_int_equal(qg_kms_make_encode(m, w->body, w->room, &w->len), QG_OK);
	free(m);
}

static void test_altered_on_the_way_voids_all(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	for (int answer = 0; answer < 2; answer++) {
		bool of_answer = answer == 1;
		size_t from = net_records(n);
		net_set_hook(n, alter, &of_answer);
		qg_issue_request req = request(1);
		assert_int_equal(issue(&req), QG_E_EMPTY);
		net_set_hook(n, NULL, NULL);
		assert_int_equal(sent_ids(C, from, ids), 1);
		assert_true(net_wait(n, all_void, NULL));
		expect_void_everywhere(ids, 1);
	}
}

static void test_a_full_home_says_so(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	start_star();
	n->node[C].cfg.inbound_chunks = 1;
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_int_equal(sent_ids(C, 0, ids), 2);
	n->node[C].cfg.inbound_chunks = 4096;
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 2);
}

/* --- delete_keys ----------------------------------------------------------------------- */

static qg_kms_delete_answer delete_at(unsigned from, unsigned to, const char *initiator, const qg_uuid *ids,
				      size_t number)
{
	static char text[QG_KMS_MSG_MAX];
	static net_answer a;
	static qg_kms_delete m;
	qg_kms_delete_answer out;
	size_t len = 0;
	memset(&m, 0, sizeof m);
	strcpy(m.initiator, initiator);
	m.n = number;
	memcpy(m.id, ids, number * sizeof *ids);
	assert_int_equal(qg_kms_delete_encode(&m, text, sizeof text, &len), QG_OK);
	net_inject(n, from, to, QG_KMS_DELETE_KEYS, text, len, &a);
	assert_int_equal(a.status, 200);
	assert_int_equal(qg_kms_delete_answer_decode(a.body, a.len, &out), QG_OK);
	return out;
}

static void expect_deleted(qg_kms_delete_answer a, uint32_t voided, uint32_t delivered)
{
	assert_int_equal(a.voided, voided);
	assert_int_equal(a.delivered, delivered);
}

static void test_rule_18_what_is_delivered_is_not_void(void **state)
{
	(void)state;
	start_star();
	qg_issue_request req = request(3);
	assert_int_equal(issue(&req), QG_OK);
	assert_int_equal(fetch_at(C, "sae-c", k->id, 1), QG_OK);
	/* others have no say */
	expect_deleted(delete_at(B, C, "sae-a", k->id, 3), 0, 0);
	expect_deleted(delete_at(B, C, "sae-b", k->id, 1), 1, 0); /* another key: of sae-b */
	expect_deleted(delete_at(A, C, "sae-a", k->id, 2), 1, 1);
	expect_deleted(delete_at(A, C, "sae-a", k->id, 2), 1, 1);
	expect_void("sae-c", k->id, 2);
	expect_void("sae-c2", k->id, 2); /* the other target of a delivered one too */
	node_crash(&n->node[C]);
	node_start(&n->node[C]);
	expect_void("sae-c2", k->id, 2);
	expect_deleted(delete_at(A, C, "sae-a", k->id, 2), 1, 1);
	assert_int_equal(fetch_at(C, "sae-c2", &k->id[2], 1), QG_OK);
}

static void test_rule_18_void_before_it_came(void **state)
{
	(void)state;
	forger f = { 0 };
	qg_kms_make *m = calloc(1, sizeof *m);
	start_star();
	make_for(m, "sae-a", "sae-c");
	expect_deleted(delete_at(A, C, "sae-a", &m->key[0].id, 1), 1, 0);
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_EXISTS);
	expect_void("sae-c", &m->key[0].id, 1);
	node_crash(&n->node[C]);
	node_start(&n->node[C]);
	f = (forger){ 0 };
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_EXISTS);
	expect_deleted(delete_at(A, C, "sae-a", &m->key[0].id, 1), 1, 0);
	/* nobody plants tombstones for masters of others */
	make_for(m, "sae-a", "sae-c");
	expect_deleted(delete_at(B, C, "sae-a", &m->key[0].id, 1), 0, 0);
	assert_int_equal(forge_one(&f, m, 0), QG_KMS_MAKE_HELD);
	assert_int_equal(fetch_at(C, "sae-c", &m->key[0].id, 1), QG_OK);
	free(m);
}

/* A home that delivered before it is told: the master's node says so and ends. */
static void test_rule_18_failed_to_void(void **state)
{
	(void)state;
	qg_uuid ids[QG_KMS_MAKE_MAX];
	unsigned node = C;
	start_star();
	atomic_store(&net_fault_of(n, A, B, QG_KMS_MAKE_KEYS_EXTERNAL)->down, true);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_DELETE_KEYS)->down, true);
	qg_issue_request req = request(3);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_true(net_wait(n, is_held, &node));
	assert_int_equal(sent_ids(C, 0, ids), 3);
	assert_int_equal(fetch_at(C, "sae-c", &ids[1], 1), QG_OK);
	atomic_store(&net_fault_of(n, A, C, QG_KMS_DELETE_KEYS)->down, false);
	atomic_store(&net_fault_of(n, A, B, QG_KMS_MAKE_KEYS_EXTERNAL)->down, false);
	assert_true(net_wait(n, all_void, NULL));
	expect_void_everywhere(ids, 3);
	FILE *log = fopen(n->node[A].audit_file, "r");
	assert_non_null(log);
	assert_int_equal(qg_audit_sync(n->node[A].audit), QG_OK);
	char line[1024];
	unsigned voided = 0, late = 0;
	while (fgets(line, sizeof line, log) != NULL) {
		voided += strstr(line, "\"voided\"") != NULL;
		late += strstr(line, "not void: a target had it already") != NULL;
	}
	fclose(log);
	assert_int_equal(voided, 3);
	assert_int_equal(late, 1);
}

/* --- all at once ---------------------------------------------------------------------------- */

#define ROUNDS 12

/* Losses, delays and crashes at random: no key is delivered twice or after it
 * was refused to the master, and nothing is stuck. */
static void test_rule_18_under_losses_and_crashes(void **state)
{
	(void)state;
	unsigned seed = (unsigned)time(NULL);
	print_message("seed %u\n", seed);
	srandom(seed);
	start_star();
	for (unsigned i = 0; i < ROUNDS; i++) {
		qg_uuid ids[QG_KMS_MAKE_MAX];
		size_t from = net_records(n);
		for (unsigned to = B; to <= C; to++) {
			net_fault *f = net_fault_of(n, A, to, QG_KMS_MAKE_KEYS_EXTERNAL);
			atomic_store(&f->lose_answers, (int)(random() % 3));
			atomic_store(&f->lose_requests, (int)(random() % 2));
			atomic_store(&f->jitter_ms, (unsigned)(random() % 30));
			atomic_store(&net_fault_of(n, A, to, QG_KMS_DELETE_KEYS)->lose_answers, (int)(random() % 2));
		}
		qg_issue_request req = request(2);
		keys_issue_begin(n->node[A].core, &req, k);
		core_node *e = &n->node[random() % 3];
		if (random() % 2 == 0) {
			pair_nap((unsigned)(random() % 40));
			node_crash(e);
			node_start(e);
		}
		qg_err err = keys_wait(k);
		assert_true(err == QG_OK || err == QG_E_EMPTY || err == QG_E_IO);
		for (unsigned to = B; to <= C; to++) {
			net_fault *f = net_fault_of(n, A, to, QG_KMS_MAKE_KEYS_EXTERNAL);
			atomic_store(&f->lose_answers, 0);
			atomic_store(&f->lose_requests, 0);
		}
		assert_true(net_wait(n, all_void, NULL));
		if (err == QG_OK) {
			for (size_t j = 0; j < COUNT(everywhere); j++)
				expect_once(everywhere[j], 2);
		} else if (net_find(n, A, C, QG_KMS_MAKE_KEYS_EXTERNAL, from) >= 0) {
			expect_void_everywhere(ids, sent_ids(C, from, ids));
		}
		wait_pads();
	}
	assert_true(net_all_fresh(n, NULL));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_each_of_three_nodes_gets_it_once),
		TEST(test_a_slave_on_the_masters_node_and_one_elsewhere),
		TEST(test_restarts_keep_what_is_held),
		TEST(test_over_a_virtual_stream),
		TEST(test_more_than_one_message_holds),
		TEST(test_rule_18_lost_answers_and_doubles_deliver_once),
		TEST(test_rule_18_a_home_that_is_down_voids_all),
		TEST(test_rule_18_a_crash_of_the_master_voids_all),
		TEST(test_an_orderly_stop_answers_and_voids),
		TEST(test_a_home_that_cannot_store_voids_all),
		TEST(test_a_master_that_cannot_store_sends_nothing),
		TEST(test_rule_18_a_release_that_may_have_failed_voids_all),
		TEST(test_without_node_key_it_waits_and_then_fails),
		TEST(test_a_link_without_node_key_is_none),
		TEST(test_rule_18_the_homes_own_policy_decides),
		TEST(test_rule_14_18_what_a_home_refuses),
		TEST(test_rule_18_the_same_is_held_once_and_nothing_else),
		TEST(test_altered_messages_are_refused),
		TEST(test_altered_on_the_way_voids_all),
		TEST(test_a_full_home_says_so),
		TEST(test_rule_18_what_is_delivered_is_not_void),
		TEST(test_rule_18_void_before_it_came),
		TEST(test_rule_18_failed_to_void),
		TEST(test_rule_18_under_losses_and_crashes),
	};
	if (pair_init() != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
