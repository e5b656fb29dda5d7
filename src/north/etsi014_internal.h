/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI014_INTERNAL_H
#define QKDGATE_ETSI014_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/etsi014.h"
#include "qkdgate/http_server.h"
#include "qkdgate/limits.h"
#include "qkdgate/policy.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

/* Inside the ETSI GS QKD 014 server:
 *   etsi014.c          start, stop, routes, who may ask what, audit
 *   etsi014_request.c, _key_ids.c, _forms.c
 *                      requests into structs: pure, know no HTTP
 *   etsi014_answer.c   answers: JSON and HTTP statuses
 *   etsi014_late.c     answers that come after the handler has returned
 *   etsi014_enc.c, _dec.c, _status.c  the methods */

struct json_t;

#define QG_014_SAE_ID_MAX 255    /* bytes */
#define QG_014_EXTRA_MAX 64      /* additional slaves in one request */
#define QG_014_EXTENSIONS_MAX 64 /* entries of one extension array */
#define QG_014_ARGS_MAX 3        /* one more than any method knows */

/* Why a request is refused: the Error of table 13. */
typedef struct qg_014_problem {
	char message[256]; /* printable ASCII */
	size_t n_details;
	const char *details[QG_014_EXTENSIONS_MAX]; /* names of extensions that are not
						       supported; views into the request */
} qg_014_problem;

/* --- requests --------------------------------------------------------------- */

typedef struct qg_014_arg {
	const char *name, *value; /* of the query, decoded */
} qg_014_arg;

/* A Key request (table 10). */
typedef struct qg_014_enc_request {
	uint32_t number;
	uint32_t size_bits;
	uint32_t max_age_ms;         /* 0: any */
	uint32_t min_hops, max_hops; /* 0 and UINT32_MAX: any */
	bool asks_hops;              /* one of the two was given */
	const char *extra[QG_014_EXTRA_MAX]; /* views into json */
	size_t n_extra;
	struct json_t *json; /* NULL for the GET form */
} qg_014_enc_request;

/* A Key IDs (table 12). */
typedef struct qg_014_dec_request {
	qg_uuid *ids;
	size_t n;
} qg_014_dec_request;

/* All parsers return QG_E_INVAL with *why filled (400), QG_E_STATE when
 * mandatory extensions contradict one another, QG_E_NOMEM. */

/* The GET form. */
qg_err qg_014_enc_query(const qg_014_arg *args, size_t n, const qg_policy_terms *terms,
			qg_014_enc_request *out, qg_014_problem *why) QG_CHECKED;

/* The POST form; an empty body is an empty request. master and slave may not
 * stand among the additional slaves. Free with qg_014_enc_fini, also when it
 * fails with details in *why, which are views into the request. */
qg_err qg_014_enc_body(const char *body, size_t len, const qg_policy_terms *terms, const char *master,
		       const char *slave, qg_014_enc_request *out, qg_014_problem *why) QG_CHECKED;
void qg_014_enc_fini(qg_014_enc_request *r);

qg_err qg_014_dec_query(const qg_014_arg *args, size_t n, qg_014_dec_request *out,
			qg_014_problem *why) QG_CHECKED;
qg_err qg_014_dec_body(const char *body, size_t len, uint32_t max_keys, qg_014_dec_request *out,
		       qg_014_problem *why) QG_CHECKED;
void qg_014_dec_fini(qg_014_dec_request *r);

/* Refuses every query argument. */
qg_err qg_014_no_query(const qg_014_arg *args, size_t n, qg_014_problem *why) QG_CHECKED;

/* 1 to QG_014_SAE_ID_MAX bytes of UTF-8, no control characters, not blank. */
bool qg_014_sae_id_valid(const char *id);

/* application/json, alone or with charset=utf-8 (RFC 9110, 8.3.1). NULL is not. */
bool qg_014_type_is_json(const char *content_type);

void qg_014_say(qg_014_problem *why, const char *fmt, ...) QG_PRINTF(2, 3);
#define QG_014_REFUSE(why, ...) (qg_014_say(why, __VA_ARGS__), QG_E_INVAL)

/* Says that args[i] is a duplicate of one before it, or not known; QG_E_INVAL. */
qg_err qg_014_refuse_arg(const qg_014_arg *args, size_t i, qg_014_problem *why) QG_CHECKED;

/* Any request body; its owner frees it with qg_json_free. */
qg_err qg_014_parse_body(const char *body, size_t len, struct json_t **out, qg_014_problem *why) QG_CHECKED;

/* --- what SAEs do (etsi014_use.c) ------------------------------------------- */

/* One SAE that was seen since the start; lives as long as the server, whatever
 * becomes of the configuration. Peer of its connections. */
typedef struct qg_014_sae {
	struct qg_014_sae *next; /* of the same hash */
	_Atomic uint64_t requests, issued, fetched, refused, limited;
	_Atomic int64_t last_ms;
	atomic_bool suspended;
	char id[];
} qg_014_sae;

typedef struct qg_014_uses qg_014_uses;

qg_err qg_014_uses_new(qg_014_uses **out) QG_CHECKED;
void qg_014_uses_free(qg_014_uses **u);
/* The SAE's; made where it is the first time. NULL without memory. */
qg_014_sae *qg_014_uses_get(qg_014_uses *u, const char *id);
/* Whether the operator has suspended one of them, or the pair. */
bool qg_014_is_suspended(qg_014_uses *u, const qg_014_sae *caller, const char *other);

/* --- one request being served --------------------------------------------- */

typedef enum qg_014_method { QG_014_STATUS, QG_014_ENC, QG_014_DEC } qg_014_method;

typedef struct qg_014_call {
	qg_etsi014 *s;
	qg_http_request *http;
	qg_014_method method;
	qg_014_sae *sae;          /* the caller */
	const char *caller;
	const char *other;        /* the SAE in the path */
	const char *master, *slave;
	const char *other_home;   /* its KME */
	qg_policy_terms terms;    /* of the pair, narrowed to what can be had */
	qg_keystore_level level;  /* stock towards other_home, not for DEC */
	qg_014_problem why;
} qg_014_call;

struct qg_etsi014 {
	qg_etsi014_parts parts;
	qg_http_server *http;
	qg_limits *requests, *keys; /* rates per SAE */
	qg_limits *strangers;       /* of refusals to those who are none */
	qg_014_uses *uses;
	atomic_bool draining;       /* no key is issued any more */
	atomic_size_t pending;      /* requests that the keystore holds */
	qg_http_route *routes;
};

/* Identity, rate of requests, path, policy: who asks about which pair. When it
 * fails the request is answered. */
qg_err qg_014_admit(qg_etsi014 *s, qg_http_request *http, qg_014_method method, qg_014_call *call) QG_CHECKED;

/* The query arguments, at most QG_014_ARGS_MAX of them. */
size_t qg_014_args(qg_http_request *http, qg_014_arg args[QG_014_ARGS_MAX]);

/* A POST's body, which may be empty: that it is JSON by its Content-Type, and that
 * no argument stands in the query. *body lives as long as the request. */
qg_err qg_014_posted(qg_014_call *call, const char **body, size_t *len) QG_CHECKED;

/* Takes n keys from the caller's rate. QG_E_LIMIT; QG_E_IO while the audit log
 * cannot be written. */
qg_err qg_014_take(qg_014_call *call, size_t n, uint32_t *retry_after_s) QG_CHECKED;

typedef struct qg_014_key_event {
	qg_014_method method;
	qg_014_sae *sae; /* the caller */
	qg_err err;      /* QG_OK: delivered, else refused */
	const char *caller, *other;
	const qg_uuid *ids;
	size_t n;
	unsigned size_bits; /* of each key; 0: they differ */
	uint64_t bits;      /* of all keys together; 0: as size_bits says */
} qg_014_key_event;

/* Counts, and tells the audit; that not for QG_014_STATUS and rate limits. */
void qg_014_audit(const qg_etsi014 *s, const qg_014_key_event *e);

/* Refuses a request for keys before the keystore saw it: audit and answer. */
void qg_014_refuse(qg_014_call *call, qg_err err, uint32_t retry_after_s, const qg_uuid *ids, size_t n);

/* --- answers (etsi014_answer.c) ------------------------------------------- */

/* How a call ended. body is the key container and given away with QG_OK. */
typedef struct qg_014_outcome {
	qg_014_method method;
	qg_err err;
	uint32_t retry_after_s;
	qg_secret *body;
	const qg_014_problem *why; /* for errors whose message is the request's, or NULL */
} qg_014_outcome;

void qg_014_answer(qg_http_request *http, qg_014_outcome *o);

/* The fixed text for the audit. */
const char *qg_014_reason(qg_014_method method, qg_err err);

/* The hops that a container tells in `key_extension`: those above 0, or all. */
typedef struct qg_014_hops {
	const uint32_t *of; /* each key; NULL: 0 */
	bool all;
} qg_014_hops;

/* The Key container (table 11) for n keys that stand one after the other in
 * `keys`; sizes NULL: all have size_bytes; hops NULL: none are told.
 * QG_E_CORRUPT when `keys` has not exactly as many bytes; QG_E_NOMEM. */
qg_err qg_014_container(const qg_uuid *ids, size_t n, const qg_secret *keys, const uint16_t *sizes,
			uint32_t size_bytes, const qg_014_hops *hops, qg_secret **out) QG_CHECKED;

/* The Error (table 13). Returns its length; what is longer than room is not
 * written. No NUL. */
size_t qg_014_error_json(const char *message, const char *const *details, size_t n_details, char *buf,
			 size_t room);

typedef struct qg_014_status {
	const char *source_kme, *target_kme, *master, *slave;
	uint64_t key_size, stored_key_count, max_key_count, max_key_per_request;
	uint64_t max_key_size, min_key_size, max_sae_id_count;
} qg_014_status;

/* The Status (table 9), as qg_014_error_json. */
size_t qg_014_status_json(const qg_014_status *st, char *buf, size_t room);
void qg_014_answer_status(qg_http_request *http, const qg_014_status *st);

/* What the HTTP server answers by itself has the same form. */
size_t qg_014_http_error(int status, const char *text, char *buf, size_t room);

/* --- late answers (etsi014_late.c) ---------------------------------------- */

/* Stands first in what a keystore call has as its ctx, one block of malloc. */
typedef struct qg_014_late {
	qg_etsi014 *s;
	qg_014_sae *sae;
	qg_http_request *http;
	void (*fini)(struct qg_014_late *late); /* of members behind it, or NULL */
	qg_014_outcome outcome;
	atomic_int phase;
} qg_014_late;

void qg_014_late_init(qg_014_late *late, const qg_014_call *call);
/* In the keystore's done: the outcome is set. May free late. */
void qg_014_late_done(qg_014_late *late);
/* In the handler after the keystore was called. May free late. */
void qg_014_late_wait(qg_014_late *late);

/* --- methods -------------------------------------------------------------- */

/* What the slave of the call can be given in all: a Status. */
void qg_014_status_of(const qg_014_call *call, qg_014_status *out);

void qg_014_get_status(qg_http_request *http, void *ctx);
void qg_014_get_enc(qg_http_request *http, void *ctx);
void qg_014_post_enc(qg_http_request *http, void *ctx);
void qg_014_get_dec(qg_http_request *http, void *ctx);
void qg_014_post_dec(qg_http_request *http, void *ctx);

#endif
