/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/grow.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

static void
what_was_there_stays(void **state)
{
	(void)state;
	size_t *all = NULL, room = 0;
	unsigned moves = 0;
	for (size_t n = 0; n < 1000; n++) {
		const size_t before = room;
		size_t *more = qg_grown(all, &room, n, sizeof *all);
		assert_non_null(more);
		assert_true(room > n);
		moves += room != before;
		all = more;
		all[n] = n;
	}
	for (size_t n = 0; n < 1000; n++)
		assert_int_equal(all[n], n);
	assert_true(moves < 10); /* not with every item */
	free(all);
}

/* The array and its room are as they were. */
static void
more_than_there_is_is_refused(void **state)
{
	(void)state;
	size_t room = 0, most = SIZE_MAX / 2 + 1;
	char *all = qg_grown(NULL, &room, 0, 1);
	assert_non_null(all);
	all[0] = 'x';
	const size_t before = room;
	assert_null(qg_grown(all, &room, room, SIZE_MAX / 2));
	assert_int_equal(room, before);
	assert_null(qg_grown(all, &most, most, 1)); /* twice that is none */
	assert_true(most == SIZE_MAX / 2 + 1);
	assert_int_equal(all[0], 'x');
	free(all);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_there_stays),
		cmocka_unit_test(more_than_there_is_is_refused),
	};
	return cmocka_run_group_tests_name("grow", tests, NULL, NULL);
}
