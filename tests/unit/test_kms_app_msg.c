/* SPDX-License-Identifier: Apache-2.0 */
/* The messages about key streams of applications: there and back, and what is
 * not taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/kms_app_msg.h"

static char text[QG_KMS_MSG_MAX], again[QG_KMS_MSG_MAX];
static size_t len, again_len;

/* What was decoded says the same: gaps in a struct may differ. */
#define SAME_AGAIN(encode, back)                                                      \
	do {                                                                          \
		assert_int_equal(encode(back, again, sizeof again, &again_len), QG_OK); \
		assert_int_equal(again_len, len);                                     \
		assert_memory_equal(again, text, len);                                \
	} while (0)

static const qg_uuid ksid = {{0x46, 0xc8, 0xa6, 0x8c, 0x21, 0x21, 0x4f, 0x92, 0xa7, 0xc9, 0x27, 0xef, 0x9f, 0xb6, 0xf9,
			      0xf6}};
static const qg_kms_app_qos qos = {.chunk_size = 32, .max_bps = 100, .min_bps = 5, .jitter_bps = 6, .priority = 7,
				   .timeout_ms = 8, .ttl_s = 9, .metadata = true};

static qg_kms_app_stream stream_sample(void)
{
	return (qg_kms_app_stream){.ksid = ksid, .fresh = true, .owns = true, .source = "qkd://alice@KME-A",
				   .destination = "qkd://bob@KME-B", .sae = "sae-alice", .qos = qos};
}

static qg_kms_app_keys keys_sample(void)
{
	qg_kms_app_keys m = {.ksid = ksid, .serial = 3, .first = 128, .count = 30, .chunk_size = 32, .key_size = 512,
			     .hops = 1, .n = 2};
	for (unsigned i = 0; i < 16; i++) {
		m.id[0].b[i] = (uint8_t)i;
		m.id[1].b[i] = (uint8_t)(0xf0 + i);
		m.mac[i] = (uint8_t)(3 * i);
	}
	return m;
}

static void test_new_app_stream(void **state)
{
	(void)state;
	const qg_kms_app_stream m = stream_sample();
	static qg_kms_app_stream back;
	static const char want[] =
		"{\"version\":1,\"ksid\":\"46c8a68c-2121-4f92-a7c9-27ef9fb6f9f6\",\"fresh\":true,\"owns\":true,"
		"\"source\":\"qkd://alice@KME-A\",\"destination\":\"qkd://bob@KME-B\",\"sae\":\"sae-alice\","
		"\"chunk_size\":32,\"max_bps\":100,\"min_bps\":5,\"jitter_bps\":6,\"priority\":7,\"timeout_ms\":8,"
		"\"ttl_s\":9,\"metadata\":true}";
	assert_int_equal(qg_kms_app_stream_encode(&m, text, sizeof text, &len), QG_OK);
	assert_int_equal(len, sizeof want - 1);
	assert_memory_equal(text, want, len);
	assert_int_equal(qg_kms_app_stream_decode(text, len, &back), QG_OK);
	SAME_AGAIN(qg_kms_app_stream_encode, &back);
	qg_kms_app_stream bad = m;
	memset(&bad.ksid, 0, sizeof bad.ksid);
	assert_int_equal(qg_kms_app_stream_encode(&bad, text, sizeof text, &len), QG_E_INVAL);
	bad = m;
	bad.qos.chunk_size = 0;
	assert_int_equal(qg_kms_app_stream_encode(&bad, text, sizeof text, &len), QG_E_INVAL);
	bad = m;
	bad.source[0] = '\0';
	assert_int_equal(qg_kms_app_stream_encode(&bad, text, sizeof text, &len), QG_E_INVAL);
}

static void test_new_app_stream_answer(void **state)
{
	(void)state;
	for (unsigned r = QG_KMS_APP_STREAM_WAITING; r <= QG_KMS_APP_STREAM_FULL; r++) {
		qg_kms_app_stream_answer a = {.result = (qg_kms_app_stream_result)r}, back;
		if (r == QG_KMS_APP_STREAM_OTHER)
			a.ksid = ksid;
		if (r <= QG_KMS_APP_STREAM_JOINED) {
			a.owner = (uint8_t)r;
			a.qos = qos;
			memcpy(a.sae, "sae-bob", 8);
		}
		assert_int_equal(qg_kms_app_stream_answer_encode(&a, text, sizeof text, &len), QG_OK);
		assert_int_equal(qg_kms_app_stream_answer_decode(text, len, &back), QG_OK);
		SAME_AGAIN(qg_kms_app_stream_answer_encode, &back);
		/* What goes with another result is one member too many, or too few. */
		assert_int_equal(strstr(text, "ksid") != NULL && strstr(text, "ksid") < text + len,
				 r == QG_KMS_APP_STREAM_OTHER);
	}
	static const char *const bad[] = {
		"{\"version\":1,\"result\":\"waiting\"}", "{\"version\":1,\"result\":\"other\"}",
		"{\"version\":1,\"result\":\"full\",\"owner\":\"sender\"}", "{\"version\":1,\"result\":\"perhaps\"}",
		"{\"version\":1,\"result\":\"other\",\"ksid\":\"00000000-0000-0000-0000-000000000000\"}"};
	qg_kms_app_stream_answer a;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(qg_kms_app_stream_answer_decode(bad[i], strlen(bad[i]), &a), QG_E_PARSE);
}

static void test_new_app_keys(void **state)
{
	(void)state;
	const qg_kms_app_keys m = keys_sample();
	static qg_kms_app_keys back;
	assert_int_equal(qg_kms_app_keys_encode(&m, text, sizeof text, &len), QG_OK);
	assert_int_equal(qg_kms_app_keys_decode(text, len, &back), QG_OK);
	SAME_AGAIN(qg_kms_app_keys_encode, &back);
	for (unsigned what = 0; what < 8; what++) {
		qg_kms_app_keys bad = m;
		if (what == 0)
			bad.count = 31; /* 64 + 31 * 32 are more than two keys */
		else if (what == 1)
			bad.count = 14; /* one key would do */
		else if (what == 2)
			bad.id[1] = bad.id[0];
		else if (what == 3)
			bad.n = 0;
		else if (what == 4)
			bad.first = UINT32_MAX - 29;
		else if (what == 5)
			bad.serial = 0;
		else if (what == 6)
			bad.key_size = 4096;
		else
			bad.chunk_size = 0;
		assert_int_equal(qg_kms_app_keys_encode(&bad, text, sizeof text, &len), QG_E_INVAL);
	}
	qg_kms_app_keys_answer a = {.result = QG_KMS_APP_KEYS_HELD, .mac = {1, 2, 3}}, b;
	assert_int_equal(qg_kms_app_keys_answer_encode(&a, text, sizeof text, &len), QG_OK);
	assert_int_equal(qg_kms_app_keys_answer_decode(text, len, &b), QG_OK);
	SAME_AGAIN(qg_kms_app_keys_answer_encode, &b);
	static const char no_mac[] = "{\"version\":1,\"result\":\"held\"}";
	assert_int_equal(qg_kms_app_keys_answer_decode(no_mac, sizeof no_mac - 1, &b), QG_E_PARSE);
	static const char mac[] = "{\"version\":1,\"result\":\"gone\",\"mac\":\"00112233445566778899aabbccddeeff\"}";
	assert_int_equal(qg_kms_app_keys_answer_decode(mac, sizeof mac - 1, &b), QG_E_PARSE);
}

/* The example of docs/neighbours.md, and that every member is in it. */
static void test_canonical_bytes_of_new_app_keys(void **state)
{
	(void)state;
	static const uint8_t want[] = {
		0x00, 0x14, 'q',  'k',  'd',  'g',  'a',  't',  'e',  ' ',  'n',  'e',  'w',  '_',  'a',  'p',  'p',  '_',
		'k',  'e',  'y',  's',  0x01, 0x46, 0xc8, 0xa6, 0x8c, 0x21, 0x21, 0x4f, 0x92, 0xa7, 0xc9, 0x27, 0xef, 0x9f,
		0xb6, 0xf9, 0xf6, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, 0x00, 0x80, 0x00, 0x00, 0x00, 0x1e, 0x00, 0x00, 0x00,
		0x20, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x01, 0x02, 0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07,
		0x08, 0x09, 0x0a, 0x0b, 0x0c, 0x0d, 0x0e, 0x0f, 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9,
		0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff};
	uint8_t bytes[QG_KMS_APP_KEYS_CANONICAL_MAX], other[QG_KMS_APP_KEYS_CANONICAL_MAX];
	const qg_kms_app_keys m = keys_sample();
	qg_writer w = qg_writer_of(bytes, sizeof bytes);
	qg_kms_app_keys_canonical(&m, &w);
	assert_false(w.bad);
	assert_int_equal(w.len, sizeof want);
	assert_memory_equal(bytes, want, sizeof want);
	for (unsigned what = 0; what < 9; what++) {
		qg_kms_app_keys x = m;
		uint32_t *const member[] = {&x.serial, &x.first, &x.count, &x.chunk_size, &x.key_size, &x.hops};
		if (what < 6)
			(*member[what])++;
		else if (what == 6)
			x.ksid.b[15]++;
		else if (what == 7)
			x.id[1].b[0]++;
		else
			x.n--;
		qg_writer v = qg_writer_of(other, sizeof other);
		qg_kms_app_keys_canonical(&x, &v);
		assert_true(v.len != w.len || memcmp(bytes, other, w.len) != 0);
	}
	qg_kms_app_keys most = {.n = QG_KMS_BLOCK_IDS_MAX};
	w = qg_writer_of(bytes, sizeof bytes);
	qg_kms_app_keys_canonical(&most, &w);
	assert_false(w.bad);
}

static void test_the_small_ones(void **state)
{
	(void)state;
	const qg_kms_app_want want = {.ksid = ksid, .until = UINT32_MAX};
	qg_kms_app_want want_back;
	assert_int_equal(qg_kms_app_want_encode(&want, text, sizeof text, &len), QG_OK);
	assert_int_equal(qg_kms_app_want_decode(text, len, &want_back), QG_OK);
	SAME_AGAIN(qg_kms_app_want_encode, &want_back);
	const qg_kms_app_closed closed = {.ksid = ksid, .whole = true};
	qg_kms_app_closed closed_back;
	memset(&closed_back, 0, sizeof closed_back);
	assert_int_equal(qg_kms_app_closed_encode(&closed, text, sizeof text, &len), QG_OK);
	assert_int_equal(qg_kms_app_closed_decode(text, len, &closed_back), QG_OK);
	assert_true(closed_back.whole && qg_uuid_equal(&closed_back.ksid, &ksid));
	static const char *const bad[] = {"", "{}", "{\"version\":1}", "{\"version\":2,\"ksid\":\"x\"}", "[]",
					  "{\"version\":1,\"ksid\":\"46c8a68c-2121-4f92-a7c9-27ef9fb6f9f6\",\"whole\":1}"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		assert_int_equal(qg_kms_app_closed_decode(bad[i], strlen(bad[i]), &closed_back), QG_E_PARSE);
		assert_int_equal(qg_kms_app_want_decode(bad[i], strlen(bad[i]), &want_back), QG_E_PARSE);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_new_app_stream),
		cmocka_unit_test(test_new_app_stream_answer),
		cmocka_unit_test(test_new_app_keys),
		cmocka_unit_test(test_canonical_bytes_of_new_app_keys),
		cmocka_unit_test(test_the_small_ones),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
