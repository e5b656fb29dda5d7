/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/etsi020_msg.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etsi020_msg_internal.h"

qg_err
qg_020_refuse(qg_020_problem *why, qg_020_fault fault, const char *fmt, ...)
{
	va_list ap;
	why->fault = fault;
	va_start(ap, fmt);
	if (vsnprintf(why->text, sizeof why->text, fmt, ap) < 0)
		why->text[0] = '\0';
	va_end(ap);
	return QG_E_PARSE;
}

qg_err
qg_020_read_object(const json_t *doc, const char *what, qg_020_problem *why)
{
	return json_is_object(doc) ? QG_OK : QG_020_REFUSE(why, "%s is not an object", what);
}

/* --- characters ---------------------------------------------------------------- */

/* Unreserved, reserved, and the escape itself (RFC 3986, 2). */
static bool
is_uri_character(char c)
{
	if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'))
		return true;
	return c != '\0' && strchr("-._~:/?#[]@!$&'()*+,;=%", c) != NULL;
}

static bool
is_uri_text(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (!is_uri_character(s[i]))
			return false;
	return len > 0;
}

bool
qg_020_sae_id_valid(const char *id, size_t len)
{
	return len <= QG_020_SAE_MAX && is_uri_text(id, len);
}

bool
qg_020_url_valid(const char *url, size_t len)
{
	static const char https[] = "https://";
	const size_t skip = sizeof https - 1;
	if (len > QG_020_URL_MAX || len <= skip || strncmp(url, https, skip) != 0 || !is_uri_text(url, len))
		return false;
	return strcspn(url + skip, "/?#") > 0;
}

/* --- SAEs ------------------------------------------------------------------------ */

static bool
get_sae_id(const json_t *value, const char **out)
{
	const char *const s = json_string_value(value);
	if (s == NULL || !qg_020_sae_id_valid(s, json_string_length(value)))
		return false;
	*out = s;
	return true;
}

static qg_err
read_target(const json_t *value, const char *where, size_t i, qg_020_saes *out, qg_020_problem *why)
{
	const char *id = NULL;
	if (!get_sae_id(value, &id))
		return QG_020_REFUSE(why, "%starget_sae_ids[%zu] is not an SAE ID of 1 to %d URI characters", where,
				     i, QG_020_SAE_MAX);
	if (strcmp(id, out->initiator) == 0)
		return qg_020_refuse(why, QG_020_SELF, "%starget_sae_ids[%zu] is the initiator", where, i);
	for (size_t j = 0; j < out->n_targets; j++)
		if (strcmp(out->target[j], id) == 0)
			return QG_020_REFUSE(why, "%starget_sae_ids[%zu] is a duplicate", where, i);
	out->target[out->n_targets++] = id;
	return QG_OK;
}

static qg_err
read_targets(const json_t *list, const char *where, qg_020_saes *out, qg_020_problem *why)
{
	const size_t n = json_array_size(list);
	if (!json_is_array(list) || n == 0)
		return QG_020_REFUSE(why, "%starget_sae_ids is missing, empty or not an array", where);
	if (n > QG_020_TARGETS_MAX)
		return qg_020_refuse(why, QG_020_TARGETS_TOO_MANY, "%starget_sae_ids has more than %d entries", where,
				     QG_020_TARGETS_MAX);
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < n; i++)
		err = read_target(json_array_get(list, i), where, i, out, why);
	return err;
}

qg_err
qg_020_read_saes(const json_t *object, const char *where, bool draft, qg_020_saes *out, qg_020_problem *why)
{
	const json_t *const list = json_object_get(object, "target_sae_ids");
	const json_t *const lone = draft ? json_object_get(object, "target_sae_id") : NULL;
	out->n_targets = 0;
	if (!get_sae_id(json_object_get(object, "initiator_sae_id"), &out->initiator))
		return QG_020_REFUSE(why, "%sinitiator_sae_id is missing or not an SAE ID of 1 to %d URI characters",
				     where, QG_020_SAE_MAX);
	return list == NULL && lone != NULL ? read_target(lone, where, 0, out, why)
					    : read_targets(list, where, out, why);
}

qg_err
qg_020_take_pair(const char *initiator, const char *target, qg_020_saes *out, qg_020_problem *why)
{
	if (!qg_020_sae_id_valid(initiator, strlen(initiator)) || !qg_020_sae_id_valid(target, strlen(target)))
		return QG_020_REFUSE(why, "the path has an SAE ID that is not of 1 to %d URI characters",
				     QG_020_SAE_MAX);
	if (strcmp(initiator, target) == 0)
		return qg_020_refuse(why, QG_020_SELF, "the target in the path is the initiator");
	out->initiator = initiator;
	out->target[0] = target;
	out->n_targets = 1;
	return QG_OK;
}

qg_err
qg_020_read_callback(const json_t *object, const char **out, qg_020_problem *why)
{
	const json_t *const value = json_object_get(object, "ack_callback_url");
	*out = NULL;
	if (value == NULL)
		return QG_OK;
	if (!json_is_string(value) || !qg_020_url_valid(json_string_value(value), json_string_length(value)))
		return QG_020_REFUSE(why, "ack_callback_url is not a complete https URL of at most %d characters",
				     QG_020_URL_MAX);
	*out = json_string_value(value);
	return QG_OK;
}

/* --- extensions ------------------------------------------------------------------- */

bool
qg_020_property_valid(const char *name)
{
	if (name[0] != 'E')
		return false;
	const size_t digits = strspn(name + 1, "0123456789");
	return digits > 0 && digits <= 10 && name[1 + digits] == '_' && name[2 + digits] != '\0';
}

qg_err
qg_020_read_extension(const json_t *object, const char *where, const char *name, const json_t **out,
		      qg_020_problem *why)
{
	json_t *const value = json_object_get(object, name);
	*out = NULL;
	if (value == NULL)
		return QG_OK;
	const size_t n = json_object_size(value);
	if (!json_is_object(value) || n == 0 || n > QG_020_PROPERTIES_MAX)
		return QG_020_REFUSE(why, "%s%s is not an object of 1 to %d properties", where, name,
				     QG_020_PROPERTIES_MAX);
	for (void *it = json_object_iter(value); it != NULL; it = json_object_iter_next(value, it))
		if (!qg_020_property_valid(json_object_iter_key(it)))
			return QG_020_REFUSE(why, "%s%s has a property whose name does not begin with E<PEN>_", where,
					     name);
	*out = value;
	return QG_OK;
}

qg_err
qg_020_extension_text(const json_t *extension, const char *where, const char *name, size_t most, char **out,
		      qg_020_problem *why)
{
	*out = NULL;
	if (extension == NULL)
		return QG_OK;
	char *const text = json_dumps(extension, JSON_COMPACT);
	if (text == NULL)
		return QG_E_NOMEM;
	if (strlen(text) > most) {
		free(text);
		return QG_020_REFUSE(why, "%s%s has more than %zu bytes", where, name, most);
	}
	*out = text;
	return QG_OK;
}

/* --- key IDs ------------------------------------------------------------------------ */

qg_err
qg_020_read_id(const json_t *value, qg_uuid *out)
{
	const char *const s = json_string_value(value);
	return s == NULL ? QG_E_PARSE : qg_uuid_parse(s, json_string_length(value), out);
}

static qg_err
read_listed_id(const json_t *entry, const char *where, const char *name, size_t i, qg_020_id_form form, qg_uuid *out,
	       qg_020_problem *why)
{
	char at[96];
	const json_t *extension = NULL;
	const json_t *id = entry;
	const bool object = json_is_object(entry);
	if (object)
		id = json_object_get(entry, "key_id");
	if ((form & (object ? QG_020_IDS_OBJECTS : QG_020_IDS_PLAIN)) == 0 || qg_020_read_id(id, out) != QG_OK)
		return QG_020_REFUSE(why, "%s%s[%zu]%s is not a UUID", where, name, i,
				     (form & QG_020_IDS_PLAIN) != 0 ? "" : ".key_id");
	if (!object)
		return QG_OK;
	const int n = snprintf(at, sizeof at, "%s%s[%zu].", where, name, i);
	if (n < 0 || (size_t)n >= sizeof at)
		at[0] = '\0';
	return qg_020_read_extension(entry, at, "extension", &extension, why);
}

qg_err
qg_020_read_ids(const json_t *list, const char *where, const char *name, qg_020_id_form form, qg_uuid **out, size_t *n,
		qg_020_problem *why)
{
	const size_t count = json_array_size(list);
	*out = NULL;
	*n = 0;
	if (!json_is_array(list) || count > QG_020_KEYS_MAX)
		return QG_020_REFUSE(why, "%s%s is missing or not an array of at most %d entries", where, name,
				     QG_020_KEYS_MAX);
	if (count == 0)
		return QG_OK;
	qg_uuid *const ids = calloc(count, sizeof *ids);
	qg_err err = ids == NULL ? QG_E_NOMEM : QG_OK;
	for (size_t i = 0; err == QG_OK && i < count; i++)
		err = read_listed_id(json_array_get(list, i), where, name, i, form, &ids[i], why);
	if (err != QG_OK) {
		free(ids);
		return err;
	}
	*out = ids;
	*n = count;
	return QG_OK;
}

static int
by_id(const void *a, const void *b)
{
	const qg_uuid *const x = a, *const y = b;
	return memcmp(x->b, y->b, sizeof x->b);
}

qg_err
qg_020_ids_distinct(const void *first, size_t n, size_t stride)
{
	qg_uuid *const sorted = calloc(n > 0 ? n : 1, sizeof *sorted);
	qg_err err = QG_OK;
	if (sorted == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < n; i++)
		memcpy(&sorted[i], (const char *)first + i * stride, sizeof sorted[i]);
	qsort(sorted, n, sizeof *sorted, by_id);
	for (size_t i = 1; i < n; i++)
		if (qg_uuid_equal(&sorted[i - 1], &sorted[i]))
			err = QG_E_EXISTS;
	free(sorted);
	return err;
}
