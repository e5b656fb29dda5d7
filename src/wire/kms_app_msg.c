/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/kms_app_msg.h"

#include <assert.h>
#include <string.h>

#include "kms_msg_internal.h"

/* The messages about key streams of applications. */

#define KEY_SIZE_MAX 4095    /* bytes; SOUNDNESS 7 */
#define CHUNK_SIZE_MAX 4095
#define BIT(result) (1u << (result))

static_assert(sizeof(qg_kms_app_stream_result) == 4 && sizeof(qg_kms_app_keys_result) == 4 &&
	      sizeof(qg_kms_app_word) == 4, "number_load reads enums as four bytes");

static const char *const stream_results[] = {
	[QG_KMS_APP_STREAM_WAITING] = "waiting", [QG_KMS_APP_STREAM_JOINED] = "joined",
	[QG_KMS_APP_STREAM_OTHER] = "other",     [QG_KMS_APP_STREAM_IN_USE] = "in_use",
	[QG_KMS_APP_STREAM_UNKNOWN] = "unknown", [QG_KMS_APP_STREAM_FULL] = "full",
};
#define WITH_STREAM (BIT(QG_KMS_APP_STREAM_WAITING) | BIT(QG_KMS_APP_STREAM_JOINED))

static const char *const stream_owners[] = {"sender", "answerer"};

static const char *const keys_results[] = {
	[QG_KMS_APP_KEYS_HELD] = "held",       [QG_KMS_APP_KEYS_GONE] = "gone",
	[QG_KMS_APP_KEYS_UNKNOWN] = "unknown", [QG_KMS_APP_KEYS_FULL] = "full",
};

static const char *const words[] = {[QG_KMS_APP_KNOWN] = "known", [QG_KMS_APP_UNKNOWN] = "unknown"};

static const qg_kms_field id_item[] = {
	{.name = NULL, .form = QG_KMS_FORM_UUID, .size = sizeof(qg_uuid)},
};

#define QOS_NUMBER(type, json, max_, ...) \
	MEMBER_AS(#json, type, qos.json, QG_KMS_FORM_NUMBER, .max = (max_), __VA_ARGS__)
#define QOS(type, with) \
	QOS_NUMBER(type, chunk_size, CHUNK_SIZE_MAX, .min = 1, .only_with = (with)), \
	QOS_NUMBER(type, max_bps, UINT32_MAX, .only_with = (with)), \
	QOS_NUMBER(type, min_bps, UINT32_MAX, .only_with = (with)), \
	QOS_NUMBER(type, jitter_bps, UINT32_MAX, .only_with = (with)), \
	QOS_NUMBER(type, priority, UINT32_MAX, .only_with = (with)), \
	QOS_NUMBER(type, timeout_ms, UINT32_MAX, .only_with = (with)), \
	QOS_NUMBER(type, ttl_s, UINT32_MAX, .only_with = (with)), \
	MEMBER_AS("metadata", type, qos.metadata, QG_KMS_FORM_FLAG, .only_with = (with))

static const qg_kms_field app_stream_fields[] = {
	UUID(qg_kms_app_stream, ksid),
	FLAG(qg_kms_app_stream, fresh),
	FLAG(qg_kms_app_stream, owns),
	NAME(qg_kms_app_stream, source),
	NAME(qg_kms_app_stream, destination),
	NAME(qg_kms_app_stream, sae),
	QOS(qg_kms_app_stream, 0),
};

static const qg_kms_field app_stream_answer_fields[] = {
	WORD(qg_kms_app_stream_answer, result, stream_results),
	MEMBER(qg_kms_app_stream_answer, ksid, QG_KMS_FORM_UUID, .only_with = BIT(QG_KMS_APP_STREAM_OTHER)),
	MEMBER(qg_kms_app_stream_answer, owner, QG_KMS_FORM_WORD, .words = stream_owners,
	       .n_words = COUNT(stream_owners), .only_with = WITH_STREAM),
	MEMBER(qg_kms_app_stream_answer, sae, QG_KMS_FORM_NAME, .only_with = WITH_STREAM),
	QOS(qg_kms_app_stream_answer, WITH_STREAM),
};

static const qg_kms_field app_keys_fields[] = {
	UUID(qg_kms_app_keys, ksid),
	NUMBER(qg_kms_app_keys, serial, 1, UINT32_MAX),
	NUMBER(qg_kms_app_keys, first, 0, UINT32_MAX),
	NUMBER(qg_kms_app_keys, count, 1, UINT32_MAX),
	NUMBER(qg_kms_app_keys, chunk_size, 1, CHUNK_SIZE_MAX),
	NUMBER(qg_kms_app_keys, key_size, 1, KEY_SIZE_MAX),
	NUMBER(qg_kms_app_keys, hops, 0, UINT32_MAX),
	LIST("ids", qg_kms_app_keys, id, n, 1, QG_KMS_BLOCK_IDS_MAX, id_item, .distinct = true),
	BYTES(qg_kms_app_keys, mac),
};

static const qg_kms_field app_keys_answer_fields[] = {
	WORD(qg_kms_app_keys_answer, result, keys_results),
	MAC_WITH(qg_kms_app_keys_answer, BIT(QG_KMS_APP_KEYS_HELD)),
};

static const qg_kms_field app_want_fields[] = {
	UUID(qg_kms_app_want, ksid),
	NUMBER(qg_kms_app_want, until, 0, UINT32_MAX),
};

static const qg_kms_field app_want_answer_fields[] = {
	WORD(qg_kms_app_want_answer, result, words),
};

static const qg_kms_field app_closed_fields[] = {
	UUID(qg_kms_app_closed, ksid),
	FLAG(qg_kms_app_closed, whole),
};

/* --- new_app_stream -------------------------------------------------------- */

/* No stream has the KSID that stands for none. */
static bool
app_stream_sound(const void *message)
{
	const qg_kms_app_stream *m = message;

	return !qg_uuid_is_null(&m->ksid);
}

static const qg_kms_layout app_stream_layout =
	LAYOUT(qg_kms_app_stream, app_stream_fields, app_stream_sound);
CODEC(app_stream, qg_kms_app_stream)

static bool
app_stream_answer_sound(const void *message)
{
	const qg_kms_app_stream_answer *m = message;

	return m->result != QG_KMS_APP_STREAM_OTHER || !qg_uuid_is_null(&m->ksid);
}

static const qg_kms_layout app_stream_answer_layout =
	LAYOUT(qg_kms_app_stream_answer, app_stream_answer_fields, app_stream_answer_sound);
CODEC(app_stream_answer, qg_kms_app_stream_answer)

/* --- new_app_keys ---------------------------------------------------------- */

/* The keys hold both one-time keys and all chunks, and none of them is needless. */
static bool
app_keys_sound(const void *message)
{
	const qg_kms_app_keys *m = message;
	const uint64_t need = QG_KMS_MAC_OVERHEAD + (uint64_t)m->count * m->chunk_size;
	const uint64_t have = (uint64_t)m->n * m->key_size;

	return need <= have && have - need < m->key_size && m->first <= UINT32_MAX - m->count;
}

static const qg_kms_layout app_keys_layout = LAYOUT(qg_kms_app_keys, app_keys_fields, app_keys_sound);
CODEC(app_keys, qg_kms_app_keys)

void
qg_kms_app_keys_canonical(const qg_kms_app_keys *m, qg_writer *w)
{
	qg_put_lstr(w, "qkdgate new_app_keys");
	qg_put_u8(w, QG_KMS_VERSION);
	qg_put_bytes(w, m->ksid.b, sizeof m->ksid.b);
	qg_put_u32(w, m->serial);
	qg_put_u32(w, m->first);
	qg_put_u32(w, m->count);
	qg_put_u32(w, m->chunk_size);
	qg_put_u32(w, m->key_size);
	qg_put_u32(w, m->hops);
	qg_put_u8(w, (uint8_t)m->n);
	for (size_t i = 0; i < m->n; i++)
		qg_put_bytes(w, m->id[i].b, sizeof m->id[i].b);
}

static const qg_kms_layout app_keys_answer_layout = LAYOUT(qg_kms_app_keys_answer, app_keys_answer_fields, NULL);
CODEC(app_keys_answer, qg_kms_app_keys_answer)

void
qg_kms_app_keys_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], qg_writer *w)
{
	qg_put_lstr(w, "qkdgate new_app_keys held");
	qg_put_bytes(w, request_mac, QG_MAC_BYTES);
}

/* --- want_app_keys, app_stream_closed --------------------------------------- */

static const qg_kms_layout app_want_layout = LAYOUT(qg_kms_app_want, app_want_fields, NULL);
CODEC(app_want, qg_kms_app_want)

static const qg_kms_layout app_want_answer_layout = LAYOUT(qg_kms_app_want_answer, app_want_answer_fields, NULL);
CODEC(app_want_answer, qg_kms_app_want_answer)

static const qg_kms_layout app_closed_layout = LAYOUT(qg_kms_app_closed, app_closed_fields, NULL);
CODEC(app_closed, qg_kms_app_closed)
