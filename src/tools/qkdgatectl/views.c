/* SPDX-License-Identifier: Apache-2.0 */
/* Commands that show. A view is a table of columns over a list of the answer. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl_internal.h"

typedef enum column_kind {
	COL_TEXT,
	COL_STATE,  /* in its colour */
	COL_NUMBER,
	COL_BYTES,
	COL_RATE,   /* bits per second */
	COL_SECONDS,
	COL_EXPIRY, /* seconds; few are bad */
	COL_WHEN,   /* milliseconds since 1970 */
	COL_YES,    /* a bool, of which true is good */
	COL_NO,     /* a bool, of which true is bad */
	COL_LIST,   /* of texts */
	COL_TARGETS, /* of keys */
	COL_WAYS    /* of routes */
} column_kind;

typedef struct column {
	const char *title, *member;
	column_kind kind;
} column;

typedef struct ctl_view {
	const char *list; /* member with the rows; NULL: the answer is the only row, shown upright */
	const char *none; /* said where there are none */
	const column *columns;
	size_t n;
} ctl_view;

#define VIEW(name, list_member, text)                                                                                  \
	const ctl_view ctl_view_##name = {                                                                             \
		.list = list_member, .none = text, .columns = name##_columns,                                          \
		.n = sizeof name##_columns / sizeof name##_columns[0]}

static const column streams_columns[] = {
	{"STREAM", "name", COL_TEXT}, {"NEIGHBOUR", "neighbour", COL_TEXT}, {"DIRECTION", "direction", COL_TEXT},
	{"STATE", "state", COL_STATE}, {"PROFILE", "profile", COL_TEXT}, {"READY", "ready_chunks", COL_NUMBER},
	{"HELD", "held_chunks", COL_NUMBER}, {"IN", "in_bps", COL_RATE}, {"OUT", "out_bps", COL_RATE},
	{"EMPTY IN", "empty_in_s", COL_SECONDS}, {"BAD", "bad_segments", COL_NUMBER}, {"TROUBLE", "trouble", COL_TEXT},
};
VIEW(streams, "streams", "no streams");

static const column stream_columns[] = {
	{"name", "name", COL_TEXT}, {"neighbour", "neighbour", COL_TEXT}, {"direction", "direction", COL_TEXT},
	{"virtual", "virtual", COL_TEXT}, {"state", "state", COL_STATE}, {"KSID", "ksid", COL_TEXT},
	{"profile", "profile", COL_TEXT}, {"neighbour agreed", "agreed", COL_TEXT}, {"pool full", "full", COL_TEXT},
	{"trouble", "trouble", COL_TEXT}, {"source fails with", "source_failure", COL_TEXT},
	{"failed opens in a row", "open_failures", COL_NUMBER},
	{"epochs", "epochs", COL_NUMBER}, {"age of the epoch", "epoch_age_s", COL_SECONDS},
	{"chunk", "chunk_bytes", COL_BYTES}, {"chunks of a segment", "segment_chunks", COL_NUMBER},
	{"next index", "next_index", COL_NUMBER}, {"mark", "mark", COL_NUMBER}, {"ready", "ready_bytes", COL_BYTES},
	{"ready chunks", "ready_chunks", COL_NUMBER}, {"most chunks", "most_chunks", COL_NUMBER},
	{"held chunks", "held_chunks", COL_NUMBER}, {"node key", "node_bytes", COL_BYTES},
	{"chunks taken", "taken_chunks", COL_NUMBER}, {"chunks issued", "issued_chunks", COL_NUMBER},
	{"chunks fetched", "fetched_chunks", COL_NUMBER}, {"segments", "segments", COL_NUMBER},
	{"bad segments", "bad_segments", COL_NUMBER}, {"in", "in_bps", COL_RATE}, {"out", "out_bps", COL_RATE},
	{"empty in", "empty_in_s", COL_SECONDS},
};
static VIEW(stream, NULL, "");

static const column neighbours_columns[] = {
	{"NEIGHBOUR", "kme", COL_TEXT}, {"REACHED", "reached", COL_YES}, {"CALLED", "called_s_ago", COL_SECONDS},
	{"LINK", "link", COL_STATE}, {"STREAMS", "streams", COL_LIST}, {"URL", "url", COL_TEXT},
	{"FAILURE", "failure", COL_TEXT},
};
VIEW(neighbours, "neighbours", "no neighbours");

static const column routes_columns[] = {
	{"STREAM", "stream", COL_TEXT}, {"TO", "to", COL_TEXT}, {"PATHS", "paths", COL_NUMBER}, {"ROUTES", "routes", COL_WAYS},
};
VIEW(routes, "routes", "no virtual streams begin here");

static const column saes_columns[] = {
	{"SAE", "id", COL_TEXT}, {"ORIGIN", "origin", COL_TEXT}, {"SUSPENDED", "suspended", COL_NO},
	{"REQUESTS", "requests", COL_NUMBER}, {"ISSUED", "issued", COL_NUMBER}, {"FETCHED", "fetched", COL_NUMBER},
	{"REFUSED", "refused", COL_NUMBER}, {"LIMITED", "limited", COL_NUMBER}, {"LAST KEY REQUEST", "last_ms", COL_WHEN},
};
VIEW(saes, "saes", "no SAEs here");

static const column rules_columns[] = {
	{"RULE", "name", COL_TEXT}, {"ORIGIN", "origin", COL_TEXT}, {"MASTER", "master", COL_TEXT},
	{"SLAVES", "slaves", COL_LIST}, {"BOTH WAYS", "both_ways", COL_TEXT}, {"BITS", "default_key_bits", COL_NUMBER},
	{"LEAST", "min_key_bits", COL_NUMBER}, {"MOST", "max_key_bits", COL_NUMBER}, {"KEYS", "max_keys", COL_NUMBER},
	{"EXTRA SLAVES", "max_extra_slaves", COL_NUMBER},
};
VIEW(rules, "rules", "no rules: no SAE gets a key");

static const column accounting_columns[] = {
	{"DAY", "day", COL_TEXT}, {"SAE", "sae", COL_TEXT}, {"WITH", "other", COL_TEXT}, {"REQUESTS", "requests", COL_NUMBER},
	{"ISSUED", "issued", COL_NUMBER}, {"BITS", "issued_bits", COL_NUMBER}, {"FETCHED", "fetched", COL_NUMBER},
	{"BITS", "fetched_bits", COL_NUMBER}, {"REFUSED", "refused", COL_NUMBER}, {"LIMITED", "limited", COL_NUMBER},
};
VIEW(accounting, "rows", "nothing was asked for in these days");

static const column certificates_columns[] = {
	{"OF", "of", COL_TEXT}, {"WHAT", "what", COL_TEXT}, {"EXPIRES IN", "expires_in_s", COL_EXPIRY},
	{"NAME", "name", COL_TEXT}, {"FILE", "file", COL_TEXT},
};
VIEW(certificates, "certificates", "no certificates");

static const column alarms_columns[] = {
	{"SEVERITY", "severity", COL_STATE}, {"OF", "of", COL_TEXT}, {"FINDING", "finding", COL_TEXT},
	{"WHAT TO DO", "advice", COL_TEXT},
};
VIEW(alarms, "alarms", "no alarms");

static const column sources_columns[] = {
	{"STREAM", "stream", COL_TEXT}, {"HOST", "host", COL_TEXT}, {"PORT", "port", COL_NUMBER}, {"TLS", "tls", COL_TEXT},
	{"REACHED", "reached", COL_YES}, {"FAILURE", "failure", COL_TEXT},
};
VIEW(sources, "sources", "no sources");

static const column limits_columns[] = {{"SAE", "sae", COL_TEXT}, {"LIMITED", "limited", COL_NUMBER}};
VIEW(limits, "hit", "no limit was hit");

static const column store_columns[] = {
	{"database works", "database_works", COL_YES}, {"anchor works", "anchor_works", COL_YES},
	{"audit log works", "audit_works", COL_YES}, {"two master keys", "master_key_pending", COL_NO},
	{"commits", "commits", COL_NUMBER}, {"changes", "jobs", COL_NUMBER},
	{"failures", "failures", COL_NUMBER}, {"mean commit, ms", "mean_commit_ms", COL_NUMBER},
};
VIEW(store, NULL, "");

static const column transfers_columns[] = {
	{"records", "records", COL_NUMBER}, {"keys", "keys", COL_NUMBER}, {"being voided", "voiding", COL_NUMBER},
};
VIEW(transfers, NULL, "");

static const column transfer_columns[] = {
	{"KEY ID", "id", COL_TEXT}, {"STATE", "state", COL_TEXT}, {"FROM", "initiator", COL_TEXT},
	{"ORIGIN", "origin", COL_TEXT}, {"BITS", "bits", COL_NUMBER}, {"TARGETS", "targets", COL_TARGETS},
	{"AGE", "age_s", COL_SECONDS}, {"EXPIRES IN", "expires_in_s", COL_SECONDS},
};
static VIEW(transfer, "list", "no such keys");

static const column peers_columns[] = {
	{"PEER", "id", COL_TEXT}, {"SUSPENDED", "suspended", COL_NO}, {"REACHED", "reached", COL_YES},
	{"CALLED", "called_s_ago", COL_SECONDS}, {"LINK", "link", COL_TEXT}, {"STREAM", "stream", COL_TEXT},
	{"DIALECT", "dialect", COL_TEXT}, {"MODE", "mode", COL_TEXT}, {"SAES", "saes", COL_LIST}, {"URL", "url", COL_TEXT},
};
VIEW(peers, "peers", "no peers");

static const column node_columns[] = {
	{"KME", "kme", COL_TEXT}, {"version", "version", COL_TEXT}, {"up", "uptime_s", COL_SECONDS},
	{"alive", "alive", COL_YES}, {"ready", "ready", COL_YES}, {"draining", "draining", COL_NO},
	{"reasons", "reasons", COL_LIST},
};
VIEW(node, NULL, "");

/* --- values ------------------------------------------------------------------------- */

static ctl_tone
tone_of_state(const char *s)
{
	static const struct {
		const char *word;
		ctl_tone tone;
	} words[] = {
		{"running", TONE_GOOD}, {"up", TONE_GOOD}, {"waiting", TONE_WARN}, {"opening", TONE_WARN},
		{"starving", TONE_WARN}, {"down", TONE_BAD}, {"stopping", TONE_BAD},
		{"critical", TONE_BAD}, {"warning", TONE_WARN},
	};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(words[i].word, s) == 0)
			return words[i].tone;
	return TONE_PLAIN;
}

static void
cell_scaled(ctl_table *t, double v, const char *unit)
{
	static const char *const prefixes[] = {"", "k", "M", "G", "T"};
	size_t i = 0;
	for (; v >= 1000.0 && i < sizeof prefixes / sizeof prefixes[0] - 1; i++)
		v /= 1000.0;
	ctl_cell(t, TONE_PLAIN, true, i == 0 ? "%.0f %s%s" : "%.1f %s%s", v, prefixes[i], unit);
}

static void
cell_seconds(ctl_table *t, double s, ctl_tone tone)
{
	static const struct {
		double of;
		const char *unit;
	} units[] = {{86400, "d"}, {3600, "h"}, {60, "min"}};
	for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
		if (fabs(s) >= 2 * units[i].of) {
			ctl_cell(t, tone, true, "%.0f %s", s / units[i].of, units[i].unit);
			return;
		}
	ctl_cell(t, tone, true, "%.0f s", s);
}

static void
cell_when(ctl_table *t, const json_t *v)
{
	char text[32] = "-";
	struct tm tm;
	const time_t s = (time_t)(json_integer_value(v) / 1000);
	if (gmtime_r(&s, &tm) != NULL)
		(void)strftime(text, sizeof text, "%Y-%m-%d %H:%M:%SZ", &tm);
	ctl_cell(t, TONE_PLAIN, false, "%s", text);
}

static void
cell_list(ctl_table *t, const json_t *list, const char *between)
{
	char text[512] = "";
	size_t i, len = 0;
	json_t *item;
	json_array_foreach(list, i, item) {
		const int n = snprintf(text + len, sizeof text - len, "%s%s", i > 0 ? between : "",
				       json_string_value(item) != NULL ? json_string_value(item) : "?");
		len = n > 0 && (size_t)n < sizeof text - len ? len + (size_t)n : len;
	}
	ctl_cell(t, TONE_PLAIN, false, "%s", text[0] != '\0' ? text : "-");
}

static void
cell_ways(ctl_table *t, const json_t *list)
{
	char text[512] = "";
	size_t i, k, len = 0;
	json_t *way, *node;
	json_array_foreach(list, i, way) {
		json_array_foreach(json_object_get(way, "nodes"), k, node) {
			const int n = snprintf(text + len, sizeof text - len, "%s%s", k > 0 ? " - " : i > 0 ? ", " : "",
					       json_string_value(node));
			len = n > 0 && (size_t)n < sizeof text - len ? len + (size_t)n : len;
		}
	}
	ctl_cell(t, text[0] != '\0' ? TONE_PLAIN : TONE_BAD, false, "%s", text[0] != '\0' ? text : "none");
}

static void
cell_targets(ctl_table *t, const json_t *list)
{
	char text[512] = "";
	size_t i, len = 0;
	json_t *item;
	json_array_foreach(list, i, item) {
		const int n = snprintf(text + len, sizeof text - len, "%s%s %s", i > 0 ? ", " : "",
				       json_string_value(json_object_get(item, "sae")),
				       json_string_value(json_object_get(item, "state")));
		len = n > 0 && (size_t)n < sizeof text - len ? len + (size_t)n : len;
	}
	ctl_cell(t, TONE_PLAIN, false, "%s", text[0] != '\0' ? text : "-");
}

static void
cell_text(ctl_table *t, const json_t *v, bool state)
{
	const char *text = json_is_boolean(v) ? (json_is_true(v) ? "yes" : "no") : json_string_value(v);
	ctl_cell(t, state && text != NULL ? tone_of_state(text) : TONE_PLAIN, false, "%s", text != NULL ? text : "-");
}

static void
cell_bool(ctl_table *t, const json_t *v, bool good)
{
	const bool is = json_is_true(v);
	ctl_cell(t, is == good ? (good ? TONE_GOOD : TONE_PLAIN) : TONE_BAD, false, "%s", is ? "yes" : "no");
}

static void
put_cell(ctl_table *t, const json_t *row, const column *c)
{
	const json_t *v = json_object_get(row, c->member);
	const double number = json_number_value(v);
	if (v == NULL || json_is_null(v)) {
		ctl_cell(t, TONE_PLAIN, false, "-");
		return;
	}
	switch (c->kind) {
	case COL_TEXT:
	case COL_STATE:
		cell_text(t, v, c->kind == COL_STATE);
		break;
	case COL_NUMBER:
		ctl_cell(t, TONE_PLAIN, true, json_is_real(v) ? "%.2f" : "%.0f", number);
		break;
	case COL_BYTES:
		cell_scaled(t, number, "B");
		break;
	case COL_RATE:
		cell_scaled(t, number, "bit/s");
		break;
	case COL_SECONDS:
		cell_seconds(t, number, TONE_PLAIN);
		break;
	case COL_EXPIRY:
		cell_seconds(t, number, number < 0 ? TONE_BAD : number < 30 * 86400.0 ? TONE_WARN : TONE_GOOD);
		break;
	case COL_WHEN:
		cell_when(t, v);
		break;
	case COL_YES:
	case COL_NO:
		cell_bool(t, v, c->kind == COL_YES);
		break;
	case COL_LIST:
		cell_list(t, v, ", ");
		break;
	case COL_TARGETS:
		cell_targets(t, v);
		break;
	case COL_WAYS:
		cell_ways(t, v);
		break;
	}
}

/* --- views --------------------------------------------------------------------------- */

static void
print_upright(const ctl_view *view, const json_t *answer, bool color)
{
	ctl_table *t = ctl_table_new(2);
	for (size_t i = 0; i < view->n; i++) {
		ctl_cell(t, TONE_HEAD, false, "%s", view->columns[i].title);
		put_cell(t, answer, &view->columns[i]);
	}
	ctl_table_print(&t, color);
}

static void
print_view(const ctl_view *view, const json_t *answer, bool color)
{
	if (view->list == NULL) {
		print_upright(view, answer, color);
		return;
	}
	const json_t *rows = json_object_get(answer, view->list);
	size_t i;
	json_t *row;
	if (json_array_size(rows) == 0) {
		ctl_say(color, TONE_PLAIN, "%s", view->none);
		return;
	}
	ctl_table *t = ctl_table_new(view->n);
	for (size_t k = 0; k < view->n; k++)
		ctl_cell(t, TONE_HEAD, false, "%s", view->columns[k].title);
	json_array_foreach(rows, i, row) {
		for (size_t k = 0; k < view->n; k++)
			put_cell(t, row, &view->columns[k]);
	}
	ctl_table_print(&t, color);
}

void
ctl_print_json(const json_t *answer)
{
	char *text = json_dumps(answer, JSON_INDENT(1));
	if (text != NULL)
		printf("%s\n", text);
	free(text);
}

static int
show_at(const ctl_options *o, const ctl_view *view, const char *path)
{
	json_t *answer = NULL;
	const int rc = ctl_ask(o, "GET", path, NULL, &answer);
	if (rc != CTL_DONE)
		return rc;
	if (o->json)
		ctl_print_json(answer);
	else
		print_view(view, answer, o->color);
	json_decref(answer);
	return CTL_DONE;
}

int
ctl_show(const ctl_options *o, const ctl_command *c)
{
	return show_at(o, c->view, c->path);
}

int
ctl_show_stream(const ctl_options *o, const ctl_command *c)
{
	(void)c;
	char *path = ctl_path("/api/v1/streams/", o->arguments[0], "");
	const int rc = path != NULL ? show_at(o, &ctl_view_stream, path) : CTL_FAILED;
	free(path);
	return rc;
}

/* The figures, and the newest page that was asked for. */
int
ctl_show_transfers(const ctl_options *o, const ctl_command *c)
{
	json_t *answer = NULL;
	char *path = strdup(c->path), limit[16];
	(void)snprintf(limit, sizeof limit, "%u", o->lines);
	const bool made = path != NULL && ctl_add_argument(&path, "limit", o->lines > 0 ? limit : NULL) &&
			  ctl_add_argument(&path, "after", o->after);
	const int rc = made ? ctl_ask(o, "GET", path, NULL, &answer) : CTL_FAILED;
	free(path);
	if (rc != CTL_DONE)
		return rc;
	const json_t *next = json_object_get(answer, "next");
	if (o->json) {
		ctl_print_json(answer);
	} else {
		print_view(c->view, answer, o->color);
		printf("\n");
		print_view(&ctl_view_transfer, answer, o->color);
		if (json_is_integer(next))
			ctl_say(o->color, TONE_PLAIN, "more: --after %lld", (long long)json_integer_value(next));
	}
	json_decref(answer);
	return CTL_DONE;
}

static void
print_status(const json_t *answer, bool color)
{
	const json_t *node = json_object_get(answer, "node");
	const bool ready = json_is_true(json_object_get(node, "ready"));
	size_t i;
	json_t *reason;
	ctl_say(color, ready ? TONE_GOOD : TONE_BAD, "%s, qkdgate %s, up %lld s: %s",
		json_string_value(json_object_get(node, "kme")), json_string_value(json_object_get(node, "version")),
		(long long)json_integer_value(json_object_get(node, "uptime_s")), ready ? "ready" : "NOT READY");
	json_array_foreach(json_object_get(node, "reasons"), i, reason) {
		ctl_say(color, TONE_WARN, "  %s", json_string_value(reason));
	}
	printf("\n");
	print_view(&ctl_view_streams, answer, color);
	printf("\n");
	print_view(&ctl_view_neighbours, answer, color);
	if (json_array_size(json_object_get(answer, "routes")) > 0) {
		printf("\n");
		print_view(&ctl_view_routes, answer, color);
	}
}

int
ctl_show_status(const ctl_options *o, const ctl_command *c)
{
	json_t *answer = NULL;
	const int rc = ctl_ask(o, "GET", c->path, NULL, &answer);
	if (rc != CTL_DONE)
		return rc;
	if (o->json)
		ctl_print_json(answer);
	else
		print_status(answer, o->color);
	const bool ready = json_is_true(json_object_get(json_object_get(answer, "node"), "ready"));
	json_decref(answer);
	return ready ? CTL_DONE : CTL_FAILED;
}

int
ctl_show_health(const ctl_options *o, const ctl_command *c)
{
	(void)c;
	json_t *answer = NULL;
	const char *member = o->ready ? "ready" : "alive";
	const int rc = ctl_ask_health(o, o->ready ? "/readyz" : "/healthz", &answer);
	if (rc != CTL_DONE)
		return rc;
	const bool good = json_is_true(json_object_get(answer, member));
	size_t i;
	json_t *reason;
	if (o->json) {
		ctl_print_json(answer);
	} else {
		ctl_say(o->color, good ? TONE_GOOD : TONE_BAD, "%s%s", good ? "" : "not ", member);
		json_array_foreach(json_object_get(answer, "reasons"), i, reason) {
			ctl_say(o->color, TONE_WARN, "  %s", json_string_value(reason));
		}
	}
	json_decref(answer);
	return good ? CTL_DONE : CTL_FAILED;
}

/* What is no JSON, as it comes. */
static int
show_text(const ctl_options *o, const char *path)
{
	int status = 0;
	char *text = NULL;
	size_t len = 0;
	if (ctl_request(&o->place, o->timeout_s, "GET", path, NULL, &status, &text, &len) != QG_OK)
		return CTL_UNREACHED;
	if (status == 200)
		(void)fwrite(text, 1, len, stdout);
	else
		ctl_tell_refusal(status, text, len);
	free(text);
	return status == 200 ? CTL_DONE : status == 401 ? CTL_FORBIDDEN : CTL_FAILED;
}

int
ctl_show_metrics(const ctl_options *o, const ctl_command *c)
{
	return show_text(o, c->path);
}

int
ctl_show_accounting(const ctl_options *o, const ctl_command *c)
{
	char *path = strdup(c->path);
	const bool made = path != NULL && ctl_add_argument(&path, "from", o->from) && ctl_add_argument(&path, "to", o->to);
	int rc = CTL_FAILED;
	if (made && o->csv && ctl_add_argument(&path, "format", "csv"))
		rc = show_text(o, path);
	else if (made && !o->csv)
		rc = show_at(o, c->view, path);
	free(path);
	return rc;
}

int
ctl_show_logs(const ctl_options *o, const ctl_command *c)
{
	json_t *answer = NULL;
	const int rc = ctl_ask(o, "GET", c->path, NULL, &answer);
	if (rc != CTL_DONE)
		return rc;
	const char *module;
	json_t *level;
	if (o->json) {
		ctl_print_json(answer);
	} else {
		ctl_table *t = ctl_table_new(2);
		ctl_cell(t, TONE_PLAIN, false, "all others");
		ctl_cell(t, TONE_PLAIN, false, "%s", json_string_value(json_object_get(answer, "level")));
		json_object_foreach(json_object_get(answer, "modules"), module, level) {
			ctl_cell(t, TONE_PLAIN, false, "%s", module);
			ctl_cell(t, TONE_PLAIN, false, "%s", json_string_value(level));
		}
		const json_t *file = json_object_get(answer, "file");
		const bool works = json_is_true(json_object_get(answer, "works"));
		ctl_cell(t, TONE_PLAIN, false, "to");
		ctl_cell(t, works ? TONE_PLAIN : TONE_BAD, false, "%s%s",
			 json_string_value(json_is_string(file) ? file : json_object_get(answer, "to")),
			 works ? "" : ": cannot be written");
		ctl_cell(t, TONE_PLAIN, false, "lines lost");
		ctl_cell(t, TONE_PLAIN, false, "%lld", (long long)json_integer_value(json_object_get(answer, "lost")));
		ctl_table_print(&t, o->color);
	}
	json_decref(answer);
	return CTL_DONE;
}
