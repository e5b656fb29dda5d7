/* SPDX-License-Identifier: Apache-2.0 */
#include "link.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- targets --------------------------------------------------------------- */

static bool
parse_url(link_target *t, const char *url)
{
	static const char scheme[] = "https://";
	const char *host = url + sizeof scheme - 1;
	if (strncmp(url, scheme, sizeof scheme - 1) != 0)
		return false;
	const char *colon = strchr(host, ':');
	if (colon == NULL || (size_t)(colon - host) >= sizeof t->host)
		return false;
	char *end = NULL;
	unsigned long port = strtoul(colon + 1, &end, 10);
	memcpy(t->host, host, (size_t)(colon - host));
	t->host[colon - host] = '\0';
	t->address.sin_family = AF_INET;
	t->address.sin_port = htons((uint16_t)port);
	return *end == '\0' && port > 0 && port <= 65535 && inet_pton(AF_INET, t->host, &t->address.sin_addr) == 1;
}

bool
link_target_open(link_target *t, const char *url, const char *ca, const char *certificate, const char *key)
{
	memset(t, 0, sizeof *t);
	return parse_url(t, url) && gnutls_certificate_allocate_credentials(&t->cred) == 0 &&
	       gnutls_certificate_set_x509_trust_file(t->cred, ca, GNUTLS_X509_FMT_PEM) > 0 &&
	       gnutls_certificate_set_x509_key_file(t->cred, certificate, key, GNUTLS_X509_FMT_PEM) >= 0;
}

void
link_target_close(link_target *t)
{
	if (t->cred != NULL)
		gnutls_certificate_free_credentials(t->cred);
	t->cred = NULL;
}

/* --- opening and closing ---------------------------------------------------- */

static link_step
fail(tls_link *l, const char *why)
{
	l->why = why;
	return LINK_FAILED;
}

static void
watch(tls_link *l, bool out)
{
	struct epoll_event e = {.events = EPOLLIN | (out ? (uint32_t)EPOLLOUT : 0), .data.ptr = l};
	if (out != l->wants_out && epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, l->fd, &e) == 0)
		l->wants_out = out;
}

static bool
secure(tls_link *l, const link_target *t, const gnutls_datum_t *ticket)
{
	if (gnutls_init(&l->tls, GNUTLS_CLIENT | GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL) != 0)
		return false;
	gnutls_transport_set_int(l->tls, l->fd);
	gnutls_handshake_set_timeout(l->tls, GNUTLS_INDEFINITE_TIMEOUT);
	gnutls_session_set_verify_cert(l->tls, t->host, 0);
	return gnutls_priority_set_direct(l->tls, "NORMAL:-VERS-ALL:+VERS-TLS1.3", NULL) == 0 &&
	       gnutls_credentials_set(l->tls, GNUTLS_CRD_CERTIFICATE, t->cred) == 0 &&
	       (ticket == NULL || gnutls_session_set_data(l->tls, ticket->data, ticket->size) == 0);
}

bool
link_open(tls_link *l, const link_target *t, int epoll_fd, const gnutls_datum_t *ticket)
{
	int on = 1;
	l->out_len = l->out_at = l->in_len = 0;
	l->epoll_fd = epoll_fd;
	l->wants_out = true;
	l->why = NULL;
	l->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (l->fd < 0)
		return false;
	l->phase = LINK_CONNECTING;
	struct epoll_event e = {.events = EPOLLIN | EPOLLOUT, .data.ptr = l};
	if (setsockopt(l->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) != 0 ||
	    (connect(l->fd, (const struct sockaddr *)&t->address, sizeof t->address) != 0 && errno != EINPROGRESS) ||
	    epoll_ctl(epoll_fd, EPOLL_CTL_ADD, l->fd, &e) != 0 || !secure(l, t, ticket)) {
		link_close(l);
		return false;
	}
	return true;
}

void
link_close(tls_link *l)
{
	if (l->tls != NULL) {
		if (l->phase == LINK_IDLE)
			(void)gnutls_bye(l->tls, GNUTLS_SHUT_WR);
		gnutls_deinit(l->tls);
	}
	if (l->phase != LINK_CLOSED)
		close(l->fd);
	l->tls = NULL;
	l->phase = LINK_CLOSED;
}

/* --- asking ------------------------------------------------------------------ */

void
link_ask(tls_link *l, size_t len)
{
	l->out_len = len;
	l->out_at = 0;
	l->in_len = l->head_len = l->body_len = 0;
	if (l->phase == LINK_IDLE)
		l->phase = LINK_SENDING;
}

static link_step
go_connect(tls_link *l)
{
	int error = 0;
	socklen_t len = sizeof error;
	struct sockaddr_in peer;
	socklen_t peer_len = sizeof peer;
	if (getsockopt(l->fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0 || error != 0)
		return fail(l, "cannot connect");
	if (getpeername(l->fd, (struct sockaddr *)&peer, &peer_len) != 0)
		return LINK_WAIT;
	l->phase = LINK_HANDSHAKE;
	return LINK_READY;
}

static link_step
go_handshake(tls_link *l)
{
	int rc = gnutls_handshake(l->tls);
	if (rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED) {
		watch(l, gnutls_record_get_direction(l->tls) == 1);
		return LINK_WAIT;
	}
	if (rc != 0)
		return fail(l, gnutls_strerror(rc));
	watch(l, false);
	l->phase = l->out_len > 0 ? LINK_SENDING : LINK_IDLE;
	return LINK_READY;
}

static link_step
go_send(tls_link *l)
{
	while (l->out_at < l->out_len) {
		ssize_t n = gnutls_record_send(l->tls, l->out + l->out_at, l->out_len - l->out_at);
		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED) {
			watch(l, true);
			return LINK_WAIT;
		}
		if (n < 0)
			return fail(l, gnutls_strerror((int)n));
		l->out_at += (size_t)n;
	}
	watch(l, false);
	l->out_len = 0;
	l->phase = LINK_RECEIVING;
	return LINK_READY;
}

/* Finds the end of the head and in it status and length; false: not there yet, or nonsense (why). */
static bool
read_head(tls_link *l)
{
	static const char length[] = "\r\nContent-Length:";
	l->in[l->in_len] = '\0';
	const char *end = strstr(l->in, "\r\n\r\n");
	if (end == NULL)
		return false;
	const char *at = strcasestr(l->in, length);
	if (strncmp(l->in, "HTTP/1.1 ", 9) != 0 || at == NULL || at > end) {
		l->why = "an answer without status or length";
		return false;
	}
	l->head_len = (size_t)(end - l->in) + 4;
	l->status = (int)strtol(l->in + 9, NULL, 10);
	l->body_len = strtoul(at + sizeof length - 1, NULL, 10);
	if (l->body_len > LINK_IN_BYTES - l->head_len)
		l->why = "an answer that is too long";
	return l->why == NULL;
}

static link_step
go_receive(tls_link *l)
{
	for (;;) {
		ssize_t n = gnutls_record_recv(l->tls, l->in + l->in_len, LINK_IN_BYTES - l->in_len);
		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			return LINK_WAIT;
		if (n <= 0)
			return fail(l, n == 0 ? "closed by the server" : gnutls_strerror((int)n));
		if (l->phase == LINK_IDLE)
			return fail(l, "an answer to nothing");
		l->in_len += (size_t)n;
		if (l->head_len == 0 && !read_head(l)) {
			if (l->why != NULL)
				return LINK_FAILED;
			continue;
		}
		if (l->in_len > l->head_len + l->body_len)
			return fail(l, "more than one answer");
		if (l->in_len == l->head_len + l->body_len) {
			l->phase = LINK_IDLE;
			return LINK_READY;
		}
	}
}

link_step
link_go(tls_link *l)
{
	link_step step = LINK_READY;
	if (l->phase == LINK_CONNECTING)
		step = go_connect(l);
	if (step == LINK_READY && l->phase == LINK_HANDSHAKE) {
		step = go_handshake(l);
		if (step == LINK_READY && l->phase == LINK_IDLE)
			return LINK_READY;
	}
	if (step == LINK_READY && l->phase == LINK_SENDING)
		step = go_send(l);
	/* An idle one hears tickets only. */
	if (step == LINK_READY && (l->phase == LINK_RECEIVING || l->phase == LINK_IDLE))
		step = go_receive(l);
	return step;
}
