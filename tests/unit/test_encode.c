/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/encode.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#define MAX 200

/* RFC 4648, section 10. */
static const struct {
	const char *plain, *base64;
} vectors[] = {{"", ""},	   {"f", "Zg=="},	  {"fo", "Zm8="},	{"foo", "Zm9v"},
	       {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="}, {"foobar", "Zm9vYmFy"}};

static void
base64_vectors(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; i++) {
		char text[16];
		uint8_t back[16];
		size_t n = strlen(vectors[i].plain), len = 99;
		memset(text, '#', sizeof text);
		qg_base64_encode((const uint8_t *)vectors[i].plain, n, text);
		assert_int_equal(QG_BASE64_LEN(n), strlen(vectors[i].base64));
		assert_memory_equal(text, vectors[i].base64, QG_BASE64_LEN(n));
		assert_int_equal(text[QG_BASE64_LEN(n)], '#'); /* not one more */
		assert_int_equal(qg_base64_decode(text, QG_BASE64_LEN(n), back, n, &len), QG_OK);
		assert_int_equal(len, n);
		assert_memory_equal(back, vectors[i].plain, n);
	}
}

/* Every length, against libsodium, which shares no line with ours. */
static void
agrees_with_libsodium(void **state)
{
	(void)state;
	uint8_t in[MAX], back[MAX];
	char ours[2 * MAX], theirs[2 * MAX + 1];
	for (size_t n = 0; n < MAX; n++) {
		size_t len = 0;
		randombytes_buf(in, n);
		qg_base64_encode(in, n, ours);
		sodium_bin2base64(theirs, sizeof theirs, in, n, sodium_base64_VARIANT_ORIGINAL);
		assert_int_equal(strlen(theirs), QG_BASE64_LEN(n));
		assert_memory_equal(ours, theirs, QG_BASE64_LEN(n));
		assert_int_equal(qg_base64_decode(ours, QG_BASE64_LEN(n), back, sizeof back, &len), QG_OK);
		assert_int_equal(len, n);
		assert_memory_equal(back, in, n);

		qg_hex_encode(in, n, ours);
		sodium_bin2hex(theirs, sizeof theirs, in, n);
		assert_memory_equal(ours, theirs, 2 * n);
		memset(back, 0, sizeof back);
		assert_int_equal(qg_hex_decode(ours, 2 * n, back, n), QG_OK);
		assert_memory_equal(back, in, n);
	}
}

/* Every six bits in every place of a word of eight, among ones and among zeros. */
static void
every_character_in_every_place(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2 * 8 * 64; i++) {
		uint64_t at = 42 - 6 * (i / 64 % 8), others = i < 8 * 64 ? 0 : UINT64_MAX;
		uint64_t v = (others & ~(UINT64_C(63) << at)) | (uint64_t)(i % 64) << at;
		uint8_t in[6];
		char ours[8], theirs[9];
		for (unsigned k = 0; k < 6; k++)
			in[k] = (uint8_t)(v >> (40 - 8 * k));
		qg_base64_encode(in, sizeof in, ours);
		sodium_bin2base64(theirs, sizeof theirs, in, sizeof in, sodium_base64_VARIANT_ORIGINAL);
		assert_memory_equal(ours, theirs, sizeof ours);
	}
}

/* Every byte value in every place of two groups, which are taken together, and of
 * the two behind them, of which the last is taken alone; against the alphabet. */
static void
base64_takes_its_alphabet_only(void **state)
{
	(void)state;
	static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (int c = 0; c < 256; c++) {
		bool in_it = c != 0 && strchr(alphabet, c) != NULL;
		for (size_t at = 0; at < 16; at++) {
			if (c == '=' && at == 15)
				continue; /* padding: elsewhere */
			char text[16];
			uint8_t out[12];
			size_t len = 99;
			memset(text, 'A', sizeof text);
			text[at] = (char)c;
			memset(out, 0x5a, sizeof out);
			qg_err err = qg_base64_decode(text, sizeof text, out, sizeof out, &len);
			assert_int_equal(err, in_it ? QG_OK : QG_E_PARSE);
			assert_int_equal(len, in_it ? 12 : 99);
			if (in_it)
				continue;
			for (size_t i = 0; i < sizeof out; i++)
				assert_int_equal(out[i], 0x5a); /* nothing written on failure */
		}
	}
}

static void
base64_is_strict(void **state)
{
	(void)state;
	static const char *const bad[] = {
		"Z",	    "Zg",	"Zg=",	    "=",	"==",	    "===",	 "====",
		"Z===",	    "Zg==Zg==", "Zm8=Zm8=", "Zg==\n",	" Zg=",	    "Zg= ",	 "Z=g=",
		"Zh==",	    "Zm9=",	"Z/==",	    "Zm9v====", "Zm9vZg=",  "Zm9v=Zg=",	 "Zm9-",
		"Zm9_"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		uint8_t out[16];
		size_t len = 99;
		assert_int_equal(qg_base64_decode(bad[i], strlen(bad[i]), out, sizeof out, &len), QG_E_PARSE);
		assert_int_equal(len, 99);
	}
	uint8_t out[16];
	size_t len = 99;
	assert_int_equal(qg_base64_decode("Zg==\0\0\0\0", 8, out, sizeof out, &len), QG_E_PARSE);
	assert_int_equal(len, 99);
}

static void
base64_keeps_to_the_room(void **state)
{
	(void)state;
	uint8_t out[4] = {9, 9, 9, 9};
	size_t len = 99;
	assert_int_equal(qg_base64_decode("Zm9v", 4, out, 2, &len), QG_E_RANGE);
	assert_int_equal(qg_base64_decode("Zg==", 4, out, 0, &len), QG_E_RANGE);
	assert_int_equal(len, 99);
	assert_int_equal(out[0], 9);
	assert_int_equal(qg_base64_decode("Zg==", 4, out, 1, &len), QG_OK);
	assert_int_equal(len, 1);
	assert_int_equal(out[0], 'f');
	assert_int_equal(out[1], 9);
	assert_int_equal(qg_base64_decode("", 0, NULL, 0, &len), QG_OK);
	assert_int_equal(len, 0);
}

static void
hex_takes_its_digits_only(void **state)
{
	(void)state;
	for (int c = 0; c < 256; c++) {
		for (size_t at = 0; at < 4; at++) {
			char text[4] = {'0', '0', '0', '0'};
			uint8_t out[2] = {0x5a, 0x5a};
			text[at] = (char)c;
			bool digit = c != 0 && strchr("0123456789abcdefABCDEF", c) != NULL;
			assert_int_equal(qg_hex_decode(text, 4, out, 2), digit ? QG_OK : QG_E_PARSE);
			if (!digit)
				assert_memory_equal(out, "\x5a\x5a", 2);
		}
	}
}

static void
hex_length_must_fit(void **state)
{
	(void)state;
	uint8_t out[3] = {9, 9, 9};
	assert_int_equal(qg_hex_decode("0102", 4, out, 2), QG_OK);
	assert_memory_equal(out, "\1\2\11", 3);
	assert_int_equal(qg_hex_decode("0102", 4, out, 1), QG_E_PARSE);
	assert_int_equal(qg_hex_decode("0102", 4, out, 3), QG_E_PARSE);
	assert_int_equal(qg_hex_decode("0102", 3, out, 1), QG_E_PARSE);
	assert_int_equal(qg_hex_decode("", 0, out, 0), QG_OK);
	assert_int_equal(qg_hex_decode("AbCd", 4, out, 2), QG_OK); /* either case */
	assert_memory_equal(out, "\xab\xcd", 2);
}

static void
utf8_characters(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		size_t len;
	} cases[] = {
		{"a", 1},        {"\xc3\xa9", 2},         {"\xe2\x82\xac", 3},     {"\xf0\x9f\x94\x91", 4},
		{"", 0},         {"\x80", 0},             {"\xc3", 0},             {"\xc0\xaf", 0},
		{"\xe0\x80\xaf", 0}, {"\xed\xa0\x80", 0}, {"\xf4\x90\x80\x80", 0}, {"\xf0\x9f\x94", 0},
		{"\xff", 0},    {"\xe2\x82", 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		assert_int_equal(qg_utf8_len(cases[i].text), cases[i].len);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base64_vectors),
		cmocka_unit_test(agrees_with_libsodium),
		cmocka_unit_test(every_character_in_every_place),
		cmocka_unit_test(base64_takes_its_alphabet_only),
		cmocka_unit_test(base64_is_strict),
		cmocka_unit_test(base64_keeps_to_the_room),
		cmocka_unit_test(hex_takes_its_digits_only),
		cmocka_unit_test(hex_length_must_fit), cmocka_unit_test(utf8_characters),
	};
	if (sodium_init() < 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("encode", tests, NULL, NULL);
}
