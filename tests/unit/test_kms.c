/* SPDX-License-Identifier: Apache-2.0 */
#include "support/refusal.h"

#include "kms_nodes.h"

#include "qkdgate/clock.h"

/* --- cases ----------------------------------------------------------------- */

static void
test_every_kind_both_ways(void **state)
{
	pair *p = pair_new("kme-b");
	unsigned long long sent[QG_KMS_KINDS], received[QG_KMS_KINDS];
	outcome o;

	(void)state;
	node_listen(&p->a);
	node_listen(&p->b);
	for (int kind = 0; kind < QG_KMS_KINDS; kind++) {
		for (int i = 0; i <= kind; i++) {
			exchange(&p->a, "KME-B", (qg_kms_kind)kind, "{\"to\":\"b\"}", &o);
			assert_int_equal(o.err, QG_OK);
			assert_int_equal(o.status, 200);
			assert_int_equal(o.len, 10);
			assert_memory_equal(o.body, "{\"to\":\"b\"}", 10);
			assert_int_equal(p->b.peers.kind, kind);
			assert_string_equal(p->b.peers.neighbour, "KME-A");
		}
	}
	exchange(&p->b, "KME-A", QG_KMS_NEW_APP, "late", &o);
	assert_int_equal(o.err, QG_OK);
	assert_int_equal(o.status, 202);
	assert_memory_equal(o.body, "\"late\"", 6);
	assert_string_equal(p->a.peers.neighbour, "KME-B");
	exchange(&p->b, "KME-A", QG_KMS_NEW_APP, "bad", &o);
	assert_int_equal(o.err, QG_OK);
	assert_int_equal(o.status, 400);
	assert_int_equal(o.len, 17);
	exchange(&p->b, "KME-A", QG_KMS_NEW_APP, "bare", &o); /* gets a text all the same */
	assert_int_equal(o.status, 503);
	assert_memory_equal(o.body, "{\"message\":\"", 12);

	qg_kms_counts(p->a.kms, sent, received);
	for (int kind = 0; kind < QG_KMS_KINDS; kind++) {
		assert_int_equal(sent[kind], kind + 1);
		assert_int_equal(received[kind], kind == QG_KMS_NEW_APP ? 3 : 0);
	}
	qg_kms_counts(p->b.kms, sent, received);
	for (int kind = 0; kind < QG_KMS_KINDS; kind++) {
		assert_int_equal(received[kind], kind + 1);
		assert_int_equal(sent[kind], kind == QG_KMS_NEW_APP ? 3 : 0);
	}
	pair_free(p);
}

static void
test_unknown_neighbour(void **state)
{
	pair *p = pair_new("kme-b");
	unsigned long long sent[QG_KMS_KINDS], received[QG_KMS_KINDS];
	outcome o;

	(void)state;
	outcome_init(&o);
	assert_int_equal(send_to(&p->a, "KME-C", QG_KMS_NEW_APP, "{}", &o), QG_E_NOTFOUND);
	assert_int_equal(send_to(&p->a, "", QG_KMS_NEW_APP, "{}", &o), QG_E_NOTFOUND);
	assert_int_equal(o.calls, 0);
	qg_kms_counts(p->a.kms, sent, received);
	assert_int_equal(sent[QG_KMS_NEW_APP], 0);
	pair_free(p);
}

/* Of our authority, but no neighbour: 401 without a body, on every path. */
static void
test_strange_certificate(void **state)
{
	static const char *const paths[] = {"/api/v1/kms/new_app", "/api/v1/kms/get_status", "/nothing", "/"};
	static const char *const names[] = {"kme-c", "alice", "sim-a"};
	pair *p = pair_new("kme-b");
	outcome o;

	(void)state;
	node_listen(&p->b);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		for (size_t j = 0; j < sizeof paths / sizeof *paths; j++) {
			stranger(p, names[i], "POST", paths[j], "{}", 2, &o);
			assert_int_equal(o.err, QG_OK);
			assert_int_equal(o.status, 401);
			assert_int_equal(o.len, 0);
		}
	}
	assert_int_equal(p->b.peers.received, 0);
	assert_works(p);
	assert_int_equal(p->b.peers.received, 1);
	pair_free(p);
}

/* Another authority, though with a neighbour's name; revoked: no HTTP at all.
 * (An expired one our own client does not even start with.) */
static void
test_refused_certificate(void **state)
{
	static const char *const names[] = {"kme-b-foreign", "foreign", "revoked"};
	pair *p = pair_new("kme-b");
	outcome o;

	(void)state;
	node_listen(&p->b);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		stranger(p, names[i], "POST", "/api/v1/kms/new_app", "{}", 2, &o);
		assert_true(o.err == QG_E_IO || o.err == QG_E_AUTH || o.err == QG_E_CLOSED);
	}
	assert_int_equal(p->b.peers.received, 0);
	assert_works(p);
	pair_free(p);
}

/* We send nothing to a listener whose certificate another authority made. */
static void
test_foreign_listener(void **state)
{
	pair *p = pair_new("kme-b-foreign");
	outcome o;

	(void)state;
	node_listen(&p->b);
	exchange(&p->a, "KME-B", QG_KMS_NEW_APP, "{}", &o);
	assert_true(o.err == QG_E_AUTH || o.err == QG_E_IO);
	assert_int_equal(p->b.peers.received, 0);
	pair_free(p);
}

/* Nor to another node of our own authority at the neighbour's address. */
static void
test_other_node_listens(void **state)
{
	pair *p = pair_new("kme-c");
	outcome o;

	(void)state;
	node_listen(&p->b);
	exchange(&p->a, "KME-B", QG_KMS_NEW_APP, "{}", &o);
	assert_int_equal(o.err, QG_E_AUTH);
	assert_int_equal(p->b.peers.received, 0);
	pair_free(p);
}

/* Nor to one of ours that bears another name: alice's names no host. */
static void
test_misnamed_listener(void **state)
{
	pair *p = pair_new("alice");
	outcome o;

	(void)state;
	node_listen(&p->b);
	exchange(&p->a, "KME-B", QG_KMS_NEW_APP, "{}", &o);
	assert_true(o.err == QG_E_AUTH || o.err == QG_E_IO);
	assert_int_equal(p->b.peers.received, 0);
	pair_free(p);
}

static void
test_routes(void **state)
{
	static const struct {
		const char *method, *path;
		int status;
	} cases[] = {
		{"GET", "/api/v1/kms/new_app", 405},   {"PUT", "/api/v1/kms/new_key_batch", 405},
		{"GET", "/api/v1/kms/forward_keys", 405}, {"DELETE", "/api/v1/kms/delete_keys", 405},
		{"POST", "/api/v1/kms/split_key", 404}, {"POST", "/api/v1/kms/", 404},
		{"POST", "/api/v1/kms/new_app/x", 404}, {"POST", "/api/v1/keys/x/status", 404},
	};
	pair *p = pair_new("kme-b");
	outcome o;

	(void)state;
	node_listen(&p->b);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		bool post = strcmp(cases[i].method, "POST") == 0;

		stranger(p, "kme-a", cases[i].method, cases[i].path, post ? "{}" : NULL, post ? 2 : 0, &o);
		assert_int_equal(o.err, QG_OK);
		assert_int_equal(o.status, cases[i].status);
		assert_true(o.len > 12);
		assert_memory_equal(o.body, "{\"message\":\"", 12);
		assert_memory_equal(o.body + o.len - 2, "\"}", 2);
	}
	assert_int_equal(p->b.peers.received, 0);
	assert_works(p);
	pair_free(p);
}

/* As long as the route takes arrives whole; a byte more never does. */
static void
assert_limit(pair *p, const char *path, char *body, size_t limit)
{
	unsigned before = p->b.peers.received;
	char too_long[128];
	outcome o;
	int n = snprintf(too_long, sizeof too_long, "{\"message\":\"the body is larger than %zu bytes\"}", limit);

	assert_in_range(n, 1, sizeof too_long - 1);
	stranger(p, "kme-a", "POST", path, body, limit, &o);
	assert_int_equal(o.err, QG_OK);
	assert_int_equal(o.status, 200);
	assert_int_equal(o.len, limit);
	assert_memory_equal(o.body, body, limit);
	assert_int_equal(p->b.peers.received, before + 1);
	stranger(p, "kme-a", "POST", path, body, limit + 1, &o);
	assert_int_equal(p->b.peers.received, before + 1);
	assert_int_equal(o.err, QG_OK);
	assert_int_equal(o.status, 400);
	assert_int_equal(o.len, n);
	assert_memory_equal(o.body, too_long, o.len);
}

static void
test_sizes(void **state)
{
	static const struct {
		const char *path;
		size_t limit;
	} routes[] = {
		{"/api/v1/kms/new_app", 32768},      {"/api/v1/kms/new_key_batch", 4096},
		{"/api/v1/kms/key_stream_closed", 4096}, {"/api/v1/kms/get_status", 4096},
		{"/api/v1/kms/forward_keys", QG_KMS_MSG_MAX}, {"/api/v1/kms/make_keys_external", QG_KMS_MSG_MAX},
		{"/api/v1/kms/delete_keys", 32768},  {"/api/v1/kms/post_status", 32768},
		{"/api/v1/kms/new_app_stream", 4096}, {"/api/v1/kms/new_app_keys", 32768},
		{"/api/v1/kms/want_app_keys", 4096}, {"/api/v1/kms/app_stream_closed", 4096},
	};
	pair *p = pair_new("kme-b");
	char *body = malloc(QG_KMS_MSG_MAX + 1);
	outcome o;

	(void)state;
	assert_non_null(body);
	assert_int_equal(sizeof routes / sizeof *routes, QG_KMS_KINDS);
	for (size_t i = 0; i <= QG_KMS_MSG_MAX; i++)
		body[i] = (char)('a' + i % 23);
	node_listen(&p->b);
	for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
		assert_limit(p, routes[i].path, body, routes[i].limit);
	stranger(p, "kme-a", "POST", "/api/v1/kms/new_app", NULL, 0, &o); /* none is for the streams to judge */
	assert_int_equal(o.err, QG_OK);
	assert_int_equal(o.status, 200);
	assert_int_equal(p->b.peers.len, 0);
	free(body);
	assert_works(p);
	pair_free(p);
}

/* Bytes that are no HTTP, within TLS and without; then all is well again. */
static void
test_garbage(void **state)
{
	pair *p = pair_new("kme-b");
	uint8_t junk[4096];
	char file[4][128];
	qg_tls_files files = files_of(file, "kme-a", "ca");

	(void)state;
	node_listen(&p->b);
	qg_random(junk, sizeof junk);
	for (int tls = 0; tls < 2; tls++) {
		for (size_t n = 1; n <= sizeof junk; n *= 8) {
			qg_conn *c = NULL;

			assert_int_equal(qg_conn_open("127.0.0.1", p->b.cfg.kms.port, tls ? &files : NULL,
						      "localhost", 5000, &c), QG_OK);
			(void)!qg_conn_send(c, junk, n, 1000);
			qg_conn_close(&c);
		}
	}
	assert_works(p);
	assert_int_equal(p->b.peers.received, 1);
	pair_free(p);
}

static void
test_neighbour_down(void **state)
{
	pair *p = pair_new("kme-b");
	unsigned long long sent[QG_KMS_KINDS], received[QG_KMS_KINDS];
	outcome o;

	(void)state;
	exchange(&p->a, "KME-B", QG_KMS_NEW_KEY_BATCH, "{}", &o);
	assert_int_equal(o.err, QG_E_IO);
	qg_kms_counts(p->a.kms, sent, received);
	assert_int_equal(sent[QG_KMS_NEW_KEY_BATCH], 1);
	node_listen(&p->b); /* up at last */
	assert_works(p);
	qg_kms_unlisten(p->b.kms);
	exchange(&p->a, "KME-B", QG_KMS_NEW_KEY_BATCH, "{}", &o);
	assert_true(o.err == QG_E_IO || o.err == QG_E_CLOSED);
	node_listen(&p->b); /* and again */
	assert_works(p);
	pair_free(p);
}

/* One that takes connections and says nothing, and one that takes the message
 * and says nothing: the time runs out, once, and an answer after it is
 * nobody's. */
static void
test_neighbour_silent(void **state)
{
	pair *p = pair_new("kme-b");
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	outcome o;

	(void)state;
	p->a.cfg.kms_timeout_ms = 300;
	at.sin_port = htons((uint16_t)p->b.cfg.kms.port);
	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(fd, 4), 0);
	exchange(&p->a, "KME-B", QG_KMS_NEW_APP, "{}", &o);
	assert_int_equal(o.err, QG_E_TIMEOUT);
	close(fd);

	p->b.cfg.kms.port = free_port();
	(void)snprintf(p->a.url, sizeof p->a.url, "https://127.0.0.1:%u", p->b.cfg.kms.port);
	node_listen(&p->b);
	exchange(&p->a, "KME-B", QG_KMS_NEW_APP, "hold", &o);
	assert_int_equal(o.err, QG_E_TIMEOUT);
	wait_holds(&p->b.peers, 1);
	release_holds(&p->b.peers);
	usleep(100000);
	assert_int_equal(o.calls, 1);
	p->a.cfg.kms_timeout_ms = 5000;
	assert_works(p);
	pair_free(p);
}

/* Messages that wait for the streams when the listener ends are answered 503;
 * what the streams answer afterwards is dropped. */
static void
test_unlisten_under_way(void **state)
{
	pair *p = pair_new("kme-b");
	outcome o[8];

	(void)state;
	node_listen(&p->b);
	for (size_t i = 0; i < 8; i++) {
		outcome_init(&o[i]);
		assert_int_equal(send_to(&p->a, "KME-B", QG_KMS_NEW_KEY_BATCH, "hold", &o[i]), QG_OK);
	}
	wait_holds(&p->b.peers, 8);
	qg_kms_unlisten(p->b.kms);
	for (size_t i = 0; i < 8; i++) {
		wait_outcome(&o[i]);
		assert_true(o[i].err != QG_OK || o[i].status == 503);
	}
	assert_int_equal(p->b.peers.received, 8);
	release_holds(&p->b.peers);
	qg_kms_unlisten(p->b.kms); /* twice does nothing */
	node_listen(&p->b);
	assert_works(p);

	/* And with the whole gone before the answer. */
	outcome_init(&o[0]);
	assert_int_equal(send_to(&p->a, "KME-B", QG_KMS_NEW_KEY_BATCH, "hold", &o[0]), QG_OK);
	wait_holds(&p->b.peers, 1);
	node_end(&p->b);
	release_holds(&p->b.peers);
	wait_outcome(&o[0]);
	pair_free(p);
}

/* Calls under way when the outgoing side ends are told so, each once. */
static void
test_free_under_way(void **state)
{
	pair *p = pair_new("kme-b");
	outcome o[8];

	(void)state;
	node_listen(&p->b);
	for (size_t i = 0; i < 8; i++) {
		outcome_init(&o[i]);
		assert_int_equal(send_to(&p->a, "KME-B", QG_KMS_NEW_KEY_BATCH, "hold", &o[i]), QG_OK);
	}
	wait_holds(&p->b.peers, 8);
	node_end(&p->a);
	for (size_t i = 0; i < 8; i++) {
		wait_outcome(&o[i]);
		assert_int_equal(o[i].err, QG_E_CLOSED);
	}
	release_holds(&p->b.peers);
	pair_free(p);
}

typedef struct tally {
	atomic_uint done, served;
} tally;

static void
count_done(void *ctx, qg_err err, int status, const char *body, size_t len)
{
	tally *t = ctx;

	(void)body;
	(void)len;
	if (err == QG_OK && (status == 200 || status == 202))
		atomic_fetch_add(&t->served, 1);
	atomic_fetch_add(&t->done, 1);
}

static void *
unlisten_in_thread(void *arg)
{
	qg_kms_unlisten(arg);
	return NULL;
}

/* Many messages while the listener goes, by two threads at once, and comes:
 * every call ends once, and none reaches the streams after unlisten. */
static void
test_unlisten_under_load(void **state)
{
	pair *p = pair_new("kme-b");
	qg_channel *ch = qg_kms_channel(p->a.kms);
	tally t = {0};
	unsigned started = 0;

	(void)state;
	for (int round = 0; round < 5; round++) {
		pthread_t thread[2];
		unsigned received;

		node_listen(&p->b);
		assert_works(p);
		for (int i = 0; i < 40; i++) {
			assert_int_equal(ch->ops->send(ch, "KME-B", QG_KMS_NEW_KEY_BATCH, i % 2 ? "late" : "{}",
						       i % 2 ? 4 : 2, 0, count_done, &t), QG_OK);
			started++;
		}
		usleep(5000u * (unsigned)(round + 1));
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_create(&thread[i], NULL, unlisten_in_thread, p->b.kms), 0);
		qg_kms_unlisten(p->b.kms);
		pthread_mutex_lock(&p->b.peers.lock);
		received = p->b.peers.received;
		pthread_mutex_unlock(&p->b.peers.lock);
		for (int i = 0; i < 2; i++)
			assert_int_equal(pthread_join(thread[i], NULL), 0);
		for (int i = 0; i < WAIT_S * 100 && atomic_load(&t.done) < started; i++)
			usleep(10000);
		assert_int_equal(atomic_load(&t.done), started);
		pthread_mutex_lock(&p->b.peers.lock);
		assert_int_equal(p->b.peers.received, received);
		pthread_mutex_unlock(&p->b.peers.lock);
	}
	usleep(100000); /* the last late answers, to requests that are gone */
	assert_int_equal(atomic_load(&t.done), started);
	print_message("%u of %u calls served\n", atomic_load(&t.served), started);
	pair_free(p);
}

static void
test_listen_refuses(void **state)
{
	pair *p = pair_new("kme-b");
	char why[256] = "", file[4][128];

	(void)state;
	node_listen(&p->b);
	assert_int_equal(qg_kms_listen(p->b.kms, &p->b.peers, why, sizeof why), QG_E_STATE);
	assert_true(strlen(why) > 0);
	assert_works(p);
	p->a.cfg.kms.tls = files_of(file, "no-such-file", "ca");
	why[0] = '\0';
	assert_true(qg_kms_listen(p->a.kms, &p->a.peers, why, sizeof why) != QG_OK);
	assert_non_null(strstr(why, "no-such-file"));
	p->a.cfg.kms.tls = p->a.cfg.kms_client; /* mended */
	node_listen(&p->a);
	pair_free(p);
}

/* A script reads this line. */
/* The standard error from capture_begin to capture_end. */
static FILE *captured;
static int captured_was;

static void
capture_begin(void)
{
	captured = tmpfile();
	assert_non_null(captured);
	captured_was = dup(STDERR_FILENO);
	fflush(stderr);
	dup2(fileno(captured), STDERR_FILENO);
}

static void
capture_end(char *text, size_t room)
{
	size_t n;

	fflush(stderr);
	dup2(captured_was, STDERR_FILENO);
	close(captured_was);
	rewind(captured);
	n = fread(text, 1, room - 1, captured);
	text[n] = '\0';
	fclose(captured);
}

/* Who is refused again and again does not fill the log. */
static void
test_refusals_logged_sparsely(void **state)
{
	static char text[1 << 16];
	pair *p = pair_new("kme-b");
	uint64_t start_ms = qg_clock_elapsed_ms();
	uint64_t lines = 0;
	outcome o;

	(void)state;
	node_listen(&p->b);
	capture_begin();
	for (int i = 0; i < 100; i++)
		stranger(p, "kme-c", "POST", "/api/v1/kms/new_app", "{}", 2, &o);
	capture_end(text, sizeof text);
	for (const char *at = text; (at = strstr(at, " kms event=")) != NULL; at++)
		lines++;
	assert_non_null(strstr(text, "event=unknown_neighbour cn=KME-C"));
	assert_non_null(strstr(text, "event=refused status=401 method=POST path=/api/v1/kms/new_app"));
	assert_in_range(lines, 2, 20 + (qg_clock_elapsed_ms() - start_ms) / 1000 + 1);
	pair_free(p);
}

static void
test_counts_logged(void **state)
{
	pair *p = pair_new("kme-b");
	char text[8192];
	outcome o;

	(void)state;
	node_listen(&p->b);
	exchange(&p->a, "KME-B", QG_KMS_NEW_KEY_BATCH, "{}", &o);
	exchange(&p->a, "KME-B", QG_KMS_NEW_KEY_BATCH, "{}", &o);
	exchange(&p->a, "KME-B", QG_KMS_NEW_APP, "{}", &o);
	capture_begin();
	node_end(&p->a);
	capture_end(text, sizeof text);
	assert_non_null(strstr(text, "info kms event=counts sent_new_app=1 received_new_app=0 "
				     "sent_new_key_batch=2 received_new_key_batch=0 "
				     "sent_key_stream_closed=0 received_key_stream_closed=0 "
				     "sent_get_status=0 received_get_status=0"));
	assert_null(strstr(strstr(text, "event=counts") + 1, "event=counts"));
	pair_free(p);
}

/* --- */

/* A command of `n` characters that fit `command`. */
static int
run(const char *command, int n, size_t room)
{
	int status = n > 0 && (size_t)n < room ? system(command) : -1;

	return status != -1 && WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -1;
}

/* certs/make-pki stands two folders above this file. */
static int
start(void **state)
{
	char root[512] = __FILE__, command[1024];
	int n;

	(void)state;
	for (int up = 0; up < 3; up++) {
		char *slash = strrchr(root, '/');

		if (slash)
			*slash = '\0';
		else
			memcpy(root, ".", 2);
	}
	qg_log_init(QG_LOG_INFO, QG_LOG_TEXT);
	if (qg_secret_init() != QG_OK || !mkdtemp(pki))
		return -1;
	n = snprintf(command, sizeof command, "'%s/certs/make-pki' '%s'", root, pki);
	return run(command, n, sizeof command);
}

static int
end(void **state)
{
	char command[64];
	int n = snprintf(command, sizeof command, "rm -rf '%s'", pki);

	(void)state;
	qg_secret_fini();
	return run(command, n, sizeof command);
}

/* --- memory, mutexes and threads that are not to be had ------------------------ */

static void
test_made_whole_or_not_at_all(void **state)
{
	pair *p = pair_new("kme-b");
	unsigned failed = 0;

	(void)state;
	for (bool met = true; met;) {
		qg_kms *k = NULL;

		refusal_arm(1, true);
		qg_err err = qg_kms_new(&p->a.cfg, p->a.directory, &k);
		met = refusal_disarm();
		assert_int_equal(k != NULL, err == QG_OK);
		assert_true(met || err == QG_OK);
		failed += err != QG_OK;
		qg_kms_free(&k);
	}
	assert_true(failed >= 5);
	pair_free(p);
}

static pair *used;

/* An answer is the right one, or there is none. */
static void
use_all_kinds(void)
{
	for (int kind = 0; kind < QG_KMS_KINDS; kind++) {
		outcome o;

		outcome_init(&o);
		if (send_to(&used->a, "KME-B", (qg_kms_kind)kind, "{\"to\":\"b\"}", &o) != QG_OK)
			continue;
		wait_outcome(&o);
		if (o.err == QG_OK && o.status == 200)
			assert_memory_equal(o.body, "{\"to\":\"b\"}", 10);
	}
}

static void
test_messages_arrive_whole_or_not_at_all(void **state)
{
	outcome o = {.err = QG_E_IO};

	(void)state;
	used = pair_new("kme-b");
	node_listen(&used->a);
	node_listen(&used->b);
	refusal_rounds(use_all_kinds);
	/* More than once where a refusal ended the connection. */
	for (unsigned tries = 0; tries < 60 && o.err != QG_OK; tries++)
		exchange(&used->a, "KME-B", QG_KMS_GET_STATUS, "{}", &o);
	assert_works(used);
	pair_free(used);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_kind_both_ways),
		cmocka_unit_test(test_unknown_neighbour),
		cmocka_unit_test(test_strange_certificate),
		cmocka_unit_test(test_refused_certificate),
		cmocka_unit_test(test_foreign_listener),
		cmocka_unit_test(test_other_node_listens),
		cmocka_unit_test(test_misnamed_listener),
		cmocka_unit_test(test_routes),
		cmocka_unit_test(test_sizes),
		cmocka_unit_test(test_garbage),
		cmocka_unit_test(test_neighbour_down),
		cmocka_unit_test(test_neighbour_silent),
		cmocka_unit_test(test_unlisten_under_way),
		cmocka_unit_test(test_free_under_way),
		cmocka_unit_test(test_unlisten_under_load),
		cmocka_unit_test(test_listen_refuses),
		cmocka_unit_test(test_refusals_logged_sparsely),
		cmocka_unit_test(test_counts_logged),
		cmocka_unit_test(test_made_whole_or_not_at_all),
		cmocka_unit_test(test_messages_arrive_whole_or_not_at_all),
	};

	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, start, end);
}
