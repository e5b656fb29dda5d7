/* SPDX-License-Identifier: Apache-2.0 */
/* Transferred keys over the real store, sealer and committer. */
#include "transfer_node.h"

/* --- tests --------------------------------------------------------------------------- */

static void
test_once(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_false(qg_transfer_known(n->transfers, &id));
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_NOTFOUND);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 32, FOREVER), QG_OK);
	assert_int_equal(qg_transfers_count(n->transfers), 1);
	assert_true(qg_transfer_known(n->transfers, &id));

	/* strangers, and the initiator itself */
	assert_int_equal(fetch(n, &id, "sae-mallory"), QG_E_NOTFOUND);
	assert_int_equal(fetch(n, &id, ALICE), QG_E_NOTFOUND);
	assert_int_equal(fetch(n, &id, "sae-bo"), QG_E_NOTFOUND);
	qg_transfer_claim *c = NULL;
	assert_int_equal(qg_transfer_claim_new(n->transfers, "sae-eve", &id, "sae-bob", 1000, &c),
			 QG_E_NOTFOUND);
	assert_null(c);

	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);
	assert_true(qg_transfer_known(n->transfers, &id));
	const stored s = look(n);
	assert_int_equal(s.records, 1);
	assert_int_equal(s.with_value, 0);
	assert_int_equal(s.pending, 0);
}

static void
test_each_target_once(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_and_dave, 2, 4095, FOREVER), QG_OK);
	assert_int_equal(fetch(n, &id, "sae-dave"), QG_OK);
	assert_int_equal(look(n).with_value, 1);
	assert_int_equal(fetch(n, &id, "sae-dave"), QG_E_CONSUMED);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
	assert_int_equal(look(n).with_value, 0);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);
}

static void
test_same_id(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	/* the same ID of two initiators is two keys */
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 16, FOREVER), QG_OK);
	assert_int_equal(add(n, "sae-carol", &id, bob_only, 1, 24, FOREVER), QG_OK);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 16, FOREVER), QG_E_EXISTS);
	qg_transfer_claim *c = NULL;
	assert_int_equal(qg_transfer_claim_new(n->transfers, "sae-carol", &id, "sae-bob", 0, &c), QG_OK);
	assert_int_equal(qg_transfer_claim_size(c), 24);
	qg_transfer_claim_end(n->transfers, &c, QG_E_CLOSED);

	/* two at once: the store lets one through */
	qg_uuid_random(&id);
	const uint8_t value[8] = {1};
	qg_transfer *x[2];
	for (size_t i = 0; i < 2; i++)
		assert_int_equal(qg_transfer_prepare(n->transfers, ALICE, &id, bob_only, 1, value, 8, FOREVER,
						     &x[i]),
				 QG_OK);
	assert_int_equal(qg_transfers_count(n->transfers), 2);
	assert_int_equal(commit_add(n, x[0]), QG_OK);
	assert_int_equal(commit_add(n, x[1]), QG_E_EXISTS);
	assert_int_equal(qg_transfers_count(n->transfers), 3);
}

static void
test_bad_arguments(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	const uint8_t value[8] = {1};
	qg_transfer *x = NULL;
	assert_int_equal(qg_transfer_prepare(n->transfers, ALICE, &id, bob_only, 0, value, 8, FOREVER, &x),
			 QG_E_INVAL);
	assert_int_equal(qg_transfer_prepare(n->transfers, ALICE, &id, bob_only, 1, value, 0, FOREVER, &x),
			 QG_E_INVAL);
	char long_name[2000];
	memset(long_name, 'a', sizeof long_name - 1);
	long_name[sizeof long_name - 1] = '\0';
	assert_int_equal(qg_transfer_prepare(n->transfers, long_name, &id, bob_only, 1, value, 8, FOREVER,
					     &x),
			 QG_E_RANGE);
	assert_null(x);
	qg_transfer_added(n->transfers, NULL, QG_OK);
	qg_transfer_claim_end(n->transfers, NULL, QG_OK);
	qg_transfers_close(NULL);
}

static void
test_under_way(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_and_dave, 2, 32, FOREVER), QG_OK);
	qg_transfer_claim *c = NULL;
	qg_transfer_claim *again = NULL;
	assert_int_equal(claim(n, &id, "sae-bob", &c), QG_OK);
	assert_int_equal(claim(n, &id, "sae-bob", &again), QG_E_AGAIN);
	assert_null(again);
	assert_int_equal(fetch(n, &id, "sae-dave"), QG_OK);
	/* given up: as before */
	qg_transfer_claim_end(n->transfers, &c, QG_E_CLOSED);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
	/* the outcome unknown: counts as delivered */
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 32, FOREVER), QG_OK);
	assert_int_equal(claim(n, &id, "sae-bob", &c), QG_OK);
	qg_transfer_claim_end(n->transfers, &c, QG_E_IO);
	assert_int_equal(claim(n, &id, "sae-bob", &c), QG_E_CONSUMED);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 1000), 0);
	assert_int_equal(look(n).with_value, 0);
}

/* The store decides, not the copy in memory (SOUNDNESS 19). */
static void
test_store_decides(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 32, FOREVER), QG_OK);
	qg_transfer_claim *c = NULL;
	assert_int_equal(claim(n, &id, "sae-bob", &c), QG_OK);
	assert_int_equal(commit_claim(n, c), QG_OK);
	assert_int_equal(commit_claim(n, c), QG_E_CONSUMED);
	qg_transfer_claim_end(n->transfers, &c, QG_E_CONSUMED);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);
}

static void
test_expiry(void **state)
{
	node *n = *state;
	qg_uuid ids[300];
	for (size_t i = 0; i < COUNT(ids); i++) {
		qg_uuid_random(&ids[i]);
		assert_int_equal(add(n, ALICE, &ids[i], bob_only, 1, 32, i == 0 ? 1001 : 5000), QG_OK);
	}
	qg_transfer_claim *c = NULL;
	assert_int_equal(qg_transfer_claim_new(n->transfers, ALICE, &ids[1], "sae-bob", 5000, &c),
			 QG_E_CONSUMED);
	assert_int_equal(qg_transfer_claim_new(n->transfers, ALICE, &ids[0], "sae-bob", 1000, &c), QG_OK);

	/* a claim under way keeps its record, and nothing else is due */
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 1001), 0);
	qg_transfer_claim_end(n->transfers, &c, QG_E_CLOSED);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 1001), 1);
	assert_int_equal(look(n).records, COUNT(ids) - 1);
	assert_int_equal(qg_transfers_count(n->transfers), COUNT(ids) - 1);
	assert_false(qg_transfer_known(n->transfers, &ids[0]));

	/* a delivered one is remembered until its time, then forgotten too */
	assert_int_equal(fetch(n, &ids[2], "sae-bob"), QG_OK);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 4999), 0);
	assert_int_equal(fetch(n, &ids[2], "sae-bob"), QG_E_CONSUMED);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000), COUNT(ids) - 1);
	assert_int_equal(look(n).records, 0);
	assert_int_equal(qg_transfers_count(n->transfers), 0);
	assert_int_equal(fetch(n, &ids[2], "sae-bob"), QG_E_NOTFOUND);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000), 0);
}

/* Killed after the commit and before anything else: delivered all the same. */
static void
test_restart(void **state)
{
	node *n = *state;
	qg_uuid kept;
	qg_uuid lost;
	qg_uuid half;
	qg_uuid never;
	qg_uuid_random(&kept);
	qg_uuid_random(&lost);
	qg_uuid_random(&half);
	qg_uuid_random(&never);
	assert_int_equal(add(n, ALICE, &kept, bob_only, 1, 32, FOREVER), QG_OK);
	assert_int_equal(add(n, ALICE, &lost, bob_only, 1, 32, FOREVER), QG_OK);
	assert_int_equal(add(n, ALICE, &half, bob_and_dave, 2, 32, FOREVER), QG_OK);
	assert_int_equal(fetch(n, &half, "sae-bob"), QG_OK);
	qg_transfer_claim *c = NULL;
	assert_int_equal(claim(n, &lost, "sae-bob", &c), QG_OK);
	assert_int_equal(commit_claim(n, c), QG_OK);
	qg_transfer_claim_end(n->transfers, &c, QG_E_CLOSED); /* memory says undone; it must not matter */
	assert_int_equal(claim(n, &kept, "sae-bob", &c), QG_OK);
	qg_transfer_claim_end(n->transfers, &c, QG_E_IO); /* memory says delivered; the store not */
	const uint8_t value[8] = {1};
	qg_transfer *x = NULL;
	assert_int_equal(qg_transfer_prepare(n->transfers, ALICE, &never, bob_only, 1, value, 8, FOREVER, &x),
			 QG_OK);
	qg_transfer_added(n->transfers, x, QG_E_IO);

	node_down(n);
	node_up(n);
	assert_int_equal(qg_transfers_count(n->transfers), 3);
	assert_int_equal(fetch(n, &lost, "sae-bob"), QG_E_CONSUMED);
	assert_int_equal(fetch(n, &half, "sae-bob"), QG_E_CONSUMED);
	assert_int_equal(fetch(n, &half, "sae-dave"), QG_OK);
	assert_int_equal(fetch(n, &kept, "sae-bob"), QG_OK);
	assert_int_equal(fetch(n, &never, "sae-bob"), QG_E_NOTFOUND);
	assert_int_equal(add(n, ALICE, &lost, bob_only, 1, 32, FOREVER), QG_E_EXISTS);
}

/* A job that fails after the claim's part takes that part back. */
typedef struct failing_job {
	qg_job job;
	qg_transfer_claim *c;
} failing_job;

static qg_err
failing_run(qg_job *job, qg_store *store)
{
	const qg_err err = qg_transfer_claim_store(((failing_job *)job)->c, store);
	return err == QG_OK ? QG_E_NOTFOUND : err;
}

static void
test_rolled_back(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 32, FOREVER), QG_OK);
	failing_job job = {.job = {.run = failing_run}};
	assert_int_equal(claim(n, &id, "sae-bob", &job.c), QG_OK);
	assert_int_equal(qg_committer_run(n->committer, &job.job), QG_E_NOTFOUND);
	qg_transfer_claim_end(n->transfers, &job.c, QG_E_CLOSED);
	assert_int_equal(look(n).with_value, 1);
	assert_int_equal(look(n).pending, 1);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
}

/* Two targets in one transaction, neither knows of the other's end: the value
 * stays until the housekeeping. */
typedef struct both_job {
	qg_job job;
	qg_transfer_claim *c[2];
} both_job;

static qg_err
both_run(qg_job *job, qg_store *store)
{
	both_job *b = (both_job *)job;
	const qg_err err = qg_transfer_claim_store(b->c[0], store);
	return err == QG_OK ? qg_transfer_claim_store(b->c[1], store) : err;
}

static void
test_last_two_at_once(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_and_dave, 2, 32, FOREVER), QG_OK);
	both_job job = {.job = {.run = both_run}};
	assert_int_equal(claim(n, &id, "sae-bob", &job.c[0]), QG_OK);
	assert_int_equal(claim(n, &id, "sae-dave", &job.c[1]), QG_OK);
	assert_int_equal(qg_committer_run(n->committer, &job.job), QG_OK);
	uint8_t value[32];
	qg_transfer_claim_end(n->transfers, &job.c[0], QG_OK);
	assert_int_equal(qg_transfer_claim_value(job.c[1], value), QG_OK);
	qg_transfer_claim_end(n->transfers, &job.c[1], QG_OK);
	assert_int_equal(look(n).with_value, 1);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 1000), 0);
	assert_int_equal(look(n).with_value, 0);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);
}

static void
test_generations(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_int_equal(qg_transfers_oldest_generation(n->transfers), UINT32_MAX);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 32, FOREVER), QG_OK);
	assert_int_equal(qg_transfers_oldest_generation(n->transfers), qg_sealer_generation(n->sealer));
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
	assert_int_equal(qg_transfers_oldest_generation(n->transfers), UINT32_MAX);
}

/* --- many at once ---------------------------------------------------------------------- */

#define CLAIMERS 8
#define KEYS 200

typedef struct race {
	node *n;
	const qg_uuid *ids;
	atomic_uint delivered[KEYS];
	pthread_barrier_t start;
} race;

static void *
race_main(void *arg)
{
	race *r = arg;
	(void)pthread_barrier_wait(&r->start);
	for (size_t i = 0; i < KEYS; i++) {
		qg_err err = QG_E_AGAIN;
		while (err == QG_E_AGAIN)
			err = fetch(r->n, &r->ids[i], "sae-bob");
		if (err == QG_OK)
			atomic_fetch_add(&r->delivered[i], 1);
		else if (err != QG_E_CONSUMED)
			atomic_fetch_add(&r->delivered[i], 1000);
		(void)qg_transfers_expire(r->n->transfers, r->n->committer, 1000);
	}
	return NULL;
}

static void
test_race(void **state)
{
	node *n = *state;
	static qg_uuid ids[KEYS];
	static race r;
	memset(&r, 0, sizeof r);
	r.n = n;
	r.ids = ids;
	for (size_t i = 0; i < KEYS; i++) {
		qg_uuid_random(&ids[i]);
		assert_int_equal(add(n, ALICE, &ids[i], bob_and_dave, 2, 32, FOREVER), QG_OK);
	}
	pthread_t threads[CLAIMERS];
	assert_int_equal(pthread_barrier_init(&r.start, NULL, CLAIMERS), 0);
	for (size_t i = 0; i < CLAIMERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, race_main, &r), 0);
	for (size_t i = 0; i < CLAIMERS; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	(void)pthread_barrier_destroy(&r.start);
	for (size_t i = 0; i < KEYS; i++)
		assert_int_equal(atomic_load(&r.delivered[i]), 1);
	assert_int_equal(look(n).pending, KEYS);
	assert_int_equal(look(n).with_value, KEYS);
}

/* More than the index has buckets at first. */
static void
test_many(void **state)
{
	node *n = *state;
	enum { MANY = 1500 };
	static qg_uuid ids[MANY];
	for (size_t i = 0; i < MANY; i++) {
		qg_uuid_random(&ids[i]);
		assert_int_equal(add(n, ALICE, &ids[i], bob_only, 1, 16, FOREVER), QG_OK);
	}
	for (size_t i = 0; i < MANY; i++)
		assert_true(qg_transfer_known(n->transfers, &ids[i]));
	node_down(n);
	node_up(n);
	assert_int_equal(qg_transfers_count(n->transfers), MANY);
	for (size_t i = 0; i < MANY; i += 100)
		assert_int_equal(fetch(n, &ids[i], "sae-bob"), QG_OK);
}

/* --- a store that lies or fails ------------------------------------------------------------ */

typedef struct fake_store {
	qg_store store;
	qg_transfer_rec rec;
} fake_store;

static qg_err
fake_load(qg_store *s, qg_err (*each)(const qg_transfer_rec *rec, void *ctx), void *ctx)
{
	return each(&((fake_store *)s)->rec, ctx);
}

static const qg_store_ops fake_ops = {.load_transfers = fake_load};

static qg_err
keep_first(const qg_transfer_rec *rec, void *ctx)
{
	fake_store *f = ctx;
	uint8_t *sealed = malloc(rec->sealed_len);
	assert_non_null(sealed);
	memcpy(sealed, rec->sealed, rec->sealed_len);
	f->rec = *rec;
	f->rec.sealed = sealed;
	f->rec.initiator = ALICE;
	f->rec.origin = "local";
	f->rec.target = NULL;
	f->rec.extension = f->rec.optional = f->rec.owed = NULL;
	return QG_OK;
}

typedef struct keep_job {
	qg_job job;
	fake_store *f;
} keep_job;

static qg_err
keep_run(qg_job *job, qg_store *store)
{
	return store->ops->load_transfers(store, keep_first, ((keep_job *)job)->f);
}

/* What a claim on a record as the fake store gives it says of the value. */
static qg_err
value_from(node *n, fake_store *f, const char *initiator)
{
	qg_transfers *t = NULL;
	qg_transfer_claim *c = NULL;
	uint8_t value[64];
	assert_int_equal(qg_transfers_open(&f->store, n->sealer, &t), QG_OK);
	assert_int_equal(qg_transfer_claim_new(t, initiator, &f->rec.key_id, "sae-bob", 0, &c), QG_OK);
	const qg_err err = qg_transfer_claim_value(c, value);
	qg_transfer_claim_end(t, &c, QG_E_CLOSED);
	qg_transfers_close(&t);
	return err;
}

static void
test_moved_blobs(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 32, FOREVER), QG_OK);
	const qg_target_rec target = {.sae = "sae-bob", .state = QG_TARGET_PENDING};
	fake_store f = {.store = {.ops = &fake_ops}};
	keep_job job = {.job = {.run = keep_run}, .f = &f};
	assert_int_equal(qg_committer_run(n->committer, &job.job), QG_OK);
	f.rec.target = &target;
	f.rec.n_targets = 1;
	const qg_transfer_rec good = f.rec;

	assert_int_equal(value_from(n, &f, ALICE), QG_OK);
	f.rec.initiator = "sae-eve";
	assert_int_equal(value_from(n, &f, "sae-eve"), QG_E_AUTH);
	f.rec = good;
	f.rec.key_id.b[15] ^= 1;
	assert_int_equal(value_from(n, &f, ALICE), QG_E_AUTH);
	f.rec = good;
	((uint8_t *)(uintptr_t)f.rec.sealed)[f.rec.sealed_len - 1] ^= 1;
	assert_int_equal(value_from(n, &f, ALICE), QG_E_AUTH);

	/* what cannot be right is not loaded */
	qg_transfers *t = NULL;
	f.rec = good;
	f.rec.size_bytes = 31;
	assert_int_equal(qg_transfers_open(&f.store, n->sealer, &t), QG_E_CORRUPT);
	f.rec = good;
	f.rec.n_targets = 0;
	assert_int_equal(qg_transfers_open(&f.store, n->sealer, &t), QG_E_CORRUPT);
	assert_null(t);
	free((void *)(uintptr_t)good.sealed);
}

static void
test_states(void **state)
{
	node *n = *state;
	static const struct {
		qg_transfer_state record;
		qg_target_state target;
		qg_err err;
	} cases[] = {
		{QG_TRANSFER_PREPARED, QG_TARGET_PENDING, QG_E_CONSUMED}, /* void: its request is gone */
		{QG_TRANSFER_OFFERED, QG_TARGET_PENDING, QG_E_CONSUMED},
		{QG_TRANSFER_HELD, QG_TARGET_DELIVERED, QG_E_CONSUMED},
		{QG_TRANSFER_HELD, QG_TARGET_VOIDED, QG_E_CONSUMED},
		{QG_TRANSFER_HELD, QG_TARGET_PENDING, QG_E_CONSUMED}, /* its value is gone */
		{QG_TRANSFER_RELEASED, QG_TARGET_DELIVERED, QG_E_CONSUMED},
		{QG_TRANSFER_VOIDING, QG_TARGET_PENDING, QG_E_CONSUMED},
		{QG_TRANSFER_VOIDED, QG_TARGET_VOIDED, QG_E_CONSUMED},
		{QG_TRANSFER_EXPIRED, QG_TARGET_PENDING, QG_E_CONSUMED},
		{QG_TRANSFER_FAILED, QG_TARGET_PENDING, QG_E_CONSUMED},
	};
	for (size_t i = 0; i < COUNT(cases); i++) {
		const qg_target_rec target = {.sae = "sae-bob", .state = cases[i].target};
		fake_store f = {
			.store = {.ops = &fake_ops},
			.rec = {.initiator = ALICE,
				.state = cases[i].record,
				.origin = "local",
				.size_bytes = 32,
				.expiry_ms = FOREVER,
				.target = &target,
				.n_targets = 1},
		};
		qg_transfers *t = NULL;
		qg_transfer_claim *c = NULL;
		assert_int_equal(qg_transfers_open(&f.store, n->sealer, &t), QG_OK);
		assert_int_equal(qg_transfer_claim_new(t, ALICE, &f.rec.key_id, "sae-bob", 0, &c),
				 cases[i].err);
		qg_transfers_close(&t);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_each_target_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_same_id, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_arguments, setup, teardown),
		cmocka_unit_test_setup_teardown(test_under_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_store_decides, setup, teardown),
		cmocka_unit_test_setup_teardown(test_expiry, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restart, setup, teardown),
		cmocka_unit_test_setup_teardown(test_rolled_back, setup, teardown),
		cmocka_unit_test_setup_teardown(test_last_two_at_once, setup, teardown),
		cmocka_unit_test_setup_teardown(test_generations, setup, teardown),
		cmocka_unit_test_setup_teardown(test_race, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many, setup, teardown),
		cmocka_unit_test_setup_teardown(test_moved_blobs, setup, teardown),
		cmocka_unit_test_setup_teardown(test_states, setup, teardown),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
