/* SPDX-License-Identifier: Apache-2.0 */
#include <sys/stat.h>

#include "config_load.h"
#include "seed.h"

static void
ends_in(const char *path, const char *end)
{
	assert_non_null(path);
	assert_int_equal(path[0], '/');
	assert_true(strlen(path) >= strlen(end));
	assert_string_equal(path + strlen(path) - strlen(end), end);
}

/* --- good files ------------------------------------------------------------- */

static void
sample_source(const qg_config_source *s)
{
	assert_int_equal(s->profile, QG_PROFILE_BIN_B);
	assert_string_equal(s->host, "127.0.0.1");
	assert_int_equal(s->port, 18103);
	assert_true(s->tls);
	ends_in(s->files.certificate, "/" DATA "pki/kme-a.pem");
	ends_in(s->files.key, "/" DATA "pki/kme-a.key");
	ends_in(s->files.ca, "/" DATA "pki/ca.pem");
	assert_null(s->files.crl);
	assert_string_equal(s->server_name, "sim-a.demo");
	assert_string_equal(s->source_uri, "client://kme-a/a-to-b");
	assert_string_equal(s->destination_uri, "server://kme-b");
	assert_null(s->ksid);
	assert_int_equal(s->max_bps, 100000000);
	assert_int_equal(s->timeout_ms, 5000);
	assert_int_equal(s->ttl_s, 3600);
	assert_string_equal(s->mimetype, "application/json");
}

static void
the_sample_file(void **state)
{
	(void)state;
	qg_config *c = load(DATA "sample.yaml", QG_OK);
	assert_string_equal(c->kme_id, "KME-A");
	assert_string_equal(c->sae.address, "127.0.0.1");
	assert_int_equal(c->sae.port, 18101);
	ends_in(c->sae.tls.crl, "/" DATA "pki/crl.pem");
	assert_int_equal(c->kms.port, 18102);
	assert_null(c->kms.tls.crl);
	ends_in(c->database, "/" DATA "kme-a/keys.db");
	ends_in(c->master_key, "/" DATA "kme-a.master");
	assert_int_equal(c->n_saes, 2);
	assert_string_equal(c->saes[0].match.uri, "urn:sae:sae-alice");
	assert_null(c->saes[0].match.cn);
	assert_string_equal(c->saes[1].match.cn, "sae-dave");
	assert_int_equal(c->n_directory, 2);
	assert_string_equal(c->directory[1].sae, "sae-b-*");
	assert_string_equal(c->directory[1].kme, "KME-B");
	assert_int_equal(c->n_neighbours, 1);
	assert_string_equal(c->neighbours[0].url, "https://127.0.0.1:18202");
	assert_string_equal(c->neighbours[0].match.dns, "kme-b.demo");
	assert_int_equal(c->n_streams, 1);
	assert_string_equal(c->streams[0].name, "a-to-b");
	assert_string_equal(c->streams[0].neighbour, "KME-B");
	assert_int_equal(c->streams[0].direction, QG_DIRECTION_OUTBOUND);
	sample_source(&c->streams[0].source);
	assert_int_equal(c->n_policy, 1);
	assert_int_equal(c->policy[0].n_slaves, 3);
	assert_string_equal(c->policy[0].slaves[2], "sae-erin");
	qg_config_free(&c);
	assert_null(c);
	qg_config_free(&c);
}

static void
listener_defaults(const qg_config_listener *l)
{
	assert_int_equal(l->threads, 0);
	assert_int_equal(l->max_connections, 4096);
	assert_int_equal(l->max_per_address, 0);
	assert_int_equal(l->address_handshakes_per_s, 500);
	assert_int_equal(l->idle_timeout_s, 60);
	assert_int_equal(l->ticket_key_s, 21600);
}

static void
stream_defaults(const qg_config_stream *s)
{
	assert_int_equal(s->chunk_size, 32);
	assert_int_equal(s->segment_chunks, 256);
	assert_true(s->source.tls);
	assert_int_equal(s->source.files.min_version, QG_TLS_1_3);
	assert_string_equal(s->source.server_name, "qkd_a.example");
	assert_null(s->source.ksid);
	assert_int_equal(s->source.max_bps, 100000000);
	assert_int_equal(s->source.min_bps, 0);
	assert_int_equal(s->source.jitter_bps, 0);
	assert_int_equal(s->source.priority, 0);
	assert_int_equal(s->source.timeout_ms, 5000);
	assert_int_equal(s->source.ttl_s, 3600);
	assert_string_equal(s->source.mimetype, "application/json");
}

/* Of full.yaml: what a stream and a link take when nothing is given. */
static void
relay_defaults(const qg_config_stream *s)
{
	assert_true(s->relayed);
	assert_null(s->relay.random);
	assert_int_equal(s->relay.paths, 1);
	assert_false(s->relay.fewer_paths);
	assert_int_equal(s->relay.max_hops, 14);
	assert_int_equal(s->relay.n_routes, 0);
	assert_int_equal(s->chunk_size, 32);
	assert_int_equal(s->segment_chunks, 256);
	assert_int_equal(s->node_percent, 50);
}

static void
pool_and_limit_defaults(const qg_config *c)
{
	assert_int_equal(c->ready_chunks, 65536);
	assert_int_equal(c->inbound_chunks, 1048576);
	assert_int_equal(c->issue_s, 3600);
	assert_int_equal(c->fetch_s, 300);
	assert_int_equal(c->reserve_percent, 10);
	assert_int_equal(c->lease_chunks, 65536);
	assert_int_equal(c->epoch_age_s, 604800);
	assert_int_equal(c->sae_keys_per_s, 0);
	assert_int_equal(c->sae_requests_per_s, 0);
	assert_int_equal(c->pair_chunks, 0);
	assert_int_equal(c->body_bytes, 65536);
	assert_int_equal(c->kms_timeout_ms, 5000);
	assert_int_equal(c->clock_jump_s, 86400);
}

static void
every_default(void **state)
{
	(void)state;
	qg_config *c = load(DATA "minimal.yaml", QG_OK);
	listener_defaults(&c->sae);
	listener_defaults(&c->kms);
	assert_null(c->sae.tls.crl);
	assert_int_equal(c->sae.tls.min_version, QG_TLS_1_3);
	assert_int_equal(c->kms.tls.min_version, QG_TLS_1_2);
	assert_string_equal(c->kms.address, "::1");
	assert_int_equal(c->kms.port, 65535);
	assert_string_equal(c->kms_client.certificate, c->kms.tls.certificate);
	assert_string_equal(c->kms_client.key, c->kms.tls.key);
	assert_string_equal(c->kms_client.ca, c->kms.tls.ca);
	assert_string_equal(c->kms_client.crl, c->kms.tls.crl);
	assert_int_equal(c->kms_client.min_version, QG_TLS_1_2);
	assert_int_equal(c->key_ring_rotate_s, 86400);
	assert_int_equal(c->flush_ms, 1000);
	assert_int_equal(c->accounting_days, 800);
	assert_int_equal(c->log_level, QG_LOG_INFO);
	assert_int_equal(c->log_format, QG_LOG_TEXT);
	assert_null(c->directory);
	assert_int_equal(c->n_directory, 0);
	assert_int_equal(c->streams[0].direction, QG_DIRECTION_SHARED);
	stream_defaults(&c->streams[0]);
	assert_false(c->streams[0].relayed);
	assert_int_equal(c->streams[0].relay.paths, 0);
	assert_int_equal(c->streams[0].node_chunks, 0);
	assert_int_equal(c->streams[0].node_percent, 50);
	assert_int_equal(c->n_links, 0);
	assert_int_equal(c->relay_own_percent, 25);
	assert_int_equal(c->relay_neighbour_bytes_per_s, 0);
	assert_int_equal(c->relay_route_bytes_per_s, 0);
	assert_int_equal(c->relay_timeout_ms, 4000);
	assert_int_equal(c->relay_penalty_s, 5);
	assert_true(c->policy[0].both_ways);
	assert_int_equal(c->policy[0].min_key_bits, 64);
	assert_int_equal(c->policy[0].max_key_bits, 4096);
	assert_int_equal(c->policy[0].default_key_bits, 256);
	assert_int_equal(c->policy[0].max_keys, 128);
	assert_int_equal(c->policy[0].max_extra_slaves, 8);
	pool_and_limit_defaults(c);
	qg_config_free(&c);
}

static void
full_stream(const qg_config_stream *s)
{
	assert_int_equal(s->chunk_size, 4096);
	assert_int_equal(s->segment_chunks, 19);
	assert_int_equal(s->direction, QG_DIRECTION_INBOUND);
	assert_string_equal(s->source.host, "::1");
	assert_int_equal(s->source.port, 9);
	assert_false(s->source.tls);
	assert_null(s->source.files.certificate);
	assert_string_equal(s->source.server_name, "other.example");
	assert_string_equal(s->source.ksid, "41437059-0000-4000-8000-00000000AD17");
	assert_int_equal(s->source.max_bps, 2);
	assert_int_equal(s->source.min_bps, 2);
	assert_int_equal(s->source.jitter_bps, 3);
	assert_int_equal(s->source.priority, 4);
	assert_int_equal(s->source.timeout_ms, 6);
	assert_int_equal(s->source.ttl_s, 0);
	assert_string_equal(s->source.mimetype, "");
}

static void
full_relay(const qg_config *c)
{
	const qg_config_stream *const s = c->streams;
	assert_int_equal(c->n_streams, 5);
	assert_false(s[0].relayed || s[1].relayed);
	assert_int_equal(s[1].node_chunks, 20);
	assert_int_equal(s[1].node_percent, 99);
	assert_true(s[2].relayed && s[3].relayed && s[4].relayed);
	assert_string_equal(s[2].relay.random, "/dev/hwrng");
	assert_int_equal(s[2].relay.paths, 2);
	assert_true(s[2].relay.fewer_paths);
	assert_int_equal(s[2].relay.max_hops, 3);
	assert_int_equal(s[2].relay.n_routes, 2);
	assert_int_equal(s[2].relay.routes[0].n_via, 3);
	assert_string_equal(s[2].relay.routes[0].via[2], "KME-E");
	assert_int_equal(s[2].relay.routes[1].n_via, 1);
	assert_null(s[3].source.host);
	assert_int_equal(c->n_links, 2);
	assert_string_equal(c->links[0].a, "KME-A");
	assert_string_equal(c->links[0].b, "KME-B");
	assert_int_equal(c->links[0].cost, 1000);
	assert_int_equal(c->links[1].cost, 1);
	assert_int_equal(c->relay_own_percent, 90);
	assert_int_equal(c->relay_neighbour_bytes_per_s, 1);
	assert_int_equal(c->relay_route_bytes_per_s, 2);
	assert_int_equal(c->relay_timeout_ms, 100);
	assert_int_equal(c->relay_penalty_s, 3600);
	assert_int_equal(c->neighbours[0].n_learn, 0);
	assert_int_equal(c->neighbours[1].n_learn, 2);
	assert_string_equal(c->neighbours[1].learn[1], "sae-c-*");
}

static void
full_pool_and_limits(const qg_config *c)
{
	assert_int_equal(c->ready_chunks, 512);
	assert_int_equal(c->inbound_chunks, 256);
	assert_int_equal(c->issue_s, 1);
	assert_int_equal(c->fetch_s, 1);
	assert_int_equal(c->reserve_percent, 90);
	assert_int_equal(c->lease_chunks, 64);
	assert_int_equal(c->epoch_age_s, 9);
	assert_int_equal(c->sae_keys_per_s, 1);
	assert_int_equal(c->sae_requests_per_s, 2);
	assert_int_equal(c->pair_chunks, 3);
	assert_int_equal(c->body_bytes, 1024);
	assert_int_equal(c->kms_timeout_ms, 5);
	assert_int_equal(c->clock_jump_s, 6);
}

static void
full_admin(const qg_config_admin *a)
{
	assert_true(a->given);
	ends_in(a->socket, "/" DATA "run/admin.sock");
	assert_int_equal(a->socket_mode, 0660);
	assert_string_equal(a->socket_group, "operators");
	assert_true(a->has_listener);
	assert_int_equal(a->listener.port, 9);
	assert_int_equal(a->listener.max_connections, 3);
	assert_int_equal(a->n_users, 2);
	assert_string_equal(a->users[0].match.cn, "root");
	assert_false(a->users[0].read_only);
	assert_string_equal(a->users[1].name, "viewer");
	assert_true(a->users[1].read_only);
	assert_true(a->has_scrape);
	assert_int_equal(a->scrape_port, 10);
	assert_true(a->scrape_saes);
	assert_int_equal(a->zeroize_signal, QG_ZEROIZE_USR2);
	assert_string_equal(a->zeroize_file, "/sys/class/gpio/gpio7/value");
}

static void
every_option(void **state)
{
	(void)state;
	qg_config *c = load(DATA "full.yaml", QG_OK);
	assert_string_equal(c->sae.address, "2001:db8::1");
	assert_string_equal(c->sae.tls.certificate, "/etc/qkd/sae.pem");
	ends_in(c->sae.tls.key, "/" DATA "../keys/sae.key");
	ends_in(c->sae.tls.ca, "/" DATA "pki/ca one.pem");
	assert_int_equal(c->sae.tls.min_version, QG_TLS_1_2);
	assert_int_equal(c->sae.threads, 3);
	assert_int_equal(c->sae.max_connections, 17);
	assert_int_equal(c->sae.max_per_address, 5);
	assert_int_equal(c->sae.address_handshakes_per_s, 6);
	assert_int_equal(c->sae.idle_timeout_s, 7);
	assert_int_equal(c->sae.ticket_key_s, 9);
	ends_in(c->kms_client.certificate, "/cl.pem");
	ends_in(c->kms_client.crl, "/cl-crl.pem");
	assert_int_equal(c->kms_client.min_version, QG_TLS_1_2);
	assert_string_equal(c->master_key, "credential:qkdgate.master");
	assert_int_equal(c->key_ring_rotate_s, 60);
	assert_int_equal(c->flush_ms, 20);
	assert_int_equal(c->accounting_days, 30);
	assert_string_equal(c->audit_file, "/var/log/q.log");
	assert_int_equal(c->log_level, QG_LOG_DEBUG);
	assert_int_equal(c->log_format, QG_LOG_JSON);
	assert_string_equal(c->saes[0].match.fingerprint,
			    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
	assert_string_equal(c->saes[1].match.cn, "Ärger und Söhne");
	assert_string_equal(c->directory[1].sae, "*");
	assert_int_equal(c->n_neighbours, 2);
	full_stream(&c->streams[0]);
	assert_int_equal(c->n_policy, 2);
	assert_string_equal(c->policy[0].slaves[1], "x*");
	assert_false(c->policy[0].both_ways);
	assert_int_equal(c->policy[0].min_key_bits, 8);
	assert_int_equal(c->policy[0].default_key_bits, 32760);
	assert_int_equal(c->policy[0].max_keys, 1024);
	assert_int_equal(c->policy[0].max_extra_slaves, 0);
	assert_int_equal(c->policy[1].n_slaves, 1);
	full_admin(&c->admin);
	full_relay(c);
	relay_defaults(&c->streams[3]);
	relay_defaults(&c->streams[4]);
	full_pool_and_limits(c);
	qg_config_free(&c);
}

static void
names_from_the_folder_of_the_file(void **state)
{
	char cwd[4096], want[8192];
	(void)state;
	assert_non_null(getcwd(cwd, sizeof cwd));
	assert_int_equal(chdir(DATA), 0);
	qg_config *near = load("minimal.yaml", QG_OK);
	assert_int_equal(chdir("/"), 0);
	assert_true(snprintf(want, sizeof want, "%s/" DATA "minimal.yaml", cwd) > 0);
	qg_config *far = load(want, QG_OK);
	assert_int_equal(chdir(cwd), 0);
	assert_true(snprintf(want, sizeof want, "%s/" DATA "s/db", cwd) > 0);
	assert_string_equal(near->database, want);
	assert_string_equal(far->database, want);
	qg_config_free(&near);
	qg_config_free(&far);
}

/* --- mistakes ----------------------------------------------------------------- */

/* Whether the report has FILE:LINE: OPTION: ...text... and takes it out. */
static bool
take_report(const char *file, unsigned line, const char *option, const char *text)
{
	char head[512];
	const int n = snprintf(head, sizeof head, "%s:%u: %s: ", file, line, option);
	assert_true(n > 0 && (size_t)n < sizeof head);
	for (char *at = strstr(report, head); at != NULL; at = strstr(at + 1, head)) {
		char *const end = strchr(at, '\n');
		assert_non_null(end);
		*end = '\0';
		const bool found = strstr(at + n, text) != NULL;
		*end = '\n';
		if (!found || (at != report && at[-1] != '\n'))
			continue;
		memmove(at, end + 1, strlen(end + 1) + 1);
		return true;
	}
	return false;
}

static char *
trim(char *s)
{
	while (*s == ' ')
		s++;
	for (size_t n = strlen(s); n > 0 && s[n - 1] == ' '; n--)
		s[n - 1] = '\0';
	return s;
}

static size_t
take_expected(const char *file, unsigned line, char *marks)
{
	size_t n = 0;
	for (char *next = marks; next != NULL; n++) {
		char *const one = next;
		next = strstr(one, ";;");
		if (next != NULL) {
			*next = '\0';
			next += 2;
		}
		char *const bar = strchr(one, '|');
		assert_non_null(bar);
		*bar = '\0';
		if (!take_report(file, line, trim(one), trim(bar + 1)))
			fail_msg("line %u: %s: %s is not reported; left are\n%s", line, trim(one),
				 trim(bar + 1), report);
	}
	return n;
}

/* The file says in its comments what is wrong where: all of that must be in one
 * report, and nothing else. */
static void
all_mistakes_in_one_go(void **state)
{
	static char text[FILE_ROOM];
	unsigned line = 0;
	size_t expected = 0;
	(void)state;
	(void)read_file(DATA "mistakes.yaml", text, sizeof text);
	(void)load(DATA "mistakes.yaml", QG_E_PARSE);
	for (char *l = text, *end; *l != '\0'; l = end + 1) {
		end = strchr(l, '\n');
		assert_non_null(end);
		*end = '\0';
		line++;
		char *const marks = strstr(l, "#! ");
		if (marks != NULL)
			expected += take_expected(DATA "mistakes.yaml", line, marks + 3);
	}
	print_message("%zu mistakes\n", expected);
	assert_true(expected >= 60);
	assert_string_equal(report, "");
}

static void
reports_are_in_order_of_lines(void **state)
{
	unsigned long last = 0;
	(void)state;
	(void)load(DATA "mistakes.yaml", QG_E_PARSE);
	for (const char *l = report; *l != '\0'; l = strchr(l, '\n') + 1) {
		assert_memory_equal(l, DATA "mistakes.yaml:", strlen(DATA "mistakes.yaml:"));
		const unsigned long line = strtoul(l + strlen(DATA "mistakes.yaml:"), NULL, 10);
		assert_true(line >= last);
		last = line;
	}
}

/* Puts `with` where `what` stands in full.yaml. */
static void
changed(const char *what, const char *with, const char *why)
{
	static char text[FILE_ROOM], out[FILE_ROOM];
	(void)read_file(DATA "full.yaml", text, sizeof text);
	const char *const at = strstr(text, what);
	if (at == NULL)
		fail_msg("%s is not in full.yaml", what);
	const int n = snprintf(out, sizeof out, "%.*s%s%s", (int)(at - text), text, with, at + strlen(what));
	assert_true(n > 0 && (size_t)n < sizeof out);
	if (why != NULL) {
		refused(out, (size_t)n, why);
		return;
	}
	qg_config *c = load_bytes(out, (size_t)n, QG_OK);
	qg_config_free(&c);
}

static void
limits_are_sharp(void **state)
{
	(void)state;
	changed("segment_chunks: 19", "segment_chunks: 18", "streams[0].segment_chunks");
	changed("chunk_size: 4096", "chunk_size: 4097", "streams[0].chunk_size");
	changed("chunk_size: 4096", "chunk_size: 64", NULL); /* 2 + 1 reserved */
	changed("chunk_size: 4096", "chunk_size: 63", "streams[0].segment_chunks: 19 chunks of 63 bytes");
	changed("ready_chunks: 512", "ready_chunks: 511", "pool.ready_chunks: 511 is too few: give at least 512");
	changed("inbound_chunks: 256", "inbound_chunks: 255", "pool.inbound_chunks: 255 is too few");
	changed("min_bps: 2", "min_bps: 3", "streams[0].source.min_bps");
	changed("max_bps: 2", "max_bps: 0", NULL);
	changed("timeout_ms: 6", "timeout_ms: 0", "streams[0].source.timeout_ms: 0 makes every call fail");
	changed("default_key_bits: 32760", "default_key_bits: 32752", NULL);
	changed("min_key_bits: 8", "min_key_bits: 32768", "policy[0].min_key_bits");
	changed("max_key_bits: 32760", "max_key_bits: 32752", "policy[0].default_key_bits");
	changed("reserve_percent: 90", "reserve_percent: 00", "not a whole number");
	changed("lease_chunks: 64", "lease_chunks: +64", "not a whole number");
	changed("lease_chunks: 64", "lease_chunks: 4294967360", "out of range"); /* 64 in 32 bits */
	changed("epoch_age_s: 9", "epoch_age_s: 18446744073709551625", "out of range"); /* 9 in 64 bits */
}

static void
addresses_and_names(void **state)
{
	(void)state;
	changed("\"[::1]:9\"", "\"[::1]\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\"::1:9\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\"[10.0.0.1]:9\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\"a..b:9\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\"a b:9\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\":9\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\"a:09\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\"1.2.3:9\"", "streams[0].source.address");
	changed("\"[::1]:9\"", "\"1.2.3.4:9\"", NULL);
	changed("\"[::1]:9\"", "\"3com.example:9\"", NULL);
	changed("https://kme-b:8444", "https://user@kme-b:8444", "neighbours[0].url");
	changed("https://kme-b:8444", "https://kme-b", "neighbours[0].url");
	changed("https://kme-b:8444", "https://kme-b:8444/", "neighbours[0].url");
	changed("https://kme-b:8444", "https://[fe80::1]:8444", NULL);
	changed("credential:qkdgate.master", "\"credential:\"", "store.master_key");
	changed("credential:qkdgate.master", "credential:../master", "store.master_key");
	changed("\"0.0.0.0:444\"", "\"[2001:db8::1]:443\"", "is the address of sae_listener");
	changed("{cn: kme-c}", "{dns: kme-c, uri: \"urn:x\"}", "neighbours[1].certificate: has more");
	changed("id: KME-C", "id: KME-A", "neighbours[1].id: \"KME-A\" is this KME itself");
	changed("{sae: \"sae-2\", kme: KME-A}", "{sae: \"sae-2\", kme: KME-C}", "directory[0].sae");
	changed("{sae: \"sae-2\", kme: KME-A}", "{sae: \"sae-2*\", kme: KME-C}", NULL);
	changed("id: \"KME-A\"", "id: \"12345678901234567890123456789012345678901234567890123456789012345\"",
		"has 65 bytes: give 1 to 64");
}

/* A key in the wrong place must not come out in a report. */
static void
a_key_in_the_file_is_not_shown(void **state)
{
	(void)state;
	changed("credential:qkdgate.master",
		"c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00c0ffee00",
		"store.master_key: looks like the key itself");
	assert_null(strstr(report, "c0ffee"));
}

/* --- hostile files -------------------------------------------------------------- */

static void
empty_files(void **state)
{
	static const char *const empty[] = {"", "\n\n", "# only a comment\n", "---\n",
					    "---\n...\n", "{}\n", "kme:\n"};
	(void)state;
	for (size_t i = 0; i < sizeof empty / sizeof empty[0]; i++) {
		refused(empty[i], strlen(empty[i]), ": kme");
		assert_non_null(strstr(report, ": store: is missing"));
		assert_non_null(strstr(report, ": audit: is missing"));
		assert_null(strstr(report, "pool"));
	}
	refused("[]\n", 3, ":1: file: is a list");
	refused("kme\n", 4, ":1: file: \"kme\" is a single value");
}

static void
what_is_no_text(void **state)
{
	static char noise[4096];
	(void)state;
	srand(test_seed());
	for (size_t i = 0; i < sizeof noise; i++)
		noise[i] = (char)rand();
	(void)load_bytes(noise, sizeof noise, QG_E_PARSE);
	memset(noise, 0, sizeof noise);
	refused(noise, sizeof noise, ":1: syntax: ");
	refused("kme:\n  id: \xff\xfe\n", 13, ":2: syntax: ");
	refused("\xff\xfek\0m\0e\0", 8, "syntax");
	refused("kme:\n  id: a\x1b[31m\n", 18, ":2: syntax: ");
	refused("kme:\n\tid: a\n", 12, ":2: syntax: ");
	refused("kme: {id: a\n", 12, "syntax");
	refused("kme: \"id\n", 9, "syntax");
}

static void
nul_characters(void **state)
{
	(void)state;
	refused("kme:\n  id: a\0b\n", 15, ":2: syntax: ");
	changed("id: \"KME-A\"", "id: \"KME-A\\0x\"", ":3: kme.id: holds a NUL");
	changed("id: \"KME-A\"", "\"id\\0\": KME-A", ":3: syntax: an option name holds a NUL");
	changed("mimetype: \"\"", "mimetype: \"\\0\"", "mimetype: holds a NUL");
}

/* Escape sequences of the file do not reach the terminal. */
static void
reports_are_printable(void **state)
{
	(void)state;
	changed("id: \"KME-A\"", "id: \"\\e[31m\\x07\xc3\x84\"", "kme.id");
	changed("id: \"KME-A\"", "\"\\e[2J\": \"x\"", "kme");
	for (const char *p = report; *p != '\0'; p++)
		assert_true(*p == '\n' || (*p >= ' ' && *p <= '~'));
}

static char *
repeat(const char *what, size_t times, const char *end, size_t *len)
{
	const size_t n = strlen(what);
	char *text = malloc(n * times + strlen(end) + 1);
	assert_non_null(text);
	for (size_t i = 0; i < times; i++)
		memcpy(text + i * n, what, n);
	memcpy(text + n * times, end, strlen(end) + 1);
	*len = n * times + strlen(end);
	return text;
}

static void
refused_repeat(const char *what, size_t times, const char *end, const char *why)
{
	size_t len = 0;
	char *text = repeat(what, times, end, &len);
	refused(text, len, why);
	free(text);
}

static void
deep_nesting(void **state)
{
	(void)state;
	refused_repeat("[", 1000000, "", "nested more than");
	refused_repeat("{a: ", 100000, "", "nested more than");
	refused_repeat("- ", 100000, "x\n", "nested more than");
	refused_repeat("? ", 100000, "x\n", "nested more than");
	refused_repeat("[[[[[[[[[[[[]]]]]]]]]]]]", 1, "\n", ":1: file: is a list");
}

static void
alias_bomb(void **state)
{
	static const char bomb[] = "a: &a [x,x,x,x,x,x,x,x]\n"
				   "b: &b [*a,*a,*a,*a,*a,*a,*a,*a]\n"
				   "c: &c [*b,*b,*b,*b,*b,*b,*b,*b]\n"
				   "d: &d [*c,*c,*c,*c,*c,*c,*c,*c]\n";
	(void)state;
	refused(bomb, sizeof bomb - 1, ":2: b[7]: aliases (*) are not allowed");
	refused("a: &a [*a]\n", 11, "aliases");
	refused("kme: &k {id: A}\naudit: {<<: *k}\n", 32, ":2: audit.<<: aliases");
	refused("*a : 1\n", 7, "an option name must be a single word");
}

static void
large_files(void **state)
{
	(void)state;
	refused_repeat("# 3456789012345\n", QG_CFG_FILE_MAX / 16, "", ": kme: is missing");
	refused_repeat("# 3456789012345\n", QG_CFG_FILE_MAX / 16, "\n",
		       ":1: file: is too large: give at most 16777216");
	refused_repeat("a,", 4000000, "\n", "is a single value");
	refused_repeat("- a\n", 2400000, "\n", "file: has too many values");
	refused_repeat("zzzzzzzzzzzzzz: 1\n", 200000, "\n", "199005 further problems");
}

static void
special_files(void **state)
{
	char name[] = "/tmp/qkdgate-test-XXXXXX";
	(void)state;
	(void)load("/nonexistent/qkdgate.yaml", QG_E_IO);
	assert_string_equal(report, "/nonexistent/qkdgate.yaml:1: file: cannot be opened: "
				    "No such file or directory\n");
	(void)load("/tmp", QG_E_IO);
	assert_non_null(strstr(report, "is not a regular file"));
	(void)load("/dev/zero", QG_E_IO);
	write_temporary(name, "", 0);
	assert_int_equal(unlink(name), 0);
	assert_int_equal(mkfifo(name, 0600), 0);
	(void)load(name, QG_E_IO);
	assert_int_equal(unlink(name), 0);
}

static void
other_yaml(void **state)
{
	(void)state;
	refused("kme: {id: A}\n---\nkme: {id: B}\n", 30, "is a second document");
	refused("kme: !!python/object {id: A}\n", 29, ":1: kme: tags");
	refused("kme: {[a]: 3}\n", 14, ":1: syntax: an option name must be a single word");
	refused("kme: {id: A, id: B}\n", 20, "kme.id: is given twice, first in line 1");
	changed("{level: debug, format: json}", "", NULL); /* an empty section */
	changed("- {master: a, slaves: [b]}", "- {master: a, slaves: [b], }", NULL);
	changed("# Every", "%YAML 1.1\n---\n#", NULL);
}

static void
mutated_files(void **state)
{
	static char good[FILE_ROOM], text[FILE_ROOM];
	const size_t len = read_file(DATA "full.yaml", good, sizeof good);
	size_t loaded = 0;
	(void)state;
	srand(test_seed());
	for (int i = 0; i < 2000; i++) {
		qg_config *c = NULL;
		char name[] = "/tmp/qkdgate-test-XXXXXX";
		memcpy(text, good, len);
		for (int n = rand() % 4; n >= 0; n--)
			text[(size_t)rand() % len] = "\n :-{}[],\"'&*#a0\xff\0"[rand() % 18];
		write_temporary(name, text, len - (size_t)(rand() % 8 == 0 ? rand() % 500 : 0));
		FILE *f = open_report();
		const qg_err err = qg_config_load(name, f, &c);
		assert_int_equal(fclose(f), 0);
		assert_int_equal(unlink(name), 0);
		assert_true(err == QG_OK ? c != NULL : err == QG_E_PARSE && c == NULL);
		assert_int_equal(err == QG_OK, report[0] == '\0');
		assert_null(strstr(report, "passed every check"));
		loaded += err == QG_OK;
		qg_config_free(&c);
	}
	assert_true(loaded > 0 && loaded < 2000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_sample_file),
		cmocka_unit_test(every_default),
		cmocka_unit_test(every_option),
		cmocka_unit_test(names_from_the_folder_of_the_file),
		cmocka_unit_test(all_mistakes_in_one_go),
		cmocka_unit_test(reports_are_in_order_of_lines),
		cmocka_unit_test(limits_are_sharp),
		cmocka_unit_test(addresses_and_names),
		cmocka_unit_test(a_key_in_the_file_is_not_shown),
		cmocka_unit_test(empty_files),
		cmocka_unit_test(what_is_no_text),
		cmocka_unit_test(nul_characters),
		cmocka_unit_test(reports_are_printable),
		cmocka_unit_test(deep_nesting),
		cmocka_unit_test(alias_bomb),
		cmocka_unit_test(large_files),
		cmocka_unit_test(special_files),
		cmocka_unit_test(other_yaml),
		cmocka_unit_test(mutated_files),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
