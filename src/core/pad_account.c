/* SPDX-License-Identifier: Apache-2.0 */
#include "core_internal.h"
#include "pad_parts_internal.h"
#include "qkdgate/log.h"

/* Accounts of node key: every byte that was opened is used, given up or open. */

#define TELL_MS 10000

void
qg_pads_count_message(qg_pad_account *a, size_t data_len)
{
	a->used += QG_KMS_MAC_OVERHEAD + data_len;
	a->overhead += QG_KMS_MAC_OVERHEAD;
	a->data += data_len;
	a->messages++;
}

void
qg_pads_account(const qg_stream *st, bool ours, qg_pad_account *out)
{
	*out = st->pads->account[ours];
	out->open = out->opened - out->used - out->given_up;
}

static void
tell_side(qg_stream *st, bool ours)
{
	qg_pad_account a;
	qg_pads_account(st, ours, &a);
	uint64_t seen = a.opened + a.used + a.given_up; /* each only grows */
	if (seen == st->pads->told[ours])
		return;
	st->pads->told[ours] = seen;
	qg_log(QG_LOG_INFO, "stream",
	       "event=pads stream=%s side=%s opened=%llu used=%llu data=%llu overhead=%llu given_up=%llu "
	       "open=%llu messages=%llu",
	       st->cfg->name, ours ? "owner" : "far_end", (unsigned long long)a.opened,
	       (unsigned long long)a.used, (unsigned long long)a.data, (unsigned long long)a.overhead,
	       (unsigned long long)a.given_up, (unsigned long long)a.open, (unsigned long long)a.messages);
}

void
qg_pads_tell(qg_stream *st, uint64_t now_ms, bool at_end)
{
	if (!at_end && now_ms - st->pads->told_ms < TELL_MS)
		return;
	st->pads->told_ms = now_ms;
	tell_side(st, true);
	tell_side(st, false);
}
