/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/key_id.h"

#include <assert.h>
#include <endian.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

/* The specification, with the reasons, is docs/key-ids.md; the names here are
 * those used there. */

#define HASH_KEY_BYTES 64 /* the largest key BLAKE2b takes */
#define DERIVED_BYTES 32
#define SIP_KEY_BYTES 16

#define POSITION_BITS 44
#define SIZE_BITS 12
#define ISSUE_BITS 30
#define PAIR_BITS 48
#define MASK(bits) ((UINT64_C(1) << (bits)) - 1)

/* Where in the secret the key of each purpose lies. */
enum {
	ISSUE_AT = 0,
	POSITION_AT = ISSUE_AT + SIP_KEY_BYTES,
	PAIR_AT = POSITION_AT + SIP_KEY_BYTES,
	KEYS_BYTES = PAIR_AT + DERIVED_BYTES
};

static_assert(SIP_KEY_BYTES == crypto_shorthash_siphash24_KEYBYTES, "SipHash-2-4 has a 16-byte key");
static_assert(DERIVED_BYTES == crypto_generichash_blake2b_BYTES, "keys are derived by BLAKE2b-256");
static_assert(sizeof(((qg_key_id_pair *)0)->key) == SIP_KEY_BYTES, "the pair's key is a SipHash key");

/* Pairs by a keyed hash of 128 bits, which stands for their names: nobody can
 * choose names that meet. One that falls on another's place takes it. */
#define PAIRS 256u
#define PAIR_NAMES_MAX 512u /* bytes of both names that are looked for */

typedef struct known_pair {
	uint8_t tag[crypto_shorthash_siphashx24_BYTES]; /* zeroes: none */
	qg_key_id_pair pair;
} known_pair;

struct qg_key_id_keys {
	qg_secret *secret;
	qg_secret *pairs; /* PAIRS of them, or NULL: none yet */
	uint8_t tag_key[crypto_shorthash_siphashx24_KEYBYTES];
};

static const struct {
	const char *context;
	size_t at, len;
} purposes[] = {
	{"qkdgate key-id v1 issue", ISSUE_AT, SIP_KEY_BYTES},
	{"qkdgate key-id v1 position", POSITION_AT, SIP_KEY_BYTES},
	{"qkdgate key-id v1 pair", PAIR_AT, DERIVED_BYTES},
};

static void
put_be(uint8_t *out, uint64_t v, size_t n)
{
	while (n > 0) {
		out[--n] = (uint8_t)v;
		v >>= 8;
	}
}

/* libsodium's hashes fail only when misused, which is a bug of ours. */
static void
must(int result)
{
	assert(result == 0);
	(void)result;
}

static void
hash_bytes(crypto_generichash_blake2b_state *st, const void *p, size_t n)
{
	must(crypto_generichash_blake2b_update(st, p, n));
}

static void
hash_string(crypto_generichash_blake2b_state *st, const char *s)
{
	uint8_t len_be[4];
	size_t len = strlen(s);

	assert(len <= UINT32_MAX);
	put_be(len_be, len, sizeof len_be);
	hash_bytes(st, len_be, sizeof len_be);
	hash_bytes(st, s, len);
}

/* Writes the first `len` of the 32 bytes of the hash and wipes the rest. */
static void
hash_end(crypto_generichash_blake2b_state *st, uint8_t *out, size_t len)
{
	uint8_t full[DERIVED_BYTES];

	must(crypto_generichash_blake2b_final(st, full, sizeof full));
	memcpy(out, full, len);
	qg_wipe(full, sizeof full);
	qg_wipe(st, sizeof *st);
}

static void
derive(const uint8_t key[HASH_KEY_BYTES], const char *context, const qg_key_id_binding *b, uint8_t *out,
       size_t len)
{
	crypto_generichash_blake2b_state st;

	must(crypto_generichash_blake2b_init(&st, key, HASH_KEY_BYTES, DERIVED_BYTES));
	hash_string(&st, context);
	hash_string(&st, b->owner);
	hash_string(&st, b->far_end);
	hash_bytes(&st, b->ksid.b, sizeof b->ksid.b);
	hash_bytes(&st, b->epoch, sizeof b->epoch);
	hash_end(&st, out, len);
}

qg_err
qg_key_id_keys_new(const uint8_t *root, size_t root_len, const qg_key_id_binding *b, qg_key_id_keys **out)
{
	uint8_t key[HASH_KEY_BYTES];
	QG_SECRET_AUTO *secret = NULL;
	qg_key_id_keys *k;
	qg_err err;

	if (root_len < QG_KEY_ID_ROOT_MIN)
		return QG_E_RANGE;
	err = qg_secret_new(KEYS_BYTES, &secret);
	if (err != QG_OK)
		return err;
	k = calloc(1, sizeof *k);
	if (!k)
		return QG_E_NOMEM;
	/* A root of 64 bytes is the key itself; a longer one is more than BLAKE2b
	 * takes as a key. */
	if (root_len == sizeof key)
		memcpy(key, root, sizeof key);
	else
		must(crypto_generichash_blake2b(key, sizeof key, root, root_len, NULL, 0));
	for (size_t i = 0; i < sizeof purposes / sizeof *purposes; i++)
		derive(key, purposes[i].context, b, secret->data + purposes[i].at, purposes[i].len);
	qg_wipe(key, sizeof key);
	qg_wipe_stack();
	secret->len = KEYS_BYTES;
	qg_random(k->tag_key, sizeof k->tag_key);
	k->secret = secret;
	secret = NULL;
	*out = k;
	return QG_OK;
}

void
qg_key_id_keys_free(qg_key_id_keys **k)
{
	if (!k || !*k)
		return;
	qg_secret_free(&(*k)->secret);
	qg_secret_free(&(*k)->pairs);
	free(*k);
	*k = NULL;
}

void
qg_key_id_pair_of(const qg_key_id_keys *k, const char *master, const char *slave, qg_key_id_pair *out)
{
	crypto_generichash_blake2b_state st;

	must(crypto_generichash_blake2b_init(&st, k->secret->data + PAIR_AT, DERIVED_BYTES, DERIVED_BYTES));
	hash_string(&st, master);
	hash_string(&st, slave);
	hash_end(&st, out->key, sizeof out->key);
}

/* The place of the pair, with its tag; NULL: it is not looked for. */
static known_pair *
place_of(qg_key_id_keys *k, const char *master, const char *slave, uint8_t tag[crypto_shorthash_siphashx24_BYTES])
{
	uint8_t names[4 + PAIR_NAMES_MAX];
	size_t n = strlen(master), m = strlen(slave);
	uint32_t at;

	if (n > PAIR_NAMES_MAX || m > PAIR_NAMES_MAX - n)
		return NULL;
	if (k->pairs == NULL && qg_secret_new(PAIRS * sizeof(known_pair), &k->pairs) != QG_OK)
		return NULL;
	put_be(names, n, 4);
	memcpy(names + 4, master, n);
	memcpy(names + 4 + n, slave, m);
	(void)crypto_shorthash_siphashx24(tag, names, 4 + n + m, k->tag_key);
	memcpy(&at, tag, sizeof at);
	return (known_pair *)(void *)k->pairs->data + at % PAIRS;
}

void
qg_key_id_pair_find(qg_key_id_keys *k, const char *master, const char *slave, qg_key_id_pair *out)
{
	uint8_t tag[crypto_shorthash_siphashx24_BYTES];
	known_pair *place = place_of(k, master, slave, tag);

	if (place != NULL && memcmp(place->tag, tag, sizeof tag) == 0) {
		*out = place->pair;
		return;
	}
	qg_key_id_pair_of(k, master, slave, out);
	if (place != NULL) {
		memcpy(place->tag, tag, sizeof tag);
		place->pair = *out;
	}
}

/* The low bits of the 64-bit number that SipHash-2-4 gives; libsodium writes
 * it little-endian. */
static uint64_t
sip(const uint8_t key[SIP_KEY_BYTES], const uint8_t *in, size_t n, unsigned bits)
{
	uint64_t v;

	static_assert(sizeof v == crypto_shorthash_siphash24_BYTES, "SipHash-2-4 gives 64 bits");
	(void)crypto_shorthash_siphash24((uint8_t *)&v, in, n, key);
	return le64toh(v) & MASK(bits);
}

typedef struct id_tags {
	uint64_t issue;
	uint64_t pair;
} id_tags;

static id_tags
tags_of(const qg_key_id_keys *k, const qg_key_id_pair *pair, uint64_t position)
{
	const uint64_t be = htobe64(position);
	const uint8_t *in = (const uint8_t *)&be;

	return (id_tags){
		.issue = sip(k->secret->data + ISSUE_AT, in, sizeof be, ISSUE_BITS),
		.pair = sip(pair->key, in, sizeof be, PAIR_BITS),
	};
}

/* Both tags are the IV (SOUNDNESS 13). */
static uint64_t
keystream(const qg_key_id_keys *k, id_tags t)
{
	const uint32_t issue = htobe32((uint32_t)t.issue);
	const uint64_t pair = htobe64(t.pair << 16);
	uint8_t in[4 + PAIR_BITS / 8];

	memcpy(in, &issue, sizeof issue);
	memcpy(in + 4, &pair, PAIR_BITS / 8);
	return sip(k->secret->data + POSITION_AT, in, sizeof in, POSITION_BITS);
}

/* RFC 9562, 5.8: 48 free bits, version, 12 free bits, variant, 62 free bits.
 * The issue tag lies across both fixed fields: 4 + 12 + 14 bits. */
static void
pack(uint64_t hidden, id_tags t, qg_uuid *out)
{
	const uint64_t words[2] = {
		htobe64(hidden << 20 | t.issue >> 26 << 16 | UINT64_C(8) << 12 | (t.issue >> 14 & MASK(12))),
		htobe64(UINT64_C(2) << 62 | (t.issue & MASK(14)) << PAIR_BITS | t.pair),
	};

	static_assert(sizeof words == sizeof out->b, "an ID is two words");
	memcpy(out->b, words, sizeof words);
}

/* Whether version and variant are ours. */
static bool
unpack(const qg_uuid *id, uint64_t *hidden, id_tags *t)
{
	uint64_t words[2];

	memcpy(words, id->b, sizeof words);
	const uint64_t high = be64toh(words[0]), low = be64toh(words[1]);
	if ((high >> 12 & MASK(4)) != 8 || low >> 62 != 2)
		return false;
	*hidden = high >> 20;
	t->issue = (high >> 16 & MASK(4)) << 26 | (high & MASK(12)) << 14 | (low >> PAIR_BITS & MASK(14));
	t->pair = low & MASK(PAIR_BITS);
	return true;
}

void
qg_key_id_make(const qg_key_id_keys *k, const qg_key_id_pair *pair, qg_key_id_position pos, qg_uuid *out)
{
	uint64_t position = (uint64_t)pos.index << SIZE_BITS | pos.size_bytes;
	id_tags t;

	assert(pos.size_bytes >= 1 && pos.size_bytes <= MASK(SIZE_BITS));
	t = tags_of(k, pair, position);
	pack(position ^ keystream(k, t), t, out);
}

qg_err
qg_key_id_open(const qg_key_id_keys *k, const qg_key_id_pair *pair, const qg_uuid *id,
	       qg_key_id_position *pos)
{
	uint64_t hidden, position, issue_differs, pair_differs;
	id_tags shown, right;

	if (!unpack(id, &hidden, &shown))
		return QG_E_NOTFOUND;
	position = hidden ^ keystream(k, shown);
	right = tags_of(k, pair, position);
	/* Whole words are compared, so the time says nothing about how many bits
	 * of a wrong tag were right. */
	issue_differs = shown.issue ^ right.issue;
	pair_differs = shown.pair ^ right.pair;
	if (issue_differs != 0 || (position & MASK(SIZE_BITS)) == 0)
		return QG_E_NOTFOUND;
	pos->index = (uint32_t)(position >> SIZE_BITS);
	pos->size_bytes = (uint16_t)(position & MASK(SIZE_BITS));
	return pair_differs != 0 ? QG_E_DENIED : QG_OK;
}
