/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "transfer_internal.h"

/* void towards a peer that was given keys, again and again until it says what
 * became of each. The records are on transfer_void.c's list. */

typedef struct ask {
	struct qg_core *core;
	qg_transfer_void *v;
	const char *home; /* of the directory */
} ask;

void
qg_ix_heard(struct qg_core *core, const char *home, const qg_interop_ack *ack)
{
	const bool late = ack->status == QG_INTEROP_FAILED_TO_VOID;
	size_t told = 0;
	for (size_t i = 0; i < ack->n_ids; i++)
		told += qg_transfer_void_told(core->transfers, home, ack->saes.initiator, &ack->ids[i], late);
	if (!late || told == 0)
		return;
	qg_audit_event ev = {.act = QG_AUDIT_REFUSED,
			     .caller = ack->saes.initiator,
			     .peer = home,
			     .reason = "not void: a target had it already",
			     .ids = ack->ids,
			     .n_ids = ack->n_ids};
	qg_audit_write(core->part.audit, &ev);
	qg_log(QG_LOG_ERROR, "interop", "event=void_failed peer=%s keys=%zu", qg_log_safe(home), told);
}

/* Nothing of it can be delivered any more, and the peer has had all the time
 * that it can take for a late request. */
static bool
is_over(const ask *a)
{
	const uint64_t now_ms = qg_lifetime_owner_ms(&a->core->life);
	return now_ms > QG_TRANSFER_GRACE_MS &&
	       qg_transfer_void_expired(a->v, now_ms - QG_TRANSFER_GRACE_MS);
}

static void
end(ask *a, const char *why)
{
	struct qg_core *core = a->core;
	size_t n;
	(void)qg_transfer_void_ids(a->v, &n);
	if (why != NULL && is_over(a)) {
		qg_log(QG_LOG_WARN, "interop", "event=void_given_up peer=%s keys=%zu reason=\"%s\"",
		       qg_log_safe(a->home), n, why);
		(void)qg_transfer_void_answered(core->transfers, core->committer, &a->v, n, 0);
	} else {
		qg_transfer_void_put_off(core->transfers, &a->v, qg_clock_elapsed_ms());
	}
	free(a);
	qg_conductor_kick(core);
}

static void
told(void *ctx, const qg_interop_sent *sent)
{
	ask *a = ctx;
	for (size_t i = 0; sent->outcome == QG_INTEROP_OUT_ACKS && i < sent->n_acks; i++)
		qg_ix_heard(a->core, a->home, &sent->ack[i]);
	const bool well = sent->outcome == QG_INTEROP_OUT_ACKS || sent->outcome == QG_INTEROP_OUT_ACCEPTED;
	if (!well)
		qg_log(QG_LOG_DEBUG, "interop", "event=void_not_taken peer=%s reason=\"%s\"",
		       qg_log_safe(a->home), sent->why);
	end(a, well ? NULL : sent->why);
}

void
qg_ix_ask(struct qg_core *core, qg_transfer_void **v, uint64_t now_ms)
{
	qg_interop_way *way = core->part.way;
	const qg_config_peer *peer = qg_ix_peer(core, qg_transfer_void_home(*v));
	ask *a = calloc(1, sizeof *a);
	if (a == NULL) {
		qg_transfer_void_put_off(core->transfers, v, now_ms);
		return;
	}
	*a = (ask){.core = core, .v = *v, .home = qg_transfer_void_home(*v)};
	*v = NULL;
	const char *targets[QG_KMS_SAES_MAX];
	qg_interop_void m = {.saes = {.initiator = qg_transfer_void_initiator(a->v), .targets = targets}};
	m.saes.n_targets = qg_transfer_void_targets(a->v, targets, QG_KMS_SAES_MAX);
	m.ids = qg_transfer_void_ids(a->v, &m.n_ids);
	m.wait_ms = peer != NULL ? peer->ack_timeout_ms : 0;
	qg_err err = peer == NULL ? QG_E_NOTFOUND : way == NULL ? QG_E_CLOSED : QG_OK;
	if (err == QG_OK)
		err = way->ops->send_void(way, peer->id, &m, told, a);
	if (err != QG_OK)
		end(a, qg_err_text(err));
}
