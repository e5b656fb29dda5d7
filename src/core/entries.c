/* SPDX-License-Identifier: Apache-2.0 */
/* Entries of the configuration that operators made at run time, in the database. */
#include "core_internal.h"
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
