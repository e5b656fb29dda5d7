/* SPDX-License-Identifier: Apache-2.0 */
/* Transferred keys one by one, for operators. */
#include <stdio.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "transfer_internal.h"

#define SCAN_BUCKETS 1024 /* looked at under one lock */

static const char *const states[] = {
	[QG_TRANSFER_PREPARED] = "prepared", [QG_TRANSFER_OFFERED] = "offered", [QG_TRANSFER_HELD] = "held",
	[QG_TRANSFER_RELEASED] = "released", [QG_TRANSFER_VOIDING] = "voiding", [QG_TRANSFER_VOIDED] = "voided",
	[QG_TRANSFER_EXPIRED] = "expired",   [QG_TRANSFER_FAILED] = "failed",
};
static const char *const target_states[] = {
	[QG_TARGET_PENDING] = "pending", [QG_TARGET_RELAYED] = "relayed", [QG_TARGET_DELIVERED] = "delivered",
	[QG_TARGET_VOIDED] = "voided",
};

static void
show(const qg_transfers *t, const qg_transfer *x, uint64_t now_ms, qg_transfer_view *out)
{
	const uint64_t clock_ms = qg_transfer_clock(t, x, now_ms);
	*out = (qg_transfer_view){.row = x->row, .id = x->id, .state = states[x->state], .size_bytes = x->size_bytes,
				  .has_value = x->sealed != NULL, .n_targets = x->n_targets,
				  .age_ms = qg_clock_elapsed_ms() - x->born_ms,
				  .left_ms = x->expiry_ms > clock_ms ? x->expiry_ms - clock_ms : 0};
	(void)snprintf(out->initiator, sizeof out->initiator, "%s", x->initiator);
	(void)snprintf(out->origin, sizeof out->origin, "%s", x->origin != NULL ? x->origin : "");
	for (size_t i = 0; i < x->n_targets && i < QG_TRANSFER_TARGETS_SHOWN; i++) {
		const target *to = &x->targets[i];
		(void)snprintf(out->target[i].sae, sizeof out->target[i].sae, "%s", to->sae);
		(void)snprintf(out->target[i].home, sizeof out->target[i].home, "%s", to->home != NULL ? to->home : "");
		out->target[i].state = target_states[to->state];
	}
}

/* Puts it where its row belongs, if it is one of the first. */
static size_t
place(const qg_transfers *t, const qg_transfer *x, uint64_t now_ms, qg_transfer_view *out, size_t n, size_t most)
{
	size_t at = n;
	if (n == most && x->row > out[n - 1].row)
		return n;
	while (at > 0 && out[at - 1].row > x->row)
		at--;
	const size_t moved = (n < most ? n : most - 1) - at;
	memmove(&out[at + 1], &out[at], moved * sizeof *out);
	show(t, x, now_ms, &out[at]);
	return n < most ? n + 1 : n;
}

size_t
qg_transfers_list(qg_transfers *t, int64_t after, uint64_t now_ms, qg_transfer_view *out, size_t most)
{
	size_t n = 0;
	bool more = most > 0;
	for (size_t at = 0; more;) {
		pthread_mutex_lock(&t->lock);
		for (size_t i = 0; i < SCAN_BUCKETS && at < t->n_buckets; i++, at++)
			for (const qg_transfer *x = t->buckets[at]; x != NULL; x = x->next)
				if (x->row > after)
					n = place(t, x, now_ms, out, n, most);
		more = at < t->n_buckets;
		pthread_mutex_unlock(&t->lock);
	}
	return n;
}
