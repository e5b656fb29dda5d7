/* SPDX-License-Identifier: Apache-2.0 */
#include "http_text_internal.h"

#include <string.h>
#include <strings.h>

#include "qkdgate/etsi004.h"

#define BODY_MAX (QG_ETSI004_FRAME_MAX - QG_HTTP_HEAD_MAX)
#define CHUNK_LINE_MAX 64 /* of a chunk's size, or a trailer */

/* --- lines -------------------------------------------------------------------- */

/* A line without its CRLF. */
typedef struct line {
	const char *p;
	size_t n;
} line;

/* Takes a line off the reader. QG_E_AGAIN: none is whole; QG_E_PARSE: bytes that
 * no line has. */
static qg_err
take_line(qg_reader *r, size_t max, line *l)
{
	const uint8_t *end = memchr(r->p, '\n', r->left < max ? r->left : max);
	if (end == NULL)
		return r->left < max ? QG_E_AGAIN : QG_E_RANGE;
	size_t n = (size_t)(end - r->p);
	if (n == 0 || r->p[n - 1] != '\r')
		return QG_E_PARSE;
	*l = (line){.p = (const char *)r->p, .n = n - 1};
	for (size_t i = 0; i < l->n; i++)
		if (((uint8_t)l->p[i] < 0x20 && l->p[i] != '\t') || l->p[i] == 0x7f)
			return QG_E_PARSE;
	(void)qg_get_bytes(r, n + 1);
	return QG_OK;
}

static bool
line_is(const line *l, const char *text)
{
	return l->n == strlen(text) && strncasecmp(l->p, text, l->n) == 0;
}

/* What stands before the separator; *rest is what is behind it. */
static bool
split(const line *l, char separator, line *first, line *rest)
{
	const char *at = memchr(l->p, separator, l->n);
	if (at == NULL)
		return false;
	*first = (line){.p = l->p, .n = (size_t)(at - l->p)};
	*rest = (line){.p = at + 1, .n = l->n - first->n - 1};
	return true;
}

static void
trim(line *l)
{
	while (l->n > 0 && (l->p[0] == ' ' || l->p[0] == '\t')) {
		l->p++;
		l->n--;
	}
	while (l->n > 0 && (l->p[l->n - 1] == ' ' || l->p[l->n - 1] == '\t'))
		l->n--;
}

static bool
is_token(const line *l)
{
	static const char others[] = "!#$%&'*+-.^_`|~";
	for (size_t i = 0; i < l->n; i++) {
		char c = l->p[i];
		bool alnum = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
		if (!alnum && (c == '\0' || strchr(others, c) == NULL))
			return false;
	}
	return l->n > 0;
}

/* A number in base 10 or 16 of at most 8 digits. */
static bool
number(const line *l, unsigned base, size_t *out)
{
	size_t v = 0;
	for (size_t i = 0; i < l->n; i++) {
		char c = l->p[i], lower = (char)(c | 0x20);
		unsigned d = c >= '0' && c <= '9'	 ? (unsigned)(c - '0')
			     : lower >= 'a' && lower <= 'f' ? (unsigned)(lower - 'a') + 10
							    : 16;
		if (d >= base)
			return false;
		v = v * base + d;
	}
	*out = v;
	return l->n > 0 && l->n <= 8;
}

/* --- the head ------------------------------------------------------------------ */

static bool
version(const line *l, qg_http_head *h)
{
	h->minor_0 = line_is(l, "HTTP/1.0");
	return h->minor_0 || line_is(l, "HTTP/1.1");
}

static bool
start_line(const line *l, qg_http_head *h)
{
	line first, rest, second, third;
	size_t status = 0;
	if (!split(l, ' ', &first, &rest))
		return false;
	if (first.n > 5 && strncmp(first.p, "HTTP/", 5) == 0) {
		h->response = true;
		second = (line){.p = rest.p, .n = rest.n < 3 ? rest.n : 3};
		bool fine = version(&first, h) && second.n == 3 && number(&second, 10, &status) && status >= 100 &&
			    (rest.n == 3 || rest.p[3] == ' ');
		h->status = (unsigned)status;
		return fine;
	}
	if (!is_token(&first) || !split(&rest, ' ', &second, &third) || second.n == 0 || !version(&third, h))
		return false;
	h->method = first.p;
	h->method_len = first.n;
	h->target = second.p;
	h->target_len = second.n;
	return true;
}

static qg_err
content_length(const line *value, qg_http_head *h)
{
	if (h->has_length || !number(value, 10, &h->length))
		return QG_E_PARSE;
	h->has_length = true;
	return h->length <= BODY_MAX ? QG_OK : QG_E_RANGE;
}

static qg_err
header(const line *l, qg_http_head *h)
{
	line name, value;
	if (!split(l, ':', &name, &value) || !is_token(&name))
		return QG_E_PARSE;
	trim(&value);
	if (line_is(&name, "content-length"))
		return content_length(&value, h);
	if (line_is(&name, "transfer-encoding")) {
		if (h->chunked || !line_is(&value, "chunked"))
			return QG_E_PARSE;
		h->chunked = true;
	}
	if (line_is(&name, "connection") && line_is(&value, "close"))
		h->close = true;
	return QG_OK;
}

qg_err
qg_http_head_get(const uint8_t *p, size_t n, qg_http_head *head, size_t *size)
{
	qg_http_head h = {.response = false};
	qg_reader r = qg_reader_of(p, n);
	line l;
	qg_err err = take_line(&r, QG_HTTP_HEAD_MAX, &l);
	if (err == QG_OK && !start_line(&l, &h))
		err = QG_E_PARSE;
	while (err == QG_OK) {
		size_t used = n - r.left;
		if (used >= QG_HTTP_HEAD_MAX)
			return QG_E_RANGE;
		err = take_line(&r, QG_HTTP_HEAD_MAX - used, &l);
		if (err != QG_OK || l.n == 0)
			break;
		err = header(&l, &h);
	}
	if (err == QG_OK && h.chunked && (h.has_length || h.minor_0))
		err = QG_E_PARSE;
	if (err != QG_OK)
		return err;
	h.close = h.close || h.minor_0;
	*head = h;
	*size = n - r.left;
	return QG_OK;
}

/* --- the body ------------------------------------------------------------------- */

/* The next chunk's data in front of r; its length, 0 for the last. */
static qg_err
chunk_begin(qg_reader *r, size_t *n)
{
	line l, size, extension;
	qg_err err = take_line(r, CHUNK_LINE_MAX, &l);
	if (err != QG_OK)
		return err == QG_E_RANGE ? QG_E_PARSE : err;
	if (!split(&l, ';', &size, &extension))
		size = l;
	trim(&size);
	if (!number(&size, 16, n))
		return QG_E_PARSE;
	return *n <= BODY_MAX ? QG_OK : QG_E_RANGE;
}

/* Passes the chunks; joins their data at `to` unless that is NULL. */
static qg_err
pass_chunks(qg_reader *r, uint8_t *to, size_t *joined)
{
	line l;
	*joined = 0;
	for (;;) {
		size_t n = 0;
		qg_err err = chunk_begin(r, &n);
		if (err != QG_OK)
			return err;
		if (n == 0)
			break;
		if (*joined + n > BODY_MAX)
			return QG_E_RANGE;
		if (r->left < n + 2)
			return QG_E_AGAIN;
		const uint8_t *data = qg_get_bytes(r, n);
		if (to != NULL)
			memmove(to + *joined, data, n);
		*joined += n;
		err = take_line(r, CHUNK_LINE_MAX, &l);
		if (err != QG_OK || l.n != 0)
			return QG_E_PARSE;
	}
	do { /* trailers */
		qg_err err = take_line(r, QG_HTTP_HEAD_MAX, &l);
		if (err != QG_OK)
			return err;
	} while (l.n != 0);
	return QG_OK;
}

/* A body that ends with the connection is not taken. */
static bool
without_body(const qg_http_head *h)
{
	return !h->response || h->status < 200 || h->status == 204 || h->status == 205 || h->status == 304;
}

qg_err
qg_http_text_frame(const uint8_t *p, size_t n, size_t *total)
{
	qg_http_head h;
	size_t size, joined;
	qg_err err = qg_http_head_get(p, n, &h, &size);
	if (err != QG_OK)
		return err;
	if (!h.chunked) {
		if (!h.has_length && !without_body(&h))
			return QG_E_PARSE;
		*total = size + h.length;
		return QG_OK;
	}
	qg_reader r = qg_reader_of(p + size, n - size);
	err = pass_chunks(&r, NULL, &joined);
	if (err == QG_OK)
		*total = n - r.left;
	else if (err == QG_E_AGAIN && n >= QG_ETSI004_FRAME_MAX)
		err = QG_E_RANGE;
	return err;
}

qg_err
qg_http_body_get(uint8_t *frame, size_t n, const qg_http_head *head, size_t head_size, uint8_t **body,
		 size_t *body_len)
{
	size_t joined = n - head_size;
	if (head->chunked) {
		qg_reader r = qg_reader_of(frame + head_size, n - head_size);
		qg_err err = pass_chunks(&r, frame + head_size, &joined);
		if (err != QG_OK || r.left != 0)
			return QG_E_PARSE;
	} else if (joined != head->length) {
		return QG_E_PARSE;
	}
	*body = frame + head_size;
	*body_len = joined;
	return QG_OK;
}
