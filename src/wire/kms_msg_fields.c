/* SPDX-License-Identifier: Apache-2.0 */
#include "kms_msg_internal.h"

#include <stdbool.h>
#include <string.h>

#include "qkdgate/encode.h"
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

static const struct {
	json_t *(*put)(const qg_kms_field *f, const uint8_t *at, qg_err *err); /* NULL: *err, else no memory */
	bool (*get)(const qg_kms_field *f, const json_t *value, uint8_t *at);
} forms[] = {
	[QG_KMS_FORM_NAME] = {name_put, name_get},       [QG_KMS_FORM_UUID] = {uuid_put, uuid_get},
	[QG_KMS_FORM_BYTES] = {bytes_put, bytes_get},    [QG_KMS_FORM_NUMBER] = {number_put, number_get},
	[QG_KMS_FORM_WORD] = {word_put, word_get},       [QG_KMS_FORM_FLAG] = {flag_put, flag_get},
};

qg_err
qg_kms_fields_put(json_t *object, const qg_kms_field *f, size_t n, const void *m)
{
	const uint8_t *from = m;

	for (size_t i = 0; i < n; i++) {
		qg_err err = QG_E_NOMEM;
		json_t *value = forms[f[i].form].put(&f[i], from + f[i].at, &err);

		if (!value)
			return err;
		if (json_object_set_new(object, f[i].name, value) != 0)
			return QG_E_NOMEM;
	}
	return QG_OK;
}

qg_err
qg_kms_fields_get(const json_t *object, const qg_kms_field *f, size_t n, void *m)
{
	uint8_t *to = m;

	for (size_t i = 0; i < n; i++) {
		const json_t *value = json_object_get(object, f[i].name);

		if (!value || !forms[f[i].form].get(&f[i], value, to + f[i].at))
			return QG_E_PARSE;
	}
	return QG_OK;
}
