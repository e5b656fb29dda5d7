/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CORE_VIEW_H
#define QKDGATE_CORE_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/committer.h"
#include "qkdgate/core.h"
#include "qkdgate/error.h"
#include "qkdgate/transfer.h"
#include "qkdgate/uuid.h"

/* What the core can be asked about itself, for the admin interface and the
 * metrics: copies of figures, never key material, never an ID of a key. A lock is
 * held only while one stream's or one part's figures are copied. Strings are the
 * configuration's or fixed. Any thread, from qg_core_start to qg_core_stop. */

typedef enum qg_stream_state {
	QG_STREAM_STATE_WAITING, /* the neighbour opens it */
	QG_STREAM_STATE_OPENING, /* at the source, or with the neighbour */
	QG_STREAM_STATE_RUNNING, /* takes chunks */
	QG_STREAM_STATE_STOPPING
} qg_stream_state;

/* "waiting", "opening", "running", "stopping". */
const char *qg_stream_state_name(qg_stream_state state);

typedef struct qg_stream_view {
	const qg_config_stream *cfg;
	qg_stream_state state;
	bool agreed;             /* the neighbour answered since the start */
	bool full;               /* intake holds back: the pool is full */
	bool has_ksid;
	qg_uuid ksid;
	const char *trouble;     /* what the hand-over to the neighbour fails with, or NULL */
	const char *source_failure; /* why the source did not answer the last GET_KEY, or NULL */
	unsigned open_fails;     /* at the source, in a row */
	unsigned epochs;         /* live ones */
	int64_t epoch_created_ms; /* wall clock, of the one being filled; 0: none */
	uint64_t next_index;     /* of the chunk to be taken next */
	uint64_t mark;           /* chunks below it may have been handed out */
	uint64_t ready_chunks;   /* can be handed out here now */
	uint64_t most_chunks;    /* the pool's limit */
	uint64_t held_chunks;    /* the neighbour's, to be fetched here */
	uint64_t node_bytes;     /* key kept for relaying */
	/* Since the start: */
	uint64_t taken_chunks;   /* from the source, or relayed */
	uint64_t issued_chunks, fetched_chunks;
	uint64_t segments, bad_segments;
	uint64_t pad_bytes;      /* node key used */
} qg_stream_view;

size_t qg_core_view_streams(const qg_core *core);
void qg_core_view_stream(qg_core *core, size_t i, qg_stream_view *out);

typedef struct qg_neighbour_view {
	const qg_config_neighbour *cfg;
	bool answered;           /* to the question of the start */
	const char *link;        /* to relaying: "up", "down", "starving"; NULL: no part in it */
} qg_neighbour_view;

size_t qg_core_view_neighbours(const qg_core *core);
void qg_core_view_neighbour(qg_core *core, size_t i, qg_neighbour_view *out);

/* The routes that a virtual stream of ours would take now. */
#define QG_VIEW_ROUTES_MAX 8
#define QG_VIEW_NODES_MAX 16
typedef struct qg_route_view {
	size_t n;
	struct {
		size_t n_nodes;          /* both ends counted */
		const char *node[QG_VIEW_NODES_MAX];
		uint64_t cost;
	} route[QG_VIEW_ROUTES_MAX];
} qg_route_view;

/* QG_E_INVAL: not an outbound virtual stream. */
qg_err qg_core_view_routes(qg_core *core, size_t stream, qg_route_view *out) QG_CHECKED;

typedef struct qg_core_figures {
	/* relaying, since the start */
	uint64_t relay_sent, relay_delivered;
	uint64_t relay_forwarded, relay_forwarded_bytes;
	uint64_t relay_taken, relay_repeated, relay_refused, relay_wrong;
	/* keys with an ID of their own */
	uint64_t transfers, transfer_keys, transfers_voiding;
	/* the database */
	qg_committer_times commits;
	bool anchor_works;
	bool audit_works;
	uint64_t beat_ms;        /* since the conductor last came round */
} qg_core_figures;

void qg_core_view_figures(qg_core *core, qg_core_figures *out);

/* --- acts ------------------------------------------------------------------- */

/* Ends the epoch being filled, so that the stream is opened anew; what was taken
 * stays. QG_E_NOTFOUND: no stream of that name; QG_E_STATE: no epoch is being
 * filled, so that it is being opened already. */
qg_err qg_core_reopen(qg_core *core, const char *stream) QG_CHECKED;

/* Destroys all key of a stream, here and at the neighbour, in use or not; then it
 * is opened anew. *chunks: how many were given up here. QG_E_NOTFOUND. */
qg_err qg_core_delete_keys(qg_core *core, const char *stream, uint64_t *chunks) QG_CHECKED;

/* Keeps an entry that an operator made at run time (QG_E_EXISTS), or forgets it
 * (QG_E_NOTFOUND); durable when it returns. QG_E_IO, QG_E_UNKNOWN. Not from the
 * committer's thread. */
qg_err qg_core_entry_put(qg_core *core, const qg_entry_rec *rec) QG_CHECKED;
qg_err qg_core_entry_delete(qg_core *core, const char *list, const char *name) QG_CHECKED;

/* Keeps that someone is suspended, or forgets it; durable when it returns. QG_E_IO,
 * QG_E_UNKNOWN. Not from the committer's thread. */
qg_err qg_core_suspension_keep(qg_core *core, const qg_suspension_rec *rec, bool on) QG_CHECKED;

/* What SAEs have left of their rates, in the place of what was kept before, with the
 * time; durable when it returns. QG_E_IO, QG_E_UNKNOWN. Not from the committer's thread. */
#define QG_CORE_LEVELS_MS "levels_ms" /* the number in the store: wall clock, 0: none are kept */
qg_err qg_core_levels_put(qg_core *core, const qg_level_rec *level, size_t n) QG_CHECKED;

/* Soon, the sealer is asked whether a new generation is due, and what it sealed is
 * sealed again where it is: after the master key was changed. */
void qg_core_rotate(qg_core *core);

/* qg_transfers_list as of now. */
size_t qg_core_view_transfers(qg_core *core, int64_t after, qg_transfer_view *out, size_t most);

/* The number in the store that is at most the last line of the audit log that was
 * synced: a log with fewer lines was cut. */
#define QG_CORE_AUDIT_LINES "audit_lines"

#endif
