/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_NEAREST_H
#define QKDGATE_NEAREST_H

#include <stddef.h>

/* "Is ... meant?" Of n names the one most like the word; NULL when none is alike
 * enough that it may be meant, or the word is longer than 64 bytes. Pure. */
const char *qg_nearest(const char *word, const char *const *names, size_t n);

#endif
