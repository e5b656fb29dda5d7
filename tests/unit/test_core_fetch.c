/* SPDX-License-Identifier: Apache-2.0 */
/* Delivery: at most once, in time, to the right SAE, and nothing left on disk
 * (SOUNDNESS 10 to 15). */
#include "support/pair_case.h"

#include <stdlib.h>
#include <string.h>

#define CALLERS 8

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; p != NULL && i < 2; i++)
		atomic_store(&p->end[i].store.fault, FAULT_NONE);
	return end_case(true);
}

static void later_s(uint32_t s)
{
	atomic_fetch_add(&pair_ahead_ms, (uint64_t)s * 1000);
	atomic_fetch_add(&pair_wall_ahead_ms, (int64_t)s * 1000);
}

static qg_err fetch_one(const char *master, const char *slave, const qg_uuid *id)
{
	return pair_fetch(&p->end[1], master, slave, id, 1, got);
}

static void issue(uint32_t n)
{
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", n, 32, k), QG_OK);
}

/* --- rule 10 -------------------------------------------------------------------- */

static void test_rule_10_one_of_many_callers_gets_the_key(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(20);
	for (size_t id = 0; id < 20; id++) {
		qg_fetch_request req = { .master = "sae-alice", .slave = "sae-bob", .ids = &k->id[id], .n = 1 };
		pair_keys *c[CALLERS];
		end_hold_commits(&p->end[1]);
		for (int i = 0; i < CALLERS; i++) {
			c[i] = keys_new();
			pair_fetch_begin(&p->end[1], &req, c[i]);
		}
		pair_nap(2);
		for (int i = 0; i < CALLERS; i++)
			assert_int_equal(atomic_load(&c[i]->calls), 0); /* all wait for the first one's outcome */
		end_let_commits(&p->end[1]);
		int won = 0;
		for (int i = 0; i < CALLERS; i++) {
			qg_err err = keys_wait(c[i]);
			assert_true(err == QG_OK || err == QG_E_NOTFOUND);
			won += err == QG_OK;
			keys_free(&c[i]);
		}
		assert_int_equal(won, 1);
	}
}

/* Requests that share keys crosswise and some that cannot be met: nobody waits
 * for what nobody will do. */
static void test_rule_10_crossing_requests_all_end(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(40);
	qg_uuid sets[CALLERS][3];
	qg_fetch_request req[CALLERS];
	pair_keys *c[CALLERS];
	qg_uuid none;
	qg_uuid_random(&none);
	for (int round = 0; round < 10; round++) {
		const qg_uuid *id = &k->id[round * 4];
		for (int i = 0; i < CALLERS; i++) {
			sets[i][0] = id[i % 4];
			sets[i][1] = id[(i + 1) % 4];
			sets[i][2] = i % 3 == 2 ? none : id[(i + 2) % 4];
			c[i] = keys_new();
			req[i] = (qg_fetch_request){ .master = "sae-alice", .slave = "sae-bob", .ids = sets[i], .n = 3 };
			pair_fetch_begin(&p->end[1], &req[i], c[i]);
		}
		int won = 0;
		for (int i = 0; i < CALLERS; i++) {
			won += keys_wait(c[i]) == QG_OK;
			keys_free(&c[i]);
		}
		assert_int_equal(won, 1);
	}
}

static void test_rule_10_a_commit_that_failed_leaves_the_key(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(3);
	assert_true(pair_wait_idle(p, 0));
	atomic_store(&p->end[1].store.fault, FAULT_FAILS);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_IO);
	assert_null(got->key);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_IO);
	atomic_store(&p->end[1].store.fault, FAULT_NONE);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_OK);
	assert_memory_equal(got->key, k->key, 32);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_NOTFOUND);
}

static void unknown_commit(pair_fault fault)
{
	p = pair_start(NULL);
	issue(4);
	assert_true(pair_wait_idle(p, 0));
	atomic_store(&p->end[1].store.fault, (int)fault);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_IO);
	atomic_store(&p->end[1].store.fault, FAULT_NONE);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_NOTFOUND);
	/* Others of the segment are still served, before and after a restart. */
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id + 1), QG_OK);
	assert_memory_equal(got->key, k->key + 32, 32);
	end_crash(&p->end[1]);
	end_start(&p->end[1]);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id + 1), QG_E_NOTFOUND);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id + 2), QG_OK);
}

static void test_rule_10_a_commit_of_unknown_outcome_consumes(void **state)
{
	(void)state;
	unknown_commit(FAULT_UNKNOWN_DONE);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_NOTFOUND);
	pair_free(&p);
	unknown_commit(FAULT_UNKNOWN_UNDONE);
}

static void test_rule_10_a_key_fetched_before_a_crash_is_gone(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(5);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_OK);
	end_crash(&p->end[1]);
	end_start(&p->end[1]);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_NOTFOUND);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id + 1), QG_OK);
	assert_memory_equal(got->key, k->key + 32, 32);
}

/* A store that refuses for a moment while the first segment comes costs at
 * most that segment. */
static void test_rule_10_a_refusing_store_ends_nothing_for_good(void **state)
{
	(void)state;
	p = pair_new(NULL);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_deliver(p, 0, 1, 32));
	for (int i = 0; i < 5; i++) {
		atomic_store(&p->end[i % 2].store.fault, FAULT_FAILS);
		(void)pair_issue(&p->end[0], "sae-alice", "sae-bob", 60, 32, k);
		pair_nap(60);
		atomic_store(&p->end[i % 2].store.fault, FAULT_NONE);
		assert_true(pair_deliver(p, 0, 20, 32));
	}
}

/* --- rule 11 -------------------------------------------------------------------- */

static void test_rule_11_the_owner_issues_within_its_window(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .issue_s = 50, .fetch_s = 100 });
	assert_true(pair_wait_idle(p, 0));
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	atomic_store(&pair_source_of(p, 1, 0)->down, true);
	later_s(45);
	issue(1);
	later_s(6);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, got), QG_E_EMPTY);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_OK);
}

static void test_rule_11_the_far_end_keeps_for_both_windows(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .issue_s = 50, .fetch_s = 100 });
	issue(3);
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	atomic_store(&pair_source_of(p, 1, 0)->down, true);
	later_s(145);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_OK);
	end_hold_commits(&p->end[1]); /* no housekeeping comes in between */
	later_s(6);
	qg_fetch_request req = { .master = "sae-alice", .slave = "sae-bob", .ids = k->id + 1, .n = 1 };
	pair_fetch_begin(&p->end[1], &req, got);
	end_let_commits(&p->end[1]);
	assert_int_equal(keys_wait(got), QG_E_NOTFOUND);
}

/* A backward step adds nothing and a forward jump beyond the limit while
 * stopped is not believed by the far end, but by the owner. */
static void stopped_for(int64_t wall_s, qg_err want_fetch)
{
	p = pair_start(&(pair_options){ .issue_s = 50, .fetch_s = 100 });
	issue(3);
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	atomic_store(&pair_source_of(p, 1, 0)->down, true);
	pair_nap(50);
	end_stop(&p->end[1]);
	atomic_fetch_add(&pair_wall_ahead_ms, wall_s * 1000);
	end_start(&p->end[1]);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), want_fetch);
	pair_free(&p);
}

static void test_rule_11_steps_of_the_wall_clock_while_stopped(void **state)
{
	(void)state;
	stopped_for(20, QG_OK);
	stopped_for(200, QG_E_NOTFOUND);
	stopped_for(-3600, QG_OK);
	stopped_for(2 * 86400, QG_OK); /* beyond clock_jump_s: alarmed, not applied */
}

static void test_rule_11_the_owner_believes_a_jump_at_once(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .issue_s = 50, .fetch_s = 100 });
	assert_true(pair_wait_idle(p, 0));
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	end_stop(&p->end[0]);
	atomic_fetch_add(&pair_wall_ahead_ms, INT64_C(2) * 86400 * 1000);
	end_start(&p->end[0]);
	pair_nap(300);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, got), QG_E_EMPTY);
}

/* --- rule 12 -------------------------------------------------------------------- */

static uint8_t blob_bytes[2][1 << 20];
static size_t blob_len[2];

typedef struct blob_wish {
	int64_t row;
	uint8_t *out;
	size_t *len;
} blob_wish;

static qg_err take_blob(const qg_segment_rec *rec, void *ctx)
{
	blob_wish *w = ctx;
	if (rec->row == w->row && rec->sealed != NULL && rec->sealed_len <= sizeof blob_bytes[0]) {
		memcpy(w->out, rec->sealed, rec->sealed_len);
		*w->len = rec->sealed_len;
	}
	return QG_OK;
}

/* The stored blob of the far end's first segment. */
static void read_blob(int slot)
{
	qg_stream *st = pair_in(p, 0);
	pthread_mutex_lock(&st->lock);
	blob_wish w = { .row = qg_epoch_segment(st->newest, 0)->row, .out = blob_bytes[slot], .len = &blob_len[slot] };
	pthread_mutex_unlock(&st->lock);
	blob_len[slot] = 0;
	end_hold_commits(&p->end[1]);
	qg_store *inner_store = p->end[1].store.inner;
	assert_int_equal(inner_store->ops->load_segments(inner_store, take_blob, &w), QG_OK);
	end_let_commits(&p->end[1]);
	assert_true(blob_len[slot] > 0);
}

static bool resealed(core_pair *pair, void *ctx)
{
	return atomic_load(&pair->end[1].store.reseals) > *(unsigned *)ctx;
}

static bool opens_to(int slot, const void *bytes, size_t n)
{
	qg_stream *st = pair_in(p, 0);
	uint8_t ad[512];
	qg_secret *plain = NULL;
	pthread_mutex_lock(&st->lock);
	size_t ad_len = qg_epoch_ad(st->newest, "segment", 0, ad, sizeof ad);
	pthread_mutex_unlock(&st->lock);
	assert_int_equal(qg_sealer_unseal(p->end[1].sealer, ad, ad_len, blob_bytes[slot], blob_len[slot], &plain), QG_OK);
	bool found = memmem(plain->data, plain->len, bytes, n) != NULL;
	qg_secret_free(&plain);
	return found;
}

static void test_rule_12_consumed_key_leaves_the_blob_and_no_nonce_repeats(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(10);
	assert_true(pair_wait_idle(p, 0));
	pair_nap(200);
	read_blob(0);
	assert_true(opens_to(0, k->key, 32));
	unsigned n = atomic_load(&p->end[1].store.reseals);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_OK);
	assert_true(pair_wait(p, resealed, &n));
	pair_nap(100);
	read_blob(1);
	assert_false(opens_to(1, k->key, 32));
	assert_true(opens_to(1, k->key + 32, 32));
	assert_int_equal(blob_len[0], blob_len[1]);
	/* version, generation, then nonce, wrapped data key, nonce, ciphertext. */
	assert_memory_not_equal(blob_bytes[0] + 5, blob_bytes[1] + 5, 24);
	assert_memory_not_equal(blob_bytes[0] + 5 + 24 + 48, blob_bytes[1] + 5 + 24 + 48, 24);
	/* Bound to its place: another segment's number does not open it. */
	uint8_t ad[512];
	qg_stream *st = pair_in(p, 0);
	qg_secret *plain = NULL;
	pthread_mutex_lock(&st->lock);
	size_t ad_len = qg_epoch_ad(st->newest, "segment", 1, ad, sizeof ad);
	pthread_mutex_unlock(&st->lock);
	assert_int_equal(qg_sealer_unseal(p->end[1].sealer, ad, ad_len, blob_bytes[1], blob_len[1], &plain), QG_E_AUTH);
}

static void test_rule_12_no_file_has_key_bytes(void **state)
{
	(void)state;
	uint8_t chunk[PAIR_CHUNK];
	p = pair_start(NULL);
	issue(50);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 25, got), QG_OK);
	epoch_view v = pair_epoch(pair_out(p, 0));
	pair_nap(200);
	assert_true(pair_on_disk(p, v.id, sizeof v.id)); /* what is looked for would be found */
	for (uint32_t i = 0; i < 128; i++) { /* root, keys issued, fetched, stored, one-time keys */
		pair_chunk(p, &v.ksid, 0, i, chunk);
		assert_false(pair_on_disk(p, chunk, sizeof chunk));
		assert_false(pair_on_disk(p, chunk, 12));
	}
	end_stop(&p->end[1]);
	for (uint32_t i = 0; i < 64; i++) {
		pair_chunk(p, &v.ksid, 0, i, chunk);
		assert_false(pair_on_disk(p, chunk, 12));
	}
}

/* Everything that was consumed before an orderly stop is off the disk with it,
 * however many segments that concerns. */
static void test_rule_12_a_stop_flushes_everything(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .segment_chunks = 24, .ready_chunks = 24 * 200, .inbound_chunks = 60000,
					.flush_ms = 3600000 });
	assert_true(pair_wait_ready(p, 0, 20 * 150));
	for (int i = 0; i < 3; i++) {
		assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 900, 32, k), QG_OK);
		qg_uuid some[300];
		for (int j = 0; j < 300; j++)
			some[j] = k->id[j * 3];
		assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", some, 300, got), QG_OK);
	}
	end_stop(&p->end[1]);
	unsigned written = atomic_load(&p->end[1].store.reseals);
	end_start(&p->end[1]);
	/* A start that finds consumed key in a blob has to write it again. */
	qg_stream *st = pair_in(p, 0);
	unsigned used = 0;
	pthread_mutex_lock(&st->lock);
	for (qg_epoch *e = st->newest; e != NULL; e = e->older)
		for (uint32_t i = 0; i < e->n_seg; i++)
			if (e->seg[i] != NULL && e->seg[i]->row != 0 && e->seg[i]->left < e->seg[i]->hi - e->seg[i]->lo)
				used++;
	pthread_mutex_unlock(&st->lock);
	assert_true(used > 50);
	assert_true(written >= used);
}

/* --- rule 13 -------------------------------------------------------------------- */

static void test_rule_13_who_may_not_gets_401_and_what_is_not_gets_400(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(6);
	qg_uuid none;
	qg_uuid_random(&none);
	none.b[6] = (uint8_t)((none.b[6] & 0x0f) | 0x80);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", &none), QG_E_NOTFOUND);
	assert_int_equal(fetch_one("sae-alice", "sae-erin", k->id), QG_E_DENIED);   /* wrong slave */
	assert_int_equal(fetch_one("sae-dave", "sae-bob", k->id), QG_E_DENIED);	   /* wrong master, same home */
	assert_int_equal(fetch_one("sae-nobody", "sae-bob", k->id), QG_E_DENIED);   /* wrong master, no home */
	assert_int_equal(fetch_one("sae-erin", "sae-bob", k->id), QG_E_DENIED);	   /* a master of this node */
	assert_int_equal(fetch_one("sae-bob", "sae-alice", k->id), QG_E_DENIED);    /* roles turned */
	assert_int_equal(pair_fetch(&p->end[0], "sae-alice", "sae-bob", k->id, 1, got), QG_E_DENIED); /* at its own end */
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_OK);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_E_NOTFOUND);
	assert_int_equal(fetch_one("sae-alice", "sae-erin", k->id), QG_E_DENIED); /* consumed: still 401 */
	/* 401 beats 400, whatever the order, and nothing is consumed. */
	qg_uuid mixed[3] = { none, k->id[1], k->id[2] };
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", mixed, 3, got), QG_E_NOTFOUND);
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-erin", 1, 32, got), QG_OK);
	qg_uuid erins = got->id[0];
	qg_uuid worse[3] = { none, k->id[1], erins }, first[3] = { erins, k->id[1], none };
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", worse, 3, got), QG_E_DENIED);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", first, 3, got), QG_E_DENIED);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id + 1, 2, got), QG_OK);
	assert_int_equal(fetch_one("sae-alice", "sae-erin", &erins), QG_OK);
}

/* Names enter as exact bytes with their lengths. */
static void test_rule_13_names_are_exact(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(1);
	assert_int_equal(fetch_one("sae-alice", "Sae-bob", k->id), QG_E_DENIED);
	assert_int_equal(fetch_one("sae-alice", "sae-bob ", k->id), QG_E_DENIED);
	assert_int_equal(fetch_one("sae-alices", "ae-bob", k->id), QG_E_DENIED);
	qg_uuid bent = k->id[0];
	unsigned known = 0;
	for (int i = 0; i < 128; i++) {
		bent = k->id[0];
		bent.b[i / 8] ^= (uint8_t)(1 << (i % 8));
		qg_err err = fetch_one("sae-alice", "sae-bob", &bent);
		assert_true(err == QG_E_NOTFOUND || err == QG_E_DENIED);
		known += err == QG_E_DENIED;
	}
	/* Position and issue tag are under the pair tag: hardly a bent ID is known. */
	assert_true(known <= 1);
	assert_int_equal(fetch_one("sae-alice", "sae-bob", k->id), QG_OK);
}

static void test_rule_13_ids_of_the_last_epochs_are_served(void **state)
{
	(void)state;
	pair_keys *from[10];
	p = pair_start(NULL);
	for (int i = 0; i < 10; i++) {
		from[i] = keys_new();
		atomic_store(&pair_source_of(p, 0, 0)->stop_at, 2 * PAIR_SEGMENT);
		assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 1, 32, from[i]), QG_OK);
		/* The old epoch's rest is issued from first: use it up. */
		while (pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, got) == QG_OK)
			;
		qg_stream *st = pair_out(p, 0);
		pthread_mutex_lock(&st->lock);
		qg_epoch_end(st->newest, QG_KMS_CLOSE_AGE, true);
		pthread_mutex_unlock(&st->lock);
	}
	/* Two beyond the 8 live ones: not served, but they are no strangers. */
	unsigned served = 0;
	for (int i = 9; i >= 0; i--) {
		qg_err err = fetch_one("sae-alice", "sae-bob", from[i]->id);
		if (err == QG_OK)
			assert_memory_equal(from[i]->key, got->key, 32);
		else
			assert_int_equal(err, QG_E_DENIED);
		served += err == QG_OK;
		keys_free(&from[i]);
	}
	assert_true(served >= QG_LIVE_EPOCHS);
}

/* --- rule 14: keys with IDs of their own ------------------------------------------- */

static void test_rule_14_pairs_on_this_node(void **state)
{
	(void)state;
	p = pair_start(NULL);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-dave", 3, 48, k), QG_OK);
	core_end *a = &p->end[0];
	assert_int_equal(pair_fetch(a, "sae-alice", "sae-bob", k->id, 1, got), QG_E_DENIED);
	assert_int_equal(pair_fetch(a, "sae-dave", "sae-alice", k->id, 1, got), QG_E_DENIED);
	assert_int_equal(pair_fetch(a, "sae-alice", "sae-dave", k->id, 3, got), QG_OK);
	assert_int_equal(got->bytes, 3 * 48);
	assert_memory_equal(k->key, got->key, got->bytes);
	assert_int_equal(pair_fetch(a, "sae-alice", "sae-dave", k->id, 1, got), QG_E_NOTFOUND);
	assert_int_equal(pair_issue(a, "sae-alice", "sae-dave", 1, 32, k), QG_OK);
	end_crash(a);
	end_start(a);
	assert_int_equal(pair_fetch(a, "sae-alice", "sae-dave", k->id, 1, got), QG_OK);
	assert_memory_equal(k->key, got->key, 32);
}

static void test_rule_14_additional_slaves_on_this_node(void **state)
{
	(void)state;
	static const char *const extra[] = { "sae-dave" };
	p = pair_start(NULL);
	assert_true(pair_wait_ready(p, 0, 100));
	qg_issue_request req = { .master = "sae-alice", .slave = "sae-bob", .extra = extra, .n_extra = 1, .number = 2,
				 .size_bytes = 32, .max_hops = UINT32_MAX };
	assert_int_equal(pair_issue_req(&p->end[0], &req, k), QG_OK);
	assert_int_equal(pair_fetch(&p->end[0], "sae-alice", "sae-dave", k->id, 2, got), QG_OK);
	assert_memory_equal(k->key, got->key, 64);
	assert_int_equal(pair_fetch(&p->end[0], "sae-alice", "sae-dave", k->id, 2, got), QG_E_NOTFOUND);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 2, got), QG_OK);
	assert_memory_equal(k->key, got->key, 64);
	/* A record that cannot be stored: no key is handed out. */
	assert_true(pair_wait_idle(p, 0));
	atomic_store(&p->end[0].store.fault, FAULT_FAILS);
	assert_int_equal(pair_issue_req(&p->end[0], &req, k), QG_E_IO);
	assert_null(k->key);
	atomic_store(&p->end[0].store.fault, FAULT_NONE);
}

/* --- rule 15 -------------------------------------------------------------------- */

static void test_rule_15_a_pair_has_a_quota_within_t_fetch(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .pair_chunks = 100, .fetch_s = 64 });
	assert_true(pair_wait_ready(p, 0, 300));
	issue(90);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 11, 32, got), QG_E_LIMIT);
	assert_true(got->retry_after_s > 0 && got->retry_after_s <= 66);
	issue(10);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, got), QG_E_LIMIT);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-erin", 50, 32, got), QG_OK);
	assert_int_equal(pair_issue(&p->end[0], "sae-dave", "sae-bob", 50, 32, got), QG_OK);
	later_s(70);
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 50, 32, got), QG_OK);
}

static qg_err nothing(qg_job *job, qg_store *store)
{
	(void)job, (void)store;
	return QG_OK;
}

/* An orderly stop keeps it to the chunk, a crash but for the last second. */
static void test_rule_15_the_quota_outlives_the_gateway(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .pair_chunks = 100, .fetch_s = 3600 });
	assert_true(pair_wait_ready(p, 0, 300));
	issue(70);
	end_stop(&p->end[0]);
	end_start(&p->end[0]);
	assert_true(pair_wait_ready(p, 0, 300));
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 31, 32, got), QG_E_LIMIT);
	issue(30);
	qg_pair_window_flush(p->end[0].core);
	qg_job behind = { .run = nothing };
	assert_int_equal(qg_committer_run(p->end[0].core->committer, &behind), QG_OK);
	end_crash(&p->end[0]);
	end_start(&p->end[0]);
	assert_true(pair_wait_ready(p, 0, 300));
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, got), QG_E_LIMIT);
	assert_int_equal(pair_issue(&p->end[0], "sae-dave", "sae-bob", 50, 32, got), QG_OK);
}

/* The rows of a stopped end's quotas are this one. */
static void put_window(core_end *e, const qg_window_rec *rec)
{
	char why[256] = "";
	bool fresh = false;
	qg_store *s = NULL;
	assert_int_equal(qg_store_sqlite_open(e->database, &fresh, &s, why, sizeof why), QG_OK);
	assert_int_equal(s->ops->begin(s), QG_OK);
	assert_int_equal(s->ops->windows_delete(s, INT64_MAX), QG_OK);
	assert_int_equal(s->ops->window_put(s, rec), QG_OK);
	assert_int_equal(s->ops->commit(s), QG_OK);
	s->ops->close(&s);
}

/* Rows that no gateway writes: no start, rather than another quota. */
static void test_rule_15_a_damaged_quota_is_refused(void **state)
{
	(void)state;
	static const uint8_t bytes[8 * QG_WINDOW_SLOTS];
	const int64_t now_ms = qg_clock_wall_ms();
	const qg_window_rec good = { .pair = bytes, .pair_len = QG_WINDOW_NAME, .began_ms = now_ms + 1000000,
				     .slot_ms = 2000, .chunks = bytes, .chunks_len = sizeof bytes };
	qg_window_rec bad[] = { good, good, good };
	bad[0].pair_len--;
	bad[1].chunks_len -= 8;
	bad[2].slot_ms = (uint64_t)UINT32_MAX + 1;
	p = pair_start(&(pair_options){ .pair_chunks = 100, .fetch_s = 64 });
	end_stop(&p->end[0]);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		put_window(&p->end[0], &bad[i]);
		assert_int_equal(end_try_start(&p->end[0]), QG_E_CORRUPT);
	}
	put_window(&p->end[0], &good); /* of a clock that was set back since */
	end_start(&p->end[0]);
}

static void test_rule_15_part_of_the_pool_is_for_the_others(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .reserve_percent = 20 });
	assert_true(pair_wait_idle(p, 0));
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	unsigned n = 0;
	while (pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, got) == QG_OK)
		n++;
	uint64_t left = pair_ready(p, 0);
	assert_true(left >= 100 && left <= 110);
	assert_true(n > 300);
	assert_int_equal(pair_issue(&p->end[0], "sae-dave", "sae-bob", 40, 32, got), QG_OK);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, got), QG_E_EMPTY);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_rule_10_one_of_many_callers_gets_the_key),
		TEST(test_rule_10_crossing_requests_all_end),
		TEST(test_rule_10_a_commit_that_failed_leaves_the_key),
		TEST(test_rule_10_a_commit_of_unknown_outcome_consumes),
		TEST(test_rule_10_a_key_fetched_before_a_crash_is_gone),
		TEST(test_rule_10_a_refusing_store_ends_nothing_for_good),
		TEST(test_rule_11_the_owner_issues_within_its_window),
		TEST(test_rule_11_the_far_end_keeps_for_both_windows),
		TEST(test_rule_11_steps_of_the_wall_clock_while_stopped),
		TEST(test_rule_11_the_owner_believes_a_jump_at_once),
		TEST(test_rule_12_consumed_key_leaves_the_blob_and_no_nonce_repeats),
		TEST(test_rule_12_no_file_has_key_bytes),
		TEST(test_rule_12_a_stop_flushes_everything),
		TEST(test_rule_13_who_may_not_gets_401_and_what_is_not_gets_400),
		TEST(test_rule_13_names_are_exact),
		TEST(test_rule_13_ids_of_the_last_epochs_are_served),
		TEST(test_rule_14_pairs_on_this_node),
		TEST(test_rule_14_additional_slaves_on_this_node),
		TEST(test_rule_15_a_pair_has_a_quota_within_t_fetch),
		TEST(test_rule_15_the_quota_outlives_the_gateway),
		TEST(test_rule_15_a_damaged_quota_is_refused),
		TEST(test_rule_15_part_of_the_pool_is_for_the_others),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
