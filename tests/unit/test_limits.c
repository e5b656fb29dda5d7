/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "qkdgate/limits.h"
#include "qkdgate/secret.h"
#include "seed.h"

#define NAMES_MAX 65536

static int
init(void **state)
{
	(void)state;
	return qg_secret_init() == QG_OK ? 0 : -1;
}

static void
bucket_gives_the_burst_and_then_the_rate(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_limits_new(10, 30, &l), QG_OK);
	for (int i = 0; i < 30; i++)
		assert_int_equal(qg_limits_take(l, "alice", 1, 1000, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "alice", 1, 1000, &wait_s), QG_E_LIMIT);
	assert_int_equal(wait_s, 1);
	assert_int_equal(qg_limits_take(l, "alice", 1, 1099, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "alice", 1, 1100, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "alice", 1, 1100, &wait_s), QG_E_LIMIT);
	/* Another name has a bucket of its own. */
	assert_int_equal(qg_limits_take(l, "bob", 30, 1100, &wait_s), QG_OK);
	qg_limits_free(&l);
	assert_null(l);
	qg_limits_free(&l);
}

static void
bucket_takes_all_or_none(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_limits_new(10, 20, &l), QG_OK);
	assert_int_equal(qg_limits_take(l, "a", 15, 0, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "a", 6, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "a", 20, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(wait_s, 2); /* 15 tokens at 10/s */
	assert_int_equal(qg_limits_take(l, "a", 5, 0, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "a", 0, 0, &wait_s), QG_OK);
	qg_limits_free(&l);
}

static void
more_than_a_bucket_never_passes(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_limits_new(10, 20, &l), QG_OK);
	assert_int_equal(qg_limits_take(l, "a", 21, 0, &wait_s), QG_E_LIMIT);
	assert_true(wait_s >= 1);
	assert_int_equal(qg_limits_take(l, "a", UINT32_MAX, UINT64_MAX, &wait_s), QG_E_LIMIT);
	assert_true(wait_s >= 1);
	assert_int_equal(qg_limits_take(l, "a", 20, UINT64_MAX, &wait_s), QG_OK);
	qg_limits_free(&l);
}

static void
bucket_is_capped_and_time_never_steps_back(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_limits_new(UINT32_MAX, 0, &l), QG_OK); /* burst is raised to the rate */
	assert_int_equal(qg_limits_take(l, "a", UINT32_MAX, 5000, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "a", 1, 4000, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "a", UINT32_MAX, UINT64_MAX, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "a", 1, UINT64_MAX, &wait_s), QG_E_LIMIT);
	qg_limits_free(&l);
}

static void
no_rate_passes_everything(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_limits_new(0, 0, &l), QG_OK);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(qg_limits_take(l, "a", UINT32_MAX, 0, &wait_s), QG_OK);
	qg_limits_free(&l);
}

static void
name_of(char out[24], int i)
{
	assert_true(snprintf(out, 24, "sae-%d", i) < 24);
}

static void
oldest_idle_name_is_replaced(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	char name[24];
	assert_int_equal(qg_limits_new(1, 1, &l), QG_OK);
	for (int i = 0; i < NAMES_MAX; i++) {
		name_of(name, i);
		assert_int_equal(qg_limits_take(l, name, 1, 0, &wait_s), QG_OK);
	}
	/* The table is full and every bucket in it empty. */
	assert_int_equal(qg_limits_take(l, "sae-0", 1, 0, &wait_s), QG_E_LIMIT); /* in use again */
	assert_int_equal(qg_limits_take(l, "one-more", 1, 0, &wait_s), QG_OK);   /* takes sae-1's place */
	assert_int_equal(qg_limits_take(l, "sae-0", 1, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "sae-2", 1, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "one-more", 1, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "sae-1", 1, 0, &wait_s), QG_OK);
	qg_limits_free(&l);
}

static double
seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A flood of new names costs the same each, also when every one evicts. */
static void
flood_of_names_stays_cheap(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	char name[24];
	assert_int_equal(qg_limits_new(1, 1, &l), QG_OK);
	double t0 = seconds();
	for (int i = 0; i < 8 * NAMES_MAX; i++) {
		name_of(name, i);
		assert_int_equal(qg_limits_take(l, name, 1, 0, &wait_s), QG_OK);
	}
	double each_us = (seconds() - t0) * 1e6 / (8 * NAMES_MAX);
	print_message("one take with a new name: %.2f us\n", each_us);
	assert_true(each_us < 100);
	qg_limits_free(&l);
}

/* Another window of the same names, begun on another clock, goes on with the amounts. */
static void
window_goes_on(void **state)
{
	(void)state;
	static const uint8_t key[QG_WINDOW_KEY] = {7};
	static const uint32_t lengths_s[] = {32, 320}; /* the second: longer slots from now on */
	qg_window_amounts a[4];
	uint32_t wait_s = 0;
	for (size_t i = 0; i < 2; i++) {
		qg_window *w, *next;
		assert_int_equal(qg_window_new(32, 100, &w), QG_OK);
		assert_int_equal(qg_window_new(lengths_s[i], 100, &next), QG_OK);
		qg_window_use_key(w, key);
		qg_window_use_key(next, key);
		assert_int_equal(qg_window_add(w, "a>b", 60, 100500, &wait_s), QG_OK);
		assert_int_equal(qg_window_add(w, "a>b", 40, 110500, &wait_s), QG_OK);
		assert_int_equal(qg_window_add(w, "c>d", 5, 110500, &wait_s), QG_OK);
		assert_int_equal(qg_window_changed(w, 111500, a, 1), 1);
		assert_int_equal(qg_window_changed(w, 111500, a + 1, 3), 1);
		assert_int_equal(qg_window_changed(w, 111500, a + 2, 2), 0);
		qg_window_again(w, a, 2);
		assert_int_equal(qg_window_changed(w, 111500, a, 4), 2);
		for (size_t k = 0; k < 2; k++)
			qg_window_put(next, &a[k], 300); /* the machine began anew */
		assert_int_equal(qg_window_sum(next, "a>b", 300), 100);
		assert_int_equal(qg_window_sum(next, "c>d", 300), 5);
		assert_int_equal(qg_window_sum(next, "b>a", 300), 0);
		assert_int_equal(qg_window_add(next, "a>b", 1, 300, &wait_s), QG_E_LIMIT);
		/* 10 s, or the whole of the time, before the others; at most two slots late */
		const uint64_t slot_ms = lengths_s[i] * 1000 / 32, window_ms = lengths_s[i] * 1000;
		assert_int_equal(qg_window_sum(next, "a>b", 300 + window_ms - 11500), 100);
		assert_int_equal(qg_window_sum(next, "a>b", 300 + window_ms + 2 * slot_ms), 0);
		qg_window_free(&w);
		qg_window_free(&next);
	}
}

/* What is older than the window is left out; so is all under another key. */
static void
window_forgets_what_is_old(void **state)
{
	(void)state;
	static const uint8_t key[QG_WINDOW_KEY] = {7};
	qg_window *w, *other;
	qg_window_amounts a = {.slot_ms = 1000, .n = {1, 2, 3}};
	uint32_t wait_s = 0;
	assert_int_equal(qg_window_new(32, 100, &w), QG_OK);
	assert_int_equal(qg_window_new(32, 100, &other), QG_OK);
	qg_window_use_key(w, key);
	assert_int_equal(qg_window_add(w, "x", 9, 5000, &wait_s), QG_OK);
	assert_int_equal(qg_window_changed(w, 5000, &a, 1), 1);
	a.n[1] = 70; /* a second before */
	a.began_ms_ago = 33 * 1000 + 999;
	qg_window_put(other, &a, 1000);
	assert_int_equal(qg_window_sum(other, "x", 1000), 0);
	qg_window_put(w, &a, 60000);
	assert_int_equal(qg_window_sum(w, "x", 60000), 9); /* the newer slot at its last moment */
	a.began_ms_ago = UINT64_MAX / 2;
	a.n[0] = UINT64_MAX;
	qg_window_put(w, &a, 60000);
	assert_int_equal(qg_window_sum(w, "x", 60000), 9);
	a.began_ms_ago = 0;
	qg_window_put(w, &a, 60000); /* more than fits: no wrap to little */
	assert_true(qg_window_sum(w, "x", 60000) == UINT64_MAX);
	assert_int_equal(qg_window_add(w, "x", 1, 60000, &wait_s), QG_E_LIMIT);
	qg_window_free(&w);
	qg_window_free(&other);
}

static void
window_holds_the_limit(void **state)
{
	(void)state;
	qg_window *w;
	uint32_t wait_s = 0;
	assert_int_equal(qg_window_new(32, 100, &w), QG_OK); /* slots of one second */
	assert_int_equal(qg_window_add(w, "a>b", 60, 0, &wait_s), QG_OK);
	assert_int_equal(qg_window_add(w, "a>b", 40, 10000, &wait_s), QG_OK);
	assert_int_equal(qg_window_sum(w, "a>b", 10000), 100);
	assert_int_equal(qg_window_add(w, "a>b", 1, 10000, &wait_s), QG_E_LIMIT);
	assert_int_equal(wait_s, 23); /* the first slot is forgotten at 33 s */
	assert_int_equal(qg_window_add(w, "a>b", 61, 10000, &wait_s), QG_E_LIMIT);
	assert_int_equal(wait_s, 33); /* the second at 43 s */
	assert_int_equal(qg_window_sum(w, "a>b", 10000), 100);
	assert_int_equal(qg_window_add(w, "a>b", 1, 32999, &wait_s), QG_E_LIMIT);
	assert_int_equal(wait_s, 1);
	assert_int_equal(qg_window_add(w, "a>b", 60, 33000, &wait_s), QG_OK);
	assert_int_equal(qg_window_sum(w, "a>b", 33000), 100);
	assert_int_equal(qg_window_sum(w, "a>b", 43000), 60);
	assert_int_equal(qg_window_sum(w, "a>b", 200000), 0);
	assert_int_equal(qg_window_sum(w, "b>a", 0), 0);
	qg_window_free(&w);
	assert_null(w);
	qg_window_free(&w);
}

static void
window_takes_hostile_amounts(void **state)
{
	(void)state;
	qg_window *w;
	uint32_t wait_s = 0;
	assert_int_equal(qg_window_new(60, 100, &w), QG_OK);
	assert_int_equal(qg_window_add(w, "x", 101, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(wait_s, 60);
	assert_int_equal(qg_window_add(w, "x", UINT64_MAX, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_window_sum(w, "x", 0), 0);
	assert_int_equal(qg_window_add(w, "x", 100, 0, &wait_s), QG_OK);
	assert_int_equal(qg_window_add(w, "x", UINT64_MAX, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_window_add(w, "x", 0, 0, &wait_s), QG_OK);
	/* An older reading adds to the newest slot and forgets nothing. */
	assert_int_equal(qg_window_add(w, "y", 50, 600000, &wait_s), QG_OK);
	assert_int_equal(qg_window_add(w, "y", 50, 1, &wait_s), QG_OK);
	assert_int_equal(qg_window_add(w, "y", 1, 1, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_window_sum(w, "y", UINT64_MAX), 0);
	qg_window_free(&w);
	assert_int_equal(qg_window_new(0, 1, &w), QG_E_INVAL);
}

static void
window_without_limit_only_counts(void **state)
{
	(void)state;
	qg_window *w;
	uint32_t wait_s = 0;
	assert_int_equal(qg_window_new(1, 0, &w), QG_OK);
	assert_int_equal(qg_window_add(w, "x", UINT64_MAX, 0, &wait_s), QG_OK);
	assert_int_equal(qg_window_add(w, "x", 5, 0, &wait_s), QG_OK);
	assert_true(qg_window_sum(w, "x", 0) == UINT64_MAX);
	assert_int_equal(qg_window_sum(w, "x", 5000), 0);
	qg_window_free(&w);
}

/* Against a list of every amount added: never more than the limit in any true
 * window, and what the window refuses would have been over it with one slot
 * more. */
static void
window_agrees_with_a_list(void **state)
{
	(void)state;
	enum { N = 4000, MOST = 500, WINDOW_S = 16, SLOT_MS = 500 };
	static struct { uint64_t at_ms, n; } added[N];
	srandom(test_seed());
	qg_window *w;
	uint32_t wait_s;
	size_t have = 0;
	uint64_t now_ms = 0;
	assert_int_equal(qg_window_new(WINDOW_S, MOST, &w), QG_OK);
	for (int i = 0; i < N; i++) {
		now_ms += (uint64_t)(random() % (random() % 50 == 0 ? 20000 : 300));
		uint64_t n = (uint64_t)(random() % 40), strict = 0, loose = 0;
		for (size_t k = 0; k < have; k++) {
			uint64_t age_ms = now_ms - added[k].at_ms;
			strict += age_ms < WINDOW_S * 1000 ? added[k].n : 0;
			loose += age_ms < WINDOW_S * 1000 + SLOT_MS ? added[k].n : 0;
		}
		if (qg_window_add(w, "p", n, now_ms, &wait_s) == QG_OK) {
			assert_true(strict + n <= MOST);
			added[have].at_ms = now_ms;
			added[have++].n = n;
		} else {
			assert_true(loose + n > MOST);
			assert_true(qg_window_sum(w, "p", now_ms) + n > MOST);
		}
	}
	qg_window_free(&w);
}

static void
wait_that_was_told_suffices(void **state)
{
	(void)state;
	qg_window *w;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_window_new(7, 10, &w), QG_OK);
	assert_int_equal(qg_limits_new(3, 10, &l), QG_OK);
	for (uint64_t now_ms = 0; now_ms < 100000; now_ms += 137) {
		if (qg_window_add(w, "p", 3, now_ms, &wait_s) == QG_E_LIMIT) {
			now_ms += (uint64_t)wait_s * 1000;
			assert_int_equal(qg_window_add(w, "p", 3, now_ms, &wait_s), QG_OK);
		}
		if (qg_limits_take(l, "p", 7, now_ms, &wait_s) == QG_E_LIMIT) {
			now_ms += (uint64_t)wait_s * 1000;
			assert_int_equal(qg_limits_take(l, "p", 7, now_ms, &wait_s), QG_OK);
		}
	}
	qg_window_free(&w);
	qg_limits_free(&l);
}

typedef struct shared {
	qg_limits *l;
	qg_window *w;
	int taken, added;
} shared;

static void *
take_many(void *arg)
{
	shared *s = arg;
	uint32_t wait_s;
	for (int i = 0; i < 2000; i++) {
		s->taken += qg_limits_take(s->l, "p", 1, 0, &wait_s) == QG_OK;
		s->added += qg_window_add(s->w, "p", 1, 0, &wait_s) == QG_OK;
	}
	return NULL;
}

static void
threads_together_get_no_more_than_one(void **state)
{
	(void)state;
	qg_limits *l;
	qg_window *w;
	assert_int_equal(qg_limits_new(1, 1000, &l), QG_OK);
	assert_int_equal(qg_window_new(10, 1500, &w), QG_OK);
	shared s[4];
	pthread_t t[4];
	for (int i = 0; i < 4; i++) {
		s[i] = (shared){.l = l, .w = w};
		assert_int_equal(pthread_create(&t[i], NULL, take_many, &s[i]), 0);
	}
	int taken = 0, added = 0;
	for (int i = 0; i < 4; i++) {
		pthread_join(t[i], NULL);
		taken += s[i].taken;
		added += s[i].added;
	}
	assert_int_equal(taken, 1000);
	assert_int_equal(added, 1500);
	qg_limits_free(&l);
	qg_window_free(&w);
}

/* A rate that a reload brings: none before, none after, and less than is there. */
static void
another_rate_counts_at_once(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_limits_new(0, 0, &l), QG_OK);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(qg_limits_take(l, "alice", 100, 0, &wait_s), QG_OK);
	qg_limits_set(l, 10, 20);
	assert_int_equal(qg_limits_take(l, "alice", 20, 0, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "alice", 1, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "bob", 1, 0, &wait_s), QG_OK);
	qg_limits_set(l, 1, 5); /* bob's 19 tokens become 5 */
	assert_int_equal(qg_limits_take(l, "bob", 6, 0, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "bob", 5, 0, &wait_s), QG_OK);
	qg_limits_set(l, 0, 0);
	assert_int_equal(qg_limits_take(l, "bob", 1000, 0, &wait_s), QG_OK);
	qg_limits_free(&l);
}

/* What a stop keeps and the next start puts back is never more than the burst. */
static void
levels_go_over_a_restart(void **state)
{
	(void)state;
	qg_limits *l, *next;
	uint32_t wait_s = 0;
	uint64_t milli = 0;
	assert_int_equal(qg_limits_new(10, 30, &l), QG_OK);
	assert_false(qg_limits_level(l, "alice", 1000, &milli)); /* all */
	assert_int_equal(qg_limits_take(l, "alice", 25, 1000, &wait_s), QG_OK);
	assert_true(qg_limits_level(l, "alice", 1100, &milli));
	assert_int_equal(milli, 6000);
	qg_limits_free(&l);

	/* The clock of elapsed time may have begun anew. */
	for (unsigned away_s = 0; away_s < 10; away_s++) {
		const uint32_t there = 6 + 10 * away_s < 30 ? 6 + 10 * away_s : 30;
		assert_int_equal(qg_limits_new(10, 30, &next), QG_OK);
		qg_limits_put(next, "alice", milli, 1000 * away_s, 7);
		assert_int_equal(qg_limits_take(next, "alice", there + 1, 7, &wait_s), QG_E_LIMIT);
		assert_int_equal(qg_limits_take(next, "alice", there, 7, &wait_s), QG_OK);
		assert_int_equal(qg_limits_take(next, "alice", 1, 106, &wait_s), QG_E_LIMIT);
		assert_int_equal(qg_limits_take(next, "alice", 1, 107, &wait_s), QG_OK);
		assert_int_equal(qg_limits_take(next, "bob", 30, 7, &wait_s), QG_OK);
		qg_limits_free(&next);
	}

	/* A smaller burst by now, a time away that no clock tells, more than there ever was. */
	assert_int_equal(qg_limits_new(1, 5, &next), QG_OK);
	qg_limits_put(next, "alice", UINT64_MAX, UINT64_MAX, 7);
	assert_int_equal(qg_limits_take(next, "alice", 6, 7, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(next, "alice", 5, 7, &wait_s), QG_OK);
	qg_limits_free(&next);
	assert_int_equal(qg_limits_new(0, 0, &next), QG_OK);
	qg_limits_put(next, "alice", 1, 0, 7);
	assert_false(qg_limits_level(next, "alice", 7, &milli));
	assert_int_equal(qg_limits_take(next, "alice", 1000, 7, &wait_s), QG_OK);
	qg_limits_free(&next);
}

static void
after_a_crash_buckets_begin_empty(void **state)
{
	(void)state;
	qg_limits *l;
	uint32_t wait_s = 0;
	assert_int_equal(qg_limits_new(10, 30, &l), QG_OK);
	qg_limits_begin_empty(l, 1000);
	assert_int_equal(qg_limits_take(l, "alice", 1, 1000, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "alice", 2, 1200, &wait_s), QG_OK);
	/* Who comes later finds what came since. */
	assert_int_equal(qg_limits_take(l, "bob", 21, 3000, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "bob", 20, 3000, &wait_s), QG_OK);
	assert_int_equal(qg_limits_take(l, "carol", 31, 100000, &wait_s), QG_E_LIMIT);
	assert_int_equal(qg_limits_take(l, "carol", 30, 100000, &wait_s), QG_OK);
	qg_limits_free(&l);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bucket_gives_the_burst_and_then_the_rate),
		cmocka_unit_test(bucket_takes_all_or_none),
		cmocka_unit_test(more_than_a_bucket_never_passes),
		cmocka_unit_test(bucket_is_capped_and_time_never_steps_back),
		cmocka_unit_test(no_rate_passes_everything),
		cmocka_unit_test(another_rate_counts_at_once),
		cmocka_unit_test(levels_go_over_a_restart),
		cmocka_unit_test(after_a_crash_buckets_begin_empty),
		cmocka_unit_test(oldest_idle_name_is_replaced),
		cmocka_unit_test(flood_of_names_stays_cheap),
		cmocka_unit_test(window_goes_on),
		cmocka_unit_test(window_forgets_what_is_old),
		cmocka_unit_test(window_holds_the_limit),
		cmocka_unit_test(window_takes_hostile_amounts),
		cmocka_unit_test(window_without_limit_only_counts),
		cmocka_unit_test(window_agrees_with_a_list),
		cmocka_unit_test(wait_that_was_told_suffices),
		cmocka_unit_test(threads_together_get_no_more_than_one),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("limits", tests, init, NULL);
}
