/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"

/* Values on a link between two networks that has a QKD stream of its own: under
 * one-time pads and a one-time MAC of node key, as between neighbours
 * (masked.c), which the two gateways then are too. Every transmission takes
 * fresh node key (SOUNDNESS 16). */

#define CONTEXT "qkdgate ext_keys 1"
#define DIGEST 32

typedef struct masked_keys {
	const char *from, *to; /* KME IDs */
	const qg_interop_keys *m;
	qg_kms_masked masked;
} masked_keys;

static void
add_text(crypto_generichash_state *h, const char *s)
{
	const uint64_t len = s != NULL ? strlen(s) + 1 : 0;
	uint8_t be[8];
	for (size_t i = 0; i < sizeof be; i++)
		be[i] = (uint8_t)(len >> (56 - 8 * i));
	crypto_generichash_update(h, be, sizeof be);
	if (len > 0)
		crypto_generichash_update(h, (const uint8_t *)s, len);
}

/* What is passed on with the keys, too long for the canonical bytes. */
static void
extensions_digest(const qg_interop_keys *m, uint8_t out[DIGEST])
{
	crypto_generichash_state h;
	crypto_generichash_init(&h, NULL, 0, DIGEST);
	add_text(&h, m->optional);
	for (size_t i = 0; i < m->n_keys; i++)
		add_text(&h, m->key[i].extension);
	crypto_generichash_final(&h, out, DIGEST);
}

static void
put_pads(qg_writer *w, const qg_kms_masked *k)
{
	qg_put_lstr(w, k->link);
	qg_put_u8(w, (uint8_t)k->n_pads);
	for (size_t i = 0; i < k->n_pads; i++) {
		qg_put_bytes(w, k->pad[i].epoch, sizeof k->pad[i].epoch);
		qg_put_u32(w, k->pad[i].segment);
		qg_put_u32(w, k->pad[i].offset);
		qg_put_u32(w, k->pad[i].len);
	}
	qg_put_u32(w, k->oldest_mac);
	qg_put_u32(w, k->oldest_pad);
}

static void
canonical(const void *message, qg_writer *w)
{
	const masked_keys *k = message;
	const qg_interop_keys *m = k->m;
	uint8_t digest[DIGEST];
	extensions_digest(m, digest);
	qg_put_lstr(w, CONTEXT);
	qg_put_lstr(w, k->from);
	qg_put_lstr(w, k->to);
	qg_put_lstr(w, m->saes.initiator);
	qg_put_u8(w, (uint8_t)m->saes.n_targets);
	for (size_t i = 0; i < m->saes.n_targets; i++)
		qg_put_lstr(w, m->saes.targets[i]);
	qg_put_u32(w, (uint32_t)m->n_keys);
	for (size_t i = 0; i < m->n_keys; i++) {
		qg_put_bytes(w, m->key[i].id.b, sizeof m->key[i].id.b);
		qg_put_u32(w, m->key[i].size_bytes);
	}
	qg_put_bytes(w, digest, sizeof digest);
	put_pads(w, &k->masked);
}

qg_err
qg_ix_mask(struct qg_core *core, const qg_config_peer *peer, qg_interop_keys *m, uint8_t *values, size_t len,
	   qg_interop_mask *mask, qg_stream **link, qg_pad_use *use)
{
	const char *to = qg_ix_neighbour(core, peer);
	*link = to != NULL ? qg_stream_find(core, to, peer->stream) : NULL;
	if (*link == NULL || (*link)->cfg->direction == QG_DIRECTION_INBOUND)
		return QG_E_NOTFOUND;
	masked_keys *k = calloc(1, sizeof *k);
	if (k == NULL)
		return QG_E_NOMEM;
	k->from = core->part.cfg->kme_id;
	k->to = to;
	k->m = m;
	QG_SECRET_AUTO *answer_key = NULL; /* the answer of this interface has no room for a MAC */
	const qg_err err = qg_masked_seal(*link, k, &k->masked, canonical, values, len, NULL, use, &answer_key);
	if (err == QG_OK) {
		memcpy(values, k->masked.data, len);
		memcpy(mask->link, k->masked.link, sizeof mask->link);
		mask->n_pads = k->masked.n_pads;
		memcpy(mask->pad, k->masked.pad, sizeof mask->pad);
		mask->oldest_mac = k->masked.oldest_mac;
		mask->oldest_pad = k->masked.oldest_pad;
		memcpy(mask->mac, k->masked.mac, sizeof mask->mac);
		m->mask = mask;
	}
	free(k);
	return err;
}

static qg_err
fill_masked(qg_kms_masked *k, const qg_interop_mask *mask, const uint8_t *values, size_t len)
{
	if (len == 0 || len > QG_KMS_DATA_MAX || mask->n_pads == 0 || mask->n_pads > QG_KMS_PADS_MAX)
		return QG_E_INVAL;
	memcpy(k->link, mask->link, sizeof k->link);
	k->link[sizeof k->link - 1] = '\0';
	k->n_pads = mask->n_pads;
	memcpy(k->pad, mask->pad, sizeof k->pad);
	k->oldest_mac = mask->oldest_mac;
	k->oldest_pad = mask->oldest_pad;
	memcpy(k->mac, mask->mac, sizeof k->mac);
	k->data_len = len;
	memcpy(k->data, values, len);
	return QG_OK;
}

qg_err
qg_ix_unmask(struct qg_core *core, const qg_config_peer *peer, const qg_interop_keys *m, uint8_t *values, size_t len,
	     qg_waiter *w)
{
	const char *from = qg_ix_neighbour(core, peer);
	if (from == NULL || m->mask == NULL)
		return QG_E_AUTH;
	masked_keys *k = calloc(1, sizeof *k);
	if (k == NULL)
		return QG_E_NOMEM;
	k->from = from;
	k->to = core->part.cfg->kme_id;
	k->m = m;
	QG_SECRET_AUTO *pad = NULL;
	qg_err err = fill_masked(&k->masked, m->mask, values, len);
	if (err == QG_OK)
		err = qg_masked_open(core, from, k, &k->masked, canonical, w, &pad);
	if (err == QG_OK)
		for (size_t i = 0; i < len; i++)
			values[i] ^= pad->data[QG_MAC_KEY_BYTES + i];
	free(k);
	return err;
}
