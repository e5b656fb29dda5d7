/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "records_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* delete_keys towards every home that may hold what became void here, again and
 * again until it answered, over restarts too. */

#define BATCHES 16 /* messages in one pass */

typedef struct void_op {
	struct qg_core *core;
	qg_transfer_void *v;
} void_op;

static void
audit_late(struct qg_core *core, const qg_transfer_void *v, const char *why)
{
	size_t n;
	const qg_uuid *ids = qg_transfer_void_ids(v, &n);
	qg_audit_event ev = {.act = QG_AUDIT_REFUSED,
			     .caller = qg_transfer_void_initiator(v),
			     .peer = qg_transfer_void_home(v),
			     .reason = why,
			     .ids = ids,
			     .n_ids = n};
	qg_audit_write(core->part.audit, &ev);
	qg_log(QG_LOG_ERROR, "transfer", "event=void_failed kme=%s keys=%zu reason=\"%s\"",
	       qg_transfer_void_home(v), n, why);
}

static void
answered(void_op *op, const qg_kms_delete_answer *a)
{
	struct qg_core *core = op->core;
	size_t n;
	(void)qg_transfer_void_ids(op->v, &n);
	if (n == 1 && a->voided != 1)
		audit_late(core, op->v, a->delivered == 1 ? "not void: a target had it already"
							  : "not void: the KME does not say so");
	(void)qg_transfer_void_answered(core->transfers, core->committer, &op->v, a->voided, a->delivered);
}

static void
delete_told(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	void_op *op = ctx;
	struct qg_core *core = op->core;
	qg_kms_delete_answer a;
	if (err == QG_OK && http_status == 200 && qg_kms_delete_answer_decode(body, len, &a) == QG_OK)
		answered(op, &a);
	else
		qg_transfer_void_put_off(core->transfers, &op->v, qg_clock_elapsed_ms());
	free(op);
	qg_conductor_kick(core);
}

static qg_err
ask(void_op *op)
{
	qg_channel *ch = op->core->part.channel;
	qg_kms_delete *m = calloc(1, sizeof *m);
	char *text = malloc(QG_KMS_MSG_MAX);
	size_t len = 0;
	qg_err err = m == NULL || text == NULL ? QG_E_NOMEM : QG_OK;
	if (err == QG_OK) {
		const qg_uuid *ids = qg_transfer_void_ids(op->v, &m->n);
		strncpy(m->initiator, qg_transfer_void_initiator(op->v), sizeof m->initiator - 1);
		memcpy(m->id, ids, m->n * sizeof *ids);
		err = qg_kms_delete_encode(m, text, QG_KMS_MSG_MAX, &len);
	}
	if (err == QG_OK)
		err = ch->ops->send(ch, qg_transfer_void_home(op->v), QG_KMS_DELETE_KEYS, text, len, 0,
				    delete_told, op);
	free(text);
	free(m);
	return err;
}

/* A KME that the configuration has no longer cannot be told: what it holds has
 * expired by itself when the keys have. */
static void
not_asked(void_op *op, qg_err err)
{
	struct qg_core *core = op->core;
	size_t n;
	(void)qg_transfer_void_ids(op->v, &n);
	if (err == QG_E_NOTFOUND && qg_transfer_void_expired(op->v, qg_lifetime_owner_ms(&core->life))) {
		qg_log(QG_LOG_WARN, "transfer", "event=void_given_up kme=%s keys=%zu",
		       qg_transfer_void_home(op->v), n);
		(void)qg_transfer_void_answered(core->transfers, core->committer, &op->v, n, 0);
	} else {
		qg_transfer_void_put_off(core->transfers, &op->v, qg_clock_elapsed_ms());
	}
	free(op);
}

uint64_t
qg_multicast_tell_voids(struct qg_core *core, uint64_t now_ms)
{
	uint64_t next_ms = UINT64_MAX;
	for (int i = 0; i < BATCHES; i++) {
		qg_transfer_void *v = qg_transfer_void_next(core->transfers, core->committer, now_ms,
							    QG_KMS_MAKE_MAX, &next_ms);
		if (v == NULL)
			return next_ms;
		if (qg_transfer_is_peer(qg_transfer_void_home(v))) {
			qg_ix_ask(core, &v, now_ms);
			continue;
		}
		void_op *op = calloc(1, sizeof *op);
		if (op == NULL) {
			qg_transfer_void_put_off(core->transfers, &v, now_ms);
			return next_ms;
		}
		*op = (void_op){.core = core, .v = v};
		const qg_err err = ask(op);
		if (err != QG_OK)
			not_asked(op, err);
	}
	return now_ms + 1;
}
