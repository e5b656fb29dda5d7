/* SPDX-License-Identifier: Apache-2.0 */
/* An audit log in several files: going on in another, checking all as one, looking through them. */
#include "qkdgate/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qkdgate/log.h"
#include "qkdgate/secret.h"

static const unsigned char key[32] = "an audit key of thirty-two bytes";
static const unsigned char other_key[32] = "an audit key of thirty-two byteS";

static char folder[] = "/tmp/qkdgate-audits-XXXXXX";
static char path[64];

static qg_audit_paths
files(void)
{
	qg_audit_paths p;
	assert_int_equal(qg_audit_paths_find(path, &p), QG_OK);
	return p;
}

static int
fresh(void **state)
{
	(void)state;
	qg_audit_paths p = files();
	for (size_t i = 0; i < p.n; i++)
		unlink(p.path[i]);
	qg_audit_paths_free(&p);
	return 0;
}

static qg_audit *
open_log(void)
{
	qg_audit *a = NULL;
	assert_int_equal(qg_audit_open(path, key, &a), QG_OK);
	return a;
}

static void
put(qg_audit *a, qg_audit_act act, const char *caller, const char *peer, const qg_uuid *ids, size_t n)
{
	const qg_audit_event e = {.act = act, .caller = caller, .peer = peer, .reason = "", .ids = ids, .n_ids = n};
	qg_audit_write(a, &e);
}

/* n lines, each a run of its own. */
static void
put_some(qg_audit *a, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		char caller[32];
		snprintf(caller, sizeof caller, "sae-%zu", i);
		put(a, QG_AUDIT_ISSUED, caller, "sae-bob", NULL, 0);
	}
	assert_int_equal(qg_audit_sync(a), QG_OK);
}

static qg_err
verify(const qg_audit_end *known, qg_audit_report *r)
{
	qg_audit_paths p = files();
	const qg_err err = qg_audit_verify_files((const char *const *)p.path, p.n, key, known, r);
	qg_audit_paths_free(&p);
	return err;
}

static qg_audit_end
assert_whole(uint64_t lines)
{
	qg_audit_report r;
	const qg_err err = verify(NULL, &r);
	if (err != QG_OK)
		fail_msg("file %zu line %zu: %s", r.bad_file, r.bad_line, r.what);
	assert_int_equal(r.first, 1);
	assert_int_equal(r.lines, lines);
	assert_int_equal(r.end.seq, lines);
	return r.end;
}

/* Three files of 10, 11 and 11 lines. */
static void
make_three(void)
{
	qg_audit *a = open_log();
	for (int i = 0; i < 3; i++) {
		if (i > 0)
			assert_int_equal(qg_audit_rotate(a), QG_OK);
		put_some(a, 10);
	}
	qg_audit_close(&a);
}

/* --- files as lists of lines ------------------------------------------------------ */

typedef struct text {
	char *line[64];
	size_t n;
} text;

static text
slurp(const char *file)
{
	text t = {.n = 0};
	size_t room = 0;
	FILE *f = fopen(file, "r");
	assert_non_null(f);
	while (t.n < 64 && getline(&t.line[t.n], &room, f) > 0) {
		t.n++;
		room = 0;
	}
	free(t.line[t.n]);
	fclose(f);
	return t;
}

static void
spill(const char *file, text *t)
{
	FILE *f = fopen(file, "w");
	assert_non_null(f);
	for (size_t i = 0; i < t->n; i++) {
		fputs(t->line[i], f);
		free(t->line[i]);
	}
	assert_int_equal(fclose(f), 0);
}

/* --- tampering ----------------------------------------------------------------------- */

static void
change(text *t, size_t i)
{
	char *at = strstr(t->line[i], "sae-bob");
	assert_non_null(at != NULL ? at : strstr(t->line[i], "follows"));
	(at != NULL ? at : strstr(t->line[i], "follows"))[1] ^= 1;
}

static void
cut(text *t, size_t i)
{
	free(t->line[i]);
	memmove(&t->line[i], &t->line[i + 1], (--t->n - i) * sizeof t->line[0]);
}

static void
twice(text *t, size_t i)
{
	memmove(&t->line[i + 1], &t->line[i], (t->n++ - i) * sizeof t->line[0]);
	t->line[i] = strdup(t->line[i + 1]);
}

static void
swap(text *t, size_t i)
{
	char *one = t->line[i];
	t->line[i] = t->line[i + 1];
	t->line[i + 1] = one;
}

static void
tear(text *t, size_t i)
{
	t->line[i][strlen(t->line[i]) / 2] = '\0';
}

static void
garbage(text *t, size_t i)
{
	free(t->line[i]);
	t->line[i] = strdup("nothing of ours\n");
}

static void
retag(text *t, size_t i)
{
	char *tag = strstr(t->line[i], "\"tag\":\"") + 7;
	*tag = *tag == '0' ? '1' : '0';
}

static const struct tampering {
	const char *name;
	void (*how)(text *t, size_t i);
	size_t after; /* the line that is found stands so many after the one given */
	const char *what;
} tamperings[] = {
	{"change", change, 0, "was changed"},	 {"cut", cut, 0, "is missing here"},
	{"duplicate", twice, 1, "stands here again"}, {"reorder", swap, 0, "is missing here"},
	{"tear", tear, 0, ""},	 {"garbage", garbage, 0, "no line"},
	{"tag", retag, 0, "was changed"},
};

static void
every_tampering_is_found_at_its_line(void **state)
{
	(void)state;
	for (size_t k = 0; k < sizeof tamperings / sizeof tamperings[0]; k++)
		for (size_t of = 0; of < 3; of++)
			for (size_t i = of == 0 ? 0 : 1; i < 9; i += 4) {
				const struct tampering *how = &tamperings[k];
				qg_audit_report r;
				(void)fresh(NULL);
				make_three();
				qg_audit_paths p = files();
				text t = slurp(p.path[of]);
				how->how(&t, i);
				spill(p.path[of], &t);
				qg_audit_paths_free(&p);
				assert_int_equal(verify(NULL, &r), QG_E_CORRUPT);
				if (r.bad_line != i + 1 + how->after || strstr(r.what, how->what) == NULL)
					fail_msg("%s of line %zu of file %zu: line %zu: %s", how->name, i + 1, of,
						 r.bad_line, r.what);
			}
}

/* The first line of a later file, which says what it follows. */
static void
the_seam_cannot_be_changed(void **state)
{
	(void)state;
	for (size_t k = 0; k < sizeof tamperings / sizeof tamperings[0]; k++) {
		qg_audit_report r;
		(void)fresh(NULL);
		make_three();
		qg_audit_paths p = files();
		text t = slurp(p.path[1]);
		tamperings[k].how(&t, 0);
		spill(p.path[1], &t);
		const char *one = p.path[1];
		if (qg_audit_verify_files((const char *const *)p.path, p.n, key, NULL, &r) != QG_E_CORRUPT ||
		    qg_audit_verify_files(&one, 1, key, NULL, &r) != QG_E_CORRUPT)
			fail_msg("%s of the first line was not found", tamperings[k].name);
		qg_audit_paths_free(&p);
	}
}

static void
a_missing_file_is_found(void **state)
{
	(void)state;
	qg_audit_report r;
	make_three();
	qg_audit_paths p = files();
	assert_int_equal(p.n, 3);
	const char *some[] = {p.path[2], p.path[0]};
	assert_int_equal(qg_audit_verify_files(some, 2, key, NULL, &r), QG_E_CORRUPT);
	assert_int_equal(r.bad_file, 0);
	assert_int_equal(r.bad_line, 1);
	assert_string_equal(r.what, "lines 11 to 21 of the log are missing here");
	/* The oldest ones may have been put away: then it begins later, and says so. */
	const char *later[] = {p.path[2], p.path[1]};
	assert_int_equal(qg_audit_verify_files(later, 2, key, NULL, &r), QG_OK);
	assert_int_equal(r.first, 11);
	assert_int_equal(r.lines, 22);
	/* One given twice is no log. */
	const char *again[] = {p.path[0], p.path[1], p.path[1]};
	assert_int_equal(qg_audit_verify_files(again, 3, key, NULL, &r), QG_E_CORRUPT);
	assert_int_equal(r.bad_line, 1);
	qg_audit_paths_free(&p);
}

/* Whole lines taken from the end leave a good chain: who knows its end sees it. */
static void
a_cut_end_is_found_by_who_knows_it(void **state)
{
	(void)state;
	qg_audit_report r;
	make_three();
	const qg_audit_end end = assert_whole(32);
	text t = slurp(path);
	for (int i = 0; i < 3; i++)
		cut(&t, t.n - 1);
	spill(path, &t);
	assert_int_equal(verify(NULL, &r), QG_OK);
	assert_int_equal(verify(&end, &r), QG_E_CORRUPT);
	assert_int_equal(r.bad_line, 9);
	assert_string_equal(r.what, "the end was cut off: lines 30 to 32 are missing");
	/* Lines that were written anew since do not hide it. */
	qg_audit *a = open_log();
	put_some(a, 5);
	qg_audit_close(&a);
	assert_int_equal(verify(NULL, &r), QG_OK);
	assert_int_equal(verify(&end, &r), QG_E_CORRUPT);
	assert_int_equal(r.bad_line, 11);
	assert_non_null(strstr(r.what, "written anew"));
}

static void
another_key_is_named(void **state)
{
	(void)state;
	qg_audit_report r;
	make_three();
	qg_audit_paths p = files();
	for (size_t i = 0; i < p.n; i++) {
		const char *one = p.path[i];
		assert_int_equal(qg_audit_verify_files(&one, 1, other_key, NULL, &r), QG_E_CORRUPT);
		assert_int_equal(r.bad_line, 1);
		assert_non_null(strstr(r.what, "or the key is not"));
		assert_int_equal(qg_audit_verify_files(&one, 1, key, NULL, &r), QG_OK);
	}
	const char *none = "/nonexistent/audit.log";
	assert_int_equal(qg_audit_verify_files(&none, 1, key, NULL, &r), QG_E_IO);
	qg_audit_paths_free(&p);
}

/* --- going on in another file --------------------------------------------------------- */

static void
the_files_are_named_by_their_last_line(void **state)
{
	(void)state;
	char name[96];
	make_three();
	qg_audit_paths p = files();
	assert_int_equal(p.n, 3);
	snprintf(name, sizeof name, "%s.000000000010", path);
	assert_string_equal(p.path[0], name);
	snprintf(name, sizeof name, "%s.000000000021", path);
	assert_string_equal(p.path[1], name);
	assert_string_equal(p.path[2], path);
	for (size_t i = 0; i < p.n; i++) {
		struct stat st;
		assert_int_equal(stat(p.path[i], &st), 0);
		assert_int_equal(st.st_mode & 0777, 0600);
	}
	qg_audit_paths_free(&p);
	assert_whole(32);
	qg_audit *a = open_log();
	put_some(a, 1);
	qg_audit_close(&a);
	assert_whole(33);
}

static void
what_is_synced_is_known(void **state)
{
	(void)state;
	qg_audit_end end;
	qg_audit *a = open_log();
	qg_audit_synced(a, &end);
	assert_int_equal(end.seq, 0);
	put_some(a, 3);
	qg_audit_synced(a, &end);
	assert_int_equal(end.seq, 3);
	assert_int_equal(qg_audit_rotate(a), QG_OK);
	qg_audit_synced(a, &end);
	qg_audit_close(&a);
	const qg_audit_end whole = assert_whole(4);
	assert_memory_equal(&whole, &end, sizeof end);
	a = open_log();
	qg_audit_synced(a, &end);
	assert_memory_equal(&whole, &end, sizeof end);
	qg_audit_close(&a);
}

#define THREADS 3
#define EVENTS 2000

static void *
write_many(void *arg)
{
	qg_uuid id[5];
	qg_random(id, sizeof id);
	for (size_t i = 0; i < EVENTS; i++)
		put(arg, QG_AUDIT_FETCHED, "sae-alice", "sae-bob", id, i % 6);
	return NULL;
}

static void
nothing_is_lost_while_files_change(void **state)
{
	(void)state;
	pthread_t t[THREADS];
	uint64_t lines = 1;
	qg_audit *a = open_log();
	assert_int_equal(qg_audit_rotate(a), QG_OK); /* there is nothing yet: nothing to do */
	put_some(a, 1);
	qg_audit_rotate_at(a, 200000);
	for (size_t i = 0; i < EVENTS; i++)
		lines += THREADS * (i % 6 > 0 ? i % 6 : 1);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, write_many, a), 0);
	for (size_t i = 0; i < 5; i++)
		assert_int_equal(qg_audit_rotate(a), QG_OK);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(qg_audit_sync(a), QG_OK);
	qg_audit_close(&a);
	qg_audit_paths p = files();
	assert_true(p.n >= 6);
	assert_whole(lines + p.n - 1);
	qg_audit_paths_free(&p);
}

static void
killed_while_files_change(void **state)
{
	(void)state;
	size_t n = 0;
	for (unsigned round = 0; round < 8; round++) {
		int up[2];
		char byte;
		assert_int_equal(pipe(up), 0);
		const pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			qg_audit *a = NULL;
			qg_uuid id[16];
			if (qg_audit_open(path, key, &a) != QG_OK)
				_exit(1);
			qg_audit_rotate_at(a, 4000);
			qg_random(id, sizeof id);
			for (unsigned i = 0;; i++) {
				put(a, QG_AUDIT_ISSUED, "sae-alice", "sae-bob", id, 16);
				if (qg_audit_sync(a) != QG_OK)
					_exit(2);
				if (i == 5 && write(up[1], "x", 1) != 1)
					_exit(3);
			}
		}
		assert_int_equal(read(up[0], &byte, 1), 1); /* it has changed files */
		usleep(1000 + 700 * round);
		kill(pid, SIGKILL);
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		close(up[0]);
		close(up[1]);
		qg_audit *a = open_log();
		qg_audit_close(&a);
		qg_audit_report r;
		if (verify(NULL, &r) != QG_OK)
			fail_msg("file %zu line %zu: %s", r.bad_file, r.bad_line, r.what);
		assert_int_equal(r.first, 1);
		qg_audit_paths p = files();
		assert_true(p.n > n);
		n = p.n;
		qg_audit_paths_free(&p);
	}
}

/* As after a crash between the two names. */
static void
a_missing_or_empty_file_follows_the_last(void **state)
{
	(void)state;
	char aside[96];
	for (int empty = 0; empty < 2; empty++) {
		(void)fresh(NULL);
		qg_audit *a = open_log();
		put_some(a, 7);
		qg_audit_close(&a);
		snprintf(aside, sizeof aside, "%s.000000000007", path);
		assert_int_equal(rename(path, aside), 0);
		if (empty)
			close(open(path, O_CREAT | O_WRONLY, 0600));
		a = open_log();
		put_some(a, 2);
		qg_audit_close(&a);
		assert_whole(10);
	}
}

static void
someone_else_may_move_the_file_away(void **state)
{
	(void)state;
	char away[96];
	qg_audit_report r;
	snprintf(away, sizeof away, "%s/away.log", folder);
	qg_audit *a = open_log();
	put_some(a, 4);
	assert_int_equal(rename(path, away), 0);
	put_some(a, 1);
	assert_int_equal(qg_audit_rotate(a), QG_OK);
	put_some(a, 2);
	qg_audit_close(&a);
	const char *both[] = {path, away};
	assert_int_equal(qg_audit_verify_files(both, 2, key, NULL, &r), QG_OK);
	assert_int_equal(r.lines, 8);
	unlink(away);
}

static void
what_cannot_be_changed_stays(void **state)
{
	(void)state;
	char name[96];
	qg_log_init(QG_LOG_ERROR, QG_LOG_TEXT);
	qg_audit *a = open_log();
	put_some(a, 3);
	snprintf(name, sizeof name, "%s.new", path);
	assert_int_equal(mkdir(name, 0700), 0);
	assert_int_equal(qg_audit_rotate(a), QG_E_IO);
	rmdir(name);
	snprintf(name, sizeof name, "%s.000000000003", path);
	close(open(name, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(qg_audit_rotate(a), QG_E_IO); /* no file is written over */
	unlink(name);
	put_some(a, 1);
	assert_true(qg_audit_healthy(a));
	qg_audit_close(&a);
	assert_whole(4);
}

/* --- looking ------------------------------------------------------------------------------ */

typedef struct seen {
	char *line[512];
	size_t n;
} seen;

static void
see(const char *line, size_t len, void *ctx)
{
	seen *s = ctx;
	assert_true(s->n < 512);
	s->line[s->n++] = strndup(line, len);
}

static size_t
find(qg_audit_filter f, seen *s, bool *all)
{
	qg_audit_paths p = files();
	s->n = 0;
	assert_int_equal(qg_audit_find((const char *const *)p.path, p.n, &f, see, s, all), QG_OK);
	qg_audit_paths_free(&p);
	return s->n;
}

static void
forget(seen *s)
{
	while (s->n > 0)
		free(s->line[--s->n]);
}

static void
lines_are_found_from_the_end(void **state)
{
	(void)state;
	seen s;
	bool all;
	qg_uuid id;
	char hex[QG_UUID_TEXT];
	make_three();
	qg_audit *a = open_log();
	qg_uuid_random(&id);
	put(a, QG_AUDIT_REFUSED, "sae-\"eve\\", "sae-bob", &id, 1);
	put(a, QG_AUDIT_ADMIN, "uid:0", "\"caller\":\"sae-1\"", NULL, 0);
	qg_audit_close(&a);

	assert_int_equal(find((qg_audit_filter){.most = 500}, &s, &all), 34);
	assert_true(all);
	assert_non_null(strstr(s.line[0], "{\"seq\":1,"));
	assert_non_null(strstr(s.line[33], "{\"seq\":34,"));
	forget(&s);
	assert_int_equal(find((qg_audit_filter){.most = 14}, &s, &all), 14);
	assert_false(all);
	assert_non_null(strstr(s.line[0], "{\"seq\":21,"));
	forget(&s);
	assert_int_equal(find((qg_audit_filter){.most = 500, .who = "sae-1"}, &s, &all), 3); /* not what only says so */
	forget(&s);
	assert_int_equal(find((qg_audit_filter){.most = 500, .act = "rotated"}, &s, &all), 2);
	forget(&s);
	assert_int_equal(find((qg_audit_filter){.most = 500, .who = "sae-\"eve\\"}, &s, &all), 1);
	forget(&s);
	qg_uuid_format(&id, hex);
	assert_int_equal(find((qg_audit_filter){.most = 500, .id = hex, .act = "refused"}, &s, &all), 1);
	forget(&s);
	assert_int_equal(find((qg_audit_filter){.most = 500, .since = "2001"}, &s, &all), 34);
	forget(&s);
	assert_int_equal(find((qg_audit_filter){.most = 500, .since = "9"}, &s, &all), 0);
	assert_int_equal(find((qg_audit_filter){.most = 0}, &s, &all), 0);
}

/* More than one block of the reader, with lines over its borders. */
static void
long_files_are_looked_through(void **state)
{
	(void)state;
	static qg_uuid ids[4000];
	seen s;
	bool all;
	qg_audit *a = open_log();
	put(a, QG_AUDIT_START, "KME-A", "", NULL, 0);
	put(a, QG_AUDIT_ISSUED, "sae-alice", "sae-bob", ids, 4000);
	put(a, QG_AUDIT_STOP, "KME-A", "", NULL, 0);
	qg_audit_close(&a);
	assert_int_equal(find((qg_audit_filter){.most = 500, .who = "KME-A"}, &s, &all), 2);
	assert_true(all);
	assert_non_null(strstr(s.line[0], "{\"seq\":1,"));
	assert_non_null(strstr(s.line[1], "{\"seq\":4002,"));
	forget(&s);
}

#define FRESH(f) cmocka_unit_test_setup(f, fresh)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		FRESH(every_tampering_is_found_at_its_line),
		FRESH(the_seam_cannot_be_changed),
		FRESH(a_missing_file_is_found),
		FRESH(a_cut_end_is_found_by_who_knows_it),
		FRESH(another_key_is_named),
		FRESH(the_files_are_named_by_their_last_line),
		FRESH(what_is_synced_is_known),
		FRESH(nothing_is_lost_while_files_change),
		FRESH(killed_while_files_change),
		FRESH(a_missing_or_empty_file_follows_the_last),
		FRESH(someone_else_may_move_the_file_away),
		FRESH(what_cannot_be_changed_stays),
		FRESH(lines_are_found_from_the_end),
		FRESH(long_files_are_looked_through),
	};
	if (qg_secret_init() != QG_OK || mkdtemp(folder) == NULL)
		return 1;
	snprintf(path, sizeof path, "%s/audit.log", folder);
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	const int failed = cmocka_run_group_tests_name("audit_files", tests, NULL, NULL);
	(void)fresh(NULL);
	rmdir(folder);
	qg_secret_fini();
	return failed;
}
