/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "multicast_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/policy.h"

/* make_keys_external of the master's node: keys with IDs of their own for SAEs
 * here. What it says is judged by this node's own directory and policy, stored
 * durably, and answered then; the same message again, under other node key, is
 * answered the same and changes nothing (SOUNDNESS 14, 18). */

#define OPEN_TRIES 4 /* node segments being opened */
#define TAKE_TRIES 4 /* the same IDs in two messages at once */

typedef struct make_in {
	qg_waiter waiter; /* first member */
	qg_job job;
	struct qg_core *core;
	char neighbour[QG_KMS_NAME_MAX + 1];
	qg_peer_answer *answer;
	void *ctx;
	unsigned opens, takes;
	qg_ix_waiter end; /* of the request that brings them on */
	bool abroad;      /* a target is of another network */
	qg_mc *op;        /* of those that are new and go there */
	qg_secret *keys; /* the answer's key, then the pad, then in its place the values */
	qg_transfer_to to[QG_KMS_SAES_MAX];
	size_t n_x;      /* keys that are new here */
	qg_transfer *x[QG_KMS_MAKE_MAX];
	qg_uuid ids[QG_KMS_MAKE_MAX];
	qg_kms_make m;
} make_in;

static make_in *
in_of_job(qg_job *job)
{
	return (make_in *)(void *)((char *)job - offsetof(make_in, job));
}

/* --- answering: the end of every message -------------------------------------------- */

static void
make_free(make_in *in)
{
	qg_mc_drop(&in->op);
	qg_secret_free(&in->keys);
	free(in);
}

static void
finish_status(make_in *in, int http_status)
{
	in->answer(in->ctx, http_status, NULL, 0);
	make_free(in);
}

static void
finish(make_in *in, qg_kms_make_result result)
{
	qg_kms_make_answer a = {.result = result};
	char text[512];
	size_t len = 0;
	if (result != QG_KMS_MAKE_REFUSED && result != QG_KMS_MAKE_NO_PAD)
		qg_make_answer_mac(in->keys->data, in->m.masked.mac, &a, a.mac);
	if (qg_kms_make_answer_encode(&a, text, sizeof text, &len) == QG_OK)
		in->answer(in->ctx, 200, text, len);
	else
		in->answer(in->ctx, 500, NULL, 0);
	make_free(in);
}

static void
audit(const make_in *in, qg_audit_act act, const qg_uuid *ids, size_t n, const char *why)
{
	qg_audit_event ev = {.act = act,
			     .caller = in->neighbour,
			     .peer = in->m.initiator,
			     .reason = why,
			     .ids = ids,
			     .n_ids = n};
	qg_audit_write(in->core->part.audit, &ev);
}

/* One line for the message. */
static void
finish_no(make_in *in, qg_kms_make_result result, const char *why)
{
	audit(in, QG_AUDIT_REFUSED, NULL, 0, why);
	finish(in, result);
}

/* --- judging ---------------------------------------------------------------------------- */

/* It lives here, or behind a peer of ours. */
static bool
has_home(make_in *in, size_t i)
{
	const qg_directory *d = in->core->part.directory;
	const char *target = in->m.targets.id[i], *home = qg_directory_home(d, target);
	if (qg_directory_local(d, target) != NULL)
		return true;
	in->to[i].home = qg_transfer_is_peer(home) ? home : NULL;
	in->abroad |= in->to[i].home != NULL;
	return in->to[i].home != NULL;
}

/* Default deny: this node's own policy, and the sizes that it allows. */
static bool
may_have(const make_in *in, const char *target)
{
	const struct qg_core *core = in->core;
	qg_policy_terms terms;
	if (qg_policy_pair(qg_directory_config(core->part.directory), in->m.initiator, target, &terms) != QG_OK)
		return false;
	for (size_t i = 0; i < in->m.n_keys; i++) {
		const uint32_t bits = in->m.key[i].size * 8;
		if (bits < terms.min_key_bits || bits > terms.max_key_bits)
			return false;
	}
	return true;
}

static const char *
why_unknown(make_in *in)
{
	const char *home = qg_directory_home(in->core->part.directory, in->m.initiator);
	if (home == NULL || strcmp(home, in->neighbour) != 0)
		return "the master does not live at the sender";
	for (size_t i = 0; i < in->m.targets.n; i++)
		if (!has_home(in, i) || !may_have(in, in->m.targets.id[i]))
			return "a target does not live here, or may not have it";
	return NULL;
}

/* An ID that this node issued itself stands for a key of its own (SOUNDNESS 14). */
static bool
issued_by(qg_stream *st, const qg_uuid *id)
{
	static const qg_key_id_pair nobody;
	qg_key_id_position pos;
	bool issued = false;
	pthread_mutex_lock(&st->lock);
	for (const qg_epoch *e = st->newest; e != NULL && !issued; e = e->older)
		issued = e->keys_out != NULL && qg_key_id_open(e->keys_out, &nobody, id, &pos) != QG_E_NOTFOUND;
	pthread_mutex_unlock(&st->lock);
	return issued;
}

bool
qg_issued_here(struct qg_core *core, const qg_uuid *id)
{
	for (size_t s = 0; s < core->n_streams; s++)
		if (issued_by(&core->stream[s], id))
			return true;
	return false;
}

static bool
any_issued_here(const make_in *in)
{
	for (size_t i = 0; i < in->m.n_keys; i++)
		if (qg_issued_here(in->core, &in->m.key[i].id))
			return true;
	return false;
}

/* --- storing ------------------------------------------------------------------------------ */

static void take(make_in *in);

/* The other network's answer, or none in the time that the sender waits. */
static void
on_end(qg_ix_waiter *w, qg_ix_end how)
{
	make_in *in = (make_in *)(void *)((char *)w - offsetof(make_in, end));
	switch (how) {
	case QG_IX_HELD:
		take(in); /* all of it may be there now */
		break;
	case QG_IX_FAILED:
		finish(in, QG_KMS_MAKE_FAILED);
		break;
	case QG_IX_LATE:
		finish(in, QG_KMS_MAKE_PENDING);
		break;
	case QG_IX_STOPPED:
		finish_status(in, 503);
		break;
	}
}

/* Half of what the sender waits. */
static void
prepare_wait(make_in *in)
{
	in->end.ended = on_end;
	in->end.due_ms = qg_clock_elapsed_ms() + in->core->part.cfg->kms_timeout_ms / 2;
}

static void
wait_for(make_in *in, const qg_uuid *id)
{
	prepare_wait(in);
	if (!qg_mc_wait(in->core, in->m.initiator, id, &in->end))
		finish_status(in, 503); /* it just ends */
}

/* Of the keys that are new. */
static qg_err
adopt(make_in *in)
{
	QG_SECRET_AUTO *values = NULL;
	qg_err err = qg_secret_new(in->m.masked.data_len, &values);
	const uint8_t *value = in->keys->data + QG_MAC_KEY_BYTES;
	size_t k = 0;
	for (size_t i = 0; err == QG_OK && i < in->m.n_keys; value += in->m.key[i++].size) {
		if (k == in->n_x || !qg_uuid_equal(&in->ids[k], &in->m.key[i].id))
			continue;
		err = qg_secret_append(values, value, in->m.key[i].size);
		k++;
	}
	return err != QG_OK ? err
			    : qg_mc_adopt(in->core, in->neighbour, false, in->core->part.cfg->transfer_timeout_ms,
					  in->x, (uint32_t)in->n_x, values->data, &in->op);
}

static void
drop_records(make_in *in, qg_err err)
{
	for (size_t i = 0; i < in->n_x; i++)
		qg_transfer_added(in->core->transfers, in->x[i], err);
}

static qg_err
take_run(qg_job *job, qg_store *store)
{
	make_in *in = in_of_job(job);
	for (size_t i = 0; i < in->n_x; i++) {
		const qg_err err = qg_transfer_store(in->x[i], store);
		if (err != QG_OK)
			return err;
	}
	qg_commit_note_change(in->core);
	return QG_OK;
}

static void
made(make_in *in)
{
	qg_mc *op = in->op;
	in->op = NULL;
	if (op == NULL) {
		finish(in, QG_KMS_MAKE_HELD);
		return;
	}
	prepare_wait(in);
	qg_mc_start_waited(op, &in->end);
}

static void
take_done(qg_job *job, qg_err err)
{
	make_in *in = in_of_job(job);
	if (err != QG_OK)
		qg_mc_drop(&in->op);
	drop_records(in, err);
	if (err == QG_E_EXISTS && ++in->takes < TAKE_TRIES) {
		take(in); /* another message was first: judge again */
	} else if (err == QG_OK) {
		audit(in, in->abroad ? QG_AUDIT_ACCEPTED : QG_AUDIT_MADE, in->ids, in->n_x, "");
		made(in);
	} else {
		finish_status(in, 503);
	}
}

static uint64_t
expiry_ms(const make_in *in)
{
	const uint32_t own_s = in->core->part.cfg->fetch_s;
	const uint32_t s = in->m.lifetime_s < own_s ? in->m.lifetime_s : own_s;
	return qg_lifetime_far_ms(&in->core->life) + (uint64_t)s * 1000;
}

/* The records of keys that are new. QG_E_EXISTS: one is known as another. */
static qg_err
gather(make_in *in, const qg_uuid **pending)
{
	qg_transfer_plan plan = {
		.initiator = in->m.initiator,
		.origin = in->neighbour,
		.to = in->to,
		.n_to = in->m.targets.n,
		.value = in->keys->data + QG_MAC_KEY_BYTES,
		.expiry_ms = expiry_ms(in),
	};
	for (size_t i = 0; i < in->m.n_keys; i++) {
		plan.id = in->m.key[i].id;
		plan.size_bytes = in->m.key[i].size;
		qg_err err = qg_transfer_compare(in->core->transfers, &plan);
		if (err == QG_E_AGAIN) {
			*pending = &in->m.key[i].id;
			err = QG_OK;
		}
		if (err == QG_E_NOTFOUND) {
			err = qg_transfer_plan_new(in->core->transfers, &plan, &in->x[in->n_x]);
			if (err == QG_OK)
				in->ids[in->n_x++] = plan.id;
		}
		if (err != QG_OK)
			return err;
		plan.value += plan.size_bytes;
	}
	return QG_OK;
}

/* All of them or none. */
static void
take(make_in *in)
{
	const struct qg_core *core = in->core;
	const qg_uuid *pending = NULL;
	in->n_x = 0;
	qg_err err = gather(in, &pending);
	if (err == QG_OK && in->abroad && in->n_x > 0)
		err = adopt(in);
	if (err != QG_OK)
		drop_records(in, err);
	if (err == QG_E_EXISTS) {
		finish_no(in, QG_KMS_MAKE_EXISTS, "the ID is known as another key's, or void");
	} else if (err != QG_OK) {
		finish_status(in, 503);
	} else if (in->n_x == 0 && pending != NULL) {
		wait_for(in, pending);
	} else if (in->n_x == 0) {
		finish(in, QG_KMS_MAKE_HELD);
	} else if (qg_transfers_keys(core->transfers) + in->n_x > core->part.cfg->inbound_chunks) {
		drop_records(in, QG_E_FULL);
		finish(in, QG_KMS_MAKE_FULL);
	} else {
		in->job.run = take_run;
		in->job.done = take_done;
		qg_committer_submit(core->committer, &in->job);
	}
}

static void
judge(make_in *in)
{
	uint8_t *value = in->keys->data + QG_MAC_KEY_BYTES;
	for (size_t i = 0; i < in->m.masked.data_len; i++)
		value[i] ^= in->m.masked.data[i];
	for (size_t i = 0; i < in->m.targets.n; i++)
		in->to[i].sae = in->m.targets.id[i];
	const char *why = why_unknown(in);
	if (why != NULL)
		finish_no(in, QG_KMS_MAKE_UNKNOWN, why);
	else if (any_issued_here(in))
		finish_no(in, QG_KMS_MAKE_EXISTS, "the ID is one of this gateway's own");
	else if (!qg_relay_neighbour_quota(in->core, in->neighbour, in->m.masked.data_len))
		finish(in, QG_KMS_MAKE_FULL);
	else
		take(in);
}

/* --- what came ------------------------------------------------------------------------------ */

static void
open_message(make_in *in)
{
	qg_err err = qg_masked_open(in->core, in->neighbour, &in->m, &in->m.masked, qg_make_canonical,
				    &in->waiter, &in->keys);
	if (err == QG_E_AGAIN)
		return; /* it may be gone by now */
	if (err == QG_E_NOTFOUND)
		finish(in, QG_KMS_MAKE_NO_PAD);
	else if (err == QG_E_AUTH || err == QG_E_CONSUMED || err == QG_E_INVAL)
		finish(in, QG_KMS_MAKE_REFUSED);
	else if (err != QG_OK)
		finish_status(in, 503);
	else
		judge(in);
}

static void
open_again(qg_waiter *w, qg_err err)
{
	make_in *in = (make_in *)w;
	if (err != QG_OK || ++in->opens >= OPEN_TRIES)
		finish_status(in, 503);
	else
		open_message(in);
}

void
qg_make_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len, qg_peer_answer *answer,
		void *ctx)
{
	make_in *in = calloc(1, sizeof *in);
	if (in == NULL) {
		answer(ctx, 503, NULL, 0);
		return;
	}
	in->waiter.again = open_again;
	in->core = core;
	strncpy(in->neighbour, neighbour, sizeof in->neighbour - 1);
	in->answer = answer;
	in->ctx = ctx;
	if (qg_kms_make_decode(body, len, &in->m) != QG_OK) {
		qg_relay_refused(core, in->neighbour, "", "a malformed message");
		finish_status(in, 400);
	} else if (strcmp(in->m.from, neighbour) != 0 || strcmp(in->m.to, core->part.cfg->kme_id) != 0) {
		qg_relay_refused(core, in->neighbour, in->m.masked.link, "it is of or for another KME");
		finish(in, QG_KMS_MAKE_REFUSED);
	} else {
		open_message(in);
	}
}
