/* SPDX-License-Identifier: Apache-2.0 */
#include "sim_internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

typedef int use_fn(int fd, const struct sockaddr *addr, socklen_t len);

static int
use_listen(int fd, const struct sockaddr *addr, socklen_t len)
{
	int on = 1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	return bind(fd, addr, len) == 0 ? listen(fd, 128) : -1;
}

static int
use_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	int on = 1;
	if (connect(fd, addr, len) != 0)
		return -1;
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	return 0;
}

/* The first address of the host that can be used. */
static int
socket_for(const sim_address *a, int flags, use_fn *use)
{
	char service[16];
	struct addrinfo hints = {.ai_flags = flags | AI_NUMERICSERV, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list = NULL;
	int n = snprintf(service, sizeof service, "%u", a->port);
	if (n < 0 || (size_t)n >= sizeof service || getaddrinfo(a->host, service, &hints, &list) != 0) {
		errno = EADDRNOTAVAIL;
		return -1;
	}
	int fd = -1;
	for (const struct addrinfo *i = list; i != NULL && fd < 0; i = i->ai_next) {
		fd = socket(i->ai_family, i->ai_socktype | SOCK_CLOEXEC, i->ai_protocol);
		if (fd >= 0 && use(fd, i->ai_addr, i->ai_addrlen) != 0) {
			int error = errno;
			close(fd);
			fd = -1;
			errno = error;
		}
	}
	freeaddrinfo(list);
	return fd;
}

int
sim_socket_listen(const sim_address *a)
{
	return socket_for(a, AI_PASSIVE, use_listen);
}

int
sim_socket_connect(const sim_address *a)
{
	return socket_for(a, 0, use_connect);
}
