/* SPDX-License-Identifier: Apache-2.0 */
#ifndef FREE_PORT_H
#define FREE_PORT_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <sys/socket.h>
#include <unistd.h>

#define FREE_PORT_LOWEST 10000u
#define FREE_PORT_COUNT 10000u

static bool
port_is_free(unsigned port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool is_free = fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
	close(fd);
	return is_free;
}

/* A port of loopback that nothing listens on, below those that the kernel gives to
 * outgoing connections and the end-to-end tests to their gateways; another one each
 * time. Programs that run side by side begin at different ones. */
__attribute__((unused)) static unsigned
free_port(void)
{
	static unsigned tried;
	for (;;) {
		unsigned port = FREE_PORT_LOWEST + ((unsigned)getpid() * 101 + tried++) % FREE_PORT_COUNT;
		if (port_is_free(port))
			return port;
	}
}

#endif
