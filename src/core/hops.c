/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "core_internal.h"

/* How many trusted nodes the keys of a stream can pass at all, by what the
 * configuration says. It decides whether a request's limits can ever be met. */

typedef struct net {
	const char **name; /* ends of links, sorted, each once */
	size_t n;
	uint32_t *level;   /* links from this gateway to each; UINT32_MAX: none known */
} net;

static int
by_name(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static uint32_t *
level_of(const net *w, const char *name)
{
	const char **at = bsearch(&name, w->name, w->n, sizeof *w->name, by_name);
	return at == NULL ? NULL : &w->level[at - w->name];
}

static bool
net_init(net *w, const qg_config *cfg)
{
	w->name = calloc(2 * cfg->n_links, sizeof *w->name);
	w->level = calloc(2 * cfg->n_links, sizeof *w->level);
	if (w->name == NULL || w->level == NULL)
		return false;
	for (size_t i = 0; i < cfg->n_links; i++) {
		w->name[2 * i] = cfg->links[i].a;
		w->name[2 * i + 1] = cfg->links[i].b;
	}
	qsort(w->name, 2 * cfg->n_links, sizeof *w->name, by_name);
	for (size_t i = 0; i < 2 * cfg->n_links; i++)
		if (w->n == 0 || strcmp(w->name[w->n - 1], w->name[i]) != 0)
			w->name[w->n++] = w->name[i];
	memset(w->level, 0xff, 2 * cfg->n_links * sizeof *w->level);
	return true;
}

/* The ends of a link are one link apart. */
static void
spread(net *w, const qg_config *cfg, uint32_t round)
{
	for (size_t i = 0; i < cfg->n_links; i++) {
		uint32_t *a = level_of(w, cfg->links[i].a), *b = level_of(w, cfg->links[i].b);
		if (*a == round && *b > round + 1)
			*b = round + 1;
		else if (*b == round && *a > round + 1)
			*a = round + 1;
	}
}

/* Nodes in between on the shortest way; 0 where it cannot be told. */
static uint32_t
least_in_topology(const qg_config *cfg, const char *far)
{
	net w = {.n = 0};
	uint32_t hops = 0;
	if (cfg->n_links > 0 && net_init(&w, cfg)) {
		uint32_t *from = level_of(&w, cfg->kme_id);
		const uint32_t *to = level_of(&w, far);
		if (from != NULL)
			*from = 0;
		for (uint32_t round = 0; from != NULL && to != NULL && *to > round && round < QG_KMS_PATH_MAX; round++)
			spread(&w, cfg, round);
		if (to != NULL && *to != UINT32_MAX && *to > 0)
			hops = *to - 1;
	}
	free(w.name);
	free(w.level);
	return hops;
}

void
qg_hops_range(const qg_config *cfg, const qg_config_stream *st, uint32_t *least, uint32_t *most)
{
	uint32_t lo = UINT32_MAX, hi = 0;
	if (!st->relayed) {
		*least = *most = 0;
		return;
	}
	for (size_t i = 0; i < st->relay.n_routes; i++) {
		const uint32_t n = (uint32_t)st->relay.routes[i].n_via;
		lo = n < lo ? n : lo;
		hi = n > hi ? n : hi;
	}
	if (st->relay.n_routes == 0) {
		lo = least_in_topology(cfg, st->neighbour);
		hi = st->relay.max_hops;
	}
	*least = lo;
	*most = hi < st->relay.max_hops ? hi : st->relay.max_hops;
}
