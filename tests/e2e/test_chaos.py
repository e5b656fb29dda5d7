# SPDX-License-Identifier: Apache-2.0
"""Everything at once, in random order: five nodes in a ring, under load."""

import os
import random
import time

import pytest

from admin import local
from chaos import Chaos, ChaosLoad
from ledger import Ledger
from load import assert_faultless, end_all
from relaying import Passer, accounts, check_account
from topology import ring

SEED = int(os.environ.get("QKDGATE_SEED", random.randrange(2 ** 31)))
SECONDS = float(os.environ.get("QKDGATE_CHAOS_S", 15))
POOL = {"ready_chunks": 512, "inbound_chunks": 16384}
PAIRS = (("alice", "carol"), ("carol", "alice"), ("alice", "bob"), ("bob", "alice"))


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


def test_chaos(make_chaos, make_network):
    """No ID and no chunk twice, no key delivered twice, the same key at both ends, nothing missing
    without a reason, every pad byte in its account; and afterwards nothing is stuck."""
    print(f"QKDGATE_SEED={SEED} QKDGATE_CHAOS_S={SECONDS}")
    net = make_network(ring(5), pool=POOL, start=False, admin=True)
    ledger = Ledger()
    chaos = make_chaos(net, SEED)
    net.start()
    for ends in (("alice", "carol"), ("carol", "alice")):
        net.wait_stock(*ends)
    loads = [ChaosLoad(net, ledger, *ends, SEED + i) for i, ends in enumerate(PAIRS)]
    for load in loads:
        load.start()
    try:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            chaos.step()
    finally:
        chaos.calm()
        end_all(loads)
    print(f"faults: {chaos.done}; {len(ledger.issued)} keys issued, {len(ledger.delivered)} delivered, "
          f"{len(ledger.lost)} in requests without a sure answer")
    ledger.check()
    assert_faultless(loads)
    for ends in PAIRS:
        Passer(net, ledger, *ends).some(2 * POOL["ready_chunks"], timeout_s=120)
    ledger.check()
    for account in accounts(net).values():
        check_account(account)
    for name in net.gateways:  # every line of the audit log, over all kills
        verdict = local(net, name).get("/api/v1/audit/verify")
        assert verdict["good"], (name, verdict)
