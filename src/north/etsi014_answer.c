/* SPDX-License-Identifier: Apache-2.0 */
/* The one place where errors become HTTP statuses, and where answers are
 * written. Key containers go straight into secret memory: a JSON library
 * would cost seven times as much and leave copies behind. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etsi014_internal.h"
#include "qkdgate/encode.h"
#include "qkdgate/text.h"

#define JSON_TYPE "application/json"
#define RETRY_MIN_S 1

/* --- statuses (tables 4, 6 and 8) ------------------------------------------ */

#define ANY (-1)

static const struct verdict {
	int method; /* qg_014_method or ANY */
	qg_err err;
	int status;
	bool retry;          /* with Retry-After */
	const char *message; /* NULL: the request's own, or none with 401 */
	const char *reason;  /* for the audit, where there is no fixed message */
} verdicts[] = {
	{ANY, QG_E_INVAL, 400, false, NULL, "malformed request"},
	{ANY, QG_E_DENIED, 401, false, NULL, "not authorised"},
	{ANY, QG_E_LIMIT, 503, true, "rate limit exceeded", NULL},
	{ANY, QG_E_CLOSED, 503, true, "this gateway is being taken out of service", NULL},
	{ANY, QG_E_IO, 503, true, "key store unavailable", NULL},
	{QG_014_ENC, QG_E_EMPTY, 503, true, "insufficient key material", NULL},
	{QG_014_ENC, QG_E_STATE, 400, false, "not all extension_mandatory request options could be met",
	 NULL},
	{QG_014_ENC, QG_E_RANGE, 400, false,
	 "number and size are more than one request can have from this key stream",
	 NULL},
	{QG_014_ENC, QG_E_NOTFOUND, 503, true, "no key stream to the KME of slave_SAE_ID", NULL},
	{QG_014_DEC, QG_E_NOTFOUND, 400, false, "one or more keys specified are not found on KME", NULL},
	{QG_014_DEC, QG_E_CONSUMED, 400, false, "one or more keys specified are not found on KME", NULL},
};

static const struct verdict internal_error = {ANY, QG_E_COUNT, 503, true, "the request could not be served",
					      NULL};

static const struct verdict *
verdict_of(qg_014_method method, qg_err err)
{
	for (size_t i = 0; i < sizeof verdicts / sizeof verdicts[0]; i++) {
		const struct verdict *v = &verdicts[i];
		if (v->err == err && (v->method == ANY || v->method == (int)method))
			return v;
	}
	return &internal_error;
}

const char *
qg_014_reason(qg_014_method method, qg_err err)
{
	const struct verdict *v = verdict_of(method, err);
	return v->reason != NULL ? v->reason : v->message;
}

/* --- small bodies ------------------------------------------------------------- */

size_t
qg_014_error_json(const char *message, const char *const *details, size_t n_details, char *buf, size_t room)
{
	qg_text t = {.buf = buf, .room = room};
	QG_TEXT_PUT(&t, "{\"message\":");
	qg_text_put_json_string(&t, message);
	for (size_t i = 0; i < n_details; i++) {
		if (i == 0)
			QG_TEXT_PUT(&t, ",\"details\":[{");
		else
			QG_TEXT_PUT(&t, "},{");
		qg_text_put_json_string(&t, details[i]);
		QG_TEXT_PUT(&t, ":\"not supported\"");
	}
	if (n_details > 0)
		QG_TEXT_PUT(&t, "}]");
	QG_TEXT_PUT(&t, "}");
	return t.len;
}

size_t
qg_014_http_error(int status, const char *text_of_error, char *buf, size_t room)
{
	if (status == 401) /* has no body (tables 4, 6 and 8) */
		return 0;
	const size_t len = qg_014_error_json(text_of_error, NULL, 0, buf, room);
	return len <= room ? len : 0;
}

size_t
qg_014_status_json(const qg_014_status *st, char *buf, size_t room)
{
	const struct {
		const char *name, *value;
	} strings[] = {
		{"source_KME_ID", st->source_kme},
		{"target_KME_ID", st->target_kme},
		{"master_SAE_ID", st->master},
		{"slave_SAE_ID", st->slave},
	};
	const struct {
		const char *name;
		uint64_t value;
	} numbers[] = {
		{"key_size", st->key_size},
		{"stored_key_count", st->stored_key_count},
		{"max_key_count", st->max_key_count},
		{"max_key_per_request", st->max_key_per_request},
		{"max_key_size", st->max_key_size},
		{"min_key_size", st->min_key_size},
		{"max_SAE_ID_count", st->max_sae_id_count},
	};
	qg_text t = {.buf = buf, .room = room};
	for (size_t i = 0; i < sizeof strings / sizeof strings[0]; i++) {
		qg_text_put(&t, i == 0 ? "{" : ",", 1);
		qg_text_put_json_string(&t, strings[i].name);
		QG_TEXT_PUT(&t, ":");
		qg_text_put_json_string(&t, strings[i].value);
	}
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
		char value[32];
		const int n = snprintf(value, sizeof value, ":%" PRIu64, numbers[i].value);
		assert(n > 0 && (size_t)n < sizeof value);
		QG_TEXT_PUT(&t, ",");
		qg_text_put_json_string(&t, numbers[i].name);
		qg_text_put(&t, value, (size_t)n);
	}
	QG_TEXT_PUT(&t, "}");
	return t.len;
}

/* --- the key container ---------------------------------------------------------- */

#define HEAD "{\"keys\":["
#define ID "{\"key_ID\":\""
#define KEY "\",\"key\":\""
#define END "\"}"
#define HOPS "\",\"key_extension\":{\"hops\":"
#define HOPS_END "}}"
#define HOPS_ROOM 11 /* digits of a uint32_t, NUL */
#define TAIL "]}"
#define LEN(literal) (sizeof(literal) - 1)
#define ID_CHARS (QG_UUID_TEXT - 1)

/* The hops of a key as text, its length; 0: they are not told. */
static size_t
hops_text(const qg_014_hops *hops, size_t i, char shown[HOPS_ROOM])
{
	const uint32_t value = hops == NULL || hops->of == NULL ? 0 : hops->of[i];
	if (hops == NULL || (value == 0 && !hops->all))
		return 0;
	const int n = snprintf(shown, HOPS_ROOM, "%" PRIu32, value);
	assert(n > 0 && n < HOPS_ROOM);
	return (size_t)n;
}

/* Bytes of all keys and length of the container. At most 1,024 keys of 65,535
 * bytes, which no size_t overflows at. */
static void
measure(size_t n, const uint16_t *sizes, uint32_t size_bytes, const qg_014_hops *hops, size_t *key_bytes,
	size_t *text_len)
{
	char shown[HOPS_ROOM];
	*key_bytes = 0;
	*text_len = LEN(HEAD) + n * (LEN(ID) + ID_CHARS + LEN(KEY) + LEN(END)) + (n - 1) + LEN(TAIL);
	for (size_t i = 0; i < n; i++) {
		const size_t size = sizes != NULL ? sizes[i] : size_bytes;
		*key_bytes += size;
		*text_len += QG_BASE64_LEN(size);
		const size_t digits = hops_text(hops, i, shown);
		if (digits > 0)
			*text_len += LEN(HOPS) + digits + LEN(HOPS_END) - LEN(END);
	}
}

static char *
write_literal(char *at, const char *literal, size_t len)
{
	memcpy(at, literal, len);
	return at + len;
}

#define WRITE(at, literal) write_literal(at, literal, LEN(literal))

/* The UUID's NUL is written over by what follows. */
static char *
write_key(char *at, const qg_uuid *id, const uint8_t *key, size_t size, const char *hops, size_t digits)
{
	at = WRITE(at, ID);
	qg_uuid_format(id, at);
	at = WRITE(at + ID_CHARS, KEY);
	qg_base64_encode(key, size, at);
	at += QG_BASE64_LEN(size);
	if (digits == 0)
		return WRITE(at, END);
	at = WRITE(at, HOPS);
	at = write_literal(at, hops, digits);
	return WRITE(at, HOPS_END);
}

qg_err
qg_014_container(const qg_uuid *ids, size_t n, const qg_secret *keys, const uint16_t *sizes,
		 uint32_t size_bytes, const qg_014_hops *hops, qg_secret **out)
{
	if (n == 0 || n > QG_KEYSTORE_KEYS_MAX || size_bytes > UINT16_MAX)
		return QG_E_CORRUPT;
	size_t key_bytes;
	size_t text_len;
	measure(n, sizes, size_bytes, hops, &key_bytes, &text_len);
	if (keys == NULL || keys->len != key_bytes)
		return QG_E_CORRUPT;
	qg_secret *body = NULL;
	if (qg_secret_new(text_len, &body) != QG_OK)
		return QG_E_NOMEM;
	char *at = WRITE((char *)body->data, HEAD);
	const uint8_t *key = keys->data;
	for (size_t i = 0; i < n; i++) {
		char shown[HOPS_ROOM];
		const size_t size = sizes != NULL ? sizes[i] : size_bytes;
		const size_t digits = hops_text(hops, i, shown);
		if (i > 0)
			at = WRITE(at, ",");
		at = write_key(at, &ids[i], key, size, shown, digits);
		key += size;
	}
	at = WRITE(at, TAIL);
	body->len = (size_t)(at - (char *)body->data);
	assert(body->len == text_len);
	*out = body;
	return QG_OK;
}

/* --- over HTTP -------------------------------------------------------------------- */

static void
set_retry_after(qg_http_request *http, uint32_t s)
{
	char value[16];
	const int n = snprintf(value, sizeof value, "%" PRIu32, s < RETRY_MIN_S ? RETRY_MIN_S : s);
	assert(n > 0 && (size_t)n < sizeof value);
	qg_http_set_header(http, "Retry-After", value);
}

static void
answer_error(qg_http_request *http, int status, const char *message, const qg_014_problem *why)
{
	const size_t n_details = why != NULL ? why->n_details : 0;
	const char *const *details = why != NULL ? why->details : NULL;
	const size_t len = qg_014_error_json(message, details, n_details, NULL, 0);
	char *buf = malloc(len);
	if (buf == NULL) {
		qg_http_answer(http, status, NULL, NULL, 0);
		return;
	}
	(void)qg_014_error_json(message, details, n_details, buf, len);
	qg_http_answer(http, status, JSON_TYPE, buf, len);
	free(buf);
}

void
qg_014_answer(qg_http_request *http, qg_014_outcome *o)
{
	if (o->err == QG_OK) {
		qg_secret *body = o->body;
		o->body = NULL;
		qg_http_answer_secret(http, 200, JSON_TYPE, body);
		return;
	}
	const struct verdict *v = verdict_of(o->method, o->err);
	if (v->retry)
		set_retry_after(http, o->retry_after_s);
	if (v->status == 401)
		qg_http_answer(http, 401, NULL, NULL, 0);
	else if (v->message != NULL)
		answer_error(http, v->status, v->message, NULL);
	else
		answer_error(http, v->status, o->why != NULL ? o->why->message : v->reason, o->why);
}

/* Four names of 255 bytes, and every one of them escaped, is more than most: what does not
 * fit is written a second time. */
void
qg_014_answer_status(qg_http_request *http, const qg_014_status *st)
{
	char small[1024];
	const size_t len = qg_014_status_json(st, small, sizeof small);
	if (len <= sizeof small) {
		qg_http_answer(http, 200, JSON_TYPE, small, len);
		return;
	}
	char *buf = malloc(len);
	if (buf == NULL) {
		qg_014_answer(http, &(qg_014_outcome){.method = QG_014_STATUS, .err = QG_E_NOMEM});
		return;
	}
	(void)qg_014_status_json(st, buf, len);
	qg_http_answer(http, 200, JSON_TYPE, buf, len);
	free(buf);
}
