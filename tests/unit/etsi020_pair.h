/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_ETSI020_PAIR_H
#define TESTS_UNIT_ETSI020_PAIR_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "free_port.h"
#include "pki.h"
#include "qkdgate/audit.h"
#include "qkdgate/etsi020.h"
#include "qkdgate/etsi020_msg.h"
#include "qkdgate/http_client.h"
#include "qkdgate/log.h"
#include "qkdgate/secret.h"

/* Two networks' key managers on loopback with real certificates. What stands
 * behind the listeners is of this file: the transfer engine has tests of its own. */

#define WAIT_S 60
#define IDS_KEPT 1024

/* --- behind the listener ------------------------------------------------------------- */

typedef enum asked { ASKED_KEYS, ASKED_ACKS, ASKED_VOID } asked;

struct qg_interop {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* What is to be answered. */
	qg_interop_result result;
	qg_interop_status status; /* of the acks with QG_INTEROP_DONE */
	bool late;                /* from a thread of its own */
	bool hold;                /* not before release */
	/* What was asked last. */
	unsigned calls;
	asked kind;
	char peer[32], initiator[80], target[80], optional[256], extension[256];
	size_t n_targets, n, n_ids;
	uint8_t value[16];
	uint32_t size;
	bool masked, all;
	qg_interop_mask mask;
	unsigned wait_ms;
	qg_interop_status ack_status;
	qg_uuid ids[IDS_KEPT];
	/* Held. */
	qg_interop_answer *answer;
	void *ctx;
};

static const char *const fake_targets[] = {"sae-z"};

static void
give(qg_interop *ip, qg_interop_answer *answer, void *ctx)
{
	const qg_interop_ack ack = {
		.status = ip->status,
		.saes = {.initiator = ip->initiator, .targets = fake_targets, .n_targets = 1},
		.ids = ip->ids,
		.n_ids = ip->n_ids,
		.message = "a message",
	};
	const bool done = ip->result == QG_INTEROP_DONE;
	answer(ctx, &(qg_interop_reply){.result = ip->result, .why = "as the test wants", .ack = done ? &ack : NULL,
					.n_acks = done});
}

static void *
give_late(void *arg)
{
	qg_interop *ip = arg;
	usleep(20000);
	pthread_mutex_lock(&ip->lock);
	qg_interop_answer *answer = ip->answer;
	ip->answer = NULL;
	pthread_mutex_unlock(&ip->lock);
	give(ip, answer, ip->ctx);
	return NULL;
}

/* Called with the lock, which it releases. */
static void
fake_answer(qg_interop *ip, const char *peer, asked kind, const qg_interop_saes *saes, qg_interop_answer *answer,
	    void *ctx)
{
	pthread_t thread;
	ip->calls++;
	ip->kind = kind;
	(void)snprintf(ip->peer, sizeof ip->peer, "%s", peer);
	(void)snprintf(ip->initiator, sizeof ip->initiator, "%s", saes->initiator);
	(void)snprintf(ip->target, sizeof ip->target, "%s", saes->targets[0]);
	ip->n_targets = saes->n_targets;
	const bool late = ip->late, now = !ip->late && !ip->hold;
	if (!now) {
		ip->answer = answer;
		ip->ctx = ctx;
	}
	pthread_cond_broadcast(&ip->changed);
	pthread_mutex_unlock(&ip->lock);
	if (now)
		give(ip, answer, ctx);
	else if (late && pthread_create(&thread, NULL, give_late, ip) == 0)
		pthread_detach(thread);
}

static void
copy_ids(qg_interop *ip, const void *first, size_t n, size_t stride)
{
	ip->n_ids = n;
	for (size_t i = 0; i < n && i < IDS_KEPT; i++)
		memcpy(&ip->ids[i], (const char *)first + i * stride, sizeof ip->ids[i]);
}

void
qg_interop_receive_keys(qg_interop *ip, const char *peer, const qg_interop_keys *m, qg_interop_answer *answer,
			void *ctx)
{
	pthread_mutex_lock(&ip->lock);
	ip->n = m->n_keys;
	copy_ids(ip, m->key, m->n_keys, sizeof *m->key);
	ip->size = m->key[0].size_bytes;
	memcpy(ip->value, m->key[0].value, ip->size < sizeof ip->value ? ip->size : sizeof ip->value);
	(void)snprintf(ip->optional, sizeof ip->optional, "%s", m->optional != NULL ? m->optional : "");
	(void)snprintf(ip->extension, sizeof ip->extension, "%s",
		       m->key[0].extension != NULL ? m->key[0].extension : "");
	ip->masked = m->mask != NULL;
	if (ip->masked)
		ip->mask = *m->mask;
	ip->wait_ms = m->wait_ms;
	fake_answer(ip, peer, ASKED_KEYS, &m->saes, answer, ctx);
}

void
qg_interop_receive_acks(qg_interop *ip, const char *peer, const qg_interop_ack *ack, size_t n,
			qg_interop_answer *answer, void *ctx)
{
	pthread_mutex_lock(&ip->lock);
	ip->n = n;
	ip->ack_status = ack[0].status;
	copy_ids(ip, ack[0].ids, ack[0].n_ids, sizeof ack[0].ids[0]);
	fake_answer(ip, peer, ASKED_ACKS, &ack[0].saes, answer, ctx);
}

void
qg_interop_receive_void(qg_interop *ip, const char *peer, const qg_interop_void *m, qg_interop_answer *answer,
			void *ctx)
{
	pthread_mutex_lock(&ip->lock);
	ip->all = m->all;
	ip->wait_ms = m->wait_ms;
	copy_ids(ip, m->ids, m->n_ids, sizeof *m->ids);
	fake_answer(ip, peer, ASKED_VOID, &m->saes, answer, ctx);
}

/* --- the two ----------------------------------------------------------------------------- */

typedef struct side {
	qg_tls_files files;
	char url[64], callback[96], other_callback[96];
	qg_config_peer peer; /* the other one */
	qg_config cfg;
	qg_directory *directory;
	qg_interop interop;
	qg_audit *audit; /* NULL: none */
	qg_etsi020 *e;
} side;

typedef struct pair {
	side a, b;
} pair;

static const char *const all_saes[] = {"*"};

static void
side_fill(side *s, const char *certificate, unsigned port, const char *other, const char *other_cn, unsigned other_port)
{
	s->files = pki_files(certificate);
	(void)snprintf(s->url, sizeof s->url, "https://127.0.0.1:%u", other_port);
	(void)snprintf(s->callback, sizeof s->callback, "https://127.0.0.1:%u/kmapi/v1/ext_keys/ack", port);
	(void)snprintf(s->other_callback, sizeof s->other_callback, "https://127.0.0.1:%u/kmapi/v1/ext_keys/ack", other_port);
	s->peer = (qg_config_peer){
		.id = other, .url = s->url, .client = {.cn = other_cn}, .server = {.cn = other_cn},
		.callback_url = s->other_callback, .our_callback_url = s->callback, .extension_pen = 32473,
		.saes = all_saes, .n_saes = 1, .reach = all_saes, .n_reach = 1, .max_keys = 1024,
		.outstanding_keys = 4096, .timeout_ms = 20000, .ack_timeout_ms = 20000,
	};
	s->cfg = (qg_config){
		.kme_id = "KME",
		.kxi = {.address = "127.0.0.1", .port = port, .tls = s->files, .threads = 2, .max_connections = 64,
			.idle_timeout_s = 30},
		.kxi_client = s->files, .peers = &s->peer, .n_peers = 1, .kxi_body_bytes = 1048576,
	};
	pthread_mutex_init(&s->interop.lock, NULL);
	pthread_cond_init(&s->interop.changed, NULL);
}

static void
side_start(side *s)
{
	char why[256] = "";
	assert_int_equal(qg_directory_new(&s->cfg, &s->directory), QG_OK);
	assert_int_equal(qg_etsi020_new(&s->cfg, s->directory, s->audit, &s->e), QG_OK);
	const qg_err err = qg_etsi020_listen(s->e, &s->interop, why, sizeof why);
	if (err != QG_OK)
		fail_msg("%s: %s", qg_err_text(err), why);
}

static void
side_end(side *s)
{
	qg_etsi020_free(&s->e);
	assert_null(s->e);
	qg_directory_free(&s->directory);
}

/* A and B, each the other's peer; not yet started, so that a case can change
 * what they are configured with. */
static pair *
pair_new(const char *b_certificate)
{
	pair *p = calloc(1, sizeof *p);
	const unsigned port_a = free_port(), port_b = free_port();
	assert_non_null(p);
	side_fill(&p->a, "kme-a", port_a, "NET-B", "KME-B", port_b);
	side_fill(&p->b, b_certificate, port_b, "NET-A", "KME-A", port_a);
	return p;
}

static void
pair_start(pair *p)
{
	side_start(&p->a);
	side_start(&p->b);
}

static void
pair_free(pair *p)
{
	if (p->a.e != NULL)
		side_end(&p->a);
	if (p->b.e != NULL)
		side_end(&p->b);
	free(p);
}

/* --- calls ---------------------------------------------------------------------------------- */

typedef struct outcome {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned calls;
	qg_interop_outcome outcome; /* of a call over the way */
	char why[300];
	bool absent, no_key;
	qg_interop_status status;
	size_t n_acks, n_ids;
	qg_err err; /* of a call by hand */
	int http;
	char body[4096];
	size_t len;
} outcome;

static void
outcome_init(outcome *o)
{
	memset(o, 0, sizeof *o);
	pthread_mutex_init(&o->lock, NULL);
	pthread_cond_init(&o->changed, NULL);
}

static void
on_sent(void *ctx, const qg_interop_sent *sent)
{
	outcome *o = ctx;
	pthread_mutex_lock(&o->lock);
	o->calls++;
	o->outcome = sent->outcome;
	o->absent = sent->absent;
	o->no_key = sent->no_key;
	o->n_acks = sent->n_acks;
	if (sent->n_acks > 0) {
		o->status = sent->ack[0].status;
		o->n_ids = sent->ack[0].n_ids;
	}
	(void)snprintf(o->why, sizeof o->why, "%s", sent->why);
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->lock);
}

static void
on_http(void *ctx, qg_err err, int status, const char *body, size_t len)
{
	outcome *o = ctx;
	pthread_mutex_lock(&o->lock);
	o->calls++;
	o->err = err;
	o->http = status;
	o->len = len < sizeof o->body ? len : sizeof o->body - 1;
	if (o->len > 0)
		memcpy(o->body, body, o->len);
	o->body[o->len] = '\0';
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->lock);
}

static void
wait_outcome(outcome *o)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += WAIT_S;
	pthread_mutex_lock(&o->lock);
	while (o->calls == 0)
		assert_int_equal(pthread_cond_timedwait(&o->changed, &o->lock, &until), 0);
	assert_int_equal(o->calls, 1);
	pthread_mutex_unlock(&o->lock);
}

/* A call by hand to B's listener, with any certificate, method, path and body. */
static qg_http_client *hand; /* of A's certificate, kept for its connection */

static void
by_hand_with(qg_http_client *c, const pair *p, const char *method, const char *path, const char *type, const char *body,
	     size_t len, outcome *o)
{
	char url[256];
	(void)snprintf(url, sizeof url, "%s%s", p->a.url, path);
	outcome_init(o);
	assert_int_equal(qg_http_client_send(c, &(qg_http_call){
		.method = method, .url = url, .type = type, .body = body, .len = len, .timeout_ms = 20000,
		.answer_limit = 1048576, .done = on_http, .ctx = o,
	}), QG_OK);
	wait_outcome(o);
}

static void
by_hand(const pair *p, const char *path, const char *body, outcome *o)
{
	by_hand_with(hand, p, "POST", path, "application/json; charset=UTF-8", body, strlen(body), o);
	assert_int_equal(o->err, QG_OK);
}

static void
is_problem(const outcome *o, int status, const char *type, const char *member)
{
	char want[160];
	if (o->http != status)
		fail_msg("status %d where %d is right: %s", o->http, status, o->body);
	(void)snprintf(want, sizeof want, "{\"type\":\"https://qkd.etsi.org/gs020-interop-kms/%s\",", type);
	if (strncmp(o->body, want, strlen(want)) != 0)
		fail_msg("%s where the type %s is right", o->body, type);
	(void)snprintf(want, sizeof want, "\"status\":%d,\"details\":{\"%s\":\"", status, member);
	if (strstr(o->body, want) == NULL)
		fail_msg("%s where the member %s is right", o->body, member);
}

#endif
