/* SPDX-License-Identifier: Apache-2.0 */
/* What holds between options. Each rule speaks only of values that are good by
 * themselves, so that one mistake is reported once. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "config_internal.h"

#define USABLE_CHUNKS_MIN 16 /* of a segment, beside the reserved ones */
#define MAC_KEY_BYTES 32     /* one-time keys of a segment's request and answer */
#define ROOT_BYTES 64        /* of the key-ID root in a segment */

/* --- names in order, to find them and their repetitions ---------------------- */

static int
by_text(const void *a, const void *b)
{
	cfg_node *const *x = a, *const *y = b;
	const int order = strcmp((*x)->text, (*y)->text);
	if (order != 0)
		return order;
	return (*x)->line < (*y)->line ? -1 : (*x)->line > (*y)->line;
}

static int
text_order(const void *text, const void *node)
{
	cfg_node *const *n = node;
	return strcmp(text, (*n)->text);
}

cfg_node *
qg_cfg_entries(const cfg_node *map, const char *name)
{
	const cfg_node *const list = qg_cfg_find(map, name);
	return list == NULL || list->kind != CFG_LIST ? NULL : list->first;
}

cfg_names
qg_cfg_names_new(cfg_rules *r, size_t most)
{
	cfg_names out = {NULL, 0};
	if (most <= SIZE_MAX / sizeof *out.v - 1)
		out.v = qg_cfg_alloc(r->report->mem, (most + 1) * sizeof *out.v);
	if (out.v == NULL)
		r->report->nomem = true;
	return out;
}

void
qg_cfg_names_sort(cfg_names *all)
{
	if (all->n > 0)
		qsort(all->v, all->n, sizeof(cfg_node *), by_text);
}

cfg_names
qg_cfg_names_of(cfg_rules *r, const char *section, const char *option)
{
	const cfg_node *const first = qg_cfg_entries(r->root, section);
	cfg_names out = {NULL, 0};
	if (first != NULL)
		out = qg_cfg_names_new(r, first->parent->last->index + 1);
	if (out.v == NULL)
		return out;
	for (const cfg_node *entry = first; entry != NULL; entry = entry->next)
		if (qg_cfg_text(entry, option) != NULL)
			out.v[out.n++] = qg_cfg_find(entry, option);
	qg_cfg_names_sort(&out);
	return out;
}

bool
qg_cfg_has_name(const cfg_names *all, const char *text)
{
	return all->n > 0 && bsearch(text, all->v, all->n, sizeof(cfg_node *), text_order) != NULL;
}

static void
check_unique(cfg_rules *r, const char *section, const char *option)
{
	const cfg_names all = qg_cfg_names_of(r, section, option);
	for (size_t i = 1, first = 0; i < all.n; i++) {
		if (strcmp(all.v[first]->text, all.v[i]->text) != 0)
			first = i;
		else
			qg_cfg_problem(r->report, all.v[i], "%s is already in %s: give another one",
				       qg_cfg_show(r->report, all.v[i]->text),
				       qg_cfg_where(r->report, all.v[first]->line));
	}
}

static void
rule_unique(cfg_rules *r)
{
	static const struct {
		const char *section, *option;
	} unique[] = {
		{"saes", "id"}, {"neighbours", "id"}, {"streams", "name"}, {"directory", "sae"}, {"peers", "id"},
	};
	for (size_t i = 0; i < sizeof unique / sizeof unique[0]; i++)
		check_unique(r, unique[i].section, unique[i].option);
}

/* --- certificates ------------------------------------------------------------- */

static int
compare_match(const cfg_node *a, const cfg_node *b)
{
	const int kind = strcmp(a->name, b->name);
	if (kind != 0)
		return kind;
	return strcmp(a->name, "dns") == 0 ? strcasecmp(a->text, b->text) : strcmp(a->text, b->text);
}

static int
by_match(const void *a, const void *b)
{
	cfg_node *const *x = a, *const *y = b;
	const int order = compare_match(*x, *y);
	if (order != 0)
		return order;
	return (*x)->line < (*y)->line ? -1 : (*x)->line > (*y)->line;
}

/* An identity that two entries claim would belong to neither. */
void
qg_cfg_unique_matches(cfg_rules *r, const cfg_node *list)
{
	if (list == NULL || list->kind != CFG_LIST || list->last == NULL)
		return;
	cfg_node **all = qg_cfg_alloc(r->report->mem, (list->last->index + 1) * sizeof(cfg_node *));
	size_t n = 0;
	if (all == NULL) {
		r->report->nomem = true;
		return;
	}
	for (const cfg_node *entry = list->first; entry != NULL; entry = entry->next) {
		const cfg_node *const match = qg_cfg_find(entry, "certificate");
		if (match != NULL && !match->bad && match->kind == CFG_MAP && match->first != NULL &&
		    qg_cfg_text(match, match->first->name) != NULL)
			all[n++] = match->first;
	}
	if (n > 0)
		qsort(all, n, sizeof(cfg_node *), by_match);
	for (size_t i = 1, first = 0; i < n; i++) {
		if (compare_match(all[first], all[i]) != 0)
			first = i;
		else
			qg_cfg_problem(r->report, all[i],
				       "%s is already in %s: a certificate names one owner",
				       qg_cfg_show(r->report, all[i]->text),
				       qg_cfg_where(r->report, all[first]->line));
	}
}

static void
rule_matches(cfg_rules *r)
{
	static const char *const lists[] = {"saes", "neighbours", "peers"};
	for (size_t i = 0; i < sizeof lists / sizeof lists[0]; i++)
		qg_cfg_unique_matches(r, qg_cfg_find(r->root, lists[i]));
}

/* --- who is where --------------------------------------------------------------- */

static void
rule_neighbours(cfg_rules *r)
{
	const char *const self = qg_cfg_text(qg_cfg_find(r->root, "kme"), "id");
	const cfg_names neighbours = qg_cfg_names_of(r, "neighbours", "id");
	if (self != NULL && qg_cfg_has_name(&neighbours, self)) {
		cfg_node **at = bsearch(self, neighbours.v, neighbours.n, sizeof(cfg_node *), text_order);
		qg_cfg_problem(r->report, *at, "%s is this KME itself: give the neighbour's",
			       qg_cfg_show(r->report, self));
	}
	const cfg_names used = qg_cfg_names_of(r, "streams", "neighbour");
	for (size_t i = 0; i < used.n; i++)
		if (!qg_cfg_has_name(&neighbours, used.v[i]->text))
			qg_cfg_problem(r->report, used.v[i], "%s is no neighbour: give an id of neighbours",
				       qg_cfg_show(r->report, used.v[i]->text));
}

static void
rule_directory(cfg_rules *r)
{
	const char *const self = qg_cfg_text(qg_cfg_find(r->root, "kme"), "id");
	const cfg_names local = qg_cfg_names_of(r, "saes", "id");
	const cfg_node *const list = qg_cfg_find(r->root, "directory");
	if (self == NULL || list == NULL || list->kind != CFG_LIST)
		return;
	for (const cfg_node *entry = list->first; entry != NULL; entry = entry->next) {
		const char *const sae = qg_cfg_text(entry, "sae");
		const char *const kme = qg_cfg_text(entry, "kme");
		if (sae != NULL && kme != NULL && qg_cfg_has_name(&local, sae) && strcmp(kme, self) != 0)
			qg_cfg_problem(r->report, qg_cfg_find(entry, "sae"),
				       "%s is one of saes, so not at %s: take it out of one of the two",
				       qg_cfg_show(r->report, sae), qg_cfg_show(r->report, kme));
	}
}

/* --- streams -------------------------------------------------------------------- */

static uint64_t
chunks_for(uint64_t bytes, uint64_t chunk_size)
{
	return (bytes + chunk_size - 1) / chunk_size;
}

/* The report goes where the value stands that the file gives. */
static cfg_node *
given_of(const cfg_node *map, const char *first, const char *second)
{
	cfg_node *const n = qg_cfg_find(map, first);
	return n->preset ? qg_cfg_find(map, second) : n;
}

static void
check_segment(cfg_rules *r, const cfg_node *stream)
{
	uint64_t size = 0, chunks = 0;
	if (!qg_cfg_number(stream, "chunk_size", &size) || !qg_cfg_number(stream, "segment_chunks", &chunks))
		return;
	const uint64_t reserved = 2 * chunks_for(MAC_KEY_BYTES, size) + chunks_for(ROOT_BYTES, size);
	if (chunks >= reserved + USABLE_CHUNKS_MIN)
		return;
	qg_cfg_problem(r->report, given_of(stream, "segment_chunks", "chunk_size"),
		       "%" PRIu64 " chunks of %" PRIu64 " bytes are too few for a segment: give %" PRIu64
		       " to 65536 (%" PRIu64 " are reserved, %d must be usable)",
		       chunks, size, reserved + USABLE_CHUNKS_MIN, reserved, USABLE_CHUNKS_MIN);
}

static void
check_source_files(cfg_rules *r, cfg_node *source)
{
	static const char *const files[] = {"certificate", "key", "ca", "crl"};
	const char *const transport = qg_cfg_text(source, "transport");
	if (transport == NULL)
		return;
	const bool tls = strcmp(transport, "tls") == 0;
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		cfg_node *const n = qg_cfg_find(source, files[i]);
		if (tls && n == NULL && strcmp(files[i], "crl") != 0)
			qg_cfg_missing(r->report, source, files[i],
				       "is missing: give a file name, transport tls needs it");
		else if (!tls && n != NULL && !n->bad)
			qg_cfg_problem(r->report, n,
				       "has no use with transport tcp: take it out, or give tls");
	}
}

static void
check_source(cfg_rules *r, cfg_node *source)
{
	uint64_t lowest = 0, highest = 0, timeout_ms = 0;
	if (source == NULL || source->kind != CFG_MAP)
		return;
	check_source_files(r, source);
	const char *const profile = qg_cfg_text(source, "profile");
	if (profile != NULL && strcmp(profile, "bin-b") == 0 &&
	    qg_cfg_number(source, "timeout_ms", &timeout_ms) && timeout_ms == 0)
		qg_cfg_problem(r->report, qg_cfg_find(source, "timeout_ms"),
			       "0 makes every call fail with bin-b: give 1 to 3600000 ms");
	if (qg_cfg_number(source, "min_bps", &lowest) && qg_cfg_number(source, "max_bps", &highest) &&
	    highest != 0 && lowest > highest)
		qg_cfg_problem(r->report, given_of(source, "min_bps", "max_bps"),
			       "min_bps %" PRIu64 " is above max_bps %" PRIu64 ": give at most that", lowest,
			       highest);
}

static void
rule_streams(cfg_rules *r)
{
	const cfg_node *const list = qg_cfg_find(r->root, "streams");
	if (list == NULL || list->kind != CFG_LIST)
		return;
	for (const cfg_node *stream = list->first; stream != NULL; stream = stream->next) {
		check_segment(r, stream);
		check_source(r, qg_cfg_find(stream, "source"));
	}
}

/* The largest good segment, and whose it is. */
static uint64_t
largest_segment(const cfg_rules *r, const char **name)
{
	uint64_t largest = 0, chunks = 0;
	const cfg_node *const list = qg_cfg_find(r->root, "streams");
	if (list == NULL || list->kind != CFG_LIST)
		return 0;
	for (const cfg_node *stream = list->first; stream != NULL; stream = stream->next) {
		if (!qg_cfg_number(stream, "segment_chunks", &chunks) || chunks <= largest)
			continue;
		largest = chunks;
		*name = qg_cfg_text(stream, "name");
	}
	return largest;
}

static void
rule_pool(cfg_rules *r)
{
	static const struct {
		const char *option;
		uint64_t segments;
	} least[] = {{"ready_chunks", 2}, {"inbound_chunks", 1}};
	const cfg_node *const pool = qg_cfg_find(r->root, "pool");
	const char *stream = NULL;
	const uint64_t segment = largest_segment(r, &stream);
	for (size_t i = 0; i < sizeof least / sizeof least[0]; i++) {
		uint64_t chunks = 0;
		if (!qg_cfg_number(pool, least[i].option, &chunks) || chunks >= least[i].segments * segment)
			continue;
		qg_cfg_problem(r->report, qg_cfg_find(pool, least[i].option),
			       "%" PRIu64 " is too few: give at least %" PRIu64 " (%" PRIu64
			       " segments of stream %s)",
			       chunks, least[i].segments * segment, least[i].segments,
			       qg_cfg_show(r->report, stream == NULL ? "?" : stream));
	}
}

/* --- policy --------------------------------------------------------------------- */

static void
check_bits(cfg_rules *r, const cfg_node *rule)
{
	uint64_t lowest = 0, highest = 0, usual = 0;
	if (!qg_cfg_number(rule, "min_key_bits", &lowest) || !qg_cfg_number(rule, "max_key_bits", &highest))
		return;
	if (lowest > highest) {
		qg_cfg_problem(r->report, given_of(rule, "min_key_bits", "max_key_bits"),
			       "min_key_bits %" PRIu64 " is above max_key_bits %" PRIu64
			       ": give at most that", lowest, highest);
		return;
	}
	if (!qg_cfg_number(rule, "default_key_bits", &usual) || (usual >= lowest && usual <= highest))
		return;
	cfg_node *const n = qg_cfg_find(rule, "default_key_bits");
	qg_cfg_problem(r->report, n,
		       "%" PRIu64 "%s is not between min_key_bits and max_key_bits: give %" PRIu64
		       " to %" PRIu64, usual, n->preset ? " (the default)" : "", lowest, highest);
}

static void
rule_policy(cfg_rules *r)
{
	const cfg_node *const list = qg_cfg_find(r->root, "policy");
	if (list == NULL || list->kind != CFG_LIST)
		return;
	for (const cfg_node *rule = list->first; rule != NULL; rule = rule->next)
		check_bits(r, rule);
}

/* --- listeners and files ---------------------------------------------------------- */

static bool
same_member(const cfg_node *a, const cfg_node *b, const char *option)
{
	const char *const x = qg_cfg_text(a, option), *const y = qg_cfg_text(b, option);
	return x != NULL && y != NULL && strcmp(x, y) == 0;
}

static void
rule_listeners(cfg_rules *r)
{
	const cfg_node *const admin = qg_cfg_find(r->root, "admin");
	const struct {
		const char *name;
		const cfg_node *section;
	} all[] = {
		{"sae_listener", qg_cfg_find(r->root, "sae_listener")},
		{"kms_listener", qg_cfg_find(r->root, "kms_listener")},
		{"kxi_listener", qg_cfg_find(r->root, "kxi_listener")},
		{"push_listener", qg_cfg_find(r->root, "push_listener")},
		{"admin.listener", qg_cfg_find(admin, "listener")},
		{"admin.scrape", qg_cfg_find(admin, "scrape")},
	};
	for (size_t i = 1; i < sizeof all / sizeof all[0]; i++) {
		const cfg_node *const b = all[i].section;
		for (size_t j = 0; j < i; j++) {
			const cfg_node *const a = all[j].section;
			if (!same_member(a, b, "listen") || !same_member(a, b, "listen port"))
				continue;
			qg_cfg_problem(r->report, qg_cfg_find(b, "listen"),
				       "is the address of %s: give another address or port", all[j].name);
			break;
		}
	}
}

/* Files that the gateway writes, or that decide what it can read again. */
static void
rule_files(cfg_rules *r)
{
	static const struct {
		const char *section, *option;
	} files[] = {
		{"store", "database"}, {"store", "anchor"}, {"store", "master_key"}, {"store", "key_ring"},
		{"audit", "file"}, {"log", "file"}, {"admin", "socket"}, {"admin", "zeroize_file"},
	};
	for (size_t i = 1; i < sizeof files / sizeof files[0]; i++) {
		cfg_node *const section = qg_cfg_find(r->root, files[i].section);
		const char *const file = qg_cfg_text(section, files[i].option);
		for (size_t j = 0; file != NULL && j < i; j++) {
			const char *const other = qg_cfg_text(qg_cfg_find(r->root, files[j].section),
							      files[j].option);
			if (other == NULL || strcmp(file, other) != 0)
				continue;
			qg_cfg_problem(r->report, qg_cfg_find(section, files[i].option),
				       "is the file of %s.%s: give another one", files[j].section,
				       files[j].option);
			break;
		}
	}
}

void
qg_cfg_check_rules(cfg_report *report, cfg_node *root)
{
	static void (*const all[])(cfg_rules *) = {
		rule_unique, rule_matches, rule_neighbours, rule_directory, rule_streams,
		qg_cfg_rule_relay, qg_cfg_rule_push, qg_cfg_rule_peers, rule_pool, rule_policy, rule_listeners,
		qg_cfg_rule_apps, rule_files, qg_cfg_rule_admin, qg_cfg_rule_log,
	};
	cfg_rules r = {.report = report, .root = root};
	if (root->kind != CFG_MAP)
		return;
	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
		all[i](&r);
}

/* --- defaults from other options ---------------------------------------------------- */

static qg_err
copy_member(cfg_mem *m, const cfg_node *from, const char *option, cfg_node *to, const char *name)
{
	const char *const text = qg_cfg_text(from, option);
	if (text == NULL || qg_cfg_find(to, name) != NULL)
		return QG_OK;
	cfg_node *const n = qg_cfg_node(m, to, CFG_SCALAR, name, to->line);
	if (n == NULL)
		return QG_E_NOMEM;
	n->text = text;
	return QG_OK;
}

/* TLS of the calls to others is that of the listener for them. */
static qg_err
complete_client(cfg_mem *m, cfg_node *root, const char *listener_name, const char *client_name)
{
	static const char *const files[] = {"certificate", "key", "ca", "crl", "min_version"};
	const cfg_node *const listener = qg_cfg_find(root, listener_name);
	if (listener == NULL || qg_cfg_find(root, client_name) != NULL)
		return QG_OK;
	cfg_node *const client = qg_cfg_node(m, root, CFG_MAP, client_name, root->line);
	if (client == NULL)
		return QG_E_NOMEM;
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++)
		if (copy_member(m, listener, files[i], client, files[i]) != QG_OK)
			return QG_E_NOMEM;
	return QG_OK;
}

/* A peer that names no certificate of its answers has one for both. */
static qg_err
complete_peer(cfg_mem *m, cfg_node *peer)
{
	const cfg_node *const from = qg_cfg_find(peer, "certificate");
	cfg_node *const to = qg_cfg_find(peer, "server_certificate");
	if (to->first != NULL)
		return QG_OK;
	return copy_member(m, from, from->first->name, to, from->first->name);
}

qg_err
qg_cfg_complete(cfg_mem *m, cfg_node *root)
{
	for (cfg_node *s = qg_cfg_entries(root, "streams"); s != NULL; s = s->next) {
		cfg_node *const source = qg_cfg_find(s, "source");
		if (copy_member(m, source, "address", source, "server_name") != QG_OK)
			return QG_E_NOMEM;
	}
	for (cfg_node *p = qg_cfg_entries(root, "peers"); p != NULL; p = p->next)
		if (complete_peer(m, p) != QG_OK)
			return QG_E_NOMEM;
	const qg_err err = complete_client(m, root, "kms_listener", "kms_client");
	return err == QG_OK ? complete_client(m, root, "kxi_listener", "kxi_client") : err;
}
