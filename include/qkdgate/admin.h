/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ADMIN_H
#define QKDGATE_ADMIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/audit.h"
#include "qkdgate/byte_server.h"
#include "qkdgate/config.h"
#include "qkdgate/core.h"
#include "qkdgate/directory.h"
#include "qkdgate/error.h"
#include "qkdgate/etsi014.h"
#include "qkdgate/http_server.h"

/* The admin interface: JSON over HTTP on a Unix socket and, with administrators'
 * certificates or passwords, over HTTPS, where the dashboard is too; health and
 * metrics there and on the scrape listener. It reads copies of figures (core_view.h) and acts through the table below;
 * nothing that it can reach gives key material. docs/monitoring.md,
 * openapi/admin.yaml. */

typedef struct qg_admin qg_admin;

/* What acts on the gateway as a whole: app/daemon.c. Any thread, one call at a
 * time; `who` is for the audit log, in which each writes a line. */
typedef struct qg_admin_ops {
	/* Takes the configuration file, certificates and revocation lists anew, or
	 * refuses it whole, with `why`: QG_E_PARSE (it is wrong), QG_E_STATE (what
	 * changed needs a restart). */
	qg_err (*reload)(void *ctx, const char *who, char *why, size_t why_room);
	/* From now on no key is issued; after grace_s the gateway stops in order. */
	void (*drain)(void *ctx, const char *who, unsigned grace_s);
	/* Destroys all key material. What could not be destroyed stands in `why`
	 * (QG_E_IO). The process ends soon after it returns. */
	qg_err (*zeroize)(void *ctx, const char *who, char *why, size_t why_room);
	bool (*draining)(void *ctx);
	/* Adds an entry to `saes` or `policy`, or takes one out again that was added so
	 * (text NULL). It is durable and in force when QG_OK is returned; else nothing
	 * changed, and `why` says why: QG_E_PARSE, QG_E_EXISTS, QG_E_NOTFOUND, QG_E_STATE
	 * (it stands in the file), QG_E_IO. */
	qg_err (*change)(void *ctx, const char *who, const qg_config_entry *e, char *why, size_t why_room);
	/* What was added, oldest first. One that is not in force contradicts the file
	 * of the start. `each` must not call back. */
	void (*entries)(void *ctx, void (*each)(const qg_config_entry *e, bool in_force, void *each_ctx),
			void *each_ctx);
	/* An SAE, a pair or a peer gets no key from now on, or gets keys again. It is
	 * durable and in force when QG_OK is returned. QG_E_NOTFOUND: no such peer, or it
	 * is to be resumed and was not suspended; QG_E_FULL: too many pairs. QG_E_IO: where
	 * it is to be suspended it is so until the gateway stops, but that was not kept;
	 * where it is to be resumed nothing changed. */
	qg_err (*suspend)(void *ctx, const qg_suspension_rec *rec, bool on);
	/* Who is suspended, also those whom the configuration no longer names. `each`
	 * must not call back. */
	void (*suspensions)(void *ctx, void (*each)(const qg_suspension_rec *rec, void *each_ctx), void *each_ctx);
	/* Takes another master key (qg_sealer_change_master; `from` may be NULL). With
	 * *pending the old one is needed until the next start. `why` as above. */
	qg_err (*change_master)(void *ctx, const char *who, const char *from, bool *pending, char *why, size_t why_room);
	/* Whether two master keys open the key ring. */
	bool (*master_pending)(void *ctx);
	/* Whether the last call to a peer was answered, and when; false: there was none. */
	bool (*peer_reached)(void *ctx, const char *peer, bool *answered, uint64_t *ago_ms);
	/* How the last call to a neighbour ended, and when; false: there was none. */
	bool (*reached)(void *ctx, const char *neighbour, qg_err *last, uint64_t *ago_ms);
} qg_admin_ops;

/* A listener whose requests are counted in the metrics. */
typedef struct qg_admin_listener {
	const char *name;
	const qg_http_server *http;
	const qg_byte_server *bytes; /* in the place of http */
} qg_admin_listener;

#define QG_ADMIN_LISTENERS_MAX 8

typedef struct qg_admin_parts {
	const qg_config *cfg; /* all parts outlive it */
	qg_core *core;
	qg_directory *directory;
	qg_etsi014 *etsi014;
	qg_audit *audit;
	const qg_admin_ops *ops;
	void *ctx;            /* of ops */
	qg_admin_listener listener[QG_ADMIN_LISTENERS_MAX];
	size_t n_listeners;
} qg_admin_parts;

/* Starts what section `admin` asks for; without it *out becomes NULL. `why`
 * names what failed. QG_E_INVAL: a listener without authentication; else as
 * qg_http_server_start. */
qg_err qg_admin_start(const qg_admin_parts *parts, qg_admin **out, char *why, size_t why_room) QG_CHECKED;

/* The certificates of the admin listener read anew. Takes NULL. */
qg_err qg_admin_reload_tls(qg_admin *a, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;
/* The file of passwords read anew: sessions whose line there is gone or another one
 * end. On failure the old one stays, as of qg_passwords_load. Takes NULL. */
qg_err qg_admin_reload_passwords(qg_admin *a, char *why, size_t why_room) QG_CHECKED;
/* The directory took a new configuration: who the administrators are. Takes NULL. */
void qg_admin_renew(qg_admin *a);

/* Ends it; takes NULL and pointers to NULL. */
void qg_admin_stop(qg_admin **a);

#endif
