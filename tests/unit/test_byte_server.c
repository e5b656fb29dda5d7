/* SPDX-License-Identifier: Apache-2.0 */
/* The listener for protocols of requests and answers, with one made up here: a
 * request is a line, and so is an answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

#include "pki.h"
#include "qkdgate/byte_server.h"
#include "qkdgate/clock.h"
#include "qkdgate/secret.h"

#define MAX 256
#define PATIENCE_MS 30000 /* of the tests, for what comes */
#define GONE "(closed)"

static qg_byte_server *server;
static _Atomic(qg_byte_conn *) held; /* by "hold" */
static atomic_int n_identified;
static atomic_bool forget_alice;
static const char alice[] = "alice", anybody[] = "anybody";

typedef struct line_state {
	unsigned asked, to_push, pushed;
	int width;
} line_state;

/* --- the protocol ----------------------------------------------------------------- */

static void
say(qg_byte_conn *c, bool last, const char *fmt, ...)
{
	qg_secret *out = NULL;
	va_list ap;
	assert_int_equal(qg_secret_new(MAX, &out), QG_OK);
	va_start(ap, fmt);
	out->len = (size_t)vsnprintf((char *)out->data, out->room, fmt, ap);
	va_end(ap);
	qg_byte_answer(c, out, last);
}

static qg_err
act(qg_byte_conn *c, const char *text, line_state *s)
{
	if (strcmp(text, "bad") == 0)
		return QG_E_PARSE;
	if (strcmp(text, "hold") == 0) {
		atomic_store(&held, c);
		return QG_OK;
	}
	if (strcmp(text, "nothing") == 0)
		qg_byte_answer(c, NULL, false);
	else if (strcmp(text, "last") == 0)
		say(c, true, "bye\n");
	else if (strcmp(text, "who") == 0)
		say(c, false, "%s %u\n", (const char *)qg_byte_peer(c), s->asked);
	else if (sscanf(text, "push %u %d", &s->to_push, &s->width) >= 1)
		say(c, false, "pushing\n");
	else
		say(c, false, "%s\n", text);
	return QG_OK;
}

static qg_err
on_request(qg_byte_conn *c, uint8_t *bytes, size_t n, size_t *used, void *ctx)
{
	line_state *s = qg_byte_state(c);
	uint8_t *end = memchr(bytes, '\n', n);
	char text[MAX];
	assert_ptr_equal(ctx, &server);
	assert_true(n <= MAX);
	if (end == NULL)
		return QG_E_AGAIN;
	*used = (size_t)(end - bytes) + 1;
	memcpy(text, bytes, *used);
	text[*used - 1] = '\0';
	s->asked++;
	s->pushed = 0;
	s->to_push = 0;
	s->width = 0;
	return act(c, text, s);
}

static qg_err
on_unasked(qg_byte_conn *c, void *ctx)
{
	line_state *s = qg_byte_state(c);
	(void)ctx;
	if (s->pushed >= s->to_push)
		return QG_E_AGAIN;
	say(c, false, "%0*u\n", s->width, s->pushed++);
	return QG_OK;
}

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	(void)ctx;
	atomic_fetch_add(&n_identified, 1);
	if (id == NULL)
		return anybody;
	const qg_tls_match match = {.uri = "urn:sae:sae-alice"};
	return qg_tls_matches(&match, id) && !atomic_load(&forget_alice) ? alice : NULL;
}

static qg_byte_options
options(void)
{
	return (qg_byte_options){
		.address = "127.0.0.1",
		.tls = {.certificate = pki_file("kme-a", ".pem"),
			.key = pki_file("kme-a", ".key"),
			.ca = pki_file("ca", ".pem"),
			.min_version = QG_TLS_1_3},
		.plain = true,
		.ticket_key_s = 3600,
		.threads = 2,
		.max_connections = 64,
		.idle_timeout_s = 60,
		.request_max = MAX,
		.state_bytes = sizeof(line_state),
		.ctx = &server,
		.identify = identify,
		.request = on_request,
		.unasked = on_unasked,
	};
}

static void
start(const qg_byte_options *o)
{
	char why[256] = "";
	atomic_store(&held, NULL);
	atomic_store(&n_identified, 0);
	atomic_store(&forget_alice, false);
	if (qg_byte_server_start(o, &server, why, sizeof why) != QG_OK)
		fail_msg("%s", why);
}

static int
stop(void **state)
{
	(void)state;
	if (server != NULL)
		qg_byte_server_stop(server);
	qg_byte_server_free(&server);
	return 0;
}

/* --- clients ------------------------------------------------------------------------ */

typedef struct client {
	int fd;
	gnutls_session_t tls; /* NULL: plain */
	gnutls_certificate_credentials_t cred;
	gnutls_datum_t ticket;
	bool resumed;
} client;

static client
plain(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons((uint16_t)qg_byte_server_port(server)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	client c = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
	assert_int_equal(connect(c.fd, (struct sockaddr *)&a, sizeof a), 0);
	return c;
}

static void
hang_up(client *c)
{
	if (c->tls != NULL)
		gnutls_deinit(c->tls);
	c->tls = NULL;
	if (c->fd >= 0)
		close(c->fd);
	c->fd = -1;
}

static void
leave(client *c)
{
	hang_up(c);
	gnutls_free(c->ticket.data);
	if (c->cred != NULL)
		gnutls_certificate_free_credentials(c->cred);
}

/* Connects anew, with the ticket where there is one; whether TLS came up. */
static bool
again(client *c)
{
	hang_up(c);
	c->fd = plain().fd;
	gnutls_init(&c->tls, GNUTLS_CLIENT | GNUTLS_NO_SIGNAL);
	gnutls_priority_set_direct(c->tls, "NORMAL:-VERS-ALL:+VERS-TLS1.3", NULL);
	gnutls_credentials_set(c->tls, GNUTLS_CRD_CERTIFICATE, c->cred);
	gnutls_transport_set_int(c->tls, c->fd);
	gnutls_handshake_set_timeout(c->tls, PATIENCE_MS);
	if (c->ticket.data != NULL)
		assert_int_equal(gnutls_session_set_data(c->tls, c->ticket.data, c->ticket.size), 0);
	int rc;
	do
		rc = gnutls_handshake(c->tls);
	while (rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED);
	c->resumed = rc == 0 && gnutls_session_is_resumed(c->tls) != 0;
	return rc == 0;
}

static client
secure(const char *name)
{
	client c = {.fd = -1};
	gnutls_certificate_allocate_credentials(&c.cred);
	if (name != NULL)
		assert_int_equal(gnutls_certificate_set_x509_key_file(c.cred, pki_file(name, ".pem"),
								      pki_file(name, ".key"), GNUTLS_X509_FMT_PEM),
				 0);
	(void)again(&c);
	return c;
}

static void
put(client *c, const char *text)
{
	const size_t n = strlen(text);
	/* A server that closed already is seen at the answer. */
	if (c->tls != NULL)
		(void)gnutls_record_send(c->tls, text, n);
	else
		(void)send(c->fd, text, n, MSG_NOSIGNAL);
}

static ssize_t
read_byte(client *c, char *to)
{
	struct pollfd p = {.fd = c->fd, .events = POLLIN};
	if (c->tls == NULL)
		return poll(&p, 1, PATIENCE_MS) == 1 ? recv(c->fd, to, 1, 0) : -2;
	ssize_t rc;
	do {
		if (gnutls_record_check_pending(c->tls) == 0 && poll(&p, 1, PATIENCE_MS) != 1)
			return -2;
		rc = gnutls_record_recv(c->tls, to, 1);
	} while (rc == GNUTLS_E_AGAIN || rc == GNUTLS_E_INTERRUPTED);
	return rc;
}

/* The next line; GONE when there is none. */
static const char *
line(client *c)
{
	static char text[MAX + 1];
	size_t n = 0;
	while (n < MAX) {
		const ssize_t rc = read_byte(c, text + n);
		assert_int_not_equal(rc, -2); /* nothing comes */
		if (rc <= 0)
			return GONE;
		if (text[n] == '\n')
			break;
		n++;
	}
	text[n] = '\0';
	return text;
}

static const char *
ask(client *c, const char *text)
{
	put(c, text);
	const char *got = line(c);
	if (c->tls != NULL && (gnutls_session_get_flags(c->tls) & GNUTLS_SFLAGS_SESSION_TICKET) != 0) {
		gnutls_free(c->ticket.data);
		assert_int_equal(gnutls_session_get_data2(c->tls, &c->ticket), 0);
	}
	return got;
}

static void
nap(void)
{
	(void)nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static qg_byte_conn *
wait_held(void)
{
	qg_byte_conn *c;
	while ((c = atomic_exchange(&held, NULL)) == NULL)
		nap();
	return c;
}

/* --- requests and answers --------------------------------------------------------------- */

static void
requests_whole_in_pieces_and_merged(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	start(&o);
	client c = plain(), other = plain();
	assert_string_equal(ask(&c, "hello\n"), "hello");
	put(&c, "pie");
	assert_string_equal(ask(&other, "who\n"), "anybody 1"); /* a state of its own */
	put(&c, "ce");
	assert_string_equal(ask(&c, "s\n"), "pieces");
	/* More than the buffer holds at once, answered one after the other. */
	for (int i = 0; i < 200; i++)
		put(&c, i % 2 == 0 ? "even\n" : "odd\n");
	for (int i = 0; i < 200; i++)
		assert_string_equal(line(&c), i % 2 == 0 ? "even" : "odd");
	assert_string_equal(ask(&c, "who\n"), "anybody 203");
	/* Nothing is an answer, too: the next request is taken up behind it. */
	assert_string_equal(ask(&c, "nothing\nnothing\nafter\n"), "after");
	assert_string_equal(ask(&c, "last\nmore\n"), "bye");
	assert_string_equal(line(&c), GONE);
	leave(&c);
	leave(&other);
}

static void
the_longest_request_and_one_byte_more(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	char text[MAX + 2];
	start(&o);
	client c = plain(), other = plain();
	memset(text, 'x', sizeof text);
	text[MAX - 1] = '\n';
	text[MAX] = '\0';
	put(&c, text);
	assert_int_equal(strlen(line(&c)), MAX - 1);
	text[MAX - 1] = 'x';
	text[MAX] = '\n';
	text[MAX + 1] = '\0';
	assert_string_equal(ask(&c, text), GONE);
	assert_string_equal(ask(&other, "ok\n"), "ok");
	leave(&c);
	leave(&other);
}

static void
a_request_that_is_none_ends_its_connection(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	start(&o);
	client c = plain(), other = plain();
	assert_string_equal(ask(&c, "ok\nbad\nok\n"), "ok");
	assert_string_equal(line(&c), GONE);
	assert_string_equal(ask(&other, "ok\n"), "ok");
	leave(&c);
	leave(&other);
}

static void *
answer_later(void *conn)
{
	nap();
	say(conn, false, "later\n");
	return NULL;
}

static void
an_answer_of_another_thread(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	pthread_t thread;
	start(&o);
	client c = plain(), other = plain();
	for (int i = 0; i < 20; i++) {
		put(&c, "hold\nnext\n"); /* the next waits behind it */
		qg_byte_conn *conn = wait_held();
		assert_string_equal(ask(&other, "meanwhile\n"), "meanwhile");
		assert_int_equal(pthread_create(&thread, NULL, answer_later, conn), 0);
		assert_string_equal(line(&c), "later");
		assert_string_equal(line(&c), "next");
		pthread_join(thread, NULL);
	}
	leave(&c);
	leave(&other);
}

static void
a_client_that_is_gone_when_its_answer_comes(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	start(&o);
	client other = plain();
	for (int i = 0; i < 20; i++) {
		client c = plain();
		put(&c, "hold\n");
		qg_byte_conn *conn = wait_held();
		const struct linger reset = {.l_onoff = 1};
		if (i % 2 == 0)
			assert_int_equal(setsockopt(c.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
		leave(&c);
		if (i % 3 == 0)
			nap();
		say(conn, false, "nobody\n");
		assert_string_equal(ask(&other, "ok\n"), "ok");
	}
	leave(&other);
}

static void
a_stop_with_answers_due(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	start(&o);
	client c = plain(), pushed = plain();
	put(&c, "hold\n");
	qg_byte_conn *conn = wait_held();
	assert_string_equal(ask(&pushed, "push 1000000000\n"), "pushing");
	qg_byte_server_stop(server);
	assert_string_equal(line(&c), GONE);
	say(conn, false, "dropped\n");
	qg_byte_server_free(&server);
	leave(&c);
	leave(&pushed);
}

/* --- unasked ------------------------------------------------------------------------------- */

static void
what_is_sent_unasked(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	char want[16];
	start(&o);
	client c = plain();
	assert_string_equal(ask(&c, "push 1000\n"), "pushing");
	for (int i = 0; i < 1000; i++) {
		snprintf(want, sizeof want, "%d", i);
		assert_string_equal(line(&c), want);
	}
	assert_string_equal(ask(&c, "still here\n"), "still here");
	/* A request ends it, behind what is on its way. */
	assert_string_equal(ask(&c, "push 1000000000\n"), "pushing");
	put(&c, "enough\n");
	const char *got;
	while (strcmp(got = line(&c), "enough") != 0)
		assert_int_equal(strspn(got, "0123456789"), strlen(got));
	assert_string_equal(ask(&c, "who\n"), "anybody 5");
	leave(&c);
}

/* One more connection, and its request. */
static bool
is_served(void)
{
	client c = plain();
	const bool served = strcmp(ask(&c, "served\n"), "served") == 0;
	leave(&c);
	return served;
}

static void
a_client_that_does_not_read(void **state)
{
	(void)state;
	qg_byte_options o = options();
	char bytes[4096];
	o.idle_timeout_s = 1;
	o.threads = 1;
	o.max_connections = 2;
	start(&o);
	client deaf = plain();
	put(&deaf, "push 4000000000 200\n");
	for (int i = 0; i < 50; i++)
		assert_true(is_served());
	/* It is closed in the end: its place is free. */
	client first = plain();
	while (!is_served())
		if (strcmp(ask(&first, "in\n"), GONE) == 0) { /* closed for its silence */
			leave(&first);
			first = plain();
		}
	leave(&first);
	ssize_t n; /* what its socket held comes, and then the end */
	while ((n = recv(deaf.fd, bytes, sizeof bytes, 0)) > 0)
		;
	assert_true(n == 0 || errno == ECONNRESET);
	leave(&deaf);
}

/* --- time and number ------------------------------------------------------------------------- */

static void
silence_ends_a_connection_and_waiting_does_not(void **state)
{
	(void)state;
	qg_byte_options o = options();
	o.idle_timeout_s = 1;
	start(&o);
	client silent = plain(), half = plain(), waits = plain(), stalled = plain();
	put(&half, "no end");
	put(&waits, "hold\n");
	qg_byte_conn *conn = wait_held();
	assert_int_equal(send(stalled.fd, "\x16\x03\x01", 3, 0), 3); /* TLS that goes no further */
	assert_string_equal(line(&silent), GONE);
	assert_string_equal(line(&half), GONE);
	assert_string_equal(line(&stalled), GONE);
	say(conn, false, "patience\n");
	assert_string_equal(line(&waits), "patience");
	leave(&silent);
	leave(&half);
	leave(&waits);
	leave(&stalled);
}

static void
more_connections_than_allowed(void **state)
{
	(void)state;
	qg_byte_options o = options();
	o.max_connections = 3;
	start(&o);
	client c[3], more;
	for (int i = 0; i < 3; i++) {
		c[i] = plain();
		assert_string_equal(ask(&c[i], "in\n"), "in");
	}
	more = plain();
	assert_string_equal(ask(&more, "in\n"), GONE);
	leave(&more);
	leave(&c[0]);
	const char *got = GONE; /* its place is free in a moment */
	while (strcmp(got, GONE) == 0) {
		more = plain();
		got = ask(&more, "in\n");
		leave(&more);
	}
	assert_string_equal(ask(&c[1], "in\n"), "in");
	leave(&c[1]);
	leave(&c[2]);
}

static void
a_start_that_fails_says_why(void **state)
{
	(void)state;
	char why[256] = "";
	qg_byte_options o = options(), taken = options();
	start(&o);
	taken.port = qg_byte_server_port(server);
	taken.address = "192.0.2.77"; /* nobody here has it */
	qg_byte_server *no = NULL;
	assert_int_equal(qg_byte_server_start(&taken, &no, why, sizeof why), QG_E_IO);
	assert_non_null(strstr(why, "192.0.2.77"));
	taken = options();
	taken.tls.key = pki_file("kme-b", ".key");
	assert_int_equal(qg_byte_server_start(&taken, &no, why, sizeof why), QG_E_MISMATCH);
	assert_non_null(strstr(why, "kme-b.key"));
	assert_null(no);
}

/* --- who is there ------------------------------------------------------------------------------ */

static void
certificates(void **state)
{
	(void)state;
	qg_byte_options o = options();
	o.plain = false;
	o.tls.crl = pki_file("crl", ".pem");
	start(&o);
	client good = secure("alice");
	assert_string_equal(ask(&good, "who\n"), "alice 1");
	for (const char *const *name = (const char *const[]){"bob", "expired", "foreign", "revoked", NULL}; *name != NULL;
	     name++) {
		client bad = secure(*name);
		assert_string_equal(ask(&bad, "who\n"), GONE);
		leave(&bad);
	}
	client none = secure(NULL), bare = plain(), noise = plain();
	assert_string_equal(ask(&none, "who\n"), GONE);
	assert_string_equal(ask(&bare, "who\n"), GONE);
	assert_string_equal(ask(&noise, "\x16hello, this is no handshake\n"), GONE);
	assert_string_equal(ask(&good, "who\n"), "alice 2");
	assert_int_equal(atomic_load(&n_identified), 2); /* alice and bob, once each */
	leave(&none);
	leave(&bare);
	leave(&noise);
	leave(&good);
}

static void
reload_with_crl(void)
{
	char why[256] = "";
	qg_byte_options o = options();
	o.tls.crl = pki_file("crl", ".pem");
	assert_int_equal(qg_byte_server_reload_tls(server, &o.tls, why, sizeof why), QG_OK);
}

static void
a_revoked_certificate_is_refused_however_it_comes(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	start(&o);
	client kept = secure("revoked"), silent = secure("revoked"), waits = secure("revoked");
	client resumes = secure("revoked"), good = secure("alice");
	assert_string_equal(ask(&kept, "who\n"), "alice 1");
	assert_string_equal(ask(&silent, "who\n"), "alice 1");
	assert_string_equal(ask(&resumes, "who\n"), "alice 1");
	assert_string_equal(ask(&good, "who\n"), "alice 1");
	put(&waits, "hold\n");
	qg_byte_conn *conn = wait_held();
	reload_with_crl();
	assert_string_equal(ask(&kept, "who\n"), GONE);
	assert_string_equal(line(&silent), GONE); /* without a request */
	assert_string_equal(line(&waits), GONE);
	say(conn, false, "for nobody\n");
	(void)again(&resumes); /* TLS comes up, and then the certificate is looked at */
	assert_string_equal(ask(&resumes, "who\n"), GONE);
	client fresh = secure("revoked");
	assert_string_equal(ask(&fresh, "who\n"), GONE);
	assert_string_equal(ask(&good, "who\n"), "alice 2");
	leave(&kept);
	leave(&silent);
	leave(&waits);
	leave(&resumes);
	leave(&fresh);
	leave(&good);
}

static void
a_bad_reload_changes_nothing(void **state)
{
	(void)state;
	char why[256] = "";
	qg_byte_options o = options();
	start(&o);
	client c = secure("alice");
	assert_string_equal(ask(&c, "who\n"), "alice 1");
	o.tls.ca = pki_file("nothing", ".pem");
	assert_int_equal(qg_byte_server_reload_tls(server, &o.tls, why, sizeof why), QG_E_IO);
	assert_non_null(strstr(why, "nothing.pem"));
	assert_string_equal(ask(&c, "who\n"), "alice 2");
	assert_true(again(&c) && c.resumed);
	assert_string_equal(ask(&c, "who\n"), "alice 1");
	leave(&c);
}

static void
who_is_who_changes(void **state)
{
	(void)state;
	const qg_byte_options o = options();
	start(&o);
	client c = secure("alice"), silent = secure("alice"), bare = plain();
	assert_string_equal(ask(&c, "who\n"), "alice 1");
	assert_string_equal(ask(&silent, "who\n"), "alice 1");
	assert_string_equal(ask(&bare, "who\n"), "anybody 1");
	qg_byte_server_identify_again(server);
	assert_string_equal(ask(&c, "who\n"), "alice 2");
	assert_string_equal(ask(&c, "push 1000000000\n"), "pushing");
	atomic_store(&forget_alice, true);
	qg_byte_server_identify_again(server);
	while (strcmp(line(&c), GONE) != 0)
		; /* what was on its way */
	assert_string_equal(line(&silent), GONE);
	assert_string_equal(ask(&bare, "who\n"), "anybody 2");
	leave(&c);
	leave(&silent);
	leave(&bare);
}

static void
sessions_are_resumed_where_that_is_wanted(void **state)
{
	(void)state;
	qg_byte_options o = options();
	start(&o);
	client c = secure("alice");
	assert_false(c.resumed);
	for (int i = 0; i < 5; i++) {
		assert_string_equal(ask(&c, "who\n"), "alice 1");
		assert_true(again(&c) && c.resumed);
	}
	assert_string_equal(ask(&c, "who\n"), "alice 1");
	(void)stop(NULL);
	/* Another listener has another key. */
	start(&o);
	assert_true(again(&c) && !c.resumed);
	(void)stop(NULL);
	o.ticket_key_s = 0;
	start(&o);
	gnutls_free(c.ticket.data);
	c.ticket.data = NULL;
	assert_true(again(&c));
	assert_string_equal(ask(&c, "who\n"), "alice 1");
	assert_null(c.ticket.data);
	leave(&c);
}

static int
set_up(void **state)
{
	(void)state;
	return qg_secret_init() == QG_OK ? pki_make() : -1;
}

static int
tear_down(void **state)
{
	(void)state;
	pki_remove();
	return 0;
}

#define TEST(f) cmocka_unit_test_teardown(f, stop)

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(requests_whole_in_pieces_and_merged),
		TEST(the_longest_request_and_one_byte_more),
		TEST(a_request_that_is_none_ends_its_connection),
		TEST(an_answer_of_another_thread),
		TEST(a_client_that_is_gone_when_its_answer_comes),
		TEST(a_stop_with_answers_due),
		TEST(what_is_sent_unasked),
		TEST(a_client_that_does_not_read),
		TEST(silence_ends_a_connection_and_waiting_does_not),
		TEST(more_connections_than_allowed),
		TEST(a_start_that_fails_says_why),
		TEST(certificates),
		TEST(a_revoked_certificate_is_refused_however_it_comes),
		TEST(a_bad_reload_changes_nothing),
		TEST(who_is_who_changes),
		TEST(sessions_are_resumed_where_that_is_wanted),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
