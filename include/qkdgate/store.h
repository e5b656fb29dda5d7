/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_STORE_H
#define QKDGATE_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/uuid.h"

/* What must outlive the process, as an operations table: SQLite is the
 * embedded implementation. Only the committer's thread calls it once the
 * daemon runs; before that the thread that starts it. Every blob with key in
 * it is sealed already (seal.h); the store knows no secrets. */

typedef enum qg_epoch_state {
	QG_EPOCH_FILLING = 1,  /* takes chunks, issues, delivers */
	QG_EPOCH_ENDED = 2,    /* takes no more chunks; issues what is confirmed */
	QG_EPOCH_DRAINING = 3  /* not issued from; still fetchable */
} qg_epoch_state;

typedef struct qg_epoch_rec {
	int64_t row;             /* set by epoch_put */
	const char *stream;      /* name of the configured stream */
	qg_uuid ksid;
	uint8_t epoch[16];
	qg_epoch_state state;
	bool opener;             /* this end chose the KSID */
	uint32_t chunk_size;     /* bytes */
	uint32_t segment_chunks;
	uint64_t mark;           /* lease mark of what we own: index of a chunk */
	uint64_t seen_mark;      /* highest mark the neighbour told us of its own */
	uint32_t next_segment;   /* first segment number of the neighbour's that is not decided */
	uint64_t next_index;     /* first chunk index of ours that is not decided */
	const uint8_t *root_out; /* sealed key-ID root of what we own, or NULL */
	size_t root_out_len;
	const uint8_t *root_in;  /* sealed key-ID root of what the neighbour owns */
	size_t root_in_len;
	const uint8_t *probe;    /* keyed hash of the last stored chunk, or NULL */
	size_t probe_len;        /* 16 */
	uint64_t probe_index;    /* its index */
	int64_t created_ms;      /* wall clock */
	uint64_t end_ms;         /* lifetime clock at which a draining epoch ends */
} qg_epoch_rec;

typedef enum qg_segment_state {
	QG_SEGMENT_OFFERED = 1,   /* ours; request stored, answer not yet seen */
	QG_SEGMENT_CONFIRMED = 2  /* both ends hold it */
} qg_segment_state;

typedef struct qg_segment_rec {
	int64_t row;             /* set by segment_put */
	int64_t epoch_row;
	uint32_t number;
	bool ours;               /* this end owns it */
	uint8_t use;             /* qg_segment_use of kms_msg.h */
	qg_segment_state state;
	uint64_t first_index;
	uint32_t count;          /* chunks */
	uint8_t root;            /* 1: its first chunks are the key-ID root */
	const uint8_t *sealed;   /* the chunks, or NULL when none is left */
	size_t sealed_len;
	const uint8_t *used;     /* bit i set: chunk i is consumed, issued or reserved */
	size_t used_len;         /* (count + 7) / 8 */
	const uint8_t *message;  /* ours: exact request bytes; theirs: exact answer bytes */
	size_t message_len;
	const uint8_t *tag;      /* the request's 16-byte MAC */
	uint64_t born_ms;        /* lifetime clock: stored (theirs), first sent (ours) */
	int64_t ready_wall_ms;   /* wall clock when confirmed */
	uint32_t issue_s;        /* windows, SOUNDNESS 11 */
	uint32_t fetch_s;
	uint32_t hops;           /* trusted nodes its key passed (ours) */
} qg_segment_rec;

typedef enum qg_transfer_state {
	QG_TRANSFER_PREPARED = 1, QG_TRANSFER_OFFERED, QG_TRANSFER_HELD, QG_TRANSFER_RELEASED,
	QG_TRANSFER_VOIDING, QG_TRANSFER_VOIDED, QG_TRANSFER_EXPIRED, QG_TRANSFER_FAILED
} qg_transfer_state;

typedef enum qg_target_state {
	QG_TARGET_PENDING = 1, QG_TARGET_RELAYED, QG_TARGET_DELIVERED, QG_TARGET_VOIDED
} qg_target_state;

typedef struct qg_target_rec {
	const char *sae;
	qg_target_state state;
	const char *home;        /* KME that keeps the key for it; NULL: this node */
} qg_target_rec;

/* A key with an ID of its own (DESIGN, idea 5). */
typedef struct qg_transfer_rec {
	int64_t row;             /* set by transfer_put */
	const char *initiator;   /* SAE ID of the master */
	qg_uuid key_id;
	qg_transfer_state state;
	const char *origin;      /* "local": issued at this node; else the KME that brought it */
	const uint8_t *sealed;   /* NULL once no target is left */
	size_t sealed_len;
	uint32_t size_bytes;
	uint64_t expiry_ms;      /* lifetime clock */
	const qg_target_rec *target;
	size_t n_targets;
	/* Keys between networks; NULL or "": none. */
	const char *extension, *optional; /* passed on to the next network */
	const char *owed;        /* peer that is told whether it became void */
} qg_transfer_rec;

/* A key stream of two applications (app_streams.h). */
typedef struct qg_app_stream_rec {
	int64_t row;             /* set by app_stream_put */
	qg_uuid ksid;
	const char *kme;         /* at which end 1 is; "": here */
	bool owner;              /* this KME draws its key */
	const char *uri[2], *sae[2];
	uint32_t chunk_size, max_bps, min_bps, jitter_bps, priority, timeout_ms, ttl_s;
	bool metadata;
	/* What changes: */
	uint8_t state[2];        /* of the ends: 0 not connected yet, 1 open, 2 closed */
	uint64_t sequence[2];    /* next index of GET_KEY without one */
	uint64_t next_index;     /* first index that no run of chunks has */
	uint32_t serial;         /* of the last run */
	bool tell;               /* the other KME does not know yet that end 0 closed */
	uint64_t used_ms;        /* lifetime clock: last call of an application */
} qg_app_stream_rec;

/* A run of its chunks, sealed. */
typedef struct qg_app_block_rec {
	int64_t stream_row;
	uint32_t first, count, serial, hops;
	bool held;               /* the other KME holds it too */
	uint64_t since_ms;       /* lifetime clock: available */
	const uint8_t *tag;      /* 16 bytes, or NULL */
	const uint8_t *message;  /* exact bytes, or NULL */
	size_t message_len;
	const uint8_t *sealed;
	size_t sealed_len;
} qg_app_block_rec;
/* What a peer is to be told of keys until it answers. */
typedef struct qg_telling_rec {
	int64_t row;             /* set by telling_put */
	const char *peer;
	unsigned what;           /* qg_interop_status, or 5: that they are void */
	const char *initiator;
	const char *targets;     /* SAE IDs, a line each */
	const uint8_t *ids;      /* 16 bytes each */
	size_t ids_len;
	uint64_t until_ms;       /* lifetime clock: given up then */
} qg_telling_rec;

/* An entry of the configuration that an operator made at run time. */
typedef struct qg_entry_rec {
	const char *list;        /* "saes" or "policy" */
	const char *name;
	const char *text;        /* JSON */
} qg_entry_rec;

/* Who gets no key until an operator resumes it. */
typedef struct qg_suspension_rec {
	const char *kind;        /* "sae", "pair" or "peer" */
	const char *name;
	const char *other;       /* of a pair; else "" */
} qg_suspension_rec;

/* Chunks issued to a pair lately. */
typedef struct qg_window_rec {
	const uint8_t *pair;     /* a keyed hash of the two */
	size_t pair_len;
	int64_t began_ms;        /* wall clock: the newest slot of time */
	uint64_t slot_ms;
	const uint8_t *chunks;   /* by slot, the newest first: 8 bytes each, big-endian */
	size_t chunks_len;
} qg_window_rec;

/* What an SAE asked for with another, on one day. */
typedef struct qg_account_rec {
	int64_t day;             /* since 1970-01-01, UTC */
	const char *sae;         /* who asked */
	const char *other;       /* "": nobody that is known */
	uint64_t requests;       /* for keys, however they ended */
	uint64_t issued, issued_bits;   /* as master: keys */
	uint64_t fetched, fetched_bits; /* as slave */
	uint64_t refused;        /* requests */
	uint64_t limited;        /* of them: a rate was used up */
} qg_account_rec;

/* What was left of a rate. */
typedef struct qg_level_rec {
	const char *rate, *name;
	uint64_t milli;          /* thousandths of a token */
} qg_level_rec;

typedef struct qg_store qg_store;

/* Every entry: no locks held by the store's caller matter, may wait for the
 * disk, pointers in records stay the caller's, QG_E_IO when the database
 * refuses (full, read-only), QG_E_CORRUPT when it is damaged. Changes happen
 * inside begin .. commit; rollback drops them. A commit that fails with
 * QG_E_UNKNOWN may have happened, with another error it has not. load_* call
 * back per row, views valid inside; a callback that does not return QG_OK ends
 * the load with its error. */
typedef struct qg_store_ops {
	qg_err (*begin)(qg_store *s);
	qg_err (*commit)(qg_store *s);
	void (*rollback)(qg_store *s);

	qg_err (*epoch_put)(qg_store *s, qg_epoch_rec *rec);
	/* All members but row, stream, ksid, epoch, chunk_size, opener, created_ms. */
	qg_err (*epoch_update)(qg_store *s, const qg_epoch_rec *rec);
	qg_err (*epoch_mark)(qg_store *s, int64_t row, uint64_t mark);
	/* With its segments. */
	qg_err (*epoch_delete)(qg_store *s, int64_t row);

	/* QG_E_EXISTS when the epoch has that segment number. */
	qg_err (*segment_put)(qg_store *s, qg_segment_rec *rec);
	/* OFFERED to CONFIRMED. QG_E_STATE when it is not OFFERED. */
	qg_err (*segment_confirm)(qg_store *s, int64_t row, int64_t ready_wall_ms, uint32_t hops);
	/* The first send of one of ours. */
	qg_err (*segment_sent)(qg_store *s, int64_t row, uint64_t born_ms);
	/* Sets `used` to `now` if it is `was`, byte for byte; else QG_E_CONSUMED. */
	qg_err (*segment_use)(qg_store *s, int64_t row, const uint8_t *was, const uint8_t *now, size_t len);
	/* Reads `used` as the store has it. QG_E_NOTFOUND. */
	qg_err (*segment_used)(qg_store *s, int64_t row, uint8_t *out, size_t len);
	/* Puts in a blob sealed anew (used chunks zeroed), or NULL for none left. */
	qg_err (*segment_reseal)(qg_store *s, int64_t row, const uint8_t *sealed, size_t len);
	qg_err (*segment_delete)(qg_store *s, int64_t row);

	qg_err (*transfer_put)(qg_store *s, qg_transfer_rec *rec); /* QG_E_EXISTS */
	/* QG_E_STATE when it is not in `was`. */
	qg_err (*transfer_state)(qg_store *s, int64_t row, qg_transfer_state was, qg_transfer_state now);
	/* QG_E_STATE when the target is not in `was`. */
	qg_err (*target_state)(qg_store *s, int64_t row, const char *sae, qg_target_state was, qg_target_state now);
	qg_err (*transfer_unseal)(qg_store *s, int64_t row); /* forgets the value */
	qg_err (*transfer_delete)(qg_store *s, int64_t row);
	/* Sets `owed`. */
	qg_err (*transfer_owe)(qg_store *s, int64_t row, const char *peer);

	qg_err (*telling_put)(qg_store *s, qg_telling_rec *rec);
	qg_err (*telling_delete)(qg_store *s, int64_t row); /* QG_E_NOTFOUND */

	/* Named numbers: counters, clock checkpoints. Absent reads as 0, and
	 * what is put as 0 takes no room any more. */
	qg_err (*number_put)(qg_store *s, const char *name, int64_t value);
	qg_err (*number_get)(qg_store *s, const char *name, int64_t *value);

	qg_err (*load_epochs)(qg_store *s, qg_err (*each)(const qg_epoch_rec *rec, void *ctx), void *ctx);
	qg_err (*load_segments)(qg_store *s, qg_err (*each)(const qg_segment_rec *rec, void *ctx), void *ctx);
	qg_err (*load_transfers)(qg_store *s, qg_err (*each)(const qg_transfer_rec *rec, void *ctx), void *ctx);

	/* In the place of one with the same KSID, if any. */
	qg_err (*app_stream_put)(qg_store *s, qg_app_stream_rec *rec);
	/* What changes. */
	qg_err (*app_stream_update)(qg_store *s, const qg_app_stream_rec *rec);
	/* With its blocks. */
	qg_err (*app_stream_delete)(qg_store *s, int64_t row);
	/* In the place of one with the same first index, if any. */
	qg_err (*app_block_put)(qg_store *s, const qg_app_block_rec *rec);
	/* It is held at both KMEs: the message is forgotten. QG_E_NOTFOUND. */
	qg_err (*app_block_held)(qg_store *s, int64_t stream_row, uint32_t first, uint64_t since_ms);
	/* Also when there is none. */
	qg_err (*app_block_delete)(qg_store *s, int64_t stream_row, uint32_t first);
	qg_err (*load_app_streams)(qg_store *s, qg_err (*each)(const qg_app_stream_rec *rec, void *ctx), void *ctx);
	/* By stream, then in the order of their indexes. */
	qg_err (*load_app_blocks)(qg_store *s, qg_err (*each)(const qg_app_block_rec *rec, void *ctx), void *ctx);
	qg_err (*load_tellings)(qg_store *s, qg_err (*each)(const qg_telling_rec *rec, void *ctx), void *ctx);

	qg_err (*entry_put)(qg_store *s, const qg_entry_rec *rec); /* QG_E_EXISTS */
	qg_err (*entry_delete)(qg_store *s, const char *list, const char *name); /* QG_E_NOTFOUND */
	/* In the order in which they were put. */
	qg_err (*load_entries)(qg_store *s, qg_err (*each)(const qg_entry_rec *rec, void *ctx), void *ctx);
	qg_err (*suspension_put)(qg_store *s, const qg_suspension_rec *rec); /* also when it is there */
	qg_err (*suspension_delete)(qg_store *s, const qg_suspension_rec *rec); /* also when there is none */
	qg_err (*load_suspensions)(qg_store *s, qg_err (*each)(const qg_suspension_rec *rec, void *ctx), void *ctx);
	qg_err (*window_put)(qg_store *s, const qg_window_rec *rec); /* in the place of the pair's */
	qg_err (*windows_delete)(qg_store *s, int64_t before_ms);    /* that began before */
	qg_err (*load_windows)(qg_store *s, qg_err (*each)(const qg_window_rec *rec, void *ctx), void *ctx);
	/* Adds to what the day has. */
	qg_err (*account_add)(qg_store *s, const qg_account_rec *rec);
	qg_err (*accounts_delete)(qg_store *s, int64_t before_day); /* also when there are none */
	/* Of the days from .. to, in their order. */
	qg_err (*load_accounts)(qg_store *s, int64_t from, int64_t to,
				qg_err (*each)(const qg_account_rec *rec, void *ctx), void *ctx);
	qg_err (*level_put)(qg_store *s, const qg_level_rec *rec);
	qg_err (*levels_delete)(qg_store *s); /* all */
	qg_err (*load_levels)(qg_store *s, qg_err (*each)(const qg_level_rec *rec, void *ctx), void *ctx);
	void (*close)(qg_store **s);
} qg_store_ops;

struct qg_store {
	const qg_store_ops *ops;
};

/* Opens the SQLite database at path (made with mode 0600 when absent; WAL,
 * synchronous FULL, secure_delete, foreign keys; refuses one whose schema is
 * newer; runs missing migrations of db/, which are compiled in; takes an
 * exclusive lock, so that a second daemon fails with QG_E_EXISTS). *fresh tells
 * that it was made now. `why` gets a text that names what failed. */
qg_err qg_store_sqlite_open(const char *path, bool *fresh, qg_store **out, char *why, size_t why_room)
	QG_CHECKED;

#endif
