/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qkdgate/policy.h"

static const char *const first_slaves[] = {"bob", "c-*"};
static const char *const second_slaves[] = {"*"};
static const char *const third_slaves[] = {"alice"};

static const qg_config_rule rules[] = {
	{.master = "alice", .slaves = first_slaves, .n_slaves = 2, .both_ways = true, .min_key_bits = 64,
	 .max_key_bits = 512, .default_key_bits = 256, .max_keys = 3, .max_extra_slaves = 1},
	{.master = "d*", .slaves = second_slaves, .n_slaves = 1, .both_ways = false, .min_key_bits = 8,
	 .max_key_bits = 16, .default_key_bits = 8, .max_keys = 4, .max_extra_slaves = 2},
	{.master = "*", .slaves = third_slaves, .n_slaves = 1, .both_ways = false, .min_key_bits = 24,
	 .max_key_bits = 24, .default_key_bits = 24, .max_keys = 5, .max_extra_slaves = 0},
};

static const qg_config config = {.policy = rules, .n_policy = 3};

/* The max_keys of the rule that decides, 0 when none does. */
static uint32_t
rule_for(const char *master, const char *slave)
{
	qg_policy_terms terms;
	memset(&terms, 0xa5, sizeof terms);
	const qg_policy_terms before = terms;
	const qg_err err = qg_policy_pair(&config, master, slave, &terms);
	if (err == QG_OK)
		return terms.max_keys;
	assert_int_equal(err, QG_E_DENIED);
	assert_memory_equal(&terms, &before, sizeof terms);
	return 0;
}

static void
the_rule_gives_all_terms(void **state)
{
	qg_policy_terms t;
	(void)state;
	assert_int_equal(qg_policy_pair(&config, "alice", "bob", &t), QG_OK);
	assert_int_equal(t.min_key_bits, 64);
	assert_int_equal(t.max_key_bits, 512);
	assert_int_equal(t.default_key_bits, 256);
	assert_int_equal(t.max_keys, 3);
	assert_int_equal(t.max_extra_slaves, 1);
}

static void
exact_and_pattern_on_both_sides(void **state)
{
	(void)state;
	assert_int_equal(rule_for("alice", "c-1"), 3);
	assert_int_equal(rule_for("dora", "anyone"), 4);
	assert_int_equal(rule_for("alice", "c1"), 0);
	assert_int_equal(rule_for("alicex", "bob"), 0);
}

static void
roles_exchange_only_both_ways(void **state)
{
	(void)state;
	assert_int_equal(rule_for("bob", "alice"), 3);
	assert_int_equal(rule_for("c-9", "alice"), 3);
	assert_int_equal(rule_for("bob", "dora"), 0);
	assert_int_equal(rule_for("anyone", "dora"), 0);
}

static void
the_first_rule_decides(void **state)
{
	(void)state;
	assert_int_equal(rule_for("bob", "alice"), 3);  /* not the third */
	assert_int_equal(rule_for("dora", "alice"), 4); /* not the third */
	assert_int_equal(rule_for("x", "alice"), 5);
	assert_int_equal(rule_for("alice", "x"), 0); /* the third is one way */
}

static void
no_rule_no_pair(void **state)
{
	const qg_config none = {.n_policy = 0};
	qg_policy_terms t;
	(void)state;
	assert_int_equal(qg_policy_pair(&none, "alice", "bob", &t), QG_E_DENIED);
	assert_false(qg_policy_may_know(&none, "alice", "bob"));
	assert_int_equal(rule_for("mallory", "bob"), 0);
	assert_int_equal(rule_for("bob", "bob"), 0);
	assert_int_equal(rule_for("", ""), 0);
}

static void
partners_may_know_of_one_another(void **state)
{
	(void)state;
	assert_true(qg_policy_may_know(&config, "alice", "bob"));
	assert_true(qg_policy_may_know(&config, "bob", "alice"));
	assert_true(qg_policy_may_know(&config, "alice", "c-unknown"));
	assert_true(qg_policy_may_know(&config, "anyone", "dora")); /* as the other side */
	assert_true(qg_policy_may_know(&config, "alice", "stranger"));
	assert_false(qg_policy_may_know(&config, "mallory", "bob"));
	assert_false(qg_policy_may_know(&config, "mallory", "c-1"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rule_gives_all_terms),
		cmocka_unit_test(exact_and_pattern_on_both_sides),
		cmocka_unit_test(roles_exchange_only_both_ways),
		cmocka_unit_test(the_first_rule_decides),
		cmocka_unit_test(no_rule_no_pair),
		cmocka_unit_test(partners_may_know_of_one_another),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
