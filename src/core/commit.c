/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* What the committer does around a group: merges the consumption of many
 * requests into one write per segment, counts, and lets the anchor follow. The
 * store gets the count only when the anchor does, in the transaction before it:
 * the two are compared at a start, and nothing in between. All of it runs on the
 * committer's thread. */

#define ANCHOR_EVERY_MS 1000 /* under load, SOUNDNESS 9 */

qg_err
qg_commit_stage(struct qg_core *core, qg_store *store, qg_segment *s, uint32_t first, uint32_t n)
{
	size_t len = ((size_t)s->count + 7) / 8;
	if (!s->staged) {
		if (s->reread) {
			qg_err err = store->ops->segment_used(store, s->row, s->was, len);
			if (err != QG_OK)
				return err;
			s->reread = false;
		}
		memcpy(s->next, s->was, len);
		s->staged = true;
		s->stage_next = core->stage;
		core->stage = s;
	}
	if (qg_bits_any(s->next, first, n))
		return QG_E_CONSUMED;
	qg_bits_set(s->next, first, n);
	core->commits_due = true;
	return QG_OK;
}

void
qg_commit_note_consumed(struct qg_core *core)
{
	core->commits_due = true;
}

void
qg_commit_note_change(struct qg_core *core)
{
	core->commits_due = true;
	core->anchor_due = true;
}

void
qg_commit_note_mark(struct qg_core *core, const uint8_t epoch[16], uint64_t mark)
{
	qg_commit_note_change(core);
	if (core->n_pending == QG_ANCHOR_EPOCHS) {
		core->anchor_full = true;
		return;
	}
	qg_anchor_entry *p = &core->pending[core->n_pending++];
	memcpy(p->epoch, epoch, sizeof p->epoch);
	p->mark = mark;
}

qg_err
qg_commit_before(qg_store *store, void *ctx)
{
	struct qg_core *core = ctx;
	for (qg_segment *s = core->stage; s != NULL; s = s->stage_next) {
		qg_err err =
			store->ops->segment_use(store, s->row, s->was, s->next, ((size_t)s->count + 7) / 8);
		if (err != QG_OK)
			return err;
	}
	core->anchor_now = core->commits_due && (core->anchor_due || core->anchor_bad ||
						 qg_clock_elapsed_ms() - core->anchor_at_ms >= ANCHOR_EVERY_MS);
	return core->anchor_now ? store->ops->number_put(store, "commits", core->commits + 1) : QG_OK;
}

static void
write_anchor(struct qg_core *core)
{
	core->anchored.commits = (uint64_t)core->commits_stored;
	core->anchor_at_ms = qg_clock_elapsed_ms();
	qg_err bad = qg_anchor_write(core->anchor, &core->anchored);
	if (bad != QG_OK && !core->anchor_bad)
		qg_log(QG_LOG_ERROR, "store", "event=anchor_not_written reason=\"%s\"", qg_err_text(bad));
	core->anchor_bad = bad != QG_OK;
}

static void
anchor_apply(struct qg_core *core, const qg_anchor_entry *p)
{
	qg_anchor_state *a = &core->anchored;
	size_t i = 0;
	while (i < a->n && memcmp(a->entry[i].epoch, p->epoch, sizeof p->epoch) != 0)
		i++;
	if (p->mark == UINT64_MAX) {
		if (i < a->n)
			a->entry[i] = a->entry[--a->n];
		return;
	}
	if (i == a->n && a->n == QG_ANCHOR_EPOCHS) {
		core->anchor_full = true;
		return;
	}
	if (i == a->n)
		a->n++;
	a->entry[i] = *p;
}

void
qg_commit_after(qg_err err, void *ctx)
{
	struct qg_core *core = ctx;
	bool full = core->anchor_full;
	core->anchor_full = false;
	for (qg_segment *s = core->stage; s != NULL; s = s->stage_next) {
		s->staged = false;
		if (err == QG_OK)
			memcpy(s->was, s->next, ((size_t)s->count + 7) / 8);
		else
			s->reread = true;
	}
	core->stage = NULL;
	if (err == QG_OK && core->commits_due) {
		core->commits++;
		for (size_t i = 0; i < core->n_pending; i++)
			anchor_apply(core, &core->pending[i]);
		core->anchor_full |= full;
		if (core->anchor_now) {
			core->commits_stored = core->commits;
			write_anchor(core);
		}
	}
	core->n_pending = 0;
	core->commits_due = core->anchor_due = false;
}

bool
qg_commit_anchored(const struct qg_core *core)
{
	return !core->anchor_bad && !core->anchor_full;
}
