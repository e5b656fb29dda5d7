/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_PATTERN_H
#define QKDGATE_PATTERN_H

#include <stdbool.h>

/* Whether text matches a pattern in which `*` stands for any run of
 * characters and everything else for itself. Linear, no recursion. Pure. */
bool qg_pattern_matches(const char *pattern, const char *text);

#endif
