/* SPDX-License-Identifier: Apache-2.0 */
#include "core_common.h"

#include <errno.h>
#include <ftw.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* --- time ----------------------------------------------------------------------- */

_Atomic uint64_t pair_ahead_ms;
_Atomic int64_t pair_wall_ahead_ms;

static uint64_t test_elapsed_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + atomic_load(&pair_ahead_ms);
}

static int64_t test_wall_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + atomic_load(&pair_wall_ahead_ms);
}

void pair_clock(void)
{
	static const qg_clock_ops ops = { .elapsed_ms = test_elapsed_ms, .wall_ms = test_wall_ms };
	qg_clock_use(&ops);
}

void pair_nap(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "the harness failed: %s\n", what);
	abort();
}

int pair_init(void)
{
	qg_log_init(getenv("QG_TEST_LOG") != NULL ? QG_LOG_DEBUG : QG_LOG_ERROR, QG_LOG_TEXT);
	pair_clock();
	return qg_secret_init() == QG_OK ? 0 : 1;
}

/* --- files --------------------------------------------------------------------------- */

static void put_text(char *out, size_t room, const char *dir, const char *name)
{
	int n = snprintf(out, room, "%s/%s", dir, name);
	must(n > 0 && (size_t)n < room, "a name is too long");
}

static void copy_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "rb");
	if (in == NULL) {
		(void)unlink(to);
		return;
	}
	(void)unlink(to);
	FILE *out = fopen(to, "wb");
	must(out != NULL && chmod(to, 0600) == 0, to);
	char block[65536];
	for (size_t n; (n = fread(block, 1, sizeof block, in)) > 0;)
		must(fwrite(block, 1, n, out) == n, to);
	fclose(in);
	must(fclose(out) == 0, to);
}

static void copy_files(const char *from_dir, const char *to_dir, bool with_anchor, bool with_keys)
{
	/* The anchor first: it may lag behind the database, never be ahead. */
	static const char *const names[] = { "anchor", "db", "db-wal", "master", "ring" };
	for (size_t i = with_anchor ? 0 : 1; i < (with_keys ? 5 : 3); i++) {
		char from[256], to[256];
		put_text(from, sizeof from, from_dir, names[i]);
		put_text(to, sizeof to, to_dir, names[i]);
		copy_file(from, to);
	}
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

static void remove_folder(const char *dir)
{
	must(nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, dir);
}

static _Thread_local const void *sought;
static _Thread_local size_t sought_len;

static int seek_in(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)ftw;
	if (flag != FTW_F || st->st_size == 0)
		return 0;
	FILE *f = fopen(path, "rb");
	char *all = malloc((size_t)st->st_size);
	size_t n = f != NULL && all != NULL ? fread(all, 1, (size_t)st->st_size, f) : 0;
	int found = n >= sought_len && memmem(all, n, sought, sought_len) != NULL;
	if (f != NULL)
		fclose(f);
	free(all);
	return found;
}

bool folder_holds(const char *dir, const void *bytes, size_t n)
{
	sought = bytes;
	sought_len = n;
	return nftw(dir, seek_in, 16, FTW_PHYS) != 0;
}

#include "core_common_store.c"
#include "core_common_source.c"
#include "core_common_keys.c"
