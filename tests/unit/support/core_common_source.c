/* SPDX-License-Identifier: Apache-2.0 */
#include "core_common.h"

/* The 004 sources, with their faults. */

void source_chunk(uint64_t seed, uint32_t chunk_size, const qg_uuid *ksid, uint32_t generation, uint32_t index,
		  uint8_t *out)
{
	uint8_t in[32];
	qg_writer w = qg_writer_of(in, sizeof in);
	qg_put_u64(&w, seed);
	qg_put_bytes(&w, ksid->b, sizeof ksid->b);
	qg_put_u32(&w, generation);
	qg_put_u32(&w, index);
	must(!w.bad, "chunk");
	uint32_t n = chunk_size;
	if (n < 16) {
		uint8_t longer[16];
		crypto_generichash(longer, sizeof longer, in, w.len, NULL, 0);
		memcpy(out, longer, n);
	} else {
		crypto_generichash(out, n < 64 ? n : 64, in, w.len, NULL, 0);
		for (uint32_t i = 64; i < n; i++)
			out[i] = (uint8_t)(out[i % 64] + i / 64);
	}
}

static bool within(uint32_t i, uint32_t from, uint32_t to)
{
	return i >= from && i < to;
}

/* A burst of a tenth of a second at most. */
static bool rate_allows(pair_session *s, const pair_source *src)
{
	double rate = atomic_load(&src->rate), most = rate / 10 < 1 ? 1 : rate / 10;
	if (rate <= 0)
		return true;
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	uint64_t now_ms = (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
	s->tokens += rate * (double)(now_ms - s->tokens_ms) / 1000;
	s->tokens = s->tokens > most ? most : s->tokens;
	s->tokens_ms = now_ms;
	if (s->tokens < 1)
		return false;
	s->tokens -= 1;
	return true;
}

/* One chunk; false ends the order. */
static bool source_give(pair_session *s, pair_source *src, const qg_intake_order *o, uint32_t index)
{
	uint8_t key[4096];
	unsigned status = atomic_exchange(&src->get_status, 0);
	if (status != 0) {
		qg_intake_get_failed(s->in, index, QG_OK, status);
		return false;
	}
	if (!rate_allows(s, src) || atomic_load(&src->down) ||
	    (atomic_load(&src->stop_at) != 0 && index >= atomic_load(&src->stop_at))) {
		qg_intake_get_failed(s->in, index, QG_OK, 2);
		pair_nap(5);
		return false;
	}
	if (index < o->index + o->count && o->count == 1)
		atomic_fetch_add(&src->probes, 1);
	if (atomic_load(&src->loses) && o->count == 1) {
		qg_intake_get_failed(s->in, index, QG_OK, 2);
		pair_nap(5);
		return false;
	}
	uint32_t given = index;
	if (within(index, atomic_load(&src->hole_from), atomic_load(&src->hole_to)))
		given = atomic_load(&src->hole_to);
	if (atomic_load(&src->back_at) != 0 && index == atomic_load(&src->back_at) && !s->fell_back) {
		s->fell_back = true;
		given = index - 1;
	}
	if (s->kind == SOURCE_DRAWN)
		qg_random(key, s->chunk_size);
	else
		source_chunk(s->seed, s->chunk_size, &o->ksid, atomic_load(&src->generation), given, key);
	if (within(given, atomic_load(&src->bad_from), atomic_load(&src->bad_to)))
		key[0] ^= 0x55;
	qg_err err = qg_intake_chunk(s->in, &o->ksid, given, key, s->chunk_size);
	if (err == QG_E_FULL)
		pair_nap(1);
	return err == QG_OK && given == index;
}

static void source_open(pair_session *s, pair_source *src, const qg_intake_order *o)
{
	unsigned status = atomic_load(&src->open_status);
	atomic_fetch_add(&src->opens, 1);
	if (status != 0) {
		qg_intake_open_failed(s->in, QG_OK, status);
		pair_nap(2);
		return;
	}
	qg_uuid ksid = o->ksid;
	if (qg_uuid_is_null(&ksid))
		qg_uuid_random(&ksid);
	qg_intake_opened(s->in, &ksid, s->chunk_size);
}

static void *session_run(void *arg)
{
	pair_session *s = arg;
	pair_source *src = s->src;
	for (;;) {
		qg_intake_order o;
		qg_intake_next(s->in, &o);
		switch (o.what) {
		case QG_INTAKE_STOP:
			return NULL;
		case QG_INTAKE_OPEN:
			source_open(s, src, &o);
			break;
		case QG_INTAKE_CLOSE:
			atomic_fetch_add(&src->closes, 1);
			qg_intake_closed(s->in, &o.ksid, QG_OK);
			break;
		case QG_INTAKE_GET:
			for (uint32_t i = 0; i < o.count; i++)
				if (!source_give(s, src, &o, o.index + i))
					break;
			break;
		case QG_INTAKE_WAIT:
			break;
		}
	}
}

void session_start(pair_session *s)
{
	must(pthread_create(&s->thread, NULL, session_run, s) == 0, "thread");
}

void session_join(pair_session *s)
{
	pthread_join(s->thread, NULL);
}
