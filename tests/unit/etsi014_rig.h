/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TEST_ETSI014_RIG_H
#define TEST_ETSI014_RIG_H

/* A gateway with a keystore of the test's own and a client for it. The
 * keystore's functions stand here and take the place of the library's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <curl/curl.h>
#include <jansson.h>
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "../../src/north/etsi014_internal.h"
#include "pki.h"
#include "qkdgate/encode.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define BODY_LIMIT 4096
#define STREAM_KEY_BYTES 64 /* largest key towards KME-B */

/* --- the keystore -------------------------------------------------------------- */

typedef struct record {
	struct record *next;
	qg_uuid id;
	uint16_t size;
	char initiator[64];
	char target[4][64];
	bool taken[4];
	size_t n_targets;
} record;

struct qg_keystore {
	pthread_mutex_t lock;
	pthread_cond_t released;
	record *records;
	qg_err fail;            /* what the next calls say */
	uint32_t retry_after_s;
	const uint32_t *hops;   /* of the keys of one request; NULL: all 0 */
	bool short_keys;        /* a result that contradicts itself */
	bool late;              /* everything on another thread */
	bool hold;              /* and only after a release */
	atomic_uint calls;
	qg_issue_request seen;  /* numbers of the last request */
	size_t seen_extra;
};

static qg_keystore store = {.lock = PTHREAD_MUTEX_INITIALIZER, .released = PTHREAD_COND_INITIALIZER};

/* A key is made from its ID, so that every test can tell the right one. */
static void
key_of(const qg_uuid *id, uint8_t *out, size_t n)
{
	for (size_t i = 0; i < n; i++)
		out[i] = (uint8_t)(id->b[i % 16] + 7 * i);
}

static void
remember(const qg_issue_request *req, const qg_uuid *id)
{
	record *r = calloc(1, sizeof *r);
	assert_non_null(r);
	r->id = *id;
	r->size = (uint16_t)req->size_bytes;
	(void)snprintf(r->initiator, sizeof r->initiator, "%s", req->master);
	(void)snprintf(r->target[0], sizeof r->target[0], "%s", req->slave);
	for (size_t i = 0; i < req->n_extra; i++)
		(void)snprintf(r->target[i + 1], sizeof r->target[0], "%s", req->extra[i]);
	r->n_targets = req->n_extra + 1;
	r->next = store.records;
	store.records = r;
}

static void
issue_now(const qg_issue_request *req, qg_issue_done *done, void *ctx)
{
	static _Thread_local qg_uuid ids[QG_KEYSTORE_KEYS_MAX];
	pthread_mutex_lock(&store.lock);
	qg_issue_result r = {.err = store.fail, .retry_after_s = store.retry_after_s};
	store.seen = *req;
	store.seen_extra = req->n_extra;
	if (r.err == QG_OK) {
		const size_t len = (size_t)req->number * req->size_bytes;
		assert_int_equal(qg_secret_new(len, &r.keys), QG_OK);
		for (size_t i = 0; i < req->number; i++) {
			qg_uuid_random(&ids[i]);
			key_of(&ids[i], r.keys->data + i * req->size_bytes, req->size_bytes);
			remember(req, &ids[i]);
		}
		r.keys->len = len - store.short_keys;
		r.ids = ids;
		r.hops = store.hops;
	}
	pthread_mutex_unlock(&store.lock);
	done(ctx, &r);
}

static record *
find_record(const qg_uuid *id)
{
	record *r = store.records;
	while (r != NULL && !qg_uuid_equal(&r->id, id))
		r = r->next;
	return r;
}

static bool *
taken_flag(const qg_fetch_request *req, const qg_uuid *id)
{
	record *r = find_record(id);
	if (r == NULL || strcmp(r->initiator, req->master) != 0)
		return NULL;
	for (size_t i = 0; i < r->n_targets; i++)
		if (strcmp(r->target[i], req->slave) == 0)
			return &r->taken[i];
	return NULL;
}

static qg_err
judge(const qg_fetch_request *req)
{
	qg_err err = store.fail;
	for (size_t i = 0; err == QG_OK && i < req->n; i++)
		if (find_record(&req->ids[i]) != NULL && taken_flag(req, &req->ids[i]) == NULL)
			err = QG_E_DENIED;
	for (size_t i = 0; err == QG_OK && i < req->n; i++)
		if (find_record(&req->ids[i]) == NULL || *taken_flag(req, &req->ids[i]))
			err = QG_E_NOTFOUND;
	return err;
}

static void
fetch_now(const qg_fetch_request *req, qg_fetch_done *done, void *ctx)
{
	static _Thread_local uint16_t sizes[QG_KEYSTORE_KEYS_MAX];
	pthread_mutex_lock(&store.lock);
	qg_fetch_result r = {.err = judge(req)};
	if (r.err == QG_OK) {
		assert_int_equal(qg_secret_new(req->n * 4096, &r.keys), QG_OK);
		for (size_t i = 0; i < req->n; i++) {
			*taken_flag(req, &req->ids[i]) = true;
			sizes[i] = find_record(&req->ids[i])->size;
			key_of(&req->ids[i], r.keys->data + r.keys->len, sizes[i]);
			r.keys->len += sizes[i];
		}
		r.sizes = sizes;
	}
	pthread_mutex_unlock(&store.lock);
	done(ctx, &r);
}

typedef struct late_call {
	const qg_issue_request *issue;
	const qg_fetch_request *fetch;
	qg_issue_done *issue_done;
	qg_fetch_done *fetch_done;
	void *ctx;
} late_call;

static void *
late_main(void *arg)
{
	late_call c = *(late_call *)arg;
	free(arg);
	pthread_mutex_lock(&store.lock);
	while (store.hold)
		pthread_cond_wait(&store.released, &store.lock);
	pthread_mutex_unlock(&store.lock);
	if (c.issue != NULL)
		issue_now(c.issue, c.issue_done, c.ctx);
	else
		fetch_now(c.fetch, c.fetch_done, c.ctx);
	return NULL;
}

static void
call_late(late_call c)
{
	pthread_t thread;
	late_call *copy = malloc(sizeof *copy);
	assert_non_null(copy);
	*copy = c;
	assert_int_equal(pthread_create(&thread, NULL, late_main, copy), 0);
	(void)pthread_detach(thread);
}

static bool
is_late(void)
{
	pthread_mutex_lock(&store.lock);
	const bool late = store.late;
	pthread_mutex_unlock(&store.lock);
	return late;
}

/* Keys for this node need the store, and come later. */
void
qg_keystore_issue(qg_keystore *ks, const qg_issue_request *req, qg_issue_done *done, void *ctx)
{
	atomic_fetch_add(&ks->calls, 1);
	if (is_late() || req->n_extra > 0 || strcmp(req->slave, "sae-dave") == 0)
		call_late((late_call){.issue = req, .issue_done = done, .ctx = ctx});
	else
		issue_now(req, done, ctx);
}

void
qg_keystore_fetch(qg_keystore *ks, const qg_fetch_request *req, qg_fetch_done *done, void *ctx)
{
	atomic_fetch_add(&ks->calls, 1);
	if (is_late())
		call_late((late_call){.fetch = req, .fetch_done = done, .ctx = ctx});
	else
		fetch_now(req, done, ctx);
}

void
qg_keystore_gather(qg_keystore *ks, bool on)
{
	(void)ks, (void)on;
}

void
qg_keystore_level_of(qg_keystore *ks, const char *kme, qg_keystore_level *out)
{
	(void)ks;
	if (strcmp(kme, "KME-B") == 0)
		*out = (qg_keystore_level){
			.stored_bytes = 1000,
			.max_bytes = 3200,
			.max_key_bytes = STREAM_KEY_BYTES,
			.known = true,
		};
	else
		*out = (qg_keystore_level){
			.stored_bytes = 32000, .max_bytes = 32000, .max_key_bytes = 4095, .known = true};
}

/* --- the gateway ------------------------------------------------------------------ */

#define SAE(name) {.id = "sae-" name, .match = {.uri = "urn:sae:sae-" name}}

static const qg_config_sae saes[] = {SAE("alice"), SAE("bob"), SAE("carol"), SAE("dave"), SAE("mallory")};

/* bob's certificate is known here so that one server can play both ends; where
 * bob lives says the directory only for sae-zoe and sae-erin. */
static const qg_config_place places[] = {{.sae = "sae-zoe", .kme = "KME-B"},
					 {.sae = "sae-erin", .kme = "KME-B"},
					 {.sae = "sae-far-*", .kme = "KME-C"}};

static const char *const friends[] = {"sae-bob", "sae-dave", "sae-zoe", "sae-erin", "sae-ghost", "sae-far-*"};
static const char *const for_carol[] = {"sae-bob"};

static const qg_config_rule rules[] = {
	{.master = "sae-alice",
	 .slaves = friends,
	 .n_slaves = COUNT(friends),
	 .both_ways = true,
	 .min_key_bits = 64,
	 .max_key_bits = 4096,
	 .default_key_bits = 256,
	 .max_keys = 128,
	 .max_extra_slaves = 2},
	{.master = "sae-carol",
	 .slaves = for_carol,
	 .n_slaves = 1,
	 .both_ways = false,
	 .min_key_bits = 64,
	 .max_key_bits = 256,
	 .default_key_bits = 128,
	 .max_keys = 2,
	 .max_extra_slaves = 0},
};

typedef struct gateway {
	qg_config cfg;
	qg_directory *directory;
	qg_audit *audit;
	qg_etsi014_suspended suspended; /* at the start */
	qg_etsi014 *server;
	unsigned port;
	char audit_file[96];
} gateway;

static const unsigned char audit_key[32] = {1, 2, 3};

static void
gateway_start(gateway *g)
{
	char why[256] = "";
	(void)snprintf(g->audit_file, sizeof g->audit_file, "%s/audit.log", pki_dir);
	assert_int_equal(qg_directory_new(&g->cfg, &g->directory), QG_OK);
	assert_int_equal(qg_audit_open(g->audit_file, audit_key, &g->audit), QG_OK);
	const qg_etsi014_parts parts = {.cfg = &g->cfg, .directory = g->directory, .keystore = &store,
					.audit = g->audit, .suspended = &g->suspended};
	if (qg_etsi014_start(&parts, &g->server, why, sizeof why) != QG_OK)
		fail_msg("%s", why);
	g->port = qg_http_server_port(g->server->http);
}

static void
gateway_stop(gateway *g)
{
	qg_etsi014_stop(&g->server);
	assert_null(g->server);
	qg_audit_close(&g->audit);
	qg_directory_free(&g->directory);
}

static void
gateway_init(gateway *g)
{
	g->cfg = (qg_config){
		.kme_id = "KME-A",
		.sae = {.address = "127.0.0.1",
			.tls = pki_files("kme-a"),
			.threads = 2,
			.max_connections = 200,
			.idle_timeout_s = 10},
		.saes = saes,
		.n_saes = COUNT(saes),
		.directory = places,
		.n_directory = COUNT(places),
		.policy = rules,
		.n_policy = COUNT(rules),
		.body_bytes = BODY_LIMIT,
	};
}

static void
store_reset(void)
{
	pthread_mutex_lock(&store.lock);
	while (store.records != NULL) {
		record *r = store.records;
		store.records = r->next;
		free(r);
	}
	store.fail = QG_OK;
	store.retry_after_s = 0;
	store.hops = NULL;
	store.short_keys = store.late = store.hold = false;
	atomic_store(&store.calls, 0);
	pthread_mutex_unlock(&store.lock);
}

static int
setup(void **state)
{
	gateway *g = calloc(1, sizeof *g);
	assert_non_null(g);
	store_reset();
	gateway_init(g);
	gateway_start(g);
	*state = g;
	return 0;
}

static int
teardown(void **state)
{
	gateway *g = *state;
	gateway_stop(g);
	size_t bad_line;
	assert_int_equal(qg_audit_verify(g->audit_file, audit_key, &bad_line), QG_OK);
	(void)unlink(g->audit_file);
	store_reset();
	free(g);
	return 0;
}

/* --- a client ------------------------------------------------------------------------ */

typedef struct reply {
	long status;
	char body[65536 * 4];
	size_t len;
	char type[64], retry_after[16], allow[64];
	json_t *json;
} reply;

static size_t
on_body(char *p, size_t size, size_t n, void *ctx)
{
	reply *r = ctx;
	if (size * n > sizeof r->body - 1 - r->len)
		return 0;
	memcpy(r->body + r->len, p, size * n);
	r->len += size * n;
	r->body[r->len] = '\0';
	return size * n;
}

static size_t
on_header(char *p, size_t size, size_t n, void *ctx)
{
	reply *r = ctx;
	char line[256];
	(void)snprintf(line, sizeof line, "%.*s", (int)(size * n), p);
	line[strcspn(line, "\r\n")] = '\0';
	(void)sscanf(line, "Content-Type: %63[^\n]", r->type);
	(void)sscanf(line, "Retry-After: %15[^\n]", r->retry_after);
	(void)sscanf(line, "Allow: %63[^\n]", r->allow);
	return size * n;
}

typedef struct request {
	const char *method, *path, *type, *body;
} request;

static void
reply_free(reply **r)
{
	json_decref((*r)->json);
	free(*r);
	*r = NULL;
}

#define AUTO_REPLY __attribute__((cleanup(reply_free))) reply

static void
set_request(CURL *c, const request *q, struct curl_slist **headers)
{
	char line[128];
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, q->method);
	(void)snprintf(line, sizeof line, "Content-Type:%s%s", q->type != NULL ? " " : "",
		       q->type != NULL ? q->type : "");
	*headers = curl_slist_append(NULL, line);
	*headers = curl_slist_append(*headers, "Expect:");
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, *headers);
	if (q->body == NULL && strcmp(q->method, "POST") != 0)
		return;
	curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE, (long)(q->body != NULL ? strlen(q->body) : 0));
	curl_easy_setopt(c, CURLOPT_COPYPOSTFIELDS, q->body != NULL ? q->body : "");
}

static void
set_connection(CURL *c, const gateway *g, const char *who, const char *path)
{
	char url[2048];
	(void)snprintf(url, sizeof url, "https://127.0.0.1:%u%s", g->port, path);
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, 20L);
	curl_easy_setopt(c, CURLOPT_CAINFO, pki_file("ca", ".pem"));
	curl_easy_setopt(c, CURLOPT_SSLCERT, pki_file(who, ".pem"));
	curl_easy_setopt(c, CURLOPT_SSLKEY, pki_file(who, ".key"));
}

/* NULL when no answer came. */
static reply *
send_to(const gateway *g, const char *who, request q)
{
	reply *r = calloc(1, sizeof *r);
	CURL *c = curl_easy_init();
	struct curl_slist *headers = NULL;
	assert_non_null(r);
	assert_non_null(c);
	set_connection(c, g, who, q.path);
	set_request(c, &q, &headers);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, r);
	curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
	curl_easy_setopt(c, CURLOPT_HEADERDATA, r);
	const CURLcode rc = curl_easy_perform(c);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &r->status);
	curl_slist_free_all(headers);
	curl_easy_cleanup(c);
	if (rc != CURLE_OK) {
		free(r);
		return NULL;
	}
	r->json = json_loadb(r->body, r->len, JSON_REJECT_DUPLICATES, NULL);
	return r;
}

static reply *
get(const gateway *g, const char *who, const char *path)
{
	reply *r = send_to(g, who, (request){.method = "GET", .path = path});
	assert_non_null(r);
	return r;
}

static reply *
post(const gateway *g, const char *who, const char *path, const char *body)
{
	reply *r = send_to(g, who,
			   (request){.method = "POST", .path = path, .type = "application/json",
				     .body = body});
	assert_non_null(r);
	return r;
}

static const char *
message_of(const reply *r)
{
	const char *text = json_string_value(json_object_get(r->json, "message"));
	return text != NULL ? text : "";
}

/* An Error with that message, without details. NULL: any message. */
static void
expect_error(const reply *r, long status, const char *message)
{
	if (r->status != status || (message != NULL && strcmp(message_of(r), message) != 0))
		print_message("got %ld %s\n", r->status, r->body);
	assert_int_equal(r->status, status);
	if (status == 401) {
		assert_int_equal(r->len, 0);
		assert_string_equal(r->type, "");
		return;
	}
	assert_string_equal(r->type, "application/json");
	if (message != NULL)
		assert_string_equal(message_of(r), message);
	assert_true(message_of(r)[0] != '\0');
	assert_int_equal(json_object_size(r->json), 1);
}

static const json_t *
key_at(const reply *r, size_t i)
{
	if (r->status != 200)
		print_message("got %ld %s\n", r->status, r->body);
	assert_int_equal(r->status, 200);
	assert_string_equal(r->type, "application/json");
	return json_array_get(json_object_get(r->json, "keys"), i);
}

static const char *
id_at(const reply *r, size_t i)
{
	const char *id = json_string_value(json_object_get(key_at(r, i), "key_ID"));
	assert_non_null(id);
	return id;
}

/* n keys of so many bytes, each the one that belongs to its ID. */
static void
expect_keys(const reply *r, size_t n, size_t bytes)
{
	(void)key_at(r, 0);
	assert_int_equal(json_array_size(json_object_get(r->json, "keys")), n);
	for (size_t i = 0; i < n; i++) {
		qg_uuid id;
		uint8_t got[4096];
		uint8_t want[4096];
		size_t len;
		const json_t *key = json_object_get(key_at(r, i), "key");
		assert_int_equal(qg_uuid_parse(id_at(r, i), strlen(id_at(r, i)), &id), QG_OK);
		assert_int_equal(qg_base64_decode(json_string_value(key), json_string_length(key), got,
						  sizeof got,
						  &len),
				 QG_OK);
		assert_int_equal(len, bytes);
		key_of(&id, want, bytes);
		assert_memory_equal(got, want, bytes);
	}
}

#define KEYS(sae) "/api/v1/keys/" sae

#endif
