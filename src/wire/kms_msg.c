/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/kms_msg.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

#include "kms_msg_internal.h"

/* The forms are those of docs/neighbours.md. */

#define INDEX_END (UINT64_C(1) << 32) /* a position in a key ID has 32 bits of index */

static_assert(sizeof(qg_segment_use) == 4, "number_load reads enums as four bytes");

static const char *const kind_names[QG_KMS_KINDS] = {
	[QG_KMS_NEW_APP] = "new_app",
	[QG_KMS_NEW_KEY_BATCH] = "new_key_batch",
	[QG_KMS_KEY_STREAM_CLOSED] = "key_stream_closed",
	[QG_KMS_GET_STATUS] = "get_status",
	[QG_KMS_FORWARD_KEYS] = "forward_keys",
	[QG_KMS_MAKE_KEYS_EXTERNAL] = "make_keys_external",
	[QG_KMS_DELETE_KEYS] = "delete_keys",
	[QG_KMS_POST_STATUS] = "post_status",
	[QG_KMS_NEW_APP_STREAM] = "new_app_stream",
	[QG_KMS_NEW_APP_KEYS] = "new_app_keys",
	[QG_KMS_WANT_APP_KEYS] = "want_app_keys",
	[QG_KMS_APP_STREAM_CLOSED] = "app_stream_closed",
};

static const char *const owners[] = {"opener", "peer", "alternating"};

static const char *const app_results[] = {
	[QG_KMS_APP_ACCEPTED] = "accepted",
	[QG_KMS_APP_UNKNOWN_STREAM] = "unknown_stream",
	[QG_KMS_APP_DISAGREE] = "disagree",
};

static const char *const uses[] = {
	[QG_USE_APPLICATION] = "application",
	[QG_USE_PAD] = "pad",
	[QG_USE_MAC] = "mac",
};

static const char *const batch_results[] = {
	[QG_KMS_BATCH_CONFIRMED] = "confirmed", [QG_KMS_BATCH_PENDING] = "pending", [QG_KMS_BATCH_FULL] = "full",
	[QG_KMS_BATCH_MISMATCH] = "mismatch",   [QG_KMS_BATCH_GONE] = "gone",       [QG_KMS_BATCH_UNKNOWN] = "unknown",
};

static const char *const close_reasons[] = {
	[QG_KMS_CLOSE_STOP] = "stop",         [QG_KMS_CLOSE_MISMATCH] = "mismatch", [QG_KMS_CLOSE_AGE] = "age",
	[QG_KMS_CLOSE_ROLLBACK] = "rollback", [QG_KMS_CLOSE_SOURCE] = "source",
};

static const char *const epoch_states[] = {NULL, "filling", "ended", "draining"};

const qg_kms_field qg_kms_sae_item[1] = NAME_ITEM(QG_KMS_SAE_MAX + 1);

static const qg_kms_field new_app_fields[] = {
	NAME(qg_kms_new_app, stream),
	NAME(qg_kms_new_app, opener),
	NAME(qg_kms_new_app, peer),
	UUID(qg_kms_new_app, ksid),
	BYTES(qg_kms_new_app, nonce),
	NUMBER(qg_kms_new_app, chunk_size, 1, UINT32_MAX),
	NUMBER(qg_kms_new_app, segment_chunks, 1, UINT32_MAX),
	WORD(qg_kms_new_app, owner, owners),
	NUMBER(qg_kms_new_app, inbound_chunks, 0, UINT32_MAX),
	SAES_OPTIONAL(qg_kms_new_app),
};

static const qg_kms_field new_app_answer_fields[] = {
	WORD(qg_kms_new_app_answer, result, app_results),
	BYTES(qg_kms_new_app_answer, nonce),
	NUMBER(qg_kms_new_app_answer, segment_chunks, 0, UINT32_MAX),
	NUMBER(qg_kms_new_app_answer, inbound_chunks, 0, UINT32_MAX),
	SAES_OPTIONAL(qg_kms_new_app_answer),
};

static const qg_kms_field batch_fields[] = {
	NAME(qg_kms_batch, stream),
	UUID(qg_kms_batch, ksid),
	BYTES(qg_kms_batch, epoch),
	NUMBER(qg_kms_batch, segment, 0, UINT32_MAX),
	NUMBER(qg_kms_batch, first_index, 0, INDEX_END - 1),
	NUMBER(qg_kms_batch, count, 1, UINT32_MAX),
	WORD(qg_kms_batch, use, uses),
	FLAG(qg_kms_batch, root),
	NUMBER(qg_kms_batch, issue_s, 0, UINT32_MAX),
	NUMBER(qg_kms_batch, fetch_s, 0, UINT32_MAX),
	NUMBER(qg_kms_batch, mark, 0, INDEX_END),
	BYTES(qg_kms_batch, mac),
};

static const qg_kms_field batch_answer_fields[] = {
	WORD(qg_kms_batch_answer, result, batch_results),
	MAC_WITH(qg_kms_batch_answer, 1u << QG_KMS_BATCH_CONFIRMED),
};

static const qg_kms_field closed_fields[] = {
	NAME(qg_kms_closed, stream),
	UUID(qg_kms_closed, ksid),
	BYTES(qg_kms_closed, epoch),
	WORD(qg_kms_closed, reason, close_reasons),
};

static const qg_kms_field epoch_status_fields[] = {
	NAME(qg_kms_epoch_status, stream),
	BYTES(qg_kms_epoch_status, epoch),
	WORD(qg_kms_epoch_status, state, epoch_states),
	NUMBER(qg_kms_epoch_status, seen_mark, 0, INDEX_END),
	NUMBER(qg_kms_epoch_status, seen_segments, 0, UINT32_MAX),
	NUMBER(qg_kms_epoch_status, seen_mac, 0, UINT32_MAX),
	NUMBER(qg_kms_epoch_status, seen_pad, 0, UINT32_MAX),
};

static const qg_kms_field status_fields[] = {
	LIST("epochs", qg_kms_status, epoch, n, 0, QG_KMS_STATUS_MAX, epoch_status_fields, .distinct = false),
	SAES_OPTIONAL(qg_kms_status),
};

const char *
qg_kms_kind_name(qg_kms_kind kind)
{
	return kind_names[kind];
}

/* --- new_app ------------------------------------------------------------- */

/* Nothing is agreed with segments of no chunk. */
static bool
new_app_answer_sound(const void *m)
{
	const qg_kms_new_app_answer *a = m;

	return a->result != QG_KMS_APP_ACCEPTED || a->segment_chunks > 0;
}

static const qg_kms_layout new_app_layout = LAYOUT(qg_kms_new_app, new_app_fields, NULL);
CODEC(new_app, qg_kms_new_app)

static const qg_kms_layout new_app_answer_layout =
	LAYOUT(qg_kms_new_app_answer, new_app_answer_fields, new_app_answer_sound);
CODEC(new_app_answer, qg_kms_new_app_answer)

void
qg_kms_epoch_id(const qg_kms_new_app *m, const qg_kms_new_app_answer *a, uint8_t out[16])
{
	uint8_t bytes[QG_KMS_BATCH_CANONICAL_MAX], hash[crypto_generichash_blake2b_BYTES];
	qg_writer w = qg_writer_of(bytes, sizeof bytes);
	int result;

	qg_put_lstr(&w, "qkdgate epoch");
	qg_put_u8(&w, QG_KMS_VERSION);
	qg_put_lstr(&w, m->stream);
	qg_put_lstr(&w, m->opener);
	qg_put_lstr(&w, m->peer);
	qg_put_bytes(&w, m->ksid.b, sizeof m->ksid.b);
	qg_put_bytes(&w, m->nonce, sizeof m->nonce);
	qg_put_u32(&w, m->chunk_size);
	qg_put_u32(&w, m->segment_chunks);
	qg_put_u8(&w, m->owner);
	qg_put_u32(&w, m->inbound_chunks);
	qg_put_u8(&w, (uint8_t)a->result);
	qg_put_bytes(&w, a->nonce, sizeof a->nonce);
	qg_put_u32(&w, a->segment_chunks);
	qg_put_u32(&w, a->inbound_chunks);
	assert(!w.bad); /* three names of QG_KMS_NAME_MAX and about 100 bytes more */
	result = crypto_generichash_blake2b(hash, sizeof hash, bytes, w.len, NULL, 0);
	assert(result == 0);
	(void)result;
	memcpy(out, hash, 16);
}

/* --- new_key_batch ------------------------------------------------------- */

static bool
batch_sound(const void *m)
{
	const qg_kms_batch *b = m;

	return b->first_index + b->count <= INDEX_END;
}

static const qg_kms_layout batch_layout = LAYOUT(qg_kms_batch, batch_fields, batch_sound);
CODEC(batch, qg_kms_batch)

void
qg_kms_batch_canonical(const qg_kms_batch *m, qg_writer *w)
{
	qg_put_lstr(w, "qkdgate new_key_batch");
	qg_put_u8(w, QG_KMS_VERSION);
	qg_put_lstr(w, m->stream);
	qg_put_bytes(w, m->ksid.b, sizeof m->ksid.b);
	qg_put_bytes(w, m->epoch, sizeof m->epoch);
	qg_put_u32(w, m->segment);
	qg_put_u64(w, m->first_index);
	qg_put_u32(w, m->count);
	qg_put_u8(w, (uint8_t)m->use);
	qg_put_u8(w, m->root ? 1 : 0);
	qg_put_u32(w, m->issue_s);
	qg_put_u32(w, m->fetch_s);
	qg_put_u64(w, m->mark);
}

static const qg_kms_layout batch_answer_layout = LAYOUT(qg_kms_batch_answer, batch_answer_fields, NULL);
CODEC(batch_answer, qg_kms_batch_answer)

void
qg_kms_batch_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], qg_writer *w)
{
	qg_put_lstr(w, "qkdgate new_key_batch confirmed");
	qg_put_bytes(w, request_mac, QG_MAC_BYTES);
}

/* --- key_stream_closed, get_status --------------------------------------- */

static const qg_kms_layout closed_layout = LAYOUT(qg_kms_closed, closed_fields, NULL);
CODEC(closed, qg_kms_closed)

static const qg_kms_layout status_layout = LAYOUT(qg_kms_status, status_fields, NULL);
CODEC(status, qg_kms_status)
