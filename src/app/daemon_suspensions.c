/* SPDX-License-Identifier: Apache-2.0 */
/* Who gets no key until an operator resumes it: an SAE, two SAEs with one another, a peer.
 * Whatever fails, it fails to the side of those who are suspended: that takes effect first
 * and is kept then, and who is resumed is first forgotten. */
#include <stdlib.h>
#include <string.h>

#include "daemon_internal.h"
#include "qkdgate/core_view.h"
#include "qkdgate/grow.h"
#include "qkdgate/log.h"

static void
free_rec(qg_suspension_rec *r)
{
	free((char *)(uintptr_t)r->kind);
	free((char *)(uintptr_t)r->name);
	free((char *)(uintptr_t)r->other);
}

static qg_err
append(daemon_suspensions *all, const qg_suspension_rec *rec)
{
	qg_suspension_rec *more = qg_grown(all->rec, &all->room, all->n, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	all->rec = more;
	qg_suspension_rec copy = {strdup(rec->kind), strdup(rec->name), strdup(rec->other)};
	if (copy.kind == NULL || copy.name == NULL || copy.other == NULL) {
		free_rec(&copy);
		return QG_E_NOMEM;
	}
	all->rec[all->n++] = copy;
	return QG_OK;
}

static void
drop(daemon_suspensions *all, size_t i)
{
	free_rec(&all->rec[i]);
	all->rec[i] = all->rec[--all->n];
}

/* A pair is the same in either order. */
static bool
is_same(const qg_suspension_rec *a, const qg_suspension_rec *b)
{
	if (strcmp(a->kind, b->kind) != 0)
		return false;
	return (strcmp(a->name, b->name) == 0 && strcmp(a->other, b->other) == 0) ||
	       (strcmp(a->name, b->other) == 0 && strcmp(a->other, b->name) == 0);
}

/* Its place, or the number of all. */
static size_t
find(const daemon_suspensions *all, const qg_suspension_rec *rec)
{
	size_t i = 0;
	while (i < all->n && !is_same(&all->rec[i], rec))
		i++;
	return i;
}

void
qg_daemon_free_suspensions(daemon_suspensions *all)
{
	while (all->n > 0)
		drop(all, all->n - 1);
	free(all->rec);
	*all = (daemon_suspensions){0};
}

/* --- at the start ----------------------------------------------------------------- */

static qg_err
take_stored(const qg_suspension_rec *rec, void *ctx)
{
	daemon_parts *d = ctx;
	qg_err err = append(&d->suspensions, rec);
	if (err == QG_OK && strcmp(rec->kind, "peer") == 0)
		err = qg_directory_suspend_peer(d->directory, rec->name, true);
	if (err == QG_E_NOTFOUND) /* no longer a peer; it is suspended when it becomes one again */
		err = QG_OK;
	if (err == QG_OK)
		qg_log(QG_LOG_INFO, "daemon", "event=still_suspended kind=%s name=%s other=%s", rec->kind,
		       qg_log_safe(rec->name), qg_log_safe(rec->other));
	return err;
}

qg_err
qg_daemon_load_suspensions(daemon_parts *d)
{
	return d->store->ops->load_suspensions(d->store, take_stored, d);
}

/* --- changes ---------------------------------------------------------------------- */

static qg_err
put_in_force(daemon_parts *d, const qg_suspension_rec *rec, bool on)
{
	if (strcmp(rec->kind, "peer") == 0)
		return qg_directory_suspend_peer(d->directory, rec->name, on);
	return qg_etsi014_suspend(d->etsi014, rec->name, rec->other[0] != '\0' ? rec->other : NULL, on);
}

/* One that is there already is kept once more: it may not have been. */
static qg_err
suspend(daemon_parts *d, const qg_suspension_rec *rec)
{
	const size_t i = find(&d->suspensions, rec);
	const bool is_new = i == d->suspensions.n;
	qg_err err = is_new ? append(&d->suspensions, rec) : QG_OK;
	if (err != QG_OK)
		return err;
	err = put_in_force(d, rec, true);
	if (err != QG_OK && is_new)
		drop(&d->suspensions, i);
	if (err != QG_OK)
		return err;
	return qg_core_suspension_keep(d->core, &d->suspensions.rec[i], true) == QG_OK ? QG_OK : QG_E_IO;
}

static qg_err
resume(daemon_parts *d, const qg_suspension_rec *rec)
{
	const size_t i = find(&d->suspensions, rec);
	if (i == d->suspensions.n)
		return QG_E_NOTFOUND;
	if (qg_core_suspension_keep(d->core, &d->suspensions.rec[i], false) != QG_OK)
		return QG_E_IO;
	const qg_err err = put_in_force(d, rec, false);
	if (err == QG_OK || err == QG_E_NOTFOUND) /* a peer of before the start */
		drop(&d->suspensions, i);
	return err == QG_E_NOTFOUND ? QG_OK : err;
}

qg_err
qg_daemon_suspend(void *ctx, const qg_suspension_rec *rec, bool on)
{
	daemon_parts *d = ctx;
	pthread_mutex_lock(&d->changing);
	const qg_err err = on ? suspend(d, rec) : resume(d, rec);
	pthread_mutex_unlock(&d->changing);
	return err;
}

void
qg_daemon_each_suspension(void *ctx, void (*each)(const qg_suspension_rec *rec, void *each_ctx), void *each_ctx)
{
	daemon_parts *d = ctx;
	pthread_mutex_lock(&d->changing);
	for (size_t i = 0; i < d->suspensions.n; i++)
		each(&d->suspensions.rec[i], each_ctx);
	pthread_mutex_unlock(&d->changing);
}
