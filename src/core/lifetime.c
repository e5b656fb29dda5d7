/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/lifetime.h"

#include "qkdgate/clock.h"

/* A damaged checkpoint must not wrap the clock round to the past. */
static uint64_t
add_capped(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

/* How far the wall clock moved on while stopped; a backward step is none. */
static uint64_t
stopped_ms(int64_t then_ms, int64_t now_ms)
{
	return now_ms > then_ms ? (uint64_t)now_ms - (uint64_t)then_ms : 0;
}

bool
qg_lifetime_start(qg_lifetime *l, const qg_lifetime_checkpoint *last, uint32_t jump_s)
{
	*l = (qg_lifetime){.started_ms = qg_clock_elapsed_ms()};
	if (!last->valid)
		return false;
	uint64_t gap_ms = stopped_ms(last->wall_ms, qg_clock_wall_ms());
	bool believed = gap_ms <= (uint64_t)jump_s * 1000;
	l->base_owner_ms = add_capped(last->owner_ms, gap_ms);
	l->base_far_ms = believed ? add_capped(last->far_ms, gap_ms) : last->far_ms;
	return !believed;
}

uint64_t
qg_lifetime_owner_ms(const qg_lifetime *l)
{
	return add_capped(l->base_owner_ms, qg_clock_elapsed_ms() - l->started_ms);
}

uint64_t
qg_lifetime_far_ms(const qg_lifetime *l)
{
	return add_capped(l->base_far_ms, qg_clock_elapsed_ms() - l->started_ms);
}

/* One reading of the monotonic clock serves both, so that they do not drift
 * apart from checkpoint to checkpoint. */
void
qg_lifetime_now(const qg_lifetime *l, qg_lifetime_checkpoint *out)
{
	uint64_t run_ms = qg_clock_elapsed_ms() - l->started_ms;
	*out = (qg_lifetime_checkpoint){
		.owner_ms = add_capped(l->base_owner_ms, run_ms),
		.far_ms = add_capped(l->base_far_ms, run_ms),
		.wall_ms = qg_clock_wall_ms(),
		.valid = true,
	};
}
