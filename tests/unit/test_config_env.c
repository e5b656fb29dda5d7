/* SPDX-License-Identifier: Apache-2.0 */
/* ${VARIABLE} and secret:NAME in the configuration file. */
#include "config_load.h"

#define VAR "QKDGATE_TEST_VALUE"
#define KEY_LINE "  master_key: kme-a.master"
#define KEY_OPTION ":27: store.master_key: "

/* The sample file with `what` in another form, loaded; where `why` is given, refused
 * with exactly that one problem. The caller frees. */
static qg_config *
changed(const char *what, const char *with, const char *why)
{
	static char text[FILE_ROOM], out[2 * FILE_ROOM];
	read_file(DATA "sample.yaml", text, sizeof text);
	const char *const at = strstr(text, what);
	assert_non_null(at);
	const int n = snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, with, at + strlen(what));
	assert_true(n > 0 && (size_t)n < sizeof out);
	if (why == NULL)
		return load_bytes(out, (size_t)n, QG_OK);
	refused(out, (size_t)n, why);
	const char *const end = strchr(report, '\n');
	if (end == NULL || end[1] != '\0')
		fail_msg("not one problem:\n%s", report);
	return NULL;
}

static void
set(const char *value)
{
	assert_int_equal(setenv(VAR, value, 1), 0);
}

static int
clear(void **state)
{
	(void)state;
	unsetenv(VAR);
	unsetenv("QKDGATE_SECRETS");
	return 0;
}

/* kme.id written so comes out as that. */
static void
gives(const char *with, const char *id)
{
	char line[512];
	assert_true(snprintf(line, sizeof line, "id: %s", with) > 0);
	qg_config *c = changed("id: KME-A", line, NULL);
	assert_string_equal(c->kme_id, id);
	qg_config_free(&c);
}

static void
says(const char *with, const char *why)
{
	char line[512], all[512];
	assert_true(snprintf(line, sizeof line, "id: %s", with) > 0);
	assert_true(snprintf(all, sizeof all, ":3: kme.id: %s", why) > 0);
	(void)changed("id: KME-A", line, all);
}

static void
texts(void **state)
{
	(void)state;
	set("B");
	gives("${" VAR "}", "B");
	gives("\"${" VAR "}\"", "B");
	gives("'KME-${" VAR "}-${" VAR "}.x'", "KME-B-B.x");
	gives("${" VAR ":-A}", "B");
	gives("a$$b", "a$b");
	gives("$${" VAR "}", "${" VAR "}");
	gives("$$$$${" VAR "}$$", "$$B$");
	set("");
	gives("KME${" VAR "}", "KME");
	gives("${" VAR ":-KME-A}", "KME-A");
	unsetenv(VAR);
	gives("${" VAR ":-KME-A}", "KME-A");
	gives("x${" VAR ":-}", "x");
	gives("${" VAR ":-a:-b{}", "a:-b{");
}

static void
every_kind_of_value(void **state)
{
	(void)state;
	set("7");
	qg_config *c = changed("flush_ms: 1000", "flush_ms: ${" VAR "}", NULL);
	assert_int_equal(c->flush_ms, 7);
	qg_config_free(&c);
	set("10.1.2.3:443");
	c = changed("listen: 127.0.0.1:18101", "listen: ${" VAR "}", NULL);
	assert_string_equal(c->sae.address, "10.1.2.3");
	assert_int_equal(c->sae.port, 443);
	qg_config_free(&c);
	set("json");
	c = changed("format: text", "format: ${" VAR "}", NULL);
	assert_int_equal(c->log_format, QG_LOG_JSON);
	qg_config_free(&c);
	set("sae-b*");
	c = changed("slaves: [sae-bob", "slaves: [\"${" VAR "}\"", NULL);
	assert_string_equal(c->policy[0].slaves[0], "sae-b*");
	qg_config_free(&c);
	set("urn:ü");
	c = changed("cn: sae-dave", "cn: \"${" VAR "}\"", NULL);
	assert_string_equal(c->saes[1].match.cn, "urn:ü");
	qg_config_free(&c);
}

/* The text of a variable is no YAML, no variable, and no absent value. */
static void
nothing_but_text(void **state)
{
	(void)state;
	set("${HOME}$$");
	gives("${" VAR "}", "${HOME}$$");
	set("null");
	gives("${" VAR "}", "null");
	set("[x,y]");
	(void)changed("slaves: [sae-bob", "slaves: ${" VAR "} # [", ": policy[0].slaves: ");
	set("KME-A, pool: {}");
	says("${" VAR "}", "\"KME-A, pool: {}\" holds a character");
	set("");
	says("${" VAR "}", "has no value: give");
	(void)changed("flush_ms: 1000", "flush_ms: ${" VAR "}", "store.flush_ms: \"\" is not a whole number");
	set("1001 ");
	(void)changed("flush_ms: 1000", "flush_ms: ${" VAR "}", "\"1001 \" is not a whole number");
	set("pool");
	(void)changed("pool:", "${" VAR "}:", "unknown option");
}

static void
unset_and_malformed(void **state)
{
	(void)state;
	says("${" VAR "}", "variable " VAR " is not set: set it, or give ${" VAR ":-DEFAULT}");
	says("x${" VAR "}y${" VAR "}", "variable " VAR " is not set");
	set("x");
	says("$" VAR, "has a $ that begins no ${VARIABLE}: write $$ for a dollar");
	says("a$", "has a $ that begins no");
	says("a$$$", "has a $ that begins no");
	says("a$(id)", "has a $ that begins no");
	says("${" VAR, "has a ${ without its }");
	static const char *const none[] = {"${}", "${:-x}", "${1A}", "${A-B}", "${" VAR "-x}", "${" VAR ":?x}",
					   "${" VAR " }", "${ " VAR "}", "\"${A${" VAR "}}\"",
					   "${" VAR ":-${HOME}}", "${" VAR ":-$$}", "${A.B}", "${\xc3\x84}"};
	for (size_t i = 0; i < sizeof none / sizeof none[0]; i++)
		says(none[i], "names no variable in ${...}: give ${NAME} or ${NAME:-DEFAULT}");
}

static void
hostile_values(void **state)
{
	static const char *const bad[] = {"secretish\n", "secretish\x1b[31m", "secretish\x7f", "secretish\t", "secretish\xff",
					  "secretish\xc0\xaf", "secretish\xc3", "secretish\xed\xa0\x80", "secretish\xe2\x82",
					  "secretish\xf4\x90\x80\x80", "secretish\xf0\x80\x80\x80", "secretish\x80"};
	static char large[8192];
	(void)state;
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		set(bad[i]);
		says("${" VAR "}", "variable " VAR " holds a control character or is not UTF-8");
		assert_null(strstr(report, "secretish"));
	}
	memset(large, 'x', sizeof large - 1);
	set(large);
	says("${" VAR "}", "is longer than 4096 bytes with its variables");
	large[4096] = '\0';
	set(large);
	says("${" VAR "}", "\"xxx"); /* 4096 bytes are, but the option takes fewer */
	says("y${" VAR "}", "is longer than 4096 bytes with its variables");
}

/* Each value counts for itself, so no file makes much of a large variable. */
static void
all_are_reported(void **state)
{
	static char text[FILE_ROOM];
	(void)state;
	const size_t n = read_file(DATA "sample.yaml", text, sizeof text);
	char *const id = strstr(text, "KME-A"), *const file = strstr(text, "kme-a/audit.log");
	memcpy(id, "${QA}", 5);
	memcpy(file, "${QB}", 5);
	refused(text, n, ":3: kme.id: variable QA is not set");
	assert_non_null(strstr(report, ": audit.file: variable QB is not set"));
}

/* --- secrets ------------------------------------------------------------------ */

static void
key_is(const char *with, const char *path)
{
	char line[512];
	assert_true(snprintf(line, sizeof line, "  master_key: %s", with) > 0);
	qg_config *c = changed(KEY_LINE, line, NULL);
	assert_string_equal(c->master_key, path);
	qg_config_free(&c);
}

static void
places_of_secrets(void **state)
{
	(void)state;
	key_is("secret:master.key", "/run/secrets/master.key");
	set("secret:m");
	key_is("${" VAR "}", "/run/secrets/m");
	set("/elsewhere/m");
	key_is("${" VAR "}", "/elsewhere/m");
	set("credential:m");
	key_is("${" VAR "}", "credential:m");
	set("a");
	key_is("/keys/${" VAR "}.key", "/keys/a.key");
	assert_int_equal(setenv("QKDGATE_SECRETS", "/mnt/s", 1), 0);
	key_is("secret:master.key", "/mnt/s/master.key");
	assert_int_equal(setenv("QKDGATE_SECRETS", "relative", 1), 0);
	key_is("secret:master.key", "/run/secrets/master.key");
	qg_config *c = changed("key: pki/kme-a.key", "key: secret:tls.key", NULL);
	assert_string_equal(c->sae.tls.key, "/run/secrets/tls.key");
	qg_config_free(&c);
}

static void
places_that_are_none(void **state)
{
	(void)state;
	(void)changed(KEY_LINE, "  master_key: \"secret:\"", KEY_OPTION "\"secret:\" has no name");
	(void)changed(KEY_LINE, "  master_key: secret:../m", KEY_OPTION "\"secret:../m\" has no name");
	(void)changed(KEY_LINE, "  master_key: secret:a/m", KEY_OPTION "\"secret:a/m\" has no name");
	(void)changed(KEY_LINE, "  master_key: secret:a b", KEY_OPTION "\"secret:a b\" holds a character");
	set("../../etc/m");
	(void)changed(KEY_LINE, "  master_key: secret:${" VAR "}", KEY_OPTION "\"secret:../../etc/m\" has no name");
}

/* What stands in a variable by mistake is not told to everyone who reads the report. */
static void
a_secret_in_a_variable_is_refused_and_not_shown(void **state)
{
	static const char *const secrets[] = {
		"c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00", /* hex */
		"wP/uAMD/7gDA/+4AwP/uAMD/7gDA/+4AwP/uAMD/c0ffee=", "c0ffee", "-----BEGIN PRIVATE KEY-----c0ffee",
		"-----BEGIN PRIVATE KEY-----\nc0ffee\n-----END PRIVATE KEY-----\n", "c0ffee\xff",
	};
	(void)state;
	for (size_t i = 0; i < sizeof secrets / sizeof secrets[0]; i++) {
		set(secrets[i]);
		(void)changed(KEY_LINE, "  master_key: ${" VAR "}", KEY_OPTION);
		assert_null(strstr(report, "c0ffee"));
		(void)changed("key: pki/kme-a.key", "key: ${" VAR "}", "sae_listener.key: ");
		assert_null(strstr(report, "c0ffee"));
		assert_null(strstr(report, "wP/u"));
	}
	(void)changed("key: pki/kme-a.key", "key: |\n    -----BEGIN PRIVATE KEY-----\n    c0ffee",
		      "sae_listener.key: looks like the key itself: give a file name or secret:NAME");
	assert_null(strstr(report, "c0ffee"));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, clear, clear)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(texts),
		CASE(every_kind_of_value),
		CASE(nothing_but_text),
		CASE(unset_and_malformed),
		CASE(hostile_values),
		CASE(all_are_reported),
		CASE(places_of_secrets),
		CASE(places_that_are_none),
		CASE(a_secret_in_a_variable_is_refused_and_not_shown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
