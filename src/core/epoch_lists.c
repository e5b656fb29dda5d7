/* SPDX-License-Identifier: Apache-2.0 */
/* What there is to look at in an epoch, so that nothing goes through all segments of
 * a large stock: those before confirmation and those of node key, in the order of
 * their numbers; those whose blob holds more than memory does; and the confirmed
 * ones of either side as a heap, the one whose window ends first on top. */
#include <assert.h>
#include <stdlib.h>

#include "core_internal.h"
#include "qkdgate/grow.h"

/* --- lists ------------------------------------------------------------------ */

/* The two lists that a segment may be in at a time. */
enum { BY_PHASE, BY_BLOB };

/* Before `next`, at the end where that is NULL. */
static void
link_before(qg_segment_list *l, int by, qg_segment *s, qg_segment *next)
{
	qg_segment *prev = next != NULL ? next->link[by].prev : l->last;
	s->link[by] = (qg_segment_link){.prev = prev, .next = next};
	*(prev != NULL ? &prev->link[by].next : &l->first) = s;
	*(next != NULL ? &next->link[by].prev : &l->last) = s;
}

static void
unlink_from(qg_segment_list *l, int by, qg_segment *s)
{
	qg_segment *prev = s->link[by].prev, *next = s->link[by].next;
	*(prev != NULL ? &prev->link[by].next : &l->first) = next;
	*(next != NULL ? &next->link[by].prev : &l->last) = prev;
	s->link[by] = (qg_segment_link){0};
}

/* Nearly always the last. */
static void
link_by_number(qg_segment_list *l, qg_segment *s)
{
	qg_segment *next = NULL;
	for (qg_segment *p = l->last; p != NULL && p->number > s->number; p = p->link[BY_PHASE].prev)
		next = p;
	link_before(l, BY_PHASE, s, next);
	s->list = l;
}

qg_segment *
qg_segment_next(const qg_segment *s)
{
	return s->link[BY_PHASE].next;
}

qg_segment *
qg_segment_next_dirty(const qg_segment *s)
{
	return s->link[BY_BLOB].next;
}

void
qg_segment_set_dirty(qg_segment *s, bool dirty)
{
	if (s->dirty == dirty)
		return;
	s->dirty = dirty;
	if (s->listed && dirty)
		link_before(&s->epoch->dirty, BY_BLOB, s, NULL);
	else if (s->listed)
		unlink_from(&s->epoch->dirty, BY_BLOB, s);
}

/* --- the heap --------------------------------------------------------------- */

static void
heap_set(qg_segment_heap *h, uint32_t i, qg_segment *s)
{
	h->at[i] = s;
	s->heap_at = i;
}

/* Moves what belongs at i, or nearer to the top. */
static void
heap_up(qg_segment_heap *h, uint32_t i, qg_segment *s)
{
	for (; i > 0 && h->at[(i - 1) / 2]->end_ms > s->end_ms; i = (i - 1) / 2)
		heap_set(h, i, h->at[(i - 1) / 2]);
	heap_set(h, i, s);
}

static void
heap_down(qg_segment_heap *h, uint32_t i, qg_segment *s)
{
	for (uint32_t child; (child = 2 * i + 1) < h->n; i = child) {
		if (child + 1 < h->n && h->at[child + 1]->end_ms < h->at[child]->end_ms)
			child++;
		if (h->at[child]->end_ms >= s->end_ms)
			break;
		heap_set(h, i, h->at[child]);
	}
	heap_set(h, i, s);
}

/* The last one takes its place. */
static void
heap_take(qg_segment_heap *h, const qg_segment *s)
{
	const uint32_t i = s->heap_at;
	assert(i < h->n && h->at[i] == s);
	qg_segment *last = h->at[--h->n];
	if (last == s)
		return;
	if (i > 0 && h->at[(i - 1) / 2]->end_ms > last->end_ms)
		heap_up(h, i, last);
	else
		heap_down(h, i, last);
}

qg_segment *
qg_epoch_first_to_end(const qg_epoch *e, bool ours)
{
	return e->ending[ours].n > 0 ? e->ending[ours].at[0] : NULL;
}

/* --- coming, changing, going ------------------------------------------------ */

static void
list_confirmed(qg_segment *s)
{
	qg_epoch *e = s->epoch;
	qg_segment_heap *h = &e->ending[s->ours];
	s->end_ms = s->born_ms + ((uint64_t)s->issue_s + (s->ours ? 0 : s->fetch_s)) * 1000;
	assert(h->n < h->room);
	heap_up(h, h->n++, s);
	if (s->use != QG_USE_APPLICATION)
		link_by_number(&e->node, s);
}

qg_err
qg_epoch_list(qg_epoch *e, qg_segment *s)
{
	/* There is a place for each, so that one that is confirmed finds its own. */
	qg_segment_heap *h = &e->ending[s->ours];
	qg_segment **at = qg_grown(h->at, &h->room, e->n_of[s->ours], sizeof(qg_segment *));
	if (at == NULL)
		return QG_E_NOMEM;
	h->at = at;
	e->n_of[s->ours]++;
	s->listed = true;
	if (s->dirty)
		link_before(&e->dirty, BY_BLOB, s, NULL);
	if (s->phase == QG_SEG_CONFIRMED)
		list_confirmed(s);
	else
		link_by_number(&e->open, s);
	return QG_OK;
}

void
qg_segment_confirmed(qg_segment *s)
{
	assert(s->listed && s->list == &s->epoch->open);
	unlink_from(s->list, BY_PHASE, s);
	s->list = NULL;
	s->phase = QG_SEG_CONFIRMED;
	list_confirmed(s);
}

void
qg_epoch_unlist(qg_epoch *e, qg_segment *s)
{
	if (s->dirty)
		unlink_from(&e->dirty, BY_BLOB, s);
	if (s->phase == QG_SEG_CONFIRMED)
		heap_take(&e->ending[s->ours], s);
	if (s->list != NULL)
		unlink_from(s->list, BY_PHASE, s);
	s->list = NULL;
	s->listed = false;
	e->n_of[s->ours]--;
}

void
qg_epoch_lists_free(qg_epoch *e)
{
	free(e->ending[false].at);
	free(e->ending[true].at);
}
