/* SPDX-License-Identifier: Apache-2.0 */
/* What the home of a target takes and refuses (SOUNDNESS 14, 17, 18). */
#include "multicast_net.h"

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
	for (unsigned i = 0; i < 9; i++) {
		*x = *m;
		switch (i) {
		case 0: strcpy(x->targets.id[0], "sae-c2"); break;
		case 1: strcpy(x->initiator, "sae-a2"); break;
		case 2: x->lifetime_s++; break;
		case 3: x->key[0].id.b[3] ^= 1; break;
		case 4: x->masked.data[0] ^= 1; break;
		case 5: x->masked.mac[15] ^= 0x80; break;
		case 6: x->masked.oldest_pad++; break;
		case 7: x->masked.opened_pad++; break;
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
	set_number(C, &n->node[C].cfg.inbound_chunks, 1);
	qg_issue_request req = request(2);
	assert_int_equal(issue(&req), QG_E_EMPTY);
	assert_int_equal(sent_ids(C, 0, ids), 2);
	node_stop(&n->node[C]);
	n->node[C].cfg.inbound_chunks = 4096;
	node_start(&n->node[C]);
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

/* What a neighbour makes void without ever having brought it, as much as it
 * likes, takes no room from keys. */
static void test_rule_18_tombstones_keep_no_keys_out(void **state)
{
	(void)state;
	static char text[QG_KMS_MSG_MAX];
	static net_answer a;
	static qg_kms_delete m;
	size_t len = 0, planted = 0;
	start_star();
	set_number(C, &n->node[C].cfg.inbound_chunks, 512);
	strcpy(m.initiator, "sae-b");
	m.n = QG_KMS_MAKE_MAX;
	for (int i = 0; i < 10; i++) {
		for (size_t j = 0; j < m.n; j++)
			qg_uuid_random(&m.id[j]);
		assert_int_equal(qg_kms_delete_encode(&m, text, sizeof text, &len), QG_OK);
		net_inject(n, B, C, QG_KMS_DELETE_KEYS, text, len, &a);
		planted += a.status == 200;
	}
	assert_int_equal(planted, 2);
	qg_issue_request req = request(1);
	assert_int_equal(issue(&req), QG_OK);
	assert_int_equal(fetch_at(C, "sae-c", k->id, 1), QG_OK);
	/* ... nor from what others make void. */
	expect_deleted(delete_at(A, C, "sae-a", k->id, 1), 0, 1);
	qg_uuid_random(&k->id[0]);
	expect_deleted(delete_at(A, C, "sae-a", k->id, 1), 1, 0);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_rule_18_the_homes_own_policy_decides),
		TEST(test_rule_14_18_what_a_home_refuses),
		TEST(test_rule_18_the_same_is_held_once_and_nothing_else),
		TEST(test_altered_messages_are_refused),
		TEST(test_altered_on_the_way_voids_all),
		TEST(test_a_full_home_says_so),
		TEST(test_rule_18_what_is_delivered_is_not_void),
		TEST(test_rule_18_void_before_it_came),
		TEST(test_rule_18_tombstones_keep_no_keys_out),
		TEST(test_rule_18_failed_to_void),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
