/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "pki.h"
#include "qkdgate/clock.h"
#include "qkdgate/http_client.h"
#include "qkdgate/http_server.h"
#include "qkdgate/secret.h"

/* --- the server to talk to ------------------------------------------------ */

static qg_http_server *server;
static qg_http_client *client;
static atomic_int n_peers; /* connections seen */
static atomic_int n_handled;
static _Atomic(qg_http_request *) held;
static const char somebody[] = "somebody";

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	(void)id, (void)ctx;
	atomic_fetch_add(&n_peers, 1);
	return somebody;
}

static void
echo(qg_http_request *req, void *ctx)
{
	(void)ctx;
	size_t len;
	const char *body = qg_http_body(req, &len);
	const char *type = qg_http_header(req, "Content-Type");
	atomic_fetch_add(&n_handled, 1);
	qg_http_answer(req, 200, type != NULL ? type : "none/none", body, len);
}

static void
status(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_http_set_header(req, "Location", "/echo");
	qg_http_answer(req, atoi(qg_http_path_part(req, 0)), "text/plain", "text", 4);
}

static void
hold(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_http_defer(req);
	atomic_store(&held, req);
}

static void
tell(qg_http_request *req, void *ctx)
{
	(void)ctx;
	char text[256];
	const char *expect = qg_http_header(req, "Expect");
	const char *type = qg_http_header(req, "Content-Type");
	const char *accept = qg_http_header(req, "Accept");
	const char *length = qg_http_header(req, "Content-Length");
	int n = snprintf(text, sizeof text, "%s expect=%s type=%s accept=%s length=%s", qg_http_method(req),
			 expect != NULL ? expect : "-", type != NULL ? type : "-", accept != NULL ? accept : "-",
			 length != NULL ? length : "-");
	qg_http_answer(req, 200, "text/plain", text, (size_t)n);
}

static const qg_http_route routes[] = {
	{"GET", "/echo", echo, 0},
	{"POST", "/echo", echo, 1000000},
	{"GET", "/status/{n}", status, 0},
	{"GET", "/hold", hold, 0},
	{"GET", "/tell", tell, 0},
	{"POST", "/tell", tell, 100000},
	{"DELETE", "/tell", tell, 0},
};

static int
start_as(const char *name)
{
	char why[256];
	qg_http_options o = {
		.address = "127.0.0.1",
		.tls = pki_files(name),
		.threads = 1,
		.max_connections = 100,
		.idle_timeout_s = 5,
		.routes = routes,
		.n_routes = sizeof routes / sizeof routes[0],
		.identify = identify,
	};
	atomic_store(&n_peers, 0);
	atomic_store(&n_handled, 0);
	atomic_store(&held, NULL);
	return qg_http_server_start(&o, &server, why, sizeof why) == QG_OK ? 0 : -1;
}

static int
start_both(void **state)
{
	(void)state;
	static qg_tls_files f;
	f = pki_files("kme-a");
	return start_as("kme-b") == 0 && qg_http_client_start(&f, &client) == QG_OK ? 0 : -1;
}

static int
stop_both(void **state)
{
	(void)state;
	qg_http_client_stop(&client);
	qg_http_server_stop(&server);
	return 0;
}

/* --- one call at a time --------------------------------------------------- */

typedef struct result {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int n;
	int n_closed;
	qg_err err;
	int status;
	size_t len;
	uint64_t sum;
	char body[256];
} result;

#define RESULT {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER}

static void
done(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	result *r = ctx;
	pthread_mutex_lock(&r->lock);
	r->n++;
	r->n_closed += err == QG_E_CLOSED;
	r->err = err;
	r->status = http_status;
	r->len = len;
	r->sum = 0;
	for (size_t i = 0; i < len; i++)
		r->sum += (uint8_t)body[i];
	memset(r->body, 0, sizeof r->body);
	memcpy(r->body, body, len < sizeof r->body - 1 ? len : sizeof r->body - 1);
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

static void
wait_n(result *r, int n)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += 60;
	pthread_mutex_lock(&r->lock);
	int rc = 0;
	while (r->n < n && rc == 0)
		rc = pthread_cond_timedwait(&r->cond, &r->lock, &until);
	int have = r->n;
	pthread_mutex_unlock(&r->lock);
	assert_int_equal(have, n);
}

/* The request that the server holds, once it has it; NULL when it does not come. */
static qg_http_request *
take_held(int patience_ms)
{
	for (int ms = 0; ms < patience_ms && atomic_load(&held) == NULL; ms++)
		usleep(1000);
	return atomic_exchange(&held, NULL);
}

static char url_ring[8][128];
static unsigned url_at;

static const char *
url(const char *path)
{
	char *s = url_ring[url_at++ % 8];
	snprintf(s, sizeof url_ring[0], "https://localhost:%u%s", qg_http_server_port(server), path);
	return s;
}

static qg_http_call
call_to(const char *method, const char *path, result *r)
{
	return (qg_http_call){
		.method = method, .url = url(path), .timeout_ms = 5000, .answer_limit = 100000, .done = done, .ctx = r};
}

static void
run(const qg_http_call *k, result *r, qg_err err, int want_status)
{
	r->n = 0;
	assert_int_equal(qg_http_client_send(client, k), QG_OK);
	wait_n(r, 1);
	assert_int_equal(r->err, err);
	assert_int_equal(r->status, want_status);
}

static void
asks_and_hears(void **state)
{
	(void)state;
	result r = RESULT;
	qg_http_call k = call_to("GET", "/echo", &r);
	run(&k, &r, QG_OK, 200);
	assert_int_equal(r.len, 0);
	k = call_to("POST", "/echo", &r);
	k.type = "application/json";
	k.body = "{\"a\":1}";
	k.len = 7;
	run(&k, &r, QG_OK, 200);
	assert_string_equal(r.body, "{\"a\":1}");
	k.body = NULL;
	k.len = 0;
	run(&k, &r, QG_OK, 200);
	assert_int_equal(r.len, 0);
	static const int statuses[] = {204, 301, 302, 400, 401, 404, 500, 503};
	for (size_t i = 0; i < sizeof statuses / sizeof statuses[0]; i++) {
		char path[32];
		snprintf(path, sizeof path, "/status/%d", statuses[i]);
		k = call_to("GET", path, &r);
		run(&k, &r, QG_OK, statuses[i]); /* also redirects are answers */
	}
	assert_int_equal(atomic_load(&n_peers), 1); /* all on one connection */
}

static void
sends_no_more_than_asked(void **state)
{
	(void)state;
	result r = RESULT;
	static char big[50000];
	memset(big, 'x', sizeof big);
	qg_http_call k = call_to("POST", "/tell", &r);
	k.type = "application/json";
	k.body = big;
	k.len = sizeof big;
	run(&k, &r, QG_OK, 200);
	assert_string_equal(r.body, "POST expect=- type=application/json accept=*/* length=50000");
	k = call_to("POST", "/tell", &r);
	run(&k, &r, QG_OK, 200);
	assert_string_equal(r.body, "POST expect=- type=- accept=*/* length=0");
	k = call_to("GET", "/tell", &r); /* a handle that was used for a POST */
	run(&k, &r, QG_OK, 200);
	assert_string_equal(r.body, "GET expect=- type=- accept=*/* length=-");
	k = call_to("DELETE", "/tell", &r);
	run(&k, &r, QG_OK, 200);
	assert_memory_equal(r.body, "DELETE ", 7);
	k = call_to("HEAD", "/tell", &r);
	run(&k, &r, QG_OK, 405);
	assert_int_equal(r.len, 0);
}

/* A handle that stays set up for bodies keeps nothing of the call before. */
static void
keeps_nothing_of_a_call(void **state)
{
	(void)state;
	result r = RESULT;
	static char big[20000];
	memset(big, 'x', sizeof big);
	for (int i = 0; i < 3; i++) {
		qg_http_call k = call_to("POST", "/tell", &r);
		k.type = "application/json";
		k.body = big;
		k.len = sizeof big;
		run(&k, &r, QG_OK, 200);
		assert_string_equal(r.body, "POST expect=- type=application/json accept=*/* length=20000");
		k = call_to("POST", "/echo", &r);
		k.body = "other";
		k.len = 5;
		run(&k, &r, QG_OK, 200);
		assert_string_equal(r.body, "other");
		k = call_to("POST", "/tell", &r);
		k.body = "";
		run(&k, &r, QG_OK, 200);
		assert_string_equal(r.body, "POST expect=- type=- accept=*/* length=0");
		k = call_to("POST", "/echo", &r); /* one that fails on its way */
		k.body = big;
		k.len = sizeof big;
		k.answer_limit = 10;
		run(&k, &r, QG_E_RANGE, 0);
		k = call_to("GET", "/tell", &r);
		run(&k, &r, QG_OK, 200);
		assert_string_equal(r.body, "GET expect=- type=- accept=*/* length=-");
		k = call_to("HEAD", "/tell", &r);
		k.body = "not sent";
		k.len = 8;
		run(&k, &r, QG_OK, 405);
		assert_int_equal(r.len, 0);
	}
}

static void
answer_limit_holds(void **state)
{
	(void)state;
	result r = RESULT;
	static char big[300000];
	uint64_t sum = 0;
	for (size_t i = 0; i < sizeof big; i++)
		sum += (uint8_t)(big[i] = (char)(i * 13));
	qg_http_call k = call_to("POST", "/echo", &r);
	k.body = big;
	k.len = sizeof big;
	k.answer_limit = sizeof big;
	run(&k, &r, QG_OK, 200);
	assert_int_equal(r.len, sizeof big);
	assert_true(r.sum == sum);
	k.answer_limit = sizeof big - 1;
	run(&k, &r, QG_E_RANGE, 0);
	assert_int_equal(r.len, 0);
	k.answer_limit = 0;
	run(&k, &r, QG_E_RANGE, 0);
	k = call_to("GET", "/echo", &r);
	k.answer_limit = 0;
	run(&k, &r, QG_OK, 200);
}

static void
bad_calls(void **state)
{
	(void)state;
	result r = RESULT;
	qg_http_call k = call_to("GET", "/echo", &r);
	k.method = "GET / HTTP/1.1\r\nX: y";
	assert_int_equal(qg_http_client_send(client, &k), QG_E_INVAL);
	k.method = "";
	assert_int_equal(qg_http_client_send(client, &k), QG_E_INVAL);
	k = call_to("GET", "/echo", &r);
	k.type = "a\r\nX-Smuggled: 1";
	assert_int_equal(qg_http_client_send(client, &k), QG_E_INVAL);
	k = call_to("GET", "/echo", &r);
	k.url = NULL;
	assert_int_equal(qg_http_client_send(client, &k), QG_E_INVAL);
	static const char *const urls[] = {"file:///etc/passwd", "http://localhost:1/", "ftp://localhost/",
					 "https://"};
	for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
		k = call_to("GET", "/", &r);
		k.url = urls[i];
		run(&k, &r, QG_E_INVAL, 0);
	}
}

/* --- failing -------------------------------------------------------------- */

static void
timeout_and_nobody(void **state)
{
	(void)state;
	result r = RESULT;
	qg_http_call k = call_to("GET", "/hold", &r);
	k.timeout_ms = 200;
	qg_http_request *late = NULL;
	for (int i = 0; i < 20 && late == NULL; i++) { /* until one came as far as the server in that time */
		uint64_t start = qg_clock_elapsed_ms();
		run(&k, &r, QG_E_TIMEOUT, 0);
		assert_in_range(qg_clock_elapsed_ms() - start, 150, 20000);
		late = take_held(500);
	}
	assert_non_null(late);
	qg_http_answer(late, 200, NULL, NULL, 0);
	k = call_to("GET", "/", &r);
	k.url = "https://127.0.0.1:1/";
	run(&k, &r, QG_E_IO, 0);
	setenv("https_proxy", "http://127.0.0.1:1", 1);
	k = call_to("GET", "/echo", &r);
	run(&k, &r, QG_OK, 200);
	unsetenv("https_proxy");
}

static void
checks_the_server(void **state)
{
	(void)state;
	static const struct {
		const char *server;
		const char *host;
		bool crl;
		qg_err want;
	} cases[] = {
		{"kme-b", "localhost", true, QG_OK},
		{"kme-b", "127.0.0.1", true, QG_OK},
		{"kme-b", "127.0.0.1", false, QG_OK},
		{"kme-b-foreign", "localhost", true, QG_E_AUTH},
		{"alice", "localhost", true, QG_E_AUTH}, /* no such name, no server's purpose */
		{"revoked", "localhost", true, QG_E_AUTH},
		{"kme-b", "127.0.0.2", true, QG_E_AUTH}, /* not in the certificate */
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		result r = RESULT;
		qg_tls_files f = pki_files("kme-a");
		f.crl = cases[i].crl ? f.crl : NULL;
		char address[64];
		char why[200];
		qg_http_options o = {.address = "0.0.0.0", .tls = pki_files(cases[i].server), .threads = 1,
				     .max_connections = 10, .idle_timeout_s = 5, .routes = routes, .n_routes = 1,
				     .identify = identify};
		assert_int_equal(qg_http_server_start(&o, &server, why, sizeof why), QG_OK);
		assert_int_equal(qg_http_client_start(&f, &client), QG_OK);
		snprintf(address, sizeof address, "https://%s:%u/echo", cases[i].host, qg_http_server_port(server));
		atomic_store(&n_handled, 0);
		qg_http_call k = call_to("GET", "/", &r);
		k.url = address;
		run(&k, &r, cases[i].want, cases[i].want == QG_OK ? 200 : 0);
		assert_int_equal(atomic_load(&n_handled), cases[i].want == QG_OK ? 1 : 0);
		stop_both(NULL);
	}
}

/* A revoked server whose certificate is good otherwise: only the list tells. */
static void
revocation_counts(void **state)
{
	(void)state;
	char script[] = "certs/make-pki";
	char host[] = "kme-late";
	char *argv[] = {script, pki_dir, host, NULL};
	pid_t pid;
	int status_code = -1;
	assert_int_equal(posix_spawn(&pid, script, NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status_code, 0), pid);
	assert_int_equal(status_code, 0);
	for (int revoked = 0; revoked < 2; revoked++) {
		if (revoked == 1) { /* list it, and have the list made anew */
			char from[200];
			char to[200];
			snprintf(from, sizeof from, "%s", pki_file("kme-late", ".pem"));
			snprintf(to, sizeof to, "%s", pki_file("revoked-kme-late", ".pem"));
			assert_int_equal(link(from, to), 0);
			unlink(pki_file("crl", ".pem"));
			assert_int_equal(posix_spawn(&pid, script, NULL, NULL, argv, environ), 0);
			assert_int_equal(waitpid(pid, &status_code, 0), pid);
			assert_int_equal(status_code, 0);
		}
		result r = RESULT;
		assert_int_equal(start_as("kme-late"), 0);
		qg_tls_files f = pki_files("kme-a");
		assert_int_equal(qg_http_client_start(&f, &client), QG_OK);
		qg_http_call k = call_to("GET", "/echo", &r);
		run(&k, &r, revoked == 0 ? QG_OK : QG_E_AUTH, revoked == 0 ? 200 : 0);
		stop_both(NULL);
	}
}

static void
wrong_client_is_refused(void **state)
{
	(void)state;
	static const char *const wrong[] = {"revoked", "foreign"};
	assert_int_equal(start_as("kme-b"), 0);
	for (size_t i = 0; i < 2; i++) {
		result r = RESULT;
		qg_tls_files f = pki_files(wrong[i]);
		assert_int_equal(qg_http_client_start(&f, &client), QG_OK);
		qg_http_call k = call_to("GET", "/echo", &r);
		r.n = 0;
		assert_int_equal(qg_http_client_send(client, &k), QG_OK);
		wait_n(&r, 1);
		assert_int_not_equal(r.err, QG_OK);
		qg_http_client_stop(&client);
	}
	assert_int_equal(atomic_load(&n_handled), 0);
	qg_http_server_stop(&server);
}

static void
start_checks_files(void **state)
{
	(void)state;
	qg_http_client *c = NULL;
	qg_tls_files f = pki_files("expired");
	assert_int_equal(qg_http_client_start(&f, &c), QG_E_EXPIRED);
	f = pki_files("kme-a");
	f.key = pki_file("kme-b", ".key");
	assert_int_equal(qg_http_client_start(&f, &c), QG_E_MISMATCH);
	assert_int_equal(chmod(f.key, 0644), 0);
	assert_int_equal(qg_http_client_start(&f, &c), QG_E_MODE);
	assert_int_equal(chmod(f.key, 0600), 0);
	assert_null(c);
	qg_http_client_stop(&c);
}

/* A server that speaks TLS but no HTTP. */
static void *
babble(void *arg)
{
	int listen_fd = *(int *)arg;
	static const char *const says[] = {"garbage\r\n\r\n",
					 "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", ""};
	qg_tls_files f = pki_files("kme-b");
	for (size_t i = 0; i < 3; i++) {
		qg_conn *c = NULL;
		char byte[16];
		if (qg_conn_accept(accept(listen_fd, NULL, NULL), &f, true, 3000, &c) != QG_OK)
			continue;
		(void)!qg_conn_recv(c, byte, sizeof byte, 3000);
		(void)!qg_conn_send(c, says[i], strlen(says[i]), 3000);
		qg_conn_close(&c);
	}
	return NULL;
}

static void
broken_servers(void **state)
{
	(void)state;
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	pthread_t t;
	pthread_create(&t, NULL, babble, &fd);
	for (int i = 0; i < 3; i++) {
		result r = RESULT;
		char address[64];
		snprintf(address, sizeof address, "https://localhost:%u/", ntohs(a.sin_port));
		qg_http_call k = call_to("GET", "/", &r);
		k.url = address;
		assert_int_equal(qg_http_client_send(client, &k), QG_OK);
		wait_n(&r, 1);
		assert_int_not_equal(r.err, QG_OK);
		assert_int_equal(r.len, 0);
	}
	pthread_join(t, NULL);
	close(fd);
}

/* --- many ----------------------------------------------------------------- */

static void
many_at_once(void **state)
{
	(void)state;
	result r = RESULT;
	for (int i = 0; i < 300; i++) {
		qg_http_call k = call_to("POST", "/echo", &r);
		k.body = "0123456789";
		k.len = 10;
		assert_int_equal(qg_http_client_send(client, &k), QG_OK);
	}
	wait_n(&r, 300);
	assert_int_equal(r.err, QG_OK);
	assert_int_equal(atomic_load(&n_handled), 300);
	assert_in_range(atomic_load(&n_peers), 1, 16);
}

static atomic_int chain_left;

static void
chain(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	if (atomic_fetch_sub(&chain_left, 1) > 1) {
		qg_http_call k = call_to("GET", "/echo", ctx);
		k.done = chain;
		assert_int_equal(qg_http_client_send(client, &k), QG_OK);
	} else {
		done(ctx, err, http_status, body, len);
	}
}

static void
sends_from_done(void **state)
{
	(void)state;
	result r = RESULT;
	atomic_store(&chain_left, 50);
	qg_http_call k = call_to("GET", "/echo", &r);
	k.done = chain;
	assert_int_equal(qg_http_client_send(client, &k), QG_OK);
	wait_n(&r, 1);
	assert_int_equal(r.err, QG_OK);
	assert_int_equal(atomic_load(&n_handled), 50);
}

static void
stop_ends_all(void **state)
{
	(void)state;
	result r = RESULT;
	qg_http_request *late = NULL;
	for (int i = 0; i < 20; i++) {
		qg_http_call k = call_to("GET", i == 0 ? "/hold" : "/echo", &r);
		k.timeout_ms = 60000;
		assert_int_equal(qg_http_client_send(client, &k), QG_OK);
		if (i == 0)
			assert_non_null(late = take_held(30000));
	}
	uint64_t start = qg_clock_elapsed_ms();
	qg_http_client_stop(&client);
	assert_true(qg_clock_elapsed_ms() - start < 30000);
	assert_null(client);
	assert_int_equal(r.n, 20); /* each exactly once, none after */
	assert_true(r.n_closed >= 1);
	qg_http_client_stop(&client);
	qg_http_answer(late, 200, NULL, NULL, 0);
}

static atomic_int n_told_closed;

/* As a neighbour's handler does: each end of a call sends another one. */
static void
send_again(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_http_call k = call_to("GET", "/echo", ctx);
	usleep(50000); /* qg_http_client_stop waits meanwhile */
	qg_err again = qg_http_client_send(client, &k);
	assert_true(again == QG_OK || again == QG_E_CLOSED);
	atomic_fetch_add(&n_told_closed, again == QG_E_CLOSED);
	if (again == QG_E_CLOSED)
		done(ctx, err, http_status, body, len);
}

static void
sends_from_done_while_stopping(void **state)
{
	(void)state;
	result r = RESULT;
	atomic_store(&n_told_closed, 0);
	qg_http_call k = call_to("GET", "/hold", &r);
	k.done = send_again;
	assert_int_equal(qg_http_client_send(client, &k), QG_OK);
	qg_http_request *late = take_held(30000);
	assert_non_null(late);
	qg_http_client_stop(&client);
	assert_null(client);
	assert_int_equal(atomic_load(&n_told_closed), 1);
	assert_int_equal(r.n, 1);
	qg_http_answer(late, 200, NULL, NULL, 0);
}

static int
setup(void **state)
{
	(void)state;
	return qg_secret_init() == QG_OK ? pki_make() : -1;
}

static int
teardown(void **state)
{
	(void)state;
	pki_remove();
	qg_secret_fini();
	return 0;
}

#define BOTH(test) cmocka_unit_test_setup_teardown(test, start_both, stop_both)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(asks_and_hears),
		BOTH(sends_no_more_than_asked),
		BOTH(keeps_nothing_of_a_call),
		BOTH(answer_limit_holds),
		BOTH(bad_calls),
		BOTH(timeout_and_nobody),
		cmocka_unit_test(checks_the_server),
		cmocka_unit_test(revocation_counts),
		cmocka_unit_test(wrong_client_is_refused),
		cmocka_unit_test(start_checks_files),
		BOTH(broken_servers),
		BOTH(many_at_once),
		BOTH(sends_from_done),
		BOTH(stop_ends_all),
		BOTH(sends_from_done_while_stopping),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, setup, teardown);
}
