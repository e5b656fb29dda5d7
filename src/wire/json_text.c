/* SPDX-License-Identifier: Apache-2.0 */
#include "json_text_internal.h"

#include <string.h>

#include "qkdgate/encode.h"

static bool
blank(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static bool
digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* --- frames ----------------------------------------------------------------- */

qg_err
qg_json_text_frame(const uint8_t *p, size_t n, size_t *total)
{
	size_t i = 0;
	unsigned depth = 0;
	bool in_string = false;
	while (i < n && blank(p[i]))
		i++;
	if (i < n && p[i] != '{')
		return QG_E_PARSE;
	for (; i < n; i++) {
		if (in_string) {
			if (p[i] == '\\')
				i++;
			else if (p[i] == '"')
				in_string = false;
			continue;
		}
		in_string = p[i] == '"';
		if (p[i] == '{' || p[i] == '[')
			depth++;
		else if (p[i] == '}' || p[i] == ']')
			depth--;
		if (depth > QG_JSON_TEXT_DEPTH)
			return QG_E_PARSE;
		if (depth == 0) {
			*total = i + 1;
			return QG_OK;
		}
	}
	return QG_E_AGAIN;
}

/* --- reading ---------------------------------------------------------------- */

qg_json_in
qg_json_in_of(uint8_t *p, size_t n)
{
	return (qg_json_in){.p = p, .end = p + n};
}

static void
pass_blanks(qg_json_in *in)
{
	while (in->p < in->end && blank(*in->p))
		in->p++;
}

char
qg_json_peek(qg_json_in *in)
{
	pass_blanks(in);
	return in->bad || in->p == in->end ? '\0' : (char)*in->p;
}

static bool
take(qg_json_in *in, char c)
{
	if (qg_json_peek(in) != c)
		return false;
	in->p++;
	return true;
}

static void
need(qg_json_in *in, char c)
{
	if (!take(in, c))
		in->bad = true;
}

static bool
take_word(qg_json_in *in, const char *word)
{
	size_t n = strlen(word);
	pass_blanks(in);
	if (in->bad || (size_t)(in->end - in->p) < n || memcmp(in->p, word, n) != 0)
		return false;
	in->p += n;
	return true;
}

bool
qg_json_null(qg_json_in *in)
{
	return take_word(in, "null");
}

/* The length of the UTF-8 character of n bytes at p, 0 when it is none. */
static size_t
utf8_length(const uint8_t *p, size_t n)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	if (p[0] < 0x80)
		return 1;
	size_t len = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
	if (p[0] < 0xc2 || p[0] > 0xf4 || n < len)
		return 0;
	uint32_t v = p[0] & (0x7fu >> len);
	for (size_t i = 1; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		v = v << 6 | (p[i] & 0x3fu);
	}
	bool fine = v >= least[len] && v <= 0x10ffff && !(v >= 0xd800 && v <= 0xdfff);
	return fine ? len : 0;
}

/* Four hex digits, or a value over 0xffff. */
static uint32_t
hex4(qg_json_in *in)
{
	uint32_t v = 0;
	if (in->end - in->p < 4)
		return UINT32_MAX;
	for (int i = 0; i < 4; i++) {
		uint8_t c = *in->p++, lower = c | 0x20;
		if (!digit(c) && !(lower >= 'a' && lower <= 'f'))
			return UINT32_MAX;
		v = v << 4 | (uint32_t)(digit(c) ? c - '0' : lower - 'a' + 10);
	}
	return v;
}

/* The code point of \uXXXX, behind the u; 0, which is not allowed, for what is none. */
static uint32_t
code_point(qg_json_in *in)
{
	uint32_t high = hex4(in);
	if (high > 0xffff || (high >= 0xdc00 && high <= 0xdfff))
		return 0;
	if (high < 0xd800 || high > 0xdbff)
		return high;
	if (in->end - in->p < 2 || in->p[0] != '\\' || in->p[1] != 'u')
		return 0;
	in->p += 2;
	uint32_t low = hex4(in);
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	return 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
}

static uint8_t *
put_utf8(uint8_t *to, uint32_t v)
{
	if (v < 0x80) {
		*to++ = (uint8_t)v;
		return to;
	}
	unsigned more = v < 0x800 ? 1 : v < 0x10000 ? 2 : 3;
	static const uint8_t lead[] = {0, 0xc0, 0xe0, 0xf0};
	*to++ = (uint8_t)(lead[more] | v >> (6 * more));
	while (more-- > 0)
		*to++ = (uint8_t)(0x80 | (v >> (6 * more) & 0x3f));
	return to;
}

/* What is behind a backslash goes to *to; false when it is no escape. */
static bool
unescape(qg_json_in *in, uint8_t **to)
{
	static const char from[] = "\"\\/bfnrt", into[] = "\"\\/\b\f\n\r\t";
	if (in->p == in->end)
		return false;
	uint8_t c = *in->p++;
	if (c == 'u') {
		uint32_t v = code_point(in);
		if (v != 0)
			*to = put_utf8(*to, v);
		return v != 0;
	}
	const char *at = c != '\0' ? strchr(from, c) : NULL;
	if (at == NULL)
		return false;
	*(*to)++ = (uint8_t)into[at - from];
	return true;
}

const char *
qg_json_string(qg_json_in *in, size_t *n)
{
	need(in, '"');
	uint8_t *start = in->p, *to = in->p;
	while (!in->bad && in->p < in->end && *in->p != '"') {
		uint8_t c = *in->p;
		if (c == '\\') {
			in->p++;
			in->bad = !unescape(in, &to);
			continue;
		}
		size_t len = c < 0x20 ? 0 : utf8_length(in->p, (size_t)(in->end - in->p));
		in->bad = len == 0;
		memmove(to, in->p, len);
		to += len;
		in->p += len;
	}
	if (in->bad || in->p == in->end) {
		in->bad = true;
		return NULL;
	}
	in->p++;
	*to = '\0'; /* at the closing quote, or before it */
	*n = (size_t)(to - start);
	return (const char *)start;
}

/* A number ends where none of its characters follows. */
static bool
number_ended(const qg_json_in *in)
{
	return in->p == in->end || !(digit(*in->p) || strchr(".eE+-", *in->p) != NULL) || *in->p == '\0';
}

uint32_t
qg_json_uint(qg_json_in *in, uint32_t max)
{
	uint64_t v = 0;
	pass_blanks(in);
	const uint8_t *start = in->p;
	while (!in->bad && in->p < in->end && digit(*in->p)) {
		v = v * 10 + (uint64_t)(*in->p++ - '0');
		in->bad = v > max || (in->p - start > 1 && *start == '0');
	}
	if (in->p == start || !number_ended(in))
		in->bad = true;
	return in->bad ? 0 : (uint32_t)v;
}

const uint8_t *
qg_json_bytes(qg_json_in *in, size_t *n)
{
	if (qg_json_peek(in) != '[') {
		in->bad = true;
		return NULL;
	}
	uint8_t *start = in->p++, *to = start;
	bool more = !take(in, ']');
	while (more && !in->bad) { /* each number has two characters or more */
		*to++ = (uint8_t)qg_json_uint(in, UINT8_MAX);
		more = take(in, ',');
		if (!more)
			need(in, ']');
	}
	*n = (size_t)(to - start);
	return in->bad ? NULL : start;
}

/* --- passing over ----------------------------------------------------------- */

static void
skip_digits(qg_json_in *in)
{
	const uint8_t *start = in->p;
	while (in->p < in->end && digit(*in->p))
		in->p++;
	if (in->p == start)
		in->bad = true;
}

static void
skip_number(qg_json_in *in)
{
	if (*in->p == '-')
		in->p++;
	if (in->p < in->end && *in->p == '0')
		in->p++;
	else
		skip_digits(in);
	if (!in->bad && in->p < in->end && *in->p == '.') {
		in->p++;
		skip_digits(in);
	}
	if (!in->bad && in->p < in->end && (*in->p | 0x20) == 'e') {
		in->p++;
		if (in->p < in->end && (*in->p == '+' || *in->p == '-'))
			in->p++;
		skip_digits(in);
	}
	if (!in->bad && !number_ended(in))
		in->bad = true;
}

static bool
enter(qg_json_in *in, char bracket)
{
	need(in, bracket);
	if (++in->depth > QG_JSON_TEXT_DEPTH)
		in->bad = true;
	return !in->bad;
}

/* Whether another member or element follows; else the closing bracket is taken. */
static bool
follows(qg_json_in *in, bool first, char closing)
{
	if (in->bad)
		return false;
	if (first ? !take(in, closing) : take(in, ','))
		return true;
	if (!first)
		need(in, closing);
	in->depth--;
	return false;
}

static void
skip_array(qg_json_in *in)
{
	enter(in, '[');
	for (bool first = true; follows(in, first, ']'); first = false)
		qg_json_skip(in);
}

void
qg_json_skip(qg_json_in *in) /* NOLINT(misc-no-recursion): QG_JSON_TEXT_DEPTH bounds it */
{
	size_t n;
	char c = qg_json_peek(in);
	if (c == '"')
		(void)qg_json_string(in, &n);
	else if (c == '{')
		qg_json_object(in, NULL, 0, NULL, NULL);
	else if (c == '[')
		skip_array(in);
	else if (c == '-' || digit((uint8_t)c))
		skip_number(in);
	else if (!take_word(in, "null") && !take_word(in, "true") && !take_word(in, "false"))
		in->bad = true;
}

void
qg_json_object(qg_json_in *in, const qg_json_field *fields, size_t n, void *into, uint32_t *seen)
{
	enter(in, '{');
	for (bool first = true; follows(in, first, '}'); first = false) {
		size_t len, i = 0;
		const char *name = qg_json_string(in, &len);
		need(in, ':');
		if (in->bad)
			return;
		while (i < n && strcmp(fields[i].name, name) != 0)
			i++;
		if (i == n) {
			qg_json_skip(in);
			continue;
		}
		if ((*seen >> i & 1) != 0)
			in->bad = true;
		*seen |= UINT32_C(1) << i;
		fields[i].read(in, into);
	}
}

bool
qg_json_ended(qg_json_in *in)
{
	pass_blanks(in);
	return !in->bad && in->p == in->end;
}

/* --- writing ---------------------------------------------------------------- */

void
qg_json_put(qg_writer *w, const char *text)
{
	qg_put_bytes(w, text, strlen(text));
}

void
qg_json_put_uint(qg_writer *w, uint32_t v)
{
	char digits[10];
	size_t i = sizeof digits;
	do
		digits[--i] = (char)('0' + v % 10);
	while ((v /= 10) != 0);
	qg_put_bytes(w, digits + i, sizeof digits - i);
}

static void
put_escaped(qg_writer *w, uint8_t c)
{
	static const char from[] = "\"\\\b\f\n\r\t", into[] = "\"\\bfnrt", hex[] = "0123456789abcdef";
	const char *at = c != 0 ? strchr(from, c) : NULL;
	qg_put_u8(w, '\\');
	if (at != NULL) {
		qg_put_u8(w, (uint8_t)into[at - from]);
		return;
	}
	qg_json_put(w, "u00");
	qg_put_u8(w, (uint8_t)hex[c >> 4]);
	qg_put_u8(w, (uint8_t)hex[c & 15]);
}

void
qg_json_put_string(qg_writer *w, const void *text, size_t n)
{
	const uint8_t *p = text;
	qg_put_u8(w, '"');
	for (size_t i = 0; i < n && !w->bad;) {
		size_t len = p[i] != 0 ? utf8_length(p + i, n - i) : 0;
		if (len == 0)
			w->bad = true;
		else if (p[i] < 0x20 || p[i] == '"' || p[i] == '\\')
			put_escaped(w, p[i]);
		else
			qg_put_bytes(w, p + i, len);
		i += len;
	}
	qg_put_u8(w, '"');
}

void
qg_json_put_bytes(qg_writer *w, const uint8_t *p, size_t n)
{
	qg_put_u8(w, '[');
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			qg_put_u8(w, ',');
		qg_json_put_uint(w, p[i]);
	}
	qg_put_u8(w, ']');
}

void
qg_json_put_base64(qg_writer *w, const uint8_t *p, size_t n)
{
	size_t len = QG_BASE64_LEN(n);
	qg_put_u8(w, '"');
	if (w->bad || len > w->room - w->len) {
		w->bad = true;
		return;
	}
	qg_base64_encode(p, n, (char *)w->buf + w->len);
	w->len += len;
	qg_put_u8(w, '"');
}
