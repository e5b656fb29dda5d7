/* SPDX-License-Identifier: Apache-2.0 */
/* Get key (ETSI GS QKD 014, 5.3). */
#include <stdlib.h>
#include <string.h>

#include "etsi014_internal.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/log.h"

/* What the keystore needs until it is done: master, slave and additional slaves stand
 * in the same block, because views into the HTTP request end with it. */
typedef struct enc_job {
	qg_014_late late; /* first */
	qg_issue_request req;
	bool asks_hops;
	const char *strings[]; /* additional slaves; their text follows */
} enc_job;

static void
on_issued(void *ctx, qg_issue_result *result)
{
	enc_job *job = ctx;
	const qg_issue_request *req = &job->req;
	const qg_014_hops hops = {.of = result->hops, .all = job->asks_hops};
	qg_err err = result->err;
	if (err == QG_OK)
		err = qg_014_container(result->ids, req->number, result->keys, NULL, req->size_bytes, &hops,
				       &job->late.outcome.body);
	qg_secret_free(&result->keys);
	job->late.outcome.err = err;
	job->late.outcome.retry_after_s = result->retry_after_s;
	qg_014_audit(job->late.s, &(qg_014_key_event){
					  .method = QG_014_ENC,
					  .sae = job->late.sae,
					  .err = err,
					  .caller = req->master,
					  .other = req->slave,
					  .ids = result->err == QG_OK ? result->ids : NULL,
					  .n = result->err == QG_OK ? req->number : 0,
					  .size_bits = req->size_bytes * 8,
				  });
	qg_014_late_done(&job->late);
}

/* Copies a string to *at, and moves *at behind it. */
static const char *
keep(char **at, const char *s)
{
	const size_t len = strlen(s) + 1;
	char *copy = memcpy(*at, s, len);
	*at += len;
	return copy;
}

/* SAE IDs have at most QG_014_SAE_ID_MAX bytes, so no sum overflows. */
static enc_job *
job_new(const qg_014_call *call, const qg_014_enc_request *r)
{
	size_t text = strlen(call->master) + 1 + strlen(call->slave) + 1;
	for (size_t i = 0; i < r->n_extra; i++)
		text += strlen(r->extra[i]) + 1;
	enc_job *job = malloc(sizeof *job + r->n_extra * sizeof job->strings[0] + text);
	if (job == NULL)
		return NULL;
	char *at = (char *)(job->strings + r->n_extra);
	job->late.fini = NULL;
	job->asks_hops = r->asks_hops;
	job->req = (qg_issue_request){
		.master = keep(&at, call->master),
		.slave = keep(&at, call->slave),
		.extra = job->strings,
		.n_extra = r->n_extra,
		.number = r->number,
		.size_bytes = r->size_bits / 8,
		.max_age_ms = r->max_age_ms,
		.min_hops = r->min_hops,
		.max_hops = r->max_hops,
		.kme = call->other_home,
	};
	for (size_t i = 0; i < r->n_extra; i++)
		job->strings[i] = keep(&at, r->extra[i]);
	qg_014_late_init(&job->late, call);
	return job;
}

/* Additional slaves must exist and be allowed, wherever they live. One that
 * does not exist is a 400 whatever the policy says (docs/etsi014.md). */
static qg_err
check_extra(qg_014_call *call, const char *sae, uint32_t size_bits)
{
	const qg_config *cfg = qg_directory_config(call->s->parts.directory);
	const char *home = qg_directory_home(call->s->parts.directory, sae);
	if (home == NULL)
		return QG_014_REFUSE(&call->why, "additional_slave_SAE_IDs has an unknown SAE: %s",
				     qg_log_safe(sae));
	qg_policy_terms terms;
	if (qg_policy_pair(cfg, call->master, sae, &terms) != QG_OK)
		return QG_E_DENIED;
	if (strcmp(home, cfg->kme_id) != 0 && !(qg_kms_sae_fits(sae) && qg_kms_sae_fits(call->master)))
		return QG_014_REFUSE(&call->why,
				     "additional_slave_SAE_IDs: the KME of SAE %s can be told only of IDs of at "
				     "most %d printable ASCII characters",
				     qg_log_safe(sae), QG_KMS_SAE_MAX);
	if (size_bits < terms.min_key_bits || size_bits > terms.max_key_bits)
		return QG_014_REFUSE(&call->why,
				     "size must be from %lu to %lu bits for the additional slave SAE %s",
				     (unsigned long)terms.min_key_bits, (unsigned long)terms.max_key_bits,
				     qg_log_safe(sae));
	return QG_OK;
}

/* Limits, then the keystore. Answers. */
static void
issue(qg_014_call *call, qg_err parsed, const qg_014_enc_request *r)
{
	uint32_t retry_after_s = 0;
	qg_err err = parsed;
	for (size_t i = 0; err == QG_OK && i < r->n_extra; i++)
		err = check_extra(call, r->extra[i], r->size_bits);
	if (err == QG_OK)
		err = qg_014_take(call, r->number, &retry_after_s);
	enc_job *job = NULL;
	if (err == QG_OK) {
		job = job_new(call, r);
		err = job == NULL ? QG_E_NOMEM : QG_OK;
	}
	if (err != QG_OK) {
		qg_014_refuse(call, err, retry_after_s, NULL, 0);
		return;
	}
	qg_keystore_issue(call->s->parts.keystore, &job->req, on_issued, job);
	qg_014_late_wait(&job->late);
}

void
qg_014_get_enc(qg_http_request *http, void *ctx)
{
	qg_014_call call;
	if (qg_014_admit(ctx, http, QG_014_ENC, &call) != QG_OK)
		return;
	qg_014_arg args[QG_014_ARGS_MAX];
	qg_014_enc_request r;
	const qg_err err = qg_014_enc_query(args, qg_014_args(http, args), &call.terms, &r, &call.why);
	issue(&call, err, &r);
}

void
qg_014_post_enc(qg_http_request *http, void *ctx)
{
	qg_014_call call;
	if (qg_014_admit(ctx, http, QG_014_ENC, &call) != QG_OK)
		return;
	qg_014_enc_request r = {0};
	const char *body;
	size_t len;
	qg_err err = qg_014_posted(&call, &body, &len);
	if (err == QG_OK)
		err = qg_014_enc_body(body, len, &call.terms, call.master, call.slave, &r, &call.why);
	issue(&call, err, &r);
	qg_014_enc_fini(&r);
}
