/* SPDX-License-Identifier: Apache-2.0 */
/* What the admin interface keeps: history of a stream, and how often somebody may try. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../src/north/admin_internal.h"

#define S 1000u
#define BEGIN (1000007u * S)

/* --- history ----------------------------------------------------------------------- */

static double
at(const json_t *h, const char *member, size_t from_end)
{
	const json_t *list = json_object_get(h, member);
	const size_t n = json_array_size(list);
	assert_true(from_end < n);
	return json_number_value(json_array_get(list, n - 1 - from_end));
}

static size_t
length(const json_t *h)
{
	const size_t n = json_array_size(json_object_get(h, "in_bps"));
	assert_int_equal(json_array_size(json_object_get(h, "out_bps")), n);
	assert_int_equal(json_array_size(json_object_get(h, "stock_bytes")), n);
	assert_true(n <= (size_t)json_integer_value(json_object_get(h, "most")));
	return n;
}

/* Bits, over all that is shown. */
static double
sum(const json_t *h, const char *member)
{
	const double step_s = json_number_value(json_object_get(h, "step_s"));
	double bits = at(h, member, 0) * json_number_value(json_object_get(h, "last_s"));
	for (size_t i = 1; i < length(h); i++)
		bits += at(h, member, i) * step_s;
	return bits;
}

static void
history_loses_no_key(void **state)
{
	(void)state;
	qg_admin_history *h = qg_admin_history_new();
	uint64_t in = 5000, out = 700;
	assert_non_null(h);
	qg_admin_history_note(h, BEGIN, in, out, 10);
	for (unsigned s = 1; s <= 1234; s++) {
		in += 1000 + s % 7;
		out += s % 100 == 0 ? 64000 : 0;
		qg_admin_history_note(h, BEGIN + s * S, in, out, s);
	}
	for (size_t span = 0; span < QG_ADMIN_SPANS; span++) {
		json_t *j = qg_admin_history_json(h, span);
		assert_true(length(j) > 1);
		const double in_error = sum(j, "in_bps") - (double)(in - 5000), out_error = sum(j, "out_bps") - (double)(out - 700);
		assert_true(in_error < 10 && in_error > -10); /* of 1.2 million, in floats */
		assert_true(out_error < 10 && out_error > -10);
		assert_int_equal((int)at(j, "stock_bytes", 0), 1234);
		json_decref(j);
	}
	qg_admin_history_free(h);
}

static void
history_is_bounded_and_keeps_the_newest(void **state)
{
	(void)state;
	qg_admin_history *h = qg_admin_history_new();
	uint64_t in = 0;
	for (unsigned s = 0; s <= 30 * 3600; s++)
		qg_admin_history_note(h, BEGIN + (uint64_t)s * S, in += s, 0, s);
	json_t *hour = qg_admin_history_json(h, 0), *day = qg_admin_history_json(h, 1);
	assert_int_equal(length(hour), 361);
	assert_int_equal(length(day), 361);
	/* A second brings as many bits as it counts: the values rise to the newest. */
	for (size_t i = 1; i + 1 < 361; i++) {
		assert_true(at(hour, "in_bps", i) > at(hour, "in_bps", i + 1));
		assert_true(at(day, "in_bps", i) > at(day, "in_bps", i + 1));
	}
	assert_true(at(hour, "in_bps", 360) > 30 * 3600 - 3700);
	json_decref(hour);
	json_decref(day);
	qg_admin_history_free(h);
}

static void
history_stands_still_with_the_machine(void **state)
{
	(void)state;
	qg_admin_history *h = qg_admin_history_new();
	qg_admin_history_note(h, BEGIN, 0, 0, 1);
	json_t *young = qg_admin_history_json(h, 0);
	assert_int_equal(length(young), 1); /* at once, and no division by nothing */
	assert_true(at(young, "in_bps", 0) >= 0);
	json_decref(young);
	qg_admin_history_note(h, BEGIN + 3 * S, 30000, 0, 2);
	qg_admin_history_note(h, BEGIN + 100003 * S, 100030000, 0, 3); /* more than a day later */
	json_t *hour = qg_admin_history_json(h, 0);
	assert_int_equal(length(hour), 361);
	assert_true(at(hour, "in_bps", 5) > 900 && at(hour, "in_bps", 5) < 1100);
	assert_true(at(hour, "in_bps", 360) > 900 && at(hour, "in_bps", 360) < 1100);
	json_decref(hour);
	qg_admin_history_free(h);
}

static void
spans_have_names(void **state)
{
	(void)state;
	size_t span = 7;
	assert_true(qg_admin_history_span("hour", &span));
	assert_int_equal(span, 0);
	assert_true(qg_admin_history_span("day", &span));
	assert_int_equal(span, 1);
	assert_false(qg_admin_history_span("Hour", &span));
	assert_false(qg_admin_history_span("", &span));
	assert_int_equal(span, 1);
}

/* --- attempts ------------------------------------------------------------------------ */

static void
name_of(unsigned n, uint8_t key[QG_ADMIN_LIMIT_KEY])
{
	memset(key, 0, QG_ADMIN_LIMIT_KEY);
	memcpy(key, &n, sizeof n);
}

static unsigned
try(qg_admin_limit *l, unsigned address, unsigned account, uint64_t now_ms)
{
	uint8_t keys[2][QG_ADMIN_LIMIT_KEY];
	name_of(address, keys[0]);
	name_of(1000000 + account, keys[1]);
	return qg_admin_limit_take(l, (const uint8_t(*)[QG_ADMIN_LIMIT_KEY])keys, 2, now_ms);
}

static void
who_tries_too_often_waits(void **state)
{
	(void)state;
	static qg_admin_limit l;
	uint64_t now = BEGIN;
	qg_admin_limit_init(&l, 5, 12, now);
	for (unsigned i = 0; i < 5; i++)
		assert_int_equal(try(&l, 1, i, now), 0);
	assert_int_equal(try(&l, 1, 9, now), 12); /* the address */
	assert_int_equal(try(&l, 2, 9, now), 0);  /* of others it is no business */
	now += 11 * S;
	assert_int_equal(try(&l, 1, 9, now), 1);
	now += 1 * S;
	assert_int_equal(try(&l, 1, 9, now), 0);
	assert_int_equal(try(&l, 1, 9, now), 12);
	for (unsigned i = 0; i < 4; i++) /* the account, from everywhere; one was taken above */
		assert_int_equal(try(&l, 100 + i, 9, now += 2 * S), 0);
	assert_true(try(&l, 200, 9, now) > 0);
	assert_int_equal(try(&l, 200, 10, now), 0);
}

static void
what_was_right_is_given_back(void **state)
{
	(void)state;
	static qg_admin_limit l;
	uint8_t keys[2][QG_ADMIN_LIMIT_KEY];
	uint64_t now = BEGIN;
	qg_admin_limit_init(&l, 2, 60, now);
	name_of(1, keys[0]);
	name_of(1000001, keys[1]);
	for (unsigned i = 0; i < 50; i++) {
		assert_int_equal(try(&l, 1, 1, now += 2 * S), 0);
		qg_admin_limit_give_back(&l, (const uint8_t(*)[QG_ADMIN_LIMIT_KEY])keys, 2, now);
	}
	assert_int_equal(try(&l, 1, 1, now += 2 * S), 0);
	assert_int_equal(try(&l, 1, 1, now += 2 * S), 0);
	assert_true(try(&l, 1, 1, now += 2 * S) > 0);
}

static void
all_together_are_limited_too(void **state)
{
	(void)state;
	static qg_admin_limit l;
	uint64_t now = BEGIN;
	unsigned taken = 0;
	qg_admin_limit_init(&l, 5, 12, now);
	for (unsigned s = 0; s < 100; s++, now += 1 * S)
		for (unsigned i = 0; i < 50; i++)
			taken += try(&l, 1 + s * 50 + i, 1 + s * 50 + i, now) == 0;
	assert_true(taken <= 110 && taken >= 109);
}

/* Who makes up addresses and accounts frees no one who waits. */
static void
a_full_table_forgets_nobody_who_waits(void **state)
{
	(void)state;
	static qg_admin_limit l;
	uint64_t now = BEGIN;
	qg_admin_limit_init(&l, 1, 3600, now);
	assert_int_equal(try(&l, 1, 1, now), 0);
	assert_true(try(&l, 1, 1, now) > 3000);
	unsigned taken = 0;
	for (unsigned i = 0; i < 200; i++)
		taken += try(&l, 10 + i, 10 + i, now += 1 * S) == 0;
	assert_int_equal(taken, 200);
	assert_true(try(&l, 1, 2000, now) > 3000);
	assert_true(try(&l, 2000, 1, now) > 3000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(history_loses_no_key),
		cmocka_unit_test(history_is_bounded_and_keeps_the_newest),
		cmocka_unit_test(history_stands_still_with_the_machine),
		cmocka_unit_test(spans_have_names),
		cmocka_unit_test(who_tries_too_often_waits),
		cmocka_unit_test(what_was_right_is_given_back),
		cmocka_unit_test(all_together_are_limited_too),
		cmocka_unit_test(a_full_table_forgets_nobody_who_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
