/* SPDX-License-Identifier: Apache-2.0 */
/* Another master key while all goes on: whatever happens, what is sealed opens. */
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <pthread.h>

#include "qkdgate/seal.h"
#include "qkdgate/secret.h"

static char folder[] = "/tmp/qkdgate-master-XXXXXX";
static char master[64], ring[64], other[64], aside[64];

static void
clean(void)
{
	char name[96];
	const char *const files[] = {master, ring, other, aside};
	for (size_t i = 0; i < 4; i++) {
		unlink(files[i]);
		snprintf(name, sizeof name, "%s.new", files[i]);
		unlink(name);
		rmdir(name);
	}
}

static int
setup(void **state)
{
	(void)state;
	clean();
	return qg_seal_make_master_key(master) == QG_OK && qg_seal_make_master_key(other) == QG_OK ? 0 : -1;
}

static qg_err
try_open(const char *key, qg_sealer **out)
{
	const qg_seal_options o = {.master_key = key, .key_ring = ring, .rotate_s = 86400};
	return qg_sealer_open(&o, out);
}

static qg_sealer *
open_with(const char *key)
{
	qg_sealer *s = NULL;
	assert_int_equal(try_open(key, &s), QG_OK);
	return s;
}

static void
copy_file(const char *from, const char *to)
{
	char bytes[256];
	int fd = open(from, O_RDONLY);
	assert_true(fd >= 0);
	const ssize_t n = read(fd, bytes, sizeof bytes);
	close(fd);
	unlink(to);
	fd = open(to, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_int_equal(write(fd, bytes, (size_t)n), n);
	close(fd);
}

/* --- what must stay -------------------------------------------------------------------- */

typedef struct kept {
	uint8_t blob[7 + QG_SEAL_OVERHEAD], derived[32];
} kept;

static kept
keep(qg_sealer *s)
{
	kept k = {0};
	assert_int_equal(qg_sealer_seal(s, "ad", 2, "keyword", 7, k.blob), QG_OK);
	qg_sealer_derive(s, "audit", k.derived);
	return k;
}

static bool
is_kept(qg_sealer *s, const kept *k)
{
	QG_SECRET_AUTO *plain = NULL;
	uint8_t derived[32];
	qg_sealer_derive(s, "audit", derived);
	return qg_sealer_unseal(s, "ad", 2, k->blob, sizeof k->blob, &plain) == QG_OK && plain->len == 7 &&
	       memcmp(plain->data, "keyword", 7) == 0 && memcmp(derived, k->derived, 32) == 0;
}

/* --- cases --------------------------------------------------------------------------------- */

static void
the_file_gets_another_key(void **state)
{
	(void)state;
	bool pending = true;
	uint8_t derived[32];
	struct stat st;
	qg_sealer *s = open_with(master), *none = NULL;
	const kept k = keep(s);
	copy_file(master, aside);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(qg_sealer_change_master(s, NULL, &pending), QG_OK);
		assert_false(pending || qg_sealer_master_pending(s));
		assert_true(is_kept(s, &k));
	}
	const uint32_t generation = qg_sealer_generation(s);
	assert_int_equal(qg_sealer_rotate(s), QG_OK); /* due, though the ring is young */
	assert_int_equal(qg_sealer_generation(s), generation + 1);
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
	assert_int_equal(qg_sealer_generation(s), generation + 1);
	qg_sealer_close(&s);
	assert_int_equal(try_open(aside, &none), QG_E_AUTH);
	s = open_with(master);
	assert_true(is_kept(s, &k));
	qg_sealer_close(&s);
	assert_int_equal(stat(master, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	/* Offline: the root rests in the ring. */
	const qg_seal_options with = {.master_key = master, .key_ring = ring}, without = {.master_key = master};
	assert_int_equal(qg_seal_derive(&with, "audit", derived), QG_OK);
	assert_memory_equal(derived, k.derived, 32);
	assert_int_equal(qg_seal_derive(&without, "audit", derived), QG_OK);
	assert_memory_not_equal(derived, k.derived, 32);
	const qg_seal_options old = {.master_key = aside, .key_ring = ring};
	assert_int_equal(qg_seal_derive(&old, "audit", derived), QG_E_AUTH);
}

/* The operator brings the key, and puts it in place in his own time. */
static void
both_keys_open_until_a_start_with_the_new_one(void **state)
{
	(void)state;
	bool pending = false;
	qg_sealer *s = open_with(master), *none = NULL;
	const kept k = keep(s);
	assert_int_equal(qg_sealer_change_master(s, other, &pending), QG_OK);
	assert_true(pending && qg_sealer_master_pending(s));
	assert_int_equal(qg_sealer_rotate(s), QG_OK); /* writes the ring: both wraps stay */
	const kept later = keep(s);
	qg_sealer_close(&s);
	for (int i = 0; i < 2; i++) { /* the old one, as often as it is wanted */
		s = open_with(master);
		assert_true(qg_sealer_master_pending(s) && is_kept(s, &k) && is_kept(s, &later));
		qg_sealer_close(&s);
	}
	s = open_with(other);
	assert_false(qg_sealer_master_pending(s));
	assert_true(is_kept(s, &k) && is_kept(s, &later));
	qg_sealer_close(&s);
	assert_int_equal(try_open(master, &none), QG_E_AUTH);
	s = open_with(other);
	qg_sealer_close(&s);
}

static void
what_is_no_other_key_is_refused(void **state)
{
	(void)state;
	bool pending = true;
	qg_sealer *s = open_with(master);
	const kept k = keep(s);
	assert_int_equal(qg_sealer_change_master(s, master, &pending), QG_E_EXISTS);
	copy_file(master, aside);
	assert_int_equal(qg_sealer_change_master(s, aside, &pending), QG_E_EXISTS);
	assert_int_equal(chmod(other, 0640), 0);
	assert_int_equal(qg_sealer_change_master(s, other, &pending), QG_E_MODE);
	assert_int_equal(chmod(other, 0600), 0);
	assert_int_equal(truncate(other, 31), 0);
	assert_int_equal(qg_sealer_change_master(s, other, &pending), QG_E_PARSE);
	assert_int_equal(qg_sealer_change_master(s, "/nonexistent/key", &pending), QG_E_IO);
	assert_int_equal(qg_sealer_change_master(s, folder, &pending), QG_E_MODE);
	assert_int_equal(qg_sealer_change_master(s, "credential:none", &pending), QG_E_IO);
	assert_false(pending || qg_sealer_master_pending(s));
	assert_true(is_kept(s, &k));
	qg_sealer_close(&s);
	s = open_with(master);
	assert_true(is_kept(s, &k));
	qg_sealer_close(&s);
}

/* A folder in the place of the temporary file: so that root is refused, too. */
static void
files_that_cannot_be_written_leave_all_as_it_was(void **state)
{
	(void)state;
	const char *const blocked[] = {ring, master};
	bool pending;
	char name[96];
	for (size_t i = 0; i < 2; i++) {
		qg_sealer *s = open_with(master);
		const kept k = keep(s);
		copy_file(master, aside);
		snprintf(name, sizeof name, "%s.new", blocked[i]);
		assert_int_equal(mkdir(name, 0700), 0);
		assert_int_equal(qg_sealer_change_master(s, NULL, &pending), QG_E_IO);
		assert_false(pending);
		assert_true(is_kept(s, &k));
		qg_sealer_close(&s);
		rmdir(name);
		s = open_with(aside);
		assert_true(is_kept(s, &k));
		assert_false(qg_sealer_master_pending(s));
		qg_sealer_close(&s);
		s = open_with(master);
		assert_int_equal(qg_sealer_change_master(s, NULL, &pending), QG_OK); /* now it can be */
		assert_true(is_kept(s, &k));
		qg_sealer_close(&s);
	}
}

static void
a_credential_is_not_replaced(void **state)
{
	(void)state;
	bool pending;
	setenv("CREDENTIALS_DIRECTORY", folder, 1);
	qg_sealer *s = open_with("credential:master.key");
	const kept k = keep(s);
	assert_int_equal(qg_sealer_change_master(s, NULL, &pending), QG_E_UNSUPPORTED);
	assert_int_equal(qg_sealer_change_master(s, "credential:other.key", &pending), QG_OK);
	assert_true(pending);
	qg_sealer_close(&s);
	s = open_with("credential:other.key");
	assert_true(is_kept(s, &k));
	qg_sealer_close(&s);
	unsetenv("CREDENTIALS_DIRECTORY");
}

/* Every byte of the new form is covered. */
static void
a_changed_ring_is_refused(void **state)
{
	(void)state;
	bool pending;
	uint8_t bytes[4096];
	qg_sealer *s = open_with(master), *none = NULL;
	assert_int_equal(qg_sealer_change_master(s, other, &pending), QG_OK);
	qg_sealer_close(&s);
	int fd = open(ring, O_RDWR);
	const ssize_t n = read(fd, bytes, sizeof bytes);
	assert_true(n > 0 && n < (ssize_t)sizeof bytes);
	for (ssize_t i = 0; i < n; i++) {
		bytes[i] ^= 1;
		assert_int_equal(pwrite(fd, &bytes[i], 1, i), 1);
		const qg_err err = try_open(master, &none);
		if (err != QG_E_AUTH && err != QG_E_PARSE)
			fail_msg("byte %zd: %s", i, qg_err_text(err));
		bytes[i] ^= 1;
		assert_int_equal(pwrite(fd, &bytes[i], 1, i), 1);
	}
	for (ssize_t len = n - 1; len > 0; len -= 7) {
		assert_int_equal(ftruncate(fd, len), 0);
		assert_int_not_equal(try_open(master, &none), QG_OK);
	}
	assert_int_equal(pwrite(fd, bytes, (size_t)n, 0), n);
	close(fd);
	s = open_with(master);
	qg_sealer_close(&s);
}

/* --- killed, and many at once ------------------------------------------------------------------- */

static void
killed_while_it_changes(void **state)
{
	(void)state;
	qg_sealer *s = open_with(master);
	const kept k = keep(s);
	qg_sealer_close(&s);
	for (unsigned round = 0; round < 25; round++) {
		int up[2];
		char byte;
		assert_int_equal(pipe(up), 0);
		const pid_t pid = fork();
		assert_true(pid >= 0);
		if (pid == 0) {
			bool pending;
			qg_sealer *mine = NULL;
			if (try_open(master, &mine) != QG_OK)
				_exit(1);
			for (unsigned i = 0;; i++) {
				if (qg_sealer_change_master(mine, NULL, &pending) != QG_OK || qg_sealer_rotate(mine) != QG_OK)
					_exit(2);
				if (qg_sealer_generation(mine) > 4 &&
				    qg_sealer_destroy_below(mine, 1) != QG_OK) /* nothing: the first holds the blob */
					_exit(3);
				if (i == 1 && write(up[1], "x", 1) != 1)
					_exit(4);
				if (i > 100)
					for (;;)
						pause(); /* 256 generations are the most */
			}
		}
		assert_int_equal(read(up[0], &byte, 1), 1);
		usleep(137 * round);
		kill(pid, SIGKILL);
		int status;
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		close(up[0]);
		close(up[1]);
		s = open_with(master); /* what the file holds opens it, always */
		assert_true(is_kept(s, &k));
		/* Make room: the generation of the blob stays, those behind it are left to later rounds. */
		if (qg_sealer_generation(s) > 120) {
			qg_sealer_close(&s);
			break;
		}
		qg_sealer_close(&s);
	}
}

static qg_sealer *shared;
static atomic_bool stop;

static void *
use_all_the_time(void *arg)
{
	(void)arg;
	uintptr_t n = 0;
	while (!stop || n == 0) {
		const kept k = keep(shared);
		if (!is_kept(shared, &k))
			return NULL;
		n++;
	}
	return (void *)n;
}

static void
all_goes_on_meanwhile(void **state)
{
	(void)state;
	pthread_t t[3];
	bool pending;
	shared = open_with(master);
	const kept k = keep(shared);
	stop = false;
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&t[i], NULL, use_all_the_time, NULL), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(qg_sealer_change_master(shared, i % 5 == 4 ? other : NULL, &pending), QG_OK);
		assert_int_equal(qg_sealer_rotate(shared), QG_OK);
	}
	stop = true;
	for (size_t i = 0; i < 3; i++) {
		void *n = NULL;
		pthread_join(t[i], &n);
		assert_non_null(n);
	}
	assert_true(is_kept(shared, &k));
	qg_sealer_close(&shared);
}

#define CASE(f) cmocka_unit_test_setup(f, setup)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(the_file_gets_another_key),
		CASE(both_keys_open_until_a_start_with_the_new_one),
		CASE(what_is_no_other_key_is_refused),
		CASE(files_that_cannot_be_written_leave_all_as_it_was),
		CASE(a_credential_is_not_replaced),
		CASE(a_changed_ring_is_refused),
		CASE(killed_while_it_changes),
		CASE(all_goes_on_meanwhile),
	};
	if (qg_secret_init() != QG_OK || mkdtemp(folder) == NULL)
		return 1;
	snprintf(master, sizeof master, "%s/master.key", folder);
	snprintf(other, sizeof other, "%s/other.key", folder);
	snprintf(ring, sizeof ring, "%s/ring", folder);
	snprintf(aside, sizeof aside, "%s/aside.key", folder);
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	const int failed = cmocka_run_group_tests_name("seal_master", tests, NULL, NULL);
	clean();
	rmdir(folder);
	qg_secret_fini();
	return failed;
}
