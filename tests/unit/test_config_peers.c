/* SPDX-License-Identifier: Apache-2.0 */
#include "config_load.h"

/* --- peers: each case is a file of a common head and peers of its own ------------ */

static const char head[] =
	"kme: {id: G1}\n"
	"sae_listener: {listen: \"127.0.0.1:1\", certificate: c, key: k, ca: a}\n"
	"kms_listener: {listen: \"127.0.0.1:2\", certificate: c, key: k, ca: a}\n"
	"store: {database: s/db, anchor: a/anchor, master_key: m, key_ring: a/ring}\n"
	"audit: {file: audit.log}\n"
	"saes: [{id: sae-a, certificate: {cn: x}}]\n"
	"directory: [{sae: sae-b, kme: B}, {sae: far, border: B}]\n"
	"neighbours:\n"
	"  - {id: B, url: \"https://b:1\", certificate: {cn: b}}\n"
	"  - {id: G2, url: \"https://g2:1\", certificate: {cn: g2}}\n"
	"streams:\n"
	"  - {name: out, neighbour: G2, direction: outbound, node_chunks: 256, source: &}\n"
	"  - {name: bare, neighbour: G2, direction: shared, source: &}\n"
	"  - {name: in, neighbour: G2, direction: inbound, source: &}\n"
	"  - {name: far, neighbour: B, direction: inbound, relay: {}}\n"; /* 15 lines */

#define LISTENER "kxi_listener: {listen: \"127.0.0.1:3\", certificate: c, key: k, ca: a}\n"
#define PEERS "peers:\n"
#define FIRST 18 /* line of the first peer after both */

#define NET2(rest) "  - {id: NET2, url: \"https://g2:1\", certificate: {cn: g2}, saes: [sae-zoe, \"n2-*\"], " rest "}\n"
#define SYNC "mode: synchronous, link: kxi-prime"

static void
with_head(char *out, size_t room, const char *rest)
{
	static const char source[] =
		"{profile: bin-a, address: \"h:1\", transport: tcp, source_uri: a, destination_uri: b}";
	size_t n = 0;
	for (const char *p = head; *p != '\0'; p++) {
		const size_t len = *p == '&' ? strlen(source) : 1;
		assert_true(n + len < room);
		memcpy(out + n, *p == '&' ? source : p, len);
		n += len;
	}
	assert_true(n + strlen(rest) < room);
	memcpy(out + n, rest, strlen(rest) + 1);
}

static qg_config *
loaded(const char *rest)
{
	char text[FILE_ROOM];
	with_head(text, sizeof text, rest);
	return load_bytes(text, strlen(text), QG_OK);
}

static void
fits(const char *rest)
{
	qg_config *c = loaded(rest);
	qg_config_free(&c);
}

/* Exactly one problem, in that line. */
static void
says(const char *rest, unsigned line, const char *why)
{
	char text[FILE_ROOM], want[64];
	with_head(text, sizeof text, rest);
	refused(text, strlen(text), why);
	assert_true(snprintf(want, sizeof want, ":%u: ", line) > 0);
	const char *const end = strchr(report, '\n');
	if (strstr(report, want) == NULL || end == NULL || end[1] != '\0')
		fail_msg("one problem in line %u is right, not\n%s", line, report);
}

static void
all_options_arrive(void **state)
{
	(void)state;
	qg_config *c = loaded(
		LISTENER PEERS NET2(
			"callback_url: \"https://g2:9/cb\", our_callback_url: \"https://g1/kmapi/v1/ext_keys/ack\", "
			"link: kxi, stream: out, extension_pen: 99, draft_acks: true, reach: [sae-a, \"b*\"], "
			"max_keys: 7, requests_per_s: 8, outstanding_keys: 9, timeout_ms: 10, ack_timeout_ms: 110, "
			"server_certificate: {dns: g2.example}"));
	const qg_config_peer *p = c->peers;
	assert_int_equal(c->n_peers, 1);
	assert_string_equal(p->id, "NET2");
	assert_string_equal(p->url, "https://g2:1");
	assert_string_equal(p->client.cn, "g2");
	assert_null(p->client.dns);
	assert_string_equal(p->server.dns, "g2.example");
	assert_null(p->server.cn);
	assert_string_equal(p->callback_url, "https://g2:9/cb");
	assert_string_equal(p->our_callback_url, "https://g1/kmapi/v1/ext_keys/ack");
	assert_int_equal(p->dialect, QG_DIALECT_V1_1_1);
	assert_int_equal(p->mode, QG_PEER_ASYNCHRONOUS);
	assert_true(p->draft_acks);
	assert_int_equal(p->link, QG_PEER_KXI);
	assert_string_equal(p->stream, "out");
	assert_false(p->unprotected);
	assert_int_equal(p->extension_pen, 99);
	assert_int_equal(p->n_saes, 2);
	assert_string_equal(p->saes[1], "n2-*");
	assert_int_equal(p->n_reach, 2);
	assert_int_equal(p->max_keys, 7);
	assert_int_equal(p->requests_per_s, 8);
	assert_int_equal(p->outstanding_keys, 9);
	assert_int_equal(p->timeout_ms, 10);
	assert_int_equal(p->ack_timeout_ms, 110);
	assert_string_equal(c->kxi.address, "127.0.0.1");
	assert_int_equal(c->kxi.port, 3);
	assert_int_equal(c->kxi.tls.min_version, QG_TLS_1_3);
	assert_string_equal(c->kxi_client.certificate, c->kxi.tls.certificate);
	assert_int_equal(c->kxi_client.min_version, QG_TLS_1_3);
	assert_false(c->directory[0].border);
	assert_string_equal(c->directory[0].kme, "B");
	assert_true(c->directory[1].border);
	assert_string_equal(c->directory[1].kme, "B");
	qg_config_free(&c);
}

static void
defaults(void **state)
{
	(void)state;
	qg_config *c = loaded(LISTENER PEERS NET2(SYNC));
	const qg_config_peer *p = c->peers;
	assert_string_equal(p->server.cn, "g2"); /* one certificate for both */
	assert_null(p->callback_url);
	assert_null(p->our_callback_url);
	assert_null(p->stream);
	assert_int_equal(p->link, QG_PEER_KXI_PRIME);
	assert_int_equal(p->mode, QG_PEER_SYNCHRONOUS);
	assert_int_equal(p->extension_pen, 32473);
	assert_int_equal(p->n_reach, 0);
	assert_int_equal(p->max_keys, 1024);
	assert_int_equal(p->ack_timeout_ms, 10000);
	assert_int_equal(c->kxi_body_bytes, 1048576);
	assert_int_equal(c->transfer_timeout_ms, 15000);
	qg_config_free(&c);
	c = loaded(""); /* without other networks */
	assert_null(c->kxi.address);
	assert_int_equal(c->n_peers, 0);
	qg_config_free(&c);
}

static void
listener(void **state)
{
	(void)state;
	says(PEERS NET2(SYNC), 1, "kxi_listener: is missing: peers need it to call\n");
	says("kxi_client: {certificate: c, key: k, ca: a}\n", 16,
	     "kxi_client: has no use without kxi_listener and peers: take it out\n");
	fits(LISTENER);
	says("kxi_listener: {listen: \"127.0.0.1:2\", certificate: c, key: k, ca: a}\n", 16,
	     "kxi_listener.listen: is the address of kms_listener: give another address or port\n");
	says("kxi_listener: {listen: \"127.0.0.1:3\", certificate: c, key: k, ca: a, min_version: 1.2}\n", 16,
	     "kxi_listener.min_version: \"1.2\" is none of: 1.3\n");
}

static void
an_sae_lives_in_one_place(void **state)
{
	(void)state;
#define SAES(list) \
	LISTENER PEERS "  - {id: N, url: \"https://g:1\", certificate: {cn: g}, saes: [" list "], " SYNC "}\n"
	fits(SAES("sae-c, \"x*\""));
	says(SAES("\"sae-*\""), FIRST,
	     "peers[0].saes[0]: covers \"sae-a\", which is in saes (line 6) and so of this network: take it out of one "
	     "of the two\n");
	says(SAES("far"), FIRST, "peers[0].saes[0]: covers \"far\", which is in directory (line 7)");
	says(SAES("z, z"), FIRST, "peers[0].saes[1]: \"z\" is already in line 18: take one of them out\n");
	says(SAES("\"z\\\\\""), FIRST, "peers[0].saes[0]: ");
	says(SAES("a^b"), FIRST, "peers[0].saes[0]: \"a^b\" holds a character that no URI has\n");
	says(SAES("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), FIRST,
	     "has more than 64 characters, the most between networks\n");
	says(SAES(""), FIRST, "peers[0].saes: has 0 entries: give 1 to 4096\n");
	says(LISTENER PEERS NET2(SYNC ", reach: [n2-x]"), FIRST,
	     "peers[0].reach[0]: \"n2-x\" is behind this peer itself (line 18): take it out of one of the two\n");
	fits(LISTENER PEERS NET2(SYNC ", reach: [\"*\"]"));
}

static void
two_peers(void **state)
{
	(void)state;
	const char *const second = LISTENER PEERS NET2(SYNC)
		"  - {id: NET3, url: \"https://g3:1\", certificate: {cn: g3}, saes: [\"n3-*\"], " SYNC "}\n";
	fits(second);
	says(LISTENER PEERS NET2(SYNC)
	     "  - {id: NET3, url: \"https://g3:1\", certificate: {cn: g2}, saes: [\"n3-*\"], " SYNC "}\n",
	     FIRST + 1, "peers[1].certificate.cn: \"g2\" is already in line 18: a certificate names one owner\n");
	says(LISTENER PEERS NET2(SYNC)
	     "  - {id: NET2, url: \"https://g3:1\", certificate: {cn: g3}, saes: [\"n3-*\"], " SYNC "}\n",
	     FIRST + 1, "peers[1].id: \"NET2\" is already in line 18: give another one\n");
	fits(LISTENER PEERS NET2(SYNC) /* two ways to the same SAEs */
	     "  - {id: NET3, url: \"https://g3:1\", certificate: {cn: g3}, saes: [\"n2-*\"], " SYNC "}\n");
}

static void
callbacks(void **state)
{
	(void)state;
#define OWN "https://g1:5/kmapi/v1/ext_keys/ack"
	fits(LISTENER PEERS NET2("link: kxi-prime, our_callback_url: \"" OWN "\""));
	says(LISTENER PEERS NET2("link: kxi-prime"), FIRST,
	     "peers[0].our_callback_url: is missing: give the URL at which it reaches kxi_listener, or mode "
	     "synchronous\n");
	says(LISTENER PEERS NET2(SYNC ", our_callback_url: \"" OWN "\""), FIRST,
	     "peers[0].our_callback_url: has no use with mode synchronous: take it out\n");
	says(LISTENER PEERS NET2("link: kxi-prime, our_callback_url: \"https://g1:5/other\""), FIRST,
	     "is not where acks are taken: its path must be /kmapi/v1/ext_keys/ack\n");
	fits(LISTENER PEERS NET2("link: kxi-prime, dialect: draft-url"));
	says(LISTENER PEERS NET2("link: kxi-prime, dialect: draft-url, mode: synchronous"), FIRST,
	     "peers[0].mode: has no use with dialect draft-url: take it out\n");
	says(LISTENER PEERS NET2("link: kxi-prime, dialect: draft-url, our_callback_url: \"" OWN "\""), FIRST,
	     "peers[0].our_callback_url: has no use with dialect draft-url: take it out\n");
	static const char *const wrong[] = {
		"http://g2/cb", "https://", "https:///cb", "g2/cb", "https://g2:0/cb", "https://u@g2/cb", "https://g2/#x",
		"https://g2:99999/cb", "https://g 2/cb", "ftp://g2/cb", "https://1.2.3/cb",
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		char rest[512];
		assert_true(snprintf(rest, sizeof rest, LISTENER PEERS NET2(SYNC ", callback_url: \"%s\""), wrong[i]) > 0);
		says(rest, FIRST, "peers[0].callback_url: ");
	}
	fits(LISTENER PEERS NET2(SYNC ", callback_url: \"https://[::1]:5/cb?x=1\""));
	fits(LISTENER PEERS NET2(SYNC ", callback_url: \"https://g2\""));
}

static void
a_distance_needs_a_stream(void **state)
{
	(void)state;
#define KXI(rest) LISTENER PEERS NET2("mode: synchronous, link: kxi" rest)
	fits(KXI(", stream: out"));
	fits(KXI(", unprotected: true"));
	says(KXI(""), FIRST,
	     "peers[0].stream: is missing: give the stream that masks values over the distance, or unprotected: true\n");
	says(KXI(", stream: out, unprotected: true"), FIRST,
	     "peers[0].unprotected: stands beside stream in line 18: keep one of them\n");
	fits(LISTENER PEERS NET2("link: kxi, dialect: draft-url, unprotected: true"));
	says(LISTENER PEERS NET2("link: kxi, dialect: draft-url, stream: out"), FIRST,
	     "peers[0].stream: cannot be with dialect draft-url, in which masks have no place: give dialect v1.1.1\n");
	says(KXI(", stream: none"), FIRST, "peers[0].stream: \"none\" is no stream: give a name of streams\n");
	says(KXI(", stream: in"), FIRST, "\"in\" is inbound: give one that is outbound or shared\n");
	says(KXI(", stream: bare"), FIRST, "\"bare\" has no node key: give it node_chunks\n");
	says(KXI(", stream: far"), FIRST, "\"far\" is a virtual stream: give one of the link to the peer\n");
	says(LISTENER PEERS NET2(SYNC ", stream: out"), FIRST,
	     "peers[0].stream: has no use with link kxi-prime: take it out, or give kxi\n");
	says(LISTENER PEERS NET2(SYNC ", unprotected: true"), FIRST,
	     "peers[0].unprotected: has no use with link kxi-prime: take it out\n");
	says(LISTENER PEERS NET2("mode: synchronous"), FIRST, "peers[0].link: is missing: give a word\n");
}

/* In a file of its own, because the head has good ones. */
static void
places(void **state)
{
	(void)state;
	static const struct {
		const char *entry, *why;
	} wrong[] = {
		{"{sae: q}", "directory[0].kme: is missing: give the KME at which it lives, or border\n"},
		{"{sae: q, kme: B, border: C}", "directory[0].border: stands beside kme in line 6: keep one of them\n"},
		{"{sae: q, border: A}", "directory[0].border: is this KME itself: give the SAE to one of peers\n"},
		{"{sae: q, kme: \"kxi:B\"}", "directory[0].kme: \"kxi:B\" begins with kxi:, which stands for peers"},
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		char text[1024];
		assert_true(snprintf(text, sizeof text,
				     "kme: {id: A}\n"
				     "sae_listener: {listen: \"127.0.0.1:1\", certificate: c, key: k, ca: a}\n"
				     "kms_listener: {listen: \"127.0.0.1:2\", certificate: c, key: k, ca: a}\n"
				     "store: {database: s/db, anchor: a/anchor, master_key: m, key_ring: a/ring}\n"
				     "audit: {file: audit.log}\n"
				     "directory: [%s]\n", wrong[i].entry) > 0);
		refused(text, strlen(text), wrong[i].why);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_options_arrive),
		cmocka_unit_test(defaults),
		cmocka_unit_test(listener),
		cmocka_unit_test(an_sae_lives_in_one_place),
		cmocka_unit_test(two_peers),
		cmocka_unit_test(callbacks),
		cmocka_unit_test(a_distance_needs_a_stream),
		cmocka_unit_test(places),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
