/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* What both sides of a confirmation do alike: store a segment with its epoch,
 * take the key-ID root from it, report one that ends. */

static qg_err
job_run(qg_job *job, qg_store *store)
{
	qg_segment_job *j = (qg_segment_job *)job;
	qg_err err = store->ops->segment_put(store, &j->rec);
	if (err == QG_OK)
		err = store->ops->epoch_update(store, &j->img.rec);
	if (err == QG_OK)
		qg_commit_note_change(j->seg->epoch->stream->core);
	return err;
}

static void
job_record(qg_segment_job *j, const qg_segment *s, size_t blob_len, size_t used_len)
{
	j->rec = (qg_segment_rec){.epoch_row = s->epoch->row,
				  .number = s->number,
				  .ours = s->ours,
				  .use = (uint8_t)s->use,
				  .state = s->ours ? QG_SEGMENT_OFFERED : QG_SEGMENT_CONFIRMED,
				  .first_index = s->first_index,
				  .count = s->count,
				  .root = s->root,
				  .sealed = j->blob,
				  .sealed_len = blob_len,
				  .used = j->none_used,
				  .used_len = used_len,
				  .message = (uint8_t *)s->message,
				  .message_len = s->message_len,
				  .tag = s->tag,
				  .born_ms = s->born_ms,
				  .ready_wall_ms = s->ours ? 0 : qg_clock_wall_ms(),
				  .issue_s = s->issue_s,
				  .fetch_s = s->fetch_s};
}

qg_err
qg_segment_job_new(qg_segment *s, qg_segment_job **out)
{
	size_t used_len = ((size_t)s->count + 7) / 8, blob_len = 0;
	qg_segment_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return QG_E_NOMEM;
	j->seg = s;
	j->job.run = job_run;
	j->none_used = calloc(1, used_len);
	qg_err err = j->none_used == NULL ? QG_E_NOMEM : qg_segment_seal(s, &j->blob, &blob_len);
	if (err == QG_OK)
		err = qg_epoch_snapshot(s->epoch, &j->img);
	if (err != QG_OK) {
		qg_segment_job_free(j);
		return err;
	}
	job_record(j, s, blob_len, used_len);
	qg_segment_set_dirty(s, false);
	*out = j;
	return QG_OK;
}

void
qg_segment_job_free(qg_segment_job *j)
{
	qg_epoch_image_free(&j->img);
	free(j->blob);
	free(j->none_used);
	free(j);
}

qg_err
qg_segment_take_root(qg_segment *s)
{
	qg_epoch *e = s->epoch;
	if (!s->root || (s->ours ? e->keys_out : e->keys_in) != NULL)
		return QG_OK;
	QG_SECRET_AUTO *root = NULL;
	size_t n = (size_t)s->lo * e->chunk_size;
	qg_err err = qg_secret_new(n, &root);
	if (err == QG_OK)
		err = qg_secret_append(root, s->data->data, n);
	if (err == QG_OK)
		err = qg_epoch_set_root(e, s->ours, &root);
	return err;
}

void
qg_segment_report(qg_epoch *e, uint32_t number, bool mismatch, const char *why)
{
	qg_stream *st = e->stream;
	st->n_bad++;
	e->bad_in_row += mismatch;
	const char *side = qg_epoch_is_ours(e, number) ? "owner" : "far_end";
	if (mismatch)
		qg_log(QG_LOG_WARN, "stream",
		       "event=segment_mismatch stream=%s segment=%u side=%s reason=\"%s\"", st->cfg->name,
		       number, side, why);
	else
		qg_log(QG_LOG_INFO, "stream",
		       "event=segment_given_up stream=%s segment=%u side=%s reason=\"%s\"", st->cfg->name,
		       number, side, why);
	qg_audit_event ev = {.act = QG_AUDIT_DESTROYED,
			     .caller = st->neighbour->id,
			     .peer = st->cfg->name,
			     .reason = why,
			     .ids = &e->ksid,
			     .n_ids = 1};
	qg_audit_write(st->core->part.audit, &ev);
}
