/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../src/platform/tls_internal.h"

static int fds[2];
static qg_tls_in in;

static int
open_pair(void **state)
{
	(void)state;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) != 0)
		return -1;
	qg_tls_in_init(&in, fds[0], NULL);
	return 0;
}

static int
close_pair(void **state)
{
	(void)state;
	close(fds[0]);
	if (fds[1] >= 0)
		close(fds[1]);
	return 0;
}

static void
say(const void *p, size_t n)
{
	assert_int_equal(send(fds[1], p, n, 0), n);
}

static int
left_in_the_socket(void)
{
	int n = 0;
	assert_int_equal(ioctl(fds[0], FIONREAD, &n), 0);
	return n;
}

static void
expect_pulled(size_t n, const char *text)
{
	char got[64] = "";
	assert_true(n < sizeof got);
	assert_int_equal(qg_tls_in_pull(&in, got, n), strlen(text));
	assert_string_equal(got, text);
}

static void
expect_nothing_yet(void)
{
	char got[8];
	errno = 0;
	assert_int_equal(qg_tls_in_pull(&in, got, sizeof got), -1);
	assert_true(errno == EAGAIN || errno == EWOULDBLOCK);
}

static void
head_and_body_come_with_one_call(void **state)
{
	(void)state;
	say("12345body", 9);
	expect_pulled(5, "12345");
	assert_int_equal(left_in_the_socket(), 0);
	expect_pulled(4, "body");
	expect_nothing_yet();
}

static void
what_is_ahead_is_given_before_what_comes(void **state)
{
	(void)state;
	say("abcdef", 6);
	expect_pulled(2, "ab");
	say("gh", 2);
	expect_pulled(16, "cdef"); /* as much as is there, no wait for more */
	expect_pulled(16, "gh");
	expect_nothing_yet();
}

/* More than is read ahead, in whatever pieces: each byte once and in order. */
static void
long_records_pass(void **state)
{
	(void)state;
	static const size_t pieces[] = {5, 1, 4000, 511, 512, 513, 1, 9000};
	uint8_t sent[20000], got[20000];
	for (size_t i = 0; i < sizeof sent; i++)
		sent[i] = (uint8_t)(i * 7 + i / 256);
	say(sent, sizeof sent);
	size_t have = 0;
	for (size_t i = 0; have < sizeof got; i = (i + 1) % (sizeof pieces / sizeof pieces[0])) {
		const size_t room = sizeof got - have;
		const ssize_t n = qg_tls_in_pull(&in, got + have, pieces[i] < room ? pieces[i] : room);
		assert_true(n > 0);
		have += (size_t)n;
	}
	assert_memory_equal(got, sent, sizeof sent);
	expect_nothing_yet();
}

static void
the_end_comes_behind_what_was_said(void **state)
{
	(void)state;
	char got[8];
	say("bye", 3);
	close(fds[1]);
	fds[1] = -1;
	expect_pulled(1, "b");
	expect_pulled(8, "ye");
	assert_int_equal(qg_tls_in_pull(&in, got, sizeof got), 0);
	assert_int_equal(qg_tls_in_pull(&in, got, sizeof got), 0);
}

static void
expect_heard(const char *text)
{
	char got[64] = "";
	const ssize_t n = recv(fds[1], got, sizeof got - 1, MSG_DONTWAIT);
	assert_int_equal(n < 0 ? 0 : n, strlen(text));
	assert_string_equal(got, text);
}

/* What the session holds back goes out when it finds nothing to read, since the peer
 * may wait for it; not before, and where it cannot the session hears the same. */
static void
who_has_to_wait_says_what_it_holds(void **state)
{
	(void)state;
	static qg_tls_out out;
	const struct iovec piece = {.iov_base = (char[]){"ticket"}, .iov_len = 6};
	qg_tls_out_init(&out, fds[0]);
	qg_tls_in_init(&in, fds[0], &out);
	qg_tls_out_hold(&out);
	assert_int_equal(qg_tls_out_push(&out, &piece, 1), 6);
	say("request", 7);
	expect_pulled(3, "req");
	expect_pulled(8, "uest");
	expect_heard("");
	expect_nothing_yet();
	expect_heard("ticket");
	expect_nothing_yet();
	expect_heard("");
	qg_tls_out_hold(&out);
	assert_int_equal(qg_tls_out_push(&out, &piece, 1), 6);
	assert_int_equal(shutdown(fds[0], SHUT_WR), 0);
	expect_nothing_yet();
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, open_pair, close_pair)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(head_and_body_come_with_one_call),
		CASE(what_is_ahead_is_given_before_what_comes),
		CASE(long_records_pass),
		CASE(the_end_comes_behind_what_was_said),
		CASE(who_has_to_wait_says_what_it_holds),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
