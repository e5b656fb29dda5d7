# SPDX-License-Identifier: Apache-2.0
"""Steady load for a long time, `make soak MINUTES=n`: what must not grow does not."""

import os
import statistics
import time
from pathlib import Path

from ledger import Ledger
from load import Load, assert_faultless, end_all
from topology import chain

MINUTES = float(os.environ.get("QKDGATE_SOAK_MINUTES", 10))
POOL = {"ready_chunks": 2048, "inbound_chunks": 65536}
PAIRS = (("alice", "carol"), ("carol", "alice"), ("alice", "bob"), ("bob", "alice"))
SAMPLES = 24


def resident_kb(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError(f"process {pid} has no VmRSS")


def sample(net, client):
    """Of each gateway memory and descriptors; and how long one answer takes now, in ms."""
    of_all = {}
    for name, gateway in net.gateways.items():
        of_all[name] = (resident_kb(gateway.pid), len(os.listdir(f"/proc/{gateway.pid}/fd")))
    begin = time.monotonic()
    answer = client.status("sae-carol")
    assert answer.status == 200, answer.body
    return of_all, 1000 * (time.monotonic() - begin)


def test_soak(make_network):
    net = make_network(chain(), pool=POOL, between=("alice", "carol"))
    ledger = Ledger()
    loads = [Load(net, ledger, *ends, i) for i, ends in enumerate(PAIRS)]
    for load in loads:
        load.start()
    samples = []
    try:
        with net.client("alice") as client:
            for _ in range(SAMPLES):
                time.sleep(60 * MINUTES / SAMPLES)
                samples.append(sample(net, client))
                print(f"{len(ledger.delivered):9} keys; " + ", ".join(
                    f"{name} {kb} KiB {fds} descriptors" for name, (kb, fds) in samples[-1][0].items())
                    + f"; status in {samples[-1][1]:.1f} ms", flush=True)
    finally:
        end_all(loads)
    ledger.check()
    assert_faultless(loads)
    third = SAMPLES // 3  # the first third warms up: pools, caches and the epochs' windows fill
    for name in net.gateways:
        early = [s[0][name] for s in samples[third:2 * third]]
        late = [s[0][name] for s in samples[2 * third:]]
        memory = [statistics.median(kb for kb, _ in part) for part in (early, late)]
        assert memory[1] < 1.15 * memory[0] + 2048, f"{name} grew from {memory[0]} to {memory[1]} KiB"
        assert max(fds for _, fds in late) <= max(fds for _, fds in early) + 8, f"{name}: descriptors leak"
    early = statistics.median(ms for _, ms in samples[third:2 * third])
    late = statistics.median(ms for _, ms in samples[2 * third:])
    assert late < 3 * early + 5, f"an answer took {early:.1f} ms and takes {late:.1f} ms now"
