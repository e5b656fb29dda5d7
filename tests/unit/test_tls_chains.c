/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>

#include "../../src/platform/tls_internal.h"
#include "qkdgate/secret.h"

#define NOW 1000

static qg_tls_identity
identity(const char *cn)
{
	qg_tls_identity id = {0};
	strcpy(id.cn, cn);
	memset(id.fingerprint, 'a', 64);
	return id;
}

static qg_chain_key
key_of(const qg_chains *c, const char *text)
{
	qg_chain_key key;
	const qg_chain_part part = {.data = (const uint8_t *)text, .len = strlen(text)};
	qg_chains_key(c, &part, 1, &key);
	return key;
}

static qg_chain_key
key_at(const qg_chains *c, unsigned i)
{
	char text[16];
	snprintf(text, sizeof text, "chain %u", i);
	return key_of(c, text);
}

static void
keeps_what_a_certificate_says(void **state)
{
	(void)state;
	qg_chains *c = NULL;
	assert_int_equal(qg_chains_new(64, &c), QG_OK);
	static qg_tls_identity full, out;
	full = identity("");
	full.n_uri = full.n_dns = QG_TLS_NAMES_MAX;
	for (size_t i = 0; i < QG_TLS_NAMES_MAX; i++) {
		memset(full.uri[i], 'a' + (int)i, QG_TLS_NAME_MAX - 1);
		memset(full.dns[i], 'A' + (int)i, i + 1);
	}
	memset(full.cn, 'n', QG_TLS_NAME_MAX - 1);
	const qg_chain_key a = key_of(c, "a"), b = key_of(c, "b");
	qg_tls_identity none = identity("");
	qg_chains_put(c, &a, 0, INT64_MAX, &full);
	qg_chains_put(c, &b, 0, INT64_MAX, &none);
	memset(&out, 0, sizeof out);
	assert_true(qg_chains_find(c, &a, NOW, &out));
	assert_memory_equal(&out, &full, sizeof out);
	assert_true(qg_chains_find(c, &a, NOW, NULL));
	/* What an earlier one said must not shine through. */
	assert_true(qg_chains_find(c, &b, NOW, &out));
	assert_int_equal(out.n_uri + out.n_dns, 0);
	assert_string_equal(out.cn, "");
	qg_chains_free(&c);
	assert_null(c);
	qg_chains_free(&c);
}

static void
knows_only_the_same_chain(void **state)
{
	(void)state;
	qg_chains *c = NULL, *other = NULL;
	assert_int_equal(qg_chains_new(64, &c), QG_OK);
	assert_int_equal(qg_chains_new(64, &other), QG_OK);
	const qg_chain_part ab_c[] = {{(const uint8_t *)"ab", 2}, {(const uint8_t *)"c", 1}};
	const qg_chain_part a_bc[] = {{(const uint8_t *)"a", 1}, {(const uint8_t *)"bc", 2}};
	const qg_chain_part c_ab[] = {ab_c[1], ab_c[0]};
	const qg_tls_identity id = identity("alice");
	qg_chain_key key, twin;
	qg_chains_key(c, ab_c, 2, &key);
	qg_chains_put(c, &key, 0, INT64_MAX, &id);
	assert_true(qg_chains_find(c, &key, NOW, NULL));
	qg_chains_key(c, a_bc, 2, &twin);
	assert_false(qg_chains_find(c, &twin, NOW, NULL));
	qg_chains_key(c, c_ab, 2, &twin);
	assert_false(qg_chains_find(c, &twin, NOW, NULL));
	qg_chains_key(c, ab_c, 1, &twin);
	assert_false(qg_chains_find(c, &twin, NOW, NULL));
	/* The hash is keyed: nobody knows which chains meet in one set. */
	qg_chains_key(other, ab_c, 2, &twin);
	assert_memory_not_equal(&twin, &key, sizeof key);
	assert_false(qg_chains_find(other, &key, NOW, NULL));
	/* One whose key differs in the last bit alone stands in the same set. */
	twin = key;
	twin.b[31] ^= 1;
	assert_false(qg_chains_find(c, &twin, NOW, NULL));
	qg_chains_free(&c);
	qg_chains_free(&other);
}

static void
forgets_what_no_longer_holds(void **state)
{
	(void)state;
	static const struct {
		int64_t from_s, until_s;
		bool holds;
	} cases[] = {
		{NOW - 1, NOW + 1, true},  {NOW, NOW + 1, false}, {NOW - 1, NOW, false},
		{NOW + 1, NOW + 9, false}, {0, NOW - 1, false},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		qg_chains *c = NULL;
		const qg_tls_identity id = identity("alice");
		assert_int_equal(qg_chains_new(64, &c), QG_OK);
		const qg_chain_key key = key_of(c, "a");
		qg_chains_put(c, &key, cases[i].from_s, cases[i].until_s, &id);
		assert_int_equal(qg_chains_find(c, &key, NOW, NULL), cases[i].holds);
		/* The clock goes back: gone is gone. */
		const int64_t within = cases[i].from_s + 1 < cases[i].until_s ? cases[i].from_s + 1 : NOW;
		assert_int_equal(qg_chains_find(c, &key, within, NULL), cases[i].holds && within == NOW);
		qg_chains_free(&c);
	}
}

/* However many there are, so many and no more are kept, and never a wrong one. */
static void
is_bounded(void **state)
{
	(void)state;
	enum { MOST = 64, N = 4000 };
	qg_chains *c = NULL;
	assert_int_equal(qg_chains_new(MOST, &c), QG_OK);
	char cn[16];
	for (unsigned i = 0; i < N; i++) {
		const qg_chain_key key = key_at(c, i);
		snprintf(cn, sizeof cn, "%u", i);
		const qg_tls_identity id = identity(cn);
		qg_chains_put(c, &key, 0, INT64_MAX, &id);
		qg_chains_put(c, &key, 0, INT64_MAX, &id); /* in its own place again */
		assert_true(qg_chains_find(c, &key, NOW, NULL));
	}
	unsigned kept = 0;
	static qg_tls_identity out;
	for (unsigned i = 0; i < N; i++) {
		const qg_chain_key key = key_at(c, i);
		if (!qg_chains_find(c, &key, NOW, &out))
			continue;
		snprintf(cn, sizeof cn, "%u", i);
		assert_string_equal(out.cn, cn);
		kept++;
	}
	assert_in_range(kept, MOST / 2, MOST);
	qg_chains_free(&c);
}

/* In the one set of the smallest cache. */
static void
gives_up_the_one_not_used_for_longest(void **state)
{
	(void)state;
	qg_chains *c = NULL;
	const qg_tls_identity id = identity("alice");
	assert_int_equal(qg_chains_new(4, &c), QG_OK);
	for (unsigned i = 0; i < 4; i++) {
		const qg_chain_key key = key_at(c, i);
		qg_chains_put(c, &key, 0, INT64_MAX, &id);
	}
	const qg_chain_key first = key_at(c, 0), second = key_at(c, 1), fifth = key_at(c, 4);
	assert_true(qg_chains_find(c, &first, NOW, NULL));
	qg_chains_put(c, &fifth, 0, INT64_MAX, &id);
	assert_true(qg_chains_find(c, &first, NOW, NULL));
	assert_true(qg_chains_find(c, &fifth, NOW, NULL));
	assert_false(qg_chains_find(c, &second, NOW, NULL));
	qg_chains_free(&c);
}

static void *
use_it(void *arg)
{
	qg_chains *c = arg;
	static _Thread_local qg_tls_identity out;
	for (unsigned i = 0; i < 3000; i++) {
		const qg_chain_key key = key_at(c, i % 97);
		char cn[16];
		snprintf(cn, sizeof cn, "%u", i % 97);
		if (qg_chains_find(c, &key, NOW, &out)) {
			assert_string_equal(out.cn, cn);
			continue;
		}
		const qg_tls_identity id = identity(cn);
		qg_chains_put(c, &key, 0, INT64_MAX, &id);
	}
	return NULL;
}

static void
serves_many_threads(void **state)
{
	(void)state;
	qg_chains *c = NULL;
	pthread_t threads[4];
	assert_int_equal(qg_chains_new(64, &c), QG_OK);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, use_it, c), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	qg_chains_free(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keeps_what_a_certificate_says),
		cmocka_unit_test(knows_only_the_same_chain),
		cmocka_unit_test(forgets_what_no_longer_holds),
		cmocka_unit_test(is_bounded),
		cmocka_unit_test(gives_up_the_one_not_used_for_longest),
		cmocka_unit_test(serves_many_threads),
	};
	return qg_secret_init() == QG_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
