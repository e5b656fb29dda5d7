/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies go straight into secret memory: first they are counted, then written. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "etsi020_msg_internal.h"
#include "qkdgate/text.h"

static void
put_id(qg_text *t, const qg_uuid *id)
{
	char id_text[QG_UUID_TEXT];
	qg_uuid_format(id, id_text);
	QG_TEXT_PUT(t, "\"");
	qg_text_put(t, id_text, sizeof id_text - 1);
	QG_TEXT_PUT(t, "\"");
}

static void
put_strings(qg_text *t, const char *const *s, size_t n)
{
	QG_TEXT_PUT(t, "[");
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			QG_TEXT_PUT(t, ",");
		qg_text_put_json_string(t, s[i]);
	}
	QG_TEXT_PUT(t, "]");
}

/* ,"name":VALUE where there is one */
static void
put_member(qg_text *t, const char *name, const char *json)
{
	if (json == NULL)
		return;
	QG_TEXT_PUT(t, ",");
	qg_text_put_json_string(t, name);
	QG_TEXT_PUT(t, ":");
	qg_text_put(t, json, strlen(json));
}

static void
put_string_member(qg_text *t, const char *name, const char *value)
{
	if (value == NULL)
		return;
	put_member(t, name, "");
	qg_text_put_json_string(t, value);
}

static void
put_saes(qg_text *t, const char *initiator, const char *const *targets, size_t n_targets)
{
	put_string_member(t, "initiator_sae_id", initiator);
	put_member(t, "target_sae_ids", "");
	put_strings(t, targets, n_targets);
}

/* Counts, then writes into a secret of that size. */
typedef void put_body(qg_text *t, const void *m);

static qg_err
write_secret(put_body *body, const void *m, qg_secret **out)
{
	qg_text count = {.buf = NULL};
	qg_secret *s = NULL;
	body(&count, m);
	const qg_err err = qg_secret_new(count.len, &s);
	if (err != QG_OK)
		return err;
	qg_text t = {.buf = (char *)s->data, .room = s->room};
	body(&t, m);
	assert(t.len == count.len);
	s->len = t.len;
	*out = s;
	return QG_OK;
}

/* --- keys ------------------------------------------------------------------------ */

static void
put_keys(qg_text *t, const qg_020_keys_out *m)
{
	QG_TEXT_PUT(t, "{\"keys\":[");
	for (size_t i = 0; i < m->n_keys; i++) {
		if (i > 0)
			QG_TEXT_PUT(t, ",");
		QG_TEXT_PUT(t, "{\"key_id\":");
		put_id(t, &m->key[i].id);
		QG_TEXT_PUT(t, ",\"value\":\"");
		qg_text_put_base64(t, m->key[i].value, m->key[i].size);
		QG_TEXT_PUT(t, "\"");
		put_member(t, "extension", m->key[i].extension);
		QG_TEXT_PUT(t, "}");
	}
	QG_TEXT_PUT(t, "]");
}

static void
put_container(qg_text *t, const void *body)
{
	const qg_020_keys_out *const m = body;
	put_keys(t, m);
	put_saes(t, m->initiator, m->targets, m->n_targets);
	put_string_member(t, "ack_callback_url", m->callback);
	put_member(t, "extension_mandatory", m->mandatory);
	put_member(t, "extension_optional", m->optional);
	QG_TEXT_PUT(t, "}");
}

qg_err
qg_020_keys_write(const qg_020_keys_out *m, qg_secret **out)
{
	return write_secret(put_container, m, out);
}

/* One object in the array: what the drafts say of its form is no more. */
static void
put_draft(qg_text *t, const void *body)
{
	const qg_020_keys_out *const m = body;
	put_keys(t, m);
	if (m->optional != NULL) {
		QG_TEXT_PUT(t, ",\"extension_optional\":[");
		qg_text_put(t, m->optional, strlen(m->optional));
		QG_TEXT_PUT(t, "]");
	}
	QG_TEXT_PUT(t, "}");
}

qg_err
qg_020_draft_keys_write(const qg_020_keys_out *m, qg_secret **out)
{
	return m->mandatory == NULL ? write_secret(put_draft, m, out) : QG_E_UNSUPPORTED;
}

static void
put_escaped(qg_text *t, const char *s)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
	for (; *s != '\0'; s++) {
		char escape[4];
		if (strchr(plain, *s) != NULL) {
			qg_text_put(t, s, 1);
			continue;
		}
		const int n = snprintf(escape, sizeof escape, "%%%02X", (unsigned)(unsigned char)*s);
		assert(n == 3);
		qg_text_put(t, escape, (size_t)n);
	}
}

qg_err
qg_020_draft_path(const char *initiator, const char *target, char *out, size_t room)
{
	qg_text t = {.buf = out, .room = room};
	QG_TEXT_PUT(&t, "/");
	put_escaped(&t, initiator);
	QG_TEXT_PUT(&t, "/");
	put_escaped(&t, target);
	if (t.len >= room)
		return QG_E_RANGE;
	out[t.len] = '\0';
	return QG_OK;
}

/* --- acks and voids ---------------------------------------------------------------- */

typedef struct ack_list {
	const qg_020_ack_out *ack;
	size_t n;
} ack_list;

static void
put_ack(qg_text *t, const qg_020_ack_out *a)
{
	QG_TEXT_PUT(t, "{\"key_id_container\":[");
	for (size_t i = 0; i < a->n_ids; i++) {
		if (i > 0)
			QG_TEXT_PUT(t, ",");
		QG_TEXT_PUT(t, "{\"key_id\":");
		put_id(t, &a->ids[i]);
		QG_TEXT_PUT(t, "}");
	}
	QG_TEXT_PUT(t, "]");
	put_string_member(t, "ack_status", qg_020_status_words[a->status]);
	put_saes(t, a->initiator, a->targets, a->n_targets);
	put_string_member(t, "message", a->message);
	QG_TEXT_PUT(t, "}");
}

static void
put_acks(qg_text *t, const void *body)
{
	const ack_list *const m = body;
	QG_TEXT_PUT(t, "[");
	for (size_t i = 0; i < m->n; i++) {
		if (i > 0)
			QG_TEXT_PUT(t, ",");
		put_ack(t, &m->ack[i]);
	}
	QG_TEXT_PUT(t, "]");
}

qg_err
qg_020_acks_write(const qg_020_ack_out *ack, size_t n, qg_secret **out)
{
	return write_secret(put_acks, &(ack_list){.ack = ack, .n = n}, out);
}

typedef struct void_out {
	const char *initiator, *callback;
	const char *const *targets;
	size_t n_targets;
	const qg_uuid *ids;
	size_t n_ids;
} void_out;

static void
put_void(qg_text *t, const void *body)
{
	const void_out *const m = body;
	QG_TEXT_PUT(t, "{\"key_ids\":[");
	for (size_t i = 0; i < m->n_ids; i++) {
		if (i > 0)
			QG_TEXT_PUT(t, ",");
		put_id(t, &m->ids[i]);
	}
	QG_TEXT_PUT(t, "]");
	put_saes(t, m->initiator, m->targets, m->n_targets);
	put_string_member(t, "ack_callback_url", m->callback);
	if (m->n_ids == 0)
		put_member(t, "all_confirmation", "true");
	QG_TEXT_PUT(t, "}");
}

qg_err
qg_020_void_write(const char *initiator, const char *const *targets, size_t n_targets, const char *callback,
		  const qg_uuid *ids, size_t n_ids, qg_secret **out)
{
	return write_secret(put_void, &(void_out){.initiator = initiator, .callback = callback, .targets = targets,
						  .n_targets = n_targets, .ids = ids, .n_ids = n_ids}, out);
}

/* --- answers ------------------------------------------------------------------------- */

size_t
qg_020_problem_write(const char *type, const char *title, int status, const char *const *members, size_t n_members,
		     const char *detail, char *buf, size_t room)
{
	qg_text t = {.buf = buf, .room = room};
	char number[16];
	const int n = snprintf(number, sizeof number, "%d", status);
	assert(n > 0 && (size_t)n < sizeof number);
	QG_TEXT_PUT(&t, "{\"type\":");
	qg_text_put_json_string(&t, type);
	put_string_member(&t, "title", title);
	put_member(&t, "status", number);
	QG_TEXT_PUT(&t, ",\"details\":{");
	for (size_t i = 0; i < n_members; i++) {
		if (i > 0)
			QG_TEXT_PUT(&t, ",");
		qg_text_put_json_string(&t, members[i]);
		QG_TEXT_PUT(&t, ":");
		qg_text_put_json_string(&t, detail);
	}
	QG_TEXT_PUT(&t, "}}");
	return t.len <= room ? t.len : 0;
}

size_t
qg_020_message_write(const char *message, char *buf, size_t room)
{
	qg_text t = {.buf = buf, .room = room};
	QG_TEXT_PUT(&t, "{\"message\":");
	qg_text_put_json_string(&t, message);
	QG_TEXT_PUT(&t, ",\"details\":[]}");
	return t.len <= room ? t.len : 0;
}

/* Printable ASCII without what would end a word in the log. */
static void
copy_safe(char *out, size_t room, const json_t *value)
{
	const char *const s = json_is_string(value) ? json_string_value(value) : "";
	size_t i = 0;
	for (; s[i] != '\0' && i + 1 < room; i++)
		out[i] = s[i] >= ' ' && s[i] <= '~' && s[i] != '"' && s[i] != '\\' ? s[i] : '?';
	out[i] = '\0';
}

void
qg_020_problem_read(const struct json_t *doc, qg_020_problem_seen *out)
{
	static const char prefix[] = QG_020_PROBLEM_PREFIX;
	char type[sizeof prefix + sizeof out->type];
	json_t *const details = json_object_get(doc, "details");
	copy_safe(type, sizeof type, json_object_get(doc, "type"));
	const bool ours = strncmp(type, prefix, sizeof prefix - 1) == 0;
	const int n = snprintf(out->type, sizeof out->type, "%s", ours ? type + sizeof prefix - 1 : type);
	if (n < 0)
		out->type[0] = '\0';
	copy_safe(out->detail, sizeof out->detail, json_object_iter_value(json_object_iter(details)));
}
