/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_PAIR_H
#define CORE_PAIR_H

#include "core_common.h"

/* Two gateways' cores in one process, KME-A (sae-alice, sae-dave) and KME-B
 * (sae-bob, sae-erin), on real stores, sealers and anchors, with a neighbour
 * channel and 004 sources whose faults a test switches. Included as a .c file
 * by the tests that use it. */

#define PAIR_STREAMS_MAX 2
#define PAIR_RECORD_MAX 4096

/* --- one end -------------------------------------------------------------------- */

typedef struct core_pair core_pair;
typedef struct core_end core_end;

typedef struct pair_message {
	struct pair_message *next;
	core_end *from;
	qg_kms_kind kind;
	qg_channel_done *done;
	void *ctx;
	size_t len;
	char body[];
} pair_message;

/* A delivered message with its answer. */
typedef struct pair_record {
	int side; /* of the sender */
	qg_kms_kind kind;
	char *body, *answer;
	size_t len, answer_len;
	int status;
} pair_record;

struct core_end {
	core_pair *pair;
	int side;
	unsigned lives; /* how often it was put on copies */
	char dir[160], database[192], anchor[192], master_key[192], key_ring[192];
	qg_config cfg;
	qg_config_sae saes[2];
	qg_config_place places[2];
	qg_config_neighbour neighbour;
	qg_config_stream streams[PAIR_STREAMS_MAX];
	qg_directory *directory;
	qg_sealer *sealer;
	fault_store store;
	bool fresh;
	qg_core *core;
	pair_session session[PAIR_STREAMS_MAX];
	pair_source source[PAIR_STREAMS_MAX];
	/* towards the other end */
	qg_channel channel;
	pthread_t worker;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	pair_message *queue, **queue_end;
	bool closing;
	/* from the other end */
	bool listening;
	unsigned receiving;
	atomic_bool cut; /* a crash: nothing it answers is heard */
	/* faults of what this end sends */
	atomic_bool link_down, answers_lost, twice;
	atomic_int drop_answers;   /* so many answers of new_key_batch to come are lost */
	atomic_bool alter_answers; /* a "confirmed" gets another MAC */
	atomic_bool alter_batches; /* a new_key_batch gets another window */
	atomic_bool alter_apps;    /* a new_app gets another nonce */
	atomic_uint sent[QG_KMS_KINDS];
};

typedef struct pair_options {
	bool shared;           /* one stream for both instead of two */
	uint32_t chunk_size, segment_chunks;
	uint32_t ready_chunks, inbound_chunks;
	uint32_t issue_s, fetch_s, pair_chunks, reserve_percent;
	uint32_t epoch_age_s, flush_ms, lease_chunks, rotate_s;
	uint32_t node_chunks, node_percent;
	const char *dir;       /* an old one goes on; else a temporary one */
} pair_options;

struct core_pair {
	char dir[128];
	bool keep;
	pair_options o;
	uint64_t seed;
	core_end end[2];
	pthread_mutex_t record_lock;
	pair_record record[PAIR_RECORD_MAX];
	size_t n_records;
};

/* Makes the pair, stopped, so that faults can be set first; and running. */
core_pair *pair_new(const pair_options *o);
core_pair *pair_start(const pair_options *o);
/* Stops both in an orderly way and removes the folder. */
void pair_free(core_pair **p);
core_end *pair_end(core_pair *p, int side);

void end_start(core_end *e);
/* QG_OK or what qg_core_start said. */
qg_err end_try_start(core_end *e);
void end_stop(core_end *e);
/* As if the power went: what the files held at this moment is all that the
 * next start finds. */
void end_crash(core_end *e);
/* Copies database, WAL and, if wished, the anchor into `to` (a name). */
void end_copy(core_end *e, const char *to, bool with_anchor);
/* Puts a copy in place of the files; the end is stopped. */
void end_put_back(core_end *e, const char *from, bool with_anchor);
void end_hold_commits(core_end *e);
void end_let_commits(core_end *e);

/* The stream that `side` owns (the shared one for both), as that end sees it;
 * and as the other end sees it. */
qg_stream *pair_out(core_pair *p, int side);
qg_stream *pair_in(core_pair *p, int side);
pair_source *pair_source_of(core_pair *p, int side, int owner);

/* --- keys ------------------------------------------------------------------------- */

/* Waits for the answer. */
qg_err pair_issue(core_end *e, const char *master, const char *slave, uint32_t number, uint32_t size, pair_keys *out);
qg_err pair_issue_req(core_end *e, const qg_issue_request *req, pair_keys *out);
qg_err pair_fetch(core_end *e, const char *master, const char *slave, const qg_uuid *ids, size_t n, pair_keys *out);
/* Only begins; told counts. */
void pair_fetch_begin(core_end *e, const qg_fetch_request *req, pair_keys *out);
void pair_issue_begin(core_end *e, const qg_issue_request *req, pair_keys *out);
/* Issues (trying again while the pool is empty) and fetches at the other end;
 * true when both hold the same. */
qg_err pair_issue_wait(core_end *e, const char *master, const char *slave, uint32_t number, uint32_t size,
		       pair_keys *out);
bool pair_deliver(core_pair *p, int side, uint32_t number, uint32_t size);

/* What the source gives at an index. */
void pair_chunk(const core_pair *p, const qg_uuid *ksid, uint32_t generation, uint32_t index, uint8_t *out);
/* Whether the bytes stand in any file below the folder. */
bool pair_on_disk(const core_pair *p, const void *bytes, size_t n);

/* --- waiting ------------------------------------------------------------------------ */

typedef bool pair_condition(core_pair *p, void *ctx);
bool pair_wait(core_pair *p, pair_condition *c, void *ctx);
/* Chunks ready at the owner. */
uint64_t pair_ready(core_pair *p, int side);
bool pair_wait_ready(core_pair *p, int side, uint64_t chunks);
bool pair_wait_idle(core_pair *p, int side);
/* A copy of what the newest epoch of a stream says, and how many there are. */
typedef struct epoch_view {
	bool any;
	uint8_t id[16];
	qg_uuid ksid;
	qg_epoch_state state;
	uint64_t mark, seen_mark, end_ms;
	uint32_t decided_in, decided_out;
	bool keys_out, keys_in;
	unsigned epochs, filling;
} epoch_view;
epoch_view pair_epoch(qg_stream *st);
uint64_t pair_bad(qg_stream *st);
bool pair_epoch_lives(qg_stream *st, const uint8_t id[16]);
/* Records of one kind by one sender; -1 for none. */
long pair_find_record(core_pair *p, int side, qg_kms_kind kind, size_t from);
size_t pair_records(core_pair *p);
/* Of one segment's request: how often it was delivered, and whether all its
 * deliveries had the same bytes. */
unsigned pair_batch_sent(core_pair *p, int side, uint32_t segment);
/* No one-time key signed two messages: all requests for one segment of one
 * epoch are the same bytes, and so are all "confirmed" answers. */
bool pair_signed_once(core_pair *p);

#endif
