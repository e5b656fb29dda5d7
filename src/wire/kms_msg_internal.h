/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KMS_MSG_INTERNAL_H
#define QKDGATE_KMS_MSG_INTERNAL_H

#include <jansson.h>
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
	QG_KMS_FORM_FLAG    /* bool */
} qg_kms_form;

typedef struct qg_kms_field {
	const char *name;
	qg_kms_form form;
	size_t at, size; /* of the member in the struct */
	uint64_t min, max;
	const char *const *words;
	size_t n_words;
} qg_kms_field;

/* Adds the members to the object in the table's order. QG_E_INVAL when one has
 * no valid value, QG_E_NOMEM. */
qg_err qg_kms_fields_put(json_t *object, const qg_kms_field *f, size_t n, const void *m) QG_CHECKED;

/* Reads every field of the table into the struct m, which is written in part
 * also on QG_E_PARSE. That the object has no other members is for the caller
 * to check. */
qg_err qg_kms_fields_get(const json_t *object, const qg_kms_field *f, size_t n, void *m) QG_CHECKED;

#endif
