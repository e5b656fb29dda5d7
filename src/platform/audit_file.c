/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log's file: opening it, finding where its chain ends. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit_internal.h"
#include "qkdgate/clock.h"

/* What is read of the end at first; doubled until a run begins in it. */
#define TAIL_BYTES ((size_t)64 * 1024)

qg_err
qg_audit_read_at(int fd, char *to, size_t n, off_t at)
{
	while (n > 0) {
		ssize_t got = pread(fd, to, n, at);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return QG_E_IO;
		to += got;
		at += got;
		n -= (size_t)got;
	}
	return QG_OK;
}

qg_err
qg_audit_write_at(int fd, const char *from, size_t n, off_t at)
{
	while (n > 0) {
		ssize_t put = pwrite(fd, from, n, at);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return QG_E_IO;
		from += put;
		at += put;
		n -= (size_t)put;
	}
	return QG_OK;
}

/* --- checking whole lines -------------------------------------------------- */

/* Checks the lines of text from *at on, and moves *at behind the last whole
 * one that verifies. False at the first that does not. */
static bool
check_lines(qg_audit_chain *c, const char *text, size_t n, size_t *at)
{
	const char *end;
	while ((end = memchr(text + *at, '\n', n - *at)) != NULL) {
		size_t len = (size_t)(end - text) - *at;
		if (!qg_audit_chain_check(c, text + *at, len))
			return false;
		*at += len + 1;
	}
	return true;
}

/* Takes lines on trust from the first whole one up to where a run begins. *at
 * is n when none does. False when one has not the form of a line. */
static bool
skip_to_run(qg_audit_chain *c, const char *text, size_t n, size_t *at)
{
	const char *end = memchr(text, '\n', n);
	size_t from = end != NULL ? (size_t)(end - text) + 1 : n;
	bool first = true, other_run = false;
	*at = n;
	while (from < n && (end = memchr(text + from, '\n', n - from)) != NULL) {
		/* The copy keeps the line before, if this one begins a run. */
		uint64_t seq = c->seq;
		uint8_t tag[QG_AUDIT_TAG];
		memcpy(tag, c->tag, sizeof tag);
		if (!qg_audit_chain_skip(c, text + from, (size_t)(end - text) - from, &other_run))
			return false;
		if (!first && other_run) {
			c->seq = seq;
			memcpy(c->tag, tag, sizeof tag);
			*at = from;
			return true;
		}
		first = false;
		from = (size_t)(end - text) + 1;
	}
	return true;
}

/* --- the end of the file --------------------------------------------------- */

/* One try with the last `window` bytes. *whole is the length of the file up to
 * its last newline. QG_E_AGAIN when no run begins in them. */
static qg_err
read_tail(int fd, size_t size, size_t window, const uint8_t key[32], qg_audit_chain *c, size_t *whole)
{
	size_t start = size - window, at = 0;
	char *text = malloc(window + 1);
	if (text == NULL)
		return QG_E_NOMEM;
	qg_err err = qg_audit_read_at(fd, text, window, (off_t)start);
	if (err == QG_OK)
		err = qg_audit_chain_init(c, key);
	if (err == QG_OK) {
		const char *first = start == 0 ? memchr(text, '\n', window) : NULL;
		if (first != NULL)
			(void)qg_audit_chain_begin(c, text, (size_t)(first - text));
		if (start > 0 && !skip_to_run(c, text, window, &at))
			err = QG_E_CORRUPT;
		else if (at == window && window > 0)
			err = QG_E_AGAIN;
		else if (!check_lines(c, text, window, &at) || window - at > QG_AUDIT_LINE_MAX)
			err = QG_E_CORRUPT;
		if (err != QG_OK)
			qg_audit_chain_fini(c);
	}
	free(text);
	if (err == QG_OK)
		*whole = start + at;
	return err;
}

/* The chain at the end of the file. */
static qg_err
find_end(int fd, size_t size, const uint8_t key[32], qg_audit_chain *c, size_t *whole)
{
	for (size_t window = TAIL_BYTES;; window *= 2) {
		qg_err err = read_tail(fd, size, window < size ? window : size, key, c, whole);
		if (err != QG_E_AGAIN || window >= size)
			return err;
	}
}

/* Writes a line that tells of the cut over what is cut. Should we crash in
 * between, what is there then is a torn line again. */
static qg_err
repair(qg_audit_file *f, qg_audit_chain *c, size_t torn)
{
	char reason[64], line[QG_AUDIT_LINE_MAX];
	int n = snprintf(reason, sizeof reason, "torn last line of %zu bytes cut off", torn);
	if (n < 0 || (size_t)n >= sizeof reason)
		return QG_E_RANGE;
	const qg_audit_head head = {.time_ms = qg_clock_wall_ms(), .act = QG_AUDIT_REPAIRED, .caller = "",
				    .peer = "", .reason = reason, .reason_len = (uint16_t)n};
	qg_audit_chain_event(c, &head);
	size_t len = qg_audit_chain_line(c, NULL, line);
	qg_err err = qg_audit_write_at(f->fd, line, len, f->end);
	if (err != QG_OK)
		return err;
	f->end += (off_t)len;
	return ftruncate(f->fd, f->end) == 0 && fdatasync(f->fd) == 0 ? QG_OK : QG_E_IO;
}

/* A file without a line goes on after the newest of those that were put aside: a
 * crash may have come between the two names. */
static qg_err
follow_last(qg_audit_file *f, const char *path, const uint8_t key[32], qg_audit_chain *c)
{
	struct stat st;
	size_t whole = 0;
	char *last = NULL, line[QG_AUDIT_LINE_MAX];
	qg_audit_chain before;
	qg_err err = qg_audit_last_rotated(path, &last);
	if (err != QG_OK || last == NULL)
		return err;
	int fd = open(last, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	free(last);
	if (fd < 0)
		return QG_E_IO;
	err = fstat(fd, &st) == 0 ? find_end(fd, (size_t)st.st_size, key, &before, &whole) : QG_E_IO;
	close(fd);
	if (err != QG_OK)
		return err;
	c->seq = before.seq;
	memcpy(c->tag, before.tag, sizeof c->tag);
	qg_audit_chain_fini(&before);
	const size_t n = qg_audit_chain_follow(c, qg_clock_wall_ms(), line);
	err = qg_audit_write_at(f->fd, line, n, 0);
	f->end = (off_t)n;
	return err == QG_OK && fdatasync(f->fd) != 0 ? QG_E_IO : err;
}

/* --- opening --------------------------------------------------------------- */

/* A new file's name is durable only with its folder. */
qg_err
qg_audit_sync_folder(const char *path)
{
	char *folder = strdup(path);
	if (folder == NULL)
		return QG_E_NOMEM;
	char *slash = strrchr(folder, '/');
	if (slash != NULL)
		slash[slash == folder] = '\0';
	int fd = open(slash != NULL ? folder : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(folder);
	if (fd < 0)
		return QG_E_IO;
	int rc = fsync(fd);
	close(fd);
	return rc == 0 ? QG_OK : QG_E_IO;
}

static qg_err
check_mode(int fd, size_t *size)
{
	struct stat st;
	if (fstat(fd, &st) != 0)
		return QG_E_IO;
	if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0 || (st.st_uid != geteuid() && st.st_uid != 0))
		return QG_E_MODE;
	*size = (size_t)st.st_size;
	return QG_OK;
}

static qg_err
open_fd(const char *path, int *out)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0 && errno == ENOENT) {
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		qg_err err = fd < 0 ? QG_E_IO : qg_audit_sync_folder(path);
		if (err != QG_OK && fd >= 0)
			close(fd);
		if (err != QG_OK)
			return err;
	}
	if (fd < 0)
		return QG_E_IO;
	if (flock(fd, LOCK_EX | LOCK_NB) != 0) {
		qg_err err = errno == EWOULDBLOCK ? QG_E_EXISTS : QG_E_IO;
		close(fd);
		return err;
	}
	*out = fd;
	return QG_OK;
}

qg_err
qg_audit_file_open(const char *path, const uint8_t key[32], qg_audit_file *out, qg_audit_chain *chain)
{
	qg_audit_file f;
	size_t size = 0, whole = 0;
	qg_err err = open_fd(path, &f.fd);
	if (err != QG_OK)
		return err;
	err = check_mode(f.fd, &size);
	if (err == QG_OK)
		err = find_end(f.fd, size, key, chain, &whole);
	if (err == QG_OK) {
		f.end = (off_t)whole;
		err = whole < size ? repair(&f, chain, size - whole) : QG_OK;
		if (err == QG_OK && f.end == 0)
			err = follow_last(&f, path, key, chain);
		if (err != QG_OK)
			qg_audit_chain_fini(chain);
	}
	if (err != QG_OK) {
		close(f.fd);
		return err;
	}
	*out = f;
	return QG_OK;
}
