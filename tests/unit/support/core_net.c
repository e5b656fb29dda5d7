/* SPDX-License-Identifier: Apache-2.0 */
#include "core_net.h"

#include "core_common.c"
#include "core_net_channel.c"
#include "core_net_way.c"
#include "core_net_plan.c"
#include "core_net_look.c"
#include "core_net_forge.c"
#include "core_net_account.c"

/* --- a node ------------------------------------------------------------------------- */

static void node_names(core_node *e)
{
	put_text(e->database, sizeof e->database, e->dir, "db");
	put_text(e->anchor, sizeof e->anchor, e->dir, "anchor");
	put_text(e->master_key, sizeof e->master_key, e->dir, "master");
	put_text(e->key_ring, sizeof e->key_ring, e->dir, "ring");
	e->cfg.database = e->database;
	e->cfg.anchor = e->anchor;
	e->cfg.master_key = e->master_key;
	e->cfg.key_ring = e->key_ring;
	e->cfg.audit_file = e->audit_file;
}

static void node_audit(core_node *e)
{
	unsigned char key[32];
	qg_sealer_derive(e->sealer, "audit", key);
	must(qg_audit_open(e->audit_file, key, &e->audit) == QG_OK, "audit");
}

static qg_err node_open(core_node *e)
{
	char why[256] = "";
	qg_seal_options so = { .master_key = e->master_key, .key_ring = e->key_ring, .rotate_s = e->cfg.key_ring_rotate_s };
	if (access(e->master_key, F_OK) != 0)
		must(qg_seal_make_master_key(e->master_key) == QG_OK, "master key");
	must(qg_sealer_open(&so, &e->sealer) == QG_OK, "sealer");
	must(qg_directory_new(&e->cfg, &e->directory) == QG_OK, "directory");
	must(qg_store_sqlite_open(e->database, &e->fresh, &e->store.inner, why, sizeof why) == QG_OK, why);
	node_audit(e);
	e->store.store.ops = &fault_ops;
	e->channel.ops = &net_channel_ops;
	e->way.ops = &net_way_ops;
	qg_core_parts parts = { .cfg = &e->cfg, .directory = e->directory, .store = &e->store.store, .fresh = e->fresh,
				.sealer = e->sealer, .audit = e->audit, .channel = &e->channel, .way = e->cfg.n_peers > 0 ? &e->way : NULL };
	qg_err err = qg_core_start(&parts, &e->core, why, sizeof why);
	if (err != QG_OK)
		fprintf(stderr, "%s not started: %s\n", e->id, why);
	return err;
}

static void node_close(core_node *e)
{
	e->store.inner->ops->close(&e->store.inner);
	qg_audit_close(&e->audit);
	qg_directory_free(&e->directory);
	qg_sealer_close(&e->sealer);
}

static void node_sessions(core_node *e)
{
	for (size_t i = 0; i < e->cfg.n_streams; i++) {
		const qg_config_stream *s = &e->streams[i];
		e->session[i] = (pair_session){ .in = qg_core_intake(e->core, i), .src = &e->source[i],
						.kind = s->relayed ? SOURCE_DRAWN : SOURCE_LINK, .seed = e->net->seed,
						.chunk_size = s->chunk_size };
		session_start(&e->session[i]);
	}
}

qg_err node_try_start(core_node *e)
{
	channel_start(e);
	way_start(e);
	qg_err err = node_open(e);
	if (err != QG_OK) {
		channel_stop(e);
		way_stop(e);
		node_close(e);
		return err;
	}
	pthread_mutex_lock(&e->lock);
	e->listening = true;
	pthread_mutex_unlock(&e->lock);
	node_sessions(e);
	return QG_OK;
}

void node_start(core_node *e)
{
	must(node_try_start(e) == QG_OK, "a node does not start");
}

/* Every message that came must be answered before the core ends. */
static void stop_receiving(core_node *e, bool strictly)
{
	uint64_t end_ms = net_ms() + PAIR_WAIT_MS / 3;
	pthread_mutex_lock(&e->lock);
	e->listening = false;
	while (e->receiving > 0 && net_ms() < end_ms)
		wait_until(e, end_ms);
	must(!strictly || e->receiving == 0, "a message was never answered");
	pthread_mutex_unlock(&e->lock);
}

void node_stop(core_node *e)
{
	if (e->core == NULL)
		return;
	qg_core_wind_down(e->core);
	for (size_t i = 0; i < e->cfg.n_streams; i++)
		session_join(&e->session[i]);
	stop_receiving(e, false);
	channel_stop(e);
	way_stop(e);
	stop_receiving(e, true);
	qg_core_stop(&e->core);
	node_close(e);
}

void node_hold_commits(core_node *e)
{
	pthread_mutex_lock(&e->store.gate);
}

void node_let_commits(core_node *e)
{
	pthread_mutex_unlock(&e->store.gate);
}

void node_copy(core_node *e, const char *to, bool with_anchor)
{
	char dir[192];
	put_text(dir, sizeof dir, e->net->dir, to);
	must(mkdir(dir, 0700) == 0 || errno == EEXIST, dir);
	node_hold_commits(e);
	copy_files(e->dir, dir, with_anchor, false);
	node_let_commits(e);
}

void node_put_back(core_node *e, const char *from, bool with_anchor)
{
	char dir[192], shm[256];
	put_text(dir, sizeof dir, e->net->dir, from);
	put_text(shm, sizeof shm, e->dir, "db-shm");
	(void)unlink(shm);
	copy_files(dir, e->dir, with_anchor, false);
}

static void cut_off(core_node *e)
{
	atomic_store(&e->cut, true);
	pthread_mutex_lock(&e->lock);
	e->listening = false;
	pthread_mutex_unlock(&e->lock);
}

void node_crash(core_node *e)
{
	core_net *n = e->net;
	char name[32], dir[160];
	int len = snprintf(name, sizeof name, "%c-%u", 'a' + (int)e->index, ++e->lives);
	must(len > 0 && (size_t)len < sizeof name, "name");
	put_text(dir, sizeof dir, n->dir, name);
	must(mkdir(dir, 0700) == 0, dir);
	node_hold_commits(e);
	/* Nothing that follows is seen by anybody. */
	cut_off(e);
	copy_files(e->dir, dir, true, true);
	node_let_commits(e);
	calls_fail(e, NULL, QG_E_IO);
	posts_fail(e, NULL);
	for (unsigned i = 0; i < n->plan.nodes; i++)
		calls_fail(&n->node[i], e, QG_E_IO), posts_fail(&n->node[i], e);
	node_stop(e);
	char old[160];
	memcpy(old, e->dir, sizeof old);
	memcpy(e->dir, dir, sizeof e->dir);
	node_names(e);
	atomic_store(&e->cut, false);
	copy_files("/nonexistent", old, true, true); /* unlinks */
}

/* --- the network --------------------------------------------------------------------- */

static void node_init(core_net *n, unsigned i)
{
	core_node *e = &n->node[i];
	char audit[] = "audit-a";
	e->net = n;
	e->index = i;
	memcpy(e->id, "KME-A", sizeof "KME-A");
	memcpy(e->sae[0], "sae-a", sizeof "sae-a");
	memcpy(e->sae[1], "sae-a2", sizeof "sae-a2");
	e->id[4] = (char)('A' + i);
	e->sae[0][4] = e->sae[1][4] = audit[6] = (char)('a' + i);
	put_text(e->audit_file, sizeof e->audit_file, n->dir, audit);
	put_text(e->dir, sizeof e->dir, n->dir, e->sae[0] + 4);
	must(mkdir(e->dir, 0700) == 0, e->dir);
	pthread_mutex_init(&e->lock, NULL);
	pthread_mutex_init(&e->store.gate, NULL);
	pthread_cond_init(&e->wake, NULL);
}

core_net *net_new(const net_plan *pl)
{
	core_net *n = calloc(1, sizeof *n);
	must(n != NULL, "memory");
	n->plan = *pl;
	plan_default(&n->plan);
	memcpy(n->dir, "/tmp/qg-net-XXXXXX", sizeof "/tmp/qg-net-XXXXXX");
	must(mkdtemp(n->dir) != NULL, "folder");
	n->seed = 11;
	pthread_mutex_init(&n->record_lock, NULL);
	pthread_mutex_init(&n->hook_lock, NULL);
	for (unsigned i = 0; i < pl->nodes; i++)
		node_init(n, i);
	net_links(n);
	for (unsigned i = 0; i < pl->nodes; i++) {
		node_config(&n->node[i]);
		node_names(&n->node[i]);
	}
	return n;
}

core_net *net_start(const net_plan *pl)
{
	core_net *n = net_new(pl);
	for (unsigned i = 0; i < pl->nodes; i++)
		node_start(&n->node[i]);
	return n;
}

void net_free(core_net **np)
{
	core_net *n = *np;
	if (n == NULL)
		return;
	for (unsigned i = 0; i < n->plan.nodes; i++)
		node_stop(&n->node[i]);
	for (unsigned i = 0; i < n->plan.nodes; i++) {
		pthread_mutex_destroy(&n->node[i].lock);
		pthread_mutex_destroy(&n->node[i].store.gate);
		pthread_cond_destroy(&n->node[i].wake);
	}
	for (size_t i = 0; i < n->n_records; i++)
		net_record_free(&n->record[i]);
	free(n->record);
	pthread_mutex_destroy(&n->record_lock);
	pthread_mutex_destroy(&n->hook_lock);
	remove_folder(n->dir);
	free(n);
	*np = NULL;
}
