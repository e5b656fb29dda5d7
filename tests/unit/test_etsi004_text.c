/* SPDX-License-Identifier: Apache-2.0 */
/* The texts of the profiles `json` and `http-push` as the software that speaks
 * them writes them, and what they are not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/etsi004.h"

#define J (&qg_etsi004_json)
#define X (&qg_etsi004_json_netxpto)
#define H (&qg_etsi004_http_push)
#define KSID "8c5fecc3-d480-48cb-a5d8-123e5e8f2670"
#define QOS "{\"key_chunk_size\":32,\"max_bps\":32,\"min_bps\":32,\"jitter\":0,\"priority\":0," \
	    "\"timeout\":0,\"ttl\":0,\"metadata_mimetype\":\"application/json\"}"
#define QOS_X "{\"key_chunk_size\":32,\"max_bps\":32,\"min_bps\":32,\"jitter\":0,\"priority\":0," \
	      "\"timeout\":0,\"ttl\":0,\"metadata_mimetype\":\"application/json\",\"key_type\":2}"
#define OPEN "{\"source\":\"qkd://a@n1\",\"destination\":\"qkd://b@n2\",\"qos\":"

static const qg_etsi004_qos qos = {.chunk_size = 32, .max_bps = 32, .min_bps = 32, .mimetype = "application/json"};
static char own[1 << 20];
static uint8_t bytes[1 << 20];

static qg_uuid
ksid(void)
{
	qg_uuid u;
	assert_int_equal(qg_uuid_parse(KSID, 36, &u), QG_OK);
	return u;
}

static qg_err
take_request(const qg_etsi004_profile *p, const char *text, qg_etsi004_request *q)
{
	size_t n = strlen(text);
	memcpy(bytes, text, n);
	return p->get_request(p, bytes, n, q);
}

static qg_err
take_response(const qg_etsi004_profile *p, qg_etsi004_op op, const char *text, qg_etsi004_response *a)
{
	const qg_etsi004_due due = {.op = op, .chunk_size = 8};
	size_t n = strlen(text);
	memcpy(bytes, text, n);
	return p->get_response(p, &due, bytes, n, a);
}

static void
writes_request(const qg_etsi004_profile *p, const qg_etsi004_request *q, const char *text)
{
	qg_writer w = qg_writer_of(own, sizeof own);
	assert_int_equal(p->put_request(p, q, &w), QG_OK);
	own[w.len] = '\0';
	assert_string_equal(own, text);
	qg_etsi004_request got;
	assert_int_equal(take_request(p, text, &got), QG_OK);
	assert_int_equal(got.op, q->op);
	assert_true(qg_uuid_equal(&got.ksid, &q->ksid));
}

static void
writes_response(const qg_etsi004_profile *p, const qg_etsi004_response *a, const char *text)
{
	qg_writer w = qg_writer_of(own, sizeof own);
	assert_int_equal(p->put_response(p, a, &w), QG_OK);
	own[w.len] = '\0';
	assert_string_equal(own, text);
	qg_etsi004_response got;
	assert_int_equal(take_response(p, a->op, text, &got), QG_OK);
	assert_int_equal(got.op, a->op);
	assert_int_equal(got.status, a->status);
}

/* --- json ------------------------------------------------------------------------- */

static void
json_requests(void **state)
{
	(void)state;
	qg_etsi004_request q = {.op = QG_ETSI004_OPEN_CONNECT, .source = "qkd://a@n1",
				.destination = "qkd://b@n2", .qos = qos};
	writes_request(J, &q, "{\"command\":\"OPEN_CONNECT\",\"data\":" OPEN QOS "}}");
	writes_request(X, &q, "{\"command\":\"OPEN_CONNECT\",\"data\":" OPEN QOS_X "}}");
	q.ksid = ksid();
	writes_request(J, &q, "{\"command\":\"OPEN_CONNECT\",\"data\":" OPEN QOS ",\"key_stream_id\":\"" KSID "\"}}");
	q = (qg_etsi004_request){.op = QG_ETSI004_GET_KEY, .ksid = ksid(), .qos.mimetype = ""};
	writes_request(J, &q, "{\"command\":\"GET_KEY\",\"data\":{\"key_stream_id\":\"" KSID "\",\"index\":0}}");
	q.metadata = (const uint8_t *)"text";
	q.metadata_len = 4;
	writes_request(J, &q, "{\"command\":\"GET_KEY\",\"data\":{\"key_stream_id\":\"" KSID "\",\"index\":0,"
			      "\"metadata\":{\"size\":4,\"buffer\":\"text\"}}}");
	q = (qg_etsi004_request){.op = QG_ETSI004_CLOSE, .ksid = ksid(), .qos.mimetype = ""};
	writes_request(J, &q, "{\"command\":\"CLOSE\",\"data\":{\"key_stream_id\":\"" KSID "\"}}");
}

static void
json_answers(void **state)
{
	(void)state;
	static const uint8_t key[] = {52, 117, 0, 255};
	qg_etsi004_response a = {.op = QG_ETSI004_OPEN_CONNECT, .has_qos = true, .ksid = ksid(), .qos = qos};
	writes_response(J, &a, "{\"status\":0,\"key_stream_id\":\"" KSID "\",\"qos\":" QOS "}");
	writes_response(X, &a, "{\"command\":\"OPEN_CONNECT_RESPONSE\",\"data\":{\"status\":0,\"key_stream_id\":\"" KSID
			       "\",\"qos\":" QOS_X "}}");
	a.has_qos = false;
	a.status = 6;
	writes_response(J, &a, "{\"status\":6,\"key_stream_id\":\"" KSID "\",\"qos\":null}");
	a = (qg_etsi004_response){.op = QG_ETSI004_GET_KEY, .key = key, .key_len = 4, .metadata_len = 2,
				  .metadata = (const uint8_t *)"{}", .qos.mimetype = ""};
	writes_response(J, &a, "{\"status\":0,\"index\":0,\"key_buffer\":[52,117,0,255],\"metadata\":{\"size\":2,"
			       "\"buffer\":\"{}\"}}");
	writes_response(X, &a, "{\"command\":\"GET_KEY_RESPONSE\",\"data\":{\"status\":0,\"index\":0,"
			       "\"key_buffer\":[52,117,0,255],\"metadata\":{\"size\":2,\"buffer\":\"{}\"}}}");
	a = (qg_etsi004_response){.op = QG_ETSI004_CLOSE, .qos.mimetype = ""};
	writes_response(J, &a, "{\"status\":0}");
	writes_response(X, &a, "{\"command\":\"CLOSE_RESPONSE\",\"data\":{\"status\":0}}");
}

/* What other writers do with the same messages. */
static void
json_of_others(void **state)
{
	(void)state;
	qg_etsi004_request q;
	qg_etsi004_response a;
	assert_int_equal(take_request(J, " \r\n{ \"data\" : { \"index\" : null , \"extra\" : [ -1.5e3, {\"a\":[true]} ],"
					 "\"key_stream_id\" : \"8C5FECC3-D480-48CB-A5D8-123E5E8F2670\" } ,\n"
					 "\"command\" : \"GET\\u005fKEY\" } ", &q), QG_OK);
	assert_int_equal(q.op, QG_ETSI004_GET_KEY);
	assert_true(q.in_sequence);
	assert_int_equal(q.metadata_max, QG_ETSI004_METADATA_MAX);
	const qg_uuid id = ksid();
	assert_true(qg_uuid_equal(&q.ksid, &id));
	/* Room for the answer's metadata; text is never a limit. */
	assert_int_equal(take_request(J, "{\"command\":\"GET_KEY\",\"data\":{\"key_stream_id\":\"" KSID "\","
					 "\"metadata\":{\"size\":46,\"buffer\":\"\"}}}", &q), QG_OK);
	assert_int_equal(q.metadata_max, 46);
	assert_int_equal(take_request(J, "{\"command\":\"GET_KEY\",\"data\":{\"key_stream_id\":\"" KSID "\","
					 "\"metadata\":{\"size\":3,\"buffer\":\"abc\"}}}", &q), QG_OK);
	assert_int_equal(q.metadata_max, QG_ETSI004_METADATA_MAX);
	assert_int_equal(take_request(J, "{\"command\":\"OPEN_CONNECT\",\"data\":{\"source\":\"a\",\"destination\":"
					 "\"b\",\"qos\":{\"ttl\":null,\"key_type\":5}}}", &q), QG_OK);
	assert_true(q.qos.oblivious);
	assert_string_equal(q.qos.mimetype, "");
	/* Key as base64 or hex, told apart by the size that was agreed. */
	assert_int_equal(take_response(J, QG_ETSI004_GET_KEY, "{\"status\":0,\"index\":7,\"key_buffer\":\"NHUA/w==\"}",
				       &a), QG_OK);
	assert_int_equal(a.key_len, 4);
	assert_memory_equal(a.key, "\x34\x75\x00\xff", 4);
	assert_int_equal(take_response(J, QG_ETSI004_GET_KEY, "{\"status\":0,\"index\":7,\"key_buffer\":"
						"\"347500Ff01020304\"}", &a), QG_OK);
	assert_int_equal(a.key_len, 8);
	assert_memory_equal(a.key, "\x34\x75\x00\xff\x01\x02\x03\x04", 8);
	assert_int_equal(a.index, 7);
	/* Wrapped answers from a server that was thought to be flat. */
	assert_int_equal(take_response(J, QG_ETSI004_CLOSE, "{\"command\":\"GET_KEY_RESPONSE\",\"data\":{\"status\":2}}",
				       &a), QG_OK);
	assert_int_equal(a.op, QG_ETSI004_GET_KEY);
	assert_int_equal(a.status, 2);
}

static void
json_dialects(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		const qg_etsi004_profile *p;
	} rows[] = {
		{"{\"command\":\"OPEN_CONNECT\",\"data\":" OPEN QOS "}}", J},
		{"{\"command\":\"OPEN_CONNECT\",\"data\":" OPEN QOS_X "}}", X},
		{"{\"command\":\"OPEN_CONNECT\",\"data\":{\"source\":\"\\\"key_type\\\":\",\"destination\":\"key_type\"}}",
		 J},
		{"{\"command\":\"CLOSE\",\"data\":{\"key_stream_id\":\"" KSID "\"}}", J},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		const qg_etsi004_profile *p = NULL;
		qg_etsi004_request q;
		size_t used = 0, n = strlen(rows[i].text);
		memcpy(bytes, rows[i].text, n);
		assert_int_equal(qg_etsi004_next_request(&p, bytes, n, &q, &used), QG_OK);
		assert_ptr_equal(p, rows[i].p);
	}
}

static void
json_refused(void **state)
{
	(void)state;
#define GET(rest) "{\"command\":\"GET_KEY\",\"data\":{\"key_stream_id\":\"" KSID "\"" rest "}}"
	static const char *const refused[] = {
		"{}", "{\"command\":\"CLOSE\"}", "{\"command\":\"CLOSE\",\"data\":{}}",
		"{\"command\":\"CLOSE\",\"data\":{\"key_stream_id\":null}}",
		"{\"command\":\"CLOSE\",\"data\":[]}",
		"{\"command\":7,\"data\":{\"key_stream_id\":\"" KSID "\"}}",
		"{\"command\":\"OPEN_CONNECT\",\"data\":{\"source\":\"a\"}}",
		GET(",\"index\":-1"), GET(",\"index\":1.0"), GET(",\"index\":1e3"), GET(",\"index\":01"),
		GET(",\"index\":4294967296"), GET(",\"index\":\"1\""), GET(",\"index\":99999999999999999999999"),
		GET(",\"index\":1,\"index\":1"), GET(",\"key_stream_id\":\"" KSID "\""),
		GET(",\"x\":\"\\u0000\""), GET(",\"x\":\"\\ud800\""), GET(",\"x\":\"\\ud800\\u0041\""),
		GET(",\"x\":\"\\udc00\""), GET(",\"x\":\"\\x41\""), GET(",\"x\":\"\x01\""), GET(",\"x\":\"\x80\""),
		GET(",\"x\":\"\xc0\xaf\""), GET(",\"x\":\"\xed\xa0\x80\""), GET(",\"x\":\"\xf5\x80\x80\x80\""),
		GET(",\"x\":\"\xe2\x82\""), GET(",\"x\":[1,]"), GET(",\"x\":[,1]"), GET(",\"x\":{\"a\":}"),
		GET(",\"x\":nul"), GET(",\"x\":-"), GET(",\"x\":.5"), GET(",\"x\":1."), GET(",\"x\":00"),
		GET(",\"x\":1e"), GET(",\"x\":{\"a\" 1}"), GET(",\"x\":[1}"), GET(",") , GET(",\"x\":'a'"),
		GET(",\"metadata\":[]"), GET(",\"metadata\":{\"size\":-1}"),
		GET("") "x", "[" GET("") "]",
		GET(",\"x\":[[[[[[[[[1]]]]]]]]]"),
	};
	qg_etsi004_request q = {.index = 4711};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		if (take_request(J, refused[i], &q) != QG_E_PARSE)
			fail_msg("taken: %s", refused[i]);
		assert_int_equal(q.index, 4711);
	}
	assert_int_equal(take_request(J, "{\"command\":\"GET\",\"data\":{\"key_stream_id\":\"" KSID "\"}}", &q),
			 QG_E_UNSUPPORTED);
	/* One byte too long. */
	int n = snprintf(own, sizeof own, "{\"command\":\"OPEN_CONNECT\",\"data\":{\"destination\":\"\",\"source\":\"%*d\"}}",
			 QG_ETSI004_URI_MAX + 1, 1);
	assert_true(n > 0);
	assert_int_equal(take_request(J, own, &q), QG_E_RANGE);
}

static void
json_answers_refused(void **state)
{
	(void)state;
	static const char *const refused[] = {
		"{}", "{\"status\":null}", "{\"status\":\"0\"}", "{\"status\":0}",
		"{\"status\":0,\"index\":0}", "{\"status\":0,\"key_buffer\":[1,2,3,4]}",
		"{\"status\":0,\"index\":0,\"key_buffer\":null}",
		"{\"status\":0,\"index\":0,\"key_buffer\":[256]}", "{\"status\":0,\"index\":0,\"key_buffer\":[-1]}",
		"{\"status\":0,\"index\":0,\"key_buffer\":[1,\"2\"]}", "{\"status\":0,\"index\":0,\"key_buffer\":[1 2]}",
		"{\"status\":0,\"index\":0,\"key_buffer\":[1,2}", "{\"status\":0,\"index\":0,\"key_buffer\":[01]}",
		"{\"status\":0,\"index\":0,\"key_buffer\":\"NHUA/w=\"}",
		"{\"status\":0,\"index\":0,\"key_buffer\":\"0123456789abcdeg\"}",
		"{\"status\":0,\"index\":0,\"key_buffer\":{}}",
		"{\"command\":\"GET_KEY_RESPONSE\",\"data\":null}",
	};
	qg_etsi004_response a = {.index = 4711};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		if (take_response(J, QG_ETSI004_GET_KEY, refused[i], &a) != QG_E_PARSE)
			fail_msg("taken: %s", refused[i]);
		assert_int_equal(a.index, 4711);
	}
	assert_int_equal(take_response(J, QG_ETSI004_OPEN_CONNECT, "{\"status\":0,\"key_stream_id\":\"\",\"qos\":" QOS "}",
				       &a), QG_E_PARSE);
	assert_int_equal(take_response(J, QG_ETSI004_OPEN_CONNECT, "{\"status\":7,\"key_stream_id\":\"\",\"qos\":null}",
				       &a), QG_E_PARSE);
	assert_int_equal(take_response(J, QG_ETSI004_GET_KEY, "{\"command\":\"PUSH\",\"data\":{\"status\":0}}", &a),
			 QG_E_UNSUPPORTED);
	/* More bytes than a key has. */
	char *to = own + sprintf(own, "{\"status\":0,\"index\":0,\"key_buffer\":[1");
	for (size_t i = 0; i < QG_ETSI004_KEY_MAX; i++)
		to += sprintf(to, ",1");
	strcpy(to, "]}");
	assert_int_equal(take_response(J, QG_ETSI004_GET_KEY, own, &a), QG_E_RANGE);
}

/* --- http-push ---------------------------------------------------------------------- */

static void
http_messages(void **state)
{
	(void)state;
	qg_etsi004_request q = {.op = QG_ETSI004_OPEN_CONNECT, .source = "qkd://a@n1", .destination = "qkd://b@n2",
				.qos = qos, .authority = "module:443"};
	writes_request(H, &q, "POST /api/v1/kms/etsi004/open-connect HTTP/1.1\r\nHost: module:443\r\n"
			      "Content-Type: application/json\r\nContent-Length:    187\r\n\r\n" OPEN QOS "}");
	q = (qg_etsi004_request){.op = QG_ETSI004_GET_KEY, .ksid = ksid(), .index = 5, .qos.mimetype = "",
				 .authority = "m"};
	writes_request(H, &q, "GET /api/v1/kms/etsi004/get-key HTTP/1.1\r\nHost: m\r\n"
			      "Content-Type: application/json\r\nContent-Length:     66\r\n\r\n"
			      "{\"key_stream_id\":\"" KSID "\",\"index\":5}");
	q.op = QG_ETSI004_CLOSE;
	writes_request(H, &q, "PUT /api/v1/kms/etsi004/close HTTP/1.1\r\nHost: m\r\n"
			      "Content-Type: application/json\r\nContent-Length:     56\r\n\r\n"
			      "{\"key_stream_id\":\"" KSID "\"}");
	qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY, .qos.mimetype = ""};
	writes_response(H, &a, "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n");
	a.op = QG_ETSI004_CLOSE;
	writes_response(H, &a, "HTTP/1.1 204 No Content\r\n\r\n");
	a.status = 5;
	writes_response(H, &a, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nContent-Length:     12"
			       "\r\n\r\n{\"status\":5}");
	a.status = 6;
	a.last = true;
	writes_response(H, &a, "HTTP/1.1 500 Internal Server Error\r\nConnection: close\r\nContent-Type: "
			       "application/json\r\nContent-Length:     12\r\n\r\n{\"status\":6}");
}

static void
http_push(void **state)
{
	(void)state;
	static const uint8_t key[] = {52, 117, 0, 255};
	static const char body[] = "{\"status\":0,\"index\":9,\"key_buffer\":\"NHUA/w==\",\"metadata\":{\"size\":56,"
				   "\"buffer\":{\"key_stream_id\":\"" KSID "\"}}}";
	qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY, .ksid = ksid(), .index = 9, .key = key, .key_len = 4,
				 .qos.mimetype = ""}, got;
	qg_writer w = qg_writer_of(own, sizeof own);
	assert_int_equal(H->push->put(H, &a, "kme:9443", &w), QG_OK);
	own[w.len] = '\0';
	assert_string_equal(strstr(own, "\r\n\r\n") + 4, body);
	assert_int_equal(strncmp(own, "POST /api/v1/qkd/etsi004/key-material HTTP/1.1\r\nHost: kme:9443\r\n", 64), 0);
	assert_int_equal(H->push->get(H, (uint8_t *)strstr(own, "\r\n\r\n") + 4, sizeof body - 1, &got), QG_OK);
	assert_true(qg_uuid_equal(&got.ksid, &a.ksid));
	assert_int_equal(got.index, 9);
	assert_int_equal(got.key_len, 4);
	assert_memory_equal(got.key, key, 4);
	/* Without the KSID nobody knows whose key it is. */
	static const char *const refused[] = {
		"{\"status\":0,\"index\":9,\"key_buffer\":\"NHUA/w==\",\"metadata\":{\"size\":0,\"buffer\":\"\"}}",
		"{\"status\":0,\"index\":9,\"key_buffer\":\"NHUA/w==\"}",
		"{\"status\":0,\"index\":9,\"metadata\":{\"buffer\":{\"key_stream_id\":\"" KSID "\"}}}",
		"{\"status\":0,\"key_buffer\":\"NHUA/w==\",\"metadata\":{\"buffer\":{\"key_stream_id\":\"" KSID "\"}}}",
		"{\"status\":0,\"index\":9,\"key_buffer\":\"NHUA/w\",\"metadata\":{\"buffer\":{\"key_stream_id\":\"" KSID
		"\"}}}",
		"{\"status\":0,\"index\":9,\"key_buffer\":\"NHUA/w==\",\"metadata\":{\"buffer\":{\"key_stream_id\":\"8\"}}}",
		"[]", "", "{",
	};
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
		size_t n = strlen(refused[i]);
		memcpy(bytes, refused[i], n);
		assert_int_equal(H->push->get(H, bytes, n, &got), QG_E_PARSE);
	}
}

static void
http_push_answers(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		unsigned http;
		uint32_t status;
	} rows[] = {
		{"HTTP/1.1 201 Created\r\nContent-Length: 12\r\n\r\n{\"status\":0}", 201, 0},
		{"HTTP/1.1 204 No Content\r\n\r\n", 204, 0},
		{"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", 200, 0},
		{"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 12\r\n\r\n{\"status\":6}", 503, 6},
		{"HTTP/1.1 503 Busy\r\nContent-Length: 6\r\n\r\n<html>", 503, 6},
		{"HTTP/1.1 404 \r\nContent-Length: 0\r\n\r\n", 404, 4},
		{"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n{\"sta\r\n7\r\ntus\":2}\r\n0\r\nT: 1\r\n\r\n",
		 200, 2},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		size_t n = strlen(rows[i].text), total = 0;
		uint32_t status = 99;
		unsigned http = 0;
		memcpy(bytes, rows[i].text, n);
		for (size_t k = 0; k < n; k++) {
			qg_err err = H->frame(H, bytes, k, &total);
			assert_true(err == QG_E_AGAIN || (err == QG_OK && total == n));
		}
		assert_int_equal(H->frame(H, bytes, n, &total), QG_OK);
		assert_int_equal(total, n);
		assert_int_equal(H->push->get_answer(H, bytes, n, &status, &http), QG_OK);
		assert_int_equal(http, rows[i].http);
		assert_int_equal(status, rows[i].status);
	}
}

/* Ways to make two readers see different messages, and heads that are none. */
static void
http_refused(void **state)
{
	(void)state;
#define CLOSE_LINE "PUT /api/v1/kms/etsi004/close HTTP/1.1\r\n"
#define BODY "{\"key_stream_id\":\"" KSID "\"}"
	static const char *const refused[] = {
		CLOSE_LINE "Content-Length: 56\r\nContent-Length: 56\r\n\r\n" BODY,
		CLOSE_LINE "Content-Length: 56\r\nTransfer-Encoding: chunked\r\n\r\n" BODY,
		CLOSE_LINE "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		CLOSE_LINE "Content-Length: +56\r\n\r\n" BODY, CLOSE_LINE "Content-Length: 0x38\r\n\r\n" BODY,
		CLOSE_LINE "Content-Length: \r\n\r\n" BODY, CLOSE_LINE "Content-Length: 5 6\r\n\r\n" BODY,
		CLOSE_LINE "Content-Length : 56\r\n\r\n" BODY, CLOSE_LINE " Content-Length: 56\r\n\r\n" BODY,
		CLOSE_LINE "Content-Length: 56\n\r\n" BODY, CLOSE_LINE "A\r\nContent-Length: 56\r\n\r\n" BODY,
		CLOSE_LINE "A: \x01\r\nContent-Length: 56\r\n\r\n" BODY,
		"PUT /api/v1/kms/etsi004/close HTTP/2.0\r\nContent-Length: 56\r\n\r\n" BODY,
		"PUT /api/v1/kms/etsi004/close\r\nContent-Length: 56\r\n\r\n" BODY,
		"PUT  HTTP/1.1\r\nContent-Length: 56\r\n\r\n" BODY,
		"P(T /api/v1/kms/etsi004/close HTTP/1.1\r\nContent-Length: 56\r\n\r\n" BODY,
		CLOSE_LINE "Transfer-Encoding: chunked\r\n\r\nzz\r\n" BODY "\r\n0\r\n\r\n",
		CLOSE_LINE "Transfer-Encoding: chunked\r\n\r\n38\r\n" BODY "xx0\r\n\r\n",
		CLOSE_LINE "\r\n" BODY, CLOSE_LINE "Content-Length: 57\r\n\r\n" BODY,
		"HTTP/1.1 200 OK\r\nContent-Length: 56\r\n\r\n" BODY,
	};
	qg_etsi004_request q;
	for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
		if (take_request(H, refused[i], &q) != QG_E_PARSE)
			fail_msg("taken: %s", refused[i]);
	assert_int_equal(take_request(H, CLOSE_LINE "Content-Length: 56\r\n\r\n" BODY, &q), QG_OK);
	assert_false(q.last);
	assert_int_equal(take_request(H, CLOSE_LINE "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n38\r\n" BODY
				      "\r\n0\r\n\r\n", &q), QG_OK);
	assert_true(q.last);
	static const char *const unknown[] = {
		"GET /api/v1/kms/etsi004/close HTTP/1.1\r\nContent-Length: 56\r\n\r\n" BODY,
		"PUT /api/v1/kms/etsi004/close?x HTTP/1.1\r\nContent-Length: 56\r\n\r\n" BODY,
		"GET / HTTP/1.1\r\n\r\n",
	};
	for (size_t i = 0; i < 3; i++)
		assert_int_equal(take_request(H, unknown[i], &q), QG_E_UNSUPPORTED);
	size_t total = 0;
	const char large[] = CLOSE_LINE "Content-Length: 1048577\r\n\r\n";
	assert_int_equal(H->frame(H, (const uint8_t *)large, strlen(large), &total), QG_E_RANGE);
	const char endless[] = "HTTP/1.1 200 OK\r\n\r\n{";
	assert_int_equal(H->frame(H, (const uint8_t *)endless, strlen(endless), &total), QG_E_PARSE);
}

/* Key that a profile cannot carry is not sent in another way. */
static void
no_key_in_answers_of_http(void **state)
{
	(void)state;
	const uint8_t key[4] = {1};
	const qg_etsi004_response a = {.op = QG_ETSI004_GET_KEY, .key = key, .key_len = 4, .qos.mimetype = ""};
	qg_writer w = qg_writer_of(own, sizeof own);
	assert_int_equal(H->put_response(H, &a, &w), QG_E_INVAL);
	assert_int_equal(w.len, 0);
	const qg_etsi004_response bad = {.op = QG_ETSI004_GET_KEY, .metadata = (const uint8_t *)"\xff",
					 .metadata_len = 1, .qos.mimetype = ""};
	assert_int_equal(J->put_response(J, &bad, &w), QG_E_RANGE);
	assert_int_equal(w.len, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(json_requests),     cmocka_unit_test(json_answers),
		cmocka_unit_test(json_of_others),    cmocka_unit_test(json_dialects),
		cmocka_unit_test(json_refused),      cmocka_unit_test(json_answers_refused),
		cmocka_unit_test(http_messages),     cmocka_unit_test(http_push),
		cmocka_unit_test(http_push_answers), cmocka_unit_test(http_refused),
		cmocka_unit_test(no_key_in_answers_of_http),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
