/* SPDX-License-Identifier: Apache-2.0 */
/* Key IDs (ETSI GS QKD 014, table 12). */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "etsi014_internal.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"

#define SLOTS ((size_t)2 * QG_KEYSTORE_KEYS_MAX) /* a power of two */

/* Index of the first ID that stood before, or n. */
static size_t
find_repeat(const qg_uuid *ids, size_t n)
{
	uint16_t slots[SLOTS] = {0}; /* index + 1 */
	for (size_t i = 0; i < n; i++) {
		uint64_t h;
		memcpy(&h, ids[i].b + 8, sizeof h);
		size_t at = (size_t)((h * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (SLOTS - 1);
		for (; slots[at] != 0; at = (at + 1) & (SLOTS - 1))
			if (qg_uuid_equal(&ids[slots[at] - 1], &ids[i]))
				return i;
		slots[at] = (uint16_t)(i + 1);
	}
	return n;
}

static qg_err
take_key_id(const json_t *entry, qg_uuid *out, qg_014_problem *why)
{
	if (!json_is_object(entry))
		return QG_014_REFUSE(why, "key_IDs must have objects");
	const json_t *id = json_object_get(entry, "key_ID");
	if (!json_is_string(id))
		return QG_014_REFUSE(why, "key_ID must be a string in every object of key_IDs");
	const json_t *extension = json_object_get(entry, "key_ID_extension");
	if (extension != NULL && !json_is_object(extension))
		return QG_014_REFUSE(why, "key_ID_extension must be an object");
	if (qg_uuid_parse(json_string_value(id), json_string_length(id), out) != QG_OK)
		return QG_014_REFUSE(why, "key_ID is not a UUID: %s", qg_log_safe(json_string_value(id)));
	return QG_OK;
}

static qg_err
read_key_ids(const json_t *array, qg_014_dec_request *r, qg_014_problem *why)
{
	r->n = json_array_size(array);
	r->ids = calloc(r->n, sizeof *r->ids);
	if (r->ids == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < r->n; i++) {
		const qg_err err = take_key_id(json_array_get(array, i), &r->ids[i], why);
		if (err != QG_OK)
			return err;
	}
	const size_t repeat = find_repeat(r->ids, r->n);
	if (repeat == r->n)
		return QG_OK;
	char text[QG_UUID_TEXT];
	qg_uuid_format(&r->ids[repeat], text);
	return QG_014_REFUSE(why, "key_IDs has a duplicate: %s", text);
}

static qg_err
read_key_ids_request(const json_t *request, uint32_t max_keys, qg_014_dec_request *r, qg_014_problem *why)
{
	const json_t *array = json_object_get(request, "key_IDs");
	if (array == NULL)
		return QG_014_REFUSE(why, "key_IDs is missing");
	if (!json_is_array(array))
		return QG_014_REFUSE(why, "key_IDs must be an array");
	const json_t *extension = json_object_get(request, "key_IDs_extension");
	if (extension != NULL && !json_is_object(extension))
		return QG_014_REFUSE(why, "key_IDs_extension must be an object");
	const size_t n = json_array_size(array);
	if (n == 0)
		return QG_014_REFUSE(why, "key_IDs is empty");
	if (n > max_keys || n > QG_KEYSTORE_KEYS_MAX)
		return QG_014_REFUSE(why, "key_IDs must have at most %lu entries", (unsigned long)max_keys);
	return read_key_ids(array, r, why);
}

/* --- the plain form ----------------------------------------------------------
 * Requests for many keys are 7 KB of {"key_IDs":[{"key_ID":"..."},...]} and
 * nothing else, and making a tree of that was more than half of all they cost. So
 * just this form, with any white space, is read as it stands. Whatever differs in
 * the least, right or wrong, is left to the parser and its messages. */

static bool
is_next(const char **at, const char *end, const char *token)
{
	const size_t len = strlen(token);
	while (*at < end && (**at == ' ' || **at == '\n' || **at == '\r' || **at == '\t'))
		++*at;
	if ((size_t)(end - *at) < len || memcmp(*at, token, len) != 0)
		return false;
	*at += len;
	return true;
}

static bool
read_plain_id(const char **at, const char *end, qg_uuid *out)
{
	enum { CHARS = QG_UUID_TEXT - 1 };
	if (!is_next(at, end, "{") || !is_next(at, end, "\"key_ID\"") || !is_next(at, end, ":") ||
	    !is_next(at, end, "\"") || end - *at < CHARS || qg_uuid_parse(*at, CHARS, out) != QG_OK)
		return false;
	*at += CHARS;
	return *at < end && *(*at)++ == '"' && is_next(at, end, "}");
}

/* The IDs up to the end of the text; false: not the plain form. */
static bool
read_plain(const char *at, const char *end, size_t most, qg_014_dec_request *r)
{
	if (!is_next(&at, end, "{") || !is_next(&at, end, "\"key_IDs\"") || !is_next(&at, end, ":") ||
	    !is_next(&at, end, "["))
		return false;
	do {
		if (r->n == most || !read_plain_id(&at, end, &r->ids[r->n]))
			return false;
		r->n++;
	} while (is_next(&at, end, ","));
	return is_next(&at, end, "]") && is_next(&at, end, "}") && is_next(&at, end, "") && at == end &&
	       find_repeat(r->ids, r->n) == r->n;
}

static bool
take_plain(const char *body, size_t len, uint32_t max_keys, qg_014_dec_request *out)
{
	static const char least[] = "{\"key_ID\":\"00000000-0000-0000-0000-000000000000\"}";
	size_t most = len / (sizeof least - 1);
	most = most < max_keys ? most : max_keys;
	most = most < QG_KEYSTORE_KEYS_MAX ? most : QG_KEYSTORE_KEYS_MAX;
	if (most == 0)
		return false;
	qg_014_dec_request r = {.ids = malloc(most * sizeof *r.ids)};
	if (r.ids == NULL || !read_plain(body, body + len, most, &r)) {
		qg_014_dec_fini(&r);
		return false;
	}
	*out = r;
	return true;
}

qg_err
qg_014_dec_body(const char *body, size_t len, uint32_t max_keys, qg_014_dec_request *out, qg_014_problem *why)
{
	if (len == 0)
		return QG_014_REFUSE(why, "request body is empty: key_IDs is missing");
	if (take_plain(body, len, max_keys, out))
		return QG_OK;
	json_t *request = NULL;
	qg_err err = qg_014_parse_body(body, len, &request, why);
	if (err != QG_OK)
		return err;
	qg_014_dec_request r = {0};
	err = read_key_ids_request(request, max_keys, &r, why);
	qg_json_free(&request);
	if (err == QG_OK)
		*out = r;
	else
		qg_014_dec_fini(&r);
	return err;
}

qg_err
qg_014_dec_query(const qg_014_arg *args, size_t n, qg_014_dec_request *out, qg_014_problem *why)
{
	if (n == 0)
		return QG_014_REFUSE(why, "query parameter key_ID is missing");
	for (size_t i = 0; i < n; i++)
		if (i > 0 || strcmp(args[i].name, "key_ID") != 0)
			return qg_014_refuse_arg(args, i, why);
	qg_uuid id;
	if (qg_uuid_parse(args[0].value, strlen(args[0].value), &id) != QG_OK)
		return QG_014_REFUSE(why, "key_ID is not a UUID: %s", qg_log_safe(args[0].value));
	qg_uuid *ids = malloc(sizeof *ids);
	if (ids == NULL)
		return QG_E_NOMEM;
	*ids = id;
	*out = (qg_014_dec_request){.ids = ids, .n = 1};
	return QG_OK;
}

void
qg_014_dec_fini(qg_014_dec_request *r)
{
	free(r->ids);
	*r = (qg_014_dec_request){0};
}
