/* SPDX-License-Identifier: Apache-2.0 */
/* Totals by day, and what else the database keeps for operators. */
#include "qkdgate/accounts.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "qkdgate/clock.h"
#include "qkdgate/secret.h"
#include "qkdgate/store.h"

#define DAY_MS INT64_C(86400000)

static char dir[] = "/tmp/qg-accounts-XXXXXX", path[64];
static qg_store *db;
static qg_committer *committer;
static qg_accounts *accounts;

/* A noon, so that no test meets a midnight that it does not make. */
#define NOON (20000 * DAY_MS + DAY_MS / 2)
static int64_t wall_ms;
static uint64_t later_ms; /* beside what passes by itself */

static int64_t
get_wall(void)
{
	return wall_ms;
}

static uint64_t
get_elapsed(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + later_ms;
}

static const qg_clock_ops clock_ops = {.elapsed_ms = get_elapsed, .wall_ms = get_wall};

static void
open_all(void)
{
	char why[256] = "";
	bool fresh;
	assert_int_equal(qg_store_sqlite_open(path, &fresh, &db, why, sizeof why), QG_OK);
	assert_int_equal(qg_committer_start(db, NULL, &committer), QG_OK);
	assert_int_equal(qg_accounts_new(committer, &accounts), QG_OK);
}

static void
close_all(void)
{
	qg_committer_stop(&committer);
	qg_accounts_free(&accounts);
	db->ops->close(&db);
}

static int
setup(void **state)
{
	(void)state;
	memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
	if (mkdtemp(dir) == NULL || snprintf(path, sizeof path, "%s/db", dir) >= (int)sizeof path)
		return -1;
	wall_ms = NOON;
	qg_clock_use(&clock_ops);
	open_all();
	return 0;
}

static int
teardown(void **state)
{
	static const char *const files[] = {"db", "db-wal", "db-shm", "db.lock", "db-journal"};
	(void)state;
	close_all();
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		char file[80];
		(void)snprintf(file, sizeof file, "%s/%s", dir, files[i]);
		(void)unlink(file);
	}
	return rmdir(dir);
}

/* --- what is seen -------------------------------------------------------------------- */

typedef struct seen {
	size_t n;
	char text[4096]; /* "SAE>OTHER requests issued/bits fetched/bits refused limited;" each */
	uint64_t issued;
} seen;

static void
see(const qg_account_rec *r, void *ctx)
{
	seen *s = ctx;
	const size_t len = strlen(s->text);
	s->n++;
	s->issued += r->issued;
	if (len < sizeof s->text - 300)
		(void)snprintf(s->text + len, sizeof s->text - len,
			       "%s>%s %" PRIu64 " %" PRIu64 "/%" PRIu64 " %" PRIu64 "/%" PRIu64 " %" PRIu64 " %" PRIu64 ";", r->sae,
			       r->other, r->requests, r->issued, r->issued_bits, r->fetched, r->fetched_bits, r->refused,
			       r->limited);
}

static seen
read_days(int64_t from, int64_t to)
{
	seen s = {0};
	assert_int_equal(qg_accounts_read(accounts, from, to, see, &s), QG_OK);
	return s;
}

static void
issued(const char *sae, const char *other, uint64_t keys)
{
	const qg_account_rec r = {.sae = sae, .other = other, .requests = 1, .issued = keys, .issued_bits = 256 * keys};
	qg_accounts_count(accounts, &r, true);
}

static void
refused(const char *sae, const char *other)
{
	const qg_account_rec r = {.sae = sae, .other = other, .requests = 1, .refused = 1};
	qg_accounts_count(accounts, &r, false);
}

/* --- counting -------------------------------------------------------------------------- */

static void
totals_add_up_and_stay(void **state)
{
	(void)state;
	const int64_t today = qg_accounts_today();
	issued("alice", "bob", 3);
	issued("alice", "bob", 2);
	issued("bob", "alice", 1);
	refused("alice", "bob");
	static const char all[] = "alice>bob 3 5/1280 0/0 1 0;bob>alice 1 1/256 0/0 0 0;";
	assert_string_equal(read_days(today, today).text, all);
	assert_string_equal(read_days(today, today).text, all); /* reading counts nothing */
	close_all();
	open_all();
	assert_string_equal(read_days(today - 5, today + 5).text, all);
	issued("alice", "bob", 1);
	assert_non_null(strstr(read_days(today, today).text, "alice>bob 4 6/1536 "));
	assert_int_equal(read_days(today + 1, today + 9).n, 0);
	assert_int_equal(read_days(today - 9, today - 1).n, 0);
}

/* Names that callers make up fill nothing. */
static void
unknown_names_count_as_nobody(void **state)
{
	(void)state;
	char name[32];
	const int64_t today = qg_accounts_today();
	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof name, "made-up-%d", i);
		refused("mallory", name);
	}
	assert_string_equal(read_days(today, today).text, "mallory> 1000 0/0 0/0 1000 0;");
}

static void
what_is_not_flushed_is_all_that_is_lost(void **state)
{
	(void)state;
	const int64_t today = qg_accounts_today();
	issued("alice", "bob", 7);
	qg_accounts_flush(accounts);
	qg_committer_stop(&committer); /* what was queued is written */
	issued("alice", "bob", 100);
	qg_accounts_free(&accounts);
	db->ops->close(&db);
	open_all();
	assert_int_equal(read_days(today, today).issued, 7);
}

/* --- days ----------------------------------------------------------------------------------- */

static void
a_day_ends_at_midnight_utc(void **state)
{
	(void)state;
	const int64_t day = 20000;
	wall_ms = (day + 1) * DAY_MS - 1;
	issued("alice", "bob", 1);
	wall_ms++;
	issued("alice", "bob", 10);
	issued("alice", "carol", 100);
	const seen first = read_days(day, day), second = read_days(day + 1, day + 1), both = read_days(day, day + 1);
	wall_ms += DAY_MS;
	issued("alice", "bob", 1000);
	const seen third = read_days(day + 2, day + 2), later = read_days(day + 1, day + 1);
	assert_int_equal(first.issued, 1);
	assert_int_equal(second.issued, 110);
	assert_int_equal(both.n, 3);
	assert_int_equal(third.issued, 1000);
	assert_int_equal(later.issued, 110);
}

#define HOUR_MS UINT64_C(3600000)

/* As the conductor does, and all of it is in the database. */
static void
flushed(uint64_t after_ms)
{
	later_ms += after_ms;
	qg_accounts_flush(accounts);
	(void)read_days(0, 0);
}

static void
old_days_are_deleted_once_a_day(void **state)
{
	(void)state;
	const int64_t first = qg_accounts_today();
	for (int i = 0; i < 5; i++, wall_ms += DAY_MS)
		issued("alice", "bob", 1);
	wall_ms -= DAY_MS; /* the fifth day */
	flushed(2 * HOUR_MS);
	assert_int_equal(read_days(first, first + 9).issued, 5); /* all are kept */
	qg_accounts_keep_days(accounts, 3);
	flushed(0);
	flushed(2 * HOUR_MS);
	assert_int_equal(read_days(first, first + 9).issued, 3);
	assert_int_equal(read_days(first + 2, first + 4).issued, 3);
	wall_ms += DAY_MS;
	issued("alice", "bob", 1);
	flushed(0);
	flushed(HOUR_MS / 2);
	assert_int_equal(read_days(first, first + 9).issued, 4); /* the day is young */
	flushed(HOUR_MS / 2 + 1000);
	assert_int_equal(read_days(first, first + 9).issued, 3);
	assert_int_equal(read_days(first + 3, first + 5).issued, 3);
}

/* Far ahead, and set right within the hour. */
static void
a_wrong_clock_deletes_nothing(void **state)
{
	(void)state;
	const int64_t today = qg_accounts_today();
	issued("alice", "bob", 7);
	qg_accounts_keep_days(accounts, 3);
	wall_ms += 1000 * DAY_MS;
	flushed(0);
	flushed(HOUR_MS / 2);
	wall_ms -= 1000 * DAY_MS;
	flushed(0);
	flushed(2 * HOUR_MS);
	assert_int_equal(read_days(today, today).issued, 7);
	wall_ms -= 1000 * DAY_MS; /* and behind: what is ahead stays */
	flushed(0);
	flushed(2 * HOUR_MS);
	assert_int_equal(read_days(today, today).issued, 7);
}

/* --- many at once ------------------------------------------------------------------------------ */

#define THREADS 4
#define ROUNDS 3000

static void *
count_many(void *arg)
{
	const unsigned me = *(unsigned *)arg;
	char sae[16];
	for (unsigned i = 0; i < ROUNDS; i++) {
		snprintf(sae, sizeof sae, "sae-%u", (me + i) % 50);
		issued(sae, "bob", 1);
		if (i % 100 == 0)
			qg_accounts_flush(accounts);
	}
	return NULL;
}

static void
nothing_is_lost_or_counted_twice(void **state)
{
	(void)state;
	pthread_t t[THREADS];
	unsigned number[THREADS];
	const int64_t today = qg_accounts_today();
	for (unsigned i = 0; i < THREADS; i++) {
		number[i] = i;
		assert_int_equal(pthread_create(&t[i], NULL, count_many, &number[i]), 0);
	}
	for (unsigned i = 0; i < 20; i++)
		(void)read_days(today, today + 1);
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(read_days(today, today + 1).issued, THREADS * ROUNDS);
}

/* A transaction that fails leaves its counts for the next. */
typedef struct failing {
	qg_store store;
	qg_store_ops ops;
	qg_store *real;
	qg_err with;
	unsigned times;
} failing;

static failing fail;

static qg_err
fail_commit(qg_store *s)
{
	failing *f = (failing *)s;
	if (f->times == 0)
		return f->real->ops->commit(f->real);
	f->times--;
	if (f->with == QG_E_UNKNOWN)
		return f->real->ops->commit(f->real) == QG_OK ? QG_E_UNKNOWN : QG_E_IO;
	f->real->ops->rollback(f->real);
	return f->with;
}

static qg_err
real_begin(qg_store *s)
{
	return ((failing *)s)->real->ops->begin(((failing *)s)->real);
}

static void
real_rollback(qg_store *s)
{
	((failing *)s)->real->ops->rollback(((failing *)s)->real);
}

static qg_err
real_add(qg_store *s, const qg_account_rec *rec)
{
	return ((failing *)s)->real->ops->account_add(((failing *)s)->real, rec);
}

static qg_err
real_load(qg_store *s, int64_t from, int64_t to, qg_err (*each)(const qg_account_rec *rec, void *ctx), void *ctx)
{
	return ((failing *)s)->real->ops->load_accounts(((failing *)s)->real, from, to, each, ctx);
}

static void
a_failed_commit_is_made_good(void **state)
{
	(void)state;
	static const qg_err errors[] = {QG_E_IO, QG_E_UNKNOWN};
	const int64_t today = qg_accounts_today();
	for (size_t i = 0; i < 2; i++) {
		qg_committer_stop(&committer);
		qg_accounts_free(&accounts);
		fail = (failing){.real = db, .with = errors[i], .times = 1};
		fail.ops = (qg_store_ops){.begin = real_begin, .commit = fail_commit, .rollback = real_rollback,
					  .account_add = real_add, .load_accounts = real_load};
		fail.store.ops = &fail.ops;
		assert_int_equal(qg_committer_start(&fail.store, NULL, &committer), QG_OK);
		assert_int_equal(qg_accounts_new(committer, &accounts), QG_OK);
		issued("alice", "bob", 5);
		qg_accounts_flush(accounts);
		for (int k = 0; k < 3; k++)
			(void)!read_days(today, today + 1).n;
		assert_int_equal(read_days(today, today + 1).issued, 5 * (i + 1)); /* once each */
	}
}

/* --- the rest of what is kept ------------------------------------------------------------------- */

static char listed[256];

static qg_err
list_entry(const qg_entry_rec *r, void *ctx)
{
	(void)ctx;
	const size_t len = strlen(listed);
	(void)snprintf(listed + len, sizeof listed - len, "%s/%s=%s;", r->list, r->name, r->text);
	return QG_OK;
}

static qg_err
list_level(const qg_level_rec *r, void *ctx)
{
	(void)ctx;
	const size_t len = strlen(listed);
	(void)snprintf(listed + len, sizeof listed - len, "%s/%s=%" PRIu64 ";", r->rate, r->name, r->milli);
	return QG_OK;
}

static void
entries_and_levels_are_kept(void **state)
{
	(void)state;
	qg_committer_stop(&committer);
	qg_accounts_free(&accounts);
	const qg_entry_rec entry[] = {{"policy", "b", "{}"}, {"saes", "b", "{\"id\": 1}"}, {"policy", "a", "{}"}};
	assert_int_equal(db->ops->begin(db), QG_OK);
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(db->ops->entry_put(db, &entry[i]), QG_OK);
	assert_int_equal(db->ops->entry_put(db, &entry[0]), QG_E_EXISTS);
	assert_int_equal(db->ops->entry_put(db, &(qg_entry_rec){"streams", "x", "{}"}), QG_E_INVAL);
	assert_int_equal(db->ops->entry_delete(db, "saes", "a"), QG_E_NOTFOUND);
	assert_int_equal(db->ops->level_put(db, &(qg_level_rec){"keys", "alice", 5}), QG_OK);
	assert_int_equal(db->ops->level_put(db, &(qg_level_rec){"keys", "alice", 6}), QG_OK);
	assert_int_equal(db->ops->commit(db), QG_OK);
	listed[0] = '\0';
	assert_int_equal(db->ops->load_entries(db, list_entry, NULL), QG_OK);
	assert_string_equal(listed, "policy/b={};saes/b={\"id\": 1};policy/a={};");
	listed[0] = '\0';
	assert_int_equal(db->ops->load_levels(db, list_level, NULL), QG_OK);
	assert_string_equal(listed, "keys/alice=6;");
	assert_int_equal(db->ops->begin(db), QG_OK);
	assert_int_equal(db->ops->entry_delete(db, "policy", "b"), QG_OK);
	assert_int_equal(db->ops->levels_delete(db), QG_OK);
	assert_int_equal(db->ops->levels_delete(db), QG_OK);
	assert_int_equal(db->ops->commit(db), QG_OK);
	listed[0] = '\0';
	assert_int_equal(db->ops->load_entries(db, list_entry, NULL), QG_OK);
	assert_int_equal(db->ops->load_levels(db, list_level, NULL), QG_OK);
	assert_string_equal(listed, "saes/b={\"id\": 1};policy/a={};");
}

static qg_err
list_suspension(const qg_suspension_rec *r, void *ctx)
{
	(void)ctx;
	const size_t len = strlen(listed);
	(void)snprintf(listed + len, sizeof listed - len, "%s/%s/%s;", r->kind, r->name, r->other);
	return QG_OK;
}

static void
suspensions_are_kept(void **state)
{
	(void)state;
	const qg_suspension_rec good[] = {{"sae", "a", ""}, {"pair", "a", "b"}, {"peer", "a", ""}};
	const qg_suspension_rec bad[] = {{"sae", "a", "b"}, {"pair", "a", ""}, {"kme", "a", ""}};
	qg_committer_stop(&committer);
	qg_accounts_free(&accounts);
	assert_int_equal(db->ops->suspension_put(db, &good[0]), QG_E_STATE);
	assert_int_equal(db->ops->begin(db), QG_OK);
	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(db->ops->suspension_put(db, &good[i]), QG_OK);
		assert_int_equal(db->ops->suspension_put(db, &good[i]), QG_OK); /* a job may run twice */
		assert_int_equal(db->ops->suspension_put(db, &bad[i]), QG_E_INVAL);
	}
	assert_int_equal(db->ops->commit(db), QG_OK);
	listed[0] = '\0';
	assert_int_equal(db->ops->load_suspensions(db, list_suspension, NULL), QG_OK);
	assert_string_equal(listed, "pair/a/b;peer/a/;sae/a/;");
	assert_int_equal(db->ops->begin(db), QG_OK);
	assert_int_equal(db->ops->suspension_delete(db, &good[1]), QG_OK);
	assert_int_equal(db->ops->suspension_delete(db, &good[1]), QG_OK);
	assert_int_equal(db->ops->suspension_delete(db, &good[0]), QG_OK);
	assert_int_equal(db->ops->commit(db), QG_OK);
	listed[0] = '\0';
	assert_int_equal(db->ops->load_suspensions(db, list_suspension, NULL), QG_OK);
	assert_string_equal(listed, "peer/a/;");
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(totals_add_up_and_stay),
		CASE(unknown_names_count_as_nobody),
		CASE(what_is_not_flushed_is_all_that_is_lost),
		CASE(a_day_ends_at_midnight_utc),
		CASE(old_days_are_deleted_once_a_day),
		CASE(a_wrong_clock_deletes_nothing),
		CASE(nothing_is_lost_or_counted_twice),
		CASE(a_failed_commit_is_made_good),
		CASE(entries_and_levels_are_kept),
		CASE(suspensions_are_kept),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	const int failed = cmocka_run_group_tests_name("accounts", tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
