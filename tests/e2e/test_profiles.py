# SPDX-License-Identifier: Apache-2.0
"""Streams over every profile of ETSI GS QKD 004 that a source may speak, asked for and pushed."""

import re
import socket
import ssl


import pytest

from links import exchange, issue
from network import Ports, binary
from processes import Process, wait_for
from topology import pair

POOL = {"ready_chunks": 512, "inbound_chunks": 8192}
WAYS = {
    "bin-a": {"dialect": "bin-a"},
    "bin-b": {"dialect": "bin-b"},
    "json": {"dialect": "json"},
    "json pushed": {"dialect": "json", "push": True},
    "json-netxpto": {"dialect": "json-netxpto"},
    "json-netxpto pushed": {"dialect": "json-netxpto", "push": True},
    "json-netxpto pushed, tcp": {"dialect": "json-netxpto", "push": True, "tls": False},
    "http-push": {"dialect": "http-push"},
}
PUSHED = {name: way for name, way in WAYS.items() if "push" in name and "tcp" not in name}


def over(make_network, way, **options):
    return make_network(pair(segment_chunks=64, **way, **options), pool=POOL, stock=1)


@pytest.mark.parametrize("name", WAYS)
def test_keys_flow_over_each_profile(make_network, name):
    """A real pair, filled from the simulated link: the same keys at both ends, in both directions."""
    net = over(make_network, WAYS[name])
    for _ in range(1 if name == "bin-a" else 5):  # where each chunk is a handshake
        exchange(net, 100)
    for gateway in net.gateways.values():
        assert not gateway.lines("event=segment_mismatch") and not gateway.lines("event=segment_abandoned")
        assert not gateway.lines("event=epoch_ended")


@pytest.mark.parametrize("name", PUSHED)
def test_a_module_in_a_hurry_is_held_back(make_network, name):
    """It makes key as fast as it can and nobody takes any: it is told to wait, with a report, and
    nothing is lost by it."""
    net = over(make_network, PUSHED[name], rate_bps=0)
    event = "event=push_refused" if name == "http-push" else "event=push_held"
    for gateway in net.gateways.values():
        gateway.wait_log(event, timeout_s=60)
    assert net.stock("alice", "bob") <= 2 * POOL["ready_chunks"]
    for _ in range(10):
        exchange(net, 100)
    for gateway in net.gateways.values():
        assert not gateway.lines("event=segment_mismatch") and not gateway.lines("event=segment_abandoned")
        assert not gateway.lines("event=epoch_ended")
    if name != "http-push":
        net.gateways["kme-a"].wait_log("event=push_resumed", timeout_s=30)


def test_what_a_module_drops_is_missed_and_the_stream_goes_on(make_network):
    """A module without memory drops what is refused: those segments are given up, at either end
    others; keys that are handed out match."""
    net = over(make_network, PUSHED["http-push"], rate_bps=200_000, push_drop=True)
    for gateway in net.gateways.values():
        gateway.wait_log("event=push_refused", timeout_s=60)
    def hole():
        exchange(net, 100, timeout_s=60)
        return all(g.lines("event=segment_abandoned") for g in net.gateways.values())
    wait_for("holes that are reported", hole, 90)
    exchange(net, 100)
    assert not any(g.lines("event=segment_mismatch") for g in net.gateways.values())


@pytest.mark.parametrize("name", ["json pushed", "http-push", "json"])
def test_either_side_is_restarted(make_network, name):
    """The gateway first: its stream goes on. Then the module: it has lost the stream, another opens."""
    net = over(make_network, WAYS[name])
    exchange(net, 50)
    assert net.gateways["kme-a"].stop()
    net.restart("kme-a")
    net.wait_stock("alice", "bob", 100)
    exchange(net, 50)
    for sim in ("sim-b", "sim-a"):
        net.sims[sim].stop()
        net.sims[sim].start()
    # Stored key of before is handed out meanwhile; it is used up, and new key comes.
    opened = len(net.gateways["kme-a"].lines("event=stream_open"))
    wait_for("another epoch", lambda: exchange(net, 100)
             and len(net.gateways["kme-a"].lines("event=stream_open")) > opened, 90)
    exchange(net, 100)
    assert not any(g.lines("event=segment_mismatch") for g in net.gateways.values())


def test_a_killed_gateway_goes_on_with_its_pushed_stream(make_network):
    """Every key of before the crash stays what it was; no index has a second value."""
    net = over(make_network, PUSHED["http-push"])
    before = issue_and_keep(net)
    net.gateways["kme-a"].kill()
    net.restart("kme-a")
    with net.client("bob") as bob:
        for key_id, key in before:
            assert bob.dec("sae-alice", key_id).keys() == [(key_id, key)]
    net.wait_stock("alice", "bob", 100)
    exchange(net, 100)
    assert not any(g.lines("event=segment_mismatch") for g in net.gateways.values())


def issue_and_keep(net):
    with net.client("alice") as alice:
        return issue(alice, number=20)


# --- the listener ------------------------------------------------------------------------------------

PATH = "/api/v1/qkd/etsi004/key-material"
NOBODYS = ('{"status":0,"index":0,"key_buffer":"' + "A" * 43 + '=","metadata":{"size":56,"buffer":'
           '{"key_stream_id":"8c5fecc3-d480-48cb-a5d8-123e5e8f2670"}}}')


@pytest.fixture(scope="module")
def pushed_to(make_shared):
    return make_shared(pair(segment_chunks=64, dialect="http-push"), pool=POOL, stock=1)


def push(net, body, who="sim-a", method="POST", path=PATH, raw=None):
    """(HTTP status, body) of what the gateway KME-A answers; status None: it only closed."""
    context = ssl.create_default_context(cafile=net.pki / "ca.pem")
    if who:
        context.load_cert_chain(net.pki / f"{who}.pem", net.pki / f"{who}.key")
    host, port = net.endpoints["kme-a/push"]
    message = raw or (f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
                      f"Connection: close\r\n\r\n{body}").encode()
    answer = b""
    try:
        with socket.create_connection((host, port), 60) as plain, \
                context.wrap_socket(plain, server_hostname=host) as tls:
            tls.sendall(message)
            if raw:
                tls.shutdown(socket.SHUT_WR)
            while data := tls.recv(65536):
                answer += data
    except (ssl.SSLError, ConnectionError, TimeoutError):
        pass
    head, _, rest = answer.partition(b"\r\n\r\n")
    found = re.match(rb"HTTP/1\.1 (\d+)", head)
    return (int(found.group(1)) if found else None), rest


def ksid_of(net):
    line = net.gateways["kme-a"].lines("event=stream_open")[0]
    return re.search(r"ksid=([0-9a-f-]{36})", line).group(1)


def chunk(ksid, index, key="A" * 43 + "="):
    return ('{"status":0,"index":%d,"key_buffer":"%s","metadata":{"size":56,"buffer":{"key_stream_id":"%s"}}}'
            % (index, key, ksid))


def test_only_the_module_of_the_stream_may_push(pushed_to):
    """Another certificate of the same authority, the module of no stream here, none at all."""
    ksid = ksid_of(pushed_to)
    for who in ("sim-b", "alice", "kme-b"):
        assert push(pushed_to, chunk(ksid, 1 << 20), who)[0] == 401, who
    assert push(pushed_to, chunk(ksid, 1 << 20), None)[0] is None
    pushed_to.gateways["kme-a"].wait_log("event=unknown_pusher", timeout_s=20)
    assert push(pushed_to, NOBODYS)[0] == 500
    exchange(pushed_to)


@pytest.mark.parametrize("body", [
    "", "{", "[]", "null", '{"status":0}', NOBODYS[:-1], NOBODYS.replace("A=", "A"), NOBODYS + "x",
    NOBODYS.replace("8c5f", "8c5"), NOBODYS.replace('"index":0', '"index":-1'),
    NOBODYS.replace('"index":0', '"index":4294967296'), NOBODYS.replace('"index":0', '"index":0,"index":0'),
    NOBODYS.replace('"A', '"\\u0000A'), "{" * 5000, '{"x":' + "[" * 40 + "]" * 40 + "}",
], ids=range(15))
def test_a_malformed_push_is_refused(pushed_to, body):
    assert push(pushed_to, body) == (400, b'{"status":4}')


def test_other_wrong_pushes(pushed_to):
    """Wrong size, an index far ahead, another value for one that waits, another path or method,
    garbage; the stream lives on, and what was refused is in no key."""
    ksid = ksid_of(pushed_to)
    pushed_to.gateways["kme-a"].wait_log("event=push_refused", timeout_s=60)  # nothing is wanted now
    assert push(pushed_to, chunk(ksid, 1 << 20, "AAAA"))[0] == 400
    status, body = push(pushed_to, chunk(ksid, 1 << 31))
    assert (status, body) == (503, b'{"status":6}')
    assert push(pushed_to, "{}", path="/api/v1/qkd/etsi004/key")[0] == 404
    assert push(pushed_to, "{}", method="PUT")[0] == 405
    assert push(pushed_to, chunk(ksid, 0, "A" * 200_000))[0] in (400, 413)
    for raw in (b"\x00" * 100 + b"\r\n\r\n", b"{}\r\n\r\n", b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
                b"POST " + b"x" * 100_000):
        assert push(pushed_to, "", raw=raw)[0] in (None, 400, 404, 405, 413, 414, 431), raw[:8]
    exchange(pushed_to, 100)
    assert not any(g.lines("event=segment_mismatch") for g in pushed_to.gateways.values())


# --- a server of every profile on one port -----------------------------------------------------------

ERROR_A, ERROR_B = bytes.fromhex("0201010000000004" "00000004"), bytes.fromhex("0100010000000004" "00000004")
ERROR_JSON = b'{"status":4}'
ERROR_NETXPTO = b'{"command":"ERROR_RESPONSE","data":{"status":4}}'
OPEN_JSON = b'{"command":"OPEN_CONNECT","data":{"source":"qkd://a@n1","destination":"qkd://b@n2","qos":{%s}}}'
NOT_OURS = "8c5fecc3-d480-48cb-a5d8-123e5e8f2670"
CLOSE_BIN = bytes.fromhex("0100010800000010" + NOT_OURS.replace("-", ""))

HOSTILE = {  # what is sent, and what is answered before the connection ends
    "bin: half a header": (b"\x01\x00\x01", b""),
    "bin: half a payload": (CLOSE_BIN[:-1], b""),
    "bin: a length beyond all": (b"\x01\x00\x01\x04\xff\xff\xff\xff", ERROR_B),
    "bin: a length that is none's": (b"\x01\x00\x01\x08\x00\x00\x00\x01x", ERROR_B),
    "bin: an unknown service": (b"\x02\x01\x01\x77\x00\x00\x00\x00", ERROR_A),
    "bin-b: an unknown service later": (CLOSE_BIN + b"\x01\x00\x01\x77\x00\x00\x00\x00",
                                        bytes.fromhex("0100010900000004" "00000004") + ERROR_B),
    "json: half an object": (b'{"command":"CLOSE"', b""),
    "json: too deep": (b"{" * 64, ERROR_JSON),
    "json: no JSON": (b'{"command":CLOSE}', ERROR_JSON),
    "json: an unknown command": (b'{"command":"NOPE","data":{}}', ERROR_JSON),
    "json: a member twice": (b'{"command":"CLOSE","command":"CLOSE","data":{}}', ERROR_JSON),
    "json: too long": (b'{"command":"' + b"x" * 20000, ERROR_JSON),
    "json-netxpto: another call without data": (OPEN_JSON % b'"key_type":2' + b'{"command":"CLOSE"}', ERROR_NETXPTO),
    "http: an unknown path": (b"GET / HTTP/1.1\r\n\r\n", b'{"status":4}'),
    "http: two lengths": (b"PUT /api/v1/kms/etsi004/close HTTP/1.1\r\nContent-Length: 2\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n{}", b'{"status":4}'),
    "http: half a head": (b"GET /api/v1/kms/etsi004/get-key HTTP/1.1\r\nHost:", b""),
    "http: a head without end": (b"POST /" + b"x" * 20000, b'{"status":4}'),
    "garbage": (bytes(range(3, 256)), b""),
    "TLS": (b"\x16\x03\x01\x02\x00\x01", b""),
}


@pytest.fixture(scope="module")
def any_profile(tmp_path_factory):
    """A simulator without another end, for every profile, over plain TCP."""
    ports = Ports()
    port, link = ports.take(), ports.take()
    sim = Process(tmp_path_factory.mktemp("any"), "sim", [
        binary("qkdgate-sim"), "--listen", f"127.0.0.1:{port}", "--profile", "any",
        "--link-listen", f"127.0.0.1:{link}"])
    sim.start()
    sim.wait_ready()
    with socket.create_connection(("127.0.0.1", port), 60) as other:
        yield port, other
    assert sim.stop()


def exchange_bytes(port, message, piece=None):
    """What is answered to the message, sent at once or in pieces, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(0, len(message), piece or len(message)):
            connection.sendall(message[i:i + (piece or len(message))])
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        try:
            while data := connection.recv(65536):
                answer += data
        except ConnectionResetError:  # more came than was read
            pass
        return answer


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_client_gets_the_profiles_error_and_others_live_on(any_profile, kind):
    port, other = any_profile
    message, error = HOSTILE[kind]
    answer = exchange_bytes(port, message)
    assert answer.endswith(error) and (error or not answer), answer
    if answer.startswith(b"HTTP/"):
        assert answer.startswith(b"HTTP/1.1 400 ") and b"\r\nConnection: close\r\n" in answer
    other.sendall(CLOSE_BIN)  # another client, of the same connection all the time
    assert other.recv(4096) == bytes.fromhex("0100010900000004" "00000004")


@pytest.mark.parametrize("piece", [None, 1, 7])
def test_one_port_tells_the_profiles_apart(any_profile, piece):
    """Each opens a stream and closes it, over one connection, merged or byte by byte."""
    port, _ = any_profile
    qos = b'"key_chunk_size":32,"timeout":0'
    close = b'{"command":"CLOSE","data":{"key_stream_id":"%s"}}' % NOT_OURS.encode()
    flat = exchange_bytes(port, OPEN_JSON % qos + close, piece)
    assert flat.startswith(b'{"status":0,"key_stream_id":"') and flat.endswith(b'}{"status":4}'), flat
    wrapped = exchange_bytes(port, OPEN_JSON % (qos + b',"key_type":2') + close, piece)
    assert wrapped.startswith(b'{"command":"OPEN_CONNECT_RESPONSE","data":{"status":0,')
    assert wrapped.endswith(b'{"command":"CLOSE_RESPONSE","data":{"status":4}}'), wrapped
    oblivious = exchange_bytes(port, OPEN_JSON % (qos + b',"key_type":7'), piece)
    assert b'"status":7,' in oblivious and b'"key_type":2' in oblivious
    assert exchange_bytes(port, CLOSE_BIN * 3, piece) == bytes.fromhex("0100010900000004" "00000004") * 3
    put = b"PUT /api/v1/kms/etsi004/close HTTP/1.1\r\nHost: x\r\nContent-Length: 56\r\n\r\n"
    body = b'{"key_stream_id":"%s"}' % NOT_OURS.encode()
    answers = exchange_bytes(port, (put + body) * 2, piece)
    assert answers.count(b"HTTP/1.1 500 ") == 2 and answers.endswith(b'{"status":4}')
