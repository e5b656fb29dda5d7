/* SPDX-License-Identifier: Apache-2.0 */
/* Leases, crashes, kills and stores that were put back (SOUNDNESS 8 and 9). */
#include "support/pair_case.h"

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define KILLS 50

static int teardown(void **state)
{
	(void)state;
	bool once = p == NULL || pair_signed_once(p);
	return end_case(once);
}

static void issue(uint32_t n)
{
	assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", n, 32, k), QG_OK);
}

static uint32_t index_of(const qg_uuid *id)
{
	qg_stream *st = pair_in(p, 0);
	qg_key_id_pair kp;
	qg_key_id_position pos = { .index = UINT32_MAX };
	pthread_mutex_lock(&st->lock);
	qg_key_id_pair_of(st->newest->keys_in, "sae-alice", "sae-bob", &kp);
	qg_err err = qg_key_id_open(st->newest->keys_in, &kp, id, &pos);
	pthread_mutex_unlock(&st->lock);
	assert_int_equal(err, QG_OK);
	return pos.index;
}

/* --- rule 8 -------------------------------------------------------------------- */

static void test_rule_08_nothing_below_the_mark_is_issued_again(void **state)
{
	(void)state;
	p = pair_start(NULL);
	for (int round = 0; round < 5; round++) {
		issue(7);
		uint32_t last = index_of(&k->id[6]);
		uint64_t mark = pair_epoch(pair_out(p, 0)).mark;
		assert_true(mark > last);
		end_crash(&p->end[0]);
		end_start(&p->end[0]);
		assert_true(pair_epoch(pair_out(p, 0)).mark >= mark);
		issue(1);
		assert_true(index_of(&k->id[0]) >= mark);
	}
	assert_int_equal(pair_epoch(pair_out(p, 0)).epochs, 1);
}

/* What is issued in a lease only goes up, also with keys of several sizes. */
static void test_rule_08_what_is_issued_only_goes_up(void **state)
{
	(void)state;
	static const uint16_t sizes[] = { 32, 500, 1, 33, 1024, 64 };
	p = pair_start(NULL);
	uint32_t before = 0;
	for (int i = 0; i < 60; i++) {
		uint16_t size = sizes[i % 6];
		assert_int_equal(pair_issue_wait(&p->end[0], "sae-alice", "sae-bob", 1, size, k), QG_OK);
		uint32_t at = index_of(&k->id[0]);
		assert_true(i == 0 || at > before);
		before = at + (uint32_t)(size + PAIR_CHUNK - 1) / PAIR_CHUNK - 1;
	}
}

/* A lease that cannot be written gives no key. */
static void test_rule_08_without_a_durable_lease_no_key(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .lease_chunks = 64 });
	assert_true(pair_wait_idle(p, 0));
	atomic_store(&p->end[0].store.fault, FAULT_FAILS);
	unsigned n = 0;
	qg_err err;
	while ((err = pair_issue(&p->end[0], "sae-alice", "sae-bob", 1, 32, k)) == QG_OK)
		assert_true(index_of(k->id) < pair_epoch(pair_out(p, 0)).mark && n++ < 600);
	assert_int_equal(err, QG_E_IO);
	atomic_store(&p->end[0].store.fault, FAULT_NONE);
	issue(10);
}

/* One life of both gateways under load: every ID issued and every key fetched
 * is written to the ledger before the next step; then it is killed. */
typedef struct ledger_line {
	uint8_t kind; /* 'i' issued, 'f' fetched, 's' about to be fetched */
	uint8_t side;
	qg_uuid id;
	uint8_t key[32];
} ledger_line;

static void ledger_write(int fd, uint8_t kind, int side, const qg_uuid *id, const uint8_t *key)
{
	ledger_line l = { .kind = kind, .side = (uint8_t)side, .id = *id };
	memcpy(l.key, key, sizeof l.key);
	must(write(fd, &l, sizeof l) == (ssize_t)sizeof l, "ledger");
}

static void live_once(const char *dir, int fd, bool shared)
{
	p = pair_start(&(pair_options){ .dir = dir, .shared = shared, .flush_ms = 20, .inbound_chunks = 1 << 20 });
	pair_keys *sent = keys_new(), *taken = keys_new();
	for (int side = 0;; side = !side) {
		const char *master = p->end[side].saes[0].id, *slave = p->end[!side].saes[0].id;
		if (pair_issue(&p->end[side], master, slave, 8, 32, sent) != QG_OK) {
			pair_nap(1);
			continue;
		}
		for (int i = 0; i < 8; i++)
			ledger_write(fd, 'i', side, &sent->id[i], sent->key + 32 * i);
		for (int i = 0; i < 6; i++)
			if (pair_fetch(&p->end[!side], master, slave, &sent->id[i], 1, taken) == QG_OK)
				ledger_write(fd, 'f', !side, &sent->id[i], taken->key);
	}
}

static const ledger_line *ledger_find(const ledger_line *l, size_t n, uint8_t kind, const qg_uuid *id)
{
	for (size_t i = 0; i < n; i++)
		if (l[i].kind == kind && qg_uuid_equal(&l[i].id, id))
			return &l[i];
	return NULL;
}

static int compare_lines(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(ledger_line));
}

static void check_ledger(const char *path, size_t *issued, size_t *fetched)
{
	FILE *f = fopen(path, "rb");
	static ledger_line line[65536];
	size_t n = fread(line, sizeof line[0], sizeof line / sizeof line[0], f);
	fclose(f);
	*issued = *fetched = 0;
	qsort(line, n, sizeof line[0], compare_lines);
	for (size_t i = 0; i < n; i++) {
		bool same = i > 0 && line[i].kind == line[i - 1].kind && qg_uuid_equal(&line[i].id, &line[i - 1].id);
		assert_false(same); /* no ID is issued, and none fetched, twice */
		*issued += line[i].kind == 'i';
		*fetched += line[i].kind == 'f';
	}
	const ledger_line *first_issued = line + *fetched; /* 'f' < 'i' */
	for (size_t i = 0; i < *fetched; i++) {
		const ledger_line *l = ledger_find(first_issued, *issued, 'i', &line[i].id);
		assert_non_null(l);
		assert_memory_equal(l->key, line[i].key, 32);
	}
}

/* After the kills: what was fetched in any life is gone, what was not can be
 * fetched at most once. */
static void check_rest(const char *path, const char *dir, bool shared)
{
	FILE *f = fopen(path, "rb");
	static ledger_line line[65536];
	size_t n = fread(line, sizeof line[0], sizeof line / sizeof line[0], f), late = 0;
	fclose(f);
	p = pair_start(&(pair_options){ .dir = dir, .shared = shared, .inbound_chunks = 1 << 20 });
	assert_true(pair_deliver(p, 0, 10, 32));
	for (size_t i = n > 3000 ? n - 3000 : 0; i < n; i++) {
		int far = line[i].kind == 'f' ? line[i].side : !line[i].side;
		const char *master = p->end[!far].saes[0].id, *slave = p->end[far].saes[0].id;
		qg_err err = pair_fetch(&p->end[far], master, slave, &line[i].id, 1, got);
		if (line[i].kind == 'f' || ledger_find(line, n, 'f', &line[i].id) != NULL)
			assert_int_not_equal(err, QG_OK);
		else if (err == QG_OK)
			assert_memory_equal(got->key, line[i].key, 32);
		late += err == QG_OK;
	}
	printf("fetched after the last kill: %zu\n", late);
	pair_free(&p);
}

/* Until a life has written so many lines more, however slow it is. */
static void wait_lines(const char *path, off_t lines)
{
	struct stat st;
	for (int i = 0; i < 60000; i++) {
		assert_int_equal(stat(path, &st), 0);
		if (st.st_size >= lines * (off_t)sizeof(ledger_line))
			return;
		pair_nap(1);
	}
	fail_msg("a life without keys");
}

static off_t lines_of(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 ? st.st_size / (off_t)sizeof(ledger_line) : 0;
}

static void kill_often(bool shared)
{
	char dir[64], path[96];
	static const char template[] = "/tmp/qg-kill-XXXXXX";
	unsigned seed = (unsigned)time(NULL);
	printf("seed %u\n", seed);
	memcpy(dir, template, sizeof template);
	assert_non_null(mkdtemp(dir));
	put_text(path, sizeof path, dir, "ledger");
	for (int i = 0; i < KILLS / 2; i++) {
		int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0600);
		assert_true(fd >= 0);
		fflush(NULL);
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			live_once(dir, fd, shared);
			_exit(0);
		}
		close(fd);
		seed = seed * 1103515245u + 12345u;
		const off_t before = lines_of(path);
		pair_nap(150 + (seed >> 16) % 500); /* maybe while it starts */
		if (i % 2 == 0)
			wait_lines(path, before + 28);
		int status;
		assert_int_equal(kill(pid, SIGKILL), 0);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	}
	size_t issued, fetched;
	check_ledger(path, &issued, &fetched);
	printf("issued %zu, fetched %zu in %d lives\n", issued, fetched, KILLS / 2);
	assert_true(issued > 100 && fetched > 80);
	check_rest(path, dir, shared);
	must(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, dir);
}

static void test_rule_08_no_id_twice_over_kills(void **state)
{
	(void)state;
	kill_often(false);
}

static void test_rule_08_no_id_twice_over_kills_with_a_shared_stream(void **state)
{
	(void)state;
	kill_often(true);
}

/* --- rule 9 -------------------------------------------------------------------- */

static bool only_new_live(qg_stream *st, const epoch_view *old)
{
	bool good = true;
	pthread_mutex_lock(&st->lock);
	const qg_epoch *e = st->newest;
	good = e != NULL && e->state == QG_EPOCH_FILLING && e->row != 0 && memcmp(e->id, old->id, 16) != 0;
	for (e = good ? e->older : NULL; e != NULL; e = e->older)
		good &= e->state == QG_EPOCH_DRAINING;
	pthread_mutex_unlock(&st->lock);
	return good;
}

/* In both directions and at both ends the old epochs give nothing any more. */
static bool all_ended(core_pair *pair, void *ctx)
{
	const epoch_view *old = ctx;
	bool good = true;
	for (int side = 0; side < 2; side++)
		good &= only_new_live(pair_out(pair, side), old) && only_new_live(pair_in(pair, side), old);
	return good;
}

/* Keys in both directions: some fetched before the copy, some after; those of
 * before and after must not come again from a store put back. */
static void put_back(int side, bool with_anchor, bool shared)
{
	pair_keys *before = keys_new(), *after = keys_new(), *local = keys_new();
	p = pair_start(&(pair_options){ .shared = shared });
	core_end *e = &p->end[side], *o = &p->end[!side];
	assert_true(pair_deliver(p, side, 50, 32));
	assert_true(pair_deliver(p, !side, 50, 32));
	assert_int_equal(pair_issue_wait(o, o->saes[0].id, e->saes[0].id, 10, 32, before), QG_OK);
	assert_int_equal(pair_issue(e, e->saes[0].id, e->saes[1].id, 1, 32, local), QG_OK);
	pair_nap(50);
	end_copy(e, "copy", with_anchor);
	/* Some leases and segments more, and the keys taken. */
	for (int i = 0; i < 30; i++)
		assert_true(pair_deliver(p, side, 50, 32));
	assert_int_equal(pair_fetch(e, o->saes[0].id, e->saes[0].id, before->id, 10, got), QG_OK);
	assert_int_equal(pair_fetch(e, e->saes[0].id, e->saes[1].id, local->id, 1, got), QG_OK);
	epoch_view old = pair_epoch(pair_out(p, 0));
	epoch_view own = pair_epoch(pair_out(p, side));
	assert_int_equal(pair_issue_wait(e, e->saes[0].id, o->saes[0].id, 5, 32, after), QG_OK);
	end_crash(e);
	end_put_back(e, "copy", with_anchor);
	if (with_anchor) {
		/* Only the neighbour can know. */
		end_start(e);
	} else {
		atomic_store(&e->link_down, true); /* this end knows by itself */
		end_start(e);
		assert_true(e->core->rolled_back);
		atomic_store(&e->link_down, false);
	}
	/* Neither direction gives anything a second time, also at once. */
	assert_int_not_equal(pair_fetch(e, o->saes[0].id, e->saes[0].id, before->id, 10, got), QG_OK);
	assert_int_not_equal(pair_fetch(e, e->saes[0].id, e->saes[1].id, local->id, 1, got), QG_OK);
	assert_true(pair_wait(p, all_ended, &old));
	assert_true(e->core->rolled_back);
	for (int i = 0; i < 10; i++) {
		assert_true(pair_deliver(p, side, 20, 32));
		assert_true(pair_deliver(p, !side, 20, 32));
	}
	assert_memory_not_equal(own.id, pair_epoch(pair_out(p, side)).id, 16);
	assert_int_not_equal(pair_fetch(e, o->saes[0].id, e->saes[0].id, before->id, 1, got), QG_OK);
	keys_free(&before);
	keys_free(&after);
	keys_free(&local);
}

static void test_rule_09_a_database_put_back_is_noticed_by_the_anchor(void **state)
{
	(void)state;
	put_back(0, false, false);
	(void)pair_free(&p);
	put_back(1, false, false);
	(void)pair_free(&p);
	put_back(0, false, true);
}

static void test_rule_09_with_the_anchor_put_back_the_neighbour_notices(void **state)
{
	(void)state;
	put_back(0, true, false);
	(void)pair_free(&p);
	put_back(1, true, false);
	(void)pair_free(&p);
	put_back(0, true, true);
}

static void test_rule_09_a_lost_anchor_is_noticed(void **state)
{
	(void)state;
	p = pair_start(NULL);
	assert_true(pair_deliver(p, 0, 50, 32));
	epoch_view old = pair_epoch(pair_out(p, 0));
	end_crash(&p->end[0]);
	assert_int_equal(unlink(p->end[0].anchor), 0);
	end_start(&p->end[0]);
	assert_true(p->end[0].core->rolled_back);
	assert_true(pair_wait(p, all_ended, &old));
	assert_true(pair_deliver(p, 0, 50, 32));
}

static void test_rule_09_an_unreachable_neighbour_does_not_block(void **state)
{
	(void)state;
	p = pair_start(NULL);
	assert_true(pair_wait_idle(p, 0));
	assert_int_equal(pair_issue_wait(&p->end[1], "sae-bob", "sae-alice", 1, 32, k), QG_OK);
	end_crash(&p->end[0]);
	atomic_store(&p->end[0].link_down, true);
	end_start(&p->end[0]);
	assert_false(p->end[0].core->rolled_back);
	assert_int_equal(pair_fetch(&p->end[0], "sae-bob", "sae-alice", k->id, 1, got), QG_OK);
	issue(5);
}

/* Looks at the counts where they change, in the committer's thread. */
typedef struct count_job {
	qg_job job; /* first */
	core_end *end;
	const char *copy; /* of the anchor, then */
	int64_t counted, stored;
} count_job;

static qg_err count_run(qg_job *job, qg_store *store)
{
	count_job *j = (count_job *)job;
	j->counted = j->end->core->commits;
	copy_file(j->end->anchor, j->copy);
	return store->ops->number_get(store, "commits", &j->stored);
}

/* What was consumed last is in the anchor although nothing follows it. */
static bool anchored(core_pair *pair, void *ctx)
{
	(void)ctx;
	core_end *e = &pair->end[1];
	qg_anchor_state *a = calloc(1, sizeof *a);
	qg_anchor *anchor = NULL;
	bool found = false;
	uint8_t key[32];
	char copy[256];
	put_text(copy, sizeof copy, pair->dir, "anchor-copy");
	count_job j = {.job = {.run = count_run}, .end = e, .copy = copy};
	must(qg_committer_run(e->core->committer, &j.job) == QG_OK, "numbers");
	qg_sealer_derive(e->sealer, "anchor", key);
	must(qg_anchor_open(copy, key, &found, a, &anchor) == QG_OK, "anchor");
	bool same = found && a->commits == (uint64_t)j.stored && a->commits == (uint64_t)j.counted;
	qg_anchor_close(&anchor);
	free(a);
	return same;
}

static void test_rule_09_the_last_commits_reach_the_anchor(void **state)
{
	(void)state;
	p = pair_start(NULL);
	issue(20);
	assert_true(pair_wait_idle(p, 0));
	pair_nap(100);
	for (int i = 0; i < 20; i++)
		assert_int_equal(pair_fetch(&p->end[1], "sae-alice", "sae-bob", &k->id[i], 1, got), QG_OK);
	assert_true(pair_wait(p, anchored, NULL));
}

/* A copy from between two writes of the anchor, put back after a crash and a start
 * more: the store never heard of the count that its life had come to. */
static void test_rule_09_a_database_of_an_earlier_life_is_noticed(void **state)
{
	(void)state;
	p = pair_start(NULL);
	core_end *far = &p->end[1];
	epoch_view old = pair_epoch(pair_out(p, 0));
	issue(20);
	assert_true(pair_wait_idle(p, 0));
	assert_int_equal(pair_fetch(far, "sae-alice", "sae-bob", &k->id[0], 1, got), QG_OK);
	end_copy(far, "copy", false);
	assert_int_equal(pair_fetch(far, "sae-alice", "sae-bob", &k->id[1], 1, got), QG_OK);
	end_crash(far);
	end_start(far);
	assert_false(far->core->rolled_back);
	end_crash(far);
	end_put_back(far, "copy", false);
	atomic_store(&far->link_down, true);
	end_start(far);
	assert_true(far->core->rolled_back);
	assert_int_not_equal(pair_fetch(far, "sae-alice", "sae-bob", &k->id[1], 1, got), QG_OK);
	atomic_store(&far->link_down, false);
	assert_true(pair_wait(p, all_ended, &old));
	assert_true(pair_deliver(p, 0, 20, 32));
}

static void test_rule_09_the_operator_ends_all_epochs(void **state)
{
	(void)state;
	char why[128];
	p = pair_start(NULL);
	issue(5);
	epoch_view old = pair_epoch(pair_out(p, 0));
	core_end *e = &p->end[1];
	end_stop(e);
	qg_seal_options so = { .master_key = e->master_key, .key_ring = e->key_ring, .rotate_s = 86400 };
	assert_int_equal(qg_sealer_open(&so, &e->sealer), QG_OK);
	assert_int_equal(qg_directory_new(&e->cfg, &e->directory), QG_OK);
	assert_int_equal(qg_store_sqlite_open(e->database, &e->fresh, &e->store.inner, why, sizeof why), QG_OK);
	qg_core_parts parts = { .cfg = &e->cfg, .directory = e->directory, .store = &e->store.store, .sealer = e->sealer,
				.channel = &e->channel };
	assert_int_equal(qg_core_reset_epochs(&parts, why, sizeof why), QG_OK);
	end_close(e);
	end_start(e);
	assert_int_equal(pair_fetch(e, "sae-alice", "sae-bob", k->id, 1, got), QG_E_NOTFOUND);
	assert_int_equal(pair_fetch(e, "sae-alice", "sae-erin", k->id, 1, got), QG_E_DENIED);
	assert_true(pair_wait(p, all_ended, &old));
	assert_true(pair_deliver(p, 0, 20, 32));
}

/* A generation of the key ring is not destroyed under a segment that is on
 * offer, however long the neighbour is away. */
static void test_rule_12_a_segment_on_offer_outlives_rotations(void **state)
{
	(void)state;
	p = pair_start(&(pair_options){ .rotate_s = 3600, .issue_s = 86400 * 20, .fetch_s = 86400 });
	assert_true(pair_deliver(p, 0, 20, 32));
	assert_int_equal(pair_issue(&p->end[0], "sae-alice", "sae-dave", 1, 32, k), QG_OK);
	for (int i = 0; i < 2; i++)
		atomic_store(&p->end[i].link_down, true);
	for (int i = 0; i < 20; i++)
		(void)pair_issue(&p->end[0], "sae-alice", "sae-bob", 20, 32, got);
	pair_nap(300);
	for (int i = 0; i < 4; i++) {
		atomic_fetch_add(&pair_ahead_ms, UINT64_C(4000) * 1000);
		atomic_fetch_add(&pair_wall_ahead_ms, INT64_C(4000) * 1000);
		pair_nap(700);
	}
	assert_true(qg_sealer_generation(p->end[0].sealer) >= 3);
	end_crash(&p->end[0]);
	assert_int_equal(end_try_start(&p->end[0]), QG_OK);
	assert_int_equal(pair_fetch(&p->end[0], "sae-alice", "sae-dave", k->id, 1, got), QG_OK);
	for (int i = 0; i < 2; i++)
		atomic_store(&p->end[i].link_down, false);
	assert_true(pair_deliver(p, 0, 20, 32));
}

/* A stop in the midst of everything ends, always. */
static void test_a_stop_under_load_ends(void **state)
{
	(void)state;
	for (int i = 0; i < 15; i++) {
		p = pair_start(NULL);
		if (i % 3 != 0)
			assert_true(pair_deliver(p, 0, 20, 32));
		for (int j = 0; j < 20; j++)
			(void)pair_issue(&p->end[0], "sae-alice", "sae-bob", 20, 32, k);
		pair_nap((unsigned)i % 7);
		end_stop(&p->end[i % 2]);
		pair_free(&p);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_rule_08_nothing_below_the_mark_is_issued_again),
		TEST(test_rule_08_what_is_issued_only_goes_up),
		TEST(test_rule_08_without_a_durable_lease_no_key),
		TEST(test_rule_08_no_id_twice_over_kills),
		TEST(test_rule_08_no_id_twice_over_kills_with_a_shared_stream),
		TEST(test_rule_09_a_database_put_back_is_noticed_by_the_anchor),
		TEST(test_rule_09_with_the_anchor_put_back_the_neighbour_notices),
		TEST(test_rule_09_a_lost_anchor_is_noticed),
		TEST(test_rule_09_an_unreachable_neighbour_does_not_block),
		TEST(test_rule_09_the_last_commits_reach_the_anchor),
		TEST(test_rule_09_a_database_of_an_earlier_life_is_noticed),
		TEST(test_rule_09_the_operator_ends_all_epochs),
		TEST(test_rule_12_a_segment_on_offer_outlives_rotations),
		TEST(test_a_stop_under_load_ends),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
