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
 * are the same structs in all of them. Strings, keys and metadata of a decoded
 * message are views into its frame and live as long as that. */

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
} qg_etsi004_qos;

typedef struct qg_etsi004_request {
	qg_etsi004_op op;
	qg_uuid ksid;                     /* null in OPEN_CONNECT: none given */
	const char *source, *destination; /* OPEN_CONNECT */
	qg_etsi004_qos qos;               /* OPEN_CONNECT */
	uint32_t index;                   /* GET_KEY */
	uint32_t metadata_max;            /* GET_KEY: room for the answer's metadata */
	const uint8_t *metadata;          /* GET_KEY, where the profile sends any */
	size_t metadata_len;
} qg_etsi004_request;

typedef struct qg_etsi004_response {
	qg_etsi004_op op;
	uint32_t status;         /* of table 2, whatever number the profile has */
	bool has_qos;            /* OPEN_CONNECT: qos and ksid are there */
	qg_uuid ksid;            /* OPEN_CONNECT */
	qg_etsi004_qos qos;      /* OPEN_CONNECT */
	uint32_t index;          /* GET_KEY */
	const uint8_t *key;      /* GET_KEY */
	size_t key_len;
	const uint8_t *metadata; /* GET_KEY */
	size_t metadata_len;
	uint32_t metadata_needed; /* status 8: bytes that would do, 0 unknown */
} qg_etsi004_response;

/* A profile's number of a status and table 2's. */
typedef struct qg_etsi004_status_row {
	uint32_t wire;
	qg_etsi004_status status;
} qg_etsi004_status_row;

typedef struct qg_etsi004_profile qg_etsi004_profile;

/* All functions are pure, take any bytes and take no locks; the first argument
 * is the table itself. Encoders append one whole message to w and leave its
 * length as it was on error: QG_E_RANGE (no room, or a member beyond the
 * limits above), QG_E_INVAL (a member that this message cannot have). Decoders
 * take exactly one frame: QG_E_PARSE, QG_E_RANGE (a member beyond the limits),
 * QG_E_UNSUPPORTED (a message kind that is not known). */
struct qg_etsi004_profile {
	const char *name;
	bool persistent;            /* else: one request per connection */
	unsigned in_flight;         /* requests that a client may have unanswered */
	const uint8_t *ask;         /* metadata that a client's GET_KEY carries, */
	size_t ask_len;             /* or none */
	const qg_etsi004_status_row *statuses;
	size_t n_statuses;
	const void *dialect; /* the profile's own */

	/* The length of the message whose first n bytes are at p. QG_E_AGAIN:
	 * they do not tell yet; QG_E_RANGE: over QG_ETSI004_FRAME_MAX. */
	qg_err (*frame)(const qg_etsi004_profile *p, const uint8_t *bytes, size_t n, size_t *total);
	qg_err (*put_request)(const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_writer *w);
	qg_err (*get_request)(const qg_etsi004_profile *p, const uint8_t *frame, size_t n,
			      qg_etsi004_request *q);
	qg_err (*put_response)(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w);
	qg_err (*get_response)(const qg_etsi004_profile *p, const uint8_t *frame, size_t n,
			       qg_etsi004_response *a);
};

/* Profile `bin`, dialect A (ETSI's reference code) and B. */
extern const qg_etsi004_profile qg_etsi004_bin_a;
extern const qg_etsi004_profile qg_etsi004_bin_b;

/* Which dialect of `bin` a client speaks, from the first whole request on its
 * connection: by the length where that can be only one's, else by the version.
 * QG_E_PARSE when it is neither. */
qg_err qg_etsi004_bin_detect(const uint8_t *frame, size_t n, const qg_etsi004_profile **out) QG_CHECKED;

/* The profile's number for a status of table 2 and back; numbers that its
 * table does not have stay as they are. */
uint32_t qg_etsi004_status_to_wire(const qg_etsi004_profile *p, uint32_t status);
uint32_t qg_etsi004_status_of_wire(const qg_etsi004_profile *p, uint32_t wire);

#endif
