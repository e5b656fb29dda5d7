/* SPDX-License-Identifier: Apache-2.0 */
/* Get key with key IDs (ETSI GS QKD 014, 5.4). */
#include <stdlib.h>
#include <string.h>

#include "etsi014_internal.h"

typedef struct dec_job {
	qg_014_late late; /* first */
	qg_014_dec_request ids;
	qg_fetch_request req;
	char strings[]; /* master and slave */
} dec_job;

static void
job_fini(qg_014_late *late)
{
	qg_014_dec_fini(&((dec_job *)late)->ids);
}

/* The size, where all keys have the same one. */
static unsigned
common_size_bits(const qg_fetch_result *result, size_t n)
{
	if (result->err != QG_OK)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (result->sizes[i] != result->sizes[0])
			return 0;
	return result->sizes[0] * 8u;
}

static uint64_t
all_bits(const qg_fetch_result *result, size_t n)
{
	uint64_t bits = 0;
	for (size_t i = 0; result->err == QG_OK && i < n; i++)
		bits += result->sizes[i] * 8u;
	return bits;
}

static void
on_fetched(void *ctx, qg_fetch_result *result)
{
	dec_job *job = ctx;
	const qg_fetch_request *req = &job->req;
	qg_err err = result->err;
	if (err == QG_OK)
		err = qg_014_container(req->ids, req->n, result->keys, result->sizes, 0, NULL,
				       &job->late.outcome.body);
	qg_secret_free(&result->keys);
	job->late.outcome.err = err;
	qg_014_audit(job->late.s, &(qg_014_key_event){
					  .method = QG_014_DEC,
					  .sae = job->late.sae,
					  .err = err,
					  .caller = req->slave,
					  .other = req->master,
					  .ids = req->ids,
					  .n = req->n,
					  .size_bits = common_size_bits(result, req->n),
					  .bits = all_bits(result, req->n),
				  });
	qg_014_late_done(&job->late);
}

/* Takes the IDs of *r. */
static dec_job *
job_new(const qg_014_call *call, qg_014_dec_request *r)
{
	const size_t master_len = strlen(call->master) + 1;
	const size_t slave_len = strlen(call->slave) + 1;
	dec_job *job = malloc(sizeof *job + master_len + slave_len);
	if (job == NULL)
		return NULL;
	job->late.fini = job_fini;
	job->ids = *r;
	*r = (qg_014_dec_request){0};
	job->req = (qg_fetch_request){
		.master = memcpy(job->strings, call->master, master_len),
		.slave = memcpy(job->strings + master_len, call->slave, slave_len),
		.ids = job->ids.ids,
		.n = job->ids.n,
		.kme = call->other_home,
	};
	qg_014_late_init(&job->late, call);
	return job;
}

/* Limits, then the keystore. Answers. Takes what *r has. */
static void
fetch(qg_014_call *call, qg_err parsed, qg_014_dec_request *r)
{
	uint32_t retry_after_s = 0;
	qg_err err = parsed;
	if (err == QG_OK)
		err = qg_014_take(call, r->n, &retry_after_s);
	dec_job *job = NULL;
	if (err == QG_OK) {
		job = job_new(call, r);
		err = job == NULL ? QG_E_NOMEM : QG_OK;
	}
	if (err != QG_OK) {
		qg_014_refuse(call, err, retry_after_s, r->ids, r->n);
		qg_014_dec_fini(r);
		return;
	}
	qg_keystore_fetch(call->s->parts.keystore, &job->req, on_fetched, job);
	qg_014_late_wait(&job->late);
}

void
qg_014_get_dec(qg_http_request *http, void *ctx)
{
	qg_014_call call;
	if (qg_014_admit(ctx, http, QG_014_DEC, &call) != QG_OK)
		return;
	qg_014_arg args[QG_014_ARGS_MAX];
	qg_014_dec_request r = {0};
	const qg_err err = qg_014_dec_query(args, qg_014_args(http, args), &r, &call.why);
	fetch(&call, err, &r);
}

void
qg_014_post_dec(qg_http_request *http, void *ctx)
{
	qg_014_call call;
	if (qg_014_admit(ctx, http, QG_014_DEC, &call) != QG_OK)
		return;
	qg_014_dec_request r = {0};
	const char *body;
	size_t len;
	qg_err err = qg_014_posted(&call, &body, &len);
	if (err == QG_OK)
		err = qg_014_dec_body(body, len, call.terms.max_keys, &r, &call.why);
	fetch(&call, err, &r);
}
