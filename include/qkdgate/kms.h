/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_KMS_H
#define QKDGATE_KMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/config.h"
#include "qkdgate/directory.h"
#include "qkdgate/error.h"
#include "qkdgate/http_server.h"
#include "qkdgate/peers.h"

/* The neighbours' interface over HTTPS: a listener of its own and an outgoing
 * client, POST /api/v1/kms/NAME with the names of qg_kms_kind_name.
 * A caller is the neighbour whose certificate it shows; others get 401. Counts
 * messages sent and received per kind and logs them at level debug. */

typedef struct qg_kms qg_kms;

/* Starts the outgoing side. cfg and directory outlive it. */
qg_err qg_kms_new(const qg_config *cfg, const qg_directory *directory, qg_kms **out) QG_CHECKED;

/* The way out, for the streams; lives as long as the qg_kms. */
qg_channel *qg_kms_channel(qg_kms *k);

/* Starts the listener; messages go to `peers`. */
qg_err qg_kms_listen(qg_kms *k, qg_peers *peers, char *why, size_t why_room) QG_CHECKED;

/* Its certificates and revocation lists read anew: qg_http_server_reload_tls. */
qg_err qg_kms_reload_tls(qg_kms *k, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;
/* The listener, for its figures; NULL while there is none. */
const qg_http_server *qg_kms_http(const qg_kms *k);

/* How the last call to a neighbour ended. False: there was none yet. */
bool qg_kms_reached(const qg_kms *k, const char *neighbour, qg_err *last, uint64_t *ago_ms);

/* Ends the listener: nothing goes to `peers` any more. Sending still works. */
void qg_kms_unlisten(qg_kms *k);

/* Messages sent and received so far. */
void qg_kms_counts(const qg_kms *k, unsigned long long sent[QG_KMS_KINDS], unsigned long long received[QG_KMS_KINDS]);

/* Ends the outgoing side too; calls under way are told QG_E_CLOSED. */
void qg_kms_free(qg_kms **k);

#endif
