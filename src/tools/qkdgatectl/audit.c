/* SPDX-License-Identifier: Apache-2.0 */
/* The audit log: of a running gateway, which has its key, or from files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl_internal.h"
#include "qkdgate/audit.h"
#include "qkdgate/clock.h"
#include "qkdgate/encode.h"
#include "qkdgate/log.h"
#include "qkdgate/nearest.h"
#include "qkdgate/seal.h"
#include "qkdgate/secret.h"

#define LINES_PRESET 50
#define TIME_ROOM 32

/* --- showing ---------------------------------------------------------------------- */

static const char *
text_of(const json_t *line, const char *member)
{
	const char *text = json_string_value(json_object_get(line, member));
	return text != NULL ? text : "-";
}

static void
print_lines(const ctl_options *o, const json_t *lines)
{
	static const char *const titles[] = {"LINE", "TIME", "ACT", "CALLER", "PEER", "BITS", "KEY ID", "REASON"};
	size_t i;
	json_t *line;
	if (json_array_size(lines) == 0) {
		ctl_say(o->color, TONE_PLAIN, "no such lines");
		return;
	}
	ctl_table *t = ctl_table_new(sizeof titles / sizeof titles[0]);
	for (i = 0; i < sizeof titles / sizeof titles[0]; i++)
		ctl_cell(t, TONE_HEAD, i == 0, "%s", titles[i]);
	json_array_foreach(lines, i, line) {
		const char *act = text_of(line, "act");
		ctl_cell(t, TONE_PLAIN, true, "%lld", (long long)json_integer_value(json_object_get(line, "seq")));
		ctl_cell(t, TONE_PLAIN, false, "%s", text_of(line, "time"));
		ctl_cell(t, strcmp(act, "refused") == 0 ? TONE_WARN : TONE_PLAIN, false, "%s", act);
		ctl_cell(t, TONE_PLAIN, false, "%s", text_of(line, "caller"));
		ctl_cell(t, TONE_PLAIN, false, "%s", text_of(line, "peer"));
		const json_t *bits = json_object_get(line, "bits");
		ctl_cell(t, TONE_PLAIN, true, bits != NULL ? "%lld" : "-", (long long)json_integer_value(bits));
		ctl_cell(t, TONE_PLAIN, false, "%s", text_of(line, "id"));
		ctl_cell(t, TONE_PLAIN, false, "%s", text_of(line, "reason"));
	}
	ctl_table_print(&t, o->color);
}

/* "10min" and the like become a time; others are left to who reads them. */
static bool
since_of(const char *given, char out[TIME_ROOM])
{
	static const struct {
		const char *name;
		long s;
	} units[] = {{"s", 1}, {"min", 60}, {"h", 3600}, {"d", 86400}};
	char *unit = NULL;
	const long n = strtol(given, &unit, 10);
	struct tm tm;
	for (size_t i = 0; n > 0 && n < 1000000 && i < sizeof units / sizeof units[0]; i++) {
		const time_t then = (time_t)(qg_clock_wall_ms() / 1000) - n * units[i].s;
		if (strcmp(unit, units[i].name) == 0)
			return gmtime_r(&then, &tm) != NULL && strftime(out, TIME_ROOM, "%Y-%m-%dT%H:%M:%SZ", &tm) > 0;
	}
	const int len = snprintf(out, TIME_ROOM, "%s", given);
	return len > 0 && len < TIME_ROOM;
}

static int
show_running(const ctl_options *o, const char *since)
{
	char lines[16];
	json_t *answer = NULL;
	char *path = strdup("/api/v1/audit");
	(void)snprintf(lines, sizeof lines, "%u", o->lines > 0 ? o->lines : LINES_PRESET);
	const bool made = path != NULL && ctl_add_argument(&path, "lines", lines) && ctl_add_argument(&path, "act", o->act) &&
			  ctl_add_argument(&path, "sae", o->sae) && ctl_add_argument(&path, "id", o->id) &&
			  ctl_add_argument(&path, "since", since);
	const int rc = made ? ctl_ask(o, "GET", path, NULL, &answer) : CTL_FAILED;
	free(path);
	if (rc != CTL_DONE)
		return rc;
	if (o->json)
		ctl_print_json(answer);
	else
		print_lines(o, json_object_get(answer, "lines"));
	json_decref(answer);
	return CTL_DONE;
}

/* --- files ------------------------------------------------------------------------------ */

static void
add_line(const char *line, size_t len, void *ctx)
{
	json_t *one = json_loadb(line, len, 0, NULL);
	if (one != NULL)
		(void)json_array_append_new(ctx, one);
}

static bool
is_act(const char *name)
{
	const char *names[QG_AUDIT_ACTS];
	for (size_t i = 0; i < QG_AUDIT_ACTS; i++) {
		names[i] = qg_audit_act_name(i);
		if (strcmp(name, names[i]) == 0)
			return true;
	}
	const char *near = qg_nearest(name, names, QG_AUDIT_ACTS);
	fprintf(stderr, "qkdgatectl: no act %s%s%s%s\n", qg_log_safe(name), near != NULL ? ": is " : "",
		near != NULL ? near : "", near != NULL ? " meant?" : "");
	return false;
}

static int
show_files(const ctl_options *o, const char *since, char *const *files, size_t n)
{
	char from[TIME_ROOM] = "";
	const size_t len = since != NULL ? strlen(since) : 0;
	(void)snprintf(from, sizeof from, "%.*s", (int)(len > 0 && since[len - 1] == 'Z' ? len - 1 : len),
		       since != NULL ? since : "");
	const qg_audit_filter f = {.act = o->act, .who = o->sae, .id = o->id, .since = since != NULL ? from : NULL,
				   .most = o->lines > 0 ? o->lines : LINES_PRESET};
	bool all = true;
	json_t *lines = json_array();
	const qg_err err = qg_audit_find((const char *const *)files, n, &f, add_line, lines, &all);
	if (err != QG_OK)
		fprintf(stderr, "qkdgatectl: audit log: %s\n", qg_err_text(err));
	else if (o->json)
		ctl_print_json(lines);
	else
		print_lines(o, lines);
	json_decref(lines);
	return err == QG_OK ? CTL_DONE : CTL_UNREACHED;
}

/* --- checking ------------------------------------------------------------------------------ */

static void
print_good(const ctl_options *o, long long first, long long last, long long n)
{
	ctl_say(o->color, TONE_GOOD, "good: lines %lld to %lld, %lld in all", first, last, n);
	if (first > 1)
		ctl_say(o->color, TONE_WARN, "  the log begins with line 1: what comes before line %lld was not given", first);
}

static int
print_bad(const ctl_options *o, const char *file, long long line, const char *what)
{
	ctl_say(o->color, TONE_BAD, "%s:%lld: %s", file, line, what);
	return CTL_FAILED;
}

static int
verify_running(const ctl_options *o)
{
	json_t *answer = NULL;
	int rc = ctl_ask(o, "GET", "/api/v1/audit/verify", NULL, &answer);
	if (rc != CTL_DONE)
		return rc;
	const bool good = json_is_true(json_object_get(answer, "good"));
	const json_t *head = json_object_get(answer, "head");
	if (o->json)
		ctl_print_json(answer);
	else if (good)
		print_good(o, json_integer_value(json_object_get(answer, "first")),
			   json_integer_value(json_object_get(head, "seq")),
			   json_integer_value(json_object_get(answer, "lines")));
	else
		(void)print_bad(o, text_of(answer, "file"), json_integer_value(json_object_get(answer, "line")),
				text_of(answer, "what"));
	rc = good ? CTL_DONE : CTL_FAILED;
	json_decref(answer);
	return rc;
}

/* SEQ:TAG */
static bool
read_head(const char *text, qg_audit_end *out)
{
	char *end = NULL;
	out->seq = strtoull(text, &end, 10);
	const bool ok = text[0] >= '1' && text[0] <= '9' && *end == ':' &&
			strlen(end + 1) == 2 * sizeof out->tag &&
			qg_hex_decode(end + 1, strlen(end + 1), out->tag, sizeof out->tag) == QG_OK;
	if (!ok)
		fprintf(stderr, "qkdgatectl: --head: give NUMBER:TAG of a line\n");
	return ok;
}

static int
tell_key(const ctl_options *o, qg_err err)
{
	fprintf(stderr, "qkdgatectl: %s: %s\n", o->master_key,
		err == QG_E_AUTH ? "is not the master key of this key ring" : qg_err_text(err));
	return CTL_UNREACHED;
}

static json_t *
report_json(qg_err err, const char *file, const qg_audit_report *r)
{
	char hex[2 * QG_AUDIT_TAG_BYTES + 1];
	const bool bad = err == QG_E_CORRUPT;
	qg_hex_encode(r->end.tag, sizeof r->end.tag, hex);
	return json_pack("{s:b,s:I,s:I,s:{s:I,s:s},s:o,s:o,s:o}", "good", !bad, "first", (json_int_t)r->first, "lines",
			 (json_int_t)r->lines, "head", "seq", (json_int_t)r->end.seq, "tag", hex, "file",
			 bad ? json_string(file) : json_null(), "line",
			 bad ? json_integer((json_int_t)r->bad_line) : json_null(), "what",
			 bad ? json_string(r->what) : json_null());
}

static int
tell_report(const ctl_options *o, qg_err err, const char *file, const qg_audit_report *r)
{
	if (err != QG_OK && err != QG_E_CORRUPT) {
		fprintf(stderr, "qkdgatectl: %s: %s\n", file, qg_err_text(err));
		return CTL_UNREACHED;
	}
	if (o->json) {
		json_t *j = report_json(err, file, r);
		ctl_print_json(j);
		json_decref(j);
	} else if (err == QG_OK) {
		print_good(o, (long long)r->first, (long long)r->end.seq, (long long)r->lines);
	} else {
		return print_bad(o, file, (long long)r->bad_line, r->what);
	}
	return err == QG_OK ? CTL_DONE : CTL_FAILED;
}

static int
verify_files(const ctl_options *o, char *const *files, size_t n)
{
	uint8_t key[32];
	qg_audit_end head;
	qg_audit_report r;
	const qg_seal_options seal = {.master_key = o->master_key, .key_ring = o->key_ring};
	if (o->master_key == NULL) {
		fprintf(stderr, "qkdgatectl: files need the key: give --master-key, and --key-ring where that was ever "
				"rotated; without files the gateway checks its own\n");
		return CTL_USAGE;
	}
	if (o->head != NULL && !read_head(o->head, &head))
		return CTL_USAGE;
	const qg_err key_err = qg_seal_derive(&seal, "audit", key);
	if (key_err != QG_OK)
		return tell_key(o, key_err);
	const qg_err err = qg_audit_verify_files((const char *const *)files, n, key, o->head != NULL ? &head : NULL, &r);
	qg_wipe(key, sizeof key);
	return tell_report(o, err, files[r.bad_file], &r);
}

/* --- the command ------------------------------------------------------------------------------- */

int
ctl_audit(const ctl_options *o, const ctl_command *c)
{
	const char *first = o->n_arguments > 0 ? o->arguments[0] : "";
	char *const *files = o->arguments;
	size_t n = (size_t)o->n_arguments;
	char since[TIME_ROOM];
	(void)c;
	if (strcmp(first, "verify") == 0)
		return n > 1 ? verify_files(o, files + 1, n - 1) : verify_running(o);
	if (strcmp(first, "rotate") == 0 && n == 1)
		return ctl_post(o, "/api/v1/audit/rotate");
	if ((o->act != NULL && !is_act(o->act)) || (o->since != NULL && !since_of(o->since, since)))
		return CTL_USAGE;
	return n > 0 ? show_files(o, o->since != NULL ? since : NULL, files, n)
		     : show_running(o, o->since != NULL ? since : NULL);
}
