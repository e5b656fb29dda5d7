/* SPDX-License-Identifier: Apache-2.0 */
/* Whether the sources of the key streams can be reached: a connection of our own
 * to each, with the TLS handshake, which is closed again. A stream with a full pool
 * asks its source nothing, and so does not notice. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "admin_internal.h"

#define TRY_MS 1500

static bool
same_source(const qg_config_source *x, const qg_config_source *y)
{
	return strcmp(x->host, y->host) == 0 && x->port == y->port && x->tls == y->tls;
}

static qg_err
try_source(const qg_config_source *s)
{
	qg_conn *c = NULL;
	const char *name = s->server_name != NULL ? s->server_name : s->host;
	const qg_err err = qg_conn_open(s->host, s->port, s->tls ? &s->files : NULL, name, TRY_MS, &c);
	qg_conn_close(&c);
	return err;
}

static json_t *
source_json(const qg_config_stream *c, qg_err err)
{
	json_t *j = json_pack("{s:s,s:s,s:i,s:b,s:b}", "stream", c->name, "host", c->source.host, "port",
			      (int)c->source.port, "tls", c->source.tls, "reached", err == QG_OK);
	(void)json_object_set_new(j, "failure", err == QG_OK ? json_null() : json_string(qg_err_text(err)));
	return j;
}

/* Each source once, whatever number of streams it has. */
static json_t *
try_all(const qg_config *cfg)
{
	json_t *list = json_array();
	qg_err *found = calloc(cfg->n_streams + 1, sizeof *found);
	for (size_t i = 0; found != NULL && i < cfg->n_streams; i++) {
		const qg_config_stream *c = &cfg->streams[i];
		size_t k = 0;
		if (c->relayed)
			continue;
		while (k < i && (cfg->streams[k].relayed || !same_source(&cfg->streams[k].source, &c->source)))
			k++;
		found[i] = k < i ? found[k] : try_source(&c->source);
		(void)json_array_append_new(list, source_json(c, found[i]));
	}
	free(found);
	return list;
}

static void
answer_sources(qg_admin *a, qg_http_request *http, void *arg)
{
	(void)arg;
	qg_admin_answer(http, 200, json_pack("{s:o}", "sources", try_all(a->p.cfg)));
}

void
qg_admin_on_sources(qg_http_request *http, void *admin)
{
	qg_admin_later(admin, http, answer_sources, NULL);
}
