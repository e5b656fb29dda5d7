/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "pad_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/grow.h"
#include "qkdgate/log.h"

/* What the store holds becomes streams, epochs and segments again; what a
 * crash left uncertain is given up, and a store that is older than the anchor
 * is not used for keys (SOUNDNESS 3, 8, 9). */

#define CHUNK_MAX_BYTES 4096u /* as in the configuration */
#define SEGMENT_MAX_CHUNKS 65536u

typedef struct restore {
	struct qg_core *core;
	bool reset; /* the epochs end, nothing is taken over */
} restore;

static qg_stream *
stream_named(struct qg_core *core, const char *name)
{
	for (size_t i = 0; i < core->n_streams; i++)
		if (strcmp(core->stream[i].cfg->name, name) == 0)
			return &core->stream[i];
	return NULL;
}

static qg_epoch *
epoch_of_row(struct qg_core *core, int64_t row)
{
	for (size_t i = 0; i < core->n_streams; i++)
		for (qg_epoch *e = core->stream[i].newest; e != NULL; e = e->older)
			if (e->row == row)
				return e;
	return NULL;
}

static qg_err
restore_root(qg_epoch *e, bool ours, const uint8_t *blob, size_t len)
{
	if (blob == NULL)
		return QG_OK;
	uint8_t ad[QG_KMS_BATCH_CANONICAL_MAX];
	size_t ad_len = qg_epoch_ad(e, ours ? "root-out" : "root-in", 0, ad, sizeof ad);
	QG_SECRET_AUTO *root = NULL;
	qg_err err = qg_sealer_unseal(e->stream->core->part.sealer, ad, ad_len, blob, len, &root);
	return err == QG_OK ? qg_epoch_set_root(e, ours, &root) : err;
}

static uint32_t
stored_decided_out(const qg_epoch_rec *rec)
{
	uint64_t next = rec->next_index / rec->segment_chunks;
	uint64_t marked = (rec->mark + rec->segment_chunks - 1) / rec->segment_chunks;
	return (uint32_t)(marked > next ? marked : next);
}

/* What no gateway writes: room is made and read as these numbers say. */
static bool
is_damaged(const qg_epoch_rec *rec)
{
	if (rec->chunk_size == 0 || rec->chunk_size > CHUNK_MAX_BYTES || rec->segment_chunks > SEGMENT_MAX_CHUNKS ||
	    !qg_segment_size_fits(rec->chunk_size, rec->segment_chunks))
		return true;
	return rec->mark > UINT32_MAX || rec->next_index > UINT32_MAX ||
	       rec->next_segment > UINT32_MAX / rec->segment_chunks;
}

static qg_err
load_epoch(const qg_epoch_rec *rec, void *ctx)
{
	restore *r = ctx;
	qg_stream *st = stream_named(r->core, rec->stream);
	if (st == NULL) {
		qg_log(QG_LOG_WARN, "store", "event=stream_not_configured stream=%s",
		       qg_log_safe(rec->stream));
		return QG_OK;
	}
	qg_epoch *e = NULL;
	if (is_damaged(rec))
		return QG_E_CORRUPT;
	qg_err err = qg_epoch_new(st, &rec->ksid, rec->epoch, rec->opener, rec->chunk_size,
				  rec->segment_chunks, &e);
	if (err != QG_OK)
		return err;
	e->row = rec->row;
	e->restored = true;
	e->state = rec->state;
	e->mark = rec->mark;
	e->seen_mark = rec->seen_mark;
	e->decided_in = rec->next_segment;
	e->decided_out = stored_decided_out(rec);
	e->created_ms = rec->created_ms;
	e->end_ms = rec->end_ms;
	if (rec->probe_len == sizeof e->probe) {
		memcpy(e->probe, rec->probe, sizeof e->probe);
		e->probe_index = rec->probe_index;
		e->has_probe = true;
	}
	if (e->state == QG_EPOCH_DRAINING && e->row <= r->core->rollback_row) {
		e->reason = QG_KMS_CLOSE_ROLLBACK;
		e->tell_closed = true;
	}
	e->older = st->newest;
	st->newest = e;
	err = restore_root(e, true, rec->root_out, rec->root_out_len);
	return err == QG_OK ? restore_root(e, false, rec->root_in, rec->root_in_len) : err;
}

/* Ours: below the mark is uncertain since nobody knows what was issued. */
static void
restore_ours(qg_segment *s, const qg_segment_rec *rec)
{
	qg_epoch *e = s->epoch;
	qg_stream *st = e->stream;
	if (e->decided_out <= s->number)
		e->decided_out = s->number + 1;
	if (rec->state == QG_SEGMENT_OFFERED) {
		s->phase = QG_SEG_OFFERED;
		return;
	}
	s->phase = QG_SEG_CONFIRMED;
	if (s->use != QG_USE_APPLICATION) {
		/* Had a byte of it been used, it would not be here: the mark says
		 * nothing of it. */
		qg_pads_confirmed(s);
		return;
	}
	uint64_t above = e->mark > s->first_index ? e->mark - s->first_index : 0;
	s->cursor = above < s->lo ? s->lo : above > s->hi ? s->hi : (uint32_t)above;
	qg_segment_wipe(s, 0, s->cursor);
	st->ready += s->hi - s->cursor;
}

static qg_err
restore_theirs(qg_segment *s, const qg_segment_rec *rec)
{
	qg_epoch *e = s->epoch;
	size_t bits = ((size_t)s->count + 7) / 8;
	if (rec->used_len != bits)
		return QG_E_CORRUPT;
	memcpy(s->used, rec->used, bits);
	memcpy(s->gone, rec->used, bits);
	memcpy(s->was, rec->used, bits);
	s->phase = QG_SEG_CONFIRMED;
	s->left = 0;
	for (uint32_t i = s->lo; i < s->hi; i++) {
		if (qg_bits_any(s->gone, i, 1))
			qg_segment_wipe(s, i, 1);
		else
			s->left++;
	}
	if (s->use != QG_USE_APPLICATION)
		qg_pads_confirmed(s);
	else
		e->stream->held += s->left;
	if (e->last_in <= s->number)
		e->last_in = s->number + 1;
	if (s->left == 0)
		qg_segment_drop_data(s);
	return QG_OK;
}

static qg_err
restore_data(qg_segment *s, const qg_segment_rec *rec)
{
	if (rec->sealed == NULL) {
		qg_segment_drop_data(s);
		return QG_OK;
	}
	return qg_segment_unseal(s, rec->sealed, rec->sealed_len);
}

static qg_err
restore_segment(qg_epoch *e, const qg_segment_rec *rec, qg_segment *s)
{
	bool node = rec->use == QG_USE_PAD || rec->use == QG_USE_MAC;
	if (rec->count != e->segment_chunks || rec->message_len == 0 ||
	    (!node && rec->use != QG_USE_APPLICATION) || (node && rec->root))
		return QG_E_CORRUPT;
	s->row = rec->row;
	s->use = (qg_segment_use)rec->use;
	s->have = s->count;
	s->born_ms = rec->born_ms;
	s->ready_wall_ms = rec->ready_wall_ms;
	s->issue_s = rec->issue_s;
	s->fetch_s = rec->fetch_s;
	s->hops = rec->hops;
	memcpy(s->tag, rec->tag, sizeof s->tag);
	s->message = malloc(rec->message_len);
	if (s->message == NULL)
		return QG_E_NOMEM;
	memcpy(s->message, rec->message, rec->message_len);
	s->message_len = rec->message_len;
	qg_segment_set_root(s, rec->root != 0);
	qg_err err = restore_data(s, rec);
	if (err != QG_OK)
		return err;
	qg_segment_set_dirty(s, false);
	if (rec->ours)
		restore_ours(s, rec);
	return rec->ours ? QG_OK : restore_theirs(s, rec);
}

static qg_err
load_segment(const qg_segment_rec *rec, void *ctx)
{
	restore *r = ctx;
	qg_epoch *e = epoch_of_row(r->core, rec->epoch_row);
	qg_segment *s = NULL;
	if (e == NULL)
		return QG_OK;
	const bool damaged = rec->number >= UINT32_MAX / e->segment_chunks || qg_epoch_segment(e, rec->number) != NULL;
	qg_err err = damaged ? QG_E_CORRUPT : qg_segment_new(e, rec->number, rec->ours, &s);
	if (err == QG_OK)
		err = restore_segment(e, rec, s);
	if (err == QG_OK)
		err = qg_epoch_add(e, s);
	if (err == QG_OK)
		return QG_OK;
	qg_segment_free(&s);
	qg_log(QG_LOG_ERROR, "store", "event=segment_not_restored stream=%s segment=%u reason=\"%s\"",
	       e->stream->cfg->name, rec->number, qg_err_text(err));
	return err;
}

/* --- the anchor ------------------------------------------------------------------- */

static const qg_anchor_entry *
anchored_entry(const qg_anchor_state *a, const uint8_t id[16])
{
	for (size_t i = 0; i < a->n; i++)
		if (memcmp(a->entry[i].epoch, id, 16) == 0)
			return &a->entry[i];
	return NULL;
}

/* The anchor is written after the database and before use, so it may only lag
 * behind: anything else means that the database was put back. */
static bool
store_is_old(struct qg_core *core, bool found, const qg_anchor_state *a)
{
	if (core->part.fresh)
		return false;
	if (!found) {
		qg_log(QG_LOG_ERROR, "store", "event=anchor_missing");
		return true;
	}
	if ((uint64_t)core->commits < a->commits)
		return true;
	for (size_t i = 0; i < core->n_streams; i++)
		for (const qg_epoch *e = core->stream[i].newest; e != NULL; e = e->older) {
			const qg_anchor_entry *entry = anchored_entry(a, e->id);
			if (entry != NULL && e->mark < entry->mark)
				return true;
		}
	return false;
}

static qg_err
anchor_open(struct qg_core *core, qg_anchor_state *a, bool *found, char *why, size_t why_room)
{
	uint8_t key[32];
	qg_sealer_derive(core->part.sealer, "anchor", key);
	qg_err err = qg_anchor_open(core->part.cfg->anchor, key, found, a, &core->anchor);
	qg_wipe(key, sizeof key);
	if (err != QG_OK)
		snprintf(why, why_room, "anchor %s: %s", core->part.cfg->anchor, qg_err_text(err));
	return err;
}

/* A start is counted too: what was committed since the store last heard of the
 * count is older than it. */
static qg_err
count_start(struct qg_core *core)
{
	qg_store *store = core->part.store;
	qg_err err = store->ops->begin(store);
	if (err != QG_OK)
		return err;
	err = store->ops->number_put(store, "commits", core->commits + 1);
	if (err != QG_OK) {
		store->ops->rollback(store);
		return err;
	}
	err = store->ops->commit(store);
	if (err == QG_OK)
		core->commits_stored = ++core->commits;
	return err;
}

static void
anchor_fill(struct qg_core *core)
{
	qg_anchor_state *a = &core->anchored;
	a->commits = (uint64_t)core->commits;
	a->n = 0;
	for (size_t i = 0; i < core->n_streams; i++)
		for (const qg_epoch *e = core->stream[i].newest; e != NULL && a->n < QG_ANCHOR_EPOCHS;
		     e = e->older) {
			memcpy(a->entry[a->n].epoch, e->id, sizeof e->id);
			a->entry[a->n++].mark = e->mark;
		}
}

/* --- ending what cannot be trusted -------------------------------------------------- */

typedef struct row_list {
	int64_t *row;
	size_t n, room;
} row_list;

static qg_err
row_add(row_list *l, int64_t row)
{
	int64_t *more = qg_grown(l->row, &l->room, l->n, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	l->row = more;
	l->row[l->n++] = row;
	return QG_OK;
}

static qg_err
list_transfer(const qg_transfer_rec *rec, void *ctx)
{
	return row_add(ctx, rec->row);
}

static qg_err
list_segment(const qg_segment_rec *rec, void *ctx)
{
	return row_add(ctx, rec->row);
}

static qg_err
write_ended(qg_store *store, const qg_epoch *e)
{
	qg_epoch_image img;
	qg_err err = qg_epoch_snapshot(e, &img);
	if (err == QG_OK)
		err = store->ops->epoch_update(store, &img.rec);
	qg_epoch_image_free(&img);
	return err;
}

static qg_err
end_all_rows(struct qg_core *core, const row_list *segments, const row_list *transfers)
{
	qg_store *store = core->part.store;
	qg_err err = QG_OK;
	for (size_t i = 0; i < segments->n && err == QG_OK; i++)
		err = store->ops->segment_delete(store, segments->row[i]);
	for (size_t i = 0; i < transfers->n && err == QG_OK; i++)
		err = store->ops->transfer_delete(store, transfers->row[i]);
	for (size_t i = 0; i < core->n_streams; i++)
		for (const qg_epoch *e = core->stream[i].newest; e != NULL && err == QG_OK; e = e->older)
			err = write_ended(store, e);
	if (err == QG_OK)
		err = store->ops->number_put(store, "commits", core->commits);
	/* The neighbours may only hear of it after another start. */
	if (err == QG_OK)
		err = store->ops->number_put(store, "rollback_row", core->rollback_row);
	return err;
}

/* Keys of an old database may have been handed out since: all of it goes, in
 * both directions; only the key-ID keys stay, to answer for old IDs. */
static qg_err
end_all(struct qg_core *core, uint64_t commits)
{
	qg_store *store = core->part.store;
	uint64_t end_ms = qg_epoch_end_ms(core);
	row_list segments = {0}, transfers = {0};
	for (size_t i = 0; i < core->n_streams; i++)
		for (qg_epoch *e = core->stream[i].newest; e != NULL; e = e->older) {
			e->state = QG_EPOCH_DRAINING;
			e->reason = QG_KMS_CLOSE_ROLLBACK;
			e->tell_closed = true;
			if (core->rollback_row < e->row)
				core->rollback_row = e->row;
			e->end_ms = end_ms;
		}
	if (core->commits < (int64_t)commits)
		core->commits = (int64_t)commits;
	qg_err err = store->ops->load_segments(store, list_segment, &segments);
	if (err == QG_OK)
		err = store->ops->load_transfers(store, list_transfer, &transfers);
	if (err == QG_OK)
		err = store->ops->begin(store);
	if (err == QG_OK) {
		err = end_all_rows(core, &segments, &transfers);
		if (err == QG_OK)
			err = store->ops->commit(store);
		else
			store->ops->rollback(store);
	}
	free(segments.row);
	free(transfers.row);
	return err;
}

static qg_err
load_seen(struct qg_core *core)
{
	qg_err err = QG_OK;
	for (size_t i = 0; i < core->n_streams; i++)
		for (qg_epoch *e = core->stream[i].newest; e != NULL && err == QG_OK; e = e->older)
			err = qg_pads_load_seen(e, core->part.store);
	return err;
}

/* --- all of it -------------------------------------------------------------------- */

static qg_err
restore_life(struct qg_core *core)
{
	qg_store *store = core->part.store;
	int64_t owner_ms = 0, far_ms = 0, wall_ms = 0;
	qg_err err = store->ops->number_get(store, "life_owner_ms", &owner_ms);
	if (err == QG_OK)
		err = store->ops->number_get(store, "life_far_ms", &far_ms);
	if (err == QG_OK)
		err = store->ops->number_get(store, "life_wall_ms", &wall_ms);
	if (err == QG_OK)
		err = store->ops->number_get(store, "commits", &core->commits);
	if (err == QG_OK)
		err = store->ops->number_get(store, "rollback_row", &core->rollback_row);
	qg_lifetime_checkpoint c = {.owner_ms = (uint64_t)owner_ms,
				    .far_ms = (uint64_t)far_ms,
				    .wall_ms = wall_ms,
				    .valid = wall_ms != 0};
	if (err == QG_OK && qg_lifetime_start(&core->life, &c, core->part.cfg->clock_jump_s))
		qg_log(QG_LOG_ERROR, "store",
		       "event=clock_jump reason=\"the wall clock went ahead further than believed\"");
	return err;
}

/* Only the newest epoch goes on being filled. */
static void
resume_streams(struct qg_core *core)
{
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		qg_epoch *filling = qg_epoch_filling(st);
		for (qg_epoch *e = st->newest; e != NULL; e = e->older)
			if (e != filling && e->state == QG_EPOCH_FILLING) {
				e->state = QG_EPOCH_ENDED;
				e->end_ms = qg_epoch_end_ms(core);
			}
		if (filling == NULL) {
			qg_stream_reopen(st);
			continue;
		}
		st->ksid = filling->ksid;
		qg_stream_go(st, QG_STREAM_OPEN);
	}
}

static qg_err
restore_loaded(struct qg_core *core, restore *r, bool found, const qg_anchor_state *a, char *why,
	       size_t why_room)
{
	core->rolled_back = store_is_old(core, found, a);
	qg_err err;
	if (core->rolled_back || r->reset) {
		qg_log(QG_LOG_ERROR, "store", "event=epochs_ended reason=\"%s\"",
		       r->reset ? "reset by the operator" : "the database is older than the anchor");
		err = end_all(core, a->commits);
	} else {
		err = core->part.store->ops->load_segments(core->part.store, load_segment, r);
	}
	if (err == QG_OK)
		err = qg_app_streams_load(core, core->rolled_back || r->reset);
	if (err == QG_OK)
		err = count_start(core);
	if (err == QG_OK) {
		anchor_fill(core);
		err = qg_anchor_write(core->anchor, &core->anchored);
	}
	if (err != QG_OK)
		snprintf(why, why_room, "database %s: %s", core->part.cfg->database, qg_err_text(err));
	return err;
}

qg_err
qg_restore_all(struct qg_core *core, bool reset, char *why, size_t why_room)
{
	restore r = {.core = core, .reset = reset};
	bool found = false;
	qg_anchor_state *a = calloc(1, sizeof *a);
	qg_err err = a != NULL ? restore_life(core) : QG_E_NOMEM;
	if (err == QG_OK)
		err = core->part.store->ops->load_epochs(core->part.store, load_epoch, &r);
	if (err == QG_OK)
		err = load_seen(core);
	if (err != QG_OK)
		snprintf(why, why_room, "database %s: %s", core->part.cfg->database, qg_err_text(err));
	else
		err = anchor_open(core, a, &found, why, why_room);
	if (err == QG_OK)
		err = restore_loaded(core, &r, found, a, why, why_room);
	if (err == QG_OK)
		resume_streams(core);
	free(a);
	return err;
}
