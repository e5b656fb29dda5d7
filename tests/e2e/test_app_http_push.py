# SPDX-License-Identifier: Apache-2.0
"""Applications of profile http-push: the gateway pushes each chunk to a listener of theirs, which takes it, tells it to
come again, refuses it, is silent, or is somebody else."""

import contextlib
import json
import signal
import socket
import threading
import uuid

import pytest

from app004 import app, compare, new_ksid, uri
from app_http_push import API, HttpApp, Taker
from processes import wait_for


@pytest.fixture(scope="module")
def taker(pki):
    one = Taker(pki)
    yield one
    one.end()


@pytest.fixture(scope="module")
def network(make_shared, taker):
    def push_to(_, config):
        for sae in config["saes"]:
            if sae["id"] == "sae-alice":
                sae["push_to"] = taker.url
        config["app_listener"]["idle_timeout_s"] = 300
        config["app_streams"] = {"opens_per_s": 1000}

    return make_shared(tweak=push_to, stock=2000, pool={"ready_chunks": 16384, "inbound_chunks": 262144})


@pytest.fixture
def opened(network, taker):
    """alice over http-push, bob over bin-b, one stream; the taker takes all."""
    taker.judge = lambda index: 201
    alice, bob = HttpApp(network, "alice"), app(network, "bob")
    http_status, status, ksid = alice.open(uri(network, "alice"), uri(network, "bob"), max_bps=256 * 400)
    assert (http_status, status) == (201, 0)
    assert bob.open(uri(network, "bob"), uri(network, "alice"), ksid).status == 0
    yield alice, bob, ksid
    alice.close(ksid)


def test_chunks_are_pushed_from_get_key_to_close(opened, taker):
    alice, bob, ksid = opened
    assert alice.get(ksid, 5) == (205, 0)
    wait_for("chunks", lambda: len(taker.indexes(ksid)) >= 60, 60)
    assert alice.close(ksid) == (204, 0)
    indexes = taker.indexes(ksid)
    assert indexes == list(range(5, 5 + len(indexes)))
    keys = taker.keys(ksid)
    for index in range(5, 65):
        b = bob.get(ksid, index)
        assert b.status == 0 and b.key == keys[index] and len(b.key) == 32
    assert len(taker.callers) == 1 and "kme-a.demo" in taker.callers.pop()
    assert alice.get(ksid, 0) == (500, 4)


def test_another_get_key_moves_it(opened, taker):
    alice, _, ksid = opened
    assert alice.get(ksid, 0) == (205, 0)
    wait_for("chunks", lambda: len(taker.indexes(ksid)) >= 20, 60)
    assert alice.get(ksid, 3) == (205, 0)
    wait_for("the move", lambda: taker.indexes(ksid).count(3) == 2, 60)
    indexes = taker.indexes(ksid)
    at = len(indexes) - 1 - indexes[::-1].index(3)
    assert indexes[:at] == list(range(at)) and indexes[at:] == list(range(3, 3 + len(indexes) - at))


def test_what_is_told_to_come_again_comes_again(opened, taker):
    """503, and a connection that ends without an answer: the same chunk, and no other before it."""
    alice, bob, ksid = opened
    answers = {2: [503, None, 201], 4: [429, 201]}
    seen = []

    def judge(index):
        seen.append(index)
        return answers[index].pop(0) if answers.get(index) else 201

    taker.judge = judge
    assert alice.get(ksid) == (205, 0)  # in sequence
    wait_for("chunks", lambda: len(taker.indexes(ksid)) >= 10, 60)
    assert taker.indexes(ksid)[:10] == list(range(10)) and seen[:8] == [0, 1, 2, 2, 2, 3, 4, 4]
    keys = taker.keys(ksid)
    assert all(bob.get(ksid, index).key == keys[index] for index in range(10))


@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_ends_it_until_the_next_get_key(network, opened, taker, status):
    alice, _, ksid = opened
    taker.judge = lambda index: status if index == 3 else 201
    assert alice.get(ksid, 0) == (205, 0)
    network.gateways["kme-a"].wait_log("event=app_push_stopped", str(uuid.UUID(bytes=ksid)), timeout_s=60)
    assert taker.indexes(ksid) == [0, 1, 2]
    taker.judge = lambda index: 201
    assert alice.get(ksid, 3) == (205, 0)
    wait_for("more", lambda: len(taker.indexes(ksid)) >= 8, 60)


def test_a_silent_listener_harms_nobody(network, opened, taker):
    alice, _, ksid = opened
    stuck = threading.Event()
    taker.judge = lambda index: 201 if stuck.wait(30) else 503
    assert alice.get(ksid, 0) == (205, 0)
    one, other = app(network, "alice"), app(network, "dave")
    here = one.open(uri(network, "alice"), uri(network, "dave")).ksid
    assert other.open(uri(network, "dave"), uri(network, "alice"), here).status == 0
    compare(one, other, here, 200)
    assert alice.close(ksid) == (204, 0)  # with a call under way
    stuck.set()


def test_who_gets_nothing_pushed(network, opened, taker):
    alice, bob, ksid = opened
    # bob's SAE has no push_to; dave has no right to that stream; nobody has this KSID.
    assert HttpApp(network, "bob").get(ksid, 0) == (500, 4)
    assert HttpApp(network, "dave").get(ksid, 0) == (500, 4)
    assert alice.get(new_ksid(), 0) == (500, 4)
    assert HttpApp(network, "dave").close(ksid) == (400, 5)
    assert alice.connection.sock is not None and bob.get(ksid, 0).status == 0
    assert taker.indexes(ksid) == []


def head(method, path, length, more=""):
    return f"{method} {API}{path} HTTP/1.1\r\nHost: k\r\n{more}Content-Length: {length}\r\n\r\n".encode()


HOSTILE = {
    "another path": head("GET", "/none", 2) + b"{}",
    "another method": head("DELETE", "/close", 2) + b"{}",
    "a method of another call": head("PUT", "/open-connect", 2) + b"{}",
    "no JSON": head("PUT", "/close", 5) + b"hello",
    "no KSID": head("PUT", "/close", 2) + b"{}",
    "a length that is none": head("PUT", "/close", "x") + b"{}",
    "a length below 0": head("PUT", "/close", -1) + b"{}",
    "a body over the limit": head("PUT", "/close", 200_000) + b"x" * 30_000,
    "a body without a length": head("PUT", "/close", 2, "Transfer-Encoding: chunked\r\n") + b"2\r\n{}\r\n0\r\n\r\n",
    "a head over the limit": head("PUT", "/close", 2, "X: " + "x" * 20_000 + "\r\n"),
    "a head that is none": b"GET hello\r\n\r\n",
    "cut in the head": b"PUT /api/v1/kms",
    "cut in the body": head("PUT", "/close", 100) + b"{",
    "a push": b"POST /api/v1/qkd/etsi004/key-material HTTP/1.1\r\nHost: k\r\nContent-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_requests_end_their_connection_alone(network, opened, data):
    alice, bob, ksid = opened
    with socket.create_connection(network.endpoints["kme-a/app"], 60) as bad:
        answer = b""
        with contextlib.suppress(ConnectionError):
            bad.sendall(data)
            with contextlib.suppress(OSError):  # closed already
                bad.shutdown(socket.SHUT_WR)
            while more := bad.recv(4096):
                answer += more
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 400 ") and answer.endswith(b'{"status":4}')), answer
    assert alice.get(new_ksid(), 0)[1] == 4 and bob.get(ksid, 0).status == 0


def test_requests_in_pieces_and_merged(network, opened, taker):
    _, bob, ksid = opened
    body = json.dumps({"key_stream_id": str(uuid.UUID(bytes=ksid)), "index": 0}).encode()
    get, close = (head(method, path, len(body)) + body for method, path in (("GET", "/get-key"), ("PUT", "/close")))
    with socket.create_connection(network.endpoints["kme-a/app"], 60) as sock:  # plain TCP is alice's
        for byte in get:
            sock.sendall(bytes([byte]))
        sock.sendall(get + close)
        answer = b""
        while answer.count(b"HTTP/1.1 ") < 3 or not answer.endswith(b"\r\n\r\n"):
            more = sock.recv(4096)
            assert more, answer
            answer += more
    assert [line[9:12] for line in answer.split(b"\r\n") if line.startswith(b"HTTP")] == [b"205", b"205", b"204"]
    wait_for("what was on its way", lambda: taker.keys(ksid), 60)
    keys = taker.keys(ksid)
    assert all(bob.get(ksid, index).key == key for index, key in keys.items())


def test_a_reload_takes_the_listener_away(make_network, taker):
    taker.judge = lambda index: 201
    network = make_network(tweak=lambda _, c: c["saes"][0].update(push_to=taker.url), stock=500)
    gateway = network.gateways["kme-a"]
    alice, bob = HttpApp(network, "alice"), app(network, "bob")
    _, _, ksid = alice.open(uri(network, "alice"), uri(network, "bob"), max_bps=256 * 50)
    assert bob.open(uri(network, "bob"), uri(network, "alice"), ksid).status == 0
    assert alice.get(ksid, 0) == (205, 0)
    wait_for("chunks", lambda: len(taker.indexes(ksid)) >= 10, 60)
    network.write_config("kme-a", lambda c: c["saes"][0].pop("push_to"))
    gateway.signal(signal.SIGHUP)
    wait_for("its end", lambda: gateway.lines("event=app_push_stopped", "no push_to"), 60)
    pushed = taker.indexes(ksid)
    assert pushed == list(range(len(pushed))) and alice.get(ksid, 0) == (500, 4)
    assert taker.indexes(ksid) == pushed
    assert app(network, "alice").get(ksid, 0).status == 0  # who asks for each chunk still may


def test_a_listener_that_is_somebody_else_gets_no_key(make_network, pki):
    """A certificate of another authority, and a host name that it does not bear."""
    takers = {"foreign": Taker(pki, "foreign"), "kme-b": Taker(pki, "alice")}
    try:
        for one in takers.values():
            network = make_network(tweak=lambda _, c, url=one.url: c["saes"][0].update(push_to=url), stock=100)
            alice, bob = HttpApp(network, "alice"), app(network, "bob")
            _, _, ksid = alice.open(uri(network, "alice"), uri(network, "bob"))
            assert bob.open(uri(network, "bob"), uri(network, "alice"), ksid).status == 0
            assert alice.get(ksid, 0) == (205, 0)
            compare(app(network, "alice"), bob, ksid, 30)  # who asks gets key meanwhile
            assert alice.close(ksid) == (204, 0) and one.pushed == []
    finally:
        for one in takers.values():
            one.end()
