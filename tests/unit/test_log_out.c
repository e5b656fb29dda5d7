/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate/request_id.h"

static char folder[] = "/tmp/qg-log-XXXXXX";
static int real_stderr;
static FILE *sink;

static const char *
in_folder(const char *name)
{
	static char path[2][128];
	static unsigned next;
	char *p = path[next++ % 2];
	(void)snprintf(p, sizeof path[0], "%s/%s", folder, name);
	return p;
}

static const char *
contents_of(int fd)
{
	static char buf[1 << 16];
	const ssize_t n = pread(fd, buf, sizeof buf - 1, 0);
	assert_true(n >= 0);
	buf[n] = '\0';
	return buf;
}

static const char *
contents(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return "";
	const char *text = contents_of(fd);
	close(fd);
	return text;
}

static size_t
count(const char *text, const char *what)
{
	size_t n = 0;
	for (const char *p = text; (p = strstr(p, what)) != NULL; p += strlen(what))
		n++;
	return n;
}

static int
begin(void **state)
{
	(void)state;
	sink = tmpfile();
	real_stderr = dup(STDERR_FILENO);
	qg_log_init(QG_LOG_INFO, QG_LOG_TEXT);
	return sink == NULL || dup2(fileno(sink), STDERR_FILENO) < 0;
}

static int
end(void **state)
{
	(void)state;
	qg_log_open(QG_LOG_STDERR, NULL);
	const int rc = dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	fclose(sink);
	return rc < 0;
}

/* --- a file ----------------------------------------------------------------------- */

static void
a_file_is_appended_to(void **state)
{
	(void)state;
	struct stat st;
	const char *path = in_folder("plain.log");
	qg_log_open(QG_LOG_FILE, path);
	qg_log(QG_LOG_INFO, "m", "event=one");
	qg_log_open(QG_LOG_FILE, path);
	qg_log(QG_LOG_INFO, "m", "event=two");
	assert_int_equal(count(contents(path), "\n"), 2);
	assert_non_null(strstr(contents(path), "info m event=one\n"));
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777 & ~0640u, 0);
	assert_string_equal(contents_of(fileno(sink)), "");
	assert_true(qg_log_get_state().works);
}

static void
a_file_that_was_moved_is_made_anew(void **state)
{
	(void)state;
	char old[128];
	const char *path = in_folder("moved.log");
	(void)snprintf(old, sizeof old, "%s.1", path);
	qg_log_open(QG_LOG_FILE, path);
	qg_log(QG_LOG_INFO, "m", "event=before");
	assert_int_equal(rename(path, old), 0);
	qg_log(QG_LOG_INFO, "m", "event=between");
	assert_int_equal(qg_log_reopen(), QG_OK);
	qg_log(QG_LOG_INFO, "m", "event=after");
	assert_non_null(strstr(contents(old), "event=between\n"));
	assert_null(strstr(contents(old), "event=after"));
	assert_non_null(strstr(contents(path), "event=after\n"));
	assert_int_equal(count(contents(path), "\n"), 1);
}

/* The file that is open is better than none. */
static void
what_cannot_be_reopened_stays(void **state)
{
	(void)state;
	char old[128];
	const char *path = in_folder("stays.log");
	(void)snprintf(old, sizeof old, "%s.1", path);
	qg_log_open(QG_LOG_FILE, path);
	assert_int_equal(rename(path, old), 0);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(qg_log_reopen(), QG_E_IO);
	qg_log(QG_LOG_INFO, "m", "event=still");
	assert_non_null(strstr(contents(old), "event=still\n"));
	assert_true(qg_log_get_state().works);
	assert_int_equal(rmdir(path), 0);
}

/* Neither a folder nor a pipe, which would wait for a reader. */
static void
what_is_no_file_is_told_once(void **state)
{
	(void)state;
	const char *path = in_folder("fifo");
	const uint64_t before = qg_log_get_state().lost;
	assert_int_equal(mkfifo(path, 0600), 0);
	qg_log_open(QG_LOG_FILE, path);
	for (int i = 0; i < 50; i++)
		qg_log(QG_LOG_INFO, "m", "event=lost n=%d", i);
	assert_false(qg_log_get_state().works);
	assert_int_equal(qg_log_get_state().lost - before, 50);
	assert_int_equal(count(contents_of(fileno(sink)), "\n"), 1);
	assert_non_null(strstr(contents_of(fileno(sink)), "error log event=log_failed to=file path="));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(qg_log_reopen(), QG_OK);
	qg_log(QG_LOG_INFO, "m", "event=here");
	assert_non_null(strstr(contents(path), "event=here\n"));
	assert_non_null(strstr(contents(path), "warn log event=log_recovered lost=50\n"));
	assert_int_equal(count(contents_of(fileno(sink)), "\n"), 1);
}

/* As a full disk does, a limit on the size lets a part of a line in. */
static void
a_full_disk_leaves_whole_lines(void **state)
{
	(void)state;
	struct rlimit old, small;
	const char *path = in_folder("full.log");
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 1000;
	qg_log_init(QG_LOG_INFO, QG_LOG_JSON);
	qg_log_open(QG_LOG_FILE, path);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	for (int i = 0; i < 100; i++)
		qg_log(QG_LOG_INFO, "m", "event=line n=%d", i);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_false(qg_log_get_state().works);
	qg_log(QG_LOG_INFO, "m", "event=room");
	assert_true(qg_log_get_state().works);
	char *all = strdup(contents(path)), *at = all;
	size_t n = 0;
	assert_non_null(all);
	for (char *line; (line = strsep(&at, "\n")) != NULL && *line != '\0'; n++) {
		json_error_t why;
		json_t *o = json_loads(line, JSON_REJECT_DUPLICATES, &why);
		if (o == NULL)
			fail_msg("%s: %s", why.text, line);
		json_decref(o);
	}
	free(all);
	assert_true(n >= 3 && n < 100);
	assert_non_null(strstr(contents(path), "\"event\":\"log_recovered\""));
}

/* --- standard error ------------------------------------------------------------------ */

/* Whoever reads it may stand still for good: the first line waits for a moment,
 * the others not at all. */
static void
a_reader_that_stands_still_holds_up_nobody(void **state)
{
	(void)state;
	int ends[2];
	char buf[4096];
	const uint64_t before = qg_log_get_state().lost;
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	assert_true(dup2(ends[1], STDERR_FILENO) >= 0);
	qg_log_open(QG_LOG_STDERR, NULL);
	for (int i = 0; i < 20000; i++)
		qg_log(QG_LOG_INFO, "m", "event=flood n=%d", i);
	const uint64_t lost = qg_log_get_state().lost - before;
	assert_true(lost > 0 && lost < 20000);
	assert_false(qg_log_get_state().works);
	assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
	while (read(ends[0], buf, sizeof buf) > 0)
		;
	qg_log(QG_LOG_INFO, "m", "event=again");
	assert_true(qg_log_get_state().works);
	ssize_t n = read(ends[0], buf, sizeof buf - 1);
	assert_true(n > 0);
	buf[n] = '\0';
	assert_non_null(strstr(buf, "event=again\n"));
	assert_non_null(strstr(buf, "event=log_recovered lost="));
	close(ends[0]);
	close(ends[1]);
	assert_true(dup2(fileno(sink), STDERR_FILENO) >= 0);
}

/* --- the journal ---------------------------------------------------------------------- */

static int
listen_as_journal(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	const int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	strncpy(a.sun_path, path, sizeof a.sun_path - 1);
	(void)unlink(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

static const char *
next_entry(int fd)
{
	static char buf[8192];
	const ssize_t n = recv(fd, buf, sizeof buf - 1, 0);
	buf[n > 0 ? n : 0] = '\0';
	return buf;
}

static void
the_journal_gets_fields(void **state)
{
	(void)state;
	const char *path = in_folder("journal");
	qg_request_id id;
	const int fd = listen_as_journal(path);
	qg_log_init(QG_LOG_INFO, QG_LOG_JSON);
	qg_log_open(QG_LOG_JOURNAL, path);
	qg_log(QG_LOG_WARN, "stream", "event=held n=%d", 3);
	assert_string_equal(next_entry(fd), "SYSLOG_IDENTIFIER=qkdgate\nPRIORITY=4\nQKDGATE_MODULE=stream\n"
					    "QKDGATE_EVENT=held\nMESSAGE=stream event=held n=3\n");
	qg_request_id_take(&id, "r-1");
	(void)qg_request_id_enter(&id);
	qg_log(QG_LOG_ERROR, "kms", "event=x why=%s", "a\nMESSAGE=forged\nPRIORITY=7");
	(void)qg_request_id_enter(NULL);
	assert_string_equal(next_entry(fd), "SYSLOG_IDENTIFIER=qkdgate\nPRIORITY=3\nQKDGATE_MODULE=kms\n"
					    "QKDGATE_EVENT=x\nQKDGATE_REQUEST=r-1\n"
					    "MESSAGE=kms event=x why=a?MESSAGE=forged?PRIORITY=7 request=r-1\n");
	qg_log(QG_LOG_INFO, "m", "no pairs");
	assert_non_null(strstr(next_entry(fd), "QKDGATE_EVENT=\nMESSAGE=m no pairs\n"));
	close(fd);
}

static void
a_journal_that_was_restarted_is_found_again(void **state)
{
	(void)state;
	const char *path = in_folder("journal2");
	int fd = listen_as_journal(path);
	qg_log_open(QG_LOG_JOURNAL, path);
	close(fd);
	fd = listen_as_journal(path);
	qg_log(QG_LOG_INFO, "m", "event=after");
	assert_non_null(strstr(next_entry(fd), "QKDGATE_EVENT=after\n"));
	close(fd);
	assert_int_equal(unlink(path), 0);
	const uint64_t before = qg_log_get_state().lost;
	for (int i = 0; i < 10; i++)
		qg_log(QG_LOG_INFO, "m", "event=gone");
	assert_int_equal(qg_log_get_state().lost - before, 10);
	assert_int_equal(count(contents_of(fileno(sink)), "event=log_failed to=journal"), 1);
}

/* Its queue is full and nobody reads. */
static void
a_journal_that_stands_still_holds_up_nobody(void **state)
{
	(void)state;
	const char *path = in_folder("journal3");
	const int fd = listen_as_journal(path);
	const uint64_t before = qg_log_get_state().lost;
	qg_log_open(QG_LOG_JOURNAL, path);
	for (int i = 0; i < 5000; i++)
		qg_log(QG_LOG_INFO, "m", "event=flood n=%d", i);
	assert_true(qg_log_get_state().lost > before);
	while (next_entry(fd)[0] != '\0')
		;
	qg_log(QG_LOG_INFO, "m", "event=again");
	assert_non_null(strstr(next_entry(fd), "QKDGATE_EVENT=again\n"));
	assert_non_null(strstr(next_entry(fd), "QKDGATE_EVENT=log_recovered\n"));
	close(fd);
}

/* --- requests ---------------------------------------------------------------------------- */

static void
lines_bear_the_request(void **state)
{
	(void)state;
	qg_request_id id;
	qg_request_id_take(&id, "7c9e6679-7425");
	(void)qg_request_id_enter(&id);
	qg_log(QG_LOG_INFO, "m", "event=x n=1");
	qg_log_init(QG_LOG_INFO, QG_LOG_JSON);
	qg_log(QG_LOG_INFO, "m", "event=x n=1");
	(void)qg_request_id_enter(NULL);
	qg_log(QG_LOG_INFO, "m", "event=none");
	const char *said = contents_of(fileno(sink));
	assert_non_null(strstr(said, "info m event=x n=1 request=7c9e6679-7425\n"));
	assert_non_null(strstr(said, "\"event\":\"x\",\"n\":\"1\",\"request\":\"7c9e6679-7425\"}\n"));
	assert_non_null(strstr(said, "\"event\":\"none\"}\n"));
}

/* Whatever text reaches a line, and however much of it has to be escaped. */
static void
json_always_parses(void **state)
{
	(void)state;
	static const char *const filling[] = {"\"", "\\", "a=", "a= ", "a=\"\" b ", "\" \"", "\n", "x", " ", "=", "\"=\\"};
	char text[2000];
	qg_request_id id;
	memset(id.text, 'r', QG_REQUEST_ID_MAX);
	id.text[QG_REQUEST_ID_MAX] = '\0';
	(void)qg_request_id_enter(&id);
	qg_log_init(QG_LOG_INFO, QG_LOG_JSON);
	for (size_t i = 0; i < sizeof filling / sizeof filling[0]; i++) {
		text[0] = '\0';
		while (strlen(text) + strlen(filling[i]) + 1 < sizeof text)
			(void)strcat(text, filling[i]);
		assert_int_equal(ftruncate(fileno(sink), 0), 0);
		assert_int_equal(lseek(fileno(sink), 0, SEEK_SET), 0);
		qg_log(QG_LOG_INFO, "m", "event=x %s", text);
		const char *line = contents_of(fileno(sink));
		json_error_t why;
		json_t *o = json_loads(line, 0, &why);
		if (o == NULL)
			fail_msg("[%s] %s: %s", filling[i], why.text, line);
		assert_string_equal(json_string_value(json_object_get(o, "request")), id.text);
		assert_int_equal(json_string_value(json_object_get(o, "event"))[0], 'x');
		assert_int_equal(count(line, "\n"), 1);
		json_decref(o);
	}
	(void)qg_request_id_enter(NULL);
}

static int
make_folder(void **state)
{
	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	return mkdtemp(folder) == NULL;
}

static int
remove_folder(void **state)
{
	(void)state;
	static const char *const names[] = {"plain.log", "moved.log", "moved.log.1", "stays.log.1", "fifo", "full.log",
					    "journal", "journal2", "journal3"};
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
		(void)unlink(in_folder(names[i]));
	return rmdir(folder);
}

#define T(f) cmocka_unit_test_setup_teardown(f, begin, end)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_file_is_appended_to),
		T(a_file_that_was_moved_is_made_anew),
		T(what_cannot_be_reopened_stays),
		T(what_is_no_file_is_told_once),
		T(a_full_disk_leaves_whole_lines),
		T(a_reader_that_stands_still_holds_up_nobody),
		T(the_journal_gets_fields),
		T(a_journal_that_was_restarted_is_found_again),
		T(a_journal_that_stands_still_holds_up_nobody),
		T(lines_bear_the_request),
		T(json_always_parses),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests_name("log_out", tests, make_folder, remove_folder);
}
