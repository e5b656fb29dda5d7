/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CORE_COMMON_H
#define CORE_COMMON_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../../../src/core/core_internal.h"
#include "qkdgate/core.h"

/* What the harnesses of the core share (core_pair.h: two gateways, core_net.h:
 * a network of them): the clock, the store with faults, the 004 sources, keys
 * out and in, files. Included as a .c file by the harness. */

#define PAIR_CHUNK 32
#define PAIR_SEGMENT 64
#define PAIR_KEYS_MAX 1024
#define PAIR_WAIT_MS 90000

/* --- the clock: the system's with offsets ---------------------------------- */

extern _Atomic uint64_t pair_ahead_ms;     /* added to the elapsed time */
extern _Atomic int64_t pair_wall_ahead_ms; /* added to the wall clock */
void pair_clock(void);
void pair_nap(unsigned ms);
/* Sets up what the tests of a program share. */
int pair_init(void);

/* --- the store: the real one, with faults ------------------------------------ */

typedef enum pair_fault {
	FAULT_NONE,
	FAULT_FAILS,         /* the commit fails and has not happened */
	FAULT_UNKNOWN_DONE,  /* it happened, but nobody can tell */
	FAULT_UNKNOWN_UNDONE /* it did not happen, but nobody can tell */
} pair_fault;

typedef struct fault_store {
	qg_store store; /* first member */
	qg_store *inner;
	pthread_mutex_t gate; /* held from begin to commit; a test that holds it stops the committer */
	_Atomic int fault;    /* of the commits to come */
	atomic_uint commits, reseals;
} fault_store;

/* --- the sources --------------------------------------------------------------- */

/* What the 004 source of one stream does at one end. */
typedef struct pair_source {
	atomic_bool down;               /* status 2 */
	atomic_uint open_status;        /* OPEN_CONNECT is refused with it, unless 0 */
	_Atomic uint32_t bad_from, bad_to;   /* other key at these indexes */
	_Atomic uint32_t hole_from, hole_to; /* these indexes are never delivered */
	_Atomic uint32_t back_at;       /* at this index the index falls back once, unless 0 */
	atomic_bool loses;              /* GET_KEY of what was read before gives status 2 */
	_Atomic uint32_t generation;    /* another one has other key for the same KSID */
	_Atomic uint32_t stop_at;       /* no chunk from this index on, unless 0 */
	atomic_uint get_status;         /* the next GET_KEY is answered with it, unless 0 */
	_Atomic uint32_t rate;          /* chunks a second, unless 0 */
	atomic_uint opens, closes, probes;
} pair_source;

/* Where a session's chunks come from. */
typedef enum source_kind {
	SOURCE_LINK, /* both ends get the same: a function of seed, KSID and index */
	SOURCE_DRAWN /* random: the outbound end of a virtual stream */
} source_kind;

/* A 004 session of one stream at one end. */
typedef struct pair_session {
	qg_intake *in;
	pair_source *src;
	source_kind kind;
	uint64_t seed;
	uint32_t chunk_size;
	pthread_t thread;
	bool fell_back;
	double tokens; /* chunks that the rate allows now */
	uint64_t tokens_ms;
} pair_session;

void session_start(pair_session *s);
void session_join(pair_session *s);
/* What the source gives at an index. */
void source_chunk(uint64_t seed, uint32_t chunk_size, const qg_uuid *ksid, uint32_t generation, uint32_t index,
		  uint8_t *out);

/* --- keys ------------------------------------------------------------------------- */

typedef struct pair_keys {
	qg_err err;
	size_t n;
	uint32_t retry_after_s;
	size_t bytes;
	qg_uuid id[PAIR_KEYS_MAX];
	uint16_t size[PAIR_KEYS_MAX];
	uint32_t hops[PAIR_KEYS_MAX]; /* as issued */
	uint8_t *key;
	sem_t told;
	atomic_uint calls;
} pair_keys;

pair_keys *keys_new(void);
void keys_free(pair_keys **k);
/* Only begins; told counts. */
void keys_issue_begin(qg_core *core, const qg_issue_request *req, pair_keys *out);
void keys_fetch_begin(qg_core *core, const qg_fetch_request *req, pair_keys *out);
/* Waits for the answer. */
qg_err keys_wait(pair_keys *k);

/* --- files ------------------------------------------------------------------------- */

/* Whether the bytes stand in any file below the folder. */
bool folder_holds(const char *dir, const void *bytes, size_t n);

#endif
