/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/platform/tls_internal.h"

static int fds[2];
static qg_tls_out out;

static int
open_pair(void **state)
{
	(void)state;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0)
		return -1;
	qg_tls_out_init(&out, fds[0]);
	return 0;
}

static int
close_pair(void **state)
{
	(void)state;
	close(fds[0]);
	close(fds[1]);
	return 0;
}

static ssize_t
push(const char *a, const char *b)
{
	const struct iovec piece[2] = {{(void *)(uintptr_t)a, strlen(a)}, {(void *)(uintptr_t)b, strlen(b)}};
	return qg_tls_out_push(&out, piece, 2);
}

static void
expect_received(const char *text)
{
	char got[4096] = "";
	const ssize_t n = recv(fds[1], got, sizeof got - 1, 0);
	assert_int_equal(n < 0 ? 0 : n, strlen(text));
	assert_string_equal(got, text);
}

static void
holds_one_for_the_next(void **state)
{
	(void)state;
	assert_int_equal(push("to", "ken"), 5);
	expect_received("token");
	qg_tls_out_hold(&out);
	assert_int_equal(push("he", "ad"), 4);
	expect_received("");
	assert_int_equal(push("bo", "dy"), 4);
	expect_received("headbody");
	assert_int_equal(push("more", ""), 4); /* nothing is held for this one */
	expect_received("more");
	assert_true(qg_tls_out_flush(&out));
	expect_received("");
}

static void
a_flush_ends_it(void **state)
{
	(void)state;
	qg_tls_out_hold(&out);
	assert_int_equal(push("head", ""), 4);
	assert_true(qg_tls_out_flush(&out));
	expect_received("head");
	qg_tls_out_hold(&out);
	assert_true(qg_tls_out_flush(&out)); /* held nothing, holds no more */
	assert_int_equal(push("next", ""), 4);
	expect_received("next");
}

static void
what_is_too_large_is_not_held(void **state)
{
	(void)state;
	char large[sizeof out.held + 2];
	memset(large, 'x', sizeof large - 1);
	large[sizeof large - 1] = '\0';
	qg_tls_out_hold(&out);
	assert_int_equal(push(large, ""), sizeof large - 1);
	expect_received(large);
}

/* A socket that takes little: every byte comes once, in order. */
static void
a_full_socket_loses_nothing(void **state)
{
	(void)state;
	static char body[60000], want[61000], got[61000];
	size_t have = 0, at = 0, n_again = 0;
	const int small = 4096;
	assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
	while (send(fds[0], "-", 1, MSG_NOSIGNAL) == 1)
		; /* not a byte more fits */
	assert_int_equal(errno, EAGAIN);
	for (size_t i = 0; i < sizeof body; i++)
		body[i] = (char)('a' + i % 23);
	memcpy(want, "head", 4);
	memcpy(want + 4, body, sizeof body);
	qg_tls_out_hold(&out);
	assert_int_equal(push("head", ""), 4);
	while (at < sizeof body || out.len > 0) {
		const struct iovec piece = {body + at, sizeof body - at};
		const ssize_t n = qg_tls_out_push(&out, &piece, 1);
		assert_true(n > 0 || errno == EAGAIN);
		n_again += n < 0;
		at += n > 0 ? (size_t)n : 0;
		char some[701];
		ssize_t m = recv(fds[1], some, sizeof some, 0);
		for (ssize_t i = 0; i < m; i++)
			if (some[i] != '-')
				got[have++] = some[i];
	}
	for (ssize_t m; (m = recv(fds[1], got + have, sizeof got - have, 0)) > 0;)
		have += (size_t)m;
	assert_true(n_again > 0);
	assert_int_equal(have, 4 + sizeof body);
	assert_memory_equal(got, want, have);
}

static void
an_ended_socket_says_so(void **state)
{
	(void)state;
	qg_tls_out_hold(&out);
	assert_int_equal(push("head", ""), 4);
	shutdown(fds[0], SHUT_RDWR);
	assert_int_equal(push("body", ""), -1);
	assert_int_equal(errno, EPIPE);
	assert_false(qg_tls_out_flush(&out));
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_pair, close_pair)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(holds_one_for_the_next),
		CASE(a_flush_ends_it),
		CASE(what_is_too_large_is_not_held),
		CASE(a_full_socket_loses_nothing),
		CASE(an_ended_socket_says_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
