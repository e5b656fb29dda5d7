/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI020_H
#define QKDGATE_ETSI020_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/audit.h"
#include "qkdgate/config.h"
#include "qkdgate/directory.h"
#include "qkdgate/error.h"
#include "qkdgate/http_server.h"
#include "qkdgate/interop.h"

/* ETSI GS QKD 020 V1.1.1 and its drafts over HTTPS: a listener of its own for
 * the key managers of other networks, and the calls to them. A caller is the
 * peer whose certificate it shows; others get 401. What it says is checked for
 * its form and its limits here, for what it means in the core. */

typedef struct qg_etsi020 qg_etsi020;

/* Starts the outgoing side. All parts outlive it. QG_E_MODE, QG_E_IO,
 * QG_E_PARSE (files of kxi_client), QG_E_NOMEM. */
qg_err qg_etsi020_new(const qg_config *cfg, const qg_directory *directory, qg_audit *audit, qg_etsi020 **out)
	QG_CHECKED;

/* The way out, for the core; lives as long as the qg_etsi020. */
qg_interop_way *qg_etsi020_way(qg_etsi020 *e);

/* Starts the listener; requests go to `interop`. `why` gets a text that names
 * what failed. */
qg_err qg_etsi020_listen(qg_etsi020 *e, qg_interop *interop, char *why, size_t why_room) QG_CHECKED;

/* Ends the listener: nothing goes to `interop` any more. Sending still works. */
void qg_etsi020_unlisten(qg_etsi020 *e);

/* qg_http_server_reload_tls of the listener; e NULL: nothing. And the listener, for
 * its figures. */
qg_err qg_etsi020_reload_tls(qg_etsi020 *e, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;
const qg_http_server *qg_etsi020_http(const qg_etsi020 *e);

/* Whether the last call to a peer was answered, and how long ago it ended; false:
 * there was none, or no such peer, or e is NULL. Any thread. */
bool qg_etsi020_reached(const qg_etsi020 *e, const char *peer_id, bool *answered, uint64_t *ago_ms);

/* Ends the outgoing side too; calls under way are told that no answer came. */
void qg_etsi020_free(qg_etsi020 **e);

#endif
