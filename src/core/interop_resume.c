/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "interop_internal.h"
#include "qkdgate/log.h"
#include "transfer_internal.h"

/* What a start finds offered of other KMEs' keys is brought on again: the same
 * keys, so that who has them already says so (SOUNDNESS 18). */

typedef struct group {
	struct group *next;
	uint32_t n;
	qg_transfer *x[QG_INTEROP_KEYS_MAX];
} group;

static bool
same_text(const char *a, const char *b)
{
	return a != NULL && b != NULL ? strcmp(a, b) == 0 : a == b;
}

static bool
belongs(const group *g, const qg_transfer *x)
{
	const qg_transfer *first = g->x[0];
	if (g->n == QG_INTEROP_KEYS_MAX || strcmp(first->origin, x->origin) != 0 ||
	    strcmp(first->initiator, x->initiator) != 0 || !same_text(first->optional, x->optional) ||
	    first->n_targets != x->n_targets)
		return false;
	for (size_t i = 0; i < x->n_targets; i++) /* the store gives them in order */
		if (strcmp(first->targets[i].sae, x->targets[i].sae) != 0 ||
		    !same_text(first->targets[i].home, x->targets[i].home))
			return false;
	return true;
}

static qg_err
add(group **groups, qg_transfer *x)
{
	group *g = *groups;
	while (g != NULL && !belongs(g, x))
		g = g->next;
	if (g == NULL) {
		g = calloc(1, sizeof *g);
		if (g == NULL)
			return QG_E_NOMEM;
		g->next = *groups;
		*groups = g;
	}
	x->pins++;
	g->x[g->n++] = x;
	return QG_OK;
}

static qg_err
collect(const qg_transfers *t, group **groups)
{
	qg_err err = QG_OK;
	for (size_t i = 0; err == QG_OK && i < t->n_buckets; i++)
		for (qg_transfer *x = t->buckets[i]; err == QG_OK && x != NULL; x = x->next)
			if (x->origin != NULL && x->state == QG_TRANSFER_OFFERED)
				err = add(groups, x);
	return err;
}

static qg_err
values_of(const qg_transfers *t, const group *g, qg_secret **out)
{
	size_t len = 0;
	for (uint32_t i = 0; i < g->n; i++)
		len += g->x[i]->size_bytes;
	qg_err err = qg_secret_new(len, out);
	for (uint32_t i = 0; err == QG_OK && i < g->n; i++) {
		err = qg_transfer_value(t, g->x[i], (*out)->data + (*out)->len);
		(*out)->len += g->x[i]->size_bytes;
	}
	return err;
}

/* What cannot be brought on (a peer that is gone, a damaged value) is void. */
static void
give_up(struct qg_core *core, const group *g, qg_err why)
{
	qg_log(QG_LOG_WARN, "interop", "event=not_resumed kme=%s keys=%u reason=\"%s\"",
	       qg_log_safe(g->x[0]->origin), g->n, qg_err_text(why));
	for (uint32_t i = 0; i < g->n; i++) {
		const char *homes[QG_KMS_SAES_MAX];
		size_t n = 0;
		for (size_t k = 0; k < g->x[i]->n_targets && n < QG_KMS_SAES_MAX; k++)
			if (g->x[i]->targets[k].home != NULL)
				homes[n++] = g->x[i]->targets[k].home;
		qg_transfer_void_begin(core->transfers, g->x[i], homes, n);
		qg_transfer_void_stored(core->transfers, g->x[i]);
	}
}

static void
resume(struct qg_core *core, const group *g)
{
	QG_SECRET_AUTO *values = NULL;
	const qg_config_peer *peer = qg_ix_peer(core, g->x[0]->origin);
	const uint32_t wait_ms = peer != NULL ? peer->ack_timeout_ms : core->part.cfg->transfer_timeout_ms;
	qg_mc *op = NULL;
	qg_err err = values_of(core->transfers, g, &values);
	if (err == QG_OK)
		err = qg_mc_adopt(core, g->x[0]->origin, true, wait_ms, g->x, g->n, values->data, &op);
	if (err == QG_OK)
		qg_mc_start(op);
	else
		give_up(core, g, err);
}

qg_err
qg_ix_resume(struct qg_core *core)
{
	group *groups = NULL;
	const qg_err err = collect(core->transfers, &groups);
	for (group *g = groups, *next; g != NULL; g = next) {
		next = g->next;
		for (uint32_t i = 0; err != QG_OK && i < g->n; i++)
			g->x[i]->pins--;
		if (err == QG_OK)
			resume(core, g);
		free(g);
	}
	return err;
}
