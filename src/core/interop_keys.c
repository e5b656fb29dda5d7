/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/pattern.h"
#include "qkdgate/policy.h"
#include "transfer_internal.h"

/* ext_keys of a peer (SOUNDNESS 14, 18): judged by this node's own directory
 * and policy, durable before it is answered; then brought on to where its
 * targets live, and acknowledged when all of them have it. The same request
 * again is answered the same. */

#define OPEN_TRIES 4
#define TAKE_TRIES 4
#define OPTIONAL_MOST (UINT64_C(4) << 20) /* bytes that the records of one request keep of it */

typedef struct keys_in {
	qg_job job;          /* first member */
	qg_waiter waiter;    /* node key being opened */
	qg_ix_waiter end;    /* the request that brings them on */
	struct qg_core *core;
	const qg_config_peer *peer;
	const char *origin;  /* of the directory */
	qg_interop_answer *answer;
	void *ctx;
	uint64_t deadline_ms;
	unsigned opens, takes;
	bool known_too;      /* some were held here before */
	qg_mc *op;           /* of those that are new and go on */
	qg_ix_telling *ack;  /* written with them */
	qg_secret *values;
	char *text;          /* what the strings point into */
	qg_interop_keys m;
	qg_interop_key *key;
	qg_interop_mask mask;
	const char **targets;
	qg_transfer_to *to;
	qg_uuid *ids, *fresh;
	uint32_t n_x;
	qg_transfer **x;
} keys_in;

static void take(keys_in *in);

/* --- answering: the end of every request -------------------------------------------- */

static void
in_free(keys_in *in)
{
	qg_ix_telling_added(in->core, &in->ack, QG_E_CLOSED);
	qg_mc_drop(&in->op);
	qg_secret_free(&in->values);
	free(in->text);
	free(in->key);
	free(in->targets);
	free(in->to);
	free(in->ids);
	free(in->fresh);
	free(in->x);
	free(in);
}

static void
finish(keys_in *in, qg_interop_result result, const char *why)
{
	in->answer(in->ctx, &(qg_interop_reply){.result = result, .why = why});
	in_free(in);
}

static void
finish_done(keys_in *in, qg_interop_status status)
{
	const qg_interop_ack ack = {
		.status = status, .saes = in->m.saes, .ids = in->ids, .n_ids = in->m.n_keys};
	in->answer(in->ctx, &(qg_interop_reply){
				    .result = QG_INTEROP_DONE, .why = "", .ack = &ack, .n_acks = 1});
	in_free(in);
}

static void
audit(const keys_in *in, qg_audit_act act, const qg_uuid *ids, size_t n)
{
	qg_audit_event ev = {.act = act,
			     .caller = in->origin,
			     .peer = in->m.saes.initiator,
			     .reason = "",
			     .size_bits = in->key[0].size_bytes * 8,
			     .ids = ids,
			     .n_ids = n};
	qg_audit_write(in->core->part.audit, &ev);
}

/* --- a copy ---------------------------------------------------------------------------- */

static size_t
text_len(const char *s)
{
	return s != NULL ? strlen(s) + 1 : 0;
}

static const char *
keep(char **at, const char *s)
{
	if (s == NULL)
		return NULL;
	const size_t len = strlen(s) + 1;
	char *copy = memcpy(*at, s, len);
	*at += len;
	return copy;
}

static void
copy_texts(keys_in *in, const qg_interop_keys *m, char *at)
{
	in->m.saes.initiator = keep(&at, m->saes.initiator);
	in->m.optional = keep(&at, m->optional);
	for (size_t i = 0; i < m->saes.n_targets; i++)
		in->targets[i] = keep(&at, m->saes.targets[i]);
	for (size_t i = 0; i < m->n_keys; i++)
		in->key[i].extension = keep(&at, m->key[i].extension);
}

static qg_err
copy_values(keys_in *in, const qg_interop_keys *m, size_t len)
{
	qg_err err = qg_secret_new(len, &in->values);
	for (size_t i = 0; err == QG_OK && i < m->n_keys; i++) {
		in->key[i] = m->key[i];
		in->key[i].value = in->values->data + in->values->len;
		in->ids[i] = m->key[i].id;
		err = qg_secret_append(in->values, m->key[i].value, m->key[i].size_bytes);
	}
	return err;
}

static qg_err
copy(keys_in *in, const qg_interop_keys *m)
{
	size_t text = text_len(m->saes.initiator) + text_len(m->optional), len = 0;
	for (size_t i = 0; i < m->saes.n_targets; i++)
		text += text_len(m->saes.targets[i]);
	for (size_t i = 0; i < m->n_keys; i++) {
		text += text_len(m->key[i].extension);
		len += m->key[i].size_bytes;
	}
	in->m = *m;
	in->text = malloc(text + 1);
	in->key = calloc(m->n_keys + 1, sizeof *in->key);
	in->targets = calloc(m->saes.n_targets + 1, sizeof *in->targets);
	in->to = calloc(m->saes.n_targets + 1, sizeof *in->to);
	in->ids = calloc(m->n_keys + 1, sizeof *in->ids);
	in->fresh = calloc(m->n_keys + 1, sizeof *in->fresh);
	in->x = calloc(m->n_keys + 1, sizeof(qg_transfer *));
	if (in->text == NULL || in->key == NULL || in->targets == NULL || in->to == NULL || in->ids == NULL ||
	    in->fresh == NULL || in->x == NULL)
		return QG_E_NOMEM;
	const qg_err err = copy_values(in, m, len);
	if (err != QG_OK)
		return err;
	copy_texts(in, m, in->text);
	in->m.key = in->key;
	in->m.saes.targets = in->targets;
	if (m->mask != NULL) {
		in->mask = *m->mask;
		in->m.mask = &in->mask;
	}
	return QG_OK;
}

/* --- judging ------------------------------------------------------------------------------ */

static bool
is_twice(const qg_interop_saes *s)
{
	for (size_t i = 0; i < s->n_targets; i++)
		for (size_t j = 0; j < i; j++)
			if (strcmp(s->targets[i], s->targets[j]) == 0)
				return true;
	return false;
}

static int
by_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(qg_uuid));
}

/* Sorts `fresh`, which is written anew later. */
static bool
id_twice(keys_in *in)
{
	memcpy(in->fresh, in->ids, in->m.n_keys * sizeof *in->ids);
	qsort(in->fresh, in->m.n_keys, sizeof *in->fresh, by_id);
	for (size_t i = 1; i < in->m.n_keys; i++)
		if (qg_uuid_equal(&in->fresh[i - 1], &in->fresh[i]))
			return true;
	return false;
}

static const char *
why_malformed(const qg_config_peer *peer, const qg_interop_keys *m)
{
	if (m->n_keys == 0 || m->n_keys > QG_INTEROP_KEYS_MAX || m->n_keys > peer->max_keys)
		return "keys: none, or more than this peer may send at once";
	if (m->saes.n_targets == 0 || m->saes.n_targets > QG_INTEROP_TARGETS_MAX || is_twice(&m->saes))
		return "target_sae_ids: none, too many, or one of them twice";
	for (size_t i = 0; i < m->n_keys; i++)
		if (m->key[i].size_bytes == 0 || m->key[i].size_bytes > QG_INTEROP_KEY_BYTES_MAX)
			return "keys: a value is empty or too long";
	return NULL;
}

static bool
matches(const char *const *patterns, size_t n, const char *sae)
{
	for (size_t i = 0; i < n; i++)
		if (qg_pattern_matches(patterns[i], sae))
			return true;
	return false;
}

static bool
policy_allows(const keys_in *in, const char *sae)
{
	qg_policy_terms terms;
	if (!matches(in->peer->reach, in->peer->n_reach, sae) ||
	    qg_policy_pair(qg_directory_config(in->core->part.directory), in->m.saes.initiator, sae, &terms) != QG_OK)
		return false;
	for (size_t i = 0; i < in->m.n_keys; i++)
		if (in->key[i].size_bytes * 8 < terms.min_key_bits ||
		    in->key[i].size_bytes * 8 > terms.max_key_bits)
			return false;
	return true;
}

/* Where it lives, and whether it may be reached: *why stays NULL then. */
static qg_interop_result
judge_target(keys_in *in, size_t i, const char **why)
{
	struct qg_core *core = in->core;
	const char *sae = in->targets[i], *home = qg_directory_home(core->part.directory, sae);
	const bool here = home != NULL && strcmp(home, core->part.cfg->kme_id) == 0;
	const bool node = home != NULL && !here && !qg_transfer_is_peer(home);
	in->to[i] = (qg_transfer_to){.sae = sae, .home = here ? NULL : home};
	*why = "a target is not known here";
	if (home == NULL)
		return QG_INTEROP_NO_TARGET;
	*why = "a target is where the key comes from";
	if (strcmp(home, in->origin) == 0)
		return QG_INTEROP_ROUTING;
	*why = "the initiator may not share keys of this size with a target, or the peer not reach it";
	if (!policy_allows(in, sae))
		return QG_INTEROP_DENIED;
	*why = "no route leads to a target";
	if (node && (!qg_kms_sae_fits(sae) || !qg_kms_sae_fits(in->m.saes.initiator) ||
		     qg_multicast_link(core, home, UINT32_MAX) == NULL))
		return QG_INTEROP_NO_ROUTE;
	*why = NULL;
	return QG_INTEROP_ACCEPTED;
}

static qg_interop_result
judge(keys_in *in, const char **why)
{
	struct qg_core *core = in->core;
	const char *home = qg_directory_home(core->part.directory, in->m.saes.initiator);
	*why = "the initiator is not behind this peer";
	if (home == NULL || strcmp(home, in->origin) != 0)
		return QG_INTEROP_DENIED;
	for (size_t i = 0; i < in->m.saes.n_targets; i++) {
		const qg_interop_result r = judge_target(in, i, why);
		if (*why != NULL)
			return r;
	}
	*why = "a key ID stands twice";
	if (id_twice(in))
		return QG_INTEROP_MALFORMED;
	*why = "a key ID is one of this gateway's own";
	for (size_t i = 0; i < in->m.n_keys; i++)
		if (qg_issued_here(core, &in->ids[i]))
			return QG_INTEROP_ROUTING;
	*why = "a key ID came from another side before";
	for (size_t i = 0; i < in->m.n_keys; i++)
		if (qg_transfer_from_elsewhere(core->transfers, in->origin, in->m.saes.initiator, &in->ids[i]))
			return QG_INTEROP_ROUTING;
	*why = NULL;
	return QG_INTEROP_ACCEPTED;
}

/* --- storing -------------------------------------------------------------------------------- */

static bool
goes_on(const keys_in *in)
{
	for (size_t i = 0; i < in->m.saes.n_targets; i++)
		if (in->to[i].home != NULL)
			return true;
	return false;
}

static bool
goes_abroad(const keys_in *in)
{
	for (size_t i = 0; i < in->m.saes.n_targets; i++)
		if (qg_transfer_is_peer(in->to[i].home))
			return true;
	return false;
}

/* The records of keys that are new, their values moved to the front. */
static qg_err
gather(keys_in *in, const qg_uuid **pending)
{
	const struct qg_core *core = in->core;
	const bool abroad = goes_abroad(in);
	qg_transfer_plan plan = {
		.initiator = in->m.saes.initiator,
		.origin = in->origin,
		.to = in->to,
		.n_to = in->m.saes.n_targets,
		.expiry_ms = qg_lifetime_far_ms(&core->life) + (uint64_t)core->part.cfg->fetch_s * 1000,
		.optional = abroad ? in->m.optional : NULL,
	};
	for (size_t i = 0; i < in->m.n_keys; i++) {
		plan.id = in->ids[i];
		plan.value = in->key[i].value;
		plan.size_bytes = in->key[i].size_bytes;
		plan.extension = abroad ? in->key[i].extension : NULL;
		qg_err err = qg_transfer_compare(core->transfers, &plan);
		in->known_too |= err == QG_OK;
		if (err == QG_E_AGAIN)
			*pending = &in->ids[i];
		if (err == QG_E_NOTFOUND) {
			err = qg_transfer_plan_new(core->transfers, &plan, &in->x[in->n_x]);
			if (err == QG_OK)
				in->fresh[in->n_x++] = plan.id;
		}
		if (err != QG_OK && err != QG_E_AGAIN)
			return err;
	}
	return QG_OK;
}

static void
drop_records(keys_in *in, qg_err err)
{
	for (uint32_t i = 0; i < in->n_x; i++)
		qg_transfer_added(in->core->transfers, in->x[i], err);
	if (err != QG_OK)
		in->n_x = 0;
}

static qg_err
adopt(keys_in *in)
{
	QG_SECRET_AUTO *values = NULL;
	qg_err err = qg_secret_new(in->values->len, &values);
	size_t k = 0;
	for (size_t i = 0; err == QG_OK && i < in->m.n_keys && k < in->n_x; i++) {
		if (!qg_uuid_equal(&in->x[k]->id, &in->ids[i]))
			continue;
		err = qg_secret_append(values, in->key[i].value, in->key[i].size_bytes);
		k++;
	}
	const uint32_t wait_ms = in->m.wait_ms != 0 && in->m.wait_ms < in->peer->ack_timeout_ms
					 ? in->m.wait_ms
					 : in->peer->ack_timeout_ms;
	return err != QG_OK ? err
			    : qg_mc_adopt(in->core, in->origin, in->m.wait_ms == 0, wait_ms, in->x, in->n_x,
					  values->data, &in->op);
}

/* What is held with the commit, or was before, is acknowledged at once. */
static qg_err
make_ack(keys_in *in, bool on)
{
	const qg_uuid *ids = in->ids;
	if (in->m.wait_ms != 0 || (on && !in->known_too))
		return QG_OK;
	qg_uuid *held = in->fresh + in->n_x; /* room for those that are not new */
	size_t n = in->m.n_keys;
	if (on) {
		n = 0;
		for (size_t i = 0; i < in->m.n_keys; i++)
			if (qg_transfer_is_held(in->core->transfers, in->m.saes.initiator, &in->ids[i]))
				held[n++] = in->ids[i];
		ids = held;
	}
	return n == 0 ? QG_OK
		      : qg_ix_telling_new(in->core, in->origin, QG_INTEROP_RELAYED, in->m.saes.initiator,
					  in->targets, in->m.saes.n_targets, ids, n, &in->ack);
}

static qg_err
take_run(qg_job *job, qg_store *store)
{
	keys_in *in = (keys_in *)job;
	qg_err err = QG_OK;
	for (uint32_t i = 0; err == QG_OK && i < in->n_x; i++)
		err = qg_transfer_store(in->x[i], store);
	if (err == QG_OK && in->ack != NULL)
		err = qg_ix_telling_store(in->ack, store);
	if (err == QG_OK)
		qg_commit_note_change(in->core);
	return err;
}

static void
waited(qg_ix_waiter *w, qg_ix_end how)
{
	keys_in *in = (keys_in *)(void *)((char *)w - offsetof(keys_in, end));
	switch (how) {
	case QG_IX_HELD:
		take(in); /* all of it may be there now */
		break;
	case QG_IX_FAILED:
		finish_done(in, QG_INTEROP_FAILED);
		break;
	case QG_IX_LATE:
		for (size_t i = 0; i < in->m.n_keys; i++)
			qg_mc_end_of(in->core, in->m.saes.initiator, &in->ids[i],
				     "not relayed in the time that the peer waits", NULL);
		finish(in, QG_INTEROP_TIMEOUT, "not relayed in time; the keys are being voided");
		break;
	case QG_IX_STOPPED:
		finish(in, QG_INTEROP_UNAVAILABLE, "the gateway stops");
		break;
	}
}

/* It is all durable. */
static void
settle(keys_in *in, const qg_uuid *pending)
{
	if (in->m.wait_ms == 0) {
		finish(in, QG_INTEROP_ACCEPTED, "");
	} else if (pending == NULL) {
		finish_done(in, QG_INTEROP_RELAYED);
	} else {
		in->end.ended = waited;
		in->end.due_ms = in->deadline_ms;
		if (!qg_mc_wait(in->core, in->m.saes.initiator, pending, &in->end))
			finish(in, QG_INTEROP_UNAVAILABLE, "just being decided");
	}
}

static void
take_done(qg_job *job, qg_err err)
{
	keys_in *in = (keys_in *)job;
	struct qg_core *core = in->core;
	const bool on = goes_on(in);
	if (err != QG_OK) {
		qg_mc_drop(&in->op);
		drop_records(in, err);
		qg_ix_telling_added(core, &in->ack, err);
		if (err == QG_E_EXISTS && ++in->takes < TAKE_TRIES)
			take(in); /* another message was first: judge again */
		else
			finish(in, QG_INTEROP_UNAVAILABLE, "the database refuses");
		return;
	}
	drop_records(in, QG_OK);
	qg_ix_telling_added(core, &in->ack, QG_OK);
	if (in->n_x > 0)
		audit(in, QG_AUDIT_ACCEPTED, in->fresh, in->n_x);
	if (in->n_x > 0 && !on)
		audit(in, QG_AUDIT_RELAYED, in->fresh, in->n_x);
	/* Waits before it starts: it may be over at once. */
	qg_mc *op = in->op;
	in->op = NULL;
	if (op != NULL && in->m.wait_ms != 0) {
		in->end.ended = waited;
		in->end.due_ms = in->deadline_ms;
		qg_mc_start_waited(op, &in->end);
		return;
	}
	if (op != NULL)
		qg_mc_start(op);
	settle(in, NULL);
}

static const char *
why_full(const keys_in *in)
{
	struct qg_core *core = in->core;
	if (qg_transfers_keys(core->transfers) + in->n_x > core->part.cfg->inbound_chunks)
		return "no room for more keys";
	if (in->peer->outstanding_keys > 0 &&
	    qg_mc_outstanding(core, in->origin) + in->n_x > in->peer->outstanding_keys)
		return "too many keys of this peer are under way";
	if (in->m.optional != NULL && goes_abroad(in) &&
	    (uint64_t)in->n_x * strlen(in->m.optional) > OPTIONAL_MOST)
		return "too long extensions to be passed on with so many keys";
	return NULL;
}

/* All of them or none. */
static void
take(keys_in *in)
{
	const bool on = goes_on(in);
	const qg_uuid *pending = NULL;
	in->n_x = 0;
	in->known_too = false;
	qg_err err = gather(in, &pending);
	const char *full = err == QG_OK && in->n_x > 0 ? why_full(in) : NULL;
	if (full != NULL)
		err = QG_E_FULL;
	if (err == QG_OK)
		err = make_ack(in, on);
	if (err == QG_OK && in->n_x > 0 && on)
		err = adopt(in);
	if (err != QG_OK) {
		qg_ix_telling_added(in->core, &in->ack, err);
		drop_records(in, err);
		if (err == QG_E_EXISTS)
			finish(in, QG_INTEROP_CONFLICT, "a key ID stands for another key, or is void");
		else if (err == QG_E_FULL)
			finish(in, QG_INTEROP_FULL, full);
		else
			finish(in, QG_INTEROP_UNAVAILABLE, "no memory");
	} else if (in->n_x == 0 && in->ack == NULL) {
		settle(in, pending);
	} else {
		in->job.run = take_run;
		in->job.done = take_done;
		qg_committer_submit(in->core->committer, &in->job);
	}
}

/* --- what came --------------------------------------------------------------------------------- */

static void
begin(keys_in *in)
{
	const char *why = NULL;
	const qg_interop_result r = judge(in, &why);
	if (why != NULL)
		finish(in, r, why);
	else
		take(in);
}

static void
open_values(keys_in *in)
{
	if (in->m.mask == NULL) {
		if (in->peer->stream != NULL)
			finish(in, QG_INTEROP_DENIED, "the values are not masked with key of the link");
		else
			begin(in);
		return;
	}
	const qg_err err = qg_ix_unmask(in->core, in->peer, &in->m, in->values->data, in->values->len,
					&in->waiter);
	if (err == QG_E_AGAIN)
		return; /* it may be gone by now */
	if (err == QG_OK)
		begin(in);
	else if (err == QG_E_NOTFOUND)
		finish(in, QG_INTEROP_NO_KEY, "the mask names key of the link that is not here");
	else if (err == QG_E_AUTH || err == QG_E_CONSUMED || err == QG_E_INVAL)
		finish(in, QG_INTEROP_DENIED, "the mask does not verify");
	else
		finish(in, QG_INTEROP_UNAVAILABLE, "key of the link cannot be used now");
}

static void
open_again(qg_waiter *w, qg_err err)
{
	keys_in *in = (keys_in *)(void *)((char *)w - offsetof(keys_in, waiter));
	if (err != QG_OK || ++in->opens >= OPEN_TRIES)
		finish(in, QG_INTEROP_UNAVAILABLE, "key of the link cannot be used now");
	else
		open_values(in);
}

static void
refuse(qg_interop_answer *answer, void *ctx, qg_interop_result result, const char *why)
{
	answer(ctx, &(qg_interop_reply){.result = result, .why = why});
}

void
qg_interop_receive_keys(qg_interop *ip, const char *peer, const qg_interop_keys *m, qg_interop_answer *answer,
			void *ctx)
{
	struct qg_core *core = ip->core;
	const char *origin = qg_directory_peer_home(core->part.directory, peer);
	const qg_config_peer *p = origin != NULL ? qg_ix_peer(core, origin) : NULL;
	const char *why = p != NULL ? why_malformed(p, m) : NULL;
	keys_in *in = p != NULL && why == NULL ? calloc(1, sizeof *in) : NULL;
	if (p == NULL) {
		refuse(answer, ctx, QG_INTEROP_DENIED, "no such peer");
	} else if (why != NULL) {
		refuse(answer, ctx, QG_INTEROP_MALFORMED, why);
	} else if (in == NULL) {
		refuse(answer, ctx, QG_INTEROP_UNAVAILABLE, "no memory");
	} else {
		in->waiter.again = open_again;
		in->core = core;
		in->peer = p;
		in->origin = origin;
		in->answer = answer;
		in->ctx = ctx;
		in->deadline_ms = qg_clock_elapsed_ms() + m->wait_ms;
		if (copy(in, m) != QG_OK)
			finish(in, QG_INTEROP_UNAVAILABLE, "no memory");
		else
			open_values(in);
	}
}
