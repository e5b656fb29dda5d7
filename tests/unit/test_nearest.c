/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qkdgate/nearest.h"

static const char *const names[] = {"status", "streams", "stream", "reload", "drain"};
#define N (sizeof names / sizeof names[0])

static void
typing_errors_are_understood(void **state)
{
	(void)state;
	assert_string_equal(qg_nearest("strems", names, N), "streams");
	assert_string_equal(qg_nearest("reloda", names, N), "reload");
	assert_string_equal(qg_nearest("drain", names, N), "drain");
	assert_string_equal(qg_nearest("rain", names, N), "drain");
	assert_string_equal(qg_nearest("statuss", names, N), "status");
}

static void
what_is_far_from_all_is_not_guessed(void **state)
{
	char longest[66];
	(void)state;
	assert_null(qg_nearest("zeroize", names, N));
	assert_null(qg_nearest("x", names, N));
	assert_null(qg_nearest("", names, N));
	assert_null(qg_nearest("status", names, 0));
	memset(longest, 's', sizeof longest - 1);
	longest[65] = '\0';
	assert_null(qg_nearest(longest, names, N));
	longest[64] = '\0';
	assert_null(qg_nearest(longest, names, N));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(typing_errors_are_understood),
		cmocka_unit_test(what_is_far_from_all_is_not_guessed),
	};
	return cmocka_run_group_tests_name("nearest", tests, NULL, NULL);
}
