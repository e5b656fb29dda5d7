/* SPDX-License-Identifier: Apache-2.0 */
/* Transferred keys with their targets, and named numbers. */
#include <stdlib.h>
#include <string.h>

#include "store_internal.h"

qg_err
qg_store_transfer_put(qg_store *s, qg_transfer_rec *rec)
{
	int64_t row;
	qg_err err = qg_sql_insert(s, QG_SQL_TRANSFER_PUT,
		QG_ARGS(qg_arg_text(rec->initiator), qg_arg_blob(rec->key_id.b, sizeof rec->key_id.b),
			qg_arg_i64(rec->state), qg_arg_text(rec->origin),
			qg_arg_blob(rec->sealed, rec->sealed_len), qg_arg_u64(rec->size_bytes),
			qg_arg_u64(rec->expiry_ms), qg_arg_text(rec->extension != NULL ? rec->extension : ""),
			qg_arg_text(rec->optional != NULL ? rec->optional : "")),
		&row);
	for (size_t i = 0; err == QG_OK && i < rec->n_targets; i++)
		err = qg_sql_change(s, QG_SQL_TARGET_PUT,
			QG_ARGS(qg_arg_i64(row), qg_arg_text(rec->target[i].sae),
				qg_arg_i64(rec->target[i].state),
				qg_arg_text(rec->target[i].home != NULL ? rec->target[i].home : "")),
			QG_E_IO);
	if (err == QG_OK)
		rec->row = row;
	return err;
}

qg_err
qg_store_transfer_state(qg_store *s, int64_t row, qg_transfer_state was, qg_transfer_state now)
{
	return qg_sql_change(
		s, QG_SQL_TRANSFER_STATE, QG_ARGS(qg_arg_i64(row), qg_arg_i64(was), qg_arg_i64(now)), QG_E_STATE);
}

qg_err
qg_store_target_state(qg_store *s, int64_t row, const char *sae, qg_target_state was, qg_target_state now)
{
	return qg_sql_change(s, QG_SQL_TARGET_STATE,
		QG_ARGS(qg_arg_i64(row), qg_arg_text(sae), qg_arg_i64(was), qg_arg_i64(now)), QG_E_STATE);
}

qg_err
qg_store_transfer_unseal(qg_store *s, int64_t row)
{
	return qg_sql_change(s, QG_SQL_TRANSFER_UNSEAL, QG_ARGS(qg_arg_i64(row)), QG_E_NOTFOUND);
}

qg_err
qg_store_transfer_delete(qg_store *s, int64_t row)
{
	return qg_sql_change(s, QG_SQL_TRANSFER_DELETE, QG_ARGS(qg_arg_i64(row)), QG_E_NOTFOUND);
}

qg_err
qg_store_transfer_owe(qg_store *s, int64_t row, const char *peer)
{
	return qg_sql_change(
		s, QG_SQL_TRANSFER_OWE, QG_ARGS(qg_arg_i64(row), qg_arg_text(peer)), QG_E_NOTFOUND);
}

/* The targets of one transfer while it is handed on. */
typedef struct targets {
	qg_target_rec *target;
	char **name; /* owns what target[].sae and .home show: one block each */
	size_t n, room;
} targets;

static qg_err
targets_reserve(targets *t)
{
	if (t->n < t->room)
		return QG_OK;
	size_t room = t->room > 0 ? 2 * t->room : 8;
	qg_target_rec *target = reallocarray(t->target, room, sizeof *target);
	if (target == NULL)
		return QG_E_NOMEM;
	t->target = target;
	char **name = reallocarray(t->name, room, sizeof *name);
	if (name == NULL)
		return QG_E_NOMEM;
	t->name = name;
	t->room = room;
	return QG_OK;
}

static void
targets_clear(targets *t)
{
	while (t->n > 0)
		free(t->name[--t->n]);
}

static void
targets_free(targets *t)
{
	targets_clear(t);
	free(t->target);
	free(t->name);
}

static qg_err
target_row(qg_sql_row *r, void *ctx)
{
	targets *t = ctx;
	const char *sae = qg_row_text(r, 0);
	qg_target_state state = (qg_target_state)qg_row_small(r, 1, QG_TARGET_VOIDED);
	const char *home = qg_row_text(r, 2);
	if (r->bad)
		return QG_E_CORRUPT;
	qg_err err = targets_reserve(t);
	if (err != QG_OK)
		return err;
	const size_t sae_room = strlen(sae) + 1, home_room = strlen(home) + 1;
	char *name = malloc(sae_room + home_room);
	if (name == NULL)
		return QG_E_NOMEM;
	memcpy(name, sae, sae_room);
	memcpy(name + sae_room, home, home_room);
	t->name[t->n] = name;
	t->target[t->n] = (qg_target_rec){
		.sae = name, .state = state, .home = home[0] != '\0' ? name + sae_room : NULL};
	t->n++;
	return QG_OK;
}

typedef struct transfer_load {
	qg_store *store;
	qg_err (*each)(const qg_transfer_rec *rec, void *ctx);
	void *ctx;
	targets targets;
} transfer_load;

static qg_err
transfer_row(qg_sql_row *r, void *ctx)
{
	transfer_load *load = ctx;
	size_t sealed_len;
	qg_transfer_rec rec = {
		.row = qg_row_i64(r, 0),
		.initiator = qg_row_text(r, 1),
		.state = (qg_transfer_state)qg_row_small(r, 3, QG_TRANSFER_FAILED),
		.origin = qg_row_text(r, 4),
		.sealed = qg_row_blob(r, 5, &sealed_len),
		.size_bytes = qg_row_u32(r, 6),
		.expiry_ms = qg_row_u64(r, 7),
		.extension = qg_row_text(r, 8),
		.optional = qg_row_text(r, 9),
		.owed = qg_row_text(r, 10),
	};
	const uint8_t *key_id = qg_row_bytes(r, 2, sizeof rec.key_id.b);
	if (r->bad)
		return QG_E_CORRUPT;
	memcpy(rec.key_id.b, key_id, sizeof rec.key_id.b);
	rec.sealed_len = sealed_len;
	targets_clear(&load->targets);
	qg_err err = qg_sql_each(load->store, QG_SQL_TARGET_LOAD, QG_ARGS(qg_arg_i64(rec.row)), target_row,
		&load->targets);
	if (err != QG_OK)
		return err;
	rec.target = load->targets.target;
	rec.n_targets = load->targets.n;
	return load->each(&rec, load->ctx);
}

qg_err
qg_store_load_transfers(qg_store *s, qg_err (*each)(const qg_transfer_rec *rec, void *ctx), void *ctx)
{
	transfer_load load = {.store = s, .each = each, .ctx = ctx};
	qg_err err = qg_sql_each(s, QG_SQL_TRANSFER_LOAD, NULL, 0, transfer_row, &load);
	targets_free(&load.targets);
	return err;
}

qg_err
qg_store_telling_put(qg_store *s, qg_telling_rec *rec)
{
	return qg_sql_insert(s, QG_SQL_TELLING_PUT,
		QG_ARGS(qg_arg_text(rec->peer), qg_arg_i64(rec->what), qg_arg_text(rec->initiator),
			qg_arg_text(rec->targets), qg_arg_blob(rec->ids, rec->ids_len),
			qg_arg_u64(rec->until_ms)),
		&rec->row);
}

qg_err
qg_store_telling_delete(qg_store *s, int64_t row)
{
	return qg_sql_change(s, QG_SQL_TELLING_DELETE, QG_ARGS(qg_arg_i64(row)), QG_E_NOTFOUND);
}

typedef struct telling_load {
	qg_err (*each)(const qg_telling_rec *rec, void *ctx);
	void *ctx;
} telling_load;

static qg_err
telling_row(qg_sql_row *r, void *ctx)
{
	const telling_load *load = ctx;
	qg_telling_rec rec = {
		.row = qg_row_i64(r, 0),
		.peer = qg_row_text(r, 1),
		.what = qg_row_small(r, 2, 5),
		.initiator = qg_row_text(r, 3),
		.targets = qg_row_text(r, 4),
		.until_ms = qg_row_u64(r, 6),
	};
	rec.ids = qg_row_blob(r, 5, &rec.ids_len);
	if (r->bad || rec.ids_len == 0 || rec.ids_len % sizeof(qg_uuid) != 0)
		return QG_E_CORRUPT;
	return load->each(&rec, load->ctx);
}

qg_err
qg_store_load_tellings(qg_store *s, qg_err (*each)(const qg_telling_rec *rec, void *ctx), void *ctx)
{
	telling_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_TELLING_LOAD, NULL, 0, telling_row, &load);
}

static qg_err
number_row(qg_sql_row *r, void *ctx)
{
	int64_t value = qg_row_i64(r, 0);
	if (r->bad)
		return QG_E_CORRUPT;
	*(int64_t *)ctx = value;
	return QG_OK;
}

qg_err
qg_store_number_put(qg_store *s, const char *name, int64_t value)
{
	if (value == 0)
		return qg_sql_change(s, QG_SQL_NUMBER_DELETE, QG_ARGS(qg_arg_text(name)), QG_OK);
	return qg_sql_change(s, QG_SQL_NUMBER_PUT, QG_ARGS(qg_arg_text(name), qg_arg_i64(value)), QG_E_IO);
}

qg_err
qg_store_number_get(qg_store *s, const char *name, int64_t *value)
{
	int64_t found = 0;
	qg_err err = qg_sql_each(s, QG_SQL_NUMBER_GET, QG_ARGS(qg_arg_text(name)), number_row, &found);
	if (err == QG_OK)
		*value = found;
	return err;
}
