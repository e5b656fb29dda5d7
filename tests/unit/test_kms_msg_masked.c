/* SPDX-License-Identifier: Apache-2.0 */
#include "kms_msg_check.h"
#include "kms_msg_masked.h"

/* A copy of a sample, to be changed; the caller frees it. */
static void *
copy_of(size_t which)
{
	void *m = malloc(samples[which].size);

	assert_non_null(m);
	return memcpy(m, samples[which].m, samples[which].size);
}

/* --- limits ---------------------------------------------------------------- */

#define X64 "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"

static void
test_limits(void **state)
{
	static const struct {
		size_t sample;
		const char *was, *now;
		bool ok;
	} cases[] = {
		{FORWARD, "\"a-to-z\"", "\"" X64 "\"", true},
		{FORWARD, "\"a-to-z\"", "\"" X64 "x\"", false},
		{FORWARD, "\"KME-A\"", "\"" X64 "\"", true},
		{FORWARD, "\"KME-A\"", "\"" X64 "x\"", false},
		{FORWARD, "\"KME-A\"", "\"KME-Z\"", false},                 /* a loop */
		{FORWARD, "\"KME-A\",", "", false},                        /* hop is the last of two */
		{FORWARD, "\"hop\":1", "\"hop\":0", true},
		{FORWARD, "\"hop\":1", "\"hop\":2", false},
		{FORWARD, "\"hop\":1", "\"hop\":255", false},
		{FORWARD, "\"hop\":1", "\"hop\":257", false},
		{FORWARD, "\"share\":1", "\"share\":0", true},
		{FORWARD, "\"share\":1", "\"share\":2", false},
		{FORWARD, "\"share\":1", "\"share\":257", false},
		{FORWARD, "\"shares\":2", "\"shares\":8", true},
		{FORWARD, "\"shares\":2", "\"shares\":9", false},
		{FORWARD, "\"shares\":2", "\"shares\":1", false},
		{FORWARD, "\"shares\":2", "\"shares\":0", false},
		{FORWARD, "\"count\":2", "\"count\":1", false},            /* not what data has */
		{FORWARD, "\"count\":2", "\"count\":0", false},
		{FORWARD, "\"count\":2", "\"count\":4294967295", false},
		{FORWARD, "\"count\":2,\"chunk_size\":8", "\"count\":16,\"chunk_size\":1", true},
		{FORWARD, "\"count\":2,\"chunk_size\":8", "\"count\":1,\"chunk_size\":16", true},
		{FORWARD, "\"count\":2,\"chunk_size\":8", "\"count\":65536,\"chunk_size\":65536", false},
		{FORWARD, "\"chunk_size\":8", "\"chunk_size\":0", false},
		{FORWARD, "\"first\":4", "\"first\":4294967293", true},
		{FORWARD, "\"first\":4", "\"first\":4294967294", false},
		{FORWARD, "\"timeout_ms\":5000", "\"timeout_ms\":4294967295", true},
		{FORWARD, "\"timeout_ms\":5000", "\"timeout_ms\":4294967296", false},
		{FORWARD, "\"b-to-z\"", "\"\"", false},
		{FORWARD, "\"oldest_mac\":9", "\"oldest_mac\":4294967296", false},
		{FORWARD, "\"oldest_pad\":10", "\"oldest_pad\":4294967296", false},
		{FORWARD, "\"opened_pad\":11", "\"opened_pad\":4294967296", false},
		{FORWARD, "\"opened_pad\":11", "\"opened_pad\":-1", false},
		{FORWARD, "\"opened_pad\":11,", "", false},
		{FORWARD, "\"oldest_mac\":9", "\"oldest_mac\":10", true},  /* what it means is not for here */
		{FORWARD, "\"len\":48", "\"len\":47", false},
		{FORWARD, "\"len\":48", "\"len\":49", false},
		{FORWARD, "\"len\":48", "\"len\":0", false},
		{FORWARD, "\"len\":48", "\"len\":16449", false},
		{FORWARD, "\"len\":48", "\"len\":4294967280", false},
		{FORWARD, "\"offset\":32", "\"offset\":4294967247", true},
		{FORWARD, "\"offset\":32", "\"offset\":4294967248", false}, /* its end is beyond 32 bits */
		{FORWARD, "\"segment\":12,\"offset\":0", "\"segment\":9,\"offset\":16", true},
		{FORWARD, "\"segment\":12,\"offset\":0", "\"segment\":9,\"offset\":17", false}, /* one byte twice */
		{FORWARD, "\"segment\":12,\"offset\":0", "\"segment\":9,\"offset\":32", false},
		{FORWARD, "\"segment\":12,\"offset\":0", "\"segment\":9,\"offset\":79", false},
		{FORWARD, "\"segment\":12,\"offset\":0", "\"segment\":9,\"offset\":80", true},
		/* A range from the MAC keys into the pads; the same in two. */
		{FORWARD, "\"len\":16},{\"epoch\":" MAC_TEXT ",\"segment\":10,\"offset\":8,\"len\":16", "\"len\":32", false},
		{FORWARD, "\"len\":16},{", "\"len\":17},{", false},
		{FORWARD, "\"len\":16},{\"epoch\":" MAC_TEXT ",\"segment\":10,\"offset\":8,\"len\":16",
			  "\"len\":15},{\"epoch\":" MAC_TEXT ",\"segment\":10,\"offset\":8,\"len\":17", false},
		{MAKE, "\"len\":64},{\"epoch\":" SIXTEEN_TEXT ",\"segment\":2,\"offset\":0,\"len\":16", "\"len\":80", false},
		{MAKE, "\"len\":64},{\"epoch\":" SIXTEEN_TEXT ",\"segment\":2,\"offset\":0,\"len\":16",
		       "\"len\":16},{\"epoch\":" SIXTEEN_TEXT ",\"segment\":2,\"offset\":0,\"len\":64", false},
		{FORWARD, "++++", "+++", false},
		{FORWARD, "++++", "++++++++", false},                      /* more than has pads */
		{FORWARD, "++++////", "++++", false},                      /* and less */
		{FORWARD, "++++", "--__", false},
		{FORWARD, "++++", "++ +", false},
		{FORWARD, "CQ==", "CQ", false},
		{FORWARD, "CQ==", "CR==", false},                          /* bits that stand for nothing */
		{FORWARD, "CQ==", "CQ=", false},
		{FORWARD, DATA_TEXT, "\"\"", false},
		{DELIVERED, "\"KME-Z\"", "\"" X64 "x\"", false},
		{DELIVERED, "delivered", "Delivered", false},
		{NO_PAD, "no_pad", "refused", true},
		{NO_PAD, "no_pad", "nopad", false},
		{MAKE, "\"KME-A\"", "\"KME-C\"", false},                   /* to itself */
		{MAKE, "sae-alice", X64 X64, true},
		{MAKE, "sae-alice", X64 X64 "x", false},
		{MAKE, "sae-carol", X64 X64, true},
		{MAKE, "sae-carol", X64 X64 "x", false},
		{MAKE, "sae-carol", "sae-bob", false},
		{MAKE, "\"sae-bob\",\"sae-carol\"", "", false},
		{MAKE, "\"sae-bob\",\"sae-carol\"", "\"sae-alice\"", true},
		{MAKE, "3600", "0", true},
		{MAKE, "3600", "4294967295", true},
		{MAKE, "3600", "4294967296", false},
		{MAKE, "\"size\":11", "\"size\":10", false},
		{MAKE, "\"size\":11", "\"size\":0", false},
		{MAKE, "\"size\":11", "\"size\":4096", false},
		{MAKE, "\"size\":11},{\"id\":" OTHER_TEXT ",\"size\":5", "\"size\":16", true},
		{MAKE, OTHER_TEXT, KSID_TEXT, false},
		{MAKE, OTHER_TEXT, "\"46C8A68C-2121-4F92-A7C9-27EF9FB6F9F6\"", false}, /* the same, in capitals */
		{MAKE, "\"len\":64", "\"len\":63", false},
		{MAKE, "\"len\":16}]", "\"len\":15}]", false},
		{HELD, "held", "exists", true},
		{REFUSED, "refused", "no_pad", true},
		{DELETE, OTHER_TEXT, KSID_TEXT, false},
		{DELETE, "," OTHER_TEXT, "", true},
		{DELETE, KSID_TEXT "," OTHER_TEXT, "", false},
		{DELETE, OTHER_TEXT, "{\"id\":" OTHER_TEXT "}", false},
		{DELETED, "\"voided\":1", "\"voided\":127", true},
		{DELETED, "\"voided\":1", "\"voided\":128", false},        /* with the other: one too many */
		{DELETED, "\"voided\":1", "\"voided\":0", true},
		{REPORT, "starving", "down", true},
		{REPORT, "starving", "dry", false},
		{REPORT, "\"KME-Z\"", "\"KME-A\"", false},
		{REPORT, "\"KME-Z\"", "\"KME-B\"", false},                 /* to itself */
		{REPORT, "8192", "9223372036854775807", true},
		{REPORT, "8192", "9223372036854775808", false},
		{REPORT, "1234567890123", "9223372036854775807", true},
		{REPORT, "1234567890123", "9223372036854775808", false},
		{REPORT, "1234567890123", "-1", false},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		with(&samples[cases[i].sample], cases[i].was, cases[i].now, cases[i].ok);
}

/* Exactly those results carry a MAC that have a key for it. */
static void
test_answers(void **state)
{
	static const char *const forward_words[] = {
		"delivered", "down", "starving", "busy", "full", "unknown", "mismatch", "refused", "no_pad",
	};
	static const char *const make_words[] = {"held", "unknown", "exists", "full", "refused", "no_pad",
						 "pending", "failed"};
	char text[256];

	(void)state;
	for (size_t i = 0; i < COUNT(forward_words) + COUNT(make_words); i++) {
		bool is_make = i >= COUNT(forward_words);
		const char *word = is_make ? make_words[i - COUNT(forward_words)] : forward_words[i];
		const sample *s = &samples[is_make ? HELD : DELIVERED];
		bool bare = strcmp(word, "refused") == 0 || strcmp(word, "no_pad") == 0;

		for (int has_mac = 0; has_mac < 2; has_mac++) {
			char out[256];
			size_t len;
			int n = snprintf(text, sizeof text, "{\"version\":1,\"result\":\"%s\"%s%s}", word,
					 is_make ? "" : ",\"at\":\"KME-Z\"", has_mac ? ",\"mac\":" MAC_TEXT : "");

			assert_in_range(n, 1, sizeof text - 1);
			if (has_mac == bare) {
				refused(s, text);
				continue;
			}
			assert_int_equal(s->decode(text, (size_t)n, got), QG_OK);
			assert_int_equal(s->encode(got, out, sizeof out, &len), QG_OK);
			assert_int_equal(len, n);
			assert_memory_equal(out, text, len);
		}
	}
}

/* --- encoding --------------------------------------------------------------- */

static void
not_sent(size_t which, void *m)
{
	char out[QG_KMS_MSG_MAX];
	size_t len = 99999;

	assert_int_equal(samples[which].encode(m, out, sizeof out, &len), QG_E_INVAL);
	assert_int_equal(len, 99999);
	memcpy(m, samples[which].m, samples[which].size);
}

/* What a decoder would refuse is not sent either. */
static void
test_encode_refuses_forward(void **state)
{
	qg_kms_forward *f = copy_of(FORWARD);
	qg_kms_forward_answer a = delivered;

	(void)state;
	f->n_path = QG_KMS_PATH_MAX + 1;
	not_sent(FORWARD, f);
	f->n_path = 1;
	f->hop = 0;
	not_sent(FORWARD, f);
	f->n_path = 2;
	not_sent(FORWARD, f);
	memset(f->path[2], 'x', sizeof f->path[2]); /* no NUL */
	not_sent(FORWARD, f);
	memcpy(f->path[2], f->path[0], sizeof f->path[2]);
	not_sent(FORWARD, f);
	memset(f->path[2], 0, sizeof f->path[2]);
	not_sent(FORWARD, f);
	f->share = 2;
	not_sent(FORWARD, f);
	f->count = UINT32_MAX;
	f->chunk_size = UINT32_MAX;
	not_sent(FORWARD, f);
	f->masked.data_len = 15;
	not_sent(FORWARD, f);
	f->masked.data_len = SIZE_MAX;
	not_sent(FORWARD, f);
	f->masked.data_len = QG_KMS_DATA_MAX + 1;
	not_sent(FORWARD, f);
	f->masked.n_pads = 0;
	not_sent(FORWARD, f);
	f->masked.n_pads = 2;
	not_sent(FORWARD, f);
	f->masked.n_pads = QG_KMS_PADS_MAX + 1;
	not_sent(FORWARD, f);
	f->masked.pad[1].len = 0;
	not_sent(FORWARD, f);
	f->masked.pad[1].segment = 9;
	f->masked.pad[1].offset = 40;
	not_sent(FORWARD, f);
	f->masked.pad[1].len--;
	f->masked.pad[2].len++;
	not_sent(FORWARD, f);
	a.result = (qg_kms_forward_result)9;
	not_sent(DELIVERED, &a);
	a.result = (qg_kms_forward_result)255;
	not_sent(DELIVERED, &a);
	a.at[0] = '\0';
	not_sent(DELIVERED, &a);
	free(f);
}

static void
test_encode_refuses_others(void **state)
{
	qg_kms_make *m = copy_of(MAKE);
	qg_kms_make_answer a = held;
	qg_kms_delete d = deletion;
	qg_kms_delete_answer da = deleted;
	qg_kms_report *r = copy_of(REPORT);

	(void)state;
	m->n_keys = QG_KMS_MAKE_MAX + 1;
	not_sent(MAKE, m);
	m->n_keys = 0;
	not_sent(MAKE, m);
	m->key[1].id = m->key[0].id;
	not_sent(MAKE, m);
	m->key[0].size = 4096;
	not_sent(MAKE, m);
	m->targets.n = 0;
	not_sent(MAKE, m);
	m->targets.n = QG_KMS_SAES_MAX + 1;
	not_sent(MAKE, m);
	memcpy(m->to, m->from, sizeof m->to);
	not_sent(MAKE, m);
	a.result = (qg_kms_make_result)8;
	not_sent(HELD, &a);
	d.n = 0;
	not_sent(DELETE, &d);
	d.n = QG_KMS_MAKE_MAX + 1;
	not_sent(DELETE, &d);
	d.id[1] = d.id[0];
	not_sent(DELETE, &d);
	da.voided = UINT32_MAX;
	not_sent(DELETED, &da);
	da.voided = 128;
	not_sent(DELETED, &da);
	r->n = QG_KMS_LINKS_MAX + 1;
	not_sent(REPORT, r);
	r->link[1].state = (qg_kms_link_state)3;
	not_sent(REPORT, r);
	r->link[1].bytes = UINT64_MAX;
	not_sent(REPORT, r);
	r->sequence = (uint64_t)INT64_MAX + 1;
	not_sent(REPORT, r);
	memcpy(r->link[1].peer, r->origin, sizeof r->origin);
	not_sent(REPORT, r);
	free(m);
	free(r);
}

/* --- the largest ------------------------------------------------------------ */

/* The longest that JSON makes of a name; no two the same. */
static void
long_name(char *name, size_t max, size_t number)
{
	memset(name, '"', max);
	name[number % max] = 'x';
	if (number / max > 0)
		name[(number + 1) % max] = 'y';
}

static void
most_masked(qg_kms_masked *m, size_t data_len)
{
	long_name(m->link, QG_KMS_NAME_MAX, 0);
	m->n_pads = QG_KMS_PADS_MAX;
	for (size_t i = 0; i < m->n_pads; i++) {
		qg_kms_pad *p = &m->pad[i];

		memset(p->epoch, 0xff, sizeof p->epoch);
		p->segment = UINT32_MAX - (uint32_t)i;
		p->len = i == 0 ? QG_KMS_MAC_OVERHEAD : i == 1 ? (uint32_t)data_len - 14u * 1000u : 1000;
		p->offset = UINT32_MAX - p->len;
	}
	m->oldest_mac = m->oldest_pad = m->opened_pad = UINT32_MAX;
	memset(m->mac, 0xee, sizeof m->mac);
	m->data_len = data_len;
	qg_random(m->data, data_len);
}

/* Goes there and back within the bytes given. */
static void
assert_fits(size_t which, const void *m, size_t room)
{
	char *out = malloc(room);
	size_t len;

	assert_non_null(out);
	assert_int_equal(samples[which].encode(m, out, room, &len), QG_OK);
	assert_int_equal(samples[which].decode(out, len, got), QG_OK);
	assert_memory_equal(got, m, samples[which].size);
	print_message("%s: at most %zu bytes\n", samples[which].what, len);
	free(out);
}

static void
set_data(json_t *root, size_t n)
{
	uint8_t *data = calloc(1, n);
	char *text = malloc(QG_BASE64_LEN(n));
	json_t *pads = json_object_get(root, "pads");

	assert_non_null(data);
	assert_non_null(text);
	qg_base64_encode(data, n, text);
	json_object_set_new(root, "data", json_stringn(text, QG_BASE64_LEN(n)));
	while (json_array_size(pads) > 2)
		json_array_remove(pads, 2);
	json_object_set_new(json_array_get(pads, 0), "len", json_integer(QG_KMS_MAC_OVERHEAD));
	json_object_set_new(json_array_get(pads, 1), "len", json_integer((json_int_t)n));
	free(text);
	free(data);
}

static void
accepted_json(const sample *s, const json_t *root)
{
	char *text = json_dumps(root, JSON_COMPACT);

	assert_non_null(text);
	if (s->decode(text, strlen(text), got) != QG_OK)
		fail_msg("%s: refused: %.4000s", s->what, text);
	free(text);
}

/* Data up to the limit and beyond, in messages that are right otherwise. */
static void
test_most_data(void **state)
{
	(void)state;
	for (size_t n = QG_KMS_DATA_MAX - 1; n < QG_KMS_DATA_MAX + 4; n++) {
		const sample *s[] = {&samples[FORWARD], &samples[MAKE]};
		json_t *root[] = {json_loads(s[0]->json, 0, NULL), json_loads(s[1]->json, 0, NULL)};
		json_t *keys = json_object_get(root[1], "keys");

		json_object_set_new(root[0], "count", json_integer((json_int_t)n));
		json_object_set_new(root[0], "chunk_size", json_integer(1));
		json_array_clear(keys);
		for (size_t i = 0, left = n; left > 0; i++) {
			size_t size = left < 4095 ? left : 4095;
			char id[QG_UUID_TEXT];
			qg_uuid u = {{(uint8_t)i}};

			qg_uuid_format(&u, id);
			json_array_append_new(keys, json_pack("{s:s, s:i}", "id", id, "size", (int)size));
			left -= size;
		}
		for (size_t i = 0; i < 2; i++) {
			set_data(root[i], n);
			if (n <= QG_KMS_DATA_MAX) {
				accepted_json(s[i], root[i]);
				json_decref(root[i]);
			} else {
				refused_json(s[i], root[i]);
			}
		}
	}
}

static void
test_largest_forward(void **state)
{
	qg_kms_forward *f = calloc(1, sizeof *f);
	static uint8_t canonical[QG_KMS_MASKED_CANONICAL_MAX];
	qg_writer w = qg_writer_of(canonical, sizeof canonical);

	(void)state;
	assert_non_null(f);
	long_name(f->stream, QG_KMS_NAME_MAX, 0);
	memset(f->epoch, 0xff, sizeof f->epoch);
	f->segment = UINT32_MAX;
	f->first = UINT32_MAX - QG_KMS_DATA_MAX;
	f->count = QG_KMS_DATA_MAX;
	f->chunk_size = 1;
	f->share = 7;
	f->shares = 8;
	f->n_path = QG_KMS_PATH_MAX;
	for (size_t i = 0; i < f->n_path; i++)
		long_name(f->path[i], QG_KMS_NAME_MAX, i);
	f->hop = QG_KMS_PATH_MAX - 2;
	f->timeout_ms = UINT32_MAX;
	most_masked(&f->masked, QG_KMS_DATA_MAX);
	assert_fits(FORWARD, f, QG_KMS_FORWARD_MAX);
	qg_kms_forward_canonical(f, &w);
	assert_false(w.bad);
	free(f);
}

static void
test_largest_make(void **state)
{
	qg_kms_make *m = calloc(1, sizeof *m);
	static uint8_t canonical[QG_KMS_MASKED_CANONICAL_MAX];
	qg_writer w = qg_writer_of(canonical, sizeof canonical);

	(void)state;
	assert_non_null(m);
	long_name(m->from, QG_KMS_NAME_MAX, 0);
	long_name(m->to, QG_KMS_NAME_MAX, 1);
	long_name(m->initiator, QG_KMS_SAE_MAX, 0);
	m->targets.n = QG_KMS_SAES_MAX;
	for (size_t i = 0; i < m->targets.n; i++)
		long_name(m->targets.id[i], QG_KMS_SAE_MAX, i);
	m->lifetime_s = UINT32_MAX;
	m->n_keys = QG_KMS_MAKE_MAX;
	for (size_t i = 0; i < m->n_keys; i++) {
		qg_uuid_random(&m->key[i].id);
		m->key[i].size = QG_KMS_DATA_MAX / QG_KMS_MAKE_MAX;
	}
	most_masked(&m->masked, QG_KMS_DATA_MAX);
	assert_fits(MAKE, m, QG_KMS_MSG_MAX);
	qg_kms_make_canonical(m, &w);
	assert_false(w.bad);
	free(m);
}

/* Those without key go through smaller routes. */
static void
test_largest_others(void **state)
{
	qg_kms_delete *d = calloc(1, sizeof *d);
	qg_kms_report *r = calloc(1, sizeof *r);
	qg_kms_forward_answer a = {.result = QG_KMS_FORWARD_DELIVERED};

	(void)state;
	assert_non_null(d);
	assert_non_null(r);
	long_name(d->initiator, QG_KMS_SAE_MAX, 0);
	d->n = QG_KMS_MAKE_MAX;
	for (size_t i = 0; i < d->n; i++)
		qg_uuid_random(&d->id[i]);
	assert_fits(DELETE, d, 32768);
	long_name(r->origin, QG_KMS_NAME_MAX, QG_KMS_NAME_MAX);
	r->sequence = INT64_MAX;
	r->n = QG_KMS_LINKS_MAX;
	for (size_t i = 0; i < r->n; i++) {
		long_name(r->link[i].peer, QG_KMS_NAME_MAX, i);
		r->link[i].state = QG_KMS_LINK_STARVING;
		r->link[i].bytes = INT64_MAX;
	}
	assert_fits(REPORT, r, 32768);
	long_name(a.at, QG_KMS_NAME_MAX, 0);
	assert_fits(DELIVERED, &a, 4096);
	free(d);
	free(r);
}

/* A list of n elements that differ; what else the message says fits them. */
static json_t *
with_list(size_t which, const char *list, const char *key, size_t n)
{
	json_t *root = json_loads(samples[which].json, 0, NULL);
	json_t *array = json_object_get(root, list);
	json_t *one = json_incref(json_array_get(array, 0));

	json_array_clear(array);
	for (size_t i = 0; i < n; i++) {
		json_t *item = json_deep_copy(one);
		bool by_id = strcmp(list, "ids") == 0 || strcmp(list, "keys") == 0;
		char name[64];
		int len = snprintf(name, sizeof name, "%s%04zx",
				   by_id ? "46c8a68c-2121-4f92-a7c9-27ef9fb6" : "KME-", i);

		assert_in_range(len, 1, sizeof name - 1);
		if (key)
			json_object_set_new(item, key, json_string(name));
		else
			json_string_set(item, name);
		json_array_append_new(array, item);
	}
	json_decref(one);
	if (strcmp(list, "keys") == 0)
		set_data(root, 11 * n); /* as long as the first */
	return root;
}

static void
test_one_too_many(void **state)
{
	static const struct {
		size_t sample;
		const char *list, *key;
		size_t min, max;
	} cases[] = {
		{FORWARD, "path", NULL, 3, QG_KMS_PATH_MAX}, /* its hop needs three */
		{MAKE, "targets", NULL, 1, QG_KMS_SAES_MAX},
		{MAKE, "keys", "id", 1, QG_KMS_MAKE_MAX},
		{DELETE, "ids", NULL, 1, QG_KMS_MAKE_MAX},
		{REPORT, "links", "peer", 0, QG_KMS_LINKS_MAX},
	};

	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		const sample *s = &samples[cases[i].sample];
		json_t *least = with_list(cases[i].sample, cases[i].list, cases[i].key, cases[i].min);
		json_t *most = with_list(cases[i].sample, cases[i].list, cases[i].key, cases[i].max);

		accepted_json(s, least);
		accepted_json(s, most);
		refused_json(s, with_list(cases[i].sample, cases[i].list, cases[i].key, cases[i].max + 1));
		json_decref(least);
		json_decref(most);
	}
}

/* As many ranges as there may be, of a byte each but for the first two; and one
 * more. */
static void
test_most_pads(void **state)
{
	(void)state;
	for (size_t n = 2; n <= QG_KMS_PADS_MAX + 1; n++) {
		json_t *root = json_loads(samples[MAKE].json, 0, NULL);
		json_t *pads = json_object_get(root, "pads");
		json_t *second = json_array_get(pads, 1);

		for (size_t i = 2; i < n; i++) {
			json_t *pad = json_deep_copy(second);

			json_object_set_new(pad, "offset", json_integer((json_int_t)(200 - i)));
			json_object_set_new(pad, "len", json_integer(1));
			json_array_append_new(pads, pad);
		}
		json_object_set_new(second, "len", json_integer((json_int_t)(16 - (n - 2))));
		if (n > QG_KMS_PADS_MAX) {
			refused_json(&samples[MAKE], root);
		} else {
			accepted_json(&samples[MAKE], root);
			json_decref(root);
		}
	}
}

/* However it is written down it is the same message, or none. */
static void
test_ways_of_writing(void **state)
{
	static const struct {
		const char *was, *now;
		bool ok;
	} cases[] = {
		{"\"data\":\"", "\"data\": \"", true},
		{"\"}", "\" }", true},
		{"\"}", "\"}\n", true},
		{"{\"version\"", " {\"version\"", true},
		{"\"data\":\"", "\"d\\u0061ta\":\"", true},
		{"\"data\":\"", "\"data\":\"\",\"data\":\"", false},
		{"\"data\":\"", "\"Data\":\"", false},
		{"\"data\":\"", "\"more\":1,\"data\":\"", false},
		{"\"data\":\"", "\"more\":\",\\\"data\\\":\",\"data\":\"", false},
		{",\"data\":\"", ",\"data\":\"=", false},
		{",\"data\":\"", ",\"data\":\"*", false},
		{",\"data\":\"", "\"data\":\"", false},
		{",\"data\":\"", ",,\"data\":\"", false},
		{"\"version\":1,", "", false},
		{"\"version\":1,", "\"version\":2,", false},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++) {
		char text[4096];
		const char *json = samples[FORWARD].json, *at = strstr(json, cases[i].was);
		assert_non_null(at);
		int n = snprintf(text, sizeof text, "%.*s%s%s", (int)(at - json), json, cases[i].now,
				 at + strlen(cases[i].was));
		assert_in_range(n, 1, sizeof text - 1);
		if (!cases[i].ok) {
			refused(&samples[FORWARD], text);
			continue;
		}
		if (samples[FORWARD].decode(text, strlen(text), got) != QG_OK)
			fail_msg("refused: %s", text);
		assert_memory_equal(got, samples[FORWARD].m, samples[FORWARD].size);
	}
}

/* The value in front of the others, and written with an escape. */
static void
test_data_elsewhere(void **state)
{
	(void)state;
	char text[4096];
	const char *json = samples[FORWARD].json, *data = strstr(json, ",\"data\":\"");
	assert_non_null(data);
	const size_t value = strlen(data) - strlen(",") - strlen("}");
	int n = snprintf(text, sizeof text, "{%.*s,%.*s}", (int)value, data + 1, (int)(data - json - 1), json + 1);
	assert_in_range(n, 1, sizeof text - 1);
	assert_int_equal(samples[FORWARD].decode(text, strlen(text), got), QG_OK);
	assert_memory_equal(got, samples[FORWARD].m, samples[FORWARD].size);
	const char *first = data + strlen(",\"data\":\"");
	n = snprintf(text, sizeof text, "%.*s\\u%04x%s", (int)(first - json), json, (unsigned)*first, first + 1);
	assert_in_range(n, 1, sizeof text - 1);
	assert_int_equal(samples[FORWARD].decode(text, strlen(text), got), QG_OK);
	assert_memory_equal(got, samples[FORWARD].m, samples[FORWARD].size);
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
		cmocka_unit_test(test_answers),
		cmocka_unit_test(test_encode_refuses_forward),
		cmocka_unit_test(test_encode_refuses_others),
		cmocka_unit_test(test_largest_forward),
		cmocka_unit_test(test_largest_make),
		cmocka_unit_test(test_largest_others),
		cmocka_unit_test(test_most_data),
		cmocka_unit_test(test_one_too_many),
		cmocka_unit_test(test_most_pads),
		cmocka_unit_test(test_ways_of_writing),
		cmocka_unit_test(test_data_elsewhere),
		cmocka_unit_test(test_mutated),
	};

	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return qg_secret_init() == QG_OK ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
}
