/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_SEAL_INTERNAL_H
#define QKDGATE_SEAL_INTERNAL_H

#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"

/* The intermediate keys of seal.c and the file they rest in. File: magic, u8
 * version, [version 2: u8 number of wraps, each 24-byte nonce and 64 + 16 bytes,]
 * u32 count, then per generation u32 number, i64 wall clock of its making in ms,
 * 24-byte nonce, wrapped key (32 + 16); 32-byte tag over all.
 *
 * Keys for wrapping and tag come from the ring's own key. In version 1, before the
 * master key was ever changed, that is the master key. In version 2 it is random,
 * and wrapped (with the root, which other keys are derived from) under the master
 * key: under two of them while one takes the place of the other. */

#define QG_KEK_BYTES 32
#define QG_RING_MAX 256
#define QG_RING_TOP 64
#define QG_RING_WRAPS 2
#define QG_RING_WRAP (24 + QG_RING_TOP + 16)

typedef struct qg_ring {
	size_t n; /* oldest first; the last one seals */
	uint32_t generation[QG_RING_MAX];
	int64_t made_ms[QG_RING_MAX];
	qg_secret *keys; /* n times QG_KEK_BYTES */
	qg_secret *top;  /* the ring's own key, then the root: QG_RING_TOP */
	size_t n_wraps;  /* 0: version 1 */
	uint8_t wrap[QG_RING_WRAPS][QG_RING_WRAP]; /* the older master key's first */
} qg_ring;

/* Reads the master key, see seal.h. QG_E_IO, QG_E_MODE, QG_E_PARSE. */
qg_err qg_master_key_load(const char *name, qg_secret **out) QG_CHECKED;

/* BLAKE2b keyed by the master key over the purpose text. */
void qg_master_key_derive(const qg_secret *master, const char *purpose, uint8_t out[32]);

qg_err qg_ring_new(qg_ring **out) QG_CHECKED;
void qg_ring_free(qg_ring **r);

/* Fills an empty ring, also without a file: then it is one of version 1. *wrap is
 * the one that the master key opened. QG_E_NOTFOUND when there is no file, QG_E_IO,
 * QG_E_MODE, QG_E_PARSE, QG_E_AUTH. */
qg_err qg_ring_load(qg_ring *r, const char *path, const qg_secret *master, size_t *wrap) QG_CHECKED;

/* Puts the file in the place of the old one. QG_E_IO. */
qg_err qg_ring_save(const qg_ring *r, const char *path) QG_CHECKED;

/* Another key of its own, wrapped under these master keys (1 or 2). The root stays. */
void qg_ring_rewrap(qg_ring *r, const qg_secret *const *master, size_t n);
/* Forgets all wraps but that one. */
void qg_ring_keep_wrap(qg_ring *r, size_t wrap);
/* A key derived from the root. */
void qg_ring_derive(const qg_ring *r, const char *purpose, uint8_t out[32]);

/* Appends a fresh key. QG_E_FULL. */
qg_err qg_ring_add(qg_ring *r, uint32_t generation, int64_t made_ms) QG_CHECKED;

/* Wipes and drops the first n. */
void qg_ring_drop(qg_ring *r, size_t n);

/* The key of a generation, NULL when there is none. */
const uint8_t *qg_ring_find(const qg_ring *r, uint32_t generation);

qg_err qg_ring_copy(const qg_ring *r, qg_ring **out) QG_CHECKED;

#endif
