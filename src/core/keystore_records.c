/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "records_internal.h"

/* Keys with IDs of their own (DESIGN, idea 5): stored for their targets before
 * the master gets them. */

typedef struct extra_job {
	qg_job job;
	struct qg_core *core;
	qg_issue_done *done;
	void *ctx;
	qg_secret *keys;
	uint32_t number;
	qg_transfer **x;
	qg_uuid ids[];
} extra_job;

static qg_err
extra_run(qg_job *job, qg_store *store)
{
	extra_job *j = (extra_job *)job;
	qg_err err = QG_OK;
	for (uint32_t i = 0; i < j->number && err == QG_OK; i++)
		err = qg_transfer_store(j->x[i], store);
	if (err == QG_OK)
		qg_commit_note_change(j->core);
	return err;
}

static void
extra_done(qg_job *job, qg_err err)
{
	extra_job *j = (extra_job *)job;
	for (uint32_t i = 0; i < j->number; i++)
		qg_transfer_added(j->core->transfers, j->x[i], err);
	qg_issue_result r = {.err = err == QG_OK ? QG_OK : QG_E_IO, .ids = j->ids};
	if (err == QG_OK) {
		r.keys = j->keys;
		j->keys = NULL;
	}
	j->done(j->ctx, &r);
	qg_secret_free(&j->keys);
	free(j->x);
	free(j);
}

static qg_err
extra_prepare(extra_job *j, const qg_issue_request *req, const char *const *targets, size_t n_targets)
{
	const qg_config *cfg = j->core->part.cfg;
	uint64_t expiry_ms = qg_lifetime_owner_ms(&j->core->life) + (uint64_t)cfg->fetch_s * 1000;
	for (uint32_t i = 0; i < req->number; i++) {
		const uint8_t *value = j->keys->data + (size_t)i * req->size_bytes;
		qg_err err = qg_transfer_prepare(j->core->transfers, req->master, &j->ids[i], targets,
						 n_targets, value, req->size_bytes, expiry_ms, &j->x[i]);
		if (err != QG_OK)
			return err;
		j->number = i + 1;
	}
	return QG_OK;
}

void
qg_records_issue(struct qg_core *core, const qg_issue_request *req, const char *const *targets, size_t n_targets,
		 const qg_uuid *ids, qg_secret **keys, qg_issue_done *done, void *ctx)
{
	extra_job *j = calloc(1, sizeof *j + req->number * sizeof *j->ids);
	qg_err err = j == NULL ? QG_E_NOMEM : QG_OK;
	if (j != NULL) {
		j->x = calloc(req->number, sizeof(qg_transfer *));
		j->core = core;
		j->done = done;
		j->ctx = ctx;
		j->keys = *keys;
		*keys = NULL;
		memcpy(j->ids, ids, req->number * sizeof *ids);
		err = j->x == NULL ? QG_E_NOMEM : extra_prepare(j, req, targets, n_targets);
	}
	if (err == QG_OK) {
		j->job.run = extra_run;
		j->job.done = extra_done;
		qg_committer_submit(core->committer, &j->job);
		return;
	}
	qg_secret_free(keys);
	if (j != NULL)
		extra_done(&j->job, err);
	else
		done(ctx, &(qg_issue_result){.err = QG_E_IO});
}

void
qg_records_draw(struct qg_core *core, const qg_issue_request *req, qg_uuid *ids, qg_issue_done *done, void *ctx)
{
	qg_issue_result r = {.err = QG_OK, .retry_after_s = 1};
	size_t bytes = (size_t)req->number * req->size_bytes;
	const char **targets = calloc(req->n_extra + 1, sizeof *targets);
	QG_SECRET_AUTO *keys = NULL;
	if (req->min_hops > 0)
		r.err = QG_E_STATE;
	else if (qg_transfers_count(core->transfers) + req->number > core->part.cfg->inbound_chunks)
		r.err = QG_E_EMPTY;
	else if (targets == NULL || qg_secret_new(bytes, &keys) != QG_OK)
		r.err = QG_E_IO;
	if (r.err == QG_OK) {
		qg_random(keys->data, bytes);
		keys->len = bytes;
		for (uint32_t i = 0; i < req->number; i++)
			qg_uuid_random(&ids[i]);
		targets[0] = req->slave;
		for (size_t i = 0; i < req->n_extra; i++)
			targets[i + 1] = req->extra[i];
		qg_records_issue(core, req, targets, req->n_extra + 1, ids, &keys, done, ctx);
	} else {
		done(ctx, &r);
	}
	free(targets);
}
