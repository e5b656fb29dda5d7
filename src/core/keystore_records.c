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
extra_prepare(extra_job *j, const qg_issue_request *req, const qg_transfer_to *to, size_t n_to)
{
	const qg_config *cfg = j->core->part.cfg;
	qg_transfer_plan plan = {
		.initiator = req->master,
		.to = to,
		.n_to = n_to,
		.size_bytes = req->size_bytes,
		.expiry_ms = qg_lifetime_owner_ms(&j->core->life) + (uint64_t)cfg->fetch_s * 1000,
	};
	for (uint32_t i = 0; i < req->number; i++) {
		plan.id = j->ids[i];
		plan.value = j->keys->data + (size_t)i * req->size_bytes;
		qg_err err = qg_transfer_plan_new(j->core->transfers, &plan, &j->x[i]);
		if (err != QG_OK)
			return err;
		j->number = i + 1;
	}
	return QG_OK;
}

/* For targets on this node alone; takes *keys. */
static void
issue_here(struct qg_core *core, const qg_issue_request *req, const qg_transfer_to *to, size_t n_to,
	   const qg_uuid *ids, qg_secret **keys, qg_issue_done *done, void *ctx)
{
	extra_job *j = calloc(1, sizeof *j + req->number * sizeof *j->ids);
	qg_err err = j == NULL ? QG_E_NOMEM : QG_OK;
	if (j != NULL) {
		j->x = calloc(req->number + 1, sizeof(qg_transfer *));
		j->core = core;
		j->done = done;
		j->ctx = ctx;
		j->keys = *keys;
		*keys = NULL;
		memcpy(j->ids, ids, req->number * sizeof *ids);
		err = j->x == NULL ? QG_E_NOMEM : extra_prepare(j, req, to, n_to);
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

/* --- where they live --------------------------------------------------------------- */

/* NULL in *kme: here. QG_E_NOTFOUND: nowhere. */
static qg_err
home_of(const struct qg_core *core, const char *sae, const char **kme)
{
	const char *home = qg_directory_home(core->part.directory, sae);
	if (home == NULL)
		return QG_E_NOTFOUND;
	*kme = strcmp(home, core->part.cfg->kme_id) == 0 ? NULL : home;
	return QG_OK;
}

/* Of node key there is never more than the stream keeps. */
static qg_err
check_home(struct qg_core *core, const qg_issue_request *req, const char *home)
{
	if (qg_transfer_is_peer(home))
		return QG_OK;
	const qg_stream *link = qg_multicast_link(core, home, req->max_hops);
	if (link == NULL)
		return qg_multicast_link(core, home, UINT32_MAX) == NULL ? QG_E_NOTFOUND : QG_E_STATE;
	if (link->cfg->node_chunks == 0)
		return QG_E_NOTFOUND;
	const uint64_t most = (uint64_t)link->cfg->node_chunks * link->cfg->chunk_size;
	return (uint64_t)req->number * req->size_bytes <= most ? QG_OK : QG_E_RANGE;
}

/* So that a home that is down for long does not fill the store with what it is
 * to be told, over and over. */
static bool
has_room(const struct qg_core *core, uint32_t number, bool elsewhere)
{
	const uint64_t most = core->part.cfg->inbound_chunks;
	if (qg_transfers_keys(core->transfers) + number > most)
		return false;
	return !elsewhere || qg_transfers_voiding(core->transfers) + number <= most / 2;
}

static qg_err
check_sae(struct qg_core *core, const qg_issue_request *req, const char *sae, bool *elsewhere)
{
	const char *home = NULL;
	const qg_err err = home_of(core, sae, &home);
	if (err != QG_OK || home == NULL)
		return err;
	*elsewhere = true;
	return qg_kms_sae_fits(sae) && qg_kms_sae_fits(req->master) ? check_home(core, req, home) : QG_E_RANGE;
}

/* The slave gets a record, too, where it is of another network. */
qg_err
qg_records_check(struct qg_core *core, const qg_issue_request *req)
{
	const bool abroad = qg_directory_foreign(core->part.directory, req->slave);
	bool elsewhere = false;
	qg_err err = abroad ? check_sae(core, req, req->slave, &elsewhere) : QG_OK;
	for (size_t i = 0; err == QG_OK && i < req->n_extra; i++)
		err = check_sae(core, req, req->extra[i], &elsewhere);
	if (err != QG_OK)
		return err;
	return (req->n_extra == 0 && !abroad) || has_room(core, req->number, elsewhere) ? QG_OK : QG_E_EMPTY;
}

/* --- entry ------------------------------------------------------------------------- */

void
qg_records_issue(struct qg_core *core, const qg_issue_request *req, bool with_slave, const qg_uuid *ids,
		 qg_secret **keys, qg_issue_done *done, void *ctx)
{
	qg_transfer_to *to = calloc(req->n_extra + 1, sizeof *to);
	qg_err err = to == NULL ? QG_E_NOMEM : QG_OK;
	bool elsewhere = false;
	size_t n = 0;
	if (err == QG_OK && with_slave) {
		to[0].sae = req->slave;
		err = home_of(core, req->slave, &to[0].home);
		elsewhere = err == QG_OK && to[0].home != NULL;
		n = 1;
	}
	for (size_t i = 0; err == QG_OK && i < req->n_extra; i++, n++) {
		to[n].sae = req->extra[i];
		err = home_of(core, req->extra[i], &to[n].home);
		elsewhere |= err == QG_OK && to[n].home != NULL;
	}
	if (err != QG_OK) {
		qg_secret_free(keys);
		done(ctx, &(qg_issue_result){.err = err == QG_E_NOMEM ? QG_E_IO : err});
	} else if (elsewhere) {
		qg_multicast_issue(core, req, to, n, ids, keys, done, ctx);
	} else {
		issue_here(core, req, to, n, ids, keys, done, ctx);
	}
	free(to);
}

void
qg_records_draw(struct qg_core *core, const qg_issue_request *req, qg_uuid *ids, qg_issue_done *done, void *ctx)
{
	qg_issue_result r = {.err = QG_OK, .retry_after_s = 1};
	size_t bytes = (size_t)req->number * req->size_bytes;
	QG_SECRET_AUTO *keys = NULL;
	if (req->min_hops > 0)
		r.err = QG_E_STATE;
	else if (!has_room(core, req->number, false))
		r.err = QG_E_EMPTY;
	else if (qg_secret_new(bytes, &keys) != QG_OK)
		r.err = QG_E_IO;
	if (r.err != QG_OK) {
		done(ctx, &r);
		return;
	}
	qg_random(keys->data, bytes);
	keys->len = bytes;
	for (uint32_t i = 0; i < req->number; i++)
		qg_uuid_random(&ids[i]);
	qg_records_issue(core, req, true, ids, &keys, done, ctx);
}
