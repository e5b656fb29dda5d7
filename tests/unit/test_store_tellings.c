/* SPDX-License-Identifier: Apache-2.0 */
/* What peers are to be told, in the store (SOUNDNESS 18). */
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "qkdgate/store.h"

static char dir[] = "/tmp/qg-tellings-XXXXXX", path[64];
static qg_store *db;

static void
reopen(void)
{
	char why[256] = "";
	bool fresh;
	if (db != NULL)
		db->ops->close(&db);
	assert_int_equal(qg_store_sqlite_open(path, &fresh, &db, why, sizeof why), QG_OK);
}

static int
setup(void **state)
{
	(void)state;
	memcpy(dir + sizeof dir - 7, "XXXXXX", 6);
	if (mkdtemp(dir) == NULL || snprintf(path, sizeof path, "%s/db", dir) >= (int)sizeof path)
		return -1;
	reopen();
	return 0;
}

static int
teardown(void **state)
{
	static const char *const files[] = {"db", "db-wal", "db-shm", "db.lock", "db-journal"};
	(void)state;
	db->ops->close(&db);
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		char file[80];
		(void)snprintf(file, sizeof file, "%s/%s", dir, files[i]);
		(void)unlink(file);
	}
	return rmdir(dir);
}

static void
begin(void)
{
	assert_int_equal(db->ops->begin(db), QG_OK);
}

static void
commit(void)
{
	assert_int_equal(db->ops->commit(db), QG_OK);
}

typedef struct seen_tellings {
	size_t n;
	int64_t row[4];
	unsigned what[4];
	size_t ids[4];
	char text[256];
} seen_tellings;

static qg_err
see_telling(const qg_telling_rec *rec, void *ctx)
{
	seen_tellings *s = ctx;
	assert_true(s->n < sizeof s->row / sizeof s->row[0]);
	s->row[s->n] = rec->row;
	s->what[s->n] = rec->what;
	s->ids[s->n++] = rec->ids_len;
	(void)snprintf(s->text, sizeof s->text, "%s %s %s %" PRIu64, rec->peer, rec->initiator, rec->targets,
		       rec->until_ms);
	return QG_OK;
}

static seen_tellings
load_tellings(void)
{
	seen_tellings s = {0};
	assert_int_equal(db->ops->load_tellings(db, see_telling, &s), QG_OK);
	return s;
}

/* What peers are owed, and what goes on with a key. */
static void
tellings_last_until_they_are_deleted(void **state)
{
	(void)state;
	static const uint8_t two[32] = {1, 2, 3}, half[15];
	qg_telling_rec rec = {.peer = "NET2", .what = 0, .initiator = "sae-a", .targets = "sae-b\nsae-c",
			      .ids = two, .ids_len = sizeof two, .until_ms = 77};
	begin();
	assert_int_equal(db->ops->telling_put(db, &rec), QG_OK);
	const int64_t first = rec.row;
	rec.what = 5;
	rec.ids_len = 16;
	assert_int_equal(db->ops->telling_put(db, &rec), QG_OK);
	commit();
	begin();
	rec.what = 6;
	assert_int_equal(db->ops->telling_put(db, &rec), QG_E_INVAL);
	rec.what = 1;
	rec.ids = half;
	rec.ids_len = sizeof half;
	assert_int_equal(db->ops->telling_put(db, &rec), QG_E_INVAL);
	db->ops->rollback(db);
	reopen();
	seen_tellings s = load_tellings();
	assert_int_equal(s.n, 2);
	assert_int_equal(s.what[1], 5);
	assert_int_equal(s.ids[0], 32);
	assert_string_equal(s.text, "NET2 sae-a sae-b\nsae-c 77");
	begin();
	assert_int_equal(db->ops->telling_delete(db, first), QG_OK);
	assert_int_equal(db->ops->telling_delete(db, first), QG_E_NOTFOUND);
	assert_int_equal(db->ops->transfer_owe(db, 4711, "kxi:NET2"), QG_E_NOTFOUND);
	commit();
	assert_int_equal(load_tellings().n, 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(tellings_last_until_they_are_deleted, setup, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
