/* SPDX-License-Identifier: Apache-2.0 */
/* What holds between the options for applications of ETSI GS QKD 004. */
#include <string.h>

#include "config_internal.h"

static void
rule_address(cfg_rules *r, cfg_node *listener, const char *other_name)
{
	const cfg_node *const other = qg_cfg_find(r->root, other_name);
	const char *const host = qg_cfg_text(listener, "listen"), *const port = qg_cfg_text(listener, "listen port");
	const char *const other_host = qg_cfg_text(other, "listen");
	const char *const other_port = qg_cfg_text(other, "listen port");
	if (host == NULL || port == NULL || other_host == NULL || other_port == NULL)
		return;
	if (strcmp(host, other_host) == 0 && strcmp(port, other_port) == 0)
		qg_cfg_problem(r->report, qg_cfg_find(listener, "listen"),
			       "is the address of %s: give another address or port", other_name);
}

/* Plain TCP tells nothing of who is there: the configuration does. */
static void
rule_plain(cfg_rules *r, cfg_node *listener)
{
	const char *const sae = qg_cfg_text(listener, "plain_sae");
	if (sae == NULL)
		return;
	const cfg_names ids = qg_cfg_names_of(r, "saes", "id");
	if (ids.v != NULL && !qg_cfg_has_name(&ids, sae))
		qg_cfg_problem(r->report, qg_cfg_find(listener, "plain_sae"), "is no id of saes");
}

static void
rule_most(cfg_rules *r, const char *option, const char *most_option)
{
	uint64_t value, most;
	cfg_node *const section = qg_cfg_find(r->root, "app_streams");
	if (qg_cfg_number(section, option, &value) && qg_cfg_number(section, most_option, &most) && value > most)
		qg_cfg_problem(r->report, qg_cfg_find(section, option), "is above app_streams.%s", most_option);
}

void
qg_cfg_rule_apps(cfg_rules *r)
{
	cfg_node *const listener = qg_cfg_find(r->root, "app_listener");
	rule_address(r, listener, "sae_listener");
	rule_address(r, listener, "kms_listener");
	rule_plain(r, listener);
	rule_most(r, "ttl_s", "max_ttl_s");
	rule_most(r, "timeout_ms", "max_timeout_ms");
}
