/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay_out_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* A forward_keys of the source: masked under fresh node key of the link to the
 * first hop, sent, and what its answer means. */

/* --- answers -------------------------------------------------------------------- */

/* The link from node `at` of the route to the next one has a fault. */
static void
failed(qg_relay_send *t, size_t at, qg_route_fault fault)
{
	qg_stream *st = t->stream;
	struct qg_core *core = st->core;
	uint64_t now_ms = qg_clock_elapsed_ms();
	/* A wrong answer marks its link only when there were several. */
	if (fault != QG_ROUTE_WRONG)
		qg_routes_fault(core->routes, t->route.node[at], t->route.node[at + 1], fault, now_ms);
	pthread_mutex_lock(&st->lock);
	if (qg_relay_out_landed(t, false))
		qg_relay_out_fault(t, at, fault, now_ms);
	qg_relay_send_free(t);
	pthread_mutex_unlock(&st->lock);
	qg_conductor_kick(core);
}

/* A hop says that the far end says so, which a hop that lies can. The far end
 * itself is asked: if it is true, its epoch has ended, and it tells. */
static void
doubt(qg_relay_send *t)
{
	qg_routes_suspect(t->stream->core->routes, &t->route, qg_clock_elapsed_ms());
	qg_relay_out_ask(t->stream);
}

static void
at_far_end(qg_relay_send *t, qg_kms_forward_result result)
{
	qg_stream *st = t->stream;
	bool delivered = result == QG_KMS_FORWARD_DELIVERED;
	if (delivered) {
		QG_RELAY_COUNT(st->core, delivered, 1);
		qg_routes_worked(st->core->routes, &t->route);
	}
	pthread_mutex_lock(&st->lock);
	bool current = qg_relay_out_landed(t, delivered);
	if (current && result == QG_KMS_FORWARD_FULL)
		qg_relay_out_full(st, qg_clock_elapsed_ms());
	else if (current && result == QG_KMS_FORWARD_UNKNOWN)
		qg_relay_out_ask(st);
	else if (current && result == QG_KMS_FORWARD_MISMATCH)
		doubt(t);
	qg_relay_send_free(t);
	pthread_mutex_unlock(&st->lock);
	qg_conductor_kick(st->core);
}

static void
wrong(qg_relay_send *t, const char *why)
{
	qg_relay_wrong(t->stream->core, t->route.node[1], why);
	failed(t, 0, QG_ROUTE_WRONG);
}

/* Index in the route of the node that says so; 0: none that may. */
static size_t
said_at(const qg_relay_send *t, const char *at)
{
	for (size_t i = 1; i < t->route.n; i++)
		if (strcmp(t->route.node[i], at) == 0)
			return i;
	return 0;
}

static bool
verifies(const qg_relay_send *t, const qg_kms_forward_answer *a)
{
	uint8_t mac[QG_MAC_BYTES];
	qg_masked_forward_mac(t->answer_key->data, t->tag, a, mac);
	return qg_equal_ct(mac, a->mac, sizeof mac);
}

/* Results that name the link behind the node that says so, and those that only
 * the far end can give. */
static void
judge(qg_relay_send *t, const qg_kms_forward_answer *a)
{
	static const struct {
		bool on_the_way;
		qg_route_fault fault;
	} ways[] = {
		[QG_KMS_FORWARD_DELIVERED] = {false, 0},
		[QG_KMS_FORWARD_DOWN] = {true, QG_ROUTE_DOWN},
		[QG_KMS_FORWARD_STARVING] = {true, QG_ROUTE_STARVING},
		[QG_KMS_FORWARD_BUSY] = {true, QG_ROUTE_BUSY},
		[QG_KMS_FORWARD_FULL] = {false, 0},
		[QG_KMS_FORWARD_UNKNOWN] = {false, 0},
		[QG_KMS_FORWARD_MISMATCH] = {false, 0},
	};
	size_t at = said_at(t, a->at);
	bool last = at + 1 == t->route.n;
	if (at == 0 || ways[a->result].on_the_way == last) {
		wrong(t, "its answer comes from a node that cannot say so");
		return;
	}
	qg_relay_right(t->stream->core, t->route.node[1]);
	if (last)
		at_far_end(t, a->result);
	else
		failed(t, at, ways[a->result].fault);
}

static void
relay_answered(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_relay_send *t = ctx;
	qg_kms_forward_answer a = {.result = QG_KMS_FORWARD_DOWN};
	bool answered = err == QG_OK && http_status == 200;
	bool readable = answered && qg_kms_forward_answer_decode(body, len, &a) == QG_OK;
	qg_masked_settle(t->link, &t->use, readable && qg_masked_disowned(a.result));
	if (!answered)
		failed(t, 0, QG_ROUTE_DOWN);
	else if (!readable)
		wrong(t, "its answer cannot be read");
	else if (a.result == QG_KMS_FORWARD_NO_PAD)
		failed(t, 0, QG_ROUTE_STARVING);
	else if (a.result == QG_KMS_FORWARD_REFUSED)
		wrong(t, "it refuses what it should take");
	else if (!verifies(t, &a))
		wrong(t, "its answer does not verify");
	else
		judge(t, &a);
}

/* Nothing open to mask with. */
static void
starving(qg_relay_send *t)
{
	qg_stream *st = t->stream;
	bool soon = false;
	pthread_mutex_lock(&t->link->lock);
	bool more = qg_pads_ready_bytes(t->link) > qg_pads_open_bytes(t->link);
	pthread_mutex_unlock(&t->link->lock);
	pthread_mutex_lock(&st->lock);
	if (more && qg_relay_out_opening(st, qg_clock_elapsed_ms())) {
		(void)qg_relay_out_landed(t, false);
		qg_relay_send_free(t);
		soon = true;
	}
	pthread_mutex_unlock(&st->lock);
	if (!soon)
		failed(t, 0, QG_ROUTE_STARVING);
}

/* It takes key of more segments than a message names. */
static void
too_large(qg_relay_send *t)
{
	qg_stream *st = t->stream;
	if (t->count == 1) {
		failed(t, 0, QG_ROUTE_STARVING);
		return;
	}
	pthread_mutex_lock(&st->lock);
	(void)qg_relay_out_landed(t, false);
	qg_relay_out_smaller(t);
	qg_relay_send_free(t);
	pthread_mutex_unlock(&st->lock);
}

/* --- sending ------------------------------------------------------------------------ */

/* As many chunks as the node key that is open masks, but at least one. */
static void
fit_link(qg_relay_send *t)
{
	uint32_t cs = t->epoch->chunk_size;
	pthread_mutex_lock(&t->link->lock);
	uint64_t open = qg_pads_open_bytes(t->link);
	pthread_mutex_unlock(&t->link->lock);
	uint64_t n = open / cs;
	if (n >= t->count)
		return;
	pthread_mutex_lock(&t->stream->lock);
	qg_relay_out_shorten(t, n > 0 ? (uint32_t)n : 1);
	pthread_mutex_unlock(&t->stream->lock);
}

static void
fill_message(const qg_relay_send *t, qg_kms_forward *m)
{
	m->segment = t->seg->number;
	m->first = t->first;
	m->count = t->count;
	m->chunk_size = t->epoch->chunk_size;
	m->share = (uint8_t)t->share;
	m->shares = (uint8_t)t->shares;
	m->n_path = t->route.n;
	m->timeout_ms = t->stream->core->part.cfg->relay_timeout_ms;
	memcpy(m->epoch, t->epoch->id, sizeof m->epoch);
	strncpy(m->stream, t->stream->cfg->name, sizeof m->stream - 1);
	for (size_t i = 0; i < t->route.n; i++)
		strncpy(m->path[i], t->route.node[i], sizeof m->path[i] - 1);
}

static qg_err
seal(qg_relay_send *t, qg_kms_forward *m)
{
	fill_message(t, m);
	qg_err err = qg_masked_seal(t->link, m, &m->masked, qg_masked_forward_canonical, t->plain->data,
				    t->plain->len, NULL, &t->use, &t->answer_key);
	qg_secret_free(&t->plain);
	if (err == QG_OK)
		memcpy(t->tag, m->masked.mac, sizeof t->tag);
	return err;
}

static qg_err
send_sealed(qg_relay_send *t, const qg_kms_forward *m, char *text)
{
	size_t len = 0;
	qg_channel *ch = t->stream->core->part.channel;
	qg_err err = qg_kms_forward_encode(m, text, QG_KMS_FORWARD_MAX, &len);
	if (err == QG_OK)
		err = ch->ops->send(ch, t->route.node[1], QG_KMS_FORWARD_KEYS, text, len, m->timeout_ms,
				    relay_answered, t);
	return err;
}

void
qg_relay_send_go(qg_relay_send *t)
{
	struct qg_core *core = t->stream->core;
	qg_kms_forward *m = calloc(1, sizeof *m);
	char *text = malloc(QG_KMS_FORWARD_MAX);
	qg_err err = m == NULL || text == NULL ? QG_E_NOMEM : QG_OK;
	t->link = qg_masked_link(core, t->route.node[1], false);
	if (err == QG_OK && t->link == NULL)
		err = QG_E_NOTFOUND;
	if (err == QG_OK) {
		fit_link(t);
		err = seal(t, m);
	}
	if (err == QG_OK) {
		QG_RELAY_COUNT(core, sent, 1);
		err = send_sealed(t, m, text);
		if (err != QG_OK)
			qg_masked_settle(t->link, &t->use, false);
	}
	if (err == QG_E_EMPTY)
		starving(t);
	else if (err == QG_E_RANGE)
		too_large(t);
	else if (err != QG_OK)
		failed(t, 0, QG_ROUTE_DOWN);
	free(text);
	free(m);
}
