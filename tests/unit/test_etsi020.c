/* SPDX-License-Identifier: Apache-2.0 */
#include "support/refusal.h"

#include "etsi020_pair.h"

#define ID1 "0b9f0f0e-2c1f-4b52-9d5c-1a2b3c4d5e6f"
#define ID2 "0b9f0f0e-2c1f-4b52-9d5c-1a2b3c4d5e70"
#define BETWEEN "\"initiator_sae_id\":\"sae-a\",\"target_sae_ids\":[\"sae-z\"]"
#define KEYS "\"keys\":[{\"key_id\":\"" ID1 "\",\"value\":\"AAECAw==\"}]"
#define ACK "[{\"key_id_container\":[{\"key_id\":\"" ID1 "\"}],\"ack_status\":\"relayed\"," BETWEEN "}]"
#define EXT_KEYS "/kmapi/v1/ext_keys"

static const char *const targets[] = {"sae-z", "sae-y"};

static qg_uuid
id_of(const char *text)
{
	qg_uuid id;
	assert_int_equal(qg_uuid_parse(text, 36, &id), QG_OK);
	return id;
}

static void
send_keys_of(side *s, const qg_interop_keys *m, outcome *o)
{
	qg_interop_way *way = qg_etsi020_way(s->e);
	outcome_init(o);
	assert_int_equal(way->ops->send_keys(way, s->peer.id, m, on_sent, o), QG_OK);
	wait_outcome(o);
}

static void
send_two(side *s, size_t n_targets, const qg_interop_mask *mask, outcome *o)
{
	static const uint8_t value[] = {1, 2, 3, 4, 5};
	const qg_interop_key keys[] = {
		{.id = id_of(ID1), .value = value, .size_bytes = 5, .extension = "{\"E1_k\":1}"},
		{.id = id_of(ID2), .value = value, .size_bytes = 4},
	};
	send_keys_of(s, &(qg_interop_keys){
		.saes = {.initiator = "sae-a", .targets = targets, .n_targets = n_targets},
		.key = keys, .n_keys = 2, .optional = "{\"E2_o\":[true]}", .mask = mask}, o);
}

/* --- from one to the other ------------------------------------------------------------------ */

static void
keys_arrive_whole(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	qg_interop *ip = &p->b.interop;
	outcome o;
	pair_start(p);
	for (int late = 0; late < 2; late++) {
		ip->late = late != 0;
		send_two(&p->a, 2, NULL, &o);
		assert_int_equal(o.outcome, QG_INTEROP_OUT_ACCEPTED);
		assert_string_equal(ip->peer, "NET-A");
		assert_string_equal(ip->initiator, "sae-a");
		assert_int_equal(ip->n_targets, 2);
		assert_int_equal(ip->n, 2);
		assert_int_equal(ip->size, 5);
		assert_memory_equal(ip->value, "\1\2\3\4\5", 5);
		assert_string_equal(ip->extension, "{\"E1_k\":1}");
		assert_string_equal(ip->optional, "{\"E2_o\":[true]}");
		assert_int_equal(ip->wait_ms, 0); /* it had a callback, and the agreed one */
		assert_false(ip->masked);
	}
	pair_free(p);
}

static void
outcomes_in_the_answer(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	qg_interop *ip = &p->b.interop;
	outcome o;
	p->a.peer.mode = QG_PEER_SYNCHRONOUS;
	p->a.peer.our_callback_url = NULL;
	pair_start(p);
	ip->result = QG_INTEROP_DONE;
	static const qg_interop_status all[] = {QG_INTEROP_RELAYED, QG_INTEROP_FAILED, QG_INTEROP_NOT_PRESENT};
	for (size_t i = 0; i < 3; i++) {
		ip->status = all[i];
		send_two(&p->a, 1, NULL, &o);
		assert_int_equal(o.outcome, QG_INTEROP_OUT_ACKS);
		assert_int_equal(o.status, all[i]);
		assert_int_equal(o.n_acks, 1);
		assert_int_equal(o.n_ids, 2);
		assert_int_equal(ip->wait_ms, 20000);
	}
	ip->result = QG_INTEROP_ACCEPTED; /* 202 says nothing to who wants the outcome */
	send_two(&p->a, 1, NULL, &o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_UNKNOWN);
	pair_free(p);
}

static void
draft_form(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	qg_interop *ip = &p->b.interop;
	outcome o;
	p->a.peer.dialect = QG_DIALECT_DRAFT_URL;
	p->a.peer.our_callback_url = NULL;
	pair_start(p);
	ip->result = QG_INTEROP_DONE;
	ip->status = QG_INTEROP_RELAYED;
	send_two(&p->a, 1, NULL, &o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_ACKS);
	assert_int_equal(o.status, QG_INTEROP_RELAYED);
	assert_int_equal(o.n_ids, 2);
	assert_string_equal(ip->initiator, "sae-a");
	assert_string_equal(ip->target, "sae-z");
	assert_string_equal(ip->optional, "{\"E2_o\":[true]}");
	ip->status = QG_INTEROP_FAILED;
	send_two(&p->a, 1, NULL, &o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_UNKNOWN);
	/* One target stands in the path, and no mask. */
	qg_interop_way *way = qg_etsi020_way(p->a.e);
	const uint8_t value = 1;
	const qg_interop_key key = {.id = id_of(ID1), .value = &value, .size_bytes = 1};
	qg_interop_keys m = {.saes = {.initiator = "sae-a", .targets = targets, .n_targets = 2}, .key = &key, .n_keys = 1};
	assert_int_equal(way->ops->send_keys(way, "NET-B", &m, on_sent, &o), QG_E_UNSUPPORTED);
	by_hand(p, EXT_KEYS "/sae-a/sae%2Fz", "{" KEYS "}", &o);
	assert_string_equal(ip->target, "sae/z");
	pair_free(p);
}

static qg_interop_mask
sample_mask(void)
{
	qg_interop_mask m = {.link = "g1-g2", .n_pads = 2, .oldest_mac = 3, .oldest_pad = 4};
	memset(m.mac, 0x77, sizeof m.mac);
	for (size_t i = 0; i < 2; i++)
		m.pad[i] = (qg_kms_pad){.epoch = {1}, .segment = 7, .offset = 64, .len = 64};
	return m;
}

static void
a_mask_travels(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	outcome o;
	const qg_interop_mask mask = sample_mask();
	p->a.peer.link = p->b.peer.link = QG_PEER_KXI;
	p->a.peer.stream = p->b.peer.stream = "g1-g2";
	pair_start(p);
	send_two(&p->a, 1, &mask, &o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_ACCEPTED);
	assert_true(p->b.interop.masked);
	assert_memory_equal(&p->b.interop.mask, &mask, sizeof mask);
	pair_free(p);
}

/* One who knows no masks, or another's number, refuses it as the standard says. */
static void
a_mask_that_is_not_agreed(void **state)
{
	(void)state;
	const qg_interop_mask mask = sample_mask();
	for (int i = 0; i < 2; i++) {
		pair *p = pair_new("kme-b");
		outcome o;
		p->a.peer.link = QG_PEER_KXI;
		p->a.peer.stream = "g1-g2";
		if (i == 1) {
			p->b.peer.link = QG_PEER_KXI;
			p->b.peer.stream = "g1-g2";
			p->b.peer.extension_pen = 1;
		}
		pair_start(p);
		send_two(&p->a, 1, &mask, &o);
		assert_int_equal(o.outcome, QG_INTEROP_OUT_UNKNOWN);
		assert_non_null(strstr(o.why, "503 unsupported-mandatory-extension"));
		assert_int_equal(p->b.interop.calls, 0);
		pair_free(p);
	}
}

static void
acks_arrive(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	qg_interop *ip = &p->b.interop;
	qg_interop_way *way;
	outcome o;
	const qg_uuid ids[] = {id_of(ID1), id_of(ID2)};
	pair_start(p);
	way = qg_etsi020_way(p->a.e);
	for (int i = 0; i < 5; i++) {
		const qg_interop_ack acks[] = {
			{.status = (qg_interop_status)i, .saes = {"sae-a", targets, 2}, .ids = ids, .n_ids = 2, .message = "m"},
			{.status = QG_INTEROP_FAILED, .saes = {"sae-a", targets, 1}, .ids = ids, .n_ids = 1},
		};
		outcome_init(&o);
		assert_int_equal(way->ops->send_acks(way, "NET-B", acks, 2, on_sent, &o), QG_OK);
		wait_outcome(&o);
		assert_int_equal(o.outcome, QG_INTEROP_OUT_ACCEPTED);
		assert_int_equal(ip->kind, ASKED_ACKS);
		assert_int_equal(ip->n, 2);
		assert_int_equal(ip->ack_status, i);
		assert_int_equal(ip->n_ids, 2);
	}
	const qg_interop_ack ack = {.status = QG_INTEROP_RELAYED, .saes = {"sae-a", targets, 1}, .ids = ids, .n_ids = 1};
	static const struct {
		qg_interop_result result;
		qg_interop_outcome outcome;
		bool absent;
	} ends[] = {{QG_INTEROP_ABSENT, QG_INTEROP_OUT_REFUSED, true},
		    {QG_INTEROP_MALFORMED, QG_INTEROP_OUT_REFUSED, false},
		    {QG_INTEROP_UNAVAILABLE, QG_INTEROP_OUT_UNKNOWN, false}};
	for (size_t i = 0; i < 3; i++) {
		ip->result = ends[i].result;
		outcome_init(&o);
		assert_int_equal(way->ops->send_acks(way, "NET-B", &ack, 1, on_sent, &o), QG_OK);
		wait_outcome(&o);
		assert_int_equal(o.outcome, ends[i].outcome);
		assert_int_equal(o.absent, ends[i].absent);
	}
	p->a.peer.callback_url = NULL;
	assert_int_equal(way->ops->send_acks(way, "NET-B", &ack, 1, on_sent, &o), QG_E_UNSUPPORTED);
	assert_int_equal(way->ops->send_acks(way, "NET-C", &ack, 1, on_sent, &o), QG_E_NOTFOUND);
	pair_free(p);
}

static void
voids_arrive(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	qg_interop *ip = &p->b.interop;
	outcome o;
	const qg_uuid ids[] = {id_of(ID1), id_of(ID2)};
	pair_start(p);
	qg_interop_way *way = qg_etsi020_way(p->a.e);
	const qg_interop_void two = {.saes = {"sae-a", targets, 2}, .ids = ids, .n_ids = 2};
	const qg_interop_void all = {.saes = {"sae-a", targets, 1}, .all = true};
	outcome_init(&o);
	assert_int_equal(way->ops->send_void(way, "NET-B", &two, on_sent, &o), QG_OK);
	wait_outcome(&o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_ACCEPTED);
	assert_int_equal(ip->kind, ASKED_VOID);
	assert_false(ip->all);
	assert_int_equal(ip->n_ids, 2);
	assert_int_equal(ip->wait_ms, 0);
	p->a.peer.our_callback_url = NULL; /* from now on the outcome is wanted at once */
	ip->result = QG_INTEROP_DONE;
	ip->status = QG_INTEROP_FAILED_TO_VOID;
	outcome_init(&o);
	assert_int_equal(way->ops->send_void(way, "NET-B", &two, on_sent, &o), QG_OK);
	wait_outcome(&o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_ACKS);
	assert_int_equal(o.status, QG_INTEROP_FAILED_TO_VOID);
	assert_int_equal(ip->wait_ms, 20000);
	ip->result = QG_INTEROP_ACCEPTED;
	outcome_init(&o);
	assert_int_equal(way->ops->send_void(way, "NET-B", &all, on_sent, &o), QG_OK);
	wait_outcome(&o);
	assert_true(ip->all);
	pair_free(p);
}

static void
what_an_answer_means(void **state)
{
	(void)state;
	static const struct {
		qg_interop_result result;
		qg_interop_outcome outcome;
		const char *why;
	} ends[] = {
		{QG_INTEROP_NO_TARGET, QG_INTEROP_OUT_REFUSED, "400 key-routing-error: as the test wants"},
		{QG_INTEROP_DENIED, QG_INTEROP_OUT_REFUSED, "401 unauthorized: as the test wants"},
		{QG_INTEROP_TIMEOUT, QG_INTEROP_OUT_UNKNOWN, "408 timeout: as the test wants"},
		{QG_INTEROP_FULL, QG_INTEROP_OUT_UNKNOWN, "503 server-side-general-error: as the test wants"},
		{QG_INTEROP_NO_KEY, QG_INTEROP_OUT_UNKNOWN, "503 insufficient-key-material: as the test wants"},
	};
	pair *p = pair_new("kme-b");
	outcome o;
	pair_start(p);
	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
		p->b.interop.result = ends[i].result;
		send_two(&p->a, 1, NULL, &o);
		assert_int_equal(o.outcome, ends[i].outcome);
		assert_string_equal(o.why, ends[i].why);
		assert_int_equal(o.no_key, ends[i].result == QG_INTEROP_NO_KEY);
	}
	side_end(&p->b); /* nobody there */
	send_two(&p->a, 1, NULL, &o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_UNKNOWN);
	pair_free(p);
}

/* Another certificate of the same authority stands at the peer's address. */
static void
nothing_goes_to_another_one(void **state)
{
	(void)state;
	pair *p = pair_new("kme-c");
	outcome o;
	pair_start(p);
	send_two(&p->a, 1, NULL, &o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_UNKNOWN);
	assert_int_equal(p->b.interop.calls, 0);
	pair_free(p);
}

/* --- statuses ---------------------------------------------------------------------------------- */

static void
every_result_has_its_problem(void **state)
{
	(void)state;
	static const struct {
		qg_interop_result result;
		int status[3]; /* ext_keys, ack, void */
		const char *type[3], *member[3];
	} rows[] = {
		{QG_INTEROP_TIMEOUT, {408, 503, 408}, {"timeout", "server-side-general-error", "timeout"},
		 {"timeout", "server_side_general_error", "timeout"}},
		{QG_INTEROP_NO_TARGET, {400, 400, 400},
		 {"key-routing-error", "ack-not-understood", "void-request-not-understood"},
		 {"target_sae_id_not_recognized", "ack_not_understood", "key_voiding_error"}},
		{QG_INTEROP_ROUTING, {400, 400, 400},
		 {"key-routing-error", "ack-not-understood", "void-request-not-understood"},
		 {"invalid_routing", "ack_not_understood", "key_voiding_error"}},
		{QG_INTEROP_MALFORMED, {400, 400, 400},
		 {"missing-parameters", "ack-not-understood", "void-request-not-understood"},
		 {"missing_parameters", "ack_not_understood", "key_voiding_error"}},
		{QG_INTEROP_ABSENT, {503, 400, 400},
		 {"server-side-general-error", "key-not-present", "void-request-not-understood"},
		 {"server_side_general_error", "key_not_present", "key_voiding_error"}},
		{QG_INTEROP_DENIED, {401, 401, 401}, {"unauthorized", "unauthorized", "unauthorized"},
		 {"unauthorized", "unauthorized", "unauthorized"}},
		{QG_INTEROP_NO_ROUTE, {503, 503, 503},
		 {"key-routing-error", "server-side-general-error", "server-side-general-error"},
		 {"no_known_route", "server_side_general_error", "server_side_general_error"}},
		{QG_INTEROP_NO_KEY, {503, 503, 503},
		 {"insufficient-key-material", "server-side-general-error", "server-side-general-error"},
		 {"insufficient_key_material", "server_side_general_error", "server_side_general_error"}},
		{QG_INTEROP_CONFLICT, {503, 503, 503},
		 {"server-side-general-error", "server-side-general-error", "server-side-general-error"},
		 {"server_side_general_error", "server_side_general_error", "server_side_general_error"}},
		{QG_INTEROP_FULL, {503, 503, 503},
		 {"server-side-general-error", "server-side-general-error", "server-side-general-error"},
		 {"server_side_general_error", "server_side_general_error", "server_side_general_error"}},
		{QG_INTEROP_UNAVAILABLE, {503, 503, 503},
		 {"server-side-general-error", "server-side-general-error", "server-side-general-error"},
		 {"server_side_general_error", "server_side_general_error", "server_side_general_error"}},
	};
	static const char *const paths[] = {EXT_KEYS, EXT_KEYS "/ack", EXT_KEYS "/void"};
	static const char *const bodies[] = {"{" KEYS "," BETWEEN "}", ACK, "{\"key_ids\":[\"" ID1 "\"]," BETWEEN "}"};
	pair *p = pair_new("kme-b");
	outcome o;
	pair_start(p);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		p->b.interop.result = rows[i].result;
		p->b.interop.late = i % 2 == 1;
		for (size_t k = 0; k < 3; k++) {
			by_hand(p, paths[k], bodies[k], &o);
			is_problem(&o, rows[i].status[k], rows[i].type[k], rows[i].member[k]);
		}
	}
	pair_free(p);
}

static void
good_answers(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	outcome o;
	pair_start(p);
	by_hand(p, EXT_KEYS "/ack", ACK, &o);
	assert_int_equal(o.http, 200);
	assert_int_equal(o.len, 0);
	by_hand(p, EXT_KEYS, "{" KEYS "," BETWEEN "}", &o);
	assert_int_equal(o.http, 202);
	assert_int_equal(o.len, 0);
	p->b.interop.result = QG_INTEROP_DONE;
	p->b.interop.status = QG_INTEROP_RELAYED;
	by_hand(p, EXT_KEYS, "{" KEYS "," BETWEEN "}", &o);
	assert_int_equal(o.http, 200);
	assert_string_equal(o.body, "[{\"key_id_container\":[{\"key_id\":\"" ID1 "\"}],\"ack_status\":\"relayed\"," BETWEEN
				    ",\"message\":\"a message\"}]");
	by_hand(p, EXT_KEYS "/sae-a/sae-z", "{" KEYS "}", &o);
	assert_int_equal(o.http, 200);
	assert_string_equal(o.body, "{\"message\":\"the keys were relayed\",\"details\":[]}");
	by_hand_with(hand, p, "GET", "/kmapi/versions", NULL, NULL, 0, &o);
	assert_int_equal(o.http, 200);
	assert_string_equal(o.body, "{\"versions\":[\"v1\"],\"capabilities\":[\"synchronous_mode\"]}");
	by_hand_with(hand, p, "GET", "/openapi.yaml", NULL, NULL, 0, &o);
	assert_int_equal(o.http, 200);
	assert_int_equal(strncmp(o.body, "# SPDX", 6), 0);
	static const char *const types[] = {"application/json", "Application/JSON;charset=utf-8",
					    "application/json ; charset=\"UTF-8\""};
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		by_hand_with(hand, p, "POST", EXT_KEYS "/ack", types[i], ACK, sizeof ACK - 1, &o);
		assert_int_equal(o.http, 200);
	}
	pair_free(p);
}

/* --- what is refused before the core ------------------------------------------------------------- */

#define CALLBACK(url) "{" KEYS "," BETWEEN ",\"ack_callback_url\":\"" url "\"}"

static const struct {
	const char *path, *body;
	int status;
	const char *type, *member;
} refused[] = {
	{EXT_KEYS, "", 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS, "{", 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS, "[]", 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS, "{" BETWEEN "}", 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS, "{" KEYS "," KEYS "," BETWEEN "}", 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS, "{" KEYS ",\"initiator_sae_id\":\"a\",\"target_sae_ids\":[\"a\"]}", 400, "key-routing-error",
	 "invalid_routing"},
	{EXT_KEYS, CALLBACK("https://127.0.0.1:1/kmapi/v1/ext_keys/ack"), 401, "unauthorized", "unauthorized"},
	{EXT_KEYS, CALLBACK("http://127.0.0.1/"), 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS, "{" KEYS "," BETWEEN ",\"extension_mandatory\":{\"E1_x\":1}}", 503, "unsupported-mandatory-extension",
	 "unsupported_mandatory_extension"},
	{EXT_KEYS "/a/a", "{" KEYS "}", 400, "key-routing-error", "invalid_routing"},
	{EXT_KEYS "/a/b", "{\"keys\":[]}", 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS "/a/%20", "{" KEYS "}", 400, "missing-parameters", "missing_parameters"},
	{EXT_KEYS "/a/b", "{" KEYS ",\"extension_mandatory\":[{\"x\":1}]}", 503, "unsupported-mandatory-extension",
	 "unsupported_mandatory_extension"},
	{EXT_KEYS "/ack", "{}", 400, "ack-not-understood", "ack_not_understood"},
	{EXT_KEYS "/ack", "[]", 400, "ack-not-understood", "ack_not_understood"},
	{EXT_KEYS "/ack", "[{\"key_ids\":[\"" ID1 "\"],\"ack_status\":\"relayed\"," BETWEEN "}]", 400, "ack-not-understood",
	 "ack_not_understood"},
	{EXT_KEYS "/void", "{", 400, "void-request-not-understood", "key_voiding_error"},
	{EXT_KEYS "/void", "{}", 400, "void-request-not-understood", "key_voiding_error"},
	{EXT_KEYS "/void", "{\"key_ids\":[\"x\"]," BETWEEN "}", 400, "void-request-not-understood", "key_voiding_error"},
	{EXT_KEYS "/void", "{\"key_ids\":[]," BETWEEN "}", 400, "no-key-ids-or-confirmation", "no_key_ids_or_confirmation"},
	{EXT_KEYS "/void?all_confirmation=true", "{\"key_ids\":[]," BETWEEN "}", 400, "no-key-ids-or-confirmation",
	 "no_key_ids_or_confirmation"},
	{EXT_KEYS "/void", "{\"key_ids\":[\"" ID1 "\"]," BETWEEN ",\"ack_callback_url\":\"https://elsewhere/\"}", 401,
	 "unauthorized", "unauthorized"},
};

static void
bad_requests_end_here(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	outcome o;
	pair_start(p);
	for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
		by_hand(p, refused[i].path, refused[i].body, &o);
		is_problem(&o, refused[i].status, refused[i].type, refused[i].member);
	}
	static const char *const types[] = {"text/plain", "application/jsonx", "application/json; charset=latin1",
					    "application/json; x=y"};
	for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
		by_hand_with(hand, p, "POST", EXT_KEYS, types[i], "{}", 2, &o);
		is_problem(&o, 400, "missing-parameters", "missing_parameters");
	}
	by_hand_with(hand, p, "POST", EXT_KEYS, NULL, "{}", 2, &o);
	is_problem(&o, 400, "missing-parameters", "missing_parameters");
	assert_int_equal(p->b.interop.calls, 0);
	pair_free(p);
}

static void
drafts_are_tolerated_where_agreed(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	outcome o;
	p->b.peer.draft_acks = true;
	pair_start(p);
	by_hand(p, EXT_KEYS "/ack",
		"[{\"key_ids\":[\"" ID1 "\"],\"ack_status\":\"failed\",\"initiator_sae_id\":\"a\",\"target_sae_id\":\"z\"}]", &o);
	assert_int_equal(o.http, 200);
	assert_int_equal(p->b.interop.ack_status, QG_INTEROP_FAILED);
	assert_string_equal(p->b.interop.target, "z");
	by_hand(p, EXT_KEYS "/void?all_confirmation=true", "{\"key_ids\":[]," BETWEEN "}", &o);
	assert_int_equal(o.http, 202);
	assert_true(p->b.interop.all);
	by_hand(p, EXT_KEYS "/void?other=1&all_confirmation=true", "{\"key_ids\":[]," BETWEEN "}", &o);
	assert_int_equal(o.http, 202);
	by_hand(p, EXT_KEYS "/void?other=true", "{\"key_ids\":[]," BETWEEN "}", &o);
	is_problem(&o, 400, "no-key-ids-or-confirmation", "no_key_ids_or_confirmation");
	by_hand(p, EXT_KEYS "/void?all_confirmation=false", "{\"key_ids\":[]," BETWEEN "}", &o);
	is_problem(&o, 400, "no-key-ids-or-confirmation", "no_key_ids_or_confirmation");
	pair_free(p);
}

static void
too_much(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	outcome o;
	const size_t len = 10 * 1024 * 1024;
	char *body = malloc(len);
	assert_non_null(body);
	memset(body, ' ', len);
	pair_start(p);
	by_hand_with(hand, p, "POST", EXT_KEYS, "application/json", body, 1048577, &o);
	is_problem(&o, 400, "missing-parameters", "missing_parameters");
	by_hand_with(hand, p, "POST", EXT_KEYS "/ack", "application/json", body, 1048577, &o);
	is_problem(&o, 400, "ack-not-understood", "ack_not_understood");
	by_hand_with(hand, p, "POST", EXT_KEYS "/void", "application/json", body, 1048577, &o);
	is_problem(&o, 400, "void-request-not-understood", "key_voiding_error");
	by_hand_with(hand, p, "POST", EXT_KEYS, "application/json", body, len, &o);
	if (o.err == QG_OK) /* else the connection ended before all was sent */
		is_problem(&o, 400, "missing-parameters", "missing_parameters");
	assert_int_equal(p->b.interop.calls, 0);
	free(body);
	pair_free(p);
}

static void
other_paths_and_methods(void **state)
{
	(void)state;
	static const struct {
		const char *method, *path;
		int status;
	} rows[] = {{"GET", "/", 404}, {"GET", "/kmapi/v1/ext_keys", 405}, {"POST", "/kmapi/versions", 405},
		    {"GET", "/kmapi/v2/ext_keys", 404}};
	pair *p = pair_new("kme-b");
	outcome o;
	pair_start(p);
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		by_hand_with(hand, p, rows[i].method, rows[i].path, NULL, NULL, 0, &o);
		assert_int_equal(o.http, rows[i].status);
		assert_non_null(strstr(o.body, "{\"type\":\"about:blank\","));
	}
	pair_free(p);
}

static void
strangers_get_401(void **state)
{
	(void)state;
	static const char *const names[] = {"kme-c", "alice"};
	static const char *const paths[] = {EXT_KEYS, "/kmapi/versions", "/openapi.yaml", "/nothing"};
	pair *p = pair_new("kme-b");
	outcome o;
	pair_start(p);
	for (size_t i = 0; i < 2; i++) {
		const qg_tls_files files = pki_files(names[i]);
		qg_http_client *c = NULL;
		assert_int_equal(qg_http_client_start(&files, &c), QG_OK);
		for (size_t k = 0; k < 4; k++) {
			by_hand_with(c, p, "POST", paths[k], "application/json", "{}", 2, &o);
			is_problem(&o, 401, "unauthorized", "unauthorized");
		}
		qg_http_client_stop(&c);
	}
	assert_int_equal(p->b.interop.calls, 0);
	pair_free(p);
}

static void
more_requests_than_agreed(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	outcome o;
	unsigned refused_ones = 0;
	char log[128], text[4096], said[64];
	(void)snprintf(log, sizeof log, "%s/audit.log", pki_dir);
	assert_int_equal(qg_audit_open(log, (const unsigned char[32]){1}, &p->b.audit), QG_OK);
	p->b.peer.requests_per_s = 1;
	pair_start(p);
	for (int i = 0; i < 5; i++) {
		by_hand(p, EXT_KEYS, "{" KEYS "," BETWEEN "}", &o);
		if (o.http == 202)
			continue;
		is_problem(&o, 503, "server-side-general-error", "server_side_general_error");
		refused_ones++;
	}
	assert_true(refused_ones > 0);
	assert_int_equal(p->b.interop.calls, 5 - refused_ones);
	/* in the audit log: one line for all of them */
	qg_audit *audit = p->b.audit;
	pair_free(p);
	qg_audit_tell_limited(audit, true);
	qg_audit_close(&audit);
	FILE *f = fopen(log, "r");
	assert_non_null(f);
	text[fread(text, 1, sizeof text - 1, f)] = '\0';
	fclose(f);
	unlink(log);
	(void)snprintf(said, sizeof said, "rate limit exceeded: %u requests", refused_ones);
	const char *line = strstr(text, said);
	assert_non_null(line);
	assert_non_null(strstr(text, "\"caller\":\"kxi:"));
	assert_null(strstr(line + 1, "rate limit exceeded"));
}

/* --- ends ------------------------------------------------------------------------------------------ */

static void
ends_under_way(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	qg_interop *ip = &p->b.interop;
	static outcome o;
	static const uint8_t value = 1;
	const qg_interop_key key = {.id = id_of(ID1), .value = &value, .size_bytes = 1};
	const qg_interop_keys m = {.saes = {"sae-a", targets, 1}, .key = &key, .n_keys = 1};
	pair_start(p);
	ip->hold = true;
	qg_interop_way *way = qg_etsi020_way(p->a.e);
	outcome_init(&o);
	assert_int_equal(way->ops->send_keys(way, "NET-B", &m, on_sent, &o), QG_OK);
	pthread_mutex_lock(&ip->lock);
	while (ip->calls == 0)
		pthread_cond_wait(&ip->changed, &ip->lock);
	pthread_mutex_unlock(&ip->lock);
	side_end(&p->b);
	give(ip, ip->answer, ip->ctx); /* later than the listener: dropped */
	wait_outcome(&o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_UNKNOWN);
	pair_free(p);
}

/* --- memory, mutexes and threads that are not to be had ---------------------------------------- */

static void
made_whole_or_not_at_all(void **state)
{
	(void)state;
	pair *p = pair_new("kme-b");
	unsigned failed = 0;
	assert_int_equal(qg_directory_new(&p->a.cfg, &p->a.directory), QG_OK);
	for (bool met = true; met;) {
		refusal_arm(1, true);
		const qg_err err = qg_etsi020_new(&p->a.cfg, p->a.directory, NULL, &p->a.e);
		met = refusal_disarm();
		assert_int_equal(p->a.e != NULL, err == QG_OK);
		assert_true(met || err == QG_OK);
		failed += err != QG_OK;
		qg_etsi020_free(&p->a.e);
	}
	assert_true(failed >= 5);
	qg_directory_free(&p->a.directory);
	pair_free(p);
}

static pair *used;

static void
wait_if(qg_err err, outcome *o)
{
	if (err == QG_OK)
		wait_outcome(o);
}

/* Keys, acks and a void; what was accepted had arrived. */
static void
use_all(void)
{
	static const uint8_t value[] = {1, 2, 3, 4, 5};
	qg_interop_way *way = qg_etsi020_way(used->a.e);
	const qg_uuid id = id_of(ID1);
	const qg_interop_saes saes = {"sae-a", targets, 1};
	const qg_interop_key key = {.id = id, .value = value, .size_bytes = 5, .extension = "{\"E1_k\":1}"};
	const qg_interop_keys keys = {.saes = saes, .key = &key, .n_keys = 1, .optional = "{\"E2_o\":[true]}"};
	const qg_interop_ack ack = {.status = QG_INTEROP_RELAYED, .saes = saes, .ids = &id, .n_ids = 1};
	const qg_interop_void revoke = {.saes = saes, .ids = &id, .n_ids = 1};
	outcome o;
	outcome_init(&o);
	used->b.interop.calls = 0;
	wait_if(way->ops->send_keys(way, "NET-B", &keys, on_sent, &o), &o);
	if (o.calls > 0 && o.outcome == QG_INTEROP_OUT_ACCEPTED) {
		assert_true(used->b.interop.calls > 0);
		assert_memory_equal(used->b.interop.value, value, 5);
	}
	outcome_init(&o);
	wait_if(way->ops->send_acks(way, "NET-B", &ack, 1, on_sent, &o), &o);
	outcome_init(&o);
	wait_if(way->ops->send_void(way, "NET-B", &revoke, on_sent, &o), &o);
}

static void
requests_arrive_whole_or_not_at_all(void **state)
{
	(void)state;
	used = pair_new("kme-b");
	outcome o = {.outcome = QG_INTEROP_OUT_UNKNOWN};
	pair_start(used);
	refusal_rounds(use_all);
	/* More than once where a refusal ended the connection. */
	for (unsigned tries = 0; tries < 60 && o.outcome == QG_INTEROP_OUT_UNKNOWN; tries++)
		send_two(&used->a, 2, NULL, &o);
	assert_int_equal(o.outcome, QG_INTEROP_OUT_ACCEPTED);
	assert_int_equal(used->b.interop.n, 2);
	pair_free(used);
}

static int
setup(void **state)
{
	(void)state;
	qg_log_init(QG_LOG_ERROR, QG_LOG_TEXT);
	if (qg_secret_init() != QG_OK || pki_make() != 0)
		return -1;
	/* Names of its own: those of pki_files come round. */
	static char name[4][128];
	const qg_tls_files from = pki_files("kme-a");
	const char *const names[] = {from.certificate, from.key, from.ca, from.crl};
	for (size_t i = 0; i < 4; i++)
		(void)snprintf(name[i], sizeof name[i], "%s", names[i]);
	const qg_tls_files files = {.certificate = name[0], .key = name[1], .ca = name[2], .crl = name[3],
				    .min_version = QG_TLS_1_3};
	return qg_http_client_start(&files, &hand) == QG_OK ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	qg_http_client_stop(&hand);
	pki_remove();
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(keys_arrive_whole),
		cmocka_unit_test(outcomes_in_the_answer),
		cmocka_unit_test(draft_form),
		cmocka_unit_test(a_mask_travels),
		cmocka_unit_test(a_mask_that_is_not_agreed),
		cmocka_unit_test(acks_arrive),
		cmocka_unit_test(voids_arrive),
		cmocka_unit_test(what_an_answer_means),
		cmocka_unit_test(nothing_goes_to_another_one),
		cmocka_unit_test(every_result_has_its_problem),
		cmocka_unit_test(good_answers),
		cmocka_unit_test(bad_requests_end_here),
		cmocka_unit_test(drafts_are_tolerated_where_agreed),
		cmocka_unit_test(too_much),
		cmocka_unit_test(other_paths_and_methods),
		cmocka_unit_test(strangers_get_401),
		cmocka_unit_test(more_requests_than_agreed),
		cmocka_unit_test(ends_under_way),
		cmocka_unit_test(made_whole_or_not_at_all),
		cmocka_unit_test(requests_arrive_whole_or_not_at_all),
	};
	cmocka_set_test_filter(getenv("QG_TEST_ONLY"));
	return cmocka_run_group_tests(tests, setup, teardown);
}
