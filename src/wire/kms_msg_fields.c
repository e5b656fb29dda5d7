/* SPDX-License-Identifier: Apache-2.0 */
#include "kms_msg_internal.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/encode.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/uuid.h"

#define BYTES_MAX 32 /* of a QG_KMS_FORM_BYTES member */

/* Unsigned members are one, four or eight bytes long; enums are four. */
static uint64_t
number_load(const uint8_t *at, size_t size)
{
	uint32_t four;
	uint64_t eight;

	switch (size) {
	case 1:
		return *at;
	case sizeof four:
		memcpy(&four, at, sizeof four);
		return four;
	default:
		memcpy(&eight, at, sizeof eight);
		return eight;
	}
}

static void
number_store(uint8_t *at, size_t size, uint64_t v)
{
	uint32_t four = (uint32_t)v;

	switch (size) {
	case 1:
		*at = (uint8_t)v;
		break;
	case sizeof four:
		memcpy(at, &four, sizeof four);
		break;
	default:
		memcpy(at, &v, sizeof v);
		break;
	}
}

/* Of the field whose value is at `at`: it counts itself elsewhere in the struct. */
static size_t
count_load(const qg_kms_field *f, const uint8_t *at)
{
	size_t n;

	memcpy(&n, at - f->at + f->count_at, sizeof n);
	return n;
}

static void
count_store(const qg_kms_field *f, uint8_t *at, size_t n)
{
	memcpy(at - f->at + f->count_at, &n, sizeof n);
}

/* Whether the object has that member, as far as the struct says. */
static bool
present(const qg_kms_field *table, const qg_kms_field *f, const uint8_t *m)
{
	uint64_t first;

	if (f->only_with == 0)
		return true;
	first = number_load(m + table->at, table->size);
	return first < 32 && (f->only_with >> first & 1) != 0;
}

static bool
same_value(const qg_kms_field *f, const uint8_t *a, const uint8_t *b)
{
	if (f->form == QG_KMS_FORM_NAME)
		return strncmp((const char *)a, (const char *)b, f->size) == 0;
	return memcmp(a, b, f->size) == 0;
}

/* Lists are of 128 at most. */
static bool
has_repeated(const qg_kms_field *f, const uint8_t *at, size_t n)
{
	const uint8_t *first = at + f->item->at;

	for (size_t i = 1; f->distinct && i < n; i++) {
		for (size_t j = 0; j < i; j++) {
			if (same_value(f->item, first + i * f->stride, first + j * f->stride))
				return true;
		}
	}
	return false;
}

static bool
name_ok(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (s[i] < 0x20 || s[i] > 0x7e)
			return false;
	}
	return len > 0;
}

/* --- encoding ------------------------------------------------------------ */

static json_t *
name_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	const char *s = (const char *)at;
	size_t len = strnlen(s, f->size);

	if (len == f->size || !name_ok(s, len)) {
		*err = QG_E_INVAL;
		return NULL;
	}
	return json_stringn(s, len);
}

static json_t *
uuid_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	char text[QG_UUID_TEXT];
	qg_uuid u;

	(void)f;
	(void)err;
	memcpy(&u, at, sizeof u);
	qg_uuid_format(&u, text);
	return json_string(text);
}

static json_t *
bytes_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	char text[2 * BYTES_MAX];

	if (f->size > BYTES_MAX) {
		*err = QG_E_INVAL;
		return NULL;
	}
	qg_hex_encode(at, f->size, text);
	return json_stringn(text, 2 * f->size);
}

static json_t *
number_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	uint64_t v = number_load(at, f->size);

	if (v < f->min || v > f->max) {
		*err = QG_E_INVAL;
		return NULL;
	}
	return json_integer((json_int_t)v);
}

static json_t *
word_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	uint64_t v = number_load(at, f->size);

	if (v >= f->n_words || !f->words[v]) {
		*err = QG_E_INVAL;
		return NULL;
	}
	return json_string(f->words[v]);
}

static json_t *
flag_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	(void)f;
	(void)err;
	return json_boolean(*at != 0);
}

static json_t *
data_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	size_t n = count_load(f, at), len = QG_BASE64_LEN(n);
	json_t *value;
	char *text;

	if (n < f->min || n > f->max) {
		*err = QG_E_INVAL;
		return NULL;
	}
	text = malloc(len + 1);
	if (!text)
		return NULL;
	qg_base64_encode(at, n, text);
	value = json_stringn_nocheck(text, len);
	free(text);
	return value;
}

static json_t *value_put(const qg_kms_field *f, const uint8_t *at, qg_err *err);

static json_t *
item_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	json_t *object;
	qg_err put;

	if (!f->item->name)
		return value_put(f->item, at + f->item->at, err);
	object = json_object();
	put = object ? qg_kms_fields_put(object, f->item, f->n_items, at) : QG_E_NOMEM;
	if (put == QG_OK)
		return object;
	*err = put;
	json_decref(object);
	return NULL;
}

static json_t *
list_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	size_t n = count_load(f, at);
	json_t *list;

	if (n < f->min || n > f->max || has_repeated(f, at, n)) {
		*err = QG_E_INVAL;
		return NULL;
	}
	list = json_array();
	for (size_t i = 0; list && i < n; i++) {
		json_t *item = item_put(f, at + i * f->stride, err);

		if (!item || json_array_append_new(list, item) != 0) { /* takes it, also when it fails */
			json_decref(list);
			return NULL;
		}
	}
	return list;
}

/* --- decoding ------------------------------------------------------------ */

static bool
name_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	const char *s = json_string_value(value);
	size_t len = json_string_length(value);

	if (!s || len >= f->size || !name_ok(s, len))
		return false;
	memcpy(at, s, len + 1);
	return true;
}

static bool
uuid_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	const char *s = json_string_value(value);
	qg_uuid u;

	(void)f;
	if (!s || qg_uuid_parse(s, json_string_length(value), &u) != QG_OK)
		return false;
	memcpy(at, &u, sizeof u);
	return true;
}

static bool
bytes_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	const char *s = json_string_value(value);

	return s && strpbrk(s, "ABCDEF") == NULL &&
	       qg_hex_decode(s, json_string_length(value), at, f->size) == QG_OK;
}

static bool
number_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	json_int_t v = json_integer_value(value);

	if (!json_is_integer(value) || v < 0 || (uint64_t)v < f->min || (uint64_t)v > f->max)
		return false;
	number_store(at, f->size, (uint64_t)v);
	return true;
}

static bool
word_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	const char *s = json_string_value(value);

	for (size_t i = 0; s && i < f->n_words; i++) {
		if (f->words[i] && strcmp(f->words[i], s) == 0) {
			number_store(at, f->size, i);
			return true;
		}
	}
	return false;
}

static bool
flag_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	bool flag = json_is_true(value);

	(void)f;
	if (!json_is_boolean(value))
		return false;
	memcpy(at, &flag, sizeof flag);
	return true;
}

static bool
data_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	const char *s = json_string_value(value);
	size_t n;

	if (!s || qg_base64_decode(s, json_string_length(value), at, f->size, &n) != QG_OK)
		return false;
	if (n < f->min || n > f->max)
		return false;
	count_store(f, at, n);
	return true;
}

static bool value_get(const qg_kms_field *f, const json_t *value, uint8_t *at);

static bool
item_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	if (!f->item->name)
		return value_get(f->item, value, at + f->item->at);
	return qg_kms_fields_get(value, f->item, f->n_items, 0, at) == QG_OK;
}

static bool
list_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	size_t n = json_array_size(value);

	if (!json_is_array(value) || n < f->min || n > f->max)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (!item_get(f, json_array_get(value, i), at + i * f->stride))
			return false;
	}
	count_store(f, at, n);
	return !has_repeated(f, at, n);
}

static const struct {
	json_t *(*put)(const qg_kms_field *f, const uint8_t *at, qg_err *err); /* NULL: *err, else no memory */
	bool (*get)(const qg_kms_field *f, const json_t *value, uint8_t *at);
} forms[] = {
	[QG_KMS_FORM_NAME] = {name_put, name_get},       [QG_KMS_FORM_UUID] = {uuid_put, uuid_get},
	[QG_KMS_FORM_BYTES] = {bytes_put, bytes_get},    [QG_KMS_FORM_NUMBER] = {number_put, number_get},
	[QG_KMS_FORM_WORD] = {word_put, word_get},       [QG_KMS_FORM_FLAG] = {flag_put, flag_get},
	[QG_KMS_FORM_DATA] = {data_put, data_get},       [QG_KMS_FORM_LIST] = {list_put, list_get},
};

static json_t *
value_put(const qg_kms_field *f, const uint8_t *at, qg_err *err)
{
	return forms[f->form].put(f, at, err);
}

static bool
value_get(const qg_kms_field *f, const json_t *value, uint8_t *at)
{
	return value && forms[f->form].get(f, value, at);
}

qg_err
qg_kms_fields_put(json_t *object, const qg_kms_field *f, size_t n, const void *m)
{
	const uint8_t *from = m;

	for (size_t i = 0; i < n; i++) {
		const uint8_t *at = from + f[i].at;
		qg_err err = QG_E_NOMEM;
		json_t *value;

		if (!present(f, &f[i], from) || (f[i].optional && count_load(&f[i], at) == 0))
			continue;
		value = value_put(&f[i], at, &err);
		if (!value)
			return err;
		if (json_object_set_new(object, f[i].name, value) != 0)
			return QG_E_NOMEM;
	}
	return QG_OK;
}

qg_err
qg_kms_fields_get(const json_t *object, const qg_kms_field *f, size_t n, size_t n_others, void *m)
{
	uint8_t *to = m;
	size_t found = n_others;

	for (size_t i = 0; i < n; i++) {
		const json_t *value = json_object_get(object, f[i].name);

		if (!present(f, &f[i], to) || (f[i].optional && !value))
			continue;
		if (!value_get(&f[i], value, to + f[i].at))
			return QG_E_PARSE;
		found++;
	}
	return json_object_size(object) == found ? QG_OK : QG_E_PARSE;
}

/* --- messages -------------------------------------------------------------- */

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

/* --- data behind all else ---------------------------------------------------- */

/* Most of a message that carries key is one string of base64, its last member. It
 * is written behind the text of the others, and read in place where it stands as
 * we write it: a tree would copy and check it character by character. */

static const qg_kms_field *
last_data(const qg_kms_layout *l)
{
	const qg_kms_field *f = &l->field[l->n_fields - 1];

	return f->form == QG_KMS_FORM_DATA && f->only_with == 0 && !f->optional ? f : NULL;
}

/* The text before its value: ,"name":" */
#define BEFORE_DATA_MAX 32

static size_t
before_data(const qg_kms_field *f, char text[BEFORE_DATA_MAX])
{
	int n = snprintf(text, BEFORE_DATA_MAX, ",\"%s\":\"", f->name);

	return n > 0 && n < BEFORE_DATA_MAX ? (size_t)n : 0;
}

/* Behind the object of *len bytes in out, which ends with its brace. */
static qg_err
data_write(const qg_kms_field *f, const uint8_t *m, char *out, size_t room, size_t *len)
{
	char before[BEFORE_DATA_MAX];
	size_t n = count_load(f, m + f->at), n_before = before_data(f, before), at = *len - 1;

	if (n < f->min || n > f->max)
		return QG_E_INVAL;
	if (room < at || room - at < n_before + QG_BASE64_LEN(n) + 2)
		return QG_E_RANGE;
	memcpy(out + at, before, n_before);
	at += n_before;
	qg_base64_encode(m + f->at, n, out + at);
	at += QG_BASE64_LEN(n);
	memcpy(out + at, "\"}", 2);
	*len = at + 2;
	return QG_OK;
}

/* Where the value begins, if the text ends as data_write ends it; else 0. Then the
 * text without the value is a message exactly when the whole is one and the
 * value has nothing but base64: the same quotes stand in the same places. */
static size_t
data_begin(const qg_kms_field *f, const char *json, size_t len)
{
	char before[BEFORE_DATA_MAX];
	size_t n_before = before_data(f, before), begin;
	const char *quote;

	if (len < 2 || json[len - 1] != '}' || json[len - 2] != '"')
		return 0;
	quote = memrchr(json, '"', len - 2);
	if (!quote)
		return 0;
	begin = (size_t)(quote - json) + 1;
	return begin > n_before && memcmp(json + begin - n_before, before, n_before) == 0 ? begin : 0;
}

/* The others into the zeroed struct, then the value. False: it is not as we write
 * it, which says nothing of whether it is a message. */
static bool
data_read(const qg_kms_layout *l, const qg_kms_field *f, const char *json, size_t len, void *m)
{
	size_t begin = data_begin(f, json, len), n = 0;
	uint8_t *at = (uint8_t *)m + f->at;
	JSON_AUTO *object = NULL;
	char *others;

	if (begin == 0 || len > QG_KMS_MSG_MAX)
		return false;
	others = malloc(begin + 2);
	if (!others)
		return false;
	memcpy(others, json, begin);
	memcpy(others + begin, "\"}", 2);
	object = message_read(others, begin + 2);
	free(others);
	/* The version and the value are members besides these. */
	if (!object || qg_kms_fields_get(object, l->field, l->n_fields - 1, 2, m) != QG_OK ||
	    qg_base64_decode(json + begin, len - 2 - begin, at, f->size, &n) != QG_OK || n < f->min || n > f->max)
		return false;
	count_store(f, at, n);
	return true;
}

/* --- whole messages ---------------------------------------------------------- */

qg_err
qg_kms_layout_encode(const qg_kms_layout *l, const void *m, char *out, size_t room, size_t *len)
{
	JSON_AUTO *object = message_new();
	const qg_kms_field *data = last_data(l);
	size_t n_fields = l->n_fields - (data != NULL), n = 0;
	qg_err err = object ? qg_kms_fields_put(object, l->field, n_fields, m) : QG_E_NOMEM;

	if (err == QG_OK && l->sound && !l->sound(m))
		err = QG_E_INVAL;
	if (err == QG_OK)
		err = message_write(object, out, room, &n);
	if (err == QG_OK && data)
		err = data_write(data, m, out, room, &n);
	if (err == QG_OK)
		*len = n;
	return err;
}

static qg_err
tree_read(const qg_kms_layout *l, const char *json, size_t len, void *m)
{
	JSON_AUTO *object = message_read(json, len);

	memset(m, 0, l->size);
	return object ? qg_kms_fields_get(object, l->field, l->n_fields, 1, m) : QG_E_PARSE;
}

qg_err
qg_kms_layout_decode(const qg_kms_layout *l, const char *json, size_t len, void *m)
{
	const qg_kms_field *data = last_data(l);
	void *got = calloc(1, l->size);
	qg_err err = QG_OK;

	if (!got)
		return QG_E_NOMEM;
	if (!data || !data_read(l, data, json, len, got))
		err = tree_read(l, json, len, got);
	if (err == QG_OK && l->sound && !l->sound(got))
		err = QG_E_PARSE;
	if (err == QG_OK)
		memcpy(m, got, l->size);
	free(got);
	return err;
}

bool
qg_kms_sae_fits(const char *id)
{
	size_t n = strnlen(id, QG_KMS_SAE_MAX + 1);
	if (n == 0 || n > QG_KMS_SAE_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (id[i] < ' ' || id[i] > '~')
			return false;
	return true;
}
