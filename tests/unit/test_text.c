/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <jansson.h>

static void
is_counted_first_and_written_then(void **state)
{
	(void)state;
	static const unsigned char value[] = {0xfb, 0xff, 0x01};
	qg_text count = {.buf = NULL};
	char buf[32];
	memset(buf, '#', sizeof buf);
	qg_text t = {.buf = buf, .room = sizeof buf};
	qg_text *both[] = {&count, &t};
	for (size_t i = 0; i < 2; i++) {
		QG_TEXT_PUT(both[i], "{\"a\":");
		qg_text_put_json_string(both[i], "b");
		qg_text_put(both[i], ",xyz", 1);
		qg_text_put_base64(both[i], value, sizeof value);
	}
	assert_int_equal(count.len, 13);
	assert_int_equal(t.len, 13);
	assert_memory_equal(buf, "{\"a\":\"b\",+/8B#", 14);
}

/* A piece that does not fit leaves no part of it behind, and nothing after it. */
static void
what_does_not_fit_is_only_counted(void **state)
{
	(void)state;
	char buf[8];
	memset(buf, '#', sizeof buf);
	qg_text t = {.buf = buf, .room = 4};
	QG_TEXT_PUT(&t, "abc");
	QG_TEXT_PUT(&t, "de");
	QG_TEXT_PUT(&t, "f");
	qg_text_put_base64(&t, (const unsigned char *)"x", 1);
	qg_text_put(&t, "", 0);
	assert_int_equal(t.len, 10);
	assert_true(t.len > t.room);
	assert_memory_equal(buf, "abc#####", 8);
}

static void
strings_are_json_whatever_is_in_them(void **state)
{
	(void)state;
	char text[256], in[2] = "";
	for (int c = 1; c < 128; c++) {
		in[0] = (char)c;
		qg_text t = {.buf = text, .room = sizeof text};
		qg_text_put_json_string(&t, in);
		json_t *back = json_loadb(text, t.len, JSON_DECODE_ANY, NULL);
		assert_non_null(back);
		assert_string_equal(json_string_value(back), in);
		json_decref(back);
	}
	qg_text t = {.buf = text, .room = sizeof text};
	qg_text_put_json_string(&t, "a\"\\\n\x01z\xc3\xbc");
	text[t.len] = '\0';
	assert_string_equal(text, "\"a\\\"\\\\\\u000a\\u0001z\xc3\xbc\"");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_counted_first_and_written_then),
		cmocka_unit_test(what_does_not_fit_is_only_counted),
		cmocka_unit_test(strings_are_json_whatever_is_in_them),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
