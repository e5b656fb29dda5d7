/* SPDX-License-Identifier: Apache-2.0 */
/* Key streams of applications over lost, doubled and forged messages, crashes
 * and databases that were put back. */
#include "app_rig.h"
#include "seed.h"

static app_getting ga, gb;

static qg_uuid open_both(void)
{
	const qg_app_opened a = open_at(A, B, NULL);
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	return a.ksid;
}

/* What each end was given of each index: none ever has two values. */
#define LEDGER 4000
static uint8_t given[LEDGER][32];
static bool known[LEDGER];

static void enter(const app_getting *g)
{
	assert_true(g->got.index < LEDGER);
	if (known[g->got.index])
		assert_memory_equal(given[g->got.index], g->key, 32);
	memcpy(given[g->got.index], g->key, 32);
	known[g->got.index] = true;
}

/* Both ends, until each has it; statuses in between are of this world. */
static void fetch_both(const qg_uuid *ksid, uint32_t index)
{
	for (unsigned node = 0; node < 2; node++) {
		uint32_t status = UINT32_MAX;
		for (unsigned i = 0; i < 3000 && status != QG_ETSI004_SUCCESS; i++) {
			status = get_at(&ga, node, 0, ksid, index);
			assert_true(status == QG_ETSI004_SUCCESS || status == QG_ETSI004_TIMEOUT ||
				    status == QG_ETSI004_NO_KEY);
			if (status != QG_ETSI004_SUCCESS)
				pair_nap(10);
		}
		assert_int_equal(status, QG_ETSI004_SUCCESS);
		enter(&ga);
	}
}

static void forget_all(void)
{
	memset(known, 0, sizeof known);
}

/* --- the network -------------------------------------------------------------------------- */

static void test_lost_and_doubled_messages_change_nothing(void **state)
{
	(void)state;
	static const qg_kms_kind kinds[] = {QG_KMS_NEW_APP_STREAM, QG_KMS_NEW_APP_KEYS, QG_KMS_WANT_APP_KEYS,
					    QG_KMS_APP_STREAM_CLOSED};
	start_pair();
	forget_all();
	const qg_uuid ksid = open_both();
	for (uint32_t i = 0; i < 900; i += 100) {
		for (size_t k = 1; k < COUNT(kinds); k++) {
			for (unsigned from = 0; from < 2; from++) {
				net_fault *f = net_fault_of(n, from, 1 - from, kinds[k]);
				atomic_store(&f->twice, i % 200 == 0);
				atomic_store(&f->lose_answers, i % 300 == 100);
				atomic_store(&f->lose_requests, i % 300 == 200);
			}
		}
		fetch_both(&ksid, i);
	}
	for (uint32_t i = 0; i < 900; i++)
		fetch_both(&ksid, i);
	atomic_store(&net_fault_of(n, A, B, QG_KMS_APP_STREAM_CLOSED)->lose_answers, 1);
	assert_int_equal(close_at(A, 0, &ksid), QG_ETSI004_SUCCESS);
	assert_int_equal(close_at(B, 0, &ksid), QG_ETSI004_SUCCESS);
	for (unsigned i = 0; i < 3000 && qg_app_streams_count(apps(A)) + qg_app_streams_count(apps(B)) > 0; i++)
		pair_nap(10);
	assert_int_equal(qg_app_streams_count(apps(A)) + qg_app_streams_count(apps(B)), 0);
}

static void test_an_open_whose_telling_fails_is_status_4(void **state)
{
	(void)state;
	start_pair();
	net_down(n, A, B, true);
	assert_int_equal(open_at(A, B, NULL).status, QG_ETSI004_NO_CONNECTION);
	assert_int_equal(qg_app_streams_count(apps(A)), 0);
	net_down(n, A, B, false);
	/* B heard of it, A never learned that: B's application gets one of its own. */
	atomic_store(&net_fault_of(n, A, B, QG_KMS_NEW_APP_STREAM)->lose_answers, 1);
	assert_int_equal(open_at(A, B, NULL).status, QG_ETSI004_NO_CONNECTION);
	assert_int_equal(qg_app_streams_count(apps(B)), 1);
	const qg_app_opened b = open_at(B, A, NULL);
	assert_int_equal(b.status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_at(A, B, &b.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &b.ksid, 0, 10);
}

/* --- crashes -------------------------------------------------------------------------------- */

static void test_either_gateway_may_crash_at_any_time(void **state)
{
	(void)state;
	static const qg_etsi004_qos qos = {.chunk_size = 32, .timeout_ms = 500, .mimetype = ""};
	start_pair();
	forget_all();
	const qg_uuid ksid = open_end(open_begin(A, 0, NULL, uri(A, 0), uri(B, 0), &qos)).ksid;
	assert_int_equal(open_at(B, A, &ksid).status, QG_ETSI004_SUCCESS);
	srand(test_seed());
	uint32_t next = 0;
	for (unsigned round = 0; round < 6; round++) {
		const unsigned victim = (unsigned)rand() % 2;
		get_begin(&ga, A, 0, &ksid, next + 250, 0);
		get_begin(&gb, B, 0, &ksid, next + 250, 0);
		pair_nap((unsigned)rand() % 12);
		node_crash(&n->node[victim]);
		(void)get_end(&ga);
		(void)get_end(&gb);
		if (ga.got.status == QG_ETSI004_SUCCESS)
			enter(&ga);
		if (gb.got.status == QG_ETSI004_SUCCESS)
			enter(&gb);
		node_start(&n->node[victim]);
		for (uint32_t i = 0; i < 20; i++)
			fetch_both(&ksid, next + i * 12);
		next += 251;
	}
	for (uint32_t i = 0; i < next; i += 7)
		fetch_both(&ksid, i);
}

static void test_a_pair_on_one_node_lives_through_crashes(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_end(open_begin(A, 0, NULL, uri(A, 0), uri(A, 1), NULL));
	assert_int_equal(open_end(open_begin(A, 1, &a.ksid, uri(A, 1), uri(A, 0), NULL)).status,
			 QG_ETSI004_SUCCESS);
	static uint8_t was[200][32];
	for (uint32_t i = 0; i < 200; i++) {
		assert_int_equal(get_at(&ga, A, i % 2, &a.ksid, i), QG_ETSI004_SUCCESS);
		memcpy(was[i], ga.key, 32);
		if (i % 50 == 49) {
			node_crash(&n->node[A]);
			node_start(&n->node[A]);
		}
	}
	for (uint32_t i = 0; i < 200; i++) {
		assert_int_equal(get_at(&ga, A, 1 - i % 2, &a.ksid, i), QG_ETSI004_SUCCESS);
		assert_memory_equal(was[i], ga.key, 32);
	}
}

/* A waiting application keeps its KSID over a crash of either gateway. */
static void test_a_waiting_stream_lives_through_crashes(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_at(A, B, NULL);
	node_crash(&n->node[B]);
	node_start(&n->node[B]);
	node_crash(&n->node[A]);
	node_start(&n->node[A]);
	assert_int_equal(open_at(A, B, &a.ksid).status, QG_ETSI004_PEER_NOT_CONNECTED);
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &a.ksid, 0, 10);
}

static void test_a_database_put_back_ends_the_stream(void **state)
{
	(void)state;
	for (unsigned victim = 0; victim < 2; victim++) {
		start_pair();
		forget_all();
		const qg_uuid ksid = open_both();
		fetch_both(&ksid, 1);
		node_stop(&n->node[victim]);
		node_copy(&n->node[victim], "old", false);
		node_start(&n->node[victim]);
		compare(A, 0, B, 0, &ksid, 3, 500);
		node_stop(&n->node[victim]);
		node_put_back(&n->node[victim], "old", false);
		node_start(&n->node[victim]);
		assert_int_equal(get_at(&ga, victim, 0, &ksid, 0), QG_ETSI004_NO_CONNECTION);
		/* The other end has what it had, until it learns of it, and nothing new. */
		const uint32_t status = get_at(&gb, 1 - victim, 0, &ksid, 1);
		assert_true(status == QG_ETSI004_SUCCESS || status == QG_ETSI004_NO_CONNECTION);
		if (status == QG_ETSI004_SUCCESS)
			enter(&gb);
		get_begin(&gb, 1 - victim, 0, &ksid, 3000, 0);
		assert_int_not_equal(get_end(&gb), QG_ETSI004_SUCCESS);
		net_free(&n);
	}
}

static void test_commits_that_fail_give_nothing_out(void **state)
{
	(void)state;
	start_pair();
	const qg_etsi004_qos qos = {.chunk_size = 32, .timeout_ms = 800, .mimetype = ""};
	for (unsigned victim = 0; victim < 2; victim++) {
		const qg_app_opened a = open_end(open_begin(A, 0, NULL, uri(A, 0), uri(B, 0), &qos));
		assert_int_equal(a.status, QG_ETSI004_SUCCESS);
		assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
		compare(A, 0, B, 0, &a.ksid, 0, 3);
		atomic_store(&n->node[victim].store.fault, FAULT_FAILS);
		get_begin(&ga, A, 0, &a.ksid, 3000, 0);
		get_begin(&gb, B, 0, &a.ksid, 3000, 0);
		assert_int_not_equal(get_end(&ga), QG_ETSI004_SUCCESS);
		assert_int_not_equal(get_end(&gb), QG_ETSI004_SUCCESS);
		assert_int_equal(open_at(victim, 1 - victim, NULL).status, QG_ETSI004_NO_CONNECTION);
		atomic_store(&n->node[victim].store.fault, FAULT_NONE);
	}
}

/* --- forgery ------------------------------------------------------------------------------------- */

typedef struct forger {
	unsigned what;
	atomic_uint done;
} forger;

static void rewrite(net_wire *w, const qg_kms_app_keys *m)
{
	size_t len = 0;
	assert_int_equal(qg_kms_app_keys_encode(m, w->body, w->room, &len), QG_OK);
	w->len = len;
}

static void forge(void *ctx, net_wire *w)
{
	forger *f = ctx;
	qg_kms_app_keys m;
	if (w->kind != QG_KMS_NEW_APP_KEYS || atomic_load(&f->done) > 0)
		return;
	if (w->answer) {
		qg_kms_app_keys_answer a;
		if (f->what != 7 || qg_kms_app_keys_answer_decode(w->body, w->len, &a) != QG_OK ||
		    a.result != QG_KMS_APP_KEYS_HELD)
			return;
		a.mac[3] ^= 1;
		size_t len = 0;
		assert_int_equal(qg_kms_app_keys_answer_encode(&a, w->body, w->room, &len), QG_OK);
		w->len = len;
		atomic_fetch_add(&f->done, 1);
		return;
	}
	if (f->what == 7)
		return;
	assert_int_equal(qg_kms_app_keys_decode(w->body, w->len, &m), QG_OK);
	const qg_uuid first = m.id[0];
	switch (f->what) {
	case 0: /* other chunks */
		m.id[0] = m.id[m.n - 1];
		m.id[m.n - 1] = first;
		if (m.n == 1)
			m.mac[0] ^= 1;
		break;
	case 1:
		m.mac[15] ^= 0x80;
		break;
	case 2:
		m.hops += 3;
		break;
	case 3:
		m.serial += 1;
		break;
	case 4:
		m.id[0].b[0] ^= 4;
		break;
	case 5: /* one chunk of half the number */
		m.key_size = m.key_size > 65 ? m.key_size - 1 : m.key_size;
		m.count = (uint32_t)((m.n * m.key_size - QG_KMS_MAC_OVERHEAD) / m.chunk_size);
		break;
	default:
		m.count -= m.count > 1;
		m.key_size = (uint32_t)((QG_KMS_MAC_OVERHEAD + (uint64_t)m.count * m.chunk_size + m.n - 1) / m.n);
		break;
	}
	rewrite(w, &m);
	atomic_fetch_add(&f->done, 1);
}

/* Whoever breaks TLS can cost keys, but not make the two ends disagree. */
static void test_forged_messages_never_make_ends_disagree(void **state)
{
	(void)state;
	start_pair();
	for (unsigned what = 0; what < 8; what++) {
		forger f = {.what = what};
		forget_all();
		const qg_uuid ksid = open_both();
		net_set_hook(n, forge, &f);
		for (uint32_t i = 0; i < 200; i += 9)
			fetch_both(&ksid, i);
		net_set_hook(n, NULL, NULL);
		assert_int_equal(atomic_load(&f.done), 1);
	}
}

/* Whether node knows the stream and told the other of it; with_key: holds key of it. */
static bool looks(unsigned node, const qg_uuid *ksid, bool with_key)
{
	struct qg_app_streams *all = apps(node);
	pthread_mutex_lock(&all->lock);
	const qg_as_stream *st = qg_as_find(all, ksid);
	const bool is = st != NULL && (with_key ? st->n_block > 0 : !st->announcing);
	pthread_mutex_unlock(&all->lock);
	return is;
}

static bool looks_soon(unsigned node, const qg_uuid *ksid, bool with_key)
{
	for (unsigned i = 0; i < 3000 && !looks(node, ksid, with_key); i++)
		pair_nap(1);
	return looks(node, ksid, with_key);
}

typedef struct enlarger {
	qg_uuid ksid;
	atomic_uint done;
} enlarger;

/* Key is drawn in A while this answer is on its way to it. */
static void enlarge(void *ctx, net_wire *w)
{
	enlarger *e = ctx;
	qg_kms_app_stream_answer a;
	if (w->kind != QG_KMS_NEW_APP_STREAM || !w->answer || !looks_soon(A, &e->ksid, true))
		return;
	assert_int_equal(qg_kms_app_stream_answer_decode(w->body, w->len, &a), QG_OK);
	a.qos.chunk_size *= 2;
	size_t len = 0;
	assert_int_equal(qg_kms_app_stream_answer_encode(&a, w->body, w->room, &len), QG_OK);
	w->len = len;
	atomic_fetch_add(&e->done, 1);
}

/* A, whose stream it was, forgets it in a crash before it is stored and is told of it by
 * B; so it draws key already when it tells B that its application is back. */
static void test_chunks_keep_the_size_that_they_were_made_with(void **state)
{
	(void)state;
	enlarger e = {.done = 0};
	start_pair();
	forget_all();
	qg_uuid_random(&e.ksid);
	app_opening *a = open_begin(A, 0, &e.ksid, uri(A, 0), uri(B, 0), NULL);
	assert_true(looks_soon(B, &e.ksid, false) && looks_soon(A, &e.ksid, false));
	node_crash(&n->node[A]);
	(void)open_end(a);
	node_start(&n->node[A]);
	assert_int_equal(qg_app_streams_count(apps(A)), 0);
	app_opening *b = open_begin(B, 0, &e.ksid, uri(B, 0), uri(A, 0), NULL);
	assert_true(looks_soon(A, &e.ksid, false) && looks_soon(B, &e.ksid, false));
	net_set_hook(n, enlarge, &e);
	const qg_app_opened got = open_at(A, B, &e.ksid);
	net_set_hook(n, NULL, NULL);
	assert_int_equal(atomic_load(&e.done), 1);
	assert_int_equal(got.status, QG_ETSI004_SUCCESS);
	assert_int_equal(got.qos.chunk_size, 32);
	assert_int_equal(open_end(b).status, QG_ETSI004_SUCCESS);
	for (uint32_t i = 0; i < 20; i++)
		fetch_both(&e.ksid, i);
}

static unsigned inject_keys(const qg_kms_app_keys *m, unsigned from, unsigned to)
{
	static char body[QG_KMS_MSG_MAX];
	static net_answer answer;
	qg_kms_app_keys_answer a;
	size_t len = 0;
	assert_int_equal(qg_kms_app_keys_encode(m, body, sizeof body, &len), QG_OK);
	net_inject(n, from, to, QG_KMS_NEW_APP_KEYS, body, len, &answer);
	assert_int_equal(answer.status, 200);
	assert_int_equal(qg_kms_app_keys_answer_decode(answer.body, answer.len, &a), QG_OK);
	return a.result;
}

static void test_messages_of_another_neighbour_are_not_taken(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3); /* A - B - C: B has two neighbours */
	plan_apps(&pl);
	run_apps();
	assert_true(net_wait_ready(n, A, B, 64));
	const qg_uuid ksid = open_both();
	compare(A, 0, B, 0, &ksid, 0, 10);
	qg_kms_app_keys m = {.ksid = ksid, .serial = 900, .first = 0, .count = 1, .chunk_size = 32, .key_size = 96, .n = 1};
	qg_uuid_random(&m.id[0]);
	assert_int_equal(inject_keys(&m, C, B), QG_KMS_APP_KEYS_UNKNOWN);
	static net_answer answer;
	char body[512];
	size_t len = 0;
	const qg_kms_app_closed closed = {.ksid = ksid, .whole = true};
	assert_int_equal(qg_kms_app_closed_encode(&closed, body, sizeof body, &len), QG_OK);
	net_inject(n, C, B, QG_KMS_APP_STREAM_CLOSED, body, len, &answer);
	assert_int_equal(answer.status, 200);
	const qg_kms_app_want want = {.ksid = ksid, .until = 7};
	assert_int_equal(qg_kms_app_want_encode(&want, body, sizeof body, &len), QG_OK);
	net_inject(n, C, B, QG_KMS_WANT_APP_KEYS, body, len, &answer);
	assert_non_null(strstr(answer.body, "unknown"));
	/* It names a source that lives elsewhere, or a stream that is not its own. */
	qg_kms_app_stream open = {.ksid = ksid, .qos = {.chunk_size = 32}};
	snprintf(open.source, sizeof open.source, "%s", uri(A, 0));
	snprintf(open.destination, sizeof open.destination, "%s", uri(B, 0));
	snprintf(open.sae, sizeof open.sae, "sae-a");
	for (unsigned i = 0; i < 2; i++) {
		if (i == 1)
			snprintf(open.sae, sizeof open.sae, "sae-c");
		assert_int_equal(qg_kms_app_stream_encode(&open, body, sizeof body, &len), QG_OK);
		net_inject(n, C, B, QG_KMS_NEW_APP_STREAM, body, len, &answer);
		assert_int_equal(answer.status, 200);
		assert_non_null(strstr(answer.body, i == 0 ? "unknown" : "in_use"));
	}
	for (qg_kms_kind k = QG_KMS_NEW_APP_STREAM; k < QG_KMS_KINDS; k++) {
		net_inject(n, A, B, k, "{\"version\":1}", 13, &answer);
		assert_int_equal(answer.status, 400);
	}
	compare(A, 0, B, 0, &ksid, 0, 300);
	assert_int_equal(get_at(&gb, B, 0, &ksid, 0), QG_ETSI004_SUCCESS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lost_and_doubled_messages_change_nothing),
		TEST(test_an_open_whose_telling_fails_is_status_4),
		TEST(test_either_gateway_may_crash_at_any_time),
		TEST(test_a_pair_on_one_node_lives_through_crashes),
		TEST(test_a_waiting_stream_lives_through_crashes),
		TEST(test_a_database_put_back_ends_the_stream),
		TEST(test_commits_that_fail_give_nothing_out),
		TEST(test_forged_messages_never_make_ends_disagree),
		TEST(test_chunks_keep_the_size_that_they_were_made_with),
		TEST(test_messages_of_another_neighbour_are_not_taken),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
