/* SPDX-License-Identifier: Apache-2.0 */
/* Looks through an audit log from its end. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "audit_internal.h"

#define BLOCK ((size_t)256 * 1024)
#define LOOK_MAX ((size_t)256 * 1024 * 1024)
#define NEEDLE_MAX (6 * QG_AUDIT_STRING_MAX + 32)

/* What a line must hold, as it stands there. */
typedef struct needle {
	char text[NEEDLE_MAX];
	size_t len; /* 0: anything */
} needle;

typedef struct finder {
	const qg_audit_filter *filter;
	needle act, caller, peer, id;
	char **line; /* newest first */
	size_t n;
	size_t looked; /* bytes */
	bool ended;    /* what is older is not wanted */
	qg_err err;
} finder;

static void
make_needle(needle *n, const char *before, const char *value)
{
	char *p = n->text + snprintf(n->text, sizeof n->text, "%s", before);
	for (const unsigned char *c = (const unsigned char *)value; *c != '\0'; c++) {
		const bool plain = *c >= 0x20 && *c < 0x7f && *c != '"' && *c != '\\';
		const size_t room = sizeof n->text - (size_t)(p - n->text);
		const int len = snprintf(p, room, plain ? "%c" : "\\u00%02x", *c);
		if (len < 0 || (size_t)len + 2 > room)
			break;
		p += len;
	}
	*p++ = '"';
	n->len = (size_t)(p - n->text);
}

static bool
has(const needle *n, const char *line, size_t len)
{
	return n->len > 0 && memmem(line, len, n->text, n->len) != NULL;
}

static bool
matches(const finder *f, const char *line, size_t len)
{
	if (f->act.len > 0 && !has(&f->act, line, len))
		return false;
	if (f->id.len > 0 && !has(&f->id, line, len))
		return false;
	return f->caller.len == 0 || has(&f->caller, line, len) || has(&f->peer, line, len);
}

/* Lines stand in the order of their time. */
static bool
too_old(const finder *f, const char *line, size_t len)
{
	static const char is[] = ",\"time\":\"";
	const char *since = f->filter->since;
	const char *at = since != NULL ? memmem(line, len, is, sizeof is - 1) : NULL;
	return at != NULL && strncmp(at + sizeof is - 1, since, strlen(since)) < 0;
}

static void
take(finder *f, const char *line, size_t len)
{
	f->looked += len + 1;
	if (len == 0 || f->ended)
		return;
	f->ended = too_old(f, line, len);
	if (f->ended || !matches(f, line, len))
		return;
	char *copy = strndup(line, len);
	if (copy == NULL)
		f->err = QG_E_NOMEM;
	else
		f->line[f->n++] = copy;
	f->ended = f->n == f->filter->most || copy == NULL;
}

/* The whole lines of text, from its end; what stands before the first newline is left: *left bytes. */
static void
take_back(finder *f, const char *text, size_t n, bool from_start, size_t *left)
{
	size_t end = n;
	while (end > 0 && !f->ended) {
		const char *before = memrchr(text, '\n', end);
		if (before == NULL)
			break;
		const size_t at = (size_t)(before - text) + 1;
		take(f, text + at, end - at);
		end = at - 1;
	}
	if (from_start && end > 0 && !f->ended) {
		take(f, text, end);
		end = 0;
	}
	*left = end;
}

/* A torn line at the end, of a file being written, is not taken. */
static size_t
whole_end(const char *text, size_t n)
{
	const char *last = memrchr(text, '\n', n);
	return last != NULL ? (size_t)(last - text) : 0;
}

static void
look_at(finder *f, int fd, size_t size, char *text)
{
	size_t at = size, left = 0; /* text holds `left` bytes that stand at `at` */
	bool newest = true;
	while (at > 0 && !f->ended && f->err == QG_OK && f->looked < LOOK_MAX) {
		const size_t n = at < BLOCK ? at : BLOCK;
		memmove(text + n, text, left);
		f->err = qg_audit_read_at(fd, text, n, (off_t)(at - n));
		at -= n;
		if (f->err != QG_OK)
			return;
		const size_t end = newest ? whole_end(text, n) : n + left;
		newest = false;
		take_back(f, text, end, at == 0, &left);
		if (left > QG_AUDIT_LINE_MAX)
			left = 0; /* no line of ours */
	}
}

static void
look_through(finder *f, const char *path, char *text)
{
	struct stat st;
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	f->err = fd >= 0 && fstat(fd, &st) == 0 ? QG_OK : QG_E_IO;
	if (f->err == QG_OK)
		look_at(f, fd, (size_t)st.st_size, text);
	if (fd >= 0)
		close(fd);
}

static void
prepare(finder *f)
{
	const qg_audit_filter *w = f->filter;
	if (w->act != NULL)
		make_needle(&f->act, ",\"act\":\"", w->act);
	if (w->id != NULL)
		make_needle(&f->id, ",\"id\":\"", w->id);
	if (w->who != NULL) {
		make_needle(&f->caller, ",\"caller\":\"", w->who);
		make_needle(&f->peer, ",\"peer\":\"", w->who);
	}
}

qg_err
qg_audit_find(const char *const *paths, size_t n, const qg_audit_filter *filter,
	      void (*each)(const char *line, size_t len, void *ctx), void *ctx, bool *all)
{
	finder *f = calloc(1, sizeof *f);
	char **lines = calloc(filter->most + 1, sizeof(char *));
	char *text = malloc(BLOCK + QG_AUDIT_LINE_MAX + 1);
	qg_err err = f != NULL && lines != NULL && text != NULL ? QG_OK : QG_E_NOMEM;
	if (err == QG_OK) {
		f->filter = filter;
		f->line = lines;
		f->ended = filter->most == 0;
		prepare(f);
		size_t i = n;
		while (i > 0 && !f->ended && f->err == QG_OK && f->looked < LOOK_MAX)
			look_through(f, paths[--i], text);
		err = f->err;
		*all = f->n < filter->most && f->looked < LOOK_MAX;
		for (size_t k = f->n; k > 0; k--) {
			if (err == QG_OK)
				each(lines[k - 1], strlen(lines[k - 1]), ctx);
			free(lines[k - 1]);
		}
	}
	free(text);
	free(lines);
	free(f);
	return err;
}
