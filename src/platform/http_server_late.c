/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that come later, from any thread: they go to the queue of the request's
 * worker, which takes the whole queue at once. */
#include <errno.h>
#include <microhttpd.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <unistd.h>

#include "http_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/http_server.h"

typedef struct qg_http_worker worker;

void
qg_late_wake(worker *w)
{
	uint64_t one = 1;
	ssize_t n;
	do
		n = write(w->wake_fd, &one, sizeof one);
	while (n < 0 && errno == EINTR);
}

/* The workers that this thread still has to wake, while it gathers answers. */
#define GATHER_MAX 64
static _Thread_local struct {
	bool on;
	size_t n;
	worker *of[GATHER_MAX];
} gathered;

void
qg_http_gather(bool on)
{
	gathered.on = on;
	for (size_t i = 0; i < gathered.n && !on; i++) {
		worker *w = gathered.of[i];
		qg_late_wake(w); /* outside the lock, or it would wake to wait for that */
		pthread_mutex_lock(&w->lock);
		w->owed--;
		pthread_mutex_unlock(&w->lock);
	}
	gathered.n = on ? gathered.n : 0;
}

/* Once it is in the queue the request belongs to the worker. The lock spans
 * the waking: the worker may end as soon as its last answer is there and nobody
 * owes it a wake. */
void
qg_late_answer(qg_http_request *req)
{
	qg_http_late open = QG_HTTP_OPEN;
	if (!atomic_compare_exchange_strong(&req->late, &open, QG_HTTP_ANSWERED)) {
		if (req->response != NULL) /* the server stopped meanwhile */
			MHD_destroy_response(req->response);
		qg_http_request_put(req);
		return;
	}
	worker *w = req->worker;
	pthread_mutex_lock(&w->lock);
	req->late_next = w->late;
	w->late = req;
	if (req->late_next == NULL && gathered.on && gathered.n < GATHER_MAX) {
		gathered.of[gathered.n++] = w;
		w->owed++;
	} else if (req->late_next == NULL) {
		qg_late_wake(w);
	}
	pthread_mutex_unlock(&w->lock);
}

static void
resume(worker *w, qg_http_request *req)
{
	qg_http_request_leave(req, &w->deferred);
	req->back = true;
	if (req->mhd == NULL) {
		if (atomic_load(&req->late) == QG_HTTP_ANSWERED && req->response != NULL)
			MHD_destroy_response(req->response);
		return;
	}
	req->link->waiting = false;
	req->link->since_ms = qg_clock_elapsed_ms();
	if (req->suspended)
		MHD_resume_connection(req->mhd);
	else
		w->asked--;
}

void
qg_late_suspend_slow(worker *w)
{
	for (qg_http_request *req = w->deferred; req != NULL && w->asked > 0; req = req->next) {
		if (req->suspended || req->mhd == NULL)
			continue;
		if (req->slow) {
			MHD_suspend_connection(req->mhd);
			req->suspended = true;
			w->asked--;
		}
		req->slow = true;
	}
}

void
qg_late_take(worker *w)
{
	uint64_t count;
	(void)!read(w->wake_fd, &count, sizeof count);
	pthread_mutex_lock(&w->lock);
	qg_http_request *req = w->late;
	w->late = NULL;
	pthread_mutex_unlock(&w->lock);
	while (req != NULL) {
		qg_http_request *next = req->late_next;
		resume(w, req);
		qg_http_request_put(req); /* the answerer's share */
		req = next;
	}
}

/* Those that win the race against us are in the queue, or will be soon. */
void
qg_late_abandon(worker *w)
{
	for (qg_http_request *req = w->deferred; req != NULL;) {
		qg_http_request *next = req->next;
		qg_http_late open = QG_HTTP_OPEN;
		if (atomic_compare_exchange_strong(&req->late, &open, QG_HTTP_ABANDONED))
			resume(w, req);
		req = next;
	}
}

void
qg_late_wait_owed(worker *w)
{
	struct pollfd p = {.fd = w->wake_fd, .events = POLLIN};
	pthread_mutex_lock(&w->lock);
	while (w->owed > 0) {
		uint64_t count;
		pthread_mutex_unlock(&w->lock);
		(void)poll(&p, 1, 20);
		(void)!read(w->wake_fd, &count, sizeof count);
		pthread_mutex_lock(&w->lock);
	}
	pthread_mutex_unlock(&w->lock);
}
