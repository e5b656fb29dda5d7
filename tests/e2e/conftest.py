# SPDX-License-Identifier: Apache-2.0
"""Networks for the tests: each in a folder of its own under the build folder, on free ports."""

import re
import shutil
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / name) for name in ("demo", "fault")]

from between import Middleman, Recorder  # noqa: E402
from network import Network, build_folder, complete_pki, make_pki  # noqa: E402
from source004 import Source  # noqa: E402
from topology import pair  # noqa: E402

SMALL_POOL = {"ready_chunks": 4096, "inbound_chunks": 65536}


@pytest.fixture(scope="module")
def e2e_folder(request):
    """Of a file of tests, so that several can run side by side."""
    folder = build_folder() / "e2e" / request.module.__name__.removeprefix("test_")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def pki(e2e_folder):
    folder = e2e_folder / "pki"
    make_pki(folder)
    return folder


class Maker:
    """Makes networks and, at the end, stops them: every gateway has to end in order."""

    def __init__(self, folder, pki):
        self._folder = folder
        self._pki = pki
        self._networks = []

    def __call__(self, topology=None, tweak=None, start=True, pool=None, stock=1, kind=Network,
                 between=("alice", "bob"), **options):
        """A network of pair() by default, started, with `stock` keys ready in both directions
        between two SAEs."""
        def small(name, config):
            config["pool"] = dict(pool or SMALL_POOL)
            if tweak:
                tweak(name, config)

        folder = self._folder / str(len(self._networks))
        topology = topology or pair()
        complete_pki(self._pki, topology)
        network = kind(topology, folder, pki=self._pki, tweak=small, **options)
        self._networks.append(network)
        network.prepare()
        if start:
            network.start()
            if stock:
                network.wait_stock(*between, stock)
                network.wait_stock(*reversed(between), stock)
        return network

    def end(self):
        faults = []
        for network in self._networks:
            for name, orderly in network.stop().items():
                status = network.gateways[name].exit_status
                if not orderly or status:
                    faults.append(f"{name} did not end in order (status {status}):\n"
                                  f"{network.gateways[name].log()[-2000:]}")
            network.forget()
        assert not faults, "\n".join(faults)


def _maker(name, e2e_folder, pki):
    folder = e2e_folder / re.sub(r"[^\w.-]+", "_", name)
    shutil.rmtree(folder, ignore_errors=True)
    return Maker(folder, pki)


@pytest.fixture
def make_network(request, e2e_folder, pki):
    """For tests that kill, stop or configure: a maker of fresh networks."""
    maker = _maker(request.node.name, e2e_folder, pki)
    yield maker
    maker.end()


@pytest.fixture
def make_source(pki):
    """A maker of Python-played links, which end with the test."""
    sources = []

    def make(dialect="b", tls=True, client_certificate=True, **options):
        sources.append(Source(dialect, pki if tls else None, client_certificate, **options))
        return sources[-1]

    yield make
    for source in sources:
        source.end()


@pytest.fixture
def make_middleman(pki):
    """A maker of middlemen, who play `server` to the gateway `caller`; they end with the test."""
    made = []

    def make(target, server, caller):
        made.append(Middleman(pki, target, server, caller))
        return made[-1]

    yield make
    for middleman in made:
        middleman.end()


@pytest.fixture
def make_recorder(pki):
    """Puts a recorder between two gateways of a network that was not started; it ends with the test."""
    made = []

    def make(network, caller, server):
        recorder = Recorder(pki, network.endpoints[f"{server}/kms"], server, caller)
        made.append(recorder)
        network.put_between(caller, server, recorder.url)
        return recorder

    yield make
    for recorder in made:
        recorder.end()


@pytest.fixture(scope="module")
def make_shared(request, e2e_folder, pki):
    """A maker of networks that the tests of a module share."""
    maker = _maker(request.module.__name__, e2e_folder, pki)
    yield maker
    maker.end()


@pytest.fixture(scope="module")
def network(make_shared):
    """A running pair that the tests of a module share; they leave it running and stocked."""
    return make_shared(pool={"ready_chunks": 16384, "inbound_chunks": 262144}, stock=2000)


@pytest.fixture
def alice(network):
    with network.client("alice") as client:
        yield client


@pytest.fixture
def bob(network):
    with network.client("bob") as client:
        yield client


@pytest.fixture
def dave(network):
    with network.client("dave") as client:
        yield client


@pytest.fixture
def erin(network):
    with network.client("erin") as client:
        yield client


@pytest.fixture
def mallory(network):
    with network.client("mallory") as client:
        yield client
