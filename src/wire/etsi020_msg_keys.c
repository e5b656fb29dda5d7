/* SPDX-License-Identifier: Apache-2.0 */
/* ext_key_container, and the drafts' body of the same request. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "etsi020_msg_internal.h"
#include "qkdgate/encode.h"

/* --- keys --------------------------------------------------------------------- */

/* Bytes that all values need; 0 when one is missing, or too long to be one. */
static size_t
count_values(const json_t *list, size_t *bad)
{
	size_t sum = 0;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *const value = json_object_get(json_array_get(list, i), "value");
		const size_t len = json_string_length(value);
		*bad = i;
		if (!json_is_string(value) || len == 0 || len > QG_BASE64_LEN(QG_020_VALUE_MAX))
			return 0;
		sum += len / 4 * 3;
	}
	return sum;
}

static qg_err
read_value(const json_t *value, size_t i, qg_secret *values, qg_020_key *out, qg_020_problem *why)
{
	size_t n = 0;
	uint8_t *const at = values->data + values->len;
	const qg_err err = qg_base64_decode(json_string_value(value), json_string_length(value), at,
					    values->room - values->len, &n);
	if (err != QG_OK || n == 0 || n > QG_020_VALUE_MAX)
		return QG_020_REFUSE(why, "keys[%zu].value is not base64 of 1 to %d bytes", i, QG_020_VALUE_MAX);
	values->len += n;
	out->value = at;
	out->size = (uint32_t)n;
	return QG_OK;
}

static qg_err
read_key(const json_t *entry, size_t i, qg_secret *values, qg_020_key *out, qg_020_problem *why)
{
	char where[32];
	const json_t *extension = NULL;
	if (snprintf(where, sizeof where, "keys[%zu].", i) < 0)
		where[0] = '\0';
	if (qg_020_read_id(json_object_get(entry, "key_id"), &out->id) != QG_OK)
		return QG_020_REFUSE(why, "keys[%zu].key_id is missing or not a UUID", i);
	qg_err err = read_value(json_object_get(entry, "value"), i, values, out, why);
	if (err == QG_OK)
		err = qg_020_read_extension(entry, where, "extension", &extension, why);
	if (err == QG_OK)
		err = qg_020_extension_text(extension, where, "extension", QG_020_EXTENSION_MAX, &out->extension, why);
	return err;
}

/* All keys into the zeroed *out, which owns them also on an error. */
static qg_err
read_keys(const json_t *doc, size_t max_keys, qg_020_keys *out, qg_020_problem *why)
{
	size_t bad = 0;
	const json_t *const list = json_object_get(doc, "keys");
	const size_t n = json_array_size(list);
	if (!json_is_array(list) || n == 0)
		return QG_020_REFUSE(why, "keys is missing, empty or not an array");
	if (n > max_keys || n > QG_020_KEYS_MAX)
		return QG_020_REFUSE(why, "keys has more than %zu entries", max_keys);
	const size_t bytes = count_values(list, &bad);
	if (bytes == 0)
		return QG_020_REFUSE(why, "keys[%zu].value is missing or not base64 of 1 to %d bytes", bad,
				     QG_020_VALUE_MAX);
	out->key = calloc(n, sizeof *out->key);
	if (out->key == NULL)
		return QG_E_NOMEM;
	qg_err err = qg_secret_new(bytes, &out->values);
	for (; err == QG_OK && out->n_keys < n; out->n_keys++)
		err = read_key(json_array_get(list, out->n_keys), out->n_keys, out->values, &out->key[out->n_keys],
			       why);
	if (err == QG_OK)
		err = qg_020_ids_distinct(out->key, n, sizeof *out->key);
	return err == QG_E_EXISTS ? QG_020_REFUSE(why, "keys has a key_id twice") : err;
}

void
qg_020_keys_fini(qg_020_keys *m)
{
	/* The last one counted may be half read. */
	for (size_t i = 0; m->key != NULL && i < m->n_keys; i++)
		free(m->key[i].extension);
	free(m->key);
	free(m->optional);
	qg_secret_free(&m->values);
	*m = (qg_020_keys){.n_keys = 0};
}

/* --- V1.1.1 ---------------------------------------------------------------------- */

static qg_err
read_container(const json_t *doc, size_t max_keys, qg_020_keys *m, qg_020_problem *why)
{
	const json_t *optional = NULL;
	qg_err err = qg_020_read_object(doc, "the body", why);
	if (err == QG_OK)
		err = qg_020_read_saes(doc, "", false, &m->saes, why);
	if (err == QG_OK)
		err = qg_020_read_callback(doc, &m->callback, why);
	if (err == QG_OK)
		err = qg_020_read_extension(doc, "", "extension_mandatory", &m->mandatory, why);
	if (err == QG_OK)
		err = qg_020_read_extension(doc, "", "extension_optional", &optional, why);
	if (err == QG_OK)
		err = qg_020_extension_text(optional, "", "extension_optional", QG_020_OPTIONAL_MAX, &m->optional,
					    why);
	return err == QG_OK ? read_keys(doc, max_keys, m, why) : err;
}

static qg_err
hand_over(qg_err err, qg_020_keys *m, qg_020_keys *out)
{
	if (err == QG_OK)
		*out = *m;
	else
		qg_020_keys_fini(m);
	return err;
}

qg_err
qg_020_keys_read(const struct json_t *doc, size_t max_keys, qg_020_keys *out, qg_020_problem *why)
{
	qg_020_keys m = {.n_keys = 0};
	return hand_over(read_container(doc, max_keys, &m, why), &m, out);
}

const char *
qg_020_mandatory_unknown(const struct json_t *mandatory, const char *known)
{
	json_t *const object = (json_t *)(uintptr_t)mandatory; /* jansson's iterators take no const */
	for (void *it = json_object_iter(object); it != NULL; it = json_object_iter_next(object, it))
		if (known == NULL || strcmp(json_object_iter_key(it), known) != 0)
			return json_object_iter_key(it);
	return NULL;
}

/* --- drafts ---------------------------------------------------------------------- */

/* The properties of one object of the array into `all`. */
static qg_err
merge(json_t *all, const json_t *entry, const char *name, qg_020_problem *why)
{
	json_t *const object = (json_t *)(uintptr_t)entry;
	if (!json_is_object(entry))
		return QG_020_REFUSE(why, "%s is not an array of objects", name);
	for (void *it = json_object_iter(object); it != NULL; it = json_object_iter_next(object, it)) {
		const char *const key = json_object_iter_key(it);
		if (!qg_020_property_valid(key))
			continue;
		if (json_object_get(all, key) != NULL)
			return QG_020_REFUSE(why, "%s has a property twice", name);
		if (json_object_set(all, key, json_object_iter_value(it)) != 0)
			return QG_E_NOMEM;
	}
	return QG_OK;
}

static qg_err
read_draft_optional(const json_t *doc, char **out, qg_020_problem *why)
{
	static const char name[] = "extension_optional";
	const json_t *const list = json_object_get(doc, name);
	if (list == NULL)
		return QG_OK;
	if (!json_is_array(list) || json_array_size(list) > QG_020_PROPERTIES_MAX)
		return QG_020_REFUSE(why, "%s is not an array of at most %d objects", name, QG_020_PROPERTIES_MAX);
	json_t *const all = json_object();
	qg_err err = all == NULL ? QG_E_NOMEM : QG_OK;
	for (size_t i = 0; err == QG_OK && i < json_array_size(list); i++)
		err = merge(all, json_array_get(list, i), name, why);
	if (err == QG_OK && json_object_size(all) > 0)
		err = qg_020_extension_text(all, "", name, QG_020_OPTIONAL_MAX, out, why);
	json_decref(all);
	return err;
}

/* The drafts know no mandatory extension that is known here, so the first
 * object that is not empty tells what is not: the caller only wants a name. */
static qg_err
read_draft_mandatory(const json_t *doc, const json_t **out, qg_020_problem *why)
{
	const json_t *const list = json_object_get(doc, "extension_mandatory");
	*out = NULL;
	if (list != NULL && !json_is_array(list))
		return QG_020_REFUSE(why, "extension_mandatory is not an array of objects");
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *const entry = json_array_get(list, i);
		if (!json_is_object(entry))
			return QG_020_REFUSE(why, "extension_mandatory is not an array of objects");
		if (*out == NULL && json_object_size(entry) > 0)
			*out = entry;
	}
	return QG_OK;
}

static qg_err
read_draft(const json_t *doc, size_t max_keys, qg_020_keys *m, qg_020_problem *why)
{
	qg_err err = qg_020_read_object(doc, "the body", why);
	if (err == QG_OK)
		err = read_draft_mandatory(doc, &m->mandatory, why);
	if (err == QG_OK)
		err = read_draft_optional(doc, &m->optional, why);
	return err == QG_OK ? read_keys(doc, max_keys, m, why) : err;
}

qg_err
qg_020_draft_keys_read(const struct json_t *doc, const char *initiator, const char *target, size_t max_keys,
		       qg_020_keys *out, qg_020_problem *why)
{
	qg_020_keys m = {.n_keys = 0};
	qg_err err = qg_020_take_pair(initiator, target, &m.saes, why);
	if (err == QG_OK)
		err = read_draft(doc, max_keys, &m, why);
	return hand_over(err, &m, out);
}
