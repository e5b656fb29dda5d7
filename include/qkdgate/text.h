/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TEXT_H
#define QKDGATE_TEXT_H

#include <stddef.h>
#include <string.h>

/* Bounded writing of text into memory of the caller's. What does not fit is only
 * counted, so that the room needed can be asked for first: with buf NULL (and room
 * 0) nothing is written at all. Whole pieces or nothing; no NUL behind. */

typedef struct qg_text {
	char *buf;
	size_t room, len; /* len > room: did not fit */
} qg_text;

static inline void
qg_text_put(qg_text *t, const char *s, size_t n)
{
	if (t->buf != NULL && t->len <= t->room && n <= t->room - t->len && n > 0)
		memcpy(t->buf + t->len, s, n);
	t->len += n;
}

#define QG_TEXT_PUT(t, literal) qg_text_put(t, literal, sizeof(literal) - 1)

/* Base64 of n bytes. */
void qg_text_put_base64(qg_text *t, const unsigned char *value, size_t n);

/* A JSON string (RFC 8259) in its quotes: control characters, quotes and
 * backslashes are escaped, other bytes pass as they are. */
void qg_text_put_json_string(qg_text *t, const char *s);

#endif
