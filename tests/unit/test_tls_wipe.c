/* SPDX-License-Identifier: Apache-2.0 */
/* Key that comes over TLS is in nothing that is given back to the C library. Each way is gone
 * twice: before qg_tls_wipe_received, when it must be found, and after it. */
#define TIMEOUT_MS 60000u
#include "http_fixture.h"

#include <dlfcn.h>
#include <malloc.h>

#include "qkdgate/http_client.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED /* gcc has no header of it */
int __sanitizer_install_malloc_and_free_hooks(void (*)(const volatile void *, size_t),
					      void (*)(const volatile void *));
#endif

#define RECORD 16384u /* the largest */

/* --- what is given back --------------------------------------------------- */

static uint8_t mark[16];
static atomic_bool watching;
static atomic_uint n_found;
static _Thread_local bool looking;

static void
look(const void *p)
{
	looking = true;
	if (memmem(p, malloc_usable_size((void *)(uintptr_t)p), mark, sizeof mark) != NULL)
		atomic_fetch_add(&n_found, 1);
	looking = false;
}

#ifdef SANITIZED

static void
given_out(const volatile void *p, size_t n)
{
	(void)p, (void)n;
}

static void
given_back(const volatile void *p)
{
	if (p != NULL && atomic_load(&watching) && !looking)
		look((const void *)(uintptr_t)p);
}

static void
watch(void)
{
	assert_int_not_equal(__sanitizer_install_malloc_and_free_hooks(given_out, given_back), 0);
}

#else

static void
watch(void)
{
}

/* In place of the C library's, for all libraries. */
void
free(void *p)
{
	static _Atomic(void (*)(void *)) next;
	void (*f)(void *) = atomic_load(&next);
	if (p == NULL)
		return;
	if (f == NULL) {
		*(void **)&f = dlsym(RTLD_NEXT, "free");
		atomic_store(&next, f);
	}
	if (atomic_load(&watching) && !looking)
		look(p);
	f(p);
}

/* That of the C library moves without calling free. */
void *
realloc(void *p, size_t n)
{
	void *to = malloc(n > 0 ? n : 1);
	if (to == NULL || p == NULL)
		return to;
	const size_t had = malloc_usable_size(p);
	memcpy(to, p, had < n ? had : n);
	free(p);
	return to;
}

#endif

/* --- a server that takes key and gives it ---------------------------------- */

static uint8_t key[300000];

static void
take(qg_http_request *req, void *ctx)
{
	(void)ctx;
	size_t len;
	const char *body = qg_http_body(req, &len);
	assert_true(len == 0 || memmem(body, len, mark, sizeof mark) != NULL);
	atomic_fetch_add(&n_handled, 1);
	qg_http_answer(req, 200, "text/plain", "taken", 5);
}

static void
give(qg_http_request *req, void *ctx)
{
	(void)ctx;
	const size_t len = (size_t)atoi(qg_http_path_part(req, 0));
	qg_secret *s = NULL;
	assert_int_equal(qg_secret_new(len, &s), QG_OK);
	assert_int_equal(qg_secret_append(s, key, len), QG_OK);
	qg_http_answer_secret(req, 200, "application/octet-stream", s);
}

static const qg_http_route key_routes[] = {
	{"POST", "/take", take, 200000},
	{"GET", "/give/{n}", give, 0},
};

static qg_http_client *client;

/* With a key of its own: that of the way before may be in what is given out anew. */
static void
start(void)
{
	qg_random(mark, sizeof mark);
	for (size_t i = 0; i < sizeof key; i++)
		key[i] = mark[i % sizeof mark];
	qg_http_options o = default_options();
	o.routes = key_routes;
	o.n_routes = sizeof key_routes / sizeof key_routes[0];
	o.idle_timeout_s = 60;
	o.threads = 1;
	start_with(&o);
	atomic_store(&n_found, 0);
	atomic_store(&watching, true);
}

/* How many blocks with key were given back, sessions included. */
static unsigned
found(void)
{
	qg_http_client_stop(&client);
	qg_http_server_stop(&server);
	atomic_store(&watching, false);
	return atomic_load(&n_found);
}

/* --- the ways that it comes ------------------------------------------------ */

/* To an HTTP server, in records of every size. */
static void
by_request(void)
{
	static const size_t sizes[] = {16, 100, 1500, 5000, RECORD, 40000, 199999};
	qg_conn *c = dial();
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		char head[128];
		snprintf(head, sizeof head, "POST /take HTTP/1.1\r\nHost: kme\r\nContent-Length: %zu\r\n\r\n", sizes[i]);
		say(c, head);
		assert_int_equal(qg_conn_send(c, key, sizes[i], TIMEOUT_MS), QG_OK);
		expect(c, 200, "taken");
	}
	qg_conn_close(&c);
}

/* The client is gone before the server has read it all. */
static void
by_half_a_request(void)
{
	qg_conn *c = dial();
	ask(c, "GET /give/1", 200, NULL); /* nothing is left to read for us, so what we send arrives */
	say(c, "POST /take HTTP/1.1\r\nHost: kme\r\nContent-Length: 150000\r\n\r\n");
	assert_int_equal(qg_conn_send(c, key, 100000, TIMEOUT_MS), QG_OK);
	qg_conn_close(&c);
	c = dial(); /* the server has gone on */
	ask(c, "GET /give/1", 200, NULL);
	qg_conn_close(&c);
}

/* One behind the other, in one record. */
static void
by_two_requests(void)
{
	static uint8_t record[2 * 4200];
	size_t n = 0;
	for (unsigned i = 0; i < 2; i++) {
		n += (size_t)snprintf((char *)record + n, 100,
				      "POST /take HTTP/1.1\r\nHost: kme\r\nContent-Length: 4000\r\n\r\n");
		memcpy(record + n, key, 4000);
		n += 4000;
	}
	qg_conn *c = dial();
	assert_int_equal(qg_conn_send(c, record, n, TIMEOUT_MS), QG_OK);
	expect(c, 200, "taken");
	expect(c, 200, "taken");
	qg_conn_close(&c);
}

/* More than the route takes, all of which is swallowed. */
static void
by_refused_request(void)
{
	qg_conn *c = dial();
	say(c, "POST /take HTTP/1.1\r\nHost: kme\r\nContent-Length: 210000\r\n\r\n");
	assert_int_equal(qg_conn_send(c, key, 210000, TIMEOUT_MS), QG_OK);
	expect(c, 400, "larger");
	qg_conn_close(&c);
}

/* To one of our own connections. */
static void
by_connection(void)
{
	qg_conn *c = dial();
	ask(c, "GET /give/100000", 200, NULL);
	qg_conn_close(&c);
}

/* That is closed before all of it was read. */
static void
by_half_a_record(void)
{
	static uint8_t some[4000];
	qg_conn *c = dial();
	say(c, "GET /give/16000 HTTP/1.1\r\nHost: kme\r\n\r\n");
	assert_int_equal(qg_conn_recv(c, some, sizeof some, TIMEOUT_MS), QG_OK);
	assert_non_null(memmem(some, sizeof some, mark, sizeof mark));
	qg_conn_close(&c);
}

static atomic_int n_answers;

static void
heard(void *ctx, qg_err err, int status, const char *body, size_t len)
{
	(void)body;
	assert_int_equal(err, *(qg_err *)ctx);
	assert_true(err != QG_OK || (status == 200 && len == 100000));
	atomic_fetch_add(&n_answers, 1);
}

static void
fetch(size_t answer_limit, qg_err err)
{
	static qg_tls_files f;
	char url[64];
	f = pki_files("alice");
	if (client == NULL)
		assert_int_equal(qg_http_client_start(&f, &client), QG_OK);
	snprintf(url, sizeof url, "https://localhost:%u/give/100000", qg_http_server_port(server));
	const qg_http_call k = {.method = "GET", .url = url, .timeout_ms = TIMEOUT_MS, .answer_limit = answer_limit,
				.done = heard, .ctx = &err};
	const int before = atomic_load(&n_answers);
	assert_int_equal(qg_http_client_send(client, &k), QG_OK);
	for (unsigned ms = 0; ms < TIMEOUT_MS && atomic_load(&n_answers) == before; ms++)
		usleep(1000);
	assert_int_equal(atomic_load(&n_answers), before + 1);
}

/* To the HTTP client. */
static void
by_answer(void)
{
	fetch(100000, QG_OK);
	fetch(100000, QG_OK);
}

/* Which breaks it off in the middle. */
static void
by_half_an_answer(void)
{
	fetch(1000, QG_E_RANGE);
}

static void (*const ways[])(void) = {
	by_request,    by_half_a_request, by_two_requests, by_refused_request,
	by_connection, by_half_a_record,  by_answer,       by_half_an_answer,
};

#define N_WAYS (sizeof ways / sizeof ways[0])

/* --- both times ------------------------------------------------------------ */

static void
is_found_where_nothing_wipes(void **state)
{
	(void)state;
	watch();
	for (size_t i = 0; i < N_WAYS; i++) {
		start();
		ways[i]();
		if (found() == 0)
			fail_msg("way %zu: nothing found", i);
	}
}

static void
is_wiped(void **state)
{
	(void)state;
	qg_tls_wipe_received();
	for (size_t i = 0; i < N_WAYS; i++) {
		start();
		ways[i]();
		const unsigned n = found();
		if (n != 0)
			fail_msg("way %zu: %u blocks", i, n);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(is_found_where_nothing_wipes),
		cmocka_unit_test(is_wiped),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests(tests, setup, teardown);
}
