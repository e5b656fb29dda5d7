/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_DAEMON_INTERNAL_H
#define QKDGATE_DAEMON_INTERNAL_H

#include <pthread.h>
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
 *   daemon_entries.c  SAEs and rules that were made at run time
 *   daemon_acts.c  what is done to the gateway as a whole while it runs
 *   daemon_levels.c  rates over a restart
 *   daemon_suspensions.c  who gets no key, over a restart
 *   daemon_wait.c  the main thread: signals, the watchdog, the tamper switch */

#define QG_DAEMON_WHY_ROOM 512
#define QG_DAEMON_EXIT_ZEROIZED 3

/* Of one that was made at run time; the strings are its own. */
typedef struct daemon_entry {
	char *list, *name, *text;
	bool left_out; /* contradicts the file of the start */
} daemon_entry;

typedef struct daemon_entries {
	daemon_entry *entry;
	size_t n;
} daemon_entries;

/* Who is suspended; the strings are its own. */
typedef struct daemon_suspensions {
	qg_suspension_rec *rec;
	size_t n, room;
} daemon_suspensions;

/* What SAEs had left of their rates; the strings are its own. */
typedef struct daemon_levels {
	qg_level_rec *level;
	size_t n, room;
	bool known;
	uint64_t away_ms;
} daemon_levels;

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
	pthread_mutex_t changing; /* one change of the configuration in force at a time */
	daemon_entries entries;   /* guarded by it */
	daemon_suspensions suspensions; /* likewise */
	daemon_levels levels;     /* of the stop before */
	char why[QG_DAEMON_WHY_ROOM];
} daemon_parts;

/* --- the configuration in force ------------------------------------------------ */

/* Takes *cfg where it says something new; with `changing` held. */
qg_err qg_daemon_put_in_force(daemon_parts *d, qg_config **cfg) QG_CHECKED;
/* The file, or what is in force, with the entries made at run time. Errors as of
 * qg_config_load_with; the report becomes the text `why`. */
qg_err qg_daemon_read_config(daemon_parts *d, bool in_force, const daemon_entries *with, qg_config **out,
			     char *why, size_t why_room) QG_CHECKED;
/* A line in the audit log and in the operating log. */
void qg_daemon_audit(daemon_parts *d, const char *who, const char *what, const char *on, qg_err err);

/* Rates over a restart: what was kept, and what is to be kept. */
qg_err qg_daemon_load_levels(daemon_parts *d) QG_CHECKED;
void qg_daemon_save_levels(daemon_parts *d);
void qg_daemon_free_levels(daemon_levels *l);

/* At the start, when the directory is there: what the database has. One that
 * contradicts the file is left out, and the log says so. */
qg_err qg_daemon_load_entries(daemon_parts *d) QG_CHECKED;
void qg_daemon_free_entries(daemon_parts *d);
/* For admin.h. */
qg_err qg_daemon_change(void *ctx, const char *who, const qg_config_entry *e, char *why, size_t why_room);
void qg_daemon_each_entry(void *ctx, void (*each)(const qg_config_entry *e, bool in_force, void *each_ctx),
			  void *each_ctx);

/* At the start, when the directory is there: peers at once, SAEs and pairs when the
 * server is made. */
qg_err qg_daemon_load_suspensions(daemon_parts *d) QG_CHECKED;
void qg_daemon_free_suspensions(daemon_suspensions *all);
/* For admin.h. */
qg_err qg_daemon_suspend(void *ctx, const qg_suspension_rec *rec, bool on);
void qg_daemon_each_suspension(void *ctx, void (*each)(const qg_suspension_rec *rec, void *each_ctx),
			       void *each_ctx);

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
