/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_LIFETIME_H
#define QKDGATE_LIFETIME_H

#include <stdbool.h>
#include <stdint.h>

/* The clock of key lifetimes (SOUNDNESS 11): milliseconds that this gateway
 * has lived through, checkpointed with the wall clock so that it runs on over
 * a stop. It never steps back. Two readings: as owner a forward jump of the
 * wall clock while stopped counts at once; as far end a jump beyond a limit
 * does not count (and is alarmed), so that a wrong clock destroys nothing. */

typedef struct qg_lifetime {
	uint64_t base_owner_ms, base_far_ms; /* readings at start */
	uint64_t started_ms;                 /* qg_clock_elapsed_ms at start */
} qg_lifetime;

typedef struct qg_lifetime_checkpoint {
	uint64_t owner_ms, far_ms;
	int64_t wall_ms;
	bool valid;
} qg_lifetime_checkpoint;

/* Continues from the last checkpoint. Returns whether the wall clock made a
 * jump that the far end's reading did not believe. */
bool qg_lifetime_start(qg_lifetime *l, const qg_lifetime_checkpoint *last, uint32_t jump_s);
uint64_t qg_lifetime_owner_ms(const qg_lifetime *l);
uint64_t qg_lifetime_far_ms(const qg_lifetime *l);
void qg_lifetime_now(const qg_lifetime *l, qg_lifetime_checkpoint *out);

#endif
