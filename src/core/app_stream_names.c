/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "app_stream_internal.h"
#include "qkdgate/pattern.h"
#include "qkdgate/policy.h"

/* Who an application is, and where the other one lives. URIs are opaque, but
 * for a KME ID behind the last `@`. */

static bool
any_matches(const char *const *pattern, size_t n, const char *uri)
{
	for (size_t i = 0; i < n; i++)
		if (qg_pattern_matches(pattern[i], uri))
			return true;
	return false;
}

bool
qg_as_accepts(const qg_config_sae *sae, const char *uri)
{
	return any_matches(sae->applications, sae->n_applications, uri);
}

bool
qg_as_pushes(const qg_config_sae *sae, const char *uri)
{
	return any_matches(sae->push, sae->n_push, uri);
}

const qg_config_sae *
qg_as_local_sae(const struct qg_core *core, const char *uri)
{
	const qg_config *cfg = qg_directory_config(core->part.directory);
	for (size_t i = 0; i < cfg->n_saes; i++)
		if (qg_as_accepts(&cfg->saes[i], uri))
			return &cfg->saes[i];
	return NULL;
}

static const qg_config_place *
place_of(const qg_config *cfg, const char *uri)
{
	for (size_t i = 0; i < cfg->n_directory; i++)
		if (!cfg->directory[i].border &&
		    any_matches(cfg->directory[i].applications, cfg->directory[i].n_applications, uri))
			return &cfg->directory[i];
	return NULL;
}

/* The neighbour whose ID stands behind the last `@`, up to what may follow a
 * host in a URI. */
static const char *
neighbour_in(const qg_config *cfg, const char *uri)
{
	const char *at = strrchr(uri, '@');
	if (at == NULL)
		return NULL;
	const size_t n = strcspn(at + 1, "/:?#");
	for (size_t i = 0; i < cfg->n_neighbours; i++)
		if (strlen(cfg->neighbours[i].id) == n && strncmp(cfg->neighbours[i].id, at + 1, n) == 0)
			return cfg->neighbours[i].id;
	return NULL;
}

static qg_err
find_other(const struct qg_core *core, qg_as_names *n)
{
	const qg_config *cfg = qg_directory_config(core->part.directory);
	const qg_config_sae *here = qg_as_local_sae(core, n->other);
	const qg_config_place *place = here == NULL ? place_of(cfg, n->other) : NULL;
	if (here != NULL) {
		n->other_sae = here->id;
	} else if (place != NULL) {
		n->kme = place->kme;
		n->other_sae = strchr(place->sae, '*') == NULL ? place->sae : NULL;
	} else {
		n->kme = neighbour_in(cfg, n->other);
		if (n->kme == NULL)
			return QG_E_NOTFOUND;
	}
	return QG_OK;
}

qg_err
qg_as_policy(const struct qg_core *core, const char *a, const char *b, qg_policy_terms *out)
{
	const qg_err err = qg_policy_pair(qg_directory_config(core->part.directory), a, b, out);
	return err == QG_OK ? err : qg_policy_pair(qg_directory_config(core->part.directory), b, a, out);
}

static bool
fits(const char *uri)
{
	const size_t n = strlen(uri);
	if (n == 0 || n > QG_KMS_URI_MAX)
		return false;
	for (size_t i = 0; i < n; i++)
		if (uri[i] <= ' ' || uri[i] > '~')
			return false;
	return true;
}

/* Some applications name themselves as the source, and some name both ends
 * alike at both ends. */
qg_err
qg_as_resolve(const struct qg_core *core, const qg_config_sae *sae, const char *source, const char *destination,
	      qg_as_names *out)
{
	qg_as_names n = {.sae = sae};
	qg_policy_terms terms;
	if (!fits(source) || !fits(destination))
		return QG_E_RANGE;
	if (qg_as_accepts(sae, source)) {
		n.mine = source;
		n.other = destination;
	} else if (qg_as_accepts(sae, destination)) {
		n.mine = destination;
		n.other = source;
	} else {
		return QG_E_DENIED;
	}
	qg_err err = strcmp(source, destination) == 0 ? QG_E_NOTFOUND : find_other(core, &n);
	/* An application may share keys with another one of the same SAE. */
	if (err == QG_OK && n.other_sae != NULL && strcmp(n.other_sae, sae->id) != 0)
		err = qg_as_policy(core, sae->id, n.other_sae, &terms);
	if (err == QG_OK)
		*out = n;
	return err;
}
