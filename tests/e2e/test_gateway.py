# SPDX-License-Identifier: Apache-2.0
"""Starting and stopping, what the gateway refuses to start with, and a store that fails."""

import os
import resource
import shutil
import signal
import subprocess

import pytest

from links import exchange, issue, not_found
from network import Ports, binary
from processes import Process, wait_for


def run_once(net, node="kme-a", timeout_s=60):
    """Starts a gateway that is expected to end by itself; (exit status, what it said)."""
    done = subprocess.run([binary("qkdgate"), "run", net.config_file(node)], stdin=subprocess.DEVNULL,
                          capture_output=True, text=True, timeout=timeout_s)
    return done.returncode, done.stderr + done.stdout


def refuses(net, *words):
    status, text = run_once(net)
    assert status not in (0, None) and status > 0, (status, text)
    for word in words:
        assert word in text, text


def check(net, node="kme-a"):
    done = subprocess.run([binary("qkdgate"), "check-config", net.config_file(node)],
                          capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


# --- configuration -----------------------------------------------------------------------------------

def test_check_config_accepts_the_configurations_of_the_demo(make_network):
    net = make_network(start=False)
    for node in net.gateways:
        status, text = check(net, node)
        assert status == 0 and text.strip() == f"{net.config_file(node)}: ok"


def line_of(net, needle):
    return 1 + next(n for n, line in enumerate(net.config_file("kme-a").read_text().splitlines()) if needle in line)


def test_everything_that_is_wrong_is_said_in_one_go(make_network):
    net = make_network(start=False)

    def spoil(config):
        config["pool"]["ready_chunks"] = -5
        config["policy"][0]["min_key_bits"] = 9
        config["neighbours"][0]["url"] = "http://plain"
        config["sae_listener"]["surprise"] = 1
        config["streams"][0]["neighbour"] = "KME-X"

    net.write_config("kme-a", spoil)
    status, text = check(net)
    assert status == 1
    file = net.config_file("kme-a")
    for needle in ("ready_chunks: -5", "min_key_bits: 9", "http://plain", "surprise", "KME-X"):
        assert f"{file}:{line_of(net, needle)}: " in text, (needle, text)
    refuses(net, "surprise")


@pytest.mark.parametrize("section,option", [("kme", "nickname"), ("pool", "ready_chunk"), (None, "extras")])
def test_an_unknown_option_is_an_error(make_network, section, option):
    net = make_network(start=False)
    net.write_config("kme-a", lambda c: (c[section] if section else c).update({option: "x"}))
    status, text = check(net)
    line = line_of(net, f'{option}: "x"')
    assert status == 1 and option in text and f":{line}: " in text
    refuses(net, option)


@pytest.mark.parametrize("text", ["", "kme: [", "kme:\n  id: KME-A\n", "- 1\n- 2\n", "kme: {id: \"KME\0A\"}\n",
                                  "&a [*a, *a]\n", "kme: &x {id: A}\nkme: *x\n"])
def test_files_that_are_no_configuration(make_network, text):
    net = make_network(start=False)
    net.config_file("kme-a").write_text(text)
    status, said = check(net)
    assert status == 1 and str(net.config_file("kme-a")) in said


def test_a_missing_configuration_file(make_network):
    net = make_network(start=False)
    net.config_file("kme-a").unlink()
    status, said = check(net)
    assert status == 1 and said
    refuses(net)


# --- secret files -----------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["kme-a.master", "pki/kme-a.key"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_loose_modes_of_secret_files_are_refused(make_network, name, mode):
    net = make_network(start=False)
    path = net.folder / name
    path.chmod(mode)
    status, text = check(net)
    assert status == 1 and path.name in text
    refuses(net, path.name)
    path.chmod(0o400)
    assert check(net)[0] == 0


def test_another_master_key_does_not_open_the_store(make_network):
    net = make_network()
    net.stop()
    master = net.folder / "kme-a.master"
    master.rename(net.folder / "kept")
    subprocess.run([binary("qkdgate"), "make-master-key", master], check=True, stdout=subprocess.DEVNULL)
    refuses(net)
    (net.folder / "kept").rename(master)
    net.start()
    net.wait_stock("alice", "bob")


def test_make_master_key_overwrites_nothing_and_is_private(make_network):
    net = make_network(start=False)
    master = net.folder / "kme-a.master"
    before = master.read_bytes()
    done = subprocess.run([binary("qkdgate"), "make-master-key", master], capture_output=True)
    assert done.returncode != 0 and master.read_bytes() == before
    assert master.stat().st_mode & 0o777 == 0o600


# --- one daemon per database ---------------------------------------------------------------------------

def test_a_lost_key_ring_is_not_made_anew_beside_its_database(make_network):
    net = make_network(stock=64)
    net.stop()
    ring = net.folder / "kme-a-anchor" / "key-ring"
    aside = ring.with_name("aside")
    ring.rename(aside)
    refuses(net, "is missing")
    assert not ring.exists()
    aside.rename(ring)
    net.start()
    net.wait_stock("alice", "bob")
    exchange(net)


def test_a_second_daemon_on_the_same_database_is_refused(make_network):
    net = make_network()
    second = net.folder / "second.yaml"
    text, ports = net.config_file("kme-a").read_text(), Ports()
    for name in ("kme-a/sae", "kme-a/kms", "kme-a/app"):
        text = text.replace(f":{net.endpoints[name][1]}", f":{ports.take()}")
    second.write_text(text.replace("kme-a/audit.log", "kme-a/second.log"))
    done = subprocess.run([binary("qkdgate"), "run", second], capture_output=True, text=True, timeout=60)
    assert done.returncode > 0 and "in use" in done.stderr, done.stderr
    exchange(net)  # the first one is not disturbed


def test_a_taken_port_is_named(make_network):
    net = make_network(start=False)
    other = Process(net.folder, "kme-b", [binary("qkdgate"), "run", net.config_file("kme-b")])
    other.start()
    other.wait_ready()
    try:
        port = net.endpoints["kme-b/sae"][1]
        net.write_config("kme-a", lambda c: c["sae_listener"].update(listen=f"127.0.0.1:{port}"))
        refuses(net, str(port))
    finally:
        other.stop()


# --- orderly ends ------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_orderly_stop_keeps_what_can_be_delivered(make_network, number):
    net = make_network()
    with net.client("alice") as alice:
        keys = issue(alice, number=10)
    for gateway in net.gateways.values():
        gateway.signal(number)
    for gateway in net.gateways.values():
        wait_for("the end", lambda: gateway.pid is None, 30)
        assert gateway.exit_status == 0
        assert gateway.lines("event=counts")
    for node in net.gateways:
        net.restart(node)
    with net.client("bob") as bob:
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
    net.wait_stock("alice", "bob", timeout_s=40)
    net.wait_stock("bob", "alice", timeout_s=40)
    exchange(net)


def test_version_and_help():
    for option, word in (("--version", "0.3.0"), ("--help", "check-config")):
        done = subprocess.run([binary("qkdgate"), option], capture_output=True, text=True)
        assert done.returncode == 0 and word in done.stdout
    assert subprocess.run([binary("qkdgate"), "--nonsense"], capture_output=True).returncode > 0


# --- reset-epochs -------------------------------------------------------------------------------------------

def test_reset_epochs_ends_all_epochs_and_new_ones_open(make_network):
    net = make_network()
    with net.client("alice") as alice, net.client("bob") as bob:
        (to_bob,), (to_alice,) = issue(alice), issue(bob, "sae-alice")
    net.gateways["kme-a"].stop()
    done = subprocess.run([binary("qkdgate"), "reset-epochs", net.config_file("kme-a")],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    net.restart("kme-a")
    net.wait_stock("alice", "bob", timeout_s=60)
    net.wait_stock("bob", "alice", timeout_s=60)
    with net.client("alice") as alice:
        assert alice.get_dec("sae-bob", to_alice[0]).status in (400, 401)
    net.gateways["kme-b"].wait_log("event=epoch_ended", "stream=b-to-a", timeout_s=20)
    exchange(net)


def test_reset_epochs_refuses_while_the_daemon_runs(make_network):
    net = make_network()
    done = subprocess.run([binary("qkdgate"), "reset-epochs", net.config_file("kme-a")],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode > 0
    exchange(net)


# --- a store that fails -----------------------------------------------------------------------------------

def no_file_grows(net, node):
    """As on a full disk: no file of the gateway may grow beyond 64 KiB any more."""
    resource.prlimit(net.gateways[node].pid, resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))


def limited(make_network, node, **options):
    """A pair whose gateway `node` survives a file size limit, which stands for a full disk."""
    net = make_network(start=False, **options)
    net.gateways[node].ignored_signals = (signal.SIGXFSZ,)
    net.start()
    net.wait_stock("alice", "bob", 200)
    return net


def test_a_full_database_gives_503_and_no_unrecorded_key(make_network):
    """dec_keys refuses, and the log says why; after a restart with room no key comes twice."""
    net = limited(make_network, "kme-b")
    gateway = net.gateways["kme-b"]
    statuses = []
    with net.client("alice") as alice, net.client("bob") as bob:
        keys = issue(alice, number=120)
        no_file_grows(net, "kme-b")
        for key_id, _ in keys[:100]:
            answer = bob.get_dec("sae-alice", key_id)
            statuses.append(answer.status)
            assert answer.status in (200, 503), answer.body
        assert statuses[-1] == 503 and answer.message
        assert statuses == sorted(statuses)  # refused from some moment on
        assert gateway.pid, "the daemon ended"
        assert [x for x in gateway.lines(" error ") if "database" in x or "store" in x]
    gateway.kill()
    net.restart("kme-b")
    with net.client("bob") as bob:
        for key, before in zip(keys, statuses):
            again = bob.get_dec("sae-alice", key[0])
            assert not_found(again) or before == 503 and again.keys() == [key]
        assert bob.dec("sae-alice", *(i for i, _ in keys[100:])).keys() == keys[100:]


def test_a_database_full_at_the_owner_hands_out_no_unrecorded_key(make_network):
    net = limited(make_network, "kme-a",
                  pool={"ready_chunks": 1024, "inbound_chunks": 65536, "lease_chunks": 64})
    gateway = net.gateways["kme-a"]
    issued = []
    with net.client("alice") as alice:
        no_file_grows(net, "kme-a")
        for _ in range(400):
            answer = alice.enc("sae-bob", number=8)
            if answer.status == 503:
                break
            assert answer.status == 200
            issued += answer.keys()
        assert answer.status == 503 and gateway.pid
    gateway.kill()
    net.restart("kme-a")
    net.wait_stock("alice", "bob", 100, timeout_s=60)
    with net.client("alice") as alice:
        issued += issue(alice, number=100)
    assert len({key[:8] for _, key in issued}) == len(issued)


def test_a_corrupt_database_is_refused_at_start(make_network):
    net = make_network()
    net.gateways["kme-b"].stop()
    database = net.folder / "kme-b" / "keys.db"
    kept = net.folder / "kept.db"
    shutil.copy2(database, kept)
    with open(database, "r+b") as file:
        for offset in range(0, os.path.getsize(database), 512):
            file.seek(offset)
            file.write(b"\xa5" * 64)
    status, text = run_once(net, "kme-b")
    assert status > 0 and "keys.db" in text, text
    shutil.copy2(kept, database)
    net.restart("kme-b")


def test_a_corrupt_audit_log_is_refused_at_start(make_network):
    net = make_network()
    with net.client("alice") as alice:
        issue(alice, number=3)
    net.gateways["kme-a"].stop()
    log = net.folder / "kme-a" / "audit.log"
    whole = log.read_text()
    lines = whole.splitlines()
    log.write_text("\n".join(lines[:-1] + [lines[-1].replace("sae", "sbe").replace("stop", "stoq")]) + "\n")
    refuses(net, "audit")
    log.write_text(whole)
    net.restart("kme-a")


def test_a_corrupt_anchor_is_refused_at_start(make_network):
    net = make_network()
    net.gateways["kme-a"].stop()
    anchor = net.folder / "kme-a-anchor" / "anchor"
    whole = anchor.read_bytes()
    anchor.write_bytes(bytes(b ^ 0x55 for b in whole))
    refuses(net, "anchor")
    anchor.write_bytes(whole)
    net.restart("kme-a")
