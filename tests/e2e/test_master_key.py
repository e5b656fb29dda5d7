# SPDX-License-Identifier: Apache-2.0
"""Another master key while the gateway runs: under load, killed in the midst, and when it cannot be."""

import os
import random
import shutil
import subprocess
import threading
import time

import pytest

from admin import ctl, local, over_https
from links import exchange, issue
from network import binary
from test_acts import Load, acted

SEED = int(os.environ.get("QKDGATE_SEED", random.randrange(2 ** 32)))


@pytest.fixture
def net(make_network):
    return make_network(admin=True, stock=500)


def master(net):
    return net.folder / "kme-a.master"


def again(net):
    net.gateways["kme-a"].stop()
    net.restart("kme-a")


def fetched(net, keys):
    with net.client("bob") as bob:
        assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys


def issued(net, number=10):
    with net.client("alice") as alice:
        return issue(alice, number=number)


def test_under_load_and_over_restarts(net):
    old, before = master(net).read_bytes(), issued(net)
    loads = [Load(net) for _ in range(2)]
    for load in loads:
        load.start()
    for _ in range(5):
        assert ctl(net, "rotate-master-key")[:2] == (0, "done: rotate-master-key\n")
    while any(load.done < 5 and not load.faults for load in loads):
        time.sleep(0.05)
    assert [load.end() for load in loads] == [[], []]
    assert master(net).read_bytes() not in (old, b"") and master(net).stat().st_mode & 0o777 == 0o600
    fetched(net, before)
    again(net)
    exchange(net)
    # The audit log goes on under the same key, which rests in the ring now.
    assert ctl(net, "audit", "verify")[0] == 0
    log, ring = net.folder / "kme-a" / "audit.log", net.folder / "kme-a-anchor" / "key-ring"
    with_ring = ["--master-key", master(net), "--key-ring", ring, "audit", "verify", log]
    assert ctl(net, *with_ring)[0] == 0
    assert ctl(net, "--master-key", master(net), "audit", "verify", log)[0] == 1
    assert len(acted(net, "rotate master key")) == 5
    # The old one opens nothing any more.
    net.gateways["kme-a"].stop()
    new = master(net).read_bytes()
    master(net).write_bytes(old)
    done = subprocess.run([binary("qkdgate"), "run", net.config_file("kme-a")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "made with another master key" in done.stderr, done.stderr
    master(net).write_bytes(new)
    net.restart("kme-a")
    exchange(net)


def test_one_that_the_operator_brings(net):
    other = net.folder / "other.master"
    subprocess.run([binary("qkdgate"), "make-master-key", other], check=True, timeout=30)
    before = issued(net)
    status, out, _ = ctl(net, "rotate-master-key", other)
    assert status == 0 and "until then both are good" in out
    assert local(net).get("/api/v1/store")["master_key_pending"] is True
    again(net)  # with the old one: nothing is lost, and nothing settled
    assert local(net).get("/api/v1/store")["master_key_pending"] is True
    net.gateways["kme-a"].stop()
    shutil.copy(other, master(net))
    net.restart("kme-a")
    assert local(net).get("/api/v1/store")["master_key_pending"] is False
    fetched(net, before)
    exchange(net)


def test_what_cannot_be(net, tmp_path):
    key = master(net).read_bytes()
    cases = [(master(net), "is the master key in use"), (tmp_path / "none", "cannot be read"), (tmp_path, "mode 0600")]
    for name, mode, data, said in (("loose", 0o644, os.urandom(32), "mode 0600"), ("short", 0o600, b"x" * 31, "32 bytes"),
                                   ("same", 0o600, key, "in use")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).chmod(mode)
        cases.append((tmp_path / name, said))
    for file, said in cases:
        status, _, err = ctl(net, "rotate-master-key", file)
        assert status == 1 and said in err and "the old master key stays" in err, (file, err)
    for body in ({"file": "relative"}, {"file": 5}, {"file": ""}, {"key": "x"}, "["):
        assert local(net).post("/api/v1/master-key/rotate", body).status == 400, body
    blocked = net.folder / "kme-a.master.new"
    blocked.mkdir()
    status, _, err = ctl(net, "rotate-master-key")
    assert status == 1 and "cannot be read or written" in err
    blocked.rmdir()
    status, _, err = ctl(net, "rotate-master-key", where=over_https(net, "admin-viewer"))
    assert status == 4 and "may look" in err
    assert master(net).read_bytes() == key and not local(net).get("/api/v1/store")["master_key_pending"]
    acted(net, "rotate master key: refused")
    again(net)
    exchange(net)


def test_killed_in_the_midst(net):
    print("QKDGATE_SEED", SEED)
    chance = random.Random(SEED)
    for _ in range(4):
        before, end = issued(net, 3), threading.Event()

        def rotate():
            while not end.is_set():
                ctl(net, "rotate-master-key")

        thread = threading.Thread(target=rotate)
        thread.start()
        time.sleep(chance.uniform(0.02, 0.3))
        net.gateways["kme-a"].kill()
        end.set()
        thread.join(60)
        net.restart("kme-a")
        fetched(net, before)
        exchange(net, 3)
    assert ctl(net, "audit", "verify")[0] == 0
