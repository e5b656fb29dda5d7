/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/kms_msg.h"

#include <assert.h>
#include <jansson.h>
#include <sodium.h>
#include <string.h>

#include "kms_msg_internal.h"

/* The forms are those of docs/neighbours.md. */

#define INDEX_END (UINT64_C(1) << 32) /* a position in a key ID has 32 bits of index */

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define SIZE_OF(type, member) sizeof(((type *)0)->member)
#define MEMBER(type, member, form_, ...) \
	{.name = #member, .form = (form_), .at = offsetof(type, member), .size = SIZE_OF(type, member), \
	 __VA_ARGS__}
#define NAME(type, member) MEMBER(type, member, QG_KMS_FORM_NAME, .min = 0)
#define UUID(type, member) MEMBER(type, member, QG_KMS_FORM_UUID, .min = 0)
#define BYTES(type, member) MEMBER(type, member, QG_KMS_FORM_BYTES, .min = 0)
#define FLAG(type, member) MEMBER(type, member, QG_KMS_FORM_FLAG, .min = 0)
#define NUMBER(type, member, min_, max_) \
	MEMBER(type, member, QG_KMS_FORM_NUMBER, .min = (min_), .max = (max_))
#define WORD(type, member, table) \
	MEMBER(type, member, QG_KMS_FORM_WORD, .words = (table), .n_words = COUNT(table))

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
};

static const char *const owners[] = {"opener", "peer", "alternating"};

static const char *const app_results[] = {
	[QG_KMS_APP_ACCEPTED] = "accepted",
	[QG_KMS_APP_UNKNOWN_STREAM] = "unknown_stream",
	[QG_KMS_APP_DISAGREE] = "disagree",
};

static const char *const uses[] = {
	[QG_USE_APPLICATION] = "application",
	[QG_USE_NODE] = "node",
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
};

static const qg_kms_field new_app_answer_fields[] = {
	WORD(qg_kms_new_app_answer, result, app_results),
	BYTES(qg_kms_new_app_answer, nonce),
	NUMBER(qg_kms_new_app_answer, segment_chunks, 0, UINT32_MAX),
	NUMBER(qg_kms_new_app_answer, inbound_chunks, 0, UINT32_MAX),
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

/* The mac is left out unless the result is "confirmed". */
static const qg_kms_field batch_answer_fields[] = {
	WORD(qg_kms_batch_answer, result, batch_results),
	BYTES(qg_kms_batch_answer, mac),
};
#define BATCH_ANSWER_FIELDS(confirmed) ((confirmed) ? 2u : 1u)

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
};

const char *
qg_kms_kind_name(qg_kms_kind kind)
{
	return kind_names[kind];
}

/* --- objects ------------------------------------------------------------- */

static void
json_unref(json_t **j)
{
	json_decref(*j);
}
#define JSON_AUTO __attribute__((cleanup(json_unref))) json_t

/* A message with its version, still without members. */
static json_t *
message_new(void)
{
	json_t *object = json_object();

	if (object && json_object_set_new(object, "version", json_integer(QG_KMS_VERSION)) == 0)
		return object;
	json_decref(object);
	return NULL;
}

static qg_err
message_write(const json_t *object, char *out, size_t room, size_t *len)
{
	size_t n = json_dumpb(object, out, room, JSON_COMPACT);

	if (n == 0)
		return QG_E_NOMEM;
	if (n > room)
		return QG_E_RANGE;
	*len = n;
	return QG_OK;
}

/* An object of our version, or NULL. */
static json_t *
message_read(const char *json, size_t len)
{
	json_error_t e;
	json_t *object;
	const json_t *version;

	if (len > QG_KMS_MSG_MAX)
		return NULL;
	object = json_loadb(json, len, JSON_REJECT_DUPLICATES, &e);
	version = json_object_get(object, "version");
	if (json_is_integer(version) && json_integer_value(version) == QG_KMS_VERSION)
		return object;
	json_decref(object);
	return NULL;
}

static qg_err
encode(const qg_kms_field *f, size_t n, const void *m, char *out, size_t room, size_t *len)
{
	JSON_AUTO *object = message_new();
	qg_err err = object ? qg_kms_fields_put(object, f, n, m) : QG_E_NOMEM;

	return err == QG_OK ? message_write(object, out, room, len) : err;
}

/* The version and the fields of the table, no other member. */
static qg_err
decode(const char *json, size_t len, const qg_kms_field *f, size_t n, void *m)
{
	JSON_AUTO *object = message_read(json, len);

	if (!object || json_object_size(object) != n + 1)
		return QG_E_PARSE;
	return qg_kms_fields_get(object, f, n, m);
}

/* --- new_app ------------------------------------------------------------- */

qg_err
qg_kms_new_app_encode(const qg_kms_new_app *m, char *out, size_t room, size_t *len)
{
	return encode(new_app_fields, COUNT(new_app_fields), m, out, room, len);
}

qg_err
qg_kms_new_app_decode(const char *json, size_t len, qg_kms_new_app *m)
{
	qg_kms_new_app got = {0};
	qg_err err = decode(json, len, new_app_fields, COUNT(new_app_fields), &got);

	if (err == QG_OK)
		*m = got;
	return err;
}

/* Nothing is agreed with segments of no chunk. */
static bool
new_app_answer_ok(const qg_kms_new_app_answer *m)
{
	return m->result != QG_KMS_APP_ACCEPTED || m->segment_chunks > 0;
}

qg_err
qg_kms_new_app_answer_encode(const qg_kms_new_app_answer *m, char *out, size_t room, size_t *len)
{
	if (!new_app_answer_ok(m))
		return QG_E_INVAL;
	return encode(new_app_answer_fields, COUNT(new_app_answer_fields), m, out, room, len);
}

qg_err
qg_kms_new_app_answer_decode(const char *json, size_t len, qg_kms_new_app_answer *m)
{
	qg_kms_new_app_answer got = {0};
	qg_err err = decode(json, len, new_app_answer_fields, COUNT(new_app_answer_fields), &got);

	if (err != QG_OK)
		return err;
	if (!new_app_answer_ok(&got))
		return QG_E_PARSE;
	*m = got;
	return QG_OK;
}

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
batch_ok(const qg_kms_batch *m)
{
	return m->first_index + m->count <= INDEX_END;
}

qg_err
qg_kms_batch_encode(const qg_kms_batch *m, char *out, size_t room, size_t *len)
{
	if (m->first_index >= INDEX_END || !batch_ok(m))
		return QG_E_INVAL;
	return encode(batch_fields, COUNT(batch_fields), m, out, room, len);
}

qg_err
qg_kms_batch_decode(const char *json, size_t len, qg_kms_batch *m)
{
	qg_kms_batch got = {0};
	qg_err err = decode(json, len, batch_fields, COUNT(batch_fields), &got);

	if (err != QG_OK)
		return err;
	if (!batch_ok(&got))
		return QG_E_PARSE;
	*m = got;
	return QG_OK;
}

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

qg_err
qg_kms_batch_answer_encode(const qg_kms_batch_answer *m, char *out, size_t room, size_t *len)
{
	return encode(batch_answer_fields, BATCH_ANSWER_FIELDS(m->result == QG_KMS_BATCH_CONFIRMED), m, out, room,
		      len);
}

qg_err
qg_kms_batch_answer_decode(const char *json, size_t len, qg_kms_batch_answer *m)
{
	JSON_AUTO *object = message_read(json, len);
	bool has_mac = json_object_get(object, "mac") != NULL;
	size_t n = BATCH_ANSWER_FIELDS(has_mac);
	qg_kms_batch_answer got = {0};

	if (!object || json_object_size(object) != n + 1)
		return QG_E_PARSE;
	if (qg_kms_fields_get(object, batch_answer_fields, n, &got) != QG_OK)
		return QG_E_PARSE;
	if (has_mac != (got.result == QG_KMS_BATCH_CONFIRMED))
		return QG_E_PARSE;
	*m = got;
	return QG_OK;
}

void
qg_kms_batch_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], qg_writer *w)
{
	qg_put_lstr(w, "qkdgate new_key_batch confirmed");
	qg_put_bytes(w, request_mac, QG_MAC_BYTES);
}

/* --- key_stream_closed --------------------------------------------------- */

qg_err
qg_kms_closed_encode(const qg_kms_closed *m, char *out, size_t room, size_t *len)
{
	return encode(closed_fields, COUNT(closed_fields), m, out, room, len);
}

qg_err
qg_kms_closed_decode(const char *json, size_t len, qg_kms_closed *m)
{
	qg_kms_closed got = {0};
	qg_err err = decode(json, len, closed_fields, COUNT(closed_fields), &got);

	if (err == QG_OK)
		*m = got;
	return err;
}

/* --- get_status ---------------------------------------------------------- */

static qg_err
status_put(json_t *epochs, const qg_kms_status *m)
{
	for (size_t i = 0; i < m->n; i++) {
		json_t *e = json_object();
		qg_err err;

		if (!e || json_array_append_new(epochs, e) != 0) /* takes e, also when it fails */
			return QG_E_NOMEM;
		err = qg_kms_fields_put(e, epoch_status_fields, COUNT(epoch_status_fields), &m->epoch[i]);
		if (err != QG_OK)
			return err;
	}
	return QG_OK;
}

qg_err
qg_kms_status_encode(const qg_kms_status *m, char *out, size_t room, size_t *len)
{
	JSON_AUTO *object = message_new();
	json_t *epochs = json_array();
	qg_err err;

	if (m->n > QG_KMS_STATUS_MAX || !object || !epochs) {
		json_decref(epochs);
		return m->n > QG_KMS_STATUS_MAX ? QG_E_INVAL : QG_E_NOMEM;
	}
	if (json_object_set_new(object, "epochs", epochs) != 0)
		return QG_E_NOMEM;
	err = status_put(epochs, m);
	return err == QG_OK ? message_write(object, out, room, len) : err;
}

qg_err
qg_kms_status_decode(const char *json, size_t len, qg_kms_status *m)
{
	JSON_AUTO *object = message_read(json, len);
	const json_t *epochs = json_object_get(object, "epochs");
	qg_kms_status got = {.n = json_array_size(epochs)};

	if (!json_is_array(epochs) || json_object_size(object) != 2 || got.n > QG_KMS_STATUS_MAX)
		return QG_E_PARSE;
	for (size_t i = 0; i < got.n; i++) {
		const json_t *e = json_array_get(epochs, i);

		if (json_object_size(e) != COUNT(epoch_status_fields))
			return QG_E_PARSE;
		if (qg_kms_fields_get(e, epoch_status_fields, COUNT(epoch_status_fields), &got.epoch[i]) != QG_OK)
			return QG_E_PARSE;
	}
	*m = got;
	return QG_OK;
}
