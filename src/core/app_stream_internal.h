/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_APP_STREAM_INTERNAL_H
#define QKDGATE_APP_STREAM_INTERNAL_H

#include "core_internal.h"
#include "qkdgate/app_streams.h"
#include "qkdgate/kms_app_msg.h"
#include "qkdgate/policy.h"
#include "qkdgate/request_id.h"

/* What the files of the applications' key streams share. One lock guards all
 * of them; nothing waits under it, jobs are queued under it (so the store sees
 * changes in their order), and calls are answered, messages sent and key drawn
 * outside of it. End 0 of a stream is here; end 1 is at another KME, or here
 * too. */

#define QG_AS_BUCKETS 1024

typedef enum qg_as_state {
	QG_AS_NONE,  /* not connected yet */
	QG_AS_OPEN,
	QG_AS_CLOSED
} qg_as_state;

typedef struct qg_as_end {
	char uri[QG_KMS_URI_MAX + 1];
	char sae[QG_KMS_SAE_MAX + 1];
	uint8_t state;     /* qg_as_state */
	uint64_t sequence; /* next index of GET_KEY without one */
	unsigned dialect;  /* the caller's, of its last OPEN_CONNECT; 0: not known */
} qg_as_end;

/* A run of chunks. Sealed: the MAC that the other KME's answer must have (at
 * the far end: nothing, zeroed), then the chunks. */
typedef struct qg_as_block {
	uint32_t first, count, serial, hops;
	bool held;         /* both KMEs hold it: may be given out */
	uint64_t since_ms; /* lifetime clock: so since then */
	uint8_t tag[QG_MAC_BYTES]; /* the MAC of its new_app_keys */
	uint8_t *sealed;
	size_t sealed_len;
	char *message; /* not held: new_app_keys; at the far end: the answer */
	size_t message_len;
} qg_as_block;

typedef struct qg_as_stream qg_as_stream;
typedef struct qg_as_call qg_as_call;

struct qg_as_stream {
	qg_as_stream *next; /* in its bucket */
	struct qg_app_streams *all;
	qg_uuid ksid;
	char kme[QG_KMS_NAME_MAX + 1]; /* at which end 1 is; "": here */
	bool owner;                    /* draws the key */
	qg_as_end end[2];
	qg_kms_app_qos qos;
	int64_t row;       /* committer's */
	bool stored;       /* or being stored */
	bool settled;      /* the put is durable */
	bool ended;        /* out of the table; freed with the last pin */
	unsigned pins;     /* jobs, messages, draws and calls that point here */
	/* telling the other KME of our end */
	bool announcing;   /* new_app_stream is to be answered yet */
	bool announce_sent; /* ... and under way */
	bool creating;     /* ... the one that makes it there */
	bool heard;        /* ... and the other KME's own came meanwhile */
	bool fresh;        /* its KSID was drawn here */
	uint64_t announce_at_ms;
	qg_request_id announce_for;
	bool tell, telling; /* app_stream_closed is due, under way */
	uint64_t tell_at_ms;
	/* key */
	qg_as_block **block; /* by first index */
	size_t n_block, room_block;
	uint64_t held_bytes;
	uint64_t next_index; /* first index that no block has */
	uint32_t serial;     /* of the last block that was drawn or offered */
	uint64_t want;       /* index after the last one asked for, at either end */
	uint32_t ahead;      /* chunks kept ready beyond that */
	bool filling;        /* owner: a block is being drawn, stored or sent; far end: taken */
	bool sending;        /* its message is under way */
	bool dry;            /* the pool had nothing at the last try */
	uint64_t fill_at_ms; /* next try */
	unsigned backoff_ms;
	bool metered;        /* tokens count */
	double tokens;       /* bits that max_bps lets through now */
	uint64_t tokens_ms;
	uint64_t asked;      /* far end: told the owner to go so far */
	bool asking;
	uint64_t ask_at_ms;
	uint64_t used_ms;    /* lifetime clock */
	uint64_t rights_version; /* of the directory, under which its ends were judged */
	/* the last block that was opened for each end */
	struct {
		qg_secret *plain;
		uint32_t first, serial;
	} cache[2];
	qg_as_call *calls;   /* that wait */
};

/* A call of an application that waits. */
struct qg_as_call {
	qg_as_call *next;
	bool get;            /* GET_KEY, else OPEN_CONNECT */
	unsigned end;
	uint64_t deadline_ms;
	bool at_once;        /* OPEN_CONNECT without KSID: needs no peer */
	bool lowered;        /* OPEN_CONNECT: answered with status 7 */
	const qg_app_open *open;
	qg_app_opened opened;
	qg_app_opened_fn *opened_done;
	const qg_app_get *req;
	qg_app_got got;
	qg_app_got_fn *got_done;
	void *ctx;
	qg_request_id id;
	struct qg_app_streams *all;
};

/* What a KME was seen to bring (app_stream_qos.c). */
typedef struct qg_as_supply {
	const char *kme; /* the configuration's */
	uint64_t chunks_bits; /* that came so far */
	double bps;
	bool measured;
} qg_as_supply;

struct qg_app_streams {
	struct qg_core *core;
	pthread_mutex_t lock;
	unsigned char hash_key[16];
	qg_as_stream *bucket[QG_AS_BUCKETS];
	size_t n;
	qg_limits *opens;
	bool stopping;
	qg_app_suspended_fn *suspended;
	void *suspended_ctx;
	qg_as_supply *supply;
	size_t n_supply;
	uint64_t supply_at_ms, supply_since_ms;
};

/* Answered outside the lock, in the order they were added. */
typedef struct qg_as_done {
	qg_as_call *first, *last;
} qg_as_done;

/* --- app_streams.c: the table ----------------------------------------------------- */

qg_as_stream *qg_as_find(struct qg_app_streams *all, const qg_uuid *ksid);
qg_err qg_as_new(struct qg_app_streams *all, const qg_uuid *ksid, qg_as_stream **out) QG_CHECKED;
/* Takes it out; its calls go to `done`; its row is deleted. Pinned ones live on. */
void qg_as_end_stream(qg_as_stream *st, qg_as_done *done);
void qg_as_unpin(qg_as_stream *st);
/* Gives up the lock and a pin; in between answers `done` and does what is due. */
void qg_as_leave(qg_as_stream *st, qg_as_done *done);
/* A name that fits, as all do that come here. */
void qg_as_name(char *to, size_t room, const char *from);
bool qg_as_local(const qg_as_stream *st);
/* Its lifetime clock: the owner's or the far end's reading (SOUNDNESS 11). */
uint64_t qg_as_now_ms(const qg_as_stream *st);
/* How many streams an SAE here has. */
size_t qg_as_count(struct qg_app_streams *all, const char *sae);
void qg_as_log(const qg_as_stream *st, const char *event);
void qg_as_audit(const qg_as_stream *st, unsigned end, qg_audit_act act, const char *why);

qg_as_call *qg_as_call_new(struct qg_app_streams *all);
void qg_as_call_wait(qg_as_stream *st, qg_as_call *call);
void qg_as_done_add(qg_as_done *done, qg_as_call *call);
/* Outside the lock: answers and frees. */
void qg_as_done_run(qg_as_done *done);
/* With that status, and nothing else. */
void qg_as_refuse(qg_as_call *call, uint32_t status, qg_as_done *done);
/* Takes it out of those that wait. */
void qg_as_call_leave(qg_as_stream *st, qg_as_call *call);

/* --- app_stream_store.c ------------------------------------------------------------ */

/* Queues the writing of what changes, or of all at first. */
void qg_as_save(qg_as_stream *st);
/* The same, with a block that is put in unless NULL; `then` is called after it,
 * outside the lock. QG_E_NOMEM: it is not called. */
typedef void qg_as_stored_fn(qg_as_stream *st, qg_err err, void *ctx);
qg_err qg_as_save_then(qg_as_stream *st, const qg_as_block *b, qg_as_stored_fn *then, void *ctx) QG_CHECKED;
void qg_as_save_held(qg_as_stream *st, const qg_as_block *b);
/* Takes the block out of the stream, and deletes it. */
void qg_as_drop_block(qg_as_stream *st, size_t i);
void qg_as_drop_all(qg_as_stream *st);
void qg_as_delete(qg_as_stream *st);
qg_err qg_as_block_add(qg_as_stream *st, qg_as_block *b) QG_CHECKED;
void qg_as_block_free(qg_as_block **b);
/* The block that has the index, or NULL; *at: its place. */
qg_as_block *qg_as_block_of(const qg_as_stream *st, uint64_t index, size_t *at);
/* Without the lock: reads nothing of the stream that may change. */
qg_err qg_as_seal(const qg_as_stream *st, qg_as_block *b, uint32_t chunk_size, const uint8_t expect[QG_MAC_BYTES],
		  const uint8_t *chunks) QG_CHECKED;
qg_err qg_as_unseal(const qg_as_stream *st, const qg_as_block *b, qg_secret **out) QG_CHECKED;

/* --- app_stream_names.c --------------------------------------------------------------- */

/* A caller's view: which URI is its own, and where the other one is. */
typedef struct qg_as_names {
	const qg_config_sae *sae;
	const char *mine, *other;
	const char *kme;       /* NULL: here */
	const char *other_sae; /* NULL: not known yet */
} qg_as_names;

/* QG_E_DENIED: none of the two URIs is the caller's, or policy says no;
 * QG_E_NOTFOUND: the other one is nowhere; QG_E_RANGE: too long. */
qg_err qg_as_resolve(const struct qg_core *core, const qg_config_sae *sae, const char *source,
		     const char *destination, qg_as_names *out) QG_CHECKED;
bool qg_as_accepts(const qg_config_sae *sae, const char *uri);
/* Whether key is pushed to it. */
bool qg_as_pushes(const qg_config_sae *sae, const char *uri);
/* The SAE here whose URI it is, or NULL. */
const qg_config_sae *qg_as_local_sae(const struct qg_core *core, const char *uri);
qg_err qg_as_policy(const struct qg_core *core, const char *a, const char *b, qg_policy_terms *out) QG_CHECKED;

/* --- app_stream_rights.c --------------------------------------------------------------- */

/* Under the lock, st pinned: ends that may not be any more are closed. Costs
 * nothing where nothing changed. */
void qg_as_judge_rights(qg_as_stream *st, qg_as_done *done);
bool qg_as_suspended(const struct qg_app_streams *all, const char *sae, const char *other);

/* --- app_stream_qos.c ------------------------------------------------------------------- */

/* What is granted of what was asked. QG_E_UNSUPPORTED: a mimetype that we lack;
 * QG_E_STATE: *out is a counter-proposal; QG_E_NOTFOUND: no key towards that KME
 * ever. */
qg_err qg_as_grant(struct qg_app_streams *all, const qg_as_names *names, const qg_etsi004_qos *asked,
		   qg_kms_app_qos *out) QG_CHECKED;
void qg_as_qos_out(const qg_kms_app_qos *in, qg_etsi004_qos *out);
/* Bits that may be drawn now. */
double qg_as_tokens(qg_as_stream *st, uint64_t now_ms);
void qg_as_supply_step(struct qg_app_streams *all, uint64_t now_ms);

/* --- app_stream_join.c: the other KME learns of our end --------------------------------- */

/* Under the lock: begins the message; sent by qg_as_pump. */
void qg_as_announce(qg_as_stream *st);
/* Outside the lock; announce_sent is set. */
void qg_as_announce_send(qg_as_stream *st);
/* Under the lock: resolves the OPEN_CONNECT calls that need wait no longer. */
void qg_as_settle_calls(qg_as_stream *st, qg_as_done *done);
void qg_as_settle(qg_as_stream *st, qg_as_done *done);

/* --- app_stream_open.c ------------------------------------------------------------------- */

void qg_as_open_again(qg_as_call *call, const qg_uuid *ksid);

/* --- app_stream_get.c -------------------------------------------------------------------- */

/* Under the lock: answers GET_KEY calls that can be answered now. */
void qg_as_serve(qg_as_stream *st, qg_as_done *done);
/* The end of a stream that belongs to the SAE, an open one first; -1: none. */
int qg_as_end_of(const qg_as_stream *st, const qg_config_sae *sae);

/* --- app_stream_fill.c, app_stream_take.c ------------------------------------------------- */

#define QG_AS_KEY_BYTES 512    /* of each key drawn: a segment's tail is wasted below that */
#define QG_AS_BLOCK_BYTES 32768
#define QG_AS_AHEAD_MIN 4096   /* bytes */
#define QG_AS_AHEAD_MAX 131072
#define QG_AS_WINDOW_BYTES 262144 /* GET_KEY further ahead is refused */

/* Outside the lock: draws, or sends, what is due. st is pinned by the caller. */
void qg_as_fill(qg_as_stream *st);
/* Outside the lock; asking is set, st pinned for it. */
void qg_as_want_send(qg_as_stream *st, uint64_t until);
/* The names that the tags of a block's key IDs bind: everything that the
 * message says of it but the IDs. */
#define QG_AS_BINDING 1024
typedef struct qg_as_binding {
	char master[QG_AS_BINDING], slave[QG_AS_BINDING];
} qg_as_binding;
void qg_as_bind(const qg_as_stream *st, const qg_kms_app_keys *m, qg_as_binding *out);
void qg_as_keys_mac(const qg_kms_app_keys *m, const uint8_t *key, const uint8_t *chunks, uint8_t mac[QG_MAC_BYTES]);
void qg_as_answer_mac(const uint8_t request_mac[QG_MAC_BYTES], const uint8_t *key, uint8_t mac[QG_MAC_BYTES]);

/* --- app_stream_close.c -------------------------------------------------------------------- */

/* Under the lock, st pinned: CLOSE of an end without a call. */
void qg_as_withdraw(qg_as_stream *st, unsigned end, qg_as_done *done);
/* Outside the lock; telling is set, st pinned for it. */
void qg_as_tell_send(qg_as_stream *st);
/* Tells the other KME that the whole stream is over, once, and answers these
 * calls after that. Outside the lock. */
void qg_as_tell_whole(struct qg_app_streams *all, const char *kme, const qg_uuid *ksid, qg_as_done *calls);

/* --- app_stream_step.c ---------------------------------------------------------------------- */

/* Outside the lock: everything of one stream that is due. */
void qg_as_pump(qg_as_stream *st);

#endif
