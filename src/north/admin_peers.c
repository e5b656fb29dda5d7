/* SPDX-License-Identifier: Apache-2.0 */
/* Key managers of other networks, and keys with an ID of their own. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin_internal.h"
#include "qkdgate/log.h"
#include "qkdgate/nearest.h"

#define NAMES_MAX 64
#define LIMIT_PRESET 50
#define LIMIT_MAX 100
#define AFTER_MAX (INT64_MAX / 2)

/* --- peers -------------------------------------------------------------------------- */

static json_t *
patterns_json(const char *const *list, size_t n)
{
	json_t *j = json_array();
	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(j, json_string(list[i]));
	return j;
}

static json_t *
peer_json(qg_admin *a, const qg_config_peer *p)
{
	bool answered = false;
	uint64_t ago_ms = 0;
	const bool called = a->p.ops->peer_reached(a->p.ctx, p->id, &answered, &ago_ms);
	return json_pack("{s:s,s:s,s:s,s:s,s:s,s:s?,s:o,s:b,s:o,s:o}", "id", p->id, "url", p->url, "dialect",
			 p->dialect == QG_DIALECT_V1_1_1 ? "v1.1.1" : "draft-url", "mode",
			 p->mode == QG_PEER_SYNCHRONOUS ? "synchronous" : "asynchronous", "link",
			 p->link == QG_PEER_KXI ? "kxi" : "kxi-prime", "stream", p->stream, "saes",
			 patterns_json(p->saes, p->n_saes), "suspended",
			 qg_directory_peer_suspended(a->p.directory, p->id), "reached",
			 called ? json_boolean(answered) : json_null(), "called_s_ago",
			 called ? json_integer((json_int_t)(ago_ms / 1000)) : json_null());
}

void
qg_admin_on_peers(qg_http_request *http, void *admin)
{
	qg_admin *a = admin;
	json_t *list = json_array();
	for (size_t i = 0; i < a->p.cfg->n_peers; i++)
		(void)json_array_append_new(list, peer_json(a, &a->p.cfg->peers[i]));
	qg_admin_answer(http, 200, json_pack("{s:o}", "peers", list));
}

static void
suspend(qg_http_request *http, qg_admin *a, bool on)
{
	char who[QG_ADMIN_WHO_ROOM];
	const char *id = qg_http_path_part(http, 0), *names[NAMES_MAX];
	if (!qg_admin_take_nothing(http))
		return;
	const qg_suspension_rec rec = {.kind = "peer", .name = id, .other = ""};
	qg_err err = a->p.ops->suspend(a->p.ctx, &rec, on);
	if (err == QG_E_NOTFOUND && !on && qg_directory_peer_home(a->p.directory, id) != NULL)
		err = QG_OK; /* it was not suspended */
	if (err != QG_E_NOTFOUND) {
		qg_admin_who(http, who);
		qg_admin_audit(a, who, on ? "suspend peer" : "resume peer", id, err);
		qg_admin_answer_suspend(http, on ? "suspend-peer" : "resume-peer", on, err);
		return;
	}
	size_t n = 0;
	for (; n < a->p.cfg->n_peers && n < NAMES_MAX; n++)
		names[n] = a->p.cfg->peers[n].id;
	const char *near = qg_nearest(id, names, n);
	qg_admin_answer_error(http, err, "no peer %s%s%s%s", qg_log_safe(id), near != NULL ? ": is " : "",
			      near != NULL ? near : "", near != NULL ? " meant?" : "");
}

void
qg_admin_on_suspend_peer(qg_http_request *http, void *admin)
{
	suspend(http, admin, true);
}

void
qg_admin_on_resume_peer(qg_http_request *http, void *admin)
{
	suspend(http, admin, false);
}

/* --- keys with an ID of their own --------------------------------------------------------- */

static json_t *
transfer_json(const qg_transfer_view *v)
{
	char id[QG_UUID_TEXT];
	json_t *targets = json_array();
	for (size_t i = 0; i < v->n_targets && i < QG_TRANSFER_TARGETS_SHOWN; i++)
		(void)json_array_append_new(targets, json_pack("{s:s,s:s?,s:s}", "sae", v->target[i].sae, "home",
							       v->target[i].home[0] != '\0' ? v->target[i].home : NULL,
							       "state", v->target[i].state));
	qg_uuid_format(&v->id, id);
	return json_pack("{s:I,s:s,s:s,s:s,s:s?,s:I,s:b,s:I,s:I,s:o}", "row", (json_int_t)v->row, "id", id, "state",
			 v->state, "initiator", v->initiator, "origin", v->origin[0] != '\0' ? v->origin : NULL, "bits",
			 (json_int_t)v->size_bytes * 8, "has_key", v->has_value, "age_s", (json_int_t)(v->age_ms / 1000),
			 "expires_in_s", (json_int_t)(v->left_ms / 1000), "targets", targets);
}

typedef struct page {
	json_int_t after, limit;
} page;

static bool
number_of(const char *value, json_int_t least, json_int_t most, json_int_t *out)
{
	char *end = NULL;
	const size_t n = strlen(value);
	const long long v = n > 0 && n < 20 ? strtoll(value, &end, 10) : -1;
	if (value[0] < '0' || value[0] > '9' || end == NULL || *end != '\0' || v < least || v > most)
		return false;
	*out = v;
	return true;
}

static bool
set_after(void *into, const char *value)
{
	return number_of(value, 0, AFTER_MAX, &((page *)into)->after);
}

static bool
set_limit(void *into, const char *value)
{
	return number_of(value, 1, LIMIT_MAX, &((page *)into)->limit);
}

static const qg_admin_argument arguments[] = {
	{"after", set_after, "give the row of a key"},
	{"limit", set_limit, "give a number from 1 to 100"},
};

bool
qg_admin_transfers_page(qg_admin *a, qg_http_request *http, json_t **list, json_t **next)
{
	page p = {.limit = LIMIT_PRESET};
	if (!qg_admin_take_query(http, arguments, sizeof arguments / sizeof arguments[0], &p))
		return false;
	qg_transfer_view *v = calloc((size_t)p.limit, sizeof *v);
	if (v == NULL) {
		qg_admin_answer_error(http, QG_E_NOMEM, "out of memory");
		return false;
	}
	const size_t n = qg_core_view_transfers(a->p.core, p.after, v, (size_t)p.limit);
	*list = json_array();
	for (size_t i = 0; i < n; i++)
		(void)json_array_append_new(*list, transfer_json(&v[i]));
	*next = n == (size_t)p.limit ? json_integer(v[n - 1].row) : json_null();
	free(v);
	return true;
}
