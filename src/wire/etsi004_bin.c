/* SPDX-License-Identifier: Apache-2.0 */
/* Profile `bin`: u32 big-endian, a header of 8 bytes {version 3, service 1,
 * payload length 4}, strings that end in NUL. The two dialects differ in what
 * the struct below says. */
#include "qkdgate/etsi004.h"

#include <string.h>

#define HEADER 8
#define QOS_WORDS 28 /* seven u32 */
#define MIMETYPE_FIELD 256
#define UUID_SIZE 16

typedef struct bin_dialect {
	uint8_t version[3];
	bool fixed_mimetype;   /* 256 bytes, else as long as it is */
	bool request_metadata; /* GET_KEY carries metadata, else room for the answer's */
	bool short_errors;     /* an error is its status alone, else the full structure */
} bin_dialect;

enum service {
	SERVICE_ERROR = 0x00,
	SERVICE_OPEN = 0x02,
	SERVICE_OPEN_ANSWER = 0x03,
	SERVICE_GET = 0x04,
	SERVICE_GET_ANSWER = 0x05,
	SERVICE_CLOSE = 0x08,
	SERVICE_CLOSE_ANSWER = 0x09
};

static const struct {
	uint8_t request, answer;
} services[] = {
	[QG_ETSI004_OPEN_CONNECT] = {SERVICE_OPEN, SERVICE_OPEN_ANSWER},
	[QG_ETSI004_GET_KEY] = {SERVICE_GET, SERVICE_GET_ANSWER},
	[QG_ETSI004_CLOSE] = {SERVICE_CLOSE, SERVICE_CLOSE_ANSWER},
	[QG_ETSI004_ERROR] = {SERVICE_ERROR, SERVICE_ERROR},
};

static const bin_dialect *
dialect_of(const qg_etsi004_profile *p)
{
	return p->dialect;
}

/* --- frames ---------------------------------------------------------------- */

static qg_err
bin_frame(const qg_etsi004_profile *p, const uint8_t *bytes, size_t n, size_t *total)
{
	(void)p;
	if (n < HEADER)
		return QG_E_AGAIN;
	qg_reader r = qg_reader_of(bytes + 4, 4);
	uint32_t payload = qg_get_u32(&r);
	if (payload > QG_ETSI004_FRAME_MAX - HEADER)
		return QG_E_RANGE;
	*total = HEADER + (size_t)payload;
	return QG_OK;
}

/* A writer of one message behind what w holds; the length comes at the end. */
static qg_writer
message_begin(const qg_writer *w, const bin_dialect *d, uint8_t service)
{
	qg_writer m = qg_writer_of(w->buf + w->len, w->room - w->len);
	m.bad = w->bad;
	qg_put_bytes(&m, d->version, sizeof d->version);
	qg_put_u8(&m, service);
	qg_put_u32(&m, 0);
	return m;
}

static qg_err
message_end(qg_writer *w, const qg_writer *m)
{
	if (m->bad || m->len > QG_ETSI004_FRAME_MAX)
		return QG_E_RANGE;
	qg_writer length = qg_writer_of(m->buf + 4, 4);
	qg_put_u32(&length, (uint32_t)(m->len - HEADER));
	w->len += m->len;
	return QG_OK;
}

/* The payload of a frame of exactly n bytes. */
static qg_err
message_open(const uint8_t *frame, size_t n, uint8_t *service, qg_reader *payload)
{
	size_t total = 0;
	qg_err err = bin_frame(NULL, frame, n, &total);
	if (err != QG_OK)
		return err == QG_E_AGAIN ? QG_E_PARSE : err;
	if (total != n)
		return QG_E_PARSE;
	*service = frame[3];
	*payload = qg_reader_of(frame + HEADER, n - HEADER);
	return QG_OK;
}

/* --- members --------------------------------------------------------------- */

static void
put_uuid(qg_writer *w, const qg_uuid *u)
{
	qg_put_bytes(w, u->b, sizeof u->b);
}

static void
get_uuid(qg_reader *r, qg_uuid *u)
{
	const uint8_t *p = qg_get_bytes(r, sizeof u->b);
	if (p != NULL)
		memcpy(u->b, p, sizeof u->b);
}

static void
put_qos(qg_writer *w, const bin_dialect *d, const qg_etsi004_qos *q)
{
	static const uint8_t zeroes[MIMETYPE_FIELD];
	const uint32_t words[] = {q->chunk_size, q->max_bps,    q->min_bps, q->jitter_bps,
				  q->priority,   q->timeout_ms, q->ttl_s};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		qg_put_u32(w, words[i]);
	size_t n = strlen(q->mimetype);
	if (n > QG_ETSI004_MIMETYPE_MAX) {
		w->bad = true;
		return;
	}
	qg_put_bytes(w, q->mimetype, n);
	qg_put_bytes(w, zeroes, d->fixed_mimetype ? MIMETYPE_FIELD - n : 1);
}

static void
get_qos(qg_reader *r, const bin_dialect *d, qg_etsi004_qos *q)
{
	uint32_t *const words[] = {&q->chunk_size, &q->max_bps,    &q->min_bps, &q->jitter_bps,
				   &q->priority,   &q->timeout_ms, &q->ttl_s};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		*words[i] = qg_get_u32(r);
	if (d->fixed_mimetype) {
		const uint8_t *bytes = qg_get_bytes(r, MIMETYPE_FIELD);
		qg_reader field = qg_reader_of(bytes, bytes != NULL ? MIMETYPE_FIELD : 0);
		q->mimetype = qg_get_cstr(&field);
	} else {
		q->mimetype = qg_get_cstr(r);
	}
	if (q->mimetype == NULL || strlen(q->mimetype) > QG_ETSI004_MIMETYPE_MAX)
		r->bad = true;
}

/* u32 length and that many bytes. */
static void
put_counted(qg_writer *w, const uint8_t *p, size_t n)
{
	qg_put_u32(w, (uint32_t)n);
	qg_put_bytes(w, p, n);
}

/* The length is held against the limit and against what is there. */
static qg_err
get_counted(qg_reader *r, size_t max, const uint8_t **p, size_t *n)
{
	uint32_t len = qg_get_u32(r);
	if (r->bad)
		return QG_E_PARSE;
	if (len > max)
		return QG_E_RANGE;
	*p = qg_get_bytes(r, len);
	*n = len;
	return r->bad ? QG_E_PARSE : QG_OK;
}

static qg_err
ended(const qg_reader *r)
{
	return r->bad || r->left != 0 ? QG_E_PARSE : QG_OK;
}

/* --- requests -------------------------------------------------------------- */

static qg_err
bin_put_request(const qg_etsi004_profile *p, const qg_etsi004_request *q, qg_writer *w)
{
	const bin_dialect *d = dialect_of(p);
	if (q->op > QG_ETSI004_CLOSE)
		return QG_E_INVAL;
	qg_writer m = message_begin(w, d, services[q->op].request);
	switch (q->op) {
	case QG_ETSI004_OPEN_CONNECT:
		if (strlen(q->source) > QG_ETSI004_URI_MAX || strlen(q->destination) > QG_ETSI004_URI_MAX)
			return QG_E_RANGE;
		qg_put_cstr(&m, q->source);
		qg_put_cstr(&m, q->destination);
		put_qos(&m, d, &q->qos);
		put_uuid(&m, &q->ksid);
		break;
	case QG_ETSI004_GET_KEY:
		if (q->metadata_len > QG_ETSI004_METADATA_MAX)
			return QG_E_RANGE;
		put_uuid(&m, &q->ksid);
		qg_put_u32(&m, q->index);
		if (d->request_metadata)
			put_counted(&m, q->metadata, q->metadata_len);
		else
			qg_put_u32(&m, q->metadata_max);
		break;
	default:
		put_uuid(&m, &q->ksid);
		break;
	}
	return message_end(w, &m);
}

static qg_err
get_open_request(const bin_dialect *d, qg_reader *r, qg_etsi004_request *q)
{
	q->source = qg_get_cstr(r);
	q->destination = qg_get_cstr(r);
	if (r->bad)
		return QG_E_PARSE;
	if (strlen(q->source) > QG_ETSI004_URI_MAX || strlen(q->destination) > QG_ETSI004_URI_MAX)
		return QG_E_RANGE;
	get_qos(r, d, &q->qos);
	get_uuid(r, &q->ksid);
	return ended(r);
}

static qg_err
get_key_request(const bin_dialect *d, qg_reader *r, qg_etsi004_request *q)
{
	get_uuid(r, &q->ksid);
	q->index = qg_get_u32(r);
	if (d->request_metadata) {
		qg_err err = get_counted(r, QG_ETSI004_METADATA_MAX, &q->metadata, &q->metadata_len);
		if (err != QG_OK)
			return err;
		q->metadata_max = QG_ETSI004_METADATA_MAX; /* the length is never a limit */
	} else {
		q->metadata_max = qg_get_u32(r);
	}
	return ended(r);
}

static qg_err
read_request(const bin_dialect *d, const uint8_t *frame, size_t n, qg_etsi004_request *out)
{
	qg_etsi004_request q = {.source = "", .destination = "", .qos.mimetype = ""};
	uint8_t service = 0;
	qg_reader r;
	qg_err err = message_open(frame, n, &service, &r);
	if (err != QG_OK)
		return err;
	switch (service) {
	case SERVICE_OPEN:
		q.op = QG_ETSI004_OPEN_CONNECT;
		err = get_open_request(d, &r, &q);
		break;
	case SERVICE_GET:
		q.op = QG_ETSI004_GET_KEY;
		err = get_key_request(d, &r, &q);
		break;
	case SERVICE_CLOSE:
		q.op = QG_ETSI004_CLOSE;
		get_uuid(&r, &q.ksid);
		err = ended(&r);
		break;
	default:
		err = QG_E_UNSUPPORTED;
		break;
	}
	if (err == QG_OK)
		*out = q;
	return err;
}

static qg_err
bin_get_request(const qg_etsi004_profile *p, uint8_t *frame, size_t n, qg_etsi004_request *out)
{
	return read_request(dialect_of(p), frame, n, out);
}

/* --- answers --------------------------------------------------------------- */

/* Whether the status goes alone: every error of a dialect that does so, but a
 * counter-proposal needs its structure; CLOSE and ERROR have nothing else. */
static bool
status_alone(const bin_dialect *d, const qg_etsi004_response *a)
{
	switch (a->op) {
	case QG_ETSI004_OPEN_CONNECT:
		return !a->has_qos || (d->short_errors && a->status > QG_ETSI004_PEER_NOT_CONNECTED &&
				       a->status != QG_ETSI004_QOS);
	case QG_ETSI004_GET_KEY:
		return d->short_errors && a->status != QG_ETSI004_SUCCESS;
	default:
		return true;
	}
}

static void
put_answer_body(qg_writer *m, const bin_dialect *d, const qg_etsi004_response *a)
{
	if (a->op == QG_ETSI004_OPEN_CONNECT) {
		put_qos(m, d, &a->qos);
		put_uuid(m, &a->ksid);
		return;
	}
	qg_put_u32(m, a->index);
	put_counted(m, a->key, a->key_len);
	if (a->status == QG_ETSI004_METADATA_SIZE)
		qg_put_u32(m, a->metadata_needed);
	else
		put_counted(m, a->metadata, a->metadata_len);
}

static qg_err
bin_put_response(const qg_etsi004_profile *p, const qg_etsi004_response *a, qg_writer *w)
{
	const bin_dialect *d = dialect_of(p);
	if (a->op > QG_ETSI004_ERROR || (a->op == QG_ETSI004_OPEN_CONNECT && !a->has_qos &&
					 a->status <= QG_ETSI004_PEER_NOT_CONNECTED))
		return QG_E_INVAL;
	if (a->key_len > QG_ETSI004_KEY_MAX || a->metadata_len > QG_ETSI004_METADATA_MAX)
		return QG_E_RANGE;
	qg_writer m = message_begin(w, d, services[a->op].answer);
	qg_put_u32(&m, qg_etsi004_status_to_wire(p, a->status));
	if (!status_alone(d, a))
		put_answer_body(&m, d, a);
	else if (a->op == QG_ETSI004_GET_KEY && a->status == QG_ETSI004_METADATA_SIZE)
		qg_put_u32(&m, a->metadata_needed);
	return message_end(w, &m);
}

/* A success needs its structure; an error may come without in either dialect. */
static qg_err
get_open_answer(const bin_dialect *d, qg_reader *r, qg_etsi004_response *a)
{
	if (r->left == 0 && !r->bad)
		return a->status > QG_ETSI004_PEER_NOT_CONNECTED && a->status != QG_ETSI004_QOS ? QG_OK
												 : QG_E_PARSE;
	get_qos(r, d, &a->qos);
	get_uuid(r, &a->ksid);
	a->has_qos = true;
	return ended(r);
}

/* Status 8: the size that would do stands where the metadata's length is, with
 * that many bytes behind it or none. */
static qg_err
get_needed(qg_reader *r, qg_etsi004_response *a)
{
	a->metadata_needed = qg_get_u32(r);
	if (!r->bad && r->left == a->metadata_needed)
		qg_get_bytes(r, r->left);
	return ended(r);
}

static qg_err
get_key_answer(qg_reader *r, qg_etsi004_response *a)
{
	if (r->left == 0 && !r->bad)
		return a->status != QG_ETSI004_SUCCESS ? QG_OK : QG_E_PARSE;
	if (a->status == QG_ETSI004_METADATA_SIZE && r->left == 4)
		return get_needed(r, a);
	a->index = qg_get_u32(r);
	qg_err err = get_counted(r, QG_ETSI004_KEY_MAX, &a->key, &a->key_len);
	if (err != QG_OK)
		return err;
	if (a->status == QG_ETSI004_METADATA_SIZE)
		return get_needed(r, a);
	err = get_counted(r, QG_ETSI004_METADATA_MAX, &a->metadata, &a->metadata_len);
	return err != QG_OK ? err : ended(r);
}

static qg_err
bin_get_response(const qg_etsi004_profile *p, const qg_etsi004_due *due, uint8_t *frame, size_t n,
		 qg_etsi004_response *out)
{
	(void)due; /* an answer says what it is to */
	qg_etsi004_response a = {.qos.mimetype = ""};
	uint8_t service = 0;
	qg_reader r;
	qg_err err = message_open(frame, n, &service, &r);
	if (err != QG_OK)
		return err;
	a.status = qg_etsi004_status_of_wire(p, qg_get_u32(&r));
	switch (service) {
	case SERVICE_OPEN_ANSWER:
		a.op = QG_ETSI004_OPEN_CONNECT;
		err = get_open_answer(dialect_of(p), &r, &a);
		break;
	case SERVICE_GET_ANSWER:
		a.op = QG_ETSI004_GET_KEY;
		err = get_key_answer(&r, &a);
		break;
	case SERVICE_CLOSE_ANSWER:
		a.op = QG_ETSI004_CLOSE;
		err = ended(&r);
		break;
	case SERVICE_ERROR:
		a.op = QG_ETSI004_ERROR;
		err = ended(&r);
		break;
	default:
		err = QG_E_UNSUPPORTED;
		break;
	}
	if (err == QG_OK)
		*out = a;
	return err;
}

/* --- which dialect a client speaks ------------------------------------------- */

/* Whether a request has the shape of the dialect, its version left aside. */
static bool
fits(const qg_etsi004_profile *p, const uint8_t *frame, size_t n)
{
	qg_etsi004_request q;
	return read_request(dialect_of(p), frame, n, &q) == QG_OK;
}

qg_err
qg_etsi004_bin_detect(const uint8_t *frame, size_t n, const qg_etsi004_profile **out)
{
	if (n < HEADER)
		return QG_E_PARSE;
	const bin_dialect *b = dialect_of(&qg_etsi004_bin_b);
	const bool says_b = memcmp(frame, b->version, sizeof b->version) == 0;
	bool is_a = fits(&qg_etsi004_bin_a, frame, n);
	bool is_b = fits(&qg_etsi004_bin_b, frame, n);
	const bool either = is_a || is_b;
	if (is_a == is_b)
		is_b = says_b;
	*out = is_b ? &qg_etsi004_bin_b : &qg_etsi004_bin_a;
	return either ? QG_OK : QG_E_PARSE;
}

/* The first byte is the major version. */
static bool
bin_begins(uint8_t first)
{
	return first == 0x01 || first == 0x02;
}

/* --- the tables ------------------------------------------------------------ */

static const qg_etsi004_status_row statuses_v211[] = {
	{0, QG_ETSI004_SUCCESS},   {1, QG_ETSI004_PEER_NOT_CONNECTED}, {2, QG_ETSI004_NO_KEY},
	{3, QG_ETSI004_NO_PEER},   {4, QG_ETSI004_NO_CONNECTION},      {5, QG_ETSI004_IN_USE},
	{6, QG_ETSI004_TIMEOUT},   {7, QG_ETSI004_QOS},                {8, QG_ETSI004_METADATA_SIZE},
};

static const bin_dialect dialect_a = {.version = {2, 1, 1}, .request_metadata = true};
static const bin_dialect dialect_b = {.version = {1, 0, 1}, .fixed_mimetype = true, .short_errors = true};

/* {type, role} as the reference code's fork reads it: a symmetric key. */
static const uint8_t ask_symmetric[] = {0x00, 0x10};

static const qg_etsi004_family bin_family = {.begins = bin_begins, .detect = qg_etsi004_bin_detect};

#define BIN_COMMON                                                                                 \
	.family = &bin_family, .modes = QG_ETSI004_PULL,                                           \
	.request_max = (size_t)QG_ETSI004_METADATA_MAX + 8192,                                     \
	.statuses = statuses_v211, .n_statuses = sizeof statuses_v211 / sizeof statuses_v211[0],   \
	.frame = bin_frame, .put_request = bin_put_request, .get_request = bin_get_request,        \
	.put_response = bin_put_response, .get_response = bin_get_response

const qg_etsi004_profile qg_etsi004_bin_a = {
	BIN_COMMON,
	.name = "bin-a",
	.persistent = false,
	.in_flight = 1,
	.qos_unsaid = true,
	.metadata_nul = true,
	.ask = ask_symmetric,
	.ask_len = sizeof ask_symmetric,
	.dialect = &dialect_a,
};

const qg_etsi004_profile qg_etsi004_bin_b = {
	BIN_COMMON,
	.name = "bin-b",
	.persistent = true,
	.in_flight = 32,
	.qos_opens = true,
	.dialect = &dialect_b,
};
