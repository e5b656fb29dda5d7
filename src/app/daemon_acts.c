/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/core_view.h"
#include "qkdgate/http_server.h"
#include "qkdgate/log.h"
#include "qkdgate/secret.h"
#include "qkdgate/zeroize.h"

void
qg_daemon_audit(daemon_parts *d, const char *who, const char *what, const char *on, qg_err err)
{
	char reason[64];
	const int n = snprintf(reason, sizeof reason, "%s%s", what, err == QG_OK ? "" : ": refused");
	const qg_audit_event e = {.act = QG_AUDIT_ADMIN, .caller = who, .peer = on, .reason = n > 0 ? reason : what};
	qg_audit_write(d->audit, &e);
	qg_log(QG_LOG_INFO, "daemon", "event=act what=\"%s\" on=%s who=%s result=\"%s\"", what, qg_log_safe(on),
	       qg_log_safe(who), err == QG_OK ? "done" : qg_err_text(err));
}

static void
audit_act(daemon_parts *d, const char *who, const char *what, qg_err err)
{
	qg_daemon_audit(d, who, what, d->cfg->kme_id, err);
}

/* --- reload ---------------------------------------------------------------------- */

/* The lines of the report become one text. */
static void
tell_report(const char *text, char *why, size_t why_room)
{
	(void)snprintf(why, why_room, "%s", text);
	for (char *c = why; *c != '\0'; c++)
		if (*c == '\n')
			*c = c[1] == '\0' ? '\0' : ';';
}

static qg_err
load_into(daemon_parts *d, bool in_force, const daemon_entries *with, FILE *report, qg_config **out)
{
	const qg_config *as = in_force ? qg_directory_config(d->directory) : NULL;
	qg_config_entry *more = calloc(with->n + 1, sizeof *more);
	size_t n = 0;
	if (more == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < with->n; i++)
		if (!with->entry[i].left_out)
			more[n++] = (qg_config_entry){with->entry[i].list, with->entry[i].name, with->entry[i].text};
	qg_err err = qg_config_load_with(d->file, as, more, n, report, out);
	free(more);
	if (err == QG_OK && !in_force)
		err = qg_config_check_files(d->file, *out, report);
	return err;
}

qg_err
qg_daemon_read_config(daemon_parts *d, bool in_force, const daemon_entries *with, qg_config **out, char *why,
		      size_t why_room)
{
	char *text = NULL;
	size_t len = 0;
	FILE *report = open_memstream(&text, &len);
	if (report == NULL)
		return QG_E_NOMEM;
	qg_config *cfg = NULL;
	qg_err err = load_into(d, in_force, with, report, &cfg);
	if (fclose(report) != 0 && err == QG_OK)
		err = QG_E_NOMEM;
	if (err != QG_OK)
		tell_report(text != NULL ? text : "", why, why_room);
	free(text);
	if (err != QG_OK) {
		qg_config_free(&cfg);
		return err == QG_E_IO ? QG_E_PARSE : err;
	}
	*out = cfg;
	return QG_OK;
}

static qg_err
check_restart(const daemon_parts *d, const qg_config *cfg, char *why, size_t why_room)
{
	char names[384];
	const qg_err err = qg_config_restart_options(d->cfg, cfg, names, sizeof names);
	if (err != QG_OK)
		(void)snprintf(why, why_room, "these options need a restart: %s", names);
	return err;
}

/* All were read and found good a moment ago. */
static qg_err
reload_tls(daemon_parts *d, const qg_config *cfg, char *why, size_t why_room)
{
	qg_err err = qg_etsi014_reload_tls(d->etsi014, &cfg->sae.tls, why, why_room);
	if (err == QG_OK)
		err = qg_kms_reload_tls(d->kms, &cfg->kms.tls, why, why_room);
	if (err == QG_OK)
		err = qg_etsi020_reload_tls(d->etsi020, &cfg->kxi.tls, why, why_room);
	if (err == QG_OK)
		err = qg_etsi004_server_reload_tls(d->etsi004, &cfg->app_listener.at.tls, why, why_room);
	if (err == QG_OK)
		err = qg_push_reload_tls(d->push, &cfg->push.tls, why, why_room);
	if (err == QG_OK)
		err = qg_admin_reload_tls(d->admin, &cfg->admin.listener.tls, why, why_room);
	if (err == QG_OK)
		err = qg_admin_reload_passwords(d->admin, why, why_room);
	return err;
}

qg_err
qg_daemon_put_in_force(daemon_parts *d, qg_config **cfg)
{
	if (qg_config_same(qg_directory_config(d->directory), *cfg))
		return QG_OK;
	const qg_err err = qg_directory_renew(d->directory, cfg);
	if (err != QG_OK)
		return err;
	const qg_config *now = qg_directory_config(d->directory);
	if (d->etsi014 != NULL) /* not yet there while the gateway starts */
		qg_etsi014_renew(d->etsi014, now);
	qg_etsi004_server_renew(d->etsi004);
	qg_core_renew(d->core);
	qg_admin_renew(d->admin);
	qg_audit_rotate_at(d->audit, (uint64_t)now->audit_rotate_mib << 20);
	return qg_log_set_level(NULL, now->log_level);
}

static qg_err
act_reload(void *ctx, const char *who, char *why, size_t why_room)
{
	daemon_parts *d = ctx;
	qg_config *cfg = NULL;
	pthread_mutex_lock(&d->changing);
	qg_err err = qg_daemon_read_config(d, false, &d->entries, &cfg, why, why_room);
	if (err == QG_OK)
		err = check_restart(d, cfg, why, why_room);
	if (err == QG_OK)
		err = reload_tls(d, cfg, why, why_room);
	if (err == QG_OK)
		err = qg_daemon_put_in_force(d, &cfg);
	pthread_mutex_unlock(&d->changing);
	qg_config_free(&cfg);
	audit_act(d, who, "reload", err);
	return err;
}

/* --- master key -------------------------------------------------------------------- */

static void
say_master(const daemon_parts *d, const char *from, qg_err err, char *why, size_t why_room)
{
	const char *file = from != NULL ? from : d->cfg->master_key;
	const char *text = err == QG_E_UNSUPPORTED
				   ? "is a credential, which the gateway cannot replace: give the new one, as credential:NAME or a file"
			   : err == QG_E_EXISTS ? "is the master key in use: give another one"
			   : err == QG_E_MODE   ? "must be a file of this user or root, with mode 0600 or 0400"
			   : err == QG_E_PARSE  ? "must hold 32 bytes, or 64 hex digits"
			   : err == QG_E_IO     ? "or the key ring cannot be read or written"
						: qg_err_text(err);
	(void)snprintf(why, why_room, "%s %s; the old master key stays", file, text);
}

static qg_err
act_change_master(void *ctx, const char *who, const char *from, bool *pending, char *why, size_t why_room)
{
	daemon_parts *d = ctx;
	const qg_err err = qg_sealer_change_master(d->sealer, from, pending);
	if (err == QG_OK)
		qg_core_rotate(d->core);
	else
		say_master(d, from, err, why, why_room);
	audit_act(d, who, "rotate master key", err);
	return err;
}

static bool
is_master_pending(void *ctx)
{
	const daemon_parts *d = ctx;
	return qg_sealer_master_pending(d->sealer);
}

/* --- drain ------------------------------------------------------------------------ */

static void
act_drain(void *ctx, const char *who, unsigned grace_s)
{
	daemon_parts *d = ctx;
	qg_etsi014_drain(d->etsi014, true);
	atomic_store(&d->draining, true);
	atomic_store(&d->drained_ms, qg_clock_elapsed_ms() + (uint64_t)grace_s * 1000 + 1);
	audit_act(d, who, "drain", QG_OK);
}

static bool
is_draining(void *ctx)
{
	const daemon_parts *d = ctx;
	return atomic_load(&d->draining);
}

static bool
is_reached(void *ctx, const char *neighbour, qg_err *last, uint64_t *ago_ms)
{
	const daemon_parts *d = ctx;
	return qg_kms_reached(d->kms, neighbour, last, ago_ms);
}

static bool
is_peer_reached(void *ctx, const char *peer, bool *answered, uint64_t *ago_ms)
{
	const daemon_parts *d = ctx;
	return qg_etsi020_reached(d->etsi020, peer, answered, ago_ms);
}

/* --- zeroize ------------------------------------------------------------------------ */

#define SUFFIXES 5

/* What the keys of all others are wrapped with goes first, so that from the first
 * few milliseconds on nothing of the rest can be opened. */
static qg_err
destroy_files(const qg_config *cfg, char *why, size_t why_room)
{
	static const char *const beside[SUFFIXES] = {"", "-wal", "-shm", "-journal", ".new"};
	const char *const files[] = {cfg->key_ring, cfg->master_key, cfg->database, cfg->anchor};
	size_t len = 0;
	bool failed = false;
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		for (size_t k = 0; k < SUFFIXES; k++) {
			char path[4200];
			if (strncmp(files[i], "credential:", strlen("credential:")) == 0)
				continue; /* systemd's, encrypted at rest */
			(void)snprintf(path, sizeof path, "%s%s", files[i], beside[k]);
			if (qg_zeroize_destroy(path) == QG_OK)
				continue;
			failed = true;
			const int n = len < why_room
					      ? snprintf(why + len, why_room - len, "%s%s", len > 0 ? ", " : "", path)
					      : 0;
			len += n > 0 ? (size_t)n : 0;
		}
	return failed ? QG_E_IO : QG_OK;
}

/* The main thread ends the process a moment later, without an orderly stop: that
 * would write anew what was destroyed. */
static qg_err
act_zeroize(void *ctx, const char *who, char *why, size_t why_room)
{
	daemon_parts *d = ctx;
	why[0] = '\0';
	qg_http_forbid_secrets();
	qg_etsi004_server_forbid(d->etsi004);
	const qg_err err = destroy_files(d->cfg, why, why_room);
	audit_act(d, who, err == QG_OK ? "zeroize" : "zeroize, not all", QG_OK);
	if (qg_audit_sync(d->audit) != QG_OK)
		qg_log(QG_LOG_ERROR, "daemon", "event=zeroize_not_audited");
	qg_secret_wipe_all();
	qg_log(QG_LOG_ERROR, "daemon", "event=zeroized who=%s left=\"%s\"", qg_log_safe(who), why);
	atomic_store(&d->zeroized, true);
	return err;
}

const qg_admin_ops qg_daemon_acts = {
	.reload = act_reload,
	.drain = act_drain,
	.zeroize = act_zeroize,
	.change = qg_daemon_change,
	.change_master = act_change_master,
	.master_pending = is_master_pending,
	.entries = qg_daemon_each_entry,
	.suspend = qg_daemon_suspend,
	.suspensions = qg_daemon_each_suspension,
	.draining = is_draining,
	.reached = is_reached,
	.peer_reached = is_peer_reached,
};
