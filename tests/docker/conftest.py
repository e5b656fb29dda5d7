# SPDX-License-Identifier: Apache-2.0
"""Networks of containers that tests share, one at a time since their addresses are fixed."""

import json
import os
import subprocess

import pytest

from engine import PROJECT, TAG, Network, docker, run

NETWORKS = {
    "pair": ("compose.yaml",),
    "chain": ("compose.chain.yaml",),
    "operators": ("compose.operators.yaml",),
}


@pytest.fixture(scope="module")
def start():
    """A function that starts a network, after it stopped the one before."""
    running = []

    def stop():
        while running:
            running.pop().down()

    def starter(name):
        stop()
        network = Network(name, *NETWORKS[name])
        network.down()
        running.append(network)
        network.up()
        return network

    yield starter
    stop()


def earlier_commit():
    """$QKDGATE_UPGRADE_FROM, else the last release."""
    commit = os.environ.get("QKDGATE_UPGRADE_FROM") or run(
        "git", "-C", PROJECT, "log", "-1", "--grep=^release: ", "--format=%H").stdout.strip()
    assert commit, "no release in the history: set QKDGATE_UPGRADE_FROM to a commit"
    return commit


@pytest.fixture(scope="session", autouse=True)
def earlier_build(request, tmp_path_factory):
    """Builds the image of an earlier commit, as images are built now, while other tests go on."""
    if not any("earlier_image" in item.fixturenames for item in request.session.items):
        yield None
        return
    context = tmp_path_factory.mktemp("earlier")
    archive = subprocess.run(["git", "-C", PROJECT, "archive", earlier_commit()], capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", context], input=archive, check=True)
    run("cp", "-r", PROJECT / "docker", PROJECT / ".dockerignore", context)
    run("cp", "-r", PROJECT / "tests/deps", context / "tests")
    build = subprocess.Popen(["docker", "build", "-q", "-f", context / "docker/Dockerfile", "-t", "qkdgate:earlier",
                              context], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    yield build
    if build.poll() is None:
        build.kill()
    docker("rmi", "-f", "qkdgate:earlier", check=False)


@pytest.fixture(scope="session")
def earlier_image(earlier_build):
    said, _ = earlier_build.communicate(timeout=600)
    assert earlier_build.returncode == 0, said
    return "qkdgate:earlier"


class Passing:
    """Masters and slaves that pass keys inside the client container until `end`."""

    def __init__(self, network, pairs):
        words = network.tool_words(volumes=("sae-secrets:/run/secrets:ro", f"{PROJECT / 'tests'}:/tests:ro"))
        self._process = subprocess.Popen(
            ["docker", *words, f"qkdgate-sim:{TAG}", "/tests/docker/pass_keys.py", "load", *pairs],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout.readline() == "running\n"

    def end(self):
        """What came of it: no key twice, none missing, none that differs; else an error."""
        output, _ = self._process.communicate(timeout=300)
        result = json.loads(output)
        assert result["faults"] == ""
        assert not any(result["missing"]), result["missing"]
        assert not any(result["unexpected"]), result["unexpected"]
        return result


@pytest.fixture
def passing():
    made = []

    def make(network, *pairs):
        made.append(Passing(network, pairs))
        return made[-1]

    yield make
    for one in made:
        one._process.kill()
