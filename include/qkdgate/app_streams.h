/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_APP_STREAMS_H
#define QKDGATE_APP_STREAMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/config.h"
#include "qkdgate/error.h"
#include "qkdgate/etsi004.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

/* Key streams of applications: the calls of ETSI GS QKD 004 V2.1.1, clause 6,
 * whatever profile carries them. A stream joins two application URIs, which
 * live at two KMEs that share key, or both here. Its chunks come out of the
 * same pools as the keys of ETSI GS QKD 014; a chunk is the same at both ends,
 * and both KMEs hold it durably before either gives it out. Streams outlive
 * connections, and the process (docs/etsi004.md). */

typedef struct qg_app_streams qg_app_streams;

/* An application is known by the SAE of its certificate and by a URI that the
 * configuration accepts for that SAE. Statuses are those of table 2. */
typedef struct qg_app_open {
	const qg_config_sae *sae;        /* who calls */
	qg_uuid ksid;                    /* null: none given */
	const char *source, *destination; /* URIs; one of them is the caller's */
	qg_etsi004_qos qos;              /* asked for; 0 and "": the gateway chooses */
	unsigned dialect;                /* the caller's own, for qg_app_streams_dialect */
	bool qos_opens;                  /* status 7 leaves the stream open, with the counter-
					    proposal (a custom of bin-b) */
} qg_app_open;

typedef struct qg_app_opened {
	uint32_t status;
	bool has_qos;       /* qos and ksid are there */
	qg_uuid ksid;
	qg_etsi004_qos qos; /* as registered, or the counter-proposal of status 7 */
} qg_app_opened;

typedef void qg_app_opened_fn(void *ctx, const qg_app_opened *r);

/* OPEN_CONNECT. With a null KSID it answers once the other KME knows of the
 * stream; with one it waits for the peer, up to the timeout. `done` is called
 * exactly once, at once or later on another thread; *req and what it points to
 * must live until then. Any thread. */
void qg_app_streams_open(qg_app_streams *s, const qg_app_open *req, qg_app_opened_fn *done, void *ctx);

#define QG_APP_METADATA_MAX 64 /* bytes of what qg_app_got holds */

typedef struct qg_app_get {
	const qg_config_sae *sae;
	qg_uuid ksid;
	bool in_sequence;      /* the next one after the last that went to this end so */
	uint32_t index;
	uint32_t metadata_max; /* 0: no metadata wanted */
	uint32_t wait_ms;      /* status 6 after this time, whatever the stream's timeout, and
				  in place of status 2 for a pool that is empty; 0: no */
} qg_app_get;

typedef struct qg_app_got {
	uint32_t status;
	uint32_t index;
	qg_secret *key;        /* done takes it; NULL unless status 0 */
	char metadata[QG_APP_METADATA_MAX]; /* application/json */
	size_t metadata_len;
	uint32_t metadata_needed; /* status 8 */
	bool pushes;           /* status 0: the configuration has the next ones pushed */
} qg_app_got;

typedef void qg_app_got_fn(void *ctx, qg_app_got *r);

/* GET_KEY. By index it may be repeated until the key's TTL passes or the end is
 * closed. Waits for key up to the stream's timeout. As above. */
void qg_app_streams_get(qg_app_streams *s, const qg_app_get *req, qg_app_got_fn *done, void *ctx);

typedef void qg_app_closed_fn(void *ctx, uint32_t status);

/* CLOSE: the caller's end; the other end may have what it was given already
 * until it closes, too, or the TTL passes. As above. */
void qg_app_streams_close(qg_app_streams *s, const qg_config_sae *sae, const qg_uuid *ksid, qg_app_closed_fn *done,
			  void *ctx);

/* What the application's last OPEN_CONNECT of the stream had as its dialect; 0
 * when that is not known: of another's stream, or after a restart. Any thread. */
unsigned qg_app_streams_dialect(qg_app_streams *s, const qg_config_sae *sae, const qg_uuid *ksid);

/* Whether an SAE, or the two as a pair ("": the other one is not known), gets no
 * key at present. Called under a lock: must not call back. */
typedef bool qg_app_suspended_fn(void *ctx, const char *sae, const char *other);

/* From now on it is asked before each OPEN_CONNECT and GET_KEY, whose status is 4
 * then. NULL: no more. */
void qg_app_streams_heed(qg_app_streams *s, qg_app_suspended_fn *suspended, void *ctx);

/* How many there are. Any thread. */
size_t qg_app_streams_count(qg_app_streams *s);

#endif
