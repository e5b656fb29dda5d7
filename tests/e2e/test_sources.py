# SPDX-License-Identifier: Apache-2.0
"""The 004 client against key managers that speak the bytes captured from real software, and
against ones that answer wrongly."""

import struct
import time
import uuid

import pytest

from links import POOL, exchange, first_requests, over
from processes import wait_for
from source004 import CLOSE, GET, NULL, OPEN, message

KSID_A = uuid.UUID("41437059-0000-4000-8000-000000007ad1").bytes
KSID_B = uuid.UUID("8c5fecc3-d480-48cb-a5d8-123e5e8f2670").bytes

# The captures: what real clients sent and real servers answered.
OPEN_A = bytes.fromhex("0201010200000053") + b"qkd://a@n1\0" + b"qkd://b@n2\0" + struct.pack(
    ">IIIIIII", 32, 32, 32, 0, 0, 0, 0) + b"application/json\0" + bytes(16)
OPENED_A = bytes.fromhex("020101030000004100000000") + OPEN_A[30:75] + KSID_A
OPEN_B = bytes.fromhex("0100010200000152") + b"client://localhost\0" + b"server://127.0.0.1\0" + struct.pack(
    ">IIIIIII", 32, 0x9C40, 0x1388, 10, 0, 0x1388, 0xE10) + b"application/json".ljust(256, b"\0") + bytes(16)
OPENED_B = bytes.fromhex("010001030000013000000000") + OPEN_B[46:330] + KSID_B
QOS_A = {"max_bps": 32, "min_bps": 32, "jitter_bps": 0, "priority": 0, "timeout_ms": 0, "ttl_s": 0}
QOS_B = {"max_bps": 40000, "min_bps": 5000, "jitter_bps": 10, "priority": 0, "timeout_ms": 5000, "ttl_s": 3600}
META_A = b'{"device_info": []}\0'.ljust(0x37, b" ")
META_B = b'{"age": 1795203639317, "hops": 0}'


# --- reference captures --------------------------------------------------------------------------

def test_the_captures_are_whole():
    assert len(OPEN_A) == 8 + 0x53 and len(OPENED_A) == 8 + 0x41
    assert len(OPEN_B) == 8 + 0x152 and len(OPENED_B) == 8 + 0x130


def test_dialect_b_opens_with_the_captured_bytes(make_source, make_network):
    source = make_source("b", tls=False)
    over(source, make_network, tls=False, stock=0, source_uri="client://localhost",
         destination_uri="server://127.0.0.1", **QOS_B)
    opens = first_requests(source, OPEN)
    assert any(r.header + r.payload == OPEN_B for r in opens)
    assert all((r.header + r.payload)[:-16] == OPEN_B[:-16] for r in opens)


def test_dialect_a_opens_with_the_captured_bytes(make_source, make_network):
    source = make_source("a", client_certificate=False)
    over(source, make_network, stock=0, source_uri="qkd://a@n1", destination_uri="qkd://b@n2",
         **QOS_A)
    opens = first_requests(source, OPEN)
    assert any(r.header + r.payload == OPEN_A for r in opens)
    assert all((r.header + r.payload)[:-16] == OPEN_A[:-16] for r in opens)
    assert not source.complaints


@pytest.mark.parametrize("dialect,tls,client_certificate", [
    ("a", True, False), ("a", True, True), ("b", True, True), ("b", False, False)])
def test_keys_flow_from_each_dialect(make_source, make_network, dialect, tls, client_certificate):
    """Captured answers go in, matching keys come out, in messages of the captured form."""
    source = make_source(dialect, tls=tls, client_certificate=client_certificate,
                         metadata=META_A if dialect == "a" else META_B)
    source.fixed_ksids = [KSID_A, KSID_B]
    net = over(source, make_network, tls=tls, stock=50)
    exchange(net)
    net.stop()
    wait_for("the ends of the connections", lambda: not source.connected("sim-a") + source.connected("sim-b"), 20)
    check_gets(source, dialect)
    check_closes(source, dialect)
    assert not source.complaints
    assert {r.ksid for r in source.seen(GET)} >= {KSID_A, KSID_B}


def check_gets(source, dialect):
    version = (b"\x02\x01\x01", b"\x01\x00\x01")[dialect == "b"]
    for request in source.seen(GET):
        assert request.header[:4] == version + bytes([GET])
        last = struct.unpack(">I", request.payload[20:24])[0]
        if dialect == "b":
            assert len(request.payload) == 24 and last > 0
        else:
            assert len(request.payload) == 24 + last
    if dialect == "a":  # one request per connection
        numbers = [r.connection for r in source.seen()]
        assert len(numbers) == len(set(numbers))
    else:
        assert len({r.connection for r in source.seen(GET)}) <= 8


def check_closes(source, dialect):
    """An orderly stop closes every stream at both ends."""
    closes = {(r.end, r.ksid) for r in source.seen(CLOSE)}
    assert closes >= {(end, ksid) for end in ("sim-a", "sim-b") for ksid in (KSID_A, KSID_B)}
    assert not source.open_streams()  # also none that the one which stopped last has opened since
    assert all(len(r.payload) == 16 for r in source.seen(CLOSE))


def test_one_end_opens_with_null_and_the_other_with_its_ksid(make_source, make_network):
    source = make_source("b")
    source.fixed_ksids = [KSID_A, KSID_B]
    over(source, make_network)
    opens = source.seen(OPEN)
    for ksid in (KSID_A, KSID_B):
        assert len([r for r in opens if r.ksid == ksid]) == 1
    assert len([r for r in opens if r.ksid == NULL]) == 2


def test_a_predefined_ksid_is_used_at_both_ends(make_source, make_network):
    source = make_source("b")

    def predefine(_, config):
        for stream, ksid in zip(config["streams"], (KSID_A, KSID_B)):
            stream["source"]["ksid"] = str(uuid.UUID(bytes=ksid))

    net = over(source, make_network, tweak=predefine)
    assert {(r.end, r.ksid) for r in source.seen(OPEN)} == \
        {(end, ksid) for end in ("sim-a", "sim-b") for ksid in (KSID_A, KSID_B)}
    exchange(net)


@pytest.mark.parametrize("chunk_size", [16, 64, 100])
def test_other_chunk_sizes(make_source, make_network, chunk_size):
    net = over(make_source("b", chunk_size=chunk_size), make_network)
    exchange(net)


def test_the_rate_of_the_configuration_is_respected(make_source, make_network):
    """64 kbit/s are 250 chunks of 32 bytes a second and stream, and never more."""
    source = make_source("b")
    over(source, make_network, stock=0, max_bps=64000)
    first_requests(source, GET)
    time.sleep(6)
    for ksid in {r.ksid for r in source.seen(GET)}:
        times = [r.time for r in source.seen(GET, "sim-a", ksid)]
        assert times and (len(times) - 60) / max(times[-1] - times[0], 1) <= 275


def test_intake_stops_at_the_limit_of_the_pool(make_source, make_network):
    source = make_source("b")
    net = over(source, make_network)
    seen = -1
    def settled():
        nonlocal seen
        before, seen = seen, len(source.seen(GET))
        return before == seen
    wait_for("the end of intake", settled, 60, 1.5)
    assert len({r.index for r in source.seen(GET, "sim-a")}) <= 3 * POOL["ready_chunks"]
    exchange(net, 100)
    wait_for("intake again", lambda: len(source.seen(GET)) > seen, 20)


# --- counter-proposals, peers not there yet --------------------------------------------------------

def test_status_7_is_a_counter_proposal(make_source, make_network):
    """The key manager offers less than asked; the client opens again with what is offered."""
    source = make_source("b")

    def offer(request, answer):
        if request.service != OPEN:
            return answer
        qos = request.payload.split(b"\0", 2)[2][:284]
        if struct.unpack(">I", qos[4:8])[0] <= 1_000_000:
            return answer
        with source._lock:
            for ends in source._open.values():
                ends.discard(request.end)
        lower = qos[:4] + struct.pack(">I", 1_000_000) + qos[8:]
        return message("b", 3, struct.pack(">I", 7) + lower + answer[-16:])

    source.hook = offer
    net = over(source, make_network, max_bps=100_000_000)
    exchange(net)


def test_no_key_yet_is_asked_for_again(make_source, make_network):
    source = make_source("b")
    source.limit = 0
    net = over(source, make_network, stock=0)
    first_requests(source, GET)
    with net.client("alice") as alice:
        answer = alice.enc("sae-bob")
        assert answer.status == 503 and int(answer.headers["Retry-After"]) >= 1
    source.limit = None
    net.wait_stock("alice", "bob")
    exchange(net)


def test_metadata_that_does_not_fit_is_asked_for_again(make_source, make_network):
    """Status 8 names the room needed; the stream goes on."""
    source = make_source("b")
    source.metadata = b'{"age": 1, "hops": 0, "x": "' + b"y" * 3000 + b'"}'

    def too_long(request, answer):
        if request.service == GET and struct.unpack(">I", request.payload[20:24])[0] < len(source.metadata):
            return message("b", 5, struct.pack(">II", 8, len(source.metadata)))
        return answer

    source.hook = too_long
    exchange(over(source, make_network))


def test_a_source_that_is_not_there_yet_does_not_stop_the_daemon(make_source, make_network):
    source = make_source("b")
    refuse = [True]
    source.hook = lambda request, answer: None if refuse[0] else answer
    net = over(source, make_network, stock=0)
    with net.client("alice") as alice:
        assert alice.status("sae-bob").json["stored_key_count"] == 0
    refuse[0] = False
    source.forget()
    net.wait_stock("alice", "bob", timeout_s=45)
    exchange(net)


# --- wrong answers ---------------------------------------------------------------------------------

def get_with(change):
    return lambda request, answer: change(request, answer) if request.service == GET else answer


WRONG = {
    "another index": get_with(lambda r, a: a[:12] + struct.pack(">I", r.index + 7) + a[16:]),
    "short key": get_with(lambda r, a: message("b", 5, struct.pack(">III", 0, r.index, 5) + b"short" + bytes(4))),
    "no key": get_with(lambda r, a: message("b", 5, struct.pack(">IIII", 0, r.index, 0, 0))),
    "key length beyond the payload": get_with(lambda r, a: a[:16] + struct.pack(">I", 0x7FFFFFFF) + a[20:]),
    "metadata length beyond the payload": get_with(lambda r, a: a[:52] + struct.pack(">I", 0xFFFFFFFF) + a[56:]),
    "payload length beyond all": get_with(lambda r, a: a[:4] + struct.pack(">I", 0xFFFFFFF0) + a[8:]),
    "payload shorter than said": get_with(lambda r, a: a[:4] + struct.pack(">I", 4) + a[8:12]),
    "empty payload": get_with(lambda r, a: a[:4] + bytes(4)),
    "trailing bytes": get_with(lambda r, a: a[:4] + struct.pack(">I", len(a)) + a[8:] + bytes(8)),
    "another service": get_with(lambda r, a: a[:3] + b"\x03" + a[4:]),
    "unknown service": get_with(lambda r, a: a[:3] + b"\x77" + a[4:]),
    "unknown status": get_with(lambda r, a: message("b", 5, struct.pack(">I", 4711))),
    "half an answer": get_with(lambda r, a: a[:len(a) // 2]),
    "noise": get_with(lambda r, a: bytes(range(256)) * 4),
    "http": get_with(lambda r, a: b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "silence and the end": get_with(lambda r, a: None),
    "open without ksid": lambda r, a: a[:-16] + bytes(16) if r.service == OPEN else a,
    "open cut short": lambda r, a: message("b", 3, bytes(4)) if r.service == OPEN else a,
    "open with another chunk size": lambda r, a: a[:12] + struct.pack(">I", 31) + a[16:] if r.service == OPEN else a,
}


def wrong_at(end, hook):
    return lambda request, answer: hook(request, answer) if request.end == end else answer


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_answer_closes_the_stream_with_a_report(make_source, make_network, kind):
    """At KME-A every answer is wrong: reported, no key, no crash. Then answers are right again."""
    source = make_source("b")
    source.hook = wrong_at("sim-a", WRONG[kind])
    net = over(source, make_network, stock=0)
    gateway = net.gateways["kme-a"]
    first_requests(source, OPEN, "sim-a")
    wait_for("a report", lambda: reports(gateway), 20)
    with net.client("alice") as alice:
        assert alice.enc("sae-bob").status == 503
    assert gateway.pid and net.gateways["kme-b"].pid
    source.hook = None
    source.forget()
    net.wait_stock("alice", "bob", timeout_s=45)
    exchange(net)


def reports(gateway):
    return [line for line in gateway.log().splitlines()
            if (" warn " in line or " error " in line) and "-to-" in line]


def test_a_source_without_use_is_not_opened_again_and_again(make_source, make_network):
    """Each epoch leaves records behind: while none comes to a confirmed segment they come ever
    more slowly."""
    source = make_source("b")
    source.hook = WRONG["another index"]
    over(source, make_network, stock=0)
    first = min(r.time for r in first_requests(source, OPEN))
    time.sleep(8)
    for end in ("sim-a", "sim-b"):
        wait_for("its two streams", lambda: len(source.seen(OPEN, end)) >= 2, 20)
        opens = [r for r in source.seen(OPEN, end) if r.time < first + 8]
        assert len(opens) <= 16, len(opens)  # without the waits more than 60


def test_an_index_that_is_never_given_ends_the_epoch_and_keys_flow_again(make_source, make_network):
    """The source has the stream and answers, but one index it refuses for good."""
    source = make_source()
    give, poor = source._get_key, set()

    def refuse(request):
        if len(poor) < 2:
            poor.add(request.ksid)
        if request.ksid in poor and request.index == 100:
            return source._failed(4, struct.pack(">III", request.index, 0, 0))
        return give(request)
    source._get_key = refuse
    net = over(source, make_network, stock=0)
    wait_for("the end of a stream, at the gateway that gives up first",
             lambda: any(g.lines("event=stream_lost", "never given") for g in net.gateways.values()), 60)
    exchange(net, timeout_s=60)

