# SPDX-License-Identifier: Apache-2.0
"""ETSI GS QKD 014 V1.1.1, row by row, against the running daemon."""

import json
import re
import threading
import uuid

import pytest

from admin import local
from links import audit_lines, steady_stock
from processes import wait_for

NOT_FOUND = "one or more keys specified are not found on KME"
STATUS_STRINGS = ("source_KME_ID", "target_KME_ID", "master_SAE_ID", "slave_SAE_ID")
STATUS_NUMBERS = ("key_size", "stored_key_count", "max_key_count", "max_key_per_request",
                  "max_key_size", "min_key_size", "max_SAE_ID_count")
BOB = "/api/v1/keys/sae-bob/enc_keys"
ALICE = "/api/v1/keys/sae-alice/dec_keys"
SOME_ID = "a4b5c6d7-0000-8000-8000-0123456789ab"


def one_key(client, slave="sae-bob", **members):
    answer = client.enc(slave, **members)
    assert answer.status == 200, answer.body
    (key,) = answer.keys()
    return key


def bad_request(answer, *words):
    """A 400 whose message names the field, with nothing else in the body."""
    assert answer.status == 400, (answer.status, answer.body)
    assert list(answer.json) == ["message"]
    for word in words:
        assert word in answer.message, answer.message


def unauthorised(answer):
    assert answer.status == 401
    assert answer.body == b""


# --- status ----------------------------------------------------------------------------------

def test_status_names_the_pair_and_the_limits(alice):
    answer = alice.status("sae-bob")
    assert answer.status == 200
    assert answer.headers["Content-Type"].split(";")[0] == "application/json"
    status = answer.json
    assert [status[name] for name in STATUS_STRINGS] == ["KME-A", "KME-B", "sae-alice", "sae-bob"]
    assert all(type(status[name]) is int and status[name] >= 0 for name in STATUS_NUMBERS)
    assert set(status) <= {*STATUS_STRINGS, *STATUS_NUMBERS, "status_extension"}
    assert status["min_key_size"] <= status["key_size"] <= status["max_key_size"]
    assert 0 < status["stored_key_count"] <= status["max_key_count"]


def test_status_counts_keys_down(network, alice):
    network.outage(True)
    try:
        level = steady_stock(network)
        for _ in range(3):
            for _ in range(4):
                assert alice.enc("sae-bob", number=128, size=256).status == 200
            before, level = level, alice.status("sae-bob").json["stored_key_count"]
            if level <= before - 512:
                break  # else what the link gave before the outage has come only now: it is not endless
        # What the end of a segment cannot hold is lost to a request, so it may be more.
        assert before - 700 <= level <= before - 512
    finally:
        network.outage(False)


def test_status_of_a_pair_on_the_same_node(alice):
    status = alice.status("sae-dave").json
    assert (status["source_KME_ID"], status["target_KME_ID"]) == ("KME-A", "KME-A")


def test_status_of_a_pair_without_a_rule_is_refused(alice, mallory):
    unauthorised(alice.status("sae-mallory"))
    unauthorised(mallory.status("sae-alice"))
    unauthorised(mallory.status("sae-bob"))


# --- enc_keys and dec_keys that work ---------------------------------------------------------

@pytest.mark.parametrize("method,path,body,number,bits", [
    ("GET", BOB, None, 1, None),
    ("GET", BOB + "?number=3", None, 3, None),
    ("GET", BOB + "?size=512", None, 1, 512),
    ("GET", BOB + "?number=2&size=64", None, 2, 64),
    ("GET", BOB + "?size=64&number=2", None, 2, 64),
    ("POST", BOB, None, 1, None),
    ("POST", BOB, "", 1, None),
    ("POST", BOB, {}, 1, None),
    ("POST", BOB, {"number": 5}, 5, None),
    ("POST", BOB, {"size": 72}, 1, 72),
    ("POST", BOB, {"number": 128, "size": 256}, 128, 256),
    ("POST", BOB, {"number": 2, "size": 4096}, 2, 4096),
    ("POST", BOB, {"number": 1, "unknown_member": {"any": [1, None]}}, 1, None),
    ("POST", BOB, {"extension_optional": [{"somebodys_wish": {"x": 1}}]}, 1, None),
    ("POST", BOB, {"extension_mandatory": [], "extension_optional": []}, 1, None),
])
def test_enc_keys_gives_what_was_asked_and_bob_gets_the_same(alice, bob, method, path, body, number, bits):
    answer = alice.request(method, path, body)
    assert answer.status == 200, answer.body
    assert answer.headers["Content-Type"].split(";")[0] == "application/json"
    keys = answer.keys()
    default = alice.status("sae-bob").json["key_size"]
    assert [len(key) * 8 for _, key in keys] == [bits or default] * number
    assert len({key_id for key_id, _ in keys}) == number
    assert all(set(entry) == {"key_ID", "key"} for entry in answer.json["keys"])
    got = bob.dec("sae-alice", *(key_id for key_id, _ in keys))
    assert got.status == 200, got.body
    assert got.keys() == keys


def test_key_ids_are_uuids_of_version_8_in_lower_case(alice, bob):
    key_id, _ = one_key(alice)
    parsed = uuid.UUID(key_id)
    assert (parsed.version, parsed.variant, str(parsed)) == (8, uuid.RFC_4122, key_id)


def test_every_size_between_the_limits(alice, bob):
    status = alice.status("sae-bob").json
    sizes = [*range(status["min_key_size"], 1024 + 1, 8), status["max_key_size"]]
    pairs = [one_key(alice, size=size) for size in sizes]
    assert [len(key) * 8 for _, key in pairs] == sizes
    for key_id, key in pairs:
        assert bob.get_dec("sae-alice", key_id).keys() == [(key_id, key)]


def test_dec_keys_by_get_and_in_any_order_by_post(alice, bob):
    keys = alice.enc("sae-bob", number=4).keys()
    first = bob.get_dec("sae-alice", keys[0][0])
    assert first.status == 200 and first.keys() == keys[:1]
    rest = keys[:0:-1]
    assert bob.dec("sae-alice", *(i for i, _ in rest)).keys() == rest


def test_a_get_may_carry_a_content_type(alice):
    assert alice.request("GET", BOB, headers={"Content-Type": "application/json"}).status == 200


def test_key_ids_may_come_in_capitals_and_with_extensions(alice, bob):
    key_id, key = one_key(alice)
    body = {"key_IDs": [{"key_ID": key_id.upper(), "key_ID_extension": {}}], "key_IDs_extension": {}}
    answer = bob.request("POST", ALICE, body)
    assert answer.status == 200, answer.body
    assert [k for _, k in answer.keys()] == [key]


def test_both_directions_are_masters_of_their_own_keys(alice, bob):
    key_id, key = one_key(bob, "sae-alice")
    assert alice.get_dec("sae-bob", key_id).keys() == [(key_id, key)]


def test_path_ids_are_percent_decoded(alice, bob):
    answer = alice.request("GET", "/api/v1/keys/sae%2Dbob/enc_keys")
    assert answer.status == 200
    (key_id, key), = answer.keys()
    got = bob.request("GET", f"/api/v1/keys/s%61e-alice/dec_keys?key_ID={key_id}")
    assert got.keys() == [(key_id, key)]


# --- once, and only for the pair -------------------------------------------------------------

def test_a_key_is_delivered_once(alice, bob):
    key_id, _ = one_key(alice)
    assert bob.get_dec("sae-alice", key_id).status == 200
    for again in (bob.get_dec("sae-alice", key_id), bob.dec("sae-alice", key_id)):
        bad_request(again, NOT_FOUND)


def test_one_unknown_id_in_a_request_consumes_nothing(alice, bob):
    keys = alice.enc("sae-bob", number=2).keys()
    ids = [i for i, _ in keys]
    answer = bob.dec("sae-alice", ids[0], SOME_ID, ids[1])
    assert answer.status == 400 and answer.message == NOT_FOUND
    assert bob.dec("sae-alice", *ids).keys() == keys


def test_one_consumed_id_in_a_request_consumes_nothing(alice, bob):
    keys = alice.enc("sae-bob", number=3).keys()
    ids = [i for i, _ in keys]
    assert bob.get_dec("sae-alice", ids[1]).status == 200
    bad_request(bob.dec("sae-alice", *ids), NOT_FOUND)
    assert bob.dec("sae-alice", ids[0], ids[2]).keys() == [keys[0], keys[2]]


def test_a_stranger_gets_401_and_bob_still_gets_the_key(alice, bob, erin, mallory, dave):
    key_id, key = one_key(alice)
    unauthorised(erin.get_dec("sae-alice", key_id))    # allowed with alice, same node, not named
    unauthorised(mallory.get_dec("sae-alice", key_id))  # allowed with nobody
    unauthorised(bob.get_dec("sae-dave", key_id))       # right slave, wrong master
    assert bob.get_dec("sae-alice", key_id).keys() == [(key_id, key)]


def test_one_foreign_id_makes_the_whole_request_401(alice, bob, erin):
    mine, _ = one_key(alice, "sae-erin")
    foreign, key = one_key(alice, "sae-bob")
    unauthorised(erin.dec("sae-alice", mine, foreign))
    unauthorised(erin.dec("sae-alice", SOME_ID, foreign))
    assert erin.get_dec("sae-alice", mine).status == 200
    assert bob.get_dec("sae-alice", foreign).keys() == [(foreign, key)]


def test_the_master_cannot_fetch_its_own_key(alice, bob):
    key_id, key = one_key(alice)
    answer = alice.get_dec("sae-bob", key_id)
    assert answer.status in (400, 401)
    assert bob.get_dec("sae-alice", key_id).keys() == [(key_id, key)]


def test_enc_keys_for_a_slave_without_a_rule_is_refused(alice, mallory):
    for answer in (alice.enc("sae-mallory"), mallory.enc("sae-bob"), mallory.enc("sae-alice"),
                   alice.enc("sae-nobody"), mallory.enc("sae-nobody")):
        unauthorised(answer)


def test_an_unknown_slave_is_named_only_to_who_may_know(make_network):
    def allow_unknown(name, config):
        if name == "kme-a":
            config["policy"].append({"master": "sae-alice", "slaves": ["sae-ghost-*"]})

    net = make_network(tweak=allow_unknown)
    with net.client("alice") as alice, net.client("dave") as dave:
        answer = alice.enc("sae-ghost-1")
        assert answer.status == 400 and answer.message == "unknown slave_SAE_ID"
        unauthorised(dave.enc("sae-ghost-1"))


# --- requests that are wrong -----------------------------------------------------------------

BAD_ENC = [
    ("GET", "?size=100", None, ["size shall be a multiple of 8"]),
    ("POST", "", {"size": 257}, ["size shall be a multiple of 8"]),
    ("POST", "", {"size": 1}, ["size"]),
    ("POST", "", {"size": 0}, ["size"]),
    ("POST", "", {"size": -8}, ["size"]),
    ("POST", "", {"size": 56}, ["size", "64"]),
    ("POST", "", {"size": 8 * 10**9}, ["size"]),
    ("POST", "", {"size": 10**30}, []),
    ("POST", "", {"size": 256.0}, ["size"]),
    ("POST", "", {"size": "256"}, ["size"]),
    ("POST", "", {"size": None}, ["size"]),
    ("POST", "", {"number": 0}, ["number"]),
    ("POST", "", {"number": -1}, ["number"]),
    ("POST", "", {"number": True}, ["number"]),
    ("POST", "", {"number": "1"}, ["number"]),
    ("POST", "", {"number": [1]}, ["number"]),
    ("POST", "", {"number": 129}, ["number", "128"]),
    ("POST", "", {"number": 2**63}, ["number"]),
    ("GET", "?number=0", None, ["number"]),
    ("GET", "?number=129", None, ["number", "128"]),
    ("GET", "?number=", None, ["number"]),
    ("GET", "?number=1x", None, ["number"]),
    ("GET", "?number=+1", None, ["number"]),
    ("GET", "?number=-1", None, ["number"]),
    ("GET", "?number=1&number=2", None, ["number"]),
    ("GET", "?number=99999999999999999999", None, ["number"]),
    ("GET", "?size=56", None, ["size", "64"]),
    ("GET", "?color=red", None, ["color"]),
    ("GET", "?number=1&key_ID=" + SOME_ID, None, ["key_ID"]),
    ("POST", "", [], []),
    ("POST", "", "null", []),
    ("POST", "", "17", []),
    ("POST", "", "{", []),
    ("POST", "", '{"number": 1} x', []),
    ("POST", "", '{"number": 1, "number": 1}', ["number"]),
    ("POST", "", '{"number": 1, "other": {"a": 1, "a": 2}}', []),
    ("POST", "", b'{"number": 1, "x": "\xff"}', []),
    ("POST", "", "[" * 60000, []),
    ("POST", "", {"extension_mandatory": {}}, ["extension_mandatory"]),
    ("POST", "", {"extension_mandatory": "x"}, ["extension_mandatory"]),
    ("POST", "", {"extension_mandatory": [1]}, ["extension_mandatory"]),
    ("POST", "", {"extension_mandatory": [{}]}, ["extension_mandatory"]),
    ("POST", "", {"extension_optional": {}}, ["extension_optional"]),
    ("POST", "", {"extension_optional": [[]]}, ["extension_optional"]),
    ("POST", "", {"additional_slave_SAE_IDs": []}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": "sae-dave"}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": [7]}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": [""]}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": [" "]}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": ["sae-dave", "sae-dave"]}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": ["sae-bob"]}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": ["sae-alice"]}, ["additional_slave_SAE_IDs"]),
    ("POST", "", {"additional_slave_SAE_IDs": [f"sae-{i}" for i in range(9)]},
     ["additional_slave_SAE_IDs", "8"]),
]


@pytest.mark.parametrize("method,query,body,words", BAD_ENC)
def test_enc_keys_that_are_wrong(alice, method, query, body, words):
    bad_request(alice.request(method, BOB + query, body), *words)


def test_wrong_requests_consume_nothing(make_network):
    net = make_network(admin=True, pool={"ready_chunks": 1024, "inbound_chunks": 8192})
    with net.client("alice") as alice:
        net.outage(True)
        stock, before = steady_stock(net), local(net).stream("a-to-b")
        for method, query, body, _ in BAD_ENC:
            assert alice.request(method, BOB + query, body).status == 400
        after = local(net).stream("a-to-b")
        assert net.stock("alice", "bob") >= stock and after["issued_chunks"] == before["issued_chunks"]


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_a_body_of_another_type_is_refused(alice, kind):
    bad_request(alice.request("POST", BOB, '{"number": 1}', {"Content-Type": kind}), "Content-Type")


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8",
                                  "Application/JSON;charset=UTF-8"])
def test_json_content_types_are_taken(alice, kind):
    assert alice.request("POST", BOB, '{"number": 1}', {"Content-Type": kind}).status == 200


def test_a_body_over_the_limit_is_refused(alice):
    padding = "x" * 66000
    bad_request(alice.request("POST", BOB, {"number": 1, "padding": padding}))
    assert alice.request("POST", BOB, {"number": 1, "padding": padding[:60000]}).status == 200


BAD_DEC = [
    ("GET", "", None, ["key_ID"]),
    ("GET", "?key_ID=", None, ["key_ID"]),
    ("GET", "?key_ID=nonsense", None, ["key_ID"]),
    ("GET", f"?key_ID={SOME_ID}&key_ID={SOME_ID}", None, ["key_ID"]),
    ("GET", f"?key_ID={SOME_ID}&x=1", None, ["x"]),
    ("GET", f"?key_id={SOME_ID}", None, ["key_id"]),
    ("GET", f"?key_ID={SOME_ID}0", None, ["key_ID"]),
    ("GET", f"?key_ID={{{SOME_ID}}}", None, ["key_ID"]),
    ("POST", "", None, ["key_IDs"]),
    ("POST", "", {}, ["key_IDs"]),
    ("POST", "", {"key_IDs": []}, ["key_IDs"]),
    ("POST", "", {"key_IDs": {}}, ["key_IDs"]),
    ("POST", "", {"key_IDs": SOME_ID}, ["key_IDs"]),
    ("POST", "", {"key_IDs": [SOME_ID]}, ["key_IDs"]),
    ("POST", "", {"key_IDs": [{}]}, ["key_ID"]),
    ("POST", "", {"key_IDs": [{"key_ID": 5}]}, ["key_ID"]),
    ("POST", "", {"key_IDs": [{"key_ID": "nonsense"}]}, ["key_ID"]),
    ("POST", "", {"key_IDs": [{"key_ID": SOME_ID}, {"key_ID": SOME_ID}]}, ["key_ID"]),
    ("POST", "", {"key_IDs": [{"key_ID": SOME_ID}, {"key_ID": SOME_ID.upper()}]}, ["key_ID"]),
    ("POST", "", {"key_IDs": [{"key_ID": str(uuid.UUID(int=i))} for i in range(129)]}, ["key_IDs", "128"]),
    ("POST", "", f'{{"key_IDs": [{{"key_ID": "{SOME_ID}", "key_ID": "{SOME_ID}"}}]}}', []),
    ("POST", "", "[]", []),
    ("GET", f"?key_ID={SOME_ID}", None, [NOT_FOUND]),
    ("GET", "?key_ID=00000000-0000-0000-0000-000000000000", None, [NOT_FOUND]),
    ("GET", "?key_ID=c7a5a3b6-64a0-4c1e-b8a8-4c1d7c7f9a55", None, [NOT_FOUND]),
    ("POST", "", {"key_IDs": [{"key_ID": SOME_ID}]}, [NOT_FOUND]),
]


@pytest.mark.parametrize("method,query,body,words", BAD_DEC)
def test_dec_keys_that_are_wrong(bob, method, query, body, words):
    bad_request(bob.request(method, ALICE + query, body), *words)


@pytest.mark.parametrize("path", [
    "/api/v1/keys/%20/enc_keys", "/api/v1/keys/sae-alice/enc_keys", "/api/v1/keys/%00/enc_keys",
    "/api/v1/keys/sae-bob%00/enc_keys", "/api/v1/keys/sae-bob%0a/enc_keys",
    "/api/v1/keys/sae-alice/status", "/api/v1/keys/%zz/enc_keys",
    "/api/v1/keys/" + "s" * 2000 + "/enc_keys",
])
def test_a_malformed_or_own_id_in_the_path_is_400(alice, path):
    answer = alice.request("GET", path)
    assert answer.status == 400, (answer.status, answer.body)
    assert answer.message


# --- extensions ------------------------------------------------------------------------------

def test_unknown_mandatory_extensions_are_named(alice):
    answer = alice.enc("sae-bob", extension_mandatory=[{"abc_x": 1}, {"def_y": {"z": []}}])
    assert answer.status == 400
    assert answer.message == "not all extension_mandatory parameters are supported"
    names = [name for entry in answer.json["details"] for name in entry.values()] + \
            [name for entry in answer.json["details"] for name in entry]
    assert all(len(entry) == 1 for entry in answer.json["details"])
    assert "abc_x" in names and "def_y" in names


MET = [{"max_age_ms": 3_600_000}, {"min_hops": 0}, {"max_hops": 0}, {"max_hops": 5}]
UNMET = [{"min_hops": 1}, {"min_hops": 3}]
WRONG = [{"max_age_ms": "old"}, {"max_age_ms": -1}, {"min_hops": 1.5}, {"max_hops": None}]


@pytest.mark.parametrize("extension", MET)
def test_mandatory_extensions_that_can_be_met(alice, bob, extension):
    key_id, key = one_key(alice, extension_mandatory=[extension])
    assert bob.get_dec("sae-alice", key_id).keys() == [(key_id, key)]


@pytest.mark.parametrize("extension", UNMET)
def test_mandatory_extensions_that_cannot_be_met(alice, extension):
    answer = alice.enc("sae-bob", extension_mandatory=[extension])
    assert answer.status == 400
    assert answer.message == "not all extension_mandatory request options could be met"


@pytest.mark.parametrize("extension", WRONG)
def test_mandatory_extensions_of_the_wrong_type(alice, extension):
    answer = alice.enc("sae-bob", extension_mandatory=[extension])
    assert answer.status == 400, answer.body


def test_a_maximum_age_that_no_key_has(network, alice):
    network.outage(True)
    try:
        steady_stock(network)
        answer = alice.enc("sae-bob", extension_mandatory=[{"max_age_ms": 1}])
        assert answer.status == 400
        assert answer.message == "not all extension_mandatory request options could be met"
        assert alice.enc("sae-bob", extension_mandatory=[{"max_age_ms": 3_600_000}]).status == 200
    finally:
        network.outage(False)


# --- the same node, additional slaves --------------------------------------------------------

def test_a_pair_on_the_same_node(alice, dave, erin):
    keys = alice.enc("sae-dave", number=3, size=512).keys()
    ids = [i for i, _ in keys]
    assert all(len(key) == 64 for _, key in keys)
    assert dave.dec("sae-alice", *ids).keys() == keys
    bad_request(dave.get_dec("sae-alice", ids[0]), NOT_FOUND)


def test_a_same_node_key_is_for_its_slave_alone(alice, dave, network):
    key_id, key = one_key(alice, "sae-dave")
    assert alice.get_dec("sae-dave", key_id).status in (400, 401)
    unauthorised(dave.get_dec("sae-bob", key_id))  # right target, another initiator
    assert dave.get_dec("sae-alice", key_id).keys() == [(key_id, key)]


def test_additional_slaves_on_this_node_get_the_same_key_once(alice, bob, dave, erin):
    answer = alice.enc("sae-bob", number=2, additional_slave_SAE_IDs=["sae-dave"])
    assert answer.status == 200, answer.body
    keys = answer.keys()
    ids = [i for i, _ in keys]
    unauthorised(erin.dec("sae-alice", *ids))
    assert dave.dec("sae-alice", *ids).keys() == keys
    assert bob.dec("sae-alice", *ids).keys() == keys
    for client in (bob, dave):
        bad_request(client.get_dec("sae-alice", ids[0]), NOT_FOUND)


def test_an_additional_slave_without_a_rule_is_refused(alice):
    answer = alice.enc("sae-bob", additional_slave_SAE_IDs=["sae-mallory"])
    assert answer.status in (400, 401), answer.body


def test_an_unknown_additional_slave_is_refused(alice):
    answer = alice.enc("sae-bob", additional_slave_SAE_IDs=["sae-nobody"])
    assert answer.status in (400, 401), answer.body


def test_extra_slaves_survive_concurrent_fetches(alice, dave, bob, network):
    """The same transferred key asked for by its target many times at once: one gets it."""
    key_id, key = one_key(alice, "sae-dave")
    answers = simultaneously(network, "dave", lambda c: c.get_dec("sae-alice", key_id), 8)
    assert sorted(a.status for a in answers) == [200] + [400] * 7


def simultaneously(network, sae, ask, n):
    """n answers to the same question asked at once on n connections."""
    barrier, answers = threading.Barrier(n), []

    def run():
        with network.client(sae) as client:
            client.status("sae-alice" if sae != "alice" else "sae-bob")
            barrier.wait()
            answers.append(ask(client))

    threads = [threading.Thread(target=run) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# --- methods, paths, the description ---------------------------------------------------------

@pytest.mark.parametrize("method,path,allowed", [
    ("PUT", BOB, {"GET", "POST"}), ("DELETE", BOB, {"GET", "POST"}), ("PATCH", ALICE, {"GET", "POST"}),
    ("POST", "/api/v1/keys/sae-bob/status", {"GET"}), ("DELETE", "/api/v1/keys/sae-bob/status", {"GET"}),
])
def test_other_methods_get_405_with_allow(alice, method, path, allowed):
    answer = alice.request(method, path, "{}" if method != "DELETE" else None)
    assert answer.status == 405
    assert allowed <= set(re.split(r",\s*", answer.headers["Allow"])) <= allowed | {"HEAD", "OPTIONS"}


@pytest.mark.parametrize("path", [
    "/", "/api", "/api/v1/keys", "/api/v1/keys/sae-bob", "/api/v1/keys/sae-bob/", "/api/v1/keys/sae-bob/other",
    "/api/v1/keys/sae-bob/enc_keys/", "/api/v1/keys/sae-bob/enc_keys/x", "/api/v2/keys/sae-bob/enc_keys",
    "/api/v1/keys/../keys/sae-bob/enc_keys", "/API/v1/keys/sae-bob/enc_keys", "/api/v1/kms/get_status",
])
def test_unknown_paths_get_404(alice, path):
    assert alice.request("GET", path).status == 404


def test_the_description_is_served(alice):
    answer = alice.request("GET", "/openapi.yaml")
    assert answer.status == 200
    text = answer.body.decode()
    assert text.lstrip("# \n").find("openapi:") >= 0
    for path in ("/api/v1/keys/{slave_SAE_ID}/status", "/api/v1/keys/{slave_SAE_ID}/enc_keys",
                 "/api/v1/keys/{master_SAE_ID}/dec_keys"):
        assert path in text


# --- the audit log ---------------------------------------------------------------------------

def audit_of(network, node, key_id):
    return [line for line in audit_lines(network.folder / node / "audit.log") if line.get("id") == key_id]


def test_every_key_delivered_or_refused_is_in_the_audit_log(network, alice, bob, erin):
    key_id, key = one_key(alice)
    assert len(wait_for("issue in the audit log", lambda: audit_of(network, "kme-a", key_id), 20)) == 1
    unauthorised(erin.get_dec("sae-alice", key_id))
    assert bob.get_dec("sae-alice", key_id).status == 200
    lines = wait_for("refusal and delivery in the audit log",
                     lambda: len(x := audit_of(network, "kme-b", key_id)) >= 2 and x, 20)
    text = json.dumps(lines)
    assert len(lines) == 2 and "sae-erin" in text and "sae-bob" in text
    assert key.hex() not in text
