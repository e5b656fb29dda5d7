/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CONFIG_INTERNAL_H
#define QKDGATE_CONFIG_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "qkdgate/config.h"
#include "qkdgate/error.h"

/* The parts of the configuration. A file goes through them in this order:
 *
 *   config_yaml.c    bytes -> tree of nodes with line numbers (libyaml)
 *   config_env.c     ${VARIABLE} in values
 *   config_added.c   entries that were made at run time
 *   config_check.c   each value against the schema; defaults are put in
 *   config_value.c   the forms of single values
 *   config_rules.c   what holds between options (also config_rules_*.c)
 *   config_yaml.c    complete tree -> struct qg_config (libcyaml)
 *
 * The tree in between lets every problem be reported in one go, with its line,
 * where libcyaml alone stops at the first. */

#define QG_CFG_FILE_MAX ((size_t)16 * 1024 * 1024)
#define QG_CFG_NODES_MAX 2000000 /* values in one file */
#define QG_CFG_DEPTH_MAX 12     /* the schema needs 7 */
#define QG_CFG_PATH_ROOM 512    /* an option path, cut off where longer */

/* --- memory: everything of one owner, freed at once (config_mem.c) ------- */

typedef struct cfg_mem {
	struct cfg_block *first;
} cfg_mem;

/* Zeroed; NULL when there is none, or when p was NULL and n 0. */
void *qg_cfg_alloc(cfg_mem *m, size_t n);
/* As realloc; n 0 frees. What is added is not zeroed. */
void *qg_cfg_resize(cfg_mem *m, void *p, size_t n);
char *qg_cfg_copy(cfg_mem *m, const char *text, size_t n);
char *qg_cfg_format(cfg_mem *m, const char *fmt, ...) QG_PRINTF(2, 3);
void qg_cfg_mem_free(cfg_mem *m);

/* --- the tree ------------------------------------------------------------- */

typedef enum cfg_kind { CFG_SCALAR, CFG_LIST, CFG_MAP } cfg_kind;

typedef struct cfg_node {
	cfg_kind kind;
	bool quoted;          /* a scalar in quotes */
	bool bad;             /* reported: rules leave it alone */
	bool preset;          /* put in as default */
	unsigned line;        /* from 1; of its name where it has one */
	size_t index;         /* in its list */
	const char *name;     /* in a map, else NULL */
	const char *text;     /* of a scalar, NUL-terminated */
	const char *raw;      /* what the file says where text has variables' values, else NULL */
	struct cfg_node *parent, *first, *last, *next;
} cfg_node;

/* A new node at the end of parent (NULL: the root). NULL without memory. */
cfg_node *qg_cfg_node(cfg_mem *m, cfg_node *parent, cfg_kind kind, const char *name, unsigned line);
/* The member of a map, NULL when absent or map is no map. */
cfg_node *qg_cfg_find(const cfg_node *map, const char *name);
/* Its text; NULL when absent, not a scalar or reported. */
const char *qg_cfg_text(const cfg_node *map, const char *name);
/* Whether it is a good number, which goes to *out. */
bool qg_cfg_number(const cfg_node *map, const char *name, uint64_t *out);

/* --- the problems --------------------------------------------------------- */

typedef struct cfg_report {
	const char *file;
	cfg_mem *mem;
	struct cfg_problem *problems;
	size_t n, room;
	size_t unshown; /* beyond the most that is listed */
	bool nomem;
	const qg_config_entry *added; /* entries of no file; their nodes' line is QG_CFG_ADDED + i */
	size_t n_added;
} cfg_report;

#define QG_CFG_ADDED 0x40000000u

/* Reports the node and marks it as bad. */
void qg_cfg_problem(cfg_report *r, cfg_node *node, const char *fmt, ...) QG_PRINTF(3, 4);
/* Reports an option that is not there. */
void qg_cfg_missing(cfg_report *r, const cfg_node *map, const char *name, const char *fmt, ...)
	QG_PRINTF(4, 5);
/* Reports what has no node; option is a fixed word. */
void qg_cfg_problem_at(cfg_report *r, unsigned line, const char *option, const char *fmt, ...)
	QG_PRINTF(4, 5);
/* The k-th that was reported stands elsewhere. */
void qg_cfg_problem_moved(cfg_report *r, size_t k, unsigned line);
/* Prints all by line; without memory, for what err tells, only that. */
void qg_cfg_print_problems(cfg_report *r, qg_err err, FILE *out);
/* "line 12", or what an entry of no file is called; in report's memory. */
const char *qg_cfg_where(cfg_report *r, unsigned line);
/* A text from the file in quotes, cut and made printable; in report's memory. */
const char *qg_cfg_show(cfg_report *r, const char *text);

/* --- the schema ------------------------------------------------------------ */

typedef enum cfg_type {
	CFG_SECTION,     /* a map with the options of `fields` */
	CFG_ENTRIES,     /* a list of such maps */
	CFG_PATTERNS,    /* a list of patterns */
	CFG_NAMES,       /* a list of KME IDs */
	CFG_UINT,
	CFG_BOOL,
	CFG_CHOICE,      /* one of `choices` */
	CFG_TEXT,        /* UTF-8 without control characters */
	CFG_TOKEN,       /* printable ASCII without space */
	CFG_NAME,        /* that without quote, backslash and star */
	CFG_PATTERN,     /* that with stars */
	CFG_PATH,
	CFG_SECRET_PATH, /* or secret:NAME */
	CFG_KEY_PATH,    /* or secret:NAME or credential:NAME */
	CFG_LISTEN,      /* ADDRESS:PORT, the port at `also` */
	CFG_ENDPOINT,    /* HOST:PORT, the port at `also` */
	CFG_URL,         /* https://HOST:PORT */
	CFG_HTTPS,       /* https://HOST[:PORT][/PATH] */
	CFG_UUID,
	CFG_FINGERPRINT,
	CFG_TYPES
} cfg_type;

typedef struct cfg_choice {
	const char *name; /* NULL ends a table */
	int value;
} cfg_choice;

typedef struct cfg_option {
	const char *name;    /* NULL ends a table */
	cfg_type type;
	bool required;
	bool one_of;         /* section: exactly one of its options is given */
	bool live;           /* a reload puts it in force; with a section or list: all of it */
	bool marked;         /* absent without defaults; a bool at `also` tells that it is there */
	size_t offset;       /* in the struct of the table */
	size_t also;         /* list: its count; endpoints: the port */
	size_t size;         /* of the member, of an entry of a list */
	uint64_t min, max;   /* number; length of a text in bytes; entries of a list */
	uint64_t step;       /* number: a multiple of it, 0: any */
	const char *preset;  /* default; NULL: none */
	const char *note;    /* reference: what holds when absent */
	const char *unit;
	const cfg_choice *choices;
	const struct cfg_option *fields;
	const char *help;
} cfg_option;

#define QG_CFG_OPTIONS_MAX 32 /* in one table */

extern const cfg_option qg_cfg_schema[];

/* --- rules between options -------------------------------------------------- */

typedef struct cfg_rules {
	cfg_report *report;
	cfg_node *root;
} cfg_rules;

/* Good values, sorted by text, then by line. */
typedef struct cfg_names {
	cfg_node **v;
	size_t n;
} cfg_names;

/* Room for `most` of them: v NULL without memory, which is reported. */
cfg_names qg_cfg_names_new(cfg_rules *r, size_t most);
void qg_cfg_names_sort(cfg_names *all);
/* Those of `option` of all entries of the list `section`. */
cfg_names qg_cfg_names_of(cfg_rules *r, const char *section, const char *option);
bool qg_cfg_has_name(const cfg_names *all, const char *text);
/* The entries of the list at that name; NULL when there is none. */
cfg_node *qg_cfg_entries(const cfg_node *map, const char *name);

/* No two entries of the list share the name of their `certificate`. */
void qg_cfg_unique_matches(cfg_rules *r, const cfg_node *list);

/* What makes an admin interface one that is safe (config_rules_admin.c). */
void qg_cfg_rule_admin(cfg_rules *r);

/* What other networks ask of peers, listener and streams (config_rules_peers.c). */
void qg_cfg_rule_peers(cfg_rules *r);

/* What relaying asks of streams and topology (config_rules_relay.c). */
void qg_cfg_rule_relay(cfg_rules *r);
/* Of the interface for applications (config_rules_apps.c). */
void qg_cfg_rule_apps(cfg_rules *r);
/* Sources that push, and where (config_rules_push.c). */
void qg_cfg_rule_push(cfg_rules *r);
/* Where the log goes (config_rules_log.c). */
void qg_cfg_rule_log(cfg_rules *r);

/* A network of nodes 0 .. nodes - 1 and links both ways, for the question how
 * many paths it has (config_graph.c). NULL without memory. */
typedef struct cfg_graph cfg_graph;
cfg_graph *qg_cfg_graph_new(cfg_mem *m, size_t nodes, size_t links);
void qg_cfg_graph_link(cfg_graph *g, size_t a, size_t b);
/* How many paths, at most `most`, share no node but their ends; *hops: nodes
 * between the ends on the shortest. */
unsigned qg_cfg_graph_paths(cfg_graph *g, size_t from, size_t to, unsigned most, size_t *hops);

/* --- the passes ------------------------------------------------------------ */

/* What a type is called and how one value of it is checked and brought into
 * the form that the struct takes (config_value.c). */
typedef struct cfg_checker {
	cfg_report *report;
	cfg_mem *mem;       /* of the tree */
	const char *folder; /* of the configuration file, absolute */
} cfg_checker;

typedef struct cfg_value_type {
	const char *what; /* "a whole number" */
	void (*check)(cfg_checker *c, const cfg_option *o, cfg_node *n);
} cfg_value_type;

extern const cfg_value_type qg_cfg_types[CFG_TYPES];

/* Reads the whole file. QG_E_IO, QG_E_PARSE (too large), reported. */
qg_err qg_cfg_read(cfg_report *r, cfg_mem *m, char **text, size_t *len) QG_CHECKED;
/* Makes the tree. QG_E_PARSE when it could not be made to its end. */
qg_err qg_cfg_parse(cfg_report *r, cfg_mem *m, const char *text, size_t len, cfg_node **root) QG_CHECKED;
/* Puts the values of variables into all values below the node. */
void qg_cfg_expand(cfg_report *r, cfg_node *node);
/* Puts the report's added entries into their lists (config_added.c). QG_E_PARSE, reported. */
qg_err qg_cfg_graft(cfg_report *r, cfg_node *root) QG_CHECKED;
/* How many of them go into that list. */
size_t qg_cfg_grafts(const cfg_report *r, const char *list);
void qg_cfg_check(cfg_checker *c, cfg_node *root);
void qg_cfg_check_rules(cfg_report *r, cfg_node *root);
/* Puts in the defaults that are taken from other options. */
qg_err qg_cfg_complete(cfg_mem *m, cfg_node *root) QG_CHECKED;
/* Fills the struct from a tree without problems; strings and lists go to m. */
qg_err qg_cfg_bind(cfg_report *r, const cfg_node *root, cfg_mem *m, qg_config *out) QG_CHECKED;

#endif
