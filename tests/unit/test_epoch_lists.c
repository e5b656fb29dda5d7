/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../src/core/core_internal.h"
#include "seed.h"

#define SEGMENTS 400
#define STEPS 6000

/* Segments of one epoch, by number; what the lists say is held against all of them. */
typedef struct rig {
	qg_stream stream;
	qg_epoch epoch;
	qg_segment *seg[SEGMENTS];
	unsigned seed;
} rig;

static uint32_t
draw(rig *r, uint32_t below)
{
	return (uint32_t)rand_r(&r->seed) % below;
}

static int
set_up(void **state)
{
	rig *r = calloc(1, sizeof *r);
	if (r == NULL)
		return -1;
	r->seed = test_seed();
	r->epoch.stream = &r->stream;
	*state = r;
	return 0;
}

static int
tear_down(void **state)
{
	rig *r = *state;
	for (size_t i = 0; i < SEGMENTS; i++)
		free(r->seg[i]);
	qg_epoch_lists_free(&r->epoch);
	free(r);
	return 0;
}

static qg_segment *
segment_new(rig *r, uint32_t number)
{
	qg_segment *s = calloc(1, sizeof *s);
	assert_non_null(s);
	s->epoch = &r->epoch;
	s->number = number;
	s->ours = draw(r, 2) == 0;
	s->use = draw(r, 4) == 0 ? QG_USE_PAD : QG_USE_APPLICATION;
	s->born_ms = draw(r, 1000);
	s->issue_s = 1 + draw(r, 5);
	s->fetch_s = 1 + draw(r, 5);
	s->dirty = draw(r, 3) == 0;
	s->phase = draw(r, 3) == 0 ? QG_SEG_CONFIRMED : QG_SEG_FULL;
	return s;
}

static void
check_list(const rig *r, const qg_segment *at, qg_segment_phase phase)
{
	for (size_t i = 0; i < SEGMENTS; i++) {
		const qg_segment *s = r->seg[i];
		if (s == NULL || s->phase != phase || (phase == QG_SEG_CONFIRMED && s->use == QG_USE_APPLICATION))
			continue;
		assert_ptr_equal(at, s);
		at = qg_segment_next(at);
	}
	assert_null(at);
}

static uint64_t
end_of(const qg_segment *s)
{
	return s->born_ms + (s->issue_s + (s->ours ? 0 : s->fetch_s)) * 1000u;
}

static void
check_side(const rig *r, bool ours)
{
	const qg_segment *first = qg_epoch_first_to_end(&r->epoch, ours);
	uint32_t n = 0, confirmed = 0;
	for (size_t i = 0; i < SEGMENTS; i++) {
		const qg_segment *s = r->seg[i];
		if (s == NULL || s->ours != ours)
			continue;
		n++;
		if (s->phase != QG_SEG_CONFIRMED)
			continue;
		confirmed++;
		assert_non_null(first);
		assert_true(end_of(first) <= end_of(s));
	}
	assert_int_equal(r->epoch.n_of[ours], n);
	assert_int_equal(r->epoch.ending[ours].n, confirmed);
}

static void
check(const rig *r)
{
	size_t dirty = 0, listed = 0;
	check_list(r, r->epoch.open.first, QG_SEG_FULL);
	check_list(r, r->epoch.node.first, QG_SEG_CONFIRMED);
	check_side(r, false);
	check_side(r, true);
	for (size_t i = 0; i < SEGMENTS; i++)
		dirty += r->seg[i] != NULL && r->seg[i]->dirty;
	for (const qg_segment *s = r->epoch.dirty.first; s != NULL; s = qg_segment_next_dirty(s), listed++)
		assert_true(s->dirty);
	assert_int_equal(listed, dirty);
}

static void
step(rig *r)
{
	const uint32_t i = draw(r, SEGMENTS);
	qg_segment *s = r->seg[i];
	if (s == NULL) {
		r->seg[i] = segment_new(r, i);
		assert_int_equal(qg_epoch_list(&r->epoch, r->seg[i]), QG_OK);
	} else if (draw(r, 3) == 0) {
		qg_epoch_unlist(&r->epoch, s);
		free(s);
		r->seg[i] = NULL;
	} else if (s->phase == QG_SEG_FULL && draw(r, 2) == 0) {
		qg_segment_confirmed(s);
	} else {
		qg_segment_set_dirty(s, draw(r, 2) == 0);
	}
}

static void
lists_hold_what_a_look_at_all_segments_finds(void **state)
{
	rig *r = *state;
	for (int i = 0; i < STEPS; i++) {
		step(r);
		if (i % 16 == 0)
			check(r);
	}
	check(r);
}

/* One after the other, the one whose window ends first. */
static void
segments_end_in_the_order_of_their_windows(void **state)
{
	rig *r = *state;
	uint64_t before = 0;
	uint32_t n = 0;
	for (uint32_t i = 0; i < SEGMENTS; i++) {
		r->seg[i] = segment_new(r, i);
		r->seg[i]->ours = true;
		r->seg[i]->phase = QG_SEG_CONFIRMED;
		assert_int_equal(qg_epoch_list(&r->epoch, r->seg[i]), QG_OK);
	}
	for (qg_segment *s; (s = qg_epoch_first_to_end(&r->epoch, true)) != NULL; n++) {
		assert_true(end_of(s) >= before);
		before = end_of(s);
		qg_epoch_unlist(&r->epoch, s);
	}
	assert_int_equal(n, SEGMENTS);
}

/* What left its epoch is in no list, whatever becomes of it. */
static void
one_that_left_comes_back_into_no_list(void **state)
{
	rig *r = *state;
	qg_segment *s = segment_new(r, 0);
	r->seg[0] = s;
	assert_int_equal(qg_epoch_list(&r->epoch, s), QG_OK);
	qg_epoch_unlist(&r->epoch, s);
	qg_segment_set_dirty(s, !s->dirty);
	qg_segment_set_dirty(s, !s->dirty);
	r->seg[0] = NULL;
	check(r);
	free(s);
}

/* Slots in front are given up in the end, and made again for one that lies before. */
static void
the_array_goes_with_what_is_in_it(void **state)
{
	rig *r = *state;
	qg_epoch *e = &r->epoch;
	bool there[4 * SEGMENTS] = {false};
	for (uint32_t i = 0; i < 8 * SEGMENTS; i++) {
		/* The window moves on; within it anything comes and goes. */
		const uint32_t n = i / 4 + draw(r, SEGMENTS);
		qg_segment *s = qg_epoch_segment(e, n);
		assert_int_equal(s != NULL, there[n]);
		if (s != NULL) {
			assert_int_equal(s->number, n);
			qg_epoch_remove(e, s);
		} else {
			s = segment_new(r, n);
			s->phase = QG_SEG_FULL;
			assert_int_equal(qg_epoch_add(e, s), QG_OK);
		}
		there[n] = !there[n];
	}
	for (uint32_t n = 0; n < 4 * SEGMENTS; n++) {
		qg_segment *s = qg_epoch_segment(e, n);
		assert_int_equal(s != NULL, there[n]);
		if (s != NULL)
			qg_epoch_remove(e, s);
	}
	assert_int_equal(e->n_seg, 0);
	assert_int_equal(e->n_of[false] + e->n_of[true], 0);
	free(e->seg);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(lists_hold_what_a_look_at_all_segments_finds),
		CASE(segments_end_in_the_order_of_their_windows),
		CASE(one_that_left_comes_back_into_no_list),
		CASE(the_array_goes_with_what_is_in_it),
	};
	return cmocka_run_group_tests_name("epoch_lists", tests, NULL, NULL);
}
