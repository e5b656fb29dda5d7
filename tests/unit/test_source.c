/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim_child.h"

#include "source_fake.h"

static fake server;
static qg_intake intake;
static qg_source *source;

static const qg_etsi004_profile *const wire[] = {&qg_etsi004_bin_a, &qg_etsi004_bin_b};
static const qg_source_profile configured[] = {QG_PROFILE_BIN_A, QG_PROFILE_BIN_B};

/* A key manager and a stream that will want `target` chunks of it. */
static void
prepare(size_t dialect, behave_fn *behave, uint32_t target)
{
	fake_start(&server, wire[dialect], behave);
	intake_init(&intake, configured[dialect], server.port);
	intake.target = target;
}

static void
go(void)
{
	assert_int_equal(qg_source_start(&intake, &source), QG_OK);
}

static void
stop_source(void)
{
	pthread_mutex_lock(&intake.lock);
	intake.stopping = true;
	pthread_mutex_unlock(&intake.lock);
	qg_source_stop(&source, 3000 * SLOW);
	assert_null(source);
}

static void
finish(void)
{
	stop_source();
	fake_stop(&server);
}

static void
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
	static sim_pair pair;
	static qg_intake far;
	for (size_t d = 0; d < 2; d++) {
		sim_pair_start(&pair, d == 0 ? "a" : "b", NULL, NULL);
		intake_init(&intake, configured[d], pair.end[0].port);
		intake_init(&far, configured[d], pair.end[1].port);
		intake.target = far.target = 1000;
		qg_source *far_source = NULL;
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
	static sim_pair pair;
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

/* --- wrong answers --------------------------------------------------------------------------- */

typedef void spoil_fn(fake *f, qg_etsi004_response *a);
static spoil_fn *the_spoil;
static act the_act;

/* Index 7 and what follows are answered wrongly until f->state says otherwise. */
static act
spoilt(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	if (q->op != QG_ETSI004_GET_KEY || q->index < 7 || f->state > 0)
		return ANSWER;
	if (the_spoil != NULL)
		the_spoil(f, a);
	return the_act;
}

static void wrong_index(fake *f, qg_etsi004_response *a) { (void)f; a->index += 100; }
static void short_key(fake *f, qg_etsi004_response *a) { (void)f; a->key_len = 31; }
static void no_key(fake *f, qg_etsi004_response *a) { (void)f; a->key_len = 0; }
static void other_call(fake *f, qg_etsi004_response *a)
{
	(void)f;
	*a = (qg_etsi004_response){.op = QG_ETSI004_CLOSE, .qos.mimetype = ""};
}
static void hollow_error(fake *f, qg_etsi004_response *a)
{
	(void)f;
	*a = (qg_etsi004_response){.op = QG_ETSI004_ERROR, .qos.mimetype = ""};
}
static void oversized(fake *f, qg_etsi004_response *a)
{
	(void)a;
	memcpy(f->raw, (uint8_t[]){1, 0, 1, 5, 0x7f, 0xff, 0xff, 0xff}, 8);
	f->raw_len = 4096;
}
static void larger_than_asked(fake *f, qg_etsi004_response *a)
{
	(void)a;
	memcpy(f->raw, (uint8_t[]){1, 0, 1, 5, 0, 0x0f, 0, 0}, 8);
	f->raw_len = 4096;
}
static void http(fake *f, qg_etsi004_response *a)
{
	(void)a;
	f->raw_len = (size_t)snprintf((char *)f->raw, sizeof f->raw, "HTTP/1.1 400 Bad Request\r\n\r\n");
}
static void noise(fake *f, qg_etsi004_response *a)
{
	(void)a;
	f->raw_len = 1000;
	for (size_t i = 0; i < f->raw_len; i++)
		f->raw[i] = (uint8_t)(i * 37 + 11);
}

static void
wrong_answers(void **state)
{
	(void)state;
	static const struct {
		spoil_fn *spoil;
		act act;
		qg_err err;
	} kinds[] = {
		{short_key, ANSWER, QG_E_PROTO},       {no_key, ANSWER, QG_E_PROTO},
		{other_call, ANSWER, QG_E_PROTO},      {hollow_error, ANSWER, QG_E_PROTO},
		{oversized, ANSWER_RAW, QG_E_PROTO},   {larger_than_asked, ANSWER_RAW, QG_E_PROTO},
		{http, ANSWER_RAW, QG_E_PROTO},        {noise, ANSWER_RAW, QG_E_PROTO},
		{NULL, DROP, QG_E_CLOSED},
	};
	for (size_t d = 0; d < 2; d++) {
		for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
			the_spoil = kinds[i].spoil;
			the_act = kinds[i].act;
			prepare(d, spoilt, 20);
			go();
			/* With several requests in flight that may be the reason; alone not. */
			EVENTUALLY(PEEK(&intake, failed) >= 1 && PEEK(&intake, failed_err) == kinds[i].err);
			assert_int_equal(PEEK(&intake, failed_index), 7);
			assert_int_equal(PEEK(&intake, next), 7);
			assert_int_equal(PEEK(&intake, wrong), 0);
			server.state = 1;
			EVENTUALLY(PEEK(&intake, next) == 20);
			finish();
		}
	}
}

/* The stream hears of one index that it did not ask for, not of all that were
 * in flight: what it makes of the first changes what it asks for. */
static void
server_with_an_index_of_its_own(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		the_spoil = wrong_index;
		the_act = ANSWER;
		prepare(d, spoilt, 20);
		intake.per_order = 20;
		intake.stop_at_wrong = true;
		go();
		EVENTUALLY(PEEK(&intake, wrong) >= 1);
		poll(NULL, 0, 50);
		assert_int_equal(PEEK(&intake, wrong), 1);
		assert_int_equal(PEEK(&intake, wrong_index), 107);
		assert_int_equal(PEEK(&intake, failed), 0);
		finish();
	}
}

static act
mutated(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	static unsigned x;
	if (f->state == 0)
		return ANSWER;
	if (x == 0)
		x = f->state;
	qg_writer w = qg_writer_of(f->raw, sizeof f->raw);
	if (f->profile->put_response(f->profile, a, &w) != QG_OK)
		abort();
	f->raw_len = w.len;
	for (unsigned k = 0; q->op == QG_ETSI004_GET_KEY && k < 3; k++) {
		x = x * 1664525u + 1013904223u;
		/* The key's bytes are left alone: a wrong key is for others to find. */
		size_t at = (x >> 8) % f->raw_len;
		if (at < 20 || at >= 52)
			f->raw[at] = (uint8_t)(x >> 24);
	}
	x = x * 1664525u + 1013904223u;
	if (x >> 29 == 0)
		f->raw_len = (x >> 4) % f->raw_len;
	return ANSWER_RAW;
}

static unsigned
complaints(void)
{
	pthread_mutex_lock(&intake.lock);
	unsigned n = intake.failed + intake.wrong;
	pthread_mutex_unlock(&intake.lock);
	return n;
}

static void
mutations(void **state)
{
	(void)state;
	unsigned seed = (unsigned)qg_clock_elapsed_ms() | 1;
	printf("seed %u\n", seed);
	for (size_t d = 0; d < 2; d++) {
		prepare(d, mutated, 300);
		intake.cfg.source.timeout_ms = 0;
		server.state = seed;
		go();
		EVENTUALLY(complaints() >= 3);
		server.state = 0;
		EVENTUALLY(PEEK(&intake, next) == 300);
		for (uint32_t i = 0; i < 300; i++) {
			uint8_t key[32];
			key_of(i, key);
			assert_memory_equal(intake.keys[i], key, 32);
		}
		finish();
	}
}

/* --- connections that hang or break ------------------------------------------------------------ */

static void
header_and_then_nothing(void **state)
{
	(void)state;
	the_spoil = NULL;
	the_act = HEADER_ONLY;
	for (size_t d = 0; d < 2; d++) {
		prepare(d, spoilt, 20);
		intake.cfg.source.timeout_ms = 60000;
		go();
		EVENTUALLY(atomic_load(&server.asked[7]) == 1);
		/* A call that hangs is ended when the source has to stop. */
		uint64_t start_ms = qg_clock_elapsed_ms();
		pthread_mutex_lock(&intake.lock);
		intake.stopping = true;
		pthread_mutex_unlock(&intake.lock);
		if (d == 0)
			poll(NULL, 0, 50);
		qg_source_stop(&source, 100);
		assert_true(qg_clock_elapsed_ms() - start_ms < 1500 * SLOW);
		assert_int_equal(intake.next, 7);
		fake_stop(&server);
	}
}

static act
stall_once(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	(void)a;
	return q->op == QG_ETSI004_GET_KEY && q->index == 7 && f->state++ == 0 ? HEADER_ONLY : ANSWER;
}

static void
stalled_call_times_out(void **state)
{
	(void)state;
	prepare(1, stall_once, 20);
	intake.cfg.source.timeout_ms = 0;
	run_to_target();
	assert_int_equal(intake.failed, 1);
	/* What follows the header is not what it promised. */
	assert_true(intake.failed_err == QG_E_TIMEOUT || intake.failed_err == QG_E_IO ||
		    intake.failed_err == QG_E_PROTO);
	finish();
}

static act
one_at_a_time(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	(void)f;
	(void)a;
	return q->op == QG_ETSI004_GET_KEY ? FORGET : ANSWER;
}

static void
server_that_cannot_pipeline(void **state)
{
	(void)state;
	prepare(1, one_at_a_time, 200);
	intake.cfg.source.timeout_ms = 0;
	run_to_target();
	finish();
	assert_true(server.connections <= 3); /* found out once, not for every chunk */
	assert_true(server.gets < 200 + 4);
}

static act
drop_often(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	(void)a;
	return q->op == QG_ETSI004_GET_KEY && q->index % 10 == 9 && f->state++ % 2 == 0 ? DROP : ANSWER;
}

static void
connections_break(void **state)
{
	(void)state;
	prepare(1, drop_often, 60);
	run_to_target();
	assert_true(intake.failed >= 6);
	assert_int_equal(intake.opened, 1); /* whether to open again is not the session's choice */
	finish();
}

static void
nobody_there(void **state)
{
	(void)state;
	intake_init(&intake, QG_PROFILE_BIN_B, free_port());
	go();
	EVENTUALLY(PEEK(&intake, open_failed) >= 3);
	assert_int_equal(PEEK(&intake, open_err), QG_E_IO);
	assert_int_equal(PEEK(&intake, open_status), 0);
	uint64_t start_ms = qg_clock_elapsed_ms();
	stop_source(); /* in the middle of its backoff */
	assert_true(qg_clock_elapsed_ms() - start_ms < 1000 * SLOW);
}

static void
close_that_cannot_be_said(void **state)
{
	(void)state;
	prepare(1, NULL, 10);
	run_to_target();
	fake_stop(&server);
	pthread_mutex_lock(&intake.lock);
	intake.want_close = true;
	pthread_mutex_unlock(&intake.lock);
	EVENTUALLY(PEEK(&intake, closed) == 1);
	assert_int_not_equal(intake.closed_err, QG_OK);
	stop_source();
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

static int
setup(void **state)
{
	(void)state;
	qg_log_init(getenv("QG_TEST_LOG") != NULL ? QG_LOG_DEBUG : QG_LOG_ERROR, QG_LOG_TEXT);
	return qg_secret_init() == QG_OK ? 0 : -1;
}

/* Every secret has been freed: qg_secret_fini says so. */
static int
teardown(void **state)
{
	(void)state;
	qg_secret_fini();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chunks_in_order),
		cmocka_unit_test(slow_server),
		cmocka_unit_test(both_ends_over_the_simulator),
		cmocka_unit_test(simulator_restarts),
		cmocka_unit_test(every_status_of_get_key),
		cmocka_unit_test(metadata_size),
		cmocka_unit_test(every_status_of_open),
		cmocka_unit_test(counter_proposal_taken),
		cmocka_unit_test(counter_proposal_refused),
		cmocka_unit_test(opened_with_another_ksid),
		cmocka_unit_test(wrong_answers),
		cmocka_unit_test(server_with_an_index_of_its_own),
		cmocka_unit_test(mutations),
		cmocka_unit_test(header_and_then_nothing),
		cmocka_unit_test(stalled_call_times_out),
		cmocka_unit_test(server_that_cannot_pipeline),
		cmocka_unit_test(connections_break),
		cmocka_unit_test(nobody_there),
		cmocka_unit_test(close_that_cannot_be_said),
		cmocka_unit_test(full_stream_loses_nothing),
		cmocka_unit_test(rate_is_respected),
		cmocka_unit_test(configuration_that_cannot_be),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names, for debugging */
	return cmocka_run_group_tests(tests, setup, teardown);
}
