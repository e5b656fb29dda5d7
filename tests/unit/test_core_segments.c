/* SPDX-License-Identifier: Apache-2.0 */
/* Segments: what their MACs cover, that a one-time key signs once, their use,
 * where keys lie in them (SOUNDNESS 4 to 7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "support/core_pair.c"

static core_pair *p;

static int teardown(void **state)
{
	(void)state;
	bool once = p == NULL || pair_signed_once(p);
	pair_free(&p);
	return once ? 0 : -1;
}

/* --- rule 4 -------------------------------------------------------------------- */

static bool have_batch(core_pair *pair, void *ctx)
{
	long i = pair_find_record(pair, 0, QG_KMS_NEW_KEY_BATCH, 0);
	*(long *)ctx = i;
	return i >= 0 && pair_ready(pair, 0) > 0;
}

/* The MACs as rule 4 writes them, made here from the source's chunks. */
static void check_macs(uint32_t chunk_size, uint32_t segment_chunks)
{
	p = pair_start(&(pair_options){ .chunk_size = chunk_size, .segment_chunks = segment_chunks });
	long i;
	assert_true(pair_wait(p, have_batch, &i));
	qg_kms_batch m;
	qg_kms_batch_answer a;
	const pair_record *r = &p->record[i];
	assert_int_equal(qg_kms_batch_decode(r->body, r->len, &m), QG_OK);
	assert_int_equal(m.count, segment_chunks);
	assert_true(m.root);
	uint8_t *all = malloc((size_t)segment_chunks * chunk_size);
	for (uint32_t c = 0; c < segment_chunks; c++)
		pair_chunk(p, &m.ksid, 0, (uint32_t)m.first_index + c, all + (size_t)c * chunk_size);
	size_t key_bytes = (size_t)((32 + chunk_size - 1) / chunk_size) * chunk_size;
	size_t request_at = (size_t)segment_chunks * chunk_size - key_bytes, answer_at = request_at - key_bytes;

	uint8_t canonical[QG_KMS_BATCH_CANONICAL_MAX], mac[16];
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_batch_canonical(&m, &w);
	crypto_onetimeauth_state st;
	crypto_onetimeauth_init(&st, all + request_at);
	crypto_onetimeauth_update(&st, canonical, w.len);
	crypto_onetimeauth_update(&st, all, request_at); /* with the answer key, without its own */
	crypto_onetimeauth_final(&st, mac);
	assert_memory_equal(mac, m.mac, sizeof mac);

	for (long j = i; j >= 0; j = pair_find_record(p, 0, QG_KMS_NEW_KEY_BATCH, (size_t)j + 1)) {
		qg_kms_batch other;
		const pair_record *q = &p->record[j];
		if (qg_kms_batch_answer_decode(q->answer, q->answer_len, &a) != QG_OK ||
		    qg_kms_batch_decode(q->body, q->len, &other) != QG_OK || other.segment != m.segment ||
		    a.result != QG_KMS_BATCH_CONFIRMED)
			continue;
		w = qg_writer_of(canonical, sizeof canonical);
		qg_kms_batch_answer_canonical(m.mac, &w);
		crypto_onetimeauth(mac, canonical, w.len, all + answer_at);
		assert_memory_equal(mac, a.mac, sizeof mac);
	}
	/* The rest of the one-time keys' chunks is destroyed with them. */
	assert_true(pair_deliver(p, 0, 1, chunk_size));
	free(all);
	(void)teardown(NULL);
}

static void test_rule_04_the_macs_cover_what_they_should(void **state)
{
	(void)state;
	check_macs(32, 64);
	check_macs(48, 64);
	check_macs(16, 64);
	check_macs(8, 64);
	check_macs(100, 32);
}

static void test_rule_04_an_altered_request_is_refused(void **state)
{
	(void)state;
	p = pair_new(NULL);
	pair_keys *k = keys_new();
	atomic_store(&p->end[0].alter_batches, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	for (int i = 0; i < 60; i++) {
		assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, k), QG_E_EMPTY);
		pair_nap(10);
	}
	assert_true(pair_find_record(p, 0, QG_KMS_NEW_KEY_BATCH, 0) >= 0);
	atomic_store(&p->end[0].alter_batches, false);
	assert_true(pair_deliver(p, 0, 1, 32));
	keys_free(&k);
}

/* --- rule 5 -------------------------------------------------------------------- */

static bool sent_twice(core_pair *pair, void *ctx)
{
	return pair_batch_sent(pair, 0, 0) >= *(unsigned *)ctx;
}

static void test_rule_05_a_retry_over_a_restart_is_the_same_bytes(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&p->end[0].drop_answers, 1 << 30);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	unsigned n = 2;
	assert_true(pair_wait(p, sent_twice, &n));
	end_crash(&p->end[0]);
	n = pair_batch_sent(p, 0, 0) + 2;
	end_start(&p->end[0]);
	assert_true(pair_wait(p, sent_twice, &n));
	end_crash(&p->end[1]); /* the far end repeats its answer over a restart too */
	n = pair_batch_sent(p, 0, 0) + 2;
	end_start(&p->end[1]);
	assert_true(pair_wait(p, sent_twice, &n));
	assert_true(pair_signed_once(p));
	atomic_store(&p->end[0].drop_answers, 0);
	assert_true(pair_deliver(p, 0, 5, 32));
	assert_int_equal(pair_bad(pair_out(p, 0)), 0);
}

static bool owner_bad(core_pair *pair, void *ctx)
{
	return pair_bad(pair_out(pair, 0)) >= *(uint64_t *)ctx;
}

static void test_rule_05_a_forged_answer_confirms_nothing(void **state)
{
	(void)state;
	p = pair_new(NULL);
	pair_keys *k = keys_new();
	uint64_t n = 1;
	atomic_store(&p->end[0].alter_answers, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, owner_bad, &n));
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, k), QG_E_EMPTY);
	assert_false(pair_epoch(pair_out(p, 0)).keys_out);
	atomic_store(&p->end[0].alter_answers, false);
	/* The far end has the segment; the owner gave it up for good. */
	assert_true(pair_deliver(p, 0, 5, 32));
	keys_free(&k);
}

static void test_rule_05_one_forged_answer_does_no_harm(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&p->end[0].alter_answers, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	unsigned n = 1;
	assert_true(pair_wait(p, sent_twice, &n));
	atomic_store(&p->end[0].alter_answers, false);
	assert_true(pair_deliver(p, 0, 5, 32));
	assert_int_equal(pair_bad(pair_out(p, 0)), 0);
}

typedef struct told_batch {
	sem_t told;
	int status;
	qg_kms_batch_answer answer;
} told_batch;

static void batch_told(void *ctx, int status, const char *body, size_t len)
{
	told_batch *t = ctx;
	t->status = status;
	t->answer = (qg_kms_batch_answer){ .result = QG_KMS_BATCH_UNKNOWN };
	if (status == 200 && qg_kms_batch_answer_decode(body, len, &t->answer) != QG_OK)
		t->status = -1;
	sem_post(&t->told);
}

static told_batch offer_told(core_end *to, const char *body, size_t len)
{
	told_batch t = { .status = 0 };
	sem_init(&t.told, 0, 0);
	qg_peers_receive(qg_core_peers(to->core), pair_end(p, !to->side)->cfg.kme_id, QG_KMS_NEW_KEY_BATCH, body, len,
			 batch_told, &t);
	while (sem_wait(&t.told) != 0)
		;
	sem_destroy(&t.told);
	return t;
}

static qg_kms_batch_result offer_text(core_end *to, const char *body, size_t len)
{
	told_batch t = offer_told(to, body, len);
	return t.status == 200 ? t.answer.result : QG_KMS_BATCH_UNKNOWN;
}

static qg_kms_batch_result offer_batch(core_end *to, const qg_kms_batch *m)
{
	char text[QG_KMS_MSG_MAX];
	size_t len = 0;
	assert_int_equal(qg_kms_batch_encode(m, text, sizeof text, &len), QG_OK);
	return offer_text(to, text, len);
}

/* The far end's source errs for one segment; afterwards both have right key,
 * but the segment is dead at both ends, over restarts too. */
static void test_rule_05_a_mismatched_segment_is_dead_at_both_ends(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 1, 0)->bad_to, 65);
	atomic_store(&pair_source_of(p, 1, 0)->bad_from, 64);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	uint64_t n = 1;
	assert_true(pair_wait(p, owner_bad, &n));
	long i = 0, found = -1;
	qg_kms_batch m;
	while ((i = pair_find_record(p, 0, QG_KMS_NEW_KEY_BATCH, (size_t)i)) >= 0 && found < 0) {
		assert_int_equal(qg_kms_batch_decode(p->record[i].body, p->record[i].len, &m), QG_OK);
		found = m.segment == 1 ? i : -1;
		i++;
	}
	assert_true(found >= 0);
	atomic_store(&pair_source_of(p, 1, 0)->bad_to, 0);
	unsigned sent = pair_batch_sent(p, 0, 1);
	assert_int_equal(offer_batch(&p->end[1], &m), QG_KMS_BATCH_MISMATCH);
	assert_true(pair_deliver(p, 0, 20, 32));
	end_crash(&p->end[1]);
	end_start(&p->end[1]);
	end_crash(&p->end[0]);
	end_start(&p->end[0]);
	for (int j = 0; j < 10; j++)
		assert_true(pair_deliver(p, 0, 20, 32));
	assert_int_equal(offer_batch(&p->end[1], &m), QG_KMS_BATCH_MISMATCH);
	assert_int_equal(pair_batch_sent(p, 0, 1), sent);
}

static bool told_mismatch(core_pair *pair, long *at)
{
	qg_kms_batch_answer a;
	long i = *at;
	while ((i = pair_find_record(pair, 0, QG_KMS_NEW_KEY_BATCH, (size_t)(i + 1))) >= 0) {
		const pair_record *r = &pair->record[i];
		*at = i;
		if (qg_kms_batch_answer_decode(r->answer, r->answer_len, &a) == QG_OK && a.result == QG_KMS_BATCH_MISMATCH)
			return true;
	}
	return false;
}

/* A mismatch that the far end answered is durable there: even if it dies at
 * once and the source is right afterwards. */
static void test_rule_05_a_told_mismatch_outlives_a_crash(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 1, 0)->bad_to, 1);
	atomic_store(&p->end[0].drop_answers, 1 << 30);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	long i = -1;
	while (!told_mismatch(p, &i))
		; /* at once: what was told is durable */
	end_crash(&p->end[1]);
	atomic_store(&pair_source_of(p, 1, 0)->bad_to, 0);
	end_start(&p->end[1]);
	pair_nap(300);
	assert_int_equal(offer_text(&p->end[1], p->record[i].body, p->record[i].len), QG_KMS_BATCH_MISMATCH);
}

static void test_rule_05_full_only_delays(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .inbound_chunks = 160 });
	pair_keys *k = keys_new(), *got = keys_new();
	assert_true(pair_wait_ready(p, 0, 100));
	pair_nap(100);
	assert_true(pair_ready(p, 0) <= 160);
	for (int i = 0; i < 5; i++) {
		assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 60, 32, k), QG_OK);
		assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 60, got), QG_OK);
		assert_memory_equal(k->key, got->key, k->bytes);
	}
	assert_int_equal(pair_bad(pair_out(p, 0)), 0);
	assert_int_equal(pair_epoch(pair_out(p, 0)).epochs, 1);
	keys_free(&k);
	keys_free(&got);
}

static void test_rule_05_not_here_yet_only_delays(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 1, 0)->down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	unsigned n = 4;
	assert_true(pair_wait(p, sent_twice, &n));
	assert_int_equal(pair_ready(p, 0), 0);
	atomic_store(&pair_source_of(p, 1, 0)->down, false);
	assert_true(pair_deliver(p, 0, 20, 32));
	assert_int_equal(pair_bad(pair_out(p, 0)), 0);
}

static void test_rule_05_duplicates_and_lost_answers_do_no_harm(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&p->end[0].twice, true);
	atomic_store(&p->end[1].twice, true);
	atomic_store(&p->end[0].drop_answers, 5);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	for (int i = 0; i < 20; i++)
		assert_true(pair_deliver(p, i % 2, 20, 32));
	assert_int_equal(pair_epoch(pair_out(p, 0)).epochs, 1);
	assert_int_equal(pair_bad(pair_out(p, 0)), 0);
}

/* A shared stream: one owner's dropped segment is not offered anew when its
 * crash makes it read again what the other one had still open. */
static void test_rule_05_a_shared_stream_signs_once_over_a_crash(void **state)
{
	(void)state;
	p = pair_new(&(pair_options){ .shared = true });
	/* B's segments (odd) never get through, so the epoch's first undecided one
	 * stays low; A's segment 2 is mismatched and dropped. */
	atomic_store(&pair_source_of(p, 1, 0)->bad_to, 2 * PAIR_SEGMENT + 1);
	atomic_store(&pair_source_of(p, 1, 0)->bad_from, 2 * PAIR_SEGMENT);
	atomic_store(&p->end[1].link_down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	uint64_t n = 1;
	assert_true(pair_wait(p, owner_bad, &n));
	assert_true(pair_wait_ready(p, 0, 100));
	pair_keys *k = keys_new();
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 40, 32, k), QG_OK);
	pair_nap(100);
	unsigned sent = pair_batch_sent(p, 0, 2);
	end_crash(&p->end[0]);
	end_start(&p->end[0]);
	atomic_store(&p->end[1].link_down, false);
	for (int i = 0; i < 10; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
	assert_int_equal(pair_batch_sent(p, 0, 2), sent);
	assert_true(pair_signed_once(p));
	keys_free(&k);
}

/* --- rule 6 -------------------------------------------------------------------- */

/* A batch as an owner makes it, for the segment that the far end holds. */
static void sign_batch(const qg_kms_batch *like, qg_segment_use use, qg_kms_batch *out)
{
	uint8_t *all = malloc((size_t)PAIR_SEGMENT * PAIR_CHUNK), canonical[QG_KMS_BATCH_CANONICAL_MAX];
	for (uint32_t c = 0; c < PAIR_SEGMENT; c++)
		pair_chunk(p, &like->ksid, 0, (uint32_t)like->first_index + c, all + (size_t)c * PAIR_CHUNK);
	*out = *like;
	out->use = use;
	size_t at = (size_t)(PAIR_SEGMENT - 1) * PAIR_CHUNK;
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_batch_canonical(out, &w);
	crypto_onetimeauth_state st;
	crypto_onetimeauth_init(&st, all + at);
	crypto_onetimeauth_update(&st, canonical, w.len);
	crypto_onetimeauth_update(&st, all, at);
	crypto_onetimeauth_final(&st, out->mac);
	free(all);
}

static bool far_end_read(core_pair *pair, void *ctx)
{
	(void)ctx;
	qg_stream *st = pair_in(pair, 0);
	pthread_mutex_lock(&st->lock);
	bool read = st->next_index >= 3 * PAIR_SEGMENT;
	pthread_mutex_unlock(&st->lock);
	return read;
}

/* The test owns A's direction with the source's own key: segments 0 and 1, of
 * which the second has the use given. */
static qg_err fetch_from_use(qg_segment_use use)
{
	p = pair_new(NULL);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	atomic_store(&p->end[0].alter_batches, true); /* A itself gets nothing through */
	(void)teardown(NULL);
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, far_end_read, NULL));
	epoch_view v = pair_epoch(pair_in(p, 0));
	qg_kms_batch m = { .stream = "a-to-b", .ksid = v.ksid, .count = PAIR_SEGMENT, .use = QG_USE_APPLICATION,
			   .root = true, .issue_s = 60, .fetch_s = 60 };
	memcpy(m.epoch, v.id, sizeof m.epoch);
	qg_kms_batch signed_batch;
	sign_batch(&m, QG_USE_APPLICATION, &signed_batch);
	assert_int_equal(offer_batch(&p->end[1], &signed_batch), QG_KMS_BATCH_CONFIRMED);
	m.segment = 1;
	m.first_index = PAIR_SEGMENT;
	m.root = false;
	sign_batch(&m, use, &signed_batch);
	qg_kms_batch forged = signed_batch; /* the use is inside the MAC */
	forged.use = use == QG_USE_PAD ? QG_USE_APPLICATION : QG_USE_PAD;
	forged.segment = 2;
	forged.first_index = 2 * PAIR_SEGMENT;
	assert_int_equal(offer_batch(&p->end[1], &signed_batch), QG_KMS_BATCH_CONFIRMED);
	assert_int_equal(offer_batch(&p->end[1], &forged), QG_KMS_BATCH_MISMATCH);

	qg_key_id_pair kp;
	qg_uuid id;
	qg_stream *st = pair_in(p, 0);
	pthread_mutex_lock(&st->lock);
	qg_key_id_pair_of(st->newest->keys_in, "sae-alice", "sae-bob", &kp);
	qg_key_id_make(st->newest->keys_in, &kp, (qg_key_id_position){ .index = PAIR_SEGMENT + 5, .size_bytes = 32 }, &id);
	pthread_mutex_unlock(&st->lock);
	pair_keys *got = keys_new();
	qg_err err = pair_fetch(&p->end[1], "sae-alice", "sae-bob", &id, 1, got);
	keys_free(&got);
	return err;
}

static void test_rule_06_dec_keys_serves_no_node_segment(void **state)
{
	(void)state;
	assert_int_equal(fetch_from_use(QG_USE_PAD), QG_E_NOTFOUND);
	(void)teardown(NULL);
	assert_int_equal(fetch_from_use(QG_USE_APPLICATION), QG_OK);
}

static void first_batch(qg_kms_batch *m)
{
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, far_end_read, NULL));
	epoch_view v = pair_epoch(pair_in(p, 0));
	*m = (qg_kms_batch){ .stream = "a-to-b", .ksid = v.ksid, .count = PAIR_SEGMENT, .use = QG_USE_APPLICATION,
			     .root = true, .issue_s = 60, .fetch_s = 60, .mark = 9 };
	memcpy(m->epoch, v.id, sizeof m->epoch);
}

static void refused(const qg_kms_batch *m)
{
	char text[QG_KMS_MSG_MAX];
	size_t len = 0;
	assert_int_equal(qg_kms_batch_encode(m, text, sizeof text, &len), QG_OK);
	assert_int_equal(offer_told(&p->end[1], text, len).status, 400);
}

/* Even signed by who holds the key: what no owner says is refused, and costs
 * the segment nothing. */
static void test_rule_04_what_fits_no_segment_is_refused(void **state)
{
	(void)state;
	qg_kms_batch m, good;
	first_batch(&m);
#define MISFIT(member, value)                                   \
	do {                                                    \
		qg_kms_batch other = m;                         \
		other.member = (value);                         \
		sign_batch(&m, QG_USE_APPLICATION, &good);      \
		memcpy(other.mac, good.mac, sizeof other.mac);  \
		refused(&other);                                \
	} while (0)
	MISFIT(count, PAIR_SEGMENT - 1);
	MISFIT(count, PAIR_SEGMENT + 1);
	MISFIT(first_index, 1);
	MISFIT(segment, 1);
	MISFIT(ksid.b[0], (uint8_t)(m.ksid.b[0] ^ 1));
	MISFIT(issue_s, 0);
	MISFIT(issue_s, UINT32_MAX);
	MISFIT(fetch_s, 0);
	MISFIT(fetch_s, UINT32_MAX);
#undef MISFIT
	assert_int_equal(offer_text(&p->end[1], "{", 1), QG_KMS_BATCH_UNKNOWN);
	qg_kms_batch other = m;
	memcpy(other.stream, "b-to-c", sizeof "b-to-c");
	assert_int_equal(offer_batch(&p->end[1], &other), QG_KMS_BATCH_UNKNOWN);
	sign_batch(&m, QG_USE_APPLICATION, &good);
	assert_int_equal(offer_batch(&p->end[1], &good), QG_KMS_BATCH_CONFIRMED);
}

/* An owner whose mark fell back had its state put back: nothing of the epoch is
 * confirmed any more. */
static void test_rule_09_a_mark_that_falls_back_ends_the_epoch(void **state)
{
	(void)state;
	qg_kms_batch m, good;
	first_batch(&m);
	sign_batch(&m, QG_USE_APPLICATION, &good);
	assert_int_equal(offer_batch(&p->end[1], &good), QG_KMS_BATCH_CONFIRMED);
	m.segment = 1;
	m.first_index = PAIR_SEGMENT;
	m.root = false;
	m.mark = 8;
	sign_batch(&m, QG_USE_APPLICATION, &good);
	assert_int_equal(offer_batch(&p->end[1], &good), QG_KMS_BATCH_MISMATCH);
	m.mark = 9;
	sign_batch(&m, QG_USE_APPLICATION, &good);
	assert_int_equal(offer_batch(&p->end[1], &good), QG_KMS_BATCH_UNKNOWN);
}

static void test_rule_06_the_use_is_authenticated(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, far_end_read, NULL));
	epoch_view v = pair_epoch(pair_in(p, 0));
	qg_kms_batch m = { .stream = "a-to-b", .ksid = v.ksid, .count = PAIR_SEGMENT, .root = true, .issue_s = 60,
			   .fetch_s = 60 }, other;
	memcpy(m.epoch, v.id, sizeof m.epoch);
	sign_batch(&m, QG_USE_PAD, &other);
	other.use = QG_USE_APPLICATION;
	assert_int_equal(offer_batch(&p->end[1], &other), QG_KMS_BATCH_MISMATCH);
}

/* --- rule 7 -------------------------------------------------------------------- */

static void test_rule_07_the_largest_key_is_half_a_segment_or_4095_bytes(void **state)
{
	(void)state;
	pair_keys *k = keys_new();
	p = pair_start(NULL);
	assert_true(pair_deliver(p, 0, 3, 1024));
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 1025, k), QG_E_RANGE);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 0, k), QG_E_RANGE);
	(void)teardown(NULL);
	p = pair_start(&(pair_options){ .segment_chunks = 512, .ready_chunks = 4096, .inbound_chunks = 65536 });
	for (int i = 0; i < 4; i++)
		assert_true(pair_deliver(p, 0, 3, 4095));
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 4096, k), QG_E_RANGE);
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 1, 33, k), QG_OK);
	keys_free(&k);
}

static void make_id(uint32_t index, uint16_t size, qg_uuid *id)
{
	qg_key_id_pair kp;
	qg_stream *st = pair_in(p, 0);
	pthread_mutex_lock(&st->lock);
	qg_key_id_pair_of(st->newest->keys_in, "sae-alice", "sae-bob", &kp);
	qg_key_id_make(st->newest->keys_in, &kp, (qg_key_id_position){ .index = index, .size_bytes = size }, id);
	pthread_mutex_unlock(&st->lock);
}

static qg_err fetch_at(uint32_t index, uint16_t size)
{
	qg_uuid id;
	make_id(index, size, &id);
	pair_keys *got = keys_new();
	qg_err err = pair_fetch(&p->end[1], "sae-alice", "sae-bob", &id, 1, got);
	keys_free(&got);
	return err;
}

/* What the owner would never make, made with its keys. */
static void test_rule_07_overlaps_and_reserved_chunks_are_refused_whole(void **state)
{
	(void)state;
	p = pair_start(NULL);
	assert_true(pair_wait_ready(p, 0, 200));
	assert_int_equal(fetch_at(0, 32), QG_E_NOTFOUND);	      /* root */
	assert_int_equal(fetch_at(1, 64), QG_E_NOTFOUND);	      /* half in the root */
	assert_int_equal(fetch_at(62, 32), QG_E_NOTFOUND);	      /* answer key */
	assert_int_equal(fetch_at(63, 32), QG_E_NOTFOUND);	      /* request key */
	assert_int_equal(fetch_at(61, 64), QG_E_NOTFOUND);	      /* half in the answer key */
	assert_int_equal(fetch_at(60, 32 * 10), QG_E_NOTFOUND);	      /* over the segment's end */
	assert_int_equal(fetch_at(UINT32_MAX, 4095), QG_E_NOTFOUND); /* nowhere */
	assert_int_equal(fetch_at(10, 100), QG_OK);		      /* chunks 10 to 13 */
	assert_int_equal(fetch_at(13, 32), QG_E_NOTFOUND);	      /* its slack is destroyed too */
	assert_int_equal(fetch_at(8, 96), QG_E_NOTFOUND);	      /* overlaps by one ... */
	assert_int_equal(fetch_at(8, 64), QG_OK);		      /* ... and took nothing */
}

static void test_rule_07_several_keys_are_all_or_none(void **state)
{
	(void)state;
	p = pair_start(NULL);
	pair_keys *k = keys_new(), *got = keys_new();
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 5, 32, k), QG_OK);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id + 4, 1, got), QG_OK);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 5, got), QG_E_NOTFOUND);
	assert_null(got->key);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 4, got), QG_OK);
	assert_memory_equal(got->key, k->key, 128);
	/* Two IDs of one request that overlap each other. */
	qg_uuid both[2];
	make_id(40, 64, &both[0]);
	make_id(41, 64, &both[1]);
	qg_fetch_request req = { .master = "sae-alice", .slave = "sae-bob", .ids = both, .n = 2 };
	pair_fetch_begin(&p->end[1], &req, got);
	assert_int_equal(keys_wait(got), QG_E_NOTFOUND);
	assert_int_equal(fetch_at(40, 96), QG_OK);
	keys_free(&k);
	keys_free(&got);
}

/* Bits of every range within four bytes, against one by one. */
static void test_bits(void **state)
{
	(void)state;
	for (uint32_t first = 0; first <= 32; first++) {
		for (uint32_t n = 0; first + n <= 32; n++) {
			uint8_t set[5] = { 0 }, cleared[5], want[5] = { 0 };
			memset(cleared, 0xff, sizeof cleared);
			for (uint32_t i = first; i < first + n; i++)
				want[i / 8] = (uint8_t)(want[i / 8] | 1u << i % 8);
			qg_bits_set(set, first, n);
			assert_memory_equal(set, want, sizeof set);
			qg_bits_clear(cleared, first, n);
			for (size_t i = 0; i < sizeof want; i++)
				assert_int_equal(cleared[i], 0xff & ~want[i]);
			assert_false(qg_bits_any(cleared, first, n));
			for (uint32_t i = 0; i < 32; i++) {
				uint8_t one[5] = { 0 };
				one[i / 8] = (uint8_t)(1u << i % 8);
				assert_int_equal(qg_bits_any(one, first, n), i >= first && i < first + n);
			}
		}
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_rule_04_the_macs_cover_what_they_should),
		TEST(test_rule_04_an_altered_request_is_refused),
		TEST(test_rule_05_a_retry_over_a_restart_is_the_same_bytes),
		TEST(test_rule_05_a_forged_answer_confirms_nothing),
		TEST(test_rule_05_one_forged_answer_does_no_harm),
		TEST(test_rule_05_a_mismatched_segment_is_dead_at_both_ends),
		TEST(test_rule_05_a_told_mismatch_outlives_a_crash),
		TEST(test_rule_05_full_only_delays),
		TEST(test_rule_05_not_here_yet_only_delays),
		TEST(test_rule_05_duplicates_and_lost_answers_do_no_harm),
		TEST(test_rule_05_a_shared_stream_signs_once_over_a_crash),
		TEST(test_rule_06_dec_keys_serves_no_node_segment),
		TEST(test_rule_06_the_use_is_authenticated),
		TEST(test_rule_04_what_fits_no_segment_is_refused),
		TEST(test_rule_09_a_mark_that_falls_back_ends_the_epoch),
		TEST(test_rule_07_the_largest_key_is_half_a_segment_or_4095_bytes),
		TEST(test_rule_07_overlaps_and_reserved_chunks_are_refused_whole),
		TEST(test_rule_07_several_keys_are_all_or_none),
		TEST(test_bits),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
