/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/platform/router_internal.h"
#include "seed.h"

static void
handle(qg_http_request *req, void *ctx)
{
	(void)req, (void)ctx;
}

static const qg_http_route table[] = {
	{"GET", "/api/v1/keys/{slave}/status", handle, 0},
	{"GET", "/api/v1/keys/{slave}/enc_keys", handle, 0},
	{"POST", "/api/v1/keys/{slave}/enc_keys", handle, 4096},
	{"GET", "/api/v1/keys/{slave}/{rest}", handle, 0},
	{"GET", "/openapi.yaml", handle, 0},
	{"GET", "/", handle, 0},
	{"DELETE", "/api/v1/keys/all/enc_keys", handle, 0},
};
#define N_TABLE (sizeof table / sizeof table[0])

static qg_router *router;
static char scratch[8192];
static qg_target target;
static qg_route_match match;
static char allow[QG_ROUTER_ALLOW_MAX];

static int
setup(void **state)
{
	(void)state;
	return qg_router_new(table, N_TABLE, &router) == QG_OK ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	qg_router_free(&router);
	return 0;
}

static qg_err
go(const char *method, const char *raw)
{
	memset(scratch, 'x', sizeof scratch);
	qg_err err = qg_target_parse(raw, scratch, &target);
	return err != QG_OK ? err : qg_router_match(router, method, &target, &match, allow);
}

static void
finds_routes(void **state)
{
	(void)state;
	assert_int_equal(go("GET", "/api/v1/keys/sae-bob/status"), QG_OK);
	assert_ptr_equal(match.route, &table[0]);
	assert_int_equal(match.n_parts, 1);
	assert_string_equal(match.part[0], "sae-bob");
	assert_int_equal(go("POST", "/api/v1/keys/sae-bob/enc_keys"), QG_OK);
	assert_ptr_equal(match.route, &table[2]);
	assert_int_equal(go("GET", "/"), QG_OK);
	assert_ptr_equal(match.route, &table[5]);
	assert_int_equal(go("GET", "/openapi.yaml?x"), QG_OK);
	assert_ptr_equal(match.route, &table[4]);
}

static void
literal_goes_before_part(void **state)
{
	(void)state;
	assert_int_equal(go("GET", "/api/v1/keys/a/status"), QG_OK);
	assert_ptr_equal(match.route, &table[0]);
	assert_int_equal(go("GET", "/api/v1/keys/a/other"), QG_OK);
	assert_ptr_equal(match.route, &table[3]);
	assert_string_equal(match.part[1], "other");
	assert_int_equal(go("DELETE", "/api/v1/keys/all/enc_keys"), QG_OK);
	assert_ptr_equal(match.route, &table[6]);
	assert_int_equal(match.n_parts, 0);
	assert_int_equal(go("GET", "/api/v1/keys//status"), QG_OK);
	assert_int_equal(match.n_parts, 1);
	assert_string_equal(match.part[0], "");
	/* The literal one does not know GET, the general one does. */
	assert_int_equal(go("GET", "/api/v1/keys/all/enc_keys"), QG_OK);
	assert_ptr_equal(match.route, &table[1]);
	assert_string_equal(match.part[0], "all");
}

static void
unknown_paths(void **state)
{
	(void)state;
	static const char *const paths[] = {
		"/api/v1/keys/bob",  "/api/v1/keys/bob/status/",  "//api/v1/keys/bob/status",
		"/api/v1/keys/",     "/API/v1/keys/bob/status",   "/openapi.yam",         "/openapi.yaml/",
		"",                  "*",                         "api/v1/keys/b/status", "?x=1",
		"/api%2Fv1/keys/bob/status", "/x/../openapi.yaml", "/./openapi.yaml",
		"/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17/18/19/20",
	};
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
		assert_int_equal(go("GET", paths[i]), QG_E_NOTFOUND);
	/* One that would match, were the tail cut off at the limit of segments. */
	char deep[200] = "/api/v1/keys/bob/status";
	for (int i = 0; i < 40; i++)
		strcat(deep, "/a");
	assert_int_equal(go("GET", deep), QG_E_NOTFOUND);
}

static void
known_path_other_method(void **state)
{
	(void)state;
	assert_int_equal(go("PUT", "/api/v1/keys/bob/enc_keys"), QG_E_UNSUPPORTED);
	assert_string_equal(allow, "GET, POST");
	assert_int_equal(go("HEAD", "/api/v1/keys/bob/status"), QG_E_UNSUPPORTED);
	assert_string_equal(allow, "GET");
	assert_int_equal(go("get", "/"), QG_E_UNSUPPORTED);
	assert_int_equal(go("PUT", "/api/v1/keys/all/enc_keys"), QG_E_UNSUPPORTED);
	assert_string_equal(allow, "DELETE, GET, POST");
}

static void
decodes_after_splitting(void **state)
{
	(void)state;
	assert_int_equal(go("GET", "/api/v1/keys/a%2Fb/status"), QG_OK);
	assert_string_equal(match.part[0], "a/b");
	assert_int_equal(go("GET", "/api/v1/keys/%2e%2e/status"), QG_OK);
	assert_string_equal(match.part[0], "..");
	assert_int_equal(go("GET", "/api/v1/keys/a%3Fb%26c/status?d=%26"), QG_OK);
	assert_string_equal(match.part[0], "a?b&c");
	assert_string_equal(target.query[0].value, "&");
	assert_int_equal(go("GET", "/%61pi/v1/keys/%C3%A4/status"), QG_OK);
	assert_string_equal(match.part[0], "\xc3\xa4");
	assert_int_equal(go("GET", "/api/v1/keys/%2541/status"), QG_OK);
	assert_string_equal(match.part[0], "%41"); /* decoded once, not twice */
	assert_int_equal(go("GET", "/api/v1/keys/a+b/status"), QG_OK);
	assert_string_equal(match.part[0], "a+b");
	assert_string_equal(target.path, "/api/v1/keys/a+b/status");
}

static void
bad_escapes(void **state)
{
	(void)state;
	static const char *const paths[] = {
		"/api/v1/keys/a%00b/status", "/api/v1/keys/%00/status", "/api/v1/keys/a%/status", "/api/v1/keys/a%4/status",
		"/api/v1/keys/a%4g/status",  "/api/v1/keys/a%g4/status", "/openapi.yaml%",        "/openapi.yaml%4",
		"/?a=%00",                   "/?%zz=1",                  "/?a=1&b=%",
		"/api/v1/keys/a\tb/status",
		"/api/v1/keys/a\x7f/status", "/\x01",                    "/%-1",                  "/% 1",
	};
	for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
		assert_int_equal(go("GET", paths[i]), QG_E_PARSE);
		assert_int_equal(target.n_segments + target.n_query, 0);
		assert_non_null(target.path);
	}
}

static void
query_arguments(void **state)
{
	(void)state;
	assert_int_equal(go("GET", "/?number=3&size=256&&flag&empty=&a=b=c&sp=x+y%2B"), QG_OK);
	static const char *const want[][2] = {
		{"number", "3"}, {"size", "256"}, {"flag", ""}, {"empty", ""}, {"a", "b=c"}, {"sp", "x y+"},
	};
	assert_int_equal(target.n_query, 6);
	for (size_t i = 0; i < 6; i++) {
		assert_string_equal(target.query[i].name, want[i][0]);
		assert_string_equal(target.query[i].value, want[i][1]);
	}
	assert_string_equal(target.path, "/");

	char many[1024] = "/?";
	for (int i = 0; i < QG_TARGET_QUERY_MAX; i++)
		strcat(many, "a=1&");
	assert_int_equal(go("GET", many), QG_OK);
	strcat(many, "a=1");
	assert_int_equal(go("GET", many), QG_E_RANGE);
}

static void
absolute_form(void **state)
{
	(void)state;
	assert_int_equal(go("GET", "https://kme.example:443/api/v1/keys/bob/status?x=1"), QG_OK);
	assert_string_equal(match.part[0], "bob");
	assert_string_equal(target.path, "/api/v1/keys/bob/status");
	assert_int_equal(go("GET", "https://kme.example"), QG_E_NOTFOUND);
	assert_int_equal(go("GET", "https://"), QG_E_NOTFOUND);
	/* In origin form the same characters are just a path. */
	assert_int_equal(go("GET", "/x://y/openapi.yaml"), QG_E_NOTFOUND);
}

static void
bad_tables(void **state)
{
	(void)state;
	static const qg_http_route bad[][2] = {
		{{"GET", "/a/{x}", handle, 0}, {"GET", "/a/{y}", handle, 0}},
		{{"GET", "/a", handle, 0}, {"GET", "/a", handle, 0}},
		{{"GET", "a", handle, 0}, {"GET", "/b", handle, 0}},
		{{"GET", "/a{x}", handle, 0}, {"GET", "/b", handle, 0}},
		{{"GET", "/{}", handle, 0}, {"GET", "/b", handle, 0}},
		{{"GET", "/{x", handle, 0}, {"GET", "/b", handle, 0}},
		{{"GET", "/b", handle, 0}, {"", "/c", handle, 0}},
		{{"GET", "/b", handle, 0}, {"GET", "/c", NULL, 0}},
		{{"GET", "/1/2/3/4/5/6/7/8/9/10/11/12/13/14/15/16/17", handle, 0}, {"GET", "/c", handle, 0}},
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		qg_router *r = NULL;
		assert_int_equal(qg_router_new(bad[i], 2, &r), QG_E_INVAL);
		assert_null(r);
	}
	qg_router *empty = NULL;
	assert_int_equal(qg_router_new(NULL, 0, &empty), QG_OK);
	assert_int_equal(qg_target_parse("/", scratch, &target), QG_OK);
	assert_int_equal(qg_router_match(empty, "GET", &target, &match, allow), QG_E_NOTFOUND);
	qg_router_free(&empty);
	qg_router_free(&empty);
}

/* Whatever comes: pieces lie within the scratch and never hold what they must not. */
static void
random_targets(void **state)
{
	(void)state;
	unsigned seed = test_seed();
	static const char alphabet[] = "/%?&=+0123456789abcfGX.:{}\x01\xff";
	for (int round = 0; round < 20000; round++) {
		char raw[80];
		size_t len = (size_t)rand_r(&seed) % (sizeof raw - 2);
		raw[0] = '/';
		for (size_t i = 1; i <= len; i++)
			raw[i] = alphabet[(size_t)rand_r(&seed) % (sizeof alphabet - 1)];
		raw[len + 1] = '\0';
		char *exact = malloc(2 * (len + 2)); /* so that a sanitizer sees one byte too many */
		assert_non_null(exact);
		if (qg_target_parse(raw, exact, &target) == QG_OK) {
			for (size_t i = 0; i < target.n_segments; i++)
				assert_true(target.segment[i] >= exact && target.segment[i] < exact + 2 * (len + 2));
			(void)!qg_router_match(router, "GET", &target, &match, allow);
		}
		free(exact);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_routes),
		cmocka_unit_test(literal_goes_before_part),
		cmocka_unit_test(unknown_paths),
		cmocka_unit_test(known_path_other_method),
		cmocka_unit_test(decodes_after_splitting),
		cmocka_unit_test(bad_escapes),
		cmocka_unit_test(query_arguments),
		cmocka_unit_test(absolute_form),
		cmocka_unit_test(bad_tables),
		cmocka_unit_test(random_targets),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, setup, teardown);
}
