/* SPDX-License-Identifier: Apache-2.0 */
/* The link socket: one thread connects (or accepts) and reads, one produces
 * and writes. */
#include "sim_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define BUFFER ((size_t)256 << 10)
#define BUSY_MS 3  /* while key is made */
#define IDLE_MS 20 /* how late the other end learns what was read */

struct timespec
sim_until(uint64_t elapsed_ms)
{
	/* The project's clock runs on in suspend, that of the condition variables
	 * does not: what counts is the time that is left. */
	struct timespec t;
	uint64_t now = qg_clock_elapsed_ms();
	uint64_t ms = elapsed_ms > now ? elapsed_ms - now : 0;
	clock_gettime(CLOCK_MONOTONIC, &t);
	t.tv_sec += (time_t)(ms / 1000);
	t.tv_nsec += (long)(ms % 1000) * 1000000;
	if (t.tv_nsec >= 1000000000) {
		t.tv_sec++;
		t.tv_nsec -= 1000000000;
	}
	return t;
}

static bool
send_all(int fd, const uint8_t *p, size_t n)
{
	while (n > 0) {
		ssize_t rc = send(fd, p, n, MSG_NOSIGNAL);
		if (rc < 0 && errno != EINTR)
			return false;
		if (rc > 0) {
			p += rc;
			n -= (size_t)rc;
		}
	}
	return true;
}

/* --- writing --------------------------------------------------------------------- */

/* One turn with the lock held: makes key, collects what there is to say, says
 * it without the lock. Returns how long to wait before the next turn. */
static unsigned
turn(sim *s, qg_secret *buffer)
{
	uint64_t now_ms = qg_clock_elapsed_ms();
	bool busy = sim_produce(s, now_ms);
	for (sim_stream *st = s->streams; st != NULL; st = st->later)
		sim_stream_trim(st, now_ms);
	if (s->link_fd < 0)
		return IDLE_MS;
	qg_writer w = qg_writer_of(buffer->data, buffer->room);
	sim_messages_put(s, &w);
	if (w.len == 0)
		return busy ? BUSY_MS : IDLE_MS;
	int fd = s->link_fd;
	s->link_writing = true;
	pthread_mutex_unlock(&s->lock);
	if (!send_all(fd, buffer->data, w.len))
		shutdown(fd, SHUT_RDWR); /* the reader ends and connects again */
	qg_wipe(buffer->data, w.len);
	pthread_mutex_lock(&s->lock);
	s->link_writing = false;
	pthread_cond_broadcast(&s->changed);
	if (w.room - w.len < BUFFER / 2 || (busy && s->opt.rate_bps == 0))
		return 0; /* there is more */
	return busy ? BUSY_MS : IDLE_MS;
}

void *
sim_writer_main(void *sim_)
{
	sim *s = sim_;
	qg_secret *buffer = NULL;
	if (qg_secret_new(BUFFER, &buffer) != QG_OK)
		return NULL;
	pthread_mutex_lock(&s->lock);
	while (!s->stopping) {
		unsigned wait_ms = turn(s, buffer);
		if (wait_ms == 0 || s->stopping)
			continue;
		const struct timespec until = sim_until(qg_clock_elapsed_ms() + wait_ms);
		pthread_cond_timedwait(&s->work, &s->lock, &until);
	}
	pthread_mutex_unlock(&s->lock);
	qg_secret_free(&buffer);
	return NULL;
}

/* --- reading --------------------------------------------------------------------- */

static qg_err
take_messages(sim *s, qg_secret *b)
{
	size_t at = 0, n;
	while ((n = sim_message_length(b->data + at, b->len - at)) > 0 && n <= b->len - at) {
		qg_err err = sim_message_take(s, b->data + at, n);
		if (err != QG_OK)
			return err;
		at += n;
	}
	if (n > SIM_MESSAGE_MAX)
		return QG_E_PROTO;
	memmove(b->data, b->data + at, b->len - at);
	qg_wipe(b->data + b->len - at, at);
	b->len -= at;
	return QG_OK;
}

static void
read_link(sim *s, int fd, qg_secret *b)
{
	b->len = 0;
	for (;;) {
		ssize_t rc = recv(fd, b->data + b->len, b->room - b->len, 0);
		if (rc < 0 && errno == EINTR)
			continue;
		if (rc <= 0)
			return;
		b->len += (size_t)rc;
		if (take_messages(s, b) != QG_OK) {
			qg_log(QG_LOG_ERROR, "sim", "event=link_malformed");
			return;
		}
	}
}

/* The first thing said; a stranger on the port is turned away by it. */
static bool
greet(int fd)
{
	uint8_t own[SIM_HELLO_SIZE], theirs[SIM_HELLO_SIZE];
	const struct timeval patience = {.tv_sec = 3}, forever = {.tv_sec = 0};
	qg_writer w = qg_writer_of(own, sizeof own);
	sim_messages_put_hello(&w);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	bool fine = send_all(fd, own, w.len) &&
		    recv(fd, theirs, sizeof theirs, MSG_WAITALL) == (ssize_t)sizeof theirs &&
		    memcmp(own, theirs, sizeof own) == 0;
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &forever, sizeof forever);
	return fine;
}

/* From a new connection to its end. */
static void
use_link(sim *s, int fd, qg_secret *b)
{
	if (!greet(fd))
		return;
	pthread_mutex_lock(&s->lock);
	sim_messages_restart(s);
	s->link_fd = s->stopping ? -1 : fd;
	bool go = !s->stopping;
	pthread_cond_signal(&s->work);
	pthread_mutex_unlock(&s->lock);
	if (!go)
		return;
	qg_log(QG_LOG_INFO, "sim", "event=link_up");
	read_link(s, fd, b);
	qg_log(QG_LOG_INFO, "sim", "event=link_down");
	shutdown(fd, SHUT_RDWR);
	pthread_mutex_lock(&s->lock);
	s->link_fd = -1;
	s->linked = false;
	while (s->link_writing)
		pthread_cond_wait(&s->changed, &s->lock);
	pthread_mutex_unlock(&s->lock);
}

static bool
stopping(sim *s)
{
	pthread_mutex_lock(&s->lock);
	bool is = s->stopping;
	pthread_mutex_unlock(&s->lock);
	return is;
}

/* Waits at most a little; -1 when there is no connection yet. */
static int
next_connection(sim *s, int listener)
{
	struct pollfd p = {.fd = listener, .events = POLLIN};
	if (listener < 0) {
		int fd = sim_socket_connect(&s->opt.link);
		if (fd < 0)
			poll(NULL, 0, 100);
		return fd;
	}
	return poll(&p, 1, 200) > 0 ? accept4(listener, NULL, NULL, SOCK_CLOEXEC) : -1;
}

void *
sim_link_main(void *sim_)
{
	sim *s = sim_;
	qg_secret *buffer = NULL;
	int listener = -1;
	if (qg_secret_new(BUFFER, &buffer) != QG_OK)
		return NULL;
	while (s->opt.link_listens && !stopping(s) && (listener = sim_socket_listen(&s->opt.link)) < 0) {
		qg_log(QG_LOG_ERROR, "sim", "event=link_listen error=\"%s\"", strerror(errno));
		poll(NULL, 0, 1000);
	}
	while (!stopping(s)) {
		int fd = next_connection(s, listener);
		if (fd < 0)
			continue;
		use_link(s, fd, buffer);
		close(fd);
	}
	if (listener >= 0)
		close(listener);
	qg_secret_free(&buffer);
	return NULL;
}

void
sim_link_cut(sim *s)
{
	pthread_mutex_lock(&s->lock);
	if (s->link_fd >= 0)
		shutdown(s->link_fd, SHUT_RDWR);
	pthread_mutex_unlock(&s->lock);
}
