/* SPDX-License-Identifier: Apache-2.0 */
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

static void test_line(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, 0, 2);
	n = net_start(&pl);
	for (int i = 0; i < 20; i++) {
		assert_true(net_deliver(n, 0, 2, 4, 32));
		assert_true(net_deliver(n, 2, 0, 4, 32));
	}
	size_t messages = 0;
	assert_true(net_all_fresh(n, &messages));
	print_message("%zu messages\n", messages);
}

static void test_diamond(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_diamond(&pl);
	net_plan_far(&pl, 0, 2)->paths = 2;
	n = net_start(&pl);
	for (int i = 0; i < 20; i++)
		assert_true(net_deliver(n, 0, 2, 4, 32));
	size_t messages = 0;
	assert_true(net_all_fresh(n, &messages));
	print_message("%zu messages\n", messages);
}

static void test_reroute(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_diamond(&pl);
	net_plan_far(&pl, 0, 2);
	n = net_start(&pl);
	assert_true(net_deliver(n, 0, 2, 4, 32));
	for (int k = 0; k < 3; k++) {
		node_crash(&n->node[1]);
		for (int i = 0; i < 50; i++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
		node_start(&n->node[1]);
		node_crash(&n->node[3]);
		for (int i = 0; i < 50; i++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
		node_start(&n->node[3]);
	}
}

static void test_ends_restart(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, 0, 2);
	n = net_start(&pl);
	for (int k = 0; k < 4; k++) {
		for (int i = 0; i < 20; i++)
			assert_true(net_deliver(n, 0, 2, 16, 32));
		unsigned who = k % 2 ? 0 : 2;
		if (k < 2)
			node_crash(&n->node[who]);
		else
			node_stop(&n->node[who]);
		node_start(&n->node[who]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_line, teardown),
		cmocka_unit_test_teardown(test_diamond, teardown),
		cmocka_unit_test_teardown(test_reroute, teardown),
		cmocka_unit_test_teardown(test_ends_restart, teardown),
	};
	if (pair_init() != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
