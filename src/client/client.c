/* SPDX-License-Identifier: Apache-2.0 */
/* ETSI GS QKD 014 as a client: one call at a time, over the HTTPS client that
 * the gateway has, too. */
#include "qkdgate/client.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client_internal.h"
#include "qkdgate/http_client.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

#define TIMEOUT_MS 10000u
#define URL_ROOM 2048
#define WHY_ROOM 256
#define ANSWER_MAX ((size_t)4 << 20)
#define KEYS_MAX 1024
#define SAE_MAX 255

struct qg_client {
	qg_http_client *http;
	char *files; /* the names */
	char *url;
	unsigned timeout_ms;
	char why[WHY_ROOM];
	/* The call under way. */
	pthread_mutex_t lock;
	pthread_cond_t ended;
	bool over;
	qg_err err;
	int status;
	qg_secret *body;
};

/* --- set up ------------------------------------------------------------------- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static qg_err set_up_result;

static void
set_up(void)
{
	set_up_result = qg_secret_init();
}

qg_err
qg_client_set_up(void)
{
	return pthread_once(&once, set_up) == 0 ? set_up_result : QG_E_NOMEM;
}

qg_err
qg_client_files_copy(const qg_client_files *from, char **store, qg_tls_files *out)
{
	const char *const names[] = {from->certificate, from->key, from->ca};
	size_t len[3], all = 0;
	for (size_t i = 0; i < 3; i++) {
		if (names[i] == NULL)
			return QG_E_INVAL;
		len[i] = strlen(names[i]) + 1;
		all += len[i];
	}
	char *p = malloc(all);
	if (p == NULL)
		return QG_E_NOMEM;
	*store = p;
	for (size_t i = 0; i < 3; p += len[i], i++)
		memcpy(p, names[i], len[i]);
	p = *store;
	*out = (qg_tls_files){.certificate = p, .key = p + len[0], .ca = p + len[0] + len[1],
			      .min_version = QG_TLS_1_2};
	return QG_OK;
}

/* https://HOST[:PORT], without a path but "/". */
static char *
base_of(const char *url)
{
	static const char https[] = "https://";
	size_t len = strlen(url), skip = sizeof https - 1;
	while (len > skip && url[len - 1] == '/')
		len--;
	if (len <= skip || len >= URL_ROOM / 2 || strncmp(url, https, skip) != 0 ||
	    strcspn(url + skip, "/?#@ \t\r\n") < len - skip)
		return NULL;
	return strndup(url, len);
}

static void
say(char *why, size_t room, const char *text)
{
	if (room > 0)
		snprintf(why, room, "%s", text);
}

qg_err
qg_client_open(const char *url, const qg_client_files *files, unsigned timeout_ms, qg_client **out, char *why,
	       size_t why_room)
{
	qg_tls_files tls;
	qg_err err = qg_client_set_up();
	qg_client *c = err == QG_OK ? calloc(1, sizeof *c) : NULL;
	if (c == NULL) {
		say(why, why_room, "no memory");
		return QG_E_NOMEM;
	}
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->ended, NULL);
	c->timeout_ms = timeout_ms != 0 ? timeout_ms : TIMEOUT_MS;
	c->url = base_of(url);
	say(why, why_room, c->url == NULL ? "the URL is not https://HOST[:PORT]" : "a file name is missing");
	err = c->url == NULL ? QG_E_INVAL : qg_client_files_copy(files, &c->files, &tls);
	if (err == QG_OK)
		err = qg_tls_check_files(&tls, why, why_room);
	if (err == QG_OK)
		err = qg_http_client_start(&tls, &c->http);
	if (err != QG_OK) {
		qg_client_close(&c);
		return err;
	}
	say(why, why_room, "");
	*out = c;
	return QG_OK;
}

void
qg_client_close(qg_client **c)
{
	if (c == NULL || *c == NULL)
		return;
	qg_client *p = *c;
	*c = NULL;
	if (p->http != NULL)
		qg_http_client_stop(&p->http);
	qg_secret_free(&p->body);
	pthread_cond_destroy(&p->ended);
	pthread_mutex_destroy(&p->lock);
	free(p->files);
	free(p->url);
	free(p);
}

const char *
qg_client_why(const qg_client *c)
{
	return c->why;
}

/* --- one call ------------------------------------------------------------------- */

/* On the HTTPS client's thread. */
static void
call_done(void *ctx, qg_err err, int status, const char *body, size_t len)
{
	qg_client *c = ctx;
	pthread_mutex_lock(&c->lock);
	if (err == QG_OK && len > 0) {
		err = qg_secret_new(len, &c->body);
		if (err == QG_OK)
			err = qg_secret_append(c->body, body, len);
	}
	c->err = err;
	c->status = status;
	c->over = true;
	pthread_cond_signal(&c->ended);
	pthread_mutex_unlock(&c->lock);
}

static qg_err
refused(qg_client *c, qg_err err, const char *otherwise)
{
	const qg_secret *b = c->body;
	if (b != NULL)
		qg_client_error_read((const char *)b->data, b->len, c->why, sizeof c->why);
	if (b == NULL || c->why[0] == '\0')
		say(c->why, sizeof c->why, otherwise);
	return err;
}

static qg_err
judge(qg_client *c)
{
	switch (c->status) {
	case 200:
		return c->body != NULL ? QG_OK : refused(c, QG_E_PROTO, "the answer is empty");
	case 400:
		return refused(c, QG_E_INVAL, "the key manager does not take the request");
	case 401:
		return refused(c, QG_E_DENIED, "the key manager does not allow it");
	case 503:
		return refused(c, QG_E_EMPTY, "the key manager has no key just now");
	default:
		snprintf(c->why, sizeof c->why, "the key manager answered with HTTP status %d", c->status);
		return QG_E_PROTO;
	}
}

static qg_err
call(qg_client *c, const char *method, const char *url, const char *body)
{
	qg_http_call call = {.method = method,
			     .url = url,
			     .type = body != NULL ? "application/json" : NULL,
			     .body = body,
			     .len = body != NULL ? strlen(body) : 0,
			     .timeout_ms = c->timeout_ms,
			     .answer_limit = ANSWER_MAX,
			     .done = call_done,
			     .ctx = c};
	qg_secret_free(&c->body);
	c->why[0] = '\0';
	c->over = false;
	qg_err err = qg_http_client_send(c->http, &call);
	if (err != QG_OK)
		return err;
	pthread_mutex_lock(&c->lock);
	while (!c->over)
		pthread_cond_wait(&c->ended, &c->lock);
	pthread_mutex_unlock(&c->lock);
	if (c->err == QG_OK)
		return judge(c);
	say(c->why, sizeof c->why, qg_err_text(c->err));
	return c->err;
}

/* URL/api/v1/keys/SAE/METHOD, the SAE escaped (RFC 3986, 2.1). The room is for the
 * longest of both. */
static qg_err
target(qg_client *c, const char *sae, const char *method, char out[URL_ROOM])
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
	static const char hex[] = "0123456789ABCDEF";
	if (sae == NULL || sae[0] == '\0' || strlen(sae) > SAE_MAX) {
		say(c->why, sizeof c->why, "not an SAE ID of 1 to 255 bytes");
		return QG_E_INVAL;
	}
	char name[3 * SAE_MAX + 1], *p = name;
	for (; *sae != '\0'; sae++) {
		const unsigned char byte = (unsigned char)*sae;
		if (strchr(plain, *sae) != NULL) {
			*p++ = *sae;
			continue;
		}
		*p++ = '%';
		*p++ = hex[byte >> 4];
		*p++ = hex[byte & 15];
	}
	*p = '\0';
	int n = snprintf(out, URL_ROOM, "%s/api/v1/keys/%s/%s", c->url, name, method);
	return n > 0 && n < URL_ROOM ? QG_OK : QG_E_INVAL;
}

/* --- the methods -------------------------------------------------------------------- */

static qg_err
take_keys(qg_client *c, const char *const *ids, size_t n, qg_client_keys **out)
{
	qg_err err = qg_client_keys_read((const char *)c->body->data, c->body->len, ids, n, out);
	qg_secret_free(&c->body);
	if (err == QG_E_PROTO)
		say(c->why, sizeof c->why, "the answer is not the key container that was asked for");
	return err;
}

qg_err
qg_client_enc_keys(qg_client *c, const char *slave, unsigned number, unsigned size_bits, qg_client_keys **out)
{
	char url[URL_ROOM], body[64] = "{}";
	qg_err err = target(c, slave, "enc_keys", url);
	if (err != QG_OK)
		return err;
	if (number == 0)
		number = 1;
	if (size_bits != 0)
		snprintf(body, sizeof body, "{\"number\":%u,\"size\":%u}", number, size_bits);
	else
		snprintf(body, sizeof body, "{\"number\":%u}", number);
	err = call(c, "POST", url, body);
	return err == QG_OK ? take_keys(c, NULL, number, out) : err;
}

/* {"key_IDs":[{"key_ID":"..."},...]}, to be freed. */
static qg_err
ids_body(qg_client *c, const char *const *ids, size_t n, char **out)
{
	static const char head[] = "{\"key_IDs\":[", entry[] = "{\"key_ID\":\"\"},";
	size_t room = sizeof head + n * (sizeof entry + QG_UUID_TEXT) + 2, at = sizeof head - 1;
	if (n == 0 || n > KEYS_MAX) {
		say(c->why, sizeof c->why, "1 to 1024 key IDs in one request");
		return QG_E_INVAL;
	}
	char *text = malloc(room);
	if (text == NULL)
		return QG_E_NOMEM;
	memcpy(text, head, sizeof head);
	for (size_t i = 0; i < n; i++) {
		qg_uuid id;
		char plain[QG_UUID_TEXT];
		if (qg_uuid_parse(ids[i], strlen(ids[i]), &id) != QG_OK) {
			free(text);
			say(c->why, sizeof c->why, "a key ID is not a UUID");
			return QG_E_INVAL;
		}
		qg_uuid_format(&id, plain);
		at += (size_t)snprintf(text + at, room - at, "{\"key_ID\":\"%s\"}%s", plain, i + 1 < n ? "," : "]}");
	}
	*out = text;
	return QG_OK;
}

qg_err
qg_client_dec_keys(qg_client *c, const char *master, const char *const *ids, size_t n, qg_client_keys **out)
{
	char url[URL_ROOM], *body = NULL;
	qg_err err = target(c, master, "dec_keys", url);
	if (err == QG_OK)
		err = ids_body(c, ids, n, &body);
	if (err == QG_OK)
		err = call(c, "POST", url, body);
	free(body);
	return err == QG_OK ? take_keys(c, ids, n, out) : err;
}

qg_err
qg_client_get_status(qg_client *c, const char *slave, qg_client_status *out)
{
	char url[URL_ROOM];
	qg_err err = target(c, slave, "status", url);
	if (err == QG_OK)
		err = call(c, "GET", url, NULL);
	if (err != QG_OK)
		return err;
	err = qg_client_status_read((const char *)c->body->data, c->body->len, out);
	if (err == QG_E_PROTO)
		say(c->why, sizeof c->why, "the answer is not a status");
	return err;
}
