/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "relay_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* forward_keys as a hop (SOUNDNESS 16, 17): judged, unmasked and masked in one
 * step, passed on, and answered when the hop behind has answered. The message
 * is all there is of it here, for as long as it is under way. */

#define HOP_MARGIN_MS 100 /* that each hop keeps of the time allowed */
#define OPEN_TRIES 4      /* while node key is being opened */

typedef struct forward_in {
	qg_waiter waiter; /* first member */
	struct qg_core *core;
	const char *neighbour; /* the configuration's */
	qg_peer_answer *answer;
	void *ctx;
	uint64_t came_ms;
	uint32_t allowed_ms;       /* for the rest of the way */
	unsigned tries;            /* at node key being opened, theirs and then ours */
	uint8_t tag[QG_MAC_BYTES]; /* of the message as it came */
	qg_secret *keys;           /* the answer's key, then the pad of the data */
	qg_kms_forward m;          /* as it came, then as it goes on */
	/* towards the next hop */
	qg_stream *link;
	qg_pad_use use;
	qg_secret *next_key;       /* of its answer's MAC */
} forward_in;

static void
forward_free(forward_in *in)
{
	qg_secret_free(&in->keys);
	qg_secret_free(&in->next_key);
	qg_wipe(&in->m.masked, sizeof in->m.masked);
	free(in);
}

static const char *
own_id(const forward_in *in)
{
	return in->core->part.cfg->kme_id;
}

/* --- answering: the end of every message ------------------------------------------ */

static void
finish_status(forward_in *in, int http_status)
{
	in->answer(in->ctx, http_status, NULL, 0);
	forward_free(in);
}

static bool
has_mac(qg_kms_forward_result result)
{
	return result != QG_KMS_FORWARD_REFUSED && result != QG_KMS_FORWARD_NO_PAD;
}

static void
finish_at(forward_in *in, qg_kms_forward_result result, const char *at)
{
	qg_kms_forward_answer a = {.result = result};
	char text[1024];
	size_t len = 0;
	strncpy(a.at, at, sizeof a.at - 1);
	if (has_mac(result))
		qg_masked_forward_mac(in->keys->data, in->tag, &a, a.mac);
	if (qg_kms_forward_answer_encode(&a, text, sizeof text, &len) == QG_OK)
		in->answer(in->ctx, 200, text, len);
	else
		in->answer(in->ctx, 500, NULL, 0);
	forward_free(in);
}

static void
finish(forward_in *in, qg_kms_forward_result result)
{
	finish_at(in, result, own_id(in));
}

/* --- the hop behind ------------------------------------------------------------------ */

static const char *
next_hop(const forward_in *in)
{
	return in->m.path[in->m.hop + 1]; /* once hop is ours */
}

/* The hop behind is not to blame for a time that the source made too short. */
static bool
had_time(const forward_in *in)
{
	return in->m.timeout_ms >= in->core->part.cfg->relay_timeout_ms / 2;
}

static void
next_failed(forward_in *in, qg_err err)
{
	/* Closed: it is this gateway that ends. */
	if (err != QG_E_CLOSED && (err != QG_E_TIMEOUT || had_time(in)))
		qg_routes_fault(in->core->routes, own_id(in), next_hop(in), QG_ROUTE_DOWN,
				qg_clock_elapsed_ms());
	finish(in, QG_KMS_FORWARD_DOWN);
}

/* Whether a node behind us says so. */
static bool
says_one_behind(const forward_in *in, const char *at)
{
	for (size_t i = in->m.hop + 1u; i < in->m.n_path; i++)
		if (strcmp(in->m.path[i], at) == 0)
			return true;
	return false;
}

static bool
answer_verifies(const forward_in *in, const qg_kms_forward_answer *a)
{
	uint8_t mac[QG_MAC_BYTES];
	qg_masked_forward_mac(in->next_key->data, in->m.masked.mac, a, mac);
	return qg_equal_ct(mac, a->mac, sizeof mac) && says_one_behind(in, a->at);
}

static void
next_answered(forward_in *in, const qg_kms_forward_answer *a)
{
	const char *why = a->result == QG_KMS_FORWARD_REFUSED ? "it refuses what it should take"
							      : "its answer does not verify";
	if (a->result == QG_KMS_FORWARD_NO_PAD) {
		finish(in, QG_KMS_FORWARD_STARVING);
	} else if (a->result == QG_KMS_FORWARD_REFUSED || !answer_verifies(in, a)) {
		qg_relay_wrong(in->core, next_hop(in), why);
		finish(in, QG_KMS_FORWARD_DOWN);
	} else {
		qg_relay_right(in->core, next_hop(in));
		if (a->result == QG_KMS_FORWARD_DELIVERED) {
			QG_RELAY_COUNT(in->core, forwarded, 1);
			QG_RELAY_COUNT(in->core, forwarded_bytes, in->m.masked.data_len);
		}
		finish_at(in, a->result, a->at);
	}
}

static void
forward_done(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	forward_in *in = ctx;
	qg_kms_forward_answer a = {.result = QG_KMS_FORWARD_DOWN};
	bool answered = err == QG_OK && http_status == 200;
	bool readable = answered && qg_kms_forward_answer_decode(body, len, &a) == QG_OK;
	qg_masked_settle(in->link, &in->use, readable && qg_masked_disowned(a.result));
	if (readable) {
		next_answered(in, &a);
	} else if (answered) {
		qg_relay_wrong(in->core, next_hop(in), "its answer cannot be read");
		finish(in, QG_KMS_FORWARD_DOWN);
	} else {
		next_failed(in, err);
	}
}

/* Under the link's lock it is sure that the channel is there: it ends after
 * every stream was told to stop. */
static qg_err
forward_send(forward_in *in, const char *text, size_t len)
{
	qg_channel *ch = in->core->part.channel;
	pthread_mutex_lock(&in->link->lock);
	qg_err err = QG_E_CLOSED;
	if (!in->link->stopping)
		err = ch->ops->send(ch, next_hop(in), QG_KMS_FORWARD_KEYS, text, len, in->m.timeout_ms,
				    forward_done, in);
	pthread_mutex_unlock(&in->link->lock);
	return err;
}

/* Relaying for others leaves this node its own part of the node key. */
static qg_kms_forward_result
judge_link(const forward_in *in, size_t need)
{
	const qg_config_stream *cfg = in->link->cfg;
	uint64_t own = (uint64_t)cfg->node_chunks * cfg->chunk_size * in->core->part.cfg->relay_own_percent / 100;
	pthread_mutex_lock(&in->link->lock);
	uint64_t ready = qg_pads_ready_bytes(in->link);
	pthread_mutex_unlock(&in->link->lock);
	if (ready < need)
		return QG_KMS_FORWARD_STARVING;
	return ready - need < own ? QG_KMS_FORWARD_BUSY : QG_KMS_FORWARD_DELIVERED;
}

/* The time that is left for the rest of the way; 0: none. */
static uint32_t
time_left_ms(const forward_in *in)
{
	uint64_t spent = qg_clock_elapsed_ms() - in->came_ms + HOP_MARGIN_MS;
	return spent < in->allowed_ms ? (uint32_t)(in->allowed_ms - spent) : 0;
}

/* QG_E_AGAIN: it is gone from here. */
static qg_err
mask_again(forward_in *in)
{
	in->m.timeout_ms = time_left_ms(in);
	if (in->m.timeout_ms == 0)
		return QG_E_TIMEOUT;
	bool wait = ++in->tries < OPEN_TRIES;
	qg_err err = qg_masked_seal_or_wait(in->link, &in->m, &in->m.masked, qg_masked_forward_canonical,
					    in->m.masked.data, in->m.masked.data_len,
					    in->keys->data + QG_MAC_KEY_BYTES, &in->use, &in->next_key,
					    wait ? &in->waiter : NULL);
	if (err != QG_OK)
		return err;
	/* What is left is the answer's key. */
	qg_wipe(in->keys->data + QG_MAC_KEY_BYTES, in->keys->len - QG_MAC_KEY_BYTES);
	in->keys->len = QG_MAC_KEY_BYTES;
	return QG_OK;
}

static void
mask_and_send(forward_in *in)
{
	qg_err err = mask_again(in);
	if (err == QG_E_AGAIN)
		return;
	if (err != QG_OK) {
		bool busy = err == QG_E_TIMEOUT, dry = err == QG_E_EMPTY || err == QG_E_RANGE;
		finish(in, busy ? QG_KMS_FORWARD_BUSY : dry ? QG_KMS_FORWARD_STARVING : QG_KMS_FORWARD_DOWN);
		return;
	}
	char *text = malloc(QG_KMS_FORWARD_MAX);
	size_t len = 0;
	err = text == NULL ? QG_E_NOMEM : qg_kms_forward_encode(&in->m, text, QG_KMS_FORWARD_MAX, &len);
	if (err == QG_OK)
		err = forward_send(in, text, len);
	free(text);
	if (err != QG_OK) {
		qg_masked_settle(in->link, &in->use, false);
		next_failed(in, QG_E_CLOSED);
	}
}

static void
mask_later(qg_waiter *w, qg_err err)
{
	forward_in *in = (forward_in *)w;
	if (err == QG_OK)
		mask_and_send(in);
	else
		finish(in, err == QG_E_CLOSED ? QG_KMS_FORWARD_DOWN : QG_KMS_FORWARD_STARVING);
}

/* Whether a link is in the topology, or at least one of our own. */
static bool
known_link(const forward_in *in, const char *peer)
{
	if (qg_routes_has_link(in->core->routes, own_id(in), peer))
		return true;
	for (size_t i = 0; i < in->core->n_streams; i++) {
		const qg_stream *st = &in->core->stream[i];
		if (!st->cfg->relayed && strcmp(st->neighbour->id, peer) == 0)
			return true;
	}
	return false;
}

/* The way is the source's choice, and not the fault of the hop before: it gets
 * an answer that verifies, or sources could have good neighbours isolated. */
static void
leads_nowhere(forward_in *in)
{
	qg_relay_refused(in->core, in->neighbour, in->m.stream, "the next hop is no neighbour of this gateway");
	finish(in, QG_KMS_FORWARD_DOWN);
}

static void
pass_on(forward_in *in)
{
	size_t n = in->m.masked.data_len;
	in->m.hop++;
	in->tries = 0;
	in->waiter.again = mask_later;
	qg_kms_forward_result result = QG_KMS_FORWARD_BUSY;
	in->link = known_link(in, next_hop(in)) ? qg_masked_link(in->core, next_hop(in), false) : NULL;
	if (in->link == NULL) {
		leads_nowhere(in);
		return;
	}
	if (qg_relay_quota(in->core, in->neighbour, in->m.path[0], in->m.stream, n))
		result = judge_link(in, n);
	if (result == QG_KMS_FORWARD_DELIVERED)
		mask_and_send(in);
	else
		finish(in, result);
}

/* --- what came ------------------------------------------------------------------------- */

static void
take(forward_in *in)
{
	uint8_t *pad = in->keys->data + QG_MAC_KEY_BYTES;
	for (size_t i = 0; i < in->m.masked.data_len; i++)
		pad[i] ^= in->m.masked.data[i];
	qg_kms_forward_result result = qg_relay_take(in->core, &in->m, in->keys, QG_MAC_KEY_BYTES);
	finish(in, result);
}

static void
open_message(forward_in *in)
{
	qg_err err = qg_masked_open(in->core, in->neighbour, &in->m, &in->m.masked, qg_masked_forward_canonical,
				    &in->waiter, &in->keys);
	if (err == QG_E_AGAIN)
		return; /* it may be gone by now */
	if (err == QG_E_NOTFOUND)
		finish(in, QG_KMS_FORWARD_NO_PAD);
	else if (err == QG_E_AUTH || err == QG_E_CONSUMED || err == QG_E_INVAL)
		finish(in, QG_KMS_FORWARD_REFUSED);
	else if (err != QG_OK)
		finish_status(in, 503);
	else if (in->m.hop + 2u == in->m.n_path)
		take(in);
	else
		pass_on(in);
}

static void
open_again(qg_waiter *w, qg_err err)
{
	forward_in *in = (forward_in *)w;
	if (err != QG_OK || ++in->tries >= OPEN_TRIES)
		finish_status(in, 503);
	else
		open_message(in);
}

/* The path is a claim of the sender's: what of it concerns this node is checked
 * before anything is consumed (SOUNDNESS 17). That no node is in it twice, the
 * decoder has checked. */
static const char *
why_misdirected(const forward_in *in)
{
	const qg_kms_forward *m = &in->m;
	const qg_stream *link = qg_stream_find(in->core, in->neighbour, m->masked.link);
	if (strcmp(m->path[m->hop], in->neighbour) != 0)
		return "the hop before is another one than the sender";
	if (strcmp(m->path[m->hop + 1], own_id(in)) != 0)
		return "the hop is another one than this gateway";
	if (link == NULL || link->cfg->relayed)
		return "it is not masked with key of a link";
	if (!known_link(in, in->neighbour))
		return "the hop before is no neighbour in the topology";
	return NULL;
}

static const char *
configured_name(struct qg_core *core, const char *neighbour)
{
	const qg_config *cfg = core->part.cfg;
	for (size_t i = 0; i < cfg->n_neighbours; i++)
		if (strcmp(cfg->neighbours[i].id, neighbour) == 0)
			return cfg->neighbours[i].id;
	return NULL;
}

void
qg_forward_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		   qg_peer_answer *answer, void *ctx)
{
	forward_in *in = calloc(1, sizeof *in);
	const char *name = configured_name(core, neighbour);
	if (in == NULL || name == NULL) {
		free(in);
		answer(ctx, 503, NULL, 0);
		return;
	}
	in->waiter.again = open_again;
	in->core = core;
	in->neighbour = name;
	in->answer = answer;
	in->ctx = ctx;
	in->came_ms = qg_clock_elapsed_ms();
	if (qg_kms_forward_decode(body, len, &in->m) != QG_OK) {
		qg_relay_refused(core, name, "", "a malformed message");
		finish_status(in, 400);
		return;
	}
	uint32_t most = core->part.cfg->relay_timeout_ms;
	in->allowed_ms = in->m.timeout_ms < most ? in->m.timeout_ms : most;
	memcpy(in->tag, in->m.masked.mac, sizeof in->tag);
	const char *why = why_misdirected(in);
	if (why != NULL) {
		qg_relay_refused(core, name, in->m.stream, why);
		finish(in, QG_KMS_FORWARD_REFUSED);
		return;
	}
	open_message(in);
}
