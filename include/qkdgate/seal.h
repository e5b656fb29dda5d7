/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_SEAL_H
#define QKDGATE_SEAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"

/* Key material at rest. A sealed blob is XChaCha20-Poly1305 under a data key
 * of its own, which is wrapped by an intermediate key; intermediate keys rest
 * in a key-ring file outside the database, each wrapped by the master key, and
 * are rotated: with the last blob of a generation the generation is destroyed
 * (SOUNDNESS 12). Blob: u8 version, u32 generation, 24-byte nonce, wrapped data
 * key (32 + 16), 24-byte nonce, ciphertext, 16-byte tag. All functions may be
 * called from any thread. */

typedef struct qg_sealer qg_sealer;

#define QG_SEAL_OVERHEAD (1 + 4 + 24 + 48 + 24 + 16)

typedef struct qg_seal_options {
	const char *master_key; /* file: 32 bytes raw or 64 hex digits; mode 0600
				   or 0400. "credential:NAME" takes the systemd
				   credential NAME from $CREDENTIALS_DIRECTORY */
	const char *key_ring;   /* file, made when absent */
	unsigned rotate_s;      /* a new generation after this many seconds */
} qg_seal_options;

/* QG_E_IO, QG_E_MODE, QG_E_PARSE, QG_E_AUTH (master key does not fit the ring). */
qg_err qg_sealer_open(const qg_seal_options *o, qg_sealer **out) QG_CHECKED;
void qg_sealer_close(qg_sealer **s);

/* Makes a new master key file, mode 0600, exclusively. QG_E_EXISTS, QG_E_IO. */
qg_err qg_seal_make_master_key(const char *path) QG_CHECKED;

/* Seals n bytes bound to ad, under a fresh data key and fresh nonces; out has
 * n + QG_SEAL_OVERHEAD bytes of room. */
qg_err qg_sealer_seal(qg_sealer *s, const void *ad, size_t ad_len, const void *plain, size_t n, uint8_t *out)
	QG_CHECKED;

/* Opens a blob of len bytes into a new secret. QG_E_AUTH, QG_E_NOTFOUND when
 * its generation is destroyed, QG_E_NOMEM. */
qg_err qg_sealer_unseal(
	qg_sealer *s, const void *ad, size_t ad_len, const uint8_t *blob, size_t len, qg_secret **out) QG_CHECKED;

/* The generation a blob is sealed under, and the one in use now: blobs of an
 * older one are sealed again by the housekeeping. */
uint32_t qg_seal_generation(const uint8_t *blob, size_t len);
uint32_t qg_sealer_generation(const qg_sealer *s);

/* Begins a new generation when the present one is old enough. QG_E_IO,
 * QG_E_FULL when 256 generations are in use. */
qg_err qg_sealer_rotate(qg_sealer *s) QG_CHECKED;

/* Destroys all generations below the one given, but never the one in use.
 * QG_E_IO. */
qg_err qg_sealer_destroy_below(qg_sealer *s, uint32_t generation) QG_CHECKED;

/* --- another master key ------------------------------------------------------- */

/* Takes another master key while all goes on. The ring is wrapped under both, then
 * the new one takes the place of the old, then the ring is wrapped under it alone;
 * the next qg_sealer_rotate begins a new generation, so that data keys come under
 * intermediate keys that the old one never wrapped.
 *
 * from NULL: the key is drawn, and the file options.master_key replaced, which must be
 * a file of its own. However this ends, what that file holds opens the ring.
 * from a file or "credential:NAME": the key is read there, and the ring stays wrapped
 * under both (*pending) until a qg_sealer_open finds the new one as master_key.
 *
 * QG_E_UNSUPPORTED: from NULL, and master_key is a credential; QG_E_EXISTS: it is the
 * key in use; QG_E_MODE, QG_E_PARSE, QG_E_NOTFOUND: of `from`; QG_E_IO: a file cannot be
 * read or written, all stays as it was. */
qg_err qg_sealer_change_master(qg_sealer *s, const char *from, bool *pending) QG_CHECKED;

/* Whether the ring opens with two master keys. */
bool qg_sealer_master_pending(const qg_sealer *s);

/* A 32-byte key derived for one purpose (the audit chain, the anchor): BLAKE2b keyed
 * by the root over the purpose text. The root is the first master key that the ring
 * had; it stays with another one, and rests in the ring then. */
void qg_sealer_derive(const qg_sealer *s, const char *purpose, uint8_t out[32]);

/* The same without a sealer: only reads the files, and makes none. key_ring may be
 * NULL while the master key was never rotated. Errors as of qg_sealer_open. */
qg_err qg_seal_derive(const qg_seal_options *o, const char *purpose, uint8_t out[32]) QG_CHECKED;

#endif
