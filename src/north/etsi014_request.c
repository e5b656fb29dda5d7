/* SPDX-License-Identifier: Apache-2.0 */
/* Key requests (ETSI GS QKD 014, table 10). */
#include <jansson.h>
#include <string.h>

#include "etsi014_internal.h"
#include "qkdgate/json.h"
#include "qkdgate/log.h"

/* What a decimal that does not fit stands for: above every limit, and a
 * multiple of 8, so that the message is about the limit. */
#define BEYOND ((json_int_t)1000000000000000000)

/* --- numbers ---------------------------------------------------------------- */

static qg_err
check_number(json_int_t value, const qg_policy_terms *terms, qg_014_enc_request *out, qg_014_problem *why)
{
	if (value < 1 || value > (json_int_t)terms->max_keys)
		return QG_014_REFUSE(why, "number must be from 1 to %lu", (unsigned long)terms->max_keys);
	out->number = (uint32_t)value;
	return QG_OK;
}

static qg_err
check_size(json_int_t value, const qg_policy_terms *terms, qg_014_enc_request *out, qg_014_problem *why)
{
	if (value % 8 != 0)
		return QG_014_REFUSE(why, "size shall be a multiple of 8");
	if (value < (json_int_t)terms->min_key_bits || value > (json_int_t)terms->max_key_bits)
		return QG_014_REFUSE(why, "size must be from %lu to %lu bits",
				     (unsigned long)terms->min_key_bits,
			      (unsigned long)terms->max_key_bits);
	out->size_bits = (uint32_t)value;
	return QG_OK;
}

typedef qg_err check_fn(json_int_t value, const qg_policy_terms *terms, qg_014_enc_request *out,
			qg_014_problem *why);

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
	out->asks_hops = false;
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

qg_err
qg_014_refuse_arg(const qg_014_arg *args, size_t i, qg_014_problem *why)
{
	for (size_t j = 0; j < i; j++)
		if (strcmp(args[j].name, args[i].name) == 0)
			return QG_014_REFUSE(why, "query parameter %s is a duplicate",
					     qg_log_safe(args[i].name));
	return QG_014_REFUSE(why, "query parameter %s is not known", qg_log_safe(args[i].name));
}

qg_err
qg_014_no_query(const qg_014_arg *args, size_t n, qg_014_problem *why)
{
	return n == 0 ? QG_OK : qg_014_refuse_arg(args, 0, why);
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
			return qg_014_refuse_arg(args, i, why);
		seen[f] = true;
		json_int_t value;
		if (parse_decimal(args[i].value, &value) != QG_OK)
			return QG_014_REFUSE(why, "%s must be a decimal integer", number_fields[f].name);
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
		return QG_014_REFUSE(why, "%s must be an array", member);
	if (json_array_size(array) > QG_014_EXTENSIONS_MAX)
		return QG_014_REFUSE(why, "%s must have at most %d entries", member, QG_014_EXTENSIONS_MAX);
	for (size_t i = 0; i < json_array_size(array); i++) {
		const json_t *entry = json_array_get(array, i);
		if (!json_is_object(entry) || json_object_size(entry) != 1)
			return QG_014_REFUSE(why, "%s must have objects of one name and value", member);
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
		return QG_014_REFUSE(why, "not all extension_mandatory parameters are supported");
	return QG_OK;
}

static qg_err
take_extension(const struct extension *x, const json_t *value, bool *seen, qg_014_enc_request *out,
	       qg_014_problem *why)
{
	if (*seen)
		return QG_014_REFUSE(why, "extension_mandatory %s is a duplicate", x->name);
	*seen = true;
	const json_int_t v = json_integer_value(value);
	if (!json_is_integer(value) || v < (json_int_t)x->min || v > (json_int_t)UINT32_MAX)
		return QG_014_REFUSE(why, "extension_mandatory %s must be an integer from %lu to %lu",
				     x->name,
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
		out->asks_hops |= x->offset != offsetof(qg_014_enc_request, max_age_ms);
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
take_extra(const json_t *value, const char *master, const char *slave, qg_014_enc_request *out,
	   qg_014_problem *why)
{
	if (!json_is_string(value))
		return QG_014_REFUSE(why, EXTRA " must have strings");
	const char *id = json_string_value(value);
	if (!qg_014_sae_id_valid(id))
		return QG_014_REFUSE(why, EXTRA " has a blank or malformed SAE ID");
	if (strcmp(id, master) == 0)
		return QG_014_REFUSE(why, EXTRA " has the master SAE %s", qg_log_safe(id));
	if (strcmp(id, slave) == 0)
		return QG_014_REFUSE(why, EXTRA " has the slave SAE %s", qg_log_safe(id));
	for (size_t i = 0; i < out->n_extra; i++)
		if (strcmp(out->extra[i], id) == 0)
			return QG_014_REFUSE(why, EXTRA " has a duplicate: %s", qg_log_safe(id));
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
		return QG_014_REFUSE(why, EXTRA " must be an array");
	const size_t n = json_array_size(array);
	if (n == 0)
		return QG_014_REFUSE(why, EXTRA " is empty");
	if (n > terms->max_extra_slaves || n > QG_014_EXTRA_MAX)
		return QG_014_REFUSE(why, EXTRA " must have at most %lu entries",
			      (unsigned long)terms->max_extra_slaves);
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < n; i++)
		err = take_extra(json_array_get(array, i), master, slave, out, why);
	return err;
}

/* --- bodies ---------------------------------------------------------------------------- */

qg_err
qg_014_parse_body(const char *body, size_t len, json_t **out, qg_014_problem *why)
{
	qg_json_error error;
	const qg_err err = qg_json_parse_object(body, len, out, &error);
	if (err != QG_E_PARSE)
		return err;
	if (error.member[0] != '\0')
		return QG_014_REFUSE(why, "request body: member %s %s", error.member, error.what);
	return QG_014_REFUSE(why, "request body %s", error.what);
}

static qg_err
read_numbers(const json_t *request, const qg_policy_terms *terms, qg_014_enc_request *out,
	     qg_014_problem *why)
{
	for (size_t f = 0; f < N_NUMBER_FIELDS; f++) {
		const json_t *value = json_object_get(request, number_fields[f].name);
		if (value == NULL)
			continue;
		if (!json_is_integer(value))
			return QG_014_REFUSE(why, "%s must be an integer", number_fields[f].name);
		const qg_err err = number_fields[f].check(json_integer_value(value), terms, out, why);
		if (err != QG_OK)
			return err;
	}
	return QG_OK;
}

qg_err
qg_014_enc_body(const char *body, size_t len, const qg_policy_terms *terms, const char *master,
		const char *slave, qg_014_enc_request *out, qg_014_problem *why)
{
	enc_defaults(terms, out);
	if (len == 0)
		return QG_OK;
	qg_err err = qg_014_parse_body(body, len, &out->json, why);
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
