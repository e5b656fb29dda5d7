/* SPDX-License-Identifier: Apache-2.0 */
/* The ETSI GS QKD 014 server over real mutual TLS, with the real directory,
 * policy, rates and audit log. The keystore stands in this file, so that every
 * outcome it can have, early or late, is at hand. */
#include "qkdgate/etsi014.h"

#include "etsi014_rig.h"
#include "qkdgate/clock.h"
#include "qkdgate/embed.h"

/* --- the methods ------------------------------------------------------------------------ */

static void
test_status(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *r = get(g, "alice", KEYS("sae-zoe/status"));
	assert_int_equal(r->status, 200);
	assert_string_equal(r->type, "application/json");
	assert_string_equal(r->body,
			    "{\"source_KME_ID\":\"KME-A\",\"target_KME_ID\":\"KME-B\","
			    "\"master_SAE_ID\":\"sae-alice\","
			    "\"slave_SAE_ID\":\"sae-zoe\",\"key_size\":256,\"stored_key_count\":31,"
			    "\"max_key_count\":100,\"max_key_per_request\":128,\"max_key_size\":512,"
			    "\"min_key_size\":64,\"max_SAE_ID_count\":2}");
	AUTO_REPLY *local = get(g, "carol", KEYS("sae-bob/status"));
	assert_string_equal(local->body,
			    "{\"source_KME_ID\":\"KME-A\",\"target_KME_ID\":\"KME-A\","
			    "\"master_SAE_ID\":\"sae-carol\","
			    "\"slave_SAE_ID\":\"sae-bob\",\"key_size\":128,\"stored_key_count\":2000,"
			    "\"max_key_count\":2000,\"max_key_per_request\":2,\"max_key_size\":256,"
			    "\"min_key_size\":64,\"max_SAE_ID_count\":0}");
	AUTO_REPLY *query = get(g, "alice", KEYS("sae-zoe/status?number=1"));
	expect_error(query, 400, "query parameter number is not known");
	assert_int_equal(atomic_load(&store.calls), 0);
}

static void
test_get_forms(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *one = get(g, "alice", KEYS("sae-bob/enc_keys"));
	expect_keys(one, 1, 32);
	char path[128];
	(void)snprintf(path, sizeof path, KEYS("sae-alice/dec_keys?key_ID=%s"), id_at(one, 0));
	AUTO_REPLY *dec = get(g, "bob", path);
	expect_keys(dec, 1, 32);
	assert_string_equal(id_at(dec, 0), id_at(one, 0));
	AUTO_REPLY *twice = get(g, "bob", path);
	expect_error(twice, 400, "one or more keys specified are not found on KME");
	AUTO_REPLY *many = get(g, "alice", KEYS("sae-bob/enc_keys?size=512&number=128"));
	expect_keys(many, 128, 64);
	/* some clients say Content-Type where there is no content */
	AUTO_REPLY *typed = send_to(
		g, "alice",
		(request){.method = "GET", .path = KEYS("sae-bob/enc_keys"), .type = "application/json"});
	expect_keys(typed, 1, 32);
	/* the path is percent-encoded, the query too */
	AUTO_REPLY *encoded = get(g, "alice", KEYS("%73ae%2Dbob/enc_keys?n%75mber=%32"));
	expect_keys(encoded, 2, 32);
}

static void
test_post_forms(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *empty = send_to(g, "alice",
				    (request){.method = "POST", .path = KEYS("sae-bob/enc_keys")});
	expect_keys(empty, 1, 32);
	AUTO_REPLY *three = post(g, "alice", KEYS("sae-bob/enc_keys"),
				 "{\"number\":3,\"size\":128,\"extension_mandatory\":"
				 "[{\"max_age_ms\":60000},{\"min_hops\":0},{\"max_hops\":4}],"
				 "\"extension_optional\":[{\"max_age_ms\":1},{\"x\":[]}]}");
	expect_keys(three, 3, 16);
	assert_int_equal(store.seen.max_age_ms, 60000);
	assert_int_equal(store.seen.min_hops, 0);
	assert_int_equal(store.seen.max_hops, 4);
	char body[512];
	(void)snprintf(body, sizeof body,
		       "{\"key_IDs\":[{\"key_ID\":\"%s\"},{\"key_ID\":\"%s\",\"key_ID_extension\":{}}]}",
		       id_at(three, 2), id_at(three, 0));
	AUTO_REPLY *dec = post(g, "bob", KEYS("sae-alice/dec_keys"), body);
	expect_keys(dec, 2, 16);
	assert_string_equal(id_at(dec, 0), id_at(three, 2));
	assert_string_equal(id_at(dec, 1), id_at(three, 0));

	/* one of two is gone: neither is delivered, the other is still there */
	(void)snprintf(body, sizeof body, "{\"key_IDs\":[{\"key_ID\":\"%s\"},{\"key_ID\":\"%s\"}]}",
		       id_at(three, 1),
		       id_at(three, 0));
	AUTO_REPLY *gone = post(g, "bob", KEYS("sae-alice/dec_keys"), body);
	expect_error(gone, 400, "one or more keys specified are not found on KME");
	(void)snprintf(body, sizeof body, "{\"key_IDs\":[{\"key_ID\":\"%s\"}]}", id_at(three, 1));
	AUTO_REPLY *still = post(g, "bob", KEYS("sae-alice/dec_keys"), body);
	expect_keys(still, 1, 16);
}

/* Of the i-th key; -1: not told. */
static json_int_t
hops_at(const reply *r, size_t i)
{
	const json_t *extension = json_object_get(key_at(r, i), "key_extension");
	if (extension == NULL)
		return -1;
	assert_int_equal(json_object_size(extension), 1);
	return json_integer_value(json_object_get(extension, "hops"));
}

static void
test_hops(void **state)
{
	static const uint32_t of[] = {0, 2};
	const gateway *g = *state;
	AUTO_REPLY *plain = get(g, "alice", KEYS("sae-bob/enc_keys?number=2"));
	expect_keys(plain, 2, 32);
	assert_int_equal(hops_at(plain, 1), -1);
	AUTO_REPLY *asked = post(g, "alice", KEYS("sae-bob/enc_keys"), "{\"extension_mandatory\":[{\"max_hops\":0}]}");
	expect_keys(asked, 1, 32);
	assert_int_equal(hops_at(asked, 0), 0);
	store.hops = of;
	AUTO_REPLY *relayed = get(g, "alice", KEYS("sae-bob/enc_keys?number=2"));
	expect_keys(relayed, 2, 32);
	assert_int_equal(hops_at(relayed, 0), -1);
	assert_int_equal(hops_at(relayed, 1), 2);
	AUTO_REPLY *limited = post(g, "alice", KEYS("sae-bob/enc_keys"),
				   "{\"number\":2,\"extension_mandatory\":[{\"max_hops\":3},{\"min_hops\":0}]}");
	expect_keys(limited, 2, 32);
	assert_int_equal(hops_at(limited, 0), 0);
	assert_int_equal(hops_at(limited, 1), 2);
	assert_int_equal(store.seen.max_hops, 3);
	char path[256]; /* the far end does not know the route, and says nothing of it */
	(void)snprintf(path, sizeof path, KEYS("sae-alice/dec_keys?key_ID=%s"), id_at(relayed, 1));
	AUTO_REPLY *dec = get(g, "bob", path);
	expect_keys(dec, 1, 32);
	assert_int_equal(hops_at(dec, 0), -1);
}

static void
test_content_type(void **state)
{
	const gateway *g = *state;
	static const struct {
		const char *type, *body;
		long status;
	} cases[] = {
		{"application/json", "{}", 200},
		{"application/json; charset=UTF-8", "{}", 200},
		{"text/plain", "{}", 400},
		{"application/x-www-form-urlencoded", "number=1", 400},
		{"application/json; charset=latin1", "{}", 400},
		{NULL, "{}", 400},
		{"text/plain", NULL, 200},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		AUTO_REPLY *r = send_to(g, "alice",
					(request){.method = "POST",
						  .path = KEYS("sae-bob/enc_keys"),
						  .type = cases[i].type,
						  .body = cases[i].body});
		assert_int_equal(r->status, cases[i].status);
		if (r->status == 400)
			expect_error(r, 400, "Content-Type must be application/json");
	}
}

static void
test_openapi(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *r = get(g, "mallory", "/openapi.yaml");
	assert_int_equal(r->status, 200);
	assert_string_equal(r->type, "application/yaml");
	assert_int_equal(r->len, qg_embed_openapi_etsi014_yaml_len);
	assert_memory_equal(r->body, qg_embed_openapi_etsi014_yaml, r->len);
	/* every path of the route table is described, and no other */
	const size_t n = 6;
	const char *at = r->body;
	for (size_t i = 0; i < n; i++) {
		char line[128];
		(void)snprintf(line, sizeof line, "\n  %s:\n", g->server->routes[i].pattern);
		assert_non_null(strstr(r->body, line));
	}
	size_t described = 0;
	for (; (at = strstr(at, "\n  /")) != NULL; at++)
		described++;
	assert_int_equal(described, 4);
}

/* --- who may what ---------------------------------------------------------------------- */

typedef struct refusal {
	const char *who, *method, *path, *body;
	long status;
	const char *message;
} refusal;

static void
expect_refusals(const gateway *g, const refusal *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		AUTO_REPLY *r = send_to(g, list[i].who,
					(request){.method = list[i].method,
						  .path = list[i].path,
						  .type = list[i].body != NULL ? "application/json" : NULL,
						  .body = list[i].body});
		print_message("case %zu\n", i);
		assert_non_null(r);
		expect_error(r, list[i].status, list[i].message);
	}
	assert_int_equal(atomic_load(&store.calls), 0);
}

#define MALFORMED(field) field " is blank or malformed, or longer than 255 bytes"
#define ID "?key_ID=00000000-0000-4000-8000-000000000000"
#define ID_BODY "{\"key_IDs\":[{\"key_ID\":\"00000000-0000-4000-8000-000000000000\"}]}"

static void
test_order_of_checks(void **state)
{
	char long_path[512] = "/api/v1/keys/";
	memset(long_path + strlen(long_path), 'a', 256);
	strcat(long_path, "/enc_keys");
	const refusal list[] = {
		/* nobody's certificate: before everything */
		{"wrongname", "GET", KEYS("sae-bob/status"), NULL, 401, NULL},
		{"wrongname", "POST", KEYS("%20/enc_keys"), "{", 401, NULL},
		{"wrongname", "GET", "/openapi.yaml", NULL, 401, NULL},
		{"wrongname", "GET", "/nothing", NULL, 401, NULL},
		/* the path, then the caller's own ID */
		{"mallory", "POST", KEYS("%20/enc_keys"), "{", 400, MALFORMED("slave_SAE_ID")},
		{"alice", "GET", KEYS("a%0Ab/enc_keys"), NULL, 400, MALFORMED("slave_SAE_ID")},
		{"alice", "GET", KEYS("%ff/enc_keys"), NULL, 400, MALFORMED("slave_SAE_ID")},
		{"alice", "GET", long_path, NULL, 400, MALFORMED("slave_SAE_ID")},
		{"alice", "GET", KEYS("a%00b/enc_keys"), NULL, 400, NULL},
		{"alice", "GET", KEYS("a%zzb/enc_keys"), NULL, 400, NULL},
		{"bob", "GET", KEYS("%20%20/dec_keys") ID, NULL, 400, MALFORMED("master_SAE_ID")},
		{"mallory", "POST", KEYS("sae-mallory/enc_keys"), "{", 400,
		 "slave_SAE_ID is the caller's own ID"},
		{"alice", "GET", KEYS("sae-alice/status"), NULL, 400, "slave_SAE_ID is the caller's own ID"},
		{"alice", "GET", KEYS("sae-alice/dec_keys") ID, NULL, 400,
		 "master_SAE_ID is the caller's own ID"},
		/* the pair, before the body */
		{"mallory", "GET", KEYS("sae-bob/status"), NULL, 401, NULL},
		{"mallory", "GET", KEYS("sae-bob/enc_keys"), NULL, 401, NULL},
		{"mallory", "POST", KEYS("sae-bob/enc_keys"), "{", 401, NULL},
		{"mallory", "POST", KEYS("sae-alice/dec_keys"), "{", 401, NULL},
		{"mallory", "GET", KEYS("sae-alice/dec_keys") ID, NULL, 401, NULL},
		{"alice", "GET", KEYS("sae-mallory/enc_keys"), NULL, 401, NULL},
		{"alice", "GET", KEYS("sae-nobody/enc_keys"), NULL, 401, NULL},
		{"bob", "GET", KEYS("sae-carol/enc_keys"), NULL, 401, NULL}, /* one way only */
		{"carol", "GET", KEYS("sae-bob/dec_keys") ID, NULL, 401, NULL},
		{"alice", "GET", KEYS("sae-ghost/enc_keys"), NULL, 400, "unknown slave_SAE_ID"},
		{"alice", "GET", KEYS("sae-ghost/status"), NULL, 400, "unknown slave_SAE_ID"},
		{"alice", "GET", KEYS("sae-ghost/dec_keys") ID, NULL, 400, "unknown master_SAE_ID"},
		{"mallory", "GET", KEYS("sae-ghost/enc_keys"), NULL, 401, NULL},
		/* the body, then the limits of the pair */
		{"alice", "POST", KEYS("sae-bob/enc_keys"), "{", 400, "request body is not valid JSON"},
		{"alice", "POST", KEYS("sae-bob/enc_keys?number=1"), "{}", 400,
		 "query parameter number is not known"},
		{"alice", "GET", KEYS("sae-bob/enc_keys?foo"), NULL, 400, "query parameter foo is not known"},
		{"alice", "GET", KEYS("sae-bob/enc_keys?number=1&number=1"), NULL, 400,
		 "query parameter number is a duplicate"},
		{"alice", "GET", KEYS("sae-bob/enc_keys?number=1&size=64&x&y&z"), NULL, 400,
		 "query parameter x is not known"},
		{"alice", "GET", KEYS("sae-bob/enc_keys?number=129"), NULL, 400,
		 "number must be from 1 to 128"},
		{"alice", "GET", KEYS("sae-bob/enc_keys?size=100"), NULL, 400,
		 "size shall be a multiple of 8"},
		{"alice", "GET", KEYS("sae-bob/enc_keys?size=4104"), NULL, 400,
		 "size must be from 64 to 4096 bits"},
		{"alice", "GET", KEYS("sae-zoe/enc_keys?size=520"), NULL, 400,
		 "size must be from 64 to 512 bits"},
		{"carol", "GET", KEYS("sae-bob/enc_keys?number=3"), NULL, 400, "number must be from 1 to 2"},
		{"carol", "GET", KEYS("sae-bob/enc_keys?size=264"), NULL, 400,
		 "size must be from 64 to 256 bits"},
		{"bob", "GET", KEYS("sae-alice/dec_keys"), NULL, 400, "query parameter key_ID is missing"},
		{"bob", "GET", KEYS("sae-alice/dec_keys?key_ID=1"), NULL, 400, "key_ID is not a UUID: 1"},
		{"bob", "GET", KEYS("sae-alice/dec_keys") ID "&number=1", NULL, 400,
		 "query parameter number is not known"},
		{"bob", "POST", KEYS("sae-alice/dec_keys"), NULL, 400,
		 "request body is empty: key_IDs is missing"},
		{"bob", "POST", KEYS("sae-alice/dec_keys"), "{\"key_IDs\":[]}", 400, "key_IDs is empty"},
		{"bob", "POST", KEYS("sae-alice/dec_keys") ID, ID_BODY, 400,
		 "query parameter key_ID is not known"},
	};
	expect_refusals(*state, list, COUNT(list));
}

static void
test_http_refusals(void **state)
{
	static const refusal list[] = {
		{"alice", "GET", "/", NULL, 404, NULL},
		{"alice", "GET", KEYS("sae-bob/enc_keys/x"), NULL, 404, NULL},
		{"alice", "GET", KEYS("sae-bob"), NULL, 404, NULL},
		{"alice", "GET", KEYS("sae-bob/other"), NULL, 404, NULL},
		{"alice", "PUT", KEYS("sae-bob/enc_keys"), NULL, 405, NULL},
		{"alice", "POST", KEYS("sae-bob/status"), NULL, 405, NULL},
		{"alice", "GET", KEYS("sae-bob/enc_keys"), "{}", 400, NULL}, /* GET with a body */
	};
	expect_refusals(*state, list, COUNT(list));
	const gateway *g = *state;
	AUTO_REPLY *allow = send_to(g, "alice",
				    (request){.method = "DELETE", .path = KEYS("sae-bob/enc_keys")});
	assert_int_equal(allow->status, 405);
	assert_non_null(strstr(allow->allow, "GET"));
	assert_non_null(strstr(allow->allow, "POST"));

	/* one byte over the limit, and as many as allowed */
	char body[BODY_LIMIT + 2];
	memset(body, ' ', sizeof body);
	body[0] = '{';
	body[BODY_LIMIT] = '}';
	body[BODY_LIMIT + 1] = '\0';
	AUTO_REPLY *over = post(g, "alice", KEYS("sae-bob/enc_keys"), body);
	expect_error(over, 400, NULL);
	assert_int_equal(atomic_load(&store.calls), 0);
	body[BODY_LIMIT - 1] = '}';
	body[BODY_LIMIT] = '\0';
	AUTO_REPLY *full = post(g, "alice", KEYS("sae-bob/enc_keys"), body);
	expect_keys(full, 1, 32);
}

static void
test_unsupported_extensions(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *r = post(g, "alice", KEYS("sae-bob/enc_keys"),
			     "{\"extension_mandatory\":"
			     "[{\"route\":\"x\"},{\"max_hops\":1},{\"\xc3\xa9\\\"\":null}]}");
	assert_int_equal(r->status, 400);
	assert_string_equal(r->body, "{\"message\":\"not all extension_mandatory parameters are supported\","
				     "\"details\":[{\"route\":\"not supported\"},"
				     "{\"\xc3\xa9\\\"\":\"not supported\"}]}");
	AUTO_REPLY *never = post(g, "alice", KEYS("sae-bob/enc_keys"),
				 "{\"extension_mandatory\":[{\"min_hops\":2},{\"max_hops\":1}]}");
	expect_error(never, 400, "not all extension_mandatory request options could be met");
	assert_int_equal(atomic_load(&store.calls), 0);
}

/* --- what the keystore says --------------------------------------------------------------- */

static void
store_says(qg_err err, uint32_t retry_after_s)
{
	pthread_mutex_lock(&store.lock);
	store.fail = err;
	store.retry_after_s = retry_after_s;
	pthread_mutex_unlock(&store.lock);
}

static void
test_outcomes(void **state)
{
	const gateway *g = *state;
	static const struct {
		const char *path;
		qg_err err;
		uint32_t retry_after_s;
		long status;
		const char *message, *retry_after;
	} cases[] = {
#define ENC KEYS("sae-bob/enc_keys")
#define DEC KEYS("sae-alice/dec_keys") ID
		{ENC, QG_E_EMPTY, 7, 503, "insufficient key material", "7"},
		{ENC, QG_E_EMPTY, 0, 503, "insufficient key material", "1"},
		{ENC, QG_E_LIMIT, 30, 503, "rate limit exceeded", "30"},
		{ENC, QG_E_IO, 0, 503, "key store unavailable", "1"},
		{ENC, QG_E_STATE, 0, 400, "not all extension_mandatory request options could be met", ""},
		{ENC, QG_E_RANGE, 0, 400,
		 "number and size are more than one request can have from this key stream", ""},
		{ENC, QG_E_NOTFOUND, 0, 503, "no key stream to the KME of slave_SAE_ID", "1"},
		{ENC, QG_E_NOMEM, 0, 503, "the request could not be served", "1"},
		{DEC, QG_E_DENIED, 0, 401, NULL, ""},
		{DEC, QG_E_NOTFOUND, 0, 400, "one or more keys specified are not found on KME", ""},
		{DEC, QG_E_IO, 0, 503, "key store unavailable", "1"},
		{DEC, QG_E_CORRUPT, 0, 503, "the request could not be served", "1"},
	};
	for (int late = 0; late < 2; late++) {
		store.late = late != 0;
		for (size_t i = 0; i < COUNT(cases); i++) {
			store_says(cases[i].err, cases[i].retry_after_s);
			AUTO_REPLY *r = get(g, cases[i].path[13 + 4] == 'b' ? "alice" : "bob", cases[i].path);
			print_message("case %zu late %d\n", i, late);
			expect_error(r, cases[i].status, cases[i].message);
			assert_string_equal(r->retry_after, cases[i].retry_after);
		}
	}
}

/* Keys that do not fit their sizes are an error of ours, and not handed out. */
static void
test_contradiction(void **state)
{
	store.short_keys = true;
	AUTO_REPLY *r = get(*state, "alice", KEYS("sae-bob/enc_keys"));
	expect_error(r, 503, "the request could not be served");
}

static void
test_strangers(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *enc = get(g, "alice", KEYS("sae-bob/enc_keys"));
	char path[128];
	(void)snprintf(path, sizeof path, KEYS("sae-alice/dec_keys?key_ID=%s"), id_at(enc, 0));
	AUTO_REPLY *dave = get(g, "dave", path); /* allowed with alice, but not a slave of this key */
	expect_error(dave, 401, NULL);
	AUTO_REPLY *bob = get(g, "bob", path);
	expect_keys(bob, 1, 32);
}

/* --- additional slaves ----------------------------------------------------------------------- */

#define EXTRA(list) "{\"additional_slave_SAE_IDs\":[" list "]}"

static void
test_multicast(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *enc = post(g, "alice", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-dave\",\"sae-bob\""));
	expect_keys(enc, 1, 32);
	assert_int_equal(store.seen_extra, 2);
	char path[128];
	(void)snprintf(path, sizeof path, KEYS("sae-alice/dec_keys?key_ID=%s"), id_at(enc, 0));
	static const char *const slaves[] = {"dave", "bob"};
	for (size_t i = 0; i < COUNT(slaves); i++) {
		AUTO_REPLY *first = get(g, slaves[i], path);
		expect_keys(first, 1, 32);
		assert_string_equal(id_at(first, 0), id_at(enc, 0));
		AUTO_REPLY *second = get(g, slaves[i], path);
		expect_error(second, 400, "one or more keys specified are not found on KME");
	}
}

/* Those of other nodes are the keystore's business. */
static void
test_multicast_to_other_nodes(void **state)
{
	const gateway *g = *state;
	AUTO_REPLY *enc = post(g, "alice", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-erin\",\"sae-far-1\""));
	expect_keys(enc, 1, 32);
	assert_int_equal(store.seen_extra, 2);
}

static void
test_multicast_refused(void **state)
{
#define A "additional_slave_SAE_IDs"
	static const refusal list[] = {
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA(""), 400, A " is empty"},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-nobody\""), 400,
		 A " has an unknown SAE: sae-nobody"},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-ghost\""), 400,
		 A " has an unknown SAE: sae-ghost"},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-zoe\""), 400,
		 A " has the slave SAE sae-zoe"},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-alice\""), 400,
		 A " has the master SAE sae-alice"},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-dave\",\"sae-dave\""), 400,
		 A " has a duplicate: sae-dave"},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-dave\",\"sae-bob\",\"sae-erin\""),
		 400,
		 A " must have at most 2 entries"},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-dave\",\"sae-mallory\""), 401, NULL},
		{"alice", "POST", KEYS("sae-zoe/enc_keys"), EXTRA("\"sae-far-\\u00e9\""), 400,
		 A ": the KME of SAE sae-far-?? can be told only of IDs of at most 128 printable ASCII "
		   "characters"},
		{"carol", "POST", KEYS("sae-bob/enc_keys"), EXTRA("\"sae-alice\""), 400,
		 A " must have at most 0 entries"},
	};
	expect_refusals(*state, list, COUNT(list));
#undef A
}

/* --- late answers ---------------------------------------------------------------------------- */

typedef struct caller {
	const gateway *g;
	unsigned good, bad;
	pthread_t thread;
} caller;

/* Pairs of enc_keys and dec_keys, keys of this node (late) and others. */
static void *
caller_main(void *arg)
{
	caller *c = arg;
	for (int i = 0; i < 8; i++) {
		const bool dave = i % 2 == 0;
		reply *enc = send_to(c->g, "alice",
				     (request){.method = "GET",
					       .path = dave ? KEYS("sae-dave/enc_keys?number=2")
							    : KEYS("sae-bob/enc_keys?number=2")});
		const char *id = enc == NULL ? NULL
					     : json_string_value(json_object_get(
						       json_array_get(json_object_get(enc->json, "keys"),
								      1), "key_ID"));
		char path[128];
		(void)snprintf(path, sizeof path, KEYS("sae-alice/dec_keys?key_ID=%s"), id != NULL ? id : "");
		reply *dec = send_to(c->g, dave ? "dave" : "bob", (request){.method = "GET", .path = path});
		if (dec != NULL && dec->status == 200)
			c->good++;
		else
			c->bad++;
		if (enc != NULL)
			reply_free(&enc);
		if (dec != NULL)
			reply_free(&dec);
	}
	return NULL;
}

static void
test_concurrency(void **state)
{
	caller callers[6] = {0};
	for (size_t i = 0; i < COUNT(callers); i++) {
		callers[i].g = *state;
		assert_int_equal(pthread_create(&callers[i].thread, NULL, caller_main, &callers[i]), 0);
	}
	for (size_t i = 0; i < COUNT(callers); i++) {
		assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
		assert_int_equal(callers[i].bad, 0);
		assert_int_equal(callers[i].good, 8);
	}
}

static void *
held_main(void *arg)
{
	caller *c = arg;
	reply *r = send_to(c->g, "alice", (request){.method = "GET", .path = KEYS("sae-dave/enc_keys")});
	if (r != NULL && r->status == 503)
		c->good++;
	if (r != NULL)
		reply_free(&r);
	return NULL;
}

static void
nap(long ms)
{
	(void)nanosleep(&(struct timespec){.tv_nsec = ms * 1000000}, NULL);
}

static void *
release_main(void *arg)
{
	(void)arg;
	nap(900); /* longer than a stop waits for answers */
	pthread_mutex_lock(&store.lock);
	store.hold = false;
	pthread_cond_broadcast(&store.released);
	pthread_mutex_unlock(&store.lock);
	return NULL;
}

/* A stop while the keystore holds requests: they are answered 503, and what
 * comes later is dropped without harm. */
static void
test_stop_while_waiting(void **state)
{
	gateway *g = *state;
	store.hold = true;
	caller callers[3] = {0};
	for (size_t i = 0; i < COUNT(callers); i++) {
		callers[i].g = g;
		assert_int_equal(pthread_create(&callers[i].thread, NULL, held_main, &callers[i]), 0);
	}
	while (atomic_load(&store.calls) < COUNT(callers))
		nap(1);
	pthread_t release;
	assert_int_equal(pthread_create(&release, NULL, release_main, NULL), 0);
	qg_etsi014_stop(&g->server);
	assert_false(store.hold); /* it has waited for the keystore */
	(void)pthread_join(release, NULL);
	for (size_t i = 0; i < COUNT(callers); i++) {
		assert_int_equal(pthread_join(callers[i].thread, NULL), 0);
		assert_int_equal(callers[i].good, 1);
	}
}

/* --- rates and audit --------------------------------------------------------------------------- */

static void
test_rates(void **state)
{
	gateway *g = *state;
	gateway_stop(g);
	g->cfg.sae_requests_per_s = 1;
	gateway_start(g);
	unsigned good = 0;
	unsigned refused = 0;
	for (int i = 0; i < 8; i++) {
		AUTO_REPLY *r = get(g, "alice", KEYS("sae-bob/status"));
		good += r->status == 200;
		refused += r->status == 503;
		if (r->status == 503) {
			expect_error(r, 503, "rate limit exceeded");
			assert_true(atoi(r->retry_after) >= 1);
		}
	}
	assert_true(good >= 1);
	assert_true(refused >= 1);
	AUTO_REPLY *carol = get(g, "carol", KEYS("sae-bob/status")); /* has a rate of its own */
	assert_int_equal(carol->status, 200);

	gateway_stop(g);
	g->cfg.sae_requests_per_s = 0;
	g->cfg.sae_keys_per_s = 1;
	gateway_start(g);
	AUTO_REPLY *most = get(g, "alice", KEYS("sae-bob/enc_keys?number=128"));
	expect_keys(most, 128, 32);
	AUTO_REPLY *more = get(g, "alice", KEYS("sae-bob/enc_keys?number=100"));
	expect_error(more, 503, "rate limit exceeded");
	assert_true(atoi(more->retry_after) > 30);
	AUTO_REPLY *status = get(g, "alice", KEYS("sae-bob/status"));
	assert_int_equal(status->status, 200);
}

/* How many lines of the audit log have all of these texts. */
static size_t
audit_lines(const gateway *g, const char *a, const char *b, const char *c)
{
	assert_int_equal(qg_audit_sync(g->audit), QG_OK);
	FILE *f = fopen(g->audit_file, "re");
	assert_non_null(f);
	char line[2048];
	size_t n = 0;
	while (fgets(line, sizeof line, f) != NULL)
		n += strstr(line, a) != NULL && strstr(line, b) != NULL && strstr(line, c) != NULL;
	(void)fclose(f);
	return n;
}

static void
test_audit(void **state)
{
	const gateway *g = *state;
	char path[128];
	AUTO_REPLY *enc = get(g, "alice", KEYS("sae-bob/enc_keys?number=3"));
	expect_keys(enc, 3, 32);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(audit_lines(g, "issued", id_at(enc, i), "sae-alice"), 1);
	(void)snprintf(path, sizeof path, KEYS("sae-alice/dec_keys?key_ID=%s"), id_at(enc, 1));
	AUTO_REPLY *dave = get(g, "dave", path);
	expect_error(dave, 401, NULL);
	assert_int_equal(audit_lines(g, "refused", id_at(enc, 1), "\"caller\":\"sae-dave\""), 1);
	AUTO_REPLY *mallory = get(g, "mallory", path);
	expect_error(mallory, 401, NULL);
	assert_int_equal(audit_lines(g, "refused", "not authorised", "\"caller\":\"sae-mallory\""), 1);
	AUTO_REPLY *bob = get(g, "bob", path);
	expect_keys(bob, 1, 32);
	assert_int_equal(audit_lines(g, "fetched", id_at(enc, 1), "\"caller\":\"sae-bob\""), 1);
	assert_int_equal(audit_lines(g, "fetched", "", ""), 1);
	AUTO_REPLY *nobody = get(g, "wrongname", path);
	expect_error(nobody, 401, NULL);
	assert_int_equal(audit_lines(g, "refused", "certificate names no registered SAE", ""), 1);
	store_says(QG_E_EMPTY, 1);
	AUTO_REPLY *empty = get(g, "alice", KEYS("sae-bob/enc_keys"));
	assert_int_equal(empty->status, 503);
	assert_int_equal(audit_lines(g, "refused", "insufficient key material", "sae-alice"), 1);
	AUTO_REPLY *malformed = get(g, "alice", KEYS("sae-bob/enc_keys?x=1"));
	assert_int_equal(malformed->status, 400);
	assert_int_equal(audit_lines(g, "refused", "malformed request", "sae-alice"), 1);
	/* and no key in it */
	const char *key = json_string_value(json_object_get(key_at(enc, 0), "key"));
	assert_int_equal(audit_lines(g, key, "", ""), 0);
}

/* Neither who may nothing nor who is nobody can fill the disk with refusals. */
static void
test_refusals_are_limited(void **state)
{
	gateway *g = *state;
	const char *const bad[] = {KEYS("sae-bob/enc_keys"), KEYS("%20/enc_keys")};
	gateway_stop(g);
	g->cfg.sae_requests_per_s = 1;
	gateway_start(g);
	unsigned limited = 0;
	for (size_t i = 0; i < 40; i++) {
		AUTO_REPLY *r = get(g, "mallory", bad[i % 2]);
		assert_true(r->status == 503 || r->status == (i % 2 == 0 ? 401 : 400));
		limited += r->status == 503;
	}
	assert_true(limited >= 10);
	assert_int_equal(audit_lines(g, "refused", "\"caller\":\"sae-mallory\"", ""), 40 - limited);
	const uint64_t start_ms = qg_clock_elapsed_ms();
	for (size_t i = 0; i < 200; i++) {
		AUTO_REPLY *r = get(g, "wrongname", bad[0]);
		assert_int_equal(r->status, 401);
	}
	const uint64_t passed_s = (qg_clock_elapsed_ms() - start_ms) / 1000 + 1;
	const size_t lines = audit_lines(g, "refused", "certificate names no registered SAE", "");
	assert_in_range(lines, 100, 100 + 10 * passed_s);
}

static void
is_answered(const gateway *g, const char *who, const char *path, int status)
{
	AUTO_REPLY *r = get(g, who, path);
	assert_int_equal(r->status, status);
}

/* Who was suspended is so with the first request that a server takes; and who is resumed
 * gets keys again. */
static void
test_suspended_from_the_start(void **state)
{
	gateway *g = *state;
	const qg_suspension_rec who[] = {
		{"sae", "sae-carol", ""}, {"pair", "sae-bob", "sae-alice"}, {"peer", "sae-dave", ""}};
	const char *const near = KEYS("sae-bob/enc_keys");
	gateway_stop(g);
	g->suspended = (qg_etsi014_suspended){.rec = who, .n = COUNT(who)};
	gateway_start(g);
	is_answered(g, "carol", near, 401);
	is_answered(g, "alice", near, 401);
	is_answered(g, "bob", KEYS("sae-alice/enc_keys"), 401);
	is_answered(g, "alice", KEYS("sae-dave/enc_keys"), 200); /* a peer of that name is another */
	assert_true(qg_etsi014_is_suspended(g->server, "sae-alice", "sae-bob"));
	assert_int_equal(qg_etsi014_suspend(g->server, "sae-carol", NULL, false), QG_OK);
	assert_int_equal(qg_etsi014_suspend(g->server, "sae-alice", "sae-bob", false), QG_OK);
	is_answered(g, "carol", near, 200);
	is_answered(g, "alice", near, 200);
}

/* One that this server cannot hold: it must not begin without it. */
static void
test_no_start_without_a_suspension(void **state)
{
	gateway *g = *state;
	char why[256] = "", name[QG_014_SAE_ID_MAX + 2] = "";
	qg_etsi014 *server = NULL;
	memset(name, 'x', sizeof name - 1);
	const qg_suspension_rec who = {"pair", "sae-alice", name};
	const qg_etsi014_suspended suspended = {.rec = &who, .n = 1};
	const qg_etsi014_parts parts = {.cfg = &g->cfg, .directory = g->directory, .keystore = &store,
					.audit = g->audit, .suspended = &suspended};
	assert_int_equal(qg_etsi014_start(&parts, &server, why, sizeof why), QG_E_RANGE);
	assert_null(server);
}

static void
test_start_fails(void **state)
{
	gateway *g = *state;
	char why[256] = "";
	qg_etsi014 *second = NULL;
	qg_config cfg = g->cfg;
	cfg.sae.port = g->port;
	const qg_etsi014_parts parts = {
		.cfg = &cfg, .directory = g->directory, .keystore = &store, .audit = g->audit};
	assert_int_not_equal(qg_etsi014_start(&parts, &second, why, sizeof why), QG_OK);
	assert_null(second);
	assert_true(why[0] != '\0');
	qg_etsi014_stop(&second);
	qg_etsi014_stop(NULL);
}

static int
group_setup(void **state)
{
	(void)state;
	return pki_make();
}

static int
group_teardown(void **state)
{
	(void)state;
	pki_remove();
	return 0;
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_status),         T(test_get_forms),     T(test_post_forms),
		T(test_hops),
		T(test_content_type),   T(test_openapi),       T(test_order_of_checks),
		T(test_http_refusals),  T(test_unsupported_extensions),
		T(test_outcomes),       T(test_contradiction), T(test_strangers),
		T(test_multicast),      T(test_multicast_to_other_nodes), T(test_multicast_refused),
		T(test_concurrency),    T(test_stop_while_waiting),
		T(test_rates),          T(test_audit),         T(test_refusals_are_limited),
		T(test_suspended_from_the_start), T(test_no_start_without_a_suspension),
		T(test_start_fails),
	};
#undef T
	if (qg_secret_init() != QG_OK || curl_global_init(CURL_GLOBAL_ALL) != CURLE_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	const int failed = cmocka_run_group_tests(tests, group_setup, group_teardown);
	curl_global_cleanup();
	return failed;
}
