/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the admin interface to a gateway that runs: a method and target in
 * the first line, then the body. Every answer is JSON (or what its path says), a
 * refusal says why, and what acts on the gateway as a whole is called only with
 * what the interface allows. */
#include "fuzz_client.h"

#include <jansson.h>
#include <stdatomic.h>

#include "../unit/pki.h"
#include "../unit/support/core_pair.c"
#include "qkdgate/admin.h"
#include "qkdgate/etsi014.h"

#define GRACE_MAX_S 86400

static core_pair *pair;
static qg_etsi014 *etsi014;
static qg_admin *admin;
static char path[256];
static atomic_uint zeroized, reloads;

/* --- what acts on the gateway ------------------------------------------------ */

static qg_err
reload(void *ctx, const char *who, char *why, size_t why_room)
{
	static const qg_err ends[] = {QG_OK, QG_E_PARSE, QG_E_STATE};
	(void)ctx;
	HOLDS(strncmp(who, "uid:", 4) == 0);
	qg_err err = ends[atomic_fetch_add(&reloads, 1) % 3];
	HOLDS(err == QG_OK || snprintf(why, why_room, "line 3: \"\xc3\xa4\" %s", qg_err_text(err)) > 0);
	return err;
}

static void
drain(void *ctx, const char *who, unsigned grace_s)
{
	(void)ctx;
	HOLDS(strncmp(who, "uid:", 4) == 0 && grace_s <= GRACE_MAX_S);
}

static qg_err
zeroize(void *ctx, const char *who, char *why, size_t why_room)
{
	(void)ctx, (void)why, (void)why_room;
	HOLDS(strncmp(who, "uid:", 4) == 0);
	atomic_fetch_add(&zeroized, 1);
	return QG_OK;
}

static bool
draining(void *ctx)
{
	(void)ctx;
	return false;
}

static bool
reached(void *ctx, const char *neighbour, qg_err *last, uint64_t *ago_ms)
{
	(void)ctx;
	HOLDS(strcmp(neighbour, "KME-B") == 0);
	*last = QG_E_TIMEOUT;
	*ago_ms = 5;
	return true;
}

/* An entry goes through the checks of the configuration; here it only has to be one. */
static qg_err
change(void *ctx, const char *who, const qg_config_entry *e, char *why, size_t why_room)
{
	(void)ctx;
	HOLDS(who[0] != '\0' && e->name != NULL && (strcmp(e->list, "saes") == 0 || strcmp(e->list, "policy") == 0));
	(void)snprintf(why, why_room, "not here");
	return e->text != NULL ? QG_E_PARSE : QG_E_NOTFOUND;
}

static void
entries(void *ctx, void (*each)(const qg_config_entry *e, bool in_force, void *each_ctx), void *each_ctx)
{
	const qg_config_entry e = {.list = "policy", .name = "r", .text = "{}"};
	(void)ctx;
	each(&e, false, each_ctx);
}

static qg_err
change_master(void *ctx, const char *who, const char *from, bool *pending, char *why, size_t why_room)
{
	(void)ctx, (void)who;
	HOLDS(from == NULL || from[0] == '/' || strncmp(from, "credential:", 11) == 0);
	*pending = false;
	(void)snprintf(why, why_room, "not here");
	return QG_E_IO;
}

static bool
master_pending(void *ctx)
{
	(void)ctx;
	return false;
}

static bool
peer_reached(void *ctx, const char *peer, bool *answered, uint64_t *ago_ms)
{
	(void)ctx, (void)peer, (void)answered, (void)ago_ms;
	return false;
}

static qg_err
keep_suspension(void *ctx, const qg_suspension_rec *rec, bool on)
{
	(void)ctx;
	if (strcmp(rec->kind, "peer") == 0)
		return qg_directory_suspend_peer(pair->end[0].directory, rec->name, on);
	return qg_etsi014_suspend(etsi014, rec->name, rec->other[0] != '\0' ? rec->other : NULL, on);
}

static void
suspensions(void *ctx, void (*each)(const qg_suspension_rec *rec, void *each_ctx), void *each_ctx)
{
	(void)ctx, (void)each, (void)each_ctx;
}

static const qg_admin_ops ops = {
	.reload = reload, .drain = drain, .zeroize = zeroize, .draining = draining, .reached = reached,
	.change = change, .entries = entries, .change_master = change_master, .master_pending = master_pending,
	.peer_reached = peer_reached, .suspend = keep_suspension, .suspensions = suspensions};

/* --- the gateway -------------------------------------------------------------- */

static void
clean(void)
{
	qg_admin_stop(&admin);
	qg_etsi014_stop(&etsi014);
	pair_free(&pair);
	pki_remove();
}

static void
setup(void)
{
	char why[512] = "";
	HOLDS(pki_make() == 0 && pair_init() == 0);
	pair = pair_new(NULL);
	core_end *e = &pair->end[0];
	qg_config *cfg = &e->cfg;
	snprintf(path, sizeof path, "%s/admin", pair->dir);
	cfg->audit_file = e->anchor;
	cfg->sae = (qg_config_listener){.address = "127.0.0.1", .threads = 1, .tls = pki_files("kme-a"),
				       .max_connections = 4, .idle_timeout_s = 60};
	cfg->kms = cfg->sae;
	cfg->kms_client = cfg->sae.tls;
	cfg->admin = (qg_config_admin){.given = true, .socket = path, .socket_mode = 0600};
	for (size_t i = 0; i < cfg->n_streams; i++) { /* nobody listens there */
		e->streams[i].source.host = "127.0.0.1";
		e->streams[i].source.port = 1;
	}
	end_start(e);
	end_start(&pair->end[1]);
	const qg_etsi014_parts parts = {.cfg = cfg, .directory = e->directory,
					.keystore = qg_core_keystore(e->core)};
	HOLDS(qg_etsi014_start(&parts, &etsi014, why, sizeof why) == QG_OK);
	const qg_admin_parts all = {.cfg = cfg, .core = e->core, .directory = e->directory, .etsi014 = etsi014,
				    .ops = &ops, .listener = {{.name = "sae", .http = qg_etsi014_http(etsi014)}}, .n_listeners = 1};
	HOLDS(qg_admin_start(&all, &admin, why, sizeof why) == QG_OK);
	HOLDS(atexit(clean) == 0);
}

/* --- the client ---------------------------------------------------------------- */

static void
see_level(const char *module, qg_log_level level, void *ctx)
{
	(void)level;
	snprintf(ctx, 64, "%s", module);
}

static void
reset_levels(void)
{
	for (char module[64] = ""; qg_log_levels(see_level, module), module[0] != '\0'; module[0] = '\0')
		qg_log_reset_level(module);
	HOLDS(qg_log_set_level(NULL, QG_LOG_ERROR) == QG_OK);
}

/* One request; a target with what ends it is none. */
static void
ask(const char *line, const uint8_t *body, size_t len)
{
	static uint8_t text[65536];
	int n = snprintf((char *)text, sizeof text, "%s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
			 "Content-Length: %zu\r\n\r\n", line, len);
	if (n < 0 || (size_t)n + len > sizeof text)
		return;
	memcpy(text + n, body, len);
	exchange(path, text, (size_t)n + len, (size_t)n);
}

static bool
confirms(const uint8_t *body, size_t len)
{
	json_t *j = json_loadb((const char *)body, len, JSON_REJECT_DUPLICATES, NULL);
	const char *id = json_string_value(json_object_get(j, "confirm"));
	bool yes = id != NULL && strcmp(id, "KME-A") == 0;
	json_decref(j);
	return yes;
}

static void
check_answer(const char *line)
{
	reply r;
	size_t at = 0;
	if (strncmp(line, "HEAD", 4) == 0 || !next_reply(&at, &r))
		return;
	HOLDS(at == answers_len && r.status != 500);
	const char *const api = strstr(line, "/api/"), *const query = strchr(line, '?');
	const bool in_path = api != NULL && (query == NULL || api < query);
	const bool other = r.status == 200 && !in_path; /* pages, metrics, descriptions */
	const bool no_http = r.status >= 400 && strncmp(r.body, "<html>", 6) == 0; /* libmicrohttpd's own */
	if (r.len == 0 || other || no_http)
		return;
	json_t *j = json_loadb(r.body, r.len, JSON_REJECT_DUPLICATES, NULL);
	HOLDS(json_is_object(j));
	if (r.status >= 400 && r.status != 503)
		HOLDS(json_string_length(json_object_get(j, "message")) > 0);
	json_decref(j);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (admin == NULL)
		setup();
	char *line = text_of(data, size);
	const uint8_t *end = memchr(data, '\n', size);
	if (end != NULL && strcspn(line, "\r\n") == (size_t)(end - data)) {
		const size_t used = (size_t)(end - data) + 1;
		line[end - data] = '\0';
		atomic_store(&zeroized, 0);
		ask(line, data + used, size - used);
		check_answer(line);
		HOLDS(atomic_load(&zeroized) == 0 || confirms(data + used, size - used));
		reset_levels();
	}
	free(line);
	return 0;
}
