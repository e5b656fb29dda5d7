/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_KMS_NODES_H
#define TESTS_UNIT_KMS_NODES_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "free_port.h"
#include "qkdgate/http_client.h"
#include "qkdgate/kms.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/log.h"
#include "qkdgate/secret.h"

/* Two neighbours on loopback, with real certificates. What stands behind the
 * listener is of this file: the streams have tests of their own. */

#define WAIT_S 20

static char pki[] = "/tmp/qkdgate-test-kms-XXXXXX";

/* --- behind the listener --------------------------------------------------- */

typedef struct held {
	qg_peer_answer *answer;
	void *ctx;
} held;

struct qg_peers {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned received;
	qg_kms_kind kind;    /* of the last one */
	char neighbour[32];
	char body[QG_KMS_MSG_MAX];
	size_t len;
	held holds[64];      /* messages "hold" wait here */
	size_t n_holds;
};

static void
peers_init(qg_peers *p)
{
	memset(p, 0, sizeof *p);
	pthread_mutex_init(&p->lock, NULL);
	pthread_cond_init(&p->changed, NULL);
}

static void *
answer_late(void *arg)
{
	held *h = arg;

	usleep(20000);
	h->answer(h->ctx, 202, "\"late\"", 6);
	free(h);
	return NULL;
}

static void
answer_from_thread(qg_peer_answer *answer, void *ctx)
{
	held *h = malloc(sizeof *h);
	pthread_t thread;

	assert_non_null(h);
	*h = (held){answer, ctx};
	assert_int_equal(pthread_create(&thread, NULL, answer_late, h), 0);
	pthread_detach(thread);
}

/* The streams' side as this test has it: the body says what is to happen. */
void
qg_peers_receive(qg_peers *p, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
		 qg_peer_answer *answer, void *ctx)
{
	bool hold = len == 4 && memcmp(body, "hold", 4) == 0;
	bool late = len == 4 && memcmp(body, "late", 4) == 0;
	bool bad = len == 3 && memcmp(body, "bad", 3) == 0;
	bool bare = len == 4 && memcmp(body, "bare", 4) == 0;

	pthread_mutex_lock(&p->lock);
	p->received++;
	p->kind = kind;
	(void)snprintf(p->neighbour, sizeof p->neighbour, "%s", neighbour);
	if (len > 0)
		memcpy(p->body, body, len);
	p->len = len;
	if (hold)
		p->holds[p->n_holds++] = (held){answer, ctx};
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (late)
		answer_from_thread(answer, ctx);
	else if (bad)
		answer(ctx, 400, "{\"message\":\"bad\"}", 17);
	else if (bare)
		answer(ctx, 503, NULL, 0);
	else if (!hold)
		answer(ctx, 200, body, len);
}

static struct timespec
deadline(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += WAIT_S;
	return t;
}

static void
wait_holds(qg_peers *p, size_t n)
{
	struct timespec until = deadline();

	pthread_mutex_lock(&p->lock);
	while (p->n_holds < n)
		assert_int_equal(pthread_cond_timedwait(&p->changed, &p->lock, &until), 0);
	pthread_mutex_unlock(&p->lock);
}

static void
release_holds(qg_peers *p)
{
	for (size_t i = 0; i < p->n_holds; i++)
		p->holds[i].answer(p->holds[i].ctx, 200, "released", 8);
	p->n_holds = 0;
}

/* --- the nodes ------------------------------------------------------------- */

typedef struct node {
	char file[4][128];  /* certificate, key, CA, CRL */
	char url[64];       /* of the other node */
	qg_config_neighbour other;
	qg_config cfg;
	qg_directory *directory;
	qg_peers peers;
	qg_kms *kms;
} node;

typedef struct pair {
	node a, b;
} pair;

static qg_tls_files
files_of(char file[4][128], const char *name, const char *ca)
{
	const char *const parts[] = {name, name, ca, "crl"};
	const char *const ends[] = {".pem", ".key", ".pem", ".pem"};

	for (size_t i = 0; i < 4; i++) {
		int n = snprintf(file[i], sizeof file[i], "%s/%s%s", pki, parts[i], ends[i]);

		assert_in_range(n, 1, sizeof file[i] - 1);
	}
	return (qg_tls_files){
		.certificate = file[0], .key = file[1], .ca = file[2], .crl = file[3], .min_version = QG_TLS_1_3,
	};
}

static void
node_make(node *n, const char *certificate, unsigned port, const char *other, const char *other_cn,
	  unsigned other_port)
{
	qg_tls_files files = files_of(n->file, certificate, "ca");
	int len = snprintf(n->url, sizeof n->url, "https://127.0.0.1:%u", other_port);

	assert_in_range(len, 1, sizeof n->url - 1);
	n->other = (qg_config_neighbour){.id = other, .url = n->url, .match = {.cn = other_cn}};
	n->cfg = (qg_config){
		.kme_id = "KME",
		.kms = {
			.address = "127.0.0.1", .port = port, .tls = files, .threads = 2, .max_connections = 64,
			.idle_timeout_s = 30,
		},
		.kms_client = files,
		.neighbours = &n->other,
		.n_neighbours = 1,
		.kms_timeout_ms = 5000,
	};
	peers_init(&n->peers);
	assert_int_equal(qg_directory_new(&n->cfg, &n->directory), QG_OK);
	assert_int_equal(qg_kms_new(&n->cfg, n->directory, &n->kms), QG_OK);
}

static void
node_listen(node *n)
{
	char why[256] = "";
	qg_err err = qg_kms_listen(n->kms, &n->peers, why, sizeof why);

	if (err != QG_OK)
		fail_msg("%s: %s", qg_err_text(err), why);
}

static void
node_end(node *n)
{
	qg_kms_free(&n->kms);
	assert_null(n->kms);
	qg_directory_free(&n->directory);
}

/* A and B, each the other's neighbour; B has the certificate given. */
static pair *
pair_new(const char *b_certificate)
{
	pair *p = calloc(1, sizeof *p);
	unsigned port_a = free_port(), port_b = free_port();

	assert_non_null(p);
	node_make(&p->a, "kme-a", port_a, "KME-B", "KME-B", port_b);
	node_make(&p->b, b_certificate, port_b, "KME-A", "KME-A", port_a);
	return p;
}

static void
pair_free(pair *p)
{
	if (p->a.kms)
		node_end(&p->a);
	if (p->b.kms)
		node_end(&p->b);
	free(p);
}

/* --- calls ----------------------------------------------------------------- */

typedef struct outcome {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned calls; /* of done */
	qg_err err;
	int status;
	char body[QG_KMS_MSG_MAX];
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
on_done(void *ctx, qg_err err, int status, const char *body, size_t len)
{
	outcome *o = ctx;

	pthread_mutex_lock(&o->lock);
	o->calls++;
	o->err = err;
	o->status = status;
	o->len = 0;
	if (err == QG_OK && len > 0) {
		assert_true(len <= sizeof o->body);
		memcpy(o->body, body, len);
		o->len = len;
	}
	pthread_cond_broadcast(&o->changed);
	pthread_mutex_unlock(&o->lock);
}

static void
wait_outcome(outcome *o)
{
	struct timespec until = deadline();

	pthread_mutex_lock(&o->lock);
	while (o->calls == 0)
		assert_int_equal(pthread_cond_timedwait(&o->changed, &o->lock, &until), 0);
	assert_int_equal(o->calls, 1);
	pthread_mutex_unlock(&o->lock);
}

static qg_err
send_to(node *from, const char *to, qg_kms_kind kind, const char *body, outcome *o)
{
	qg_channel *ch = qg_kms_channel(from->kms);

	return ch->ops->send(ch, to, kind, body, strlen(body), 0, on_done, o);
}

static void
exchange(node *from, const char *to, qg_kms_kind kind, const char *body, outcome *o)
{
	outcome_init(o);
	assert_int_equal(send_to(from, to, kind, body, o), QG_OK);
	wait_outcome(o);
}

/* A call to B's listener by someone else, with any method, path and body. */
static void
stranger(const pair *p, const char *certificate, const char *method, const char *path, const char *body,
	 size_t len, outcome *o)
{
	char file[4][128], url[256];
	qg_tls_files files = files_of(file, certificate, "ca");
	qg_http_client *c = NULL;
	int n = snprintf(url, sizeof url, "%s%s", p->a.url, path);

	assert_in_range(n, 1, sizeof url - 1);
	outcome_init(o);
	assert_int_equal(qg_http_client_start(&files, &c), QG_OK);
	assert_int_equal(qg_http_client_send(c, &(qg_http_call){
		.method = method, .url = url, .type = "application/json", .body = body, .len = len,
		.timeout_ms = 5000, .answer_limit = sizeof o->body, .done = on_done, .ctx = o,
	}), QG_OK);
	wait_outcome(o);
	qg_http_client_stop(&c);
}

static void
assert_works(pair *p)
{
	outcome o;

	exchange(&p->a, "KME-B", QG_KMS_GET_STATUS, "{}", &o);
	assert_int_equal(o.err, QG_OK);
	assert_int_equal(o.status, 200);
	assert_int_equal(o.len, 2);
	assert_memory_equal(o.body, "{}", 2);
}

#endif
