/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "source_rig.h"

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

/* Answer 7 ends early the first time: the 12 bytes that it lacks would be the
 * beginning of the next, eight of them in place of key. */
static act
cut_short(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	if (q->op != QG_ETSI004_GET_KEY || q->index != 7 || f->state++ != 0)
		return ANSWER;
	qg_writer w = qg_writer_of(f->raw, sizeof f->raw);
	if (f->profile->put_response(f->profile, a, &w) != QG_OK)
		abort();
	f->raw_len = w.len - 12;
	return ANSWER_RAW;
}

static void
answer_cut_short(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++) {
		prepare(d, cut_short, 40);
		run_to_target();
		assert_true(intake.failed >= 1);
		assert_int_equal(intake.wrong, 0);
		assert_int_equal(atomic_load(&server.asked[6]), 1);
		assert_int_equal(atomic_load(&server.asked[7]), 2);
		finish();
	}
}

/* What a behaviour with random answers keeps; the server's thread only. */
static struct {
	unsigned x;
	bool cut; /* the last answer was cut short */
} mutator;

static unsigned
mutator_next(void)
{
	mutator.x = mutator.x * 1664525u + 1013904223u;
	return mutator.x;
}

static act
mutated(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	if (f->state == 0)
		return ANSWER;
	qg_writer w = qg_writer_of(f->raw, sizeof f->raw);
	if (f->profile->put_response(f->profile, a, &w) != QG_OK)
		abort();
	f->raw_len = w.len;
	for (unsigned k = 0; q->op == QG_ETSI004_GET_KEY && k < 3; k++) {
		/* The key's bytes are left alone: a wrong key is for others to find. */
		size_t at = (mutator_next() >> 8) % f->raw_len;
		if (at < 20 || at >= 52)
			f->raw[at] = (uint8_t)(mutator.x >> 24);
	}
	/* Two answers that are cut can add up to one whole with another key, and
	 * what follows is in order: that is a wrong key, too. */
	mutator.cut = mutator_next() >> 29 == 0 && !mutator.cut;
	if (mutator.cut)
		f->raw_len = (mutator.x >> 4) % f->raw_len;
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
mutations_of(unsigned seed, size_t dialect)
{
	prepare(dialect, mutated, 300);
	intake.cfg.source.timeout_ms = 0;
	mutator.x = seed;
	mutator.cut = false;
	server.state = 1;
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

/* No byte of another message is ever taken for key. */
static void
mutations(void **state)
{
	(void)state;
	unsigned seed = test_seed();
	for (size_t d = 0; d < 2; d++)
		mutations_of(seed, d);
}

/* The seed with which a cut answer once was filled up with the next. */
static void
mutations_22821713(void **state)
{
	(void)state;
	for (size_t d = 0; d < 2; d++)
		mutations_of(22821713, d);
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
	assert_int_equal(intake.failed_err, QG_E_TIMEOUT);
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(wrong_answers),
		CASE(server_with_an_index_of_its_own),
		CASE(answer_cut_short),
		CASE(mutations),
		CASE(mutations_22821713),
		CASE(header_and_then_nothing),
		CASE(stalled_call_times_out),
		CASE(server_that_cannot_pipeline),
		CASE(connections_break),
		CASE(nobody_there),
		CASE(close_that_cannot_be_said),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names, for debugging */
	return cmocka_run_group_tests(tests, setup, teardown);
}
