# SPDX-License-Identifier: Apache-2.0
"""What a large stock costs: the same requests on a pair of gateways with few keys and on one with many,
in turns; bytes of memory by stored key; the start with all of them. Used by run.py."""

import shutil
import statistics
import time

from network import Network
from processes import ProcessFailed, wait_for
from topology import pair

QUICK = {"small": 1024, "large": 1_000_000, "rounds": 8, "requests": 512}
FULL = {"small": 1024, "large": 10_000_000, "rounds": 12, "requests": 512}
FILL_S = 1800


class Pool:
    """A pair of gateways with a stock of `chunks` keys at the first."""

    def __init__(self, bench, name, chunks):
        self.bench, self.chunks = bench, chunks
        folder = bench.folder / f"pool-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        self.network = Network(pair(rate_bps=0, source={"max_bps": 0}), folder, pki=bench.folder / "pki",
                               tweak=self.tweak)
        self.rows = []

    def tweak(self, name, config):
        ready = self.chunks if name == "kme-a" else 1024
        config["pool"] = {"ready_chunks": ready, "inbound_chunks": 2 * self.chunks + 65536}

    def start(self):
        self.network.prepare()
        self.network.start()
        self.empty_bytes = self.bench.rss_bytes(self.network.gateways["kme-a"].pid)

    def fill(self):
        """Full, but for what one segment may lack; nothing more comes in afterwards."""
        self.network.outage(False)
        wait_for(f"{self.chunks} keys", lambda: self.network.stock("alice", "bob") >= self.chunks - 300, FILL_S, 0.1)
        self.network.outage(True)
        time.sleep(0.2)

    def measure(self, requests):
        self.rows.append(self.bench.pair_between(self.network, "kme-a", "kme-b", "alice", "bob", 1, requests, 16))

    def restart(self):
        """Seconds from the start of the first gateway until it serves, with what it had but for a lease."""
        gateway = self.network.gateways["kme-a"]
        before = self.network.stock("alice", "bob")
        gateway.stop(timeout_s=300)
        begin_s = time.monotonic()
        gateway.start()
        gateway.wait_ready(timeout_s=300)
        took_s = time.monotonic() - begin_s
        after = self.network.stock("alice", "bob")
        if after < before * 0.98 - 1024:
            raise ProcessFailed(f"of {before} keys {after} are there after the start")
        return took_s


def run(bench, plan):
    small, large = Pool(bench, "small", plan["small"]), Pool(bench, "large", plan["large"])
    try:
        for pool in (small, large):
            pool.start()
            pool.fill()
        held = bench.rss_bytes(large.network.gateways["kme-a"].pid) - large.empty_bytes
        for _ in bench.rounds(plan["rounds"]):
            for pool in (small, large):
                pool.fill()
                pool.measure(plan["requests"])
        start_s = large.restart()
    finally:
        for pool in (small, large):
            pool.network.stop()

    def ratio(which):
        rounds = zip(large.rows, small.rows)
        return statistics.median(a[which]["server_cpu_us"] / b[which]["server_cpu_us"] for a, b in rounds)

    return {"chunks": plan["large"], "enc_keys_cpu": ratio(0), "dec_keys_cpu": ratio(1),
            "bytes_per_key": held / plan["large"], "start_s": start_s}


def figures(row):
    return row


def print_table(row):
    for name, value in row.items():
        print(f"{name:22}{value:16.2f}")
