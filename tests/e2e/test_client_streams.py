# SPDX-License-Identifier: Apache-2.0
"""libqkdgate's key streams: two processes at two gateways, and what it says of wrong certificates, cut connections and
wrong answers."""

import contextlib
import socket
import ssl
import struct
import subprocess
import threading
import uuid

import pytest

from app004 import uri
from client004 import Peer
from network import PROJECT, build_folder
from processes import wait_for

A, B = 0, 1  # profiles
LIBRARY = build_folder() / "lib" / "libqkdgate.so.0"
PROFILES = pytest.mark.parametrize("profile", [A, B], ids=["bin-a", "bin-b"])


@pytest.fixture
def peers():
    """Makes processes; at the end each has to have ended in order."""
    made = []

    def make():
        made.append(Peer(LIBRARY))
        return made[-1]

    yield make
    assert [peer.stop() for peer in made] == [0] * len(made)


def files(network, name):
    pki = network.pki
    return {"certificate": str(pki / f"{name}.pem"), "key": str(pki / f"{name}.key"), "ca": str(pki / "ca.pem")}


def options(network, mine, other, profile=B, certificate=None, **more):
    node = network.topology.home(mine)
    host, port = network.endpoints[f"{node.name}/app"]
    return {"host": host, "port": port, "server_name": f"{node.name}.demo", "profile": profile,
            "files": files(network, certificate or mine), "source_uri": uri(network, mine),
            "destination_uri": uri(network, other), "chunk_size": 32, "ttl_s": 600, "timeout_ms": 20000,
            "metadata": True, **more}


def open_pair(network, peers, profile=B, **more):
    alice, bob = peers(), peers()
    opened = alice.open(**options(network, "alice", "bob", profile, **more))
    assert (opened["err"], opened["status"], opened["chunk_size"], opened["alone"]) == ("QG_OK", 0, 32, False)
    joined = bob.open(**options(network, "bob", "alice", profile, ksid=opened["ksid"], **more))
    assert (joined["err"], joined["ksid"]) == ("QG_OK", opened["ksid"])
    return alice, bob, opened["ksid"]


# --- both ends ------------------------------------------------------------------------------------------------

@PROFILES
def test_two_processes_at_two_gateways_have_the_same_chunks(network, peers, profile):
    alice, bob, ksid = open_pair(network, peers, profile)
    assert uuid.UUID(ksid).version == 4
    mine, theirs = alice.many(0, 200), bob.many(0, 200)
    assert {c["err"] for c in mine + theirs} == {"QG_OK"} and [c["index"] for c in mine] == list(range(200))
    assert [c["key"] for c in mine] == [c["key"] for c in theirs]
    assert len({c["key"] for c in mine}) == 200 and {len(c["key"]) for c in mine} == {64}
    assert {c["hops"] for c in mine + theirs} == {0} and all(c["age"] < 600_000 for c in mine)
    # Any index again, and in any order.
    assert [alice.get(i)["key"] for i in (199, 0, 77, 77)] == [theirs[i]["key"] for i in (199, 0, 77, 77)]
    small = alice.get(5, room=31)
    assert small["err"] == "QG_E_RANGE" and alice.get(5)["key"] == theirs[5]["key"]
    assert alice.close() == bob.close() == {"err": "QG_OK", "gone": True}


@PROFILES
def test_a_predefined_ksid_and_a_handle_that_is_left(network, peers, profile):
    alice, bob, ksid = peers(), peers(), str(uuid.uuid4())
    mine = options(network, "alice", "bob", profile, ksid=ksid)
    theirs = options(network, "bob", "alice", profile, ksid=ksid, metadata=False)
    alice.begin("open", **mine)
    assert bob.open(**theirs)["err"] == "QG_OK"
    assert alice.end()["err"] == "QG_OK"
    first, second = alice.many(0, 10), bob.many(0, 10)
    assert {c["err"] for c in first + second} == {"QG_OK"}, (first, second)
    assert [c["key"] for c in first] == [c["key"] for c in second]
    # The stream outlives the handle and the process.
    assert alice.leave() == {"gone": True}
    again = peers()
    assert again.open(**mine)["err"] == "QG_OK"
    assert [c["key"] for c in again.many(0, 10)] == [c["key"] for c in first]
    assert again.close()["err"] == "QG_OK" and bob.close()["err"] == "QG_OK"


def test_no_metadata_where_none_was_asked_for(network, peers):
    alice, bob, _ = open_pair(network, peers, metadata=False)
    assert alice.get(0)["hops"] is None and bob.get(0)["hops"] is None


def test_opened_again_alone_says_that_the_peer_is_to_come(network, peers):
    one, mine = peers(), options(network, "alice", "bob")
    ksid = one.open(**mine)["ksid"]
    again = peers().open(**{**mine, "ksid": ksid})
    assert (again["err"], again["status"], again["alone"]) == ("QG_OK", 1, True)
    waiting = one.get(0)
    assert (waiting["err"], waiting["status"]) == ("QG_E_STATE", 3)


def test_statuses_have_errors(network, peers):
    alice, bob, ksid = open_pair(network, peers)
    third = peers()
    for more in ({"ksid": ksid}, {"ksid": ksid, "source_uri": uri(network, "alice")}):
        refused = third.open(**options(network, "dave", "bob", **more))
        assert (refused["err"], refused["status"]) == ("QG_E_STATE", 5)
    assert third.open(**options(network, "mallory", "alice"))["status"] == 4
    assert third.open(**options(network, "dave", "alice", source_uri="qkd://x@KME-A"))["status"] == 4
    size = third.open(**options(network, "dave", "alice", A, chunk_size=100_000))
    assert (size["err"], size["status"]) == ("QG_E_STATE", 7) and 0 < size["offered"] < 100_000
    far = alice.get(2**31)  # beyond the window
    assert (far["err"], far["status"]) == ("QG_E_AGAIN", 2)
    assert bob.close()["err"] == "QG_OK"
    wait_for("the end to be told", lambda: alice.get(9999)["err"] == "QG_E_AGAIN", 30)
    assert alice.close() == {"err": "QG_OK", "gone": True}
    assert third.open(**options(network, "dave", "alice", ksid="no-uuid"))["err"] == "QG_E_INVAL"
    assert third.open(**options(network, "dave", "alice", source_uri="x" * 2000))["err"] == "QG_E_INVAL"


def test_it_goes_on_when_the_gateways_come_back(make_network, peers):
    network = make_network()
    alice, bob, _ = open_pair(network, peers)
    keys = [c["key"] for c in alice.many(0, 20)]
    for name in ("kme-a", "kme-b"):
        network.gateways[name].kill()
    gone = alice.get(0)
    assert gone["err"] in ("QG_E_IO", "QG_E_CLOSED")
    for name in ("kme-a", "kme-b"):
        network.restart(name)
    assert [c["key"] for c in alice.many(0, 20)] == keys == [c["key"] for c in bob.many(0, 20)]


def test_the_example_builds_and_its_two_ends_agree(network, tmp_path):
    root = tmp_path / "root"
    subprocess.run(["make", "-s", f"BUILD={build_folder()}", f"DESTDIR={root}", "PREFIX=/usr", "install"],
                   cwd=PROJECT, check=True, capture_output=True, timeout=300)
    program = tmp_path / "get_stream"
    subprocess.run(["cc", "-std=c11", "-Wall", "-Werror", f"-I{root}/usr/include", "-o", program,
                    PROJECT / "docs/examples/get_stream.c", LIBRARY], check=True, timeout=300)

    def run(mine, other, *ksid):
        o = options(network, mine, other)
        return subprocess.Popen([program, o["host"], str(o["port"]), o["server_name"], *o["files"].values(),
                                 o["source_uri"], o["destination_uri"], *ksid], stdout=subprocess.PIPE, text=True,
                                env={"LD_LIBRARY_PATH": str(LIBRARY.parent)})
    first = run("alice", "bob")
    ksid = first.stdout.readline().split()[1]
    second = run("bob", "alice", ksid)
    texts = [p.communicate(timeout=120)[0] for p in (first, second)]
    assert first.returncode == second.returncode == 0
    assert texts[0].splitlines() == texts[1].splitlines()[1:] and len(texts[0].splitlines()) == 4


# --- certificates ------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("certificate", ["expired", "revoked", "foreign", "kme-b"])
def test_a_certificate_that_is_not_let_in(network, peers, certificate):
    refused = peers().open(**options(network, "alice", "bob", certificate=certificate))
    assert refused["err"] in ("QG_E_AUTH", "QG_E_IO", "QG_E_CLOSED", "QG_E_EXPIRED") and refused["status"] == 0


def test_the_gateways_certificate_is_checked(network, peers, tmp_path):
    one, mine = peers(), options(network, "alice", "bob")
    assert one.open(**{**mine, "server_name": "kme-b.demo"})["err"] == "QG_E_AUTH"
    other_ca = {**mine["files"], "ca": mine["files"]["certificate"]}
    assert one.open(**{**mine, "files": other_ca})["err"] == "QG_E_AUTH"
    loose = tmp_path / "alice.key"
    loose.write_bytes((network.pki / "alice.key").read_bytes())
    loose.chmod(0o644)
    assert one.open(**{**mine, "files": {**mine["files"], "key": str(loose)}})["err"] == "QG_E_MODE"
    assert one.open(**{**mine, "files": {**mine["files"], "key": str(tmp_path / "none")}})["err"] == "QG_E_IO"
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        assert one.open(**{**mine, "port": nobody.getsockname()[1]})["err"] == "QG_E_IO"
    assert one.open(**mine)["err"] == "QG_OK"


# --- wrong answers -------------------------------------------------------------------------------------------------

HEAD = b"\1\0\1"
KSID = uuid.UUID("8c5fecc3-d480-48cb-a5d8-123e5e8f2670")


def message(service, payload):
    return HEAD + bytes([service]) + struct.pack(">I", len(payload)) + payload


def open_answer(ksid=KSID.bytes, status=0):
    return message(3, struct.pack(">8I", status, 32, 0, 0, 0, 0, 1000, 600) + bytes(256) + ksid)


def get_answer(index=0, key=bytes(range(32)), status=0, metadata=b""):
    return message(5, struct.pack(">3I", status, index, len(key)) + key + struct.pack(">I", len(metadata)) + metadata)


class Liar:
    """A key manager, played: answers each request with the next of these, None hangs up."""

    def __init__(self, pki, answers):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(str(pki / "kme-a.pem"), str(pki / "kme-a.key"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._answers = list(answers)
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                raw, _ = self._listener.accept()
                self.connections += 1
                with contextlib.suppress(OSError), self._context.wrap_socket(raw, server_side=True) as tls:
                    self._serve(tls)

    def _serve(self, tls):
        read = b""
        while self._answers:
            while len(read) < 8 or len(read) < 8 + struct.unpack(">I", read[4:8])[0]:
                more = tls.recv(65536)
                if not more:
                    return
                read += more
            read = read[8 + struct.unpack(">I", read[4:8])[0]:]
            answer = self._answers.pop(0)
            if answer is None:
                return
            tls.sendall(answer)
            if answer.endswith(CUT):
                return

    def end(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


CUT = get_answer()[:-20]


@pytest.fixture
def liar(network, peers):
    """Opens a stream at a key manager that gives these answers after it."""
    liars = []

    def make(*answers, first=None):
        liars.append(Liar(network.pki, [first or open_answer(), *answers]))
        one = peers()
        opened = one.open(**options(network, "alice", "bob", port=liars[-1].port, timeout_ms=100))
        return one, opened, liars[-1]

    yield make
    for one in liars:
        one.end()


@pytest.mark.parametrize("answer", [
    message(9, bytes(4)), message(5, b"\0\0"), b"\1\0\1\5\xff\xff\xff\xff" + bytes(64),
    message(0, struct.pack(">I", 4)), b"HTTP/1.1 200 OK\r\n\r\n", open_answer()[:-50] + CUT, open_answer(bytes(16))],
    ids=["close", "short", "huge", "error", "http", "cut", "no-ksid"])
def test_a_wrong_answer_to_open(liar, answer):
    _, opened, _ = liar(first=answer)
    assert opened["err"] in ("QG_E_PROTO", "QG_E_IO", "QG_E_CLOSED") and "ksid" not in opened


def test_bytes_behind_an_answer_are_no_other_answer(liar):
    one, opened, _ = liar(get_answer(0), get_answer(1), first=open_answer() + b"more")
    assert opened["err"] == "QG_OK"
    assert one.get(0)["err"] == "QG_E_PROTO" and one.get(1)["err"] == "QG_OK"


@pytest.mark.parametrize("answer", [
    get_answer(1), get_answer(key=bytes(31)), get_answer(key=bytes(33)), get_answer(key=b""), message(9, bytes(4)),
    open_answer(), message(5, bytes(10)), get_answer() + b"!", b"\1\0\1\5\xff\xff\xff\xff", b"{}" * 40,
    message(0, struct.pack(">I", 4)), message(5, struct.pack(">3I", 0, 0, 0xffffffff) + bytes(32))],
    ids=["other-index", "short-key", "long-key", "no-key", "close", "open", "cut-structure", "more", "huge", "json",
         "error", "length"])
def test_a_wrong_answer_to_get_key_is_no_key(liar, answer):
    one, opened, _ = liar(answer, get_answer(7))
    assert opened["err"] == "QG_OK"
    assert one.get(0)["err"] == "QG_E_PROTO"
    assert one.get(7)["key"] == bytes(range(32)).hex()  # on another connection


def test_a_connection_that_is_cut(liar):
    one, _, played = liar(get_answer(0), None, get_answer(1), CUT, get_answer(2), CUT, CUT, get_answer(3))
    assert one.get(0)["err"] == "QG_OK"
    # Before an answer, and in its middle: asked again, once.
    assert one.get(1)["err"] == "QG_OK" and played.connections == 2
    assert one.get(2)["key"] == bytes(range(32)).hex() and played.connections == 3
    assert one.get(3)["err"] in ("QG_E_IO", "QG_E_CLOSED")
    assert one.get(3)["err"] == "QG_OK"


def test_metadata_that_is_none_is_passed_over(liar):
    texts = (b"{", b"\0", b"[1]", b'{"age": -1, "hops": 4294967296}', b'{"age": "x"}', b"\xff" * 40, b'{"hops": 3}\0')
    one, _, _ = liar(*(get_answer(i, metadata=text) for i, text in enumerate(texts)))
    got = one.many(0, len(texts))
    assert {c["err"] for c in got} == {"QG_OK"} and [c["hops"] for c in got] == [None, None, None, 0, None, None, 3]
