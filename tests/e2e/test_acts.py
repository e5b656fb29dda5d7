# SPDX-License-Identifier: Apache-2.0
"""What operators do to a running gateway: reload, drain, suspend, delete, zeroize, and what systemd is told."""

import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from admin import ctl, https, local
from client import Client
from links import audit_lines, exchange, issue
from network import PROJECT, binary, make_pki
from processes import wait_for
from topology import operators, pair

RELOADS = int(os.environ.get("QKDGATE_RELOADS", "1000"))


@pytest.fixture
def net(make_network):
    return make_network(admin=True, stock=200)


def audit(net, node="kme-a"):
    return audit_lines(net.folder / node / "audit.log")


def acted(net, reason, caller=None, node="kme-a"):
    """The audit log has an act of that name, maybe in a moment."""
    return wait_for(f"audit line {reason}", lambda: [x for x in audit(net, node) if x["act"] == "admin" and
                    x["reason"] == reason and (caller is None or x["caller"] == caller)], 10, 0.05)


def hup(net, node="kme-a"):
    """Reloads by signal; what the log said."""
    gateway = net.gateways[node]
    done, refused = len(gateway.lines("event=reloaded")), len(gateway.lines("event=reload_refused"))
    gateway.signal(signal.SIGHUP)
    return wait_for("the reload", lambda: gateway.lines("event=reloaded")[done:] or
                    gateway.lines("event=reload_refused")[refused:], 20)[0]


# --- reload ----------------------------------------------------------------------------------------------

class Load(threading.Thread):
    """alice and bob exchange keys over connections that stay open; any status but 200 is a fault. It waits
    while the stock is not well over the part of the pool that is kept for others."""

    def __init__(self, net):
        super().__init__()
        self._net, self.faults, self.done, self._end = net, [], 0, threading.Event()

    def run(self):
        with self._net.client("alice") as alice, self._net.client("bob") as bob:
            while not self._end.is_set():
                try:
                    stock = alice.status("sae-bob").json
                    if stock["stored_key_count"] < stock["max_key_count"] // 8:
                        time.sleep(0.01)
                        continue
                    (key,) = alice.enc("sae-bob").keys()
                    assert bob.dec("sae-alice", key[0]).keys() == [key]
                    self.done += 1
                except Exception as error:  # every kind counts
                    self.faults.append(repr(error))
                    return

    def end(self):
        self._end.set()
        self.join(60)
        return self.faults


def test_a_thousand_reloads_under_load_without_one_failed_request(make_network):
    net = make_network(admin=True, stock=12000, pool={"ready_chunks": 16384, "inbound_chunks": 262144})
    loads = [Load(net) for _ in range(2)]
    for load in loads:
        load.start()
    admin, versions = local(net), []
    for i in range(2):  # two configurations in turn: every reload changes something
        net.write_config("kme-a", lambda c, i=i: c["saes"].append(
            {"id": f"sae-new-{i}", "certificate": {"uri": f"urn:sae:sae-new-{i}"}}))
        versions.append(net.config_file("kme-a").read_text())
    for i in range(RELOADS):
        net.config_file("kme-a").write_text(versions[i % 2])
        answer = admin.post("/api/v1/reload")
        assert answer.status == 200, answer.body
    assert f"sae-new-{(RELOADS - 1) % 2}" in [s["id"] for s in admin.get("/api/v1/saes")["saes"]]
    assert [load.end() for load in loads] == [[], []]
    assert all(load.done > 0 for load in loads)


def test_a_reload_brings_saes_policy_and_directory(net):
    make_pki(net.pki, "frank")
    with net.client("frank", at="kme-a") as frank, net.client("alice") as alice:
        assert frank.status("sae-bob").status == 401
        issue(alice)
        net.write_config("kme-a", lambda c: (
            c["saes"].append({"id": "sae-frank", "certificate": {"uri": "urn:sae:sae-frank"}}),
            c["policy"].append({"master": "sae-frank", "slaves": ["sae-bob"]})))
        assert "reloaded" in hup(net)
        assert frank.status("sae-bob").status == 200  # on the connection that was refused before
        assert len(issue(frank)) == 1
        net.write_config("kme-a", lambda c: c.update(policy=[]))
        assert "reloaded" in hup(net)
        assert alice.enc("sae-bob").status == 401 and frank.enc("sae-bob").status == 401
        net.write_config("kme-a")
        assert "reloaded" in hup(net)
        assert len(issue(alice)) == 1 and frank.enc("sae-bob").status == 401
    acted(net, "reload", "signal:HUP")


def test_a_reload_brings_rates(net):
    with net.client("alice") as alice:
        net.write_config("kme-a", lambda c: c.update(limits={"sae_requests_per_s": 1}))
        assert local(net).post("/api/v1/reload").status == 200
        end = time.monotonic() + 120
        while (answer := alice.enc("sae-bob")).status == 200:  # however slowly it is asked, until two come in a second
            assert time.monotonic() < end
        assert answer.status == 503 and answer.message == "rate limit exceeded"
        hit = local(net).get("/api/v1/limits")["hit"]
        assert hit and hit[0]["sae"] == "sae-alice" and hit[0]["limited"] > 0
        net.write_config("kme-a")
        assert local(net).post("/api/v1/reload").status == 200
        assert {alice.enc("sae-bob").status for _ in range(5)} == {200}


def test_a_reload_brings_a_revocation_to_connections_that_are_open(net):
    with net.client("alice") as alice, net.client("dave") as dave, https(net) as admin:
        issue(alice)
        shutil.copy(net.pki / "alice.pem", net.pki / "revoked-alice.pem")
        make_pki(net.pki)
        issue(alice)  # not before the reload
        assert "reloaded" in hup(net)
        assert alice.enc("sae-bob").status == 401
        assert len(issue(dave)) == 1
        assert admin.request("GET", "/api/v1/node").status == 200
    with pytest.raises((ssl.SSLError, OSError)), net.client("alice") as alice:
        alice.status("sae-bob")


def presented(net, listener, certificate="alice"):
    host, port = net.endpoints[listener]
    context = ssl.create_default_context(cafile=str(net.pki / "ca.pem"))
    context.check_hostname = False
    context.load_cert_chain(str(net.pki / f"{certificate}.pem"), str(net.pki / f"{certificate}.key"))
    with socket.create_connection((host, port)) as raw, context.wrap_socket(raw) as tls:
        return tls.getpeercert()["serialNumber"]


def test_a_reload_brings_new_certificates_to_every_listener(net):
    listeners = ("kme-a/sae", "kme-a/kms", "kme-a/admin", "kme-a/app")
    before = [presented(net, x) for x in listeners]
    (net.pki / "kme-a.pem").unlink()
    make_pki(net.pki)
    assert [presented(net, x) for x in listeners] == before
    assert "reloaded" in hup(net)
    after = [presented(net, x) for x in listeners]
    assert len(set(after)) == 1 and after[0] not in before
    exchange(net)


def test_a_reload_brings_new_certificates_to_other_networks_and_modules(make_network):
    """kxi_listener and push_listener of a border whose modules push; keys cross it before and after."""
    net = make_network(topology=operators(link={"dialect": "http-push"}), stock=0, admin=True)
    listeners = ("kme-g1/kxi", "kme-g1/push", "kme-g1/kms")
    net.wait_foreign("alice", "zoe", 60)
    before = [presented(net, x) for x in listeners]
    good = (net.pki / "kme-g1.pem").read_text()
    (net.pki / "kme-g1.pem").write_text("rubbish")
    assert "kme-g1.pem" in hup(net, "kme-g1")
    assert [presented(net, x) for x in listeners] == before
    (net.pki / "kme-g1.pem").unlink()
    make_pki(net.pki, "kme-g1")
    assert (net.pki / "kme-g1.pem").read_text() != good
    assert [presented(net, x) for x in listeners] == before
    assert "reloaded" in hup(net, "kme-g1")
    after = [presented(net, x) for x in listeners]
    assert len(set(after)) == 1 and after[0] not in before
    # What begins from now on is taken under the new certificate: the modules' pushes and the other border's calls.
    for sim in net.sims.values():
        sim.stop()
        sim.start()
    net.gateways["kme-g2"].stop()
    net.restart("kme-g2")
    net.wait_foreign("alice", "zoe", 60)
    net.wait_foreign("zoe", "alice", 60)


def test_a_reload_takes_a_module_that_was_revoked_away(make_network):
    """A revocation list is one of the files: pushes of that module get 401 from the reload on."""
    def listed(name, config):
        if name == "kme-a":
            config["push_listener"]["crl"] = "pki/crl.pem"

    net = make_network(topology=pair(dialect="http-push"), tweak=listed, admin=True)

    def module():
        return Client(net.url("kme-a", "push"), net.pki / "ca.pem", net.pki / "sim-a.pem", net.pki / "sim-a.key")

    with module() as sim:
        assert sim.request("GET", "/nowhere").status == 404
    shutil.copy(net.pki / "sim-a.pem", net.pki / "revoked-sim-a.pem")
    make_pki(net.pki)
    assert "reloaded" in hup(net)
    with pytest.raises((ssl.SSLError, OSError)), module() as sim:
        sim.request("GET", "/nowhere")
    with net.client("alice") as alice:
        def nothing_comes():
            taken = local(net).stream("a-to-b")["taken_chunks"]
            statuses = {alice.enc("sae-bob", number=64).status for _ in range(20)}
            return statuses == {503} and local(net).stream("a-to-b")["taken_chunks"] == taken
        wait_for("the end of the key that was there", nothing_comes, 60, 0)


@pytest.mark.parametrize("spoil,words", [
    (lambda net: net.write_config("kme-a", lambda c: c["pool"].update(ready_chunks=-1)), ["ready_chunks", "-1"]),
    (lambda net: net.write_config("kme-a", lambda c: c["pool"].update(ready_chunks=8192)),
     ["restart", "pool.ready_chunks"]),
    (lambda net: net.write_config("kme-a", lambda c: c["sae_listener"].update(threads=7)),
     ["restart", "sae_listener.threads"]),
    (lambda net: net.write_config("kme-a", lambda c: (c.update(saes=[]), c["streams"].pop())), ["restart", "streams"]),
    (lambda net: net.config_file("kme-a").write_text("kme: ["), ["kme-a.yaml"]),
    (lambda net: (net.pki / "kme-a.pem").write_text("rubbish"), ["kme-a.pem", "not a PEM"]),
    (lambda net: (net.pki / "crl.pem").unlink(), ["crl.pem"]),
    (lambda net: (net.pki / "kme-a.key").chmod(0o644), ["kme-a.key", "mode"]),
])
def test_a_reload_is_refused_whole(net, spoil, words):
    """The old configuration stays; what is right again is taken by the next reload."""
    kept = {p: p.read_bytes() for p in (net.pki / "kme-a.pem", net.pki / "crl.pem")}
    spoil(net)
    answer = local(net).post("/api/v1/reload")
    assert answer.status in (400, 409) and all(w in answer.message for w in words), answer.body
    assert ctl(net, "reload")[0] == 1 and "reload_refused" in hup(net)
    exchange(net)
    assert {s["id"] for s in local(net).get("/api/v1/saes")["saes"]} == {"sae-alice", "sae-dave"}
    acted(net, "reload: refused")
    for path, data in kept.items():
        path.write_bytes(data)
    (net.pki / "kme-a.key").chmod(0o600)
    net.write_config("kme-a")
    assert ctl(net, "reload")[0] == 0
    exchange(net)


# --- streams and SAEs ----------------------------------------------------------------------------------------

def test_reopening_a_stream_keeps_its_keys(net):
    before = local(net).stream("a-to-b")
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=10)
        assert ctl(net, "reopen", "a-to-b")[0] == 0
        now = wait_for("another KSID", lambda: (s := local(net).stream("a-to-b"))["ksid"] not in
                       (None, before["ksid"]) and s["state"] == "running" and s, 30, 0.05)
        assert now["epochs"] == before["epochs"] + 1
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    exchange(net)
    acted(net, "reopen")


def test_deleting_the_keys_of_a_stream(net):
    """Nothing of what was there is handed out any more, and the other stream keeps its own."""
    with net.client("alice") as alice, net.client("bob") as bob:
        issue(alice, number=10)
        to_alice = issue(bob, "sae-alice", number=10)
        status, out, _ = ctl(net, "delete-keys", "a-to-b")
        assert status == 0 and "chunks" in out and " 0 chunks" not in out
        net.wait_stock("alice", "bob", timeout_s=40)
        assert alice.dec("sae-bob", *(i for i, _ in to_alice)).keys() == to_alice
    exchange(net)
    acted(net, "delete keys")


def test_suspending_and_resuming(net):
    with net.client("alice") as alice, net.client("dave") as dave, net.client("bob") as bob:
        keys = issue(alice, number=2)
        assert ctl(net, "suspend", "sae-alice")[0] == 0
        assert alice.enc("sae-bob").status == 401 and alice.status("sae-bob").status == 401
        assert dave.enc("sae-alice").status == 401  # nobody shares keys with it here
        assert len(issue(dave)) == 1
        assert [s["suspended"] for s in local(net).get("/api/v1/saes")["saes"] if s["id"] == "sae-alice"] == [True]
        assert ctl(net, "resume", "sae-alice")[0] == 0
        assert len(issue(alice)) == 1
        assert ctl(net, "suspend", "sae-bob", "sae-alice", node="kme-b")[0] == 0
        assert bob.dec("sae-alice", keys[0][0]).status == 401 and bob.enc("sae-alice").status == 401
        assert len(issue(bob, "sae-dave")) == 1
        pairs = local(net, "kme-b").get("/api/v1/saes")["suspended_pairs"]
        assert pairs == [["sae-bob", "sae-alice"]]
        assert ctl(net, "resume", "sae-alice", "sae-bob", node="kme-b")[0] == 0
        assert bob.dec("sae-alice", keys[0][0]).keys() == keys[:1]
    acted(net, "suspend", f"uid:{os.getuid()}")
    acted(net, "resume", node="kme-b")


def test_log_levels_of_single_modules(net):
    gateway = net.gateways["kme-a"]
    assert not gateway.lines(" debug ")
    assert ctl(net, "log", "etsi014", "debug")[0] == 0
    logs = local(net).get("/api/v1/logs")
    assert logs == {"level": "info", "modules": {"etsi014": "debug"}, "to": "stderr", "file": None, "works": True,
                    "lost": 0}
    with net.client("alice") as alice:
        alice.request("GET", "/nowhere")
    gateway.wait_log(" debug etsi014 ")
    assert not [x for x in gateway.lines(" debug ") if " debug etsi014 " not in x]
    assert ctl(net, "log", "etsi014", "default")[0] == 0 and ctl(net, "log", "error")[0] == 0
    logs = local(net).get("/api/v1/logs")
    assert logs["level"] == "error" and logs["modules"] == {}


# --- the end -----------------------------------------------------------------------------------------------------

def test_draining(net):
    gateway = net.gateways["kme-a"]
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=5)
        to_alice = issue(bob, "sae-alice", number=5)
        assert ctl(net, "--grace", "600", "drain")[0] == 0
        answer = alice.enc("sae-bob")
        assert answer.status == 503 and "out of service" in answer.message
        status, out, _ = ctl(net, "--ready", "health")
        assert status == 1 and "taken out of service" in out and ctl(net, "health")[0] == 0
        assert alice.dec("sae-bob", *(i for i, _ in to_alice)).keys() == to_alice
        assert gateway.pid is not None and ctl(net, "--grace", "1", "drain")[0] == 0
        wait_for("its end", lambda: gateway.pid is None, 30)
        assert gateway.exit_status == 0 and gateway.lines("event=stopping", "reason=drained")
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    net.restart("kme-a")
    net.wait_stock("alice", "bob", timeout_s=40)
    exchange(net)


def secret_files(net, node="kme-a"):
    return [net.folder / f"{node}.master", net.folder / f"{node}-anchor" / "key-ring", net.folder / node / "keys.db",
            net.folder / f"{node}-anchor" / "anchor", net.folder / node / "keys.db-wal"]


def ends_zeroized(net, caller):
    gateway = net.gateways["kme-a"]
    wait_for("its end", lambda: gateway.pid is None, 20)
    assert gateway.exit_status == 3
    assert not [p for p in secret_files(net) if p.exists()]
    assert gateway.lines("event=zeroized", 'left=""')
    acted(net, "zeroize", caller)
    gateway.start()
    wait_for("a start that fails", lambda: gateway.pid is None, 20)
    assert gateway.exit_status == 1  # there is no master key


def test_zeroize_destroys_everything_at_once(net):
    """A copy of a disk's blocks that were written over holds nothing either: names that are kept show it."""
    kept = []
    for path in secret_files(net)[:2]:
        copy = path.with_name(path.name + ".kept")
        os.link(path, copy)
        kept.append((copy, copy.read_bytes()))
    with net.client("alice") as alice:
        issue(alice, number=5)
        assert ctl(net, "--confirm", "KME-A", "zeroize")[0] == 0
        with pytest.raises((OSError, http.client.HTTPException)):
            while True:
                assert alice.enc("sae-bob").status != 200
    ends_zeroized(net, f"uid:{os.getuid()}")
    for copy, before in kept:
        assert copy.read_bytes() != before and len(copy.read_bytes()) == len(before)


def test_zeroize_by_signal(make_network):
    net = make_network(admin=True, tweak=lambda n, c: c["admin"].update(zeroize_signal="USR1"))
    net.gateways["kme-a"].signal(signal.SIGUSR1)
    ends_zeroized(net, "signal")


def test_zeroize_by_a_tamper_switch(make_network):
    """A file as an input pin has it: 0 is off."""
    net = make_network(admin=True, start=False,
                       tweak=lambda n, c: c["admin"].update(zeroize_file=f"{n}-tamper"))
    pin = net.folder / "kme-a-tamper"
    pin.write_text("0\n")
    net.start()
    net.wait_stock("alice", "bob")
    exchange(net)
    pin.write_text("1\n")
    ends_zeroized(net, "file")


def test_a_switch_that_is_on_is_told_before_the_start(make_network):
    net = make_network(admin=True, start=False,
                       tweak=lambda n, c: c["admin"].update(zeroize_file=f"{n}-tamper"))
    (net.folder / "kme-a-tamper").write_text("1\n")
    done = subprocess.run([binary("qkdgate"), "run", net.config_file("kme-a")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and "zeroize_file" in done.stderr
    assert secret_files(net)[0].exists()


# --- systemd --------------------------------------------------------------------------------------------------------

def test_what_systemd_is_told(make_network):
    net = make_network(admin=True, start=False)
    path = net.folder / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(path))
        notify.settimeout(120)
        os.environ.update(NOTIFY_SOCKET=str(path), WATCHDOG_USEC="400000")
        try:
            net.gateways["kme-a"].start()
        finally:
            del os.environ["NOTIFY_SOCKET"], os.environ["WATCHDOG_USEC"]
        assert notify.recv(4096) == b"READY=1"
        assert net.gateways["kme-a"].lines("event=ready")
        assert [notify.recv(4096) for _ in range(3)] == [b"WATCHDOG=1"] * 3
        net.gateways["kme-a"].signal(signal.SIGHUP)
        seen = b""
        while b"RELOADING=1" not in seen:
            seen = notify.recv(4096)
        assert b"MONOTONIC_USEC=" in seen and notify.recv(4096) in (b"READY=1", b"WATCHDOG=1")
        net.gateways["kme-a"].signal(signal.SIGTERM)
        while seen != b"STOPPING=1":
            seen = notify.recv(4096)
        wait_for("its end", lambda: net.gateways["kme-a"].pid is None, 20)


def test_the_unit_waits_for_it():
    unit = (PROJECT / "docs/systemd/qkdgate.service").read_text()
    for line in ("Type=notify", "WatchdogSec=60", "ExecReload=/bin/kill -HUP $MAINPID", "RestartPreventExitStatus=2 3"):
        assert line in unit.splitlines()
