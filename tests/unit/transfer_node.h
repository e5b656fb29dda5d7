/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TRANSFER_NODE_H
#define TRANSFER_NODE_H

/* One node's transferred keys over the real store, sealer and committer. */
#include "qkdgate/transfer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <unistd.h>

#include "qkdgate/secret.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define FOREVER ((uint64_t)INT64_MAX)
#define ALICE "sae-alice"

/* A node's storage in a folder of its own; up and down as the daemon does. */
typedef struct node {
	char dir[32];
	char master[64], ring[64], database[64];
	qg_sealer *sealer;
	qg_store *store;
	qg_committer *committer;
	qg_transfers *transfers;
} node;

static void
node_up(node *n)
{
	bool fresh;
	char why[256];
	const qg_seal_options o = {.master_key = n->master, .key_ring = n->ring, .rotate_s = 86400};
	assert_int_equal(qg_sealer_open(&o, &n->sealer), QG_OK);
	assert_int_equal(qg_store_sqlite_open(n->database, &fresh, &n->store, why, sizeof why), QG_OK);
	assert_int_equal(qg_transfers_open(n->store, n->sealer, &n->transfers), QG_OK);
	assert_int_equal(qg_committer_start(n->store, NULL, &n->committer), QG_OK);
}

static void
node_down(node *n)
{
	qg_committer_stop(&n->committer);
	qg_transfers_close(&n->transfers);
	n->store->ops->close(&n->store);
	qg_sealer_close(&n->sealer);
}

static void
path_in(char out[64], const char *dir, const char *name)
{
	const int len = snprintf(out, 64, "%s/%s", dir, name);
	assert_true(len > 0 && len < 64);
}

static int
setup(void **state)
{
	node *n = calloc(1, sizeof *n);
	assert_non_null(n);
	strcpy(n->dir, "/tmp/qg-transfer-XXXXXX");
	assert_non_null(mkdtemp(n->dir));
	path_in(n->master, n->dir, "master");
	path_in(n->ring, n->dir, "ring");
	path_in(n->database, n->dir, "db");
	assert_int_equal(qg_seal_make_master_key(n->master), QG_OK);
	node_up(n);
	*state = n;
	return 0;
}

static int
teardown(void **state)
{
	static const char *const files[] = {"master", "ring", "db", "db-wal", "db-shm", "db.lock",
					    "db-journal"};
	node *n = *state;
	node_down(n);
	for (size_t i = 0; i < COUNT(files); i++) {
		char path[64];
		path_in(path, n->dir, files[i]);
		(void)unlink(path);
	}
	assert_int_equal(rmdir(n->dir), 0);
	free(n);
	return 0;
}

/* --- what the keystore does ---------------------------------------------------- */

typedef struct add_job {
	qg_job job;
	qg_transfer *x;
} add_job;

static qg_err
add_run(qg_job *job, qg_store *store)
{
	return qg_transfer_store(((add_job *)job)->x, store);
}

static qg_err
commit_add(node *n, qg_transfer *x)
{
	add_job job = {.job = {.run = add_run}, .x = x};
	const qg_err err = qg_committer_run(n->committer, &job.job);
	qg_transfer_added(n->transfers, x, err);
	return err;
}

/* The value of a key is made from its ID. */
static void
value_of(const qg_uuid *id, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(id->b[i % 16] * 31u + i);
}

static qg_err
add(node *n, const char *initiator, const qg_uuid *id, const char *const *targets, size_t n_targets,
    uint32_t size, uint64_t expiry_ms)
{
	uint8_t value[4095];
	value_of(id, value, size);
	qg_transfer *x = NULL;
	const qg_err err =
		qg_transfer_prepare(n->transfers, initiator, id, targets, n_targets, value, size, expiry_ms,
				    &x);
	return err == QG_OK ? commit_add(n, x) : err;
}

static const char *const bob_only[] = {"sae-bob"};
static const char *const bob_and_dave[] = {"sae-bob", "sae-dave"};

typedef struct claim_job {
	qg_job job;
	qg_transfer_claim *c;
} claim_job;

static qg_err
claim_run(qg_job *job, qg_store *store)
{
	return qg_transfer_claim_store(((claim_job *)job)->c, store);
}

static qg_err
commit_claim(node *n, qg_transfer_claim *c)
{
	claim_job job = {.job = {.run = claim_run}, .c = c};
	return qg_committer_run(n->committer, &job.job);
}

static qg_err
claim(node *n, const qg_uuid *id, const char *target, qg_transfer_claim **c)
{
	return qg_transfer_claim_new(n->transfers, ALICE, id, target, 1000, c);
}

/* Claim, commit, value, end. */
static qg_err
fetch(node *n, const qg_uuid *id, const char *target)
{
	qg_transfer_claim *c = NULL;
	qg_err err = claim(n, id, target, &c);
	if (err != QG_OK)
		return err;
	err = commit_claim(n, c);
	if (err == QG_OK) {
		uint8_t got[4095];
		uint8_t want[4095];
		const uint32_t size = qg_transfer_claim_size(c);
		value_of(id, want, size);
		assert_int_equal(qg_transfer_claim_value(c, got), QG_OK);
		assert_memory_equal(got, want, size);
	}
	qg_transfer_claim_end(n->transfers, &c, err);
	assert_null(c);
	return err;
}

/* --- what the store has ---------------------------------------------------------- */

typedef struct stored {
	size_t records, with_value, pending;
} stored;

static qg_err
count_stored(const qg_transfer_rec *rec, void *ctx)
{
	stored *s = ctx;
	s->records++;
	s->with_value += rec->sealed != NULL;
	for (size_t i = 0; i < rec->n_targets; i++)
		s->pending += rec->target[i].state == QG_TARGET_PENDING;
	return QG_OK;
}

typedef struct look_job {
	qg_job job;
	stored found;
} look_job;

static qg_err
look_run(qg_job *job, qg_store *store)
{
	look_job *l = (look_job *)job;
	l->found = (stored){0};
	return store->ops->load_transfers(store, count_stored, &l->found);
}

/* Also waits for all jobs queued before. */
static stored
look(node *n)
{
	look_job l = {.job = {.run = look_run}};
	assert_int_equal(qg_committer_run(n->committer, &l.job), QG_OK);
	return l.found;
}

#endif
