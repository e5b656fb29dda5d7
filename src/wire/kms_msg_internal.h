/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KMS_MSG_INTERNAL_H
#define QKDGATE_KMS_MSG_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* The members of a JSON object and of the struct it stands for, as a table:
 * one description for encoding and for strict decoding. */

typedef enum qg_kms_form {
	QG_KMS_FORM_NAME,   /* char[]: 1 to size - 1 characters of printable ASCII */
	QG_KMS_FORM_UUID,   /* qg_uuid: text form */
	QG_KMS_FORM_BYTES,  /* uint8_t[]: lower-case hex, exactly so many */
	QG_KMS_FORM_NUMBER, /* uint8_t, uint32_t, uint64_t: an integer, min to max */
	QG_KMS_FORM_WORD,   /* uint8_t or an enum: one of n_words, NULL for none */
	QG_KMS_FORM_FLAG,   /* bool */
	QG_KMS_FORM_DATA,   /* uint8_t[]: base64, min to max bytes */
	QG_KMS_FORM_LIST    /* an array of min to max elements */
} qg_kms_form;

typedef struct qg_kms_field {
	const char *name; /* NULL: the element of a list is this value, not an object */
	qg_kms_form form;
	size_t at, size;  /* of the member in the struct */
	uint64_t min, max;
	const char *const *words;
	size_t n_words;
	/* Not 0: present exactly when the first member of the same table, a word,
	 * has one of these values, as bits. */
	uint32_t only_with;
	size_t count_at; /* DATA and LIST: of the size_t that counts what is there */
	bool optional;   /* LIST: absent when it has no element */
	bool distinct;   /* LIST: no two elements have the same first member */
	const struct qg_kms_field *item;
	size_t n_items;  /* members of an element */
	size_t stride;   /* bytes of an element */
} qg_kms_field;

/* A message: the members of its object besides the version. */
typedef struct qg_kms_layout {
	const qg_kms_field *field;
	size_t n_fields, size;     /* size of the struct */
	bool (*sound)(const void *m); /* what no member says alone; NULL: nothing */
} qg_kms_layout;

/* As the codecs of kms_msg.h. The struct is decoded in memory of its own, so
 * that it takes no room on the stack and is written on success only. */
qg_err qg_kms_layout_encode(const qg_kms_layout *l, const void *m, char *out, size_t room, size_t *len) QG_CHECKED;
qg_err qg_kms_layout_decode(const qg_kms_layout *l, const char *json, size_t len, void *m) QG_CHECKED;

/* Adds the members to the object in the table's order. QG_E_INVAL when one has
 * no valid value, QG_E_NOMEM. */
qg_err qg_kms_fields_put(json_t *object, const qg_kms_field *f, size_t n, const void *m) QG_CHECKED;

/* Reads every field of the table into the zeroed struct m, which is written in
 * part also on an error. QG_E_PARSE, also for an object with more members than
 * those of the table and n_others more; QG_E_NOMEM. */
qg_err qg_kms_fields_get(const json_t *object, const qg_kms_field *f, size_t n, size_t n_others, void *m) QG_CHECKED;

/* --- tables ---------------------------------------------------------------- */

#define COUNT(table) (sizeof(table) / sizeof *(table))
#define SIZE_OF(type, member) sizeof(((type *)0)->member)
#define MEMBER_AS(json, type, member, form_, ...) \
	{.name = json, .form = (form_), .at = offsetof(type, member), .size = SIZE_OF(type, member), __VA_ARGS__}
#define MEMBER(type, member, form_, ...) MEMBER_AS(#member, type, member, form_, __VA_ARGS__)
#define NAME(type, member) MEMBER(type, member, QG_KMS_FORM_NAME, .min = 0)
#define UUID(type, member) MEMBER(type, member, QG_KMS_FORM_UUID, .min = 0)
#define BYTES(type, member) MEMBER(type, member, QG_KMS_FORM_BYTES, .min = 0)
#define FLAG(type, member) MEMBER(type, member, QG_KMS_FORM_FLAG, .min = 0)
#define NUMBER(type, member, min_, max_) \
	MEMBER(type, member, QG_KMS_FORM_NUMBER, .min = (min_), .max = (max_))
#define WORD(type, member, table) \
	MEMBER(type, member, QG_KMS_FORM_WORD, .words = (table), .n_words = COUNT(table))
#define MAC_WITH(type, results) MEMBER(type, mac, QG_KMS_FORM_BYTES, .only_with = (results))
#define LIST(json, type, array, count, min_, max_, items, ...) \
	MEMBER_AS(json, type, array, QG_KMS_FORM_LIST, .min = (min_), .max = (max_), \
		  .count_at = offsetof(type, count), .item = (items), .n_items = COUNT(items), \
		  .stride = SIZE_OF(type, array[0]), __VA_ARGS__)
#define SAES(json, type, member, ...) \
	LIST(json, type, member.id, member.n, 1, QG_KMS_SAES_MAX, qg_kms_sae_item, .distinct = true, __VA_ARGS__)
#define SAES_OPTIONAL(type) SAES("saes", type, saes, .optional = true)

/* The element of a list of names. */
#define NAME_ITEM(room) {{.name = NULL, .form = QG_KMS_FORM_NAME, .size = (room)}}
extern const qg_kms_field qg_kms_sae_item[1];

#define LAYOUT(type, fields, sound_) \
	{.field = (fields), .n_fields = COUNT(fields), .size = sizeof(type), .sound = (sound_)}
/* The two functions of QG_KMS_CODEC(name, type), by the layout name_layout. */
#define CODEC(name, type) \
	qg_err qg_kms_##name##_encode(const type *m, char *out, size_t room, size_t *len) \
	{ \
		return qg_kms_layout_encode(&name##_layout, m, out, room, len); \
	} \
	qg_err qg_kms_##name##_decode(const char *json, size_t len, type *m) \
	{ \
		return qg_kms_layout_decode(&name##_layout, json, len, m); \
	}

#endif
