/* SPDX-License-Identifier: Apache-2.0 */
/* POST /api/v1/...: what operators do. Every act leaves a line in the audit log,
 * and one that was refused does, too. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"
#include "qkdgate/nearest.h"

#define GRACE_S 5
#define MODULE_MAX 31 /* characters of its name */
#define GRACE_MAX_S 86400
#define NAMES_MAX 1024 /* looked through for the one that may be meant */

void
qg_admin_audit(qg_admin *a, const char *who, const char *what, const char *on, qg_err err)
{
	char reason[128];
	const int n = snprintf(reason, sizeof reason, "%s%s", what, err == QG_OK ? "" : ": refused");
	const qg_audit_event e = {
		.act = QG_AUDIT_ADMIN, .caller = who, .peer = on, .reason = n > 0 ? reason : what};
	qg_audit_write(a->p.audit, &e);
	qg_log(QG_LOG_INFO, "admin", "event=act what=\"%s\" on=%s who=%s result=\"%s\"", what, qg_log_safe(on),
	       qg_log_safe(who), err == QG_OK ? "done" : qg_err_text(err));
}

/* --- the body --------------------------------------------------------------------- */

bool
qg_admin_take_body(qg_http_request *http, const char *const *members, json_t **out)
{
	size_t len = 0;
	qg_json_error why;
	const char *text = qg_http_body(http, &len);
	json_t *body = NULL;
	if (len == 0) {
		*out = json_object();
		return *out != NULL;
	}
	if (qg_json_parse_object(text, len, &body, &why) != QG_OK) {
		qg_admin_answer_error(http, QG_E_PARSE, "the body is no JSON object: %s %s", why.member, why.what);
		return false;
	}
	const char *name;
	json_t *value;
	json_object_foreach(body, name, value) {
		size_t i = 0;
		if (members == NULL)
			break;
		while (members[i] != NULL && strcmp(members[i], name) != 0)
			i++;
		if (members[i] != NULL)
			continue;
		qg_admin_answer_error(http, QG_E_INVAL, "unknown member %s", qg_log_safe(name));
		json_decref(body);
		return false;
	}
	*out = body;
	return true;
}

bool
qg_admin_take_nothing(qg_http_request *http)
{
	static const char *const none[] = {NULL};
	json_t *body = NULL;
	if (!qg_admin_may_act(http) || !qg_admin_take_body(http, none, &body))
		return false;
	json_decref(body);
	return true;
}

void
qg_admin_answer_done(qg_http_request *http, const char *what)
{
	qg_admin_answer(http, 200, json_pack("{s:s}", "done", what));
}

/* --- the gateway as a whole -------------------------------------------------------- */

void
qg_admin_on_reload(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	char who[QG_ADMIN_WHO_ROOM], why[768] = "";
	if (!qg_admin_take_nothing(http))
		return;
	qg_admin_who(http, who);
	pthread_mutex_lock(&a->acting);
	const qg_err err = a->p.ops->reload(a->p.ctx, who, why, sizeof why);
	pthread_mutex_unlock(&a->acting);
	if (err == QG_OK)
		qg_admin_answer_done(http, "reload");
	else
		qg_admin_answer_error(http, err, "refused, the old configuration stays: %s",
				      why[0] != '\0' ? why : qg_err_text(err));
}

void
qg_admin_on_drain(qg_http_request *http, void *admin)
{
	static const char *const members[] = {"grace_s", NULL};
	qg_admin *a = admin;
	json_t *body = NULL;
	char who[QG_ADMIN_WHO_ROOM];
	if (!qg_admin_may_act(http) || !qg_admin_take_body(http, members, &body))
		return;
	json_t *given = json_object_get(body, "grace_s");
	const json_int_t grace_s = given != NULL ? json_integer_value(given) : GRACE_S;
	const bool bad = (given != NULL && !json_is_integer(given)) || grace_s < 0 || grace_s > GRACE_MAX_S;
	json_decref(body);
	if (bad) {
		qg_admin_answer_error(http, QG_E_INVAL, "grace_s: give 0 to %d seconds", GRACE_MAX_S);
		return;
	}
	qg_admin_who(http, who);
	pthread_mutex_lock(&a->acting);
	a->p.ops->drain(a->p.ctx, who, (unsigned)grace_s);
	pthread_mutex_unlock(&a->acting);
	qg_admin_answer(http, 202, json_pack("{s:s,s:I}", "done", "drain", "grace_s", grace_s));
}

/* The name of the node must be given, so that no one destroys the wrong one. */
void
qg_admin_on_zeroize(qg_http_request *http, void *admin)
{
	static const char *const members[] = {"confirm", NULL};
	qg_admin *a = admin;
	json_t *body = NULL;
	char who[QG_ADMIN_WHO_ROOM], why[768] = "";
	if (!qg_admin_may_act(http) || !qg_admin_take_body(http, members, &body))
		return;
	const char *confirm = json_string_value(json_object_get(body, "confirm"));
	const bool sure = confirm != NULL && strcmp(confirm, a->p.cfg->kme_id) == 0;
	json_decref(body);
	qg_admin_who(http, who);
	if (!sure) {
		qg_admin_answer_error(http, QG_E_INVAL, "confirm must be the KME ID of this gateway, %s",
				      a->p.cfg->kme_id);
		return;
	}
	pthread_mutex_lock(&a->acting);
	const qg_err err = a->p.ops->zeroize(a->p.ctx, who, why, sizeof why);
	pthread_mutex_unlock(&a->acting);
	if (err == QG_OK)
		qg_admin_answer(http, 202, json_pack("{s:s}", "done", "zeroize"));
	else
		qg_admin_answer_error(http, QG_E_IO, "in memory all is destroyed, on disk not: %s", why);
}

/* A name for the gateway's own file system: absolute, so that no folder matters. */
void
qg_admin_on_rotate_master_key(qg_http_request *http, void *admin)
{
	static const char *const members[] = {"file", NULL};
	qg_admin *a = admin;
	json_t *body = NULL;
	bool pending = false;
	char who[QG_ADMIN_WHO_ROOM], why[4600] = "";
	if (!qg_admin_may_act(http) || !qg_admin_take_body(http, members, &body))
		return;
	const json_t *given = json_object_get(body, "file");
	const char *file = json_string_value(given);
	if (given != NULL && (file == NULL || (file[0] != '/' && strncmp(file, "credential:", 11) != 0))) {
		qg_admin_answer_error(http, QG_E_INVAL, "file: give an absolute path, or credential:NAME");
		json_decref(body);
		return;
	}
	qg_admin_who(http, who);
	pthread_mutex_lock(&a->acting);
	const qg_err err = a->p.ops->change_master(a->p.ctx, who, file, &pending, why, sizeof why);
	pthread_mutex_unlock(&a->acting);
	json_decref(body);
	if (err == QG_OK)
		qg_admin_answer(http, 200, json_pack("{s:s,s:b}", "done", "rotate-master-key", "pending", pending));
	else
		qg_admin_answer_error(http, err == QG_E_UNSUPPORTED || err == QG_E_MODE ? QG_E_STATE : err, "%s", why);
}

/* --- streams ------------------------------------------------------------------------- */

void
qg_admin_on_reopen(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	char who[QG_ADMIN_WHO_ROOM];
	const char *name = qg_http_path_part(http, 0);
	if (!qg_admin_take_nothing(http) || qg_admin_find_stream(a, http, name) < 0)
		return;
	qg_admin_who(http, who);
	const qg_err err = qg_core_reopen(a->p.core, name);
	qg_admin_audit(a, who, "reopen", name, err);
	if (err == QG_OK)
		qg_admin_answer_done(http, "reopen");
	else
		qg_admin_answer_error(http, err, "stream %s is not open: it is being opened already", name);
}

void
qg_admin_on_delete_keys(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	char who[QG_ADMIN_WHO_ROOM];
	uint64_t chunks = 0;
	const char *name = qg_http_path_part(http, 0);
	if (!qg_admin_take_nothing(http) || qg_admin_find_stream(a, http, name) < 0)
		return;
	qg_admin_who(http, who);
	const qg_err err = qg_core_delete_keys(a->p.core, name, &chunks);
	qg_admin_audit(a, who, "delete keys", name, err);
	if (err == QG_OK)
		qg_admin_answer(http, 200, json_pack("{s:s,s:I}", "done", "delete-keys", "chunks", (json_int_t)chunks));
	else
		qg_admin_answer_error(http, err, "%s", qg_err_text(err));
}

/* --- SAEs ------------------------------------------------------------------------------ */

static bool
is_known(qg_admin *a, qg_http_request *http, const char *sae, bool here)
{
	const bool known = here ? qg_directory_local(a->p.directory, sae) != NULL
				: qg_directory_home(a->p.directory, sae) != NULL;
	if (known)
		return true;
	const qg_config *cfg = qg_directory_config(a->p.directory);
	const char *names[NAMES_MAX];
	size_t n = 0;
	for (size_t i = 0; i < cfg->n_saes && n < NAMES_MAX; i++)
		names[n++] = cfg->saes[i].id;
	for (size_t i = 0; !here && i < cfg->n_directory && n < NAMES_MAX; i++)
		names[n++] = cfg->directory[i].sae;
	const char *near = qg_nearest(sae, names, n);
	qg_admin_answer_error(http, QG_E_NOTFOUND, "no SAE %s%s%s%s%s", qg_log_safe(sae), here ? " here" : "",
			      near != NULL ? ": is " : "", near != NULL ? near : "", near != NULL ? " meant?" : "");
	return false;
}

static bool
are_known(qg_admin *a, qg_http_request *http, const qg_suspension_rec *rec)
{
	const bool pair = rec->other[0] != '\0';
	return is_known(a, http, rec->name, !pair) && (!pair || is_known(a, http, rec->other, false));
}

void
qg_admin_answer_suspend(qg_http_request *http, const char *what, bool on, qg_err err)
{
	if (err == QG_OK)
		qg_admin_answer_done(http, what);
	else if (err == QG_E_IO && on)
		qg_admin_answer_error(http, err, "suspended, but only until the gateway stops: the database cannot be written");
	else if (err == QG_E_IO)
		qg_admin_answer_error(http, err, "still suspended: the database cannot be written");
	else
		qg_admin_answer_error(http, err, "%s", err == QG_E_FULL ? "too many pairs are suspended" : qg_err_text(err));
}

static void
suspend(qg_http_request *http, qg_admin *a, bool pair, bool on)
{
	char who[QG_ADMIN_WHO_ROOM], on_what[256];
	const qg_suspension_rec rec = {.kind = pair ? "pair" : "sae", .name = qg_http_path_part(http, 0),
				       .other = pair ? qg_http_path_part(http, 1) : ""};
	if (!qg_admin_take_nothing(http) || (on && !are_known(a, http, &rec)))
		return;
	qg_err err = a->p.ops->suspend(a->p.ctx, &rec, on);
	if (!on && err == QG_E_NOTFOUND) { /* who was not suspended may be resumed, too */
		if (!are_known(a, http, &rec))
			return;
		err = QG_OK;
	}
	qg_admin_who(http, who);
	(void)snprintf(on_what, sizeof on_what, "%.120s%s%.120s", rec.name, pair ? " " : "", rec.other);
	qg_admin_audit(a, who, on ? "suspend" : "resume", on_what, err);
	qg_admin_answer_suspend(http, on ? "suspend" : "resume", on, err);
}

#define SUSPEND(name, pair, on)                                  \
	void qg_admin_on_##name(qg_http_request *http, void *admin) \
	{                                                        \
		suspend(http, admin, pair, on);                  \
	}
SUSPEND(suspend_sae, false, true)
SUSPEND(resume_sae, false, false)
SUSPEND(suspend_pair, true, true)
SUSPEND(resume_pair, true, false)

/* --- logs ---------------------------------------------------------------------------------- */

static bool
is_module(const char *name)
{
	size_t n = 0;
	while (name[n] > ' ' && name[n] <= '~')
		n++;
	return n > 0 && n <= MODULE_MAX && name[n] == '\0';
}

static qg_err
set_level(const char *module, const char *text)
{
	qg_log_level level = QG_LOG_INFO;
	if (strcmp(text, "default") == 0 && module != NULL) {
		qg_log_reset_level(module);
		return QG_OK;
	}
	const qg_err err = qg_log_level_of(text, &level);
	return err == QG_OK ? qg_log_set_level(module, level) : err;
}

void
qg_admin_on_set_log(qg_http_request *http, void *admin)
{
	static const char *const members[] = {"module", "level", NULL};
	qg_admin *a = admin;
	json_t *body = NULL;
	char who[QG_ADMIN_WHO_ROOM], what[64];
	if (!qg_admin_may_act(http) || !qg_admin_take_body(http, members, &body))
		return;
	json_t *on = json_object_get(body, "module");
	const char *module = json_string_value(on);
	const char *level = json_string_value(json_object_get(body, "level"));
	/* One that is no name must not pass for all. */
	const bool odd = on != NULL && (module == NULL || !is_module(module));
	const qg_err err = odd ? QG_E_RANGE : level != NULL ? set_level(module, level) : QG_E_INVAL;
	qg_admin_who(http, who);
	(void)snprintf(what, sizeof what, "log level %.20s", level != NULL ? level : "?");
	qg_admin_audit(a, who, what, module != NULL ? module : "", err);
	if (err == QG_OK)
		qg_admin_answer_done(http, "log");
	else if (err == QG_E_INVAL)
		qg_admin_answer_error(http, err, "level: give error, warn, info or debug; or default for a module");
	else
		qg_admin_answer_error(http, err, "module: %s",
				      err == QG_E_FULL ? "too many have a level of their own" : qg_err_text(err));
	json_decref(body);
}

void
qg_admin_on_reopen_log(qg_http_request *http, void *admin)
{
	char who[QG_ADMIN_WHO_ROOM];
	if (!qg_admin_take_nothing(http))
		return;
	const qg_err err = qg_log_reopen();
	qg_admin_who(http, who);
	qg_admin_audit(admin, who, "reopen log", "", err);
	if (err == QG_OK)
		qg_admin_answer_done(http, "reopen-log");
	else
		qg_admin_answer_error(http, err, "the log cannot be opened; what was open stays");
}
