/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* The owner's part of a stream's key: draws the next run of chunks out of the
 * pool towards the other KME, stores it, tells the other KME the key IDs, and
 * gives chunks out once that one holds them, too. One run is under way at a
 * time. Where both ends are here, chunks are drawn from the kernel. */

#define BACKOFF_MIN_MS 50
#define BACKOFF_MAX_MS 2000

/* --- bindings and MACs ------------------------------------------------------------------ */

/* URIs hold no control characters, and no SAE ID does: so nobody can ask for
 * such an ID over ETSI GS QKD 014. */
void
qg_as_bind(const qg_as_stream *st, const qg_kms_app_keys *m, qg_as_binding *out)
{
	char ksid[QG_UUID_TEXT];
	qg_uuid_format(&m->ksid, ksid);
	int n = snprintf(out->master, sizeof out->master, "\x01%s\x01%u\x01%u\x01%u\x01%u\x01%u\x01%u", ksid,
			 (unsigned)m->serial, (unsigned)m->first, (unsigned)m->count, (unsigned)m->chunk_size,
			 (unsigned)m->key_size, (unsigned)m->n);
	assert(n > 0 && (size_t)n < sizeof out->master);
	n = snprintf(out->slave, sizeof out->slave, "\x01%s\x01%s", st->end[st->owner ? 0 : 1].uri,
		     st->end[st->owner ? 1 : 0].uri);
	assert(n > 0 && (size_t)n < sizeof out->slave);
	(void)n;
}

void
qg_as_keys_mac(const qg_kms_app_keys *m, const uint8_t *key, const uint8_t *chunks, uint8_t mac[QG_MAC_BYTES])
{
	uint8_t canonical[QG_KMS_APP_KEYS_CANONICAL_MAX];
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_app_keys_canonical(m, &w);
	assert(!w.bad);
	crypto_onetimeauth_state s;
	crypto_onetimeauth_init(&s, key);
	crypto_onetimeauth_update(&s, canonical, w.len);
	crypto_onetimeauth_update(&s, chunks, (size_t)m->count * m->chunk_size);
	crypto_onetimeauth_final(&s, mac);
	qg_wipe(&s, sizeof s);
	qg_wipe_stack();
}

void
qg_as_answer_mac(const uint8_t request_mac[QG_MAC_BYTES], const uint8_t *key, uint8_t mac[QG_MAC_BYTES])
{
	uint8_t canonical[64];
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_app_keys_answer_canonical(request_mac, &w);
	assert(!w.bad);
	crypto_onetimeauth(mac, canonical, w.len, key);
	qg_wipe_stack();
}

/* --- when -------------------------------------------------------------------------------- */

static void
back_off(qg_as_stream *st)
{
	st->backoff_ms = st->backoff_ms == 0 ? BACKOFF_MIN_MS : 2 * st->backoff_ms;
	if (st->backoff_ms > BACKOFF_MAX_MS)
		st->backoff_ms = BACKOFF_MAX_MS;
	st->fill_at_ms = qg_clock_elapsed_ms() + st->backoff_ms;
}

static uint32_t
ahead_least(const qg_as_stream *st)
{
	const uint32_t n = QG_AS_AHEAD_MIN / st->qos.chunk_size;
	return n > 0 ? n : 1;
}

/* Chunks that the stream lacks, and may have now. */
static uint32_t
wanted(qg_as_stream *st, uint64_t now_ms)
{
	const uint32_t size = st->qos.chunk_size;
	if (st->ahead < ahead_least(st))
		st->ahead = ahead_least(st);
	const uint64_t until = st->want + st->ahead;
	const uint64_t held_most = st->all->core->part.cfg->app_streams.held_bytes;
	if (st->next_index >= until || st->next_index >= UINT32_MAX || st->held_bytes + size > held_most)
		return 0;
	/* Not for a few chunks while there is enough. */
	if (st->next_index > st->want && until - st->next_index < (st->ahead + 1) / 2)
		return 0;
	uint64_t n = until - st->next_index;
	const uint64_t room = (held_most - st->held_bytes) / size, fit = QG_AS_BLOCK_BYTES / size;
	const double tokens = qg_as_tokens(st, now_ms) / (8.0 * size);
	n = n < room ? n : room;
	n = n < fit ? n : fit;
	n = n < UINT32_MAX - st->next_index ? n : UINT32_MAX - st->next_index;
	n = tokens < (double)n ? (uint64_t)tokens : n;
	if (n == 0)
		st->fill_at_ms = now_ms + 20;
	return (uint32_t)n;
}

/* While the pool is empty, streams of a higher priority come first. */
static bool
yields(const qg_as_stream *st)
{
	for (size_t i = 0; i < QG_AS_BUCKETS; i++)
		for (const qg_as_stream *x = st->all->bucket[i]; x != NULL; x = x->next)
			if (x->dry && x->qos.priority > st->qos.priority && strcmp(x->kme, st->kme) == 0)
				return true;
	return false;
}

static bool
may_fill(const qg_as_stream *st, uint64_t now_ms)
{
	return st->owner && st->settled && !st->ended && !st->filling && !st->all->stopping &&
	       now_ms >= st->fill_at_ms && st->end[0].state == QG_AS_OPEN && st->end[1].state == QG_AS_OPEN;
}

/* --- storing ------------------------------------------------------------------------------ */

/* Under the lock, after a run came to its end, well or not. */
static void
run_over(qg_as_stream *st)
{
	st->filling = st->sending = false;
}

static void
stored(qg_as_stream *st, qg_err err, void *ctx)
{
	struct qg_app_streams *all = st->all;
	qg_as_block *b = ctx;
	qg_as_done done = {0};
	pthread_mutex_lock(&all->lock);
	st->pins++;
	if (st->ended) {
		/* Its blocks go with it. */
	} else if (err == QG_OK && !qg_as_local(st)) {
		st->fill_at_ms = 0; /* to be sent */
	} else if (err == QG_OK) {
		b->held = true;
		st->fill_at_ms = 0;
		run_over(st);
		qg_as_serve(st, &done);
	} else {
		/* Whether it is there nobody knows: but only the same bytes may be. */
		qg_as_log(st, "not_saved");
		qg_as_end_stream(st, &done);
	}
	qg_as_leave(st, &done);
}

/* Under the lock. Takes *b. */
static qg_err
append(qg_as_stream *st, qg_as_block **b)
{
	qg_err err = qg_as_block_add(st, *b);
	if (err != QG_OK)
		return err;
	qg_as_block *added = *b;
	st->next_index = (uint64_t)added->first + added->count;
	st->serial = added->serial;
	err = qg_as_save_then(st, added, stored, added);
	if (err != QG_OK) {
		st->n_block--;
		st->held_bytes -= (uint64_t)added->count * st->qos.chunk_size;
		st->next_index = added->first;
		return err;
	}
	*b = NULL;
	st->tokens -= (double)added->count * st->qos.chunk_size * 8;
	st->dry = false;
	st->backoff_ms = 0;
	st->fill_at_ms = UINT64_MAX; /* not sent before it is stored */
	return QG_OK;
}

/* --- drawing -------------------------------------------------------------------------------- */

typedef struct draw {
	qg_as_stream *st; /* pinned */
	qg_kms_app_keys m;
	qg_as_binding names;
	char account[2 * QG_KMS_SAE_MAX + 8];
	qg_issue_request req;
	uint32_t count, key_most;
} draw;

/* The keys for so many chunks: one just large enough, or several alike. */
static void
draw_size(draw *d, uint32_t count)
{
	const uint64_t most = (uint64_t)QG_KMS_BLOCK_IDS_MAX * d->key_most - QG_KMS_MAC_OVERHEAD;
	if ((uint64_t)count * d->m.chunk_size > most)
		count = (uint32_t)(most / d->m.chunk_size);
	const uint64_t bytes = QG_KMS_MAC_OVERHEAD + (uint64_t)count * d->m.chunk_size;
	d->count = d->m.count = count;
	d->m.key_size = bytes < d->key_most ? (uint32_t)bytes : d->key_most;
	d->m.n = (size_t)((bytes + d->m.key_size - 1) / d->m.key_size);
}

static void draw_issue(draw *d);
static void draw_over(draw *d, qg_err err);

static qg_err
draw_block(const draw *d, const qg_issue_result *r, qg_as_block *b)
{
	qg_as_stream *st = d->st;
	qg_kms_app_keys m = d->m;
	uint8_t expect[QG_MAC_BYTES];
	const uint8_t *chunks = r->keys->data + QG_KMS_MAC_OVERHEAD;
	char *text = malloc(QG_KMS_MSG_MAX);
	if (text == NULL)
		return QG_E_NOMEM;
	memcpy(m.id, r->ids, m.n * sizeof m.id[0]);
	for (size_t i = 0; i < m.n && r->hops != NULL; i++)
		m.hops = r->hops[i] > m.hops ? r->hops[i] : m.hops;
	qg_as_keys_mac(&m, r->keys->data, chunks, m.mac);
	qg_as_answer_mac(m.mac, r->keys->data + QG_MAC_KEY_BYTES, expect);
	*b = (qg_as_block){.first = m.first, .count = m.count, .serial = m.serial, .hops = m.hops};
	b->since_ms = qg_lifetime_owner_ms(&st->all->core->life);
	memcpy(b->tag, m.mac, sizeof b->tag);
	qg_err err = qg_kms_app_keys_encode(&m, text, QG_KMS_MSG_MAX, &b->message_len);
	b->message = text;
	if (err == QG_OK)
		err = qg_as_seal(st, b, m.chunk_size, expect, chunks);
	qg_wipe(expect, sizeof expect);
	return err;
}

static void
draw_over(draw *d, qg_err err)
{
	qg_as_stream *st = d->st;
	struct qg_app_streams *all = st->all;
	qg_as_done done = {0};
	pthread_mutex_lock(&all->lock);
	if (err != QG_OK) {
		run_over(st);
		st->dry = err == QG_E_EMPTY || err == QG_E_LIMIT;
		back_off(st);
		if (!st->ended)
			qg_as_serve(st, &done);
	}
	qg_as_leave(st, &done);
	free(d);
}

static void
drawn(void *ctx, qg_issue_result *r)
{
	draw *d = ctx;
	qg_as_stream *st = d->st;
	qg_as_block *b = NULL;
	qg_err err = r->err;
	if (err == QG_E_EMPTY && d->count > 1) {
		draw_size(d, d->count / 2);
		draw_issue(d);
		return;
	}
	QG_SECRET_AUTO *keys = r->keys;
	r->keys = NULL;
	if (err == QG_OK) {
		b = calloc(1, sizeof *b);
		qg_issue_result kept = *r;
		kept.keys = keys;
		err = b == NULL ? QG_E_NOMEM : draw_block(d, &kept, b);
	}
	if (err == QG_OK) {
		pthread_mutex_lock(&st->all->lock);
		err = st->ended ? QG_E_CLOSED : append(st, &b);
		pthread_mutex_unlock(&st->all->lock);
	}
	qg_as_block_free(&b);
	draw_over(d, err);
}

static void
draw_issue(draw *d)
{
	if (d->key_most == 0) {
		qg_keystore_level level;
		qg_keystore_level_of(&d->st->all->core->keystore, d->st->kme, &level);
		d->key_most = level.max_key_bytes < QG_AS_KEY_BYTES ? level.max_key_bytes : QG_AS_KEY_BYTES;
		if (d->key_most < QG_KMS_MAC_OVERHEAD) {
			draw_over(d, QG_E_EMPTY);
			return;
		}
		draw_size(d, d->count);
	}
	qg_as_bind(d->st, &d->m, &d->names);
	d->req = (qg_issue_request){
		.master = d->names.master,
		.slave = d->names.slave,
		.number = (uint32_t)d->m.n,
		.size_bytes = d->m.key_size,
		.max_hops = UINT32_MAX,
		.kme = d->st->kme,
		.account = d->account,
	};
	qg_keystore_issue(&d->st->all->core->keystore, &d->req, drawn, d);
}

/* Both ends are here: nobody has to be told. */
static void
draw_here(draw *d)
{
	qg_as_stream *st = d->st;
	static const uint8_t nothing[QG_MAC_BYTES];
	QG_SECRET_AUTO *chunks = NULL;
	const size_t bytes = (size_t)d->count * d->m.chunk_size;
	qg_as_block *b = calloc(1, sizeof *b);
	qg_err err = b == NULL ? QG_E_NOMEM : qg_secret_new(bytes, &chunks);
	if (err == QG_OK) {
		qg_random(chunks->data, bytes);
		*b = (qg_as_block){.first = d->m.first, .count = d->count, .serial = d->m.serial};
		b->since_ms = qg_lifetime_owner_ms(&st->all->core->life);
		err = qg_as_seal(st, b, d->m.chunk_size, nothing, chunks->data);
	}
	if (err == QG_OK) {
		pthread_mutex_lock(&st->all->lock);
		err = st->ended ? QG_E_CLOSED : append(st, &b);
		pthread_mutex_unlock(&st->all->lock);
	}
	qg_as_block_free(&b);
	draw_over(d, err);
}

/* Under the lock. NULL: nothing is to be drawn. */
static draw *
draw_new(qg_as_stream *st, uint64_t now_ms)
{
	uint32_t count = may_fill(st, now_ms) ? wanted(st, now_ms) : 0;
	if (count > 0 && yields(st)) {
		st->fill_at_ms = now_ms + BACKOFF_MIN_MS;
		count = 0;
	}
	draw *d = count > 0 ? calloc(1, sizeof *d) : NULL;
	if (d == NULL)
		return NULL;
	st->filling = true;
	st->pins++;
	d->st = st;
	d->m.ksid = st->ksid;
	d->m.serial = st->serial + 1;
	d->m.first = (uint32_t)st->next_index;
	d->m.chunk_size = st->qos.chunk_size;
	const int n = snprintf(d->account, sizeof d->account, "%s\x01%s", st->end[0].sae, st->end[1].sae);
	assert(n > 0 && (size_t)n < sizeof d->account);
	(void)n;
	d->count = count;
	return d;
}

/* --- telling the other KME ----------------------------------------------------------------------- */

/* The run that the other KME does not hold yet: the last one. */
static qg_as_block *
unheld(const qg_as_stream *st)
{
	qg_as_block *b = st->n_block > 0 ? st->block[st->n_block - 1] : NULL;
	return b != NULL && !b->held ? b : NULL;
}

static bool
verify_answer(const qg_as_stream *st, const qg_as_block *b, const qg_kms_app_keys_answer *a)
{
	QG_SECRET_AUTO *plain = NULL;
	return qg_as_unseal(st, b, &plain) == QG_OK && qg_equal_ct(plain->data, a->mac, QG_MAC_BYTES);
}

/* Under the lock. */
static void
held(qg_as_stream *st, qg_as_block *b, qg_as_done *done)
{
	b->held = true;
	b->since_ms = qg_as_now_ms(st);
	free(b->message);
	b->message = NULL;
	b->message_len = 0;
	qg_as_save_held(st, b);
	run_over(st);
	st->fill_at_ms = st->backoff_ms = 0;
	qg_as_serve(st, done);
}

/* Under the lock: the other KME never held it, so another may take its place. */
static void
replaced(qg_as_stream *st, const qg_as_block *b)
{
	qg_as_audit(st, 0, QG_AUDIT_DESTROYED, "the other KME cannot have these keys");
	st->next_index = b->first;
	qg_as_drop_block(st, st->n_block - 1);
	qg_as_save(st);
	run_over(st);
	back_off(st);
}

static void
answered(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_as_stream *st = ctx;
	struct qg_app_streams *all = st->all;
	qg_kms_app_keys_answer a = {.result = QG_KMS_APP_KEYS_FULL};
	qg_as_done done = {0};
	if (err == QG_OK && http_status != 200)
		err = QG_E_AGAIN;
	if (err == QG_OK)
		err = qg_kms_app_keys_answer_decode(body, len, &a);
	pthread_mutex_lock(&all->lock);
	qg_as_block *b = st->ended ? NULL : unheld(st);
	st->sending = false;
	if (b == NULL) {
		/* Closed meanwhile. */
	} else if (err == QG_OK && a.result == QG_KMS_APP_KEYS_HELD && verify_answer(st, b, &a)) {
		held(st, b, &done);
	} else if (err == QG_OK && (a.result == QG_KMS_APP_KEYS_GONE || st->end[1].state == QG_AS_CLOSED)) {
		replaced(st, b);
	} else if (err == QG_OK && a.result == QG_KMS_APP_KEYS_UNKNOWN) {
		qg_as_log(st, "unknown_there");
		qg_as_end_stream(st, &done);
	} else {
		back_off(st);
	}
	qg_as_leave(st, &done);
}

/* Under the lock. A copy of what is to be sent, or NULL. */
static char *
message_due(qg_as_stream *st, uint64_t now_ms, size_t *len)
{
	const qg_as_block *b = unheld(st);
	if (b == NULL || b->message == NULL || st->ended || !st->filling || st->sending || !st->owner ||
	    now_ms < st->fill_at_ms || st->all->stopping)
		return NULL;
	char *text = malloc(b->message_len);
	if (text == NULL)
		return NULL;
	memcpy(text, b->message, b->message_len);
	*len = b->message_len;
	st->sending = true;
	st->fill_at_ms = UINT64_MAX; /* until it is answered */
	st->pins++;
	return text;
}

static void
send_message(qg_as_stream *st, const char *text, size_t len)
{
	struct qg_app_streams *all = st->all;
	qg_channel *ch = all->core->part.channel;
	if (ch->ops->send(ch, st->kme, QG_KMS_NEW_APP_KEYS, text, len, 0, answered, st) == QG_OK)
		return;
	pthread_mutex_lock(&all->lock);
	st->sending = false;
	back_off(st);
	qg_as_unpin(st);
	pthread_mutex_unlock(&all->lock);
}

void
qg_as_fill(qg_as_stream *st)
{
	struct qg_app_streams *all = st->all;
	const uint64_t now_ms = qg_clock_elapsed_ms();
	size_t len = 0;
	pthread_mutex_lock(&all->lock);
	draw *d = draw_new(st, now_ms);
	char *text = d == NULL ? message_due(st, now_ms, &len) : NULL;
	pthread_mutex_unlock(&all->lock);
	if (d != NULL && qg_as_local(st))
		draw_here(d);
	else if (d != NULL)
		draw_issue(d);
	if (text != NULL)
		send_message(st, text, len);
	free(text);
}
