/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_RIG_H
#define RELAY_RIG_H

/* What the programs on relaying under attack share. The harness knows every
 * link's key, so what a node of a link could sign, it can. */
#include "support/net_case.h"

static qg_kms_forward m;

static int teardown(void **state)
{
	(void)state;
	bool fresh = n == NULL || net_all_fresh(n, NULL);
	return end_case(fresh);
}

static qg_relay_counts counts(unsigned node)
{
	qg_relay_counts c;
	qg_relay_counts_get(n->node[node].core, &c);
	return c;
}

/* Lines of the audit that say this. */
static unsigned audited(unsigned node, const char *text)
{
	char line[4096];
	unsigned found = 0;
	assert_int_equal(qg_audit_sync(n->node[node].audit), QG_OK);
	FILE *f = fopen(n->node[node].audit_file, "r");
	assert_non_null(f);
	while (fgets(line, sizeof line, f) != NULL)
		found += strstr(line, text) != NULL;
	fclose(f);
	return found;
}

/* Whether the epoch of the message at hand, of the stream from A to C, still fills there. */
static bool epoch_fills(unsigned at)
{
	qg_stream *st = net_far_stream(n, A, C, at);
	pthread_mutex_lock(&st->lock);
	const qg_epoch *e = qg_epoch_find(st, m.epoch);
	bool fills = e != NULL && e->state == QG_EPOCH_FILLING;
	pthread_mutex_unlock(&st->lock);
	return fills;
}

#endif
