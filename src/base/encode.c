/* SPDX-License-Identifier: Apache-2.0 */
/* No table look-ups and no branches on the data, so that neither caches nor
 * time tell of it. (libsodium's encoders want room for a NUL that callers do
 * not have.) */
#include "qkdgate/encode.h"

#include <stdbool.h>

/* All ones where a < b, a > b, a == b, for values below 2^16. */
#define LT(a, b) ((uint32_t)(0u - (((uint32_t)(a) - (uint32_t)(b)) >> 31)))
#define GT(a, b) LT(b, a)
#define IN(c, lo, hi) (~LT(c, lo) & ~GT(c, hi))

static inline char
base64_char(uint32_t v)
{
	/* 'A' and the gaps between the runs A-Z, a-z, 0-9, +, / */
	uint32_t c = v + 'A';
	c += GT(v, 25) & ('a' - 'Z' - 1);
	c -= GT(v, 51) & ('z' - '0' + 1);
	c -= GT(v, 61) & ('9' - '+' + 1);
	c += GT(v, 62) & ('/' - '+' - 1);
	return (char)c;
}

/* 0 to 63; 64 and more for what is not of the alphabet. */
static inline uint32_t
base64_value(char ch)
{
	uint32_t c = (uint8_t)ch;
	uint32_t upper = IN(c, 'A', 'Z'), lower = IN(c, 'a', 'z'), digit = IN(c, '0', '9');
	uint32_t plus = IN(c, '+', '+'), slash = IN(c, '/', '/');
	uint32_t v = (upper & (c - 'A')) | (lower & (c - 'a' + 26)) | (digit & (c - '0' + 52));
	v |= (plus & 62) | (slash & 63);
	return v | (~(upper | lower | digit | plus | slash) & 64);
}

void
qg_base64_encode(const uint8_t *in, size_t n, char *out)
{
	for (; n >= 3; n -= 3, in += 3, out += 4) {
		uint32_t v = (uint32_t)in[0] << 16 | (uint32_t)in[1] << 8 | in[2];
		out[0] = base64_char(v >> 18);
		out[1] = base64_char(v >> 12 & 63);
		out[2] = base64_char(v >> 6 & 63);
		out[3] = base64_char(v & 63);
	}
	if (n == 0)
		return;
	uint32_t v = (uint32_t)in[0] << 16 | (n == 2 ? (uint32_t)in[1] << 8 : 0);
	out[0] = base64_char(v >> 18);
	out[1] = base64_char(v >> 12 & 63);
	out[2] = '=';
	if (n == 2)
		out[2] = base64_char(v >> 6 & 63);
	out[3] = '=';
}

/* The last group of four, which may be padded; bits beyond the data must be 0
 * (RFC 4648, 3.5). n_out is 1, 2 or 3. */
static bool
decode_last(const char *in, size_t n_out, uint8_t *out)
{
	uint32_t a = base64_value(in[0]), b = base64_value(in[1]);
	uint32_t c = n_out > 1 ? base64_value(in[2]) : 0;
	uint32_t d = n_out > 2 ? base64_value(in[3]) : 0;
	uint32_t v = a << 18 | b << 12 | c << 6 | d;
	uint32_t rest = n_out == 3 ? 0 : v & (n_out == 1 ? 0xffffu : 0xffu);
	for (size_t i = 0; i < n_out; i++)
		out[i] = (uint8_t)(v >> (16 - 8 * i));
	return ((a | b | c | d) & 64) == 0 && rest == 0;
}

qg_err
qg_base64_decode(const char *in, size_t n, uint8_t *out, size_t room, size_t *out_len)
{
	if (n % 4 != 0)
		return QG_E_PARSE;
	if (n == 0) {
		*out_len = 0;
		return QG_OK;
	}
	size_t pad = in[n - 1] != '=' ? 0 : in[n - 2] != '=' ? 1 : 2;
	size_t len = n / 4 * 3 - pad;
	if (len > room)
		return QG_E_RANGE;
	uint32_t bad = 0;
	size_t groups = n / 4 - 1;
	for (size_t i = 0; i < groups; i++, in += 4, out += 3) {
		uint32_t a = base64_value(in[0]), b = base64_value(in[1]);
		uint32_t c = base64_value(in[2]), d = base64_value(in[3]);
		bad |= a | b | c | d;
		uint32_t v = a << 18 | b << 12 | c << 6 | d;
		out[0] = (uint8_t)(v >> 16);
		out[1] = (uint8_t)(v >> 8);
		out[2] = (uint8_t)v;
	}
	bool last = decode_last(in, 3 - pad, out);
	if (!last || (bad & 64) != 0)
		return QG_E_PARSE;
	*out_len = len;
	return QG_OK;
}

static inline char
hex_char(uint32_t v)
{
	return (char)(v + '0' + (GT(v, 9) & ('a' - '9' - 1)));
}

/* 0 to 15; 16 and more for what is no digit. */
static inline uint32_t
hex_value(char ch)
{
	uint32_t c = (uint8_t)ch;
	uint32_t digit = IN(c, '0', '9'), lower = IN(c, 'a', 'f'), upper = IN(c, 'A', 'F');
	uint32_t v = (digit & (c - '0')) | (lower & (c - 'a' + 10)) | (upper & (c - 'A' + 10));
	return v | (~(digit | lower | upper) & 16);
}

void
qg_hex_encode(const uint8_t *in, size_t n, char *out)
{
	for (size_t i = 0; i < n; i++) {
		out[2 * i] = hex_char((uint32_t)in[i] >> 4);
		out[2 * i + 1] = hex_char(in[i] & 15u);
	}
}

qg_err
qg_hex_decode(const char *in, size_t n_chars, uint8_t *out, size_t n)
{
	if (n_chars % 2 != 0 || n_chars / 2 != n)
		return QG_E_PARSE;
	uint32_t bad = 0;
	for (size_t i = 0; i < n; i++) {
		uint32_t high = hex_value(in[2 * i]), low = hex_value(in[2 * i + 1]);
		bad |= high | low;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return (bad & 16) != 0 ? QG_E_PARSE : QG_OK;
}
