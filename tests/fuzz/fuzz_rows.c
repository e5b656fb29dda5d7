/* SPDX-License-Identifier: Apache-2.0 */
/* A database whose rows were changed while nobody was there: values of any kind in
 * any column, rows that are gone, blobs of another row. The start refuses it and
 * says why, or takes it; then it may have lost keys, but issues none again that was
 * issued before the change. The anchor and the key ring are as they were.
 *
 * The input is a byte of options and a list of changes: table, column, row, kind,
 * value. */
#include "fuzz.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include "../unit/support/core_pair.c"

#define COLUMNS_MAX 32
#define CHANGES_MAX 8
#define ISSUED 40
#define ASKED 8

typedef struct table {
	const char *name;
	bool rowid;
	size_t n;
	char column[COLUMNS_MAX][32];
} table;

static table tables[] = {
	{.name = "epoch", .rowid = true},	 {.name = "segment", .rowid = true},
	{.name = "segment_blob", .rowid = true}, {.name = "segment_used", .rowid = true},
	{.name = "transfer", .rowid = true},	 {.name = "target"},
	{.name = "number"},			 {.name = "app_stream", .rowid = true},
	{.name = "app_block", .rowid = true},	 {.name = "telling", .rowid = true},
};
#define N_TABLES (sizeof tables / sizeof tables[0])

typedef struct image {
	const char *name;
	size_t len;
	uint8_t *bytes;
} image;

static core_pair *pair;
static image files[] = {{.name = "db"}, {.name = "anchor"}};
static qg_uuid issued[ISSUED];
static qg_sealer *sealer;
static qg_directory *directory;
static pair_keys *keys;

/* --- the database as it was ---------------------------------------------------- */

static void
name_of(char *out, size_t room, const char *name)
{
	put_text(out, room, pair->end[0].dir, name);
}

static void
keep(image *i)
{
	char path[256];
	struct stat st;
	name_of(path, sizeof path, i->name);
	FILE *f = fopen(path, "rb");
	HOLDS(f != NULL && fstat(fileno(f), &st) == 0);
	i->len = (size_t)st.st_size;
	i->bytes = malloc(i->len);
	HOLDS(i->bytes != NULL && fread(i->bytes, 1, i->len, f) == i->len && fclose(f) == 0);
}

static void
put_back(const image *i)
{
	char path[256];
	name_of(path, sizeof path, i->name);
	FILE *f = fopen(path, "wb");
	HOLDS(f != NULL && fwrite(i->bytes, 1, i->len, f) == i->len && fclose(f) == 0 && chmod(path, 0600) == 0);
}

static void
learn_columns(void)
{
	sqlite3 *db = NULL;
	HOLDS(sqlite3_open_v2(pair->end[0].database, &db, SQLITE_OPEN_READONLY, NULL) == SQLITE_OK);
	for (size_t t = 0; t < N_TABLES; t++) {
		char sql[128];
		sqlite3_stmt *s = NULL;
		snprintf(sql, sizeof sql, "SELECT name FROM pragma_table_info('%s')", tables[t].name);
		HOLDS(sqlite3_prepare_v2(db, sql, -1, &s, NULL) == SQLITE_OK);
		while (sqlite3_step(s) == SQLITE_ROW && tables[t].n < COLUMNS_MAX)
			snprintf(tables[t].column[tables[t].n++], sizeof tables[t].column[0], "%s",
				 (const char *)sqlite3_column_text(s, 0));
		HOLDS(sqlite3_finalize(s) == SQLITE_OK && tables[t].n > 0);
	}
	HOLDS(sqlite3_close(db) == SQLITE_OK);
}

static void
clean(void)
{
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		free(files[i].bytes);
	keys_free(&keys);
	qg_directory_free(&directory);
	qg_sealer_close(&sealer);
	remove_folder(pair->dir);
	pair_free(&pair);
}

/* Two gateways pass keys over a link, one of them also among its own SAEs. */
static void
setup(void)
{
	static char folder[64];
	const pair_options o = {.dir = folder, .ready_chunks = 128, .inbound_chunks = 256};
	make_folder(folder);
	HOLDS(pair_init() == 0);
	pair = pair_start(&o);
	core_end *e = &pair->end[0];
	keys = keys_new();
	HOLDS(pair_deliver(pair, 1, 3, 32));
	HOLDS(pair_issue_wait(e, "sae-alice", "sae-bob", ISSUED, 32, keys) == QG_OK);
	memcpy(issued, keys->id, sizeof issued);
	HOLDS(pair_issue_wait(e, "sae-alice", "sae-dave", 2, 32, keys) == QG_OK);
	end_stop(&pair->end[1]);
	end_stop(e);
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		keep(&files[i]);
	learn_columns();
	const qg_seal_options so = {.master_key = e->master_key, .key_ring = e->key_ring, .rotate_s = 86400};
	HOLDS(qg_sealer_open(&so, &sealer) == QG_OK && qg_directory_new(&e->cfg, &directory) == QG_OK);
	qg_log_init(getenv("QG_TEST_LOG") != NULL ? QG_LOG_DEBUG : QG_LOG_ERROR, QG_LOG_TEXT);
	HOLDS(atexit(clean) == 0);
}

/* --- changes -------------------------------------------------------------------- */

typedef struct cursor {
	const uint8_t *p;
	size_t n;
} cursor;

static uint8_t
byte(cursor *c)
{
	if (c->n == 0)
		return 0;
	c->n--;
	return *c->p++;
}

static int64_t
number(cursor *c)
{
	uint64_t v = 0;
	for (int i = 0; i < 8; i++)
		v = v << 8 | byte(c);
	return (int64_t)v;
}

/* n bytes, as far as there are any. */
static const uint8_t *
bytes(cursor *c, size_t n, size_t *got)
{
	const uint8_t *at = c->p;
	*got = n < c->n ? n : c->n;
	c->p += *got;
	c->n -= *got;
	return at;
}

typedef enum change_kind { INTEGER, SMALL, BLOB, TEXT, NOTHING, GONE, OTHER, FLIPPED, MOVED, KINDS } change_kind;

/* The statement, with its value as ?1. */
static void
statement(char *out, size_t room, const table *t, const char *column, change_kind kind, unsigned row)
{
	char which[128] = "";
	int n = 0;
	if (t->rowid)
		n = snprintf(which, sizeof which, "WHERE rowid = (SELECT rowid FROM %s ORDER BY rowid LIMIT 1 OFFSET %u)",
			     t->name, row);
	HOLDS(n >= 0 && (size_t)n < sizeof which);
	if (kind == GONE)
		n = snprintf(out, room, "DELETE FROM %s %s", t->name, which);
	else if (kind == OTHER)
		n = snprintf(out, room, "UPDATE OR IGNORE %s SET %s = (SELECT o.%s FROM %s o ORDER BY 1 LIMIT 1 OFFSET ?1) %s",
			     t->name, column, column, t->name, which);
	else if (kind == MOVED)
		n = snprintf(out, room, "UPDATE OR IGNORE %s SET %s = %s + ?1 %s", t->name, column, column, which);
	else
		n = snprintf(out, room, "UPDATE OR IGNORE %s SET %s = ?1 %s", t->name, column, which);
	HOLDS(n > 0 && (size_t)n < room);
}

static void
run(sqlite3 *db, const table *t, const char *column, change_kind kind, unsigned row, cursor *c)
{
	char sql[512];
	sqlite3_stmt *s = NULL;
	size_t got = 0;
	statement(sql, sizeof sql, t, column, kind, row);
	if (sqlite3_prepare_v2(db, sql, -1, &s, NULL) != SQLITE_OK)
		return; /* a name that the query has not */
	const uint8_t *p = kind == BLOB || kind == TEXT ? bytes(c, byte(c), &got) : NULL;
	if (kind == INTEGER)
		HOLDS(sqlite3_bind_int64(s, 1, number(c)) == SQLITE_OK);
	else if (kind == SMALL || kind == MOVED || kind == OTHER)
		HOLDS(sqlite3_bind_int64(s, 1, kind == OTHER ? byte(c) : (int8_t)byte(c)) == SQLITE_OK);
	else if (kind == BLOB)
		HOLDS(sqlite3_bind_blob(s, 1, p, (int)got, SQLITE_TRANSIENT) == SQLITE_OK);
	else if (kind == TEXT)
		HOLDS(sqlite3_bind_text(s, 1, (const char *)p, (int)got, SQLITE_TRANSIENT) == SQLITE_OK);
	(void)sqlite3_step(s); /* a STRICT table may refuse it */
	(void)sqlite3_finalize(s);
}

static void
flip(sqlite3 *db, const table *t, const char *column, unsigned row, cursor *c)
{
	sqlite3_blob *b = NULL;
	const unsigned at = byte(c), bit = byte(c);
	uint8_t one;
	if (sqlite3_blob_open(db, "main", t->name, column, row + 1, 1, &b) == SQLITE_OK &&
	    (int)at < sqlite3_blob_bytes(b) && sqlite3_blob_read(b, &one, 1, (int)at) == SQLITE_OK) {
		one ^= (uint8_t)(1u << (bit & 7));
		HOLDS(sqlite3_blob_write(b, &one, 1, (int)at) == SQLITE_OK);
	}
	(void)sqlite3_blob_close(b);
}

static void
change(cursor *c)
{
	sqlite3 *db = NULL;
	HOLDS(sqlite3_open_v2(pair->end[0].database, &db, SQLITE_OPEN_READWRITE, NULL) == SQLITE_OK);
	HOLDS(sqlite3_exec(db, "PRAGMA synchronous = OFF; PRAGMA journal_mode = DELETE; BEGIN", NULL, NULL, NULL) ==
	      SQLITE_OK);
	if ((byte(c) & 1) != 0)
		HOLDS(sqlite3_exec(db, "PRAGMA ignore_check_constraints = ON", NULL, NULL, NULL) == SQLITE_OK);
	for (int i = 0; i < CHANGES_MAX && c->n > 0; i++) {
		const table *t = &tables[byte(c) % N_TABLES];
		const char *column = t->column[byte(c) % t->n];
		const unsigned row = byte(c) % 32;
		const change_kind kind = byte(c) % KINDS;
		if (kind == FLIPPED)
			flip(db, t, column, row, c);
		else
			run(db, t, column, kind, row, c);
	}
	HOLDS(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL) == SQLITE_OK);
	HOLDS(sqlite3_close(db) == SQLITE_OK);
}

/* --- the start -------------------------------------------------------------------- */

static qg_err
send_nothing(qg_channel *ch, const char *neighbour, qg_kms_kind kind, const char *body, size_t len, unsigned timeout_ms,
	     qg_channel_done *done, void *ctx)
{
	(void)ch, (void)neighbour, (void)kind, (void)body, (void)len, (void)timeout_ms, (void)done, (void)ctx;
	return QG_E_CLOSED;
}

static void
issue_some(qg_core *core)
{
	const qg_issue_request req = {.master = "sae-alice", .slave = "sae-bob", .number = ASKED, .size_bytes = 32,
				      .max_hops = UINT32_MAX};
	keys_issue_begin(core, &req, keys);
	if (keys_wait(keys) != QG_OK)
		return;
	for (size_t i = 0; i < ASKED; i++)
		for (size_t k = 0; k < ISSUED; k++)
			HOLDS(!qg_uuid_equal(&keys->id[i], &issued[k]));
}

static void
start(void)
{
	static const qg_channel_ops nobody = {send_nothing};
	qg_channel channel = {&nobody};
	char why[512] = "";
	qg_core_parts parts = {.cfg = &pair->end[0].cfg, .directory = directory, .sealer = sealer, .channel = &channel};
	qg_core *core = NULL;
	if (qg_store_sqlite_open(pair->end[0].database, &parts.fresh, &parts.store, why, sizeof why) != QG_OK) {
		HOLDS(why[0] != '\0');
		return;
	}
	HOLDS(!parts.fresh);
	if (qg_core_start(&parts, &core, why, sizeof why) == QG_OK) {
		issue_some(core);
		qg_core_wind_down(core);
		qg_core_stop(&core);
	} else {
		HOLDS(why[0] != '\0' && core == NULL);
	}
	parts.store->ops->close(&parts.store);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char wal[256];
	cursor c = {data, size};
	if (pair == NULL)
		setup();
	name_of(wal, sizeof wal, "db-wal");
	(void)unlink(wal);
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		put_back(&files[i]);
	change(&c);
	start();
	return 0;
}
