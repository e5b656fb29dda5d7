/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/uuid.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>
#include <uuid.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"

static const char text[] = "0123abcd-4567-89ab-cdef-fedcba987654";
static const qg_uuid value = {{0x01, 0x23, 0xab, 0xcd, 0x45, 0x67, 0x89, 0xab,
			       0xcd, 0xef, 0xfe, 0xdc, 0xba, 0x98, 0x76, 0x54}};

static void
text_and_bytes(void **state)
{
	(void)state;
	qg_uuid u;
	char out[QG_UUID_TEXT];
	assert_int_equal(qg_uuid_parse(text, 36, &u), QG_OK);
	assert_memory_equal(u.b, value.b, 16);
	qg_uuid_format(&value, out);
	assert_string_equal(out, text);
	assert_int_equal(qg_uuid_parse("0123ABCD-4567-89AB-CDEF-FEDCBA987654", 36, &u), QG_OK);
	assert_true(qg_uuid_equal(&u, &value));
}

static void
agrees_with_libuuid(void **state)
{
	(void)state;
	for (int i = 0; i < 200; i++) {
		qg_uuid u, back;
		char ours[QG_UUID_TEXT], theirs[QG_UUID_TEXT];
		qg_random(u.b, sizeof u.b);
		qg_uuid_format(&u, ours);
		uuid_unparse_lower(u.b, theirs);
		assert_string_equal(ours, theirs);
		assert_int_equal(qg_uuid_parse(theirs, 36, &back), QG_OK);
		assert_true(qg_uuid_equal(&u, &back));
	}
}

/* Every other character in every place. */
static void
parse_is_strict(void **state)
{
	(void)state;
	for (size_t at = 0; at < 36; at++) {
		for (int c = 0; c < 256; c++) {
			char bad[QG_UUID_TEXT];
			qg_uuid u = {{9}};
			memcpy(bad, text, sizeof bad);
			bad[at] = (char)c;
			bool fine = text[at] == '-' ? c == '-' : c != 0 && strchr("0123456789abcdefABCDEF", c) != NULL;
			assert_int_equal(qg_uuid_parse(bad, 36, &u), fine ? QG_OK : QG_E_PARSE);
			if (!fine)
				assert_int_equal(u.b[0], 9);
		}
	}
}

static void
parse_wants_the_whole_text(void **state)
{
	(void)state;
	qg_uuid u = {{9}};
	char longer[40] = {0};
	memcpy(longer, text, 36);
	longer[36] = '0';
	for (size_t n = 0; n <= 37; n++)
		assert_int_equal(qg_uuid_parse(longer, n, &u), n == 36 ? QG_OK : QG_E_PARSE);
	assert_int_equal(qg_uuid_parse("{0123abcd-4567-89ab-cdef-fedcba98765}", 37, &u), QG_E_PARSE);
	assert_int_equal(qg_uuid_parse("0123abcd456789abcdeffedcba987654", 32, &u), QG_E_PARSE);
	assert_int_equal(qg_uuid_parse(NULL, 0, &u), QG_E_PARSE);
}

static void
random_is_version_4(void **state)
{
	(void)state;
	qg_uuid or = {{0}}, and;
	memset(and.b, 0xff, 16);
	for (int i = 0; i < 200; i++) {
		qg_uuid u;
		qg_uuid_random(&u);
		for (size_t k = 0; k < 16; k++) {
			or.b[k] |= u.b[k];
			and.b[k] &= u.b[k];
		}
	}
	for (size_t k = 0; k < 16; k++) {
		/* the four bits of the version and the two of the variant stand, all others move */
		assert_int_equal(or.b[k], k == 6 ? 0x4f : k == 8 ? 0xbf : 0xff);
		assert_int_equal(and.b[k], k == 6 ? 0x40 : k == 8 ? 0x80 : 0x00);
	}
}

static void
equal_and_null(void **state)
{
	(void)state;
	qg_uuid null = {{0}};
	assert_true(qg_uuid_is_null(&null));
	for (size_t i = 0; i < 16; i++) {
		qg_uuid u = {{0}}, v = value;
		u.b[i] = 1;
		assert_false(qg_uuid_is_null(&u));
		v.b[i] ^= 0x80;
		assert_false(qg_uuid_equal(&v, &value));
	}
	assert_true(qg_uuid_equal(&value, &value));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_and_bytes),
		cmocka_unit_test(agrees_with_libuuid),
		cmocka_unit_test(parse_is_strict),
		cmocka_unit_test(parse_wants_the_whole_text),
		cmocka_unit_test(random_is_version_4),
		cmocka_unit_test(equal_and_null),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("uuid", tests, NULL, NULL);
}
