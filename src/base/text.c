/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/text.h"

#include <assert.h>
#include <stdio.h>

#include "qkdgate/encode.h"

void
qg_text_put_base64(qg_text *t, const unsigned char *value, size_t n)
{
	const size_t len = QG_BASE64_LEN(n);
	if (t->buf != NULL && t->len <= t->room && len <= t->room - t->len)
		qg_base64_encode(value, n, t->buf + t->len);
	t->len += len;
}

void
qg_text_put_json_string(qg_text *t, const char *s)
{
	QG_TEXT_PUT(t, "\"");
	for (;; s++) {
		size_t plain = 0;
		while ((unsigned char)s[plain] >= ' ' && s[plain] != '"' && s[plain] != '\\')
			plain++;
		qg_text_put(t, s, plain);
		s += plain;
		char escape[7];
		if (*s == '\0')
			break;
		const int n = *s == '"' || *s == '\\' ? snprintf(escape, sizeof escape, "\\%c", *s)
						      : snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*s);
		assert(n > 0 && (size_t)n < sizeof escape);
		qg_text_put(t, escape, (size_t)n);
	}
	QG_TEXT_PUT(t, "\"");
}
