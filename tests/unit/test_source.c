/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "source_rig.h"

/* --- what should work -------------------------------------------------------------- */

static void
chunks_in_order(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		prepare(d, NULL, d == 0 ? 200 : 2000);
		run_to_target();
		pthread_mutex_lock(&intake.lock);
		intake.want_close = true;
		pthread_mutex_unlock(&intake.lock);
		EVENTUALLY(PEEK(&intake, closed) == 1);
		assert_int_equal(intake.closed_err, QG_OK);
		assert_int_equal(intake.opened, 1);
		assert_int_equal(intake.failed, 0);
		finish();
		for (uint32_t i = 0; i < intake.target; i++)
			assert_int_equal(atomic_load(&server.asked[i]), 1);
		if (d == 0) { /* a connection per request, 32 requests at once on one */
			assert_int_equal(server.connections, server.opens + server.gets + server.closes);
			assert_int_equal(server.burst, 1);
		} else {
			assert_int_equal(server.connections, 1);
			assert_true(server.burst > 8 && server.burst <= 32);
		}
	}
}

static void
slow_server(void **state)
{
	(void)state;
	prepare(1, NULL, 64);
	server.slow_ms = 20; /* all of a window take longer than the time-out of one call */
	run_to_target();
	assert_int_equal(intake.failed, 0);
	finish();
}

static void
both_ends_over_the_simulator(void **state)
{
	(void)state;
	static qg_intake far;
	for (size_t d = 0; d < 2; d++) {
		sim_pair_start(&pair, d == 0 ? "a" : "b", NULL, NULL);
		intake_init(&intake, configured[d], pair.end[0].port);
		intake_init(&far, configured[d], pair.end[1].port);
		intake.target = far.target = 1000;
		go();
		EVENTUALLY(PEEK(&intake, opened) == 1);
		far.ksid = intake.ksid; /* handed over by the gateways in truth */
		assert_int_equal(qg_source_start(&far, &far_source), QG_OK);
		EVENTUALLY(PEEK(&intake, next) == 1000);
		EVENTUALLY(PEEK(&far, next) == 1000);
		assert_memory_equal(intake.keys, far.keys, (size_t)1000 * 32);
		stop_source();
		pthread_mutex_lock(&far.lock);
		far.stopping = true;
		pthread_mutex_unlock(&far.lock);
		qg_source_stop(&far_source, 3000 * SLOW);
		sim_pair_stop(&pair);
	}
}

/* The key manager at one end is killed: the stream comes back with its KSID. */
static void
simulator_restarts(void **state)
{
	(void)state;
	static client peer;
	sim_pair_start(&pair, "b", NULL, NULL);
	intake_init(&intake, QG_PROFILE_BIN_B, pair.end[0].port);
	intake.reopen = true;
	intake.target = 500;
	go();
	EVENTUALLY(PEEK(&intake, opened) == 1);
	client_open(&peer, &pair, 1);
	qg_etsi004_request q = open_request(&intake.ksid, 2000, "application/json");
	assert_int_equal(client_call(&peer, &q).status, 0);
	EVENTUALLY(PEEK(&intake, next) == 500);
	sim_child_end(&pair.end[0], SIGKILL);
	pthread_mutex_lock(&intake.lock);
	intake.target = 1000;
	pthread_mutex_unlock(&intake.lock);
	sim_child_start(&pair, 0);
	EVENTUALLY(PEEK(&intake, next) == 1000);
	assert_true(intake.opened >= 2);
	for (uint32_t i = 0; i < 1000; i += 37) {
		uint8_t key[32];
		assert_int_equal(client_get(&peer, &q.ksid, i, key), 0);
		assert_memory_equal(key, intake.keys[i], 32);
	}
	stop_source();
	qg_conn_close(&peer.conn);
	sim_pair_stop(&pair);
}

/* --- GET_KEY, status by status -------------------------------------------------------- */

static uint32_t the_status;

/* Index 5 fails three times with the_status. */
static act
fail_thrice(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	if (q->op == QG_ETSI004_GET_KEY && q->index == 5 && f->state < 3) {
		f->state++;
		*a = (qg_etsi004_response){.op = q->op, .status = the_status, .index = q->index,
					   .qos.mimetype = ""};
	}
	return ANSWER;
}

static void
every_status_of_get_key(void **state)
{
	(void)state;
	static const uint32_t statuses[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 4711};
	for (size_t d = 0; d < 2; d++) {
		for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
			the_status = statuses[i];
			bool later = the_status == 2 || the_status == 3 || the_status == 6;
			prepare(d, fail_thrice, 40);
			run_to_target();
			assert_int_equal(intake.failed, 3);
			assert_int_equal(intake.failed_status, the_status);
			assert_int_equal(intake.failed_index, 5);
			assert_int_not_equal(intake.failed_err, QG_E_PROTO);
			finish();
			/* Waiting keeps the connection, other failures do not. */
			if (d == 1)
				assert_int_equal(server.connections, later ? 1 : 4);
			/* What came early is not asked for again. */
			for (uint32_t k = 0; k < 40 && later; k++)
				assert_int_equal(atomic_load(&server.asked[k]), k == 5 ? 4 : 1);
		}
	}
}

/* The room that a request gives to metadata, or, in A, that its own has. */
static uint32_t
room_of(const qg_etsi004_request *q)
{
	return q->metadata_len > 0 ? (uint32_t)q->metadata_len : q->metadata_max;
}

/* Metadata needs f->state bytes. */
static act
needs_room(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	if (q->op == QG_ETSI004_GET_KEY && room_of(q) < f->state)
		*a = (qg_etsi004_response){.op = q->op, .status = QG_ETSI004_METADATA_SIZE, .index = q->index,
					   .qos.mimetype = "", .metadata_needed = f->state};
	return ANSWER;
}

static act
needs_ever_more(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	f->state = room_of(q) + 1;
	return needs_room(f, q, a);
}

static void
metadata_size(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		prepare(d, needs_room, 50);
		server.state = 3000;
		run_to_target();
		assert_int_equal(intake.failed, 0);
		assert_int_equal(server.metadata_asked, 3000);
		finish();
		/* More than anyone may want, or more each time: reported, not followed. */
		for (int ever = 0; ever < 2; ever++) {
			prepare(d, ever ? needs_ever_more : needs_room, 50);
			server.state = QG_ETSI004_METADATA_MAX + 1;
			go();
			EVENTUALLY(PEEK(&intake, failed) >= 1);
			assert_int_equal(PEEK(&intake, failed_status), QG_ETSI004_METADATA_SIZE);
			assert_int_equal(PEEK(&intake, next), 0);
			finish();
		}
	}
}

/* --- OPEN_CONNECT ------------------------------------------------------------------------- */

static act
open_status(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	(void)f;
	if (q->op == QG_ETSI004_OPEN_CONNECT)
		a->status = the_status;
	return ANSWER;
}

static void
every_status_of_open(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		for (uint32_t given = 0; given < 2; given++) {
			for (the_status = 0; the_status <= 9; the_status++) {
				prepare(d, open_status, 10);
				if (given)
					qg_uuid_random(&intake.ksid);
				qg_uuid asked = intake.ksid;
				bool fine = the_status <= 1 || (the_status == 5 && given);
				go();
				EVENTUALLY(fine ? PEEK(&intake, next) == 10 : PEEK(&intake, open_failed) > 0);
				if (fine) {
					assert_int_equal(intake.chunk_size, 32);
					assert_true(qg_uuid_equal(&intake.ksid, given ? &asked : &server.ksid));
				} else {
					assert_int_equal(PEEK(&intake, open_status), the_status);
					assert_int_equal(PEEK(&intake, opened), 0);
				}
				finish();
			}
		}
	}
}

static qg_etsi004_qos the_proposal;

static act
propose(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	if (q->op == QG_ETSI004_OPEN_CONNECT && f->state++ == 0) {
		a->status = QG_ETSI004_QOS;
		a->qos = the_proposal;
	}
	return ANSWER;
}

static void
counter_proposal_taken(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		the_proposal = (qg_etsi004_qos){.chunk_size = 32, .max_bps = 5000000, .min_bps = 1000,
						.ttl_s = 60, .mimetype = "application/json"};
		prepare(d, propose, 10);
		intake.cfg.source.min_bps = 5000;
		run_to_target();
		assert_int_equal(server.opens, 2);
		assert_int_equal(server.last_qos.max_bps, 5000000);
		assert_int_equal(server.last_qos.ttl_s, 60);
		assert_true(qg_uuid_equal(&intake.ksid, &server.ksid));
		finish();
		assert_int_equal(server.closes, 0);
	}
}

static void
counter_proposal_refused(void **state)
{
	(void)state;
	static const qg_etsi004_qos bad[] = {
		{.chunk_size = 16, .max_bps = 9000, .mimetype = ""},
		{.chunk_size = 32, .max_bps = 4999, .mimetype = ""},
		{.chunk_size = 32, .max_bps = 9000, .ttl_s = 1, .mimetype = ""},
		{.chunk_size = 32, .max_bps = 9000, .mimetype = "text/xml"},
	};
	for (size_t d = 0; d < 2; d++) {
		for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
			the_proposal = bad[i];
			prepare(d, propose, 10);
			intake.cfg.source.min_bps = 5000;
			intake.cfg.source.timeout_ms = 2000;
			go();
			EVENTUALLY(PEEK(&intake, open_failed) >= 1);
			assert_int_equal(PEEK(&intake, open_status), 7);
			finish();
			/* B's server holds the stream open: closed again. */
			assert_int_equal(server.closes, d == 1);
		}
	}
}

static act
other_ksid(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	if (q->op == QG_ETSI004_OPEN_CONNECT && f->state == 0)
		memset(&a->ksid, 0, sizeof a->ksid);
	else if (q->op == QG_ETSI004_OPEN_CONNECT)
		a->ksid.b[3] ^= 1;
	return ANSWER;
}

static void
opened_with_another_ksid(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		for (unsigned given = 0; given < 2; given++) {
			prepare(d, other_ksid, 10);
			server.state = given;
			if (given)
				qg_uuid_random(&intake.ksid);
			go();
			EVENTUALLY(PEEK(&intake, open_failed) >= 1);
			assert_int_equal(PEEK(&intake, open_err), QG_E_PROTO);
			assert_int_equal(PEEK(&intake, opened), 0);
			finish();
		}
	}
}

/* --- the stream's side ------------------------------------------------------------------------- */

static void
full_stream_loses_nothing(void **state)
{
	(void)state;
	prepare(1, NULL, 100);
	intake.full_at = 11;
	run_to_target();
	finish();
	for (uint32_t i = 0; i < 100; i++)
		assert_int_equal(atomic_load(&server.asked[i]), 1);
}

static void
rate_is_respected(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		prepare(d, NULL, 100);
		intake.cfg.source.max_bps = 25600; /* 100 chunks of 32 bytes a second */
		uint64_t start_ms = qg_clock_elapsed_ms();
		run_to_target();
		uint64_t took_ms = qg_clock_elapsed_ms() - start_ms;
		assert_true(took_ms >= 850 && took_ms < 1500 + 2000 * SLOW);
		finish();
	}
}

static void
configuration_that_cannot_be(void **state)
{
	(void)state;
	qg_source *none = NULL;
	intake_init(&intake, QG_PROFILE_BIN_B, 1);
	intake.cfg.chunk_size = 0;
	assert_int_equal(qg_source_start(&intake, &none), QG_E_RANGE);
	intake.cfg.chunk_size = QG_ETSI004_KEY_MAX + 1;
	assert_int_equal(qg_source_start(&intake, &none), QG_E_RANGE);
	intake.cfg.chunk_size = 32;
	intake.cfg.source.profile = (qg_source_profile)77;
	assert_int_equal(qg_source_start(&intake, &none), QG_E_UNSUPPORTED);
	assert_null(none);
	qg_source_stop(&none, 0);
	qg_source_stop(NULL, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(chunks_in_order),
		CASE(slow_server),
		CASE(both_ends_over_the_simulator),
		CASE(simulator_restarts),
		CASE(every_status_of_get_key),
		CASE(metadata_size),
		CASE(every_status_of_open),
		CASE(counter_proposal_taken),
		CASE(counter_proposal_refused),
		CASE(opened_with_another_ksid),
		CASE(full_stream_loses_nothing),
		CASE(rate_is_respected),
		CASE(configuration_that_cannot_be),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names, for debugging */
	return cmocka_run_group_tests(tests, setup, teardown);
}
