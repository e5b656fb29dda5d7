/* SPDX-License-Identifier: Apache-2.0 */
/* What a server counts. Each worker has figures of its own, which no other
 * thread writes: so counting is a load and a store, without a lock. */
#include <stdlib.h>

#include "http_internal.h"

const uint32_t qg_http_bucket_us[QG_HTTP_BUCKETS] = {
	25, 50, 100, 250, 500, 1000, 2500, 5000, 10000, 25000, 100000, 500000, 1000000, 5000000,
};

const int qg_http_status_of[QG_HTTP_STATUSES] = {200, 202, 400, 401, 403, 404, 409, 503, 0};

static void
add(_Atomic uint64_t *to, uint64_t n)
{
	atomic_store_explicit(to, atomic_load_explicit(to, memory_order_relaxed) + n, memory_order_relaxed);
}

qg_err
qg_http_counts_init(qg_http_counts *c, size_t n_routes)
{
	c->route = calloc(n_routes + 1, sizeof *c->route);
	return c->route != NULL ? QG_OK : QG_E_NOMEM;
}

void
qg_http_counts_fini(qg_http_counts *c)
{
	free(c->route);
	c->route = NULL;
}

static size_t
status_slot(int status)
{
	size_t i = 0;
	while (i < QG_HTTP_STATUSES - 1 && qg_http_status_of[i] != status)
		i++;
	return i;
}

void
qg_http_count_answer(qg_http_counts *c, const qg_http_options *o, const qg_http_route *route, int status,
		     uint64_t took_ns)
{
	size_t at = route != NULL ? (size_t)(route - o->routes) : o->n_routes;
	size_t slot = status_slot(status), bucket = 0;
	qg_http_route_stats *r = &c->route[at];
	while (bucket < QG_HTTP_BUCKETS && took_ns > (uint64_t)qg_http_bucket_us[bucket] * 1000)
		bucket++;
	add(&r->of[slot].count, 1);
	add(&r->of[slot].sum_ns, took_ns);
	add(&r->of[slot].bucket[bucket], 1);
}

void
qg_http_count_handshake(qg_http_counts *c, bool done)
{
	add(done ? &c->handshakes : &c->failed_handshakes, 1);
}

/* --- reading --------------------------------------------------------------- */

static uint64_t
get(const _Atomic uint64_t *from)
{
	return atomic_load_explicit(from, memory_order_relaxed);
}

void
qg_http_server_stats(const qg_http_server *s, qg_http_stats *out)
{
	*out = (qg_http_stats){.connections = qg_census_count(s->census), .limited = qg_arrivals_refused(s->arrivals)};
	for (unsigned i = 0; i < s->n_workers; i++) {
		out->handshakes += get(&s->workers[i].counts.handshakes);
		out->failed_handshakes += get(&s->workers[i].counts.failed_handshakes);
	}
}

size_t
qg_http_server_routes(const qg_http_server *s)
{
	return s->o.n_routes;
}

const qg_http_route *
qg_http_server_route(const qg_http_server *s, size_t i)
{
	return i < s->o.n_routes ? &s->o.routes[i] : NULL;
}

void
qg_http_server_route_stats(const qg_http_server *s, size_t i, qg_http_route_stats *out)
{
	for (unsigned w = 0; w < s->n_workers; w++) {
		const qg_http_route_stats *r = &s->workers[w].counts.route[i];
		for (size_t slot = 0; slot < QG_HTTP_STATUSES; slot++) {
			add(&out->of[slot].count, get(&r->of[slot].count));
			add(&out->of[slot].sum_ns, get(&r->of[slot].sum_ns));
			for (size_t b = 0; b <= QG_HTTP_BUCKETS; b++)
				add(&out->of[slot].bucket[b], get(&r->of[slot].bucket[b]));
		}
	}
}
