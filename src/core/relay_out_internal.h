/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_RELAY_OUT_INTERNAL_H
#define QKDGATE_RELAY_OUT_INTERNAL_H

#include "relay_internal.h"

/* The source of relaying: relay_source.c decides what of the segment on offer
 * goes where and when, relay_send.c sends it and judges the answers. */

#define QG_RELAY_SHARES_MAX 8
#define QG_RELAY_WINDOW 8   /* messages under way per stream */
#define QG_RELAY_SEEN_MAX 64
#define QG_RELAY_USED_MAX 16
#define QG_RELAY_TOLD_MAX 8

typedef enum qg_relay_phase {
	QG_RELAY_IDLE,   /* nothing on offer */
	QG_RELAY_SENDING,
	QG_RELAY_ASK     /* all of it is at the far end, or may be: new_key_batch will tell */
} qg_relay_phase;

enum { QG_RELAY_TO_SEND, QG_RELAY_FLYING, QG_RELAY_ACKED };

struct qg_relay_out {
	qg_relay_phase phase;
	const qg_segment *seg;     /* on offer; what follows is about it */
	bool restored;             /* by a start: its shares and route are not known */
	uint32_t round;            /* answers to messages of an earlier one are void */
	unsigned doubts, rounds;   /* "pending" in a row; times it was sent as a whole */
	uint32_t shares;           /* 0: not chosen yet */
	uint8_t *chunk;            /* of each chunk of each share: whether it is there */
	uint64_t left;             /* that are not acknowledged */
	qg_secret *random;         /* all shares but the last */
	uint32_t next_share;
	uint32_t hops;             /* most trusted nodes in between so far */
	/* SOUNDNESS 17: which share each node in between has been sent */
	struct {
		const char *node;
		uint32_t share;
	} seen[QG_RELAY_SEEN_MAX];
	size_t n_seen;
	qg_route used[QG_RELAY_USED_MAX];
	size_t n_used;

	/* of the stream */
	bool reroute;
	uint64_t routed_ms;
	qg_route route[QG_RELAY_SHARES_MAX];      /* of each share */
	qg_route told_route[QG_RELAY_SHARES_MAX]; /* in the log */
	bool told_none;
	unsigned flying, window;
	uint32_t batch;                           /* most bytes of key in one message */
	uint64_t at_ms;                           /* nothing is sent before */
	unsigned backoff_ms, full_ms;
	unsigned faults, openings;                /* in a row */
	unsigned given_up;                        /* segments in a row */
	struct {
		const char *at;
		qg_route_fault fault;
		uint64_t ms;
	} told[QG_RELAY_TOLD_MAX];
	size_t n_told;
	uint64_t fault_ms; /* of the last one */
};

/* A message to be sent, and under way. */
typedef struct qg_relay_send {
	qg_stream *stream;
	qg_epoch *epoch;   /* pinned, as is seg */
	qg_segment *seg;
	uint32_t round, share, shares, first, count;
	qg_route route;
	qg_secret *plain;  /* the chunks of the share, until they are masked */
	qg_stream *link;
	qg_pad_use use;
	qg_secret *answer_key;
	uint8_t tag[QG_MAC_BYTES];
} qg_relay_send;

/* relay_source.c, under the stream's lock */

/* The next message, marked as under way; NULL: none now. */
qg_relay_send *qg_relay_out_pick(qg_stream *st, uint64_t now_ms);
/* Only the first n chunks of it go now. */
void qg_relay_out_shorten(qg_relay_send *t, uint32_t n);
/* It is no longer under way. False: it was about what is over. */
bool qg_relay_out_landed(qg_relay_send *t, bool acked);
/* What an answer, or none, says of the way. */
void qg_relay_out_fault(qg_relay_send *t, size_t at, qg_route_fault fault, uint64_t now_ms);
/* The link has node key, but none of it open yet: soon again. False: it takes
 * too long. */
bool qg_relay_out_opening(qg_stream *st, uint64_t now_ms);
/* A link on the way cannot mask so much at once: its segments are small, and a
 * message names only so many. */
void qg_relay_out_smaller(qg_relay_send *t);
void qg_relay_out_full(qg_stream *st, uint64_t now_ms);
void qg_relay_out_ask(qg_stream *st);
void qg_relay_out_give_up(qg_stream *st, bool mismatch, const char *why);
/* Unpins; the message is gone. */
void qg_relay_send_free(qg_relay_send *t);

/* relay_send.c, without locks */
void qg_relay_send_go(qg_relay_send *t);

#endif
