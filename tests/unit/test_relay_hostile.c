/* SPDX-License-Identifier: Apache-2.0 */
/* Relaying under attack (SOUNDNESS 6, 16, 17): by one who changes, repeats and
 * withholds messages inside TLS. Nodes that lie: test_relay_liars.c. */
#include "relay_rig.h"

static uint8_t plain[QG_KMS_DATA_MAX];

/* --- withholding --------------------------------------------------------------------- */

/* Keeps the first forward_keys of a link back, and everything after it. */
typedef struct thief {
	unsigned from, to;
	bool passes_begin; /* what begins a segment passes */
	atomic_bool has;
	char body[QG_KMS_MSG_MAX];
	size_t len;
} thief;

static void steal(void *ctx, net_wire *w)
{
	thief *t = ctx;
	if (w->kind != QG_KMS_FORWARD_KEYS || w->answer || w->from != t->from || w->to != t->to)
		return;
	static qg_kms_forward f;
	if (t->passes_begin && qg_kms_forward_decode(w->body, w->len, &f) == QG_OK && f.first == 0)
		return;
	w->lost = true;
	if (atomic_load(&t->has))
		return;
	memcpy(t->body, w->body, w->len);
	t->len = w->len;
	atomic_store(&t->has, true);
}

static bool has_stolen(core_net *net, void *ctx)
{
	(void)net;
	return atomic_load(&((thief *)ctx)->has);
}

/* A network at work of whose link `from` to `to` a message is withheld. */
static void start_and_steal(net_plan *pl, thief *t)
{
	pl->relay_timeout_ms = 500;
	n = net_new(pl);
	net_set_hook(n, steal, t);
	for (unsigned i = 0; i < pl->nodes; i++)
		node_start(&n->node[i]);
	assert_true(net_wait(n, has_stolen, t));
	assert_int_equal(qg_kms_forward_decode(t->body, t->len, &m), QG_OK);
}

static const char *const over_b[] = { "KME-B" };
static const qg_config_route only_b = { .via = over_b, .n_via = 1 };

/* A - B - C and A - D - C, and key from A to C over B alone. */
static void diamond_over_b(net_plan *pl)
{
	net_plan_diamond(pl);
	net_far *far = net_plan_far(pl, A, C);
	far->routes = &only_b;
	far->n_routes = 1;
}

static void line_of_three(net_plan *pl)
{
	net_plan_line(pl, 3);
	net_plan_far(pl, A, C);
}

static int inject_raw(unsigned from, unsigned to, const char *body, size_t len, qg_kms_forward_result *result)
{
	static net_answer a;
	qg_kms_forward_answer out;
	net_inject(n, from, to, QG_KMS_FORWARD_KEYS, body, len, &a);
	if (a.status == 200) {
		assert_int_equal(qg_kms_forward_answer_decode(a.body, a.len, &out), QG_OK);
		*result = out.result;
	}
	return a.status;
}

/* --- altered messages ------------------------------------------------------------------ */

static void alter_data(qg_kms_forward *f) { f->masked.data[f->masked.data_len / 2] ^= 1; }
static void alter_mac(qg_kms_forward *f) { f->masked.mac[15] ^= 0x80; }
static void alter_stream(qg_kms_forward *f) { f->stream[0] ^= 1; }
static void alter_epoch(qg_kms_forward *f) { f->epoch[7] ^= 1; }
static void alter_segment(qg_kms_forward *f) { f->segment++; }
static void alter_first(qg_kms_forward *f) { f->first++; }
static void alter_share(qg_kms_forward *f) { f->share = 1, f->shares = 2; }
static void alter_end(qg_kms_forward *f) { memcpy(f->path[f->n_path++], "KME-Q", sizeof "KME-Q"); }
static void alter_way(qg_kms_forward *f) { memcpy(f->path[2], "KME-Q", sizeof "KME-Q"); }
static void alter_source(qg_kms_forward *f) { memcpy(f->path[0], "KME-C", sizeof "KME-C"), f->n_path = 2; }
static void alter_timeout(qg_kms_forward *f) { f->timeout_ms++; }
static void alter_oldest_mac(qg_kms_forward *f) { f->masked.oldest_mac++; }
static void alter_oldest_pad(qg_kms_forward *f) { f->masked.oldest_pad++; }
static void alter_opened_pad(qg_kms_forward *f) { f->masked.opened_pad++; }
static void alter_hop(qg_kms_forward *f) { f->hop++; }
static void alter_pad_segment(qg_kms_forward *f) { f->masked.pad[f->masked.n_pads - 1].segment++; }

static void alter_pad_offset(qg_kms_forward *f)
{
	f->masked.pad[f->masked.n_pads - 1].offset++;
}

static void alter_link(qg_kms_forward *f)
{
	f->masked.link[0] = f->masked.link[0] == 'a' ? 'b' : 'a';
}

static void alter_count(qg_kms_forward *f)
{
	f->count--;
	f->masked.data_len -= f->chunk_size;
	f->masked.pad[f->masked.n_pads - 1].len -= f->chunk_size;
}

static void alter_chunk_size(qg_kms_forward *f)
{
	f->chunk_size /= 2;
	f->count *= 2;
}

static void alter_cut_data(qg_kms_forward *f)
{
	f->count--;
	f->masked.data_len -= f->chunk_size;
}

static void (*const alterations[])(qg_kms_forward *f) = {
	alter_data, alter_mac, alter_stream, alter_epoch, alter_segment, alter_first, alter_share, alter_end, alter_way,
	alter_source, alter_timeout, alter_oldest_mac, alter_oldest_pad, alter_opened_pad, alter_hop, alter_pad_segment,
	alter_pad_offset, alter_link, alter_count, alter_chunk_size, alter_cut_data,
};

#define ALTERATIONS (sizeof alterations / sizeof alterations[0])

/* Delivers every alteration of the message that can be written down. All are
 * refused, without a MAC, and none costs a byte. */
static unsigned refuse_all(unsigned from, unsigned to)
{
	static qg_kms_forward f;
	static char text[QG_KMS_MSG_MAX];
	unsigned tried = 0;
	qg_pad_account before = net_account(n, from, to, to);
	for (size_t i = 0; i < ALTERATIONS; i++) {
		f = m;
		alterations[i](&f);
		size_t len = 0;
		qg_kms_forward_result result = QG_KMS_FORWARD_REFUSED;
		if (qg_kms_forward_encode(&f, text, sizeof text, &len) != QG_OK)
			continue;
		int status = inject_raw(from, to, text, len, &result);
		bool no = status == 400 || result == QG_KMS_FORWARD_REFUSED || result == QG_KMS_FORWARD_NO_PAD;
		if (!no)
			print_error("alteration %zu: %d, result %d\n", i, status, (int)result);
		assert_true(no);
		tried++;
	}
	qg_pad_account after = net_account(n, from, to, to);
	assert_int_equal(before.used, after.used);
	assert_int_equal(before.messages, after.messages);
	return tried;
}

static void altered_messages(unsigned from, unsigned to)
{
	net_plan pl;
	static thief t;
	qg_kms_forward_result result = QG_KMS_FORWARD_DOWN;
	line_of_three(&pl);
	t = (thief){ .from = from, .to = to };
	start_and_steal(&pl, &t);
	uint64_t refused = counts(to).refused;
	unsigned tried = refuse_all(from, to);
	assert_true(tried >= 12);
	assert_true(counts(to).refused >= refused + tried - 3); /* some name key that nobody has */
	assert_true(audited(to, "the MAC does not verify") >= 5);
	/* As it was it is taken still, and only once. */
	net_set_hook(n, NULL, NULL);
	assert_int_equal(inject_raw(from, to, t.body, t.len, &result), 200);
	assert_int_not_equal(result, QG_KMS_FORWARD_REFUSED);
	assert_int_not_equal(result, QG_KMS_FORWARD_NO_PAD);
	assert_int_equal(inject_raw(from, to, t.body, t.len, &result), 200);
	assert_true(result == QG_KMS_FORWARD_REFUSED || result == QG_KMS_FORWARD_NO_PAD);
	assert_true(net_deliver(n, A, C, 64, 32));
}

static void test_altered_messages_are_refused_by_a_hop(void **state)
{
	(void)state;
	altered_messages(A, B);
}

static void test_altered_messages_are_refused_by_the_target(void **state)
{
	(void)state;
	altered_messages(B, C);
}

static void test_truncated_messages_are_refused(void **state)
{
	(void)state;
	net_plan pl;
	static thief t;
	qg_kms_forward_result result;
	line_of_three(&pl);
	t = (thief){ .from = A, .to = B };
	start_and_steal(&pl, &t);
	uint64_t refused = counts(B).refused;
	qg_pad_account before = net_account(n, A, B, B);
	unsigned tried = 0;
	for (size_t len = 0; len < t.len; len += len < 64 || len + 64 > t.len ? 1 : t.len / 50, tried++)
		assert_int_equal(inject_raw(A, B, t.body, len, &result), 400);
	assert_int_equal(counts(B).refused, refused + tried);
	assert_int_equal(net_account(n, A, B, B).used, before.used);
	assert_true(audited(B, "a malformed message") >= tried);
	net_set_hook(n, NULL, NULL);
	assert_true(net_deliver(n, A, C, 64, 32));
}

static void test_replayed_messages_are_refused(void **state)
{
	(void)state;
	net_plan pl;
	line_of_three(&pl);
	n = net_start(&pl);
	for (int i = 0; i < 4; i++)
		assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(net_wait_quiet(n));
	size_t last = net_records(n);
	qg_pad_account ab = net_account(n, A, B, B), bc = net_account(n, B, C, C);
	unsigned tried = 0;
	for (long i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, 0); i >= 0;
	     i = net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, (size_t)i + 1)) {
		net_record r;
		qg_kms_forward_result result = QG_KMS_FORWARD_DELIVERED;
		assert_true(net_record_get(n, (size_t)i, &r));
		assert_int_equal(inject_raw(r.from, r.to, r.body, r.len, &result), 200);
		assert_true(result == QG_KMS_FORWARD_REFUSED || result == QG_KMS_FORWARD_NO_PAD);
		net_record_free(&r);
		tried++;
	}
	assert_true(tried >= 8);
	assert_int_equal(net_account(n, A, B, B).used, ab.used);
	assert_int_equal(net_account(n, B, C, C).used, bc.used);
	assert_int_equal(net_find(n, NET_NODES, NET_NODES, QG_KMS_FORWARD_KEYS, last), -1); /* nothing was passed on */
	assert_true(net_deliver(n, A, C, 64, 32));
}

/* --- rule 17: who may send what -------------------------------------------------------- */

static void test_rule_17_a_message_from_another_than_the_hop_before_is_refused(void **state)
{
	(void)state;
	net_plan pl;
	static thief t;
	qg_kms_forward_result result = QG_KMS_FORWARD_DOWN;
	diamond_over_b(&pl);
	t = (thief){ .from = B, .to = C };
	start_and_steal(&pl, &t);
	qg_pad_account before = net_account(n, B, C, C);
	/* D is a neighbour of C, and even has the very bytes. */
	assert_int_equal(inject_raw(D, C, t.body, t.len, &result), 200);
	assert_int_equal(result, QG_KMS_FORWARD_REFUSED);
	assert_true(audited(C, "the hop before is another one than the sender") >= 1);
	/* With key of its own link, in B's name. */
	assert_true(net_unmask(n, &m.masked, plain));
	qg_kms_forward forged = m;
	assert_true(net_pads_at(n, D, C, QG_USE_MAC, QG_USE_PAD, m.masked.data_len, &forged.masked));
	net_seal(n, &forged, plain);
	assert_int_equal(net_forward(n, D, C, &forged, NULL), QG_KMS_FORWARD_REFUSED);
	/* In its own name, with B's key: B's link is none of D's streams. */
	forged = m;
	memcpy(forged.path[1], "KME-D", sizeof "KME-D");
	net_mac(n, &forged);
	assert_int_equal(net_forward(n, D, C, &forged, NULL), QG_KMS_FORWARD_REFUSED);
	assert_int_equal(net_account(n, B, C, C).used, before.used);
	/* From B the same bytes are good. */
	net_set_hook(n, NULL, NULL);
	assert_int_equal(inject_raw(B, C, t.body, t.len, &result), 200);
	assert_int_not_equal(result, QG_KMS_FORWARD_REFUSED);
	assert_int_not_equal(result, QG_KMS_FORWARD_NO_PAD);
}

/* A hop that lies about the way: signed with its own key, so only the path tells. */
static void test_rule_17_a_path_over_links_that_are_not_there_is_refused(void **state)
{
	(void)state;
	static const char *const ways[][4] = {
		{ "KME-A", "KME-B", "KME-D", NULL },    /* C is not the target */
		{ "KME-A", "KME-B", "KME-C", "KME-A" }, /* C has no link with A */
		{ "KME-A", "KME-B", "KME-C", "KME-Q" }, /* nobody knows Q */
		{ "KME-A", "KME-B", "KME-D", "KME-C" }, /* C is not next */
		{ "KME-A", "KME-B", "KME-C", "KME-B" }, /* a loop */
	};
	net_plan pl;
	net_plan_diamond(&pl);
	net_plan_far(&pl, A, C);
	/* A message that is taken opens segments at C that B goes on to count as its own. */
	for (size_t i = 0; i < pl.n_links; i++)
		pl.link[i].node_chunks = 1024;
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(net_forward_get(n, A, B, 0, &m) || net_forward_get(n, A, D, 0, &m));
	for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
		qg_kms_forward forged = m;
		static char text[QG_KMS_MSG_MAX];
		size_t len = 0;
		assert_true(net_wait_quiet(n)); /* no other message meanwhile */
		qg_pad_account before = net_account(n, B, C, C);
		forged.n_path = ways[i][3] != NULL ? 4 : 3;
		forged.hop = 1;
		for (size_t j = 0; j < forged.n_path; j++)
			memcpy(forged.path[j], ways[i][j], strlen(ways[i][j]) + 1);
		memset(plain, 0x5a, sizeof plain);
		assert_true(net_pads_at(n, B, C, QG_USE_MAC, QG_USE_PAD, m.masked.data_len, &forged.masked));
		net_seal(n, &forged, plain);
		/* Where it is to go from C is not B's fault: that is answered under key. */
		bool ours = strcmp(ways[i][2], "KME-C") == 0;
		if (qg_kms_forward_encode(&forged, text, sizeof text, &len) != QG_OK)
			continue;
		assert_int_equal(net_forward(n, B, C, &forged, NULL),
				 ours ? QG_KMS_FORWARD_DOWN : QG_KMS_FORWARD_REFUSED);
		assert_int_equal(net_account(n, B, C, C).used,
				 before.used + (ours ? QG_KMS_MAC_OVERHEAD + m.masked.data_len : 0));
	}
	assert_int_equal(audited(C, "the next hop is no neighbour"), 1);
	assert_true(net_deliver(n, A, C, 64, 32));
}

/* The i-th of several messages of A's own, of one chunk each, under key of its
 * link to B that A does not come to. */
static void forge_from_source(const qg_kms_masked *key, uint32_t i, qg_kms_forward *forged)
{
	*forged = m;
	forged->hop = 0;
	forged->count = 1;
	assert_int_equal(key->n_pads, 2);
	memcpy(forged->masked.pad, key->pad, sizeof key->pad);
	memcpy(forged->masked.link, key->link, sizeof key->link);
	forged->masked.n_pads = 2;
	forged->masked.oldest_mac = forged->masked.oldest_pad = 0;
	forged->masked.opened_pad = 0;
	forged->masked.data_len = m.chunk_size;
	forged->masked.pad[0].offset += i * QG_KMS_MAC_OVERHEAD;
	forged->masked.pad[1].offset += i * m.chunk_size;
	forged->masked.pad[1].len = m.chunk_size;
	memset(plain, 0x5a, m.chunk_size);
}

/* A source that sends where no link is, or leaves no time, has no good
 * neighbour of a hop isolated or avoided. */
static void test_rule_17_a_source_has_no_good_neighbour_isolated(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_far(&pl, A, C);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(net_forward_get(n, A, B, 0, &m));
	static qg_kms_masked key;
	assert_true(net_pads_at(n, A, B, QG_USE_MAC, QG_USE_PAD, 8 * m.chunk_size, &key));
	const qg_relay_counts before = counts(B);
	qg_kms_forward forged;
	for (uint32_t i = 0; i < 4; i++) {
		forge_from_source(&key, i, &forged);
		forged.n_path = 4;
		memcpy(forged.path[3], "KME-Q", sizeof "KME-Q");
		net_seal(n, &forged, plain);
		assert_int_equal(net_forward(n, A, B, &forged, NULL), QG_KMS_FORWARD_DOWN);
	}
	assert_int_equal(audited(C, "the next hop is no neighbour"), 4);
	assert_int_equal(counts(B).wrong, before.wrong);
	atomic_store(&net_fault_of(n, B, C, QG_KMS_FORWARD_KEYS)->delay_ms, 300);
	forge_from_source(&key, 4, &forged);
	forged.timeout_ms = 200;
	net_seal(n, &forged, plain);
	assert_int_equal(net_forward(n, A, B, &forged, NULL), QG_KMS_FORWARD_DOWN);
	atomic_store(&net_fault_of(n, B, C, QG_KMS_FORWARD_KEYS)->delay_ms, 0);
	assert_false(qg_routes_is_down(n->node[B].core->routes, "KME-B", "KME-C", qg_clock_elapsed_ms()));
	assert_true(net_deliver(n, A, C, 64, 32));
}

/* --- rule 6: key of another use or stream -------------------------------------------------- */

/* A message that C should take, as B could make it, but for its key. */
static qg_kms_forward_result with_key_of(unsigned from, qg_segment_use mac, qg_segment_use pad, const char *link)
{
	qg_kms_forward forged = m;
	forged.hop = 1;
	memset(plain, 0x33, sizeof plain);
	assert_true(net_pads_at(n, from, C, mac, pad, m.masked.data_len, &forged.masked));
	if (link != NULL)
		memcpy(forged.masked.link, link, strlen(link) + 1);
	net_seal(n, &forged, plain);
	return net_forward(n, B, C, &forged, NULL);
}

static void test_rule_06_a_message_under_key_of_another_use_or_stream_is_refused(void **state)
{
	(void)state;
	net_plan pl;
	diamond_over_b(&pl);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, C, 64, 32));
	assert_true(net_wait_ready(n, B, C, 64) && net_wait_ready(n, D, C, 64) && net_wait_quiet(n));
	assert_true(net_forward_get(n, A, B, 0, &m));
	m.count = 2;
	m.masked.data_len = 2 * m.chunk_size;
	qg_pad_account before = net_account(n, B, C, C);
	uint64_t taken = counts(C).taken;
	static const struct {
		qg_segment_use mac, pad;
	} uses[] = {
		{ QG_USE_APPLICATION, QG_USE_APPLICATION },
		{ QG_USE_APPLICATION, QG_USE_PAD },
		{ QG_USE_MAC, QG_USE_APPLICATION },
		{ QG_USE_PAD, QG_USE_MAC },
		{ QG_USE_PAD, QG_USE_PAD },
		{ QG_USE_MAC, QG_USE_MAC },
	};
	for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
		qg_kms_forward_result result = with_key_of(B, uses[i].mac, uses[i].pad, NULL);
		assert_true(result == QG_KMS_FORWARD_REFUSED || result == QG_KMS_FORWARD_NO_PAD);
	}
	/* Good key, but of another link, under its own name and under this one's. */
	assert_int_equal(with_key_of(D, QG_USE_MAC, QG_USE_PAD, NULL), QG_KMS_FORWARD_REFUSED);
	assert_int_equal(with_key_of(D, QG_USE_MAC, QG_USE_PAD, "b-to-c"), QG_KMS_FORWARD_NO_PAD);
	/* Under the name of a virtual stream. */
	qg_kms_forward_result result = with_key_of(B, QG_USE_MAC, QG_USE_PAD, "a-over-c");
	assert_true(result == QG_KMS_FORWARD_REFUSED || result == QG_KMS_FORWARD_NO_PAD);
	assert_int_equal(net_account(n, B, C, C).used, before.used);
	assert_int_equal(counts(C).taken, taken);
	/* With the key that it should have the same message is heard. */
	result = with_key_of(B, QG_USE_MAC, QG_USE_PAD, NULL);
	assert_true(result == QG_KMS_FORWARD_UNKNOWN || result == QG_KMS_FORWARD_MISMATCH ||
		    result == QG_KMS_FORWARD_DELIVERED);
	assert_int_equal(net_account(n, B, C, C).messages, before.messages + 1);
}

/* An ID that names a chunk of node key is made with the stream's own ID keys:
 * dec_keys must not serve it. */
static void test_rule_06_dec_keys_serves_no_node_key(void **state)
{
	(void)state;
	net_plan pl;
	line_of_three(&pl);
	n = net_start(&pl);
	assert_true(net_deliver(n, A, B, 1, 32) && net_deliver(n, A, C, 1, 32));
	static const qg_segment_use uses[] = { QG_USE_PAD, QG_USE_MAC };
	for (size_t i = 0; i < 2; i++) {
		qg_kms_masked key;
		qg_uuid id;
		assert_true(net_pads_at(n, A, B, uses[i], uses[i], 32, &key));
		qg_stream *st = net_stream(n, A, B, B);
		pthread_mutex_lock(&st->lock);
		const qg_epoch *e = qg_epoch_find(st, key.pad[0].epoch);
		qg_key_id_pair pair;
		qg_key_id_position at = { .index = key.pad[0].segment * e->segment_chunks + 4, .size_bytes = 32 };
		qg_key_id_pair_of(e->keys_in, "sae-a", "sae-b", &pair);
		qg_key_id_make(e->keys_in, &pair, at, &id);
		pthread_mutex_unlock(&st->lock);
		assert_int_equal(net_fetch(n, B, "sae-a", "sae-b", &id, 1, got), QG_E_NOTFOUND);
		assert_null(got->key);
	}
	assert_true(net_deliver(n, A, B, 1, 32));
}

/* --- rule 16: the same place, other bytes ---------------------------------------------------- */

static bool is_answered(core_net *net, void *ctx)
{
	net_record r;
	const thief *t = ctx;
	long i = net_find(net, t->from + 1, t->to + 1, QG_KMS_FORWARD_KEYS, 0);
	bool answered = i >= 0 && net_record_get(net, (size_t)i, &r) && r.answer != NULL && r.status == 200;
	if (i >= 0)
		net_record_free(&r);
	return answered;
}

/* The first half of a segment is at C, the other is withheld; B, who knows the
 * plaintext, sends the first half again. */
static void half_a_segment(thief *t)
{
	net_plan pl;
	line_of_three(&pl);
	pl.far[0].segment_chunks = 512;
	pl.ready_chunks = 1024;
	*t = (thief){ .from = A, .to = B, .passes_begin = true };
	start_and_steal(&pl, t);
	assert_true(net_wait(n, is_answered, t));
	assert_true(net_forward_get(n, B, C, 0, &m));
	assert_true(net_unmask(n, &m.masked, plain));
	/* A little of it is enough, and all there is where B had no key open at first: what is used up here B's core
	 * will try again. */
	m.count = 1;
	m.masked.data_len = m.chunk_size;
}

static qg_kms_forward_result again_from_b(void)
{
	qg_kms_forward forged = m;
	assert_true(net_pads_at(n, B, C, QG_USE_MAC, QG_USE_PAD, m.masked.data_len, &forged.masked));
	net_seal(n, &forged, plain);
	return net_forward(n, B, C, &forged, NULL);
}

static void test_rule_16_the_same_bytes_again_are_acknowledged_again(void **state)
{
	(void)state;
	static thief t;
	half_a_segment(&t);
	uint64_t repeated = counts(C).repeated;
	assert_int_equal(again_from_b(), QG_KMS_FORWARD_DELIVERED);
	assert_true(counts(C).repeated > repeated);
	assert_true(epoch_fills(C));
	net_set_hook(n, NULL, NULL);
	assert_true(net_deliver(n, A, C, 64, 32));
}

static bool ended(core_net *net, void *ctx)
{
	(void)net;
	return !epoch_fills(*(unsigned *)ctx);
}

static void test_rule_16_other_bytes_for_the_same_place_end_the_epoch(void **state)
{
	(void)state;
	static thief t;
	unsigned source = A;
	half_a_segment(&t);
	assert_true(epoch_fills(C) && epoch_fills(A));
	plain[m.masked.data_len - 1] ^= 1;
	assert_int_equal(again_from_b(), QG_KMS_FORWARD_MISMATCH);
	assert_false(epoch_fills(C));
	assert_true(net_wait(n, ended, &source));
	/* A new one delivers. */
	net_set_hook(n, NULL, NULL);
	assert_true(net_deliver(n, A, C, 64, 32));
	assert_false(epoch_fills(A));
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_altered_messages_are_refused_by_a_hop),
		CASE(test_altered_messages_are_refused_by_the_target),
		CASE(test_truncated_messages_are_refused),
		CASE(test_replayed_messages_are_refused),
		CASE(test_rule_17_a_message_from_another_than_the_hop_before_is_refused),
		CASE(test_rule_17_a_path_over_links_that_are_not_there_is_refused),
		CASE(test_rule_17_a_source_has_no_good_neighbour_isolated),
		CASE(test_rule_06_a_message_under_key_of_another_use_or_stream_is_refused),
		CASE(test_rule_06_dec_keys_serves_no_node_key),
		CASE(test_rule_16_the_same_bytes_again_are_acknowledged_again),
		CASE(test_rule_16_other_bytes_for_the_same_place_end_the_epoch),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
