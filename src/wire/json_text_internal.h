/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_JSON_TEXT_INTERNAL_H
#define QKDGATE_JSON_TEXT_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/bytes.h"
#include "qkdgate/error.h"

/* JSON (RFC 8259) of messages that carry key: read where it lies, nothing is
 * allocated, and what has been decoded stands in the place of its text. Strict:
 * UTF-8, no U+0000, no member twice. As with qg_reader an access to what is not
 * there sets `bad` and leaves every later one without effect. */

#define QG_JSON_TEXT_DEPTH 8 /* objects and arrays in one another */

typedef struct qg_json_in {
	uint8_t *p, *end;
	unsigned depth;
	bool bad;
} qg_json_in;

/* The length of the object that n bytes begin with, blanks before it included.
 * Looks at brackets and strings alone. QG_E_AGAIN: not whole; QG_E_PARSE: no
 * object begins so, or one nested too deeply. */
qg_err qg_json_text_frame(const uint8_t *p, size_t n, size_t *total) QG_CHECKED;

qg_json_in qg_json_in_of(uint8_t *p, size_t n);

/* The first character of the next value; 0 where there is none. */
char qg_json_peek(qg_json_in *in);

/* Takes null, if that is next. */
bool qg_json_null(qg_json_in *in);

/* A string, decoded in place, with a NUL behind it. NULL when bad. */
const char *qg_json_string(qg_json_in *in, size_t *n);

/* An integer from 0 to max, as digits alone. */
uint32_t qg_json_uint(qg_json_in *in, uint32_t max);

/* An array of numbers from 0 to 255 as bytes, in the place of the text. */
const uint8_t *qg_json_bytes(qg_json_in *in, size_t *n);

/* Any value, checked and passed over. */
void qg_json_skip(qg_json_in *in);

/* A member of an object and what reads its value. */
typedef struct qg_json_field {
	const char *name;
	void (*read)(qg_json_in *in, void *into);
} qg_json_field;

#define QG_JSON_FIELDS_MAX 16

/* An object. Members that are not of the table are passed over; one that comes
 * twice is bad. Bits of *seen tell which were there, by their place. */
void qg_json_object(qg_json_in *in, const qg_json_field *fields, size_t n, void *into, uint32_t *seen);

/* Whether all was well and nothing but blanks is left. */
bool qg_json_ended(qg_json_in *in);

/* --- writing ---------------------------------------------------------------- */

/* Text as it is. */
void qg_json_put(qg_writer *w, const char *text);
void qg_json_put_uint(qg_writer *w, uint32_t v);
/* n bytes of UTF-8 in quotes, escaped; others set w->bad. */
void qg_json_put_string(qg_writer *w, const void *text, size_t n);
/* An array of numbers. */
void qg_json_put_bytes(qg_writer *w, const uint8_t *p, size_t n);
/* Base64 in quotes. */
void qg_json_put_base64(qg_writer *w, const uint8_t *p, size_t n);

#endif
