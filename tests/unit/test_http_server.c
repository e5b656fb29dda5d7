/* SPDX-License-Identifier: Apache-2.0 */
/* Requests, certificates, bodies; see test_http_load.c for the rest. */
#include "http_fixture.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sys/socket.h>

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
	ask(c, "GET /show/", 200, "part= body"); /* the handler judges */
	ask(c, "GET /show/x/../x", 404, NULL);
	assert_int_equal(atomic_load(&n_handled), 2);
	assert_int_equal(atomic_load(&n_refused), 9);
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
	gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
	gnutls_set_default_priority(s);
	gnutls_credentials_set(s, GNUTLS_CRD_CERTIFICATE, cred);
	gnutls_transport_set_int(s, fd);
	gnutls_handshake_set_timeout(s, 5000);
	ssize_t n = gnutls_handshake(s);
	if (n == 0) {
		/* May fail already: the alert that says why is there to be read. */
		(void)!gnutls_record_send(s, request, sizeof request - 1);
		do
			n = gnutls_record_recv(s, buf, room - 1);
		while (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED);
	}
	*alert = n == GNUTLS_E_FATAL_ALERT_RECEIVED ? (int)gnutls_alert_get(s) : -1;
	buf[n > 0 ? n : 0] = '\0';
	gnutls_deinit(s);
	close(fd);
	return (int)n;
}

static void
no_certificate_is_told_so(void **state)
{
	(void)state;
	gnutls_certificate_credentials_t cred;
	char buf[1024];
	int alert;
	gnutls_certificate_allocate_credentials(&cred);
	assert_true(bare_tls(cred, buf, sizeof buf, &alert) < 0);
	assert_int_equal(alert, GNUTLS_A_CERTIFICATE_REQUIRED);
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
		gnutls_init(&s, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
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
		"POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
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

/* What two readers could end at different places is refused whole: what might
 * be the next request is not served. */
static void
ambiguous_requests_end_the_connection(void **state)
{
	(void)state;
	static const char *const fields[] = {
		"Content-Length: 3\r\nContent-Length: 3",
		"Content-Length : 3",
		"Content-Length\t: 3",
		"Transfer-Encoding : chunked",
		"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
		"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
		"Transfer-Encoding: chunked, chunked",
		"Transfer-Encoding: chunked\r\nContent-Length: 3",
		"Bad(name): x",
	};
	for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
		qg_conn *c = dial();
		char text[512];
		int n = snprintf(text, sizeof text,
				 "POST /echo HTTP/1.1\r\nHost: k\r\n%s\r\n\r\n0\r\n\r\n"
				 "GET /show/next HTTP/1.1\r\nHost: k\r\n\r\n",
				 fields[i]);
		assert_in_range(n, 1, sizeof text - 1);
		say(c, text);
		expect(c, 400, NULL);
		assert_true(got.closes);
		expect_end(c);
		qg_conn_close(&c);
	}
	assert_int_equal(atomic_load(&n_handled), 0);
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		SERVED(serves_the_right_client),
		SERVED(refuses_unknown_paths_and_methods),
		SERVED(refuses_wrong_certificates),
		SERVED(unknown_name_gets_401),
		SERVED(no_certificate_is_told_so),
		SERVED(alerts_say_why),
		SERVED(embedded_nul_never_matches),
		cmocka_unit_test(tls_1_2_only_where_allowed),
		SERVED(takes_bodies),
		SERVED(takes_chunks),
		SERVED(cuts_endless_bodies),
		SERVED(malformed_http_harms_nobody),
		SERVED(ambiguous_requests_end_the_connection),
		SERVED(large_headers_get_431),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, setup, teardown);
}
