/* SPDX-License-Identifier: Apache-2.0 */
/* Key streams of applications: the calls of ETSI GS QKD 004, clause 6. */
#include "app_rig.h"

static void test_case_1_undefined_ksid(void **state)
{
	(void)state;
	start_pair();
	qg_app_opened a = open_at(A, B, NULL);
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(a.ksid.b[6] >> 4, 4);
	qg_app_opened b = open_at(B, A, &a.ksid);
	assert_int_equal(b.status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &a.ksid, 0, 500);
	assert_int_equal(close_at(A, 0, &a.ksid), QG_ETSI004_SUCCESS);
	assert_int_equal(close_at(B, 0, &a.ksid), QG_ETSI004_SUCCESS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_case_1_undefined_ksid),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
