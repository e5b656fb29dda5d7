/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/bytes.h"

#include <string.h>

/* --- reading --------------------------------------------------------------- */

qg_reader
qg_reader_of(const void *p, size_t n)
{
	static const uint8_t nothing[1];
	return (qg_reader){.p = n > 0 ? p : nothing, .left = n, .bad = false};
}

const uint8_t *
qg_get_bytes(qg_reader *r, size_t n)
{
	if (r->bad || n > r->left) {
		r->bad = true;
		return NULL;
	}
	const uint8_t *p = r->p;
	r->p += n;
	r->left -= n;
	return p;
}

static uint64_t
get_uint(qg_reader *r, size_t n)
{
	const uint8_t *p = qg_get_bytes(r, n);
	uint64_t v = 0;
	for (size_t i = 0; p != NULL && i < n; i++)
		v = v << 8 | p[i];
	return v;
}

uint8_t
qg_get_u8(qg_reader *r)
{
	return (uint8_t)get_uint(r, 1);
}

uint16_t
qg_get_u16(qg_reader *r)
{
	return (uint16_t)get_uint(r, 2);
}

uint32_t
qg_get_u32(qg_reader *r)
{
	return (uint32_t)get_uint(r, 4);
}

uint64_t
qg_get_u64(qg_reader *r)
{
	return get_uint(r, 8);
}

const char *
qg_get_cstr(qg_reader *r)
{
	const uint8_t *end = r->bad ? NULL : memchr(r->p, 0, r->left);
	if (end == NULL) {
		r->bad = true;
		return NULL;
	}
	return (const char *)qg_get_bytes(r, (size_t)(end - r->p) + 1);
}

/* --- writing --------------------------------------------------------------- */

qg_writer
qg_writer_of(void *p, size_t room)
{
	return (qg_writer){.buf = p, .room = room, .len = 0, .bad = false};
}

/* Room for n more bytes, or NULL. */
static uint8_t *
claim(qg_writer *w, size_t n)
{
	if (w->bad || n > w->room - w->len) {
		w->bad = true;
		return NULL;
	}
	uint8_t *p = w->buf + w->len;
	w->len += n;
	return p;
}

static void
put_uint(qg_writer *w, uint64_t v, size_t n)
{
	uint8_t *p = claim(w, n);
	for (size_t i = n; p != NULL && i > 0; i--, v >>= 8)
		p[i - 1] = (uint8_t)v;
}

void
qg_put_u8(qg_writer *w, uint8_t v)
{
	put_uint(w, v, 1);
}

void
qg_put_u16(qg_writer *w, uint16_t v)
{
	put_uint(w, v, 2);
}

void
qg_put_u32(qg_writer *w, uint32_t v)
{
	put_uint(w, v, 4);
}

void
qg_put_u64(qg_writer *w, uint64_t v)
{
	put_uint(w, v, 8);
}

void
qg_put_bytes(qg_writer *w, const void *p, size_t n)
{
	if (n == 0)
		return;
	uint8_t *to = claim(w, n);
	if (to != NULL)
		memcpy(to, p, n);
}

void
qg_put_cstr(qg_writer *w, const char *s)
{
	qg_put_bytes(w, s, strlen(s) + 1);
}

void
qg_put_lstr(qg_writer *w, const char *s)
{
	size_t n = strlen(s);
	uint8_t *to = n <= UINT16_MAX ? claim(w, 2 + n) : NULL;
	if (to == NULL) {
		w->bad = true;
		return;
	}
	to[0] = (uint8_t)(n >> 8);
	to[1] = (uint8_t)n;
	memcpy(to + 2, s, n);
}

uint32_t
qg_hash(const void *p, size_t n)
{
	const uint8_t *b = p;
	uint32_t h = 2166136261u;
	for (size_t i = 0; i < n; i++)
		h = (h ^ b[i]) * 16777619u;
	return h ^ h >> 16;
}
