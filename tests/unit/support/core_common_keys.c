/* SPDX-License-Identifier: Apache-2.0 */
#include "core_common.h"

/* Keys out and back in. */

pair_keys *keys_new(void)
{
	pair_keys *k = calloc(1, sizeof *k);
	must(k != NULL && sem_init(&k->told, 0, 0) == 0, "memory");
	return k;
}

static void keys_clear(pair_keys *k)
{
	free(k->key);
	k->key = NULL;
	k->n = k->bytes = 0;
}

void keys_free(pair_keys **k)
{
	keys_clear(*k);
	sem_destroy(&(*k)->told);
	free(*k);
	*k = NULL;
}

static void keys_take(pair_keys *k, qg_err err, qg_secret **keys)
{
	k->err = err;
	if (*keys != NULL) {
		k->bytes = (*keys)->len;
		k->key = malloc(k->bytes + 1);
		must(k->key != NULL, "memory");
		memcpy(k->key, (*keys)->data, k->bytes);
		qg_secret_free(keys);
	}
	atomic_fetch_add(&k->calls, 1);
	sem_post(&k->told);
}

static void issue_told(void *ctx, qg_issue_result *r)
{
	pair_keys *k = ctx;
	if (r->err == QG_OK)
		memcpy(k->id, r->ids, k->n * sizeof *k->id);
	memset(k->hops, 0, sizeof k->hops);
	if (r->err == QG_OK && r->hops != NULL)
		memcpy(k->hops, r->hops, k->n * sizeof *k->hops);
	k->retry_after_s = r->retry_after_s;
	keys_take(k, r->err, &r->keys);
}

static void fetch_told(void *ctx, qg_fetch_result *r)
{
	pair_keys *k = ctx;
	if (r->err == QG_OK)
		memcpy(k->size, r->sizes, k->n * sizeof *k->size);
	keys_take(k, r->err, &r->keys);
}

qg_err keys_wait(pair_keys *k)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PAIR_WAIT_MS / 1000;
	int rc;
	while ((rc = sem_timedwait(&k->told, &end)) != 0 && errno == EINTR)
		;
	must(rc == 0, "no answer came");
	return k->err;
}

void keys_issue_begin(qg_core *core, const qg_issue_request *req, pair_keys *out)
{
	keys_clear(out);
	out->n = req->number;
	qg_keystore_issue(qg_core_keystore(core), req, issue_told, out);
}

void keys_fetch_begin(qg_core *core, const qg_fetch_request *req, pair_keys *out)
{
	keys_clear(out);
	out->n = req->n;
	qg_keystore_fetch(qg_core_keystore(core), req, fetch_told, out);
}
