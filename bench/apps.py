# SPDX-License-Identifier: Apache-2.0
"""GET_KEY for applications over each profile of ETSI GS QKD 004 that answers it: chunks per second, and CPU of
the gateways for each. Used by run.py.

Two gateways over a simulated link that gives key as fast as it is taken. Of each chunk one application has it
first ("new": drawn, told to the other gateway, stored at both, and given out at one), and gets it again ("again":
from what the gateway holds). The client is one Python thread on the same machine, with up to 64 requests under
way where the profile stays connected: chunks per second are what it can take, CPU is the gateways' own."""

import json
import shutil
import statistics
import sys
import time
import uuid
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from app004 import App  # noqa: E402
from network import Network  # noqa: E402
from processes import wait_for  # noqa: E402
from profiles import cpu_seconds, median  # noqa: E402
from topology import pair  # noqa: E402

AT_ONCE = 64
PROFILES = {  # name in the table: (dialect, over TLS, part of the plan's chunks)
    "bin-a": ("a", True, 1 / 32),  # a connection for each chunk
    "bin-b": ("b", True, 1),
    "bin-b, plain": ("b", False, 1),
    "json, plain": ("json", False, 1),
}
QUICK = {"chunks": 16384, "rounds": 1}
FULL = {"chunks": 65536, "rounds": 2}


class JsonApp(App):
    """The profile json: objects without framing, asked for one after the other's answer was read."""

    def call(self, command, data):
        self.send(json.dumps({"command": command, "data": data}, separators=(",", ":")).encode())
        while True:
            self._read += self._sock.recv(65536)
            try:
                answer = json.loads(self._read)
            except ValueError:
                continue
            self._read = b""
            return answer

    def open_stream(self, source, destination, ksid=None):
        data = {"source": source, "destination": destination, "qos": {"key_chunk_size": 32, "ttl": 600}}
        if ksid:
            data["key_stream_id"] = str(uuid.UUID(bytes=ksid))
        answer = self.call("OPEN_CONNECT", data)
        return answer["status"], uuid.UUID(answer["key_stream_id"]).bytes

    def take(self, ksid, first, count):
        name = str(uuid.UUID(bytes=ksid))
        for index in range(first, first + count):
            if self.call("GET_KEY", {"key_stream_id": name, "index": index})["status"]:
                raise TimeoutError(f"no chunk {index}")


class BinApp(App):
    def open_stream(self, source, destination, ksid=None):
        answer = self.open(source, destination, ksid)
        return answer.status, answer.ksid

    def take(self, ksid, first, count):
        if self.dialect == "a":
            answers = (self.get(ksid, index) for index in range(first, first + count))
        else:
            answers = self.get_many(ksid, first, count)
        for answer in answers:
            if answer.status:
                raise TimeoutError(f"no chunk {answer.index}: status {answer.status}")


class Apps:
    """Two gateways; `bench` lends its folder."""

    def __init__(self, bench, plan):
        self.plan = plan
        folder = bench.folder / "apps"
        shutil.rmtree(folder, ignore_errors=True)
        self.network = Network(pair(rate_bps=0, source={"max_bps": 0}), folder, pki=bench.folder / "pki",
                               tweak=self.tweak)

    @staticmethod
    def tweak(_name, config):
        config["pool"] = {"ready_chunks": 32768, "inbound_chunks": 1048576}
        config["app_streams"] = {"max_bps": 4_000_000_000, "held_bytes": 268435456}

    def app(self, name, dialect, tls):
        node = self.network.topology.home(name)
        kind = JsonApp if dialect == "json" else BinApp
        return kind(self.network.endpoints[f"{node.name}/app"], self.network.pki if tls else None, name, dialect)

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
        dialect, tls, part = PROFILES[name]
        count = int(self.plan["chunks"] * part)
        alice, bob = self.app("alice", dialect, tls), self.app("bob", dialect, tls)
        uris = [s.uri(self.network.topology.home(s.name))
                for s in self.network.topology.saes() if s.name in ("alice", "bob")]
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
            for _ in range(self.plan["rounds"]):
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
