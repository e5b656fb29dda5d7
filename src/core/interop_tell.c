/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "transfer_internal.h"

/* What a peer is to be told until it answers, over any number of restarts: what
 * became of keys that it brought, or of its voids (acks), and that keys are void
 * which it believes to be held here, because it never took the ack. */

#define AGAIN_MS UINT64_C(250)
#define AGAIN_DOUBLES 7 /* to about half a minute */
#define MISSES 6        /* times the peer's patience: then an ack is given up */
#define SENDS 64        /* in one pass */

struct qg_ix_telling {
	qg_ix_telling *next;
	struct qg_core *core;
	const qg_config_peer *peer;
	int64_t row;
	unsigned what;
	bool flight;
	unsigned tries;
	uint64_t due_ms;   /* elapsed time */
	uint64_t until_ms; /* lifetime clock of the owner */
	char *initiator;
	char *lines;       /* targets, as the store has them */
	size_t n_targets;
	const char **target; /* in a copy of lines */
	char *cut;
	size_t n;
	qg_uuid *ids;
};

struct qg_ix_tellings {
	pthread_mutex_t lock;
	qg_ix_telling *list; /* oldest first */
	qg_ix_telling **end;
	size_t n;
};

static void
telling_free(qg_ix_telling *t)
{
	if (t == NULL)
		return;
	free(t->initiator);
	free(t->lines);
	free(t->target);
	free(t->cut);
	free(t->ids);
	free(t);
}

/* --- making ---------------------------------------------------------------------- */

static char *
lines_of(const char *const *targets, size_t n)
{
	size_t len = 1;
	for (size_t i = 0; i < n; i++)
		len += strlen(targets[i]) + 1;
	char *lines = malloc(len), *at = lines;
	for (size_t i = 0; lines != NULL && i < n; i++) {
		const size_t k = strlen(targets[i]);
		memcpy(at, targets[i], k);
		at += k;
		*at++ = '\n';
	}
	if (lines != NULL)
		*(at > lines ? at - 1 : at) = '\0';
	return lines;
}

static qg_err
cut_lines(qg_ix_telling *t)
{
	size_t n = 1;
	for (const char *s = t->lines; *s != '\0'; s++)
		n += *s == '\n';
	t->cut = strdup(t->lines);
	t->target = calloc(n, sizeof *t->target);
	if (t->cut == NULL || t->target == NULL)
		return QG_E_NOMEM;
	for (char *at = t->cut; at != NULL;) {
		char *end = strchr(at, '\n');
		t->target[t->n_targets++] = at;
		if (end != NULL)
			*end++ = '\0';
		at = end;
	}
	return QG_OK;
}

static qg_err
telling_make(struct qg_core *core, const qg_config_peer *peer, unsigned what, const char *initiator, char *lines,
	     const void *ids, size_t n, qg_ix_telling **out)
{
	qg_ix_telling *t = calloc(1, sizeof *t);
	if (t == NULL) {
		free(lines);
		return QG_E_NOMEM;
	}
	*t = (qg_ix_telling){.core = core, .peer = peer, .what = what, .lines = lines, .n = n};
	t->initiator = strdup(initiator);
	t->ids = calloc(n, sizeof *t->ids);
	if (t->lines == NULL || t->initiator == NULL || t->ids == NULL || cut_lines(t) != QG_OK) {
		telling_free(t);
		return QG_E_NOMEM;
	}
	memcpy(t->ids, ids, n * sizeof *t->ids);
	*out = t;
	return QG_OK;
}

/* That a key is held waits for the peer as long as it may wait for that; what
 * only helps it to forget, longer. */
static uint64_t
patience_ms(const struct qg_core *core, const qg_config_peer *peer, unsigned what)
{
	if (what == QG_INTEROP_RELAYED)
		return (uint64_t)MISSES * peer->ack_timeout_ms;
	return (uint64_t)core->part.cfg->fetch_s * 1000 + QG_TRANSFER_GRACE_MS;
}

qg_err
qg_ix_telling_new(struct qg_core *core, const char *home, unsigned what, const char *initiator,
		  const char *const *targets, size_t n_targets, const qg_uuid *ids, size_t n, qg_ix_telling **out)
{
	const qg_config_peer *peer = qg_ix_peer(core, home);
	if (peer == NULL)
		return QG_E_NOTFOUND;
	qg_ix_telling *t = NULL;
	const qg_err err =
		telling_make(core, peer, what, initiator, lines_of(targets, n_targets), ids, n, &t);
	if (err != QG_OK)
		return err;
	t->until_ms = qg_lifetime_owner_ms(&core->life) + patience_ms(core, peer, what);
	*out = t;
	return QG_OK;
}

qg_err
qg_ix_telling_store(qg_ix_telling *t, qg_store *store)
{
	qg_telling_rec rec = {.peer = t->peer->id,
			      .what = t->what,
			      .initiator = t->initiator,
			      .targets = t->lines,
			      .ids = t->ids->b,
			      .ids_len = t->n * sizeof *t->ids,
			      .until_ms = t->until_ms};
	const qg_err err = store->ops->telling_put(store, &rec);
	if (err == QG_OK)
		t->row = rec.row;
	return err;
}

static void
append(struct qg_ix_tellings *all, qg_ix_telling *t)
{
	pthread_mutex_lock(&all->lock);
	*all->end = t;
	all->end = &t->next;
	all->n++;
	pthread_mutex_unlock(&all->lock);
}

void
qg_ix_telling_added(struct qg_core *core, qg_ix_telling **tp, qg_err committed)
{
	qg_ix_telling *t = *tp;
	*tp = NULL;
	if (t == NULL || committed != QG_OK) {
		telling_free(t);
		return;
	}
	append(core->interop.tellings, t);
	qg_conductor_kick(core);
}

/* --- open and close ------------------------------------------------------------------ */

static qg_err
load(const qg_telling_rec *rec, void *ctx)
{
	struct qg_core *core = ctx;
	const char *home = qg_directory_peer_home(core->part.directory, rec->peer);
	const qg_config_peer *peer = home != NULL ? qg_ix_peer(core, home) : NULL;
	if (peer == NULL) {
		qg_log(QG_LOG_WARN, "interop", "event=peer_gone peer=%s keys=%zu", qg_log_safe(rec->peer),
		       rec->ids_len / sizeof(qg_uuid));
		return QG_OK; /* told by a start that has it again */
	}
	qg_ix_telling *t = NULL;
	const qg_err err = telling_make(core, peer, rec->what, rec->initiator, strdup(rec->targets), rec->ids,
					rec->ids_len / sizeof(qg_uuid), &t);
	if (err != QG_OK)
		return err;
	t->row = rec->row;
	t->until_ms = rec->until_ms;
	append(core->interop.tellings, t);
	return QG_OK;
}

qg_err
qg_ix_tellings_load(struct qg_core *core)
{
	struct qg_ix_tellings *all = calloc(1, sizeof *all);
	if (all == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&all->lock, NULL);
	all->end = &all->list;
	core->interop.tellings = all;
	qg_store *store = core->part.store;
	return store->ops->load_tellings(store, load, core);
}

void
qg_ix_tellings_free(struct qg_core *core)
{
	struct qg_ix_tellings *all = core->interop.tellings;
	if (all == NULL)
		return;
	for (qg_ix_telling *t = all->list, *next; t != NULL; t = next) {
		next = t->next;
		telling_free(t);
	}
	pthread_mutex_destroy(&all->lock);
	free(all);
	core->interop.tellings = NULL;
}

size_t
qg_ix_tellings(struct qg_core *core)
{
	struct qg_ix_tellings *all = core->interop.tellings;
	pthread_mutex_lock(&all->lock);
	const size_t n = all->n;
	pthread_mutex_unlock(&all->lock);
	return n;
}

/* --- the end of one --------------------------------------------------------------------- */

typedef struct forget_job {
	qg_job job; /* first */
	qg_ix_telling *t;
} forget_job;

static qg_err
forget_run(qg_job *job, qg_store *store)
{
	const qg_err err = store->ops->telling_delete(store, ((forget_job *)job)->t->row);
	return err == QG_E_NOTFOUND ? QG_OK : err;
}

/* Should it stand in the store yet, the peer is told once more after a start. */
static void
forget_done(qg_job *job, qg_err err)
{
	if (err != QG_OK && err != QG_E_CLOSED)
		qg_log(QG_LOG_WARN, "interop", "event=telling_not_forgotten error=\"%s\"", qg_err_text(err));
	telling_free(((forget_job *)job)->t);
	free(job);
}

static void
forget(qg_ix_telling *t)
{
	struct qg_core *core = t->core;
	struct qg_ix_tellings *all = core->interop.tellings;
	pthread_mutex_lock(&all->lock);
	qg_ix_telling **at = &all->list;
	while (*at != t)
		at = &(*at)->next;
	*at = t->next;
	if (all->end == &t->next)
		all->end = at;
	all->n--;
	pthread_mutex_unlock(&all->lock);
	forget_job *j = calloc(1, sizeof *j);
	if (j == NULL) {
		telling_free(t);
		return;
	}
	*j = (forget_job){.job = {.run = forget_run, .done = forget_done}, .t = t};
	qg_committer_submit(core->committer, &j->job);
}

static qg_interop_saes
saes_of(const qg_ix_telling *t)
{
	return (qg_interop_saes){.initiator = t->initiator, .targets = t->target, .n_targets = t->n_targets};
}

/* The peer does not take it. Only of keys that it may release to a master does
 * that matter: they are voided, with a void going the other way. */
static void
give_up(qg_ix_telling *t, const char *why, bool absent)
{
	qg_log(QG_LOG_WARN, "interop", "event=ack_given_up peer=%s keys=%zu reason=\"%s\"",
	       qg_log_safe(t->peer->id), t->n, why);
	if (t->what == QG_INTEROP_RELAYED) {
		const qg_interop_void m = {.saes = saes_of(t), .ids = t->ids, .n_ids = t->n};
		qg_ix_recall(t->core, t->peer, &m, !absent);
	}
	forget(t);
}

static void
put_off(qg_ix_telling *t)
{
	struct qg_ix_tellings *all = t->core->interop.tellings;
	pthread_mutex_lock(&all->lock);
	t->flight = false;
	t->due_ms = qg_clock_elapsed_ms() + (AGAIN_MS << t->tries);
	if (t->tries < AGAIN_DOUBLES)
		t->tries++;
	pthread_mutex_unlock(&all->lock);
}

static void
told(void *ctx, const qg_interop_sent *sent)
{
	qg_ix_telling *t = ctx;
	struct qg_core *core = t->core;
	const bool over = qg_lifetime_owner_ms(&core->life) >= t->until_ms;
	if (sent->outcome == QG_INTEROP_OUT_ACCEPTED || sent->outcome == QG_INTEROP_OUT_ACKS)
		forget(t);
	else if (sent->outcome == QG_INTEROP_OUT_REFUSED && sent->absent)
		give_up(t, sent->why, true);
	else if (over)
		give_up(t, sent->why, false);
	else
		put_off(t);
	qg_conductor_kick(core);
}

/* --- sending -------------------------------------------------------------------------------- */

/* The next one due, taken. */
static qg_ix_telling *
next_due(struct qg_ix_tellings *all, uint64_t now_ms, uint64_t *next_ms)
{
	qg_ix_telling *found = NULL;
	pthread_mutex_lock(&all->lock);
	for (qg_ix_telling *t = all->list; t != NULL && found == NULL; t = t->next) {
		if (t->flight)
			continue;
		if (t->due_ms <= now_ms)
			found = t;
		else if (t->due_ms < *next_ms)
			*next_ms = t->due_ms;
	}
	if (found != NULL)
		found->flight = true;
	pthread_mutex_unlock(&all->lock);
	return found;
}

static qg_err
send_one(qg_ix_telling *t)
{
	qg_interop_way *way = t->core->part.way;
	if (way == NULL)
		return QG_E_CLOSED;
	if (t->what == QG_IX_TELL_VOID) {
		const qg_interop_void m = {.saes = saes_of(t),
					   .ids = t->ids,
					   .n_ids = t->n,
					   .wait_ms = t->peer->ack_timeout_ms};
		return way->ops->send_void(way, t->peer->id, &m, told, t);
	}
	const qg_interop_ack ack = {
		.status = (qg_interop_status)t->what, .saes = saes_of(t), .ids = t->ids, .n_ids = t->n};
	return way->ops->send_acks(way, t->peer->id, &ack, 1, told, t);
}

uint64_t
qg_ix_tell(struct qg_core *core, uint64_t now_ms)
{
	uint64_t next_ms = UINT64_MAX;
	for (int i = 0; i < SENDS; i++) {
		qg_ix_telling *t = next_due(core->interop.tellings, now_ms, &next_ms);
		if (t == NULL)
			return next_ms;
		const qg_err err = send_one(t);
		if (err == QG_E_UNSUPPORTED) /* it takes no acks */
			forget(t);
		else if (err != QG_OK)
			put_off(t);
	}
	return now_ms + 1;
}
