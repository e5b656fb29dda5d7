/* SPDX-License-Identifier: Apache-2.0 */
/* Every option of the configuration file. The checks, the defaults, the loading
 * of the struct and docs/configuration.md come from these tables. */
#include "config_internal.h"

#define AT(type, member) .offset = offsetof(type, member), .size = sizeof(((type *)0)->member)
#define LIST(type, list, count)                                                                              \
	.offset = offsetof(type, list), .also = offsetof(type, count), .size = sizeof(*((type *)0)->list)
#define END {.name = NULL}

#define ID_MAX 128       /* characters of an SAE ID; the log shows as many */
#define KME_NAME_MAX 64  /* of a KME ID or stream name in the neighbours' messages */
#define CERT_NAME_MAX (QG_TLS_NAME_MAX - 1)
#define URI_MAX 255
#define PATH_LEN_MAX 4000
#define LIST_MAX QG_CFG_NODES_MAX
#define KEY_BITS_MAX (4095 * 8) /* the size in a key ID has 12 bits */
#define HOPS_MAX 14      /* trusted nodes on a route, see QG_KMS_PATH_MAX */
#define HOPS_TEXT "14"
#define CALLBACK_MAX 1024 /* ETSI GS QKD 020 */
#define ROUTES_MAX 16    /* static ones of a stream */

static const cfg_choice versions[] = {{"1.2", QG_TLS_1_2}, {"1.3", QG_TLS_1_3}, {NULL, 0}};
static const cfg_choice levels[] = {
	{"error", QG_LOG_ERROR}, {"warn", QG_LOG_WARN}, {"info", QG_LOG_INFO}, {"debug", QG_LOG_DEBUG},
	{NULL, 0}};
static const cfg_choice formats[] = {{"text", QG_LOG_TEXT}, {"json", QG_LOG_JSON}, {NULL, 0}};
static const cfg_choice log_places[] = {
	{"stderr", QG_LOG_STDERR}, {"journal", QG_LOG_JOURNAL}, {"file", QG_LOG_FILE}, {NULL, 0}};
static const cfg_choice directions[] = {{"outbound", QG_DIRECTION_OUTBOUND},
					{"inbound", QG_DIRECTION_INBOUND},
					{"shared", QG_DIRECTION_SHARED},
					{NULL, 0}};
#define PROFILE_CHOICE(id, table, name) {name, QG_PROFILE_##id},
static const cfg_choice profiles[] = {QG_ETSI004_PROFILES(PROFILE_CHOICE){NULL, 0}};
#undef PROFILE_CHOICE
static const cfg_choice source_modes[] = {{"pull", QG_MODE_PULL}, {"push", QG_MODE_PUSH}, {NULL, 0}};
static const cfg_choice dialects[] = {
	{"v1.1.1", QG_DIALECT_V1_1_1}, {"draft-url", QG_DIALECT_DRAFT_URL}, {NULL, 0}};
static const cfg_choice modes[] = {
	{"asynchronous", QG_PEER_ASYNCHRONOUS}, {"synchronous", QG_PEER_SYNCHRONOUS}, {NULL, 0}};
static const cfg_choice peer_links[] = {
	{"kxi-prime", QG_PEER_KXI_PRIME}, {"kxi", QG_PEER_KXI}, {NULL, 0}};
static const cfg_choice only_1_3[] = {{"1.3", QG_TLS_1_3}, {NULL, 0}};
static const cfg_choice transports[] = {{"tls", true}, {"tcp", false}, {NULL, 0}};

/* The files of one end of TLS; the three that are always needed are required
 * but where the transport may be plain. */
#define TLS_OPTIONS(owner, member, need, absent, lowest)                                                     \
	{.name = "certificate", .type = CFG_PATH, .required = need, AT(owner, member.certificate), .min = 1, \
	 .max = PATH_LEN_MAX, .note = absent, .help = "Certificate chain in PEM, leaf first."},              \
	{.name = "key", .type = CFG_SECRET_PATH, .required = need, AT(owner, member.key), .min = 1,          \
	 .max = PATH_LEN_MAX, .note = absent, .help = "Private key in PEM, mode 0600 or 0400."},             \
	{.name = "ca", .type = CFG_PATH, .required = need, AT(owner, member.ca), .min = 1,                   \
	 .max = PATH_LEN_MAX, .note = absent,                                                                \
	 .help = "Authorities in PEM that the other side's certificate must chain to."},                     \
	{.name = "crl", .type = CFG_PATH, AT(owner, member.crl), .min = 1, .max = PATH_LEN_MAX,              \
	 .note = "no revocation list", .help = "Revocation lists in PEM."},                                  \
	{.name = "min_version", .type = CFG_CHOICE, AT(owner, member.min_version), .preset = "1.3",          \
	 .choices = lowest, .help = "Lowest version of TLS."}

static const cfg_option kme[] = {
	{.name = "id", .type = CFG_NAME, .required = true, AT(qg_config, kme_id), .min = 1,
	 .max = KME_NAME_MAX, .help = "KME ID of this gateway; every KME of a network has another one."},
	END,
};

#define HANDSHAKES_HELP                                                                                      \
	"Most connections that begin in a second from one address (IPv6: one /64), over ten seconds. More "  \
	"are closed before their handshake. 0: no limit."

#define LISTENER_OPTIONS(lowest)                                                                             \
	{.name = "listen", .type = CFG_LISTEN, .required = true, AT(qg_config_listener, address),            \
	 .also = offsetof(qg_config_listener, port), .help = "IP address and port to listen on."},           \
	TLS_OPTIONS(qg_config_listener, tls, true, NULL, lowest),                                            \
	{.name = "threads", .type = CFG_UINT, AT(qg_config_listener, threads), .max = 256, .preset = "0",    \
	 .help = "Threads that serve connections; 0: one per core."},                                        \
	{.name = "max_connections", .type = CFG_UINT, AT(qg_config_listener, max_connections), .min = 1,     \
	 .max = 1000000, .preset = "4096", .help = "Most connections at one time."},                         \
	{.name = "max_per_address", .type = CFG_UINT, AT(qg_config_listener, max_per_address),               \
	 .max = 1000000, .preset = "0", .help = "Most connections from one address; 0: no limit."},          \
	{.name = "address_handshakes_per_s", .type = CFG_UINT,                                               \
	 AT(qg_config_listener, address_handshakes_per_s), .max = 1000000, .preset = "500", .unit = "1/s",   \
	 .help = HANDSHAKES_HELP},                                                                           \
	{.name = "idle_timeout_s", .type = CFG_UINT, AT(qg_config_listener, idle_timeout_s), .min = 1,       \
	 .max = 86400, .preset = "60", .unit = "s",                                                          \
	 .help = "A connection without progress is closed after this time."},                                \
	{.name = "ticket_key_s", .type = CFG_UINT, AT(qg_config_listener, ticket_key_s), .max = 604800,      \
	 .preset = "21600", .unit = "s",                                                                     \
	 .help = "Clients resume TLS sessions with tickets, whose key is replaced after this time; 0: they " \
		 "cannot."}

static const cfg_option listener[] = {LISTENER_OPTIONS(versions), END};
static const cfg_option kxi_listener[] = {LISTENER_OPTIONS(only_1_3), END};

static const cfg_option kms_client[] = {
	TLS_OPTIONS(qg_config, kms_client, true, NULL, versions),
	END,
};

static const cfg_option kxi_client[] = {
	TLS_OPTIONS(qg_config, kxi_client, true, NULL, only_1_3),
	END,
};

static const cfg_option store[] = {
	{.name = "database", .type = CFG_PATH, .required = true, AT(qg_config, database), .min = 1,
	 .max = PATH_LEN_MAX, .help = "SQLite database, made when absent."},
	{.name = "anchor", .type = CFG_PATH, .required = true, AT(qg_config, anchor), .min = 1,
	 .max = PATH_LEN_MAX,
	 .help = "File that shows when the database was put back from a backup. Never back it up together "
		 "with the database."},
	{.name = "master_key", .type = CFG_KEY_PATH, .required = true, AT(qg_config, master_key), .min = 1,
	 .max = PATH_LEN_MAX,
	 .help = "Master key: file of 32 bytes or 64 hex digits, mode 0600 or 0400, or `credential:NAME` "
		 "for a systemd credential."},
	{.name = "key_ring", .type = CFG_PATH, .required = true, AT(qg_config, key_ring), .min = 1,
	 .max = PATH_LEN_MAX, .help = "File of the intermediate keys, made when absent. Never back it up."},
	{.name = "key_ring_rotate_s", .type = CFG_UINT, AT(qg_config, key_ring_rotate_s), .min = 1,
	 .max = 31536000, .preset = "86400", .unit = "s",
	 .help = "A new intermediate key is made after this time."},
	{.name = "flush_ms", .type = CFG_UINT, AT(qg_config, flush_ms), .min = 1, .max = 600000,
	 .preset = "1000", .unit = "ms", .help = "Consumed key leaves the disk after this time."},
	{.name = "accounting_days", .type = CFG_UINT, AT(qg_config, accounting_days), .max = 36500, .preset = "800",
	 .unit = "days", .help = "Totals for accounting of older days are deleted; 0: never."},
	END,
};

static const cfg_option audit[] = {
	{.name = "file", .type = CFG_PATH, .required = true, AT(qg_config, audit_file), .min = 1,
	 .max = PATH_LEN_MAX, .help = "Audit log, made when absent; only ever appended to."},
	{.name = "rotate_mib", .type = CFG_UINT, .live = true, AT(qg_config, audit_rotate_mib), .max = 1048576,
	 .preset = "1024", .unit = "MiB",
	 .help = "The log goes on in another file from this size on; 0: never. The chain goes on over files."},
	END,
};

static const cfg_option log_options[] = {
	{.name = "level", .type = CFG_CHOICE, .live = true, AT(qg_config, log_level), .preset = "info", .choices = levels,
	 .help = "What is logged: this level and those before it."},
	{.name = "format", .type = CFG_CHOICE, AT(qg_config, log_format), .preset = "text",
	 .choices = formats, .help = "Form of a line: key=value or JSON."},
	{.name = "to", .type = CFG_CHOICE, AT(qg_config, log_to), .preset = "stderr", .choices = log_places,
	 .help = "Where lines go. The journal has their parts as fields, whatever the format."},
	{.name = "file", .type = CFG_PATH, AT(qg_config, log_file), .min = 1, .max = PATH_LEN_MAX,
	 .note = "required with `to: file`",
	 .help = "Appended to, made with mode 0640 when absent; opened anew by SIGHUP and `qkdgatectl reopen-log`."},
	{.name = "journal_socket", .type = CFG_PATH, AT(qg_config, journal_socket), .min = 1, .max = 107,
	 .preset = "/run/systemd/journal/socket", .help = "Where the journal listens, for `to: journal`."},
	END,
};

static const cfg_choice socket_modes[] = {{"0600", 0600}, {"0660", 0660}, {NULL, 0}};
static const cfg_choice zeroize_signals[] = {{"none", QG_ZEROIZE_NO_SIGNAL},
					     {"USR1", QG_ZEROIZE_USR1},
					     {"USR2", QG_ZEROIZE_USR2},
					     {NULL, 0}};

static const cfg_option process[] = {
	{.name = "sandbox", .type = CFG_BOOL, AT(qg_config, sandbox), .preset = "true",
	 .help = "Take from the process at its start the system calls that a gateway has no use for."},
	END,
};

#define MATCH_OPTIONS(owner, match)                                                                          \
	{.name = "uri", .type = CFG_TOKEN, AT(owner, match.uri), .min = 1, .max = CERT_NAME_MAX,             \
	 .help = "URI among the subject alternative names, byte for byte."},                                 \
	{.name = "dns", .type = CFG_TOKEN, AT(owner, match.dns), .min = 1, .max = CERT_NAME_MAX,             \
	 .help = "DNS name among the subject alternative names, without regard to case."},                   \
	{.name = "cn", .type = CFG_TEXT, AT(owner, match.cn), .min = 1, .max = CERT_NAME_MAX,                \
	 .help = "Common name of the subject, byte for byte."},                                              \
	{.name = "fingerprint", .type = CFG_FINGERPRINT, AT(owner, match.fingerprint),                       \
	 .help = "SHA-256 of the certificate."}

static const cfg_option sae_match[] = {MATCH_OPTIONS(qg_config_sae, match), END};
static const cfg_option neighbour_match[] = {MATCH_OPTIONS(qg_config_neighbour, match), END};
static const cfg_option peer_match[] = {MATCH_OPTIONS(qg_config_peer, client), END};
static const cfg_option peer_server_match[] = {MATCH_OPTIONS(qg_config_peer, server), END};

static const cfg_option sae[] = {
	{.name = "id", .type = CFG_NAME, .required = true, AT(qg_config_sae, id), .min = 1, .max = ID_MAX,
	 .help = "SAE ID, as it stands in the paths of ETSI GS QKD 014."},
	{.name = "certificate", .type = CFG_SECTION, .required = true, .one_of = true, .fields = sae_match,
	 .help = "How its certificate names it: exactly one of the options below. No two SAEs share a name."},
	{.name = "applications", .type = CFG_PATTERNS, LIST(qg_config_sae, applications, n_applications),
	 .max = 1024, .note = "none",
	 .help = "URIs, exact or patterns, that it may call itself in OPEN_CONNECT of ETSI GS QKD 004."},
	{.name = "push", .type = CFG_PATTERNS, LIST(qg_config_sae, push, n_push), .max = 1024, .note = "none",
	 .help = "Those of them, exact or patterns, that key is pushed to after a GET_KEY, in profile `json`."},
	{.name = "push_to", .type = CFG_URL, AT(qg_config_sae, push_to), .max = 300, .note = "no `http-push`",
	 .help = "Where its applications take key in profile `http-push`; the certificate there must bear this host "
		 "name, and chain to `app_listener.ca`."},
	END,
};

static const cfg_option place[] = {
	{.name = "sae", .type = CFG_PATTERN, .required = true, AT(qg_config_place, sae), .min = 1,
	 .max = ID_MAX,
	 .help = "SAE ID, exact or a pattern. An exact entry goes before patterns; of patterns the first "
		 "that fits rules."},
	{.name = "kme", .type = CFG_NAME, AT(qg_config_place, kme), .min = 1, .max = KME_NAME_MAX,
	 .note = "required without `border`", .help = "KME at which it lives."},
	{.name = "border", .type = CFG_NAME, .marked = true, AT(qg_config_place, kme),
	 .also = offsetof(qg_config_place, border), .min = 1, .max = KME_NAME_MAX,
	 .note = "it lives in this network",
	 .help = "Instead of `kme`, for an SAE of another network: the KME here of which that network is a peer."},
	{.name = "applications", .type = CFG_PATTERNS, LIST(qg_config_place, applications, n_applications),
	 .max = 1024, .note = "none",
	 .help = "URIs, exact or patterns, that its applications have. A URI that none of the lists has is "
		 "sought at the KME whose ID stands behind its last `@`."},
	END,
};

static const cfg_option neighbour[] = {
	{.name = "id", .type = CFG_NAME, .required = true, AT(qg_config_neighbour, id), .min = 1,
	 .max = KME_NAME_MAX, .help = "Its KME ID."},
	{.name = "url", .type = CFG_URL, .required = true, AT(qg_config_neighbour, url), .max = 300,
	 .help = "Its `kms_listener`; the certificate there must bear this host name."},
	{.name = "certificate", .type = CFG_SECTION, .required = true, .one_of = true,
	 .fields = neighbour_match,
	 .help = "How its certificate names it: exactly one of the options below. No two neighbours share "
		 "a name."},
	{.name = "learn", .type = CFG_PATTERNS, LIST(qg_config_neighbour, learn, n_learn), .max = 1024,
	 .note = "nothing is learned",
	 .help = "SAE IDs, exact or patterns, that it may say live there. `saes` and `directory` go before "
		 "what is learned."},
	END,
};

static const cfg_option pusher_match[] = {MATCH_OPTIONS(qg_config_source, pusher), END};

static const cfg_option source[] = {
	{.name = "profile", .type = CFG_CHOICE, .required = true, AT(qg_config_source, profile),
	 .choices = profiles, .help = "Encoding of ETSI GS QKD 004, see [etsi004.md](etsi004.md)."},
	{.name = "mode", .type = CFG_CHOICE, AT(qg_config_source, mode), .choices = source_modes,
	 .note = "`push` with `http-push`, else `pull`",
	 .help = "Whether key is asked for chunk by chunk, or comes by itself once it was asked for: `push` is "
		 "for `json`, `json-netxpto` and `http-push`."},
	{.name = "pusher", .type = CFG_SECTION, .one_of = true, .marked = true, .fields = pusher_match,
	 .also = offsetof(qg_config_source, has_pusher),
	 .note = "required with `profile: http-push`, else not allowed",
	 .help = "How the certificate names the module that pushes to `push_listener`: exactly one of the "
		 "options below. One module may serve several streams."},
	{.name = "address", .type = CFG_ENDPOINT, .required = true, AT(qg_config_source, host),
	 .also = offsetof(qg_config_source, port), .help = "The QKD module or key manager below."},
	{.name = "transport", .type = CFG_CHOICE, AT(qg_config_source, tls), .preset = "tls",
	 .choices = transports,
	 .help = "With `tcp` the keys cross the cable in clear: only inside one cabinet."},
	TLS_OPTIONS(qg_config_source, files, false, "required with `transport: tls`, else not allowed", versions),
	{.name = "server_name", .type = CFG_TOKEN, AT(qg_config_source, server_name), .min = 1,
	 .max = CERT_NAME_MAX, .note = "the host of `address`",
	 .help = "Name or address in its certificate."},
	{.name = "source_uri", .type = CFG_TOKEN, .required = true, AT(qg_config_source, source_uri),
	 .min = 1, .max = URI_MAX, .help = "Source of OPEN_CONNECT."},
	{.name = "destination_uri", .type = CFG_TOKEN, .required = true,
	 AT(qg_config_source, destination_uri),
	 .min = 1, .max = URI_MAX, .help = "Destination of OPEN_CONNECT."},
	{.name = "ksid", .type = CFG_UUID, AT(qg_config_source, ksid), .note = "agreed by the two ends",
	 .help = "Predefined key stream ID, the same at both ends."},
	{.name = "max_bps", .type = CFG_UINT, AT(qg_config_source, max_bps), .max = UINT32_MAX,
	 .preset = "100000000", .unit = "bit/s",
	 .help = "QoS: highest rate; key is never taken faster. 0: no limit."},
	{.name = "min_bps", .type = CFG_UINT, AT(qg_config_source, min_bps), .max = UINT32_MAX, .preset = "0",
	 .unit = "bit/s", .help = "QoS: lowest rate; not above `max_bps`."},
	{.name = "jitter_bps", .type = CFG_UINT, AT(qg_config_source, jitter_bps), .max = UINT32_MAX,
	 .preset = "0", .unit = "bit/s", .help = "QoS: largest deviation."},
	{.name = "priority", .type = CFG_UINT, AT(qg_config_source, priority), .max = UINT32_MAX,
	 .preset = "0", .help = "QoS: priority."},
	{.name = "timeout_ms", .type = CFG_UINT, AT(qg_config_source, timeout_ms), .max = 3600000,
	 .preset = "5000", .unit = "ms",
	 .help = "QoS: time after which a call fails. 0 leaves it to the source, not with `bin-b`."},
	{.name = "ttl_s", .type = CFG_UINT, AT(qg_config_source, ttl_s), .max = UINT32_MAX, .preset = "3600",
	 .unit = "s", .help = "QoS: how long the source keeps a key."},
	{.name = "mimetype", .type = CFG_TEXT, AT(qg_config_source, mimetype), .max = 255,
	 .preset = "application/json", .help = "QoS: type of the metadata; `\"\"`: none wanted."},
	END,
};

static const cfg_option route[] = {
	{.name = "via", .type = CFG_NAMES, .required = true, LIST(qg_config_route, via, n_via),
	 .max = HOPS_MAX, .help = "KMEs in between, in their order; `[]` is the direct link."},
	END,
};

static const cfg_option stream_relay[] = {
	{.name = "random", .type = CFG_PATH, AT(qg_config_relay, random), .min = 1, .max = PATH_LEN_MAX,
	 .note = "the kernel's generator",
	 .help = "Character device that its chunks are read from, or a file, which is used up from its end and "
		 "must be writable. Only with `direction: outbound`."},
	{.name = "paths", .type = CFG_UINT, AT(qg_config_relay, paths), .min = 1, .max = 8, .preset = "1",
	 .help = "Node-disjoint paths that each carry a share: fewer than all of them tell nothing of the "
		 "keys."},
	{.name = "fewer_paths", .type = CFG_BOOL, AT(qg_config_relay, fewer_paths), .preset = "false",
	 .help = "Go on with fewer paths while so many cannot be had."},
	{.name = "max_hops", .type = CFG_UINT, AT(qg_config_relay, max_hops), .max = HOPS_MAX,
	 .preset = HOPS_TEXT, .help = "Most trusted nodes in between; 0: the direct link."},
	{.name = "routes", .type = CFG_ENTRIES, LIST(qg_config_relay, routes, n_routes), .max = ROUTES_MAX,
	 .fields = route, .note = "found in `topology`",
	 .help = "The only routes that it may take. Only with `direction: outbound`."},
	END,
};

static const cfg_option stream[] = {
	{.name = "name", .type = CFG_NAME, .required = true, AT(qg_config_stream, name), .min = 1,
	 .max = KME_NAME_MAX, .help = "Name of the stream, the same at both ends."},
	{.name = "neighbour", .type = CFG_NAME, .required = true, AT(qg_config_stream, neighbour), .min = 1,
	 .max = KME_NAME_MAX, .help = "The KME at its other end: an `id` of `neighbours`."},
	{.name = "direction", .type = CFG_CHOICE, .required = true, AT(qg_config_stream, direction),
	 .choices = directions,
	 .help = "Who hands out its keys. `outbound`: this gateway, `inbound`: the neighbour, `shared`: both "
		 "in turns."},
	{.name = "chunk_size", .type = CFG_UINT, AT(qg_config_stream, chunk_size), .min = 8, .max = 4096,
	 .preset = "32", .unit = "bytes", .help = "Size of a chunk."},
	{.name = "segment_chunks", .type = CFG_UINT, AT(qg_config_stream, segment_chunks), .min = 19,
	 .max = 65536, .preset = "256",
	 .help = "Chunks that are confirmed together. At least 16 more than the reserved ones, which are "
		 "2 * ceil(32 / chunk_size) + ceil(64 / chunk_size). The largest key is half a segment."},
	{.name = "node_chunks", .type = CFG_UINT, AT(qg_config_stream, node_chunks), .max = 16777216,
	 .preset = "0", .unit = "chunks",
	 .help = "Of what this gateway owns of it: key kept ready for relaying and for messages between the "
		 "nodes. 0: none, else at least a segment."},
	{.name = "node_percent", .type = CFG_UINT, AT(qg_config_stream, node_percent), .min = 1, .max = 99,
	 .preset = "50", .unit = "%",
	 .help = "Part of the segments that becomes such key while the applications' pool is short too."},
	{.name = "source", .type = CFG_SECTION, .offset = offsetof(qg_config_stream, source),
	 .fields = source,
	 .help = "For a stream of a link: where its chunks come from. Every stream has either this or `relay`."},
	{.name = "relay", .type = CFG_SECTION, .marked = true, .offset = offsetof(qg_config_stream, relay),
	 .also = offsetof(qg_config_stream, relayed), .fields = stream_relay,
	 .help = "For a virtual stream, `outbound` or `inbound`: its chunks are drawn at the outbound end and "
		 "relayed over other gateways to the other end."},
	END,
};

static const cfg_option peer[] = {
	{.name = "id", .type = CFG_NAME, .required = true, AT(qg_config_peer, id), .min = 1,
	 .max = KME_NAME_MAX - (sizeof QG_PEER_PREFIX - 1), .help = "Name of this peer, for logs and the audit."},
	{.name = "url", .type = CFG_URL, .required = true, AT(qg_config_peer, url), .max = 300,
	 .help = "Where it serves `/kmapi`; the certificate there must bear this host name."},
	{.name = "certificate", .type = CFG_SECTION, .required = true, .one_of = true, .fields = peer_match,
	 .help = "How the certificate names it that it shows when it calls: exactly one of the options below. "
		 "No two peers share a name."},
	{.name = "server_certificate", .type = CFG_SECTION, .one_of = true, .fields = peer_server_match,
	 .note = "the same as `certificate`",
	 .help = "How the certificate names it that it shows when it is called: exactly one of the options "
		 "below."},
	{.name = "callback_url", .type = CFG_HTTPS, AT(qg_config_peer, callback_url), .max = CALLBACK_MAX,
	 .note = "its requests must be synchronous",
	 .help = "The only `ack_callback_url` that is accepted from it, byte for byte; its acks are sent there."},
	{.name = "our_callback_url", .type = CFG_HTTPS, AT(qg_config_peer, our_callback_url),
	 .max = CALLBACK_MAX, .note = "required with `mode: asynchronous`, else not allowed",
	 .help = "The `ack_callback_url` given to it: `kxi_listener` as it reaches it, with the path "
		 "`/kmapi/v1/ext_keys/ack`."},
	{.name = "dialect", .type = CFG_CHOICE, AT(qg_config_peer, dialect), .preset = "v1.1.1",
	 .choices = dialects,
	 .help = "How keys are sent to it. `draft-url`: the SAE IDs stand in the path, as in the ITU-T draft. "
		 "Both forms are accepted from it."},
	{.name = "mode", .type = CFG_CHOICE, AT(qg_config_peer, mode), .preset = "asynchronous",
	 .choices = modes, .help = "How it tells outcomes with `dialect: v1.1.1`: at the callback, or at once."},
	{.name = "draft_acks", .type = CFG_BOOL, AT(qg_config_peer, draft_acks), .preset = "false",
	 .help = "Its acks may have the form of draft 0.4.1 (`key_ids`, `target_sae_id`), and its voids "
		 "`all_confirmation` in the query."},
	{.name = "link", .type = CFG_CHOICE, .required = true, AT(qg_config_peer, link),
	 .choices = peer_links,
	 .help = "`kxi-prime`: both gateways stand in one protected place and values cross in TLS alone. "
		 "`kxi`: at a distance, values are masked with key of `stream`."},
	{.name = "stream", .type = CFG_NAME, AT(qg_config_peer, stream), .min = 1, .max = KME_NAME_MAX,
	 .note = "required with `link: kxi` unless `unprotected`; not allowed otherwise, nor with "
		 "`dialect: draft-url`",
	 .help = "Stream of the link between the two gateways, outbound or shared, with `node_chunks`."},
	{.name = "unprotected", .type = CFG_BOOL, AT(qg_config_peer, unprotected), .preset = "false",
	 .help = "Allows `link: kxi` without a stream: values cross the distance in TLS alone, and are no "
		 "stronger than it."},
	{.name = "extension_pen", .type = CFG_UINT, AT(qg_config_peer, extension_pen), .min = 1,
	 .max = UINT32_MAX, .preset = "32473",
	 .help = "IANA private enterprise number in the names of this project's extensions, the same at both "
		 "ends. The default is the number reserved for documentation: give your own."},
	{.name = "saes", .type = CFG_PATTERNS, .required = true, LIST(qg_config_peer, saes, n_saes), .min = 1,
	 .max = 4096, .help = "SAE IDs, exact or patterns, that live behind it. `saes` and `directory` go "
			      "before them; of several peers keys go to the first."},
	{.name = "reach", .type = CFG_PATTERNS, LIST(qg_config_peer, reach, n_reach), .max = 4096,
	 .note = "none", .help = "SAE IDs, exact or patterns, that it may bring keys for where `policy` allows "
				 "the pair, too."},
	{.name = "max_keys", .type = CFG_UINT, AT(qg_config_peer, max_keys), .min = 1, .max = 1024,
	 .preset = "1024", .help = "Most keys in one request, of either."},
	{.name = "requests_per_s", .type = CFG_UINT, AT(qg_config_peer, requests_per_s), .max = UINT32_MAX,
	 .preset = "0", .unit = "1/s", .help = "Requests of it; 0: no limit."},
	{.name = "outstanding_keys", .type = CFG_UINT, AT(qg_config_peer, outstanding_keys), .min = 1,
	 .max = 16777216, .preset = "65536",
	 .help = "Most keys brought by it that are not yet settled."},
	{.name = "timeout_ms", .type = CFG_UINT, AT(qg_config_peer, timeout_ms), .min = 1, .max = 600000,
	 .preset = "5000", .unit = "ms", .help = "A call to it fails after this time."},
	{.name = "ack_timeout_ms", .type = CFG_UINT, AT(qg_config_peer, ack_timeout_ms), .min = 100,
	 .max = 600000, .preset = "10000", .unit = "ms",
	 .help = "Keys are voided when their outcome is not known after this time, and keys of it when acks did "
		 "not reach it for six times as long."},
	END,
};

static const cfg_option topology_link[] = {
	{.name = "a", .type = CFG_NAME, .required = true, AT(qg_config_link, a), .min = 1,
	 .max = KME_NAME_MAX, .help = "KME at one end."},
	{.name = "b", .type = CFG_NAME, .required = true, AT(qg_config_link, b), .min = 1,
	 .max = KME_NAME_MAX, .help = "KME at the other end."},
	{.name = "cost", .type = CFG_UINT, AT(qg_config_link, cost), .min = 1, .max = 1000, .preset = "1",
	 .help = "Routes are chosen by the sum of these, times what the links lack in key."},
	END,
};

static const cfg_option topology[] = {
	{.name = "links", .type = CFG_ENTRIES, LIST(qg_config, links, n_links), .max = 4096,
	 .fields = topology_link,
	 .help = "Every link that routes may use, those of this gateway included; the order of its ends does "
		 "not matter."},
	END,
};

static const cfg_option rule[] = {
	{.name = "master", .type = CFG_PATTERN, .required = true, AT(qg_config_rule, master), .min = 1,
	 .max = ID_MAX, .help = "SAE ID, exact or a pattern."},
	{.name = "slaves", .type = CFG_PATTERNS, .required = true, LIST(qg_config_rule, slaves, n_slaves),
	 .min = 1, .max = LIST_MAX, .help = "SAE IDs, exact or patterns, with which it may share keys."},
	{.name = "both_ways", .type = CFG_BOOL, AT(qg_config_rule, both_ways), .preset = "true",
	 .help = "Also with the roles exchanged."},
	{.name = "min_key_bits", .type = CFG_UINT, AT(qg_config_rule, min_key_bits), .min = 8,
	 .max = KEY_BITS_MAX, .step = 8, .preset = "64", .unit = "bits", .help = "Smallest key."},
	{.name = "max_key_bits", .type = CFG_UINT, AT(qg_config_rule, max_key_bits), .min = 8,
	 .max = KEY_BITS_MAX, .step = 8, .preset = "4096", .unit = "bits", .help = "Largest key."},
	{.name = "default_key_bits", .type = CFG_UINT, AT(qg_config_rule, default_key_bits), .min = 8,
	 .max = KEY_BITS_MAX, .step = 8, .preset = "256", .unit = "bits",
	 .help = "Size where a request gives none; between the two."},
	{.name = "max_keys", .type = CFG_UINT, AT(qg_config_rule, max_keys), .min = 1, .max = 1024,
	 .preset = "128", .help = "Most keys in one request."},
	{.name = "max_extra_slaves", .type = CFG_UINT, AT(qg_config_rule, max_extra_slaves), .max = 64,
	 .preset = "8", .help = "Most additional slaves in one request; 0: none."},
	END,
};

static const cfg_option pool[] = {
	{.name = "ready_chunks", .type = CFG_UINT, AT(qg_config, ready_chunks), .min = 1, .max = 268435456,
	 .preset = "65536", .unit = "chunks",
	 .help = "Per stream: intake stops while so many are ready. At least two segments of every stream."},
	{.name = "inbound_chunks", .type = CFG_UINT, AT(qg_config, inbound_chunks), .min = 1,
	 .max = 268435456, .preset = "1048576", .unit = "chunks",
	 .help = "Per stream: most that are held for fetching. At least one segment of every stream."},
	{.name = "issue_s", .type = CFG_UINT, AT(qg_config, issue_s), .min = 1, .max = 31536000,
	 .preset = "3600", .unit = "s", .help = "How long the keys of a segment are handed out."},
	{.name = "fetch_s", .type = CFG_UINT, AT(qg_config, fetch_s), .min = 1, .max = 31536000,
	 .preset = "300", .unit = "s", .help = "How long after that they may be fetched at the other end."},
	{.name = "reserve_percent", .type = CFG_UINT, AT(qg_config, reserve_percent), .max = 90,
	 .preset = "10", .unit = "%", .help = "Part of `ready_chunks` kept for pairs that used less."},
	{.name = "lease_chunks", .type = CFG_UINT, AT(qg_config, lease_chunks), .min = 64, .max = 268435456,
	 .preset = "65536", .unit = "chunks",
	 .help = "Largest lease; what is left of one is lost in a crash."},
	{.name = "epoch_age_s", .type = CFG_UINT, AT(qg_config, epoch_age_s), .min = 1, .max = 31536000,
	 .preset = "604800", .unit = "s", .help = "An epoch ends at this age."},
	END,
};

static const cfg_option relay[] = {
	{.name = "own_percent", .type = CFG_UINT, AT(qg_config, relay_own_percent), .max = 90,
	 .preset = "25", .unit = "%",
	 .help = "Part of `node_chunks` that is kept from relaying for others."},
	{.name = "neighbour_bytes_per_s", .type = CFG_UINT, AT(qg_config, relay_neighbour_bytes_per_s),
	 .max = UINT32_MAX, .preset = "0", .unit = "bytes/s",
	 .help = "Relayed for one neighbour, and taken of keys that it hands over; 0: no limit."},
	{.name = "route_bytes_per_s", .type = CFG_UINT, AT(qg_config, relay_route_bytes_per_s),
	 .max = UINT32_MAX, .preset = "0", .unit = "bytes/s",
	 .help = "Relayed for one virtual stream of others; 0: no limit."},
	{.name = "timeout_ms", .type = CFG_UINT, AT(qg_config, relay_timeout_ms), .min = 100, .max = 60000,
	 .preset = "4000", .unit = "ms",
	 .help = "A message of a virtual stream fails after this time, over the whole way and back."},
	{.name = "penalty_s", .type = CFG_UINT, AT(qg_config, relay_penalty_s), .min = 1, .max = 3600,
	 .preset = "5", .unit = "s",
	 .help = "A link that failed is avoided for this time, doubled while it goes on failing, to 16 "
		 "times."},
	END,
};

static const cfg_option limits[] = {
	{.name = "sae_keys_per_s", .type = CFG_UINT, .live = true, AT(qg_config, sae_keys_per_s), .max = UINT32_MAX,
	 .preset = "0", .unit = "1/s", .help = "Keys that one SAE may ask for; 0: no limit."},
	{.name = "sae_requests_per_s", .type = CFG_UINT, .live = true, AT(qg_config, sae_requests_per_s), .max = UINT32_MAX,
	 .preset = "0", .unit = "1/s", .help = "Requests of one SAE; 0: no limit."},
	{.name = "pair_chunks", .type = CFG_UINT, AT(qg_config, pair_chunks), .max = UINT32_MAX,
	 .preset = "0",
	 .unit = "chunks", .help = "Issued to one pair of SAEs within `pool.fetch_s`; 0: no limit."},
	{.name = "body_bytes", .type = CFG_UINT, AT(qg_config, body_bytes), .min = 1024, .max = 16777216,
	 .preset = "65536", .unit = "bytes", .help = "Largest body of a request."},
	{.name = "kxi_body_bytes", .type = CFG_UINT, AT(qg_config, kxi_body_bytes), .min = 1024,
	 .max = 16777216, .preset = "1048576", .unit = "bytes",
	 .help = "Largest body of a request of another network."},
	{.name = "transfer_timeout_ms", .type = CFG_UINT, AT(qg_config, transfer_timeout_ms), .min = 1,
	 .max = 600000, .preset = "15000", .unit = "ms",
	 .help = "A request for keys for another network fails when that has not acknowledged them after this "
		 "time."},
	{.name = "kms_timeout_ms", .type = CFG_UINT, AT(qg_config, kms_timeout_ms), .min = 1, .max = 600000,
	 .preset = "5000", .unit = "ms", .help = "A call to a neighbour fails after this time."},
	{.name = "clock_jump_s", .type = CFG_UINT, AT(qg_config, clock_jump_s), .min = 1, .max = 31536000,
	 .preset = "86400", .unit = "s",
	 .help = "Largest forward step of the clock while stopped that expires keys taken in."},
	END,
};

static const cfg_option admin_match[] = {MATCH_OPTIONS(qg_config_admin_user, match), END};

static const cfg_option admin_user[] = {
	{.name = "name", .type = CFG_NAME, .required = true, AT(qg_config_admin_user, name), .min = 1,
	 .max = KME_NAME_MAX, .help = "Who it is, for the audit log."},
	{.name = "certificate", .type = CFG_SECTION, .required = true, .one_of = true, .fields = admin_match,
	 .help = "How the certificate names the administrator: exactly one of the options below. No two share a "
		 "name."},
	{.name = "read_only", .type = CFG_BOOL, AT(qg_config_admin_user, read_only), .preset = "false",
	 .help = "May look, but change nothing."},
	END,
};

static const cfg_option admin_listener[] = {
	{.name = "listen", .type = CFG_LISTEN, .required = true, AT(qg_config_listener, address),
	 .also = offsetof(qg_config_listener, port), .help = "IP address and port to listen on."},
	TLS_OPTIONS(qg_config_listener, tls, true, NULL, versions),
	{.name = "max_connections", .type = CFG_UINT, AT(qg_config_listener, max_connections), .min = 1,
	 .max = 65536, .preset = "64", .help = "Most connections at one time."},
	{.name = "max_per_address", .type = CFG_UINT, AT(qg_config_listener, max_per_address), .max = 65536,
	 .preset = "0",
	 .help = "Most connections from one address; 0: no limit, with `admin.passwords` a quarter of `max_connections`."},
	{.name = "address_handshakes_per_s", .type = CFG_UINT, AT(qg_config_listener, address_handshakes_per_s),
	 .max = 1000000, .preset = "500", .unit = "1/s", .help = HANDSHAKES_HELP},
	{.name = "idle_timeout_s", .type = CFG_UINT, AT(qg_config_listener, idle_timeout_s), .min = 1,
	 .max = 86400, .preset = "60", .unit = "s",
	 .help = "A connection without progress is closed after this time."},
	END,
};

static const cfg_option admin_passwords[] = {
	{.name = "file", .type = CFG_SECRET_PATH, .required = true, AT(qg_config_passwords, file), .min = 1,
	 .max = PATH_LEN_MAX,
	 .help = "A line of `qkdgatectl hash-password` for each account, mode 0600 or 0400. *Read again with a reload.*"},
	{.name = "idle_s", .type = CFG_UINT, AT(qg_config_passwords, idle_s), .min = 1, .max = 86400,
	 .preset = "900", .unit = "s", .help = "A session ends when nobody was at the page for this time,"},
	{.name = "session_s", .type = CFG_UINT, AT(qg_config_passwords, session_s), .min = 1, .max = 604800,
	 .preset = "28800", .unit = "s", .help = "and after this time in any case."},
	{.name = "max_sessions", .type = CFG_UINT, AT(qg_config_passwords, max_sessions), .min = 1, .max = 256,
	 .preset = "32", .help = "With one more, the one that was not used for longest ends."},
	{.name = "attempts", .type = CFG_UINT, AT(qg_config_passwords, attempts), .min = 1, .max = 100,
	 .preset = "5", .help = "Wrong passwords in a row from one address, or for one account,"},
	{.name = "attempt_s", .type = CFG_UINT, AT(qg_config_passwords, attempt_s), .min = 1, .max = 3600,
	 .preset = "12", .unit = "s", .help = "and another one after this time."},
	END,
};

static const cfg_option admin_scrape[] = {
	{.name = "listen", .type = CFG_LISTEN, .required = true, AT(qg_config_admin, scrape_address),
	 .also = offsetof(qg_config_admin, scrape_port),
	 .help = "IP address and port for plain HTTP. Whoever reaches it may read."},
	{.name = "sae_names", .type = CFG_BOOL, AT(qg_config_admin, scrape_saes), .preset = "false",
	 .help = "Metrics tell SAE IDs there too."},
	END,
};

static const cfg_option admin[] = {
	{.name = "socket", .type = CFG_PATH, AT(qg_config_admin, socket), .min = 1, .max = PATH_LEN_MAX,
	 .note = "no socket",
	 .help = "Unix socket for operators on this machine, made at the start. Whoever may write it may act."},
	{.name = "socket_mode", .type = CFG_CHOICE, AT(qg_config_admin, socket_mode), .preset = "0600",
	 .choices = socket_modes, .help = "Its mode: for the user of the gateway (and root), or for `socket_group` too."},
	{.name = "socket_group", .type = CFG_NAME, AT(qg_config_admin, socket_group), .min = 1, .max = 64,
	 .note = "the group of the process", .help = "Its group."},
	{.name = "listener", .type = CFG_SECTION, .marked = true, .offset = offsetof(qg_config_admin, listener),
	 .also = offsetof(qg_config_admin, has_listener), .fields = admin_listener,
	 .help = "HTTPS for administrators, and the dashboard. Needs `admins` or `passwords`."},
	{.name = "admins", .type = CFG_ENTRIES, .live = true, LIST(qg_config_admin, users, n_users), .max = 1024,
	 .fields = admin_user, .help = "Who may use `listener`, by certificate."},
	{.name = "passwords", .type = CFG_SECTION, .marked = true, .offset = offsetof(qg_config_admin, passwords),
	 .also = offsetof(qg_config_admin, has_passwords), .fields = admin_passwords,
	 .help = "Who may sign in at the dashboard with a password. Then `listener` lets in who has no certificate."},
	{.name = "scrape", .type = CFG_SECTION, .marked = true, .also = offsetof(qg_config_admin, has_scrape),
	 .fields = admin_scrape,
	 .help = "Serves `/healthz`, `/readyz` and `/metrics` without a certificate, and nothing else."},
	{.name = "zeroize_signal", .type = CFG_CHOICE, AT(qg_config_admin, zeroize_signal), .preset = "none",
	 .choices = zeroize_signals, .help = "Signal upon which the gateway destroys all key material and ends."},
	{.name = "zeroize_file", .type = CFG_PATH, AT(qg_config_admin, zeroize_file), .min = 1,
	 .max = PATH_LEN_MAX, .note = "no file",
	 .help = "The same as soon as this file is there and does not begin with `0`: for a tamper switch."},
	END,
};

const char *
qg_config_profile_name(qg_source_profile profile)
{
	const cfg_choice *c = profiles;
	while (c->name != NULL && c->value != (int)profile)
		c++;
	return c->name != NULL ? c->name : "?";
}

static const cfg_option app_listener[] = {
	{.name = "listen", .type = CFG_LISTEN, .required = true, AT(qg_config_app_listener, at.address),
	 .also = offsetof(qg_config_app_listener, at.port), .help = "IP address and port to listen on."},
	TLS_OPTIONS(qg_config_app_listener, at.tls, true, NULL, versions),
	{.name = "plain_sae", .type = CFG_NAME, AT(qg_config_app_listener, plain_sae), .min = 1, .max = ID_MAX,
	 .note = "TLS only",
	 .help = "An `id` of `saes`. Plain TCP is let in, too, and acts for this SAE: whoever reaches the port "
		 "is it, and its keys cross the cable in clear. Only inside one machine or cabinet."},
	{.name = "threads", .type = CFG_UINT, AT(qg_config_app_listener, at.threads), .max = 256,
	 .preset = "0", .help = "Threads that serve connections; 0: one per core."},
	{.name = "max_connections", .type = CFG_UINT, AT(qg_config_app_listener, at.max_connections),
	 .min = 1, .max = 1000000, .preset = "4096", .help = "Most connections at one time."},
	{.name = "max_per_address", .type = CFG_UINT, AT(qg_config_app_listener, at.max_per_address),
	 .max = 1000000, .preset = "0", .help = "Most connections from one address; 0: no limit."},
	{.name = "address_handshakes_per_s", .type = CFG_UINT,
	 AT(qg_config_app_listener, at.address_handshakes_per_s), .max = 1000000, .preset = "0", .unit = "1/s",
	 .help = HANDSHAKES_HELP " In `bin-a` each call has a connection of its own."},
	{.name = "idle_timeout_s", .type = CFG_UINT, AT(qg_config_app_listener, at.idle_timeout_s), .min = 1,
	 .max = 86400, .preset = "300", .unit = "s",
	 .help = "A connection without a request, or that does not take what is sent to it, is closed after "
		 "this time. Its streams live on."},
	{.name = "ticket_key_s", .type = CFG_UINT, AT(qg_config_app_listener, at.ticket_key_s), .max = 604800,
	 .preset = "21600", .unit = "s",
	 .help = "Clients resume TLS sessions with tickets, whose key is replaced after this time; 0: they "
		 "cannot."},
	END,
};

static const cfg_option app_streams[] = {
	{.name = "opens_per_s", .type = CFG_UINT, AT(qg_config, app_streams.opens_per_s), .max = 1000000,
	 .preset = "20",
	 .help = "OPEN_CONNECT of one SAE in a second, ten times as many at once; 0: no limit."},
	{.name = "per_sae", .type = CFG_UINT, AT(qg_config, app_streams.per_sae), .min = 1, .max = 1000000,
	 .preset = "1024", .help = "Streams of one SAE at a time."},
	{.name = "held_bytes", .type = CFG_UINT, AT(qg_config, app_streams.held_bytes), .min = 65536,
	 .max = 1073741824, .preset = "16777216", .unit = "bytes",
	 .help = "Key of one stream that is kept until its TTL has passed; no more is drawn then."},
	{.name = "max_bps", .type = CFG_UINT, AT(qg_config, app_streams.max_bps), .min = 1, .max = UINT32_MAX,
	 .preset = "100000000", .unit = "bit/s", .help = "QoS: highest rate that is granted, and the default."},
	{.name = "promise_bps", .type = CFG_UINT, AT(qg_config, app_streams.promise_bps), .max = UINT32_MAX,
	 .preset = "0", .unit = "bit/s",
	 .help = "QoS: most that the lowest rates of all streams towards one KME add up to; 0: three quarters "
		 "of the rate at which key was seen to come, or what the stock gives for a minute."},
	{.name = "ttl_s", .type = CFG_UINT, AT(qg_config, app_streams.ttl_s), .min = 1, .max = 31536000,
	 .preset = "3600", .unit = "s", .help = "QoS: how long a key is kept where the application leaves it open."},
	{.name = "max_ttl_s", .type = CFG_UINT, AT(qg_config, app_streams.max_ttl_s), .min = 1,
	 .max = 31536000, .preset = "86400", .unit = "s", .help = "QoS: longest that is granted."},
	{.name = "timeout_ms", .type = CFG_UINT, AT(qg_config, app_streams.timeout_ms), .min = 1,
	 .max = 3600000, .preset = "5000", .unit = "ms",
	 .help = "QoS: time after which a call fails where the application leaves it open."},
	{.name = "max_timeout_ms", .type = CFG_UINT, AT(qg_config, app_streams.max_timeout_ms), .min = 1,
	 .max = 3600000, .preset = "600000", .unit = "ms", .help = "QoS: longest that is granted."},
	{.name = "idle_s", .type = CFG_UINT, AT(qg_config, app_streams.idle_s), .min = 1, .max = 31536000,
	 .preset = "604800", .unit = "s", .help = "A stream that nobody asked for key so long ends."},
	END,
};

const cfg_option qg_cfg_schema[] = {
	{.name = "kme", .type = CFG_SECTION, .required = true, .fields = kme, .help = "This gateway."},
	{.name = "sae_listener", .type = CFG_SECTION, .required = true, .offset = offsetof(qg_config, sae),
	 .fields = listener, .help = "Where SAEs ask for keys (ETSI GS QKD 014)."},
	{.name = "app_listener", .type = CFG_SECTION, .marked = true,
	 .offset = offsetof(qg_config, app_listener), .also = offsetof(qg_config, app_listener.present),
	 .fields = app_listener, .note = "no such interface",
	 .help = "Where applications ask for key streams (ETSI GS QKD 004)."},
	{.name = "app_streams", .type = CFG_SECTION, .fields = app_streams,
	 .help = "The key streams of applications."},
	{.name = "kms_listener", .type = CFG_SECTION, .required = true, .offset = offsetof(qg_config, kms),
	 .fields = listener, .help = "Where the neighbours call."},
	{.name = "push_listener", .type = CFG_SECTION, .marked = true, .offset = offsetof(qg_config, push),
	 .also = offsetof(qg_config, has_push), .fields = listener,
	 .note = "required where a stream has `profile: http-push`",
	 .help = "Where QKD modules push key (profile `http-push` of ETSI GS QKD 004)."},
	{.name = "kms_client", .type = CFG_SECTION, .fields = kms_client,
	 .note = "the files of `kms_listener`", .help = "TLS towards the neighbours."},
	{.name = "kxi_listener", .type = CFG_SECTION, .offset = offsetof(qg_config, kxi),
	 .fields = kxi_listener, .note = "absent; required with `peers`",
	 .help = "Where key managers of other networks call (ETSI GS QKD 020)."},
	{.name = "kxi_client", .type = CFG_SECTION, .fields = kxi_client,
	 .note = "the files of `kxi_listener`", .help = "TLS towards key managers of other networks."},
	{.name = "store", .type = CFG_SECTION, .required = true, .fields = store,
	 .help = "Key material at rest."},
	{.name = "audit", .type = CFG_SECTION, .required = true, .fields = audit,
	 .help = "Who got which key ID when."},
	{.name = "admin", .type = CFG_SECTION, .marked = true, .offset = offsetof(qg_config, admin),
	 .also = offsetof(qg_config, admin.given), .fields = admin,
	 .help = "For operators and their tools. Without it there is no admin interface."},
	{.name = "log", .type = CFG_SECTION, .fields = log_options,
	 .help = "The operating log."},
	{.name = "process", .type = CFG_SECTION, .fields = process,
	 .help = "What the process itself may."},
	{.name = "saes", .type = CFG_ENTRIES, .live = true, LIST(qg_config, saes, n_saes), .max = LIST_MAX, .fields = sae,
	 .help = "The SAEs of this node."},
	{.name = "directory", .type = CFG_ENTRIES, .live = true, LIST(qg_config, directory, n_directory), .max = LIST_MAX,
	 .fields = place, .help = "At which KME the other SAEs live."},
	{.name = "neighbours", .type = CFG_ENTRIES, LIST(qg_config, neighbours, n_neighbours), .max = 1024,
	 .fields = neighbour,
	 .help = "The gateways with which this one shares a link or a virtual stream."},
	{.name = "streams", .type = CFG_ENTRIES, LIST(qg_config, streams, n_streams), .max = 1024,
	 .fields = stream,
	 .help = "The key streams: one for each direction of a link, or a shared one; and the virtual ones."},
	{.name = "peers", .type = CFG_ENTRIES, LIST(qg_config, peers, n_peers), .max = 64, .fields = peer,
	 .help = "The key managers of other networks that keys are handed to and taken from "
		 "([interworking.md](interworking.md))."},
	{.name = "topology", .type = CFG_SECTION, .fields = topology,
	 .help = "The network, for virtual streams without `routes`."},
	{.name = "policy", .type = CFG_ENTRIES, .live = true, LIST(qg_config, policy, n_policy), .max = LIST_MAX,
	 .fields = rule,
	 .help = "Which SAEs may share keys. The first rule that fits a pair decides; a pair without a rule "
		 "gets nothing."},
	{.name = "relay", .type = CFG_SECTION, .fields = relay,
	 .help = "Relaying, for this gateway's virtual streams and for others."},
	{.name = "pool", .type = CFG_SECTION, .fields = pool, .help = "How much key is kept, and how long."},
	{.name = "limits", .type = CFG_SECTION, .fields = limits, .help = "Limits on what callers may do."},
	END,
};
