/* SPDX-License-Identifier: Apache-2.0 */
#include "core_pair.h"

#include "core_common.c"
#include "core_pair_faults.c"
#include "core_pair_keys.c"

/* --- an end ------------------------------------------------------------------------- */

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
			.node_chunks = o->node_chunks, .node_percent = o->node_percent,
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
		*s = (pair_session){ .in = qg_core_intake(e->core, i), .src = &e->source[i], .seed = e->pair->seed,
				     .chunk_size = e->pair->o.chunk_size };
		session_start(s);
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
		session_join(&e->session[i]);
	end_listen(e, false);
	channel_stop(e);
	qg_core_stop(&e->core);
	end_close(e);
}

/* --- crashes and copies ------------------------------------------------------------- */

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
		remove_folder(p->dir);
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
