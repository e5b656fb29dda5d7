/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/seal.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/bytes.h"
#include "qkdgate/clock.h"
#include "keyfile_internal.h"
#include "seal_internal.h"

#define VERSION 1
#define CREDENTIAL "credential:"
#define KEY 32
#define NONCE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG crypto_aead_xchacha20poly1305_ietf_ABYTES
#define HEAD (1 + 4)
#define WRAP_AT (HEAD + NONCE)
#define DATA_NONCE_AT (WRAP_AT + KEY + TAG)
#define DATA_AT (DATA_NONCE_AT + NONCE)

_Static_assert(DATA_AT + TAG == QG_SEAL_OVERHEAD, "the blob is as seal.h says");
_Static_assert(KEY == QG_KEK_BYTES && KEY == crypto_aead_xchacha20poly1305_ietf_KEYBYTES, "one key size");

struct qg_sealer {
	/* Only those who change the ring meet at this one, and only it is held
	 * while the file is written. */
	pthread_mutex_t change_lock;
	/* Guards what follows. */
	pthread_rwlock_t lock;
	qg_ring *ring;
	uint64_t made_elapsed_ms; /* the newest generation as of the monotonic clock */
	bool rotate_now;          /* the next rotation is due whatever the age */
	/* Guarded by change_lock. */
	qg_secret *master;
	/* Constant. */
	char *master_name, *path;
	unsigned rotate_s;
};

static uint32_t
newest(const qg_ring *r)
{
	return r->generation[r->n - 1];
}

/* Opened with the newer of two master keys, the other is not needed any more. */
static qg_err
ring_open(qg_sealer *s)
{
	size_t wrap = 0;
	qg_err err = qg_ring_load(s->ring, s->path, s->master, &wrap);
	if (err == QG_OK && wrap > 0) {
		qg_ring_keep_wrap(s->ring, wrap);
		s->rotate_now = true;
		return qg_ring_save(s->ring, s->path);
	}
	if (err != QG_E_NOTFOUND)
		return err;
	err = qg_ring_add(s->ring, 1, qg_clock_wall_ms());
	return err == QG_OK ? qg_ring_save(s->ring, s->path) : err;
}

qg_err
qg_sealer_open(const qg_seal_options *o, qg_sealer **out)
{
	qg_sealer *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&s->change_lock, NULL);
	pthread_rwlock_init(&s->lock, NULL);
	s->rotate_s = o->rotate_s;
	s->made_elapsed_ms = qg_clock_elapsed_ms();
	s->path = strdup(o->key_ring);
	s->master_name = strdup(o->master_key);
	qg_err err = s->path != NULL && s->master_name != NULL ? QG_OK : QG_E_NOMEM;
	if (err == QG_OK)
		err = qg_master_key_load(o->master_key, &s->master);
	if (err == QG_OK)
		err = qg_ring_new(&s->ring);
	if (err == QG_OK)
		err = ring_open(s);
	if (err != QG_OK) {
		qg_sealer_close(&s);
		return err;
	}
	*out = s;
	return QG_OK;
}

void
qg_sealer_close(qg_sealer **s)
{
	if (s == NULL || *s == NULL)
		return;
	qg_ring_free(&(*s)->ring);
	qg_secret_free(&(*s)->master);
	free((*s)->path);
	free((*s)->master_name);
	pthread_rwlock_destroy(&(*s)->lock);
	pthread_mutex_destroy(&(*s)->change_lock);
	free(*s);
	*s = NULL;
}

/* A copy of the generation's key, for the caller to wipe; generation 0 stands
 * for the newest and is set. */
static qg_err
take_key(qg_sealer *s, uint32_t *generation, uint8_t key[KEY])
{
	qg_err err = QG_E_NOTFOUND;
	pthread_rwlock_rdlock(&s->lock);
	uint32_t want = *generation != 0 ? *generation : newest(s->ring);
	const uint8_t *found = qg_ring_find(s->ring, want);
	if (found != NULL) {
		memcpy(key, found, KEY);
		*generation = want;
		err = QG_OK;
	}
	pthread_rwlock_unlock(&s->lock);
	return err;
}

/* What the ciphertext is bound to: the blob's head and what the caller says. */
static void
bind_ad(const uint8_t head[HEAD], const void *ad, size_t ad_len, uint8_t out[32])
{
	crypto_generichash_state st;
	crypto_generichash_init(&st, NULL, 0, 32);
	crypto_generichash_update(&st, head, HEAD);
	crypto_generichash_update(&st, ad, ad_len);
	crypto_generichash_final(&st, out, 32);
}

qg_err
qg_sealer_seal(qg_sealer *s, const void *ad, size_t ad_len, const void *plain, size_t n, uint8_t *out)
{
	uint8_t kek[KEY], key[KEY], bound[32];
	uint32_t generation = 0;
	qg_err err = take_key(s, &generation, kek);
	if (err != QG_OK)
		return err;
	qg_writer w = qg_writer_of(out, HEAD);
	qg_put_u8(&w, VERSION);
	qg_put_u32(&w, generation);
	qg_random(out + HEAD, NONCE);
	qg_random(out + DATA_NONCE_AT, NONCE);
	qg_random(key, sizeof key);
	bind_ad(out, ad, ad_len, bound);
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		out + WRAP_AT, NULL, key, KEY, out, HEAD, NULL, out + HEAD, kek);
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		out + DATA_AT, NULL, plain, n, bound, sizeof bound, NULL, out + DATA_NONCE_AT, key);
	qg_wipe(kek, sizeof kek);
	qg_wipe(key, sizeof key);
	qg_wipe_stack();
	return QG_OK;
}

static qg_err
open_blob(const uint8_t kek[KEY], const uint8_t bound[32], const uint8_t *blob, size_t len, qg_secret *out)
{
	uint8_t key[KEY];
	int rc = crypto_aead_xchacha20poly1305_ietf_decrypt(
		key, NULL, NULL, blob + WRAP_AT, KEY + TAG, blob, HEAD, blob + HEAD, kek);
	if (rc == 0)
		rc = crypto_aead_xchacha20poly1305_ietf_decrypt(out->data, NULL, NULL, blob + DATA_AT,
			len - DATA_AT, bound, 32, blob + DATA_NONCE_AT, key);
	qg_wipe(key, sizeof key);
	qg_wipe_stack();
	if (rc != 0)
		return QG_E_AUTH;
	out->len = len - QG_SEAL_OVERHEAD;
	return QG_OK;
}

qg_err
qg_sealer_unseal(
	qg_sealer *s, const void *ad, size_t ad_len, const uint8_t *blob, size_t len, qg_secret **out)
{
	uint8_t kek[KEY], bound[32];
	QG_SECRET_AUTO *plain = NULL;
	uint32_t generation = qg_seal_generation(blob, len);
	if (generation == 0)
		return QG_E_AUTH;
	qg_err err = take_key(s, &generation, kek);
	if (err != QG_OK)
		return err;
	err = qg_secret_new(len - QG_SEAL_OVERHEAD, &plain);
	if (err == QG_OK) {
		bind_ad(blob, ad, ad_len, bound);
		err = open_blob(kek, bound, blob, len, plain);
	}
	qg_wipe(kek, sizeof kek);
	if (err != QG_OK)
		return err;
	*out = plain;
	plain = NULL;
	return QG_OK;
}

uint32_t
qg_seal_generation(const uint8_t *blob, size_t len)
{
	if (len < QG_SEAL_OVERHEAD || blob[0] != VERSION)
		return 0;
	qg_reader r = qg_reader_of(blob + 1, 4);
	return qg_get_u32(&r);
}

uint32_t
qg_sealer_generation(const qg_sealer *s)
{
	/* The lock's own state is all that changes. */
	pthread_rwlock_t *lock = (pthread_rwlock_t *)(uintptr_t)&s->lock;
	pthread_rwlock_rdlock(lock);
	uint32_t generation = newest(s->ring);
	pthread_rwlock_unlock(lock);
	return generation;
}

/* By the wall clock over restarts, and by the monotonic one should the wall
 * clock have been set back. */
static bool
old_enough(const qg_sealer *s)
{
	uint64_t limit_ms = (uint64_t)s->rotate_s * 1000;
	int64_t made_ms = s->ring->made_ms[s->ring->n - 1], now_ms = qg_clock_wall_ms();
	if (s->rotate_now)
		return true;
	bool by_wall = now_ms > made_ms && (uint64_t)now_ms - (uint64_t)made_ms >= limit_ms;
	return by_wall || qg_clock_elapsed_ms() - s->made_elapsed_ms >= limit_ms;
}

/* The file first: a key that seals, or one that is gone, is so on the disk
 * already. Takes the ring over when it is saved. */
static qg_err
publish(qg_sealer *s, qg_ring **ring)
{
	qg_err err = qg_ring_save(*ring, s->path);
	if (err != QG_OK)
		return err;
	pthread_rwlock_wrlock(&s->lock);
	qg_ring *old = s->ring;
	s->ring = *ring;
	*ring = old;
	pthread_rwlock_unlock(&s->lock);
	return QG_OK;
}

qg_err
qg_sealer_rotate(qg_sealer *s)
{
	__attribute__((cleanup(qg_ring_free))) qg_ring *next = NULL;
	qg_err err = QG_OK;
	pthread_mutex_lock(&s->change_lock);
	if (old_enough(s)) {
		err = newest(s->ring) < UINT32_MAX ? qg_ring_copy(s->ring, &next) : QG_E_FULL;
		if (err == QG_OK)
			err = qg_ring_add(next, newest(s->ring) + 1, qg_clock_wall_ms());
		if (err == QG_OK)
			err = publish(s, &next);
		if (err == QG_OK) {
			s->made_elapsed_ms = qg_clock_elapsed_ms();
			s->rotate_now = false;
		}
	}
	pthread_mutex_unlock(&s->change_lock);
	return err;
}

/* The newest stays whatever is asked: something must seal. */
qg_err
qg_sealer_destroy_below(qg_sealer *s, uint32_t generation)
{
	__attribute__((cleanup(qg_ring_free))) qg_ring *next = NULL;
	size_t n = 0;
	qg_err err = QG_OK;
	pthread_mutex_lock(&s->change_lock);
	while (n + 1 < s->ring->n && s->ring->generation[n] < generation)
		n++;
	if (n > 0) {
		err = qg_ring_copy(s->ring, &next);
		if (err == QG_OK) {
			qg_ring_drop(next, n);
			err = publish(s, &next);
		}
	}
	pthread_mutex_unlock(&s->change_lock);
	return err;
}

/* --- another master key -------------------------------------------------------------- */

/* A ring with the same keys under these master keys takes the place of the one in use. */
static qg_err
wrap_under(qg_sealer *s, const qg_secret *const *master, size_t n)
{
	__attribute__((cleanup(qg_ring_free))) qg_ring *next = NULL;
	const qg_err err = qg_ring_copy(s->ring, &next);
	if (err != QG_OK)
		return err;
	qg_ring_rewrap(next, master, n);
	return publish(s, &next);
}

static qg_err
draw_master(qg_secret **out)
{
	const qg_err err = qg_secret_new(KEY, out);
	if (err != QG_OK)
		return err;
	qg_random((*out)->data, KEY);
	(*out)->len = KEY;
	return QG_OK;
}

static bool
holds(const char *name, const qg_secret *key)
{
	QG_SECRET_AUTO *there = NULL;
	return qg_master_key_load(name, &there) == QG_OK && qg_equal_ct(there->data, key->data, KEY);
}

/* The file's old content opens the ring up to the replacement, the new one from then on. */
static qg_err
put_in_place(qg_sealer *s, qg_secret **new)
{
	const qg_secret *const both[] = {s->master, *new}, *const old[] = {s->master}, *const now[] = {*new};
	qg_err err = wrap_under(s, both, 2);
	if (err != QG_OK)
		return err;
	err = qg_keyfile_replace(s->master_name, (*new)->data, KEY);
	if (err != QG_OK) {
		/* It may have been replaced all the same: the ring opens with both unless it surely was not. */
		if (holds(s->master_name, s->master))
			(void)!wrap_under(s, old, 1);
		return err;
	}
	qg_secret *was = s->master;
	s->master = *new;
	*new = was; /* wiped by the caller */
	(void)!wrap_under(s, now, 1); /* else the next start does it, or the next change */
	return QG_OK;
}

static qg_err
take_from(qg_sealer *s, const qg_secret *new, bool *pending)
{
	const qg_secret *const both[] = {s->master, new};
	if (qg_equal_ct(s->master->data, new->data, KEY))
		return QG_E_EXISTS;
	const qg_err err = wrap_under(s, both, 2);
	*pending = err == QG_OK;
	return err;
}

qg_err
qg_sealer_change_master(qg_sealer *s, const char *from, bool *pending)
{
	QG_SECRET_AUTO *new = NULL;
	*pending = false;
	if (from == NULL && strncmp(s->master_name, CREDENTIAL, sizeof CREDENTIAL - 1) == 0)
		return QG_E_UNSUPPORTED;
	qg_err err = from != NULL ? qg_master_key_load(from, &new) : draw_master(&new);
	if (err != QG_OK)
		return err;
	pthread_mutex_lock(&s->change_lock);
	err = from != NULL ? take_from(s, new, pending) : put_in_place(s, &new);
	if (err == QG_OK)
		s->rotate_now = true;
	pthread_mutex_unlock(&s->change_lock);
	return err;
}

bool
qg_sealer_master_pending(const qg_sealer *s)
{
	/* The lock's own state is all that changes. */
	pthread_rwlock_t *lock = (pthread_rwlock_t *)(uintptr_t)&s->lock;
	pthread_rwlock_rdlock(lock);
	const bool pending = s->ring->n_wraps > 1;
	pthread_rwlock_unlock(lock);
	return pending;
}

/* --- derived keys ---------------------------------------------------------------------- */

void
qg_sealer_derive(const qg_sealer *s, const char *purpose, uint8_t out[32])
{
	pthread_rwlock_t *lock = (pthread_rwlock_t *)(uintptr_t)&s->lock; /* as above */
	pthread_rwlock_rdlock(lock);
	qg_ring_derive(s->ring, purpose, out);
	pthread_rwlock_unlock(lock);
}

qg_err
qg_seal_derive(const qg_seal_options *o, const char *purpose, uint8_t out[32])
{
	__attribute__((cleanup(qg_ring_free))) qg_ring *ring = NULL;
	QG_SECRET_AUTO *master = NULL;
	size_t wrap;
	qg_err err = qg_master_key_load(o->master_key, &master);
	if (err == QG_OK && o->key_ring == NULL) {
		qg_master_key_derive(master, purpose, out);
		return QG_OK;
	}
	if (err == QG_OK)
		err = qg_ring_new(&ring);
	if (err == QG_OK)
		err = qg_ring_load(ring, o->key_ring, master, &wrap);
	if (err == QG_OK)
		qg_ring_derive(ring, purpose, out);
	return err;
}
