/* SPDX-License-Identifier: Apache-2.0 */
/* POST /api/v1/session: signs in with a password. To compare one takes long and much
 * memory on purpose, so a thread of its own does it, one at a time, for few who wait;
 * and who tries too often is not even compared. */
#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/in.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"
#include "qkdgate/request_id.h"
#include "qkdgate/secret.h"

#define WAITING_MAX 4
#define KEYS 2 /* address and account */

typedef struct attempt {
	struct attempt *next;
	qg_http_request *http;
	qg_request_id id;
	char name[QG_PASSWORD_NAME_MAX + 1];
	char from[INET6_ADDRSTRLEN];
	uint8_t keys[KEYS][QG_ADMIN_LIMIT_KEY];
	bool had_session;
	uint8_t old[32]; /* of the session that the browser had */
	qg_secret *password;
} attempt;

struct qg_admin_sign_in {
	qg_admin *a;
	pthread_t thread;
	pthread_mutex_t lock; /* of all but passwords */
	pthread_cond_t wake;
	bool stopping;
	size_t waiting;
	attempt *first, **last;
	qg_admin_limit limit;
	pthread_mutex_t file; /* of passwords; taken before that of the sessions */
	qg_passwords *passwords;
};

typedef struct qg_admin_sign_in sign_in;

static void
attempt_free(attempt *t)
{
	qg_secret_free(&t->password);
	qg_wipe(t, sizeof *t);
	free(t);
}

/* --- the answer -------------------------------------------------------------------------- */

static void
answer_wait(qg_http_request *http, unsigned wait_s)
{
	char text[16];
	(void)snprintf(text, sizeof text, "%u", wait_s);
	qg_http_set_header(http, "Retry-After", text);
	qg_admin_answer(http, 429, json_pack("{s:s,s:i}", "message", "too many attempts: wait", "wait_s", (int)wait_s));
}

static void
answer_session(sign_in *s, const attempt *t, const qg_account *account)
{
	char cookie[QG_ADMIN_TOKEN_ROOM], token[QG_ADMIN_TOKEN_ROOM], header[192];
	qg_admin_sessions *const all = &s->a->sessions;
	if (t->had_session)
		qg_admin_sessions_end(all, t->old);
	qg_admin_sessions_begin(all, account, cookie, token);
	(void)snprintf(header, sizeof header, "%s=%s; Path=/; Secure; HttpOnly; SameSite=Strict", all->cookie, cookie);
	qg_http_set_header(t->http, "Set-Cookie", header);
	json_t *j = json_pack("{s:s,s:s,s:b,s:s,s:I,s:I}", "user", account->name, "by", "password", "read_only",
			      account->read_only, "token", token, "idle_in_s", (json_int_t)all->cfg->idle_s, "ends_in_s",
			      (json_int_t)all->cfg->session_s);
	qg_wipe(cookie, sizeof cookie);
	qg_wipe(token, sizeof token);
	qg_wipe(header, sizeof header);
	qg_admin_answer(t->http, 200, j);
}

static void
note(sign_in *s, const attempt *t, qg_err err)
{
	char who[QG_ADMIN_WHO_ROOM];
	(void)snprintf(who, sizeof who, "password:%s", t->name);
	qg_admin_audit(s->a, who, "sign in", t->from, err);
	if (err != QG_OK)
		qg_log(QG_LOG_WARN, "admin", "event=sign_in_failed user=%s from=%s", qg_log_safe(t->name), t->from);
}

/* The file may be another one as soon as its lock is given up, so the session begins
 * before that. */
static void
compare(sign_in *s, attempt *t)
{
	qg_account account;
	pthread_mutex_lock(&s->file);
	const qg_err err = qg_passwords_verify(s->passwords, t->name, (const char *)t->password->data, t->password->len,
					       &account);
	if (err == QG_OK) {
		pthread_mutex_lock(&s->lock);
		qg_admin_limit_give_back(&s->limit, (const uint8_t(*)[QG_ADMIN_LIMIT_KEY])t->keys, KEYS,
					 qg_clock_elapsed_ms());
		pthread_mutex_unlock(&s->lock);
	}
	note(s, t, err);
	if (err == QG_OK)
		answer_session(s, t, &account);
	else if (err == QG_E_AUTH)
		qg_admin_answer(t->http, 401, json_pack("{s:s}", "message", "user or password is wrong"));
	else
		qg_admin_answer_error(t->http, err, "out of memory");
	pthread_mutex_unlock(&s->file);
}

/* --- the thread ---------------------------------------------------------------------------- */

static attempt *
next_attempt(sign_in *s)
{
	pthread_mutex_lock(&s->lock);
	while (s->first == NULL && !s->stopping)
		pthread_cond_wait(&s->wake, &s->lock);
	attempt *const t = s->stopping ? NULL : s->first;
	if (t != NULL) {
		s->first = t->next;
		if (s->first == NULL)
			s->last = &s->first;
	}
	pthread_mutex_unlock(&s->lock);
	return t;
}

static void *
sign_in_main(void *arg)
{
	sign_in *s = arg;
	for (attempt *t; (t = next_attempt(s)) != NULL;) {
		(void)qg_request_id_enter(&t->id);
		compare(s, t);
		(void)qg_request_id_enter(NULL);
		attempt_free(t);
		pthread_mutex_lock(&s->lock);
		s->waiting--;
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

static bool
start_thread(sign_in *s)
{
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	const bool ok = pthread_create(&s->thread, NULL, sign_in_main, s) == 0;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return ok;
}

/* --- start, stop, reload --------------------------------------------------------------------- */

static void
sign_in_free(sign_in *s)
{
	pthread_mutex_destroy(&s->lock);
	pthread_mutex_destroy(&s->file);
	pthread_cond_destroy(&s->wake);
	qg_passwords_free(&s->passwords);
	free(s);
}

qg_err
qg_admin_sign_in_start(qg_admin *a, char *why, size_t why_room)
{
	const qg_config_passwords *const cfg = &a->cfg->passwords;
	if (cfg->file == NULL || !a->cfg->has_listener)
		return QG_OK;
	sign_in *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	s->a = a;
	s->last = &s->first;
	pthread_mutex_init(&s->lock, NULL);
	pthread_mutex_init(&s->file, NULL);
	pthread_cond_init(&s->wake, NULL);
	qg_admin_limit_init(&s->limit, cfg->attempts, cfg->attempt_s, qg_clock_elapsed_ms());
	qg_err err = qg_passwords_load(cfg->file, &s->passwords, why, why_room);
	if (err == QG_OK)
		err = qg_admin_sessions_init(&a->sessions, cfg, a->p.cfg->kme_id);
	if (err == QG_OK && !start_thread(s))
		err = QG_E_NOMEM;
	if (err != QG_OK) {
		sign_in_free(s);
		qg_admin_sessions_fini(&a->sessions);
		return err;
	}
	a->sign_in = s;
	return QG_OK;
}

void
qg_admin_sign_in_stop(qg_admin *a)
{
	sign_in *const s = a->sign_in;
	if (s == NULL)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	pthread_cond_signal(&s->wake);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	while (s->first != NULL) {
		attempt *const t = s->first;
		s->first = t->next;
		qg_admin_answer_error(t->http, QG_E_CLOSED, "the gateway is stopping");
		attempt_free(t);
	}
	a->sign_in = NULL;
	sign_in_free(s);
	qg_admin_sessions_fini(&a->sessions);
}

qg_err
qg_admin_reload_passwords(qg_admin *a, char *why, size_t why_room)
{
	if (a == NULL || a->sign_in == NULL)
		return QG_OK;
	sign_in *const s = a->sign_in;
	qg_passwords *fresh = NULL;
	const qg_err err = qg_passwords_load(a->cfg->passwords.file, &fresh, why, why_room);
	if (err != QG_OK)
		return err;
	pthread_mutex_lock(&s->file);
	qg_passwords *old = s->passwords;
	s->passwords = fresh;
	qg_admin_sessions_keep(&a->sessions, fresh);
	pthread_mutex_unlock(&s->file);
	qg_passwords_free(&old);
	return QG_OK;
}

/* --- POST /api/v1/session ---------------------------------------------------------------------- */

static void
make_key(uint8_t key[QG_ADMIN_LIMIT_KEY], const char *kind, const void *bytes, size_t n)
{
	crypto_generichash(key, QG_ADMIN_LIMIT_KEY, bytes, n, (const unsigned char *)kind, strlen(kind));
}

static bool
is_v4(const uint8_t address[16])
{
	static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
	return memcmp(address, mapped, sizeof mapped) == 0;
}

/* Who has an IPv6 address has a whole network of them. */
static void
see_client(sign_in *s, attempt *t)
{
	uint8_t address[16] = {0};
	(void)qg_http_address(t->http, address);
	const bool v4 = is_v4(address);
	(void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? address + 12 : address, t->from, sizeof t->from);
	make_key(t->keys[0], "limit:address...", address, v4 ? 16 : 8);
	make_key(t->keys[1], "limit:account...", t->name, strlen(t->name));
	t->had_session = qg_admin_cookie_id(&s->a->sessions, t->http, t->old);
}

/* The two members of the body; false: answered. */
static bool
read_body(qg_http_request *http, attempt *t)
{
	size_t len = 0;
	json_t *body = NULL;
	qg_json_error why;
	const char *const text = qg_http_body(http, &len);
	if (qg_json_parse_object(text, len, &body, &why) != QG_OK) {
		qg_admin_answer_error(http, QG_E_PARSE, "the body is no JSON object: %s %s", why.member, why.what);
		return false;
	}
	const json_t *const user = json_object_get(body, "user"), *const password = json_object_get(body, "password");
	const size_t user_len = json_string_length(user), password_len = json_string_length(password);
	const bool good = json_object_size(body) == 2 && json_is_string(user) && json_is_string(password) && user_len > 0 &&
			  user_len <= QG_PASSWORD_NAME_MAX && password_len <= QG_PASSWORD_MAX;
	qg_err err = good ? qg_secret_new(QG_PASSWORD_MAX, &t->password) : QG_E_INVAL;
	if (err == QG_OK)
		err = qg_secret_append(t->password, json_string_value(password), password_len);
	if (err == QG_OK)
		memcpy(t->name, json_string_value(user), user_len);
	json_decref(body);
	if (err != QG_OK)
		qg_admin_answer_error(http, err, "give user and password, of at most %d and %d bytes", QG_PASSWORD_NAME_MAX,
				      QG_PASSWORD_MAX);
	return err == QG_OK;
}

/* Takes it into the row, or says how long to wait first: -1, the row is full. */
static int
enter(sign_in *s, attempt *t)
{
	pthread_mutex_lock(&s->lock);
	int wait = -1;
	if (s->waiting < WAITING_MAX)
		wait = (int)qg_admin_limit_take(&s->limit, (const uint8_t(*)[QG_ADMIN_LIMIT_KEY])t->keys, KEYS,
						qg_clock_elapsed_ms());
	if (wait == 0) {
		qg_http_defer(t->http);
		s->waiting++;
		*s->last = t;
		s->last = &t->next;
		pthread_cond_signal(&s->wake);
	}
	pthread_mutex_unlock(&s->lock);
	return wait;
}

void
qg_admin_on_sign_in(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	if (a->sign_in == NULL || qg_http_local_peer(http) != NULL) {
		qg_admin_answer_error(http, QG_E_NOTFOUND, "nobody signs in with a password here");
		return;
	}
	if (!qg_admin_is_ours(http)) {
		qg_admin_answer_error(http, QG_E_DENIED, "this did not come from the dashboard");
		return;
	}
	attempt *t = calloc(1, sizeof *t);
	if (t == NULL) {
		qg_admin_answer_error(http, QG_E_NOMEM, "out of memory");
		return;
	}
	t->http = http;
	t->id = qg_request_id_now();
	int wait = 0;
	if (!read_body(http, t)) {
		attempt_free(t);
		return;
	}
	see_client(a->sign_in, t);
	wait = enter(a->sign_in, t);
	if (wait == 0)
		return;
	if (wait < 0)
		qg_admin_answer_error(http, QG_E_AGAIN, "others are signing in: try again");
	else
		answer_wait(http, (unsigned)wait);
	attempt_free(t);
}
