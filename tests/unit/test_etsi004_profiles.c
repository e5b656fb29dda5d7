/* SPDX-License-Identifier: Apache-2.0 */
/* Every profile as client against server, over the same requests and answers,
 * in any cut of the bytes; and what is none of its messages. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/etsi004.h"
#include "seed.h"

#define ROOM (QG_ETSI004_FRAME_MAX + 4096)
#define EACH_PROFILE(p) \
	for (size_t i_ = 0; qg_etsi004_profile_at(i_) != NULL; i_++) \
		for (const qg_etsi004_profile *p = qg_etsi004_profile_at(i_), *once_ = p; once_ != NULL; once_ = NULL)

static const qg_uuid ksid = {{0x8c, 0x5f, 0xec, 0xc3, 0xd4, 0x80, 0x48, 0xcb, 0xa5, 0xd8, 0x12, 0x3e, 0x5e, 0x8f,
			      0x26, 0x70}};
static const qg_etsi004_qos qos = {.chunk_size = 32,   .max_bps = 40000, .min_bps = 5000, .jitter_bps = 10,
				   .priority = 3,      .timeout_ms = 5000, .ttl_s = 3600,
				   .mimetype = "application/json"};
static const uint8_t ask[] = {'h', 'i'};

static const qg_etsi004_request requests[] = {
	{.op = QG_ETSI004_OPEN_CONNECT, .source = "qkd://a@n1", .destination = "qkd://b@n2", .qos = qos},
	{.op = QG_ETSI004_OPEN_CONNECT, .source = "qkd://a@n1", .destination = "qkd://b@n2", .qos = qos,
	 .ksid = ksid},
	{.op = QG_ETSI004_OPEN_CONNECT, .source = "", .destination = "\xc3\xa4\"\\/", .qos.mimetype = ""},
	{.op = QG_ETSI004_GET_KEY, .ksid = ksid, .index = 4711, .metadata_max = 77, .metadata = ask,
	 .metadata_len = 2, .source = "", .destination = "", .qos.mimetype = ""},
	{.op = QG_ETSI004_GET_KEY, .ksid = ksid, .index = UINT32_MAX, .metadata_max = 77, .source = "",
	 .destination = "", .qos.mimetype = ""},
	{.op = QG_ETSI004_CLOSE, .ksid = ksid, .source = "", .destination = "", .qos.mimetype = ""},
};
#define REQUESTS (sizeof requests / sizeof *requests)

static uint8_t out[ROOM], in[ROOM];

static void
same_qos(const qg_etsi004_qos *a, const qg_etsi004_qos *b)
{
	assert_int_equal(a->chunk_size, b->chunk_size);
	assert_int_equal(a->max_bps, b->max_bps);
	assert_int_equal(a->min_bps, b->min_bps);
	assert_int_equal(a->jitter_bps, b->jitter_bps);
	assert_int_equal(a->priority, b->priority);
	assert_int_equal(a->timeout_ms, b->timeout_ms);
	assert_int_equal(a->ttl_s, b->ttl_s);
	assert_string_equal(a->mimetype, b->mimetype);
}

static void
same_request(const qg_etsi004_request *a, const qg_etsi004_request *b)
{
	assert_int_equal(a->op, b->op);
	assert_true(qg_uuid_equal(&a->ksid, &b->ksid));
	assert_string_equal(a->source, b->source);
	assert_string_equal(a->destination, b->destination);
	same_qos(&a->qos, &b->qos);
	assert_int_equal(a->index, b->index);
	assert_false(b->in_sequence);
}

static size_t
put(const qg_etsi004_profile *p, size_t i, uint8_t *to)
{
	qg_etsi004_request q = requests[i];
	qg_writer w = qg_writer_of(to, ROOM);
	q.authority = "module:8443";
	assert_int_equal(p->put_request(p, &q, &w), QG_OK);
	return w.len;
}

/* The server tells the profile from the first request; the others follow. */
static void
requests_round_trip(void **state)
{
	(void)state;
	EACH_PROFILE(p)
		for (size_t i = 0; i < REQUESTS; i++) {
			const qg_etsi004_profile *seen = p;
			qg_etsi004_request q;
			size_t used = 0, n = put(p, i, in);
			assert_int_equal(qg_etsi004_next_request(&seen, in, n, &q, &used), QG_OK);
			assert_int_equal(used, n);
			same_request(&requests[i], &q);
			if (requests[i].op == QG_ETSI004_OPEN_CONNECT) {
				seen = NULL;
				n = put(p, i, in);
				assert_int_equal(qg_etsi004_next_request(&seen, in, n, &q, &used), QG_OK);
				assert_ptr_equal(seen, p);
				same_request(&requests[i], &q);
			}
		}
}

/* All requests merged, arriving byte by byte. */
static void
split_and_merged(void **state)
{
	(void)state;
	EACH_PROFILE(p)
	{
		const qg_etsi004_profile *seen = NULL;
		size_t n = 0, have = 0, got = 0;
		for (size_t i = 0; i < REQUESTS; i++)
			n += put(p, i, out + n);
		for (size_t i = 0; i < n; i++) {
			qg_etsi004_request q;
			size_t used = 0;
			in[have++] = out[i];
			qg_err err = qg_etsi004_next_request(&seen, in, have, &q, &used);
			if (err == QG_E_AGAIN)
				continue;
			assert_int_equal(err, QG_OK);
			assert_int_equal(used, have); /* never before its last byte */
			same_request(&requests[got++], &q);
			have = 0;
		}
		assert_int_equal(got, REQUESTS);
		assert_int_equal(have, 0);
		assert_ptr_equal(seen, p);
		/* The same in one read. */
		size_t at = 0;
		for (got = 0; got < REQUESTS; got++) {
			qg_etsi004_request q;
			size_t used = 0;
			assert_int_equal(qg_etsi004_next_request(&seen, out + at, n - at, &q, &used), QG_OK);
			same_request(&requests[got], &q);
			at += used;
		}
		assert_int_equal(at, n);
	}
}

static qg_err
answer(const qg_etsi004_profile *p, const qg_etsi004_response *a, uint32_t chunk_size, qg_etsi004_response *got)
{
	const qg_etsi004_due due = {.op = a->op, .chunk_size = chunk_size};
	qg_writer w = qg_writer_of(out, ROOM);
	size_t total = 0;
	qg_err err = p->put_response(p, a, &w);
	if (err != QG_OK)
		return err;
	for (size_t n = 0; n < w.len; n += 1 + n / 64) { /* every length of what is short */
		err = p->frame(p, out, n, &total);
		assert_true(err == QG_E_AGAIN || (err == QG_OK && total == w.len));
	}
	assert_int_equal(p->frame(p, out, w.len, &total), QG_OK);
	assert_int_equal(total, w.len);
	return p->get_response(p, &due, out, total, got);
}

static void
answers_round_trip(void **state)
{
	(void)state;
	static uint8_t key[QG_ETSI004_KEY_MAX];
	static const size_t sizes[] = {1, 8, 32, 33, 1024, QG_ETSI004_KEY_MAX};
	const uint8_t metadata[] = "{\"age\": 3, \"hops\": 0}";
	for (size_t i = 0; i < sizeof key; i++)
		key[i] = (uint8_t)(i * 7 + (i >> 8));
	EACH_PROFILE(p)
	{
		qg_etsi004_response got;
		if ((p->modes & QG_ETSI004_PULL) == 0)
			continue;
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			const qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY, .index = 4711, .key = key,
						       .key_len = sizes[i], .metadata = metadata,
						       .metadata_len = sizeof metadata - 1, .qos.mimetype = ""};
			assert_int_equal(answer(p, &a, (uint32_t)sizes[i], &got), QG_OK);
			assert_int_equal(got.op, QG_ETSI004_GET_KEY);
			assert_int_equal(got.status, 0);
			assert_int_equal(got.index, 4711);
			assert_int_equal(got.key_len, sizes[i]);
			assert_memory_equal(got.key, key, sizes[i]);
			assert_int_equal(got.metadata_len, sizeof metadata - 1);
			assert_memory_equal(got.metadata, metadata, sizeof metadata - 1);
		}
	}
}

static void
statuses_round_trip(void **state)
{
	(void)state;
	EACH_PROFILE(p)
		for (uint32_t status = 0; status <= QG_ETSI004_METADATA_SIZE; status++) {
			qg_etsi004_response got;
			const qg_etsi004_response opened = {.op = QG_ETSI004_OPEN_CONNECT, .status = status,
							    .has_qos = true, .ksid = ksid, .qos = qos};
			assert_int_equal(answer(p, &opened, 32, &got), QG_OK);
			/* HTTP says only that it worked, in its status. */
			assert_int_equal(got.status, status);
			if (status <= 1 || status == QG_ETSI004_QOS) {
				assert_true(got.has_qos);
				same_qos(&qos, &got.qos);
				assert_true(qg_uuid_equal(&ksid, &got.ksid));
			}
			const qg_etsi004_response closed = {.op = QG_ETSI004_CLOSE, .status = status,
							    .qos.mimetype = ""};
			assert_int_equal(answer(p, &closed, 32, &got), QG_OK);
			assert_int_equal(got.status, p->push != NULL && status == 1 ? 0 : status);
			const qg_etsi004_response none = {.op = QG_ETSI004_GET_KEY, .status = status,
							  .metadata_needed = 99, .qos.mimetype = ""};
			if (status < 2)
				continue;
			assert_int_equal(answer(p, &none, 32, &got), QG_OK);
			assert_int_equal(got.status, status);
			assert_int_equal(got.key_len, 0);
			if (p->push == NULL)
				assert_int_equal(got.metadata_needed, status == 8 ? 99 : 0);
		}
}

/* What is said before the connection is closed can be read, and is no success. */
static void
errors_are_readable(void **state)
{
	(void)state;
	EACH_PROFILE(p)
	{
		const qg_etsi004_due due = {.op = QG_ETSI004_GET_KEY, .chunk_size = 32};
		qg_etsi004_response a;
		size_t total = 0;
		qg_writer w = qg_writer_of(out, ROOM);
		assert_int_equal(qg_etsi004_put_error(p, &w), QG_OK);
		assert_int_equal(p->frame(p, out, w.len, &total), QG_OK);
		assert_int_equal(total, w.len);
		assert_int_equal(p->get_response(p, &due, out, w.len, &a), QG_OK);
		assert_int_equal(a.status, QG_ETSI004_NO_CONNECTION);
		/* One that does not fit leaves nothing behind. */
		for (size_t room = 0; room < w.len; room++) {
			qg_writer small = qg_writer_of(in, room);
			assert_int_equal(qg_etsi004_put_error(p, &small), QG_E_RANGE);
			assert_int_equal(small.len, 0);
		}
	}
}

static void
names(void **state)
{
	(void)state;
	size_t n = 0;
	EACH_PROFILE(p)
	{
		assert_ptr_equal(qg_etsi004_profile_named(p->name), p);
		n++;
	}
	assert_int_equal(n, 5);
	assert_null(qg_etsi004_profile_named("bin"));
	assert_null(qg_etsi004_profile_at(n));
}

/* --- hostile input ---------------------------------------------------------------- */

static void
garbage_belongs_to_none(void **state)
{
	(void)state;
	qg_etsi004_request q;
	size_t used = 0;
	for (unsigned first = 0; first < 256; first++) {
		const qg_etsi004_profile *p = NULL;
		memset(in, (int)first, 64);
		qg_err err = qg_etsi004_next_request(&p, in, 64, &q, &used);
		bool some = first == 1 || first == 2 || first == '{' || first == 'G' || first == 'P';
		assert_true(some ? err != QG_OK : err == QG_E_PARSE);
	}
	/* A TLS ClientHello where plain text is due. */
	const qg_etsi004_profile *p = NULL;
	uint8_t hello[] = {0x16, 0x03, 0x01, 0x02, 0x00, 0x01};
	assert_int_equal(qg_etsi004_next_request(&p, hello, sizeof hello, &q, &used), QG_E_PARSE);
}

/* No profile makes its reader keep more than it says. */
static void
oversized(void **state)
{
	(void)state;
	static const char *const begins[] = {"{\"command\":\"CLOSE\",\"x\":\"", "GET /", "POST /x HTTP/1.1\r\nA: "};
	qg_etsi004_request q;
	size_t used = 0;
	for (size_t i = 0; i < 3; i++) {
		const qg_etsi004_profile *p = NULL;
		memset(in, 'a', ROOM);
		memcpy(in, begins[i], strlen(begins[i]));
		qg_err err = qg_etsi004_next_request(&p, in, 16384, &q, &used);
		assert_int_equal(err, QG_E_RANGE);
		assert_non_null(p == NULL ? NULL : p->name);
	}
	const uint8_t large[] = {1, 0, 1, 4, 0, 0x0f, 0, 0};
	const qg_etsi004_profile *p = NULL;
	memcpy(in, large, sizeof large);
	assert_int_equal(qg_etsi004_next_request(&p, in, sizeof large, &q, &used), QG_E_RANGE);
	EACH_PROFILE(each)
		assert_true(each->request_max <= (size_t)QG_ETSI004_METADATA_MAX + 8192);
}

static unsigned
next_random(unsigned *x)
{
	*x = *x * 1664525u + 1013904223u;
	return *x >> 8;
}

/* Changed bytes in a block that ends with them: read to the end, never beyond. */
static void
mutations(void **state)
{
	(void)state;
	unsigned x = test_seed(), accepted = 0;
	for (unsigned round = 0; round < 40000; round++) {
		const qg_etsi004_profile *p = qg_etsi004_profile_at(round % 5), *seen = NULL;
		size_t n = put(p, round / 5 % REQUESTS, in), used = 0, total = 0;
		const qg_etsi004_due due = {.op = (qg_etsi004_op)(round % 3), .chunk_size = 32};
		if (next_random(&x) % 4 == 0)
			n = next_random(&x) % n + 1;
		uint8_t *block = malloc(n);
		assert_non_null(block);
		memcpy(block, in, n);
		for (unsigned k = 0; k < 1 + round % 3; k++)
			block[next_random(&x) % n] = (uint8_t)next_random(&x);
		qg_etsi004_request q = {.index = 99};
		qg_etsi004_response a = {.index = 99};
		qg_err err = qg_etsi004_next_request(&seen, block, n, &q, &used);
		if (err == QG_OK) {
			assert_true(used > 0 && used <= n);
			assert_true(strlen(q.source) + strlen(q.destination) + strlen(q.qos.mimetype) < n);
			accepted++;
		} else {
			assert_int_equal(q.index, 99);
		}
		(void)p->frame(p, block, n, &total);
		if (p->get_response(p, &due, block, n, &a) != QG_OK)
			assert_int_equal(a.index, 99);
		free(block);
	}
	assert_true(accepted > 100);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(requests_round_trip), cmocka_unit_test(split_and_merged),
		cmocka_unit_test(answers_round_trip),  cmocka_unit_test(statuses_round_trip),
		cmocka_unit_test(errors_are_readable), cmocka_unit_test(names),
		cmocka_unit_test(garbage_belongs_to_none), cmocka_unit_test(oversized),
		cmocka_unit_test(mutations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
