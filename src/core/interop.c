/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "interop_internal.h"
#include "transfer_internal.h"

/* What the parts of the engine between networks share: peers, the conductor's
 * part, and the end of records that a peer asked to be void. */

const qg_config_peer *
qg_ix_peer(const struct qg_core *core, const char *home)
{
	const qg_config *cfg = core->part.cfg;
	if (!qg_transfer_is_peer(home))
		return NULL;
	for (size_t i = 0; i < cfg->n_peers; i++)
		if (strcmp(cfg->peers[i].id, home + sizeof QG_PEER_PREFIX - 1) == 0)
			return &cfg->peers[i];
	return NULL;
}

const char *
qg_ix_neighbour(const struct qg_core *core, const qg_config_peer *peer)
{
	for (size_t i = 0; peer->stream != NULL && i < core->n_streams; i++)
		if (strcmp(core->stream[i].cfg->name, peer->stream) == 0)
			return core->stream[i].neighbour->id;
	return NULL;
}

/* --- the end of records ------------------------------------------------------------ */

typedef struct ending {
	size_t n;
	qg_ix_telling *t[];
} ending;

static bool
same_case(const qg_transfer *a, const qg_transfer *b)
{
	if (b->owed == NULL || strcmp(a->owed, b->owed) != 0 || strcmp(a->initiator, b->initiator) != 0 ||
	    qg_transfer_end_state(a) != qg_transfer_end_state(b) || a->n_targets > QG_KMS_SAES_MAX)
		return false;
	const char *targets[QG_KMS_SAES_MAX];
	for (size_t i = 0; i < a->n_targets; i++)
		targets[i] = a->targets[i].sae;
	return qg_transfer_is_for(b, NULL, targets, a->n_targets);
}

static qg_err
tell_end(struct qg_core *core, qg_store *store, const qg_transfer *x, const qg_uuid *ids, size_t n,
	 qg_ix_telling **out)
{
	const char *targets[QG_KMS_SAES_MAX];
	size_t k = 0;
	for (; k < x->n_targets && k < QG_KMS_SAES_MAX; k++)
		targets[k] = x->targets[k].sae;
	const unsigned what = qg_transfer_end_state(x) == QG_TRANSFER_FAILED ? QG_INTEROP_FAILED_TO_VOID
									     : QG_INTEROP_VOIDED;
	qg_err err = qg_ix_telling_new(core, x->owed, what, x->initiator, targets, k, ids, n, out);
	if (err == QG_E_NOTFOUND) /* no such peer any more */
		return QG_OK;
	return err == QG_OK ? qg_ix_telling_store(*out, store) : err;
}

static void
ended(void *ctx, void *kept, qg_err err)
{
	struct qg_core *core = ctx;
	ending *e = kept;
	for (size_t i = 0; i < e->n; i++)
		qg_ix_telling_added(core, &e->t[i], err);
	free(e);
}

/* Acks for those among the records whose void a peer asked for. */
static qg_err
end(void *ctx, qg_store *store, qg_transfer *const *x, size_t n, void **kept)
{
	struct qg_core *core = ctx;
	if (*kept != NULL)
		ended(ctx, *kept, QG_E_CLOSED);
	ending *e = calloc(1, sizeof *e + n * sizeof e->t[0]);
	qg_uuid *ids = calloc(n, sizeof *ids);
	qg_err err = e == NULL || ids == NULL ? QG_E_NOMEM : QG_OK;
	*kept = e;
	for (size_t i = 0; err == QG_OK && i < n;) {
		size_t k = 0;
		for (; i + k < n && k < QG_INTEROP_KEYS_MAX && x[i]->owed != NULL && same_case(x[i], x[i + k]);
		     k++)
			ids[k] = x[i + k]->id;
		if (k > 0) {
			err = tell_end(core, store, x[i], ids, k, &e->t[e->n]);
			e->n += err == QG_OK && e->t[e->n] != NULL;
		}
		i += k > 0 ? k : 1;
	}
	free(ids);
	return err;
}

/* --- the conductor's part ------------------------------------------------------------ */

qg_err
qg_interop_open(struct qg_core *core)
{
	core->transfers->finish = end;
	core->transfers->finished = ended;
	core->transfers->finish_ctx = core;
	qg_err err = qg_ix_tellings_load(core);
	if (err == QG_OK)
		err = qg_ix_voids_new(core);
	return err == QG_OK ? qg_ix_resume(core) : err;
}

void
qg_interop_close(struct qg_core *core)
{
	qg_ix_tellings_free(core);
	qg_ix_voids_free(core);
}

uint64_t
qg_interop_step(struct qg_core *core, uint64_t now_ms)
{
	const uint64_t tell_ms = qg_ix_tell(core, now_ms), void_ms = qg_ix_voids_step(core, now_ms);
	return tell_ms < void_ms ? tell_ms : void_ms;
}

void
qg_interop_wind_down(struct qg_core *core)
{
	qg_ix_voids_stop(core);
}
