/* SPDX-License-Identifier: Apache-2.0 */
#include "core_pair.h"

#include <errno.h>
#include <ftw.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core_pair_store.c"
#include "qkdgate/clock.h"
#include "qkdgate/log.h"

/* --- time ----------------------------------------------------------------------- */

_Atomic uint64_t pair_ahead_ms;
_Atomic int64_t pair_wall_ahead_ms;

static uint64_t test_elapsed_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000 + atomic_load(&pair_ahead_ms);
}

static int64_t test_wall_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000 + atomic_load(&pair_wall_ahead_ms);
}

void pair_clock(void)
{
	static const qg_clock_ops ops = { .elapsed_ms = test_elapsed_ms, .wall_ms = test_wall_ms };
	qg_clock_use(&ops);
}

void pair_nap(unsigned ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000 };
	while (nanosleep(&t, &t) != 0 && errno == EINTR)
		;
}

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "the harness failed: %s\n", what);
	abort();
}

/* --- the channel ------------------------------------------------------------------- */

static qg_err channel_send(qg_channel *ch, const char *neighbour, qg_kms_kind kind, const char *body, size_t len,
			   qg_channel_done *done, void *ctx)
{
	core_end *e = (core_end *)((char *)ch - offsetof(core_end, channel));
	if (strcmp(neighbour, e->neighbour.id) != 0)
		return QG_E_NOTFOUND;
	pair_message *m = malloc(sizeof *m + len);
	if (m == NULL)
		return QG_E_NOMEM;
	*m = (pair_message){ .from = e, .kind = kind, .done = done, .ctx = ctx, .len = len };
	memcpy(m->body, body, len);
	pthread_mutex_lock(&e->lock);
	bool closed = e->closing;
	if (!closed) {
		*e->queue_end = m;
		e->queue_end = &m->next;
		pthread_cond_broadcast(&e->wake);
	}
	pthread_mutex_unlock(&e->lock);
	if (closed)
		free(m);
	return closed ? QG_E_CLOSED : QG_OK;
}

static const qg_channel_ops channel_ops = { .send = channel_send };

typedef struct pair_answer {
	sem_t told;
	int status;
	size_t len;
	char body[QG_KMS_MSG_MAX];
} pair_answer;

static void take_answer(void *ctx, int status, const char *body, size_t len)
{
	pair_answer *a = ctx;
	a->status = status;
	a->len = len <= sizeof a->body ? len : 0;
	if (a->len > 0)
		memcpy(a->body, body, a->len);
	sem_post(&a->told);
}

static bool begin_receiving(core_end *to)
{
	pthread_mutex_lock(&to->lock);
	bool listening = to->listening;
	to->receiving += listening;
	pthread_mutex_unlock(&to->lock);
	return listening;
}

static void end_receiving(core_end *to)
{
	pthread_mutex_lock(&to->lock);
	to->receiving--;
	pthread_cond_broadcast(&to->wake);
	pthread_mutex_unlock(&to->lock);
}

static void record(core_pair *p, const pair_message *m, const pair_answer *a)
{
	pthread_mutex_lock(&p->record_lock);
	if (p->n_records < PAIR_RECORD_MAX) {
		pair_record *r = &p->record[p->n_records];
		*r = (pair_record){ .side = m->from->side, .kind = m->kind, .len = m->len, .answer_len = a->len,
				    .status = a->status, .body = malloc(m->len + 1), .answer = malloc(a->len + 1) };
		must(r->body != NULL && r->answer != NULL, "memory");
		memcpy(r->body, m->body, m->len);
		memcpy(r->answer, a->body, a->len);
		r->body[m->len] = r->answer[a->len] = '\0';
		p->n_records++;
	}
	pthread_mutex_unlock(&p->record_lock);
}

static void alter_batch(pair_message *m)
{
	qg_kms_batch b;
	if (qg_kms_batch_decode(m->body, m->len, &b) != QG_OK)
		return;
	b.issue_s++;
	size_t len = 0;
	if (qg_kms_batch_encode(&b, m->body, m->len, &len) == QG_OK)
		m->len = len;
}

static void alter_app(pair_message *m)
{
	qg_kms_new_app a;
	if (qg_kms_new_app_decode(m->body, m->len, &a) != QG_OK)
		return;
	a.nonce[0] ^= 1;
	size_t len = 0;
	must(qg_kms_new_app_encode(&a, m->body, m->len, &len) == QG_OK && len == m->len, "new_app");
}

static void alter_answer(pair_answer *a)
{
	qg_kms_batch_answer b;
	if (qg_kms_batch_answer_decode(a->body, a->len, &b) != QG_OK || b.result != QG_KMS_BATCH_CONFIRMED)
		return;
	b.mac[3] ^= 1;
	must(qg_kms_batch_answer_encode(&b, a->body, sizeof a->body, &a->len) == QG_OK, "answer");
}

static bool answer_is_lost(core_end *e, qg_kms_kind kind)
{
	if (atomic_load(&e->answers_lost))
		return true;
	if (kind != QG_KMS_NEW_KEY_BATCH || atomic_load(&e->drop_answers) <= 0)
		return false;
	atomic_fetch_sub(&e->drop_answers, 1);
	return true;
}

static void deliver(core_end *e, core_end *to, pair_message *m)
{
	static _Thread_local pair_answer a;
	unsigned times = atomic_load(&e->twice) ? 2 : 1;
	if (m->kind == QG_KMS_NEW_KEY_BATCH && atomic_load(&e->alter_batches))
		alter_batch(m);
	if (m->kind == QG_KMS_NEW_APP && atomic_load(&e->alter_apps))
		alter_app(m);
	sem_init(&a.told, 0, 0);
	for (unsigned i = 0; i < times; i++) {
		qg_peers_receive(qg_core_peers(to->core), e->cfg.kme_id, m->kind, m->body, m->len, take_answer, &a);
		while (sem_wait(&a.told) != 0)
			;
		record(e->pair, m, &a);
	}
	sem_destroy(&a.told);
	end_receiving(to);
	atomic_fetch_add(&e->sent[m->kind], 1);
	if (atomic_load(&e->alter_answers))
		alter_answer(&a);
	if (answer_is_lost(e, m->kind) || atomic_load(&to->cut))
		m->done(m->ctx, QG_E_TIMEOUT, 0, NULL, 0);
	else
		m->done(m->ctx, QG_OK, a.status, a.body, a.len);
}

static void *channel_run(void *arg)
{
	core_end *e = arg, *to = pair_end(e->pair, !e->side);
	pthread_mutex_lock(&e->lock);
	for (;;) {
		while (e->queue == NULL && !e->closing)
			pthread_cond_wait(&e->wake, &e->lock);
		pair_message *m = e->queue;
		if (m == NULL)
			break;
		e->queue = m->next;
		if (e->queue == NULL)
			e->queue_end = &e->queue;
		bool closing = e->closing;
		pthread_mutex_unlock(&e->lock);
		if (closing)
			m->done(m->ctx, QG_E_CLOSED, 0, NULL, 0);
		else if (atomic_load(&e->link_down) || !begin_receiving(to))
			m->done(m->ctx, QG_E_IO, 0, NULL, 0);
		else
			deliver(e, to, m);
		free(m);
		pthread_mutex_lock(&e->lock);
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

/* --- the sources -------------------------------------------------------------------- */

void pair_chunk(const core_pair *p, const qg_uuid *ksid, uint32_t generation, uint32_t index, uint8_t *out)
{
	uint8_t in[32];
	qg_writer w = qg_writer_of(in, sizeof in);
	qg_put_u64(&w, p->seed);
	qg_put_bytes(&w, ksid->b, sizeof ksid->b);
	qg_put_u32(&w, generation);
	qg_put_u32(&w, index);
	must(!w.bad, "chunk");
	uint32_t n = p->o.chunk_size;
	if (n < 16) {
		uint8_t longer[16];
		crypto_generichash(longer, sizeof longer, in, w.len, NULL, 0);
		memcpy(out, longer, n);
	} else {
		crypto_generichash(out, n < 64 ? n : 64, in, w.len, NULL, 0);
		for (uint32_t i = 64; i < n; i++)
			out[i] = (uint8_t)(out[i % 64] + i / 64);
	}
}

static bool within(uint32_t i, uint32_t from, uint32_t to)
{
	return i >= from && i < to;
}

/* One chunk; false ends the order. */
static bool source_give(pair_session *s, pair_source *src, const qg_intake_order *o, uint32_t index)
{
	uint8_t key[4096];
	unsigned status = atomic_exchange(&src->get_status, 0);
	if (status != 0) {
		qg_intake_get_failed(s->in, index, QG_OK, status);
		return false;
	}
	if (atomic_load(&src->down) || (atomic_load(&src->stop_at) != 0 && index >= atomic_load(&src->stop_at))) {
		qg_intake_get_failed(s->in, index, QG_OK, 2);
		pair_nap(5);
		return false;
	}
	if (index < o->index + o->count && o->count == 1)
		atomic_fetch_add(&src->probes, 1);
	if (atomic_load(&src->loses) && o->count == 1) {
		qg_intake_get_failed(s->in, index, QG_OK, 2);
		pair_nap(5);
		return false;
	}
	uint32_t given = index;
	if (within(index, atomic_load(&src->hole_from), atomic_load(&src->hole_to)))
		given = atomic_load(&src->hole_to);
	if (atomic_load(&src->back_at) != 0 && index == atomic_load(&src->back_at) && !s->fell_back) {
		s->fell_back = true;
		given = index - 1;
	}
	pair_chunk(s->end->pair, &o->ksid, atomic_load(&src->generation), given, key);
	if (within(given, atomic_load(&src->bad_from), atomic_load(&src->bad_to)))
		key[0] ^= 0x55;
	qg_err err = qg_intake_chunk(s->in, &o->ksid, given, key, s->end->pair->o.chunk_size);
	if (err == QG_E_FULL)
		pair_nap(1);
	return err == QG_OK && given == index;
}

static void source_open(pair_session *s, pair_source *src, const qg_intake_order *o)
{
	unsigned status = atomic_load(&src->open_status);
	atomic_fetch_add(&src->opens, 1);
	if (status != 0) {
		qg_intake_open_failed(s->in, QG_OK, status);
		pair_nap(2);
		return;
	}
	qg_uuid ksid = o->ksid;
	if (qg_uuid_is_null(&ksid))
		qg_uuid_random(&ksid);
	qg_intake_opened(s->in, &ksid, s->end->pair->o.chunk_size);
}

static void *session_run(void *arg)
{
	pair_session *s = arg;
	pair_source *src = &s->end->source[s->index];
	for (;;) {
		qg_intake_order o;
		qg_intake_next(s->in, &o);
		switch (o.what) {
		case QG_INTAKE_STOP:
			return NULL;
		case QG_INTAKE_OPEN:
			source_open(s, src, &o);
			break;
		case QG_INTAKE_CLOSE:
			atomic_fetch_add(&src->closes, 1);
			qg_intake_closed(s->in, &o.ksid, QG_OK);
			break;
		case QG_INTAKE_GET:
			for (uint32_t i = 0; i < o.count; i++)
				if (!source_give(s, src, &o, o.index + i))
					break;
			break;
		case QG_INTAKE_WAIT:
			break;
		}
	}
}

/* --- an end ------------------------------------------------------------------------- */

static void put_text(char *out, size_t room, const char *dir, const char *name)
{
	int n = snprintf(out, room, "%s/%s", dir, name);
	must(n > 0 && (size_t)n < room, "a name is too long");
}

static void end_names(core_end *e)
{
	put_text(e->database, sizeof e->database, e->dir, "db");
	put_text(e->anchor, sizeof e->anchor, e->dir, "anchor");
	put_text(e->master_key, sizeof e->master_key, e->dir, "master");
	put_text(e->key_ring, sizeof e->key_ring, e->dir, "ring");
	e->cfg.database = e->database;
	e->cfg.anchor = e->anchor;
	e->cfg.master_key = e->master_key;
	e->cfg.key_ring = e->key_ring;
}

static void end_streams(core_end *e, const pair_options *o)
{
	static const char *const names[] = { "a-to-b", "b-to-a" };
	e->cfg.n_streams = o->shared ? 1 : 2;
	for (int i = 0; i < (int)e->cfg.n_streams; i++)
		e->streams[i] = (qg_config_stream){
			.name = o->shared ? "link" : names[i], .neighbour = e->neighbour.id,
			.direction = o->shared	    ? QG_DIRECTION_SHARED
				     : i == e->side ? QG_DIRECTION_OUTBOUND
						    : QG_DIRECTION_INBOUND,
			.chunk_size = o->chunk_size, .segment_chunks = o->segment_chunks,
		};
	e->cfg.streams = e->streams;
}

static void end_config(core_end *e, const pair_options *o)
{
	static const char *const kmes[] = { "KME-A", "KME-B" };
	static const char *const saes[2][2] = { { "sae-alice", "sae-dave" }, { "sae-bob", "sae-erin" } };
	int other = !e->side;
	e->neighbour = (qg_config_neighbour){ .id = kmes[other], .url = "https://127.0.0.1:1" };
	for (int i = 0; i < 2; i++) {
		e->saes[i] = (qg_config_sae){ .id = saes[e->side][i], .match = { .cn = saes[e->side][i] } };
		e->places[i] = (qg_config_place){ .sae = saes[other][i], .kme = kmes[other] };
	}
	e->cfg = (qg_config){ .kme_id = kmes[e->side], .saes = e->saes, .n_saes = 2, .directory = e->places,
			      .n_directory = 2, .neighbours = &e->neighbour, .n_neighbours = 1,
			      .key_ring_rotate_s = o->rotate_s, .flush_ms = o->flush_ms,
			      .ready_chunks = o->ready_chunks, .inbound_chunks = o->inbound_chunks,
			      .issue_s = o->issue_s, .fetch_s = o->fetch_s, .reserve_percent = o->reserve_percent,
			      .lease_chunks = o->lease_chunks, .epoch_age_s = o->epoch_age_s,
			      .pair_chunks = o->pair_chunks, .kms_timeout_ms = 1000, .clock_jump_s = 86400 };
	end_streams(e, o);
	end_names(e);
}

static void end_listen(core_end *e, bool listening)
{
	pthread_mutex_lock(&e->lock);
	e->listening = listening;
	while (!listening && e->receiving > 0)
		pthread_cond_wait(&e->wake, &e->lock);
	pthread_mutex_unlock(&e->lock);
}

static qg_err end_open(core_end *e)
{
	char why[256] = "";
	qg_seal_options so = { .master_key = e->master_key, .key_ring = e->key_ring, .rotate_s = e->cfg.key_ring_rotate_s };
	if (access(e->master_key, F_OK) != 0)
		must(qg_seal_make_master_key(e->master_key) == QG_OK, "master key");
	must(qg_sealer_open(&so, &e->sealer) == QG_OK, "sealer");
	must(qg_directory_new(&e->cfg, &e->directory) == QG_OK, "directory");
	must(qg_store_sqlite_open(e->database, &e->fresh, &e->store.inner, why, sizeof why) == QG_OK, why);
	e->store.store.ops = &fault_ops;
	e->channel.ops = &channel_ops;
	qg_core_parts parts = { .cfg = &e->cfg, .directory = e->directory, .store = &e->store.store, .fresh = e->fresh,
				.sealer = e->sealer, .channel = &e->channel };
	qg_err err = qg_core_start(&parts, &e->core, why, sizeof why);
	if (err != QG_OK)
		fprintf(stderr, "not started: %s\n", why);
	return err;
}

static void end_close(core_end *e)
{
	e->store.inner->ops->close(&e->store.inner);
	qg_directory_free(&e->directory);
	qg_sealer_close(&e->sealer);
}

static void channel_start(core_end *e)
{
	e->closing = false;
	e->queue = NULL;
	e->queue_end = &e->queue;
	must(pthread_create(&e->worker, NULL, channel_run, e) == 0, "thread");
}

static void channel_stop(core_end *e)
{
	pthread_mutex_lock(&e->lock);
	e->closing = true;
	pthread_cond_broadcast(&e->wake);
	pthread_mutex_unlock(&e->lock);
	pthread_join(e->worker, NULL);
}

qg_err end_try_start(core_end *e)
{
	channel_start(e);
	qg_err err = end_open(e);
	if (err != QG_OK) {
		channel_stop(e);
		end_close(e);
		return err;
	}
	end_listen(e, true);
	for (size_t i = 0; i < e->cfg.n_streams; i++) {
		pair_session *s = &e->session[i];
		*s = (pair_session){ .end = e, .index = i, .in = qg_core_intake(e->core, i), .running = true };
		must(pthread_create(&s->thread, NULL, session_run, s) == 0, "thread");
	}
	return QG_OK;
}

void end_start(core_end *e)
{
	must(end_try_start(e) == QG_OK, "an end does not start");
}

void end_stop(core_end *e)
{
	if (e->core == NULL)
		return;
	qg_core_wind_down(e->core);
	for (size_t i = 0; i < e->cfg.n_streams; i++)
		pthread_join(e->session[i].thread, NULL);
	end_listen(e, false);
	channel_stop(e);
	qg_core_stop(&e->core);
	end_close(e);
}

/* --- crashes and copies ------------------------------------------------------------- */

static void copy_file(const char *from, const char *to)
{
	FILE *in = fopen(from, "rb");
	if (in == NULL) {
		(void)unlink(to);
		return;
	}
	(void)unlink(to);
	FILE *out = fopen(to, "wb");
	must(out != NULL && chmod(to, 0600) == 0, to);
	char block[65536];
	for (size_t n; (n = fread(block, 1, sizeof block, in)) > 0;)
		must(fwrite(block, 1, n, out) == n, to);
	fclose(in);
	must(fclose(out) == 0, to);
}

static void copy_files(const char *from_dir, const char *to_dir, bool with_anchor, bool with_keys)
{
	/* The anchor first: it may lag behind the database, never be ahead. */
	static const char *const names[] = { "anchor", "db", "db-wal", "master", "ring" };
	for (size_t i = with_anchor ? 0 : 1; i < (with_keys ? 5 : 3); i++) {
		char from[256], to[256];
		put_text(from, sizeof from, from_dir, names[i]);
		put_text(to, sizeof to, to_dir, names[i]);
		copy_file(from, to);
	}
}

void end_hold_commits(core_end *e)
{
	pthread_mutex_lock(&e->store.gate);
}

void end_let_commits(core_end *e)
{
	pthread_mutex_unlock(&e->store.gate);
}

void end_copy(core_end *e, const char *to, bool with_anchor)
{
	char dir[192];
	put_text(dir, sizeof dir, e->pair->dir, to);
	must(mkdir(dir, 0700) == 0 || errno == EEXIST, dir);
	end_hold_commits(e);
	copy_files(e->dir, dir, with_anchor, false);
	end_let_commits(e);
}

void end_put_back(core_end *e, const char *from, bool with_anchor)
{
	char dir[192], wal[256];
	put_text(dir, sizeof dir, e->pair->dir, from);
	put_text(wal, sizeof wal, e->dir, "db-shm");
	(void)unlink(wal);
	copy_files(dir, e->dir, with_anchor, false);
}

void end_crash(core_end *e)
{
	char name[32], dir[160];
	int n = snprintf(name, sizeof name, "%c-%u", e->side == 0 ? 'a' : 'b', ++e->lives);
	must(n > 0 && (size_t)n < sizeof name, "name");
	put_text(dir, sizeof dir, e->pair->dir, name);
	must(mkdir(dir, 0700) == 0, dir);
	end_hold_commits(e);
	/* Nothing that follows is seen by anybody. */
	bool was_down = atomic_exchange(&e->link_down, true);
	atomic_store(&e->cut, true);
	copy_files(e->dir, dir, true, true);
	pthread_mutex_lock(&e->lock);
	e->listening = false;
	pthread_mutex_unlock(&e->lock);
	end_let_commits(e);
	end_stop(e);
	char old[160];
	memcpy(old, e->dir, sizeof old);
	memcpy(e->dir, dir, sizeof e->dir);
	end_names(e);
	atomic_store(&e->link_down, was_down);
	atomic_store(&e->cut, false);
	copy_files("/nonexistent", old, true, true); /* unlinks */
}

/* --- the pair ----------------------------------------------------------------------- */

static void options_default(pair_options *o)
{
	static const pair_options usual = { .chunk_size = PAIR_CHUNK, .segment_chunks = PAIR_SEGMENT, .ready_chunks = 512,
					    .inbound_chunks = 4096, .issue_s = 3600, .fetch_s = 3600,
					    .epoch_age_s = 30 * 86400, .flush_ms = 50, .lease_chunks = 256,
					    .rotate_s = 86400 };
#define USUAL(m) o->m = o->m != 0 ? o->m : usual.m
	USUAL(chunk_size);
	USUAL(segment_chunks);
	USUAL(ready_chunks);
	USUAL(inbound_chunks);
	USUAL(issue_s);
	USUAL(fetch_s);
	USUAL(epoch_age_s);
	USUAL(flush_ms);
	USUAL(lease_chunks);
	USUAL(rotate_s);
#undef USUAL
}

core_end *pair_end(core_pair *p, int side)
{
	return &p->end[side];
}

static void pair_folder(core_pair *p)
{
	static const char template[] = "/tmp/qg-core-XXXXXX";
	if (p->o.dir != NULL) {
		int n = snprintf(p->dir, sizeof p->dir, "%s", p->o.dir);
		must(n > 0 && (size_t)n < sizeof p->dir, "folder");
		p->keep = true;
		return;
	}
	memcpy(p->dir, template, sizeof template);
	must(mkdtemp(p->dir) != NULL, "folder");
}

core_pair *pair_new(const pair_options *o)
{
	core_pair *p = calloc(1, sizeof *p);
	must(p != NULL, "memory");
	if (o != NULL)
		p->o = *o;
	options_default(&p->o);
	pair_folder(p);
	p->seed = 7;
	pthread_mutex_init(&p->record_lock, NULL);
	for (int i = 0; i < 2; i++) {
		core_end *e = &p->end[i];
		e->pair = p;
		e->side = i;
		put_text(e->dir, sizeof e->dir, p->dir, i == 0 ? "a" : "b");
		must(mkdir(e->dir, 0700) == 0 || errno == EEXIST, e->dir);
		pthread_mutex_init(&e->lock, NULL);
		pthread_mutex_init(&e->store.gate, NULL);
		pthread_cond_init(&e->wake, NULL);
		end_config(e, &p->o);
	}
	return p;
}

core_pair *pair_start(const pair_options *o)
{
	core_pair *p = pair_new(o);
	end_start(&p->end[0]);
	end_start(&p->end[1]);
	return p;
}

int pair_init(void)
{
	qg_log_init(getenv("QG_TEST_LOG") != NULL ? QG_LOG_DEBUG : QG_LOG_ERROR, QG_LOG_TEXT);
	pair_clock();
	return qg_secret_init() == QG_OK ? 0 : 1;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)st, (void)flag, (void)ftw;
	return remove(path);
}

void pair_free(core_pair **pp)
{
	core_pair *p = *pp;
	if (p == NULL)
		return;
	for (int i = 0; i < 2; i++)
		end_stop(&p->end[i]);
	for (int i = 0; i < 2; i++) {
		pthread_mutex_destroy(&p->end[i].lock);
		pthread_mutex_destroy(&p->end[i].store.gate);
		pthread_cond_destroy(&p->end[i].wake);
	}
	for (size_t i = 0; i < p->n_records; i++) {
		free(p->record[i].body);
		free(p->record[i].answer);
	}
	pthread_mutex_destroy(&p->record_lock);
	if (!p->keep)
		must(nftw(p->dir, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0, p->dir);
	free(p);
	*pp = NULL;
}

static size_t stream_of(const core_pair *p, int owner)
{
	return p->o.shared ? 0 : (size_t)owner;
}

qg_stream *pair_out(core_pair *p, int side)
{
	return &p->end[side].core->stream[stream_of(p, side)];
}

qg_stream *pair_in(core_pair *p, int side)
{
	return &p->end[!side].core->stream[stream_of(p, side)];
}

pair_source *pair_source_of(core_pair *p, int side, int owner)
{
	return &p->end[side].source[stream_of(p, owner)];
}

/* --- keys --------------------------------------------------------------------------- */

pair_keys *keys_new(void)
{
	pair_keys *k = calloc(1, sizeof *k);
	must(k != NULL && sem_init(&k->told, 0, 0) == 0, "memory");
	return k;
}

static void keys_clear(pair_keys *k)
{
	free(k->key);
	k->key = NULL;
	k->n = k->bytes = 0;
}

void keys_free(pair_keys **k)
{
	keys_clear(*k);
	sem_destroy(&(*k)->told);
	free(*k);
	*k = NULL;
}

static void keys_take(pair_keys *k, qg_err err, qg_secret **keys)
{
	k->err = err;
	if (*keys != NULL) {
		k->bytes = (*keys)->len;
		k->key = malloc(k->bytes + 1);
		must(k->key != NULL, "memory");
		memcpy(k->key, (*keys)->data, k->bytes);
		qg_secret_free(keys);
	}
	atomic_fetch_add(&k->calls, 1);
	sem_post(&k->told);
}

static void issue_told(void *ctx, qg_issue_result *r)
{
	pair_keys *k = ctx;
	if (r->err == QG_OK)
		memcpy(k->id, r->ids, k->n * sizeof *k->id);
	k->retry_after_s = r->retry_after_s;
	keys_take(k, r->err, &r->keys);
}

static void fetch_told(void *ctx, qg_fetch_result *r)
{
	pair_keys *k = ctx;
	if (r->err == QG_OK)
		memcpy(k->size, r->sizes, k->n * sizeof *k->size);
	keys_take(k, r->err, &r->keys);
}

static qg_err keys_wait(pair_keys *k)
{
	struct timespec end;
	clock_gettime(CLOCK_REALTIME, &end);
	end.tv_sec += PAIR_WAIT_MS / 1000;
	int rc;
	while ((rc = sem_timedwait(&k->told, &end)) != 0 && errno == EINTR)
		;
	must(rc == 0, "no answer came");
	return k->err;
}

void pair_issue_begin(core_end *e, const qg_issue_request *req, pair_keys *out)
{
	keys_clear(out);
	out->n = req->number;
	qg_keystore_issue(qg_core_keystore(e->core), req, issue_told, out);
}

qg_err pair_issue_req(core_end *e, const qg_issue_request *req, pair_keys *out)
{
	pair_issue_begin(e, req, out);
	return keys_wait(out);
}

qg_err pair_issue(core_end *e, const char *master, const char *slave, uint32_t number, uint32_t size, pair_keys *out)
{
	qg_issue_request req = { .master = master, .slave = slave, .number = number, .size_bytes = size,
				 .max_hops = UINT32_MAX };
	return pair_issue_req(e, &req, out);
}

qg_err pair_issue_wait(core_end *e, const char *master, const char *slave, uint32_t number, uint32_t size,
		       pair_keys *out)
{
	for (unsigned ms = 0; ms < PAIR_WAIT_MS; ms += 2) {
		if (pair_issue(e, master, slave, number, size, out) != QG_E_EMPTY)
			return out->err;
		pair_nap(2);
	}
	return out->err;
}

void pair_fetch_begin(core_end *e, const qg_fetch_request *req, pair_keys *out)
{
	keys_clear(out);
	out->n = req->n;
	qg_keystore_fetch(qg_core_keystore(e->core), req, fetch_told, out);
}

qg_err pair_fetch(core_end *e, const char *master, const char *slave, const qg_uuid *ids, size_t n, pair_keys *out)
{
	qg_fetch_request req = { .master = master, .slave = slave, .ids = ids, .n = n };
	pair_fetch_begin(e, &req, out);
	return keys_wait(out);
}

bool pair_deliver(core_pair *p, int side, uint32_t number, uint32_t size)
{
	const char *master = p->end[side].saes[0].id, *slave = p->end[!side].saes[0].id;
	pair_keys *sent = keys_new(), *got = keys_new();
	bool same = pair_issue_wait(&p->end[side], master, slave, number, size, sent) == QG_OK &&
		    pair_fetch(&p->end[!side], master, slave, sent->id, number, got) == QG_OK &&
		    sent->bytes == got->bytes && memcmp(sent->key, got->key, sent->bytes) == 0;
	if (!same)
		fprintf(stderr, "not delivered: issue %s, fetch %s\n", qg_err_text(sent->err), qg_err_text(got->err));
	keys_free(&sent);
	keys_free(&got);
	return same;
}

/* --- looking ------------------------------------------------------------------------- */

static _Thread_local const void *sought;
static _Thread_local size_t sought_len;

static int seek_in(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)ftw;
	if (flag != FTW_F || st->st_size == 0)
		return 0;
	FILE *f = fopen(path, "rb");
	char *all = malloc((size_t)st->st_size);
	size_t n = f != NULL && all != NULL ? fread(all, 1, (size_t)st->st_size, f) : 0;
	int found = n >= sought_len && memmem(all, n, sought, sought_len) != NULL;
	if (f != NULL)
		fclose(f);
	free(all);
	return found;
}

bool pair_on_disk(const core_pair *p, const void *bytes, size_t n)
{
	sought = bytes;
	sought_len = n;
	return nftw(p->dir, seek_in, 16, FTW_PHYS) != 0;
}

bool pair_wait(core_pair *p, pair_condition *c, void *ctx)
{
	for (unsigned ms = 0; ms < PAIR_WAIT_MS; ms += 3) {
		if (c(p, ctx))
			return true;
		pair_nap(3);
	}
	return false;
}

uint64_t pair_ready(core_pair *p, int side)
{
	qg_stream *st = pair_out(p, side);
	pthread_mutex_lock(&st->lock);
	uint64_t n = st->ready;
	pthread_mutex_unlock(&st->lock);
	return n;
}

typedef struct ready_wish {
	int side;
	uint64_t chunks;
} ready_wish;

static bool is_ready(core_pair *p, void *ctx)
{
	const ready_wish *w = ctx;
	return pair_ready(p, w->side) >= w->chunks;
}

bool pair_wait_ready(core_pair *p, int side, uint64_t chunks)
{
	ready_wish w = { side, chunks };
	return pair_wait(p, is_ready, &w);
}

static bool is_idle(core_pair *p, void *ctx)
{
	qg_stream *st = pair_out(p, *(int *)ctx);
	pthread_mutex_lock(&st->lock);
	qg_epoch *e = qg_epoch_filling(st);
	bool idle = e != NULL && st->wants_room && st->offer == NULL && e->lease_wish == 0;
	pthread_mutex_unlock(&st->lock);
	return idle;
}

/* The pool is full and nothing is under way. */
bool pair_wait_idle(core_pair *p, int side)
{
	return pair_wait(p, is_idle, &side);
}

epoch_view pair_epoch(qg_stream *st)
{
	epoch_view v = { 0 };
	pthread_mutex_lock(&st->lock);
	const qg_epoch *e = st->newest;
	if (e != NULL) {
		v = (epoch_view){ .any = true, .ksid = e->ksid, .state = e->state, .mark = e->mark,
				  .seen_mark = e->seen_mark, .end_ms = e->end_ms, .decided_in = e->decided_in,
				  .decided_out = e->decided_out, .keys_out = e->keys_out != NULL,
				  .keys_in = e->keys_in != NULL };
		memcpy(v.id, e->id, sizeof v.id);
	}
	for (; e != NULL; e = e->older) {
		v.epochs++;
		v.filling += e->state == QG_EPOCH_FILLING;
	}
	pthread_mutex_unlock(&st->lock);
	return v;
}

bool pair_epoch_lives(qg_stream *st, const uint8_t id[16])
{
	pthread_mutex_lock(&st->lock);
	bool lives = qg_epoch_find(st, id) != NULL;
	pthread_mutex_unlock(&st->lock);
	return lives;
}

uint64_t pair_bad(qg_stream *st)
{
	pthread_mutex_lock(&st->lock);
	uint64_t n = st->n_bad;
	pthread_mutex_unlock(&st->lock);
	return n;
}

size_t pair_records(core_pair *p)
{
	pthread_mutex_lock(&p->record_lock);
	size_t n = p->n_records;
	pthread_mutex_unlock(&p->record_lock);
	return n;
}

long pair_find_record(core_pair *p, int side, qg_kms_kind kind, size_t from)
{
	long found = -1;
	pthread_mutex_lock(&p->record_lock);
	for (size_t i = from; i < p->n_records && found < 0; i++)
		if (p->record[i].side == side && p->record[i].kind == kind)
			found = (long)i;
	pthread_mutex_unlock(&p->record_lock);
	return found;
}

unsigned pair_batch_sent(core_pair *p, int side, uint32_t segment)
{
	unsigned n = 0;
	qg_kms_batch m;
	pthread_mutex_lock(&p->record_lock);
	for (size_t i = 0; i < p->n_records; i++) {
		const pair_record *r = &p->record[i];
		n += r->side == side && r->kind == QG_KMS_NEW_KEY_BATCH &&
		     qg_kms_batch_decode(r->body, r->len, &m) == QG_OK && m.segment == segment;
	}
	pthread_mutex_unlock(&p->record_lock);
	return n;
}

static bool records_agree(const pair_record *a, const qg_kms_batch *m, const pair_record *b)
{
	qg_kms_batch n;
	if (b->kind != QG_KMS_NEW_KEY_BATCH || qg_kms_batch_decode(b->body, b->len, &n) != QG_OK ||
	    m->segment != n.segment || memcmp(m->epoch, n.epoch, sizeof m->epoch) != 0)
		return true;
	if (a->len != b->len || memcmp(a->body, b->body, a->len) != 0)
		return false;
	qg_kms_batch_answer x, y;
	if (a->status != 200 || b->status != 200 || qg_kms_batch_answer_decode(a->answer, a->answer_len, &x) != QG_OK ||
	    qg_kms_batch_answer_decode(b->answer, b->answer_len, &y) != QG_OK || x.result != QG_KMS_BATCH_CONFIRMED ||
	    y.result != QG_KMS_BATCH_CONFIRMED)
		return true;
	return a->answer_len == b->answer_len && memcmp(a->answer, b->answer, a->answer_len) == 0;
}

bool pair_signed_once(core_pair *p)
{
	bool once = true;
	pthread_mutex_lock(&p->record_lock);
	for (size_t i = 0; i < p->n_records && once; i++) {
		const pair_record *a = &p->record[i];
		qg_kms_batch m;
		if (a->kind != QG_KMS_NEW_KEY_BATCH || qg_kms_batch_decode(a->body, a->len, &m) != QG_OK)
			continue;
		for (size_t j = i + 1; j < p->n_records && once; j++)
			once = records_agree(a, &m, &p->record[j]);
		if (!once)
			fprintf(stderr, "segment %u: two messages under one key\n", m.segment);
	}
	pthread_mutex_unlock(&p->record_lock);
	return once;
}
