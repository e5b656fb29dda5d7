/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "relay_internal.h"

/* How this gateway's links are, for the routes of others (post_status), and
 * what others tell, passed on. A report goes to the neighbours at the other end
 * of real streams, and doubles as the message that finds out whether such a
 * neighbour can be reached. */

#define MODULE "routes"
#define LOOK_MS 100         /* at our own links */
#define CHANGES_MS 500      /* between reports because of a change */
#define REPORT_MS 5000      /* and without one */
#define RETRY_MS 1000       /* to a neighbour that could not be reached */
#define ANSWER_MS 2000
#define HEARD_MAX 64        /* origins whose reports are passed on */
#define PASS_ON_MS 200      /* between two of one origin */

static const char answer_text[] = "{\"version\":1}";

/* A neighbour at the other end of a real stream. */
typedef struct link_peer {
	struct qg_link_state *ls;
	const char *id;
	qg_kms_link_state state, told;
	uint64_t bytes;
	bool flight;         /* a report to it is under way */
	bool failed;         /* the last one was not answered */
	bool suspected;      /* relaying found it down */
	uint64_t send_at_ms;
} link_peer;

/* The newest report of an origin that is still to be passed on, as text. */
typedef struct heard {
	char origin[QG_KMS_NAME_MAX + 1];
	const char *from;    /* who told it */
	char *text;          /* NULL: passed on */
	size_t len;
	bool sent;
	uint64_t sent_ms;
} heard;

struct qg_link_state {
	pthread_mutex_t lock;
	bool takes_part;
	size_t n_peers;
	link_peer *peer;
	uint64_t sequence, look_at_ms, change_at_ms;
	heard heard[HEARD_MAX];
	size_t waiting;      /* of heard */
};

static bool
real_neighbour(const qg_config *cfg, const char *id)
{
	for (size_t i = 0; i < cfg->n_streams; i++)
		if (!cfg->streams[i].relayed && strcmp(cfg->streams[i].neighbour, id) == 0)
			return true;
	return false;
}

static bool
takes_part(const qg_config *cfg)
{
	bool part = cfg->n_links > 0;
	for (size_t i = 0; i < cfg->n_streams; i++)
		part |= cfg->streams[i].relayed || cfg->streams[i].node_chunks > 0;
	return part;
}

qg_err
qg_link_state_new(struct qg_core *core)
{
	const qg_config *cfg = core->part.cfg;
	struct qg_link_state *ls = calloc(1, sizeof *ls);
	if (ls == NULL)
		return QG_E_NOMEM;
	ls->peer = calloc(cfg->n_neighbours + 1, sizeof *ls->peer);
	if (ls->peer == NULL) {
		free(ls);
		return QG_E_NOMEM;
	}
	pthread_mutex_init(&ls->lock, NULL);
	ls->takes_part = takes_part(cfg);
	for (size_t i = 0; i < cfg->n_neighbours && ls->n_peers < QG_KMS_LINKS_MAX; i++)
		if (real_neighbour(cfg, cfg->neighbours[i].id))
			ls->peer[ls->n_peers++] = (link_peer){.ls = ls,
							      .id = cfg->neighbours[i].id,
							      .state = QG_KMS_LINK_DOWN,
							      .told = QG_KMS_LINK_DOWN};
	core->link_state = ls;
	return QG_OK;
}

void
qg_link_state_free(struct qg_core *core)
{
	struct qg_link_state *ls = core->link_state;
	if (ls == NULL)
		return;
	for (size_t i = 0; i < HEARD_MAX; i++)
		free(ls->heard[i].text);
	pthread_mutex_destroy(&ls->lock);
	free(ls->peer);
	free(ls);
	core->link_state = NULL;
}

/* --- our own links -------------------------------------------------------------- */

typedef struct link_view {
	bool open;
	uint64_t ready, wanted; /* bytes of node key */
} link_view;

static link_view
look_at(struct qg_core *core, const char *peer)
{
	link_view v = {false, 0, 0};
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		if (st->cfg->relayed || st->cfg->direction == QG_DIRECTION_INBOUND ||
		    strcmp(st->neighbour->id, peer) != 0)
			continue;
		v.wanted += (uint64_t)st->cfg->node_chunks * st->cfg->chunk_size;
		pthread_mutex_lock(&st->lock);
		v.open |= qg_epoch_filling(st) != NULL;
		v.ready += qg_pads_ready_bytes(st);
		pthread_mutex_unlock(&st->lock);
	}
	return v;
}

/* What was starving has to recover a little more than it had lost. */
static qg_kms_link_state
judge(const link_peer *p, const link_view *v)
{
	uint64_t parts = p->state == QG_KMS_LINK_STARVING ? 5 : 10;
	if (p->failed || (!v->open && v->ready == 0))
		return QG_KMS_LINK_DOWN;
	if (v->ready == 0 || v->ready < v->wanted / parts)
		return QG_KMS_LINK_STARVING;
	return QG_KMS_LINK_UP;
}

static const char *const state_names[] = {
	[QG_KMS_LINK_UP] = "up",
	[QG_KMS_LINK_DOWN] = "down",
	[QG_KMS_LINK_STARVING] = "starving",
};

const char *
qg_link_state_of(struct qg_core *core, const char *id)
{
	struct qg_link_state *ls = core->link_state;
	const char *name = NULL;
	pthread_mutex_lock(&ls->lock);
	for (size_t i = 0; ls->takes_part && i < ls->n_peers; i++)
		if (strcmp(ls->peer[i].id, id) == 0)
			name = state_names[ls->peer[i].state];
	pthread_mutex_unlock(&ls->lock);
	return name;
}

static void
look_at_all(struct qg_core *core, uint64_t now_ms)
{
	struct qg_link_state *ls = core->link_state;
	for (size_t i = 0; i < ls->n_peers; i++) {
		link_peer *p = &ls->peer[i];
		link_view v = look_at(core, p->id);
		bool down = qg_routes_is_down(core->routes, core->part.cfg->kme_id, p->id, now_ms);
		pthread_mutex_lock(&ls->lock);
		qg_kms_link_state was = p->state;
		p->state = judge(p, &v);
		p->bytes = v.ready;
		/* Relaying found it down: whether it is, a report finds out. */
		if (down && !p->suspected)
			p->send_at_ms = now_ms;
		p->suspected = down;
		qg_kms_link_state is = p->state;
		pthread_mutex_unlock(&ls->lock);
		if (was != is)
			qg_log(was == QG_KMS_LINK_DOWN || is == QG_KMS_LINK_DOWN ? QG_LOG_INFO : QG_LOG_DEBUG,
			       MODULE, "event=link_state neighbour=%s state=%s bytes=%llu", p->id,
			       state_names[is], (unsigned long long)v.ready);
	}
}

/* Under the lock. The wall clock makes the sequence grow over restarts. */
static void
make_report(const struct qg_core *core, qg_kms_report *out)
{
	struct qg_link_state *ls = core->link_state;
	int64_t wall_ms = qg_clock_wall_ms();
	ls->sequence++;
	if (wall_ms > 0 && (uint64_t)wall_ms > ls->sequence)
		ls->sequence = (uint64_t)wall_ms;
	*out = (qg_kms_report){.sequence = ls->sequence, .n = ls->n_peers};
	strncpy(out->origin, core->part.cfg->kme_id, sizeof out->origin - 1);
	for (size_t i = 0; i < ls->n_peers; i++) {
		const link_peer *p = &ls->peer[i];
		strncpy(out->link[i].peer, p->id, sizeof out->link[i].peer - 1);
		out->link[i].state = p->state;
		out->link[i].bytes = p->bytes;
	}
}

/* Under the lock: a change makes reports to all due, but not too often. */
static void
note_changes(struct qg_link_state *ls, uint64_t now_ms)
{
	bool changed = false;
	for (size_t i = 0; i < ls->n_peers; i++)
		changed |= ls->peer[i].state != ls->peer[i].told;
	if (!changed || now_ms < ls->change_at_ms)
		return;
	ls->change_at_ms = now_ms + CHANGES_MS;
	for (size_t i = 0; i < ls->n_peers; i++) {
		ls->peer[i].told = ls->peer[i].state;
		ls->peer[i].send_at_ms = now_ms;
	}
}

/* --- sending ---------------------------------------------------------------------- */

/* That it answers is enough here; what, is the business of the messages that
 * need it. */
static void
reported(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	(void)http_status, (void)body, (void)len;
	link_peer *p = ctx;
	pthread_mutex_lock(&p->ls->lock);
	p->flight = false;
	p->failed = err != QG_OK;
	if (p->failed)
		p->send_at_ms = qg_clock_elapsed_ms() + RETRY_MS;
	pthread_mutex_unlock(&p->ls->lock);
}

static bool
take_due(link_peer *p, uint64_t now_ms)
{
	pthread_mutex_lock(&p->ls->lock);
	bool due = !p->flight && now_ms >= p->send_at_ms;
	if (due) {
		p->flight = true;
		p->send_at_ms = now_ms + REPORT_MS;
	}
	pthread_mutex_unlock(&p->ls->lock);
	return due;
}

/* NULL: memory, or a report that cannot be encoded; it is dropped, the next one
 * comes soon. */
static char *
report_text(const qg_kms_report *m, size_t *len)
{
	char *room = malloc(QG_KMS_MSG_MAX), *text = NULL;
	if (room != NULL && qg_kms_report_encode(m, room, QG_KMS_MSG_MAX, len) == QG_OK)
		text = malloc(*len);
	if (text != NULL)
		memcpy(text, room, *len);
	free(room);
	return text;
}

static void
send_due(struct qg_core *core, const qg_kms_report *m, uint64_t now_ms)
{
	struct qg_link_state *ls = core->link_state;
	qg_channel *ch = core->part.channel;
	char *text = NULL;
	size_t len = 0;
	for (size_t i = 0; i < ls->n_peers; i++) {
		link_peer *p = &ls->peer[i];
		if (!take_due(p, now_ms))
			continue;
		if (text == NULL)
			text = report_text(m, &len);
		if (text == NULL || ch->ops->send(ch, p->id, QG_KMS_POST_STATUS, text, len, ANSWER_MS, reported,
						  p) != QG_OK)
			reported(p, QG_E_IO, 0, NULL, 0);
	}
	free(text);
}

/* --- what others tell --------------------------------------------------------------- */

static void
passed_on(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	(void)ctx, (void)err, (void)http_status, (void)body, (void)len;
}

/* Takes the next report that may be passed on now. */
static bool
take_heard(struct qg_link_state *ls, uint64_t now_ms, heard *out)
{
	bool found = false;
	pthread_mutex_lock(&ls->lock);
	for (size_t i = 0; ls->waiting > 0 && !found && i < HEARD_MAX; i++) {
		heard *h = &ls->heard[i];
		if (h->text == NULL || (h->sent && now_ms < h->sent_ms + PASS_ON_MS))
			continue;
		h->sent = true;
		h->sent_ms = now_ms;
		*out = *h;
		h->text = NULL;
		ls->waiting--;
		found = true;
	}
	pthread_mutex_unlock(&ls->lock);
	return found;
}

/* Not to who told it, nor to whom it speaks of itself. */
static void
pass_on(struct qg_core *core, uint64_t now_ms)
{
	struct qg_link_state *ls = core->link_state;
	qg_channel *ch = core->part.channel;
	heard h;
	while (take_heard(ls, now_ms, &h)) {
		for (size_t i = 0; i < ls->n_peers; i++) {
			const char *id = ls->peer[i].id;
			if (id == h.from || strcmp(id, h.origin) == 0)
				continue;
			/* One that is lost is followed by the next within seconds. */
			if (ch->ops->send(ch, id, QG_KMS_POST_STATUS, h.text, h.len, ANSWER_MS, passed_on,
					  NULL) != QG_OK)
				break;
		}
		free(h.text);
	}
}

/* Under the lock: the origin's place, or that of the one not heard for longest.
 * NULL: there are too many at once. */
static heard *
place_for(struct qg_link_state *ls, const qg_kms_report *m, uint64_t now_ms)
{
	heard *oldest = NULL;
	for (size_t i = 0; i < HEARD_MAX; i++) {
		heard *h = &ls->heard[i];
		if (strcmp(h->origin, m->origin) == 0)
			return h;
		bool idle = h->text == NULL && (!h->sent || now_ms >= h->sent_ms + PASS_ON_MS);
		if (idle && (oldest == NULL || h->sent_ms < oldest->sent_ms))
			oldest = h;
	}
	if (oldest != NULL) {
		*oldest = (heard){.text = NULL};
		memcpy(oldest->origin, m->origin, sizeof oldest->origin);
	}
	return oldest;
}

static void
hear(struct qg_core *core, const char *from, const qg_kms_report *m, uint64_t now_ms)
{
	struct qg_link_state *ls = core->link_state;
	size_t len = 0;
	char *text = report_text(m, &len), *old = text;
	if (text == NULL)
		return;
	pthread_mutex_lock(&ls->lock);
	heard *h = place_for(ls, m, now_ms);
	if (h != NULL) {
		old = h->text;
		ls->waiting += old == NULL;
		h->from = from;
		h->text = text;
		h->len = len;
	}
	pthread_mutex_unlock(&ls->lock);
	free(old);
}

/* Reports are believed from neighbours with a link only, and about this
 * gateway's own links from nobody. */
static void
take_report(struct qg_core *core, const char *neighbour, const qg_kms_report *m)
{
	struct qg_link_state *ls = core->link_state;
	uint64_t now_ms = qg_clock_elapsed_ms();
	const char *from = NULL;
	for (size_t i = 0; ls->takes_part && i < ls->n_peers; i++)
		if (strcmp(ls->peer[i].id, neighbour) == 0)
			from = ls->peer[i].id;
	if (from == NULL || strcmp(m->origin, core->part.cfg->kme_id) == 0 ||
	    !qg_routes_report(core->routes, m, now_ms))
		return;
	hear(core, from, m, now_ms);
	pass_on(core, now_ms);
}

void
qg_report_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len, qg_peer_answer *answer,
		  void *ctx)
{
	qg_kms_report *m = calloc(1, sizeof *m);
	if (m == NULL) {
		answer(ctx, 503, NULL, 0);
		return;
	}
	if (qg_kms_report_decode(body, len, m) == QG_OK) {
		take_report(core, neighbour, m);
		answer(ctx, 200, answer_text, sizeof answer_text - 1);
	} else {
		answer(ctx, 400, NULL, 0);
	}
	free(m);
}

void
qg_link_state_step(struct qg_core *core, uint64_t now_ms)
{
	struct qg_link_state *ls = core->link_state;
	if (!ls->takes_part)
		return;
	pass_on(core, now_ms);
	/* Only the conductor looks. */
	if (now_ms < ls->look_at_ms)
		return;
	ls->look_at_ms = now_ms + LOOK_MS;
	look_at_all(core, now_ms);
	qg_kms_report m;
	pthread_mutex_lock(&ls->lock);
	make_report(core, &m);
	note_changes(ls, now_ms);
	pthread_mutex_unlock(&ls->lock);
	(void)qg_routes_report(core->routes, &m, now_ms);
	send_due(core, &m, now_ms);
}
