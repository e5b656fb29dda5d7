# SPDX-License-Identifier: Apache-2.0
"""Key streams of applications over ETSI GS QKD 004: the cases of clause 6.2, pairs over links, over
relays and on one node, and what strangers, floods and garbage get."""

import json
import os
import socket
import ssl
import struct
import threading
import time
import uuid

import pytest

from app004 import GET, OPEN, VERSION, App, Closed, new_ksid
from topology import Node, Sae, line, pair

CHUNKS = int(os.environ.get("QKDGATE_APP_CHUNKS", "3000"))  # compared for each pair of applications


def app(network, name, dialect="b", plain=False, certificate=None):
    node = network.topology.home(name)
    return App(network.endpoints[f"{node.name}/app"], None if plain else network.pki,
               certificate or name, dialect)


def uri(network, name):
    node = network.topology.home(name)
    return next(s for s in node.saes if s.name == name).uri(node)


def later(call, *arguments, **options):
    """Begins a call; the function that it returns waits for what it gives."""
    result = []
    thread = threading.Thread(target=lambda: result.append(call(*arguments, **options)), daemon=True)
    thread.start()

    def wait():
        thread.join(120)
        assert result, "the call did not come back"
        return result[0]
    return wait


def open_pair(network, one, other, first="alice", second="bob", **qos):
    opened = one.open(uri(network, first), uri(network, second), **qos)
    assert opened.status == 0
    joined = other.open(uri(network, second), uri(network, first), opened.ksid)
    assert joined.status == 0 and joined.ksid == opened.ksid and joined.qos == opened.qos
    return opened.ksid


def compare(one, other, ksid, count, first=0):
    for index in range(first, first + count):
        a, b = one.get(ksid, index), other.get(ksid, index)
        assert a.status == b.status == 0, (index, a.status, b.status)
        assert a.index == b.index == index
        assert a.key == b.key and len(a.key) > 0
    return a


@pytest.fixture(scope="module")
def network(e2e_folder, pki):
    """One network for the tests that leave it as it was."""
    from conftest import _maker
    maker = _maker("app_streams", e2e_folder, pki)
    yield maker()
    maker.end()


# --- the cases of clause 6.2 -----------------------------------------------------------------------

@pytest.mark.parametrize("dialect", ["a", "b"])
def test_case_1_undefined_ksid(network, dialect):
    alice, bob = app(network, "alice", dialect), app(network, "bob", dialect)
    ksid = open_pair(network, alice, bob)
    assert uuid.UUID(bytes=ksid).version == 4
    last = compare(alice, bob, ksid, 100)
    if dialect == "b":
        told = json.loads(last.metadata)
        assert told["hops"] == 0 and 0 <= told["age"] < 2 ** 32
    assert alice.close(ksid) == 0 and bob.close(ksid) == 0
