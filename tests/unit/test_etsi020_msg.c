/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "qkdgate/etsi020_msg.h"
#include "qkdgate/json.h"

#define ID1 "0b9f0f0e-2c1f-4b52-9d5c-1a2b3c4d5e6f"
#define ID2 "0b9f0f0e-2c1f-4b52-9d5c-1a2b3c4d5e70"
#define KEY1 "{\"key_id\":\"" ID1 "\",\"value\":\"AAECAw==\"}"
#define KEY2 "{\"key_id\":\"" ID2 "\",\"value\":\"//79/A==\",\"extension\":{\"E1_a\":[1,\"x\"]}}"
#define BETWEEN "\"initiator_sae_id\":\"sae-a\",\"target_sae_ids\":[\"sae-z\",\"sae-y\"]"

static struct json_t *
parse(const char *text, bool array)
{
	struct json_t *doc = NULL;
	qg_json_error why;
	const size_t len = strlen(text);
	const qg_err err = array ? qg_json_parse_array(text, len, &doc, &why) : qg_json_parse_object(text, len, &doc, &why);
	if (err != QG_OK)
		fail_msg("%s %s: %s", why.member, why.what, text);
	return doc;
}

/* --- ext_keys ------------------------------------------------------------------------ */

static void
keys_are_read(void **state)
{
	(void)state;
	static const char text[] = "{\"keys\":[" KEY1 "," KEY2 "]," BETWEEN ",\"ack_callback_url\":\"https://g2:9/cb\","
				   "\"extension_mandatory\":{\"E1_m\":true},\"extension_optional\":{\"E2_o\":{\"b\":1,\"a\":2}},"
				   "\"something_new\":null}";
	struct json_t *doc = parse(text, false);
	qg_020_keys m;
	qg_020_problem why;
	assert_int_equal(qg_020_keys_read(doc, 2, &m, &why), QG_OK);
	assert_string_equal(m.saes.initiator, "sae-a");
	assert_int_equal(m.saes.n_targets, 2);
	assert_string_equal(m.saes.target[1], "sae-y");
	assert_string_equal(m.callback, "https://g2:9/cb");
	assert_int_equal(m.n_keys, 2);
	assert_int_equal(m.key[0].size, 4);
	assert_memory_equal(m.key[0].value, "\x00\x01\x02\x03", 4);
	assert_memory_equal(m.key[1].value, "\xff\xfe\xfd\xfc", 4);
	assert_null(m.key[0].extension);
	assert_string_equal(m.key[1].extension, "{\"E1_a\":[1,\"x\"]}");
	assert_string_equal(m.optional, "{\"E2_o\":{\"b\":1,\"a\":2}}"); /* in its order */
	assert_string_equal(qg_020_mandatory_unknown(m.mandatory, NULL), "E1_m");
	assert_null(qg_020_mandatory_unknown(m.mandatory, "E1_m"));

	/* What was read is written as it was. */
	qg_secret *out = NULL;
	const qg_020_keys_out again = {.initiator = m.saes.initiator, .targets = m.saes.target, .n_targets = 2,
				       .callback = m.callback, .key = m.key, .n_keys = 2, .optional = m.optional,
				       .mandatory = "{\"E1_m\":true}"};
	static const char written[] = "{\"keys\":[" KEY1 "," KEY2 "]," BETWEEN ",\"ack_callback_url\":\"https://g2:9/cb\","
				      "\"extension_mandatory\":{\"E1_m\":true},\"extension_optional\":{\"E2_o\":{\"b\":1,"
				      "\"a\":2}}}";
	assert_int_equal(qg_020_keys_write(&again, &out), QG_OK);
	assert_int_equal(out->len, sizeof written - 1);
	assert_memory_equal(out->data, written, out->len);
	qg_secret_free(&out);
	qg_020_keys_fini(&m);
	qg_json_free(&doc);
}

#define CONTAINER(keys) "{\"keys\":[" keys "]," BETWEEN "}"
#define WITH(more) "{\"keys\":[" KEY1 "]," BETWEEN "," more "}"

static const struct {
	const char *text;
	qg_020_fault fault;
	const char *why;
} bad_keys[] = {
	{"{}", QG_020_FORM, "initiator_sae_id is missing"},
	{"{\"keys\":[" KEY1 "],\"target_sae_ids\":[\"z\"]}", QG_020_FORM, "initiator_sae_id is missing"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a\"}", QG_020_FORM, "target_sae_ids is missing"},
	{"{" BETWEEN "}", QG_020_FORM, "keys is missing"},
	{CONTAINER(""), QG_020_FORM, "keys is missing, empty"},
	{"{\"keys\":{}," BETWEEN "}", QG_020_FORM, "keys is missing, empty or not an array"},
	{CONTAINER(KEY1 "," KEY1), QG_020_FORM, "keys has a key_id twice"},
	{CONTAINER(KEY1 "," KEY2 "," KEY2 "," KEY2), QG_020_FORM, "keys has more than 3 entries"},
	{CONTAINER("7"), QG_020_FORM, "keys[0].value is missing"},
	{CONTAINER("{\"key_id\":\"" ID1 "\"}"), QG_020_FORM, "keys[0].value is missing"},
	{CONTAINER("{\"value\":\"AAAA\"}"), QG_020_FORM, "keys[0].key_id is missing or not a UUID"},
	{CONTAINER("{\"key_id\":\"" ID1 "x\",\"value\":\"AAAA\"}"), QG_020_FORM, "keys[0].key_id is missing or not a"},
	{CONTAINER("{\"key_id\":7,\"value\":\"AAAA\"}"), QG_020_FORM, "keys[0].key_id is missing or not a UUID"},
	{CONTAINER(KEY1 ",{\"key_id\":\"" ID2 "\",\"value\":\"AA=A\"}"), QG_020_FORM, "keys[1].value is not base64"},
	{CONTAINER("{\"key_id\":\"" ID1 "\",\"value\":\"AAA\"}"), QG_020_FORM, "keys[0].value is"},
	{CONTAINER("{\"key_id\":\"" ID1 "\",\"value\":\"\"}"), QG_020_FORM, "keys[0].value is missing"},
	{CONTAINER("{\"key_id\":\"" ID1 "\",\"value\":\"AAAA AAA\"}"), QG_020_FORM, "keys[0].value is not base64"},
	{CONTAINER("{\"key_id\":\"" ID1 "\",\"value\":[]}"), QG_020_FORM, "keys[0].value is missing"},
	{CONTAINER("{\"key_id\":\"" ID1 "\",\"value\":\"AAAA\",\"extension\":{}}"), QG_020_FORM,
	 "keys[0].extension is not an object of 1 to 1024 properties"},
	{CONTAINER("{\"key_id\":\"" ID1 "\",\"value\":\"AAAA\",\"extension\":{\"x\":1}}"), QG_020_FORM,
	 "keys[0].extension has a property whose name does not begin with E<PEN>_"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"\",\"target_sae_ids\":[\"z\"]}", QG_020_FORM, "initiator_sae_id"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a b\",\"target_sae_ids\":[\"z\"]}", QG_020_FORM, "initiator_sae_id"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a\",\"target_sae_ids\":[]}", QG_020_FORM, "target_sae_ids is missing"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a\",\"target_sae_ids\":\"z\"}", QG_020_FORM, "target_sae_ids is"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a\",\"target_sae_ids\":[7]}", QG_020_FORM, "target_sae_ids[0] is not"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a\",\"target_sae_ids\":[\"z\",\"z\"]}", QG_020_FORM,
	 "target_sae_ids[1] is a duplicate"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a\",\"target_sae_id\":\"z\"}", QG_020_FORM, "target_sae_ids is missing"},
	{"{\"keys\":[" KEY1 "],\"initiator_sae_id\":\"a\",\"target_sae_ids\":[\"z\",\"a\"]}", QG_020_SELF,
	 "target_sae_ids[1] is the initiator"},
	{WITH("\"ack_callback_url\":\"http://g2/cb\""), QG_020_FORM, "ack_callback_url is not a complete https URL"},
	{WITH("\"ack_callback_url\":\"https://\""), QG_020_FORM, "ack_callback_url is not a complete https URL"},
	{WITH("\"ack_callback_url\":null"), QG_020_FORM, "ack_callback_url is not a complete https URL"},
	{WITH("\"extension_mandatory\":[]"), QG_020_FORM, "extension_mandatory is not an object"},
	{WITH("\"extension_mandatory\":{}"), QG_020_FORM, "extension_mandatory is not an object of 1 to"},
	{WITH("\"extension_optional\":\"x\""), QG_020_FORM, "extension_optional is not an object"},
	{WITH("\"extension_optional\":{\"E_x\":1}"), QG_020_FORM, "extension_optional has a property"},
	{WITH("\"extension_optional\":{\"E1_\":1}"), QG_020_FORM, "extension_optional has a property"},
	{WITH("\"extension_optional\":{\"e1_x\":1}"), QG_020_FORM, "extension_optional has a property"},
};

static void
bad_keys_are_refused_whole(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof bad_keys / sizeof bad_keys[0]; i++) {
		struct json_t *doc = parse(bad_keys[i].text, false);
		qg_020_keys m;
		qg_020_problem why;
		memset(&m, 0xa5, sizeof m);
		const qg_020_keys before = m;
		if (qg_020_keys_read(doc, 3, &m, &why) != QG_E_PARSE)
			fail_msg("taken: %s", bad_keys[i].text);
		assert_int_equal(why.fault, bad_keys[i].fault);
		if (strstr(why.text, bad_keys[i].why) == NULL)
			fail_msg("\"%s\" where \"%s\" is right: %s", why.text, bad_keys[i].why, bad_keys[i].text);
		assert_memory_equal(&m, &before, sizeof m); /* written on success only */
		qg_json_free(&doc);
	}
}

/* A document made by code, with `n` of something. */
static void
take(json_t *doc, qg_err want, qg_020_fault fault)
{
	qg_020_keys m = {.n_keys = 0};
	qg_020_problem why = {.fault = QG_020_FORM};
	assert_int_equal(qg_020_keys_read(doc, QG_020_KEYS_MAX, &m, &why), want);
	if (want != QG_OK)
		assert_int_equal(why.fault, fault);
	qg_020_keys_fini(&m);
	json_decref(doc);
}

static json_t *
keys_doc(size_t n_keys, size_t n_targets, size_t sae_len, size_t value_len, size_t properties)
{
	static char value[8192], sae[128];
	json_t *keys = json_array(), *targets = json_array(), *extension = json_object();
	memset(value, 'A', sizeof value);
	memset(sae, 'z', sizeof sae);
	for (size_t i = 0; i < n_keys; i++) {
		char id[40];
		assert_true(snprintf(id, sizeof id, "0b9f0f0e-2c1f-4b52-9d5c-1a2b%08zx", i) > 0);
		assert_int_equal(json_array_append_new(keys, json_pack("{s:s,s:s%}", "key_id", id, "value", value, value_len)), 0);
	}
	for (size_t i = 0; i < n_targets; i++) {
		char id[40];
		assert_true(snprintf(id, sizeof id, "t%zu", i) > 0);
		assert_int_equal(json_array_append_new(targets, json_string(id)), 0);
	}
	for (size_t i = 0; i < properties; i++) {
		char name[40];
		assert_true(snprintf(name, sizeof name, "E1_%zu", i) > 0);
		assert_int_equal(json_object_set_new(extension, name, json_integer(1)), 0);
	}
	json_t *doc = json_pack("{s:o,s:s%,s:o}", "keys", keys, "initiator_sae_id", sae, sae_len, "target_sae_ids", targets);
	if (properties > 0)
		assert_int_equal(json_object_set(doc, "extension_optional", extension), 0);
	json_decref(extension);
	return doc;
}

static void
limits_hold_to_the_last(void **state)
{
	(void)state;
	take(keys_doc(1024, 1, 5, 44, 0), QG_OK, 0);
	take(keys_doc(1025, 1, 5, 44, 0), QG_E_PARSE, QG_020_FORM);
	take(keys_doc(1, 32, 5, 44, 0), QG_OK, 0);
	take(keys_doc(1, 33, 5, 44, 0), QG_E_PARSE, QG_020_TARGETS_TOO_MANY);
	take(keys_doc(1, 1, 64, 44, 0), QG_OK, 0);
	take(keys_doc(1, 1, 65, 44, 0), QG_E_PARSE, QG_020_FORM);
	take(keys_doc(1, 1, 5, 5460, 0), QG_OK, 0); /* 4095 bytes */
	take(keys_doc(1, 1, 5, 5464, 0), QG_E_PARSE, QG_020_FORM);
	take(keys_doc(1, 1, 5, 44, 1024), QG_OK, 0);
	take(keys_doc(1, 1, 5, 44, 1025), QG_E_PARSE, QG_020_FORM);
}

static void
names_and_urls(void **state)
{
	(void)state;
	char text[QG_020_URL_MAX + 2] = "https://h/";
	memset(text + 10, 'x', sizeof text - 11);
	text[sizeof text - 1] = '\0';
	assert_true(qg_020_url_valid(text, QG_020_URL_MAX));
	assert_false(qg_020_url_valid(text, QG_020_URL_MAX + 1));
	assert_true(qg_020_sae_id_valid("urn:x-sae:a/b?c=%20", 19));
	assert_false(qg_020_sae_id_valid("a\"b", 3));
	assert_false(qg_020_sae_id_valid("a\\b", 3));
	assert_false(qg_020_sae_id_valid("\xc3\xa4", 2));
	assert_false(qg_020_sae_id_valid("a\0b", 3));
	assert_false(qg_020_sae_id_valid("", 0));
}

/* --- drafts ----------------------------------------------------------------------------- */

static void
draft_keys_are_read(void **state)
{
	(void)state;
	struct json_t *doc = parse("{\"keys\":[" KEY1 "],\"extension_optional\":[{\"E1_a\":1},{\"plain\":2},{\"E2_b\":3}],"
				   "\"extension_mandatory\":[]}", false);
	qg_020_keys m;
	qg_020_problem why;
	assert_int_equal(qg_020_draft_keys_read(doc, "sae-a", "sae-z", 9, &m, &why), QG_OK);
	assert_string_equal(m.saes.initiator, "sae-a");
	assert_string_equal(m.saes.target[0], "sae-z");
	assert_string_equal(m.optional, "{\"E1_a\":1,\"E2_b\":3}");
	assert_null(m.callback);
	assert_null(m.mandatory);
	qg_secret *out = NULL;
	const qg_020_keys_out again = {.key = m.key, .n_keys = 1, .optional = m.optional};
	static const char written[] = "{\"keys\":[" KEY1 "],\"extension_optional\":[{\"E1_a\":1,\"E2_b\":3}]}";
	assert_int_equal(qg_020_draft_keys_write(&again, &out), QG_OK);
	assert_int_equal(out->len, sizeof written - 1);
	assert_memory_equal(out->data, written, out->len);
	qg_secret_free(&out);
	qg_020_keys_fini(&m);
	assert_int_equal(qg_020_draft_keys_read(doc, "sae-a", "sae-a", 9, &m, &why), QG_E_PARSE);
	assert_int_equal(why.fault, QG_020_SELF);
	assert_int_equal(qg_020_draft_keys_read(doc, "sae a", "sae-z", 9, &m, &why), QG_E_PARSE);
	qg_json_free(&doc);

	static const char *const wrong[] = {
		"{\"keys\":[" KEY1 "],\"extension_optional\":{\"E1_a\":1}}",
		"{\"keys\":[" KEY1 "],\"extension_optional\":[7]}",
		"{\"keys\":[" KEY1 "],\"extension_optional\":[{\"E1_a\":1},{\"E1_a\":1}]}",
		"{\"keys\":[" KEY1 "],\"extension_mandatory\":{}}",
		"{\"keys\":[]}",
		"{}",
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		doc = parse(wrong[i], false);
		if (qg_020_draft_keys_read(doc, "a", "z", 9, &m, &why) != QG_E_PARSE)
			fail_msg("taken: %s", wrong[i]);
		qg_json_free(&doc);
	}
	doc = parse("{\"keys\":[" KEY1 "],\"extension_mandatory\":[{},{\"x\":1}]}", false);
	assert_int_equal(qg_020_draft_keys_read(doc, "a", "z", 9, &m, &why), QG_OK);
	assert_string_equal(qg_020_mandatory_unknown(m.mandatory, "E1_m"), "x");
	qg_020_keys_fini(&m);
	qg_json_free(&doc);
}

static void
draft_path(void **state)
{
	(void)state;
	char out[QG_020_DRAFT_PATH_MAX];
	char longest[QG_020_SAE_MAX + 1];
	assert_int_equal(qg_020_draft_path("sae-a", "u:x/y?z%20", out, sizeof out), QG_OK);
	assert_string_equal(out, "/sae-a/u%3Ax%2Fy%3Fz%2520");
	memset(longest, '/', sizeof longest - 1);
	longest[sizeof longest - 1] = '\0';
	assert_int_equal(qg_020_draft_path(longest, longest, out, sizeof out), QG_OK);
	assert_int_equal(qg_020_draft_path("sae-a", "x", out, 8), QG_E_RANGE);
}

/* --- mask ----------------------------------------------------------------------------------- */

static qg_020_mask
sample_mask(void)
{
	qg_020_mask m = {.link = "g1-g2", .n_pads = 2, .oldest_mac = 3, .oldest_pad = 4};
	for (size_t i = 0; i < 2; i++) {
		memset(m.pad[i].epoch, (int)(0x10 + i), sizeof m.pad[i].epoch);
		m.pad[i].segment = (uint32_t)(5 + i);
		m.pad[i].offset = 64;
		m.pad[i].len = 64;
	}
	memset(m.mac, 0x77, sizeof m.mac);
	return m;
}

static void
masks(void **state)
{
	(void)state;
	char name[QG_020_MASK_NAME_MAX];
	char *text = NULL;
	const qg_020_mask m = sample_mask();
	qg_020_mask back = {.n_pads = 0};
	qg_020_mask_name(UINT32_MAX, name);
	assert_string_equal(name, "E4294967295_kxi_mask");
	assert_int_equal(qg_020_mask_write(&m, name, &text), QG_OK);
	struct json_t *doc = parse(text, false);
	assert_int_equal(qg_020_mask_read(doc, name, &back), QG_OK);
	assert_memory_equal(&back, &m, sizeof m);
	assert_int_equal(qg_020_mask_read(doc, "E1_kxi_mask", &back), QG_E_NOTFOUND);
	assert_int_equal(qg_020_mask_read(NULL, name, &back), QG_E_NOTFOUND);
	/* Every member counts, and there is no other. */
	json_t *object = json_object_get(doc, name);
	static const char *const members[] = {"version", "link", "pads", "oldest_mac", "oldest_pad", "mac"};
	assert_int_equal(json_object_size(object), 6);
	for (size_t i = 0; i < 6; i++) {
		json_t *kept = json_incref(json_object_get(object, members[i]));
		assert_int_equal(json_object_del(object, members[i]), 0);
		assert_int_equal(qg_020_mask_read(doc, name, &back), QG_E_PARSE);
		assert_int_equal(json_object_set_new(object, members[i], json_null()), 0);
		assert_int_equal(qg_020_mask_read(doc, name, &back), QG_E_PARSE);
		assert_int_equal(json_object_set_new(object, members[i], kept), 0);
	}
	assert_int_equal(json_object_set_new(object, "more", json_true()), 0);
	assert_int_equal(qg_020_mask_read(doc, name, &back), QG_E_PARSE);
	assert_int_equal(json_object_set_new(doc, name, json_integer(1)), 0);
	assert_int_equal(qg_020_mask_read(doc, name, &back), QG_E_PARSE);
	qg_json_free(&doc);
	free(text);
}

/* --- acks -------------------------------------------------------------------------------------- */

#define ACK(ids, status) "{\"key_id_container\":[" ids "],\"ack_status\":\"" status "\"," BETWEEN "}"
#define KID1 "{\"key_id\":\"" ID1 "\"}"

static void
acks_are_read(void **state)
{
	(void)state;
	static const char *const words[] = {"relayed", "failed", "voided", "failed to void", "key not present"};
	char text[1024];
	qg_020_problem why;
	qg_020_acks m;
	for (int i = 0; i < QG_020_STATUSES; i++) {
		assert_true(snprintf(text, sizeof text,
				     "[" ACK(KID1 ",{\"key_id\":\"" ID2 "\",\"extension\":{\"E1_x\":1}}", "%s") "]",
				     words[i]) > 0);
		struct json_t *doc = parse(text, true);
		assert_int_equal(qg_020_acks_read(doc, false, &m, &why), QG_OK);
		assert_int_equal(m.n, 1);
		assert_int_equal(m.ack[0].status, i);
		assert_int_equal(m.ack[0].n_ids, 2);
		const qg_020_ack_out out = {.status = m.ack[0].status, .initiator = "sae-a", .targets = m.ack[0].saes.target,
					    .n_targets = 2, .ids = m.ack[0].ids, .n_ids = 1, .message = "a \"text\"\n"};
		qg_secret *body = NULL;
		assert_int_equal(qg_020_acks_write(&out, 1, &body), QG_OK);
		struct json_t *again = NULL;
		qg_json_error error;
		assert_int_equal(qg_json_parse_array((const char *)body->data, body->len, &again, &error), QG_OK);
		qg_020_acks_fini(&m);
		assert_int_equal(qg_020_acks_read(again, false, &m, &why), QG_OK);
		assert_int_equal(m.ack[0].status, i);
		assert_string_equal(m.ack[0].message, "a \"text\"\n");
		qg_020_acks_fini(&m);
		qg_secret_free(&body);
		qg_json_free(&again);
		qg_json_free(&doc);
	}
}

static void
bad_acks_are_refused_whole(void **state)
{
	(void)state;
	static const char *const wrong[] = {
		"[]",
		"[7]",
		"[" ACK("", "relayed") "]",
		"[" ACK(KID1, "relayed") ",{}]",
		"[" ACK(KID1, "Relayed") "]",
		"[" ACK(KID1, "") "]",
		"[" ACK("\"" ID1 "\"", "relayed") "]",
		"[" ACK("{\"key_id\":\"nonsense\"}", "relayed") "]",
		"[" ACK("{\"key_id\":\"" ID1 "\",\"extension\":{}}", "relayed") "]",
		"[{\"key_ids\":[\"" ID1 "\"],\"ack_status\":\"relayed\"," BETWEEN "}]",
		"[{\"key_id_container\":[" KID1 "],\"ack_status\":\"relayed\",\"initiator_sae_id\":\"a\",\"target_sae_id\":\"z\"}]",
		"[{\"key_id_container\":[" KID1 "],\"ack_status\":\"relayed\"," BETWEEN ",\"message\":7}]",
		"[{\"key_id_container\":[" KID1 "],\"ack_status\":\"relayed\"," BETWEEN ",\"extension\":{\"x\":1}}]",
		"[{\"key_id_container\":[" KID1 "]," BETWEEN "}]",
	};
	qg_020_problem why;
	qg_020_acks m;
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		struct json_t *doc = parse(wrong[i], true);
		if (qg_020_acks_read(doc, false, &m, &why) != QG_E_PARSE)
			fail_msg("taken: %s", wrong[i]);
		assert_int_equal(why.fault, QG_020_FORM);
		qg_json_free(&doc);
	}
}

static void
draft_acks(void **state)
{
	(void)state;
	static const char *const forms[] = {
		"[{\"key_ids\":[\"" ID1 "\"],\"ack_status\":\"relayed\",\"initiator_sae_id\":\"a\",\"target_sae_id\":\"z\"}]",
		"[{\"key_ids\":[" KID1 "],\"ack_status\":\"failed\",\"initiator_sae_id\":\"a\",\"target_sae_ids\":[\"z\"]}]",
		"[{\"key_id_container\":[" KID1 "],\"ack_status\":\"failed\",\"initiator_sae_id\":\"a\",\"target_sae_id\":\"z\"}]",
	};
	qg_020_problem why;
	qg_020_acks m;
	for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
		struct json_t *doc = parse(forms[i], true);
		assert_int_equal(qg_020_acks_read(doc, false, &m, &why), QG_E_PARSE);
		assert_int_equal(qg_020_acks_read(doc, true, &m, &why), QG_OK);
		assert_int_equal(m.ack[0].n_ids, 1);
		assert_string_equal(m.ack[0].saes.target[0], "z");
		qg_020_acks_fini(&m);
		qg_json_free(&doc);
	}
	struct json_t *doc = parse("[{\"key_ids\":[],\"ack_status\":\"relayed\",\"initiator_sae_id\":\"a\",\"target_sae_id\":"
				   "\"z\"}]", true);
	assert_int_equal(qg_020_acks_read(doc, true, &m, &why), QG_E_PARSE);
	qg_json_free(&doc);
}

static void
a_message_has_4096_characters(void **state)
{
	(void)state;
	qg_020_problem why;
	qg_020_acks m;
	struct json_t *doc = parse("[" ACK(KID1, "failed") "]", true);
	json_t *ack = json_array_get(doc, 0);
	static char text[2 * 4097 + 1];
	for (size_t i = 0; i < 4097; i++)
		memcpy(text + 2 * i, "\xc3\xa4", 2); /* two bytes each */
	assert_int_equal(json_object_set_new(ack, "message", json_stringn(text, (size_t)2 * 4096)), 0);
	assert_int_equal(qg_020_acks_read(doc, false, &m, &why), QG_OK);
	qg_020_acks_fini(&m);
	assert_int_equal(json_object_set_new(ack, "message", json_stringn(text, (size_t)2 * 4097)), 0);
	assert_int_equal(qg_020_acks_read(doc, false, &m, &why), QG_E_PARSE);
	qg_json_free(&doc);
}

/* --- voids ---------------------------------------------------------------------------------------- */

static void
voids(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool confirmed;
		qg_err err;
		qg_020_fault fault;
		size_t n;
	} cases[] = {
		{"{\"key_ids\":[\"" ID1 "\",\"" ID2 "\"]," BETWEEN "}", false, QG_OK, 0, 2},
		{"{\"key_ids\":[]," BETWEEN ",\"all_confirmation\":true}", false, QG_OK, 0, 0},
		{"{\"key_ids\":[]," BETWEEN "}", true, QG_OK, 0, 0},
		{"{\"key_ids\":[]," BETWEEN "}", false, QG_E_PARSE, QG_020_NO_IDS, 0},
		{"{\"key_ids\":[]," BETWEEN ",\"all_confirmation\":false}", false, QG_E_PARSE, QG_020_NO_IDS, 0},
		{"{\"key_ids\":[]," BETWEEN ",\"all_confirmation\":\"true\"}", false, QG_E_PARSE, QG_020_FORM, 0},
		{"{" BETWEEN ",\"all_confirmation\":true}", false, QG_E_PARSE, QG_020_FORM, 0},
		{"{\"key_ids\":[" KID1 "]," BETWEEN "}", false, QG_E_PARSE, QG_020_FORM, 0},
		{"{\"key_ids\":[\"" ID1 "\",\"" ID1 "\"]," BETWEEN "}", false, QG_E_PARSE, QG_020_FORM, 0},
		{"{\"key_ids\":[\"x\"]," BETWEEN "}", false, QG_E_PARSE, QG_020_FORM, 0},
		{"{\"key_ids\":[\"" ID1 "\"]}", false, QG_E_PARSE, QG_020_FORM, 0},
		{"{\"key_ids\":[\"" ID1 "\"]," BETWEEN ",\"ack_callback_url\":7}", false, QG_E_PARSE, QG_020_FORM, 0},
		{"{\"key_ids\":[\"" ID1 "\"]," BETWEEN ",\"extension\":{}}", false, QG_E_PARSE, QG_020_FORM, 0},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		qg_020_problem why = {.fault = QG_020_FORM};
		qg_020_void m = {.n_ids = 9};
		struct json_t *doc = parse(cases[i].text, false);
		if (qg_020_void_read(doc, cases[i].confirmed, &m, &why) != cases[i].err)
			fail_msg("not right: %s", cases[i].text);
		if (cases[i].err == QG_OK) {
			assert_int_equal(m.n_ids, cases[i].n);
			qg_020_void_fini(&m);
		} else {
			assert_int_equal(why.fault, cases[i].fault);
			assert_int_equal(m.n_ids, 9);
		}
		qg_json_free(&doc);
	}
	const char *const targets[] = {"sae-z", "sae-y"};
	qg_uuid id;
	qg_secret *out = NULL;
	assert_int_equal(qg_uuid_parse(ID1, 36, &id), QG_OK);
	assert_int_equal(qg_020_void_write("sae-a", targets, 2, "https://h/cb", &id, 1, &out), QG_OK);
	static const char one[] = "{\"key_ids\":[\"" ID1 "\"]," BETWEEN ",\"ack_callback_url\":\"https://h/cb\"}";
	assert_int_equal(out->len, sizeof one - 1);
	assert_memory_equal(out->data, one, out->len);
	qg_secret_free(&out);
	assert_int_equal(qg_020_void_write("sae-a", targets, 2, NULL, NULL, 0, &out), QG_OK);
	static const char all[] = "{\"key_ids\":[]," BETWEEN ",\"all_confirmation\":true}";
	assert_memory_equal(out->data, all, sizeof all - 1);
	qg_secret_free(&out);
}

/* --- answers ---------------------------------------------------------------------------------------- */

static void
problems(void **state)
{
	(void)state;
	static const char *const members[] = {"no_key_ids_or_confirmation", "no_all_confirmation"};
	char buf[512];
	size_t n = qg_020_problem_write(QG_020_PROBLEM_PREFIX "no-key-ids-or-confirmation", "T", 400, members, 2, "why \"so\"",
					buf, sizeof buf);
	static const char want[] = "{\"type\":\"https://qkd.etsi.org/gs020-interop-kms/no-key-ids-or-confirmation\","
				   "\"title\":\"T\",\"status\":400,\"details\":{\"no_key_ids_or_confirmation\":"
				   "\"why \\\"so\\\"\",\"no_all_confirmation\":\"why \\\"so\\\"\"}}";
	assert_int_equal(n, sizeof want - 1);
	assert_memory_equal(buf, want, n);
	assert_int_equal(qg_020_problem_write("t", "T", 400, members, 2, "x", buf, 40), 0);

	qg_020_problem_seen seen;
	struct json_t *doc = parse(want, false);
	qg_020_problem_read(doc, &seen);
	assert_string_equal(seen.type, "no-key-ids-or-confirmation");
	assert_string_equal(seen.detail, "why ?so?");
	qg_json_free(&doc);
	doc = parse("{\"type\":7,\"details\":[]}", false);
	qg_020_problem_read(doc, &seen);
	assert_string_equal(seen.type, "");
	assert_string_equal(seen.detail, "");
	qg_json_free(&doc);
	n = qg_020_message_write("well", buf, sizeof buf);
	assert_memory_equal(buf, "{\"message\":\"well\",\"details\":[]}", n);
	assert_int_equal(n, 31);
}

/* Whatever is changed in a body: it is refused, or what is taken holds the limits. */
static void
mutated_bodies(void **state)
{
	(void)state;
	static const char good[] = "{\"keys\":[" KEY1 "," KEY2 "]," BETWEEN ",\"ack_callback_url\":\"https://g2:9/cb\","
				   "\"extension_mandatory\":{\"E1_m\":true},\"extension_optional\":{\"E2_o\":{\"b\":1,\"a\":2}}}";
	static const char swap[] = "\"{}[],:0\\ \x80";
	unsigned taken = 0;
	for (size_t at = 0; at < sizeof good - 1; at++) {
		for (size_t s = 0; s < sizeof swap - 1; s++) {
			char text[sizeof good];
			struct json_t *doc = NULL;
			qg_json_error error;
			qg_020_problem why;
			qg_020_keys m;
			memcpy(text, good, sizeof good);
			text[at] = swap[s];
			if (qg_json_parse_object(text, sizeof good - 1, &doc, &error) != QG_OK)
				continue;
			if (qg_020_keys_read(doc, 2, &m, &why) == QG_OK) {
				taken++;
				assert_in_range(m.n_keys, 1, 2);
				assert_in_range(m.saes.n_targets, 1, 2);
				for (size_t k = 0; k < m.n_keys; k++)
					assert_in_range(m.key[k].size, 1, 6);
				qg_020_keys_fini(&m);
			}
			qg_json_free(&doc);
		}
	}
	assert_true(taken > 0);
}

static int
setup(void **state)
{
	(void)state;
	return qg_secret_init() == QG_OK ? 0 : -1;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_are_read),
		cmocka_unit_test(bad_keys_are_refused_whole),
		cmocka_unit_test(limits_hold_to_the_last),
		cmocka_unit_test(names_and_urls),
		cmocka_unit_test(draft_keys_are_read),
		cmocka_unit_test(draft_path),
		cmocka_unit_test(masks),
		cmocka_unit_test(acks_are_read),
		cmocka_unit_test(bad_acks_are_refused_whole),
		cmocka_unit_test(draft_acks),
		cmocka_unit_test(a_message_has_4096_characters),
		cmocka_unit_test(voids),
		cmocka_unit_test(problems),
		cmocka_unit_test(mutated_bodies),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
