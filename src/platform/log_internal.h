/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_LOG_INTERNAL_H
#define QKDGATE_LOG_INTERNAL_H

#include <stddef.h>

#include "qkdgate/log.h"

/* The log:
 *   log.c      levels, the form of a line
 *   log_out.c  where lines go, and what becomes of those that cannot */

#define QG_LOG_TEXT_MAX 1024 /* of the pairs that a caller gives */
/* Below PIPE_BUF: a line is written whole or not at all. In JSON, the last pairs
 * are left out where they would not fit. */
#define QG_LOG_LINE_MAX (3 * QG_LOG_TEXT_MAX + 512)

/* What the journal shows of a line. */
typedef struct qg_log_parts {
	qg_log_level level;
	const char *module, *text, *request; /* request: "" where it belongs to none */
} qg_log_parts;

/* The line with its newline; returns its length. */
size_t qg_log_form(const qg_log_parts *p, char to[QG_LOG_LINE_MAX]);

/* Writes a line of n bytes with its newline; `parts` for the journal. Any thread,
 * never blocks for longer than QG_LOG_PATIENCE_MS, and not again while it fails. */
void qg_log_put(const char *line, size_t n, const qg_log_parts *parts);

#define QG_LOG_PATIENCE_MS 100

#endif
