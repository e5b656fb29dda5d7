# SPDX-License-Identifier: Apache-2.0
"""Streams over every profile of ETSI GS QKD 004 that a source may speak, asked for and pushed."""

import re
import socket
import ssl


import pytest

from links import exchange, issue
from processes import wait_for
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
    for _ in range(5):
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
        with socket.create_connection((host, port), 10) as plain, \
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


# --- what a module may do wrong over its connection -------------------------------------------------

def test_hostile_clients_of_the_simulator_do_not_harm_others(make_network):
    """Every profile's port gets garbage, half messages and merged ones while keys flow."""
    net = over(make_network, {"dialect": "json", "tls": False})
    host, port = net.endpoints["sim-a"]
    for message in (b"{" * 64, b'{"command":"GET_KEY","data":{}}', b'{"command":"NOPE","data":{}}',
                    b"\x01\x00\x01\x04\xff\xff\xff\xff", b'{"command":"CLOSE"', b"[]", b"x" * 20000):
        with socket.create_connection((host, port), 10) as connection:
            connection.sendall(message)
            connection.shutdown(socket.SHUT_WR)
            connection.settimeout(20)
            answer = b""
            while data := connection.recv(4096):
                answer += data
            assert answer in (b"", b'{"status":4}'), (message, answer)
    exchange(net, 100)
