/* SPDX-License-Identifier: Apache-2.0 */
/* SOUNDNESS 17: what is learned of links changes what routes cost, never which
 * links there are. */
#include "routes_net.h"

#include <pthread.h>

/* --- penalties --------------------------------------------------------------------------- */

/* 0-1-3 costs less than 0-2-3. */
static net *
two_ways(void)
{
	net *t = net_new(4);
	net_link(t, 0, 1, 1);
	net_link(t, 1, 3, 1);
	net_link(t, 0, 2, 10);
	net_link(t, 2, 3, 10);
	net_run(t);
	return t;
}

static void
penalties_end_double_and_are_reset(void **state)
{
	(void)state;
	net *t = two_ways();
	uint64_t now_ms = 5000, length_ms = PENALTY_MS;
	for (int i = 0; i < 8; i++) {
		qg_routes_fault(t->r, t->name[1], t->name[3], QG_ROUTE_DOWN, now_ms);
		/* What else was on its way fails too: no further penalty. */
		qg_routes_fault(t->r, t->name[1], t->name[3], QG_ROUTE_DOWN, now_ms + length_ms / 2);
		qg_routes_fault(t->r, t->name[3], t->name[1], QG_ROUTE_DOWN, now_ms + length_ms / 2);
		assert_string_equal(found(t, 2, now_ms), "0-2-3");
		assert_string_equal(found(t, 2, now_ms + length_ms - 1), "0-2-3");
		assert_string_equal(found(t, 2, now_ms + length_ms), "0-1-3 0-2-3");
		now_ms += length_ms;
		if (length_ms < 16 * PENALTY_MS)
			length_ms *= 2;
	}
	qg_route route[1];
	assert_int_equal(find(t, 1, now_ms, route), 1);
	qg_routes_worked(t->r, &route[0]);
	qg_routes_fault(t->r, t->name[1], t->name[3], QG_ROUTE_DOWN, now_ms);
	assert_string_equal(found(t, 1, now_ms + PENALTY_MS - 1), "0-2-3");
	assert_string_equal(found(t, 1, now_ms + PENALTY_MS), "0-1-3");
	/* Quiet for long: the next fault is a first one again. */
	now_ms += 100 * PENALTY_MS;
	qg_routes_fault(t->r, t->name[1], t->name[3], QG_ROUTE_DOWN, now_ms);
	assert_string_equal(found(t, 1, now_ms + PENALTY_MS), "0-1-3");
	net_stop(t);
}

static void
starving_links_are_the_last_resort(void **state)
{
	(void)state;
	for (int fault = QG_ROUTE_STARVING; fault <= QG_ROUTE_BUSY; fault++) {
		net *t = two_ways();
		qg_routes_fault(t->r, t->name[0], t->name[1], (qg_route_fault)fault, 0);
		assert_string_equal(found(t, 1, 0), "0-2-3");
		assert_string_equal(found(t, 2, 0), "0-2-3 0-1-3");
		assert_false(qg_routes_is_down(t->r, t->name[0], t->name[1], 0));
		qg_routes_fault(t->r, t->name[2], t->name[3], QG_ROUTE_DOWN, 0);
		assert_string_equal(found(t, 2, 0), "0-1-3");
		assert_string_equal(found(t, 1, PENALTY_MS), "0-1-3");
		net_stop(t);
		/* The other direction has key of its own. */
		t = two_ways();
		qg_routes_fault(t->r, t->name[1], t->name[0], (qg_route_fault)fault, 0);
		assert_string_equal(found(t, 1, 0), "0-1-3");
		net_stop(t);
	}
}

/* Down outweighs starving, whichever came first. */
static void
down_outweighs_starving(void **state)
{
	(void)state;
	net *t = two_ways();
	qg_routes_fault(t->r, t->name[0], t->name[1], QG_ROUTE_STARVING, 0);
	qg_routes_fault(t->r, t->name[0], t->name[1], QG_ROUTE_DOWN, 1000);
	assert_true(qg_routes_is_down(t->r, t->name[0], t->name[1], 1000));
	assert_true(qg_routes_is_down(t->r, t->name[1], t->name[0], 1000));
	qg_routes_fault(t->r, t->name[0], t->name[1], QG_ROUTE_BUSY, 2000);
	assert_string_equal(found(t, 2, 1000 + PENALTY_MS - 1), "0-2-3");
	assert_string_equal(found(t, 2, 1000 + PENALTY_MS), "0-1-3 0-2-3");
	assert_false(qg_routes_is_down(t->r, t->name[0], t->name[1], 1000 + PENALTY_MS));
	net_stop(t);
}

static void
soundness_17_wrong_answers_isolate(void **state)
{
	(void)state;
	net *t = two_ways();
	qg_route route[2];
	assert_int_equal(find(t, 2, 0, route), 2);
	qg_routes_suspect(t->r, &route[0], 0);
	assert_string_equal(found(t, 2, 0), "0-2-3");
	/* Something that gets through over it proves nothing. */
	qg_routes_worked(t->r, &route[0]);
	assert_string_equal(found(t, 2, 16 * PENALTY_MS - 1), "0-2-3");
	assert_true(qg_routes_is_down(t->r, t->name[1], t->name[3], 16 * PENALTY_MS - 1));
	/* Again while it runs: from then on. */
	qg_routes_fault(t->r, t->name[3], t->name[1], QG_ROUTE_WRONG, 16 * PENALTY_MS - 1);
	assert_string_equal(found(t, 2, 32 * PENALTY_MS - 2), "0-2-3");
	assert_string_equal(found(t, 2, 32 * PENALTY_MS - 1), "0-1-3 0-2-3");
	net_stop(t);
}

/* Names come from answers of other nodes. */
static void
soundness_17_faults_name_known_links_only(void **state)
{
	(void)state;
	net *t = two_ways();
	qg_routes_fault(t->r, t->name[0], t->name[3], QG_ROUTE_WRONG, 0);
	qg_routes_fault(t->r, t->name[1], t->name[1], QG_ROUTE_WRONG, 0);
	qg_routes_fault(t->r, "nobody", t->name[1], QG_ROUTE_DOWN, 0);
	qg_routes_fault(t->r, t->name[1], "", QG_ROUTE_DOWN, 0);
	assert_string_equal(found(t, 2, 0), "0-1-3 0-2-3");
	assert_false(qg_routes_is_down(t->r, "nobody", "", 0));
	qg_route unknown = {.n = 3, .node = {t->name[0], "nobody", t->name[3]}};
	qg_routes_suspect(t->r, &unknown, 0);
	qg_routes_worked(t->r, &unknown);
	assert_string_equal(found(t, 2, 0), "0-1-3 0-2-3");
	net_stop(t);
}

/* --- reports ------------------------------------------------------------------------------ */

static qg_kms_report the_report;

/* What `origin` says of its link to `peer`. */
static bool
tell(net *t, const char *origin, uint64_t sequence, const char *peer, qg_kms_link_state state, uint64_t bytes,
     uint64_t now_ms)
{
	qg_kms_report *m = &the_report;
	memset(m, 0, sizeof *m);
	snprintf(m->origin, sizeof m->origin, "%s", origin);
	snprintf(m->link[0].peer, sizeof m->link[0].peer, "%s", peer);
	m->sequence = sequence;
	m->n = 1;
	m->link[0].state = state;
	m->link[0].bytes = bytes;
	return qg_routes_report(t->r, m, now_ms);
}

static void
reports_change_costs(void **state)
{
	(void)state;
	net *t = two_ways();
	const char *n1 = t->name[1], *n3 = t->name[3];
	static const struct { uint64_t bytes, cost; } steps[] = {
		{PLENTY, 2}, {65536, 2}, {65535, 3}, {32767, 5}, {16384, 5}, {16383, 9}, {0, 9}};
	qg_route route[2];
	assert_int_equal(find(t, 1, 0, route), 1);
	assert_int_equal(route[0].bytes, UINT64_MAX);
	uint64_t sequence = 0;
	for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
		assert_true(tell(t, n1, ++sequence, n3, QG_KMS_LINK_UP, steps[i].bytes, 0));
		assert_int_equal(find(t, 1, 0, route), 1);
		assert_int_equal(route[0].cost, steps[i].cost);
		assert_int_equal(route[0].bytes, steps[i].bytes);
	}
	assert_true(tell(t, n1, ++sequence, n3, QG_KMS_LINK_STARVING, 0, 0));
	assert_string_equal(found(t, 2, 0), "0-2-3 0-1-3");
	/* Hearsay takes no link away. */
	assert_true(tell(t, n1, ++sequence, n3, QG_KMS_LINK_DOWN, 0, 0));
	assert_string_equal(found(t, 2, 0), "0-2-3 0-1-3");
	/* A report of the other end is about the other direction. */
	assert_true(tell(t, n3, 1, n1, QG_KMS_LINK_UP, PLENTY, 0));
	assert_string_equal(found(t, 2, 0), "0-2-3 0-1-3");
	assert_true(tell(t, n1, ++sequence, n3, QG_KMS_LINK_UP, PLENTY, 0));
	assert_true(tell(t, n3, 2, n1, QG_KMS_LINK_DOWN, 0, 0));
	assert_string_equal(found(t, 2, 0), "0-1-3 0-2-3");
	/* What gets through outweighs an older report. */
	assert_int_equal(find(t, 1, 0, route), 1);
	assert_true(tell(t, n1, ++sequence, n3, QG_KMS_LINK_DOWN, 0, 0));
	qg_routes_worked(t->r, &route[0]);
	assert_string_equal(found(t, 1, 0), "0-1-3");
	net_stop(t);
}

static void
reports_age_out(void **state)
{
	(void)state;
	net *t = two_ways();
	const char *n1 = t->name[1], *n3 = t->name[3];
	assert_true(tell(t, n1, 1000, n3, QG_KMS_LINK_DOWN, 0, 50000));
	assert_string_equal(found(t, 1, 79999), "0-2-3");
	/* Until then the sequence must grow; later an origin whose clock was put
	 * back is heard again. */
	assert_false(tell(t, n1, 1000, n3, QG_KMS_LINK_UP, 0, 79999));
	assert_false(tell(t, n1, 999, n3, QG_KMS_LINK_UP, 0, 79999));
	assert_string_equal(found(t, 1, 79999), "0-2-3");
	assert_string_equal(found(t, 1, 80000), "0-1-3");
	assert_true(tell(t, n1, 999, n3, QG_KMS_LINK_DOWN, 0, 80000));
	assert_string_equal(found(t, 1, 80000), "0-2-3");
	/* What the next report leaves out is not known any more. */
	assert_true(tell(t, n1, 1001, t->name[0], QG_KMS_LINK_UP, 7, 80000));
	assert_string_equal(found(t, 1, 80000), "0-1-3");
	net_stop(t);
}

static void
soundness_17_old_and_foreign_reports_change_nothing(void **state)
{
	(void)state;
	net *t = two_ways();
	const char *n0 = t->name[0], *n1 = t->name[1], *n2 = t->name[2], *n3 = t->name[3];
	assert_true(tell(t, n1, 500, n3, QG_KMS_LINK_UP, PLENTY, 0));
	assert_false(tell(t, n1, 500, n3, QG_KMS_LINK_DOWN, 0, 0));
	assert_false(tell(t, n1, 0, n3, QG_KMS_LINK_DOWN, 0, 0));
	/* Origins and links that are not configured, and links of others. */
	assert_false(tell(t, "nobody", 1, n3, QG_KMS_LINK_DOWN, 0, 0));
	assert_false(tell(t, "", UINT64_MAX, "", QG_KMS_LINK_DOWN, 0, 0));
	assert_false(tell(t, n2, 1, n1, QG_KMS_LINK_DOWN, 0, 0));
	assert_false(tell(t, n2, 2, n2, QG_KMS_LINK_DOWN, 0, 0));
	assert_false(tell(t, n2, 3, "nobody", QG_KMS_LINK_DOWN, 0, 0));
	assert_false(tell(t, n0, 1, n3, QG_KMS_LINK_UP, PLENTY, 0));
	the_report.n = 0;
	the_report.sequence++;
	assert_false(qg_routes_report(t->r, &the_report, 0));
	assert_string_equal(found(t, 2, 0), "0-1-3 0-2-3");
	assert_false(qg_routes_has_link(t->r, n0, n3));
	assert_false(qg_routes_has_link(t->r, n2, n1));
	/* Among links that are not there, the one that is counts. */
	memset(&the_report, 0, sizeof the_report);
	snprintf(the_report.origin, sizeof the_report.origin, "%s", n1);
	the_report.sequence = 501;
	the_report.n = 3;
	snprintf(the_report.link[0].peer, sizeof the_report.link[0].peer, "%s", n2);
	snprintf(the_report.link[1].peer, sizeof the_report.link[1].peer, "%s", n3);
	snprintf(the_report.link[2].peer, sizeof the_report.link[2].peer, "intruder");
	the_report.link[1].state = QG_KMS_LINK_DOWN;
	assert_true(qg_routes_report(t->r, &the_report, 0));
	assert_string_equal(found(t, 2, 0), "0-2-3 0-1-3");
	net_stop(t);
}

/* Whatever is reported and whatever fails: routes stay sound, and a network of
 * plain links offers none that it does not have. */
static void
soundness_17_nothing_learned_adds_nodes_or_links(void **state)
{
	(void)state;
	seeded();
	for (int round = 0; round < 300; round++) {
		net *t = net_new(2 + rnd(SMALL - 1));
		model m;
		random_net(t, &m, 50);
		net_run(t);
		uint64_t now_ms = 0;
		for (int i = 0; i < 100; i++) {
			const char *a = rnd(10) == 0 ? "intruder" : t->name[rnd(t->n_nodes)];
			const char *b = rnd(10) == 0 ? "" : t->name[rnd(t->n_nodes)];
			now_ms += rnd(3000);
			if (rnd(3) == 0)
				qg_routes_fault(t->r, a, b, (qg_route_fault)rnd(4), now_ms);
			else
				(void)tell(t, a, rnd(1000), b, (qg_kms_link_state)rnd(3), rnd(100000), now_ms);
			qg_route route[3];
			unsigned k = 1 + rnd(3), hops = rnd(8);
			t->stream[0].relay.max_hops = hops;
			size_t n = find(t, k, now_ms, route);
			assert_sound(t, route, n, hops);
			if (n > 0 && rnd(4) == 0)
				qg_routes_worked(t->r, &route[rnd((unsigned)n)]);
		}
		/* When all of it is forgotten, the best is the best again. */
		now_ms += 1000 * PENALTY_MS;
		assert_best(t, &m, 3, 6, now_ms);
		for (unsigned a = 0; a < t->n_nodes; a++)
			for (unsigned b = 0; b < t->n_nodes; b++)
				assert_int_equal(qg_routes_has_link(t->r, t->name[a], t->name[b]),
						 has_link(t, t->name[a], t->name[b]));
		net_stop(t);
	}
}

/* --- many threads --------------------------------------------------------------------------- */

typedef struct worker {
	pthread_t thread;
	net *t;
	unsigned number;
} worker;

static void *
work(void *ctx)
{
	worker *w = ctx;
	net *t = w->t;
	for (unsigned i = 0; i < 3000; i++) {
		unsigned a = i % t->n_nodes, b = (i * 7 + w->number) % t->n_nodes;
		qg_route route[2];
		size_t n = 0;
		qg_kms_report m = {.sequence = i, .n = 1, .link[0].bytes = i};
		snprintf(m.origin, sizeof m.origin, "%s", t->name[a]);
		snprintf(m.link[0].peer, sizeof m.link[0].peer, "%s", t->name[b]);
		(void)qg_routes_report(t->r, &m, i);
		qg_routes_fault(t->r, t->name[a], t->name[b], (qg_route_fault)(i % 3), i);
		qg_routes_find(t->r, &t->stream[0], 2, i, route, &n);
		assert_sound(t, route, n, 14);
		if (n > 0)
			qg_routes_worked(t->r, &route[0]);
	}
	return NULL;
}

static void
any_thread_may_ask(void **state)
{
	(void)state;
	seeded();
	net *t = net_new(SMALL);
	model m;
	random_net(t, &m, 70);
	net_run(t);
	worker w[3];
	for (unsigned i = 0; i < 3; i++) {
		w[i] = (worker){.t = t, .number = i + 1};
		assert_int_equal(pthread_create(&w[i].thread, NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(w[i].thread, NULL);
	assert_best(t, &m, 3, 6, 1000 * PENALTY_MS);
	net_stop(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(penalties_end_double_and_are_reset),
		cmocka_unit_test(starving_links_are_the_last_resort),
		cmocka_unit_test(down_outweighs_starving),
		cmocka_unit_test(soundness_17_wrong_answers_isolate),
		cmocka_unit_test(soundness_17_faults_name_known_links_only),
		cmocka_unit_test(reports_change_costs),
		cmocka_unit_test(reports_age_out),
		cmocka_unit_test(soundness_17_old_and_foreign_reports_change_nothing),
		cmocka_unit_test(soundness_17_nothing_learned_adds_nodes_or_links),
		cmocka_unit_test(any_thread_may_ask),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY")); /* a pattern of names */
	return cmocka_run_group_tests_name("routes_learned", tests, NULL, NULL);
}
