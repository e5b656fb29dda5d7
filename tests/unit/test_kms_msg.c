/* SPDX-License-Identifier: Apache-2.0 */
#include "kms_msg_check.h"

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
	.use = QG_USE_PAD, .root = true, .issue_s = 3600, .fetch_s = 86400, .mark = 4294967296u, .mac = MAC,
};
static const qg_kms_batch_answer confirmed = {.result = QG_KMS_BATCH_CONFIRMED, .mac = MAC};
static const qg_kms_batch_answer pending = {.result = QG_KMS_BATCH_PENDING};
static const qg_kms_closed closed = {
	.stream = "a-to-b", .ksid = KSID, .epoch = SIXTEEN, .reason = QG_KMS_CLOSE_ROLLBACK,
};
static const qg_kms_status status = {
	.n = 2,
	.epoch = {
		{.stream = "a-to-b", .epoch = SIXTEEN, .state = 1, .seen_mark = 2048, .seen_segments = 8,
		 .seen_mac = 5, .seen_pad = 7},
		{.stream = "b-to-a", .epoch = MAC, .state = 3, .seen_mark = 0, .seen_segments = 0},
	},
};
static const qg_kms_status no_status = {.n = 0};
static const qg_kms_new_app telling_app = {
	.stream = "a-to-b", .opener = "KME-A", .peer = "KME-B", .ksid = KSID, .nonce = SIXTEEN, .chunk_size = 32,
	.segment_chunks = 256, .saes = {.n = 2, .id = {"sae-alice", "sae \\dave\""}},
};
static const qg_kms_new_app_answer telling_answer = {
	.result = QG_KMS_APP_DISAGREE, .nonce = MAC, .saes = {.n = 1, .id = {"sae-bob"}},
};
static const qg_kms_status telling_status = {.saes = {.n = 2, .id = {"sae-bob", "sae-erin"}}};

WRAP(new_app)
WRAP(new_app_answer)
WRAP(batch)
WRAP(batch_answer)
WRAP(closed)
WRAP(status)

const sample samples[] = {
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
	 ",\"segment\":7,\"first_index\":1792,\"count\":256,\"use\":\"pad\",\"root\":true,\"issue_s\":3600,"
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
	 ",\"state\":\"filling\",\"seen_mark\":2048,\"seen_segments\":8,\"seen_mac\":5,\"seen_pad\":7},"
	 "{\"stream\":\"b-to-a\",\"epoch\":" MAC_TEXT
	 ",\"state\":\"draining\",\"seen_mark\":0,\"seen_segments\":0,\"seen_mac\":0,\"seen_pad\":0}]}"},
	{"get_status of none", status_encode, status_decode, &no_status, sizeof no_status,
	 "{\"version\":1,\"epochs\":[]}"},
	{"new_app with SAEs", new_app_encode, new_app_decode, &telling_app, sizeof telling_app,
	 "{\"version\":1,\"stream\":\"a-to-b\",\"opener\":\"KME-A\",\"peer\":\"KME-B\",\"ksid\":" KSID_TEXT
	 ",\"nonce\":" SIXTEEN_TEXT ",\"chunk_size\":32,\"segment_chunks\":256,\"owner\":\"opener\","
	 "\"inbound_chunks\":0,\"saes\":[\"sae-alice\",\"sae \\\\dave\\\"\"]}"},
	{"new_app answer with SAEs", new_app_answer_encode, new_app_answer_decode, &telling_answer,
	 sizeof telling_answer,
	 "{\"version\":1,\"result\":\"disagree\",\"nonce\":" MAC_TEXT
	 ",\"segment_chunks\":0,\"inbound_chunks\":0,\"saes\":[\"sae-bob\"]}"},
	{"get_status with SAEs", status_encode, status_decode, &telling_status, sizeof telling_status,
	 "{\"version\":1,\"epochs\":[],\"saes\":[\"sae-bob\",\"sae-erin\"]}"},
};

const size_t n_samples = COUNT(samples);

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
		{3, "\"pad\"", "\"application\"", true},
		{3, "\"pad\"", "\"\"", false},
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
		{9, "sae-alice", X64 X64, true},
		{9, "sae-alice", X64 X64 "x", false},
		{9, "sae-alice", "s\xc3\xa4" "e", false},
		{9, "\"sae-alice\"", "\"\"", false},
		{9, "\"sae-alice\"", "7", false},
		{10, "\"sae-bob\"", "", false},
		{10, "\"sae-bob\"", "[\"sae-bob\"]", false},
		{10, "[\"sae-bob\"]", "null", false},
		{11, "sae-erin", "sae-bob", false}, /* twice */
		{11, "sae-erin", "sae-bobby", true},
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
	qg_kms_new_app t = telling_app;

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
	t.saes.n = QG_KMS_SAES_MAX + 1;
	assert_int_equal(qg_kms_new_app_encode(&t, out, sizeof out, &len), QG_E_INVAL);
	t.saes.n = 3; /* the third is empty */
	assert_int_equal(qg_kms_new_app_encode(&t, out, sizeof out, &len), QG_E_INVAL);
	memcpy(t.saes.id[2], t.saes.id[0], sizeof t.saes.id[2]);
	assert_int_equal(qg_kms_new_app_encode(&t, out, sizeof out, &len), QG_E_INVAL);
	assert_int_equal(len, 99999);
}

static void
most_saes(qg_kms_saes *saes)
{
	saes->n = QG_KMS_SAES_MAX;
	for (size_t i = 0; i < saes->n; i++) {
		memset(saes->id[i], '"', QG_KMS_SAE_MAX);
		saes->id[i][i] = 'x'; /* all differ */
	}
}

/* The largest new_app fits what its route takes; with one SAE more it does not
 * decode. */
static void
test_largest_new_app(void **state)
{
	const sample *s = &samples[0];
	qg_kms_new_app most = new_app;
	char out[32768], *text;
	json_t *root, *saes;
	size_t len;

	(void)state;
	memset(most.stream, '"', QG_KMS_NAME_MAX);
	memset(most.opener, '"', QG_KMS_NAME_MAX);
	memset(most.peer, '"', QG_KMS_NAME_MAX);
	most.chunk_size = most.segment_chunks = most.inbound_chunks = UINT32_MAX;
	most_saes(&most.saes);
	assert_int_equal(s->encode(&most, out, sizeof out, &len), QG_OK);
	assert_int_equal(s->decode(out, len, got), QG_OK);
	assert_memory_equal(got, &most, sizeof most);
	root = json_loadb(out, len, 0, NULL);
	saes = json_object_get(root, "saes");
	json_array_append_new(saes, json_string("one more"));
	text = json_dumps(root, JSON_COMPACT);
	assert_non_null(text);
	refused(s, text);
	free(text);
	json_decref(root);
}

/* The largest answer fits the limit of all messages; one epoch more does not
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
		e->seen_segments = e->seen_mac = e->seen_pad = UINT32_MAX;
	}
	most_saes(&most.saes);
	assert_int_equal(qg_kms_status_encode(&most, out, sizeof out, &len), QG_OK);
	assert_int_equal(s->decode(out, len, got), QG_OK);
	assert_memory_equal(got, &most, sizeof most);

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
	assert_int_equal(s->decode(text, QG_KMS_MSG_MAX, got), QG_OK);
	refused_n(s, text, QG_KMS_MSG_MAX + 1);
	memset(text, '[', QG_KMS_MSG_MAX); /* deep */
	refused_n(s, text, QG_KMS_MSG_MAX);
	free(text);
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
	static qg_kms_new_app m[9], told;
	static qg_kms_new_app_answer a[4], told_back;
	uint8_t id[13][16], again[16];
	size_t n = 0;

	(void)state;
	qg_kms_epoch_id(&new_app, &new_app_answer, again);
	assert_memory_equal(again, want, sizeof want);
	told = new_app; /* who lives where is no part of it */
	told.saes = telling_app.saes;
	told_back = new_app_answer;
	told_back.saes = telling_answer.saes;
	qg_kms_epoch_id(&told, &told_back, again);
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
	assert_string_equal(qg_kms_kind_name(QG_KMS_FORWARD_KEYS), "forward_keys");
	assert_string_equal(qg_kms_kind_name(QG_KMS_MAKE_KEYS_EXTERNAL), "make_keys_external");
	assert_string_equal(qg_kms_kind_name(QG_KMS_DELETE_KEYS), "delete_keys");
	assert_string_equal(qg_kms_kind_name(QG_KMS_POST_STATUS), "post_status");
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
		cmocka_unit_test(test_largest_new_app),
		cmocka_unit_test(test_largest_status),
		cmocka_unit_test(test_too_long),
		cmocka_unit_test(test_mutated),
		cmocka_unit_test(test_soundness_4_canonical),
		cmocka_unit_test(test_soundness_4_all_members),
		cmocka_unit_test(test_answer_canonical),
		cmocka_unit_test(test_soundness_2_epoch_id),
		cmocka_unit_test(test_names),
	};

	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return qg_secret_init() == QG_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
