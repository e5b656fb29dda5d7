# SPDX-License-Identifier: Apache-2.0
"""Two networks of gateways: KME-A and its border KME-G1, KME-G2 and KME-Z behind it; the borders side
by side (Kxi') or a link apart (Kxi)."""

import base64
import http.client
import json
import re
import threading
import time

import pytest

from between import Recorder
from links import audited, issue
from peer020 import EXT_KEYS, Peer, container, new_key
from processes import wait_for
from search import holds, pieces
from topology import operators


def towards(config, other):
    """The section of `peers` for the other border."""
    return next(p for p in config["peers"] if p["id"] == other)


def exchange(network, master, slave, number=1):
    """Keys for the two: both hold the same, once. [(key ID, key)]."""
    with network.client(master, timeout_s=60) as one, network.client(slave, timeout_s=60) as other:
        keys = issue(one, f"sae-{slave}", number, 60)
        got = other.dec(f"sae-{master}", *(i for i, _ in keys))
        assert got.status == 200, got.body
        assert got.keys() == keys
        assert other.dec(f"sae-{master}", keys[0][0]).status == 400
        assert len({k for _, k in keys}) == number
        return keys


def started(make_network, **options):
    network = make_network(stock=0, **options)
    network.wait_foreign("alice", "zoe")
    network.wait_foreign("zoe", "alice")
    return network


WAYS = {
    "asynchronous": {},
    "synchronous": {"mode": "synchronous"},
    "draft-url": {"dialect": "draft-url"},
}


@pytest.mark.parametrize("way", WAYS)
def test_keys_cross_the_border_both_ways(make_network, way):
    def tweak(name, config):
        for section in config.get("peers", ()):
            section.update(WAYS[way])
            if way != "asynchronous":
                del section["our_callback_url"]

    network = started(make_network, topology=operators(), tweak=tweak)
    for number in (1, 128):
        exchange(network, "alice", "zoe", number)
        exchange(network, "zoe", "alice", number)


@pytest.mark.parametrize("kxi", [True, False])
def test_a_kxi_never_shows_a_key(make_network, pki, kxi):
    """Inside TLS, on everything that KME-G1 says to KME-G2. Where the borders stand side by side, keys are
    there: that is what the standard has, and shows that this test would see them."""
    network = make_network(topology=operators(kxi=kxi), start=False, stock=0)
    recorder = Recorder(network.pki, network.endpoints["kme-g2/kxi"], "kme-g2", "kme-g1")
    try:
        network.write_config("kme-g1", lambda c: towards(c, "KME-G2").update(url=recorder.url))
        network.start()
        network.wait_foreign("alice", "zoe")
        keys = exchange(network, "alice", "zoe", 32)
        requests = [b for b in map(bytes, recorder.said) if b"POST /kmapi/v1/ext_keys HTTP" in b]
        assert requests
        said = b"".join(requests)
        values = [base64.b64decode(v) for v in re.findall(rb'"value":"([A-Za-z0-9+/=]+)"', said)]
        assert len(values) > 32
        seen = holds(pieces([k for _, k in keys]), b"".join(values) + said)
        assert bool(seen) is not kxi
        assert all(base64.b64encode(k) not in said and k.hex().encode() not in said for _, k in keys) is kxi
        assert (b"_kxi_mask" in said) is kxi
        assert all(i.encode() in said for i, _ in keys)
    finally:
        recorder.end()


def test_a_kxi_takes_no_other_mask(make_network):
    """Even from who has the certificate of the other border: no value without a mask, none under key that
    was used before, and none that was changed."""
    network = make_network(topology=operators(kxi=True), start=False, stock=0)
    recorder = Recorder(network.pki, network.endpoints["kme-g2/kxi"], "kme-g2", "kme-g1")
    forger = Peer(network.pki, "kme-g1")
    forger.gateway = network.endpoints["kme-g2/kxi"]
    try:
        network.write_config("kme-g1", lambda c: towards(c, "KME-G2").update(url=recorder.url))
        network.start()
        network.wait_foreign("alice", "zoe")
        said = b"".join(bytes(b) for b in recorder.said)
        seen = json.loads(re.findall(rb"\r\n\r\n(\{\"keys\":.*?_kxi_mask.*?\})(?=POST|$)", said, re.S)[-1])
        other = {**seen, "keys": [{**k, "key_id": new_key()["key_id"]} for k in seen["keys"]]}
        bare = container([new_key()], "sae-alice", ["sae-zoe"], ack_callback_url=seen["ack_callback_url"])
        with network.client("zoe", timeout_s=60) as zoe:
            for body in (seen, other, bare):
                answer = forger.post(EXT_KEYS, body)
                assert answer.problem() == (401, "unauthorized", {"unauthorized"}), body
                assert zoe.dec("sae-alice", body["keys"][0]["key_id"]).status in (400, 401)
        exchange(network, "alice", "zoe", 4)
    finally:
        forger.end()
        recorder.end()


def test_a_kxi_with_one_end_that_knows_of_no_mask(make_network):
    """Refused as the standard says, and nothing is released."""
    def tweak(name, config):
        if name == "kme-g2":
            section = towards(config, "KME-G1")
            del section["stream"]
            section["unprotected"] = True

    network = make_network(topology=operators(kxi=True), stock=0, tweak=tweak)
    with network.client("alice", timeout_s=60) as alice:
        wait_for("the refusal", lambda: alice.enc("sae-zoe").status == 503 and network.gateways["kme-g2"].lines(
            "unsupported-mandatory-extension"), 60, 0.2)


BORDERS, ENDS = ("kme-g1", "kme-g2"), ("kme-z", "kme-a")


@pytest.mark.parametrize("kxi, victims", [(False, BORDERS), (True, BORDERS), (False, ENDS), (True, ENDS)])
def test_gateways_killed_under_load(make_network, kxi, victims):
    """What alice got, zoe gets, once and the same; what alice was refused is void, for zoe too."""
    network = started(make_network, topology=operators(kxi=kxi))
    given, answers, lost = {}, [], []

    def ask():
        with network.client("alice", timeout_s=90) as alice:
            try:
                answers.append(alice.enc("sae-zoe", number=4))
            except (OSError, http.client.HTTPException) as e:
                lost.append(e)

    for i in range(8):
        victim = victims[i % 2]
        thread = threading.Thread(target=ask)
        thread.start()
        if i >= 4:
            time.sleep(0.002 * i)  # so that it is not always the same step
        network.gateways[victim].kill()
        network.restart(victim)
        thread.join()
        network.wait_foreign("alice", "zoe", timeout_s=60)
    assert len(answers) + len(lost) == 8 and {a.status for a in answers} <= {200, 503}
    assert len(lost) <= (4 if "kme-a" in victims else 0)
    for answer in answers:
        if answer.status == 200:
            given.update(answer.keys())
    with network.client("zoe", timeout_s=60) as zoe:
        for key_id, key in given.items():
            got = zoe.dec("sae-alice", key_id)
            assert got.status == 200, (key_id, got.body)
            assert got.keys() == [(key_id, key)]
            assert zoe.dec("sae-alice", key_id).status == 400
        void = audited(network, "kme-a", "voided")
        assert not void & set(given)
        assert void or all(a.status == 200 for a in answers)
        for key_id in void:
            assert zoe.dec("sae-alice", key_id).status in (400, 401)
