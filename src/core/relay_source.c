/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay_out_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define BATCH_MAX 8192      /* bytes of key in one message */
#define BATCH_MIN 1024      /* what is known of a link's stock may be old */
#define BATCH_PROBE 512     /* after a fault */
#define FAULT_MS 50
#define FAULT_MAX_MS 2000
#define FAULTS_FREE 3       /* in a row before the pauses grow: another route may do */
#define NO_ROUTE_MS 200     /* nothing is sent to find out */
#define OPENING_MS 10
#define OPENING_MAX 50      /* in a row, for node key that is being opened */
#define FULL_MS 1000
#define FULL_MAX_MS 10000
#define REROUTE_MS 1000     /* costs change */
#define DOUBTS 2            /* "pending" after which all of it is sent again */
#define ROUNDS_MAX 8        /* times that a segment is sent as a whole */
#define GIVEN_UP_MAX 64     /* segments in a row: the epoch leads nowhere */
#define TELL_AGAIN_MS 60000
#define STEADY_MS 10000     /* without a fault, until it is said that it works again */

/* --- the segment on offer ------------------------------------------------------ */

qg_err
qg_relay_out_new(qg_stream *st)
{
	st->relay = calloc(1, sizeof *st->relay);
	if (st->relay == NULL)
		return QG_E_NOMEM;
	st->relay->batch = BATCH_MAX;
	return QG_OK;
}

static void
forget_segment(struct qg_relay_out *r)
{
	qg_secret_free(&r->random);
	free(r->chunk);
	r->chunk = NULL;
	r->phase = QG_RELAY_IDLE;
	r->seg = NULL;
	r->restored = false;
	r->round++;
	r->doubts = r->rounds = 0;
	r->shares = 0;
	r->left = 0;
	r->hops = 0;
	r->n_seen = r->n_used = 0;
}

void
qg_relay_out_free(qg_stream *st)
{
	if (st->relay == NULL)
		return;
	forget_segment(st->relay);
	free(st->relay);
	st->relay = NULL;
}

void
qg_relay_out_begin(qg_stream *st)
{
	struct qg_relay_out *r = st->relay;
	forget_segment(r);
	r->seg = st->offer;
	r->phase = QG_RELAY_SENDING;
	r->reroute = true;
}

bool
qg_relay_out_step(qg_stream *st, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	(void)now_ms;
	if (r->seg != st->offer) {
		forget_segment(r);
		r->seg = st->offer;
		r->restored = true;
		r->phase = QG_RELAY_ASK;
	}
	/* Nothing of an ended epoch is taken any more; but it may be there. */
	if (st->offer->epoch->state != QG_EPOCH_FILLING)
		r->phase = QG_RELAY_ASK;
	return r->phase == QG_RELAY_ASK;
}

void
qg_relay_out_again(qg_stream *st, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	if (++r->doubts < DOUBTS || st->offer->epoch->state != QG_EPOCH_FILLING)
		return; /* it may just be about to be stored there */
	r->doubts = 0;
	if (++r->rounds > ROUNDS_MAX) {
		qg_relay_out_give_up(st, false, "the far end does not take it");
		return;
	}
	/* The shares were in memory only. */
	if (r->restored && st->cfg->relay.paths != 1) {
		qg_relay_out_give_up(st, false, "its shares were lost at a stop");
		return;
	}
	r->restored = false; /* what went before the start did not get there */
	if (r->chunk != NULL) {
		size_t n = (size_t)r->shares * r->seg->count;
		memset(r->chunk, QG_RELAY_TO_SEND, n);
		r->left = n;
	}
	r->round++;
	r->reroute = true;
	r->phase = QG_RELAY_SENDING;
	if (r->at_ms < now_ms)
		r->at_ms = 0;
}

bool
qg_relay_out_hops(const qg_stream *st, uint32_t *hops)
{
	const struct qg_relay_out *r = st->relay;
	if (r->restored)
		return false;
	*hops = r->hops;
	return true;
}

void
qg_relay_out_end(qg_stream *st, bool mismatch)
{
	struct qg_relay_out *r = st->relay;
	if (r->seg == NULL)
		return;
	if (mismatch)
		for (size_t i = 0; i < r->n_used; i++)
			qg_routes_suspect(st->core->routes, &r->used[i], qg_clock_elapsed_ms());
	if (r->seg->phase == QG_SEG_CONFIRMED)
		r->given_up = 0;
	forget_segment(r);
}

void
qg_relay_out_give_up(qg_stream *st, bool mismatch, const char *why)
{
	qg_epoch *e = st->offer->epoch;
	bool over = ++st->relay->given_up >= GIVEN_UP_MAX;
	qg_offer_give_up(st, mismatch, why);
	qg_conductor_kick(st->core);
	if (mismatch || over) {
		st->relay->given_up = 0;
		qg_epoch_end(e, mismatch ? QG_KMS_CLOSE_MISMATCH : QG_KMS_CLOSE_SOURCE, true);
	}
}

/* --- routes ------------------------------------------------------------------------- */

static bool
same_route(const qg_route *a, const qg_route *b)
{
	if (a->n != b->n)
		return false;
	for (size_t i = 0; i < a->n; i++)
		if (strcmp(a->node[i], b->node[i]) != 0)
			return false;
	return true;
}

static void
tell_route(qg_stream *st, uint32_t share)
{
	struct qg_relay_out *r = st->relay;
	const qg_route *route = &r->route[share];
	char path[QG_KMS_PATH_MAX * (QG_KMS_NAME_MAX + 1) + 1] = "";
	size_t at = 0;
	if (same_route(route, &r->told_route[share]))
		return;
	r->told_route[share] = *route;
	for (size_t i = 0; i < route->n; i++) {
		int n = snprintf(path + at, sizeof path - at, "%s%s", i > 0 ? "," : "", route->node[i]);
		if (n < 0 || (size_t)n >= sizeof path - at)
			return;
		at += (size_t)n;
	}
	qg_log(QG_LOG_INFO, "relay", "event=relay_path stream=%s share=%u path=%s hops=%u", st->cfg->name,
	       share, path, QG_ROUTE_HOPS(route));
}

static bool
has_seen(const struct qg_relay_out *r, const char *node, uint32_t share, bool other)
{
	for (size_t i = 0; i < r->n_seen; i++)
		if ((r->seen[i].share == share) != other && strcmp(r->seen[i].node, node) == 0)
			return true;
	return false;
}

/* Whether no node in between would come to see a second share. */
static bool
may_carry(const struct qg_relay_out *r, const qg_route *route, uint32_t share)
{
	for (size_t i = 1; i + 1 < route->n; i++)
		if (has_seen(r, route->node[i], share, true))
			return false;
	return r->n_seen + route->n <= QG_RELAY_SEEN_MAX;
}

static void
note_route(struct qg_relay_out *r, uint32_t share)
{
	const qg_route *route = &r->route[share];
	if (QG_ROUTE_HOPS(route) > r->hops)
		r->hops = QG_ROUTE_HOPS(route);
	for (size_t i = 1; i + 1 < route->n && r->shares > 1; i++) {
		if (has_seen(r, route->node[i], share, false))
			continue;
		r->seen[r->n_seen].node = route->node[i];
		r->seen[r->n_seen++].share = share;
	}
	for (size_t i = 0; i < r->n_used; i++)
		if (same_route(route, &r->used[i]))
			return;
	if (r->n_used < QG_RELAY_USED_MAX)
		r->used[r->n_used++] = *route;
}

/* Gives each share from `share` on a route of its own; false: it cannot be done. */
static bool
assign(struct qg_relay_out *r, const qg_route *found, size_t n, uint32_t share, uint32_t taken)
{
	if (share == r->shares)
		return true;
	for (size_t i = 0; i < n; i++) {
		if ((taken & (1u << i)) != 0 || !may_carry(r, &found[i], share))
			continue;
		if (assign(r, found, n, share + 1, taken | (1u << i))) {
			r->route[share] = found[i];
			return true;
		}
	}
	return false;
}

static uint32_t
paths_wanted(const qg_stream *st)
{
	uint32_t k = st->cfg->relay.paths;
	return k < 1 ? 1 : k > QG_RELAY_SHARES_MAX ? QG_RELAY_SHARES_MAX : k;
}

static void
back_off(struct qg_relay_out *r, uint64_t now_ms)
{
	if (now_ms < r->at_ms)
		return; /* one of several that failed together */
	r->backoff_ms = r->faults++ < FAULTS_FREE ? FAULT_MS : r->backoff_ms * 2;
	if (r->backoff_ms > FAULT_MAX_MS)
		r->backoff_ms = FAULT_MAX_MS;
	r->at_ms = now_ms + r->backoff_ms;
	r->window = 1;
}

static void
no_route(qg_stream *st, size_t n, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	if (!r->told_none)
		qg_log(QG_LOG_WARN, "relay", "event=relay_no_route stream=%s found=%zu wanted=%u", st->cfg->name,
		       n, paths_wanted(st));
	r->told_none = true;
	r->reroute = true;
	r->at_ms = now_ms + NO_ROUTE_MS;
}

/* The shares of a segment are drawn once: all but the last at random. */
static qg_err
draw_shares(struct qg_relay_out *r, uint32_t shares)
{
	size_t n = (size_t)shares * r->seg->count;
	QG_SECRET_AUTO *random = NULL;
	if (shares > 1) {
		size_t bytes = (shares - 1) * r->seg->data->len;
		qg_err err = qg_secret_new(bytes, &random);
		if (err != QG_OK)
			return err;
		qg_random(random->data, bytes);
		random->len = bytes;
	}
	r->chunk = calloc(n, 1);
	if (r->chunk == NULL)
		return QG_E_NOMEM;
	r->random = random;
	random = NULL;
	r->shares = shares;
	r->left = n;
	return QG_OK;
}

/* Chooses the routes anew where that is due. False: nothing can be sent now, or
 * the segment was given up. */
static bool
choose_routes(qg_stream *st, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	qg_route found[QG_RELAY_SHARES_MAX];
	uint32_t wanted = r->shares > 0 ? r->shares : paths_wanted(st);
	size_t n = 0;
	if (!r->reroute && now_ms - r->routed_ms < REROUTE_MS)
		return true;
	qg_routes_find(st->core->routes, st->cfg, wanted, now_ms, found, &n);
	if (n == 0 || (n < wanted && !st->cfg->relay.fewer_paths)) {
		no_route(st, n, now_ms);
		return false;
	}
	if (r->shares == 0 && draw_shares(r, (uint32_t)(n < wanted ? n : wanted)) != QG_OK) {
		back_off(r, now_ms);
		return false;
	}
	if (n < r->shares || !assign(r, found, n, 0, 0)) {
		qg_relay_out_give_up(st, false, "its shares cannot be kept apart on the routes that are left");
		return false;
	}
	r->reroute = r->told_none = false;
	r->routed_ms = now_ms;
	for (uint32_t i = 0; i < r->shares; i++)
		tell_route(st, i);
	return true;
}

/* --- what to send ------------------------------------------------------------------- */

/* After a fault a little feels the way: what a dry link further on refuses has
 * cost the links before it their key. */
static uint32_t
batch_chunks(const struct qg_relay_out *r, const qg_route *route, uint32_t chunk_size)
{
	uint64_t bytes = r->faults > 0 ? BATCH_PROBE : route->bytes / 4;
	if (r->faults == 0 && bytes < BATCH_MIN)
		bytes = BATCH_MIN;
	if (bytes > r->batch)
		bytes = r->batch;
	return bytes > chunk_size ? (uint32_t)(bytes / chunk_size) : 1;
}

/* A run of chunks of one share that are to be sent; the shares take turns. */
static bool
next_run(struct qg_relay_out *r, uint32_t *share, uint32_t *first, uint32_t *count)
{
	uint32_t n = r->seg->count;
	for (uint32_t i = 0; i < r->shares; i++) {
		uint32_t s = (r->next_share + i) % r->shares;
		const uint8_t *chunk = r->chunk + (size_t)s * n;
		uint32_t from = 0, to;
		while (from < n && chunk[from] != QG_RELAY_TO_SEND)
			from++;
		if (from == n)
			continue;
		for (to = from; to < n && chunk[to] == QG_RELAY_TO_SEND;)
			to++;
		*share = s;
		*first = from;
		*count = to - from;
		return true;
	}
	return false;
}

static qg_err
fill_plain(const struct qg_relay_out *r, qg_relay_send *t)
{
	size_t cs = t->epoch->chunk_size, whole = r->seg->data->len;
	size_t at = t->first * cs, n = t->count * cs;
	qg_err err = qg_secret_new(n, &t->plain);
	if (err != QG_OK)
		return err;
	uint8_t *to = t->plain->data;
	t->plain->len = n;
	if (t->share + 1 < r->shares) {
		memcpy(to, r->random->data + t->share * whole + at, n);
		return QG_OK;
	}
	memcpy(to, r->seg->data->data + at, n);
	for (uint32_t s = 0; s + 1 < r->shares; s++)
		for (size_t i = 0; i < n; i++)
			to[i] ^= r->random->data[s * whole + at + i];
	return QG_OK;
}

static void
mark(struct qg_relay_out *r, const qg_relay_send *t, uint32_t from, uint8_t what)
{
	memset(r->chunk + (size_t)t->share * r->seg->count + t->first + from, what, t->count - from);
}

static bool
may_send(const qg_stream *st, uint64_t now_ms)
{
	const struct qg_relay_out *r = st->relay;
	return r->phase == QG_RELAY_SENDING && st->offer != NULL && st->offer == r->seg &&
	       st->offer->phase == QG_SEG_OFFERED && !st->stopping && now_ms >= r->at_ms &&
	       r->flying < (r->window > 0 ? r->window : 1) && st->offer->epoch->state == QG_EPOCH_FILLING;
}

qg_relay_send *
qg_relay_out_pick(qg_stream *st, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	if (!may_send(st, now_ms) || !choose_routes(st, now_ms))
		return NULL;
	qg_relay_send *t = calloc(1, sizeof *t);
	if (t == NULL)
		return NULL;
	t->stream = st;
	t->seg = st->offer;
	t->epoch = t->seg->epoch;
	t->round = r->round;
	t->shares = r->shares;
	bool any = next_run(r, &t->share, &t->first, &t->count);
	if (any) {
		t->route = r->route[t->share];
		uint32_t most = batch_chunks(r, &t->route, t->epoch->chunk_size);
		t->count = t->count < most ? t->count : most;
	}
	if (!any || fill_plain(r, t) != QG_OK) {
		free(t);
		return NULL;
	}
	note_route(r, t->share);
	mark(r, t, 0, QG_RELAY_FLYING);
	r->next_share = t->share + 1;
	r->flying++;
	t->seg->pins++;
	t->epoch->pins++;
	return t;
}

void
qg_relay_out_shorten(qg_relay_send *t, uint32_t n)
{
	struct qg_relay_out *r = t->stream->relay;
	if (r->seg == t->seg && r->round == t->round)
		mark(r, t, n, QG_RELAY_TO_SEND);
	size_t bytes = (size_t)n * t->epoch->chunk_size;
	qg_wipe(t->plain->data + bytes, t->plain->len - bytes);
	t->plain->len = bytes;
	t->count = n;
}

/* --- what came of it ------------------------------------------------------------------ */

/* A route on which little arrives now and then is not told as good and bad in turns. */
static void
tell_recovered(qg_stream *st, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	if (r->n_told == 0 || now_ms - r->fault_ms < STEADY_MS)
		return;
	qg_log(QG_LOG_INFO, "relay", "event=relay_recovered stream=%s", st->cfg->name);
	r->n_told = 0;
}

static void
acknowledged(struct qg_relay_out *r, const qg_relay_send *t)
{
	mark(r, t, 0, QG_RELAY_ACKED);
	r->left -= t->count;
	r->window = r->window >= QG_RELAY_WINDOW / 2 ? QG_RELAY_WINDOW : (r->window < 1 ? 1 : r->window) * 2;
	r->faults = r->openings = r->full_ms = 0;
	r->batch += (BATCH_MAX - r->batch) / 64;
	r->at_ms = 0;
	tell_recovered(t->stream, qg_clock_elapsed_ms());
	if (r->left == 0) {
		r->phase = QG_RELAY_ASK;
		t->stream->offer_at_ms = 0;
	}
}

bool
qg_relay_out_landed(qg_relay_send *t, bool acked)
{
	struct qg_relay_out *r = t->stream->relay;
	r->flying--;
	if (r->seg != t->seg || r->round != t->round || r->phase != QG_RELAY_SENDING)
		return false;
	if (acked)
		acknowledged(r, t);
	else
		mark(r, t, 0, QG_RELAY_TO_SEND);
	return true;
}

static const char *const fault_names[] = {
	[QG_ROUTE_DOWN] = "down",
	[QG_ROUTE_STARVING] = "starving",
	[QG_ROUTE_BUSY] = "busy",
	[QG_ROUTE_WRONG] = "wrong",
};

/* The same fault is told once a minute, until something was delivered. */
static void
tell_fault(qg_stream *st, const char *at, const char *next, qg_route_fault fault, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	size_t i = 0;
	r->fault_ms = now_ms;
	while (i < r->n_told && (r->told[i].fault != fault || strcmp(r->told[i].at, at) != 0))
		i++;
	if (i < r->n_told && now_ms - r->told[i].ms < TELL_AGAIN_MS)
		return;
	if (i == QG_RELAY_TOLD_MAX)
		i = 0;
	r->told[i].at = at;
	r->told[i].fault = fault;
	r->told[i].ms = now_ms;
	if (i == r->n_told)
		r->n_told++;
	qg_log(QG_LOG_WARN, "relay", "event=relay_fault stream=%s at=%s next=%s reason=%s", st->cfg->name, at,
	       next, fault_names[fault]);
}

void
qg_relay_out_fault(qg_relay_send *t, size_t at, qg_route_fault fault, uint64_t now_ms)
{
	struct qg_relay_out *r = t->stream->relay;
	if (at > 0 && fault == QG_ROUTE_STARVING)
		qg_relay_out_smaller(t);
	tell_fault(t->stream, t->route.node[at], t->route.node[at + 1], fault, now_ms);
	r->reroute = true;
	back_off(r, now_ms);
}

bool
qg_relay_out_opening(qg_stream *st, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	if (r->openings >= OPENING_MAX)
		return false;
	r->openings++;
	if (r->at_ms < now_ms + OPENING_MS)
		r->at_ms = now_ms + OPENING_MS;
	return true;
}

void
qg_relay_out_smaller(qg_relay_send *t)
{
	uint32_t half = t->count * t->epoch->chunk_size / 2;
	if (t->count > 1 && half < t->stream->relay->batch)
		t->stream->relay->batch = half;
}

void
qg_relay_out_full(qg_stream *st, uint64_t now_ms)
{
	struct qg_relay_out *r = st->relay;
	if (now_ms < r->at_ms)
		return;
	r->full_ms = r->full_ms < FULL_MS ? FULL_MS : r->full_ms * 2;
	if (r->full_ms > FULL_MAX_MS)
		r->full_ms = FULL_MAX_MS;
	r->at_ms = now_ms + r->full_ms;
	r->window = 1;
	qg_log(QG_LOG_DEBUG, "relay", "event=far_end_full stream=%s segment=%u", st->cfg->name, r->seg->number);
}

void
qg_relay_out_ask(qg_stream *st)
{
	st->relay->phase = QG_RELAY_ASK;
}

uint64_t
qg_relay_out_due_ms(const qg_stream *st)
{
	const struct qg_relay_out *r = st->relay;
	return r != NULL && r->phase == QG_RELAY_SENDING ? r->at_ms : 0;
}

void
qg_relay_send_free(qg_relay_send *t)
{
	t->epoch->pins--;
	qg_segment_unpin(t->seg);
	qg_secret_free(&t->plain);
	qg_secret_free(&t->answer_key);
	free(t);
}

void
qg_relay_out_pump(qg_stream *st)
{
	if (st->relay == NULL)
		return;
	for (;;) {
		pthread_mutex_lock(&st->lock);
		qg_relay_send *t = qg_relay_out_pick(st, qg_clock_elapsed_ms());
		pthread_mutex_unlock(&st->lock);
		if (t == NULL)
			return;
		qg_relay_send_go(t);
	}
}
