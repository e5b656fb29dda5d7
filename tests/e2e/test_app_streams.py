# SPDX-License-Identifier: Apache-2.0
"""Key streams of applications over ETSI GS QKD 004: the cases of clause 6.2, pairs over links, over
relays and on one node, and what strangers, floods and garbage get."""

import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import threading
import time
import uuid

import pytest

from app004 import GET, VERSION, App, Closed, app, compare, later, new_ksid, open_pair, uri
from processes import wait_for
from topology import line

CHUNKS = int(os.environ.get("QKDGATE_APP_CHUNKS", "3000"))  # compared for each pair of applications


def compare_many(one, other, ksid, count):
    """The same with many requests under way; what is not there in time is asked for again."""
    index = 0
    while index < count:
        some = min(256, count - index)
        for a, b in zip(one.get_many(ksid, index, some), list(other.get_many(ksid, index, some))):
            if a.status or b.status:
                a, b = one.get(ksid, a.index), other.get(ksid, b.index)
            assert a.status == b.status == 0, (a, b)
            assert a.index == b.index and a.key == b.key and len(a.key) == 32
        index += some


@pytest.fixture(scope="module")
def network(e2e_folder, pki):
    """One network for the tests that leave it as it was."""
    from conftest import _maker
    maker = _maker("app_streams", e2e_folder, pki)
    yield maker()
    maker.end()


# --- the cases of clause 6.2 -----------------------------------------------------------------------

ENDS = pytest.mark.parametrize("peer", ["bob", "dave"], ids=["direct", "same-node"])


@ENDS
@pytest.mark.parametrize("dialect", ["a", "b"])
def test_case_1_undefined_ksid_in_a_single_link_scenario(network, dialect, peer):
    alice, other = app(network, "alice", dialect), app(network, peer, dialect)
    ksid = open_pair(network, alice, other, "alice", peer)
    assert uuid.UUID(bytes=ksid).version == 4
    told = json.loads(compare(alice, other, ksid, 100).metadata.rstrip(b"\0"))
    assert told["hops"] == 0 and 0 <= told["age"] < 2 ** 32
    assert alice.close(ksid) == 0 and other.close(ksid) == 0


def test_case_2_undefined_ksid_and_failed_get_key_call_in_a_single_link_scenario(make_network):
    """The KMEs cannot reach each other: both calls time out; when they can again, it goes on."""
    network = make_network()
    alice, bob = app(network, "alice"), app(network, "bob")
    ksid = open_pair(network, alice, bob, timeout_ms=4000)
    compare(alice, bob, ksid, 5)
    network.gateways["kme-b"].signal(signal.SIGSTOP)
    started = time.monotonic()
    assert alice.get(ksid, 4000).status == 6
    assert time.monotonic() - started >= 3.9
    network.gateways["kme-b"].signal(signal.SIGCONT)
    network.gateways["kme-a"].signal(signal.SIGSTOP)
    assert bob.get(ksid, 5000).status == 6
    network.gateways["kme-a"].signal(signal.SIGCONT)
    wait_for("key again", lambda: alice.get(ksid, 29).status == bob.get(ksid, 29).status == 0, 60)
    compare_many(alice, bob, ksid, 30)


@ENDS
@pytest.mark.parametrize("dialect", ["a", "b"])
def test_case_3_predefined_ksid_in_a_single_link_scenario(network, dialect, peer):
    alice, other = app(network, "alice", dialect), app(network, peer, dialect)
    ksid = new_ksid()
    opened = later(alice.open, uri(network, "alice"), uri(network, peer), ksid)
    time.sleep(0.2)
    assert other.open(uri(network, peer), uri(network, "alice"), ksid).status == 0
    assert opened().status == 0
    compare(alice, other, ksid, 50)
    assert alice.close(ksid) == other.close(ksid) == 0


def open_within(network, one, other, timeout_ms):
    """A stream of alice and bob with a predefined KSID, whose calls wait for so long. A machine that let bob come
    later than that has to try again."""
    for _ in range(3):
        ksid, begun = new_ksid(), time.monotonic()
        mine = later(one.open, uri(network, "alice"), uri(network, "bob"), ksid, timeout_ms=timeout_ms)
        theirs, took_s = other.open(uri(network, "bob"), uri(network, "alice"), ksid), time.monotonic() - begun
        if mine().status == theirs.status == 0:
            return ksid
        assert took_s >= timeout_ms / 1000 and mine().status == 6
    raise AssertionError("bob always came too late")


def test_case_4_predefined_ksid_and_failed_get_key_call_in_a_single_link_scenario(make_network):
    network = make_network()
    alice, bob = app(network, "alice"), app(network, "bob")
    alice.connect(), bob.connect()
    ksid = open_within(network, alice, bob, 4000)
    network.gateways["kme-b"].signal(signal.SIGSTOP)
    assert alice.get(ksid, 4000).status == 6
    network.gateways["kme-b"].signal(signal.SIGCONT)
    network.gateways["kme-a"].signal(signal.SIGSTOP)
    assert bob.get(ksid, 5000).status == 6
    network.gateways["kme-a"].signal(signal.SIGCONT)


def test_case_5_application_discovery_in_a_qkd_network(make_network):
    """alice and carol share no link: their KMEs find each other, and a node in between relays."""
    network = make_network(line(3), between=("alice", "carol"), pool={"ready_chunks": 2048})
    alice, carol = app(network, "alice"), app(network, "carol")
    predefined = new_ksid()
    opened = later(app(network, "alice").open, uri(network, "alice"), uri(network, "carol"), predefined)
    assert carol.open(uri(network, "carol"), uri(network, "alice"), predefined).status == opened().status == 0
    compare(alice, carol, predefined, 20)
    ksid = open_pair(network, alice, carol, "alice", "carol", ttl_s=30)
    compare_many(alice, carol, ksid, CHUNKS)
    last = compare(alice, carol, ksid, 20, CHUNKS)
    assert json.loads(last.metadata)["hops"] == 1
    assert app(network, "bob").get(ksid, 0).status == 4


# --- pairs of applications --------------------------------------------------------------------------

def test_many_chunks_over_a_link(network):
    alice, bob = app(network, "alice"), app(network, "bob")
    ksid = open_pair(network, alice, bob, ttl_s=20)
    compare_many(alice, bob, ksid, CHUNKS)
    assert alice.close(ksid) == bob.close(ksid) == 0


def test_many_chunks_on_one_node(network):
    alice, dave = app(network, "alice"), app(network, "dave")
    ksid = open_pair(network, alice, dave, "alice", "dave", ttl_s=20)
    compare_many(alice, dave, ksid, CHUNKS)
    assert alice.close(ksid) == dave.close(ksid) == 0


def test_plain_tcp_acts_for_the_configured_application(network):
    alice, bob = app(network, "alice", plain=True), app(network, "bob", plain=True)
    ksid = open_pair(network, alice, bob)
    compare(alice, bob, ksid, 50)
    # It is not another one, whatever it says.
    assert app(network, "alice", plain=True).open(uri(network, "dave"), uri(network, "bob")).status == 4


def test_plain_tcp_is_closed_where_it_is_not_allowed(make_network):
    def tls_only(_, config):
        del config["app_listener"]["plain_sae"]

    network = make_network(tweak=tls_only, stock=0)
    with pytest.raises(Closed):
        app(network, "alice", plain=True).open(uri(network, "alice"), uri(network, "bob"))
    assert app(network, "alice").open(uri(network, "alice"), uri(network, "bob")).status in (0, 4)


def test_streams_outlive_connections_and_gateways(make_network):
    network = make_network()
    alice, bob = app(network, "alice"), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    first = [alice.get(ksid, i).key for i in range(40)]
    for name in ("kme-a", "kme-b"):
        network.gateways[name].kill()
        network.gateways[name].start()
        network.gateways[name].wait_ready()
    alice, bob = app(network, "alice"), app(network, "bob")
    assert [bob.get(ksid, i).key for i in range(40)] == first
    assert [alice.get(ksid, i).key for i in range(40)] == first
    wait_for("more key", lambda: alice.get(ksid, 400).status == 0, 60)
    compare(alice, bob, ksid, 400)


@pytest.fixture(scope="module")
def busy(make_shared):
    return make_shared(tweak=lambda _, c: c.update(app_streams={"opens_per_s": 10_000, "per_sae": 10_000}))


@pytest.mark.parametrize("peer, predefined", [("bob", True), ("bob", False), ("dave", True), ("dave", False)],
                         ids=["direct-predefined", "direct-undefined", "same-node-predefined", "same-node-undefined"])
def test_both_ends_open_at_the_same_moment(busy, peer, predefined):
    barrier = threading.Barrier(2)

    def run(one, names, ksid):
        barrier.wait(60)
        opened = one.open(*names, ksid)
        return opened.status, opened.ksid

    alice, other = app(busy, "alice"), app(busy, peer)
    alice.connect(), other.connect()
    names = uri(busy, "alice"), uri(busy, peer)
    for _ in range(60):
        ksid = new_ksid() if predefined else None
        mine = later(run, alice, names, ksid)
        theirs = later(run, other, tuple(reversed(names)), ksid)
        assert mine() == theirs() == (0, ksid or mine()[1])
        compare(alice, other, mine()[1], 2)
        assert alice.close(mine()[1]) == other.close(mine()[1]) == 0


# --- strangers, floods, garbage ------------------------------------------------------------------------

def test_a_third_application_gets_status_5(network):
    alice, bob = app(network, "alice"), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    compare(alice, bob, ksid, 3)
    for name in ("dave", "erin", "mallory"):
        thief = app(network, name)
        assert thief.open(uri(network, name), uri(network, "bob"), ksid).status == 5
        assert thief.open(uri(network, "alice"), uri(network, "bob"), ksid).status == 5
        assert thief.get(ksid, 0).status == 5
        assert thief.close(ksid) == 5
    guess = app(network, "dave").get(new_ksid(), 0)
    assert guess.status == 4 and guess.key == b""
    compare(alice, bob, ksid, 3)


def test_uris_belong_to_certificates(network):
    for name, source, destination in (
            ("alice", uri(network, "dave"), uri(network, "bob")),
            ("mallory", uri(network, "bob"), uri(network, "alice")),
            ("mallory", uri(network, "mallory"), uri(network, "alice")),  # no rule
            ("alice", uri(network, "alice"), "qkd://bob@KME-Z"),
            ("alice", uri(network, "alice"), "x" * 900), ("alice", "", "")):
        assert app(network, name).open(source, destination).status == 4, (name, source, destination)


def test_wrong_certificates_get_no_connection(network):
    for certificate in (None, "expired", "revoked"):
        with pytest.raises((Closed, ssl.SSLError, ConnectionError)):
            stranger = App(network.endpoints["kme-a/app"], network.pki, certificate)
            stranger.open(uri(network, "alice"), uri(network, "bob"))


def test_statuses_7_and_8(network):
    alice = app(network, "alice", "a")
    names = uri(network, "alice"), uri(network, "bob")
    counter = alice.open(*names, mimetype="text/xml")
    assert (counter.status, counter.mimetype, counter.ksid) == (7, "application/json", bytes(16))
    counter = alice.open(*names, chunk_size=100_000)
    assert counter.status == 7 and 0 < counter.qos["chunk_size"] < 100_000 and counter.ksid == bytes(16)
    counter = alice.open(*names, min_bps=4_000_000_000)
    assert counter.status == 7 and counter.qos["min_bps"] < 4_000_000_000
    # In dialect B the stream is open, with the counter-proposal.
    alice, bob = app(network, "alice"), app(network, "bob")
    opened = alice.open(*names, chunk_size=100_000)
    assert opened.status == 7 and opened.ksid != bytes(16)
    assert bob.open(*reversed(names), opened.ksid).status == 0
    compare(alice, bob, opened.ksid, 3)
    small = alice.get(opened.ksid, 0, metadata=3)
    assert small.status == 8 and small.needed > 3 and small.key == b""
    assert alice.get(opened.ksid, 0, metadata=small.needed).status == 0
    assert alice.get(opened.ksid, 0, metadata=0).metadata == b""


def test_a_blocked_open_blocks_nobody(network):
    alice, bob = app(network, "alice"), app(network, "bob")
    ksids = [new_ksid() for _ in range(12)]
    blocked = [later(app(network, "alice").open, uri(network, "alice"), uri(network, "bob"), ksid,
                     timeout_ms=100_000) for ksid in ksids]
    compare(alice, bob, open_pair(network, alice, bob), 20)
    assert all(wait.thread.is_alive() for wait in blocked)
    for ksid in ksids:
        assert bob.open(uri(network, "bob"), uri(network, "alice"), ksid).status == 0
    assert {wait().status for wait in blocked} == {0}


def test_a_peer_that_does_not_come_is_status_6(network):
    alice, ksid = app(network, "alice"), new_ksid()
    assert alice.open(uri(network, "alice"), uri(network, "bob"), ksid, timeout_ms=300).status == 6
    # The KSID is free again, for anybody.
    dave, opened = app(network, "dave"), later(alice.open, uri(network, "alice"), uri(network, "dave"), ksid)
    assert dave.open(uri(network, "dave"), uri(network, "alice"), ksid).status == opened().status == 0


def test_a_flood_of_opens_is_limited(make_network):
    def few(_, config):
        config["app_streams"] = {"opens_per_s": 1, "per_sae": 8}

    network = make_network(tweak=few)
    alice, dave = app(network, "alice"), app(network, "dave")
    statuses = [alice.open(uri(network, "alice"), uri(network, "bob")).status for _ in range(60)]
    assert statuses[:8] == [0] * 8 and set(statuses[8:]) == {4}
    assert dave.open(uri(network, "dave"), uri(network, "alice")).status == 0


GARBAGE = (
    b"\x00" * 64, b"\xff" * 64, b"\x02\x01\x01\x02\xff\xff\xff\xff" + b"x" * 64,
    b"\x01\x00\x01\x02\x00\x00\x00\x04abcd", b"\x01\x00\x01\x07\x00\x00\x00\x00",
    b"\x01\x00\x01\x04\x00\x00\x00\x10" + bytes(16), b"{\"command\":", b"{" * 4000, b"{}",
    b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x00\x05hello", b"\x01", b"")


@pytest.mark.parametrize("garbage", GARBAGE, ids=[str(i) for i in range(len(GARBAGE))])
def test_garbage_closes_that_connection_only(network, garbage):
    alice, bob = app(network, "alice", plain=True), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    bad = socket.create_connection(network.endpoints["kme-a/app"], 60)
    bad.settimeout(60)
    with contextlib.suppress(ConnectionError):
        bad.sendall(garbage)
        with contextlib.suppress(OSError):  # closed already
            bad.shutdown(socket.SHUT_WR)
        while bad.recv(4096):
            pass
    bad.close()
    compare(alice, bob, ksid, 3)


def test_messages_may_come_in_pieces_and_together(network):
    alice, bob = app(network, "alice"), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    compare(alice, bob, ksid, 6)
    one = VERSION["b"] + bytes([GET]) + struct.pack(">I", 24) + ksid + struct.pack(">II", 2, 0)
    sock = alice.connect()
    for byte in one:
        sock.sendall(bytes([byte]))
    sock.sendall(one * 20)
    answers = [alice.message()[1] for _ in range(21)]
    assert len(set(answers)) == 1 and answers[0][:4] == bytes(4)
