/* SPDX-License-Identifier: Apache-2.0 */

#include "config_load.h"

static const char head[] =
	"kme: {id: A}\n"
	"sae_listener: {listen: \"127.0.0.1:1\", certificate: c, key: k, ca: a}\n"
	"kms_listener: {listen: \"127.0.0.1:2\", certificate: c, key: k, ca: a}\n"
	"store: {database: s/db, anchor: a/anchor, master_key: m, key_ring: a/ring}\n"
	"audit: {file: audit.log}\n"
	"neighbours: [{id: B, url: \"https://b:1\", certificate: {cn: b}}]\n";

#define LISTENER "push_listener: {listen: \"127.0.0.1:3\", certificate: c, key: k, ca: a}\n"
#define STREAM(more) \
	"streams:\n  - {name: ab, neighbour: B, direction: outbound, source: {address: \"h:1\", transport: tcp, " \
	"source_uri: a, destination_uri: b, " more "}}\n"

static qg_config *
loaded(const char *rest)
{
	char text[FILE_ROOM];
	const int n = snprintf(text, sizeof text, "%s%s", head, rest);
	assert_true(n > 0 && (size_t)n < sizeof text);
	return load_bytes(text, (size_t)n, QG_OK);
}

/* Exactly one problem. */
static void
says(const char *rest, const char *why)
{
	char text[FILE_ROOM];
	const int n = snprintf(text, sizeof text, "%s%s", head, rest);
	assert_true(n > 0 && (size_t)n < sizeof text);
	refused(text, (size_t)n, why);
	const char *const end = strchr(report, '\n');
	if (end == NULL || end[1] != '\0')
		fail_msg("one problem is right, not\n%s", report);
}

static void
profiles_and_modes(void **state)
{
	(void)state;
	static const struct {
		const char *rest;
		qg_source_profile profile;
		qg_source_mode mode;
	} rows[] = {
		{STREAM("profile: bin-a"), QG_PROFILE_BIN_A, QG_MODE_BY_PROFILE},
		{STREAM("profile: bin-b, mode: pull"), QG_PROFILE_BIN_B, QG_MODE_PULL},
		{STREAM("profile: json, mode: push"), QG_PROFILE_JSON, QG_MODE_PUSH},
		{STREAM("profile: json-netxpto, mode: pull"), QG_PROFILE_JSON_NETXPTO, QG_MODE_PULL},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		qg_config *c = loaded(rows[i].rest);
		assert_int_equal(c->streams[0].source.profile, rows[i].profile);
		assert_int_equal(c->streams[0].source.mode, rows[i].mode);
		assert_false(c->has_push);
		assert_false(c->streams[0].source.has_pusher);
		qg_config_free(&c);
	}
	says(STREAM("profile: bin-a, mode: push"), "streams[0].source.mode: bin-a has no push: give pull\n");
	says(STREAM("profile: bin-b, mode: push"), "streams[0].source.mode: bin-b has no push: give pull\n");
	says(LISTENER STREAM("profile: http-push, pusher: {dns: m}, mode: pull"),
	     "streams[0].source.mode: http-push has no pull: give push\n");
	says(STREAM("profile: soap"), "none of: bin-a, bin-b, json, json-netxpto, http-push");
}

static void
pushers_and_their_listener(void **state)
{
	(void)state;
	qg_config *c = loaded(LISTENER STREAM("profile: http-push, pusher: {dns: m.example}"));
	assert_true(c->has_push);
	assert_int_equal(c->push.port, 3);
	assert_string_equal(c->push.address, "127.0.0.1");
	assert_int_equal(c->push.max_connections, 4096);
	assert_string_equal(c->streams[0].source.pusher.dns, "m.example");
	assert_null(c->streams[0].source.pusher.uri);
	qg_config_free(&c);
	says(STREAM("profile: http-push, pusher: {dns: m}"),
	     "streams[0].source.profile: http-push needs push_listener, which is missing: give that section\n");
	says(LISTENER STREAM("profile: http-push"), "streams[0].source.pusher: is missing: give the name");
	says(LISTENER STREAM("profile: http-push, pusher: {dns: m, cn: m}"), "has more than one name");
	says(LISTENER STREAM("profile: http-push, pusher: {}"), "has no name");
	says(STREAM("profile: json, mode: push, pusher: {dns: m}"),
	     "streams[0].source.pusher: has no use with json: take it out\n");
	says(LISTENER STREAM("profile: json, mode: push"), "push_listener: has no use without a stream");
	says("push_listener: {listen: \"127.0.0.1:2\", certificate: c, key: k, ca: a}\n"
	     STREAM("profile: http-push, pusher: {dns: m}"),
	     "push_listener.listen: is the address of kms_listener: give another address or port\n");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(profiles_and_modes),
		cmocka_unit_test(pushers_and_their_listener),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
