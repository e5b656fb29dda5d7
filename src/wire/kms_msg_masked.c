/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/kms_msg.h"

#include <assert.h>
#include <string.h>

#include "kms_msg_internal.h"

/* The messages that carry key for others, and what goes with them. */

#define SHARES_MAX 8
#define KEY_SIZE_MAX 4095               /* bytes; SOUNDNESS 7 */
#define JSON_NUMBER_MAX INT64_MAX       /* of a 64-bit count: what jansson can hold */
#define BIT(result) (1u << (result))

static_assert(sizeof(qg_kms_forward_result) == 4 && sizeof(qg_kms_link_state) == 4,
	      "number_load reads enums as four bytes");

static const char *const forward_results[] = {
	[QG_KMS_FORWARD_DELIVERED] = "delivered", [QG_KMS_FORWARD_DOWN] = "down",
	[QG_KMS_FORWARD_STARVING] = "starving",   [QG_KMS_FORWARD_BUSY] = "busy",
	[QG_KMS_FORWARD_FULL] = "full",           [QG_KMS_FORWARD_UNKNOWN] = "unknown",
	[QG_KMS_FORWARD_MISMATCH] = "mismatch",   [QG_KMS_FORWARD_REFUSED] = "refused",
	[QG_KMS_FORWARD_NO_PAD] = "no_pad",
};
#define FORWARD_WITH_MAC (BIT(COUNT(forward_results)) - 1 - BIT(QG_KMS_FORWARD_REFUSED) - BIT(QG_KMS_FORWARD_NO_PAD))

static const char *const make_results[] = {
	[QG_KMS_MAKE_HELD] = "held", [QG_KMS_MAKE_UNKNOWN] = "unknown", [QG_KMS_MAKE_EXISTS] = "exists",
	[QG_KMS_MAKE_FULL] = "full", [QG_KMS_MAKE_REFUSED] = "refused", [QG_KMS_MAKE_NO_PAD] = "no_pad",
	[QG_KMS_MAKE_PENDING] = "pending", [QG_KMS_MAKE_FAILED] = "failed",
};
#define MAKE_WITH_MAC (BIT(COUNT(make_results)) - 1 - BIT(QG_KMS_MAKE_REFUSED) - BIT(QG_KMS_MAKE_NO_PAD))

static const char *const link_states[] = {
	[QG_KMS_LINK_UP] = "up", [QG_KMS_LINK_DOWN] = "down", [QG_KMS_LINK_STARVING] = "starving",
};

static const qg_kms_field kme_item[] = NAME_ITEM(QG_KMS_NAME_MAX + 1);

static const qg_kms_field id_item[] = {
	{.name = NULL, .form = QG_KMS_FORM_UUID, .size = sizeof(qg_uuid)},
};

static const qg_kms_field pad_fields[] = {
	BYTES(qg_kms_pad, epoch),
	NUMBER(qg_kms_pad, segment, 0, UINT32_MAX),
	NUMBER(qg_kms_pad, offset, 0, UINT32_MAX),
	NUMBER(qg_kms_pad, len, 1, QG_KMS_DATA_MAX + QG_KMS_MAC_OVERHEAD),
};

/* The members of `masked` stand in the message itself, last. */
#define MASKED(type) \
	MEMBER_AS("link", type, masked.link, QG_KMS_FORM_NAME, .min = 0), \
	LIST("pads", type, masked.pad, masked.n_pads, 2, QG_KMS_PADS_MAX, pad_fields, .distinct = false), \
	MEMBER_AS("oldest_mac", type, masked.oldest_mac, QG_KMS_FORM_NUMBER, .max = UINT32_MAX), \
	MEMBER_AS("oldest_pad", type, masked.oldest_pad, QG_KMS_FORM_NUMBER, .max = UINT32_MAX), \
	MEMBER_AS("opened_pad", type, masked.opened_pad, QG_KMS_FORM_NUMBER, .max = UINT32_MAX), \
	MEMBER_AS("mac", type, masked.mac, QG_KMS_FORM_BYTES, .min = 0), \
	MEMBER_AS("data", type, masked.data, QG_KMS_FORM_DATA, .min = 1, .max = QG_KMS_DATA_MAX, \
		  .count_at = offsetof(type, masked.data_len))

static const qg_kms_field forward_fields[] = {
	NAME(qg_kms_forward, stream),
	BYTES(qg_kms_forward, epoch),
	NUMBER(qg_kms_forward, segment, 0, UINT32_MAX),
	NUMBER(qg_kms_forward, first, 0, UINT32_MAX),
	NUMBER(qg_kms_forward, count, 1, QG_KMS_DATA_MAX),
	NUMBER(qg_kms_forward, chunk_size, 1, QG_KMS_DATA_MAX),
	NUMBER(qg_kms_forward, share, 0, SHARES_MAX - 1),
	NUMBER(qg_kms_forward, shares, 1, SHARES_MAX),
	LIST("path", qg_kms_forward, path, n_path, 2, QG_KMS_PATH_MAX, kme_item, .distinct = true),
	NUMBER(qg_kms_forward, hop, 0, QG_KMS_PATH_MAX - 2),
	NUMBER(qg_kms_forward, timeout_ms, 0, UINT32_MAX),
	MASKED(qg_kms_forward),
};

static const qg_kms_field forward_answer_fields[] = {
	WORD(qg_kms_forward_answer, result, forward_results),
	NAME(qg_kms_forward_answer, at),
	MAC_WITH(qg_kms_forward_answer, FORWARD_WITH_MAC),
};

static const qg_kms_field made_key_fields[] = {
	UUID(qg_kms_made_key, id),
	NUMBER(qg_kms_made_key, size, 1, KEY_SIZE_MAX),
};

static const qg_kms_field make_fields[] = {
	NAME(qg_kms_make, from),
	NAME(qg_kms_make, to),
	NAME(qg_kms_make, initiator),
	SAES("targets", qg_kms_make, targets, .optional = false),
	NUMBER(qg_kms_make, lifetime_s, 0, UINT32_MAX),
	LIST("keys", qg_kms_make, key, n_keys, 1, QG_KMS_MAKE_MAX, made_key_fields, .distinct = true),
	MASKED(qg_kms_make),
};

static const qg_kms_field make_answer_fields[] = {
	WORD(qg_kms_make_answer, result, make_results),
	MAC_WITH(qg_kms_make_answer, MAKE_WITH_MAC),
};

static const qg_kms_field delete_fields[] = {
	NAME(qg_kms_delete, initiator),
	LIST("ids", qg_kms_delete, id, n, 1, QG_KMS_MAKE_MAX, id_item, .distinct = true),
};

static const qg_kms_field delete_answer_fields[] = {
	NUMBER(qg_kms_delete_answer, voided, 0, QG_KMS_MAKE_MAX),
	NUMBER(qg_kms_delete_answer, delivered, 0, QG_KMS_MAKE_MAX),
};

static const qg_kms_field link_fields[] = {
	NAME(qg_kms_link, peer),
	WORD(qg_kms_link, state, link_states),
	NUMBER(qg_kms_link, bytes, 0, JSON_NUMBER_MAX),
};

static const qg_kms_field report_fields[] = {
	NAME(qg_kms_report, origin),
	NUMBER(qg_kms_report, sequence, 0, JSON_NUMBER_MAX),
	LIST("links", qg_kms_report, link, n, 0, QG_KMS_LINKS_MAX, link_fields, .distinct = true),
};

/* --- what masks a message -------------------------------------------------- */

static bool
pads_overlap(const qg_kms_pad *a, const qg_kms_pad *b)
{
	return a->segment == b->segment && memcmp(a->epoch, b->epoch, sizeof a->epoch) == 0 &&
	       a->offset < b->offset + b->len && b->offset < a->offset + a->len;
}

/* The ranges of MAC key are whole ranges, in front: they lie in segments of
 * another use than those of the pads (SOUNDNESS 6). */
static bool
mac_keys_apart(const qg_kms_masked *m)
{
	uint32_t sum = 0;

	for (size_t i = 0; i < m->n_pads && sum < QG_KMS_MAC_OVERHEAD; i++)
		sum += m->pad[i].len;
	return sum == QG_KMS_MAC_OVERHEAD;
}

/* Every byte has its pad, and no byte of node key is named twice. */
static bool
masked_sound(const qg_kms_masked *m)
{
	size_t sum = 0;

	for (size_t i = 0; i < m->n_pads; i++) {
		if (m->pad[i].offset > UINT32_MAX - m->pad[i].len)
			return false;
		sum += m->pad[i].len;
		for (size_t j = 0; j < i; j++) {
			if (pads_overlap(&m->pad[i], &m->pad[j]))
				return false;
		}
	}
	return sum == QG_KMS_MAC_OVERHEAD + m->data_len && mac_keys_apart(m);
}

static void
put_masked(qg_writer *w, const qg_kms_masked *m)
{
	qg_put_lstr(w, m->link);
	qg_put_u8(w, (uint8_t)m->n_pads);
	for (size_t i = 0; i < m->n_pads; i++) {
		qg_put_bytes(w, m->pad[i].epoch, sizeof m->pad[i].epoch);
		qg_put_u32(w, m->pad[i].segment);
		qg_put_u32(w, m->pad[i].offset);
		qg_put_u32(w, m->pad[i].len);
	}
	qg_put_u32(w, m->oldest_mac);
	qg_put_u32(w, m->oldest_pad);
	qg_put_u32(w, m->opened_pad);
}

/* --- forward_keys ---------------------------------------------------------- */

static bool
forward_sound(const void *message)
{
	const qg_kms_forward *m = message;

	return (uint64_t)m->count * m->chunk_size == m->masked.data_len && m->first <= UINT32_MAX - m->count &&
	       m->share < m->shares && m->hop + (size_t)1 < m->n_path && masked_sound(&m->masked);
}

static const qg_kms_layout forward_layout = LAYOUT(qg_kms_forward, forward_fields, forward_sound);
CODEC(forward, qg_kms_forward)

void
qg_kms_forward_canonical(const qg_kms_forward *m, qg_writer *w)
{
	qg_put_lstr(w, "qkdgate forward_keys");
	qg_put_u8(w, QG_KMS_VERSION);
	qg_put_lstr(w, m->stream);
	qg_put_bytes(w, m->epoch, sizeof m->epoch);
	qg_put_u32(w, m->segment);
	qg_put_u32(w, m->first);
	qg_put_u32(w, m->count);
	qg_put_u32(w, m->chunk_size);
	qg_put_u8(w, m->share);
	qg_put_u8(w, m->shares);
	qg_put_u8(w, (uint8_t)m->n_path);
	for (size_t i = 0; i < m->n_path; i++)
		qg_put_lstr(w, m->path[i]);
	qg_put_u8(w, m->hop);
	qg_put_u32(w, m->timeout_ms);
	put_masked(w, &m->masked);
}

static const qg_kms_layout forward_answer_layout = LAYOUT(qg_kms_forward_answer, forward_answer_fields, NULL);
CODEC(forward_answer, qg_kms_forward_answer)

void
qg_kms_forward_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], const qg_kms_forward_answer *a,
				qg_writer *w)
{
	qg_put_lstr(w, "qkdgate forward_keys answer");
	qg_put_bytes(w, request_mac, QG_MAC_BYTES);
	qg_put_u8(w, (uint8_t)a->result);
	qg_put_lstr(w, a->at);
}

/* --- make_keys_external ---------------------------------------------------- */

static bool
make_sound(const void *message)
{
	const qg_kms_make *m = message;
	size_t sum = 0;

	for (size_t i = 0; i < m->n_keys; i++)
		sum += m->key[i].size;
	return sum == m->masked.data_len && strcmp(m->from, m->to) != 0 && masked_sound(&m->masked);
}

static const qg_kms_layout make_layout = LAYOUT(qg_kms_make, make_fields, make_sound);
CODEC(make, qg_kms_make)

void
qg_kms_make_canonical(const qg_kms_make *m, qg_writer *w)
{
	qg_put_lstr(w, "qkdgate make_keys_external");
	qg_put_u8(w, QG_KMS_VERSION);
	qg_put_lstr(w, m->from);
	qg_put_lstr(w, m->to);
	qg_put_lstr(w, m->initiator);
	qg_put_u8(w, (uint8_t)m->targets.n);
	for (size_t i = 0; i < m->targets.n; i++)
		qg_put_lstr(w, m->targets.id[i]);
	qg_put_u32(w, m->lifetime_s);
	qg_put_u8(w, (uint8_t)m->n_keys);
	for (size_t i = 0; i < m->n_keys; i++) {
		qg_put_bytes(w, m->key[i].id.b, sizeof m->key[i].id.b);
		qg_put_u32(w, m->key[i].size);
	}
	put_masked(w, &m->masked);
}

static const qg_kms_layout make_answer_layout = LAYOUT(qg_kms_make_answer, make_answer_fields, NULL);
CODEC(make_answer, qg_kms_make_answer)

void
qg_kms_make_answer_canonical(const uint8_t request_mac[QG_MAC_BYTES], const qg_kms_make_answer *a, qg_writer *w)
{
	qg_put_lstr(w, "qkdgate make_keys_external answer");
	qg_put_bytes(w, request_mac, QG_MAC_BYTES);
	qg_put_u8(w, (uint8_t)a->result);
}

/* --- delete_keys, post_status ---------------------------------------------- */

static bool
delete_answer_sound(const void *message)
{
	const qg_kms_delete_answer *m = message;

	return m->voided + m->delivered <= QG_KMS_MAKE_MAX;
}

static const qg_kms_layout delete_layout = LAYOUT(qg_kms_delete, delete_fields, NULL);
CODEC(delete, qg_kms_delete)

static const qg_kms_layout delete_answer_layout =
	LAYOUT(qg_kms_delete_answer, delete_answer_fields, delete_answer_sound);
CODEC(delete_answer, qg_kms_delete_answer)

/* No link of a KME to itself. */
static bool
report_sound(const void *message)
{
	const qg_kms_report *m = message;

	for (size_t i = 0; i < m->n; i++) {
		if (strcmp(m->link[i].peer, m->origin) == 0)
			return false;
	}
	return true;
}

static const qg_kms_layout report_layout = LAYOUT(qg_kms_report, report_fields, report_sound);
CODEC(report, qg_kms_report)
