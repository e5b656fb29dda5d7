/* SPDX-License-Identifier: Apache-2.0 */
/* Epochs: their life, their key-ID root, their resumption (SOUNDNESS 1 to 3). */
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

static void later_s(uint32_t s)
{
	atomic_fetch_add(&pair_ahead_ms, (uint64_t)s * 1000);
	atomic_fetch_add(&pair_wall_ahead_ms, (int64_t)s * 1000);
}

typedef struct epoch_wish {
	qg_stream *st;
	uint8_t id[16];
} epoch_wish;

static bool is_other_epoch(core_pair *pair, void *ctx)
{
	(void)pair;
	epoch_wish *w = ctx;
	epoch_view v = pair_epoch(w->st);
	return v.any && v.state == QG_EPOCH_FILLING && memcmp(v.id, w->id, sizeof v.id) != 0;
}

/* Waits until the stream fills another epoch than `old`. */
static bool wait_new_epoch(qg_stream *st, const epoch_view *old)
{
	epoch_wish w = { .st = st };
	memcpy(w.id, old->id, sizeof w.id);
	return pair_wait(p, is_other_epoch, &w);
}

static bool is_gone(core_pair *pair, void *ctx)
{
	(void)pair;
	epoch_wish *w = ctx;
	return !pair_epoch_lives(w->st, w->id);
}

static bool wait_gone(qg_stream *st, const epoch_view *old)
{
	epoch_wish w = { .st = st };
	memcpy(w.id, old->id, sizeof w.id);
	return pair_wait(p, is_gone, &w);
}

static bool same_epoch(qg_stream *st, const epoch_view *old)
{
	epoch_view v = pair_epoch(st);
	return v.any && memcmp(v.id, old->id, sizeof v.id) == 0;
}

/* --- rule 1 -------------------------------------------------------------------- */

static void test_rule_01_an_old_epoch_ends_and_its_keys_stay_fetchable(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .issue_s = 600, .fetch_s = 600, .epoch_age_s = 100 });
	pair_keys *k = keys_new(), *got = keys_new();
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 5, 32, k), QG_OK);
	epoch_view a = pair_epoch(pair_out(p, 0)), b = pair_epoch(pair_in(p, 0));
	assert_memory_equal(a.id, b.id, sizeof a.id);
	later_s(99);
	pair_nap(300);
	assert_true(same_epoch(pair_out(p, 0), &a));
	later_s(3);
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	assert_true(wait_new_epoch(pair_in(p, 0), &b));
	assert_true(pair_epoch_lives(pair_out(p, 0), a.id));
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 5, got), QG_OK);
	assert_memory_equal(k->key, got->key, k->bytes);
	assert_true(pair_deliver(p, 0, 3, 32));
	keys_free(&k);
	keys_free(&got);
}

/* Chunks that may still be issued, one by one; *young: whether some came `after_s` later than others. */
static uint64_t count_ready(qg_stream *st, uint32_t after_s, bool *young)
{
	uint64_t n = 0, first = UINT64_MAX, last = 0;
	const qg_epoch *e = qg_epoch_filling(st);
	for (uint32_t i = 0; e != NULL && i < e->n_seg; i++) {
		const qg_segment *s = e->seg[i];
		if (s == NULL || !s->ours || s->phase != QG_SEG_CONFIRMED || s->use != QG_USE_APPLICATION)
			continue;
		n += qg_segment_expired(s) ? 0 : s->hi - s->cursor;
		first = s->born_ms < first ? s->born_ms : first;
		last = s->born_ms > last ? s->born_ms : last;
	}
	*young = last >= first + (uint64_t)after_s * 1000;
	return n;
}

static bool has_young(core_pair *pair, void *ctx)
{
	(void)pair, (void)ctx;
	qg_stream *st = pair_out(p, 0);
	bool young = false;
	pthread_mutex_lock(&st->lock);
	(void)count_ready(st, 30, &young);
	pthread_mutex_unlock(&st->lock);
	return young;
}

/* Before the gateway gets to ending it, too. */
static void test_rule_01_expired_key_is_not_called_ready(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .issue_s = 60, .fetch_s = 100, .epoch_age_s = 100000 });
	qg_stream *st = pair_out(p, 0);
	uint64_t said[3], counted[3];
	bool young = false;
	assert_true(pair_wait_idle(p, 0));
	assert_true(pair_deliver(p, 0, 2 * PAIR_SEGMENT, 32));
	later_s(30);
	assert_true(pair_deliver(p, 0, PAIR_SEGMENT, 32));
	assert_true(pair_wait(p, has_young, NULL));
	pthread_mutex_lock(&st->lock);
	for (unsigned i = 0; i < 3; i++) {
		said[i] = qg_keystore_chunks_ready(st);
		counted[i] = count_ready(st, 30, &young);
		later_s(31);
	}
	pthread_mutex_unlock(&st->lock);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(said[i], counted[i]);
	assert_true(said[0] > said[1] && said[1] > said[2] && said[2] == 0);
}

static bool is_draining(core_pair *pair, void *ctx)
{
	(void)pair;
	epoch_wish *w = ctx;
	pthread_mutex_lock(&w->st->lock);
	qg_epoch *e = qg_epoch_find(w->st, w->id);
	bool draining = e != NULL && e->state == QG_EPOCH_DRAINING;
	pthread_mutex_unlock(&w->st->lock);
	return draining;
}

/* Filling, ended, draining, destroyed: the last only after both windows. */
static void test_rule_01_an_epoch_is_destroyed_after_its_last_windows(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .issue_s = 60, .fetch_s = 100, .epoch_age_s = 100000 });
	pair_keys *k = keys_new(), *got = keys_new();
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 5, 32, k), QG_OK);
	epoch_view a = pair_epoch(pair_out(p, 0)), b = pair_epoch(pair_in(p, 0));
	end_stop(&p->end[0]);
	end_start(&p->end[0]);
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	assert_true(wait_new_epoch(pair_in(p, 0), &b));
	later_s(61); /* nothing of it is issued any more */
	epoch_wish w = { .st = pair_out(p, 0) };
	memcpy(w.id, a.id, sizeof w.id);
	assert_true(pair_wait(p, is_draining, &w));
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 1, got), QG_OK);
	later_s(90); /* 151 s of 160: key IDs still live, a stranger gets 401 */
	pair_nap(200);
	assert_true(pair_epoch_lives(pair_in(p, 0), b.id));
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-erin", k->id, 1, got), QG_E_DENIED);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id + 1, 1, got), QG_OK);
	later_s(20);
	assert_true(wait_gone(pair_in(p, 0), &b));
	assert_true(wait_gone(pair_out(p, 0), &a));
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id + 2, 1, got), QG_E_NOTFOUND);
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-erin", k->id + 2, 1, got), QG_E_NOTFOUND);
	keys_free(&k);
	keys_free(&got);
}

static bool both_idle(core_pair *pair, void *ctx)
{
	(void)ctx;
	qg_stream *in = pair_in(pair, 0);
	pthread_mutex_lock(&in->lock);
	uint64_t next = in->next_index;
	pthread_mutex_unlock(&in->lock);
	return next >= 2 * 4096;
}

static void put_index(qg_stream *st, uint64_t index)
{
	pthread_mutex_lock(&st->lock);
	st->next_index = index;
	pthread_cond_broadcast(&st->wake);
	pthread_mutex_unlock(&st->lock);
}

/* Indexes do not come near 2^32: the last segment below 2^32 - 2^20 is the
 * epoch's last, and another epoch follows. */
static void test_rule_01_an_epoch_ends_before_its_indexes_do(void **state)
{
	(void)state;
	p = pair_new(&(pair_options){ .segment_chunks = 4096, .ready_chunks = 16384, .inbound_chunks = 65536 });
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->stop_at, 2 * 4096);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, both_idle, NULL));
	assert_true(pair_wait_ready(p, 0, 2 * 4000));
	epoch_view a = pair_epoch(pair_out(p, 0));
	uint64_t last = QG_EPOCH_LAST - QG_EPOCH_LAST % 4096 - 4096;
	put_index(pair_out(p, 0), last);
	put_index(pair_in(p, 0), last);
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->stop_at, 0);
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	assert_true(wait_new_epoch(pair_in(p, 0), &a));
	assert_true(pair_deliver(p, 0, 10, 32));
}

/* A source that is lost again and again leaves no heap of empty epochs. */
static void test_rule_01_epochs_without_keys_do_not_pile_up(void **state)
{
	(void)state;
	p = pair_new(NULL);
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	epoch_view old = { 0 };
	for (int i = 0; i < 4; i++) {
		assert_true(wait_new_epoch(pair_out(p, 0), &old));
		old = pair_epoch(pair_out(p, 0));
		assert_true(wait_new_epoch(pair_in(p, 0), &(epoch_view){ 0 }));
		qg_stream *st = pair_out(p, 0);
		pthread_mutex_lock(&st->lock);
		qg_epoch_end(st->newest, QG_KMS_CLOSE_SOURCE, true);
		pthread_mutex_unlock(&st->lock);
	}
	assert_true(wait_new_epoch(pair_out(p, 0), &old));
	pair_nap(500);
	assert_true(pair_epoch(pair_out(p, 0)).epochs <= 2);
	assert_true(pair_epoch(pair_in(p, 0)).epochs <= 2);
}

/* One owner of a shared stream uses its keys, the other does not. */
static void test_rule_03_a_shared_stream_serves_one_owner_alone(void **state)
{
	(void)state;
	for (int side = 0; side < 2; side++) {
		p = pair_start(&(pair_options){ .shared = true });
		for (int i = 0; i < 25; i++)
			assert_true(pair_deliver(p, side, 50, 32));
		/* Then the other one wants keys too. */
		for (int i = 0; i < 25; i++)
			assert_true(pair_deliver(p, !side, 50, 32));
		(void)teardown(NULL);
	}
}

/* --- rule 2 -------------------------------------------------------------------- */

static bool far_end_has_root(core_pair *pair, void *ctx)
{
	(void)ctx;
	return pair_epoch(pair_in(pair, 0)).keys_in;
}

static void test_rule_02_no_id_before_the_first_confirmed_segment(void **state)
{
	(void)state;
	p = pair_new(NULL);
	pair_keys *k = keys_new();
	atomic_store(&p->end[0].drop_answers, 1 << 30);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait(p, far_end_has_root, NULL));
	pair_nap(100);
	assert_false(pair_epoch(pair_out(p, 0)).keys_out);
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, k), QG_E_EMPTY);
	atomic_store(&p->end[0].drop_answers, 0);
	assert_true(pair_deliver(p, 0, 1, 32));
	keys_free(&k);
}

static qg_err open_with(const core_pair *pair, const qg_key_id_binding *b, const qg_uuid *id, qg_key_id_position *pos)
{
	uint8_t root[2 * PAIR_CHUNK];
	qg_key_id_keys *keys = NULL;
	qg_key_id_pair kp;
	pair_chunk(pair, &b->ksid, 0, 0, root);
	pair_chunk(pair, &b->ksid, 0, 1, root + PAIR_CHUNK);
	if (b->ksid.b[0] == 0xff)
		return QG_E_INVAL;
	assert_int_equal(qg_key_id_keys_new(root, sizeof root, b, &keys), QG_OK);
	qg_key_id_pair_of(keys, "sae-alice", "sae-bob", &kp);
	qg_err err = qg_key_id_open(keys, &kp, id, pos);
	qg_key_id_keys_free(&keys);
	return err;
}

/* The root is the first 64 bytes of the stream; both ends and nobody with
 * other names, KSID, epoch or direction derive the same. */
static void test_rule_02_the_root_binds_names_ksid_epoch_and_direction(void **state)
{
	(void)state;
	p = pair_start(NULL);
	pair_keys *k = keys_new();
	qg_key_id_position pos;
	qg_key_id_binding b = { .owner = "KME-A", .far_end = "KME-B" };
	qg_err err = QG_E_NOTFOUND;
	/* Another may have opened: then the stock of the one before is issued first. */
	for (int i = 0; i < 20000 && err != QG_OK; i++) {
		assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 1, 32, k), QG_OK);
		epoch_view v = pair_epoch(pair_out(p, 0));
		b.ksid = v.ksid;
		memcpy(b.epoch, v.id, sizeof b.epoch);
		err = open_with(p, &b, k->id, &pos);
	}
	assert_int_equal(err, QG_OK);
	assert_true(pos.index >= 2); /* off the root's own chunks */
	assert_int_equal(pos.size_bytes, 32);
	qg_key_id_binding turned = b, other = b, epoch = b;
	turned.owner = "KME-B";
	turned.far_end = "KME-A";
	other.far_end = "KME-C";
	epoch.epoch[15] ^= 1;
	assert_int_equal(open_with(p, &turned, k->id, &pos), QG_E_NOTFOUND);
	assert_int_equal(open_with(p, &other, k->id, &pos), QG_E_NOTFOUND);
	assert_int_equal(open_with(p, &epoch, k->id, &pos), QG_E_NOTFOUND);
	keys_free(&k);
}

/* new_app has no MAC, but whoever changes it on the way gets nothing confirmed. */
static void test_rule_02_an_altered_new_app_confirms_nothing(void **state)
{
	(void)state;
	p = pair_new(NULL);
	pair_keys *k = keys_new();
	atomic_store(&p->end[0].alter_apps, true);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, k), QG_E_EMPTY);
		pair_nap(10);
	}
	assert_true(pair_find_record(p, 0, QG_KMS_NEW_KEY_BATCH, 0) >= 0);
	atomic_store(&p->end[0].alter_apps, false);
	assert_true(pair_deliver(p, 0, 1, 32));
	keys_free(&k);
}

/* --- rule 3 -------------------------------------------------------------------- */

static void stop_and_deliver(int stopped)
{
	p = pair_start(NULL);
	pair_keys *k = keys_new(), *got = keys_new();
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 5, 32, k), QG_OK);
	assert_true(pair_wait_idle(p, 0));
	uint64_t ready = pair_ready(p, 0);
	epoch_view a = pair_epoch(pair_out(p, 0));
	end_stop(&p->end[stopped]);
	assert_true(atomic_load(&pair_source_of(p, stopped, 0)->closes) == 1);
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	end_start(&p->end[stopped]);
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	assert_true(wait_new_epoch(pair_in(p, 0), &a));
	/* What was taken is deliverable on both sides, and more of it is issued;
	 * of the owner's, the rest of its lease is lost to a start. */
	assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", k->id, 5, got), QG_OK);
	assert_memory_equal(k->key, got->key, k->bytes);
	assert_true(pair_ready(p, 0) + 256 >= ready);
	assert_true(pair_ready(p, 0) > 0);
	assert_true(pair_deliver(p, 0, 10, 32));
	keys_free(&k);
	keys_free(&got);
}

static void test_rule_03_an_orderly_stop_of_the_owner_keeps_what_was_taken(void **state)
{
	(void)state;
	stop_and_deliver(0);
}

static void test_rule_03_an_orderly_stop_of_the_far_end_keeps_what_was_taken(void **state)
{
	(void)state;
	stop_and_deliver(1);
}

static void crash_and_resume(int side, bool shared)
{
	p = pair_start(&(pair_options){ .shared = shared });
	assert_true(pair_deliver(p, 0, 20, 32));
	assert_true(pair_deliver(p, 1, 20, 32));
	epoch_view a = pair_epoch(pair_out(p, side));
	end_crash(&p->end[side]);
	end_start(&p->end[side]);
	for (int i = 0; i < 30; i++) {
		assert_true(pair_deliver(p, 0, 20, 32));
		assert_true(pair_deliver(p, 1, 20, 32));
	}
	assert_true(same_epoch(pair_out(p, side), &a));
	assert_true(atomic_load(&pair_source_of(p, side, side)->probes) >= 1);
	/* Where the owners share a stream, what one reads on while the other is
	 * down may be given up. */
	if (!shared)
		assert_int_equal(pair_bad(pair_out(p, side)), 0);
}

static void test_rule_03_after_a_crash_the_streams_resume(void **state)
{
	(void)state;
	crash_and_resume(0, false);
}

static void test_rule_03_after_a_crash_of_the_far_end_they_resume(void **state)
{
	(void)state;
	crash_and_resume(1, false);
}

static void test_rule_03_after_a_crash_a_shared_stream_resumes(void **state)
{
	(void)state;
	crash_and_resume(0, true);
	(void)teardown(NULL);
	crash_and_resume(1, true);
}

static void test_rule_03_a_source_begun_anew_ends_the_epoch(void **state)
{
	(void)state;
	p = pair_start(NULL);
	assert_true(pair_deliver(p, 0, 20, 32));
	assert_true(pair_wait_idle(p, 0));
	epoch_view a = pair_epoch(pair_out(p, 0));
	end_crash(&p->end[0]);
	for (int i = 0; i < 2; i++)
		for (int owner = 0; owner < 2; owner++)
			atomic_store(&pair_source_of(p, i, owner)->generation, 1);
	end_start(&p->end[0]);
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	assert_true(wait_new_epoch(pair_in(p, 0), &a));
	for (int i = 0; i < 30; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
}

static void test_rule_03_a_source_that_lost_the_stored_index_ends_the_epoch(void **state)
{
	(void)state;
	p = pair_start(NULL);
	assert_true(pair_deliver(p, 0, 20, 32));
	epoch_view a = pair_epoch(pair_out(p, 0));
	end_crash(&p->end[0]);
	atomic_store(&pair_source_of(p, 0, 0)->loses, true);
	end_start(&p->end[0]);
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	atomic_store(&pair_source_of(p, 0, 0)->loses, false);
	assert_true(pair_deliver(p, 0, 20, 32));
}

/* Chunks missing at one end cost the segments they are in, not the epoch. */
static void hole(int side, bool shared, uint32_t from, uint32_t to)
{
	p = pair_new(&(pair_options){ .shared = shared });
	atomic_store(&pair_source_of(p, side, 0)->hole_to, to);
	atomic_store(&pair_source_of(p, side, 0)->hole_from, from);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	for (int i = 0; i < 40; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
	epoch_view v = pair_epoch(pair_out(p, 0));
	assert_int_equal(v.epochs, 1);
	assert_true(v.decided_out > to / PAIR_SEGMENT + 1);
}

static void test_rule_03_a_hole_costs_one_segment(void **state)
{
	(void)state;
	hole(0, false, 70, 75);
	assert_int_equal(pair_bad(pair_out(p, 0)), 1);
	assert_int_equal(pair_bad(pair_in(p, 0)), 0);
	(void)teardown(NULL);
	hole(1, false, 70, 75);
	assert_int_equal(pair_bad(pair_out(p, 0)), 1);
	(void)teardown(NULL);
	hole(0, true, 70, 75);
	(void)teardown(NULL);
	hole(1, true, 70, 75);
}

/* The far end waits with the segments that the owner lost: it must go on. */
static void test_rule_03_a_long_hole_at_the_owner_stops_nothing(void **state)
{
	(void)state;
	hole(0, false, 70, 70 + 30 * PAIR_SEGMENT);
}

static void mismatches(uint32_t first_from, uint32_t to)
{
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 1, 0)->bad_to, to);
	atomic_store(&pair_source_of(p, 1, 0)->bad_from, first_from);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait_ready(p, 0, 50));
}

static void test_rule_03_one_mismatch_costs_one_segment(void **state)
{
	(void)state;
	mismatches(70, 71);
	for (int i = 0; i < 20; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
	assert_int_equal(pair_epoch(pair_out(p, 0)).epochs, 1);
	assert_int_equal(pair_bad(pair_out(p, 0)), 1);
	assert_int_equal(pair_bad(pair_in(p, 0)), 1);
}

static void test_rule_03_two_mismatches_in_a_row_end_the_epoch(void **state)
{
	(void)state;
	mismatches(70, 150);
	epoch_view a = pair_epoch(pair_out(p, 0));
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	atomic_store(&pair_source_of(p, 1, 0)->bad_to, 0);
	for (int i = 0; i < 20; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
	assert_true(pair_epoch(pair_in(p, 0)).epochs >= 2);
}

static void test_rule_03_an_index_that_falls_back_ends_the_epoch(void **state)
{
	(void)state;
	p = pair_new(NULL);
	atomic_store(&pair_source_of(p, 0, 0)->stop_at, 90);
	atomic_store(&pair_source_of(p, 0, 0)->back_at, 100);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_deliver(p, 0, 20, 32));
	epoch_view a = pair_epoch(pair_out(p, 0));
	atomic_store(&pair_source_of(p, 0, 0)->stop_at, 0);
	assert_true(wait_new_epoch(pair_out(p, 0), &a));
	assert_true(wait_new_epoch(pair_in(p, 0), &a));
	for (int i = 0; i < 20; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
	assert_true(pair_epoch(pair_out(p, 0)).epochs >= 2);
	assert_true(pair_epoch(pair_in(p, 0)).epochs >= 2);
}

/* A session that is lost in the midst of a segment reads that one again, and
 * it is issued from although all before it were used up meanwhile. */
static void test_rule_03_a_segment_read_again_is_issued_from(void **state)
{
	(void)state;
	p = pair_new(&(pair_options){ .ready_chunks = 2 * PAIR_SEGMENT });
	pair_keys *k = keys_new();
	atomic_store(&pair_source_of(p, 0, 0)->stop_at, PAIR_SEGMENT + 10);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	assert_true(pair_wait_ready(p, 0, 60));
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 10, 32, k), QG_OK);
	atomic_store(&pair_source_of(p, 0, 0)->stop_at, PAIR_SEGMENT);
	atomic_store(&pair_source_of(p, 0, 0)->get_status, 4);
	pair_nap(500); /* opened again: the part of the segment is dropped */
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 50, 32, k), QG_OK);
	assert_int_equal(pair_ready(p, 0), 0);
	atomic_store(&pair_source_of(p, 0, 0)->stop_at, 0);
	for (int i = 0; i < 20; i++)
		assert_true(pair_deliver(p, 0, 20, 32));
	assert_int_equal(pair_epoch(pair_out(p, 0)).epochs, 1);
	/* Nothing stays behind: what is ready can be issued to the last chunk. */
	atomic_store(&pair_source_of(p, 0, 0)->down, true);
	pair_nap(100);
	uint32_t rest = (uint32_t)pair_ready(p, 0);
	if (rest > 0)
		assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", rest, 32, k), QG_OK);
	keys_free(&k);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_rule_01_an_old_epoch_ends_and_its_keys_stay_fetchable),
		TEST(test_rule_01_an_epoch_is_destroyed_after_its_last_windows),
		TEST(test_rule_01_expired_key_is_not_called_ready),
		TEST(test_rule_01_an_epoch_ends_before_its_indexes_do),
		TEST(test_rule_01_epochs_without_keys_do_not_pile_up),
		TEST(test_rule_02_no_id_before_the_first_confirmed_segment),
		TEST(test_rule_02_the_root_binds_names_ksid_epoch_and_direction),
		TEST(test_rule_02_an_altered_new_app_confirms_nothing),
		TEST(test_rule_03_an_orderly_stop_of_the_owner_keeps_what_was_taken),
		TEST(test_rule_03_an_orderly_stop_of_the_far_end_keeps_what_was_taken),
		TEST(test_rule_03_after_a_crash_the_streams_resume),
		TEST(test_rule_03_after_a_crash_of_the_far_end_they_resume),
		TEST(test_rule_03_after_a_crash_a_shared_stream_resumes),
		TEST(test_rule_03_a_source_begun_anew_ends_the_epoch),
		TEST(test_rule_03_a_source_that_lost_the_stored_index_ends_the_epoch),
		TEST(test_rule_03_a_hole_costs_one_segment),
		TEST(test_rule_03_a_long_hole_at_the_owner_stops_nothing),
		TEST(test_rule_03_one_mismatch_costs_one_segment),
		TEST(test_rule_03_two_mismatches_in_a_row_end_the_epoch),
		TEST(test_rule_03_an_index_that_falls_back_ends_the_epoch),
		TEST(test_rule_03_a_segment_read_again_is_issued_from),
		TEST(test_rule_03_a_shared_stream_serves_one_owner_alone),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
