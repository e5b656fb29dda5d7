/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_HTTP_FIXTURE_H
#define TEST_HTTP_FIXTURE_H

/* A server with some routes, and a client that can misbehave. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>

#include "pki.h"
#include "qkdgate/clock.h"
#include "qkdgate/http_server.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"
#include "seed.h"

#ifndef TIMEOUT_MS
#define TIMEOUT_MS 5000u
#endif

/* --- the server under test ------------------------------------------------ */

static qg_http_server *server;
static atomic_int n_identified;
static atomic_int n_handled;
static atomic_int n_refused;
static _Atomic(qg_http_request *) held; /* by hold() */
static const char alice[] = "alice";

static inline const void *
identify(const qg_tls_identity *id, void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&n_identified, 1);
	const qg_tls_match match = {.uri = "urn:sae:sae-alice"};
	return qg_tls_matches(&match, id) ? alice : NULL;
}

static inline size_t
error_body(int status, const char *text, char *buf, size_t room)
{
	int n = snprintf(buf, room, "{\"s\":%d,\"m\":\"%s\"}", status, text);
	return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static inline void
on_refused(int status, const char *method, const char *path, void *ctx)
{
	(void)status, (void)method, (void)ctx;
	assert_non_null(path);
	atomic_fetch_add(&n_refused, 1);
}

/* Says back what it was asked. */
static inline void
show(qg_http_request *req, void *ctx)
{
	(void)ctx;
	static _Thread_local char text[40000];
	size_t len;
	atomic_fetch_add(&n_handled, 1);
	(void)qg_http_body(req, &len);
	const char *part = qg_http_path_part(req, 0);
	int n = snprintf(text, sizeof text, "%s %s %s part=%s body=%zu", (const char *)qg_http_peer(req),
			 qg_http_method(req), qg_http_path(req), part != NULL ? part : "-", len);
	for (size_t i = 0; i < qg_http_query_count(req); i++) {
		const char *name;
		const char *value;
		qg_http_query_at(req, i, &name, &value);
		n += snprintf(text + n, sizeof text - (size_t)n, " %s=%s", name, value);
	}
	const char *x = qg_http_header(req, "x-test");
	n += snprintf(text + n, sizeof text - (size_t)n, " x=%s", x != NULL ? x : "-");
	qg_http_set_header(req, "X-Answer", "yes");
	qg_http_answer(req, 200, "text/plain", text, (size_t)n);
}

static inline void
echo(qg_http_request *req, void *ctx)
{
	(void)ctx;
	size_t len;
	const char *body = qg_http_body(req, &len);
	qg_secret *s = NULL;
	atomic_fetch_add(&n_handled, 1);
	assert_int_equal(qg_secret_new(len + 1, &s), QG_OK);
	assert_int_equal(qg_secret_append(s, body, len), QG_OK);
	qg_http_answer_secret(req, 200, "application/octet-stream", s);
}

static inline void
no_content(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_http_answer(req, 204, NULL, NULL, 0);
}

static inline void
forgets(qg_http_request *req, void *ctx)
{
	(void)req, (void)ctx;
}

/* Answers from another thread, after a moment that the path gives in ms. */
static inline void *
answer_later(void *arg)
{
	qg_http_request *req = arg;
	int ms = atoi(qg_http_path_part(req, 0));
	usleep((useconds_t)ms * 1000);
	char text[32];
	int n = snprintf(text, sizeof text, "late %d", ms);
	qg_http_set_header(req, "X-Answer", "late");
	qg_http_answer(req, 200, "text/plain", text, (size_t)n);
	return NULL;
}

static inline void
later(qg_http_request *req, void *ctx)
{
	(void)ctx;
	pthread_t t;
	qg_http_defer(req);
	assert_int_equal(pthread_create(&t, NULL, answer_later, req), 0);
	pthread_detach(t);
}

/* Deferred and answered before the handler returns. */
static inline void
at_once(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_http_defer(req);
	qg_http_answer(req, 200, "text/plain", "at once", 7);
}

static inline void
hold(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_http_defer(req);
	atomic_store(&held, req);
}

static const qg_http_route routes[] = {
	{"GET", "/show/{x}", show, 0},
	{"POST", "/show/{x}", show, 1000},
	{"POST", "/echo", echo, 200000},
	{"GET", "/none", no_content, 0},
	{"GET", "/forgets", forgets, 0},
	{"GET", "/later/{ms}", later, 0},
	{"GET", "/at-once", at_once, 0},
	{"GET", "/hold", hold, 0},
};

static inline qg_http_options
default_options(void)
{
	return (qg_http_options){
		.address = "127.0.0.1",
		.tls = pki_files("kme-a"),
		.threads = 2,
		.max_connections = 200,
		.idle_timeout_s = 5,
		.ticket_key_s = 3600,
		.routes = routes,
		.n_routes = sizeof routes / sizeof routes[0],
		.error_body = error_body,
		.error_type = "application/json",
		.identify = identify,
		.on_refused = on_refused,
	};
}

static inline void
start_with(const qg_http_options *o)
{
	char why[256] = "";
	if (qg_http_server_start(o, &server, why, sizeof why) != QG_OK)
		fail_msg("%s", why);
	atomic_store(&n_identified, 0);
	atomic_store(&n_handled, 0);
	atomic_store(&n_refused, 0);
	atomic_store(&held, NULL);
}

static inline int
start_server(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	start_with(&o);
	return 0;
}

static inline int
stop_server(void **state)
{
	(void)state;
	qg_http_server_stop(&server);
	return 0;
}

/* --- a client that can misbehave ------------------------------------------ */

typedef struct answer {
	int status;
	size_t len;
	bool closes;
	char head[4096];
	char body[210000];
} answer;

static inline qg_conn *
dial_as(const char *name)
{
	qg_tls_files f = pki_files(name);
	qg_conn *c = NULL;
	unsigned port = qg_http_server_port(server);
	assert_int_equal(qg_conn_open("127.0.0.1", port, &f, "localhost", TIMEOUT_MS, &c), QG_OK);
	return c;
}

static inline qg_conn *
dial(void)
{
	return dial_as("alice");
}

static inline void
say(qg_conn *c, const char *text)
{
	assert_int_equal(qg_conn_send(c, text, strlen(text), TIMEOUT_MS), QG_OK);
}

/* Reads one answer; false when the connection ended instead. */
static inline bool
hear(qg_conn *c, answer *a)
{
	size_t n = 0;
	memset(a, 0, offsetof(answer, body));
	while (n < 4 || memcmp(a->head + n - 4, "\r\n\r\n", 4) != 0) {
		assert_true(n < sizeof a->head - 1);
		qg_err err = qg_conn_recv(c, a->head + n, 1, TIMEOUT_MS);
		assert_int_not_equal(err, QG_E_TIMEOUT);
		if (err != QG_OK) {
			assert_int_equal(n, 0);
			return false;
		}
		n++;
	}
	a->status = atoi(a->head + 9);
	const char *len = strcasestr(a->head, "\r\ncontent-length:");
	a->len = len != NULL ? (size_t)strtoul(len + 17, NULL, 10) : 0;
	a->closes = strcasestr(a->head, "\r\nconnection: close") != NULL;
	assert_true(a->len < sizeof a->body);
	if (a->len > 0)
		assert_int_equal(qg_conn_recv(c, a->body, a->len, TIMEOUT_MS), QG_OK);
	a->body[a->len] = '\0';
	return true;
}

static answer got; /* large */

static inline void
expect(qg_conn *c, int status, const char *in_body)
{
	if (!hear(c, &got))
		fail_msg("the connection ended, expected %d", status);
	if (got.status != status)
		fail_msg("status %d, expected %d: %s", got.status, status, got.body);
	if (in_body != NULL && strstr(got.body, in_body) == NULL)
		fail_msg("'%s' is not in '%s'", in_body, got.body);
	if (status != 100)
		assert_non_null(strstr(got.head, "Cache-Control: no-store"));
}

static inline void
expect_end(qg_conn *c)
{
	if (hear(c, &got))
		fail_msg("an answer came: %d", got.status);
}

static inline void
ask(qg_conn *c, const char *line, int status, const char *in_body)
{
	char text[2048];
	assert_true(snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: kme\r\n\r\n", line) < (int)sizeof text);
	say(c, text);
	expect(c, status, in_body);
}

/* The server is well: another client is served at once. */
static inline void
still_serves(void)
{
	qg_conn *c = dial();
	uint64_t start = qg_clock_elapsed_ms();
	ask(c, "GET /show/well", 200, "part=well");
	assert_true(qg_clock_elapsed_ms() - start < 2000);
	qg_conn_close(&c);
}

/* --- the whole group ------------------------------------------------------ */

static inline int
setup(void **state)
{
	(void)state;
	srand(test_seed());
	return qg_secret_init() == QG_OK ? pki_make() : -1;
}

static inline int
teardown(void **state)
{
	(void)state;
	pki_remove();
	qg_secret_fini();
	return 0;
}

#define SERVED(test) cmocka_unit_test_setup_teardown(test, start_server, stop_server)

#endif
