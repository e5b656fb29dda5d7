# SPDX-License-Identifier: Apache-2.0
"""The profiles of ETSI GS QKD 004 at the listener for applications: each against each, the captured sessions byte by
byte, key that is pushed, and what is cut, merged, oversized or garbage in each."""

import contextlib
import json
import math
import re
import socket
import struct
import time
import uuid

import pytest

from app004 import CLOSE, GET, VERSION, App, Closed, JsonApp, new_ksid, uri
from network import PROJECT
from processes import wait_for

PROFILES = ("bin-a", "bin-b", "json", "json-netxpto")
OLD_URIS = {"alice": ["qkd://a@n1", "client://localhost"], "bob": ["qkd://b@n2", "server://127.0.0.1"]}
PUSHED = {"alice": "qkd://alice@KME-A#pushed", "bob": "qkd://bob@KME-B#pushed"}
IDLE_S = 6


def tweak(_name, config):
    for entry in config["saes"] + config["directory"]:
        name = entry.get("id", entry.get("sae")).removeprefix("sae-")
        entry["applications"] += OLD_URIS.get(name, []) + [PUSHED[n] for n in PUSHED if n == name]
        if "id" in entry and name in PUSHED:
            entry["push"] = [PUSHED[name]]
    config["app_streams"] = {"opens_per_s": 1000, "per_sae": 1000, "max_bps": 4_000_000_000}


@pytest.fixture(scope="module")
def network(make_shared):
    return make_shared(pool={"ready_chunks": 16384, "inbound_chunks": 262144}, stock=2000, tweak=tweak)


def app(network, name, profile="bin-b", plain=False):
    node = network.topology.home(name)
    where = network.endpoints[f"{node.name}/app"], None if plain else network.pki, name
    return JsonApp(*where, wrapped=profile != "json") if profile.startswith("json") else App(*where, profile[-1])


def open_pair(network, one, other, names=None, **qos):
    names = names or (uri(network, "alice"), uri(network, "bob"))
    opened = one.open(*names, **qos)
    assert opened.status == 0
    joined = other.open(*reversed(names), opened.ksid)
    assert joined.status == 0 and joined.ksid == opened.ksid
    return opened.ksid


def compare(one, other, ksid, count, first=0):
    for index in range(first, first + count):
        a, b = one.get(ksid, index), other.get(ksid, index)
        assert a.status == b.status == 0 and a.index == b.index == index and a.key == b.key and len(a.key) == 32


# --- each profile -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("mine", PROFILES)
@pytest.mark.parametrize("theirs", PROFILES)
def test_every_profile_with_every_other(network, mine, theirs):
    alice, bob = app(network, "alice", mine), app(network, "bob", theirs)
    ksid = open_pair(network, alice, bob)
    compare(alice, bob, ksid, 12)
    assert alice.get(ksid, 3).key == alice.get(ksid, 3).key == bob.get(ksid, 3).key  # idempotent
    for one in (alice, bob):
        chunk = one.get(ksid, 1)
        metadata = json.loads(chunk.metadata.rstrip(b"\0"))
        assert sorted(metadata) == ["age", "hops"] and 0 <= metadata["age"] < 2**32 and metadata["hops"] == 0
    assert alice.close(ksid) == bob.close(ksid) == 0
    assert alice.get(ksid, 0).status == 4


@pytest.mark.parametrize("profile", ["json", "json-netxpto"])
def test_json_over_tcp_in_sequence_and_statuses(network, profile):
    alice, bob = app(network, "alice", profile, plain=True), app(network, "bob", profile, plain=True)
    ksid = open_pair(network, alice, bob)
    mine = [alice.get(ksid, None) for _ in range(5)]
    theirs = [bob.get(ksid, None) for _ in range(5)]
    assert [a.index for a in mine] == [b.index for b in theirs] == list(range(5))
    assert [a.key for a in mine] == [b.key for b in theirs] and len({a.key for a in mine}) == 5
    small = alice.get(ksid, 0, metadata=3)
    assert small.status == 8 and small.key == b"" and alice.get(ksid, 0, metadata=small.needed).status == 0
    assert alice.get(ksid, 0, metadata=0).metadata == b""
    assert json.loads(alice.get(ksid, 0, metadata=None).metadata)["hops"] == 0  # nothing said: as much as there is
    alice.close_connection()
    assert alice.get(ksid, 2).key == mine[2].key  # on another connection, in the same dialect
    counter = alice.open(uri(network, "alice"), uri(network, "bob"), mimetype="text/xml")
    assert (counter.status, counter.mimetype) == (7, "application/json")
    assert alice.get(new_ksid(), 0).status == 4 and alice.close(new_ksid()) == 4


@pytest.mark.parametrize("profile", PROFILES)
def test_another_applications_ksid_is_status_5(network, profile):
    alice, bob = app(network, "alice"), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    compare(alice, bob, ksid, 2)
    for name in ("dave", "erin", "mallory"):
        thief = app(network, name, profile)
        for names in ((uri(network, name), uri(network, "bob")), (uri(network, "alice"), uri(network, "bob"))):
            refused = thief.open(*names, ksid)
            assert refused.status == 5 and not any(refused.qos.values())
        taken = thief.get(ksid, 0)
        assert (taken.status, taken.key, taken.metadata.rstrip(b"\0")) == (5, b"", b"")
        assert thief.close(ksid) == 5
    compare(alice, bob, ksid, 2)


@pytest.mark.parametrize("profile", PROFILES)
def test_a_flood_of_opens_is_limited_per_application(make_network, profile):
    network = make_network(tweak=lambda _, c: c.update(app_streams={"opens_per_s": 1, "per_sae": 100}), stock=100)
    alice, dave = app(network, "alice", profile), app(network, "dave", profile)
    began = time.monotonic()
    statuses = [alice.open(uri(network, "alice"), uri(network, "bob")).status for _ in range(60)]
    most = 10 + 1 + int(time.monotonic() - began)  # ten at once, and one for each second that it took
    assert statuses[:10] == [0] * 10 and statuses.count(0) <= most and set(statuses) <= {0, 4}
    assert dave.open(uri(network, "dave"), uri(network, "alice")).status == 0


# --- captured sessions ------------------------------------------------------------------------------------------

def captures():
    """The hexadecimal texts of the header that the unit tests have, joined over its line ends."""
    text = (PROJECT / "tests/unit/etsi004_captures.h").read_text().replace("\\\n", "")
    for name, quoted in re.findall(r"#define CAPTURE_([AB]_\w+)\s+((?:\"[^\n]*\"\s*)+)\n", text):
        with contextlib.suppress(ValueError):
            yield name, bytes.fromhex("".join(re.findall(r'"([^"]*)"', quoted)))


CAPTURES = dict(captures())


def masked(message, *spans):
    """The message with these (first, count) bytes blanked: those of a KSID or a key."""
    message = bytearray(message)
    for first, count in spans:
        message[first:first + count] = bytes(count)
    return bytes(message)


class Replayer:
    """Sends captured messages as they are, but for the KSID, and reads the answers as they are."""

    def __init__(self, network, dialect):
        self.app, self.dialect = app(network, "alice", f"bin-{dialect.lower()}", plain=dialect == "B"), dialect
        self.was = CAPTURES[f"{dialect}_CLOSE"][8:]

    def __call__(self, name, ksid=None):
        message = CAPTURES[f"{self.dialect}_{name}"]
        if ksid:
            assert self.was in message
            message = message.replace(self.was, ksid)
        self.app.send(message)
        header, payload = self.app.message()
        if self.dialect == "A":
            with pytest.raises(Closed):  # one request for each connection
                self.app.receive(1)
            self.app.close_connection()
        return header + payload, CAPTURES[f"{self.dialect}_{name}_ANSWER"]


def parts(answer):
    """Of a captured GET_KEY answer: all before the key, the key, the length of the metadata, the metadata."""
    size, = struct.unpack(">I", answer[16:20])
    end = 20 + size
    return answer[:4], answer[8:20], answer[20:end], struct.unpack(">I", answer[end:end + 4])[0], answer[end + 4:]


@pytest.mark.parametrize("dialect, names", [("A", ("qkd://a@n1", "qkd://b@n2")),
                                            ("B", ("client://localhost", "server://127.0.0.1"))])
def test_captured_sessions_of_bin_byte_by_byte(network, dialect, names):
    replay = Replayer(network, dialect)
    answer, captured = replay("OPEN")
    ksid = answer[-16:]
    assert masked(answer, (len(answer) - 16, 16)) == masked(captured, (len(captured) - 16, 16))
    assert uuid.UUID(bytes=ksid).version == 4
    bob = app(network, "bob", f"bin-{dialect.lower()}")
    assert bob.open(*reversed(names), ksid).status == 0
    answer, captured = replay("GET", ksid)
    ours, theirs = parts(answer), parts(captured)
    assert ours[:2] == theirs[:2]  # version, service, status, index, length of the key
    assert len(ours[2]) == len(theirs[2]) and ours[2] == bob.get(ksid, 0).key
    assert ours[3] == len(ours[4]) and struct.unpack(">I", answer[4:8])[0] == len(answer) - 8
    # The metadata of dialect A's capture is its server's own; of both, what is not the age.
    age = re.compile(rb'"age": \d+')
    theirs_text = theirs[4] if dialect == "B" else b'{"age": 0, "hops": 0}\0'
    assert age.sub(b"", ours[4]) == age.sub(b"", theirs_text)
    assert replay("CLOSE", ksid) == (CAPTURES[f"{dialect}_CLOSE_ANSWER"],) * 2
    assert bob.close(ksid) == 0


JSON_QOS = ('{"key_chunk_size":32,"max_bps":%d,"min_bps":32,"jitter":0,"priority":0,"timeout":9000,"ttl":900,'
            '"metadata_mimetype":"application/json"%s}')


@pytest.mark.parametrize("wrapped", [False, True], ids=["flat", "netxpto"])
def test_sessions_of_json_byte_by_byte(network, wrapped):
    def answered(command, text):
        return '{"command":"%s_RESPONSE","data":%s}' % (command, text) if wrapped else text

    def exchange(text):
        raw.sendall(text.encode())
        return raw.recv(65536).decode()  # one write for a message

    qos = JSON_QOS % (32000, ',"key_type":2' if wrapped else "")
    names = uri(network, "alice"), uri(network, "bob")
    raw = app(network, "alice", "json", plain=True).connect()
    got = exchange('{"command":"OPEN_CONNECT","data":{"source":"%s","destination":"%s","qos":%s}}' % (*names, qos))
    ksid = re.search(r'"key_stream_id":"([0-9a-f-]{36})"', got).group(1)
    assert got == answered("OPEN_CONNECT", '{"status":0,"key_stream_id":"%s","qos":%s}' % (ksid, qos))
    bob = app(network, "bob", plain=True)
    assert bob.open(*reversed(names), uuid.UUID(ksid).bytes).status == 0
    got = exchange('{"command":"GET_KEY","data":{"key_stream_id":"%s","index":0,"metadata":{"size":46,"buffer":""}}}' %
                   ksid)
    key = json.dumps(list(bob.get(uuid.UUID(ksid).bytes, 0).key), separators=(",", ":"))
    age = re.search(r'\{\\"age\\": (\d+)', got).group(1)
    metadata = '{"age": %s, "hops": 0}' % age
    assert got == answered("GET_KEY", '{"status":0,"index":0,"key_buffer":%s,"metadata":{"size":%d,"buffer":%s}}' %
                           (key, len(metadata), json.dumps(metadata)))
    close = '{"command":"CLOSE","data":{"key_stream_id":"%s"}}' % ksid
    assert exchange(close) == answered("CLOSE", '{"status":0}')
    assert exchange(close) == answered("CLOSE", '{"status":4}')
    raw.close()


# --- pushed ---------------------------------------------------------------------------------------------------

def pushed_pair(network, profile, **qos):
    """A stream whose chunks are pushed to alice over that profile; bob asks for each."""
    alice, bob = app(network, "alice", profile, plain=True), app(network, "bob")
    names = PUSHED["alice"], uri(network, "bob")
    return alice, bob, open_pair(network, alice, bob, names, **qos)


@pytest.mark.parametrize("profile", ["json", "json-netxpto"])
def test_key_is_pushed_after_one_get_key(network, profile):
    alice, bob, ksid = pushed_pair(network, profile)
    alice.tell_get(ksid, 7)
    chunks = [alice.chunk() for _ in range(300)]
    assert [c.index for c in chunks] == list(range(7, 307)) and {c.status for c in chunks} == {0}
    for a, b in zip(chunks, bob.get_many(ksid, 7, 300)):
        assert b.status == 0 and a.key == b.key and len(a.key) == 32
    # Another index: from there on; and CLOSE ends it, behind what is on its way.
    alice.tell_get(ksid, 2)
    while (chunk := alice.chunk()).index != 2:
        pass
    assert chunk.key == bob.get(ksid, 2).key and alice.chunk().index == 3
    alice.tell("CLOSE", {"key_stream_id": str(uuid.UUID(bytes=ksid))})
    while "index" in (answer := alice.hear().get("data", {}) if alice.wrapped else alice.hear()):
        pass
    assert answer == {"status": 0}
    assert alice.get(ksid, 0).status == 4


def test_who_is_not_to_be_pushed_to_is_not(network):
    alice, bob = app(network, "alice", "json", plain=True), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    assert alice.get(ksid, 0).status == 0
    alice._sock.settimeout(1)
    with pytest.raises(TimeoutError):
        alice.chunk()
    # Nor is what a profile cannot push: bin has an answer for each request.
    ksid = open_pair(network, one := app(network, "alice"), bob, (PUSHED["alice"], uri(network, "bob")))
    assert one.get(ksid, 0).status == 0 and one.get(ksid, 5).index == 5


def test_pushing_goes_on_where_it_was_after_a_lost_connection(network):
    alice, bob, ksid = pushed_pair(network, "json")
    alice.tell_get(ksid, None)  # in sequence
    first = [alice.chunk() for _ in range(20)]
    assert [c.index for c in first] == list(range(20))
    alice.close_connection()
    alice.tell_get(ksid, 20)  # by index: what was on its way is not lost
    again = [alice.chunk() for _ in range(20)]
    assert [c.index for c in again] == list(range(20, 40))
    assert [b.key for b in bob.get_many(ksid, 0, 40)] == [c.key for c in first + again]


def test_the_far_ends_close_is_told(network):
    alice, bob, ksid = pushed_pair(network, "json-netxpto")
    alice.tell_get(ksid, 0)
    assert alice.chunk().status == 0
    assert bob.close(ksid) == 0
    while (chunk := alice.chunk()).status == 0:
        pass
    assert chunk.status == 2 and chunk.key == b""


def test_pushing_waits_for_key_and_never_exceeds_max_bps(network):
    alice, bob, ksid = pushed_pair(network, "json", max_bps=8192)  # 32 chunks a second
    began = time.monotonic()
    alice.tell_get(ksid, 0)
    chunks = [alice.chunk() for _ in range(100)]
    took = time.monotonic() - began
    assert [c.index for c in chunks] == list(range(100)) and {c.status for c in chunks} == {0}
    assert took > (100 - 32) / 32 * 0.9  # the first second's come at once
    assert bob.get(ksid, 99).key == chunks[99].key


def held(network, node="kme-a"):
    """Connections to the listener for applications that the gateway has."""
    port = network.endpoints[f"{node}/app"][1]
    pid = network.gateways[node].pid
    rows = [line.split() for line in open(f"/proc/{pid}/net/tcp")][1:]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_an_application_that_does_not_read_harms_nobody(make_network):
    """It gets what its socket holds, then nothing more is drawn for it, and its connection ends."""
    def impatient(name, config):
        tweak(name, config)
        config["app_listener"]["idle_timeout_s"] = IDLE_S

    network = make_network(tweak=impatient, stock=2000, pool={"ready_chunks": 16384, "inbound_chunks": 262144})
    deaf, bob, ksid = pushed_pair(network, "json")
    deaf.close_connection()
    sockets = [socket.socket() for _ in range(8)]
    for sock in sockets:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(network.endpoints["kme-a/app"])
        sock.sendall(get_message("json", ksid, 0))
    carol, dave = app(network, "alice"), app(network, "dave")
    other = carol.open(uri(network, "alice"), uri(network, "dave")).ksid
    assert dave.open(uri(network, "dave"), uri(network, "alice"), other).status == 0
    used = {}

    def get(one, stream, index):
        """On another connection where this one may have been closed since nothing was asked."""
        if time.monotonic() - used.get(one, math.inf) > IDLE_S / 2:
            one.close_connection()
        answer = one.get(stream, index)
        used[one] = time.monotonic()
        return answer

    for index in range(100):  # others are served meanwhile
        assert get(carol, other, index).key == get(dave, other, index).key
        assert get(bob, ksid, index).status == 0
    # After a while without a byte taken each of them is closed; the stream lives on.
    for one in (carol, dave, bob):
        one.close_connection()
    wait_for("the connections to be closed", lambda: held(network) == 0, 60)
    for sock in sockets:
        sock.close()
    listener = app(network, "alice", "json", plain=True)
    listener.tell_get(ksid, 0)
    assert [listener.chunk().index for _ in range(50)] == list(range(50))


# --- hostile ------------------------------------------------------------------------------------------------------

def get_message(profile, ksid, index):
    if profile.startswith("bin"):
        dialect = profile[-1]
        tail = struct.pack(">II", index, 0)
        return VERSION[dialect] + bytes([GET]) + struct.pack(">I", 24) + ksid + tail
    return json.dumps({"command": "GET_KEY", "data": {"key_stream_id": str(uuid.UUID(bytes=ksid)), "index": index}},
                      separators=(",", ":")).encode()


def close_message(profile, ksid):
    if profile.startswith("bin"):
        return VERSION[profile[-1]] + bytes([CLOSE]) + struct.pack(">I", 16) + ksid
    return json.dumps({"command": "CLOSE", "data": {"key_stream_id": str(uuid.UUID(bytes=ksid))}}).encode()


def hostile(profile, ksid):
    """(what it is, bytes) of messages that are none."""
    whole = get_message(profile, ksid, 0)
    yield "cut in the middle", whole[:-3]
    yield "cut after the first byte", whole[:1]
    if profile.startswith("bin"):
        head = VERSION[profile[-1]]
        yield "a length beyond all limits", head + bytes([GET]) + b"\xff\xff\xff\xff" + bytes(64)
        yield "a message over what a server reads", head + bytes([GET]) + struct.pack(">I", 200_000) + bytes(200_000)
        yield "an unknown service", head + b"\x55" + struct.pack(">I", 4) + b"abcd"
        yield "an answer in place of a request", head + bytes([GET + 1]) + struct.pack(">I", 16) + ksid
        yield "a payload that is too short", head + bytes([GET]) + struct.pack(">I", 10) + bytes(10)
        yield "strings without an end", head + b"\x02" + struct.pack(">I", 600) + b"x" * 600
        yield "garbage behind a header", head + b"\x02" + struct.pack(">I", 64) + bytes(range(192, 256))
    else:
        yield "no member data", b'{"command":"GET_KEY"}'
        yield "an unknown command", b'{"command":"QKD_OPEN","data":{}}'
        yield "a number for a KSID", b'{"command":"GET_KEY","data":{"key_stream_id":7,"index":0}}'
        yield "an index beyond 32 bits", whole.replace(b'"index":0', b'"index":4294967296')
        yield "an index below 0", whole.replace(b'"index":0', b'"index":-1')
        yield "a member twice", whole.replace(b'"index":0', b'"index":0,"index":1')
        yield "bad UTF-8", whole.replace(b"GET_KEY", b"GET_\xff\xfe")
        yield "far too deep", b'{"data":' + b"[" * 4000
        yield "more than a server reads", b'{"command":"GET_KEY","data":"' + b"x" * 40_000 + b'"}'
        yield "another form of text", b"{'command': 'GET_KEY'}"


ERRORS = {"bin-a": b"\x02\x01\x01\x00", "bin-b": b"\x01\x00\x01\x00", "json": b'{"status":4}',
          "json-netxpto": b'{"status":4}'}


@pytest.mark.parametrize("profile", PROFILES)
def test_hostile_messages_close_that_connection_alone(network, profile):
    alice, bob = app(network, "alice", profile), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    compare(alice, bob, ksid, 3)
    for what, data in hostile(profile, ksid):
        for begun in (False, True):  # as the first message, and after one that was in order
            bad = socket.create_connection(network.endpoints["kme-a/app"], 60)
            with contextlib.suppress(ConnectionError):
                if begun and profile != "bin-a":
                    bad.sendall(get_message(profile, ksid, 1))
                    assert len(bad.recv(65536)) > 32, what
                bad.sendall(data)
                with contextlib.suppress(OSError):  # closed already
                    bad.shutdown(socket.SHUT_WR)
                answer = b""
                while more := bad.recv(65536):
                    answer += more
                # Nothing, or the profile's own error; no key.
                own = b'{"command":"ERROR_RESPONSE"' if begun and profile == "json-netxpto" else ERRORS[profile]
                assert not answer or answer.startswith(own), (what, answer[:80])
                assert len(answer) < 128, what
            bad.close()
        compare(alice, bob, ksid, 1)
    compare(alice, bob, ksid, 3)


@pytest.mark.parametrize("profile", ["bin-b", "json", "json-netxpto"])
def test_messages_byte_by_byte_and_merged(network, profile):
    alice, bob = app(network, "alice", profile, plain=True), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    keys = [bob.get(ksid, i).key for i in range(6)]
    sock = alice.connect()
    for byte in get_message(profile, ksid, 2):
        sock.sendall(bytes([byte]))
    sock.sendall(b"".join(get_message(profile, ksid, i) for i in range(6)) + close_message(profile, ksid))
    if profile == "bin-b":
        answers = [alice.message()[1] for _ in range(8)]
        got = [a[12:44] for a in answers[:7]]
        assert answers[7] == bytes(4)
    else:
        got = [alice.chunk().key for _ in range(7)]
        assert alice.answer("CLOSE") == {"status": 0}
    assert got == [keys[2], *keys]


def test_dialect_a_byte_by_byte_one_request_each(network):
    alice, bob = app(network, "alice", "bin-a", plain=True), app(network, "bob")
    ksid = open_pair(network, alice, bob)
    sock = alice.connect()
    for byte in get_message("bin-a", ksid, 2):
        sock.sendall(bytes([byte]))
    sock.sendall(get_message("bin-a", ksid, 3))  # merged: the connection ends after the first
    assert alice.message()[1][12:44] == bob.get(ksid, 2).key
    with pytest.raises(Closed):
        alice.receive(1)
