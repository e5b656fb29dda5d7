/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TEST_SOURCE_RIG_H
#define QKDGATE_TEST_SOURCE_RIG_H

/* A source between a key stream and a key manager that runs in the test, and
 * what a group of cases with it begins and ends with. Include after cmocka.h. */

#include "sim_child.h"
#include "seed.h"
#include "source_fake.h"

static fake server;
static qg_intake intake;
static qg_source *source;
static sim_pair pair;         /* in place of the fake server */
static qg_source *far_source; /* at its other end */

static const qg_etsi004_profile *const wire[] = {&qg_etsi004_bin_a, &qg_etsi004_bin_b};
static const qg_source_profile configured[] = {QG_PROFILE_BIN_A, QG_PROFILE_BIN_B};

/* A key manager and a stream that will want `target` chunks of it. */
static inline void
prepare(size_t dialect, behave_fn *behave, uint32_t target)
{
	fake_start(&server, wire[dialect], behave);
	intake_init(&intake, configured[dialect], server.port);
	intake.target = target;
}

static inline void
go(void)
{
	assert_int_equal(qg_source_start(&intake, &source), QG_OK);
}

static inline void
stop_source(void)
{
	pthread_mutex_lock(&intake.lock);
	intake.stopping = true;
	pthread_mutex_unlock(&intake.lock);
	qg_source_stop(&source, 3000 * SLOW);
	assert_null(source);
}

static inline void
finish(void)
{
	stop_source();
	fake_stop(&server);
}

static inline void
run_to_target(void)
{
	go();
	EVENTUALLY(PEEK(&intake, next) == intake.target);
	for (uint32_t i = 0; i < intake.target; i++) {
		uint8_t key[32];
		key_of(i, key);
		assert_memory_equal(intake.keys[i], key, 32);
	}
}

/* What a case that failed has left running. */
static inline int
end_case(void **state)
{
	(void)state;
	qg_source_stop(&source, 0);
	qg_source_stop(&far_source, 0);
	fake_stop(&server);
	sim_pair_kill(&pair);
	return 0;
}

#define CASE(test) cmocka_unit_test_teardown(test, end_case)

static inline int
setup(void **state)
{
	(void)state;
	qg_log_init(getenv("QG_TEST_LOG") != NULL ? QG_LOG_DEBUG : QG_LOG_ERROR, QG_LOG_TEXT);
	return qg_secret_init() == QG_OK ? 0 : -1;
}

/* Every secret has been freed: qg_secret_fini says so. */
static inline int
teardown(void **state)
{
	(void)state;
	qg_secret_fini();
	return 0;
}

#endif
