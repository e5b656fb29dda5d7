/* SPDX-License-Identifier: Apache-2.0 */
/* What a peer may do to the border of a network, and what not (SOUNDNESS 14, 18):
 * C and D are the network, B and E are peers that the test plays. */
#include "interop_net.h"

/* --- a peer that the test plays ------------------------------------------------------ */

#define HEARD_MAX 4096

typedef struct heard {
	unsigned to;
	net_post_kind kind;
	qg_interop_status status;
	qg_uuid id;
} heard;

static struct {
	pthread_mutex_t lock;
	size_t n;
	heard h[HEARD_MAX];
	_Atomic int keys, acks, voids; /* outcomes of what C sends */
} play = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void note(unsigned to, net_post_kind kind, qg_interop_status status, const qg_uuid *ids, size_t n_ids)
{
	pthread_mutex_lock(&play.lock);
	for (size_t i = 0; i < n_ids && play.n < HEARD_MAX; i++)
		play.h[play.n++] = (heard){ .to = to, .kind = kind, .status = status, .id = ids[i] };
	pthread_mutex_unlock(&play.lock);
}

static bool play_peer(unsigned from, unsigned to, net_post_kind kind, const void *m, qg_interop_sent *sent)
{
	(void)from;
	if (kind == NET_POST_ACKS) {
		const qg_interop_ack *a = m;
		note(to, kind, a->status, a->ids, a->n_ids);
		sent->outcome = (qg_interop_outcome)atomic_load(&play.acks);
		sent->absent = sent->outcome == QG_INTEROP_OUT_REFUSED;
	} else if (kind == NET_POST_VOID) {
		const qg_interop_void *v = m;
		note(to, kind, QG_INTEROP_VOIDED, v->ids, v->n_ids);
		sent->outcome = (qg_interop_outcome)atomic_load(&play.voids);
	} else {
		const qg_interop_keys *keys = m;
		for (size_t i = 0; i < keys->n_keys; i++)
			note(to, kind, QG_INTEROP_RELAYED, &keys->key[i].id, 1);
		sent->outcome = (qg_interop_outcome)atomic_load(&play.keys);
	}
	return true;
}

typedef struct wanted {
	unsigned to;
	net_post_kind kind;
	qg_interop_status status;
	qg_uuid id;
} wanted;

static bool was_heard(core_net *net, void *ctx)
{
	const wanted *w = ctx;
	bool found = false;
	(void)net;
	pthread_mutex_lock(&play.lock);
	for (size_t i = 0; i < play.n; i++)
		found |= play.h[i].to == w->to && play.h[i].kind == w->kind && play.h[i].status == w->status &&
			 qg_uuid_equal(&play.h[i].id, &w->id);
	pthread_mutex_unlock(&play.lock);
	return found;
}

static void expect_ack(unsigned to, qg_interop_status status, const qg_uuid *id)
{
	wanted w = { .to = to, .kind = NET_POST_ACKS, .status = status, .id = *id };
	assert_true(net_wait(n, was_heard, &w));
}

static bool has_ack(unsigned to, qg_interop_status status, const qg_uuid *id)
{
	wanted w = { .to = to, .kind = NET_POST_ACKS, .status = status, .id = *id };
	return was_heard(n, &w);
}

static void expect_sent(unsigned to, net_post_kind kind, const qg_uuid *id)
{
	wanted w = { .to = to, .kind = kind,
		     .status = kind == NET_POST_VOID ? QG_INTEROP_VOIDED : QG_INTEROP_RELAYED, .id = *id };
	assert_true(net_wait(n, was_heard, &w));
}

static void forget_heard(void)
{
	pthread_mutex_lock(&play.lock);
	play.n = 0;
	pthread_mutex_unlock(&play.lock);
}

/* --- requests ------------------------------------------------------------------------- */

typedef struct reply {
	sem_t came;
	atomic_uint times;
	qg_interop_result result;
	size_t n_acks;
	qg_interop_status status[4];
	size_t n_ids[4];
} reply;

static void on_reply(void *ctx, const qg_interop_reply *r)
{
	reply *a = ctx;
	assert_non_null(r->why);
	a->result = r->result;
	a->n_acks = r->n_acks;
	for (size_t i = 0; i < r->n_acks && i < COUNT(a->status); i++) {
		a->status[i] = r->ack[i].status;
		a->n_ids[i] = r->ack[i].n_ids;
	}
	atomic_fetch_add(&a->times, 1);
	sem_post(&a->came);
}

static void wait_reply(reply *a)
{
	while (sem_wait(&a->came) != 0)
		;
	assert_int_equal(atomic_load(&a->times), 1);
	sem_destroy(&a->came);
}

static uint8_t values[QG_INTEROP_KEYS_MAX + 1][32];
static qg_uuid ids[QG_INTEROP_KEYS_MAX + 1];
static qg_interop_key keys[QG_INTEROP_KEYS_MAX + 1];

static void fresh_keys(size_t number)
{
	for (size_t i = 0; i < number; i++) {
		qg_random(values[i], 32);
		qg_uuid_random(&ids[i]);
		keys[i] = (qg_interop_key){ .id = ids[i], .value = values[i], .size_bytes = 32 };
	}
}

static const char *const to_d[] = { "sae-d" }, *const to_c[] = { "sae-c" }, *const to_both[] = { "sae-c", "sae-d" },
			 *const to_e[] = { "sae-e" }, *const to_b[] = { "sae-b" }, *const to_nobody[] = { "sae-x" },
			 *const twice[] = { "sae-c", "sae-c" };

static qg_interop_keys keys_of(const char *initiator, const char *const *targets, size_t n_targets, size_t number)
{
	return (qg_interop_keys){ .saes = { .initiator = initiator, .targets = targets, .n_targets = n_targets },
				  .key = keys, .n_keys = number };
}

static reply send(unsigned from, const qg_interop_keys *m)
{
	reply a = { .times = 0 };
	sem_init(&a.came, 0, 0);
	qg_interop_receive_keys(qg_core_interop(n->node[C].core), n->node[from].id, m, on_reply, &a);
	wait_reply(&a);
	return a;
}

static qg_interop_result bring(const char *initiator, const char *const *targets, size_t n_targets, size_t number)
{
	const qg_interop_keys m = keys_of(initiator, targets, n_targets, number);
	return send(B, &m).result;
}

static reply void_by(unsigned from, const char *initiator, const char *const *targets, size_t n_targets, size_t number,
		    bool all, unsigned wait_ms)
{
	const qg_interop_void m = { .saes = { .initiator = initiator, .targets = targets, .n_targets = n_targets },
				    .ids = ids, .n_ids = number, .all = all, .wait_ms = wait_ms };
	reply a = { .times = 0 };
	sem_init(&a.came, 0, 0);
	qg_interop_receive_void(qg_core_interop(n->node[C].core), n->node[from].id, &m, on_reply, &a);
	wait_reply(&a);
	return a;
}

static qg_interop_result ack_from(unsigned from, qg_interop_status status, const char *initiator,
				  const char *const *targets, size_t n_targets, const qg_uuid *id, size_t number)
{
	const qg_interop_ack m = { .status = status,
				   .saes = { .initiator = initiator, .targets = targets, .n_targets = n_targets },
				   .ids = id, .n_ids = number };
	reply a = { .times = 0 };
	sem_init(&a.came, 0, 0);
	qg_interop_receive_acks(qg_core_interop(n->node[C].core), n->node[from].id, &m, 1, on_reply, &a);
	wait_reply(&a);
	return a.result;
}

static size_t records(void)
{
	return qg_transfers_count(n->node[C].core->transfers);
}

static void start_border(void)
{
	two_networks(false);
	n->plan.nodes = 5;
	memcpy(n->node[E].id, "KME-E", sizeof "KME-E");
	n->node[E].net = n;
	n->node[E].index = E;
	add_peer(C, E, net3, COUNT(net3), NULL);
	forget_heard();
	atomic_store(&play.keys, QG_INTEROP_OUT_ACCEPTED);
	atomic_store(&play.acks, QG_INTEROP_OUT_ACCEPTED);
	atomic_store(&play.voids, QG_INTEROP_OUT_ACCEPTED);
	n->post_play = play_peer;
	node_start(&n->node[C]);
	node_start(&n->node[D]);
	assert_true(net_wait(n, pads_open, net_stream(n, C, D, C)));
}

static int stop_border(void **state)
{
	for (unsigned i = C; n != NULL && i <= D; i++)
		node_stop(&n->node[i]);
	if (n != NULL)
		n->plan.nodes = 4;
	return teardown(state);
}

static void expect_key(unsigned at, const char *sae, size_t i)
{
	assert_int_equal(fetch_at(at, "sae-a", sae, &ids[i], 1), QG_OK);
	assert_memory_equal(got->key, values[i], 32);
	assert_int_equal(fetch_at(at, "sae-a", sae, &ids[i], 1), QG_E_NOTFOUND);
}

/* --- it works ---------------------------------------------------------------------------- */

static void test_brought_keys_are_delivered_once(void **state)
{
	(void)state;
	start_border();
	fresh_keys(2);
	assert_int_equal(bring("sae-a", to_both, 2, 2), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]);
	for (size_t i = 0; i < 2; i++) {
		expect_key(C, "sae-c", i);
		expect_key(D, "sae-d", i);
	}
	assert_int_equal(fetch_at(C, "sae-b", "sae-c", ids, 1), QG_E_DENIED); /* another initiator */
}

static void test_a_full_request_of_other_sizes(void **state)
{
	(void)state;
	start_border();
	fresh_keys(QG_INTEROP_KEYS_MAX);
	for (size_t i = 0; i < QG_INTEROP_KEYS_MAX; i++)
		keys[i].size_bytes = 16 + (uint32_t)(i % 17);
	assert_int_equal(bring("sae-a", to_c, 1, QG_INTEROP_KEYS_MAX), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[QG_INTEROP_KEYS_MAX - 1]);
	assert_int_equal(fetch_at(C, "sae-a", "sae-c", &ids[1000], 1), QG_OK);
	assert_int_equal(got->bytes, 16 + 1000 % 17);
	assert_memory_equal(got->key, values[1000], got->bytes);
}

static void test_the_outcome_in_the_answer(void **state)
{
	(void)state;
	start_border();
	fresh_keys(2);
	qg_interop_keys m = keys_of("sae-a", to_both, 2, 2);
	m.wait_ms = 20000;
	reply a = send(B, &m);
	assert_int_equal(a.result, QG_INTEROP_DONE);
	assert_int_equal(a.n_acks, 1);
	assert_int_equal(a.status[0], QG_INTEROP_RELAYED);
	assert_int_equal(a.n_ids[0], 2);
	a = send(B, &m);
	assert_int_equal(a.result, QG_INTEROP_DONE);
	expect_key(D, "sae-d", 0);
	/* not in time: void */
	net_down(n, C, D, true);
	fresh_keys(1);
	m = keys_of("sae-a", to_d, 1, 1);
	m.wait_ms = 300;
	assert_int_equal(send(B, &m).result, QG_INTEROP_TIMEOUT);
	net_down(n, C, D, false);
	assert_true(net_wait(n, all_settled, NULL));
	assert_int_not_equal(fetch_at(D, "sae-a", "sae-d", ids, 1), QG_OK);
	assert_int_equal(send(B, &m).result, QG_INTEROP_CONFLICT);
	a = void_by(B, "sae-a", to_d, 1, 1, false, 20000);
	assert_int_equal(a.result, QG_INTEROP_DONE);
	assert_int_equal(a.status[0], QG_INTEROP_VOIDED);
	assert_false(has_ack(B, QG_INTEROP_RELAYED, &ids[0]));
}

/* --- it is refused whole -------------------------------------------------------------------- */

static void test_who_may_bring_what_for_whom(void **state)
{
	(void)state;
	static const char *const c_alone[] = { "sae-c" };
	start_border();
	node_stop(&n->node[C]);
	n->node[C].peers[1].reach = c_alone;
	node_start(&n->node[C]);
	assert_true(net_wait(n, pads_open, net_stream(n, C, D, C)));
	fresh_keys(2);
	assert_int_equal(bring("sae-e", to_d, 1, 2), QG_INTEROP_DENIED);  /* another peer's */
	assert_int_equal(bring("sae-d", to_c, 1, 2), QG_INTEROP_DENIED);  /* ours */
	assert_int_equal(bring("sae-x", to_c, 1, 2), QG_INTEROP_DENIED);  /* nobody's */
	assert_int_equal(bring("sae-a", to_nobody, 1, 2), QG_INTEROP_NO_TARGET);
	assert_int_equal(bring("sae-a", to_b, 1, 2), QG_INTEROP_ROUTING); /* back to where it came from */
	qg_interop_keys m = keys_of("sae-e", to_d, 1, 2);
	assert_int_equal(send(E, &m).result, QG_INTEROP_DENIED);          /* not within its reach */
	m = keys_of("sae-e", to_c, 1, 2);
	assert_int_equal(send(E, &m).result, QG_INTEROP_ACCEPTED);
	assert_int_equal(records(), 2);
}

static void test_what_is_malformed(void **state)
{
	(void)state;
	start_border();
	fresh_keys(QG_INTEROP_KEYS_MAX + 1);
	assert_int_equal(bring("sae-a", to_c, 1, 0), QG_INTEROP_MALFORMED);
	assert_int_equal(bring("sae-a", to_c, 1, QG_INTEROP_KEYS_MAX + 1), QG_INTEROP_MALFORMED);
	assert_int_equal(bring("sae-a", to_c, 0, 1), QG_INTEROP_MALFORMED);
	assert_int_equal(bring("sae-a", twice, 2, 1), QG_INTEROP_MALFORMED);
	keys[7].id = keys[3].id;
	assert_int_equal(bring("sae-a", to_c, 1, 9), QG_INTEROP_MALFORMED);
	fresh_keys(2);
	keys[1].size_bytes = 0;
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_MALFORMED);
	keys[1].size_bytes = QG_INTEROP_KEY_BYTES_MAX + 1;
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_MALFORMED);
	assert_int_equal(records(), 0);
	assert_int_equal(void_by(B, "sae-a", to_c, 1, 0, false, 0).result, QG_INTEROP_MALFORMED);
	assert_int_equal(void_by(B, "sae-a", to_c, 1, 1, true, 0).result, QG_INTEROP_MALFORMED);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-c", to_b, 1, ids, 0), QG_INTEROP_MALFORMED);
}

static void test_rule_14_an_id_of_our_own_is_refused(void **state)
{
	(void)state;
	start_border();
	qg_issue_request req = request("sae-c", "sae-d", 1);
	assert_int_equal(issue_at(C, &req), QG_OK);
	fresh_keys(3);
	keys[2].id = k->id[0];
	assert_int_equal(bring("sae-a", to_c, 1, 3), QG_INTEROP_ROUTING);
	assert_int_equal(records(), 0);
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_ACCEPTED);
	assert_int_equal(fetch_at(D, "sae-c", "sae-d", k->id, 1), QG_OK);
}

static void test_rule_18_the_same_again_and_another_under_its_id(void **state)
{
	(void)state;
	start_border();
	fresh_keys(2);
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]);
	forget_heard();
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]); /* given again */
	assert_int_equal(records(), 2);
	values[0][0] ^= 1;
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_CONFLICT);
	values[0][0] ^= 1;
	assert_int_equal(bring("sae-a", to_both, 2, 2), QG_INTEROP_CONFLICT);
	keys[0].size_bytes = 31;
	assert_int_equal(bring("sae-a", to_c, 1, 1), QG_INTEROP_CONFLICT);
	keys[0].size_bytes = 32;
	/* one of two is known as another: the new one is not kept */
	const qg_uuid known = keys[0].id;
	fresh_keys(2);
	keys[1].id = known;
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_CONFLICT);
	assert_int_equal(records(), 2);
	assert_int_equal(fetch_at(C, "sae-a", "sae-c", ids, 1), QG_E_NOTFOUND);
}

/* --- void ---------------------------------------------------------------------------------- */

static void test_rule_18_void_of_what_was_brought(void **state)
{
	(void)state;
	start_border();
	fresh_keys(3);
	assert_int_equal(bring("sae-a", to_both, 2, 3), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]);
	expect_key(D, "sae-d", 2);
	assert_int_equal(void_by(B, "sae-a", to_both, 2, 3, false, 0).result, QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_VOIDED, &ids[0]);
	expect_ack(B, QG_INTEROP_VOIDED, &ids[1]);
	expect_ack(B, QG_INTEROP_FAILED_TO_VOID, &ids[2]);
	for (size_t i = 0; i < 3; i++) {
		assert_int_not_equal(fetch_at(C, "sae-a", "sae-c", &ids[i], 1), QG_OK);
		assert_int_not_equal(fetch_at(D, "sae-a", "sae-d", &ids[i], 1), QG_OK);
	}
	/* again: the same answers; over a restart, too */
	node_crash(&n->node[C]);
	node_start(&n->node[C]);
	forget_heard();
	assert_int_equal(void_by(B, "sae-a", to_both, 2, 3, false, 0).result, QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_VOIDED, &ids[0]);
	expect_ack(B, QG_INTEROP_FAILED_TO_VOID, &ids[2]);
	assert_int_equal(bring("sae-a", to_both, 2, 3), QG_INTEROP_CONFLICT);
}

static void test_rule_18_void_before_it_came(void **state)
{
	(void)state;
	start_border();
	fresh_keys(2);
	reply a = void_by(B, "sae-a", to_c, 1, 2, false, 5000);
	assert_int_equal(a.result, QG_INTEROP_DONE);
	assert_int_equal(a.status[0], QG_INTEROP_NOT_PRESENT);
	assert_int_equal(a.n_ids[0], 2);
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_CONFLICT);
	node_crash(&n->node[C]);
	node_start(&n->node[C]);
	assert_int_equal(bring("sae-a", to_c, 1, 2), QG_INTEROP_CONFLICT);
	assert_int_not_equal(fetch_at(C, "sae-a", "sae-c", ids, 1), QG_OK);
	/* a peer plants nothing for initiators that are not its own */
	fresh_keys(1);
	assert_int_equal(void_by(E, "sae-a", to_c, 1, 1, false, 0).result, QG_INTEROP_DENIED);
	assert_int_equal(bring("sae-a", to_c, 1, 1), QG_INTEROP_ACCEPTED);
}

static void test_rule_18_void_of_all_and_of_other_targets(void **state)
{
	(void)state;
	start_border();
	fresh_keys(4);
	assert_int_equal(bring("sae-a", to_c, 1, 3), QG_INTEROP_ACCEPTED);
	const qg_interop_keys m = { .saes = { .initiator = "sae-a", .targets = to_both, .n_targets = 2 },
				    .key = keys + 3, .n_keys = 1 };
	assert_int_equal(send(B, &m).result, QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[3]);
	expect_key(C, "sae-c", 1);
	reply a = void_by(B, "sae-a", to_d, 1, 1, false, 5000); /* not those it was brought for */
	assert_int_equal(a.status[0], QG_INTEROP_NOT_PRESENT);
	a = void_by(B, "sae-a", to_c, 1, 0, true, 5000);
	assert_int_equal(a.result, QG_INTEROP_DONE);
	assert_int_equal(a.n_acks, 2);
	assert_int_equal(a.n_ids[0], 2);
	assert_int_equal(a.status[1], QG_INTEROP_FAILED_TO_VOID);
	assert_int_not_equal(fetch_at(C, "sae-a", "sae-c", &ids[0], 1), QG_OK);
	expect_key(C, "sae-c", 3);
}

static void test_rule_18_an_ack_that_is_never_taken_ends_in_a_void(void **state)
{
	(void)state;
	start_border();
	atomic_store(&play.acks, QG_INTEROP_OUT_UNKNOWN);
	fresh_keys(2);
	assert_int_equal(bring("sae-a", to_both, 2, 2), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]);
	expect_key(D, "sae-d", 1);
	node_crash(&n->node[C]);
	forget_heard();
	node_start(&n->node[C]);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]); /* told again */
	atomic_fetch_add(&pair_ahead_ms, 6 * 4000 + 1000);
	expect_sent(B, NET_POST_VOID, &ids[0]);
	assert_int_not_equal(fetch_at(C, "sae-a", "sae-c", &ids[0], 1), QG_OK);
	assert_true(net_wait(n, all_settled, NULL));
	assert_int_equal(state_at(C, "sae-a", &ids[0]), QG_TRANSFER_VOIDED);
	assert_int_equal(state_at(C, "sae-a", &ids[1]), QG_TRANSFER_FAILED);
}

static void test_rule_18_an_ack_for_what_the_peer_forgot_voids_at_once(void **state)
{
	(void)state;
	start_border();
	atomic_store(&play.acks, QG_INTEROP_OUT_REFUSED);
	fresh_keys(1);
	assert_int_equal(bring("sae-a", to_c, 1, 1), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]);
	for (unsigned i = 0; i < 500 && state_at(C, "sae-a", &ids[0]) != QG_TRANSFER_VOIDED; i++)
		pair_nap(20);
	assert_int_equal(state_at(C, "sae-a", &ids[0]), QG_TRANSFER_VOIDED);
	assert_int_not_equal(fetch_at(C, "sae-a", "sae-c", ids, 1), QG_OK);
}

/* --- keys that go to a peer ------------------------------------------------------------------- */

static bool any_keys_to(core_net *net, void *ctx)
{
	const unsigned *to = ctx;
	bool found = false;
	(void)net;
	pthread_mutex_lock(&play.lock);
	for (size_t i = 0; i < play.n; i++)
		if (play.h[i].kind == NET_POST_KEYS && play.h[i].to == *to) {
			ids[0] = play.h[i].id;
			found = true;
		}
	pthread_mutex_unlock(&play.lock);
	return found;
}

static void begin_issue(void)
{
	unsigned to = B;
	forget_heard();
	static qg_issue_request req;
	req = request("sae-c", "sae-b", 1);
	keys_issue_begin(n->node[C].core, &req, k);
	assert_true(net_wait(n, any_keys_to, &to));
}

static void test_rule_18_released_when_the_peer_says_so(void **state)
{
	(void)state;
	start_border();
	begin_issue();
	qg_uuid other;
	qg_uuid_random(&other);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-c", to_b, 1, &other, 1), QG_INTEROP_ABSENT);
	assert_int_equal(ack_from(E, QG_INTEROP_RELAYED, "sae-c", to_b, 1, ids, 1), QG_INTEROP_ABSENT);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-d", to_b, 1, ids, 1), QG_INTEROP_ABSENT);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-c", to_e, 1, ids, 1), QG_INTEROP_ABSENT);
	assert_int_equal(atomic_load(&k->calls), 0);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-c", to_b, 1, ids, 1), QG_INTEROP_ACCEPTED);
	assert_int_equal(keys_wait(k), QG_OK);
	assert_memory_equal(k->id, ids, sizeof *ids);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-c", to_b, 1, ids, 1), QG_INTEROP_ACCEPTED);
	/* too late for the other network to have it void */
	assert_int_equal(void_by(B, "sae-c", to_b, 1, 1, false, 5000).status[0], QG_INTEROP_FAILED_TO_VOID);
	assert_int_equal(state_at(C, "sae-c", ids), QG_TRANSFER_RELEASED);
	/* nor does it come back as another's */
	keys[0] = (qg_interop_key){ .id = ids[0], .value = values[0], .size_bytes = 32 };
	assert_int_equal(bring("sae-c", to_c, 1, 1), QG_INTEROP_DENIED);
}

static void test_rule_18_a_peer_that_fails_or_voids_it(void **state)
{
	(void)state;
	start_border();
	begin_issue();
	assert_int_equal(ack_from(B, QG_INTEROP_FAILED, "sae-c", to_b, 1, ids, 1), QG_INTEROP_ACCEPTED);
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-c", to_b, 1, ids, 1), QG_INTEROP_ABSENT);
	begin_issue();
	assert_int_equal(void_by(B, "sae-c", to_b, 1, 1, false, 5000).status[0], QG_INTEROP_VOIDED);
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	begin_issue();
	assert_int_equal(keys_wait(k), QG_E_EMPTY); /* no ack in time */
	expect_sent(B, NET_POST_VOID, &ids[0]);
	assert_int_equal(ack_from(B, QG_INTEROP_RELAYED, "sae-c", to_b, 1, ids, 1), QG_INTEROP_ABSENT);
	assert_int_equal(ack_from(B, QG_INTEROP_VOIDED, "sae-c", to_b, 1, ids, 1), QG_INTEROP_ACCEPTED);
	for (unsigned i = 0; i < 500 && state_at(C, "sae-c", ids) != QG_TRANSFER_VOIDED; i++)
		pair_nap(20);
	assert_int_equal(state_at(C, "sae-c", ids), QG_TRANSFER_VOIDED);
	atomic_store(&play.keys, QG_INTEROP_OUT_REFUSED);
	begin_issue();
	assert_int_equal(keys_wait(k), QG_E_EMPTY);
	assert_true(net_wait(n, all_settled, NULL));
	wanted w = { .to = B, .kind = NET_POST_VOID, .status = QG_INTEROP_VOIDED, .id = ids[0] };
	assert_false(was_heard(n, &w)); /* it holds nothing */
}

/* --- transit ------------------------------------------------------------------------------------ */

static void test_transit_from_peer_to_peer(void **state)
{
	(void)state;
	start_border();
	fresh_keys(2);
	assert_int_equal(bring("sae-a", to_e, 1, 2), QG_INTEROP_ACCEPTED);
	expect_sent(E, NET_POST_KEYS, &ids[0]);
	assert_false(has_ack(B, QG_INTEROP_RELAYED, &ids[0]));
	/* a restart goes on with it */
	node_crash(&n->node[C]);
	forget_heard();
	node_start(&n->node[C]);
	expect_sent(E, NET_POST_KEYS, &ids[1]);
	assert_int_equal(ack_from(E, QG_INTEROP_RELAYED, "sae-a", to_e, 1, ids, 2), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_RELAYED, &ids[0]);
	/* the same key from another side */
	node_stop(&n->node[C]);
	n->node[C].peers[1].saes = anyone;
	n->node[C].peers[1].n_saes = 1;
	node_start(&n->node[C]);
	/* void runs through */
	atomic_store(&play.voids, QG_INTEROP_OUT_ACCEPTED);
	assert_int_equal(void_by(B, "sae-a", to_e, 1, 2, false, 0).result, QG_INTEROP_ACCEPTED);
	expect_sent(E, NET_POST_VOID, &ids[0]);
	assert_false(has_ack(B, QG_INTEROP_VOIDED, &ids[0]));
	assert_int_equal(ack_from(E, QG_INTEROP_VOIDED, "sae-a", to_e, 1, ids, 1), QG_INTEROP_ACCEPTED);
	assert_int_equal(ack_from(E, QG_INTEROP_FAILED_TO_VOID, "sae-a", to_e, 1, ids + 1, 1), QG_INTEROP_ACCEPTED);
	expect_ack(B, QG_INTEROP_VOIDED, &ids[0]);
	expect_ack(B, QG_INTEROP_FAILED_TO_VOID, &ids[1]);
}

static void test_a_key_that_went_round_is_refused(void **state)
{
	(void)state;
	start_border();
	fresh_keys(1);
	assert_int_equal(bring("sae-a", to_e, 1, 1), QG_INTEROP_ACCEPTED);
	node_stop(&n->node[C]);
	/* now E's side: sae-a lives there */
	n->node[C].peers[0].saes = net3;
	n->node[C].peers[0].n_saes = 1;
	n->node[C].peers[1].saes = net1;
	n->node[C].peers[1].n_saes = COUNT(net1);
	node_start(&n->node[C]);
	const qg_interop_keys m = keys_of("sae-a", to_c, 1, 1);
	assert_int_equal(send(E, &m).result, QG_INTEROP_ROUTING);
}

#undef TEST
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, stop_border)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_brought_keys_are_delivered_once),
		TEST(test_a_full_request_of_other_sizes),
		TEST(test_the_outcome_in_the_answer),
		TEST(test_who_may_bring_what_for_whom),
		TEST(test_what_is_malformed),
		TEST(test_rule_14_an_id_of_our_own_is_refused),
		TEST(test_rule_18_the_same_again_and_another_under_its_id),
		TEST(test_rule_18_void_of_what_was_brought),
		TEST(test_rule_18_void_before_it_came),
		TEST(test_rule_18_void_of_all_and_of_other_targets),
		TEST(test_rule_18_an_ack_that_is_never_taken_ends_in_a_void),
		TEST(test_rule_18_an_ack_for_what_the_peer_forgot_voids_at_once),
		TEST(test_rule_18_released_when_the_peer_says_so),
		TEST(test_rule_18_a_peer_that_fails_or_voids_it),
		TEST(test_transit_from_peer_to_peer),
		TEST(test_a_key_that_went_round_is_refused),
	};
	if (pair_init() != 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
