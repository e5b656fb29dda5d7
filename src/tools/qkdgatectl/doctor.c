/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a node end to end and says what to do about each finding. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/secret.h"

#define CLOCK_OFF_MS 5000

typedef struct doctor {
	const ctl_options *o;
	json_t *findings, *passed;
	int status; /* of a request that could not be made */
} doctor;

static void QG_PRINTF(3, 4)
find(doctor *d, const char *advice, const char *fmt, ...)
{
	char text[512];
	va_list ap;
	va_start(ap, fmt);
	if (vsnprintf(text, sizeof text, fmt, ap) < 0)
		text[0] = '\0';
	va_end(ap);
	(void)json_array_append_new(d->findings, json_pack("{s:s,s:s}", "finding", text, "advice", advice));
}

static json_t *
get(doctor *d, const char *path)
{
	json_t *answer = NULL;
	const int rc = ctl_ask(d->o, "GET", path, NULL, &answer);
	if (rc != CTL_DONE)
		d->status = rc;
	return rc == CTL_DONE ? answer : NULL;
}

static const char *
text_of(const json_t *object, const char *member)
{
	const char *text = json_string_value(json_object_get(object, member));
	return text != NULL ? text : "-";
}

static bool
is(const json_t *object, const char *member)
{
	return json_is_true(json_object_get(object, member));
}

static json_int_t
number_of(const json_t *object, const char *member)
{
	return json_integer_value(json_object_get(object, member));
}

/* --- the checks ------------------------------------------------------------------- */

/* What the gateway knows by itself: one part of its alarms. */
static void
find_alarms(doctor *d, const json_t *answer, const char *of)
{
	size_t i;
	json_t *alarm;
	json_array_foreach(json_object_get(answer, "alarms"), i, alarm)
		if (strcmp(text_of(alarm, "of"), of) == 0)
			find(d, text_of(alarm, "advice"), "%s", text_of(alarm, "finding"));
}

static void
check_clock(doctor *d, const json_t *answer, const char *of)
{
	const json_int_t off_ms = number_of(answer, "time_ms") - qg_clock_wall_ms();
	(void)of;
	if (off_ms > CLOCK_OFF_MS || off_ms < -CLOCK_OFF_MS)
		find(d, "set the clocks, for example with chrony",
		     "the clock of the gateway is %lld s off the clock here", (long long)off_ms / 1000);
}

static void
check_sources(doctor *d, const json_t *answer, const char *of)
{
	(void)of;
	size_t i;
	json_t *s;
	json_array_foreach(json_object_get(answer, "sources"), i, s) {
		if (!is(s, "reached"))
			find(d, "is the QKD module up? check network, address and certificates of that source",
			     "stream %s: its source %s port %lld cannot be reached: %s", text_of(s, "stream"),
			     text_of(s, "host"), (long long)number_of(s, "port"), text_of(s, "failure"));
	}
}

/* --- one key through ---------------------------------------------------------------- */

/* A request as an SAE; the answer may hold a key. NULL: it failed, and why was said. */
static json_t *
ask_sae(doctor *d, const ctl_sae *sae, const char *method, const char *path, const char *body)
{
	const ctl_place place = {.url = sae->url,
				 .tls = {.certificate = sae->certificate,
					 .key = sae->key,
					 .ca = d->o->place.tls.ca,
					 .min_version = QG_TLS_1_2}};
	int status = 0;
	char *text = NULL;
	size_t len = 0;
	const qg_err err = ctl_request(&place, d->o->timeout_s, method, path, body, &status, &text, &len);
	if (err != QG_OK) {
		find(d, "check URL and certificate of that SAE", "SAE %s: %s cannot be asked: %s", sae->id, sae->url,
		     qg_err_text(err));
		return NULL;
	}
	json_t *answer = json_loadb(text, len, 0, NULL);
	qg_wipe(text, len);
	free(text);
	if (status == 200)
		return answer;
	find(d, "see the audit log of that gateway for the reason", "SAE %s got %d instead of a key: %s", sae->id, status,
	     text_of(answer, "message"));
	json_decref(answer);
	return NULL;
}

static const json_t *
first_key(const json_t *container)
{
	return json_array_get(json_object_get(container, "keys"), 0);
}

static void
fetch_key(doctor *d, const json_t *issued)
{
	char *path = ctl_path("/api/v1/keys/", d->o->master.id, "/dec_keys");
	json_t *ids = json_pack("{s:[{s:s}]}", "key_IDs", "key_ID", text_of(issued, "key_ID"));
	char *body = json_dumps(ids, JSON_COMPACT);
	json_t *fetched = path != NULL && body != NULL ? ask_sae(d, &d->o->slave, "POST", path, body) : NULL;
	if (fetched != NULL && strcmp(text_of(issued, "key"), text_of(first_key(fetched), "key")) != 0)
		find(d, "stop using this link and keep the logs of both gateways", "the two SAEs were given different keys");
	json_decref(fetched);
	json_decref(ids);
	free(body);
	free(path);
}

static bool
check_key(doctor *d)
{
	const ctl_options *o = d->o;
	if (o->master.id == NULL || o->slave.id == NULL)
		return false;
	char *path = ctl_path("/api/v1/keys/", o->slave.id, "/enc_keys");
	json_t *container = path != NULL ? ask_sae(d, &o->master, "GET", path, NULL) : NULL;
	if (container != NULL)
		fetch_key(d, first_key(container));
	json_decref(container);
	free(path);
	return true;
}

/* --- the doctor ------------------------------------------------------------------------ */

static const struct check {
	const char *what, *path;
	void (*run)(doctor *d, const json_t *answer, const char *of);
	const char *of; /* alarms of it */
} checks[] = {
	{"clock", "/api/v1/node", check_clock, NULL},
	{"gateway", "/api/v1/alarms", find_alarms, "gateway"},
	{"certificates", "/api/v1/alarms", find_alarms, "certificates"},
	{"disk and store", "/api/v1/alarms", find_alarms, "store"},
	{"log", "/api/v1/alarms", find_alarms, "log"},
	{"sources", "/api/v1/sources", check_sources, NULL},
	{"streams", "/api/v1/alarms", find_alarms, "streams"},
	{"neighbours", "/api/v1/alarms", find_alarms, "neighbours"},
};
#define N_CHECKS (sizeof checks / sizeof checks[0])

static void
tell(doctor *d, const char *what, size_t before)
{
	const bool good = json_array_size(d->findings) == before;
	ctl_progress_end();
	if (good)
		(void)json_array_append_new(d->passed, json_string(what));
	if (d->o->json)
		return;
	ctl_say(d->o->color, good ? TONE_GOOD : TONE_BAD, "%-7s %s", good ? "ok" : "FINDING", what);
	for (size_t i = before; i < json_array_size(d->findings); i++) {
		const json_t *f = json_array_get(d->findings, i);
		ctl_say(d->o->color, TONE_PLAIN, "        %s", text_of(f, "finding"));
		ctl_say(d->o->color, TONE_PLAIN, "        -> %s", text_of(f, "advice"));
	}
}

static void
examine(doctor *d)
{
	for (size_t i = 0; i < N_CHECKS && d->status == CTL_DONE; i++) {
		const size_t before = json_array_size(d->findings);
		(void)ctl_progress_begin(d->o, checks[i].what, (unsigned)i, N_CHECKS + 1);
		json_t *answer = get(d, checks[i].path);
		if (answer == NULL)
			return;
		checks[i].run(d, answer, checks[i].of);
		json_decref(answer);
		tell(d, checks[i].what, before);
	}
	const size_t before = json_array_size(d->findings);
	(void)ctl_progress_begin(d->o, "one key from master to slave", N_CHECKS, N_CHECKS + 1);
	const bool checked = check_key(d);
	ctl_progress_end();
	if (checked)
		tell(d, "one key from master to slave", before);
	else if (!d->o->json)
		ctl_say(d->o->color, TONE_PLAIN, "skipped one key from master to slave: give --master and --slave");
}

int
ctl_doctor(const ctl_options *o, const ctl_command *c)
{
	(void)c;
	doctor d = {.o = o, .findings = json_array(), .passed = json_array()};
	examine(&d);
	const bool found = json_array_size(d.findings) > 0;
	if (o->json && d.status == CTL_DONE) {
		json_t *all = json_pack("{s:O,s:O}", "findings", d.findings, "passed", d.passed);
		char *text = json_dumps(all, JSON_INDENT(1));
		printf("%s\n", text != NULL ? text : "{}");
		free(text);
		json_decref(all);
	}
	json_decref(d.findings);
	json_decref(d.passed);
	return d.status != CTL_DONE ? d.status : found ? CTL_FAILED : CTL_DONE;
}
