/* SPDX-License-Identifier: Apache-2.0 */
/* GET_KEY: a window of requests at a time. Chunks are reported in the order of
 * their index; one that comes while an earlier one is missing is kept, because
 * not every key manager gives it twice. An answer counts when the one behind it
 * is one, too: of an answer that is cut short the missing bytes would be the
 * first of the next, and so might stand for key. */
#include "south_internal.h"

#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/log.h"

#define METADATA_FIRST 1024  /* bytes offered until a status 8 asks for more */
#define SINGLES_FIRST 256u   /* one at a time after pipelining broke */
#define SINGLES_SHIFT_MAX 12
#define NAP_MS 1000          /* then the intake may have another order */

/* What became of a window. */
typedef enum verdict { GO_ON, GIVE_BACK } verdict;

typedef struct window {
	qg_uuid ksid;
	uint32_t next;  /* the index to report next */
	uint32_t end;   /* the first index beyond the order */
	bool is_void;   /* the intake takes no more of this order */
	size_t asked;
	uint32_t index[QG_SOUTH_WINDOW];
	bool doubtful;  /* the last key taken: nothing was read behind it yet */
	uint32_t last;
	bool resized;   /* more metadata was offered already */
	bool failed;    /* by a status; the first one counts */
	uint32_t failed_index, status, needed;
} window;

/* --- keys that came early ----------------------------------------------------- */

void
qg_order_forget(qg_source *s)
{
	qg_secret_free(&s->early);
	memset(s->early_has, 0, sizeof s->early_has);
}

static bool
early_have(const qg_source *s, uint32_t index)
{
	size_t slot = index % QG_SOUTH_WINDOW;
	return s->early_has[slot] && s->early_index[slot] == index;
}

static uint8_t *
early_at(qg_source *s, uint32_t index)
{
	return s->early->data + (size_t)(index % QG_SOUTH_WINDOW) * s->chunk_size;
}

static void
early_drop(qg_source *s, uint32_t index)
{
	qg_wipe(early_at(s, index), s->chunk_size);
	s->early_has[index % QG_SOUTH_WINDOW] = false;
}

static qg_err
early_put(qg_source *s, uint32_t index, const uint8_t *key)
{
	size_t slot = index % QG_SOUTH_WINDOW;
	if (s->early == NULL) {
		qg_err err = qg_secret_new((size_t)QG_SOUTH_WINDOW * s->chunk_size, &s->early);
		if (err != QG_OK)
			return err;
	}
	memcpy(early_at(s, index), key, s->chunk_size);
	s->early_has[slot] = true;
	s->early_index[slot] = index;
	return QG_OK;
}

/* --- reporting ----------------------------------------------------------------- */

/* Any other index than the one in turn ends the order, taken or not. */
static qg_err
report(qg_source *s, window *w, uint32_t index, const uint8_t *key)
{
	qg_order_worked(s);
	qg_rate_spend(&s->rate, s->chunk_size);
	qg_err err = qg_intake_chunk(s->in, &w->ksid, index, key, s->chunk_size);
	if (err != QG_OK || index != w->next)
		w->is_void = true;
	else
		w->next++;
	return err;
}

/* Reports what is there, in its turn, up to the index `end`. */
static void
report_early(qg_source *s, window *w, uint32_t end)
{
	while (!w->is_void && w->next != end && early_have(s, w->next)) {
		uint32_t index = w->next;
		if (report(s, w, index, early_at(s, index)) == QG_E_FULL)
			return; /* stays for the next order */
		early_drop(s, index);
	}
}

/* --- one window ---------------------------------------------------------------- */

static unsigned
in_flight(const qg_source *s)
{
	unsigned n = s->profile->in_flight < QG_SOUTH_WINDOW ? s->profile->in_flight : QG_SOUTH_WINDOW;
	return s->singles_due > 0 || n == 0 ? 1 : n;
}

static uint32_t
metadata_room(const qg_source *s)
{
	if (s->metadata_max > 0)
		return s->metadata_max;
	return s->profile->ask_len > 0 ? (uint32_t)s->profile->ask_len : METADATA_FIRST;
}

/* Metadata is asked for only where the stream was opened with a type. Where a
 * request carries metadata itself, its size is also the room for the answer's:
 * after a status 8 it has zeroes behind what it says. */
qg_etsi004_request
qg_order_get_request(const qg_source *s, const qg_uuid *ksid, uint32_t index)
{
	const char *mimetype = s->cfg->source.mimetype;
	uint32_t room = metadata_room(s);
	return (qg_etsi004_request){
		.op = QG_ETSI004_GET_KEY,
		.ksid = *ksid,
		.index = index,
		.metadata_max = mimetype != NULL && mimetype[0] != '\0' ? room : 0,
		.metadata = s->ask,
		.metadata_len = s->profile->ask_len > 0 ? room : 0,
	};
}

/* Sends requests for up to n of the indexes that are missing. */
static qg_err
ask(qg_source *s, window *w, uint32_t n)
{
	qg_etsi004_request q[QG_SOUTH_WINDOW];
	w->asked = 0;
	for (uint32_t i = w->next; i != w->end && w->asked < n; i++) {
		if (i - w->next >= QG_SOUTH_WINDOW)
			break; /* slots of early keys would collide */
		if (early_have(s, i))
			continue;
		q[w->asked] = qg_order_get_request(s, &w->ksid, i);
		w->index[w->asked++] = i;
	}
	qg_err err = qg_session_connect(s);
	return err != QG_OK ? err : qg_session_send(s, q, w->asked);
}

static void
failed_by_status(window *w, uint32_t index, const qg_etsi004_response *a)
{
	if (w->failed)
		return;
	w->failed = true;
	w->failed_index = index;
	w->status = a->status;
	w->needed = a->metadata_needed;
}

/* One answer, checked against what was asked for. */
static qg_err
take(qg_source *s, window *w, uint32_t index)
{
	qg_etsi004_response a;
	qg_err err = qg_session_answer(s, QG_ETSI004_GET_KEY, &a);
	if (err != QG_OK)
		return err;
	if (a.status == QG_ETSI004_SUCCESS && a.key_len != s->chunk_size) {
		s->fault = "key_size";
		return QG_E_PROTO;
	}
	report_early(s, w, index);
	w->doubtful = false;
	if (a.status != QG_ETSI004_SUCCESS) {
		failed_by_status(w, index, &a);
	} else if (a.index == index) {
		w->doubtful = true;
		w->last = index;
		return early_put(s, index, a.key);
	} else if (!w->is_void) {
		/* Reported as it is, and core decides; of one such index alone. */
		(void)report(s, w, a.index, a.key); /* void from here on, whatever core made of it */
	}
	return QG_OK;
}

/* --- after a window ------------------------------------------------------------- */

/* The connection broke. With several requests in flight that may be why. */
static verdict
broken(qg_source *s, window *w, uint32_t index, qg_err err)
{
	if (w->asked > 1) {
		unsigned shift = s->strikes < SINGLES_SHIFT_MAX ? s->strikes : SINGLES_SHIFT_MAX;
		s->singles_due = SINGLES_FIRST << shift;
		s->strikes++;
		qg_log(QG_LOG_INFO, "source", "event=pipelining_off stream=%s for_chunks=%u",
		       qg_log_safe(s->cfg->name), s->singles_due);
	}
	if (err == QG_E_PROTO && w->doubtful)
		early_drop(s, w->last); /* asked for again, alone */
	report_early(s, w, w->end);
	qg_session_drop(s);
	err = qg_order_failed(s, "get_failed", err, 0);
	/* A fault that shows with one request in flight too is the server's. */
	if (w->asked > 1 && err == QG_E_PROTO)
		err = QG_E_IO;
	qg_intake_get_failed(s->in, index, err, 0);
	return GIVE_BACK;
}

void
qg_order_wait_for_key(qg_source *s, uint32_t index, uint32_t status)
{
	unsigned held = 0;
	uint64_t now = qg_clock_elapsed_ms();
	if (qg_reasons_due(&s->reasons, "waiting", QG_OK, status, now, &held))
		qg_log(QG_LOG_INFO, "source", "event=waiting stream=%s status=%u repeated=%u",
		       qg_log_safe(s->cfg->name), status, held);
	s->not_before_ms = now + qg_backoff_take(&s->retry);
	qg_intake_get_failed(s->in, index, qg_order_err_of_status(status), status);
}

static verdict
by_status(qg_source *s, window *w)
{
	switch (w->status) {
	case QG_ETSI004_NO_KEY:
	case QG_ETSI004_NO_PEER:
	case QG_ETSI004_TIMEOUT:
		qg_order_wait_for_key(s, w->failed_index, w->status);
		return GIVE_BACK;
	case QG_ETSI004_METADATA_SIZE:
		if (w->resized || w->needed > QG_ETSI004_METADATA_MAX || w->needed <= metadata_room(s))
			break;
		w->resized = true; /* once with the size that it needs */
		s->metadata_max = w->needed;
		return GO_ON;
	default:
		break;
	}
	qg_session_drop(s);
	qg_intake_get_failed(s->in, w->failed_index, qg_order_failed(s, "get_failed", QG_OK, w->status),
			     w->status);
	return GIVE_BACK;
}

static verdict
run(qg_source *s, window *w, uint32_t n)
{
	s->fault = NULL;
	w->failed = w->doubtful = false;
	uint32_t index = w->next;
	qg_err err = ask(s, w, n);
	for (size_t i = 0; err == QG_OK && i < w->asked; i++) {
		index = w->index[i];
		err = take(s, w, index);
	}
	if (err != QG_OK)
		return broken(s, w, index, err);
	report_early(s, w, w->end);
	if (w->asked == 1 && s->singles_due > 0)
		s->singles_due--;
	if (!s->profile->persistent)
		qg_session_drop(s);
	if (w->failed)
		return by_status(s, w);
	return w->is_void ? GIVE_BACK : GO_ON;
}

uint32_t
qg_order_allowed(qg_source *s, uint32_t want)
{
	unsigned wait_ms = 0;
	uint32_t n = qg_rate_allow(&s->rate, qg_clock_elapsed_ms(), s->chunk_size, want, &wait_ms);
	if (n > 0)
		return n;
	qg_session_nap(s, wait_ms < NAP_MS ? wait_ms : NAP_MS);
	return qg_rate_allow(&s->rate, qg_clock_elapsed_ms(), s->chunk_size, want, &wait_ms);
}

void
qg_order_get(qg_source *s, const qg_intake_order *o)
{
	uint32_t most = UINT32_MAX - o->index; /* the last index is never asked for */
	window w = {.ksid = o->ksid, .next = o->index,
		    .end = o->index + (o->count < most ? o->count : most)};
	if (w.next == w.end) {
		qg_intake_get_failed(s->in, o->index, qg_order_failed(s, "get_failed", QG_E_RANGE, 0), 0);
		qg_session_nap(s, NAP_MS);
	}
	while (w.next != w.end && !w.is_void && qg_order_may(s, NAP_MS)) {
		report_early(s, &w, w.end);
		uint32_t left = w.end - w.next;
		if (left == 0 || w.is_void)
			return;
		unsigned limit = in_flight(s);
		uint32_t n = qg_order_allowed(s, left < limit ? left : limit);
		if (n == 0 || run(s, &w, n) != GO_ON)
			return;
	}
}
