# SPDX-License-Identifier: Apache-2.0
"""The example networks: keys end to end, what containers may do, and what happens when they stop."""

import json
import time
from pathlib import Path

import pytest

from engine import PROJECT, USER, docker, inspect, wait_for

TESTS = f"{PROJECT / 'tests'}:/tests:ro"
ONE_SHOT = ("pki", "client")
SAES = {"pair": 4, "chain": 3}
STRANGERS = {"pair": 2, "chain": 0}


@pytest.fixture(scope="module", params=["pair", "chain"])
def network(request, start):
    network = start(request.param)
    network.kind = request.param
    return network


def running(network):
    return [s for s in network.services() if s not in ONE_SHOT]


def status_of(container):
    """/proc/1/status of a container, seen from the host."""
    text = Path(f"/proc/{inspect(container)['State']['Pid']}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_every_pair_has_its_keys_and_strangers_none(network):
    said = network.prove()
    n = SAES[network.kind]
    assert said.count("hold the same key") == n * (n - 1)
    assert said.count("gets it once") == n * (n - 1)
    assert said.count("gets no key") == STRANGERS[network.kind] * n
    assert "FAILED" not in said


def test_nothing_runs_as_root_or_with_a_privilege(network):
    for service in running(network):
        container = network.container(service)
        status = status_of(container)
        assert status["Uid"].split() == [str(USER)] * 4, service
        assert status["Gid"].split() == [str(USER)] * 4, service
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[kind], 16) == 0, (service, kind)
        assert status["NoNewPrivs"].strip() == "1", service
    for service in ONE_SHOT:
        about = network.inspect(service)
        assert about["Config"]["User"] == f"{USER}:{USER}" and about["HostConfig"]["CapDrop"] == ["ALL"], service


def test_root_file_systems_are_read_only_and_limits_are_set(network, tmp_path):
    (tmp_path / "file").write_text("x")
    for service in (*running(network), *ONE_SHOT):
        about = network.inspect(service)
        host = about["HostConfig"]
        assert host["ReadonlyRootfs"] is True and host["Privileged"] is False, service
        assert 0 < host["PidsLimit"] <= 256 and 0 < host["Memory"] <= 512 << 20, service
        assert not host["PortBindings"], service
    for service in running(network):
        mounts = Path(f"/proc/{network.inspect(service)['State']['Pid']}/mounts").read_text().splitlines()
        root = next(line.split() for line in mounts if line.split()[1] == "/")
        assert "ro" in root[3].split(","), service
        done = docker("cp", tmp_path / "file", f"{network.container(service)}:/usr/file", check=False)
        assert done.returncode != 0 and "read-only" in done.stderr, service


def test_networks_are_apart(network):
    gateways = [s for s in running(network) if s.startswith("kme-")]
    for service in gateways:
        nets = network.inspect(service)["NetworkSettings"]["Networks"]
        assert sorted(n.removeprefix(f"{network.name}_") for n in nets) == \
            sorted(["sae", "east", service.replace("kme", "south")])
    for name in docker("network", "ls", "--filter", f"name={network.name}_", "--format", "{{.Name}}").stdout.split():
        assert inspect(name)["Internal"] is not name.endswith("_sae"), name
    probe = """
import concurrent.futures, socket, sys
def probe(target):
    host, port = target.split(":")
    try:
        socket.create_connection((host, int(port)), 3).close()
        return target + " open"
    except OSError as error:
        return target + " closed"
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    print("\\n".join(pool.map(probe, sys.argv[1:])))
"""
    addresses = [network.inspect(s)["NetworkSettings"]["Networks"] for s in gateways]
    sae = [n[f"{network.name}_sae"]["IPAddress"] for n in addresses]
    east = [n[f"{network.name}_east"]["IPAddress"] for n in addresses]
    south = [n["IPAddress"] for s in running(network) if s.startswith("sim-")
             for n in network.inspect(s)["NetworkSettings"]["Networks"].values()]
    said = network.tool("-c", probe, *[f"{a}:8443" for a in sae], *[f"{a}:8444" for a in (*sae, *east)],
                        *[f"{a}:8443" for a in east], *[f"{a}:25575" for a in south],
                        *[f"{a}:25576" for a in south]).stdout.splitlines()
    assert [line for line in said if line.endswith("open")] == [f"{a}:8443 open" for a in sae]
    assert len(said) == 4 * len(gateways) + 2 * len(south)


def test_no_secret_in_inspect(network):
    """Neither of a container, nor of an image, nor of a volume."""
    script = """
import glob, json, sys
secrets = []
for name in glob.glob("/run/secrets/*"):
    data = open(name, "rb").read()
    if name.endswith("master.key"):
        secrets += [data.hex(), __import__("base64").b64encode(data).decode()]
    elif name.endswith(".key"):
        secrets += [line for line in data.decode().splitlines() if "-----" not in line]
print(json.dumps(secrets))
"""
    volumes = docker("volume", "ls", "-q", "--filter", f"name={network.name}_").stdout.split()
    secrets = []
    for volume in volumes:
        if volume.endswith("-secrets"):
            secrets += json.loads(network.tool("-c", script, network=None, volumes=(
                f"{volume.removeprefix(network.name + '_')}:/run/secrets:ro",)).stdout)
    assert len(secrets) > 3 * len([s for s in running(network) if s.startswith("kme-")])
    names = [network.container(s) for s in network.services()] + volumes
    shown = "".join(docker("inspect", name).stdout for name in names)
    shown += "".join(network.log(s) for s in network.services())
    assert [s for s in secrets if s in shown] == []


def test_an_orderly_stop_as_process_1(network):
    for signal in ("TERM", "INT"):
        container = network.container("kme-a")
        started = network.log("kme-a").count("event=ready")
        begin = time.monotonic()
        docker("kill", "-s", signal, container)
        wait_for("kme-a to end", lambda: not inspect(container)["State"]["Running"] or
                 network.log("kme-a").count("event=ready") > started)
        assert time.monotonic() - begin < 60
        state = inspect(container)["State"]
        assert state["ExitCode"] == 0 and not state["OOMKilled"]
        assert network.log("kme-a").rstrip().splitlines()[-1].endswith("event=stopped")
        docker("start", container)
        network.wait_log("kme-a", "event=ready", started + 1)


def test_stops_restarts_and_cut_networks_lose_nothing(network, passing):
    pairs = {"pair": ("alice@kme-a:bob@kme-b", "erin@kme-b:dave@kme-a"),
             "chain": ("alice@kme-a:carol@kme-c", "bob@kme-b:alice@kme-a", "carol@kme-c:bob@kme-b")}[network.kind]
    network.prove()
    run = passing(network, *pairs)
    kme_a, kme_b = network.container("kme-a"), network.container("kme-b")
    for victim, service in ((kme_a, "kme-a"), (kme_b, "kme-b")):
        time.sleep(1)
        ready = network.log(service).count("event=ready")
        docker("kill", victim)
        docker("start", victim)
        network.wait_log(service, "event=ready", ready + 1)
    time.sleep(1)
    docker("restart", "-t", "20", kme_b)
    for net in ("east", "sae"):
        settings = network.inspect("kme-b")["NetworkSettings"]["Networks"][f"{network.name}_{net}"]
        names = [a for a in settings["Aliases"] if a.endswith(".demo")]
        docker("network", "disconnect", f"{network.name}_{net}", kme_b)
        time.sleep(1)
        docker("network", "connect", "--ip", settings["IPAMConfig"]["IPv4Address"],
               *[word for a in names for word in ("--alias", a)], f"{network.name}_{net}", kme_b)
    docker("restart", "-t", "20", network.container("sim-a" if network.kind == "pair" else "sim-b-c"))
    time.sleep(2)
    result = run.end()
    assert result["delivered"] > 50 and result["delivered"] >= result["issued"] - result["lost"]
    network.prove()
