/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI014_H
#define QKDGATE_ETSI014_H

#include <stddef.h>

#include "qkdgate/audit.h"
#include "qkdgate/config.h"
#include "qkdgate/directory.h"
#include "qkdgate/error.h"
#include "qkdgate/keystore.h"

/* The ETSI GS QKD 014 V1.1.1 server for SAEs: status, enc_keys, dec_keys, and
 * its own description at /openapi.yaml. */

typedef struct qg_etsi014 qg_etsi014;

typedef struct qg_etsi014_parts {
	const qg_config *cfg; /* all parts outlive the server */
	const qg_directory *directory;
	qg_keystore *keystore;
	qg_audit *audit;
} qg_etsi014_parts;

/* Listens. `why` gets a text that names what failed. */
qg_err qg_etsi014_start(const qg_etsi014_parts *parts, qg_etsi014 **out, char *why, size_t why_room) QG_CHECKED;

/* Ends the listener; see qg_http_server_stop. Clears *s. */
void qg_etsi014_stop(qg_etsi014 **s);

#endif
