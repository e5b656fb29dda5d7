/* SPDX-License-Identifier: Apache-2.0 */
/* What a TLS session sends: see tls_internal.h. Only records pass here, so what is
 * held back is ciphertext. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "tls_internal.h"

#define PIECES_MAX 40 /* GnuTLS gives at most 32 */

void
qg_tls_out_init(qg_tls_out *o, int fd)
{
	o->fd = fd;
	o->hold = false;
	o->len = 0;
}

void
qg_tls_out_hold(qg_tls_out *o)
{
	o->hold = true;
}

static bool
take_in(qg_tls_out *o, const struct iovec *piece, size_t n, size_t total)
{
	if (!o->hold || total > sizeof o->held - o->len)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (piece[i].iov_len > 0)
			memcpy(o->held + o->len, piece[i].iov_base, piece[i].iov_len);
		o->len += piece[i].iov_len;
	}
	return true;
}

/* Takes what went out off the held; how much of it was none of these. */
static size_t
drop_held(qg_tls_out *o, size_t sent)
{
	const size_t gone = sent < o->len ? sent : o->len;
	memmove(o->held, o->held + gone, o->len - gone);
	o->len -= gone;
	return sent - gone;
}

ssize_t
qg_tls_out_push(qg_tls_out *o, const struct iovec *piece, size_t n)
{
	struct iovec all[PIECES_MAX + 1] = {{.iov_base = o->held, .iov_len = o->len}};
	size_t total = 0;
	n = n < PIECES_MAX ? n : PIECES_MAX;
	for (size_t i = 0; i < n; i++)
		total += piece[i].iov_len;
	const bool held = take_in(o, piece, n, total);
	o->hold = false;
	if (held)
		return (ssize_t)total;
	memcpy(all + 1, piece, n * sizeof *piece);
	const struct msghdr m = {.msg_iov = all, .msg_iovlen = n + 1};
	const ssize_t rc = sendmsg(o->fd, &m, MSG_NOSIGNAL);
	if (rc < 0)
		return -1;
	const size_t sent = drop_held(o, (size_t)rc);
	if (sent > 0 || total == 0)
		return (ssize_t)sent;
	errno = EAGAIN; /* the socket took of the held alone */
	return -1;
}

bool
qg_tls_out_flush(qg_tls_out *o)
{
	o->hold = false;
	if (o->len == 0)
		return true;
	const ssize_t rc = send(o->fd, o->held, o->len, MSG_NOSIGNAL);
	if (rc > 0)
		(void)drop_held(o, (size_t)rc);
	return o->len == 0;
}
