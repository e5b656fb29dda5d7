/* SPDX-License-Identifier: Apache-2.0 */
#ifndef REFUSAL_H
#define REFUSAL_H

/* Memory, mutexes and threads that the library does not get, and what fails for want of
 * them or of the disk. While it is armed, the
 * first calls are refused that come from call sites where none was refused yet, some in
 * each round; the rest of the round goes on. The program is linked so that these calls
 * come here (Makefile: REFUSED); those of the test itself do not, since it includes this
 * first. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/anchor.h"
#include "qkdgate/seal.h"
#include "qkdgate/secret.h"

#define REFUSAL_SITES 4096
#define REFUSAL_EACH 4
#define REFUSAL_QUIET 3
#define REFUSAL_ROUNDS 1000

typedef struct refusal_site {
	uintptr_t at;
	bool refused;
} refusal_site;

static refusal_site refusal_site_of[REFUSAL_SITES];
static pthread_mutex_t refusal_lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned refusal_most, refusal_left, refusal_total;
static bool refusal_armed, refusal_of_one_thread;
static pthread_t refusal_thread;

static refusal_site *refusal_find(uintptr_t at)
{
	size_t i = at * UINT64_C(0x9e3779b97f4a7c15) >> 52;
	while (refusal_site_of[i].at != 0 && refusal_site_of[i].at != at)
		i = (i + 1) % REFUSAL_SITES;
	refusal_site_of[i].at = at;
	return &refusal_site_of[i];
}

static bool refusal_due(void *at)
{
	bool due = false;
	pthread_mutex_lock(&refusal_lock);
	if (refusal_armed && refusal_left > 0 &&
	    (!refusal_of_one_thread || pthread_equal(refusal_thread, pthread_self()) != 0)) {
		refusal_site *s = refusal_find((uintptr_t)at);
		due = !s->refused;
		s->refused = true;
		refusal_left -= due;
		refusal_total += due;
	}
	pthread_mutex_unlock(&refusal_lock);
	return due;
}

/* A round that refuses so many calls at most; of this thread only, or of all. */
static void refusal_arm(unsigned most, bool this_thread)
{
	pthread_mutex_lock(&refusal_lock);
	refusal_armed = true;
	refusal_left = refusal_most = most;
	refusal_of_one_thread = this_thread;
	refusal_thread = pthread_self();
	pthread_mutex_unlock(&refusal_lock);
}

/* Ends the round: whether a call was refused in it. */
static bool refusal_disarm(void)
{
	pthread_mutex_lock(&refusal_lock);
	refusal_armed = false;
	const bool done = refusal_left < refusal_most;
	pthread_mutex_unlock(&refusal_lock);
	return done;
}

/* Rounds, until in some one after the other nothing was left to refuse. */
static inline void refusal_rounds(void (*round)(void))
{
	unsigned n = 0;
	for (unsigned quiet = 0; quiet < REFUSAL_QUIET && n < REFUSAL_ROUNDS; n++) {
		refusal_arm(REFUSAL_EACH, false);
		round();
		quiet = refusal_disarm() ? 0 : quiet + 1;
	}
	fprintf(stderr, "%u refused in %u rounds\n", refusal_total, n);
}

/* --- what is refused ----------------------------------------------------------------- */

#define DUE refusal_due(__builtin_return_address(0))
#define REFUSE(type, name, params, args, refused) \
	type __real_##name params; \
	type __wrap_##name params; \
	type __wrap_##name params { return DUE ? (refused) : __real_##name args; }

static void *no_memory(void)
{
	errno = ENOMEM;
	return NULL;
}

REFUSE(void *, malloc, (size_t n), (n), no_memory())
REFUSE(void *, calloc, (size_t n, size_t size), (n, size), no_memory())
REFUSE(void *, realloc, (void *p, size_t n), (p, n), no_memory())
REFUSE(void *, reallocarray, (void *p, size_t n, size_t size), (p, n, size), no_memory())
REFUSE(char *, strdup, (const char *s), (s), no_memory())
REFUSE(char *, strndup, (const char *s, size_t n), (s, n), no_memory())
REFUSE(qg_err, qg_secret_new, (size_t room, qg_secret **out), (room, out), QG_E_NOMEM)
REFUSE(qg_err, qg_sealer_seal,
       (qg_sealer *s, const void *ad, size_t ad_len, const void *plain, size_t n, uint8_t *out),
       (s, ad, ad_len, plain, n, out), QG_E_NOMEM)
REFUSE(qg_err, qg_sealer_unseal,
       (qg_sealer *s, const void *ad, size_t ad_len, const uint8_t *blob, size_t len, qg_secret **out),
       (s, ad, ad_len, blob, len, out), QG_E_NOMEM)
REFUSE(qg_err, qg_anchor_write, (qg_anchor *a, const qg_anchor_state *state), (a, state), QG_E_IO)
REFUSE(int, pthread_mutex_init, (pthread_mutex_t *m, const pthread_mutexattr_t *a), (m, a), ENOMEM)
REFUSE(int, pthread_cond_init, (pthread_cond_t *c, const pthread_condattr_t *a), (c, a), ENOMEM)
REFUSE(int, pthread_rwlock_init, (pthread_rwlock_t *l, const pthread_rwlockattr_t *a), (l, a), ENOMEM)
REFUSE(int, pthread_create, (pthread_t *t, const pthread_attr_t *a, void *(*run)(void *), void *arg),
       (t, a, run, arg), EAGAIN)

/* The test's own. */
#define malloc(n) __real_malloc(n)
#define calloc(n, size) __real_calloc(n, size)
#define realloc(p, n) __real_realloc(p, n)
#define reallocarray(p, n, size) __real_reallocarray(p, n, size)
#define strdup(s) __real_strdup(s)
#define strndup(s, n) __real_strndup(s, n)
#define qg_secret_new(room, out) __real_qg_secret_new(room, out)
#define pthread_mutex_init(m, a) __real_pthread_mutex_init(m, a)
#define pthread_cond_init(c, a) __real_pthread_cond_init(c, a)
#define pthread_rwlock_init(l, a) __real_pthread_rwlock_init(l, a)
#define pthread_create(t, a, run, arg) __real_pthread_create(t, a, run, arg)

#endif
