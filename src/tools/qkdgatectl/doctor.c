/* SPDX-License-Identifier: Apache-2.0 */
/* Checks a node end to end and says what to do about each finding. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_internal.h"
#include "qkdgate/clock.h"
#include "qkdgate/secret.h"

#define EXPIRES_SOON_S (14 * 86400)
#define CLOCK_OFF_MS 5000
#define DISK_LEAST ((json_int_t)64 * 1024 * 1024)

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

static void
check_node(doctor *d, const json_t *answer)
{
	const json_int_t off_ms = number_of(answer, "time_ms") - qg_clock_wall_ms();
	if (!is(answer, "alive"))
		find(d, "restart the gateway and keep its log", "the gateway has come to a standstill");
	if (is(answer, "draining"))
		find(d, "wait for its end and start it again", "the gateway is being taken out of service");
	if (off_ms > CLOCK_OFF_MS || off_ms < -CLOCK_OFF_MS)
		find(d, "set the clocks, for example with chrony",
		     "the clock of the gateway is %lld s off the clock here", (long long)off_ms / 1000);
}

static void
check_certificates(doctor *d, const json_t *answer)
{
	size_t i;
	json_t *c;
	json_array_foreach(json_object_get(answer, "certificates"), i, c) {
		const json_t *left = json_object_get(c, "expires_in_s");
		const char *of = text_of(c, "of"), *what = text_of(c, "what"), *file = text_of(c, "file");
		if (strcmp(what, "unreadable") == 0)
			find(d, "put the files back and reload", "%s: %s cannot be read", of, file);
		else if (json_is_integer(left) && json_integer_value(left) < 0)
			find(d, "put a new one in place and reload", "%s: %s %s has expired", of, what, file);
		else if (json_is_integer(left) && json_integer_value(left) < EXPIRES_SOON_S)
			find(d, "put a new one in place and reload", "%s: %s %s expires in %lld days", of, what, file,
			     (long long)json_integer_value(left) / 86400);
	}
}

static void
check_store(doctor *d, const json_t *answer)
{
	static const struct {
		const char *member, *what;
	} parts[] = {{"database_works", "the database"}, {"anchor_works", "the anchor"}, {"audit_works", "the audit log"}};
	size_t i;
	json_t *f;
	for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++)
		if (!is(answer, parts[k].member))
			find(d, "make room or replace the disk; see the log for database_failed or write_failed",
			     "%s cannot be written", parts[k].what);
	json_array_foreach(json_object_get(answer, "files"), i, f) {
		const json_t *free_bytes = json_object_get(f, "free_bytes");
		if (json_is_integer(free_bytes) && json_integer_value(free_bytes) < DISK_LEAST)
			find(d, "make room on that disk", "%s: only %lld MiB are free beside %s", text_of(f, "what"),
			     (long long)json_integer_value(free_bytes) / 1048576, text_of(f, "file"));
	}
}

static void
check_log(doctor *d, const json_t *answer)
{
	const json_t *file = json_object_get(answer, "file");
	if (!is(answer, "works"))
		find(d, "make room, or put the folder back; then qkdgatectl reopen-log",
		     "the log cannot be written to %s; %lld lines are lost",
		     json_is_string(file) ? json_string_value(file) : text_of(answer, "to"),
		     (long long)number_of(answer, "lost"));
}

static void
check_sources(doctor *d, const json_t *answer)
{
	size_t i;
	json_t *s;
	json_array_foreach(json_object_get(answer, "sources"), i, s) {
		if (!is(s, "reached"))
			find(d, "is the QKD module up? check network, address and certificates of that source",
			     "stream %s: its source %s port %lld cannot be reached: %s", text_of(s, "stream"),
			     text_of(s, "host"), (long long)number_of(s, "port"), text_of(s, "failure"));
	}
}

static void
check_streams(doctor *d, const json_t *answer)
{
	size_t i;
	json_t *s;
	json_array_foreach(json_object_get(answer, "streams"), i, s) {
		const char *name = text_of(s, "name"), *state = text_of(s, "state");
		const bool inbound = strcmp(text_of(s, "direction"), "inbound") == 0;
		if (strcmp(state, "running") != 0)
			find(d, inbound ? "look at the neighbour, which opens it" : "look at its source and at the log",
			     "stream %s is not open: it is %s (%s)", name, state, text_of(s, "trouble"));
		else if (json_is_string(json_object_get(s, "source_failure")))
			find(d, "look at its source and at the log", "stream %s gets no key: its source does not answer: %s",
			     name, text_of(s, "source_failure"));
		if (!inbound && number_of(s, "ready_chunks") == 0)
			find(d, "look at its source and at the neighbour", "stream %s has no key ready", name);
	}
}

static void
check_neighbours(doctor *d, const json_t *answer)
{
	size_t i;
	json_t *n;
	json_array_foreach(json_object_get(answer, "neighbours"), i, n) {
		if (json_is_false(json_object_get(n, "reached")))
			find(d, "is it up? check network, url and certificates",
			     "neighbour %s cannot be reached: %s", text_of(n, "kme"), text_of(n, "failure"));
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
	void (*run)(doctor *d, const json_t *answer);
} checks[] = {
	{"gateway and clock", "/api/v1/node", check_node},
	{"certificates", "/api/v1/certificates", check_certificates},
	{"disk and store", "/api/v1/store", check_store},
	{"log", "/api/v1/logs", check_log},
	{"sources", "/api/v1/sources", check_sources},
	{"streams", "/api/v1/streams", check_streams},
	{"neighbours", "/api/v1/neighbours", check_neighbours},
};
#define N_CHECKS (sizeof checks / sizeof checks[0])

static void
tell(doctor *d, const char *what, size_t before)
{
	const bool good = json_array_size(d->findings) == before;
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
		json_t *answer = get(d, checks[i].path);
		if (answer == NULL)
			return;
		checks[i].run(d, answer);
		json_decref(answer);
		tell(d, checks[i].what, before);
	}
	const size_t before = json_array_size(d->findings);
	if (check_key(d))
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
