/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/accounts.h"

#include <pthread.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/grow.h"
#include "qkdgate/log.h"
#include "qkdgate/secret.h"

#define BUCKETS 65536u
#define DAY_MS (24 * 60 * 60 * 1000)
#define ROWS_MAX 100000u
#define SETTLED_MS (60 * 60 * 1000)

/* One day of one pair. `rec` is what was counted and is not yet in the database. */
typedef struct pair {
	struct pair *chain; /* of the same bucket */
	struct pair *dirty; /* next of those to be written */
	bool is_dirty;
	qg_account_rec rec; /* its names are those below */
	char names[];       /* SAE, NUL, other, NUL */
} pair;

/* What is being written: copies, since a job may run twice. */
typedef struct batch {
	qg_job job;
	qg_accounts *accounts;
	size_t n;
	qg_account_rec rec[]; /* names of the pairs, which stay meanwhile */
} batch;

struct qg_accounts {
	qg_committer *committer;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t written;
	bool writing;         /* a batch is on its way */
	int64_t day;          /* of the pairs, but for those still dirty */
	uint32_t keep_days;   /* 0: all */
	int64_t seen_day, pruned_day;
	uint64_t seen_ms;     /* elapsed time since when it is that day */
	size_t n;             /* pairs of the day */
	pair *dirty;
	size_t n_dirty;
	unsigned char key[crypto_shorthash_KEYBYTES];
	pair *bucket[BUCKETS];
};

int64_t
qg_accounts_today(void)
{
	return qg_clock_wall_ms() / DAY_MS;
}

/* --- the table, under the lock ------------------------------------------------------- */

static pair **
bucket_of(qg_accounts *a, const char *sae, const char *other)
{
	uint64_t h[2] = {0};
	_Static_assert(sizeof h[0] == crypto_shorthash_BYTES, "the hash is one word");
	(void)crypto_shorthash((unsigned char *)&h[0], (const unsigned char *)sae, strlen(sae), a->key);
	(void)crypto_shorthash((unsigned char *)&h[1], (const unsigned char *)other, strlen(other), a->key);
	return &a->bucket[(h[0] + 31 * h[1]) % BUCKETS];
}

static pair *
find(qg_accounts *a, const char *sae, const char *other)
{
	pair *p = *bucket_of(a, sae, other);
	while (p != NULL && (p->rec.day != a->day || strcmp(p->rec.sae, sae) != 0 || strcmp(p->rec.other, other) != 0))
		p = p->chain;
	return p;
}

static pair *
make(qg_accounts *a, const char *sae, const char *other)
{
	const size_t n = strlen(sae) + 1, m = strlen(other) + 1;
	pair *p = calloc(1, sizeof *p + n + m);
	if (p == NULL)
		return NULL;
	memcpy(p->names, sae, n);
	memcpy(p->names + n, other, m);
	p->rec.sae = p->names;
	p->rec.other = p->names + n;
	p->rec.day = a->day;
	pair **at = bucket_of(a, sae, other);
	p->chain = *at;
	*at = p;
	a->n++;
	return p;
}

static pair *
pair_of(qg_accounts *a, const qg_account_rec *what, bool known)
{
	pair *p = find(a, what->sae, what->other);
	if (p != NULL)
		return p;
	if (known && a->n < QG_ACCOUNTS_PAIRS_MAX)
		return make(a, what->sae, what->other);
	p = find(a, what->sae, "");
	return p != NULL ? p : make(a, what->sae, "");
}

/* Those of another day, as far as they are written. Not while a batch refers to them. */
static void
forget_days(qg_accounts *a)
{
	for (size_t i = 0; i < BUCKETS; i++)
		for (pair **at = &a->bucket[i]; *at != NULL;) {
			pair *p = *at;
			if (p->rec.day == a->day || p->is_dirty) {
				at = &p->chain;
				continue;
			}
			*at = p->chain;
			free(p);
		}
}

static void
begin_day(qg_accounts *a, int64_t day)
{
	if (day == a->day)
		return;
	a->day = day;
	a->n = 0;
	if (!a->writing)
		forget_days(a);
}

static void
add(qg_account_rec *to, const qg_account_rec *what)
{
	to->requests += what->requests;
	to->issued += what->issued;
	to->issued_bits += what->issued_bits;
	to->fetched += what->fetched;
	to->fetched_bits += what->fetched_bits;
	to->refused += what->refused;
	to->limited += what->limited;
}

static void
mark(qg_accounts *a, pair *p)
{
	if (p->is_dirty)
		return;
	p->is_dirty = true;
	p->dirty = a->dirty;
	a->dirty = p;
	a->n_dirty++;
}

void
qg_accounts_count(qg_accounts *a, const qg_account_rec *what, bool known)
{
	if (a == NULL)
		return;
	const int64_t day = qg_accounts_today();
	pthread_mutex_lock(&a->lock);
	begin_day(a, day);
	pair *p = pair_of(a, what, known);
	if (p != NULL) { /* else there is no memory for it */
		add(&p->rec, what);
		mark(a, p);
	}
	pthread_mutex_unlock(&a->lock);
}

/* --- writing ---------------------------------------------------------------------------- */

static qg_err
batch_run(qg_job *job, qg_store *store)
{
	const batch *b = (const batch *)job;
	qg_err err = QG_OK;
	for (size_t i = 0; i < b->n && err == QG_OK; i++)
		err = store->ops->account_add(store, &b->rec[i]);
	return err;
}

/* The pair whose names these are. */
static pair *
owner_of(const qg_account_rec *rec)
{
	return (pair *)(uintptr_t)(rec->sae - offsetof(pair, names));
}

static void
batch_done(qg_job *job, qg_err err)
{
	batch *b = (batch *)job;
	qg_accounts *a = b->accounts;
	const bool again = err != QG_OK && err != QG_E_UNKNOWN;
	pthread_mutex_lock(&a->lock);
	for (size_t i = 0; again && i < b->n; i++) {
		pair *p = owner_of(&b->rec[i]);
		add(&p->rec, &b->rec[i]);
		mark(a, p);
	}
	a->writing = false;
	pthread_cond_broadcast(&a->written);
	pthread_mutex_unlock(&a->lock);
	free(b);
}

static batch *
take_dirty(qg_accounts *a)
{
	batch *b = a->writing || a->n_dirty == 0 ? NULL : malloc(sizeof *b + a->n_dirty * sizeof b->rec[0]);
	if (b == NULL)
		return NULL;
	*b = (batch){.job = {.run = batch_run, .done = batch_done}, .accounts = a};
	while (a->dirty != NULL) {
		pair *p = a->dirty;
		a->dirty = p->dirty;
		p->is_dirty = false;
		b->rec[b->n++] = p->rec;
		p->rec = (qg_account_rec){.day = p->rec.day, .sae = p->rec.sae, .other = p->rec.other};
	}
	a->n_dirty = 0;
	a->writing = true;
	return b;
}

/* --- forgetting ------------------------------------------------------------------------- */

typedef struct pruning {
	qg_job job;
	int64_t before_day;
} pruning;

static qg_err
pruning_run(qg_job *job, qg_store *store)
{
	return store->ops->accounts_delete(store, ((const pruning *)job)->before_day);
}

/* What fails is done a day later. */
static void
pruning_done(qg_job *job, qg_err err)
{
	const pruning *p = (const pruning *)job;
	if (err == QG_OK)
		qg_log(QG_LOG_DEBUG, "core", "event=accounts_pruned before_day=%lld", (long long)p->before_day);
	free(job);
}

/* Under the lock; NULL: none is due. */
static pruning *
prune_if_due(qg_accounts *a, int64_t today, uint64_t now_ms)
{
	if (a->seen_day != today) {
		a->seen_day = today;
		a->seen_ms = now_ms;
	}
	if (a->keep_days == 0 || a->pruned_day == today || now_ms - a->seen_ms < SETTLED_MS)
		return NULL;
	pruning *p = malloc(sizeof *p);
	if (p == NULL)
		return NULL;
	a->pruned_day = today;
	*p = (pruning){.job = {.run = pruning_run, .done = pruning_done}, .before_day = today - a->keep_days + 1};
	return p;
}

void
qg_accounts_keep_days(qg_accounts *a, uint32_t days)
{
	pthread_mutex_lock(&a->lock);
	a->keep_days = days;
	pthread_mutex_unlock(&a->lock);
}

void
qg_accounts_flush(qg_accounts *a)
{
	const int64_t today = qg_accounts_today();
	pthread_mutex_lock(&a->lock);
	batch *b = take_dirty(a);
	pruning *p = prune_if_due(a, today, qg_clock_elapsed_ms());
	pthread_mutex_unlock(&a->lock);
	if (b != NULL)
		qg_committer_submit(a->committer, &b->job);
	if (p != NULL)
		qg_committer_submit(a->committer, &p->job);
}

/* --- reading ---------------------------------------------------------------------------- */

typedef struct reading {
	qg_job job;
	int64_t from, to;
	qg_account_rec *rec; /* with copies of the names */
	size_t n, room;
} reading;

static void
drop_rows(reading *r)
{
	for (size_t i = 0; i < r->n; i++)
		free((char *)(uintptr_t)r->rec[i].sae);
	r->n = 0;
}

static qg_err
take_row(const qg_account_rec *rec, void *ctx)
{
	reading *r = ctx;
	if (r->n == ROWS_MAX)
		return QG_E_RANGE;
	qg_account_rec *more = qg_grown(r->rec, &r->room, r->n, sizeof *more);
	if (more == NULL)
		return QG_E_NOMEM;
	r->rec = more;
	const size_t n = strlen(rec->sae) + 1, m = strlen(rec->other) + 1;
	char *names = malloc(n + m);
	if (names == NULL)
		return QG_E_NOMEM;
	memcpy(names, rec->sae, n);
	memcpy(names + n, rec->other, m);
	r->rec[r->n] = *rec;
	r->rec[r->n].sae = names;
	r->rec[r->n++].other = names + n;
	return QG_OK;
}

static qg_err
reading_run(qg_job *job, qg_store *store)
{
	reading *r = (reading *)job;
	drop_rows(r); /* of a run before */
	return store->ops->load_accounts(store, r->from, r->to, take_row, r);
}

/* What was counted is on its way to the database before this returns. */
static void
flush_all(qg_accounts *a)
{
	pthread_mutex_lock(&a->lock);
	while (a->writing)
		pthread_cond_wait(&a->written, &a->lock);
	batch *b = take_dirty(a);
	pthread_mutex_unlock(&a->lock);
	if (b != NULL)
		qg_committer_submit(a->committer, &b->job);
}

qg_err
qg_accounts_read(qg_accounts *a, int64_t from, int64_t to, void (*each)(const qg_account_rec *rec, void *ctx),
		 void *ctx)
{
	reading r = {.job.run = reading_run, .from = from, .to = to};
	flush_all(a);
	const qg_err err = qg_committer_run(a->committer, &r.job);
	for (size_t i = 0; err == QG_OK && i < r.n; i++)
		each(&r.rec[i], ctx);
	drop_rows(&r);
	free(r.rec);
	return err;
}

/* --- beginning and end --------------------------------------------------------------------- */

qg_err
qg_accounts_new(qg_committer *committer, qg_accounts **out)
{
	qg_accounts *a = calloc(1, sizeof *a);
	if (a == NULL)
		return QG_E_NOMEM;
	a->committer = committer;
	a->day = a->seen_day = qg_accounts_today();
	a->seen_ms = qg_clock_elapsed_ms();
	a->pruned_day = INT64_MIN;
	pthread_mutex_init(&a->lock, NULL);
	pthread_cond_init(&a->written, NULL);
	qg_random(a->key, sizeof a->key);
	*out = a;
	return QG_OK;
}

void
qg_accounts_free(qg_accounts **ap)
{
	if (ap == NULL || *ap == NULL)
		return;
	qg_accounts *a = *ap;
	for (size_t i = 0; i < BUCKETS; i++)
		while (a->bucket[i] != NULL) {
			pair *p = a->bucket[i];
			a->bucket[i] = p->chain;
			free(p);
		}
	pthread_cond_destroy(&a->written);
	pthread_mutex_destroy(&a->lock);
	free(a);
	*ap = NULL;
}
