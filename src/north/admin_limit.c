/* SPDX-License-Identifier: Apache-2.0 */
/* How often somebody may try: buckets that fill up with time, a bounded number of them. */
#include <math.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/secret.h"

/* In all, whoever asks: what trying costs the node. */
#define ALL_MOST 10.0
#define ALL_STEP_S 1.0

#define ALMOST 1e-6 /* what sums of fractions lose */

static double
level_of(const qg_admin_bucket *b, double most, double step_s, uint64_t now_ms)
{
	const double level = b->level + (double)(now_ms - b->at_ms) / 1000.0 / step_s;
	return level < most ? level : most;
}

static void
set(qg_admin_bucket *b, double level, uint64_t now_ms)
{
	b->level = level;
	b->at_ms = now_ms;
}

void
qg_admin_limit_init(qg_admin_limit *l, unsigned most, unsigned step_s, uint64_t now_ms)
{
	*l = (qg_admin_limit){0};
	l->most = most;
	l->step_s = step_s;
	set(&l->all, ALL_MOST, now_ms);
}

/* The bucket of that name. A new one takes the place of the one that is fullest, so that
 * who fills the table with names frees nobody who waits. */
static qg_admin_bucket *
bucket_of(qg_admin_limit *l, const uint8_t key[QG_ADMIN_LIMIT_KEY], uint64_t now_ms)
{
	qg_admin_bucket *fullest = &l->of[0];
	for (size_t i = 0; i < QG_ADMIN_LIMITS; i++) {
		qg_admin_bucket *const b = &l->of[i];
		if (b->used && memcmp(b->key, key, QG_ADMIN_LIMIT_KEY) == 0)
			return b;
		if (fullest->used && (!b->used || level_of(b, l->most, l->step_s, now_ms) >
							  level_of(fullest, l->most, l->step_s, now_ms)))
			fullest = b;
	}
	*fullest = (qg_admin_bucket){.used = true};
	memcpy(fullest->key, key, QG_ADMIN_LIMIT_KEY);
	set(fullest, l->most, now_ms);
	return fullest;
}

static unsigned
wait_s(double level, double step_s)
{
	return level >= 1.0 - ALMOST ? 0 : (unsigned)ceil((1.0 - level) * step_s - ALMOST);
}

/* Each is looked up anew: that of one name may make room for another's. */
unsigned
qg_admin_limit_take(qg_admin_limit *l, const uint8_t keys[][QG_ADMIN_LIMIT_KEY], size_t n, uint64_t now_ms)
{
	unsigned wait = wait_s(level_of(&l->all, ALL_MOST, ALL_STEP_S, now_ms), ALL_STEP_S);
	for (size_t i = 0; i < n; i++) {
		const qg_admin_bucket *const b = bucket_of(l, keys[i], now_ms);
		const unsigned longer = wait_s(level_of(b, l->most, l->step_s, now_ms), l->step_s);
		wait = longer > wait ? longer : wait;
	}
	if (wait > 0)
		return wait;
	set(&l->all, level_of(&l->all, ALL_MOST, ALL_STEP_S, now_ms) - 1.0, now_ms);
	for (size_t i = 0; i < n; i++) {
		qg_admin_bucket *const b = bucket_of(l, keys[i], now_ms);
		set(b, level_of(b, l->most, l->step_s, now_ms) - 1.0, now_ms);
	}
	return 0;
}

void
qg_admin_limit_give_back(qg_admin_limit *l, const uint8_t keys[][QG_ADMIN_LIMIT_KEY], size_t n, uint64_t now_ms)
{
	const double all = level_of(&l->all, ALL_MOST, ALL_STEP_S, now_ms) + 1.0;
	set(&l->all, all < ALL_MOST ? all : ALL_MOST, now_ms);
	for (size_t i = 0; i < n; i++) {
		qg_admin_bucket *const b = bucket_of(l, keys[i], now_ms);
		const double level = level_of(b, l->most, l->step_s, now_ms) + 1.0;
		set(b, level < l->most ? level : l->most, now_ms);
	}
}
