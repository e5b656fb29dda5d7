/* SPDX-License-Identifier: Apache-2.0 */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "etsi014_internal.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"

/* What a decimal that does not fit stands for: above every limit, and a
 * multiple of 8, so that the message is about the limit. */
#define BEYOND ((json_int_t)1000000000000000000)

void
qg_014_say(qg_014_problem *why, const char *fmt, ...)
{
	va_list args;
	va_start(args, fmt);
	const int n = vsnprintf(why->message, sizeof why->message, fmt, args);
	va_end(args);
	if (n < 0)
		why->message[0] = '\0'; /* a message that is too long is cut, which harms nobody */
}

#define REFUSE(why, ...) (qg_014_say(why, __VA_ARGS__), QG_E_INVAL)

/* --- SAE IDs, Content-Type ------------------------------------------------- */

/* Bytes of the UTF-8 sequence that s begins with (RFC 3629), 0 when it is none. */
static size_t
utf8_len(const unsigned char *s)
{
	static const struct {
		unsigned char first, last, second_min, second_max;
		size_t len;
	} forms[] = {
		{0x01, 0x7f, 0, 0xff, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
		{0xe1, 0xec, 0x80, 0xbf, 3},    {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
		{0xf0, 0xf0, 0x90, 0xbf, 4},    {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
	};
	for (size_t f = 0; f < sizeof forms / sizeof forms[0]; f++) {
		if (s[0] < forms[f].first || s[0] > forms[f].last)
			continue;
		if (forms[f].len > 1 && (s[1] < forms[f].second_min || s[1] > forms[f].second_max))
			return 0;
		for (size_t i = 2; i < forms[f].len; i++)
			if ((s[i] & 0xc0) != 0x80)
				return 0;
		return forms[f].len;
	}
	return 0;
}

bool
qg_014_sae_id_valid(const char *id)
{
	const unsigned char *s = (const unsigned char *)id;
	bool blank = true;
	size_t len = 0;
	while (s[len] != '\0') {
		const size_t n = utf8_len(s + len);
		if (n == 0 || s[len] < ' ' || s[len] == 0x7f)
			return false;
		if (s[len] == 0xc2 && s[len + 1] < 0xa0) /* C1 controls */
			return false;
		blank = blank && s[len] == ' ';
		len += n;
		if (len > QG_014_SAE_ID_MAX)
			return false;
	}
	return !blank;
}

static const char *
skip_space(const char *s)
{
	return s + strspn(s, " \t");
}

bool
qg_014_type_is_json(const char *content_type)
{
	static const char type[] = "application/json";
	static const char charset[] = "charset=";
	if (content_type == NULL)
		return false;
	const char *s = skip_space(content_type);
	if (strncasecmp(s, type, sizeof type - 1) != 0)
		return false;
	s = skip_space(s + sizeof type - 1);
	if (*s == '\0')
		return true;
	if (*s++ != ';')
		return false;
	s = skip_space(s);
	if (strncasecmp(s, charset, sizeof charset - 1) != 0)
		return false;
	s += sizeof charset - 1;
	const bool quoted = *s == '"';
	s += quoted;
	if (strncasecmp(s, "utf-8", 5) != 0)
		return false;
	s += 5;
	if (quoted && *s++ != '"')
		return false;
	return *skip_space(s) == '\0';
}

/* --- numbers ---------------------------------------------------------------- */

static qg_err
check_number(json_int_t value, const qg_policy_terms *terms, qg_014_enc_request *out, qg_014_problem *why)
{
	if (value < 1 || value > (json_int_t)terms->max_keys)
		return REFUSE(why, "number must be from 1 to %lu", (unsigned long)terms->max_keys);
	out->number = (uint32_t)value;
	return QG_OK;
}

static qg_err
check_size(json_int_t value, const qg_policy_terms *terms, qg_014_enc_request *out, qg_014_problem *why)
{
	if (value % 8 != 0)
		return REFUSE(why, "size shall be a multiple of 8");
	if (value < (json_int_t)terms->min_key_bits || value > (json_int_t)terms->max_key_bits)
		return REFUSE(why, "size must be from %lu to %lu bits", (unsigned long)terms->min_key_bits,
			      (unsigned long)terms->max_key_bits);
	out->size_bits = (uint32_t)value;
	return QG_OK;
}

typedef qg_err check_fn(json_int_t value, const qg_policy_terms *terms, qg_014_enc_request *out, qg_014_problem *why);

static const struct number_field {
	const char *name;
	check_fn *check;
} number_fields[] = {
	{"number", check_number},
	{"size", check_size},
};
#define N_NUMBER_FIELDS (sizeof number_fields / sizeof number_fields[0])

static void
enc_defaults(const qg_policy_terms *terms, qg_014_enc_request *out)
{
	out->number = 1;
	out->size_bits = terms->default_key_bits;
	out->max_age_ms = 0;
	out->min_hops = 0;
	out->max_hops = UINT32_MAX;
	out->n_extra = 0;
	out->json = NULL;
}

/* --- the query ---------------------------------------------------------------- */

static qg_err
parse_decimal(const char *text, json_int_t *out)
{
	json_int_t v = 0;
	if (*text == '\0')
		return QG_E_PARSE;
	for (; *text != '\0'; text++) {
		if (*text < '0' || *text > '9')
			return QG_E_PARSE;
		v = v >= BEYOND / 10 ? BEYOND : v * 10 + (*text - '0');
	}
	*out = v;
	return QG_OK;
}

static qg_err
refuse_arg(const qg_014_arg *args, size_t i, qg_014_problem *why)
{
	for (size_t j = 0; j < i; j++)
		if (strcmp(args[j].name, args[i].name) == 0)
			return REFUSE(why, "query parameter %s is a duplicate", qg_log_safe(args[i].name));
	return REFUSE(why, "query parameter %s is not known", qg_log_safe(args[i].name));
}

qg_err
qg_014_no_query(const qg_014_arg *args, size_t n, qg_014_problem *why)
{
	return n == 0 ? QG_OK : refuse_arg(args, 0, why);
}

qg_err
qg_014_enc_query(const qg_014_arg *args, size_t n, const qg_policy_terms *terms, qg_014_enc_request *out,
		 qg_014_problem *why)
{
	bool seen[N_NUMBER_FIELDS] = {false};
	enc_defaults(terms, out);
	for (size_t i = 0; i < n; i++) {
		size_t f = 0;
		while (f < N_NUMBER_FIELDS && strcmp(args[i].name, number_fields[f].name) != 0)
			f++;
		if (f == N_NUMBER_FIELDS || seen[f])
			return refuse_arg(args, i, why);
		seen[f] = true;
		json_int_t value;
		if (parse_decimal(args[i].value, &value) != QG_OK)
			return REFUSE(why, "%s must be a decimal integer", number_fields[f].name);
		const qg_err err = number_fields[f].check(value, terms, out, why);
		if (err != QG_OK)
			return err;
	}
	return QG_OK;
}

/* --- extensions ----------------------------------------------------------------- */

static const struct extension {
	const char *name;
	size_t offset; /* of the uint32_t in qg_014_enc_request */
	uint32_t min;
} extensions[] = {
	{"max_age_ms", offsetof(qg_014_enc_request, max_age_ms), 1},
	{"min_hops", offsetof(qg_014_enc_request, min_hops), 0},
	{"max_hops", offsetof(qg_014_enc_request, max_hops), 0},
};
#define N_EXTENSIONS (sizeof extensions / sizeof extensions[0])

/* The array, and that its entries are objects of one pair (table 10). NULL
 * when the member is absent. */
static qg_err
get_extensions(const json_t *request, const char *member, json_t **out, qg_014_problem *why)
{
	json_t *array = json_object_get(request, member);
	*out = array;
	if (array == NULL)
		return QG_OK;
	if (!json_is_array(array))
		return REFUSE(why, "%s must be an array", member);
	if (json_array_size(array) > QG_014_EXTENSIONS_MAX)
		return REFUSE(why, "%s must have at most %d entries", member, QG_014_EXTENSIONS_MAX);
	for (size_t i = 0; i < json_array_size(array); i++) {
		const json_t *entry = json_array_get(array, i);
		if (!json_is_object(entry) || json_object_size(entry) != 1)
			return REFUSE(why, "%s must have objects of one name and value", member);
	}
	return QG_OK;
}

/* The one pair of an entry that get_extensions has seen. */
static const char *
pair_of(json_t *entry, json_t **value)
{
	void *it = json_object_iter(entry);
	*value = json_object_iter_value(it);
	return json_object_iter_key(it);
}

static const struct extension *
find_extension(const char *name)
{
	for (size_t i = 0; i < N_EXTENSIONS; i++)
		if (strcmp(extensions[i].name, name) == 0)
			return &extensions[i];
	return NULL;
}

static qg_err
check_supported(const json_t *array, qg_014_problem *why)
{
	why->n_details = 0;
	for (size_t i = 0; i < json_array_size(array); i++) {
		json_t *value;
		const char *name = pair_of(json_array_get(array, i), &value);
		if (find_extension(name) == NULL)
			why->details[why->n_details++] = name;
	}
	if (why->n_details > 0)
		return REFUSE(why, "not all extension_mandatory parameters are supported");
	return QG_OK;
}

static qg_err
take_extension(const struct extension *x, const json_t *value, bool *seen, qg_014_enc_request *out, qg_014_problem *why)
{
	if (*seen)
		return REFUSE(why, "extension_mandatory %s is a duplicate", x->name);
	*seen = true;
	const json_int_t v = json_integer_value(value);
	if (!json_is_integer(value) || v < (json_int_t)x->min || v > (json_int_t)UINT32_MAX)
		return REFUSE(why, "extension_mandatory %s must be an integer from %lu to %lu", x->name,
			      (unsigned long)x->min, (unsigned long)UINT32_MAX);
	const uint32_t u = (uint32_t)v;
	memcpy((char *)out + x->offset, &u, sizeof u);
	return QG_OK;
}

static qg_err
read_extensions(const json_t *request, qg_014_enc_request *out, qg_014_problem *why)
{
	bool seen[N_EXTENSIONS] = {false};
	json_t *array;
	qg_err err = get_extensions(request, "extension_mandatory", &array, why);
	if (err == QG_OK)
		err = check_supported(array, why);
	for (size_t i = 0; err == QG_OK && i < json_array_size(array); i++) {
		json_t *value;
		const struct extension *x = find_extension(pair_of(json_array_get(array, i), &value));
		err = take_extension(x, value, &seen[x - extensions], out, why);
	}
	if (err == QG_OK) /* a wish: its form is checked, and nothing is done about it */
		err = get_extensions(request, "extension_optional", &array, why);
	if (err == QG_OK && out->min_hops > out->max_hops)
		return QG_E_STATE;
	return err;
}

/* --- additional slaves -------------------------------------------------------------- */

#define EXTRA "additional_slave_SAE_IDs"

static qg_err
take_extra(const json_t *value, const char *master, const char *slave, qg_014_enc_request *out, qg_014_problem *why)
{
	if (!json_is_string(value))
		return REFUSE(why, EXTRA " must have strings");
	const char *id = json_string_value(value);
	if (!qg_014_sae_id_valid(id))
		return REFUSE(why, EXTRA " has a blank or malformed SAE ID");
	if (strcmp(id, master) == 0)
		return REFUSE(why, EXTRA " has the master SAE %s", qg_log_safe(id));
	if (strcmp(id, slave) == 0)
		return REFUSE(why, EXTRA " has the slave SAE %s", qg_log_safe(id));
	for (size_t i = 0; i < out->n_extra; i++)
		if (strcmp(out->extra[i], id) == 0)
			return REFUSE(why, EXTRA " has a duplicate: %s", qg_log_safe(id));
	out->extra[out->n_extra++] = id;
	return QG_OK;
}

static qg_err
read_extra(const json_t *request, const qg_policy_terms *terms, const char *master, const char *slave,
	   qg_014_enc_request *out, qg_014_problem *why)
{
	const json_t *array = json_object_get(request, EXTRA);
	if (array == NULL)
		return QG_OK;
	if (!json_is_array(array))
		return REFUSE(why, EXTRA " must be an array");
	const size_t n = json_array_size(array);
	if (n == 0)
		return REFUSE(why, EXTRA " is empty");
	if (n > terms->max_extra_slaves || n > QG_014_EXTRA_MAX)
		return REFUSE(why, EXTRA " must have at most %lu entries", (unsigned long)terms->max_extra_slaves);
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < n; i++)
		err = take_extra(json_array_get(array, i), master, slave, out, why);
	return err;
}

/* --- bodies ---------------------------------------------------------------------------- */

static qg_err
parse(const char *body, size_t len, json_t **out, qg_014_problem *why)
{
	qg_json_error error;
	const qg_err err = qg_json_parse_object(body, len, out, &error);
	if (err != QG_E_PARSE)
		return err;
	if (error.member[0] != '\0')
		return REFUSE(why, "request body: member %s %s", error.member, error.what);
	return REFUSE(why, "request body %s", error.what);
}

static qg_err
read_numbers(const json_t *request, const qg_policy_terms *terms, qg_014_enc_request *out, qg_014_problem *why)
{
	for (size_t f = 0; f < N_NUMBER_FIELDS; f++) {
		const json_t *value = json_object_get(request, number_fields[f].name);
		if (value == NULL)
			continue;
		if (!json_is_integer(value))
			return REFUSE(why, "%s must be an integer", number_fields[f].name);
		const qg_err err = number_fields[f].check(json_integer_value(value), terms, out, why);
		if (err != QG_OK)
			return err;
	}
	return QG_OK;
}

qg_err
qg_014_enc_body(const char *body, size_t len, const qg_policy_terms *terms, const char *master, const char *slave,
		qg_014_enc_request *out, qg_014_problem *why)
{
	enc_defaults(terms, out);
	if (len == 0)
		return QG_OK;
	qg_err err = parse(body, len, &out->json, why);
	if (err == QG_OK)
		err = read_numbers(out->json, terms, out, why);
	if (err == QG_OK)
		err = read_extra(out->json, terms, master, slave, out, why);
	if (err == QG_OK)
		err = read_extensions(out->json, out, why);
	return err;
}

void
qg_014_enc_fini(qg_014_enc_request *r)
{
	qg_json_free(&r->json);
}

/* --- key IDs ------------------------------------------------------------------------------ */

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
		return REFUSE(why, "key_IDs must have objects");
	const json_t *id = json_object_get(entry, "key_ID");
	if (!json_is_string(id))
		return REFUSE(why, "key_ID must be a string in every object of key_IDs");
	const json_t *extension = json_object_get(entry, "key_ID_extension");
	if (extension != NULL && !json_is_object(extension))
		return REFUSE(why, "key_ID_extension must be an object");
	if (qg_uuid_parse(json_string_value(id), json_string_length(id), out) != QG_OK)
		return REFUSE(why, "key_ID is not a UUID: %s", qg_log_safe(json_string_value(id)));
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
	return REFUSE(why, "key_IDs has a duplicate: %s", text);
}

static qg_err
read_key_ids_request(const json_t *request, uint32_t max_keys, qg_014_dec_request *r, qg_014_problem *why)
{
	const json_t *array = json_object_get(request, "key_IDs");
	if (array == NULL)
		return REFUSE(why, "key_IDs is missing");
	if (!json_is_array(array))
		return REFUSE(why, "key_IDs must be an array");
	const json_t *extension = json_object_get(request, "key_IDs_extension");
	if (extension != NULL && !json_is_object(extension))
		return REFUSE(why, "key_IDs_extension must be an object");
	const size_t n = json_array_size(array);
	if (n == 0)
		return REFUSE(why, "key_IDs is empty");
	if (n > max_keys || n > QG_KEYSTORE_KEYS_MAX)
		return REFUSE(why, "key_IDs must have at most %lu entries", (unsigned long)max_keys);
	return read_key_ids(array, r, why);
}

qg_err
qg_014_dec_body(const char *body, size_t len, uint32_t max_keys, qg_014_dec_request *out, qg_014_problem *why)
{
	if (len == 0)
		return REFUSE(why, "request body is empty: key_IDs is missing");
	json_t *request = NULL;
	qg_err err = parse(body, len, &request, why);
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
		return REFUSE(why, "query parameter key_ID is missing");
	for (size_t i = 0; i < n; i++)
		if (i > 0 || strcmp(args[i].name, "key_ID") != 0)
			return refuse_arg(args, i, why);
	qg_uuid id;
	if (qg_uuid_parse(args[0].value, strlen(args[0].value), &id) != QG_OK)
		return REFUSE(why, "key_ID is not a UUID: %s", qg_log_safe(args[0].value));
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
