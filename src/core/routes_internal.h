/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ROUTES_INTERNAL_H
#define QKDGATE_ROUTES_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/config.h"
#include "qkdgate/error.h"
#include "qkdgate/kms_msg.h"

/* Routes of the virtual streams (SOUNDNESS 17): strictly over nodes and links
 * of the configuration. What is learned (reports of other nodes, failures seen)
 * changes what a link costs, never which links there are. A lock of its own,
 * never held over another; any thread. Names in results are the configuration's. */

typedef struct qg_routes qg_routes;

typedef struct qg_route {
	size_t n;                           /* KMEs, both ends counted: at least 2 */
	const char *node[QG_KMS_PATH_MAX];  /* node[0] is this gateway */
	uint64_t cost;
	uint64_t bytes;                     /* least node key known to be ready on a link of it; UINT64_MAX: not known */
} qg_route;

/* Trusted nodes in between: 0 on a direct link (ETSI GS QKD 004, "hops"). */
#define QG_ROUTE_HOPS(r) ((uint32_t)((r)->n - 2))

qg_err qg_routes_new(const qg_config *cfg, qg_routes **out) QG_CHECKED;
void qg_routes_free(qg_routes **r);

/* Up to k node-disjoint routes (but for the ends) from here to the stream's
 * neighbour, whose costs add up to the least; of the stream's static routes
 * where it has any, else of the topology. Links under a penalty are used only
 * where there is nothing else, but for links known to be down, which are not
 * used at all until their penalty ends. *n may be less than k, even 0. */
void qg_routes_find(qg_routes *r, const qg_config_stream *stream, unsigned k, uint64_t now_ms, qg_route *out,
		    size_t *n);

typedef enum qg_route_fault {
	QG_ROUTE_DOWN,     /* cannot be reached: not used until the penalty ends */
	QG_ROUTE_STARVING, /* has no key: costs more */
	QG_ROUTE_BUSY,     /* a quota there: costs more */
	QG_ROUTE_WRONG     /* answered wrongly, or a segment over it did not match: isolated, 16 penalties */
} qg_route_fault;

/* What relaying learns of the link from `at` to `next` (either direction is
 * meant for DOWN and WRONG). Penalties double while faults go on. */
void qg_routes_fault(qg_routes *r, const char *at, const char *next, qg_route_fault fault, uint64_t now_ms);
/* A whole route whose segment did not match: every link between its nodes is
 * marked, since which of them lied is not known. */
void qg_routes_suspect(qg_routes *r, const qg_route *route, uint64_t now_ms);
/* A message was delivered over it: its penalties end, but those for WRONG. */
void qg_routes_worked(qg_routes *r, const qg_route *route);

/* Whether a fault seen here (not told by others) keeps that link from being
 * used now. */
bool qg_routes_is_down(qg_routes *r, const char *at, const char *next, uint64_t now_ms);

/* Takes over a report. False when it brings nothing new (an old sequence, an
 * origin or link that the configuration does not have), so that it need not be
 * told on. */
bool qg_routes_report(qg_routes *r, const qg_kms_report *report, uint64_t now_ms);

/* Whether the configuration has that link, in either direction. */
bool qg_routes_has_link(const qg_routes *r, const char *a, const char *b);

#endif
