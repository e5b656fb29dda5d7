/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CTL_INTERNAL_H
#define QKDGATE_CTL_INTERNAL_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "qkdgate/error.h"
#include "qkdgate/tls.h"

/* The operator's command: it talks to the admin interface and nothing else.
 *   options.c     the command line
 *   http.c        requests over the Unix socket or HTTPS
 *   table.c       tables for people
 *   views.c       commands that show
 *   acts.c        commands that do
 *   audit.c       the audit log
 *   entries.c     SAEs and rules at run time
 *   doctor.c      the check of a whole node
 *   password.c    lines for the file of passwords
 *   progress.c    a bar on a terminal
 *   completion.c  for the shell */

/* Exit statuses: qkdgatectl(1). */
enum {
	CTL_DONE = 0,
	CTL_FAILED = 1, /* refused, not healthy, or doctor found something */
	CTL_USAGE = 2,
	CTL_UNREACHED = 3,
	CTL_FORBIDDEN = 4
};

typedef struct ctl_place {
	const char *socket; /* or: */
	const char *url;
	qg_tls_files tls;
} ctl_place;

/* An SAE that doctor may ask as: ID,URL,CERTIFICATE,KEY. */
typedef struct ctl_sae {
	char *text; /* holds the others */
	const char *id, *url, *certificate, *key;
} ctl_sae;

typedef struct ctl_options {
	ctl_place place;
	bool json, color, ready;
	unsigned watch_s; /* 0: once */
	unsigned timeout_s;
	unsigned grace_s;
	const char *confirm;
	unsigned lines; /* of the audit log; 0: not given */
	const char *act, *sae, *id, *since;
	const char *after;     /* a row of the transfers */
	const char *from, *to; /* days of the accounting */
	bool csv;
	const char *master_key, *key_ring, *head;
	ctl_sae master, slave;
	const char *command;
	char **arguments;
	int n_arguments;
} ctl_options;

typedef struct ctl_command {
	const char *name;
	const char *arguments; /* for the usage, or "" */
	int least, most;       /* how many */
	const char *help;
	int (*run)(const ctl_options *o, const struct ctl_command *c);
	const char *path;      /* of views */
	const void *view;
} ctl_command;

extern const ctl_command ctl_commands[];
extern const size_t ctl_n_commands;

/* Reads the command line. CTL_DONE: go on; else the status to end with. */
int ctl_read_options(int argc, char **argv, ctl_options *o, bool *end);
void ctl_free_options(ctl_options *o);
void ctl_usage(FILE *out);
extern const char *const ctl_option_names[]; /* NULL ends */

/* One request; *status is the HTTP status, *text the body (freed by the caller
 * with free, after wiping where it may hold key). Tells on standard error what
 * went wrong, but for HTTP statuses: QG_E_IO, QG_E_AUTH, ... */
qg_err ctl_request(const ctl_place *p, unsigned timeout_s, const char *method, const char *path, const char *body,
		   int *status, char **text, size_t *len) QG_CHECKED;

/* The same with a JSON answer, *out the caller's; statuses other than 2xx are told on
 * standard error, and become the exit status that is returned. */
int ctl_ask(const ctl_options *o, const char *method, const char *path, const char *body, json_t **out);
/* The document of a GET even where the status is 503 (health). */
int ctl_ask_health(const ctl_options *o, const char *path, json_t **out);

/* Asks, and says that it is done. Takes path (NULL: no memory) and body (NULL: none). */
int ctl_send(const ctl_options *o, const char *method, char *path, json_t *body);
/* An act without a body: asks, and says that it is done. */
int ctl_post(const ctl_options *o, const char *path);
/* As JSON, on standard output. */
void ctl_print_json(const json_t *what);

/* --- tables ------------------------------------------------------------------- */

typedef enum ctl_tone { TONE_PLAIN, TONE_GOOD, TONE_WARN, TONE_BAD, TONE_HEAD } ctl_tone;
typedef struct ctl_table ctl_table;

ctl_table *ctl_table_new(size_t columns);
/* Adds a cell, row by row; `right`: numbers. */
void ctl_cell(ctl_table *t, ctl_tone tone, bool right, const char *fmt, ...) QG_PRINTF(4, 5);
void ctl_table_print(ctl_table **t, bool color);
/* In a colour, where there is one. */
void ctl_say(bool color, ctl_tone tone, const char *fmt, ...) QG_PRINTF(3, 4);

/* --- progress ----------------------------------------------------------------- */

/* Shows a bar on standard error until its end, where that is a terminal and no JSON
 * is asked for: so much done of a total; 0: how long it takes is not known. False:
 * none is shown. One at a time. */
bool ctl_progress_begin(const ctl_options *o, const char *what, unsigned done, unsigned total);
void ctl_progress_at(unsigned done, const char *what);
/* Takes the bar away, if there is one: before anything is printed. */
void ctl_progress_end(void);

/* --- commands ------------------------------------------------------------------ */

int ctl_show(const ctl_options *o, const ctl_command *c);
int ctl_show_status(const ctl_options *o, const ctl_command *c);
int ctl_show_stream(const ctl_options *o, const ctl_command *c);
int ctl_show_metrics(const ctl_options *o, const ctl_command *c);
int ctl_show_health(const ctl_options *o, const ctl_command *c);
int ctl_show_logs(const ctl_options *o, const ctl_command *c);
int ctl_act(const ctl_options *o, const ctl_command *c);
int ctl_drain(const ctl_options *o, const ctl_command *c);
int ctl_suspend(const ctl_options *o, const ctl_command *c);
int ctl_stream_act(const ctl_options *o, const ctl_command *c);
int ctl_set_log(const ctl_options *o, const ctl_command *c);
int ctl_zeroize(const ctl_options *o, const ctl_command *c);
int ctl_show_transfers(const ctl_options *o, const ctl_command *c);
int ctl_peer(const ctl_options *o, const ctl_command *c);
int ctl_show_accounting(const ctl_options *o, const ctl_command *c);
int ctl_audit(const ctl_options *o, const ctl_command *c);
int ctl_entry(const ctl_options *o, const ctl_command *c);
int ctl_rotate_master_key(const ctl_options *o, const ctl_command *c);
int ctl_doctor(const ctl_options *o, const ctl_command *c);
int ctl_hash_password(const ctl_options *o, const ctl_command *c);
int ctl_completion(const ctl_options *o, const ctl_command *c);

/* The views of views.c, for the table of commands. */
extern const struct ctl_view ctl_view_streams, ctl_view_neighbours, ctl_view_routes, ctl_view_saes,
	ctl_view_certificates, ctl_view_sources, ctl_view_limits, ctl_view_store, ctl_view_transfers, ctl_view_node,
	ctl_view_rules, ctl_view_accounting, ctl_view_peers, ctl_view_alarms;

/* Puts a query argument behind *path, which it owns; nothing for value NULL. False
 * without memory: *path is freed then. */
bool ctl_add_argument(char **path, const char *name, const char *value);
/* Says what an answer other than 2xx says. */
void ctl_tell_refusal(int status, const char *text, size_t len);

/* A path with a name in it, percent-encoded; the caller's to free, NULL without memory. */
char *ctl_path(const char *before, const char *name, const char *after);

#endif
