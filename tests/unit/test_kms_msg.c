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

#include "qkdgate/encode.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/secret.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

#define KSID \
	{{0x46, 0xc8, 0xa6, 0x8c, 0x21, 0x21, 0x4f, 0x92, 0xa7, 0xc9, 0x27, 0xef, 0x9f, 0xb6, 0xf9, 0xf6}}
#define SIXTEEN {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff}
#define MAC {0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f}
#define KSID_TEXT "\"46c8a68c-2121-4f92-a7c9-27ef9fb6f9f6\""
#define SIXTEEN_TEXT "\"000102030405060708090a0b0c0d0eff\""
#define MAC_TEXT "\"f0e1d2c3b4a5968778695a4b3c2d1e0f\""

static const qg_kms_new_app new_app = {
	.stream = "a-to-b", .opener = "KME-A", .peer = "KME \"B\"", .ksid = KSID, .nonce = SIXTEEN, .chunk_size = 32,
	.segment_chunks = 256, .owner = 2, .inbound_chunks = 65536,
};
static const qg_kms_new_app_answer new_app_answer = {
	.result = QG_KMS_APP_ACCEPTED, .nonce = MAC, .segment_chunks = 128, .inbound_chunks = 4294967295u,
};
static const qg_kms_new_app_answer new_app_refusal = {.result = QG_KMS_APP_UNKNOWN_STREAM};
static const qg_kms_batch batch = {
	.stream = "a-to-b", .ksid = KSID, .epoch = SIXTEEN, .segment = 7, .first_index = 1792, .count = 256,
	.use = QG_USE_NODE, .root = true, .issue_s = 3600, .fetch_s = 86400, .mark = 4294967296u, .mac = MAC,
};
static const qg_kms_batch_answer confirmed = {.result = QG_KMS_BATCH_CONFIRMED, .mac = MAC};
static const qg_kms_batch_answer pending = {.result = QG_KMS_BATCH_PENDING};
static const qg_kms_closed closed = {
	.stream = "a-to-b", .ksid = KSID, .epoch = SIXTEEN, .reason = QG_KMS_CLOSE_ROLLBACK,
};
static const qg_kms_status status = {
	.n = 2,
	.epoch = {
		{.stream = "a-to-b", .epoch = SIXTEEN, .state = 1, .seen_mark = 2048, .seen_segments = 8},
		{.stream = "b-to-a", .epoch = MAC, .state = 3, .seen_mark = 0, .seen_segments = 0},
	},
};
static const qg_kms_status no_status = {.n = 0};

#define WRAP(name) \
	static qg_err name##_encode(const void *m, char *out, size_t room, size_t *len) \
	{ \
		return qg_kms_##name##_encode(m, out, room, len); \
	} \
	static qg_err name##_decode(const char *json, size_t len, void *m) \
	{ \
		return qg_kms_##name##_decode(json, len, m); \
	}
WRAP(new_app)
WRAP(new_app_answer)
WRAP(batch)
WRAP(batch_answer)
WRAP(closed)
WRAP(status)

typedef struct sample {
	const char *what;
	qg_err (*encode)(const void *m, char *out, size_t room, size_t *len);
	qg_err (*decode)(const char *json, size_t len, void *m);
	const void *m;
	size_t size;
	const char *json;
} sample;

static const sample samples[] = {
	{"new_app", new_app_encode, new_app_decode, &new_app, sizeof new_app,
	 "{\"version\":1,\"stream\":\"a-to-b\",\"opener\":\"KME-A\",\"peer\":\"KME \\\"B\\\"\",\"ksid\":" KSID_TEXT
	 ",\"nonce\":" SIXTEEN_TEXT ",\"chunk_size\":32,\"segment_chunks\":256,\"owner\":\"alternating\","
	 "\"inbound_chunks\":65536}"},
	{"new_app answer", new_app_answer_encode, new_app_answer_decode, &new_app_answer, sizeof new_app_answer,
	 "{\"version\":1,\"result\":\"accepted\",\"nonce\":" MAC_TEXT
	 ",\"segment_chunks\":128,\"inbound_chunks\":4294967295}"},
	{"new_app refusal", new_app_answer_encode, new_app_answer_decode, &new_app_refusal, sizeof new_app_refusal,
	 "{\"version\":1,\"result\":\"unknown_stream\",\"nonce\":\"00000000000000000000000000000000\","
	 "\"segment_chunks\":0,\"inbound_chunks\":0}"},
	{"new_key_batch", batch_encode, batch_decode, &batch, sizeof batch,
	 "{\"version\":1,\"stream\":\"a-to-b\",\"ksid\":" KSID_TEXT ",\"epoch\":" SIXTEEN_TEXT
	 ",\"segment\":7,\"first_index\":1792,\"count\":256,\"use\":\"node\",\"root\":true,\"issue_s\":3600,"
	 "\"fetch_s\":86400,\"mark\":4294967296,\"mac\":" MAC_TEXT "}"},
	{"new_key_batch confirmed", batch_answer_encode, batch_answer_decode, &confirmed, sizeof confirmed,
	 "{\"version\":1,\"result\":\"confirmed\",\"mac\":" MAC_TEXT "}"},
	{"new_key_batch pending", batch_answer_encode, batch_answer_decode, &pending, sizeof pending,
	 "{\"version\":1,\"result\":\"pending\"}"},
	{"key_stream_closed", closed_encode, closed_decode, &closed, sizeof closed,
	 "{\"version\":1,\"stream\":\"a-to-b\",\"ksid\":" KSID_TEXT ",\"epoch\":" SIXTEEN_TEXT
	 ",\"reason\":\"rollback\"}"},
	{"get_status", status_encode, status_decode, &status, sizeof status,
	 "{\"version\":1,\"epochs\":[{\"stream\":\"a-to-b\",\"epoch\":" SIXTEEN_TEXT
	 ",\"state\":\"filling\",\"seen_mark\":2048,\"seen_segments\":8},{\"stream\":\"b-to-a\",\"epoch\":" MAC_TEXT
	 ",\"state\":\"draining\",\"seen_mark\":0,\"seen_segments\":0}]}"},
	{"get_status of none", status_encode, status_decode, &no_status, sizeof no_status,
	 "{\"version\":1,\"epochs\":[]}"},
};

static union {
	qg_kms_new_app new_app;
	qg_kms_new_app_answer new_app_answer;
	qg_kms_batch batch;
	qg_kms_batch_answer batch_answer;
	qg_kms_closed closed;
	qg_kms_status status;
} got;

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
	for (size_t i = 0; i < COUNT(samples); i++) {
		const sample *s = &samples[i];

		for (int twice = 0; twice < 2; twice++) {
			assert_int_equal(s->encode(s->m, out, sizeof out, &len), QG_OK);
			assert_int_equal(len, strlen(s->json));
			assert_memory_equal(out, s->json, len);
		}
		memset(&got, 0, sizeof got);
		assert_int_equal(s->decode(out, len, &got), QG_OK);
		assert_memory_equal(&got, s->m, s->size);
	}
}

/* In memory of exactly that size, so that a byte too many is noticed. */
static void
test_room(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(samples); i++) {
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
	for (size_t i = 0; i < COUNT(samples); i++) {
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

static void
take_out(const sample *s, json_t *root, json_t *in, const char *name)
{
	json_object_del(in, name);
	refused_json(s, root);
}

static void
other_types(const sample *s, json_t *root, json_t *in, const char *name)
{
	static const char *const values[] = {
		"null", "-1", "1.0", "1e2", "1.5", "[]", "{}", "[1]", "\"\"",
		"\"x\\u0000\"", "\"\\u00e9\"", "\"1\"", "\"x\\ny\"", "\"\\u007f\"",
	};
	json_type type = json_typeof(json_object_get(in, name));
	bool number = type == JSON_INTEGER, text = type == JSON_STRING, list = type == JSON_ARRAY;
	bool flag = type == JSON_TRUE || type == JSON_FALSE;
	bool a_name = strcmp(name, "stream") == 0 || strcmp(name, "opener") == 0 || strcmp(name, "peer") == 0;

	for (size_t i = 0; i < COUNT(values); i++) {
		if ((list && strcmp(values[i], "[]") == 0) || (a_name && strcmp(values[i], "\"1\"") == 0))
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
	for (size_t i = 0; i < COUNT(samples); i++) {
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
	const char *at = strstr(s->json, was);
	char text[4096];
	int n;

	assert_non_null(at);
	n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - s->json), s->json, now, at + strlen(was));
	assert_in_range(n, 1, sizeof text - 1);
	if (!ok)
		refused(s, text);
	else if (s->decode(text, strlen(text), &got) != QG_OK)
		fail_msg("%s: refused: %s", s->what, text);
}

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void
test_limits(void **state)
{
	static const struct {
		size_t sample;
		const char *was, *now;
		bool ok;
	} cases[] = {
		{0, "\"a-to-b\"", "\"" X64 "\"", true},
		{0, "\"a-to-b\"", "\"" X64 "x\"", false},
		{0, "\"a-to-b\"", "\"~ !\"", true},
		{0, "\"KME-A\"", "\"KME\xc3\x84\"", false},
		{0, "\"KME-A\"", "\"KME\tA\"", false},
		{0, "\"version\":1", "\"version\":2", false},
		{0, "\"version\":1", "\"version\":0", false},
		{0, "46c8a68c", "46C8A68C", true},
		{0, "46c8a68c-", "46c8a68c", false},
		{0, "46c8a68c", "46c8a68g", false},
		{0, "0c0d0eff", "0c0d0eFF", false},
		{0, "0c0d0eff", "0c0d0ef", false},
		{0, "0c0d0eff", "0c0d0eff00", false},
		{0, "\"chunk_size\":32", "\"chunk_size\":0", false},
		{0, "\"chunk_size\":32", "\"chunk_size\":4294967295", true},
		{0, "\"chunk_size\":32", "\"chunk_size\":4294967296", false},
		{0, "\"chunk_size\":32", "\"chunk_size\":18446744073709551616", false},
		{0, "\"chunk_size\":32", "\"chunk_size\":9223372036854775808", false},
		{0, "\"chunk_size\":32", "\"chunk_size\":-32", false},
		{0, "\"segment_chunks\":256", "\"segment_chunks\":0", false},
		{0, "alternating", "Alternating", false},
		{0, "alternating", "opener", true},
		{0, "alternating", "peer", true},
		{0, "65536", "0", true},
		{1, "\"segment_chunks\":128", "\"segment_chunks\":0", false}, /* accepted, of none */
		{2, "unknown_stream", "disagree", true},
		{2, "unknown_stream", "accepted", false},
		{3, "1792", "4294967040", true},  /* up to the last index */
		{3, "1792", "4294967041", false}, /* one chunk beyond */
		{3, "1792", "4294967296", false},
		{3, "\"count\":256", "\"count\":0", false},
		{3, "\"count\":256", "\"count\":4294967295", false},
		{3, "4294967296", "4294967297", false},
		{3, "\"node\"", "\"application\"", true},
		{3, "\"node\"", "\"\"", false},
		{3, "true", "false", true},
		{3, "true", "1", false},
		{4, "confirmed", "pending", false}, /* a MAC that none may have */
		{4, "confirmed", "mismatch", false},
		{5, "pending", "confirmed", false}, /* and one that is missing */
		{5, "pending", "full", true},
		{5, "pending", "mismatch", true},
		{5, "pending", "unknown", true},
		{5, "pending", "gone", true},
		{6, "rollback", "stop", true},
		{6, "rollback", "mismatch", true},
		{6, "rollback", "age", true},
		{6, "rollback", "source", true},
		{6, "rollback", "other", false},
		{7, "filling", "ended", true},
		{7, "filling", "destroyed", false},
		{7, "2048", "4294967297", false},
		{8, "[]", "[{}]", false},
		{8, "[]", "[[]]", false},
		{8, "[]", "{}", false},
		{8, "{\"version\":1,\"epochs\":[]}", "{}", false},
		{8, "{\"version\":1,\"epochs\":[]}", "[]", false},
		{8, "{\"version\":1,\"epochs\":[]}", "null", false},
		{8, "{\"version\":1,\"epochs\":[]}", "\xef\xbb\xbf{\"version\":1,\"epochs\":[]}", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		with(&samples[cases[i].sample], cases[i].was, cases[i].now, cases[i].ok);
}

/* What a decoder would refuse is not sent either. */
static void
test_encode_refuses(void **state)
{
	char out[QG_KMS_MSG_MAX];
	size_t len = 99999;
	qg_kms_new_app a = new_app;
	qg_kms_new_app_answer aa = new_app_answer;
	qg_kms_batch b = batch;
	qg_kms_batch_answer ba = confirmed;
	qg_kms_closed c = closed;
	static qg_kms_status st;

	(void)state;
	memset(a.stream, 'x', sizeof a.stream); /* no NUL */
	assert_int_equal(qg_kms_new_app_encode(&a, out, sizeof out, &len), QG_E_INVAL);
	a = new_app;
	a.peer[0] = '\0';
	assert_int_equal(qg_kms_new_app_encode(&a, out, sizeof out, &len), QG_E_INVAL);
	a = new_app;
	a.owner = 3;
	assert_int_equal(qg_kms_new_app_encode(&a, out, sizeof out, &len), QG_E_INVAL);
	aa.segment_chunks = 0;
	assert_int_equal(qg_kms_new_app_answer_encode(&aa, out, sizeof out, &len), QG_E_INVAL);
	b.first_index = UINT64_MAX;
	assert_int_equal(qg_kms_batch_encode(&b, out, sizeof out, &len), QG_E_INVAL);
	b = batch;
	b.use = (qg_segment_use)0;
	assert_int_equal(qg_kms_batch_encode(&b, out, sizeof out, &len), QG_E_INVAL);
	b = batch;
	b.mark++;
	assert_int_equal(qg_kms_batch_encode(&b, out, sizeof out, &len), QG_E_INVAL);
	ba.result = (qg_kms_batch_result)99;
	assert_int_equal(qg_kms_batch_answer_encode(&ba, out, sizeof out, &len), QG_E_INVAL);
	c.reason = (qg_kms_close_reason)99;
	assert_int_equal(qg_kms_closed_encode(&c, out, sizeof out, &len), QG_E_INVAL);
	st = status;
	st.epoch[1].state = 0;
	assert_int_equal(qg_kms_status_encode(&st, out, sizeof out, &len), QG_E_INVAL);
	st.n = QG_KMS_STATUS_MAX + 1;
	assert_int_equal(qg_kms_status_encode(&st, out, sizeof out, &len), QG_E_INVAL);
	assert_int_equal(len, 99999);
}

/* The largest message fits the limit of all messages; one epoch more does not
 * decode. */
static void
test_largest_status(void **state)
{
	const sample *s = &samples[7];
	static qg_kms_status most;
	char out[QG_KMS_MSG_MAX], *text;
	size_t len;
	json_t *root, *epochs;

	(void)state;
	most.n = QG_KMS_STATUS_MAX;
	for (size_t i = 0; i < most.n; i++) {
		qg_kms_epoch_status *e = &most.epoch[i];

		memset(e->stream, '"', QG_KMS_NAME_MAX); /* the longest that JSON makes of a character */
		memset(e->epoch, 0xff, sizeof e->epoch);
		e->state = 3;
		e->seen_mark = UINT64_C(1) << 32;
		e->seen_segments = UINT32_MAX;
	}
	assert_int_equal(qg_kms_status_encode(&most, out, sizeof out, &len), QG_OK);
	memset(&got, 0, sizeof got);
	assert_int_equal(qg_kms_status_decode(out, len, &got.status), QG_OK);
	assert_memory_equal(&got.status, &most, sizeof most);

	for (size_t i = 0; i < most.n; i++)
		memset(most.epoch[i].stream + 1, 0, QG_KMS_NAME_MAX);
	assert_int_equal(qg_kms_status_encode(&most, out, sizeof out, &len), QG_OK);
	root = json_loadb(out, len, 0, NULL);
	epochs = json_object_get(root, "epochs");
	json_array_append(epochs, json_array_get(epochs, 0));
	text = json_dumps(root, JSON_COMPACT);
	assert_non_null(text);
	assert_true(strlen(text) < QG_KMS_MSG_MAX);
	refused(s, text);
	free(text);
	json_decref(root);
}

/* White space up to the limit is JSON; beyond it the message is too long. */
static void
test_too_long(void **state)
{
	const sample *s = &samples[5];
	char *text = malloc(QG_KMS_MSG_MAX + 1);
	size_t n = strlen(s->json);

	(void)state;
	assert_non_null(text);
	memset(text, ' ', QG_KMS_MSG_MAX + 1);
	memcpy(text, s->json, n);
	assert_int_equal(s->decode(text, QG_KMS_MSG_MAX, &got), QG_OK);
	refused_n(s, text, QG_KMS_MSG_MAX + 1);
	memset(text, '[', QG_KMS_MSG_MAX); /* deep */
	refused_n(s, text, QG_KMS_MSG_MAX);
	free(text);
}

/* Whatever is accepted after damage is encoded and read again the same. */
static void
test_mutated(void **state)
{
	static const char spice[] = "{}[]\",:\\0123456789-+.eE tfnu\x00\x7f\xff/";
	const char *given = getenv("QG_TEST_SEED");
	static uint8_t before[sizeof got];
	uint32_t seed;
	uint64_t x;

	(void)state;
	qg_random(&seed, sizeof seed);
	if (given)
		seed = (uint32_t)strtoul(given, NULL, 0);
	print_message("QG_TEST_SEED=%u\n", seed);
	x = (uint64_t)seed << 8 | 1;
	for (size_t i = 0; i < 40000; i++) {
		const sample *s = &samples[i % COUNT(samples)];
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
		memset(&got, 0, sizeof got);
		if (s->decode(text, len, &got) != QG_OK)
			continue;
		assert_int_equal(s->encode(&got, out, sizeof out, &out_len), QG_OK);
		memcpy(before, &got, s->size);
		assert_int_equal(s->decode(out, out_len, &got), QG_OK);
		assert_memory_equal(&got, before, s->size);
	}
}

/* --- canonical bytes ------------------------------------------------------- */

static size_t
canonical(const qg_kms_batch *m, uint8_t out[QG_KMS_BATCH_CANONICAL_MAX])
{
	qg_writer w = qg_writer_of(out, QG_KMS_BATCH_CANONICAL_MAX);

	qg_kms_batch_canonical(m, &w);
	assert_false(w.bad);
	return w.len;
}

static void
test_soundness_4_canonical(void **state)
{
	static const char want[] = "0015" "716b6467617465206e65775f6b65795f6261746368" /* qkdgate new_key_batch */
				   "01"
				   "0006" "612d746f2d62"
				   "46c8a68c21214f92a7c927ef9fb6f9f6"
				   "000102030405060708090a0b0c0d0eff"
				   "00000007" "0000000000000700" "00000100" "02" "01"
				   "00000e10" "00015180" "0000000100000000";
	uint8_t out[QG_KMS_BATCH_CANONICAL_MAX];
	char hex[2 * QG_KMS_BATCH_CANONICAL_MAX];
	size_t n = canonical(&batch, out);

	(void)state;
	qg_hex_encode(out, n, hex);
	assert_int_equal(2 * n, strlen(want));
	assert_memory_equal(hex, want, 2 * n);
}

/* Every member but the MAC changes the canonical bytes. */
static void
test_soundness_4_all_members(void **state)
{
	uint8_t plain[QG_KMS_BATCH_CANONICAL_MAX], other[QG_KMS_BATCH_CANONICAL_MAX];
	size_t n = canonical(&batch, plain);
	qg_kms_batch v[12];

	(void)state;
	for (size_t i = 0; i < COUNT(v); i++)
		v[i] = batch;
	v[0].stream[5] ^= 1;
	v[1].ksid.b[15] ^= 1;
	v[2].epoch[0] ^= 1;
	v[3].segment++;
	v[4].first_index++;
	v[5].count++;
	v[6].use = QG_USE_APPLICATION;
	v[7].root = false;
	v[8].issue_s++;
	v[9].fetch_s++;
	v[10].mark--;
	v[11].mac[3] ^= 1;
	for (size_t i = 0; i < COUNT(v); i++) {
		assert_int_equal(canonical(&v[i], other), n);
		if (i == 11)
			assert_memory_equal(plain, other, n);
		else
			assert_memory_not_equal(plain, other, n);
	}
	memset(v[0].stream, 'x', QG_KMS_NAME_MAX); /* the longest fits */
	assert_true(canonical(&v[0], other) > n);
}

static void
test_answer_canonical(void **state)
{
	static const char want[] = "\0\x1fqkdgate new_key_batch confirmed";
	uint8_t out[64];
	qg_writer w = qg_writer_of(out, sizeof out);

	(void)state;
	qg_kms_batch_answer_canonical(batch.mac, &w);
	assert_false(w.bad);
	assert_int_equal(w.len, 33 + QG_MAC_BYTES);
	assert_memory_equal(out, want, 33);
	assert_memory_equal(out + 33, batch.mac, QG_MAC_BYTES);
}

/* The value was made by hashlib.blake2b over the bytes of docs/neighbours.md. */
static void
test_soundness_2_epoch_id(void **state)
{
	static const uint8_t want[16] = {
		0x7a, 0xae, 0x0b, 0x16, 0x0a, 0xd6, 0x5d, 0xd9,
		0x01, 0x08, 0x3f, 0xd0, 0x39, 0x67, 0x3b, 0xa7,
	};
	qg_kms_new_app m[9];
	qg_kms_new_app_answer a[4];
	uint8_t id[13][16], again[16];
	size_t n = 0;

	(void)state;
	qg_kms_epoch_id(&new_app, &new_app_answer, again);
	assert_memory_equal(again, want, sizeof want);
	for (size_t i = 0; i < COUNT(m); i++)
		m[i] = new_app;
	for (size_t i = 0; i < COUNT(a); i++)
		a[i] = new_app_answer;
	m[0].stream[0] ^= 1;
	m[1].opener[0] ^= 1;
	m[2].peer[0] ^= 1;
	m[3].ksid.b[0] ^= 1;
	m[4].nonce[0] ^= 1;
	m[5].chunk_size++;
	m[6].segment_chunks++;
	m[7].owner = 1;
	m[8].inbound_chunks++;
	a[0].result = QG_KMS_APP_DISAGREE;
	a[1].nonce[0] ^= 1;
	a[2].segment_chunks++;
	a[3].inbound_chunks--;
	for (size_t i = 0; i < COUNT(m); i++)
		qg_kms_epoch_id(&m[i], &new_app_answer, id[n++]);
	for (size_t i = 0; i < COUNT(a); i++)
		qg_kms_epoch_id(&new_app, &a[i], id[n++]);
	for (size_t i = 0; i < n; i++) {
		assert_memory_not_equal(id[i], want, 16);
		for (size_t j = 0; j < i; j++)
			assert_memory_not_equal(id[i], id[j], 16);
	}
}

static void
test_names(void **state)
{
	(void)state;
	assert_string_equal(qg_kms_kind_name(QG_KMS_NEW_APP), "new_app");
	assert_string_equal(qg_kms_kind_name(QG_KMS_NEW_KEY_BATCH), "new_key_batch");
	assert_string_equal(qg_kms_kind_name(QG_KMS_KEY_STREAM_CLOSED), "key_stream_closed");
	assert_string_equal(qg_kms_kind_name(QG_KMS_GET_STATUS), "get_status");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_exact_and_back),
		cmocka_unit_test(test_room),
		cmocka_unit_test(test_truncated_and_trailing),
		cmocka_unit_test(test_members),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_encode_refuses),
		cmocka_unit_test(test_largest_status),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_mutated),
		cmocka_unit_test(test_soundness_4_canonical),
		cmocka_unit_test(test_soundness_4_all_members),
		cmocka_unit_test(test_answer_canonical),
		cmocka_unit_test(test_soundness_2_epoch_id),
		cmocka_unit_test(test_names),
	};

	return qg_secret_init() == QG_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
