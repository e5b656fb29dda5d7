/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_UUID_H
#define QKDGATE_UUID_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* Identifiers of RFC 9562 in network order. Not secret. */

#define QG_UUID_TEXT 37 /* with the NUL */

typedef struct qg_uuid {
	uint8_t b[16];
} qg_uuid;

/* A random version 4 UUID from the kernel's generator. Any thread. */
void qg_uuid_random(qg_uuid *out);

/* Parses the 36-character form, either case, nothing before or after: text
 * has exactly len characters. QG_E_PARSE. */
qg_err qg_uuid_parse(const char *text, size_t len, qg_uuid *out) QG_CHECKED;

/* Writes the lower-case form and a NUL. */
void qg_uuid_format(const qg_uuid *u, char out[QG_UUID_TEXT]);

bool qg_uuid_equal(const qg_uuid *a, const qg_uuid *b);
bool qg_uuid_is_null(const qg_uuid *u);

#endif
