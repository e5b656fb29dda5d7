/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "pki.h"
#include "qkdgate/clock.h"
#include "qkdgate/http_server.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

#define TIMEOUT_MS 5000u
#define PARALLEL 64

/* --- the server under test ------------------------------------------------ */

static qg_http_server *server;
static atomic_int n_identified;
static atomic_int n_handled;
static atomic_int n_refused;
static _Atomic(qg_http_request *) held; /* by hold() */
static const char alice[] = "alice";

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&n_identified, 1);
	const qg_tls_match match = {.uri = "urn:sae:sae-alice"};
	return qg_tls_matches(&match, id) ? alice : NULL;
}

static size_t
error_body(int status, const char *text, char *buf, size_t room)
{
	int n = snprintf(buf, room, "{\"s\":%d,\"m\":\"%s\"}", status, text);
	return n > 0 && (size_t)n < room ? (size_t)n : 0;
}

static void
on_refused(int status, const char *method, const char *path, void *ctx)
{
	(void)status, (void)method, (void)ctx;
	assert_non_null(path);
	atomic_fetch_add(&n_refused, 1);
}

/* Says back what it was asked. */
static void
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

static void
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

static void
no_content(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_http_answer(req, 204, NULL, NULL, 0);
}

static void
forgets(qg_http_request *req, void *ctx)
{
	(void)req, (void)ctx;
}

/* Answers from another thread, after a moment that the path gives in ms. */
static void *
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

static void
later(qg_http_request *req, void *ctx)
{
	(void)ctx;
	pthread_t t;
	qg_http_defer(req);
	assert_int_equal(pthread_create(&t, NULL, answer_later, req), 0);
	pthread_detach(t);
}

/* Deferred and answered before the handler returns. */
static void
at_once(qg_http_request *req, void *ctx)
{
	(void)ctx;
	qg_http_defer(req);
	qg_http_answer(req, 200, "text/plain", "at once", 7);
}

static void
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

static qg_http_options
default_options(void)
{
	return (qg_http_options){
		.address = "127.0.0.1",
		.tls = pki_files("kme-a"),
		.threads = 2,
		.max_connections = 200,
		.idle_timeout_s = 5,
		.routes = routes,
		.n_routes = sizeof routes / sizeof routes[0],
		.error_body = error_body,
		.error_type = "application/json",
		.identify = identify,
		.on_refused = on_refused,
	};
}

static void
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

static int
start_server(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	start_with(&o);
	return 0;
}

static int
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

static qg_conn *
dial_as(const char *name)
{
	qg_tls_files f = pki_files(name);
	qg_conn *c = NULL;
	assert_int_equal(qg_conn_open("127.0.0.1", qg_http_server_port(server), &f, "localhost", TIMEOUT_MS, &c), QG_OK);
	return c;
}

static qg_conn *
dial(void)
{
	return dial_as("alice");
}

static void
say(qg_conn *c, const char *text)
{
	assert_int_equal(qg_conn_send(c, text, strlen(text), TIMEOUT_MS), QG_OK);
}

/* Reads one answer; false when the connection ended instead. */
static bool
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

static void
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

static void
expect_end(qg_conn *c)
{
	if (hear(c, &got))
		fail_msg("an answer came: %d", got.status);
}

static void
ask(qg_conn *c, const char *line, int status, const char *in_body)
{
	char text[2048];
	assert_true(snprintf(text, sizeof text, "%s HTTP/1.1\r\nHost: kme\r\n\r\n", line) < (int)sizeof text);
	say(c, text);
	expect(c, status, in_body);
}

/* The server is well: another client is served at once. */
static void
still_serves(void)
{
	qg_conn *c = dial();
	uint64_t start = qg_clock_elapsed_ms();
	ask(c, "GET /show/well", 200, "part=well");
	assert_true(qg_clock_elapsed_ms() - start < 2000);
	qg_conn_close(&c);
}

/* --- plain use ------------------------------------------------------------ */

static void
serves_the_right_client(void **state)
{
	(void)state;
	qg_conn *c = dial();
	ask(c, "GET /show/sae%2Dbob?number=3&size=a%20b", 200, NULL);
	assert_string_equal(got.body, "alice GET /show/sae%2Dbob part=sae-bob body=0 number=3 size=a b x=-");
	assert_non_null(strstr(got.head, "X-Answer: yes"));
	assert_non_null(strstr(got.head, "Content-Type: text/plain"));
	assert_false(got.closes);
	say(c, "GET /show/b HTTP/1.1\r\nHost: k\r\nX-TEST: 7\r\n\r\n");
	expect(c, 200, "x=7");
	say(c, "POST /show/b HTTP/1.1\r\nHost: k\r\nContent-Length: 3\r\n\r\nabc");
	expect(c, 200, "body=3");
	ask(c, "GET /none", 204, NULL);
	ask(c, "GET /forgets", 500, "internal error");
	ask(c, "GET /show/c", 200, NULL);
	assert_int_equal(atomic_load(&n_identified), 1); /* once per connection */
	say(c, "GET /show/d HTTP/1.0\r\n\r\n");
	expect(c, 200, NULL);
	expect_end(c);
	qg_conn_close(&c);
}

static void
refuses_unknown_paths_and_methods(void **state)
{
	(void)state;
	qg_conn *c = dial();
	ask(c, "GET /nothing", 404, "{\"s\":404,\"m\":\"no such path\"}");
	assert_non_null(strstr(got.head, "Content-Type: application/json"));
	ask(c, "PUT /show/x", 405, "GET, POST");
	assert_non_null(strstr(got.head, "Allow: GET, POST\r\n"));
	say(c, "HEAD /none HTTP/1.1\r\nHost: k\r\n\r\n");
	char head[512] = "";
	for (size_t n = 0; n < 4 || strcmp(head + n - 4, "\r\n\r\n") != 0; n++)
		assert_int_equal(qg_conn_recv(c, head + n, 1, TIMEOUT_MS), QG_OK);
	assert_memory_equal(head + 9, "405", 3);
	assert_non_null(strstr(head, "Allow: GET\r\n"));
	ask(c, "AVERYLONGMETHODTHATNOBODYKNOWS /none", 405, NULL);
	ask(c, "GET /show/a%00b", 400, "bad escape");
	ask(c, "GET /show/a%zz", 400, "bad escape");
	ask(c, "GET /show/a?x=%", 400, "bad escape");
	ask(c, "GET /show/a%2Fb", 200, "part=a/b");
	ask(c, "GET /show/a/b", 404, NULL);
	ask(c, "GET /show/", 404, NULL);
	ask(c, "GET /show/x/../x", 404, NULL);
	assert_int_equal(atomic_load(&n_handled), 1);
	assert_int_equal(atomic_load(&n_refused), 10);
	qg_conn_close(&c);
}

/* --- certificates --------------------------------------------------------- */

static void
refuses_wrong_certificates(void **state)
{
	(void)state;
	static const char *const wrong[] = {"expired", "foreign", "revoked", "kme-b-foreign"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		qg_tls_files f = pki_files(wrong[i]);
		qg_conn *c = NULL;
		qg_err err = qg_conn_open("127.0.0.1", qg_http_server_port(server), &f, "localhost", TIMEOUT_MS, &c);
		if (err == QG_OK) {
			(void)!qg_conn_send(c, "GET /show/x HTTP/1.1\r\nHost: k\r\n\r\n", 33, TIMEOUT_MS);
			expect_end(c);
			qg_conn_close(&c);
		}
	}
	assert_int_equal(atomic_load(&n_identified), 0);
	assert_int_equal(atomic_load(&n_handled), 0);
	still_serves();
}

static void
unknown_name_gets_401(void **state)
{
	(void)state;
	qg_conn *c = dial_as("wrongname");
	ask(c, "GET /show/x", 401, NULL);
	assert_int_equal(got.len, 0);
	ask(c, "GET /nothing", 401, NULL); /* and learns no paths */
	say(c, "POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 3\r\n\r\nabc");
	expect(c, 401, NULL);
	assert_int_equal(atomic_load(&n_identified), 1);
	assert_int_equal(atomic_load(&n_handled), 0);
	assert_int_equal(atomic_load(&n_refused), 3);
	qg_conn_close(&c);
}

/* A TLS client of its own: without a certificate, or with one made up here. */
static int
bare_tls(gnutls_certificate_credentials_t cred, char *buf, size_t room, int *alert)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)qg_http_server_port(server)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	static const char request[] = "GET /show/x HTTP/1.1\r\nHost: k\r\n\r\n";
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	gnutls_session_t s;
	gnutls_init(&s, GNUTLS_CLIENT);
	gnutls_set_default_priority(s);
	gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred);
	gnutls_transport_set_int(s, fd);
	gnutls_handshake_set_timeout(s, 5000);
	ssize_t n = gnutls_handshake(s);
	if (n == 0 && gnutls_record_send(s, request, sizeof request - 1) > 0)
		do
			n = gnutls_record_recv(s, buf, room - 1);
		while (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED);
	*alert = n == GNUTLS_E_FATAL_ALERT_RECEIVED ? (int)gnutls_alert_get(s) : -1;
	buf[n > 0 ? n : 0] = '\0';
	gnutls_deinit(s);
	close(fd);
	return (int)n;
}

static void
no_certificate_no_word(void **state)
{
	(void)state;
	gnutls_certificate_credentials_t cred;
	char buf[1024];
	int alert;
	gnutls_certificate_allocate_credentials(&cred);
	assert_true(bare_tls(cred, buf, sizeof buf, &alert) <= 0);
	assert_int_equal(atomic_load(&n_identified), 0);
	gnutls_certificate_free_credentials(cred);
	still_serves();
}

/* What the client is told when its certificate is not taken. */
static void
alerts_say_why(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		int alert;
	} cases[] = {
		{"revoked", GNUTLS_A_CERTIFICATE_REVOKED},
		{"expired", GNUTLS_A_CERTIFICATE_EXPIRED},
		{"foreign", GNUTLS_A_UNKNOWN_CA},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		gnutls_certificate_credentials_t cred;
		char buf[1024];
		int alert;
		gnutls_certificate_allocate_credentials(&cred);
		assert_int_equal(gnutls_certificate_set_x509_key_file(cred, pki_file(cases[i].name, ".pem"),
								      pki_file(cases[i].name, ".key"),
								      GNUTLS_X509_FMT_PEM),
				 0);
		/* Names the authority it has not got, so that GnuTLS sends it at all. */
		gnutls_certificate_set_flags(cred, GNUTLS_CERTIFICATE_SKIP_KEY_CERT_MATCH);
		assert_true(bare_tls(cred, buf, sizeof buf, &alert) < 0);
		if (strcmp(cases[i].name, "foreign") != 0) /* GnuTLS does not even send that one */
			assert_int_equal(alert, cases[i].alert);
		gnutls_certificate_free_credentials(cred);
	}
}

static gnutls_datum_t
load(const char *path)
{
	gnutls_datum_t d = {0};
	assert_int_equal(gnutls_load_file(path, &d), 0);
	return d;
}

/* "urn:sae:sae-alice\0.evil": whoever compares with strcmp sees alice. */
static void
embedded_nul_never_matches(void **state)
{
	(void)state;
	gnutls_x509_crt_t ca;
	gnutls_x509_crt_t crt;
	gnutls_x509_privkey_t ca_key;
	gnutls_x509_privkey_t key;
	gnutls_datum_t ca_pem = load(pki_file("ca", ".pem"));
	gnutls_datum_t ca_key_pem = load(pki_file("ca", ".key"));
	gnutls_datum_t key_pem = load(pki_file("alice", ".key"));
	gnutls_x509_crt_init(&ca);
	gnutls_x509_crt_init(&crt);
	gnutls_x509_privkey_init(&ca_key);
	gnutls_x509_privkey_init(&key);
	assert_int_equal(gnutls_x509_crt_import(ca, &ca_pem, GNUTLS_X509_FMT_PEM), 0);
	assert_int_equal(gnutls_x509_privkey_import2(ca_key, &ca_key_pem, GNUTLS_X509_FMT_PEM, NULL, 0), 0);
	assert_int_equal(gnutls_x509_privkey_import2(key, &key_pem, GNUTLS_X509_FMT_PEM, NULL, 0), 0);
	/* A subject alternative name as DER: GnuTLS does not make such a one. */
	static const char evil[] = "\x30\x19\x86\x17urn:sae:sae-alice\0.evil";
	gnutls_x509_crt_set_version(crt, 3);
	gnutls_x509_crt_set_serial(crt, "\x11\x22", 2);
	gnutls_x509_crt_set_activation_time(crt, time(NULL) - 100);
	gnutls_x509_crt_set_expiration_time(crt, time(NULL) + 1000);
	gnutls_x509_crt_set_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, "x", 1);
	assert_int_equal(sizeof evil - 1, 0x19 + 2);
	assert_int_equal(gnutls_x509_crt_set_extension_by_oid(crt, "2.5.29.17", evil, sizeof evil - 1, 0), 0);
	gnutls_x509_crt_set_key(crt, key);
	assert_int_equal(gnutls_x509_crt_sign2(crt, ca, ca_key, GNUTLS_DIG_SHA256, 0), 0);

	gnutls_certificate_credentials_t cred;
	char buf[1024];
	int alert;
	gnutls_certificate_allocate_credentials(&cred);
	assert_int_equal(gnutls_certificate_set_x509_key(cred, &crt, 1, key), 0);
	assert_true(bare_tls(cred, buf, sizeof buf, &alert) > 0);
	assert_memory_equal(buf, "HTTP/1.1 401", 12);
	assert_int_equal(atomic_load(&n_identified), 1);
	assert_int_equal(atomic_load(&n_handled), 0);

	gnutls_certificate_free_credentials(cred);
	gnutls_x509_crt_deinit(ca);
	gnutls_x509_crt_deinit(crt);
	gnutls_x509_privkey_deinit(ca_key);
	gnutls_x509_privkey_deinit(key);
	gnutls_free(ca_pem.data);
	gnutls_free(ca_key_pem.data);
	gnutls_free(key_pem.data);
}

static void
tls_1_2_only_where_allowed(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	for (int i = 0; i < 2; i++) {
		o.tls.min_version = i == 0 ? QG_TLS_1_2 : QG_TLS_1_3;
		start_with(&o);
		gnutls_certificate_credentials_t cred;
		gnutls_certificate_allocate_credentials(&cred);
		assert_int_equal(gnutls_certificate_set_x509_key_file(cred, pki_file("alice", ".pem"),
								      pki_file("alice", ".key"), GNUTLS_X509_FMT_PEM),
				 0);
		struct sockaddr_in a = {.sin_family = AF_INET,
					.sin_port = htons((uint16_t)qg_http_server_port(server)),
					.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
		int fd = socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
		gnutls_session_t s;
		gnutls_init(&s, GNUTLS_CLIENT);
		gnutls_priority_set_direct(s, "NORMAL:-VERS-ALL:+VERS-TLS1.2", NULL);
		gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred);
		gnutls_transport_set_int(s, fd);
		gnutls_handshake_set_timeout(s, 5000);
		int rc = gnutls_handshake(s);
		assert_true(i == 0 ? rc == 0 : rc < 0);
		gnutls_deinit(s);
		close(fd);
		gnutls_certificate_free_credentials(cred);
		qg_http_server_stop(&server);
	}
}

/* --- bodies --------------------------------------------------------------- */

static void
takes_bodies(void **state)
{
	(void)state;
	static char body[200001];
	static char head[128];
	qg_conn *c = dial();
	memset(body, 'k', sizeof body);
	static const size_t sizes[] = {0, 1, 100, 4096, 20000, 200000};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		snprintf(head, sizeof head, "POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: %zu\r\n\r\n", sizes[i]);
		say(c, head);
		assert_int_equal(qg_conn_send(c, body, sizes[i], TIMEOUT_MS), QG_OK);
		expect(c, 200, NULL);
		assert_int_equal(got.len, sizes[i]);
		assert_memory_equal(got.body, body, sizes[i]);
	}
	/* one byte too many: swallowed, refused, and the connection lives on */
	say(c, "POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 200001\r\n\r\n");
	assert_int_equal(qg_conn_send(c, body, 200001, TIMEOUT_MS), QG_OK);
	expect(c, 400, "\"s\":413,\"m\":\"the body is larger than 200000 bytes");
	ask(c, "GET /show/x", 200, NULL);
	say(c, "GET /show/x HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\n\r\nab");
	expect(c, 400, "takes no body");
	ask(c, "GET /show/x", 200, NULL);
	qg_conn_close(&c);
}

static void
takes_chunks(void **state)
{
	(void)state;
	qg_conn *c = dial();
	say(c, "POST /echo HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
	usleep(20000);
	say(c, "A\r\n0123456789\r\n0\r\n\r\n");
	expect(c, 200, "abc0123456789");
	say(c, "POST /echo HTTP/1.1\r\nHost: k\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
	expect(c, 100, NULL);
	say(c, "body");
	expect(c, 200, "body");
	/* too many, in chunks */
	say(c, "POST /show/x HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n");
	char chunk[1100] = "3E8\r\n";
	memset(chunk + 5, 'x', 1000);
	memcpy(chunk + 1005, "\r\n", 3);
	say(c, chunk);
	say(c, "1\r\ny\r\n0\r\n\r\n");
	expect(c, 400, "larger than 1000");
	ask(c, "GET /show/x", 200, NULL);
	qg_conn_close(&c);
}

static void
cuts_endless_bodies(void **state)
{
	(void)state;
	qg_conn *c = dial();
	/* announced: told at once, and cut */
	say(c, "POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 99999999999\r\n\r\n");
	expect(c, 400, "\"s\":413");
	assert_true(got.closes);
	expect_end(c);
	qg_conn_close(&c);
	/* with Expect nothing is sent in vain */
	c = dial();
	say(c, "POST /echo HTTP/1.1\r\nHost: k\r\nExpect: 100-continue\r\nContent-Length: 9999999\r\n\r\n");
	expect(c, 400, "\"s\":413");
	qg_conn_close(&c);
	/* not announced: cut in the end */
	c = dial();
	say(c, "POST /nothing HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n");
	static char chunk[16 * 1024 + 16];
	memset(chunk, 'x', sizeof chunk);
	memcpy(chunk, "4000\r\n", 6);
	memcpy(chunk + 6 + 0x4000, "\r\n", 2);
	int n = 0;
	while (n < 2000 && qg_conn_send(c, chunk, 6 + 0x4000 + 2, TIMEOUT_MS) == QG_OK)
		n++;
	assert_in_range(n, 16, 1999);
	qg_conn_close(&c);
	assert_int_equal(atomic_load(&n_handled), 0);
	still_serves();
}

static void
malformed_http_harms_nobody(void **state)
{
	(void)state;
	static const char *const texts[] = {
		"\r\n\r\n\r\n",
		"GARBAGE\r\n\r\n",
		"GET\r\n\r\n",
		"GET /show/x\r\n\r\n",
		"GET /show/x HTTP/9.9\r\nHost: k\r\n\r\n",
		"GET /show/x HTTP/1.1\r\nno colon\r\n\r\n",
		"GET /show/x HTTP/1.1\r\n: empty\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: -1\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 99999999999999999999999\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 3x\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: gzip\r\n\r\nabc",
		"POST /echo HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST /echo HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
		"POST /echo HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFF\r\nabc\r\n",
		"POST /echo HTTP/1.1\r\nHost: k\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcdef\r\n",
		"POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 10\r\n\r\nabc", /* truncated */
		"GET /show/x HTTP/1.1\r\nHost: k\r\nX-Cut: ",
		"\x16\x03\x01",
	};
	for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
		qg_conn *c = dial();
		say(c, texts[i]);
		usleep(5000);
		qg_conn_close(&c);
	}
	assert_in_range(atomic_load(&n_handled), 0, 4); /* what of it may pass: an odd header, an HTTP/0.9 */
	still_serves();
}

/* Headers get 200 up to 8 KiB and then 431, 414 when it is the path. Where they
 * just fill its memory, libmicrohttpd has no room left for an answer. */
static void
large_headers_get_431(void **state)
{
	(void)state;
	static char text[20000];
	int n_431 = 0;
	for (size_t n = 1000; n < 16000; n += 97) {
		qg_conn *c = dial();
		int at = snprintf(text, sizeof text, "GET /show/x HTTP/1.1\r\nHost: k\r\nX-Long: ");
		memset(text + at, 'y', n);
		strcpy(text + (size_t)at + n, "\r\n\r\n");
		say(c, text);
		bool answered = hear(c, &got);
		if (!answered && (n < 9500 || n > 10240))
			fail_msg("no answer to %zu bytes of header", n);
		assert_true(!answered || got.status == (n < 8150 ? 200 : 431));
		n_431 += answered && got.status == 431;
		qg_conn_close(&c);
	}
	assert_true(n_431 > 60);
	for (size_t n = 1000; n < 16000; n += 997) {
		qg_conn *c = dial();
		int at = snprintf(text, sizeof text, "GET /show/");
		memset(text + at, 'y', n);
		strcpy(text + (size_t)at + n, " HTTP/1.1\r\nHost: k\r\n\r\n");
		say(c, text);
		bool answered = hear(c, &got);
		if (!answered && (n < 9500 || n > 10240))
			fail_msg("no answer to a path of %zu bytes", n);
		assert_true(!answered || got.status == 200 || got.status == 431 || got.status == 414);
		qg_conn_close(&c);
	}
	still_serves();
}

/* --- late answers --------------------------------------------------------- */

static void
pipelining_keeps_the_order(void **state)
{
	(void)state;
	qg_conn *c = dial();
	say(c, "GET /later/60 HTTP/1.1\r\nHost: k\r\n\r\nGET /show/two HTTP/1.1\r\nHost: k\r\n\r\n"
	       "POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 5\r\n\r\nthreeGET /at-once HTTP/1.1\r\nHost: k\r\n\r\n"
	       "GET /later/1 HTTP/1.1\r\nHost: k\r\n\r\n");
	expect(c, 200, "late 60");
	assert_non_null(strstr(got.head, "X-Answer: late"));
	expect(c, 200, "part=two");
	expect(c, 200, "three");
	expect(c, 200, "at once");
	expect(c, 200, "late 1");
	qg_conn_close(&c);
}

static void *
one_of_many(void *arg)
{
	answer *a = malloc(sizeof *a);
	qg_tls_files f = pki_files("alice");
	qg_conn *c = NULL;
	int *good = arg;
	if (a != NULL &&
	    qg_conn_open("127.0.0.1", qg_http_server_port(server), &f, "localhost", TIMEOUT_MS * 4, &c) == QG_OK) {
		for (int i = 0; i < 10; i++) {
			char text[100];
			char want[20];
			snprintf(text, sizeof text, "GET /later/%d HTTP/1.1\r\nHost: k\r\n\r\n", i);
			snprintf(want, sizeof want, "late %d", i);
			if (qg_conn_send(c, text, strlen(text), TIMEOUT_MS) != QG_OK || !hear(c, a) || a->status != 200 ||
			    strcmp(a->body, want) != 0)
				break;
			++*good;
		}
	}
	qg_conn_close(&c);
	free(a);
	return NULL;
}

static void
many_late_answers(void **state)
{
	(void)state;
	pthread_t t[PARALLEL];
	int good[PARALLEL] = {0};
	for (size_t i = 0; i < PARALLEL; i++)
		assert_int_equal(pthread_create(&t[i], NULL, one_of_many, &good[i]), 0);
	for (size_t i = 0; i < PARALLEL; i++) {
		pthread_join(t[i], NULL);
		assert_int_equal(good[i], 10);
	}
}

static qg_http_request *
wait_held(void)
{
	for (int i = 0; i < 2000 && atomic_load(&held) == NULL; i++)
		usleep(1000);
	qg_http_request *req = atomic_exchange(&held, NULL);
	assert_non_null(req);
	return req;
}

static void
client_gone_while_deferred(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		qg_conn *c = dial();
		say(c, "GET /hold HTTP/1.1\r\nHost: k\r\n\r\n");
		qg_http_request *req = wait_held();
		if (i == 1)
			qg_conn_abort(c); /* without close-notify */
		qg_conn_close(&c);
		usleep(20000);
		assert_string_equal(qg_http_path(req), "/hold"); /* still there */
		assert_ptr_equal(qg_http_peer(req), alice);
		qg_secret *s = NULL;
		assert_int_equal(qg_secret_new(100, &s), QG_OK);
		assert_int_equal(qg_secret_append(s, "secret", 6), QG_OK);
		qg_http_answer_secret(req, 200, "text/plain", s);
	}
	still_serves();
}

static void
stop_answers_503(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	start_with(&o);
	qg_conn *c = dial();
	say(c, "GET /hold HTTP/1.1\r\nHost: k\r\n\r\n");
	qg_http_request *req = wait_held();
	uint64_t start = qg_clock_elapsed_ms();
	qg_http_server_stop(&server);
	assert_null(server);
	assert_true(qg_clock_elapsed_ms() - start < 900);
	expect(c, 503, "stopping");
	assert_true(got.closes);
	expect_end(c);
	qg_conn_close(&c);
	/* The late answer comes all the same, to nobody. */
	assert_string_equal(qg_http_path(req), "/hold");
	qg_secret *s = NULL;
	assert_int_equal(qg_secret_new(100, &s), QG_OK);
	qg_http_set_header(req, "X-Late", "1");
	qg_http_answer_secret(req, 200, "text/plain", s);
	qg_http_server_stop(&server);
}

static void *
answer_soon(void *arg)
{
	usleep((useconds_t)(rand() % 400));
	qg_http_answer(arg, 200, "text/plain", "soon", 4);
	return NULL;
}

/* The answer and the stop run into each other, again and again. */
static void
stop_races_with_answers(void **state)
{
	(void)state;
	int by_answer = 0;
	for (int i = 0; i < 30; i++) {
		qg_http_options o = default_options();
		o.threads = 1;
		start_with(&o);
		qg_conn *c = dial();
		say(c, "GET /hold HTTP/1.1\r\nHost: k\r\n\r\n");
		pthread_t t;
		pthread_create(&t, NULL, answer_soon, wait_held());
		usleep((useconds_t)(rand() % 400));
		qg_http_server_stop(&server);
		pthread_join(t, NULL);
		assert_true(hear(c, &got));
		assert_true(got.status == 503 || (got.status == 200 && strcmp(got.body, "soon") == 0));
		by_answer += got.status == 200;
		qg_conn_close(&c);
	}
	print_message("%d of 30 answers came before the stop\n", by_answer);
}

/* --- slow and many -------------------------------------------------------- */

static int
tcp(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)qg_http_server_port(server)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	return fd;
}

/* Whether the peer has ended the connection within the time. */
static bool
ended_within(int fd, int ms)
{
	uint64_t end = qg_clock_elapsed_ms() + (uint64_t)ms;
	char buf[4096];
	for (;;) {
		uint64_t now = qg_clock_elapsed_ms();
		struct pollfd p = {.fd = fd, .events = POLLIN};
		if (now >= end || poll(&p, 1, (int)(end - now)) <= 0)
			return false;
		if (recv(fd, buf, sizeof buf, 0) <= 0)
			return true;
	}
}

/* A real ClientHello, as it came from our own client. */
static size_t
client_hello(uint8_t *buf, size_t room)
{
	gnutls_session_t s;
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	gnutls_certificate_credentials_t cred;
	gnutls_certificate_allocate_credentials(&cred);
	gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NONBLOCK);
	gnutls_set_default_priority(s);
	gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred);
	gnutls_transport_set_int(s, pair[0]);
	assert_int_equal(gnutls_handshake(s), GNUTLS_E_AGAIN);
	ssize_t n = recv(pair[1], buf, room, 0);
	assert_true(n > 100);
	gnutls_deinit(s);
	gnutls_certificate_free_credentials(cred);
	close(pair[0]);
	close(pair[1]);
	return (size_t)n;
}

static double
cpu_s(void)
{
	struct rusage r;
	getrusage(RUSAGE_SELF, &r);
	return (double)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) +
	       (double)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static void
stopped_handshakes_cost_little(void **state)
{
	(void)state;
	uint8_t hello[2048];
	size_t len = client_hello(hello, sizeof hello);
	int fds[50];
	for (int i = 0; i < 50; i++) {
		fds[i] = tcp();
		size_t part = i % 2 == 0 ? len : len / 2; /* stopped after it, and in the middle of it */
		assert_int_equal(send(fds[i], hello, part, 0), (ssize_t)part);
	}
	usleep(300000);
	double before = cpu_s();
	uint64_t start = qg_clock_elapsed_ms();
	usleep(700000);
	double share = (cpu_s() - before) / ((double)(qg_clock_elapsed_ms() - start) / 1000);
	print_message("50 clients stopped in the handshake: %.1f %% of a core\n", share * 100);
	assert_true(share < 0.15);
	still_serves();
	for (int i = 0; i < 50; i++)
		close(fds[i]);
}

static void
slow_ones_are_cut(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	o.idle_timeout_s = 1;
	start_with(&o);
	uint8_t hello[2048];
	size_t len = client_hello(hello, sizeof hello);
	int silent = tcp();
	int half = tcp();
	assert_int_equal(send(half, hello, len / 2, 0), (ssize_t)(len / 2));
	qg_conn *idle = dial();
	ask(idle, "GET /show/x", 200, NULL);
	qg_conn *patient = dial(); /* waits for its answer: must not be cut */
	say(patient, "GET /later/3200 HTTP/1.1\r\nHost: k\r\n\r\n");
	qg_conn *drip = dial(); /* a byte now and then: never idle for a second */
	say(drip, "GET /show/x HTTP/1.1\r\nHost: k\r\nX-Drip: ");
	uint64_t start = qg_clock_elapsed_ms();
	qg_err err = QG_OK;
	while (err == QG_OK && qg_clock_elapsed_ms() - start < 6000) {
		usleep(100000);
		err = qg_conn_send(drip, "a", 1, TIMEOUT_MS);
	}
	uint64_t took = qg_clock_elapsed_ms() - start;
	print_message("the drip was cut after %u ms\n", (unsigned)took);
	assert_int_not_equal(err, QG_OK);
	assert_in_range(took, 1500, 4500);
	assert_true(ended_within(silent, 1500));
	assert_true(ended_within(half, 1500));
	uint8_t byte;
	assert_int_equal(qg_conn_recv(idle, &byte, 1, 1500), QG_E_CLOSED);
	expect(patient, 200, "late 3200");
	still_serves();
	close(silent);
	close(half);
	qg_conn_close(&idle);
	qg_conn_close(&patient);
	qg_conn_close(&drip);
	qg_http_server_stop(&server);
}

static void
connections_are_counted(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	for (int round = 0; round < 2; round++) {
		o.max_connections = round == 0 ? 4 : 100;
		o.max_per_address = round == 0 ? 0 : 4;
		start_with(&o);
		qg_conn *c[4];
		for (int i = 0; i < 4; i++) {
			c[i] = dial();
			ask(c[i], "GET /show/x", 200, NULL);
		}
		for (int i = 0; i < 8; i++) {
			int fd = tcp();
			assert_true(ended_within(fd, 2000));
			close(fd);
		}
		qg_conn_close(&c[3]); /* one leaves, one may come */
		usleep(50000);
		c[3] = dial();
		for (int i = 0; i < 4; i++) {
			ask(c[i], "GET /show/x", 200, NULL);
			qg_conn_close(&c[i]);
		}
		qg_http_server_stop(&server);
	}
}

/* --- starting ------------------------------------------------------------- */

static void
expect_no_start(const qg_http_options *o, qg_err want, const char *in_why)
{
	char why[256] = "";
	qg_http_server *s = NULL;
	assert_int_equal(qg_http_server_start(o, &s, why, sizeof why), want);
	assert_null(s);
	if (strstr(why, in_why) == NULL)
		fail_msg("'%s' is not in '%s'", in_why, why);
}

static void
start_says_what_is_wrong(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	o.address = "no address";
	expect_no_start(&o, QG_E_IO, "no address");
	o = default_options();
	o.port = qg_http_server_port(server); /* taken, also for the same user */
	expect_no_start(&o, QG_E_IO, "in use");
	still_serves();
	o = default_options();
	o.tls.ca = "/nonexistent";
	expect_no_start(&o, QG_E_IO, "/nonexistent");
	o = default_options();
	o.tls.key = pki_file("kme-b", ".key");
	expect_no_start(&o, QG_E_MISMATCH, "kme-b.key");
	const qg_http_route twice[] = {{"GET", "/a", show, 0}, {"GET", "/a", show, 0}};
	o = default_options();
	o.routes = twice;
	o.n_routes = 2;
	expect_no_start(&o, QG_E_INVAL, "routes");
}

static void
restarts_on_its_port(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	start_with(&o);
	o.port = qg_http_server_port(server);
	for (int i = 0; i < 3; i++) {
		qg_conn *c = dial();
		ask(c, "GET /show/x", 200, NULL);
		qg_http_server_stop(&server); /* with the connection open */
		start_with(&o);
		qg_conn_close(&c);
		still_serves();
	}
	qg_http_server_stop(&server);
	o.address = "::1";
	o.port = 0;
	char why[256] = "";
	if (qg_http_server_start(&o, &server, why, sizeof why) == QG_OK) {
		qg_tls_files f = pki_files("alice");
		qg_conn *c = NULL;
		assert_int_equal(qg_conn_open("::1", qg_http_server_port(server), &f, "localhost", TIMEOUT_MS, &c), QG_OK);
		ask(c, "GET /show/six", 200, "part=six");
		qg_conn_close(&c);
		qg_http_server_stop(&server);
	} else {
		print_message("no IPv6 here: %s\n", why);
	}
}

static int
setup(void **state)
{
	(void)state;
	unsigned seed = (unsigned)time(NULL);
	print_message("seed %u\n", seed);
	srand(seed);
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

#define SERVED(test) cmocka_unit_test_setup_teardown(test, start_server, stop_server)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		SERVED(serves_the_right_client),
		SERVED(refuses_unknown_paths_and_methods),
		SERVED(refuses_wrong_certificates),
		SERVED(unknown_name_gets_401),
		SERVED(no_certificate_no_word),
		SERVED(alerts_say_why),
		SERVED(embedded_nul_never_matches),
		cmocka_unit_test(tls_1_2_only_where_allowed),
		SERVED(takes_bodies),
		SERVED(takes_chunks),
		SERVED(cuts_endless_bodies),
		SERVED(malformed_http_harms_nobody),
		SERVED(large_headers_get_431),
		SERVED(pipelining_keeps_the_order),
		SERVED(many_late_answers),
		SERVED(client_gone_while_deferred),
		cmocka_unit_test(stop_answers_503),
		cmocka_unit_test(stop_races_with_answers),
		SERVED(stopped_handshakes_cost_little),
		cmocka_unit_test(slow_ones_are_cut),
		cmocka_unit_test(connections_are_counted),
		SERVED(start_says_what_is_wrong),
		cmocka_unit_test(restarts_on_its_port),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
