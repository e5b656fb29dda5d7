/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* The far end's part of a stream's key: new_app_keys names keys of the owner's,
 * which are taken out of the stream they were issued on like those of any
 * slave, compared by the MAC, and stored; then the owner is answered. And
 * want_app_keys, which has the owner go on. */

#define TEXT_MAX 1024

/* --- new_app_keys --------------------------------------------------------------------- */

typedef struct taking {
	qg_as_stream *st; /* pinned */
	qg_kms_app_keys m;
	qg_as_binding names;
	qg_fetch_request req;
	qg_as_block *b;
	qg_peer_answer *answer;
	void *ctx;
} taking;

static void
answer_keys(qg_kms_app_keys_result result, const uint8_t *mac, qg_peer_answer *answer, void *ctx)
{
	qg_kms_app_keys_answer a = {.result = result};
	char text[TEXT_MAX];
	size_t len = 0;
	if (mac != NULL)
		memcpy(a.mac, mac, sizeof a.mac);
	if (qg_kms_app_keys_answer_encode(&a, text, sizeof text, &len) == QG_OK)
		answer(ctx, 200, text, len);
	else
		answer(ctx, 500, NULL, 0);
}

/* Nothing of it is held, or ever will be. */
static void
taking_gone(taking *t, const char *why)
{
	qg_as_stream *st = t->st;
	qg_as_done done = {0};
	if (why != NULL)
		qg_as_audit(st, 0, QG_AUDIT_DESTROYED, why);
	pthread_mutex_lock(&st->all->lock);
	st->filling = false;
	qg_as_leave(st, &done);
	answer_keys(QG_KMS_APP_KEYS_GONE, NULL, t->answer, t->ctx);
	qg_as_block_free(&t->b);
	free(t);
}

static void
taken(qg_as_stream *st, qg_err err, void *ctx)
{
	taking *t = ctx;
	struct qg_app_streams *all = st->all;
	qg_as_done done = {0};
	pthread_mutex_lock(&all->lock);
	st->filling = false;
	qg_as_block *b = t->b;
	const bool ok = err == QG_OK && !st->ended && qg_as_block_add(st, b) == QG_OK;
	if (ok) {
		t->b = NULL;
		b->held = true;
		st->next_index = (uint64_t)b->first + b->count;
		qg_as_serve(st, &done);
	} else if (!st->ended) {
		/* It may be in the store, and must not be replaced then. */
		qg_as_log(st, "not_saved");
		qg_as_end_stream(st, &done);
	}
	qg_as_leave(st, &done);
	if (ok)
		t->answer(t->ctx, 200, b->message, b->message_len);
	else
		answer_keys(QG_KMS_APP_KEYS_UNKNOWN, NULL, t->answer, t->ctx);
	qg_as_block_free(&t->b);
	free(t);
}

/* With the answer that it gets from now on. */
static qg_err
make_block(taking *t, const qg_secret *keys)
{
	static const uint8_t nothing[QG_MAC_BYTES];
	qg_as_stream *st = t->st;
	qg_kms_app_keys_answer a = {.result = QG_KMS_APP_KEYS_HELD};
	qg_as_block *b = calloc(1, sizeof *b);
	char *text = malloc(TEXT_MAX);
	t->b = b;
	if (b == NULL || text == NULL) {
		free(text);
		return QG_E_NOMEM;
	}
	*b = (qg_as_block){.first = t->m.first, .count = t->m.count, .serial = t->m.serial, .hops = t->m.hops};
	b->held = true;
	b->since_ms = qg_lifetime_far_ms(&st->all->core->life);
	b->message = text;
	memcpy(b->tag, t->m.mac, sizeof b->tag);
	qg_as_answer_mac(t->m.mac, keys->data + QG_MAC_KEY_BYTES, a.mac);
	const qg_err err = qg_kms_app_keys_answer_encode(&a, text, TEXT_MAX, &b->message_len);
	return err == QG_OK ? qg_as_seal(st, b, t->m.chunk_size, nothing, keys->data + QG_KMS_MAC_OVERHEAD) : err;
}

static void
fetched(void *ctx, qg_fetch_result *r)
{
	taking *t = ctx;
	qg_as_stream *st = t->st;
	uint8_t mac[QG_MAC_BYTES];
	QG_SECRET_AUTO *keys = r->keys;
	r->keys = NULL;
	if (r->err != QG_OK || keys->len != t->m.n * t->m.key_size) {
		taking_gone(t, r->err == QG_OK ? "keys of another size" : NULL);
		return;
	}
	qg_as_keys_mac(&t->m, keys->data, keys->data + QG_KMS_MAC_OVERHEAD, mac);
	if (!qg_equal_ct(mac, t->m.mac, sizeof mac)) {
		taking_gone(t, "key stream: the MAC does not verify");
		return;
	}
	if (make_block(t, keys) != QG_OK) {
		taking_gone(t, NULL);
		return;
	}
	pthread_mutex_lock(&st->all->lock);
	const uint64_t next = st->next_index;
	st->next_index = (uint64_t)t->b->first + t->b->count;
	const qg_err err = st->ended ? QG_E_CLOSED : qg_as_save_then(st, t->b, taken, t);
	st->next_index = next; /* in force with the block */
	pthread_mutex_unlock(&st->all->lock);
	if (err != QG_OK)
		taking_gone(t, NULL);
}

typedef enum judged { TAKE, SAY, LATER, REPEAT } judged;

/* Under the lock. */
static judged
judge(qg_as_stream *st, const qg_kms_app_keys *m, qg_kms_app_keys_result *say, const qg_as_block **known)
{
	const uint64_t most = st->all->core->part.cfg->app_streams.held_bytes;
	*say = QG_KMS_APP_KEYS_UNKNOWN;
	if (st->owner || m->chunk_size != st->qos.chunk_size)
		return SAY;
	*say = QG_KMS_APP_KEYS_GONE;
	if (st->end[0].state == QG_AS_CLOSED)
		return SAY; /* the owner is about to be told */
	*say = QG_KMS_APP_KEYS_UNKNOWN;
	if (st->announcing || !st->settled || (st->filling && m->serial >= st->serial))
		return LATER;
	if (m->first < st->next_index) {
		const qg_as_block *b = qg_as_block_of(st, m->first, NULL);
		*known = b;
		if (b != NULL && b->first == m->first && b->serial == m->serial &&
		    qg_equal_ct(b->tag, m->mac, sizeof b->tag) && b->message != NULL)
			return REPEAT;
		return SAY;
	}
	if (m->first > st->next_index)
		return SAY;
	*say = QG_KMS_APP_KEYS_GONE;
	if (m->serial <= st->serial)
		return SAY; /* refused before */
	*say = QG_KMS_APP_KEYS_FULL;
	return st->held_bytes + (uint64_t)m->count * m->chunk_size > most ? SAY : TAKE;
}

static void
take(qg_as_stream *st, const qg_kms_app_keys *m, taking *t)
{
	t->st = st;
	t->m = *m;
	qg_as_bind(st, &t->m, &t->names);
	t->req = (qg_fetch_request){.master = t->names.master,
				    .slave = t->names.slave,
				    .kme = st->kme,
				    .ids = t->m.id,
				    .n = t->m.n};
	qg_keystore_fetch(&st->all->core->keystore, &t->req, fetched, t);
}

void
qg_app_keys_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		    qg_peer_answer *answer, void *ctx)
{
	struct qg_app_streams *all = core->app_streams;
	qg_kms_app_keys m;
	qg_kms_app_keys_result say = QG_KMS_APP_KEYS_UNKNOWN;
	const qg_as_block *known = NULL;
	char text[TEXT_MAX];
	size_t text_len = 0;
	if (qg_kms_app_keys_decode(body, len, &m) != QG_OK) {
		answer(ctx, 400, NULL, 0);
		return;
	}
	taking *t = calloc(1, sizeof *t);
	pthread_mutex_lock(&all->lock);
	qg_as_stream *st = qg_as_find(all, &m.ksid);
	judged j = SAY;
	if (st != NULL && strcmp(st->kme, neighbour) == 0)
		j = t == NULL || all->stopping ? LATER : judge(st, &m, &say, &known);
	if (j == REPEAT) {
		memcpy(text, known->message, known->message_len);
		text_len = known->message_len;
	} else if (j == TAKE) {
		st->filling = true;
		st->serial = m.serial;
		st->pins++;
		t->answer = answer;
		t->ctx = ctx;
	}
	pthread_mutex_unlock(&all->lock);
	if (j == TAKE) {
		take(st, &m, t);
		return;
	}
	free(t);
	if (j == REPEAT)
		answer(ctx, 200, text, text_len);
	else if (j == LATER)
		answer(ctx, 503, NULL, 0);
	else
		answer_keys(say, NULL, answer, ctx);
}

/* --- want_app_keys ------------------------------------------------------------------------- */

static void
want_answered(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_as_stream *st = ctx;
	struct qg_app_streams *all = st->all;
	qg_kms_app_want_answer a;
	qg_as_done done = {0};
	if (err == QG_OK && http_status != 200)
		err = QG_E_AGAIN;
	if (err == QG_OK)
		err = qg_kms_app_want_answer_decode(body, len, &a);
	pthread_mutex_lock(&all->lock);
	st->asking = false;
	if (err != QG_OK) {
		st->asked = 0;
		st->ask_at_ms = qg_clock_elapsed_ms() + 200;
	} else if (a.result == QG_KMS_APP_UNKNOWN && !st->ended && st->end[1].state == QG_AS_OPEN) {
		qg_as_log(st, "unknown_there");
		qg_as_end_stream(st, &done);
	}
	qg_as_leave(st, &done);
}

void
qg_as_want_send(qg_as_stream *st, uint64_t until)
{
	struct qg_app_streams *all = st->all;
	qg_channel *ch = all->core->part.channel;
	qg_kms_app_want m = {.ksid = st->ksid, .until = until < UINT32_MAX ? (uint32_t)until : UINT32_MAX};
	char text[TEXT_MAX];
	size_t len = 0;
	if (qg_kms_app_want_encode(&m, text, sizeof text, &len) == QG_OK &&
	    ch->ops->send(ch, st->kme, QG_KMS_WANT_APP_KEYS, text, len, 0, want_answered, st) == QG_OK)
		return;
	pthread_mutex_lock(&all->lock);
	st->asking = false;
	st->asked = 0;
	st->ask_at_ms = qg_clock_elapsed_ms() + 200;
	qg_as_unpin(st);
	pthread_mutex_unlock(&all->lock);
}

void
qg_app_want_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		    qg_peer_answer *answer, void *ctx)
{
	struct qg_app_streams *all = core->app_streams;
	qg_kms_app_want m;
	qg_kms_app_want_answer a = {.result = QG_KMS_APP_UNKNOWN};
	char text[TEXT_MAX];
	size_t text_len = 0;
	qg_as_done done = {0};
	if (qg_kms_app_want_decode(body, len, &m) != QG_OK) {
		answer(ctx, 400, NULL, 0);
		return;
	}
	pthread_mutex_lock(&all->lock);
	qg_as_stream *st = qg_as_find(all, &m.ksid);
	if (st != NULL && strcmp(st->kme, neighbour) == 0 && st->owner) {
		const uint64_t most = QG_AS_AHEAD_MAX / st->qos.chunk_size;
		const uint64_t window = st->next_index + QG_AS_WINDOW_BYTES / st->qos.chunk_size;
		const uint64_t until = m.until < window ? m.until : window;
		a.result = QG_KMS_APP_KNOWN;
		if (until > st->next_index && st->next_index > 0)
			st->ahead = 2 * st->ahead < most ? 2 * st->ahead : (uint32_t)most;
		if (st->want < until)
			st->want = until;
		st->pins++;
		qg_as_leave(st, &done);
	} else {
		pthread_mutex_unlock(&all->lock);
	}
	if (qg_kms_app_want_answer_encode(&a, text, sizeof text, &text_len) == QG_OK)
		answer(ctx, 200, text, text_len);
	else
		answer(ctx, 500, NULL, 0);
}
