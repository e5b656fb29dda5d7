/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KEY_ID_H
#define QKDGATE_KEY_ID_H

#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

/* Key IDs that authorise themselves (docs/key-ids.md, SOUNDNESS 2 and 13): a
 * UUIDv8 of 44 encrypted bits of position, a 30-bit issue tag and a 48-bit
 * pair tag. Both ends of an epoch direction compute the same; nobody else
 * can. */

#define QG_KEY_ID_ROOT_MIN 64 /* bytes of QKD key the root has at least */

/* What the derivation binds besides the root. Strings are exact bytes. */
typedef struct qg_key_id_binding {
	const char *owner;    /* KME ID of the end that issues */
	const char *far_end;  /* KME ID of the other end */
	qg_uuid ksid;
	uint8_t epoch[16];
} qg_key_id_binding;

/* The keys of one direction of one epoch, in a secret of its own. Immutable
 * once made but for the pairs it knows; any thread. */
typedef struct qg_key_id_keys qg_key_id_keys;

/* Derives by keyed BLAKE2b with one context per purpose. root_len at least
 * QG_KEY_ID_ROOT_MIN, else QG_E_RANGE. */
qg_err qg_key_id_keys_new(const uint8_t *root, size_t root_len, const qg_key_id_binding *b,
			  qg_key_id_keys **out) QG_CHECKED;
void qg_key_id_keys_free(qg_key_id_keys **k);

/* The pair's own key, computed once per request: BLAKE2b keyed by the pair
 * purpose's key over the length-prefixed master and slave (decoded, exact
 * bytes). Per ID only SipHash-2-4 is left, which keeps one ID under 0.1 us. */
typedef struct qg_key_id_pair {
	uint8_t key[16];
} qg_key_id_pair;
void qg_key_id_pair_of(const qg_key_id_keys *k, const char *master, const char *slave, qg_key_id_pair *out);

/* The same out of the last 256 pairs or so that were asked for, which are kept in
 * secret memory and die with the keys. Not by two threads at a time. */
void qg_key_id_pair_find(qg_key_id_keys *k, const char *master, const char *slave, qg_key_id_pair *out);

typedef struct qg_key_id_position {
	uint32_t index;      /* of the first chunk in the stream */
	uint16_t size_bytes; /* of the key, 1 to 4095 */
} qg_key_id_position;

/* The ID; the same call always gives the same one. */
void qg_key_id_make(const qg_key_id_keys *k, const qg_key_id_pair *pair, qg_key_id_position pos, qg_uuid *out);

/* Tells whether the ID was issued on this epoch direction: QG_E_NOTFOUND when
 * not (or no version 8 UUID); QG_E_DENIED when it was, but for another pair;
 * *pos is written in these two cases of "was": on QG_OK and on QG_E_DENIED. */
qg_err qg_key_id_open(const qg_key_id_keys *k, const qg_key_id_pair *pair, const qg_uuid *id,
		      qg_key_id_position *pos) QG_CHECKED;

#endif
