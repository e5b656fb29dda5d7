/* SPDX-License-Identifier: Apache-2.0 */
/* How key comes from a source, and where modules push it. */
#include <string.h>

#include "config_internal.h"

static void
check_mode(cfg_rules *r, const cfg_node *source, const qg_etsi004_profile *profile)
{
	const char *const mode = qg_cfg_text(source, "mode");
	if (mode == NULL)
		return;
	const unsigned bit = strcmp(mode, "push") == 0 ? QG_ETSI004_PUSH : QG_ETSI004_PULL;
	if ((profile->modes & bit) == 0)
		qg_cfg_problem(r->report, qg_cfg_find(source, "mode"), "%s has no %s: give %s", profile->name,
			       mode, bit == QG_ETSI004_PUSH ? "pull" : "push");
}

/* Whether it pushes over connections of its own, with all that this needs. */
static bool
check_pusher(cfg_rules *r, const cfg_node *source, const qg_etsi004_profile *profile)
{
	cfg_node *const pusher = qg_cfg_find(source, "pusher");
	if (profile->push != NULL && pusher == NULL)
		qg_cfg_missing(r->report, source, "pusher",
			       "is missing: give the name in the module's certificate, %s needs it",
			       profile->name);
	else if (profile->push == NULL && pusher != NULL && !pusher->bad)
		qg_cfg_problem(r->report, pusher, "has no use with %s: take it out", profile->name);
	return profile->push != NULL;
}

void
qg_cfg_rule_push(cfg_rules *r)
{
	const cfg_node *const list = qg_cfg_find(r->root, "streams");
	cfg_node *const listener = qg_cfg_find(r->root, "push_listener");
	bool used = false;
	if (list == NULL || list->kind != CFG_LIST)
		return;
	for (const cfg_node *stream = list->first; stream != NULL; stream = stream->next) {
		const cfg_node *const source = qg_cfg_find(stream, "source");
		const char *const name = qg_cfg_text(source, "profile");
		const qg_etsi004_profile *const profile = name == NULL ? NULL : qg_etsi004_profile_named(name);
		if (profile == NULL)
			continue;
		check_mode(r, source, profile);
		if (!check_pusher(r, source, profile))
			continue;
		used = true;
		if (listener == NULL)
			qg_cfg_problem(r->report, qg_cfg_find(source, "profile"),
				       "%s needs push_listener, which is missing: give that section", name);
	}
	if (listener != NULL && !used && !listener->bad)
		qg_cfg_problem(r->report, listener, "has no use without a stream of profile http-push: take it out");
}
