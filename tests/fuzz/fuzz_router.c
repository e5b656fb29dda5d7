/* SPDX-License-Identifier: Apache-2.0 */
/* Request targets and the route table; the method is in the first line. */
#include "fuzz.h"

#include "../../src/platform/router_internal.h"

static void
handle(qg_http_request *req, void *ctx)
{
	(void)req, (void)ctx;
}

static const qg_http_route table[] = {
	{"GET", "/api/v1/keys/{slave_SAE_ID}/status", handle, 0},
	{"GET", "/api/v1/keys/{slave_SAE_ID}/enc_keys", handle, 0},
	{"POST", "/api/v1/keys/{slave_SAE_ID}/enc_keys", handle, 4096},
	{"POST", "/api/v1/keys/{master_SAE_ID}/dec_keys", handle, 4096},
	{"POST", "/kmapi/v1/ext_keys/{initiator}/{target}", handle, 4096},
	{"POST", "/kmapi/v1/ext_keys/ack", handle, 4096},
	{"GET", "/", handle, 0},
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static qg_router *router;
	if (router == NULL)
		HOLDS(qg_router_new(table, sizeof table / sizeof table[0], &router) == QG_OK);
	char *method = text_of(data, size);
	char *raw = strchr(method, '\n');
	if (raw != NULL) {
		*raw++ = '\0';
		char *scratch = malloc(2 * (strlen(raw) + 1));
		HOLDS(scratch != NULL);
		qg_target t;
		qg_route_match m;
		char allow[QG_ROUTER_ALLOW_MAX];
		if (qg_target_parse(raw, scratch, &t) == QG_OK) {
			HOLDS(t.n_segments <= QG_TARGET_SEGMENTS_MAX && t.n_query <= QG_TARGET_QUERY_MAX);
			qg_err err = qg_router_match(router, method, &t, &m, allow);
			HOLDS(err == QG_OK || err == QG_E_NOTFOUND || err == QG_E_UNSUPPORTED);
			if (err == QG_OK)
				HOLDS(strcmp(m.route->method, method) == 0 && m.n_parts <= t.n_segments);
		}
		free(scratch);
	}
	free(method);
	return 0;
}
