/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI020_MSG_H
#define QKDGATE_ETSI020_MSG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "qkdgate/error.h"
#include "qkdgate/kms_msg.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

/* The bodies of ETSI GS QKD 020 V1.1.1 and of its drafts (docs/interworking.md):
 * reading them strictly, writing them. Key values stand in secrets only. Pure;
 * any thread. Readers take documents that were parsed with wiping allocators
 * and without duplicate members (json.h); members that the standard does not
 * know are passed over. */

#define QG_020_SAE_MAX 64        /* characters of an SAE ID, each one that a URI may have */
#define QG_020_URL_MAX 1024      /* of a callback URL */
#define QG_020_KEYS_MAX 1024     /* keys or key IDs in one list */
#define QG_020_ACKS_MAX 1024     /* containers of one ack */
#define QG_020_TARGETS_MAX 32    /* the standard leaves it open */
#define QG_020_VALUE_MAX 4095    /* bytes of a key */
#define QG_020_PROPERTIES_MAX 1024 /* of an extension object */
#define QG_020_EXTENSION_MAX 4096  /* bytes of text of a key's extension */
#define QG_020_OPTIONAL_MAX 65536  /* and of extension_optional */
#define QG_020_MESSAGE_MAX 4096  /* characters of the message of an ack */

struct json_t;

/* What a reader does not take. */
typedef enum qg_020_fault {
	QG_020_FORM,             /* a member is missing or has another form: text names it */
	QG_020_TARGETS_TOO_MANY, /* more than QG_020_TARGETS_MAX */
	QG_020_SELF,             /* the initiator is a target */
	QG_020_NO_IDS            /* a void without key IDs and confirmation */
} qg_020_fault;

typedef struct qg_020_problem {
	qg_020_fault fault;
	char text[160]; /* "keys[3].value is not base64": nothing from outside but numbers */
} qg_020_problem;

/* 1 to QG_020_SAE_MAX characters that URIs are made of. */
bool qg_020_sae_id_valid(const char *id, size_t len);

/* A complete https URL of at most QG_020_URL_MAX characters. */
bool qg_020_url_valid(const char *url, size_t len);

/* Between whom: views into the document. */
typedef struct qg_020_saes {
	const char *initiator;
	size_t n_targets; /* 1 to QG_020_TARGETS_MAX, none twice */
	const char *target[QG_020_TARGETS_MAX];
} qg_020_saes;

/* --- ext_key_container -------------------------------------------------------- */

typedef struct qg_020_key {
	qg_uuid id;
	const uint8_t *value;
	uint32_t size;   /* bytes: 1 to QG_020_VALUE_MAX */
	char *extension; /* text of the object, or NULL */
} qg_020_key;

typedef struct qg_020_keys {
	qg_020_saes saes;
	const char *callback; /* ack_callback_url, or NULL: synchronous */
	qg_020_key *key;
	size_t n_keys;        /* 1 to the limit, no ID twice */
	qg_secret *values;    /* the bytes that the keys point to */
	char *optional;       /* text of extension_optional, or NULL */
	const struct json_t *mandatory; /* extension_mandatory, or NULL: view */
} qg_020_keys;

/* Reads an ext_key_container of at most max_keys keys. QG_E_PARSE with *why
 * filled, QG_E_NOMEM; else *out is ended with qg_020_keys_fini, before the
 * document. */
qg_err qg_020_keys_read(const struct json_t *doc, size_t max_keys, qg_020_keys *out, qg_020_problem *why) QG_CHECKED;

/* The same of the drafts' body, whose SAEs stand in the path. Its extensions
 * are arrays of objects: all become one object; of extension_optional what has
 * no name of the standard's form is left out. */
qg_err qg_020_draft_keys_read(const struct json_t *doc, const char *initiator, const char *target, size_t max_keys,
			      qg_020_keys *out, qg_020_problem *why) QG_CHECKED;

/* Frees what a reader made; takes zeroed ones too. */
void qg_020_keys_fini(qg_020_keys *m);

/* A property of extension_mandatory that is not `known` (NULL: none is known);
 * NULL when there is none. View. */
const char *qg_020_mandatory_unknown(const struct json_t *mandatory, const char *known);

/* What is to be written. Extensions are JSON text; NULL: the member is left out. */
typedef struct qg_020_keys_out {
	const char *initiator;
	const char *const *targets;
	size_t n_targets;
	const char *callback;
	const qg_020_key *key;
	size_t n_keys;
	const char *optional, *mandatory;
} qg_020_keys_out;

qg_err qg_020_keys_write(const qg_020_keys_out *m, qg_secret **out) QG_CHECKED;
qg_err qg_020_draft_keys_write(const qg_020_keys_out *m, qg_secret **out) QG_CHECKED;

/* The last part of the path of the drafts' request, "/INITIATOR/TARGET" with
 * escapes. QG_E_RANGE. */
#define QG_020_DRAFT_PATH_MAX (2 * 3 * QG_020_SAE_MAX + 3)
qg_err qg_020_draft_path(const char *initiator, const char *target, char *out, size_t room) QG_CHECKED;

/* --- mask: the extension of a Kxi with a QKD stream ---------------------------- */

/* Members as of qg_kms_masked. */
typedef struct qg_020_mask {
	char link[QG_KMS_NAME_MAX + 1];
	size_t n_pads;
	qg_kms_pad pad[QG_KMS_PADS_MAX];
	uint32_t oldest_mac, oldest_pad;
	uint8_t mac[QG_MAC_BYTES];
} qg_020_mask;

/* Its name in extension_mandatory, for a private enterprise number. */
#define QG_020_MASK_NAME_MAX 32
void qg_020_mask_name(uint32_t pen, char out[QG_020_MASK_NAME_MAX]);

/* Reads the property of that name. QG_E_NOTFOUND when mandatory is NULL or has
 * it not, QG_E_PARSE, QG_E_NOMEM. */
qg_err qg_020_mask_read(const struct json_t *mandatory, const char *name, qg_020_mask *out) QG_CHECKED;

/* The text of an extension_mandatory with it alone; freed with free. */
qg_err qg_020_mask_write(const qg_020_mask *m, const char *name, char **out) QG_CHECKED;

/* --- ack_container --------------------------------------------------------------- */

typedef enum qg_020_status {
	QG_020_RELAYED,
	QG_020_FAILED,
	QG_020_VOIDED,
	QG_020_FAILED_TO_VOID,
	QG_020_NOT_PRESENT,
	QG_020_STATUSES
} qg_020_status;

typedef struct qg_020_ack {
	qg_020_status status;
	qg_020_saes saes;
	qg_uuid *ids;
	size_t n_ids;        /* 1 to QG_020_KEYS_MAX */
	const char *message; /* view, or NULL */
} qg_020_ack;

typedef struct qg_020_acks {
	qg_020_ack *ack;
	size_t n; /* 1 to QG_020_ACKS_MAX */
} qg_020_acks;

/* Reads the array. `draft`: also the form of draft 0.4.1 (`key_ids`,
 * `target_sae_id`). As qg_020_keys_read. */
qg_err qg_020_acks_read(const struct json_t *doc, bool draft, qg_020_acks *out, qg_020_problem *why) QG_CHECKED;
void qg_020_acks_fini(qg_020_acks *m);

typedef struct qg_020_ack_out {
	qg_020_status status;
	const char *initiator;
	const char *const *targets;
	size_t n_targets;
	const qg_uuid *ids;
	size_t n_ids;
	const char *message; /* UTF-8, or NULL */
} qg_020_ack_out;

qg_err qg_020_acks_write(const qg_020_ack_out *ack, size_t n, qg_secret **out) QG_CHECKED;

/* --- void_container ---------------------------------------------------------------- */

typedef struct qg_020_void {
	qg_020_saes saes;
	const char *callback; /* or NULL: synchronous */
	qg_uuid *ids;
	size_t n_ids;         /* 0: every key between these SAEs */
} qg_020_void;

/* confirmed: the drafts' all_confirmation of the query. As qg_020_keys_read. */
qg_err qg_020_void_read(const struct json_t *doc, bool confirmed, qg_020_void *out, qg_020_problem *why) QG_CHECKED;
void qg_020_void_fini(qg_020_void *m);

/* n_ids 0: every key, with all_confirmation. */
qg_err qg_020_void_write(const char *initiator, const char *const *targets, size_t n_targets, const char *callback,
			 const qg_uuid *ids, size_t n_ids, qg_secret **out) QG_CHECKED;

/* --- answers ------------------------------------------------------------------------- */

#define QG_020_PROBLEM_PREFIX "https://qkd.etsi.org/gs020-interop-kms/"

/* problem_details. members: names in `details`, each with the text. Returns its
 * length, without a NUL; what does not fit room is not written: 0. */
size_t qg_020_problem_write(const char *type, const char *title, int status, const char *const *members,
			    size_t n_members, const char *text, char *buf, size_t room);

/* The parts of another one's problem for the log, each cut and printable ASCII;
 * "" where absent. */
typedef struct qg_020_problem_seen {
	char type[64];   /* behind QG_020_PROBLEM_PREFIX, or the whole */
	char detail[128]; /* the first of details */
} qg_020_problem_seen;
void qg_020_problem_read(const struct json_t *doc, qg_020_problem_seen *out);

/* message_data of the drafts; text is plain ASCII. As qg_020_problem_write. */
size_t qg_020_message_write(const char *text, char *buf, size_t room);

#endif
