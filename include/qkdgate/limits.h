/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_LIMITS_H
#define QKDGATE_LIMITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"

/* Rates: token buckets by name (an SAE, a pair), and a sliding window of
 * amounts by name. Hash tables of bounded size with the oldest idle entry
 * replaced. Any thread; a short lock. */

typedef struct qg_limits qg_limits;

/* per_s 0: everything passes. burst: bucket size (at least per_s). */
qg_err qg_limits_new(uint32_t per_s, uint32_t burst, qg_limits **out) QG_CHECKED;
void qg_limits_free(qg_limits **l);

/* Another rate from now on; who has more than the new burst keeps that much. */
void qg_limits_set(qg_limits *l, uint32_t per_s, uint32_t burst);

/* Takes n tokens of the name's bucket, all or none. QG_E_LIMIT, with the wait
 * in *retry_after_s (at least 1). `now_ms` as of qg_clock_elapsed_ms. */
qg_err qg_limits_take(qg_limits *l, const char *name, uint32_t n, uint64_t now_ms, uint32_t *retry_after_s)
	QG_CHECKED;

/* Names that are seen from now on begin with an empty bucket, as of now_ms: for a
 * start after which nobody knows what was used before. */
void qg_limits_begin_empty(qg_limits *l, uint64_t now_ms);

/* What is in the name's bucket, in thousandths of a token; false: all, or there is no
 * rate. And puts it there, plus what away_ms would have added; never more than all. */
bool qg_limits_level(qg_limits *l, const char *name, uint64_t now_ms, uint64_t *milli);
void qg_limits_put(qg_limits *l, const char *name, uint64_t milli, uint64_t away_ms, uint64_t now_ms);

typedef struct qg_window qg_window;

/* At most `most` within window_s per name; most 0: everything passes. */
qg_err qg_window_new(uint32_t window_s, uint64_t most, qg_window **out) QG_CHECKED;
void qg_window_free(qg_window **w);

/* Adds n, or QG_E_LIMIT with nothing added and the wait in *retry_after_s. */
qg_err qg_window_add(qg_window *w, const char *name, uint64_t n, uint64_t now_ms, uint32_t *retry_after_s)
	QG_CHECKED;

/* What the name has within the window. */
uint64_t qg_window_sum(qg_window *w, const char *name, uint64_t now_ms);

/* --- over a restart --- */

/* The key with which names are hashed, instead of a random one: before the first name. */
#define QG_WINDOW_KEY 16
void qg_window_use_key(qg_window *w, const uint8_t key[QG_WINDOW_KEY]);

#define QG_WINDOW_NAME 16
#define QG_WINDOW_SLOTS 33
typedef struct qg_window_amounts {
	uint8_t name[QG_WINDOW_NAME]; /* the hash of it */
	uint64_t slot_ms;
	uint64_t began_ms_ago;        /* the newest slot */
	uint64_t n[QG_WINDOW_SLOTS];  /* the newest first */
} qg_window_amounts;

/* Copies the amounts of names that changed since the call before, up to `most`; how many. */
size_t qg_window_changed(qg_window *w, uint64_t now_ms, qg_window_amounts *out, size_t most);

/* These names count as changed once more: what was copied could not be kept. */
void qg_window_again(qg_window *w, const qg_window_amounts *a, size_t n);

/* Adds amounts of before, as of now. They count no shorter than they would have, and at
 * most two slots longer; what is too old is left out. */
void qg_window_put(qg_window *w, const qg_window_amounts *a, uint64_t now_ms);

#endif
