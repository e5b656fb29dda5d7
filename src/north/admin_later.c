/* SPDX-License-Identifier: Apache-2.0 */
/* Answers that take long, each in a thread of its own, so that nobody else waits. */
#include <signal.h>
#include <stdlib.h>

#include "admin_internal.h"
#include "qkdgate/request_id.h"

#define LATER_MAX 4u /* at a time */

typedef struct later {
	qg_admin *a;
	qg_http_request *http;
	void (*work)(qg_admin *a, qg_http_request *http, void *arg);
	void *arg;
	qg_request_id id;
} later;

static void *
later_main(void *arg)
{
	later *l = arg;
	qg_admin *a = l->a;
	(void)qg_request_id_enter(&l->id);
	l->work(a, l->http, l->arg);
	(void)qg_request_id_enter(NULL);
	free(l);
	atomic_fetch_sub(&a->trying, 1);
	return NULL;
}

/* Signals are for the main thread. */
static bool
start(later *l)
{
	pthread_t thread;
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	const bool ok = pthread_create(&thread, NULL, later_main, l) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ok)
		pthread_detach(thread);
	return ok;
}

void
qg_admin_later(qg_admin *a, qg_http_request *http, void (*work)(qg_admin *a, qg_http_request *http, void *arg),
	       void *arg)
{
	later *l = malloc(sizeof *l);
	if (l == NULL || atomic_fetch_add(&a->trying, 1) >= LATER_MAX) {
		if (l != NULL)
			atomic_fetch_sub(&a->trying, 1);
		free(l);
		free(arg);
		qg_admin_answer_error(http, QG_E_AGAIN, "too many requests of this kind at a time; try again");
		return;
	}
	*l = (later){.a = a, .http = http, .work = work, .arg = arg, .id = qg_request_id_now()};
	qg_http_defer(http);
	if (start(l))
		return;
	free(l);
	free(arg);
	atomic_fetch_sub(&a->trying, 1);
	qg_admin_answer_error(http, QG_E_NOMEM, "out of memory");
}
