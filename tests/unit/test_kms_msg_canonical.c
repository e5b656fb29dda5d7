/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>

#include "kms_msg_masked.h"

/* What the MACs of the messages that carry key cover. */

/* The values were made by a script of its own from docs/neighbours.md. */
#define FORWARD_CANONICAL \
	"0014" "716b646761746520666f72776172645f6b657973" /* qkdgate forward_keys */ \
	"01" "0006" "612d746f2d7a" "000102030405060708090a0b0c0d0eff" \
	"00000003" "00000004" "00000002" "00000008" "01" "02" \
	"03" "0005" "4b4d452d41" "0005" "4b4d452d42" "0005" "4b4d452d5a" "01" "00001388" \
	"0006" "622d746f2d7a" \
	"03" "f0e1d2c3b4a5968778695a4b3c2d1e0f" "00000009" "00000020" "00000030" \
	"f0e1d2c3b4a5968778695a4b3c2d1e0f" "0000000c" "00000000" "00000010" \
	"f0e1d2c3b4a5968778695a4b3c2d1e0f" "0000000a" "00000008" "00000010" "00000009" "0000000a" \
	"0000000b"
#define MAKE_CANONICAL \
	"001a" "716b6467617465206d616b655f6b6579735f65787465726e616c" /* qkdgate make_keys_external */ \
	"01" "0005" "4b4d452d41" "0005" "4b4d452d43" "0009" "7361652d616c696365" \
	"02" "0007" "7361652d626f62" "0009" "7361652d6361726f6c" "00000e10" \
	"02" "46c8a68c21214f92a7c927ef9fb6f9f6" "0000000b" "bc490d838de884e59f8b5a9e01020304" "00000005" \
	"0006" "612d746f2d63" \
	"02" "000102030405060708090a0b0c0d0eff" "00000001" "00000000" "00000040" \
	"000102030405060708090a0b0c0d0eff" "00000002" "00000000" "00000010" "00000001" "00000000" \
	"00000003"
#define FORWARD_ANSWER_CANONICAL \
	"001b" "716b646761746520666f72776172645f6b65797320616e73776572" /* qkdgate forward_keys answer */ \
	"f0e1d2c3b4a5968778695a4b3c2d1e0f" "00" "0005" "4b4d452d5a"
#define MAKE_ANSWER_CANONICAL /* qkdgate make_keys_external answer */ \
	"0021" "716b6467617465206d616b655f6b6579735f65787465726e616c20616e73776572" \
	"f0e1d2c3b4a5968778695a4b3c2d1e0f" "00"

static void
assert_canonical(const qg_writer *w, const char *want)
{
	char hex[1024];

	assert_false(w->bad);
	assert_int_equal(2 * w->len, strlen(want));
	qg_hex_encode(w->buf, w->len, hex);
	assert_memory_equal(hex, want, 2 * w->len);
}

static void
test_soundness_16_canonical(void **state)
{
	static const uint8_t request_mac[QG_MAC_BYTES] = MAC;
	uint8_t out[512];
	qg_writer w = qg_writer_of(out, sizeof out);

	(void)state;
	qg_kms_forward_canonical(&forward, &w);
	assert_canonical(&w, FORWARD_CANONICAL);
	w = qg_writer_of(out, sizeof out);
	qg_kms_make_canonical(&make, &w);
	assert_canonical(&w, MAKE_CANONICAL);
	w = qg_writer_of(out, sizeof out);
	qg_kms_forward_answer_canonical(request_mac, &delivered, &w);
	assert_canonical(&w, FORWARD_ANSWER_CANONICAL);
	w = qg_writer_of(out, sizeof out);
	qg_kms_make_answer_canonical(request_mac, &held, &w);
	assert_canonical(&w, MAKE_ANSWER_CANONICAL);
}

/* Hashes of canonical bytes so far. */
typedef struct seen_bytes {
	size_t which, n;
	uint8_t hash[64][32];
} seen_bytes;

static void
see(seen_bytes *seen, const char *what, bool is_new)
{
	static uint8_t out[QG_KMS_MASKED_CANONICAL_MAX];
	qg_writer w = qg_writer_of(out, sizeof out);
	uint8_t hash[32];
	bool known = false;

	if (seen->which == FORWARD)
		qg_kms_forward_canonical((const qg_kms_forward *)got, &w);
	else
		qg_kms_make_canonical((const qg_kms_make *)got, &w);
	assert_false(w.bad);
	assert_int_equal(crypto_generichash_blake2b(hash, sizeof hash, out, w.len, NULL, 0), 0);
	for (size_t i = 0; i < seen->n; i++)
		known |= memcmp(seen->hash[i], hash, sizeof hash) == 0;
	if (known == is_new)
		fail_msg("%s: canonical bytes %s", what, known ? "the same" : "differ");
	assert_in_range(seen->n, 0, 63);
	memcpy(seen->hash[seen->n++], hash, sizeof hash);
}

/* Every member of the message but data and mac stands in its canonical bytes:
 * changed in the JSON, it changes them, and no two changes make the same. */
static void
test_soundness_16_all_members(void **state)
{
	static const struct {
		size_t sample;
		const char *was, *now;
		bool differs;
	} cases[] = {
		{FORWARD, "a-to-z", "a-to-y", true},
		{FORWARD, "0c0d0eff", "0c0d0efe", true},
		{FORWARD, "\"segment\":3", "\"segment\":4", true},
		{FORWARD, "\"first\":4", "\"first\":5", true},
		{FORWARD, "\"count\":2,\"chunk_size\":8", "\"count\":4,\"chunk_size\":4", true},
		{FORWARD, "\"count\":2,\"chunk_size\":8", "\"count\":8,\"chunk_size\":2", true},
		{FORWARD, "\"share\":1", "\"share\":0", true},
		{FORWARD, "\"shares\":2", "\"shares\":3", true},
		{FORWARD, "KME-A\",\"KME-B", "KME-B\",\"KME-A", true},
		{FORWARD, "KME-A\",\"KME-B", "KME-AK\",\"ME-B", true}, /* no shift from one to the next */
		{FORWARD, "KME-Z\"]", "KME-Z\",\"KME-Y\"]", true},
		{FORWARD, "\"hop\":1", "\"hop\":0", true},
		{FORWARD, "5000", "5001", true},
		{FORWARD, "b-to-z", "b-to-y", true},
		{FORWARD, "2d1e0f\",\"segment\":9", "2d1e0e\",\"segment\":9", true},
		{FORWARD, "\"segment\":9", "\"segment\":8", true},
		{FORWARD, "\"offset\":32", "\"offset\":33", true},
		{FORWARD, "\"len\":48},{", "\"len\":40},{\"epoch\":" SIXTEEN_TEXT
			  ",\"segment\":1,\"offset\":2,\"len\":8},{", true},
		{FORWARD, "\"oldest_mac\":9", "\"oldest_mac\":8", true},
		{FORWARD, "\"oldest_mac\":9,\"oldest_pad\":10", "\"oldest_mac\":10,\"oldest_pad\":9", true},
		{FORWARD, "\"opened_pad\":11", "\"opened_pad\":12", true},
		{FORWARD, "\"oldest_pad\":10,\"opened_pad\":11", "\"oldest_pad\":11,\"opened_pad\":10", true},
		{FORWARD, "\"mac\":\"f0", "\"mac\":\"f1", false},
		{FORWARD, "++++", "++//", false},
		{MAKE, "KME-A", "KME-B", true},
		{MAKE, "KME-C", "KME-D", true},
		{MAKE, "sae-alice", "sae-dave", true},
		{MAKE, "sae-bob\",\"sae-carol", "sae-bob", true},
		{MAKE, "sae-bob\",\"sae-carol", "sae-carol\",\"sae-bob", true},
		{MAKE, "sae-bob\",\"sae-carol", "sae-bobs\",\"ae-carol", true},
		{MAKE, "3600", "3601", true},
		{MAKE, "46c8a68c", "46c8a68d", true},
		{MAKE, "\"size\":11},{\"id\":" OTHER_TEXT ",\"size\":5", "\"size\":5},{\"id\":" OTHER_TEXT
		       ",\"size\":11", true},
		{MAKE, "\"size\":11},{\"id\":" OTHER_TEXT ",\"size\":5", "\"size\":16", true},
		{MAKE, "a-to-c", "a-to-d", true},
		{MAKE, "0c0d0eff", "0c0d0efe", true},
		{MAKE, "\"segment\":1", "\"segment\":3", true},
		{MAKE, "\"offset\":0", "\"offset\":1", true},
		{MAKE, "\"oldest_mac\":1", "\"oldest_mac\":2", true},
		{MAKE, "\"oldest_pad\":0", "\"oldest_pad\":1", true},
		{MAKE, "\"opened_pad\":3", "\"opened_pad\":2", true},
		{MAKE, "\"mac\":\"f0", "\"mac\":\"f1", false},
		{MAKE, "AAEC", "AAED", false},
	};
	static seen_bytes seen[2] = {{.which = FORWARD}, {.which = MAKE}};

	(void)state;
	for (size_t i = 0; i < 2; i++) {
		const sample *s = &samples[seen[i].which];

		assert_int_equal(s->decode(s->json, strlen(s->json), got), QG_OK);
		see(&seen[i], s->what, true);
	}
	for (size_t i = 0; i < COUNT(cases); i++) {
		const sample *s = &samples[cases[i].sample];
		char text[2048];

		replaced(s, cases[i].was, cases[i].now, text, sizeof text);
		assert_int_equal(s->decode(text, strlen(text), got), QG_OK);
		see(&seen[cases[i].sample == MAKE], cases[i].now, cases[i].differs);
	}
}

/* The answer's vouch for the request, the result, and who says so. */
static void
test_soundness_16_answers(void **state)
{
	uint8_t mac[QG_MAC_BYTES] = MAC, out[10][128];
	qg_kms_forward_answer a = delivered;
	size_t len[COUNT(out)] = {0};

	(void)state;
	for (size_t i = 0; i < COUNT(out); i++) {
		qg_writer w = qg_writer_of(out[i], sizeof out[i]);
		qg_kms_make_answer made = {.result = (qg_kms_make_result)(i - 4)};

		a.result = i == 1 ? QG_KMS_FORWARD_MISMATCH : QG_KMS_FORWARD_DELIVERED;
		a.at[4] = i == 2 ? 'Y' : 'Z';
		mac[15] = i == 3 ? 1 : 0;
		if (i < 4)
			qg_kms_forward_answer_canonical(mac, &a, &w);
		else
			qg_kms_make_answer_canonical(mac, &made, &w);
		assert_false(w.bad);
		len[i] = w.len;
		for (size_t j = 0; j < i; j++)
			assert_true(len[i] != len[j] || memcmp(out[i], out[j], len[i]) != 0);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_soundness_16_canonical),
		cmocka_unit_test(test_soundness_16_all_members),
		cmocka_unit_test(test_soundness_16_answers),
	};

	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return qg_secret_init() == QG_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
