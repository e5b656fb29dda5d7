/* SPDX-License-Identifier: Apache-2.0 */
/* No table look-ups and no branches on the data, so that neither caches nor
 * time tell of it. (libsodium's encoders want room for a NUL that callers do
 * not have.) */
#include "qkdgate/encode.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "qkdgate/secret.h"

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

/* 0x01 in every byte of x that is greater than v; bytes of x are below 64. */
#define ONES UINT64_C(0x0101010101010101)
#define BYTES_GT(x, v) (((x) + (0x7f - (v)) * ONES) >> 7 & ONES)

/* The 48 high bits of w to eight characters, one in each byte of a word; the
 * arithmetic of base64_char on all of them, where no byte ever carries into the
 * next. */
static inline void
base64_eight(uint64_t w, char out[8])
{
	const uint64_t three = UINT64_C(0xffffff), twelve = UINT64_C(0x00000fff00000fff);
	const uint64_t six = UINT64_C(0x003f003f003f003f);
	uint64_t x = (w >> 8 & three << 32) | (w >> 16 & three);
	x = (x << 4 & twelve << 16) | (x & twelve);
	x = (x << 2 & six << 8) | (x & six);
	uint64_t c = x + 'A' * ONES + BYTES_GT(x, 25) * ('a' - 'Z' - 1);
	c -= BYTES_GT(x, 51) * ('z' - '0' + 1);
	c -= BYTES_GT(x, 61) * ('9' - '+' + 1);
	c += BYTES_GT(x, 62) * ('/' - '+' - 1);
	c = htobe64(c);
	memcpy(out, &c, sizeof c);
}

void
qg_base64_encode(const uint8_t *in, size_t n, char *out)
{
	for (; n >= 8; n -= 6, in += 6, out += 8) {
		uint64_t w;
		memcpy(&w, in, sizeof w);
		base64_eight(be64toh(w), out);
	}
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

/* 0x01 in every byte of x that is v or more; bytes of x are below 128. */
#define BYTES_GE(x, v) (((x) + (0x80 - (v)) * ONES) >> 7 & ONES)

/* The 48 bits of eight characters; *bad collects what is of no alphabet. As
 * base64_eight: each range of characters has its own distance to the values. */
static inline uint64_t
base64_eight_back(const char in[8], uint64_t *bad)
{
	uint64_t w;
	memcpy(&w, in, sizeof w);
	w = be64toh(w);
	uint64_t x = w & 0x7f * ONES;
	const uint64_t slash_up = BYTES_GE(x, '/'), digit_up = BYTES_GE(x, '0');
	const uint64_t upper = BYTES_GE(x, 'A') - BYTES_GE(x, 'Z' + 1);
	const uint64_t lower = BYTES_GE(x, 'a') - BYTES_GE(x, 'z' + 1);
	const uint64_t digit = digit_up - BYTES_GE(x, '9' + 1), slash = slash_up - digit_up;
	const uint64_t plus = BYTES_GE(x, '+') - BYTES_GE(x, '+' + 1);
	*bad |= (w & ~x) | (ONES ^ (upper + lower + digit + plus + slash));
	x -= upper * 'A' + lower * ('a' - 26);
	x += digit * (52 - '0') + plus * (62 - '+') + slash * (63 - '/');
	x = (x >> 2 & UINT64_C(0x0fc00fc00fc00fc0)) | (x & UINT64_C(0x003f003f003f003f));
	x = (x >> 4 & UINT64_C(0x00fff00000fff000)) | (x & UINT64_C(0x00000fff00000fff));
	return (x >> 8 & UINT64_C(0xffffff000000)) | (x & UINT64_C(0xffffff));
}

/* The 24 bits of a group of four; *bad collects the marks of bad characters. */
static inline uint32_t
base64_group(const char *in, uint32_t *bad)
{
	uint32_t a = base64_value(in[0]), b = base64_value(in[1]);
	uint32_t c = base64_value(in[2]), d = base64_value(in[3]);
	*bad |= a | b | c | d;
	return a << 18 | b << 12 | c << 6 | d;
}

/* Whether all is well formed: n is a multiple of 4, not 0, and the last `pad`
 * characters are '='. Bits beyond the data must be 0 (RFC 4648, 3.5). */
static bool
base64_valid(const char *in, size_t n, size_t pad)
{
	uint32_t bad = 0;
	uint64_t bad_eight = 0;
	size_t i = 0;
	for (; i + 8 <= n - 4; i += 8)
		(void)base64_eight_back(in + i, &bad_eight);
	for (; i < n - 4; i += 4)
		(void)base64_group(in + i, &bad);
	char last[4] = {in[n - 4], in[n - 3], pad > 1 ? 'A' : in[n - 2], pad > 0 ? 'A' : in[n - 1]};
	uint32_t v = base64_group(last, &bad);
	uint32_t beyond = pad == 0 ? 0 : pad == 1 ? 0xff : 0xffff;
	qg_wipe(last, sizeof last);
	return (bad & 64) == 0 && bad_eight == 0 && (v & beyond) == 0;
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
	if (!base64_valid(in, n, pad))
		return QG_E_PARSE;
	if (len > room)
		return QG_E_RANGE;
	uint32_t bad = 0;
	uint64_t bad_eight = 0;
	size_t i = 0;
	for (; i + 6 <= len; i += 6, in += 8) {
		const uint64_t w = htobe64(base64_eight_back(in, &bad_eight) << 16);
		memcpy(out + i, &w, 6);
	}
	for (; i < len; i += 3, in += 4) {
		uint32_t v = base64_group(in, &bad); /* '=' is 64: of no bit that is kept */
		for (size_t k = 0; k < 3 && i + k < len; k++)
			out[i + k] = (uint8_t)(v >> (16 - 8 * k));
	}
	*out_len = len;
	return QG_OK;
}

/* The digits of four bytes, first byte first; as base64_eight. */
static inline void
hex_eight(const uint8_t in[4], char out[8])
{
	uint32_t v;
	memcpy(&v, in, sizeof v);
	uint64_t x = le32toh(v);
	x = (x | x << 16) & UINT64_C(0x0000ffff0000ffff);
	x = (x | x << 8) & UINT64_C(0x00ff00ff00ff00ff);
	x = (x >> 4 | x << 8) & 0x0f * ONES; /* the high digit is the lower byte */
	x = htole64(x + '0' * ONES + BYTES_GT(x, 9) * ('a' - '9' - 1));
	memcpy(out, &x, sizeof x);
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
	for (; n >= 4; n -= 4, in += 4, out += 8)
		hex_eight(in, out);
	if (n == 0)
		return;
	uint8_t last[4] = {0};
	char text[8];
	memcpy(last, in, n);
	hex_eight(last, text);
	memcpy(out, text, 2 * n);
	qg_wipe(last, sizeof last);
	qg_wipe(text, sizeof text);
}

qg_err
qg_hex_decode(const char *in, size_t n_chars, uint8_t *out, size_t n)
{
	if (n_chars % 2 != 0 || n_chars / 2 != n)
		return QG_E_PARSE;
	uint32_t bad = 0;
	for (size_t i = 0; i < n_chars; i++)
		bad |= hex_value(in[i]);
	if ((bad & 16) != 0)
		return QG_E_PARSE;
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(hex_value(in[2 * i]) << 4 | hex_value(in[2 * i + 1]));
	return QG_OK;
}

size_t
qg_utf8_len(const char *text)
{
	static const struct {
		unsigned char first, last, second_min, second_max;
		size_t len;
	} forms[] = {
		{0x01, 0x7f, 0, 0xff, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},    {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	const unsigned char *const s = (const unsigned char *)text;
	for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
		if (s[0] < forms[f].first || s[0] > forms[f].last)
			continue;
		if (forms[f].len > 1 && (s[1] < forms[f].second_min || s[1] > forms[f].second_max))
			return 0;
		for (size_t i = 2; i < forms[f].len; i++)
			if ((s[i] & 0xc0) != 0x80)
				return 0;
		return forms[f].len;
	}
	return 0;
}
