/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "qkdgate/pattern.h"
#include "seed.h"

static void
exact_text_matches_itself_only(void **state)
{
	(void)state;
	assert_true(qg_pattern_matches("sae-bob", "sae-bob"));
	assert_false(qg_pattern_matches("sae-bob", "sae-bo"));
	assert_false(qg_pattern_matches("sae-bob", "sae-bobb"));
	assert_false(qg_pattern_matches("sae-bob", "Sae-bob"));
	assert_true(qg_pattern_matches("", ""));
	assert_false(qg_pattern_matches("", "a"));
}

static void
star_stands_for_any_run(void **state)
{
	(void)state;
	assert_true(qg_pattern_matches("*", ""));
	assert_true(qg_pattern_matches("*", "anything"));
	assert_true(qg_pattern_matches("**", "x"));
	assert_true(qg_pattern_matches("sae-*", "sae-"));
	assert_true(qg_pattern_matches("sae-*", "sae-b-1"));
	assert_false(qg_pattern_matches("sae-*", "sa"));
	assert_true(qg_pattern_matches("*-b", "sae-b"));
	assert_false(qg_pattern_matches("*-b", "sae-bc"));
	assert_true(qg_pattern_matches("a*b*c", "a1b2c"));
	assert_true(qg_pattern_matches("a*b*c", "abbcbc"));
	assert_false(qg_pattern_matches("a*b*c", "acb"));
}

/* The part before and the part behind a star must not share characters. */
static void
parts_do_not_overlap(void **state)
{
	(void)state;
	assert_false(qg_pattern_matches("ab*ba", "aba"));
	assert_true(qg_pattern_matches("ab*ba", "abba"));
	assert_false(qg_pattern_matches("*aa*aa*", "aaa"));
	assert_true(qg_pattern_matches("*aa*aa*", "aaaa"));
}

static void
other_wildcards_are_plain(void **state)
{
	(void)state;
	assert_false(qg_pattern_matches("a?c", "abc"));
	assert_true(qg_pattern_matches("a?c", "a?c"));
	assert_false(qg_pattern_matches("[a-z]", "b"));
	assert_false(qg_pattern_matches("a\\*", "a*"));
	assert_true(qg_pattern_matches("a\\*", "a\\xyz"));
	assert_false(qg_pattern_matches(".*", "abc"));
}

/* The obvious definition, exponential but plain. */
static bool
by_definition(const char *p, const char *t)
{
	if (*p == '\0')
		return *t == '\0';
	if (*p == '*')
		return by_definition(p + 1, t) || (*t != '\0' && by_definition(p, t + 1));
	return *p == *t && by_definition(p + 1, t + 1);
}

static void
random_text(char *out, size_t room, const char *letters)
{
	const size_t n = (size_t)rand() % room;
	for (size_t i = 0; i < n; i++)
		out[i] = letters[(size_t)rand() % strlen(letters)];
	out[n] = '\0';
}

static void
agrees_with_the_definition(void **state)
{
	size_t matches = 0;
	(void)state;
	srand(test_seed());
	for (int i = 0; i < 200000; i++) {
		char pattern[8], text[10];
		random_text(pattern, sizeof pattern, "ab**");
		random_text(text, sizeof text, "ab");
		const bool want = by_definition(pattern, text);
		matches += want;
		if (qg_pattern_matches(pattern, text) != want)
			fail_msg("\"%s\" on \"%s\" should be %d", pattern, text, want);
	}
	assert_true(matches > 1000);
}

/* Backtracking would not come to an end here. */
static void
many_stars_cost_little(void **state)
{
	enum { LEN = 100000 };
	char *pattern = malloc(LEN + 1), *text = malloc(LEN + 1);
	(void)state;
	assert_non_null(pattern);
	assert_non_null(text);
	memset(text, 'a', LEN);
	text[LEN] = '\0';
	for (size_t i = 0; i < LEN; i++)
		pattern[i] = i % 2 == 0 ? '*' : 'a';
	pattern[LEN - 1] = 'b';
	pattern[LEN] = '\0';
	assert_false(qg_pattern_matches(pattern, text));
	pattern[LEN - 1] = '*';
	assert_true(qg_pattern_matches(pattern, text));
	free(pattern);
	free(text);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exact_text_matches_itself_only),
		cmocka_unit_test(star_stands_for_any_run),
		cmocka_unit_test(parts_do_not_overlap),
		cmocka_unit_test(other_wildcards_are_plain),
		cmocka_unit_test(agrees_with_the_definition),
		cmocka_unit_test(many_stars_cost_little),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
