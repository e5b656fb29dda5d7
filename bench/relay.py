# SPDX-License-Identifier: Apache-2.0
"""Relaying over lines of gateways: keys per second, CPU, and the latency of a key at the first node
for one at the last, by the number of links in between. Used by run.py.

Everything runs on the cores of this machine, simulators included, so keys per second over many links are
those of the machine, not of a network. CPU is by process, and so is not."""

import shutil
import statistics
import time

from network import Network
from processes import wait_for
from topology import line, pair

MASTER, SLAVE = "alice", "carol"
SEGMENT = 256
NODE_CHUNKS = 16384
KEYS_AT_ONCE = 128
RATE = 500  # requests per second while latency is measured: what is taken is refilled meanwhile

QUICK = {"links": (2,), "stock": 8192, "latency": 200, "rounds": 1, "refills": 2}
FULL = {"links": (1, 2, 4, 8), "stock": 16384, "latency": 500, "rounds": 5, "refills": 2}


class Line:
    """Gateways in a row; `bench` lends its load client, CPU clocks and folder."""

    def __init__(self, bench, links, plan):
        self.bench, self.links, self.plan = bench, links, plan
        fast = {"rate_bps": 0, "source": {"max_bps": 0}}
        if links == 1:
            topology = pair(**fast)
            self.slave = "bob"
        else:
            topology = line(links + 1, link={**fast, "node_chunks": NODE_CHUNKS})
            self.slave = SLAVE
        self.first, self.last = topology.nodes[0].name, topology.nodes[-1].name
        self.between = [node.name for node in topology.nodes[1:-1]]
        folder = bench.folder / f"line-{links}"
        shutil.rmtree(folder, ignore_errors=True)
        self.network = Network(topology, folder, pki=bench.folder / "pki", tweak=self.tweak)
        self.client = None
        self.refills, self.alone, self.latencies = [], [], []

    def tweak(self, name, config):
        stock = self.plan["stock"] if name == self.first else 8 * SEGMENT
        config["pool"] = {"ready_chunks": stock, "inbound_chunks": 64 * self.plan["stock"]}

    def stock(self):
        answer = self.client.status(f"sae-{self.slave}")
        return answer.json["stored_key_count"] if answer.status == 200 else 0

    def wait_stock(self, n, what):
        wait_for(what, lambda: self.stock() >= n, 180, 0.02)

    def load(self, keys, requests, connections, *more):
        return self.bench.pair_between(self.network, self.first, self.last, MASTER, self.slave, keys, requests,
                                       connections, *more)

    def cpu(self):
        return {name: self.bench.cpu_seconds(gateway.pid) for name, gateway in self.network.gateways.items()}

    def refill(self):
        """Takes most of the stock, and follows how it comes back."""
        full = self.plan["stock"] - 2 * SEGMENT
        self.wait_stock(full, f"{full} keys over {self.links} links")
        requests = (self.plan["stock"] * 3 // 4) // KEYS_AT_ONCE
        self.load(KEYS_AT_ONCE, requests, 4)
        cpu, stock, begin_s = self.cpu(), self.stock(), time.monotonic()
        self.wait_stock(full, "the refill")
        keys, seconds = self.stock() - stock, time.monotonic() - begin_s
        if keys < SEGMENT:  # it came back before it was looked at
            return self.refill()
        cpu = {name: (after - cpu[name]) / keys * 1e6 for name, after in self.cpu().items()}
        return {"keys": keys, "keys_per_s": keys / seconds, "source_us": cpu[self.first],
                "target_us": cpu[self.last], "hop_us": [cpu[name] for name in self.between]}

    def relay_alone(self):
        """CPU of each node by key that is relayed while the links give nothing, with the node key that is there:
        what it costs to take that in is left out. Until nothing more arrives, or all is back."""
        time.sleep(2)  # until the links have all their node key
        self.network.outage(True)
        time.sleep(0.5)
        requests = (self.plan["stock"] * 5 // 8) // KEYS_AT_ONCE
        full, cpu = self.stock(), self.cpu()
        self.load(KEYS_AT_ONCE, requests, 4)
        stock = full - requests * KEYS_AT_ONCE
        keys, after, grown_s = 0, cpu, time.monotonic()
        while keys < full - stock and time.monotonic() - grown_s < 1:
            time.sleep(0.02)
            now = self.stock() - stock
            if now > keys:
                keys, after, grown_s = now, self.cpu(), time.monotonic()
        self.network.outage(False)
        cpu = {name: (after[name] - cpu[name]) / keys * 1e6 for name in cpu}
        return {"keys": keys, "source_us": cpu[self.first], "target_us": cpu[self.last],
                "hop_us": [cpu[name] for name in self.between]}

    def start(self):
        self.network.prepare()
        self.network.start()
        self.client = self.network.client(MASTER)

    def measure_refills(self):
        self.refills = [self.refill() for _ in range(self.plan["refills"])]
        for _ in range(self.plan["refills"] if self.between else 0):
            self.wait_stock(self.plan["stock"] - 2 * SEGMENT, "the last refill")
            self.alone.append(self.relay_alone())
        self.wait_stock(self.plan["stock"] - 2 * SEGMENT, "the last refill")

    def measure_latency(self):
        self.latencies.append(self.load(1, self.plan["latency"], 4, "--rate", RATE))

    def row(self):
        def refill(member):
            return statistics.median(row[member] for row in self.refills)

        def latency(which, member):
            return statistics.median(rows[which][member] for rows in self.latencies)

        hops = [statistics.median(row["hop_us"]) for row in self.refills if row["hop_us"]]
        alone = [statistics.median(row["hop_us"]) for row in self.alone]
        return {
            "links": self.links, "keys_per_s": refill("keys_per_s"), "source_us_per_key": refill("source_us"),
            "hop_us_per_key": statistics.median(hops) if hops else None,
            "hop_alone_us_per_key": statistics.median(alone) if alone else None,
            "target_us_per_key": refill("target_us"),
            "enc_keys_p50_us": latency(0, "p50_us"), "enc_keys_p99_us": latency(0, "p99_us"),
            "dec_keys_p50_us": latency(1, "p50_us"), "dec_keys_p99_us": latency(1, "p99_us"),
            "refills": self.refills, "alone": self.alone, "latencies": self.latencies,
        }


def run(bench, plan):
    """All lines are up at once, so that latencies are measured in turns."""
    lines = [Line(bench, links, plan) for links in plan["links"]]
    try:
        for each in lines:
            each.start()
            each.measure_refills()
        for _ in bench.rounds(plan["rounds"]):
            for each in lines:
                each.measure_latency()
    finally:
        for each in lines:
            each.network.stop()
    return [each.row() for each in lines]


def hop_us(rows, member="hop_alone_us_per_key"):
    """CPU of a node in between for one key."""
    return statistics.median(row[member] for row in rows if row[member] is not None)


def figures(rows):
    out = {"relay_with_intake_us_per_key_hop": hop_us(rows, "hop_us_per_key")}
    for row in rows:
        out[f"relay_keys_per_s_{row['links']}_links"] = row["keys_per_s"]
        out[f"relay_enc_keys_p50_us_{row['links']}_links"] = row["enc_keys_p50_us"]
    if len(rows) > 1:
        # The latency over the longest line to that over the shortest, of each round.
        rounds = zip(rows[-1]["latencies"], rows[0]["latencies"])
        out["relay_enc_keys_p50_longest"] = statistics.median(a[0]["p50_us"] / b[0]["p50_us"] for a, b in rounds)
    return out


def print_table(rows):
    columns = ("keys_per_s", "source_us_per_key", "hop_us_per_key", "hop_alone_us_per_key",
               "target_us_per_key", "enc_keys_p50_us",
               "enc_keys_p99_us", "dec_keys_p50_us", "dec_keys_p99_us")
    print(f"\n{'links':>6}" + "".join(f"{c:>21}" for c in columns))
    for row in rows:
        cells = ("-" if row[c] is None else f"{row[c]:.1f}" for c in columns)
        print(f"{row['links']:>6}" + "".join(f"{c:>21}" for c in cells))
