/* SPDX-License-Identifier: Apache-2.0 */
#ifndef APP_RIG_H
#define APP_RIG_H

/* A network for key streams of applications: node A has the applications
 * qkd://a@KME-A (sae-a) and qkd://a2@KME-A (sae-a2), B qkd://b@KME-B, ... */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "support/core_net.c"

#include "../../src/core/app_stream_internal.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
enum { A, B, C };

static core_net *n;

static char uri_text[NET_NODES][2][32];
static const char *uri_pattern[NET_NODES][2][2];

static inline const char *uri(unsigned node, unsigned which)
{
	return uri_text[node][which];
}

static inline void config_apps(core_net *net)
{
	for (unsigned i = 0; i < net->plan.nodes; i++) {
		core_node *e = &net->node[i];
		for (unsigned w = 0; w < 2; w++) {
			char name[16];
			snprintf(name, sizeof name, w == 0 ? "%c" : "%c2", 'a' + (int)i);
			snprintf(uri_text[i][w], sizeof uri_text[i][w], "qkd://%s@%s", name, e->id);
			uri_pattern[i][w][0] = uri_text[i][w];
			uri_pattern[i][w][1] = "any://*";
			e->saes[w].applications = uri_pattern[i][w];
			e->saes[w].n_applications = 1;
		}
		e->cfg.app_streams = (qg_config_app_streams){.opens_per_s = 0, .per_sae = 100, .held_bytes = 1 << 20,
			.max_bps = 100000000, .promise_bps = 100000, .ttl_s = 600, .max_ttl_s = 3600,
			.timeout_ms = 30000, .max_timeout_ms = 60000, .idle_s = 3600};
	}
}

/* Stopped, so that it can be changed; and running, with key at hand. */
static inline void plan_apps(net_plan *pl)
{
	n = net_new(pl);
	config_apps(n);
}

static inline void run_apps(void)
{
	for (unsigned i = 0; i < n->plan.nodes; i++)
		node_start(&n->node[i]);
}

static inline void start_pair(void)
{
	net_plan pl;
	net_plan_line(&pl, 2);
	plan_apps(&pl);
	run_apps();
	assert_true(net_wait_ready(n, A, B, 64));
	assert_true(net_wait_ready(n, B, A, 64));
}

static inline int teardown(void **state)
{
	(void)state;
	net_free(&n);
	atomic_store(&pair_ahead_ms, 0);
	return 0;
}

#define TEST(f) cmocka_unit_test_teardown(f, teardown)

/* --- calls -------------------------------------------------------------------------- */

static const qg_etsi004_qos plain_qos = {.chunk_size = 32, .mimetype = "application/json"};

typedef struct app_opening {
	qg_app_open req;
	sem_t told;
	qg_app_opened got;
} app_opening;

static inline void on_opened(void *ctx, const qg_app_opened *r)
{
	app_opening *o = ctx;
	o->got = *r;
	sem_post(&o->told);
}

static inline qg_app_streams *apps(unsigned node)
{
	return qg_core_app_streams(n->node[node].core);
}

static inline app_opening *open_begin(unsigned node, unsigned which, const qg_uuid *ksid, const char *source,
			       const char *destination, const qg_etsi004_qos *qos)
{
	app_opening *o = calloc(1, sizeof *o);
	assert_non_null(o);
	sem_init(&o->told, 0, 0);
	o->req = (qg_app_open){.sae = &n->node[node].saes[which], .source = source, .destination = destination,
			       .qos = qos != NULL ? *qos : plain_qos};
	if (ksid != NULL)
		o->req.ksid = *ksid;
	qg_app_streams_open(apps(node), &o->req, on_opened, o);
	return o;
}

static inline bool open_told(app_opening *o)
{
	int value = 0;
	sem_getvalue(&o->told, &value);
	return value > 0;
}

static inline qg_app_opened open_end(app_opening *o)
{
	while (sem_wait(&o->told) != 0)
		;
	const qg_app_opened got = o->got;
	sem_destroy(&o->told);
	free(o);
	return got;
}

/* From the first application of one node to the first of another. */
static inline qg_app_opened open_at(unsigned node, unsigned peer, const qg_uuid *ksid)
{
	return open_end(open_begin(node, 0, ksid, uri(node, 0), uri(peer, 0), NULL));
}

typedef struct app_getting {
	qg_app_get req;
	sem_t told;
	qg_app_got got;
	uint8_t key[4096];
	size_t key_len;
} app_getting;

static inline void on_got(void *ctx, qg_app_got *r)
{
	app_getting *g = ctx;
	g->got = *r;
	g->got.key = NULL;
	g->key_len = 0;
	if (r->key != NULL) {
		memcpy(g->key, r->key->data, r->key->len);
		g->key_len = r->key->len;
	}
	sem_post(&g->told);
}

static inline void get_begin(app_getting *g, unsigned node, unsigned which, const qg_uuid *ksid, int64_t index,
		      uint32_t metadata_max)
{
	memset(g, 0, sizeof *g);
	sem_init(&g->told, 0, 0);
	g->req = (qg_app_get){.sae = &n->node[node].saes[which], .ksid = *ksid, .in_sequence = index < 0,
			      .index = index < 0 ? 0 : (uint32_t)index, .metadata_max = metadata_max};
	qg_app_streams_get(apps(node), &g->req, on_got, g);
}

static inline uint32_t get_end(app_getting *g)
{
	while (sem_wait(&g->told) != 0)
		;
	sem_destroy(&g->told);
	return g->got.status;
}

static inline uint32_t get_at(app_getting *g, unsigned node, unsigned which, const qg_uuid *ksid, int64_t index)
{
	get_begin(g, node, which, ksid, index, 1024);
	return get_end(g);
}

typedef struct app_closing {
	sem_t told;
	uint32_t status;
} app_closing;

static inline void on_closed(void *ctx, uint32_t status)
{
	app_closing *c = ctx;
	c->status = status;
	sem_post(&c->told);
}

static inline uint32_t close_at(unsigned node, unsigned which, const qg_uuid *ksid)
{
	app_closing c;
	sem_init(&c.told, 0, 0);
	qg_app_streams_close(apps(node), &n->node[node].saes[which], ksid, on_closed, &c);
	while (sem_wait(&c.told) != 0)
		;
	sem_destroy(&c.told);
	return c.status;
}

/* Asks again where the stream's timeout passed before there was key. */
static inline uint32_t get_soon(app_getting *g, unsigned node, unsigned which, const qg_uuid *ksid, int64_t index)
{
	uint32_t status = QG_ETSI004_NO_KEY;
	for (unsigned tries = 0; tries < 60 && status == QG_ETSI004_NO_KEY; tries++)
		status = get_at(g, node, which, ksid, index);
	return status;
}

/* Chunks first .. first + count - 1 are there and the same at both ends. */
static inline void compare(unsigned x, unsigned which_x, unsigned y, unsigned which_y, const qg_uuid *ksid,
			   uint32_t first, uint32_t count)
{
	static app_getting gx, gy;
	for (uint32_t i = first; i < first + count; i++) {
		assert_int_equal(get_soon(&gx, x, which_x, ksid, i), QG_ETSI004_SUCCESS);
		assert_int_equal(get_soon(&gy, y, which_y, ksid, i), QG_ETSI004_SUCCESS);
		assert_int_equal(gx.key_len, gy.key_len);
		assert_memory_equal(gx.key, gy.key, gx.key_len);
		assert_int_equal(gx.got.index, i);
		assert_int_equal(gy.got.index, i);
	}
}

#endif
