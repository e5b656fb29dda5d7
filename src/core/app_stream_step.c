/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* What is due at a time: messages, draws, calls whose timeout has passed, keys
 * whose TTL has. */

#define SWEEP_MS 500

/* --- one stream -------------------------------------------------------------------------- */

/* Under the lock; each that is true was marked as under way, and st pinned. */
typedef struct due {
	bool announce, tell, want, owner;
	uint64_t until;
} due;

static due
take_due(qg_as_stream *st, uint64_t now_ms)
{
	due d = {.owner = st->owner};
	if (st->ended || st->all->stopping || qg_as_local(st))
		return d;
	if (st->announcing && !st->announce_sent && now_ms >= st->announce_at_ms)
		d.announce = st->announce_sent = true;
	if (st->tell && !st->telling && !st->announcing && now_ms >= st->tell_at_ms) {
		d.tell = st->telling = true;
		st->pins++;
	}
	/* Half of what the owner keeps ready at least is still to come. */
	const uint64_t lead = QG_AS_AHEAD_MIN / st->qos.chunk_size / 2;
	if (!st->owner && st->settled && !st->asking && !st->announcing && now_ms >= st->ask_at_ms &&
	    st->end[0].state == QG_AS_OPEN && st->end[1].state == QG_AS_OPEN && st->want > st->asked &&
	    st->want + lead >= st->next_index) {
		d.want = st->asking = true;
		d.until = st->asked = st->want;
		st->pins++;
	}
	return d;
}

void
qg_as_pump(qg_as_stream *st)
{
	pthread_mutex_lock(&st->all->lock);
	const due d = take_due(st, qg_clock_elapsed_ms());
	pthread_mutex_unlock(&st->all->lock);
	if (d.announce)
		qg_as_announce_send(st);
	if (d.tell)
		qg_as_tell_send(st);
	if (d.want)
		qg_as_want_send(st, d.until);
	if (d.owner)
		qg_as_fill(st);
}

/* --- time ---------------------------------------------------------------------------------- */

/* Under the lock. A predefined KSID whose peer did not come is free again. */
static bool
late_calls(qg_as_stream *st, uint64_t now_ms, qg_as_done *done)
{
	bool open_late = false, open_left = false;
	qg_as_call *next;
	for (qg_as_call *call = st->calls; call != NULL; call = next) {
		next = call->next;
		if (now_ms < call->deadline_ms) {
			open_left |= !call->get;
			continue;
		}
		open_late |= !call->get;
		qg_as_call_leave(st, call);
		qg_as_refuse(call, QG_ETSI004_TIMEOUT, done);
	}
	return open_late && !open_left && !st->stored;
}

static void
expire(qg_as_stream *st)
{
	const uint64_t now_ms = qg_as_now_ms(st), ttl_ms = (uint64_t)st->qos.ttl_s * 1000;
	while (st->n_block > 0 && st->block[0]->held && now_ms >= st->block[0]->since_ms + ttl_ms)
		qg_as_drop_block(st, 0);
}

/* Nobody will ask again: the other end closed and what it left has expired, or
 * nobody has asked for very long. */
static bool
is_abandoned(const qg_as_stream *st)
{
	const uint64_t idle_ms = (uint64_t)st->all->core->part.cfg->app_streams.idle_s * 1000;
	const uint64_t ttl_ms = (uint64_t)st->qos.ttl_s * 1000, now_ms = qg_as_now_ms(st);
	const bool half = st->end[0].state == QG_AS_CLOSED || st->end[1].state == QG_AS_CLOSED;
	if (st->pins > 1 || st->calls != NULL || st->tell) /* the sweep has a pin */
		return false;
	if (half && st->n_block == 0 && now_ms >= st->used_ms + ttl_ms)
		return true;
	return now_ms >= st->used_ms + idle_ms;
}

/* Under the lock; true: it ended, and the other KME is to be told. */
static bool
sweep(qg_as_stream *st, uint64_t now_ms, qg_as_done *done)
{
	bool over = late_calls(st, now_ms, done);
	expire(st);
	over |= is_abandoned(st);
	if (over)
		qg_as_end_stream(st, done);
	return over && !qg_as_local(st);
}

static void
earlier(uint64_t *due_ms, uint64_t at_ms)
{
	if (at_ms < *due_ms)
		*due_ms = at_ms;
}

static uint64_t
next_of(const qg_as_stream *st)
{
	uint64_t at = UINT64_MAX;
	for (const qg_as_call *call = st->calls; call != NULL; call = call->next)
		earlier(&at, call->deadline_ms);
	if (st->calls != NULL && st->fill_at_ms > 0)
		earlier(&at, st->fill_at_ms);
	if (st->announcing && !st->announce_sent)
		earlier(&at, st->announce_at_ms);
	return at;
}

#define BATCH 64

/* Streams of one bucket, pinned, so that they can be seen to without the lock. */
static size_t
pin_bucket(struct qg_app_streams *all, size_t i, qg_as_stream *list[BATCH])
{
	size_t n = 0;
	for (qg_as_stream *st = all->bucket[i]; st != NULL && n < BATCH; st = st->next) {
		st->pins++;
		list[n++] = st;
	}
	return n;
}

static void
see_to(qg_as_stream *st, uint64_t now_ms, uint64_t *due_ms)
{
	struct qg_app_streams *all = st->all;
	qg_as_done done = {0}, later = {0};
	char kme[QG_KMS_NAME_MAX + 1];
	pthread_mutex_lock(&all->lock);
	const qg_uuid ksid = st->ksid;
	qg_as_judge_rights(st, &done);
	const bool tell = !st->ended && sweep(st, now_ms, &done);
	qg_as_name(kme, sizeof kme, st->kme);
	earlier(due_ms, next_of(st));
	qg_as_leave(st, tell ? &later : &done);
	if (tell)
		qg_as_tell_whole(all, kme, &ksid, &done);
}

uint64_t
qg_app_streams_step(struct qg_core *core, uint64_t now_ms)
{
	struct qg_app_streams *all = core->app_streams;
	uint64_t due_ms = UINT64_MAX;
	qg_as_supply_step(all, now_ms);
	pthread_mutex_lock(&all->lock);
	size_t left = all->stopping ? 0 : all->n;
	for (size_t i = 0; i < QG_AS_BUCKETS && left > 0; i++) {
		qg_as_stream *list[BATCH];
		const size_t n = pin_bucket(all, i, list);
		left -= n < left ? n : left;
		pthread_mutex_unlock(&all->lock);
		for (size_t k = 0; k < n; k++)
			see_to(list[k], now_ms, &due_ms);
		pthread_mutex_lock(&all->lock);
	}
	pthread_mutex_unlock(&all->lock);
	return due_ms;
}

void
qg_app_streams_end_all(struct qg_core *core)
{
	struct qg_app_streams *all = core->app_streams;
	qg_as_done done = {0};
	pthread_mutex_lock(&all->lock);
	for (size_t i = 0; i < QG_AS_BUCKETS; i++)
		while (all->bucket[i] != NULL)
			qg_as_end_stream(all->bucket[i], &done);
	pthread_mutex_unlock(&all->lock);
	qg_as_done_run(&done);
}
