/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_PAD_PARTS_INTERNAL_H
#define QKDGATE_PAD_PARTS_INTERNAL_H

#include "pad_internal.h"

/* What the files pad*.c share. */

/* A node segment that was taken out of its epoch to be used: from now on it
 * stands in memory alone and refers to its epoch by the ID only. */
typedef struct pad_segment {
	struct pad_segment *next;
	uint8_t epoch[16];
	qg_segment_use use;
	uint32_t number;
	uint32_t chunks;
	uint32_t len;       /* bytes */
	uint32_t at;        /* ours: next byte */
	uint32_t left;      /* bytes neither used nor given up */
	uint32_t named;     /* ours: messages under way that name it */
	int64_t row;
	uint64_t end_ms;    /* lifetime clock of its side */
	bool open;          /* its row is gone for good, it may be used */
	bool counted;       /* as opened */
	bool lost;          /* being opened, but not to be used any more */
	uint64_t turn;      /* theirs: of the job that opens it */
	qg_waiter *waiters; /* theirs: for that job */
	qg_secret *data;    /* NULL when nothing is left */
	uint8_t *used;      /* theirs: bit for each byte; NULL when nothing is left */
} pad_segment;

/* Node key of ours of one use. */
typedef struct pad_stock {
	pad_segment *out, **out_end; /* open, or used up and still named; in order */
	uint64_t stored_bytes;       /* confirmed, not opened */
	uint64_t opening_bytes, open_bytes;
	size_t wanted;               /* the largest take that failed */
} pad_stock;

#define PAD_KINDS 2

/* How many segments of pads are opened at once: one while they last, four times as
 * many whenever the last ones were used up at once. A transaction and the anchor's sync
 * are the same for one as for all; what is open at a crash is lost. */
typedef struct pad_pace {
	uint64_t opened_ms;
	unsigned n;
} pad_pace;

#define PAD_PACE_MAX 8
unsigned qg_pads_pace(pad_pace *p, uint64_t now_ms);

struct qg_pads {
	/* ours */
	pad_stock stock[PAD_KINDS];
	pad_segment *opening;        /* of the one job under way, or to be tried again */
	bool job;
	pad_pace pace;
	uint64_t open_at_ms;         /* not before, after a failure */
	unsigned open_backoff_ms;
	bool agreed;                 /* the neighbour was asked what it saw, and answered */
	qg_waiter *waiters;
	uint32_t share;              /* percent that node key is due while both pools are short */
	uint64_t app_full_ms;        /* until then it has none for applications' key */
	uint64_t far_full_ms;        /* until then the far end has no room for node key */
	/* theirs */
	pad_segment *in; /* newest first */
	pad_pace in_pace;
	unsigned n_spent; /* of them used up, kept to tell what is repeated */
	uint64_t turns;
	uint64_t in_chunks; /* of stored ones, and of open ones that have bytes left */
	/* accounts: theirs, ours */
	qg_pad_account account[2];
	uint64_t told[2], told_ms;
};

/* Of the two kinds of node key. */
pad_stock *qg_pads_stock(const qg_stream *st, qg_segment_use use);
/* Takes a stored segment out of its epoch; NULL when there is no memory. Its
 * row is still in the store. */
pad_segment *qg_pads_detach(qg_segment *s);
void qg_pads_segment_free(pad_segment **p);
/* What is left of it is destroyed and counted as given up. */
void qg_pads_lose(qg_stream *st, bool ours, pad_segment *p);
bool qg_pads_is(const pad_segment *p, const uint8_t epoch[16], uint32_t number);
/* Removes what is neither usable nor named any more. */
void qg_pads_collect_out(qg_stream *st);
/* Opens what will soon be wanted; under the stream's lock. */
void qg_pads_refill(qg_stream *st);
void qg_pads_count_message(qg_pad_account *a, size_t data_len);
/* One side of qg_pads_expire and qg_pads_forget_epoch; epoch NULL: of all. */
void qg_pads_expire_out(qg_stream *st);
void qg_pads_expire_in(qg_stream *st);
void qg_pads_forget_out(qg_stream *st, const uint8_t *epoch);
void qg_pads_forget_in(qg_stream *st, const uint8_t *epoch);

#endif
