/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/pattern.h"

#include <string.h>

/* What stands before the first star must begin the text and what stands after
 * the last one must end it; each part between is taken at its leftmost place
 * in what is left, which never spoils a later part. */
bool
qg_pattern_matches(const char *pattern, const char *text)
{
	const char *star = strchr(pattern, '*');
	if (star == NULL)
		return strcmp(pattern, text) == 0;

	const size_t head = (size_t)(star - pattern);
	if (strncmp(pattern, text, head) != 0)
		return false;
	text += head;
	size_t left = strlen(text);

	for (;;) {
		const char *const part = star + 1;
		star = strchr(part, '*');
		if (star == NULL) {
			const size_t tail = strlen(part);
			return tail <= left && memcmp(text + left - tail, part, tail) == 0;
		}
		const size_t len = (size_t)(star - part);
		const char *const at = memmem(text, left, part, len);
		if (at == NULL)
			return false;
		left -= (size_t)(at - text) + len;
		text = at + len;
	}
}
