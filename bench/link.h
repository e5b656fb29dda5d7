/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_BENCH_LINK_H
#define QKDGATE_BENCH_LINK_H

#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One HTTPS connection of the load client: never waits, one request at a time. */

#define LINK_OUT_BYTES ((size_t)16 * 1024)
#define LINK_IN_BYTES ((size_t)64 * 1024)

/* Where a client asks, and as whom. */
typedef struct link_target {
	struct sockaddr_in address;
	char host[64]; /* as it must stand in the server's certificate */
	gnutls_certificate_credentials_t cred;
} link_target;

/* "https://1.2.3.4:port" and PEM files. */
bool link_target_open(link_target *t, const char *url, const char *ca, const char *certificate, const char *key);
void link_target_close(link_target *t);

typedef enum link_step {
	LINK_WAIT,   /* for the socket */
	LINK_READY,  /* the handshake is done and nothing is asked, or an answer is complete */
	LINK_FAILED, /* see why */
} link_step;

typedef struct tls_link {
	enum { LINK_CLOSED, LINK_CONNECTING, LINK_HANDSHAKE, LINK_SENDING, LINK_RECEIVING, LINK_IDLE } phase;
	int fd;
	int epoll_fd;
	bool wants_out; /* what epoll was told */
	gnutls_session_t tls;
	const char *why;
	size_t out_len, out_at, in_len;
	size_t head_len, body_len; /* of the answer, once its head is there */
	int status;
	uint64_t due_ns; /* the request's, for whoever measures */
	uint32_t index;
	char out[LINK_OUT_BYTES];
	char in[LINK_IN_BYTES + 1];
} tls_link;

/* Begins to connect; a ticket resumes an earlier session. The link stands in epoll_fd as data.ptr. */
bool link_open(tls_link *l, const link_target *t, int epoll_fd, const gnutls_datum_t *ticket);

/* Begins to ask what stands in l->out; on a new connection it waits for the handshake. */
void link_ask(tls_link *l, size_t len);

/* Goes on as far as it can. */
link_step link_go(tls_link *l);

static inline const char *
link_body(const tls_link *l)
{
	return l->in + l->head_len;
}

void link_close(tls_link *l);

#endif
