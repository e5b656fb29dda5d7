/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>

#include "admin_internal.h"

#define STUCK_MS 30000 /* the conductor comes round every 200 ms */

static void QG_PRINTF(2, 3)
say(qg_admin_health *h, const char *fmt, ...)
{
	if (h->n == QG_ADMIN_REASONS_MAX)
		return;
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(h->reason[h->n], sizeof h->reason[0], fmt, ap) >= 0)
		h->n++;
	va_end(ap);
}

static void
look_at_parts(qg_admin *a, qg_admin_health *h)
{
	qg_core_figures f;
	qg_core_view_figures(a->p.core, &f);
	h->alive = f.beat_ms < STUCK_MS;
	if (!h->alive)
		say(h, "the conductor has not come round for %llu s", (unsigned long long)f.beat_ms / 1000);
	if (!f.audit_works)
		say(h, "the audit log cannot be written");
	if (!f.commits.works)
		say(h, "the database cannot be written");
	if (!f.anchor_works)
		say(h, "the anchor cannot be written");
	if (a->p.ops->draining(a->p.ctx))
		say(h, "the gateway is being taken out of service");
	h->ready = h->n == 0;
}

/* Ready to deliver is who has key for somebody. */
static void
look_at_streams(qg_admin *a, qg_admin_health *h)
{
	size_t n_ours = 0, n_stocked = 0;
	for (size_t i = 0; i < qg_core_view_streams(a->p.core); i++) {
		qg_stream_view v;
		qg_core_view_stream(a->p.core, i, &v);
		const bool ours = v.cfg->direction != QG_DIRECTION_INBOUND;
		n_ours += ours;
		n_stocked += ours && v.ready_chunks > 0;
		if (ours && v.ready_chunks == 0)
			say(h, "stream %s has no key ready", v.cfg->name);
	}
	if (n_ours > 0 && n_stocked == 0)
		h->ready = false;
}

void
qg_admin_look(qg_admin *a, qg_admin_health *out)
{
	*out = (qg_admin_health){0};
	look_at_parts(a, out);
	look_at_streams(a, out);
}

static void
answer(qg_http_request *http, const char *member, bool good, const qg_admin_health *h)
{
	json_t *reasons = json_array();
	for (size_t i = 0; i < h->n; i++)
		(void)json_array_append_new(reasons, json_string(h->reason[i]));
	qg_admin_answer(http, good ? 200 : 503, json_pack("{s:b,s:o}", member, good, "reasons", reasons));
}

void
qg_admin_on_healthz(qg_http_request *http, void *admin)
{
	qg_admin_health h = {0};
	look_at_parts(admin, &h);
	answer(http, "alive", h.alive, &h);
}

void
qg_admin_on_readyz(qg_http_request *http, void *admin)
{
	qg_admin_health h;
	qg_admin_look(admin, &h);
	answer(http, "ready", h.ready, &h);
}
