/* SPDX-License-Identifier: Apache-2.0 */
/* What the configuration points to: certificates, keys, secret files, folders. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config_internal.h"
#include "keyfile_internal.h"
#include "qkdgate/passwords.h"
#include "qkdgate/zeroize.h"
#include "seal_internal.h"

#define CREDENTIAL "credential:"
#define WHY_ROOM 512
#define MODE_TEXT "must be a regular file of mode 0600 or 0400 that belongs to root or to the user who runs qkdgate"

typedef struct files {
	cfg_report *report;
	cfg_node *root; /* the file again, for its line numbers */
} files;

/* Reports section.option, or the section where the option is not given. */
static void
report_option(files *f, cfg_node *section, const char *option, const char *why)
{
	cfg_node *const n = option == NULL ? section : qg_cfg_find(section, option);
	if (n != NULL)
		qg_cfg_problem(f->report, n, "%s", why);
	else
		qg_cfg_missing(f->report, section == NULL ? f->root : section,
			       option == NULL ? "file" : option, "%s", why);
}

static void
report_system(files *f, cfg_node *section, const char *option, const char *what, const char *path)
{
	const int cause = errno;
	const char *const why = qg_cfg_format(f->report->mem, "%s %s: %s", qg_cfg_show(f->report, path), what,
					      strerror(cause));
	report_option(f, section, option, why == NULL ? strerror(cause) : why);
}

static void
check_tls(files *f, cfg_node *section, const qg_tls_files *tls)
{
	char why[WHY_ROOM] = "";
	const qg_err err = qg_tls_check_files(tls, why, sizeof why);
	if (err != QG_OK)
		report_option(f, section, NULL, why[0] == '\0' ? qg_err_text(err) : why);
}

static cfg_node *
entry_at(const cfg_node *list, size_t index)
{
	cfg_node *n = list == NULL ? NULL : list->first;
	while (n != NULL && n->index != index)
		n = n->next;
	return n;
}

static void
check_all_tls(files *f, const qg_config *c)
{
	cfg_node *const client = qg_cfg_find(f->root, "kms_client");
	check_tls(f, qg_cfg_find(f->root, "sae_listener"), &c->sae.tls);
	check_tls(f, qg_cfg_find(f->root, "kms_listener"), &c->kms.tls);
	if (c->app_listener.present)
		check_tls(f, qg_cfg_find(f->root, "app_listener"), &c->app_listener.at.tls);
	if (c->has_push)
		check_tls(f, qg_cfg_find(f->root, "push_listener"), &c->push.tls);
	if (client != NULL)
		check_tls(f, client, &c->kms_client);
	if (c->admin.has_listener)
		check_tls(f, qg_cfg_find(qg_cfg_find(f->root, "admin"), "listener"), &c->admin.listener.tls);
	if (c->kxi.address != NULL)
		check_tls(f, qg_cfg_find(f->root, "kxi_listener"), &c->kxi.tls);
	if (qg_cfg_find(f->root, "kxi_client") != NULL)
		check_tls(f, qg_cfg_find(f->root, "kxi_client"), &c->kxi_client);
	const cfg_node *const streams = qg_cfg_find(f->root, "streams");
	for (size_t i = 0; i < c->n_streams; i++)
		if (c->streams[i].source.tls)
			check_tls(f, qg_cfg_find(entry_at(streams, i), "source"),
				  &c->streams[i].source.files);
}

static const char *
master_key_text(qg_err err)
{
	switch (err) {
	case QG_E_MODE:
		return MODE_TEXT "; below /run/secrets also 0440 of a group of the process";
	case QG_E_PARSE:
		return "does not hold 32 bytes or 64 hex digits";
	case QG_E_IO:
		return "is not there or cannot be read";
	default:
		return qg_err_text(err);
	}
}

/* A credential is there only inside the service; elsewhere it cannot be
 * checked. */
static void
check_master_key(files *f, const qg_config *c)
{
	QG_SECRET_AUTO *key = NULL;
	if (strncmp(c->master_key, CREDENTIAL, strlen(CREDENTIAL)) == 0 &&
	    getenv("CREDENTIALS_DIRECTORY") == NULL)
		return;
	const qg_err err = qg_master_key_load(c->master_key, &key);
	if (err == QG_OK)
		return;
	const char *const why = qg_cfg_format(f->report->mem, "%s %s", qg_cfg_show(f->report, c->master_key),
					      master_key_text(err));
	report_option(f, qg_cfg_find(f->root, "store"), "master_key", why == NULL ? master_key_text(err) : why);
}

static const char *
folder_of(files *f, const char *path)
{
	const char *const slash = strrchr(path, '/');
	if (slash == path)
		return "/";
	return slash == NULL ? "." : qg_cfg_copy(f->report->mem, path, (size_t)(slash - path));
}

static void
report_mode(files *f, cfg_node *section, const char *option, const char *path)
{
	const char *const why = qg_cfg_format(f->report->mem, "%s " MODE_TEXT, qg_cfg_show(f->report, path));
	report_option(f, section, option, why == NULL ? MODE_TEXT : why);
}

/* Such files are made and replaced beside themselves, so the folder counts. */
static void
check_written(files *f, const char *section, const char *option, const char *path)
{
	struct stat st;
	cfg_node *const node = qg_cfg_find(f->root, section);
	const char *const folder = folder_of(f, path);
	if (folder == NULL)
		f->report->nomem = true;
	else if (stat(folder, &st) != 0)
		report_system(f, node, option, "is its folder and cannot be reached", folder);
	else if (!S_ISDIR(st.st_mode))
		report_option(f, node, option, "is not in a folder");
	else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) != 0)
		report_system(f, node, option, "is its folder and cannot be written", folder);
	else if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		report_option(f, node, option, "is not a regular file");
	else if (stat(path, &st) == 0 && faccessat(AT_FDCWD, path, R_OK | W_OK, AT_EACCESS) != 0)
		report_system(f, node, option, "cannot be read and written", path);
	else if (qg_keyfile_check(path, 0177) == QG_E_MODE)
		report_mode(f, node, option, path);
}

/* Key that is drawn must be there to be read; from a folder there is none. */
static void
check_random(files *f, size_t index, const char *path)
{
	struct stat st;
	cfg_node *const stream = entry_at(qg_cfg_find(f->root, "streams"), index);
	cfg_node *const relay = qg_cfg_find(stream, "relay");
	if (stat(path, &st) != 0 || faccessat(AT_FDCWD, path, R_OK, AT_EACCESS) != 0)
		report_system(f, relay, "random", "cannot be read", path);
	else if (!S_ISREG(st.st_mode) && !S_ISCHR(st.st_mode) && !S_ISFIFO(st.st_mode))
		report_option(f, relay, "random", "is neither a file nor a device");
}

static void
check_all_random(files *f, const qg_config *c)
{
	for (size_t i = 0; i < c->n_streams; i++)
		if (c->streams[i].relay.random != NULL)
			check_random(f, i, c->streams[i].relay.random);
}

/* A socket is made anew where one that nobody listens at is left. */
static void
check_socket(files *f, const qg_config_admin *a)
{
	struct stat st;
	cfg_node *const admin = qg_cfg_find(f->root, "admin");
	const char *const folder = a->socket == NULL ? NULL : folder_of(f, a->socket);
	if (a->socket == NULL)
		return;
	if (folder == NULL)
		f->report->nomem = true;
	else if (stat(folder, &st) != 0)
		report_system(f, admin, "socket", "is its folder and cannot be reached", folder);
	else if (faccessat(AT_FDCWD, folder, W_OK | X_OK, AT_EACCESS) != 0)
		report_system(f, admin, "socket", "is its folder and cannot be written", folder);
	else if (lstat(a->socket, &st) == 0 && !S_ISSOCK(st.st_mode))
		report_option(f, admin, "socket", "is there and no socket");
	if (a->socket_group != NULL && getgrnam(a->socket_group) == NULL)
		report_option(f, admin, "socket_group", "is no group of this machine");
}

/* A log that cannot be written stops nobody; a folder that is not there is a slip
 * of the pen. */
static void
check_log(files *f, const qg_config *c)
{
	struct stat st;
	cfg_node *const log = qg_cfg_find(f->root, "log");
	const char *const folder = c->log_to != QG_LOG_FILE ? NULL : folder_of(f, c->log_file);
	if (c->log_to != QG_LOG_FILE)
		return;
	if (folder == NULL)
		f->report->nomem = true;
	else if (stat(folder, &st) != 0)
		report_system(f, log, "file", "is its folder and cannot be reached", folder);
	else if (!S_ISDIR(st.st_mode) || (stat(c->log_file, &st) == 0 && !S_ISREG(st.st_mode)))
		report_option(f, log, "file", "is not a regular file in a folder");
}

static void
check_passwords(files *f, const qg_config_admin *a)
{
	char why[WHY_ROOM] = "";
	if (!a->has_passwords)
		return;
	const qg_err err = qg_passwords_load(a->passwords.file, NULL, why, sizeof why);
	if (err != QG_OK)
		report_option(f, qg_cfg_find(qg_cfg_find(f->root, "admin"), "passwords"), "file",
			      why[0] == '\0' ? qg_err_text(err) : why);
}

/* It would do its work at once. */
static void
check_tamper(files *f, const qg_config_admin *a)
{
	if (a->zeroize_file != NULL && qg_zeroize_file_says(a->zeroize_file))
		report_option(f, qg_cfg_find(f->root, "admin"), "zeroize_file",
			      "says already that all key is to be destroyed: take it away first");
}

static qg_err
read_lines(cfg_report *r, cfg_node **root)
{
	char *text = NULL;
	size_t len = 0;
	const qg_err err = qg_cfg_read(r, r->mem, &text, &len);
	return err == QG_OK ? qg_cfg_parse(r, r->mem, text, len, root) : err;
}

qg_err
qg_config_check_files(const char *file, const qg_config *c, FILE *report)
{
	cfg_mem scratch = {NULL};
	cfg_report r = {.file = file, .mem = &scratch};
	files f = {.report = &r};
	qg_err err = read_lines(&r, &f.root);
	if (err == QG_OK) {
		check_all_tls(&f, c);
		check_all_random(&f, c);
		check_master_key(&f, c);
		check_written(&f, "store", "database", c->database);
		check_written(&f, "store", "anchor", c->anchor);
		check_written(&f, "store", "key_ring", c->key_ring);
		check_written(&f, "audit", "file", c->audit_file);
		check_log(&f, c);
		check_socket(&f, &c->admin);
		check_passwords(&f, &c->admin);
		check_tamper(&f, &c->admin);
		err = r.nomem ? QG_E_NOMEM : r.n > 0 ? QG_E_PARSE : QG_OK;
	}
	qg_cfg_print_problems(&r, err, report);
	qg_cfg_mem_free(&scratch);
	return err;
}
