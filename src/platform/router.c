/* SPDX-License-Identifier: Apache-2.0 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "router_internal.h"

/* --- the target ----------------------------------------------------------- */

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Whether a character stands for itself, in a query too. */
static bool
is_plain(char c)
{
#define BIT(c) (UINT64_C(1) << (c) % 64)
	static const uint64_t other[4] = {UINT64_C(0xffffffff) | BIT('%') | BIT('+'), BIT(0x7f)};
	const unsigned char u = (unsigned char)c;
	return (other[u / 64] >> u % 64 & 1) == 0;
#undef BIT
}

/* Decodes %XX of the NUL-terminated text in place; in a query '+' is a space. */
static qg_err
decode(char *text, bool in_query)
{
	char *to = text;
	while (is_plain(*to)) /* mostly all of it */
		to++;
	for (const char *from = to; *from != '\0'; from++) {
		unsigned char c = (unsigned char)*from;
		if (c < 0x20 || c == 0x7f)
			return QG_E_PARSE;
		if (c == '%') {
			int high = hex_value(from[1]);
			int low = high < 0 ? -1 : hex_value(from[2]);
			if (low < 0 || (high == 0 && low == 0))
				return QG_E_PARSE;
			*to++ = (char)(high << 4 | low);
			from += 2;
		} else {
			*to++ = in_query && c == '+' ? ' ' : (char)c;
		}
	}
	*to = '\0';
	return QG_OK;
}

/* Cuts the text at the next separator and gives what is behind, or NULL. */
static char *
cut(char *text, char separator)
{
	char *at = strchr(text, separator);
	if (at == NULL)
		return NULL;
	*at = '\0';
	return at + 1;
}

static qg_err
parse_query(char *text, qg_target *t)
{
	while (text != NULL) {
		char *next = cut(text, '&');
		if (text[0] != '\0') {
			if (t->n_query == QG_TARGET_QUERY_MAX)
				return QG_E_RANGE;
			char *value = cut(text, '=');
			if (decode(text, true) != QG_OK || (value != NULL && decode(value, true) != QG_OK))
				return QG_E_PARSE;
			t->query[t->n_query].name = text;
			t->query[t->n_query].value = value != NULL ? value : "";
			t->n_query++;
		}
		text = next;
	}
	return QG_OK;
}

static qg_err
parse_path(char *text, qg_target *t)
{
	bool too_deep = false;
	while (text != NULL) {
		char *next = cut(text, '/');
		if (decode(text, false) != QG_OK)
			return QG_E_PARSE;
		if (t->n_segments < QG_TARGET_SEGMENTS_MAX)
			t->segment[t->n_segments++] = text;
		else
			too_deep = true;
		text = next;
	}
	return too_deep ? QG_E_NOTFOUND : QG_OK;
}

/* The path of an absolute-form target (RFC 9112, 3.2.2), which servers must
 * take too; other forms as they are. */
static const char *
skip_authority(const char *raw)
{
	if (raw[0] == '/')
		return raw;
	const char *at = strstr(raw, "://");
	if (at == NULL)
		return raw;
	at += 3;
	at += strcspn(at, "/?");
	return at;
}

qg_err
qg_target_parse(const char *raw, char *scratch, qg_target *out)
{
	qg_target t = {0};
	raw = skip_authority(raw);
	size_t len = strlen(raw);
	char *path = scratch;
	char *work = scratch + len + 1;
	memcpy(path, raw, len + 1);
	memcpy(work, raw, len + 1);
	(void)cut(path, '?');
	t.path = path;
	char *query = cut(work, '?');
	qg_err err = work[0] == '/' ? parse_path(work + 1, &t) : QG_E_NOTFOUND;
	if (err == QG_OK && query != NULL)
		err = parse_query(query, &t);
	if (err != QG_OK)
		t.n_segments = t.n_query = 0;
	*out = t; /* the path is wanted for the audit in every case */
	return err;
}

/* --- the table ------------------------------------------------------------ */

typedef struct entry {
	const qg_http_route *route;
	const char *segment[QG_TARGET_SEGMENTS_MAX]; /* NULL: a {part} */
	size_t n_segments;
	char *text; /* holds the segments */
} entry;

struct qg_router {
	entry *entries; /* literal segments before {parts} */
	size_t n;
};

/* Orders by number of segments, then literal before {part} from the left. */
static int
entry_compare(const void *a, const void *b)
{
	const entry *x = a;
	const entry *y = b;
	if (x->n_segments != y->n_segments)
		return x->n_segments < y->n_segments ? -1 : 1;
	for (size_t i = 0; i < x->n_segments; i++)
		if ((x->segment[i] == NULL) != (y->segment[i] == NULL))
			return x->segment[i] == NULL ? 1 : -1;
	return x->route < y->route ? -1 : x->route > y->route;
}

static bool
same_pattern(const entry *a, const entry *b)
{
	if (a->n_segments != b->n_segments)
		return false;
	for (size_t i = 0; i < a->n_segments; i++) {
		const char *x = a->segment[i];
		const char *y = b->segment[i];
		if ((x == NULL) != (y == NULL) || (x != NULL && strcmp(x, y) != 0))
			return false;
	}
	return true;
}

/* A literal, or {name} as a whole. */
static bool
segment_valid(const char *s)
{
	size_t len = strlen(s);
	if (s[0] == '{')
		return len > 2 && s[len - 1] == '}' && strcspn(s + 1, "{}") == len - 2;
	return strpbrk(s, "{}%?") == NULL;
}

static qg_err
entry_compile(const qg_http_route *route, entry *e)
{
	if (route->pattern == NULL || route->pattern[0] != '/' || route->method == NULL ||
	    route->method[0] == '\0' || route->handler == NULL)
		return QG_E_INVAL;
	e->route = route;
	e->text = strdup(route->pattern + 1);
	if (e->text == NULL)
		return QG_E_NOMEM;
	for (char *at = e->text; at != NULL;) {
		char *next = cut(at, '/');
		if (e->n_segments == QG_TARGET_SEGMENTS_MAX || !segment_valid(at))
			return QG_E_INVAL;
		e->segment[e->n_segments++] = at[0] == '{' ? NULL : at;
		at = next;
	}
	return QG_OK;
}

static bool
has_twin(const qg_router *r, size_t i)
{
	for (size_t j = 0; j < i; j++)
		if (strcmp(r->entries[i].route->method, r->entries[j].route->method) == 0 &&
		    same_pattern(&r->entries[i], &r->entries[j]))
			return true;
	return false;
}

/* The longest Allow header that the table can need must have room. */
static bool
methods_fit(const qg_http_route *routes, size_t n)
{
	size_t sum = 1;
	for (size_t i = 0; i < n; i++) {
		bool seen = false;
		for (size_t j = 0; j < i && !seen; j++)
			seen = strcmp(routes[i].method, routes[j].method) == 0;
		if (!seen)
			sum += strlen(routes[i].method) + 2;
	}
	return sum <= QG_ROUTER_ALLOW_MAX;
}

qg_err
qg_router_new(const qg_http_route *routes, size_t n, qg_router **out)
{
	qg_router *r = calloc(1, sizeof *r);
	if (r == NULL)
		return QG_E_NOMEM;
	r->entries = calloc(n > 0 ? n : 1, sizeof *r->entries);
	qg_err err = r->entries != NULL ? QG_OK : QG_E_NOMEM;
	for (size_t i = 0; i < n && err == QG_OK; i++) {
		r->n = i + 1;
		err = entry_compile(&routes[i], &r->entries[i]);
		if (err == QG_OK && has_twin(r, i))
			err = QG_E_INVAL;
	}
	if (err == QG_OK && !methods_fit(routes, n))
		err = QG_E_INVAL;
	if (err != QG_OK) {
		qg_router_free(&r);
		return err;
	}
	if (n > 1)
		qsort(r->entries, n, sizeof *r->entries, entry_compare);
	*out = r;
	return QG_OK;
}

void
qg_router_free(qg_router **r)
{
	if (r == NULL || *r == NULL)
		return;
	for (size_t i = 0; i < (*r)->n; i++)
		free((*r)->entries[i].text);
	free((*r)->entries);
	free(*r);
	*r = NULL;
}

/* --- matching ------------------------------------------------------------- */

static bool
path_matches(const entry *e, const qg_target *t)
{
	if (e->n_segments != t->n_segments)
		return false;
	for (size_t i = 0; i < e->n_segments; i++) {
		if (e->segment[i] != NULL && strcmp(e->segment[i], t->segment[i]) != 0)
			return false;
	}
	return true;
}

static void
take_parts(const entry *e, const qg_target *t, qg_route_match *out)
{
	out->route = e->route;
	out->n_parts = 0;
	for (size_t i = 0; i < e->n_segments; i++)
		if (e->segment[i] == NULL)
			out->part[out->n_parts++] = t->segment[i];
}

/* Adds a method to the list unless it stands there; methods_fit made sure of
 * the room. */
static void
allow_add(char allow[QG_ROUTER_ALLOW_MAX], const char *method)
{
	size_t len = strlen(method);
	for (const char *at = allow; *at != '\0'; at += strspn(at, ", ")) {
		size_t n = strcspn(at, ",");
		if (n == len && memcmp(at, method, n) == 0)
			return;
		at += n;
	}
	size_t used = strlen(allow);
	if (used > 0) {
		memcpy(allow + used, ", ", 2);
		used += 2;
	}
	memcpy(allow + used, method, len + 1);
}

qg_err
qg_router_match(const qg_router *r, const char *method, const qg_target *t, qg_route_match *out,
		char allow[QG_ROUTER_ALLOW_MAX])
{
	const entry *known = NULL;
	for (size_t i = 0; i < r->n; i++) {
		const entry *e = &r->entries[i];
		if (!path_matches(e, t))
			continue;
		if (strcmp(e->route->method, method) == 0) {
			take_parts(e, t, out);
			return QG_OK;
		}
		if (known == NULL)
			allow[0] = '\0';
		known = e;
		allow_add(allow, e->route->method);
	}
	return known != NULL ? QG_E_UNSUPPORTED : QG_E_NOTFOUND;
}
