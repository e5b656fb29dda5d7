/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/uuid.h"

#include <string.h>

#include "qkdgate/encode.h"
#include "qkdgate/secret.h"

/* The runs of bytes between the hyphens (RFC 9562, 4). */
static const struct {
	size_t byte, n, text;
} runs[] = {{0, 4, 0}, {4, 2, 9}, {6, 2, 14}, {8, 2, 19}, {10, 6, 24}};
#define N_RUNS (sizeof runs / sizeof runs[0])

void
qg_uuid_random(qg_uuid *out)
{
	qg_random(out->b, sizeof out->b);
	out->b[6] = (uint8_t)((out->b[6] & 0x0f) | 0x40); /* version 4 */
	out->b[8] = (uint8_t)((out->b[8] & 0x3f) | 0x80); /* variant */
}

qg_err
qg_uuid_parse(const char *text, size_t len, qg_uuid *out)
{
	qg_uuid u;
	if (len != QG_UUID_TEXT - 1)
		return QG_E_PARSE;
	for (size_t i = 0; i < N_RUNS; i++) {
		if (i > 0 && text[runs[i].text - 1] != '-')
			return QG_E_PARSE;
		if (qg_hex_decode(text + runs[i].text, 2 * runs[i].n, u.b + runs[i].byte, runs[i].n) != QG_OK)
			return QG_E_PARSE;
	}
	*out = u;
	return QG_OK;
}

void
qg_uuid_format(const qg_uuid *u, char out[QG_UUID_TEXT])
{
	for (size_t i = 0; i < N_RUNS; i++) {
		if (i > 0)
			out[runs[i].text - 1] = '-';
		qg_hex_encode(u->b + runs[i].byte, runs[i].n, out + runs[i].text);
	}
	out[QG_UUID_TEXT - 1] = '\0';
}

bool
qg_uuid_equal(const qg_uuid *a, const qg_uuid *b)
{
	return memcmp(a->b, b->b, sizeof a->b) == 0;
}

bool
qg_uuid_is_null(const qg_uuid *u)
{
	static const qg_uuid null;
	return qg_uuid_equal(u, &null);
}
