/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI004_SERVER_H
#define QKDGATE_ETSI004_SERVER_H

#include <stddef.h>

#include "qkdgate/app_streams.h"
#include "qkdgate/audit.h"
#include "qkdgate/config.h"
#include "qkdgate/directory.h"
#include "qkdgate/error.h"

/* ETSI GS QKD 004 V2.1.1 for applications, in every profile, on one port
 * (section `app_listener`): docs/etsi004.md. */

typedef struct qg_etsi004_server qg_etsi004_server;

typedef struct qg_etsi004_server_parts {
	const qg_config *cfg; /* all outlive the server */
	const qg_directory *directory;
	qg_app_streams *streams;
	qg_audit *audit;
} qg_etsi004_server_parts;

/* Starts listening. `why` gets a text that names what failed. */
qg_err qg_etsi004_server_start(const qg_etsi004_server_parts *parts, qg_etsi004_server **out, char *why,
			       size_t why_room) QG_CHECKED;

/* The port listened on. */
unsigned qg_etsi004_server_port(const qg_etsi004_server *s);

/* The listener, for its figures. */
const struct qg_byte_server *qg_etsi004_server_bytes(const qg_etsi004_server *s);

/* qg_byte_server_reload_tls; NULL: nothing. */
qg_err qg_etsi004_server_reload_tls(qg_etsi004_server *s, const qg_tls_files *f, char *why,
				    size_t why_room) QG_CHECKED;

/* Who is who has changed: connections are looked at again. NULL: nothing. */
void qg_etsi004_server_renew(qg_etsi004_server *s);

/* From now on no key leaves through it: what is in memory is about to be wiped.
 * There is no way back. NULL: nothing. */
void qg_etsi004_server_forbid(qg_etsi004_server *s);

/* Closes every connection; no call is begun after it. Answers that are still due
 * are dropped. NULL: nothing. */
void qg_etsi004_server_stop(qg_etsi004_server *s);

/* After qg_etsi004_server_stop and qg_core_wind_down: waits for the last answer.
 * Clears *s. */
void qg_etsi004_server_free(qg_etsi004_server **s);

#endif
