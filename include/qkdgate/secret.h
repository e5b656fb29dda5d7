/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_SECRET_H
#define QKDGATE_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* The one home of key bytes: locked, guarded memory from pooled slabs, never
 * copied by assignment, never resized, wiped when freed. The struct lives in
 * the same block as its bytes. A secret has one owner at a time; sharing one
 * between threads is the owner's business. */
typedef struct qg_secret {
	uint8_t *data; /* room bytes */
	size_t len;    /* bytes in use, set by the owner */
	size_t room;   /* bytes that may be used */
} qg_secret;

/* Sets up libsodium and the pools. Call once, before any thread. */
qg_err qg_secret_init(void) QG_CHECKED;

/* Gives the pools back to the system, wiped. Every secret must be free. */
void qg_secret_fini(void);

/* A zeroed secret with at least `room` bytes of room, len 0. The caller owns
 * it. Any thread. QG_E_NOMEM. */
qg_err qg_secret_new(size_t room, qg_secret **out) QG_CHECKED;

/* Wipes and frees *s and sets it to NULL; takes NULL and pointers to NULL. */
void qg_secret_free(qg_secret **s);

/* Overwrites every secret of the process, in use or not, as the answer to
 * tampering: whoever still uses one finds zeroes, so nothing may leave the
 * process any more (qg_http_forbid_secrets), which ends at once. Any thread. */
void qg_secret_wipe_all(void);

/* Appends n bytes. QG_E_RANGE when they do not fit; then nothing is written. */
qg_err qg_secret_append(qg_secret *s, const void *bytes, size_t n) QG_CHECKED;

/* Wipes n bytes in a way the compiler keeps. */
void qg_wipe(void *p, size_t n);

/* Wipes what functions that returned left on the stack of this thread: the
 * vectors of ciphers and hashes are kept there, and they are pieces of what was
 * put in. Called after each of those that key goes through. */
void qg_wipe_stack(void);

/* free and realloc for libraries through whose hands key passes: what is given
 * back to the C library, or moved from, is wiped first. p is NULL or of malloc.
 * Any thread. */
void qg_free_wiped(void *p);
/* The same, where no more than the first `most` bytes were ever written to. */
void qg_free_wiped_to(void *p, size_t most);
void *qg_realloc_wiped(void *p, size_t n);

/* Compares n bytes in a time that does not depend on them. */
bool qg_equal_ct(const void *a, const void *b, size_t n) QG_CHECKED;

/* Fills n bytes from the kernel's generator; does not fail. Any thread. */
void qg_random(void *p, size_t n);

#define QG_SECRET_AUTO __attribute__((cleanup(qg_secret_free))) qg_secret

#endif
