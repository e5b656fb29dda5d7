/* SPDX-License-Identifier: Apache-2.0 */
/* Late answers, slow and many clients, starting and stopping the server. */
#include "http_fixture.h"

#include <arpa/inet.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>

#define PARALLEL 64

/* --- late answers --------------------------------------------------------- */

static void
pipelining_keeps_the_order(void **state)
{
	(void)state;
	qg_conn *c = dial();
	say(c, "GET /later/60 HTTP/1.1\r\nHost: k\r\n\r\nGET /show/two HTTP/1.1\r\nHost: k\r\n\r\n"
	       "POST /echo HTTP/1.1\r\nHost: k\r\nContent-Length: 5\r\n\r\nthree"
	       "GET /at-once HTTP/1.1\r\nHost: k\r\n\r\n"
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

/* Answers that are given together reach all that wait for them; also those whose
 * client has left, and at a stop. */
static void
gathered_answers_all_come(void **state)
{
	(void)state;
	enum { N = 6 };
	qg_conn *c[N];
	qg_http_request *req[N];
	for (size_t i = 0; i < N; i++) {
		c[i] = dial();
		say(c[i], "GET /hold HTTP/1.1\r\nHost: k\r\n\r\n");
		req[i] = wait_held();
	}
	qg_conn_close(&c[2]);
	usleep(20000);
	qg_http_gather(true);
	for (size_t i = 0; i < N; i++)
		qg_http_answer(req[i], 200, "text/plain", "together", 8);
	qg_http_gather(false);
	for (size_t i = 0; i < N; i++) {
		if (c[i] == NULL)
			continue;
		expect(c[i], 200, "together");
		ask(c[i], "GET /show/after", 200, "part=after");
		qg_conn_close(&c[i]);
	}
	still_serves();
}

static void *
stop_it(void *arg)
{
	(void)arg;
	qg_http_server_stop(&server);
	return NULL;
}

/* The server may not end while a thread still owes it a wake. */
static void
stop_waits_for_who_gathers(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	start_with(&o);
	qg_conn *c = dial();
	say(c, "GET /hold HTTP/1.1\r\nHost: k\r\n\r\n");
	qg_http_request *req = wait_held();
	pthread_t stopper;
	qg_http_gather(true);
	qg_http_answer(req, 200, "text/plain", "at last", 7);
	assert_int_equal(pthread_create(&stopper, NULL, stop_it, NULL), 0);
	expect(c, 200, "at last"); /* taken before it was told */
	usleep(50000);
	qg_http_gather(false);
	pthread_join(stopper, NULL);
	qg_conn_close(&c);
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
	qg_http_server_stop(&server); /* with all of them there */
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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		SERVED(pipelining_keeps_the_order),
		SERVED(many_late_answers),
		SERVED(client_gone_while_deferred),
		SERVED(gathered_answers_all_come),
		cmocka_unit_test(stop_waits_for_who_gathers),
		cmocka_unit_test(stop_answers_503),
		cmocka_unit_test(stop_races_with_answers),
		SERVED(stopped_handshakes_cost_little),
		cmocka_unit_test(slow_ones_are_cut),
		cmocka_unit_test(connections_are_counted),
		SERVED(start_says_what_is_wrong),
		cmocka_unit_test(restarts_on_its_port),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, setup, teardown);
}
