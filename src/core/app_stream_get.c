/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"

/* GET_KEY. A chunk of a block that both KMEs hold is given out by its index as
 * often as it is asked for; without an index each end's sequence goes on
 * durably, so that it gives no index twice, whatever happens. */

/* Pools that had nothing at the last try are asked again after so long: who has
 * less time is told that there is not enough key. */
#define DRY_MS 1000

typedef enum verdict { WAIT, ANSWER, SEQUENCE } verdict;

static bool
no_more(const qg_as_stream *st)
{
	return st->end[0].state == QG_AS_CLOSED || st->end[1].state == QG_AS_CLOSED;
}

static qg_err
open_block(qg_as_stream *st, const qg_as_block *b, unsigned end)
{
	if (st->cache[end].plain != NULL && st->cache[end].first == b->first &&
	    st->cache[end].serial == b->serial)
		return QG_OK;
	qg_secret *plain = NULL;
	const qg_err err = qg_as_unseal(st, b, &plain);
	if (err != QG_OK)
		return err;
	qg_secret_free(&st->cache[end].plain);
	st->cache[end].plain = plain;
	st->cache[end].first = b->first;
	st->cache[end].serial = b->serial;
	return QG_OK;
}

/* The text for an age that has grown to its longest meanwhile fits, too. */
static bool
put_metadata(const qg_as_stream *st, const qg_as_block *b, qg_as_call *call)
{
	if (!st->qos.metadata || call->req->metadata_max == 0)
		return true;
	const uint64_t now_ms = qg_as_now_ms(st);
	const uint64_t age = now_ms > b->since_ms ? now_ms - b->since_ms : 0;
	const int n = snprintf(call->got.metadata, sizeof call->got.metadata, "{\"age\": %u, \"hops\": %u}",
			       age < UINT32_MAX ? (unsigned)age : UINT32_MAX, (unsigned)b->hops);
	call->got.metadata_len = n > 0 ? (size_t)n : 0;
	if (call->got.metadata_len <= call->req->metadata_max)
		return true;
	const int most = snprintf(NULL, 0, "{\"age\": %u, \"hops\": %u}", UINT32_MAX, (unsigned)b->hops);
	call->got.metadata_needed = most > 0 ? (uint32_t)most : QG_APP_METADATA_MAX;
	call->got.metadata_len = 0;
	return false;
}

static verdict
status(qg_as_call *call, uint32_t value)
{
	call->got.status = value;
	return ANSWER;
}

static verdict
deliver(qg_as_stream *st, const qg_as_block *b, qg_as_call *call, uint64_t index)
{
	const uint32_t size = st->qos.chunk_size;
	call->got.index = (uint32_t)index;
	if (!put_metadata(st, b, call))
		return status(call, QG_ETSI004_METADATA_SIZE);
	if (open_block(st, b, call->end) != QG_OK || qg_secret_new(size, &call->got.key) != QG_OK)
		return status(call, QG_ETSI004_NO_KEY);
	const uint8_t *chunk =
		st->cache[call->end].plain->data + QG_MAC_BYTES + (index - b->first) * (size_t)size;
	memcpy(call->got.key->data, chunk, size);
	call->got.key->len = size;
	call->got.status = QG_ETSI004_SUCCESS;
	call->got.pushes = qg_as_pushes(call->req->sae, st->end[call->end].uri);
	if (index == b->first)
		qg_as_audit(st, call->end, QG_AUDIT_FETCHED, "key stream");
	const qg_account_rec account = {.sae = st->end[call->end].sae, .other = st->end[1 - call->end].sae,
					.requests = 1, .fetched = 1, .fetched_bits = (uint64_t)size * 8};
	qg_accounts_count(st->all->core->accounts, &account, true);
	return call->req->in_sequence ? SEQUENCE : ANSWER;
}

/* A reader that keeps up with what is ready gets more of it beforehand. */
static void
raise_want(qg_as_stream *st, uint64_t index)
{
	const uint64_t most = QG_AS_AHEAD_MAX / st->qos.chunk_size;
	if (st->want < index + 1)
		st->want = index + 1;
	if (index < st->next_index || st->next_index == 0)
		return;
	st->ahead = 2 * st->ahead < most ? 2 * st->ahead : (uint32_t)most;
}

static verdict
judge(qg_as_stream *st, qg_as_call *call)
{
	const qg_as_end *mine = &st->end[call->end];
	const uint64_t index = call->req->in_sequence ? mine->sequence : call->req->index;
	const uint64_t window = QG_AS_WINDOW_BYTES / st->qos.chunk_size;
	if (mine->state != QG_AS_OPEN || qg_as_suspended(st->all, mine->sae, st->end[1 - call->end].sae))
		return status(call, QG_ETSI004_NO_CONNECTION);
	if (st->end[1 - call->end].state == QG_AS_NONE)
		return status(call, QG_ETSI004_NO_PEER);
	const qg_as_block *b = qg_as_block_of(st, index, NULL);
	if (b != NULL && b->held)
		return deliver(st, b, call, index);
	/* Erased by its TTL, or never to come. */
	if ((b == NULL && index < st->next_index) || no_more(st) || index >= UINT32_MAX ||
	    index - (b == NULL ? st->next_index : index) > window)
		return status(call, QG_ETSI004_NO_KEY);
	return WAIT;
}

static void
sequence_stored(qg_as_stream *st, qg_err err, void *ctx)
{
	qg_as_call *call = ctx;
	qg_as_done done = {0};
	(void)st;
	/* Passed over, rather than given out twice. */
	if (err != QG_OK) {
		qg_secret_free(&call->got.key);
		call->got.metadata_len = 0;
		call->got.status = QG_ETSI004_NO_KEY;
	}
	qg_as_done_add(&done, call);
	qg_as_done_run(&done);
}

/* Under the lock; the call is in no list. True: it has to wait. */
static bool
try_call(qg_as_stream *st, qg_as_call *call, qg_as_done *done)
{
	const verdict v = judge(st, call);
	if (v == WAIT)
		return true;
	if (v == SEQUENCE) {
		st->end[call->end].sequence++;
		if (qg_as_save_then(st, NULL, sequence_stored, call) == QG_OK)
			return false;
		qg_secret_free(&call->got.key);
		call->got.status = QG_ETSI004_NO_KEY;
	}
	qg_as_done_add(done, call);
	return false;
}

void
qg_as_serve(qg_as_stream *st, qg_as_done *done)
{
	const uint64_t now_ms = qg_clock_elapsed_ms();
	qg_as_call *list = st->calls;
	st->calls = NULL;
	while (list != NULL) {
		qg_as_call *call = list;
		list = call->next;
		call->next = NULL;
		if (call->get && st->dry && call->req->wait_ms == 0 && call->deadline_ms < now_ms + DRY_MS)
			qg_as_refuse(call, QG_ETSI004_NO_KEY, done);
		else if (!call->get || try_call(st, call, done))
			qg_as_call_wait(st, call);
	}
}

int
qg_as_end_of(const qg_as_stream *st, const qg_config_sae *sae)
{
	int found = -1;
	for (int e = 0; e < (qg_as_local(st) ? 2 : 1); e++) {
		if (strcmp(st->end[e].sae, sae->id) != 0)
			continue;
		if (found < 0 || (st->end[found].state != QG_AS_OPEN && st->end[e].state == QG_AS_OPEN))
			found = e;
	}
	return found;
}

unsigned
qg_app_streams_dialect(qg_app_streams *all, const qg_config_sae *sae, const qg_uuid *ksid)
{
	pthread_mutex_lock(&all->lock);
	const qg_as_stream *st = qg_as_find(all, ksid);
	const int end = st == NULL ? -1 : qg_as_end_of(st, sae);
	const unsigned dialect = end < 0 ? 0 : st->end[end].dialect;
	pthread_mutex_unlock(&all->lock);
	return dialect;
}

void
qg_app_streams_get(qg_app_streams *all, const qg_app_get *req, qg_app_got_fn *done_fn, void *ctx)
{
	qg_as_done done = {0};
	qg_as_call *call = qg_as_call_new(all);
	if (call == NULL) {
		done_fn(ctx, &(qg_app_got){.status = QG_ETSI004_NO_KEY, .index = req->index});
		return;
	}
	call->get = true;
	call->req = req;
	call->got_done = done_fn;
	call->ctx = ctx;
	call->got.index = req->index;
	pthread_mutex_lock(&all->lock);
	qg_as_stream *st = qg_as_find(all, &req->ksid);
	const int end = st == NULL ? -1 : qg_as_end_of(st, req->sae);
	if (end < 0 || all->stopping) {
		pthread_mutex_unlock(&all->lock);
		qg_as_refuse(call, st != NULL && end < 0 ? QG_ETSI004_IN_USE : QG_ETSI004_NO_CONNECTION, &done);
		qg_as_done_run(&done);
		return;
	}
	st->pins++;
	qg_as_judge_rights(st, &done);
	if (st->ended) {
		qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, &done);
		qg_as_leave(st, &done);
		return;
	}
	call->end = (unsigned)end;
	const uint32_t wait_ms = req->wait_ms > 0 && req->wait_ms < st->qos.timeout_ms ? req->wait_ms
											 : st->qos.timeout_ms;
	call->deadline_ms = qg_clock_elapsed_ms() + wait_ms;
	st->used_ms = qg_as_now_ms(st);
	const uint64_t index = req->in_sequence ? st->end[end].sequence : req->index;
	const bool waits = try_call(st, call, &done);
	if (waits)
		qg_as_call_wait(st, call);
	if (waits || done.first == NULL || call->got.status == QG_ETSI004_SUCCESS)
		raise_want(st, index);
	qg_as_leave(st, &done);
	if (waits)
		qg_conductor_kick(all->core); /* for the deadline */
}
