/* SPDX-License-Identifier: Apache-2.0 */
#include "config_load.h"

/* --- schema and reference --------------------------------------------------------- */

static void
check_preset(const cfg_option *o)
{
	cfg_mem m = {NULL};
	cfg_report r = {.file = "schema", .mem = &m};
	cfg_checker c = {.report = &r, .mem = &m, .folder = "/"};
	cfg_node *const n = qg_cfg_node(&m, NULL, CFG_SCALAR, o->name, 1);
	assert_non_null(n);
	n->text = o->preset;
	qg_cfg_types[o->type].check(&c, o, n);
	if (n->bad)
		fail_msg("the default of %s is not allowed itself", o->name);
	qg_cfg_mem_free(&m);
}

static size_t
check_options(const cfg_option *fields)
{
	size_t n = 0, all = 0;
	for (const cfg_option *o = fields; o->name != NULL; o++, n++) {
		assert_non_null(o->help);
		for (const cfg_option *other = fields; other != o; other++)
			assert_string_not_equal(other->name, o->name);
		if (o->preset != NULL) {
			assert_false(o->required);
			check_preset(o);
		}
		if (o->fields != NULL)
			all += check_options(o->fields);
	}
	assert_true(n <= QG_CFG_OPTIONS_MAX);
	return n + all;
}

static void
the_schema_is_sound(void **state)
{
	(void)state;
	assert_true(check_options(qg_cfg_schema) > 90);
}

static size_t
print_reference(char *buf, size_t room)
{
	FILE *f = fmemopen(buf, room, "w");
	assert_non_null(f);
	qg_config_print_reference(f);
	const long n = ftell(f);
	assert_int_equal(fclose(f), 0);
	assert_true(n > 0 && (size_t)n < room);
	return (size_t)n;
}

static void
the_reference_page_is_of_this_schema(void **state)
{
	static char made[FILE_ROOM], page[FILE_ROOM];
	(void)state;
	(void)print_reference(made, sizeof made);
	(void)read_file("docs/configuration.md", page, sizeof page);
	if (strcmp(made, page) != 0)
		fail_msg("docs/configuration.md is not what `qkdgate config-reference` prints");
}

static void
every_option_is_in_the_reference(const cfg_option *fields, const char *page)
{
	char row[128];
	for (const cfg_option *o = fields; o->name != NULL; o++) {
		assert_true(snprintf(row, sizeof row, "\n| `%s` | ", o->name) > 0);
		assert_non_null(strstr(page, row));
		if (o->fields != NULL)
			every_option_is_in_the_reference(o->fields, page);
	}
}

static void
the_example_of_the_reference_loads(void **state)
{
	static char page[FILE_ROOM];
	(void)state;
	(void)print_reference(page, sizeof page);
	every_option_is_in_the_reference(qg_cfg_schema, page);
	const char *const start = strstr(page, "```yaml\n") + strlen("```yaml\n");
	const char *const end = strstr(start, "```\n");
	assert_non_null(end);
	qg_config *c = load_bytes(start, (size_t)(end - start), QG_OK);
	assert_int_equal(c->n_streams, 2);
	qg_config_free(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_schema_is_sound),
		cmocka_unit_test(the_reference_page_is_of_this_schema),
		cmocka_unit_test(the_example_of_the_reference_loads),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
