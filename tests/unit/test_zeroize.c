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

#include "qkdgate/secret.h"
#include "qkdgate/zeroize.h"

#define SIZE 10000

static char folder[64], path[128], other[128];

static int
make_folder(void **state)
{
	(void)state;
	(void)snprintf(folder, sizeof folder, "/tmp/qg-zeroize-XXXXXX");
	if (mkdtemp(folder) == NULL)
		return -1;
	(void)snprintf(path, sizeof path, "%s/file", folder);
	(void)snprintf(other, sizeof other, "%s/other", folder);
	return 0;
}

static int
remove_folder(void **state)
{
	(void)state;
	(void)unlink(path);
	(void)unlink(other);
	return rmdir(folder);
}

static void
write_file(const char *name, const void *bytes, size_t n)
{
	FILE *f = fopen(name, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(bytes, 1, n, f), n);
	assert_int_equal(fclose(f), 0);
}

/* A second name shows what became of the bytes. */
static void
what_was_in_a_file_is_written_over(void **state)
{
	static char bytes[SIZE], after[SIZE + 1];
	(void)state;
	memset(bytes, 'k', sizeof bytes);
	write_file(path, bytes, sizeof bytes);
	assert_int_equal(chmod(path, 0400), 0);
	assert_int_equal(link(path, other), 0);
	assert_int_equal(qg_zeroize_destroy(path), QG_OK);
	assert_int_not_equal(access(path, F_OK), 0);
	FILE *f = fopen(other, "r");
	assert_non_null(f);
	assert_int_equal(fread(after, 1, sizeof after, f), SIZE);
	assert_int_equal(fclose(f), 0);
	for (size_t i = 0; i + 8 <= SIZE; i++)
		assert_int_not_equal(memcmp(after + i, "kkkkkkkk", 8), 0);
}

static void
what_is_not_there_is_destroyed(void **state)
{
	(void)state;
	assert_int_equal(qg_zeroize_destroy(path), QG_OK);
}

/* The name goes, and what it stood for is told to be left. */
static void
links_are_not_followed(void **state)
{
	(void)state;
	write_file(other, "precious", 8);
	assert_int_equal(symlink(other, path), 0);
	assert_int_equal(qg_zeroize_destroy(path), QG_E_IO);
	char text[16] = "";
	FILE *f = fopen(other, "r");
	assert_non_null(f);
	assert_int_equal(fread(text, 1, 8, f), 8);
	assert_int_equal(fclose(f), 0);
	assert_string_equal(text, "precious");
}

static void
switches(void **state)
{
	static const struct {
		const char *text;
		bool on;
	} all[] = {{"0", false}, {"0\n", false}, {"1\n", true}, {"", true}, {"on", true}, {" 0", true}};
	(void)state;
	assert_false(qg_zeroize_file_says(path));
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		write_file(path, all[i].text, strlen(all[i].text));
		assert_int_equal(qg_zeroize_file_says(path), all[i].on);
	}
	assert_true(qg_zeroize_file_says(folder)); /* there, and not to be read */
}

/* Blocks of every class and one of none. */
static void
every_secret_is_wiped(void **state)
{
	static const size_t sizes[] = {1, 16, 100, 900, 8000, 70000, 200000};
	enum { N = sizeof sizes / sizeof sizes[0] };
	qg_secret *s[N];
	(void)state;
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(qg_secret_new(sizes[i], &s[i]), QG_OK);
		memset(s[i]->data, 0xa5, sizes[i]);
		s[i]->len = sizes[i];
	}
	qg_secret_wipe_all();
	for (size_t i = 0; i < N; i++) {
		for (size_t k = 0; k < sizes[i]; k++)
			assert_int_equal(s[i]->data[k], 0);
		qg_secret_free(&s[i]);
	}
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		IN_FOLDER(what_was_in_a_file_is_written_over),
		IN_FOLDER(what_is_not_there_is_destroyed),
		IN_FOLDER(links_are_not_followed),
		IN_FOLDER(switches),
		cmocka_unit_test(every_secret_is_wiped),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	const int rc = cmocka_run_group_tests_name("zeroize", tests, NULL, NULL);
	qg_secret_fini();
	return rc;
}
