/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "app_stream_internal.h"

/* Who may have a key stream, judged again whenever SAEs, URIs or policy are
 * others than before: an application that may not any more is treated as if it
 * had called CLOSE. */

/* No longer an SAE here, or the URI is no longer its own. */
static bool
end_stands(const qg_as_stream *st, const qg_as_end *end)
{
	const qg_config_sae *sae = qg_directory_local(st->all->core->part.directory, end->sae);
	return sae != NULL && qg_as_accepts(sae, end->uri);
}

static bool
pair_stands(const qg_as_stream *st)
{
	const char *one = st->end[0].sae, *other = st->end[1].sae;
	const uint32_t bits = st->qos.chunk_size * 8;
	qg_policy_terms terms;
	/* Of the other KME's application nothing is known before that answered. */
	if (other[0] == '\0' || strcmp(one, other) == 0)
		return true;
	return qg_as_policy(st->all->core, one, other, &terms) == QG_OK && bits >= terms.min_key_bits &&
	       bits <= terms.max_key_bits;
}

static void
refuse_opens(qg_as_stream *st, unsigned end, qg_as_done *done)
{
	qg_as_call *next;
	for (qg_as_call *call = st->calls; call != NULL; call = next) {
		next = call->next;
		if (call->get || call->end != end)
			continue;
		qg_as_call_leave(st, call);
		qg_as_refuse(call, QG_ETSI004_NO_CONNECTION, done);
	}
}

void
qg_as_judge_rights(qg_as_stream *st, qg_as_done *done)
{
	const uint64_t version = qg_directory_version(st->all->core->part.directory);
	if (st->rights_version == version || st->ended)
		return;
	st->rights_version = version;
	const bool pair = pair_stands(st);
	for (unsigned e = 0; e < (qg_as_local(st) ? 2u : 1u) && !st->ended; e++) {
		if (st->end[e].state != QG_AS_OPEN || (pair && end_stands(st, &st->end[e])))
			continue;
		qg_as_audit(st, e, QG_AUDIT_REFUSED, "may not have its key stream any more");
		qg_as_log(st, "right_ended");
		refuse_opens(st, e, done);
		qg_as_withdraw(st, e, done);
	}
}

bool
qg_as_suspended(const struct qg_app_streams *all, const char *sae, const char *other)
{
	return all->suspended != NULL && all->suspended(all->suspended_ctx, sae, other);
}

void
qg_app_streams_heed(qg_app_streams *all, qg_app_suspended_fn *suspended, void *ctx)
{
	pthread_mutex_lock(&all->lock);
	all->suspended = suspended;
	all->suspended_ctx = ctx;
	pthread_mutex_unlock(&all->lock);
}
