/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_internal.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* --- the set of streams ------------------------------------------------------- */

sim_stream *
sim_stream_find(sim *s, const qg_uuid *ksid)
{
	sim_stream *st = s->streams;
	while (st != NULL && !qg_uuid_equal(&st->ksid, ksid))
		st = st->later;
	return st;
}

static void
stream_free(sim *s, sim_stream *st)
{
	sim_stream **at = &s->streams;
	while (*at != st)
		at = &(*at)->later;
	*at = st->later;
	s->n_streams--;
	sim_stream_clear(st);
	free(st->blocks);
	free(st);
}

/* Applications that crash leave their streams behind. */
static void
evict_oldest(sim *s)
{
	sim_stream *oldest = s->streams;
	for (sim_stream *st = s->streams; st != NULL; st = st->later)
		if (st->used_ms < oldest->used_ms)
			oldest = st;
	stream_free(s, oldest);
}

static bool
copy_text(char *to, size_t room, const char *from)
{
	size_t n = strlen(from);
	if (n >= room)
		return false;
	memcpy(to, from, n + 1);
	return true;
}

sim_stream *
sim_stream_new(sim *s, const qg_uuid *ksid, const qg_etsi004_qos *qos, const char *source,
	       const char *destination)
{
	sim_stream *st = calloc(1, sizeof *st);
	if (st == NULL)
		return NULL;
	size_t fit = SIM_STORE_BYTES / qos->chunk_size;
	st->ksid = *ksid;
	st->qos = *qos;
	st->qos.mimetype = st->mimetype;
	st->store = s->opt.store_chunks < fit ? s->opt.store_chunks : fit;
	st->n_blocks = ((size_t)st->store + SIM_KEEP_CHUNKS) / SIM_BLOCK + 4;
	st->blocks = calloc(st->n_blocks, sizeof(sim_block *));
	st->used_ms = qg_clock_elapsed_ms();
	if (st->blocks == NULL || !copy_text(st->mimetype, sizeof st->mimetype, qos->mimetype) ||
	    !copy_text(st->source, sizeof st->source, source) ||
	    !copy_text(st->destination, sizeof st->destination, destination)) {
		free(st->blocks);
		free(st);
		return NULL;
	}
	if (s->n_streams >= SIM_STREAMS_MAX)
		evict_oldest(s);
	st->later = s->streams;
	s->streams = st;
	s->n_streams++;
	return st;
}

void
sim_stream_settle(sim *s, sim_stream *st)
{
	if (!st->here && !st->there && !st->tell_closed)
		stream_free(s, st);
}

void
sim_stream_close_here(sim *s, sim_stream *st, bool for_good)
{
	st->here = false;
	st->tell_open = false;
	st->tell_closed = s->linked;
	st->for_good = for_good;
	sim_stream_clear(st);
	st->first = st->next = st->mark = st->sent = st->told_next = st->told_mark = 0;
	pthread_cond_signal(&s->work);
	pthread_cond_broadcast(&s->changed);
	sim_stream_settle(s, st);
}

/* --- chunks -------------------------------------------------------------------- */

static sim_block **
block_slot(const sim_stream *st, uint64_t index)
{
	return &st->blocks[index / SIM_BLOCK % st->n_blocks];
}

static void
block_free(sim_block **b)
{
	if (*b == NULL)
		return;
	qg_secret_free(&(*b)->keys);
	free(*b);
	*b = NULL;
}

void
sim_stream_clear(sim_stream *st)
{
	for (size_t i = 0; i < st->n_blocks; i++)
		block_free(&st->blocks[i]);
	st->first = st->next;
}

/* Forgets all chunks below the index. */
static void
drop_below(sim_stream *st, uint64_t index)
{
	while (st->first < index) {
		uint64_t end = (st->first / SIM_BLOCK + 1) * SIM_BLOCK;
		if (end > index) {
			sim_block *b = *block_slot(st, st->first);
			size_t from = st->first % SIM_BLOCK, n = index - st->first;
			qg_wipe(b->keys->data + from * st->qos.chunk_size, n * st->qos.chunk_size);
			st->first = index;
		} else {
			block_free(block_slot(st, st->first));
			st->first = end;
		}
	}
	if (st->mark < st->first)
		st->mark = st->first;
	if (st->sent < st->first)
		st->sent = st->first;
}

uint32_t
sim_stream_room(sim_stream *st, uint32_t want, uint8_t **to)
{
	size_t size = st->qos.chunk_size, at = st->next % SIM_BLOCK;
	/* Never in the way of chunks that are still held; production stops before. */
	if (st->next - st->first >= (st->n_blocks - 1) * SIM_BLOCK)
		drop_below(st, st->first + SIM_BLOCK);
	sim_block **b = block_slot(st, st->next);
	if (*b == NULL) {
		*b = calloc(1, sizeof **b);
		if (*b == NULL)
			return 0;
		if (qg_secret_new(SIM_BLOCK * size, &(*b)->keys) != QG_OK) {
			free(*b);
			*b = NULL;
			return 0;
		}
	}
	*to = (*b)->keys->data + at * size;
	return want < SIM_BLOCK - at ? want : (uint32_t)(SIM_BLOCK - at);
}

/* Whether this chunk is to be wrong at this end. */
static bool
mismatch_due(sim *s)
{
	s->arrived++;
	if (s->flips_due > 0) {
		s->flips_due--;
		return true;
	}
	return s->opt.mismatch_every > 0 && s->arrived % s->opt.mismatch_every == 0;
}

void
sim_stream_added(sim *s, sim_stream *st, uint32_t count)
{
	sim_block *b = *block_slot(st, st->next);
	uint64_t ready_ms = qg_clock_elapsed_ms() + s->opt.latency_ms;
	for (uint32_t i = 0; i < count; i++) {
		size_t at = (st->next + i) % SIM_BLOCK;
		b->ready_ms[at] = ready_ms;
		b->flipped[at] = mismatch_due(s);
		if (b->flipped[at]) {
			char text[QG_UUID_TEXT];
			qg_uuid_format(&st->ksid, text);
			qg_log(QG_LOG_INFO, "sim", "event=mismatch ksid=%s index=%llu", text,
			       (unsigned long long)(st->next + i));
		}
	}
	b->keys->len = SIM_BLOCK * (size_t)st->qos.chunk_size;
	st->next += count;
	pthread_cond_broadcast(&s->changed);
}

uint32_t
sim_stream_unsent(const sim_stream *st, uint32_t most, const uint8_t **from)
{
	if (st->sent >= st->next)
		return 0;
	assert(st->sent >= st->first);
	size_t at = st->sent % SIM_BLOCK;
	uint64_t n = st->next - st->sent;
	if (n > SIM_BLOCK - at)
		n = SIM_BLOCK - at;
	*from = (*block_slot(st, st->sent))->keys->data + at * st->qos.chunk_size;
	return n < most ? (uint32_t)n : most;
}

void
sim_stream_trim(sim_stream *st, uint64_t now_ms)
{
	/* What the other end may have lost on the way stays. */
	uint64_t keep = st->mark > SIM_KEEP_CHUNKS ? st->mark - SIM_KEEP_CHUNKS : 0;
	if (keep > st->there_next)
		keep = st->there_next;
	if (keep > st->first + SIM_BLOCK)
		drop_below(st, keep / SIM_BLOCK * SIM_BLOCK);
	uint64_t ttl_ms = (uint64_t)st->qos.ttl_s * 1000;
	while (ttl_ms > 0 && st->first < st->next) {
		uint64_t ready_ms = (*block_slot(st, st->first))->ready_ms[st->first % SIM_BLOCK];
		if (ready_ms + ttl_ms > now_ms)
			break;
		drop_below(st, st->first + 1);
	}
}
