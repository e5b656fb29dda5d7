/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "config_internal.h"

/* What holds between the options of section `log`. */

void
qg_cfg_rule_log(cfg_rules *r)
{
	cfg_node *const log = qg_cfg_find(r->root, "log");
	cfg_node *const file = qg_cfg_find(log, "file");
	cfg_node *const socket = qg_cfg_find(log, "journal_socket");
	const char *const to = qg_cfg_text(log, "to");
	if (to == NULL)
		return;
	if (strcmp(to, "file") == 0 && file == NULL)
		qg_cfg_missing(r->report, log, "file", "is missing: give one, or another place in to");
	else if (strcmp(to, "file") != 0 && file != NULL && !file->bad)
		qg_cfg_problem(r->report, file, "has no use with to: %s: take it out, or give to: file", to);
	if (strcmp(to, "journal") != 0 && socket != NULL && !socket->bad && !socket->preset)
		qg_cfg_problem(r->report, socket, "has no use with to: %s: take it out, or give to: journal", to);
}
