/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

/* The channel between the nodes, with its faults. Each node has workers that
 * deliver what it sends and bring it the answers, at their time; no worker
 * waits for an answer, so that chains of messages cannot block one another. */

struct net_call {
	net_call *next; /* in the sender's list while open */
	core_node *from, *to;
	qg_kms_kind kind;
	qg_channel_done *done;
	void *ctx;
	bool open;
	atomic_uint refs;
	uint64_t deadline_ms;
	size_t record;
	size_t len;
	char body[];
};

struct net_event {
	net_event *next;
	uint64_t due_ms;
	net_call *call;
	bool answer, again;
	int status;
	size_t len;
	char *body; /* of an answer */
};

static uint64_t net_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void call_put(net_call *c)
{
	if (atomic_fetch_sub(&c->refs, 1) == 1)
		free(c);
}

/* The first to finish a call tells its sender; what comes later is dropped. */
static void call_finish(net_call *c, qg_err err, int status, const char *body, size_t len)
{
	core_node *e = c->from;
	pthread_mutex_lock(&e->lock);
	bool open = c->open;
	c->open = false;
	for (net_call **at = &e->calls; open && *at != NULL; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	pthread_mutex_unlock(&e->lock);
	if (!open)
		return;
	c->done(c->ctx, err, status, body, len);
	call_put(c);
}

/* All of e's own that are open, or those that it sent to `to`. */
static void calls_fail(core_node *e, const core_node *to, qg_err err)
{
	for (;;) {
		pthread_mutex_lock(&e->lock);
		net_call *c = e->calls;
		while (c != NULL && to != NULL && c->to != to)
			c = c->next;
		if (c != NULL)
			atomic_fetch_add(&c->refs, 1);
		pthread_mutex_unlock(&e->lock);
		if (c == NULL)
			return;
		call_finish(c, err, 0, NULL, 0);
		call_put(c);
	}
}

static void event_free(net_event *v)
{
	call_put(v->call);
	free(v->body);
	free(v);
}

static void event_queue(net_event *v)
{
	core_node *e = v->call->from;
	pthread_mutex_lock(&e->lock);
	bool closing = e->closing;
	if (!closing) {
		net_event **at = &e->events;
		while (*at != NULL && (*at)->due_ms <= v->due_ms)
			at = &(*at)->next;
		v->next = *at;
		*at = v;
		pthread_cond_broadcast(&e->wake);
	}
	pthread_mutex_unlock(&e->lock);
	if (closing)
		event_free(v);
}

static uint64_t due_ms(core_net *n, const net_fault *f)
{
	uint64_t ms = net_ms() + atomic_load(&f->delay_ms);
	unsigned jitter = atomic_load(&f->jitter_ms);
	if (jitter > 0)
		ms += atomic_fetch_add(&n->jitter, UINT64_C(0x9e3779b97f4a7c15)) / 65536 % (jitter + 1);
	return ms;
}

static net_fault *fault_of_call(const net_call *c)
{
	return net_fault_of(c->from->net, c->from->index, c->to->index, c->kind);
}

static net_event *event_new(net_call *c)
{
	net_event *v = calloc(1, sizeof *v);
	must(v != NULL, "memory");
	atomic_fetch_add(&c->refs, 1);
	v->call = c;
	v->due_ms = due_ms(c->from->net, fault_of_call(c));
	return v;
}

/* --- records ------------------------------------------------------------------------- */

static char *copy_bytes(const char *body, size_t len)
{
	char *copy = malloc(len + 1);
	must(copy != NULL, "memory");
	if (len > 0)
		memcpy(copy, body, len);
	copy[len] = '\0';
	return copy;
}

static size_t record_sent(const net_call *c)
{
	core_net *n = c->from->net;
	if (c->kind == QG_KMS_FORWARD_KEYS && atomic_load(&n->record_off))
		return SIZE_MAX;
	/* After the crash nothing leaves the node, whatever it still does here. */
	if (atomic_load(&c->from->cut))
		return SIZE_MAX;
	pthread_mutex_lock(&n->record_lock);
	if (n->n_records == n->room_records) {
		n->room_records = n->room_records * 2 + 256;
		n->record = realloc(n->record, n->room_records * sizeof *n->record);
		must(n->record != NULL, "memory");
	}
	size_t at = n->n_records++;
	n->record[at] = (net_record){ .from = c->from->index, .to = c->to->index, .kind = c->kind, .len = c->len,
				      .body = copy_bytes(c->body, c->len), .sent_ms = net_ms() };
	pthread_mutex_unlock(&n->record_lock);
	return at;
}

static void record_answer(const net_event *v)
{
	core_net *n = v->call->from->net;
	if (v->call->record == SIZE_MAX)
		return;
	pthread_mutex_lock(&n->record_lock);
	net_record *r = &n->record[v->call->record];
	r->deliveries++;
	if (!v->again && r->answer == NULL) {
		r->answer = copy_bytes(v->body, v->len);
		r->answer_len = v->len;
		r->status = v->status;
		r->answered_ms = net_ms();
	}
	pthread_mutex_unlock(&n->record_lock);
}

/* --- sending --------------------------------------------------------------------------- */

static core_node *node_by_id(core_net *n, const char *id)
{
	for (unsigned i = 0; i < n->plan.nodes; i++)
		if (strcmp(n->node[i].id, id) == 0)
			return &n->node[i];
	return NULL;
}

static bool is_neighbour(const core_node *e, const char *id)
{
	for (size_t i = 0; i < e->cfg.n_neighbours; i++)
		if (strcmp(e->cfg.neighbours[i].id, id) == 0)
			return true;
	return false;
}

/* What cannot be sent, besides, by who wants to. */
static _Atomic(refuses_caller *) send_refuses;

static qg_err net_send(qg_channel *ch, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
		       unsigned timeout_ms, qg_channel_done *done, void *ctx)
{
	core_node *e = (core_node *)(void *)((char *)ch - offsetof(core_node, channel));
	core_node *to = is_neighbour(e, neighbour) ? node_by_id(e->net, neighbour) : NULL;
	if (to == NULL)
		return QG_E_NOTFOUND;
	if (caller_is_refused(atomic_load(&send_refuses), __builtin_return_address(0)))
		return QG_E_FULL;
	must(len <= QG_KMS_MSG_MAX, "a message is too long");
	net_call *c = malloc(sizeof *c + len);
	must(c != NULL, "memory");
	*c = (net_call){ .from = e, .to = to, .kind = kind, .done = done, .ctx = ctx, .open = true, .refs = 1, .len = len,
			 .deadline_ms = net_ms() + (timeout_ms > 0 ? timeout_ms : e->cfg.kms_timeout_ms) };
	memcpy(c->body, body, len);
	pthread_mutex_lock(&e->lock);
	bool closing = e->closing;
	if (!closing) {
		c->next = e->calls;
		e->calls = c;
		atomic_fetch_add(&c->refs, 1); /* until the event is queued */
	}
	pthread_mutex_unlock(&e->lock);
	if (closing) {
		free(c);
		return QG_E_CLOSED;
	}
	c->record = record_sent(c);
	event_queue(event_new(c));
	call_put(c);
	return QG_OK;
}

static const qg_channel_ops net_channel_ops = { .send = net_send };

/* --- delivering --------------------------------------------------------------------------- */

static bool begin_receiving(core_node *to)
{
	pthread_mutex_lock(&to->lock);
	bool listening = to->listening;
	to->receiving += listening;
	pthread_mutex_unlock(&to->lock);
	return listening;
}

static void end_receiving(core_node *to)
{
	pthread_mutex_lock(&to->lock);
	must(to->receiving > 0, "a message was answered twice");
	to->receiving--;
	pthread_cond_broadcast(&to->wake);
	pthread_mutex_unlock(&to->lock);
}

/* The receiver's answer; it may hold locks of its own. */
static void answered(void *ctx, int status, const char *body, size_t len)
{
	net_event *v = ctx;
	core_node *to = v->call->to;
	v->status = status;
	v->len = len;
	v->body = copy_bytes(body, len);
	v->due_ms = due_ms(to->net, fault_of_call(v->call));
	event_queue(v);
	end_receiving(to);
}

static bool count_down(atomic_int *left)
{
	int n = atomic_load(left);
	if (n > 0)
		atomic_fetch_sub(left, 1);
	return n != 0;
}

static bool look_at(net_wire *w)
{
	core_net *n = w->net;
	pthread_mutex_lock(&n->hook_lock);
	if (n->hook != NULL)
		n->hook(n->hook_ctx, w);
	pthread_mutex_unlock(&n->hook_lock);
	return !w->lost;
}

static net_wire wire_of(const net_call *c)
{
	net_wire w = { .net = c->from->net, .from = c->from->index, .to = c->to->index, .kind = c->kind,
		       .room = QG_KMS_MSG_MAX + 1, .record = c->record, .body = malloc(QG_KMS_MSG_MAX + 1) };
	must(w.body != NULL, "memory");
	return w;
}

static void deliver(net_call *c, bool again)
{
	net_fault *f = fault_of_call(c);
	if (atomic_load(&f->down) || atomic_load(&c->from->cut) || !begin_receiving(c->to)) {
		if (!again)
			call_finish(c, QG_E_IO, 0, NULL, 0);
		return;
	}
	net_wire w = wire_of(c);
	memcpy(w.body, c->body, c->len);
	w.len = c->len;
	if (!again && atomic_load(&f->twice)) {
		net_event *second = event_new(c);
		second->again = true;
		event_queue(second);
	}
	if (count_down(&f->lose_requests) || !look_at(&w)) {
		end_receiving(c->to);
	} else {
		net_event *v = event_new(c);
		v->answer = true;
		v->again = again;
		atomic_fetch_add(&c->from->sent[c->kind], 1);
		qg_peers_receive(qg_core_peers(c->to->core), c->from->id, c->kind, w.body, w.len, answered, v);
	}
	free(w.body);
}

static void take_answer(net_event *v)
{
	net_call *c = v->call;
	net_fault *f = fault_of_call(c);
	record_answer(v);
	if (v->again)
		return; /* nobody waits for it */
	if (atomic_load(&c->to->cut) || atomic_load(&f->down)) {
		call_finish(c, QG_E_IO, 0, NULL, 0);
		return;
	}
	if (count_down(&f->lose_answers)) {
		call_finish(c, QG_E_TIMEOUT, 0, NULL, 0);
		return;
	}
	net_wire w = wire_of(c);
	memcpy(w.body, v->body, v->len);
	w.len = v->len;
	w.status = v->status;
	w.answer = true;
	if (look_at(&w))
		call_finish(c, QG_OK, w.status, w.body, w.len);
	else
		call_finish(c, QG_E_TIMEOUT, 0, NULL, 0);
	free(w.body);
}

/* A call beyond its time, with a reference. */
static net_call *overdue(const core_node *e, uint64_t now, uint64_t *next_ms)
{
	for (net_call *c = e->calls; c != NULL; c = c->next) {
		if (c->deadline_ms <= now) {
			atomic_fetch_add(&c->refs, 1);
			return c;
		}
		if (c->deadline_ms < *next_ms)
			*next_ms = c->deadline_ms;
	}
	return NULL;
}

static void wait_until(core_node *e, uint64_t ms)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	uint64_t now = net_ms(), left = ms > now ? ms - now : 0;
	uint64_t ns = (uint64_t)t.tv_nsec + (left < 1000 ? left : 1000) * UINT64_C(1000000);
	t.tv_sec += (time_t)(ns / UINT64_C(1000000000));
	t.tv_nsec = (long)(ns % UINT64_C(1000000000));
	pthread_cond_timedwait(&e->wake, &e->lock, &t);
}

static void work_event(core_node *e, net_event *v)
{
	pthread_mutex_unlock(&e->lock);
	if (v->answer)
		take_answer(v);
	else
		deliver(v->call, v->again);
	event_free(v);
	pthread_mutex_lock(&e->lock);
}

static void *worker_run(void *arg)
{
	core_node *e = arg;
	pthread_mutex_lock(&e->lock);
	while (!e->closing) {
		uint64_t now = net_ms(), next_ms = now + 1000;
		net_event *v = e->events;
		net_call *late = NULL;
		if (v != NULL && v->due_ms <= now) {
			e->events = v->next;
			work_event(e, v);
		} else if ((late = overdue(e, now, &next_ms)) != NULL) {
			pthread_mutex_unlock(&e->lock);
			call_finish(late, QG_E_TIMEOUT, 0, NULL, 0);
			call_put(late);
			pthread_mutex_lock(&e->lock);
		} else {
			wait_until(e, v != NULL && v->due_ms < next_ms ? v->due_ms : next_ms);
		}
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

static void channel_start(core_node *e)
{
	pthread_mutex_lock(&e->lock);
	e->closing = false;
	pthread_mutex_unlock(&e->lock);
	for (int i = 0; i < NET_WORKERS; i++)
		must(pthread_create(&e->worker[i], NULL, worker_run, e) == 0, "thread");
}

static void channel_stop(core_node *e)
{
	pthread_mutex_lock(&e->lock);
	e->closing = true;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
	for (int i = 0; i < NET_WORKERS; i++)
		pthread_join(e->worker[i], NULL);
	calls_fail(e, NULL, QG_E_CLOSED);
	while (e->events != NULL) {
		net_event *v = e->events;
		e->events = v->next;
		event_free(v);
	}
}

/* --- by hand --------------------------------------------------------------------------------- */

typedef struct hand_answer {
	net_answer *out;
	core_node *to;
	sem_t told;
} hand_answer;

static void hand_answered(void *ctx, int status, const char *body, size_t len)
{
	hand_answer *h = ctx;
	must(len <= sizeof h->out->body, "an answer is too long");
	h->out->status = status;
	h->out->len = len;
	if (len > 0)
		memcpy(h->out->body, body, len);
	end_receiving(h->to);
	sem_post(&h->told);
}

void net_inject(core_net *n, unsigned from, unsigned to, qg_kms_kind kind, const char *body, size_t len,
		net_answer *out)
{
	hand_answer h = { .out = out, .to = &n->node[to] };
	must(sem_init(&h.told, 0, 0) == 0 && begin_receiving(h.to), "nobody listens");
	qg_peers_receive(qg_core_peers(h.to->core), n->node[from].id, kind, body, len, hand_answered, &h);
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PAIR_WAIT_MS / 1000;
	int rc;
	while ((rc = sem_timedwait(&h.told, &end)) != 0 && errno == EINTR)
		;
	must(rc == 0, "a message is not answered");
	sem_destroy(&h.told);
}
