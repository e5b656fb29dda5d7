/* SPDX-License-Identifier: Apache-2.0 */
#include "qkdgate/etsi004_server.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "etsi004_push_internal.h"
#include "qkdgate/byte_server.h"
#include "qkdgate/clock.h"
#include "qkdgate/etsi004.h"
#include "qkdgate/limits.h"
#include "qkdgate/log.h"
#include "qkdgate/request_id.h"

/* The profiles' requests become calls of app_streams.h, and what these say goes
 * back in the profile's own form. */

/* Lines in the audit log about certificates that name no SAE. */
#define STRANGERS_PER_S 10
#define STRANGERS_BURST 100
#define ANSWER_ROOM ((size_t)4096)
#define ERROR_ROOM ((size_t)1024)

struct qg_etsi004_server {
	qg_etsi004_server_parts parts;
	qg_byte_server *bytes;
	qg_limits *strangers;
	qg_004_pushes *pushes;
	atomic_uint pending; /* calls whose answer is due */
};

/* How long a chunk that is to be pushed is waited for at a time: in between the
 * connection's requests are looked at. */
#define PUSH_WAIT_MS 200

/* Of a connection: its profile, NULL before the first request, and the stream
 * whose chunks are pushed over it. */
typedef struct link_state {
	const qg_etsi004_profile *profile;
	bool told; /* which dialect, by an OPEN_CONNECT now or before */
	bool pushing;
	qg_app_get push; /* the next one */
} link_state;

typedef struct call {
	qg_etsi004_server *s;
	qg_byte_conn *conn;
	const qg_etsi004_profile *profile;
	bool last;
	bool pushed;          /* nobody asked for it */
	qg_request_id id;
	qg_etsi004_request q; /* views into the connection's bytes */
	qg_app_open open;
	qg_app_get get;
} call;

/* --- answers -------------------------------------------------------------------------- */

static void
answer_nothing(call *c)
{
	qg_etsi004_server *s = c->s;
	qg_byte_conn *conn = c->conn;
	free(c);
	qg_byte_answer(conn, NULL, false);
	atomic_fetch_sub(&s->pending, 1);
}

/* Without memory nothing can be said: the connection ends. */
static void
answer_with(call *c, const qg_etsi004_response *a, size_t room)
{
	qg_secret *out = NULL;
	bool last = c->last || !c->profile->persistent;
	if (qg_secret_new(room, &out) == QG_OK) {
		qg_writer w = qg_writer_of(out->data, out->room);
		if (c->profile->put_response(c->profile, a, &w) == QG_OK)
			out->len = w.len;
		else
			last = true;
	} else {
		last = true;
	}
	const qg_request_id *before = qg_request_id_enter(&c->id);
	qg_log(QG_LOG_DEBUG, "etsi004", "event=answered op=%d profile=%s status=%u", (int)a->op, c->profile->name, a->status);
	(void)qg_request_id_enter(before);
	qg_etsi004_server *s = c->s;
	qg_byte_conn *conn = c->conn;
	free(c);
	if (out == NULL && qg_secret_new(1, &out) != QG_OK)
		out = NULL;
	qg_byte_answer(conn, out, last);
	atomic_fetch_sub(&s->pending, 1);
}

static void
leave_unsaid(const qg_etsi004_qos *asked, qg_etsi004_qos *q)
{
	uint32_t *const said[] = {&q->max_bps, &q->min_bps, &q->jitter_bps, &q->priority, &q->timeout_ms, &q->ttl_s};
	const uint32_t of[] = {asked->max_bps,  asked->min_bps,    asked->jitter_bps,
			       asked->priority, asked->timeout_ms, asked->ttl_s};
	for (size_t i = 0; i < sizeof of / sizeof of[0]; i++)
		if (of[i] == 0)
			*said[i] = 0;
}

static void
opened(void *ctx, const qg_app_opened *r)
{
	call *c = ctx;
	qg_etsi004_response a = {.op = QG_ETSI004_OPEN_CONNECT,
				       .status = r->status,
				       .has_qos = r->has_qos,
				       .ksid = r->ksid,
				       .qos = r->qos};
	if (r->status == QG_ETSI004_SUCCESS && c->profile->qos_unsaid)
		leave_unsaid(&c->q.qos, &a.qos);
	answer_with(c, &a, ANSWER_ROOM);
}

/* In profiles in which key can come over the client's connection, the chunk after
 * this one goes without a request where the configuration has it so. */
static void
push_next(call *c, const qg_app_got *r)
{
	link_state *link = qg_byte_state(c->conn);
	link->pushing = r->status == QG_ETSI004_SUCCESS && r->pushes && r->index < UINT32_MAX &&
			(c->profile->modes & QG_ETSI004_PUSH) != 0;
	link->push = c->get;
	link->push.index = r->index + 1;
	link->push.wait_ms = PUSH_WAIT_MS;
}

static void
got(void *ctx, qg_app_got *r)
{
	call *c = ctx;
	/* None yet: the client knows that it comes when it is there. */
	if (c->pushed && r->status == QG_ETSI004_TIMEOUT) {
		answer_nothing(c);
		return;
	}
	push_next(c, r);
	const qg_etsi004_response a = {
		.op = QG_ETSI004_GET_KEY,
		.status = r->status,
		.ksid = c->q.ksid,
		.qos = {.mimetype = ""},
		.index = r->index,
		.key = r->key != NULL ? r->key->data : NULL,
		.key_len = r->key != NULL ? r->key->len : 0,
		.metadata = (const uint8_t *)r->metadata,
		/* It is a string, and that has one. */
		.metadata_len = r->metadata_len + (r->metadata_len > 0 && c->profile->metadata_nul),
		.metadata_needed = r->metadata_needed,
	};
	/* A byte of key takes up to four characters in a profile of text. */
	answer_with(c, &a, ERROR_ROOM + 5 * a.key_len);
}

static void
closed(void *ctx, uint32_t status)
{
	call *c = ctx;
	const qg_etsi004_response a = {
		.op = QG_ETSI004_CLOSE, .status = status, .ksid = c->q.ksid, .qos = {.mimetype = ""}};
	answer_with(c, &a, ANSWER_ROOM);
}

/* --- requests --------------------------------------------------------------------------- */

/* Its place in the list, from 1. */
static unsigned
number_of(const qg_etsi004_profile *p)
{
	unsigned n = 0;
	while (qg_etsi004_profile_at(n) != p)
		n++;
	return n + 1;
}

static void
begin_open(call *c)
{
	c->open = (qg_app_open){.sae = qg_byte_peer(c->conn),
				.dialect = number_of(c->profile),
				.ksid = c->q.ksid,
				.source = c->q.source,
				.destination = c->q.destination,
				.qos = c->q.qos,
				.qos_opens = c->profile->qos_opens};
	qg_app_streams_open(c->s->parts.streams, &c->open, opened, c);
}

static void
get(call *c)
{
	if (!qg_audit_healthy(c->s->parts.audit))
		got(c, &(qg_app_got){.status = QG_ETSI004_NO_KEY, .index = c->get.index});
	else /* no key leaves without a record */
		qg_app_streams_get(c->s->parts.streams, &c->get, got, c);
}

static void
push_begun(void *ctx, uint32_t status)
{
	call *c = ctx;
	const qg_etsi004_response a = {
		.op = QG_ETSI004_GET_KEY, .status = status, .ksid = c->q.ksid, .qos = {.mimetype = ""}};
	answer_with(c, &a, ERROR_ROOM);
}

static void
begin_get(call *c)
{
	c->get = (qg_app_get){.sae = qg_byte_peer(c->conn),
			      .ksid = c->q.ksid,
			      .in_sequence = c->q.in_sequence,
			      .index = c->q.index,
			      .metadata_max = c->q.metadata_max};
	if (c->profile->push != NULL)
		qg_004_push_begin(c->s->pushes, c->profile, &c->get, push_begun, c);
	else
		get(c);
}

static void
begin_close(call *c)
{
	link_state *link = qg_byte_state(c->conn);
	qg_004_push_end(c->s->pushes, qg_byte_peer(c->conn), &c->q.ksid);
	link->pushing &= !qg_uuid_equal(&link->push.ksid, &c->q.ksid);
	qg_app_streams_close(c->s->parts.streams, qg_byte_peer(c->conn), &c->q.ksid, closed, c);
}

/* What could not be read is said in the profile's own way, where it has one;
 * then the connection ends. */
static qg_err
refuse(qg_byte_conn *conn, const qg_etsi004_profile *p, size_t n, size_t *used)
{
	qg_secret *out = NULL;
	if (p == NULL || qg_secret_new(ERROR_ROOM, &out) != QG_OK)
		return QG_E_PARSE;
	qg_writer w = qg_writer_of(out->data, out->room);
	if (qg_etsi004_put_error(p, &w) != QG_OK) {
		qg_secret_free(&out);
		return QG_E_PARSE;
	}
	out->len = w.len;
	*used = n;
	qg_byte_answer(conn, out, true);
	return QG_OK;
}

/* A client that comes back to its stream is answered in the dialect of its
 * OPEN_CONNECT, where its other requests do not tell. */
static void
recall_dialect(qg_etsi004_server *s, qg_byte_conn *conn, link_state *link, const qg_etsi004_request *q)
{
	if (link->told || q->op > QG_ETSI004_CLOSE)
		return;
	link->told = true;
	const unsigned number = q->op == QG_ETSI004_OPEN_CONNECT
					? 0
					: qg_app_streams_dialect(s->parts.streams, qg_byte_peer(conn), &q->ksid);
	const qg_etsi004_profile *p = number > 0 ? qg_etsi004_profile_at(number - 1) : NULL;
	if (p != NULL && p->family == link->profile->family && p->persistent && link->profile->persistent)
		link->profile = p;
}

/* The call may be over, and freed, before it returns: so the ID is this one's own. */
static void
begin_as_request(call *c, void (*begin)(call *))
{
	qg_request_id id;
	qg_request_id_make(&id);
	c->id = id;
	const qg_request_id *before = qg_request_id_enter(&id);
	begin(c);
	(void)qg_request_id_enter(before);
}

static qg_err
on_request(qg_byte_conn *conn, uint8_t *bytes, size_t n, size_t *used, void *ctx)
{
	static void (*const begin[])(call *) = {
		[QG_ETSI004_OPEN_CONNECT] = begin_open,
		[QG_ETSI004_GET_KEY] = begin_get,
		[QG_ETSI004_CLOSE] = begin_close,
	};
	qg_etsi004_server *s = ctx;
	link_state *link = qg_byte_state(conn);
	qg_etsi004_request q;
	qg_err err = qg_etsi004_next_request(&link->profile, bytes, n, &q, used);
	if (err == QG_E_AGAIN)
		return err;
	if (err == QG_OK)
		recall_dialect(s, conn, link, &q);
	const qg_etsi004_profile *p = link->profile;
	if (err != QG_OK || q.op > QG_ETSI004_CLOSE)
		return refuse(conn, p, n, used);
	call *c = calloc(1, sizeof *c);
	if (c == NULL)
		return QG_E_NOMEM;
	*c = (call){.s = s, .conn = conn, .profile = p, .q = q, .last = q.last};
	atomic_fetch_add(&s->pending, 1);
	begin_as_request(c, begin[q.op]);
	/* cppcheck-suppress memleak ; it is that call's */
	return QG_OK;
}

/* The chunk after the one that was pushed last. */
static qg_err
on_unasked(qg_byte_conn *conn, void *ctx)
{
	qg_etsi004_server *s = ctx;
	const link_state *link = qg_byte_state(conn);
	if (!link->pushing)
		return QG_E_AGAIN;
	call *c = calloc(1, sizeof *c);
	if (c == NULL)
		return QG_E_NOMEM;
	*c = (call){.s = s, .conn = conn, .profile = link->profile, .pushed = true, .get = link->push};
	c->q.ksid = c->get.ksid;
	c->get.sae = qg_byte_peer(conn);
	atomic_fetch_add(&s->pending, 1);
	begin_as_request(c, get);
	/* cppcheck-suppress memleak ; it is that call's */
	return QG_OK;
}

static const void *
identify(const qg_tls_identity *id, void *ctx)
{
	qg_etsi004_server *s = ctx;
	if (id == NULL)
		return qg_directory_local(s->parts.directory, s->parts.cfg->app_listener.plain_sae);
	const qg_config_sae *sae = qg_directory_identify(s->parts.directory, id);
	uint32_t wait_s;
	if (sae == NULL && qg_limits_take(s->strangers, "", 1, qg_clock_elapsed_ms(), &wait_s) == QG_OK) {
		const qg_audit_event e = {.act = QG_AUDIT_REFUSED,
					  .caller = "",
					  .peer = "",
					  .reason = "certificate names no registered SAE"};
		qg_audit_write(s->parts.audit, &e);
	}
	return sae;
}

/* --- the server --------------------------------------------------------------------------- */

/* The longest request of any profile. */
static size_t
request_max(void)
{
	size_t most = 0;
	const qg_etsi004_profile *p;
	for (size_t i = 0; (p = qg_etsi004_profile_at(i)) != NULL; i++)
		most = p->request_max > most ? p->request_max : most;
	return most;
}

static qg_err
listen_on(qg_etsi004_server *s, char *why, size_t why_room)
{
	const qg_config_app_listener *l = &s->parts.cfg->app_listener;
	const qg_byte_options o = {
		.address = l->at.address,
		.port = l->at.port,
		.tls = l->at.tls,
		.plain = l->plain_sae != NULL,
		.ticket_key_s = l->at.ticket_key_s,
		.threads = l->at.threads,
		.max_connections = l->at.max_connections,
		.max_per_address = l->at.max_per_address,
		.address_handshakes_per_s = l->at.address_handshakes_per_s,
		.idle_timeout_s = l->at.idle_timeout_s,
		.request_max = request_max(),
		.state_bytes = sizeof(link_state),
		.ctx = s,
		.identify = identify,
		.request = on_request,
		.unasked = on_unasked,
	};
	return qg_byte_server_start(&o, &s->bytes, why, why_room);
}

qg_err
qg_etsi004_server_start(const qg_etsi004_server_parts *parts, qg_etsi004_server **out, char *why, size_t why_room)
{
	if (why_room > 0)
		why[0] = '\0';
	qg_etsi004_server *s = calloc(1, sizeof *s);
	if (s == NULL)
		return QG_E_NOMEM;
	s->parts = *parts;
	atomic_init(&s->pending, 0);
	qg_err err = qg_limits_new(STRANGERS_PER_S, STRANGERS_BURST, &s->strangers);
	if (err == QG_OK)
		err = qg_004_pushes_start(&s->parts, &s->pushes);
	if (err == QG_OK)
		err = listen_on(s, why, why_room);
	if (err != QG_OK) {
		qg_004_pushes_free(&s->pushes);
		qg_limits_free(&s->strangers);
		free(s);
		return err;
	}
	*out = s;
	return QG_OK;
}

unsigned
qg_etsi004_server_port(const qg_etsi004_server *s)
{
	return qg_byte_server_port(s->bytes);
}

const qg_byte_server *
qg_etsi004_server_bytes(const qg_etsi004_server *s)
{
	return s->bytes;
}

qg_err
qg_etsi004_server_reload_tls(qg_etsi004_server *s, const qg_tls_files *f, char *why, size_t why_room)
{
	return s != NULL ? qg_byte_server_reload_tls(s->bytes, f, why, why_room) : QG_OK;
}

void
qg_etsi004_server_renew(qg_etsi004_server *s)
{
	if (s != NULL)
		qg_byte_server_identify_again(s->bytes);
}

void
qg_etsi004_server_forbid(qg_etsi004_server *s)
{
	if (s == NULL)
		return;
	qg_004_pushes_forbid(s->pushes);
	qg_byte_server_forbid(s->bytes);
}

void
qg_etsi004_server_stop(qg_etsi004_server *s)
{
	if (s == NULL)
		return;
	qg_byte_server_stop(s->bytes);
	qg_004_pushes_stop(s->pushes);
}

void
qg_etsi004_server_free(qg_etsi004_server **s)
{
	if (s == NULL || *s == NULL)
		return;
	while (atomic_load(&(*s)->pending) > 0)
		(void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	qg_004_pushes_free(&(*s)->pushes);
	qg_byte_server_free(&(*s)->bytes);
	qg_limits_free(&(*s)->strangers);
	free(*s);
	*s = NULL;
}
