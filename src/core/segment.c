/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"
#include "relay_internal.h"

#define SEGMENT_MIN_USABLE 16

/* A segment's chunks, from the first: [key-ID root, in the direction's first
 * segment only] usable chunks ... [answer key] [request key]. */

uint32_t
qg_segment_key_chunks(uint32_t chunk_size)
{
	return (QG_MAC_KEY_BYTES + chunk_size - 1) / chunk_size;
}

uint32_t
qg_segment_root_chunks(uint32_t chunk_size)
{
	return (QG_KEY_ID_ROOT_MIN + chunk_size - 1) / chunk_size;
}

uint32_t
qg_segment_max_key_bytes(uint32_t chunk_size, uint32_t segment_chunks)
{
	uint32_t usable =
		segment_chunks - 2 * qg_segment_key_chunks(chunk_size) - qg_segment_root_chunks(chunk_size);
	uint32_t half = segment_chunks / 2 < usable ? segment_chunks / 2 : usable;
	uint64_t bytes = (uint64_t)half * chunk_size;
	return bytes < 4095 ? (uint32_t)bytes : 4095;
}

bool
qg_segment_size_fits(uint32_t chunk_size, uint32_t segment_chunks)
{
	return segment_chunks >= 2 * qg_segment_key_chunks(chunk_size) + qg_segment_root_chunks(chunk_size) +
					 SEGMENT_MIN_USABLE;
}

static size_t
segment_bits(const qg_segment *s)
{
	return ((size_t)s->count + 7) / 8;
}

qg_err
qg_segment_new(qg_epoch *e, uint32_t number, bool ours, qg_segment **out)
{
	qg_segment *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	s->epoch = e;
	s->number = number;
	s->count = e->segment_chunks;
	s->first_index = (uint64_t)number * e->segment_chunks;
	s->ours = ours;
	s->use = QG_USE_APPLICATION;
	s->phase = QG_SEG_FILLING;
	qg_err err = qg_secret_new((size_t)s->count * e->chunk_size, &s->data);
	if (err == QG_OK && !ours) {
		s->used = calloc(4, segment_bits(s));
		if (s->used == NULL)
			err = QG_E_NOMEM;
		else {
			s->gone = s->used + segment_bits(s);
			s->was = s->gone + segment_bits(s);
			s->next = s->was + segment_bits(s);
		}
	}
	if (err != QG_OK) {
		qg_segment_free(&s);
		return err;
	}
	s->data->len = (size_t)s->count * e->chunk_size;
	qg_segment_set_root(s, false);
	*out = s;
	return QG_OK;
}

void
qg_segment_free(qg_segment **s)
{
	if (s == NULL || *s == NULL)
		return;
	assert((*s)->pins == 0);
	qg_secret_free(&(*s)->data);
	qg_relay_part_free(*s);
	free((*s)->used);
	free((*s)->message);
	free(*s);
	*s = NULL;
}

void
qg_segment_set_root(qg_segment *s, bool root)
{
	uint32_t cs = s->epoch->chunk_size;
	s->root = root;
	s->lo = root ? qg_segment_root_chunks(cs) : 0;
	s->hi = s->count - 2 * qg_segment_key_chunks(cs);
	s->cursor = s->lo;
	s->left = s->hi - s->lo;
}

uint8_t *
qg_segment_chunk(const qg_segment *s, uint32_t i)
{
	assert(i <= s->count && s->data != NULL);
	return s->data->data + (size_t)i * s->epoch->chunk_size;
}

void
qg_segment_request_mac(const qg_segment *s, const qg_kms_batch *m, uint8_t mac[QG_MAC_BYTES])
{
	uint8_t canonical[QG_KMS_BATCH_CANONICAL_MAX];
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_batch_canonical(m, &w);
	assert(!w.bad);

	uint32_t key_at = s->count - qg_segment_key_chunks(s->epoch->chunk_size);
	crypto_onetimeauth_state st;
	crypto_onetimeauth_init(&st, qg_segment_chunk(s, key_at));
	crypto_onetimeauth_update(&st, canonical, w.len);
	crypto_onetimeauth_update(&st, s->data->data, (size_t)key_at * s->epoch->chunk_size);
	crypto_onetimeauth_final(&st, mac);
	qg_wipe(&st, sizeof st);
	qg_wipe_stack();
}

void
qg_segment_answer_mac(const qg_segment *s, const uint8_t request_mac[QG_MAC_BYTES], uint8_t mac[QG_MAC_BYTES])
{
	uint8_t canonical[QG_KMS_BATCH_CANONICAL_MAX];
	qg_writer w = qg_writer_of(canonical, sizeof canonical);
	qg_kms_batch_answer_canonical(request_mac, &w);
	assert(!w.bad);
	uint32_t key_at = s->count - 2 * qg_segment_key_chunks(s->epoch->chunk_size);
	crypto_onetimeauth(mac, canonical, w.len, qg_segment_chunk(s, key_at));
	qg_wipe_stack();
}

void
qg_segment_wipe(qg_segment *s, uint32_t first, uint32_t n)
{
	assert(first + n <= s->count);
	if (s->data != NULL && n > 0)
		qg_wipe(qg_segment_chunk(s, first), (size_t)n * s->epoch->chunk_size);
	qg_segment_set_dirty(s, true);
}

void
qg_segment_wipe_reserved(qg_segment *s)
{
	qg_segment_wipe(s, 0, s->lo);
	qg_segment_wipe(s, s->hi, s->count - s->hi);
}

void
qg_segment_drop_data(qg_segment *s)
{
	qg_secret_free(&s->data);
	qg_segment_set_dirty(s, true);
}

/* The bits from i that stand in its byte and below end; and where the next byte
 * begins. */
static uint8_t
bits_mask(uint32_t i, uint32_t end)
{
	const uint32_t left = end - i < 8 ? end - i : 8;
	return (uint8_t)(((1u << left) - 1) << i % 8);
}

static uint32_t
bits_next(uint32_t i)
{
	return (i / 8 + 1) * 8;
}

bool
qg_bits_any(const uint8_t *bits, uint32_t first, uint32_t n)
{
	for (uint32_t i = first, end = first + n; i < end; i = bits_next(i)) {
		if (bits[i / 8] & bits_mask(i, end))
			return true;
	}
	return false;
}

void
qg_bits_set(uint8_t *bits, uint32_t first, uint32_t n)
{
	for (uint32_t i = first, end = first + n; i < end; i = bits_next(i))
		bits[i / 8] |= bits_mask(i, end);
}

void
qg_bits_clear(uint8_t *bits, uint32_t first, uint32_t n)
{
	for (uint32_t i = first, end = first + n; i < end; i = bits_next(i))
		bits[i / 8] &= (uint8_t)~bits_mask(i, end);
}

qg_err
qg_segment_seal(qg_segment *s, uint8_t **blob, size_t *len)
{
	uint8_t ad[QG_KMS_BATCH_CANONICAL_MAX];
	size_t ad_len = qg_epoch_ad(s->epoch, "segment", s->number, ad, sizeof ad);
	qg_sealer *sealer = s->epoch->stream->core->part.sealer;
	size_t room = s->data->len + QG_SEAL_OVERHEAD;
	uint8_t *out = malloc(room);
	if (out == NULL)
		return QG_E_NOMEM;
	qg_err err = qg_sealer_seal(sealer, ad, ad_len, s->data->data, s->data->len, out);
	if (err != QG_OK) {
		free(out);
		return err;
	}
	s->generation = qg_seal_generation(out, room);
	*blob = out;
	*len = room;
	return QG_OK;
}

qg_err
qg_segment_unseal(qg_segment *s, const uint8_t *blob, size_t len)
{
	uint8_t ad[QG_KMS_BATCH_CANONICAL_MAX];
	size_t ad_len = qg_epoch_ad(s->epoch, "segment", s->number, ad, sizeof ad);
	QG_SECRET_AUTO *plain = NULL;
	qg_err err = qg_sealer_unseal(s->epoch->stream->core->part.sealer, ad, ad_len, blob, len, &plain);
	if (err != QG_OK)
		return err;
	if (plain->len != (size_t)s->count * s->epoch->chunk_size)
		return QG_E_CORRUPT;
	s->generation = qg_seal_generation(blob, len);
	qg_secret_free(&s->data);
	s->data = plain;
	plain = NULL;
	return QG_OK;
}
