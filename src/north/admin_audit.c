/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log for operators: it holds IDs and names, never key material. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/encode.h"
#include "qkdgate/log.h"

#define LINES_PRESET 50
#define LINES_MAX 1000
#define VALUE_ROOM 264
#define NAME_MAX_CHARS 256 /* as the lines keep them */
#define SINCE_MAX 24

/* --- what is asked for ------------------------------------------------------------ */

typedef struct wanted {
	qg_audit_filter filter; /* its texts are those below */
	char act[VALUE_ROOM], who[VALUE_ROOM], id[VALUE_ROOM], since[VALUE_ROOM];
} wanted;

static bool
set_lines(void *into, const char *value)
{
	wanted *w = into;
	char *end = NULL;
	const unsigned long n = strtoul(value, &end, 10);
	w->filter.most = n;
	return strlen(value) < VALUE_ROOM && value[0] >= '0' && value[0] <= '9' && *end == '\0' && n >= 1 &&
	       n <= LINES_MAX;
}

static bool
set_act(void *into, const char *value)
{
	wanted *w = into;
	(void)snprintf(w->act, sizeof w->act, "%s", value);
	w->filter.act = w->act;
	for (size_t i = 0; i < QG_AUDIT_ACTS; i++)
		if (strcmp(qg_audit_act_name(i), value) == 0)
			return true;
	return false;
}

static bool
set_sae(void *into, const char *value)
{
	wanted *w = into;
	(void)snprintf(w->who, sizeof w->who, "%s", value);
	w->filter.who = w->who;
	size_t n = 0;
	while (value[n] >= ' ' && value[n] <= '~')
		n++;
	return n > 0 && n <= NAME_MAX_CHARS && value[n] == '\0';
}

static bool
set_id(void *into, const char *value)
{
	wanted *w = into;
	qg_uuid id;
	if (qg_uuid_parse(value, strlen(value), &id) != QG_OK)
		return false;
	qg_uuid_format(&id, w->id);
	w->filter.id = w->id;
	return true;
}

/* The beginning of a time as the lines have it. */
static bool
set_since(void *into, const char *value)
{
	wanted *w = into;
	static const char form[] = "dddd-dd-ddTdd:dd:dd.dddZ";
	size_t i = 0;
	(void)snprintf(w->since, sizeof w->since, "%s", value);
	w->filter.since = w->since;
	while (i < SINCE_MAX && value[i] != '\0' &&
	       (form[i] == 'd' ? value[i] >= '0' && value[i] <= '9' : value[i] == form[i]))
		i++;
	/* "Z" may follow whole seconds, too. */
	if (i == 19 && strcmp(value + i, "Z") == 0)
		w->since[i++] = '\0';
	return i >= 4 && value[i] == '\0';
}

static const qg_admin_argument arguments[] = {
	{"lines", set_lines, "give 1 to 1000"},
	{"act", set_act, "give an act of the audit log, as issued or admin"},
	{"sae", set_sae, "give an SAE ID, or another caller or peer"},
	{"id", set_id, "give a key ID"},
	{"since", set_since, "give a time in UTC as 2026-01-31T12:00:00Z, or its beginning"},
};

/* --- lines ---------------------------------------------------------------------------- */

static void
add_line(const char *line, size_t len, void *ctx)
{
	json_t *one = json_loadb(line, len, 0, NULL);
	if (one != NULL) /* else it is none of ours: verify says so */
		(void)json_array_append_new(ctx, one);
}

static json_t *
end_json(const qg_audit_end *end)
{
	char hex[2 * QG_AUDIT_TAG_BYTES + 1];
	qg_hex_encode(end->tag, sizeof end->tag, hex);
	return json_pack("{s:I,s:s}", "seq", (json_int_t)end->seq, "tag", hex);
}

static void
answer_lines(qg_admin *a, qg_http_request *http, void *arg)
{
	wanted *w = arg;
	qg_audit_paths paths;
	qg_audit_end end = {0};
	bool all = true;
	json_t *lines = json_array();
	qg_err err = qg_audit_sync(a->p.audit);
	qg_audit_synced(a->p.audit, &end);
	if (err == QG_OK)
		err = qg_audit_paths_find(a->p.cfg->audit_file, &paths);
	if (err == QG_OK) {
		err = qg_audit_find((const char *const *)paths.path, paths.n, &w->filter, add_line, lines, &all);
		qg_audit_paths_free(&paths);
	}
	free(w);
	if (err == QG_OK) {
		qg_admin_answer(http, 200, json_pack("{s:o,s:o,s:b}", "head", end_json(&end), "lines", lines, "more", !all));
		return;
	}
	json_decref(lines);
	qg_admin_answer_error(http, err, "audit log: %s", qg_err_text(err));
}

void
qg_admin_on_audit(qg_http_request *http, void *admin)
{
	wanted *w = calloc(1, sizeof *w);
	if (w == NULL) {
		qg_admin_answer_error(http, QG_E_NOMEM, "out of memory");
		return;
	}
	w->filter.most = LINES_PRESET;
	if (qg_admin_take_query(http, arguments, sizeof arguments / sizeof arguments[0], w))
		qg_admin_later(admin, http, answer_lines, w);
	else
		free(w);
}

/* --- checking ----------------------------------------------------------------------------- */

static json_t *
report_json(qg_err err, const qg_audit_paths *paths, const qg_audit_report *r)
{
	const bool bad = err == QG_E_CORRUPT;
	json_t *files = json_array();
	for (size_t i = 0; i < paths->n; i++)
		(void)json_array_append_new(files, json_string(paths->path[i]));
	return json_pack("{s:b,s:I,s:I,s:o,s:o,s:o,s:o,s:o}", "good", !bad, "first", (json_int_t)r->first, "lines",
			 (json_int_t)r->lines, "head", end_json(&r->end), "files", files, "file",
			 bad ? json_string(paths->path[r->bad_file]) : json_null(), "line",
			 bad ? json_integer((json_int_t)r->bad_line) : json_null(), "what",
			 bad ? json_string(r->what) : json_null());
}

static void
answer_check(qg_admin *a, qg_http_request *http, void *arg)
{
	(void)arg;
	qg_audit_paths paths = {0};
	qg_audit_report r;
	const qg_err err = qg_audit_check(a->p.audit, &paths, &r);
	if (err == QG_OK || err == QG_E_CORRUPT)
		qg_admin_answer(http, 200, report_json(err, &paths, &r));
	else
		qg_admin_answer_error(http, err, "audit log: %s", qg_err_text(err));
	if (err == QG_E_CORRUPT)
		qg_log(QG_LOG_ERROR, "admin", "event=audit_tampered file=%s line=%zu what=\"%s\"",
		       paths.path[r.bad_file], r.bad_line, r.what);
	qg_audit_paths_free(&paths);
}

void
qg_admin_on_verify_audit(qg_http_request *http, void *admin)
{
	qg_admin_later(admin, http, answer_check, NULL);
}

/* --- another file ---------------------------------------------------------------------------- */

void
qg_admin_on_rotate_audit(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	char who[QG_ADMIN_WHO_ROOM];
	if (!qg_admin_take_nothing(http))
		return;
	qg_admin_who(http, who);
	pthread_mutex_lock(&a->acting);
	const qg_err err = qg_audit_rotate(a->p.audit);
	pthread_mutex_unlock(&a->acting);
	qg_admin_audit(a, who, "rotate audit", a->p.cfg->audit_file, err);
	if (err == QG_OK)
		qg_admin_answer_done(http, "rotate-audit");
	else
		qg_admin_answer_error(http, err, "the audit log goes on in the file at hand: the other cannot be made");
}
