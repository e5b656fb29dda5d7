/* SPDX-License-Identifier: Apache-2.0 */
/* Checks the files of an audit log as one chain, and says where it breaks. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "audit_internal.h"

#define ROOM ((size_t)256 * 1024)
_Static_assert(ROOM > 2 * QG_AUDIT_LINE_MAX, "a line fits");
_Static_assert(QG_AUDIT_TAG == QG_AUDIT_TAG_BYTES, "one size");

typedef struct check {
	qg_audit_chain chain;
	const qg_audit_end *known; /* or NULL */
	qg_audit_report *report;
	size_t line; /* of the file, that was read last */
	bool begun;  /* a line of the log was checked */
} check;

static qg_err QG_PRINTF(2, 3)
bad(check *k, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(k->report->what, sizeof k->report->what, fmt, ap) < 0)
		k->report->what[0] = '\0';
	va_end(ap);
	k->report->bad_line = k->line;
	return QG_E_CORRUPT;
}

/* --- one line --------------------------------------------------------------------- */

static qg_err
say_missing(check *k, uint64_t from, uint64_t to)
{
	if (from == to)
		return bad(k, "line %" PRIu64 " of the log is missing here", from);
	return bad(k, "lines %" PRIu64 " to %" PRIu64 " of the log are missing here", from, to);
}

/* Why the line is not the next one. */
static qg_err
diagnose(check *k, const char *line, size_t n)
{
	uint64_t seq = 0;
	const uint64_t want = k->chain.seq + 1;
	if (!qg_audit_chain_number(line, n, &seq))
		return bad(k, "this is no line of an audit log");
	if (seq > want)
		return say_missing(k, want, seq - 1);
	if (seq < want)
		return bad(k, "line %" PRIu64 " of the log stands here again, or in another place", seq);
	return bad(k, "this line was changed%s", k->begun ? "" : ", or the key is not that of this log");
}

/* The first line of a file may say which it follows: then that must be the one before. */
static qg_err
begin_file(check *k, const char *line, size_t n)
{
	const qg_audit_end before = k->report->end;
	if (!qg_audit_chain_begin(&k->chain, line, n) || !k->begun)
		return QG_OK;
	if (k->chain.seq == before.seq && memcmp(k->chain.tag, before.tag, sizeof before.tag) == 0)
		return QG_OK;
	if (k->chain.seq > before.seq)
		return say_missing(k, before.seq + 1, k->chain.seq);
	return bad(k, "this file follows line %" PRIu64 ", and not line %" PRIu64 ", the last before it",
		   k->chain.seq, before.seq);
}

static qg_err
check_line(check *k, const char *line, size_t n)
{
	k->line++;
	qg_err err = k->line == 1 ? begin_file(k, line, n) : QG_OK;
	if (err != QG_OK)
		return err;
	const uint64_t from = k->chain.seq;
	if (!qg_audit_chain_check(&k->chain, line, n))
		return diagnose(k, line, n);
	if (!k->begun)
		k->report->first = from + 1;
	k->begun = true;
	k->report->lines++;
	k->report->end.seq = k->chain.seq;
	memcpy(k->report->end.tag, k->chain.tag, QG_AUDIT_TAG);
	if (k->known != NULL && k->known->seq == k->chain.seq &&
	    memcmp(k->known->tag, k->chain.tag, QG_AUDIT_TAG) != 0)
		return bad(k, "this is another line than the log once had here: it was written anew");
	return QG_OK;
}

/* --- one file ----------------------------------------------------------------------- */

static qg_err
check_text(check *k, const char *text, size_t n, size_t *at)
{
	const char *end;
	qg_err err = QG_OK;
	while (err == QG_OK && (end = memchr(text + *at, '\n', n - *at)) != NULL) {
		const size_t len = (size_t)(end - text) - *at;
		err = check_line(k, text + *at, len);
		*at += len + 1;
	}
	if (err == QG_OK && n - *at > QG_AUDIT_LINE_MAX) {
		k->line++;
		err = bad(k, "this is no line of an audit log");
	}
	return err;
}

static qg_err
check_fd(check *k, int fd, char *text)
{
	size_t held = 0;
	qg_err err = QG_OK;
	k->line = 0;
	while (err == QG_OK) {
		const ssize_t got = read(fd, text + held, ROOM - held);
		size_t at = 0;
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return QG_E_IO;
		if (got == 0)
			break;
		held += (size_t)got;
		err = check_text(k, text, held, &at);
		held -= at;
		memmove(text, text + at, held);
	}
	/* Who writes it holds its lock: then the rest of the line is on its way. */
	if (err == QG_OK && held > 0 && flock(fd, LOCK_SH | LOCK_NB) == 0) {
		k->line++;
		err = bad(k, "this line is not whole");
	}
	return err;
}

static qg_err
check_file(check *k, const char *path, char *text)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return QG_E_IO;
	const qg_err err = check_fd(k, fd, text);
	close(fd);
	return err;
}

/* --- in order ------------------------------------------------------------------------- */

typedef struct place {
	size_t of;    /* in the list that was given */
	uint64_t seq; /* of its first line; 0: has none */
} place;

static int
by_seq(const void *a, const void *b)
{
	const place *x = a, *y = b;
	return x->seq != y->seq ? (x->seq > y->seq) - (x->seq < y->seq) : (x->of > y->of) - (x->of < y->of);
}

static uint64_t
first_seq(const char *path, char *text)
{
	uint64_t seq = 0;
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	const ssize_t n = fd >= 0 ? read(fd, text, QG_AUDIT_LINE_MAX) : -1;
	const char *end = n > 0 ? memchr(text, '\n', (size_t)n) : NULL;
	if (fd >= 0)
		close(fd);
	return end != NULL && qg_audit_chain_number(text, (size_t)(end - text), &seq) ? seq : 0;
}

static qg_err
check_all(check *k, const char *const *paths, place *order, size_t n, char *text)
{
	qg_err err = QG_OK;
	for (size_t i = 0; i < n; i++)
		order[i] = (place){.of = i, .seq = first_seq(paths[i], text)};
	qsort(order, n, sizeof *order, by_seq);
	for (size_t i = 0; err == QG_OK && i < n; i++) {
		k->report->bad_file = order[i].of;
		err = check_file(k, paths[order[i].of], text);
	}
	const uint64_t last = k->report->end.seq;
	if (err == QG_OK && k->known != NULL && k->known->seq > last) {
		k->line++;
		err = bad(k, "the end was cut off: lines %" PRIu64 " to %" PRIu64 " are missing", last + 1, k->known->seq);
	}
	return err;
}

qg_err
qg_audit_verify_files(const char *const *paths, size_t n, const unsigned char key[32], const qg_audit_end *known,
		      qg_audit_report *out)
{
	check *k = calloc(1, sizeof *k);
	place *order = calloc(n + 1, sizeof *order);
	char *text = malloc(ROOM);
	*out = (qg_audit_report){0};
	qg_err err = k != NULL && order != NULL && text != NULL ? qg_audit_chain_init(&k->chain, key) : QG_E_NOMEM;
	if (err == QG_OK) {
		k->known = known;
		k->report = out;
		err = check_all(k, paths, order, n, text);
		qg_audit_chain_fini(&k->chain);
	}
	free(text);
	free(order);
	free(k);
	return err;
}

qg_err
qg_audit_verify(const char *path, const unsigned char key[32], size_t *bad_line)
{
	qg_audit_report r;
	const qg_err err = qg_audit_verify_files(&path, 1, key, NULL, &r);
	if (err == QG_E_CORRUPT)
		*bad_line = r.bad_line;
	return err;
}
