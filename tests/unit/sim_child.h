/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TEST_SIM_CHILD_H
#define QKDGATE_TEST_SIM_CHILD_H

/* Simulators as child processes, and a plain client to ask them. Include after
 * cmocka.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "free_port.h"
#include "qkdgate/clock.h"
#include "qkdgate/etsi004.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

#define MAYBE_UNUSED __attribute__((unused))

/* A sanitizer slows everything down; times allowed grow with it. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SLOW 5
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLOW 5
#endif
#endif
#ifndef SLOW
#define SLOW 1
#endif

#define READY_MS (60000u * SLOW)

typedef struct sim_child {
	pid_t pid;
	int log;
	unsigned port;
} sim_child;

typedef struct sim_pair {
	sim_child end[2];
	unsigned link_port;
	const char *dialect;
	const char *options[2]; /* more of the command line, or NULL */
	const qg_etsi004_profile *profile;
} sim_pair;

/* The simulator lies beside the tests: ../bin/qkdgate-sim. */
static MAYBE_UNUSED void
sim_path(char *path, size_t room)
{
	char self[4096];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
	assert_true(n > 0);
	self[n] = '\0';
	for (int up = 0; up < 2; up++)
		*strrchr(self, '/') = '\0';
	n = snprintf(path, room, "%s/bin/qkdgate-sim", self);
	assert_true(n > 0 && (size_t)n < room);
}

static MAYBE_UNUSED bool
log_has(const sim_child *c, const char *text)
{
	static char buf[1 << 20];
	ssize_t n = pread(c->log, buf, sizeof buf - 1, 0);
	assert_true(n >= 0);
	buf[n] = '\0';
	return strstr(buf, text) != NULL;
}

static MAYBE_UNUSED void
log_print(const sim_child *c)
{
	char buf[8192];
	ssize_t n = pread(c->log, buf, sizeof buf - 1, 0);
	fprintf(stderr, "%.*s\n", n > 0 ? (int)n : 0, buf);
}

static MAYBE_UNUSED void
sim_child_start(sim_pair *p, size_t which)
{
	char path[4200], listen[64], link[64], line[1024];
	char *argv[32];
	size_t n = 0;
	sim_child *c = &p->end[which];
	sim_path(path, sizeof path);
	assert_true(snprintf(listen, sizeof listen, "127.0.0.1:%u", c->port) > 0);
	assert_true(snprintf(link, sizeof link, "127.0.0.1:%u", p->link_port) > 0);
	assert_true(snprintf(line, sizeof line, "sim --listen %s --dialect %s --link-%s %s %s", listen, p->dialect,
			     which == 0 ? "listen" : "connect", link,
			     p->options[which] != NULL ? p->options[which] : "") < (int)sizeof line);
	char *rest = NULL;
	for (char *word = strtok_r(line, " ", &rest); word != NULL && n < 31; word = strtok_r(NULL, " ", &rest))
		argv[n++] = word;
	argv[n] = NULL;
	c->log = memfd_create("log", MFD_CLOEXEC);
	assert_true(c->log >= 0);
	/* Threads write at once, and a memfd does not lock its position. */
	assert_int_equal(fcntl(c->log, F_SETFL, O_APPEND), 0);
	c->pid = fork();
	assert_true(c->pid >= 0);
	if (c->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(c->log, STDERR_FILENO);
		execv(path, argv);
		_exit(127);
	}
	uint64_t end_ms = qg_clock_elapsed_ms() + READY_MS;
	while (!log_has(c, "event=ready")) {
		if (qg_clock_elapsed_ms() >= end_ms || waitpid(c->pid, NULL, WNOHANG) != 0) {
			log_print(c);
			fail_msg("simulator does not start");
		}
		poll(NULL, 0, 5);
	}
}

/* A simulator ends with 0, and not because of a sanitizer's complaint. */
static MAYBE_UNUSED void
sim_child_end(sim_child *c, int sig)
{
	int status = 0;
	if (c->pid <= 0)
		return;
	kill(c->pid, sig);
	assert_int_equal(waitpid(c->pid, &status, 0), c->pid);
	c->pid = 0;
	if (sig != SIGKILL && (!WIFEXITED(status) || WEXITSTATUS(status) != 0)) {
		log_print(c);
		fail_msg("simulator ended with status %d", status);
	}
	close(c->log);
}

static MAYBE_UNUSED void
sim_pair_start(sim_pair *p, const char *dialect, const char *options_a, const char *options_b)
{
	*p = (sim_pair){.dialect = dialect, .options = {options_a, options_b}, .link_port = free_port(),
			.end = {{.port = free_port()}, {.port = free_port()}},
			.profile = dialect[0] == 'a' ? &qg_etsi004_bin_a : &qg_etsi004_bin_b};
	sim_child_start(p, 0);
	sim_child_start(p, 1);
	uint64_t end_ms = qg_clock_elapsed_ms() + READY_MS;
	while (!log_has(&p->end[0], "event=link_up") || !log_has(&p->end[1], "event=link_up")) {
		assert_true(qg_clock_elapsed_ms() < end_ms);
		poll(NULL, 0, 5);
	}
}

static MAYBE_UNUSED void
sim_pair_stop(sim_pair *p)
{
	sim_child_end(&p->end[0], SIGTERM);
	sim_child_end(&p->end[1], SIGTERM);
}

/* Of a case that failed. */
static MAYBE_UNUSED void
sim_pair_kill(sim_pair *p)
{
	sim_child_end(&p->end[0], SIGKILL);
	sim_child_end(&p->end[1], SIGKILL);
}

/* --- a client ------------------------------------------------------------------- */

#define CLIENT_ROOM (1u << 18)

typedef struct client {
	sim_pair *pair;
	size_t which;
	qg_conn *conn;
	uint8_t frame[CLIENT_ROOM]; /* the last answer */
	size_t len, at;
} client;

static MAYBE_UNUSED void
client_open(client *c, sim_pair *p, size_t which)
{
	c->pair = p;
	c->which = which;
	c->conn = NULL;
	c->len = c->at = 0;
	assert_int_equal(qg_conn_open("127.0.0.1", p->end[which].port, NULL, NULL, READY_MS, &c->conn), QG_OK);
}

static MAYBE_UNUSED void
client_send(client *c, const qg_etsi004_request *q, size_t n)
{
	static uint8_t out[8192 * 8];
	const qg_etsi004_profile *p = c->pair->profile;
	qg_writer w = qg_writer_of(out, sizeof out);
	if (c->conn == NULL)
		client_open(c, c->pair, c->which);
	for (size_t i = 0; i < n; i++)
		assert_int_equal(p->put_request(p, &q[i], &w), QG_OK);
	assert_int_equal(qg_conn_send(c->conn, out, w.len, READY_MS), QG_OK);
}

static MAYBE_UNUSED qg_err
client_answer(client *c, qg_etsi004_response *a)
{
	const qg_etsi004_profile *p = c->pair->profile;
	for (;;) {
		size_t total = 0, got = 0;
		if (p->frame(p, c->frame + c->at, c->len - c->at, &total) == QG_OK && total <= c->len - c->at) {
			assert_int_equal(p->get_response(p, &(qg_etsi004_due){.op = QG_ETSI004_GET_KEY}, c->frame + c->at, total, a), QG_OK);
			c->at += total;
			return QG_OK;
		}
		memmove(c->frame, c->frame + c->at, c->len - c->at);
		c->len -= c->at;
		c->at = 0;
		qg_err err = qg_conn_recv_some(c->conn, c->frame + c->len, sizeof c->frame - c->len, READY_MS, &got);
		if (err != QG_OK)
			return err;
		c->len += got;
	}
}

/* One call; dialect A's server closes afterwards. */
static MAYBE_UNUSED qg_etsi004_response
client_call(client *c, const qg_etsi004_request *q)
{
	qg_etsi004_response a = {.status = 0};
	client_send(c, q, 1);
	assert_int_equal(client_answer(c, &a), QG_OK);
	assert_int_equal(a.op, q->op);
	if (!c->pair->profile->persistent) {
		uint8_t byte;
		size_t got = 0;
		assert_int_equal(qg_conn_recv_some(c->conn, &byte, 1, READY_MS, &got), QG_E_CLOSED);
		qg_conn_close(&c->conn);
	}
	return a;
}

static MAYBE_UNUSED qg_etsi004_request
open_request(const qg_uuid *ksid, uint32_t timeout_ms, const char *mimetype)
{
	qg_etsi004_request q = {.op = QG_ETSI004_OPEN_CONNECT, .source = "client://test/1",
				.destination = "server://test",
				.qos = {.chunk_size = 32, .timeout_ms = timeout_ms, .mimetype = mimetype}};
	if (ksid != NULL)
		q.ksid = *ksid;
	return q;
}

static MAYBE_UNUSED qg_etsi004_request
get_request(const qg_uuid *ksid, uint32_t index)
{
	static const uint8_t ask[] = {0, 0x10};
	return (qg_etsi004_request){.op = QG_ETSI004_GET_KEY, .ksid = *ksid, .index = index,
				    .metadata_max = 1024, .metadata = ask, .metadata_len = 2};
}

static MAYBE_UNUSED uint32_t
client_get(client *c, const qg_uuid *ksid, uint32_t index, uint8_t *key)
{
	const qg_etsi004_request q = get_request(ksid, index);
	qg_etsi004_response a = client_call(c, &q);
	if (a.status == 0) {
		assert_int_equal(a.index, index);
		assert_int_equal(a.key_len, 32);
		memcpy(key, a.key, 32);
	}
	return a.status;
}

static MAYBE_UNUSED uint32_t
client_close_stream(client *c, const qg_uuid *ksid)
{
	const qg_etsi004_request q = {.op = QG_ETSI004_CLOSE, .ksid = *ksid};
	return client_call(c, &q).status;
}

/* Opens at both ends: null at one, its KSID at the other. */
static MAYBE_UNUSED qg_uuid
open_both(client *a, client *b, qg_etsi004_request q)
{
	qg_etsi004_response r = client_call(a, &q);
	assert_int_equal(r.status, 0);
	assert_false(qg_uuid_is_null(&r.ksid));
	q.ksid = r.ksid;
	qg_uuid ksid = r.ksid;
	r = client_call(b, &q);
	assert_int_equal(r.status, 0);
	assert_true(qg_uuid_equal(&r.ksid, &ksid));
	return ksid;
}

#endif
