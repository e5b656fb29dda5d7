/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_SOUTH_INTERNAL_H
#define QKDGATE_SOUTH_INTERNAL_H

#include <pthread.h>
#include <time.h>

#include "qkdgate/etsi004.h"
#include "qkdgate/secret.h"
#include "qkdgate/source.h"
#include "qkdgate/tls.h"

/* --- pace.c: how fast, how soon again, how often said ----------------------- */

/* Delay that doubles from first_ms to last_ms. */
typedef struct qg_backoff {
	unsigned first_ms, last_ms;
	unsigned next_ms; /* 0: first_ms */
} qg_backoff;

/* The next delay, between 3/4 and 5/4 of its nominal value. */
unsigned qg_backoff_take(qg_backoff *b);
void qg_backoff_reset(qg_backoff *b);

/* A token rate; tokens are thousandths of a bit, so that a millisecond gives
 * max_bps of them. At most 100 ms or one chunk are saved up. */
typedef struct qg_rate {
	uint32_t max_bps; /* 0: no limit */
	uint64_t tokens;
	uint64_t at_ms;
} qg_rate;

/* How many chunks of so many bytes, of `want`, may be asked for now; when none,
 * *wait_ms says when one may. */
uint32_t qg_rate_allow(qg_rate *r, uint64_t now_ms, uint32_t chunk_size, uint32_t want, unsigned *wait_ms);
void qg_rate_spend(qg_rate *r, uint32_t chunk_size);

/* Repeated failures are logged once per reason and 30 s. */
#define QG_REASONS 16
typedef struct qg_reasons {
	struct {
		const char *what; /* a literal */
		qg_err err;
		uint32_t status;
		uint64_t said_ms;
		unsigned held; /* times not said since */
	} row[QG_REASONS];
	size_t n;
} qg_reasons;

/* Whether to log it now; *held tells how often it was not since the last time. */
bool qg_reasons_due(qg_reasons *r, const char *what, qg_err err, uint32_t status, uint64_t now_ms,
		    unsigned *held);

/* --- session.c: the connection, messages to and from ------------------------- */

#define QG_SOUTH_WINDOW 32 /* most requests in flight */

/* What does a stream's orders: a 004 session, or for a virtual stream draw.c. */
typedef struct qg_source_kind {
	/* By qg_intake_what; NULL: nothing is to be done. */
	void (*order[QG_INTAKE_WAIT + 1])(qg_source *s, const qg_intake_order *o);
	void (*end)(qg_source *s); /* at the end of the thread */
} qg_source_kind;

struct qg_source {
	const qg_source_kind *kind;
	qg_intake *in;
	const qg_config_stream *cfg;
	const qg_etsi004_profile *profile;
	pthread_t thread;

	pthread_mutex_t lock; /* guards the four members below wake */
	pthread_cond_t wake;  /* stopping or ended changed */
	bool ended;    /* the thread is about to return */
	bool stopping; /* no new OPEN_CONNECT and GET_KEY, no naps */
	bool aborted;  /* nothing more at all */
	qg_conn *conn; /* used by the session's thread only, but for qg_conn_abort */

	/* The session's thread only. */
	qg_secret *frames;      /* answers as received: [0, read) done, [read, len) to do */
	size_t read;
	uint8_t *requests;      /* QG_SOUTH_REQUESTS_ROOM bytes */
	uint8_t *ask;           /* QG_ETSI004_METADATA_MAX bytes: profile->ask, zeroes */
	uint64_t used_ms;       /* when the connection last worked */
	const char *fault;      /* what was wrong with the last answer, or NULL */
	bool last;              /* the server ends the connection after the last answer */
	char authority[280];    /* HOST:PORT, for HTTP */

	uint32_t chunk_size;    /* bytes, as agreed with the key manager */
	uint32_t metadata_max;  /* bytes of metadata that answers may have */
	qg_rate rate;
	qg_backoff reconnect;   /* after a failure */
	qg_backoff retry;       /* after "no key yet" */
	uint64_t not_before_ms; /* nothing is asked for until then */
	unsigned strikes;       /* how often pipelining broke a connection */
	uint32_t singles_due;   /* GET_KEY one at a time before it is tried again */
	bool failing;           /* the last thing reported was a failure */
	qg_reasons reasons;

	/* Keys that came before their turn: index i is in slot i % QG_SOUTH_WINDOW. */
	qg_secret *early;
	bool early_has[QG_SOUTH_WINDOW];
	uint32_t early_index[QG_SOUTH_WINDOW];

	/* push.c, of the connection: GET_KEY was sent, and one above the last index
	 * that came. */
	bool pushing;
	uint64_t pushed;
	uint64_t skipped;       /* passed over, not told yet */
	bool held;              /* it was said that the module is kept waiting */
	uint64_t held_ms;       /* since when */

	struct qg_inbox *inbox; /* pushed key, where it comes over connections of its own */
	struct qg_draw *draw;   /* of a virtual stream; then there is no session */
};

#define QG_SOUTH_REQUESTS_ROOM ((size_t)QG_ETSI004_METADATA_MAX + 4096)

/* Memory for answers that carry chunks of s->chunk_size. QG_E_NOMEM. */
qg_err qg_session_fit(qg_source *s) QG_CHECKED;

/* A connection, the one there is or a new one. QG_E_CLOSED when stopped. */
qg_err qg_session_connect(qg_source *s) QG_CHECKED;
void qg_session_drop(qg_source *s);

/* Sends n requests as one write. */
qg_err qg_session_send(qg_source *s, const qg_etsi004_request *q, size_t n) QG_CHECKED;

/* Receives the next answer, which has to be to `op`; its views live until the
 * next call. QG_E_PROTO sets s->fault; QG_E_CLOSED, QG_E_IO, QG_E_TIMEOUT. */
qg_err qg_session_answer(qg_source *s, qg_etsi004_op op, qg_etsi004_response *a) QG_CHECKED;

/* The same within a time of the caller's. QG_E_TIMEOUT leaves the connection as
 * it is: what came of an answer is kept. */
qg_err qg_session_answer_within(qg_source *s, qg_etsi004_op op, unsigned ms, qg_etsi004_response *a) QG_CHECKED;

/* How long an answer may take. */
unsigned qg_session_patience_ms(const qg_source *s);

/* Whether bytes wait that nobody has read. */
bool qg_session_waiting(qg_source *s);

/* One request, one answer, over a connection of its own where the profile wants that. */
qg_err qg_session_call(qg_source *s, const qg_etsi004_request *q, qg_etsi004_response *a) QG_CHECKED;

bool qg_session_stopping(qg_source *s);

/* Sleeps; ends early when the session stops. */
void qg_session_nap(qg_source *s, unsigned ms);

/* The time in so many milliseconds, on the clock of s->wake. */
struct timespec qg_session_after_ms(unsigned ms);

/* --- orders.c, get.c: what the intake asks for ------------------------------- */

void qg_order_open(qg_source *s, const qg_intake_order *o);
void qg_order_get(qg_source *s, const qg_intake_order *o);
void qg_order_close(qg_source *s, const qg_intake_order *o);

/* Waits out the backoff, at most most_ms of it; false when more is left or the
 * session stops. */
bool qg_order_may(qg_source *s, unsigned most_ms);

/* Table 2 in the project's own errors. */
qg_err qg_order_err_of_status(uint32_t status);

/* A failure: logs it, within limits, and sets the backoff. err is QG_OK when
 * the key manager answered with a status. Returns what to report as err. */
qg_err qg_order_failed(qg_source *s, const char *what, qg_err err, uint32_t status);
/* It works: backoffs start anew. */
void qg_order_worked(qg_source *s);

/* Forgets keys that came before their turn. */
void qg_order_forget(qg_source *s);

/* The GET_KEY for one index. */
qg_etsi004_request qg_order_get_request(const qg_source *s, const qg_uuid *ksid, uint32_t index);
/* How many chunks the stream's rate allows now; waits a second at most. */
uint32_t qg_order_allowed(qg_source *s, uint32_t want);
/* No key or no peer yet: reported, with a backoff; the connection stays. */
void qg_order_wait_for_key(qg_source *s, uint32_t index, uint32_t status);

/* --- push.c: key that comes unasked over the session's connection --------------- */

void qg_push_open(qg_source *s, const qg_intake_order *o);
void qg_push_get(qg_source *s, const qg_intake_order *o);
void qg_push_close(qg_source *s, const qg_intake_order *o);
void qg_push_wait(qg_source *s, const qg_intake_order *o);

/* --- inbox.c: key that is pushed to the listener of push_http.c ------------------ */

#define QG_INBOX_CHUNKS 512u /* that are held until the stream takes them */

qg_err qg_inbox_new(qg_source *s) QG_CHECKED; /* sets s->inbox */
void qg_inbox_free(qg_source *s);
void qg_inbox_open(qg_source *s, const qg_intake_order *o);
/* OPEN_CONNECT worked: from now on chunks are taken. */
void qg_inbox_opened(qg_source *s, const qg_uuid *ksid);
void qg_inbox_get(qg_source *s, const qg_intake_order *o);
void qg_inbox_close(qg_source *s, const qg_intake_order *o);
void qg_inbox_wait(qg_source *s, const qg_intake_order *o);

/* Whether the source's stream is open under this KSID. Any thread. */
bool qg_inbox_is(qg_source *s, const qg_uuid *ksid);

/* A pushed chunk. Any thread, never blocks. QG_OK: taken, now or before;
 * QG_E_FULL: no room until the stream takes some; QG_E_NOTFOUND: the stream is
 * not open under this KSID; QG_E_RANGE: another size; QG_E_MISMATCH: another
 * value than before; QG_E_EXPIRED: an index that has long passed. */
qg_err qg_inbox_put(qg_source *s, const qg_uuid *ksid, uint32_t index, const uint8_t *key, size_t len) QG_CHECKED;

/* --- draw.c: the same for virtual streams -------------------------------------- */

qg_err qg_draw_new(qg_source *s) QG_CHECKED; /* sets s->draw */
void qg_draw_free(qg_source *s);
void qg_draw_open(qg_source *s, const qg_intake_order *o);
void qg_draw_get(qg_source *s, const qg_intake_order *o);
void qg_draw_close(qg_source *s, const qg_intake_order *o);
void qg_draw_end(qg_source *s);

#endif
