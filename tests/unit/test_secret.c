/* SPDX-License-Identifier: Apache-2.0 */
/* What the pools promise: zeroed on new, wiped on free, one owner, guarded. */
#include "qkdgate/secret.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define NO_ASAN __attribute__((no_sanitize("address")))
#endif
#endif
#ifndef NO_ASAN
#define NO_ASAN __attribute__((no_sanitize_address))
#endif

/* Reads freed memory on purpose; volatile keeps the reads. */
NO_ASAN static size_t
count_not_zero(const volatile uint8_t *p, size_t n)
{
	size_t found = 0;
	for (size_t i = 0; i < n; i++)
		found += p[i] != 0;
	return found;
}

/* The sizes around the edges of every class. */
static const size_t sizes[] = {1, 32, 80, 81, 128, 976, 977, 8192, 9168, 9169, 65536, 73680, 73681};
#define N_SIZES (sizeof sizes / sizeof sizes[0])

static qg_secret *
secret_of(size_t room)
{
	qg_secret *s = NULL;
	assert_int_equal(qg_secret_new(room, &s), QG_OK);
	assert_non_null(s);
	return s;
}

static void
new_gives_zeroed_room(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SIZES; i++) {
		for (int round = 0; round < 3; round++) {
			qg_secret *s = secret_of(sizes[i]);
			assert_int_equal(s->len, 0);
			assert_true(s->room >= sizes[i]);
			assert_int_equal(count_not_zero(s->data, s->room), 0);
			memset(s->data, 0xa5, s->room);
			qg_secret_free(&s);
			assert_null(s);
		}
	}
}

/* Blocks of a class stay mapped after free: read them again. The large sizes
 * go back to the system, where sodium_free wipes. */
static void
free_wipes(void **state)
{
	(void)state;
	for (size_t i = 0; i < N_SIZES && sizes[i] <= 73680; i++) {
		qg_secret *s = secret_of(sizes[i]);
		const uint8_t *old = s->data;
		memset(s->data, 0xa5, s->room);
		s->len = 1; /* the whole room counts, not what is in use */
		assert_int_equal(count_not_zero(old, sizes[i]), sizes[i]);
		qg_secret_free(&s);
		assert_int_equal(count_not_zero(old, sizes[i]), 0);
	}
}

static void
free_takes_null(void **state)
{
	(void)state;
	qg_secret *s = NULL;
	qg_secret_free(&s);
	qg_secret_free(NULL);
}

static void
auto_frees_at_end_of_scope(void **state)
{
	(void)state;
	const uint8_t *old;
	{
		QG_SECRET_AUTO *s = NULL;
		assert_int_equal(qg_secret_new(32, &s), QG_OK);
		memset(s->data, 0xa5, 32);
		old = s->data;
	}
	assert_int_equal(count_not_zero(old, 32), 0);
}

static void
append_stops_at_the_room(void **state)
{
	(void)state;
	QG_SECRET_AUTO *s = secret_of(8);
	assert_int_equal(qg_secret_append(s, "12345", 5), QG_OK);
	assert_int_equal(qg_secret_append(s, NULL, 0), QG_OK);
	assert_int_equal(qg_secret_append(s, "6789", 4), QG_E_RANGE);
	assert_int_equal(s->len, 5);
	assert_int_equal(count_not_zero(s->data, 8), 5);
	assert_int_equal(qg_secret_append(s, "678", SIZE_MAX), QG_E_RANGE);
	assert_int_equal(qg_secret_append(s, "678", 3), QG_OK);
	assert_memory_equal(s->data, "12345678", 8);
	assert_int_equal(qg_secret_append(s, "9", 1), QG_E_RANGE);
}

static void
too_large_is_refused(void **state)
{
	(void)state;
	qg_secret *s = NULL;
	assert_int_equal(qg_secret_new(SIZE_MAX, &s), QG_E_NOMEM);
	assert_int_equal(qg_secret_new(SIZE_MAX / 2 + 1, &s), QG_E_NOMEM);
	assert_int_equal(qg_secret_new(SIZE_MAX / 4, &s), QG_E_NOMEM);
	assert_null(s);
}

/* More than one arena of a class, all at once: no block overlaps another. */
static void
blocks_do_not_overlap(void **state)
{
	(void)state;
	enum { N = 300 };
	static qg_secret *s[N];
	for (size_t i = 0; i < N; i++) {
		s[i] = secret_of(8192);
		memset(s[i]->data, (int)(i % 251) + 1, 8192);
	}
	for (size_t i = 0; i < N; i++) {
		assert_int_equal(s[i]->data[0], i % 251 + 1);
		assert_memory_equal(s[i]->data, s[i]->data + 1, 8191);
	}
	for (size_t i = 0; i < N; i++)
		qg_secret_free(&s[i]);
}

/* How a child that runs f ends. */
static int
signal_of(void (*f)(void))
{
	fflush(NULL);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit none = {0, 0};
		(void)setrlimit(RLIMIT_CORE, &none);
		/* cmocka's and the sanitizers' handlers would turn it into an exit */
		signal(SIGABRT, SIG_DFL);
		signal(SIGSEGV, SIG_DFL);
		if (freopen("/dev/null", "w", stderr) == NULL)
			_exit(2);
		f();
		_exit(0);
	}
	int status = 0;
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void
free_twice(void)
{
	qg_secret *s = NULL;
	if (qg_secret_new(32, &s) != QG_OK)
		_exit(1);
	qg_secret *copy = s;
	qg_secret_free(&s);
	qg_secret_free(&copy);
}

static void
free_once(void)
{
	qg_secret *s = NULL;
	if (qg_secret_new(32, &s) != QG_OK)
		_exit(1);
	qg_secret_free(&s);
}

static void
fini_with_one_left(void)
{
	qg_secret *s = NULL;
	if (qg_secret_new(32, &s) != QG_OK)
		_exit(1);
	qg_secret_fini();
}

static void
own_bugs_abort(void **state)
{
	(void)state;
	assert_int_equal(signal_of(free_once), 0);
	assert_int_equal(signal_of(free_twice), SIGABRT);
	assert_int_equal(signal_of(fini_with_one_left), SIGABRT);
}

#define THREADS 4
#define ROUNDS 3000

static void *
churn(void *arg)
{
	unsigned x = *(const unsigned *)arg;
	qg_secret *held[8] = {0};
	size_t *bad = calloc(1, sizeof *bad);
	if (bad == NULL)
		abort();
	for (int i = 0; i < ROUNDS; i++) {
		x = x * 1664525u + 1013904223u;
		size_t at = x >> 8 & 7, size = sizes[(x >> 16) % (N_SIZES - 3)];
		if (held[at] != NULL && held[at]->data[0] != (uint8_t)held[at]->len)
			++*bad;
		qg_secret_free(&held[at]);
		if (qg_secret_new(size, &held[at]) != QG_OK || count_not_zero(held[at]->data, size) != 0) {
			++*bad;
			break;
		}
		held[at]->len = size & 0x7f;
		memset(held[at]->data, (int)(held[at]->len), size);
	}
	for (size_t i = 0; i < 8; i++)
		qg_secret_free(&held[i]);
	return bad;
}

static void
threads_share_the_pools(void **state)
{
	(void)state;
	pthread_t t[THREADS];
	unsigned seed[THREADS] = {1, 2, 3, 4};
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, churn, &seed[i]), 0);
	for (size_t i = 0; i < THREADS; i++) {
		void *bad = NULL;
		assert_int_equal(pthread_join(t[i], &bad), 0);
		assert_int_equal(*(size_t *)bad, 0);
		free(bad);
	}
}

static void *
come_and_go(void *arg)
{
	unsigned x = *(const unsigned *)arg;
	qg_secret *held[8] = {0};
	for (int i = 0; i < ROUNDS; i++) {
		x = x * 1664525u + 1013904223u;
		size_t at = x >> 8 & 7;
		qg_secret_free(&held[at]);
		if (qg_secret_new(sizes[(x >> 16) % N_SIZES], &held[at]) != QG_OK)
			abort();
		sched_yield();
	}
	for (size_t i = 0; i < 8; i++)
		qg_secret_free(&held[i]);
	return NULL;
}

/* All that was there is gone, whatever other threads take and give back. */
static void
all_is_wiped_while_others_come_and_go(void **state)
{
	(void)state;
	pthread_t t[THREADS];
	unsigned seed[THREADS] = {5, 6, 7, 8};
	qg_secret *held[N_SIZES] = {0};
	for (size_t i = 0; i < N_SIZES; i++) {
		assert_int_equal(qg_secret_new(sizes[i], &held[i]), QG_OK);
		memset(held[i]->data, 0xa5, sizes[i]);
	}
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, come_and_go, &seed[i]), 0);
	for (int i = 0; i < 50; i++) {
		qg_secret_wipe_all();
		sched_yield();
	}
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_join(t[i], NULL), 0);
	for (size_t i = 0; i < N_SIZES; i++) {
		assert_int_equal(held[i]->room, sizes[i]);
		assert_int_equal(count_not_zero(held[i]->data, sizes[i]), 0);
		qg_secret_free(&held[i]);
	}
}

/* The optimiser may drop a store to a variable that dies: a thread leaves a
 * mark on its stack, once wiped and once not, and we look at that stack. */
#define MARK_LEN 4096
#define STACK_LEN ((size_t)1024 * 1024)

NO_ASAN static void *
leave_on_stack(void *wipe)
{
	uint8_t mark[MARK_LEN];
	memset(mark, 0xa5, sizeof mark);
	__asm__ volatile("" : : "r"(mark) : "memory"); /* it is used */
	if (wipe != NULL)
		qg_wipe(mark, sizeof mark);
	return NULL;
}

/* The stack is memory that is mapped twice: read by the other mapping, it is
 * no dead stack to the checkers. */
static size_t
marks_left(bool wipe)
{
	pthread_attr_t attr;
	pthread_t t;
	int fd = memfd_create("stack", MFD_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)STACK_LEN), 0);
	void *stack = mmap(NULL, STACK_LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	const uint8_t *seen = mmap(NULL, STACK_LEN, PROT_READ, MAP_SHARED, fd, 0);
	assert_true(stack != MAP_FAILED && seen != MAP_FAILED);
	close(fd);
	assert_int_equal(pthread_attr_init(&attr), 0);
	assert_int_equal(pthread_attr_setstack(&attr, stack, STACK_LEN), 0);
	assert_int_equal(pthread_create(&t, &attr, leave_on_stack, wipe ? &attr : NULL), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	pthread_attr_destroy(&attr);
	size_t left = 0;
	for (size_t i = 0; i < STACK_LEN; i++)
		left += seen[i] == 0xa5;
	munmap(stack, STACK_LEN);
	assert_int_equal(munmap((void *)(uintptr_t)seen, STACK_LEN), 0);
	return left;
}

static void
wipe_survives_optimisation(void **state)
{
	(void)state;
	/* The thread's end writes over some of it. */
	assert_true(marks_left(false) > MARK_LEN / 4); /* the test can see */
	assert_in_range(marks_left(true), 0, 64);
}

static void
equal_sees_every_bit(void **state)
{
	(void)state;
	uint8_t a[33], b[33];
	qg_random(a, sizeof a);
	memcpy(b, a, sizeof b);
	assert_true(qg_equal_ct(a, b, sizeof a));
	assert_true(qg_equal_ct(a, b, 0));
	for (size_t i = 0; i < sizeof a * 8; i++) {
		b[i / 8] ^= (uint8_t)(1u << i % 8);
		assert_false(qg_equal_ct(a, b, sizeof a));
		b[i / 8] ^= (uint8_t)(1u << i % 8);
	}
}

static void
random_fills_all_and_only_n(void **state)
{
	(void)state;
	uint8_t a[66] = {0}, seen[64] = {0};
	for (int round = 0; round < 64; round++) {
		qg_random(a + 1, 64);
		for (size_t i = 0; i < 64; i++)
			seen[i] |= a[1 + i];
	}
	for (size_t i = 0; i < 64; i++)
		assert_int_not_equal(seen[i], 0);
	assert_int_equal(a[0], 0);
	assert_int_equal(a[65], 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_gives_zeroed_room),
		cmocka_unit_test(free_wipes),
		cmocka_unit_test(free_takes_null),
		cmocka_unit_test(auto_frees_at_end_of_scope),
		cmocka_unit_test(append_stops_at_the_room),
		cmocka_unit_test(too_large_is_refused),
		cmocka_unit_test(blocks_do_not_overlap),
		cmocka_unit_test(own_bugs_abort),
		cmocka_unit_test(threads_share_the_pools),
		cmocka_unit_test(all_is_wiped_while_others_come_and_go),
		cmocka_unit_test(wipe_survives_optimisation),
		cmocka_unit_test(equal_sees_every_bit),
		cmocka_unit_test(random_fills_all_and_only_n),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	int failed = cmocka_run_group_tests_name("secret", tests, NULL, NULL);
	qg_secret_fini();
	return failed;
}
