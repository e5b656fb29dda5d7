/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_GET_INTERNAL_H
#define QKDGATE_GET_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "qkdgate/client.h"

/* How keys are written (formats.c). */
typedef struct get_format {
	const char *name;
	const char *help;
	unsigned size_bits; /* the only size that fits, 0: any */
	bool lines;         /* one after the other in lines, so several can be told apart */
	/* Appends to out, which has room for QG_GET_TEXT_MAX; returns its length. */
	size_t (*write)(const qg_client_key *key, char *out);
} get_format;

#define QG_GET_KEY_MAX 65536
#define QG_GET_TEXT_MAX (2 * QG_GET_KEY_MAX + 256)

extern const get_format get_formats[];
extern const size_t n_get_formats;

typedef struct get_options {
	const char *url;
	qg_client_files files;
	const char *slave, *master; /* one of them */
	const char **ids;           /* with master */
	size_t n_ids;
	unsigned number, size_bits, timeout_ms;
	unsigned wait_s;            /* how long to ask again while there is no key */
	const get_format *format;
	const char *output;         /* NULL: standard output */
	bool status;
} get_options;

typedef enum get_parsed { GET_GO, GET_HELP, GET_WRONG } get_parsed;

/* Reads the command line; what is wrong goes to standard error. */
get_parsed get_parse(int argc, char **argv, get_options *out);
void get_usage(void);

#endif
