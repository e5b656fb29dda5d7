/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate/log.h"
#include "qkdgate/request_id.h"
#include "qkdgate/secret.h"

static const unsigned char key[32] = "an audit key of thirty-two bytes";
static const unsigned char other_key[32] = "an audit key of thirty-two byteS";

static char folder[] = "/tmp/qkdgate-audit-XXXXXX";
static char path[64], spare_path[64];

static int
fresh(void **state)
{
	(void)state;
	unlink(path);
	unlink(spare_path);
	return 0;
}

static qg_audit *
open_log(void)
{
	qg_audit *a = NULL;
	assert_int_equal(qg_audit_open(path, key, &a), QG_OK);
	assert_non_null(a);
	return a;
}

static void
write_event(qg_audit *a, qg_audit_act act, const char *caller, const qg_uuid *ids, size_t n)
{
	const qg_audit_event e = {.act = act, .caller = caller, .peer = "sae-bob", .reason = "",
				  .size_bits = 256, .ids = ids, .n_ids = n};
	qg_audit_write(a, &e);
}

/* n events of two keys each, in runs of their own. */
static void
write_some(size_t n)
{
	qg_audit *a = open_log();
	for (size_t i = 0; i < n; i++) {
		qg_uuid id[2];
		char caller[32];
		qg_uuid_random(&id[0]);
		qg_uuid_random(&id[1]);
		snprintf(caller, sizeof caller, "sae-%zu", i);
		write_event(a, QG_AUDIT_ISSUED, caller, id, 2);
	}
	qg_audit_close(&a);
	assert_null(a);
}

/* --- files ------------------------------------------------------------------ */

static char *
slurp(size_t *n)
{
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	char *text = malloc(32u << 20);
	assert_non_null(text);
	*n = fread(text, 1, (32u << 20) - 1, f);
	text[*n] = '\0';
	fclose(f);
	return text;
}

static void
spill(const char *text, size_t n)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CREAT, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, n), n);
	close(fd);
}

static size_t
count_lines(const char *text)
{
	size_t n = 0;
	for (; *text != '\0'; text++)
		n += *text == '\n';
	return n;
}

static void
assert_whole(size_t lines)
{
	size_t bad = 0, n;
	qg_err err = qg_audit_verify(path, key, &bad);
	if (err != QG_OK)
		fail_msg("line %zu: %s", bad, qg_err_text(err));
	char *text = slurp(&n);
	assert_int_equal(count_lines(text), lines);
	free(text);
}

static void
assert_bad_at(const unsigned char *with, size_t line)
{
	size_t bad = 0;
	assert_int_equal(qg_audit_verify(path, with, &bad), QG_E_CORRUPT);
	assert_int_equal(bad, line);
}

/* The start of line i (from 1). */
static char *
line_at(char *text, size_t i)
{
	for (; i > 1; i--)
		text = strchr(text, '\n') + 1;
	return text;
}

/* --- what is written --------------------------------------------------------- */

static const char *
member(json_t *o, const char *name)
{
	const char *s = json_string_value(json_object_get(o, name));
	return s != NULL ? s : "";
}

static void
one_line_for_each_key(void **state)
{
	(void)state;
	qg_audit *a = open_log();
	qg_uuid id[3];
	for (size_t i = 0; i < 3; i++)
		qg_uuid_random(&id[i]);
	write_event(a, QG_AUDIT_FETCHED, "sae-alice", id, 3);
	qg_audit_write(a, &(qg_audit_event){.act = QG_AUDIT_START});
	assert_int_equal(qg_audit_sync(a), QG_OK);

	size_t n;
	char *text = slurp(&n), *line = text;
	for (size_t i = 0; i < 4; i++) {
		char want[QG_UUID_TEXT];
		json_t *o = json_loadb(line, (size_t)(strchr(line, '\n') - line), JSON_REJECT_DUPLICATES, NULL);
		assert_non_null(o);
		assert_int_equal(json_integer_value(json_object_get(o, "seq")), i + 1);
		assert_int_equal(strlen(member(o, "tag")), 32);
		assert_int_equal(strlen(member(o, "time")), 24);
		assert_string_equal(member(o, "act"), i < 3 ? "fetched" : "start");
		if (i < 3) {
			qg_uuid_format(&id[i], want);
			assert_string_equal(member(o, "id"), want);
			assert_string_equal(member(o, "caller"), "sae-alice");
			assert_string_equal(member(o, "peer"), "sae-bob");
			assert_int_equal(json_integer_value(json_object_get(o, "bits")), 256);
			assert_int_equal(json_object_size(o), 8);
		} else {
			assert_int_equal(json_object_size(o), 4); /* what is empty is left out */
		}
		json_decref(o);
		line = strchr(line, '\n') + 1;
	}
	assert_int_equal(*line, '\0');
	free(text);
	qg_audit_close(&a);
	assert_whole(4);
}

/* The SAE in a path is what a stranger typed. */
static void
hostile_strings_stay_in_their_member(void **state)
{
	(void)state;
	char every[257], longer[400];
	for (int i = 0; i < 255; i++)
		every[i] = (char)(i + 1);
	every[255] = '\0';
	memset(longer, '"', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	qg_audit *a = open_log();
	const qg_audit_event e = {.act = QG_AUDIT_REFUSED, .caller = every, .peer = longer, .reason = longer};
	qg_audit_write(a, &e);
	qg_audit_write(a, &(qg_audit_event){.act = QG_AUDIT_REFUSED, .caller = "x\n{\"seq\":2}", .peer = NULL});
	qg_audit_close(&a);
	assert_whole(2);

	size_t n;
	char *text = slurp(&n);
	json_t *o = json_loadb(text, (size_t)(strchr(text, '\n') - text), JSON_REJECT_DUPLICATES, NULL);
	assert_non_null(o);
	assert_int_equal(strlen(member(o, "peer")), 256);
	assert_int_equal(strlen(member(o, "reason")), 256);
	/* Byte i stands as the character i. */
	const char *got = member(o, "caller");
	for (int i = 1; i < 256; i++) {
		if (i < 0x80) {
			assert_int_equal((uint8_t)*got++, i);
		} else {
			assert_int_equal((uint8_t)got[0], 0xc0 | i >> 6);
			assert_int_equal((uint8_t)got[1], 0x80 | (i & 0x3f));
			got += 2;
		}
	}
	json_decref(o);
	free(text);
}

static void
no_log_takes_and_drops(void **state)
{
	(void)state;
	write_event(NULL, QG_AUDIT_ISSUED, "x", NULL, 0);
	assert_int_equal(qg_audit_sync(NULL), QG_OK);
	assert_true(qg_audit_healthy(NULL));
	qg_audit *a = NULL;
	qg_audit_close(&a);
	qg_audit_close(NULL);
}

static void
the_file_follows_soon(void **state)
{
	(void)state;
	qg_audit *a = open_log();
	struct stat st = {0};
	int waited_ms = 0;
	write_event(a, QG_AUDIT_ISSUED, "sae-alice", NULL, 0);
	for (; st.st_size == 0 && waited_ms < 5000; waited_ms += 10) {
		usleep(10000);
		assert_int_equal(stat(path, &st), 0);
	}
	assert_in_range(waited_ms, 0, 1000); /* promised: 200, on a machine with time for us */
	qg_audit_close(&a);
}

/* --- the chain --------------------------------------------------------------- */

static void
the_chain_goes_on_after_reopening(void **state)
{
	(void)state;
	for (size_t i = 1; i <= 5; i++) {
		write_some(3);
		assert_whole(6 * i);
	}
}

/* The end of a run that is longer than what is read of the file at first. */
static void
the_chain_goes_on_after_a_long_run(void **state)
{
	(void)state;
	enum { N = 5000 };
	static qg_uuid ids[N];
	write_some(2);
	for (size_t round = 1; round <= 2; round++) {
		qg_random(ids, sizeof ids);
		qg_audit *a = open_log();
		write_event(a, QG_AUDIT_ISSUED, "sae-alice", ids, N);
		qg_audit_close(&a);
		assert_whole(4 + round * N);
	}
	write_some(1);
	assert_whole(4 + 2 * N + 2);
}

static void
a_file_of_one_run(void **state)
{
	(void)state;
	enum { N = 2000 };
	static qg_uuid ids[N];
	for (size_t round = 1; round <= 2; round++) {
		qg_audit *a = open_log();
		write_event(a, QG_AUDIT_ISSUED, "sae-alice", ids, N);
		qg_audit_close(&a);
		assert_whole(round * N);
	}
}

static void
another_key_fits_nothing(void **state)
{
	(void)state;
	write_some(2);
	assert_bad_at(other_key, 1);
	qg_audit *a = NULL;
	assert_int_equal(qg_audit_open(path, other_key, &a), QG_E_CORRUPT);
	assert_null(a);
}

/* Every bit of every byte of a small file. */
static void
a_changed_bit_is_found_in_its_line(void **state)
{
	(void)state;
	write_some(3);
	size_t n, line = 1;
	char *text = slurp(&n);
	int fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	for (size_t i = 0; i < n; i++) {
		for (int bit = 0; bit < 8; bit++) {
			/* A line that lost its end swallows the next; one that was
			 * given another end breaks where it begins. */
			char c = (char)(text[i] ^ 1 << bit);
			assert_int_equal(pwrite(fd, &c, 1, (off_t)i), 1);
			assert_bad_at(key, line);
		}
		assert_int_equal(pwrite(fd, text + i, 1, (off_t)i), 1);
		line += text[i] == '\n';
	}
	close(fd);
	free(text);
	assert_whole(6);
}

static void
upper_case_is_a_change(void **state)
{
	(void)state;
	write_some(2);
	size_t n;
	char *text = slurp(&n), *tag = strstr(line_at(text, 3), "\"tag\":\"") + 7;
	char *p = tag + strcspn(tag, "abcdef");
	assert_true(p < tag + 32);
	*p = (char)(*p - 32);
	spill(text, n);
	free(text);
	assert_bad_at(key, 3);
}

static void
a_missing_line_is_found(void **state)
{
	(void)state;
	write_some(3);
	size_t n;
	char *text = slurp(&n);
	for (size_t i = 1; i <= 5; i++) { /* the last one is missed by nothing after it */
		char *from = line_at(text, i), *to = line_at(text, i + 1);
		size_t head = (size_t)(from - text), tail = n - (size_t)(to - text);
		char *cut = malloc(n);
		assert_non_null(cut);
		memcpy(cut, text, head);
		memcpy(cut + head, to, tail);
		spill(cut, head + tail);
		free(cut);
		assert_bad_at(key, i);
	}
	free(text);
}

static void
an_inserted_or_moved_line_is_found(void **state)
{
	(void)state;
	write_some(3);
	size_t n;
	char *text = slurp(&n);
	char *third = line_at(text, 3), *fourth = line_at(text, 4), *fifth = line_at(text, 5);
	size_t len = (size_t)(fourth - third), head = (size_t)(fourth - text);
	char *more = malloc(2 * n);
	assert_non_null(more);
	memcpy(more, text, head); /* the third twice */
	memcpy(more + head, third, len);
	memcpy(more + head + len, fourth, n - head);
	spill(more, n + len);
	assert_bad_at(key, 4);
	head -= len; /* the third after the fourth */
	memcpy(more + head, fourth, (size_t)(fifth - fourth));
	memcpy(more + head + (size_t)(fifth - fourth), third, len);
	memcpy(more + (size_t)(fifth - text), fifth, n - (size_t)(fifth - text));
	spill(more, n);
	assert_bad_at(key, 3);
	free(more);
	free(text);
}

/* Lines 3 and 4 of another log under the same key, in place of ours. */
static void
lines_of_another_log_are_found(void **state)
{
	(void)state;
	size_t n, m;
	write_some(3);
	char *ours = slurp(&n);
	assert_int_equal(rename(path, spare_path), 0);
	write_some(3);
	char *theirs = slurp(&m);
	assert_int_equal(n, m);
	size_t from = (size_t)(line_at(ours, 3) - ours), to = (size_t)(line_at(ours, 5) - ours);
	memcpy(ours + from, theirs + from, to - from);
	spill(ours, n);
	assert_bad_at(key, 3);
	free(ours);
	free(theirs);
}

static void
what_is_no_log_is_refused(void **state)
{
	(void)state;
	static char huge[200000];
	memset(huge, 'x', sizeof huge - 1);
	static const char *const bad[] = {
		"\n",
		"{}\n",
		"{\"seq\":1}\n",
		"{\"seq\":1,\"time\":\"\",\"tag\":\"\"}\n",
		"{\"seq\":01,\"time\":\"x\",\"tag\":\"0123456789abcdef0123456789abcdef\"}\n",
		"{\"seq\":1,\"id\":\"\",\"time\":\"x\",\"tag\":\"0123456789abcdef0123456789abcdef\"}\n",
		"{\"seq\":99999999999999999999,\"time\":\"x\",\"tag\":\"0123456789abcdef0123456789abcdef\"}\n",
		"{\"seq\":,\"time\":\"x\",\"tag\":\"0123456789abcdef0123456789abcdef\"}\n",
		"{\"seq\":1,\"time\":\"x\",\"tag\":\"0123456789abcdef0123456789abcdeg\"}\n",
		huge,
	};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		qg_audit *a = NULL;
		spill(bad[i], strlen(bad[i]));
		assert_bad_at(key, 1);
		assert_int_equal(qg_audit_open(path, key, &a), QG_E_CORRUPT);
		assert_null(a);
	}
	huge[sizeof huge - 2] = '\n'; /* with an end, seen through a window in its middle */
	spill(huge, sizeof huge - 1);
	assert_bad_at(key, 1);
	qg_audit *a = NULL;
	assert_int_equal(qg_audit_open(path, key, &a), QG_E_CORRUPT);
}

/* --- after a crash ------------------------------------------------------------ */

/* The last line cut at many lengths, with the first and the last ones. */
static void
a_torn_line_is_cut_off_and_told(void **state)
{
	(void)state;
	write_some(2);
	size_t n;
	char *text = slurp(&n), *last = line_at(text, 4);
	for (size_t len = (size_t)(last - text); len < n; len += len < n - 12 && len % 9 < 7 ? 9 : 1) {
		spill(text, len);
		size_t torn = len - (size_t)(last - text);
		qg_audit *a = open_log();
		qg_audit_close(&a);
		assert_whole(torn > 0 ? 4 : 3);
		size_t m;
		char *now = slurp(&m), want[64];
		snprintf(want, sizeof want, "\"reason\":\"torn last line of %zu bytes cut off\"", torn);
		assert_int_equal(strstr(now, want) != NULL, torn > 0);
		assert_memory_equal(now, text, (size_t)(last - text));
		free(now);
	}
	free(text);
}

/* What goes beyond a torn line is not repaired. */
static void
more_than_a_torn_line_is_refused(void **state)
{
	(void)state;
	write_some(2);
	size_t n;
	char *text = slurp(&n);
	char *longer = calloc(1, n + 20000);
	assert_non_null(longer);
	memcpy(longer, text, n);
	spill(longer, n + 20000);
	qg_audit *a = NULL;
	assert_int_equal(qg_audit_open(path, key, &a), QG_E_CORRUPT);
	line_at(text, 4)[20] ^= 1; /* whole, but wrong */
	spill(text, n);
	assert_int_equal(qg_audit_open(path, key, &a), QG_E_CORRUPT);
	struct stat st;
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_size, n); /* and left as it was */
	free(longer);
	free(text);
}

static void
killed_while_writing(void **state)
{
	(void)state;
	size_t lines = 0;
	for (unsigned round = 0; round < 5; round++) {
		pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			qg_audit *a = NULL;
			qg_uuid id[16];
			if (qg_audit_open(path, key, &a) != QG_OK)
				_exit(1);
			qg_random(id, sizeof id);
			for (;;usleep(200))
				write_event(a, QG_AUDIT_ISSUED, "sae-alice", id, 16);
		}
		usleep(150000 + 37000 * round);
		kill(pid, SIGKILL);
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		qg_audit *a = open_log();
		qg_audit_close(&a);
		size_t bad = 0, n;
		assert_int_equal(qg_audit_verify(path, key, &bad), QG_OK);
		char *text = slurp(&n);
		size_t now = count_lines(text);
		free(text);
		assert_true(now >= lines);
		lines = now;
	}
	assert_true(lines > 0);
}

/* --- the file ------------------------------------------------------------------ */

static void
loose_modes_and_odd_files_are_refused(void **state)
{
	(void)state;
	struct stat st;
	qg_audit *a = open_log();
	qg_audit_close(&a);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	static const mode_t loose[] = {0640, 0604, 0620, 0602, 0610, 0601};
	for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++) {
		assert_int_equal(chmod(path, loose[i]), 0);
		assert_int_equal(qg_audit_open(path, key, &a), QG_E_MODE);
	}
	unlink(path);
	assert_int_equal(mkfifo(path, 0600), 0);
	assert_int_equal(qg_audit_open(path, key, &a), QG_E_MODE);
	unlink(path);
	assert_int_equal(qg_audit_open(folder, key, &a), QG_E_IO);
	assert_int_equal(qg_audit_open("/nonexistent/audit.log", key, &a), QG_E_IO);
	size_t bad;
	assert_int_equal(qg_audit_verify("/nonexistent/audit.log", key, &bad), QG_E_IO);
	assert_null(a);
}

static void
one_writer_only(void **state)
{
	(void)state;
	qg_audit *a = open_log(), *b = NULL;
	assert_int_equal(qg_audit_open(path, key, &b), QG_E_EXISTS);
	assert_null(b);
	qg_audit_close(&a);
	a = open_log();
	qg_audit_close(&a);
}

#define THREADS 4
#define EVENTS 300

static void *
write_many(void *arg)
{
	qg_uuid id[7];
	qg_random(id, sizeof id);
	for (size_t i = 0; i < EVENTS; i++) {
		write_event(arg, i % 2 == 0 ? QG_AUDIT_ISSUED : QG_AUDIT_FETCHED, "sae-alice", id, i % 8);
		if (i % 100 == 0 && qg_audit_sync(arg) != QG_OK)
			abort();
	}
	return NULL;
}

static void
threads_write_at_once(void **state)
{
	(void)state;
	qg_audit *a = open_log();
	pthread_t t[THREADS];
	size_t lines = 0;
	for (size_t i = 0; i < EVENTS; i++)
		lines += THREADS * (i % 8 > 0 ? i % 8 : 1);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, write_many, a), 0);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(qg_audit_sync(a), QG_OK);
	assert_whole(lines);
	qg_audit_close(&a);
}

/* --- when the disk is full ------------------------------------------------------ */

static void
limit_files_to(rlim_t bytes)
{
	struct rlimit l;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &l), 0);
	l.rlim_cur = bytes < l.rlim_max ? bytes : l.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &l), 0);
}

static void *
write_beyond_the_queue(void *arg)
{
	static qg_uuid ids[1000];
	for (size_t i = 0; i < 70; i++) /* 70,000 lines */
		write_event(arg, QG_AUDIT_ISSUED, "sae-alice", ids, 1000);
	return NULL;
}

static void
a_full_disk_loses_nothing(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_ERROR, QG_LOG_TEXT);
	qg_audit *a = open_log();
	write_event(a, QG_AUDIT_ISSUED, "sae-alice", NULL, 0);
	assert_int_equal(qg_audit_sync(a), QG_OK);
	assert_true(qg_audit_healthy(a));
	limit_files_to(300); /* in the middle of the third line */
	write_event(a, QG_AUDIT_ISSUED, "sae-bob", NULL, 0);
	write_event(a, QG_AUDIT_ISSUED, "sae-carol", NULL, 0);
	assert_int_equal(qg_audit_sync(a), QG_E_IO);
	assert_false(qg_audit_healthy(a));

	pthread_t t;
	assert_int_equal(pthread_create(&t, NULL, write_beyond_the_queue, a), 0);
	struct timespec soon;
	clock_gettime(CLOCK_REALTIME, &soon);
	soon.tv_sec += 1;
	assert_int_equal(pthread_timedjoin_np(t, NULL, &soon), ETIMEDOUT); /* it waits for room */
	limit_files_to(RLIM_INFINITY);
	pthread_join(t, NULL);
	/* It is tried again within a second. */
	qg_err err = QG_E_IO;
	for (int i = 0; i < 100 && err != QG_OK; i++) {
		usleep(50000);
		err = qg_audit_sync(a);
	}
	assert_int_equal(err, QG_OK);
	assert_true(qg_audit_healthy(a));
	qg_audit_close(&a);
	assert_whole(3 + 70000);
}

static void
closing_on_a_full_disk_leaves_whole_lines(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_ERROR, QG_LOG_TEXT);
	qg_audit *a = open_log();
	write_event(a, QG_AUDIT_ISSUED, "sae-alice", NULL, 0);
	assert_int_equal(qg_audit_sync(a), QG_OK);
	limit_files_to(200);
	write_event(a, QG_AUDIT_ISSUED, "sae-bob", NULL, 0);
	qg_audit_close(&a);
	limit_files_to(RLIM_INFINITY);
	assert_whole(1);
	write_some(1);
	assert_whole(3);
}

#define FRESH(f) cmocka_unit_test_setup(f, fresh)

/* Only one that the caller chose: what was made here would end every run. */
static void
the_request_stands_where_its_caller_gave_it(void **state)
{
	(void)state;
	qg_audit *a = open_log();
	qg_request_id given, made;
	size_t n;
	qg_request_id_take(&given, "order-66");
	qg_request_id_make(&made);
	write_event(a, QG_AUDIT_ISSUED, "sae-1", NULL, 0);
	(void)qg_request_id_enter(&given);
	write_event(a, QG_AUDIT_ISSUED, "sae-2", NULL, 0);
	(void)qg_request_id_enter(&made);
	write_event(a, QG_AUDIT_ISSUED, "sae-3", NULL, 0);
	(void)qg_request_id_enter(NULL);
	qg_audit_close(&a);
	assert_whole(3);
	char *text = slurp(&n);
	char *second = line_at(text, 2), *id = strstr(text, ",\"request\":\"order-66\",\"tag\":");
	assert_non_null(id);
	assert_true(id > second && id < line_at(text, 3));
	assert_null(strstr(id + strlen(",\"request"), "request"));
	id[strlen(",\"request\":\"order-6")] = '7';
	spill(text, n);
	free(text);
	assert_bad_at(key, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		FRESH(one_line_for_each_key),
		FRESH(hostile_strings_stay_in_their_member),
		FRESH(no_log_takes_and_drops),
		FRESH(the_file_follows_soon),
		FRESH(the_chain_goes_on_after_reopening),
		FRESH(the_chain_goes_on_after_a_long_run),
		FRESH(a_file_of_one_run),
		FRESH(another_key_fits_nothing),
		FRESH(a_changed_bit_is_found_in_its_line),
		FRESH(upper_case_is_a_change),
		FRESH(a_missing_line_is_found),
		FRESH(an_inserted_or_moved_line_is_found),
		FRESH(lines_of_another_log_are_found),
		FRESH(what_is_no_log_is_refused),
		FRESH(a_torn_line_is_cut_off_and_told),
		FRESH(more_than_a_torn_line_is_refused),
		FRESH(killed_while_writing),
		FRESH(loose_modes_and_odd_files_are_refused),
		FRESH(one_writer_only),
		FRESH(threads_write_at_once),
		FRESH(a_full_disk_loses_nothing),
		FRESH(closing_on_a_full_disk_leaves_whole_lines),
		FRESH(the_request_stands_where_its_caller_gave_it),
	};
	if (qg_secret_init() != QG_OK || mkdtemp(folder) == NULL)
		return 1;
	snprintf(path, sizeof path, "%s/audit.log", folder);
	snprintf(spare_path, sizeof spare_path, "%s/spare.log", folder);
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	int failed = cmocka_run_group_tests_name("audit", tests, NULL, NULL);
	(void)fresh(NULL);
	rmdir(folder);
	qg_secret_fini();
	return failed;
}
