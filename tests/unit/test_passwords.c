/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "qkdgate/passwords.h"
#include "qkdgate/secret.h"

#define PASSWORD "correct horse"

static char path[] = "/tmp/qkdgate-test-XXXXXX";
static char carol[QG_PASSWORD_LINE_ROOM], night[QG_PASSWORD_LINE_ROOM]; /* lines; one of each costs enough time */

static void
write_file(const char *text, size_t len, mode_t mode)
{
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static void
write_lines(const char *a, const char *b)
{
	char text[1024];
	const int n = snprintf(text, sizeof text, "# accounts\n\n%s\n%s\n", a, b);
	assert_true(n > 0 && (size_t)n < sizeof text);
	write_file(text, (size_t)n, 0600);
}

static int
set_up(void **state)
{
	(void)state;
	const int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(qg_secret_init(), QG_OK);
	assert_int_equal(qg_passwords_line("carol", PASSWORD, strlen(PASSWORD), false, carol), QG_OK);
	assert_int_equal(qg_passwords_line("night", PASSWORD "2", strlen(PASSWORD) + 1, true, night), QG_OK);
	return 0;
}

static int
tear_down(void **state)
{
	(void)state;
	qg_secret_fini();
	return unlink(path);
}

static void
an_account_signs_in_with_its_password_alone(void **state)
{
	(void)state;
	qg_passwords *p = NULL;
	qg_account who;
	char why[256];
	write_lines(carol, night);
	assert_int_equal(qg_passwords_load(path, &p, why, sizeof why), QG_OK);
	assert_int_equal(qg_passwords_verify(p, "carol", PASSWORD, strlen(PASSWORD), &who), QG_OK);
	assert_string_equal(who.name, "carol");
	assert_false(who.read_only);
	assert_true(qg_passwords_knows(p, &who));
	assert_int_equal(qg_passwords_verify(p, "night", PASSWORD "2", strlen(PASSWORD) + 1, &who), QG_OK);
	assert_true(who.read_only);

	who = (qg_account){.name = "before"};
	static const struct {
		const char *name, *password;
		size_t len;
	} wrong[] = {
		{"carol", PASSWORD "2", sizeof PASSWORD},    {"night", PASSWORD, sizeof PASSWORD - 1},
		{"carol", PASSWORD, sizeof PASSWORD},	     {"carol", "", 0},
		{"nobody", PASSWORD, sizeof PASSWORD - 1},   {"Carol", PASSWORD, sizeof PASSWORD - 1},
		{"carol", "Correct horse", sizeof PASSWORD - 1},
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
		assert_int_equal(qg_passwords_verify(p, wrong[i].name, wrong[i].password, wrong[i].len, &who), QG_E_AUTH);
	assert_string_equal(who.name, "before");
	qg_passwords_free(&p);
	assert_null(p);
}

static void
a_changed_line_is_another_account(void **state)
{
	(void)state;
	qg_passwords *before = NULL, *after = NULL;
	qg_account who, other;
	char again[QG_PASSWORD_LINE_ROOM], promoted[QG_PASSWORD_LINE_ROOM + 16], why[256];
	write_lines(carol, night);
	assert_int_equal(qg_passwords_load(path, &before, why, sizeof why), QG_OK);
	assert_int_equal(qg_passwords_verify(before, "carol", PASSWORD, strlen(PASSWORD), &who), QG_OK);
	assert_int_equal(qg_passwords_verify(before, "night", PASSWORD "2", strlen(PASSWORD) + 1, &other), QG_OK);

	/* The same password anew, and one that may act now. */
	assert_int_equal(qg_passwords_line("carol", PASSWORD, strlen(PASSWORD), false, again), QG_OK);
	assert_string_not_equal(again, carol);
	assert_true(snprintf(promoted, sizeof promoted, "%.*s", (int)(strlen(night) - strlen(":read_only")), night) > 0);
	write_lines(again, promoted);
	assert_int_equal(qg_passwords_load(path, &after, why, sizeof why), QG_OK);
	assert_false(qg_passwords_knows(after, &who));
	assert_false(qg_passwords_knows(after, &other));
	assert_true(qg_passwords_knows(before, &who));
	qg_passwords_free(&after);

	write_lines(night, ""); /* the one stays, the other is gone */
	assert_int_equal(qg_passwords_load(path, &after, why, sizeof why), QG_OK);
	assert_false(qg_passwords_knows(after, &who));
	assert_true(qg_passwords_knows(after, &other));
	qg_passwords_free(&after);
	qg_passwords_free(&before);
}

static void
a_file_that_is_wrong_is_refused_whole(void **state)
{
	(void)state;
#define HASH(cost) "$argon2id$v=19$" cost "$c2FsdHNhbHRzYWx0c2FsdA$aGFzaGhhc2hoYXNoaGFzaGhhc2hoYXNoaGFzaGhhc2g"
	static const struct {
		const char *text, *word;
	} wrong[] = {
		{"", "holds no account"},
		{"# carol\n\n", "holds no account"},
		{"carol\n", "line 1 does not begin with a name"},
		{":" HASH("m=65536,t=3,p=1") "\n", "line 1 does not begin"},
		{"a b:" HASH("m=65536,t=3,p=1") "\n", "line 1 does not begin"},
		{"<b>:" HASH("m=65536,t=3,p=1") "\n", "line 1 does not begin"},
		{"carol:secret\n", "Argon2id"},
		{"carol:$6$salt$hash\n", "Argon2id"},
		{"carol:$argon2i$v=19$m=65536,t=3,p=1$a$b\n", "Argon2id"},
		{"carol:" HASH("m=65536,t=3") "\n", "Argon2id"},
		{"carol:" HASH("m=4096,t=3,p=1") "\n", "too little"},
		{"carol:" HASH("m=8192,t=3,p=1") "\n", "too little"},
		{"carol:" HASH("m=262145,t=3,p=1") "\n", "too much"},
		{"carol:" HASH("m=65536,t=17,p=1") "\n", "too much"},
		{"carol:" HASH("m=65536,t=3,p=2") "\n", "too much"},
		{"carol:" HASH("m=65536,t=3,p=1") ":admin\n", "something else"},
		{"carol:" HASH("m=65536,t=3,p=1") "\ncarol:" HASH("m=65536,t=3,p=1") "\n", "line 2 names an account"},
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		char why[256] = "";
		qg_passwords *p = NULL;
		write_file(wrong[i].text, strlen(wrong[i].text), 0600);
		assert_int_equal(qg_passwords_load(path, &p, why, sizeof why), QG_E_PARSE);
		assert_null(p);
		if (strstr(why, wrong[i].word) == NULL)
			fail_msg("%zu: %s", i, why);
		assert_null(strstr(why, "$"));
	}
	char why[256] = "";
	write_file("carol:\0x\n", 9, 0600);
	assert_int_equal(qg_passwords_load(path, NULL, why, sizeof why), QG_E_PARSE);
	assert_non_null(strstr(why, "NUL"));
}

static void
a_file_for_others_is_refused(void **state)
{
	(void)state;
	static const mode_t modes[] = {0640, 0604, 0660, 0700};
	char why[256] = "";
	for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
		write_file(carol, strlen(carol), modes[i]);
		assert_int_equal(qg_passwords_load(path, NULL, why, sizeof why), QG_E_MODE);
		assert_non_null(strstr(why, "0600"));
	}
	assert_int_equal(qg_passwords_load("/nonexistent/passwords", NULL, why, sizeof why), QG_E_IO);
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(qg_passwords_load(path, NULL, why, sizeof why), QG_OK); /* the last line has no end */
}

static void
lines_are_made_of_good_names_and_passwords(void **state)
{
	(void)state;
	char line[QG_PASSWORD_LINE_ROOM] = "before", name[QG_PASSWORD_NAME_MAX + 2], password[QG_PASSWORD_MAX + 1];
	static const char *const bad[] = {"", "a:b", "a b", "a\"b", "a\\b", "<a>", "a&b", "\xc3\xa4", "a\nb", "#a"};
	memset(name, 'n', sizeof name - 1);
	name[sizeof name - 1] = '\0';
	memset(password, 'p', sizeof password);
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
		assert_int_equal(qg_passwords_line(bad[i], PASSWORD, strlen(PASSWORD), false, line), QG_E_INVAL);
	assert_int_equal(qg_passwords_line(name, PASSWORD, strlen(PASSWORD), false, line), QG_E_INVAL);
	assert_int_equal(qg_passwords_line("carol", "1234567", 7, false, line), QG_E_RANGE);
	assert_int_equal(qg_passwords_line("carol", password, sizeof password, false, line), QG_E_RANGE);
	assert_string_equal(line, "before");
	name[QG_PASSWORD_NAME_MAX] = '\0';
	assert_int_equal(qg_passwords_line(name, PASSWORD, strlen(PASSWORD), true, line), QG_OK);
	assert_memory_equal(line, name, QG_PASSWORD_NAME_MAX);
	assert_non_null(strstr(line, ":$argon2id$v=19$m=65536,t=3,p=1$"));
	assert_string_equal(strrchr(line, ':'), ":read_only");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_account_signs_in_with_its_password_alone),
		cmocka_unit_test(a_changed_line_is_another_account),
		cmocka_unit_test(a_file_that_is_wrong_is_refused_whole),
		cmocka_unit_test(a_file_for_others_is_refused),
		cmocka_unit_test(lines_are_made_of_good_names_and_passwords),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
