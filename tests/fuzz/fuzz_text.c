/* SPDX-License-Identifier: Apache-2.0 */
/* The readers of JSON and HTTP that work in place, each on its own. The first byte
 * chooses. A frame is never longer than what there is, what is decoded lies inside
 * it, and what was written from it is read as the same. */
#include "fuzz.h"

#include <stdbool.h>

#include "../../src/wire/http_text_internal.h"
#include "../../src/wire/json_text_internal.h"

#define ROOM ((size_t)1 << 17)

static uint8_t text[ROOM];

/* --- JSON -------------------------------------------------------------------- */

typedef struct seen_values {
	uint8_t *from, *to;
	const char *name;
	size_t name_len;
	uint32_t size;
	const uint8_t *key;
	size_t key_len;
} seen_values;

static void
inside(const seen_values *v, const void *p, size_t n)
{
	const uint8_t *at = p;
	HOLDS(at == NULL || (at >= v->from && at + n <= v->to));
}

static void
read_name(qg_json_in *in, void *ctx)
{
	seen_values *v = ctx;
	v->name = qg_json_string(in, &v->name_len);
	inside(v, v->name, v->name_len);
}

static void
read_size(qg_json_in *in, void *ctx)
{
	seen_values *v = ctx;
	v->size = qg_json_null(in) ? 0 : qg_json_uint(in, 65535);
	HOLDS(v->size <= 65535);
}

static void
read_key(qg_json_in *in, void *ctx)
{
	seen_values *v = ctx;
	v->key = qg_json_bytes(in, &v->key_len);
	inside(v, v->key, v->key_len);
}

static void
read_any(qg_json_in *in, void *ctx)
{
	(void)ctx;
	(void)qg_json_peek(in);
	qg_json_skip(in);
}

static const qg_json_field fields[] = {
	{"name", read_name}, {"size", read_size}, {"key", read_key}, {"any", read_any}};

static bool
read_object(uint8_t *p, size_t n, seen_values *v)
{
	uint32_t seen = 0;
	*v = (seen_values){.from = p, .to = p + n};
	qg_json_in in = qg_json_in_of(p, n);
	qg_json_object(&in, fields, sizeof fields / sizeof fields[0], v, &seen);
	HOLDS(seen < 1u << (sizeof fields / sizeof fields[0]));
	return qg_json_ended(&in);
}

static void
try_json(uint8_t *p, size_t n)
{
	size_t total = 0;
	const qg_err framed = qg_json_text_frame(p, n, &total);
	HOLDS(framed != QG_OK || (total > 0 && total <= n));
	seen_values v, again;
	if (!read_object(p, n, &v))
		return;
	/* Whole, so it is a frame, too: brackets and strings are all that is looked at. */
	HOLDS(framed == QG_OK);
	qg_writer w = qg_writer_of(text, sizeof text);
	qg_json_put(&w, "{\"name\":");
	qg_json_put_string(&w, v.name != NULL ? v.name : "", v.name_len);
	qg_json_put(&w, ",\"size\":");
	qg_json_put_uint(&w, v.size);
	qg_json_put(&w, ",\"key\":");
	qg_json_put_bytes(&w, v.key != NULL ? v.key : p, v.key_len);
	qg_json_put(&w, "}");
	HOLDS(!w.bad && qg_json_text_frame(text, w.len, &total) == QG_OK && total == w.len);
	HOLDS(read_object(text, w.len, &again));
	HOLDS(again.size == v.size && again.name_len == v.name_len && again.key_len == v.key_len);
	HOLDS(v.name_len == 0 || memcmp(again.name, v.name, v.name_len) == 0);
	HOLDS(v.key_len == 0 || memcmp(again.key, v.key, v.key_len) == 0);
}

/* --- HTTP -------------------------------------------------------------------- */

static void
try_http(uint8_t *p, size_t n)
{
	qg_http_head head;
	size_t size = 0, total = 0, body_len = 0;
	uint8_t *body = NULL;
	const qg_err err = qg_http_head_get(p, n, &head, &size);
	if (err != QG_OK)
		return;
	HOLDS(size > 0 && size <= n && size <= QG_HTTP_HEAD_MAX && !(head.has_length && head.chunked));
	if (head.response)
		HOLDS(head.status >= 100 && head.status <= 999);
	else
		HOLDS(head.method_len > 0 && head.target_len > 0);
	if (qg_http_text_frame(p, n, &total) != QG_OK || total > n)
		return;
	HOLDS(total >= size);
	if (qg_http_body_get(p, total, &head, size, &body, &body_len) == QG_OK)
		HOLDS(body_len == 0 || (body >= p + size && body + body_len <= p + total));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 2)
		return 0;
	uint8_t *p = (uint8_t *)copy_of(data + 1, size - 1);
	if ((data[0] & 1) != 0)
		try_json(p, size - 1);
	else
		try_http(p, size - 1);
	free(p);
	return 0;
}
