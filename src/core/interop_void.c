/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/grow.h"
#include "transfer_internal.h"

/* void of a peer (SOUNDNESS 18): of keys that it brought, or that it was given.
 * The first of release and void wins, a delivered target makes it "failed to
 * void", and what is not known is remembered as void. Acks follow when every
 * home of a key has said so; where the peer waits for the answer, it gets them
 * there. */

#define AGAIN_MS 10   /* while a request under way ends, or homes are asked */
#define TRIES 4       /* keys that come to be known meanwhile */
#define BEGIN_MS 5000 /* that requests under way may take to end */

typedef enum outcome {
	OUT_VOIDED = QG_INTEROP_VOIDED,
	OUT_FAILED = QG_INTEROP_FAILED_TO_VOID,
	OUT_ABSENT = QG_INTEROP_NOT_PRESENT,
	OUT_PENDING, /* homes are being asked */
	OUT_BUSY     /* not durable yet: look again */
} outcome;

typedef struct void_in {
	qg_job job; /* first member */
	struct void_in *next;
	struct qg_core *core;
	const qg_config_peer *peer;
	const char *home;          /* of the directory */
	qg_interop_answer *answer; /* NULL: of our own making */
	void *ctx;
	bool upstream;             /* it brought them */
	bool all, wait;
	uint64_t due_ms, deadline_ms;
	unsigned tries;
	char *text;
	const char **targets;
	qg_interop_saes saes;
	size_t n;
	qg_uuid *ids;
	outcome *out;
	qg_transfer_revocation **r;
	qg_ix_telling *tell[3];    /* by outcome */
	qg_ix_telling *back;       /* of a recall: that they are void */
	bool recall_tells;
	bool stored;               /* what is left is to wait */
} void_in;

struct qg_ix_held_up {
	pthread_mutex_t lock;
	void_in *list;
	bool stopping;
};

static void begin(void_in *in);

/* --- the end ----------------------------------------------------------------------- */

static void
drop_tellings(void_in *in, qg_err err)
{
	for (size_t i = 0; i < sizeof in->tell / sizeof in->tell[0]; i++)
		qg_ix_telling_added(in->core, &in->tell[i], err);
	qg_ix_telling_added(in->core, &in->back, err);
}

static void
in_free(void_in *in)
{
	drop_tellings(in, QG_E_CLOSED);
	free(in->text);
	free(in->targets);
	free(in->ids);
	free(in->out);
	free(in->r);
	free(in);
}

static void
finish(void_in *in, qg_interop_result result, const char *why)
{
	if (in->answer != NULL)
		in->answer(in->ctx, &(qg_interop_reply){.result = result, .why = why});
	in_free(in);
}

/* The keys with that outcome, as many as an ack may have. */
static size_t
with_outcome(const void_in *in, outcome o, size_t *from, qg_uuid *ids)
{
	size_t n = 0;
	for (; *from < in->n && n < QG_INTEROP_KEYS_MAX; (*from)++)
		if (in->out[*from] == o)
			ids[n++] = in->ids[*from];
	return n;
}

static void
finish_acks(void_in *in)
{
	static const outcome order[] = {OUT_VOIDED, OUT_FAILED, OUT_ABSENT};
	const size_t most = 3 + in->n / QG_INTEROP_KEYS_MAX + 1;
	qg_interop_ack *ack = calloc(most, sizeof *ack);
	qg_uuid *ids = calloc(in->n + 1, sizeof *ids), *at = ids;
	size_t n = 0;
	if (ack == NULL || ids == NULL) {
		free(ack);
		free(ids);
		finish(in, QG_INTEROP_UNAVAILABLE, "no memory");
		return;
	}
	for (size_t i = 0; i < sizeof order / sizeof order[0]; i++)
		for (size_t from = 0, k; (k = with_outcome(in, order[i], &from, at)) > 0; at += k)
			ack[n++] = (qg_interop_ack){.status = (qg_interop_status)order[i],
						    .saes = in->saes,
						    .ids = at,
						    .n_ids = k};
	in->answer(in->ctx,
		   &(qg_interop_reply){.result = QG_INTEROP_DONE, .why = "", .ack = ack, .n_acks = n});
	free(ack);
	free(ids);
	in_free(in);
}

static bool
any(const void_in *in, outcome o)
{
	for (size_t i = 0; i < in->n; i++)
		if (in->out[i] == o)
			return true;
	return false;
}

static void
hold_up(void_in *in)
{
	struct qg_ix_held_up *h = in->core->interop.held_up;
	in->due_ms = qg_clock_elapsed_ms() + AGAIN_MS;
	pthread_mutex_lock(&h->lock);
	const bool stopping = h->stopping;
	if (!stopping) {
		in->next = h->list;
		h->list = in;
	}
	pthread_mutex_unlock(&h->lock);
	if (stopping)
		finish(in, QG_INTEROP_UNAVAILABLE, "the gateway stops");
	else
		qg_conductor_kick(in->core);
}

/* --- what becomes of each key --------------------------------------------------------- */

static void
drop_all(void_in *in, qg_err err)
{
	for (size_t i = 0; i < in->n; i++)
		if (in->r[i] != NULL)
			(void)qg_transfer_revoke_end(in->core->transfers, &in->r[i], err);
}

/* Of keys that the peer was given. The master may have what is held. */
static outcome
judge_given(void_in *in, const qg_uuid *id)
{
	struct qg_core *core = in->core;
	outcome o = OUT_ABSENT;
	bool offered = false, voiding = false;
	pthread_mutex_lock(&core->transfers->lock);
	const qg_transfer *x = qg_transfer_find(core->transfers, in->saes.initiator, id);
	if (x != NULL && qg_transfer_is_for(x, in->home, in->targets, in->saes.n_targets)) {
		offered = x->state == QG_TRANSFER_OFFERED;
		voiding = x->state == QG_TRANSFER_VOIDING;
		o = offered || voiding			 ? OUT_BUSY
		    : x->state == QG_TRANSFER_VOIDED ? OUT_VOIDED
						      : OUT_FAILED;
	}
	pthread_mutex_unlock(&core->transfers->lock);
	if (offered)
		qg_mc_end_of(core, in->saes.initiator, id, "the other network voids it", in->home);
	if (voiding && qg_transfer_void_told(core->transfers, in->home, in->saes.initiator, id, false))
		o = OUT_VOIDED;
	return o;
}

/* Known for other targets: it is not the key that the peer means. */
static bool
is_for_others(const void_in *in, const qg_uuid *id)
{
	struct qg_core *core = in->core;
	pthread_mutex_lock(&core->transfers->lock);
	const qg_transfer *x = qg_transfer_find(core->transfers, in->saes.initiator, id);
	const bool others = x != NULL && x->n_targets > 0 &&
			    !qg_transfer_is_for(x, NULL, in->targets, in->saes.n_targets);
	pthread_mutex_unlock(&core->transfers->lock);
	return others;
}

static outcome
outcome_of(qg_revoked what)
{
	switch (what) {
	case QG_REVOKED_VOID:
		return OUT_VOIDED;
	case QG_REVOKED_DELIVERED:
		return OUT_FAILED;
	case QG_REVOKED_PENDING:
		return OUT_PENDING;
	case QG_REVOKED_OFFERED:
		return OUT_BUSY;
	case QG_REVOKED_OTHER:
		break;
	}
	return OUT_ABSENT;
}

/* A peer plants no more stones than a neighbour does (multicast_delete.c). */
static bool
may_plant(const void_in *in)
{
	const struct qg_core *core = in->core;
	return qg_transfers_stones(core->transfers, in->home) + in->n <=
	       QG_INTEROP_KEYS_MAX + (uint64_t)core->part.cfg->inbound_chunks / 4;
}

static qg_err
judge_brought(void_in *in, size_t i, bool plant)
{
	struct qg_core *core = in->core;
	const uint64_t expiry_ms =
		qg_lifetime_far_ms(&core->life) + (uint64_t)core->part.cfg->fetch_s * 1000;
	in->out[i] = OUT_ABSENT;
	if (is_for_others(in, &in->ids[i]))
		return QG_OK;
	const bool known = qg_transfer_is_there(core->transfers, in->saes.initiator, &in->ids[i]);
	qg_err err = qg_transfer_revoke_new(core->transfers, in->home, in->saes.initiator, &in->ids[i],
					    expiry_ms, plant, &in->r[i]);
	if (err != QG_OK)
		return err;
	in->out[i] = known ? outcome_of(qg_transfer_revoke_what(in->r[i])) : OUT_ABSENT;
	if (in->out[i] == OUT_BUSY)
		qg_mc_end_of(core, in->saes.initiator, &in->ids[i], "the network that brought it voids it",
			     in->home);
	if (in->out[i] == OUT_PENDING && !in->wait)
		err = qg_transfer_revoke_owe(core->transfers, in->r[i]);
	if (err == QG_E_AGAIN) {
		in->out[i] = OUT_BUSY;
		err = QG_OK;
	}
	return err;
}

static qg_err
judge(void_in *in)
{
	const bool plant = in->upstream && may_plant(in);
	qg_err err = in->upstream && !plant ? QG_E_FULL : QG_OK;
	for (size_t i = 0; err == QG_OK && i < in->n; i++) {
		if (in->upstream)
			err = judge_brought(in, i, plant);
		else
			in->out[i] = judge_given(in, &in->ids[i]);
	}
	return err;
}

/* --- the job ----------------------------------------------------------------------------- */

/* Known only once the deliveries under way are ruled out: in the job. */
static void
settle_outcomes(void_in *in)
{
	for (size_t i = 0; i < in->n; i++)
		if (in->r[i] != NULL && in->out[i] == OUT_VOIDED)
			in->out[i] = outcome_of(qg_transfer_revoke_seen(in->r[i]));
}

static qg_err
tell(void_in *in, qg_store *store)
{
	static const outcome order[] = {OUT_VOIDED, OUT_FAILED, OUT_ABSENT};
	qg_uuid *ids = calloc(in->n + 1, sizeof *ids);
	qg_err err = ids == NULL ? QG_E_NOMEM : QG_OK;
	for (size_t i = 0; err == QG_OK && i < sizeof order / sizeof order[0]; i++) {
		size_t n = 0;
		for (size_t k = 0; k < in->n; k++)
			if (in->out[k] == order[i])
				ids[n++] = in->ids[k];
		if (n == 0)
			continue;
		err = qg_ix_telling_new(in->core, in->home, (unsigned)order[i], in->saes.initiator,
					in->targets, in->saes.n_targets, ids, n, &in->tell[i]);
		if (err == QG_OK)
			err = qg_ix_telling_store(in->tell[i], store);
	}
	free(ids);
	return err;
}

static qg_err
tell_back(void_in *in, qg_store *store)
{
	qg_err err = qg_ix_telling_new(in->core, in->home, QG_IX_TELL_VOID, in->saes.initiator, in->targets,
				       in->saes.n_targets, in->ids, in->n, &in->back);
	return err == QG_OK ? qg_ix_telling_store(in->back, store) : err;
}

/* May be run twice. */
static qg_err
void_run(qg_job *job, qg_store *store)
{
	void_in *in = (void_in *)job;
	drop_tellings(in, QG_E_CLOSED);
	for (size_t i = 0; i < in->n; i++) {
		const qg_err err = in->r[i] != NULL ? qg_transfer_revoke_store(in->r[i], store) : QG_OK;
		if (err != QG_OK)
			return err;
	}
	settle_outcomes(in);
	qg_commit_note_change(in->core);
	if (in->answer == NULL)
		return in->recall_tells ? tell_back(in, store) : QG_OK;
	return in->wait ? QG_OK : tell(in, store);
}

static void
audit(const void_in *in, outcome o, qg_audit_act act, const char *why)
{
	qg_uuid *ids = calloc(in->n + 1, sizeof *ids);
	size_t n = 0;
	for (size_t i = 0; ids != NULL && i < in->n; i++)
		if (in->out[i] == o)
			ids[n++] = in->ids[i];
	qg_audit_event ev = {
		.act = act, .caller = in->home, .peer = in->saes.initiator, .reason = why, .ids = ids, .n_ids = n};
	if (n > 0)
		qg_audit_write(in->core->part.audit, &ev);
	free(ids);
}

static void
conclude(void_in *in)
{
	audit(in, OUT_VOIDED, QG_AUDIT_VOIDED, "");
	audit(in, OUT_PENDING, QG_AUDIT_VOIDED, "where it went is being told");
	audit(in, OUT_FAILED, QG_AUDIT_REFUSED, "not void: a target had it already");
	audit(in, OUT_ABSENT, QG_AUDIT_VOIDED, "not known here");
	if (in->answer == NULL)
		in_free(in);
	else if (in->wait)
		finish_acks(in);
	else
		finish(in, QG_INTEROP_ACCEPTED, "");
}

static void
void_done(qg_job *job, qg_err err)
{
	void_in *in = (void_in *)job;
	struct qg_core *core = in->core;
	drop_all(in, err);
	drop_tellings(in, err);
	if ((err == QG_E_EXISTS || err == QG_E_STATE) && ++in->tries < TRIES) {
		begin(in);
	} else if (err != QG_OK) {
		finish(in, QG_INTEROP_UNAVAILABLE, "the database refuses");
	} else if (in->answer != NULL && in->wait && any(in, OUT_PENDING)) {
		in->stored = true;
		hold_up(in);
	} else {
		conclude(in);
	}
	qg_conductor_kick(core);
}

/* --- the beginning ------------------------------------------------------------------------- */

static bool
concerns(const void_in *in, const qg_transfer *x)
{
	if (strcmp(x->initiator, in->saes.initiator) != 0 || x->n_targets == 0)
		return false;
	if (in->upstream)
		return x->origin != NULL && strcmp(x->origin, in->home) == 0 &&
		       qg_transfer_is_for(x, NULL, in->targets, in->saes.n_targets);
	return qg_transfer_is_for(x, in->home, in->targets, in->saes.n_targets);
}

static qg_err
add_id(void_in *in, const qg_uuid *id, size_t *room)
{
	qg_uuid *more = qg_grown(in->ids, room, in->n, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	in->ids = more;
	in->ids[in->n++] = *id;
	return QG_OK;
}

/* Every key between these SAEs. */
static qg_err
list_all(void_in *in)
{
	qg_transfers *t = in->core->transfers;
	size_t room = 0;
	qg_err err = QG_OK;
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; err == QG_OK && i < t->n_buckets; i++)
		for (const qg_transfer *x = t->buckets[i]; err == QG_OK && x != NULL; x = x->next)
			if (concerns(in, x))
				err = add_id(in, &x->id, &room);
	pthread_mutex_unlock(&t->lock);
	return err;
}

static void
begin(void_in *in)
{
	struct qg_core *core = in->core;
	const uint64_t now_ms = qg_clock_elapsed_ms();
	const qg_err err = judge(in);
	if (err != QG_OK) {
		drop_all(in, err);
		finish(in, err == QG_E_FULL ? QG_INTEROP_FULL : QG_INTEROP_UNAVAILABLE,
		       "no room to remember what is void");
	} else if (any(in, OUT_BUSY)) {
		drop_all(in, QG_E_CLOSED);
		if (now_ms >= in->deadline_ms)
			finish(in, in->wait ? QG_INTEROP_TIMEOUT : QG_INTEROP_UNAVAILABLE,
			       "what is under way with a key has not ended in time");
		else
			hold_up(in);
	} else if (in->wait && any(in, OUT_PENDING) && now_ms >= in->deadline_ms) {
		drop_all(in, QG_E_CLOSED);
		finish(in, QG_INTEROP_TIMEOUT, "not every home of a key has answered in time");
	} else if (in->stored && any(in, OUT_PENDING)) {
		drop_all(in, QG_E_CLOSED);
		hold_up(in);
	} else {
		in->job.run = void_run;
		in->job.done = void_done;
		qg_committer_submit(core->committer, &in->job);
	}
}

static bool
behind(const void_in *in, const char *sae)
{
	const char *home = qg_directory_home(in->core->part.directory, sae);
	return home != NULL && strcmp(home, in->home) == 0;
}

/* Which side of the keys the peer is on; false: neither. */
static bool
take_side(void_in *in)
{
	in->upstream = behind(in, in->saes.initiator);
	bool given = !in->upstream;
	for (size_t i = 0; given && i < in->saes.n_targets; i++)
		given = behind(in, in->targets[i]);
	return in->upstream || given;
}

static qg_err
copy(void_in *in, const qg_interop_void *m)
{
	size_t text = strlen(m->saes.initiator) + 1;
	for (size_t i = 0; i < m->saes.n_targets; i++)
		text += strlen(m->saes.targets[i]) + 1;
	in->text = malloc(text);
	in->targets = calloc(m->saes.n_targets + 1, sizeof *in->targets);
	if (in->text == NULL || in->targets == NULL)
		return QG_E_NOMEM;
	char *at = in->text;
	const size_t first = strlen(m->saes.initiator) + 1;
	in->saes = (qg_interop_saes){.initiator = memcpy(at, m->saes.initiator, first),
				     .targets = in->targets,
				     .n_targets = m->saes.n_targets};
	at += first;
	for (size_t i = 0; i < m->saes.n_targets; i++) {
		const size_t len = strlen(m->saes.targets[i]) + 1;
		in->targets[i] = memcpy(at, m->saes.targets[i], len);
		at += len;
	}
	return QG_OK;
}

static int
by_id(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(qg_uuid));
}

/* Each once. */
static void
drop_repeats(void_in *in)
{
	size_t n = 0;
	qsort(in->ids, in->n, sizeof *in->ids, by_id);
	for (size_t i = 0; i < in->n; i++)
		if (n == 0 || !qg_uuid_equal(&in->ids[n - 1], &in->ids[i]))
			in->ids[n++] = in->ids[i];
	in->n = n;
}

static qg_err
copy_ids(void_in *in, const qg_interop_void *m)
{
	qg_err err = QG_OK;
	size_t room = 0;
	if (m->all)
		err = list_all(in);
	for (size_t i = 0; err == QG_OK && !m->all && i < m->n_ids; i++)
		err = add_id(in, &m->ids[i], &room);
	if (in->n > 0)
		drop_repeats(in);
	in->out = calloc(in->n + 1, sizeof *in->out);
	in->r = calloc(in->n + 1, sizeof(qg_transfer_revocation *));
	return in->out == NULL || in->r == NULL ? QG_E_NOMEM : err;
}

static void_in *
in_new(struct qg_core *core, const qg_config_peer *peer, const char *home, const qg_interop_void *m)
{
	void_in *in = calloc(1, sizeof *in);
	if (in == NULL)
		return NULL;
	in->core = core;
	in->peer = peer;
	in->home = home;
	in->all = m->all;
	in->wait = m->wait_ms != 0;
	in->deadline_ms = qg_clock_elapsed_ms() + (in->wait ? m->wait_ms : BEGIN_MS);
	if (copy(in, m) == QG_OK)
		return in;
	in_free(in);
	return NULL;
}

void
qg_interop_receive_void(qg_interop *ip, const char *peer, const qg_interop_void *m, qg_interop_answer *answer,
			void *ctx)
{
	struct qg_core *core = ip->core;
	const char *home = qg_directory_peer_home(core->part.directory, peer);
	const qg_config_peer *p = home != NULL ? qg_ix_peer(core, home) : NULL;
	const bool well = m->saes.n_targets > 0 && m->saes.n_targets <= QG_INTEROP_TARGETS_MAX &&
			  m->n_ids <= QG_INTEROP_KEYS_MAX && (m->n_ids > 0) == !m->all;
	void_in *in = p != NULL && well ? in_new(core, p, home, m) : NULL;
	qg_interop_reply no = {.result = QG_INTEROP_UNAVAILABLE, .why = "no memory"};
	if (p == NULL)
		no = (qg_interop_reply){.result = QG_INTEROP_DENIED, .why = "no such peer"};
	else if (!well)
		no = (qg_interop_reply){.result = QG_INTEROP_MALFORMED,
					.why = "key_ids or target_sae_ids: none, or too many"};
	if (in == NULL) {
		answer(ctx, &no);
		return;
	}
	in->answer = answer;
	in->ctx = ctx;
	if (!take_side(in))
		finish(in, QG_INTEROP_DENIED, "neither the initiator nor all targets are behind this peer");
	else if (copy_ids(in, m) != QG_OK)
		finish(in, QG_INTEROP_UNAVAILABLE, "no memory");
	else
		begin(in);
}

void
qg_ix_recall(struct qg_core *core, const qg_config_peer *peer, const qg_interop_void *m, bool tells)
{
	const char *home = qg_directory_peer_home(core->part.directory, peer->id);
	void_in *in = home != NULL ? in_new(core, peer, home, m) : NULL;
	if (in == NULL)
		return;
	in->upstream = true;
	in->wait = true; /* nothing is owed for it */
	in->recall_tells = tells;
	if (copy_ids(in, m) == QG_OK)
		begin(in);
	else
		in_free(in);
}

/* --- those that wait ------------------------------------------------------------------------- */

uint64_t
qg_ix_voids_step(struct qg_core *core, uint64_t now_ms)
{
	struct qg_ix_held_up *h = core->interop.held_up;
	uint64_t next_ms = UINT64_MAX;
	void_in *due = NULL;
	pthread_mutex_lock(&h->lock);
	for (void_in **at = &h->list, *in; (in = *at) != NULL;) {
		if (in->due_ms > now_ms) {
			next_ms = in->due_ms < next_ms ? in->due_ms : next_ms;
			at = &in->next;
			continue;
		}
		*at = in->next;
		in->next = due;
		due = in;
	}
	pthread_mutex_unlock(&h->lock);
	for (void_in *in = due, *next; in != NULL; in = next) {
		next = in->next;
		begin(in);
	}
	return next_ms;
}

qg_err
qg_ix_voids_new(struct qg_core *core)
{
	struct qg_ix_held_up *h = calloc(1, sizeof *h);
	if (h == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&h->lock, NULL);
	core->interop.held_up = h;
	return QG_OK;
}

void
qg_ix_voids_stop(struct qg_core *core)
{
	struct qg_ix_held_up *h = core->interop.held_up;
	if (h == NULL)
		return;
	pthread_mutex_lock(&h->lock);
	h->stopping = true;
	void_in *list = h->list;
	h->list = NULL;
	pthread_mutex_unlock(&h->lock);
	for (void_in *in = list, *next; in != NULL; in = next) {
		next = in->next;
		finish(in, QG_INTEROP_UNAVAILABLE, "the gateway stops");
	}
}

void
qg_ix_voids_free(struct qg_core *core)
{
	struct qg_ix_held_up *h = core->interop.held_up;
	if (h == NULL)
		return;
	qg_ix_voids_stop(core);
	pthread_mutex_destroy(&h->lock);
	free(h);
	core->interop.held_up = NULL;
}
