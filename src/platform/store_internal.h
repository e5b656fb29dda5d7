/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_STORE_INTERNAL_H
#define QKDGATE_STORE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/store.h"

/* store_sqlite.c alone knows SQLite and runs the statements named here;
 * store_sql.c has their texts; the other store_*.c say what
 * they mean for each table. */

typedef enum qg_sql {
	QG_SQL_BEGIN,
	QG_SQL_COMMIT,
	QG_SQL_ROLLBACK,
	QG_SQL_EPOCH_PUT,
	QG_SQL_EPOCH_UPDATE,
	QG_SQL_EPOCH_MARK,
	QG_SQL_EPOCH_DELETE,
	QG_SQL_EPOCH_LOAD,
	QG_SQL_SEGMENT_PUT,
	QG_SQL_SEGMENT_PUT_BLOB,
	QG_SQL_SEGMENT_PUT_USED,
	QG_SQL_SEGMENT_CONFIRM,
	QG_SQL_SEGMENT_SENT,
	QG_SQL_SEGMENT_USE,
	QG_SQL_SEGMENT_USED,
	QG_SQL_SEGMENT_RESEAL,
	QG_SQL_SEGMENT_DELETE,
	QG_SQL_SEGMENT_LOAD,
	QG_SQL_TRANSFER_PUT,
	QG_SQL_TRANSFER_STATE,
	QG_SQL_TRANSFER_UNSEAL,
	QG_SQL_TRANSFER_DELETE,
	QG_SQL_TRANSFER_OWE,
	QG_SQL_TRANSFER_LOAD,
	QG_SQL_TARGET_PUT,
	QG_SQL_TARGET_STATE,
	QG_SQL_TARGET_LOAD,
	QG_SQL_TELLING_PUT,
	QG_SQL_TELLING_DELETE,
	QG_SQL_TELLING_LOAD,
	QG_SQL_NUMBER_PUT,
	QG_SQL_NUMBER_DELETE,
	QG_SQL_NUMBER_GET,
	QG_SQL_APP_STREAM_PUT,
	QG_SQL_APP_STREAM_UPDATE,
	QG_SQL_APP_STREAM_DELETE,
	QG_SQL_APP_STREAM_LOAD,
	QG_SQL_APP_BLOCK_PUT,
	QG_SQL_APP_BLOCK_HELD,
	QG_SQL_APP_BLOCK_DELETE,
	QG_SQL_APP_BLOCK_LOAD,
	QG_SQL_ENTRY_PUT,
	QG_SQL_ENTRY_DELETE,
	QG_SQL_ENTRY_LOAD,
	QG_SQL_SUSPENSION_PUT,
	QG_SQL_SUSPENSION_DELETE,
	QG_SQL_SUSPENSION_LOAD,
	QG_SQL_WINDOW_PUT,
	QG_SQL_WINDOWS_DELETE,
	QG_SQL_WINDOW_LOAD,
	QG_SQL_ACCOUNT_ADD,
	QG_SQL_ACCOUNTS_DELETE,
	QG_SQL_ACCOUNT_LOAD,
	QG_SQL_LEVEL_PUT,
	QG_SQL_LEVELS_DELETE,
	QG_SQL_LEVEL_LOAD,
	QG_SQL_COUNT
} qg_sql;

extern const char *const qg_sql_texts[QG_SQL_COUNT];

/* The operations on SQLite, put together in store_sqlite.c. */
extern const qg_store_ops qg_store_sqlite_ops;

/* The value of a parameter. Bytes stay the caller's. */
typedef struct qg_sql_arg {
	enum { QG_ARG_NULL, QG_ARG_INT, QG_ARG_TEXT, QG_ARG_BLOB, QG_ARG_RANGE } kind;
	int64_t number;
	const void *bytes;
	size_t len;
} qg_sql_arg;

static inline qg_sql_arg
qg_arg_i64(int64_t v)
{
	return (qg_sql_arg){.kind = QG_ARG_INT, .number = v};
}

/* SQLite's integers are signed; what does not fit is refused with QG_E_RANGE. */
static inline qg_sql_arg
qg_arg_u64(uint64_t v)
{
	return (qg_sql_arg){.kind = v <= INT64_MAX ? QG_ARG_INT : QG_ARG_RANGE, .number = (int64_t)v};
}

static inline qg_sql_arg
qg_arg_text(const char *s)
{
	return (qg_sql_arg){.kind = QG_ARG_TEXT, .bytes = s};
}

/* NULL for p NULL. */
static inline qg_sql_arg
qg_arg_blob(const void *p, size_t n)
{
	return (qg_sql_arg){.kind = p != NULL ? QG_ARG_BLOB : QG_ARG_NULL, .bytes = p, .len = n};
}

#define QG_ARGS(...) \
	(const qg_sql_arg[]){__VA_ARGS__}, sizeof((const qg_sql_arg[]){__VA_ARGS__}) / sizeof(qg_sql_arg)

/* Runs a change inside begin .. commit; QG_E_STATE outside. `none` is returned
 * when no row was changed. A row that is there already: QG_E_EXISTS, one that
 * refers to a row that is not: QG_E_NOTFOUND, a value not allowed: QG_E_INVAL. */
qg_err qg_sql_change(qg_store *s, qg_sql id, const qg_sql_arg *arg, size_t n, qg_err none) QG_CHECKED;

/* The same for an INSERT; row gets the new row's number. */
qg_err qg_sql_insert(qg_store *s, qg_sql id, const qg_sql_arg *arg, size_t n, int64_t *row) QG_CHECKED;

/* A row being read. An access to a value that has not the form asked for sets
 * `bad` and gives zero or NULL. Views are valid until the callback returns. */
typedef struct qg_sql_row {
	void *stmt;
	bool bad;
} qg_sql_row;

int64_t qg_row_i64(qg_sql_row *r, int column);
uint64_t qg_row_u64(qg_sql_row *r, int column);
uint32_t qg_row_u32(qg_sql_row *r, int column);
/* At most `most`. */
unsigned qg_row_small(qg_sql_row *r, int column, unsigned most);
const char *qg_row_text(qg_sql_row *r, int column);
/* NULL and 0 for NULL. */
const uint8_t *qg_row_blob(qg_sql_row *r, int column, size_t *len);
/* Exactly n bytes, never NULL unless bad. */
const uint8_t *qg_row_bytes(qg_sql_row *r, int column, size_t n);

/* Calls back for every row of a query until the callback does not return
 * QG_OK; QG_E_CORRUPT when it left the row bad. */
typedef qg_err (*qg_row_fn)(qg_sql_row *row, void *ctx);
qg_err qg_sql_each(qg_store *s, qg_sql id, const qg_sql_arg *arg, size_t n, qg_row_fn each, void *ctx)
	QG_CHECKED;

/* store_keys.c */
qg_err qg_store_epoch_put(qg_store *s, qg_epoch_rec *rec) QG_CHECKED;
qg_err qg_store_epoch_update(qg_store *s, const qg_epoch_rec *rec) QG_CHECKED;
qg_err qg_store_epoch_mark(qg_store *s, int64_t row, uint64_t mark) QG_CHECKED;
qg_err qg_store_epoch_delete(qg_store *s, int64_t row) QG_CHECKED;
qg_err qg_store_segment_put(qg_store *s, qg_segment_rec *rec) QG_CHECKED;
qg_err qg_store_segment_confirm(qg_store *s, int64_t row, int64_t ready_wall_ms, uint32_t hops) QG_CHECKED;
qg_err qg_store_segment_sent(qg_store *s, int64_t row, uint64_t born_ms) QG_CHECKED;
qg_err qg_store_segment_used(qg_store *s, int64_t row, uint8_t *out, size_t len) QG_CHECKED;
qg_err qg_store_segment_use(qg_store *s, int64_t row, const uint8_t *was, const uint8_t *now, size_t len)
	QG_CHECKED;
qg_err qg_store_segment_reseal(qg_store *s, int64_t row, const uint8_t *sealed, size_t len) QG_CHECKED;
qg_err qg_store_segment_delete(qg_store *s, int64_t row) QG_CHECKED;
qg_err qg_store_load_epochs(
	qg_store *s, qg_err (*each)(const qg_epoch_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_load_segments(
	qg_store *s, qg_err (*each)(const qg_segment_rec *rec, void *ctx), void *ctx) QG_CHECKED;

/* store_transfers.c */
qg_err qg_store_transfer_put(qg_store *s, qg_transfer_rec *rec) QG_CHECKED;
qg_err qg_store_transfer_state(qg_store *s, int64_t row, qg_transfer_state was, qg_transfer_state now)
	QG_CHECKED;
qg_err qg_store_target_state(
	qg_store *s, int64_t row, const char *sae, qg_target_state was, qg_target_state now) QG_CHECKED;
qg_err qg_store_transfer_unseal(qg_store *s, int64_t row) QG_CHECKED;
qg_err qg_store_transfer_delete(qg_store *s, int64_t row) QG_CHECKED;
qg_err qg_store_transfer_owe(qg_store *s, int64_t row, const char *peer) QG_CHECKED;
qg_err qg_store_telling_put(qg_store *s, qg_telling_rec *rec) QG_CHECKED;
qg_err qg_store_telling_delete(qg_store *s, int64_t row) QG_CHECKED;
qg_err qg_store_load_tellings(
	qg_store *s, qg_err (*each)(const qg_telling_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_load_transfers(
	qg_store *s, qg_err (*each)(const qg_transfer_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_number_put(qg_store *s, const char *name, int64_t value) QG_CHECKED;
qg_err qg_store_number_get(qg_store *s, const char *name, int64_t *value) QG_CHECKED;

/* store_apps.c */
qg_err qg_store_app_stream_put(qg_store *s, qg_app_stream_rec *rec) QG_CHECKED;
qg_err qg_store_app_stream_update(qg_store *s, const qg_app_stream_rec *rec) QG_CHECKED;
qg_err qg_store_app_stream_delete(qg_store *s, int64_t row) QG_CHECKED;
qg_err qg_store_app_block_put(qg_store *s, const qg_app_block_rec *rec) QG_CHECKED;
qg_err qg_store_app_block_held(qg_store *s, int64_t stream_row, uint32_t first, uint64_t since_ms) QG_CHECKED;
qg_err qg_store_app_block_delete(qg_store *s, int64_t stream_row, uint32_t first) QG_CHECKED;
qg_err qg_store_load_app_streams(
	qg_store *s, qg_err (*each)(const qg_app_stream_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_load_app_blocks(
	qg_store *s, qg_err (*each)(const qg_app_block_rec *rec, void *ctx), void *ctx) QG_CHECKED;

/* store_operation.c */
qg_err qg_store_entry_put(qg_store *s, const qg_entry_rec *rec) QG_CHECKED;
qg_err qg_store_entry_delete(qg_store *s, const char *list, const char *name) QG_CHECKED;
qg_err qg_store_load_entries(
	qg_store *s, qg_err (*each)(const qg_entry_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_suspension_put(qg_store *s, const qg_suspension_rec *rec) QG_CHECKED;
qg_err qg_store_suspension_delete(qg_store *s, const qg_suspension_rec *rec) QG_CHECKED;
qg_err qg_store_load_suspensions(
	qg_store *s, qg_err (*each)(const qg_suspension_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_window_put(qg_store *s, const qg_window_rec *rec) QG_CHECKED;
qg_err qg_store_windows_delete(qg_store *s, int64_t before_ms) QG_CHECKED;
qg_err qg_store_load_windows(
	qg_store *s, qg_err (*each)(const qg_window_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_account_add(qg_store *s, const qg_account_rec *rec) QG_CHECKED;
qg_err qg_store_accounts_delete(qg_store *s, int64_t before_day) QG_CHECKED;
qg_err qg_store_load_accounts(qg_store *s, int64_t from, int64_t to,
			      qg_err (*each)(const qg_account_rec *rec, void *ctx), void *ctx) QG_CHECKED;
qg_err qg_store_level_put(qg_store *s, const qg_level_rec *rec) QG_CHECKED;
qg_err qg_store_levels_delete(qg_store *s) QG_CHECKED;
qg_err qg_store_load_levels(
	qg_store *s, qg_err (*each)(const qg_level_rec *rec, void *ctx), void *ctx) QG_CHECKED;

#endif
