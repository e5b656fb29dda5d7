/* SPDX-License-Identifier: Apache-2.0 */
/* Who got how much on which day, as JSON or as CSV (RFC 4180). */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "admin_internal.h"
#include "qkdgate/accounts.h"

#define DAYS_PRESET 31
#define DAYS_MAX 3660
#define DAY_S 86400
#define DATE_ROOM 16

typedef struct span {
	int64_t from, to; /* days since 1970-01-01 */
	bool csv;
} span;

/* --- days ------------------------------------------------------------------------- */

static void
date_text(int64_t day, char out[DATE_ROOM])
{
	const time_t s = (time_t)(day * DAY_S);
	struct tm tm;
	if (gmtime_r(&s, &tm) == NULL || strftime(out, DATE_ROOM, "%Y-%m-%d", &tm) == 0)
		(void)snprintf(out, DATE_ROOM, "?");
}

/* YYYY-MM-DD, and nothing that the calendar has not. */
static bool
date_of(const char *text, int64_t *day)
{
	struct tm tm = {0};
	char again[DATE_ROOM];
	const char *end = strptime(text, "%Y-%m-%d", &tm);
	if (end == NULL || *end != '\0')
		return false;
	*day = timegm(&tm) / DAY_S;
	date_text(*day, again);
	return strcmp(again, text) == 0;
}

static bool
set_from(void *into, const char *value)
{
	return date_of(value, &((span *)into)->from);
}

static bool
set_to(void *into, const char *value)
{
	return date_of(value, &((span *)into)->to);
}

static bool
set_format(void *into, const char *value)
{
	span *s = into;
	s->csv = strcmp(value, "csv") == 0;
	return s->csv || strcmp(value, "json") == 0;
}

static const qg_admin_argument arguments[] = {
	{"from", set_from, "give a day as 2026-01-31"},
	{"to", set_to, "give a day as 2026-01-31"},
	{"format", set_format, "give csv or json"},
};

/* --- rows ---------------------------------------------------------------------------- */

static void
add_json(const qg_account_rec *r, void *ctx)
{
	char day[DATE_ROOM];
	date_text(r->day, day);
	(void)json_array_append_new(
		ctx, json_pack("{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I}", "day", day, "sae", r->sae, "other", r->other,
			       "requests", (json_int_t)r->requests, "issued", (json_int_t)r->issued, "issued_bits",
			       (json_int_t)r->issued_bits, "fetched", (json_int_t)r->fetched, "fetched_bits",
			       (json_int_t)r->fetched_bits, "refused", (json_int_t)r->refused, "limited",
			       (json_int_t)r->limited));
}

/* A comma may stand in an SAE ID, a quote may not; but other nodes' IDs come from elsewhere. */
static void
put_field(FILE *out, const char *text)
{
	if (strpbrk(text, ",\"\r\n") == NULL) {
		(void)fputs(text, out);
		return;
	}
	(void)fputc('"', out);
	for (; *text != '\0'; text++) {
		if (*text == '"')
			(void)fputc('"', out);
		(void)fputc(*text, out);
	}
	(void)fputc('"', out);
}

static void
add_csv(const qg_account_rec *r, void *ctx)
{
	char day[DATE_ROOM];
	date_text(r->day, day);
	(void)fputs(day, ctx);
	(void)fputc(',', ctx);
	put_field(ctx, r->sae);
	(void)fputc(',', ctx);
	put_field(ctx, r->other);
	const uint64_t figures[] = {r->requests, r->issued, r->issued_bits, r->fetched, r->fetched_bits, r->refused,
				    r->limited};
	for (size_t i = 0; i < sizeof figures / sizeof figures[0]; i++) {
		char text[24];
		(void)snprintf(text, sizeof text, ",%llu", (unsigned long long)figures[i]);
		(void)fputs(text, ctx);
	}
	(void)fputs("\r\n", ctx);
}

/* --- answers -------------------------------------------------------------------------- */

static void
answer_error(qg_http_request *http, qg_err err)
{
	if (err == QG_E_RANGE)
		qg_admin_answer_error(http, err, "more than 100,000 rows: ask for fewer days");
	else
		qg_admin_answer_error(http, err, "accounting: %s", qg_err_text(err));
}

static void
answer_json(qg_admin *a, qg_http_request *http, const span *s)
{
	char from[DATE_ROOM], to[DATE_ROOM];
	json_t *rows = json_array();
	const qg_err err = qg_accounts_read(qg_core_accounts(a->p.core), s->from, s->to, add_json, rows);
	date_text(s->from, from);
	date_text(s->to, to);
	if (err == QG_OK) {
		qg_admin_answer(http, 200, json_pack("{s:s,s:s,s:s,s:o}", "kme", a->p.cfg->kme_id, "from", from, "to", to,
						     "rows", rows));
		return;
	}
	json_decref(rows);
	answer_error(http, err);
}

static void
answer_csv(qg_admin *a, qg_http_request *http, const span *s)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	if (out == NULL) {
		answer_error(http, QG_E_NOMEM);
		return;
	}
	(void)fputs("day,sae,other,requests,issued,issued_bits,fetched,fetched_bits,refused,limited\r\n", out);
	qg_err err = qg_accounts_read(qg_core_accounts(a->p.core), s->from, s->to, add_csv, out);
	if (fclose(out) != 0 && err == QG_OK)
		err = QG_E_NOMEM;
	if (err == QG_OK)
		qg_http_answer(http, 200, "text/csv; charset=utf-8", text, len);
	else
		answer_error(http, err);
	free(text);
}

static void
answer(qg_admin *a, qg_http_request *http, void *arg)
{
	const span s = *(span *)arg;
	free(arg);
	if (s.csv)
		answer_csv(a, http, &s);
	else
		answer_json(a, http, &s);
}

void
qg_admin_on_accounting(qg_http_request *http, void *admin)
{
	const int64_t today = qg_accounts_today();
	span s = {.from = INT64_MIN, .to = today};
	if (!qg_admin_take_query(http, arguments, sizeof arguments / sizeof arguments[0], &s))
		return;
	if (s.from == INT64_MIN)
		s.from = s.to - (DAYS_PRESET - 1);
	if (s.from > s.to || s.to - s.from >= DAYS_MAX) {
		qg_admin_answer_error(http, QG_E_INVAL, "from must not be after to, nor more than %d days before it", DAYS_MAX);
		return;
	}
	span *copy = malloc(sizeof *copy);
	if (copy == NULL) {
		answer_error(http, QG_E_NOMEM);
		return;
	}
	*copy = s;
	qg_admin_later(admin, http, answer, copy);
}
