/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <dlfcn.h>
#include <gnutls/gnutls.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pki.h"
#include "qkdgate/clock.h"
#include "qkdgate/secret.h"
#include "qkdgate/tls.h"

#define LONG_MS 30000

static char why[256];

/* --- names ---------------------------------------------------------------- */

static void
matches_names(void **state)
{
	(void)state;
	qg_tls_identity id = {.n_uri = 2, .n_dns = 1, .cn = "sae-alice"};
	strcpy(id.uri[1], "urn:sae:alice");
	strcpy(id.dns[0], "Alice.demo");
	memset(id.fingerprint, 'a', 64);
	char print[65] = {0};
	memset(print, 'A', 64);

	assert_true(qg_tls_matches(&(qg_tls_match){.uri = "urn:sae:alice"}, &id));
	assert_false(qg_tls_matches(&(qg_tls_match){.uri = "URN:sae:alice"}, &id));
	assert_false(qg_tls_matches(&(qg_tls_match){.uri = "urn:sae:alic"}, &id));
	assert_false(qg_tls_matches(&(qg_tls_match){.uri = ""}, &id)); /* also an empty name does not match */
	assert_true(qg_tls_matches(&(qg_tls_match){.dns = "aLICE.demo"}, &id));
	assert_false(qg_tls_matches(&(qg_tls_match){.dns = "alice.demo."}, &id));
	assert_true(qg_tls_matches(&(qg_tls_match){.cn = "sae-alice"}, &id));
	assert_false(qg_tls_matches(&(qg_tls_match){.cn = "sae-Alice"}, &id));
	assert_true(qg_tls_matches(&(qg_tls_match){.fingerprint = print}, &id));
	print[63] = 'b';
	assert_false(qg_tls_matches(&(qg_tls_match){.fingerprint = print}, &id));
	print[63] = '\0';
	assert_false(qg_tls_matches(&(qg_tls_match){.fingerprint = print}, &id));
	assert_false(qg_tls_matches(&(qg_tls_match){0}, &id));
	id.cn[0] = '\0';
	assert_false(qg_tls_matches(&(qg_tls_match){.cn = ""}, &id));
	id.n_uri = 1; /* what lies beyond the count is not there */
	assert_false(qg_tls_matches(&(qg_tls_match){.uri = "urn:sae:alice"}, &id));
}

/* --- files ---------------------------------------------------------------- */

static void
write_file(const char *path, const char *text, mode_t mode)
{
	unlink(path);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	assert_int_equal(chmod(path, mode), 0);
}

static void
copy_file(const char *from, const char *to, mode_t mode)
{
	static char buf[65536];
	FILE *f = fopen(from, "r");
	assert_non_null(f);
	size_t n = fread(buf, 1, sizeof buf - 1, f);
	fclose(f);
	buf[n] = '\0';
	write_file(to, buf, mode);
}

static void
expect_files(const qg_tls_files *f, qg_err want, const char *in_why)
{
	why[0] = '\0';
	assert_int_equal(qg_tls_check_files(f, why, sizeof why), want);
	if (in_why != NULL && strstr(why, in_why) == NULL)
		fail_msg("'%s' is not in '%s'", in_why, why);
}

static void
accepts_good_files(void **state)
{
	(void)state;
	qg_tls_files f = pki_files("kme-a");
	expect_files(&f, QG_OK, NULL);
	f.crl = NULL;
	f.min_version = QG_TLS_1_2;
	expect_files(&f, QG_OK, NULL);
	assert_int_equal(qg_tls_check_files(&f, NULL, 0), QG_OK);
}

static void
names_what_is_wrong(void **state)
{
	(void)state;
	const char *missing = pki_file("nothing", ".pem");
	const char *text = pki_file("text", ".pem");
	const char *cut = pki_file("cut", ".key");
	write_file(text, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", 0644);
	write_file(cut, "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIA\n", 0600);
	const qg_tls_files good = pki_files("kme-a");
	qg_tls_files f = good;
	f.certificate = missing;
	expect_files(&f, QG_E_IO, missing);
	f.certificate = text;
	expect_files(&f, QG_E_PARSE, text);
	f.certificate = pki_dir;
	expect_files(&f, QG_E_IO, pki_dir);
	f = good;
	f.key = missing;
	expect_files(&f, QG_E_IO, missing);
	f.key = cut;
	expect_files(&f, QG_E_PARSE, cut);
	f.key = pki_file("kme-b", ".key");
	expect_files(&f, QG_E_MISMATCH, f.key);
	f = good;
	f.ca = text;
	expect_files(&f, QG_E_PARSE, text);
	f = good;
	f.crl = good.ca;
	expect_files(&f, QG_E_PARSE, good.ca);
	f = pki_files("expired");
	expect_files(&f, QG_E_EXPIRED, "expired.pem");
	unlink(text);
	unlink(cut);
}

/* The authority's list is due on 2043-12-31, its certificates a day later. */
static int64_t
last_day_of_2043(void)
{
	return INT64_C(2335176000000);
}

static void
names_an_expired_crl(void **state)
{
	(void)state;
	const qg_clock_ops ops = {.elapsed_ms = qg_clock_elapsed_ms, .wall_ms = last_day_of_2043};
	qg_tls_files f = pki_files("kme-a");
	qg_clock_use(&ops);
	expect_files(&f, QG_E_EXPIRED, "crl.pem: the revocation list has expired");
	f.crl = NULL;
	expect_files(&f, QG_OK, "");
	qg_clock_use(NULL);
}

static void
refuses_loose_keys(void **state)
{
	(void)state;
	qg_tls_files f = pki_files("kme-a");
	const char *good = f.key;
	const char *loose = pki_file("loose", ".key");
	static const mode_t modes[] = {0640, 0604, 0660, 0644, 0601, 0620};
	f.key = loose;
	for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
		copy_file(good, loose, modes[i]);
		expect_files(&f, QG_E_MODE, loose);
	}
	copy_file(good, loose, 0400);
	expect_files(&f, QG_OK, NULL);
	if (geteuid() == 0) {
		assert_int_equal(chown(loose, 12345, (gid_t)-1), 0);
		expect_files(&f, QG_E_MODE, "12345");
	}
	unlink(loose);
}

/* Mounted by a container engine: see test_seal.c for every mode. */
static void
mounted_keys(void **state)
{
	(void)state;
	qg_tls_files f = pki_files("kme-a");
	const char *good = f.key;
	char folder[PATH_MAX];
	f.key = pki_file("mounted", ".key");
	copy_file(good, f.key, 0440);
	assert_int_equal(chown(f.key, (uid_t)-1, getegid()), 0);
	assert_true(snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(f.key, '/') - f.key), f.key) > 0);
	expect_files(&f, QG_E_MODE, "mode 0440");
	assert_int_equal(setenv("QKDGATE_SECRETS", folder, 1), 0);
	expect_files(&f, QG_OK, NULL);
	assert_int_equal(chmod(f.key, 0444), 0);
	expect_files(&f, QG_E_MODE, folder);
	assert_int_equal(chmod(f.key, 0460), 0);
	expect_files(&f, QG_E_MODE, "mode 0460");
	assert_int_equal(unsetenv("QKDGATE_SECRETS"), 0);
	unlink(f.key);
}

static void
short_why_is_cut(void **state)
{
	(void)state;
	qg_tls_files f = pki_files("nobody");
	char tiny[8];
	memset(tiny, 'x', sizeof tiny);
	assert_int_equal(qg_tls_check_files(&f, tiny, 5), QG_E_IO);
	assert_int_equal(strlen(tiny), 4);
	assert_int_equal(tiny[5], 'x');
}

/* --- connections ---------------------------------------------------------- */

/* One server end for one connection, in a thread of its own. */
typedef struct end {
	int listen_fd;
	unsigned port;
	const qg_tls_files *tls;
	bool require;
	unsigned timeout_ms;
	void (*play)(qg_conn *c);
	qg_err accepted;
	pthread_t thread;
} end;

static void *
end_main(void *arg)
{
	end *e = arg;
	int fd = accept(e->listen_fd, NULL, NULL);
	qg_conn *c = NULL;
	e->accepted = qg_conn_accept(fd, e->tls, e->require, e->timeout_ms, &c);
	if (e->accepted == QG_OK) {
		if (e->play != NULL)
			e->play(c);
		qg_conn_close(&c);
	}
	return NULL;
}

static void
end_listen(end *e)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	e->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(e->listen_fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(e->listen_fd, 5), 0);
	assert_int_equal(getsockname(e->listen_fd, (struct sockaddr *)&a, &len), 0);
	e->port = ntohs(a.sin_port);
}

static void
end_start(end *e)
{
	end_listen(e);
	if (e->timeout_ms == 0)
		e->timeout_ms = LONG_MS;
	assert_int_equal(pthread_create(&e->thread, NULL, end_main, e), 0);
}

static void
end_join(end *e)
{
	pthread_join(e->thread, NULL);
	close(e->listen_fd);
}

static void
echo(qg_conn *c)
{
	uint8_t head[4];
	static uint8_t data[200000];
	while (qg_conn_recv(c, head, sizeof head, LONG_MS) == QG_OK) {
		size_t n = (size_t)head[0] << 24 | (size_t)head[1] << 16 | (size_t)head[2] << 8 | head[3];
		if (n > sizeof data || qg_conn_recv(c, data, n, LONG_MS) != QG_OK || qg_conn_send(c, data, n, LONG_MS) != QG_OK)
			return;
	}
}

static void
exchange(qg_conn *c, size_t n)
{
	uint8_t *out = malloc(n + 4);
	uint8_t *in = malloc(n + 1);
	assert_non_null(out);
	assert_non_null(in);
	for (size_t i = 0; i < n; i++)
		out[i + 4] = (uint8_t)(i * 7);
	for (int i = 0; i < 4; i++)
		out[i] = (uint8_t)(n >> (24 - 8 * i));
	assert_int_equal(qg_conn_send(c, out, n + 4, LONG_MS), QG_OK);
	assert_int_equal(qg_conn_recv(c, in, n, LONG_MS), QG_OK);
	assert_memory_equal(in, out + 4, n);
	free(out);
	free(in);
}

static void
carries_bytes(void **state)
{
	(void)state;
	qg_tls_files server = pki_files("sim-a");
	qg_tls_files client = pki_files("kme-a");
	const struct {
		const qg_tls_files *server;
		const qg_tls_files *client;
		qg_tls_version version;
		const char *name;
	} cases[] = {
		{NULL, NULL, QG_TLS_1_3, NULL},
		{&server, &client, QG_TLS_1_3, "localhost"},
		{&server, &client, QG_TLS_1_2, "sim-a.demo"},
		{&server, &client, QG_TLS_1_3, "127.0.0.1"},
		{&server, &client, QG_TLS_1_3, NULL}, /* then the host it connects to */
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		server.min_version = cases[i].version;
		end e = {.tls = cases[i].server, .require = true, .play = echo};
		end_start(&e);
		qg_conn *c = NULL;
		assert_int_equal(qg_conn_open("127.0.0.1", e.port, cases[i].client, cases[i].name, LONG_MS, &c), QG_OK);
		exchange(c, 1);
		exchange(c, 16384);
		exchange(c, 150000);
		qg_conn_close(&c);
		assert_null(c);
		end_join(&e);
		assert_int_equal(e.accepted, QG_OK);
	}
}

/* The client must refuse the server's certificate. */
static void
client_checks_server(void **state)
{
	(void)state;
	const struct {
		const char *server;
		const char *ca;
		const char *name;
	} cases[] = {
		{"sim-a", "ca", "sim-b.demo"},        /* wrong name */
		{"sim-a", "ca", "127.0.0.2"},         /* wrong address */
		{"sim-a", "foreign-ca", "localhost"}, /* not our authority */
		{"kme-b-foreign", "ca", "localhost"}, /* right name, other authority */
		{"alice", "ca", "urn:sae:sae-alice"}, /* an SAE's certificate is no server's */
		{"expired", "ca", "sae-alice"},
		{"revoked", "ca", "sae-alice"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		qg_tls_files server = pki_files(cases[i].server);
		qg_tls_files client = pki_files("kme-a");
		client.ca = pki_file(cases[i].ca, ".pem");
		client.crl = strcmp(cases[i].ca, "ca") == 0 ? client.crl : NULL;
		end e = {.tls = &server, .require = false, .play = echo};
		end_start(&e);
		qg_conn *c = NULL;
		assert_int_equal(qg_conn_open("127.0.0.1", e.port, &client, cases[i].name, LONG_MS, &c), QG_E_AUTH);
		assert_null(c);
		end_join(&e);
		assert_int_not_equal(e.accepted, QG_OK);
	}
}

/* The server must refuse the client's. In TLS 1.3 the client may learn of it
 * with its first read only, and never reads a byte. */
static void
server_checks_client(void **state)
{
	(void)state;
	static const char *const wrong[] = {"expired", "revoked", "foreign"};
	for (size_t i = 0; i < 2 * sizeof wrong / sizeof wrong[0]; i++) {
		qg_tls_files server = pki_files("sim-a");
		qg_tls_files client = pki_files(wrong[i / 2]);
		server.min_version = client.min_version = i % 2 == 0 ? QG_TLS_1_3 : QG_TLS_1_2;
		end e = {.tls = &server, .require = true, .play = echo};
		end_start(&e);
		qg_conn *c = NULL;
		qg_err err = qg_conn_open("127.0.0.1", e.port, &client, "localhost", LONG_MS, &c);
		if (err == QG_OK) {
			uint8_t byte;
			assert_int_equal(qg_conn_recv(c, &byte, 1, LONG_MS), QG_E_IO);
			qg_conn_close(&c);
		} else {
			assert_int_equal(err, QG_E_AUTH);
		}
		end_join(&e);
		assert_int_equal(e.accepted, QG_E_AUTH);
	}
}

static void
client_key_mode_counts(void **state)
{
	(void)state;
	qg_tls_files client = pki_files("kme-a");
	const char *loose = pki_file("loose", ".key");
	copy_file(client.key, loose, 0644);
	client.key = loose;
	end e = {.tls = NULL};
	end_start(&e);
	qg_conn *c = NULL;
	assert_int_equal(qg_conn_open("127.0.0.1", e.port, &client, "localhost", LONG_MS, &c), QG_E_MODE);
	end_join(&e);
	unlink(loose);
}

static void
tls_meets_plain(void **state)
{
	(void)state;
	qg_tls_files client = pki_files("kme-a");
	qg_tls_files server = pki_files("sim-a");
	end plain = {.tls = NULL, .play = echo};
	end_start(&plain);
	qg_conn *c = NULL;
	assert_int_not_equal(qg_conn_open("127.0.0.1", plain.port, &client, "localhost", 1000, &c), QG_OK);
	assert_null(c);
	end_join(&plain);

	end secure = {.tls = &server, .require = true, .play = echo};
	end_start(&secure);
	assert_int_equal(qg_conn_open("127.0.0.1", secure.port, NULL, NULL, 1000, &c), QG_OK);
	assert_int_equal(qg_conn_send(c, "GET / HTTP/1.1\r\n\r\n", 18, 1000), QG_OK);
	end_join(&secure);
	assert_int_equal(secure.accepted, QG_E_IO);
	qg_conn_close(&c);
}

/* A TCP server that never says a word. */
static void
handshake_times_out(void **state)
{
	(void)state;
	qg_tls_files files = pki_files("kme-a");
	end silent = {0};
	end_listen(&silent);
	uint64_t start = qg_clock_elapsed_ms();
	qg_conn *c = NULL;
	assert_int_equal(qg_conn_open("127.0.0.1", silent.port, &files, "localhost", 200, &c), QG_E_TIMEOUT);
	assert_in_range(qg_clock_elapsed_ms() - start, 190, 2000);
	close(silent.listen_fd);

	end e = {.tls = &files, .require = true, .timeout_ms = 200};
	end_start(&e);
	assert_int_equal(qg_conn_open("127.0.0.1", e.port, NULL, NULL, 1000, &c), QG_OK);
	end_join(&e);
	assert_int_equal(e.accepted, QG_E_TIMEOUT);
	qg_conn_close(&c);
}

static void
nobody_listens(void **state)
{
	(void)state;
	end e = {0};
	end_listen(&e);
	close(e.listen_fd);
	qg_conn *c = NULL;
	assert_int_equal(qg_conn_open("127.0.0.1", e.port, NULL, NULL, 1000, &c), QG_E_IO);
	assert_int_equal(qg_conn_open("127.0.0.1", 0, NULL, NULL, 1000, &c), QG_E_INVAL);
	assert_int_equal(qg_conn_open("127.0.0.1", 65536, NULL, NULL, 1000, &c), QG_E_INVAL);
	assert_null(c);
}

static void
say_three(qg_conn *c)
{
	(void)!qg_conn_send(c, "abc", 3, 1000);
}

static void
close_is_told_from_a_cut(void **state)
{
	(void)state;
	qg_tls_files server = pki_files("sim-a");
	qg_tls_files client = pki_files("kme-a");
	for (int i = 0; i < 4; i++) {
		end e = {.tls = i % 2 == 0 ? &server : NULL, .require = true, .play = say_three};
		end_start(&e);
		qg_conn *c = NULL;
		char buf[8];
		assert_int_equal(
			qg_conn_open("127.0.0.1", e.port, i % 2 == 0 ? &client : NULL, "localhost", LONG_MS, &c), QG_OK);
		if (i < 2) {
			assert_int_equal(qg_conn_recv(c, buf, 3, LONG_MS), QG_OK);
			assert_memory_equal(buf, "abc", 3);
			assert_int_equal(qg_conn_recv(c, buf, 1, LONG_MS), QG_E_CLOSED);
		} else {
			assert_int_equal(qg_conn_recv(c, buf, 4, LONG_MS), QG_E_IO);
			assert_int_equal(qg_conn_recv(c, buf, 1, LONG_MS), QG_E_IO); /* and stays so */
		}
		qg_conn_close(&c);
		end_join(&e);
	}
}

static void
say_late(qg_conn *c)
{
	uint8_t byte;
	(void)!qg_conn_send(c, "ab", 2, LONG_MS);
	(void)!qg_conn_recv(c, &byte, 1, LONG_MS);
}

static void
timeouts(void **state)
{
	(void)state;
	qg_tls_files server = pki_files("sim-a");
	qg_tls_files client = pki_files("kme-a");
	end e = {.tls = &server, .require = true, .play = say_late};
	end_start(&e);
	qg_conn *c = NULL;
	char buf[4];
	assert_int_equal(qg_conn_open("127.0.0.1", e.port, &client, "localhost", LONG_MS, &c), QG_OK);
	assert_int_equal(qg_conn_recv(c, buf, 2, LONG_MS), QG_OK);
	assert_int_equal(qg_conn_recv(c, buf, 1, 50), QG_E_TIMEOUT); /* nothing taken: goes on */
	assert_int_equal(qg_conn_recv(c, buf, 1, 0), QG_E_TIMEOUT);
	assert_int_equal(qg_conn_send(c, "x", 1, 1000), QG_OK);
	qg_conn_close(&c);
	end_join(&e);

	end twice = {.tls = &server, .require = true, .play = say_late};
	end_start(&twice);
	assert_int_equal(qg_conn_open("127.0.0.1", twice.port, &client, "localhost", LONG_MS, &c), QG_OK);
	assert_int_equal(qg_conn_recv(c, buf, 1, LONG_MS), QG_OK); /* then they are there */
	assert_int_equal(qg_conn_recv(c, buf, 4, 100), QG_E_TIMEOUT); /* one more came and is lost: out of step */
	assert_int_equal(qg_conn_send(c, "x", 1, LONG_MS), QG_E_IO);
	qg_conn_close(&c);
	end_join(&twice);
}

static void
wait_long(qg_conn *c)
{
	uint8_t byte;
	(void)!qg_conn_recv(c, &byte, 1, 10000);
}

static void *
abort_soon(void *arg)
{
	usleep(50000);
	qg_conn_abort(arg);
	return NULL;
}

static void
abort_wakes_a_reader(void **state)
{
	(void)state;
	qg_tls_files server = pki_files("sim-a");
	qg_tls_files client = pki_files("kme-a");
	for (int i = 0; i < 2; i++) {
		end e = {.tls = i == 0 ? &server : NULL, .require = true, .play = wait_long};
		end_start(&e);
		qg_conn *c = NULL;
		assert_int_equal(qg_conn_open("127.0.0.1", e.port, i == 0 ? &client : NULL, "localhost", LONG_MS, &c), QG_OK);
		pthread_t t;
		pthread_create(&t, NULL, abort_soon, c);
		uint8_t byte;
		uint64_t start = qg_clock_elapsed_ms();
		assert_int_equal(qg_conn_recv(c, &byte, 1, 10000), QG_E_CLOSED);
		assert_true(qg_clock_elapsed_ms() - start < 5000);
		assert_int_equal(qg_conn_send(c, "x", 1, 1000), QG_E_CLOSED);
		pthread_join(t, NULL);
		qg_conn_close(&c);
		end_join(&e);
	}
}

static sem_t given_up;

/* The peer stops reading: a send gives up in time and does not pretend. */
static void
never_reads(qg_conn *c)
{
	(void)c;
	while (sem_wait(&given_up) != 0)
		;
}

static void
send_times_out(void **state)
{
	(void)state;
	qg_tls_files server = pki_files("sim-a");
	qg_tls_files client = pki_files("kme-a");
	end e = {.tls = &server, .require = true, .play = never_reads};
	sem_init(&given_up, 0, 0);
	end_start(&e);
	qg_conn *c = NULL;
	assert_int_equal(qg_conn_open("127.0.0.1", e.port, &client, "localhost", LONG_MS, &c), QG_OK);
	size_t n = (size_t)32 * 1024 * 1024;
	uint8_t *big = calloc(1, n);
	assert_non_null(big);
	assert_int_equal(qg_conn_send(c, big, n, 200), QG_E_TIMEOUT);
	assert_int_equal(qg_conn_send(c, "x", 1, 200), QG_E_IO);
	sem_post(&given_up);
	free(big);
	qg_conn_close(&c);
	qg_conn_close(&c);
	end_join(&e);
}

/* --- want of memory --------------------------------------------------------- */

static atomic_uint n_refused;

/* No memory for what the random numbers of a thread live in. */
static void *
none_for_random_numbers(size_t n)
{
	Dl_info caller;
	if (dladdr(__builtin_return_address(0), &caller) != 0 && caller.dli_sname != NULL &&
	    strcmp(caller.dli_sname, "gnutls_rnd") == 0) {
		atomic_fetch_add(&n_refused, 1);
		return NULL;
	}
	return malloc(n);
}

typedef struct reading {
	bool refused;
	qg_err err;
} reading;

static void *
read_files(void *arg)
{
	reading *r = arg;
	const qg_tls_files f = pki_files("kme-a");
	gnutls_malloc = r->refused ? none_for_random_numbers : malloc;
	r->err = qg_tls_check_files(&f, NULL, 0);
	gnutls_malloc = malloc;
	return NULL;
}

static qg_err
read_on_a_thread(bool refused)
{
	reading r = {.refused = refused};
	pthread_t t;
	assert_int_equal(pthread_create(&t, NULL, read_files, &r), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	return r.err;
}

/* Each thread has random numbers of its own; GnuTLS would be in error for good. */
static void
a_thread_without_random_numbers_harms_no_other(void **state)
{
	(void)state;
	const qg_err err = read_on_a_thread(true);
	if (atomic_load(&n_refused) == 0)
		skip(); /* a GnuTLS that is built otherwise */
	assert_int_equal(err, QG_E_NOMEM);
	assert_int_equal(read_on_a_thread(false), QG_OK);
	qg_tls_files f = pki_files("kme-a");
	expect_files(&f, QG_OK, NULL);
}

static int
setup(void **state)
{
	(void)state;
	return qg_secret_init() == QG_OK ? pki_make() : -1;
}

static int
teardown(void **state)
{
	(void)state;
	pki_remove();
	qg_secret_fini();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(matches_names),
		cmocka_unit_test(accepts_good_files),
		cmocka_unit_test(names_what_is_wrong),
		cmocka_unit_test(names_an_expired_crl),
		cmocka_unit_test(refuses_loose_keys),
		cmocka_unit_test(mounted_keys),
		cmocka_unit_test(short_why_is_cut),
		cmocka_unit_test(carries_bytes),
		cmocka_unit_test(client_checks_server),
		cmocka_unit_test(server_checks_client),
		cmocka_unit_test(client_key_mode_counts),
		cmocka_unit_test(tls_meets_plain),
		cmocka_unit_test(handshake_times_out),
		cmocka_unit_test(nobody_listens),
		cmocka_unit_test(close_is_told_from_a_cut),
		cmocka_unit_test(timeouts),
		cmocka_unit_test(abort_wakes_a_reader),
		cmocka_unit_test(send_times_out),
		cmocka_unit_test(a_thread_without_random_numbers_harms_no_other),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, setup, teardown);
}
