/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the TLS rules that need no TLS library: names and files. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "keyfile_internal.h"
#include "qkdgate/tls.h"
#include "tls_internal.h"

#define FILE_MAX_BYTES ((off_t)1024 * 1024)

void
qg_tls_say(char *why, size_t why_room, const char *fmt, ...)
{
	if (why == NULL || why_room == 0)
		return;
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(why, why_room, fmt, ap) < 0)
		why[0] = '\0';
	va_end(ap);
}

static bool
any_equal(const char names[][QG_TLS_NAME_MAX], size_t n, const char *name,
	  int (*compare)(const char *, const char *))
{
	for (size_t i = 0; i < n && i < QG_TLS_NAMES_MAX; i++)
		if (compare(names[i], name) == 0)
			return true;
	return false;
}

bool
qg_tls_matches(const qg_tls_match *match, const qg_tls_identity *id)
{
	if (match->uri != NULL)
		return match->uri[0] != '\0' && any_equal(id->uri, id->n_uri, match->uri, strcmp);
	if (match->dns != NULL)
		return match->dns[0] != '\0' && any_equal(id->dns, id->n_dns, match->dns, strcasecmp);
	if (match->cn != NULL)
		return match->cn[0] != '\0' && strcmp(id->cn, match->cn) == 0;
	if (match->fingerprint != NULL)
		return strlen(match->fingerprint) == sizeof id->fingerprint - 1 &&
		       strcasecmp(id->fingerprint, match->fingerprint) == 0;
	return false;
}

static void
close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
}

/* Refuse, not warn: a key that others can read is no key. */
static qg_err
check_mode(const struct stat *st, const char *path, char *why, size_t why_room)
{
	const qg_err err = qg_keyfile_check_secret(path, st, S_IRWXG | S_IRWXO);
	if (err == QG_OK)
		return QG_OK;
	if (st->st_uid != geteuid() && st->st_uid != 0)
		qg_tls_say(why, why_room, "%s: belongs to user %u, should be ours or root's", path, st->st_uid);
	else
		qg_tls_say(why, why_room, "%s: mode %04o, group %u, should be 0600 or 0400; below %s also 0440 "
			   "of a group of this process", path, st->st_mode & 07777u, st->st_gid,
			   qg_keyfile_secrets());
	return err;
}

static qg_err
check_file(int fd, const char *path, bool private, char *why, size_t why_room, size_t *size)
{
	struct stat st;
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
		qg_tls_say(why, why_room, "%s: not a regular file", path);
		return QG_E_IO;
	}
	if (private) {
		qg_err err = check_mode(&st, path, why, why_room);
		if (err != QG_OK)
			return err;
	}
	if (st.st_size > FILE_MAX_BYTES) {
		qg_tls_say(why, why_room, "%s: larger than 1 MiB", path);
		return QG_E_RANGE;
	}
	*size = (size_t)st.st_size;
	return QG_OK;
}

static qg_err
read_all(int fd, qg_secret *s, size_t size)
{
	while (s->len < size) {
		ssize_t n = read(fd, s->data + s->len, size - s->len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return QG_E_IO;
		s->len += (size_t)n;
	}
	return QG_OK;
}

qg_err
qg_tls_read_file(const char *path, bool private, char *why, size_t why_room, qg_secret **out)
{
	__attribute__((cleanup(close_fd))) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		qg_tls_say(why, why_room, "%s: %s", path, strerror(errno));
		return QG_E_IO;
	}
	size_t size = 0;
	qg_err err = check_file(fd, path, private, why, why_room, &size);
	if (err != QG_OK)
		return err;
	QG_SECRET_AUTO *s = NULL;
	err = qg_secret_new(size + 1, &s);
	if (err != QG_OK)
		return err;
	err = read_all(fd, s, size);
	if (err != QG_OK) {
		qg_tls_say(why, why_room, "%s: cannot be read in full", path);
		return err;
	}
	*out = s;
	s = NULL;
	return QG_OK;
}
