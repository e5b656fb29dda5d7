/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI014_H
#define QKDGATE_ETSI014_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/accounts.h"
#include "qkdgate/audit.h"
#include "qkdgate/config.h"
#include "qkdgate/directory.h"
#include "qkdgate/error.h"
#include "qkdgate/http_server.h"
#include "qkdgate/keystore.h"

/* The ETSI GS QKD 014 V1.1.1 server for SAEs: status, enc_keys, dec_keys, and
 * its own description at /openapi.yaml. */

typedef struct qg_etsi014 qg_etsi014;

/* What SAEs had left of their rates when the gateway stopped: so that a restart gives
 * nobody more than the burst. */
typedef struct qg_etsi014_levels {
	bool known;            /* false: it did not stop in order; all rates begin empty */
	uint64_t away_ms;      /* since it stopped */
	const qg_level_rec *level; /* who is in none had all */
	size_t n;
} qg_etsi014_levels;

/* Who was suspended when the gateway stopped. */
typedef struct qg_etsi014_suspended {
	const qg_suspension_rec *rec; /* those of peers are none of this server's */
	size_t n;
} qg_etsi014_suspended;

typedef struct qg_etsi014_parts {
	const qg_config *cfg; /* all parts outlive the server */
	const qg_directory *directory;
	qg_keystore *keystore;
	qg_audit *audit;
	qg_accounts *accounts;       /* NULL: nothing is counted (tests) */
	const qg_etsi014_levels *levels; /* read while it starts; NULL: all rates are full */
	const qg_etsi014_suspended *suspended; /* likewise, and in force before it listens; NULL: nobody */
} qg_etsi014_parts;

/* Listens. `why` gets a text that names what failed. */
qg_err qg_etsi014_start(const qg_etsi014_parts *parts, qg_etsi014 **out, char *why, size_t why_room) QG_CHECKED;

/* The listener, for its figures. */
const qg_http_server *qg_etsi014_http(const qg_etsi014 *s);

/* Certificates and revocation lists read anew: qg_http_server_reload_tls. */
qg_err qg_etsi014_reload_tls(qg_etsi014 *s, const qg_tls_files *f, char *why, size_t why_room) QG_CHECKED;
/* The directory took a new configuration: its rates, and who is who. */
void qg_etsi014_renew(qg_etsi014 *s, const qg_config *cfg);

/* What the SAE has left of each rate that limits it, for a later start. `each` is
 * called where it is not all. */
void qg_etsi014_each_level(const qg_etsi014 *s, const char *sae, void (*each)(const qg_level_rec *rec, void *ctx),
			   void *ctx);

/* --- what SAEs do ----------------------------------------------------------- */

/* Counts since the start, of an SAE that was seen since then. */
typedef struct qg_sae_use {
	uint64_t requests;
	uint64_t issued, fetched; /* keys */
	uint64_t refused;         /* requests, for whatever reason */
	uint64_t limited;         /* of them: a rate was used up */
	int64_t last_ms;          /* wall clock; 0: never */
	bool suspended;
} qg_sae_use;

/* Any thread. All zero for one that was not seen. */
void qg_etsi014_use(const qg_etsi014 *s, const char *sae, qg_sae_use *out);

/* An SAE, or the two of them as a pair in either role (other NULL: with anybody),
 * gets no key until it is resumed or this server stops: 401. QG_E_FULL when 256 pairs
 * are, QG_E_RANGE for an ID of a pair that is too long. */
qg_err qg_etsi014_suspend(qg_etsi014 *s, const char *sae, const char *other, bool on) QG_CHECKED;

/* Whether these two get no key from each other at present. Any thread. */
bool qg_etsi014_is_suspended(const qg_etsi014 *s, const char *sae, const char *other);

/* The pairs that are suspended. Any thread; `each` must not call back. */
void qg_etsi014_suspended_pairs(const qg_etsi014 *s, void (*each)(const char *a, const char *b, void *ctx),
				void *ctx);

/* From now on, or no longer, no key is issued: 503. What was issued can be fetched. */
void qg_etsi014_drain(qg_etsi014 *s, bool on);

/* Ends the listener (qg_http_server_stop): from then on no rate is used. */
void qg_etsi014_unlisten(qg_etsi014 *s);

/* The same, where it was not done yet, and frees all. Clears *s. */
void qg_etsi014_stop(qg_etsi014 **s);

#endif
