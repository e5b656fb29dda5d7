/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

/* What a node of a link, who knows its key, can make of a message; and what
 * one who does not know it can only change. */

static void *grown(void *old, size_t bytes)
{
	void *bigger = realloc(old, bytes);
	if (bigger == NULL)
		free(old);
	must(bigger != NULL, "memory");
	return bigger;
}

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

static bool is_fresh(const qg_segment *s, qg_segment_use use)
{
	return s != NULL && !s->ours && s->use == use && s->phase == QG_SEG_CONFIRMED && s->data != NULL && !s->root;
}

/* Names len bytes, `skip` bytes off the start of each segment, newest first, so
 * that what is used next in order is not touched. */
static bool name_bytes(qg_stream *st, qg_segment_use use, uint32_t skip, size_t len, qg_kms_masked *out)
{
	pthread_mutex_lock(&st->lock);
	const qg_epoch *e = qg_epoch_filling(st);
	for (uint32_t i = e != NULL ? e->n_seg : 0; i-- > 0 && len > 0;) {
		const qg_segment *s = e->seg[i];
		if (!is_fresh(s, use) || out->n_pads == QG_KMS_PADS_MAX)
			continue;
		size_t room = (size_t)(s->hi - s->lo) * e->chunk_size - skip, n = len < room ? len : room;
		qg_kms_pad *pad = &out->pad[out->n_pads++];
		*pad = (qg_kms_pad){ .segment = s->number, .offset = skip, .len = (uint32_t)n };
		memcpy(pad->epoch, e->id, sizeof e->id);
		len -= n;
	}
	pthread_mutex_unlock(&st->lock);
	return len == 0;
}

bool net_pads_at(core_net *n, unsigned from, unsigned to, qg_segment_use mac, qg_segment_use pad, size_t data_len,
		 qg_kms_masked *out)
{
	qg_stream *st = net_stream(n, from, to, to);
	bool named = false;
	for (unsigned ms = 0; !named && ms < PAIR_WAIT_MS; ms += 3) {
		memset(out, 0, sizeof *out);
		out->data_len = data_len;
		memcpy(out->link, st->cfg->name, strlen(st->cfg->name) + 1);
		named = name_bytes(st, mac, 0, QG_KMS_MAC_OVERHEAD, out) &&
			name_bytes(st, pad, mac == pad ? QG_KMS_MAC_OVERHEAD : 0, data_len, out);
		if (!named)
			pair_nap(3);
	}
	return named;
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

void net_answer_mac(core_net *n, const qg_kms_forward *m, qg_kms_forward_answer *a)
{
	static _Thread_local uint8_t pad[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
	uint8_t canonical[1024];
	const qg_kms_masked *k = &m->masked;
	must(net_pad_bytes(n, k->pad, k->n_pads, pad, QG_KMS_MAC_OVERHEAD + k->data_len), "pads");
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_forward_answer_canonical(k->mac, a, &w);
	must(!w.bad, "canonical");
	crypto_onetimeauth(a->mac, canonical, w.len, pad + QG_MAC_KEY_BYTES);
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

/* --- what sources drew ---------------------------------------------------------------------- */

/* One chunk of one share as its source sent it. */
typedef struct drawn {
	uint8_t place[26]; /* epoch, segment, chunk, share, shares */
	uint8_t digest[16];
} drawn;

static int by_drawn(const void *a, const void *b)
{
	const drawn *x = a, *y = b;
	return memcmp(x->place, y->place, sizeof x->place);
}

static size_t draw_chunks(const qg_kms_forward *m, const uint8_t *plain, drawn *out)
{
	for (uint32_t i = 0; i < m->count; i++) {
		qg_writer w = qg_writer_of(out[i].place, sizeof out[i].place);
		qg_put_bytes(&w, m->epoch, sizeof m->epoch);
		qg_put_u32(&w, m->segment);
		qg_put_u32(&w, m->first + i);
		qg_put_u8(&w, m->share);
		qg_put_u8(&w, m->shares);
		must(!w.bad && w.len == sizeof out[i].place, "place");
		crypto_generichash(out[i].digest, sizeof out[i].digest, plain + (size_t)i * m->chunk_size,
				   m->chunk_size, NULL, 0);
	}
	return m->count;
}

bool net_drawn_once(core_net *n, size_t *repeats)
{
	static _Thread_local qg_kms_forward m;
	static _Thread_local uint8_t plain[QG_KMS_DATA_MAX];
	drawn *all = NULL;
	size_t count = 0;
	bool once = true;
	*repeats = 0;
	for (long i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		must(net_record_get(n, (size_t)i, &r) && net_forward_of(&r, &m), "record");
		net_record_free(&r);
		if (m.hop != 0)
			continue;
		must(net_unmask(n, &m.masked, plain), "pads");
		all = grown(all, (count + m.count) * sizeof *all);
		count += draw_chunks(&m, plain, all + count);
	}
	if (count > 0)
		qsort(all, count, sizeof *all, by_drawn);
	for (size_t i = 1; i < count; i++) {
		if (by_drawn(&all[i - 1], &all[i]) != 0)
			continue;
		++*repeats;
		once &= memcmp(all[i - 1].digest, all[i].digest, sizeof all[i].digest) == 0;
	}
	free(all);
	return once;
}

/* --- where it went ------------------------------------------------------------------------------ */

static bool has_link(core_net *n, const char *a, const char *b)
{
	for (size_t i = 0; i < n->plan.n_links; i++)
		if ((strcmp(n->links[i].a, a) == 0 && strcmp(n->links[i].b, b) == 0) ||
		    (strcmp(n->links[i].a, b) == 0 && strcmp(n->links[i].b, a) == 0))
			return true;
	return false;
}

static bool way_is_known(core_net *n, const qg_kms_forward *m, const net_record *r)
{
	for (size_t i = 0; i + 1 < m->n_path; i++)
		if (!has_link(n, m->path[i], m->path[i + 1]))
			return false;
	for (size_t i = 0; i < m->n_path; i++)
		for (size_t j = i + 1; j < m->n_path; j++)
			if (strcmp(m->path[i], m->path[j]) == 0)
				return false;
	return m->hop + 1u < m->n_path && strcmp(m->path[m->hop], n->node[r->from].id) == 0 &&
	       strcmp(m->path[m->hop + 1], n->node[r->to].id) == 0;
}

bool net_ways_known(core_net *n)
{
	static _Thread_local qg_kms_forward m;
	bool known = true;
	for (long i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, 0); i >= 0 && known;
	     i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		must(net_record_get(n, (size_t)i, &r) && net_forward_of(&r, &m), "record");
		known = way_is_known(n, &m, &r);
		net_record_free(&r);
	}
	return known;
}

/* What a node in between saw: one chunk of one share. */
typedef struct sight {
	uint8_t place[25]; /* node, epoch, segment, chunk */
	uint8_t share, shares;
} sight;

static int by_sight(const void *a, const void *b)
{
	const sight *x = a, *y = b;
	return memcmp(x->place, y->place, sizeof x->place);
}

static size_t see_chunks(const qg_kms_forward *m, unsigned node, sight *out)
{
	for (uint32_t i = 0; i < m->count; i++) {
		qg_writer w = qg_writer_of(out[i].place, sizeof out[i].place);
		qg_put_u8(&w, (uint8_t)node);
		qg_put_bytes(&w, m->epoch, sizeof m->epoch);
		qg_put_u32(&w, m->segment);
		qg_put_u32(&w, m->first + i);
		must(!w.bad && w.len == sizeof out[i].place, "place");
		out[i].share = m->share;
		out[i].shares = m->shares;
	}
	return m->count;
}

bool net_shares_apart(core_net *n)
{
	static _Thread_local qg_kms_forward m;
	sight *all = NULL;
	size_t count = 0;
	bool apart = true;
	for (long i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		must(net_record_get(n, (size_t)i, &r) && net_forward_of(&r, &m), "record");
		net_record_free(&r);
		if (m.hop + 2u == m.n_path)
			continue; /* to the target */
		all = grown(all, (count + m.count) * sizeof *all);
		count += see_chunks(&m, r.to, all + count);
	}
	if (count > 0)
		qsort(all, count, sizeof *all, by_sight);
	for (size_t i = 1; i < count && apart; i++)
		apart = by_sight(&all[i - 1], &all[i]) != 0 ||
			(all[i - 1].share == all[i].share && all[i - 1].shares == all[i].shares);
	free(all);
	return apart;
}
