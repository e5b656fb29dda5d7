/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/committer.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <time.h>

#include "qkdgate/clock.h"

/* Bounds how long the first job of a group waits for the last one. */
#define GROUP_MAX 1024

/* Who was told of a group asks again soon, and a commit costs as much as some ten
 * requests. So behind a group the next one is begun when it is as large, or when
 * that many had the time to be answered and to come again. Not behind small ones. */
#define COMPANY_LEAST 8
#define COMPANY_NS_EACH UINT64_C(30000)
#define COMPANY_NS_MOST UINT64_C(2000000)

typedef struct job_list {
	qg_job *head;
	qg_job **tail; /* where the next one is put */
} job_list;

struct qg_committer {
	pthread_mutex_t lock;
	pthread_cond_t work; /* the queue is no longer empty, or stop */
	atomic_uint wakers; /* between their unlock and the end of their signal */
	/* Under the lock. */
	job_list queue;
	job_list late; /* came after the stop began */
	size_t n_queue; /* jobs in the queue */
	size_t last;    /* jobs of the last group */
	size_t awaited; /* jobs that the thread waits for, 0: any */
	bool stopping;
	qg_committer_times times;
	/* The thread's own. */
	qg_store *store;
	qg_committer_hooks hooks;
	pthread_t thread;
};

static void
list_append(job_list *l, qg_job *job)
{
	job->next = NULL;
	*l->tail = job;
	l->tail = &job->next;
}

/* Takes the first jobs out of the queue, all of them where they are few. */
static qg_job *
list_take(job_list *l, size_t most, size_t *n)
{
	qg_job *first = l->head, **end = &l->head;
	for (*n = 0; *end != NULL && *n < most; (*n)++)
		end = &(*end)->next;
	l->head = *end;
	if (end != &l->head)
		*end = NULL;
	if (l->head == NULL)
		l->tail = &l->head;
	return first;
}

static void
group_done(const qg_committer *c, qg_job *job)
{
	if (c->hooks.telling != NULL)
		c->hooks.telling(true);
	while (job != NULL) {
		qg_job *next = job->next; /* done may free the job */
		const qg_request_id request = job->request;
		(void)qg_request_id_enter(&request);
		job->done(job, job->result);
		(void)qg_request_id_enter(NULL);
		job = next;
	}
	if (c->hooks.telling != NULL)
		c->hooks.telling(false);
}

static void
group_result(qg_job *job, qg_err err)
{
	for (; job != NULL; job = job->next)
		job->result = err;
}

/* Before the jobs are told, so that who was told finds it counted. */
static void
count(qg_committer *c, const qg_job *job)
{
	uint64_t n = 0;
	for (; job != NULL; job = job->next)
		n++;
	pthread_mutex_lock(&c->lock);
	c->times.groups++;
	c->times.jobs += n;
	pthread_mutex_unlock(&c->lock);
}

const uint32_t qg_commit_bucket_us[QG_COMMIT_BUCKETS] = {
	250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 500000, 2000000,
};

/* A job that fails by itself says nothing of the database: only what begins or
 * commits does. */
static void
clock_in(qg_committer *c, uint64_t took_ns, bool failed)
{
	size_t i = 0;
	while (i < QG_COMMIT_BUCKETS && took_ns > (uint64_t)qg_commit_bucket_us[i] * 1000)
		i++;
	pthread_mutex_lock(&c->lock);
	c->times.sum_ns += took_ns;
	c->times.bucket[i]++;
	c->times.failures += failed;
	c->times.works = !failed;
	pthread_mutex_unlock(&c->lock);
}

/* The jobs and then the hook. */
static qg_err
run_jobs(qg_committer *c, qg_job *job)
{
	for (; job != NULL; job = job->next) {
		(void)qg_request_id_enter(&job->request);
		qg_err err = job->run(job, c->store);
		(void)qg_request_id_enter(NULL);
		if (err != QG_OK)
			return err;
	}
	return c->hooks.before_commit != NULL ? c->hooks.before_commit(c->store, c->hooks.ctx) : QG_OK;
}

/* One transaction of a list of jobs. *settled tells that every job has its
 * result; it has none when the transaction was rolled back and each may be
 * tried by itself. */
static void
transaction(qg_committer *c, qg_job *group, bool alone, bool *settled)
{
	const qg_store_ops *ops = c->store->ops;
	const uint64_t begun_ns = qg_clock_elapsed_ns();
	*settled = true;
	qg_err err = ops->begin(c->store);
	if (err != QG_OK) {
		clock_in(c, qg_clock_elapsed_ns() - begun_ns, true);
		group_result(group, err);
		return;
	}
	err = run_jobs(c, group);
	if (err != QG_OK) {
		ops->rollback(c->store);
		clock_in(c, qg_clock_elapsed_ns() - begun_ns, err == QG_E_IO || err == QG_E_CORRUPT);
		group_result(group, err);
		*settled = alone;
	} else {
		err = ops->commit(c->store);
		clock_in(c, qg_clock_elapsed_ns() - begun_ns, err != QG_OK);
		group_result(group, err);
		if (err == QG_OK)
			count(c, group);
	}
	if (c->hooks.after != NULL)
		c->hooks.after(err, c->hooks.ctx);
}

static void
commit_group(qg_committer *c, qg_job *group)
{
	bool settled;
	transaction(c, group, group->next == NULL, &settled);
	if (settled) {
		group_done(c, group);
		return;
	}
	while (group != NULL) {
		qg_job *job = group;
		group = group->next;
		job->next = NULL;
		transaction(c, job, true, &settled);
		group_done(c, job);
	}
}

/* Under the lock, behind a group. */
static void
await_company(qg_committer *c)
{
	if (c->last < COMPANY_LEAST)
		return;
	const uint64_t wait_ns = c->last * COMPANY_NS_EACH;
	struct timespec until;
	clock_gettime(CLOCK_MONOTONIC, &until);
	const uint64_t ns = (uint64_t)until.tv_nsec + (wait_ns < COMPANY_NS_MOST ? wait_ns : COMPANY_NS_MOST);
	until.tv_sec += (time_t)(ns / UINT64_C(1000000000));
	until.tv_nsec = (long)(ns % UINT64_C(1000000000));
	c->awaited = c->last;
	while (c->n_queue < c->awaited && !c->stopping)
		if (pthread_cond_timedwait(&c->work, &c->lock, &until) != 0)
			break;
	c->awaited = 0;
}

/* What is there is committed at once, but for company; what comes meanwhile is the
 * next group. */
static void *
committer_main(void *arg)
{
	qg_committer *c = arg;
	pthread_mutex_lock(&c->lock);
	for (;;) {
		await_company(c);
		while (c->queue.head == NULL && !c->stopping)
			pthread_cond_wait(&c->work, &c->lock);
		bool late = c->queue.head == NULL;
		qg_job *group = list_take(late ? &c->late : &c->queue, GROUP_MAX, &c->last);
		c->n_queue -= late ? 0 : c->last;
		if (group == NULL)
			break;
		pthread_mutex_unlock(&c->lock);
		if (late) {
			group_result(group, QG_E_CLOSED);
			group_done(c, group);
		} else {
			commit_group(c, group);
		}
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* Signals are for the thread that started us. */
static int
start_thread(qg_committer *c)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int rc = pthread_create(&c->thread, NULL, committer_main, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (rc == 0)
		pthread_setname_np(c->thread, "qg-committer");
	return rc;
}

static void
committer_free(qg_committer *c)
{
	pthread_cond_destroy(&c->work);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

qg_err
qg_committer_start(qg_store *store, const qg_committer_hooks *hooks, qg_committer **out)
{
	qg_committer *c = calloc(1, sizeof *c);
	if (c == NULL)
		return QG_E_NOMEM;
	pthread_condattr_t attr;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->work, &attr);
	pthread_condattr_destroy(&attr);
	c->queue.tail = &c->queue.head;
	c->late.tail = &c->late.head;
	c->store = store;
	c->times.works = true;
	if (hooks != NULL)
		c->hooks = *hooks;
	if (start_thread(c) != 0) {
		committer_free(c);
		return QG_E_NOMEM;
	}
	*out = c;
	return QG_OK;
}

/* What this thread gathers: whose jobs, and those that the committer has not been
 * given yet. No other thread sees them, so the committer cannot begin with half
 * of what one run of a loop brings. */
#define GATHER_MAX 256
static _Thread_local struct {
	const qg_committer *of;
	size_t n;
	job_list jobs;
} gathered;

/* Puts the jobs behind those that wait. The thread looks at the queue again before
 * it waits, so only what finds it empty needs to wake it, or what makes enough of
 * them; outside the lock, or on one core it would only wake to wait for it. */
static void
hand_over(qg_committer *c, const job_list *jobs, size_t n)
{
	pthread_mutex_lock(&c->lock);
	const bool was_empty = c->queue.head == NULL;
	job_list *l = c->stopping ? &c->late : &c->queue;
	*l->tail = jobs->head;
	l->tail = jobs->tail;
	c->n_queue += c->stopping ? 0 : n;
	const bool wake = c->awaited > 0 ? c->n_queue >= c->awaited : was_empty;
	if (wake)
		atomic_fetch_add(&c->wakers, 1);
	pthread_mutex_unlock(&c->lock);
	if (!wake)
		return;
	pthread_cond_signal(&c->work);
	atomic_fetch_sub(&c->wakers, 1); /* after it the committer may be gone */
}

static void
hand_over_gathered(qg_committer *c)
{
	if (gathered.n > 0)
		hand_over(c, &gathered.jobs, gathered.n);
	gathered.n = 0;
	gathered.jobs = (job_list){.tail = &gathered.jobs.head};
}

void
qg_committer_gather(qg_committer *c, bool on)
{
	hand_over_gathered(c);
	gathered.of = on ? c : NULL;
}

void
qg_committer_submit(qg_committer *c, qg_job *job)
{
	job->request = qg_request_id_now();
	if (gathered.of == c) {
		list_append(&gathered.jobs, job);
		if (++gathered.n == GATHER_MAX)
			hand_over_gathered(c);
		return;
	}
	job->next = NULL;
	hand_over(c, &(job_list){.head = job, .tail = &job->next}, 1);
}

/* A job that stands in the queue for one whose caller waits. */
typedef struct waiter {
	qg_job job; /* first member */
	qg_job *inner;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool ended;
	qg_err err;
} waiter;

static waiter *
waiter_of(qg_job *job)
{
	return (waiter *)(void *)job;
}

static qg_err
waiter_run(qg_job *job, qg_store *store)
{
	qg_job *inner = waiter_of(job)->inner;
	return inner->run(inner, store);
}

static void
waiter_done(qg_job *job, qg_err err)
{
	waiter *w = waiter_of(job);
	pthread_mutex_lock(&w->lock);
	w->err = err;
	w->ended = true;
	pthread_cond_signal(&w->cond); /* under the lock: after it *w is gone */
	pthread_mutex_unlock(&w->lock);
}

qg_err
qg_committer_run(qg_committer *c, qg_job *job)
{
	waiter w = {
		.job = {.run = waiter_run, .done = waiter_done},
		.inner = job,
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.cond = PTHREAD_COND_INITIALIZER,
	};
	qg_committer_submit(c, &w.job);
	if (gathered.of == c)
		hand_over_gathered(c);
	pthread_mutex_lock(&w.lock);
	while (!w.ended)
		pthread_cond_wait(&w.cond, &w.lock);
	pthread_mutex_unlock(&w.lock);
	pthread_cond_destroy(&w.cond);
	pthread_mutex_destroy(&w.lock);
	job->result = w.err;
	return w.err;
}

void
qg_committer_stats(const qg_committer *c, uint64_t *groups, uint64_t *jobs)
{
	/* The lock's own state is all that changes. */
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&c->lock;
	pthread_mutex_lock(lock);
	*groups = c->times.groups;
	*jobs = c->times.jobs;
	pthread_mutex_unlock(lock);
}

void
qg_committer_times_get(const qg_committer *c, qg_committer_times *out)
{
	pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&c->lock; /* as above */
	pthread_mutex_lock(lock);
	*out = c->times;
	pthread_mutex_unlock(lock);
}

void
qg_committer_stop(qg_committer **c)
{
	if (c == NULL || *c == NULL)
		return;
	pthread_mutex_lock(&(*c)->lock);
	(*c)->stopping = true;
	pthread_cond_signal(&(*c)->work);
	pthread_mutex_unlock(&(*c)->lock);
	pthread_join((*c)->thread, NULL);
	while (atomic_load(&(*c)->wakers) > 0)
		sched_yield();
	committer_free(*c);
	*c = NULL;
}
