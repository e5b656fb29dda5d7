/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions that are resumed, chains that were verified before, and what becomes
 * of both when trust, revocations or time change. */
#include "http_fixture.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <sys/socket.h>

/* Stands before GnuTLS's own, and counts the verifications of clients. */
static atomic_int n_verified;

int
gnutls_certificate_verify_peers(gnutls_session_t session, gnutls_typed_vdata_st *data, unsigned n, unsigned *status)
{
	int (*own)(gnutls_session_t, gnutls_typed_vdata_st *, unsigned, unsigned *) = NULL;
	void *found = dlsym(RTLD_NEXT, "gnutls_certificate_verify_peers");
	memcpy(&own, &found, sizeof own);
	atomic_fetch_add(&n_verified, strcmp((const char *)data[0].data, GNUTLS_KP_TLS_WWW_CLIENT) == 0);
	return own(session, data, n, status);
}

static const char request[] = "GET /show/x HTTP/1.1\r\nHost: k\r\n\r\n";
#define REFUSED (-1)

/* One client that keeps its ticket. */
typedef struct client {
	gnutls_certificate_credentials_t cred;
	gnutls_session_t tls;
	int fd;
	gnutls_datum_t ticket;
	bool resumed;
} client;

static client
client_as(const char *name)
{
	client c = {.fd = -1};
	gnutls_certificate_allocate_credentials(&c.cred);
	assert_int_equal(gnutls_certificate_set_x509_key_file(c.cred, pki_file(name, ".pem"), pki_file(name, ".key"),
							      GNUTLS_X509_FMT_PEM),
			 0);
	return c;
}

static void
client_hang_up(client *c)
{
	if (c->tls == NULL)
		return;
	gnutls_deinit(c->tls);
	close(c->fd);
	c->tls = NULL;
}

static void
client_free(client *c)
{
	client_hang_up(c);
	gnutls_free(c->ticket.data);
	gnutls_certificate_free_credentials(c->cred);
}

/* Whether the text holds a whole answer. */
static bool
is_whole(const char *text)
{
	const char *end = strstr(text, "\r\n\r\n");
	const char *len = strcasestr(text, "\r\ncontent-length:");
	return end != NULL && len != NULL && strlen(end + 4) == strtoul(len + 17, NULL, 10);
}

/* The status of one request on what is connected; REFUSED: it ended instead. */
static int
client_ask(client *c)
{
	char text[8192] = "";
	size_t have = 0;
	if (gnutls_record_send(c->tls, request, sizeof request - 1) < 0)
		return REFUSED;
	while (!is_whole(text)) {
		const ssize_t n = gnutls_record_recv(c->tls, text + have, sizeof text - 1 - have);
		if (n == GNUTLS_E_AGAIN || n == GNUTLS_E_INTERRUPTED)
			continue;
		if (n <= 0)
			return REFUSED;
		have += (size_t)n;
		text[have] = '\0';
	}
	if ((gnutls_session_get_flags(c->tls) & GNUTLS_SFLAGS_SESSION_TICKET) != 0) {
		gnutls_free(c->ticket.data);
		assert_int_equal(gnutls_session_get_data2(c->tls, &c->ticket), 0);
	}
	return (int)strtol(text + 9, NULL, 10);
}

/* Connects anew, with the ticket where there is one, and asks. */
static int
client_connect(client *c)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)qg_http_server_port(server)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	client_hang_up(c);
	c->fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&a, sizeof a), 0);
	gnutls_init(&c->tls, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
	gnutls_priority_set_direct(c->tls, "NORMAL:-VERS-ALL:+VERS-TLS1.3", NULL);
	gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, c->cred);
	gnutls_transport_set_int(c->tls, c->fd);
	gnutls_handshake_set_timeout(c->tls, 20000);
	if (c->ticket.data != NULL)
		assert_int_equal(gnutls_session_set_data(c->tls, c->ticket.data, c->ticket.size), 0);
	int rc;
	do
		rc = gnutls_handshake(c->tls);
	while (rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED);
	c->resumed = rc == 0 && gnutls_session_is_resumed(c->tls) != 0;
	return rc == 0 ? client_ask(c) : REFUSED;
}

static void
expect_reload(const qg_tls_files *f, qg_err want, const char *in_why)
{
	char why[256] = "";
	assert_int_equal(qg_http_server_reload_tls(server, f, why, sizeof why), want);
	if (in_why != NULL && strstr(why, in_why) == NULL)
		fail_msg("'%s' is not in '%s'", in_why, why);
}

static void
start_without_crl(void)
{
	qg_http_options o = default_options();
	o.tls.crl = NULL;
	o.threads = 1;
	start_with(&o);
	atomic_store(&n_verified, 0);
}

/* --- one verification ------------------------------------------------------- */

static void
a_chain_is_verified_once(void **state)
{
	(void)state;
	start_without_crl();
	client c = client_as("alice"), same = client_as("alice"), other = client_as("bob");
	assert_int_equal(client_connect(&c), 200);
	assert_false(c.resumed);
	assert_int_equal(atomic_load(&n_verified), 1);
	assert_int_equal(client_connect(&c), 200);
	assert_true(c.resumed);
	assert_int_equal(client_connect(&same), 200);
	assert_false(same.resumed);
	assert_int_equal(atomic_load(&n_verified), 1);
	/* Who is known is decided every time, from what its certificate says. */
	assert_int_equal(atomic_load(&n_identified), 3);
	assert_int_equal(client_connect(&other), 401);
	assert_int_equal(atomic_load(&n_verified), 2);
	assert_int_equal(client_connect(&other), 401);
	assert_true(other.resumed);
	client_free(&c);
	client_free(&same);
	client_free(&other);
}

/* What failed is never kept: it fails again, and is looked at again. */
static void
a_refused_chain_is_not_kept(void **state)
{
	(void)state;
	start_without_crl();
	client c = client_as("expired");
	assert_int_equal(client_connect(&c), REFUSED);
	assert_int_equal(client_connect(&c), REFUSED);
	assert_int_equal(atomic_load(&n_verified), 2);
	client_free(&c);
}

/* --- revocation --------------------------------------------------------------- */

static void
a_revoked_certificate_is_refused_however_it_comes(void **state)
{
	(void)state;
	start_without_crl();
	client kept = client_as("revoked"), again = client_as("revoked"), fresh = client_as("revoked");
	client good = client_as("alice");
	assert_int_equal(client_connect(&kept), 200);
	assert_int_equal(client_connect(&again), 200);
	assert_int_equal(client_connect(&good), 200);
	const qg_tls_files f = pki_files("kme-a");
	expect_reload(&f, QG_OK, NULL);
	assert_int_equal(client_ask(&kept), 401); /* on a connection that was there before */
	assert_int_equal(client_ask(&kept), 401);
	assert_int_equal(client_connect(&again), 401);
	assert_true(again.resumed);
	assert_int_equal(client_connect(&fresh), REFUSED);
	/* The others go on, also with the ticket they have. */
	assert_int_equal(client_ask(&good), 200);
	assert_int_equal(client_connect(&good), 200);
	assert_true(good.resumed);
	int verified = atomic_load(&n_verified);
	assert_int_equal(client_connect(&good), 200);
	assert_int_equal(atomic_load(&n_verified), verified);
	client_free(&kept);
	client_free(&again);
	client_free(&fresh);
	client_free(&good);
}

static void
a_change_of_authorities_ends_what_it_does_not_trust(void **state)
{
	(void)state;
	start_without_crl();
	client kept = client_as("alice"), again = client_as("alice");
	assert_int_equal(client_connect(&kept), 200);
	assert_int_equal(client_connect(&again), 200);
	qg_tls_files f = pki_files("kme-a");
	f.crl = NULL;
	f.ca = pki_file("foreign-ca", ".pem");
	expect_reload(&f, QG_OK, NULL);
	assert_int_equal(client_ask(&kept), 401);
	assert_int_equal(client_connect(&again), 401);
	assert_true(again.resumed);
	f.ca = pki_file("ca", ".pem");
	expect_reload(&f, QG_OK, NULL);
	assert_int_equal(client_ask(&kept), 200);
	assert_int_equal(client_connect(&again), 200);
	client_free(&kept);
	client_free(&again);
}

static void
a_bad_reload_changes_nothing(void **state)
{
	(void)state;
	start_without_crl();
	client c = client_as("alice");
	assert_int_equal(client_connect(&c), 200);
	const qg_tls_files good = pki_files("kme-a");
	qg_tls_files f = good;
	f.ca = pki_file("nothing", ".pem");
	expect_reload(&f, QG_E_IO, "nothing.pem");
	f = good;
	f.crl = good.ca;
	expect_reload(&f, QG_E_PARSE, "revocation list");
	f = good;
	f.key = pki_file("kme-b", ".key");
	expect_reload(&f, QG_E_MISMATCH, "kme-b.key");
	int verified = atomic_load(&n_verified);
	assert_int_equal(client_ask(&c), 200);
	assert_int_equal(client_connect(&c), 200);
	assert_true(c.resumed);
	assert_int_equal(atomic_load(&n_verified), verified);
	client_free(&c);
}

/* --- time ------------------------------------------------------------------------ */

static atomic_llong wall_s;
static atomic_ullong ahead_ms;

static uint64_t
later_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + atomic_load(&ahead_ms);
}

static int64_t
set_wall_ms(void)
{
	return (int64_t)atomic_load(&wall_s) * 1000;
}

#define FEBRUARY_2024 1706745600 /* when expired.pem expires */

static void
an_expired_certificate_is_refused_at_resumption(void **state)
{
	(void)state;
	static const qg_clock_ops ops = {.elapsed_ms = later_ms, .wall_ms = set_wall_ms};
	atomic_store(&wall_s, FEBRUARY_2024 - 30);
	qg_clock_use(&ops);
	start_without_crl();
	client c = client_as("expired"), good = client_as("alice");
	assert_int_equal(client_connect(&good), 200);
	assert_int_equal(client_connect(&c), 200);
	assert_int_equal(client_connect(&c), 200);
	assert_true(c.resumed);
	assert_int_equal(atomic_load(&n_verified), 2);
	atomic_store(&wall_s, FEBRUARY_2024 + 30);
	assert_int_equal(client_connect(&c), 401);
	assert_true(c.resumed);
	gnutls_free(c.ticket.data);
	c.ticket.data = NULL;
	assert_int_equal(client_connect(&c), REFUSED);
	assert_int_equal(client_connect(&good), 200);
	assert_int_equal(atomic_load(&n_verified), 4); /* the good one's still held */
	/* A clock that goes back gives back nothing that was not verified anew. */
	atomic_store(&wall_s, FEBRUARY_2024 - 30);
	assert_int_equal(client_connect(&c), 200);
	assert_int_equal(atomic_load(&n_verified), 5);
	client_free(&c);
	client_free(&good);
	qg_http_server_stop(&server);
	qg_clock_use(NULL);
}

/* --- tickets ---------------------------------------------------------------------- */

static int64_t
real_wall_ms(void)
{
	return (int64_t)time(NULL) * 1000;
}

static void
ticket_keys_are_replaced(void **state)
{
	(void)state;
	static const qg_clock_ops ops = {.elapsed_ms = later_ms, .wall_ms = real_wall_ms};
	atomic_store(&ahead_ms, 0);
	qg_clock_use(&ops);
	start_without_crl();
	client c = client_as("alice");
	assert_int_equal(client_connect(&c), 200);
	assert_int_equal(client_connect(&c), 200);
	assert_true(c.resumed);
	client_hang_up(&c);
	atomic_store(&ahead_ms, 3601000); /* ticket_key_s and a second */
	assert_int_equal(client_connect(&c), 200);
	assert_false(c.resumed);
	assert_int_equal(client_connect(&c), 200);
	assert_true(c.resumed);
	assert_int_equal(atomic_load(&n_verified), 1); /* the chain is still known */
	client_free(&c);
	qg_http_server_stop(&server);
	qg_clock_use(NULL);
}

static void
tickets_can_be_had_not_at_all(void **state)
{
	(void)state;
	qg_http_options o = default_options();
	o.ticket_key_s = 0;
	start_with(&o);
	client c = client_as("alice");
	assert_int_equal(client_connect(&c), 200);
	assert_null(c.ticket.data);
	assert_int_equal(client_connect(&c), 200);
	assert_false(c.resumed);
	client_free(&c);
}

/* A ticket of one listener is worth nothing at another, whoever the client is. */
static void
a_ticket_of_another_listener_does_not_resume(void **state)
{
	(void)state;
	start_without_crl();
	client c = client_as("alice");
	assert_int_equal(client_connect(&c), 200);
	client_hang_up(&c);
	qg_http_server_stop(&server);
	start_without_crl();
	assert_int_equal(client_connect(&c), 200);
	assert_false(c.resumed);
	client_free(&c);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_chain_is_verified_once, stop_server),
		cmocka_unit_test_teardown(a_refused_chain_is_not_kept, stop_server),
		cmocka_unit_test_teardown(a_revoked_certificate_is_refused_however_it_comes, stop_server),
		cmocka_unit_test_teardown(a_change_of_authorities_ends_what_it_does_not_trust, stop_server),
		cmocka_unit_test_teardown(a_bad_reload_changes_nothing, stop_server),
		cmocka_unit_test_teardown(an_expired_certificate_is_refused_at_resumption, stop_server),
		cmocka_unit_test_teardown(ticket_keys_are_replaced, stop_server),
		cmocka_unit_test_teardown(tickets_can_be_had_not_at_all, stop_server),
		cmocka_unit_test_teardown(a_ticket_of_another_listener_does_not_resume, stop_server),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
