/* SPDX-License-Identifier: Apache-2.0 */
#include "etsi004_push_internal.h"

#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "qkdgate/clock.h"
#include "qkdgate/http_client.h"
#include "qkdgate/log.h"

/* A push has one thing under way: a chunk that the core owes, or a call to the
 * application. Either's end begins the next. In between, after a refusal, it
 * waits for its time, which the thread here sees to. */

#define WAIT_MS 5000       /* for a chunk, at a time */
#define CALL_MS 10000
#define PAUSE_MS 1000      /* before the same chunk goes again */
#define ANSWER_MAX 4096
#define URL_MAX 512
#define BODY_ROOM(len) ((size_t)512 + 2 * (len))

typedef struct push {
	struct push *next;
	qg_004_pushes *all;
	const qg_etsi004_profile *profile;
	char sae[QG_KMS_SAE_MAX + 1];
	/* Of whom it is under way for, else with the lock. */
	qg_app_get get;
	uint32_t index;      /* of the chunk on its way */
	bool sequence;       /* chunks come without an index */
	uint64_t taken_ms;   /* the application took the last one */
	qg_004_push_begun *begun;
	void *ctx;
	/* With the lock. */
	bool under_way, ended;
	bool moved;          /* on with `to` */
	qg_app_get to;
	uint64_t due_ms;
} push;

struct qg_004_pushes {
	qg_etsi004_server_parts parts;
	qg_http_client *client;
	pthread_t thread;
	bool running;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	push *first;
	bool stopping;
	bool forbidden; /* to send */
};

static void next_chunk(push *p);

/* --- the list ----------------------------------------------------------------------- */

/* With the lock. */
static push *
find(const qg_004_pushes *all, const char *sae, const qg_uuid *ksid)
{
	push *p = all->first;
	while (p != NULL && (p->ended || strcmp(p->sae, sae) != 0 || !qg_uuid_equal(&p->get.ksid, ksid)))
		p = p->next;
	return p;
}

/* With the lock, which stays. */
static void
take_out(push *p)
{
	push **at = &p->all->first;
	while (*at != p)
		at = &(*at)->next;
	*at = p->next;
	free(p);
}

static void
say(const push *p, const char *why, int http)
{
	char text[QG_UUID_TEXT];
	qg_uuid_format(&p->get.ksid, text);
	qg_log(QG_LOG_WARN, "app", "event=app_push_stopped ksid=%s sae=%s index=%u http=%d reason=\"%s\"", text,
	       qg_log_safe(p->sae), (unsigned)p->index, http, why);
}

static void
tell_begun(push *p, uint32_t status)
{
	qg_004_push_begun *begun = p->begun;
	p->begun = NULL;
	if (begun != NULL)
		begun(p->ctx, status);
}

/* It is over; `why` NULL: as it should be. */
static void
finish(push *p, uint32_t status, const char *why, int http)
{
	qg_004_pushes *all = p->all;
	if (why != NULL && p->begun == NULL)
		say(p, why, http);
	tell_begun(p, status);
	pthread_mutex_lock(&all->lock);
	take_out(p);
	pthread_cond_broadcast(&all->wake);
	pthread_mutex_unlock(&all->lock);
}

/* With the lock: whether it goes on. */
static bool
goes_on(const push *p)
{
	return !p->ended && !p->all->stopping && !p->all->forbidden;
}

/* --- the call ------------------------------------------------------------------------- */

static void
taken(push *p)
{
	qg_004_pushes *all = p->all;
	pthread_mutex_lock(&all->lock);
	const bool last = p->index == UINT32_MAX;
	const bool on = goes_on(p) && !last;
	p->taken_ms = qg_clock_elapsed_ms();
	p->get.in_sequence = p->sequence;
	p->get.index = p->index + 1;
	if (p->moved) {
		p->get = p->to;
		p->sequence = p->to.in_sequence;
	}
	p->moved = false;
	pthread_mutex_unlock(&all->lock);
	if (on)
		next_chunk(p);
	else
		finish(p, QG_ETSI004_NO_CONNECTION, last ? "the index is at its end" : NULL, 0);
}

/* The same chunk again, after a while; in the end not. */
static void
refused(push *p, qg_err err, int http)
{
	qg_004_pushes *all = p->all;
	const uint64_t now_ms = qg_clock_elapsed_ms();
	const uint64_t most_ms = (uint64_t)all->parts.cfg->app_listener.at.idle_timeout_s * 1000;
	pthread_mutex_lock(&all->lock);
	const bool on = goes_on(p);
	const bool patient = now_ms - p->taken_ms <= most_ms;
	if (on && patient) {
		p->get.in_sequence = false; /* it has its number now */
		p->get.index = p->index;
		p->due_ms = now_ms + PAUSE_MS;
		p->under_way = false;
		pthread_cond_broadcast(&all->wake);
	}
	pthread_mutex_unlock(&all->lock);
	if (!on || !patient)
		finish(p, QG_ETSI004_NO_CONNECTION, on ? err != QG_OK ? qg_err_text(err) : "not taken" : NULL, http);
}

static void
answered(void *ctx, qg_err err, int http, const char *body, size_t len)
{
	push *p = ctx;
	(void)body, (void)len;
	if (err == QG_OK && http >= 200 && http < 300)
		taken(p);
	else if (err != QG_OK || http == 503 || http == 429 || http == 408)
		refused(p, err, http);
	else
		finish(p, QG_ETSI004_NO_CONNECTION, "refused", http);
}

/* QG_OK: `answered` will be called, or was. */
static qg_err
send_chunk(push *p, const char *url, const qg_app_got *r)
{
	QG_SECRET_AUTO *out = NULL;
	const qg_etsi004_push_ops *ops = p->profile->push;
	const qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY,
				       .status = QG_ETSI004_SUCCESS,
				       .ksid = p->get.ksid,
				       .qos = {.mimetype = ""},
				       .index = r->index,
				       .key = r->key->data,
				       .key_len = r->key->len};
	qg_err err = qg_secret_new(BODY_ROOM(r->key->len), &out);
	if (err != QG_OK)
		return err;
	qg_writer w = qg_writer_of(out->data, out->room);
	err = ops->put_body(p->profile, &a, &w);
	out->len = w.len;
	const qg_http_call call = {.method = ops->method,
				   .url = url,
				   .type = ops->type,
				   .body = out->data,
				   .len = out->len,
				   .timeout_ms = CALL_MS,
				   .answer_limit = ANSWER_MAX,
				   .done = answered,
				   .ctx = p};
	return err == QG_OK ? qg_http_client_send(p->all->client, &call) : err;
}

/* --- the chunk -------------------------------------------------------------------------- */

/* Where its SAE takes key now; false: nowhere. */
static bool
url_of(const push *p, char *url, size_t room)
{
	const qg_config_sae *sae = p->get.sae;
	const int n = sae != NULL && sae->push_to != NULL
			      ? snprintf(url, room, "%s%s", sae->push_to, p->profile->push->path)
			      : -1;
	return n > 0 && (size_t)n < room;
}

static bool
may_go_on(push *p)
{
	pthread_mutex_lock(&p->all->lock);
	const bool on = goes_on(p);
	pthread_mutex_unlock(&p->all->lock);
	return on;
}

static void
got(void *ctx, qg_app_got *r)
{
	push *p = ctx;
	char url[URL_MAX];
	const bool on = may_go_on(p);
	if (r->status == QG_ETSI004_TIMEOUT && on) {
		tell_begun(p, QG_ETSI004_SUCCESS);
		next_chunk(p);
		return;
	}
	if (r->status != QG_ETSI004_SUCCESS || !on) {
		finish(p, r->status == QG_ETSI004_SUCCESS ? QG_ETSI004_NO_CONNECTION : r->status,
		       on ? "no more key" : NULL, 0);
		return;
	}
	p->index = r->index;
	if (!url_of(p, url, sizeof url)) {
		finish(p, QG_ETSI004_NO_CONNECTION, "no push_to", 0);
		return;
	}
	tell_begun(p, QG_ETSI004_SUCCESS);
	const qg_err err = send_chunk(p, url, r);
	if (err != QG_OK)
		refused(p, err, 0);
}

/* Its SAE is looked up anew: the configuration may have changed. */
static void
next_chunk(push *p)
{
	const qg_etsi004_server_parts *parts = &p->all->parts;
	char url[URL_MAX];
	p->get.sae = qg_directory_local(parts->directory, p->sae);
	p->get.wait_ms = WAIT_MS;
	if (!url_of(p, url, sizeof url))
		finish(p, QG_ETSI004_NO_CONNECTION, "no push_to", 0);
	else if (!qg_audit_healthy(parts->audit)) /* no key leaves without a record */
		finish(p, QG_ETSI004_NO_KEY, "no audit log", 0);
	else
		qg_app_streams_get(parts->streams, &p->get, got, p);
}

/* --- beginning and end -------------------------------------------------------------------- */

void
qg_004_push_begin(qg_004_pushes *all, const qg_etsi004_profile *profile, const qg_app_get *get,
		  qg_004_push_begun *begun, void *ctx)
{
	push *fresh = calloc(1, sizeof *fresh);
	pthread_mutex_lock(&all->lock);
	push *p = find(all, get->sae->id, &get->ksid);
	const bool refuse = fresh == NULL || all->stopping || strlen(get->sae->id) >= sizeof fresh->sae;
	if (p != NULL && !refuse) {
		p->to = *get;
		p->moved = true;
		p->due_ms = 0; /* what was refused goes at once */
		pthread_cond_broadcast(&all->wake);
	} else if (!refuse) {
		*fresh = (push){.all = all, .profile = profile, .get = *get, .sequence = get->in_sequence,
				.index = get->index, .taken_ms = qg_clock_elapsed_ms(), .begun = begun, .ctx = ctx,
				.under_way = true, .next = all->first};
		memcpy(fresh->sae, get->sae->id, strlen(get->sae->id) + 1);
		all->first = fresh;
	}
	pthread_mutex_unlock(&all->lock);
	if (p == NULL && !refuse) {
		next_chunk(fresh);
		return;
	}
	free(fresh);
	begun(ctx, refuse ? QG_ETSI004_NO_CONNECTION : QG_ETSI004_SUCCESS);
}

void
qg_004_push_end(qg_004_pushes *all, const qg_config_sae *sae, const qg_uuid *ksid)
{
	pthread_mutex_lock(&all->lock);
	push *p = find(all, sae->id, ksid);
	if (p != NULL && p->under_way)
		p->ended = true;
	else if (p != NULL)
		take_out(p);
	pthread_mutex_unlock(&all->lock);
}

/* With the lock: one whose time has come, or NULL; *due_ms: the next time. */
static push *
due_push(qg_004_pushes *all, uint64_t now_ms, uint64_t *due_ms)
{
	*due_ms = now_ms + PAUSE_MS;
	for (push *p = all->first; p != NULL; p = p->next) {
		if (p->under_way)
			continue;
		if (p->due_ms <= now_ms)
			return p;
		*due_ms = p->due_ms < *due_ms ? p->due_ms : *due_ms;
	}
	return NULL;
}

static void
sleep_until(qg_004_pushes *all, uint64_t now_ms, uint64_t due_ms)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	const uint64_t ns = (uint64_t)t.tv_nsec + (due_ms - now_ms) * 1000000;
	t.tv_sec += (time_t)(ns / 1000000000);
	t.tv_nsec = (long)(ns % 1000000000);
	(void)pthread_cond_timedwait(&all->wake, &all->lock, &t);
}

static void *
run(void *arg)
{
	qg_004_pushes *all = arg;
	pthread_mutex_lock(&all->lock);
	while (!all->stopping) {
		uint64_t due_ms;
		const uint64_t now_ms = qg_clock_elapsed_ms();
		push *p = due_push(all, now_ms, &due_ms);
		if (p == NULL) {
			sleep_until(all, now_ms, due_ms);
			continue;
		}
		p->under_way = true;
		if (p->moved) {
			p->get = p->to;
			p->sequence = p->to.in_sequence;
			p->moved = false;
		}
		pthread_mutex_unlock(&all->lock);
		next_chunk(p);
		pthread_mutex_lock(&all->lock);
	}
	pthread_mutex_unlock(&all->lock);
	return NULL;
}

qg_err
qg_004_pushes_start(const qg_etsi004_server_parts *parts, qg_004_pushes **out)
{
	pthread_condattr_t attr;
	qg_004_pushes *all = calloc(1, sizeof *all);
	if (all == NULL)
		return QG_E_NOMEM;
	all->parts = *parts;
	pthread_mutex_init(&all->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&all->wake, &attr);
	pthread_condattr_destroy(&attr);
	qg_err err = qg_http_client_start(&parts->cfg->app_listener.at.tls, &all->client);
	if (err == QG_OK && pthread_create(&all->thread, NULL, run, all) != 0)
		err = QG_E_NOMEM;
	if (err != QG_OK) {
		qg_004_pushes_free(&all);
		return err;
	}
	pthread_setname_np(all->thread, "qg-app-push");
	all->running = true;
	*out = all;
	return QG_OK;
}

void
qg_004_pushes_forbid(qg_004_pushes *all)
{
	pthread_mutex_lock(&all->lock);
	all->forbidden = true;
	pthread_mutex_unlock(&all->lock);
}

void
qg_004_pushes_stop(qg_004_pushes *all)
{
	if (all == NULL)
		return;
	pthread_mutex_lock(&all->lock);
	all->stopping = true;
	pthread_cond_broadcast(&all->wake);
	pthread_mutex_unlock(&all->lock);
	if (all->running)
		pthread_join(all->thread, NULL);
	all->running = false;
	if (all->client != NULL)
		qg_http_client_stop(&all->client);
}

void
qg_004_pushes_free(qg_004_pushes **allp)
{
	if (allp == NULL || *allp == NULL)
		return;
	qg_004_pushes *all = *allp;
	*allp = NULL;
	qg_004_pushes_stop(all);
	pthread_mutex_lock(&all->lock);
	for (push *p = all->first, *next; p != NULL; p = next) {
		next = p->next;
		if (!p->under_way)
			take_out(p);
	}
	while (all->first != NULL) /* a chunk that the core owes */
		pthread_cond_wait(&all->wake, &all->lock);
	pthread_mutex_unlock(&all->lock);
	pthread_cond_destroy(&all->wake);
	pthread_mutex_destroy(&all->lock);
	free(all);
}
