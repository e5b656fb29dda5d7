/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "multicast_internal.h"
#include "qkdgate/clock.h"

/* make_keys_external towards one home: each message under fresh node key, and
 * again under fresh node key when no answer came. */

#define POLL_MS 20   /* while node key is awaited */
#define AGAIN_MS 100 /* after a message without an answer */
#define REFUSALS 3   /* that end it */

void
qg_make_canonical(const void *message, qg_writer *w)
{
	qg_kms_make_canonical(message, w);
}

void
qg_make_answer_mac(const uint8_t key[QG_MAC_KEY_BYTES], const uint8_t request_mac[QG_MAC_BYTES],
		   const qg_kms_make_answer *a, uint8_t mac[QG_MAC_BYTES])
{
	uint8_t bytes[512];
	qg_writer w = qg_writer_of(bytes, sizeof bytes);
	qg_kms_make_answer_canonical(request_mac, a, &w);
	qg_masked_answer_mac(key, &w, mac);
}

/* --- the answer -------------------------------------------------------------------- */

static void
settle(qg_mc_part *p, bool disown)
{
	qg_masked_settle(p->link, &p->use, disown);
}

static bool
verifies(const qg_mc_part *p, const qg_kms_make_answer *a)
{
	uint8_t mac[QG_MAC_BYTES];
	qg_make_answer_mac(p->answer_key->data, p->m.masked.mac, a, mac);
	return qg_equal_ct(mac, a->mac, sizeof mac);
}

/* Has no MAC. A message that HTTP brought twice is refused the second time, and
 * only that answer may have come back. */
static void
refused(qg_mc_part *p)
{
	qg_relay_wrong(p->op->core, p->m.to, "it refuses what it should take");
	if (++p->refusals < REFUSALS)
		qg_mc_part_rest(p, qg_clock_elapsed_ms() + AGAIN_MS);
	else
		qg_mc_part_failed(p, "it refuses the message");
}

static void
answered(qg_mc_part *p, const qg_kms_make_answer *a)
{
	static const char *const why[] = {
		[QG_KMS_MAKE_UNKNOWN] = "it does not know a target, or its policy refuses one",
		[QG_KMS_MAKE_EXISTS] = "it knows one of the IDs already",
		[QG_KMS_MAKE_FULL] = "it has no room",
		[QG_KMS_MAKE_FAILED] = "the other network does not have it",
	};
	struct qg_core *core = p->op->core;
	if (a->result == QG_KMS_MAKE_NO_PAD) {
		qg_mc_part_rest(p, 0);
	} else if (a->result == QG_KMS_MAKE_REFUSED) {
		refused(p);
	} else if (!verifies(p, a)) {
		qg_relay_wrong(core, p->m.to, "its answer does not verify");
		qg_mc_part_failed(p, "its answer does not verify");
	} else {
		qg_relay_right(core, p->m.to);
		if (a->result == QG_KMS_MAKE_HELD)
			qg_mc_part_held(p, p->n);
		else if (a->result == QG_KMS_MAKE_PENDING)
			qg_mc_part_rest(p, 0);
		else
			qg_mc_part_failed(p, why[a->result]);
	}
}

static void
make_told(void *ctx, qg_err err, int http_status, const char *body, size_t len)
{
	qg_mc_part *p = ctx;
	qg_kms_make_answer a = {.result = QG_KMS_MAKE_REFUSED};
	const bool came = err == QG_OK && http_status == 200;
	const bool readable = came && qg_kms_make_answer_decode(body, len, &a) == QG_OK;
	settle(p, readable && a.result == QG_KMS_MAKE_NO_PAD);
	if (readable)
		answered(p, &a);
	else
		qg_mc_part_rest(p, qg_clock_elapsed_ms() + AGAIN_MS);
}

/* --- the message ------------------------------------------------------------------- */

/* Fills the message for n keys from the first one that is not held. */
static qg_err
seal(qg_mc_part *p, uint32_t n)
{
	const qg_mc *op = p->op;
	const size_t at = op->at[p->held];
	p->m.n_keys = p->n = n;
	for (uint32_t i = 0; i < n; i++)
		p->m.key[i] = (qg_kms_made_key){.id = op->ids[p->held + i], .size = op->size[p->held + i]};
	qg_secret_free(&p->answer_key);
	return qg_masked_seal(p->link, &p->m, &p->m.masked, qg_make_canonical, op->keys->data + at,
			      op->at[p->held + n] - at, NULL, &p->use, &p->answer_key);
}

/* Keys from the first one that is not held that so many bytes hold. */
static uint32_t
fitting(const qg_mc_part *p, uint64_t bytes)
{
	const qg_mc *op = p->op;
	uint32_t n = 0;
	while (p->held + n < op->number && n < p->most && op->at[p->held + n + 1] - op->at[p->held] <= bytes)
		n++;
	return n;
}

/* Keys for which there is pad at this moment. */
static uint32_t
affordable(const qg_mc_part *p)
{
	pthread_mutex_lock(&p->link->lock);
	const uint64_t bytes = qg_pads_open_bytes(p->link);
	pthread_mutex_unlock(&p->link->lock);
	return fitting(p, bytes);
}

static qg_err
seal_some(qg_mc_part *p)
{
	const uint32_t n = fitting(p, QG_KMS_DATA_MAX);
	qg_err err = seal(p, n);
	if (err == QG_E_EMPTY) {
		const uint32_t fewer = affordable(p);
		if (fewer > 0 && fewer < n)
			err = seal(p, fewer);
	} else if (err == QG_E_RANGE && n > 1) {
		p->most = n / 2; /* small segments: more ranges than a message names */
		err = QG_E_AGAIN;
	}
	return err;
}

/* Under the link's lock it is sure that the channel is there: it ends after
 * every stream was told to stop. */
static qg_err
hand_over(qg_mc_part *p, const char *text, size_t len, unsigned timeout_ms)
{
	qg_channel *ch = p->op->core->part.channel;
	pthread_mutex_lock(&p->link->lock);
	qg_err err = QG_E_CLOSED;
	if (!p->link->stopping)
		err = ch->ops->send(ch, p->m.to, QG_KMS_MAKE_KEYS_EXTERNAL, text, len, timeout_ms, make_told, p);
	pthread_mutex_unlock(&p->link->lock);
	return err;
}

/* Half of what is left, so that one that is lost can be sent again. */
static unsigned
patience_ms(const qg_mc_part *p, uint64_t now_ms)
{
	const uint64_t left_ms = p->op->deadline_ms > now_ms ? p->op->deadline_ms - now_ms : 0;
	const uint64_t half_ms = left_ms / 2 + 1, most_ms = p->op->core->part.cfg->kms_timeout_ms;
	return (unsigned)(half_ms < most_ms ? half_ms : most_ms);
}

static void
send_sealed(qg_mc_part *p, uint64_t now_ms)
{
	char *text = malloc(QG_KMS_MSG_MAX);
	size_t len = 0;
	qg_err err = text == NULL ? QG_E_NOMEM : qg_kms_make_encode(&p->m, text, QG_KMS_MSG_MAX, &len);
	if (err == QG_OK && !qg_mc_part_tells(p))
		err = QG_E_CLOSED;
	if (err == QG_OK)
		err = hand_over(p, text, len, patience_ms(p, now_ms));
	free(text);
	if (err == QG_OK)
		return; /* it may have been answered by now */
	settle(p, false);
	if (err == QG_E_NOMEM)
		qg_mc_part_rest(p, now_ms + AGAIN_MS);
	else
		qg_mc_part_failed(p, qg_err_text(err));
}

void
qg_mc_part_send(qg_mc_part *p)
{
	const uint64_t now_ms = qg_clock_elapsed_ms();
	if (p->peer != NULL) {
		qg_mc_peer_send(p);
		return;
	}
	p->link = qg_multicast_link(p->op->core, p->m.to, p->op->max_hops);
	qg_err err = p->link != NULL ? seal_some(p) : QG_E_NOTFOUND;
	if (err == QG_OK)
		send_sealed(p, now_ms);
	else if (err == QG_E_EMPTY || err == QG_E_NOMEM)
		qg_mc_part_rest(p, now_ms + POLL_MS);
	else if (err == QG_E_AGAIN)
		qg_mc_part_rest(p, 0);
	else
		qg_mc_part_failed(p, err == QG_E_NOTFOUND ? "no stream leads there" : qg_err_text(err));
}
