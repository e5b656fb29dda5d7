/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* The table of the applications' key streams, and the calls that wait on them. */

#define OPENS_BURST 10 /* seconds' worth */

qg_err
qg_app_streams_new(struct qg_core *core)
{
	const qg_config_app_streams *cfg = &core->part.cfg->app_streams;
	struct qg_app_streams *all = calloc(1, sizeof *all);
	if (all == NULL)
		return QG_E_NOMEM;
	all->core = core;
	pthread_mutex_init(&all->lock, NULL);
	qg_random(all->hash_key, sizeof all->hash_key);
	core->app_streams = all;
	all->supply = calloc(core->n_streams + 1, sizeof *all->supply);
	if (all->supply == NULL)
		return QG_E_NOMEM;
	return qg_limits_new(cfg->opens_per_s, cfg->opens_per_s * OPENS_BURST, &all->opens);
}

static void
stream_free(qg_as_stream *st)
{
	assert(st->calls == NULL);
	for (size_t i = 0; i < st->n_block; i++)
		qg_as_block_free(&st->block[i]);
	qg_secret_free(&st->cache[0].plain);
	qg_secret_free(&st->cache[1].plain);
	free(st->block);
	free(st);
}

void
qg_app_streams_free(struct qg_core *core)
{
	struct qg_app_streams *all = core->app_streams;
	if (all == NULL)
		return;
	for (size_t i = 0; i < QG_AS_BUCKETS; i++) {
		while (all->bucket[i] != NULL) {
			qg_as_stream *st = all->bucket[i];
			all->bucket[i] = st->next;
			stream_free(st);
		}
	}
	qg_limits_free(&all->opens);
	free(all->supply);
	pthread_mutex_destroy(&all->lock);
	free(all);
	core->app_streams = NULL;
}

/* --- the table ------------------------------------------------------------------- */

/* Applications choose KSIDs: the hash is keyed. */
static qg_as_stream **
bucket_of(struct qg_app_streams *all, const qg_uuid *ksid)
{
	uint64_t hash = 0;
	_Static_assert(sizeof hash == crypto_shorthash_BYTES, "the hash is one word");
	(void)crypto_shorthash((unsigned char *)&hash, ksid->b, sizeof ksid->b, all->hash_key);
	return &all->bucket[hash % QG_AS_BUCKETS];
}

qg_as_stream *
qg_as_find(struct qg_app_streams *all, const qg_uuid *ksid)
{
	qg_as_stream *st = *bucket_of(all, ksid);
	while (st != NULL && !qg_uuid_equal(&st->ksid, ksid))
		st = st->next;
	return st;
}

qg_err
qg_as_new(struct qg_app_streams *all, const qg_uuid *ksid, qg_as_stream **out)
{
	qg_as_stream *st = calloc(1, sizeof *st);
	if (st == NULL)
		return QG_E_NOMEM;
	st->all = all;
	st->ksid = *ksid;
	st->tokens_ms = qg_clock_elapsed_ms();
	qg_as_stream **at = bucket_of(all, ksid);
	st->next = *at;
	*at = st;
	all->n++;
	*out = st;
	return QG_OK;
}

void
qg_as_unpin(qg_as_stream *st)
{
	assert(st->pins > 0);
	if (--st->pins == 0 && st->ended)
		stream_free(st);
}

void
qg_as_end_stream(qg_as_stream *st, qg_as_done *done)
{
	if (st->ended)
		return;
	qg_as_stream **at = bucket_of(st->all, &st->ksid);
	while (*at != st)
		at = &(*at)->next;
	*at = st->next;
	st->all->n--;
	st->ended = true;
	st->pins++;
	while (st->calls != NULL) {
		qg_as_call *call = st->calls;
		qg_as_call_leave(st, call);
		qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, done);
	}
	qg_as_log(st, "ended");
	if (st->stored)
		qg_as_delete(st);
	qg_as_unpin(st);
}

void
qg_as_leave(qg_as_stream *st, qg_as_done *done)
{
	struct qg_app_streams *all = st->all;
	pthread_mutex_unlock(&all->lock);
	qg_as_done_run(done);
	qg_as_pump(st);
	pthread_mutex_lock(&all->lock);
	qg_as_unpin(st);
	pthread_mutex_unlock(&all->lock);
}

void
qg_as_name(char *to, size_t room, const char *from)
{
	const size_t n = strnlen(from, room - 1);
	memcpy(to, from, n);
	to[n] = '\0';
}

bool
qg_as_local(const qg_as_stream *st)
{
	return st->kme[0] == '\0';
}

uint64_t
qg_as_now_ms(const qg_as_stream *st)
{
	const qg_lifetime *life = &st->all->core->life;
	return st->owner ? qg_lifetime_owner_ms(life) : qg_lifetime_far_ms(life);
}

size_t
qg_as_count(struct qg_app_streams *all, const char *sae)
{
	size_t n = 0;
	for (size_t i = 0; i < QG_AS_BUCKETS; i++)
		for (const qg_as_stream *st = all->bucket[i]; st != NULL; st = st->next)
			n += strcmp(st->end[0].sae, sae) == 0 ||
			     (qg_as_local(st) && strcmp(st->end[1].sae, sae) == 0);
	return n;
}

size_t
qg_app_streams_count(qg_app_streams *all)
{
	pthread_mutex_lock(&all->lock);
	const size_t n = all->n;
	pthread_mutex_unlock(&all->lock);
	return n;
}

void
qg_as_log(const qg_as_stream *st, const char *event)
{
	char text[QG_UUID_TEXT];
	qg_uuid_format(&st->ksid, text);
	qg_log(QG_LOG_INFO, "app", "event=app_stream ksid=%s what=%s kme=%s", text, event,
	       qg_as_local(st) ? st->all->core->part.cfg->kme_id : qg_log_safe(st->kme));
}

void
qg_as_audit(const qg_as_stream *st, unsigned end, qg_audit_act act, const char *why)
{
	const qg_audit_event e = {.act = act,
				  .caller = st->end[end].sae,
				  .peer = st->end[1 - end].sae,
				  .reason = why,
				  .size_bits = st->qos.chunk_size * 8,
				  .ids = &st->ksid,
				  .n_ids = 1};
	qg_audit_write(st->all->core->part.audit, &e);
}

/* --- calls ------------------------------------------------------------------------- */

qg_as_call *
qg_as_call_new(struct qg_app_streams *all)
{
	qg_as_call *call = calloc(1, sizeof *call);
	if (call == NULL)
		return NULL;
	call->all = all;
	call->id = qg_request_id_now();
	return call;
}

void
qg_as_call_wait(qg_as_stream *st, qg_as_call *call)
{
	qg_as_call **at = &st->calls;
	while (*at != NULL)
		at = &(*at)->next;
	call->next = NULL;
	*at = call;
}

void
qg_as_call_leave(qg_as_stream *st, qg_as_call *call)
{
	qg_as_call **at = &st->calls;
	while (*at != call)
		at = &(*at)->next;
	*at = call->next;
	call->next = NULL;
}

void
qg_as_done_add(qg_as_done *done, qg_as_call *call)
{
	call->next = NULL;
	if (done->last == NULL)
		done->first = call;
	else
		done->last->next = call;
	done->last = call;
}

void
qg_as_refuse(qg_as_call *call, uint32_t status, qg_as_done *done)
{
	if (call->get)
		call->got.status = status;
	else
		call->opened = (qg_app_opened){.status = status, .qos = {.mimetype = ""}};
	qg_as_done_add(done, call);
}

void
qg_as_done_run(qg_as_done *done)
{
	while (done->first != NULL) {
		qg_as_call *call = done->first;
		done->first = call->next;
		const qg_request_id *before = qg_request_id_enter(&call->id);
		if (call->get)
			call->got_done(call->ctx, &call->got);
		else
			call->opened_done(call->ctx, &call->opened);
		(void)qg_request_id_enter(before);
		qg_secret_free(&call->got.key);
		free(call);
	}
	done->last = NULL;
}

void
qg_app_streams_wind_down(struct qg_core *core)
{
	struct qg_app_streams *all = core->app_streams;
	qg_as_done done = {0};
	if (all == NULL)
		return;
	pthread_mutex_lock(&all->lock);
	all->stopping = true;
	for (size_t i = 0; i < QG_AS_BUCKETS; i++) {
		for (qg_as_stream *st = all->bucket[i]; st != NULL; st = st->next) {
			while (st->calls != NULL) {
				qg_as_call *call = st->calls;
				qg_as_call_leave(st, call);
				qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, &done);
			}
		}
	}
	pthread_mutex_unlock(&all->lock);
	qg_as_done_run(&done);
}
