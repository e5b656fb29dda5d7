/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "http_internal.h"

#define ENDED_MS 1000 /* for libmicrohttpd to see it itself */

void
qg_link_leave(qg_http_link *l)
{
	if (l->list == NULL)
		return;
	if (l->prev != NULL)
		l->prev->next = l->next;
	else
		*l->list = l->next;
	if (l->next != NULL)
		l->next->prev = l->prev;
	l->prev = l->next = NULL;
	l->list = NULL;
}

void
qg_link_join(qg_http_link *l, qg_http_link **list)
{
	qg_link_leave(l);
	l->next = *list;
	if (l->next != NULL)
		l->next->prev = l;
	*list = l;
	l->list = list;
}

void
qg_link_free(qg_http_link *l)
{
	qg_link_leave(l);
	free(l->target);
	free(l);
}

void
qg_link_keep_target(qg_http_link *l, const char *target)
{
	size_t len = strlen(target) + 1;
	if (len > l->target_room) {
		free(l->target);
		l->target = malloc(len);
		l->target_room = l->target != NULL ? len : 0;
	}
	if (l->target != NULL)
		memcpy(l->target, target, len);
}

void
qg_links_cut(const qg_http_link *list, uint64_t now_ms, uint64_t most_ms)
{
	for (const qg_http_link *l = list; l != NULL; l = l->next)
		if (!l->waiting && now_ms - l->since_ms > most_ms)
			(void)shutdown(l->fd, SHUT_RDWR);
}

void
qg_links_cut_behind(const qg_http_link *list, size_t keep)
{
	for (const qg_http_link *l = list; l != NULL; l = l->next)
		if (keep > 0)
			keep--;
		else
			(void)shutdown(l->fd, SHUT_RDWR);
}

void
qg_links_cut_oldest(const qg_http_link *list)
{
	const qg_http_link *oldest = NULL;
	for (const qg_http_link *l = list; l != NULL; l = l->next)
		if (!l->waiting && !l->answering && (oldest == NULL || l->since_ms < oldest->since_ms))
			oldest = l;
	if (oldest != NULL)
		(void)shutdown(oldest->fd, SHUT_RDWR);
}

void
qg_links_cut_ended(const qg_http_link *list, uint64_t now_ms)
{
	for (const qg_http_link *l = list; l != NULL; l = l->next) {
		int unread = 0;
		if (l->ended_ms == 0 || now_ms - l->ended_ms < ENDED_MS || l->answering)
			continue;
		if (ioctl(l->fd, FIONREAD, &unread) == 0 && unread == 0)
			(void)shutdown(l->fd, SHUT_RDWR);
	}
}

static bool
watch(qg_http_link *l, int epoll_fd, uint32_t events)
{
	struct epoll_event e = {.events = events | EPOLLRDHUP | EPOLLONESHOT, .data.ptr = l};
	bool ok = epoll_ctl(epoll_fd, l->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, l->fd, &e) == 0;
	l->watched = l->watched || ok;
	return ok;
}

bool
qg_link_watch(qg_http_link *l, int epoll_fd)
{
	return watch(l, epoll_fd, EPOLLIN);
}

void
qg_links_watch_end(qg_http_link *list, int epoll_fd)
{
	for (qg_http_link *l = list; l != NULL; l = l->next) {
		if (l->ends)
			continue;
		(void)watch(l, epoll_fd, 0);
		l->ends = true;
	}
}

qg_http_link *
qg_link_next(int epoll_fd)
{
	struct epoll_event e;
	int n;
	do
		n = epoll_wait(epoll_fd, &e, 1, 0);
	while (n < 0 && errno == EINTR);
	return n == 1 ? e.data.ptr : NULL;
}
