# SPDX-License-Identifier: Apache-2.0
"""ETSI GS QKD 020 V1.1.1 and its drafts, row by row, against the running daemon from both sides: four
other networks are played by the test. KME-A is the border, with alice and dave; bob is at KME-B."""

import http.client
import json
import re
import ssl
import threading
import time
import uuid

import pytest

from links import audit_lines
from network import LOOPBACK, Ports, make_pki
from peer020 import EXT_KEYS, PROBLEMS, TYPE, Peer, ack_of, container, draft_saes, new_key, value_of
from processes import wait_for
from topology import pair

PATIENT_MS = 20_000
NET1, NET2, NET3, NET4 = "net1", "net2", "net3", "net4"  # asynchronous, synchronous, draft-url, impatient
ACK_TIMEOUT_MS = {NET1: PATIENT_MS, NET2: PATIENT_MS, NET3: 6000, NET4: 1000}
SAES = {NET1: "sae-zoe", NET2: "sae-yann", NET3: "sae-xena", NET4: "sae-wanda"}
HERE = ["sae-alice", "sae-bob", "sae-dave"]


def _peer_section(peer, name, listener):
    section = {
        "id": name, "url": peer.url, "certificate": {"dns": f"{peer.name}.demo"},
        "callback_url": peer.callback, "link": "kxi-prime", "saes": [SAES[name], f"{name}-*"],
        "reach": [*HERE, *(s for n, s in SAES.items() if n != name)],
        "ack_timeout_ms": ACK_TIMEOUT_MS[name], "timeout_ms": PATIENT_MS,
    }
    if name in (NET1, NET4):
        section["our_callback_url"] = f"https://{listener}{EXT_KEYS}/ack"
    elif name == NET2:
        section["mode"] = "synchronous"
    else:
        section["dialect"] = "draft-url"
        section["draft_acks"] = True
    return section


class Border:
    """The network and the others."""

    def __init__(self, make, pki):
        self.port = Ports().take()
        self.peers = {name: Peer(pki, f"kme-{name}") for name in SAES}
        for peer in self.peers.values():
            peer.gateway = (LOOPBACK, self.port)
        self.network = make(pair(node_chunks=1024), tweak=self._configure,
                            pool={"ready_chunks": 16384, "inbound_chunks": 262144})
        self.folder = self.network.folder

    def _configure(self, name, config):
        everyone = [*HERE, *SAES.values(), *(f"{n}-*" for n in SAES), "sae-nobody"]
        config["policy"] += [{"master": sae, "slaves": everyone} for sae in SAES.values()]
        if name != "kme-a":
            config["directory"] += [{"sae": sae, "border": "KME-A"} for sae in SAES.values()]
            return
        listener = f"{LOOPBACK}:{self.port}"
        config["kxi_listener"] = {"listen": listener, "certificate": "pki/kme-a.pem", "key": "pki/kme-a.key",
                                  "ca": "pki/ca.pem"}
        config["limits"] = {"transfer_timeout_ms": 2 * PATIENT_MS}
        config["peers"] = [_peer_section(peer, n, listener) for n, peer in self.peers.items()]

    def end(self):
        for peer in self.peers.values():
            peer.end()

    def audit(self, act, key_id=None, at="kme-a", **members):
        """Lines of an audit log, the border's by default."""
        lines = audit_lines(self.folder / at / "audit.log")
        want = {"act": act, **({"id": key_id} if key_id else {}), **members}
        return [e for e in lines if all(e.get(k) == v for k, v in want.items())]

    def wait_audit(self, *what, **members):
        return wait_for(f"audit of {what}", lambda: self.audit(*what, **members), 30)


@pytest.fixture(scope="module")
def border(make_shared, pki):
    missing = [f"kme-{name}" for name in SAES if not (pki / f"kme-{name}.pem").exists()]
    if missing:
        make_pki(pki, *missing)
    made = Border(make_shared, pki)
    yield made
    made.end()


@pytest.fixture
def net1(border):
    border.peers[NET1].reset()
    return border.peers[NET1]


@pytest.fixture
def net2(border):
    border.peers[NET2].reset()
    border.peers[NET2].on_keys = border.peers[NET2].answer_outcome
    return border.peers[NET2]


@pytest.fixture
def net3(border):
    border.peers[NET3].reset()
    border.peers[NET3].on_keys = lambda request: (200, {"message": "relayed", "details": []})
    return border.peers[NET3]


@pytest.fixture
def net4(border):
    border.peers[NET4].reset()
    return border.peers[NET4]


@pytest.fixture
def client(border):
    made = []

    def make(sae):
        made.append(border.network.client(sae, timeout_s=90))
        return made[-1]

    yield make
    for one in made:
        one.close()


def fetch(client, sae, master, key):
    """The key at dec_keys: once, with the same value."""
    got = client(sae).dec(master, key["key_id"])
    assert got.status == 200, got.body
    assert got.keys() == [(key["key_id"], value_of(key))]


def not_there(client, sae, master, key_id):
    answer = client(sae).dec(master, key_id)
    assert answer.status in (400, 401), answer.body


# --- transport -----------------------------------------------------------------------------------

def test_tls_1_3_and_a_certificate_are_needed(border, pki):
    def handshake(version, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(pki / "ca.pem")
        context.minimum_version = context.maximum_version = version
        if certificate:
            context.load_cert_chain(pki / f"{certificate}.pem", pki / f"{certificate}.key")
        connection = http.client.HTTPSConnection(LOOPBACK, border.port, timeout=120, context=context)
        connection.request("GET", "/kmapi/versions")
        answer = connection.getresponse()
        return answer.status, answer.version, answer.read()

    assert handshake(ssl.TLSVersion.TLSv1_3, "kme-net1")[:2] == (200, 11)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        handshake(ssl.TLSVersion.TLSv1_2, "kme-net1")
    for wrong in (None, "kme-b-foreign", "expired"):  # none, of another authority, out of date
        assert wrong is None or (pki / f"{wrong}.pem").exists()
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            handshake(ssl.TLSVersion.TLSv1_3, wrong)


def test_a_certificate_that_names_no_peer_is_401_everywhere(border, pki):
    for name in ("kme-b", "alice"):
        stranger = Peer(pki, name)
        stranger.gateway = (LOOPBACK, border.port)
        try:
            key = new_key()
            for path in (EXT_KEYS, f"{EXT_KEYS}/ack", f"{EXT_KEYS}/void", f"{EXT_KEYS}/sae-zoe/sae-alice", "/x"):
                answer = stranger.post(path, container([key], "sae-zoe", ["sae-alice"]))
                assert answer.problem() == (401, "unauthorized", {"unauthorized"})
            assert stranger.post("/kmapi/versions", None, method="GET").status == 401
        finally:
            stranger.end()
    border.wait_audit("refused", reason="certificate names no peer")


def test_versions(net1):
    answer = net1.post("/kmapi/versions", None, method="GET")
    assert (answer.status, answer.headers["Content-Type"]) == (200, TYPE)
    assert answer.json == {"versions": ["v1"], "capabilities": ["synchronous_mode"]}


def test_the_description_is_served(net1):
    answer = net1.post("/openapi.yaml", None, method="GET")
    assert answer.status == 200
    assert b"/kmapi/v1/ext_keys/void" in answer.body


def test_other_paths_and_methods(net1):
    assert net1.post("/kmapi/v2/ext_keys", {}).status == 404
    assert net1.post(EXT_KEYS, None, method="GET").status == 405
    assert net1.post("/kmapi/versions", {}).status == 405


# --- ext_keys, taken --------------------------------------------------------------------------------

def test_asynchronous_keys_are_acknowledged_and_delivered_once(net1, client, border):
    key = new_key()
    answer = net1.give([key], "sae-zoe", ["sae-alice"])
    assert (answer.status, answer.body) == (202, b"")
    (ack,) = net1.wait_ack(key["key_id"])
    assert ack == ack_of([key["key_id"]], "relayed", "sae-zoe", ["sae-alice"]) | {
        k: ack[k] for k in ("message",) if k in ack}
    fetch(client, "alice", "sae-zoe", key)
    not_there(client, "alice", "sae-zoe", key["key_id"])
    border.wait_audit("fetched", key["key_id"])
    assert net1.wait(f"{EXT_KEYS}/ack")[-1].headers["Content-Type"] == TYPE


def test_synchronous_outcomes_come_in_the_answer_alone(net1, client):
    key = new_key()
    answer = net1.give([key], "sae-zoe", ["sae-alice"], callback=False)
    assert (answer.status, answer.headers["Content-Type"]) == (200, TYPE)
    (ack,) = answer.json
    assert (ack["ack_status"], ack["initiator_sae_id"], ack["target_sae_ids"]) == (
        "relayed", "sae-zoe", ["sae-alice"])
    assert ack["key_id_container"] == [{"key_id": key["key_id"]}]
    fetch(client, "alice", "sae-zoe", key)
    assert not net1.of(f"{EXT_KEYS}/ack", lambda r: key["key_id"] in json.dumps(r.body))


def test_keys_for_several_targets_at_several_nodes(net1, client):
    keys = [new_key(), new_key(64)]
    assert net1.give(keys, "sae-zoe", ["sae-alice", "sae-bob"]).status == 202
    for key in keys:
        net1.wait_ack(key["key_id"], "relayed")
        for sae in ("alice", "bob"):
            fetch(client, sae, "sae-zoe", key)
        not_there(client, "dave", "sae-zoe", key["key_id"])


def test_a_full_request_of_1024_keys(net1, client):
    keys = [new_key() for _ in range(1024)]
    answer = net1.give(keys, "sae-zoe", ["sae-alice"], callback=False)
    assert answer.status == 200, answer.body[:300]
    acks = answer.json
    assert {k["key_id"] for c in acks for k in c["key_id_container"]} == {k["key_id"] for k in keys}
    assert {c["ack_status"] for c in acks} == {"relayed"}
    fetch(client, "alice", "sae-zoe", keys[-1])
    assert net1.void([k["key_id"] for k in keys[:-1]], "sae-zoe", ["sae-alice"], callback=False).status == 200


def test_an_identical_retry_is_answered_the_same(net1, client):
    key = new_key()
    assert net1.give([key], "sae-zoe", ["sae-alice"]).status == 202
    net1.wait_ack(key["key_id"], "relayed")
    assert net1.give([key], "sae-zoe", ["sae-alice"]).status == 202
    net1.wait_ack(key["key_id"], "relayed", count=2)
    fetch(client, "alice", "sae-zoe", key)
    not_there(client, "alice", "sae-zoe", key["key_id"])


def test_the_same_id_with_another_value_is_refused(net1, client, border):
    key, other = new_key(), new_key()
    assert net1.give([key], "sae-zoe", ["sae-alice"]).status == 202
    net1.wait_ack(key["key_id"], "relayed")
    twin = {**key, "value": other["value"]}
    answer = net1.give([other, twin], "sae-zoe", ["sae-alice"])
    assert answer.problem() == (503, "server-side-general-error", {"server_side_general_error"})
    border.wait_audit("refused", key["key_id"], caller="kxi:net1")
    not_there(client, "alice", "sae-zoe", other["key_id"])  # refused whole
    fetch(client, "alice", "sae-zoe", key)


# --- ext_keys, refused -------------------------------------------------------------------------------

GOOD = new_key()
MISSING = (400, "missing-parameters", {"missing_parameters"})


def without(*names, **changed):
    body = container([GOOD], "sae-zoe", ["sae-alice"])
    for name in names:
        del body[name]
    return {**body, **changed}


def with_key(**changed):
    return without(keys=[{k: v for k, v in {**GOOD, **changed}.items() if v is not None}])


BAD_KEYS = {
    "no keys": without("keys"),
    "no initiator": without("initiator_sae_id"),
    "no targets": without("target_sae_ids"),
    "empty keys": without(keys=[]),
    "keys no array": without(keys={}),
    "key no object": without(keys=["x"]),
    "empty targets": without(target_sae_ids=[]),
    "target twice": without(target_sae_ids=["sae-alice", "sae-alice"]),
    "target no string": without(target_sae_ids=[1]),
    "initiator with space": without(initiator_sae_id="sae zoe"),
    "initiator of 65": without(initiator_sae_id="z" * 65),
    "initiator empty": without(initiator_sae_id=""),
    "no key_id": with_key(key_id=None),
    "no value": with_key(value=None),
    "key_id no uuid": with_key(key_id="not-a-uuid"),
    "key_id with braces": with_key(key_id="{" + GOOD["key_id"] + "}"),
    "key_id a number": with_key(key_id=7),
    "bad base64": with_key(value="AAA?"),
    "base64 unpadded": with_key(value="AAAAA"),
    "base64 url alphabet": with_key(value="__--"),
    "value empty": with_key(value=""),
    "value null": without(keys=[{**GOOD, "value": None}]),
    "value of 4096 bytes": with_key(value="A" * 5464),
    "key extension empty": with_key(extension={}),
    "key extension without PEN": with_key(extension={"x": 1}),
    "key_id twice": without(keys=[GOOD, GOOD]),
    "callback no https": without(ack_callback_url="http://127.0.0.1/"),
    "callback no host": without(ack_callback_url="https://"),
    "callback of 1025": without(ack_callback_url="https://h/" + "x" * 1015),
    "callback no string": without(ack_callback_url=None),
    "mandatory no object": without(extension_mandatory=[]),
    "mandatory empty": without(extension_mandatory={}),
    "optional without PEN": without(extension_optional={"E_x": 1}),
    "optional of 1025": without(extension_optional={f"E1_{i}": 1 for i in range(1025)}),
    "1025 keys": without(keys=[new_key() for _ in range(1025)]),
    "a list": [],
    "no JSON": b"{\"keys\":",
    "not UTF-8": b"{\"keys\":\"\xff\"}",
    "nothing": b" ",
}


@pytest.mark.parametrize("what", BAD_KEYS)
def test_missing_or_malformed_parameters(net1, what):
    assert net1.post(EXT_KEYS, BAD_KEYS[what]).problem() == MISSING


def test_nothing_of_the_malformed_requests_was_kept(net1, client, border):
    not_there(client, "alice", "sae-zoe", GOOD["key_id"])
    key = new_key()
    good = json.dumps(container([key], "sae-zoe", ["sae-alice"]))
    twice = good[:-1] + ',"keys":' + json.dumps([key]) + "}"
    assert net1.post(EXT_KEYS, twice.encode()).problem() == MISSING
    assert "keys" in net1.post(EXT_KEYS, twice.encode()).json["details"]["missing_parameters"]
    assert net1.post(EXT_KEYS, good.encode(), content_type="text/plain").problem() == MISSING
    not_there(client, "alice", "sae-zoe", key["key_id"])
    assert net1.post(EXT_KEYS, good.encode(), content_type="application/json").status == 200
    fetch(client, "alice", "sae-zoe", key)
    border.wait_audit("refused", caller="kxi:net1", reason="keys is missing, empty or not an array")


@pytest.mark.parametrize("path", ["", "/ack", "/void", "/sae-zoe/sae-alice"])
def test_bodies_of_10_mb_are_refused(net1, border, path):
    many = json.dumps(without(keys=[{"key_id": str(uuid.uuid4()), "value": "A" * 44}] * 100_000)).encode()
    assert len(many) > 10_000_000
    types = {"/ack": "ack-not-understood", "/void": "void-request-not-understood"}
    try:
        status, problem, _ = net1.post(EXT_KEYS + path, many).problem()
    except OSError:
        pass  # cut while it still sends
    else:
        assert (status, problem) == (400, types.get(path, "missing-parameters"))
    status, problem, _ = net1.post(EXT_KEYS + path, many[:1_100_000]).problem()
    assert (status, problem) == (400, types.get(path, "missing-parameters"))
    border.wait_audit("refused", caller="kxi:net1", reason="the body is larger than 1048576 bytes")


def test_who_may_be_named(net1, client, border):
    cases = {
        # an initiator behind another peer, here, or nowhere
        ("sae-yann", "sae-alice"): (401, "unauthorized", {"unauthorized"}),
        ("sae-bob", "sae-alice"): (401, "unauthorized", {"unauthorized"}),
        ("sae-unheard-of", "sae-alice"): (401, "unauthorized", {"unauthorized"}),
        # behind it, but without a rule for the pair
        ("net1-x", "sae-alice"): (401, "unauthorized", {"unauthorized"}),
        # back to where it came from
        ("sae-zoe", "net1-back"): (400, "key-routing-error", {"invalid_routing"}),
        ("sae-zoe", "sae-zoe"): (400, "key-routing-error", {"invalid_routing"}),
    }
    for (initiator, target), problem in cases.items():
        key = new_key()
        assert net1.give([key], initiator, [target]).problem() == problem, (initiator, target)
        if initiator != target:  # which is seen before the keys
            border.wait_audit("refused", key["key_id"], caller="kxi:net1")
    for target in ("sae-mallory", "sae-nobody"):  # not in reach
        key = new_key()
        status, kind, _ = net1.give([key], "sae-zoe", ["sae-alice", target]).problem()
        assert (status, kind) in ((401, "unauthorized"), (400, "key-routing-error"))
        not_there(client, "alice", "sae-zoe", key["key_id"])


def test_rule_14_an_id_of_this_gateways_own_is_refused(net1, client, border):
    """Such an ID belongs to chunks of a stream, and must never stand for another key."""
    ((key_id, value),) = client("alice").enc("sae-bob").keys()
    forged = {**new_key(), "key_id": key_id}
    answer = net1.give([new_key(), forged], "sae-zoe", ["sae-bob"])
    assert answer.problem() == (400, "key-routing-error", {"invalid_routing"})
    border.wait_audit("refused", key_id, caller="kxi:net1")
    not_there(client, "bob", "sae-zoe", key_id)
    assert client("bob").dec("sae-alice", key_id).keys() == [(key_id, value)]


def test_foreign_callbacks(net1, net2, client, border):
    for url in (net2.callback, net1.callback + "/", net1.callback.upper().replace("HTTPS", "https"),
                "https://169.254.169.254/latest/meta-data"):
        key = new_key()
        answer = net1.give([key], "sae-zoe", ["sae-alice"], callback=False, ack_callback_url=url)
        assert answer.problem() == (401, "unauthorized", {"unauthorized"})
        not_there(client, "alice", "sae-zoe", key["key_id"])
        border.wait_audit("refused", key["key_id"], reason="ack_callback_url is not the one agreed")
        answer = net1.void([key["key_id"]], "sae-zoe", ["sae-alice"], callback=False, ack_callback_url=url)
        assert answer.problem() == (401, "unauthorized", {"unauthorized"})


def test_extensions(net1, client):
    for name in ("E1_x", "E32473_kxi_mask"):  # the latter only where a stream is agreed
        key = new_key()
        answer = net1.give([key], "sae-zoe", ["sae-alice"], extension_mandatory={name: {"a": 1}})
        assert answer.problem() == (503, "unsupported-mandatory-extension", {"unsupported_mandatory_extension"})
        not_there(client, "alice", "sae-zoe", key["key_id"])
    key = new_key(extension={"E7_k": {"deep": [1, 2.5, None]}})
    optional = {f"E1_{i}": i for i in range(1024)}
    answer = net1.give([key], "sae-zoe", ["sae-alice"], callback=False, extension_optional=optional)
    assert answer.status == 200
    fetch(client, "alice", "sae-zoe", key)


def test_more_than_32_targets(net1):
    targets = [f"sae-{i}" for i in range(33)]
    answer = net1.give([new_key()], "sae-zoe", targets)
    assert answer.problem() == (503, "key-routing-error", {"no_route_multiple_targets"})


# --- acks that go out ------------------------------------------------------------------------------------

def test_an_ack_is_sent_again_after_a_failure(net1, client):
    answers = iter([(503, None), (None, None), (200, None)])
    key = new_key()
    net1.on_ack = lambda request: next(answers, (200, None)) if key["key_id"] in json.dumps(request.body) else (200, None)
    assert net1.give([key], "sae-zoe", ["sae-alice"]).status == 202
    net1.wait_ack(key["key_id"], "relayed", count=3)
    fetch(client, "alice", "sae-zoe", key)


def test_keys_are_voided_when_acks_never_arrive(net4, client, border):
    net4.on_ack = lambda request: (503, None)
    key = new_key()
    assert net4.give([key], "sae-wanda", ["sae-dave"]).status == 202
    net4.wait_ack(key["key_id"], "relayed", count=2)
    void = net4.wait_void(key["key_id"], timeout_s=120)[0]  # the opposite way
    assert (void.body["initiator_sae_id"], void.body["target_sae_ids"]) == ("sae-wanda", ["sae-dave"])
    not_there(client, "dave", "sae-wanda", key["key_id"])
    border.wait_audit("voided", key["key_id"])


# --- void that comes in ------------------------------------------------------------------------------------

def test_a_void_ends_a_key_for_good(net1, client, border):
    key = new_key()
    assert net1.give([key], "sae-zoe", ["sae-alice"]).status == 202
    net1.wait_ack(key["key_id"], "relayed")
    answer = net1.void([key["key_id"]], "sae-zoe", ["sae-alice"])
    assert (answer.status, answer.body) == (202, b"")
    net1.wait_ack(key["key_id"], "voided")
    not_there(client, "alice", "sae-zoe", key["key_id"])
    border.wait_audit("voided", key["key_id"])
    assert net1.give([key], "sae-zoe", ["sae-alice"]).problem()[0] in (400, 503)  # a late one
    not_there(client, "alice", "sae-zoe", key["key_id"])


def test_a_void_after_delivery_fails(net1, client):
    key = new_key()
    assert net1.give([key], "sae-zoe", ["sae-alice"]).status == 202
    net1.wait_ack(key["key_id"], "relayed")
    fetch(client, "alice", "sae-zoe", key)
    answer = net1.void([key["key_id"]], "sae-zoe", ["sae-alice"], callback=False)
    assert answer.status == 200
    assert [c["ack_status"] for c in answer.json] == ["failed to void"]


def test_a_void_goes_before_its_key(net1, client):
    key = new_key()
    answer = net1.void([key["key_id"]], "sae-zoe", ["sae-alice"], callback=False)
    assert answer.status == 200
    assert answer.json[0]["ack_status"] in ("voided", "key not present")
    assert net1.give([key], "sae-zoe", ["sae-alice"]).problem()[0] in (400, 503)
    not_there(client, "alice", "sae-zoe", key["key_id"])


def test_a_void_of_all_between_two(net1, client):
    keys = [new_key() for _ in range(3)]
    assert net1.give(keys, "sae-zoe", ["sae-dave"], callback=False).status == 200
    empty = (400, "no-key-ids-or-confirmation", {"no_key_ids_or_confirmation", "no_all_confirmation"})
    assert net1.void([], "sae-zoe", ["sae-dave"]).problem() == empty
    assert net1.void([], "sae-zoe", ["sae-dave"], all_confirmation=False).problem() == empty
    answer = net1.void([], "sae-zoe", ["sae-dave"], callback=False, all_confirmation=True)
    assert answer.status == 200, answer.body
    for key in keys:
        not_there(client, "dave", "sae-zoe", key["key_id"])


NOT_VOID = (400, "void-request-not-understood", {"key_voiding_error"})
BAD_VOIDS = {
    "no ids": {"initiator_sae_id": "sae-zoe", "target_sae_ids": ["sae-alice"]},
    "ids no array": {"key_ids": "x", "initiator_sae_id": "sae-zoe", "target_sae_ids": ["sae-alice"]},
    "ids of objects": {"key_ids": [{"key_id": GOOD["key_id"]}], "initiator_sae_id": "sae-zoe",
                       "target_sae_ids": ["sae-alice"]},
    "id no uuid": {"key_ids": ["x"], "initiator_sae_id": "sae-zoe", "target_sae_ids": ["sae-alice"]},
    "no initiator": {"key_ids": [GOOD["key_id"]], "target_sae_ids": ["sae-alice"]},
    "no targets": {"key_ids": [GOOD["key_id"]], "initiator_sae_id": "sae-zoe"},
    "confirmation no boolean": {"key_ids": [], "initiator_sae_id": "sae-zoe", "target_sae_ids": ["sae-alice"],
                                "all_confirmation": "true"},
    "a list": [],
}


@pytest.mark.parametrize("what", BAD_VOIDS)
def test_voids_that_are_not_understood(net1, what):
    assert net1.post(f"{EXT_KEYS}/void", BAD_VOIDS[what]).problem() == NOT_VOID


def test_a_void_of_another_peers_key(net1, net2, client):
    key = new_key()
    assert net1.give([key], "sae-zoe", ["sae-alice"], callback=False).status == 200
    answer = net2.void([key["key_id"]], "sae-zoe", ["sae-alice"], callback=False)
    assert answer.status in (400, 401), answer.body
    fetch(client, "alice", "sae-zoe", key)


# --- acks that come in ---------------------------------------------------------------------------------------

NOT_ACK = (400, "ack-not-understood", {"ack_not_understood"})
BAD_ACKS = {
    "an object": {},
    "empty": [],
    "no ids": [ack_of([], "relayed", "sae-alice", ["sae-zoe"])],
    "another status": [ack_of([GOOD["key_id"]], "done", "sae-alice", ["sae-zoe"])],
    "id no uuid": [ack_of(["x"], "relayed", "sae-alice", ["sae-zoe"])],
    "draft": [{"key_ids": [GOOD["key_id"]], "ack_status": "relayed", "initiator_sae_id": "sae-alice",
               "target_sae_id": "sae-zoe"}],
    "message too long": [ack_of([GOOD["key_id"]], "failed", "sae-alice", ["sae-zoe"], message="x" * 4097)],
    "1025 containers": [ack_of([GOOD["key_id"]], "failed", "sae-alice", ["sae-zoe"])] * 1025,
}


@pytest.mark.parametrize("what", BAD_ACKS)
def test_acks_that_are_not_understood(net1, what):
    assert net1.post(f"{EXT_KEYS}/ack", BAD_ACKS[what]).problem() == NOT_ACK


def test_an_ack_of_an_unknown_key(net1):
    answer = net1.post(f"{EXT_KEYS}/ack", [ack_of([str(uuid.uuid4())], "relayed", "sae-alice", ["sae-zoe"])])
    assert answer.problem() == (400, "key-not-present", {"key_not_present"})


# --- keys that go out ------------------------------------------------------------------------------------------

def ask(client, sae, slave, **members):
    return client(sae).enc(slave, **members)


def sent_since(peer, before):
    """The requests with keys that came to the peer behind so many others."""
    return [r for r in peer.requests[before:] if r.path == EXT_KEYS]


@pytest.mark.parametrize("sae, home, act", [("alice", "kme-a", "released"), ("bob", "kme-b", "relayed")])
def test_keys_go_to_a_peer_and_are_released_after_its_ack(net1, client, border, sae, home, act):
    answer = ask(client, sae, "sae-zoe", number=2, size=256)
    assert answer.status == 200, answer.body
    keys = answer.keys()
    (request,) = net1.wait(EXT_KEYS, lambda r: set(r.ids) == {i for i, _ in keys})
    assert request.headers["Content-Type"] == TYPE
    assert request.body["initiator_sae_id"] == f"sae-{sae}"
    assert request.body["target_sae_ids"] == ["sae-zoe"]
    assert request.body["ack_callback_url"] == f"https://{LOOPBACK}:{border.port}{EXT_KEYS}/ack"
    assert sorted((k["key_id"], value_of(k)) for k in request.body["keys"]) == sorted(keys)
    for key_id, _ in keys:
        border.wait_audit(act, key_id)
        border.wait_audit("issued", key_id, at=home)


def test_keys_are_not_released_before_the_ack(net4, client):
    net4.outcome = None
    before = len(net4.requests)
    answer = ask(client, "alice", "sae-wanda")
    assert answer.status == 503
    (key_id,) = sent_since(net4, before)[0].ids
    net4.wait_void(key_id)
    late = net4.post(f"{EXT_KEYS}/ack", [ack_of([key_id], "relayed", "sae-alice", ["sae-wanda"])])
    assert late.status in (200, 400)  # it changes nothing any more
    net4.reset()
    assert wait_for("keys again", lambda: ask(client, "alice", "sae-wanda").status == 200, 60)


@pytest.mark.parametrize("status", ["failed", "key not present"])
def test_a_peer_that_could_not_relay(net1, client, status):
    net1.outcome = status
    assert ask(client, "alice", "sae-zoe").status == 503


@pytest.mark.parametrize("status", [400, 401])
def test_a_peer_that_refuses_holds_nothing(net1, client, status):
    net1.on_keys = lambda request: (status, {"type": PROBLEMS + "unauthorized", "status": status, "title": "no",
                                             "details": {"unauthorized": "no"}})
    assert ask(client, "alice", "sae-zoe").status == 503


@pytest.mark.parametrize("first", [(503, None), (408, None), (500, None), (None, None), (200, [])])
def test_after_an_uncertain_answer_keys_are_retried_or_voided(net1, client, first):
    """The final state is the same at both: released at both, or void at both."""
    answers = iter([first])
    net1.on_keys = lambda request: next(answers, None) or net1.accept_keys(request)
    before = len(net1.requests)
    answer = ask(client, "alice", "sae-zoe")
    tried = sent_since(net1, before)
    (key_id,) = tried[0].ids
    assert all(r.body == tried[0].body for r in tried if r.ids == [key_id])  # byte for byte the same
    if answer.status == 200:
        assert [k[0] for k in answer.keys()] == [key_id]
        assert len(tried) > 1
        assert not net1.of(f"{EXT_KEYS}/void", lambda r: key_id in r.body["key_ids"])
    else:
        assert answer.status == 503
        net1.wait_void(key_id)


def test_a_peer_that_is_not_there(net4, client):
    net4.end()
    try:
        assert ask(client, "alice", "sae-wanda").status == 503
    finally:
        net4.start()
    assert wait_for("the peer again", lambda: ask(client, "alice", "sae-wanda").status == 200, 60)


def test_a_void_by_the_side_that_was_given_the_keys(net1, client):
    answer = ask(client, "alice", "sae-zoe")
    ((key_id, _),) = answer.keys()
    told = net1.void([key_id], "sae-alice", ["sae-zoe"], callback=False)
    assert told.status == 200  # the master has it: too late
    assert [c["ack_status"] for c in told.json] == ["failed to void"]


def test_synchronous_sending(net2, client):
    answer = ask(client, "bob", "sae-yann")
    assert answer.status == 200, answer.body
    ((key_id, value),) = answer.keys()
    (request,) = net2.wait(EXT_KEYS, lambda r: r.ids == [key_id])
    assert "ack_callback_url" not in request.body
    assert value_of(request.body["keys"][0]) == value
    net2.outcome = "failed"
    assert ask(client, "bob", "sae-yann").status == 503


# --- drafts -------------------------------------------------------------------------------------------------------

def test_sending_in_the_form_of_the_draft(net3, client):
    answer = ask(client, "alice", "sae-xena")
    assert answer.status == 200, answer.body
    ((key_id, value),) = answer.keys()
    (request,) = net3.wait(f"{EXT_KEYS}/sae-alice/sae-xena", lambda r: r.ids == [key_id])
    assert draft_saes(request) == ["sae-alice", "sae-xena"]
    assert set(request.body) == {"keys"}
    assert value_of(request.body["keys"][0]) == value
    net3.on_keys = lambda request: (503, {"message": "no", "details": []})
    assert ask(client, "alice", "sae-xena").status == 503


@pytest.mark.parametrize("who", [NET1, NET3])
def test_receiving_in_the_form_of_the_draft(border, client, who):
    peer, sae = border.peers[who], SAES[who]
    key = new_key()
    answer = peer.post(f"{EXT_KEYS}/{sae}/sae-bob", {"keys": [key], "extension_optional": [{"E1_x": 1}]})
    assert (answer.status, answer.headers["Content-Type"]) == (200, TYPE)
    assert set(answer.json) == {"message", "details"}
    fetch(client, "bob", sae, key)
    not_there(client, "bob", sae, key["key_id"])
    assert peer.post(f"{EXT_KEYS}/{sae}/{sae}", {"keys": [key]}).problem()[1] == "key-routing-error"
    assert peer.post(f"{EXT_KEYS}/sae-bob/sae-alice", {"keys": [key]}).problem()[0] == 401
    assert peer.post(f"{EXT_KEYS}/{sae}/sae-alice", {"keys": []}).problem() == MISSING
    answer = peer.post(f"{EXT_KEYS}/{sae}/sae-alice", {"keys": [new_key()], "extension_mandatory": [{"x": 1}]})
    assert answer.problem()[:2] == (503, "unsupported-mandatory-extension")


def test_drafts_of_acks_and_voids_where_agreed(net1, net3, client):
    unknown = str(uuid.uuid4())
    draft = [{"key_ids": [unknown], "ack_status": "relayed", "initiator_sae_id": "sae-alice",
              "target_sae_id": "sae-xena"}]
    assert net3.post(f"{EXT_KEYS}/ack", draft).problem()[1] == "key-not-present"  # understood
    assert net1.post(f"{EXT_KEYS}/ack", draft).problem() == NOT_ACK
    key = new_key()
    assert net3.give([key], "sae-xena", ["sae-dave"], callback=False).status == 200
    body = {"key_ids": [], "initiator_sae_id": "sae-xena", "target_sae_ids": ["sae-dave"]}
    assert net1.post(f"{EXT_KEYS}/void?all_confirmation=true", body).problem()[1] == "no-key-ids-or-confirmation"
    assert net3.post(f"{EXT_KEYS}/void?all_confirmation=true", body).status == 200
    not_there(client, "dave", "sae-xena", key["key_id"])


# --- transit --------------------------------------------------------------------------------------------------------

def test_transit_from_one_peer_to_another(net1, net2):
    key = new_key(extension={"E5_k": 1})
    optional = {"E9_note": {"z": [1, None], "a": "ä"}}
    assert net1.give([key], "sae-zoe", ["sae-yann"], extension_optional=optional).status == 202
    net1.wait_ack(key["key_id"], "relayed")
    (request,) = net2.wait(EXT_KEYS, lambda r: r.ids == [key["key_id"]])
    assert request.body["keys"] == [key]
    assert request.body["initiator_sae_id"] == "sae-zoe"
    assert request.body["target_sae_ids"] == ["sae-yann"]
    assert request.body["extension_optional"] == optional
    # Back again, by whatever way, it does not come.
    status, kind, _ = net2.give([key], "sae-zoe", ["sae-alice"]).problem()
    assert status in (400, 401, 503), kind


def test_transit_that_fails_is_told(net1, net2):
    net2.outcome = "failed"
    key = new_key()
    assert net1.give([key], "sae-zoe", ["sae-yann"]).status == 202
    (ack,) = net1.wait_ack(key["key_id"])
    assert ack["ack_status"] in ("failed", "voided")


# --- a target that cannot be reached ------------------------------------------------------------------------------------

def test_a_target_out_of_reach_is_408_and_void(net4, client, border):
    """The last one here: KME-B is stopped."""
    network = border.network
    network.gateways["kme-b"].stop()
    try:
        key = new_key()
        answer = net4.give([key], "sae-wanda", ["sae-alice", "sae-bob"], callback=False)
        status, kind, _ = answer.problem()
        assert (status, kind) == (408, "timeout")
        not_there(client, "alice", "sae-wanda", key["key_id"])
        key = new_key()
        assert net4.give([key], "sae-wanda", ["sae-alice", "sae-bob"]).status == 202
        (ack,) = net4.wait_ack(key["key_id"], timeout_s=120)
        assert ack["ack_status"] in ("failed", "voided")
        not_there(client, "alice", "sae-wanda", key["key_id"])
    finally:
        network.restart("kme-b")


# --- killed at every step -----------------------------------------------------------------------------------------------

class Cut:
    """Kills the border from within an answer of the other network, once, and starts it again when asked. `meant`
    tells the request from those of other tests, which it may repeat at any time."""

    def __init__(self, border, answer, meant=lambda request: True):
        self.gateway = border.network.gateways["kme-a"]
        self.answer = answer
        self.meant = meant
        self.done = threading.Event()

    def __call__(self, request):
        if self.done.is_set() or not self.meant(request):
            return self.answer(request)
        self.gateway.kill()
        self.done.set()
        return None, None

    def again(self, border):
        assert self.done.wait(180)
        border.network.restart("kme-a")


def ask_and_lose(border, client, slave, peer, before):
    """enc_keys of a gateway that is killed meanwhile. One that was killed before has no key for it at first: it is
    asked until it hands keys to the peer."""
    def ask_until_sent():
        try:
            while ask(client, "alice", slave).status == 503 and not sent_since(peer, before):
                time.sleep(0.1)
        except (OSError, http.client.HTTPException):
            pass
    border.network.wait_stock("alice", "bob", timeout_s=60)
    thread = threading.Thread(target=ask_until_sent)
    thread.start()
    return thread


def test_killed_before_the_answer_to_its_keys(net1, client, border):
    cut = net1.on_keys = Cut(border, net1.accept_keys)
    before = len(net1.requests)
    thread = ask_and_lose(border, client, "sae-zoe", net1, before)
    cut.again(border)
    thread.join()
    (key_id,) = sent_since(net1, before)[0].ids
    net1.wait_void(key_id)  # nobody waits for it any more


def test_killed_after_the_answer_to_its_keys(net1, client, border):
    net1.outcome = None
    before = len(net1.requests)
    thread = ask_and_lose(border, client, "sae-zoe", net1, before)
    (key_id,) = wait_for("keys", lambda: sent_since(net1, before), 60)[0].ids
    border.network.gateways["kme-a"].kill()
    border.network.restart("kme-a")
    thread.join()
    net1.wait_void(key_id)
    late = net1.post(f"{EXT_KEYS}/ack", [ack_of([key_id], "relayed", "sae-alice", ["sae-zoe"])])
    assert late.status in (200, 400)
    assert not border.audit("issued", key_id)


def test_killed_before_its_ack_is_answered(net1, client, border):
    key = new_key()
    cut = net1.on_ack = Cut(border, lambda request: (200, None), lambda request: key["key_id"] in json.dumps(request.body))
    assert net1.give([key], "sae-zoe", ["sae-alice", "sae-bob"]).status == 202
    cut.again(border)
    net1.wait_ack(key["key_id"], "relayed", count=2)
    for sae in ("alice", "bob"):
        fetch(client, sae, "sae-zoe", key)
        not_there(client, sae, "sae-zoe", key["key_id"])


def test_killed_right_after_202(net1, client, border):
    """Whatever it had done: what was accepted is delivered once, and acknowledged."""
    for _ in range(3):
        key = new_key()
        assert net1.give([key], "sae-zoe", ["sae-alice", "sae-bob"]).status == 202
        border.network.gateways["kme-a"].kill()
        border.network.restart("kme-a")
        assert net1.give([key], "sae-zoe", ["sae-alice", "sae-bob"]).status == 202  # the same again
        net1.wait_ack(key["key_id"], "relayed")
        for sae in ("alice", "bob"):
            fetch(client, sae, "sae-zoe", key)
            not_there(client, sae, "sae-zoe", key["key_id"])


def test_killed_after_a_void_was_accepted(net1, client, border):
    key = new_key()
    assert net1.give([key], "sae-zoe", ["sae-alice", "sae-bob"]).status == 202
    net1.wait_ack(key["key_id"], "relayed")
    assert net1.void([key["key_id"]], "sae-zoe", ["sae-alice", "sae-bob"]).status == 202
    border.network.gateways["kme-a"].kill()
    border.network.restart("kme-a")
    net1.wait_ack(key["key_id"], "voided")
    for sae in ("alice", "bob"):
        not_there(client, sae, "sae-zoe", key["key_id"])
    assert net1.give([key], "sae-zoe", ["sae-alice", "sae-bob"]).problem()[0] in (400, 503)


def test_killed_before_the_answer_to_its_void(net4, client, border):
    net4.outcome = None
    before = len(net4.requests)
    cut = net4.on_void = Cut(border, lambda request: (202, None), lambda request: any(
        r.ids[0] in request.body["key_ids"] for r in sent_since(net4, before)))
    thread = ask_and_lose(border, client, "sae-wanda", net4, before)
    cut.again(border)
    thread.join()
    (key_id,) = sent_since(net4, before)[0].ids
    net4.wait_void(key_id, count=2)
    assert not border.audit("issued", key_id)


def test_no_key_value_stands_in_logs(border):
    """After all of the above."""
    seen = [k["value"] for peer in border.peers.values() for r in list(peer.requests)
            if isinstance(r.body, dict) for k in r.body.get("keys", [])]
    assert seen
    for log in border.folder.glob("log/*.log"):
        text = log.read_text()
        assert not [v for v in seen if v in text]
        assert not re.search(r'[A-Za-z0-9+/]{43}=', text)
