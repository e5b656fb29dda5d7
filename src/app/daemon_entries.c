/* SPDX-License-Identifier: Apache-2.0 */
/* SAEs and rules that operators make at run time. They rest in the database, stand
 * behind those of the file, and go through the same checks. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon_internal.h"
#include "qkdgate/core_view.h"
#include "qkdgate/log.h"

static void
free_entry(daemon_entry *e)
{
	free(e->list);
	free(e->name);
	free(e->text);
	*e = (daemon_entry){0};
}

/* Behind the others; a copy. */
static qg_err
append(daemon_entries *all, const char *list, const char *name, const char *text)
{
	daemon_entry *more = realloc(all->entry, (all->n + 1) * sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	all->entry = more;
	daemon_entry *e = &more[all->n];
	*e = (daemon_entry){.list = strdup(list), .name = strdup(name), .text = strdup(text)};
	if (e->list == NULL || e->name == NULL || e->text == NULL) {
		free_entry(e);
		return QG_E_NOMEM;
	}
	all->n++;
	return QG_OK;
}

static void
drop(daemon_entries *all, size_t i)
{
	free_entry(&all->entry[i]);
	memmove(&all->entry[i], &all->entry[i + 1], (--all->n - i) * sizeof *all->entry);
}

/* Its place, or the number of all. */
static size_t
find(const daemon_entries *all, const char *list, const char *name)
{
	size_t i = 0;
	while (i < all->n && (strcmp(all->entry[i].list, list) != 0 || strcmp(all->entry[i].name, name) != 0))
		i++;
	return i;
}

void
qg_daemon_free_entries(daemon_parts *d)
{
	while (d->entries.n > 0)
		drop(&d->entries, d->entries.n - 1);
	free(d->entries.entry);
	d->entries = (daemon_entries){0};
}

/* --- at the start ----------------------------------------------------------------- */

static qg_err
take_stored(const qg_entry_rec *rec, void *ctx)
{
	return append(ctx, rec->list, rec->name, rec->text);
}

/* One after the other, without those that contradict the file or one before them. */
static qg_err
leave_out(daemon_parts *d, qg_config **out)
{
	char why[QG_DAEMON_WHY_ROOM];
	qg_err err = QG_OK;
	for (size_t i = 0; i < d->entries.n; i++)
		d->entries.entry[i].left_out = true;
	for (size_t i = 0; err == QG_OK && i < d->entries.n; i++) {
		daemon_entry *e = &d->entries.entry[i];
		qg_config *cfg = NULL;
		e->left_out = false;
		err = qg_daemon_read_config(d, true, &d->entries, &cfg, why, sizeof why);
		if (err == QG_E_PARSE) {
			e->left_out = true;
			qg_log(QG_LOG_ERROR, "daemon", "event=entry_left_out list=%s name=%s why=\"%s\"", e->list,
			       qg_log_safe(e->name), why);
			err = QG_OK;
			continue;
		}
		qg_config_free(out);
		*out = cfg;
	}
	return err;
}

qg_err
qg_daemon_load_entries(daemon_parts *d)
{
	qg_config *cfg = NULL;
	qg_err err = d->store->ops->load_entries(d->store, take_stored, &d->entries);
	if (err != QG_OK || d->entries.n == 0)
		return err;
	err = qg_daemon_read_config(d, true, &d->entries, &cfg, d->why, sizeof d->why);
	if (err == QG_E_PARSE)
		err = leave_out(d, &cfg);
	d->why[0] = '\0';
	if (err == QG_OK && cfg != NULL)
		err = qg_directory_renew(d->directory, &cfg);
	qg_config_free(&cfg);
	return err;
}

/* --- changes --------------------------------------------------------------------------- */

static bool
stands_in_file(const daemon_parts *d, const qg_config_entry *e)
{
	const qg_config *cfg = qg_directory_config(d->directory);
	for (size_t i = 0; strcmp(e->list, "saes") == 0 && i < cfg->n_file_saes; i++)
		if (strcmp(cfg->saes[i].id, e->name) == 0)
			return true;
	return false;
}

static qg_err
check_add(const daemon_parts *d, const qg_config_entry *e, char *why, size_t why_room)
{
	if (stands_in_file(d, e))
		(void)snprintf(why, why_room, "%s stands in the configuration file", e->name);
	else if (find(&d->entries, e->list, e->name) < d->entries.n)
		(void)snprintf(why, why_room, "%s was added already: remove it first", e->name);
	else
		return QG_OK;
	return QG_E_EXISTS;
}

static qg_err
add(daemon_parts *d, const qg_config_entry *e, char *why, size_t why_room)
{
	qg_config *cfg = NULL;
	const qg_entry_rec rec = {.list = e->list, .name = e->name, .text = e->text};
	qg_err err = check_add(d, e, why, why_room);
	if (err != QG_OK)
		return err;
	err = append(&d->entries, e->list, e->name, e->text);
	if (err != QG_OK)
		return err;
	err = qg_daemon_read_config(d, true, &d->entries, &cfg, why, why_room);
	if (err == QG_OK)
		err = qg_core_entry_put(d->core, &rec);
	if (err == QG_OK) {
		err = qg_daemon_put_in_force(d, &cfg);
		/* Without memory for it: then it is not to be there after a restart either. */
		if (err != QG_OK && qg_core_entry_delete(d->core, e->list, e->name) != QG_OK)
			qg_log(QG_LOG_ERROR, "daemon", "event=entry_kept name=%s", qg_log_safe(e->name));
	}
	if (err != QG_OK)
		drop(&d->entries, d->entries.n - 1);
	qg_config_free(&cfg);
	return err;
}

/* What is left must be good without it: so it is read before anything changes. */
static qg_err
take_out(daemon_parts *d, const qg_config_entry *e, char *why, size_t why_room)
{
	qg_config *cfg = NULL;
	const size_t i = find(&d->entries, e->list, e->name);
	if (i == d->entries.n && stands_in_file(d, e)) {
		(void)snprintf(why, why_room, "%s stands in the configuration file: take it out there, and reload", e->name);
		return QG_E_STATE;
	}
	if (i == d->entries.n) {
		(void)snprintf(why, why_room, "%s was not added at run time", e->name);
		return QG_E_NOTFOUND;
	}
	const bool was_left_out = d->entries.entry[i].left_out;
	d->entries.entry[i].left_out = true;
	qg_err err = qg_daemon_read_config(d, true, &d->entries, &cfg, why, why_room);
	if (err == QG_OK)
		err = qg_core_entry_delete(d->core, e->list, e->name);
	if (err == QG_OK)
		err = qg_daemon_put_in_force(d, &cfg);
	if (err == QG_OK)
		drop(&d->entries, i);
	else
		d->entries.entry[i].left_out = was_left_out;
	qg_config_free(&cfg);
	return err;
}

qg_err
qg_daemon_change(void *ctx, const char *who, const qg_config_entry *e, char *why, size_t why_room)
{
	daemon_parts *d = ctx;
	char what[32];
	why[0] = '\0';
	pthread_mutex_lock(&d->changing);
	const qg_err err = e->text != NULL ? add(d, e, why, why_room) : take_out(d, e, why, why_room);
	pthread_mutex_unlock(&d->changing);
	(void)snprintf(what, sizeof what, "%s %s", e->text != NULL ? "add" : "remove",
		       strcmp(e->list, "saes") == 0 ? "sae" : "rule");
	qg_daemon_audit(d, who, what, e->name, err);
	return err;
}

void
qg_daemon_each_entry(void *ctx, void (*each)(const qg_config_entry *e, bool in_force, void *each_ctx), void *each_ctx)
{
	daemon_parts *d = ctx;
	pthread_mutex_lock(&d->changing);
	for (size_t i = 0; i < d->entries.n; i++) {
		const daemon_entry *e = &d->entries.entry[i];
		const qg_config_entry entry = {e->list, e->name, e->text};
		each(&entry, !e->left_out, each_ctx);
	}
	pthread_mutex_unlock(&d->changing);
}
