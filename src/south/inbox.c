/* SPDX-License-Identifier: Apache-2.0 */
/* A module that pushes over connections of its own. The listener's threads put
 * chunks into the inbox, a window of indexes that begins with the one the stream
 * wants next; the session takes them out in order. Where the window ends the
 * module is told to come again. */
#include "south_internal.h"

#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define NAP_MS 1000
#define SLICE_MS 200
#define GAP_MS 1000 /* a chunk that is missing while later ones are there is not waited for longer */

/* What happened since it was last told. */
typedef struct inbox_news {
	uint64_t refused; /* told to come again */
	uint64_t skipped; /* passed over: the stream went on behind them */
	uint64_t wrong;   /* another value than before */
} inbox_news;

struct qg_inbox {
	pthread_mutex_t lock;
	pthread_cond_t came;
	/* With the lock. */
	bool open;
	qg_uuid ksid;
	size_t chunk_size;
	uint64_t next;      /* index i is in slot i % QG_INBOX_CHUNKS, from here on */
	unsigned n;         /* slots that are full */
	qg_secret *keys;
	bool has[QG_INBOX_CHUNKS];
	bool hungry;        /* nothing has come for a while: any later index is taken */
	bool fell_back;     /* an index that has long passed came */
	uint32_t fell_to;
	inbox_news news;
	/* The session's thread only. */
	bool asked;         /* GET_KEY was answered: the module pushes */
	uint64_t told_ms;
	qg_secret *chunk;
};

qg_err
qg_inbox_new(qg_source *s)
{
	pthread_condattr_t attr;
	struct qg_inbox *b = calloc(1, sizeof *b);
	if (b == NULL)
		return QG_E_NOMEM;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&b->came, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&b->lock, NULL);
	s->inbox = b;
	qg_err err = qg_secret_new((size_t)QG_INBOX_CHUNKS * s->chunk_size, &b->keys);
	return err == QG_OK ? qg_secret_new(s->chunk_size, &b->chunk) : err;
}

void
qg_inbox_free(qg_source *s)
{
	struct qg_inbox *b = s->inbox;
	if (b == NULL)
		return;
	qg_secret_free(&b->keys);
	qg_secret_free(&b->chunk);
	pthread_cond_destroy(&b->came);
	pthread_mutex_destroy(&b->lock);
	free(b);
	s->inbox = NULL;
}

/* --- the window: call with the lock held ----------------------------------------- */

static uint8_t *
slot(const struct qg_inbox *b, uint64_t index)
{
	return b->keys->data + index % QG_INBOX_CHUNKS * b->chunk_size;
}

static void
drop_slot(struct qg_inbox *b, uint64_t index)
{
	if (!b->has[index % QG_INBOX_CHUNKS])
		return;
	qg_wipe(slot(b, index), b->chunk_size);
	b->has[index % QG_INBOX_CHUNKS] = false;
	b->n--;
}

static void
clear(struct qg_inbox *b)
{
	qg_wipe(b->keys->data, b->keys->room);
	memset(b->has, 0, sizeof b->has);
	b->n = 0;
	b->fell_back = false;
}

/* Moves the window forward; whatever is before it is passed over. */
static void
advance(struct qg_inbox *b, uint64_t next)
{
	uint64_t end = b->next + QG_INBOX_CHUNKS;
	for (uint64_t i = b->next; i < next && i < end && b->n > 0; i++) {
		b->news.skipped += b->has[i % QG_INBOX_CHUNKS];
		drop_slot(b, i);
	}
	b->next = next;
}

static qg_err
put(struct qg_inbox *b, uint32_t index, const uint8_t *key)
{
	if (index < b->next) {
		if (b->next - index <= QG_INBOX_CHUNKS)
			return QG_OK; /* sent again because its answer was lost */
		b->fell_back = true;
		b->fell_to = index;
		return QG_E_EXPIRED;
	}
	if (index >= b->next + QG_INBOX_CHUNKS && b->hungry && b->n == 0)
		b->next = index; /* it dropped what is wanted: the stream goes on behind the hole */
	if (index >= b->next + QG_INBOX_CHUNKS) {
		b->news.refused++;
		return QG_E_FULL;
	}
	if (b->has[index % QG_INBOX_CHUNKS]) {
		bool same = qg_equal_ct(slot(b, index), key, b->chunk_size);
		b->news.wrong += !same;
		return same ? QG_OK : QG_E_MISMATCH;
	}
	memcpy(slot(b, index), key, b->chunk_size);
	b->has[index % QG_INBOX_CHUNKS] = true;
	b->n++;
	return QG_OK;
}

qg_err
qg_inbox_put(qg_source *s, const qg_uuid *ksid, uint32_t index, const uint8_t *key, size_t len)
{
	struct qg_inbox *b = s->inbox;
	qg_err err = QG_E_NOTFOUND;
	pthread_mutex_lock(&b->lock);
	if (b->open && qg_uuid_equal(ksid, &b->ksid))
		err = len == b->chunk_size ? put(b, index, key) : QG_E_RANGE;
	pthread_cond_signal(&b->came);
	pthread_mutex_unlock(&b->lock);
	return err;
}

bool
qg_inbox_is(qg_source *s, const qg_uuid *ksid)
{
	struct qg_inbox *b = s->inbox;
	if (b == NULL)
		return false;
	pthread_mutex_lock(&b->lock);
	bool is = b->open && qg_uuid_equal(ksid, &b->ksid);
	pthread_mutex_unlock(&b->lock);
	return is;
}

/* The lowest index in the window that is there. */
static uint64_t
lowest(const struct qg_inbox *b)
{
	uint64_t i = b->next;
	while (i < b->next + QG_INBOX_CHUNKS && !b->has[i % QG_INBOX_CHUNKS])
		i++;
	return i;
}

/* --- what is told ----------------------------------------------------------------- */

/* At most once a second, so that a module in a hurry does not fill the log. */
static void
tell(qg_source *s)
{
	struct qg_inbox *b = s->inbox;
	uint64_t now_ms = qg_clock_elapsed_ms();
	if (b->told_ms != 0 && now_ms - b->told_ms < NAP_MS)
		return;
	pthread_mutex_lock(&b->lock);
	inbox_news news = b->news;
	b->news = (inbox_news){.refused = 0};
	pthread_mutex_unlock(&b->lock);
	if (news.refused == 0 && news.skipped == 0 && news.wrong == 0)
		return;
	b->told_ms = now_ms;
	qg_log(news.wrong > 0 ? QG_LOG_WARN : QG_LOG_INFO, "source",
	       "event=push_refused stream=%s full=%llu skipped=%llu wrong=%llu", qg_log_safe(s->cfg->name),
	       (unsigned long long)news.refused, (unsigned long long)news.skipped,
	       (unsigned long long)news.wrong);
}

/* --- orders ----------------------------------------------------------------------- */

/* Asks the module to push from this index on. */
static qg_err
ask(qg_source *s, const qg_uuid *ksid, uint32_t index, uint32_t *status)
{
	const qg_etsi004_request q = qg_order_get_request(s, ksid, index);
	qg_etsi004_response a;
	qg_err err = qg_session_call(s, &q, &a);
	if (err == QG_OK)
		*status = a.status;
	return err;
}

/* The window begins where the order does. An order for what has passed asks the
 * module to begin anew. */
static void
move(qg_source *s, const qg_intake_order *o)
{
	struct qg_inbox *b = s->inbox;
	pthread_mutex_lock(&b->lock);
	if (o->index < b->next) {
		clear(b);
		b->next = o->index;
		b->asked = false;
	} else {
		advance(b, o->index);
	}
	pthread_mutex_unlock(&b->lock);
}

typedef enum found { CHUNK, HOLE, FELL_BACK, NOTHING } found;

/* Waits for the next chunk and copies it; of a hole the first one behind it.
 * *index is whose it is. */
static found
wait_for_chunk(qg_source *s, uint32_t *index)
{
	struct qg_inbox *b = s->inbox;
	const uint64_t start_ms = qg_clock_elapsed_ms(), end_ms = start_ms + qg_session_patience_ms(s);
	uint64_t now_ms = start_ms, gap_ms = 0;
	found what = NOTHING;
	pthread_mutex_lock(&b->lock);
	for (; what == NOTHING && now_ms < end_ms && !qg_session_stopping(s); now_ms = qg_clock_elapsed_ms()) {
		uint64_t first = b->n > 0 ? lowest(b) : UINT64_MAX;
		if (gap_ms == 0 && b->n > 0)
			gap_ms = now_ms + GAP_MS;
		if (b->fell_back)
			what = FELL_BACK;
		else if (first == b->next)
			what = CHUNK;
		else if (b->n > 0 && now_ms >= gap_ms)
			what = HOLE;
		*index = what == FELL_BACK ? b->fell_to : (uint32_t)first;
		if (what == CHUNK || what == HOLE)
			memcpy(b->chunk->data, slot(b, first), b->chunk_size);
		b->fell_back = false;
		if (what != NOTHING)
			break;
		b->hungry = now_ms - start_ms >= GAP_MS;
		const struct timespec until = qg_session_after_ms(SLICE_MS);
		pthread_cond_timedwait(&b->came, &b->lock, &until);
	}
	b->hungry = false;
	pthread_mutex_unlock(&b->lock);
	return what;
}

/* The chunk is the stream's now. */
static void
taken(struct qg_inbox *b, uint32_t index)
{
	pthread_mutex_lock(&b->lock);
	drop_slot(b, index);
	advance(b, (uint64_t)index + 1);
	pthread_mutex_unlock(&b->lock);
}

/* Whether the order goes on. */
static bool
take_one(qg_source *s, const qg_intake_order *o, uint32_t want)
{
	struct qg_inbox *b = s->inbox;
	uint32_t index = 0;
	found what = wait_for_chunk(s, &index);
	if (what == NOTHING) {
		if (!qg_session_stopping(s)) {
			b->asked = false;
			qg_order_wait_for_key(s, want, QG_ETSI004_TIMEOUT);
		}
		return false;
	}
	qg_order_worked(s);
	qg_rate_spend(&s->rate, s->chunk_size);
	qg_err err = qg_intake_chunk(s->in, &o->ksid, index, b->chunk->data, b->chunk_size);
	qg_wipe(b->chunk->data, b->chunk->room);
	if (err == QG_OK && what != FELL_BACK)
		taken(b, index);
	return err == QG_OK && index == want;
}

static bool
ask_or_report(qg_source *s, const qg_intake_order *o)
{
	uint32_t status = 0;
	s->fault = NULL;
	qg_err err = ask(s, &o->ksid, o->index, &status);
	if (err == QG_OK && status == QG_ETSI004_SUCCESS)
		return true;
	if (err == QG_OK && (status == QG_ETSI004_NO_KEY || status == QG_ETSI004_NO_PEER ||
			     status == QG_ETSI004_TIMEOUT)) {
		qg_order_wait_for_key(s, o->index, status);
		return false;
	}
	qg_session_drop(s);
	err = qg_order_failed(s, "get_failed", err, status);
	qg_intake_get_failed(s->in, o->index, err, status);
	return false;
}

void
qg_inbox_get(qg_source *s, const qg_intake_order *o)
{
	struct qg_inbox *b = s->inbox;
	uint32_t most = UINT32_MAX - o->index, end = o->index + (o->count < most ? o->count : most);
	if (!qg_order_may(s, NAP_MS))
		return;
	move(s, o);
	if (!b->asked)
		b->asked = ask_or_report(s, o);
	for (uint32_t i = o->index; b->asked && i != end && !qg_session_stopping(s); i++)
		if (qg_order_allowed(s, 1) == 0 || !take_one(s, o, i))
			break;
	tell(s);
}

void
qg_inbox_open(qg_source *s, const qg_intake_order *o)
{
	s->inbox->asked = false;
	qg_order_open(s, o);
}

/* A stream with larger chunks than configured stays closed: nobody wants them. */
void
qg_inbox_opened(qg_source *s, const qg_uuid *ksid)
{
	struct qg_inbox *b = s->inbox;
	pthread_mutex_lock(&b->lock);
	clear(b);
	b->open = s->chunk_size <= s->cfg->chunk_size;
	b->ksid = *ksid;
	b->chunk_size = s->chunk_size;
	b->next = 0;
	pthread_mutex_unlock(&b->lock);
}

void
qg_inbox_close(qg_source *s, const qg_intake_order *o)
{
	struct qg_inbox *b = s->inbox;
	pthread_mutex_lock(&b->lock);
	b->open = false;
	clear(b);
	pthread_mutex_unlock(&b->lock);
	b->asked = false;
	qg_order_close(s, o);
}

void
qg_inbox_wait(qg_source *s, const qg_intake_order *o)
{
	(void)o;
	tell(s);
}
