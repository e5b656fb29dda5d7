/* SPDX-License-Identifier: Apache-2.0 */
/* SAEs and rules at run time: the command line becomes what the file would hold. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl_internal.h"
#include "qkdgate/log.h"
#include "qkdgate/nearest.h"

/* "a,b" as a list of texts. */
static json_t *
list_of(const char *text)
{
	json_t *list = json_array();
	for (const char *at = text; *at != '\0';) {
		const size_t n = strcspn(at, ",");
		(void)json_array_append_new(list, json_stringn(at, n));
		at += n + (at[n] == ',');
	}
	return list;
}

/* A number, yes or no, or a text. */
static json_t *
value_of(const char *text)
{
	const size_t digits = strspn(text, "0123456789");
	if (digits > 0 && digits < 16 && text[digits] == '\0')
		return json_integer((json_int_t)strtoll(text, NULL, 10));
	if (strcmp(text, "true") == 0 || strcmp(text, "false") == 0)
		return json_boolean(text[0] == 't');
	return json_string(text);
}

/* Splits NAME=VALUE; the name's length, 0 where it is none. */
static size_t
name_len(const char *argument)
{
	const char *is = strchr(argument, '=');
	if (is == NULL || is == argument)
		fprintf(stderr, "qkdgatectl: %s: give NAME=VALUE\n", qg_log_safe(argument));
	return is != NULL ? (size_t)(is - argument) : 0;
}

static json_t *
sae_body(const ctl_options *o)
{
	json_t *certificate = json_object();
	json_t *body = json_pack("{s:s,s:o}", "id", o->arguments[1], "certificate", certificate);
	for (int i = 2; i < o->n_arguments; i++) {
		const char *argument = o->arguments[i];
		const size_t n = name_len(argument);
		if (n == 0) {
			json_decref(body);
			return NULL;
		}
		if (strncmp(argument, "applications=", n + 1) == 0)
			(void)json_object_set_new(body, "applications", list_of(argument + n + 1));
		else
			(void)json_object_setn_new(certificate, argument, n, json_string(argument + n + 1));
	}
	return body;
}

static json_t *
rule_body(const ctl_options *o)
{
	json_t *body = json_pack("{s:s,s:s,s:o}", "name", o->arguments[1], "master", o->arguments[2], "slaves",
				 list_of(o->arguments[3]));
	for (int i = 4; i < o->n_arguments; i++) {
		const size_t n = name_len(o->arguments[i]);
		if (n == 0) {
			json_decref(body);
			return NULL;
		}
		(void)json_object_setn_new(body, o->arguments[i], n, value_of(o->arguments[i] + n + 1));
	}
	return body;
}

static int
usage(const ctl_command *c, const char *given)
{
	static const char *const verbs[] = {"add", "remove"};
	const char *near = qg_nearest(given, verbs, 2);
	if (near != NULL && strcmp(near, given) != 0)
		fprintf(stderr, "qkdgatectl: %s %s: is %s meant?\n", c->name, qg_log_safe(given), near);
	fprintf(stderr, "usage: qkdgatectl %s %s\n", c->name, c->arguments);
	return CTL_USAGE;
}

/* `sae` or `rule`: the plural is the path. */
int
ctl_entry(const ctl_options *o, const ctl_command *c)
{
	const bool sae = strcmp(c->name, "sae") == 0, adds = strcmp(o->arguments[0], "add") == 0;
	char path[32];
	(void)snprintf(path, sizeof path, "/api/v1/%ss%s", c->name, adds ? "" : "/");
	if (!adds && strcmp(o->arguments[0], "remove") == 0 && o->n_arguments == 2)
		return ctl_send(o, "DELETE", ctl_path(path, o->arguments[1], ""), NULL);
	if (!adds || o->n_arguments < (sae ? 3 : 4))
		return usage(c, o->arguments[0]);
	json_t *body = sae ? sae_body(o) : rule_body(o);
	return body != NULL ? ctl_send(o, "POST", strdup(path), body) : CTL_USAGE;
}
