/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CLOCK_H
#define QKDGATE_CLOCK_H

#include <stdint.h>

/* All time comes from here, so that a test can put in a clock of its own.
 * Any thread. */

typedef struct qg_clock_ops {
	uint64_t (*elapsed_ms)(void); /* never steps back, runs on in suspend */
	int64_t (*wall_ms)(void);     /* Unix time, may step */
} qg_clock_ops;

/* Milliseconds since some fixed point of this boot. */
uint64_t qg_clock_elapsed_ms(void);

/* The same in nanoseconds, as finely as the clock goes. */
uint64_t qg_clock_elapsed_ns(void);

/* Milliseconds since 1970-01-01T00:00Z. */
int64_t qg_clock_wall_ms(void);

/* Puts in another clock, or the system's again with NULL. Tests only, before
 * any thread is started. */
void qg_clock_use(const qg_clock_ops *ops);

#endif
