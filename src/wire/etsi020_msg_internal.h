/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_ETSI020_MSG_INTERNAL_H
#define QKDGATE_ETSI020_MSG_INTERNAL_H

#include <jansson.h>

#include "qkdgate/etsi020_msg.h"

/* What the readers of the bodies share. Each writes to *why on QG_E_PARSE. */

/* Fills *why; returns QG_E_PARSE. */
qg_err qg_020_refuse(qg_020_problem *why, qg_020_fault fault, const char *fmt, ...) QG_PRINTF(3, 4);
#define QG_020_REFUSE(why, ...) qg_020_refuse(why, QG_020_FORM, __VA_ARGS__)

/* Whether doc is an object, else refuses. */
qg_err qg_020_read_object(const json_t *doc, const char *what, qg_020_problem *why) QG_CHECKED;

/* initiator_sae_id and target_sae_ids; `where` stands before the names in the
 * text. draft: a lone target_sae_id is taken too. */
qg_err qg_020_read_saes(const json_t *object, const char *where, bool draft, qg_020_saes *out, qg_020_problem *why)
	QG_CHECKED;
/* One initiator, one target. */
qg_err qg_020_take_pair(const char *initiator, const char *target, qg_020_saes *out, qg_020_problem *why) QG_CHECKED;

/* ack_callback_url, NULL when absent. */
qg_err qg_020_read_callback(const json_t *object, const char **out, qg_020_problem *why) QG_CHECKED;

/* An extension object, NULL when absent; its form is checked. */
qg_err qg_020_read_extension(const json_t *object, const char *where, const char *name, const json_t **out,
			     qg_020_problem *why) QG_CHECKED;
/* Whether the name of a property begins E<PEN>_. */
bool qg_020_property_valid(const char *name);
/* The compact text of an extension; NULL for NULL. */
qg_err qg_020_extension_text(const json_t *extension, const char *where, const char *name, size_t most, char **out,
			     qg_020_problem *why) QG_CHECKED;

/* A list of UUIDs: strings, or objects with `key_id` (and `extension`). `where`
 * as above, `name` that of the list. *out is freed with free; NULL for an
 * empty list. */
typedef enum qg_020_id_form { QG_020_IDS_PLAIN = 1, QG_020_IDS_OBJECTS = 2, QG_020_IDS_EITHER = 3 } qg_020_id_form;
qg_err qg_020_read_ids(const json_t *list, const char *where, const char *name, qg_020_id_form form, qg_uuid **out,
		       size_t *n, qg_020_problem *why) QG_CHECKED;
qg_err qg_020_read_id(const json_t *value, qg_uuid *out) QG_CHECKED;

/* Whether an ID stands twice among n that are `stride` bytes apart. QG_E_EXISTS,
 * QG_E_NOMEM. */
qg_err qg_020_ids_distinct(const void *first, size_t n, size_t stride) QG_CHECKED;

/* "relayed", ... */
extern const char *const qg_020_status_words[QG_020_STATUSES];

#endif
