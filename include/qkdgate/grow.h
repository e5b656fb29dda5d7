/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_GROW_H
#define QKDGATE_GROW_H

#include <stddef.h>

/* An array of n items of item_bytes, with room for one more: itself, or moved to a
 * place of twice the size, which *room then counts. The caller owns it as before
 * (free). NULL without memory: the array and *room stay. Not for secrets, since what
 * was moved stays behind in freed memory. */
void *qg_grown(void *array, size_t *room, size_t n, size_t item_bytes);

#endif
