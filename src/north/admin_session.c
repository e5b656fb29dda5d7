/* SPDX-License-Identifier: Apache-2.0 */
/* Who signed in with a password: sessions, their cookies, and that what a browser asks
 * for was asked for by our page. A session lives in memory under a hash of its cookie. */
#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "admin_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"
#include "qkdgate/secret.h"

#define TOKEN_HEADER "X-Qkdgate-Token"
#define IDLE_HEADER "X-Qkdgate-Idle" /* asked by the page on its own: nobody was there */

struct qg_admin_session {
	bool used;
	uint8_t id[32]; /* hash of the cookie's value */
	char token[QG_ADMIN_TOKEN_ROOM];
	qg_account account;
	uint64_t begun_ms, seen_ms;
};

typedef struct qg_admin_session session;

/* One request's copy of what it needs of its session, which may end meanwhile. */
typedef struct visitor {
	qg_config_admin_user user; /* first: what handlers know callers by */
	char name[QG_PASSWORD_NAME_MAX + 1];
	char token[QG_ADMIN_TOKEN_ROOM];
	uint64_t idle_ms, left_ms;
	uint8_t id[32];
} visitor;

/* --- the cookie --------------------------------------------------------------------- */

/* Cookies are of a host, whatever the port: gateways of one host need names of their own. */
static void
name_cookie(qg_admin_sessions *s, const char *kme_id)
{
	uint8_t hash[16];
	char hex[9];
	crypto_generichash(hash, sizeof hash, (const unsigned char *)kme_id, strlen(kme_id), NULL, 0);
	sodium_bin2hex(hex, sizeof hex, hash, 4);
	(void)snprintf(s->cookie, sizeof s->cookie, "__Host-qkdgate-%s", hex);
}

/* The value of our cookie, or NULL; *len its length. */
static const char *
find_cookie(const qg_admin_sessions *s, const qg_http_request *http, size_t *len)
{
	const size_t n = strlen(s->cookie);
	const char *at = qg_http_header(http, "Cookie");
	while (at != NULL) {
		at += strspn(at, " ");
		if (strncmp(at, s->cookie, n) == 0 && at[n] == '=') {
			*len = strcspn(at + n + 1, ";");
			return at + n + 1;
		}
		at = strchr(at, ';');
		at = at != NULL ? at + 1 : NULL;
	}
	return NULL;
}

bool
qg_admin_cookie_id(const qg_admin_sessions *s, const qg_http_request *http, uint8_t id[32])
{
	size_t len = 0;
	const char *const value = find_cookie(s, http, &len);
	if (value == NULL || len + 1 != QG_ADMIN_TOKEN_ROOM)
		return false;
	crypto_generichash(id, 32, (const unsigned char *)value, len, NULL, 0);
	return true;
}

static void
draw(char text[QG_ADMIN_TOKEN_ROOM])
{
	uint8_t bytes[32];
	qg_random(bytes, sizeof bytes);
	sodium_bin2base64(text, QG_ADMIN_TOKEN_ROOM, bytes, sizeof bytes, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
	qg_wipe(bytes, sizeof bytes);
}

/* --- sessions -------------------------------------------------------------------------- */

static void
end(session *s)
{
	qg_wipe(s, sizeof *s);
}

static uint64_t
left_ms(const qg_admin_sessions *s, const session *one, uint64_t now_ms)
{
	const uint64_t age_ms = now_ms - one->begun_ms, most_ms = (uint64_t)s->cfg->session_s * 1000;
	return age_ms < most_ms ? most_ms - age_ms : 0;
}

static uint64_t
idle_left_ms(const qg_admin_sessions *s, const session *one, uint64_t now_ms)
{
	const uint64_t idle_ms = now_ms - one->seen_ms, most_ms = (uint64_t)s->cfg->idle_s * 1000;
	return idle_ms < most_ms ? most_ms - idle_ms : 0;
}

static void
end_old(qg_admin_sessions *s, uint64_t now_ms)
{
	for (size_t i = 0; i < s->cfg->max_sessions; i++)
		if (s->of[i].used && (left_ms(s, &s->of[i], now_ms) == 0 || idle_left_ms(s, &s->of[i], now_ms) == 0))
			end(&s->of[i]);
}

/* A free place, or that of the one not used for longest. */
static session *
take_place(qg_admin_sessions *s)
{
	session *oldest = &s->of[0];
	for (size_t i = 0; i < s->cfg->max_sessions; i++) {
		if (!s->of[i].used)
			return &s->of[i];
		if (s->of[i].seen_ms < oldest->seen_ms)
			oldest = &s->of[i];
	}
	end(oldest);
	return oldest;
}

void
qg_admin_sessions_begin(qg_admin_sessions *s, const qg_account *account, char cookie[QG_ADMIN_TOKEN_ROOM],
			char token[QG_ADMIN_TOKEN_ROOM])
{
	const uint64_t now_ms = qg_clock_elapsed_ms();
	draw(cookie);
	pthread_mutex_lock(&s->lock);
	end_old(s, now_ms);
	session *const one = take_place(s);
	*one = (session){.used = true, .account = *account, .begun_ms = now_ms, .seen_ms = now_ms};
	crypto_generichash(one->id, sizeof one->id, (const unsigned char *)cookie, strlen(cookie), NULL, 0);
	draw(one->token);
	memcpy(token, one->token, QG_ADMIN_TOKEN_ROOM);
	pthread_mutex_unlock(&s->lock);
}

static session *
find(qg_admin_sessions *s, const uint8_t id[32])
{
	for (size_t i = 0; i < s->cfg->max_sessions; i++)
		if (s->of[i].used && qg_equal_ct(s->of[i].id, id, 32))
			return &s->of[i];
	return NULL;
}

void
qg_admin_sessions_end(qg_admin_sessions *s, const uint8_t id[32])
{
	pthread_mutex_lock(&s->lock);
	session *const one = find(s, id);
	if (one != NULL)
		end(one);
	pthread_mutex_unlock(&s->lock);
}

void
qg_admin_sessions_keep(qg_admin_sessions *s, const qg_passwords *known)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->cfg->max_sessions; i++)
		if (s->of[i].used && !qg_passwords_knows(known, &s->of[i].account))
			end(&s->of[i]);
	pthread_mutex_unlock(&s->lock);
}

qg_err
qg_admin_sessions_init(qg_admin_sessions *s, const qg_config_passwords *cfg, const char *kme_id)
{
	s->cfg = cfg;
	s->of = calloc(cfg->max_sessions, sizeof *s->of);
	if (s->of == NULL)
		return QG_E_NOMEM;
	pthread_mutex_init(&s->lock, NULL);
	name_cookie(s, kme_id);
	return QG_OK;
}

void
qg_admin_sessions_fini(qg_admin_sessions *s)
{
	if (s->of == NULL)
		return;
	qg_wipe(s->of, s->cfg->max_sessions * sizeof *s->of);
	free(s->of);
	s->of = NULL;
	pthread_mutex_destroy(&s->lock);
}

/* --- the caller of a request --------------------------------------------------------------- */

static visitor *
visitor_of(qg_admin_sessions *s, const uint8_t id[32], bool idle)
{
	const uint64_t now_ms = qg_clock_elapsed_ms();
	visitor *v = calloc(1, sizeof *v);
	pthread_mutex_lock(&s->lock);
	end_old(s, now_ms);
	session *const one = v != NULL ? find(s, id) : NULL;
	if (one != NULL) {
		one->seen_ms = idle ? one->seen_ms : now_ms;
		memcpy(v->name, one->account.name, sizeof v->name);
		memcpy(v->token, one->token, sizeof v->token);
		memcpy(v->id, id, sizeof v->id);
		v->user = (qg_config_admin_user){.name = v->name, .read_only = one->account.read_only};
		v->idle_ms = idle_left_ms(s, one, now_ms);
		v->left_ms = left_ms(s, one, now_ms);
	}
	pthread_mutex_unlock(&s->lock);
	if (one == NULL) {
		free(v);
		v = NULL;
	}
	return v;
}

const void *
qg_admin_identify_request(const qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	uint8_t id[32];
	if (a->sign_in == NULL || !qg_admin_cookie_id(&a->sessions, http, id))
		return NULL;
	return visitor_of(&a->sessions, id, qg_http_header(http, IDLE_HEADER) != NULL);
}

void
qg_admin_forget_request(const void *peer, void *admin)
{
	(void)admin;
	visitor *v = (visitor *)(uintptr_t)peer;
	qg_wipe(v, sizeof *v);
	free(v);
}

/* --- what a browser may ask for ------------------------------------------------------------- */

/* A certificate or a cookie comes along whoever made the browser ask. Browsers say who
 * that was; programs say nothing. At the socket there is no browser to be sure of. */
bool
qg_admin_is_ours(const qg_http_request *http)
{
	const char *const site = qg_http_header(http, "Sec-Fetch-Site"), *const origin = qg_http_header(http, "Origin");
	const char *const host = qg_http_header(http, "Host");
	if (qg_http_local_peer(http) != NULL)
		return origin == NULL && site == NULL;
	if (site != NULL && strcmp(site, "same-origin") != 0)
		return false;
	return origin == NULL ||
	       (host != NULL && strncmp(origin, "https://", 8) == 0 && strcasecmp(origin + 8, host) == 0);
}

bool
qg_admin_has_token(const qg_http_request *http)
{
	const visitor *const v = qg_http_visitor(http);
	const char *const token = qg_http_header(http, TOKEN_HEADER);
	return v == NULL || (token != NULL && strlen(token) == strlen(v->token) &&
			     qg_equal_ct(token, v->token, strlen(v->token)));
}

/* --- GET and DELETE /api/v1/session ----------------------------------------------------------- */

void
qg_admin_on_session(qg_http_request *http, void *admin)
{
	(void)admin;
	const qg_config_admin_user *const user = qg_http_peer(http);
	const visitor *const v = qg_http_visitor(http);
	const char *const by = v != NULL ? "password" : qg_http_local_peer(http) != NULL ? "socket" : "certificate";
	json_t *j = json_pack("{s:s,s:s,s:b}", "user", user->name, "by", by, "read_only", user->read_only);
	(void)json_object_set_new(j, "token", v != NULL ? json_string(v->token) : json_null());
	(void)json_object_set_new(j, "idle_in_s",
				  v != NULL ? json_integer((json_int_t)(v->idle_ms / 1000)) : json_null());
	(void)json_object_set_new(j, "ends_in_s",
				  v != NULL ? json_integer((json_int_t)(v->left_ms / 1000)) : json_null());
	qg_admin_answer(http, 200, j);
}

void
qg_admin_on_sign_out(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	const visitor *const v = qg_http_visitor(http);
	char who[QG_ADMIN_WHO_ROOM], header[160];
	if (v == NULL) {
		qg_admin_answer_error(http, QG_E_STATE, "there is no session to end: you are here by certificate or socket");
		return;
	}
	if (!qg_admin_is_ours(http) || !qg_admin_has_token(http)) {
		qg_admin_answer_error(http, QG_E_DENIED, "this did not come from the dashboard");
		return;
	}
	qg_admin_who(http, who);
	qg_admin_sessions_end(&a->sessions, v->id);
	qg_admin_audit(a, who, "sign out", "", QG_OK);
	(void)snprintf(header, sizeof header, "%s=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0",
		       a->sessions.cookie);
	qg_http_set_header(http, "Set-Cookie", header);
	qg_admin_answer(http, 200, json_pack("{s:s}", "done", "sign-out"));
}
