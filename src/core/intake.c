/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>
#include <time.h>

#include "core_internal.h"
#include "pad_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define WAIT_MS 1000
#define DRAWN_AHEAD 2                /* complete segments of a virtual stream before the one on offer */
#define OPEN_BACKOFF_MS 10000
#define PROBE_TRIES 3
#define GET_TRIES 50 /* of one index: opening the stream again did not help */
#define OPEN_TRIES 2
#define ABANDON_LIMIT 8              /* segments in a row: the source gives nothing of use */
#define PASSED_OVER_MS 2000          /* a complete segment that is not offered for so long */
#define LEAP_MAX (UINT32_C(1) << 24) /* chunks missing at once */

const qg_config_stream *
qg_intake_config(const qg_intake *in)
{
	return in->stream->cfg;
}

/* --- what to take ---------------------------------------------------------- */

static bool
segment_decided(const qg_epoch *e, uint32_t number)
{
	return number < (qg_epoch_is_ours(e, number) ? e->decided_out : e->decided_in);
}

/* Chunks of ours that are ready for applications or on their way to it. */
static uint64_t
chunks_coming(const qg_stream *st, const qg_epoch *e)
{
	uint64_t n = st->ready;
	for (const qg_segment *s = e->open.first; s != NULL; s = qg_segment_next(s))
		if (s->ours && s->use == QG_USE_APPLICATION)
			n += s->count;
	return n;
}

static unsigned
segments_waiting(const qg_epoch *e)
{
	unsigned n = 0;
	for (const qg_segment *s = e->open.first; s != NULL; s = qg_segment_next(s))
		n += !s->ours && s->phase == QG_SEG_FULL;
	return n;
}

/* Of a virtual stream no more is drawn than will soon be relayed. */
static bool
drawn_ahead(const qg_stream *st, const qg_epoch *e)
{
	unsigned n = 0;
	if (!st->cfg->relayed)
		return false;
	for (const qg_segment *s = e->open.first; s != NULL; s = qg_segment_next(s))
		n += s->ours && s->phase == QG_SEG_FULL;
	return n >= DRAWN_AHEAD;
}

static bool
pool_has_room(const qg_stream *st, const qg_epoch *e)
{
	if (drawn_ahead(st, e))
		return false;
	return chunks_coming(st, e) + e->segment_chunks <= st->core->part.cfg->ready_chunks || qg_pads_want(st);
}

/* The neighbour passes its segments over while its pool is full and says
 * nothing of it; they must not keep a shared stream from ours for ever. */
static bool
drop_passed_over(qg_epoch *e)
{
	for (qg_segment *s = e->open.first; s != NULL; s = qg_segment_next(s)) {
		if (s->ours || s->phase != QG_SEG_FULL)
			continue;
		if (qg_clock_elapsed_ms() - s->full_ms < PASSED_OVER_MS)
			return false;
		qg_epoch_remove(e, s);
		return true;
	}
	return false;
}

/* Whether the stream wants segment `number`, not decided yet. One of ours waits
 * for room in the pool, one of theirs for the owner to confirm those before it.
 * Where the stream is shared, one of ours is passed over instead, so that the
 * neighbour's segments go on. */
static bool
want_segment(qg_stream *st, qg_epoch *e, uint32_t number, bool *pass)
{
	bool shared = st->cfg->direction == QG_DIRECTION_SHARED;
	bool room = pool_has_room(st, e), crowded = segments_waiting(e) >= QG_LOOKAHEAD;
	*pass = false;
	if (!qg_epoch_is_ours(e, number))
		return !crowded || (shared && room && drop_passed_over(e));
	*pass = shared && !room && !crowded;
	return room;
}

/* Moves next_index to the segment to read next; false: none for now. */
static bool
next_segment_wanted(qg_stream *st, qg_epoch *e)
{
	while (st->next_index + e->segment_chunks <= QG_EPOCH_LAST) {
		uint32_t number = (uint32_t)(st->next_index / e->segment_chunks);
		bool pass = segment_decided(e, number);
		if (!pass && want_segment(st, e, number, &pass))
			return true;
		if (!pass)
			return false;
		if (qg_epoch_is_ours(e, number) && e->decided_out <= number)
			e->decided_out = number + 1;
		st->next_index += e->segment_chunks;
	}
	return false;
}

static bool
order_get(qg_stream *st, qg_intake_order *order)
{
	qg_epoch *e = qg_epoch_filling(st);
	/* What the far end of a virtual stream has, the owner relayed. */
	if (e == NULL || (st->cfg->relayed && st->cfg->direction == QG_DIRECTION_INBOUND))
		return false;
	if (st->next_index % e->segment_chunks == 0 && !next_segment_wanted(st, e)) {
		st->wants_room = true;
		return false;
	}
	uint64_t rest = e->segment_chunks - st->next_index % e->segment_chunks;
	order->what = QG_INTAKE_GET;
	order->ksid = e->ksid;
	order->index = (uint32_t)st->next_index;
	order->count = rest < QG_GET_COUNT ? (uint32_t)rest : QG_GET_COUNT;
	return true;
}

static bool
order_choose(qg_stream *st, qg_intake_order *order)
{
	memset(order, 0, sizeof *order);
	if (st->n_to_close > 0) {
		order->what = QG_INTAKE_CLOSE;
		order->ksid = st->to_close[0];
		return true;
	}
	if (st->stopping) {
		order->what = QG_INTAKE_STOP;
		return true;
	}
	if (qg_clock_elapsed_ms() < st->retry_at_ms)
		return false;
	switch (st->phase) {
	case QG_STREAM_OPEN:
		st->phase = QG_STREAM_OPENING;
		order->what = QG_INTAKE_OPEN;
		order->ksid = st->ksid;
		return true;
	case QG_STREAM_PROBE:
		order->what = QG_INTAKE_GET;
		order->ksid = st->ksid;
		order->index = (uint32_t)qg_epoch_filling(st)->probe_index;
		order->count = 1;
		return true;
	case QG_STREAM_RUN:
		return order_get(st, order);
	case QG_STREAM_IDLE:
	case QG_STREAM_OPENING:
	case QG_STREAM_APP:
	case QG_STREAM_APP_SENT:
	case QG_STREAM_STORING:
		break;
	}
	return false;
}

void
qg_intake_next(qg_intake *in, qg_intake_order *order)
{
	qg_stream *st = in->stream;
	uint64_t end_ms = qg_clock_elapsed_ms() + WAIT_MS;
	pthread_mutex_lock(&st->lock);
	while (!order_choose(st, order)) {
		uint64_t now_ms = qg_clock_elapsed_ms();
		if (now_ms >= end_ms) {
			order->what = QG_INTAKE_WAIT;
			break;
		}
		uint64_t until_ms =
			st->retry_at_ms > now_ms && st->retry_at_ms < end_ms ? st->retry_at_ms : end_ms;
		struct timespec ts;
		clock_gettime(CLOCK_MONOTONIC, &ts);
		uint64_t ns = (uint64_t)ts.tv_nsec + (until_ms - now_ms) * UINT64_C(1000000);
		ts.tv_sec += (time_t)(ns / UINT64_C(1000000000));
		ts.tv_nsec = (long)(ns % UINT64_C(1000000000));
		pthread_cond_timedwait(&st->wake, &st->lock, &ts);
	}
	pthread_mutex_unlock(&st->lock);
}

/* --- opening and closing --------------------------------------------------- */

/* Reading goes on at the first segment that is not decided; what a segment
 * held in part is read again, since nothing vouches for it (SOUNDNESS 3). */
static void
resume_epoch(qg_stream *st, qg_epoch *e)
{
	if (st->cfg->relayed && st->cfg->direction == QG_DIRECTION_INBOUND) {
		/* Of what is being filled, chunks may have been acknowledged. */
		qg_stream_go(st, QG_STREAM_RUN);
		return;
	}
	uint64_t next = (uint64_t)qg_epoch_next_segment(e) * e->segment_chunks;
	for (qg_segment *s = e->open.first, *after; s != NULL; s = after) {
		after = qg_segment_next(s);
		if (s->phase == QG_SEG_FILLING)
			qg_epoch_remove(e, s);
		else if (s->phase == QG_SEG_FULL && s->first_index + s->count > next)
			next = s->first_index + s->count;
	}
	st->next_index = next;
	st->probe_fails = 0;
	/* What is drawn cannot be read twice; nor does anyone else hold it. */
	qg_stream_go(st, e->has_probe && !st->cfg->relayed ? QG_STREAM_PROBE : QG_STREAM_RUN);
}

void
qg_intake_opened(qg_intake *in, const qg_uuid *ksid, uint32_t chunk_size)
{
	qg_stream *st = in->stream;
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_filling(st);
	bool expected = qg_uuid_is_null(&st->ksid) || qg_uuid_equal(&st->ksid, ksid);
	st->source_err = QG_OK;
	if (st->phase != QG_STREAM_OPENING || st->stopping || !expected ||
	    chunk_size != st->cfg->chunk_size) {
		if (chunk_size != st->cfg->chunk_size)
			qg_log(QG_LOG_ERROR, "stream",
			       "event=chunk_size_refused stream=%s offered=%u configured=%u", st->cfg->name,
			       chunk_size, st->cfg->chunk_size);
		qg_stream_close_ksid(st, ksid);
		if (st->phase == QG_STREAM_OPENING)
			qg_stream_retry(st, QG_STREAM_OPEN, OPEN_BACKOFF_MS);
	} else {
		char text[QG_UUID_TEXT];
		qg_uuid_format(ksid, text);
		qg_log(QG_LOG_INFO, "stream", "event=stream_open stream=%s ksid=%s", st->cfg->name, text);
		st->ksid = *ksid;
		st->ksid_open = true;
		st->reopening = false;
		st->open_fails = 0;
		if (e != NULL)
			resume_epoch(st, e);
		else
			qg_stream_go(st, QG_STREAM_APP);
	}
	pthread_cond_broadcast(&st->wake);
	pthread_mutex_unlock(&st->lock);
}

void
qg_intake_open_failed(qg_intake *in, qg_err err, uint32_t status)
{
	qg_stream *st = in->stream;
	pthread_mutex_lock(&st->lock);
	if (st->phase == QG_STREAM_OPENING) {
		/* The session has told it in the log, and not too often. */
		qg_log(QG_LOG_DEBUG, "stream", "event=stream_not_open stream=%s status=%u reason=\"%s\"",
		       st->cfg->name, status, qg_err_text(err));
		qg_epoch *e = qg_epoch_filling(st);
		/* A key manager that had both ends and now refuses, or waits for the
		 * peer, lost the stream: what it would give is other key. */
		if (e != NULL && (e->has_probe || st->reopening) && status != 0 &&
		    ++st->open_fails >= OPEN_TRIES)
			qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
		else
			qg_stream_retry(st, QG_STREAM_OPEN, OPEN_BACKOFF_MS);
	}
	pthread_mutex_unlock(&st->lock);
}

void
qg_intake_closed(qg_intake *in, const qg_uuid *ksid, qg_err err)
{
	qg_stream *st = in->stream;
	pthread_mutex_lock(&st->lock);
	for (size_t i = 0; i < st->n_to_close; i++) {
		if (!qg_uuid_equal(&st->to_close[i], ksid))
			continue;
		memmove(st->to_close + i, st->to_close + i + 1,
			(st->n_to_close - i - 1) * sizeof *st->to_close);
		st->n_to_close--;
		break;
	}
	char text[QG_UUID_TEXT];
	qg_uuid_format(ksid, text);
	qg_log(QG_LOG_INFO, "stream", "event=stream_closed stream=%s ksid=%s reason=\"%s\"", st->cfg->name,
	       text, err == QG_OK ? "closed" : qg_err_text(err));
	pthread_cond_broadcast(&st->wake);
	pthread_mutex_unlock(&st->lock);
}

/* --- chunks ---------------------------------------------------------------- */

/* Gives the segment up that next_index stands in and goes on at the next
 * boundary from `at` on (SOUNDNESS 3). */
static void
abandon_segment(qg_stream *st, qg_epoch *e, uint64_t at, const char *why)
{
	uint32_t number = (uint32_t)(st->next_index / e->segment_chunks);
	qg_segment *s = qg_epoch_segment(e, number);
	if (s != NULL && s->phase == QG_SEG_FILLING)
		qg_epoch_remove(e, s);
	st->n_bad++;
	qg_log(QG_LOG_WARN, "stream", "event=segment_abandoned stream=%s segment=%u reason=\"%s\"",
	       st->cfg->name, number, why);
	uint64_t next = (at + e->segment_chunks - 1) / e->segment_chunks;
	if (next <= number)
		next = (uint64_t)number + 1;
	if (qg_epoch_is_ours(e, number) && e->decided_out <= number)
		e->decided_out = number + 1;
	st->next_index = next * e->segment_chunks;
	if (++st->abandoned >= ABANDON_LIMIT)
		qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
}

static qg_err
take_probe(qg_stream *st, qg_epoch *e, uint32_t index, const uint8_t *key, size_t len)
{
	uint8_t probe[16];
	if (index == (uint32_t)e->probe_index && len == e->chunk_size) {
		qg_epoch_make_probe(st->core, key, len, probe);
		if (qg_equal_ct(probe, e->probe, sizeof probe)) {
			qg_log(QG_LOG_INFO, "stream", "event=stream_resumed stream=%s index=%llu",
			       st->cfg->name, (unsigned long long)st->next_index);
			qg_stream_go(st, QG_STREAM_RUN);
			return QG_OK;
		}
	}
	qg_log(QG_LOG_WARN, "stream",
	       "event=stream_lost stream=%s reason=\"a stored index reads otherwise now\"", st->cfg->name);
	qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
	return QG_E_PROTO;
}

static void
segment_complete(qg_stream *st, qg_epoch *e, qg_segment *s)
{
	s->phase = QG_SEG_FULL;
	st->abandoned = 0;
	s->full_ms = qg_clock_elapsed_ms();
	qg_epoch_put_probe(e, s);
	st->n_segments++;
	if (st->next_index + e->segment_chunks > QG_EPOCH_LAST)
		qg_epoch_end(e, QG_KMS_CLOSE_AGE, true);
	else if (s->ours)
		qg_offer_step(st, qg_clock_elapsed_ms());
}

static qg_err
take_chunk(qg_stream *st, qg_epoch *e, const uint8_t *key)
{
	uint32_t number = (uint32_t)(st->next_index / e->segment_chunks);
	uint32_t at = (uint32_t)(st->next_index % e->segment_chunks);
	qg_segment *s = qg_epoch_segment(e, number);
	if (s == NULL && at == 0) {
		qg_err err = qg_segment_new(e, number, qg_epoch_is_ours(e, number), &s);
		if (err == QG_OK) {
			err = qg_epoch_add(e, s);
			if (err != QG_OK)
				qg_segment_free(&s);
		}
		if (err != QG_OK)
			return err;
	}
	if (s == NULL || s->phase != QG_SEG_FILLING || s->have != at)
		return QG_E_STATE;
	memcpy(qg_segment_chunk(s, at), key, e->chunk_size);
	s->have++;
	st->next_index++;
	st->n_chunks++;
	if (s->have == s->count)
		segment_complete(st, e, s);
	return QG_OK;
}

static qg_err
chunk_locked(qg_stream *st, const qg_uuid *ksid, uint32_t index, const uint8_t *key, size_t len)
{
	qg_epoch *e = qg_epoch_filling(st);
	if (e == NULL || !qg_uuid_equal(ksid, &e->ksid))
		return QG_E_PROTO;
	if (st->phase == QG_STREAM_PROBE)
		return take_probe(st, e, index, key, len);
	if (st->phase != QG_STREAM_RUN)
		return QG_E_PROTO;
	if (len != e->chunk_size) {
		abandon_segment(st, e, st->next_index, "a chunk has another size");
		return QG_E_PROTO;
	}
	if (index < st->next_index) {
		qg_log(QG_LOG_WARN, "stream", "event=stream_lost stream=%s reason=\"the index falls back\"",
		       st->cfg->name);
		qg_epoch_end(e, QG_KMS_CLOSE_MISMATCH, true);
		return QG_E_PROTO;
	}
	if (index - st->next_index > LEAP_MAX) {
		qg_log(QG_LOG_WARN, "stream", "event=stream_lost stream=%s reason=\"the index leaps\"",
		       st->cfg->name);
		qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
		return QG_E_PROTO;
	}
	if (index > st->next_index) {
		abandon_segment(st, e, index, "chunks are missing");
		if (index != st->next_index || e->state != QG_EPOCH_FILLING)
			return QG_E_PROTO;
	}
	if (st->next_index % e->segment_chunks == 0 && !next_segment_wanted(st, e))
		return QG_E_FULL;
	if (index != st->next_index)
		return QG_E_PROTO;
	qg_err err = take_chunk(st, e, key);
	if (err != QG_OK && err != QG_E_NOMEM)
		abandon_segment(st, e, st->next_index, "the segment is not being filled");
	return err == QG_E_NOMEM ? QG_E_FULL : err;
}

qg_err
qg_intake_chunk(qg_intake *in, const qg_uuid *ksid, uint32_t index, const uint8_t *key, size_t len)
{
	qg_stream *st = in->stream;
	pthread_mutex_lock(&st->lock);
	st->source_err = QG_OK;
	qg_err err = chunk_locked(st, ksid, index, key, len);
	pthread_mutex_unlock(&st->lock);
	return err;
}

/* Ends the epoch of a source that never gives an index that is to come. */
static bool
get_is_hopeless(qg_stream *st, qg_epoch *e, uint32_t index)
{
	st->get_fails = index == st->get_failed_at ? st->get_fails + 1 : 1;
	st->get_failed_at = index;
	if (st->get_fails < GET_TRIES)
		return false;
	qg_log(QG_LOG_WARN, "stream", "event=stream_lost stream=%s reason=\"an index is never given\"", st->cfg->name);
	qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
	return true;
}

void
qg_intake_get_failed(qg_intake *in, uint32_t index, qg_err err, uint32_t status)
{
	qg_stream *st = in->stream;
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_filling(st);
	bool later = status == 2 || status == 3 || status == 6;
	st->source_err = later ? QG_OK : err;
	if (e != NULL && st->phase == QG_STREAM_PROBE && index == (uint32_t)e->probe_index && status != 0) {
		/* What was read once is not there: the source began anew. Status 3
		 * only says that the peer has not opened again yet. */
		st->probe_fails += status != 3;
		if (st->probe_fails >= PROBE_TRIES) {
			qg_log(QG_LOG_WARN, "stream",
			       "event=stream_lost stream=%s reason=\"a stored index cannot be read again\" "
			       "status=%u",
			       st->cfg->name, status);
			qg_epoch_end(e, QG_KMS_CLOSE_SOURCE, true);
		} else {
			st->retry_at_ms = qg_clock_elapsed_ms() + 100;
		}
	} else if (e != NULL && st->phase == QG_STREAM_RUN && status != 0 && !later) {
		qg_log(QG_LOG_WARN, "stream", "event=get_key_failed stream=%s index=%u status=%u",
		       st->cfg->name, index, status);
		if (!get_is_hopeless(st, e, index)) {
			st->ksid = e->ksid;
			st->reopening = true;
			qg_stream_retry(st, QG_STREAM_OPEN, OPEN_BACKOFF_MS);
		}
	} else if (e != NULL && st->phase == QG_STREAM_RUN && err == QG_E_PROTO && index == st->next_index) {
		abandon_segment(st, e, st->next_index, "a malformed answer");
	}
	pthread_mutex_unlock(&st->lock);
}
