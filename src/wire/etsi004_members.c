/* SPDX-License-Identifier: Apache-2.0 */
#include "etsi004_members_internal.h"

#include <string.h>

#include "qkdgate/encode.h"

#define COUNT(table) (sizeof(table) / sizeof *(table))

#define KEY_TYPE_QUANTUM "2"      /* quantum, symmetric */
#define KEY_TYPE_SYMMETRIC_MAX 2u /* beyond: oblivious ones */

/* --- reading ---------------------------------------------------------------- */

/* Whether the member is there: null counts as absent. */
static bool
present(qg_json_in *in, qg_members *m, qg_members_bit bit)
{
	if (!qg_json_null(in))
		return true;
	m->nulls |= UINT32_C(1) << bit;
	return false;
}

/* A string of at most so many bytes. */
static const char *
text_within(qg_json_in *in, qg_members *m, size_t max)
{
	size_t n = 0;
	const char *text = qg_json_string(in, &n);
	if (text != NULL && n > max)
		m->err = QG_E_RANGE;
	return text != NULL ? text : "";
}

static uint32_t
number_or_null(qg_json_in *in)
{
	return qg_json_null(in) ? 0 : qg_json_uint(in, UINT32_MAX);
}

#define READ_QOS(member)                                                                   \
	static void read_##member(qg_json_in *in, void *m)                                 \
	{                                                                                  \
		((qg_members *)m)->qos.member = number_or_null(in);                        \
	}
READ_QOS(chunk_size)
READ_QOS(max_bps)
READ_QOS(min_bps)
READ_QOS(jitter_bps)
READ_QOS(priority)
READ_QOS(timeout_ms)
READ_QOS(ttl_s)

static void
read_mimetype(qg_json_in *in, void *m_)
{
	qg_members *m = m_;
	if (!qg_json_null(in))
		m->qos.mimetype = text_within(in, m, QG_ETSI004_MIMETYPE_MAX);
}

static void
read_key_type(qg_json_in *in, void *m_)
{
	qg_members *m = m_;
	m->qos.oblivious = number_or_null(in) > KEY_TYPE_SYMMETRIC_MAX;
}

static void
read_qos(qg_json_in *in, void *m_)
{
	static const qg_json_field fields[] = {
		{"key_chunk_size", read_chunk_size}, {"max_bps", read_max_bps},
		{"min_bps", read_min_bps},           {"jitter", read_jitter_bps},
		{"priority", read_priority},         {"timeout", read_timeout_ms},
		{"ttl", read_ttl_s},                 {"metadata_mimetype", read_mimetype},
		{"key_type", read_key_type},
	};
	uint32_t seen = 0;
	if (present(in, m_, QG_MEMBER_QOS))
		qg_json_object(in, fields, COUNT(fields), m_, &seen);
}

static void
read_uuid(qg_json_in *in, qg_uuid *u)
{
	size_t n = 0;
	const char *text = qg_json_string(in, &n);
	if (text != NULL && n > 0 && qg_uuid_parse(text, n, u) != QG_OK)
		in->bad = true;
}

/* An empty string is no KSID either. */
static void
read_ksid(qg_json_in *in, void *m)
{
	if (present(in, m, QG_MEMBER_KSID))
		read_uuid(in, &((qg_members *)m)->ksid);
}

static void
read_status(qg_json_in *in, void *m)
{
	((qg_members *)m)->status = qg_json_uint(in, UINT32_MAX);
}

static void
read_source(qg_json_in *in, void *m)
{
	((qg_members *)m)->source = text_within(in, m, QG_ETSI004_URI_MAX);
}

static void
read_destination(qg_json_in *in, void *m)
{
	((qg_members *)m)->destination = text_within(in, m, QG_ETSI004_URI_MAX);
}

static void
read_index(qg_json_in *in, void *m)
{
	if (present(in, m, QG_MEMBER_INDEX))
		((qg_members *)m)->index = qg_json_uint(in, UINT32_MAX);
}

static void
read_key(qg_json_in *in, void *m_)
{
	qg_members *m = m_;
	if (!present(in, m, QG_MEMBER_KEY))
		return;
	m->key_text = qg_json_peek(in) == '"';
	m->key = m->key_text ? (const uint8_t *)qg_json_string(in, &m->key_len) : qg_json_bytes(in, &m->key_len);
}

static void
read_metadata_ksid(qg_json_in *in, void *m)
{
	read_uuid(in, &((qg_members *)m)->metadata_ksid);
}

static void
read_metadata_size(qg_json_in *in, void *m)
{
	((qg_members *)m)->metadata_size = number_or_null(in);
}

static void
read_metadata_buffer(qg_json_in *in, void *m_)
{
	static const qg_json_field fields[] = {{"key_stream_id", read_metadata_ksid}};
	qg_members *m = m_;
	uint32_t seen = 0;
	char c = qg_json_peek(in);
	if (c == '"')
		m->metadata = (const uint8_t *)qg_json_string(in, &m->metadata_len);
	else if (c == '{')
		qg_json_object(in, fields, COUNT(fields), m, &seen);
	else
		qg_json_skip(in);
	if (m->metadata_len > QG_ETSI004_METADATA_MAX)
		m->err = QG_E_RANGE;
}

static void
read_metadata(qg_json_in *in, void *m)
{
	static const qg_json_field fields[] = {{"size", read_metadata_size}, {"buffer", read_metadata_buffer}};
	uint32_t seen = 0;
	if (present(in, m, QG_MEMBER_METADATA))
		qg_json_object(in, fields, COUNT(fields), m, &seen);
}

static void read_data(qg_json_in *in, void *m);

static void
read_command(qg_json_in *in, void *m)
{
	size_t n = 0;
	((qg_members *)m)->command = qg_json_string(in, &n);
}

/* By qg_members_bit. */
static const qg_json_field member_fields[] = {
	[QG_MEMBER_STATUS] = {"status", read_status},
	[QG_MEMBER_KSID] = {"key_stream_id", read_ksid},
	[QG_MEMBER_SOURCE] = {"source", read_source},
	[QG_MEMBER_DESTINATION] = {"destination", read_destination},
	[QG_MEMBER_QOS] = {"qos", read_qos},
	[QG_MEMBER_INDEX] = {"index", read_index},
	[QG_MEMBER_KEY] = {"key_buffer", read_key},
	[QG_MEMBER_METADATA] = {"metadata", read_metadata},
	[QG_MEMBER_COMMAND] = {"command", read_command},
	[QG_MEMBER_DATA] = {"data", read_data},
};

static void
read_data(qg_json_in *in, void *m_)
{
	qg_members *m = m_;
	if (present(in, m, QG_MEMBER_DATA))
		qg_json_object(in, member_fields, QG_MEMBER_COMMAND, m, &m->seen);
}

qg_err
qg_members_get(uint8_t *text, size_t n, bool wrapped, qg_members *m)
{
	qg_json_in in = qg_json_in_of(text, n);
	*m = (qg_members){.source = "", .destination = "", .command = "", .qos.mimetype = ""};
	qg_json_object(&in, member_fields, wrapped ? COUNT(member_fields) : QG_MEMBER_COMMAND, m, &m->seen);
	if (!qg_json_ended(&in))
		return QG_E_PARSE;
	m->seen &= ~m->nulls;
	if (qg_uuid_is_null(&m->ksid))
		m->seen &= ~(UINT32_C(1) << QG_MEMBER_KSID);
	return m->err;
}

/* Metadata of a GET_KEY: {"size": room, "buffer": ""}, or text and its length,
 * which limits nothing. */
static uint32_t
metadata_room(const qg_members *m)
{
	if (!QG_HAS(m, QG_MEMBER_METADATA) || m->metadata_len > 0)
		return QG_ETSI004_METADATA_MAX;
	return m->metadata_size < QG_ETSI004_METADATA_MAX ? m->metadata_size : QG_ETSI004_METADATA_MAX;
}

qg_err
qg_members_request(const qg_members *m, qg_etsi004_op op, qg_etsi004_request *q)
{
	*q = (qg_etsi004_request){.op = op, .ksid = m->ksid, .source = "", .destination = "", .qos.mimetype = ""};
	if (op == QG_ETSI004_OPEN_CONNECT) {
		q->source = m->source;
		q->destination = m->destination;
		q->qos = m->qos;
		return QG_HAS(m, QG_MEMBER_SOURCE) && QG_HAS(m, QG_MEMBER_DESTINATION) ? QG_OK : QG_E_PARSE;
	}
	if (op == QG_ETSI004_GET_KEY) {
		q->in_sequence = !QG_HAS(m, QG_MEMBER_INDEX);
		q->index = m->index;
		q->metadata = m->metadata;
		q->metadata_len = m->metadata_len;
		q->metadata_max = metadata_room(m);
	}
	return QG_HAS(m, QG_MEMBER_KSID) ? QG_OK : QG_E_PARSE;
}

/* Key as a string: hex when it is as long as that of a chunk, else base64, into
 * the place of the text, which is longer. */
static qg_err
decode_key_text(qg_members *m, uint32_t chunk_size)
{
	uint8_t *to = (uint8_t *)(uintptr_t)m->key;
	const char *text = (const char *)m->key;
	size_t n = m->key_len;
	m->key_text = false;
	if (chunk_size > 0 && n == 2 * (size_t)chunk_size) {
		m->key_len = chunk_size;
		return qg_hex_decode(text, n, to, chunk_size);
	}
	return qg_base64_decode(text, n, to, n, &m->key_len);
}

qg_err
qg_members_response(qg_members *m, const qg_etsi004_due *due, uint32_t status, qg_etsi004_response *a)
{
	*a = (qg_etsi004_response){.op = due->op, .status = status, .ksid = m->ksid, .qos.mimetype = ""};
	if (due->op == QG_ETSI004_OPEN_CONNECT) {
		bool success = status <= QG_ETSI004_PEER_NOT_CONNECTED;
		a->has_qos = QG_HAS(m, QG_MEMBER_QOS) || success;
		a->qos = m->qos;
		bool short_of = (success && !QG_HAS(m, QG_MEMBER_KSID)) ||
				(status == QG_ETSI004_QOS && !QG_HAS(m, QG_MEMBER_QOS));
		return short_of ? QG_E_PARSE : QG_OK;
	}
	if (due->op != QG_ETSI004_GET_KEY)
		return QG_OK;
	if (m->key_text) {
		qg_err err = decode_key_text(m, due->chunk_size);
		if (err != QG_OK)
			return err;
	}
	if (m->key_len > QG_ETSI004_KEY_MAX)
		return QG_E_RANGE;
	if (status == QG_ETSI004_SUCCESS && !(QG_HAS(m, QG_MEMBER_INDEX) && QG_HAS(m, QG_MEMBER_KEY)))
		return QG_E_PARSE;
	if (qg_uuid_is_null(&a->ksid))
		a->ksid = m->metadata_ksid;
	a->index = m->index;
	a->key = m->key;
	a->key_len = m->key_len;
	a->metadata = m->metadata;
	a->metadata_len = m->metadata_len;
	a->metadata_needed = status == QG_ETSI004_METADATA_SIZE ? m->metadata_size : 0;
	return QG_OK;
}

/* --- writing ---------------------------------------------------------------- */

static void
put_text(qg_writer *w, const char *before, const char *text)
{
	qg_json_put(w, before);
	qg_json_put_string(w, text, strlen(text));
}

void
qg_members_put_uuid(qg_writer *w, const qg_uuid *u)
{
	char text[QG_UUID_TEXT];
	qg_uuid_format(u, text);
	qg_json_put_string(w, text, QG_UUID_TEXT - 1);
}

static void
put_qos(qg_writer *w, const qg_etsi004_qos *q, bool key_type)
{
	const struct {
		const char *before;
		uint32_t v;
	} words[] = {
		{"{\"key_chunk_size\":", q->chunk_size}, {",\"max_bps\":", q->max_bps},
		{",\"min_bps\":", q->min_bps},           {",\"jitter\":", q->jitter_bps},
		{",\"priority\":", q->priority},         {",\"timeout\":", q->timeout_ms},
		{",\"ttl\":", q->ttl_s},
	};
	for (size_t i = 0; i < COUNT(words); i++) {
		qg_json_put(w, words[i].before);
		qg_json_put_uint(w, words[i].v);
	}
	put_text(w, ",\"metadata_mimetype\":", q->mimetype);
	qg_json_put(w, key_type ? ",\"key_type\":" KEY_TYPE_QUANTUM "}" : "}");
}

void
qg_members_put_metadata(qg_writer *w, size_t size, const uint8_t *text, size_t n)
{
	qg_json_put(w, ",\"metadata\":{\"size\":");
	qg_json_put_uint(w, (uint32_t)size);
	qg_json_put(w, ",\"buffer\":");
	qg_json_put_string(w, text, n);
	qg_json_put(w, "}");
}

static void
put_open_request(qg_writer *w, const qg_etsi004_request *q, bool key_type)
{
	put_text(w, "{\"source\":", q->source);
	put_text(w, ",\"destination\":", q->destination);
	qg_json_put(w, ",\"qos\":");
	put_qos(w, &q->qos, key_type);
	if (!qg_uuid_is_null(&q->ksid)) {
		qg_json_put(w, ",\"key_stream_id\":");
		qg_members_put_uuid(w, &q->ksid);
	}
	qg_json_put(w, "}");
}

void
qg_members_put_request(qg_writer *w, const qg_etsi004_request *q, bool key_type)
{
	if (q->op == QG_ETSI004_OPEN_CONNECT) {
		put_open_request(w, q, key_type);
		return;
	}
	qg_json_put(w, "{\"key_stream_id\":");
	qg_members_put_uuid(w, &q->ksid);
	if (q->op == QG_ETSI004_GET_KEY && !q->in_sequence) {
		qg_json_put(w, ",\"index\":");
		qg_json_put_uint(w, q->index);
	}
	if (q->op == QG_ETSI004_GET_KEY && q->metadata_len > 0)
		qg_members_put_metadata(w, q->metadata_len, q->metadata, q->metadata_len);
	qg_json_put(w, "}");
}

void
qg_members_put_open(qg_writer *w, const qg_etsi004_response *a, bool key_type)
{
	qg_json_put(w, ",\"key_stream_id\":");
	qg_members_put_uuid(w, &a->ksid);
	qg_json_put(w, ",\"qos\":");
	if (a->has_qos)
		put_qos(w, &a->qos, key_type);
	else
		qg_json_put(w, "null");
}

static bool
fits_mimetype(const qg_etsi004_qos *q)
{
	return strlen(q->mimetype) <= QG_ETSI004_MIMETYPE_MAX;
}

bool
qg_members_fit_request(const qg_etsi004_request *q)
{
	if (q->op == QG_ETSI004_OPEN_CONNECT)
		return strlen(q->source) <= QG_ETSI004_URI_MAX && strlen(q->destination) <= QG_ETSI004_URI_MAX &&
		       fits_mimetype(&q->qos);
	return q->metadata_len <= QG_ETSI004_METADATA_MAX;
}

bool
qg_members_fit_response(const qg_etsi004_response *a)
{
	return a->key_len <= QG_ETSI004_KEY_MAX && a->metadata_len <= QG_ETSI004_METADATA_MAX &&
	       (a->op != QG_ETSI004_OPEN_CONNECT || !a->has_qos || fits_mimetype(&a->qos));
}
