/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's command: qkdgatectl(1). */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "qkdgatectl/ctl_internal.h"

#include "qkdgate/log.h"
#include "qkdgate/nearest.h"
#include "qkdgate/secret.h"

#define API "/api/v1/"

const ctl_command ctl_commands[] = {
	{"status", "", 0, 0, "node, streams, neighbours and routes at a glance", ctl_show_status, API "status", NULL},
	{"node", "", 0, 0, "the gateway: version, uptime, health", ctl_show, API "node", &ctl_view_node},
	{"streams", "", 0, 0, "the key streams", ctl_show, API "streams", &ctl_view_streams},
	{"stream", "NAME", 1, 1, "all of one key stream", ctl_show_stream, NULL, NULL},
	{"sources", "", 0, 0, "try the sources of the streams", ctl_show, API "sources", &ctl_view_sources},
	{"alarms", "", 0, 0, "what is wrong, and what to do", ctl_show, API "alarms", &ctl_view_alarms},
	{"neighbours", "", 0, 0, "the neighbours", ctl_show, API "neighbours", &ctl_view_neighbours},
	{"routes", "", 0, 0, "routes of the virtual streams", ctl_show, API "routes", &ctl_view_routes},
	{"transfers", "", 0, 0, "keys with an ID of their own", ctl_show_transfers, API "transfers", &ctl_view_transfers},
	{"peers", "", 0, 0, "key managers of other networks", ctl_show, API "peers", &ctl_view_peers},
	{"saes", "", 0, 0, "the SAEs and what they did", ctl_show, API "saes", &ctl_view_saes},
	{"rules", "", 0, 0, "which SAEs may share keys", ctl_show, API "rules", &ctl_view_rules},
	{"accounting", "", 0, 0, "who got how much, by day", ctl_show_accounting, API "accounting", &ctl_view_accounting},
	{"limits", "", 0, 0, "whose requests exceeded a rate", ctl_show, API "limits", &ctl_view_limits},
	{"certificates", "", 0, 0, "certificates, and when they expire", ctl_show, API "certificates",
	 &ctl_view_certificates},
	{"store", "", 0, 0, "database, anchor, key ring, audit log", ctl_show, API "store", &ctl_view_store},
	{"audit", "[verify|rotate] [FILE...]", 0, 10000, "the audit log: show, verify, go on in another file", ctl_audit,
	 NULL, NULL},
	{"logs", "", 0, 0, "the log: levels, where it goes, lines lost", ctl_show_logs, API "logs", NULL},
	{"health", "", 0, 0, "whether it is alive; with --ready, can deliver", ctl_show_health, NULL, NULL},
	{"metrics", "", 0, 0, "the metrics, as Prometheus reads them", ctl_show_metrics, "/metrics", NULL},
	{"doctor", "", 0, 0, "check the node end to end; says what to do", ctl_doctor, NULL, NULL},
	{"reload", "", 0, 0, "take configuration and certificates anew", ctl_act, API "reload", NULL},
	{"drain", "", 0, 0, "issue no more keys, then stop", ctl_drain, API "drain", NULL},
	{"reopen", "STREAM", 1, 1, "open a key stream anew", ctl_stream_act, NULL, NULL},
	{"delete-keys", "STREAM", 1, 1, "destroy the keys of a stream", ctl_stream_act, NULL, NULL},
	{"suspend", "SAE [OTHER]", 1, 2, "no keys for an SAE, or for a pair", ctl_suspend, NULL, NULL},
	{"resume", "SAE [OTHER]", 1, 2, "keys again", ctl_suspend, NULL, NULL},
	{"sae", "add ID KIND=NAME [applications=URI,...] | remove ID", 2, 32, "an SAE at run time", ctl_entry, NULL, NULL},
	{"rule", "add NAME MASTER SLAVE,... [OPTION=VALUE...] | remove NAME", 2, 32, "a policy rule at run time",
	 ctl_entry, NULL, NULL},
	{"suspend-peer", "PEER", 1, 1, "no keys to or from another network", ctl_peer, NULL, NULL},
	{"resume-peer", "PEER", 1, 1, "keys again", ctl_peer, NULL, NULL},
	{"log", "[MODULE] LEVEL", 1, 2, "set a log level; default takes a module's back", ctl_set_log, API "logs", NULL},
	{"reopen-log", "", 0, 0, "open the log's file anew, after it was moved away", ctl_act, API "logs/reopen", NULL},
	{"rotate-master-key", "[FILE]", 0, 1, "take another master key, while all goes on", ctl_rotate_master_key,
	 API "master-key/rotate", NULL},
	{"zeroize", "", 0, 0, "destroy all key material, for good", ctl_zeroize, API "zeroize", NULL},
	{"hash-password", "NAME [read_only]", 1, 2, "make a line for admin.passwords.file", ctl_hash_password, NULL, NULL},
	{"completion", "", 0, 0, "print the completion for bash", ctl_completion, NULL, NULL},
};
const size_t ctl_n_commands = sizeof ctl_commands / sizeof ctl_commands[0];

static const ctl_command *
find_command(const char *name)
{
	const char *names[sizeof ctl_commands / sizeof ctl_commands[0]];
	for (size_t i = 0; i < ctl_n_commands; i++) {
		if (strcmp(ctl_commands[i].name, name) == 0)
			return &ctl_commands[i];
		names[i] = ctl_commands[i].name;
	}
	const char *near = qg_nearest(name, names, ctl_n_commands);
	fprintf(stderr, "qkdgatectl: unknown command %s%s%s%s\n", qg_log_safe(name), near != NULL ? ": is " : "",
		near != NULL ? near : "", near != NULL ? " meant?" : "; see qkdgatectl --help");
	return NULL;
}

/* Again and again, each time on a cleared screen, until it is interrupted. */
static int
watch(const ctl_options *o, const ctl_command *c)
{
	const struct timespec t = {.tv_sec = o->watch_s};
	for (;;) {
		if (o->color)
			printf("\033[H\033[2J");
		const int rc = c->run(o, c);
		if (fflush(stdout) != 0 || rc == CTL_USAGE || rc == CTL_FORBIDDEN)
			return rc;
		(void)nanosleep(&t, NULL);
	}
}

static int
run(const ctl_options *o)
{
	const ctl_command *c = find_command(o->command);
	if (c == NULL)
		return CTL_USAGE;
	if (o->n_arguments < c->least || o->n_arguments > c->most) {
		fprintf(stderr, "usage: qkdgatectl %s %s\n", c->name, c->arguments);
		return CTL_USAGE;
	}
	return o->watch_s > 0 ? watch(o, c) : c->run(o, c);
}

int
main(int argc, char **argv)
{
	ctl_options o;
	bool end = false;
	signal(SIGPIPE, SIG_IGN);
	qg_log_init(QG_LOG_ERROR, QG_LOG_TEXT);
	int rc = ctl_read_options(argc, argv, &o, &end);
	if (rc == CTL_DONE && !end) {
		if (qg_secret_init() == QG_OK) {
			rc = run(&o);
			qg_secret_fini();
		} else {
			fprintf(stderr, "qkdgatectl: no locked memory; raise the limit (ulimit -l)\n");
			rc = CTL_FAILED;
		}
	}
	ctl_free_options(&o);
	return rc;
}
