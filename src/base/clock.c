/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/clock.h"

#include <assert.h>
#include <stddef.h>
#include <time.h>

/* CLOCK_BOOTTIME and not CLOCK_MONOTONIC: a key's lifetime runs on while the
 * machine sleeps (SOUNDNESS 11). */
static uint64_t
system_elapsed_ms(void)
{
	struct timespec t;
	int rc = clock_gettime(CLOCK_BOOTTIME, &t);
	assert(rc == 0);
	(void)rc;
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int64_t
system_wall_ms(void)
{
	struct timespec t;
	int rc = clock_gettime(CLOCK_REALTIME, &t);
	assert(rc == 0);
	(void)rc;
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static const qg_clock_ops system_clock = {
	.elapsed_ms = system_elapsed_ms,
	.wall_ms = system_wall_ms,
};

static const qg_clock_ops *current = &system_clock;

uint64_t
qg_clock_elapsed_ms(void)
{
	return current->elapsed_ms();
}

uint64_t
qg_clock_elapsed_ns(void)
{
	struct timespec t;
	if (current != &system_clock)
		return current->elapsed_ms() * UINT64_C(1000000);
	int rc = clock_gettime(CLOCK_BOOTTIME, &t);
	assert(rc == 0);
	(void)rc;
	return (uint64_t)t.tv_sec * UINT64_C(1000000000) + (uint64_t)t.tv_nsec;
}

int64_t
qg_clock_wall_ms(void)
{
	return current->wall_ms();
}

void
qg_clock_use(const qg_clock_ops *ops)
{
	current = ops != NULL ? ops : &system_clock;
}
