/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_COMMITTER_H
#define QKDGATE_COMMITTER_H

#include <stdbool.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/request_id.h"
#include "qkdgate/store.h"

/* Group commit: the one thread that writes the database. It takes every job
 * that waits, runs them in one transaction, syncs once, and then tells each
 * (DESIGN, idea 6). Behind a large group it gives as many jobs the time to come,
 * at most 2 ms. When a job's run fails, the transaction is rolled back and
 * each job of the group is run again in a transaction of its own, so that one
 * bad job harms no other; a job's run may thus be called twice and must have
 * no effect outside the store but on members it sets itself. When the commit
 * itself fails, every job of the group is told its error (store.h). Both run
 * under the ID of the request for which the job was submitted. */

typedef struct qg_job qg_job;

struct qg_job {
	qg_err (*run)(qg_job *job, qg_store *store); /* inside the transaction */
	void (*done)(qg_job *job, qg_err err);       /* after it; may free the job */
	qg_job *next;                                /* the committer's */
	qg_err result;                               /* the committer's */
	qg_request_id request;                       /* the committer's: who submitted it worked on */
};

typedef struct qg_committer qg_committer;

/* Called on the committer's thread inside the transaction after the jobs of a
 * group ran, so that many small changes become one write; and `after` once its
 * outcome is known, before the jobs' done: once for each transaction that was
 * begun, whatever failed in it. `telling` with true before the done of a group of
 * jobs and with false behind the last, so that who is told by many of them can
 * be woken once. Any may be NULL. */
typedef struct qg_committer_hooks {
	qg_err (*before_commit)(qg_store *store, void *ctx);
	void (*after)(qg_err err, void *ctx);
	void *ctx;
	void (*telling)(bool begins);
} qg_committer_hooks;

/* Starts the thread; the store is used by it alone from now on. */
qg_err qg_committer_start(qg_store *store, const qg_committer_hooks *hooks, qg_committer **out) QG_CHECKED;

/* Queues a job; never blocks. The job stays valid until done. Any thread, also
 * from done. After qg_committer_stop began: done is called with QG_E_CLOSED, on the
 * committer's thread as ever. Not after qg_committer_stop returned. */
void qg_committer_submit(qg_committer *c, qg_job *job);

/* Between true and false on one thread: the jobs that it submits stay with it and
 * are handed over together at the end, and so become one group; before that when
 * they are very many, and when the thread waits for one (qg_committer_run). Not
 * across qg_committer_stop. */
void qg_committer_gather(qg_committer *c, bool on);

/* Queues a job and waits for it; err is what done would get. Not from the
 * committer's thread. job->done is set by the call. */
qg_err qg_committer_run(qg_committer *c, qg_job *job) QG_CHECKED;

/* Groups committed and jobs in them. */
void qg_committer_stats(const qg_committer *c, uint64_t *groups, uint64_t *jobs);

/* How long transactions took, from their begin to their outcome. */
#define QG_COMMIT_BUCKETS 10
extern const uint32_t qg_commit_bucket_us[QG_COMMIT_BUCKETS]; /* upper bounds; one more bucket is above */
typedef struct qg_committer_times {
	uint64_t groups, jobs, failures;
	uint64_t sum_ns, bucket[QG_COMMIT_BUCKETS + 1];
	bool works; /* the last one did not fail */
} qg_committer_times;
void qg_committer_times_get(const qg_committer *c, qg_committer_times *out);

/* Runs what is queued, then ends the thread. Clears *c. The store stays open. */
void qg_committer_stop(qg_committer **c);

#endif
