/* SPDX-License-Identifier: Apache-2.0 */
/* Entries that an operator made at run time: they become nodes like those of the
 * file, so that every check and rule holds for them, too. */
#include <string.h>

#include "config_internal.h"

size_t
qg_cfg_grafts(const cfg_report *r, const char *list)
{
	size_t n = 0;
	for (size_t i = 0; i < r->n_added; i++)
		n += strcmp(r->added[i].list, list) == 0;
	return n;
}

static void
set_line(cfg_node *n, unsigned line)
{
	n->line = line;
	for (cfg_node *child = n->first; child != NULL; child = child->next)
		set_line(child, line);
}

/* Of the file, or an empty one. What is no list there is reported later. */
static cfg_node *
list_of(cfg_report *r, cfg_node *root, const char *name)
{
	cfg_node *list = qg_cfg_find(root, name);
	if (list == NULL)
		return qg_cfg_node(r->mem, root, CFG_LIST, name, root->line);
	if (list->kind == CFG_SCALAR && !list->quoted && list->text[0] == '\0')
		list->kind = CFG_LIST;
	return list;
}

static qg_err
graft(cfg_report *r, cfg_node *root, size_t i)
{
	const qg_config_entry *e = &r->added[i];
	cfg_node *entry = NULL, *list = list_of(r, root, e->list);
	const size_t problems = r->n;
	if (list == NULL)
		return QG_E_NOMEM;
	qg_err err = qg_cfg_parse(r, r->mem, e->text, strlen(e->text), &entry);
	for (size_t k = problems; k < r->n; k++)
		qg_cfg_problem_moved(r, k, QG_CFG_ADDED + (unsigned)i);
	if (err != QG_OK || list->kind != CFG_LIST)
		return err;
	set_line(entry, QG_CFG_ADDED + (unsigned)i);
	entry->parent = list;
	entry->index = list->last == NULL ? 0 : list->last->index + 1;
	if (list->last == NULL)
		list->first = entry;
	else
		list->last->next = entry;
	list->last = entry;
	return QG_OK;
}

qg_err
qg_cfg_graft(cfg_report *r, cfg_node *root)
{
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && root->kind == CFG_MAP && i < r->n_added; i++)
		err = graft(r, root, i);
	return err;
}
