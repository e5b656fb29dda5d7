/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/grow.h"

#include <stdlib.h>

#define FIRST 16

void *
qg_grown(void *array, size_t *room, size_t n, size_t item_bytes)
{
	if (n < *room)
		return array;
	const size_t more = *room == 0 ? FIRST : 2 * *room;
	size_t bytes;
	if (more <= *room || __builtin_mul_overflow(more, item_bytes, &bytes))
		return NULL;
	void *grown = realloc(array, bytes);
	if (grown != NULL)
		*room = more;
	return grown;
}
