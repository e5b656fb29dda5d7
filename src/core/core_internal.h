/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CORE_INTERNAL_H
#define QKDGATE_CORE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/accounts.h"
#include "qkdgate/anchor.h"
#include "qkdgate/committer.h"
#include "qkdgate/core.h"
#include "qkdgate/key_id.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/lifetime.h"
#include "qkdgate/limits.h"
#include "qkdgate/transfer.h"

/* What the files of the core share. One lock per stream guards its epochs and
 * segments; nothing waits for disk or network under it. The committer's thread
 * calls back into the core without a lock. Lock order: streams by index. */

#define QG_LOOKAHEAD 8      /* complete segments that wait for confirmation */
#define QG_GET_COUNT 64     /* chunks in one order to a session */
#define QG_LIVE_EPOCHS 8    /* epochs tried for one key ID (SOUNDNESS 13) */
#define QG_ISSUE_EPOCHS 4   /* issued from: the far end still tries them when others open meanwhile */
#define QG_BAD_LIMIT 2      /* mismatches in a row that end an epoch */
#define QG_EPOCH_LAST ((UINT64_C(1) << 32) - (UINT64_C(1) << 20)) /* chunks */
#define QG_STREAMS_PER_KME 16

typedef struct qg_epoch qg_epoch;

typedef enum qg_segment_phase {
	QG_SEG_FILLING,
	QG_SEG_FULL,      /* complete; ours: to be offered, theirs: awaits the owner */
	QG_SEG_STORING,   /* a job of the committer writes it */
	QG_SEG_OFFERED,   /* ours: stored, the answer is awaited */
	QG_SEG_CONFIRMED,
	QG_SEG_DEAD       /* tombstone: never accepted again */
} qg_segment_phase;

typedef struct qg_segment_link {
	struct qg_segment *prev, *next;
} qg_segment_link;

typedef struct qg_segment_list {
	struct qg_segment *first, *last;
} qg_segment_list;

typedef struct qg_segment_heap {
	struct qg_segment **at;
	uint32_t n;
	size_t room;
} qg_segment_heap;

typedef struct qg_segment {
	qg_epoch *epoch;
	int64_t row;             /* 0: not stored */
	uint32_t number;
	uint32_t count;          /* chunks */
	uint32_t have;           /* chunks arrived */
	uint32_t lo, hi;         /* usable chunks: lo <= i < hi */
	uint32_t cursor;         /* ours: next chunk to issue */
	uint32_t left;           /* theirs: usable chunks not consumed */
	uint32_t pins;           /* jobs under way that point here */
	qg_segment_phase phase;
	qg_segment_use use;
	bool ours, root;
	bool dirty;              /* memory holds less key than the stored blob: qg_segment_set_dirty */
	bool flushing;           /* a reseal is under way */
	bool removed;            /* freed with the last pin */
	bool staged;             /* committer only: in the group being written */
	bool reread;             /* committer only: the stored bitmap is not known */
	uint64_t first_index;
	uint64_t full_ms;        /* elapsed time when it was complete */
	uint64_t born_ms;        /* lifetime clock */
	int64_t ready_wall_ms;
	uint32_t issue_s, fetch_s;
	uint32_t hops;           /* ours: trusted nodes that the key passed */
	struct qg_relay_part *part; /* theirs, virtual, filling: what came of it */
	uint32_t generation;     /* of the sealed blob */
	uint32_t stored_generation; /* of the one in the database, where that is another; else 0 */
	qg_secret *data;         /* count * chunk_size bytes; NULL when none is left */
	uint8_t *used;           /* theirs: consumed, reserved or being fetched */
	uint8_t *gone;           /* theirs: consumed for good */
	uint8_t *was, *next;     /* committer only: the stored bitmap, and after the group */
	uint8_t tag[QG_MAC_BYTES];
	char *message;           /* exact bytes of our request or of our answer */
	size_t message_len;
	struct qg_segment *stage_next;
	/* epoch_lists.c only */
	bool listed;             /* in its epoch */
	qg_segment_list *list;   /* open, node, or none */
	qg_segment_link link[2];
	uint64_t end_ms;         /* lifetime clock: confirmed, its window ends */
	uint32_t heap_at;
} qg_segment;

typedef struct qg_stream qg_stream;

struct qg_epoch {
	qg_stream *stream;
	int64_t row;
	qg_uuid ksid;
	uint8_t id[16];
	qg_epoch_state state;
	bool opener;
	bool restored;           /* from the store, at this start */
	bool tell_closed;        /* the neighbour is still to be told */
	bool telling;
	bool deleting;
	qg_kms_close_reason reason;
	uint64_t tell_at_ms;
	uint32_t chunk_size, segment_chunks;
	uint64_t mark;           /* durable lease mark (ours) */
	uint64_t lease_wish;     /* mark being written, 0: none */
	uint64_t seen_mark;      /* neighbour's */
	uint32_t decided_in;     /* their segments below are stored or dead */
	uint32_t decided_out;    /* ours below are stored or dead */
	uint32_t issue_from;     /* no issuable segment of ours below */
	int64_t created_ms;
	uint64_t end_ms;         /* lifetime clock */
	unsigned bad_in_row;
	uint32_t seen_mac, seen_pad; /* of their node segments used: highest number + 1 */
	uint32_t last_in;        /* number of their last confirmed segment + 1, else 0 */
	qg_secret *root_out, *root_in;
	qg_key_id_keys *keys_out, *keys_in;
	uint8_t probe[16];       /* keyed hash of the last chunk of the last stored segment */
	uint64_t probe_index;
	bool has_probe;
	uint32_t pins;
	qg_segment **seg;        /* seg[i]: number base + i, or NULL */
	uint32_t base, n_seg, room_seg;
	uint32_t empty;          /* slots in front that are */
	qg_segment_list open;    /* not confirmed yet, by number */
	qg_segment_list node;    /* confirmed, of node key, by number */
	qg_segment_list dirty;
	qg_segment_heap ending[2]; /* confirmed ones, theirs and ours */
	uint32_t n_of[2];        /* theirs and ours in all */
	qg_epoch *older;
};

typedef enum qg_stream_phase {
	QG_STREAM_IDLE,      /* the neighbour opens */
	QG_STREAM_OPEN,      /* OPEN_CONNECT is wanted */
	QG_STREAM_OPENING,   /* ... under way */
	QG_STREAM_APP,       /* new_app is wanted */
	QG_STREAM_APP_SENT,  /* ... under way */
	QG_STREAM_STORING,   /* the new epoch is being made durable */
	QG_STREAM_PROBE,     /* one stored chunk is read again */
	QG_STREAM_RUN
} qg_stream_phase;

typedef struct qg_waiter {
	struct qg_waiter *next;
	void (*again)(struct qg_waiter *w, qg_err err); /* called without locks */
} qg_waiter;

/* The handle that the session holds: the first member of its stream. */
struct qg_intake {
	qg_stream *stream;
};

struct qg_stream {
	qg_intake handle;
	struct qg_core *core;
	const qg_config_stream *cfg;
	const qg_config_neighbour *neighbour;
	unsigned index;
	uint32_t hops_least, hops_most; /* trusted nodes that its keys can pass */
	pthread_mutex_t lock;
	pthread_cond_t wake;
	qg_stream_phase phase;
	bool opener;             /* this end chooses the KSID */
	bool stopping;
	bool wants_room;         /* the session waits for room in the pool */
	qg_segment *offer;       /* ours, being stored, offered or confirmed; pinned */
	bool offer_flight;       /* its message is under way */
	bool checked;            /* the neighbour agreed, or could not be asked */
	bool vouched;            /* the neighbour answered get_status since the start */
	qg_uuid ksid;            /* being opened or open */
	bool ksid_open;
	qg_uuid to_close[QG_LIVE_EPOCHS];
	size_t n_to_close;
	uint64_t next_index;     /* to ask for */
	bool reopening;          /* it was open before: the source knows it or lost it */
	unsigned probe_fails, open_fails, abandoned; /* in a row */
	unsigned get_fails; /* of index get_failed_at, in a row */
	uint32_t get_failed_at;
	uint64_t retry_at_ms;    /* of the phase */
	unsigned backoff_ms;
	qg_err trouble;          /* of the hand-over, last told in the log */
	uint64_t trouble_ms;
	qg_err source_err;       /* what the last GET_KEY failed with; QG_OK: it was answered */
	unsigned reopen_ms;      /* grows while epochs end without a confirmed segment */
	uint64_t accept_from_ms; /* a new_app before is put off */
	uint64_t offer_at_ms;    /* of the segment on offer */
	unsigned offer_backoff_ms, offer_bad;
	qg_kms_new_app app;      /* ours being sent, or the last one received */
	qg_kms_new_app_answer app_answer; /* what the last one received got */
	bool app_valid;          /* app is to be sent again as it is, or was received */
	qg_epoch *newest;        /* linked newest to oldest */
	uint32_t resealed;       /* no blob is sealed under a generation before, 0: not looked yet */
	uint64_t ready;          /* chunks issuable now; node segments do not count */
	uint64_t held;           /* their confirmed chunks not consumed; likewise */
	struct qg_pads *pads;    /* node key: what is ready, opened and spent */
	struct qg_relay_out *relay; /* ours, virtual: the segment on its way; else NULL */
	uint32_t peer_inbound;   /* what the neighbour can hold */
	uint32_t lease_step;
	uint64_t leased_at_ms;
	qg_waiter *lease_waiters;
	uint64_t n_chunks, n_segments, n_bad; /* counters */
	uint64_t n_issued, n_fetched; /* chunks handed out */
};

struct qg_keystore {
	struct qg_core *core;
};
struct qg_peers {
	struct qg_core *core;
};
struct qg_interop {
	struct qg_core *core;
	struct qg_ix_tellings *tellings; /* what peers are to be told */
	struct qg_ix_held_up *held_up;   /* voids of peers that wait */
};

/* What is known of a neighbour since the start. */
typedef struct qg_neighbour_check {
	bool asking, answered;
	bool settled;            /* answered, or failed to, once */
	uint64_t ask_at_ms;
} qg_neighbour_check;

struct qg_core {
	qg_core_parts part;
	qg_keystore keystore;
	qg_peers peers;
	qg_interop interop;
	qg_committer *committer;
	qg_transfers *transfers;
	qg_accounts *accounts;
	qg_anchor *anchor;
	qg_lifetime life;
	uint8_t probe_key[32];
	qg_window *pair_window;    /* chunks issued to a pair within T_fetch */
	qg_limits *unknown_limit;  /* searches for the status only (SOUNDNESS 13) */
	qg_stream *stream;
	size_t n_streams;
	qg_neighbour_check *check; /* one for each neighbour of the configuration */
	struct qg_routes *routes;
	struct qg_link_state *link_state; /* what is told of links (link_state.c) */
	struct qg_relay *relay;    /* quotas, wrong answers, relaying for others */
	struct qg_multicast *multicast; /* requests with targets at several nodes */
	struct qg_app_streams *app_streams; /* key streams of applications */
	/* requests that wait for the outcome of another for the same key */
	pthread_mutex_t fetch_lock;
	unsigned asking;           /* neighbours whose get_status answer is awaited */
	qg_waiter *fetch_waiters;
	/* conductor */
	pthread_t conductor;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool kicked, stopping, conducting;
	_Atomic uint64_t beat_ms;  /* when it last came round */
	bool rolled_back;          /* found at start: the store was put back */
	int64_t rollback_row;      /* epochs up to here were ended for it once */
	uint64_t flush_at_ms, expire_at_ms, checkpoint_at_ms, rotate_at_ms, account_at_ms;
	atomic_bool rotate_now; /* the key ring, whatever the time */
	atomic_int roots;       /* rotate.c: whether they are durable under the generation in use */
	/* committer's thread only */
	qg_anchor_state anchored;  /* what the anchor should say */
	qg_anchor_entry pending[QG_ANCHOR_EPOCHS]; /* marks of the group being written */
	size_t n_pending;
	bool anchor_due, anchor_full;
	atomic_bool anchor_bad;    /* others may look */
	uint64_t anchor_at_ms;
	int64_t commits;        /* so far */
	int64_t commits_stored; /* as the store has it */
	bool anchor_now;        /* the transaction's count goes to store and anchor */
	bool commits_due;
	qg_segment *stage;
};

/* --- segment.c: geometry, one-time keys, bitmaps -------------------------- */

/* Chunks that one one-time key takes, and the key-ID root. */
uint32_t qg_segment_key_chunks(uint32_t chunk_size);
/* Whether enough is left of a segment beside its reserved chunks. */
bool qg_segment_size_fits(uint32_t chunk_size, uint32_t segment_chunks);
uint32_t qg_segment_root_chunks(uint32_t chunk_size);
/* Largest key of a segment: half of it, and 4,095 bytes. */
uint32_t qg_segment_max_key_bytes(uint32_t chunk_size, uint32_t segment_chunks);
qg_err qg_segment_new(qg_epoch *e, uint32_t number, bool ours, qg_segment **out) QG_CHECKED;
void qg_segment_free(qg_segment **s);
/* Puts `root` and the usable range in force. */
void qg_segment_set_root(qg_segment *s, bool root);
/* The MACs of new_key_batch (SOUNDNESS 4) and of its answer. */
void qg_segment_request_mac(const qg_segment *s, const qg_kms_batch *m, uint8_t mac[QG_MAC_BYTES]);
void qg_segment_answer_mac(const qg_segment *s, const uint8_t request_mac[QG_MAC_BYTES], uint8_t mac[QG_MAC_BYTES]);
/* Destroys chunks first .. first + n - 1 in memory. */
void qg_segment_wipe(qg_segment *s, uint32_t first, uint32_t n);
/* Destroys the one-time key chunks and the key-ID root. */
void qg_segment_wipe_reserved(qg_segment *s);
void qg_segment_drop_data(qg_segment *s);
uint8_t *qg_segment_chunk(const qg_segment *s, uint32_t i);
bool qg_bits_any(const uint8_t *bits, uint32_t first, uint32_t n);
void qg_bits_set(uint8_t *bits, uint32_t first, uint32_t n);
void qg_bits_clear(uint8_t *bits, uint32_t first, uint32_t n);
/* Seals the data as it is; *blob is malloc'ed. */
qg_err qg_segment_seal(qg_segment *s, uint8_t **blob, size_t *len) QG_CHECKED;
qg_err qg_segment_unseal(qg_segment *s, const uint8_t *blob, size_t len) QG_CHECKED;

/* --- epoch.c -------------------------------------------------------------- */

qg_err qg_epoch_new(qg_stream *st, const qg_uuid *ksid, const uint8_t id[16], bool opener, uint32_t chunk_size,
		    uint32_t segment_chunks, qg_epoch **out) QG_CHECKED;
void qg_epoch_free(qg_epoch **e);
qg_epoch *qg_epoch_find(qg_stream *st, const uint8_t id[16]);
/* The epoch being filled, or NULL. */
qg_epoch *qg_epoch_filling(qg_stream *st);
qg_segment *qg_epoch_segment(const qg_epoch *e, uint32_t number);
qg_err qg_epoch_add(qg_epoch *e, qg_segment *s) QG_CHECKED;
/* Takes the segment out; it is freed at once or with its last pin. */
void qg_epoch_remove(qg_epoch *e, qg_segment *s);
void qg_segment_unpin(qg_segment *s);
bool qg_epoch_is_ours(const qg_epoch *e, uint32_t number);
/* First segment that is neither stored nor dead in any of the directions. */
uint32_t qg_epoch_next_segment(const qg_epoch *e);
/* Derives the key-ID keys of one direction from its root (takes it). */
qg_err qg_epoch_set_root(qg_epoch *e, bool ours, qg_secret **root) QG_CHECKED;
/* The record; blobs for the roots are sealed into *out_blob and *in_blob. */
typedef struct qg_epoch_image {
	qg_epoch_rec rec;
	uint8_t *root_out, *root_in;
	uint8_t probe[16];
} qg_epoch_image;
qg_err qg_epoch_snapshot(const qg_epoch *e, qg_epoch_image *img) QG_CHECKED;
void qg_epoch_image_free(qg_epoch_image *img);
/* Ends the taking of chunks: unconfirmed segments are destroyed, the KSID is
 * to be closed, the state written, the neighbour told when `tell`. */
void qg_epoch_end(qg_epoch *e, qg_kms_close_reason reason, bool tell);
/* Of all but the newest epochs nothing is issued any more, and what they hold
 * ready goes: its IDs would soon be looked for no longer. Under the lock. */
void qg_epoch_retire_old(qg_stream *st);
/* When an epoch that ends now may be destroyed: after its last windows. */
uint64_t qg_epoch_end_ms(const struct qg_core *core);
/* Under the stream's lock: chunks that can be handed out now (keystore.c). */
uint64_t qg_keystore_chunks_ready(const qg_stream *st);
/* Queues a write of the epoch's record. */
void qg_epoch_save(qg_epoch *e);
/* Binds what is sealed to its place (SOUNDNESS 12). */
size_t qg_epoch_ad(const qg_epoch *e, const char *what, uint32_t number, uint8_t *out, size_t room);
void qg_epoch_make_probe(const struct qg_core *core, const uint8_t *chunk, size_t n, uint8_t out[16]);
void qg_epoch_put_probe(qg_epoch *e, const qg_segment *s);

/* --- epoch_lists.c: what to look at; all of it under the stream's lock --------- */

/* Puts a new segment in the lists of its epoch, or takes one out that leaves it. */
qg_err qg_epoch_list(qg_epoch *e, qg_segment *s) QG_CHECKED;
void qg_epoch_unlist(qg_epoch *e, qg_segment *s);
void qg_epoch_lists_free(qg_epoch *e);
/* An open one of the epoch becomes a confirmed one; use, windows and birth are known. */
void qg_segment_confirmed(qg_segment *s);
void qg_segment_set_dirty(qg_segment *s, bool dirty);
/* The next of e->open or e->node, or of e->dirty. */
qg_segment *qg_segment_next(const qg_segment *s);
qg_segment *qg_segment_next_dirty(const qg_segment *s);
/* The confirmed one of that side whose window ends first, or NULL. */
qg_segment *qg_epoch_first_to_end(const qg_epoch *e, bool ours);

/* --- segment_job.c: what both sides of a confirmation do alike -------------- */

typedef struct qg_segment_job {
	qg_job job;
	qg_segment *seg;
	uint8_t *blob, *none_used;
	qg_segment_rec rec;
	qg_epoch_image img;
	qg_peer_answer *answer; /* the far end's */
	void *ctx;
} qg_segment_job;

/* A job that stores the segment as it is, with its message, and its epoch; the
 * caller sets done. */
qg_err qg_segment_job_new(qg_segment *s, qg_segment_job **out) QG_CHECKED;
void qg_segment_job_free(qg_segment_job *j);
/* Derives the direction's key-ID keys where the segment brings the root. */
qg_err qg_segment_take_root(qg_segment *s) QG_CHECKED;
/* Counts, logs and audits a segment that ends without use. */
void qg_segment_report(qg_epoch *e, uint32_t number, bool mismatch, const char *why);

/* hops.c: how many trusted nodes the keys of a stream pass, least and most. */
void qg_hops_range(const qg_config *cfg, const qg_config_stream *st, uint32_t *least, uint32_t *most);

/* --- offer.c, accept.c, lease.c, conductor.c ... --------------------------- */

/* Under the stream's lock: offers the next complete segment of ours if one
 * waits and none is on offer. */
void qg_offer_step(qg_stream *st, uint64_t now_ms);
/* Under the stream's lock: gives up the segment on offer, which is not being
 * stored and whose message is not under way. */
void qg_offer_give_up(qg_stream *st, bool mismatch, const char *why);
/* new_key_batch as the far end. */
void qg_accept_batch(struct qg_core *core, const char *neighbour, const char *body, size_t len, qg_peer_answer *answer,
		     void *ctx);
/* Under the stream's lock: writes a lease when less than half is left, or at
 * least `need` chunks are wanted. */
void qg_lease_step(qg_epoch *e, uint32_t need);
/* Issuable chunks of a segment under the durable mark. */
uint32_t qg_lease_room(const qg_segment *s);
/* Committer hooks. */
qg_err qg_commit_before(qg_store *store, void *core);
void qg_commit_after(qg_err err, void *core);
qg_err qg_commit_stage(struct qg_core *core, qg_store *store, qg_segment *s, uint32_t first, uint32_t n) QG_CHECKED;
void qg_commit_note_consumed(struct qg_core *core);
/* Inside a job's run: the anchor follows once the group is durable. mark
 * UINT64_MAX: the epoch is destroyed. */
void qg_commit_note_mark(struct qg_core *core, const uint8_t epoch[16], uint64_t mark);
/* Inside a job's run: something changed that a restored database would undo. */
void qg_commit_note_change(struct qg_core *core);
/* In done: whether the anchor holds what the group wrote. */
bool qg_commit_anchored(const struct qg_core *core);
/* Under the stream's lock: sets the wanted phase and wakes session and conductor. */
void qg_stream_go(qg_stream *st, qg_stream_phase phase);
void qg_stream_retry(qg_stream *st, qg_stream_phase phase, unsigned max_ms);
void qg_stream_kick(qg_stream *st);
void qg_stream_close_ksid(qg_stream *st, const qg_uuid *ksid);
void qg_stream_reopen(qg_stream *st);
void qg_stream_epoch_over(qg_stream *st, bool fruitful);
qg_stream *qg_stream_find(struct qg_core *core, const char *neighbour, const char *name);
void qg_stream_run_waiters(qg_waiter *list, qg_err err);
void qg_conductor_kick(struct qg_core *core);
void *qg_conductor_run(void *core);
/* A neighbour was asked at start and answered, or could not be asked. */
void qg_fetch_settled(struct qg_core *core);
/* Writes what changed in segments and deletes what is spent (flush.c). Tells
 * how many it wrote; the rest waits for the next pass. */
unsigned qg_flush_stream(qg_stream *st);
/* Under the stream's lock: takes a segment out and deletes it from the store. */
void qg_flush_delete(qg_segment *s);
/* Destroys every confirmed segment: the store is an old one (SOUNDNESS 9). */
void qg_flush_destroy(qg_stream *st);
/* Under the stream's lock: the window of a confirmed segment has passed. */
bool qg_segment_expired(const qg_segment *s);
/* Lets segments and epochs die whose time has passed. */
void qg_flush_expire(qg_stream *st);
void qg_flush_checkpoint(struct qg_core *core);
/* Begins a new generation of the key ring when one is due (rotate.c). False: not yet,
 * because what was sealed before is not all durable under the one in use. */
bool qg_rotate_ring(struct qg_core *core) QG_CHECKED;

/* --- pair_window.c --- */

/* Before the committer: what pairs took of limits.pair_chunks before the start. */
qg_err qg_pair_window_load(struct qg_core *core) QG_CHECKED;
/* Has the committer write what changed. */
void qg_pair_window_flush(struct qg_core *core);
/* new_app as opener; get_status at start; key_stream_closed. */
void qg_app_step(qg_stream *st, uint64_t now_ms);
void qg_app_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len, qg_peer_answer *answer,
		    void *ctx);
/* Asks the neighbours that have not answered since the start. */
void qg_status_step(struct qg_core *core, uint64_t now_ms);
void qg_status_receive(struct qg_core *core, const char *neighbour, qg_peer_answer *answer, void *ctx);
void qg_closed_step(qg_stream *st, uint64_t now_ms);
void qg_closed_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		       qg_peer_answer *answer, void *ctx);
/* app_stream*.c: key streams of applications. */
qg_err qg_app_streams_new(struct qg_core *core) QG_CHECKED;
void qg_app_streams_free(struct qg_core *core);
/* Answers all calls; nothing new begins. */
void qg_app_streams_wind_down(struct qg_core *core);
/* The conductor's part; returns when there is more to do. */
uint64_t qg_app_streams_step(struct qg_core *core, uint64_t now_ms);
/* Loads all; with `drop` deletes them instead (the store is an old one). Before
 * the committer starts. */
qg_err qg_app_streams_load(struct qg_core *core, bool drop) QG_CHECKED;
/* The oldest generation (seal.h) that a block is sealed under. */
uint32_t qg_app_streams_oldest_generation(struct qg_core *core);
/* Ends all: the store is an old one. */
void qg_app_streams_end_all(struct qg_core *core);
void qg_app_stream_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
			   qg_peer_answer *answer, void *ctx);
void qg_app_keys_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
			 qg_peer_answer *answer, void *ctx);
void qg_app_want_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
			 qg_peer_answer *answer, void *ctx);
void qg_app_closed_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
			   qg_peer_answer *answer, void *ctx);
/* restore.c: everything from the store, compared with the anchor. */
qg_err qg_restore_all(struct qg_core *core, bool reset, char *why, size_t why_room) QG_CHECKED;
void qg_audit_epoch(struct qg_core *core, const qg_epoch *e, const char *what);

#endif
