# SPDX-License-Identifier: Apache-2.0
"""GET_KEY for applications over each profile of ETSI GS QKD 004 that answers it: chunks per second, and CPU of
the gateways for each. Used by run.py.

Two gateways over a simulated link that gives key as fast as it is taken. Of each chunk one application has it
first ("new": drawn, told to the other gateway, stored at both, and given out at one), and gets it again ("again":
from what the gateway holds). The client is one Python thread on the same machine, with up to 64 requests under
way where the profile stays connected: chunks per second are what it can take, CPU is the gateways' own."""

import shutil
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from app004 import App, JsonApp  # noqa: E402
from network import Network  # noqa: E402
from processes import wait_for  # noqa: E402
from profiles import cpu_seconds, median  # noqa: E402
from topology import pair  # noqa: E402

AT_ONCE = 64
PUSHED = "qkd://alice@KME-A#pushed"
PROFILES = {  # name in the table: (application, of profile bin its dialect, of json wrapped or not; over TLS, part of
    #                               the plan's chunks)
    "bin-a": ("BinA", "a", True, 1 / 32),  # a connection for each chunk
    "bin-b": ("BinB", "b", True, 1),
    "bin-b, plain": ("BinB", "b", False, 1),
    "json": ("Json", False, True, 1 / 2),
    "json, plain": ("Json", False, False, 1 / 2),
    "json-netxpto": ("Json", True, True, 1 / 2),
    "json, pushed": ("Pushed", False, True, 1 / 2),
}
QUICK = {"chunks": 16384, "rounds": 1}
FULL = {"chunks": 65536, "rounds": 2}


class Taking:
    """What is measured of an application."""

    def open_stream(self, source, destination, ksid=None):
        answer = self.open(source, destination, ksid, mimetype="")
        return answer.status, answer.ksid

    def take(self, ksid, first, count):
        for answer in self.chunks(ksid, first, count):
            if answer.status:
                raise TimeoutError(f"no chunk {answer.index}: status {answer.status}")

    def chunks(self, ksid, first, count):
        return (self.get(ksid, index, 0) for index in range(first, first + count))


class BinA(Taking, App):
    pass


class BinB(Taking, App):
    def chunks(self, ksid, first, count):
        return self.get_many(ksid, first, count)


class Json(Taking, JsonApp):
    pass


class Pushed(Json):
    """Asks once, and reads what comes."""

    coming = None

    def chunks(self, ksid, first, count):
        if self.coming != first:
            self.tell_get(ksid, first, 0)
            self.coming = first
        while self.coming < first + count:
            chunk = self.chunk()
            if chunk.index == self.coming or chunk.status:  # else: on its way since before
                self.coming += 1
                yield chunk


class Apps:
    """Two gateways; `bench` lends its folder."""

    def __init__(self, bench, plan):
        self.bench, self.plan = bench, plan
        folder = bench.folder / "apps"
        shutil.rmtree(folder, ignore_errors=True)
        self.network = Network(pair(rate_bps=0, source={"max_bps": 0}), folder, pki=bench.folder / "pki",
                               tweak=self.tweak)

    @staticmethod
    def tweak(_name, config):
        for entry in config["saes"] + config["directory"]:
            if "sae-alice" in (entry.get("id"), entry.get("sae")):
                entry["applications"].append(PUSHED)
                if "id" in entry:
                    entry["push"] = [PUSHED]
        config["pool"] = {"ready_chunks": 32768, "inbound_chunks": 1048576}
        config["app_streams"] = {"max_bps": 4_000_000_000, "held_bytes": 268435456}

    def app(self, name, kind, dialect, tls):
        node = self.network.topology.home(name)
        return globals()[kind](self.network.endpoints[f"{node.name}/app"], self.network.pki if tls else None, name,
                               dialect)

    def cpu(self):
        return [cpu_seconds(self.network.gateways[name].pid) for name in ("kme-a", "kme-b")]

    def timed(self, app, ksid, count):
        cpu, begin_s = self.cpu(), time.monotonic()
        for first in range(0, count, AT_ONCE):
            app.take(ksid, first, min(AT_ONCE, count - first))
        seconds = time.monotonic() - begin_s
        near, far = (after - before for after, before in zip(self.cpu(), cpu))
        return count / seconds, near / count * 1e6, far / count * 1e6

    def measure(self, name):
        *how, part = PROFILES[name]
        count = int(self.plan["chunks"] * part)
        alice, bob = self.app("alice", *how), self.app("bob", *how)
        uris = [s.uri(self.network.topology.home(s.name))
                for s in self.network.topology.saes() if s.name in ("alice", "bob")]
        if how[0] == "Pushed":
            uris[0] = PUSHED
        status, ksid = alice.open_stream(*uris)
        if status or bob.open_stream(*reversed(uris), ksid)[0]:
            raise TimeoutError(f"{name}: the stream does not open")
        new, new_near, new_far = self.timed(alice, ksid, count)
        again, again_near, _ = self.timed(alice, ksid, count)
        alice.close_connection()
        bob.close_connection()
        return {"new_per_s": new, "new_near_cpu_us": new_near, "new_far_cpu_us": new_far, "again_per_s": again,
                "again_cpu_us": again_near}

    def run(self):
        rows = {name: [] for name in PROFILES}
        self.network.prepare()
        self.network.start()
        try:
            wait_for("a stock", lambda: self.network.stock("alice", "bob") >= 8192, 60)
            for _ in self.bench.rounds(self.plan["rounds"]):
                for name in PROFILES:
                    rows[name].append(self.measure(name))
        finally:
            self.network.stop()
        return rows


def run(bench, plan):
    """Rows by name, the profiles in turns."""
    return Apps(bench, plan).run()


def figures(rows):
    out = {}
    for name, measured in rows.items():
        key = name.replace("-", "_").replace(", ", "_")
        for member in measured[0]:
            out[f"get_key_{key}_{member}"] = statistics.median(row[member] for row in measured)
    return out


def print_table(rows):
    columns = ("new_per_s", "new_near_cpu_us", "new_far_cpu_us", "again_per_s", "again_cpu_us")
    print(f"\n{'GET_KEY':16}" + "".join(f"{c:>16}" for c in columns))
    for name, measured in rows.items():
        print(f"{name:16}" + "".join(f"{median(measured, c):16.1f}" for c in columns))
