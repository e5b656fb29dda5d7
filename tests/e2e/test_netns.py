# SPDX-License-Identifier: Apache-2.0
"""Relaying over real addresses: every node a network namespace, every link a cable that is cut,
delayed and lossy. Messages between gateways that share no link cross the nodes in between, as do
those of gateways whose cable is cut while there is another way."""

import random
import time

import pytest

import netns
from ledger import Ledger
from load import Load, assert_faultless, end_all
from processes import wait_for
from relaying import Passer, answered, hops_of, runs_down, ways
from test_relay import ENDS, POOL, SEED
from topology import diamond, line, ring

WHY_NOT = netns.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"network namespaces cannot be made: {WHY_NOT}")

STOCK = POOL["ready_chunks"]
# A link that is cut has no key left soon, however its ends reach each other.
LITTLE = {"node_chunks": 1024, "store_chunks": 512}
MOST = 4 * STOCK  # keys after the last cable was cut: in stock, and what node key there is
SLOW = {"delay_ms": 5, "loss_percent": 0.5, "seed": SEED}


@pytest.fixture(scope="module", autouse=True)
def leftovers():
    netns.remove_leftovers()


@pytest.fixture
def make_spaced(make_network):
    """A maker of networks in namespaces that have keys ready between alice and carol."""
    def make(topology, **options):
        return make_network(topology, **{"pool": POOL, "between": ENDS, "kind": netns.SpacedNetwork, **options})
    return make


def both(net, ledger):
    return Passer(net, ledger, *ENDS), Passer(net, ledger, *ENDS[::-1])


def test_a_line_of_five_nodes(make_spaced):
    net = make_spaced(line(5, link=LITTLE))
    ledger = Ledger()
    there, back = both(net, ledger)
    there.some(2 * STOCK)
    back.some(2 * STOCK)
    assert [hops_of(k) for k in answered(there.master, "sae-carol").json["keys"]] == [3]

    net.space.cut("kme-c", "kme-d")  # nothing gets past it, neither key nor messages
    runs_down(there, MOST)
    with net.client("alice") as alice:
        assert answered(alice, "sae-bob").status == 200
    net.space.heal("kme-c", "kme-d")
    there.some(2 * STOCK)
    back.some(2 * STOCK)
    ledger.check()


def test_a_ring_of_five_nodes(make_spaced):
    """Two ways from alice to carol: over kme-b, and over kme-e and kme-d."""
    net = make_spaced(ring(5, link=LITTLE))
    relay = net.topology.relays[0]
    ledger = Ledger()
    there, back = both(net, ledger)
    for cut, way in ((("kme-b", "kme-c"), ["kme-a", "kme-e", "kme-d", "kme-c"]),
                     (("kme-d", "kme-e"), ["kme-a", "kme-b", "kme-c"])):
        seen = len(ways(net, relay)) - 1
        net.space.cut(*cut)
        there.some(net.stock(*ENDS) + 3 * STOCK)
        back.some(net.stock(*ENDS[::-1]) + 3 * STOCK)
        assert way in ways(net, relay, seen)
        net.space.heal(*cut)
    net.space.cut("kme-a", "kme-b")
    net.space.cut("kme-a", "kme-e")  # kme-a stands alone
    runs_down(there, MOST)
    net.space.heal("kme-a", "kme-e")
    there.some(2 * STOCK)
    assert hops_of(answered(there.master, "sae-carol").json["keys"][0]) == 2
    net.space.heal("kme-a", "kme-b")
    back.some(2 * STOCK)
    ledger.check()


def test_a_diamond_with_a_share_over_each_side(make_spaced):
    net = make_spaced(diamond(link=LITTLE))
    relay = net.topology.relays[0]
    ledger = Ledger()
    there, back = both(net, ledger)
    there.some(2 * STOCK)
    back.some(2 * STOCK)
    assert {way[1] for way in ways(net, relay)} == {"kme-b", "kme-d"}
    net.space.cut("kme-d", "kme-c")
    runs_down(there, MOST)
    net.space.heal("kme-d", "kme-c")
    there.some(2 * STOCK)
    back.some(2 * STOCK)
    ledger.check()


@pytest.mark.skipif(not WHY_NOT and not netns.has_netem() and not netns.has_tap(),
                    reason="neither netem in this kernel nor /dev/net/tun")
def test_delay_and_loss_on_every_cable(make_spaced):
    """5 ms and one frame in 200 lost on each cable, each way: keys flow as before, and match."""
    print(f"QKDGATE_SEED={SEED}, {'netem' if netns.has_netem() else 'wire.py'}")
    net = make_spaced(line(5), cables=SLOW)
    ledger = Ledger()
    there, back = both(net, ledger)
    there.some(3 * STOCK)
    back.some(3 * STOCK)
    ledger.check()


def test_cables_cut_at_random_under_load(make_spaced):
    """A ring in which at any time some cable may be down: nothing wrong, nothing twice, nothing stuck."""
    print(f"QKDGATE_SEED={SEED}")
    net = make_spaced(ring(5, link=LITTLE))
    ledger, rng = Ledger(), random.Random(SEED)
    loads = [Load(net, ledger, *ends, SEED + i) for i, ends in enumerate((ENDS, ENDS[::-1], ("alice", "bob")))]
    for load in loads:
        load.start()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        cable = rng.choice(net.space.cables)
        net.space.cut(cable.a, cable.b, reroute=rng.random() < 0.7)
        time.sleep(rng.uniform(0.2, 3))
        net.space.heal(cable.a, cable.b)
        time.sleep(rng.uniform(0, 1))
    end_all(loads)
    assert_faultless(loads)
    for load in loads:
        Passer(net, ledger, load.master, load.slave).some(2 * STOCK)
    ledger.check()
    wait_for("full pools", lambda: net.stock(*ENDS) > STOCK // 2, 30)
