/* SPDX-License-Identifier: Apache-2.0 */
#include "config_load.h"

/* What differs between two configurations, and what of it a reload puts in force. */

static char text[FILE_ROOM], changed[FILE_ROOM];

/* full.yaml with `with` in the place of `what`. */
static qg_config *
altered(const char *what, const char *with)
{
	(void)read_file(DATA "full.yaml", text, sizeof text);
	char *at = strstr(text, what);
	if (at == NULL)
		fail_msg("%s is not in full.yaml", what);
	const int n = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - text), text, with, at + strlen(what));
	assert_true(n > 0 && (size_t)n < sizeof changed);
	return load_bytes(changed, (size_t)n, QG_OK);
}

static qg_config *
unaltered(void)
{
	return altered("kme:", "kme:");
}

/* The change needs a restart and is named, or (name "") does not. */
static void
differs_in(const char *what, const char *with, const char *name)
{
	char names[256];
	qg_config *was = unaltered(), *now = altered(what, with);
	assert_int_equal(qg_config_restart_options(was, now, names, sizeof names), name[0] != '\0' ? QG_E_STATE : QG_OK);
	assert_string_equal(names, name);
	assert_false(qg_config_same(was, now));
	qg_config_free(&was);
	qg_config_free(&now);
}

static void
the_same_is_the_same(void **state)
{
	char names[64];
	qg_config *a = unaltered(), *b = unaltered();
	(void)state;
	assert_true(qg_config_same(a, b));
	assert_int_equal(qg_config_restart_options(a, b, names, sizeof names), QG_OK);
	assert_string_equal(names, "");
	qg_config_free(&a);
	qg_config_free(&b);
}

static void
what_needs_a_restart_is_named(void **state)
{
	(void)state;
	differs_in("ready_chunks: 512", "ready_chunks: 1024", "pool.ready_chunks");
	differs_in("scrape: {listen: \"127.0.0.1:10\"", "scrape: {listen: \"127.0.0.1:11\"", "admin.scrape.listen");
	differs_in("socket_group: operators", "socket_group: wheel", "admin.socket_group");
	differs_in("cost: 1000", "cost: 999", "topology.links[0].cost");
	differs_in("- {a: KME-C, b: KME-B}", "- {a: KME-C, b: KME-B}\n    - {a: KME-B, b: KME-D}", "topology.links");
	differs_in("node_percent: 99", "node_percent: 98", "streams[1].node_percent");
	differs_in("[KME-B, KME-D, KME-E]", "[KME-B, KME-D, KME-F]", "streams[2].relay.routes[0].via[2]");
}

static void
what_a_reload_puts_in_force_is_not(void **state)
{
	(void)state;
	differs_in("sae_keys_per_s: 1", "sae_keys_per_s: 7", "");
	differs_in("max_keys: 1024", "max_keys: 9", "");
	differs_in("- {master: a, slaves: [b]}", "- {master: a, slaves: [b]}\n  - {master: c, slaves: [d]}", "");
	differs_in("level: debug", "level: info", "");
	differs_in("{name: root, certificate: {cn: root}}", "{name: toor, certificate: {cn: toor}}", "");
}

static void
a_short_room_cuts_the_names(void **state)
{
	char names[8];
	qg_config *was = unaltered(), *now = altered("ready_chunks: 512", "ready_chunks: 1024");
	(void)state;
	assert_int_equal(qg_config_restart_options(was, now, names, sizeof names), QG_E_STATE);
	assert_string_equal(names, "pool.re");
	qg_config_free(&was);
	qg_config_free(&now);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_same_is_the_same),
		cmocka_unit_test(what_needs_a_restart_is_named),
		cmocka_unit_test(what_a_reload_puts_in_force_is_not),
		cmocka_unit_test(a_short_room_cuts_the_names),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("config_compare", tests, NULL, NULL);
}
