/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that rates refused, in the audit log. */
#include "qkdgate/audit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "qkdgate/clock.h"
#include "qkdgate/secret.h"

static const unsigned char key[32] = "an audit key of thirty-two bytes";
static char folder[] = "/tmp/qkdgate-limited-XXXXXX", path[64];
static qg_audit *a;
static uint64_t elapsed_ms;

static uint64_t
get_elapsed(void)
{
	return elapsed_ms;
}

static int64_t
get_wall(void)
{
	return 1700000000000 + (int64_t)elapsed_ms;
}

static const qg_clock_ops clock_ops = {.elapsed_ms = get_elapsed, .wall_ms = get_wall};

static int
setup(void **state)
{
	(void)state;
	elapsed_ms = 0; /* the machine has just begun */
	qg_clock_use(&clock_ops);
	return qg_audit_open(path, key, &a) == QG_OK ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	qg_audit_close(&a);
	return unlink(path);
}

static void
refused(const char *caller, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		qg_audit_limited(a, caller);
}

/* How many lines have both texts; the chain is whole. */
static unsigned
lines(const char *one, const char *other)
{
	char line[4096];
	unsigned n = 0;
	qg_audit_report report;
	const char *const paths[] = {path};
	assert_int_equal(qg_audit_sync(a), QG_OK);
	assert_int_equal(qg_audit_verify_files(paths, 1, key, NULL, &report), QG_OK);
	FILE *f = fopen(path, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL)
		n += strstr(line, one) != NULL && strstr(line, other) != NULL;
	fclose(f);
	return n;
}

static void
one_line_for_each_caller_and_minute(void **state)
{
	(void)state;
	refused("sae-alice", 5);
	refused("sae-bob", 1);
	assert_int_equal(lines("", ""), 0);
	qg_audit_tell_limited(a, false);
	assert_int_equal(lines("\"caller\":\"sae-alice\"", "\"act\":\"refused\""), 1);
	assert_int_equal(lines("sae-alice", "rate limit exceeded: 5 requests"), 1);
	assert_int_equal(lines("sae-bob", "rate limit exceeded: 1 requests"), 1);
	for (unsigned s = 1; s < 60; s++) {
		elapsed_ms += 1000;
		refused("sae-alice", 1000);
		qg_audit_tell_limited(a, false);
	}
	assert_int_equal(lines("", ""), 2);
	elapsed_ms += 1000;
	qg_audit_tell_limited(a, false);
	qg_audit_tell_limited(a, false);
	assert_int_equal(lines("sae-alice", "exceeded: 59000 requests"), 1);
	assert_int_equal(lines("", ""), 3);
	elapsed_ms += 600000; /* who was not refused since has no line */
	qg_audit_tell_limited(a, false);
	assert_int_equal(lines("", ""), 3);
	refused("sae-bob", 2);
	qg_audit_tell_limited(a, false);
	refused("sae-bob", 3);
	qg_audit_tell_limited(a, true); /* the last word */
	assert_int_equal(lines("sae-bob", "exceeded: 2 requests"), 1);
	assert_int_equal(lines("sae-bob", "exceeded: 3 requests"), 1);
}

static void
however_many_callers_there_are(void **state)
{
	(void)state;
	char name[400];
	for (unsigned i = 0; i < 3000; i++) {
		(void)snprintf(name, sizeof name, "sae-%u", i);
		refused(name, 2);
	}
	memset(name, 'x', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	refused(name, 1);
	refused("", 1);
	qg_audit_tell_limited(a, false);
	const unsigned named = lines("\"caller\":\"sae-", "exceeded: 2 requests");
	char rest[64];
	(void)snprintf(rest, sizeof rest, "exceeded: %u requests", 2 * (3000 - named) + 2);
	assert_true(named > 1000 && named < 3000);
	assert_int_equal(lines(rest, ""), 1); /* all others together */
	assert_int_equal(lines("", ""), named + 1);
	qg_audit_limited(NULL, "sae-alice"); /* without a log */
	qg_audit_tell_limited(NULL, true);
}

static void *
refuse_many(void *arg)
{
	for (unsigned i = 0; i < 5000; i++)
		qg_audit_limited(a, arg);
	return NULL;
}

static void
none_is_lost_between_threads(void **state)
{
	(void)state;
	static char names[4][8] = {"one", "one", "one", "two"};
	pthread_t t[4];
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, refuse_many, names[i]), 0);
	for (size_t i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	qg_audit_tell_limited(a, true);
	assert_int_equal(lines("\"one\"", "exceeded: 15000 requests"), 1);
	assert_int_equal(lines("\"two\"", "exceeded: 5000 requests"), 1);
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(one_line_for_each_caller_and_minute),
		CASE(however_many_callers_there_are),
		CASE(none_is_lost_between_threads),
	};
	if (qg_secret_init() != QG_OK || mkdtemp(folder) == NULL)
		return 1;
	(void)snprintf(path, sizeof path, "%s/audit.log", folder);
	const int failed = cmocka_run_group_tests_name("audit_limited", tests, NULL, NULL);
	(void)rmdir(folder);
	qg_secret_fini();
	return failed;
}
