/* SPDX-License-Identifier: Apache-2.0 */
/* What other networks ask: a listener for them, SAEs that are in one place only,
 * a stream where values cross a distance, callbacks that fit the way of sending. */
#include <string.h>

#include "config_internal.h"
#include "qkdgate/pattern.h"

#define SAE_MAX 64 /* characters of an SAE ID in ETSI GS QKD 020 */
#define CALLBACK_PATH "/kmapi/v1/ext_keys/ack"

static bool
is(const cfg_node *map, const char *option, const char *value)
{
	const char *const text = qg_cfg_text(map, option);
	return text != NULL && strcmp(text, value) == 0;
}

static bool
is_exact(const char *pattern)
{
	return strchr(pattern, '*') == NULL;
}

/* --- who lives where ------------------------------------------------------------ */

/* Of an exact ID: what no message could name is a mistake here. */
static void
check_sae_id(cfg_rules *r, cfg_node *n)
{
	static const char others[] = "-._~:/?#[]@!$&'()*+,;=%";
	if (is_exact(n->text) && strlen(n->text) > SAE_MAX) {
		qg_cfg_problem(r->report, n, "%s has more than %d characters, the most between networks",
			       qg_cfg_show(r->report, n->text), SAE_MAX);
		return;
	}
	for (const char *p = n->text; *p != '\0'; p++)
		if (!((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
		      strchr(others, *p) != NULL)) {
			qg_cfg_problem(r->report, n, "%s holds a character that no URI has",
				       qg_cfg_show(r->report, n->text));
			return;
		}
}

/* The good entry of `list` whose exact `option` the pattern covers, or NULL. */
static const cfg_node *
covered(const cfg_node *root, const char *list, const char *option, const char *pattern)
{
	for (const cfg_node *e = qg_cfg_entries(root, list); e != NULL; e = e->next) {
		const char *const id = qg_cfg_text(e, option);
		if (id != NULL && is_exact(id) && qg_pattern_matches(pattern, id))
			return e;
	}
	return NULL;
}

static void
check_home(cfg_rules *r, cfg_node *n)
{
	static const struct {
		const char *list, *option;
	} known[] = {{"saes", "id"}, {"directory", "sae"}};
	for (size_t i = 0; i < sizeof known / sizeof known[0] && !n->bad; i++) {
		const cfg_node *const e = covered(r->root, known[i].list, known[i].option, n->text);
		if (e != NULL)
			qg_cfg_problem(r->report, n,
				       "covers %s, which is in %s (line %u) and so of this network: take it out "
				       "of one of the two",
				       qg_cfg_show(r->report, qg_cfg_text(e, known[i].option)), known[i].list, e->line);
	}
}

/* Of several peers that an SAE is behind keys go to the first; twice in one is a
 * slip. */
static const cfg_node *
said_before(const cfg_node *peer, const cfg_node *n)
{
	for (const cfg_node *e = qg_cfg_entries(peer, "saes"); e != n; e = e->next)
		if (!e->bad && strcmp(e->text, n->text) == 0)
			return e;
	return NULL;
}

static void
check_saes(cfg_rules *r, const cfg_node *peer)
{
	for (cfg_node *n = qg_cfg_entries(peer, "saes"); n != NULL; n = n->next) {
		if (n->bad || n->kind != CFG_SCALAR)
			continue;
		check_sae_id(r, n);
		check_home(r, n);
		const cfg_node *const other = n->bad ? NULL : said_before(peer, n);
		if (other != NULL)
			qg_cfg_problem(r->report, n, "%s is already in line %u: take one of them out",
				       qg_cfg_show(r->report, n->text), other->line);
	}
}

/* What a peer may bring keys for is not behind the same peer: that would be a
 * way back. */
static void
check_reach(cfg_rules *r, const cfg_node *peer)
{
	for (cfg_node *n = qg_cfg_entries(peer, "reach"); n != NULL; n = n->next) {
		if (n->bad || n->kind != CFG_SCALAR)
			continue;
		check_sae_id(r, n);
		for (const cfg_node *e = qg_cfg_entries(peer, "saes"); e != NULL && !n->bad; e = e->next)
			if (!e->bad && e->kind == CFG_SCALAR && is_exact(n->text) && qg_pattern_matches(e->text, n->text))
				qg_cfg_problem(r->report, n,
					       "%s is behind this peer itself (line %u): take it out of one of the two",
					       qg_cfg_show(r->report, n->text), e->line);
	}
}

/* --- how keys are sent ------------------------------------------------------------ */

static bool
has_callback_path(const char *url)
{
	const char *const host = url + strlen("https://");
	return strcmp(host + strcspn(host, "/?"), CALLBACK_PATH) == 0;
}

static void
check_sending(cfg_rules *r, const cfg_node *peer)
{
	cfg_node *const own = qg_cfg_find(peer, "our_callback_url");
	cfg_node *const mode = qg_cfg_find(peer, "mode");
	const bool draft = is(peer, "dialect", "draft-url");
	const bool waits = !draft && is(peer, "mode", "asynchronous");
	if (draft && mode != NULL && !mode->bad && !mode->preset)
		qg_cfg_problem(r->report, mode, "has no use with dialect draft-url: take it out");
	if (own == NULL && waits)
		qg_cfg_missing(r->report, peer, "our_callback_url",
			       "is missing: give the URL at which it reaches kxi_listener, or mode synchronous");
	else if (own != NULL && !own->bad && !waits)
		qg_cfg_problem(r->report, own, "has no use %s: take it out",
			       draft ? "with dialect draft-url" : "with mode synchronous");
	else if (own != NULL && !own->bad && !has_callback_path(own->text))
		qg_cfg_problem(r->report, own, "%s is not where acks are taken: its path must be %s",
			       qg_cfg_show(r->report, own->text), CALLBACK_PATH);
}

/* --- what protects values ----------------------------------------------------------- */

static const cfg_node *
stream_named(const cfg_node *root, const char *name)
{
	const cfg_node *s = qg_cfg_entries(root, "streams");
	while (s != NULL && !is(s, "name", name))
		s = s->next;
	return s;
}

static void
check_stream(cfg_rules *r, cfg_node *n)
{
	const cfg_node *const s = stream_named(r->root, n->text);
	const char *const shown = qg_cfg_show(r->report, n->text);
	if (s == NULL)
		qg_cfg_problem(r->report, n, "%s is no stream: give a name of streams", shown);
	else if (qg_cfg_find(s, "relay") != NULL)
		qg_cfg_problem(r->report, n, "%s is a virtual stream: give one of the link to the peer", shown);
	else if (is(s, "direction", "inbound"))
		qg_cfg_problem(r->report, n, "%s is inbound: give one that is outbound or shared", shown);
	else if (is(s, "node_chunks", "0"))
		qg_cfg_problem(r->report, n, "%s has no node key: give it node_chunks", shown);
}

static void
check_link(cfg_rules *r, const cfg_node *peer)
{
	cfg_node *const stream = qg_cfg_find(peer, "stream");
	cfg_node *const open = qg_cfg_find(peer, "unprotected");
	if (is(peer, "link", "kxi-prime")) {
		if (stream != NULL && !stream->bad)
			qg_cfg_problem(r->report, stream, "has no use with link kxi-prime: take it out, or give kxi");
		if (is(peer, "unprotected", "true"))
			qg_cfg_problem(r->report, open, "has no use with link kxi-prime: take it out");
	} else if (is(peer, "link", "kxi")) {
		if (stream == NULL && is(peer, "unprotected", "false"))
			qg_cfg_missing(r->report, peer, "stream",
				       "is missing: give the stream that masks values over the distance, or "
				       "unprotected: true");
		else if (stream != NULL && is(peer, "unprotected", "true"))
			qg_cfg_problem(r->report, open, "stands beside stream in line %u: keep one of them",
				       stream->line);
		else if (stream != NULL && is(peer, "dialect", "draft-url"))
			qg_cfg_problem(r->report, stream,
				       "cannot be with dialect draft-url, in which masks have no place: give dialect v1.1.1");
		else if (stream != NULL && !stream->bad)
			check_stream(r, stream);
	}
}

/* --- all ------------------------------------------------------------------------------ */

static void
check_kme_id(cfg_rules *r, const cfg_node *map, const char *option)
{
	const char *const id = qg_cfg_text(map, option);
	if (id != NULL && strncmp(id, QG_PEER_PREFIX, sizeof QG_PEER_PREFIX - 1) == 0)
		qg_cfg_problem(r->report, qg_cfg_find(map, option),
			       "%s begins with " QG_PEER_PREFIX ", which stands for peers: give another ID",
			       qg_cfg_show(r->report, id));
}

static void
check_kme_ids(cfg_rules *r)
{
	static const struct {
		const char *list, *option;
	} ids[] = {{"neighbours", "id"}, {"directory", "kme"}, {"directory", "border"}};
	check_kme_id(r, qg_cfg_find(r->root, "kme"), "id");
	for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
		for (const cfg_node *e = qg_cfg_entries(r->root, ids[i].list); e != NULL; e = e->next)
			check_kme_id(r, e, ids[i].option);
}

/* An SAE is at a KME of this network or behind one. */
static void
check_places(cfg_rules *r)
{
	const char *const self = qg_cfg_text(qg_cfg_find(r->root, "kme"), "id");
	for (const cfg_node *e = qg_cfg_entries(r->root, "directory"); e != NULL; e = e->next) {
		const cfg_node *const kme = qg_cfg_find(e, "kme");
		cfg_node *const border = qg_cfg_find(e, "border");
		if (e->bad || e->kind != CFG_MAP)
			continue;
		if (kme == NULL && border == NULL)
			qg_cfg_missing(r->report, e, "kme", "is missing: give the KME at which it lives, or border");
		else if (kme != NULL && border != NULL && !border->bad)
			qg_cfg_problem(r->report, border, "stands beside kme in line %u: keep one of them", kme->line);
		else if (self != NULL && border != NULL && is(e, "border", self))
			qg_cfg_problem(r->report, border, "is this KME itself: give the SAE to one of peers");
	}
}

void
qg_cfg_rule_peers(cfg_rules *r)
{
	cfg_node *const first = qg_cfg_entries(r->root, "peers");
	cfg_node *const client = qg_cfg_find(r->root, "kxi_client");
	const cfg_node *const listener = qg_cfg_find(r->root, "kxi_listener");
	if (first != NULL && listener == NULL)
		qg_cfg_missing(r->report, r->root, "kxi_listener", "is missing: peers need it to call");
	if (client != NULL && !client->bad && listener == NULL && first == NULL)
		qg_cfg_problem(r->report, client, "has no use without kxi_listener and peers: take it out");
	check_kme_ids(r);
	check_places(r);
	for (cfg_node *peer = first; peer != NULL; peer = peer->next) {
		if (peer->bad || peer->kind != CFG_MAP)
			continue;
		check_saes(r, peer);
		check_reach(r, peer);
		check_sending(r, peer);
		check_link(r, peer);
	}
}
