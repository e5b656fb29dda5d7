/* SPDX-License-Identifier: Apache-2.0 */
/* Relaying over nodes that lie: what they say is found out, and costs no more than
 * the way over them. */
#include "relay_rig.h"

/* --- answers ------------------------------------------------------------------------ */

typedef struct liar {
	unsigned from, to;
	atomic_uint lies;
	void (*lie)(qg_kms_forward_answer *a);
} liar;

static void lie_in_answers(void *ctx, net_wire *w)
{
	liar *l = ctx;
	qg_kms_forward_answer a;
	if (w->kind != QG_KMS_FORWARD_KEYS || !w->answer || w->from != l->from || w->to != l->to ||
	    qg_kms_forward_answer_decode(w->body, w->len, &a) != QG_OK)
		return;
	l->lie(&a);
	atomic_fetch_add(&l->lies, 1);
	assert_int_equal(qg_kms_forward_answer_encode(&a, w->body, w->room, &w->len), QG_OK);
}

static void lie_mac(qg_kms_forward_answer *a) { a->mac[0] ^= 1; }

static void lie_down(qg_kms_forward_answer *a)
{
	a->result = QG_KMS_FORWARD_DOWN;
	memcpy(a->at, "KME-B", sizeof "KME-B");
}

static void lie_refused(qg_kms_forward_answer *a)
{
	memset(a->mac, 0, sizeof a->mac);
	a->result = QG_KMS_FORWARD_REFUSED;
}

static unsigned forwards_to(unsigned from, unsigned to)
{
	unsigned count = 0;
	for (long i = net_find(n, from, to, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, from, to, QG_KMS_FORWARD_KEYS, (size_t)i + 1))
		count++;
	return count;
}

static uint64_t bad_segments(unsigned at)
{
	qg_stream *st = net_far_stream(n, A, C, at);
	pthread_mutex_lock(&st->lock);
	uint64_t bad = st->n_bad;
	pthread_mutex_unlock(&st->lock);
	return bad;
}

/* A network that relays from A to C over B, as the cheaper way, until it lies. */
static void start_over_b(void)
{
	net_plan pl;
	net_plan_diamond(&pl);
	net_plan_far(&pl, A, C);
	pl.link[2].cost = pl.link[3].cost = 50;
	n = net_start(&pl);
	unsigned before = 0;
	for (unsigned i = 0; i < 200 && before < 3; i++) {
		assert_true(net_deliver(n, A, C, 64, 32));
		before = forwards_to(A, B);
		pair_nap(20);
	}
	assert_true(before >= 3);
}

static void isolated(void (*lie)(qg_kms_forward_answer *a))
{
	static liar l;
	start_over_b();
	l = (liar){ .from = A, .to = B, .lie = lie };
	net_set_hook(n, lie_in_answers, &l);
	for (unsigned i = 0; i < 500 && counts(A).wrong < 3; i++) {
		assert_true(net_deliver(n, A, C, 64, 32));
		pair_nap(20);
	}
	assert_true(atomic_load(&l.lies) >= 3);
	assert_true(net_wait_quiet(n));
	assert_int_equal(audited(A, "isolated: it answers wrongly"), 1);
	unsigned over = forwards_to(A, B), around = forwards_to(A, D);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_int_equal(forwards_to(A, B), over);
	assert_true(forwards_to(A, D) > around);
}

static void test_a_hop_whose_answers_do_not_verify_is_isolated(void **state)
{
	(void)state;
	isolated(lie_mac);
}

static void test_a_hop_whose_answers_are_changed_is_isolated(void **state)
{
	(void)state;
	isolated(lie_down);
}

static void test_a_hop_that_refuses_all_is_isolated(void **state)
{
	(void)state;
	isolated(lie_refused);
}

/* B masks other key than it got, properly, and says that all is well. */
static void forge_on_the_way(void *ctx, net_wire *w)
{
	static qg_kms_forward f;
	static qg_kms_forward_answer a;
	static uint8_t text[QG_KMS_DATA_MAX];
	if (w->kind != QG_KMS_FORWARD_KEYS || w->from != B || w->to != C)
		return;
	if (w->answer && w->status == 200) {
		net_record r;
		assert_true(net_record_get(w->net, w->record, &r) && net_forward_of(&r, &f));
		net_record_free(&r);
		assert_int_equal(qg_kms_forward_answer_decode(w->body, w->len, &a), QG_OK);
		if (a.result == QG_KMS_FORWARD_REFUSED || a.result == QG_KMS_FORWARD_NO_PAD)
			return;
		net_answer_mac(w->net, &f, &a);
		assert_int_equal(qg_kms_forward_answer_encode(&a, w->body, w->room, &w->len), QG_OK);
	} else if (!w->answer) {
		assert_int_equal(qg_kms_forward_decode(w->body, w->len, &f), QG_OK);
		assert_true(net_unmask(w->net, &f.masked, text));
		text[5] ^= 0x10;
		net_seal(w->net, &f, text);
		assert_int_equal(qg_kms_forward_encode(&f, w->body, w->room, &w->len), QG_OK);
		atomic_fetch_add((atomic_uint *)ctx, 1);
	}
}

static void test_a_hop_that_sends_other_key_is_found_out(void **state)
{
	(void)state;
	static atomic_uint forged;
	start_over_b();
	atomic_store(&forged, 0);
	net_set_hook(n, forge_on_the_way, &forged);
	/* What is delivered went over D. */
	for (unsigned i = 0; i < 500 && atomic_load(&forged) == 0; i++) {
		assert_true(net_deliver(n, A, C, 64, 32));
		pair_nap(20);
	}
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_in_range(atomic_load(&forged), 1, 2);
	assert_int_not_equal(bad_segments(A), 0);
	assert_int_not_equal(bad_segments(C), 0);
	assert_true(audited(C, "\"act\":\"destroyed\"") >= 1);
}

/* B passes on as it should, and then says that the far end holds other key. */
static void accuse_the_far_end(void *ctx, net_wire *w)
{
	static qg_kms_forward f;
	static qg_kms_forward_answer a;
	net_record r;
	if (w->kind != QG_KMS_FORWARD_KEYS || !w->answer || w->from != A || w->to != B || w->status != 200 ||
	    qg_kms_forward_answer_decode(w->body, w->len, &a) != QG_OK || a.result != QG_KMS_FORWARD_DELIVERED)
		return;
	a.result = QG_KMS_FORWARD_MISMATCH;
	assert_true(net_record_get(w->net, w->record, &r) && net_forward_of(&r, &f));
	net_record_free(&r);
	net_answer_mac(w->net, &f, &a);
	assert_int_equal(qg_kms_forward_answer_encode(&a, w->body, w->room, &w->len), QG_OK);
	atomic_fetch_add((atomic_uint *)ctx, 1);
}

static void test_a_hop_that_accuses_the_far_end_ends_no_epoch(void **state)
{
	(void)state;
	static atomic_uint lies;
	start_over_b();
	assert_true(net_forward_get(n, A, B, 0, &m));
	assert_true(epoch_fills(A) && epoch_fills(C));
	atomic_store(&lies, 0);
	net_set_hook(n, accuse_the_far_end, &lies);
	for (unsigned i = 0; i < 500 && atomic_load(&lies) == 0; i++) {
		assert_true(net_deliver(n, A, C, 64, 32));
		pair_nap(20);
	}
	assert_int_not_equal(atomic_load(&lies), 0);
	unsigned around = forwards_to(A, D);
	for (int i = 0; i < 8; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(forwards_to(A, D) > around);
	assert_true(epoch_fills(A) && epoch_fills(C));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_a_hop_whose_answers_do_not_verify_is_isolated),
		CASE(test_a_hop_whose_answers_are_changed_is_isolated),
		CASE(test_a_hop_that_refuses_all_is_isolated),
		CASE(test_a_hop_that_sends_other_key_is_found_out),
		CASE(test_a_hop_that_accuses_the_far_end_ends_no_epoch),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
