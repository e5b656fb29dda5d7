/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI020_INTERNAL_H
#define QKDGATE_ETSI020_INTERNAL_H

#include <stdatomic.h>

#include "qkdgate/etsi020.h"
#include "qkdgate/etsi020_msg.h"
#include "qkdgate/http_client.h"
#include "qkdgate/http_server.h"
#include "qkdgate/limits.h"

#define QG_020_MODULE "etsi020"
#define QG_020_JSON_TYPE "application/json; charset=UTF-8"
#define QG_020_PATH "/kmapi/v1/ext_keys"

/* How the last call to a peer ended. */
typedef struct qg_020_seen {
	_Atomic uint64_t at_ms; /* elapsed time plus 1; 0: there was none */
	atomic_bool unanswered;
} qg_020_seen;

struct qg_etsi020 {
	qg_interop_way way; /* first: a send gets it back as the whole */
	const qg_config *cfg;
	const qg_directory *directory;
	qg_audit *audit;
	qg_interop *interop;
	qg_http_client *client;
	qg_http_server *server;
	qg_http_route *routes;
	qg_020_seen *seen;    /* of each peer, in the order of the configuration */
	qg_limits **requests; /* of each peer, in the order of the configuration */
	qg_limits *strangers; /* audit lines about them */
};

/* --- the requests (etsi020_in.c) ------------------------------------------- */

void qg_020_get_versions(qg_http_request *http, void *ctx);
void qg_020_get_openapi(qg_http_request *http, void *ctx);
void qg_020_post_keys(qg_http_request *http, void *ctx);
void qg_020_post_draft_keys(qg_http_request *http, void *ctx);
void qg_020_post_ack(qg_http_request *http, void *ctx);
void qg_020_post_void(qg_http_request *http, void *ctx);

/* --- the answers (etsi020_answer.c) ------------------------------------------ */

/* What is asked for. The rows of the tables differ by it. */
typedef enum qg_020_method { QG_020_KEYS, QG_020_DRAFT, QG_020_ACK, QG_020_VOID, QG_020_METHODS } qg_020_method;

/* How a request ends that does not come to the core. */
typedef enum qg_020_refusal {
	QG_020_BAD_FORM,
	QG_020_MANY_TARGETS,
	QG_020_SELF_TARGET,
	QG_020_BARE_VOID,
	QG_020_FOREIGN_CALLBACK,
	QG_020_MANDATORY,
	QG_020_RATE,
	QG_020_BUSY,
	QG_020_REFUSALS
} qg_020_refusal;

/* A request from its handler to its answer: one block of malloc, which the
 * answer frees. Outlives the listener, not the audit log. */
typedef struct qg_020_call {
	qg_http_request *http;
	qg_audit *audit;
	const qg_config_peer *peer;
	qg_020_method method;
	char initiator[QG_020_SAE_MAX + 1]; /* "" while it is not known */
	size_t n_ids;
	qg_uuid ids[]; /* for the audit */
} qg_020_call;

/* Answers with the problem of the standard, audits (but a rate, which protects
 * the log too), and frees the call. text: for its details. */
void qg_020_refuse_call(qg_020_call *call, qg_020_refusal refusal, const char *text, unsigned retry_after_s);

/* The core's reply to a call, which is the ctx. */
void qg_020_answer_call(void *ctx, const qg_interop_reply *reply);

/* What the HTTP server refuses by itself: qg_http_options.refuse. */
size_t qg_020_http_refuse(const qg_http_refused *r, char *buf, size_t room, void *ctx);

/* --- the way out (etsi020_out.c) -------------------------------------------------- */

extern const qg_interop_ops qg_020_way_ops;

/* --- both ---------------------------------------------------------------------------- */

/* Views of a message for the core, and back: the array of acks is freed with
 * free and lives no longer than m. NULL: no memory. */
qg_interop_ack *qg_020_acks_view(const qg_020_acks *m);
qg_interop_saes qg_020_saes_view(const qg_020_saes *s);
/* An acks body of the core's. */
qg_err qg_020_acks_body(const qg_interop_ack *ack, size_t n, qg_secret **out) QG_CHECKED;

#endif
