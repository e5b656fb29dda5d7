# SPDX-License-Identifier: Apache-2.0
"""Bytes that no honest client sends: none of them harms the gateway or another client."""

import re
import socket
import ssl
import subprocess
import threading
import time
from statistics import median

import pytest

from client import tls_context
from load import BROKEN
from processes import wait_for

HOST = b"Host: kme\r\n"
STATUS = b"GET /api/v1/keys/sae-bob/status HTTP/1.1\r\n" + HOST
ENC = b"POST /api/v1/keys/sae-bob/enc_keys HTTP/1.1\r\n" + HOST + b"Content-Type: application/json\r\n"


@pytest.fixture
def witness(network):
    """Two clients with connections from before the attack: a key still passes after it."""
    with network.client("alice") as alice, network.client("bob") as bob:
        alice.status("sae-bob")
        bob.status("sae-alice")
        yield alice, bob
        (key,) = alice.enc("sae-bob").keys()
        assert bob.get_dec("sae-alice", key[0]).keys() == [key]
    assert network.gateways["kme-a"].pid and network.gateways["kme-b"].pid


def connect(network, sae="alice", timeout_s=60):
    context = tls_context(network.pki / "ca.pem", network.pki / f"{sae}.pem", network.pki / f"{sae}.key")
    raw = socket.create_connection(network.endpoints["kme-a/sae"], timeout=timeout_s)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return context.wrap_socket(raw, server_hostname="127.0.0.1")


def talk(network, *parts, timeout_s=60):
    """Everything the server answers to the bytes until it closes or falls silent."""
    answer = b""
    with connect(network, timeout_s=timeout_s) as tls:
        try:
            for part in parts:
                tls.sendall(part)
            while data := tls.recv(65536):
                answer += data
        except (OSError, ssl.SSLError):
            pass
    return answer


def statuses(answer):
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) [A-Z]", answer)]


def refused(answer):
    """No success among the answers; silence (a closed connection) is a refusal too."""
    found = statuses(answer)
    return all(400 <= status < 600 for status in found)


MALFORMED = {
    "garbage": b"\x00\x01\x02\x03garbage\r\n\r\n",
    "no version": b"GET /api/v1/keys/sae-bob/enc_keys\r\n\r\n",
    "bad version": b"GET /api/v1/keys/sae-bob/enc_keys HTTP/9.9\r\n" + HOST + b"\r\n",
    "length not a number": ENC + b"Content-Length: ten\r\n\r\n{}",
    "negative length": ENC + b"Content-Length: -2\r\n\r\n{}",
    "length beyond 64 bits": ENC + b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "two lengths": ENC + b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "length and chunked": ENC + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding": ENC + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "bad chunk size": ENC + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "huge chunk size": ENC + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n{}\r\n",
    "header without colon": STATUS + b"nonsense\r\n\r\n",
    "header too long": STATUS + b"X-Long: " + b"x" * 70000 + b"\r\n\r\n",
    "too many headers": STATUS + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\n",
    "path too long": b"GET /" + b"a" * 70000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "query too long": b"GET /api/v1/keys/sae-bob/enc_keys?" + b"a" * 70000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "absolute elsewhere": b"GET http://elsewhere/ HTTP/1.1\r\n" + HOST + b"\r\n",
    "connect": b"CONNECT elsewhere:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    "body over the limit": ENC + b"Content-Length: 10485760\r\n\r\n" + b"x" * 300000,
    "blank before the colon": ENC + b"Content-Length : 40\r\n\r\n{}",
    "signed length": ENC + b"Content-Length: +2\r\n\r\n{}",
    "hexadecimal length": ENC + b"Content-Length: 0x2\r\n\r\n{}",
    "list of lengths": ENC + b"Content-Length: 2, 2\r\n\r\n{}",
    "the same length twice": ENC + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "chunked twice": ENC + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and another": ENC + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "nearly chunked": ENC + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "signed chunk size": ENC + b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "bad character in a name": ENC + b"Content-Length\x0b: 2\r\n\r\n{}",
    "two request lines": b"GET /nowhere HTTP/1.1\r\n" + ENC + b"Content-Length: 2\r\n\r\n{}",
    "body with a status": STATUS.replace(b"GET", b"POST") + b"Content-Length: 2\r\n\r\n{}",
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_requests_are_refused(network, witness, kind):
    answer = talk(network, MALFORMED[kind], timeout_s=3)
    assert refused(answer), answer[:500]


def test_a_missing_host_header_is_no_way_in(network, witness):
    answer = talk(network, b"GET /api/v1/keys/sae-mallory/enc_keys HTTP/1.1\r\n\r\n", timeout_s=3)
    assert refused(answer), answer[:500]


def test_the_whole_body_may_arrive_byte_by_byte(network, witness):
    with connect(network) as tls:
        for byte in ENC + b'Content-Length: 13\r\n\r\n{"number": 2}':
            tls.sendall(bytes([byte]))
        assert statuses(tls.recv(65536)) == [200]


def test_a_chunked_body_is_read_or_refused_whole(network, witness):
    with connect(network) as tls:
        tls.sendall(ENC + b"Transfer-Encoding: chunked\r\n\r\n")
        for part in (b'{"num', b'ber": ', b"2}"):
            tls.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        tls.sendall(b"0\r\n\r\n")
        answer = b""
        while b'"]}' not in answer and b'"}]}' not in answer and b'"message"' not in answer:
            answer += tls.recv(65536)
    assert statuses(answer) in ([200], [400])
    assert answer.count(b'"key_ID"') == (2 if statuses(answer) == [200] else 0)


def test_a_chunked_body_over_the_limit_is_refused(network, witness):
    chunk = b"1000\r\n" + b"x" * 0x1000 + b"\r\n"
    answer = talk(network, ENC + b"Transfer-Encoding: chunked\r\n\r\n", *[chunk] * 40, b"0\r\n\r\n", timeout_s=3)
    assert refused(answer), answer[:300]


def test_pipelined_requests_are_answered_in_order(network, witness):
    unknown = b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n"
    with connect(network) as tls:
        tls.sendall((STATUS + b"\r\n" + unknown) * 3)
        answer = b""
        while len(statuses(answer)) < 6:
            data = tls.recv(65536)
            assert data, statuses(answer)
            answer += data
    assert statuses(answer) == [200, 404] * 3


def test_a_body_does_not_smuggle_a_second_request(network, witness):
    inner = b"GET /api/v1/keys/sae-bob/enc_keys HTTP/1.1\r\n" + HOST + b"\r\n"
    with connect(network) as tls:
        tls.sendall(ENC + b"Content-Length: %d\r\n\r\n" % len(inner) + inner)
        assert statuses(one_answer(tls)) == [400]
        # The next answer belongs to the next request: to the inner one there was none.
        tls.sendall(b"GET /nowhere HTTP/1.1\r\n" + HOST + b"\r\n")
        assert statuses(one_answer(tls)) == [404]


def one_answer(tls):
    """Head and body, which may come apart."""
    answer = b""
    while (found := re.search(rb"(?s)Content-Length: (\d+).*?\r\n\r\n(.*)", answer)) is None or len(found[2]) < int(found[1]):
        data = tls.recv(65536)
        assert data, answer
        answer += data
    return answer


def test_bombs_of_json_are_refused_at_once(network, witness):
    """Deep, long, and numbers that no variable holds: 400, and the connection goes on."""
    numbers = (b"1e400", b"99999999999999999999", b"-1", b"0.5", b"1" * 4000, b"[" * 1500 + b"]" * 1500)
    bombs = [b'{"number": ' + number + b"}" for number in numbers]
    bombs += [b"[" * 4000, b'{"a":' * 800, b'{"number": 1' + b" " * 4000, b'{"size": 1e99999}']
    with connect(network) as tls:
        for bomb in bombs:
            tls.sendall(ENC + b"Content-Length: %d\r\n\r\n" % len(bomb) + bomb)
            answer = one_answer(tls)
            assert statuses(answer) == [400] and b"Connection: close" not in answer, (bomb[:40], answer)
        tls.sendall(STATUS + b"\r\n")
        assert statuses(one_answer(tls)) == [200]


def renegotiated(net, listener):
    """What openssl says when alice wishes a new handshake, until the connection ends."""
    host, port = net.endpoints[f"kme-a/{listener}"]
    client = subprocess.Popen(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_2", "-CAfile", net.pki / "ca.pem",
         "-cert", net.pki / "alice.pem", "-key", net.pki / "alice.key"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    said = b""
    while b"Verify return code" not in said:
        line = client.stdout.readline()
        assert line, said
        said += line
    client.stdin.write(b"R\n")
    client.stdin.flush()
    client.wait(60)
    return client.communicate()[0].strip()


def test_a_client_cannot_renegotiate(make_network):
    def tweak(_, config):
        for listener in ("sae_listener", "app_listener"):
            config[listener].update(min_version="1.2")
    net = make_network(tweak=tweak)
    for listener in ("sae", "app"):
        said = renegotiated(net, listener)
        assert b"RENEGOTIATING" in said and said.endswith(b"closed"), said  # by the gateway
    with net.client("alice") as alice:
        assert alice.enc("sae-bob").status == 200


def test_truncated_requests(network, witness):
    whole = ENC + b'Content-Length: 500\r\n\r\n{"number": 1'
    for end in (1, 10, 60, len(ENC), len(whole)):
        with connect(network) as tls:
            tls.sendall(whole[:end])
        raw = connect(network)
        raw.sendall(whole[:end])
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        raw.close()  # reset instead of an orderly end


def test_a_client_that_never_reads_its_answers(network, witness):
    with connect(network) as tls:
        tls.settimeout(2)
        try:
            for _ in range(2000):
                tls.sendall((STATUS + b"\r\n") * 10)
        except (OSError, ssl.SSLError):
            pass
        assert median(witness_works(witness) for _ in range(5)) < 2


def witness_works(witness):
    """Passes one key; how long that took."""
    begin = time.monotonic()
    (key,) = witness[0].enc("sae-bob").keys()
    assert witness[1].get_dec("sae-alice", key[0]).keys() == [key]
    return time.monotonic() - begin


def test_slow_clients_do_not_slow_the_others(network, witness):
    """Fifty clients that send their request a byte every half second."""
    slow = [connect(network) for _ in range(50)]
    stop = threading.Event()

    def drip():
        for byte in ENC + b"Content-Length: 50000\r\n\r\n" + b" " * 1000:
            for tls in slow:
                try:
                    tls.sendall(bytes([byte]))
                except (OSError, ssl.SSLError):
                    pass
            if stop.wait(0.5):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        took = []
        for _ in range(20):
            took.append(witness_works(witness))
            time.sleep(0.1)
        assert median(took) < 2, took
    finally:
        stop.set()
        thread.join()
        for tls in slow:
            tls.close()


def test_a_silent_client_is_dropped_after_the_idle_time(make_network):
    net = make_network(tweak=lambda name, config: config["sae_listener"].update(idle_timeout_s=2))
    with connect(net) as tls:
        begin = time.monotonic()
        tls.sendall(ENC + b"Content-Length: 100\r\n\r\n{")
        try:
            while tls.recv(1000):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        assert 1 <= time.monotonic() - begin < 30  # of 60 that are the default


def test_more_connections_than_the_limit_do_not_end_the_daemon(make_network):
    net = make_network(tweak=lambda name, config: config["sae_listener"].update(max_connections=32))
    flood = []
    for _ in range(100):
        try:
            flood.append(socket.create_connection(net.endpoints["kme-a/sae"], timeout=2))
        except OSError:
            break
    assert len(flood) > 32
    time.sleep(0.5)
    for sock in flood:
        sock.close()

    def served():
        with net.client("alice") as alice:
            try:
                return alice.enc("sae-bob").status == 200
            except BROKEN:  # the daemon has not yet seen all of them go
                return False
    wait_for("a key", served, 20, 0.1)
