/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qkdgate/secret.h"

/* A fuzz target takes any bytes. It aborts when something does not hold. The
 * same file is linked with libFuzzer (`make fuzz`) and with replay.c, which
 * runs the corpus (`make check`). */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A target whose inputs say how long they are: makes that right after an input was
 * changed (mutate.c; mostly, not always). */
void fuzz_mend(uint8_t *data, size_t size);

#define HOLDS(what)                                                                  \
	do {                                                                         \
		if (!(what)) {                                                       \
			fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #what); \
			abort();                                                     \
		}                                                                    \
	} while (0)

/* As main does in every program of ours. */
__attribute__((constructor)) static void
begin(void)
{
	HOLDS(qg_secret_init() == QG_OK);
}

/* A copy in a block of exactly its size, so that one byte too far is seen. */
static inline char *
copy_of(const uint8_t *data, size_t size)
{
	char *p = malloc(size + 1);
	HOLDS(p != NULL);
	memcpy(p, data, size);
	p[size] = '\0';
	char *exact = realloc(p, size > 0 ? size : 1);
	return exact != NULL ? exact : p;
}

/* The same with a NUL behind. */
static inline char *
text_of(const uint8_t *data, size_t size)
{
	char *p = malloc(size + 1);
	HOLDS(p != NULL);
	memcpy(p, data, size);
	p[size] = '\0';
	return p;
}

/* A folder of its own, in memory where there is such a place: on a disk most of the
 * time is waiting for it. */
static inline void
make_folder(char out[64])
{
	snprintf(out, 64, "%s/qg-fuzz-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
	HOLDS(mkdtemp(out) != NULL);
}

#endif
