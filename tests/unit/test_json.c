/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "qkdgate/secret.h"
#include "seed.h"

static qg_err
parse(const char *text, struct json_t **out, qg_json_error *why)
{
	return qg_json_parse_object(text, strlen(text), out, why);
}

static void
test_accepts(void **state)
{
	(void)state;
	static const char *const good[] = {
		"{}",
		" \t\r\n{ } \n",
		"{\"a\":1}",
		"{\"a\":-9223372036854775808,\"b\":9223372036854775807}",
		"{\"a\":\"\\ud83d\\ude00 \xc3\xa9\",\"b\":[null,true,false,1.5e3]}",
		"{\"a\":\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"{{{{,,,,\"}",
		"{\"a\":{\"x\":1},\"b\":{\"x\":1}}",
	};
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		struct json_t *j = NULL;
		qg_json_error why;
		assert_int_equal(parse(good[i], &j, &why), QG_OK);
		assert_true(json_is_object(j));
		qg_json_free(&j);
		assert_null(j);
	}
}

static void
test_refuses(void **state)
{
	(void)state;
	static const struct {
		const char *text, *what, *member;
	} bad[] = {
		{"", "is not valid JSON", ""},
		{"  ", "is not valid JSON", ""},
		{"[]", "is not a JSON object", ""},
		{"[{}]", "is not a JSON object", ""},
		{"\"a\"", "is not valid JSON", ""},
		{"null", "is not valid JSON", ""},
		{"{", "is not valid JSON", ""},
		{"{\"a\":1", "is not valid JSON", ""},
		{"{\"a\":1}}", "is not valid JSON", ""},
		{"{\"a\":1}{}", "is not valid JSON", ""},
		{"{\"a\":1} x", "is not valid JSON", ""},
		{"{\"a\":NaN}", "is not valid JSON", ""},
		{"{\"a\":Infinity}", "is not valid JSON", ""},
		{"{\"a\":01}", "is not valid JSON", ""},
		{"{\"a\":+1}", "is not valid JSON", ""},
		{"{\"a\":1,}", "is not valid JSON", ""},
		{"{'a':1}", "is not valid JSON", ""},
		{"{\"a\":1/**/}", "is not valid JSON", ""},
		{"\xef\xbb\xbf{}", "is not valid JSON", ""},
		{"{\"a\":\"\xff\"}", "is not valid JSON", ""},
		{"{\"a\":\"\xc0\x80\"}", "is not valid JSON", ""},
		{"{\"a\":\"\xed\xa0\x80\"}", "is not valid JSON", ""},
		{"{\"a\":\"\\ud800\"}", "is not valid JSON", ""},
		{"{\"a\":\"\\u0000\"}", "is not valid JSON", ""},
		{"{\"a\\u0000b\":1}", "is not valid JSON", ""},
		{"{\"a\":\"\n\"}", "is not valid JSON", ""},
		{"{\"number\":1,\"number\":1}", "is a duplicate", "number"},
		{"{\"x\":{\"inner\":1, \"inner\" : 2}}", "is a duplicate", "inner"},
		{"{\"a\\n\":1,\"a\\n\":1}", "is a duplicate", ""},
		{"{\"number\":9223372036854775808}", "is out of range", "number"},
		{"{\"number\" : -99999999999999999999999}", "is out of range", "number"},
		{"{\"number\":1e999}", "is out of range", "number"},
		{"{\"a\":[1e999]}", "is out of range", ""},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		struct json_t *j = NULL;
		qg_json_error why;
		print_message("case %zu\n", i);
		assert_int_equal(parse(bad[i].text, &j, &why), QG_E_PARSE);
		assert_null(j);
		assert_string_equal(why.what, bad[i].what);
		assert_string_equal(why.member, bad[i].member);
	}
}

/* A member name that is as long as allowed is told, a longer one is not. */
static void
test_long_member(void **state)
{
	(void)state;
	for (size_t n = QG_JSON_MEMBER_MAX - 2; n <= QG_JSON_MEMBER_MAX; n++) {
		char name[QG_JSON_MEMBER_MAX + 1];
		char text[4 * sizeof name];
		memset(name, 'n', n);
		name[n] = '\0';
		const int len = snprintf(text, sizeof text, "{\"%s\":1,\"%s\":2}", name, name);
		assert_true(len > 0 && (size_t)len < sizeof text);
		struct json_t *j = NULL;
		qg_json_error why;
		assert_int_equal(parse(text, &j, &why), QG_E_PARSE);
		assert_string_equal(why.member, n < QG_JSON_MEMBER_MAX ? name : "");
	}
}

/* The buffer is no string: nothing behind len is read. */
static void
test_exact_length(void **state)
{
	(void)state;
	char *text = malloc(7);
	assert_non_null(text);
	memcpy(text, "{\"a\":1}", 7);
	struct json_t *j = NULL;
	qg_json_error why;
	assert_int_equal(qg_json_parse_object(text, 7, &j, &why), QG_OK);
	qg_json_free(&j);
	for (size_t n = 0; n < 7; n++) {
		char *cut = malloc(n + 1);
		assert_non_null(cut);
		char *end = realloc(cut, n > 0 ? n : 1);
		assert_non_null(end);
		memcpy(end, text, n);
		assert_int_equal(qg_json_parse_object(end, n, &j, &why), QG_E_PARSE);
		free(end);
	}
	free(text);
}

static char *
repeated(const char *head, const char *unit, size_t n, const char *tail)
{
	const size_t unit_len = strlen(unit);
	char *text = malloc(strlen(head) + n * unit_len + strlen(tail) + 1);
	assert_non_null(text);
	char *at = stpcpy(text, head);
	for (size_t i = 0; i < n; i++)
		at = stpcpy(at, unit);
	(void)stpcpy(at, tail);
	return text;
}

static qg_err
parse_repeated(const char *head, const char *unit, size_t n, const char *tail, qg_json_error *why)
{
	char *text = repeated(head, unit, n, tail);
	struct json_t *j = NULL;
	const qg_err err = parse(text, &j, why);
	qg_json_free(&j);
	free(text);
	return err;
}

static void
test_bombs(void **state)
{
	(void)state;
	qg_json_error why;
	/* one bracket more than allowed, a million of them, never closed */
	assert_int_equal(parse_repeated("{\"a\":", "[", 1000000, "", &why), QG_E_PARSE);
	assert_string_equal(why.what, "is nested too deeply");
	assert_int_equal(parse_repeated("{\"a\":", "{\"a\":", QG_JSON_DEPTH_MAX, "1}", &why), QG_E_PARSE);
	assert_string_equal(why.what, "is nested too deeply");
	/* many values: as many as allowed, and one more */
	assert_int_equal(parse_repeated("{\"a\":[0", ",0", QG_JSON_VALUES_MAX - 3, "]}", &why), QG_OK);
	assert_int_equal(parse_repeated("{\"a\":[0", ",0", QG_JSON_VALUES_MAX - 2, "]}", &why), QG_E_PARSE);
	assert_string_equal(why.what, "has too many values");
	assert_int_equal(parse_repeated("{\"a\":[{}", ",{}", 1000000, "]}", &why), QG_E_PARSE);
	assert_string_equal(why.what, "has too many values");
	/* as deep as allowed */
	char text[3 * QG_JSON_DEPTH_MAX + 16] = "{\"a\":";
	char *at = text + strlen(text);
	for (int i = 1; i < QG_JSON_DEPTH_MAX; i++)
		*at++ = '[';
	for (int i = 1; i < QG_JSON_DEPTH_MAX; i++)
		*at++ = ']';
	*at++ = '}';
	*at = '\0';
	struct json_t *j = NULL;
	assert_int_equal(parse(text, &j, &why), QG_OK);
	qg_json_free(&j);
}

/* Random changes of a good text never crash, and what is refused says why. */
static void
test_mutations(void **state)
{
	(void)state;
	static const char seed_text[] =
		"{\"number\":3,\"key_IDs\":[{\"key_ID\":\"00000000-0000-4000-8000-000000000000\"}],"
		"\"x\":-1.5e3}";
	uint32_t seed = test_seed();
	for (int round = 0; round < 20000; round++) {
		char text[sizeof seed_text];
		memcpy(text, seed_text, sizeof text);
		for (int k = 0; k < 3; k++) {
			seed = seed * 1664525u + 1013904223u;
			text[(seed >> 8) % (sizeof text - 1)] = (char)(seed >> 24);
		}
		struct json_t *j = NULL;
		qg_json_error why = {.what = NULL};
		const qg_err err = qg_json_parse_object(text, sizeof text - 1, &j, &why);
		assert_true(err == QG_OK || (err == QG_E_PARSE && why.what != NULL));
		qg_json_free(&j);
	}
}

/* The allocators are the wiping ones, and their blocks are those of malloc. */
static void
test_wiping(void **state)
{
	(void)state;
	json_malloc_t malloc_fn = NULL;
	json_free_t free_fn = NULL;
	json_get_alloc_funcs(&malloc_fn, &free_fn);
	assert_true(free_fn != free);
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	/* The allocator keeps the last block it was given and writes only the first
	 * 16 bytes of it; so it comes back, and what else it held is seen. */
	char *p = malloc_fn(200);
	assert_non_null(p);
	memset(p, 'S', 200);
	free_fn(p);
	char *q = malloc(200);
	assert_non_null(q);
	volatile char *seen = q;
	size_t left = 0;
	for (size_t i = 16; i < 200; i++)
		left += seen[i] == 'S';
	free(q);
	assert_int_equal(left, 0);
#endif
	free_fn(NULL);
	json_t *j = json_pack("{s:s}", "a", "b");
	assert_non_null(j);
	char *text = json_dumps(j, JSON_COMPACT);
	assert_string_equal(text, "{\"a\":\"b\"}");
	free(text);
	json_decref(j);
}

static void
test_free_nothing(void **state)
{
	(void)state;
	qg_json_free(NULL);
	struct json_t *j = NULL;
	qg_json_free(&j);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_accepts),
		cmocka_unit_test(test_refuses),
		cmocka_unit_test(test_long_member),
		cmocka_unit_test(test_exact_length),
		cmocka_unit_test(test_bombs),
		cmocka_unit_test(test_mutations),
		cmocka_unit_test(test_wiping),
		cmocka_unit_test(test_free_nothing),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
