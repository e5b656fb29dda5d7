/* SPDX-License-Identifier: Apache-2.0 */
/* ETSI GS QKD 004 as a client: OPEN_CONNECT, GET_KEY and CLOSE over profile
 * `bin`, on connections that may end between calls. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client_internal.h"
#include "qkdgate/etsi004.h"
#include "qkdgate/json.h"
#include "qkdgate/secret.h"
#include "qkdgate/uuid.h"

#define CALL_MS 10000u /* beyond what the key manager itself may wait */
#define FRAME_FIRST 16384
#define HEADER_MAX 64

struct qg_client_stream {
	const qg_etsi004_profile *profile;
	qg_conn *conn;
	char *names; /* host, URIs, server name: copies */
	const char *host, *server_name, *source, *destination;
	unsigned port;
	char *files;
	qg_tls_files tls;
	bool has_tls;
	qg_etsi004_qos qos;
	qg_uuid ksid;
	char ksid_text[QG_UUID_TEXT];
	uint32_t chunk_size;
	unsigned status;
	qg_secret *frame; /* the last answer */
};

/* --- messages --------------------------------------------------------------------- */

static qg_err
connect_if_needed(qg_client_stream *s)
{
	if (s->conn != NULL)
		return QG_OK;
	return qg_conn_open(s->host, s->port, s->has_tls ? &s->tls : NULL, s->server_name, CALL_MS, &s->conn);
}

static qg_err
send_request(qg_client_stream *s, const qg_etsi004_request *q)
{
	uint8_t text[4 * QG_ETSI004_URI_MAX];
	qg_writer w = qg_writer_of(text, sizeof text);
	qg_err err = s->profile->put_request(s->profile, q, &w);
	if (err == QG_OK)
		err = qg_conn_send(s->conn, text, w.len, CALL_MS);
	return err;
}

static qg_err
frame_room(qg_client_stream *s, size_t room)
{
	if (s->frame != NULL && s->frame->room >= room)
		return QG_OK;
	qg_secret *larger = NULL;
	qg_err err = qg_secret_new(room, &larger);
	if (err == QG_OK && s->frame != NULL)
		err = qg_secret_append(larger, s->frame->data, s->frame->len);
	if (err != QG_OK) {
		qg_secret_free(&larger);
		return err;
	}
	qg_secret_free(&s->frame);
	s->frame = larger;
	return QG_OK;
}

/* Reads one whole answer into s->frame. */
static qg_err
receive(qg_client_stream *s, unsigned wait_ms)
{
	size_t total = 0;
	qg_err err = frame_room(s, FRAME_FIRST);
	if (err != QG_OK)
		return err;
	s->frame->len = 0;
	for (;;) {
		qg_err whole = s->profile->frame(s->profile, s->frame->data, s->frame->len, &total);
		if (whole == QG_OK && s->frame->len >= total)
			return s->frame->len == total ? QG_OK : QG_E_PROTO;
		if (whole != QG_OK && whole != QG_E_AGAIN)
			return QG_E_PROTO;
		size_t want = whole == QG_OK ? total : s->frame->len + HEADER_MAX;
		size_t got = 0;
		err = frame_room(s, want);
		if (err == QG_OK)
			err = qg_conn_recv_some(s->conn, s->frame->data + s->frame->len, want - s->frame->len, wait_ms, &got);
		if (err != QG_OK)
			return err;
		s->frame->len += got;
	}
}

/* One request and its answer; a kept connection that turns out to be closed is
 * made again, once, before anything was answered. */
static qg_err
exchange(qg_client_stream *s, const qg_etsi004_request *q, qg_etsi004_response *a)
{
	bool kept = s->conn != NULL;
	qg_err err = QG_OK;
	for (int attempt = 0; attempt < 2; attempt++) {
		err = connect_if_needed(s);
		if (err != QG_OK)
			return err;
		err = send_request(s, q);
		if (err == QG_OK)
			err = receive(s, s->qos.timeout_ms + CALL_MS);
		if (err == QG_OK || !kept || (err != QG_E_CLOSED && err != QG_E_IO))
			break;
		qg_conn_close(&s->conn);
		kept = false;
	}
	const qg_etsi004_due due = {.op = q->op, .chunk_size = s->chunk_size};
	if (err == QG_OK && (s->profile->get_response(s->profile, &due, s->frame->data, s->frame->len, a) != QG_OK ||
			     a->op != q->op))
		err = QG_E_PROTO;
	if (err != QG_OK || !s->profile->persistent)
		qg_conn_close(&s->conn);
	if (err == QG_OK)
		s->status = a->status;
	return err;
}

/* --- opening ------------------------------------------------------------------------ */

static qg_err
copy_names(qg_client_stream *s, const qg_client_stream_options *o)
{
	const char *const from[] = {o->host, o->server_name != NULL ? o->server_name : o->host, o->source_uri,
				    o->destination_uri};
	const char **const to[] = {&s->host, &s->server_name, &s->source, &s->destination};
	size_t all = 0, at = 0;
	for (size_t i = 0; i < 4; i++) {
		if (from[i] == NULL || strlen(from[i]) > QG_ETSI004_URI_MAX)
			return QG_E_INVAL;
		all += strlen(from[i]) + 1;
	}
	s->names = malloc(all);
	if (s->names == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < 4; i++) {
		*to[i] = memcpy(s->names + at, from[i], strlen(from[i]) + 1);
		at += strlen(from[i]) + 1;
	}
	return QG_OK;
}

static qg_err
take_options(qg_client_stream *s, const qg_client_stream_options *o)
{
	qg_err err = copy_names(s, o);
	if (err == QG_OK && o->files != NULL) {
		s->has_tls = true;
		err = qg_client_files_copy(o->files, &s->files, &s->tls);
	}
	if (err == QG_OK && o->ksid != NULL && qg_uuid_parse(o->ksid, strlen(o->ksid), &s->ksid) != QG_OK)
		err = QG_E_INVAL;
	s->port = o->port;
	s->profile = o->profile == QG_CLIENT_BIN_A ? &qg_etsi004_bin_a : &qg_etsi004_bin_b;
	s->qos = (qg_etsi004_qos){.chunk_size = o->chunk_size,
				  .max_bps = o->max_bps,
				  .min_bps = o->min_bps,
				  .jitter_bps = o->jitter_bps,
				  .priority = o->priority,
				  .timeout_ms = o->timeout_ms,
				  .ttl_s = o->ttl_s,
				  .mimetype = o->metadata ? "application/json" : ""};
	return err;
}

static qg_err
open_connect(qg_client_stream *s, uint32_t *chunk_size)
{
	qg_etsi004_response a;
	qg_etsi004_request q = {.op = QG_ETSI004_OPEN_CONNECT,
				.ksid = s->ksid,
				.source = s->source,
				.destination = s->destination,
				.qos = s->qos};
	qg_err err = exchange(s, &q, &a);
	if (err != QG_OK)
		return err;
	if (a.status == QG_ETSI004_QOS && a.has_qos && chunk_size != NULL)
		*chunk_size = a.qos.chunk_size;
	if (a.status != QG_ETSI004_SUCCESS && a.status != QG_ETSI004_PEER_NOT_CONNECTED)
		return QG_E_STATE;
	if (a.has_qos && !qg_uuid_is_null(&a.ksid))
		s->ksid = a.ksid;
	s->chunk_size = a.has_qos && a.qos.chunk_size != 0 ? a.qos.chunk_size : s->qos.chunk_size;
	if (qg_uuid_is_null(&s->ksid) || s->chunk_size == 0)
		return QG_E_PROTO;
	qg_uuid_format(&s->ksid, s->ksid_text);
	return QG_OK;
}

qg_err
qg_client_stream_open(const qg_client_stream_options *o, qg_client_stream **out, unsigned *status,
		      uint32_t *chunk_size)
{
	qg_err err = qg_client_set_up();
	qg_client_stream *s = err == QG_OK ? calloc(1, sizeof *s) : NULL;
	if (s == NULL)
		return QG_E_NOMEM;
	err = take_options(s, o);
	if (err == QG_OK)
		err = open_connect(s, chunk_size);
	if (status != NULL)
		*status = s->status;
	if (err != QG_OK) {
		qg_client_stream_leave(&s);
		return err;
	}
	*out = s;
	return QG_OK;
}

const char *
qg_client_stream_ksid(const qg_client_stream *s)
{
	return s->ksid_text;
}

uint32_t
qg_client_stream_chunk_size(const qg_client_stream *s)
{
	return s->chunk_size;
}

bool
qg_client_stream_waits_for_peer(const qg_client_stream *s)
{
	return s->status == QG_ETSI004_PEER_NOT_CONNECTED;
}

unsigned
qg_client_stream_status(const qg_client_stream *s)
{
	return s->status;
}

/* --- keys ------------------------------------------------------------------------------ */

/* What is no metadata of the standard's form is none. */
static void
read_metadata(const qg_etsi004_response *a, qg_client_chunk *out)
{
	json_t *doc = NULL;
	qg_json_error why;
	size_t len = a->metadata_len;
	while (len > 0 && a->metadata[len - 1] == '\0')
		len--; /* some key managers end it so */
	if (len == 0 || qg_json_parse_object((const char *)a->metadata, len, &doc, &why) != QG_OK)
		return;
	const json_t *age = json_object_get(doc, "age"), *hops = json_object_get(doc, "hops");
	out->has_metadata = json_is_integer(age) || json_is_integer(hops);
	if (json_is_integer(age) && json_integer_value(age) >= 0 && json_integer_value(age) <= UINT32_MAX)
		out->age_ms = (uint32_t)json_integer_value(age);
	if (json_is_integer(hops) && json_integer_value(hops) >= 0 && json_integer_value(hops) <= UINT32_MAX)
		out->hops = (uint32_t)json_integer_value(hops);
	qg_json_free(&doc);
}

qg_err
qg_client_stream_get(qg_client_stream *s, uint32_t index, uint8_t *key, size_t room, qg_client_chunk *out)
{
	qg_etsi004_response a;
	qg_etsi004_request q = {.op = QG_ETSI004_GET_KEY,
				.ksid = s->ksid,
				.index = index,
				.metadata_max = s->qos.mimetype[0] != '\0' ? 1024 : 0,
				.metadata = s->qos.mimetype[0] != '\0' ? s->profile->ask : NULL,
				.metadata_len = s->qos.mimetype[0] != '\0' ? s->profile->ask_len : 0};
	qg_err err = exchange(s, &q, &a);
	if (err == QG_OK && (a.status == QG_ETSI004_NO_KEY || a.status == QG_ETSI004_TIMEOUT))
		err = QG_E_AGAIN;
	else if (err == QG_OK && a.status != QG_ETSI004_SUCCESS)
		err = QG_E_STATE;
	else if (err == QG_OK && (a.index != index || a.key_len != s->chunk_size))
		err = QG_E_PROTO;
	else if (err == QG_OK && a.key_len > room)
		err = QG_E_RANGE;
	if (err == QG_OK) {
		memcpy(key, a.key, a.key_len);
		*out = (qg_client_chunk){.index = index, .len = a.key_len};
		read_metadata(&a, out);
	}
	if (s->frame != NULL)
		qg_wipe(s->frame->data, s->frame->len);
	return err;
}

/* --- the end ----------------------------------------------------------------------------- */

void
qg_client_stream_leave(qg_client_stream **s)
{
	if (s == NULL || *s == NULL)
		return;
	qg_client_stream *p = *s;
	*s = NULL;
	qg_conn_close(&p->conn);
	qg_secret_free(&p->frame);
	free(p->names);
	free(p->files);
	free(p);
}

qg_err
qg_client_stream_close(qg_client_stream **s)
{
	qg_etsi004_response a;
	qg_etsi004_request q = {.op = QG_ETSI004_CLOSE, .ksid = (*s)->ksid};
	qg_err err = exchange(*s, &q, &a);
	if (err == QG_OK && a.status != QG_ETSI004_SUCCESS)
		err = QG_E_STATE;
	qg_client_stream_leave(s);
	return err;
}
