/* SPDX-License-Identifier: Apache-2.0 */
/* SAEs and rules: those of the file and those made at run time, beside one another. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/log.h"

#define RULE_NAME_MAX 64

/* --- what is there ------------------------------------------------------------------ */

typedef struct added {
	const char *list;
	json_t *names;    /* of those in force, in their order */
	json_t *left_out;
} added;

static void
take_name(const qg_config_entry *e, bool in_force, void *ctx)
{
	const added *a = ctx;
	if (strcmp(e->list, a->list) == 0)
		(void)json_array_append_new(in_force ? a->names : a->left_out, json_string(e->name));
}

json_t *
qg_admin_left_out(qg_admin *a, const char *list, json_t **names)
{
	added found = {.list = list, .names = json_array(), .left_out = json_array()};
	a->p.ops->entries(a->p.ctx, take_name, &found);
	*names = found.names;
	return found.left_out;
}

static json_t *
rule_json(const qg_config_rule *r, json_t *name)
{
	json_t *slaves = json_array();
	for (size_t i = 0; i < r->n_slaves; i++)
		(void)json_array_append_new(slaves, json_string(r->slaves[i]));
	return json_pack("{s:o,s:s,s:s,s:o,s:b,s:I,s:I,s:I,s:I,s:I}", "name", name, "origin",
			 json_is_null(name) ? "file" : "run-time", "master", r->master, "slaves", slaves, "both_ways",
			 r->both_ways, "min_key_bits", (json_int_t)r->min_key_bits, "max_key_bits",
			 (json_int_t)r->max_key_bits, "default_key_bits", (json_int_t)r->default_key_bits, "max_keys",
			 (json_int_t)r->max_keys, "max_extra_slaves", (json_int_t)r->max_extra_slaves);
}

void
qg_admin_on_rules(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	json_t *names = NULL, *list = json_array();
	pthread_mutex_lock(&a->acting); /* names and rules are of one moment */
	json_t *left_out = qg_admin_left_out(a, "policy", &names);
	const qg_config *cfg = qg_directory_config(a->p.directory);
	for (size_t i = 0; i < cfg->n_policy; i++) {
		json_t *name = i < cfg->n_file_policy ? NULL : json_array_get(names, i - cfg->n_file_policy);
		(void)json_array_append_new(list,
					    rule_json(&cfg->policy[i], name != NULL ? json_incref(name) : json_null()));
	}
	pthread_mutex_unlock(&a->acting);
	json_decref(names);
	qg_admin_answer(http, 200, json_pack("{s:o,s:o}", "rules", list, "left_out", left_out));
}

/* --- changes --------------------------------------------------------------------------- */

static void
change(qg_http_request *http, qg_admin *a, const qg_config_entry *e, const char *done)
{
	char who[QG_ADMIN_WHO_ROOM], why[768] = "";
	qg_admin_who(http, who);
	pthread_mutex_lock(&a->acting);
	const qg_err err = a->p.ops->change(a->p.ctx, who, e, why, sizeof why);
	pthread_mutex_unlock(&a->acting);
	if (err == QG_OK)
		qg_admin_answer_done(http, done);
	else
		qg_admin_answer_error(http, err, "%s", why[0] != '\0' ? why : qg_err_text(err));
}

/* Takes body. With spaces, as YAML wants them behind a colon. */
static void
add(qg_http_request *http, qg_admin *a, const char *list, const char *name, json_t *body, const char *done)
{
	char *text = json_dumps(body, JSON_ENSURE_ASCII);
	const qg_config_entry e = {.list = list, .name = name, .text = text};
	if (text != NULL)
		change(http, a, &e, done);
	else
		qg_admin_answer_error(http, QG_E_NOMEM, "out of memory");
	free(text);
}

void
qg_admin_on_add_sae(qg_http_request *http, void *admin)
{
	json_t *body = NULL;
	if (!qg_admin_may_act(http) || !qg_admin_take_body(http, NULL, &body))
		return;
	const char *id = json_string_value(json_object_get(body, "id"));
	if (id != NULL)
		add(http, admin, "saes", id, body, "add-sae");
	else
		qg_admin_answer_error(http, QG_E_INVAL, "id: give the SAE ID");
	json_decref(body);
}

static bool
is_rule_name(const char *name)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-";
	const size_t n = name != NULL ? strlen(name) : 0;
	return n > 0 && n <= RULE_NAME_MAX && strspn(name, plain) == n;
}

/* Its name is for operators; the rest is as in the file. */
void
qg_admin_on_add_rule(qg_http_request *http, void *admin)
{
	json_t *body = NULL;
	if (!qg_admin_may_act(http) || !qg_admin_take_body(http, NULL, &body))
		return;
	json_t *name = json_incref(json_object_get(body, "name"));
	(void)json_object_del(body, "name");
	if (is_rule_name(json_string_value(name)))
		add(http, admin, "policy", json_string_value(name), body, "add-rule");
	else
		qg_admin_answer_error(http, QG_E_INVAL, "name: give at most %d of A-Z a-z 0-9 . _ : -", RULE_NAME_MAX);
	json_decref(name);
	json_decref(body);
}

static void
take_out(qg_http_request *http, qg_admin *a, const char *list, const char *done)
{
	if (!qg_admin_take_nothing(http))
		return;
	const qg_config_entry e = {.list = list, .name = qg_http_path_part(http, 0)};
	change(http, a, &e, done);
}

void
qg_admin_on_remove_sae(qg_http_request *http, void *admin)
{
	take_out(http, admin, "saes", "remove-sae");
}

void
qg_admin_on_remove_rule(qg_http_request *http, void *admin)
{
	take_out(http, admin, "policy", "remove-rule");
}
