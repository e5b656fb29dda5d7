/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ANCHOR_H
#define QKDGATE_ANCHOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/uuid.h"

/* The anchor: a small file outside the database that remembers how far key
 * was given out, so that a database put back from a backup is noticed
 * (SOUNDNESS 9). Written to two slots in turn, each with a sequence number and
 * a keyed BLAKE2b tag, synced before a write returns. */

#define QG_ANCHOR_EPOCHS 1024

typedef struct qg_anchor_entry {
	uint8_t epoch[16]; /* epoch ID */
	uint64_t mark;     /* chunks below it may have been issued */
} qg_anchor_entry;

typedef struct qg_anchor_state {
	uint64_t commits;  /* inbound commit counter */
	size_t n;
	qg_anchor_entry entry[QG_ANCHOR_EPOCHS];
} qg_anchor_state;

typedef struct qg_anchor qg_anchor;

/* Opens or makes the file (0600); *found tells whether it held a valid slot.
 * state is filled when found. QG_E_IO, QG_E_MODE, QG_E_CORRUPT when there are
 * bytes but no valid slot. */
qg_err qg_anchor_open(const char *path, const uint8_t key[32], bool *found, qg_anchor_state *state,
	qg_anchor **out) QG_CHECKED;

/* Makes `state` durable. One writer. QG_E_IO. */
qg_err qg_anchor_write(qg_anchor *a, const qg_anchor_state *state) QG_CHECKED;

void qg_anchor_close(qg_anchor **a);

#endif
