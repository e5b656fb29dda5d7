/* SPDX-License-Identifier: Apache-2.0 */
/* The one file that knows SQLite: opens the database, runs the statements of
 * store_sql.c and turns SQLite's errors into ours. */
#include <assert.h>
#include <limits.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "keyfile_internal.h"
#include "qkdgate/embed.h"
#include "qkdgate/log.h"
#include "store_internal.h"

#define APPLICATION_ID 0x514b4447 /* "QKDG" in the file's head */
#define LOOSE 0177

typedef struct qg_sqlite {
	qg_store store; /* first member */
	sqlite3 *db;
	sqlite3_stmt *stmt[QG_SQL_COUNT];
	bool changing;   /* between begin and commit */
	int reported_rc; /* the failure that the log told last, 0 for none */
} qg_sqlite;

static qg_sqlite *
sqlite_of(qg_store *s)
{
	return (qg_sqlite *)(void *)s;
}

typedef struct failure {
	int rc; /* of SQLite, extended where it has more than eight bits */
	qg_err err;
	const char *reason; /* NULL: an answer, not a failure of the database */
} failure;

static const failure failures[] = {
	{SQLITE_CONSTRAINT_UNIQUE, QG_E_EXISTS, NULL},
	{SQLITE_CONSTRAINT_PRIMARYKEY, QG_E_EXISTS, NULL},
	{SQLITE_CONSTRAINT_ROWID, QG_E_EXISTS, NULL},
	{SQLITE_CONSTRAINT_FOREIGNKEY, QG_E_NOTFOUND, NULL},
	{SQLITE_CONSTRAINT, QG_E_INVAL, NULL},
	{SQLITE_TOOBIG, QG_E_RANGE, NULL},
	{SQLITE_NOMEM, QG_E_NOMEM, "out_of_memory"},
	{SQLITE_FULL, QG_E_IO, "disk_full"},
	{SQLITE_READONLY, QG_E_IO, "read_only"},
	{SQLITE_IOERR, QG_E_IO, "io_error"},
	{SQLITE_BUSY, QG_E_IO, "locked"},
	{SQLITE_CANTOPEN, QG_E_IO, "cannot_open"},
	{SQLITE_PERM, QG_E_IO, "no_permission"},
	{SQLITE_CORRUPT, QG_E_CORRUPT, "damaged"},
	{SQLITE_NOTADB, QG_E_CORRUPT, "not_a_database"},
};

static failure
failure_of(int rc)
{
	for (size_t i = 0; i < sizeof failures / sizeof failures[0]; i++)
		if (failures[i].rc == rc || failures[i].rc == (rc & 0xff))
			return failures[i];
	return (failure){rc, QG_E_IO, "unexpected"};
}

/* The log hears of a failure when it begins or changes, not at every call that
 * meets it. */
static qg_err
failed(qg_sqlite *s, int rc)
{
	failure f = failure_of(rc);
	if (f.reason != NULL && rc != s->reported_rc) {
		s->reported_rc = rc;
		qg_log(QG_LOG_ERROR, "store", "event=database_failed reason=%s sqlite=%d errno=%d", f.reason, rc,
			sqlite3_system_errno(s->db));
	}
	return f.err;
}

static void
recovered(qg_sqlite *s)
{
	if (s->reported_rc == 0)
		return;
	s->reported_rc = 0;
	qg_log(QG_LOG_INFO, "store", "event=database_recovered");
}

static qg_err
statement(qg_sqlite *s, qg_sql id, sqlite3_stmt **out)
{
	if (s->stmt[id] == NULL) {
		int rc = sqlite3_prepare_v3(
			s->db, qg_sql_texts[id], -1, SQLITE_PREPARE_PERSISTENT, &s->stmt[id], NULL);
		if (rc != SQLITE_OK)
			return failed(s, rc);
	}
	/* A load inside a load of the same rows. */
	if (sqlite3_stmt_busy(s->stmt[id]))
		return QG_E_STATE;
	*out = s->stmt[id];
	return QG_OK;
}

/* What was bound stays the caller's, so nothing of it may be kept. */
static void
statement_done(sqlite3_stmt *stmt)
{
	(void)sqlite3_reset(stmt); /* repeats the step's error */
	(void)sqlite3_clear_bindings(stmt);
}

static int
bind_one(sqlite3_stmt *stmt, int at, const qg_sql_arg *a)
{
	switch (a->kind) {
	case QG_ARG_NULL:
		return sqlite3_bind_null(stmt, at);
	case QG_ARG_INT:
		return sqlite3_bind_int64(stmt, at, a->number);
	case QG_ARG_TEXT:
		return sqlite3_bind_text(stmt, at, a->bytes, -1, SQLITE_STATIC);
	case QG_ARG_BLOB:
		return sqlite3_bind_blob64(stmt, at, a->bytes, a->len, SQLITE_STATIC);
	case QG_ARG_RANGE:
	default:
		return SQLITE_TOOBIG;
	}
}

static qg_err
statement_bind(qg_sqlite *s, qg_sql id, const qg_sql_arg *arg, size_t n, sqlite3_stmt **out)
{
	sqlite3_stmt *stmt = NULL;
	qg_err err = statement(s, id, &stmt);
	if (err != QG_OK)
		return err;
	assert((size_t)sqlite3_bind_parameter_count(stmt) == n);
	for (size_t i = 0; i < n; i++) {
		int rc = bind_one(stmt, (int)i + 1, &arg[i]);
		if (rc != SQLITE_OK) {
			statement_done(stmt);
			return failed(s, rc);
		}
	}
	*out = stmt;
	return QG_OK;
}

/* One of the statements without rows. */
static qg_err
statement_run(qg_sqlite *s, qg_sql id, const qg_sql_arg *arg, size_t n)
{
	sqlite3_stmt *stmt = NULL;
	qg_err err = statement_bind(s, id, arg, n, &stmt);
	if (err != QG_OK)
		return err;
	int rc = sqlite3_step(stmt);
	statement_done(stmt);
	return rc == SQLITE_DONE ? QG_OK : failed(s, rc);
}

/* Some failures end the transaction inside SQLite; what came after would be
 * committed by itself, so it is refused. */
static qg_err
changing(const qg_sqlite *s)
{
	if (!s->changing)
		return QG_E_STATE;
	return sqlite3_get_autocommit(s->db) ? QG_E_IO : QG_OK;
}

qg_err
qg_sql_change(qg_store *store, qg_sql id, const qg_sql_arg *arg, size_t n, qg_err none)
{
	qg_sqlite *s = sqlite_of(store);
	qg_err err = changing(s);
	if (err == QG_OK)
		err = statement_run(s, id, arg, n);
	if (err == QG_OK && sqlite3_changes(s->db) == 0)
		err = none;
	return err;
}

qg_err
qg_sql_insert(qg_store *store, qg_sql id, const qg_sql_arg *arg, size_t n, int64_t *row)
{
	qg_err err = qg_sql_change(store, id, arg, n, QG_E_IO);
	if (err == QG_OK)
		*row = sqlite3_last_insert_rowid(sqlite_of(store)->db);
	return err;
}

qg_err
qg_sql_each(qg_store *store, qg_sql id, const qg_sql_arg *arg, size_t n, qg_row_fn each, void *ctx)
{
	qg_sqlite *s = sqlite_of(store);
	sqlite3_stmt *stmt = NULL;
	int rc;
	qg_err err = statement_bind(s, id, arg, n, &stmt);
	if (err != QG_OK)
		return err;
	while ((rc = sqlite3_step(stmt)) == SQLITE_ROW) {
		qg_sql_row row = {.stmt = stmt};
		err = each(&row, ctx);
		if (err == QG_OK && row.bad)
			err = QG_E_CORRUPT;
		if (err != QG_OK)
			break;
	}
	statement_done(stmt);
	return rc == SQLITE_ROW || rc == SQLITE_DONE ? err : failed(s, rc);
}

static bool
has_type(qg_sql_row *r, int column, int type)
{
	if (sqlite3_column_type(r->stmt, column) == type)
		return true;
	r->bad = true;
	return false;
}

int64_t
qg_row_i64(qg_sql_row *r, int column)
{
	return has_type(r, column, SQLITE_INTEGER) ? sqlite3_column_int64(r->stmt, column) : 0;
}

static uint64_t
row_unsigned(qg_sql_row *r, int column, uint64_t most)
{
	int64_t v = qg_row_i64(r, column);
	if (v >= 0 && (uint64_t)v <= most)
		return (uint64_t)v;
	r->bad = true;
	return 0;
}

uint64_t
qg_row_u64(qg_sql_row *r, int column)
{
	return row_unsigned(r, column, INT64_MAX);
}

uint32_t
qg_row_u32(qg_sql_row *r, int column)
{
	return (uint32_t)row_unsigned(r, column, UINT32_MAX);
}

unsigned
qg_row_small(qg_sql_row *r, int column, unsigned most)
{
	return (unsigned)row_unsigned(r, column, most);
}

const char *
qg_row_text(qg_sql_row *r, int column)
{
	if (!has_type(r, column, SQLITE_TEXT))
		return NULL;
	const char *text = (const char *)sqlite3_column_text(r->stmt, column);
	if (text == NULL || strlen(text) != (size_t)sqlite3_column_bytes(r->stmt, column)) {
		r->bad = true;
		return NULL;
	}
	return text;
}

const uint8_t *
qg_row_blob(qg_sql_row *r, int column, size_t *len)
{
	*len = 0;
	if (sqlite3_column_type(r->stmt, column) == SQLITE_NULL || !has_type(r, column, SQLITE_BLOB))
		return NULL;
	const uint8_t *p = sqlite3_column_blob(r->stmt, column);
	if (p != NULL)
		*len = (size_t)sqlite3_column_bytes(r->stmt, column);
	return p;
}

const uint8_t *
qg_row_bytes(qg_sql_row *r, int column, size_t n)
{
	size_t len;
	const uint8_t *p = qg_row_blob(r, column, &len);
	if (p != NULL && len == n)
		return p;
	r->bad = true;
	return NULL;
}

static void
store_rollback(qg_store *store)
{
	qg_sqlite *s = sqlite_of(store);
	s->changing = false;
	if (sqlite3_get_autocommit(s->db))
		return;
	qg_err err = statement_run(s, QG_SQL_ROLLBACK, NULL, 0);
	if (err != QG_OK) /* the next begin tries again */
		qg_log(QG_LOG_ERROR, "store", "event=rollback_failed");
}

static qg_err
store_begin(qg_store *store)
{
	qg_sqlite *s = sqlite_of(store);
	if (s->changing)
		return QG_E_STATE;
	store_rollback(store); /* what a rollback that failed left open */
	qg_err err = statement_run(s, QG_SQL_BEGIN, NULL, 0);
	s->changing = err == QG_OK;
	return err;
}

/* After a sync that failed, a crash may yet find the commit done, and memory is
 * asked for after the sync too; a write that failed left no commit mark. */
static bool
may_have_happened(int rc)
{
	int primary = rc & 0xff;
	return primary == SQLITE_NOMEM || (primary == SQLITE_IOERR && rc != SQLITE_IOERR_WRITE);
}

static qg_err
store_commit(qg_store *store)
{
	qg_sqlite *s = sqlite_of(store);
	qg_err err = changing(s);
	if (err == QG_E_STATE)
		return err;
	if (err == QG_OK) {
		err = statement_run(s, QG_SQL_COMMIT, NULL, 0);
		if (err != QG_OK && may_have_happened(sqlite3_extended_errcode(s->db)))
			err = QG_E_UNKNOWN;
	}
	if (err != QG_OK) {
		store_rollback(store);
		return err == QG_E_CORRUPT || err == QG_E_UNKNOWN ? err : QG_E_IO;
	}
	s->changing = false;
	recovered(s);
	return QG_OK;
}

/* Closing the last connection moves the log into the database and removes it. */
static void
store_close(qg_store **store)
{
	if (store == NULL || *store == NULL)
		return;
	qg_sqlite *s = sqlite_of(*store);
	*store = NULL;
	for (size_t i = 0; i < QG_SQL_COUNT; i++)
		(void)sqlite3_finalize(s->stmt[i]); /* repeats an old error */
	if (sqlite3_close(s->db) != SQLITE_OK)
		qg_log(QG_LOG_ERROR, "store", "event=close_failed");
	free(s);
}

const qg_store_ops qg_store_sqlite_ops = {
	.begin = store_begin,
	.commit = store_commit,
	.rollback = store_rollback,
	.epoch_put = qg_store_epoch_put,
	.epoch_update = qg_store_epoch_update,
	.epoch_mark = qg_store_epoch_mark,
	.epoch_delete = qg_store_epoch_delete,
	.segment_put = qg_store_segment_put,
	.segment_confirm = qg_store_segment_confirm,
	.segment_sent = qg_store_segment_sent,
	.segment_use = qg_store_segment_use,
	.segment_used = qg_store_segment_used,
	.segment_reseal = qg_store_segment_reseal,
	.segment_delete = qg_store_segment_delete,
	.transfer_put = qg_store_transfer_put,
	.transfer_state = qg_store_transfer_state,
	.target_state = qg_store_target_state,
	.transfer_unseal = qg_store_transfer_unseal,
	.transfer_delete = qg_store_transfer_delete,
	.transfer_owe = qg_store_transfer_owe,
	.telling_put = qg_store_telling_put,
	.telling_delete = qg_store_telling_delete,
	.number_put = qg_store_number_put,
	.number_get = qg_store_number_get,
	.load_epochs = qg_store_load_epochs,
	.load_segments = qg_store_load_segments,
	.load_transfers = qg_store_load_transfers,
	.app_stream_put = qg_store_app_stream_put,
	.app_stream_update = qg_store_app_stream_update,
	.app_stream_delete = qg_store_app_stream_delete,
	.app_block_put = qg_store_app_block_put,
	.app_block_held = qg_store_app_block_held,
	.app_block_delete = qg_store_app_block_delete,
	.load_app_streams = qg_store_load_app_streams,
	.load_app_blocks = qg_store_load_app_blocks,
	.load_tellings = qg_store_load_tellings,
	.entry_put = qg_store_entry_put,
	.entry_delete = qg_store_entry_delete,
	.load_entries = qg_store_load_entries,
	.window_put = qg_store_window_put,
	.windows_delete = qg_store_windows_delete,
	.load_windows = qg_store_load_windows,
	.suspension_put = qg_store_suspension_put,
	.suspension_delete = qg_store_suspension_delete,
	.load_suspensions = qg_store_load_suspensions,
	.account_add = qg_store_account_add,
	.accounts_delete = qg_store_accounts_delete,
	.load_accounts = qg_store_load_accounts,
	.level_put = qg_store_level_put,
	.levels_delete = qg_store_levels_delete,
	.load_levels = qg_store_load_levels,
	.close = store_close,
};

/* Where the opening stands, for the text that says what went wrong. */
typedef struct opening {
	qg_sqlite *s;
	char *why;
	size_t why_room;
} opening;

static qg_err
say(const opening *o, qg_err err, const char *what)
{
	int n = snprintf(o->why, o->why_room, "%s", what);
	if (n < 0 && o->why_room > 0)
		o->why[0] = '\0';
	return err;
}

/* Another process that has the database shows as a lock. */
static qg_err
say_sqlite(const opening *o, int rc)
{
	if ((rc & 0xff) == SQLITE_BUSY)
		return say(o, QG_E_EXISTS, "the database is in use by another process");
	return say(o, failure_of(rc).err, sqlite3_errmsg(o->s->db));
}

/* The first column of the first row, as text; empty when there is none. */
static qg_err
ask(const opening *o, const char *sql, char *answer, size_t room)
{
	sqlite3_stmt *stmt = NULL;
	answer[0] = '\0';
	int rc = sqlite3_prepare_v2(o->s->db, sql, -1, &stmt, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_step(stmt);
	if (rc == SQLITE_ROW) {
		const char *text = (const char *)sqlite3_column_text(stmt, 0);
		int n = snprintf(answer, room, "%s", text != NULL ? text : "");
		rc = n < 0 ? SQLITE_ERROR : SQLITE_DONE; /* a long answer is cut and matches nothing */
	}
	qg_err err = rc == SQLITE_DONE ? QG_OK : say_sqlite(o, rc);
	(void)sqlite3_finalize(stmt);
	return err;
}

static qg_err
ask_number(const opening *o, const char *sql, long long *out)
{
	char answer[64];
	qg_err err = ask(o, sql, answer, sizeof answer);
	if (err == QG_OK)
		*out = strtoll(answer, NULL, 10);
	return err;
}

/* A setting that SQLite does not take is not an error to SQLite: each is read
 * back. */
typedef struct setting {
	const char *set;
	const char *get;
	const char *want;
} setting;

static const setting settings_before[] = {
	/* The lock is kept from the first read on, and the index of the log
	 * stays in memory. */
	{"PRAGMA locking_mode = EXCLUSIVE", "PRAGMA locking_mode", "exclusive"},
	{"PRAGMA trusted_schema = OFF", "PRAGMA trusted_schema", "0"},
	{"PRAGMA cell_size_check = ON", "PRAGMA cell_size_check", "1"},
	{"PRAGMA temp_store = MEMORY", "PRAGMA temp_store", "2"},
	{"PRAGMA secure_delete = ON", "PRAGMA secure_delete", "1"},
	{"PRAGMA foreign_keys = ON", "PRAGMA foreign_keys", "1"},
};

static const setting settings_after[] = {
	{"PRAGMA journal_mode = WAL", "PRAGMA journal_mode", "wal"},
	{"PRAGMA synchronous = FULL", "PRAGMA synchronous", "2"},
	/* Pages of 4 KiB: the log goes into the database at 4 MiB. */
	{"PRAGMA wal_autocheckpoint = 1000", "PRAGMA wal_autocheckpoint", "1000"},
	{"PRAGMA journal_size_limit = 8388608", "PRAGMA journal_size_limit", "8388608"},
};

static qg_err
apply(const opening *o, const setting *list, size_t n)
{
	char answer[64];
	for (size_t i = 0; i < n; i++) {
		qg_err err = ask(o, list[i].set, answer, sizeof answer);
		if (err == QG_OK)
			err = ask(o, list[i].get, answer, sizeof answer);
		if (err != QG_OK)
			return err;
		if (strcmp(answer, list[i].want) != 0)
			return say(o, QG_E_IO, list[i].set);
	}
	return QG_OK;
}

/* Ours, or an empty one that may become ours. */
static qg_err
identify(const opening *o, bool *fresh, long long *version)
{
	long long id, tables;
	qg_err err = ask_number(o, "PRAGMA application_id", &id);
	if (err == QG_OK)
		err = ask_number(o, "PRAGMA user_version", version);
	if (err == QG_OK)
		err = ask_number(o, "SELECT count(*) FROM sqlite_schema", &tables);
	if (err != QG_OK)
		return err;
	*fresh = id == 0 && *version == 0 && tables == 0;
	if (!*fresh && id != APPLICATION_ID)
		return say(o, QG_E_CORRUPT, "the file is a database of something else");
	if (*version < 0 || *version > (long long)qg_n_migrations)
		return say(o, QG_E_UNSUPPORTED, "the database was written by a newer release");
	return QG_OK;
}

static qg_err
run_text(const opening *o, const char *sql)
{
	int rc = sqlite3_exec(o->s->db, sql, NULL, NULL, NULL);
	return rc == SQLITE_OK ? QG_OK : say_sqlite(o, rc);
}

/* Each with its number in one transaction. */
static qg_err
migrate_one(const opening *o, const qg_migration *m)
{
	char stamp[128];
	int n = snprintf(stamp, sizeof stamp, "PRAGMA application_id = %d; PRAGMA user_version = %u; COMMIT",
		APPLICATION_ID, m->number);
	if (n < 0 || (size_t)n >= sizeof stamp)
		return say(o, QG_E_RANGE, "migration number");
	qg_err err = run_text(o, "BEGIN EXCLUSIVE");
	if (err == QG_OK)
		err = run_text(o, m->text);
	if (err == QG_OK)
		err = run_text(o, stamp);
	return err;
}

static qg_err
migrate(const opening *o, long long version)
{
	for (size_t i = 0; i < qg_n_migrations; i++) {
		const qg_migration *m = &qg_migrations[i];
		if ((long long)m->number <= version)
			continue;
		qg_err err = migrate_one(o, m);
		if (err != QG_OK)
			return err;
		qg_log(QG_LOG_INFO, "store", "event=migrated to=%s", m->name);
	}
	return QG_OK;
}

static qg_err
verify(const opening *o)
{
	char answer[64];
	if (sqlite3_db_readonly(o->s->db, "main") != 0)
		return say(o, QG_E_IO, "the database is read-only");
	qg_err err = ask(o, "PRAGMA quick_check(1)", answer, sizeof answer);
	if (err == QG_OK && strcmp(answer, "ok") != 0)
		err = say(o, QG_E_CORRUPT, "the database is damaged");
	return err;
}

/* Figures of its memory, which nobody reads, cost a lock with every piece of it. */
static void
configure(void)
{
	(void)sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

static qg_err
open_database(const opening *o, const char *path, bool *fresh)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	long long version;
	(void)pthread_once(&once, configure); /* before its first call */
	int rc = sqlite3_open_v2(path, &o->s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (rc != SQLITE_OK)
		return say_sqlite(o, rc);
	(void)sqlite3_extended_result_codes(o->s->db, 1);
	(void)sqlite3_db_config(o->s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	qg_err err = apply(o, settings_before, sizeof settings_before / sizeof settings_before[0]);
	if (err == QG_OK)
		err = identify(o, fresh, &version);
	if (err == QG_OK)
		err = apply(o, settings_after, sizeof settings_after / sizeof settings_after[0]);
	if (err == QG_OK)
		err = verify(o);
	if (err == QG_OK)
		err = migrate(o, version);
	return err;
}

/* SQLite gives the log the database's mode, so making the database first with
 * the right one suffices. */
static qg_err
prepare_files(const opening *o, const char *path)
{
	static const char *const suffixes[] = {"", "-wal", "-journal", "-shm"};
	char name[PATH_MAX];
	for (size_t i = 0; i < sizeof suffixes / sizeof suffixes[0]; i++) {
		int n = snprintf(name, sizeof name, "%s%s", path, suffixes[i]);
		if (n < 0 || (size_t)n >= sizeof name)
			return say(o, QG_E_IO, "the name is too long");
		qg_err err = qg_keyfile_check(name, LOOSE);
		if (err == QG_E_MODE)
			return say(o, err, "the file's mode is not 0600 or its owner is someone else");
		if (err != QG_OK && err != QG_E_NOTFOUND)
			return say(o, err, "the file cannot be read");
		if (i > 0 || err == QG_OK)
			continue;
		QG_FD_AUTO fd = -1;
		if (qg_keyfile_create(path, &fd) != QG_OK || qg_keyfile_sync_folder(path) != QG_OK)
			return say(o, QG_E_IO, "the file cannot be made");
	}
	return QG_OK;
}

qg_err
qg_store_sqlite_open(const char *path, bool *fresh, qg_store **out, char *why, size_t why_room)
{
	bool made = false;
	qg_sqlite *s = calloc(1, sizeof *s);
	opening o = {.s = s, .why_room = why_room};
	o.why = why;
	if (s == NULL)
		return say(&o, QG_E_NOMEM, "no memory");
	s->store.ops = &qg_store_sqlite_ops;
	qg_err err = prepare_files(&o, path);
	if (err == QG_OK)
		err = open_database(&o, path, &made);
	if (err != QG_OK) {
		qg_store *store = &s->store;
		store_close(&store);
		return err;
	}
	*fresh = made;
	*out = &s->store;
	return QG_OK;
}
