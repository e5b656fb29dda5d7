/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "relay_internal.h"

/* One-time pads and one-time MACs of the messages that carry key (SOUNDNESS 6,
 * 16). Of the node key taken for a message, in order: the key of its MAC, the
 * key of its answer's MAC, both of MAC segments, and the pad, of pad segments. */

#define ANSWER_KEY_AT QG_MAC_KEY_BYTES
#define PAD_AT QG_KMS_MAC_OVERHEAD

/* --- the link ------------------------------------------------------------------ */

static bool
sends_to(const qg_stream *st, const char *neighbour, bool virtual_too)
{
	return st->cfg->direction != QG_DIRECTION_INBOUND && (virtual_too || !st->cfg->relayed) &&
	       strcmp(st->neighbour->id, neighbour) == 0;
}

qg_stream *
qg_masked_link(struct qg_core *core, const char *neighbour, bool virtual_too)
{
	qg_stream *best = NULL;
	uint64_t best_open = 0, best_ready = 0;
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		if (!sends_to(st, neighbour, virtual_too))
			continue;
		pthread_mutex_lock(&st->lock);
		uint64_t open = qg_pads_open_bytes(st), ready = qg_pads_ready_bytes(st);
		pthread_mutex_unlock(&st->lock);
		if (best != NULL && (open < best_open || (open == best_open && ready <= best_ready)))
			continue;
		best = st;
		best_open = open;
		best_ready = ready;
	}
	return best;
}

/* --- MACs ------------------------------------------------------------------------ */

static qg_err
message_mac(const uint8_t key[QG_MAC_KEY_BYTES], const void *message, qg_masked_canonical *canonical,
	    const qg_kms_masked *masked, uint8_t mac[QG_MAC_BYTES])
{
	uint8_t bytes[QG_KMS_MASKED_CANONICAL_MAX];
	qg_writer w = qg_writer_of(bytes, sizeof bytes);
	canonical(message, &w);
	if (w.bad)
		return QG_E_RANGE;
	crypto_onetimeauth_state st;
	crypto_onetimeauth_init(&st, key);
	crypto_onetimeauth_update(&st, bytes, w.len);
	crypto_onetimeauth_update(&st, masked->data, masked->data_len);
	crypto_onetimeauth_final(&st, mac);
	qg_wipe(&st, sizeof st);
	qg_wipe_stack();
	return QG_OK;
}

void
qg_masked_forward_canonical(const void *message, qg_writer *w)
{
	qg_kms_forward_canonical(message, w);
}

void
qg_masked_answer_mac(const uint8_t key[QG_MAC_KEY_BYTES], const qg_writer *canonical, uint8_t mac[QG_MAC_BYTES])
{
	assert(!canonical->bad);
	crypto_onetimeauth(mac, canonical->buf, canonical->len, key);
	qg_wipe_stack();
}

void
qg_masked_forward_mac(const uint8_t key[QG_MAC_KEY_BYTES], const uint8_t request_mac[QG_MAC_BYTES],
		      const qg_kms_forward_answer *a, uint8_t mac[QG_MAC_BYTES])
{
	uint8_t bytes[512];
	qg_writer w = qg_writer_of(bytes, sizeof bytes);
	qg_kms_forward_answer_canonical(request_mac, a, &w);
	qg_masked_answer_mac(key, &w, mac);
}

/* --- sealing --------------------------------------------------------------------- */

/* One XOR per byte of both pads and then of the data: what is unmasked never
 * stands anywhere, not even where data and the result are the same memory. */
static void
mask(uint8_t *out, const uint8_t *data, const uint8_t *pad, const uint8_t *unmask, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint8_t both = unmask != NULL ? (uint8_t)(pad[i] ^ unmask[i]) : pad[i];
		out[i] = (uint8_t)(data[i] ^ both);
	}
}

static qg_err
take_pad(qg_stream *link, size_t data_len, qg_pad_use *use, qg_secret **out, qg_waiter *w)
{
	pthread_mutex_lock(&link->lock);
	qg_err err = link->stopping ? QG_E_CLOSED : qg_pads_take(link, data_len, use, out, NULL);
	if (err == QG_E_EMPTY && w != NULL && qg_pads_wait(link, w) == QG_OK)
		err = QG_E_AGAIN;
	pthread_mutex_unlock(&link->lock);
	return err;
}

void
qg_masked_settle(qg_stream *link, const qg_pad_use *use, bool disown)
{
	pthread_mutex_lock(&link->lock);
	if (disown)
		qg_pads_disown(link, use); /* settles, too */
	else
		qg_pads_settle(link, use);
	pthread_mutex_unlock(&link->lock);
}

bool
qg_masked_disowned(qg_kms_forward_result result)
{
	return result == QG_KMS_FORWARD_NO_PAD || result == QG_KMS_FORWARD_REFUSED;
}

qg_err
qg_masked_seal(qg_stream *link, void *message, qg_kms_masked *masked, qg_masked_canonical *canonical,
	       const uint8_t *data, size_t data_len, const uint8_t *unmask, qg_pad_use *use,
	       qg_secret **answer_key)
{
	return qg_masked_seal_or_wait(link, message, masked, canonical, data, data_len, unmask, use, answer_key,
				      NULL);
}

qg_err
qg_masked_seal_or_wait(qg_stream *link, void *message, qg_kms_masked *masked, qg_masked_canonical *canonical,
		       const uint8_t *data, size_t data_len, const uint8_t *unmask, qg_pad_use *use,
		       qg_secret **answer_key, qg_waiter *w)
{
	if (data_len == 0 || data_len > QG_KMS_DATA_MAX)
		return QG_E_INVAL;
	QG_SECRET_AUTO *pad = NULL;
	QG_SECRET_AUTO *key = NULL;
	qg_err err = qg_secret_new(QG_MAC_KEY_BYTES, &key);
	if (err == QG_OK)
		err = take_pad(link, data_len, use, &pad, w);
	if (err != QG_OK)
		return err;
	int n = snprintf(masked->link, sizeof masked->link, "%s", link->cfg->name);
	assert(n > 0 && (size_t)n < sizeof masked->link);
	masked->n_pads = use->n;
	memcpy(masked->pad, use->pad, sizeof masked->pad);
	masked->oldest_mac = use->oldest_mac;
	masked->oldest_pad = use->oldest_pad;
	masked->opened_pad = use->opened_pad;
	masked->data_len = data_len;
	mask(masked->data, data, pad->data + PAD_AT, unmask, data_len);
	err = message_mac(pad->data, message, canonical, masked, masked->mac);
	if (err == QG_OK)
		err = qg_secret_append(key, pad->data + ANSWER_KEY_AT, QG_MAC_KEY_BYTES);
	if (err != QG_OK) {
		qg_masked_settle(link, use, false);
		return err;
	}
	*answer_key = key;
	key = NULL;
	return QG_OK;
}

/* --- opening --------------------------------------------------------------------- */

static size_t
bytes_named(const qg_kms_masked *m)
{
	size_t n = 0;
	for (size_t i = 0; i < m->n_pads; i++)
		n += m->pad[i].len;
	return n;
}

/* Under the link's lock. */
static qg_err
open_locked(qg_stream *link, const void *message, const qg_kms_masked *m, qg_masked_canonical *canonical,
	    qg_waiter *w, qg_secret **keys)
{
	QG_SECRET_AUTO *pad = NULL;
	uint8_t mac[QG_MAC_BYTES];
	qg_err err = qg_pads_peek(link, m->pad, m->n_pads, &pad);
	if (err == QG_OK && pad->len != PAD_AT + m->data_len)
		err = QG_E_INVAL;
	if (err == QG_OK)
		err = message_mac(pad->data, message, canonical, m, mac);
	if (err == QG_OK && !qg_equal_ct(mac, m->mac, sizeof mac))
		err = QG_E_AUTH;
	if (err == QG_OK)
		err = qg_pads_open(link, m->pad, m->n_pads, m->opened_pad, w);
	if (err == QG_OK)
		err = qg_pads_spend(link, m->pad, m->n_pads, m->oldest_mac, m->oldest_pad);
	if (err != QG_OK)
		return err;
	/* The MAC's key has done its work. */
	memmove(pad->data, pad->data + ANSWER_KEY_AT, pad->len - ANSWER_KEY_AT);
	qg_wipe(pad->data + pad->len - ANSWER_KEY_AT, ANSWER_KEY_AT);
	pad->len -= ANSWER_KEY_AT;
	*keys = pad;
	pad = NULL;
	return QG_OK;
}

static const char *
why_refused(qg_err err)
{
	switch (err) {
	case QG_E_AUTH:
		return "the MAC does not verify";
	case QG_E_CONSUMED:
		return "node key that was used before";
	case QG_E_INVAL:
		return "node key is not named as it should be";
	default:
		return NULL;
	}
}

qg_err
qg_masked_open(struct qg_core *core, const char *neighbour, const void *message, const qg_kms_masked *masked,
	       qg_masked_canonical *canonical, qg_waiter *w, qg_secret **keys)
{
	qg_stream *link = qg_stream_find(core, neighbour, masked->link);
	qg_err err = QG_E_NOTFOUND;
	if (bytes_named(masked) != PAD_AT + masked->data_len) {
		err = QG_E_INVAL;
	} else if (link != NULL && link->cfg->direction != QG_DIRECTION_OUTBOUND) {
		pthread_mutex_lock(&link->lock);
		err = open_locked(link, message, masked, canonical, w, keys);
		pthread_mutex_unlock(&link->lock);
	}
	if (why_refused(err) != NULL)
		qg_relay_refused(core, neighbour, masked->link, why_refused(err));
	return err;
}
