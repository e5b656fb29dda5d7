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
	void *grown = more > *room ? reallocarray(array, more, item_bytes) : NULL;
	if (grown != NULL)
		*room = more;
	return grown;
}
