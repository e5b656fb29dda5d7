/* SPDX-License-Identifier: Apache-2.0 */
/* Profile `json`: an object for a message, without framing. NetXPTO's dialect
 * has key types, and answers that are wrapped as requests are. Either pushes:
 * after a GET_KEY its answers come one after the other. */
#include "etsi004_members_internal.h"

#include <string.h>

#define COUNT(table) (sizeof(table) / sizeof *(table))

typedef struct json_dialect {
	bool wrapped, key_type;
} json_dialect;

static const struct {
	const char *request, *answer;
} commands[] = {
	[QG_ETSI004_OPEN_CONNECT] = {"OPEN_CONNECT", "OPEN_CONNECT_RESPONSE"},
	[QG_ETSI004_GET_KEY] = {"GET_KEY", "GET_KEY_RESPONSE"},
	[QG_ETSI004_CLOSE] = {"CLOSE", "CLOSE_RESPONSE"},
	[QG_ETSI004_ERROR] = {NULL, "ERROR_RESPONSE"},
};

static const json_dialect *
dialect_of(const qg_etsi004_profile *p)
{
	return p->dialect;
}

static qg_err
json_frame(const qg_etsi004_profile *p, const uint8_t *bytes, size_t n, size_t *total)
{
	(void)p;
	qg_err err = qg_json_text_frame(bytes, n, total);
	bool over = err == QG_OK ? *total > QG_ETSI004_FRAME_MAX : n >= QG_ETSI004_FRAME_MAX;
	return over && err != QG_E_PARSE ? QG_E_RANGE : err;
}

/* A writer of one message behind what w holds. */
static qg_writer
message_begin(const qg_writer *w)
{
	qg_writer m = qg_writer_of(w->buf + w->len, w->room - w->len);
	m.bad = w->bad;
	return m;
}

static qg_err
message_end(qg_writer *w, const qg_writer *m)
{
	if (m->bad || m->len > QG_ETSI004_FRAME_MAX)
		return QG_E_RANGE;
	w->len += m->len;
	return QG_OK;
}

static void
put_wrapping(qg_writer *m, const char *command)
{
	qg_json_put(m, "{\"command\":\"");
	qg_json_put(m, command);
	qg_json_put(m, "\",\"data\":");
}

/* --- requests ---------------------------------------------------------------- */

static qg_err
json_put_request(const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_writer *w)
{
	if (q->op > QG_ETSI004_CLOSE)
		return QG_E_INVAL;
	if (!qg_members_fit_request(q))
		return QG_E_RANGE;
	qg_writer m = message_begin(w);
	put_wrapping(&m, commands[q->op].request);
	qg_members_put_request(&m, q, dialect_of(p)->key_type);
	qg_json_put(&m, "}");
	return message_end(w, &m);
}

static qg_err
json_get_request(const qg_etsi004_profile *p, uint8_t *frame, size_t n, qg_etsi004_request *q)
{
	qg_members m;
	qg_etsi004_request got;
	(void)p;
	qg_err err = qg_members_get(frame, n, true, &m);
	if (err != QG_OK)
		return err;
	if (!QG_HAS(&m, QG_MEMBER_COMMAND) || !QG_HAS(&m, QG_MEMBER_DATA))
		return QG_E_PARSE;
	size_t op = 0;
	while (op <= QG_ETSI004_CLOSE && strcmp(commands[op].request, m.command) != 0)
		op++;
	if (op > QG_ETSI004_CLOSE)
		return QG_E_UNSUPPORTED;
	err = qg_members_request(&m, (qg_etsi004_op)op, &got);
	if (err == QG_OK)
		*q = got;
	return err;
}

/* --- answers ----------------------------------------------------------------- */

static void
put_answer_members(qg_writer *m, const qg_etsi004_response *a, bool key_type)
{
	if (a->op == QG_ETSI004_OPEN_CONNECT) {
		qg_members_put_open(m, a, key_type);
	} else if (a->op == QG_ETSI004_GET_KEY) {
		qg_json_put(m, ",\"index\":");
		qg_json_put_uint(m, a->index);
		qg_json_put(m, ",\"key_buffer\":");
		qg_json_put_bytes(m, a->key, a->key_len);
		bool needs = a->status == QG_ETSI004_METADATA_SIZE;
		qg_members_put_metadata(m, needs ? a->metadata_needed : a->metadata_len, a->metadata,
					needs ? 0 : a->metadata_len);
	}
}

static qg_err
json_put_response(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w)
{
	const json_dialect *d = dialect_of(p);
	if (a->op > QG_ETSI004_ERROR || (a->op == QG_ETSI004_OPEN_CONNECT && !a->has_qos &&
					 a->status <= QG_ETSI004_PEER_NOT_CONNECTED))
		return QG_E_INVAL;
	if (!qg_members_fit_response(a))
		return QG_E_RANGE;
	qg_writer m = message_begin(w);
	if (d->wrapped)
		put_wrapping(&m, commands[a->op].answer);
	qg_json_put(&m, "{\"status\":");
	qg_json_put_uint(&m, qg_etsi004_status_to_wire(p, a->status));
	put_answer_members(&m, a, d->key_type);
	qg_json_put(&m, d->wrapped ? "}}" : "}");
	return message_end(w, &m);
}

/* What the answer is to. A flat one says it by its members at most. */
static qg_err
answer_op(const qg_members *m, const qg_etsi004_due *due, qg_etsi004_op *op)
{
	*op = QG_HAS(m, QG_MEMBER_KEY) ? QG_ETSI004_GET_KEY : due->op;
	if (!QG_HAS(m, QG_MEMBER_COMMAND))
		return QG_OK;
	for (size_t i = 0; i < COUNT(commands); i++) {
		if (strcmp(commands[i].answer, m->command) != 0)
			continue;
		*op = (qg_etsi004_op)i;
		return QG_OK;
	}
	return QG_E_UNSUPPORTED;
}

/* Both kinds of answers are understood from either server. */
static qg_err
json_get_response(const qg_etsi004_profile *p, const qg_etsi004_due *due, uint8_t *frame, size_t n,
		  qg_etsi004_response *a)
{
	qg_members m;
	qg_etsi004_response got;
	qg_etsi004_due is = *due;
	qg_err err = qg_members_get(frame, n, true, &m);
	if (err == QG_OK && !QG_HAS(&m, QG_MEMBER_STATUS))
		err = QG_E_PARSE;
	if (err == QG_OK)
		err = answer_op(&m, due, &is.op);
	if (err == QG_OK)
		err = qg_members_response(&m, &is, qg_etsi004_status_of_wire(p, m.status), &got);
	if (err == QG_OK)
		*a = got;
	return err;
}

/* --- which dialect a client speaks --------------------------------------------- */

static bool
json_begins(uint8_t first)
{
	return first == '{';
}

/* Whether "key_type" is the name of a member anywhere. Read as it lies: decoding
 * would write over what get_request is to decode. */
static bool
names_key_type(const uint8_t *frame, size_t n)
{
	static const char name[] = "\"key_type\"";
	const uint8_t *p = frame, *end = frame + n;
	while (p < end && (p = memmem(p, (size_t)(end - p), name, sizeof name - 1)) != NULL) {
		p += sizeof name - 1;
		while (p < end && strchr(" \t\r\n", *p) != NULL && *p != '\0')
			p++;
		if (p < end && *p == ':')
			return true;
	}
	return false;
}

static qg_err
json_detect(const uint8_t *frame, size_t n, const qg_etsi004_profile **out)
{
	*out = names_key_type(frame, n) ? &qg_etsi004_json_netxpto : &qg_etsi004_json;
	return QG_OK;
}

/* --- the tables ------------------------------------------------------------------ */

static const qg_etsi004_family json_family = {.begins = json_begins, .detect = json_detect};
static const json_dialect flat = {.wrapped = false};
static const json_dialect netxpto = {.wrapped = true, .key_type = true};

#define JSON_COMMON                                                                            \
	.family = &json_family, .modes = QG_ETSI004_PULL | QG_ETSI004_PUSH, .persistent = true, \
	.in_flight = 1, /* a read of theirs is a message */                                    \
	.request_max = 16384, .frame = json_frame, .put_request = json_put_request,            \
	.get_request = json_get_request, .put_response = json_put_response,                    \
	.get_response = json_get_response

const qg_etsi004_profile qg_etsi004_json = {JSON_COMMON, .name = "json", .dialect = &flat};
const qg_etsi004_profile qg_etsi004_json_netxpto = {JSON_COMMON, .name = "json-netxpto", .dialect = &netxpto};
