/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_RECORDS_INTERNAL_H
#define QKDGATE_RECORDS_INTERNAL_H

#include "core_internal.h"

/* keystore_records.c: keys with IDs of their own. */

/* Stores the keys for the targets, then answers; takes *keys. The request must
 * live until done, ids and targets for the call. */
void qg_records_issue(struct qg_core *core, const qg_issue_request *req, const char *const *targets, size_t n_targets,
		      const qg_uuid *ids, qg_secret **keys, qg_issue_done *done, void *ctx);

/* A pair on this node: draws keys and IDs at random. ids has room for
 * req->number. */
void qg_records_draw(struct qg_core *core, const qg_issue_request *req, qg_uuid *ids, qg_issue_done *done, void *ctx);

#endif
