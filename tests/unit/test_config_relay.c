/* SPDX-License-Identifier: Apache-2.0 */

#include "config_load.h"
#include "seed.h"

/* --- routes ------------------------------------------------------------------ */

static const char head[] =
	"kme: {id: A}\n"
	"sae_listener: {listen: \"127.0.0.1:1\", certificate: c, key: k, ca: a}\n"
	"kms_listener: {listen: \"127.0.0.1:2\", certificate: c, key: k, ca: a}\n"
	"store: {database: s/db, anchor: a/anchor, master_key: m, key_ring: a/ring}\n"
	"audit: {file: audit.log}\n"
	"neighbours:\n"
	"  - {id: B, url: \"https://b:1\", certificate: {cn: b}}\n"
	"  - {id: D, url: \"https://d:1\", certificate: {cn: d}}\n"
	"  - {id: E, url: \"https://e:1\", certificate: {cn: e}}\n"
	"  - {id: Z, url: \"https://z:1\", certificate: {cn: z}}\n"
	"streams:\n"
	"  - {name: ab, neighbour: B, direction: outbound, node_chunks: 256, source: &}\n"
	"  - {name: ba, neighbour: B, direction: inbound, source: &}\n"
	"  - {name: ad, neighbour: D, direction: shared, node_chunks: 1000, source: &}\n"
	"  - {name: ae, neighbour: E, direction: outbound, source: &}\n"
	"  - {name: ea, neighbour: E, direction: inbound, source: &}\n"
	"  - name: az\n"
	"    neighbour: Z\n"
	"    direction: outbound\n"
	"    relay:\n"; /* from line 21 on what a case gives */

#define FIRST 21 /* line of what a case gives */

static const char source[] =
	"{profile: bin-a, address: \"h:1\", transport: tcp, source_uri: a, destination_uri: b}";

/* The head with every `&` written out, and the rest of the file. */
static size_t
make_file(char *out, size_t room, const char *rest)
{
	size_t n = 0;
	for (const char *p = head; *p != '\0'; p++) {
		const size_t len = *p == '&' ? strlen(source) : 1;
		assert_true(n + len < room);
		memcpy(out + n, *p == '&' ? source : p, len);
		n += len;
	}
	assert_true(n + strlen(rest) < room);
	memcpy(out + n, rest, strlen(rest));
	return n + strlen(rest);
}

static void
fits(const char *rest)
{
	char text[FILE_ROOM];
	const size_t len = make_file(text, sizeof text, rest);
	qg_config *c = load_bytes(text, len, QG_OK);
	qg_config_free(&c);
}

/* Exactly one problem, in that line. */
static void
says(const char *rest, unsigned line, const char *why)
{
	char text[FILE_ROOM], want[64];
	const size_t len = make_file(text, sizeof text, rest);
	refused(text, len, why);
	assert_true(snprintf(want, sizeof want, ":%u: ", line) > 0);
	const char *const end = strchr(report, '\n');
	if (strstr(report, want) == NULL || end == NULL || end[1] != '\0')
		fail_msg("one problem in line %u is right, not\n%s", line, report);
}

#define ROUTES "      routes:\n"

static void
static_routes(void **state)
{
	(void)state;
	fits(ROUTES "        - {via: [B]}\n");
	fits(ROUTES "        - {via: [B, C, X, Y, D, E]}\n        - {via: [D]}\n");
	says(ROUTES "        - {via: [B]}\n        - {via: [C, D]}\n", FIRST + 2,
	     "streams[5].relay.routes[1].via[0]: \"C\" is the first hop but no neighbour: give an id of "
	     "neighbours\n");
	says(ROUTES "        - {via: [E]}\n", FIRST + 1,
	     "streams[5].relay.routes[0].via[0]: \"E\" is the first hop, but there is no node key for it: give "
	     "node_chunks to an outbound or shared stream of a link to it\n");
	says(ROUTES "        - {via: [{}, B]}\n", FIRST + 1,
	     "streams[5].relay.routes[0].via[0]: is a section");
	says(ROUTES "        - {via: []}\n", FIRST + 1,
	     "streams[5].relay.routes[0].via: \"Z\" is the first hop, but there is no node key");
	says(ROUTES "        - {via: [B, C]}\n        - {via: [B, C]}\n", FIRST + 2,
	     "streams[5].relay.routes[1]: is the route of line 22 again: take one out\n");
	says("      max_hops: 1\n" ROUTES "        - {via: [B]}\n        - {via: [B, C]}\n", FIRST + 3,
	     "streams[5].relay.routes[1].via: has 2 KMEs: max_hops allows 1\n");
	fits(ROUTES "        - {via: [B, C, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]}\n");
	says(ROUTES "        - {via: [B, C, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]}\n", FIRST + 1,
	     "streams[5].relay.routes[0].via: has 15 entries: give 0 to 14\n");
}

/* A virtual stream is no link: its node key carries no other one's chunks. */
static void
first_hops_are_links(void **state)
{
	(void)state;
	says(ROUTES "        - {via: [E]}\n"
		    "  - {name: v, neighbour: E, direction: outbound, node_chunks: 256,\n"
		    "     relay: {routes: [{via: [B]}]}}\n",
	     FIRST + 1, "\"E\" is the first hop, but there is no node key");
	fits(ROUTES "        - {via: []}\n"
		    "  - {name: az2, neighbour: Z, direction: outbound, node_chunks: 256,\n"
		    "     source: {profile: bin-a, address: \"h:1\", transport: tcp, source_uri: a,\n"
		    "              destination_uri: b}}\n");
}

static void
disjoint_routes(void **state)
{
	(void)state;
	fits("      paths: 2\n" ROUTES "        - {via: [B, C]}\n        - {via: [D]}\n");
	says("      paths: 2\n" ROUTES "        - {via: [B, C]}\n        - {via: [D, C]}\n", FIRST,
	     "streams[5].relay.paths: 2 paths without a common KME are not in the routes, only 1: give routes "
	     "that, or fewer_paths: true\n");
	fits("      paths: 2\n" ROUTES "        - {via: [B, C]}\n        - {via: [B]}\n"
	     "        - {via: [D, C]}\n"); /* the second and the third */
	says("      paths: 3\n" ROUTES "        - {via: [B, C]}\n        - {via: [B]}\n"
	     "        - {via: [D, C]}\n", FIRST, "3 paths without a common KME are not in the routes, only 2");
	fits("      paths: 3\n      fewer_paths: true\n" ROUTES "        - {via: [B, C]}\n");
}

/* Sixteen routes that take long to tell apart. */
static void
many_routes(void **state)
{
	char text[4096];
	int n = snprintf(text, sizeof text, "      paths: 8\n" ROUTES);
	(void)state;
	for (unsigned i = 0; i < 16; i++)
		n += snprintf(text + n, sizeof text - (size_t)n, "        - {via: [%s, X%u]}\n",
			      i % 2 == 0 ? "B" : "D", i);
	says(text, FIRST, "8 paths without a common KME are not in the routes, only 2");
	assert_true(snprintf(text + n, sizeof text - (size_t)n, "        - {via: [B, Y]}\n") > 0);
	says(text, FIRST + 1, "streams[5].relay.routes: has 17 entries: give 0 to 16\n");
}

#define LINK(a, b) "    - {a: " a ", b: " b "}\n"
#define LINKS "topology:\n  links:\n"

static void
found_routes(void **state)
{
	(void)state;
	says("      paths: 1\n", FIRST - 1,
	     "streams[5].relay: has no routes: give them, or the links of topology\n");
	says("      routes: []\n", FIRST - 1, "streams[5].relay: has no routes: give them");
	fits("      paths: 1\n" LINKS LINK("A", "B") LINK("Z", "B"));
	says("      paths: 1\n" LINKS LINK("B", "Z"), FIRST - 1,
	     "streams[5].relay: has no routes, and topology has none to \"Z\": give them, or the links\n");
	says("      paths: 1\n" LINKS LINK("A", "B") LINK("C", "Z"), FIRST - 1, "topology has none to \"Z\"");
	says("      paths: 1\n" LINKS LINK("A", "B") LINK("C", "D"), FIRST - 1, "topology has none to \"Z\"");
	says("      max_hops: 1\n" LINKS LINK("A", "B") LINK("B", "C") LINK("Z", "C"), FIRST,
	     "streams[5].relay.max_hops: 1 is too few: the shortest route to \"Z\" in topology has 2\n");
	fits("      max_hops: 2\n" LINKS LINK("A", "B") LINK("B", "C") LINK("Z", "C"));
	fits("      paths: 2\n" LINKS LINK("A", "B") LINK("B", "Z") LINK("A", "D") LINK("D", "Z"));
	says("      paths: 2\n" LINKS LINK("A", "B") LINK("B", "C") LINK("A", "D") LINK("D", "C") LINK("C", "Z"),
	     FIRST, "streams[5].relay.paths: 2 paths without a common KME are not in the topology, only 1: give "
	     "topology that, or fewer_paths: true\n");
	fits("      paths: 2\n      fewer_paths: true\n" LINKS LINK("A", "B") LINK("B", "Z"));
	says("      paths: 1\n" LINKS LINK("A", "B") LINK("B", "Z") LINK("E", "A"), FIRST + 5,
	     "topology.links[2].a: \"E\" is the first hop, but there is no node key");
	says("      paths: 1\n" LINKS LINK("A", "B") LINK("B", "Z") LINK("A", "C"), FIRST + 5,
	     "topology.links[2].b: \"C\" is the first hop but no neighbour");
}

static void
links_of_one_kme(void **state)
{
	char text[16384];
	int n = snprintf(text, sizeof text, "      paths: 1\n" LINKS LINK("A", "B") LINK("B", "Z"));
	(void)state;
	for (unsigned i = 2; i < 64; i++)
		n += snprintf(text + n, sizeof text - (size_t)n, "    - {a: X%u, b: B}\n", i);
	fits(text);
	assert_true(snprintf(text + n, sizeof text - (size_t)n, "    - {a: B, b: X64}\n") > 0);
	says(text, FIRST + 3 + 64, "\"B\" has more than 64 links: give at most so many\n");
}

/* --- the graph --------------------------------------------------------------- */

#define NODES 7

typedef struct net {
	bool link[NODES][NODES];
} net;

/* By trying every set of paths: the most that share no node, from node 0 to the
 * last. A node stays used while what comes after it is tried. */
static unsigned
try_paths(const net *w, bool used[NODES], unsigned at, bool direct)
{
	unsigned best = 0;
	for (unsigned next = 1; next < NODES; next++) {
		unsigned n = 0;
		if (!w->link[at][next] || used[next] || (at == 0 && next == NODES - 1 && direct))
			continue;
		if (next == NODES - 1) {
			n = 1 + try_paths(w, used, 0, direct || at == 0);
		} else {
			used[next] = true;
			n = try_paths(w, used, next, direct);
			used[next] = false;
		}
		best = n > best ? n : best;
	}
	return best;
}

/* Links of the shortest path, 0: none. */
static size_t
shortest(const net *w)
{
	bool near[NODES] = {true};
	for (size_t links = 1; links < NODES; links++) {
		bool next[NODES] = {false};
		for (unsigned a = 0; a < NODES; a++)
			for (unsigned b = 0; b < NODES; b++)
				next[b] |= near[a] && w->link[a][b];
		if (next[NODES - 1])
			return links;
		memcpy(near, next, sizeof near);
	}
	return 0;
}

static void
random_networks(void **state)
{
	(void)state;
	srand(test_seed());
	for (int i = 0; i < 2000; i++) {
		cfg_mem m = {NULL};
		net w = {0};
		bool used[NODES] = {false};
		size_t hops = 99;
		cfg_graph *g = qg_cfg_graph_new(&m, NODES, NODES * NODES);
		assert_non_null(g);
		const int density = 1 + rand() % 5;
		for (unsigned a = 0; a < NODES; a++)
			for (unsigned b = a + 1; b < NODES; b++) {
				if (rand() % 6 >= density)
					continue;
				w.link[a][b] = w.link[b][a] = true;
				qg_cfg_graph_link(g, a, b);
			}
		const unsigned want = try_paths(&w, used, 0, false);
		assert_int_equal(qg_cfg_graph_paths(g, 0, NODES - 1, NODES, &hops), want);
		assert_int_equal(hops, want == 0 ? 0 : shortest(&w) - 1);
		assert_int_equal(qg_cfg_graph_paths(g, 0, NODES - 1, 1, &hops), want > 0);
		qg_cfg_mem_free(&m);
	}
}

static void
no_path_to_itself(void **state)
{
	cfg_mem m = {NULL};
	size_t hops = 0;
	(void)state;
	cfg_graph *g = qg_cfg_graph_new(&m, 2, 1);
	assert_non_null(g);
	qg_cfg_graph_link(g, 0, 1);
	assert_int_equal(qg_cfg_graph_paths(g, 0, 0, 4, &hops), 0);
	assert_int_equal(qg_cfg_graph_paths(g, 1, 0, 4, &hops), 1);
	assert_int_equal(hops, 0);
	assert_null(qg_cfg_graph_new(&m, SIZE_MAX, 1));
	qg_cfg_mem_free(&m);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(static_routes),
		cmocka_unit_test(first_hops_are_links),
		cmocka_unit_test(disjoint_routes),
		cmocka_unit_test(many_routes),
		cmocka_unit_test(found_routes),
		cmocka_unit_test(links_of_one_kme),
		cmocka_unit_test(random_networks),
		cmocka_unit_test(no_path_to_itself),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
