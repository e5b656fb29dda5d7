/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

/* Faults, keys, and what a test looks at. */

/* --- faults -------------------------------------------------------------------------- */

net_fault *net_fault_of(core_net *n, unsigned from, unsigned to, qg_kms_kind kind)
{
	must(from < NET_NODES && to < NET_NODES && kind < QG_KMS_KINDS, "no such fault");
	return &n->fault[from][to][kind];
}

void net_down(core_net *n, unsigned a, unsigned b, bool down)
{
	for (int k = 0; k < QG_KMS_KINDS; k++) {
		atomic_store(&net_fault_of(n, a, b, (qg_kms_kind)k)->down, down);
		atomic_store(&net_fault_of(n, b, a, (qg_kms_kind)k)->down, down);
	}
}

void net_dry_from(core_net *n, unsigned from, unsigned to, bool dry)
{
	atomic_store(&net_source(n, from, to, from)->down, dry);
	atomic_store(&net_source(n, from, to, to)->down, dry);
}

void net_dry(core_net *n, unsigned a, unsigned b, bool dry)
{
	net_dry_from(n, a, b, dry);
	net_dry_from(n, b, a, dry);
}

void net_rate(core_net *n, unsigned from, unsigned to, uint32_t chunks_per_s)
{
	atomic_store(&net_source(n, from, to, from)->rate, chunks_per_s);
	atomic_store(&net_source(n, from, to, to)->rate, chunks_per_s);
}

void net_set_hook(core_net *n, net_hook *hook, void *ctx)
{
	pthread_mutex_lock(&n->hook_lock);
	n->hook = hook;
	n->hook_ctx = ctx;
	pthread_mutex_unlock(&n->hook_lock);
}

/* --- streams -------------------------------------------------------------------------- */

static size_t stream_at(core_net *n, const char *between, unsigned from, unsigned to, unsigned at)
{
	char name[32];
	put_name(name, sizeof name, between, from, to);
	const core_node *e = &n->node[at];
	for (size_t i = 0; i < e->cfg.n_streams; i++)
		if (strcmp(e->streams[i].name, name) == 0)
			return i;
	return SIZE_MAX;
}

static qg_stream *stream_of_core(core_net *n, const char *between, unsigned from, unsigned to, unsigned at)
{
	size_t i = stream_at(n, between, from, to, at);
	return i == SIZE_MAX ? NULL : &n->node[at].core->stream[i];
}

qg_stream *net_stream(core_net *n, unsigned from, unsigned to, unsigned at)
{
	return stream_of_core(n, "to", from, to, at);
}

qg_stream *net_far_stream(core_net *n, unsigned from, unsigned to, unsigned at)
{
	return stream_of_core(n, "over", from, to, at);
}

pair_source *net_source(core_net *n, unsigned from, unsigned to, unsigned at)
{
	size_t i = stream_at(n, "to", from, to, at);
	must(i != SIZE_MAX, "no such link");
	return &n->node[at].source[i];
}

uint64_t net_stream_ready(qg_stream *st)
{
	pthread_mutex_lock(&st->lock);
	uint64_t ready = st->ready;
	pthread_mutex_unlock(&st->lock);
	return ready;
}

bool net_wait(core_net *n, net_condition *c, void *ctx)
{
	for (unsigned ms = 0; ms < PAIR_WAIT_MS; ms += 3) {
		if (c(n, ctx))
			return true;
		pair_nap(3);
	}
	return false;
}

typedef struct ready_wish {
	unsigned from, to;
	uint64_t chunks;
} ready_wish;

static bool is_ready(core_net *n, void *ctx)
{
	const ready_wish *w = ctx;
	qg_stream *st = net_far_stream(n, w->from, w->to, w->from);
	if (st == NULL)
		st = net_stream(n, w->from, w->to, w->from);
	return net_stream_ready(st) >= w->chunks;
}

bool net_wait_ready(core_net *n, unsigned from, unsigned to, uint64_t chunks)
{
	ready_wish w = { from, to, chunks };
	return net_wait(n, is_ready, &w);
}

static bool is_quiet(core_net *n, void *ctx)
{
	size_t *last = ctx, now = 0;
	pthread_mutex_lock(&n->record_lock);
	for (size_t i = 0; i < n->n_records; i++)
		now += n->record[i].kind == QG_KMS_FORWARD_KEYS || n->record[i].kind == QG_KMS_NEW_KEY_BATCH;
	pthread_mutex_unlock(&n->record_lock);
	bool quiet = *last == now;
	*last = now;
	if (!quiet)
		pair_nap(250);
	return quiet;
}

bool net_wait_quiet(core_net *n)
{
	size_t last = SIZE_MAX;
	return net_wait(n, is_quiet, &last);
}

/* --- records --------------------------------------------------------------------------- */

size_t net_records(core_net *n)
{
	pthread_mutex_lock(&n->record_lock);
	size_t count = n->n_records;
	pthread_mutex_unlock(&n->record_lock);
	return count;
}

bool net_record_get(core_net *n, size_t i, net_record *out)
{
	pthread_mutex_lock(&n->record_lock);
	bool there = i < n->n_records;
	if (there) {
		*out = n->record[i];
		out->body = copy_bytes(out->body, out->len);
		if (out->answer != NULL)
			out->answer = copy_bytes(out->answer, out->answer_len);
	}
	pthread_mutex_unlock(&n->record_lock);
	return there;
}

void net_record_free(net_record *r)
{
	free(r->body);
	free(r->answer);
	r->body = r->answer = NULL;
}

long net_find(core_net *n, unsigned from, unsigned to, qg_kms_kind kind, size_t i)
{
	long found = -1;
	pthread_mutex_lock(&n->record_lock);
	for (; i < n->n_records && found < 0; i++) {
		const net_record *r = &n->record[i];
		if (r->kind == kind && (from == NET_NODES || r->from == from) && (to == NET_NODES || r->to == to))
			found = (long)i;
	}
	pthread_mutex_unlock(&n->record_lock);
	return found;
}

/* --- pads -------------------------------------------------------------------------------- */

/* The epoch as new_app and its answer made it. */
typedef struct known_epoch {
	qg_uuid ksid;
	uint32_t chunk_size, segment_chunks;
} known_epoch;

static bool record_makes_epoch(const net_record *r, const uint8_t epoch[16], known_epoch *out)
{
	static _Thread_local qg_kms_new_app m;
	static _Thread_local qg_kms_new_app_answer a;
	uint8_t id[16];
	if (r->kind != QG_KMS_NEW_APP || r->answer == NULL || r->status != 200 ||
	    qg_kms_new_app_decode(r->body, r->len, &m) != QG_OK ||
	    qg_kms_new_app_answer_decode(r->answer, r->answer_len, &a) != QG_OK)
		return false;
	qg_kms_epoch_id(&m, &a, id);
	*out = (known_epoch){ m.ksid, m.chunk_size, a.segment_chunks };
	return memcmp(id, epoch, sizeof id) == 0;
}

static bool find_epoch(core_net *n, const uint8_t epoch[16], known_epoch *out)
{
	bool found = false;
	pthread_mutex_lock(&n->record_lock);
	for (size_t i = 0; i < n->n_records && !found; i++)
		found = record_makes_epoch(&n->record[i], epoch, out);
	pthread_mutex_unlock(&n->record_lock);
	return found;
}

static bool one_pad(core_net *n, const qg_kms_pad *pad, uint8_t *out)
{
	known_epoch e;
	uint8_t chunk[4096];
	uint32_t last = UINT32_MAX;
	if (!find_epoch(n, pad->epoch, &e))
		return false;
	for (uint32_t i = 0; i < pad->len; i++) {
		uint32_t at = pad->offset + i, index = pad->segment * e.segment_chunks + at / e.chunk_size;
		if (index != last)
			source_chunk(n->seed, e.chunk_size, &e.ksid, 0, index, chunk);
		last = index;
		out[i] = chunk[at % e.chunk_size];
	}
	return true;
}

bool net_pad_bytes(core_net *n, const qg_kms_pad *pad, size_t n_pads, uint8_t *out, size_t len)
{
	size_t at = 0;
	for (size_t i = 0; i < n_pads; at += pad[i++].len)
		if (pad[i].len > len - at || !one_pad(n, &pad[i], out + at))
			return false;
	return at == len;
}

bool net_unmask(core_net *n, const qg_kms_masked *m, uint8_t *out)
{
	static _Thread_local uint8_t pad[QG_KMS_MAC_OVERHEAD + QG_KMS_DATA_MAX];
	if (m->data_len > QG_KMS_DATA_MAX ||
	    !net_pad_bytes(n, m->pad, m->n_pads, pad, QG_KMS_MAC_OVERHEAD + m->data_len))
		return false;
	for (size_t i = 0; i < m->data_len; i++)
		out[i] = m->data[i] ^ pad[QG_KMS_MAC_OVERHEAD + i];
	return true;
}

/* --- keys --------------------------------------------------------------------------------- */

qg_err net_issue(core_net *n, unsigned from, const char *master, const char *slave, uint32_t number, uint32_t size,
		 pair_keys *out)
{
	qg_issue_request req = { .master = master, .slave = slave, .number = number, .size_bytes = size,
				 .max_hops = UINT32_MAX };
	keys_issue_begin(n->node[from].core, &req, out);
	return keys_wait(out);
}

qg_err net_issue_wait(core_net *n, unsigned from, const char *master, const char *slave, uint32_t number,
		      uint32_t size, pair_keys *out)
{
	for (unsigned ms = 0; ms < PAIR_WAIT_MS; ms += 2) {
		if (net_issue(n, from, master, slave, number, size, out) != QG_E_EMPTY)
			return out->err;
		pair_nap(2);
	}
	return out->err;
}

qg_err net_fetch(core_net *n, unsigned at, const char *master, const char *slave, const qg_uuid *ids, size_t number,
		 pair_keys *out)
{
	qg_fetch_request req = { .master = master, .slave = slave, .ids = ids, .n = number };
	keys_fetch_begin(n->node[at].core, &req, out);
	return keys_wait(out);
}

bool net_deliver(core_net *n, unsigned from, unsigned to, uint32_t number, uint32_t size)
{
	const char *master = n->node[from].sae[0], *slave = n->node[to].sae[0];
	pair_keys *sent = keys_new(), *got = keys_new();
	bool same = net_issue_wait(n, from, master, slave, number, size, sent) == QG_OK &&
		    net_fetch(n, to, master, slave, sent->id, number, got) == QG_OK && sent->bytes == got->bytes &&
		    memcmp(sent->key, got->key, sent->bytes) == 0;
	if (!same)
		fprintf(stderr, "not delivered: issue %s, fetch %s\n", qg_err_text(sent->err), qg_err_text(got->err));
	keys_free(&sent);
	keys_free(&got);
	return same;
}

bool net_on_disk(const core_net *n, const void *bytes, size_t len)
{
	return folder_holds(n->dir, bytes, len);
}

bool node_on_disk(const core_node *e, const void *bytes, size_t len)
{
	return folder_holds(e->dir, bytes, len);
}
