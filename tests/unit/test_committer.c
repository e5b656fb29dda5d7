/* SPDX-License-Identifier: Apache-2.0 */
/* Group commit over a real database; a table of operations in front of it
 * counts, waits and fails where a test asks for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "qkdgate/committer.h"
#include "qkdgate/log.h"
#include "qkdgate/secret.h"
#include "qkdgate/store.h"

static char dir[64], path[96];

/* The real store with a fault in front. */
typedef struct faulty {
	qg_store store; /* first member */
	qg_store_ops ops;
	qg_store *real;
	atomic_int fail_begins, fail_commits; /* so many of the next ones */
	atomic_int begins, commits, rollbacks;
	sem_t *gate; /* each commit waits for it, when set */
} faulty;

static faulty db;

static faulty *
faulty_of(qg_store *s)
{
	return (faulty *)(void *)s;
}

static qg_err
faulty_begin(qg_store *s)
{
	faulty *f = faulty_of(s);
	atomic_fetch_add(&f->begins, 1);
	if (atomic_load(&f->fail_begins) > 0) {
		atomic_fetch_sub(&f->fail_begins, 1);
		return QG_E_CORRUPT;
	}
	return f->real->ops->begin(f->real);
}

static qg_err
faulty_commit(qg_store *s)
{
	faulty *f = faulty_of(s);
	if (f->gate != NULL)
		sem_wait(f->gate);
	atomic_fetch_add(&f->commits, 1);
	if (atomic_load(&f->fail_commits) > 0) {
		atomic_fetch_sub(&f->fail_commits, 1);
		f->real->ops->rollback(f->real);
		return QG_E_UNKNOWN; /* jobs are told what the store says */
	}
	return f->real->ops->commit(f->real);
}

static void
faulty_rollback(qg_store *s)
{
	faulty *f = faulty_of(s);
	atomic_fetch_add(&f->rollbacks, 1);
	f->real->ops->rollback(f->real);
}

static qg_err
faulty_number_put(qg_store *s, const char *name, int64_t value)
{
	return faulty_of(s)->real->ops->number_put(faulty_of(s)->real, name, value);
}

static qg_err
faulty_number_get(qg_store *s, const char *name, int64_t *value)
{
	return faulty_of(s)->real->ops->number_get(faulty_of(s)->real, name, value);
}

static int
setup(void **state)
{
	(void)state;
	static const char template[] = "/tmp/qg-commit-XXXXXX";
	char why[256];
	bool fresh;
	memcpy(dir, template, sizeof template);
	if (mkdtemp(dir) == NULL || snprintf(path, sizeof path, "%s/db", dir) >= (int)sizeof path)
		return -1;
	memset(&db, 0, sizeof db);
	db.ops = (qg_store_ops){
		.begin = faulty_begin, .commit = faulty_commit, .rollback = faulty_rollback,
		.number_put = faulty_number_put, .number_get = faulty_number_get,
	};
	db.store.ops = &db.ops;
	return qg_store_sqlite_open(path, &fresh, &db.real, why, sizeof why) == QG_OK ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	db.real->ops->close(&db.real);
	(void)unlink(path);
	return rmdir(dir);
}

/* Adds one to a number; or fails when told. */
typedef struct add_job {
	qg_job job; /* first member */
	const char *name;
	qg_err fail;
	atomic_int runs;
	atomic_int dones;
	qg_err err;
	sem_t *told;
} add_job;

static qg_err
add_run(qg_job *job, qg_store *store)
{
	add_job *a = (add_job *)(void *)job;
	int64_t v;
	atomic_fetch_add(&a->runs, 1);
	qg_err err = store->ops->number_get(store, a->name, &v);
	if (err == QG_OK)
		err = store->ops->number_put(store, a->name, v + 1);
	return err == QG_OK ? a->fail : err;
}

static void
add_done(qg_job *job, qg_err err)
{
	add_job *a = (add_job *)(void *)job;
	a->err = err;
	atomic_fetch_add(&a->dones, 1);
	sem_post(a->told);
}

static void
add_init(add_job *a, const char *name, sem_t *told)
{
	memset(a, 0, sizeof *a);
	a->job.run = add_run;
	a->job.done = add_done;
	a->name = name;
	a->told = told;
}

static int64_t
number(const char *name)
{
	int64_t v = -1;
	assert_int_equal(db.real->ops->number_get(db.real, name, &v), QG_OK);
	return v;
}

static void
wait_for(sem_t *s, int n)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += 60;
	while (n-- > 0)
		assert_int_equal(sem_timedwait(s, &end), 0);
}

static qg_committer *
start(const qg_committer_hooks *hooks)
{
	qg_committer *c;
	assert_int_equal(qg_committer_start(&db.store, hooks, &c), QG_OK);
	return c;
}

static void
expect_stats(const qg_committer *c, uint64_t groups, uint64_t jobs)
{
	uint64_t g, j;
	qg_committer_stats(c, &g, &j);
	assert_int_equal(g, groups);
	assert_int_equal(j, jobs);
}

static void
one_job_is_run_committed_and_told(void **state)
{
	(void)state;
	sem_t told;
	add_job a;
	sem_init(&told, 0, 0);
	add_init(&a, "n", &told);
	qg_committer *c = start(NULL);
	assert_int_equal(qg_committer_run(c, &a.job), QG_OK);
	assert_int_equal(a.job.result, QG_OK);
	assert_int_equal(a.runs, 1);
	expect_stats(c, 1, 1);
	a.fail = QG_E_CONSUMED;
	assert_int_equal(qg_committer_run(c, &a.job), QG_E_CONSUMED);
	assert_int_equal(a.job.result, QG_E_CONSUMED);
	assert_int_equal(a.runs, 2); /* alone in its group, it is not tried again */
	assert_int_equal(db.rollbacks, 1);
	expect_stats(c, 1, 1);
	qg_committer_stop(&c);
	assert_null(c);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), 1);
}

enum { MANY = 3000, GROUP_MAX = 1024 };
static add_job many[MANY];

/* Lets a first job into its commit and holds it there, while `n` jobs gather. */
static void
gather(qg_committer *c, add_job *first, sem_t *told, int n)
{
	add_init(first, "first", told);
	qg_committer_submit(c, &first->job);
	while (atomic_load(&first->runs) == 0)
		sched_yield();
	for (int i = 0; i < n; i++)
		add_init(&many[i], "n", told);
}

static void
what_waits_becomes_one_group(void **state)
{
	(void)state;
	sem_t told, gate;
	add_job first;
	sem_init(&told, 0, 0);
	sem_init(&gate, 0, 0);
	db.gate = &gate;
	qg_committer *c = start(NULL);
	gather(c, &first, &told, 500);
	for (int i = 0; i < 500; i++)
		qg_committer_submit(c, &many[i].job);
	sem_post(&gate);
	sem_post(&gate);
	wait_for(&told, 501);
	expect_stats(c, 2, 501);
	assert_int_equal(db.commits, 2);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), 500);
	for (int i = 0; i < 500; i++)
		assert_true(many[i].runs == 1 && many[i].dones == 1 && many[i].err == QG_OK);
}

static void
groups_are_bounded(void **state)
{
	(void)state;
	sem_t told, gate;
	add_job first;
	sem_init(&told, 0, 0);
	sem_init(&gate, 0, 0);
	db.gate = &gate;
	qg_committer *c = start(NULL);
	gather(c, &first, &told, MANY);
	for (int i = 0; i < MANY; i++)
		qg_committer_submit(c, &many[i].job);
	for (int i = 0; i < 4; i++)
		sem_post(&gate);
	wait_for(&told, MANY + 1);
	expect_stats(c, 1 + (MANY + GROUP_MAX - 1) / GROUP_MAX, MANY + 1);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), MANY);
}

static void
bad_job_harms_no_other(void **state)
{
	(void)state;
	sem_t told, gate;
	add_job first;
	sem_init(&told, 0, 0);
	sem_init(&gate, 0, 0);
	db.gate = &gate;
	qg_committer *c = start(NULL);
	gather(c, &first, &told, 100);
	many[30].fail = QG_E_CONSUMED;
	many[70].fail = QG_E_EXISTS;
	for (int i = 0; i < 100; i++)
		qg_committer_submit(c, &many[i].job);
	for (int i = 0; i < 100; i++)
		sem_post(&gate);
	wait_for(&told, 101);
	qg_committer_stop(&c);
	for (int i = 0; i < 100; i++) {
		assert_int_equal(many[i].err, i == 30 ? QG_E_CONSUMED : i == 70 ? QG_E_EXISTS : QG_OK);
		assert_int_equal(many[i].dones, 1);
		assert_int_equal(many[i].runs, i <= 30 ? 2 : 1);
	}
	assert_int_equal(number("n"), 98); /* nothing of a bad one, nothing twice */
	assert_int_equal(db.commits, 1 + 98);
	assert_int_equal(db.rollbacks, 1 + 2);
}

static void
failed_commit_is_told_to_all(void **state)
{
	(void)state;
	sem_t told, gate;
	add_job first;
	sem_init(&told, 0, 0);
	sem_init(&gate, 0, 0);
	db.gate = &gate;
	qg_committer *c = start(NULL);
	gather(c, &first, &told, 50);
	for (int i = 0; i < 50; i++)
		qg_committer_submit(c, &many[i].job);
	sem_post(&gate);
	wait_for(&told, 1);
	atomic_store(&db.fail_commits, 1);
	sem_post(&gate);
	wait_for(&told, 50);
	for (int i = 0; i < 50; i++)
		assert_true(many[i].err == QG_E_UNKNOWN && many[i].runs == 1 && many[i].dones == 1);
	expect_stats(c, 1, 1);
	/* The disk takes writes again: so do we. */
	sem_post(&gate);
	assert_int_equal(qg_committer_run(c, &many[0].job), QG_OK);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), 1);
}

static void
failed_begin_runs_nothing(void **state)
{
	(void)state;
	sem_t told;
	add_job a;
	sem_init(&told, 0, 0);
	add_init(&a, "n", &told);
	qg_committer *c = start(NULL);
	atomic_store(&db.fail_begins, 1);
	assert_int_equal(qg_committer_run(c, &a.job), QG_E_CORRUPT);
	assert_int_equal(a.runs, 0);
	assert_int_equal(qg_committer_run(c, &a.job), QG_OK);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), 1);
}

typedef struct hook_log {
	atomic_int before, after_ok, after_err;
	atomic_int fail;  /* so many of the next calls */
	int dones_before; /* jobs told when the last `after` ran */
	add_job *job;
} hook_log;

static qg_err
hook_before(qg_store *store, void *ctx)
{
	hook_log *h = ctx;
	qg_err err = store->ops->number_put(store, "hook", atomic_load(&h->before) + 1);
	if (err == QG_OK && atomic_load(&h->fail) > 0) {
		atomic_fetch_sub(&h->fail, 1);
		err = QG_E_RANGE;
	}
	atomic_fetch_add(&h->before, 1);
	return err;
}

static void
hook_after(qg_err err, void *ctx)
{
	hook_log *h = ctx;
	atomic_fetch_add(err == QG_OK ? &h->after_ok : &h->after_err, 1);
	h->dones_before = h->job != NULL ? atomic_load(&h->job->dones) : 0;
}

static void
hooks_run_inside_and_after(void **state)
{
	(void)state;
	sem_t told;
	add_job a;
	sem_init(&told, 0, 0);
	add_init(&a, "n", &told);
	hook_log log = {.job = &a};
	qg_committer_hooks hooks = {.before_commit = hook_before, .after = hook_after, .ctx = &log};
	qg_committer *c = start(&hooks);
	qg_committer_submit(c, &a.job);
	wait_for(&told, 1);
	assert_true(log.before == 1 && log.after_ok == 1 && log.after_err == 0);
	assert_int_equal(log.dones_before, 0); /* after, but before done */
	/* A commit that fails takes what the hook wrote with it. */
	atomic_store(&db.fail_commits, 1);
	assert_int_equal(qg_committer_run(c, &a.job), QG_E_UNKNOWN);
	assert_true(log.before == 2 && log.after_ok == 1 && log.after_err == 1);
	/* After a job that fails `before` is not run; `after` is, to clean up. */
	a.fail = QG_E_CONSUMED;
	assert_int_equal(qg_committer_run(c, &a.job), QG_E_CONSUMED);
	assert_true(log.before == 2 && log.after_ok == 1 && log.after_err == 2);
	a.fail = QG_OK;
	/* A hook that fails fails the job with it. */
	log.fail = 1;
	assert_int_equal(qg_committer_run(c, &a.job), QG_E_RANGE);
	assert_true(log.before == 3 && log.after_ok == 1 && log.after_err == 3);
	qg_committer_stop(&c);
	assert_int_equal(number("hook"), 1);
	assert_int_equal(number("n"), 1);
}

typedef struct one_job {
	qg_committer *c;
	qg_job *job;
} one_job;

static void *
submit_one(void *arg)
{
	const one_job *s = arg;
	qg_committer_submit(s->c, s->job);
	return NULL;
}

static void
gathered_jobs_are_one_group(void **state)
{
	(void)state;
	sem_t told;
	add_job job[3];
	uint64_t groups, jobs;
	sem_init(&told, 0, 0);
	qg_committer *c = start(NULL);
	qg_committer_gather(c, true);
	for (int i = 0; i < 3; i++) {
		add_init(&job[i], "n", &told);
		qg_committer_submit(c, &job[i].job);
	}
	qg_committer_gather(c, false);
	wait_for(&told, 3);
	qg_committer_stats(c, &groups, &jobs);
	assert_int_equal(groups, 1);
	assert_int_equal(jobs, 3);
	/* One that nothing was submitted in, and one at the end of which another
	 * thread's job stands in the queue: its thread counted on the wake. */
	qg_committer_gather(c, true);
	qg_committer_gather(c, false);
	qg_committer_gather(c, true);
	qg_committer_submit(c, &job[0].job);
	qg_committer_gather(c, false);
	wait_for(&told, 1);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), 4);
}

/* Of a run that is under way the committer has nothing: what others bring meanwhile
 * is a group without it. */
static void
what_is_gathered_is_not_begun_with(void **state)
{
	(void)state;
	sem_t told, told_other;
	add_job job[2], other;
	pthread_t thread;
	sem_init(&told, 0, 0);
	sem_init(&told_other, 0, 0);
	qg_committer *c = start(NULL);
	qg_committer_gather(c, true);
	add_init(&job[0], "n", &told);
	qg_committer_submit(c, &job[0].job);
	add_init(&other, "other", &told_other);
	one_job from = {.c = c, .job = &other.job};
	assert_int_equal(pthread_create(&thread, NULL, submit_one, &from), 0);
	pthread_join(thread, NULL);
	wait_for(&told_other, 1);
	assert_int_equal(atomic_load(&job[0].runs), 0);
	add_init(&job[1], "n", &told);
	qg_committer_submit(c, &job[1].job);
	qg_committer_gather(c, false);
	wait_for(&told, 2);
	expect_stats(c, 2, 3);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), 2);
}

/* Who waits inside a run, or brings very much in it, does not wait for its end. */
static void
a_long_run_is_handed_over(void **state)
{
	(void)state;
	sem_t told;
	add_job last;
	sem_init(&told, 0, 0);
	qg_committer *c = start(NULL);
	qg_committer_gather(c, true);
	for (int i = 0; i < 300; i++) {
		add_init(&many[i], "n", &told);
		qg_committer_submit(c, &many[i].job);
	}
	wait_for(&told, 200);
	add_init(&last, "last", &told);
	assert_int_equal(qg_committer_run(c, &last.job), QG_OK);
	wait_for(&told, 100); /* they stood before it */
	qg_committer_gather(c, false);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), 300);
	assert_int_equal(number("last"), 1);
}

static atomic_int n_telling;

static void
on_telling(bool begins)
{
	atomic_fetch_add(&n_telling, begins ? 1 : 1000);
}

static void
telling_stands_around_the_dones(void **state)
{
	(void)state;
	sem_t told;
	add_job a;
	sem_init(&told, 0, 0);
	add_init(&a, "n", &told);
	const qg_committer_hooks hooks = {.telling = on_telling};
	qg_committer *c = start(&hooks);
	qg_committer_submit(c, &a.job);
	wait_for(&told, 1);
	assert_int_equal(atomic_load(&n_telling) % 1000, 1);
	qg_committer_stop(&c);
	assert_int_equal(atomic_load(&n_telling), 1001);
}

/* A hook that fails for the whole group, then for one job of ten by itself. */
static void
group_with_a_failing_hook_falls_apart_into_jobs(void **state)
{
	(void)state;
	sem_t told, gate;
	add_job first;
	hook_log log = {0};
	qg_committer_hooks hooks = {.before_commit = hook_before, .after = hook_after, .ctx = &log};
	sem_init(&told, 0, 0);
	sem_init(&gate, 0, 0);
	db.gate = &gate;
	qg_committer *c = start(&hooks);
	gather(c, &first, &told, 10);
	while (atomic_load(&log.before) == 0) /* the first job's hook is through */
		sched_yield();
	for (int i = 0; i < 10; i++)
		qg_committer_submit(c, &many[i].job);
	atomic_store(&log.fail, 2);
	for (int i = 0; i < 10; i++)
		sem_post(&gate);
	wait_for(&told, 11);
	qg_committer_stop(&c);
	int failed = 0;
	for (int i = 0; i < 10; i++) {
		assert_int_equal(many[i].runs, 2);
		assert_int_equal(many[i].dones, 1);
		failed += many[i].err == QG_E_RANGE;
	}
	assert_int_equal(failed, 1);
	assert_int_equal(many[0].err, QG_E_RANGE);
	assert_int_equal(number("n"), 9);
	assert_int_equal(log.after_err, 2);
	assert_int_equal(log.after_ok, 1 + 9);
}

static void
stop_runs_what_is_queued(void **state)
{
	(void)state;
	sem_t told;
	sem_init(&told, 0, 0);
	qg_committer *c = start(NULL);
	for (int i = 0; i < MANY; i++) {
		add_init(&many[i], "n", &told);
		qg_committer_submit(c, &many[i].job);
	}
	qg_committer_stop(&c);
	wait_for(&told, MANY);
	for (int i = 0; i < MANY; i++)
		assert_int_equal(many[i].err, QG_OK);
	assert_int_equal(number("n"), MANY);
}

/* Submits another job from done, as long as it is taken. */
typedef struct chain_job {
	add_job add;
	qg_committer *c;
	sem_t *first, *closed;
	atomic_int rounds;
} chain_job;

static void
chain_done(qg_job *job, qg_err err)
{
	chain_job *ch = (chain_job *)(void *)job;
	if (err == QG_E_CLOSED) {
		sem_post(ch->closed);
		return;
	}
	if (atomic_fetch_add(&ch->rounds, 1) == 0)
		sem_post(ch->first);
	qg_committer_submit(ch->c, job);
}

static void
jobs_may_be_submitted_from_done_until_stop(void **state)
{
	(void)state;
	sem_t first, closed;
	chain_job ch;
	sem_init(&first, 0, 0);
	sem_init(&closed, 0, 0);
	add_init(&ch.add, "n", NULL);
	ch.add.job.done = chain_done;
	ch.first = &first;
	ch.closed = &closed;
	atomic_init(&ch.rounds, 0);
	qg_committer *c = start(NULL);
	ch.c = c;
	qg_committer_submit(c, &ch.add.job);
	wait_for(&first, 1);
	nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
	qg_committer_stop(&c);
	assert_int_equal(sem_trywait(&closed), 0); /* told before stop returned */
	assert_int_equal(number("n"), ch.rounds);
	print_message("%d rounds\n", ch.rounds);
}

/* Frees itself when done: the committer must not look at it again. */
static void
freeing_done(qg_job *job, qg_err err)
{
	add_job *a = (add_job *)(void *)job;
	sem_t *told = err == QG_OK ? a->told : NULL;
	free(a);
	if (told != NULL)
		sem_post(told);
}

typedef struct submitter {
	qg_committer *c;
	sem_t *told;
	int n;
	bool wait;
	int ok;
} submitter;

static void *
submit_many(void *arg)
{
	submitter *s = arg;
	for (int i = 0; i < s->n; i++) {
		add_job *a = malloc(sizeof *a);
		if (a == NULL)
			abort();
		add_init(a, "n", s->told);
		if (s->wait) {
			s->ok += qg_committer_run(s->c, &a->job) == QG_OK;
			free(a);
		} else {
			a->job.done = freeing_done;
			qg_committer_submit(s->c, &a->job);
		}
	}
	return NULL;
}

static void
many_threads_lose_no_job(void **state)
{
	(void)state;
	enum { THREADS = 8, EACH = 500 };
	sem_t told;
	pthread_t thread[THREADS];
	submitter s[THREADS];
	uint64_t groups, jobs;
	sem_init(&told, 0, 0);
	qg_committer *c = start(NULL);
	for (int i = 0; i < THREADS; i++) {
		s[i] = (submitter){.c = c, .told = &told, .n = EACH, .wait = i % 2 == 0};
		assert_int_equal(pthread_create(&thread[i], NULL, submit_many, &s[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		if (s[i].wait)
			assert_int_equal(s[i].ok, EACH);
	}
	wait_for(&told, THREADS / 2 * EACH);
	qg_committer_stats(c, &groups, &jobs);
	assert_int_equal(jobs, THREADS * EACH);
	assert_true(groups < jobs);
	print_message("%llu jobs in %llu groups\n", (unsigned long long)jobs, (unsigned long long)groups);
	qg_committer_stop(&c);
	assert_int_equal(number("n"), THREADS * EACH);
}

static double
seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double
least(double a, double b)
{
	return a < b ? a : b;
}

/* A job that finds the committer idle waits for its own commit only. The best
 * of many, so that a busy machine is no failure. */
static void
idle_committer_adds_no_wait(void **state)
{
	(void)state;
	enum { ROUNDS = 300 };
	sem_t told;
	add_job a;
	double through_ms = 1e9, direct_ms = 1e9;
	sem_init(&told, 0, 0);
	add_init(&a, "n", &told);
	qg_committer *c = start(NULL);
	for (int i = 0; i < ROUNDS; i++) {
		double t0 = seconds();
		assert_int_equal(qg_committer_run(c, &a.job), QG_OK);
		through_ms = least(through_ms, (seconds() - t0) * 1000);
	}
	qg_committer_stop(&c);
	for (int i = 0; i < ROUNDS; i++) {
		double t0 = seconds();
		assert_int_equal(db.store.ops->begin(&db.store), QG_OK);
		assert_int_equal(add_run(&a.job, &db.store), QG_OK);
		assert_int_equal(db.store.ops->commit(&db.store), QG_OK);
		direct_ms = least(direct_ms, (seconds() - t0) * 1000);
	}
	print_message("one job: %.3f ms, its transaction alone %.3f ms, at best\n", through_ms, direct_ms);
	assert_true(through_ms < direct_ms + 2);
}

static int
init(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_WARN, QG_LOG_TEXT);
	return qg_secret_init() == QG_OK ? 0 : -1;
}

#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(one_job_is_run_committed_and_told),
		CASE(what_waits_becomes_one_group),
		CASE(groups_are_bounded),
		CASE(bad_job_harms_no_other),
		CASE(failed_commit_is_told_to_all),
		CASE(failed_begin_runs_nothing),
		CASE(hooks_run_inside_and_after),
		CASE(gathered_jobs_are_one_group),
		CASE(what_is_gathered_is_not_begun_with),
		CASE(a_long_run_is_handed_over),
		CASE(telling_stands_around_the_dones),
		CASE(group_with_a_failing_hook_falls_apart_into_jobs),
		CASE(stop_runs_what_is_queued),
		CASE(jobs_may_be_submitted_from_done_until_stop),
		CASE(many_threads_lose_no_job),
		CASE(idle_committer_adds_no_wait),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("committer", tests, init, NULL);
}
