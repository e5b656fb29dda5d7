/* SPDX-License-Identifier: Apache-2.0 */
/* The SQLite store against what its file suffers from outside: crashes, full
 * and read-only disks, damage, foreign files, loose modes, a second daemon. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate/log.h"
#include "qkdgate/secret.h"
#include "qkdgate/store.h"
#include "seed.h"

#define VERSION_AT 60     /* user_version in the file's head */
#define APPLICATION_AT 68 /* application_id */
#define PAGE 4096
#define NOBODY 65534

static char dir[64], path[96], wal[104];
static char why[256];
static qg_store *db;

static const uint8_t none_used[32] = {0};

static qg_err
try_open(bool *fresh)
{
	why[0] = '\0';
	return qg_store_sqlite_open(path, fresh, &db, why, sizeof why);
}

static void
open_db(void)
{
	bool fresh;
	assert_int_equal(try_open(&fresh), QG_OK);
}

static void
close_db(void)
{
	db->ops->close(&db);
	assert_null(db);
}

static void
expect_refused(qg_err want)
{
	bool fresh = true;
	db = NULL;
	assert_int_equal(try_open(&fresh), want);
	assert_null(db);
	assert_true(fresh);
	assert_true(why[0] != '\0');
}

static int
setup(void **state)
{
	(void)state;
	static const char template[] = "/tmp/qg-store-XXXXXX";
	memcpy(dir, template, sizeof template);
	db = NULL;
	if (mkdtemp(dir) == NULL || snprintf(path, sizeof path, "%s/db", dir) >= (int)sizeof path)
		return -1;
	return snprintf(wal, sizeof wal, "%s-wal", path) < (int)sizeof wal ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	if (db != NULL)
		db->ops->close(&db);
	(void)unlink(path);
	(void)unlink(wal);
	return rmdir(dir);
}

static void
poke(off_t at, const void *bytes, size_t n)
{
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, n, at), (ssize_t)n);
	close(fd);
}

static void
poke_u32(off_t at, uint32_t v)
{
	const uint8_t b[4] = {(uint8_t)(v >> 24), (uint8_t)(v >> 16), (uint8_t)(v >> 8), (uint8_t)v};
	poke(at, b, sizeof b);
}

static uint32_t
peek_u32(off_t at)
{
	uint8_t b[4];
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, b, sizeof b, at), (ssize_t)sizeof b);
	close(fd);
	return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static bool
file_has(const char *name, const void *bytes, size_t n)
{
	static uint8_t file[4 * 1024 * 1024];
	int fd = open(name, O_RDONLY);
	assert_true(fd >= 0);
	ssize_t len = read(fd, file, sizeof file);
	assert_true(len > 0 && (size_t)len < sizeof file);
	close(fd);
	return memmem(file, (size_t)len, bytes, n) != NULL;
}

/* An epoch with n segments of 256 chunks; rows[] gets theirs. Any failure is
 * returned, so that a child process can use it. */
static qg_err
make_segments(qg_store *s, size_t n, const uint8_t *sealed, size_t len, int64_t *rows)
{
	static const uint8_t tag[16];
	qg_epoch_rec e = {.stream = "a-b", .state = QG_EPOCH_FILLING, .chunk_size = 32, .segment_chunks = 256};
	qg_random(e.epoch, sizeof e.epoch);
	qg_err err = s->ops->begin(s);
	if (err == QG_OK)
		err = s->ops->epoch_put(s, &e);
	for (size_t i = 0; err == QG_OK && i < n; i++) {
		qg_segment_rec g = {
			.epoch_row = e.row, .number = (uint32_t)i, .use = 1, .state = QG_SEGMENT_CONFIRMED,
			.count = 256, .sealed = sealed, .sealed_len = len, .used = none_used, .used_len = 32,
			.message = tag, .message_len = sizeof tag, .tag = tag,
		};
		err = s->ops->segment_put(s, &g);
		rows[i] = g.row;
	}
	if (err != QG_OK) {
		s->ops->rollback(s);
		return err;
	}
	return s->ops->commit(s);
}

static qg_err
put_number(qg_store *s, const char *name, int64_t v)
{
	qg_err err = s->ops->begin(s);
	if (err == QG_OK)
		err = s->ops->number_put(s, name, v);
	if (err != QG_OK) {
		s->ops->rollback(s);
		return err;
	}
	return s->ops->commit(s);
}

/* Runs f in a child; its result is the exit status. */
static int
in_child(int (*f)(void))
{
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(f());
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void
files_are_private_whatever_the_umask(void **state)
{
	(void)state;
	struct stat st;
	int64_t row;
	mode_t old = umask(0);
	open_db();
	assert_int_equal(make_segments(db, 1, none_used, 32, &row), QG_OK);
	umask(old);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(wal, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	close_db();
	assert_int_not_equal(access(wal, F_OK), 0);
}

static void
loose_modes_are_refused(void **state)
{
	(void)state;
	static const mode_t loose[] = {0640, 0604, 0660, 0644, 0700};
	open_db();
	close_db();
	for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++) {
		assert_int_equal(chmod(path, loose[i]), 0);
		expect_refused(QG_E_MODE);
	}
	assert_int_equal(chmod(path, 0600), 0);
	int fd = open(wal, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(fchmod(fd, 0644), 0);
	expect_refused(QG_E_MODE);
	assert_int_equal(fchmod(fd, 0600), 0);
	close(fd);
	open_db();
	close_db();
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	expect_refused(QG_E_MODE);
	assert_int_equal(rmdir(path), 0);
}

static int
child_opens(void)
{
	bool fresh;
	return (int)try_open(&fresh);
}

static void
second_daemon_is_refused(void **state)
{
	(void)state;
	qg_store *first;
	open_db();
	first = db;
	assert_int_equal(put_number(db, "n", 1), QG_OK);
	expect_refused(QG_E_EXISTS);
	db = first;
	assert_int_equal(in_child(child_opens), QG_E_EXISTS);
	assert_int_equal(put_number(db, "n", 2), QG_OK); /* the first one is none the worse */
	close_db();
	assert_int_equal(in_child(child_opens), QG_OK);
	open_db();
}

static void
foreign_files_are_refused(void **state)
{
	(void)state;
	uint8_t junk[3 * PAGE];
	qg_random(junk, sizeof junk);
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_int_equal(write(fd, junk, sizeof junk), sizeof junk);
	close(fd);
	expect_refused(QG_E_CORRUPT);
	assert_true(file_has(path, junk, sizeof junk)); /* and left as they were */
	assert_int_equal(unlink(path), 0);
	/* A database of some other program. */
	open_db();
	close_db();
	poke_u32(APPLICATION_AT, 0x12345678);
	expect_refused(QG_E_CORRUPT);
	poke_u32(APPLICATION_AT, 0);
	expect_refused(QG_E_CORRUPT);
}

static void
newer_schema_is_refused(void **state)
{
	(void)state;
	open_db();
	close_db();
	const uint32_t ours = peek_u32(VERSION_AT);
	poke_u32(VERSION_AT, 0x7fffffff);
	expect_refused(QG_E_UNSUPPORTED);
	poke_u32(VERSION_AT, UINT32_MAX); /* -1 */
	expect_refused(QG_E_UNSUPPORTED);
	poke_u32(VERSION_AT, ours);
	open_db();
}

static void
damaged_page_is_noticed_at_start(void **state)
{
	(void)state;
	uint8_t junk[PAGE], sealed[600];
	int64_t rows[64];
	struct stat st;
	qg_random(sealed, sizeof sealed);
	open_db();
	assert_int_equal(make_segments(db, 64, sealed, sizeof sealed, rows), QG_OK);
	close_db();
	qg_random(junk, sizeof junk);
	assert_int_equal(stat(path, &st), 0);
	poke(st.st_size - 2 * PAGE, junk, sizeof junk);
	expect_refused(QG_E_CORRUPT);
	assert_int_equal(truncate(path, 3 * PAGE), 0);
	expect_refused(QG_E_CORRUPT);
}

static void
crash_before_the_first_migration_leaves_a_fresh_one(void **state)
{
	(void)state;
	bool fresh = false;
	int fd = open(path, O_WRONLY | O_CREAT, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(try_open(&fresh), QG_OK);
	assert_true(fresh);
	close_db();
	assert_int_equal(try_open(&fresh), QG_OK);
	assert_false(fresh);
}

/* Runs as a user whom the folder's or file's mode binds. */
static int
child_opens_as_nobody(void)
{
	bool fresh;
	if (geteuid() == 0 && (setgid(NOBODY) != 0 || setuid(NOBODY) != 0))
		return 255;
	return (int)try_open(&fresh);
}

static void
give_to_nobody(const char *name)
{
	if (geteuid() == 0)
		assert_int_equal(chown(name, NOBODY, NOBODY), 0);
}

static void
read_only_places_are_refused(void **state)
{
	(void)state;
	give_to_nobody(dir);
	assert_int_equal(chmod(dir, 0500), 0);
	assert_int_equal(in_child(child_opens_as_nobody), QG_E_IO); /* none there yet */
	assert_int_equal(chmod(dir, 0700), 0);
	open_db();
	assert_int_equal(put_number(db, "n", 1), QG_OK);
	close_db();
	give_to_nobody(path);
	assert_int_equal(chmod(dir, 0500), 0);
	assert_int_equal(in_child(child_opens_as_nobody), QG_E_IO); /* no room for the log */
	assert_int_equal(chmod(dir, 0700), 0);
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(in_child(child_opens_as_nobody), QG_E_IO);
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(in_child(child_opens_as_nobody), QG_OK);
}

static void
someone_elses_file_is_refused(void **state)
{
	(void)state;
	if (geteuid() != 0)
		skip();
	open_db();
	close_db();
	assert_int_equal(chmod(dir, 0755), 0);
	assert_int_equal(chown(path, 12345, 12345), 0);
	expect_refused(QG_E_MODE);
	assert_int_equal(chown(path, 0, 0), 0);
	open_db();
}

static void
missing_folder_is_told(void **state)
{
	(void)state;
	char good[sizeof path];
	memcpy(good, path, sizeof good);
	assert_true(snprintf(path, sizeof path, "/nonexistent/folder/db") < (int)sizeof path);
	expect_refused(QG_E_IO);
	memcpy(path, good, sizeof good);
}

/* Standard error into a file while a test counts the lines of the log. */
static int
divert_log(FILE **log)
{
	int old = dup(STDERR_FILENO);
	*log = tmpfile();
	assert_non_null(*log);
	assert_true(old >= 0 && dup2(fileno(*log), STDERR_FILENO) >= 0);
	return old;
}

static size_t
restore_log(int old, FILE *log, const char *word)
{
	char line[512];
	size_t n = 0;
	assert_true(dup2(old, STDERR_FILENO) >= 0);
	close(old);
	rewind(log);
	while (fgets(line, sizeof line, log) != NULL)
		n += strstr(line, word) != NULL;
	fclose(log);
	return n;
}

static void
set_file_limit(rlim_t bytes)
{
	struct rlimit l;
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = bytes == RLIM_INFINITY ? l.rlim_max : bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

/* A file-size limit stands for a disk that refuses. The log says so once, and
 * when the disk takes writes again, so does the store. */
static void
refusing_disk_is_told_and_recovers(void **state)
{
	(void)state;
	static uint8_t sealed[100000];
	int64_t row, v;
	FILE *log;
	size_t failures = 0;
	open_db();
	assert_int_equal(put_number(db, "n", 1), QG_OK);
	signal(SIGXFSZ, SIG_IGN);
	int old = divert_log(&log);
	set_file_limit(64 * 1024);
	for (int i = 0; i < 5; i++)
		failures += make_segments(db, 1, sealed, sizeof sealed, &row) == QG_E_IO;
	set_file_limit(RLIM_INFINITY);
	assert_int_equal(restore_log(old, log, "event=database_failed"), 1);
	assert_int_equal(failures, 5);
	old = divert_log(&log);
	qg_err err = put_number(db, "n", 2);
	assert_int_equal(restore_log(old, log, "event=database_recovered"), 1);
	assert_int_equal(err, QG_OK);
	assert_int_equal(make_segments(db, 1, sealed, sizeof sealed, &row), QG_OK);
	close_db();
	open_db();
	assert_int_equal(db->ops->number_get(db, "n", &v), QG_OK);
	assert_int_equal(v, 2);
}

static void
numbers_put_to_zero_leave_the_database(void **state)
{
	(void)state;
	static const char name[] = "number-of-an-epoch-that-ended";
	for (int64_t v = 7; v >= 0; v -= 7) {
		open_db();
		assert_int_equal(put_number(db, name, v), QG_OK);
		close_db();
		assert_int_equal(file_has(path, name, sizeof name - 1), v != 0);
	}
}

/* A failure inside the transaction ends it for good: nothing that comes after
 * is committed by itself. */
static void
lost_transaction_is_not_carried_on(void **state)
{
	(void)state;
	static uint8_t sealed[9000000]; /* more than the cache: spills before the commit */
	static const uint8_t tag[16];
	int64_t v;
	qg_epoch_rec e = {.stream = "a-b", .state = QG_EPOCH_FILLING, .chunk_size = 32, .segment_chunks = 256};
	open_db();
	signal(SIGXFSZ, SIG_IGN);
	set_file_limit(256 * 1024);
	assert_int_equal(db->ops->begin(db), QG_OK);
	assert_int_equal(db->ops->number_put(db, "n", 7), QG_OK);
	assert_int_equal(db->ops->epoch_put(db, &e), QG_OK);
	qg_segment_rec g = {
		.epoch_row = e.row, .use = 1, .state = QG_SEGMENT_CONFIRMED, .count = 256, .sealed = sealed,
		.sealed_len = sizeof sealed, .used = none_used, .used_len = 32, .tag = tag,
	};
	qg_err put = db->ops->segment_put(db, &g);
	set_file_limit(RLIM_INFINITY);
	qg_err after = db->ops->number_put(db, "m", 8);
	qg_err end = after == QG_OK ? QG_OK : db->ops->commit(db);
	assert_int_equal(put, QG_E_IO);
	assert_int_equal(after, QG_E_IO);
	assert_int_equal(end, QG_E_IO);
	assert_int_equal(db->ops->number_get(db, "n", &v), QG_OK);
	assert_int_equal(v, 0);
	assert_int_equal(put_number(db, "n", 9), QG_OK);
	close_db();
	open_db();
	assert_int_equal(db->ops->number_get(db, "n", &v), QG_OK);
	assert_int_equal(v, 9);
	assert_int_equal(db->ops->number_get(db, "m", &v), QG_OK);
	assert_int_equal(v, 0);
}

/* On a small disk of its own, filled to the brim; 77: not allowed here. */
static int
child_fills_a_disk(void)
{
	static uint8_t sealed[50000];
	bool fresh;
	int64_t row, v;
	int n = 0;
	if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) != 0
		|| mount("qg-test", dir, "tmpfs", 0, "size=1m,mode=0700") != 0)
		return 77;
	if (try_open(&fresh) != QG_OK)
		return 1;
	qg_err err = QG_OK;
	while (err == QG_OK && n++ < 1000)
		err = make_segments(db, 1, sealed, sizeof sealed, &row);
	if (err != QG_E_IO || make_segments(db, 1, sealed, sizeof sealed, &row) != QG_E_IO)
		return 2;
	if (mount("qg-test", dir, "tmpfs", MS_REMOUNT, "size=4m,mode=0700") != 0)
		return 3;
	if (put_number(db, "n", 5) != QG_OK)
		return 4;
	db->ops->close(&db);
	if (try_open(&fresh) != QG_OK || db->ops->number_get(db, "n", &v) != QG_OK || v != 5)
		return 5;
	db->ops->close(&db);
	return 0;
}

static void
full_disk_is_told_and_recovers(void **state)
{
	(void)state;
	int rc = in_child(child_fills_a_disk);
	if (rc == 77)
		skip();
	assert_int_equal(rc, 0);
}

/* What was deleted or sealed anew is not left in the database. */
static void
soundness_12_dropped_blobs_leave_the_database(void **state)
{
	(void)state;
	uint8_t gone[9000], anew[9000];
	int64_t rows[2];
	qg_random(gone, sizeof gone);
	qg_random(anew, sizeof anew);
	open_db();
	assert_int_equal(make_segments(db, 2, gone, sizeof gone, rows), QG_OK);
	close_db();
	assert_true(file_has(path, gone + 100, 64));
	open_db();
	assert_int_equal(db->ops->begin(db), QG_OK);
	assert_int_equal(db->ops->segment_delete(db, rows[0]), QG_OK);
	assert_int_equal(db->ops->segment_reseal(db, rows[1], anew, sizeof anew), QG_OK);
	assert_int_equal(db->ops->commit(db), QG_OK);
	close_db();
	for (size_t at = 0; at + 64 <= sizeof gone; at += 1000)
		assert_false(file_has(path, gone + at, 64));
	assert_true(file_has(path, anew + 100, 64));
}

static void
set_bit(uint8_t used[32], unsigned i)
{
	used[i / 8] |= (uint8_t)(1u << (i % 8));
}

/* Consumes chunk after chunk, reporting each once its commit returned. */
static void
consume_until_killed(int report)
{
	bool fresh;
	int64_t rows[16];
	uint8_t used[32] = {0}, next[32];
	if (try_open(&fresh) != QG_OK || make_segments(db, 16, none_used, 32, rows) != QG_OK)
		_exit(1);
	for (unsigned n = 0;; n++) {
		unsigned i = n % 256;
		if (i == 0)
			memset(used, 0, sizeof used);
		if (n / 256 == 16)
			_exit(2);
		memcpy(next, used, sizeof next);
		set_bit(next, i);
		if (db->ops->begin(db) != QG_OK
			|| db->ops->segment_use(db, rows[n / 256], used, next, 32) != QG_OK
			|| db->ops->commit(db) != QG_OK)
			_exit(3);
		memcpy(used, next, sizeof used);
		unsigned done = n + 1;
		if (write(report, &done, sizeof done) != sizeof done)
			_exit(4);
	}
}

typedef struct tally {
	unsigned used; /* bits, of the epoch loaded last */
	int64_t epoch_row;
} tally;

static qg_err
count_used(const qg_segment_rec *rec, void *ctx)
{
	tally *t = ctx;
	if (rec->epoch_row != t->epoch_row)
		*t = (tally){.epoch_row = rec->epoch_row};
	for (unsigned i = 0; i < rec->count; i++)
		t->used += rec->used[i / 8] >> (i % 8) & 1;
	return QG_OK;
}

static unsigned
kill_in_the_middle(long after_us)
{
	int report[2];
	unsigned done = 0, n;
	assert_int_equal(pipe(report), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		consume_until_killed(report[1]);
	close(report[1]);
	assert_int_equal(read(report[0], &done, sizeof done), sizeof done); /* it has begun */
	nanosleep(&(struct timespec){.tv_nsec = after_us * 1000}, NULL);
	assert_int_equal(kill(pid, SIGKILL), 0);
	while (read(report[0], &n, sizeof n) == sizeof n)
		done = n;
	close(report[0]);
	int status;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	return done;
}

static void
soundness_10_reported_commits_survive_a_kill(void **state)
{
	(void)state;
	unsigned total = 0;
	srandom(test_seed());
	for (int round = 0; round < 20; round++) {
		unsigned done = kill_in_the_middle(random() % 20000);
		tally t = {0};
		open_db();
		assert_int_equal(db->ops->load_segments(db, count_used, &t), QG_OK);
		close_db();
		assert_true(t.used == done || t.used == done + 1); /* one may have gone unreported */
		total += done;
	}
	print_message("%u commits before 20 kills\n", total);
}

/* What one delivery, and a group of 64, costs beside the pages of many blobs. */
static double
uses_per_second(size_t group)
{
	enum { SEGMENTS = 64, GROUPS = 500 };
	static uint8_t used[SEGMENTS][32];
	static uint8_t sealed[256 * 32 + 117];
	static int64_t rows[SEGMENTS];
	struct timespec t0, t1;
	uint8_t next[32];
	memset(used, 0, sizeof used);
	assert_int_equal(make_segments(db, SEGMENTS, sealed, sizeof sealed, rows), QG_OK);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (size_t n = 0; n < GROUPS * group; n++) {
		size_t k = n % SEGMENTS;
		memcpy(next, used[k], sizeof next);
		for (size_t b = 0; b < 32; b++) /* a binary counter: it never repeats */
			if (++next[b] != 0)
				break;
		if (n % group == 0)
			assert_int_equal(db->ops->begin(db), QG_OK);
		assert_int_equal(db->ops->segment_use(db, rows[k], used[k], next, 32), QG_OK);
		if (n % group == group - 1)
			assert_int_equal(db->ops->commit(db), QG_OK);
		memcpy(used[k], next, sizeof next);
	}
	clock_gettime(CLOCK_MONOTONIC, &t1);
	double s = (double)(t1.tv_sec - t0.tv_sec) + (double)(t1.tv_nsec - t0.tv_nsec) / 1e9;
	print_message("%zu per transaction: %.0f transactions/s, %.3f ms each\n", group, GROUPS / s,
		s * 1000 / GROUPS);
	return (double)GROUPS * (double)group / s;
}

static void
group_is_cheaper_than_its_parts(void **state)
{
	(void)state;
	open_db();
	double one = uses_per_second(1), many = uses_per_second(64);
	assert_true(many > 2 * one);
}

static int
init(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_INFO, QG_LOG_TEXT);
	return qg_secret_init() == QG_OK ? 0 : -1;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(files_are_private_whatever_the_umask),
		CASE(loose_modes_are_refused),
		CASE(second_daemon_is_refused),
		CASE(foreign_files_are_refused),
		CASE(newer_schema_is_refused),
		CASE(damaged_page_is_noticed_at_start),
		CASE(crash_before_the_first_migration_leaves_a_fresh_one),
		CASE(read_only_places_are_refused),
		CASE(someone_elses_file_is_refused),
		CASE(missing_folder_is_told),
		CASE(refusing_disk_is_told_and_recovers),
		CASE(numbers_put_to_zero_leave_the_database),
		CASE(lost_transaction_is_not_carried_on),
		CASE(full_disk_is_told_and_recovers),
		CASE(soundness_12_dropped_blobs_leave_the_database),
		CASE(soundness_10_reported_commits_survive_a_kill),
		CASE(group_is_cheaper_than_its_parts),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("store_faults", tests, init, NULL);
}
