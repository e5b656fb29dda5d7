# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under load: no key twice, no pair that differs, nothing lost that was
not in a request whose answer was lost.

QKDGATE_KILLS (default 200) and QKDGATE_SEED set how often and which."""

import os
import random
import time

from ledger import Ledger
from links import exchange
from load import Load, assert_faultless, end_all
from processes import wait_for

KILLS = int(os.environ.get("QKDGATE_KILLS", "200"))
SEED = int(os.environ.get("QKDGATE_SEED") or random.SystemRandom().randrange(2**32))


def kill_at_random(net, rng, kills, ledger):
    """Kills one gateway after the other at a random moment, also while it starts; now and then it waits
    until the load has passed keys since."""
    passed = 0
    for n in range(kills):
        time.sleep(rng.uniform(0, rng.choice((0.1, 0.4, 0.8))))
        if n % 10 == 9:
            wait_for("keys between the kills", lambda: len(ledger.delivered) > passed, 60)
            passed = len(ledger.delivered)
        victim = net.gateways[rng.choice(sorted(net.gateways))]
        victim.kill()
        time.sleep(rng.choice((0, 0, 0.05)))
        victim.start()


def test_kills_at_random_moments_deliver_nothing_twice_and_nothing_wrong(make_network):
    print(f"QKDGATE_SEED={SEED} QKDGATE_KILLS={KILLS}")
    net = make_network(pool={"ready_chunks": 2048, "inbound_chunks": 65536})
    ledger = Ledger()
    loads = [Load(net, ledger, "alice", "bob", SEED + 1), Load(net, ledger, "bob", "alice", SEED + 2)]
    for load in loads:
        load.start()
    kill_at_random(net, random.Random(SEED), KILLS, ledger)
    for gateway in net.gateways.values():
        gateway.wait_ready(30)
    net.wait_stock("alice", "bob", timeout_s=60)
    net.wait_stock("bob", "alice", timeout_s=60)
    wait_for("keys after the kills", lambda: len(ledger.delivered) > KILLS, 60)
    end_all(loads)
    print(f"{len(ledger.issued)} keys issued, {len(ledger.delivered)} delivered, "
          f"{len(ledger.lost)} in requests without an answer")
    ledger.check()
    assert_faultless(loads)
    exchange(net, timeout_s=60)  # pairs that used much are refused until the pool is over its reserve


def test_killed_simulators_end_epochs_and_key_flows_again(make_network):
    """The links lose their state several times; gateways open new streams by themselves."""
    net = make_network(pool={"ready_chunks": 512, "inbound_chunks": 65536})
    ledger = Ledger()
    for name in ("sim-a", "sim-b", "sim-a"):
        net.sims[name].kill()
        net.sims[name].start()
        net.sims[name].wait_ready()
        goal = len(ledger.delivered) + 1500  # three times what the pool holds
        end = time.monotonic() + 180
        with net.client("alice") as alice, net.client("bob") as bob:
            while len(ledger.delivered) < goal:
                assert time.monotonic() < end, net.gateways["kme-a"].log()[-3000:]
                answer = alice.enc("sae-bob", number=64)
                if answer.status == 503:
                    time.sleep(0.1)
                    continue
                keys = answer.keys()
                ids = [i for i, _ in keys]
                ledger.issue(keys)
                got = bob.dec("sae-alice", *ids)
                assert got.status == 200, got.body
                ledger.deliver(ids, got.keys())
    ledger.check()
