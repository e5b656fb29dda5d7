/* SPDX-License-Identifier: Apache-2.0 */
/* What the two ends say to each other, in clear: this simulates the quantum
 * channel together with the modules at its ends. Each message is {type u8,
 * length u32, body}; all numbers big-endian.
 *
 * After a new connection both ends tell every stream that is open, then
 * "synced". Each sends the chunks that the other says it lacks, so an end that
 * was restarted gets back what the other still holds. */
#include "sim_internal.h"

#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define HEAD 5
#define DATA_MAX 65536u /* key in one message */
#define ROOM_FOR_STATE 4096u
#define ROOM_FOR_CHUNKS (DATA_MAX + 64u)

enum type { HELLO = 1, STATE, SYNCED, CLOSED, READ, CHUNKS, OUTAGE };

static const uint8_t magic[8] = {'q', 'g', 's', 'i', 'm', 0, 0, 1};

/* --- writing --------------------------------------------------------------------- */

/* The length is filled in at the end; `at` is where the message starts. */
static size_t
begin(qg_writer *w, enum type type)
{
	size_t at = w->len;
	qg_put_u8(w, (uint8_t)type);
	qg_put_u32(w, 0);
	return at;
}

static void
end(qg_writer *w, size_t at)
{
	if (w->bad)
		return;
	qg_writer length = qg_writer_of(w->buf + at + 1, 4);
	qg_put_u32(&length, (uint32_t)(w->len - at - HEAD));
}

static void
put_ksid(qg_writer *w, const sim_stream *st)
{
	qg_put_bytes(w, st->ksid.b, sizeof st->ksid.b);
}

void
sim_messages_put_hello(qg_writer *w)
{
	size_t at = begin(w, HELLO);
	qg_put_bytes(w, magic, sizeof magic);
	end(w, at);
}

static void
put_state(qg_writer *w, const sim_stream *st)
{
	const qg_etsi004_qos *q = &st->qos;
	const uint32_t words[] = {q->chunk_size, q->max_bps,    q->min_bps, q->jitter_bps,
				  q->priority,   q->timeout_ms, q->ttl_s};
	size_t at = begin(w, STATE);
	put_ksid(w, st);
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		qg_put_u32(w, words[i]);
	qg_put_u64(w, st->next);
	qg_put_u64(w, st->mark);
	qg_put_cstr(w, st->mimetype);
	qg_put_cstr(w, st->source);
	qg_put_cstr(w, st->destination);
	end(w, at);
}

static void
put_read(qg_writer *w, sim_stream *st)
{
	size_t at = begin(w, READ);
	put_ksid(w, st);
	qg_put_u64(w, st->mark);
	qg_put_u64(w, st->next);
	end(w, at);
	st->told_mark = st->mark;
	st->told_next = st->next;
}

static void
put_chunks(qg_writer *w, sim_stream *st)
{
	const uint8_t *from = NULL;
	while (st->there && w->room - w->len >= ROOM_FOR_CHUNKS) {
		uint32_t n = sim_stream_unsent(st, DATA_MAX / st->qos.chunk_size, &from);
		if (n == 0)
			return;
		size_t at = begin(w, CHUNKS);
		put_ksid(w, st);
		qg_put_u64(w, st->sent);
		qg_put_u32(w, n);
		qg_put_u32(w, st->qos.chunk_size);
		qg_put_bytes(w, from, (size_t)n * st->qos.chunk_size);
		end(w, at);
		st->sent += n;
	}
}

static void
put_stream(qg_writer *w, sim_stream *st)
{
	if (st->tell_closed) {
		size_t at = begin(w, CLOSED);
		put_ksid(w, st);
		qg_put_u8(w, st->for_good);
		end(w, at);
		st->tell_closed = false;
	}
	if (st->tell_open) {
		put_state(w, st);
		st->told_mark = st->mark;
		st->told_next = st->next;
		st->tell_open = false;
	}
	if (st->here && (st->told_mark != st->mark || st->told_next != st->next))
		put_read(w, st);
	if (st->here)
		put_chunks(w, st);
}

void
sim_messages_put(sim *s, qg_writer *w)
{
	if (s->tell_outage) {
		size_t at = begin(w, OUTAGE);
		qg_put_u8(w, s->outage);
		end(w, at);
		s->tell_outage = false;
	}
	sim_stream *later = NULL;
	for (sim_stream *st = s->streams; st != NULL; st = later) {
		later = st->later;
		if (w->room - w->len < ROOM_FOR_STATE)
			return; /* the next call goes on */
		put_stream(w, st);
		sim_stream_settle(s, st);
	}
	if (!s->linked) { /* all is told once */
		end(w, begin(w, SYNCED));
		s->linked = true;
	}
}

void
sim_messages_restart(sim *s)
{
	sim_stream *later = NULL;
	s->linked = false;
	s->tell_outage = true;
	for (sim_stream *st = s->streams; st != NULL; st = later) {
		later = st->later;
		st->there = false;
		st->tell_open = st->here;
		st->tell_closed = false;
		sim_stream_settle(s, st);
	}
}

/* --- reading --------------------------------------------------------------------- */

static qg_err
get_ksid(qg_reader *r, qg_uuid *ksid)
{
	const uint8_t *p = qg_get_bytes(r, sizeof ksid->b);
	if (p == NULL)
		return QG_E_PROTO;
	memcpy(ksid->b, p, sizeof ksid->b);
	return QG_OK;
}

typedef struct told_state {
	qg_uuid ksid;
	qg_etsi004_qos qos;
	uint64_t next, mark;
	const char *source, *destination;
} told_state;

static qg_err
get_state(qg_reader *r, told_state *t)
{
	qg_etsi004_qos *q = &t->qos;
	uint32_t *const words[] = {&q->chunk_size, &q->max_bps,    &q->min_bps, &q->jitter_bps,
				   &q->priority,   &q->timeout_ms, &q->ttl_s};
	qg_err err = get_ksid(r, &t->ksid);
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		*words[i] = qg_get_u32(r);
	t->next = qg_get_u64(r);
	t->mark = qg_get_u64(r);
	q->mimetype = qg_get_cstr(r);
	t->source = qg_get_cstr(r);
	t->destination = qg_get_cstr(r);
	bool fine = err == QG_OK && !r->bad && r->left == 0 && q->chunk_size > 0 &&
		    q->chunk_size <= SIM_CHUNK_MAX && t->mark <= t->next && t->next <= UINT32_MAX &&
		    (q->mimetype[0] == '\0' || strcmp(q->mimetype, "application/json") == 0);
	return fine ? QG_OK : QG_E_PROTO;
}

/* The application at the other end has opened the stream, or has it open since
 * before the connection. */
static qg_err
take_state(sim *s, qg_reader *r)
{
	told_state t;
	qg_err err = get_state(r, &t);
	if (err != QG_OK)
		return err;
	sim_stream *st = sim_stream_find(s, &t.ksid);
	if (st == NULL)
		st = sim_stream_new(s, &t.ksid, &t.qos, t.source, t.destination);
	if (st == NULL)
		return QG_OK; /* no memory for it: the peer waits for its other end */
	if (st->qos.chunk_size != t.qos.chunk_size) {
		qg_log(QG_LOG_WARN, "sim", "event=chunk_size_differs here=%u there=%u", st->qos.chunk_size,
		       t.qos.chunk_size);
		return QG_OK;
	}
	st->there = true;
	st->there_closed = false;
	st->there_next = t.next;
	st->there_mark = t.mark;
	st->sent = t.next < st->first ? st->first : t.next;
	return QG_OK;
}

static qg_err
take_closed(sim *s, qg_reader *r)
{
	qg_uuid ksid;
	qg_err err = get_ksid(r, &ksid);
	uint8_t for_good = qg_get_u8(r);
	if (err != QG_OK || r->bad || r->left != 0 || for_good > 1)
		return QG_E_PROTO;
	sim_stream *st = sim_stream_find(s, &ksid);
	if (st == NULL)
		return QG_OK;
	st->there = false;
	st->there_closed = for_good == 1;
	sim_stream_settle(s, st);
	return QG_OK;
}

static qg_err
take_read(sim *s, qg_reader *r)
{
	qg_uuid ksid;
	qg_err err = get_ksid(r, &ksid);
	uint64_t mark = qg_get_u64(r), next = qg_get_u64(r);
	if (err != QG_OK || r->bad || r->left != 0 || mark > next || next > UINT32_MAX)
		return QG_E_PROTO;
	sim_stream *st = sim_stream_find(s, &ksid);
	if (st != NULL && st->there) {
		st->there_mark = mark;
		st->there_next = next;
	}
	return QG_OK;
}

/* Chunks that are here already are passed over; the first ones after a restart
 * may begin anywhere. */
static void
store_chunks(sim *s, sim_stream *st, uint64_t first, uint64_t n, const uint8_t *p)
{
	size_t size = st->qos.chunk_size;
	if (first > st->next) { /* what lies between is lost for this end */
		sim_stream_clear(st);
		st->first = st->next = first;
	}
	if (first + n <= st->next)
		return;
	uint64_t skip = st->next - first;
	p += skip * size;
	for (n -= skip; n > 0;) {
		uint8_t *to = NULL;
		uint32_t run = sim_stream_room(st, n < SIM_BLOCK ? (uint32_t)n : SIM_BLOCK, &to);
		if (run == 0)
			return;
		memcpy(to, p, run * size);
		sim_stream_added(s, st, run);
		p += run * size;
		n -= run;
	}
	if (st->mark < st->first)
		st->mark = st->first;
	if (st->there_next < st->next)
		st->there_next = st->next;
	if (st->sent < st->next)
		st->sent = st->next;
}

static qg_err
take_chunks(sim *s, qg_reader *r)
{
	qg_uuid ksid;
	qg_err err = get_ksid(r, &ksid);
	uint64_t first = qg_get_u64(r);
	uint32_t n = qg_get_u32(r), size = qg_get_u32(r);
	if (err != QG_OK || r->bad || size == 0 || size > SIM_CHUNK_MAX || n == 0 || n > DATA_MAX / size ||
	    r->left != (size_t)n * size || first > UINT32_MAX - n)
		return QG_E_PROTO;
	sim_stream *st = sim_stream_find(s, &ksid);
	if (st != NULL && st->here && st->there && st->qos.chunk_size == size)
		store_chunks(s, st, first, n, r->p);
	return QG_OK;
}

static qg_err
take_outage(sim *s, qg_reader *r)
{
	uint8_t on = qg_get_u8(r);
	if (r->bad || r->left != 0 || on > 1)
		return QG_E_PROTO;
	s->outage_there = on == 1;
	return QG_OK;
}

static qg_err
take_hello(sim *s, qg_reader *r)
{
	(void)s;
	const uint8_t *p = qg_get_bytes(r, sizeof magic);
	return p != NULL && r->left == 0 && memcmp(p, magic, sizeof magic) == 0 ? QG_OK : QG_E_PROTO;
}

static qg_err
take_synced(sim *s, qg_reader *r)
{
	(void)s;
	return r->left == 0 ? QG_OK : QG_E_PROTO;
}

size_t
sim_message_length(const uint8_t *p, size_t n)
{
	if (n < HEAD)
		return 0;
	qg_reader r = qg_reader_of(p + 1, 4);
	return HEAD + (size_t)qg_get_u32(&r);
}

qg_err
sim_message_take(sim *s, const uint8_t *p, size_t n)
{
	static qg_err (*const take[])(sim *, qg_reader *) = {
		[HELLO] = take_hello, [STATE] = take_state,   [SYNCED] = take_synced, [CLOSED] = take_closed,
		[READ] = take_read,   [CHUNKS] = take_chunks, [OUTAGE] = take_outage,
	};
	if (n < HEAD || p[0] < HELLO || p[0] > OUTAGE)
		return QG_E_PROTO;
	qg_reader r = qg_reader_of(p + HEAD, n - HEAD);
	pthread_mutex_lock(&s->lock);
	qg_err err = take[p[0]](s, &r);
	if (p[0] != HELLO) {
		pthread_cond_signal(&s->work);
		pthread_cond_broadcast(&s->changed);
	}
	pthread_mutex_unlock(&s->lock);
	return err;
}
