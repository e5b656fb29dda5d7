/* SPDX-License-Identifier: Apache-2.0 */
/* The module that pushes: a thread for each stream that was asked for, with a
 * connection of its own to the application's listener. */
#include "sim_internal.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define CONNECT_MS 3000
#define CALL_MS 5000
#define PAUSE_MS 100 /* after a refusal, or a connection that failed */
#define MESSAGE_ROOM ((size_t)SIM_CHUNK_MAX * 2 + 2048)
#define SAY_EVERY_MS 1000

typedef struct pusher {
	sim_pushers *all;
	pthread_t thread;
	/* With the lock. */
	bool used, ended;
	const qg_etsi004_profile *profile;
	qg_uuid ksid;
	uint32_t index;
	bool moved;     /* index is new */
	qg_conn *conn;  /* used by the thread, aborted by others */
	/* The thread's own. */
	qg_secret *message, *key;
	uint64_t refused, said_ms;
} pusher;

struct sim_pushers {
	sim *s;
	char authority[280];
	pthread_mutex_t lock;
	bool stopping;
	pusher pusher[SIM_PUSHERS_MAX];
};

/* --- one chunk ------------------------------------------------------------------- */

static void
set_conn(pusher *p, qg_conn *conn)
{
	pthread_mutex_lock(&p->all->lock);
	qg_conn *old = p->conn;
	p->conn = conn;
	pthread_mutex_unlock(&p->all->lock);
	qg_conn_close(&old);
}

static qg_err
connect_to(pusher *p)
{
	const sim_options *o = &p->all->s->opt;
	qg_conn *conn = NULL;
	if (p->conn != NULL)
		return QG_OK;
	qg_err err = qg_conn_open(o->push_to.host, o->push_to.port, &o->files, o->push_to.host, CONNECT_MS, &conn);
	if (err == QG_OK)
		set_conn(p, conn);
	return err;
}

/* The whole answer, read over what was sent. */
static qg_err
receive(pusher *p, uint32_t *status, unsigned *http)
{
	qg_secret *m = p->message;
	const qg_etsi004_profile *profile = p->profile;
	size_t have = 0, total = 0;
	for (;;) {
		size_t got = 0;
		qg_err err = qg_conn_recv_some(p->conn, m->data + have, m->room - have, CALL_MS, &got);
		if (err != QG_OK)
			return err;
		have += got;
		err = profile->frame(profile, m->data, have, &total);
		if (err == QG_OK && total <= have)
			return profile->push->get_answer(profile, m->data, total, status, http);
		if (err != QG_OK && err != QG_E_AGAIN)
			return err;
		if (have == m->room)
			return QG_E_RANGE;
	}
}

static qg_err
push_chunk(pusher *p, const qg_etsi004_response *a, uint32_t *status, unsigned *http)
{
	qg_writer w = qg_writer_of(p->message->data, p->message->room);
	qg_err err = connect_to(p);
	if (err == QG_OK)
		err = p->profile->push->put(p->profile, a, p->all->authority, &w);
	if (err == QG_OK)
		err = qg_conn_send(p->conn, p->message->data, w.len, CALL_MS);
	if (err == QG_OK)
		err = receive(p, status, http);
	qg_wipe(p->message->data, p->message->room);
	if (err != QG_OK)
		set_conn(p, NULL);
	return err;
}

/* --- the stream -------------------------------------------------------------------- */

static void
say(pusher *p, const char *event, qg_err err, uint32_t index, unsigned http)
{
	char text[QG_UUID_TEXT];
	uint64_t now_ms = qg_clock_elapsed_ms();
	if (p->said_ms != 0 && now_ms - p->said_ms < SAY_EVERY_MS)
		return;
	p->said_ms = now_ms;
	qg_uuid_format(&p->ksid, text);
	qg_log(QG_LOG_INFO, "sim", "event=%s ksid=%s index=%u http=%u error=\"%s\" refused=%llu", event, text, index,
	       http, qg_err_text(err), (unsigned long long)p->refused);
}

/* Whether the index is done with: taken, or given up. */
static bool
push_index(pusher *p, const qg_etsi004_response *chunk, bool *gone_on)
{
	qg_etsi004_response a = *chunk;
	uint32_t status = 0;
	unsigned http = 0;
	a.ksid = p->ksid;
	qg_err err = push_chunk(p, &a, &status, &http);
	if (err != QG_OK) {
		say(p, "push_failed", err, a.index, http);
		poll(NULL, 0, PAUSE_MS);
		return false;
	}
	if (http < 300)
		return true;
	p->refused++;
	say(p, "push_refused", QG_OK, a.index, http);
	*gone_on = http == 503; /* else it is not wanted at all */
	if (http == 503 && !p->all->s->opt.push_drop)
		poll(NULL, 0, PAUSE_MS);
	return http == 503 && p->all->s->opt.push_drop;
}

/* The index to push now; false when the pusher is to end. */
static bool
index_now(pusher *p, uint32_t *index)
{
	pthread_mutex_lock(&p->all->lock);
	if (p->moved)
		*index = p->index;
	p->moved = false;
	bool on = !p->all->stopping;
	pthread_mutex_unlock(&p->all->lock);
	return on;
}

static void
push_stream(pusher *p)
{
	uint32_t index = 0;
	bool going = true;
	while (going && index_now(p, &index)) {
		qg_etsi004_request q = {.op = QG_ETSI004_GET_KEY, .ksid = p->ksid, .index = index};
		qg_etsi004_response a;
		uint32_t age_ms = 0;
		bool metadata = false;
		sim_get(p->all->s, &q, qg_clock_elapsed_ms(), true, p->key, &age_ms, &metadata, &a);
		if (a.status == QG_ETSI004_SUCCESS)
			index += push_index(p, &a, &going);
		else if (a.status == QG_ETSI004_NO_CONNECTION)
			going = false;
		else
			poll(NULL, 0, 10);
	}
}

static void *
pusher_main(void *pusher_)
{
	pusher *p = pusher_;
	if (qg_secret_new(MESSAGE_ROOM, &p->message) == QG_OK && qg_secret_new(SIM_CHUNK_MAX, &p->key) == QG_OK)
		push_stream(p);
	set_conn(p, NULL);
	qg_secret_free(&p->message);
	qg_secret_free(&p->key);
	pthread_mutex_lock(&p->all->lock);
	p->ended = true;
	pthread_mutex_unlock(&p->all->lock);
	return NULL;
}

/* --- all of them --------------------------------------------------------------------- */

/* With the lock: the stream's pusher, or a place for one, or NULL. */
static pusher *
place(sim_pushers *all, const qg_uuid *ksid)
{
	pusher *free_one = NULL;
	for (size_t i = 0; i < SIM_PUSHERS_MAX; i++) {
		pusher *p = &all->pusher[i];
		if (p->used && !p->ended && qg_uuid_equal(&p->ksid, ksid))
			return p;
		if (!p->used || p->ended)
			free_one = p;
	}
	if (free_one != NULL && free_one->used) {
		pthread_join(free_one->thread, NULL); /* it has let go of the lock for good */
		free_one->used = false;
	}
	return free_one;
}

uint32_t
sim_push_from(sim_pushers *all, const qg_etsi004_profile *profile, const qg_uuid *ksid, uint32_t index)
{
	sim *s = all->s;
	uint32_t status = QG_ETSI004_SUCCESS;
	pthread_mutex_lock(&s->lock);
	const sim_stream *st = sim_stream_find(s, ksid);
	bool open = st != NULL && st->here;
	pthread_mutex_unlock(&s->lock);
	if (!open || s->opt.push_to.port == 0)
		return QG_ETSI004_NO_CONNECTION;
	pthread_mutex_lock(&all->lock);
	pusher *p = place(all, ksid);
	if (p == NULL || all->stopping) {
		status = QG_ETSI004_NO_CONNECTION;
	} else {
		bool runs = p->used;
		if (!runs)
			*p = (pusher){.all = all, .used = true, .ksid = *ksid, .profile = profile};
		p->index = index;
		p->moved = true;
		if (!runs && pthread_create(&p->thread, NULL, pusher_main, p) != 0) {
			p->used = false;
			status = QG_ETSI004_NO_CONNECTION;
		}
	}
	pthread_mutex_unlock(&all->lock);
	return status;
}

qg_err
sim_pushers_new(sim *s, sim_pushers **out)
{
	sim_pushers *all = calloc(1, sizeof *all);
	if (all == NULL)
		return QG_E_NOMEM;
	all->s = s;
	const char *host = s->opt.push_to.host;
	int n = snprintf(all->authority, sizeof all->authority, strchr(host, ':') != NULL ? "[%s]:%u" : "%s:%u", host,
			 s->opt.push_to.port);
	if (n < 0 || (size_t)n >= sizeof all->authority) {
		free(all);
		return QG_E_RANGE;
	}
	pthread_mutex_init(&all->lock, NULL);
	*out = all;
	return QG_OK;
}

void
sim_pushers_free(sim_pushers **all)
{
	sim_pushers *gone = *all;
	*all = NULL;
	pthread_mutex_lock(&gone->lock);
	gone->stopping = true;
	for (size_t i = 0; i < SIM_PUSHERS_MAX; i++)
		if (gone->pusher[i].used && gone->pusher[i].conn != NULL)
			qg_conn_abort(gone->pusher[i].conn);
	pthread_mutex_unlock(&gone->lock);
	for (size_t i = 0; i < SIM_PUSHERS_MAX; i++)
		if (gone->pusher[i].used)
			pthread_join(gone->pusher[i].thread, NULL);
	pthread_mutex_destroy(&gone->lock);
	free(gone);
}
