/* SPDX-License-Identifier: Apache-2.0 */
/* What takes a time that does not depend on secrets. Under valgrind (make
 * valgrind) a secret counts as not initialised, so that every branch and every
 * address made of it is an error; without it only the results are checked. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <stdbool.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "qkdgate/encode.h"
#include "qkdgate/secret.h"

#if __has_include(<valgrind/memcheck.h>)
#include <valgrind/memcheck.h>
#else
#define RUNNING_ON_VALGRIND 0
#define VALGRIND_COUNT_ERRORS 0
#define VALGRIND_MAKE_MEM_UNDEFINED(p, n) ((void)(p), (void)(n))
#define VALGRIND_MAKE_MEM_DEFINED(p, n) ((void)(p), (void)(n))
#endif

#define N 64

static void
secret(uint8_t *p)
{
	qg_random(p, N);
	VALGRIND_MAKE_MEM_UNDEFINED(p, N);
}

/* What is said aloud is a secret no longer. */
static void
tell(void *p, size_t n)
{
	VALGRIND_MAKE_MEM_DEFINED(p, n);
}

static void
comparison(void **state)
{
	(void)state;
	uint8_t a[N], b[N];
	for (size_t differ = 0; differ <= N; differ++) {
		secret(a);
		memcpy(b, a, N);
		if (differ < N)
			b[differ] ^= 1;
		bool equal = qg_equal_ct(a, b, N);
		tell(&equal, sizeof equal);
		assert_int_equal(equal, differ == N);
	}
}

static void
base64_of_key(void **state)
{
	(void)state;
	uint8_t key[N], back[N];
	char text[QG_BASE64_LEN(N)];
	size_t n = 0;
	secret(key);
	qg_base64_encode(key, N, text);
	qg_err err = qg_base64_decode(text, sizeof text, back, N, &n);
	tell(&err, sizeof err);
	tell(&n, sizeof n);
	assert_int_equal(err, QG_OK);
	assert_int_equal(n, N);
	tell(key, N);
	tell(back, N);
	assert_memory_equal(key, back, N);
}

static void
hex_of_key(void **state)
{
	(void)state;
	uint8_t key[N], back[N];
	char text[2 * N];
	secret(key);
	qg_hex_encode(key, N, text);
	qg_err err = qg_hex_decode(text, sizeof text, back, N);
	tell(&err, sizeof err);
	assert_int_equal(err, QG_OK);
	tell(key, N);
	tell(back, N);
	assert_memory_equal(key, back, N);
}

/* In a process of its own, whose errors are not those of this one. */
static void
the_method_sees_a_leak(void **state)
{
	(void)state;
	const pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		uint8_t a[N], b[N] = {0};
		volatile unsigned steps = 0;
		secret(a);
		for (size_t i = 0; i < N && a[i] == b[i]; i++)
			steps++;
		_exit(VALGRIND_COUNT_ERRORS > 0 ? 3 : 0);
	}
	int status = 0;
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status) != 0, RUNNING_ON_VALGRIND != 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(comparison),
		cmocka_unit_test(base64_of_key),
		cmocka_unit_test(hex_of_key),
		cmocka_unit_test(the_method_sees_a_leak),
	};
	if (qg_secret_init() != QG_OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
