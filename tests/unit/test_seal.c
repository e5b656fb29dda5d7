/* SPDX-License-Identifier: Apache-2.0 */
/* SOUNDNESS 12: key at rest. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "qkdgate/clock.h"
#include "qkdgate/seal.h"
#include "qkdgate/secret.h"

#define N 8192

static char dir[64], master[96], ring[96], ring_new[104];
static qg_seal_options options;
static uint64_t fake_elapsed_ms;
static int64_t fake_wall_ms;
static uint8_t plain[N], blob[N + QG_SEAL_OVERHEAD], blob2[N + QG_SEAL_OVERHEAD];

static uint64_t
fake_elapsed(void)
{
	return fake_elapsed_ms;
}

static int64_t
fake_wall(void)
{
	return fake_wall_ms;
}

static const qg_clock_ops fake_clock = {fake_elapsed, fake_wall};

static void
write_file(const char *path, const void *bytes, size_t n, mode_t mode)
{
	(void)unlink(path); /* one of mode 0400 could not be written */
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, n), (ssize_t)n);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static size_t
read_file(const char *path, uint8_t *out, size_t room)
{
	int fd = open(path, O_RDONLY);
	assert_true(fd >= 0);
	ssize_t n = read(fd, out, room);
	assert_true(n >= 0);
	close(fd);
	return (size_t)n;
}

static int
setup(void **state)
{
	(void)state;
	static const char template[] = "/tmp/qg-seal-XXXXXX";
	memcpy(dir, template, sizeof template);
	if (mkdtemp(dir) == NULL || snprintf(master, sizeof master, "%s/master", dir) >= (int)sizeof master
		|| snprintf(ring, sizeof ring, "%s/ring", dir) >= (int)sizeof ring
		|| snprintf(ring_new, sizeof ring_new, "%s.new", ring) >= (int)sizeof ring_new)
		return -1;
	fake_elapsed_ms = 1000;
	fake_wall_ms = INT64_C(1767225600000);
	qg_clock_use(&fake_clock);
	qg_random(plain, sizeof plain);
	options = (qg_seal_options){.master_key = master, .key_ring = ring, .rotate_s = 3600};
	return qg_seal_make_master_key(master) == QG_OK ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	qg_clock_use(NULL);
	(void)unlink(master);
	(void)unlink(ring);
	(void)unlink(ring_new);
	return rmdir(dir);
}

static qg_sealer *
open_sealer(void)
{
	qg_sealer *s;
	assert_int_equal(qg_sealer_open(&options, &s), QG_OK);
	return s;
}

static void
expect_open(qg_err want)
{
	qg_sealer *s = NULL;
	assert_int_equal(qg_sealer_open(&options, &s), want);
	assert_true((s != NULL) == (want == QG_OK));
	qg_sealer_close(&s);
}

static void
rotate(qg_sealer *s)
{
	fake_elapsed_ms += 3600 * 1000;
	fake_wall_ms += 3600 * 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
}

static void
expect_unseal(qg_sealer *s, const char *ad, const uint8_t *p, size_t len, qg_err want)
{
	qg_secret *out = NULL;
	assert_int_equal(qg_sealer_unseal(s, ad, strlen(ad), p, len, &out), want);
	if (want != QG_OK) {
		assert_null(out);
		return;
	}
	assert_int_equal(out->len, len - QG_SEAL_OVERHEAD);
	assert_memory_equal(out->data, plain, out->len);
	qg_secret_free(&out);
}

static void
what_was_sealed_comes_back(void **state)
{
	(void)state;
	static const size_t sizes[] = {0, 1, 32, 1000, N};
	qg_sealer *s = open_sealer();
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, sizes[i], blob), QG_OK);
		assert_int_equal(qg_seal_generation(blob, sizes[i] + QG_SEAL_OVERHEAD), 1);
		expect_unseal(s, "ad", blob, sizes[i] + QG_SEAL_OVERHEAD, QG_OK);
	}
	qg_sealer_close(&s);
	s = open_sealer(); /* and after a restart */
	expect_unseal(s, "ad", blob, N + QG_SEAL_OVERHEAD, QG_OK);
	qg_sealer_close(&s);
	assert_null(s);
	qg_sealer_close(&s);
}

static void
every_tampered_byte_is_noticed(void **state)
{
	(void)state;
	enum { LEN = 40 + QG_SEAL_OVERHEAD };
	qg_sealer *s = open_sealer();
	assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, 40, blob), QG_OK);
	for (size_t at = 0; at < LEN; at++) {
		blob[at] ^= 1;
		bool generation = at >= 1 && at < 5; /* of which there is none */
		expect_unseal(s, "ad", blob, LEN, generation && blob[4] != 0 ? QG_E_NOTFOUND : QG_E_AUTH);
		blob[at] ^= 1;
	}
	for (size_t len = 0; len < LEN; len++)
		expect_unseal(s, "ad", blob, len, QG_E_AUTH);
	expect_unseal(s, "ad", blob, LEN + 1, QG_E_AUTH);
	expect_unseal(s, "ae", blob, LEN, QG_E_AUTH);
	expect_unseal(s, "a", blob, LEN, QG_E_AUTH);
	expect_unseal(s, "", blob, LEN, QG_E_AUTH);
	expect_unseal(s, "ad", blob, LEN, QG_OK);
	qg_sealer_close(&s);
}

/* Two blobs of the same generation cannot lend each other their data key. */
static void
parts_of_two_blobs_do_not_mix(void **state)
{
	(void)state;
	enum { LEN = 40 + QG_SEAL_OVERHEAD, WRAP_END = 1 + 4 + 24 + 48 };
	qg_sealer *s = open_sealer();
	assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, 40, blob), QG_OK);
	assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, 40, blob2), QG_OK);
	memcpy(blob, blob2, WRAP_END);
	expect_unseal(s, "ad", blob, LEN, QG_E_AUTH);
	expect_unseal(s, "ad", blob2, LEN, QG_OK);
	qg_sealer_close(&s);
}

/* The same plaintext never gives the same nonce, wrapped key or ciphertext. */
static void
every_seal_is_fresh(void **state)
{
	(void)state;
	enum { LEN = 32 + QG_SEAL_OVERHEAD, ROUNDS = 200 };
	static uint8_t seen[ROUNDS][LEN];
	qg_sealer *s = open_sealer();
	for (int i = 0; i < ROUNDS; i++) {
		assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, 32, seen[i]), QG_OK);
		for (int k = 0; k < i; k++) {
			assert_memory_not_equal(seen[i] + 5, seen[k] + 5, 24);
			assert_memory_not_equal(seen[i] + 29, seen[k] + 29, 48);
			assert_memory_not_equal(seen[i] + 77, seen[k] + 77, 24);
			assert_memory_not_equal(seen[i] + 101, seen[k] + 101, 32);
		}
	}
	qg_sealer_close(&s);
}

static void
plaintext_is_not_in_the_blob_nor_keys_in_the_ring(void **state)
{
	(void)state;
	static uint8_t file[65536];
	uint8_t secret[32];
	qg_sealer *s = open_sealer();
	assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, N, blob), QG_OK);
	assert_null(memmem(blob, sizeof blob, plain, 16));
	qg_sealer_close(&s);
	size_t n = read_file(master, secret, sizeof secret);
	assert_int_equal(n, 32);
	n = read_file(ring, file, sizeof file);
	assert_null(memmem(file, n, secret, 16));
}

static void
rotation_waits_for_its_time(void **state)
{
	(void)state;
	qg_sealer *s = open_sealer();
	assert_int_equal(qg_sealer_generation(s), 1);
	fake_wall_ms += 3599 * 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
	assert_int_equal(qg_sealer_generation(s), 1);
	fake_wall_ms += 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
	assert_int_equal(qg_sealer_generation(s), 2);
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
	assert_int_equal(qg_sealer_generation(s), 2);
	/* The wall clock set back for good: the other one counts. */
	fake_wall_ms -= INT64_C(1000) * 86400 * 365;
	fake_elapsed_ms += 3599 * 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
	assert_int_equal(qg_sealer_generation(s), 2);
	fake_elapsed_ms += 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
	assert_int_equal(qg_sealer_generation(s), 3);
	qg_sealer_close(&s);
	/* Over a restart the wall clock counts. */
	fake_elapsed_ms = 5;
	s = open_sealer();
	assert_int_equal(qg_sealer_generation(s), 3);
	fake_wall_ms += 3600 * 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_OK);
	assert_int_equal(qg_sealer_generation(s), 4);
	qg_sealer_close(&s);
}

static void
old_generations_open_until_they_are_destroyed(void **state)
{
	(void)state;
	enum { LEN = 64 + QG_SEAL_OVERHEAD };
	static uint8_t made[4][LEN];
	qg_sealer *s = open_sealer();
	for (uint32_t g = 1; g <= 4; g++) {
		assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, 64, made[g - 1]), QG_OK);
		assert_int_equal(qg_seal_generation(made[g - 1], LEN), g);
		if (g < 4)
			rotate(s);
	}
	for (int i = 0; i < 4; i++)
		expect_unseal(s, "ad", made[i], LEN, QG_OK);
	assert_int_equal(qg_sealer_destroy_below(s, 3), QG_OK);
	for (int again = 0; again < 2; again++) {
		expect_unseal(s, "ad", made[0], LEN, QG_E_NOTFOUND);
		expect_unseal(s, "ad", made[1], LEN, QG_E_NOTFOUND);
		expect_unseal(s, "ad", made[2], LEN, QG_OK);
		expect_unseal(s, "ad", made[3], LEN, QG_OK);
		qg_sealer_close(&s);
		s = open_sealer();
	}
	/* The newest survives whatever is asked, and its number goes on. */
	assert_int_equal(qg_sealer_destroy_below(s, UINT32_MAX), QG_OK);
	expect_unseal(s, "ad", made[2], LEN, QG_E_NOTFOUND);
	expect_unseal(s, "ad", made[3], LEN, QG_OK);
	rotate(s);
	assert_int_equal(qg_sealer_generation(s), 5);
	qg_sealer_close(&s);
}

/* The key that was destroyed is gone from the file, and what the old file held
 * is overwritten: here through a second name of it. */
static void
destroyed_keys_leave_the_disk(void **state)
{
	(void)state;
	static uint8_t before[4096], after[4096];
	qg_sealer *s = open_sealer();
	rotate(s);
	int old = open(ring, O_RDONLY);
	assert_true(old >= 0);
	size_t n = read_file(ring, before, sizeof before);
	assert_int_equal(qg_sealer_destroy_below(s, 2), QG_OK);
	assert_int_equal(pread(old, after, sizeof after, 0), (ssize_t)n);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(after[i], 0);
	close(old);
	size_t left = read_file(ring, after, sizeof after);
	assert_int_equal(n - left, 4 + 8 + 24 + 48);
	assert_null(memmem(after, left, before + 9 + 4 + 8, 24));
	qg_sealer_close(&s);
}

static void
ring_has_room_for_256_generations(void **state)
{
	(void)state;
	qg_sealer *s = open_sealer();
	for (int i = 1; i < 256; i++)
		rotate(s);
	assert_int_equal(qg_sealer_generation(s), 256);
	fake_elapsed_ms += 3600 * 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_E_FULL);
	assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, 8, blob), QG_OK);
	qg_sealer_close(&s);
	s = open_sealer();
	expect_unseal(s, "ad", blob, 8 + QG_SEAL_OVERHEAD, QG_OK);
	assert_int_equal(qg_sealer_destroy_below(s, 2), QG_OK);
	rotate(s);
	assert_int_equal(qg_sealer_generation(s), 257);
	qg_sealer_close(&s);
}

static void
foreign_master_key_does_not_fit(void **state)
{
	(void)state;
	qg_sealer *s = open_sealer();
	qg_sealer_close(&s);
	assert_int_equal(qg_seal_make_master_key(master), QG_E_EXISTS);
	assert_int_equal(unlink(master), 0);
	assert_int_equal(qg_seal_make_master_key(master), QG_OK);
	expect_open(QG_E_AUTH);
}

static void
damaged_ring_is_refused(void **state)
{
	(void)state;
	static uint8_t file[4096];
	qg_sealer *s = open_sealer();
	rotate(s);
	qg_sealer_close(&s);
	size_t n = read_file(ring, file, sizeof file);
	for (size_t at = 0; at < n; at++) {
		file[at] ^= 0x10;
		write_file(ring, file, n, 0600);
		expect_open(at < 9 ? QG_E_PARSE : QG_E_AUTH); /* head: magic, version, count */
		file[at] ^= 0x10;
	}
	for (size_t len = 0; len < n; len++) {
		write_file(ring, file, len, 0600);
		expect_open(QG_E_PARSE);
	}
	write_file(ring, file, n + 1, 0600);
	expect_open(QG_E_PARSE);
	write_file(ring, file, n, 0600);
	expect_open(QG_OK);
}

static void
loose_modes_are_refused(void **state)
{
	(void)state;
	static const mode_t loose[] = {0640, 0604, 0620, 0602, 0440, 0700, 0644};
	expect_open(QG_OK);
	const char *const files[] = {master, ring};
	for (size_t f = 0; f < 2; f++) {
		for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++) {
			assert_int_equal(chmod(files[f], loose[i]), 0);
			expect_open(QG_E_MODE);
		}
		assert_int_equal(chmod(files[f], 0400), 0);
		expect_open(QG_OK);
	}
}

static void
files_are_made_private(void **state)
{
	(void)state;
	struct stat st;
	mode_t old = umask(0);
	qg_sealer *s = open_sealer();
	assert_int_equal(stat(ring, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	rotate(s);
	umask(old);
	assert_int_equal(stat(ring, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(master, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(st.st_size, 32);
	assert_int_not_equal(access(ring_new, F_OK), 0);
	qg_sealer_close(&s);
}

static void
master_key_forms(void **state)
{
	(void)state;
	static const char hex[] = "000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n";
	uint8_t raw[33], from_raw[32], from_hex[32];
	for (uint8_t i = 0; i < sizeof raw; i++)
		raw[i] = i;
	write_file(master, raw, 32, 0600);
	qg_sealer *s = open_sealer();
	qg_sealer_derive(s, "anchor", from_raw);
	qg_sealer_close(&s);
	for (size_t n = 64; n <= 65; n++) {
		write_file(master, hex, n, 0400);
		s = open_sealer(); /* the same key: it fits the ring */
		qg_sealer_derive(s, "anchor", from_hex);
		assert_memory_equal(from_raw, from_hex, 32);
		qg_sealer_close(&s);
	}
	static const size_t wrong[] = {0, 1, 31, 33, 63};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		write_file(master, wrong[i] == 63 ? (const void *)hex : raw, wrong[i], 0600);
		expect_open(QG_E_PARSE);
	}
	char bad[68];
	memcpy(bad, hex, 65);
	bad[65] = '\n';
	write_file(master, bad, 66, 0600);
	expect_open(QG_E_PARSE);
	bad[10] = 'g';
	write_file(master, bad, 64, 0600);
	expect_open(QG_E_PARSE);
	assert_int_equal(unlink(master), 0);
	expect_open(QG_E_IO);
	assert_int_equal(mkdir(master, 0700), 0);
	expect_open(QG_E_MODE);
	assert_int_equal(rmdir(master), 0);
}

static void
master_key_from_a_credential(void **state)
{
	(void)state;
	expect_open(QG_OK);
	options.master_key = "credential:master";
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
	expect_open(QG_E_IO);
	assert_int_equal(setenv("CREDENTIALS_DIRECTORY", dir, 1), 0);
	expect_open(QG_OK);
	assert_int_equal(chmod(master, 0440), 0); /* the mask of systemd's access list */
	expect_open(QG_OK);
	assert_int_equal(chmod(master, 0444), 0);
	expect_open(QG_E_MODE);
	assert_int_equal(chmod(master, 0460), 0);
	expect_open(QG_E_MODE);
	static const char *const bad[] = {"credential:", "credential:..", "credential:../master", "credential:/x"};
	for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
		options.master_key = bad[i];
		expect_open(QG_E_PARSE);
	}
	options.master_key = "credential:absent";
	expect_open(QG_E_IO);
	assert_int_equal(unsetenv("CREDENTIALS_DIRECTORY"), 0);
}

/* Mounted by a container engine: for a group of ours it may be readable. */
static void
master_key_mounted_as_a_secret(void **state)
{
	static const mode_t loose[] = {0460, 0444, 0450, 0660, 0644, 0604, 0700};
	static const mode_t good[] = {0600, 0400, 0640, 0440};
	char other[PATH_MAX], away[PATH_MAX];
	(void)state;
	expect_open(QG_OK);
	assert_int_equal(chown(master, (uid_t)-1, getegid()), 0);
	assert_int_equal(setenv("QKDGATE_SECRETS", dir, 1), 0);
	for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
		assert_int_equal(chmod(master, good[i]), 0);
		expect_open(QG_OK);
	}
	for (size_t i = 0; i < sizeof loose / sizeof loose[0]; i++) {
		assert_int_equal(chmod(master, loose[i]), 0);
		expect_open(QG_E_MODE);
	}
	assert_int_equal(chmod(master, 0440), 0);
	static const char *const elsewhere[] = {"/nowhere", "relative", "", "/"};
	for (size_t i = 0; i < sizeof elsewhere / sizeof elsewhere[0]; i++) {
		assert_int_equal(setenv("QKDGATE_SECRETS", elsewhere[i], 1), 0);
		expect_open(QG_E_MODE);
	}
	/* A name that only begins in the folder. */
	assert_true(snprintf(other, sizeof other, "%s/sub", dir) > 0);
	assert_true(snprintf(away, sizeof away, "%s/sub/../%s", dir, strrchr(master, '/') + 1) > 0);
	assert_int_equal(mkdir(other, 0700), 0);
	assert_int_equal(setenv("QKDGATE_SECRETS", other, 1), 0);
	options.master_key = away;
	expect_open(QG_E_MODE);
	assert_int_equal(rmdir(other), 0);
	assert_int_equal(chmod(master, 0400), 0);
	options.master_key = master;
	expect_open(QG_OK);
	assert_int_equal(unsetenv("QKDGATE_SECRETS"), 0);
}

/* Only root can make files of others. */
static void
mounted_secret_of_a_foreign_group_or_user(void **state)
{
	(void)state;
	if (geteuid() != 0)
		return;
	expect_open(QG_OK);
	assert_int_equal(setenv("QKDGATE_SECRETS", dir, 1), 0);
	assert_int_equal(chmod(master, 0440), 0);
	assert_int_equal(chown(master, (uid_t)-1, 12345), 0);
	expect_open(QG_E_MODE);
	const gid_t groups[] = {23456, 12345};
	assert_int_equal(setgroups(2, groups), 0);
	expect_open(QG_OK);
	assert_int_equal(setgroups(1, groups), 0);
	expect_open(QG_E_MODE);
	assert_int_equal(setgroups(0, NULL), 0);
	assert_int_equal(chown(master, 12345, getegid()), 0);
	expect_open(QG_E_MODE);
	assert_int_equal(unsetenv("QKDGATE_SECRETS"), 0);
}

static void
derived_keys_differ_by_purpose(void **state)
{
	(void)state;
	uint8_t a[32], b[32], again[32];
	qg_sealer *s = open_sealer();
	qg_sealer_derive(s, "anchor", a);
	qg_sealer_derive(s, "audit", b);
	qg_sealer_derive(s, "anchor", again);
	assert_memory_equal(a, again, 32);
	assert_memory_not_equal(a, b, 32);
	qg_sealer_close(&s);
}

/* What a crash left of an unfinished change is in nobody's way. */
static void
leftover_of_a_crash_is_replaced(void **state)
{
	(void)state;
	qg_sealer *s = open_sealer();
	write_file(ring_new, "half", 4, 0600);
	rotate(s);
	assert_int_not_equal(access(ring_new, F_OK), 0);
	qg_sealer_close(&s);
	s = open_sealer();
	assert_int_equal(qg_sealer_generation(s), 2);
	qg_sealer_close(&s);
}

static void
ring_that_cannot_be_written_changes_nothing(void **state)
{
	(void)state;
	enum { LEN = 8 + QG_SEAL_OVERHEAD };
	qg_sealer *s = open_sealer();
	assert_int_equal(qg_sealer_seal(s, "ad", 2, plain, 8, blob), QG_OK);
	rotate(s);
	assert_int_equal(mkdir(ring_new, 0700), 0); /* in the way of the new file */
	fake_elapsed_ms += 3600 * 1000;
	assert_int_equal(qg_sealer_rotate(s), QG_E_IO);
	assert_int_equal(qg_sealer_generation(s), 2);
	assert_int_equal(qg_sealer_destroy_below(s, 2), QG_E_IO);
	expect_unseal(s, "ad", blob, LEN, QG_OK);
	assert_int_equal(rmdir(ring_new), 0);
	assert_int_equal(qg_sealer_destroy_below(s, 2), QG_OK);
	expect_unseal(s, "ad", blob, LEN, QG_E_NOTFOUND);
	qg_sealer_close(&s);
	options.key_ring = "/nonexistent/folder/ring";
	expect_open(QG_E_IO);
}

typedef struct sealing_thread {
	qg_sealer *s;
	atomic_bool *stop;
	unsigned rounds;
} sealing_thread;

static void *
seal_and_unseal(void *arg)
{
	sealing_thread *t = arg;
	uint8_t mine[64 + QG_SEAL_OVERHEAD];
	while (!atomic_load(t->stop) || t->rounds == 0) {
		qg_secret *out = NULL;
		if (qg_sealer_seal(t->s, "ad", 2, plain, 64, mine) != QG_OK)
			abort();
		if (qg_sealer_unseal(t->s, "ad", 2, mine, sizeof mine, &out) != QG_OK
			|| memcmp(out->data, plain, 64) != 0)
			abort();
		qg_secret_free(&out);
		t->rounds++;
	}
	return NULL;
}

static void
threads_seal_while_the_ring_turns(void **state)
{
	(void)state;
	atomic_bool stop = false;
	pthread_t thread[3];
	sealing_thread arg[3];
	options.rotate_s = 0; /* at every call */
	qg_sealer *s = open_sealer();
	for (int i = 0; i < 3; i++) {
		arg[i] = (sealing_thread){.s = s, .stop = &stop};
		assert_int_equal(pthread_create(&thread[i], NULL, seal_and_unseal, &arg[i]), 0);
	}
	for (int i = 0; i < 100; i++) {
		assert_int_equal(qg_sealer_rotate(s), QG_OK);
		/* A blob is opened within the next hundred generations. */
		if (qg_sealer_generation(s) > 100)
			assert_int_equal(qg_sealer_destroy_below(s, qg_sealer_generation(s) - 100), QG_OK);
	}
	atomic_store(&stop, true);
	for (int i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(qg_sealer_generation(s), 101);
	qg_sealer_close(&s);
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
		CASE(what_was_sealed_comes_back),
		CASE(every_tampered_byte_is_noticed),
		CASE(parts_of_two_blobs_do_not_mix),
		CASE(every_seal_is_fresh),
		CASE(plaintext_is_not_in_the_blob_nor_keys_in_the_ring),
		CASE(rotation_waits_for_its_time),
		CASE(old_generations_open_until_they_are_destroyed),
		CASE(destroyed_keys_leave_the_disk),
		CASE(ring_has_room_for_256_generations),
		CASE(foreign_master_key_does_not_fit),
		CASE(damaged_ring_is_refused),
		CASE(loose_modes_are_refused),
		CASE(files_are_made_private),
		CASE(master_key_forms),
		CASE(master_key_from_a_credential),
		CASE(master_key_mounted_as_a_secret),
		CASE(mounted_secret_of_a_foreign_group_or_user),
		CASE(derived_keys_differ_by_purpose),
		CASE(leftover_of_a_crash_is_replaced),
		CASE(ring_that_cannot_be_written_changes_nothing),
		CASE(threads_seal_while_the_ring_turns),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("seal", tests, init, fini);
}
