/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/log.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qkdgate/clock.h"

static uint64_t
no_time(void)
{
	return 0;
}

static int64_t
fixed_wall(void)
{
	return 1767225600123; /* 2026-01-01T00:00:00.123Z */
}

static const qg_clock_ops fixed = {.elapsed_ms = no_time, .wall_ms = fixed_wall};

static int real_stderr;
static FILE *sink;

static int
catch_stderr(void **state)
{
	(void)state;
	sink = tmpfile();
	real_stderr = dup(STDERR_FILENO);
	return sink == NULL || dup2(fileno(sink), STDERR_FILENO) < 0;
}

static int
give_back_stderr(void **state)
{
	(void)state;
	int rc = dup2(real_stderr, STDERR_FILENO);
	close(real_stderr);
	fclose(sink);
	return rc < 0;
}

/* What was logged since the last call. */
static const char *
logged(void)
{
	static char buf[1 << 20];
	ssize_t n = pread(fileno(sink), buf, sizeof buf - 1, 0);
	assert_true(n >= 0);
	buf[n] = '\0';
	assert_int_equal(ftruncate(fileno(sink), 0), 0);
	assert_int_equal(lseek(fileno(sink), 0, SEEK_SET), 0);
	return buf;
}

static void
text_line(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_INFO, QG_LOG_TEXT);
	errno = ENOSPC;
	qg_log(QG_LOG_WARN, "stream", "event=held n=%d", 3);
	assert_int_equal(errno, ENOSPC);
	assert_string_equal(logged(), "2026-01-01T00:00:00.123Z warn stream event=held n=3\n");
}

static void
level_is_kept(void **state)
{
	(void)state;
	for (int max = QG_LOG_ERROR; max <= QG_LOG_DEBUG; max++) {
		qg_log_init((qg_log_level)max, QG_LOG_TEXT);
		for (int level = QG_LOG_ERROR; level <= QG_LOG_DEBUG; level++) {
			qg_log((qg_log_level)level, "m", "event=x");
			assert_int_equal(logged()[0] != '\0', level <= max);
		}
	}
}

/* A value that slipped in unchecked can neither begin a line of its own nor
 * reach the terminal. */
static void
one_event_is_one_line(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_INFO, QG_LOG_TEXT);
	qg_log(QG_LOG_INFO, "m", "event=x text=%s", "a\nb\x1b[31m\r\xff\t");
	assert_string_equal(logged(), "2026-01-01T00:00:00.123Z info m event=x text=a?b?[31m???\n");
}

static void
long_line_is_cut(void **state)
{
	(void)state;
	static char text[5000];
	memset(text, '"', sizeof text - 1);
	for (int f = QG_LOG_TEXT; f <= QG_LOG_JSON; f++) {
		qg_log_init(QG_LOG_INFO, (qg_log_format)f);
		qg_log(QG_LOG_INFO, "m", "event=x text=%s", text);
		const char *line = logged();
		size_t n = strlen(line);
		assert_in_range(n, 1000, 3600);
		assert_ptr_equal(strchr(line, '\n'), line + n - 1);
		if (f == QG_LOG_TEXT)
			assert_non_null(strstr(line, "..."));
	}
}

static void
assert_member(json_t *o, const char *name, const char *value)
{
	const char *got = json_string_value(json_object_get(o, name));
	assert_non_null(got);
	assert_string_equal(got, value);
}

static void
json_line(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_INFO, QG_LOG_JSON);
	qg_log(QG_LOG_ERROR, "tls", "event=refused why=%s path=\"%s\" n=%d", "no such \\ \"thing\"", "/a b", 4);
	json_t *o = json_loads(logged(), 0, NULL);
	assert_non_null(o);
	assert_member(o, "time", "2026-01-01T00:00:00.123Z");
	assert_member(o, "level", "error");
	assert_member(o, "module", "tls");
	assert_member(o, "event", "refused");
	assert_member(o, "why", "no such \\ \"thing\"");
	assert_member(o, "path", "/a b");
	assert_member(o, "n", "4");
	assert_int_equal(json_object_size(o), 7);
	json_decref(o);
}

/* Text that has not the form of pairs still gives one valid object. */
static void
json_of_odd_text(void **state)
{
	(void)state;
	static const char *const odd[] = {"",	   " ",	       "=",	     "= =",	     "no pairs",     "\"",
					  "a=\"",  "a=\"x",    "a= b=",	     "a==b",	     "a=b\"c d=e\"", "a=\"b\"c d",
					  "\"a=b", "a=\\\" b=1", "event=x  y=1", "\x01\x7f=\x80", "a=b=c"};
	qg_log_init(QG_LOG_INFO, QG_LOG_JSON);
	for (size_t i = 0; i < sizeof odd / sizeof odd[0]; i++) {
		qg_log(QG_LOG_INFO, "m", "%s", odd[i]);
		const char *line = logged();
		json_error_t why;
		json_t *o = json_loads(line, JSON_REJECT_DUPLICATES * (i < 4), &why);
		if (o == NULL)
			fail_msg("[%s] %s: %s", odd[i], why.text, line);
		assert_member(o, "module", "m");
		json_decref(o);
	}
}

static void
safe_text(void **state)
{
	(void)state;
	assert_string_equal(qg_log_safe("sae-alice@x.y:1/!~"), "sae-alice@x.y:1/!~");
	assert_string_equal(qg_log_safe("a b\"c\\d\ne\x7f\x80"), "a?b?c?d?e??");
	assert_string_equal(qg_log_safe(""), "");
	assert_string_equal(qg_log_safe(NULL), "");
	char text[130];
	memset(text, 'x', 129);
	text[129] = '\0';
	assert_int_equal(strlen(qg_log_safe(text)), 128);
	text[128] = '\0';
	assert_int_equal(strlen(qg_log_safe(text)), 128);
}

static void
safe_has_eight_buffers(void **state)
{
	(void)state;
	const char *p[9];
	char text[2] = "a";
	for (size_t i = 0; i < 8; i++, text[0]++)
		p[i] = qg_log_safe(text);
	for (size_t i = 0; i < 8; i++)
		assert_int_equal(p[i][0], 'a' + (int)i);
	assert_ptr_equal(qg_log_safe("z"), p[0]);
}

#define THREADS 4
#define LINES 200

static void *
log_many(void *arg)
{
	for (int i = 0; i < LINES; i++)
		qg_log(QG_LOG_INFO, "t", "event=line of=%s i=%d", qg_log_safe(arg), i);
	return NULL;
}

static void
lines_of_threads_do_not_mix(void **state)
{
	(void)state;
	static char name[THREADS][2] = {"a", "b", "c", "d"};
	pthread_t t[THREADS];
	int next[THREADS] = {0};
	qg_log_init(QG_LOG_INFO, QG_LOG_TEXT);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, log_many, name[i]), 0);
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	const char *line = logged();
	for (int n = 0; n < THREADS * LINES; n++) {
		char of = 0;
		int i = -1, used = 0;
		sscanf(line, "2026-01-01T00:00:00.123Z info t event=line of=%c i=%d%n", &of, &i, &used);
		assert_true(used > 0 && line[used] == '\n' && of >= 'a' && of < 'a' + THREADS);
		assert_int_equal(i, next[of - 'a']++);
		line += used + 1;
	}
	assert_int_equal(*line, '\0');
}

#define WITH_SINK(f) cmocka_unit_test_setup_teardown(f, catch_stderr, give_back_stderr)

static void
note_level(const char *module, qg_log_level level, void *ctx)
{
	char *text = ctx;
	(void)snprintf(text + strlen(text), 256 - strlen(text), "%s=%s ", module, qg_log_level_name(level));
}

static void
modules_have_levels_of_their_own(void **state)
{
	(void)state;
	char text[256] = "";
	qg_log_init(QG_LOG_WARN, QG_LOG_TEXT);
	assert_int_equal(qg_log_set_level("kms", QG_LOG_DEBUG), QG_OK);
	assert_int_equal(qg_log_set_level("stream", QG_LOG_ERROR), QG_OK);
	qg_log(QG_LOG_DEBUG, "kms", "event=seen");
	qg_log(QG_LOG_WARN, "stream", "event=hidden");
	qg_log(QG_LOG_INFO, "other", "event=hidden");
	qg_log(QG_LOG_WARN, "other", "event=seen");
	const char *said = logged();
	assert_non_null(strstr(said, "debug kms event=seen"));
	assert_non_null(strstr(said, "warn other event=seen"));
	assert_null(strstr(said, "hidden"));
	qg_log_levels(note_level, text);
	assert_string_equal(text, "kms=debug stream=error ");
	qg_log_reset_level("kms");
	qg_log_reset_level("stream");
	qg_log_reset_level("never had one");
	assert_int_equal(qg_log_set_level(NULL, QG_LOG_INFO), QG_OK);
	assert_int_equal(qg_log_get_level(), QG_LOG_INFO);
	qg_log(QG_LOG_DEBUG, "kms", "event=hidden");
	qg_log(QG_LOG_INFO, "stream", "event=seen");
	said = logged();
	assert_null(strstr(said, "hidden"));
	assert_non_null(strstr(said, "event=seen"));
}

static void
levels_that_cannot_be_set(void **state)
{
	(void)state;
	char name[40];
	qg_log_level level = QG_LOG_DEBUG;
	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	assert_int_equal(qg_log_set_level(name, QG_LOG_INFO), QG_E_RANGE);
	assert_int_equal(qg_log_set_level("", QG_LOG_INFO), QG_E_RANGE);
	for (int i = 0; i < 32; i++) {
		(void)snprintf(name, sizeof name, "m%d", i);
		assert_int_equal(qg_log_set_level(name, QG_LOG_INFO), QG_OK);
	}
	assert_int_equal(qg_log_set_level("one more", QG_LOG_INFO), QG_E_FULL);
	assert_int_equal(qg_log_set_level("m31", QG_LOG_ERROR), QG_OK);
	for (int i = 0; i < 32; i++) {
		(void)snprintf(name, sizeof name, "m%d", i);
		qg_log_reset_level(name);
	}
	assert_int_equal(qg_log_level_of("loud", &level), QG_E_INVAL);
	assert_int_equal(level, QG_LOG_DEBUG);
	assert_int_equal(qg_log_level_of("warn", &level), QG_OK);
	assert_int_equal(level, QG_LOG_WARN);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_SINK(text_line),	     WITH_SINK(level_is_kept),	 WITH_SINK(one_event_is_one_line),
		WITH_SINK(long_line_is_cut), WITH_SINK(json_line),	 WITH_SINK(json_of_odd_text),
		cmocka_unit_test(safe_text), cmocka_unit_test(safe_has_eight_buffers),
		WITH_SINK(lines_of_threads_do_not_mix),
		WITH_SINK(modules_have_levels_of_their_own),
		cmocka_unit_test(levels_that_cannot_be_set),
	};
	qg_clock_use(&fixed);
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
