/* SPDX-License-Identifier: Apache-2.0 */
/* Events are copied into one of two buffers; the writer's thread takes the
 * full one, leaves the other, and makes lines of it without the lock. So a
 * request pays for a copy, and the file is written in large pieces. */
#include "qkdgate/audit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "audit_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define LINES_MAX 65536
#define BUFFER_BYTES ((size_t)8 * 1024 * 1024)
#define PART_IDS 4096 /* more in one event are queued in parts */
#define OUT_BYTES ((size_t)256 * 1024)

#define FLUSH_MS 100   /* an event waits no longer before it is written */
#define SYNC_MS 1000   /* what is written waits no longer before it is synced */
#define RETRY_MS 1000  /* after a write that failed */
#define ROTATE_RETRY_MS 60000
#define NEVER UINT64_MAX
#define KEY_BYTES ((size_t)32)

/* In a buffer: this, the four strings, the IDs; not aligned. */
typedef struct record {
	qg_audit_head head; /* its pointers are not used */
	uint32_t n_ids;
} record;

typedef struct queue {
	uint8_t *bytes;
	size_t len;
	uint64_t lines;
} queue;

struct qg_audit {
	pthread_t thread;
	pthread_mutex_t lock; /* guards what follows up to the next comment */
	pthread_cond_t wake;  /* the writer: something to do */
	pthread_cond_t moved; /* everyone else: room was made, a sync is done */
	queue filling;
	uint64_t first_ms;    /* when the first event of `filling` came */
	uint64_t queued, written, synced; /* lines since the start */
	qg_audit_end end; /* of what is synced */
	uint64_t rotate_bytes; /* 0: never */
	uint64_t rotate_begun, rotate_ended; /* how often it was tried */
	uint64_t rotate_after_ms; /* not before, after it failed */
	bool rotate_failed;    /* the last time */
	bool rotate_wanted;
	bool sync_wanted;
	bool closing;
	bool failing;         /* the last attempt to write failed */
	bool broken;          /* a sync failed: what is on disk is unknown */

	atomic_bool healthy;  /* neither of these two */
	qg_audit_tally *limited; /* stays */

	/* the writer's own */
	queue taken;
	qg_audit_file file;
	qg_audit_chain chain;
	char *path;
	qg_secret *key; /* constant, for who verifies */
	char *out; /* lines to be written */
	size_t out_len;
	uint64_t synced_ms; /* when it was last synced */
};

/* The threads must wait in real time, whatever clock a test puts in. */
static uint64_t
now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void
wait_until(qg_audit *a, uint64_t ms)
{
	const struct timespec t = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
	if (ms == NEVER)
		pthread_cond_wait(&a->wake, &a->lock);
	else
		(void)pthread_cond_timedwait(&a->wake, &a->lock, &t);
}

/* --- the callers' side ------------------------------------------------------ */

static uint16_t
kept_len(const char *s)
{
	return s != NULL ? (uint16_t)strnlen(s, QG_AUDIT_STRING_MAX) : 0;
}

static void
append(queue *q, const void *p, size_t n)
{
	if (n > 0)
		memcpy(q->bytes + q->len, p, n);
	q->len += n;
}

/* Queues one event, or a part of its IDs. */
static void
queue_part(qg_audit *a, record *r, const qg_audit_event *e, const qg_request_id *request, const qg_uuid *ids)
{
	size_t size = sizeof *r + r->head.caller_len + r->head.peer_len + r->head.reason_len + r->head.request_len +
		      16 * (size_t)r->n_ids;
	uint64_t lines = r->n_ids > 0 ? r->n_ids : 1;
	pthread_mutex_lock(&a->lock);
	while (a->queued - a->written + lines > LINES_MAX || size > BUFFER_BYTES - a->filling.len)
		pthread_cond_wait(&a->moved, &a->lock);
	queue *q = &a->filling;
	bool was_empty = q->len == 0, was_half = q->len > BUFFER_BYTES / 2 || q->lines > LINES_MAX / 4;
	if (was_empty)
		a->first_ms = now_ms();
	r->head.time_ms = qg_clock_wall_ms(); /* here, so that the file is in order of time */
	append(q, r, sizeof *r);
	append(q, e->caller, r->head.caller_len);
	append(q, e->peer, r->head.peer_len);
	append(q, e->reason, r->head.reason_len);
	append(q, request->text, r->head.request_len);
	append(q, ids, 16 * (size_t)r->n_ids);
	q->lines += lines;
	a->queued += lines;
	bool half = q->len > BUFFER_BYTES / 2 || q->lines > LINES_MAX / 4;
	if (was_empty || (half && !was_half))
		pthread_cond_signal(&a->wake);
	pthread_mutex_unlock(&a->lock);
}

void
qg_audit_write(qg_audit *a, const qg_audit_event *e)
{
	if (a == NULL)
		return;
	const qg_request_id request = qg_request_id_now();
	record r;
	memset(&r, 0, sizeof r);
	r.head.act = (uint8_t)e->act;
	r.head.size_bits = e->size_bits;
	r.head.caller_len = kept_len(e->caller);
	r.head.peer_len = kept_len(e->peer);
	r.head.reason_len = kept_len(e->reason);
	r.head.request_len = request.given ? kept_len(request.text) : 0;
	size_t done = 0;
	do {
		size_t n = e->n_ids - done < PART_IDS ? e->n_ids - done : PART_IDS;
		r.n_ids = (uint32_t)n;
		queue_part(a, &r, e, &request, n > 0 ? e->ids + done : NULL);
		done += n;
	} while (done < e->n_ids);
}

qg_err
qg_audit_sync(qg_audit *a)
{
	if (a == NULL)
		return QG_OK;
	pthread_mutex_lock(&a->lock);
	uint64_t upto = a->queued;
	while (a->synced < upto && !a->failing && !a->broken) {
		a->sync_wanted = true;
		pthread_cond_signal(&a->wake);
		pthread_cond_wait(&a->moved, &a->lock);
	}
	qg_err err = a->failing || a->broken ? QG_E_IO : QG_OK;
	pthread_mutex_unlock(&a->lock);
	return err;
}

qg_audit_tally *
qg_audit_tally_of(qg_audit *a)
{
	return a != NULL ? a->limited : NULL;
}

bool
qg_audit_healthy(const qg_audit *a)
{
	return a == NULL || atomic_load_explicit(&a->healthy, memory_order_relaxed);
}

/* --- the writer -------------------------------------------------------------- */

/* Notes how an attempt ended. Returns whether to try again, a while later. */
static bool
attempt_failed(qg_audit *a)
{
	pthread_mutex_lock(&a->lock);
	bool news = !a->failing;
	a->failing = true;
	atomic_store(&a->healthy, false);
	pthread_cond_broadcast(&a->moved);
	uint64_t until = now_ms() + RETRY_MS;
	while (!a->closing && now_ms() < until)
		wait_until(a, until);
	bool again = !a->closing;
	pthread_mutex_unlock(&a->lock);
	if (news)
		qg_log(QG_LOG_ERROR, "audit", "event=write_failed action=retry every_ms=%d", RETRY_MS);
	return again;
}

static void
attempt_succeeded(qg_audit *a)
{
	pthread_mutex_lock(&a->lock);
	bool news = a->failing;
	a->failing = false;
	atomic_store(&a->healthy, !a->broken);
	pthread_mutex_unlock(&a->lock);
	if (news)
		qg_log(QG_LOG_WARN, "audit", "event=writes_again");
}

/* Writes the lines that are ready. QG_E_IO only when closing: then they are
 * given up, and none of them is left in part. */
static qg_err
write_out(qg_audit *a)
{
	while (qg_audit_write_at(a->file.fd, a->out, a->out_len, a->file.end) != QG_OK) {
		if (attempt_failed(a))
			continue;
		if (qg_audit_write_at(a->file.fd, a->out, a->out_len, a->file.end) == QG_OK)
			break;
		if (ftruncate(a->file.fd, a->file.end) != 0)
			qg_log(QG_LOG_ERROR, "audit", "event=torn_line_left");
		return QG_E_IO;
	}
	a->file.end += (off_t)a->out_len;
	a->out_len = 0;
	attempt_succeeded(a);
	return QG_OK;
}

/* Reads the record at p; returns where its IDs are. */
static const uint8_t *
read_record(const uint8_t *p, record *r)
{
	memcpy(r, p, sizeof *r);
	p += sizeof *r;
	r->head.caller = (const char *)p;
	p += r->head.caller_len;
	r->head.peer = (const char *)p;
	p += r->head.peer_len;
	r->head.reason = (const char *)p;
	p += r->head.reason_len;
	r->head.request = (const char *)p;
	return p + r->head.request_len;
}

static qg_err
put_line(qg_audit *a, const qg_uuid *id)
{
	if (OUT_BYTES - a->out_len < QG_AUDIT_LINE_MAX) {
		qg_err err = write_out(a);
		if (err != QG_OK)
			return err;
	}
	a->out_len += qg_audit_chain_line(&a->chain, id, a->out + a->out_len);
	return QG_OK;
}

/* Makes lines of all that was taken and writes them. */
static qg_err
write_taken(qg_audit *a)
{
	const uint8_t *p = a->taken.bytes, *end = p + a->taken.len;
	qg_err err = QG_OK;
	while (p < end && err == QG_OK) {
		record r;
		qg_uuid id;
		p = read_record(p, &r);
		qg_audit_chain_event(&a->chain, &r.head);
		if (r.n_ids == 0)
			err = put_line(a, NULL);
		for (uint32_t i = 0; i < r.n_ids && err == QG_OK; i++, p += sizeof id.b) {
			memcpy(id.b, p, sizeof id.b);
			err = put_line(a, &id);
		}
	}
	return err == QG_OK ? write_out(a) : err;
}

/* Whether there is something to do now; if not, *until is when there will be. */
static bool
due(const qg_audit *a, uint64_t *until)
{
	uint64_t flush = a->filling.len > 0 ? a->first_ms + FLUSH_MS : NEVER;
	uint64_t sync = a->written > a->synced && !a->broken ? a->synced_ms + SYNC_MS : NEVER;
	*until = flush < sync ? flush : sync;
	return a->closing || a->sync_wanted || a->rotate_wanted || a->filling.len > BUFFER_BYTES / 2 ||
	       a->filling.lines > LINES_MAX / 4 || now_ms() >= *until;
}

/* With the lock held; drops it while it writes. */
static qg_err
flush(qg_audit *a)
{
	queue taken = a->filling;
	a->filling = (queue){.bytes = a->taken.bytes};
	a->taken = taken;
	pthread_mutex_unlock(&a->lock);
	qg_err err = write_taken(a);
	pthread_mutex_lock(&a->lock);
	a->written += taken.lines;
	pthread_cond_broadcast(&a->moved);
	return err;
}

static void
sync_file(qg_audit *a)
{
	uint64_t upto = a->written;
	qg_audit_end end = {.seq = a->chain.seq};
	memcpy(end.tag, a->chain.tag, sizeof end.tag);
	a->sync_wanted = false;
	pthread_mutex_unlock(&a->lock);
	bool failed = fdatasync(a->file.fd) != 0;
	/* After a failed sync the kernel may have dropped what it could not
	 * write, so that a later one proves nothing. */
	if (failed)
		qg_log(QG_LOG_ERROR, "audit", "event=sync_failed");
	pthread_mutex_lock(&a->lock);
	a->synced_ms = now_ms();
	a->broken = a->broken || failed;
	atomic_store(&a->healthy, !a->broken && !a->failing);
	a->synced = upto;
	if (!failed)
		a->end = end;
	pthread_cond_broadcast(&a->moved);
}

/* --- another file ------------------------------------------------------------ */

static bool
rotation_due(const qg_audit *a)
{
	if (a->rotate_wanted)
		return true;
	return a->rotate_bytes > 0 && (uint64_t)a->file.end >= a->rotate_bytes && now_ms() >= a->rotate_after_ms;
}

/* With the lock held; drops it while it writes. */
static void
rotate(qg_audit *a)
{
	a->rotate_wanted = false;
	a->rotate_begun++;
	pthread_mutex_unlock(&a->lock);
	const qg_err err = qg_audit_file_rotate(&a->file, a->path, &a->chain);
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "audit", "event=rotate_failed why=\"%s\"", qg_err_text(err));
	pthread_mutex_lock(&a->lock);
	a->rotate_failed = err != QG_OK;
	a->rotate_after_ms = now_ms() + ROTATE_RETRY_MS;
	a->rotate_ended = a->rotate_begun;
	if (err == QG_OK) { /* both files are synced */
		a->synced = a->written;
		a->end.seq = a->chain.seq;
		memcpy(a->end.tag, a->chain.tag, sizeof a->end.tag);
	}
	pthread_cond_broadcast(&a->moved);
}

void
qg_audit_rotate_at(qg_audit *a, uint64_t bytes)
{
	if (a == NULL)
		return;
	pthread_mutex_lock(&a->lock);
	a->rotate_bytes = bytes;
	pthread_mutex_unlock(&a->lock);
}

qg_err
qg_audit_rotate(qg_audit *a)
{
	if (a == NULL)
		return QG_OK;
	pthread_mutex_lock(&a->lock);
	/* One that has begun may leave out what the caller wrote. */
	const uint64_t wanted = a->rotate_begun + 1;
	a->rotate_wanted = true;
	pthread_cond_signal(&a->wake);
	while (a->rotate_ended < wanted && !a->closing && !a->broken)
		pthread_cond_wait(&a->moved, &a->lock);
	const qg_err err = a->rotate_ended < wanted || a->rotate_failed ? QG_E_IO : QG_OK;
	pthread_mutex_unlock(&a->lock);
	return err;
}

void
qg_audit_synced(qg_audit *a, qg_audit_end *out)
{
	*out = (qg_audit_end){0};
	if (a == NULL)
		return;
	pthread_mutex_lock(&a->lock);
	*out = a->end;
	pthread_mutex_unlock(&a->lock);
}

static void *
writer(void *arg)
{
	qg_audit *a = arg;
	qg_err err = QG_OK;
	pthread_mutex_lock(&a->lock);
	while (err == QG_OK && !(a->closing && a->filling.len == 0 && a->written == a->synced)) {
		uint64_t until;
		if (!due(a, &until)) {
			wait_until(a, until);
			continue;
		}
		if (a->filling.len > 0)
			err = flush(a);
		bool late = now_ms() >= a->synced_ms + SYNC_MS;
		if (a->written > a->synced ? a->closing || a->sync_wanted || late : a->sync_wanted)
			sync_file(a);
		if (err == QG_OK && !a->closing && !a->broken && rotation_due(a))
			rotate(a);
	}
	pthread_mutex_unlock(&a->lock);
	if (err != QG_OK)
		qg_log(QG_LOG_ERROR, "audit", "event=lines_lost why=\"%s\"", qg_err_text(err));
	return NULL;
}

/* --- checking what was written ---------------------------------------------------- */

static uint64_t
rotations(qg_audit *a)
{
	pthread_mutex_lock(&a->lock);
	const uint64_t n = a->rotate_ended;
	pthread_mutex_unlock(&a->lock);
	return n;
}

qg_err
qg_audit_check(qg_audit *a, qg_audit_paths *paths, qg_audit_report *out)
{
	if (a == NULL)
		return QG_E_NOTFOUND;
	for (;;) {
		qg_audit_end end;
		const uint64_t before = rotations(a);
		qg_err err = qg_audit_sync(a);
		if (err != QG_OK)
			return err;
		qg_audit_synced(a, &end);
		err = qg_audit_paths_find(a->path, paths);
		if (err != QG_OK)
			return err;
		err = qg_audit_verify_files((const char *const *)paths->path, paths->n, a->key->data,
					    end.seq > 0 ? &end : NULL, out);
		if (err == QG_OK || rotations(a) == before)
			return err;
		qg_audit_paths_free(paths); /* names changed under it */
	}
}

/* --- opening and closing ----------------------------------------------------- */

static void
release(qg_audit *a)
{
	free(a->filling.bytes);
	free(a->taken.bytes);
	free(a->out);
	free(a->path);
	qg_audit_tally_free(&a->limited);
	qg_secret_free(&a->key);
	free(a);
}

static void
init_locks(qg_audit *a)
{
	pthread_condattr_t attr;
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->wake, &attr);
	pthread_cond_init(&a->moved, &attr);
	pthread_condattr_destroy(&attr);
}

static void
fini(qg_audit *a)
{
	close(a->file.fd);
	qg_audit_chain_fini(&a->chain);
	pthread_mutex_destroy(&a->lock);
	pthread_cond_destroy(&a->wake);
	pthread_cond_destroy(&a->moved);
	release(a);
}

qg_err
qg_audit_open(const char *path, const unsigned char key[32], qg_audit **out)
{
	qg_audit *a = calloc(1, sizeof *a);
	if (a == NULL)
		return QG_E_NOMEM;
	a->filling.bytes = malloc(BUFFER_BYTES);
	a->taken.bytes = malloc(BUFFER_BYTES);
	a->out = malloc(OUT_BYTES);
	a->path = strdup(path);
	const bool made = a->filling.bytes != NULL && a->taken.bytes != NULL && a->out != NULL && a->path != NULL;
	qg_err err = made ? QG_OK : QG_E_NOMEM;
	if (err == QG_OK)
		err = qg_secret_new(KEY_BYTES, &a->key);
	if (err == QG_OK)
		err = qg_secret_append(a->key, key, KEY_BYTES);
	if (err == QG_OK)
		err = qg_audit_tally_new(&a->limited);
	if (err == QG_OK)
		err = qg_audit_file_open(path, key, &a->file, &a->chain);
	if (err != QG_OK) {
		release(a);
		return err;
	}
	init_locks(a);
	a->synced_ms = now_ms();
	a->end.seq = a->chain.seq;
	memcpy(a->end.tag, a->chain.tag, sizeof a->end.tag);
	atomic_init(&a->healthy, true);
	if (pthread_create(&a->thread, NULL, writer, a) != 0) {
		fini(a);
		return QG_E_NOMEM;
	}
	*out = a;
	return QG_OK;
}

void
qg_audit_close(qg_audit **a)
{
	if (a == NULL || *a == NULL)
		return;
	pthread_mutex_lock(&(*a)->lock);
	(*a)->closing = true;
	pthread_cond_signal(&(*a)->wake);
	pthread_mutex_unlock(&(*a)->lock);
	pthread_join((*a)->thread, NULL);
	fini(*a);
	*a = NULL;
}
