/* SPDX-License-Identifier: Apache-2.0 */
/* The directory learned from the neighbour, over new_app and get_status. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "support/core_pair.c"

static core_pair *p;

static const char *const all[] = { "*" };
static const char *const erin[] = { "sae-erin" };

static int teardown(void **state)
{
	(void)state;
	pair_free(&p);
	return 0;
}

/* A pair whose directories are empty. */
static void start(const char *const *learn_a, const char *const *learn_b)
{
	const char *const *learn[] = { learn_a, learn_b };
	p = pair_new(NULL);
	for (int i = 0; i < 2; i++) {
		core_end *e = &p->end[i];
		e->cfg.n_directory = 0;
		e->neighbour.learn = learn[i];
		e->neighbour.n_learn = learn[i] == NULL ? 0 : 1;
		end_start(e);
	}
	assert_true(pair_wait_ready(p, 0, 32));
	assert_true(pair_wait_ready(p, 1, 32));
}

static void home_is(int side, const char *sae, const char *kme)
{
	const char *home = qg_directory_home(p->end[side].directory, sae);
	if (kme == NULL)
		assert_null(home);
	else
		assert_string_equal(home == NULL ? "unknown" : home, kme);
}

/* Issuing needs the slave's home, delivering the master's. */
static void learned_saes_share_keys(void **state)
{
	(void)state;
	start(all, all);
	home_is(0, "sae-bob", "KME-B");
	home_is(0, "sae-erin", "KME-B");
	home_is(1, "sae-alice", "KME-A");
	home_is(0, "sae-alice", "KME-A");
	home_is(0, "sae-nobody", NULL);
	for (int side = 0; side < 2; side++)
		assert_true(pair_deliver(p, side, 3, 32));
}

static void only_what_the_configuration_lets_it(void **state)
{
	(void)state;
	start(erin, NULL);
	home_is(0, "sae-erin", "KME-B");
	home_is(0, "sae-bob", NULL);
	home_is(1, "sae-alice", NULL);
	pair_keys *k = keys_new();
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, k), QG_E_NOTFOUND);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-erin", 1, 32, k), QG_OK);
	assert_int_equal(pair_issue(&p->end[1], "sae-bob", "sae-alice", 1, 32, k), QG_E_NOTFOUND);
	keys_free(&k);
}

static bool has_asked(core_pair *pair, void *ctx)
{
	(void)ctx;
	return qg_directory_home(pair->end[1].directory, "sae-dave") != NULL;
}

/* After a crash the epochs go on without a new_app; the status tells. */
static void learned_again_by_the_status(void **state)
{
	(void)state;
	start(all, all);
	end_crash(&p->end[1]);
	p->end[1].cfg.n_directory = 0;
	atomic_store(&p->end[1].sent[QG_KMS_NEW_APP], 0);
	atomic_store(&p->end[0].sent[QG_KMS_NEW_APP], 0);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, has_asked, NULL));
	home_is(1, "sae-alice", "KME-A");
	assert_int_equal(atomic_load(&p->end[0].sent[QG_KMS_NEW_APP]), 0);
	assert_true(atomic_load(&p->end[1].sent[QG_KMS_GET_STATUS]) > 0);
	for (int side = 0; side < 2; side++)
		assert_true(pair_deliver(p, side, 2, 32));
}

static void on_answer(void *ctx, int status, const char *body, size_t len)
{
	qg_kms_new_app_answer a;
	assert_int_equal(status, 200);
	assert_int_equal(qg_kms_new_app_answer_decode(body, len, &a), QG_OK);
	*(qg_kms_app_result *)ctx = a.result;
	assert_int_equal(a.saes.n, 0);
}

static void copy(char to[QG_KMS_NAME_MAX + 1], const char *text)
{
	memcpy(to, text, strlen(text) + 1);
}

/* One that is refused teaches nothing and is told nothing. */
static void a_refused_new_app_teaches_nothing(void **state)
{
	static const struct {
		const char *stream, *opener;
		uint32_t chunk_size;
		qg_kms_app_result want;
	} cases[] = {
		{ "a-to-b", "KME-A", 48, QG_KMS_APP_DISAGREE },
		{ "a-to-b", "KME-X", PAIR_CHUNK, QG_KMS_APP_DISAGREE },
		{ "none", "KME-A", PAIR_CHUNK, QG_KMS_APP_UNKNOWN_STREAM },
	};
	(void)state;
	start(all, all);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		qg_kms_new_app m = { .chunk_size = cases[i].chunk_size, .segment_chunks = PAIR_SEGMENT,
				     .inbound_chunks = 4096, .saes = { .n = 1, .id = { "sae-mallory" } } };
		qg_kms_app_result result = QG_KMS_APP_ACCEPTED;
		char text[4096];
		size_t len = 0;
		copy(m.peer, "KME-B");
		copy(m.stream, cases[i].stream);
		copy(m.opener, cases[i].opener);
		qg_uuid_random(&m.ksid);
		assert_int_equal(qg_kms_new_app_encode(&m, text, sizeof text, &len), QG_OK);
		qg_peers_receive(qg_core_peers(p->end[1].core), "KME-A", QG_KMS_NEW_APP, text, len, on_answer,
				 &result);
		assert_int_equal(result, cases[i].want);
		home_is(1, "sae-mallory", NULL);
		home_is(1, "sae-alice", "KME-A");
	}
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(learned_saes_share_keys),
		TEST(only_what_the_configuration_lets_it),
		TEST(learned_again_by_the_status),
		TEST(a_refused_new_app_teaches_nothing),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
