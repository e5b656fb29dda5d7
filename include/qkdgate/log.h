/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_LOG_H
#define QKDGATE_LOG_H

#include "qkdgate/error.h"

/* The operating log: one line per event, key=value, identifiers only, never
 * key material. Lines go to stderr in one write each, with time, level and
 * module in front: `2026-01-01T00:00:00.000Z info stream event=... ...`.
 * Any thread. The audit log is another thing: audit.h. */

typedef enum qg_log_level { QG_LOG_ERROR, QG_LOG_WARN, QG_LOG_INFO, QG_LOG_DEBUG } qg_log_level;
typedef enum qg_log_format { QG_LOG_TEXT, QG_LOG_JSON } qg_log_format;

/* Sets what is written and how. Before any other thread is started. */
void qg_log_init(qg_log_level level, qg_log_format format);

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

/* Writes one line; the text is key=value pairs of which the first is event=.
 * Values that come from outside are passed through qg_log_safe first. */
void qg_log(qg_log_level level, const char *module, const char *fmt, ...) QG_PRINTF(3, 4);

/* Text from outside, cut to 128 characters and with everything but printable
 * ASCII without space, quote and backslash replaced by '?'. The result stands
 * in a ring of 8 buffers of the calling thread. */
const char *qg_log_safe(const char *text);

#endif
