/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_EMBED_H
#define QKDGATE_EMBED_H

#include <stddef.h>

/* Files of the source tree that are compiled in by src/embed. Each array ends
 * with a NUL that its length does not count. */

extern const char qg_embed_openapi_etsi014_yaml[];
extern const char qg_embed_openapi_admin_yaml[];
extern const size_t qg_embed_openapi_admin_yaml_len;
extern const size_t qg_embed_openapi_etsi014_yaml_len;
extern const char qg_embed_openapi_etsi020_yaml[];
extern const size_t qg_embed_openapi_etsi020_yaml_len;

/* One file of src/dashboard. */
typedef struct qg_page {
	const char *name; /* "index.html" */
	const char *text;
	size_t len;
	const char *etag; /* of its content, in quotes */
} qg_page;

extern const qg_page qg_pages[];
extern const size_t qg_n_pages;

/* One file db/NNN_name.sql. */
typedef struct qg_migration {
	unsigned number;  /* 1, 2, 3 ... without a gap */
	const char *name; /* "001_initial" */
	const char *text; /* SQL statements */
} qg_migration;

/* In order of their numbers. */
extern const qg_migration qg_migrations[];
extern const size_t qg_n_migrations;

#endif
