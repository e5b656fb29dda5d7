/* SPDX-License-Identifier: Apache-2.0 */
/* The only file that includes curl. One thread runs all calls; the others put
 * them into its inbox. */
#include <curl/curl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "qkdgate/http_client.h"
#include "qkdgate/log.h"
#include "qkdgate/request_id.h"
#include "qkdgate/secret.h"
#include "tls_internal.h"

#define CONNECTIONS_PER_HOST 16L
#define CONNECTIONS_KEPT 64L
#define EASY_KEPT 16u /* idle handles that are used again */
#define METHOD_MAX 16
#define TYPE_MAX 128
#define SERVERS_KEPT 64u
#define FIRST_ROOM 512u /* of an answer's buffer */
#define TELL_AGAIN_MS 60000u

typedef struct call {
	struct call *prev;
	struct call *next;
	CURL *easy;
	struct curl_slist *fields;
	char method[METHOD_MAX];
	char type[TYPE_MAX + 16];
	char *url;
	qg_request_id request; /* for which it is made */
	qg_secret *body;   /* may hold key */
	qg_secret *answer; /* may hold key */
	bool too_long;
	bool no_memory;
	bool wrong_server;
	const qg_tls_match *server;
	qg_chains *known; /* the client's */
	size_t answer_limit;
	unsigned timeout_ms;
	qg_http_done *done;
	void *ctx;
} call;

struct qg_http_client {
	qg_tls_files tls;
	qg_chains *known; /* certificates of servers, and what they say */
	CURLM *multi;
	pthread_t thread;
	pthread_mutex_t lock; /* for inbox and stopping */
	call *inbox;          /* oldest first */
	call **inbox_end;
	bool stopping;
	atomic_uint wakers; /* between their unlock and the end of their wake */
	call *running; /* the thread's, like all below */
	CURL *idle[EASY_KEPT];   /* as they came from curl_easy_init */
	unsigned n_idle;
	CURL *posted[EASY_KEPT]; /* set up, and of their last call nothing is left but that it had a body */
	unsigned n_posted;
	CURLcode told; /* last failure in the log, and when */
	uint64_t told_ms;
};

/* --- calls ---------------------------------------------------------------- */

static void
call_free(call *k)
{
	curl_slist_free_all(k->fields);
	qg_secret_free(&k->body);
	qg_secret_free(&k->answer);
	free(k->url);
	free(k);
}

/* A header field from outside must not smuggle another one in. */
static bool
copy_token(char *to, size_t room, const char *prefix, const char *from)
{
	for (const char *p = from; *p != '\0'; p++)
		if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
			return false;
	int n = snprintf(to, room, "%s%s", prefix, from);
	return n > 0 && (size_t)n < room;
}

static qg_err
call_fill(call *k, const qg_http_call *from)
{
	if (!copy_token(k->method, sizeof k->method, "", from->method) ||
	    !copy_token(k->type, sizeof k->type, "Content-Type: ", from->type != NULL ? from->type : ""))
		return QG_E_INVAL;
	if (from->type == NULL)
		k->type[0] = '\0';
	k->request = qg_request_id_now();
	k->url = strdup(from->url);
	if (k->url == NULL)
		return QG_E_NOMEM;
	k->answer_limit = from->answer_limit;
	k->server = from->server;
	k->timeout_ms = from->timeout_ms;
	k->done = from->done;
	k->ctx = from->ctx;
	if (from->body == NULL)
		return QG_OK;
	qg_err err = qg_secret_new(from->len > 0 ? from->len : 1, &k->body);
	return err == QG_OK ? qg_secret_append(k->body, from->body, from->len) : err;
}

static qg_err
call_new(const qg_http_call *from, call **out)
{
	if (from->method == NULL || from->method[0] == '\0' || from->url == NULL || from->done == NULL)
		return QG_E_INVAL;
	call *k = calloc(1, sizeof *k);
	if (k == NULL)
		return QG_E_NOMEM;
	qg_err err = call_fill(k, from);
	if (err != QG_OK) {
		call_free(k);
		return err;
	}
	*out = k;
	return QG_OK;
}

/* --- an answer comes in --------------------------------------------------- */

static qg_err
grow_answer(call *k, size_t n)
{
	size_t have = k->answer != NULL ? k->answer->len : 0;
	if (k->answer != NULL && n <= k->answer->room - have)
		return QG_OK;
	size_t room = have + n > 2 * have ? have + n : 2 * have;
	room = room > FIRST_ROOM ? room : FIRST_ROOM;
	qg_secret *bigger = NULL;
	qg_err err = qg_secret_new(room, &bigger);
	if (err != QG_OK)
		return err;
	if (k->answer != NULL)
		err = qg_secret_append(bigger, k->answer->data, have);
	qg_secret_free(&k->answer);
	k->answer = bigger;
	return err;
}

static size_t
on_data(char *data, size_t one, size_t n, void *ctx)
{
	(void)one; /* is 1 */
	call *k = ctx;
	size_t have = k->answer != NULL ? k->answer->len : 0;
	if (n > k->answer_limit - have) {
		k->too_long = true;
		return CURL_WRITEFUNC_ERROR;
	}
	if (n > 0 && (grow_answer(k, n) != QG_OK || qg_secret_append(k->answer, data, n) != QG_OK)) {
		k->no_memory = true;
		return CURL_WRITEFUNC_ERROR;
	}
	qg_wipe(data, n); /* curl's own buffer, that it would leave as it is */
	return n;
}

/* Before anything is sent on a connection, new or kept: whoever is at the other
 * end must be the one that is meant, not just somebody that the CA knows. */
static int
before_request(void *ctx, char *to, char *from, int to_port, int from_port)
{
	(void)to, (void)from, (void)to_port, (void)from_port;
	call *k = ctx;
	struct curl_tlssessioninfo *tls = NULL;
	qg_tls_identity id;
	if (k->server == NULL)
		return CURL_PREREQFUNC_OK;
	k->wrong_server = curl_easy_getinfo(k->easy, CURLINFO_TLS_SSL_PTR, &tls) != CURLE_OK || tls == NULL ||
			  tls->backend != CURLSSLBACKEND_GNUTLS || tls->internals == NULL ||
			  qg_tls_identify_server(k->known, tls->internals, &id) != QG_OK ||
			  !qg_tls_matches(k->server, &id);
	return k->wrong_server ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

/* --- setting up a transfer ------------------------------------------------ */

#define SET(option, value) (curl_easy_setopt(easy, option, value) == CURLE_OK)

static bool
set_tls(CURL *easy, const qg_tls_files *tls)
{
	long version = tls->min_version == QG_TLS_1_3 ? CURL_SSLVERSION_TLSv1_3 : CURL_SSLVERSION_TLSv1_2;
	return SET(CURLOPT_SSLVERSION, version) && SET(CURLOPT_SSL_VERIFYPEER, 1L) &&
	       SET(CURLOPT_SSL_VERIFYHOST, 2L) && SET(CURLOPT_CAINFO, tls->ca) && SET(CURLOPT_CAPATH, NULL) &&
	       SET(CURLOPT_SSLCERT, tls->certificate) && SET(CURLOPT_SSLKEY, tls->key) &&
	       (tls->crl == NULL || SET(CURLOPT_CRLFILE, tls->crl));
}

/* Nothing from the environment, nowhere but where the URL says. */
static bool
set_manners(CURL *easy)
{
	return SET(CURLOPT_PROTOCOLS_STR, "https") && SET(CURLOPT_FOLLOWLOCATION, 0L) && SET(CURLOPT_PROXY, "") &&
	       SET(CURLOPT_NOPROXY, "*") && SET(CURLOPT_NOSIGNAL, 1L) && SET(CURLOPT_TCP_KEEPALIVE, 1L) &&
	       SET(CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) && SET(CURLOPT_HTTP09_ALLOWED, 0L);
}

static bool
set_request(CURL *easy, call *k)
{
	bool head = strcmp(k->method, "HEAD") == 0;
	if (!SET(CURLOPT_URL, k->url) || !SET(CURLOPT_NOBODY, head ? 1L : 0L))
		return false;
	if (!head && !SET(CURLOPT_CUSTOMREQUEST, k->method))
		return false;
	/* Where a body belongs, none is said as Content-Length: 0. */
	bool empty = k->body == NULL && (strcmp(k->method, "POST") == 0 || strcmp(k->method, "PUT") == 0);
	if (empty && (!SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)0) || !SET(CURLOPT_POSTFIELDS, "")))
		return false;
	if (k->body != NULL && (!SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)k->body->len) ||
				!SET(CURLOPT_POSTFIELDS, (char *)k->body->data)))
		return false;
	/* Without "Expect:" curl waits for leave to send a larger body; without
	 * ours it would say application/x-www-form-urlencoded. */
	struct curl_slist *fields = curl_slist_append(NULL, "Expect:");
	k->fields = fields;
	if (fields == NULL || curl_slist_append(fields, k->type[0] != '\0' ? k->type : "Content-Type:") == NULL)
		return false;
	char id[sizeof QG_REQUEST_ID_HEADER + QG_REQUEST_ID_MAX + 2];
	if (k->request.text[0] != '\0' &&
	    (!copy_token(id, sizeof id, QG_REQUEST_ID_HEADER ": ", k->request.text) ||
	     curl_slist_append(fields, id) == NULL))
		return false;
	return SET(CURLOPT_HTTPHEADER, fields);
}

/* What is the same for every call. */
static bool
set_up(CURL *easy, const qg_tls_files *tls)
{
	return set_tls(easy, tls) && set_manners(easy) && SET(CURLOPT_WRITEFUNCTION, on_data) &&
	       SET(CURLOPT_PREREQFUNCTION, before_request);
}

static bool
set_call(CURL *easy, call *k)
{
	return set_request(easy, k) && SET(CURLOPT_TIMEOUT_MS, (long)k->timeout_ms) &&
	       SET(CURLOPT_CONNECTTIMEOUT_MS, (long)k->timeout_ms) && SET(CURLOPT_WRITEDATA, k) &&
	       SET(CURLOPT_PRIVATE, k) && SET(CURLOPT_PREREQDATA, k);
}

/* Forgets the pointers into the call. */
static bool
unset_call(CURL *easy)
{
	return SET(CURLOPT_POSTFIELDS, NULL) && SET(CURLOPT_HTTPHEADER, NULL) && SET(CURLOPT_WRITEDATA, NULL) &&
	       SET(CURLOPT_PRIVATE, NULL) && SET(CURLOPT_PREREQDATA, NULL);
}

/* Setting a handle up costs more than all of a call that is set up, so those of the
 * usual kind stay so: a method, which is set anew, and a body. */
static bool
is_usual(const call *k)
{
	return k->body != NULL && strcmp(k->method, "HEAD") != 0;
}

static void
easy_put(qg_http_client *c, CURL *easy, bool usual)
{
	if (usual && c->n_posted < EASY_KEPT && unset_call(easy)) {
		c->posted[c->n_posted++] = easy;
		return;
	}
	curl_easy_reset(easy);
	if (c->n_idle < EASY_KEPT)
		c->idle[c->n_idle++] = easy;
	else
		curl_easy_cleanup(easy);
}

static CURL *
easy_get(qg_http_client *c, bool usual)
{
	if (usual && c->n_posted > 0)
		return c->posted[--c->n_posted];
	CURL *easy = c->n_idle > 0 ? c->idle[--c->n_idle] : curl_easy_init();
	if (easy == NULL || set_up(easy, &c->tls))
		return easy;
	curl_easy_cleanup(easy);
	return NULL;
}

static void
list_add(qg_http_client *c, call *k)
{
	k->prev = NULL;
	k->next = c->running;
	if (k->next != NULL)
		k->next->prev = k;
	c->running = k;
}

static void
list_remove(qg_http_client *c, call *k)
{
	if (k->prev != NULL)
		k->prev->next = k->next;
	else
		c->running = k->next;
	if (k->next != NULL)
		k->next->prev = k->prev;
}

/* Tells the outcome and frees. The call is in no list any more. */
static void
finish(qg_http_client *c, call *k, qg_err err, int status)
{
	if (k->easy != NULL)
		easy_put(c, k->easy, is_usual(k));
	const char *body = err == QG_OK && k->answer != NULL ? (const char *)k->answer->data : "";
	const qg_request_id *before = qg_request_id_enter(&k->request);
	k->done(k->ctx, err, status, body, err == QG_OK && k->answer != NULL ? k->answer->len : 0);
	(void)qg_request_id_enter(before);
	call_free(k);
}

static void
begin(qg_http_client *c, call *k)
{
	k->easy = easy_get(c, is_usual(k));
	if (k->easy == NULL || qg_tls_prepare_thread() != QG_OK || !set_call(k->easy, k) ||
	    curl_multi_add_handle(c->multi, k->easy) != CURLM_OK) {
		finish(c, k, QG_E_NOMEM, 0);
		return;
	}
	list_add(c, k);
}

/* --- results -------------------------------------------------------------- */

static qg_err
error_of(const call *k, CURLcode code)
{
	if (k->too_long)
		return QG_E_RANGE;
	if (k->no_memory)
		return QG_E_NOMEM;
	if (k->wrong_server)
		return QG_E_AUTH;
	switch (code) {
	case CURLE_OK:
		return QG_OK;
	case CURLE_OPERATION_TIMEDOUT:
		return QG_E_TIMEOUT;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CRL_BADFILE:
		return QG_E_AUTH;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return QG_E_INVAL;
	case CURLE_OUT_OF_MEMORY:
		return QG_E_NOMEM;
	case CURLE_WEIRD_SERVER_REPLY:
		return QG_E_PROTO;
	default:
		return QG_E_IO;
	}
}

/* The caller learns the kind of a failure; what exactly failed is for the log,
 * which hears of one kind once a minute. */
static void
tell_failure(qg_http_client *c, const call *k, CURLcode code)
{
	uint64_t now_ms = qg_clock_elapsed_ms();
	long cause = 0;
	if (code == CURLE_OK || (code == c->told && now_ms - c->told_ms < TELL_AGAIN_MS))
		return;
	c->told = code;
	c->told_ms = now_ms;
	(void)curl_easy_getinfo(k->easy, CURLINFO_OS_ERRNO, &cause);
	const qg_request_id *before = qg_request_id_enter(&k->request);
	qg_log(QG_LOG_WARN, "http", "event=call_failed url=%s reason=\"%s\" cause=\"%s\"", qg_log_safe(k->url),
	       k->wrong_server ? "the certificate names someone else" : curl_easy_strerror(code),
	       cause != 0 ? strerror((int)cause) : "-");
	(void)qg_request_id_enter(before);
}

static void
collect(qg_http_client *c)
{
	CURLMsg *m;
	int left;
	while ((m = curl_multi_info_read(c->multi, &left)) != NULL) {
		if (m->msg != CURLMSG_DONE)
			continue;
		CURL *easy = m->easy_handle;
		CURLcode code = m->data.result; /* m is gone with the handle */
		call *k = NULL;
		long status = 0;
		(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, &k);
		(void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
		(void)curl_multi_remove_handle(c->multi, easy);
		list_remove(c, k);
		qg_err err = error_of(k, code);
		tell_failure(c, k, code);
		finish(c, k, err, err == QG_OK ? (int)status : 0);
	}
}

/* --- the thread ----------------------------------------------------------- */

static bool
take_inbox(qg_http_client *c, call **list)
{
	pthread_mutex_lock(&c->lock);
	bool stopping = c->stopping;
	*list = c->inbox;
	c->inbox = NULL;
	c->inbox_end = &c->inbox;
	pthread_mutex_unlock(&c->lock);
	return stopping;
}

static void
end_all(qg_http_client *c, call *inbox)
{
	while (c->running != NULL) {
		call *k = c->running; /* the first */
		c->running = k->next;
		if (c->running != NULL)
			c->running->prev = NULL;
		(void)curl_multi_remove_handle(c->multi, k->easy);
		finish(c, k, QG_E_CLOSED, 0);
	}
	while (inbox != NULL) {
		call *k = inbox;
		inbox = k->next;
		finish(c, k, QG_E_CLOSED, 0);
	}
}

static void *
client_main(void *arg)
{
	qg_http_client *c = arg;
	qg_tls_wipe_here();
	for (;;) {
		call *inbox;
		bool stopping = take_inbox(c, &inbox);
		if (stopping) {
			end_all(c, inbox);
			return NULL;
		}
		while (inbox != NULL) {
			call *k = inbox;
			inbox = k->next;
			begin(c, k);
		}
		int running;
		(void)curl_multi_perform(c->multi, &running);
		collect(c);
		(void)curl_multi_poll(c->multi, NULL, 0, 1000, NULL);
	}
}

/* --- start, send, stop ---------------------------------------------------- */

static CURLcode global_init_result;

/* Curl copies bodies behind the head of a request, and bodies may hold key. */
static void
global_init(void)
{
	global_init_result = curl_global_init_mem(CURL_GLOBAL_DEFAULT, malloc, qg_free_wiped, qg_realloc_wiped,
						  strdup, calloc);
}

/* Signals are the main thread's. */
static bool
start_thread(qg_http_client *c)
{
	sigset_t all;
	sigset_t old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	bool ok = pthread_create(&c->thread, NULL, client_main, c) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ok;
}

static void
client_free(qg_http_client *c)
{
	while (c->n_idle > 0)
		curl_easy_cleanup(c->idle[--c->n_idle]);
	while (c->n_posted > 0)
		curl_easy_cleanup(c->posted[--c->n_posted]);
	if (c->multi != NULL)
		curl_multi_cleanup(c->multi);
	qg_chains_free(&c->known);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

qg_err
qg_http_client_start(const qg_tls_files *tls, qg_http_client **out)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, global_init);
	if (global_init_result != CURLE_OK)
		return QG_E_NOMEM;
	qg_err err = qg_tls_check_files(tls, NULL, 0);
	if (err != QG_OK)
		return err;
	qg_http_client *c = calloc(1, sizeof *c);
	if (c == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&c->lock, NULL);
	c->tls = *tls;
	c->inbox_end = &c->inbox;
	c->multi = curl_multi_init();
	if (c->multi == NULL || qg_chains_new(SERVERS_KEPT, &c->known) != QG_OK ||
	    curl_multi_setopt(c->multi, CURLMOPT_MAX_HOST_CONNECTIONS, CONNECTIONS_PER_HOST) != CURLM_OK ||
	    curl_multi_setopt(c->multi, CURLMOPT_MAXCONNECTS, CONNECTIONS_KEPT) != CURLM_OK || !start_thread(c)) {
		client_free(c);
		return QG_E_NOMEM;
	}
	*out = c;
	return QG_OK;
}

qg_err
qg_http_client_send(qg_http_client *c, const qg_http_call *from)
{
	call *k = NULL;
	qg_err err = call_new(from, &k);
	if (err != QG_OK)
		return err;
	k->known = c->known;
	pthread_mutex_lock(&c->lock);
	bool stopping = c->stopping, wake = !stopping && c->inbox == NULL;
	if (!stopping) {
		*c->inbox_end = k;
		c->inbox_end = &k->next;
	}
	if (wake)
		atomic_fetch_add(&c->wakers, 1);
	pthread_mutex_unlock(&c->lock);
	if (stopping) {
		call_free(k);
		return QG_E_CLOSED;
	}
	if (wake) {
		(void)curl_multi_wakeup(c->multi); /* outside the lock, or it would wake to wait for that */
		atomic_fetch_sub(&c->wakers, 1);   /* after it the client may be gone */
	}
	return QG_OK;
}

void
qg_http_client_stop(qg_http_client **c)
{
	if (c == NULL || *c == NULL)
		return;
	qg_http_client *old = *c;
	pthread_mutex_lock(&old->lock);
	old->stopping = true;
	(void)curl_multi_wakeup(old->multi);
	pthread_mutex_unlock(&old->lock);
	pthread_join(old->thread, NULL);
	while (atomic_load(&old->wakers) > 0)
		sched_yield();
	*c = NULL; /* not before: a `done` may still send, and is told QG_E_CLOSED */
	client_free(old);
}
