/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>
#include <sys/un.h>

#include "config_internal.h"

/* What holds between the options of section `admin`. */

static bool
is_list(const cfg_node *n)
{
	return n != NULL && n->kind == CFG_LIST && n->first != NULL;
}

/* Nobody acts on a gateway without being known to it. */
static void
check_listener(cfg_rules *r, cfg_node *admin)
{
	cfg_node *const listener = qg_cfg_find(admin, "listener");
	cfg_node *const admins = qg_cfg_find(admin, "admins");
	cfg_node *const passwords = qg_cfg_find(admin, "passwords");
	if (listener == NULL && passwords != NULL && !passwords->bad)
		qg_cfg_problem(r->report, passwords, "has no use without listener: give both or none");
	if (listener != NULL && !listener->bad && !is_list(admins) && passwords == NULL)
		qg_cfg_problem(r->report, listener,
			       "has no authentication: give at least one administrator in admins, or passwords");
	else if (listener == NULL && is_list(admins))
		qg_cfg_problem(r->report, admins, "has no use without listener: give both or none");
}

static void
check_socket(cfg_rules *r, cfg_node *admin)
{
	const struct sockaddr_un room;
	const char *const mode = qg_cfg_text(admin, "socket_mode");
	cfg_node *const socket = qg_cfg_find(admin, "socket");
	cfg_node *const group = qg_cfg_find(admin, "socket_group");
	const char *const path = qg_cfg_text(admin, "socket");
	if (path != NULL && strlen(path) >= sizeof room.sun_path)
		qg_cfg_problem(r->report, socket, "has %zu bytes with its folder: a Unix socket's name has at most %zu",
			       strlen(path), sizeof room.sun_path - 1);
	if (group != NULL && !group->bad && mode != NULL && strcmp(mode, "0660") != 0)
		qg_cfg_problem(r->report, group, "has no use with socket_mode 0600: take it out, or give 0660");
	if (group != NULL && !group->bad && socket == NULL)
		qg_cfg_problem(r->report, group, "has no use without socket");
}

static void
check_names(cfg_rules *r, cfg_node *admin)
{
	cfg_node *const first = qg_cfg_entries(admin, "admins");
	for (cfg_node *a = first; a != NULL; a = a->next)
		for (cfg_node *b = first; b != a; b = b->next) {
			const char *const x = qg_cfg_text(a, "name"), *const y = qg_cfg_text(b, "name");
			if (x == NULL || y == NULL || strcmp(x, y) != 0)
				continue;
			qg_cfg_problem(r->report, qg_cfg_find(a, "name"),
				       "%s is already in line %u: give another one", qg_cfg_show(r->report, x),
				       qg_cfg_find(b, "name")->line);
			break;
		}
}

void
qg_cfg_rule_admin(cfg_rules *r)
{
	cfg_node *const admin = qg_cfg_find(r->root, "admin");
	if (admin == NULL || admin->bad || admin->kind != CFG_MAP)
		return;
	check_listener(r, admin);
	check_socket(r, admin);
	check_names(r, admin);
	qg_cfg_unique_matches(r, qg_cfg_find(admin, "admins"));
}
