/* SPDX-License-Identifier: Apache-2.0 */
/* What SAEs have left of their rates, over a restart: exact after an orderly stop. After
 * any other end, rates begin empty, since nobody knows what was used; so no restart gives
 * more than the burst. */
#include <stdlib.h>
#include <string.h>

#include "daemon_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/core_view.h"
#include "qkdgate/grow.h"
#include "qkdgate/log.h"

static qg_err
append(const qg_level_rec *rec, daemon_levels *l)
{
	qg_level_rec *more = qg_grown(l->level, &l->room, l->n, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	l->level = more;
	qg_level_rec copy = {.rate = strdup(rec->rate), .name = strdup(rec->name), .milli = rec->milli};
	if (copy.rate == NULL || copy.name == NULL) {
		free((char *)(uintptr_t)copy.rate);
		free((char *)(uintptr_t)copy.name);
		return QG_E_NOMEM;
	}
	l->level[l->n++] = copy;
	return QG_OK;
}

void
qg_daemon_free_levels(daemon_levels *l)
{
	for (size_t i = 0; i < l->n; i++) {
		free((char *)(uintptr_t)l->level[i].rate);
		free((char *)(uintptr_t)l->level[i].name);
	}
	free(l->level);
	*l = (daemon_levels){0};
}

static qg_err
take_stored(const qg_level_rec *rec, void *ctx)
{
	return append(rec, ctx);
}

/* Once they are taken they are no longer there: an end without order leaves none. */
static qg_err
forget_stored(qg_store *store)
{
	qg_err err = store->ops->begin(store);
	if (err != QG_OK)
		return err;
	err = store->ops->levels_delete(store);
	if (err == QG_OK)
		err = store->ops->number_put(store, QG_CORE_LEVELS_MS, 0);
	if (err == QG_OK)
		return store->ops->commit(store);
	store->ops->rollback(store);
	return err;
}

qg_err
qg_daemon_load_levels(daemon_parts *d)
{
	int64_t then_ms = 0;
	const int64_t now_ms = qg_clock_wall_ms();
	qg_err err = d->store->ops->number_get(d->store, QG_CORE_LEVELS_MS, &then_ms);
	if (err == QG_OK && then_ms != 0)
		err = d->store->ops->load_levels(d->store, take_stored, &d->levels);
	if (err == QG_OK && then_ms != 0)
		err = forget_stored(d->store);
	d->levels.known = d->fresh || then_ms != 0;
	/* A wall clock that was set back adds nothing; one set forward no more than the burst. */
	d->levels.away_ms = then_ms != 0 && now_ms > then_ms ? (uint64_t)(now_ms - then_ms) : 0;
	return err;
}

typedef struct keeper {
	daemon_levels levels;
	qg_err err;
} keeper;

static void
keep(const qg_level_rec *rec, void *ctx)
{
	keeper *k = ctx;
	if (k->err == QG_OK)
		k->err = append(rec, &k->levels);
}

void
qg_daemon_save_levels(daemon_parts *d)
{
	keeper k = {.err = QG_OK};
	const qg_config *cfg = qg_directory_config(d->directory);
	for (size_t i = 0; i < cfg->n_saes; i++)
		qg_etsi014_each_level(d->etsi014, cfg->saes[i].id, keep, &k);
	if (k.err == QG_OK)
		k.err = qg_core_levels_put(d->core, k.levels.level, k.levels.n);
	if (k.err != QG_OK) /* then they begin empty */
		qg_log(QG_LOG_WARN, "daemon", "event=levels_not_kept why=\"%s\"", qg_err_text(k.err));
	qg_daemon_free_levels(&k.levels);
}
