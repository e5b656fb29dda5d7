/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

/* The way between peers, with its faults: a request is a deep copy, delivered by
 * the sender's poster to the other core, as whoever showed its certificate. */

struct net_post {
	net_post *next;      /* to be delivered */
	net_post *open_next; /* not yet answered */
	core_node *from, *to;
	net_post_kind kind;
	qg_interop_done *done;
	void *ctx;
	bool open, again;
	atomic_uint refs;
	qg_interop_keys keys;
	qg_interop_ack ack[8];
	size_t n_acks;
	qg_interop_void revoke;
	void *owned[4096];
	size_t n_owned;
};

static void post_put(net_post *p)
{
	if (atomic_fetch_sub(&p->refs, 1) != 1)
		return;
	while (p->n_owned > 0)
		free(p->owned[--p->n_owned]);
	free(p);
}

static void *own_copy(net_post *p, const void *what, size_t n)
{
	must(p->n_owned < sizeof p->owned / sizeof p->owned[0], "a request is too large");
	void *copy = malloc(n + 1);
	must(copy != NULL, "memory");
	if (n > 0)
		memcpy(copy, what, n);
	p->owned[p->n_owned++] = copy;
	return copy;
}

static const char *own_text(net_post *p, const char *s)
{
	return s != NULL ? own_copy(p, s, strlen(s) + 1) : NULL;
}

static qg_interop_saes own_saes(net_post *p, const qg_interop_saes *s)
{
	const char **targets = own_copy(p, s->targets, s->n_targets * sizeof *targets);
	for (size_t i = 0; i < s->n_targets; i++)
		targets[i] = own_text(p, s->targets[i]);
	return (qg_interop_saes){ .initiator = own_text(p, s->initiator), .targets = targets,
				  .n_targets = s->n_targets };
}

static void own_keys(net_post *p, const qg_interop_keys *m)
{
	qg_interop_key *key = own_copy(p, m->key, m->n_keys * sizeof *key);
	for (size_t i = 0; i < m->n_keys; i++) {
		key[i].value = own_copy(p, m->key[i].value, m->key[i].size_bytes);
		key[i].extension = own_text(p, m->key[i].extension);
	}
	p->keys = *m;
	p->keys.saes = own_saes(p, &m->saes);
	p->keys.key = key;
	p->keys.optional = own_text(p, m->optional);
	p->keys.mask = m->mask != NULL ? own_copy(p, m->mask, sizeof *m->mask) : NULL;
	p->keys.wait_ms = 0; /* asynchronous */
}

/* --- finishing ------------------------------------------------------------------------ */

static void post_finish(net_post *p, const qg_interop_sent *sent)
{
	core_node *e = p->from;
	pthread_mutex_lock(&e->lock);
	bool open = p->open;
	p->open = false;
	for (net_post **at = &e->posted; open && *at != NULL; at = &(*at)->open_next)
		if (*at == p) {
			*at = p->open_next;
			break;
		}
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
	if (!open)
		return;
	p->done(p->ctx, sent);
	post_put(p);
}

static void post_lost(net_post *p)
{
	post_finish(p, &(qg_interop_sent){ .outcome = QG_INTEROP_OUT_UNKNOWN, .why = "no answer" });
}

static void posts_fail(core_node *e, const core_node *to)
{
	for (;;) {
		pthread_mutex_lock(&e->lock);
		net_post *p = e->posted;
		while (p != NULL && to != NULL && p->to != to)
			p = p->open_next;
		if (p != NULL)
			atomic_fetch_add(&p->refs, 1);
		pthread_mutex_unlock(&e->lock);
		if (p == NULL)
			return;
		post_lost(p);
		post_put(p);
	}
}

static qg_interop_outcome outcome_of_reply(qg_interop_result r)
{
	switch (r) {
	case QG_INTEROP_ACCEPTED:
		return QG_INTEROP_OUT_ACCEPTED;
	case QG_INTEROP_DONE:
		return QG_INTEROP_OUT_ACKS;
	case QG_INTEROP_NO_TARGET:
	case QG_INTEROP_ROUTING:
	case QG_INTEROP_MALFORMED:
	case QG_INTEROP_ABSENT:
	case QG_INTEROP_DENIED:
		return QG_INTEROP_OUT_REFUSED;
	default:
		return QG_INTEROP_OUT_UNKNOWN;
	}
}

static net_way_fault *way_fault_of(const net_post *p)
{
	return &p->from->net->way_fault[p->from->index][p->to->index][p->kind];
}

static void post_answered(void *ctx, const qg_interop_reply *r)
{
	net_post *p = ctx;
	core_node *to = p->to;
	if (count_down(&way_fault_of(p)->lose_answers) || atomic_load(&to->cut))
		post_lost(p);
	else
		post_finish(p, &(qg_interop_sent){ .outcome = outcome_of_reply(r->result), .why = r->why,
						   .absent = r->result == QG_INTEROP_ABSENT, .ack = r->ack,
						   .n_acks = r->n_acks });
	end_receiving(to);
	post_put(p);
}

static void post_answered_again(void *ctx, const qg_interop_reply *r)
{
	net_post *p = ctx;
	(void)r;
	end_receiving(p->to);
	post_put(p);
}

/* --- delivering ------------------------------------------------------------------------- */

static void post_hand(net_post *p, qg_interop_answer *answer)
{
	qg_interop *ip = qg_core_interop(p->to->core);
	const char *who = p->from->id;
	atomic_fetch_add(&p->refs, 1);
	if (p->kind == NET_POST_KEYS)
		qg_interop_receive_keys(ip, who, &p->keys, answer, p);
	else if (p->kind == NET_POST_ACKS)
		qg_interop_receive_acks(ip, who, p->ack, p->n_acks, answer, p);
	else
		qg_interop_receive_void(ip, who, &p->revoke, answer, p);
}

static void post_deliver(net_post *p)
{
	net_way_fault *f = way_fault_of(p);
	core_net *n = p->from->net;
	const void *m = p->kind == NET_POST_KEYS ? (const void *)&p->keys
			: p->kind == NET_POST_ACKS ? (const void *)p->ack : (const void *)&p->revoke;
	qg_interop_sent sent = { .why = "" };
	if (n->post_play != NULL && n->post_play(p->from->index, p->to->index, p->kind, m, &sent)) {
		post_finish(p, &sent);
		return;
	}
	if (count_down(&f->down) || atomic_load(&p->from->cut) || !begin_receiving(p->to)) {
		post_lost(p);
		return;
	}
	net_post_hook *hook = atomic_load(&n->post_hook);
	if (hook != NULL)
		hook(n->post_hook_ctx, p->from->index, p->to->index, p->kind, m);
	if (count_down(&f->lose_requests)) {
		end_receiving(p->to);
		post_lost(p);
		return;
	}
	atomic_fetch_add(&f->sent, 1);
	if (atomic_load(&f->twice) && begin_receiving(p->to))
		post_hand(p, post_answered_again);
	post_hand(p, post_answered);
}

static void *poster_run(void *arg)
{
	core_node *e = arg;
	pthread_mutex_lock(&e->lock);
	for (;;) {
		net_post *p = e->posts;
		if (p == NULL && e->closing)
			break;
		if (p == NULL) {
			pthread_cond_wait(&e->wake, &e->lock);
			continue;
		}
		e->posts = p->next;
		pthread_mutex_unlock(&e->lock);
		post_deliver(p);
		post_put(p);
		pthread_mutex_lock(&e->lock);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* --- sending -------------------------------------------------------------------------------- */

static net_post *post_new(qg_interop_way *way, const char *peer, net_post_kind kind, qg_interop_done *done,
			  void *ctx)
{
	core_node *e = (core_node *)(void *)((char *)way - offsetof(core_node, way));
	net_post *p = calloc(1, sizeof *p);
	must(p != NULL, "memory");
	p->from = e;
	p->to = node_by_id(e->net, peer);
	must(p->to != NULL, "no such peer");
	p->kind = kind;
	p->done = done;
	p->ctx = ctx;
	p->open = true;
	atomic_init(&p->refs, 2);
	return p;
}

static qg_err post_queue(net_post *p)
{
	core_node *e = p->from;
	pthread_mutex_lock(&e->lock);
	bool closing = e->closing;
	if (!closing) {
		net_post **at = &e->posts;
		while (*at != NULL)
			at = &(*at)->next;
		*at = p;
		p->open_next = e->posted;
		e->posted = p;
		pthread_cond_broadcast(&e->wake);
	}
	pthread_mutex_unlock(&e->lock);
	if (!closing)
		return QG_OK;
	post_put(p);
	post_put(p);
	return QG_E_CLOSED;
}

static qg_err way_keys(qg_interop_way *way, const char *peer, const qg_interop_keys *m, qg_interop_done *done,
		       void *ctx)
{
	net_post *p = post_new(way, peer, NET_POST_KEYS, done, ctx);
	own_keys(p, m);
	return post_queue(p);
}

static qg_err way_acks(qg_interop_way *way, const char *peer, const qg_interop_ack *ack, size_t n,
		       qg_interop_done *done, void *ctx)
{
	net_post *p = post_new(way, peer, NET_POST_ACKS, done, ctx);
	must(n <= sizeof p->ack / sizeof p->ack[0], "too many acks");
	p->n_acks = n;
	for (size_t i = 0; i < n; i++) {
		p->ack[i] = ack[i];
		p->ack[i].saes = own_saes(p, &ack[i].saes);
		p->ack[i].ids = own_copy(p, ack[i].ids, ack[i].n_ids * sizeof *ack[i].ids);
		p->ack[i].message = NULL;
	}
	return post_queue(p);
}

static qg_err way_void(qg_interop_way *way, const char *peer, const qg_interop_void *m, qg_interop_done *done,
		       void *ctx)
{
	net_post *p = post_new(way, peer, NET_POST_VOID, done, ctx);
	p->revoke = *m;
	p->revoke.saes = own_saes(p, &m->saes);
	p->revoke.ids = own_copy(p, m->ids, m->n_ids * sizeof *m->ids);
	p->revoke.wait_ms = 0;
	return post_queue(p);
}

static const qg_interop_ops net_way_ops = { .send_keys = way_keys, .send_acks = way_acks, .send_void = way_void };

static void way_start(core_node *e)
{
	must(pthread_create(&e->poster, NULL, poster_run, e) == 0, "thread");
}

/* The channel is closing by now. */
static void way_stop(core_node *e)
{
	pthread_mutex_lock(&e->lock);
	e->closing = true;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
	pthread_join(e->poster, NULL);
	posts_fail(e, NULL);
}
