/* SPDX-License-Identifier: Apache-2.0 */
/* The pass over the tree that the schema drives: unknown and repeated options,
 * types, single values, what is missing; it puts the defaults in. */
#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "config_internal.h"
#include "qkdgate/nearest.h"

static void check_map(cfg_checker *c, cfg_node *map, const cfg_option *fields);

static const char *const kind_names[] = {
	[CFG_SCALAR] = "a single value",
	[CFG_LIST] = "a list",
	[CFG_MAP] = "a section of options",
};

static const char *
nearest(const char *word, const cfg_option *fields)
{
	const char *names[QG_CFG_OPTIONS_MAX];
	size_t n = 0;
	for (const cfg_option *o = fields; o->name != NULL && n < QG_CFG_OPTIONS_MAX; o++)
		names[n++] = o->name;
	return qg_nearest(word, names, n);
}

/* Of all options of the table, "a, b, c". */
static const char *
names_of(cfg_checker *c, const cfg_option *fields)
{
	const char *all = "";
	for (const cfg_option *o = fields; o->name != NULL && all != NULL; o++)
		all = qg_cfg_format(c->report->mem, "%s%s%s", all, all[0] == '\0' ? "" : ", ", o->name);
	if (all == NULL)
		c->report->nomem = true;
	return all == NULL ? "?" : all;
}

static void
unknown(cfg_checker *c, cfg_node *n, const cfg_option *fields)
{
	const char *const near = nearest(n->name, fields);
	if (near != NULL) {
		qg_cfg_problem(c->report, n, "unknown option: is \"%s\" meant?", near);
		return;
	}
	qg_cfg_problem(c->report, n, "unknown option: known here are %s", names_of(c, fields));
}

/* `pool:` with nothing behind it is an empty section or list; an empty variable
 * is neither. */
static void
accept_empty(cfg_node *n, cfg_kind wanted)
{
	if (n->kind == CFG_SCALAR && wanted != CFG_SCALAR && !n->quoted && n->raw == NULL &&
	    n->text[0] == '\0')
		n->kind = wanted;
}

static bool
check_kind(cfg_checker *c, cfg_node *n, cfg_kind wanted, const char *what)
{
	accept_empty(n, wanted);
	if (n->kind == wanted)
		return true;
	if (n->kind == CFG_SCALAR)
		qg_cfg_problem(c->report, n, "%s is a single value where %s is needed",
			       qg_cfg_show(c->report, n->text), what);
	else
		qg_cfg_problem(c->report, n, "is %s where %s is needed", kind_names[n->kind], what);
	return false;
}

static void
check_count(cfg_checker *c, const cfg_option *o, cfg_node *list)
{
	const size_t n = list->last == NULL ? 0 : list->last->index + 1;
	if (n < o->min || n > o->max)
		qg_cfg_problem(c->report, list, "has %zu entries: give %" PRIu64 " to %" PRIu64, n, o->min,
			       o->max);
}

static void
check_list(cfg_checker *c, const cfg_option *o, cfg_node *list)
{
	static const cfg_option words[] = {
		[CFG_PATTERNS] = {.type = CFG_PATTERN, .min = 1, .max = 128},
		[CFG_NAMES] = {.type = CFG_NAME, .min = 1, .max = 64},
	};
	check_count(c, o, list);
	for (cfg_node *n = list->first; n != NULL; n = n->next) {
		if (n->bad)
			continue;
		if (o->type == CFG_ENTRIES) {
			if (check_kind(c, n, CFG_MAP, qg_cfg_types[CFG_SECTION].what))
				check_map(c, n, o->fields);
		} else if (check_kind(c, n, CFG_SCALAR, qg_cfg_types[words[o->type].type].what)) {
			qg_cfg_types[words[o->type].type].check(c, &words[o->type], n);
		}
	}
}

static bool
is_null(const cfg_node *n)
{
	static const char *const nulls[] = {"", "~", "null", "Null", "NULL"};
	for (size_t i = 0; i < sizeof nulls / sizeof nulls[0]; i++)
		if (!n->quoted && n->raw == NULL && strcmp(n->text, nulls[i]) == 0)
			return true;
	return false;
}

static void
check_value(cfg_checker *c, const cfg_option *o, cfg_node *n)
{
	const char *const what = qg_cfg_types[o->type].what;
	if (n->bad)
		return;
	if (o->type == CFG_SECTION) {
		if (check_kind(c, n, CFG_MAP, what))
			check_map(c, n, o->fields);
	} else if (o->type == CFG_ENTRIES || o->type == CFG_PATTERNS || o->type == CFG_NAMES) {
		if (check_kind(c, n, CFG_LIST, what))
			check_list(c, o, n);
	} else if (check_kind(c, n, CFG_SCALAR, what)) {
		if (is_null(n))
			qg_cfg_problem(c->report, n, "has no value: give %s%s", what,
				       o->required ? "" : ", or leave the option out");
		else
			qg_cfg_types[o->type].check(c, o, n);
	}
}

static bool
has_required(const cfg_option *fields)
{
	for (const cfg_option *o = fields; o->name != NULL; o++)
		if (o->required)
			return true;
	return false;
}

/* A section of which nothing is required is there with its defaults. */
static void
put_default(cfg_checker *c, const cfg_option *o, cfg_node *map)
{
	const bool section = o->type == CFG_SECTION && !o->marked && !has_required(o->fields);
	if (o->required) {
		qg_cfg_missing(c->report, map, o->name, "is missing: give %s", qg_cfg_types[o->type].what);
		return;
	}
	if (!section && o->preset == NULL)
		return;
	cfg_node *n = qg_cfg_node(c->mem, map, section ? CFG_MAP : CFG_SCALAR, o->name, map->line);
	if (n == NULL) {
		c->report->nomem = true;
		return;
	}
	n->preset = true;
	n->text = o->preset;
	if (section)
		check_map(c, n, o->fields);
}

static void
check_one_of(cfg_checker *c, const cfg_option *fields, cfg_node *map)
{
	size_t given = 0;
	for (const cfg_option *o = fields; o->name != NULL; o++)
		given += qg_cfg_find(map, o->name) != NULL;
	if (given != 1)
		qg_cfg_problem(c->report, map, "has %s: give exactly one of %s",
			       given == 0 ? "no name" : "more than one name", names_of(c, fields));
}

/* The struct tells by a bool whether the option is there: a second member of
 * the map, under a name that no file can give. */
static void
put_mark(cfg_checker *c, const cfg_option *o, cfg_node *map)
{
	const char *const name = qg_cfg_format(c->mem, "%s given", o->name);
	cfg_node *n = name == NULL ? NULL : qg_cfg_node(c->mem, map, CFG_SCALAR, name, map->line);
	if (n == NULL)
		c->report->nomem = true;
	else
		n->text = "true";
}

/* Finds the options of the map; unknown and repeated ones are reported. */
static void
sort_options(cfg_checker *c, cfg_node *map, const cfg_option *fields, cfg_node **given)
{
	for (cfg_node *n = map->first; n != NULL; n = n->next) {
		size_t at = 0;
		while (fields[at].name != NULL && strcmp(fields[at].name, n->name) != 0)
			at++;
		assert(at < QG_CFG_OPTIONS_MAX);
		if (fields[at].name == NULL && !n->bad)
			unknown(c, n, fields);
		else if (fields[at].name != NULL && given[at] != NULL)
			qg_cfg_problem(c->report, n, "is given twice, first in line %u: keep one of them",
				       given[at]->line);
		else if (fields[at].name != NULL)
			given[at] = n;
	}
}

static void
check_map(cfg_checker *c, cfg_node *map, const cfg_option *fields)
{
	cfg_node *given[QG_CFG_OPTIONS_MAX] = {NULL};
	sort_options(c, map, fields, given);
	for (size_t i = 0; fields[i].name != NULL; i++) {
		if (given[i] == NULL) {
			put_default(c, &fields[i], map);
			continue;
		}
		check_value(c, &fields[i], given[i]);
		if (fields[i].one_of && !given[i]->bad)
			check_one_of(c, fields[i].fields, given[i]);
		if (fields[i].marked)
			put_mark(c, &fields[i], map);
	}
}

void
qg_cfg_check(cfg_checker *c, cfg_node *root)
{
	if (check_kind(c, root, CFG_MAP, qg_cfg_types[CFG_SECTION].what))
		check_map(c, root, qg_cfg_schema);
}
