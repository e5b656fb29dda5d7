/* SPDX-License-Identifier: Apache-2.0 */
/* What a key manager answers, as structs. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client_internal.h"
#include "qkdgate/encode.h"
#include "qkdgate/json.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

/* The keys and where their bytes are, in one block with the public part first. */
typedef struct keys {
	qg_client_keys public;
	qg_secret *bytes;
	qg_client_key key[];
} keys;

static void
json_auto(json_t **j)
{
	qg_json_free(j);
}
#define JSON_AUTO __attribute__((cleanup(json_auto))) json_t

static qg_err
read_object(const char *body, size_t len, json_t **out)
{
	qg_json_error why;
	qg_err err = qg_json_parse_object(body, len, out, &why);
	return err == QG_E_PARSE ? QG_E_PROTO : err;
}

static void
keys_free(keys **k)
{
	if (*k == NULL)
		return;
	qg_secret_free(&(*k)->bytes);
	free(*k);
	*k = NULL;
}

void
qg_client_keys_free(qg_client_keys **k)
{
	if (k == NULL || *k == NULL)
		return;
	keys *all = (keys *)*k;
	*k = NULL;
	keys_free(&all);
}

/* Room for what all values decode to at most; 0 when one is no string. */
static size_t
room_for(const json_t *list)
{
	size_t room = 1;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *value = json_object_get(json_array_get(list, i), "key");
		if (!json_is_string(value))
			return 0;
		room += json_string_length(value) / 4 * 3;
	}
	return room;
}

static qg_err
read_key(const json_t *entry, qg_secret *bytes, qg_client_key *out)
{
	const json_t *value = json_object_get(entry, "key"), *id = json_object_get(entry, "key_ID");
	qg_uuid uuid;
	size_t len = 0;
	if (!json_is_string(id) || qg_uuid_parse(json_string_value(id), json_string_length(id), &uuid) != QG_OK)
		return QG_E_PROTO;
	if (qg_base64_decode(json_string_value(value), json_string_length(value), bytes->data + bytes->len,
			     bytes->room - bytes->len, &len) != QG_OK || len == 0)
		return QG_E_PROTO;
	qg_uuid_format(&uuid, out->id);
	out->bytes = bytes->data + bytes->len;
	out->len = len;
	bytes->len += len;
	return QG_OK;
}

qg_err
qg_client_keys_read(const char *body, size_t len, const char *const *ids, size_t n, qg_client_keys **out)
{
	JSON_AUTO *doc = NULL;
	__attribute__((cleanup(keys_free))) keys *k = NULL;
	qg_err err = read_object(body, len, &doc);
	if (err != QG_OK)
		return err;
	const json_t *list = json_object_get(doc, "keys");
	size_t room = json_is_array(list) && json_array_size(list) == n ? room_for(list) : 0;
	if (room == 0)
		return QG_E_PROTO;
	k = calloc(1, sizeof *k + n * sizeof k->key[0]);
	if (k == NULL)
		return QG_E_NOMEM;
	err = qg_secret_new(room, &k->bytes);
	for (size_t i = 0; err == QG_OK && i < n; i++) {
		err = read_key(json_array_get(list, i), k->bytes, &k->key[i]);
		if (err == QG_OK && ids != NULL && strcasecmp(ids[i], k->key[i].id) != 0)
			err = QG_E_PROTO;
	}
	if (err != QG_OK)
		return err;
	k->public = (qg_client_keys){.n = n, .key = k->key};
	*out = &k->public;
	k = NULL;
	return QG_OK;
}

qg_err
qg_client_status_read(const char *body, size_t len, qg_client_status *out)
{
	JSON_AUTO *doc = NULL;
	qg_client_status st;
	const struct {
		const char *name;
		uint64_t *to;
	} members[] = {
		{"key_size", &st.key_size_bits},
		{"stored_key_count", &st.stored_key_count},
		{"max_key_count", &st.max_key_count},
		{"max_key_per_request", &st.max_key_per_request},
		{"max_key_size", &st.max_key_size_bits},
		{"min_key_size", &st.min_key_size_bits},
	};
	qg_err err = read_object(body, len, &doc);
	for (size_t i = 0; err == QG_OK && i < sizeof members / sizeof members[0]; i++) {
		const json_t *value = json_object_get(doc, members[i].name);
		if (!json_is_integer(value) || json_integer_value(value) < 0)
			err = QG_E_PROTO;
		else
			*members[i].to = (uint64_t)json_integer_value(value);
	}
	if (err == QG_OK)
		*out = st;
	return err;
}

void
qg_client_error_read(const char *body, size_t len, char *out, size_t room)
{
	JSON_AUTO *doc = NULL;
	size_t n = 0;
	out[0] = '\0';
	if (read_object(body, len, &doc) != QG_OK)
		return;
	const char *text = json_string_value(json_object_get(doc, "message"));
	for (; text != NULL && text[n] != '\0' && n + 1 < room; n++)
		out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
	out[n] = '\0';
}
