/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "relay_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* forward_keys at its target (SOUNDNESS 16): what came is gathered in a filling
 * segment, share upon share, until accept.c can confirm it. Each chunk of each
 * share is taken once: the same bytes are acknowledged again, other bytes end
 * the epoch. */

#define AHEAD_MAX 4         /* undecided segments */
#define LEAP_MAX_SEGMENTS 1024 /* beyond the decided ones: the owner skips what it abandons */

typedef struct qg_relay_part {
	uint32_t shares, count;
	uint64_t left;                      /* chunks of all shares that did not come yet */
	uint8_t *got;                       /* bit share * count + chunk */
	uint8_t (*digest)[QG_RELAY_DIGEST]; /* likewise */
} qg_relay_part;

void
qg_relay_part_free(qg_segment *s)
{
	if (s->part == NULL)
		return;
	free(s->part->got);
	free(s->part->digest);
	free(s->part);
	s->part = NULL;
}

static qg_err
part_new(qg_segment *s, uint32_t shares)
{
	size_t n = (size_t)shares * s->count;
	qg_relay_part *p = calloc(1, sizeof *p);
	if (p == NULL)
		return QG_E_NOMEM;
	s->part = p;
	p->shares = shares;
	p->count = s->count;
	p->left = n;
	p->got = calloc((n + 7) / 8, 1);
	p->digest = calloc(n, sizeof *p->digest);
	if (p->got != NULL && p->digest != NULL)
		return QG_OK;
	qg_relay_part_free(s);
	return QG_E_NOMEM;
}

/* --- where it belongs ------------------------------------------------------------ */

static qg_stream *
stream_of(struct qg_core *core, const qg_kms_forward *m)
{
	qg_stream *st = qg_stream_find(core, m->path[0], m->stream);
	return st != NULL && st->cfg->relayed && st->cfg->direction == QG_DIRECTION_INBOUND ? st : NULL;
}

static bool
shares_fit(const qg_config_relay *cfg, uint32_t shares)
{
	return shares == cfg->paths || (cfg->fewer_paths && shares < cfg->paths);
}

static bool
undecided(const qg_segment *s)
{
	return !s->ours && (s->phase == QG_SEG_FILLING || s->phase == QG_SEG_FULL);
}

/* The owner offers in order: of too many, the lowest is one that it gave up. */
static bool
make_way(qg_epoch *e, uint32_t number)
{
	unsigned n = 0;
	qg_segment *lowest = NULL;
	for (qg_segment *s = e->open.first; s != NULL; s = qg_segment_next(s)) {
		if (!undecided(s))
			continue;
		if (lowest == NULL)
			lowest = s;
		n++;
	}
	if (n < AHEAD_MAX)
		return true;
	if (lowest->number > number)
		return false;
	qg_epoch_remove(e, lowest);
	return true;
}

/* What the segment will be for is not known before its new_key_batch: where the
 * stream brings node key too, room for either is room. */
static bool
has_room(const qg_stream *st, const qg_epoch *e)
{
	uint64_t most = st->core->part.cfg->inbound_chunks, node = qg_pads_held(st);
	qg_pad_account a;
	if (st->held + e->segment_chunks <= most)
		return true;
	qg_pads_account(st, false, &a);
	return (node > 0 || a.opened > 0) && node + e->segment_chunks <= most;
}

/* The segment to fill, made when it is the first that comes of it. */
static qg_kms_forward_result
segment_for(qg_stream *st, qg_epoch *e, const qg_kms_forward *m, qg_segment **out)
{
	qg_segment *s = qg_epoch_segment(e, m->segment);
	if (m->segment < e->decided_in || (s != NULL && !undecided(s)) ||
	    m->segment - e->decided_in > LEAP_MAX_SEGMENTS)
		return QG_KMS_FORWARD_UNKNOWN;
	if (s == NULL) {
		if (!has_room(st, e))
			return QG_KMS_FORWARD_FULL;
		if (!make_way(e, m->segment))
			return QG_KMS_FORWARD_UNKNOWN;
		if (qg_segment_new(e, m->segment, false, &s) != QG_OK)
			return QG_KMS_FORWARD_FULL;
		if (part_new(s, m->shares) != QG_OK || qg_epoch_add(e, s) != QG_OK) {
			qg_segment_free(&s);
			return QG_KMS_FORWARD_FULL;
		}
	}
	*out = s;
	return QG_KMS_FORWARD_DELIVERED;
}

/* --- taking -------------------------------------------------------------------------- */

static bool
have(const qg_relay_part *p, uint32_t share, uint32_t chunk)
{
	size_t bit = (size_t)share * p->count + chunk;
	return (p->got[bit / 8] & (1u << (bit % 8))) != 0;
}

/* Whether what came before of these chunks was the same. */
static bool
agrees(struct qg_core *core, const qg_segment *s, const qg_kms_forward *m, const uint8_t *data)
{
	const qg_relay_part *p = s->part;
	if (p == NULL || p->shares != m->shares)
		return false;
	for (uint32_t i = 0; i < m->count; i++) {
		uint8_t digest[QG_RELAY_DIGEST];
		if (!have(p, m->share, m->first + i))
			continue;
		qg_relay_digest(core, data + (size_t)i * m->chunk_size, m->chunk_size, digest);
		const uint8_t *before = p->digest[(size_t)m->share * p->count + m->first + i];
		if (!qg_equal_ct(before, digest, sizeof digest))
			return false;
	}
	return true;
}

/* Chunks that are new are added to the shares that came before. */
static uint32_t
add_chunks(struct qg_core *core, qg_segment *s, const qg_kms_forward *m, const uint8_t *data)
{
	qg_relay_part *p = s->part;
	uint32_t n = 0;
	for (uint32_t i = 0; i < m->count; i++) {
		uint32_t chunk = m->first + i;
		size_t bit = (size_t)m->share * p->count + chunk;
		const uint8_t *from = data + (size_t)i * m->chunk_size;
		if (have(p, m->share, chunk))
			continue;
		uint8_t *to = qg_segment_chunk(s, chunk);
		for (uint32_t b = 0; b < m->chunk_size; b++)
			to[b] ^= from[b];
		qg_relay_digest(core, from, m->chunk_size, p->digest[bit]);
		p->got[bit / 8] = (uint8_t)(p->got[bit / 8] | (1u << (bit % 8)));
		n++;
	}
	p->left -= n;
	return n;
}

static void
complete(qg_stream *st, qg_segment *s)
{
	s->have = s->count;
	s->phase = QG_SEG_FULL;
	s->full_ms = qg_clock_elapsed_ms();
	st->n_chunks += s->count;
	st->n_segments++;
}

static qg_kms_forward_result
take_locked(qg_stream *st, qg_epoch *e, const qg_kms_forward *m, const uint8_t *data)
{
	qg_segment *s = NULL;
	/* A node on the way may have changed it; the source ends the epoch. */
	if (m->chunk_size != e->chunk_size || m->first >= e->segment_chunks ||
	    m->count > e->segment_chunks - m->first)
		return QG_KMS_FORWARD_MISMATCH;
	qg_kms_forward_result result = segment_for(st, e, m, &s);
	if (result != QG_KMS_FORWARD_DELIVERED)
		return result;
	if (!agrees(st->core, s, m, data)) {
		qg_segment_report(e, s->number, true, "other key was relayed for what is here");
		qg_epoch_end(e, QG_KMS_CLOSE_MISMATCH, true);
		return QG_KMS_FORWARD_MISMATCH;
	}
	uint32_t n = add_chunks(st->core, s, m, data);
	QG_RELAY_COUNT(st->core, taken, 1);
	QG_RELAY_COUNT(st->core, repeated, n < m->count);
	if (s->part->left == 0 && s->phase == QG_SEG_FILLING)
		complete(st, s);
	return QG_KMS_FORWARD_DELIVERED;
}

qg_kms_forward_result
qg_relay_take(struct qg_core *core, const qg_kms_forward *m, const qg_secret *data, size_t at)
{
	qg_stream *st = stream_of(core, m);
	if (st == NULL)
		return QG_KMS_FORWARD_UNKNOWN;
	if (!shares_fit(&st->cfg->relay, m->shares)) {
		qg_relay_refused(core, m->path[m->hop], m->stream, "not as many paths as configured here");
		return QG_KMS_FORWARD_UNKNOWN;
	}
	qg_kms_forward_result result = QG_KMS_FORWARD_UNKNOWN;
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_find(st, m->epoch);
	if (e != NULL && e->row != 0 && e->state == QG_EPOCH_FILLING && !st->stopping)
		result = take_locked(st, e, m, data->data + at);
	pthread_mutex_unlock(&st->lock);
	return result;
}
