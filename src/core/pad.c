/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "pad_parts_internal.h"
#include "qkdgate/clock.h"

/* Node key of a stream: which segments become it, and what both sides of its
 * use have in common (pad_out.c, pad_in.c). */

#define MAC_PART 8             /* of the node key one in so many chunks is for MACs */
#define FAR_FULL_MS 60000     /* no new node key after the far end had no room */
#define FAR_FULL_AFTER_MS 4000 /* between two asks: then the one on offer is given up */

qg_err
qg_pads_new(qg_stream *st)
{
	qg_pads *q = calloc(1, sizeof *q);
	if (q == NULL)
		return QG_E_NOMEM;
	for (int i = 0; i < PAD_KINDS; i++)
		q->stock[i].out_end = &q->stock[i].out;
	st->pads = q;
	return QG_OK;
}

#define PACE_MS 200

unsigned
qg_pads_pace(pad_pace *p, uint64_t now_ms)
{
	const bool at_once = p->n > 0 && now_ms - p->opened_ms < PACE_MS;
	p->n = at_once ? 4 * p->n : 1;
	if (p->n > PAD_PACE_MAX)
		p->n = PAD_PACE_MAX;
	p->opened_ms = now_ms;
	return p->n;
}

pad_stock *
qg_pads_stock(const qg_stream *st, qg_segment_use use)
{
	assert(use == QG_USE_PAD || use == QG_USE_MAC);
	return &st->pads->stock[use == QG_USE_MAC];
}

static void
free_list(pad_segment **list)
{
	while (*list != NULL) {
		pad_segment *p = *list;
		*list = p->next;
		qg_pads_segment_free(&p);
	}
}

void
qg_pads_free(qg_stream *st)
{
	qg_pads *q = st->pads;
	if (q == NULL)
		return;
	for (int i = 0; i < PAD_KINDS; i++)
		free_list(&q->stock[i].out);
	free_list(&q->opening);
	free_list(&q->in);
	free(q);
	st->pads = NULL;
}

/* --- what becomes node key ---------------------------------------------------- */

/* In segments: what each pool lacks, and how many are on their way whose use is
 * not chosen yet. */
typedef struct pool_room {
	uint64_t application, node, undecided;
	uint64_t mac_chunks; /* ready or coming */
} pool_room;

/* At least a segment for either kind: none is of use without the other. */
static uint64_t
node_wish(const qg_stream *st, const qg_epoch *e)
{
	uint64_t wish = st->cfg->node_chunks, least = 2 * (uint64_t)e->segment_chunks;
	wish = wish > least ? wish : least;
	if (qg_clock_elapsed_ms() < st->pads->far_full_ms)
		return 0;
	return st->peer_inbound != 0 && st->peer_inbound < wish ? st->peer_inbound : wish;
}

static uint64_t
bytes_of(const pad_stock *k)
{
	return k->stored_bytes + k->opening_bytes + k->open_bytes;
}

static void
count_room(const qg_stream *st, const qg_epoch *e, pool_room *r)
{
	uint64_t application = st->ready;
	uint64_t pad = bytes_of(qg_pads_stock(st, QG_USE_PAD)) / e->chunk_size;
	uint64_t mac = bytes_of(qg_pads_stock(st, QG_USE_MAC)) / e->chunk_size;
	uint64_t most = qg_pads_app_held(st) ? 0 : st->core->part.cfg->ready_chunks;
	uint64_t wish = node_wish(st, e);
	r->undecided = 0;
	for (const qg_segment *s = e->open.first; s != NULL; s = qg_segment_next(s)) {
		if (!s->ours)
			continue;
		if (s->phase == QG_SEG_FILLING || s->phase == QG_SEG_FULL)
			r->undecided++;
		else
			*(s->use == QG_USE_APPLICATION ? &application : s->use == QG_USE_MAC ? &mac : &pad) += s->count;
	}
	uint64_t node = pad + mac;
	r->mac_chunks = mac;
	r->application = most > application ? (most - application) / e->segment_chunks : 0;
	r->node = wish > node ? (wish - node + e->segment_chunks - 1) / e->segment_chunks : 0;
}

static qg_segment_use
kind_wanted(const qg_stream *st, const qg_epoch *e, const pool_room *r)
{
	uint32_t segment = e->segment_chunks - 2 * qg_segment_key_chunks(e->chunk_size);
	return r->mac_chunks < segment || r->mac_chunks < st->cfg->node_chunks / MAC_PART ? QG_USE_MAC : QG_USE_PAD;
}

qg_segment_use
qg_pads_choose_use(qg_stream *st, const qg_epoch *e)
{
	if (st->cfg->node_chunks == 0 || e->keys_out == NULL)
		return QG_USE_APPLICATION;
	pool_room r;
	count_room(st, e, &r);
	if (r.node == 0)
		return QG_USE_APPLICATION;
	if (r.application == 0)
		return kind_wanted(st, e, &r);
	/* Both are short: what is due to node key adds up over the segments, so
	 * that over many of them the share is exact. */
	st->pads->share += st->cfg->node_percent;
	if (st->pads->share < 100)
		return QG_USE_APPLICATION;
	st->pads->share -= 100;
	return kind_wanted(st, e, &r);
}

bool
qg_pads_want(const qg_stream *st)
{
	const qg_epoch *e = st->newest;
	if (st->cfg->node_chunks == 0 || e == NULL || e->state != QG_EPOCH_FILLING)
		return false;
	pool_room r;
	count_room(st, e, &r);
	return r.undecided < r.application + r.node;
}

bool
qg_pads_far_full(qg_stream *st)
{
	if (st->offer_backoff_ms < FAR_FULL_AFTER_MS)
		return false;
	st->pads->far_full_ms = qg_clock_elapsed_ms() + FAR_FULL_MS;
	return true;
}

bool
qg_pads_app_full(qg_stream *st)
{
	const qg_epoch *e = st->newest;
	pool_room r;
	if (st->cfg->node_chunks == 0 || e == NULL || e->keys_out == NULL ||
	    st->offer_backoff_ms < FAR_FULL_AFTER_MS)
		return false;
	count_room(st, e, &r);
	if (r.node == 0)
		return false;
	st->pads->app_full_ms = qg_clock_elapsed_ms() + FAR_FULL_MS;
	return true;
}

/* A new epoch brings its root first. */
bool
qg_pads_app_held(const qg_stream *st)
{
	const qg_epoch *e = st->newest;
	return e != NULL && e->keys_out != NULL && qg_clock_elapsed_ms() < st->pads->app_full_ms;
}

/* --- what there is -------------------------------------------------------------- */

static uint32_t
usable_bytes(const qg_segment *s)
{
	return (s->hi - s->lo) * s->epoch->chunk_size;
}

void
qg_pads_confirmed(qg_segment *s)
{
	qg_pads *q = s->epoch->stream->pads;
	if (s->ours)
		qg_pads_stock(s->epoch->stream, s->use)->stored_bytes += usable_bytes(s);
	else
		q->in_chunks += s->hi - s->lo;
}

void
qg_pads_left(qg_segment *s)
{
	qg_pads *q = s->epoch->stream->pads;
	if (s->ours)
		qg_pads_stock(s->epoch->stream, s->use)->stored_bytes -= usable_bytes(s);
	else
		q->in_chunks -= s->hi - s->lo;
}

uint64_t
qg_pads_open_bytes(const qg_stream *st)
{
	bool signs = qg_pads_stock(st, QG_USE_MAC)->open_bytes >= QG_KMS_MAC_OVERHEAD;
	return signs ? qg_pads_stock(st, QG_USE_PAD)->open_bytes : 0;
}

uint64_t
qg_pads_ready_bytes(const qg_stream *st)
{
	bool signs = bytes_of(qg_pads_stock(st, QG_USE_MAC)) >= QG_KMS_MAC_OVERHEAD;
	return signs ? bytes_of(qg_pads_stock(st, QG_USE_PAD)) : 0;
}

uint64_t
qg_pads_held(const qg_stream *st)
{
	return st->pads->in_chunks;
}

void
qg_pads_agreed(qg_stream *st)
{
	st->pads->agreed = true;
}

bool
qg_pads_rolled_back(const qg_epoch *e, uint32_t seen_mac, uint32_t seen_pad)
{
	if (!e->restored)
		return false;
	for (const qg_segment *s = e->node.first; s != NULL; s = qg_segment_next(s)) {
		if (!s->ours || qg_segment_expired(s))
			continue;
		if (s->number < (s->use == QG_USE_MAC ? seen_mac : seen_pad))
			return true;
	}
	return false;
}

/* --- segments taken out ----------------------------------------------------------- */

pad_segment *
qg_pads_detach(qg_segment *s)
{
	qg_epoch *e = s->epoch;
	assert(!s->root && s->lo == 0 && s->data != NULL && s->phase == QG_SEG_CONFIRMED);
	pad_segment *p = calloc(1, sizeof *p);
	if (p == NULL)
		return NULL;
	memcpy(p->epoch, e->id, sizeof p->epoch);
	p->use = s->use;
	p->number = s->number;
	p->chunks = s->hi - s->lo;
	p->len = p->left = usable_bytes(s);
	p->row = s->row;
	p->end_ms = s->born_ms + ((uint64_t)s->issue_s + (s->ours ? 0 : s->fetch_s)) * 1000;
	if (!s->ours) {
		p->used = calloc(1, ((size_t)p->len + 7) / 8);
		if (p->used == NULL) {
			free(p);
			return NULL;
		}
	}
	p->data = s->data;
	s->data = NULL;
	qg_epoch_remove(e, s);
	return p;
}

void
qg_pads_segment_free(pad_segment **p)
{
	if (*p == NULL)
		return;
	qg_secret_free(&(*p)->data);
	free((*p)->used);
	free(*p);
	*p = NULL;
}

bool
qg_pads_is(const pad_segment *p, const uint8_t epoch[16], uint32_t number)
{
	return p->number == number && memcmp(p->epoch, epoch, sizeof p->epoch) == 0;
}

void
qg_pads_expire(qg_stream *st)
{
	qg_pads_expire_out(st);
	qg_pads_expire_in(st);
}

static void
delete_stored(qg_epoch *e)
{
	for (qg_segment *s = e->node.first, *next; s != NULL; s = next) {
		next = qg_segment_next(s);
		qg_flush_delete(s);
	}
}

void
qg_pads_forget_epoch(qg_stream *st, const uint8_t *epoch)
{
	qg_pads_forget_out(st, epoch);
	qg_pads_forget_in(st, epoch);
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		if (epoch == NULL || memcmp(e->id, epoch, sizeof e->id) == 0)
			delete_stored(e);
}
