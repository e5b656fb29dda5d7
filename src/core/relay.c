/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "relay_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* What relaying keeps per node: quotas, which neighbours answer wrongly, counts. */

#define WRONG_LIMIT 3   /* wrong answers in a row that isolate a neighbour */
#define REFUSED_PER_S 1 /* lines in the log about refused messages, per neighbour */
#define REFUSED_BURST 20
#define COUNTERS (sizeof(qg_relay_counts) / sizeof(uint64_t))

struct qg_relay {
	qg_limits *neighbour_bytes, *route_bytes; /* relayed for others */
	qg_limits *refused_lines;
	uint8_t digest_key[32];
	pthread_mutex_t lock; /* guards wrong; nothing else is taken under it */
	unsigned *wrong;      /* of each neighbour of the configuration, in a row */
	_Atomic uint64_t count[COUNTERS];
};

/* A bucket always holds a whole message. */
static qg_err
quota_new(uint32_t bytes_per_s, qg_limits **out)
{
	uint32_t burst = bytes_per_s > QG_KMS_DATA_MAX ? bytes_per_s : QG_KMS_DATA_MAX;
	return qg_limits_new(bytes_per_s, burst, out);
}

qg_err
qg_relay_new(struct qg_core *core)
{
	const qg_config *cfg = core->part.cfg;
	struct qg_relay *r = calloc(1, sizeof *r);
	if (r == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&r->lock, NULL);
	core->relay = r;
	qg_random(r->digest_key, sizeof r->digest_key);
	r->wrong = calloc(cfg->n_neighbours + 1, sizeof *r->wrong);
	qg_err err = r->wrong == NULL ? QG_E_NOMEM : QG_OK;
	if (err == QG_OK)
		err = quota_new(cfg->relay_neighbour_bytes_per_s, &r->neighbour_bytes);
	if (err == QG_OK)
		err = quota_new(cfg->relay_route_bytes_per_s, &r->route_bytes);
	if (err == QG_OK)
		err = qg_limits_new(REFUSED_PER_S, REFUSED_BURST, &r->refused_lines);
	if (err != QG_OK)
		qg_relay_free(core);
	return err;
}

static void
log_counts(struct qg_core *core)
{
	qg_relay_counts c;
	qg_relay_counts_get(core, &c);
	if (c.sent + c.forwarded + c.taken + c.refused + c.wrong == 0)
		return;
	qg_log(QG_LOG_INFO, "relay",
	       "event=relay_counts sent=%llu delivered=%llu forwarded=%llu forwarded_bytes=%llu taken=%llu "
	       "repeated=%llu refused=%llu wrong=%llu",
	       (unsigned long long)c.sent, (unsigned long long)c.delivered, (unsigned long long)c.forwarded,
	       (unsigned long long)c.forwarded_bytes, (unsigned long long)c.taken,
	       (unsigned long long)c.repeated, (unsigned long long)c.refused, (unsigned long long)c.wrong);
}

void
qg_relay_free(struct qg_core *core)
{
	struct qg_relay *r = core->relay;
	if (r == NULL)
		return;
	log_counts(core);
	qg_limits_free(&r->neighbour_bytes);
	qg_limits_free(&r->route_bytes);
	qg_limits_free(&r->refused_lines);
	qg_wipe(r->digest_key, sizeof r->digest_key);
	free(r->wrong);
	pthread_mutex_destroy(&r->lock);
	free(r);
	core->relay = NULL;
}

bool
qg_relay_quota(struct qg_core *core, const char *neighbour, const char *source, const char *stream, size_t n)
{
	struct qg_relay *r = core->relay;
	char route[3 * QG_KMS_NAME_MAX + 3];
	uint64_t now_ms = qg_clock_elapsed_ms();
	uint32_t wait_s;
	/* The source is a claim of the neighbour's: under another's name it uses up
	 * only what is its own. */
	int len = snprintf(route, sizeof route, "%s/%s/%s", neighbour, source, stream);
	if (len < 0 || (size_t)len >= sizeof route || n > UINT32_MAX)
		return false;
	/* In this order: what a stream asks for beyond its own share is not taken
	 * from the other streams of that neighbour. */
	return qg_limits_take(r->route_bytes, route, (uint32_t)n, now_ms, &wait_s) == QG_OK &&
	       qg_limits_take(r->neighbour_bytes, neighbour, (uint32_t)n, now_ms, &wait_s) == QG_OK;
}

bool
qg_relay_neighbour_quota(struct qg_core *core, const char *neighbour, size_t n)
{
	uint32_t wait_s;
	return n <= UINT32_MAX && qg_limits_take(core->relay->neighbour_bytes, neighbour, (uint32_t)n,
						 qg_clock_elapsed_ms(), &wait_s) == QG_OK;
}

static void
audit_refused(struct qg_core *core, const char *neighbour, const char *stream, const char *why)
{
	qg_audit_event ev = {.act = QG_AUDIT_REFUSED, .caller = neighbour, .peer = stream, .reason = why};
	qg_audit_write(core->part.audit, &ev);
}

void
qg_relay_refused(struct qg_core *core, const char *neighbour, const char *stream, const char *why)
{
	uint32_t wait_s;
	QG_RELAY_COUNT(core, refused, 1);
	audit_refused(core, neighbour, stream, why);
	if (qg_limits_take(core->relay->refused_lines, neighbour, 1, qg_clock_elapsed_ms(), &wait_s) == QG_OK)
		qg_log(QG_LOG_WARN, "relay", "event=relay_refused neighbour=%s stream=%s reason=\"%s\"",
		       neighbour, qg_log_safe(stream), why);
}

/* --- who answers wrongly ---------------------------------------------------------- */

static unsigned *
wrong_of(struct qg_core *core, const char *neighbour)
{
	const qg_config *cfg = core->part.cfg;
	for (size_t i = 0; i < cfg->n_neighbours; i++)
		if (strcmp(cfg->neighbours[i].id, neighbour) == 0)
			return &core->relay->wrong[i];
	return &core->relay->wrong[cfg->n_neighbours];
}

void
qg_relay_right(struct qg_core *core, const char *neighbour)
{
	pthread_mutex_lock(&core->relay->lock);
	*wrong_of(core, neighbour) = 0;
	pthread_mutex_unlock(&core->relay->lock);
}

void
qg_relay_wrong(struct qg_core *core, const char *neighbour, const char *why)
{
	struct qg_relay *r = core->relay;
	QG_RELAY_COUNT(core, wrong, 1);
	pthread_mutex_lock(&r->lock);
	unsigned *wrong = wrong_of(core, neighbour);
	bool isolate = ++*wrong >= WRONG_LIMIT;
	if (isolate)
		*wrong = 0;
	pthread_mutex_unlock(&r->lock);
	qg_log(QG_LOG_DEBUG, "relay", "event=wrong_answer neighbour=%s reason=\"%s\"", neighbour, why);
	if (!isolate)
		return;
	qg_routes_fault(core->routes, core->part.cfg->kme_id, neighbour, QG_ROUTE_WRONG, qg_clock_elapsed_ms());
	audit_refused(core, neighbour, "", "isolated: it answers wrongly");
	qg_log(QG_LOG_ERROR, "relay", "event=neighbour_isolated neighbour=%s reason=\"%s\"", neighbour, why);
}

/* --- small things ------------------------------------------------------------------ */

void
qg_relay_digest(struct qg_core *core, const uint8_t *chunk, size_t n, uint8_t out[QG_RELAY_DIGEST])
{
	const uint8_t *key = core->relay->digest_key;
	crypto_generichash(out, QG_RELAY_DIGEST, chunk, n, key, sizeof core->relay->digest_key);
	qg_wipe_stack();
}

void
qg_relay_count(struct qg_core *core, size_t member, uint64_t n)
{
	assert(member / sizeof(uint64_t) < COUNTERS);
	atomic_fetch_add_explicit(&core->relay->count[member / sizeof(uint64_t)], n, memory_order_relaxed);
}

void
qg_relay_counts_get(struct qg_core *core, qg_relay_counts *out)
{
	uint64_t now[COUNTERS] = {0};
	for (size_t i = 0; i < COUNTERS; i++)
		now[i] = atomic_load_explicit(&core->relay->count[i], memory_order_relaxed);
	memcpy(out, now, sizeof *out);
}
