/* SPDX-License-Identifier: Apache-2.0 */
/* What differs between two configurations, by the schema. */
#include <stdio.h>
#include <string.h>

#include "config_internal.h"

#define PATH_ROOM 256

typedef struct comparison {
	bool all; /* also what a reload puts in force */
	size_t n; /* differences */
	char *names;
	size_t room, len;
} comparison;

static void compare_table(comparison *c, const cfg_option *table, const void *a, const void *b, const char *path);

static const char *
at(const void *base, size_t offset)
{
	return (const char *)base + offset;
}

static void
differs(comparison *c, const char *path)
{
	c->n++;
	if (c->names == NULL || c->len >= c->room)
		return;
	const int n = snprintf(c->names + c->len, c->room - c->len, "%s%s", c->len > 0 ? ", " : "", path);
	c->len += n > 0 ? (size_t)n : 0;
}

static bool
same_text(const void *a, const void *b)
{
	const char *x, *y;
	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return x == NULL || y == NULL ? x == y : strcmp(x, y) == 0;
}

typedef struct list {
	const char *first;
	size_t n;
} list;

static list
list_at(const cfg_option *o, const void *base)
{
	list l;
	memcpy(&l.first, at(base, o->offset), sizeof l.first);
	memcpy(&l.n, at(base, o->also), sizeof l.n);
	return l;
}

static void
compare_list(comparison *c, const cfg_option *o, const void *a, const void *b, const char *path)
{
	const list x = list_at(o, a), y = list_at(o, b);
	if (x.n != y.n) {
		differs(c, path);
		return;
	}
	for (size_t i = 0; i < x.n; i++) {
		const void *one = x.first + i * o->size, *other = y.first + i * o->size;
		char inner[PATH_ROOM];
		const int n = snprintf(inner, sizeof inner, "%s[%zu]", path, i);
		if (n <= 0 || (size_t)n >= sizeof inner)
			return;
		if (o->type == CFG_ENTRIES)
			compare_table(c, o->fields, one, other, inner);
		else if (!same_text(one, other))
			differs(c, inner);
	}
}

static void
compare_option(comparison *c, const cfg_option *o, const void *a, const void *b, const char *path)
{
	switch (o->type) {
	case CFG_SECTION:
		if (o->marked && memcmp(at(a, o->also), at(b, o->also), sizeof(bool)) != 0)
			differs(c, path);
		else
			compare_table(c, o->fields, at(a, o->offset), at(b, o->offset), path);
		break;
	case CFG_ENTRIES:
	case CFG_PATTERNS:
	case CFG_NAMES:
		compare_list(c, o, a, b, path);
		break;
	case CFG_UINT:
	case CFG_BOOL:
	case CFG_CHOICE:
		if (memcmp(at(a, o->offset), at(b, o->offset), o->size) != 0)
			differs(c, path);
		break;
	case CFG_LISTEN:
	case CFG_ENDPOINT:
		if (!same_text(at(a, o->offset), at(b, o->offset)) ||
		    memcmp(at(a, o->also), at(b, o->also), sizeof(unsigned)) != 0)
			differs(c, path);
		break;
	default:
		if (!same_text(at(a, o->offset), at(b, o->offset)))
			differs(c, path);
		break;
	}
}

static void
compare_table(comparison *c, const cfg_option *table, const void *a, const void *b, const char *path)
{
	for (const cfg_option *o = table; o->name != NULL; o++) {
		char inner[PATH_ROOM];
		const int n = snprintf(inner, sizeof inner, "%s%s%s", path, path[0] != '\0' ? "." : "", o->name);
		if (n > 0 && (size_t)n < sizeof inner && (c->all || !o->live))
			compare_option(c, o, a, b, inner);
	}
}

qg_err
qg_config_restart_options(const qg_config *was, const qg_config *now, char *names, size_t room)
{
	comparison c = {.names = names, .room = room};
	names[0] = '\0';
	compare_table(&c, qg_cfg_schema, was, now, "");
	return c.n > 0 ? QG_E_STATE : QG_OK;
}

bool
qg_config_same(const qg_config *a, const qg_config *b)
{
	comparison c = {.all = true};
	compare_table(&c, qg_cfg_schema, a, b, "");
	return c.n == 0;
}
