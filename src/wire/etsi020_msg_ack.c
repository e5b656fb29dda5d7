/* SPDX-License-Identifier: Apache-2.0 */
/* ack_container and void_container. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etsi020_msg_internal.h"

const char *const qg_020_status_words[QG_020_STATUSES] = {
	[QG_020_RELAYED] = "relayed",
	[QG_020_FAILED] = "failed",
	[QG_020_VOIDED] = "voided",
	[QG_020_FAILED_TO_VOID] = "failed to void",
	[QG_020_NOT_PRESENT] = "key not present",
};

/* --- ack ------------------------------------------------------------------------ */

static bool
get_status(const json_t *value, qg_020_status *out)
{
	const char *const s = json_string_value(value);
	for (int i = 0; s != NULL && i < QG_020_STATUSES; i++) {
		if (strcmp(qg_020_status_words[i], s) == 0) {
			*out = (qg_020_status)i;
			return true;
		}
	}
	return false;
}

/* Of UTF-8, which the parser has checked. */
static size_t
count_characters(const char *s)
{
	size_t n = 0;
	for (; *s != '\0'; s++)
		n += ((unsigned char)*s & 0xc0) != 0x80;
	return n;
}

static qg_err
read_message(const json_t *object, const char *where, const char **out, qg_020_problem *why)
{
	const json_t *const value = json_object_get(object, "message");
	*out = NULL;
	if (value == NULL)
		return QG_OK;
	if (!json_is_string(value) || count_characters(json_string_value(value)) > QG_020_MESSAGE_MAX)
		return QG_020_REFUSE(why, "%smessage is not a text of at most %d characters", where,
				     QG_020_MESSAGE_MAX);
	*out = json_string_value(value);
	return QG_OK;
}

static qg_err
read_ack_ids(const json_t *object, const char *where, bool draft, qg_020_ack *out, qg_020_problem *why)
{
	const json_t *list = json_object_get(object, "key_id_container");
	const bool old = list == NULL && draft;
	const char *const name = old ? "key_ids" : "key_id_container";
	if (old)
		list = json_object_get(object, name);
	const qg_020_id_form form = old ? QG_020_IDS_EITHER : QG_020_IDS_OBJECTS;
	const qg_err err = qg_020_read_ids(list, where, name, form, &out->ids, &out->n_ids, why);
	return err == QG_OK && out->n_ids == 0 ? QG_020_REFUSE(why, "%s%s is empty", where, name) : err;
}

static qg_err
read_ack(const json_t *entry, size_t i, bool draft, qg_020_ack *out, qg_020_problem *why)
{
	char where[32];
	const json_t *extension = NULL;
	if (snprintf(where, sizeof where, "[%zu].", i) < 0)
		where[0] = '\0';
	if (!json_is_object(entry))
		return QG_020_REFUSE(why, "[%zu] is not an object", i);
	if (!get_status(json_object_get(entry, "ack_status"), &out->status))
		return QG_020_REFUSE(why, "%sack_status is missing or none of the five", where);
	qg_err err = qg_020_read_saes(entry, where, draft, &out->saes, why);
	if (err == QG_OK)
		err = read_message(entry, where, &out->message, why);
	if (err == QG_OK)
		err = qg_020_read_extension(entry, where, "extension", &extension, why);
	return err == QG_OK ? read_ack_ids(entry, where, draft, out, why) : err;
}

qg_err
qg_020_acks_read(const struct json_t *doc, bool draft, qg_020_acks *out, qg_020_problem *why)
{
	qg_020_acks m = {.n = 0};
	const size_t n = json_array_size(doc);
	if (!json_is_array(doc) || n == 0 || n > QG_020_ACKS_MAX)
		return QG_020_REFUSE(why, "the body is not an array of 1 to %d objects", QG_020_ACKS_MAX);
	m.ack = calloc(n, sizeof *m.ack);
	qg_err err = m.ack == NULL ? QG_E_NOMEM : QG_OK;
	for (; err == QG_OK && m.n < n; m.n++)
		err = read_ack(json_array_get(doc, m.n), m.n, draft, &m.ack[m.n], why);
	if (err == QG_OK)
		*out = m;
	else
		qg_020_acks_fini(&m);
	return err;
}

void
qg_020_acks_fini(qg_020_acks *m)
{
	for (size_t i = 0; m->ack != NULL && i < m->n; i++)
		free(m->ack[i].ids);
	free(m->ack);
	*m = (qg_020_acks){.n = 0};
}

/* --- void ----------------------------------------------------------------------- */

static qg_err
read_confirmation(const json_t *doc, bool *out, qg_020_problem *why)
{
	const json_t *const value = json_object_get(doc, "all_confirmation");
	if (value != NULL && !json_is_boolean(value))
		return QG_020_REFUSE(why, "all_confirmation is not a boolean");
	*out = *out || json_is_true(value);
	return QG_OK;
}

static qg_err
read_void(const json_t *doc, bool confirmed, qg_020_void *m, qg_020_problem *why)
{
	const json_t *extension = NULL;
	qg_err err = qg_020_read_object(doc, "the body", why);
	if (err == QG_OK)
		err = qg_020_read_saes(doc, "", false, &m->saes, why);
	if (err == QG_OK)
		err = qg_020_read_callback(doc, &m->callback, why);
	if (err == QG_OK)
		err = qg_020_read_extension(doc, "", "extension", &extension, why);
	if (err == QG_OK)
		err = read_confirmation(doc, &confirmed, why);
	if (err == QG_OK)
		err = qg_020_read_ids(json_object_get(doc, "key_ids"), "", "key_ids", QG_020_IDS_PLAIN, &m->ids,
				      &m->n_ids, why);
	if (err == QG_OK && m->n_ids == 0 && !confirmed)
		return qg_020_refuse(why, QG_020_NO_IDS, "key_ids is empty and all_confirmation is not true");
	return err;
}

qg_err
qg_020_void_read(const struct json_t *doc, bool confirmed, qg_020_void *out, qg_020_problem *why)
{
	qg_020_void m = {.n_ids = 0};
	qg_err err = read_void(doc, confirmed, &m, why);
	if (err == QG_OK)
		err = qg_020_ids_distinct(m.ids, m.n_ids, sizeof *m.ids);
	if (err == QG_E_EXISTS)
		err = QG_020_REFUSE(why, "key_ids has an ID twice");
	if (err == QG_OK)
		*out = m;
	else
		qg_020_void_fini(&m);
	return err;
}

void
qg_020_void_fini(qg_020_void *m)
{
	free(m->ids);
	*m = (qg_020_void){.n_ids = 0};
}
