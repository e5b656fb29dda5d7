/* SPDX-License-Identifier: Apache-2.0 */
/* Node key over crashes, faults, stores that were put back, and time: no byte
 * comes twice (SOUNDNESS 9, 11, 12 and 16). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "support/pad_pair.c"

static void later(uint32_t s)
{
	atomic_fetch_add(&pair_ahead_ms, (uint64_t)s * 1000);
	atomic_fetch_add(&pair_wall_ahead_ms, (int64_t)s * 1000);
}

static void disown(int side, const message *m)
{
	qg_stream *st = pair_out(p, side);
	pthread_mutex_lock(&st->lock);
	qg_pads_disown(st, &m->use);
	pthread_mutex_unlock(&st->lock);
}

/* What the owner has open and the far end has lost: message by message it learns so,
 * until one arrives. */
static void give_up_lost(void)
{
	static message lost;
	qg_err err = QG_E_NOTFOUND;
	for (int i = 0; i < 40 && err != QG_OK; i++) {
		take(0, SEG_BYTES, &lost);
		err = receive(0, &lost);
		assert_true(err == QG_OK || err == QG_E_NOTFOUND);
		if (err == QG_OK)
			settle(0, &lost);
		else
			disown(0, &lost);
	}
	assert_int_equal(err, QG_OK);
}

/* --- crashes --------------------------------------------------------------------------- */

static void test_rule_16_a_crash_of_the_owner_reuses_nothing(void **state)
{
	(void)state;
	static message m[6];
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	for (int i = 0; i < 6; i++)
		take(0, 1000, &m[i]);
	/* Two arrive, the others are lost with the crash. */
	assert_int_equal(receive(0, &m[0]), QG_OK);
	assert_int_equal(receive(0, &m[3]), QG_OK);
	end_crash(&p->end[0]);
	end_start(&p->end[0]);
	uint64_t held = qg_pads_held(pair_in(p, 0));
	static message next;
	take(0, 700, &next); /* checks that nothing of it was used */
	for (int i = 0; i < 6; i++)
		for (size_t j = 0; j < m[i].use.n; j++)
			for (size_t l = 0; l < next.use.n; l++)
				assert_false(m[i].use.pad[j].segment == next.use.pad[l].segment &&
					     memcmp(m[i].use.pad[j].epoch, next.use.pad[l].epoch, 16) == 0);
	assert_int_equal(receive(0, &next), QG_OK);
	/* The far end has destroyed what was open at the crash. */
	for (int i = 0; i < 6; i++)
		assert_int_equal(receive(0, &m[i]), QG_E_NOTFOUND);
	assert_true(qg_pads_held(pair_in(p, 0)) < held);
	qg_pad_account f = account(pair_in(p, 0), false);
	assert_true(f.given_up > 0);
	for (int i = 0; i < 30; i++)
		pass(0, below(1500));
}

static void test_rule_16_a_crash_of_the_far_end_is_disowned(void **state)
{
	(void)state;
	static message m[3];
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	for (int i = 0; i < 3; i++)
		take(0, 300, &m[i]);
	assert_int_equal(receive(0, &m[0]), QG_OK);
	settle(0, &m[0]);
	end_crash(&p->end[1]);
	end_start(&p->end[1]);
	assert_int_equal(receive(0, &m[1]), QG_E_NOTFOUND);
	/* Verified or not, what was used there before is not accepted either. */
	assert_int_equal(receive(0, &m[0]), QG_E_NOTFOUND);
	qg_pad_account before = account(pair_out(p, 0), true);
	disown(0, &m[1]);
	disown(0, &m[2]);
	qg_pad_account after = account(pair_out(p, 0), true);
	assert_true(after.given_up > before.given_up);
	assert_int_equal(after.used, before.used);
	give_up_lost();
	after = account(pair_out(p, 0), true);
	for (int i = 0; i < 30; i++)
		pass(0, below(1500));
	assert_int_equal(account(pair_out(p, 0), true).given_up, after.given_up);
}

/* What the far end holds open of one epoch. */
typedef struct open_view {
	uint32_t seen, top; /* what it says that it saw of pads; highest number opened + 1 */
	size_t whole;       /* pads of which no byte was used */
	size_t n;
	uint32_t number[64];
} open_view;

static void view_open(const uint8_t epoch[16], open_view *v)
{
	qg_stream *st = pair_in(p, 0);
	*v = (open_view){ 0 };
	pthread_mutex_lock(&st->lock);
	const qg_epoch *e = qg_epoch_find(st, epoch);
	v->seen = e != NULL ? e->seen_pad : 0;
	for (const pad_segment *s = st->pads->in; s != NULL; s = s->next) {
		if (s->use != QG_USE_PAD || s->lost || memcmp(s->epoch, epoch, 16) != 0)
			continue;
		v->top = s->number >= v->top ? s->number + 1 : v->top;
		v->whole += s->left == s->len;
		must(v->n < 64, "room");
		if (s->left > 0)
			v->number[v->n++] = s->number;
	}
	pthread_mutex_unlock(&st->lock);
}

/* The far end opens what the owner has open, in the commit in which it opens what a
 * message names, and has seen it from then on. */
static void test_rule_09_what_the_owner_opened_is_seen(void **state)
{
	(void)state;
	size_t most = 0, at_once = 0, n = 0;
	static message m;
	open_view v;
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	for (; n < 400 && (most < 2 || at_once < 2); n++) {
		take(0, SEG_BYTES, &m);
		const qg_kms_pad *last = &m.use.pad[m.use.n - 1];
		assert_true(m.use.opened_pad > last->segment);
		assert_int_equal(peek(0, &m), QG_OK);
		view_open(last->epoch, &v);
		bool open = v.top > last->segment && v.seen > last->segment;
		assert_int_equal(open_named_pads(0, &m), QG_OK);
		at_once += open;
		view_open(last->epoch, &v);
		most = v.whole > most ? v.whole : most;
		assert_int_equal(v.seen, v.top);
		assert_true(v.seen <= m.use.opened_pad);
		/* Of nothing that was seen there is a row, neither here nor at the owner. */
		for (size_t i = 0; i < v.n; i++)
			for (int side = 0; side < 2; side++)
				assert_false(row_there(&p->end[side], v.number[i]));
		assert_int_equal(spend(0, &m), QG_OK);
		settle(0, &m);
	}
	assert_true(most >= 2 && at_once >= 2);
	/* Both crash, and nobody takes the other for an old one. */
	for (int side = 0; side < 2; side++)
		end_crash(&p->end[side]);
	for (int side = 0; side < 2; side++)
		end_start(&p->end[side]);
	pass(0, SEG_BYTES);
	assert_false(p->end[0].core->rolled_back || p->end[1].core->rolled_back);
}

/* What the far end had open when it crashed is never accepted again, named before or
 * not. The owner gives it up, message by message, and goes on. */
static void test_rule_16_what_was_open_at_a_crash_stays_lost(void **state)
{
	(void)state;
	static message m;
	open_view v;
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	for (int i = 0; i == 0 || (i < 400 && v.whole == 0); i++) {
		take(0, SEG_BYTES, &m);
		assert_int_equal(receive(0, &m), QG_OK);
		settle(0, &m);
		view_open(m.use.pad[m.use.n - 1].epoch, &v);
	}
	assert_true(v.whole > 0);
	end_crash(&p->end[1]);
	end_start(&p->end[1]);
	for (size_t i = 0; i < v.n; i++)
		assert_false(row_there(&p->end[1], v.number[i]));
	assert_int_equal(receive(0, &m), QG_E_NOTFOUND);
	give_up_lost();
	assert_false(p->end[0].core->rolled_back);
	(void)account(pair_in(p, 0), false);
}

/* An owner that says to have opened what it did not, or everything: only so much is
 * opened at once, of one use, and it harms itself alone. What repeats it is refused
 * and opens nothing. */
static void test_rule_16_a_false_word_of_what_is_open(void **state)
{
	(void)state;
	static message m;
	open_view v = { 0 };
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	for (int i = 0; i < 400 && v.whole == 0; i++) {
		take(0, SEG_BYTES, &m);
		m.use.opened_pad = UINT32_MAX;
		assert_int_equal(receive(0, &m), QG_OK);
		view_open(m.use.pad[m.use.n - 1].epoch, &v);
		assert_true(v.whole < PAD_PACE_MAX);
		assert_int_equal(v.seen, v.top);
		settle(0, &m);
	}
	assert_true(v.whole > 0);
	/* Nor does it open more the second time, or with a word of nothing. */
	qg_pad_account a = account(pair_in(p, 0), false);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(receive(0, &m), QG_E_CONSUMED);
		assert_int_equal(open_named_pads(0, &m), QG_OK);
		assert_int_equal(spend(0, &m), QG_E_CONSUMED);
		m.use.opened_pad = 0;
	}
	qg_pad_account b = account(pair_in(p, 0), false);
	assert_memory_equal(&a, &b, sizeof a);
}

/* One that says nothing of what is open has it opened as it names it. */
static void test_what_is_open_need_not_be_told(void **state)
{
	(void)state;
	static message m;
	open_view v;
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	for (int i = 0; i < 20; i++) {
		take(0, SEG_BYTES / 2, &m);
		m.use.opened_pad = i % 2 == 0 ? 0 : m.use.pad[m.use.n - 1].segment;
		assert_int_equal(receive(0, &m), QG_OK);
		settle(0, &m);
		view_open(m.use.pad[m.use.n - 1].epoch, &v);
		assert_int_equal(v.seen, m.use.pad[m.use.n - 1].segment + 1);
		assert_int_equal(v.whole, 0);
	}
}

static void test_the_pace_of_opening(void **state)
{
	(void)state;
	pad_pace pace = { 0 };
	static const struct {
		uint64_t now_ms;
		unsigned n;
	} steps[] = { { 5, 1 }, { 100, 4 }, { 299, 8 }, { 300, 8 }, { 301, 8 }, { 501, 1 }, { 700, 4 }, { 1700, 1 } };
	for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++)
		assert_int_equal(qg_pads_pace(&pace, steps[i].now_ms), steps[i].n);
}

/* An orderly stop ends the epoch; what was not opened lives on in it. */
static void test_node_key_outlives_a_stop(void **state)
{
	(void)state;
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	pass(0, 100);
	epoch_view old = pair_epoch(pair_out(p, 0));
	for (int side = 0; side < 2; side++) {
		end_stop(&p->end[side]);
		end_start(&p->end[side]);
	}
	/* Which epoch's is opened first depends on how soon the neighbour vouches for the old one. */
	static message m;
	bool mac = false, pad = false;
	for (int i = 0; i < 200 && !(mac && pad); i++) {
		take(0, 900, &m);
		mac |= memcmp(m.use.pad[0].epoch, old.id, 16) == 0;
		pad |= memcmp(m.use.pad[m.use.n - 1].epoch, old.id, 16) == 0;
		assert_int_equal(receive(0, &m), QG_OK);
		settle(0, &m);
		pair_nap(mac && pad ? 0 : 50); /* one that could not be asked is asked again after two seconds */
	}
	assert_true(mac && pad);
	for (int i = 0; i < 200; i++)
		pass(0, below(1500)); /* and over into the new one */
	assert_memory_not_equal(used[n_used - 1].epoch, old.id, 16);
	assert_true(pair_deliver(p, 0, 20, 32));
}

/* --- faults ----------------------------------------------------------------------------- */

static bool some_lost(core_pair *pair, void *ctx)
{
	(void)ctx;
	qg_stream *st = pair_out(pair, 0);
	pthread_mutex_lock(&st->lock);
	bool lost = st->pads->opening != NULL && st->pads->opening->lost;
	pthread_mutex_unlock(&st->lock);
	return lost;
}

static bool none_lost(core_pair *pair, void *ctx)
{
	(void)ctx;
	qg_stream *st = pair_out(pair, 0);
	pthread_mutex_lock(&st->lock);
	bool none = st->pads->opening == NULL || !st->pads->opening->lost;
	pthread_mutex_unlock(&st->lock);
	return none;
}

static size_t lost_numbers(uint32_t *out, size_t most)
{
	qg_stream *st = pair_out(p, 0);
	size_t n = 0;
	pthread_mutex_lock(&st->lock);
	for (const pad_segment *s = st->pads->opening; s != NULL && n < most; s = s->next) {
		must(s->lost && s->data == NULL, "lost");
		out[n++] = s->number;
	}
	pthread_mutex_unlock(&st->lock);
	return n;
}

static void fault_at_opening(int fault)
{
	uint32_t lost[64];
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	/* So that nothing else commits meanwhile, which might not come back. */
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	atomic_store(&p->end[0].store.fault, fault);
	drain_open();
	assert_true(pair_wait(p, some_lost, NULL));
	drain_open();
	size_t n = lost_numbers(lost, 64);
	assert_true(n > 0);
	static message m;
	assert_int_equal(try_take(pair_out(p, 0), 1000, &m), QG_E_EMPTY);
	atomic_store(&p->end[0].store.fault, FAULT_NONE);
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, false);
	assert_true(pair_wait(p, none_lost, NULL));
	for (int i = 0; i < 60; i++)
		pass(0, below(1500));
	for (size_t i = 0; i < n_used; i++)
		for (size_t j = 0; j < n; j++)
			assert_int_not_equal(used[i].segment, lost[j]);
	for (size_t j = 0; j < n; j++)
		assert_false(row_there(&p->end[0], lost[j]));
	assert_true(account(pair_out(p, 0), true).given_up >= n * SEG_BYTES);
	/* And the next start finds nothing odd. */
	end_crash(&p->end[0]);
	end_start(&p->end[0]);
	pass(0, 1000);
	assert_false(p->end[0].core->rolled_back);
	pair_free(&p);
	n_used = 0;
}

static void test_rule_16_an_opening_that_fails_is_never_used(void **state)
{
	(void)state;
	fault_at_opening(FAULT_FAILS);
	fault_at_opening(FAULT_UNKNOWN_DONE);
	fault_at_opening(FAULT_UNKNOWN_UNDONE);
}

static void fault_at_the_far_end(int fault)
{
	static message m, n;
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	take(0, 500, &m);
	atomic_store(&p->end[1].store.fault, fault);
	assert_int_equal(peek(0, &m), QG_OK);
	qg_err err = open_named_pads(0, &m);
	assert_true(err == QG_E_IO || err == QG_E_UNKNOWN);
	assert_int_equal(peek(0, &m), QG_E_NOTFOUND);
	assert_int_equal(spend(0, &m), QG_E_NOTFOUND);
	atomic_store(&p->end[1].store.fault, FAULT_NONE);
	disown(0, &m);
	give_up_lost(); /* what was to be opened with it */
	take(0, 500, &n);
	assert_int_equal(receive(0, &n), QG_OK);
	settle(0, &n);
	assert_int_equal(receive(0, &m), QG_E_NOTFOUND);
	end_crash(&p->end[1]);
	end_start(&p->end[1]);
	/* Whatever became of the row: used bytes do not come back. */
	assert_int_equal(receive(0, &n), QG_E_NOTFOUND);
	pair_free(&p);
	n_used = 0;
}

static void test_rule_16_an_opening_that_fails_at_the_far_end(void **state)
{
	(void)state;
	fault_at_the_far_end(FAULT_FAILS);
	fault_at_the_far_end(FAULT_UNKNOWN_DONE);
	fault_at_the_far_end(FAULT_UNKNOWN_UNDONE);
}

/* The anchor's file as the core holds it; what stands in its place cannot be
 * written. Returns a copy to put back. */
static int anchor_fd(const char *path)
{
	for (int fd = 3; fd < 1024; fd++) {
		char link[64], name[512];
		snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
		ssize_t n = readlink(link, name, sizeof name - 1);
		if (n <= 0)
			continue;
		name[n] = '\0';
		if (strcmp(name, path) == 0)
			return fd;
	}
	must(false, "anchor");
	return -1;
}

static void test_rule_09_without_the_anchor_nothing_is_opened(void **state)
{
	(void)state;
	uint32_t lost[64];
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	int fd = anchor_fd(p->end[0].anchor), was = dup(fd), closed = open("/dev/full", O_RDONLY);
	assert_true(was >= 0 && closed >= 0 && dup2(closed, fd) == fd);
	drain_open();
	assert_true(pair_wait(p, some_lost, NULL));
	drain_open();
	size_t n = lost_numbers(lost, 64);
	static message m;
	assert_int_equal(try_take(pair_out(p, 0), 1000, &m), QG_E_EMPTY);
	assert_true(dup2(was, fd) == fd);
	close(was);
	close(closed);
	assert_true(pair_wait(p, none_lost, NULL));
	for (int i = 0; i < 30; i++)
		pass(0, below(1500));
	for (size_t i = 0; i < n_used; i++)
		for (size_t j = 0; j < n; j++)
			assert_int_not_equal(used[i].segment, lost[j]);
}

/* --- rule 9: a store that was put back ---------------------------------------------------- */

/* The epoch of before is not used any more, and nothing of it is left. */
static bool given_up(core_pair *pair, void *ctx)
{
	const epoch_view *old = ctx;
	qg_stream *st = pair_out(pair, 0);
	pthread_mutex_lock(&st->lock);
	const qg_epoch *e = qg_epoch_find(st, old->id);
	bool gone = e == NULL || e->state == QG_EPOCH_DRAINING;
	for (uint32_t i = 0; e != NULL && i < e->n_seg; i++)
		gone &= e->seg[i] == NULL || e->seg[i]->use == QG_USE_APPLICATION;
	pthread_mutex_unlock(&st->lock);
	return gone;
}

/* Nothing but node key is used between the copy and the crash, so that no mark
 * and no later segment tells of it. */
static void pads_put_back(bool with_anchor, bool far_end_too)
{
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	pair_nap(100);
	end_copy(&p->end[0], "copy", with_anchor);
	for (int i = 0; i < 25; i++)
		pass(0, 1200);
	epoch_view old = pair_epoch(pair_out(p, 0));
	end_crash(&p->end[0]);
	end_put_back(&p->end[0], "copy", with_anchor);
	if (far_end_too) {
		end_crash(&p->end[1]);
		end_start(&p->end[1]);
	}
	end_start(&p->end[0]);
	assert_true(pair_wait(p, given_up, &old));
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, false);
	for (int i = 0; i < 40; i++)
		pass(0, below(1500)); /* asserts that no byte came before */
	assert_memory_not_equal(used[n_used - 1].epoch, old.id, 16);
	assert_true(pair_deliver(p, 0, 10, 32));
	pair_free(&p);
	n_used = 0;
}

static void test_rule_09_a_database_put_back_uses_no_pad_twice(void **state)
{
	(void)state;
	pads_put_back(false, false);
	pads_put_back(true, false);
	pads_put_back(true, true);
}

/* While the neighbour cannot be asked, what was restored is not used. */
static void test_rule_09_restored_pads_wait_for_the_neighbour(void **state)
{
	(void)state;
	static message m;
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	pass(0, 100);
	end_crash(&p->end[0]);
	atomic_store(&p->end[0].link_down, true);
	end_start(&p->end[0]);
	assert_true(ready_bytes(pair_out(p, 0)) > 0);
	for (int i = 0; i < 50; i++) {
		assert_int_equal(try_take(pair_out(p, 0), 100, &m), QG_E_EMPTY);
		pair_nap(10);
	}
	atomic_store(&p->end[0].link_down, false);
	pass(0, 100);
	assert_false(p->end[0].core->rolled_back);
}

/* The far end's store put back: it may have again what was used; the owner
 * does not send it again, and says what is spent. */
static void test_rule_09_the_far_end_put_back(void **state)
{
	(void)state;
	static message m[10];
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	end_copy(&p->end[1], "copy", true);
	for (int i = 0; i < 10; i++) {
		take(0, 900, &m[i]);
		assert_int_equal(receive(0, &m[i]), QG_OK);
		settle(0, &m[i]);
	}
	end_crash(&p->end[1]);
	end_put_back(&p->end[1], "copy", true);
	end_start(&p->end[1]);
	static message next;
	take(0, 900, &next);
	qg_err err = receive(0, &next);
	assert_true(err == QG_OK || err == QG_E_NOTFOUND);
	if (err == QG_OK) {
		/* At least all segments before its own are gone. */
		qg_err first = receive(0, &m[0]);
		assert_int_equal(first, QG_E_NOTFOUND);
		settle(0, &next);
	} else {
		disown(0, &next);
	}
}

/* --- what is on the disk -------------------------------------------------------------------- */

static void test_rule_12_used_pads_leave_the_disk(void **state)
{
	(void)state;
	static message m[8];
	start_full(&(pair_options){ .node_chunks = 3000, .node_percent = 50 });
	wait_level(0, 60000);
	for (int i = 0; i < 8; i++) {
		take(0, 1000, &m[i]);
		/* Before the first byte was given out, the row was gone. */
		for (size_t j = 0; j < m[i].use.n; j++)
			assert_false(row_there(&p->end[0], m[i].use.pad[j].segment));
		assert_int_equal(receive(0, &m[i]), QG_OK);
		for (size_t j = 0; j < m[i].use.n; j++)
			assert_false(row_there(&p->end[1], m[i].use.pad[j].segment));
		settle(0, &m[i]);
	}
	for (int i = 0; i < 8; i++)
		for (size_t at = 0; at + 32 <= QG_KMS_MAC_OVERHEAD + m[i].n; at += 97)
			assert_false(pair_on_disk(p, m[i].key + at, 32));
	/* What is used is not in memory any more either. */
	qg_stream *st = pair_out(p, 0);
	pthread_mutex_lock(&st->lock);
	for (int i = 0; i < PAD_KINDS; i++)
		for (const pad_segment *s = st->pads->stock[i].out; s != NULL; s = s->next)
			for (uint32_t b = 0; s->data != NULL && b < s->at; b++)
				must(s->data->data[b] == 0, "a used byte is there");
	pthread_mutex_unlock(&st->lock);
}

/* --- time ------------------------------------------------------------------------------------ */

/* What came before the source ended is with both ends. */
static bool is_quiet(core_pair *pair, void *ctx)
{
	(void)ctx;
	qg_stream *st = pair_out(pair, 0);
	pthread_mutex_lock(&st->lock);
	bool quiet = st->offer == NULL && !st->pads->job;
	for (uint32_t i = 0; i < st->newest->n_seg; i++)
		quiet &= st->newest->seg[i] == NULL || st->newest->seg[i]->phase != QG_SEG_FULL;
	pthread_mutex_unlock(&st->lock);
	return quiet;
}

static bool all_expired(core_pair *pair, void *ctx)
{
	qg_stream *st = pair_out(pair, 0), *in = pair_in(pair, 0);
	bool far = *(bool *)ctx;
	pthread_mutex_lock(&st->lock);
	bool gone = qg_pads_ready_bytes(st) == 0 && st->pads->stock[0].open_bytes + st->pads->stock[1].open_bytes == 0;
	pthread_mutex_unlock(&st->lock);
	if (!far)
		return gone;
	pthread_mutex_lock(&in->lock);
	gone &= in->pads->in == NULL && qg_pads_held(in) == 0;
	pthread_mutex_unlock(&in->lock);
	return gone;
}

static void test_rule_11_node_key_expires(void **state)
{
	(void)state;
	static message m[3];
	bool far = false;
	start_full(&(pair_options){ .node_chunks = 2000, .node_percent = 50, .issue_s = 1000, .fetch_s = 500 });
	wait_level(0, 50000);
	for (int i = 0; i < 3; i++)
		take(0, 500, &m[i]);
	assert_int_equal(receive(0, &m[0]), QG_OK);
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, true);
	pair_nap(50);
	assert_true(pair_wait(p, is_quiet, NULL));
	later(999 - 60);
	assert_int_equal(receive(0, &m[1]), QG_OK);
	later(62);
	/* Not used by the owner any more, open or not; accepted for a while. */
	static message none;
	assert_int_equal(try_take(pair_out(p, 0), 10, &none), QG_E_EMPTY);
	assert_true(pair_wait(p, all_expired, &far));
	assert_int_equal(receive(0, &m[2]), QG_OK);
	later(600);
	assert_int_equal(receive(0, &m[2]), QG_E_NOTFOUND);
	far = true;
	assert_true(pair_wait(p, all_expired, &far));
	qg_pad_account o = account(pair_out(p, 0), true), f = account(pair_in(p, 0), false);
	assert_int_equal(o.open, 0);
	assert_int_equal(f.open, 0);
	assert_int_equal(o.used, f.used);
	assert_true(o.given_up > 0 && f.given_up > 0);
	for (int i = 0; i < 2; i++)
		atomic_store(&pair_source_of(p, i, 0)->down, false);
	pass(0, 500);
}

typedef struct gone_wish {
	uint8_t id[16];
} gone_wish;

static bool epoch_gone(core_pair *pair, void *ctx)
{
	const gone_wish *w = ctx;
	return !pair_epoch_lives(pair_out(pair, 0), w->id) && !pair_epoch_lives(pair_in(pair, 0), w->id);
}

/* Node key that nobody uses does not keep an epoch for ever. */
static void test_rule_01_an_epoch_with_node_key_ends(void **state)
{
	(void)state;
	gone_wish w;
	start_full(&(pair_options){ .node_chunks = 2000, .node_percent = 50, .issue_s = 1000, .fetch_s = 500 });
	wait_level(0, 50000);
	pass(0, 100);
	memcpy(w.id, pair_epoch(pair_out(p, 0)).id, 16);
	end_epoch(0);
	pass(0, 100);
	assert_true(pair_epoch_lives(pair_out(p, 0), w.id));
	later(1600);
	pair_nap(700);
	later(1600);
	assert_true(pair_wait(p, epoch_gone, &w));
	for (int i = 0; i < 5; i++)
		pass(0, 500);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_rule_16_a_crash_of_the_owner_reuses_nothing),
		TEST(test_rule_16_a_crash_of_the_far_end_is_disowned),
		TEST(test_rule_09_what_the_owner_opened_is_seen),
		TEST(test_rule_16_what_was_open_at_a_crash_stays_lost),
		TEST(test_rule_16_a_false_word_of_what_is_open),
		TEST(test_what_is_open_need_not_be_told),
		TEST(test_the_pace_of_opening),
		TEST(test_node_key_outlives_a_stop),
		TEST(test_rule_16_an_opening_that_fails_is_never_used),
		TEST(test_rule_16_an_opening_that_fails_at_the_far_end),
		TEST(test_rule_09_without_the_anchor_nothing_is_opened),
		TEST(test_rule_09_a_database_put_back_uses_no_pad_twice),
		TEST(test_rule_09_restored_pads_wait_for_the_neighbour),
		TEST(test_rule_09_the_far_end_put_back),
		TEST(test_rule_12_used_pads_leave_the_disk),
		TEST(test_rule_11_node_key_expires),
		TEST(test_rule_01_an_epoch_with_node_key_ends),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
