/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies go straight into secret memory: first they are counted, then written. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "etsi020_msg_internal.h"
#include "qkdgate/encode.h"

/* Counts what does not fit. buf NULL: only counts. */
typedef struct text {
	char *buf;
	size_t room, len;
} text;

static void
put(text *t, const char *s, size_t n)
{
	if (t->buf != NULL && t->len <= t->room && n <= t->room - t->len && n > 0)
		memcpy(t->buf + t->len, s, n);
	t->len += n;
}

#define PUT(t, literal) put(t, literal, sizeof(literal) - 1)

static void
put_string(text *t, const char *s)
{
	PUT(t, "\"");
	for (;; s++) {
		size_t plain = 0;
		while ((unsigned char)s[plain] >= ' ' && s[plain] != '"' && s[plain] != '\\')
			plain++;
		put(t, s, plain);
		s += plain;
		char escape[7];
		if (*s == '\0')
			break;
		const int n = *s == '"' || *s == '\\' ? snprintf(escape, sizeof escape, "\\%c", *s)
						      : snprintf(escape, sizeof escape, "\\u%04x", (unsigned)*s);
		assert(n > 0 && (size_t)n < sizeof escape);
		put(t, escape, (size_t)n);
	}
	PUT(t, "\"");
}

static void
put_id(text *t, const qg_uuid *id)
{
	char id_text[QG_UUID_TEXT];
	qg_uuid_format(id, id_text);
	PUT(t, "\"");
	put(t, id_text, sizeof id_text - 1);
	PUT(t, "\"");
}

static void
put_base64(text *t, const uint8_t *value, size_t n)
{
	const size_t len = QG_BASE64_LEN(n);
	if (t->buf != NULL && t->len <= t->room && len <= t->room - t->len)
		qg_base64_encode(value, n, t->buf + t->len);
	t->len += len;
}

static void
put_strings(text *t, const char *const *s, size_t n)
{
	PUT(t, "[");
	for (size_t i = 0; i < n; i++) {
		if (i > 0)
			PUT(t, ",");
		put_string(t, s[i]);
	}
	PUT(t, "]");
}

/* ,"name":VALUE where there is one */
static void
put_member(text *t, const char *name, const char *json)
{
	if (json == NULL)
		return;
	PUT(t, ",");
	put_string(t, name);
	PUT(t, ":");
	put(t, json, strlen(json));
}

static void
put_string_member(text *t, const char *name, const char *value)
{
	if (value == NULL)
		return;
	put_member(t, name, "");
	put_string(t, value);
}

static void
put_saes(text *t, const char *initiator, const char *const *targets, size_t n_targets)
{
	put_string_member(t, "initiator_sae_id", initiator);
	put_member(t, "target_sae_ids", "");
	put_strings(t, targets, n_targets);
}

/* Counts, then writes into a secret of that size. */
typedef void put_body(text *t, const void *m);

static qg_err
write_secret(put_body *body, const void *m, qg_secret **out)
{
	text count = {.buf = NULL};
	qg_secret *s = NULL;
	body(&count, m);
	const qg_err err = qg_secret_new(count.len, &s);
	if (err != QG_OK)
		return err;
	text t = {.buf = (char *)s->data, .room = s->room};
	body(&t, m);
	assert(t.len == count.len);
	s->len = t.len;
	*out = s;
	return QG_OK;
}

/* --- keys ------------------------------------------------------------------------ */

static void
put_keys(text *t, const qg_020_keys_out *m)
{
	PUT(t, "{\"keys\":[");
	for (size_t i = 0; i < m->n_keys; i++) {
		if (i > 0)
			PUT(t, ",");
		PUT(t, "{\"key_id\":");
		put_id(t, &m->key[i].id);
		PUT(t, ",\"value\":\"");
		put_base64(t, m->key[i].value, m->key[i].size);
		PUT(t, "\"");
		put_member(t, "extension", m->key[i].extension);
		PUT(t, "}");
	}
	PUT(t, "]");
}

static void
put_container(text *t, const void *body)
{
	const qg_020_keys_out *const m = body;
	put_keys(t, m);
	put_saes(t, m->initiator, m->targets, m->n_targets);
	put_string_member(t, "ack_callback_url", m->callback);
	put_member(t, "extension_mandatory", m->mandatory);
	put_member(t, "extension_optional", m->optional);
	PUT(t, "}");
}

qg_err
qg_020_keys_write(const qg_020_keys_out *m, qg_secret **out)
{
	return write_secret(put_container, m, out);
}

/* One object in the array: what the drafts say of its form is no more. */
static void
put_draft(text *t, const void *body)
{
	const qg_020_keys_out *const m = body;
	put_keys(t, m);
	if (m->optional != NULL) {
		PUT(t, ",\"extension_optional\":[");
		put(t, m->optional, strlen(m->optional));
		PUT(t, "]");
	}
	PUT(t, "}");
}

qg_err
qg_020_draft_keys_write(const qg_020_keys_out *m, qg_secret **out)
{
	return m->mandatory == NULL ? write_secret(put_draft, m, out) : QG_E_UNSUPPORTED;
}

static void
put_escaped(text *t, const char *s)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
	for (; *s != '\0'; s++) {
		char escape[4];
		if (strchr(plain, *s) != NULL) {
			put(t, s, 1);
			continue;
		}
		const int n = snprintf(escape, sizeof escape, "%%%02X", (unsigned)(unsigned char)*s);
		assert(n == 3);
		put(t, escape, (size_t)n);
	}
}

qg_err
qg_020_draft_path(const char *initiator, const char *target, char *out, size_t room)
{
	text t = {.buf = out, .room = room};
	PUT(&t, "/");
	put_escaped(&t, initiator);
	PUT(&t, "/");
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
put_ack(text *t, const qg_020_ack_out *a)
{
	PUT(t, "{\"key_id_container\":[");
	for (size_t i = 0; i < a->n_ids; i++) {
		if (i > 0)
			PUT(t, ",");
		PUT(t, "{\"key_id\":");
		put_id(t, &a->ids[i]);
		PUT(t, "}");
	}
	PUT(t, "]");
	put_string_member(t, "ack_status", qg_020_status_words[a->status]);
	put_saes(t, a->initiator, a->targets, a->n_targets);
	put_string_member(t, "message", a->message);
	PUT(t, "}");
}

static void
put_acks(text *t, const void *body)
{
	const ack_list *const m = body;
	PUT(t, "[");
	for (size_t i = 0; i < m->n; i++) {
		if (i > 0)
			PUT(t, ",");
		put_ack(t, &m->ack[i]);
	}
	PUT(t, "]");
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
put_void(text *t, const void *body)
{
	const void_out *const m = body;
	PUT(t, "{\"key_ids\":[");
	for (size_t i = 0; i < m->n_ids; i++) {
		if (i > 0)
			PUT(t, ",");
		put_id(t, &m->ids[i]);
	}
	PUT(t, "]");
	put_saes(t, m->initiator, m->targets, m->n_targets);
	put_string_member(t, "ack_callback_url", m->callback);
	if (m->n_ids == 0)
		put_member(t, "all_confirmation", "true");
	PUT(t, "}");
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
	text t = {.buf = buf, .room = room};
	char number[16];
	const int n = snprintf(number, sizeof number, "%d", status);
	assert(n > 0 && (size_t)n < sizeof number);
	PUT(&t, "{\"type\":");
	put_string(&t, type);
	put_string_member(&t, "title", title);
	put_member(&t, "status", number);
	PUT(&t, ",\"details\":{");
	for (size_t i = 0; i < n_members; i++) {
		if (i > 0)
			PUT(&t, ",");
		put_string(&t, members[i]);
		PUT(&t, ":");
		put_string(&t, detail);
	}
	PUT(&t, "}}");
	return t.len <= room ? t.len : 0;
}

size_t
qg_020_message_write(const char *message, char *buf, size_t room)
{
	text t = {.buf = buf, .room = room};
	PUT(&t, "{\"message\":");
	put_string(&t, message);
	PUT(&t, ",\"details\":[]}");
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
