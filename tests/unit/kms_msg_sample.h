/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_KMS_MSG_SAMPLE_H
#define TESTS_UNIT_KMS_MSG_SAMPLE_H

#include <setjmp.h>
#include <stdalign.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "qkdgate/encode.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/secret.h"

/* A message, and the JSON that it is. Each program has its own `samples`. */

#define COUNT(table) (sizeof(table) / sizeof *(table))

#define KSID \
	{{0x46, 0xc8, 0xa6, 0x8c, 0x21, 0x21, 0x4f, 0x92, 0xa7, 0xc9, 0x27, 0xef, 0x9f, 0xb6, 0xf9, 0xf6}}
#define SIXTEEN {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0xff}
#define MAC {0xf0, 0xe1, 0xd2, 0xc3, 0xb4, 0xa5, 0x96, 0x87, 0x78, 0x69, 0x5a, 0x4b, 0x3c, 0x2d, 0x1e, 0x0f}
#define KSID_TEXT "\"46c8a68c-2121-4f92-a7c9-27ef9fb6f9f6\""
#define SIXTEEN_TEXT "\"000102030405060708090a0b0c0d0eff\""
#define MAC_TEXT "\"f0e1d2c3b4a5968778695a4b3c2d1e0f\""

#define WRAP(name) \
	static qg_err name##_encode(const void *m, char *out, size_t room, size_t *len) \
	{ \
		return qg_kms_##name##_encode(m, out, room, len); \
	} \
	static qg_err name##_decode(const char *json, size_t len, void *m) \
	{ \
		return qg_kms_##name##_decode(json, len, m); \
	}

typedef struct sample {
	const char *what;
	qg_err (*encode)(const void *m, char *out, size_t room, size_t *len);
	qg_err (*decode)(const char *json, size_t len, void *m);
	const void *m;
	size_t size;
	const char *json;
} sample;

extern const sample samples[];
extern const size_t n_samples;

/* A message decoded. */
static alignas(max_align_t) uint8_t got[65536];

/* Writes the sample's JSON into text[room], with the first `was` in it replaced. */
static void
replaced(const sample *s, const char *was, const char *now, char *text, size_t room)
{
	const char *at = strstr(s->json, was);
	int n;

	assert_non_null(at);
	n = snprintf(text, room, "%.*s%s%s", (int)(at - s->json), s->json, now, at + strlen(was));
	assert_in_range(n, 1, room - 1);
}

#endif
