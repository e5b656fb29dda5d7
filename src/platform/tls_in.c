/* SPDX-License-Identifier: Apache-2.0 */
/* What a TLS session receives: see tls_internal.h. Only records pass here, so what
 * is read ahead is ciphertext. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "tls_internal.h"

void
qg_tls_in_init(qg_tls_in *in, int fd, qg_tls_out *out)
{
	in->fd = fd;
	in->out = out;
	in->at = in->len = 0;
}

/* A peer that says nothing may wait for what is held. */
static ssize_t
receive(const qg_tls_in *in, void *p, size_t n)
{
	const ssize_t rc = recv(in->fd, p, n, 0);
	if (rc < 0 && in->out != NULL && in->out->len > 0) {
		const int why = errno;
		(void)qg_tls_out_flush(in->out);
		errno = why;
	}
	return rc;
}

ssize_t
qg_tls_in_pull(qg_tls_in *in, void *p, size_t n)
{
	if (in->at == in->len) {
		if (n >= sizeof in->ahead)
			return receive(in, p, n);
		const ssize_t rc = receive(in, in->ahead, sizeof in->ahead);
		if (rc <= 0)
			return rc;
		in->at = 0;
		in->len = (size_t)rc;
	}
	const size_t left = in->len - in->at;
	n = n < left ? n : left;
	memcpy(p, in->ahead + in->at, n);
	in->at += n;
	return (ssize_t)n;
}
