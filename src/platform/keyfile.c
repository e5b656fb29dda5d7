/* SPDX-License-Identifier: Apache-2.0 */
#include "keyfile_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMPORARY ".new"
#define SECRETS "/run/secrets"
#define GROUPS_MAX 1024 /* who has more gets none of this */

void
qg_keyfile_close(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Hands a descriptor on that would else be closed at the end of its scope. */
static int
take(int *fd)
{
	int taken = *fd;
	*fd = -1;
	return taken;
}

static qg_err
check_mode(const struct stat *st, mode_t loose)
{
	bool ours = st->st_uid == geteuid() || st->st_uid == 0;
	return S_ISREG(st->st_mode) && (st->st_mode & loose) == 0 && ours ? QG_OK : QG_E_MODE;
}

qg_err
qg_keyfile_check(const char *path, mode_t loose)
{
	struct stat st;
	if (stat(path, &st) != 0)
		return errno == ENOENT ? QG_E_NOTFOUND : QG_E_IO;
	return check_mode(&st, loose);
}

static qg_err
open_and_stat(const char *path, int flags, int *out, struct stat *st)
{
	/* O_NONBLOCK: a FIFO put in the file's place must not hang the start. */
	QG_FD_AUTO fd = open(path, flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return errno == ENOENT ? QG_E_NOTFOUND : QG_E_IO;
	if (fstat(fd, st) != 0)
		return QG_E_IO;
	*out = take(&fd);
	return QG_OK;
}

qg_err
qg_keyfile_open(const char *path, int flags, mode_t loose, int *out)
{
	struct stat st;
	QG_FD_AUTO fd = -1;
	qg_err err = open_and_stat(path, flags, &fd, &st);
	if (err == QG_OK)
		err = check_mode(&st, loose);
	if (err == QG_OK)
		*out = take(&fd);
	return err;
}

const char *
qg_keyfile_secrets(void)
{
	const char *const folder = secure_getenv("QKDGATE_SECRETS");
	return folder != NULL && folder[0] == '/' ? folder : SECRETS;
}

static bool
is_mounted(const char *path)
{
	const char *const folder = qg_keyfile_secrets();
	const size_t len = strlen(folder);
	return strncmp(path, folder, len) == 0 && path[len] == '/' && strstr(path, "/../") == NULL;
}

static bool
is_own_group(gid_t group)
{
	gid_t groups[GROUPS_MAX];
	const int n = getgroups(GROUPS_MAX, groups);
	for (int i = 0; i < n; i++)
		if (groups[i] == group)
			return true;
	return group == getegid();
}

qg_err
qg_keyfile_check_secret(const char *path, const struct stat *st, mode_t loose)
{
	if (is_mounted(path) && is_own_group(st->st_gid))
		loose &= (mode_t)~S_IRGRP;
	return check_mode(st, loose);
}

qg_err
qg_keyfile_open_secret(const char *path, mode_t loose, int *out)
{
	struct stat st;
	QG_FD_AUTO fd = -1;
	qg_err err = open_and_stat(path, O_RDONLY, &fd, &st);
	if (err == QG_OK)
		err = qg_keyfile_check_secret(path, &st, loose);
	if (err == QG_OK)
		*out = take(&fd);
	return err;
}

qg_err
qg_keyfile_create(const char *path, int *out)
{
	QG_FD_AUTO fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return errno == EEXIST ? QG_E_EXISTS : QG_E_IO;
	if (fchmod(fd, 0600) != 0) /* whatever the umask took away */
		return QG_E_IO;
	*out = take(&fd);
	return QG_OK;
}

qg_err
qg_keyfile_read(int fd, void *buf, size_t n, size_t *got)
{
	size_t have = 0;
	while (have < n) {
		ssize_t r = pread(fd, (uint8_t *)buf + have, n - have, (off_t)have);
		if (r < 0 && errno == EINTR)
			continue;
		if (r < 0)
			return QG_E_IO;
		if (r == 0)
			break;
		have += (size_t)r;
	}
	*got = have;
	return QG_OK;
}

qg_err
qg_keyfile_write_at(int fd, const void *buf, size_t n, off_t at)
{
	size_t done = 0;
	while (done < n) {
		ssize_t r = pwrite(fd, (const uint8_t *)buf + done, n - done, at + (off_t)done);
		if (r < 0 && errno == EINTR)
			continue;
		if (r <= 0)
			return QG_E_IO;
		done += (size_t)r;
	}
	return QG_OK;
}

qg_err
qg_keyfile_sync_folder(const char *path)
{
	char folder[PATH_MAX];
	const char *slash = strrchr(path, '/');
	/* With its last slash, so that "/file" gives "/". */
	int keep = slash != NULL ? (int)(slash - path) + 1 : 0;
	int len = snprintf(folder, sizeof folder, "%.*s", keep, path);
	if (len < 0 || (size_t)len >= sizeof folder)
		return QG_E_IO;
	QG_FD_AUTO fd = open(keep > 0 ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd >= 0 && fsync(fd) == 0 ? QG_OK : QG_E_IO;
}

static qg_err
write_temporary(const char *path, const void *bytes, size_t n)
{
	QG_FD_AUTO fd = -1;
	/* One left by a crash was never in use. */
	if (unlink(path) != 0 && errno != ENOENT)
		return QG_E_IO;
	if (qg_keyfile_create(path, &fd) != QG_OK || qg_keyfile_write_at(fd, bytes, n, 0) != QG_OK)
		return QG_E_IO;
	return fsync(fd) == 0 ? QG_OK : QG_E_IO;
}

/* Best effort, as docs/storage.md says: many file systems and drives write the
 * zeros elsewhere. */
static void
overwrite_old(int fd)
{
	static const uint8_t zeros[4096];
	struct stat st;
	if (fd < 0 || fstat(fd, &st) != 0 || st.st_nlink != 0)
		return;
	for (off_t at = 0; at < st.st_size; at += (off_t)sizeof zeros) {
		off_t left = st.st_size - at;
		size_t n = left < (off_t)sizeof zeros ? (size_t)left : sizeof zeros;
		if (qg_keyfile_write_at(fd, zeros, n, at) != QG_OK)
			return;
	}
	if (fdatasync(fd) != 0)
		return;
}

qg_err
qg_keyfile_replace(const char *path, const void *bytes, size_t n)
{
	char temporary[PATH_MAX];
	int len = snprintf(temporary, sizeof temporary, "%s" TEMPORARY, path);
	if (len < 0 || (size_t)len >= sizeof temporary)
		return QG_E_IO;
	QG_FD_AUTO old = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (write_temporary(temporary, bytes, n) != QG_OK || rename(temporary, path) != 0) {
		(void)unlink(temporary);
		return QG_E_IO;
	}
	if (qg_keyfile_sync_folder(path) != QG_OK)
		return QG_E_IO;
	overwrite_old(old);
	return QG_OK;
}
