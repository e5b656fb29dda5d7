/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TEST_CONFIG_LOAD_H
#define QKDGATE_TEST_CONFIG_LOAD_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../src/platform/config_internal.h"

/* Loading a configuration in a test, with its report at hand. */

#define DATA "tests/unit/data/config/"
#define FILE_ROOM 65536

static char report[1 << 20]; /* of the last load */
static qg_config *const untouched = (qg_config *)report;

static inline FILE *
open_report(void)
{
	report[0] = '\0'; /* nothing written leaves it as it is */
	FILE *f = fmemopen(report, sizeof report - 1, "w");
	assert_non_null(f);
	return f;
}

static inline qg_config *
load(const char *file, qg_err want)
{
	qg_config *c = untouched;
	FILE *f = open_report();
	const qg_err err = qg_config_load(file, f, &c);
	assert_int_equal(fclose(f), 0);
	if (err != want)
		fail_msg("%s: %s where %s is right:\n%s", file, qg_err_text(err), qg_err_text(want), report);
	if (want == QG_OK) {
		assert_string_equal(report, "");
		return c;
	}
	assert_ptr_equal(c, untouched);
	return NULL;
}

static inline void
write_temporary(char *name, const char *text, size_t len)
{
	const int fd = mkstemp(name);
	assert_true(fd >= 0);
	FILE *f = fdopen(fd, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static inline qg_config *
load_bytes(const char *text, size_t len, qg_err want)
{
	char name[] = "/tmp/qkdgate-test-XXXXXX";
	write_temporary(name, text, len);
	qg_config *c = load(name, want);
	assert_int_equal(unlink(name), 0);
	return c;
}

static inline void
refused(const char *text, size_t len, const char *why)
{
	(void)load_bytes(text, len, QG_E_PARSE);
	if (strstr(report, why) == NULL)
		fail_msg("\"%s\" is not in the report:\n%.2000s", why, report);
}

static inline size_t
read_file(const char *name, char *buf, size_t room)
{
	FILE *f = fopen(name, "r");
	if (f == NULL)
		fail_msg("%s cannot be opened: the tests run in the top folder", name);
	const size_t n = fread(buf, 1, room, f);
	assert_true(n < room);
	assert_int_equal(fclose(f), 0);
	buf[n] = '\0';
	return n;
}

#endif
