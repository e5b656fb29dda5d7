# SPDX-License-Identifier: Apache-2.0
"""Networks of containers that tests share, one at a time since their addresses are fixed."""

import json
import subprocess

import pytest

from engine import PROJECT, TAG, Network

NETWORKS = {
    "pair": ("compose.yaml",),
    "chain": ("compose.chain.yaml",),
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
