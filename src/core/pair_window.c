/* SPDX-License-Identifier: Apache-2.0 */
/* What pairs took of limits.pair_chunks, over a restart: written once a second and at an
 * orderly stop, so that a gateway that is killed forgets its last second. */
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "qkdgate/bytes.h"
#include "qkdgate/clock.h"
#include "qkdgate/secret.h"

#define PAIRS_MAX 1024 /* in one transaction */

static bool
is_limited(const struct qg_core *core)
{
	return core->part.cfg->pair_chunks > 0;
}

/* --- at the start ----------------------------------------------------------------- */

typedef struct loading {
	struct qg_core *core;
	int64_t wall_ms;
	uint64_t now_ms;
} loading;

/* A wall clock that was set back adds nothing: then it was just now. */
static qg_err
take_stored(const qg_window_rec *rec, void *ctx)
{
	const loading *l = ctx;
	qg_window_amounts a = {.slot_ms = rec->slot_ms};
	qg_reader r = qg_reader_of(rec->chunks, rec->chunks_len);
	if (rec->pair_len != sizeof a.name || rec->chunks_len != 8 * QG_WINDOW_SLOTS || rec->slot_ms == 0 ||
	    rec->slot_ms > UINT32_MAX)
		return QG_E_CORRUPT;
	memcpy(a.name, rec->pair, sizeof a.name);
	a.began_ms_ago = l->wall_ms > rec->began_ms ? (uint64_t)(l->wall_ms - rec->began_ms) : 0;
	for (size_t i = 0; i < QG_WINDOW_SLOTS; i++)
		a.n[i] = qg_get_u64(&r);
	qg_window_put(l->core->pair_window, &a, l->now_ms);
	return QG_OK;
}

/* Twice the window: none of it can count any more. */
static qg_err
forget_old(struct qg_core *core, int64_t wall_ms)
{
	qg_store *s = core->part.store;
	qg_err err = s->ops->begin(s);
	if (err != QG_OK)
		return err;
	err = s->ops->windows_delete(s, wall_ms - 2000 * (int64_t)core->part.cfg->fetch_s);
	if (err == QG_OK)
		return s->ops->commit(s);
	s->ops->rollback(s);
	return err;
}

qg_err
qg_pair_window_load(struct qg_core *core)
{
	loading l = {.core = core, .wall_ms = qg_clock_wall_ms(), .now_ms = qg_clock_elapsed_ms()};
	uint8_t key[32];
	if (!is_limited(core))
		return QG_OK;
	qg_sealer_derive(core->part.sealer, "pair window", key);
	qg_window_use_key(core->pair_window, key);
	qg_wipe(key, sizeof key);
	const qg_err err = forget_old(core, l.wall_ms);
	return err == QG_OK ? core->part.store->ops->load_windows(core->part.store, take_stored, &l) : err;
}

/* --- once a second ---------------------------------------------------------------- */

typedef struct batch {
	qg_job job;
	qg_window *window;
	int64_t wall_ms; /* as of which the amounts are */
	size_t n;
	qg_window_amounts a[];
} batch;

static qg_err
put_one(qg_store *store, const qg_window_amounts *a, int64_t wall_ms)
{
	uint8_t chunks[8 * QG_WINDOW_SLOTS];
	qg_writer w = qg_writer_of(chunks, sizeof chunks);
	for (size_t i = 0; i < QG_WINDOW_SLOTS; i++)
		qg_put_u64(&w, a->n[i]);
	return store->ops->window_put(store, &(qg_window_rec){.pair = a->name,
							      .pair_len = sizeof a->name,
							      .began_ms = wall_ms - (int64_t)a->began_ms_ago,
							      .slot_ms = a->slot_ms,
							      .chunks = chunks,
							      .chunks_len = sizeof chunks});
}

static qg_err
batch_run(qg_job *job, qg_store *store)
{
	const batch *b = (const batch *)job;
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < b->n; i++)
		err = put_one(store, &b->a[i], b->wall_ms);
	return err;
}

/* The committer tells of what failed; it is tried again a second later. */
static void
batch_done(qg_job *job, qg_err err)
{
	batch *b = (batch *)job;
	if (err != QG_OK)
		qg_window_again(b->window, b->a, b->n);
	free(b);
}

/* How many pairs are being written. */
static size_t
flush_some(struct qg_core *core)
{
	batch *b = malloc(sizeof *b + PAIRS_MAX * sizeof b->a[0]);
	if (b == NULL)
		return 0;
	*b = (batch){.job = {.run = batch_run, .done = batch_done},
		     .window = core->pair_window,
		     .wall_ms = qg_clock_wall_ms()};
	b->n = qg_window_changed(core->pair_window, qg_clock_elapsed_ms(), b->a, PAIRS_MAX);
	const size_t n = b->n;
	if (n > 0)
		qg_committer_submit(core->committer, &b->job);
	else
		free(b);
	return n;
}

void
qg_pair_window_flush(struct qg_core *core)
{
	while (is_limited(core) && flush_some(core) == PAIRS_MAX)
		;
}
