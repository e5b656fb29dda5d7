# SPDX-License-Identifier: Apache-2.0
"""Everything at once, in random order, under load: five nodes in a ring; two networks whose borders
share a link."""

import os
import random
import time

import pytest

from admin import local
from chaos import Chaos, ChaosLoad
from ledger import Ledger
from links import audited
from load import assert_faultless, end_all
from relaying import Passer, accounts, check_account
from topology import operators, ring

SEED = int(os.environ.get("QKDGATE_SEED", random.randrange(2 ** 31)))
SECONDS = float(os.environ.get("QKDGATE_CHAOS_S", 10))
POOL = {"ready_chunks": 512, "inbound_chunks": 16384}
PAIRS = {
    "ring": (("alice", "carol"), ("carol", "alice"), ("alice", "bob"), ("bob", "alice")),
    "operators": (("alice", "zoe"), ("zoe", "alice")),
}
NETWORKS = {"ring": ring(5), "operators": operators(kxi=True)}


@pytest.fixture
def make_chaos():
    """A maker of what befalls a network; it ends after the network."""
    made = []

    def make(net, seed):
        made.append(Chaos(net, seed))
        return made[-1]

    yield make
    for chaos in made:
        chaos.end()


def wait_first(net, master, slave):
    """Until keys come in, and so until all listen and know each other."""
    if net.topology.peerings:
        net.wait_foreign(master, slave, timeout_s=90)
    else:
        net.wait_stock(master, slave)


def void_keys(net):
    """What the nodes where keys are asked for made void, which the others do when they hear of it."""
    return set().union(*(audited(net, name, "voided") for name in ("kme-a", "kme-z") if name in net.gateways))


def check_whole(net):
    """Every pad byte in its account, every line of the audit log, over all kills."""
    for account in accounts(net).values():
        check_account(account)
    for name in net.gateways:
        verdict = local(net, name).get("/api/v1/audit/verify")
        assert verdict["good"], (name, verdict)


@pytest.mark.parametrize("network", NETWORKS)
def test_chaos(make_chaos, make_network, network):
    """No ID and no chunk twice, no key delivered twice, the same key at both ends, nothing void given
    out, nothing missing without a reason, every pad byte in its account; and afterwards nothing is stuck."""
    print(f"QKDGATE_SEED={SEED} QKDGATE_CHAOS_S={SECONDS}")
    net = make_network(NETWORKS[network], pool=POOL, start=False, admin=True)
    pairs, ledger = PAIRS[network], Ledger()
    chaos = make_chaos(net, SEED)
    net.start()
    for ends in pairs[:2]:
        wait_first(net, *ends)
    loads = [ChaosLoad(net, ledger, *ends, SEED + i) for i, ends in enumerate(pairs)]
    for load in loads:
        load.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            chaos.step()
    finally:
        chaos.calm()
        end_all(loads)
    ledger.make_void(void_keys(net))
    print(f"faults: {chaos.done}; {len(ledger.issued)} keys issued, {len(ledger.delivered)} delivered, "
          f"{len(ledger.lost)} in requests without a sure answer, {len(ledger.void)} void")
    ledger.check()
    assert_faultless(loads)
    for ends in pairs:
        Passer(net, ledger, *ends).some(2 * POOL["ready_chunks"], timeout_s=120)
    ledger.check()
    check_whole(net)
