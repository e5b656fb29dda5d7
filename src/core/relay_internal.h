/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_RELAY_INTERNAL_H
#define QKDGATE_RELAY_INTERNAL_H

#include "core_internal.h"
#include "pad_internal.h"
#include "routes_internal.h"

/* Relaying (DESIGN, idea 4; SOUNDNESS 16 and 17; docs/relay.md). Three roles:
 *
 * source (relay_source.c): the owner of a virtual stream. A segment of it is
 *   drawn, sealed and stored like any other (offer.c); before its new_key_batch
 *   is sent, its chunks travel to the far end in batches, each a forward_keys
 *   under fresh node key, over one route or a share over each of several. Only
 *   the far end's confirmation makes it usable.
 * hop (relay_hop.c): takes the mask of the link before off and puts that of the
 *   link behind on in one step, so that the key in between never stands in
 *   memory; passes the answer back. Keeps nothing.
 * target (relay_target.c): gathers the batches (the XOR of the shares) in a
 *   filling segment of the virtual stream's epoch, for accept.c to confirm.
 *
 * masked.c: what all of them and make_keys_external share: masking a message
 * with node key of a stream, verifying and unmasking, answers' MACs. */

/* --- relay.c: what the node keeps besides: quotas, who answers wrongly, counts --- */

qg_err qg_relay_new(struct qg_core *core) QG_CHECKED; /* sets core->relay */
void qg_relay_free(struct qg_core *core);

/* Whether n bytes may be relayed for this neighbour and this virtual stream now. */
bool qg_relay_quota(struct qg_core *core, const char *neighbour, const char *source, const char *stream, size_t n);
/* The same for n bytes of keys that it hands over. */
bool qg_relay_neighbour_quota(struct qg_core *core, const char *neighbour, size_t n);

/* A message of a neighbour is taken for forged, replayed or misdirected: counted,
 * logged (within limits) and audited. */
void qg_relay_refused(struct qg_core *core, const char *neighbour, const char *stream, const char *why);

/* A neighbour's answer was verified, or could not be. The third wrong one in a
 * row isolates it: its link is marked (SOUNDNESS 17). */
void qg_relay_right(struct qg_core *core, const char *neighbour);
void qg_relay_wrong(struct qg_core *core, const char *neighbour, const char *why);

/* Keyed hash of a relayed chunk, to know it again (SOUNDNESS 16). */
#define QG_RELAY_DIGEST 16
void qg_relay_digest(struct qg_core *core, const uint8_t *chunk, size_t n, uint8_t out[QG_RELAY_DIGEST]);

/* Messages since the start, as a whole. */
typedef struct qg_relay_counts {
	uint64_t sent, delivered;          /* as source */
	uint64_t forwarded, forwarded_bytes; /* as hop: answered "delivered" */
	uint64_t taken, repeated;          /* as target: of which known before */
	uint64_t refused, wrong;           /* messages; answers of neighbours */
} qg_relay_counts;

void qg_relay_count(struct qg_core *core, size_t member, uint64_t n);
#define QG_RELAY_COUNT(core, member, n) qg_relay_count((core), offsetof(qg_relay_counts, member), (n))
void qg_relay_counts_get(struct qg_core *core, qg_relay_counts *out);

/* --- masked.c ---------------------------------------------------------------- */

/* The stream over which this gateway sends masked messages to a neighbour: one
 * that it owns (outbound or shared), the one with most node key open. With
 * `virtual_too` also a virtual one. NULL: none. Without locks. */
qg_stream *qg_masked_link(struct qg_core *core, const char *neighbour, bool virtual_too);

/* Fills m->masked for `data_len` bytes of `data` XORed with the pad: takes
 * 64 + data_len bytes of node key of `link` and locks it meanwhile. `again`
 * masks: data is masked already by the link before, and is unmasked with
 * `unmask` (data_len bytes) in the same step; NULL at the source. The canonical
 * bytes are made by `canonical`. The answer's key is kept in *answer_key.
 * Errors as of qg_pads_take. */
typedef void qg_masked_canonical(const void *message, qg_writer *w);
qg_err qg_masked_seal(qg_stream *link, void *message, qg_kms_masked *masked, qg_masked_canonical *canonical,
		      const uint8_t *data, size_t data_len, const uint8_t *unmask, qg_pad_use *use,
		      qg_secret **answer_key) QG_CHECKED;

/* The same; but where node key is being opened, w is called when it is, with
 * the outcome and without locks: QG_E_AGAIN, then call again. */
qg_err qg_masked_seal_or_wait(qg_stream *link, void *message, qg_kms_masked *masked, qg_masked_canonical *canonical,
			      const uint8_t *data, size_t data_len, const uint8_t *unmask, qg_pad_use *use,
			      qg_secret **answer_key, qg_waiter *w) QG_CHECKED;

/* The message was answered, or failed: its node key need not stay named. With
 * `disown` the neighbour has no such node key. Locks the link meanwhile. */
void qg_masked_settle(qg_stream *link, const qg_pad_use *use, bool disown);
/* Whether a result says that the two ends do not agree on what is left of the
 * segments named, so that they are given up. */
bool qg_masked_disowned(qg_kms_forward_result result);

/* The message came from `neighbour`: finds the link stream, verifies, opens and
 * spends. On QG_OK *keys holds the answer's key (32 bytes), then the pad for the
 * data. QG_E_AGAIN: w is called later, then call again. QG_E_NOTFOUND (no such
 * node key), QG_E_AUTH, QG_E_CONSUMED, QG_E_INVAL: nothing was consumed.
 * Counts, logs and audits what it refuses. */
qg_err qg_masked_open(struct qg_core *core, const char *neighbour, const void *message, const qg_kms_masked *masked,
		      qg_masked_canonical *canonical, qg_waiter *w, qg_secret **keys) QG_CHECKED;

/* The MAC of an answer, whose canonical bytes were written whole, under its
 * one-time key; and that of an answer to forward_keys. */
void qg_masked_answer_mac(const uint8_t key[QG_MAC_KEY_BYTES], const qg_writer *canonical,
			  uint8_t mac[QG_MAC_BYTES]);
void qg_masked_forward_mac(const uint8_t key[QG_MAC_KEY_BYTES], const uint8_t request_mac[QG_MAC_BYTES],
			   const qg_kms_forward_answer *a, uint8_t mac[QG_MAC_BYTES]);
void qg_masked_forward_canonical(const void *message, qg_writer *w);

/* --- relay_source.c: under the lock of an outbound virtual stream --------------- */

qg_err qg_relay_out_new(qg_stream *st) QG_CHECKED;
void qg_relay_out_free(qg_stream *st);
/* A new segment was put on offer: it is to be relayed. One that a start found
 * stored is first offered as it is, since the far end may hold it. */
void qg_relay_out_begin(qg_stream *st);
/* What is due of the segment on offer is sent by the conductor. True: all of it is at the far end
 * (or there is nothing to relay), so that new_key_batch may be sent. */
bool qg_relay_out_step(qg_stream *st, uint64_t now_ms);
/* The far end says "pending": what it had is lost; all is sent again. */
void qg_relay_out_again(qg_stream *st, uint64_t now_ms);
/* The segment on offer was confirmed or given up. */
void qg_relay_out_end(qg_stream *st, bool mismatch);
/* Trusted nodes that the segment on offer passed: the most of any route. False:
 * it went before a start, which way is not known. */
bool qg_relay_out_hops(const qg_stream *st, uint32_t *hops);
/* When a message is due next; 0: not by time. */
uint64_t qg_relay_out_due_ms(const qg_stream *st);
/* Sends what is due, on the conductor's thread, without locks: masking takes
 * the lock of the link's stream. */
void qg_relay_out_pump(qg_stream *st);

/* --- messages of neighbours, without locks ---------------------------------------- */

void qg_forward_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
			qg_peer_answer *answer, void *ctx); /* relay_hop.c; hands what is for us to the target */
/* relay_target.c: takes the unmasked chunks in. The result for the answer. */
qg_kms_forward_result qg_relay_take(struct qg_core *core, const qg_kms_forward *m, const qg_secret *data, size_t at);
void qg_relay_part_free(qg_segment *s);
void qg_report_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		       qg_peer_answer *answer, void *ctx); /* link_state.c */
qg_err qg_link_state_new(struct qg_core *core) QG_CHECKED; /* sets core->link_state */
void qg_link_state_free(struct qg_core *core);
/* "up", "down", "starving" to relaying; NULL: no neighbour with a real stream, or
 * no relaying here. */
const char *qg_link_state_of(struct qg_core *core, const char *id);
/* Tells the neighbours how our links are, when it changed or is due. */
void qg_link_state_step(struct qg_core *core, uint64_t now_ms);

/* multicast.c: keys with IDs of their own for SAEs of other nodes. */
void qg_make_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		     qg_peer_answer *answer, void *ctx);
void qg_delete_receive(struct qg_core *core, const char *neighbour, const char *body, size_t len,
		       qg_peer_answer *answer, void *ctx);

#endif
