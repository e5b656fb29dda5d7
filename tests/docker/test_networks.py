# SPDX-License-Identifier: Apache-2.0
"""The example networks: keys end to end, what containers may do, and what happens when they stop."""

import json
import os
import signal as signals
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from engine import PROJECT, USER, docker, inspect, wait_for

TESTS = f"{PROJECT / 'tests'}:/tests:ro"
ONE_SHOT = ("pki", "client")


@dataclass(frozen=True)
class Kind:
    saes: int
    strangers: int
    pairs: tuple       # that pass keys while things break
    victims: tuple     # gateways that are killed; the last is restarted and cut off, too
    cut: tuple         # networks that it is cut off from
    link: str          # simulator that is restarted
    networks: dict     # of a gateway, beside sae and its south


KINDS = {
    "pair": Kind(4, 2, ("alice@kme-a:bob@kme-b", "erin@kme-b:dave@kme-a"), ("kme-a", "kme-b"), ("east", "sae"),
                 "sim-a", {"kme-a": ["east"], "kme-b": ["east"]}),
    "chain": Kind(3, 0, ("alice@kme-a:carol@kme-c", "bob@kme-b:alice@kme-a", "carol@kme-c:bob@kme-b"),
                  ("kme-a", "kme-b"), ("east", "sae"), "sim-b-c", {f"kme-{n}": ["east"] for n in "abcd"}),
    "operators": Kind(2, 0, ("alice@kme-a:zoe@kme-z", "zoe@kme-z:alice@kme-a"), ("kme-z", "kme-g1"),
                      ("kxi", "east-1"), "sim-a-g1",
                      {"kme-a": ["east-1"], "kme-g1": ["east-1", "kxi"], "kme-g2": ["east-2", "kxi"],
                       "kme-z": ["east-2"]}),
}


@pytest.fixture(scope="module", params=KINDS)
def network(request, start):
    network = start(request.param)
    network.kind = KINDS[request.param]
    return network


def running(network):
    return [s for s in network.services() if s not in ONE_SHOT]


def status_of(container):
    """/proc/1/status of a container, seen from the host."""
    text = Path(f"/proc/{inspect(container)['State']['Pid']}/status").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def test_every_pair_has_its_keys_and_strangers_none(network):
    said = network.prove()
    n = network.kind.saes
    assert said.count("hold the same key") == n * (n - 1)
    assert said.count("gets it once") == n * (n - 1)
    assert said.count("gets no key") == network.kind.strangers * n
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
            sorted(["sae", service.replace("kme", "south"), *network.kind.networks[service]])
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
    inner = [about["IPAddress"] for n in addresses for name, about in n.items() if not name.endswith("_sae")]
    south = [n["IPAddress"] for s in running(network) if s.startswith("sim-")
             for n in network.inspect(s)["NetworkSettings"]["Networks"].values()]
    said = network.tool("-c", probe, *[f"{a}:8443" for a in sae], *[f"{a}:{port}" for a in sae for port in (8444, 8445)],
                        *[f"{a}:{port}" for a in inner for port in (8443, 8444, 8445)],
                        *[f"{a}:{port}" for a in south for port in (25575, 25576)]).stdout.splitlines()
    assert [line for line in said if line.endswith("open")] == [f"{a}:8443 open" for a in sae]
    assert len(said) == 3 * len(sae) + 3 * len(inner) + 2 * len(south)


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


def test_health(network):
    """A gateway is healthy; one that does not come round any more is not."""
    gateways = [s for s in running(network) if s.startswith("kme-")]
    for service in gateways:
        wait_for(f"{service} to be healthy", lambda: network.inspect(service)["State"]["Health"]["Status"] == "healthy")
    container = network.container("kme-a")
    assert docker("exec", container, "/usr/bin/qkdgatectl", "health", "--ready", check=False).returncode == 0
    if network.kind is not KINDS["pair"]:
        return  # once is enough: it waits for the command's own limit of 30 s
    pid = network.inspect("kme-a")["State"]["Pid"]
    os.kill(pid, signals.SIGSTOP)
    try:
        asked = docker("exec", container, "/usr/bin/qkdgatectl", "health", check=False)
    finally:
        os.kill(pid, signals.SIGCONT)
    assert asked.returncode not in (0, 126, 127), asked.stdout + asked.stderr
    assert docker("exec", container, "/usr/bin/qkdgatectl", "health", check=False).returncode == 0


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
    network.prove()
    run = passing(network, *network.kind.pairs)
    for service in network.kind.victims:
        time.sleep(1)
        victim, ready = network.container(service), network.log(service).count("event=ready")
        docker("kill", victim)
        docker("start", victim)
        network.wait_log(service, "event=ready", ready + 1)
    time.sleep(1)
    docker("restart", "-t", "20", victim)
    for net in network.kind.cut:
        settings = network.inspect(service)["NetworkSettings"]["Networks"][f"{network.name}_{net}"]
        names = [a for a in settings["Aliases"] if a.endswith(".demo")]
        docker("network", "disconnect", f"{network.name}_{net}", victim)
        time.sleep(1)
        docker("network", "connect", "--ip", settings["IPAMConfig"]["IPv4Address"],
               *[word for a in names for word in ("--alias", a)], f"{network.name}_{net}", victim)
    docker("restart", "-t", "20", network.container(network.kind.link))
    time.sleep(2)
    result = run.end()
    assert result["delivered"] > 50 and result["delivered"] >= result["issued"] - result["lost"]
    network.prove()
