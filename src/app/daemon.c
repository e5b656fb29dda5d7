/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon.h"
#include "daemon_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "qkdgate/audit.h"
#include "qkdgate/core.h"
#include "qkdgate/core_view.h"
#include "qkdgate/directory.h"
#include "qkdgate/etsi004_server.h"
#include "qkdgate/etsi014.h"
#include "qkdgate/etsi020.h"
#include "qkdgate/kms.h"
#include "qkdgate/log.h"
#include "qkdgate/seal.h"
#include "qkdgate/source.h"
#include "qkdgate/store.h"
#include "sandbox.h"

#define SOURCE_GRACE_MS 2000
#define WHY_ROOM QG_DAEMON_WHY_ROOM

/* --- the parts, in the order they are made ------------------------------------- */

static void
say_why(daemon_parts *d, const char *what, const char *name, qg_err err)
{
	int n = snprintf(d->why, sizeof d->why, "%s %s: %s", what, name, qg_err_text(err));
	if (n < 0 || (size_t)n >= sizeof d->why)
		d->why[sizeof d->why - 1] = '\0';
}

static qg_err
make_sealer(daemon_parts *d)
{
	qg_seal_options o = {.master_key = d->cfg->master_key,
			     .key_ring = d->cfg->key_ring,
			     .rotate_s = d->cfg->key_ring_rotate_s};
	/* A new ring would open nothing of what the database holds. */
	bool lost = access(o.key_ring, F_OK) != 0 && access(d->cfg->database, F_OK) == 0;
	qg_err err = lost ? QG_E_NOTFOUND : qg_sealer_open(&o, &d->sealer);
	if (lost)
		snprintf(d->why, sizeof d->why, "key ring %s is missing, but database %s is there: put it back",
			 o.key_ring, d->cfg->database);
	else if (err == QG_E_AUTH)
		snprintf(d->why, sizeof d->why,
			 "key ring %s: damaged, or made with another master key than %s", o.key_ring,
			 o.master_key);
	else if (err != QG_OK)
		snprintf(d->why, sizeof d->why, "key ring %s or master key %s: %s", o.key_ring, o.master_key,
			 qg_err_text(err));
	return err;
}

static qg_err
make_audit(daemon_parts *d)
{
	unsigned char key[32];
	qg_sealer_derive(d->sealer, "audit", key);
	qg_err err = qg_audit_open(d->cfg->audit_file, key, &d->audit);
	qg_wipe(key, sizeof key);
	if (err == QG_OK)
		qg_audit_rotate_at(d->audit, (uint64_t)d->cfg->audit_rotate_mib << 20);
	if (err == QG_E_EXISTS)
		snprintf(d->why, sizeof d->why, "audit log %s: in use by another process",
			 d->cfg->audit_file);
	else if (err == QG_E_CORRUPT)
		snprintf(d->why, sizeof d->why,
			 "audit log %s: its last lines were changed or made with another master key",
			 d->cfg->audit_file);
	else if (err != QG_OK)
		say_why(d, "audit log", d->cfg->audit_file, err);
	return err;
}

static qg_err
make_store(daemon_parts *d)
{
	char why[WHY_ROOM / 2] = "";
	qg_err err = qg_store_sqlite_open(d->cfg->database, &d->fresh, &d->store, why, sizeof why);
	if (err != QG_OK)
		snprintf(d->why, sizeof d->why, "database %s: %s", d->cfg->database,
			 why[0] != '\0' ? why : qg_err_text(err));
	return err;
}

/* Whole lines taken from the end leave a good chain, but the database knows better. The
 * gateway starts all the same: keys matter more, and the log says what is missing. */
static qg_err
check_audit(daemon_parts *d)
{
	int64_t lines = 0;
	char reason[96];
	qg_audit_end end;
	const qg_err err = d->store->ops->number_get(d->store, QG_CORE_AUDIT_LINES, &lines);
	qg_audit_synced(d->audit, &end);
	if (err != QG_OK || lines <= 0 || end.seq >= (uint64_t)lines)
		return err;
	(void)snprintf(reason, sizeof reason, "lines up to %lld at least are missing behind line %llu", (long long)lines,
		       (unsigned long long)end.seq);
	qg_log(QG_LOG_ERROR, "daemon", "event=audit_cut file=%s why=\"%s\"", d->cfg->audit_file, reason);
	const qg_audit_event e = {.act = QG_AUDIT_CUT, .caller = d->cfg->kme_id, .peer = "", .reason = reason};
	qg_audit_write(d->audit, &e);
	return QG_OK;
}

static qg_err
make_directory(daemon_parts *d)
{
	const qg_err err = qg_directory_new(d->cfg, &d->directory);
	return err == QG_OK ? qg_daemon_load_entries(d) : err;
}

static qg_err
make_kms(daemon_parts *d)
{
	qg_err err = qg_kms_new(d->cfg, d->directory, &d->kms);
	if (err != QG_OK)
		say_why(d, "kms_client", d->cfg->kms_client.certificate, err);
	return err;
}

static qg_err
make_etsi020(daemon_parts *d)
{
	if (d->cfg->kxi.address == NULL)
		return QG_OK;
	qg_err err = qg_etsi020_new(d->cfg, d->directory, d->audit, &d->etsi020);
	if (err != QG_OK)
		say_why(d, "kxi_client", d->cfg->kxi_client.certificate, err);
	return err;
}

static qg_core_parts
core_parts(const daemon_parts *d)
{
	return (qg_core_parts){.cfg = d->cfg,
			       .directory = d->directory,
			       .store = d->store,
			       .fresh = d->fresh,
			       .sealer = d->sealer,
			       .audit = d->audit,
			       .channel = d->kms != NULL ? qg_kms_channel(d->kms) : NULL,
			       .way = d->etsi020 != NULL ? qg_etsi020_way(d->etsi020) : NULL};
}

static qg_err
sealed_by_another(daemon_parts *d, qg_err err)
{
	if (err == QG_E_AUTH || err == QG_E_NOTFOUND)
		snprintf(d->why, sizeof d->why,
			 "database %s: damaged, or sealed with another key ring than %s", d->cfg->database,
			 d->cfg->key_ring);
	return err;
}

static qg_err
make_core(daemon_parts *d)
{
	qg_core_parts parts = core_parts(d);
	return sealed_by_another(d, qg_core_start(&parts, &d->core, d->why, sizeof d->why));
}

static qg_err
make_kms_listener(daemon_parts *d)
{
	return qg_kms_listen(d->kms, qg_core_peers(d->core), d->why, sizeof d->why);
}

static qg_err
make_kxi_listener(daemon_parts *d)
{
	if (d->etsi020 == NULL)
		return QG_OK;
	return qg_etsi020_listen(d->etsi020, qg_core_interop(d->core), d->why, sizeof d->why);
}

static qg_err
make_sources(daemon_parts *d)
{
	size_t n = qg_core_intakes(d->core);
	d->source = calloc(n + 1, sizeof(qg_source *));
	if (d->source == NULL)
		return QG_E_NOMEM;
	for (; d->n_sources < n; d->n_sources++) {
		qg_err err = qg_source_start(qg_core_intake(d->core, d->n_sources), &d->source[d->n_sources]);
		if (err != QG_OK)
			return err;
	}
	return QG_OK;
}

static qg_err
make_push_listener(daemon_parts *d)
{
	return qg_push_listen(d->cfg, d->source, d->n_sources, &d->push, d->why, sizeof d->why);
}

static qg_err
make_etsi014(daemon_parts *d)
{
	const qg_etsi014_levels levels = {.known = d->levels.known, .away_ms = d->levels.away_ms,
					  .level = d->levels.level, .n = d->levels.n};
	const qg_etsi014_suspended suspended = {.rec = d->suspensions.rec, .n = d->suspensions.n};
	qg_etsi014_parts parts = {.cfg = d->cfg,
				  .directory = d->directory,
				  .keystore = qg_core_keystore(d->core),
				  .audit = d->audit,
				  .accounts = qg_core_accounts(d->core),
				  .levels = &levels,
				  .suspended = &suspended};
	const qg_err err = qg_etsi014_start(&parts, &d->etsi014, d->why, sizeof d->why);
	if (err == QG_OK)
		qg_etsi014_renew(d->etsi014, qg_directory_config(d->directory));
	return err;
}

static bool
is_suspended(void *ctx, const char *sae, const char *other)
{
	return qg_etsi014_is_suspended(ctx, sae, other);
}

static qg_err
make_etsi004(daemon_parts *d)
{
	qg_etsi004_server_parts parts = {.cfg = d->cfg,
					 .directory = d->directory,
					 .streams = qg_core_app_streams(d->core),
					 .audit = d->audit};
	if (!d->cfg->app_listener.present)
		return QG_OK;
	qg_app_streams_heed(parts.streams, is_suspended, d->etsi014);
	return qg_etsi004_server_start(&parts, &d->etsi004, d->why, sizeof d->why);
}

static qg_err
make_admin(daemon_parts *d)
{
	qg_admin_parts parts = {.cfg = d->cfg,
				.core = d->core,
				.directory = d->directory,
				.etsi014 = d->etsi014,
				.audit = d->audit,
				.ops = &qg_daemon_acts,
				.ctx = d,
				.listener = {{.name = "sae", .http = qg_etsi014_http(d->etsi014)},
					     {.name = "kms", .http = qg_kms_http(d->kms)}},
				.n_listeners = 2};
	if (d->etsi020 != NULL)
		parts.listener[parts.n_listeners++] = (qg_admin_listener){.name = "kxi", .http = qg_etsi020_http(d->etsi020)};
	if (d->etsi004 != NULL)
		parts.listener[parts.n_listeners++] =
			(qg_admin_listener){.name = "app", .bytes = qg_etsi004_server_bytes(d->etsi004)};
	return qg_admin_start(&parts, &d->admin, d->why, sizeof d->why);
}

typedef struct daemon_step {
	const char *name;
	qg_err (*make)(daemon_parts *d);
} daemon_step;

static qg_err enter_sandbox(daemon_parts *d);

static const daemon_step run_steps[] = {
	{"sandbox", enter_sandbox}, /* before the first thread */
	{"seal", make_sealer},
	{"audit", make_audit},
	{"store", make_store},
	{"audit", check_audit},
	{"directory", make_directory},
	{"suspensions", qg_daemon_load_suspensions}, /* before anyone can ask */
	{"levels", qg_daemon_load_levels},
	{"kms", make_kms},
	{"etsi020", make_etsi020},
	{"core", make_core},
	{"kms_listener", make_kms_listener},
	{"kxi_listener", make_kxi_listener},
	{"sae_listener", make_etsi014},
	{"app_listener", make_etsi004},
	{"admin", make_admin},
	{"streams", make_sources}, /* late: a start that fails leaves the epochs as they are */
	{"push_listener", make_push_listener},
};

static qg_err
make_all(daemon_parts *d, const daemon_step *steps, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		d->why[0] = '\0';
		qg_err err = steps[i].make(d);
		if (err == QG_OK)
			continue;
		qg_log(QG_LOG_ERROR, "daemon", "event=start_failed part=%s reason=\"%s\"", steps[i].name,
		       d->why[0] != '\0' ? d->why : qg_err_text(err));
		return err;
	}
	return QG_OK;
}

/* First nobody asks any more, then the streams close and the neighbours are
 * told, then what is left becomes durable. */
static void
unmake_all(daemon_parts *d)
{
	qg_admin_stop(&d->admin);
	if (d->core != NULL)
		qg_app_streams_heed(qg_core_app_streams(d->core), NULL, NULL);
	if (d->etsi014 != NULL) {
		qg_etsi014_unlisten(d->etsi014);
		qg_daemon_save_levels(d);
	}
	qg_etsi014_stop(&d->etsi014);
	qg_etsi004_server_stop(d->etsi004);
	if (d->etsi020 != NULL)
		qg_etsi020_unlisten(d->etsi020);
	if (d->core != NULL)
		qg_core_wind_down(d->core);
	qg_push_unlisten(&d->push);
	for (size_t i = 0; i < d->n_sources; i++)
		qg_source_stop(&d->source[i], SOURCE_GRACE_MS);
	free(d->source);
	if (d->kms != NULL)
		qg_kms_unlisten(d->kms);
	qg_kms_free(&d->kms);
	qg_etsi020_free(&d->etsi020);
	qg_core_stop(&d->core);
	qg_etsi004_server_free(&d->etsi004); /* its last answers came from the committer */
	if (d->store != NULL)
		d->store->ops->close(&d->store);
	qg_audit_close(&d->audit);
	qg_directory_free(&d->directory);
	qg_sealer_close(&d->sealer);
	qg_daemon_free_entries(d);
	qg_daemon_free_suspensions(&d->suspensions);
	qg_daemon_free_levels(&d->levels);
	pthread_mutex_destroy(&d->changing);
}

/* --- running -------------------------------------------------------------------- */

/* Sanitizers, and what counts for `make coverage`, need calls of their own. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(QG_COVERAGE)
#define CAN_FILTER false
#else
#define CAN_FILTER true
#endif

static qg_err
enter_sandbox(daemon_parts *d)
{
	if (!d->cfg->sandbox)
		qg_log(QG_LOG_WARN, "daemon", "event=sandbox_off");
	errno = 0;
	qg_err err = qg_sandbox_enter(d->cfg->sandbox && CAN_FILTER);
	if (err != QG_OK)
		snprintf(d->why, sizeof d->why,
			 "the system does not let this process give up what it does not need (%s); see process.sandbox",
			 errno != 0 ? strerror(errno) : qg_err_text(err));
	return err;
}

static void
audit_life(daemon_parts *d, qg_audit_act act)
{
	qg_audit_event e = {.act = act, .caller = d->cfg->kme_id, .peer = "", .reason = ""};
	qg_audit_write(d->audit, &e);
}

qg_err
qg_daemon_run(const char *file, const qg_config *cfg)
{
	daemon_parts d = {.cfg = cfg, .file = file, .changing = PTHREAD_MUTEX_INITIALIZER};
	sigset_t signals;
	qg_daemon_block_signals(cfg, &signals);
	qg_err err = make_all(&d, run_steps, sizeof run_steps / sizeof run_steps[0]);
	if (err == QG_OK) {
		audit_life(&d, QG_AUDIT_START);
		qg_log(QG_LOG_INFO, "daemon", "event=ready kme=%s sae_listener=%s:%u kms_listener=%s:%u",
		       cfg->kme_id, cfg->sae.address, cfg->sae.port, cfg->kms.address, cfg->kms.port);
		qg_daemon_wait(&d, &signals);
		audit_life(&d, QG_AUDIT_STOP);
	}
	unmake_all(&d);
	if (err == QG_OK)
		qg_log(QG_LOG_INFO, "daemon", "event=stopped");
	return err;
}

static qg_err
reset_core(daemon_parts *d)
{
	qg_core_parts parts = core_parts(d);
	return sealed_by_another(d, qg_core_reset_epochs(&parts, d->why, sizeof d->why));
}

static const daemon_step reset_steps[] = {
	{"seal", make_sealer},         {"audit", make_audit}, {"store", make_store},
	{"directory", make_directory}, {"core", reset_core},
};

qg_err
qg_daemon_reset_epochs(const char *file, const qg_config *cfg)
{
	daemon_parts d = {.cfg = cfg, .file = file, .changing = PTHREAD_MUTEX_INITIALIZER};
	qg_err err = make_all(&d, reset_steps, sizeof reset_steps / sizeof reset_steps[0]);
	unmake_all(&d);
	return err;
}
