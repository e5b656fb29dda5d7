/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_LOG_H
#define QKDGATE_LOG_H

#include <stdbool.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* The operating log: one line per event, key=value, identifiers only, never
 * key material. Lines go out in one write each, with time, level and
 * module in front: `2026-01-01T00:00:00.000Z info stream event=... ...`, and
 * `request=ID` behind where the thread works on a request (request_id.h).
 * Any thread. The audit log is another thing: audit.h. */

typedef enum qg_log_level { QG_LOG_ERROR, QG_LOG_WARN, QG_LOG_INFO, QG_LOG_DEBUG } qg_log_level;
typedef enum qg_log_format { QG_LOG_TEXT, QG_LOG_JSON } qg_log_format;

/* Sets what is written and how. Before any other thread is started. */
void qg_log_init(qg_log_level level, qg_log_format format);

typedef enum qg_log_to {
	QG_LOG_STDERR,
	QG_LOG_JOURNAL, /* with fields of its own; the format is not used */
	QG_LOG_FILE     /* appended to, made with mode 0640 */
} qg_log_to;

/* Where lines go from now on; without the call: standard error. The path is that
 * of the file or of the journal's socket, and is copied; longer than 4,095 bytes
 * counts as unreachable. What cannot be reached stops nobody: lines are lost and
 * counted, it is tried again with each second's first line, and standard error (the
 * journal, where standard error fails) is told once. Before any other thread is
 * started. */
void qg_log_open(qg_log_to to, const char *path);

/* The file, which may have been moved away, is opened or made anew; so is the
 * journal's socket. On failure (QG_E_IO) what was open stays. Any thread. */
qg_err qg_log_reopen(void) QG_CHECKED;

typedef struct qg_log_state {
	bool works;    /* the last line could be written */
	uint64_t lost; /* lines since the start that could not */
} qg_log_state;
qg_log_state qg_log_get_state(void);

/* At run time: what is written of one module ("stream", "kms", ...), or of all
 * that have no level of their own (module NULL). Any thread. QG_E_FULL when 32
 * modules have one, QG_E_RANGE: a name longer than 31 bytes. */
qg_err qg_log_set_level(const char *module, qg_log_level level) QG_CHECKED;
/* Takes a module's own level back. */
void qg_log_reset_level(const char *module);
qg_log_level qg_log_get_level(void);
/* Those that have a level of their own. `each` must not log. */
void qg_log_levels(void (*each)(const char *module, qg_log_level level, void *ctx), void *ctx);
/* "error", "warn", "info", "debug"; and the other way: QG_E_INVAL. */
const char *qg_log_level_name(qg_log_level level);
qg_err qg_log_level_of(const char *name, qg_log_level *out) QG_CHECKED;

/* Whether a line of that level would be written: for what is dear to put together. */
bool qg_log_wants(qg_log_level level, const char *module);

/* Writes one line; the text is key=value pairs of which the first is event=.
 * Values that come from outside are passed through qg_log_safe first. */
void qg_log(qg_log_level level, const char *module, const char *fmt, ...) QG_PRINTF(3, 4);

/* Text from outside, cut to 128 characters and with everything but printable
 * ASCII without space, quote and backslash replaced by '?'. The result stands
 * in a ring of 8 buffers of the calling thread. */
const char *qg_log_safe(const char *text);

#endif
