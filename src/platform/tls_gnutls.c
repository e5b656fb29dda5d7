/* SPDX-License-Identifier: Apache-2.0 */
/* GnuTLS: sessions, and who is at their other end. */
#include <gnutls/abstract.h>
#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/clock.h"
#include "tls_gnutls_internal.h"

/* AEAD only, elliptic curves only, no version before 1.2. GnuTLS never
 * renegotiates by itself and answers a peer's wish with GNUTLS_E_REHANDSHAKE,
 * which here and in libmicrohttpd ends the connection. */
#define SUITES \
	"-CIPHER-ALL:+AES-256-GCM:+CHACHA20-POLY1305:+AES-128-GCM:-MAC-ALL:+AEAD:" \
	"-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:" \
	"-GROUP-ALL:+GROUP-X25519:+GROUP-SECP256R1:+GROUP-SECP384R1:+GROUP-X448:+GROUP-SECP521R1:" \
	"-SIGN-RSA-SHA1:-SIGN-ECDSA-SHA1"

static const char *const priorities[] = {
	[QG_TLS_1_2] = "NORMAL:%SERVER_PRECEDENCE:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:" SUITES,
	[QG_TLS_1_3] = "NORMAL:%SERVER_PRECEDENCE:-VERS-ALL:+VERS-TLS1.3:" SUITES,
};

#define CHAIN_PARTS 16 /* GnuTLS takes no longer chain */
#define TICKET_KEY_S 21600u

struct qg_tls_context {
	gnutls_priority_t priority;
	qg_tls_role role;
	bool optional; /* a client need have no certificate */
	_Atomic(qg_tls_trust *) trust; /* changed and counted up under the lock */
	pthread_mutex_t lock;
	gnutls_datum_t ticket_key; /* one per listener: a ticket of one is worth nothing at another */
	unsigned ticket_key_s;
	uint64_t ticket_key_ms; /* when it was made */
	bool own_tickets;       /* for sessions of qg_tls_session_new, too */
};

struct qg_tls_session {
	gnutls_session_t gnutls;
	const char *peer_name;
	qg_tls_context *ctx;
	qg_tls_trust *trust; /* the files that it lives under */
	bool up;             /* the handshake is done */
};

/* --- what GnuTLS gives back ------------------------------------------------ */

/* GnuTLS decrypts each record into a block of its own with room for the largest one there may be,
 * and gives it back when all of it was read, or with its session: so many bytes are wiped then. */
static _Thread_local size_t wiped_bytes;

#define BLOCK_HEAD 512u /* more than GnuTLS has before the record in its block */
#define BLOCK_LEAST 512u /* no largest record is smaller (RFC 6066, 4): below are pieces of handshakes */

static void
free_received(void *p)
{
	if (wiped_bytes > 0 && malloc_usable_size(p) >= BLOCK_LEAST)
		qg_free_wiped_to(p, wiped_bytes);
	else
		free(p);
}

void
qg_tls_wipe_received(void)
{
	gnutls_free = free_received;
}

void
qg_tls_wipe_here(void)
{
	wiped_bytes = SIZE_MAX;
}

void
qg_tls_wipe_adopted(void)
{
	wiped_bytes = BLOCK_HEAD;
}

/* To wipe no more than the largest record that came costs a request nothing that can be measured,
 * to wipe the whole block a fiftieth of its time. */
static void
foresee_record(size_t n)
{
	if (wiped_bytes > 0 && n > wiped_bytes - BLOCK_HEAD)
		wiped_bytes = n + BLOCK_HEAD;
}

/* --- verifying a peer ----------------------------------------------------- */

static gnutls_alert_description_t
alert_of(unsigned status)
{
	static const struct {
		unsigned bit;
		gnutls_alert_description_t alert;
	} table[] = {
		{GNUTLS_CERT_REVOKED, GNUTLS_A_CERTIFICATE_REVOKED},
		{GNUTLS_CERT_EXPIRED, GNUTLS_A_CERTIFICATE_EXPIRED},
		{GNUTLS_CERT_SIGNER_NOT_FOUND, GNUTLS_A_UNKNOWN_CA},
		{GNUTLS_CERT_PURPOSE_MISMATCH, GNUTLS_A_UNSUPPORTED_CERTIFICATE},
	};
	for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
		if ((status & table[i].bit) != 0)
			return table[i].alert;
	return GNUTLS_A_BAD_CERTIFICATE;
}

/* Chain, time, revocation, purpose and, where given, the name. */
static bool
verify_peer(gnutls_session_t session, qg_tls_role peer_role, const char *name, unsigned *status)
{
	char client_oid[] = GNUTLS_KP_TLS_WWW_CLIENT;
	char server_oid[] = GNUTLS_KP_TLS_WWW_SERVER;
	gnutls_typed_vdata_st want[2] = {{.type = GNUTLS_DT_KEY_PURPOSE_OID}, {.type = GNUTLS_DT_DNS_HOSTNAME}};
	want[0].data = (unsigned char *)(peer_role == QG_TLS_CLIENT ? client_oid : server_oid);
	char host[QG_TLS_NAME_MAX] = "";
	unsigned n = 1;
	if (name != NULL) {
		size_t len = strlen(name);
		if (len >= sizeof host)
			return false;
		memcpy(host, name, len + 1);
		want[n++].data = (unsigned char *)host;
	}
	*status = GNUTLS_CERT_INVALID;
	return gnutls_certificate_verify_peers(session, want, n, status) == 0 && *status == 0;
}

static bool check_client(gnutls_session_t session, unsigned *status, qg_tls_identity *out);

/* libmicrohttpd drops the connection of a failed handshake without a word, so
 * the alert that says why is sent from here. */
static int
verify_client_now(gnutls_session_t session)
{
	const qg_tls_trust *t = gnutls_db_get_ptr(session);
	unsigned status = 0, n = 0;
	if (t->optional && (gnutls_certificate_get_peers(session, &n) == NULL || n == 0))
		return 0;
	if (check_client(session, &status, NULL))
		return 0;
	(void)gnutls_alert_send(session, GNUTLS_AL_FATAL, alert_of(status));
	return GNUTLS_E_CERTIFICATE_ERROR;
}

/* The same for a client that has no certificate at all: its message is an empty
 * list, with an empty context before it in TLS 1.3. */
static int
see_certificate(gnutls_session_t session, const gnutls_datum_t *message)
{
	const qg_tls_trust *t = gnutls_db_get_ptr(session);
	bool tls13 = gnutls_protocol_get_version(session) == GNUTLS_TLS1_3;
	if (t->optional || message->size > (tls13 ? 4 : 3))
		return 0;
	(void)gnutls_alert_send(session, GNUTLS_AL_FATAL,
				tls13 ? GNUTLS_A_CERTIFICATE_REQUIRED : GNUTLS_A_HANDSHAKE_FAILURE);
	return GNUTLS_E_CERTIFICATE_REQUIRED;
}

/* The hello goes out along with the rest of its flight. Tickets are the last that a
 * handshake sends, and often the first request is here already: then they go out
 * along with its answer. */
static int
on_message(gnutls_session_t session, unsigned type, unsigned post, unsigned incoming,
	   const gnutls_datum_t *message)
{
	(void)post;
	if (incoming != 0)
		return type == GNUTLS_HANDSHAKE_CERTIFICATE_PKT ? see_certificate(session, message) : 0;
	if (type == GNUTLS_HANDSHAKE_SERVER_HELLO || type == GNUTLS_HANDSHAKE_NEW_SESSION_TICKET) {
		gnutls_transport_ptr_t in;
		gnutls_transport_ptr_t out;
		gnutls_transport_get_ptr2(session, &in, &out);
		qg_tls_out_hold(out);
	}
	return 0;
}

static int
verify_server_now(gnutls_session_t session)
{
	const qg_tls_session *s = gnutls_session_get_ptr(session);
	unsigned status = 0;
	if (verify_peer(session, QG_TLS_SERVER, s->peer_name, &status))
		return 0;
	(void)gnutls_alert_send(session, GNUTLS_AL_FATAL, alert_of(status));
	return GNUTLS_E_CERTIFICATE_ERROR;
}

/* --- chains that were verified --------------------------------------------- */

/* A stretch of time in which a verdict holds, both ends excluded. */
typedef struct stretch {
	int64_t now_s, from_s, until_s;
} stretch;

static void
stretch_turn(stretch *w, int64_t at_s)
{
	if (at_s <= w->now_s && at_s > w->from_s)
		w->from_s = at_s;
	if (at_s >= w->now_s && at_s < w->until_s)
		w->until_s = at_s;
}

static qg_err
stretch_certificate(stretch *w, const gnutls_datum_t *der)
{
	QG_CRT_AUTO crt = NULL;
	qg_err err = qg_tls_crt_import(der, &crt);
	if (err != QG_OK)
		return err;
	stretch_turn(w, gnutls_x509_crt_get_activation_time(crt));
	stretch_turn(w, gnutls_x509_crt_get_expiration_time(crt));
	return QG_OK;
}

/* Notes a chain that has just been verified at w->now_s. */
static qg_err
remember(const qg_tls_trust *t, const gnutls_datum_t *chain, unsigned n, const qg_chain_key *key, stretch *w,
	 qg_tls_identity *id)
{
	QG_CRT_AUTO leaf = NULL;
	qg_err err = qg_tls_crt_import(&chain[0], &leaf);
	if (err == QG_OK)
		err = qg_tls_crt_identity(leaf, id);
	for (unsigned i = 0; i < n && err == QG_OK; i++)
		err = stretch_certificate(w, &chain[i]);
	for (size_t i = 0; i < t->n_turns; i++)
		stretch_turn(w, t->turns[i]);
	if (err == QG_OK && t->chains != NULL)
		qg_chains_put(t->chains, key, w->from_s, w->until_s, id);
	return err;
}

/* Verifies the client's chain under the session's trust, or finds that done. The
 * verdict is of the moment before, should the clock move meanwhile. */
static bool
check_client(gnutls_session_t session, unsigned *status, qg_tls_identity *out)
{
	static _Thread_local qg_tls_identity unwanted; /* 8 KiB */
	const qg_tls_trust *t = gnutls_db_get_ptr(session);
	stretch w = {.now_s = qg_tls_clock_s(NULL), .from_s = INT64_MIN, .until_s = INT64_MAX};
	unsigned n = 0;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);
	if (chain == NULL || n == 0 || n > CHAIN_PARTS || t->chains == NULL)
		return verify_peer(session, QG_TLS_CLIENT, NULL, status) && out == NULL;
	qg_chain_part parts[CHAIN_PARTS];
	qg_chain_key key;
	for (unsigned i = 0; i < n; i++)
		parts[i] = (qg_chain_part){.data = chain[i].data, .len = chain[i].size};
	qg_chains_key(t->chains, parts, n, &key);
	if (qg_chains_find(t->chains, &key, w.now_s, out))
		return true;
	return verify_peer(session, QG_TLS_CLIENT, NULL, status) &&
	       remember(t, chain, n, &key, &w, out != NULL ? out : &unwanted) == QG_OK;
}

/* --- contexts --------------------------------------------------------------- */

/* The trust of now, counted for the caller. */
static qg_tls_trust *
trust_get(qg_tls_context *ctx)
{
	pthread_mutex_lock(&ctx->lock);
	qg_tls_trust *t = atomic_load(&ctx->trust);
	atomic_fetch_add(&t->refs, 1);
	pthread_mutex_unlock(&ctx->lock);
	return t;
}

bool
qg_tls_is_current(const qg_tls_context *ctx, const qg_tls_trust *held)
{
	return atomic_load_explicit(&ctx->trust, memory_order_acquire) == held;
}

static qg_err
load_trust(const qg_tls_files *f, qg_tls_role role, char *why, size_t why_room, qg_tls_trust **out)
{
	qg_err err = qg_tls_trust_new(f, role, why, why_room, out);
	if (err == QG_OK)
		gnutls_certificate_set_verify_function((*out)->cred,
						       role == QG_TLS_SERVER ? verify_client_now : verify_server_now);
	return err;
}

qg_err
qg_tls_context_new(const qg_tls_files *f, qg_tls_role role, char *why, size_t why_room, qg_tls_context **out)
{
	qg_tls_context *ctx = calloc(1, sizeof *ctx);
	if (ctx == NULL)
		return QG_E_NOMEM;
	ctx->role = role;
	ctx->ticket_key_s = TICKET_KEY_S;
	pthread_mutex_init(&ctx->lock, NULL);
	qg_err err = QG_E_NOMEM;
	qg_tls_trust *trust = NULL;
	if (gnutls_priority_init(&ctx->priority, priorities[f->min_version], NULL) != 0)
		qg_tls_say(why, why_room, "TLS cannot be set up");
	else
		err = load_trust(f, role, why, why_room, &trust);
	atomic_init(&ctx->trust, trust);
	if (err != QG_OK) {
		qg_tls_context_free(&ctx);
		return err;
	}
	*out = ctx;
	return QG_OK;
}

qg_err
qg_tls_context_reload(qg_tls_context *ctx, const qg_tls_files *f, char *why, size_t why_room)
{
	qg_tls_trust *fresh = NULL;
	qg_err err = load_trust(f, ctx->role, why, why_room, &fresh);
	if (err != QG_OK)
		return err;
	fresh->optional = ctx->optional;
	pthread_mutex_lock(&ctx->lock);
	qg_tls_trust *old = atomic_exchange(&ctx->trust, fresh);
	pthread_mutex_unlock(&ctx->lock);
	qg_tls_trust_put(&old);
	return QG_OK;
}

static void
drop_ticket_key(qg_tls_context *ctx)
{
	if (ctx->ticket_key.data == NULL)
		return;
	qg_wipe(ctx->ticket_key.data, ctx->ticket_key.size);
	gnutls_free(ctx->ticket_key.data);
	ctx->ticket_key = (gnutls_datum_t){0};
}

void
qg_tls_context_free(qg_tls_context **ctx)
{
	if (ctx == NULL || *ctx == NULL)
		return;
	qg_tls_context *c = *ctx;
	*ctx = NULL;
	qg_tls_trust *trust = atomic_load(&c->trust);
	qg_tls_trust_put(&trust);
	if (c->priority != NULL)
		gnutls_priority_deinit(c->priority);
	drop_ticket_key(c);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

/* --- sessions ------------------------------------------------------------- */

void
qg_tls_context_tickets(qg_tls_context *ctx, unsigned key_s)
{
	ctx->ticket_key_s = key_s;
	ctx->own_tickets = key_s > 0;
}

void
qg_tls_context_optional(qg_tls_context *ctx)
{
	ctx->optional = true;
	atomic_load(&ctx->trust)->optional = true;
}

/* GnuTLS copies the key, and derives others from it as time goes by; so who has
 * it has them all, and it must go too. A client whose ticket is of an old key
 * does a full handshake. */
static bool
enable_tickets(qg_tls_context *ctx, gnutls_session_t session)
{
	if (ctx->ticket_key_s == 0)
		return true;
	const uint64_t now_ms = qg_clock_elapsed_ms();
	pthread_mutex_lock(&ctx->lock);
	if (ctx->ticket_key.data != NULL && now_ms - ctx->ticket_key_ms >= (uint64_t)ctx->ticket_key_s * 1000)
		drop_ticket_key(ctx);
	bool ok = ctx->ticket_key.data != NULL;
	if (!ok) {
		ctx->ticket_key_ms = now_ms;
		ok = gnutls_session_ticket_key_generate(&ctx->ticket_key) == 0;
	}
	ok = ok && gnutls_session_ticket_enable_server(session, &ctx->ticket_key) == 0;
	pthread_mutex_unlock(&ctx->lock);
	return ok;
}

/* The database of sessions, whose pointer leads to the trust, is one that our
 * sessions do not have. */
static qg_err
put_under(gnutls_session_t session, qg_tls_trust *t)
{
	if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, t->cred) != 0)
		return QG_E_NOMEM;
	gnutls_db_set_ptr(session, t);
	return QG_OK;
}

static ssize_t
push_out(gnutls_transport_ptr_t out, const giovec_t *piece, int n)
{
	return qg_tls_out_push(out, piece, (size_t)n);
}

static ssize_t
pull_in(gnutls_transport_ptr_t in, void *p, size_t n)
{
	foresee_record(n); /* after its head GnuTLS asks for a record as a whole */
	return qg_tls_in_pull(in, p, n);
}

static int
wait_in(gnutls_transport_ptr_t p, unsigned timeout_ms)
{
	const qg_tls_in *in = p;
	if (qg_tls_in_has(in))
		return 1;
	return gnutls_system_recv_timeout((gnutls_transport_ptr_t)(intptr_t)in->fd, timeout_ms);
}

qg_err
qg_tls_adopt(qg_tls_context *ctx, void *session, qg_tls_in *in, qg_tls_out *out, qg_tls_trust **held)
{
	/* Without tickets a TLS 1.3 client with Nagle's algorithm waits 44 ms for
	 * its first answer. */
	*held = trust_get(ctx);
	if (qg_tls_prepare_thread() != QG_OK || gnutls_priority_set(session, ctx->priority) != 0 ||
	    put_under(session, *held) != QG_OK || !enable_tickets(ctx, session))
		return QG_E_NOMEM;
	gnutls_transport_set_ptr2(session, in, out);
	gnutls_transport_set_pull_function(session, pull_in);
	gnutls_transport_set_pull_timeout_function(session, wait_in);
	gnutls_transport_set_vec_push_function(session, push_out);
	gnutls_certificate_server_set_request(session, ctx->optional ? GNUTLS_CERT_REQUEST : GNUTLS_CERT_REQUIRE);
	gnutls_handshake_set_hook_function(session, GNUTLS_HANDSHAKE_ANY, GNUTLS_HOOK_PRE, on_message);
	return QG_OK;
}

qg_err
qg_tls_identify(qg_tls_context *ctx, void *session, qg_tls_trust **held, qg_tls_identity *out)
{
	unsigned status = 0;
	if (!qg_tls_is_current(ctx, *held)) {
		qg_tls_trust *now = trust_get(ctx);
		if (put_under(session, now) != QG_OK) {
			qg_tls_trust_put(&now);
			return QG_E_AUTH;
		}
		qg_tls_trust_put(held);
		*held = now;
	}
	return check_client(session, &status, out) ? QG_OK : QG_E_AUTH;
}

/* Only a completed handshake can be described; nothing else says so. */
qg_tls_step
qg_tls_handshake_state(void *session)
{
	char *description = gnutls_session_get_desc(session);
	if (description != NULL) {
		gnutls_free(description);
		return QG_TLS_DONE;
	}
	return gnutls_record_get_direction(session) == 1 ? QG_TLS_WANT_WRITE : QG_TLS_WANT_READ;
}

static int
find_nothing(gnutls_session_t session, const gnutls_datum_t *ca, int n_ca, const gnutls_pk_algorithm_t *algs,
	     int n_algs, gnutls_pcert_st **certs, unsigned *n_certs, gnutls_privkey_t *key)
{
	(void)session, (void)ca, (void)n_ca, (void)algs, (void)n_algs, (void)certs, (void)n_certs, (void)key;
	return -1;
}

qg_tls_any_fn *
qg_tls_no_certificate(void)
{
	return (qg_tls_any_fn *)find_nothing;
}

static bool
session_set_up(qg_tls_session *s, qg_tls_context *ctx, int fd, bool verify_client)
{
	const bool tickets = ctx->role == QG_TLS_SERVER && ctx->own_tickets;
	unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_SIGNAL | (tickets ? 0 : GNUTLS_NO_TICKETS);
	flags |= ctx->role == QG_TLS_SERVER ? GNUTLS_SERVER : GNUTLS_CLIENT;
	if (qg_tls_prepare_thread() != QG_OK || gnutls_init(&s->gnutls, flags) != 0)
		return false;
	gnutls_session_set_ptr(s->gnutls, s);
	gnutls_transport_set_int(s->gnutls, fd);
	gnutls_handshake_set_timeout(s->gnutls, GNUTLS_INDEFINITE_TIMEOUT); /* the caller's deadline rules */
	s->trust = trust_get(ctx);
	if (gnutls_priority_set(s->gnutls, ctx->priority) != 0 || put_under(s->gnutls, s->trust) != QG_OK ||
	    (tickets && !enable_tickets(ctx, s->gnutls)))
		return false;
	if (ctx->role == QG_TLS_SERVER)
		gnutls_certificate_server_set_request(s->gnutls, verify_client ? GNUTLS_CERT_REQUIRE
									       : GNUTLS_CERT_IGNORE);
	return true;
}

qg_err
qg_tls_session_new(qg_tls_context *ctx, int fd, const char *peer_name, bool verify_client,
		   qg_tls_session **out)
{
	if (ctx->role == QG_TLS_CLIENT && (peer_name == NULL || peer_name[0] == '\0'))
		return QG_E_INVAL;
	qg_tls_session *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	s->peer_name = peer_name;
	s->ctx = ctx;
	if (!session_set_up(s, ctx, fd, verify_client)) {
		qg_tls_session_free(&s);
		return QG_E_NOMEM;
	}
	*out = s;
	return QG_OK;
}

/* Alerts that speak of a certificate. */
static bool
alert_on_certificate(gnutls_session_t session)
{
	switch (gnutls_alert_get(session)) {
	case GNUTLS_A_BAD_CERTIFICATE:
	case GNUTLS_A_UNSUPPORTED_CERTIFICATE:
	case GNUTLS_A_CERTIFICATE_REVOKED:
	case GNUTLS_A_CERTIFICATE_EXPIRED:
	case GNUTLS_A_CERTIFICATE_UNKNOWN:
	case GNUTLS_A_UNKNOWN_CA:
	case GNUTLS_A_ACCESS_DENIED:
	case GNUTLS_A_CERTIFICATE_REQUIRED:
		return true;
	default:
		return false;
	}
}

static qg_tls_step
step_of(qg_tls_session *s, ssize_t rc)
{
	switch (rc) {
	case GNUTLS_E_AGAIN:
	case GNUTLS_E_INTERRUPTED:
		return gnutls_record_get_direction(s->gnutls) == 1 ? QG_TLS_WANT_WRITE : QG_TLS_WANT_READ;
	case GNUTLS_E_PREMATURE_TERMINATION:
		return QG_TLS_EOF;
	case GNUTLS_E_CERTIFICATE_ERROR:
	case GNUTLS_E_CERTIFICATE_REQUIRED:
	case GNUTLS_E_NO_CERTIFICATE_FOUND:
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
		return QG_TLS_REFUSED;
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return alert_on_certificate(s->gnutls) ? QG_TLS_REFUSED : QG_TLS_FAILED;
	default:
		return QG_TLS_FAILED;
	}
}

qg_tls_step
qg_tls_session_handshake(qg_tls_session *s)
{
	int rc;
	do
		rc = gnutls_handshake(s->gnutls);
	while (rc == GNUTLS_E_WARNING_ALERT_RECEIVED || rc == GNUTLS_E_GOT_APPLICATION_DATA);
	if (rc == 0) {
		s->up = true;
		return QG_TLS_DONE;
	}
	qg_tls_step step = step_of(s, rc);
	if (step != QG_TLS_WANT_READ && step != QG_TLS_WANT_WRITE && rc != GNUTLS_E_CERTIFICATE_ERROR)
		(void)gnutls_alert_send_appropriate(s->gnutls, rc);
	return step;
}

qg_tls_step
qg_tls_session_send(qg_tls_session *s, const void *p, size_t n, size_t *sent)
{
	ssize_t rc = gnutls_record_send(s->gnutls, p, n);
	if (rc < 0)
		return step_of(s, rc);
	*sent = (size_t)rc;
	return QG_TLS_DONE;
}

qg_tls_step
qg_tls_session_recv(qg_tls_session *s, void *p, size_t n, size_t *got)
{
	const size_t before = wiped_bytes;
	qg_tls_wipe_here();
	ssize_t rc = gnutls_record_recv(s->gnutls, p, n);
	wiped_bytes = before;
	if (rc == 0)
		return QG_TLS_EOF;
	if (rc < 0)
		return step_of(s, rc);
	*got = (size_t)rc;
	return QG_TLS_DONE;
}

qg_err
qg_tls_session_identify(qg_tls_session *s, qg_tls_identity *out)
{
	return qg_tls_identify(s->ctx, s->gnutls, &s->trust, out);
}

bool
qg_tls_session_is_current(const qg_tls_session *s)
{
	return qg_tls_is_current(s->ctx, s->trust);
}

void
qg_tls_session_free(qg_tls_session **s)
{
	if (s == NULL || *s == NULL)
		return;
	qg_tls_session *old = *s;
	*s = NULL;
	if (old->gnutls != NULL) {
		if (old->up)
			(void)gnutls_bye(old->gnutls, GNUTLS_SHUT_WR);
		const size_t before = wiped_bytes;
		qg_tls_wipe_here(); /* what nobody has read */
		gnutls_deinit(old->gnutls);
		wiped_bytes = before;
	}
	qg_tls_trust_put(&old->trust);
	free(old);
}
