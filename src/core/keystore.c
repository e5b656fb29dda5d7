/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "core_internal.h"

/* The stock towards a KME; keys go out in keystore_issue.c and
 * keystore_fetch.c. */

/* Expired segments stand first and are counted until the housekeeping comes
 * round: not here. */
uint64_t
qg_keystore_chunks_ready(const qg_stream *st)
{
	uint64_t n = st->ready;
	for (const qg_epoch *e = st->newest; e != NULL; e = e->older) {
		const qg_segment *oldest = qg_epoch_first_to_end(e, true);
		if (oldest == NULL || !qg_segment_expired(oldest))
			continue;
		uint32_t from = e->issue_from > e->base ? e->issue_from - e->base : 0;
		for (uint32_t i = from; i < e->n_seg; i++) {
			const qg_segment *s = e->seg[i];
			if (s == NULL || !s->ours || s->phase != QG_SEG_CONFIRMED ||
			    s->use != QG_USE_APPLICATION)
				continue;
			if (!qg_segment_expired(s))
				break;
			n -= s->hi - s->cursor;
		}
	}
	return n;
}

void
qg_keystore_level_of(qg_keystore *ks, const char *kme, qg_keystore_level *out)
{
	struct qg_core *core = ks->core;
	qg_keystore_level l = {.known = strcmp(kme, core->part.cfg->kme_id) == 0};
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		if (st->cfg->direction == QG_DIRECTION_INBOUND || strcmp(st->neighbour->id, kme) != 0)
			continue;
		uint32_t most = qg_segment_max_key_bytes(st->cfg->chunk_size, st->cfg->segment_chunks);
		l.known = true;
		l.max_bytes += (uint64_t)core->part.cfg->ready_chunks * st->cfg->chunk_size;
		l.max_key_bytes = most > l.max_key_bytes ? most : l.max_key_bytes;
		pthread_mutex_lock(&st->lock);
		l.stored_bytes += qg_keystore_chunks_ready(st) * st->cfg->chunk_size;
		pthread_mutex_unlock(&st->lock);
	}
	const bool peer = qg_transfer_is_peer(kme);
	l.known |= peer;
	if (peer || strcmp(kme, core->part.cfg->kme_id) == 0) {
		/* Keys for a pair on this node, or for another network, are drawn when asked for. */
		uint64_t records = qg_transfers_keys(core->transfers), most = core->part.cfg->inbound_chunks;
		l.max_bytes = most * 32;
		l.stored_bytes = records < most ? (most - records) * 32 : 0;
		l.max_key_bytes = 4095;
	}
	*out = l;
}

void
qg_keystore_gather(qg_keystore *ks, bool on)
{
	qg_committer_gather(ks->core->committer, on);
}
