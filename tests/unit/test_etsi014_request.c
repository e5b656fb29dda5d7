/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of ETSI GS QKD 014 (tables 10 and 12) into structs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../src/north/etsi014_internal.h"
#include "qkdgate/json.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define UUID_A "00000000-0000-4000-8000-00000000000a"
#define UUID_B "ffffffff-ffff-8fff-bfff-fffffffffffb"

static const qg_policy_terms terms = {
	.min_key_bits = 64,
	.max_key_bits = 4096,
	.default_key_bits = 256,
	.max_keys = 128,
	.max_extra_slaves = 3,
};

static qg_err
enc_body(const char *body, qg_014_enc_request *r, qg_014_problem *why)
{
	memset(why, 0, sizeof *why);
	return qg_014_enc_body(body, strlen(body), &terms, "sae-m", "sae-s", r, why);
}

static void
expect_enc(const char *body, qg_err err, const char *message)
{
	qg_014_enc_request r;
	qg_014_problem why;
	print_message("%s\n", body);
	assert_int_equal(enc_body(body, &r, &why), err);
	if (message != NULL)
		assert_string_equal(why.message, message);
	assert_int_equal(why.n_details, 0);
	qg_014_enc_fini(&r);
	assert_null(r.json);
}

/* --- Key request: POST ------------------------------------------------------ */

static void
test_enc_empty(void **state)
{
	(void)state;
	static const char *const empty[] = {"", "{}", " {} "};
	for (size_t i = 0; i < COUNT(empty); i++) {
		qg_014_enc_request r;
		qg_014_problem why;
		assert_int_equal(enc_body(empty[i], &r, &why), QG_OK);
		assert_int_equal(r.number, 1);
		assert_int_equal(r.size_bits, 256);
		assert_int_equal(r.max_age_ms, 0);
		assert_int_equal(r.min_hops, 0);
		assert_int_equal(r.max_hops, UINT32_MAX);
		assert_false(r.asks_hops);
		assert_int_equal(r.n_extra, 0);
		qg_014_enc_fini(&r);
	}
}

static void
test_enc_full(void **state)
{
	(void)state;
	qg_014_enc_request r;
	qg_014_problem why;
	assert_int_equal(
		enc_body("{\"number\":128,\"size\":4096,"
			 "\"additional_slave_SAE_IDs\":[\"sae-x\",\"sae y\",\"urn:z\"],"
			 "\"extension_mandatory\":"
			 "[{\"max_age_ms\":4294967295},{\"min_hops\":1},{\"max_hops\":1}],"
			 "\"extension_optional\":[{\"whatever\":{\"a\":[1,null]}},{\"max_age_ms\":\"junk\"}],"
			 "\"unknown\":{\"number\":\"x\"}}",
			 &r, &why),
		QG_OK);
	assert_int_equal(r.number, 128);
	assert_int_equal(r.size_bits, 4096);
	assert_int_equal(r.n_extra, 3);
	assert_string_equal(r.extra[0], "sae-x");
	assert_string_equal(r.extra[1], "sae y");
	assert_string_equal(r.extra[2], "urn:z");
	assert_int_equal(r.max_age_ms, UINT32_MAX);
	assert_int_equal(r.min_hops, 1);
	assert_int_equal(r.max_hops, 1);
	assert_true(r.asks_hops);
	qg_014_enc_fini(&r);
}

/* Hops are told on request; only a limit that is given asks for them. */
static void
test_enc_asks_hops(void **state)
{
	static const struct {
		const char *body;
		bool asks;
	} cases[] = {
		{"{\"extension_mandatory\":[{\"min_hops\":0}]}", true},
		{"{\"extension_mandatory\":[{\"max_age_ms\":1},{\"max_hops\":4294967295}]}", true},
		{"{\"extension_mandatory\":[{\"max_age_ms\":1}]}", false},
		{"{\"extension_optional\":[{\"max_hops\":1}]}", false},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		qg_014_enc_request r;
		qg_014_problem why;
		assert_int_equal(enc_body(cases[i].body, &r, &why), QG_OK);
		assert_int_equal(r.asks_hops, cases[i].asks);
		qg_014_enc_fini(&r);
	}
}

static void
test_enc_numbers(void **state)
{
	(void)state;
	static const char number[] = "number must be from 1 to 128";
	static const char size[] = "size must be from 64 to 4096 bits";
	static const struct {
		const char *body, *message;
	} bad[] = {
		{"{\"number\":0}", number},
		{"{\"number\":-1}", number},
		{"{\"number\":129}", number},
		{"{\"number\":4294967297}", number},
		{"{\"number\":9223372036854775807}", number},
		{"{\"number\":18446744073709551617}", "request body: member number is out of range"},
		{"{\"number\":1.0}", "number must be an integer"},
		{"{\"number\":1e0}", "number must be an integer"},
		{"{\"number\":\"1\"}", "number must be an integer"},
		{"{\"number\":null}", "number must be an integer"},
		{"{\"number\":true}", "number must be an integer"},
		{"{\"number\":[1]}", "number must be an integer"},
		{"{\"number\":{}}", "number must be an integer"},
		{"{\"number\":1,\"number\":1}", "request body: member number is a duplicate"},
		{"{\"size\":257}", "size shall be a multiple of 8"},
		{"{\"size\":1}", "size shall be a multiple of 8"},
		{"{\"size\":-1}", "size shall be a multiple of 8"},
		{"{\"size\":4097}", "size shall be a multiple of 8"},
		{"{\"size\":0}", size},
		{"{\"size\":56}", size},
		{"{\"size\":-256}", size},
		{"{\"size\":4104}", size},
		{"{\"size\":4294967552}", size},
		{"{\"size\":256.5}", "size must be an integer"},
		{"{\"size\":\"256\"}", "size must be an integer"},
		{"{\"size\":null}", "size must be an integer"},
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		expect_enc(bad[i].body, QG_E_INVAL, bad[i].message);
	static const char *const good[] = {"{\"size\":64}", "{\"size\":72}", "{\"size\":4096}",
					   "{\"number\":1}"};
	for (size_t i = 0; i < COUNT(good); i++)
		expect_enc(good[i], QG_OK, NULL);
}

static void
test_enc_not_json(void **state)
{
	(void)state;
	static const struct {
		const char *body, *message;
	} bad[] = {
		{" ", "request body is not valid JSON"},
		{"number=1", "request body is not valid JSON"},
		{"[]", "request body is not a JSON object"},
		{"{\"number\":NaN}", "request body is not valid JSON"},
		{"{\"x\":\"\xff\"}", "request body is not valid JSON"},
		{"{\"x\":\"\\u0000\"}", "request body is not valid JSON"},
		{"{\"number\":1}{", "request body is not valid JSON"},
		{"{\"x\":{\"y\":1,\"y\":2}}", "request body: member y is a duplicate"},
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		expect_enc(bad[i].body, QG_E_INVAL, bad[i].message);
}

static void
test_enc_extra(void **state)
{
	(void)state;
#define E "additional_slave_SAE_IDs"
	static const struct {
		const char *body, *message;
	} bad[] = {
		{"{\"" E "\":[]}", E " is empty"},
		{"{\"" E "\":\"sae-x\"}", E " must be an array"},
		{"{\"" E "\":null}", E " must be an array"},
		{"{\"" E "\":{}}", E " must be an array"},
		{"{\"" E "\":[1]}", E " must have strings"},
		{"{\"" E "\":[null]}", E " must have strings"},
		{"{\"" E "\":[\"sae-x\",[\"sae-y\"]]}", E " must have strings"},
		{"{\"" E "\":[\"\"]}", E " has a blank or malformed SAE ID"},
		{"{\"" E "\":[\"  \"]}", E " has a blank or malformed SAE ID"},
		{"{\"" E "\":[\"a\\nb\"]}", E " has a blank or malformed SAE ID"},
		{"{\"" E "\":[\"sae-m\"]}", E " has the master SAE sae-m"},
		{"{\"" E "\":[\"sae-x\",\"sae-s\"]}", E " has the slave SAE sae-s"},
		{"{\"" E "\":[\"sae-x\",\"sae-y\",\"sae-x\"]}", E " has a duplicate: sae-x"},
		{"{\"" E "\":[\"a\",\"b\",\"c\",\"d\"]}", E " must have at most 3 entries"},
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		expect_enc(bad[i].body, QG_E_INVAL, bad[i].message);
	expect_enc("{\"" E "\":[\"a\",\"b\",\"c\"]}", QG_OK, NULL);
#undef E
}

static void
test_enc_unsupported(void **state)
{
	(void)state;
	qg_014_enc_request r;
	qg_014_problem why;
	/* names are told even where a supported one has a wrong value */
	assert_int_equal(enc_body("{\"extension_mandatory\":[{\"abc_route\":\"direct\"},{\"max_age_ms\":-1},"
				  "{\"x \\\"y\\\"\":null}]}",
				  &r, &why),
			 QG_E_INVAL);
	assert_string_equal(why.message, "not all extension_mandatory parameters are supported");
	assert_int_equal(why.n_details, 2);
	assert_string_equal(why.details[0], "abc_route");
	assert_string_equal(why.details[1], "x \"y\"");
	qg_014_enc_fini(&r);
}

static void
test_enc_extensions(void **state)
{
	(void)state;
#define M "extension_mandatory"
#define AGE M " max_age_ms must be an integer from 1 to 4294967295"
	static const struct {
		const char *body, *message;
	} bad[] = {
		{"{\"" M "\":{\"max_age_ms\":1}}", M " must be an array"},
		{"{\"" M "\":null}", M " must be an array"},
		{"{\"" M "\":\"x\"}", M " must be an array"},
		{"{\"" M "\":[\"max_age_ms\"]}", M " must have objects of one name and value"},
		{"{\"" M "\":[{}]}", M " must have objects of one name and value"},
		{"{\"" M "\":[{\"max_age_ms\":1,\"min_hops\":1}]}",
		 M " must have objects of one name and value"},
		{"{\"" M "\":[{\"max_age_ms\":1},[]]}", M " must have objects of one name and value"},
		{"{\"" M "\":[{\"max_age_ms\":0}]}", AGE},
		{"{\"" M "\":[{\"max_age_ms\":-5}]}", AGE},
		{"{\"" M "\":[{\"max_age_ms\":4294967296}]}", AGE},
		{"{\"" M "\":[{\"max_age_ms\":1.5}]}", AGE},
		{"{\"" M "\":[{\"max_age_ms\":\"1000\"}]}", AGE},
		{"{\"" M "\":[{\"max_age_ms\":null}]}", AGE},
		{"{\"" M "\":[{\"min_hops\":-1}]}", M " min_hops must be an integer from 0 to 4294967295"},
		{"{\"" M "\":[{\"max_hops\":true}]}", M " max_hops must be an integer from 0 to 4294967295"},
		{"{\"" M "\":[{\"max_hops\":1},{\"max_hops\":1}]}", M " max_hops is a duplicate"},
		{"{\"extension_optional\":{}}", "extension_optional must be an array"},
		{"{\"extension_optional\":[1]}",
		 "extension_optional must have objects of one name and value"},
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		expect_enc(bad[i].body, QG_E_INVAL, bad[i].message);
	expect_enc("{\"" M "\":[{\"min_hops\":3},{\"max_hops\":2}]}", QG_E_STATE, NULL);
	expect_enc("{\"" M "\":[],\"extension_optional\":[]}", QG_OK, NULL);
	expect_enc("{\"" M "\":[{\"min_hops\":0},{\"max_hops\":0}]}", QG_OK, NULL);
#undef AGE
#undef M
}

/* Entries: as many as allowed are told of, one more is refused as a whole. */
static void
test_enc_many_extensions(void **state)
{
	(void)state;
	for (int n = QG_014_EXTENSIONS_MAX; n <= QG_014_EXTENSIONS_MAX + 1; n++) {
		char body[32 * (QG_014_EXTENSIONS_MAX + 2)];
		size_t len = (size_t)snprintf(body, sizeof body, "{\"extension_mandatory\":[");
		for (int i = 0; i < n; i++)
			len += (size_t)snprintf(body + len, sizeof body - len, "%s{\"x%d\":%d}",
						i > 0 ? "," : "", i, i);
		len += (size_t)snprintf(body + len, sizeof body - len, "]}");
		assert_true(len < sizeof body);
		qg_014_enc_request r;
		qg_014_problem why;
		assert_int_equal(enc_body(body, &r, &why), QG_E_INVAL);
		assert_int_equal(why.n_details, n == QG_014_EXTENSIONS_MAX ? n : 0);
		if (n > QG_014_EXTENSIONS_MAX)
			assert_string_equal(why.message, "extension_mandatory must have at most 64 entries");
		qg_014_enc_fini(&r);
	}
}

/* --- Key request: GET -------------------------------------------------------- */

static qg_err
enc_query(const qg_014_arg *args, size_t n, qg_014_enc_request *r, qg_014_problem *why)
{
	memset(why, 0, sizeof *why);
	return qg_014_enc_query(args, n, &terms, r, why);
}

static void
test_enc_query(void **state)
{
	(void)state;
	qg_014_enc_request r;
	qg_014_problem why;
	assert_int_equal(enc_query(NULL, 0, &r, &why), QG_OK);
	assert_int_equal(r.number, 1);
	assert_int_equal(r.size_bits, 256);
	assert_int_equal(r.max_hops, UINT32_MAX);
	const qg_014_arg both[] = {{"size", "512"}, {"number", "007"}};
	assert_int_equal(enc_query(both, 2, &r, &why), QG_OK);
	assert_int_equal(r.number, 7);
	assert_int_equal(r.size_bits, 512);
}

static void
test_enc_query_bad(void **state)
{
	(void)state;
	static const char number[] = "number must be a decimal integer";
	static const struct {
		qg_014_arg args[3];
		size_t n;
		const char *message;
	} bad[] = {
		{{{"number", ""}}, 1, number},
		{{{"number", "-1"}}, 1, number},
		{{{"number", "+1"}}, 1, number},
		{{{"number", " 1"}}, 1, number},
		{{{"number", "1 "}}, 1, number},
		{{{"number", "0x10"}}, 1, number},
		{{{"number", "1.0"}}, 1, number},
		{{{"number", "1e2"}}, 1, number},
		{{{"number", "\xd9\xa1"}}, 1, number},
		{{{"number", "0"}}, 1, "number must be from 1 to 128"},
		{{{"number", "129"}}, 1, "number must be from 1 to 128"},
		{{{"number", "4294967297"}}, 1, "number must be from 1 to 128"},
		{{{"number", "18446744073709551617"}}, 1, "number must be from 1 to 128"},
		{{{"number", "99999999999999999999999999999999999999999999"}}, 1,
		 "number must be from 1 to 128"},
		{{{"size", "257"}}, 1, "size shall be a multiple of 8"},
		{{{"size", "0"}}, 1, "size must be from 64 to 4096 bits"},
		{{{"size", "4104"}}, 1, "size must be from 64 to 4096 bits"},
		{{{"size", "99999999999999999999999999999999999999999999"}}, 1,
		 "size must be from 64 to 4096 bits"},
		{{{"size", "k"}}, 1, "size must be a decimal integer"},
		{{{"number", "1"}, {"number", "1"}}, 2, "query parameter number is a duplicate"},
		{{{"number", "1"}, {"size", "64"}, {"size", "64"}}, 3, "query parameter size is a duplicate"},
		{{{"Number", "1"}}, 1, "query parameter Number is not known"},
		{{{"", "1"}}, 1, "query parameter  is not known"},
		{{{"a\"\n\\b", "1"}}, 1, "query parameter a???b is not known"},
		{{{"additional_slave_SAE_IDs", "x"}}, 1,
		 "query parameter additional_slave_SAE_IDs is not known"},
		{{{"extension_mandatory", "x"}}, 1, "query parameter extension_mandatory is not known"},
	};
	for (size_t i = 0; i < COUNT(bad); i++) {
		qg_014_enc_request r;
		qg_014_problem why;
		print_message("case %zu\n", i);
		assert_int_equal(enc_query(bad[i].args, bad[i].n, &r, &why), QG_E_INVAL);
		assert_string_equal(why.message, bad[i].message);
	}
}

static void
test_no_query(void **state)
{
	(void)state;
	qg_014_problem why = {.message = ""};
	assert_int_equal(qg_014_no_query(NULL, 0, &why), QG_OK);
	const qg_014_arg number = {"number", "1"};
	assert_int_equal(qg_014_no_query(&number, 1, &why), QG_E_INVAL);
	assert_string_equal(why.message, "query parameter number is not known");
}

/* --- Key IDs -------------------------------------------------------------------- */

static void
expect_dec(const char *body, const char *message)
{
	qg_014_dec_request r = {0};
	qg_014_problem why = {.message = ""};
	print_message("%s\n", body);
	assert_int_equal(qg_014_dec_body(body, strlen(body), 4, &r, &why), QG_E_INVAL);
	assert_string_equal(why.message, message);
	assert_null(r.ids);
}

static void
test_dec_good(void **state)
{
	(void)state;
	static const char body[] = "{\"key_IDs\":[{\"key_ID\":\"" UUID_A "\",\"key_ID_extension\":{\"a\":1}},"
				   "{\"key_ID\":\"" UUID_B "\",\"other\":1}],"
				   "\"key_IDs_extension\":{},\"more\":[]}";
	qg_014_dec_request r = {0};
	qg_014_problem why;
	assert_int_equal(qg_014_dec_body(body, sizeof body - 1, 2, &r, &why), QG_OK);
	assert_int_equal(r.n, 2);
	char text[QG_UUID_TEXT];
	qg_uuid_format(&r.ids[0], text);
	assert_string_equal(text, UUID_A);
	qg_uuid_format(&r.ids[1], text);
	assert_string_equal(text, UUID_B);
	qg_014_dec_fini(&r);
	qg_014_dec_fini(&r);
}

static void
test_dec_bad(void **state)
{
	(void)state;
#define ID_A "{\"key_ID\":\"" UUID_A "\"}"
	static const struct {
		const char *body, *message;
	} bad[] = {
		{"", "request body is empty: key_IDs is missing"},
		{"{}", "key_IDs is missing"},
		{"[]", "request body is not a JSON object"},
		{"{\"key_ids\":[" ID_A "]}", "key_IDs is missing"},
		{"{\"key_IDs\":[]}", "key_IDs is empty"},
		{"{\"key_IDs\":null}", "key_IDs must be an array"},
		{"{\"key_IDs\":" ID_A "}", "key_IDs must be an array"},
		{"{\"key_IDs\":[\"" UUID_A "\"]}", "key_IDs must have objects"},
		{"{\"key_IDs\":[{}]}", "key_ID must be a string in every object of key_IDs"},
		{"{\"key_IDs\":[" ID_A ",{\"key_ID\":7}]}",
		 "key_ID must be a string in every object of key_IDs"},
		{"{\"key_IDs\":[{\"key_ID\":null}]}", "key_ID must be a string in every object of key_IDs"},
		{"{\"key_IDs\":[{\"key_ID\":\"\"}]}", "key_ID is not a UUID: "},
		{"{\"key_IDs\":[{\"key_ID\":\"x\"}]}", "key_ID is not a UUID: x"},
		{"{\"key_IDs\":[{\"key_ID\":\"" UUID_A " \"}]}", "key_ID is not a UUID: " UUID_A "?"},
		{"{\"key_IDs\":[{\"key_ID\":\"{" UUID_A "}\"}]}", "key_ID is not a UUID: {" UUID_A "}"},
		{"{\"key_IDs\":[{\"key_ID\":\"0000000000004000800000000000000a\"}]}",
		 "key_ID is not a UUID: 0000000000004000800000000000000a"},
		{"{\"key_IDs\":[" ID_A ",{\"key_ID\":\"" UUID_B "\"}," ID_A "]}",
		 "key_IDs has a duplicate: " UUID_A},
		{"{\"key_IDs\":[{\"key_ID\":\"00000000-0000-4000-8000-00000000000A\"}," ID_A "]}",
		 "key_IDs has a duplicate: " UUID_A},
		{"{\"key_IDs\":[" ID_A "," ID_A "," ID_A "," ID_A "," ID_A "]}",
		 "key_IDs must have at most 4 entries"},
		{"{\"key_IDs\":[{\"key_ID\":\"" UUID_A "\",\"key_ID_extension\":1}]}",
		 "key_ID_extension must be an object"},
		{"{\"key_IDs\":[" ID_A "],\"key_IDs_extension\":[]}", "key_IDs_extension must be an object"},
		{"{\"key_IDs\":[{\"key_ID\":\"" UUID_A "\",\"key_ID\":\"" UUID_A "\"}]}",
		 "request body: member key_ID is a duplicate"},
		{"{\"key_IDs\":[" ID_A "],\"key_IDs\":[]}", "request body: member key_IDs is a duplicate"},
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		expect_dec(bad[i].body, bad[i].message);
#undef ID_A
}

/* n IDs; the last is a repeat of `repeat` unless that is n. */
static char *
ids_body(size_t n, size_t repeat)
{
	const size_t room = 64 + n * 64;
	char *body = malloc(room);
	assert_non_null(body);
	size_t len = (size_t)snprintf(body, room, "{\"key_IDs\":[");
	for (size_t i = 0; i < n; i++) {
		const size_t v = i + 1 == n && repeat < n ? repeat : i;
		len += (size_t)snprintf(body + len, room - len,
					"%s{\"key_ID\":\"%08zx-0000-4000-8000-000000000000\"}",
					i > 0 ? "," : "", v);
	}
	len += (size_t)snprintf(body + len, room - len, "]}");
	assert_true(len < room);
	return body;
}

static void
test_dec_many(void **state)
{
	(void)state;
	qg_014_problem why = {.message = ""};
	qg_014_dec_request r = {0};
	const size_t most = QG_KEYSTORE_KEYS_MAX;

	char *body = ids_body(most, most);
	assert_int_equal(qg_014_dec_body(body, strlen(body), UINT32_MAX, &r, &why), QG_OK);
	assert_int_equal(r.n, most);
	for (size_t i = 0; i < most; i++)
		assert_int_equal(r.ids[i].b[2] << 8 | r.ids[i].b[3], i);
	qg_014_dec_fini(&r);
	free(body);

	body = ids_body(most, most / 2);
	assert_int_equal(qg_014_dec_body(body, strlen(body), UINT32_MAX, &r, &why), QG_E_INVAL);
	assert_string_equal(why.message, "key_IDs has a duplicate: 00000200-0000-4000-8000-000000000000");
	free(body);

	body = ids_body(most + 1, most + 1);
	assert_int_equal(qg_014_dec_body(body, strlen(body), most, &r, &why), QG_E_INVAL);
	assert_string_equal(why.message, "key_IDs must have at most 1024 entries");
	free(body);

	body = ids_body(1000000, 1000000);
	assert_int_equal(qg_014_dec_body(body, strlen(body), most, &r, &why), QG_E_INVAL);
	assert_string_equal(why.message, "request body has too many values");
	free(body);
	assert_null(r.ids);
}

static void
test_dec_query(void **state)
{
	(void)state;
	qg_014_problem why = {.message = ""};
	qg_014_dec_request r = {0};
	const qg_014_arg good = {"key_ID", UUID_B};
	assert_int_equal(qg_014_dec_query(&good, 1, &r, &why), QG_OK);
	assert_int_equal(r.n, 1);
	char text[QG_UUID_TEXT];
	qg_uuid_format(r.ids, text);
	assert_string_equal(text, UUID_B);
	qg_014_dec_fini(&r);
	static const struct {
		qg_014_arg args[2];
		size_t n;
		const char *message;
	} bad[] = {
		{{{"", ""}}, 0, "query parameter key_ID is missing"},
		{{{"key_ID", ""}}, 1, "key_ID is not a UUID: "},
		{{{"key_ID", UUID_A "," UUID_B}}, 1, "key_ID is not a UUID: " UUID_A "," UUID_B},
		{{{"key_id", UUID_A}}, 1, "query parameter key_id is not known"},
		{{{"key_ID", UUID_A}, {"key_ID", UUID_B}}, 2, "query parameter key_ID is a duplicate"},
		{{{"key_ID", UUID_A}, {"size", "8"}}, 2, "query parameter size is not known"},
	};
	for (size_t i = 0; i < COUNT(bad); i++) {
		assert_int_equal(qg_014_dec_query(bad[i].args, bad[i].n, &r, &why), QG_E_INVAL);
		assert_string_equal(why.message, bad[i].message);
		assert_null(r.ids);
	}
}

/* --- SAE IDs, Content-Type --------------------------------------------------------- */

static void
test_sae_ids(void **state)
{
	(void)state;
	char longest[QG_014_SAE_ID_MAX + 2];
	memset(longest, 'a', sizeof longest);
	longest[QG_014_SAE_ID_MAX] = '\0';
	assert_true(qg_014_sae_id_valid(longest));
	longest[QG_014_SAE_ID_MAX] = 'a';
	longest[QG_014_SAE_ID_MAX + 1] = '\0';
	assert_false(qg_014_sae_id_valid(longest));

	static const char *const good[] = {"a", "sae-alice", "urn:x:y/z?#%", "sae alice", " a ", "s\xc3\xa9",
					   "\xe2\x82\xac",
					   "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xc2\xa0"};
	for (size_t i = 0; i < COUNT(good); i++)
		assert_true(qg_014_sae_id_valid(good[i]));
	static const char *const bad[] = {"",         " ",        "   ",          "a\n",          "\ta",
					  "a\x7f",    "a\x01",    "\xff",         "\xc3",         "a\xc3",
					  "\xc3(",    "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xe2\x82",
					  "\x80",     "\xc2\x85", "\xf4\x90\x80\x80", "\xf0\x80\x80\x80",
					  "\xf8\x88\x80\x80\x80"};
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(qg_014_sae_id_valid(bad[i]));
}

static void
test_content_types(void **state)
{
	(void)state;
	static const char *const good[] = {
		"application/json",
		"Application/JSON",
		" application/json ",
		"application/json;charset=utf-8",
		"application/json; charset=UTF-8",
		"application/json ; CharSet=\"utf-8\" ",
	};
	for (size_t i = 0; i < COUNT(good); i++)
		assert_true(qg_014_type_is_json(good[i]));
	static const char *const bad[] = {
		"",
		"application",
		"application/jsonx",
		"application/json;",
		"application/json; charset=latin1",
		"application/json; charset=utf-80",
		"application/json; charset=\"utf-8",
		"application/json, text/plain",
		"application/json; x=y",
		"text/plain",
		"application/x-www-form-urlencoded",
		"text/json; application/json",
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_false(qg_014_type_is_json(bad[i]));
	assert_false(qg_014_type_is_json(NULL));
}

/* What the JSON library makes of a body that was taken must be the same IDs. */
static void
expect_same_ids(const char *body, size_t len, const qg_014_dec_request *r)
{
	json_t *json = NULL;
	qg_json_error why;
	assert_int_equal(qg_json_parse_object(body, len, &json, &why), QG_OK);
	const json_t *array = json_object_get(json, "key_IDs");
	assert_int_equal(json_array_size(array), r->n);
	for (size_t i = 0; i < r->n; i++) {
		const json_t *id = json_object_get(json_array_get(array, i), "key_ID");
		qg_uuid want;
		assert_int_equal(qg_uuid_parse(json_string_value(id), json_string_length(id), &want), QG_OK);
		assert_true(qg_uuid_equal(&want, &r->ids[i]));
	}
	qg_json_free(&json);
}

static qg_err
take_body(const char *body, size_t len)
{
	qg_014_dec_request r = {0};
	qg_014_problem why;
	const qg_err err = qg_014_dec_body(body, len, 2, &r, &why);
	if (err == QG_OK)
		expect_same_ids(body, len, &r);
	qg_014_dec_fini(&r);
	return err;
}

/* The plain form is read without the JSON library: with every white space, cut
 * anywhere, and with any other byte anywhere, it is taken only where the library
 * would have read the same. */
static void
test_dec_plain(void **state)
{
	(void)state;
	static const char plain[] = "{\"key_IDs\":[{\"key_ID\":\"" UUID_A "\"},{\"key_ID\":\"" UUID_B "\"}]}";
	static const char spaced[] = " {\t\"key_IDs\" :\r\n[ { \"key_ID\" : \"" UUID_A "\" } , {\"key_ID\": \"" UUID_B
				     "\"}\n]\n} \n";
	static const char repeated[] = "{\"key_IDs\":[{\"key_ID\":\"" UUID_A "\"},{\"key_ID\":\"" UUID_A "\"}]}";
	assert_int_equal(take_body(plain, sizeof plain - 1), QG_OK);
	assert_int_equal(take_body(spaced, sizeof spaced - 1), QG_OK);
	assert_int_equal(take_body(repeated, sizeof repeated - 1), QG_E_INVAL);
	for (size_t n = 0; n < sizeof plain - 1; n++) {
		char *cut = malloc(n + 1); /* of its own, so that reading on is seen */
		memcpy(cut, plain, n);
		assert_int_equal(take_body(cut, n), QG_E_INVAL);
		free(cut);
	}
	for (size_t at = 0; at < sizeof plain - 1; at++)
		for (int c = 0; c < 256; c++) {
			char other[sizeof plain];
			memcpy(other, plain, sizeof plain);
			other[at] = (char)c;
			(void)!take_body(other, sizeof plain - 1);
		}
	for (size_t at = 0; at <= sizeof plain - 1; at++)
		for (int c = 1; c < 128; c++) {
			char longer[sizeof plain + 1];
			memcpy(longer, plain, at);
			longer[at] = (char)c;
			memcpy(longer + at + 1, plain + at, sizeof plain - at);
			(void)!take_body(longer, sizeof plain);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_enc_empty),
		cmocka_unit_test(test_enc_full),
		cmocka_unit_test(test_enc_asks_hops), cmocka_unit_test(test_enc_numbers),
		cmocka_unit_test(test_enc_not_json),
		cmocka_unit_test(test_enc_extra),
		cmocka_unit_test(test_enc_unsupported),
		cmocka_unit_test(test_enc_extensions),
		cmocka_unit_test(test_enc_many_extensions),
		cmocka_unit_test(test_enc_query),
		cmocka_unit_test(test_enc_query_bad),
		cmocka_unit_test(test_no_query),
		cmocka_unit_test(test_dec_good),
		cmocka_unit_test(test_dec_bad),
		cmocka_unit_test(test_dec_many),
		cmocka_unit_test(test_dec_plain),
		cmocka_unit_test(test_dec_query),
		cmocka_unit_test(test_sae_ids),
		cmocka_unit_test(test_content_types),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
