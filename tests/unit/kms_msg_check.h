/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_KMS_MSG_CHECK_H
#define TESTS_UNIT_KMS_MSG_CHECK_H

#include "kms_msg_sample.h"
#include "seed.h"

/* What every message between neighbours must stand. */

/* Refused, and the result is as it was before. */
static void
refused_n(const sample *s, const char *json, size_t len)
{
	memset(&got, 0x5a, sizeof got);
	if (s->decode(json, len, &got) != QG_E_PARSE)
		fail_msg("%s: accepted: %.*s", s->what, (int)len, json);
	for (size_t i = 0; i < s->size; i++)
		assert_int_equal(((const uint8_t *)&got)[i], 0x5a);
}

static void
refused(const sample *s, const char *json)
{
	refused_n(s, json, strlen(json));
}

/* `object` written out; takes it. */
static void
refused_json(const sample *s, json_t *root)
{
	char *text = json_dumps(root, JSON_COMPACT);

	assert_non_null(text);
	refused(s, text);
	free(text);
	json_decref(root);
}

static void
test_exact_and_back(void **state)
{
	char out[QG_KMS_MSG_MAX];
	size_t len;

	(void)state;
	for (size_t i = 0; i < n_samples; i++) {
		const sample *s = &samples[i];

		for (int twice = 0; twice < 2; twice++) {
			assert_int_equal(s->encode(s->m, out, sizeof out, &len), QG_OK);
			assert_int_equal(len, strlen(s->json));
			assert_memory_equal(out, s->json, len);
		}
		memset(got, 0, s->size);
		assert_int_equal(s->decode(out, len, got), QG_OK);
		assert_memory_equal(got, s->m, s->size);
	}
}

/* In memory of exactly that size, so that a byte too many is noticed. */
static void
test_room(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_samples; i++) {
		const sample *s = &samples[i];
		size_t full = strlen(s->json);

		for (size_t room = 1; room <= full; room++) {
			char *out = malloc(room);
			size_t len = 99999;

			assert_non_null(out);
			assert_int_equal(s->encode(s->m, out, room, &len), room < full ? QG_E_RANGE : QG_OK);
			assert_int_equal(len, room < full ? 99999 : full);
			free(out);
		}
	}
}

static void
test_truncated_and_trailing(void **state)
{
	static const char *const tails[] = {"}", "{}", " x", ",", "\"", "]", "\x01", "\xff"};
	char text[2048];

	(void)state;
	for (size_t i = 0; i < n_samples; i++) {
		const sample *s = &samples[i];
		size_t full = strlen(s->json);

		for (size_t len = 0; len < full; len++) {
			char *exact = malloc(len + 1);

			assert_non_null(exact);
			memcpy(exact, s->json, len);
			exact[len] = '}'; /* beyond what is told */
			refused_n(s, exact, len);
			free(exact);
		}
		for (size_t t = 0; t < COUNT(tails); t++) {
			int n = snprintf(text, sizeof text, "%s%s", s->json, tails[t]);

			assert_in_range(n, 1, sizeof text - 1);
			refused(s, text);
		}
		refused_n(s, "", 0);
		refused_n(s, s->json, full + 1); /* the NUL */
	}
}

typedef void change_member(const sample *s, json_t *root, json_t *in, const char *name);

/* Calls `change` for every member of every object in the message: itself and
 * the elements of its arrays. It takes `root`, a copy of its own. */
static void
each_member(const sample *s, change_member *change)
{
	json_t *plain = json_loads(s->json, 0, NULL);
	const char *name;
	json_t *value;

	json_object_foreach (plain, name, value) {
		json_t *root = json_deep_copy(plain);

		change(s, root, root, name);
		for (size_t i = 0; i < json_array_size(value); i++) {
			const char *inner;
			json_t *ignored;

			json_object_foreach (json_array_get(value, i), inner, ignored) {
				root = json_deep_copy(plain);
				change(s, root, json_array_get(json_object_get(root, name), i), inner);
			}
		}
	}
	json_decref(plain);
}

static bool
is_one_of(const char *name, const char *const *list)
{
	while (*list && strcmp(name, *list) != 0)
		list++;
	return *list != NULL;
}

static void
take_out(const sample *s, json_t *root, json_t *in, const char *name)
{
	static const char *const optional[] = {"saes", NULL};
	char *text;

	json_object_del(in, name);
	if (!is_one_of(name, optional)) {
		refused_json(s, root);
		return;
	}
	text = json_dumps(root, JSON_COMPACT);
	assert_non_null(text);
	assert_int_equal(s->decode(text, strlen(text), got), QG_OK);
	free(text);
	json_decref(root);
}

static void
other_types(const sample *s, json_t *root, json_t *in, const char *name)
{
	static const char *const values[] = {
		"null", "-1", "1.0", "1e2", "1.5", "[]", "{}", "[1]", "\"\"",
		"\"x\\u0000\"", "\"\\u00e9\"", "\"1\"", "\"x\\ny\"", "\"\\u007f\"",
	};
	static const char *const names[] = {
		"stream", "opener", "peer", "link", "at", "from", "to", "initiator", "origin", NULL,
	};
	static const char *const may_be_empty[] = {"epochs", "links", NULL};
	json_type type = json_typeof(json_object_get(in, name));
	bool number = type == JSON_INTEGER, text = type == JSON_STRING;
	bool flag = type == JSON_TRUE || type == JSON_FALSE;
	bool empty_too = is_one_of(name, may_be_empty), a_name = is_one_of(name, names);

	for (size_t i = 0; i < COUNT(values); i++) {
		if ((empty_too && strcmp(values[i], "[]") == 0) || (a_name && strcmp(values[i], "\"1\"") == 0))
			continue; /* right here */
		json_object_set_new(in, name, json_loads(values[i], JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
		refused_json(s, json_deep_copy(root));
	}
	if (!number) {
		json_object_set_new(in, name, json_integer(1));
		refused_json(s, json_deep_copy(root));
	}
	if (!flag) {
		json_object_set_new(in, name, json_true());
		refused_json(s, json_deep_copy(root));
	}
	if (!text) {
		json_object_set_new(in, name, json_string("a-to-b"));
		refused_json(s, json_deep_copy(root));
	}
	json_decref(root);
}

static void
renamed(const sample *s, json_t *root, json_t *in, const char *name)
{
	char other[64];
	json_t *value = json_incref(json_object_get(in, name));
	int n = snprintf(other, sizeof other, "%s_", name);

	assert_in_range(n, 2, sizeof other - 1);
	json_object_del(in, name);
	json_object_set_new(in, other, value);
	refused_json(s, root);
}

static void
one_more(const sample *s, json_t *root, json_t *in, const char *name)
{
	(void)name;
	json_object_set_new(in, "more", json_integer(1));
	refused_json(s, root);
}

/* The member once more, in front of the object it stands in: jansson cannot
 * hold that, so it is put into the text. */
static void
doubled(const sample *s, json_t *root, json_t *in, const char *name)
{
	json_t *one = json_pack("{s:O}", name, json_object_get(in, name));
	char *part = json_dumps(in, JSON_COMPACT), *value = json_dumps(one, JSON_COMPACT), text[4096];
	const char *at;
	int n;

	assert_non_null(part);
	assert_non_null(value);
	at = strstr(s->json, part);
	assert_non_null(at);
	value[strlen(value) - 1] = '\0';
	n = snprintf(text, sizeof text, "%.*s%s,%s", (int)(at - s->json), s->json, value, at + 1);
	assert_in_range(n, 1, sizeof text - 1);
	refused(s, text);
	free(part);
	free(value);
	json_decref(one);
	json_decref(root);
}

static void
test_members(void **state)
{
	(void)state;
	for (size_t i = 0; i < n_samples; i++) {
		each_member(&samples[i], take_out);
		each_member(&samples[i], other_types);
		each_member(&samples[i], renamed);
		each_member(&samples[i], one_more);
		each_member(&samples[i], doubled);
	}
}

/* The sample with one piece of its text replaced. */
static void
with(const sample *s, const char *was, const char *now, bool ok)
{
	char text[4096];

	replaced(s, was, now, text, sizeof text);
	if (!ok)
		refused(s, text);
	else if (s->decode(text, strlen(text), got) != QG_OK)
		fail_msg("%s: refused: %s", s->what, text);
}

/* Whatever is accepted after damage is encoded and read again the same. */
static void
test_mutated(void **state)
{
	static const char spice[] = "{}[]\",:\\0123456789-+.eE tfnu\x00\x7f\xff/";
	static uint8_t before[sizeof got];
	uint64_t x;

	(void)state;
	x = (uint64_t)test_seed() << 8 | 1;
	for (size_t i = 0; i < 40000; i++) {
		const sample *s = &samples[i % n_samples];
		char text[2048], out[QG_KMS_MSG_MAX];
		size_t len = strlen(s->json), out_len;

		memcpy(text, s->json, len);
		for (size_t edits = 1 + i % 3; edits > 0; edits--) {
			size_t at;

			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			at = (size_t)(x >> 8) % len;
			if ((x & 3) == 0) /* cut a character out */
				memmove(text + at, text + at + 1, --len - at);
			else
				text[at] = (x & 3) == 1 ? (char)(x >> 40) : spice[(x >> 40) % (sizeof spice - 1)];
		}
		memset(got, 0, s->size);
		if (s->decode(text, len, got) != QG_OK)
			continue;
		assert_int_equal(s->encode(got, out, sizeof out, &out_len), QG_OK);
		memcpy(before, got, s->size);
		assert_int_equal(s->decode(out, out_len, got), QG_OK);
		assert_memory_equal(got, before, s->size);
	}
}

#endif
