/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/json.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "qkdgate/secret.h"

/* Of this thread: jansson got no memory, which it often tells as a wrong token or not at all. */
static _Thread_local bool no_memory;

static void *
take_block(size_t n)
{
	void *p = malloc(n);
	no_memory |= p == NULL;
	return p;
}

/* Before main, because a block of the one allocator must never meet the other,
 * and jansson's setting is not safe to change while threads use it. */
__attribute__((constructor)) static void
use_wiping_allocators(void)
{
	json_set_alloc_funcs(take_block, qg_free_wiped);
}

static qg_err
fail(qg_json_error *why, const char *what)
{
	why->what = what;
	why->member[0] = '\0';
	return QG_E_PARSE;
}

/* Bounds what jansson will recurse into and allocate. Says nothing about the
 * text being JSON. */
static qg_err
check_shape(const char *text, size_t len, qg_json_error *why)
{
	bool in_string = false;
	size_t depth = 0;
	size_t values = 1;
	for (size_t i = 0; i < len; i++) {
		const char c = text[i];
		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
			continue;
		}
		in_string = c == '"';
		if (c == '{' || c == '[') {
			depth++;
			values++;
		} else if (c == ',') {
			values++;
		} else if ((c == '}' || c == ']') && depth > 0) {
			depth--;
		}
		if (depth > QG_JSON_DEPTH_MAX)
			return fail(why, "is nested too deeply");
		if (values > QG_JSON_VALUES_MAX)
			return fail(why, "has too many values");
	}
	return QG_OK;
}

/* Where the run of the characters in `set` that ends at `end` begins. */
static size_t
back_over(const char *text, size_t end, const char *set)
{
	while (end > 0 && text[end - 1] != '\0' && strchr(set, text[end - 1]) != NULL)
		end--;
	return end;
}

/* Copies the string token that ends at `end` if it is a plain name. */
static void
copy_name_before(const char *text, size_t end, char out[QG_JSON_MEMBER_MAX])
{
	out[0] = '\0';
	if (end < 2 || text[end - 1] != '"')
		return;
	size_t start = end - 1;
	while (start > 0 && text[start - 1] > ' ' && text[start - 1] < 0x7f && text[start - 1] != '"' &&
	       text[start - 1] != '\\')
		start--;
	const size_t n = end - 1 - start;
	if (start == 0 || text[start - 1] != '"' || n >= QG_JSON_MEMBER_MAX)
		return;
	memcpy(out, text + start, n);
	out[n] = '\0';
}

/* jansson stops right behind the token at fault. */
static qg_err
explain(const char *text, size_t len, const json_error_t *error, qg_json_error *why)
{
	size_t at = error->position < 0 ? 0 : (size_t)error->position;
	if (at > len)
		at = len;
	switch (json_error_code(error)) {
	case json_error_duplicate_key:
		why->what = "is a duplicate";
		copy_name_before(text, at, why->member);
		return QG_E_PARSE;
	case json_error_numeric_overflow:
		why->what = "is out of range";
		at = back_over(text, at, "0123456789+-.eE");
		at = back_over(text, at, " \t\r\n");
		at = back_over(text, at, ":");
		copy_name_before(text, back_over(text, at, " \t\r\n"), why->member);
		return QG_E_PARSE;
	default:
		return fail(why, "is not valid JSON");
	}
}

static qg_err
parse(const char *text, size_t len, json_type wanted, const char *otherwise, struct json_t **out, qg_json_error *why)
{
	const qg_err err = check_shape(text, len, why);
	if (err != QG_OK)
		return err;
	json_error_t error;
	no_memory = false;
	json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
	if (json == NULL && no_memory)
		return QG_E_NOMEM;
	if (json == NULL)
		return explain(text, len, &error, why);
	if (json_typeof(json) != wanted) {
		json_decref(json);
		return fail(why, otherwise);
	}
	*out = json;
	return QG_OK;
}

qg_err
qg_json_parse_object(const char *text, size_t len, struct json_t **out, qg_json_error *why)
{
	return parse(text, len, JSON_OBJECT, "is not a JSON object", out, why);
}

qg_err
qg_json_parse_array(const char *text, size_t len, struct json_t **out, qg_json_error *why)
{
	return parse(text, len, JSON_ARRAY, "is not a JSON array", out, why);
}

bool
qg_json_ran_out(void)
{
	const bool was = no_memory;
	no_memory = false;
	return was;
}

void
qg_json_free(struct json_t **j)
{
	if (j == NULL || *j == NULL)
		return;
	json_decref(*j);
	*j = NULL;
}
