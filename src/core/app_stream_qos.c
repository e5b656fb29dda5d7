/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/policy.h"

/* Quality of service (table 2): what is granted, and what a stream may draw. */

#define SUPPLY_EVERY_MS 2000
#define STOCK_FOR_S 60 /* what the stock promises for, while nothing was measured */
#define MIMETYPE "application/json"

static qg_as_supply *
supply_of(struct qg_app_streams *all, const char *kme)
{
	for (size_t i = 0; i < all->n_supply; i++)
		if (strcmp(all->supply[i].kme, kme) == 0)
			return &all->supply[i];
	qg_as_supply *s = &all->supply[all->n_supply++];
	*s = (qg_as_supply){.kme = kme};
	return s;
}

typedef struct arrived {
	uint64_t bits;
	bool full;
} arrived;

static arrived
arrived_from(struct qg_core *core, const char *kme)
{
	arrived a = {0};
	for (size_t i = 0; i < core->n_streams; i++) {
		qg_stream *st = &core->stream[i];
		if (st->cfg->direction == QG_DIRECTION_INBOUND || strcmp(st->neighbour->id, kme) != 0)
			continue;
		pthread_mutex_lock(&st->lock);
		a.bits += st->n_chunks * st->cfg->chunk_size * 8;
		a.full |= st->ready + st->cfg->segment_chunks >= core->part.cfg->ready_chunks;
		pthread_mutex_unlock(&st->lock);
	}
	return a;
}

/* A pool that is full takes nothing: such a time says only that it was not less. */
void
qg_as_supply_step(struct qg_app_streams *all, uint64_t now_ms)
{
	struct qg_core *core = all->core;
	if (now_ms < all->supply_at_ms)
		return;
	const double s = (double)(now_ms - all->supply_since_ms) / 1000;
	const bool first = all->supply_since_ms == 0;
	all->supply_at_ms = now_ms + SUPPLY_EVERY_MS;
	all->supply_since_ms = now_ms;
	for (size_t i = 0; i < core->n_streams; i++) {
		if (core->stream[i].cfg->direction == QG_DIRECTION_INBOUND)
			continue;
		const char *kme = core->stream[i].neighbour->id;
		const arrived a = arrived_from(core, kme);
		pthread_mutex_lock(&all->lock);
		qg_as_supply *sup = supply_of(all, kme);
		const double bps = (double)(a.bits - sup->chunks_bits) / (s > 0 ? s : 1);
		const bool news = a.bits != sup->chunks_bits;
		sup->chunks_bits = a.bits;
		if (!first && (news || (sup->measured && !a.full))) {
			const bool up = bps > sup->bps;
			sup->bps = !sup->measured || up ? bps : a.full ? sup->bps : sup->bps * 0.75 + bps * 0.25;
			sup->measured = true;
		}
		pthread_mutex_unlock(&all->lock);
	}
}

/* --- granting ---------------------------------------------------------------------- */

static double
promised(const struct qg_app_streams *all, const char *kme)
{
	double sum = 0;
	for (size_t i = 0; i < QG_AS_BUCKETS; i++)
		for (const qg_as_stream *st = all->bucket[i]; st != NULL; st = st->next)
			if (strcmp(st->kme, kme) == 0)
				sum += st->qos.min_bps;
	return sum;
}

/* What is left to promise. */
static uint32_t
promisable(struct qg_app_streams *all, const char *kme, const qg_keystore_level *level)
{
	const qg_config_app_streams *cfg = &all->core->part.cfg->app_streams;
	if (kme == NULL)
		return cfg->max_bps; /* drawn here */
	pthread_mutex_lock(&all->lock);
	const qg_as_supply *sup = NULL;
	for (size_t i = 0; i < all->n_supply; i++)
		if (strcmp(all->supply[i].kme, kme) == 0)
			sup = &all->supply[i];
	double most = (double)level->stored_bytes * 8 / STOCK_FOR_S;
	if (sup != NULL && sup->measured)
		most = sup->bps * 0.75;
	if (cfg->promise_bps > 0)
		most = cfg->promise_bps;
	most -= promised(all, kme);
	pthread_mutex_unlock(&all->lock);
	return most <= 0 ? 0 : most < cfg->max_bps ? (uint32_t)most : cfg->max_bps;
}

static uint32_t
least(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

static uint32_t
chosen(uint32_t asked, uint32_t preset, uint32_t most)
{
	return least(asked == 0 ? preset : asked, most);
}

/* Rates above ours, longer lives and patience are brought down: the closest
 * that can be had. A size, a promise or a mimetype that cannot be had is for
 * the application to decide. */
qg_err
qg_as_grant(struct qg_app_streams *all, const qg_as_names *names, const qg_etsi004_qos *asked, qg_kms_app_qos *out)
{
	const struct qg_core *core = all->core;
	const qg_config_app_streams *cfg = &core->part.cfg->app_streams;
	qg_keystore_level level;
	qg_policy_terms t = {.min_key_bits = 8, .max_key_bits = 4095 * 8, .default_key_bits = 256};
	if (names->other_sae != NULL && strcmp(names->other_sae, names->sae->id) != 0) {
		const qg_err err = qg_as_policy(core, names->sae->id, names->other_sae, &t);
		if (err != QG_OK)
			return err;
	}
	const char *kme = names->kme != NULL ? names->kme : core->part.cfg->kme_id;
	qg_keystore_level_of(&all->core->keystore, kme, &level);
	if (!level.known)
		return QG_E_NOTFOUND;
	const uint32_t most = least(t.max_key_bits / 8, level.max_key_bytes);
	qg_kms_app_qos q = {
		.chunk_size = chosen(asked->chunk_size, t.default_key_bits / 8, most),
		.max_bps = chosen(asked->max_bps, cfg->max_bps, cfg->max_bps),
		.jitter_bps = asked->jitter_bps,
		.priority = asked->priority,
		.timeout_ms = chosen(asked->timeout_ms, cfg->timeout_ms, cfg->max_timeout_ms),
		.ttl_s = chosen(asked->ttl_s, cfg->ttl_s, cfg->max_ttl_s),
		.metadata = asked->mimetype[0] != '\0',
	};
	if (q.chunk_size * 8 < t.min_key_bits)
		q.chunk_size = t.min_key_bits / 8;
	q.min_bps = asked->min_bps == 0 ? 0 : least(asked->min_bps, promisable(all, names->kme, &level));
	*out = q;
	if (asked->mimetype[0] != '\0' && strcmp(asked->mimetype, MIMETYPE) != 0)
		return QG_E_UNSUPPORTED;
	const bool size = asked->chunk_size != 0 && asked->chunk_size != q.chunk_size;
	return size || q.min_bps < asked->min_bps ? QG_E_STATE : QG_OK;
}

void
qg_as_qos_out(const qg_kms_app_qos *in, qg_etsi004_qos *out)
{
	*out = (qg_etsi004_qos){
		.chunk_size = in->chunk_size,
		.max_bps = in->max_bps,
		.min_bps = in->min_bps,
		.jitter_bps = in->jitter_bps,
		.priority = in->priority,
		.timeout_ms = in->timeout_ms,
		.ttl_s = in->ttl_s,
		.mimetype = in->metadata ? MIMETYPE : "",
	};
}

/* --- drawing -------------------------------------------------------------------------- */

/* A bucket of what a second lets through, and the jitter besides. */
double
qg_as_tokens(qg_as_stream *st, uint64_t now_ms)
{
	const double chunk = st->qos.chunk_size * 8.0;
	double most = (double)st->qos.max_bps + st->qos.jitter_bps;
	if (most < chunk)
		most = chunk;
	if (!st->metered)
		st->tokens = most; /* the first second's */
	st->metered = true;
	st->tokens += (double)(now_ms - st->tokens_ms) / 1000 * st->qos.max_bps;
	if (st->tokens > most)
		st->tokens = most;
	st->tokens_ms = now_ms;
	return st->tokens;
}
