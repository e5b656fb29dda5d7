/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CORE_H
#define QKDGATE_CORE_H

#include <stdbool.h>
#include <stddef.h>

#include "qkdgate/accounts.h"
#include "qkdgate/app_streams.h"
#include "qkdgate/audit.h"
#include "qkdgate/config.h"
#include "qkdgate/directory.h"
#include "qkdgate/error.h"
#include "qkdgate/intake.h"
#include "qkdgate/interop.h"
#include "qkdgate/keystore.h"
#include "qkdgate/peers.h"
#include "qkdgate/seal.h"
#include "qkdgate/store.h"

/* The gateway's heart: key streams with their epochs and segments, leases,
 * confirmation with the neighbours, and the keystore over them. It reaches
 * outward only through the store's and the channel's operation tables; the
 * 004 sessions come to it through intake.h. */

typedef struct qg_core qg_core;

typedef struct qg_core_parts {
	const qg_config *cfg; /* all parts outlive the core */
	qg_directory *directory;
	qg_store *store;
	bool fresh;           /* the database was made now */
	qg_sealer *sealer;
	qg_audit *audit;
	qg_channel *channel;
	qg_interop_way *way;  /* to key managers of other networks; NULL without `peers` */
} qg_core_parts;

/* Loads the store, compares it with the anchor (SOUNDNESS 9), and starts the
 * committer and the conductor. `why` gets a text that names what failed. */
qg_err qg_core_start(const qg_core_parts *parts, qg_core **out, char *why, size_t why_room) QG_CHECKED;

qg_keystore *qg_core_keystore(qg_core *core);
qg_peers *qg_core_peers(qg_core *core);
qg_app_streams *qg_core_app_streams(qg_core *core);
qg_interop *qg_core_interop(qg_core *core);
qg_accounts *qg_core_accounts(qg_core *core);

/* SAEs, directory or policy are others than before: what depends on them is
 * looked at without delay. */
void qg_core_renew(qg_core *core);

/* The streams, in the order of the configuration. */
size_t qg_core_intakes(const qg_core *core);
qg_intake *qg_core_intake(qg_core *core, size_t i);

/* Orders every stream's session to CLOSE and STOP and tells the neighbours.
 * The channel still works; sessions end afterwards. */
void qg_core_wind_down(qg_core *core);

/* After the sessions, the listeners and the channel ended: makes the last
 * state durable and frees everything. Clears *core. */
void qg_core_stop(qg_core **core);

/* Ends every epoch in a database that no daemon uses (after a restore). */
qg_err qg_core_reset_epochs(const qg_core_parts *parts, char *why, size_t why_room) QG_CHECKED;

#endif
