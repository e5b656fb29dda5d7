/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/nearest.h"

#include <string.h>

#define WORD_MAX 64 /* longer ones are not compared */

static size_t
least(size_t a, size_t b, size_t c)
{
	const size_t least_of_two = a < b ? a : b;
	return least_of_two < c ? least_of_two : c;
}

/* Levenshtein's: letters to put in, take out or change. b has at most WORD_MAX. */
static size_t
distance(const char *a, const char *b)
{
	size_t row[WORD_MAX + 1];
	const size_t n = strlen(b);
	for (size_t j = 0; j <= n; j++)
		row[j] = j;
	for (size_t i = 1; a[i - 1] != '\0'; i++) {
		size_t corner = row[0];
		row[0] = i;
		for (size_t j = 1; j <= n; j++) {
			const size_t above = row[j];
			row[j] = least(above + 1, row[j - 1] + 1, corner + (a[i - 1] != b[j - 1]));
			corner = above;
		}
	}
	return row[n];
}

const char *
qg_nearest(const char *word, const char *const *names, size_t n)
{
	const char *best = NULL;
	size_t best_distance = 0;
	if (strlen(word) > WORD_MAX)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		const size_t d = distance(names[i], word);
		if (best == NULL || d < best_distance) {
			best = names[i];
			best_distance = d;
		}
	}
	return best != NULL && best_distance <= 1 + strlen(word) / 3 ? best : NULL;
}
