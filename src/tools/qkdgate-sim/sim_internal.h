/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_SIM_INTERNAL_H
#define QKDGATE_SIM_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "qkdgate/etsi004.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

/* One end of a simulated QKD link. Locks: one, sim->lock, never held over a
 * wait on the network. */

#define SIM_CHUNK_MAX 4096u      /* bytes */
#define SIM_CHUNK_DEFAULT 32u
#define SIM_KEEP_CHUNKS 16384u   /* consumed ones that stay readable, at least */
#define SIM_STORE_BYTES ((size_t)64 << 20) /* unread key of one stream, at most */
#define SIM_STREAMS_MAX 1024
#define SIM_CONNECTIONS_MAX 256
#define SIM_BLOCK 256u           /* chunks in one block of memory */

/* --- options.c -------------------------------------------------------------- */

typedef struct sim_address {
	char host[256];
	unsigned port;
} sim_address;

typedef struct sim_options {
	sim_address listen, link;
	bool link_listens;      /* this end generates */
	const qg_etsi004_profile *profile; /* NULL: each connection its own */
	bool profile_given;
	bool push;              /* over the application's connection, where the profile can */
	sim_address push_to;    /* where the profile pushes over connections of its own */
	bool push_drop;         /* what is refused there is dropped, else pushed again */
	bool tls, require_client_certificate;
	qg_tls_files files;
	uint64_t rate_bps;      /* 0: as fast as possible */
	uint32_t latency_ms;
	uint32_t outage_every_s, outage_for_s; /* 0: none */
	uint32_t mismatch_every; /* chunks; 0: none */
	uint32_t store_chunks;
} sim_options;

/* 0: go on; 1: --help was answered; 2: wrong, said on stderr. */
int sim_options_parse(int argc, char **argv, sim_options *o);

/* --- state -------------------------------------------------------------------- */

/* 256 chunks in a row, as they came; a wrong bit is put in when one is read. */
typedef struct sim_block {
	qg_secret *keys;
	uint64_t ready_ms[SIM_BLOCK]; /* from when on each can be read here */
	bool flipped[SIM_BLOCK];
} sim_block;

/* A key stream. It is known from the first OPEN_CONNECT at either end until
 * both have closed it. */
typedef struct sim_stream {
	struct sim_stream *later;
	qg_uuid ksid;
	char source[QG_ETSI004_URI_MAX + 1];
	char destination[QG_ETSI004_URI_MAX + 1];
	char mimetype[QG_ETSI004_MIMETYPE_MAX + 1];
	qg_etsi004_qos qos;       /* its mimetype is the member above */
	bool here, there;         /* open at this end, at the other */
	bool there_closed;        /* was open there and has been closed */
	uint64_t used_ms;         /* last request about it here */

	uint64_t first, next;     /* the chunks held: first <= index < next */
	uint64_t mark;            /* all below have been read here, or passed over */
	uint64_t there_next, there_mark; /* the same of the other end, as told */
	uint64_t sent;            /* all below are sent to the other end, or need not be */
	uint64_t told_next, told_mark;
	bool tell_open, tell_closed;
	bool for_good;            /* with tell_closed: by CLOSE, not by a call that failed */
	sim_block **blocks;       /* ring: chunk i in blocks[i / SIM_BLOCK % n_blocks] */
	size_t n_blocks;
	uint64_t store;           /* unread chunks at most */
} sim_stream;

typedef struct sim {
	sim_options opt;
	pthread_mutex_t lock;
	pthread_cond_t changed;   /* key, peers, outages: for waiting applications */
	pthread_cond_t work;      /* for the link's writer */
	bool stopping;
	bool outage, outage_there;
	bool tell_outage;
	bool linked;              /* hello and state went both ways */
	bool link_writing;        /* the writer is using link_fd */
	int link_fd;              /* -1: none */
	sim_stream *streams;
	size_t n_streams;
	uint64_t arrived;         /* chunks, for mismatch_every */
	unsigned flips_due;       /* SIGUSR1 */
	uint64_t tokens, tokens_ms; /* of the secret key rate, thousandths of a bit */
} sim;

qg_err sim_init(sim *s, const sim_options *o);
void sim_fini(sim *s);
/* A time-out for the condition variables above. */
struct timespec sim_until(uint64_t elapsed_ms);

/* --- streams.c: call with the lock held unless said otherwise ------------------- */

sim_stream *sim_stream_find(sim *s, const qg_uuid *ksid);
/* NULL without memory. The strings of qos are copied. */
sim_stream *sim_stream_new(sim *s, const qg_uuid *ksid, const qg_etsi004_qos *qos, const char *source,
			   const char *destination);
/* Frees what is neither open here nor there nor has anything to be told. */
void sim_stream_settle(sim *s, sim_stream *st);
/* Drops all chunks. */
void sim_stream_clear(sim_stream *st);
/* for_good: the application said CLOSE; else its OPEN_CONNECT has failed. */
void sim_stream_close_here(sim *s, sim_stream *st, bool for_good);

/* Room for chunks from st->next on that lie in one block: their number, at most
 * `want`, and where they go; 0 without memory. sim_stream_added makes them count. */
uint32_t sim_stream_room(sim_stream *st, uint32_t want, uint8_t **to);
void sim_stream_added(sim *s, sim_stream *st, uint32_t count);
/* The next run of chunks in one block that the other end has not got. */
uint32_t sim_stream_unsent(const sim_stream *st, uint32_t most, const uint8_t **from);
/* Drops what is read at both ends and beyond what is kept, and what is too old. */
void sim_stream_trim(sim_stream *st, uint64_t now_ms);

/* --- calls.c: the calls of ETSI GS QKD 004 (take the lock) ---------------------- */

#define SIM_WOULD_WAIT 0xffffffffu

/* In the way of the profile, where profiles differ. */
void sim_open(sim *s, const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_etsi004_response *a);
/* The chunk goes into key (room SIM_CHUNK_MAX). May answer SIM_WOULD_WAIT as
 * status unless may_wait. */
void sim_get(sim *s, const qg_etsi004_request *q, uint64_t received_ms, bool may_wait, qg_secret *key,
	     uint32_t *age_ms, bool *metadata, qg_etsi004_response *a);
void sim_close(sim *s, const qg_etsi004_request *q, qg_etsi004_response *a);

/* --- link.c, link_messages.c, produce.c: the other end --------------------------- */

void *sim_link_main(void *sim_);   /* connects or accepts, and reads */
void *sim_writer_main(void *sim_); /* produces and writes */

/* Wakes link threads that wait for the network. */
void sim_link_cut(sim *s);

/* Appends what there is to tell; with the lock held. */
void sim_messages_put(sim *s, qg_writer *w);
void sim_messages_put_hello(qg_writer *w);
/* Forgets what was told and marks everything to be told (lock held). */
void sim_messages_restart(sim *s);
/* Takes one whole message; takes the lock. QG_E_PROTO. */
qg_err sim_message_take(sim *s, const uint8_t *p, size_t n) QG_CHECKED;
/* The length of the message at p, or 0 when n bytes do not tell; over
 * SIM_MESSAGE_MAX when it is too long. */
size_t sim_message_length(const uint8_t *p, size_t n);
#define SIM_MESSAGE_MAX ((size_t)128 << 10)
#define SIM_HELLO_SIZE 13

/* Makes new key for all streams that may have some (lock held). Returns
 * whether any may, so that it pays to come back soon. */
bool sim_produce(sim *s, uint64_t now_ms);

/* --- push.c: key to a listener of the application's ------------------------------- */

#define SIM_PUSHERS_MAX 64

typedef struct sim_pushers sim_pushers;
qg_err sim_pushers_new(sim *s, sim_pushers **out) QG_CHECKED;
/* Stops and frees all. */
void sim_pushers_free(sim_pushers **p);
/* From now on the stream's chunks are pushed from this index on. A status. */
uint32_t sim_push_from(sim_pushers *p, const qg_etsi004_profile *profile, const qg_uuid *ksid, uint32_t index);

/* --- serve.c: the 004 server ------------------------------------------------------ */

typedef struct sim_server sim_server;
qg_err sim_server_start(sim *s, sim_server **out) QG_CHECKED;
void sim_server_stop(sim_server **server);

/* --- sockets.c --------------------------------------------------------------------- */

/* A listening socket, or -1 with errno. */
int sim_socket_listen(const sim_address *a);
int sim_socket_connect(const sim_address *a);

#endif
