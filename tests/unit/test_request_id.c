/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/request_id.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/secret.h"

static void
good_ones_are_taken(void **state)
{
	(void)state;
	char longest[QG_REQUEST_ID_MAX + 1];
	memset(longest, 'z', QG_REQUEST_ID_MAX);
	longest[QG_REQUEST_ID_MAX] = '\0';
	const char *const good[] = {"a", "0", ".", "_", "-", "7c9e6679-7425-40de-944b-e07fc1f90ae7", "Az09._-", longest};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		qg_request_id id;
		qg_request_id_take(&id, good[i]);
		assert_true(id.given);
		assert_string_equal(id.text, good[i]);
	}
}

/* Each would otherwise stand in a log line, in JSON, or in a header. */
static void
bad_ones_are_made_anew(void **state)
{
	(void)state;
	static char huge[10 * 1024];
	char too_long[QG_REQUEST_ID_MAX + 2];
	memset(huge, 'a', sizeof huge - 1);
	memset(too_long, 'a', sizeof too_long - 1);
	too_long[sizeof too_long - 1] = '\0';
	const char *const bad[] = {NULL, "", " ", "a b", " a", "a ", "a\nb", "a\r\nX-Evil: 1", "a\tb", "\"", "a\"b", "a\\b",
				   "a'b", "a=b", "a,b", "{}", "<b>", "%0a", "\x01", "\x7f", "\xc3\xa9", "a/b", "a:b",
				   "\x1b[31m", too_long, huge};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		qg_request_id id;
		qg_request_id_take(&id, bad[i]);
		assert_false(id.given);
		assert_int_equal(strlen(id.text), 32);
		assert_int_equal(strspn(id.text, "0123456789abcdef"), 32);
	}
}

#define THREADS 4
#define EACH 2000

static void *
make_many(void *arg)
{
	qg_request_id *ids = arg;
	for (size_t i = 0; i < EACH; i++)
		qg_request_id_make(&ids[i]);
	return NULL;
}

static int
by_text(const void *a, const void *b)
{
	return strcmp(((const qg_request_id *)a)->text, ((const qg_request_id *)b)->text);
}

static void
no_two_are_the_same(void **state)
{
	(void)state;
	static qg_request_id ids[THREADS * EACH];
	pthread_t t[THREADS];
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, make_many, ids + i * EACH), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	qsort(ids, THREADS * EACH, sizeof ids[0], by_text);
	for (size_t i = 1; i < THREADS * EACH; i++)
		assert_int_not_equal(strcmp(ids[i - 1].text, ids[i].text), 0);
}

static void *
sees_none(void *arg)
{
	(void)arg;
	return qg_request_id_now().text[0] == '\0' ? arg : NULL;
}

static void
a_thread_has_its_own(void **state)
{
	(void)state;
	qg_request_id outer, inner;
	pthread_t t;
	void *none = NULL;
	assert_string_equal(qg_request_id_now().text, "");
	qg_request_id_take(&outer, "outer");
	qg_request_id_make(&inner);
	assert_null(qg_request_id_enter(&outer));
	assert_string_equal(qg_request_id_now().text, "outer");
	assert_true(qg_request_id_now().given);
	const qg_request_id *before = qg_request_id_enter(&inner);
	assert_string_equal(qg_request_id_now_or_new().text, inner.text);
	assert_int_equal(pthread_create(&t, NULL, sees_none, &outer), 0);
	assert_int_equal(pthread_join(t, &none), 0);
	assert_ptr_equal(none, &outer);
	(void)qg_request_id_enter(before);
	assert_string_equal(qg_request_id_now().text, "outer");
	(void)qg_request_id_enter(NULL);
	assert_string_equal(qg_request_id_now().text, "");
	assert_int_equal(strlen(qg_request_id_now_or_new().text), 32);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_ones_are_taken),
		cmocka_unit_test(bad_ones_are_made_anew),
		cmocka_unit_test(no_two_are_the_same),
		cmocka_unit_test(a_thread_has_its_own),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests_name("request_id", tests, NULL, NULL);
}
