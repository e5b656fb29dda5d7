/* SPDX-License-Identifier: Apache-2.0 */
/* SOUNDNESS 11: the clock of lifetimes over stops, steps and jumps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qkdgate/clock.h"
#include "qkdgate/lifetime.h"

#define WALL INT64_C(1767225600000)

static uint64_t fake_elapsed_ms;
static int64_t fake_wall_ms;

static uint64_t
fake_elapsed(void)
{
	return fake_elapsed_ms;
}

static int64_t
fake_wall(void)
{
	return fake_wall_ms;
}

static const qg_clock_ops fake_clock = {fake_elapsed, fake_wall};

static int
setup(void **state)
{
	(void)state;
	fake_elapsed_ms = 5000;
	fake_wall_ms = WALL;
	qg_clock_use(&fake_clock);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	qg_clock_use(NULL);
	return 0;
}

static void
first_start_begins_at_zero(void **state)
{
	(void)state;
	/* What an absent checkpoint holds besides does not matter. */
	qg_lifetime_checkpoint none = {.owner_ms = 77, .far_ms = 88, .wall_ms = 99, .valid = false};
	qg_lifetime l;
	assert_false(qg_lifetime_start(&l, &none, 3600));
	assert_int_equal(qg_lifetime_owner_ms(&l), 0);
	assert_int_equal(qg_lifetime_far_ms(&l), 0);
	fake_elapsed_ms += 1234;
	assert_int_equal(qg_lifetime_owner_ms(&l), 1234);
	assert_int_equal(qg_lifetime_far_ms(&l), 1234);
}

static void
wall_steps_while_running_do_not_count(void **state)
{
	(void)state;
	qg_lifetime_checkpoint none = {0};
	qg_lifetime l;
	assert_false(qg_lifetime_start(&l, &none, 3600));
	fake_elapsed_ms += 10;
	fake_wall_ms += INT64_C(1000000000);
	assert_int_equal(qg_lifetime_owner_ms(&l), 10);
	fake_wall_ms -= INT64_C(9000000000);
	assert_int_equal(qg_lifetime_owner_ms(&l), 10);
	assert_int_equal(qg_lifetime_far_ms(&l), 10);
}

static void
short_stop_counts_for_both(void **state)
{
	(void)state;
	qg_lifetime_checkpoint last = {.owner_ms = 50000, .far_ms = 40000, .wall_ms = WALL, .valid = true};
	qg_lifetime l;
	fake_wall_ms = WALL + 3600000; /* just the limit */
	assert_false(qg_lifetime_start(&l, &last, 3600));
	assert_int_equal(qg_lifetime_owner_ms(&l), 3650000);
	assert_int_equal(qg_lifetime_far_ms(&l), 3640000);
}

static void
jump_counts_for_the_owner_only(void **state)
{
	(void)state;
	qg_lifetime_checkpoint last = {.owner_ms = 50000, .far_ms = 40000, .wall_ms = WALL, .valid = true};
	qg_lifetime l;
	fake_wall_ms = WALL + 3600001; /* one beyond it */
	assert_true(qg_lifetime_start(&l, &last, 3600));
	assert_int_equal(qg_lifetime_owner_ms(&l), 3650001);
	assert_int_equal(qg_lifetime_far_ms(&l), 40000);
	fake_elapsed_ms += 7;
	assert_int_equal(qg_lifetime_far_ms(&l), 40007);
}

static void
backward_step_adds_nothing(void **state)
{
	(void)state;
	qg_lifetime_checkpoint last = {.owner_ms = 50000, .far_ms = 40000, .wall_ms = WALL, .valid = true};
	const int64_t back[] = {WALL - 1, WALL - 86400000, 0, INT64_MIN};
	for (size_t i = 0; i < sizeof back / sizeof back[0]; i++) {
		qg_lifetime l;
		fake_wall_ms = back[i];
		assert_false(qg_lifetime_start(&l, &last, 3600));
		assert_int_equal(qg_lifetime_owner_ms(&l), 50000);
		assert_int_equal(qg_lifetime_far_ms(&l), 40000);
	}
}

static void
damaged_checkpoints_do_not_wrap_round(void **state)
{
	(void)state;
	qg_lifetime_checkpoint last = {
		.owner_ms = UINT64_MAX - 1, .far_ms = UINT64_MAX, .wall_ms = INT64_MIN, .valid = true};
	qg_lifetime l;
	fake_wall_ms = INT64_MAX;
	assert_true(qg_lifetime_start(&l, &last, UINT32_MAX));
	fake_elapsed_ms += 100;
	assert_true(qg_lifetime_owner_ms(&l) == UINT64_MAX);
	assert_true(qg_lifetime_far_ms(&l) == UINT64_MAX);
}

/* A hundred restarts with the wall clock thrown about never step back. */
static void
checkpoints_carry_on_over_restarts(void **state)
{
	(void)state;
	qg_lifetime_checkpoint c = {0};
	qg_lifetime l;
	uint64_t owner_ms = 0, far_ms = 0;
	for (int i = 0; i < 100; i++) {
		fake_elapsed_ms = (uint64_t)(i * 37 % 11) * 1000; /* a new boot each time */
		fake_wall_ms += (i % 3 - 1) * INT64_C(600000);
		(void)qg_lifetime_start(&l, &c, 300);
		assert_true(qg_lifetime_owner_ms(&l) >= owner_ms);
		assert_true(qg_lifetime_far_ms(&l) >= far_ms);
		fake_elapsed_ms += 250;
		fake_wall_ms += 250;
		qg_lifetime_now(&l, &c);
		assert_true(c.valid && c.wall_ms == fake_wall_ms);
		assert_true(c.owner_ms >= owner_ms + 250 && c.far_ms >= far_ms + 250);
		owner_ms = c.owner_ms;
		far_ms = c.far_ms;
	}
	assert_int_equal(far_ms, 100 * 250); /* no step was within the limit */
	assert_int_equal(owner_ms, 100 * 250 + 33 * 600000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(first_start_begins_at_zero, setup, teardown),
		cmocka_unit_test_setup_teardown(wall_steps_while_running_do_not_count, setup, teardown),
		cmocka_unit_test_setup_teardown(short_stop_counts_for_both, setup, teardown),
		cmocka_unit_test_setup_teardown(jump_counts_for_the_owner_only, setup, teardown),
		cmocka_unit_test_setup_teardown(backward_step_adds_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(damaged_checkpoints_do_not_wrap_round, setup, teardown),
		cmocka_unit_test_setup_teardown(checkpoints_carry_on_over_restarts, setup, teardown),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("lifetime", tests, NULL, NULL);
}
