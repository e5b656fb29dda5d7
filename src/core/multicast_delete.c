/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "records_internal.h"
#include "relay_internal.h"

/* delete_keys: the node that brought keys makes them void. What is not known is
 * remembered as void, so that a make_keys_external that comes late finds it so
 * (SOUNDNESS 18). */

#define TRIES 4 /* keys that come to be known meanwhile */

typedef struct delete_in {
	qg_job job; /* first member */
	struct qg_core *core;
	char neighbour[QG_KMS_NAME_MAX + 1];
	qg_peer_answer *answer;
	void *ctx;
	unsigned tries;
	size_t n;
	qg_transfer_revocation *r[QG_KMS_MAKE_MAX];
	qg_kms_delete m;
} delete_in;

static void
finish_status(delete_in *in, int http_status)
{
	in->answer(in->ctx, http_status, NULL, 0);
	free(in);
}

static void
audit(const delete_in *in, const qg_uuid *id, qg_revoked what)
{
	static const char *const why[] = {
		[QG_REVOKED_VOID] = "",
		[QG_REVOKED_DELIVERED] = "not void: a target had it already",
		[QG_REVOKED_PENDING] = "",
		[QG_REVOKED_OFFERED] = "",
		[QG_REVOKED_OTHER] = "not void: another KME brought it",
	};
	qg_audit_event ev = {.act = what == QG_REVOKED_VOID ? QG_AUDIT_VOIDED : QG_AUDIT_REFUSED,
			     .caller = in->neighbour,
			     .peer = in->m.initiator,
			     .reason = why[what],
			     .ids = id,
			     .n_ids = 1};
	qg_audit_write(in->core->part.audit, &ev);
}

static void
drop_all(delete_in *in, qg_err err)
{
	for (size_t i = 0; i < in->n; i++)
		(void)qg_transfer_revoke_end(in->core->transfers, &in->r[i], err);
	in->n = 0;
}

static void
finish(delete_in *in)
{
	qg_kms_delete_answer a = {0};
	char text[256];
	size_t len = 0;
	bool pending = false;
	for (size_t i = 0; i < in->n; i++) {
		const qg_revoked what = qg_transfer_revoke_end(in->core->transfers, &in->r[i], QG_OK);
		a.voided += what == QG_REVOKED_VOID;
		a.delivered += what == QG_REVOKED_DELIVERED;
		pending |= what == QG_REVOKED_PENDING || what == QG_REVOKED_OFFERED;
		if (what == QG_REVOKED_OFFERED)
			qg_mc_end_of(in->core, in->m.initiator, &in->m.id[i], "the node that brought it voids it",
				     NULL);
		if (what != QG_REVOKED_PENDING && what != QG_REVOKED_OFFERED)
			audit(in, &in->m.id[i], what);
	}
	if (pending) { /* another network's answer is awaited: asked again later */
		qg_conductor_kick(in->core);
		finish_status(in, 503);
		return;
	}
	if (qg_kms_delete_answer_encode(&a, text, sizeof text, &len) != QG_OK) {
		finish_status(in, 500);
		return;
	}
	in->answer(in->ctx, 200, text, len);
	free(in);
}

static void begin(delete_in *in);

static qg_err
delete_run(qg_job *job, qg_store *store)
{
	delete_in *in = (delete_in *)job;
	for (size_t i = 0; i < in->n; i++) {
		const qg_err err = qg_transfer_revoke_store(in->r[i], store);
		if (err != QG_OK)
			return err;
	}
	qg_commit_note_change(in->core);
	return QG_OK;
}

static void
delete_done(qg_job *job, qg_err err)
{
	delete_in *in = (delete_in *)job;
	if (err == QG_OK) {
		finish(in);
		return;
	}
	drop_all(in, err);
	if ((err == QG_E_EXISTS || err == QG_E_STATE) && ++in->tries < TRIES)
		begin(in);
	else
		finish_status(in, 503);
}

/* A master of whom nothing is known here, or who lives at the sender: else the
 * sender has no say, unless it brought the key itself. */
static bool
may_plant(const delete_in *in)
{
	const struct qg_core *core = in->core;
	const char *home = qg_directory_home(core->part.directory, in->m.initiator);
	return home == NULL || strcmp(home, in->neighbour) == 0;
}

/* delete_keys costs no node key: what one neighbour plants takes no room from
 * keys, and none from other neighbours. */
static uint64_t
stones_most(const struct qg_core *core)
{
	return QG_KMS_MAKE_MAX + (uint64_t)core->part.cfg->inbound_chunks / 4;
}

static void
begin(delete_in *in)
{
	struct qg_core *core = in->core;
	const uint64_t expiry_ms =
		qg_lifetime_far_ms(&core->life) + (uint64_t)core->part.cfg->fetch_s * 1000;
	const bool plant = may_plant(in);
	qg_err err = qg_transfers_stones(core->transfers, in->neighbour) + in->m.n <= stones_most(core)
			     ? QG_OK
			     : QG_E_FULL;
	for (size_t i = 0; err == QG_OK && i < in->m.n; i++) {
		err = qg_transfer_revoke_new(core->transfers, in->neighbour, in->m.initiator, &in->m.id[i],
					     expiry_ms, plant, &in->r[i]);
		in->n += err == QG_OK;
	}
	if (err != QG_OK) {
		drop_all(in, err);
		finish_status(in, 503);
		return;
	}
	in->job.run = delete_run;
	in->job.done = delete_done;
	qg_committer_submit(core->committer, &in->job);
}

void
qg_delete_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		  qg_peer_answer *answer, void *ctx)
{
	delete_in *in = calloc(1, sizeof *in);
	if (in == NULL) {
		answer(ctx, 503, NULL, 0);
		return;
	}
	in->core = core;
	strncpy(in->neighbour, neighbour, sizeof in->neighbour - 1);
	in->answer = answer;
	in->ctx = ctx;
	if (qg_kms_delete_decode(body, len, &in->m) != QG_OK) {
		qg_relay_refused(core, in->neighbour, "", "a malformed message");
		finish_status(in, 400);
	} else {
		begin(in);
	}
}
