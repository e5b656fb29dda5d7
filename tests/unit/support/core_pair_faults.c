/* SPDX-License-Identifier: Apache-2.0 */
#include "core_pair.h"

/* The neighbour channel, with its faults, and the 004 sources. */

/* --- the channel ------------------------------------------------------------------- */

static qg_err channel_send(qg_channel *ch, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
			   unsigned timeout_ms, qg_channel_done *done, void *ctx)
{
	(void)timeout_ms;
	core_end *e = (core_end *)((char *)ch - offsetof(core_end, channel));
	if (strcmp(neighbour, e->neighbour.id) != 0)
		return QG_E_NOTFOUND;
	pair_message *m = malloc(sizeof *m + len);
	if (m == NULL)
		return QG_E_NOMEM;
	*m = (pair_message){ .from = e, .kind = kind, .done = done, .ctx = ctx, .len = len };
	memcpy(m->body, body, len);
	pthread_mutex_lock(&e->lock);
	bool closed = e->closing;
	if (!closed) {
		*e->queue_end = m;
		e->queue_end = &m->next;
		pthread_cond_broadcast(&e->wake);
	}
	pthread_mutex_unlock(&e->lock);
	if (closed)
		free(m);
	return closed ? QG_E_CLOSED : QG_OK;
}

static const qg_channel_ops channel_ops = { .send = channel_send };

typedef struct pair_answer {
	sem_t told;
	int status;
	size_t len;
	char body[QG_KMS_MSG_MAX];
} pair_answer;

static void take_answer(void *ctx, int status, const char *body, size_t len)
{
	pair_answer *a = ctx;
	a->status = status;
	a->len = len <= sizeof a->body ? len : 0;
	if (a->len > 0)
		memcpy(a->body, body, a->len);
	sem_post(&a->told);
}

static bool begin_receiving(core_end *to)
{
	pthread_mutex_lock(&to->lock);
	bool listening = to->listening;
	to->receiving += listening;
	pthread_mutex_unlock(&to->lock);
	return listening;
}

static void end_receiving(core_end *to)
{
	pthread_mutex_lock(&to->lock);
	to->receiving--;
	pthread_cond_broadcast(&to->wake);
	pthread_mutex_unlock(&to->lock);
}

static void record(core_pair *p, const pair_message *m, const pair_answer *a)
{
	pthread_mutex_lock(&p->record_lock);
	if (p->n_records < PAIR_RECORD_MAX) {
		pair_record *r = &p->record[p->n_records];
		*r = (pair_record){ .side = m->from->side, .kind = m->kind, .len = m->len, .answer_len = a->len,
				    .status = a->status, .body = malloc(m->len + 1), .answer = malloc(a->len + 1) };
		must(r->body != NULL && r->answer != NULL, "memory");
		memcpy(r->body, m->body, m->len);
		memcpy(r->answer, a->body, a->len);
		r->body[m->len] = r->answer[a->len] = '\0';
		p->n_records++;
	}
	pthread_mutex_unlock(&p->record_lock);
}

static void alter_batch(pair_message *m)
{
	qg_kms_batch b;
	if (qg_kms_batch_decode(m->body, m->len, &b) != QG_OK)
		return;
	b.issue_s++;
	size_t len = 0;
	if (qg_kms_batch_encode(&b, m->body, m->len, &len) == QG_OK)
		m->len = len;
}

static void alter_app(pair_message *m)
{
	qg_kms_new_app a;
	if (qg_kms_new_app_decode(m->body, m->len, &a) != QG_OK)
		return;
	a.nonce[0] ^= 1;
	size_t len = 0;
	must(qg_kms_new_app_encode(&a, m->body, m->len, &len) == QG_OK && len == m->len, "new_app");
}

static void alter_answer(pair_answer *a)
{
	qg_kms_batch_answer b;
	if (qg_kms_batch_answer_decode(a->body, a->len, &b) != QG_OK || b.result != QG_KMS_BATCH_CONFIRMED)
		return;
	b.mac[3] ^= 1;
	must(qg_kms_batch_answer_encode(&b, a->body, sizeof a->body, &a->len) == QG_OK, "answer");
}

static bool answer_is_lost(core_end *e, qg_kms_kind kind)
{
	if (atomic_load(&e->answers_lost))
		return true;
	if (kind != QG_KMS_NEW_KEY_BATCH || atomic_load(&e->drop_answers) <= 0)
		return false;
	atomic_fetch_sub(&e->drop_answers, 1);
	return true;
}

static void deliver(core_end *e, core_end *to, pair_message *m)
{
	static _Thread_local pair_answer a;
	unsigned times = atomic_load(&e->twice) ? 2 : 1;
	if (m->kind == QG_KMS_NEW_KEY_BATCH && atomic_load(&e->alter_batches))
		alter_batch(m);
	if (m->kind == QG_KMS_NEW_APP && atomic_load(&e->alter_apps))
		alter_app(m);
	sem_init(&a.told, 0, 0);
	for (unsigned i = 0; i < times; i++) {
		qg_peers_receive(qg_core_peers(to->core), e->cfg.kme_id, m->kind, m->body, m->len, take_answer, &a);
		while (sem_wait(&a.told) != 0)
			;
		record(e->pair, m, &a);
	}
	sem_destroy(&a.told);
	end_receiving(to);
	atomic_fetch_add(&e->sent[m->kind], 1);
	if (atomic_load(&e->alter_answers))
		alter_answer(&a);
	if (answer_is_lost(e, m->kind) || atomic_load(&to->cut))
		m->done(m->ctx, QG_E_TIMEOUT, 0, NULL, 0);
	else
		m->done(m->ctx, QG_OK, a.status, a.body, a.len);
}

static void *channel_run(void *arg)
{
	core_end *e = arg, *to = pair_end(e->pair, !e->side);
	pthread_mutex_lock(&e->lock);
	for (;;) {
		while (e->queue == NULL && !e->closing)
			pthread_cond_wait(&e->wake, &e->lock);
		pair_message *m = e->queue;
		if (m == NULL)
			break;
		e->queue = m->next;
		if (e->queue == NULL)
			e->queue_end = &e->queue;
		bool closing = e->closing;
		pthread_mutex_unlock(&e->lock);
		if (closing)
			m->done(m->ctx, QG_E_CLOSED, 0, NULL, 0);
		else if (atomic_load(&e->link_down) || !begin_receiving(to))
			m->done(m->ctx, QG_E_IO, 0, NULL, 0);
		else
			deliver(e, to, m);
		free(m);
		pthread_mutex_lock(&e->lock);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* --- the sources -------------------------------------------------------------------- */

void pair_chunk(const core_pair *p, const qg_uuid *ksid, uint32_t generation, uint32_t index, uint8_t *out)
{
	source_chunk(p->seed, p->o.chunk_size, ksid, generation, index, out);
}
