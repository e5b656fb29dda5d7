/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

/* What a node of a link, who knows its key, can make of a message; and what
 * one who does not know it can only change. */

bool net_forward_of(const net_record *r, qg_kms_forward *out)
{
	return r->kind == QG_KMS_FORWARD_KEYS && qg_kms_forward_decode(r->body, r->len, out) == QG_OK;
}

bool net_forward_get(core_net *n, unsigned from, unsigned to, size_t i, qg_kms_forward *out)
{
	long at = net_find(n, from, to, QG_KMS_FORWARD_KEYS, i);
	net_record r;
	if (at < 0 || !net_record_get(n, (size_t)at, &r))
		return false;
	bool ok = net_forward_of(&r, out);
	net_record_free(&r);
	return ok;
}

void net_mac(core_net *n, qg_kms_forward *m)
{
	static _Thread_local uint8_t pad[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
	static _Thread_local uint8_t canonical[QG_KMS_MASKED_CANONICAL_MAX];
	qg_kms_masked *k = &m->masked;
	must(net_pad_bytes(n, k->pad, k->n_pads, pad, QG_KMS_MAC_OVERHEAD + k->data_len), "pads");
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_forward_canonical(m, &w);
	must(!w.bad, "canonical");
	crypto_onetimeauth_state st;
	crypto_onetimeauth_init(&st, pad);
	crypto_onetimeauth_update(&st, canonical, w.len);
	crypto_onetimeauth_update(&st, k->data, k->data_len);
	crypto_onetimeauth_final(&st, k->mac);
}

void net_seal(core_net *n, qg_kms_forward *m, const uint8_t *plain)
{
	static _Thread_local uint8_t pad[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
	qg_kms_masked *k = &m->masked;
	must(net_pad_bytes(n, k->pad, k->n_pads, pad, QG_KMS_MAC_OVERHEAD + k->data_len), "pads");
	for (size_t i = 0; i < k->data_len; i++)
		k->data[i] = plain[i] ^ pad[QG_KMS_MAC_OVERHEAD + i];
	net_mac(n, m);
}

static const qg_segment *last_of(const qg_epoch *e, qg_segment_use use)
{
	for (uint32_t i = e->n_seg; i-- > 0;) {
		const qg_segment *s = e->seg[i];
		if (s != NULL && !s->ours && s->use == use && s->phase == QG_SEG_CONFIRMED && s->data != NULL && !s->root)
			return s;
	}
	return NULL;
}

/* A range at the start of such a segment. */
static bool range_of(qg_stream *st, qg_segment_use use, size_t len, qg_kms_pad *out)
{
	bool found = false;
	pthread_mutex_lock(&st->lock);
	for (const qg_epoch *e = st->newest; e != NULL && !found; e = e->older) {
		const qg_segment *s = last_of(e, use);
		if (s == NULL)
			continue;
		must(len <= (size_t)(s->hi - s->lo) * e->chunk_size, "a segment is too small");
		*out = (qg_kms_pad){ .segment = s->number, .len = (uint32_t)len };
		memcpy(out->epoch, e->id, sizeof e->id);
		found = true;
	}
	pthread_mutex_unlock(&st->lock);
	return found;
}

bool net_pads_at(core_net *n, unsigned from, unsigned to, qg_segment_use mac, qg_segment_use pad, size_t data_len,
		 qg_kms_masked *out)
{
	qg_stream *st = net_stream(n, from, to, to);
	memset(out, 0, sizeof *out);
	out->n_pads = 2;
	out->data_len = data_len;
	memcpy(out->link, st->cfg->name, strlen(st->cfg->name) + 1);
	if (!range_of(st, mac, QG_KMS_MAC_OVERHEAD, &out->pad[0]) || !range_of(st, pad, data_len, &out->pad[1]))
		return false;
	if (mac == pad)
		out->pad[1].offset = QG_KMS_MAC_OVERHEAD;
	return true;
}

qg_kms_forward_result net_forward(core_net *n, unsigned from, unsigned to, const qg_kms_forward *m, int *status)
{
	static _Thread_local char text[QG_KMS_MSG_MAX];
	static _Thread_local net_answer a;
	qg_kms_forward_answer out = { .result = QG_KMS_FORWARD_REFUSED };
	size_t len = 0;
	must(qg_kms_forward_encode(m, text, sizeof text, &len) == QG_OK, "encode");
	net_inject(n, from, to, QG_KMS_FORWARD_KEYS, text, len, &a);
	if (status != NULL)
		*status = a.status;
	if (a.status == 200)
		must(qg_kms_forward_answer_decode(a.body, a.len, &out) == QG_OK, "answer");
	return out.result;
}

bool net_answer_verifies(core_net *n, const qg_kms_forward *m, const qg_kms_forward_answer *a)
{
	uint8_t pad[QG_KMS_MAC_OVERHEAD], mac[QG_MAC_BYTES], canonical[1024];
	static _Thread_local uint8_t all[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
	if (!net_pad_bytes(n, m->masked.pad, m->masked.n_pads, all, QG_KMS_MAC_OVERHEAD + m->masked.data_len))
		return false;
	memcpy(pad, all, sizeof pad);
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_forward_answer_canonical(m->masked.mac, a, &w);
	crypto_onetimeauth(mac, canonical, w.len, pad + QG_MAC_KEY_BYTES);
	return memcmp(mac, a->mac, sizeof mac) == 0;
}

/* --- what was sent, looked at as a whole --------------------------------------------------- */

typedef struct range {
	uint8_t place[20]; /* epoch, segment */
	uint32_t from, to;
	size_t record;
} range;

static int by_place(const void *a, const void *b)
{
	const range *x = a, *y = b;
	int order = memcmp(x->place, y->place, sizeof x->place);
	return order != 0 ? order : x->from < y->from ? -1 : x->from > y->from;
}

typedef struct block {
	uint8_t bytes[16];
} block;

static int by_bytes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(block));
}

typedef struct sent_all {
	range *range;
	block *block;
	size_t n_ranges, n_blocks, messages;
} sent_all;

static const qg_kms_masked *masked_of(const net_record *r)
{
	static _Thread_local qg_kms_forward forward;
	static _Thread_local qg_kms_make make;
	if (r->kind == QG_KMS_FORWARD_KEYS && qg_kms_forward_decode(r->body, r->len, &forward) == QG_OK)
		return &forward.masked;
	if (r->kind == QG_KMS_MAKE_KEYS_EXTERNAL && qg_kms_make_decode(r->body, r->len, &make) == QG_OK)
		return &make.masked;
	return NULL;
}

static void gather(sent_all *all, const qg_kms_masked *m, size_t record)
{
	all->messages++;
	all->range = realloc(all->range, (all->n_ranges + m->n_pads) * sizeof *all->range);
	all->block = realloc(all->block, (all->n_blocks + m->data_len / sizeof(block) + 1) * sizeof *all->block);
	must(all->range != NULL && all->block != NULL, "memory");
	for (size_t i = 0; i < m->n_pads; i++) {
		range *r = &all->range[all->n_ranges++];
		qg_writer w = qg_writer_of(r->place, sizeof r->place);
		qg_put_bytes(&w, m->pad[i].epoch, sizeof m->pad[i].epoch);
		qg_put_u32(&w, m->pad[i].segment);
		r->from = m->pad[i].offset;
		r->to = r->from + m->pad[i].len;
		r->record = record;
	}
	for (size_t at = 0; at + sizeof(block) <= m->data_len; at += sizeof(block))
		memcpy(&all->block[all->n_blocks++], m->data + at, sizeof(block));
}

static bool all_fresh(sent_all *all)
{
	qsort(all->range, all->n_ranges, sizeof *all->range, by_place);
	for (size_t i = 1; i < all->n_ranges; i++) {
		const range *x = &all->range[i - 1], *y = &all->range[i];
		if (memcmp(x->place, y->place, sizeof x->place) != 0 || x->to <= y->from)
			continue;
		fprintf(stderr, "records %zu and %zu name the same node key\n", x->record, y->record);
		return false;
	}
	qsort(all->block, all->n_blocks, sizeof *all->block, by_bytes);
	for (size_t i = 1; i < all->n_blocks; i++)
		if (memcmp(&all->block[i - 1], &all->block[i], sizeof(block)) == 0) {
			fprintf(stderr, "masked data repeats\n");
			return false;
		}
	return true;
}

bool net_all_fresh(core_net *n, size_t *messages)
{
	sent_all all = { 0 };
	pthread_mutex_lock(&n->record_lock);
	for (size_t i = 0; i < n->n_records; i++) {
		const qg_kms_masked *m = masked_of(&n->record[i]);
		if (m != NULL)
			gather(&all, m, i);
	}
	pthread_mutex_unlock(&n->record_lock);
	bool fresh = all.messages == 0 || all_fresh(&all);
	if (messages != NULL)
		*messages = all.messages;
	free(all.range);
	free(all.block);
	return fresh;
}
