/* SPDX-License-Identifier: Apache-2.0 */
/* What the database keeps for the rest of the gateway: entries of the configuration
 * that operators made at run time, who is suspended, and what is left of rates. */
#include "core_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/core_view.h"

typedef struct entry_job {
	qg_job job;
	qg_entry_rec rec; /* text NULL: forget it */
} entry_job;

static qg_err
entry_run(qg_job *job, qg_store *store)
{
	const entry_job *e = (const entry_job *)job;
	return e->rec.text != NULL ? store->ops->entry_put(store, &e->rec)
				   : store->ops->entry_delete(store, e->rec.list, e->rec.name);
}

qg_err
qg_core_entry_put(qg_core *core, const qg_entry_rec *rec)
{
	entry_job e = {.job.run = entry_run, .rec = *rec};
	return qg_committer_run(core->committer, &e.job);
}

qg_err
qg_core_entry_delete(qg_core *core, const char *list, const char *name)
{
	entry_job e = {.job.run = entry_run, .rec = {.list = list, .name = name}};
	return qg_committer_run(core->committer, &e.job);
}

/* --- suspensions ---------------------------------------------------------------------- */

typedef struct suspension_job {
	qg_job job;
	const qg_suspension_rec *rec;
	bool on;
} suspension_job;

static qg_err
suspension_run(qg_job *job, qg_store *store)
{
	const suspension_job *s = (const suspension_job *)job;
	return s->on ? store->ops->suspension_put(store, s->rec) : store->ops->suspension_delete(store, s->rec);
}

qg_err
qg_core_suspension_keep(qg_core *core, const qg_suspension_rec *rec, bool on)
{
	suspension_job s = {.job.run = suspension_run, .rec = rec, .on = on};
	return qg_committer_run(core->committer, &s.job);
}

/* --- rates ---------------------------------------------------------------------------- */

typedef struct levels_job {
	qg_job job;
	const qg_level_rec *level;
	size_t n;
} levels_job;

static qg_err
levels_run(qg_job *job, qg_store *store)
{
	const levels_job *l = (const levels_job *)job;
	qg_err err = store->ops->levels_delete(store);
	for (size_t i = 0; err == QG_OK && i < l->n; i++)
		err = store->ops->level_put(store, &l->level[i]);
	return err == QG_OK ? store->ops->number_put(store, QG_CORE_LEVELS_MS, qg_clock_wall_ms()) : err;
}

qg_err
qg_core_levels_put(qg_core *core, const qg_level_rec *level, size_t n)
{
	levels_job l = {.job.run = levels_run, .level = level, .n = n};
	return qg_committer_run(core->committer, &l.job);
}
