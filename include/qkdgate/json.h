/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_JSON_H
#define QKDGATE_JSON_H

#include <stdbool.h>
#include <stddef.h>

#include "qkdgate/error.h"

/* JSON from outside, over jansson. Once this module is linked in, everything
 * that jansson allocates in the process is wiped when it is freed, because
 * requests and answers may hold keys. (The setting is made before main and for
 * good; what jansson returns can still be given to free.) */

struct json_t;

#define QG_JSON_DEPTH_MAX 32     /* arrays and objects in one another */
#define QG_JSON_VALUES_MAX 16384 /* in one text: jansson takes 100 bytes for each of 3 */
#define QG_JSON_MEMBER_MAX 64

typedef struct qg_json_error {
	const char *what;                /* fixed text: "is a duplicate", ... */
	char member[QG_JSON_MEMBER_MAX]; /* name of the member at fault, printable, or "" */
} qg_json_error;

/* Parses exactly one JSON object (RFC 8259, UTF-8) of len bytes: members
 * unique, no U+0000, integers of 64 bits. The caller owns *out. QG_E_PARSE with
 * *why filled; QG_E_NOMEM. Any thread. */
qg_err qg_json_parse_object(const char *text, size_t len, struct json_t **out, qg_json_error *why) QG_CHECKED;

/* The same for exactly one array. */
qg_err qg_json_parse_array(const char *text, size_t len, struct json_t **out, qg_json_error *why) QG_CHECKED;

/* Whether this thread got no memory for JSON since it asked last, or parsed: what it
 * has built since then may lack values. */
bool qg_json_ran_out(void);

/* Frees, wiped; takes NULL and pointers to NULL, and sets *j to NULL. */
void qg_json_free(struct json_t **j);

#endif
