/* SPDX-License-Identifier: Apache-2.0 */
/* Strangers who connect again and again, who never finish their handshake, and
 * clients who leave in the middle of a request. */
#include "http_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "../../src/platform/http_internal.h"

#define WAIT_MS 60000

/* --- how often connections begin --------------------------------------------- */

static _Atomic uint64_t frozen_ms;

static uint64_t
frozen_elapsed_ms(void)
{
	return frozen_ms;
}

static int64_t
wall_ms(void)
{
	return (int64_t)time(NULL) * 1000;
}

static void
freeze(void)
{
	static const qg_clock_ops ops = {.elapsed_ms = frozen_elapsed_ms, .wall_ms = wall_ms};
	frozen_ms = qg_clock_elapsed_ms();
	qg_clock_use(&ops);
}

static const struct sockaddr *
address(const char *text)
{
	static struct sockaddr_in v4;
	static struct sockaddr_in6 v6;
	v4 = (struct sockaddr_in){.sin_family = AF_INET};
	v6 = (struct sockaddr_in6){.sin6_family = AF_INET6};
	if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
		return (const struct sockaddr *)&v4;
	assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
	return (const struct sockaddr *)&v6;
}

/* How many of n are let in at this moment. */
static unsigned
let_in(qg_arrivals *a, const char *from, unsigned n)
{
	unsigned in = 0;
	for (unsigned i = 0; i < n; i++)
		in += qg_arrivals_let_in(a, address(from));
	return in;
}

static void
an_address_has_a_rate_and_a_burst(void **state)
{
	(void)state;
	qg_arrivals *a = NULL;
	freeze();
	assert_int_equal(qg_arrivals_new(5, &a), QG_OK);
	assert_int_equal(let_in(a, "192.0.2.1", 60), 50);
	assert_int_equal(qg_arrivals_refused(a), 10);
	assert_int_equal(let_in(a, "192.0.2.2", 1), 1); /* the neighbour has its own */
	frozen_ms += 400;
	assert_int_equal(let_in(a, "192.0.2.1", 5), 2);
	frozen_ms += 3600000; /* no more than the burst is saved up */
	assert_int_equal(let_in(a, "192.0.2.1", 60), 50);
	frozen_ms -= 1000; /* a clock that goes back gives nothing and takes nothing */
	assert_int_equal(let_in(a, "192.0.2.1", 1), 0);
	qg_arrivals_free(&a);
	assert_null(a);
	qg_clock_use(NULL);
}

static void
a_network_of_ipv6_counts_as_one(void **state)
{
	(void)state;
	qg_arrivals *a = NULL;
	freeze();
	assert_int_equal(qg_arrivals_new(1, &a), QG_OK);
	assert_int_equal(let_in(a, "2001:db8:0:1::1", 6), 6);
	assert_int_equal(let_in(a, "2001:db8:0:1:ffff::2", 6), 4);
	assert_int_equal(let_in(a, "2001:db8:0:2::1", 1), 1);
	assert_int_equal(let_in(a, "::ffff:192.0.2.1", 6), 6); /* one that is mapped is an IPv4 address */
	assert_int_equal(let_in(a, "192.0.2.1", 6), 4);
	assert_int_equal(let_in(a, "::ffff:192.0.2.2", 1), 1);
	qg_arrivals_free(&a);
	qg_clock_use(NULL);
}

/* The table is full long before: who was seen last keeps its bucket. */
static void
many_addresses_cost_no_memory_and_no_bucket(void **state)
{
	(void)state;
	qg_arrivals *a = NULL;
	char text[INET_ADDRSTRLEN];
	freeze();
	assert_int_equal(qg_arrivals_new(1, &a), QG_OK);
	for (unsigned i = 0; i < 50000; i++) {
		assert_true(snprintf(text, sizeof text, "10.%u.%u.%u", i >> 16, i >> 8 & 255, i & 255) > 0);
		assert_int_equal(let_in(a, text, 1), 1);
		if (i % 8 == 0)
			frozen_ms++;
		(void)let_in(a, "192.0.2.1", 1);
	}
	/* 6 s have given 6 more than the burst. */
	assert_true(qg_arrivals_refused(a) >= 50000 - 10 - 7);
	qg_arrivals_free(&a);
	assert_int_equal(qg_arrivals_new(0, &a), QG_OK);
	assert_null(a);
	assert_int_equal(let_in(a, "192.0.2.1", 100), 100);
	assert_int_equal(qg_arrivals_refused(a), 0);
	qg_clock_use(NULL);
}

/* --- a server ------------------------------------------------------------------ */

static void
come(int fd)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)qg_http_server_port(server))};
	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (const struct sockaddr *)&a, sizeof a), 0);
}

static int
tcp(void)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	come(fd);
	return fd;
}

static qg_http_stats
stats(void)
{
	qg_http_stats s;
	qg_http_server_stats(server, &s);
	return s;
}

static void
serves(void)
{
	qg_conn *c = dial();
	ask(c, "GET /show/well", 200, "part=well");
	qg_conn_close(&c);
}

/* Waits until the server has seen so many leave, or be turned away. */
#define WAIT_FOR(what)                                                     \
	do {                                                               \
		for (unsigned ms = 0; !(what) && ms < WAIT_MS; ms += 10) \
			usleep(10000);                                     \
		assert_true(what);                                         \
	} while (0)

static void
a_server_turns_away_who_comes_too_often(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	o.address_handshakes_per_s = 1;
	freeze();
	start_with(&o);
	int fds[14];
	qg_conn *c = dial();
	ask(c, "GET /show/x", 200, NULL);
	for (size_t i = 0; i < 14; i++)
		fds[i] = tcp();
	WAIT_FOR(stats().limited == 5); /* of 15, 10 */
	ask(c, "GET /show/x", 200, NULL);
	assert_int_equal(stats().limited, 5);
	for (size_t i = 0; i < 14; i++)
		close(fds[i]);
	qg_conn_close(&c);
	frozen_ms += 60000;
	serves();
	qg_http_server_stop(&server);
	qg_clock_use(NULL);
}

#define MOST 256u
#define STRANGERS 500u
#define AT_ONCE 10u

/* Half of the connections, and those that come between two looks of the server. */
static void
who_never_finishes_a_handshake_leaves_room(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	o.threads = 1;
	o.max_connections = MOST;
	o.idle_timeout_s = 600;
	start_with(&o);
	static int fds[STRANGERS];
	qg_conn *known = dial();
	ask(known, "GET /show/x", 200, NULL);
	for (size_t i = 0; i < STRANGERS; i++) {
		fds[i] = tcp();
		(void)send(fds[i], "\x16\x03\x01", i % 3, MSG_NOSIGNAL);
		if (i % AT_ONCE == 0) /* all before it have been seen, and who was too many has left */
			serves();
		WAIT_FOR(stats().connections <= MOST / 2 + 4 * AT_ONCE);
	}
	WAIT_FOR(stats().failed_handshakes >= STRANGERS - MOST / 2 - 4 * AT_ONCE);
	ask(known, "GET /show/x", 200, NULL);
	for (size_t i = 0; i < STRANGERS; i++)
		close(fds[i]);
	qg_conn_close(&known);
	qg_http_server_stop(&server);
}

static void
who_leaves_within_a_request_is_let_go(void **state)
{
	(void)state;
	static const char *const parts[] = {
		"GET /sho", "GET /show/x HTTP/1.1\r\nHost: k\r\n", "POST /show/x HTTP/1.1\r\nHost: k\r\nContent-Length: 9\r\n\r\nab",
	};
	qg_http_options o = default_options();
	o.idle_timeout_s = 600;
	start_with(&o);
	for (size_t i = 0; i < 3 * sizeof parts / sizeof parts[0]; i++) {
		qg_conn *c = dial();
		say(c, parts[i % 3]);
		qg_conn_close(&c);
	}
	WAIT_FOR(stats().connections == 0);
	serves();
	qg_http_server_stop(&server);
}

static const void *
identify_anybody(const qg_http_local *who, void *ctx)
{
	(void)who, (void)ctx;
	return alice;
}

/* It says that no more comes, and waits for longer than who left is given. */
static void
who_ends_and_waits_gets_the_answer(void **state)
{
	(void)state;
	static const char request[] = "GET /hold HTTP/1.1\r\nHost: k\r\n\r\n";
	qg_http_options o = default_options();
	o.transport = QG_HTTP_PLAIN;
	o.identify_local = identify_anybody;
	o.idle_timeout_s = 600;
	start_with(&o);
	int fd = tcp();
	char text[4096];
	size_t n = 0;
	assert_int_equal(send(fd, request, sizeof request - 1, 0), sizeof request - 1);
	WAIT_FOR(atomic_load(&held) != NULL);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	usleep(2500000);
	qg_http_answer(atomic_load(&held), 200, "text/plain", "held", 4);
	for (ssize_t some = 1; some > 0 && n < sizeof text - 1; n += some > 0 ? (size_t)some : 0)
		some = recv(fd, text + n, sizeof text - 1 - n, 0);
	text[n] = '\0';
	assert_non_null(strstr(text, "held"));
	close(fd);
	qg_http_server_stop(&server);
}

/* One comes for whom the server gets no descriptor, and stays. */
static int
come_in_vain(void)
{
	struct rlimit was;
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), free_one = dup(fd);
	assert_true(fd >= 0 && close(free_one) == 0 && getrlimit(RLIMIT_NOFILE, &was) == 0);
	const struct rlimit none = {.rlim_cur = (rlim_t)free_one, .rlim_max = was.rlim_max};
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	come(fd);
	usleep(1000000); /* for the server to try, on a busy machine too */
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &was), 0);
	return fd;
}

/* libmicrohttpd takes no more in then until one leaves; who is idle longest does,
 * and who waits for an answer does not. */
static void
want_of_descriptors_passes(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	o.threads = 1;
	o.idle_timeout_s = 600;
	start_with(&o);
	qg_conn *waits = dial(), *idle = dial();
	say(waits, "GET /hold HTTP/1.1\r\nHost: k\r\n\r\n");
	WAIT_FOR(atomic_load(&held) != NULL);
	ask(idle, "GET /show/x", 200, NULL);
	int fd = come_in_vain();
	serves();
	expect_end(idle);
	close(fd);
	qg_conn_close(&idle);
	WAIT_FOR(stats().connections == 1);
	fd = come_in_vain();
	qg_http_answer(atomic_load(&held), 200, "text/plain", "held", 4);
	expect(waits, 200, "held");
	serves();
	close(fd);
	qg_conn_close(&waits);
	qg_http_server_stop(&server);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_address_has_a_rate_and_a_burst),
		cmocka_unit_test(a_network_of_ipv6_counts_as_one),
		cmocka_unit_test(many_addresses_cost_no_memory_and_no_bucket),
		cmocka_unit_test(a_server_turns_away_who_comes_too_often),
		cmocka_unit_test(who_never_finishes_a_handshake_leaves_room),
		cmocka_unit_test(who_leaves_within_a_request_is_let_go),
		cmocka_unit_test(who_ends_and_waits_gets_the_answer),
		cmocka_unit_test(want_of_descriptors_passes),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, setup, teardown);
}
