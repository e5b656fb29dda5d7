/* SPDX-License-Identifier: Apache-2.0 */
/* Key streams of applications: the calls of ETSI GS QKD 004, clause 6. */
#include "app_rig.h"

static app_getting ga, gb;

static qg_uuid open_both(void)
{
	const qg_app_opened a = open_at(A, B, NULL);
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	return a.ksid;
}

/* --- who meets whom ------------------------------------------------------------------ */

static void test_case_1_undefined_ksid(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_at(A, B, NULL);
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(a.ksid.b[6] >> 4, 4);
	assert_int_equal(get_at(&ga, A, 0, &a.ksid, 0), QG_ETSI004_NO_PEER);
	const qg_etsi004_qos other = {.chunk_size = 100, .ttl_s = 7, .mimetype = ""};
	const qg_app_opened b = open_end(open_begin(B, 0, &a.ksid, uri(B, 0), uri(A, 0), &other));
	assert_int_equal(b.status, QG_ETSI004_SUCCESS);
	assert_int_equal(b.qos.chunk_size, 32);
	assert_int_equal(b.qos.ttl_s, a.qos.ttl_s);
	assert_string_equal(b.qos.mimetype, "application/json");
	compare(A, 0, B, 0, &a.ksid, 0, 500);
	assert_int_equal(close_at(A, 0, &a.ksid), QG_ETSI004_SUCCESS);
	assert_int_equal(close_at(B, 0, &a.ksid), QG_ETSI004_SUCCESS);
	assert_int_equal(get_at(&ga, A, 0, &a.ksid, 0), QG_ETSI004_NO_CONNECTION);
}

static void test_case_2_undefined_ksid_and_failed_get_key(void **state)
{
	(void)state;
	start_pair();
	const qg_etsi004_qos qos = {.chunk_size = 32, .timeout_ms = 700, .mimetype = ""};
	const qg_app_opened a = open_end(open_begin(A, 0, NULL, uri(A, 0), uri(B, 0), &qos));
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &a.ksid, 0, 3);
	net_down(n, A, B, true);
	const uint32_t beyond = 4000;
	get_begin(&ga, A, 0, &a.ksid, beyond, 0);
	assert_int_equal(get_at(&gb, B, 0, &a.ksid, beyond), QG_ETSI004_TIMEOUT);
	assert_int_equal(get_end(&ga), QG_ETSI004_TIMEOUT);
	net_down(n, A, B, false);
	compare(A, 0, B, 0, &a.ksid, 3, 3);
}

static void test_case_3_predefined_ksid(void **state)
{
	(void)state;
	start_pair();
	for (unsigned first = 0; first < 2; first++) {
		qg_uuid ksid;
		qg_uuid_random(&ksid);
		ksid.b[6] = 0x11; /* no version 4: agreed is agreed */
		app_opening *one = open_begin(first, 0, &ksid, uri(first, 0), uri(1 - first, 0), NULL);
		pair_nap(100);
		assert_false(open_told(one));
		const qg_app_opened two = open_at(1 - first, first, &ksid);
		assert_int_equal(two.status, QG_ETSI004_SUCCESS);
		assert_int_equal(open_end(one).status, QG_ETSI004_SUCCESS);
		compare(A, 0, B, 0, &ksid, 0, 100);
		assert_int_equal(close_at(A, 0, &ksid), QG_ETSI004_SUCCESS);
		assert_int_equal(close_at(B, 0, &ksid), QG_ETSI004_SUCCESS);
	}
}

static void test_case_4_predefined_ksid_and_failed_get_key(void **state)
{
	(void)state;
	start_pair();
	const qg_etsi004_qos qos = {.chunk_size = 32, .timeout_ms = 700, .mimetype = ""};
	qg_uuid ksid;
	uint32_t opened = QG_ETSI004_TIMEOUT, joined = opened;
	for (int i = 0; i < 10 && opened == QG_ETSI004_TIMEOUT; i++) { /* until the other end comes in that time */
		qg_uuid_random(&ksid);
		app_opening *one = open_begin(A, 0, &ksid, uri(A, 0), uri(B, 0), &qos);
		joined = open_at(B, A, &ksid).status;
		opened = open_end(one).status;
	}
	assert_int_equal(opened, QG_ETSI004_SUCCESS);
	assert_int_equal(joined, QG_ETSI004_SUCCESS);
	net_down(n, A, B, true);
	get_begin(&ga, A, 0, &ksid, 4000, 0);
	assert_int_equal(get_at(&gb, B, 0, &ksid, 4000), QG_ETSI004_TIMEOUT);
	assert_int_equal(get_end(&ga), QG_ETSI004_TIMEOUT);
	net_down(n, A, B, false);
}

static void test_case_5_application_discovery_in_a_qkd_network(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 3);
	net_plan_both(&pl, A, C);
	plan_apps(&pl);
	run_apps();
	assert_true(net_wait_ready(n, A, C, 64));
	const qg_app_opened a = open_at(A, C, NULL);
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_at(C, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, C, 0, &a.ksid, 0, 200);
	assert_int_equal(get_at(&ga, C, 0, &a.ksid, 7), QG_ETSI004_SUCCESS);
	assert_non_null(strstr(ga.got.metadata, "\"hops\": 1"));
	/* The node in between has no part in it. */
	assert_int_equal(get_at(&gb, B, 0, &a.ksid, 7), QG_ETSI004_NO_CONNECTION);
	assert_false(node_on_disk(&n->node[B], ga.key, 32));
}

static void test_a_pair_on_one_node(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_end(open_begin(A, 0, NULL, uri(A, 0), uri(A, 1), NULL));
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(get_at(&ga, A, 0, &a.ksid, 0), QG_ETSI004_NO_PEER);
	const qg_app_opened b = open_end(open_begin(A, 1, NULL, uri(A, 1), uri(A, 0), NULL));
	assert_int_equal(b.status, QG_ETSI004_SUCCESS);
	assert_true(qg_uuid_equal(&a.ksid, &b.ksid));
	compare(A, 0, A, 1, &a.ksid, 0, 1000);
	assert_int_equal(close_at(A, 1, &a.ksid), QG_ETSI004_SUCCESS);
	assert_int_equal(get_at(&ga, A, 1, &a.ksid, 5), QG_ETSI004_NO_CONNECTION);
	assert_int_equal(get_at(&ga, A, 0, &a.ksid, 5), QG_ETSI004_SUCCESS);
	assert_int_equal(close_at(A, 0, &a.ksid), QG_ETSI004_SUCCESS);
	assert_int_equal(qg_app_streams_count(apps(A)), 0);
}

/* Some applications name source and destination alike at both ends. */
static void test_a_waiting_pair_is_met_without_a_ksid(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_at(A, B, NULL);
	const qg_app_opened b = open_end(open_begin(B, 0, NULL, uri(A, 0), uri(B, 0), NULL));
	assert_int_equal(b.status, QG_ETSI004_SUCCESS);
	assert_true(qg_uuid_equal(&a.ksid, &b.ksid));
	compare(A, 0, B, 0, &a.ksid, 0, 10);
	/* The next one is another stream; the one before is complete. */
	const qg_app_opened c = open_at(B, A, NULL);
	assert_false(qg_uuid_equal(&a.ksid, &c.ksid));
	const qg_app_opened d = open_at(A, B, NULL);
	assert_true(qg_uuid_equal(&c.ksid, &d.ksid));
	compare(A, 0, B, 0, &c.ksid, 0, 10);
	/* The same application again, without a peer that waits: a stream of its own. */
	const qg_app_opened e = open_at(A, B, NULL), f = open_at(A, B, NULL);
	assert_false(qg_uuid_equal(&e.ksid, &f.ksid));
}

static void test_both_at_once_meet(void **state)
{
	(void)state;
	start_pair();
	for (unsigned i = 0; i < 20; i++) {
		for (unsigned k = 0; k < 2; k++)
			atomic_store(&net_fault_of(n, k, 1 - k, QG_KMS_NEW_APP_STREAM)->jitter_ms, i);
		app_opening *one = open_begin(A, 0, NULL, uri(A, 0), uri(B, 0), NULL);
		app_opening *two = open_begin(B, 0, NULL, uri(B, 0), uri(A, 0), NULL);
		const qg_app_opened a = open_end(one), b = open_end(two);
		assert_int_equal(a.status, QG_ETSI004_SUCCESS);
		assert_int_equal(b.status, QG_ETSI004_SUCCESS);
		assert_true(qg_uuid_equal(&a.ksid, &b.ksid));
		compare(A, 0, B, 0, &a.ksid, 0, 3);
		close_at(A, 0, &a.ksid);
		close_at(B, 0, &a.ksid);
		qg_uuid ksid;
		qg_uuid_random(&ksid);
		one = open_begin(A, 0, &ksid, uri(A, 0), uri(B, 0), NULL);
		two = open_begin(B, 0, &ksid, uri(B, 0), uri(A, 0), NULL);
		assert_int_equal(open_end(one).status, QG_ETSI004_SUCCESS);
		assert_int_equal(open_end(two).status, QG_ETSI004_SUCCESS);
		compare(A, 0, B, 0, &ksid, 0, 3);
	}
}

static void test_a_predefined_ksid_times_out_and_is_free_again(void **state)
{
	(void)state;
	start_pair();
	const qg_etsi004_qos qos = {.timeout_ms = 400, .mimetype = ""};
	qg_uuid ksid;
	qg_uuid_random(&ksid);
	const uint64_t start_ms = qg_clock_elapsed_ms();
	assert_int_equal(open_end(open_begin(A, 0, &ksid, uri(A, 0), uri(B, 0), &qos)).status, QG_ETSI004_TIMEOUT);
	assert_true(qg_clock_elapsed_ms() - start_ms >= 400);
	assert_int_equal(qg_app_streams_count(apps(A)), 0);
	app_opening *one = open_begin(B, 0, &ksid, uri(B, 0), uri(A, 0), NULL);
	assert_int_equal(open_at(A, B, &ksid).status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_end(one).status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &ksid, 0, 3);
	/* Its own again, after a lost connection. */
	assert_int_equal(open_at(A, B, &ksid).status, QG_ETSI004_SUCCESS);
	const qg_app_opened alone = open_at(A, B, NULL);
	assert_int_equal(open_at(A, B, &alone.ksid).status, QG_ETSI004_PEER_NOT_CONNECTED);
}

/* --- who may not ------------------------------------------------------------------------ */

static void test_a_third_application_gets_status_5(void **state)
{
	(void)state;
	start_pair();
	const qg_uuid ksid = open_both();
	const qg_app_opened waiting = open_at(A, B, NULL);
	const qg_uuid *const both[] = {&ksid, &waiting.ksid};
	for (size_t i = 0; i < 2; i++) {
		/* On either node, with its own URI or another's. */
		assert_int_equal(open_end(open_begin(A, 1, both[i], uri(A, 1), uri(B, 0), NULL)).status,
				 QG_ETSI004_IN_USE);
		assert_int_equal(open_end(open_begin(B, 1, both[i], uri(B, 1), uri(A, 0), NULL)).status,
				 QG_ETSI004_IN_USE);
		assert_int_equal(open_end(open_begin(B, 1, both[i], uri(B, 0), uri(A, 0), NULL)).status,
				 QG_ETSI004_IN_USE);
		assert_int_equal(get_at(&ga, A, 1, both[i], 0), QG_ETSI004_IN_USE);
		assert_int_equal(get_at(&ga, B, 1, both[i], 0), QG_ETSI004_IN_USE);
		assert_int_equal(close_at(A, 1, both[i]), QG_ETSI004_IN_USE);
		assert_int_equal(close_at(B, 1, both[i]), QG_ETSI004_IN_USE);
	}
	compare(A, 0, B, 0, &ksid, 0, 10);
	qg_uuid guess;
	qg_uuid_random(&guess);
	assert_int_equal(get_at(&ga, A, 0, &guess, 0), QG_ETSI004_NO_CONNECTION);
	assert_int_equal(close_at(A, 0, &guess), QG_ETSI004_NO_CONNECTION);
}

static void test_strange_names_get_status_4(void **state)
{
	(void)state;
	start_pair();
	char longer[400];
	memset(longer, 'x', sizeof longer - 1);
	longer[sizeof longer - 1] = '\0';
	const char *const bad[][2] = {
		{uri(B, 0), uri(B, 1)}, {uri(A, 1), uri(B, 0)}, {uri(A, 0), "qkd://b@KME-Q"}, {uri(A, 0), "qkd://nobody"},
		{uri(A, 0), ""}, {uri(A, 0), uri(A, 0)}, {uri(A, 0), longer}, {uri(A, 0), "qkd://b b@KME-B"},
		{uri(A, 0), "qkd://stranger@KME-B"}, {"", ""}, {uri(A, 0), "qkd://b@KME-B\x01"},
	};
	for (size_t i = 0; i < COUNT(bad); i++)
		assert_int_equal(open_end(open_begin(A, 0, NULL, bad[i][0], bad[i][1], NULL)).status,
				 QG_ETSI004_NO_CONNECTION);
	assert_int_equal(qg_app_streams_count(apps(A)) + qg_app_streams_count(apps(B)), 0);
}

static void test_a_flood_of_opens_is_limited(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 2);
	plan_apps(&pl);
	n->node[A].cfg.app_streams.opens_per_s = 2; /* 20 at once */
	n->node[B].cfg.app_streams.per_sae = 8;
	run_apps();
	unsigned worked = 0;
	for (unsigned i = 0; i < 40; i++)
		worked += open_at(A, B, NULL).status == QG_ETSI004_SUCCESS;
	assert_int_equal(worked, 8);
	assert_int_equal(open_end(open_begin(A, 1, NULL, uri(A, 1), uri(A, 0), NULL)).status, QG_ETSI004_SUCCESS);
	assert_int_equal(qg_app_streams_count(apps(B)), 8);
	/* The audit log tells of it; on a slow machine not all of the first ones were too many. */
	static const char said[] = "rate limit exceeded: ";
	bool told = false;
	for (unsigned i = 0; i < 400 && !told; i++) {
		(void)open_at(A, B, NULL);
		qg_audit_tell_limited(n->node[A].audit, true);
		assert_int_equal(qg_audit_sync(n->node[A].audit), QG_OK);
		told = folder_holds(n->dir, said, sizeof said - 1);
	}
	assert_true(told);
}

/* --- quality of service -------------------------------------------------------------------- */

static qg_app_opened open_qos(qg_etsi004_qos qos)
{
	if (qos.mimetype == NULL)
		qos.mimetype = "";
	return open_end(open_begin(A, 0, NULL, uri(A, 0), uri(B, 0), &qos));
}

static void test_qos_is_negotiated(void **state)
{
	(void)state;
	start_pair();
	qg_app_opened a = open_qos((qg_etsi004_qos){0});
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(a.qos.chunk_size, 32);
	assert_int_equal(a.qos.max_bps, 100000000);
	assert_int_equal(a.qos.min_bps, 0);
	assert_int_equal(a.qos.ttl_s, 600);
	assert_int_equal(a.qos.timeout_ms, 30000);
	assert_string_equal(a.qos.mimetype, "");
	a = open_qos((qg_etsi004_qos){.max_bps = UINT32_MAX, .ttl_s = UINT32_MAX, .timeout_ms = UINT32_MAX, .priority = 9,
				      .jitter_bps = 77});
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(a.qos.max_bps, 100000000);
	assert_int_equal(a.qos.ttl_s, 3600);
	assert_int_equal(a.qos.timeout_ms, 60000);
	assert_int_equal(a.qos.priority, 9);
	assert_int_equal(a.qos.jitter_bps, 77);
	/* A size that no key of the link has. */
	a = open_qos((qg_etsi004_qos){.chunk_size = 4000});
	assert_int_equal(a.status, QG_ETSI004_QOS);
	assert_true(qg_uuid_is_null(&a.ksid));
	assert_int_equal(a.qos.chunk_size, PAIR_SEGMENT * PAIR_CHUNK / 2);
	a = open_qos((qg_etsi004_qos){.chunk_size = a.qos.chunk_size});
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	a = open_qos((qg_etsi004_qos){.mimetype = "text/xml"});
	assert_int_equal(a.status, QG_ETSI004_QOS);
	assert_string_equal(a.qos.mimetype, "application/json");
	assert_true(qg_uuid_is_null(&a.ksid));
}

/* What is promised to one is not promised to another. */
static void test_a_lowest_rate_is_promised_only_if_it_can_be_kept(void **state)
{
	(void)state;
	start_pair();
	qg_app_opened a = open_qos((qg_etsi004_qos){.min_bps = 70000});
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	qg_app_opened b = open_qos((qg_etsi004_qos){.min_bps = 70000});
	assert_int_equal(b.status, QG_ETSI004_QOS);
	assert_int_equal(b.qos.min_bps, 30000);
	assert_int_equal(open_qos(b.qos).status, QG_ETSI004_SUCCESS);
	b = open_qos((qg_etsi004_qos){.min_bps = 1});
	assert_int_equal(b.status, QG_ETSI004_QOS);
	assert_int_equal(b.qos.min_bps, 0);
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	close_at(A, 0, &a.ksid);
	close_at(B, 0, &a.ksid);
	for (unsigned i = 0; i < 3000 && b.status != QG_ETSI004_SUCCESS; i++) {
		pair_nap(10);
		b = open_qos((qg_etsi004_qos){.min_bps = 70000});
	}
	assert_int_equal(b.status, QG_ETSI004_SUCCESS);
}

/* 12,800 bit/s are 50 chunks of 32 bytes a second; the first second's are there at once. */
static void test_the_highest_rate_is_kept(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_qos((qg_etsi004_qos){.chunk_size = 32, .max_bps = 12800});
	const uint64_t start_ms = qg_clock_elapsed_ms();
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &a.ksid, 0, 120);
	assert_true(qg_clock_elapsed_ms() - start_ms >= 1300);
}

static void test_a_dry_pool_is_status_2(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 2);
	plan_apps(&pl);
	net_dry(n, A, B, true);
	run_apps();
	const qg_app_opened a = open_qos((qg_etsi004_qos){.chunk_size = 32, .timeout_ms = 500});
	assert_int_equal(a.status, QG_ETSI004_SUCCESS);
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	assert_int_equal(get_at(&ga, A, 0, &a.ksid, 0), QG_ETSI004_NO_KEY);
	net_dry(n, A, B, false);
	assert_true(net_wait_ready(n, A, B, 64));
	for (unsigned i = 0; i < 3000 && get_at(&ga, A, 0, &a.ksid, 0) != QG_ETSI004_SUCCESS; i++)
		pair_nap(10);
	compare(A, 0, B, 0, &a.ksid, 0, 20);
}

/* Of two that wait for an empty pool the one of higher priority has key first. */
static void test_priority_rules_while_the_pool_is_empty(void **state)
{
	(void)state;
	net_plan pl;
	net_plan_line(&pl, 2);
	plan_apps(&pl);
	net_dry(n, A, B, true);
	run_apps();
	const qg_app_opened low = open_qos((qg_etsi004_qos){.chunk_size = 32, .priority = 1});
	assert_int_equal(open_at(B, A, &low.ksid).status, QG_ETSI004_SUCCESS);
	const qg_app_opened high = open_qos((qg_etsi004_qos){.chunk_size = 32, .priority = 2});
	assert_int_equal(open_at(B, A, &high.ksid).status, QG_ETSI004_SUCCESS);
	get_begin(&ga, A, 0, &low.ksid, 0, 0);
	get_begin(&gb, A, 0, &high.ksid, 0, 0);
	pair_nap(300);
	net_rate(n, A, B, 60);
	net_dry(n, A, B, false);
	assert_int_equal(get_end(&gb), QG_ETSI004_SUCCESS);
	assert_int_equal(get_end(&ga), QG_ETSI004_SUCCESS);
	const long first = net_find(n, A, B, QG_KMS_NEW_APP_KEYS, 0);
	net_record r;
	char text[QG_UUID_TEXT];
	assert_true(first >= 0 && net_record_get(n, (size_t)first, &r));
	qg_uuid_format(&high.ksid, text);
	assert_non_null(memmem(r.body, r.len, text, sizeof text - 1));
	net_record_free(&r);
}

/* --- GET_KEY ----------------------------------------------------------------------------------- */

static void test_get_key_by_index_may_be_repeated(void **state)
{
	(void)state;
	start_pair();
	const qg_uuid ksid = open_both();
	static uint8_t first[32];
	assert_int_equal(get_at(&ga, A, 0, &ksid, 200), QG_ETSI004_SUCCESS);
	memcpy(first, ga.key, 32);
	compare(A, 0, B, 0, &ksid, 0, 201);
	assert_int_equal(get_at(&ga, A, 0, &ksid, 200), QG_ETSI004_SUCCESS);
	assert_memory_equal(first, ga.key, 32);
	assert_int_equal(get_at(&gb, B, 0, &ksid, 200), QG_ETSI004_SUCCESS);
	assert_memory_equal(first, gb.key, 32);
	/* Too far ahead of what there is. */
	assert_int_equal(get_at(&ga, A, 0, &ksid, 1000000), QG_ETSI004_NO_KEY);
	assert_int_equal(get_at(&gb, B, 0, &ksid, UINT32_MAX), QG_ETSI004_NO_KEY);
	assert_false(net_on_disk(n, first, 32));
}

static void test_metadata_has_age_and_hops(void **state)
{
	(void)state;
	start_pair();
	const qg_uuid ksid = open_both();
	assert_int_equal(get_at(&ga, A, 0, &ksid, 0), QG_ETSI004_SUCCESS);
	unsigned age = 0, hops = 9;
	assert_int_equal(sscanf(ga.got.metadata, "{\"age\": %u, \"hops\": %u}", &age, &hops), 2);
	assert_int_equal(hops, 0);
	assert_true(age < 60000);
	atomic_fetch_add(&pair_ahead_ms, 5000);
	assert_int_equal(get_at(&gb, B, 0, &ksid, 0), QG_ETSI004_SUCCESS);
	assert_int_equal(sscanf(gb.got.metadata, "{\"age\": %u, \"hops\": %u}", &age, &hops), 2);
	assert_true(age >= 5000 && age < 65000);
	get_begin(&ga, A, 0, &ksid, 0, 5);
	assert_int_equal(get_end(&ga), QG_ETSI004_METADATA_SIZE);
	assert_int_equal(ga.key_len, 0);
	assert_true(ga.got.metadata_needed > 5);
	get_begin(&ga, A, 0, &ksid, 0, ga.got.metadata_needed);
	assert_int_equal(get_end(&ga), QG_ETSI004_SUCCESS);
	get_begin(&ga, A, 0, &ksid, 0, 0);
	assert_int_equal(get_end(&ga), QG_ETSI004_SUCCESS);
	assert_int_equal(ga.got.metadata_len, 0);
	const qg_app_opened plain = open_qos((qg_etsi004_qos){.chunk_size = 16});
	assert_int_equal(open_at(B, A, &plain.ksid).status, QG_ETSI004_SUCCESS);
	assert_int_equal(get_at(&ga, A, 0, &plain.ksid, 0), QG_ETSI004_SUCCESS);
	assert_int_equal(ga.got.metadata_len, 0);
	assert_int_equal(ga.key_len, 16);
}

static void test_sizes_do_not_depend_on_the_link(void **state)
{
	(void)state;
	start_pair();
	static const uint32_t sizes[] = {1, 7, 31, 33, 100, 999, 1024};
	for (size_t i = 0; i < COUNT(sizes); i++) {
		const qg_app_opened a = open_qos((qg_etsi004_qos){.chunk_size = sizes[i]});
		assert_int_equal(a.status, QG_ETSI004_SUCCESS);
		assert_int_equal(a.qos.chunk_size, sizes[i]);
		assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
		compare(A, 0, B, 0, &a.ksid, 0, 20);
		assert_int_equal(get_at(&ga, A, 0, &a.ksid, 3), QG_ETSI004_SUCCESS);
		assert_int_equal(ga.key_len, sizes[i]);
		close_at(A, 0, &a.ksid);
		close_at(B, 0, &a.ksid);
	}
}

static void test_in_sequence_none_comes_twice_over_crashes(void **state)
{
	(void)state;
	start_pair();
	const qg_uuid ksid = open_both();
	static uint8_t seen[60][32];
	for (uint32_t i = 0; i < 60; i++) {
		if (i % 20 == 19) {
			node_crash(&n->node[A]);
			node_start(&n->node[A]);
		}
		assert_int_equal(get_at(&ga, A, 0, &ksid, -1), QG_ETSI004_SUCCESS);
		assert_int_equal(ga.got.index, i);
		memcpy(seen[i], ga.key, 32);
		for (uint32_t k = 0; k < i; k++)
			assert_memory_not_equal(seen[k], seen[i], 32);
	}
	for (uint32_t i = 0; i < 60; i++) {
		assert_int_equal(get_at(&gb, B, 0, &ksid, i), QG_ETSI004_SUCCESS);
		assert_memory_equal(seen[i], gb.key, 32);
	}
}

static void test_ttl_erases(void **state)
{
	(void)state;
	start_pair();
	const qg_app_opened a = open_qos((qg_etsi004_qos){.chunk_size = 32, .ttl_s = 30});
	assert_int_equal(open_at(B, A, &a.ksid).status, QG_ETSI004_SUCCESS);
	compare(A, 0, B, 0, &a.ksid, 0, 10);
	atomic_fetch_add(&pair_ahead_ms, 31000);
	for (unsigned i = 0; i < 3000 && get_at(&ga, A, 0, &a.ksid, 3) != QG_ETSI004_NO_KEY; i++)
		pair_nap(10);
	assert_int_equal(get_at(&ga, A, 0, &a.ksid, 3), QG_ETSI004_NO_KEY);
	for (unsigned i = 0; i < 3000 && get_at(&gb, B, 0, &a.ksid, 3) != QG_ETSI004_NO_KEY; i++)
		pair_nap(10);
	assert_int_equal(get_at(&gb, B, 0, &a.ksid, 3), QG_ETSI004_NO_KEY);
}

/* --- CLOSE ---------------------------------------------------------------------------------------- */

static void test_close_leaves_the_far_end_its_keys(void **state)
{
	(void)state;
	start_pair();
	for (unsigned first = 0; first < 2; first++) {
		const qg_uuid ksid = open_both();
		compare(A, 0, B, 0, &ksid, 0, 20);
		const unsigned other = 1 - first;
		assert_int_equal(close_at(first, 1, &ksid), QG_ETSI004_IN_USE); /* another's */
		assert_int_equal(close_at(first, 0, &ksid), QG_ETSI004_SUCCESS);
		assert_int_equal(close_at(first, 0, &ksid), QG_ETSI004_NO_CONNECTION); /* once */
		pair_nap(150);
		assert_int_equal(get_at(&ga, other, 0, &ksid, 19), QG_ETSI004_SUCCESS);
		/* No more is allocated. */
		assert_int_equal(get_at(&ga, other, 0, &ksid, 3000), QG_ETSI004_NO_KEY);
		assert_int_equal(get_at(&ga, first, 0, &ksid, 19), QG_ETSI004_NO_CONNECTION);
		/* It does not come back to life. */
		const uint32_t again = open_at(first, other, &ksid).status;
		assert_true(again == QG_ETSI004_IN_USE || again == QG_ETSI004_NO_CONNECTION);
		node_crash(&n->node[other]);
		node_start(&n->node[other]);
		assert_int_equal(get_at(&ga, other, 0, &ksid, 19), QG_ETSI004_SUCCESS);
		assert_int_equal(close_at(other, 0, &ksid), QG_ETSI004_SUCCESS);
		assert_int_equal(get_at(&ga, other, 0, &ksid, 19), QG_ETSI004_NO_CONNECTION);
	}
}

static bool all_gone(core_net *net, void *ctx)
{
	(void)net, (void)ctx;
	return qg_app_streams_count(apps(A)) == 0 && qg_app_streams_count(apps(B)) == 0;
}

static void test_an_end_that_never_closes_goes_with_the_ttl(void **state)
{
	(void)state;
	start_pair();
	const qg_uuid ksid = open_both();
	compare(A, 0, B, 0, &ksid, 0, 5);
	assert_int_equal(close_at(A, 0, &ksid), QG_ETSI004_SUCCESS);
	pair_nap(100);
	assert_int_equal(get_at(&gb, B, 0, &ksid, 4), QG_ETSI004_SUCCESS);
	atomic_fetch_add(&pair_ahead_ms, 601000);
	assert_true(net_wait(n, all_gone, NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_case_1_undefined_ksid),
		TEST(test_case_2_undefined_ksid_and_failed_get_key),
		TEST(test_case_3_predefined_ksid),
		TEST(test_case_4_predefined_ksid_and_failed_get_key),
		TEST(test_case_5_application_discovery_in_a_qkd_network),
		TEST(test_a_pair_on_one_node),
		TEST(test_a_waiting_pair_is_met_without_a_ksid),
		TEST(test_both_at_once_meet),
		TEST(test_a_predefined_ksid_times_out_and_is_free_again),
		TEST(test_a_third_application_gets_status_5),
		TEST(test_strange_names_get_status_4),
		TEST(test_a_flood_of_opens_is_limited),
		TEST(test_qos_is_negotiated),
		TEST(test_a_lowest_rate_is_promised_only_if_it_can_be_kept),
		TEST(test_the_highest_rate_is_kept),
		TEST(test_a_dry_pool_is_status_2),
		TEST(test_priority_rules_while_the_pool_is_empty),
		TEST(test_get_key_by_index_may_be_repeated),
		TEST(test_metadata_has_age_and_hops),
		TEST(test_sizes_do_not_depend_on_the_link),
		TEST(test_in_sequence_none_comes_twice_over_crashes),
		TEST(test_ttl_erases),
		TEST(test_close_leaves_the_far_end_its_keys),
		TEST(test_an_end_that_never_closes_goes_with_the_ttl),
	};
	if (pair_init() != 0)
		return 1;
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
