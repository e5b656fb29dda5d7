/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_DAEMON_INTERNAL_H
#define QKDGATE_DAEMON_INTERNAL_H

#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "qkdgate/admin.h"
#include "qkdgate/audit.h"
#include "qkdgate/core.h"
#include "qkdgate/directory.h"
#include "qkdgate/etsi004_server.h"
#include "qkdgate/etsi014.h"
#include "qkdgate/etsi020.h"
#include "qkdgate/kms.h"
#include "qkdgate/seal.h"
#include "qkdgate/source.h"
#include "qkdgate/store.h"

/* Inside the daemon:
 *   daemon.c       its parts: made, plugged together, taken apart
 *   daemon_acts.c  what is done to the gateway as a whole while it runs
 *   daemon_wait.c  the main thread: signals, the watchdog, the tamper switch */

#define QG_DAEMON_WHY_ROOM 512
#define QG_DAEMON_EXIT_ZEROIZED 3

typedef struct daemon_parts {
	const qg_config *cfg; /* of the start */
	const char *file;
	qg_sealer *sealer;
	qg_audit *audit;
	qg_store *store;
	bool fresh;
	qg_directory *directory;
	qg_kms *kms;
	qg_etsi020 *etsi020; /* NULL without kxi_listener */
	qg_core *core;
	qg_source **source;
	size_t n_sources;
	qg_push_listener *push;
	qg_etsi014 *etsi014;
	qg_etsi004_server *etsi004;
	qg_admin *admin;
	atomic_bool draining;
	_Atomic uint64_t drained_ms; /* elapsed time at which it ends; 0: not draining */
	atomic_bool zeroized;
	char why[QG_DAEMON_WHY_ROOM];
} daemon_parts;

/* For admin.h; ctx is a daemon_parts. */
extern const qg_admin_ops qg_daemon_acts;

/* Blocks what the main thread waits for. */
void qg_daemon_block_signals(const qg_config *cfg, sigset_t *out);

/* Serves signals until one of them, or an act, ends the gateway. Does not return
 * once all key material is destroyed. */
void qg_daemon_wait(daemon_parts *d, const sigset_t *signals);

/* Tells systemd, if it asked to be told: "READY=1", ... */
void qg_daemon_notify(const char *state);

#endif
