/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_CONFIG_H
#define QKDGATE_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "qkdgate/error.h"
#include "qkdgate/etsi004.h"
#include "qkdgate/log.h"
#include "qkdgate/tls.h"

/* The configuration file as an immutable struct. One schema in config.c makes
 * the parser, the checks, the defaults and docs/configuration.md. Relative
 * file names are taken from the folder of the configuration file. Absent
 * optional strings are NULL. Patterns: `*` stands for any run of characters,
 * everything else for itself. */

typedef struct qg_config_listener {
	const char *address; /* option `listen`, "ADDRESS:PORT" or "[V6]:PORT" */
	unsigned port;
	qg_tls_files tls;
	unsigned threads;          /* 0: one per core */
	unsigned max_connections;
	unsigned ticket_key_s;
	unsigned max_per_address;
	unsigned address_handshakes_per_s;
	unsigned idle_timeout_s;
} qg_config_listener;

typedef struct qg_config_sae {
	const char *id;
	qg_tls_match match;  /* option `certificate`: {uri|dns|cn|fingerprint: ...} */
	const char *const *applications; /* URIs, exact or patterns, that it may call itself
					    over ETSI GS QKD 004 */
	size_t n_applications;
	const char *const *push;         /* those of them that key is pushed to */
	size_t n_push;
	const char *push_to;             /* https://HOST:PORT, where http-push goes; NULL: nowhere */
} qg_config_sae;

/* At which KME a remote SAE lives. First match rules. */
typedef struct qg_config_place {
	const char *sae; /* exact or pattern */
	const char *kme; /* option `kme`, or `border` */
	bool border;     /* it lives in another network, which kme hands keys to */
	const char *const *applications; /* URIs, exact or patterns, of its applications */
	size_t n_applications;
} qg_config_place;

/* Section `app_listener`: ETSI GS QKD 004 for applications. */
typedef struct qg_config_app_listener {
	bool present;              /* false: there is none */
	qg_config_listener at;
	const char *plain_sae;     /* SAE that plain TCP connections act for; NULL: TLS only */
} qg_config_app_listener;

/* Section `app_streams`: the key streams of applications. */
typedef struct qg_config_app_streams {
	uint32_t opens_per_s;      /* OPEN_CONNECT of one SAE; 0: no limit */
	uint32_t per_sae;          /* streams of one SAE at a time */
	uint32_t held_bytes;       /* of one stream */
	uint32_t max_bps;          /* most that is granted */
	uint32_t promise_bps;      /* most that min_bps of all streams towards one KME promise; 0:
				      what was measured */
	uint32_t ttl_s, max_ttl_s;
	uint32_t timeout_ms, max_timeout_ms;
	uint32_t idle_s;           /* a stream that nobody asks for ends */
} qg_config_app_streams;

typedef struct qg_config_neighbour {
	const char *id;      /* its KME ID */
	const char *url;     /* https://host:port, no path */
	qg_tls_match match;  /* option `certificate` */
	const char *const *learn; /* patterns of SAE IDs that it may say live there */
	size_t n_learn;           /* 0: nothing is learned from it (default) */
} qg_config_neighbour;

typedef enum qg_stream_direction {
	QG_DIRECTION_OUTBOUND, /* we own its chunks */
	QG_DIRECTION_INBOUND,  /* the neighbour owns them */
	QG_DIRECTION_SHARED    /* segments alternate */
} qg_stream_direction;

/* QG_PROFILE_BIN_A and so on: places in the list of etsi004.h. */
#define QG_ETSI004_ENUM(id, table, name) QG_PROFILE_##id,
typedef enum qg_source_profile { QG_ETSI004_PROFILES(QG_ETSI004_ENUM) QG_PROFILE_COUNT } qg_source_profile;
#undef QG_ETSI004_ENUM

/* How the key of a source comes: 0, by default, as the profile can, and asked
 * for where it can both. */
typedef enum qg_source_mode {
	QG_MODE_BY_PROFILE,
	QG_MODE_PULL = QG_ETSI004_PULL,
	QG_MODE_PUSH = QG_ETSI004_PUSH
} qg_source_mode;

typedef struct qg_config_source {
	qg_source_profile profile; /* by its name */
	qg_source_mode mode;
	bool has_pusher;           /* section `pusher` is there */
	qg_tls_match pusher;       /* the certificate of the module that pushes */
	const char *host;          /* option `address`, "HOST:PORT" */
	unsigned port;
	bool tls;                  /* option `transport`: "tls" (default) or "tcp" */
	qg_tls_files files;        /* with tls */
	const char *server_name;   /* name in its certificate; default: host */
	const char *source_uri;    /* the URIs of OPEN_CONNECT */
	const char *destination_uri;
	const char *ksid;          /* predefined KSID, or NULL */
	uint32_t max_bps, min_bps, jitter_bps, priority, timeout_ms, ttl_s;
	const char *mimetype;      /* "application/json", or "" for no metadata */
} qg_config_source;

/* One route of a virtual stream: the KMEs in between, in order. */
typedef struct qg_config_route {
	const char *const *via; /* none: the direct link */
	size_t n_via;
} qg_config_route;

/* Section `relay` of a virtual stream. Where the keys are drawn is for the
 * outbound end, as are the routes. */
typedef struct qg_config_relay {
	const char *random;       /* file or device the chunks are read from; NULL: the kernel's */
	uint32_t paths;           /* node-disjoint paths, a share on each (default 1) */
	bool fewer_paths;         /* go on with fewer where so many cannot be had */
	uint32_t max_hops;        /* most trusted nodes in between (default 14) */
	const qg_config_route *routes; /* static; none: found in the topology */
	size_t n_routes;
} qg_config_relay;

typedef struct qg_config_stream {
	const char *name;          /* the same at both ends */
	const char *neighbour;     /* virtual: the KME at the far end */
	qg_stream_direction direction; /* virtual: not SHARED */
	uint32_t chunk_size;       /* bytes */
	uint32_t segment_chunks;
	bool relayed;              /* virtual: has the section `relay` instead of `source` */
	qg_config_source source;
	qg_config_relay relay;
	/* Of what this gateway owns of it: key kept for relaying and for its own
	 * messages, 0: none; and its part of the segments while both this and the
	 * applications' pool are short. */
	uint32_t node_chunks;
	uint32_t node_percent;
} qg_config_stream;

/* --- other operators' key managers (ETSI GS QKD 020, docs/interworking.md) ---- */

typedef enum qg_peer_dialect {
	QG_DIALECT_V1_1_1,   /* "v1.1.1" */
	QG_DIALECT_DRAFT_URL /* "draft-url": the SAE IDs stand in the path; answered in the same connection */
} qg_peer_dialect;

typedef enum qg_peer_mode {
	QG_PEER_ASYNCHRONOUS, /* outcomes come to our callback */
	QG_PEER_SYNCHRONOUS   /* they come with the answer */
} qg_peer_mode;

typedef enum qg_peer_link {
	QG_PEER_KXI_PRIME, /* same protected place: values over TLS alone */
	QG_PEER_KXI        /* at a distance: values masked with key of a QKD stream */
} qg_peer_link;

/* Before the ID of a peer where a KME ID stands otherwise; no KME ID begins so. */
#define QG_PEER_PREFIX "kxi:"

/* A key manager of another network. Strings compare byte for byte. */
typedef struct qg_config_peer {
	const char *id;               /* of this configuration only; no message has it */
	const char *url;              /* https://host:port, without a path */
	qg_tls_match client;          /* option `certificate`: of its calls */
	qg_tls_match server;          /* option `server_certificate`: of its answers; default: the same */
	const char *callback_url;     /* its own, the only one accepted from it; NULL: none is */
	const char *our_callback_url; /* given to it; NULL when sending is synchronous or by draft-url */
	qg_peer_dialect dialect;      /* of sending; both are received */
	qg_peer_mode mode;            /* of sending in v1.1.1 */
	bool draft_acks;              /* its acks may have the form of draft 0.4.1 */
	qg_peer_link link;
	const char *stream;           /* kxi: a stream of a link that this gateway owns (or half of it) */
	bool unprotected;             /* kxi without a stream, on purpose */
	uint32_t extension_pen;       /* of the names of the project's own extensions */
	const char *const *saes;      /* exact or patterns: behind it */
	size_t n_saes;
	const char *const *reach;     /* exact or patterns: SAEs that it may bring keys for */
	size_t n_reach;
	uint32_t max_keys;            /* per request, of both directions */
	uint32_t requests_per_s;      /* 0: no limit */
	uint32_t outstanding_keys;    /* brought by it and not yet settled */
	uint32_t timeout_ms;          /* one call */
	uint32_t ack_timeout_ms;      /* from sending keys to the last outcome; then they are voided */
} qg_config_peer;

/* Section `topology`, list `links`: every link of the network that routes may
 * use, this gateway's own included. */
typedef struct qg_config_link {
	const char *a, *b; /* KME IDs */
	uint32_t cost;     /* 1 to 1000 */
} qg_config_link;

typedef struct qg_config_rule {
	const char *master;        /* exact or pattern */
	const char *const *slaves; /* exact or patterns */
	size_t n_slaves;
	bool both_ways;            /* also with the roles exchanged (default) */
	uint32_t min_key_bits, max_key_bits, default_key_bits;
	uint32_t max_keys;         /* per request */
	uint32_t max_extra_slaves; /* additional_slave_SAE_IDs */
} qg_config_rule;

/* Who may use the admin interface over HTTPS, by certificate. */
typedef struct qg_config_admin_user {
	const char *name;    /* for the audit log */
	qg_tls_match match;  /* option `certificate` */
	bool read_only;      /* may look, not act */
} qg_config_admin_user;

/* Section `admin.passwords`: administrators who sign in at the dashboard. */
typedef struct qg_config_passwords {
	const char *file;      /* passwords.h; NULL: nobody does */
	uint32_t idle_s;       /* a session ends when nobody was there for this time, */
	uint32_t session_s;    /* and after this one */
	uint32_t max_sessions;
	uint32_t attempts;     /* in a row, of an address and of an account */
	uint32_t attempt_s;    /* and another one after this time */
} qg_config_passwords;

typedef enum qg_zeroize_signal { QG_ZEROIZE_NO_SIGNAL, QG_ZEROIZE_USR1, QG_ZEROIZE_USR2 } qg_zeroize_signal;

/* Section `admin`: for operators and their tools. */
typedef struct qg_config_admin {
	bool given;
	const char *socket;       /* Unix socket, or NULL */
	unsigned socket_mode;     /* 0600 or 0660 */
	const char *socket_group; /* its group, or NULL: that of the process */
	bool has_listener;
	qg_config_listener listener;
	const qg_config_admin_user *users; /* option `admins` */
	size_t n_users;
	bool has_passwords;
	qg_config_passwords passwords;
	bool has_scrape;          /* section `scrape`: health and metrics for anybody */
	const char *scrape_address;
	unsigned scrape_port;
	bool scrape_saes;         /* with SAE IDs in the metrics */
	qg_zeroize_signal zeroize_signal;
	const char *zeroize_file; /* the gateway zeroizes once it is there; or NULL */
} qg_config_admin;

typedef struct qg_config {
	const char *kme_id;

	qg_config_listener sae;    /* section `sae_listener`: ETSI GS QKD 014 */
	qg_config_listener kms;    /* section `kms_listener`: the neighbours */
	qg_config_app_listener app_listener;
	qg_config_app_streams app_streams;
	bool has_push;             /* section `push_listener` is there */
	qg_config_listener push;   /* where QKD modules push key (profile http-push) */
	qg_tls_files kms_client;   /* section `kms_client`: towards the neighbours;
				      default: the files of kms_listener */
	qg_config_admin admin;
	qg_config_listener kxi;    /* section `kxi_listener`: other networks; address NULL: absent */
	qg_tls_files kxi_client;   /* section `kxi_client`: towards them; default: the
				      files of kxi_listener */
	/* section `store` */
	const char *database;
	const char *anchor;
	const char *master_key;    /* see seal.h */
	const char *key_ring;
	uint32_t key_ring_rotate_s;
	uint32_t flush_ms;         /* consumed key leaves the disk after this */
	uint32_t accounting_days;  /* kept; 0: all */

	/* section `audit`, `log` */
	const char *audit_file;
	uint32_t audit_rotate_mib; /* 0: never */
	qg_log_level log_level;
	qg_log_format log_format;
	qg_log_to log_to;
	const char *log_file;       /* NULL unless lines go there */
	const char *journal_socket;

	bool sandbox;              /* section `process` */

	const qg_config_sae *saes;
	size_t n_saes;
	size_t n_file_saes;        /* the first ones stand in the file, the others were made at run time */
	const qg_config_place *directory;
	size_t n_directory;
	const qg_config_neighbour *neighbours;
	size_t n_neighbours;
	const qg_config_stream *streams;
	size_t n_streams;
	const qg_config_rule *policy;
	size_t n_policy;
	size_t n_file_policy;      /* likewise */

	const qg_config_peer *peers;
	size_t n_peers;

	const qg_config_link *links;
	size_t n_links;

	/* section `relay` */
	uint32_t relay_own_percent;       /* of node_chunks, kept from relaying for others */
	uint32_t relay_neighbour_bytes_per_s; /* relayed for one neighbour; 0: no limit */
	uint32_t relay_route_bytes_per_s; /* relayed for one virtual stream; 0: no limit */
	uint32_t relay_timeout_ms;        /* whole way, there and back */
	uint32_t relay_penalty_s;         /* a link that failed is avoided for so long, doubling to 16 times */

	/* section `pool` */
	uint32_t ready_chunks;     /* per stream: intake stops at so many ready */
	uint32_t inbound_chunks;   /* per stream: held for fetching, else "full" */
	uint32_t issue_s;          /* T_issue */
	uint32_t fetch_s;          /* T_fetch */
	uint32_t reserve_percent;  /* of ready_chunks, kept for pairs that used less */
	uint32_t lease_chunks;     /* largest lease */
	uint32_t epoch_age_s;      /* an epoch ends at this age */

	/* section `limits` */
	uint32_t sae_keys_per_s;   /* 0: none */
	uint32_t sae_requests_per_s; /* 0: none */
	uint32_t pair_chunks;      /* issued to one pair within T_fetch; 0: none */
	uint32_t body_bytes;       /* largest request body */
	uint32_t kxi_body_bytes;   /* largest request body of another network */
	uint32_t transfer_timeout_ms; /* enc_keys waits for another network */
	uint32_t kms_timeout_ms;   /* a call to a neighbour */
	uint32_t clock_jump_s;     /* largest forward step believed at the far end */
} qg_config;

/* Reads and checks the file. Every problem found is printed to `report` as
 * "FILE:LINE: OPTION: what is wrong and what would be right", all in one go.
 * QG_E_PARSE when there was any, QG_E_IO. The result is freed with
 * qg_config_free and does not change in between. */
qg_err qg_config_load(const char *file, FILE *report, qg_config **out) QG_CHECKED;

/* An entry that stands in no file: an operator made it at run time. */
typedef struct qg_config_entry {
	const char *list; /* "saes" or "policy" */
	const char *name; /* what it is called where it is wrong */
	const char *text; /* as JSON; no variables are put in */
} qg_config_entry;

/* The same with n more entries, which stand behind those of the file and go through
 * the same checks; problems of theirs read "run-time LIST NAME: OPTION: ...". With
 * `as`, the text that this configuration was made of is taken, whatever the file
 * holds now. Errors as above. */
qg_err qg_config_load_with(const char *file, const qg_config *as, const qg_config_entry *entry, size_t n,
			   FILE *report, qg_config **out) QG_CHECKED;

void qg_config_free(qg_config **c);

/* The name of a profile as the file gives it. */
const char *qg_config_profile_name(qg_source_profile profile);

/* Checks also what lies outside the file: certificates, keys, modes, folders
 * that can be written. Reports in the same form. QG_E_PARSE when any. */
qg_err qg_config_check_files(const char *file, const qg_config *c, FILE *report) QG_CHECKED;

/* The options that differ and that only a restart puts in force, "a, b, c" as far
 * as the room goes; QG_E_STATE when there are any. */
qg_err qg_config_restart_options(const qg_config *was, const qg_config *now, char *names, size_t room) QG_CHECKED;
/* Whether two configurations say the same. */
bool qg_config_same(const qg_config *a, const qg_config *b);

/* Prints the reference page (Markdown) made from the schema. */
void qg_config_print_reference(FILE *out);

#endif
