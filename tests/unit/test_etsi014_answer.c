/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of ETSI GS QKD 014: tables 9, 11 and 13 as JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../src/north/etsi014_internal.h"
#include "qkdgate/encode.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- key container --------------------------------------------------------------- */

static void
make_ids(qg_uuid *ids, size_t n)
{
	for (size_t i = 0; i < n; i++)
		qg_uuid_random(&ids[i]);
}

static qg_secret *
make_keys(size_t len)
{
	qg_secret *keys = NULL;
	assert_int_equal(qg_secret_new(len + 1, &keys), QG_OK);
	qg_random(keys->data, len);
	keys->len = len;
	return keys;
}

static void
test_container_exact(void **state)
{
	(void)state;
	static const qg_uuid ids[] = {{{0xAB, 0xCD, 0xEF, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}}, {{0}}};
	qg_secret *keys = make_keys(4);
	memcpy(keys->data, "\x00\xff\x10\x80", 4);
	qg_secret *body = NULL;
	assert_int_equal(qg_014_container(ids, 2, keys, NULL, 2, NULL, &body), QG_OK);
	static const char want[] = "{\"keys\":["
				   "{\"key_ID\":\"abcdef01-0203-0405-0607-08090a0b0c0d\",\"key\":\"AP8=\"},"
				   "{\"key_ID\":\"00000000-0000-0000-0000-000000000000\",\"key\":\"EIA=\"}]}";
	assert_int_equal(body->len, sizeof want - 1);
	assert_memory_equal(body->data, want, sizeof want - 1);
	qg_secret_free(&body);
	qg_secret_free(&keys);
}

/* Reads a container back and compares it with what went in. */
static void
check_container(const qg_secret *body, const qg_uuid *ids, size_t n, const qg_secret *keys,
		const uint16_t *sizes,
		uint32_t size)
{
	json_t *root = json_loadb((const char *)body->data, body->len, JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(root);
	assert_int_equal(json_object_size(root), 1);
	const json_t *array = json_object_get(root, "keys");
	assert_int_equal(json_array_size(array), n);
	const uint8_t *key = keys->data;
	for (size_t i = 0; i < n; i++) {
		const json_t *entry = json_array_get(array, i);
		assert_int_equal(json_object_size(entry), 2);
		char id[QG_UUID_TEXT];
		qg_uuid_format(&ids[i], id);
		assert_string_equal(json_string_value(json_object_get(entry, "key_ID")), id);
		const json_t *text = json_object_get(entry, "key");
		const size_t want = sizes != NULL ? sizes[i] : size;
		uint8_t got[4096];
		size_t got_len;
		assert_int_equal(qg_base64_decode(json_string_value(text), json_string_length(text), got,
						  sizeof got,
						  &got_len),
				 QG_OK);
		assert_int_equal(got_len, want);
		assert_memory_equal(got, key, want);
		key += want;
	}
	json_decref(root);
}

static void
test_container_sizes(void **state)
{
	(void)state;
	static const struct {
		size_t n;
		uint32_t size;
	} cases[] = {{1, 1}, {1, 2}, {1, 3}, {1, 32}, {1, 4095}, {2, 31}, {128, 32}, {128, 33}, {1024, 16},
		     {1024, 513}};
	static qg_uuid ids[QG_KEYSTORE_KEYS_MAX];
	for (size_t i = 0; i < COUNT(cases); i++) {
		const size_t n = cases[i].n;
		make_ids(ids, n);
		qg_secret *keys = make_keys(n * cases[i].size);
		qg_secret *body = NULL;
		assert_int_equal(qg_014_container(ids, n, keys, NULL, cases[i].size, NULL, &body), QG_OK);
		check_container(body, ids, n, keys, NULL, cases[i].size);
		qg_secret_free(&body);
		qg_secret_free(&keys);
	}
}

static void
test_container_mixed(void **state)
{
	(void)state;
	static const uint16_t sizes[] = {1, 32, 4095, 2, 8, 64};
	qg_uuid ids[COUNT(sizes)];
	size_t len = 0;
	for (size_t i = 0; i < COUNT(sizes); i++)
		len += sizes[i];
	make_ids(ids, COUNT(sizes));
	qg_secret *keys = make_keys(len);
	qg_secret *body = NULL;
	assert_int_equal(qg_014_container(ids, COUNT(sizes), keys, sizes, 0, NULL, &body), QG_OK);
	check_container(body, ids, COUNT(sizes), keys, sizes, 0);
	qg_secret_free(&body);
	qg_secret_free(&keys);
}

static void
expect_text(const qg_secret *body, const char *want)
{
	assert_int_equal(body->len, strlen(want));
	assert_memory_equal(body->data, want, body->len);
}

/* Only keys that passed a node say so, or all if that was asked. */
static void
test_container_hops(void **state)
{
	(void)state;
	static const qg_uuid ids[3] = {{{0}}, {{0}}, {{0}}};
	static const uint32_t of[] = {0, 14, UINT32_MAX};
#define ONE "{\"key_ID\":\"00000000-0000-0000-0000-000000000000\",\"key\":\"AA==\""
#define EXT(n) ",\"key_extension\":{\"hops\":" #n "}}"
	static const struct {
		qg_014_hops hops;
		const char *want;
	} cases[] = {
		{{NULL, false}, "{\"keys\":[" ONE "}," ONE "}," ONE "}]}"},
		{{NULL, true}, "{\"keys\":[" ONE EXT(0) "," ONE EXT(0) "," ONE EXT(0) "]}"},
		{{of, false}, "{\"keys\":[" ONE "}," ONE EXT(14) "," ONE EXT(4294967295) "]}"},
		{{of, true}, "{\"keys\":[" ONE EXT(0) "," ONE EXT(14) "," ONE EXT(4294967295) "]}"},
	};
	qg_secret *keys = make_keys(3);
	memset(keys->data, 0, 3);
	for (size_t i = 0; i < COUNT(cases); i++) {
		qg_secret *body = NULL;
		assert_int_equal(qg_014_container(ids, 3, keys, NULL, 1, &cases[i].hops, &body), QG_OK);
		expect_text(body, cases[i].want);
		qg_secret_free(&body);
	}
	qg_secret_free(&keys);
}

/* Keys that do not fit what is said of them are never put into an answer. */
static void
test_container_bad(void **state)
{
	(void)state;
	static qg_uuid ids[QG_KEYSTORE_KEYS_MAX + 1];
	static const uint16_t sizes[] = {32, 31};
	qg_secret *keys = make_keys(64);
	qg_secret *body = NULL;
	assert_int_equal(qg_014_container(ids, 2, NULL, NULL, 32, NULL, &body), QG_E_CORRUPT);
	assert_int_equal(qg_014_container(ids, 2, keys, NULL, 31, NULL, &body), QG_E_CORRUPT);
	assert_int_equal(qg_014_container(ids, 2, keys, NULL, 33, NULL, &body), QG_E_CORRUPT);
	assert_int_equal(qg_014_container(ids, 3, keys, NULL, 32, NULL, &body), QG_E_CORRUPT);
	assert_int_equal(qg_014_container(ids, 2, keys, sizes, 0, NULL, &body), QG_E_CORRUPT);
	assert_int_equal(qg_014_container(ids, 0, keys, NULL, 32, NULL, &body), QG_E_CORRUPT);
	assert_int_equal(qg_014_container(ids, QG_KEYSTORE_KEYS_MAX + 1, keys, NULL, 32, NULL, &body),
			 QG_E_CORRUPT);
	assert_int_equal(qg_014_container(ids, 1, keys, NULL, 65536, NULL, &body), QG_E_CORRUPT);
	assert_null(body);
	qg_secret_free(&keys);
}

/* --- Error --------------------------------------------------------------------------- */

static void
expect_error(const char *message, const char *const *details, size_t n, const char *want)
{
	char buf[512];
	const size_t len = strlen(want);
	assert_int_equal(qg_014_error_json(message, details, n, NULL, 0), len);
	memset(buf, '#', sizeof buf);
	assert_int_equal(qg_014_error_json(message, details, n, buf, sizeof buf), len);
	assert_memory_equal(buf, want, len);
	assert_int_equal(buf[len], '#');
	/* a smaller room is never left */
	for (size_t room = 0; room < len; room++) {
		memset(buf, '#', sizeof buf);
		assert_int_equal(qg_014_error_json(message, details, n, buf, room), len);
		assert_int_equal(buf[room], '#');
	}
}

static void
test_error(void **state)
{
	(void)state;
	static const char *const details[] = {"abc_route", "\"\\\n\x1f\xc3\xa9"};
	expect_error("size shall be a multiple of 8", NULL, 0,
		     "{\"message\":\"size shall be a multiple of 8\"}");
	expect_error("a\"b\\c\x01", NULL, 0, "{\"message\":\"a\\\"b\\\\c\\u0001\"}");
	expect_error("", NULL, 0, "{\"message\":\"\"}");
	expect_error("m", details, 1, "{\"message\":\"m\",\"details\":[{\"abc_route\":\"not supported\"}]}");
	expect_error("m", details, 2,
		     "{\"message\":\"m\",\"details\":[{\"abc_route\":\"not supported\"},"
		     "{\"\\\"\\\\\\u000a\\u001f\xc3\xa9\":\"not supported\"}]}");
}

static void
test_http_error(void **state)
{
	(void)state;
	char buf[64];
	assert_int_equal(qg_014_http_error(401, "anything", buf, sizeof buf), 0);
	const size_t len = qg_014_http_error(404, "not found", buf, sizeof buf);
	assert_int_equal(len, strlen("{\"message\":\"not found\"}"));
	assert_memory_equal(buf, "{\"message\":\"not found\"}", len);
	assert_int_equal(qg_014_http_error(404, "not found", buf, len - 1), 0);
}

/* --- Status -------------------------------------------------------------------------- */

static void
test_status(void **state)
{
	(void)state;
	const qg_014_status st = {
		.source_kme = "KME-A",
		.target_kme = "KME \"B\"",
		.master = "sae-\xc3\xa9",
		.slave = "urn:x\\y",
		.key_size = 256,
		.stored_key_count = UINT64_C(123456789012),
		.max_key_count = UINT64_C(9007199254740993),
		.max_key_per_request = 128,
		.max_key_size = 4096,
		.min_key_size = 64,
		.max_sae_id_count = 0,
	};
	static const char want[] =
		"{\"source_KME_ID\":\"KME-A\",\"target_KME_ID\":\"KME \\\"B\\\"\","
		"\"master_SAE_ID\":\"sae-\xc3\xa9\","
		"\"slave_SAE_ID\":\"urn:x\\\\y\",\"key_size\":256,\"stored_key_count\":123456789012,"
		"\"max_key_count\":9007199254740993,\"max_key_per_request\":128,\"max_key_size\":4096,"
		"\"min_key_size\":64,\"max_SAE_ID_count\":0}";
	char buf[512];
	assert_int_equal(qg_014_status_json(&st, NULL, 0), sizeof want - 1);
	assert_int_equal(qg_014_status_json(&st, buf, sizeof buf), sizeof want - 1);
	assert_memory_equal(buf, want, sizeof want - 1);
}

/* --- reasons ----------------------------------------------------------------------------- */

/* Whatever the keystore says, the audit has a text for it. */
static void
test_reasons(void **state)
{
	(void)state;
	for (int method = QG_014_STATUS; method <= QG_014_DEC; method++)
		for (int err = QG_OK + 1; err < QG_E_COUNT; err++)
			assert_non_null(qg_014_reason((qg_014_method)method, (qg_err)err));
	assert_string_equal(qg_014_reason(QG_014_DEC, QG_E_DENIED), "not authorised");
	assert_string_equal(qg_014_reason(QG_014_DEC, QG_E_NOTFOUND),
			    "one or more keys specified are not found on KME");
	assert_string_not_equal(qg_014_reason(QG_014_ENC, QG_E_NOTFOUND),
				qg_014_reason(QG_014_DEC, QG_E_NOTFOUND));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_container_exact), cmocka_unit_test(test_container_sizes),
		cmocka_unit_test(test_container_mixed), cmocka_unit_test(test_container_bad),
		cmocka_unit_test(test_container_hops),
		cmocka_unit_test(test_error),           cmocka_unit_test(test_http_error),
		cmocka_unit_test(test_status),          cmocka_unit_test(test_reasons),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
