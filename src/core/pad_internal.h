/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_PAD_INTERNAL_H
#define QKDGATE_PAD_INTERNAL_H

#include "core_internal.h"

/* Node key of a stream (SOUNDNESS 6, 16): pads and one-time MAC keys, taken
 * byte by byte from segments whose authenticated use is "pad" or "mac". The two
 * never mix: who knows the key that a lost message carried, and saw the message,
 * knows bytes of its pad that the receiver has not spent, and could name them as
 * the MAC key of a forged message. So a message's first 64 bytes are of MAC
 * segments, the others of pad segments, and peek refuses anything else.
 *
 * A node segment rests sealed in the store until its first byte is wanted. Then
 * it is *opened*: deleted from the store, with the anchor synced, and only then
 * used, from memory alone. So no crash, copy or old database can bring a used
 * byte back: what was open at a crash is lost, at most a segment or two and as
 * many as are opened at once (pad_pace), and counted. The owner of the segment opens it
 * to send, the far end to receive.
 * Every byte is used in at most one message and wiped with its use.
 *
 * All functions but _step: under the stream's lock, without waiting. */

typedef struct qg_pads qg_pads;

qg_err qg_pads_new(qg_stream *st) QG_CHECKED; /* sets st->pads; without a lock, at start */
void qg_pads_free(qg_stream *st);

/* --- as owner ------------------------------------------------------------- */

/* What the next complete segment of ours is to be: node key while less than
 * node_chunks is ready or coming and the applications' pool is full, or by
 * node_percent in turns with it while both are short. Of node key a segment for
 * MACs whenever less than one is ready or coming, or less than 1/8 of
 * node_chunks, else one for pads. The first segment of a direction brings the
 * key-ID root and is for applications. */
qg_segment_use qg_pads_choose_use(qg_stream *st, const qg_epoch *e);

/* Whether intake should go on although the applications' pool is full. */
bool qg_pads_want(const qg_stream *st);

/* A node segment, of ours or of theirs, was confirmed or restored: it counts
 * from now on. And: it left its epoch (qg_epoch_remove). */
void qg_pads_confirmed(qg_segment *s);
void qg_pads_left(qg_segment *s);

/* The far end said that it has no room for the node segment on offer. True: it
 * said so long enough, the segment is to be given up, and for a while none is
 * made, so that the applications' segments go on. */
bool qg_pads_far_full(qg_stream *st);

/* Likewise for an application segment, while node key is short: keys that nobody
 * fetches at the far end must not keep the links from relaying. Until then
 * (qg_pads_app_held) no application segment is offered. */
bool qg_pads_app_full(qg_stream *st);
bool qg_pads_app_held(const qg_stream *st);

/* The neighbour answered get_status: what was restored may be used. Before, a
 * store that was put back together with its anchor would not be noticed. */
void qg_pads_agreed(qg_stream *st);

/* Whether a segment of ours is here unused although the neighbour saw one of
 * that use and a higher number used: the store is an old one (SOUNDNESS 9). */
bool qg_pads_rolled_back(const qg_epoch *e, uint32_t seen_mac, uint32_t seen_pad);

/* Reads seen_mac and seen_pad of an epoch that was restored. Without locks, at
 * start. */
qg_err qg_pads_load_seen(qg_epoch *e, qg_store *store) QG_CHECKED;
/* What was stored of them, with the row of an epoch that is deleted. In the
 * transaction that deletes it. */
qg_err qg_pads_forget_seen(int64_t epoch_row, qg_store *store) QG_CHECKED;

/* Opens what will soon be wanted. Called by the conductor, without the lock. */
void qg_pads_step(qg_stream *st);

/* The gateway stops: who waits in qg_pads_take is to be told QG_E_CLOSED by the
 * caller, without locks. */
qg_waiter *qg_pads_stop(qg_stream *st) QG_CHECKED;

/* Pad bytes that can be taken now (0 while no MAC keys can); and with those in
 * segments not yet open. */
uint64_t qg_pads_open_bytes(const qg_stream *st);
uint64_t qg_pads_ready_bytes(const qg_stream *st);

/* What a message was masked with. */
typedef struct qg_pad_use {
	size_t n;
	qg_kms_pad pad[QG_KMS_PADS_MAX];
	uint32_t oldest_mac, oldest_pad, opened_pad; /* as of qg_kms_masked */
} qg_pad_use;

/* Takes QG_KMS_MAC_OVERHEAD bytes of MAC key, then data_len bytes of pad, in
 * order; they are appended to *out (a new secret) and wiped here. QG_E_EMPTY:
 * not so much is open (more is being opened where there is any; w, if not NULL,
 * is then called once, without locks, when more was opened or failed to be,
 * which may take for ever where nothing is ready: compare with
 * qg_pads_ready_bytes; with QG_E_CLOSED at a stop). QG_E_CLOSED: the gateway
 * stops, w is not called. QG_E_RANGE: it would take more ranges than a message
 * has. QG_E_INVAL: data_len is more than QG_KMS_DATA_MAX. */
qg_err qg_pads_take(qg_stream *st, size_t data_len, qg_pad_use *use, qg_secret **out,
		    qg_waiter *w) QG_CHECKED;

/* After QG_E_EMPTY, under the same hold of the lock: waits for the opening that
 * is under way, which ends soon. QG_OK: w is called then, as above. QG_E_EMPTY:
 * none is. */
qg_err qg_pads_wait(qg_stream *st, qg_waiter *w) QG_CHECKED;

/* The message was answered, or failed: its segments need not stay named for it. */
void qg_pads_settle(qg_stream *st, const qg_pad_use *use);

/* The far end has no such node key: the segments named are given up. */
void qg_pads_disown(qg_stream *st, const qg_pad_use *use);

/* --- as far end ------------------------------------------------------------ */

/* Copies the bytes that pad[] names into a new secret; consumes nothing.
 * QG_E_NOTFOUND: no such node segment of the neighbour here (any more);
 * QG_E_CONSUMED: one of the bytes was used before; QG_E_INVAL: a range beyond
 * its segment, an empty one, one given twice, or of the wrong use. */
qg_err qg_pads_peek(qg_stream *st, const qg_kms_pad *pad, size_t n, qg_secret **out) QG_CHECKED;

/* After the MAC verified. QG_OK: all segments named are open. QG_E_AGAIN: they
 * are being opened, and w is called afterwards, without locks, with the
 * outcome. QG_E_NOTFOUND as above. Where pads are used up fast, some of those are
 * opened with them that the sender says to have open (opened_pad, as of
 * qg_kms_masked), so that most messages find theirs open. */
qg_err qg_pads_open(qg_stream *st, const qg_kms_pad *pad, size_t n, uint32_t opened_pad, qg_waiter *w) QG_CHECKED;

/* Uses them up: wiped, never accepted again; and destroys what the sender names
 * as spent (oldest_*). QG_E_CONSUMED when one of them was used meanwhile,
 * QG_E_NOTFOUND when one was given up or is not open: then nothing changed. */
qg_err qg_pads_spend(qg_stream *st, const qg_kms_pad *pad, size_t n, uint32_t oldest_mac,
		     uint32_t oldest_pad) QG_CHECKED;

/* Chunks of the neighbour's node segments held here, opened ones included. */
uint64_t qg_pads_held(const qg_stream *st);

/* The epoch of these segments is destroyed (NULL: all are), or they expired
 * (flush.c). Stored ones are deleted, too. */
void qg_pads_forget_epoch(qg_stream *st, const uint8_t *epoch);
void qg_pads_expire(qg_stream *st);

/* --- accounts ---------------------------------------------------------------- */

/* To the byte, since the start. Of what was opened: used in messages, given up
 * (tails, crashes of the far end, expiry), still open. */
typedef struct qg_pad_account {
	uint64_t opened, used, given_up, open;
	uint64_t data;     /* of used: masked key */
	uint64_t overhead; /* of used: one-time MAC keys */
	uint64_t messages;
} qg_pad_account;

void qg_pads_account(const qg_stream *st, bool ours, qg_pad_account *out);

/* Logs both accounts when they changed (event=pads), at most every 10 s, and at
 * the end of the stream. */
void qg_pads_tell(qg_stream *st, uint64_t now_ms, bool at_end);

#endif
