/* SPDX-License-Identifier: Apache-2.0 */
#include "south_internal.h"

#define SAVED_MS 100
#define SAY_EVERY_MS 30000
#define TOKENS_PER_BYTE 8000

unsigned
qg_backoff_take(qg_backoff *b)
{
	unsigned now = b->next_ms > 0 ? b->next_ms : b->first_ms;
	b->next_ms = now < b->last_ms / 2 ? now * 2 : b->last_ms;
	uint32_t dice;
	qg_random(&dice, sizeof dice);
	return now - now / 4 + (unsigned)(dice % (now / 2 + 1));
}

void
qg_backoff_reset(qg_backoff *b)
{
	b->next_ms = 0;
}

static uint64_t
price(uint32_t chunk_size)
{
	return (uint64_t)chunk_size * TOKENS_PER_BYTE;
}

uint32_t
qg_rate_allow(qg_rate *r, uint64_t now_ms, uint32_t chunk_size, uint32_t want, unsigned *wait_ms)
{
	if (r->max_bps == 0 || chunk_size == 0)
		return want;
	uint64_t most = (uint64_t)r->max_bps * SAVED_MS;
	if (most < price(chunk_size))
		most = price(chunk_size);
	uint64_t elapsed_ms = now_ms - r->at_ms;
	if (r->at_ms == 0 || elapsed_ms >= most / r->max_bps + 1) {
		r->tokens = most;
	} else {
		r->tokens += elapsed_ms * r->max_bps;
		if (r->tokens > most)
			r->tokens = most;
	}
	r->at_ms = now_ms;
	uint64_t n = r->tokens / price(chunk_size);
	if (n > 0)
		return n < want ? (uint32_t)n : want;
	uint64_t ms = (price(chunk_size) - r->tokens + r->max_bps - 1) / r->max_bps;
	*wait_ms = ms < 60000 ? (unsigned)ms : 60000;
	return 0;
}

void
qg_rate_spend(qg_rate *r, uint32_t chunk_size)
{
	uint64_t cost = price(chunk_size);
	r->tokens = r->tokens > cost ? r->tokens - cost : 0;
}

bool
qg_reasons_due(qg_reasons *r, const char *what, qg_err err, uint32_t status, uint64_t now_ms, unsigned *held)
{
	size_t i = 0;
	while (i < r->n && !(r->row[i].what == what && r->row[i].err == err && r->row[i].status == status))
		i++;
	if (i < r->n && now_ms - r->row[i].said_ms < SAY_EVERY_MS) {
		r->row[i].held++;
		return false;
	}
	*held = i < r->n ? r->row[i].held : 0;
	if (i == r->n) {
		if (r->n == QG_REASONS) { /* more kinds than rows: the first one makes room */
			i = 0;
			*held = 0;
		} else {
			r->n++;
		}
		r->row[i].what = what;
		r->row[i].err = err;
		r->row[i].status = status;
	}
	r->row[i].said_ms = now_ms;
	r->row[i].held = 0;
	return true;
}
