/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QKDGATE_TEST_SOURCE_FAKE_H
#define QKDGATE_TEST_SOURCE_FAKE_H

/* What a source stands between: a key stream (intake) and a key manager, both
 * made for the test. Include after sim_child.h. */
#include <pthread.h>
#include <stdatomic.h>

#include "qkdgate/source.h"

/* --- the key stream ------------------------------------------------------------- */

#define KEYS_MAX 4096

struct qg_intake {
	qg_config_stream cfg;
	pthread_mutex_t lock;
	bool want_open, opening, open, want_close, stopping;
	bool reopen;         /* after a failure with a status, with the KSID */
	qg_uuid ksid;
	uint32_t next, target, per_order;
	uint32_t chunk_size;
	bool stop_at_wrong;  /* asks for no more after a wrong index */
	uint32_t full_at;    /* this index is refused once; 0: none */

	unsigned opened, open_failed, failed, closed, wrong;
	qg_err open_err, failed_err, closed_err;
	uint32_t open_status, failed_status, failed_index, wrong_index;
	uint8_t keys[KEYS_MAX][32];
};

const qg_config_stream *
qg_intake_config(const qg_intake *in)
{
	return &in->cfg;
}

static bool
choose(qg_intake *in, qg_intake_order *o)
{
	uint32_t left = in->target - in->next;
	*o = (qg_intake_order){.what = QG_INTAKE_WAIT, .ksid = in->ksid, .index = in->next,
			       .count = left < in->per_order ? left : in->per_order};
	if (in->want_close && in->open) {
		o->what = QG_INTAKE_CLOSE;
	} else if (in->stopping) {
		o->what = QG_INTAKE_STOP;
	} else if (in->want_open && !in->opening) {
		in->opening = true;
		o->what = QG_INTAKE_OPEN;
	} else if (in->open && left > 0) {
		o->what = QG_INTAKE_GET;
	}
	return o->what != QG_INTAKE_WAIT;
}

void
qg_intake_next(qg_intake *in, qg_intake_order *o)
{
	for (int i = 0; i < 20; i++) {
		pthread_mutex_lock(&in->lock);
		bool some = choose(in, o);
		pthread_mutex_unlock(&in->lock);
		if (some)
			return;
		poll(NULL, 0, 2);
	}
}

void
qg_intake_opened(qg_intake *in, const qg_uuid *ksid, uint32_t chunk_size)
{
	pthread_mutex_lock(&in->lock);
	in->want_open = in->opening = false;
	in->open = true;
	in->ksid = *ksid;
	in->chunk_size = chunk_size;
	in->opened++;
	pthread_mutex_unlock(&in->lock);
}

void
qg_intake_open_failed(qg_intake *in, qg_err err, uint32_t status)
{
	pthread_mutex_lock(&in->lock);
	in->opening = false;
	in->open_failed++;
	in->open_err = err;
	in->open_status = status;
	pthread_mutex_unlock(&in->lock);
}

static qg_err
chunk_locked(qg_intake *in, uint32_t index, const uint8_t *key, size_t len)
{
	if (len != in->chunk_size || index != in->next || index >= KEYS_MAX) {
		in->wrong++;
		in->wrong_index = index;
		if (in->stop_at_wrong)
			in->target = in->next;
		return QG_E_PROTO;
	}
	if (index == in->full_at && index != 0) {
		in->full_at = 0;
		return QG_E_FULL;
	}
	memcpy(in->keys[index], key, 32);
	in->next++;
	return QG_OK;
}

qg_err
qg_intake_chunk(qg_intake *in, const qg_uuid *ksid, uint32_t index, const uint8_t *key, size_t len)
{
	pthread_mutex_lock(&in->lock);
	qg_err err = qg_uuid_equal(ksid, &in->ksid) ? chunk_locked(in, index, key, len) : QG_E_STATE;
	pthread_mutex_unlock(&in->lock);
	return err;
}

void
qg_intake_get_failed(qg_intake *in, uint32_t index, qg_err err, uint32_t status)
{
	pthread_mutex_lock(&in->lock);
	in->failed++;
	in->failed_err = err;
	in->failed_status = status;
	in->failed_index = index;
	if (in->reopen && status == QG_ETSI004_NO_CONNECTION) {
		in->open = false;
		in->want_open = true;
	}
	pthread_mutex_unlock(&in->lock);
}

void
qg_intake_closed(qg_intake *in, const qg_uuid *ksid, qg_err err)
{
	(void)ksid;
	pthread_mutex_lock(&in->lock);
	in->open = in->want_close = false;
	in->closed++;
	in->closed_err = err;
	pthread_mutex_unlock(&in->lock);
}

static void
intake_init(qg_intake *in, qg_source_profile profile, unsigned port)
{
	memset(in, 0, sizeof *in);
	pthread_mutex_init(&in->lock, NULL);
	in->cfg = (qg_config_stream){
		.name = "test",
		.chunk_size = 32,
		.source = {.profile = profile, .host = "127.0.0.1", .port = port, .source_uri = "client://test/1",
			   .destination_uri = "server://test", .timeout_ms = 500, .ttl_s = 3600,
			   .mimetype = "application/json"},
	};
	in->want_open = true;
	in->per_order = 64;
}

/* One member read under the lock. */
#define PEEK(in, member) (pthread_mutex_lock(&(in)->lock), peeked = (uint64_t)(in)->member, \
			  pthread_mutex_unlock(&(in)->lock), peeked)
static uint64_t peeked;

#define EVENTUALLY(condition)                                                              \
	do {                                                                               \
		uint64_t until_ms_ = qg_clock_elapsed_ms() + READY_MS;                     \
		while (!(condition)) {                                                     \
			assert_true(qg_clock_elapsed_ms() < until_ms_);                    \
			poll(NULL, 0, 2);                                                  \
		}                                                                          \
	} while (0)

/* --- the key manager ------------------------------------------------------------- */

typedef struct fake fake;

typedef enum act {
	ANSWER,
	ANSWER_RAW,  /* f->raw instead */
	DROP,        /* closes without an answer */
	HEADER_ONLY, /* the first 8 bytes, then nothing, whatever else was received with it */
	FORGET       /* what else was received with it is lost */
} act;

/* Changes the answer that a good key manager would give. */
typedef act behave_fn(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a);

struct fake {
	int listener;
	unsigned port;
	pthread_t thread;
	bool running;
	const qg_etsi004_profile *profile;
	behave_fn *behave;
	unsigned slow_ms;
	atomic_bool stop;
	atomic_uint connections, opens, gets, closes, burst; /* burst: most requests at once */
	atomic_uint asked[KEYS_MAX];                         /* GET_KEY per index */
	qg_uuid ksid, last_ksid;  /* given to null; last asked for */
	qg_etsi004_qos last_qos;  /* of the last OPEN_CONNECT */
	size_t metadata_asked;
	uint8_t raw[4096];
	size_t raw_len;
	atomic_uint state;        /* the behaviour's own */
};

static void
key_of(uint32_t index, uint8_t key[32])
{
	for (uint32_t i = 0; i < 32; i++)
		key[i] = (uint8_t)(index * 31 + i * 7 + (index >> 8));
}

static act
answer_well(fake *f, const qg_etsi004_request *q, qg_etsi004_response *a, uint8_t *key)
{
	*a = (qg_etsi004_response){.op = q->op, .qos.mimetype = ""};
	f->last_ksid = q->ksid;
	if (q->op == QG_ETSI004_OPEN_CONNECT) {
		f->last_qos = q->qos;
		f->last_qos.mimetype = "";
		a->has_qos = true;
		a->qos = q->qos;
		a->ksid = qg_uuid_is_null(&q->ksid) ? f->ksid : q->ksid;
		atomic_fetch_add(&f->opens, 1);
	} else if (q->op == QG_ETSI004_GET_KEY) {
		key_of(q->index, key);
		a->index = q->index;
		a->key = key;
		a->key_len = 32;
		f->metadata_asked = q->metadata_len > 0 ? q->metadata_len : q->metadata_max;
		atomic_fetch_add(&f->gets, 1);
		if (q->index < KEYS_MAX)
			atomic_fetch_add(&f->asked[q->index], 1);
	} else {
		atomic_fetch_add(&f->closes, 1);
	}
	return f->behave != NULL ? f->behave(f, q, a) : ANSWER;
}

/* Whether the connection goes on. */
static bool
fake_answer(fake *f, qg_conn *c, uint8_t *frame, size_t n, act *did)
{
	static uint8_t out[1 << 18];
	uint8_t key[32];
	qg_etsi004_request q;
	qg_etsi004_response a;
	qg_writer w = qg_writer_of(out, sizeof out);
	if (f->profile->get_request(f->profile, frame, n, &q) != QG_OK)
		abort(); /* whatever the server does, the client is right */
	*did = answer_well(f, &q, &a, key);
	if (f->slow_ms > 0)
		poll(NULL, 0, (int)f->slow_ms);
	if (*did == DROP)
		return false;
	if (*did == ANSWER_RAW)
		qg_put_bytes(&w, f->raw, f->raw_len);
	else if (f->profile->put_response(f->profile, &a, &w) != QG_OK)
		abort();
	return qg_conn_send(c, out, *did == HEADER_ONLY ? 8 : w.len, 1000) == QG_OK && f->profile->persistent;
}

static void
fake_serve(fake *f, qg_conn *c)
{
	static uint8_t in[1 << 18];
	size_t len = 0;
	while (!atomic_load(&f->stop)) {
		size_t got = 0, at = 0, total = 0;
		unsigned burst = 0;
		qg_err err = qg_conn_recv_some(c, in + len, sizeof in - len, 20, &got);
		if (err == QG_E_TIMEOUT)
			continue;
		if (err != QG_OK)
			return;
		len += got;
		while (f->profile->frame(f->profile, in + at, len - at, &total) == QG_OK && total <= len - at) {
			act did = ANSWER;
			burst++;
			if (burst > atomic_load(&f->burst))
				atomic_store(&f->burst, burst);
			bool on = fake_answer(f, c, in + at, total, &did);
			at = did == FORGET || did == HEADER_ONLY ? len : at + total;
			if (!on)
				return;
		}
		memmove(in, in + at, len - at);
		len -= at;
	}
}

static void *
fake_main(void *f_)
{
	fake *f = f_;
	struct pollfd p = {.fd = f->listener, .events = POLLIN};
	while (!atomic_load(&f->stop)) {
		if (poll(&p, 1, 20) <= 0)
			continue;
		qg_conn *c = NULL;
		int fd = accept4(f->listener, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0 || qg_conn_accept(fd, NULL, false, 1000, &c) != QG_OK)
			continue;
		atomic_fetch_add(&f->connections, 1);
		fake_serve(f, c);
		qg_conn_close(&c);
	}
	return NULL;
}

static void
fake_start(fake *f, const qg_etsi004_profile *profile, behave_fn *behave)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	memset(f, 0, sizeof *f);
	f->profile = profile;
	f->behave = behave;
	qg_uuid_random(&f->ksid);
	f->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(f->listener, (struct sockaddr *)&a, len), 0);
	assert_int_equal(listen(f->listener, 16), 0);
	assert_int_equal(getsockname(f->listener, (struct sockaddr *)&a, &len), 0);
	f->port = ntohs(a.sin_port);
	assert_int_equal(pthread_create(&f->thread, NULL, fake_main, f), 0);
	f->running = true;
}

static void
fake_stop(fake *f)
{
	if (!f->running)
		return;
	f->running = false;
	atomic_store(&f->stop, true);
	pthread_join(f->thread, NULL);
	close(f->listener);
}

#endif
