/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_SEAL_INTERNAL_H
#define QKDGATE_SEAL_INTERNAL_H

#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"

/* The intermediate keys of seal.c and the file they rest in. File: magic, u8
 * version, u32 count, then per generation u32 number, i64 wall clock of its
 * making in ms, 24-byte nonce, wrapped key (32 + 16); 32-byte tag over all. */

#define QG_KEK_BYTES 32
#define QG_RING_MAX 256

typedef struct qg_ring {
	size_t n; /* oldest first; the last one seals */
	uint32_t generation[QG_RING_MAX];
	int64_t made_ms[QG_RING_MAX];
	qg_secret *keys; /* n times QG_KEK_BYTES */
} qg_ring;

/* Reads the master key, see seal.h. QG_E_IO, QG_E_MODE, QG_E_PARSE. */
qg_err qg_master_key_load(const char *name, qg_secret **out) QG_CHECKED;

/* BLAKE2b keyed by the master key over the purpose text. */
void qg_master_key_derive(const qg_secret *master, const char *purpose, uint8_t out[32]);

qg_err qg_ring_new(qg_ring **out) QG_CHECKED;
void qg_ring_free(qg_ring **r);

/* Fills an empty ring. QG_E_NOTFOUND when there is no file, QG_E_IO,
 * QG_E_MODE, QG_E_PARSE, QG_E_AUTH. */
qg_err qg_ring_load(qg_ring *r, const char *path, const qg_secret *master) QG_CHECKED;

/* Puts the file in the place of the old one. QG_E_IO. */
qg_err qg_ring_save(const qg_ring *r, const char *path, const qg_secret *master) QG_CHECKED;

/* Appends a fresh key. QG_E_FULL. */
qg_err qg_ring_add(qg_ring *r, uint32_t generation, int64_t made_ms) QG_CHECKED;

/* Wipes and drops the first n. */
void qg_ring_drop(qg_ring *r, size_t n);

/* The key of a generation, NULL when there is none. */
const uint8_t *qg_ring_find(const qg_ring *r, uint32_t generation);

qg_err qg_ring_copy(const qg_ring *r, qg_ring **out) QG_CHECKED;

#endif
