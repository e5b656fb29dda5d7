/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "support/core_pair.c"

static core_pair *start(const pair_options *o)
{
	core_pair *p = pair_new(o);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	return p;
}

static void keys_agree(void **state)
{
	(void)state;
	core_pair *p = start(NULL);
	assert_true(pair_wait_ready(p, 0, 200));
	assert_true(pair_deliver(p, 0, 1, 32));
	assert_true(pair_deliver(p, 1, 20, 32));
	assert_true(pair_deliver(p, 0, 3, 700));
	pair_free(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_agree),
	};
	qg_log_init(getenv("QG_TEST_LOG") != NULL ? QG_LOG_DEBUG : QG_LOG_ERROR, QG_LOG_TEXT);
	pair_clock();
	if (qg_secret_init() != QG_OK)
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
