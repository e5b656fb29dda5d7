/* SPDX-License-Identifier: Apache-2.0 */
/* Profile `http-push`, as AIT published it: the key manager opens a stream at
 * the QKD module and asks for key once, and the module pushes it, each chunk in
 * a request of its own to the key manager. */
#include "etsi004_members_internal.h"
#include "http_text_internal.h"

#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

#define TYPE "application/json"
#define LENGTH_DIGITS 7

/* The calls, and the status of HTTP for a success. */
static const struct {
	const char *method, *path;
	unsigned success;
} calls[] = {
	[QG_ETSI004_OPEN_CONNECT] = {"POST", "/api/v1/kms/etsi004/open-connect", 201},
	[QG_ETSI004_GET_KEY] = {"GET", "/api/v1/kms/etsi004/get-key", 205},
	[QG_ETSI004_CLOSE] = {"PUT", "/api/v1/kms/etsi004/close", 204},
};

static const struct {
	unsigned status;
	const char *reason;
} reasons[] = {
	{201, "Created"},     {204, "No Content"},
	{205, "Reset Content"}, {400, "Bad Request"},
	{500, "Internal Server Error"},
};

/* --- frames -------------------------------------------------------------------- */

static qg_err
http_frame(const qg_etsi004_profile *p, const uint8_t *bytes, size_t n, size_t *total)
{
	(void)p;
	return qg_http_text_frame(bytes, n, total);
}

/* A message being written: its body begins behind a head whose length is known
 * before the body's is. */
typedef struct http_message {
	qg_writer w;
	size_t length_at, body_at;
} http_message;

static http_message
message_begin(const qg_writer *w)
{
	http_message m = {.w = qg_writer_of(w->buf + w->len, w->room - w->len)};
	m.w.bad = w->bad;
	return m;
}

static void
put_head_end(http_message *m)
{
	static const char blanks[] = "       ";
	qg_json_put(&m->w, "Content-Type: " TYPE "\r\nContent-Length:");
	m->length_at = m->w.len;
	qg_put_bytes(&m->w, blanks, LENGTH_DIGITS);
	qg_json_put(&m->w, "\r\n\r\n");
	m->body_at = m->w.len;
}

/* The length goes to the right end of its place; blanks before it are allowed. */
static qg_err
message_end(qg_writer *w, http_message *m)
{
	if (m->w.bad || m->w.len > QG_ETSI004_FRAME_MAX)
		return QG_E_RANGE;
	size_t at = m->length_at + LENGTH_DIGITS, n = m->w.len - m->body_at;
	if (m->length_at > 0) {
		do
			m->w.buf[--at] = (uint8_t)('0' + n % 10);
		while ((n /= 10) != 0);
	}
	w->len += m->w.len;
	return QG_OK;
}

static void
put_request_head(http_message *m, const char *method, const char *path, const char *authority)
{
	const char *const parts[] = {method, " ", path, " HTTP/1.1\r\nHost: ", authority != NULL ? authority : "",
				     "\r\n"};
	for (size_t i = 0; i < COUNT(parts); i++)
		qg_json_put(&m->w, parts[i]);
	put_head_end(m);
}

/* The head and body of a whole message. */
static qg_err
message_open(uint8_t *frame, size_t n, bool response, qg_http_head *h, uint8_t **body, size_t *body_len)
{
	size_t size;
	qg_err err = qg_http_head_get(frame, n, h, &size);
	if (err != QG_OK)
		return err == QG_E_AGAIN ? QG_E_PARSE : err;
	if (h->response != response)
		return QG_E_PARSE;
	return qg_http_body_get(frame, n, h, size, body, body_len);
}

/* --- requests -------------------------------------------------------------------- */

static qg_err
http_put_request(const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_writer *w)
{
	(void)p;
	if (q->op > QG_ETSI004_CLOSE)
		return QG_E_INVAL;
	if (!qg_members_fit_request(q))
		return QG_E_RANGE;
	http_message m = message_begin(w);
	put_request_head(&m, calls[q->op].method, calls[q->op].path, q->authority);
	qg_members_put_request(&m.w, q, false);
	return message_end(w, &m);
}

static bool
is(const char *p, size_t n, const char *text)
{
	return n == strlen(text) && memcmp(p, text, n) == 0;
}

static qg_err
http_get_request(const qg_etsi004_profile *p, uint8_t *frame, size_t n, qg_etsi004_request *q)
{
	(void)p;
	qg_http_head h;
	qg_members m;
	qg_etsi004_request got;
	uint8_t *body = NULL;
	size_t len = 0, op = 0;
	qg_err err = message_open(frame, n, false, &h, &body, &len);
	if (err != QG_OK)
		return err;
	while (op <= QG_ETSI004_CLOSE && !(is(h.method, h.method_len, calls[op].method) &&
					   is(h.target, h.target_len, calls[op].path)))
		op++;
	if (op > QG_ETSI004_CLOSE)
		return QG_E_UNSUPPORTED;
	err = qg_members_get(body, len, false, &m);
	if (err == QG_OK)
		err = qg_members_request(&m, (qg_etsi004_op)op, &got);
	if (err == QG_OK) {
		got.last = h.close;
		*q = got;
	}
	return err;
}

/* --- answers --------------------------------------------------------------------- */

/* The status of HTTP for one of table 2. */
static unsigned
http_status(const qg_etsi004_response *a)
{
	switch (a->status) {
	case QG_ETSI004_SUCCESS:
	case QG_ETSI004_PEER_NOT_CONNECTED:
		return calls[a->op].success;
	case QG_ETSI004_NO_PEER:
	case QG_ETSI004_IN_USE:
	case QG_ETSI004_METADATA_SIZE:
		return 400;
	default:
		return 500;
	}
}

static void
put_status_line(http_message *m, unsigned status)
{
	const char *reason = "";
	for (size_t i = 0; i < COUNT(reasons); i++)
		if (reasons[i].status == status)
			reason = reasons[i].reason;
	qg_json_put(&m->w, "HTTP/1.1 ");
	qg_json_put_uint(&m->w, status);
	qg_json_put(&m->w, " ");
	qg_json_put(&m->w, reason);
	qg_json_put(&m->w, "\r\n");
}

static qg_err
http_put_response(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w)
{
	if (a->op > QG_ETSI004_ERROR || a->key_len > 0 || a->metadata_len > 0)
		return QG_E_INVAL;
	if (!qg_members_fit_response(a))
		return QG_E_RANGE;
	http_message m = message_begin(w);
	unsigned status = a->op == QG_ETSI004_ERROR ? 400 : http_status(a);
	put_status_line(&m, status);
	if (a->last)
		qg_json_put(&m.w, "Connection: close\r\n");
	if (status == 204 || status == 205) {
		qg_json_put(&m.w, status == 205 ? "Content-Length: 0\r\n\r\n" : "\r\n");
		return message_end(w, &m);
	}
	put_head_end(&m);
	qg_json_put(&m.w, "{\"status\":");
	qg_json_put_uint(&m.w, qg_etsi004_status_to_wire(p, a->status));
	if (a->op == QG_ETSI004_OPEN_CONNECT)
		qg_members_put_open(&m.w, a, false);
	qg_json_put(&m.w, "}");
	return message_end(w, &m);
}

/* The status of table 2: that of the body, or, where it has none, what HTTP says. */
static uint32_t
status_of(const qg_etsi004_profile *p, const qg_http_head *h, const qg_members *m)
{
	bool success = h->status >= 200 && h->status < 300;
	uint32_t status = qg_etsi004_status_of_wire(p, m->status);
	if (success)
		return QG_HAS(m, QG_MEMBER_STATUS) ? status : QG_ETSI004_SUCCESS;
	if (QG_HAS(m, QG_MEMBER_STATUS) && status > QG_ETSI004_PEER_NOT_CONNECTED)
		return status;
	return h->status == 503 ? QG_ETSI004_TIMEOUT : QG_ETSI004_NO_CONNECTION;
}

/* The members of an answer's body. Where it says an error, the body need not be
 * JSON: then it has none. */
static qg_err
answer_open(uint8_t *frame, size_t n, qg_http_head *h, qg_members *m)
{
	uint8_t *body = NULL;
	size_t len = 0;
	qg_err err = message_open(frame, n, true, h, &body, &len);
	if (err != QG_OK)
		return err;
	if (h->status < 200)
		return QG_E_UNSUPPORTED;
	err = len > 0 ? qg_members_get(body, len, false, m) : QG_OK;
	if (len == 0 || (err == QG_E_PARSE && h->status >= 300)) {
		*m = (qg_members){.source = "", .destination = "", .command = "", .qos.mimetype = ""};
		err = QG_OK;
	}
	return err;
}

static qg_err
http_get_response(const qg_etsi004_profile *p, const qg_etsi004_due *due, uint8_t *frame, size_t n,
		  qg_etsi004_response *a)
{
	qg_http_head h;
	qg_members m;
	qg_err err = answer_open(frame, n, &h, &m);
	if (err != QG_OK)
		return err;
	uint32_t status = status_of(p, &h, &m);
	qg_etsi004_response got = {.op = due->op, .status = status, .qos.mimetype = ""};
	/* The answer to GET_KEY carries no key, and one to OPEN_CONNECT without a
	 * body is all that was asked for. */
	if (due->op == QG_ETSI004_OPEN_CONNECT && (m.seen != 0 || status > QG_ETSI004_PEER_NOT_CONNECTED))
		err = qg_members_response(&m, due, status, &got);
	if (err != QG_OK)
		return err;
	got.last = h.close;
	*a = got;
	return QG_OK;
}

/* --- pushes ------------------------------------------------------------------------ */

#define KSID_OBJECT ((size_t)sizeof "{\"key_stream_id\":\"\"}" - 1 + QG_UUID_TEXT - 1)

static void
put_pushed(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w)
{
	qg_json_put(w, "{\"status\":");
	qg_json_put_uint(w, qg_etsi004_status_to_wire(p, a->status));
	qg_json_put(w, ",\"index\":");
	qg_json_put_uint(w, a->index);
	qg_json_put(w, ",\"key_buffer\":");
	qg_json_put_base64(w, a->key, a->key_len);
	qg_json_put(w, ",\"metadata\":{\"size\":");
	qg_json_put_uint(w, (uint32_t)KSID_OBJECT);
	qg_json_put(w, ",\"buffer\":{\"key_stream_id\":");
	qg_members_put_uuid(w, &a->ksid);
	qg_json_put(w, "}}}");
}

static qg_err
push_put(const qg_etsi004_profile *p, const qg_etsi004_response *a, const char *authority, qg_writer *w)
{
	if (a->op != QG_ETSI004_GET_KEY)
		return QG_E_INVAL;
	if (!qg_members_fit_response(a))
		return QG_E_RANGE;
	http_message m = message_begin(w);
	put_request_head(&m, p->push->method, p->push->path, authority);
	put_pushed(p, a, &m.w);
	return message_end(w, &m);
}

static qg_err
push_put_body(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w)
{
	qg_writer m = *w;
	if (a->op != QG_ETSI004_GET_KEY)
		return QG_E_INVAL;
	if (!qg_members_fit_response(a))
		return QG_E_RANGE;
	put_pushed(p, a, &m);
	if (m.bad)
		return QG_E_RANGE;
	*w = m;
	return QG_OK;
}

/* Key is base64 here, whatever its size. */
static qg_err
push_get(const qg_etsi004_profile *p, uint8_t *body, size_t n, qg_etsi004_response *a)
{
	static const qg_etsi004_due due = {.op = QG_ETSI004_GET_KEY};
	qg_members m;
	qg_etsi004_response got;
	qg_err err = qg_members_get(body, n, false, &m);
	if (err == QG_OK)
		err = qg_members_response(&m, &due, qg_etsi004_status_of_wire(p, m.status), &got);
	if (err == QG_OK && qg_uuid_is_null(&got.ksid))
		err = QG_E_PARSE;
	if (err == QG_OK)
		*a = got;
	return err;
}

static qg_err
push_put_answer(const qg_etsi004_profile *p, uint32_t status, qg_writer *w)
{
	qg_writer m = *w;
	qg_json_put(&m, "{\"status\":");
	qg_json_put_uint(&m, qg_etsi004_status_to_wire(p, status));
	qg_json_put(&m, "}");
	if (m.bad)
		return QG_E_RANGE;
	*w = m;
	return QG_OK;
}

static qg_err
push_get_answer(const qg_etsi004_profile *p, uint8_t *frame, size_t n, uint32_t *status, unsigned *http)
{
	qg_http_head h;
	qg_members m;
	qg_err err = answer_open(frame, n, &h, &m);
	if (err != QG_OK)
		return err;
	*status = status_of(p, &h, &m);
	*http = h.status;
	return QG_OK;
}

/* --- the table ---------------------------------------------------------------------- */

/* The first letters of the methods. */
static bool
http_begins(uint8_t first)
{
	return first == 'G' || first == 'P';
}

static qg_err
http_detect(const uint8_t *frame, size_t n, const qg_etsi004_profile **out)
{
	(void)frame;
	(void)n;
	*out = &qg_etsi004_http_push;
	return QG_OK;
}

static const qg_etsi004_family http_family = {.begins = http_begins, .detect = http_detect};

static const qg_etsi004_push_ops http_push_ops = {
	"POST", "/api/v1/qkd/etsi004/key-material", TYPE,
	.put = push_put,
	.put_body = push_put_body,
	.get = push_get,
	.put_answer = push_put_answer,
	.get_answer = push_get_answer,
};

const qg_etsi004_profile qg_etsi004_http_push = {
	.name = "http-push",
	.family = &http_family,
	.modes = QG_ETSI004_PUSH,
	.push = &http_push_ops,
	.persistent = true,
	.in_flight = 1,
	.request_max = 16384,
	.frame = http_frame,
	.put_request = http_put_request,
	.get_request = http_get_request,
	.put_response = http_put_response,
	.get_response = http_get_response,
};
