/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "multicast_internal.h"
#include "qkdgate/clock.h"
#include "transfer_internal.h"

/* ext_keys towards a peer: what it accepted is awaited from its acks
 * (interop_acks.c), what got no answer is sent again as it was, under fresh node
 * key where the link has some. */

#define POLL_MS 20             /* while node key is awaited */
#define AGAIN_MS UINT64_C(200) /* after a request of unknown outcome */
#define AGAIN_DOUBLES 4

typedef struct sending {
	qg_mc_part *p;
	uint32_t first, n;
	qg_stream *link; /* whose node key masks the values, or NULL */
	qg_pad_use use;
	qg_interop_mask mask;
	qg_secret *values;
	const char *targets[QG_KMS_SAES_MAX];
	qg_interop_keys m;
	qg_interop_key key[];
} sending;

/* disown: the peer has not the node key that masked it (after a crash there). */
static void
sending_free(sending *s, bool disown)
{
	if (s->link != NULL)
		qg_masked_settle(s->link, &s->use, disown);
	qg_secret_free(&s->values);
	free(s);
}

/* --- the answer ---------------------------------------------------------------------- */

/* Which of the request's keys that is; its number in the message at first. */
static bool
find_id(const qg_mc *op, const qg_uuid *id, uint32_t *at)
{
	for (uint32_t i = 0; i < op->number; i++, *at = (*at + 1) % op->number)
		if (qg_uuid_equal(&op->ids[*at], id))
			return true;
	return false;
}

static bool
take_ack(qg_mc_part *p, const qg_interop_ack *ack, uint32_t at)
{
	if (ack->status != QG_INTEROP_RELAYED || ack->n_ids > QG_INTEROP_KEYS_MAX)
		return false;
	uint32_t got[QG_INTEROP_KEYS_MAX];
	size_t n = 0;
	for (size_t i = 0; i < ack->n_ids; i++)
		if (find_id(p->op, &ack->ids[i], &at))
			got[n++] = at;
	qg_mc_part_got(p, got, n);
	return true;
}

static void
take_acks(qg_mc_part *p, const qg_interop_sent *sent, uint32_t first, uint32_t n)
{
	bool all = true;
	for (size_t i = 0; i < sent->n_acks; i++)
		all &= take_ack(p, &sent->ack[i], first);
	p->taken = first + n;
	if (all)
		qg_mc_part_rest(p, 0);
	else
		qg_mc_part_failed(p, "the other network has not relayed them");
}

static void
told(void *ctx, const qg_interop_sent *sent)
{
	sending *s = ctx;
	qg_mc_part *p = s->p;
	const uint32_t first = s->first, n = s->n;
	sending_free(s, sent->no_key);
	switch (sent->outcome) {
	case QG_INTEROP_OUT_ACCEPTED:
		p->taken = first + n;
		qg_mc_part_rest(p, 0);
		break;
	case QG_INTEROP_OUT_ACKS:
		take_acks(p, sent, first, n);
		break;
	case QG_INTEROP_OUT_REFUSED:
		qg_mc_part_refused(p, sent->why);
		break;
	case QG_INTEROP_OUT_UNKNOWN:
		qg_mc_part_rest(p, qg_clock_elapsed_ms() + (AGAIN_MS << p->refusals));
		break;
	}
}

/* --- the request ----------------------------------------------------------------------- */

static uint32_t
how_many(const qg_mc_part *p)
{
	const qg_mc *op = p->op;
	const bool masked = p->peer->stream != NULL;
	const uint32_t first = p->taken;
	uint32_t most = p->most;
	if (masked && most > QG_IX_MASKED_KEYS)
		most = QG_IX_MASKED_KEYS;
	uint32_t n = 0;
	while (first + n < op->number && n < most &&
	       (!masked || op->at[first + n + 1] - op->at[first] <= QG_KMS_DATA_MAX))
		n++;
	return n;
}

static void
fill(sending *s)
{
	const qg_mc_part *p = s->p;
	const qg_mc *op = p->op;
	const uint64_t now_ms = qg_clock_elapsed_ms();
	for (size_t i = 0; i < p->m.targets.n; i++)
		s->targets[i] = p->m.targets.id[i];
	for (uint32_t i = 0; i < s->n; i++) {
		const qg_transfer *x = op->x[s->first + i];
		s->key[i] = (qg_interop_key){.id = op->ids[s->first + i],
					     .value = s->values->data + op->at[s->first + i] - op->at[s->first],
					     .size_bytes = op->size[s->first + i],
					     .extension = x->extension};
	}
	s->m = (qg_interop_keys){
		.saes = {.initiator = p->m.initiator, .targets = s->targets, .n_targets = p->m.targets.n},
		.key = s->key,
		.n_keys = s->n,
		.optional = op->x[s->first]->optional,
		.wait_ms = op->deadline_ms > now_ms ? (unsigned)(op->deadline_ms - now_ms) : 1};
}

static qg_err
sending_new(qg_mc_part *p, sending **out)
{
	const qg_mc *op = p->op;
	const uint32_t first = p->taken, n = how_many(p);
	sending *s = calloc(1, sizeof *s + n * sizeof s->key[0]);
	if (s == NULL)
		return QG_E_NOMEM;
	s->p = p;
	s->first = first;
	s->n = n;
	const size_t len = op->at[first + n] - op->at[first];
	qg_err err = qg_secret_new(len, &s->values);
	if (err == QG_OK)
		err = qg_secret_append(s->values, op->keys->data + op->at[first], len);
	if (err == QG_OK)
		fill(s);
	if (err == QG_OK && p->peer->stream != NULL) {
		qg_stream *link = NULL;
		err = qg_ix_mask(op->core, p->peer, &s->m, s->values->data, len, &s->mask, &link, &s->use);
		s->link = err == QG_OK ? link : NULL;
	}
	if (err != QG_OK) {
		sending_free(s, false);
		return err;
	}
	*out = s;
	return QG_OK;
}

void
qg_mc_peer_send(qg_mc_part *p)
{
	qg_interop_way *way = p->op->core->part.way;
	sending *s = NULL;
	qg_err err = way == NULL ? QG_E_CLOSED : sending_new(p, &s);
	if (err == QG_OK && !qg_mc_part_tells(p))
		err = QG_E_CLOSED;
	if (err == QG_OK) {
		if (p->refusals < AGAIN_DOUBLES)
			p->refusals++;
		err = way->ops->send_keys(way, p->peer->id, &s->m, told, s);
	}
	if (err == QG_OK)
		return; /* it may have been answered by now */
	if (s != NULL)
		sending_free(s, false);
	if (err == QG_E_EMPTY || err == QG_E_NOMEM)
		qg_mc_part_rest(p, qg_clock_elapsed_ms() + POLL_MS);
	else
		qg_mc_part_failed(p, qg_err_text(err));
}
