/* SPDX-License-Identifier: Apache-2.0 */
/* The files of one log: their names, and how the log goes on in another. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/grow.h"

#define NUMBER_DIGITS 12
#define NEW_SUFFIX ".new"

/* --- names ------------------------------------------------------------------- */

typedef struct found {
	uint64_t number; /* of the last line in it */
	char *path;
} found;

typedef struct found_list {
	found *item;
	size_t n, room;
} found_list;

static void
free_list(found_list *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->item[i].path);
	free(l->item);
	*l = (found_list){0};
}

static qg_err
add(found_list *l, uint64_t number, char *path)
{
	found *more = qg_grown(l->item, &l->room, l->n, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	l->item = more;
	l->item[l->n++] = (found){.number = number, .path = path};
	return QG_OK;
}

/* The number behind the name of a file that was put aside; 0: it is none. */
static uint64_t
number_of(const char *name, const char *base, size_t base_len)
{
	if (strncmp(name, base, base_len) != 0 || name[base_len] != '.')
		return 0;
	const char *digits = name + base_len + 1;
	const size_t n = strspn(digits, "0123456789");
	return n >= NUMBER_DIGITS && n < 20 && digits[n] == '\0' ? strtoull(digits, NULL, 10) : 0;
}

static int
by_number(const void *a, const void *b)
{
	const found *x = a, *y = b;
	return (x->number > y->number) - (x->number < y->number);
}

/* "FOLDER/" of a path, "" for the working folder. */
static size_t
folder_len(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash != NULL ? (size_t)(slash - path) + 1 : 0;
}

static qg_err
look_through(DIR *dir, const char *path, found_list *out)
{
	const size_t folder = folder_len(path), base_len = strlen(path + folder);
	for (const struct dirent *e; (e = readdir(dir)) != NULL;) {
		const uint64_t number = number_of(e->d_name, path + folder, base_len);
		char *whole = NULL;
		if (number == 0)
			continue;
		if (asprintf(&whole, "%.*s%s", (int)folder, path, e->d_name) < 0)
			return QG_E_NOMEM;
		if (add(out, number, whole) != QG_OK) {
			free(whole);
			return QG_E_NOMEM;
		}
	}
	if (out->n > 1)
		qsort(out->item, out->n, sizeof *out->item, by_number);
	return QG_OK;
}

/* Those that were put aside, oldest first. */
static qg_err
find_rotated(const char *path, found_list *out)
{
	char folder[PATH_MAX];
	const int n = snprintf(folder, sizeof folder, "%.*s", (int)folder_len(path), path);
	*out = (found_list){0};
	if (n < 0 || (size_t)n >= sizeof folder)
		return QG_E_IO;
	DIR *dir = opendir(n > 0 ? folder : ".");
	if (dir == NULL)
		return QG_E_IO;
	const qg_err err = look_through(dir, path, out);
	closedir(dir);
	if (err != QG_OK)
		free_list(out);
	return err;
}

qg_err
qg_audit_last_rotated(const char *path, char **out)
{
	found_list list;
	const qg_err err = find_rotated(path, &list);
	if (err != QG_OK)
		return err;
	*out = NULL;
	if (list.n > 0) {
		*out = list.item[list.n - 1].path;
		list.item[list.n - 1].path = NULL;
	}
	free_list(&list);
	return QG_OK;
}

void
qg_audit_paths_free(qg_audit_paths *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->path[i]);
	free(p->path);
	*p = (qg_audit_paths){0};
}

qg_err
qg_audit_paths_find(const char *path, qg_audit_paths *out)
{
	found_list list;
	qg_err err = find_rotated(path, &list);
	if (err != QG_OK)
		return err;
	qg_audit_paths p = {.path = calloc(list.n + 1, sizeof *p.path)};
	char *last = strdup(path);
	err = p.path != NULL && last != NULL ? QG_OK : QG_E_NOMEM;
	for (; err == QG_OK && p.n < list.n; p.n++) {
		p.path[p.n] = list.item[p.n].path;
		list.item[p.n].path = NULL;
	}
	if (err == QG_OK) {
		p.path[p.n++] = last;
		last = NULL;
	}
	free(last);
	free_list(&list);
	if (err != QG_OK) {
		qg_audit_paths_free(&p);
		return err;
	}
	*out = p;
	return QG_OK;
}

/* --- going on in another file --------------------------------------------------- */

/* The new file under its passing name, with its first line, locked and synced. */
static qg_err
make_next(const char *name, qg_audit_chain *c, qg_audit_file *out)
{
	char line[QG_AUDIT_LINE_MAX];
	if (unlink(name) != 0 && errno != ENOENT)
		return QG_E_IO;
	const int fd = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return QG_E_IO;
	const size_t n = qg_audit_chain_follow(c, qg_clock_wall_ms(), line);
	const bool ok = flock(fd, LOCK_EX | LOCK_NB) == 0 && qg_audit_write_at(fd, line, n, 0) == QG_OK &&
			fdatasync(fd) == 0;
	if (!ok) {
		close(fd);
		(void)unlink(name);
		return QG_E_IO;
	}
	*out = (qg_audit_file){.fd = fd, .end = (off_t)n};
	return QG_OK;
}

static bool
is_ours(int fd, const char *path)
{
	struct stat held, there;
	return fstat(fd, &held) == 0 && stat(path, &there) == 0 && held.st_dev == there.st_dev &&
	       held.st_ino == there.st_ino;
}

/* Only when both names stand, the old one is left. What is at `path` and is not
 * ours was put there by someone who moved ours away: it stays. */
static qg_err
change_names(const qg_audit_file *f, const char *path, const char *next, uint64_t last_seq)
{
	char aside[PATH_MAX];
	const int n = snprintf(aside, sizeof aside, "%s.%0*llu", path, NUMBER_DIGITS, (unsigned long long)last_seq);
	const bool ours = is_ours(f->fd, path);
	if (n < 0 || (size_t)n >= sizeof aside || access(aside, F_OK) == 0 || (!ours && access(path, F_OK) == 0))
		return QG_E_IO;
	if (ours && rename(path, aside) != 0)
		return QG_E_IO;
	if (rename(next, path) != 0) {
		if (ours)
			(void)rename(aside, path);
		return QG_E_IO;
	}
	/* Should this fail, a crash may bring back the old names: the next start copes with either. */
	(void)!qg_audit_sync_folder(path);
	return QG_OK;
}

qg_err
qg_audit_file_rotate(qg_audit_file *f, const char *path, qg_audit_chain *c)
{
	char name[PATH_MAX];
	qg_audit_file next = {.fd = -1};
	qg_audit_chain chain;
	const int n = snprintf(name, sizeof name, "%s" NEW_SUFFIX, path);
	if (c->seq == 0)
		return QG_OK; /* nothing to follow */
	if (n < 0 || (size_t)n >= sizeof name || fdatasync(f->fd) != 0)
		return QG_E_IO;
	qg_err err = qg_audit_chain_init(&chain, c->keys->data);
	if (err != QG_OK)
		return err;
	chain.seq = c->seq;
	memcpy(chain.tag, c->tag, sizeof chain.tag);
	err = make_next(name, &chain, &next);
	if (err == QG_OK)
		err = change_names(f, path, name, c->seq);
	if (err != QG_OK) {
		if (next.fd >= 0)
			close(next.fd);
		(void)unlink(name);
		qg_audit_chain_fini(&chain);
		return err;
	}
	close(f->fd);
	qg_audit_chain_fini(c);
	*f = next;
	*c = chain;
	return QG_OK;
}
