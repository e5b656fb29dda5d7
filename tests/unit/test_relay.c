/* SPDX-License-Identifier: Apache-2.0 */
/* Keys between nodes that share no link (docs/relay.md). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "support/core_net.c"

static core_net *n;

static int teardown(void **state)
{
	(void)state;
	net_free(&n);
	return 0;
}

static void test_neighbours_of_a_line_share_keys(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	n = net_start(&pl);
	assert_true(net_deliver(n, 0, 1, 4, 32));
	assert_true(net_deliver(n, 1, 0, 4, 32));
	assert_true(net_deliver(n, 2, 1, 4, 32));
	node_crash(&n->node[1]);
	node_start(&n->node[1]);
	assert_true(net_deliver(n, 0, 1, 4, 32));
	assert_true(net_deliver(n, 1, 2, 4, 32));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_neighbours_of_a_line_share_keys, teardown),
	};
	if (pair_init() != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
