/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_MULTICAST_INTERNAL_H
#define QKDGATE_MULTICAST_INTERNAL_H

#include "interop_internal.h"
#include "records_internal.h"
#include "relay_internal.h"

#include "qkdgate/request_id.h"

/* One request whose targets live at several nodes or behind peers: of a master
 * here; or keys that another KME brought and that go on (`from`). */

typedef enum qg_mc_phase {
	QG_MC_PREPARING, /* the records are being written */
	QG_MC_SENDING,   /* durable; the homes are being told */
	QG_MC_RELEASING, /* every home holds all of it; that is being written */
	QG_MC_VOIDING,   /* it failed; that is being written */
	QG_MC_ENDED      /* answered */
} qg_mc_phase;

typedef struct qg_mc qg_mc;

/* What one home is to hold. Whoever has the flight has all of it but `held`
 * and `got`. */
typedef struct qg_mc_part {
	qg_mc *op;
	const qg_config_peer *peer; /* it is of another network; NULL: a node of this one */
	bool *got;      /* peer: keys that it said it has; under the lock */
	uint32_t taken; /* peer: keys that it accepted, the first ones */
	bool flight;      /* a message is being made or under way; under the lock */
	bool told;        /* one was handed to the channel: the home may hold some; under the lock */
	uint64_t due_ms;  /* not before; under the lock */
	uint32_t held;    /* keys that the home holds for sure; under the lock */
	uint32_t n;       /* in the message */
	uint32_t most;    /* in one message */
	unsigned refusals;
	qg_stream *link;
	qg_pad_use use;
	qg_secret *answer_key;
	qg_kms_make m;
} qg_mc_part;

#define QG_MC_WHY_MAX 160

struct qg_mc {
	qg_job job; /* first */
	qg_mc *next;
	struct qg_core *core;
	qg_issue_done *done;
	void *ctx;
	qg_request_id request; /* who asked */
	qg_mc_phase phase;
	unsigned flights;
	uint64_t deadline_ms;
	uint32_t number, max_hops;
	uint32_t *size;       /* bytes of each key */
	size_t *at;           /* where it begins in keys */
	bool abroad;          /* a target is of another network */
	qg_ix_from *from;     /* another KME brought them; NULL: issued here */
	char why[QG_MC_WHY_MAX]; /* it failed */
	const char *why_home; /* of the configuration, or NULL */
	qg_secret *keys;
	qg_uuid *ids;
	qg_transfer **x;
	uint32_t n_x;
	size_t n_parts;
	qg_mc_part **part;
};

struct qg_multicast {
	pthread_mutex_t lock; /* guards the list and phases; streams' locks are never taken under it */
	bool stopping;
	qg_mc *ops;
};

/* multicast_part.c: sends a part's next message; the caller took the flight. */
void qg_mc_part_send(qg_mc_part *p);

/* multicast.c, for the parts, without locks. Each gives the flight back. */
void qg_mc_part_held(qg_mc_part *p, uint32_t n);
void qg_mc_part_rest(qg_mc_part *p, uint64_t due_ms);
void qg_mc_part_failed(qg_mc_part *p, const char *why);
/* Notes that the home may hold keys from now on. False: the request failed
 * meanwhile, nothing is to be sent. */
bool qg_mc_part_tells(qg_mc_part *p);
/* A peer refuses, and holds nothing of what it has not accepted before. */
void qg_mc_part_refused(qg_mc_part *p, const char *why);

/* multicast_peer.c: the same for a peer. */
void qg_mc_peer_send(qg_mc_part *p);
/* A peer has these keys for its targets. */
void qg_mc_part_got(qg_mc_part *p, const uint32_t *at, size_t n);
/* The part that goes to a peer, or NULL. */
qg_mc_part *qg_mc_part_of(qg_mc *op, const char *home);

/* multicast.c, for multicast_adopt.c. */
qg_err qg_mc_room(qg_mc *op, uint32_t number, size_t n_to) QG_CHECKED;
qg_err qg_mc_add_targets(qg_mc *op, const char *initiator, const qg_transfer_to *to, size_t n_to) QG_CHECKED;
/* The first failure in that phase ends it, and whoever finds it makes it void. */
void qg_mc_fail(qg_mc *op, qg_mc_phase from, const char *why, const char *home);
/* It is answered; who waits is told. */
void qg_mc_end(qg_mc *op, qg_ix_end how);
/* Its records can be found by it, or (NULL) no more. */
void qg_mc_mark(qg_mc *op, void *as);
void qg_mc_free(qg_mc *op);

/* multicast_adopt.c: what a stop does to a request under way; and until when it
 * may take, at most wait_ms. */
void qg_mc_stop(qg_mc *op);
uint64_t qg_mc_deadline(const qg_mc *op, uint32_t wait_ms);

/* Keeps a request from being freed; and lets it go on or end. */
void qg_mc_hold(qg_mc *op); /* under the lock */
void qg_mc_let(qg_mc *op);

/* What both sides share. */
void qg_make_canonical(const void *message, qg_writer *w);
void qg_make_answer_mac(const uint8_t key[QG_MAC_KEY_BYTES], const uint8_t request_mac[QG_MAC_BYTES],
			const qg_kms_make_answer *a, uint8_t mac[QG_MAC_BYTES]);

#endif
