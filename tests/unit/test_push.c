/* SPDX-License-Identifier: Apache-2.0 */
/* Key that comes unasked: over the session's connection, and into an inbox. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "../../src/south/south_internal.h"
#include "source_rig.h"

#define BURST 12u /* messages that the module sends after a GET_KEY */

/* --- over the connection ------------------------------------------------------------ */

/* One message of the module; the index and the key may be wrong. */
static void
push_message(fake *f, qg_writer *w, uint32_t index, size_t key_len, uint32_t status)
{
	uint8_t key[32];
	key_of(index, key);
	const qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY, .status = status, .index = index,
				       .key = status == 0 ? key : NULL, .key_len = status == 0 ? key_len : 0,
				       .qos.mimetype = ""};
	assert_int_equal(f->profile->put_response(f->profile, &a, w), QG_OK);
}

typedef enum fault { NONE, HOLE, FALL_BACK, SIZE, STATUS_4, STATUS_6, GARBAGE, HALF } fault;
static fault the_fault; /* shows once, in the first burst, after 5 chunks */

static void
push_faulty(fake *f, qg_writer *w, uint32_t index)
{
	switch (the_fault) {
	case HOLE:
		break;
	case FALL_BACK:
		push_message(f, w, index - 2, 32, 0);
		break;
	case SIZE:
		push_message(f, w, index, 31, 0);
		break;
	case STATUS_4:
	case STATUS_6:
		push_message(f, w, index, 0, the_fault == STATUS_4 ? 4 : 6);
		break;
	case GARBAGE:
		qg_put_bytes(w, "{]{\"status\":0}", 14);
		break;
	default:
		qg_put_bytes(w, "{\"status\":0,\"index\":5,\"key_buf", 30);
		break;
	}
}

/* A GET_KEY is answered by a burst; asked again it begins there. */
static act
burst(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	(void)a;
	if (q->op != QG_ETSI004_GET_KEY)
		return ANSWER;
	qg_writer w = qg_writer_of(f->raw, sizeof f->raw);
	bool wrong = the_fault != NONE && atomic_fetch_add(&f->state, 1) == 0;
	for (uint32_t i = 0; i < BURST; i++) {
		if (wrong && i == 5)
			push_faulty(f, &w, q->index + i);
		if (!(wrong && i == 5) || the_fault == FALL_BACK)
			push_message(f, &w, q->index + i, 32, 0);
		if (wrong && i == 5 && the_fault == HALF)
			break;
	}
	f->raw_len = w.len;
	return ANSWER_RAW;
}

static const struct {
	qg_source_profile configured;
	const qg_etsi004_profile *profile;
} pushing[] = {
	{QG_PROFILE_JSON, &qg_etsi004_json},
	{QG_PROFILE_JSON_NETXPTO, &qg_etsi004_json_netxpto},
};

static void
start_pushed(size_t which, fault wrong, uint32_t target)
{
	the_fault = wrong;
	fake_start(&server, pushing[which].profile, burst);
	intake_init(&intake, pushing[which].configured, server.port);
	intake.cfg.source.mode = QG_MODE_PUSH;
	intake.cfg.source.timeout_ms = 300; /* silence is taken for so long and two seconds */
	intake.target = target;
	go();
}

static void
more(uint32_t target)
{
	pthread_mutex_lock(&intake.lock);
	intake.target = target;
	pthread_mutex_unlock(&intake.lock);
}

static void
keys_are_right(uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		uint8_t key[32];
		key_of(i, key);
		assert_memory_equal(intake.keys[i], key, 32);
	}
}

/* Chunks that are not wanted yet wait in the connection: one GET_KEY for all. */
static void
pushed_in_order_and_held_back(void **state)
{
	(void)state;
	for (size_t which = 0; which < 2; which++) {
		start_pushed(which, NONE, 5);
		EVENTUALLY(PEEK(&intake, next) == 5);
		poll(NULL, 0, 50); /* the session finds nothing to do meanwhile */
		more(BURST);
		EVENTUALLY(PEEK(&intake, next) == BURST);
		assert_int_equal(atomic_load(&server.gets), 1);
		assert_int_equal(intake.wrong, 0);
		assert_int_equal(intake.failed, 0);
		keys_are_right(BURST);
		if (which > 0) {
			finish();
			continue;
		}
		/* After silence it asks from where it stands. */
		more(BURST + 3);
		EVENTUALLY(PEEK(&intake, next) == BURST + 3);
		assert_int_equal(atomic_load(&server.gets), 2);
		keys_are_right(BURST + 3);
		finish();
	}
}

static void
each_fault_is_reported_once_and_the_stream_goes_on(void **state)
{
	(void)state;
	static const fault faults[] = {HOLE, FALL_BACK, SIZE, STATUS_6, GARBAGE, HALF};
	for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) {
		start_pushed(i % 2, faults[i], BURST);
		EVENTUALLY(PEEK(&intake, next) == BURST);
		assert_int_equal(atomic_load(&server.gets), 2);
		keys_are_right(BURST);
		if (faults[i] == HOLE)
			assert_int_equal(intake.wrong_index, 6);
		if (faults[i] == FALL_BACK)
			assert_int_equal(intake.wrong_index, 3);
		if (faults[i] == SIZE || faults[i] == GARBAGE)
			assert_int_equal(intake.failed_err, QG_E_PROTO);
		if (faults[i] == STATUS_6 || faults[i] == HALF)
			assert_int_equal(intake.failed_status, QG_ETSI004_TIMEOUT);
		finish();
	}
}

static void
a_stream_that_is_lost_is_opened_again(void **state)
{
	(void)state;
	the_fault = STATUS_4;
	start_pushed(0, STATUS_4, BURST);
	pthread_mutex_lock(&intake.lock);
	intake.reopen = true;
	pthread_mutex_unlock(&intake.lock);
	EVENTUALLY(PEEK(&intake, failed) >= 1);
	assert_int_equal(intake.failed_status, QG_ETSI004_NO_CONNECTION);
	EVENTUALLY(PEEK(&intake, next) == BURST);
	keys_are_right(BURST);
	finish();
}

static void
closed_over_another_connection(void **state)
{
	(void)state;
	start_pushed(1, NONE, 5);
	EVENTUALLY(PEEK(&intake, next) == 5);
	pthread_mutex_lock(&intake.lock);
	intake.want_close = true;
	pthread_mutex_unlock(&intake.lock);
	EVENTUALLY(PEEK(&intake, closed) == 1);
	assert_int_equal(intake.closed_err, QG_OK);
	assert_int_equal(atomic_load(&server.closes), 1);
	finish();
}

/* --- into an inbox -------------------------------------------------------------------- */

/* HTTP's answer to GET_KEY has no key. */
static act
without_key(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	(void)f;
	if (q->op == QG_ETSI004_GET_KEY) {
		a->key = NULL;
		a->key_len = 0;
	}
	return ANSWER;
}

static void
start_inbox(uint32_t target)
{
	fake_start(&server, &qg_etsi004_http_push, without_key);
	intake_init(&intake, QG_PROFILE_HTTP_PUSH, server.port);
	intake.cfg.source.timeout_ms = 300;
	intake.target = target;
	go();
	EVENTUALLY(PEEK(&intake, opened) == 1);
	if (target > 0)
		EVENTUALLY(atomic_load(&server.gets) >= 1);
}

static qg_err
put(uint32_t index)
{
	uint8_t key[32];
	key_of(index, key);
	return qg_inbox_put(source, &server.ksid, index, key, 32);
}

static void
inbox_in_any_order(void **state)
{
	(void)state;
	start_inbox(100);
	for (uint32_t i = 0; i < 100; i += 2) {
		assert_int_equal(put(i + 1), QG_OK);
		assert_int_equal(put(i), QG_OK);
		assert_int_equal(put(i), QG_OK); /* again: its answer was lost */
	}
	EVENTUALLY(PEEK(&intake, next) == 100);
	assert_int_equal(intake.wrong, 0);
	keys_are_right(100);
	assert_int_equal(atomic_load(&server.gets), 1);
	finish();
}

static void
inbox_is_bounded(void **state)
{
	(void)state;
	start_inbox(3);
	for (uint32_t i = 0; i < 3; i++)
		assert_int_equal(put(i), QG_OK);
	EVENTUALLY(PEEK(&intake, next) == 3);
	for (uint32_t i = 3; i < 3 + QG_INBOX_CHUNKS; i++)
		assert_int_equal(put(i), QG_OK);
	assert_int_equal(put(3 + QG_INBOX_CHUNKS), QG_E_FULL);
	assert_int_equal(put(UINT32_MAX), QG_E_FULL);
	/* As the stream takes some there is room again, and nothing is missing. */
	more(10);
	EVENTUALLY(PEEK(&intake, next) == 10);
	assert_int_equal(put(3 + QG_INBOX_CHUNKS), QG_OK);
	more(4 + QG_INBOX_CHUNKS);
	EVENTUALLY(PEEK(&intake, next) == 4 + QG_INBOX_CHUNKS);
	keys_are_right(4 + QG_INBOX_CHUNKS);
	assert_int_equal(intake.wrong, 0);
	finish();
}

static void
inbox_refuses(void **state)
{
	(void)state;
	uint8_t key[33];
	const qg_uuid other = {{1}};
	start_inbox(1);
	key_of(7, key);
	assert_int_equal(qg_inbox_put(source, &other, 7, key, 32), QG_E_NOTFOUND);
	assert_int_equal(qg_inbox_put(source, &server.ksid, 7, key, 31), QG_E_RANGE);
	assert_int_equal(qg_inbox_put(source, &server.ksid, 7, key, 33), QG_E_RANGE);
	assert_int_equal(qg_inbox_put(source, &server.ksid, 7, key, 32), QG_OK);
	key[0] ^= 1; /* no index ever has a second value */
	assert_int_equal(qg_inbox_put(source, &server.ksid, 7, key, 32), QG_E_MISMATCH);
	assert_false(qg_inbox_is(source, &other));
	assert_true(qg_inbox_is(source, &server.ksid));
	for (uint32_t i = 0; i < 7; i++)
		assert_int_equal(put(i), QG_OK);
	more(8);
	EVENTUALLY(PEEK(&intake, next) == 8);
	keys_are_right(8);
	/* Once closed nothing is taken. */
	pthread_mutex_lock(&intake.lock);
	intake.want_close = true;
	pthread_mutex_unlock(&intake.lock);
	EVENTUALLY(PEEK(&intake, closed) == 1);
	assert_int_equal(put(8), QG_E_NOTFOUND);
	finish();
}

/* What the module dropped is reported as a hole, at the next index that it has,
 * whether that is in the window or far beyond. */
static void
inbox_holes(void **state)
{
	(void)state;
	static const uint32_t next_one[] = {9, QG_INBOX_CHUNKS * 5};
	for (size_t i = 0; i < 2; i++) {
		start_inbox(10);
		intake.stop_at_wrong = true;
		for (uint32_t k = 0; k < 4; k++)
			assert_int_equal(put(k), QG_OK);
		EVENTUALLY(put(next_one[i]) == QG_OK);
		EVENTUALLY(PEEK(&intake, wrong) == 1);
		assert_int_equal(intake.wrong_index, next_one[i]);
		assert_int_equal(intake.next, 4);
		finish();
	}
}

static void
inbox_that_falls_back(void **state)
{
	(void)state;
	start_inbox(QG_INBOX_CHUNKS + 20);
	intake.stop_at_wrong = true;
	for (uint32_t i = 0; i < QG_INBOX_CHUNKS + 10; i++)
		EVENTUALLY(put(i) == QG_OK);
	EVENTUALLY(PEEK(&intake, next) == QG_INBOX_CHUNKS + 10);
	assert_int_equal(put(QG_INBOX_CHUNKS), QG_OK); /* once more */
	assert_int_equal(put(3), QG_E_EXPIRED);
	EVENTUALLY(PEEK(&intake, wrong) == 1);
	assert_int_equal(intake.wrong_index, 3);
	finish();
}

static void
inbox_asks_again_after_silence(void **state)
{
	(void)state;
	start_inbox(2);
	assert_int_equal(put(0), QG_OK);
	EVENTUALLY(atomic_load(&server.gets) >= 2);
	assert_int_equal(intake.failed_status, QG_ETSI004_TIMEOUT);
	assert_int_equal(put(1), QG_OK);
	EVENTUALLY(PEEK(&intake, next) == 2);
	keys_are_right(2);
	finish();
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(pushed_in_order_and_held_back),
		CASE(each_fault_is_reported_once_and_the_stream_goes_on),
		CASE(a_stream_that_is_lost_is_opened_again),
		CASE(closed_over_another_connection),
		CASE(inbox_in_any_order),
		CASE(inbox_is_bounded),
		CASE(inbox_refuses),
		CASE(inbox_holes),
		CASE(inbox_that_falls_back),
		CASE(inbox_asks_again_after_silence),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
