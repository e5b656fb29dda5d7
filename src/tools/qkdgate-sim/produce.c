/* SPDX-License-Identifier: Apache-2.0 */
/* The secret key of the simulated link: random numbers of the generating end. */
#include "sim_internal.h"

#include "qkdgate/clock.h"

#define SAVED_MS 50          /* of the rate, at most */
#define TOKENS_PER_BYTE 8000 /* tokens are thousandths of a bit */

/* Key is made for streams that both applications have opened, while neither
 * end is store_chunks ahead of its reader, and not before this end has what
 * the other one kept over a restart. */
static bool
may_produce(const sim_stream *st)
{
	uint64_t read = st->mark < st->there_mark ? st->mark : st->there_mark;
	return st->here && st->there && st->next >= st->there_next && st->next < UINT32_MAX &&
	       st->next < read + st->store;
}

static uint64_t
price(const sim_stream *st)
{
	return (uint64_t)st->qos.chunk_size * TOKENS_PER_BYTE;
}

static void
refill(sim *s, uint64_t now_ms)
{
	uint64_t elapsed_ms = now_ms - s->tokens_ms;
	uint64_t most = s->opt.rate_bps * SAVED_MS;
	uint64_t floor = (uint64_t)SIM_CHUNK_MAX * TOKENS_PER_BYTE;
	if (most < floor)
		most = floor;
	s->tokens_ms = now_ms;
	s->tokens += (elapsed_ms < 60000 ? elapsed_ms : 60000) * s->opt.rate_bps;
	if (s->tokens > most)
		s->tokens = most;
}

/* Up to `want` chunks of one stream; how many they were. */
static uint64_t
produce_for(sim *s, sim_stream *st, uint64_t want)
{
	uint64_t read = st->mark < st->there_mark ? st->mark : st->there_mark;
	uint64_t made = 0, room = read + st->store - st->next;
	if (room > UINT32_MAX - st->next)
		room = UINT32_MAX - st->next;
	if (want > room)
		want = room;
	while (made < want) {
		uint8_t *to = NULL;
		uint64_t left = want - made;
		uint32_t n = sim_stream_room(st, left < SIM_BLOCK ? (uint32_t)left : SIM_BLOCK, &to);
		if (n == 0)
			break;
		qg_random(to, (size_t)n * st->qos.chunk_size);
		sim_stream_added(s, st, n);
		made += n;
	}
	return made;
}

/* Where the rate gives less than a chunk for each, they take turns. */
static void
rotate(sim *s)
{
	sim_stream *head = s->streams, **end = &s->streams;
	if (head == NULL || head->later == NULL)
		return;
	s->streams = head->later;
	while (*end != NULL)
		end = &(*end)->later;
	head->later = NULL;
	*end = head;
}

bool
sim_produce(sim *s, uint64_t now_ms)
{
	uint64_t n = 0;
	for (sim_stream *st = s->streams; st != NULL; st = st->later)
		n += may_produce(st);
	refill(s, now_ms);
	if (n == 0 || !s->linked || s->outage || s->outage_there || !s->opt.link_listens)
		return false;
	uint64_t share = s->tokens / n;
	for (sim_stream *st = s->streams; st != NULL; st = st->later) {
		if (!may_produce(st))
			continue;
		/* A share may not make a chunk where all of them together do. */
		uint64_t want = share >= price(st) ? share / price(st) : s->tokens >= price(st) ? 1u : 0u;
		if (s->opt.rate_bps == 0)
			want = (uint64_t)4 * SIM_BLOCK;
		uint64_t made = produce_for(s, st, want);
		if (s->opt.rate_bps > 0)
			s->tokens -= made * price(st);
	}
	rotate(s);
	return true;
}
