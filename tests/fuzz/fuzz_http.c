/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes on a connection to a running server: libmicrohttpd, our checks of
 * how requests end, the router, bodies and answers. The first byte says where
 * the bytes are cut in two. A handler sees only what its route allows, and each
 * call of one is one answer. */
#include "fuzz_client.h"

#include <stdatomic.h>

#include "qkdgate/http_server.h"

#define BODY_LIMIT 4096
#define REFUSED "refused"

static char folder[64];
static char path[80];
static qg_http_server *server;
static atomic_uint handled;
static const char anybody[] = "anybody";

/* --- the server ------------------------------------------------------------ */

static const void *
identify(const qg_http_local *who, void *ctx)
{
	(void)ctx;
	HOLDS(who->known && who->uid == getuid());
	return anybody;
}

static size_t
error_body(int status, const char *text, char *buf, size_t room)
{
	HOLDS(status >= 400 && status < 600 && text[0] != '\0');
	int n = snprintf(buf, room, REFUSED " %d", status);
	return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static void
look(qg_http_request *req, size_t limit)
{
	size_t len = 0;
	const char *body = qg_http_body(req, &len);
	atomic_fetch_add(&handled, 1);
	HOLDS(qg_http_peer(req) == anybody && len <= limit);
	HOLDS(len == 0 || memchr(body, 0, len) != body + len);
	const char *part = qg_http_path_part(req, 0);
	HOLDS(part == NULL || strchr(part, '/') == NULL || strstr(qg_http_path(req), "%2") != NULL);
	for (size_t i = 0; i < qg_http_query_count(req); i++) {
		const char *name = NULL, *value = NULL;
		qg_http_query_at(req, i, &name, &value);
		HOLDS(name != NULL && value != NULL);
	}
	(void)qg_http_header(req, "Content-Type");
}

static void
on_get(qg_http_request *req, void *ctx)
{
	(void)ctx;
	look(req, 0);
	qg_http_answer(req, 200, "text/plain", "got", 3);
}

static void
on_echo(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_secret *copy = NULL;
	size_t len = 0;
	const char *body = qg_http_body(req, &len);
	look(req, BODY_LIMIT);
	HOLDS(qg_secret_new(len + 1, &copy) == QG_OK && qg_secret_append(copy, body, len) == QG_OK);
	qg_http_answer_secret(req, 200, "text/plain", copy);
}

static void
on_late(qg_http_request *req, void *ctx)
{
	(void)ctx;
	look(req, 16);
	qg_http_defer(req);
	qg_http_set_header(req, "Retry-After", "1");
	qg_http_answer(req, 200, NULL, NULL, 0);
}

static const qg_http_route routes[] = {
	{"GET", "/", on_get, 0},
	{"GET", "/keys/{slave_SAE_ID}/status", on_get, 0},
	{"POST", "/keys/{slave_SAE_ID}/enc_keys", on_echo, BODY_LIMIT},
	{"POST", "/late", on_late, 16},
};

static void
clean(void)
{
	qg_http_server_stop(&server);
	rmdir(folder);
}

static void
setup(void)
{
	char why[256] = "";
	make_folder(folder);
	snprintf(path, sizeof path, "%s/s", folder);
	const qg_http_options o = {
		.transport = QG_HTTP_UNIX,
		.address = path,
		.socket_mode = 0600,
		.max_connections = 16,
		.idle_timeout_s = 60,
		.routes = routes,
		.n_routes = sizeof routes / sizeof routes[0],
		.error_body = error_body,
		.error_type = "text/plain",
		.identify_local = identify,
	};
	HOLDS(qg_http_server_start(&o, &server, why, sizeof why) == QG_OK);
	HOLDS(atexit(clean) == 0);
}

/* --- the client ------------------------------------------------------------- */

/* An answer to HEAD names a length and has no body. */
static bool
has_head(const uint8_t *data, size_t size)
{
	return memmem(data, size, "HEAD", 4) != NULL;
}

static void
check_answers(void)
{
	reply r;
	unsigned good = 0;
	size_t at = 0;
	while (next_reply(&at, &r)) {
		good += r.status == 200;
		HOLDS(r.status != 500);
	}
	/* Where the connection broke, the last ones may not have come. */
	HOLDS(good <= atomic_load(&handled));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (server == NULL)
		setup();
	if (size < 2)
		return 0;
	atomic_store(&handled, 0);
	exchange(path, data + 1, size - 1, (size_t)data[0] * (size - 1) / 255);
	if (!has_head(data + 1, size - 1))
		check_answers();
	return 0;
}
