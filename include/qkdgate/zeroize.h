/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ZEROIZE_H
#define QKDGATE_ZEROIZE_H

#include <stdbool.h>

#include "qkdgate/error.h"

/* Destroying files that hold key, as the answer to tampering. */

/* Whether a tamper switch is on: a file, or the value file of an input pin, that
 * is there and does not begin with `0`. One that is there and cannot be read is
 * on, too. Any thread. */
bool qg_zeroize_file_says(const char *path);

/* Overwrites the file in place, syncs it and takes its name away; one that is
 * not there is QG_OK. Tries everything it can before it gives up: QG_E_IO when
 * bytes of it may be left. Any thread. */
qg_err qg_zeroize_destroy(const char *path) QG_CHECKED;

#endif
