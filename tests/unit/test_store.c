/* SPDX-License-Identifier: Apache-2.0 */
/* The SQLite store: every operation with its refusals. What the file suffers
 * from outside is in test_store_faults.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <inttypes.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qkdgate/log.h"
#include "qkdgate/secret.h"
#include "qkdgate/store.h"

static char dir[64], path[96];
static char why[256];
static qg_store *db;

static const uint8_t sealed[3000] = {0x5e, 0xa1};
static const uint8_t message[200] = {0x3e, 0x55};
static const uint8_t tag[16] = {0x7a};
static const uint8_t probe[16] = {0x9b};
static const uint8_t root_out[181] = {0x01}, root_in[181] = {0x02};
static const uint8_t none_used[4] = {0};

static void
open_db(bool want_fresh)
{
	bool fresh = !want_fresh;
	assert_int_equal(qg_store_sqlite_open(path, &fresh, &db, why, sizeof why), QG_OK);
	assert_true(fresh == want_fresh);
}

static void
reopen(void)
{
	db->ops->close(&db);
	assert_null(db);
	open_db(false);
}

static int
setup(void **state)
{
	(void)state;
	static const char template[] = "/tmp/qg-store-XXXXXX";
	memcpy(dir, template, sizeof template);
	if (mkdtemp(dir) == NULL || snprintf(path, sizeof path, "%s/db", dir) >= (int)sizeof path)
		return -1;
	open_db(true);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	if (db != NULL)
		db->ops->close(&db);
	(void)unlink(path);
	return rmdir(dir); /* fails when the store left anything else */
}

static void
begin(void)
{
	assert_int_equal(db->ops->begin(db), QG_OK);
}

static void
commit(void)
{
	assert_int_equal(db->ops->commit(db), QG_OK);
}

/* A record with a value of its own in every member. */
static qg_epoch_rec
epoch_rec(uint8_t n)
{
	qg_epoch_rec e = {
		.stream = "a-b", .state = QG_EPOCH_FILLING, .opener = true, .chunk_size = 32,
		.segment_chunks = 256, .mark = 1000, .seen_mark = 2000, .next_segment = 3, .next_index = 768,
		.root_out = root_out, .root_out_len = sizeof root_out, .root_in = root_in,
		.root_in_len = sizeof root_in, .probe = probe, .probe_len = sizeof probe, .probe_index = 767,
		.created_ms = 1767225600000, .end_ms = 99,
	};
	memset(e.ksid.b, n, sizeof e.ksid.b);
	memset(e.epoch, 0x80 ^ n, sizeof e.epoch);
	return e;
}

static qg_segment_rec
segment_rec(int64_t epoch_row, uint32_t number)
{
	return (qg_segment_rec){
		.epoch_row = epoch_row, .number = number, .ours = true, .use = 2, .state = QG_SEGMENT_OFFERED,
		.first_index = (uint64_t)number * 32, .count = 32, .root = 1, .sealed = sealed,
		.sealed_len = sizeof sealed, .used = none_used, .used_len = 4, .message = message,
		.message_len = sizeof message, .tag = tag, .born_ms = 11, .ready_wall_ms = -12, .issue_s = 13,
		.fetch_s = UINT32_MAX,
	};
}

static const qg_target_rec three_targets[] = {
	{"sae-a", QG_TARGET_PENDING, NULL}, {"sae-b", QG_TARGET_RELAYED, "KME-B"},
	{"sae-c", QG_TARGET_DELIVERED, NULL}};

static qg_transfer_rec
transfer_rec(const char *initiator, uint8_t id)
{
	qg_transfer_rec t = {
		.initiator = initiator, .state = QG_TRANSFER_PREPARED, .origin = "local", .sealed = sealed,
		.sealed_len = 149, .size_bytes = 32, .expiry_ms = 5000, .target = three_targets, .n_targets = 3,
	};
	memset(t.key_id.b, id, sizeof t.key_id.b);
	return t;
}

static int64_t
put_epoch(uint8_t n)
{
	qg_epoch_rec e = epoch_rec(n);
	begin();
	assert_int_equal(db->ops->epoch_put(db, &e), QG_OK);
	commit();
	return e.row;
}

static int64_t
put_segment(int64_t epoch_row, uint32_t number)
{
	qg_segment_rec s = segment_rec(epoch_row, number);
	begin();
	assert_int_equal(db->ops->segment_put(db, &s), QG_OK);
	commit();
	return s.row;
}

static int64_t
put_transfer(const char *initiator, uint8_t id)
{
	qg_transfer_rec t = transfer_rec(initiator, id);
	begin();
	assert_int_equal(db->ops->transfer_put(db, &t), QG_OK);
	commit();
	return t.row;
}

/* Copies of what a load gave, without its views. */
typedef struct seen {
	size_t n;
	qg_epoch_rec epoch[8];
	qg_segment_rec segment[8];
	uint8_t used[8][8];
	qg_transfer_rec transfer[8];
	char target[8][64];
} seen;

static void
assert_blob(const uint8_t *got, size_t got_len, const uint8_t *want, size_t want_len)
{
	assert_int_equal(got_len, want_len);
	assert_true((got == NULL) == (want == NULL));
	if (want != NULL)
		assert_memory_equal(got, want, want_len);
}

static qg_err
see_epoch(const qg_epoch_rec *rec, void *ctx)
{
	seen *s = ctx;
	assert_string_equal(rec->stream, "a-b");
	assert_true(rec->root_out == NULL || rec->root_out[0] == root_out[0]);
	s->epoch[s->n++] = *rec;
	return QG_OK;
}

static qg_err
see_segment(const qg_segment_rec *rec, void *ctx)
{
	seen *s = ctx;
	assert_true(rec->used_len <= sizeof s->used[0]);
	memcpy(s->used[s->n], rec->used, rec->used_len);
	if (rec->sealed != NULL)
		assert_blob(rec->sealed, rec->sealed_len, sealed, rec->sealed_len);
	assert_blob(rec->message, rec->message_len, message, sizeof message);
	assert_memory_equal(rec->tag, tag, sizeof tag);
	s->segment[s->n++] = *rec;
	return QG_OK;
}

static qg_err
see_transfer(const qg_transfer_rec *rec, void *ctx)
{
	seen *s = ctx;
	char *text = s->target[s->n];
	text[0] = '\0';
	size_t len = 0;
	for (size_t i = 0; i < rec->n_targets; i++) {
		int n = snprintf(text + len, sizeof s->target[0] - len, "%s%s%s=%d ", rec->target[i].sae,
			rec->target[i].home != NULL ? "@" : "", rec->target[i].home != NULL ? rec->target[i].home : "",
			(int)rec->target[i].state);
		assert_true(n > 0 && (size_t)n < sizeof s->target[0] - len);
		len += (size_t)n;
	}
	if (rec->sealed != NULL)
		assert_blob(rec->sealed, rec->sealed_len, sealed, 149);
	assert_string_equal(rec->origin, "local");
	s->transfer[s->n++] = *rec;
	return QG_OK;
}

static seen
load_epochs(void)
{
	seen s = {0};
	assert_int_equal(db->ops->load_epochs(db, see_epoch, &s), QG_OK);
	return s;
}

static seen
load_segments(void)
{
	seen s = {0};
	assert_int_equal(db->ops->load_segments(db, see_segment, &s), QG_OK);
	return s;
}

static seen
load_transfers(void)
{
	seen s = {0};
	assert_int_equal(db->ops->load_transfers(db, see_transfer, &s), QG_OK);
	return s;
}

static void
epoch_comes_back_whole(void **state)
{
	(void)state;
	qg_epoch_rec e = epoch_rec(1);
	int64_t first = put_epoch(1), second;
	qg_epoch_rec bare = epoch_rec(2);
	bare.root_out = bare.root_in = bare.probe = NULL;
	begin();
	assert_int_equal(db->ops->epoch_put(db, &bare), QG_OK);
	commit();
	second = bare.row;
	assert_true(first != second);
	reopen();
	seen s = load_epochs();
	assert_int_equal(s.n, 2);
	const qg_epoch_rec *g = &s.epoch[0];
	assert_int_equal(g->row, first);
	assert_memory_equal(g->ksid.b, e.ksid.b, 16);
	assert_memory_equal(g->epoch, e.epoch, 16);
	assert_int_equal(g->state, e.state);
	assert_true(g->opener);
	assert_int_equal(g->chunk_size, e.chunk_size);
	assert_int_equal(g->segment_chunks, e.segment_chunks);
	assert_int_equal(g->mark, e.mark);
	assert_int_equal(g->seen_mark, e.seen_mark);
	assert_int_equal(g->next_segment, e.next_segment);
	assert_int_equal(g->next_index, e.next_index);
	assert_int_equal(g->root_out_len, e.root_out_len);
	assert_int_equal(g->root_in_len, e.root_in_len);
	assert_int_equal(g->probe_len, e.probe_len);
	assert_int_equal(g->probe_index, e.probe_index);
	assert_int_equal(g->created_ms, e.created_ms);
	assert_int_equal(g->end_ms, e.end_ms);
	g = &s.epoch[1];
	assert_int_equal(g->row, second);
	assert_null(g->root_out);
	assert_null(g->root_in);
	assert_null(g->probe);
	assert_int_equal(g->root_out_len + g->root_in_len + g->probe_len, 0);
}

static void
epoch_update_changes_what_may_change(void **state)
{
	(void)state;
	qg_epoch_rec e = epoch_rec(1);
	e.row = put_epoch(1);
	e.state = QG_EPOCH_DRAINING;
	e.segment_chunks = 64;
	e.mark = 5000;
	e.seen_mark = 6000;
	e.next_segment = 9;
	e.next_index = UINT32_MAX;
	e.root_in = NULL;
	e.probe_index = 4;
	e.end_ms = 1234;
	e.chunk_size = 99; /* stays as it was */
	e.opener = false;
	begin();
	assert_int_equal(db->ops->epoch_update(db, &e), QG_OK);
	commit();
	seen s = load_epochs();
	assert_int_equal(s.epoch[0].state, QG_EPOCH_DRAINING);
	assert_int_equal(s.epoch[0].segment_chunks, 64);
	assert_int_equal(s.epoch[0].mark, 5000);
	assert_int_equal(s.epoch[0].seen_mark, 6000);
	assert_int_equal(s.epoch[0].next_segment, 9);
	assert_int_equal(s.epoch[0].next_index, UINT32_MAX);
	assert_non_null(s.epoch[0].root_out);
	assert_null(s.epoch[0].root_in);
	assert_int_equal(s.epoch[0].probe_index, 4);
	assert_int_equal(s.epoch[0].end_ms, 1234);
	assert_int_equal(s.epoch[0].chunk_size, 32);
	assert_true(s.epoch[0].opener);
}

/* SOUNDNESS 8 and 9: changes that overtake each other never lower a mark. */
static void
soundness_09_marks_never_fall_back(void **state)
{
	(void)state;
	qg_epoch_rec e = epoch_rec(1);
	e.row = put_epoch(1);
	begin();
	assert_int_equal(db->ops->epoch_mark(db, e.row, 7000), QG_OK);
	assert_int_equal(db->ops->epoch_mark(db, e.row, 6999), QG_OK);
	e.mark = 3;
	e.seen_mark = 4;
	assert_int_equal(db->ops->epoch_update(db, &e), QG_OK);
	commit();
	seen s = load_epochs();
	assert_int_equal(s.epoch[0].mark, 7000);
	assert_int_equal(s.epoch[0].seen_mark, 2000);
}

static void
epoch_refusals(void **state)
{
	(void)state;
	qg_epoch_rec e = epoch_rec(1), bad;
	int64_t row = put_epoch(1);
	begin();
	e.row = -5;
	assert_int_equal(db->ops->epoch_put(db, &e), QG_E_EXISTS);
	assert_int_equal(e.row, -5);
	bad = epoch_rec(2);
	bad.state = 0;
	assert_int_equal(db->ops->epoch_put(db, &bad), QG_E_INVAL);
	bad = epoch_rec(2);
	bad.chunk_size = 0;
	assert_int_equal(db->ops->epoch_put(db, &bad), QG_E_INVAL);
	bad = epoch_rec(2);
	bad.probe_len = 15;
	assert_int_equal(db->ops->epoch_put(db, &bad), QG_E_INVAL);
	assert_int_equal(db->ops->epoch_update(db, &bad), QG_E_INVAL);
	bad = epoch_rec(2);
	bad.seen_mark = UINT64_MAX; /* a neighbour may say so */
	assert_int_equal(db->ops->epoch_put(db, &bad), QG_E_RANGE);
	assert_int_equal(db->ops->epoch_mark(db, row, UINT64_C(1) << 63), QG_E_RANGE);
	assert_int_equal(db->ops->epoch_mark(db, row + 1, 5), QG_E_NOTFOUND);
	bad = epoch_rec(2);
	bad.row = row + 1;
	assert_int_equal(db->ops->epoch_update(db, &bad), QG_E_NOTFOUND);
	assert_int_equal(db->ops->epoch_delete(db, row + 1), QG_E_NOTFOUND);
	commit(); /* refusals leave the transaction usable */
	assert_int_equal(load_epochs().n, 1);
}

static void
epoch_goes_with_its_segments(void **state)
{
	(void)state;
	int64_t a = put_epoch(1), b = put_epoch(2);
	(void)put_segment(a, 0);
	(void)put_segment(a, 1);
	int64_t kept = put_segment(b, 0);
	begin();
	assert_int_equal(db->ops->epoch_delete(db, a), QG_OK);
	commit();
	reopen();
	seen s = load_segments();
	assert_int_equal(s.n, 1);
	assert_int_equal(s.segment[0].row, kept);
	assert_int_equal(load_epochs().n, 1);
	/* A row's number is never given again. */
	begin();
	assert_int_equal(db->ops->epoch_delete(db, b), QG_OK);
	commit();
	int64_t c = put_epoch(3);
	assert_true(c > b);
	assert_true(put_segment(c, 0) > kept);
}

static void
segment_comes_back_whole(void **state)
{
	(void)state;
	int64_t epoch = put_epoch(1);
	int64_t late = put_segment(epoch, 7), early = put_segment(epoch, 2);
	qg_segment_rec want = segment_rec(epoch, 7);
	reopen();
	seen s = load_segments();
	assert_int_equal(s.n, 2);
	assert_int_equal(s.segment[0].row, early); /* by number */
	const qg_segment_rec *g = &s.segment[1];
	assert_int_equal(g->row, late);
	assert_int_equal(g->epoch_row, epoch);
	assert_int_equal(g->number, 7);
	assert_true(g->ours);
	assert_int_equal(g->use, want.use);
	assert_int_equal(g->state, QG_SEGMENT_OFFERED);
	assert_int_equal(g->first_index, want.first_index);
	assert_int_equal(g->count, want.count);
	assert_int_equal(g->root, 1);
	assert_int_equal(g->sealed_len, sizeof sealed);
	assert_int_equal(g->used_len, 4);
	assert_int_equal(g->born_ms, want.born_ms);
	assert_int_equal(g->ready_wall_ms, -12);
	assert_int_equal(g->issue_s, 13);
	assert_int_equal(g->fetch_s, UINT32_MAX);
}

static void
segment_refusals(void **state)
{
	(void)state;
	int64_t epoch = put_epoch(1), row = put_segment(epoch, 1);
	qg_segment_rec bad;
	begin();
	bad = segment_rec(epoch, 1);
	bad.row = -5;
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_EXISTS);
	assert_int_equal(bad.row, -5);
	bad = segment_rec(epoch + 1, 1);
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_NOTFOUND);
	bad = segment_rec(epoch, 2);
	bad.used_len = 3;
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_INVAL);
	bad = segment_rec(epoch, 2);
	bad.count = 33;
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_INVAL);
	bad = segment_rec(epoch, 2);
	bad.used = NULL;
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_INVAL);
	bad = segment_rec(epoch, 2);
	bad.tag = NULL;
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_INVAL);
	bad = segment_rec(epoch, 2);
	bad.state = 3;
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_INVAL);
	bad = segment_rec(epoch, 2);
	bad.first_index = UINT64_MAX;
	assert_int_equal(db->ops->segment_put(db, &bad), QG_E_RANGE);
	assert_int_equal(db->ops->segment_sent(db, row + 99, 5), QG_E_NOTFOUND);
	assert_int_equal(db->ops->segment_confirm(db, row + 99, 5, 0), QG_E_STATE);
	assert_int_equal(db->ops->segment_reseal(db, row + 99, sealed, 5), QG_E_NOTFOUND);
	assert_int_equal(db->ops->segment_delete(db, row + 99), QG_E_NOTFOUND);
	commit();
	assert_int_equal(load_segments().n, 1);
}

static void
segment_is_sent_and_confirmed_once(void **state)
{
	(void)state;
	int64_t epoch = put_epoch(1), row = put_segment(epoch, 1);
	qg_segment_rec theirs = segment_rec(epoch, 2);
	theirs.ours = false;
	theirs.state = QG_SEGMENT_CONFIRMED;
	begin();
	assert_int_equal(db->ops->segment_put(db, &theirs), QG_OK);
	assert_int_equal(db->ops->segment_sent(db, row, 4711), QG_OK);
	assert_int_equal(db->ops->segment_confirm(db, row, 1767225600001, 3), QG_OK);
	assert_int_equal(db->ops->segment_confirm(db, row, 1767225600002, 4), QG_E_STATE);
	assert_int_equal(db->ops->segment_sent(db, theirs.row, 9), QG_E_NOTFOUND);
	assert_int_equal(db->ops->segment_confirm(db, theirs.row, 9, 0), QG_E_STATE);
	commit();
	reopen();
	seen s = load_segments();
	assert_int_equal(s.segment[0].born_ms, 4711);
	assert_int_equal(s.segment[0].state, QG_SEGMENT_CONFIRMED);
	assert_int_equal(s.segment[0].ready_wall_ms, 1767225600001);
	assert_int_equal(s.segment[0].hops, 3);
	assert_int_equal(s.segment[1].hops, 0);
	assert_false(s.segment[1].ours);
	assert_int_equal(s.segment[1].born_ms, 11);
}

/* SOUNDNESS 10: what was taken is never taken again, whoever asks. */
static void
soundness_10_chunks_are_used_once(void **state)
{
	(void)state;
	static const uint8_t one[4] = {1}, three[4] = {3}, five[4] = {5};
	int64_t epoch = put_epoch(1), row = put_segment(epoch, 1), other = put_segment(epoch, 2);
	begin();
	assert_int_equal(db->ops->segment_use(db, row, none_used, one, 4), QG_OK);
	assert_int_equal(db->ops->segment_use(db, row, none_used, three, 4), QG_E_CONSUMED);
	assert_int_equal(db->ops->segment_use(db, row, none_used, one, 4), QG_E_CONSUMED);
	assert_int_equal(db->ops->segment_use(db, row, one, three, 4), QG_OK);
	commit();
	begin();
	assert_int_equal(db->ops->segment_use(db, row, three, five, 3), QG_E_CONSUMED); /* another length */
	assert_int_equal(db->ops->segment_use(db, row + 99, none_used, one, 4), QG_E_CONSUMED);
	commit();
	reopen();
	begin();
	assert_int_equal(db->ops->segment_use(db, row, one, five, 4), QG_E_CONSUMED);
	commit();
	seen s = load_segments();
	assert_memory_equal(s.used[0], three, 4);
	assert_memory_equal(s.used[1], none_used, 4);
	begin();
	assert_int_equal(db->ops->segment_delete(db, other), QG_OK);
	assert_int_equal(db->ops->segment_use(db, other, none_used, one, 4), QG_E_CONSUMED);
	commit();
}

static void
used_chunks_can_be_read_back(void **state)
{
	(void)state;
	static const uint8_t one[4] = {1};
	uint8_t got[5] = {0xee, 0xee, 0xee, 0xee, 0xee};
	int64_t row = put_segment(put_epoch(1), 1);
	assert_int_equal(db->ops->segment_used(db, row + 99, got, 4), QG_E_NOTFOUND);
	assert_int_equal(db->ops->segment_used(db, row, got, 5), QG_E_CORRUPT); /* not its length */
	assert_int_equal(db->ops->segment_used(db, row, got, 3), QG_E_CORRUPT);
	for (size_t i = 0; i < sizeof got; i++)
		assert_int_equal(got[i], 0xee);
	assert_int_equal(db->ops->segment_used(db, row, got, 4), QG_OK);
	assert_memory_equal(got, none_used, 4);
	begin();
	assert_int_equal(db->ops->segment_use(db, row, none_used, one, 4), QG_OK);
	assert_int_equal(db->ops->segment_used(db, row, got, 4), QG_OK); /* as the transaction has it */
	assert_memory_equal(got, one, 4);
	db->ops->rollback(db);
	assert_int_equal(db->ops->segment_used(db, row, got, 4), QG_OK);
	assert_memory_equal(got, none_used, 4);
}

static void
segment_is_sealed_anew(void **state)
{
	(void)state;
	int64_t row = put_segment(put_epoch(1), 1);
	begin();
	assert_int_equal(db->ops->segment_reseal(db, row, sealed, 1000), QG_OK);
	commit();
	seen s = load_segments();
	assert_int_equal(s.segment[0].sealed_len, 1000);
	begin();
	assert_int_equal(db->ops->segment_reseal(db, row, NULL, 0), QG_OK);
	commit();
	reopen();
	s = load_segments();
	assert_null(s.segment[0].sealed);
	assert_int_equal(s.segment[0].sealed_len, 0);
	assert_int_equal(s.segment[0].message_len, sizeof message);
	begin();
	assert_int_equal(db->ops->segment_delete(db, row), QG_OK);
	assert_int_equal(db->ops->segment_delete(db, row), QG_E_NOTFOUND);
	commit();
	assert_int_equal(load_segments().n, 0);
}

static void
transfer_comes_back_whole(void **state)
{
	(void)state;
	int64_t row = put_transfer("alice", 1), other = put_transfer("dave", 1);
	qg_transfer_rec bare = transfer_rec("alice", 2);
	bare.sealed = NULL;
	bare.n_targets = 0;
	begin();
	assert_int_equal(db->ops->transfer_put(db, &bare), QG_OK);
	commit();
	reopen();
	seen s = load_transfers();
	assert_int_equal(s.n, 3);
	assert_int_equal(s.transfer[0].row, row);
	assert_int_equal(s.transfer[0].key_id.b[15], 1);
	assert_int_equal(s.transfer[0].state, QG_TRANSFER_PREPARED);
	assert_int_equal(s.transfer[0].sealed_len, 149);
	assert_int_equal(s.transfer[0].size_bytes, 32);
	assert_int_equal(s.transfer[0].expiry_ms, 5000);
	assert_string_equal(s.target[0], "sae-a=1 sae-b@KME-B=2 sae-c=3 ");
	assert_int_equal(s.transfer[1].row, other);
	assert_string_equal(s.target[1], "sae-a=1 sae-b@KME-B=2 sae-c=3 ");
	assert_null(s.transfer[2].sealed);
	assert_string_equal(s.target[2], "");
}

/* SOUNDNESS 14 and 18: one record per initiator and ID, and the first change
 * of a state wins. */
static void
soundness_18_first_change_of_a_transfer_wins(void **state)
{
	(void)state;
	int64_t row = put_transfer("alice", 1);
	begin();
	assert_int_equal(
		db->ops->transfer_state(db, row, QG_TRANSFER_PREPARED, QG_TRANSFER_RELEASED), QG_OK);
	assert_int_equal(
		db->ops->transfer_state(db, row, QG_TRANSFER_PREPARED, QG_TRANSFER_VOIDING), QG_E_STATE);
	assert_int_equal(db->ops->target_state(db, row, "sae-a", QG_TARGET_PENDING, QG_TARGET_DELIVERED), QG_OK);
	assert_int_equal(
		db->ops->target_state(db, row, "sae-a", QG_TARGET_PENDING, QG_TARGET_DELIVERED), QG_E_STATE);
	assert_int_equal(
		db->ops->target_state(db, row, "sae-x", QG_TARGET_PENDING, QG_TARGET_DELIVERED), QG_E_STATE);
	assert_int_equal(
		db->ops->target_state(db, row + 1, "sae-b", QG_TARGET_RELAYED, QG_TARGET_VOIDED), QG_E_STATE);
	assert_int_equal(db->ops->target_state(db, row, "sae-b", QG_TARGET_RELAYED, 9), QG_E_INVAL);
	commit();
	reopen();
	seen s = load_transfers();
	assert_int_equal(s.transfer[0].state, QG_TRANSFER_RELEASED);
	assert_string_equal(s.target[0], "sae-a=3 sae-b@KME-B=2 sae-c=3 ");
}

static void
transfer_refusals(void **state)
{
	(void)state;
	static const qg_target_rec twice[] = {{"sae-a", QG_TARGET_PENDING, NULL}, {"sae-a", QG_TARGET_PENDING, NULL}};
	int64_t row = put_transfer("alice", 1);
	qg_transfer_rec t = transfer_rec("alice", 1);
	begin();
	t.row = -5;
	assert_int_equal(db->ops->transfer_put(db, &t), QG_E_EXISTS);
	assert_int_equal(t.row, -5);
	t = transfer_rec("alice", 2);
	t.state = 99;
	assert_int_equal(db->ops->transfer_put(db, &t), QG_E_INVAL);
	t = transfer_rec("alice", 3);
	t.target = twice;
	t.n_targets = 2;
	assert_int_equal(db->ops->transfer_put(db, &t), QG_E_EXISTS);
	assert_int_equal(db->ops->transfer_unseal(db, row + 99), QG_E_NOTFOUND);
	assert_int_equal(db->ops->transfer_delete(db, row + 99), QG_E_NOTFOUND);
	db->ops->rollback(db);
	assert_int_equal(load_transfers().n, 1);
}

static void
transfer_forgets_and_goes(void **state)
{
	(void)state;
	int64_t row = put_transfer("alice", 1);
	begin();
	assert_int_equal(db->ops->transfer_unseal(db, row), QG_OK);
	commit();
	seen s = load_transfers();
	assert_null(s.transfer[0].sealed);
	assert_string_equal(s.target[0], "sae-a=1 sae-b@KME-B=2 sae-c=3 ");
	begin();
	assert_int_equal(db->ops->transfer_delete(db, row), QG_OK);
	commit();
	assert_int_equal(load_transfers().n, 0);
	row = put_transfer("alice", 1); /* no target was left behind */
	assert_int_equal(load_transfers().n, 1);
}

static void
numbers_by_name(void **state)
{
	(void)state;
	int64_t v = 42;
	assert_int_equal(db->ops->number_get(db, "absent", &v), QG_OK);
	assert_int_equal(v, 0);
	begin();
	assert_int_equal(db->ops->number_put(db, "commits", INT64_MAX), QG_OK);
	assert_int_equal(db->ops->number_put(db, "wall", INT64_MIN), QG_OK);
	assert_int_equal(db->ops->number_put(db, "commits", 5), QG_OK);
	assert_int_equal(db->ops->number_get(db, "commits", &v), QG_OK);
	assert_int_equal(v, 5);
	commit();
	reopen();
	assert_int_equal(db->ops->number_get(db, "commits", &v), QG_OK);
	assert_int_equal(v, 5);
	assert_int_equal(db->ops->number_get(db, "wall", &v), QG_OK);
	assert_true(v == INT64_MIN);
}

static void
changes_need_a_transaction(void **state)
{
	(void)state;
	static const uint8_t one[4] = {1};
	int64_t epoch = put_epoch(1), row = put_segment(epoch, 1), v;
	qg_epoch_rec e = epoch_rec(2);
	assert_int_equal(db->ops->epoch_put(db, &e), QG_E_STATE);
	assert_int_equal(db->ops->segment_use(db, row, none_used, one, 4), QG_E_STATE);
	assert_int_equal(db->ops->number_put(db, "n", 1), QG_E_STATE);
	assert_int_equal(db->ops->commit(db), QG_E_STATE);
	db->ops->rollback(db); /* of nothing */
	begin();
	assert_int_equal(db->ops->begin(db), QG_E_STATE);
	assert_int_equal(db->ops->segment_use(db, row, none_used, one, 4), QG_OK);
	assert_int_equal(db->ops->number_put(db, "n", 1), QG_OK);
	db->ops->rollback(db);
	assert_int_equal(db->ops->number_get(db, "n", &v), QG_OK);
	assert_int_equal(v, 0);
	assert_int_equal(db->ops->commit(db), QG_E_STATE);
	assert_memory_equal(load_segments().used[0], none_used, 4);
	/* What close finds open is dropped too. */
	begin();
	assert_int_equal(db->ops->number_put(db, "n", 1), QG_OK);
	reopen();
	assert_int_equal(db->ops->number_get(db, "n", &v), QG_OK);
	assert_int_equal(v, 0);
}

static qg_err
stop_at_second(const qg_epoch_rec *rec, void *ctx)
{
	(void)rec;
	int *n = ctx;
	return ++*n == 2 ? QG_E_FULL : QG_OK;
}

static qg_err
load_again(const qg_epoch_rec *rec, void *ctx)
{
	(void)rec;
	seen s = {0};
	*(qg_err *)ctx = db->ops->load_epochs(db, see_epoch, &s);
	return QG_OK;
}

static void
load_ends_with_the_callbacks_error(void **state)
{
	(void)state;
	int n = 0;
	qg_err inner = QG_OK;
	for (uint8_t i = 1; i <= 3; i++)
		(void)put_epoch(i);
	assert_int_equal(db->ops->load_epochs(db, stop_at_second, &n), QG_E_FULL);
	assert_int_equal(n, 2);
	assert_int_equal(db->ops->load_epochs(db, load_again, &inner), QG_OK);
	assert_int_equal(inner, QG_E_STATE);
	assert_int_equal(load_epochs().n, 3);
}

static int
init(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_WARN, QG_LOG_TEXT);
	return qg_secret_init() == QG_OK ? 0 : -1;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(epoch_comes_back_whole),
		CASE(epoch_update_changes_what_may_change),
		CASE(soundness_09_marks_never_fall_back),
		CASE(epoch_refusals),
		CASE(epoch_goes_with_its_segments),
		CASE(segment_comes_back_whole),
		CASE(segment_refusals),
		CASE(segment_is_sent_and_confirmed_once),
		CASE(soundness_10_chunks_are_used_once),
		CASE(used_chunks_can_be_read_back),
		CASE(segment_is_sealed_anew),
		CASE(transfer_comes_back_whole),
		CASE(soundness_18_first_change_of_a_transfer_wins),
		CASE(transfer_refusals),
		CASE(transfer_forgets_and_goes),
		CASE(numbers_by_name),
		CASE(changes_need_a_transaction),
		CASE(load_ends_with_the_callbacks_error),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("store", tests, init, NULL);
}
