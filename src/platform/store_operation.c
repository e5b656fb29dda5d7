/* SPDX-License-Identifier: Apache-2.0 */
/* What operators made and suspended at run time, who got how much, and what was left of rates. */
#include "store_internal.h"

qg_err
qg_store_entry_put(qg_store *s, const qg_entry_rec *r)
{
	int64_t row;
	return qg_sql_insert(s, QG_SQL_ENTRY_PUT,
			     QG_ARGS(qg_arg_text(r->list), qg_arg_text(r->name), qg_arg_text(r->text)), &row);
}

qg_err
qg_store_entry_delete(qg_store *s, const char *list, const char *name)
{
	return qg_sql_change(s, QG_SQL_ENTRY_DELETE, QG_ARGS(qg_arg_text(list), qg_arg_text(name)), QG_E_NOTFOUND);
}

typedef struct entry_load {
	qg_err (*each)(const qg_entry_rec *rec, void *ctx);
	void *ctx;
} entry_load;

static qg_err
entry_row(qg_sql_row *r, void *ctx)
{
	const entry_load *load = ctx;
	const qg_entry_rec rec = {.list = qg_row_text(r, 0), .name = qg_row_text(r, 1), .text = qg_row_text(r, 2)};
	return r->bad ? QG_E_CORRUPT : load->each(&rec, load->ctx);
}

qg_err
qg_store_load_entries(qg_store *s, qg_err (*each)(const qg_entry_rec *rec, void *ctx), void *ctx)
{
	entry_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_ENTRY_LOAD, NULL, 0, entry_row, &load);
}

/* --- suspensions ----------------------------------------------------------------------- */

qg_err
qg_store_suspension_put(qg_store *s, const qg_suspension_rec *r)
{
	int64_t row;
	return qg_sql_insert(s, QG_SQL_SUSPENSION_PUT,
			     QG_ARGS(qg_arg_text(r->kind), qg_arg_text(r->name), qg_arg_text(r->other)), &row);
}

qg_err
qg_store_suspension_delete(qg_store *s, const qg_suspension_rec *r)
{
	return qg_sql_change(s, QG_SQL_SUSPENSION_DELETE,
			     QG_ARGS(qg_arg_text(r->kind), qg_arg_text(r->name), qg_arg_text(r->other)), QG_OK);
}

typedef struct suspension_load {
	qg_err (*each)(const qg_suspension_rec *rec, void *ctx);
	void *ctx;
} suspension_load;

static qg_err
suspension_row(qg_sql_row *r, void *ctx)
{
	const suspension_load *load = ctx;
	const qg_suspension_rec rec = {
		.kind = qg_row_text(r, 0), .name = qg_row_text(r, 1), .other = qg_row_text(r, 2)};
	return r->bad ? QG_E_CORRUPT : load->each(&rec, load->ctx);
}

qg_err
qg_store_load_suspensions(qg_store *s, qg_err (*each)(const qg_suspension_rec *rec, void *ctx), void *ctx)
{
	suspension_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_SUSPENSION_LOAD, NULL, 0, suspension_row, &load);
}

/* --- accounts ------------------------------------------------------------------------ */

qg_err
qg_store_account_add(qg_store *s, const qg_account_rec *r)
{
	return qg_sql_change(s, QG_SQL_ACCOUNT_ADD,
			     QG_ARGS(qg_arg_i64(r->day), qg_arg_text(r->sae), qg_arg_text(r->other),
				     qg_arg_u64(r->requests), qg_arg_u64(r->issued), qg_arg_u64(r->issued_bits),
				     qg_arg_u64(r->fetched), qg_arg_u64(r->fetched_bits), qg_arg_u64(r->refused),
				     qg_arg_u64(r->limited)),
			     QG_E_IO);
}

qg_err
qg_store_accounts_delete(qg_store *s, int64_t before_day)
{
	return qg_sql_change(s, QG_SQL_ACCOUNTS_DELETE, QG_ARGS(qg_arg_i64(before_day)), QG_OK);
}

typedef struct account_load {
	qg_err (*each)(const qg_account_rec *rec, void *ctx);
	void *ctx;
} account_load;

static qg_err
account_row(qg_sql_row *r, void *ctx)
{
	const account_load *load = ctx;
	const qg_account_rec rec = {
		.day = qg_row_i64(r, 0),
		.sae = qg_row_text(r, 1),
		.other = qg_row_text(r, 2),
		.requests = qg_row_u64(r, 3),
		.issued = qg_row_u64(r, 4),
		.issued_bits = qg_row_u64(r, 5),
		.fetched = qg_row_u64(r, 6),
		.fetched_bits = qg_row_u64(r, 7),
		.refused = qg_row_u64(r, 8),
		.limited = qg_row_u64(r, 9),
	};
	return r->bad ? QG_E_CORRUPT : load->each(&rec, load->ctx);
}

qg_err
qg_store_load_accounts(qg_store *s, int64_t from, int64_t to, qg_err (*each)(const qg_account_rec *rec, void *ctx),
		       void *ctx)
{
	account_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_ACCOUNT_LOAD, QG_ARGS(qg_arg_i64(from), qg_arg_i64(to)), account_row, &load);
}

/* --- pairs ------------------------------------------------------------------------------ */

qg_err
qg_store_window_put(qg_store *s, const qg_window_rec *r)
{
	int64_t row;
	return qg_sql_insert(s, QG_SQL_WINDOW_PUT,
			     QG_ARGS(qg_arg_blob(r->pair, r->pair_len), qg_arg_i64(r->began_ms), qg_arg_u64(r->slot_ms),
				     qg_arg_blob(r->chunks, r->chunks_len)),
			     &row);
}

qg_err
qg_store_windows_delete(qg_store *s, int64_t before_ms)
{
	return qg_sql_change(s, QG_SQL_WINDOWS_DELETE, QG_ARGS(qg_arg_i64(before_ms)), QG_OK);
}

typedef struct window_load {
	qg_err (*each)(const qg_window_rec *rec, void *ctx);
	void *ctx;
} window_load;

static qg_err
window_row(qg_sql_row *r, void *ctx)
{
	const window_load *load = ctx;
	qg_window_rec rec = {.began_ms = qg_row_i64(r, 1), .slot_ms = qg_row_u64(r, 2)};
	rec.pair = qg_row_blob(r, 0, &rec.pair_len);
	rec.chunks = qg_row_blob(r, 3, &rec.chunks_len);
	return r->bad ? QG_E_CORRUPT : load->each(&rec, load->ctx);
}

qg_err
qg_store_load_windows(qg_store *s, qg_err (*each)(const qg_window_rec *rec, void *ctx), void *ctx)
{
	window_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_WINDOW_LOAD, NULL, 0, window_row, &load);
}

/* --- rates ------------------------------------------------------------------------------ */

qg_err
qg_store_level_put(qg_store *s, const qg_level_rec *r)
{
	int64_t row;
	return qg_sql_insert(s, QG_SQL_LEVEL_PUT,
			     QG_ARGS(qg_arg_text(r->rate), qg_arg_text(r->name), qg_arg_u64(r->milli)), &row);
}

qg_err
qg_store_levels_delete(qg_store *s)
{
	return qg_sql_change(s, QG_SQL_LEVELS_DELETE, NULL, 0, QG_OK);
}

typedef struct level_load {
	qg_err (*each)(const qg_level_rec *rec, void *ctx);
	void *ctx;
} level_load;

static qg_err
level_row(qg_sql_row *r, void *ctx)
{
	const level_load *load = ctx;
	const qg_level_rec rec = {
		.rate = qg_row_text(r, 0), .name = qg_row_text(r, 1), .milli = qg_row_u64(r, 2)};
	return r->bad ? QG_E_CORRUPT : load->each(&rec, load->ctx);
}

qg_err
qg_store_load_levels(qg_store *s, qg_err (*each)(const qg_level_rec *rec, void *ctx), void *ctx)
{
	level_load load = {.each = each, .ctx = ctx};
	return qg_sql_each(s, QG_SQL_LEVEL_LOAD, NULL, 0, level_row, &load);
}
