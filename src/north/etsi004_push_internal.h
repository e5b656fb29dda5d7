/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI004_PUSH_INTERNAL_H
#define QKDGATE_ETSI004_PUSH_INTERNAL_H

#include "qkdgate/etsi004.h"
#include "qkdgate/etsi004_server.h"

/* Key that goes to applications over connections of our own (http-push): chunk
 * after chunk of a stream to the listener that `saes[].push_to` names, from a
 * GET_KEY until CLOSE. Any thread. */

typedef struct qg_004_pushes qg_004_pushes;

/* QG_E_IO, QG_E_PARSE, QG_E_MODE, QG_E_NOMEM. */
qg_err qg_004_pushes_start(const qg_etsi004_server_parts *parts, qg_004_pushes **out) QG_CHECKED;

/* Begins with the chunk of get->index, or has a push that is there go on with it.
 * `begun` is called exactly once, at once or later, with the status that GET_KEY
 * is answered with; nothing was begun unless it is 0. */
typedef void qg_004_push_begun(void *ctx, uint32_t status);
void qg_004_push_begin(qg_004_pushes *all, const qg_etsi004_profile *p, const qg_app_get *get,
		       qg_004_push_begun *begun, void *ctx);

/* Nothing more of that stream is pushed; what is under way may arrive. */
void qg_004_push_end(qg_004_pushes *all, const qg_config_sae *sae, const qg_uuid *ksid);

/* No chunk leaves any more. */
void qg_004_pushes_forbid(qg_004_pushes *all);

/* Ends all calls. NULL: nothing. */
void qg_004_pushes_stop(qg_004_pushes *all);
/* After it, and after qg_core_wind_down: waits for what the core still owes.
 * Clears *all. */
void qg_004_pushes_free(qg_004_pushes **all);

#endif
