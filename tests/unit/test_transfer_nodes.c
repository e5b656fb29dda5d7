/* SPDX-License-Identifier: Apache-2.0 */
/* Transferred keys whose targets live at several nodes (SOUNDNESS 18). */
#include "transfer_node.h"

/* --- keys with targets at several nodes -------------------------------------------------------- */

#define X "KME-X"
#define Y "KME-Y"

static const qg_transfer_to spread[] = {
	{"sae-bob", NULL}, {"sae-x1", X}, {"sae-x2", X}, {"sae-y", Y}};

typedef qg_err step_fn(qg_transfer *x, qg_store *store);

typedef struct step_job {
	qg_job job;
	qg_transfer *x;
	step_fn *step;
} step_job;

static qg_err
step_run(qg_job *job, qg_store *store)
{
	step_job *s = (step_job *)job;
	return s->step(s->x, store);
}

static qg_err
commit_step(node *n, qg_transfer *x, step_fn *step)
{
	step_job job = {.job = {.run = step_run}, .x = x, .step = step};
	return qg_committer_run(n->committer, &job.job);
}

static qg_transfer *
prepare_spread(node *n, const qg_uuid *id, const qg_transfer_to *to, size_t n_to)
{
	uint8_t value[32];
	value_of(id, value, sizeof value);
	const qg_transfer_plan plan = {.initiator = ALICE, .id = *id, .to = to, .n_to = n_to, .value = value,
				       .size_bytes = sizeof value, .expiry_ms = 5000};
	qg_transfer *x = NULL;
	assert_int_equal(qg_transfer_plan_new(n->transfers, &plan, &x), QG_OK);
	assert_int_equal(commit_add(n, x), QG_OK);
	return x;
}

static void
void_all(node *n, qg_transfer *x, const char *const *homes, size_t n_homes)
{
	qg_transfer_void_begin(n->transfers, x, homes, n_homes);
	assert_int_equal(commit_step(n, x, qg_transfer_void_store), QG_OK);
	qg_transfer_void_stored(n->transfers, x);
}

static qg_transfer_void *
next_void(node *n, uint64_t now_ms, const char *home)
{
	uint64_t next_ms;
	qg_transfer_void *v = qg_transfer_void_next(n->transfers, n->committer, now_ms, 128, &next_ms);
	if (home == NULL) {
		assert_null(v);
		return NULL;
	}
	assert_non_null(v);
	assert_string_equal(qg_transfer_void_initiator(v), ALICE);
	assert_string_equal(qg_transfer_void_home(v), home);
	return v;
}

static void
test_soundness_18_nobody_gets_it_before_the_release(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	qg_transfer *x = prepare_spread(n, &id, spread, COUNT(spread));
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_NOTFOUND);
	/* the housekeeping leaves what a request still points to */
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, UINT64_MAX), 0);
	assert_int_equal(commit_step(n, x, qg_transfer_release_store), QG_OK);
	assert_int_equal(commit_step(n, x, qg_transfer_release_store), QG_E_STATE);
	qg_transfer_released(n->transfers, x);
	assert_int_equal(fetch(n, &id, "sae-x1"), QG_E_CONSUMED); /* its home has it for it */
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);
	assert_int_equal(look(n).with_value, 0);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000), 1);
	assert_int_equal(look(n).records, 0);

	/* without a target here nothing is left of it */
	qg_uuid_random(&id);
	x = prepare_spread(n, &id, spread + 1, COUNT(spread) - 1);
	assert_int_equal(look(n).with_value, 0);
	assert_int_equal(commit_step(n, x, qg_transfer_release_store), QG_OK);
	qg_transfer_released(n->transfers, x);
	assert_int_equal(look(n).records, 0);
	assert_int_equal(qg_transfers_count(n->transfers), 0);
}

static void
test_soundness_18_the_first_of_release_and_void_wins(void **state)
{
	static const char *const both[] = {X, Y};
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	qg_transfer *x = prepare_spread(n, &id, spread, COUNT(spread));
	qg_transfer_void_begin(n->transfers, x, both, COUNT(both));
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED); /* before anything is written */
	assert_int_equal(commit_step(n, x, qg_transfer_void_store), QG_OK);
	assert_int_equal(commit_step(n, x, qg_transfer_release_store), QG_E_STATE);
	qg_transfer_void_stored(n->transfers, x);
	assert_int_equal(look(n).with_value, 0);
	assert_int_equal(qg_transfers_voiding(n->transfers), 1);
}

/* Whoever was to be answered is gone. */
static void
test_soundness_18_what_a_start_finds_prepared_is_void(void **state)
{
	static const char *const both[] = {X, Y};
	node *n = *state;
	qg_uuid prepared;
	qg_uuid voiding;
	qg_uuid_random(&prepared);
	qg_uuid_random(&voiding);
	qg_transfer *x = prepare_spread(n, &voiding, spread, COUNT(spread));
	void_all(n, x, both, COUNT(both));
	x = prepare_spread(n, &prepared, spread, COUNT(spread));
	qg_transfer_void_begin(n->transfers, x, both, COUNT(both)); /* never written: as killed */
	qg_transfer_void_stored(n->transfers, x);
	node_down(n);
	node_up(n);
	assert_int_equal(qg_transfers_voiding(n->transfers), 2);
	assert_int_equal(fetch(n, &prepared, "sae-bob"), QG_E_CONSUMED);
	assert_int_equal(fetch(n, &voiding, "sae-bob"), QG_E_CONSUMED);
	(void)qg_transfers_expire(n->transfers, n->committer, UINT64_MAX);
	assert_int_equal(look(n).records, 2); /* kept until every home answered */
	assert_int_equal(look(n).with_value, 0);
	for (size_t i = 0; i < 2; i++) {
		uint64_t next_ms;
		size_t ids;
		qg_transfer_void *v =
			qg_transfer_void_next(n->transfers, n->committer, 0, 128, &next_ms);
		assert_non_null(v);
		(void)qg_transfer_void_ids(v, &ids);
		assert_int_equal(ids, 2); /* of one home in one message */
		assert_true(qg_transfer_void_answered(n->transfers, n->committer, &v, 2, 0));
		assert_null(v);
	}
	(void)look(n);
	assert_int_equal(qg_transfers_voiding(n->transfers), 0);
	node_down(n);
	node_up(n);
	assert_int_equal(qg_transfers_voiding(n->transfers), 0);
	assert_int_equal(fetch(n, &prepared, "sae-bob"), QG_E_CONSUMED);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000), 2);
	assert_int_equal(look(n).records, 0);
}

static void
test_soundness_18_homes_are_told_until_they_answer(void **state)
{
	static const char *const only_y[] = {Y};
	node *n = *state;
	qg_uuid id;
	uint64_t next_ms;
	qg_uuid_random(&id);
	void_all(n, prepare_spread(n, &id, spread, COUNT(spread)), only_y, 1); /* X never heard of it */
	qg_transfer_void *v = next_void(n, 1000, Y);
	next_void(n, 1000000, NULL); /* under way */
	qg_transfer_void_put_off(n->transfers, &v, 1000);
	assert_null(qg_transfer_void_next(n->transfers, n->committer, 1500, 128, &next_ms));
	assert_int_equal(next_ms, 2000);
	v = next_void(n, 2000, Y);
	qg_transfer_void_put_off(n->transfers, &v, 2000);
	next_void(n, 3999, NULL); /* ever less often */
	for (uint64_t now = 4000, i = 0; i < 20; i++, now += 64000) {
		v = next_void(n, now, Y);
		assert_false(qg_transfer_void_expired(v, 4999));
		assert_true(qg_transfer_void_expired(v, 5000));
		qg_transfer_void_put_off(n->transfers, &v, now);
	}
	v = next_void(n, 10000000, Y);
	assert_true(qg_transfer_void_answered(n->transfers, n->committer, &v, 0, 1)); /* too late */
	(void)look(n);
	assert_int_equal(qg_transfers_voiding(n->transfers), 0);
	next_void(n, 20000000, NULL);
}

/* Of several keys one was delivered: they are asked about one by one. */
static void
test_soundness_18_one_by_one_when_some_were_delivered(void **state)
{
	static const char *const only_y[] = {Y};
	node *n = *state;
	for (size_t i = 0; i < 3; i++) {
		qg_uuid id;
		qg_uuid_random(&id);
		void_all(n, prepare_spread(n, &id, spread, COUNT(spread)), only_y, 1);
	}
	size_t ids;
	qg_transfer_void *v = next_void(n, 0, Y);
	(void)qg_transfer_void_ids(v, &ids);
	assert_int_equal(ids, 3);
	assert_false(qg_transfer_void_answered(n->transfers, n->committer, &v, 2, 1));
	for (size_t i = 0; i < 3; i++) {
		v = next_void(n, 0, Y);
		(void)qg_transfer_void_ids(v, &ids);
		assert_int_equal(ids, 1);
		assert_true(qg_transfer_void_answered(n->transfers, n->committer, &v, i != 1, i == 1));
	}
	(void)look(n);
	assert_int_equal(qg_transfers_voiding(n->transfers), 0);
}

/* --- keys that another node brought -------------------------------------------------------------- */

static const qg_transfer_to here[] = {{"sae-bob", NULL}, {"sae-dave", NULL}};

static qg_transfer_plan
brought(const qg_uuid *id, const uint8_t *value)
{
	return (qg_transfer_plan){.initiator = ALICE, .origin = X, .id = *id, .to = here, .n_to = COUNT(here),
				  .value = value, .size_bytes = 32, .expiry_ms = 5000};
}

static void
bring(node *n, const qg_uuid *id)
{
	uint8_t value[32];
	value_of(id, value, sizeof value);
	const qg_transfer_plan plan = brought(id, value);
	qg_transfer *x = NULL;
	assert_int_equal(qg_transfer_plan_new(n->transfers, &plan, &x), QG_OK);
	assert_int_equal(commit_add(n, x), QG_OK);
}

static qg_err
compare(node *n, const qg_uuid *id)
{
	uint8_t value[32];
	value_of(id, value, sizeof value);
	const qg_transfer_plan plan = brought(id, value);
	return qg_transfer_compare(n->transfers, &plan);
}

typedef struct revoke_job {
	qg_job job;
	qg_transfer_revocation *r;
} revoke_job;

static qg_err
revoke_run(qg_job *job, qg_store *store)
{
	return qg_transfer_revoke_store(((revoke_job *)job)->r, store);
}

static qg_err
try_revoke(node *n, const char *origin, const qg_uuid *id, bool plant, qg_revoked *what)
{
	revoke_job job = {.job = {.run = revoke_run}};
	assert_int_equal(qg_transfer_revoke_new(n->transfers, origin, ALICE, id, 9000, plant, &job.r), QG_OK);
	const qg_err err = qg_committer_run(n->committer, &job.job);
	*what = qg_transfer_revoke_end(n->transfers, &job.r, err);
	assert_null(job.r);
	return err;
}

static qg_revoked
take_back(node *n, const char *origin, const qg_uuid *id)
{
	qg_revoked what;
	assert_int_equal(try_revoke(n, origin, id, true, &what), QG_OK);
	return what;
}

static void
test_soundness_18_the_same_key_again(void **state)
{
	node *n = *state;
	qg_uuid id;
	uint8_t value[33] = {0};
	qg_uuid_random(&id);
	assert_int_equal(compare(n, &id), QG_E_NOTFOUND);
	bring(n, &id);
	assert_int_equal(compare(n, &id), QG_OK);
	value_of(&id, value, 32);
	qg_transfer_plan plan = brought(&id, value);
	plan.origin = Y;
	assert_int_equal(qg_transfer_compare(n->transfers, &plan), QG_E_EXISTS);
	plan.origin = NULL;
	assert_int_equal(qg_transfer_compare(n->transfers, &plan), QG_E_EXISTS);
	plan = brought(&id, value);
	plan.n_to = 1;
	assert_int_equal(qg_transfer_compare(n->transfers, &plan), QG_E_EXISTS);
	plan = brought(&id, value);
	plan.size_bytes = 33;
	assert_int_equal(qg_transfer_compare(n->transfers, &plan), QG_E_EXISTS);
	plan = brought(&id, value);
	value[31] ^= 1;
	assert_int_equal(qg_transfer_compare(n->transfers, &plan), QG_E_EXISTS);
	node_down(n);
	node_up(n);
	assert_int_equal(compare(n, &id), QG_OK);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
	assert_int_equal(compare(n, &id), QG_OK);
	assert_int_equal(fetch(n, &id, "sae-dave"), QG_OK);
	assert_int_equal(compare(n, &id), QG_E_EXISTS);
}

static void
test_soundness_18_void_and_delivered(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_uuid_random(&id);
	bring(n, &id);
	assert_int_equal(take_back(n, Y, &id), QG_REVOKED_OTHER);
	assert_int_equal(compare(n, &id), QG_OK);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_VOID);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_VOID);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);
	assert_int_equal(compare(n, &id), QG_E_EXISTS);
	assert_int_equal(look(n).with_value, 0);

	qg_uuid_random(&id);
	bring(n, &id);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_DELIVERED);
	assert_int_equal(fetch(n, &id, "sae-dave"), QG_E_CONSUMED);
	node_down(n);
	node_up(n);
	assert_int_equal(fetch(n, &id, "sae-dave"), QG_E_CONSUMED);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_DELIVERED);

	/* one of this node's own is nobody else's to revoke */
	qg_uuid_random(&id);
	assert_int_equal(add(n, ALICE, &id, bob_only, 1, 32, FOREVER), QG_OK);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_OTHER);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_OK);
}

/* The store's first change decides between a delivery and a revocation. */
static void
test_soundness_18_a_delivery_under_way(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_transfer_claim *c = NULL;
	qg_uuid_random(&id);
	bring(n, &id);
	assert_int_equal(claim(n, &id, "sae-bob", &c), QG_OK);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_VOID);
	assert_int_equal(commit_claim(n, c), QG_E_CONSUMED);
	qg_transfer_claim_end(n->transfers, &c, QG_E_CLOSED);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);

	qg_uuid_random(&id);
	bring(n, &id);
	assert_int_equal(claim(n, &id, "sae-bob", &c), QG_OK);
	assert_int_equal(commit_claim(n, c), QG_OK);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_DELIVERED);
	uint8_t got[32];
	uint8_t want[32];
	value_of(&id, want, sizeof want);
	assert_int_equal(qg_transfer_claim_value(c, got), QG_OK); /* it is committed: it may leave */
	assert_memory_equal(got, want, sizeof want);
	qg_transfer_claim_end(n->transfers, &c, QG_OK);
	assert_int_equal(fetch(n, &id, "sae-dave"), QG_E_CONSUMED);
}

static void
test_soundness_18_tombstones(void **state)
{
	node *n = *state;
	qg_uuid id;
	qg_revoked what;
	qg_uuid_random(&id);
	assert_int_equal(try_revoke(n, X, &id, false, &what), QG_OK);
	assert_int_equal(what, QG_REVOKED_OTHER);
	assert_int_equal(compare(n, &id), QG_E_NOTFOUND);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_VOID);
	assert_int_equal(compare(n, &id), QG_E_EXISTS);
	assert_false(qg_transfer_known(n->transfers, &id)); /* it is nobody's */
	node_down(n);
	node_up(n);
	assert_int_equal(compare(n, &id), QG_E_EXISTS);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_VOID);

	/* it came between the look and the write: look again */
	qg_uuid_random(&id);
	revoke_job job = {.job = {.run = revoke_run}};
	assert_int_equal(qg_transfer_revoke_new(n->transfers, X, ALICE, &id, 9000, true, &job.r), QG_OK);
	bring(n, &id);
	const qg_err err = qg_committer_run(n->committer, &job.job);
	assert_int_equal(err, QG_E_EXISTS);
	(void)qg_transfer_revoke_end(n->transfers, &job.r, err);
	assert_int_equal(take_back(n, X, &id), QG_REVOKED_VOID);
	assert_int_equal(fetch(n, &id, "sae-bob"), QG_E_CONSUMED);
}

/* Value gone at its time by the far end's clock; known for an hour more. */
static void
test_soundness_18_known_longer_than_it_lives(void **state)
{
	node *n = *state;
	const uint64_t hour = 3600 * 1000, behind = 700;
	qg_uuid id;
	qg_uuid gone;
	qg_uuid_random(&id);
	qg_uuid_random(&gone);
	qg_transfers_far_behind(n->transfers, behind);
	bring(n, &id);
	assert_int_equal(take_back(n, X, &gone), QG_REVOKED_VOID);
	qg_transfer_claim *c = NULL;
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000 + behind - 1), 0);
	assert_int_equal(look(n).with_value, 1);
	assert_int_equal(qg_transfer_claim_new(n->transfers, ALICE, &id, "sae-bob", 5000 + behind, &c),
			 QG_E_CONSUMED);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000 + behind), 0);
	assert_int_equal(look(n).with_value, 0);
	assert_int_equal(compare(n, &id), QG_E_EXISTS);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000 + behind + hour - 1), 0);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 5000 + behind + hour), 1);
	(void)look(n);
	assert_int_equal(compare(n, &id), QG_E_NOTFOUND);
	assert_int_equal(compare(n, &gone), QG_E_EXISTS);
	assert_int_equal(qg_transfers_expire(n->transfers, n->committer, 9000 + behind + hour), 1);
	(void)look(n);
	assert_int_equal(compare(n, &gone), QG_E_NOTFOUND);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_soundness_18_nobody_gets_it_before_the_release, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_the_first_of_release_and_void_wins, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_what_a_start_finds_prepared_is_void, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_homes_are_told_until_they_answer, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_one_by_one_when_some_were_delivered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_the_same_key_again, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_void_and_delivered, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_a_delivery_under_way, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_tombstones, setup, teardown),
		cmocka_unit_test_setup_teardown(test_soundness_18_known_longer_than_it_lives, setup, teardown),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
