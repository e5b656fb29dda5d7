/* SPDX-License-Identifier: Apache-2.0 */
/* The keystore may be done before its call returns (then the handler answers,
 * which costs no suspension), or later on another thread (then that answers).
 * Whichever of done and the handler's end comes second, answers. */
#include <stdlib.h>

#include "etsi014_internal.h"

enum { RUNNING, WAITING, DONE };

void
qg_014_late_init(qg_014_late *late, const qg_014_call *call)
{
	late->s = call->s;
	late->sae = call->sae;
	late->http = call->http;
	late->outcome = (qg_014_outcome){.method = call->method};
	atomic_init(&late->phase, RUNNING);
	atomic_fetch_add(&late->s->pending, 1);
}

static void
finish(qg_014_late *late)
{
	qg_etsi014 *s = late->s;
	qg_014_answer(late->http, &late->outcome);
	if (late->fini != NULL)
		late->fini(late);
	free(late);
	atomic_fetch_sub(&s->pending, 1); /* the server may be gone right after it */
}

void
qg_014_late_done(qg_014_late *late)
{
	if (atomic_exchange(&late->phase, DONE) == WAITING)
		finish(late);
}

void
qg_014_late_wait(qg_014_late *late)
{
	if (atomic_load(&late->phase) == RUNNING) {
		qg_http_defer(late->http);
		int running = RUNNING;
		if (atomic_compare_exchange_strong(&late->phase, &running, WAITING))
			return;
	}
	finish(late);
}
