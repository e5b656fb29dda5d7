/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_NET_H
#define CORE_NET_H

#include "core_common.h"

#include <stdio.h>

#include "../../../src/core/relay_internal.h"

/* A network of gateways' cores in one process, KME-A, KME-B, ... (SAEs sae-a
 * and sae-a2, sae-b ...), on real stores, sealers, anchors, audits and
 * directories. A link is two one-way streams, "a-to-b" and "b-to-a", whose
 * sources give both ends the same key; a far stream, "a-over-c", is virtual:
 * drawn at its owner. The channel reaches every node from every other; faults
 * are set for each pair and kind of message. Included as a .c file. */

#define NET_NODES 10
#define NET_STREAMS 40 /* at one node */
#define NET_LINKS 24
#define NET_FARS 48
#define NET_WORKERS 2

typedef struct core_net core_net;
typedef struct core_node core_node;

/* --- the plan ------------------------------------------------------------------ */

typedef struct net_link {
	unsigned a, b;
	uint32_t cost;                       /* 0: 1 */
	uint32_t chunk_size, segment_chunks; /* 0: of the plan */
	uint32_t node_chunks, node_percent;  /* 0: of the plan; node_chunks UINT32_MAX: none */
	uint32_t rate;                       /* chunks a second in each direction, 0: no limit */
} net_link;

/* A virtual stream: `from` owns it. */
typedef struct net_far {
	unsigned from, to;
	uint32_t paths;       /* 0: 1 */
	bool fewer_paths;
	uint32_t max_hops;    /* 0: 14 */
	uint32_t chunk_size, segment_chunks;
	uint32_t node_chunks; /* 0: none: only multicast takes node key of it */
	const qg_config_route *routes;
	size_t n_routes;
} net_far;

typedef struct net_plan {
	unsigned nodes;
	net_link link[NET_LINKS];
	size_t n_links;
	net_far far[NET_FARS];
	size_t n_fars;
	uint32_t chunk_size, segment_chunks, node_chunks, node_percent;
	uint32_t ready_chunks, inbound_chunks, issue_s, fetch_s, lease_chunks, flush_ms, epoch_age_s, reserve_percent;
	uint32_t own_percent, neighbour_bytes_per_s, route_bytes_per_s, relay_timeout_ms, penalty_s;
	uint32_t kms_timeout_ms;
} net_plan;

/* Each empties the plan first. */
void net_plan_line(net_plan *pl, unsigned nodes);
void net_plan_ring(net_plan *pl, unsigned nodes);
/* A - B - C and A - D - C. */
void net_plan_diamond(net_plan *pl);
void net_plan_link(net_plan *pl, unsigned a, unsigned b);
/* One virtual stream from `from` to `to`; one each way. */
net_far *net_plan_far(net_plan *pl, unsigned from, unsigned to);
void net_plan_both(net_plan *pl, unsigned a, unsigned b);

/* --- the network ------------------------------------------------------------------ */

/* What happens to messages of one kind from one node to another. */
typedef struct net_fault {
	atomic_bool down;          /* cannot be sent */
	atomic_int lose_requests;  /* so many to come never arrive; -1: all */
	atomic_int lose_answers;   /* so many answers to come are lost; -1: all */
	atomic_bool twice;         /* each is delivered twice */
	atomic_uint delay_ms;      /* there, and back again */
	atomic_uint jitter_ms;     /* up to so much more: later ones overtake */
} net_fault;

/* A message on its way: what a hook sees and may change. */
typedef struct net_wire {
	core_net *net;
	unsigned from, to; /* of the message, also while its answer is looked at */
	qg_kms_kind kind;
	bool answer;       /* body is the answer */
	int status;        /* of the answer */
	char *body;
	size_t len, room;
	bool lost;         /* set: it never arrives */
	size_t record;     /* number of its record */
} net_wire;

/* Called for every delivery and every answer, one at a time, without locks of
 * the core. It must not wait for the network. */
typedef void net_hook(void *ctx, net_wire *w);

/* A message as its sender meant it, and the answer as the receiver gave it. */
typedef struct net_record {
	unsigned from, to;
	qg_kms_kind kind;
	char *body, *answer;
	size_t len, answer_len;
	int status;
	unsigned deliveries;
	uint64_t sent_ms, answered_ms;
} net_record;

/* What happens to requests between peers, by what they are. */
typedef enum net_post_kind { NET_POST_KEYS, NET_POST_ACKS, NET_POST_VOID, NET_POST_KINDS } net_post_kind;

typedef struct net_way_fault {
	atomic_int down;          /* so many to come cannot be sent; -1: all */
	atomic_int lose_requests; /* so many to come never arrive; -1: all */
	atomic_int lose_answers;  /* so many answers to come are lost; -1: all */
	atomic_bool twice;        /* each is delivered twice */
	atomic_uint sent;         /* delivered */
} net_way_fault;

typedef struct net_post net_post;
/* Called for every request that is delivered, without locks of the core. */
typedef void net_post_hook(void *ctx, unsigned from, unsigned to, net_post_kind kind, const void *m);

/* A peer that the test plays: true when it answered by *sent. */
typedef bool net_post_play(unsigned from, unsigned to, net_post_kind kind, const void *m, qg_interop_sent *sent);

typedef struct net_call net_call;
typedef struct net_event net_event;

struct core_node {
	core_net *net;
	unsigned index, lives;
	char id[8], sae[2][16];
	char dir[160], database[192], anchor[192], master_key[192], key_ring[192], audit_file[192];
	qg_config cfg;
	qg_config_sae saes[2];
	qg_config_place places[2 * NET_NODES];
	qg_config_neighbour neighbours[NET_NODES];
	qg_config_stream streams[NET_STREAMS];
	char names[NET_STREAMS][32];
	unsigned owner[NET_STREAMS]; /* node that owns the stream */
	pair_source source[NET_STREAMS];
	pair_session session[NET_STREAMS];
	qg_directory *directory;
	qg_sealer *sealer;
	qg_audit *audit;
	fault_store store;
	bool fresh;
	qg_core *core;
	/* the channel */
	qg_channel channel;
	pthread_t worker[NET_WORKERS];
	pthread_mutex_t lock;
	pthread_cond_t wake;
	net_event *events; /* by time */
	net_call *calls;   /* open */
	/* the way to peers */
	qg_config_peer peers[NET_NODES];
	qg_interop_way way;
	pthread_t poster;
	net_post *posts, *posted; /* to be delivered; not yet answered */
	bool closing, listening;
	unsigned receiving; /* messages of others that are not answered */
	atomic_bool cut;    /* a crash: nothing it says is heard */
	atomic_uint sent[QG_KMS_KINDS];
};

struct core_net {
	char dir[128];
	net_plan plan;
	uint64_t seed;
	core_node node[NET_NODES];
	net_fault fault[NET_NODES][NET_NODES][QG_KMS_KINDS];
	net_way_fault way_fault[NET_NODES][NET_NODES][NET_POST_KINDS];
	_Atomic(net_post_hook *) post_hook;
	void *post_hook_ctx;
	net_post_play *post_play; /* instead of a delivery */
	qg_config_link links[NET_LINKS];
	pthread_mutex_t hook_lock;
	net_hook *hook;
	void *hook_ctx;
	pthread_mutex_t record_lock;
	net_record *record;
	size_t n_records, room_records;
	atomic_bool record_off; /* forward_keys are not kept */
	atomic_uint_fast64_t jitter;
	unsigned lives;
};

/* Makes the network, stopped, so that faults can be set first; and running.
 * What the plan leaves 0 gets a value. */
core_net *net_new(const net_plan *pl);
core_net *net_start(const net_plan *pl);
/* Stops all in an orderly way and removes the folder. */
void net_free(core_net **n);

void node_start(core_node *e);
qg_err node_try_start(core_node *e);
void node_stop(core_node *e);
/* As if the power went: what the files held at this moment is all that the
 * next start finds. */
void node_crash(core_node *e);
/* Copies database, WAL and, if wished, the anchor into `to` (a name); and puts
 * such a copy in place of the files of a stopped node. */
void node_copy(core_node *e, const char *to, bool with_anchor);
void node_put_back(core_node *e, const char *from, bool with_anchor);
void node_hold_commits(core_node *e);
void node_let_commits(core_node *e);

/* --- faults ------------------------------------------------------------------------ */

net_fault *net_fault_of(core_net *n, unsigned from, unsigned to, qg_kms_kind kind);
/* All kinds, both ways. */
void net_down(core_net *n, unsigned a, unsigned b, bool down);
/* No more key on a link, at both ends and in both directions; from `from` only. */
void net_dry(core_net *n, unsigned a, unsigned b, bool dry);
void net_dry_from(core_net *n, unsigned from, unsigned to, bool dry);
void net_rate(core_net *n, unsigned from, unsigned to, uint32_t chunks_per_s);
/* NULL: none. */
void net_set_hook(core_net *n, net_hook *hook, void *ctx);

typedef struct net_answer {
	int status;
	size_t len;
	char body[QG_KMS_MSG_MAX];
} net_answer;

/* Delivers a message as if the neighbour `from` sent it over its connection;
 * waits for the answer. */
void net_inject(core_net *n, unsigned from, unsigned to, qg_kms_kind kind, const char *body, size_t len,
		net_answer *out);

/* --- looking -------------------------------------------------------------------------- */

/* The link's, or virtual, stream that `from` owns towards `to`, as `at` sees it. */
qg_stream *net_stream(core_net *n, unsigned from, unsigned to, unsigned at);
qg_stream *net_far_stream(core_net *n, unsigned from, unsigned to, unsigned at);
pair_source *net_source(core_net *n, unsigned from, unsigned to, unsigned at);

uint64_t net_stream_ready(qg_stream *st);
typedef bool net_condition(core_net *n, void *ctx);
bool net_wait(core_net *n, net_condition *c, void *ctx);
/* Chunks ready to issue of the virtual (or, without one, the link's) stream. */
bool net_wait_ready(core_net *n, unsigned from, unsigned to, uint64_t chunks);

size_t net_records(core_net *n);
/* A copy that the caller frees with net_record_free; false: no such record. */
bool net_record_get(core_net *n, size_t i, net_record *out);
void net_record_free(net_record *r);
/* The next record of a kind from i on (from, to NET_NODES: any); -1: none. */
long net_find(core_net *n, unsigned from, unsigned to, qg_kms_kind kind, size_t i);

/* The bytes that pads name, computed from the links' key: what a node of that
 * link knows. n bytes are written; false when an epoch was never handed over. */
bool net_pad_bytes(core_net *n, const qg_kms_pad *pad, size_t n_pads, uint8_t *out, size_t len);
/* The plaintext of a forward_keys; false as above. */
bool net_unmask(core_net *n, const qg_kms_masked *m, uint8_t *out);

/* --- forging ---------------------------------------------------------------------------- */

bool net_forward_of(const net_record *r, qg_kms_forward *out);
/* The first forward_keys of a pair of nodes from record i on. */
bool net_forward_get(core_net *n, unsigned from, unsigned to, size_t i, qg_kms_forward *out);
/* The MAC that the link's key gives for the message as it stands; and the data
 * masked besides. */
void net_mac(core_net *n, qg_kms_forward *m);
void net_seal(core_net *n, qg_kms_forward *m, const uint8_t *plain);
/* Names key of these uses that `to` holds of the link and nobody opened, for the
 * MACs and for the data; waits until there is enough. */
bool net_pads_at(core_net *n, unsigned from, unsigned to, qg_segment_use mac, qg_segment_use pad, size_t data_len,
		 qg_kms_masked *out);
/* Delivers it as the neighbour `from`; the result of the answer. */
qg_kms_forward_result net_forward(core_net *n, unsigned from, unsigned to, const qg_kms_forward *m, int *status);
/* The MAC of an answer to that message. */
void net_answer_mac(core_net *n, const qg_kms_forward *m, qg_kms_forward_answer *a);
/* Waits until neither key nor confirmations were sent for a while. */
bool net_wait_quiet(core_net *n);
/* No two messages recorded, lost ones included, name the same byte of node key,
 * and no masked block occurs twice. */
bool net_all_fresh(core_net *n, size_t *messages);
/* No source ever sent two values for one chunk of one share; and how often it
 * sent one again. */
bool net_drawn_once(core_net *n, size_t *repeats);
/* Every message went along its path, over links of the plan, without a loop. */
bool net_ways_known(core_net *n);
/* No node in between was sent two different shares of one chunk. */
bool net_shares_apart(core_net *n);

/* --- accounts ----------------------------------------------------------------------------- */

/* The pads' account of the stream that `from` owns towards `to`: at `from`, as
 * its owner, or at `to`. */
qg_pad_account net_account(core_net *n, unsigned from, unsigned to, unsigned at);
/* Every link in both directions: what was used is what the messages carried and
 * 64 bytes for each, to the byte, at both ends; printed as a table. Nothing may
 * be under way. */
bool net_accounts_add_up(core_net *n, FILE *out);

/* --- keys ------------------------------------------------------------------------------- */

qg_err net_issue(core_net *n, unsigned from, const char *master, const char *slave, uint32_t number, uint32_t size,
		 pair_keys *out);
/* Tries again while the pool is empty. */
qg_err net_issue_wait(core_net *n, unsigned from, const char *master, const char *slave, uint32_t number,
		      uint32_t size, pair_keys *out);
qg_err net_fetch(core_net *n, unsigned at, const char *master, const char *slave, const qg_uuid *ids, size_t number,
		 pair_keys *out);
/* Issues at `from` for the first SAE of `to` and fetches there; true when both
 * hold the same. */
bool net_deliver(core_net *n, unsigned from, unsigned to, uint32_t number, uint32_t size);
/* Whether the bytes stand in any file below the network's or one node's folder. */
bool net_on_disk(const core_net *n, const void *bytes, size_t len);
bool node_on_disk(const core_node *e, const void *bytes, size_t len);

#endif
