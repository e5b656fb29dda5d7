/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TEST_SEED_H
#define QKDGATE_TEST_SEED_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>

/* The seed of what a case draws at random: printed, and taken from QG_TEST_SEED
 * where that is set, so that a failure can be had again:
 * QG_TEST_ONLY=CASE QG_TEST_SEED=N build/unit/test_MODULE. Never 0. */
static inline unsigned
test_seed(void)
{
	const char *given = getenv("QG_TEST_SEED");
	unsigned seed = 0;
	if (given != NULL)
		seed = (unsigned)strtoul(given, NULL, 0);
	else if (getrandom(&seed, sizeof seed, 0) != (ssize_t)sizeof seed)
		abort();
	if (seed == 0)
		seed = 1;
	printf("QG_TEST_SEED=%u\n", seed);
	return seed;
}

#endif
