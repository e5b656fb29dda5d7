/* SPDX-License-Identifier: Apache-2.0 */
/* Another generation of the key ring. Flushes seal segments again under it, the roots
 * of epochs are saved again, transferred keys and blocks of applications stay as they
 * are. A generation is destroyed only when nothing that the database may still hold
 * needs it, however soon one rotation comes after another. */
#include <stdatomic.h>
#include <stdlib.h>

#include "app_stream_internal.h"
#include "core_internal.h"
#include "records_internal.h"
#include "qkdgate/log.h"

enum { ROOTS_OLD, ROOTS_ON_THEIR_WAY, ROOTS_DURABLE };

typedef struct roots_job {
	qg_job job;
	struct qg_core *core;
} roots_job;

static qg_err
roots_run(qg_job *job, qg_store *store)
{
	(void)job, (void)store;
	return QG_OK;
}

/* Comes behind the epochs that were saved before it. */
static void
roots_done(qg_job *job, qg_err err)
{
	roots_job *j = (roots_job *)job;
	atomic_store(&j->core->roots, err == QG_OK ? ROOTS_DURABLE : ROOTS_OLD);
	free(j);
}

static void
save_roots(struct qg_core *core)
{
	roots_job *j = calloc(1, sizeof *j);
	if (j == NULL)
		return;
	*j = (roots_job){.job = {.run = roots_run, .done = roots_done}, .core = core};
	atomic_store(&core->roots, ROOTS_ON_THEIR_WAY);
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		pthread_mutex_lock(&st->lock);
		for (qg_epoch *e = st->newest; e != NULL; e = e->older)
			if (e->row != 0)
				qg_epoch_save(e);
		pthread_mutex_unlock(&st->lock);
	}
	qg_committer_submit(core->committer, &j->job);
}

static uint32_t
lower(uint32_t a, uint32_t b)
{
	return b != 0 && b < a ? b : a;
}

/* The oldest generation of a segment, as the database may have it. */
static uint32_t
oldest_of_segments(struct qg_core *core)
{
	uint32_t oldest = UINT32_MAX;
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		pthread_mutex_lock(&st->lock);
		for (const qg_epoch *e = st->newest; e != NULL; e = e->older)
			for (uint32_t n = 0; n < e->n_seg; n++)
				if (e->seg[n] != NULL)
					oldest = lower(lower(oldest, e->seg[n]->generation), e->seg[n]->stored_generation);
		pthread_mutex_unlock(&st->lock);
	}
	return oldest;
}

bool
qg_rotate_ring(struct qg_core *core)
{
	if (atomic_load(&core->roots) != ROOTS_DURABLE) {
		if (atomic_load(&core->roots) == ROOTS_OLD)
			save_roots(core);
		return false;
	}
	qg_sealer *sealer = core->part.sealer;
	const uint32_t before = qg_sealer_generation(sealer);
	qg_err err = qg_sealer_rotate(sealer);
	const uint32_t now = qg_sealer_generation(sealer);
	if (err == QG_OK && now != before) {
		uint32_t needed = lower(before, oldest_of_segments(core));
		needed = lower(needed, qg_transfers_oldest_generation(core->transfers));
		needed = lower(needed, qg_app_streams_oldest_generation(core));
		err = qg_sealer_destroy_below(sealer, needed);
	}
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "store", "event=key_ring_not_rotated reason=\"%s\"", qg_err_text(err));
	if (now == before)
		return true;
	qg_log(QG_LOG_INFO, "store", "event=key_ring_rotated generation=%u", now);
	save_roots(core);
	return true;
}
