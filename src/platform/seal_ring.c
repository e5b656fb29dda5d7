/* SPDX-License-Identifier: Apache-2.0 */
#include "seal_internal.h"

#include <fcntl.h>
#include <limits.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keyfile_internal.h"
#include "qkdgate/bytes.h"
#include "qkdgate/encode.h"
#include "qkdgate/seal.h"

#define MAGIC 0x51474b52u /* "QGKR" */
#define VERSION 1
#define VERSION_WRAPPED 2
#define NONCE crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define WRAPPED (QG_KEK_BYTES + crypto_aead_xchacha20poly1305_ietf_ABYTES)
#define HEAD (4 + 1 + 4)
#define ENTRY (4 + 8 + NONCE + WRAPPED)
#define TAG 32
#define FILE_MAX (HEAD + 1 + QG_RING_WRAPS * QG_RING_WRAP + QG_RING_MAX * ENTRY + TAG)
_Static_assert(QG_RING_WRAP == NONCE + QG_RING_TOP + crypto_aead_xchacha20poly1305_ietf_ABYTES, "size of a wrap");

#define MASTER_BYTES ((size_t)32)
#define CREDENTIAL "credential:"

/* Where the master key's file is, and which mode bits are too many there.
 * systemd gives a service its credentials by an access list, whose mask shows
 * in the group's bits. */
static qg_err
master_key_path(const char *name, char out[PATH_MAX], mode_t *loose)
{
	const char *folder = "", *slash = "";
	*loose = 0177;
	if (strncmp(name, CREDENTIAL, strlen(CREDENTIAL)) == 0) {
		name += strlen(CREDENTIAL);
		if (*name == '\0' || strchr(name, '/') != NULL || strcmp(name, "..") == 0)
			return QG_E_PARSE;
		folder = secure_getenv("CREDENTIALS_DIRECTORY");
		if (folder == NULL)
			return QG_E_IO;
		slash = "/";
		*loose = 0137;
	}
	int n = snprintf(out, PATH_MAX, "%s%s%s", folder, slash, name);
	return n > 0 && n < PATH_MAX ? QG_OK : QG_E_IO;
}

/* Raw bytes or hex digits, which may end with a newline. */
static qg_err
master_key_parse(const uint8_t *text, size_t n, qg_secret *out)
{
	if (n == MASTER_BYTES)
		return qg_secret_append(out, text, n);
	if (n == 2 * MASTER_BYTES + 1 && text[n - 1] == '\n')
		n--;
	if (n != 2 * MASTER_BYTES)
		return QG_E_PARSE;
	out->len = MASTER_BYTES;
	return qg_hex_decode((const char *)text, n, out->data, MASTER_BYTES);
}

qg_err
qg_master_key_load(const char *name, qg_secret **out)
{
	char path[PATH_MAX];
	mode_t loose;
	QG_FD_AUTO fd = -1;
	QG_SECRET_AUTO *text = NULL, *key = NULL;
	qg_err err = master_key_path(name, path, &loose);
	if (err == QG_OK)
		err = qg_keyfile_open_secret(path, loose, &fd);
	if (err == QG_OK)
		err = qg_secret_new(2 * MASTER_BYTES + 2, &text);
	if (err == QG_OK)
		err = qg_secret_new(MASTER_BYTES, &key);
	if (err == QG_OK)
		err = qg_keyfile_read(fd, text->data, text->room, &text->len);
	if (err == QG_OK)
		err = master_key_parse(text->data, text->len, key);
	if (err != QG_OK)
		return err == QG_E_NOTFOUND ? QG_E_IO : err;
	*out = key;
	key = NULL;
	return QG_OK;
}

void
qg_master_key_derive(const qg_secret *master, const char *purpose, uint8_t out[32])
{
	crypto_generichash(out, 32, (const uint8_t *)purpose, strlen(purpose), master->data, master->len);
}

qg_err
qg_seal_make_master_key(const char *path)
{
	uint8_t key[MASTER_BYTES];
	QG_FD_AUTO fd = -1;
	qg_err err = qg_keyfile_create(path, &fd);
	if (err != QG_OK)
		return err;
	qg_random(key, sizeof key);
	err = qg_keyfile_write_at(fd, key, sizeof key, 0);
	qg_wipe(key, sizeof key);
	if (err == QG_OK && fsync(fd) != 0)
		err = QG_E_IO;
	if (err == QG_OK)
		err = qg_keyfile_sync_folder(path);
	if (err != QG_OK)
		(void)unlink(path); /* half a key must not be taken for one */
	return err;
}

qg_err
qg_ring_new(qg_ring **out)
{
	qg_ring *r = calloc(1, sizeof *r);
	if (r == NULL)
		return QG_E_NOMEM;
	qg_err err = qg_secret_new((size_t)QG_RING_MAX * QG_KEK_BYTES, &r->keys);
	if (err == QG_OK)
		err = qg_secret_new(QG_RING_TOP, &r->top);
	if (err != QG_OK) {
		qg_ring_free(&r);
		return err;
	}
	*out = r;
	return QG_OK;
}

void
qg_ring_free(qg_ring **r)
{
	if (r == NULL || *r == NULL)
		return;
	qg_secret_free(&(*r)->keys);
	qg_secret_free(&(*r)->top);
	free(*r);
	*r = NULL;
}

qg_err
qg_ring_copy(const qg_ring *r, qg_ring **out)
{
	qg_ring *copy;
	qg_err err = qg_ring_new(&copy);
	if (err != QG_OK)
		return err;
	err = qg_secret_append(copy->keys, r->keys->data, r->keys->len);
	if (err == QG_OK)
		err = qg_secret_append(copy->top, r->top->data, r->top->len);
	if (err != QG_OK) {
		qg_ring_free(&copy);
		return err;
	}
	copy->n = r->n;
	copy->n_wraps = r->n_wraps;
	memcpy(copy->wrap, r->wrap, sizeof r->wrap);
	memcpy(copy->generation, r->generation, sizeof r->generation);
	memcpy(copy->made_ms, r->made_ms, sizeof r->made_ms);
	*out = copy;
	return QG_OK;
}

static uint8_t *
key_at(const qg_ring *r, size_t i)
{
	return r->keys->data + i * QG_KEK_BYTES;
}

qg_err
qg_ring_add(qg_ring *r, uint32_t generation, int64_t made_ms)
{
	if (r->n == QG_RING_MAX)
		return QG_E_FULL;
	r->generation[r->n] = generation;
	r->made_ms[r->n] = made_ms;
	qg_random(key_at(r, r->n), QG_KEK_BYTES);
	r->n++;
	r->keys->len = r->n * QG_KEK_BYTES;
	return QG_OK;
}

void
qg_ring_drop(qg_ring *r, size_t n)
{
	size_t left = r->n - n;
	memmove(r->generation, r->generation + n, left * sizeof r->generation[0]);
	memmove(r->made_ms, r->made_ms + n, left * sizeof r->made_ms[0]);
	memmove(r->keys->data, key_at(r, n), left * QG_KEK_BYTES);
	qg_wipe(key_at(r, left), n * QG_KEK_BYTES);
	r->n = left;
	r->keys->len = left * QG_KEK_BYTES;
}

const uint8_t *
qg_ring_find(const qg_ring *r, uint32_t generation)
{
	for (size_t i = r->n; i-- > 0;)
		if (r->generation[i] == generation)
			return key_at(r, i);
	return NULL;
}

/* The two keys the file needs, of one derivation each. */
typedef struct file_keys {
	uint8_t wrap[32];
	uint8_t tag[32];
} file_keys;

static void
derive(const uint8_t from[32], const char *purpose, uint8_t out[32])
{
	crypto_generichash(out, 32, (const uint8_t *)purpose, strlen(purpose), from, 32);
}

static void
file_keys_derive(const qg_ring *r, file_keys *k)
{
	derive(r->top->data, "qkdgate key ring wrap v1", k->wrap);
	derive(r->top->data, "qkdgate key ring tag v1", k->tag);
}

/* --- under which master keys ------------------------------------------------------- */

/* Version 1: the master key is the ring's own key and the root. */
static void
top_of_master(qg_ring *r, const qg_secret *master)
{
	memcpy(r->top->data, master->data, MASTER_BYTES);
	memcpy(r->top->data + MASTER_BYTES, master->data, MASTER_BYTES);
	r->top->len = QG_RING_TOP;
}

void
qg_ring_derive(const qg_ring *r, const char *purpose, uint8_t out[32])
{
	derive(r->top->data + MASTER_BYTES, purpose, out);
}

static void
wrap_key(const qg_secret *master, uint8_t out[32])
{
	qg_master_key_derive(master, "qkdgate key ring master v2", out);
}

void
qg_ring_rewrap(qg_ring *r, const qg_secret *const *master, size_t n)
{
	uint8_t key[32];
	qg_random(r->top->data, MASTER_BYTES);
	r->n_wraps = n;
	memset(r->wrap, 0, sizeof r->wrap);
	for (size_t i = 0; i < n; i++) {
		wrap_key(master[i], key);
		qg_random(r->wrap[i], NONCE);
		crypto_aead_xchacha20poly1305_ietf_encrypt(r->wrap[i] + NONCE, NULL, r->top->data, QG_RING_TOP, NULL, 0, NULL,
							   r->wrap[i], key);
	}
	qg_wipe(key, sizeof key);
}

void
qg_ring_keep_wrap(qg_ring *r, size_t wrap)
{
	memmove(r->wrap[0], r->wrap[wrap], QG_RING_WRAP);
	memset(r->wrap[1], 0, QG_RING_WRAP);
	r->n_wraps = 1;
}

static qg_err
open_wraps(qg_reader *in, qg_ring *r, const qg_secret *master, size_t *wrap)
{
	uint8_t key[32];
	const uint8_t n = qg_get_u8(in);
	qg_err err = QG_E_AUTH;
	if (in->bad || n == 0 || n > QG_RING_WRAPS)
		return QG_E_PARSE;
	wrap_key(master, key);
	for (size_t i = 0; i < n; i++) {
		const uint8_t *p = qg_get_bytes(in, QG_RING_WRAP);
		if (in->bad) {
			err = QG_E_PARSE;
			break;
		}
		memcpy(r->wrap[i], p, QG_RING_WRAP);
		if (err == QG_OK || crypto_aead_xchacha20poly1305_ietf_decrypt(r->top->data, NULL, NULL, p + NONCE,
				QG_RING_WRAP - NONCE, NULL, 0, p, key) != 0)
			continue;
		*wrap = i;
		err = QG_OK;
	}
	qg_wipe(key, sizeof key);
	r->n_wraps = n;
	r->top->len = QG_RING_TOP;
	return err;
}

/* --- entries ------------------------------------------------------------------------- */

/* Number and age are bound to the wrapped key as they stand in the file. */
static void
put_entry(qg_writer *w, const qg_ring *r, size_t i, const file_keys *k)
{
	uint8_t nonce[NONCE], wrapped[WRAPPED];
	const uint8_t *ad = w->buf + w->len;
	qg_put_u32(w, r->generation[i]);
	qg_put_u64(w, (uint64_t)r->made_ms[i]);
	qg_random(nonce, sizeof nonce);
	crypto_aead_xchacha20poly1305_ietf_encrypt(
		wrapped, NULL, key_at(r, i), QG_KEK_BYTES, ad, 4 + 8, NULL, nonce, k->wrap);
	qg_put_bytes(w, nonce, sizeof nonce);
	qg_put_bytes(w, wrapped, sizeof wrapped);
}

static qg_err
get_entry(qg_reader *in, qg_ring *r, const file_keys *k)
{
	const uint8_t *ad = in->p;
	size_t i = r->n;
	uint32_t generation = qg_get_u32(in);
	int64_t made_ms = (int64_t)qg_get_u64(in);
	const uint8_t *nonce = qg_get_bytes(in, NONCE);
	const uint8_t *wrapped = qg_get_bytes(in, WRAPPED);
	if (in->bad || generation == 0 || (i > 0 && generation <= r->generation[i - 1]))
		return QG_E_PARSE;
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(
			key_at(r, i), NULL, NULL, wrapped, WRAPPED, ad, 4 + 8, nonce, k->wrap) != 0)
		return QG_E_AUTH;
	r->generation[i] = generation;
	r->made_ms[i] = made_ms;
	r->n = i + 1;
	r->keys->len = r->n * QG_KEK_BYTES;
	return QG_OK;
}

/* What comes before the entries. */
static qg_err
get_head(qg_reader *in, qg_ring *r, const qg_secret *master, size_t *wrap)
{
	const uint32_t magic = qg_get_u32(in);
	const uint8_t version = qg_get_u8(in);
	if (in->bad || magic != MAGIC || (version != VERSION && version != VERSION_WRAPPED))
		return QG_E_PARSE;
	if (version == VERSION_WRAPPED)
		return open_wraps(in, r, master, wrap);
	top_of_master(r, master);
	*wrap = 0;
	return QG_OK;
}

static qg_err
get_entries(qg_reader *in, qg_ring *r, const uint8_t *p, size_t len)
{
	uint8_t tag[TAG];
	file_keys k;
	const uint32_t n = qg_get_u32(in);
	const size_t head = (size_t)(in->p - p);
	if (in->bad || n == 0 || n > QG_RING_MAX || len != head + (size_t)n * ENTRY + TAG)
		return QG_E_PARSE;
	file_keys_derive(r, &k);
	crypto_generichash(tag, TAG, p, len - TAG, k.tag, sizeof k.tag);
	qg_err err = qg_equal_ct(tag, p + len - TAG, TAG) ? QG_OK : QG_E_AUTH;
	for (uint32_t i = 0; i < n && err == QG_OK; i++)
		err = get_entry(in, r, &k);
	qg_wipe(&k, sizeof k);
	return err;
}

qg_err
qg_ring_load(qg_ring *r, const char *path, const qg_secret *master, size_t *wrap)
{
	uint8_t file[FILE_MAX + 1];
	size_t len;
	QG_FD_AUTO fd = -1;
	top_of_master(r, master);
	qg_err err = qg_keyfile_open(path, O_RDONLY, 0177, &fd);
	if (err == QG_OK)
		err = qg_keyfile_read(fd, file, sizeof file, &len);
	if (err != QG_OK)
		return err;
	qg_reader in = qg_reader_of(file, len);
	err = get_head(&in, r, master, wrap);
	return err == QG_OK ? get_entries(&in, r, file, len) : err;
}

qg_err
qg_ring_save(const qg_ring *r, const char *path)
{
	uint8_t file[FILE_MAX], tag[TAG];
	file_keys k;
	qg_writer w = qg_writer_of(file, sizeof file);
	file_keys_derive(r, &k);
	qg_put_u32(&w, MAGIC);
	qg_put_u8(&w, r->n_wraps > 0 ? VERSION_WRAPPED : VERSION);
	if (r->n_wraps > 0)
		qg_put_u8(&w, (uint8_t)r->n_wraps);
	for (size_t i = 0; i < r->n_wraps; i++)
		qg_put_bytes(&w, r->wrap[i], QG_RING_WRAP);
	qg_put_u32(&w, (uint32_t)r->n);
	for (size_t i = 0; i < r->n; i++)
		put_entry(&w, r, i, &k);
	crypto_generichash(tag, TAG, file, w.len, k.tag, sizeof k.tag);
	qg_put_bytes(&w, tag, TAG);
	qg_wipe(&k, sizeof k);
	return qg_keyfile_replace(path, file, w.len);
}
