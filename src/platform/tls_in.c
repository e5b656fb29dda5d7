/* SPDX-License-Identifier: Apache-2.0 */
/* What a TLS session receives: see tls_internal.h. Only records pass here, so what
 * is read ahead is ciphertext. */
#include <string.h>
#include <sys/socket.h>

#include "tls_internal.h"

void
qg_tls_in_init(qg_tls_in *in, int fd)
{
	in->fd = fd;
	in->at = in->len = 0;
}

ssize_t
qg_tls_in_pull(qg_tls_in *in, void *p, size_t n)
{
	if (in->at == in->len) {
		if (n >= sizeof in->ahead)
			return recv(in->fd, p, n, 0);
		const ssize_t rc = recv(in->fd, in->ahead, sizeof in->ahead, 0);
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
