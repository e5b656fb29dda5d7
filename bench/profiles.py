# SPDX-License-Identifier: Apache-2.0
"""Taking key in over each profile of ETSI GS QKD 004: chunks per second, and CPU of the gateway and of the
simulator for each. Used by run.py.

Two gateways over a simulated link that gives key as fast as it is taken, both streams at once, over TLS. Intake
is all of it: GET_KEY or push, comparing with the neighbour, storing. The machine's cores are shared by all."""

import os
import shutil
import statistics
import time
from pathlib import Path

from network import Network
from processes import wait_for
from topology import pair

CHUNK = 32
WAYS = {  # name in the table: (options of the link, part of the plan's chunks)
    "bin-a": ({"dialect": "bin-a"}, 1 / 16),  # a handshake for each chunk
    "bin-b": ({"dialect": "bin-b"}, 8),
    "json": ({"dialect": "json"}, 2),
    "json, pushed": ({"dialect": "json", "push": True}, 2),
    "json-netxpto": ({"dialect": "json-netxpto"}, 2),
    "json-netxpto, pushed": ({"dialect": "json-netxpto", "push": True}, 2),
    "http-push": ({"dialect": "http-push"}, 1),
}
QUICK = {"chunks": 8192, "rounds": 1}
FULL = {"chunks": 32768, "rounds": 2}


def cpu_seconds(pid):
    """CPU time of a process, threads that have ended included: a simulator has one for each connection."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Intake:
    """A link of one profile; `bench` lends its folder."""

    def __init__(self, bench, name, plan):
        options, part = WAYS[name]
        self.chunks = int(plan["chunks"] * part)
        topology = pair(rate_bps=0, source={"max_bps": 0}, chunk_size=CHUNK, segment_chunks=256, **options)
        folder = bench.folder / f"profile-{name.replace(', ', '-')}"
        shutil.rmtree(folder, ignore_errors=True)
        self.network = Network(topology, folder, pki=bench.folder / "pki", tweak=self.tweak)

    def tweak(self, _name, config):
        config["pool"] = {"ready_chunks": self.chunks + 1024, "inbound_chunks": 4 * self.chunks + 65536}

    def stocks(self):
        return self.network.stock("alice", "bob") + self.network.stock("bob", "alice")

    def cpu(self):
        return [cpu_seconds(pid) for pid in (self.network.gateways["kme-a"].pid, self.network.sims["sim-a"].pid)]

    def measure(self):
        """From the first confirmed key on, so that opening the streams is left out."""
        self.network.prepare()
        self.network.start()
        try:
            wait_for("the first key", lambda: self.stocks() > 0, 60, 0.005)
            begin, cpu, begin_s = self.stocks(), self.cpu(), time.monotonic()
            wait_for(f"{self.chunks} chunks", lambda: self.network.stock("alice", "bob") >= self.chunks // 2
                     and self.stocks() - begin >= self.chunks, 300, 0.01)
            chunks, seconds = self.stocks() - begin, time.monotonic() - begin_s
            gateway_s, sim_s = (after - before for after, before in zip(self.cpu(), cpu))
            return {"chunks": chunks, "chunks_per_s": chunks / seconds,
                    "gateway_cpu_us": gateway_s / chunks * 1e6, "source_cpu_us": sim_s / chunks * 1e6}
        finally:
            self.network.stop()


def run(bench, plan):
    """Rows by name, the profiles in turns."""
    rows = {name: [] for name in WAYS}
    for _ in bench.rounds(plan["rounds"]):
        for name in WAYS:
            rows[name].append(Intake(bench, name, plan).measure())
    return rows


def median(rows, member):
    return statistics.median(row[member] for row in rows)


def figures(rows):
    out = {}
    for name, measured in rows.items():
        key = name.replace("-", "_").replace(", ", "_")
        out[f"intake_{key}_chunks_per_s"] = median(measured, "chunks_per_s")
        out[f"intake_{key}_us_per_chunk"] = median(measured, "gateway_cpu_us")
    return out


def print_table(rows):
    columns = ("chunks_per_s", "gateway_cpu_us", "source_cpu_us")
    print(f"\n{'profile':22}" + "".join(f"{c:>16}" for c in columns))
    for name, measured in rows.items():
        print(f"{name:22}" + "".join(f"{median(measured, c):16.1f}" for c in columns))
