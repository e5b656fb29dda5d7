/* SPDX-License-Identifier: Apache-2.0 */
/* The dashboard: the files of src/dashboard, as they were built in. They hold nothing
 * of this gateway; all that they show they ask for under /api/v1. */
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/embed.h"

#define INDEX "index.html"

static const struct {
	const char *suffix, *type;
} types[] = {
	{".html", "text/html; charset=utf-8"},
	{".css", "text/css; charset=utf-8"},
	{".js", "text/javascript; charset=utf-8"},
	{".svg", "image/svg+xml"},
};

/* No script, style or connection but of and to this gateway, no text that becomes
 * markup, no frame around it. Strict-Transport-Security is missing on purpose: it
 * would hold for every port of the host. */
static const char *const headers[][2] = {
	{"Content-Security-Policy",
	 "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
	 "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
	 "trusted-types 'none'"},
	{"X-Frame-Options", "DENY"},
	{"Referrer-Policy", "no-referrer"},
	{"Cross-Origin-Opener-Policy", "same-origin"},
	{"Permissions-Policy", "camera=(), microphone=(), geolocation=(), usb=(), payment=()"},
	{"Cache-Control", "private, no-cache"}, /* kept, and asked for again with its ETag */
};

void
qg_admin_guard_answer(qg_http_request *http)
{
	qg_http_set_header(http, "X-Content-Type-Options", "nosniff");
	qg_http_set_header(http, "Cross-Origin-Resource-Policy", "same-origin");
}

static const char *
type_of(const char *name)
{
	const char *const suffix = strrchr(name, '.');
	for (size_t i = 0; suffix != NULL && i < sizeof types / sizeof types[0]; i++)
		if (strcmp(types[i].suffix, suffix) == 0)
			return types[i].type;
	return "application/octet-stream";
}

/* Names are compared whole with those that were built in: no path leads elsewhere. */
static const qg_page *
find_page(const char *name)
{
	for (size_t i = 0; i < qg_n_pages; i++)
		if (strcmp(qg_pages[i].name, name) == 0)
			return &qg_pages[i];
	return NULL;
}

static void
answer_page(qg_http_request *http, const char *name)
{
	const qg_page *const page = find_page(name);
	if (page == NULL) {
		qg_admin_answer_error(http, QG_E_NOTFOUND, "no such file");
		return;
	}
	const char *const known = qg_http_header(http, "If-None-Match");
	for (size_t i = 0; i < sizeof headers / sizeof headers[0]; i++)
		qg_http_set_header(http, headers[i][0], headers[i][1]);
	qg_admin_guard_answer(http);
	qg_http_set_header(http, "ETag", page->etag);
	if (known != NULL && strstr(known, page->etag) != NULL)
		qg_http_answer(http, 304, NULL, NULL, 0);
	else
		qg_http_answer(http, 200, type_of(page->name), page->text, page->len);
}

void
qg_admin_on_index(qg_http_request *http, void *admin)
{
	(void)admin;
	answer_page(http, INDEX);
}

void
qg_admin_on_page(qg_http_request *http, void *admin)
{
	(void)admin;
	answer_page(http, qg_http_path_part(http, 0));
}
