/* SPDX-License-Identifier: Apache-2.0 */
#include "core_pair.h"

/* Keys out and back in, and what a test looks at. */

/* --- keys --------------------------------------------------------------------------- */

void pair_issue_begin(core_end *e, const qg_issue_request *req, pair_keys *out)
{
	keys_issue_begin(e->core, req, out);
}

qg_err pair_issue_req(core_end *e, const qg_issue_request *req, pair_keys *out)
{
	pair_issue_begin(e, req, out);
	return keys_wait(out);
}

qg_err pair_issue(core_end *e, const char *master, const char *slave, uint32_t number, uint32_t size, pair_keys *out)
{
	qg_issue_request req = { .master = master, .slave = slave, .number = number, .size_bytes = size,
				 .max_hops = UINT32_MAX };
	return pair_issue_req(e, &req, out);
}

qg_err pair_issue_wait(core_end *e, const char *master, const char *slave, uint32_t number, uint32_t size,
		       pair_keys *out)
{
	for (unsigned ms = 0; ms < PAIR_WAIT_MS; ms += 2) {
		if (pair_issue(e, master, slave, number, size, out) != QG_E_EMPTY)
			return out->err;
		pair_nap(2);
	}
	return out->err;
}

void pair_fetch_begin(core_end *e, const qg_fetch_request *req, pair_keys *out)
{
	keys_fetch_begin(e->core, req, out);
}

qg_err pair_fetch(core_end *e, const char *master, const char *slave, const qg_uuid *ids, size_t n, pair_keys *out)
{
	qg_fetch_request req = { .master = master, .slave = slave, .ids = ids, .n = n };
	pair_fetch_begin(e, &req, out);
	return keys_wait(out);
}

bool pair_deliver(core_pair *p, int side, uint32_t number, uint32_t size)
{
	const char *master = p->end[side].saes[0].id, *slave = p->end[!side].saes[0].id;
	pair_keys *sent = keys_new(), *got = keys_new();
	bool same = pair_issue_wait(&p->end[side], master, slave, number, size, sent) == QG_OK &&
		    pair_fetch(&p->end[!side], master, slave, sent->id, number, got) == QG_OK &&
		    sent->bytes == got->bytes && memcmp(sent->key, got->key, sent->bytes) == 0;
	if (!same)
		fprintf(stderr, "not delivered: issue %s, fetch %s\n", qg_err_text(sent->err), qg_err_text(got->err));
	keys_free(&sent);
	keys_free(&got);
	return same;
}

/* --- looking ------------------------------------------------------------------------- */

bool pair_on_disk(const core_pair *p, const void *bytes, size_t n)
{
	return folder_holds(p->dir, bytes, n);
}

bool pair_wait(core_pair *p, pair_condition *c, void *ctx)
{
	for (unsigned ms = 0; ms < PAIR_WAIT_MS; ms += 3) {
		if (c(p, ctx))
			return true;
		pair_nap(3);
	}
	return false;
}

uint64_t pair_ready(core_pair *p, int side)
{
	qg_stream *st = pair_out(p, side);
	pthread_mutex_lock(&st->lock);
	uint64_t n = st->ready;
	pthread_mutex_unlock(&st->lock);
	return n;
}

typedef struct ready_wish {
	int side;
	uint64_t chunks;
} ready_wish;

static bool is_ready(core_pair *p, void *ctx)
{
	const ready_wish *w = ctx;
	return pair_ready(p, w->side) >= w->chunks;
}

bool pair_wait_ready(core_pair *p, int side, uint64_t chunks)
{
	ready_wish w = { side, chunks };
	return pair_wait(p, is_ready, &w);
}

static bool is_idle(core_pair *p, void *ctx)
{
	qg_stream *st = pair_out(p, *(int *)ctx);
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_filling(st);
	bool idle = e != NULL && st->wants_room && st->offer == NULL && e->lease_wish == 0;
	pthread_mutex_unlock(&st->lock);
	return idle;
}

/* The pool is full and nothing is under way. */
bool pair_wait_idle(core_pair *p, int side)
{
	return pair_wait(p, is_idle, &side);
}

epoch_view pair_epoch(qg_stream *st)
{
	epoch_view v = { 0 };
	pthread_mutex_lock(&st->lock);
	const qg_epoch *e = st->newest;
	if (e != NULL) {
		v = (epoch_view){ .any = true, .ksid = e->ksid, .state = e->state, .mark = e->mark,
				  .seen_mark = e->seen_mark, .end_ms = e->end_ms, .decided_in = e->decided_in,
				  .decided_out = e->decided_out, .keys_out = e->keys_out != NULL,
				  .keys_in = e->keys_in != NULL };
		memcpy(v.id, e->id, sizeof v.id);
	}
	for (; e != NULL; e = e->older) {
		v.epochs++;
		v.filling += e->state == QG_EPOCH_FILLING;
	}
	pthread_mutex_unlock(&st->lock);
	return v;
}

bool pair_epoch_lives(qg_stream *st, const uint8_t id[16])
{
	pthread_mutex_lock(&st->lock);
	bool lives = qg_epoch_find(st, id) != NULL;
	pthread_mutex_unlock(&st->lock);
	return lives;
}

uint64_t pair_bad(qg_stream *st)
{
	pthread_mutex_lock(&st->lock);
	uint64_t n = st->n_bad;
	pthread_mutex_unlock(&st->lock);
	return n;
}

size_t pair_records(core_pair *p)
{
	pthread_mutex_lock(&p->record_lock);
	size_t n = p->n_records;
	pthread_mutex_unlock(&p->record_lock);
	return n;
}

long pair_find_record(core_pair *p, int side, qg_kms_kind kind, size_t from)
{
	long found = -1;
	pthread_mutex_lock(&p->record_lock);
	for (size_t i = from; i < p->n_records && found < 0; i++)
		if (p->record[i].side == side && p->record[i].kind == kind)
			found = (long)i;
	pthread_mutex_unlock(&p->record_lock);
	return found;
}

unsigned pair_batch_sent(core_pair *p, int side, uint32_t segment)
{
	unsigned n = 0;
	qg_kms_batch m;
	pthread_mutex_lock(&p->record_lock);
	for (size_t i = 0; i < p->n_records; i++) {
		const pair_record *r = &p->record[i];
		n += r->side == side && r->kind == QG_KMS_NEW_KEY_BATCH &&
		     qg_kms_batch_decode(r->body, r->len, &m) == QG_OK && m.segment == segment;
	}
	pthread_mutex_unlock(&p->record_lock);
	return n;
}

static bool records_agree(const pair_record *a, const qg_kms_batch *m, const pair_record *b)
{
	qg_kms_batch n;
	if (b->kind != QG_KMS_NEW_KEY_BATCH || qg_kms_batch_decode(b->body, b->len, &n) != QG_OK ||
	    m->segment != n.segment || memcmp(m->epoch, n.epoch, sizeof m->epoch) != 0)
		return true;
	if (a->len != b->len || memcmp(a->body, b->body, a->len) != 0)
		return false;
	qg_kms_batch_answer x, y;
	if (a->status != 200 || b->status != 200 || qg_kms_batch_answer_decode(a->answer, a->answer_len, &x) != QG_OK ||
	    qg_kms_batch_answer_decode(b->answer, b->answer_len, &y) != QG_OK || x.result != QG_KMS_BATCH_CONFIRMED ||
	    y.result != QG_KMS_BATCH_CONFIRMED)
		return true;
	return a->answer_len == b->answer_len && memcmp(a->answer, b->answer, a->answer_len) == 0;
}

bool pair_signed_once(core_pair *p)
{
	bool once = true;
	pthread_mutex_lock(&p->record_lock);
	for (size_t i = 0; i < p->n_records && once; i++) {
		const pair_record *a = &p->record[i];
		qg_kms_batch m;
		if (a->kind != QG_KMS_NEW_KEY_BATCH || qg_kms_batch_decode(a->body, a->len, &m) != QG_OK)
			continue;
		for (size_t j = i + 1; j < p->n_records && once; j++)
			once = records_agree(a, &m, &p->record[j]);
		if (!once)
			fprintf(stderr, "segment %u: two messages under one key\n", m.segment);
	}
	pthread_mutex_unlock(&p->record_lock);
	return once;
}
