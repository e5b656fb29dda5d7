/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate/error.h"

static uint64_t
fixed_elapsed(void)
{
	return 7;
}

static int64_t
fixed_wall(void)
{
	return -1;
}

static void
elapsed_never_steps_back(void **state)
{
	(void)state;
	uint64_t first = qg_clock_elapsed_ms(), last = first;
	for (int i = 0; i < 1000; i++) {
		uint64_t now = qg_clock_elapsed_ms();
		assert_true(now >= last);
		last = now;
	}
	usleep(30000);
	last = qg_clock_elapsed_ms();
	assert_in_range(last - first, 29, 10000);
}

static void
wall_is_unix_time(void **state)
{
	(void)state;
	int64_t before = (int64_t)time(NULL) * 1000;
	int64_t now = qg_clock_wall_ms();
	assert_true(now >= before - 1000 && now < before + 10000);
}

static void
another_clock_and_back(void **state)
{
	(void)state;
	static const qg_clock_ops fixed = {.elapsed_ms = fixed_elapsed, .wall_ms = fixed_wall};
	qg_clock_use(&fixed);
	assert_int_equal(qg_clock_elapsed_ms(), 7);
	assert_true(qg_clock_wall_ms() == -1);
	qg_clock_use(NULL);
	assert_true(qg_clock_elapsed_ms() != 7);
	assert_true(qg_clock_wall_ms() > 0);
}

static void
every_error_has_a_text_of_its_own(void **state)
{
	(void)state;
	for (int i = 0; i < QG_E_COUNT; i++) {
		const char *text = qg_err_text((qg_err)i);
		assert_non_null(text);
		assert_true(text[0] != '\0');
		assert_string_not_equal(text, qg_err_text(QG_E_COUNT));
		for (int k = 0; k < i; k++)
			assert_string_not_equal(text, qg_err_text((qg_err)k));
	}
	assert_string_equal(qg_err_text((qg_err)-1), qg_err_text(QG_E_COUNT));
	assert_string_equal(qg_err_text((qg_err)1000), qg_err_text(QG_E_COUNT));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elapsed_never_steps_back),
		cmocka_unit_test(wall_is_unix_time),
		cmocka_unit_test(another_clock_and_back),
		cmocka_unit_test(every_error_has_a_text_of_its_own),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
