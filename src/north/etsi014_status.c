/* SPDX-License-Identifier: Apache-2.0 */
#include "etsi014_internal.h"

void
qg_014_status_of(const qg_014_call *call, qg_014_status *out)
{
	const uint64_t key_bytes = call->terms.default_key_bits / 8;
	const uint64_t max_count = key_bytes == 0 ? 0 : call->level.max_bytes / key_bytes;
	const uint64_t stored_count = key_bytes == 0 ? 0 : call->level.stored_bytes / key_bytes;
	*out = (qg_014_status){
		.source_kme = call->s->parts.cfg->kme_id,
		.target_kme = call->other_home,
		.master = call->master,
		.slave = call->slave,
		.key_size = call->terms.default_key_bits,
		.stored_key_count = stored_count < max_count ? stored_count : max_count,
		.max_key_count = max_count,
		.max_key_per_request = call->terms.max_keys,
		.max_key_size = call->terms.max_key_bits,
		.min_key_size = call->terms.min_key_bits,
		.max_sae_id_count = call->terms.max_extra_slaves,
	};
}

void
qg_014_get_status(qg_http_request *http, void *ctx)
{
	qg_014_call call;
	if (qg_014_admit(ctx, http, QG_014_STATUS, &call) != QG_OK)
		return;
	qg_014_arg args[QG_014_ARGS_MAX];
	const size_t n = qg_014_args(http, args);
	const qg_err err = qg_014_no_query(args, n, &call.why);
	if (err != QG_OK) {
		qg_014_refuse(&call, err, 0, NULL, 0);
		return;
	}
	qg_014_status st;
	qg_014_status_of(&call, &st);
	qg_014_answer_status(http, &st);
}
