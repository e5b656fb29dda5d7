/* SPDX-License-Identifier: Apache-2.0 */
/* A request between its first header and its answer: what it may be, its body,
 * and what handlers ask of it. */
#include <assert.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "http_internal.h"

enum {
	BAD_REQUEST = 400,
	NOT_FOUND = 404,
	METHOD_NOT_ALLOWED = 405,
	CONTENT_TOO_LARGE = 413,
	UNAVAILABLE = 503,
};

/* --- birth and death ------------------------------------------------------ */

qg_http_request *
qg_http_request_new(const char *method, const char *raw_target)
{
	qg_http_request *req = calloc(1, sizeof *req + 2 * (strlen(raw_target) + 1));
	if (req == NULL)
		return NULL;
	atomic_init(&req->refs, 1);
	atomic_init(&req->late, QG_HTTP_OPEN);
	req->target.path = req->scratch;
	/* A longer method is none of ours, also when cut. */
	memcpy(req->method, method, strnlen(method, QG_HTTP_METHOD_MAX - 1));
	return req;
}

void
qg_http_request_put(qg_http_request *req)
{
	if (atomic_fetch_sub(&req->refs, 1) != 1)
		return;
	qg_secret_free(&req->body);
	while (req->fields != NULL) {
		qg_http_field *next = req->fields->next;
		free(req->fields->value);
		free(req->fields);
		req->fields = next;
	}
	free(req);
}

void
qg_http_request_join(qg_http_request *req, qg_http_request **list)
{
	req->prev = NULL;
	req->next = *list;
	if (req->next != NULL)
		req->next->prev = req;
	*list = req;
}

void
qg_http_request_leave(qg_http_request *req, qg_http_request **list)
{
	if (req->prev != NULL)
		req->prev->next = req->next;
	else
		*list = req->next;
	if (req->next != NULL)
		req->next->prev = req->prev;
}

/* --- refusing ------------------------------------------------------------- */

void
qg_http_refuse(qg_http_request *req, int status, const char *fmt, ...)
{
	if (req->refused != 0)
		return;
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(req->refused_text, sizeof req->refused_text, fmt, ap) < 0)
		req->refused_text[0] = '\0';
	va_end(ap);
	req->refused = status;
}

void
qg_http_find_route(qg_http_request *req, const qg_router *router, const char *raw_target)
{
	qg_err err = qg_target_parse(raw_target, req->scratch, &req->target);
	if (err == QG_OK)
		err = qg_router_match(router, req->method, &req->target, &req->match, req->allow);
	switch (err) {
	case QG_OK:
		break;
	case QG_E_PARSE:
		qg_http_refuse(req, BAD_REQUEST, "the path or query has a bad escape or character");
		break;
	case QG_E_RANGE:
		qg_http_refuse(req, BAD_REQUEST, "more than %d query arguments", QG_TARGET_QUERY_MAX);
		break;
	case QG_E_UNSUPPORTED:
		qg_http_refuse(req, METHOD_NOT_ALLOWED, "this path allows only %s", req->allow);
		break;
	default:
		qg_http_refuse(req, NOT_FOUND, "no such path");
		break;
	}
}

static void
refuse_body(qg_http_request *req, size_t limit)
{
	if (limit == 0)
		qg_http_refuse(req, BAD_REQUEST, "this request takes no body");
	else
		qg_http_refuse(req, CONTENT_TOO_LARGE, "the body is larger than %zu bytes", limit);
}

/* --- the body ------------------------------------------------------------- */

static size_t
body_limit(const qg_http_request *req)
{
	return req->match.route != NULL ? req->match.route->body_limit : 0;
}

/* A name as in "Content-Length : 5" passes for none that we know, and whoever
 * is in front of us may have known it (RFC 9112, 5.1). */
static bool
is_token(const char *s)
{
#define BIT(c) (UINT64_C(1) << (c) % 64)
#define RUN(first, n) (((UINT64_C(1) << (n)) - 1) << (first) % 64)
	static const uint64_t tchar[4] = {
		BIT('!') | BIT('#') | BIT('$') | BIT('%') | BIT('&') | BIT('\'') | BIT('*') | BIT('+') | BIT('-') |
			BIT('.') | RUN('0', 10),
		RUN('A', 26) | BIT('^') | BIT('_') | BIT('`') | RUN('a', 26) | BIT('|') | BIT('~'),
	};
	const unsigned char *p = (const unsigned char *)s;
	while ((tchar[*p / 64] & BIT(*p)) != 0)
		p++;
	return *p == '\0' && s[0] != '\0';
#undef BIT
#undef RUN
}

void
qg_http_see_field(qg_http_framing *f, const char *name, const char *value)
{
	if (strcasecmp(name, "Content-Length") == 0) {
		f->n_lengths++;
		f->length = value;
	} else if (strcasecmp(name, "Transfer-Encoding") == 0) {
		f->n_codings++;
		f->coding = value;
	} else if (strcasecmp(name, QG_REQUEST_ID_HEADER) == 0) {
		f->n_request_ids++;
		f->request_id = value;
	} else {
		f->bad_name = f->bad_name || !is_token(name);
	}
}

/* Why nobody can say for sure where the request ends, or NULL. */
static const char *
ambiguity(const qg_http_framing *f)
{
	if (f->bad_name)
		return "the name of a header has a bad character";
	if (f->n_lengths > 1)
		return "more than one Content-Length";
	if (f->n_codings > 1 || (f->n_codings == 1 && strcasecmp(f->coding, "chunked") != 0))
		return "the only transfer coding taken is chunked";
	/* Whoever is in front of us may have believed the other one. */
	if (f->n_codings == 1 && f->n_lengths == 1)
		return "Transfer-Encoding and Content-Length exclude each other";
	return NULL;
}

bool
qg_http_foresee_body(qg_http_request *req, const qg_http_framing *f)
{
	size_t limit = body_limit(req);
	const char *wrong = ambiguity(f);
	if (wrong != NULL) {
		qg_http_refuse(req, BAD_REQUEST, "%s", wrong);
		return false;
	}
	if (f->length == NULL)
		return true;
	unsigned long long n = strtoull(f->length, NULL, 10); /* libmicrohttpd took only digits that fit 64 bits */
	if (n > limit)
		refuse_body(req, limit);
	return n <= limit || n - limit <= QG_HTTP_SWALLOW_BYTES;
}

/* Makes room for n more bytes, by doubling: memory is taken as bytes come, not
 * as they are announced. */
static qg_err
grow_body(qg_http_request *req, size_t n, size_t limit)
{
	size_t have = req->body != NULL ? req->body->len : 0;
	if (req->body != NULL && n <= req->body->room - have)
		return QG_OK;
	size_t room = n > have ? have + n : 2 * have; /* both within twice the limit */
	qg_secret *bigger = NULL;
	qg_err err = qg_secret_new(room < limit ? room : limit, &bigger);
	if (err != QG_OK)
		return err;
	if (req->body != NULL)
		err = qg_secret_append(bigger, req->body->data, have);
	qg_secret_free(&req->body);
	req->body = bigger;
	return err;
}

bool
qg_http_take_body(qg_http_request *req, void *data, size_t n)
{
	size_t limit = body_limit(req);
	size_t have = req->body != NULL ? req->body->len : 0;
	if (req->refused == 0 && n > limit - have)
		refuse_body(req, limit);
	if (req->refused == 0 &&
	    (grow_body(req, n, limit) != QG_OK || qg_secret_append(req->body, data, n) != QG_OK))
		qg_http_refuse(req, UNAVAILABLE, "out of memory");
	if (req->refused != 0) {
		qg_secret_free(&req->body);
		req->swallowed += n;
	}
	qg_wipe(data, n);
	return req->swallowed <= QG_HTTP_SWALLOW_BYTES + limit;
}

/* --- what handlers ask ---------------------------------------------------- */

const void *
qg_http_peer(const qg_http_request *req)
{
	return req->peer;
}

const void *
qg_http_visitor(const qg_http_request *req)
{
	return req->visitor ? req->peer : NULL;
}

const char *
qg_http_path_part(const qg_http_request *req, size_t n)
{
	return n < req->match.n_parts ? req->match.part[n] : NULL;
}

size_t
qg_http_query_count(const qg_http_request *req)
{
	return req->target.n_query;
}

void
qg_http_query_at(const qg_http_request *req, size_t n, const char **name, const char **value)
{
	assert(n < req->target.n_query);
	*name = req->target.query[n].name;
	*value = req->target.query[n].value;
}

const char *
qg_http_body(const qg_http_request *req, size_t *len)
{
	*len = req->body != NULL ? req->body->len : 0;
	return req->body != NULL ? (const char *)req->body->data : "";
}

const char *
qg_http_method(const qg_http_request *req)
{
	return req->method;
}

const char *
qg_http_path(const qg_http_request *req)
{
	return req->target.path;
}

void
qg_http_set_header(qg_http_request *req, const char *name, const char *value)
{
	size_t len = strlen(name) + 1;
	qg_http_field *f = malloc(sizeof *f + len);
	char *copy = strdup(value);
	if (f == NULL || copy == NULL) {
		free(f);
		free(copy);
		return;
	}
	memcpy(f->name, name, len);
	f->value = copy;
	f->next = req->fields;
	req->fields = f;
}
