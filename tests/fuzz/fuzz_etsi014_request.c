/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of ETSI GS QKD 014: the first byte chooses body or query and the
 * method; a query is NAME=VALUE in lines. */
#include "fuzz.h"

#include "../../src/north/etsi014_internal.h"

static const qg_policy_terms terms = {.min_key_bits = 64,
				      .max_key_bits = 4096,
				      .default_key_bits = 256,
				      .max_keys = 128,
				      .max_extra_slaves = 3};

static void
check_why(const qg_014_problem *why)
{
	size_t len = strnlen(why->message, sizeof why->message);
	HOLDS(len > 0 && len < sizeof why->message);
	for (size_t i = 0; i < len; i++)
		HOLDS(why->message[i] >= ' ' && why->message[i] <= '~');
	char out[65536];
	size_t n = qg_014_error_json(why->message, why->details, why->n_details, out, sizeof out);
	HOLDS(n > 0);
}

static void
check_enc(const qg_014_enc_request *r, bool query)
{
	HOLDS(r->number >= 1 && r->number <= terms.max_keys);
	HOLDS(r->size_bits >= terms.min_key_bits && r->size_bits <= terms.max_key_bits && r->size_bits % 8 == 0);
	HOLDS(r->min_hops <= r->max_hops);
	HOLDS(r->n_extra <= terms.max_extra_slaves && !(query && r->n_extra > 0));
	for (size_t i = 0; i < r->n_extra; i++)
		HOLDS(qg_014_sae_id_valid(r->extra[i]) && strcmp(r->extra[i], "sae-m") != 0 &&
		      strcmp(r->extra[i], "sae-s") != 0);
}

static void
check_dec(const qg_014_dec_request *r)
{
	HOLDS(r->n >= 1 && r->n <= terms.max_keys);
	for (size_t i = 1; i < r->n; i++)
		HOLDS(memcmp(&r->ids[i - 1], &r->ids[i], sizeof *r->ids) != 0);
}

static size_t
arguments(char *text, qg_014_arg args[QG_014_ARGS_MAX])
{
	size_t n = 0;
	for (char *save = NULL, *line = strtok_r(text, "\n", &save); line != NULL && n < QG_014_ARGS_MAX;
	     line = strtok_r(NULL, "\n", &save)) {
		char *value = strchr(line, '=');
		if (value != NULL)
			*value++ = '\0';
		args[n++] = (qg_014_arg){.name = line, .value = value != NULL ? value : ""};
	}
	return n;
}

static void
enc(const uint8_t *data, size_t size, bool query)
{
	qg_014_enc_request r;
	qg_014_problem why = {.n_details = 0};
	qg_014_arg args[QG_014_ARGS_MAX];
	char *text = text_of(data, size);
	qg_err err = query ? qg_014_enc_query(args, arguments(text, args), &terms, &r, &why)
			   : qg_014_enc_body(text, size, &terms, "sae-m", "sae-s", &r, &why);
	if (err == QG_OK)
		check_enc(&r, query);
	else if (err == QG_E_INVAL)
		check_why(&why);
	qg_014_enc_fini(&r);
	free(text);
}

static void
dec(const uint8_t *data, size_t size, bool query)
{
	qg_014_dec_request r = {.n = 0};
	qg_014_problem why = {.n_details = 0};
	qg_014_arg args[QG_014_ARGS_MAX];
	char *text = text_of(data, size);
	qg_err err = query ? qg_014_dec_query(args, arguments(text, args), &r, &why)
			   : qg_014_dec_body(text, size, terms.max_keys, &r, &why);
	if (err == QG_OK) {
		check_dec(&r);
		qg_014_dec_fini(&r);
	} else if (err == QG_E_INVAL) {
		check_why(&why);
	}
	free(text);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size == 0)
		return 0;
	if (data[0] & 1)
		enc(data + 1, size - 1, data[0] & 2);
	else
		dec(data + 1, size - 1, data[0] & 2);
	char *type = text_of(data + 1, size - 1);
	(void)qg_014_type_is_json(type);
	(void)qg_014_sae_id_valid(type);
	free(type);
	return 0;
}
