/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_FUZZ_CLIENT_H
#define TESTS_FUZZ_FUZZ_CLIENT_H

/* A client of a server on a Unix socket in the same process: it sends what it is
 * given and takes the answers apart. */
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "fuzz.h"

#define ANSWERS_MAX ((size_t)4 << 20)
#define PATIENCE_MS 30000 /* a server that stays silent longer hangs */

static char answers[ANSWERS_MAX + 1];
static size_t answers_len;

static int
reach(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	HOLDS(strlen(path) < sizeof a.sun_path);
	memcpy(a.sun_path, path, strlen(path) + 1);
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	HOLDS(fd >= 0);
	HOLDS(connect(fd, (const struct sockaddr *)&a, sizeof a) == 0);
	return fd;
}

/* Takes what has come; false: the server has closed. */
static bool
hear(int fd, int wait_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	HOLDS(poll(&p, 1, wait_ms) > 0 || wait_ms == 0);
	if (p.revents == 0)
		return true;
	ssize_t n = recv(fd, answers + answers_len, ANSWERS_MAX - answers_len, 0);
	HOLDS(answers_len < ANSWERS_MAX);
	if (n <= 0)
		return false;
	answers_len += (size_t)n;
	return true;
}

/* libmicrohttpd sees an end that comes with the last bytes only when its time is
 * up: so the end comes once they were read. */
static void
end_when_read(int fd)
{
	int unread = 1;
	while (ioctl(fd, SIOCOUTQ, &unread) == 0 && unread > 0 && hear(fd, 0))
		(void)sched_yield();
	(void)shutdown(fd, SHUT_WR);
}

/* Reads meanwhile: the server may close at any time. */
static void
say(int fd, const uint8_t *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t sent = send(fd, p + at, n - at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (sent > 0) {
			at += (size_t)sent;
			continue;
		}
		struct pollfd both = {.fd = fd, .events = POLLIN | POLLOUT};
		HOLDS(poll(&both, 1, PATIENCE_MS) > 0);
		if (!hear(fd, 0) || (both.revents & (POLLERR | POLLHUP)) != 0)
			return;
	}
}

/* Says the two parts one after the other, ends, and hears all answers. */
static void
exchange(const char *path, const uint8_t *p, size_t n, size_t first)
{
	int fd = reach(path);
	answers_len = 0;
	say(fd, p, first);
	say(fd, p + first, n - first);
	end_when_read(fd);
	while (hear(fd, PATIENCE_MS))
		;
	close(fd);
	answers[answers_len] = '\0';
}

/* --- taking answers apart -------------------------------------------------- */

typedef struct reply {
	unsigned status;
	const char *body;
	size_t len;
} reply;

/* The next answer at *at, or false where there is no whole one. */
static bool
next_reply(size_t *at, reply *r)
{
	const char *text = answers + *at;
	const char *end = strstr(text, "\r\n\r\n");
	if (end == NULL)
		return false;
	HOLDS(sscanf(text, "HTTP/1.%*1[01] %3u ", &r->status) == 1);
	HOLDS(r->status >= 100 && r->status < 600);
	r->body = end + 4;
	r->len = 0;
	for (const char *line = strstr(text, "\r\n"); line < end; line = strstr(line + 2, "\r\n"))
		if (strncasecmp(line + 2, "Content-Length:", 15) == 0)
			r->len = strtoul(line + 17, NULL, 10);
	if (r->status < 200 || r->status == 204)
		r->len = 0;
	if ((size_t)(answers + answers_len - r->body) < r->len)
		return false;
	*at = (size_t)(r->body - answers) + r->len;
	return true;
}

#endif
