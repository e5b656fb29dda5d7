/* SPDX-License-Identifier: Apache-2.0 */
/* SOUNDNESS 9: the anchor keeps the last durable state over torn and failed
 * writes, and takes nothing that it did not write itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate/anchor.h"
#include "qkdgate/secret.h"

#define SLOT 28672

static const uint8_t key[32] = {1, 2, 3};
static const uint8_t other_key[32] = {1, 2, 4};
static char dir[64];
static char path[96];
static qg_anchor_state state_in, state_out;

static int
setup(void **state)
{
	(void)state;
	static const char template[] = "/tmp/qg-anchor-XXXXXX";
	memcpy(dir, template, sizeof template);
	if (mkdtemp(dir) == NULL || snprintf(path, sizeof path, "%s/anchor", dir) >= (int)sizeof path)
		return -1;
	memset(&state_in, 0, sizeof state_in);
	memset(&state_out, 0, sizeof state_out);
	return 0;
}

static int
teardown(void **state)
{
	(void)state;
	(void)unlink(path);
	return rmdir(dir);
}

static void
fill(qg_anchor_state *s, uint64_t commits, size_t n)
{
	s->commits = commits;
	s->n = n;
	for (size_t i = 0; i < n; i++) {
		memset(s->entry[i].epoch, (int)(i & 0xff), sizeof s->entry[i].epoch);
		s->entry[i].epoch[0] = (uint8_t)(i >> 8);
		s->entry[i].mark = commits * 1000000007u + i;
	}
}

static void
assert_same(const qg_anchor_state *a, const qg_anchor_state *b)
{
	assert_int_equal(a->commits, b->commits);
	assert_int_equal(a->n, b->n);
	assert_memory_equal(a->entry, b->entry, a->n * sizeof a->entry[0]);
}

static qg_anchor *
open_anchor(bool want_found)
{
	qg_anchor *a;
	bool found = !want_found;
	assert_int_equal(qg_anchor_open(path, key, &found, &state_out, &a), QG_OK);
	assert_true(found == want_found);
	return a;
}

/* Writes states with commits 1 to n, each with so many epochs. */
static void
write_states(uint64_t n, size_t epochs)
{
	qg_anchor *a = open_anchor(false);
	for (uint64_t i = 1; i <= n; i++) {
		fill(&state_in, i, epochs);
		assert_int_equal(qg_anchor_write(a, &state_in), QG_OK);
	}
	qg_anchor_close(&a);
	assert_null(a);
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
peek(off_t at, void *bytes, size_t n)
{
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	assert_int_equal(pread(fd, bytes, n, at), (ssize_t)n);
	close(fd);
}

static void
expect_open(qg_err want)
{
	qg_anchor *a = NULL;
	bool found = false;
	memset(&state_out, 0xee, sizeof state_out);
	assert_int_equal(qg_anchor_open(path, key, &found, &state_out, &a), want);
	if (want == QG_OK) {
		assert_true(found);
		qg_anchor_close(&a);
		return;
	}
	assert_null(a);
	assert_int_equal(state_out.commits, UINT64_C(0xeeeeeeeeeeeeeeee)); /* nothing was written */
}

static void
new_file_is_private_and_empty(void **state)
{
	(void)state;
	struct stat st;
	mode_t old = umask(0);
	qg_anchor *a = open_anchor(false);
	umask(old);
	qg_anchor_close(&a);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	a = open_anchor(false); /* made, but never written */
	qg_anchor_close(&a);
	qg_anchor_close(&a);
}

static void
last_state_is_found_again(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 3, 1024, 2, 1024, 0, 5};
	qg_anchor *a = open_anchor(false);
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		fill(&state_in, i + 1, sizes[i]);
		assert_int_equal(qg_anchor_write(a, &state_in), QG_OK);
		qg_anchor_close(&a);
		a = open_anchor(true);
		assert_same(&state_in, &state_out);
	}
	qg_anchor_close(&a);
}

static void
too_many_epochs_are_refused(void **state)
{
	(void)state;
	qg_anchor *a = open_anchor(false);
	fill(&state_in, 7, 2);
	assert_int_equal(qg_anchor_write(a, &state_in), QG_OK);
	state_in.n = QG_ANCHOR_EPOCHS + 1;
	assert_int_equal(qg_anchor_write(a, &state_in), QG_E_RANGE);
	qg_anchor_close(&a);
	a = open_anchor(true);
	assert_int_equal(state_out.n, 2);
	qg_anchor_close(&a);
}

/* Sequence 3 lies in slot 1, 2 in slot 0; whatever one byte of the newest is
 * spoilt, the one before is found. */
static void
torn_write_falls_back_to_the_older_slot(void **state)
{
	(void)state;
	enum { EPOCHS = 5, LEN = 24 + EPOCHS * 24 + 32 };
	uint8_t byte, bad;
	write_states(3, EPOCHS);
	for (off_t at = SLOT; at < SLOT + LEN; at++) {
		peek(at, &byte, 1);
		bad = byte ^ 0x40;
		poke(at, &bad, 1);
		expect_open(QG_OK);
		fill(&state_in, 2, EPOCHS);
		assert_same(&state_in, &state_out);
		poke(at, &byte, 1);
	}
	expect_open(QG_OK);
	assert_int_equal(state_out.commits, 3);
}

static void
after_a_torn_write_the_good_slot_is_not_the_next_victim(void **state)
{
	(void)state;
	write_states(3, 1);
	poke(SLOT + 30, "torn", 4);
	qg_anchor *a = open_anchor(true);
	assert_int_equal(state_out.commits, 2);
	fill(&state_in, 4, 1);
	assert_int_equal(qg_anchor_write(a, &state_in), QG_OK);
	qg_anchor_close(&a);
	poke(SLOT + 30, "torn", 4); /* where it was written again */
	expect_open(QG_OK);
	assert_int_equal(state_out.commits, 2);
}

static void
garbage_is_corrupt(void **state)
{
	(void)state;
	uint8_t junk[100];
	write_states(2, 3);
	qg_random(junk, sizeof junk);
	poke(0, junk, sizeof junk);
	poke(SLOT, junk, sizeof junk);
	expect_open(QG_E_CORRUPT);
	assert_int_equal(truncate(path, 10), 0);
	expect_open(QG_E_CORRUPT);
}

static void
foreign_key_is_corrupt(void **state)
{
	(void)state;
	qg_anchor *a = NULL;
	bool found;
	write_states(2, 3);
	assert_int_equal(qg_anchor_open(path, other_key, &found, &state_out, &a), QG_E_CORRUPT);
	assert_null(a);
}

/* An old slot put in the other's place does not verify there. */
static void
slots_cannot_change_places(void **state)
{
	(void)state;
	static uint8_t slot[SLOT];
	write_states(3, 2);
	peek(0, slot, sizeof slot);
	poke(SLOT, slot, sizeof slot - 1);
	uint8_t zeros[64] = {0};
	poke(0, zeros, sizeof zeros);
	expect_open(QG_E_CORRUPT);
}

static void
truncated_file_keeps_what_is_whole(void **state)
{
	(void)state;
	write_states(3, 1024);
	assert_int_equal(truncate(path, SLOT + 1000), 0);
	expect_open(QG_OK);
	assert_int_equal(state_out.commits, 2);
	assert_int_equal(state_out.n, 1024);
	assert_int_equal(truncate(path, 1000), 0);
	expect_open(QG_E_CORRUPT);
}

static void
loose_modes_are_refused(void **state)
{
	(void)state;
	static const mode_t loose[] = {0640, 0604, 0660, 0700, 0666};
	write_states(1, 1);
	for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++) {
		assert_int_equal(chmod(path, loose[i]), 0);
		expect_open(QG_E_MODE);
	}
	assert_int_equal(chmod(path, 0600), 0);
	expect_open(QG_OK);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_open(QG_E_MODE);
}

static void
missing_folder_is_an_error(void **state)
{
	(void)state;
	qg_anchor *a = NULL;
	bool found;
	assert_int_equal(qg_anchor_open("/nonexistent/folder/anchor", key, &found, &state_out, &a), QG_E_IO);
	assert_null(a);
}

/* A file-size limit stands for a disk that refuses. */
static void
failed_write_is_told_and_can_be_tried_again(void **state)
{
	(void)state;
	struct rlimit old, none;
	qg_anchor *a = open_anchor(false);
	fill(&state_in, 1, 4);
	assert_int_equal(qg_anchor_write(a, &state_in), QG_OK);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	none = (struct rlimit){.rlim_cur = 60, .rlim_max = old.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	fill(&state_in, 2, 4);
	qg_err first = qg_anchor_write(a, &state_in);
	qg_err second = qg_anchor_write(a, &state_in);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(first, QG_E_IO);
	assert_int_equal(second, QG_E_IO);
	expect_open(QG_OK);
	assert_int_equal(state_out.commits, 1);
	fill(&state_in, 3, 4);
	assert_int_equal(qg_anchor_write(a, &state_in), QG_OK);
	qg_anchor_close(&a);
	expect_open(QG_OK);
	assert_same(&state_in, &state_out);
}

static void
write_is_cheap(void **state)
{
	(void)state;
	enum { WRITES = 200 };
	struct timespec t0, t1;
	qg_anchor *a = open_anchor(false);
	fill(&state_in, 1, 4);
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (int i = 0; i < WRITES; i++)
		assert_int_equal(qg_anchor_write(a, &state_in), QG_OK);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	print_message("one anchor write: %.3f ms\n",
		((double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6) / WRITES);
	qg_anchor_close(&a);
}

static int
init(void **state)
{
	(void)state;
	return qg_secret_init() == QG_OK ? 0 : -1;
}

static int
fini(void **state)
{
	(void)state;
	qg_secret_fini(); /* asserts that every secret is free */
	return 0;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(new_file_is_private_and_empty),
		CASE(last_state_is_found_again),
		CASE(too_many_epochs_are_refused),
		CASE(torn_write_falls_back_to_the_older_slot),
		CASE(after_a_torn_write_the_good_slot_is_not_the_next_victim),
		CASE(garbage_is_corrupt),
		CASE(foreign_key_is_corrupt),
		CASE(slots_cannot_change_places),
		CASE(truncated_file_keeps_what_is_whole),
		CASE(loose_modes_are_refused),
		CASE(missing_folder_is_an_error),
		CASE(failed_write_is_told_and_can_be_tried_again),
		CASE(write_is_cheap),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("anchor", tests, init, fini);
}
