/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/encode.h"
#include "qkdgate/etsi004.h"

/* Captures of both dialects, as written by the software that speaks them. Keys
 * and KSIDs are throw-away values of the capture. */
#include "etsi004_captures.h"
#include "seed.h"

#define A (&qg_etsi004_bin_a)
#define B (&qg_etsi004_bin_b)
#define DUE (&(qg_etsi004_due){.op = QG_ETSI004_GET_KEY}) /* bin does not need it */
#define COUNT(a) (sizeof(a) / sizeof(a)[0])

typedef struct frame {
	uint8_t b[65536 * 2 + 1024];
	size_t n;
} frame;

static void
from_hex(const char *text, frame *f)
{
	char digits[sizeof f->b * 2];
	size_t n = 0;
	for (; *text != '\0'; text++)
		if (*text != ' ')
			digits[n++] = *text;
	f->n = n / 2;
	assert_int_equal(qg_hex_decode(digits, n, f->b, f->n), QG_OK);
}

static qg_uuid
uuid_of(const char *text)
{
	qg_uuid u;
	assert_int_equal(qg_uuid_parse(text, strlen(text), &u), QG_OK);
	return u;
}

static qg_err
put_request(const qg_etsi004_profile *p, const qg_etsi004_request *q, frame *f)
{
	qg_writer w = qg_writer_of(f->b, sizeof f->b);
	qg_err err = p->put_request(p, q, &w);
	f->n = w.len;
	return err;
}

static qg_err
put_response(const qg_etsi004_profile *p, const qg_etsi004_response *a, frame *f)
{
	qg_writer w = qg_writer_of(f->b, sizeof f->b);
	qg_err err = p->put_response(p, a, &w);
	f->n = w.len;
	return err;
}

/* --- the captures, both ways --------------------------------------------------- */

static void
request_is(const qg_etsi004_profile *p, const char *capture, const qg_etsi004_request *want)
{
	static frame wire, own;
	qg_etsi004_request got;
	const qg_etsi004_profile *seen = NULL;
	from_hex(capture, &wire);
	assert_int_equal(qg_etsi004_bin_detect(wire.b, wire.n, &seen), QG_OK);
	assert_ptr_equal(seen, p);
	assert_int_equal(p->get_request(p, wire.b, wire.n, &got), QG_OK);
	assert_int_equal(got.op, want->op);
	assert_true(qg_uuid_equal(&got.ksid, &want->ksid));
	assert_string_equal(got.source, want->source);
	assert_string_equal(got.destination, want->destination);
	assert_string_equal(got.qos.mimetype, want->qos.mimetype);
	assert_int_equal(got.qos.chunk_size, want->qos.chunk_size);
	assert_int_equal(got.index, want->index);
	assert_int_equal(put_request(p, want, &own), QG_OK);
	assert_int_equal(own.n, wire.n);
	assert_memory_equal(own.b, wire.b, wire.n);
	/* What was decoded encodes to the same bytes. */
	assert_int_equal(put_request(p, &got, &own), QG_OK);
	assert_int_equal(own.n, wire.n);
	assert_memory_equal(own.b, wire.b, wire.n);
}

static void
response_is(const qg_etsi004_profile *p, const char *capture, const qg_etsi004_response *want)
{
	static frame wire, own;
	qg_etsi004_response got;
	from_hex(capture, &wire);
	assert_int_equal(p->get_response(p, DUE, wire.b, wire.n, &got), QG_OK);
	assert_int_equal(got.op, want->op);
	assert_int_equal(got.status, want->status);
	assert_int_equal(got.has_qos, want->has_qos);
	assert_true(qg_uuid_equal(&got.ksid, &want->ksid));
	assert_string_equal(got.qos.mimetype, want->qos.mimetype);
	assert_int_equal(got.index, want->index);
	assert_int_equal(got.key_len, want->key_len);
	assert_int_equal(got.metadata_len, want->metadata_len);
	assert_int_equal(put_response(p, want, &own), QG_OK);
	assert_int_equal(own.n, wire.n);
	assert_memory_equal(own.b, wire.b, wire.n);
	assert_int_equal(put_response(p, &got, &own), QG_OK);
	assert_int_equal(own.n, wire.n);
	assert_memory_equal(own.b, wire.b, wire.n);
}

static void
capture_a(void **state)
{
	(void)state;
	static const uint8_t ask[] = {0x00, 0x10};
	const qg_uuid ksid = uuid_of(CAPTURE_A_KSID);
	const qg_etsi004_qos qos = {.chunk_size = 32, .max_bps = 32, .min_bps = 32,
				    .mimetype = "application/json"};
	uint8_t key[32];
	assert_int_equal(qg_hex_decode(CAPTURE_A_KEY, 64, key, 32), QG_OK);
	request_is(A, CAPTURE_A_OPEN,
		   &(qg_etsi004_request){.op = QG_ETSI004_OPEN_CONNECT, .source = "qkd://a@n1",
					 .destination = "qkd://b@n2", .qos = qos});
	response_is(A, CAPTURE_A_OPEN_ANSWER,
		    &(qg_etsi004_response){.op = QG_ETSI004_OPEN_CONNECT, .has_qos = true, .ksid = ksid,
					   .qos = qos});
	request_is(A, CAPTURE_A_GET,
		   &(qg_etsi004_request){.op = QG_ETSI004_GET_KEY, .source = "", .destination = "",
					 .qos.mimetype = "", .ksid = ksid, .metadata = ask,
					 .metadata_len = 2});
	response_is(A, CAPTURE_A_GET_ANSWER,
		    &(qg_etsi004_response){.op = QG_ETSI004_GET_KEY, .qos.mimetype = "", .key = key,
					   .key_len = 32, .metadata = (const uint8_t *)CAPTURE_A_METADATA,
					   .metadata_len = sizeof CAPTURE_A_METADATA});
	request_is(A, CAPTURE_A_CLOSE,
		   &(qg_etsi004_request){.op = QG_ETSI004_CLOSE, .source = "", .destination = "",
					 .qos.mimetype = "", .ksid = ksid});
	response_is(A, CAPTURE_A_CLOSE_ANSWER,
		    &(qg_etsi004_response){.op = QG_ETSI004_CLOSE, .qos.mimetype = ""});
}

static void
capture_b(void **state)
{
	(void)state;
	const qg_uuid ksid = uuid_of(CAPTURE_B_KSID);
	const qg_etsi004_qos qos = {.chunk_size = 32,   .max_bps = 40000, .min_bps = 5000, .jitter_bps = 10,
				    .timeout_ms = 5000, .ttl_s = 3600,    .mimetype = "application/json"};
	uint8_t key[32];
	assert_int_equal(qg_hex_decode(CAPTURE_B_KEY, 64, key, 32), QG_OK);
	request_is(B, CAPTURE_B_OPEN,
		   &(qg_etsi004_request){.op = QG_ETSI004_OPEN_CONNECT, .source = "client://localhost",
					 .destination = "server://127.0.0.1", .qos = qos});
	response_is(B, CAPTURE_B_OPEN_ANSWER,
		    &(qg_etsi004_response){.op = QG_ETSI004_OPEN_CONNECT, .has_qos = true, .ksid = ksid,
					   .qos = qos});
	request_is(B, CAPTURE_B_GET,
		   &(qg_etsi004_request){.op = QG_ETSI004_GET_KEY, .source = "", .destination = "",
					 .qos.mimetype = "", .ksid = ksid, .metadata_max = 1024});
	response_is(B, CAPTURE_B_GET_ANSWER,
		    &(qg_etsi004_response){.op = QG_ETSI004_GET_KEY, .qos.mimetype = "", .key = key,
					   .key_len = 32, .metadata = (const uint8_t *)CAPTURE_B_METADATA,
					   .metadata_len = sizeof CAPTURE_B_METADATA - 1});
	request_is(B, CAPTURE_B_CLOSE,
		   &(qg_etsi004_request){.op = QG_ETSI004_CLOSE, .source = "", .destination = "",
					 .qos.mimetype = "", .ksid = ksid});
	response_is(B, CAPTURE_B_CLOSE_ANSWER,
		    &(qg_etsi004_response){.op = QG_ETSI004_CLOSE, .qos.mimetype = ""});
}

/* --- every status ---------------------------------------------------------------- */

static const qg_etsi004_profile *const both[] = {&qg_etsi004_bin_a, &qg_etsi004_bin_b};

static void
statuses_of_get_key(void **state)
{
	(void)state;
	static frame f;
	const uint8_t key[32] = {7};
	for (size_t d = 0; d < 2; d++) {
		for (uint32_t status = 0; status <= 9; status++) {
			qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY, .status = status, .index = 5,
						 .qos.mimetype = "", .metadata_needed = 77}, got;
			if (status == 0) {
				a.key = key;
				a.key_len = sizeof key;
			}
			assert_int_equal(put_response(both[d], &a, &f), QG_OK);
			if (d == 1 && status != 0)
				assert_int_equal(f.n, status == 8 ? 16 : 12);
			assert_int_equal(both[d]->get_response(both[d], DUE, f.b, f.n, &got), QG_OK);
			assert_int_equal(got.op, QG_ETSI004_GET_KEY);
			assert_int_equal(got.status, status);
			assert_int_equal(got.key_len, status == 0 ? 32 : 0);
			assert_int_equal(got.metadata_needed, status == 8 ? 77 : 0);
		}
	}
}

static void
statuses_of_open(void **state)
{
	(void)state;
	static frame f;
	const qg_uuid ksid = uuid_of(CAPTURE_B_KSID);
	for (size_t d = 0; d < 2; d++) {
		for (uint32_t status = 0; status <= 9; status++) {
			const qg_etsi004_response a = {.op = QG_ETSI004_OPEN_CONNECT, .status = status,
						       .has_qos = true, .ksid = ksid,
						       .qos = {.chunk_size = 16, .mimetype = "text/plain"}};
			qg_etsi004_response got;
			bool alone = d == 1 && status > 1 && status != 7;
			assert_int_equal(put_response(both[d], &a, &f), QG_OK);
			assert_int_equal(both[d]->get_response(both[d], DUE, f.b, f.n, &got), QG_OK);
			assert_int_equal(got.status, status);
			assert_int_equal(got.has_qos, !alone);
			assert_int_equal(f.n == 12, alone);
			if (!alone) {
				assert_true(qg_uuid_equal(&got.ksid, &ksid));
				assert_string_equal(got.qos.mimetype, "text/plain");
			}
		}
	}
}

static void
success_needs_its_structure(void **state)
{
	(void)state;
	static frame f;
	qg_etsi004_response got;
	for (size_t d = 0; d < 2; d++) {
		for (uint32_t status = 0; status <= 9; status++) {
			uint8_t open[] = {1, 0, 1, 3, 0, 0, 0, 4, 0, 0, 0, (uint8_t)status};
			uint8_t get[] = {1, 0, 1, 5, 0, 0, 0, 4, 0, 0, 0, (uint8_t)status};
			bool ok = status > 1 && status != 7;
			assert_int_equal(both[d]->get_response(both[d], DUE, open, sizeof open, &got),
					 ok ? QG_OK : QG_E_PARSE);
			assert_int_equal(both[d]->get_response(both[d], DUE, get, sizeof get, &got),
					 status != 0 ? QG_OK : QG_E_PARSE);
		}
		const qg_etsi004_response bare = {.op = QG_ETSI004_OPEN_CONNECT, .qos.mimetype = ""};
		assert_int_equal(put_response(both[d], &bare, &f), QG_E_INVAL);
	}
}

static void
error_message(void **state)
{
	(void)state;
	static frame f;
	const qg_etsi004_response a = {.op = QG_ETSI004_ERROR, .status = 4, .qos.mimetype = ""};
	qg_etsi004_response got;
	uint8_t empty[] = {1, 0, 1, 0, 0, 0, 0, 0};
	for (size_t d = 0; d < 2; d++) {
		assert_int_equal(put_response(both[d], &a, &f), QG_OK);
		assert_int_equal(f.n, 12);
		assert_int_equal(f.b[3], 0);
		assert_int_equal(both[d]->get_response(both[d], DUE, f.b, f.n, &got), QG_OK);
		assert_int_equal(got.op, QG_ETSI004_ERROR);
		assert_int_equal(got.status, 4);
		assert_int_equal(both[d]->get_response(both[d], DUE, empty, sizeof empty, &got), QG_E_PARSE);
	}
}

static void
status_table(void **state)
{
	(void)state;
	static const qg_etsi004_status_row renumbered[] = {{1, QG_ETSI004_SUCCESS}, {0, QG_ETSI004_NO_KEY}};
	qg_etsi004_profile p = qg_etsi004_bin_b;
	p.statuses = renumbered;
	p.n_statuses = 2;
	assert_int_equal(qg_etsi004_status_of_wire(&p, 1), QG_ETSI004_SUCCESS);
	assert_int_equal(qg_etsi004_status_of_wire(&p, 0), QG_ETSI004_NO_KEY);
	assert_int_equal(qg_etsi004_status_to_wire(&p, QG_ETSI004_NO_KEY), 0);
	assert_int_equal(qg_etsi004_status_of_wire(&p, 4711), 4711);
	for (uint32_t status = 0; status <= 8; status++)
		assert_int_equal(qg_etsi004_status_of_wire(A, qg_etsi004_status_to_wire(A, status)), status);
}

/* --- which dialect ------------------------------------------------------------------ */

static void
detects_by_length_then_version(void **state)
{
	(void)state;
	static frame f;
	const qg_etsi004_profile *got = NULL;
	char mime[256];
	memset(mime, 'x', 255);
	mime[255] = '\0';
	/* Both fit: a mimetype of 255 in A is as long as B's field. */
	qg_etsi004_request q = {.op = QG_ETSI004_OPEN_CONNECT, .source = "a", .destination = "b",
				.qos.mimetype = mime};
	for (size_t d = 0; d < 2; d++) {
		assert_int_equal(put_request(both[d], &q, &f), QG_OK);
		assert_int_equal(qg_etsi004_bin_detect(f.b, f.n, &got), QG_OK);
		assert_ptr_equal(got, both[d]);
	}
	/* The length speaks against the version: the length rules. */
	q.qos.mimetype = "application/json";
	for (size_t d = 0; d < 2; d++) {
		assert_int_equal(put_request(both[d], &q, &f), QG_OK);
		f.b[0] = d == 0 ? 1 : 2;
		f.b[1] = d == 0 ? 0 : 1;
		assert_int_equal(qg_etsi004_bin_detect(f.b, f.n, &got), QG_OK);
		assert_ptr_equal(got, both[d]);
	}
	/* GET_KEY of 24 bytes whose last word is 0 can be either's. */
	q = (qg_etsi004_request){.op = QG_ETSI004_GET_KEY, .source = "", .destination = "", .qos.mimetype = ""};
	for (size_t d = 0; d < 2; d++) {
		assert_int_equal(put_request(both[d], &q, &f), QG_OK);
		assert_int_equal(f.n, 32);
		assert_int_equal(qg_etsi004_bin_detect(f.b, f.n, &got), QG_OK);
		assert_ptr_equal(got, both[d]);
	}
	f.b[0] = 9; /* a version that is nobody's is not B's */
	assert_int_equal(qg_etsi004_bin_detect(f.b, f.n, &got), QG_OK);
	assert_ptr_equal(got, A);
	f.b[7]--; /* neither */
	assert_int_equal(qg_etsi004_bin_detect(f.b, f.n - 1, &got), QG_E_PARSE);
	assert_int_equal(qg_etsi004_bin_detect(f.b, 3, &got), QG_E_PARSE);
}

/* --- hostile input ------------------------------------------------------------------- */

static const struct {
	const char *hex;
	bool request;
	size_t dialect;
} captures[] = {
	{CAPTURE_A_OPEN, true, 0},         {CAPTURE_A_OPEN_ANSWER, false, 0}, {CAPTURE_A_GET, true, 0},
	{CAPTURE_A_GET_ANSWER, false, 0},  {CAPTURE_A_CLOSE, true, 0},        {CAPTURE_A_CLOSE_ANSWER, false, 0},
	{CAPTURE_B_OPEN, true, 1},         {CAPTURE_B_OPEN_ANSWER, false, 1}, {CAPTURE_B_GET, true, 1},
	{CAPTURE_B_GET_ANSWER, false, 1},  {CAPTURE_B_CLOSE, true, 1},        {CAPTURE_B_CLOSE_ANSWER, false, 1},
};

/* Decodes a copy that ends with the frame, so that a read beyond it is seen by
 * a sanitizer or valgrind. */
static qg_err
decode(const uint8_t *bytes, size_t n, bool request, size_t dialect)
{
	uint8_t *copy = malloc(n > 0 ? n : 1);
	assert_non_null(copy);
	memcpy(copy, bytes, n);
	const qg_etsi004_profile *p = both[dialect];
	qg_etsi004_request q = {.index = 4711};
	qg_etsi004_response a = {.index = 4711};
	qg_err err = request ? p->get_request(p, copy, n, &q) : p->get_response(p, DUE, copy, n, &a);
	if (err != QG_OK) /* outputs only on success */
		assert_int_equal(request ? q.index : a.index, 4711);
	else if (request)
		assert_true(strlen(q.source) + strlen(q.destination) + strlen(q.qos.mimetype) < n);
	else
		assert_true(a.key_len + a.metadata_len + strlen(a.qos.mimetype) <= n);
	free(copy);
	return err;
}

static void
set_length(frame *f)
{
	uint32_t n = (uint32_t)(f->n - 8);
	for (size_t i = 0; i < 4; i++)
		f->b[4 + i] = (uint8_t)(n >> (24 - 8 * i));
}

static void
truncated_at_every_length(void **state)
{
	(void)state;
	static frame f, cut;
	for (size_t i = 0; i < COUNT(captures); i++) {
		from_hex(captures[i].hex, &f);
		for (size_t n = 0; n < f.n; n++) {
			/* As it is, and with a header that owns up to it. */
			assert_int_equal(decode(f.b, n, captures[i].request, captures[i].dialect), QG_E_PARSE);
			if (n < 8)
				continue;
			cut = f;
			cut.n = n;
			set_length(&cut);
			qg_err err = decode(cut.b, n, captures[i].request, captures[i].dialect);
			assert_int_equal(err, QG_E_PARSE);
		}
		f.b[f.n++] = 0; /* and one too many */
		set_length(&f);
		assert_int_equal(decode(f.b, f.n, captures[i].request, captures[i].dialect), QG_E_PARSE);
	}
}

static void
frame_lengths(void **state)
{
	(void)state;
	uint8_t head[8] = {1, 0, 1, 5, 0, 0x0f, 0xff, 0xf8};
	size_t total = 1;
	for (size_t d = 0; d < 2; d++) {
		const qg_etsi004_profile *p = both[d];
		for (size_t n = 0; n < 8; n++)
			assert_int_equal(p->frame(p, head, n, &total), QG_E_AGAIN);
		head[5] = 0x0f;
		head[7] = 0xf8;
		assert_int_equal(p->frame(p, head, 8, &total), QG_OK);
		assert_int_equal(total, QG_ETSI004_FRAME_MAX);
		head[7] = 0xf9;
		assert_int_equal(p->frame(p, head, 8, &total), QG_E_RANGE);
		head[4] = 0xff;
		assert_int_equal(p->frame(p, head, 8, &total), QG_E_RANGE);
		head[4] = 0;
	}
}

static void
inner_lengths_are_not_trusted(void **state)
{
	(void)state;
	static frame f;
	static const uint32_t lies[] = {33, 0x7fffffff, 0x80000000, 0xfffffff0, 0xffffffff, 65537, 1u << 20};
	static const size_t at[] = {8 + 8, 8 + 12 + 32}; /* key_len, meta_len */
	for (size_t c = 0; c < 2; c++) {
		for (size_t k = 0; k < COUNT(at); k++) {
			for (size_t i = 0; i < COUNT(lies); i++) {
				from_hex(c == 0 ? CAPTURE_A_GET_ANSWER : CAPTURE_B_GET_ANSWER, &f);
				for (size_t b = 0; b < 4; b++)
					f.b[at[k] + b] = (uint8_t)(lies[i] >> (24 - 8 * b));
				qg_err err = decode(f.b, f.n, false, c);
				if (k == 1 && lies[i] == 33 && c == 1)
					assert_int_equal(err, QG_OK); /* the truth */
				else
					assert_true(err == QG_E_PARSE || err == QG_E_RANGE);
			}
		}
	}
	from_hex(CAPTURE_A_GET, &f);
	memset(f.b + 8 + 20, 0xff, 4);
	assert_int_equal(decode(f.b, f.n, true, 0), QG_E_RANGE);
}

static void
limits_of_members(void **state)
{
	(void)state;
	static frame f;
	static char uri[QG_ETSI004_URI_MAX + 2];
	static uint8_t bytes[65537];
	char mime[257];
	qg_etsi004_request q = {.op = QG_ETSI004_OPEN_CONNECT, .source = uri, .destination = "b",
				.qos.mimetype = ""};
	for (size_t d = 0; d < 2; d++) {
		memset(uri, 'u', sizeof uri - 1);
		assert_int_equal(put_request(both[d], &q, &f), QG_E_RANGE);
		assert_int_equal(f.n, 0);
		uri[QG_ETSI004_URI_MAX] = '\0';
		assert_int_equal(put_request(both[d], &q, &f), QG_OK);
		assert_int_equal(decode(f.b, f.n, true, d), QG_OK);
		/* One more in the frame than the encoder lets through. */
		memmove(f.b + 9, f.b + 8, f.n - 8);
		f.n++;
		set_length(&f);
		assert_int_equal(decode(f.b, f.n, true, d), QG_E_RANGE);
		memset(mime, 'm', 256);
		mime[256] = '\0';
		q.qos.mimetype = mime;
		assert_int_equal(put_request(both[d], &q, &f), QG_E_RANGE);
		q.qos.mimetype = "";
		qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY, .qos.mimetype = "", .key = bytes,
					 .key_len = 65536, .metadata = bytes, .metadata_len = 65536};
		assert_int_equal(put_response(both[d], &a, &f), QG_OK);
		assert_int_equal(decode(f.b, f.n, false, d), QG_OK);
		a.key_len++;
		assert_int_equal(put_response(both[d], &a, &f), QG_E_RANGE);
		a.key_len--;
		a.metadata_len++;
		assert_int_equal(put_response(both[d], &a, &f), QG_E_RANGE);
	}
	/* B's mimetype field without its NUL. */
	from_hex(CAPTURE_B_OPEN, &f);
	memset(f.b + f.n - 16 - 256, 'm', 256);
	assert_int_equal(decode(f.b, f.n, true, 1), QG_E_PARSE);
}

static void
no_room_changes_nothing(void **state)
{
	(void)state;
	uint8_t buf[64];
	const qg_etsi004_request q = {.op = QG_ETSI004_CLOSE, .source = "", .destination = "",
				      .qos.mimetype = ""};
	qg_etsi004_request answer = q;
	answer.op = QG_ETSI004_ERROR;
	for (size_t room = 0; room < 5 + 24; room++) {
		qg_writer w = qg_writer_of(buf, room);
		w.len = room < 5 ? room : 5;
		size_t before = w.len;
		assert_int_equal(B->put_request(B, &q, &w), QG_E_RANGE);
		assert_int_equal(w.len, before);
		assert_false(w.bad);
	}
	qg_writer w = qg_writer_of(buf, 29);
	w.len = 5;
	assert_int_equal(B->put_request(B, &q, &w), QG_OK);
	assert_int_equal(w.len, 29);
	assert_int_equal(B->put_request(B, &answer, &w), QG_E_INVAL);
}

static void
unknown_services(void **state)
{
	(void)state;
	static frame f;
	for (unsigned service = 0; service < 256; service++) {
		from_hex(CAPTURE_B_CLOSE, &f);
		f.b[3] = (uint8_t)service;
		qg_err err = decode(f.b, f.n, true, 1);
		bool known = service == 2 || service == 4 || service == 8;
		assert_int_equal(err, service == 8 ? QG_OK : known ? QG_E_PARSE : QG_E_UNSUPPORTED);
	}
}

static void
mutations(void **state)
{
	(void)state;
	static frame f, m;
	unsigned x = test_seed();
	size_t accepted = 0;
	for (size_t round = 0; round < 20000; round++) {
		size_t i = round % COUNT(captures);
		if (round < COUNT(captures) || round % 97 == 0)
			from_hex(captures[i].hex, &f);
		from_hex(captures[i].hex, &m);
		for (unsigned k = 0; k < 1 + round % 4; k++) {
			x = x * 1664525u + 1013904223u;
			m.b[(x >> 8) % m.n] = (uint8_t)(x >> 24);
		}
		x = x * 1664525u + 1013904223u;
		if (x >> 30 == 0)
			m.n = (x >> 4) % (m.n + 1);
		if (x >> 31 != 0 && m.n >= 8)
			set_length(&m);
		for (size_t d = 0; d < 2; d++) {
			accepted += decode(m.b, m.n, true, d) == QG_OK;
			accepted += decode(m.b, m.n, false, d) == QG_OK;
		}
		const qg_etsi004_profile *p = NULL;
		if (qg_etsi004_bin_detect(m.b, m.n, &p) == QG_OK)
			assert_non_null(p);
	}
	assert_true(accepted > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(capture_a),
		cmocka_unit_test(capture_b),
		cmocka_unit_test(statuses_of_get_key),
		cmocka_unit_test(statuses_of_open),
		cmocka_unit_test(success_needs_its_structure),
		cmocka_unit_test(error_message),
		cmocka_unit_test(status_table),
		cmocka_unit_test(detects_by_length_then_version),
		cmocka_unit_test(truncated_at_every_length),
		cmocka_unit_test(frame_lengths),
		cmocka_unit_test(inner_lengths_are_not_trusted),
		cmocka_unit_test(limits_of_members),
		cmocka_unit_test(no_room_changes_nothing),
		cmocka_unit_test(unknown_services),
		cmocka_unit_test(mutations),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
