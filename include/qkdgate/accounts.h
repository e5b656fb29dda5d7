/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ACCOUNTS_H
#define QKDGATE_ACCOUNTS_H

#include <stdbool.h>
#include <stdint.h>

#include "qkdgate/committer.h"
#include "qkdgate/error.h"
#include "qkdgate/store.h"

/* Who got how much: totals by day, SAE and the other of the pair. Counted in memory,
 * added to the database once a second in one of the committer's transactions: no
 * request waits for the disk. A gateway that is killed loses what it counted in the
 * last second or so; one that stops in order loses nothing. An outcome that nobody
 * knows counts as written, so that nothing is billed twice. Any thread. */

typedef struct qg_accounts qg_accounts;

#define QG_ACCOUNTS_PAIRS_MAX 65536 /* of one day; those beyond count as pairs with "" */

/* The committer outlives it. QG_E_NOMEM. */
qg_err qg_accounts_new(qg_committer *committer, qg_accounts **out) QG_CHECKED;

/* From now on totals of all but the last `days` days are deleted, 0: none; once a day,
 * by qg_accounts_flush, an hour after the gateway saw the day begin: a clock that is
 * wrong for less costs nothing. */
void qg_accounts_keep_days(qg_accounts *a, uint32_t days);

/* Frees it; what was not flushed is lost. Takes NULL and pointers to NULL. */
void qg_accounts_free(qg_accounts **a);

/* Adds to today's totals; the day is set here. Where `known` is false, `other` is
 * a name that anybody may have made up: it counts only where the pair was seen
 * today, else as "". A NULL a takes and drops it (tests). */
void qg_accounts_count(qg_accounts *a, const qg_account_rec *what, bool known);

/* Queues what was counted since, if anything; never waits. */
void qg_accounts_flush(qg_accounts *a);

/* The totals of the days from .. to, in their order, what was counted up to now
 * included. QG_E_RANGE when there are more than 100,000 rows; QG_E_IO. Waits for
 * the disk; not from the committer's thread. */
qg_err qg_accounts_read(qg_accounts *a, int64_t from, int64_t to, void (*each)(const qg_account_rec *rec, void *ctx),
			void *ctx) QG_CHECKED;

/* Today, in days since 1970-01-01, UTC. */
int64_t qg_accounts_today(void);

#endif
