/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI004_H
#define QKDGATE_ETSI004_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/bytes.h"
#include "qkdgate/error.h"
#include "qkdgate/uuid.h"

/* ETSI GS QKD 004 V2.1.1 on the wire. The standard defines calls but no
 * encoding, so there are profiles: encodings that real key managers speak. A
 * profile is a table of pure functions for both roles; requests and answers
 * are the same structs in all of them. A new profile is a file of its own and a
 * line in the list below. Strings, keys and metadata of a decoded message are
 * views into its frame and live as long as that; decoders may write over the
 * frame, which is how values that are text on the wire become bytes without
 * leaving the caller's (secret) memory.
 *
 * A server reads bytes into a buffer and calls qg_etsi004_next_request until
 * that says QG_E_AGAIN; a client calls put_request, and then frame and
 * get_response on what comes back. */

#define QG_ETSI004_FRAME_MAX ((size_t)1 << 20) /* one message on the wire */
#define QG_ETSI004_URI_MAX 1024                /* bytes, without the NUL */
#define QG_ETSI004_MIMETYPE_MAX 255            /* bytes, without the NUL */
#define QG_ETSI004_METADATA_MAX 65536
#define QG_ETSI004_KEY_MAX 65536

typedef enum qg_etsi004_op {
	QG_ETSI004_OPEN_CONNECT,
	QG_ETSI004_GET_KEY,
	QG_ETSI004_CLOSE,
	QG_ETSI004_ERROR /* an answer to a request that was not understood */
} qg_etsi004_op;

/* Table 2, `Status`. Numbers beyond these are passed on as they are: the
 * standard reserves them for additions. */
typedef enum qg_etsi004_status {
	QG_ETSI004_SUCCESS = 0,
	QG_ETSI004_PEER_NOT_CONNECTED = 1, /* OPEN_CONNECT worked, the peer is yet to come */
	QG_ETSI004_NO_KEY = 2,
	QG_ETSI004_NO_PEER = 3,
	QG_ETSI004_NO_CONNECTION = 4,
	QG_ETSI004_IN_USE = 5,
	QG_ETSI004_TIMEOUT = 6,
	QG_ETSI004_QOS = 7,
	QG_ETSI004_METADATA_SIZE = 8
} qg_etsi004_status;

/* Table 2, `QoS`; 0 and "" leave the choice to the other side. */
typedef struct qg_etsi004_qos {
	uint32_t chunk_size; /* bytes */
	uint32_t max_bps, min_bps, jitter_bps, priority;
	uint32_t timeout_ms, ttl_s;
	const char *mimetype; /* "": no metadata; never NULL */
	bool oblivious;       /* json-netxpto: a key_type other than symmetric, which nobody
				 here has: status 7 */
} qg_etsi004_qos;

typedef struct qg_etsi004_request {
	qg_etsi004_op op;
	qg_uuid ksid;                     /* null in OPEN_CONNECT: none given */
	const char *source, *destination; /* OPEN_CONNECT */
	qg_etsi004_qos qos;               /* OPEN_CONNECT */
	bool in_sequence;                 /* GET_KEY: without an index, where the profile can: the next */
	uint32_t index;                   /* GET_KEY */
	uint32_t metadata_max;            /* GET_KEY: room for the answer's metadata, as far as
					     the profile tells it, else QG_ETSI004_METADATA_MAX */
	const uint8_t *metadata;          /* GET_KEY, where the profile sends any */
	size_t metadata_len;
	const char *authority;            /* HTTP, client: HOST:PORT of the server, else NULL */
	bool last;                        /* HTTP: the connection ends after its answer */
} qg_etsi004_request;

typedef struct qg_etsi004_response {
	qg_etsi004_op op;
	uint32_t status;         /* of table 2, whatever number the profile has */
	bool has_qos;            /* OPEN_CONNECT: qos and ksid are there */
	qg_uuid ksid;            /* OPEN_CONNECT; of pushed key where the profile tells, else null */
	qg_etsi004_qos qos;      /* OPEN_CONNECT */
	uint32_t index;          /* GET_KEY */
	const uint8_t *key;      /* GET_KEY */
	size_t key_len;
	const uint8_t *metadata; /* GET_KEY */
	size_t metadata_len;
	uint32_t metadata_needed; /* status 8: bytes that would do, 0 unknown */
	bool last;                /* HTTP: the connection ends after it */
} qg_etsi004_response;

/* What a client knows of the answer that is due: where a profile's answers do
 * not tell these themselves they are read by it. */
typedef struct qg_etsi004_due {
	qg_etsi004_op op;
	uint32_t chunk_size; /* GET_KEY: bytes as agreed, 0 unknown: hex and base64 differ by it */
} qg_etsi004_due;

/* A profile's number of a status and table 2's. */
typedef struct qg_etsi004_status_row {
	uint32_t wire;
	qg_etsi004_status status;
} qg_etsi004_status_row;

typedef struct qg_etsi004_profile qg_etsi004_profile;

/* How key gets to a client. */
#define QG_ETSI004_PULL 1u /* an answer for each GET_KEY */
#define QG_ETSI004_PUSH 2u /* after one GET_KEY chunk after chunk, with increasing index */

/* Profiles that one server tells apart by the first bytes of a connection. */
typedef struct qg_etsi004_family {
	/* Whether a connection that begins with this byte speaks one of them. */
	bool (*begins)(uint8_t first);
	/* Which of them, by the first whole request. QG_E_PARSE: none; *out, where
	 * it is written, is the one whose error is to be said. */
	qg_err (*detect)(const uint8_t *frame, size_t n, const qg_etsi004_profile **out);
} qg_etsi004_family;

/* Push over connections of its own, from the module to the key manager, each
 * chunk answered there (HTTP). Errors as below. */
typedef struct qg_etsi004_push_ops {
	const char *method, *path, *type; /* of the request, and the type of both bodies */
	/* A whole request that pushes a->key with a->index to a->ksid. */
	qg_err (*put)(const qg_etsi004_profile *p, const qg_etsi004_response *a, const char *authority,
		      qg_writer *w);
	/* The body of that alone. */
	qg_err (*put_body)(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w);
	/* Reads the body of one; op is QG_ETSI004_GET_KEY. */
	qg_err (*get)(const qg_etsi004_profile *p, uint8_t *body, size_t n, qg_etsi004_response *a);
	/* The body that answers one. */
	qg_err (*put_answer)(const qg_etsi004_profile *p, uint32_t status, qg_writer *w);
	/* Reads a whole answer; http is the status of HTTP, 503: not now. */
	qg_err (*get_answer)(const qg_etsi004_profile *p, uint8_t *frame, size_t n, uint32_t *status,
			     unsigned *http);
} qg_etsi004_push_ops;

/* All functions are pure, take any bytes and take no locks; the first argument
 * is the table itself. Encoders append one whole message to w and leave its
 * length as it was on error: QG_E_RANGE (no room, or a member beyond the
 * limits above), QG_E_INVAL (a member that this message cannot have). Decoders
 * take exactly one frame: QG_E_PARSE, QG_E_RANGE (a member beyond the limits),
 * QG_E_UNSUPPORTED (a message kind that is not known). They write their output
 * on success only, over the frame in any case. */
struct qg_etsi004_profile {
	const char *name;
	const qg_etsi004_family *family;
	unsigned modes;             /* QG_ETSI004_PULL, QG_ETSI004_PUSH */
	const qg_etsi004_push_ops *push; /* NULL: pushed key comes over the client's connection
					    as answers to GET_KEY */
	bool persistent;            /* else: one request per connection */
	bool qos_opens;             /* its clients take status 7 of OPEN_CONNECT for an open stream
				       with the counter-proposal */
	bool qos_unsaid;            /* what OPEN_CONNECT left to the server is 0 in the answer, too,
				       but for the size of a chunk */
	bool metadata_nul;          /* a server's metadata has a NUL at its end */
	unsigned in_flight;         /* requests that a client may have unanswered */
	size_t request_max;         /* bytes of a request that a server reads */
	const uint8_t *ask;         /* metadata that a client's GET_KEY carries, */
	size_t ask_len;             /* or none */
	const qg_etsi004_status_row *statuses;
	size_t n_statuses;
	const void *dialect; /* the profile's own */

	/* The length of the message whose first n bytes are at p; it may be more
	 * than n. QG_E_AGAIN: they do not tell yet; QG_E_RANGE: over
	 * QG_ETSI004_FRAME_MAX; QG_E_PARSE: no message begins so. */
	qg_err (*frame)(const qg_etsi004_profile *p, const uint8_t *bytes, size_t n, size_t *total);
	qg_err (*put_request)(const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_writer *w);
	qg_err (*get_request)(const qg_etsi004_profile *p, uint8_t *frame, size_t n, qg_etsi004_request *q);
	/* op QG_ETSI004_ERROR is what is said before a connection is closed
	 * because of a request that could not be read. */
	qg_err (*put_response)(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w);
	qg_err (*get_response)(const qg_etsi004_profile *p, const qg_etsi004_due *due, uint8_t *frame,
			       size_t n, qg_etsi004_response *a);
};

/* Every profile: its name in the code, its table, its name for people. */
#define QG_ETSI004_PROFILES(X)                         \
	X(BIN_A, qg_etsi004_bin_a, "bin-a")            \
	X(BIN_B, qg_etsi004_bin_b, "bin-b")            \
	X(JSON, qg_etsi004_json, "json")               \
	X(JSON_NETXPTO, qg_etsi004_json_netxpto, "json-netxpto") \
	X(HTTP_PUSH, qg_etsi004_http_push, "http-push")

#define QG_ETSI004_DECLARE(id, table, name) extern const qg_etsi004_profile table;
QG_ETSI004_PROFILES(QG_ETSI004_DECLARE)
#undef QG_ETSI004_DECLARE

/* The n-th of them in the list's order, from 0; NULL beyond the last. */
const qg_etsi004_profile *qg_etsi004_profile_at(size_t n);
/* By its name, or NULL. */
const qg_etsi004_profile *qg_etsi004_profile_named(const char *name);

/* The request that the n bytes received on a connection begin with. *p is the
 * profile of the connection, NULL before its first request: then it is told
 * from the bytes, once the first request is whole. QG_OK: *used bytes are the
 * request in *q. QG_E_AGAIN: none is whole yet. QG_E_PARSE, QG_E_RANGE (also for
 * one over the profile's request_max), QG_E_UNSUPPORTED: the connection is to
 * be closed, after an answer of op QG_ETSI004_ERROR where *p is not NULL; *p is
 * set as far as the bytes tell it. A profile that tells its dialects apart only
 * by OPEN_CONNECT (json) is taken for the first of them until that comes; a
 * server that knows the stream from an OPEN_CONNECT before answers as then. */
qg_err qg_etsi004_next_request(const qg_etsi004_profile **p, uint8_t *bytes, size_t n, qg_etsi004_request *q,
			       size_t *used) QG_CHECKED;

/* The answer of a server to a request that could not be read, appended to w. */
qg_err qg_etsi004_put_error(const qg_etsi004_profile *p, qg_writer *w) QG_CHECKED;

/* Which dialect of `bin` a client speaks, from the first whole request on its
 * connection: by the length where that can be only one's, else by the version.
 * QG_E_PARSE when it is neither; *out is by the version then, if that is there. */
qg_err qg_etsi004_bin_detect(const uint8_t *frame, size_t n, const qg_etsi004_profile **out) QG_CHECKED;

/* The profile's number for a status of table 2 and back; numbers that its
 * table does not have stay as they are. */
uint32_t qg_etsi004_status_to_wire(const qg_etsi004_profile *p, uint32_t status);
uint32_t qg_etsi004_status_of_wire(const qg_etsi004_profile *p, uint32_t wire);

#endif
