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
#include "qkdgate/key_id.h"

/* Vectors of docs/key-ids.md, made by data/make_key_ids.py. */
static json_t *vectors;

static const qg_uuid zero_uuid;

static qg_uuid
uuid_of(const json_t *text)
{
	qg_uuid u;

	assert_int_equal(qg_uuid_parse(json_string_value(text), json_string_length(text), &u), QG_OK);
	return u;
}

static size_t
hex_of(const json_t *text, uint8_t *out, size_t room)
{
	size_t n = json_string_length(text) / 2;

	assert_true(n <= room);
	assert_int_equal(qg_hex_decode(json_string_value(text), 2 * n, out, n), QG_OK);
	return n;
}

static const char *
str(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	assert_non_null(s);
	return s;
}

static qg_key_id_keys *
keys_of(const json_t *direction)
{
	qg_key_id_binding b = {.owner = str(direction, "owner"), .far_end = str(direction, "far_end")};
	uint8_t root[256];
	size_t root_len = hex_of(json_object_get(direction, "root"), root, sizeof root);
	qg_key_id_keys *k = NULL;

	b.ksid = uuid_of(json_object_get(direction, "ksid"));
	assert_int_equal(hex_of(json_object_get(direction, "epoch"), b.epoch, sizeof b.epoch), sizeof b.epoch);
	assert_int_equal(qg_key_id_keys_new(root, root_len, &b, &k), QG_OK);
	return k;
}

static qg_key_id_pair
pair_of(const qg_key_id_keys *k, const json_t *direction, const json_t *entry)
{
	size_t n = (size_t)json_integer_value(json_object_get(entry, "pair"));
	const json_t *p = json_array_get(json_object_get(direction, "pairs"), n);
	qg_key_id_pair pair;

	qg_key_id_pair_of(k, str(p, "master"), str(p, "slave"), &pair);
	return pair;
}

static qg_key_id_position
position_of(const json_t *entry)
{
	return (qg_key_id_position){
		.index = (uint32_t)json_integer_value(json_object_get(entry, "index")),
		.size_bytes = (uint16_t)json_integer_value(json_object_get(entry, "size_bytes")),
	};
}

/* Not found leaves the position as it was. */
static void
assert_not_found(const qg_key_id_keys *k, const qg_key_id_pair *pair, const qg_uuid *id)
{
	qg_key_id_position pos = {.index = 77, .size_bytes = 5};

	assert_int_equal(qg_key_id_open(k, pair, id, &pos), QG_E_NOTFOUND);
	assert_int_equal(pos.index, 77);
	assert_int_equal(pos.size_bytes, 5);
}

static void
check_id(const qg_key_id_keys *k, const json_t *direction, const json_t *entry)
{
	qg_key_id_pair pair = pair_of(k, direction, entry);
	qg_key_id_position pos = position_of(entry), got = {0};
	qg_uuid want = uuid_of(json_object_get(entry, "id")), id;

	qg_key_id_make(k, &pair, pos, &id);
	assert_memory_equal(id.b, want.b, sizeof id.b);
	assert_int_equal(qg_key_id_open(k, &pair, &want, &got), QG_OK);
	assert_int_equal(got.index, pos.index);
	assert_int_equal(got.size_bytes, pos.size_bytes);
}

static void
test_vectors(void **state)
{
	size_t i, j, ids = 0;
	json_t *d, *e;

	(void)state;
	json_array_foreach (json_object_get(vectors, "directions"), i, d) {
		qg_key_id_keys *k = keys_of(d);

		json_array_foreach (json_object_get(d, "pairs"), j, e) {
			qg_key_id_pair pair;
			uint8_t key[16];

			assert_int_equal(hex_of(json_object_get(e, "key"), key, sizeof key), sizeof key);
			qg_key_id_pair_of(k, str(e, "master"), str(e, "slave"), &pair);
			assert_memory_equal(pair.key, key, sizeof key);
		}
		json_array_foreach (json_object_get(d, "ids"), j, e) {
			check_id(k, d, e);
			ids++;
		}
		qg_key_id_keys_free(&k);
	}
	assert_true(ids >= 300);
}

/* A key of no bytes is none, however right its tags. */
static void
test_size_0(void **state)
{
	size_t i, j, n = 0;
	json_t *d, *e;

	(void)state;
	json_array_foreach (json_object_get(vectors, "directions"), i, d) {
		qg_key_id_keys *k = keys_of(d);

		json_array_foreach (json_object_get(d, "size_0"), j, e) {
			qg_key_id_pair pair = pair_of(k, d, e);
			qg_uuid id = uuid_of(json_object_get(e, "id"));

			assert_not_found(k, &pair, &id);
			n++;
		}
		qg_key_id_keys_free(&k);
	}
	assert_true(n >= 20);
}

/* Another owner, far end, KSID or epoch over the same root: all vectors of one
 * direction are unknown to every other. */
static void
test_soundness_2_other_epoch(void **state)
{
	json_t *all = json_object_get(vectors, "directions"), *from, *to, *e;
	size_t i, j, n;

	(void)state;
	json_array_foreach (all, i, to) {
		qg_key_id_keys *k = keys_of(to);

		json_array_foreach (all, j, from) {
			if (i == j)
				continue;
			json_array_foreach (json_object_get(from, "ids"), n, e) {
				qg_key_id_pair pair = pair_of(k, to, e);
				qg_uuid id = uuid_of(json_object_get(e, "id"));

				assert_not_found(k, &pair, &id);
			}
		}
		qg_key_id_keys_free(&k);
	}
}

static qg_key_id_keys *
random_keys(void)
{
	qg_key_id_binding b = {.owner = "KME-A", .far_end = "KME-B"};
	uint8_t root[QG_KEY_ID_ROOT_MIN];
	qg_key_id_keys *k = NULL;

	qg_random(root, sizeof root);
	qg_uuid_random(&b.ksid);
	qg_random(b.epoch, sizeof b.epoch);
	assert_int_equal(qg_key_id_keys_new(root, sizeof root, &b, &k), QG_OK);
	return k;
}

/* The right master and slave in any other arrangement: issued, but denied, and
 * the position is told. */
static void
test_soundness_13_other_pair(void **state)
{
	static const char *const others[][2] = {
		{"sae-bob", "sae-alice"}, {"sae-alice", "sae-erin"}, {"sae-mallory", "sae-bob"},
		{"sae-alice", "sae-bo"},  {"sae-alices", "ae-bob"},  {"SAE-alice", "sae-bob"},
		{"", "sae-bob"},          {"sae-alice", ""},         {"sae-alicesae-bob", ""},
	};
	qg_key_id_keys *k = random_keys();
	qg_key_id_pair right, wrong;

	(void)state;
	qg_key_id_pair_of(k, "sae-alice", "sae-bob", &right);
	for (uint32_t i = 0; i < 200; i++) {
		qg_key_id_position pos = {.index = i * 21474836u, .size_bytes = (uint16_t)(1 + i * 20)};
		qg_uuid id;

		qg_key_id_make(k, &right, pos, &id);
		for (size_t j = 0; j < sizeof others / sizeof *others; j++) {
			qg_key_id_position got = {0};

			qg_key_id_pair_of(k, others[j][0], others[j][1], &wrong);
			assert_int_equal(qg_key_id_open(k, &wrong, &id, &got), QG_E_DENIED);
			assert_int_equal(got.index, pos.index);
			assert_int_equal(got.size_bytes, pos.size_bytes);
		}
	}
	qg_key_id_keys_free(&k);
}

/* Fixed keys, so that the outcome of 200 * 128 tries at a 30-bit tag is the
 * same in every run. Version and variant bits are among the 128. */
static void
test_soundness_13_flipped_bits(void **state)
{
	json_t *d = json_array_get(json_object_get(vectors, "directions"), 0);
	qg_key_id_keys *k = keys_of(d);
	qg_key_id_pair pair;

	(void)state;
	qg_key_id_pair_of(k, "sae-alice", "sae-bob", &pair);
	for (uint32_t i = 0; i < 200; i++) {
		qg_key_id_position pos = {.index = i * 7919, .size_bytes = 32};
		qg_uuid id;

		qg_key_id_make(k, &pair, pos, &id);
		for (size_t bit = 0; bit < 128; bit++) {
			qg_uuid bad = id;

			bad.b[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
			assert_not_found(k, &pair, &bad);
		}
	}
	qg_key_id_keys_free(&k);
}

/* Every other version and variant, all else right. */
static void
test_version_and_variant(void **state)
{
	json_t *d = json_array_get(json_object_get(vectors, "directions"), 0);
	qg_key_id_keys *k = keys_of(d);
	qg_key_id_position pos = {.index = 5, .size_bytes = 32}, got;
	qg_key_id_pair pair;
	qg_uuid id;

	(void)state;
	qg_key_id_pair_of(k, "sae-alice", "sae-bob", &pair);
	qg_key_id_make(k, &pair, pos, &id);
	assert_int_equal(id.b[6] >> 4, 8);
	assert_int_equal(id.b[8] >> 6, 2);
	for (unsigned v = 0; v < 64; v++) {
		qg_uuid other = id;

		other.b[6] = (uint8_t)((v >> 2) << 4 | (id.b[6] & 0x0f));
		other.b[8] = (uint8_t)((v & 3) << 6 | (id.b[8] & 0x3f));
		if (v == (8 << 2 | 2))
			assert_int_equal(qg_key_id_open(k, &pair, &other, &got), QG_OK);
		else
			assert_not_found(k, &pair, &other);
	}
	assert_not_found(k, &pair, &zero_uuid);
	qg_key_id_keys_free(&k);
}

/* IDs made up by someone without the keys, and the halves of two true ones. */
static void
test_made_up(void **state)
{
	json_t *d = json_array_get(json_object_get(vectors, "directions"), 0);
	qg_key_id_keys *k = keys_of(d);
	qg_key_id_pair pair;
	qg_uuid id[64];

	(void)state;
	qg_key_id_pair_of(k, "sae-alice", "sae-bob", &pair);
	for (uint32_t i = 0; i < 64; i++)
		qg_key_id_make(k, &pair, (qg_key_id_position){.index = i, .size_bytes = 32}, &id[i]);
	for (size_t i = 0; i < 64; i++) {
		for (size_t j = 0; j < 64; j++) {
			qg_uuid mixed = id[i];

			if (i == j)
				continue;
			memcpy(mixed.b + 8, id[j].b + 8, 8); /* tags of one, position of another */
			assert_not_found(k, &pair, &mixed);
		}
	}
	for (uint64_t i = 0, x = 88172645463325252u; i < 20000; i++) {
		qg_uuid made;

		for (size_t b = 0; b < sizeof made.b; b++) {
			x ^= x << 13;
			x ^= x >> 7;
			x ^= x << 17;
			made.b[b] = (uint8_t)(x >> 32);
		}
		made.b[6] = (uint8_t)(0x80 | (made.b[6] & 0x0f));
		made.b[8] = (uint8_t)(0x80 | (made.b[8] & 0x3f));
		assert_not_found(k, &pair, &made);
	}
	qg_key_id_keys_free(&k);
}

/* Neighbouring positions share no more bits than chance: no counter shows. */
static void
test_no_counter(void **state)
{
	json_t *d = json_array_get(json_object_get(vectors, "directions"), 0);
	qg_key_id_keys *k = keys_of(d);
	unsigned ones[128] = {0};
	qg_key_id_pair pair;

	(void)state;
	qg_key_id_pair_of(k, "sae-alice", "sae-bob", &pair);
	for (uint32_t i = 0; i < 4096; i++) {
		qg_uuid a, b;

		qg_key_id_make(k, &pair, (qg_key_id_position){.index = i, .size_bytes = 32}, &a);
		qg_key_id_make(k, &pair, (qg_key_id_position){.index = i + 1, .size_bytes = 32}, &b);
		for (size_t bit = 0; bit < 128; bit++)
			ones[bit] += (unsigned)(a.b[bit / 8] ^ b.b[bit / 8]) >> (7 - bit % 8) & 1u;
	}
	for (size_t bit = 0; bit < 128; bit++) {
		if ((bit >= 48 && bit < 52) || bit == 64 || bit == 65)
			assert_int_equal(ones[bit], 0);
		else
			assert_in_range(ones[bit], 2048 - 192, 2048 + 192); /* six sigma */
	}
	qg_key_id_keys_free(&k);
}

static void
test_short_root(void **state)
{
	qg_key_id_binding b = {.owner = "KME-A", .far_end = "KME-B"};
	uint8_t root[QG_KEY_ID_ROOT_MIN] = {1};
	qg_key_id_keys *k = NULL;

	(void)state;
	assert_int_equal(qg_key_id_keys_new(root, sizeof root - 1, &b, &k), QG_E_RANGE);
	assert_int_equal(qg_key_id_keys_new(root, 0, &b, &k), QG_E_RANGE);
	assert_null(k);
	qg_key_id_keys_free(&k);
	qg_key_id_keys_free(NULL);
	assert_int_equal(qg_key_id_keys_new(root, sizeof root, &b, &k), QG_OK);
	qg_key_id_keys_free(&k);
	assert_null(k);
}

/* Beside this source file, wherever the test is started from. */
static int
load(void **state)
{
	char file[512];
	const char *slash = strrchr(__FILE__, '/');
	int n = snprintf(file, sizeof file, "%.*s/data/key_ids.json", slash ? (int)(slash - __FILE__) : 1,
			 slash ? __FILE__ : ".");
	json_error_t e;

	(void)state;
	if (n < 0 || (size_t)n >= sizeof file || qg_secret_init() != QG_OK)
		return -1;
	vectors = json_load_file(file, JSON_REJECT_DUPLICATES, &e);
	if (!vectors)
		print_error("%s: %s\n", file, e.text);
	return vectors ? 0 : -1;
}

static int
unload(void **state)
{
	(void)state;
	json_decref(vectors);
	qg_secret_fini();
	return 0;
}

/* What is found is what is computed: at first, again, and when others have taken
 * its place; also for names that look alike when one follows the other. */
static void
test_pairs_found(void **state)
{
	static const char *const alike[][2] = {
		{"ab", "c"}, {"a", "bc"}, {"abc", ""}, {"", "abc"}, {"c", "ab"}, {"ab", "C"},
	};
	const qg_key_id_binding b = {.owner = "KME-A", .far_end = "KME-B"};
	uint8_t root[QG_KEY_ID_ROOT_MIN] = {7}, other_root[QG_KEY_ID_ROOT_MIN] = {8};
	qg_key_id_keys *k = NULL, *other = NULL;
	qg_key_id_pair right, found;
	char master[600], slave[32];

	(void)state;
	assert_int_equal(qg_key_id_keys_new(root, sizeof root, &b, &k), QG_OK);
	assert_int_equal(qg_key_id_keys_new(other_root, sizeof other_root, &b, &other), QG_OK);
	for (int round = 0; round < 2; round++)
		for (size_t i = 0; i < sizeof alike / sizeof *alike; i++) {
			qg_key_id_pair_of(k, alike[i][0], alike[i][1], &right);
			qg_key_id_pair_find(k, alike[i][0], alike[i][1], &found);
			assert_memory_equal(&found, &right, sizeof right);
		}
	for (int i = 0; i < 4000; i++) { /* many times the room */
		snprintf(master, sizeof master, "master-%d", i % 1300);
		snprintf(slave, sizeof slave, "slave-%d", i % 700);
		qg_key_id_pair_of(k, master, slave, &right);
		qg_key_id_pair_find(k, master, slave, &found);
		assert_memory_equal(&found, &right, sizeof right);
		qg_key_id_pair_find(k, master, slave, &found);
		assert_memory_equal(&found, &right, sizeof right);
	}
	qg_key_id_pair_find(other, "ab", "c", &found); /* another epoch's is another */
	qg_key_id_pair_of(k, "ab", "c", &right);
	assert_memory_not_equal(&found, &right, sizeof right);
	memset(master, 'm', sizeof master - 1); /* longer than is looked for */
	master[sizeof master - 1] = '\0';
	qg_key_id_pair_of(k, master, "s", &right);
	qg_key_id_pair_find(k, master, "s", &found);
	assert_memory_equal(&found, &right, sizeof right);
	qg_key_id_keys_free(&k);
	qg_key_id_keys_free(&other);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_size_0),
		cmocka_unit_test(test_soundness_2_other_epoch),
		cmocka_unit_test(test_soundness_13_other_pair),
		cmocka_unit_test(test_soundness_13_flipped_bits),
		cmocka_unit_test(test_version_and_variant),
		cmocka_unit_test(test_made_up),
		cmocka_unit_test(test_no_counter),
		cmocka_unit_test(test_short_root),
		cmocka_unit_test(test_pairs_found),
	};

	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, load, unload);
}
