/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "config_internal.h"

#define PROBLEMS_MAX 1000 /* listed; a file of rubbish has no more to say */
#define SHOWN_MAX 60
#define NAME_SHOWN_MAX 48
#define TEXT_ROOM 512

typedef struct cfg_problem {
	unsigned line;
	size_t order; /* of finding, for those of one line */
	const char *option;
	const char *text;
} cfg_problem;

cfg_node *
qg_cfg_node(cfg_mem *m, cfg_node *parent, cfg_kind kind, const char *name, unsigned line)
{
	cfg_node *n = qg_cfg_alloc(m, sizeof *n);
	if (n == NULL)
		return NULL;
	n->kind = kind;
	n->name = name;
	n->line = line;
	n->parent = parent;
	if (parent == NULL)
		return n;
	if (parent->last == NULL) {
		parent->first = n;
	} else {
		n->index = parent->last->index + 1;
		parent->last->next = n;
	}
	parent->last = n;
	return n;
}

cfg_node *
qg_cfg_find(const cfg_node *map, const char *name)
{
	if (map == NULL || map->kind != CFG_MAP)
		return NULL;
	for (cfg_node *n = map->first; n != NULL; n = n->next)
		if (strcmp(n->name, name) == 0)
			return n;
	return NULL;
}

const char *
qg_cfg_text(const cfg_node *map, const char *name)
{
	const cfg_node *const n = qg_cfg_find(map, name);
	return n == NULL || n->bad || n->kind != CFG_SCALAR ? NULL : n->text;
}

bool
qg_cfg_number(const cfg_node *map, const char *name, uint64_t *out)
{
	const char *const text = qg_cfg_text(map, name);
	if (text == NULL || text[0] < '0' || text[0] > '9')
		return false;
	char *end = NULL;
	errno = 0;
	const unsigned long long value = strtoull(text, &end, 10);
	if (errno != 0 || *end != '\0')
		return false;
	*out = value;
	return true;
}

/* A copy of at most `most` characters in which everything but printable ASCII
 * is '?': the file may hold escape sequences for the terminal. */
static const char *
printable(cfg_mem *m, const char *text, size_t most, const char *quote)
{
	const size_t len = strnlen(text, most + 1);
	char *p = qg_cfg_copy(m, text, len > most ? most : len);
	if (p == NULL)
		return "?";
	for (char *c = p; *c != '\0'; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	const char *const shown = qg_cfg_format(m, "%s%s%s%s", quote, p, len > most ? "..." : "", quote);
	return shown == NULL ? "?" : shown;
}

const char *
qg_cfg_show(cfg_report *r, const char *text)
{
	return printable(r->mem, text, SHOWN_MAX, "\"");
}

/* streams[0].source.address: the parts are put in from the end. */
static const char *
path_of(cfg_report *r, const cfg_node *node, const char *member)
{
	const char *path = member == NULL ? "" : member;
	for (; node != NULL && node->parent != NULL && path != NULL && strlen(path) < QG_CFG_PATH_ROOM;
	     node = node->parent) {
		const char *const dot = path[0] == '\0' || path[0] == '[' ? "" : ".";
		if (node->name == NULL)
			path = qg_cfg_format(r->mem, "[%zu]%s%s", node->index, dot, path);
		else
			path = qg_cfg_format(r->mem, "%s%s%s",
					     printable(r->mem, node->name, NAME_SHOWN_MAX, ""), dot, path);
	}
	if (path == NULL)
		return "?";
	return path[0] == '\0' ? "file" : path;
}

static void QG_PRINTF(4, 0)
add_problem(cfg_report *r, unsigned line, const char *option, const char *fmt, va_list args)
{
	char text[TEXT_ROOM];
	const int n = vsnprintf(text, sizeof text, fmt, args);
	if (n < 0 || r->nomem)
		return;
	if (r->n == r->room) {
		const size_t room = r->room == 0 ? 16 : 2 * r->room;
		cfg_problem *more = qg_cfg_resize(r->mem, r->problems, room * sizeof *more);
		if (more == NULL) {
			r->nomem = true;
			return;
		}
		r->problems = more;
		r->room = room;
	}
	const size_t len = (size_t)n < sizeof text ? (size_t)n : sizeof text - 1;
	const char *const copy = qg_cfg_copy(r->mem, text, len);
	if (copy == NULL) {
		r->nomem = true;
		return;
	}
	r->problems[r->n] = (cfg_problem){.line = line, .order = r->n, .option = option, .text = copy};
	r->n++;
}

static bool
is_full(cfg_report *r)
{
	if (r->n < PROBLEMS_MAX)
		return false;
	r->unshown++;
	return true;
}

void
qg_cfg_problem(cfg_report *r, cfg_node *node, const char *fmt, ...)
{
	node->bad = true;
	if (is_full(r))
		return;
	va_list args;
	va_start(args, fmt);
	add_problem(r, node->line, path_of(r, node, NULL), fmt, args);
	va_end(args);
}

void
qg_cfg_missing(cfg_report *r, const cfg_node *map, const char *name, const char *fmt, ...)
{
	if (is_full(r))
		return;
	va_list args;
	va_start(args, fmt);
	add_problem(r, map->line, path_of(r, map, name), fmt, args);
	va_end(args);
}

void
qg_cfg_problem_at(cfg_report *r, unsigned line, const char *option, const char *fmt, ...)
{
	if (is_full(r))
		return;
	va_list args;
	va_start(args, fmt);
	add_problem(r, line, option, fmt, args);
	va_end(args);
}

static int
by_line(const void *a, const void *b)
{
	const cfg_problem *const x = a, *const y = b;
	if (x->line != y->line)
		return x->line < y->line ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

void
qg_cfg_problem_moved(cfg_report *r, size_t k, unsigned line)
{
	r->problems[k].line = line;
}

const char *
qg_cfg_where(cfg_report *r, unsigned line)
{
	const char *where = NULL;
	if (line < QG_CFG_ADDED || line - QG_CFG_ADDED >= r->n_added) {
		where = qg_cfg_format(r->mem, "line %u", line);
	} else {
		const qg_config_entry *e = &r->added[line - QG_CFG_ADDED];
		where = qg_cfg_format(r->mem, "run-time %s %s", e->list, printable(r->mem, e->name, NAME_SHOWN_MAX, ""));
	}
	return where != NULL ? where : "?";
}

/* Where in the file, or in which of the added entries and there at which option. */
static void
print_problem(cfg_report *r, const cfg_problem *p, FILE *out)
{
	if (p->line < QG_CFG_ADDED) {
		(void)fprintf(out, "%s:%u: %s: %s\n", r->file, p->line, p->option, p->text);
		return;
	}
	const char *inner = strchr(p->option, ']');
	const char *option = inner == NULL || inner[1] == '\0' ? "" : inner[1] == '.' ? inner + 2 : inner + 1;
	(void)fprintf(out, "%s: %s%s%s\n", qg_cfg_where(r, p->line), option, option[0] != '\0' ? ": " : "", p->text);
}

void
qg_cfg_print_problems(cfg_report *r, qg_err err, FILE *out)
{
	if (err == QG_E_NOMEM) {
		(void)fprintf(out, "%s:1: file: %s\n", r->file, qg_err_text(err));
		return;
	}
	if (r->n > 0)
		qsort(r->problems, r->n, sizeof *r->problems, by_line);
	for (size_t i = 0; i < r->n; i++)
		print_problem(r, &r->problems[i], out);
	if (r->unshown > 0)
		(void)fprintf(out, "%s:%u: file: %zu further problems\n", r->file, r->problems[r->n - 1].line,
			      r->unshown);
}
