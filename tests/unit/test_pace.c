/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../src/south/south_internal.h"

static void
backoff_doubles_with_jitter(void **state)
{
	(void)state;
	for (int round = 0; round < 50; round++) {
		qg_backoff b = {.first_ms = 200, .last_ms = 10000};
		unsigned nominal = 200;
		for (int i = 0; i < 12; i++) {
			unsigned ms = qg_backoff_take(&b);
			assert_in_range(ms, nominal - nominal / 4, nominal + nominal / 4);
			nominal = nominal * 2 < 10000 ? nominal * 2 : 10000;
		}
		qg_backoff_reset(&b);
		assert_in_range(qg_backoff_take(&b), 150, 250);
	}
}

static void
rate_of_tokens(void **state)
{
	(void)state;
	unsigned wait_ms = 0;
	qg_rate none = {.max_bps = 0}, r = {.max_bps = 32};
	assert_int_equal(qg_rate_allow(&none, 1000, 32, 500, &wait_ms), 500);
	/* 32 bit/s are a chunk of 32 bytes in 8 s. */
	assert_int_equal(qg_rate_allow(&r, 1000, 32, 10, &wait_ms), 1);
	qg_rate_spend(&r, 32);
	assert_int_equal(qg_rate_allow(&r, 1000, 32, 10, &wait_ms), 0);
	assert_int_equal(wait_ms, 8000);
	assert_int_equal(qg_rate_allow(&r, 8999, 32, 10, &wait_ms), 0);
	assert_int_equal(wait_ms, 1);
	assert_int_equal(qg_rate_allow(&r, 9000, 32, 10, &wait_ms), 1);
	/* However long nothing was asked for, one chunk or 100 ms are saved. */
	assert_int_equal(qg_rate_allow(&r, UINT64_MAX / 2, 32, 10, &wait_ms), 1);
	r = (qg_rate){.max_bps = UINT32_MAX};
	assert_int_equal(qg_rate_allow(&r, 1000, 65536, 4096, &wait_ms), 819);
	assert_int_equal(qg_rate_allow(&r, UINT64_MAX - 1, 65536, 4096, &wait_ms), 819);
}

static void
reasons_are_said_now_and_then(void **state)
{
	(void)state;
	static qg_reasons r;
	unsigned held = 99;
	assert_true(qg_reasons_due(&r, "a", QG_E_IO, 0, 1000, &held));
	assert_int_equal(held, 0);
	for (int i = 0; i < 5; i++)
		assert_false(qg_reasons_due(&r, "a", QG_E_IO, 0, 1001, &held));
	assert_true(qg_reasons_due(&r, "a", QG_E_PROTO, 0, 1001, &held));
	assert_true(qg_reasons_due(&r, "a", QG_E_IO, 4, 1001, &held));
	assert_true(qg_reasons_due(&r, "a", QG_E_IO, 0, 31000, &held));
	assert_int_equal(held, 5);
	for (uint32_t i = 0; i < 100; i++) /* more kinds than rows */
		assert_true(qg_reasons_due(&r, "b", QG_E_IO, i, 31001, &held));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(backoff_doubles_with_jitter),
		cmocka_unit_test(rate_of_tokens),
		cmocka_unit_test(reasons_are_said_now_and_then),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return qg_secret_init() == QG_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
