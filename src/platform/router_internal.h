/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ROUTER_INTERNAL_H
#define QKDGATE_ROUTER_INTERNAL_H

#include <stddef.h>

#include "qkdgate/error.h"
#include "qkdgate/http_server.h"

/* From the request target as it came to decoded pieces, and from there to a
 * route of the table. Pure; any number of threads. */

#define QG_TARGET_SEGMENTS_MAX 16
#define QG_TARGET_QUERY_MAX 32
#define QG_ROUTER_ALLOW_MAX 128

/* A request target taken apart; all pointers go into the caller's buffers. */
typedef struct qg_target {
	const char *path; /* as it came, without the query */
	const char *segment[QG_TARGET_SEGMENTS_MAX];
	size_t n_segments;
	struct {
		const char *name;
		const char *value;
	} query[QG_TARGET_QUERY_MAX];
	size_t n_query;
} qg_target;

/* Takes the target apart; `scratch` has room for 2 * (strlen(raw) + 1) bytes.
 * Segments are split before they are decoded, so %2F is part of a segment.
 * QG_E_PARSE: a bad escape, an encoded NUL, a control character. QG_E_RANGE:
 * too many query arguments. QG_E_NOTFOUND: a path that no route can have. The
 * path is set in every case: the audit wants it. */
qg_err qg_target_parse(const char *raw, char *scratch, qg_target *out) QG_CHECKED;

typedef struct qg_router qg_router;

/* Compiles the table, which must outlive the router. QG_E_INVAL: a pattern
 * that is none, or the same one twice for a method. QG_E_NOMEM. */
qg_err qg_router_new(const qg_http_route *routes, size_t n, qg_router **out) QG_CHECKED;
void qg_router_free(qg_router **r);

typedef struct qg_route_match {
	const qg_http_route *route;
	const char *part[QG_TARGET_SEGMENTS_MAX]; /* the {parts}, in order */
	size_t n_parts;
} qg_route_match;

/* Finds the route; a literal segment goes before a {part}, which may be empty:
 * what that means is the handler's to say. QG_E_NOTFOUND: no such path. QG_E_UNSUPPORTED: the path is known, not
 * with this method; then allow holds the methods that are. */
qg_err qg_router_match(const qg_router *r, const char *method, const qg_target *t, qg_route_match *out,
		       char allow[QG_ROUTER_ALLOW_MAX]) QG_CHECKED;

#endif
