# SPDX-License-Identifier: Apache-2.0
"""Attackers at every listener: who asks honestly meanwhile is answered, nearly as fast as before.

`make dos` runs each attack alone and for longer, and prints the figures; by default several run at
once, for a moment, and the bound is a generous one.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import attack
from admin import https
from app004 import App, new_ksid
from client import Client
from links import issue
from topology import operators

FULL = os.environ.get("QKDGATE_DOS") == "full"
REQUESTS = 1000 if FULL else 150
IDLE = 10000
FACTOR = 3
FLOOR_S = 0.02 if FULL else 3.0  # below it nothing is said of a busy machine

SLOW = ("slow_headers", "slow_body", "slow_handshake")
FLOODS = ("connections", "handshakes", "strangers")
BOMBS = ("tiny_records", "huge_records", "headers", "bodies")
GROUPS = {kind: (kind,) for kind in SLOW + FLOODS + BOMBS} if FULL else {"slow": SLOW, "floods": FLOODS, "bombs": BOMBS}
LISTENERS = {"sae": "alice", "kms": "kme-b", "app": "alice", "admin": "admin", **({"kxi": "kme-g2"} if FULL else {})}
PATHS = {"sae": "/api/v1/keys/sae-bob/enc_keys", "kms": "/api/v1/kms/new_key_batch", "app": "/",
         "admin": "/api/v1/reload", "kxi": "/kmapi/v1/ext_keys"}


@pytest.fixture(scope="module")
def attacked_networks(e2e_folder, pki):
    """Gives a function from a listener to the network that it is attacked in: the border of a network
    among two, else a pair."""
    from conftest import _maker
    maker = _maker("attacked", e2e_folder, pki)
    made = {}

    def of(listener):
        border = listener == "kxi"
        if border not in made:
            made[border] = maker(operators(), stock=0) if border else maker(admin=True)
        return made[border]
    yield of
    maker.end()


def endpoint(listener):
    return f"{'kme-g1' if listener == 'kxi' else 'kme-a'}/{listener}"


def start_attack(network, listener, kind, size):
    certificate = LISTENERS[listener]
    options = {"kind": kind, "endpoint": network.endpoints[endpoint(listener)], "ca": str(network.pki / "ca.pem"),
               "certificate": str(network.pki / f"{certificate}.pem"), "key": str(network.pki / f"{certificate}.key"),
               "size": size, "path": PATHS[listener]}
    program = Path(attack.__file__)
    return subprocess.Popen(["nice", "-n", "10", sys.executable, program, json.dumps(options)], text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)


@contextlib.contextmanager
def attacked(network, listener, kinds, size=100):
    """While the attacks stand; gives what each of them did, once they have ended."""
    done = {}
    running = {kind: start_attack(network, listener, kind, size) for kind in kinds}
    try:
        for kind, process in running.items():
            assert process.stdout.readline() == "ready\n", kind
        yield done
        for kind, process in running.items():
            out, _ = process.communicate("", timeout=300)
            assert process.returncode == 0, kind
            done[kind] = json.loads(out)
    finally:
        for process in running.values():
            process.kill()
            process.wait()


@contextlib.contextmanager
def honest(network, listener):
    """Gives a function that asks once, over a connection that stays."""
    if listener == "app":
        app = App(network.endpoints["kme-a/app"], network.pki, "alice")
        ksid = new_ksid()

        def ask():
            assert app.get(ksid, 0).status != 0
        yield ask
        app.close_connection()
        return
    if listener == "admin":
        client, path, want = https(network), "/api/v1/logs", 200
    elif listener == "sae":
        client, path, want = network.client("alice"), "/api/v1/keys/sae-bob/status", 200
    else:
        name = network.pki / LISTENERS[listener]
        client = Client(network.url(*endpoint(listener).split("/")), network.pki / "ca.pem", f"{name}.pem",
                        f"{name}.key")
        path, want = ("/kmapi/versions", 200) if listener == "kxi" else ("/nothing", 404)

    def ask():
        """Who is turned away before the handshake, to make room, comes again, and all of it counts."""
        for _ in range(20):
            try:
                assert client.request("GET", path).status == want
                return
            except ConnectionError:
                pass
        raise AssertionError(f"{listener}: turned away 20 times")
    with client:
        yield ask


def percentile_99(ask):
    took = []
    for _ in range(REQUESTS):
        begin = time.monotonic()
        ask()
        took.append(time.monotonic() - begin)
    return sorted(took)[len(took) * 99 // 100]


def percentile_99_within(ask, most_s):
    """The least of up to three, since the machine may have stood still for once; one where it is good."""
    took = percentile_99(ask)
    for _ in range(2):
        took = took if took <= most_s else min(took, percentile_99(ask))
    return took


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def ten_thousand_connections_that_say_nothing(make_network):
    """Takes minutes."""
    def wide(_, config):
        config["sae_listener"].update(max_connections=IDLE + 100, address_handshakes_per_s=0, idle_timeout_s=3600)

    network = make_network(tweak=wide)
    pid = network.gateways["kme-a"].pid
    with honest(network, "sae") as ask:
        ask()
        quiet, before = percentile_99(ask), resident_bytes(pid)
        parts = [start_attack(network, "sae", "idle", IDLE // 4) for _ in range(4)]
        try:
            for part in parts:
                assert part.stdout.readline() == "ready\n"
            busy, after = percentile_99(ask), resident_bytes(pid)
            done = [json.loads(part.communicate("", timeout=300)[0]) for part in parts]
        finally:
            for part in parts:
                part.kill()
                part.wait()
        each = (after - before) / IDLE
        print(f"\n{IDLE} idle connections: {each / 1024:.1f} KiB each, quiet p99 {quiet * 1000:.2f} ms, "
              f"beside them {busy * 1000:.2f} ms")
        assert sum(d["open"] for d in done) == IDLE, done
        assert busy <= max(FACTOR * quiet, FLOOR_S) and each < 64 * 1024, (quiet, busy, each)


if FULL:
    test_ten_thousand_connections_that_say_nothing = ten_thousand_connections_that_say_nothing


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("listener", LISTENERS)
def test_who_asks_meanwhile_is_answered_as_before(attacked_networks, listener, group):
    network = attacked_networks(listener)
    with honest(network, listener) as ask:
        ask()
        quiet = percentile_99(ask)
        with attacked(network, listener, GROUPS[group], 40 if listener == "admin" and not FULL else 100) as done:
            busy = percentile_99_within(ask, max(FACTOR * quiet, FLOOR_S))
        print(f"\n{listener:6} {group:14} quiet p99 {quiet * 1000:7.2f} ms, attacked {busy * 1000:7.2f} ms  {done}")
        assert all(what["made"] > 0 for what in done.values()), done
        assert busy <= max(FACTOR * quiet, FLOOR_S), (quiet, busy, done)
    if listener == "kxi":
        network.wait_foreign("alice", "zoe")
        return
    with network.client("alice") as alice, network.client("bob") as bob:
        (key,) = issue(alice)
        assert bob.dec("sae-alice", key[0]).keys() == [key]
