/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of ETSI GS QKD 020 and its drafts: the first byte chooses which. What
 * can be read is written and read again as the same bytes. */
#include "fuzz.h"

#include "qkdgate/etsi020_msg.h"
#include "qkdgate/json.h"

#define KEYS_MAX 16
#define MASK "E1_kxi_mask"

static void
check_saes(const qg_020_saes *s)
{
	HOLDS(qg_020_sae_id_valid(s->initiator, strlen(s->initiator)));
	HOLDS(s->n_targets >= 1 && s->n_targets <= QG_020_TARGETS_MAX);
	for (size_t i = 0; i < s->n_targets; i++) {
		HOLDS(qg_020_sae_id_valid(s->target[i], strlen(s->target[i])));
		HOLDS(strcmp(s->target[i], s->initiator) != 0);
	}
}

static void
check_why(const qg_020_problem *why)
{
	HOLDS(why->text[0] != '\0' && strnlen(why->text, sizeof why->text) < sizeof why->text);
	for (const char *p = why->text; *p != '\0'; p++)
		HOLDS(*p >= ' ' && *p <= '~');
}

static void
check_keys(const qg_020_keys *m)
{
	size_t sum = 0;
	check_saes(&m->saes);
	HOLDS(m->n_keys >= 1 && m->n_keys <= KEYS_MAX);
	for (size_t i = 0; i < m->n_keys; i++) {
		HOLDS(m->key[i].size >= 1 && m->key[i].size <= QG_020_VALUE_MAX);
		HOLDS(m->key[i].value == m->values->data + sum);
		sum += m->key[i].size;
	}
	HOLDS(sum == m->values->len);
}

/* The body of what was read, in the form it came in; a mandatory extension is
 * a view, and left out. */
static qg_secret *
keys_body(const qg_020_keys *m, bool draft)
{
	qg_secret *out = NULL;
	const qg_020_keys_out from = {
		.initiator = m->saes.initiator, .targets = m->saes.target, .n_targets = m->saes.n_targets,
		.callback = m->callback, .key = m->key, .n_keys = m->n_keys, .optional = m->optional,
	};
	HOLDS((draft ? qg_020_draft_keys_write(&from, &out) : qg_020_keys_write(&from, &out)) == QG_OK);
	return out;
}

static qg_err
read_keys(const struct json_t *doc, bool draft, qg_020_keys *m, qg_020_problem *why)
{
	return draft ? qg_020_draft_keys_read(doc, "sae-a", "sae-z", KEYS_MAX, m, why)
		     : qg_020_keys_read(doc, KEYS_MAX, m, why);
}

static void
keys(const struct json_t *doc, bool draft)
{
	qg_020_keys m, again;
	qg_020_problem why;
	qg_json_error error;
	struct json_t *copy = NULL;
	if (read_keys(doc, draft, &m, &why) != QG_OK) {
		check_why(&why);
		return;
	}
	check_keys(&m);
	qg_secret *first = keys_body(&m, draft);
	HOLDS(qg_json_parse_object((const char *)first->data, first->len, &copy, &error) == QG_OK);
	HOLDS(read_keys(copy, draft, &again, &why) == QG_OK);
	qg_secret *second = keys_body(&again, draft);
	HOLDS(first->len == second->len && memcmp(first->data, second->data, first->len) == 0);
	qg_secret_free(&first);
	qg_secret_free(&second);
	qg_020_keys_fini(&again);
	qg_020_keys_fini(&m);
	qg_json_free(&copy);
}

static void
acks(const struct json_t *doc, bool draft)
{
	qg_020_acks m;
	qg_020_problem why;
	if (qg_020_acks_read(doc, draft, &m, &why) != QG_OK) {
		check_why(&why);
		return;
	}
	for (size_t i = 0; i < m.n; i++) {
		const qg_020_ack *a = &m.ack[i];
		qg_secret *out = NULL;
		check_saes(&a->saes);
		HOLDS(a->n_ids >= 1 && a->n_ids <= QG_020_KEYS_MAX && a->status < QG_020_STATUSES);
		const qg_020_ack_out from = {.status = a->status, .initiator = a->saes.initiator,
					     .targets = a->saes.target, .n_targets = a->saes.n_targets, .ids = a->ids,
					     .n_ids = a->n_ids, .message = a->message};
		struct json_t *copy = NULL;
		qg_json_error error;
		qg_020_acks again;
		HOLDS(qg_020_acks_write(&from, 1, &out) == QG_OK);
		HOLDS(qg_json_parse_array((const char *)out->data, out->len, &copy, &error) == QG_OK);
		HOLDS(qg_020_acks_read(copy, false, &again, &why) == QG_OK);
		HOLDS(again.ack[0].n_ids == a->n_ids && again.ack[0].status == a->status);
		qg_020_acks_fini(&again);
		qg_json_free(&copy);
		qg_secret_free(&out);
	}
	qg_020_acks_fini(&m);
}

static void
voids(const struct json_t *doc)
{
	qg_020_void m;
	qg_020_problem why;
	qg_secret *out = NULL;
	if (qg_020_void_read(doc, false, &m, &why) != QG_OK) {
		check_why(&why);
		return;
	}
	check_saes(&m.saes);
	HOLDS(m.n_ids <= QG_020_KEYS_MAX);
	HOLDS(qg_020_void_write(m.saes.initiator, m.saes.target, m.saes.n_targets, m.callback, m.ids, m.n_ids, &out) ==
	      QG_OK);
	qg_secret_free(&out);
	qg_020_void_fini(&m);
}

static void
masks(const struct json_t *doc)
{
	qg_020_mask m, again;
	qg_json_error error;
	struct json_t *copy = NULL;
	char *text = NULL;
	if (qg_020_mask_read(doc, MASK, &m) != QG_OK)
		return;
	HOLDS(qg_020_mask_write(&m, MASK, &text) == QG_OK);
	HOLDS(qg_json_parse_object(text, strlen(text), &copy, &error) == QG_OK);
	HOLDS(qg_020_mask_read(copy, MASK, &again) == QG_OK);
	HOLDS(memcmp(&m, &again, sizeof m) == 0);
	qg_json_free(&copy);
	free(text);
}

static void
problems(const struct json_t *doc)
{
	qg_020_problem_seen seen;
	qg_020_problem_read(doc, &seen);
	HOLDS(strnlen(seen.type, sizeof seen.type) < sizeof seen.type);
	for (const char *p = seen.detail; *p != '\0'; p++)
		HOLDS(*p >= ' ' && *p <= '~' && *p != '"');
}

static void
read_as(uint8_t kind, const struct json_t *doc)
{
	switch (kind) {
	case 0:
	case 1:
		keys(doc, kind == 1);
		break;
	case 2:
	case 3:
		acks(doc, kind == 3);
		break;
	case 4:
		voids(doc);
		break;
	case 5:
		masks(doc);
		break;
	default:
		problems(doc);
		break;
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct json_t *doc = NULL;
	qg_json_error error;
	if (size == 0)
		return 0;
	const uint8_t kind = data[0] % 7;
	char *json = copy_of(data + 1, size - 1);
	const qg_err err = kind == 2 || kind == 3 ? qg_json_parse_array(json, size - 1, &doc, &error)
						  : qg_json_parse_object(json, size - 1, &doc, &error);
	if (err == QG_OK)
		read_as(kind, doc);
	qg_json_free(&doc);
	free(json);
	return 0;
}
