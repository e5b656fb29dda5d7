#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How fast the gateway is, against the ceiling of its libraries: run.py [--quick] [--rounds N]
[--only PART].

Brings up a simulated link and two gateways as the demo does (policy, audit, sealing, full sync),
and the ceiling server. In each round both are measured in turn; what is printed are medians over
the rounds, and of ratios the median of the rounds' own. Results also go to
build/bench/quick.json or full.json.

CPU figures are of the server process alone, client and server on the same core. Throughput and
latency have them on different cores. While requests are measured the links give no key: what
taking it in costs is a figure of its own. As root everything runs in a network namespace of its
own, where no firewall takes part.

The whole run takes at most LONGEST_S: a part that has used its time up does no further round, and one
that does not come to its end is left out, which is told and makes the exit status 1.

Exit 1: something failed. Exit 3: the ceiling was too slow for the ratios to mean anything.
"""

import argparse
import json
import math
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.dont_write_bytecode = True  # leave no __pycache__ behind
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "demo"))

from network import LOOPBACK, Network, Ports, build_folder, complain, make_pki  # noqa: E402
from processes import Process, ProcessFailed, wait_for  # noqa: E402
from topology import pair  # noqa: E402

import apps  # noqa: E402
import pools  # noqa: E402
import profiles  # noqa: E402
import relay  # noqa: E402
import transfers  # noqa: E402

BUILD = build_folder()
FOLDER = BUILD / "bench"
SLOWEST_CEILING_US = 12.0
CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = {CORES[0]}
CLIENT_CORE = {CORES[-1]}
SAME, APART = "same", "apart"

# What a pair of numbers below means: requests and connections.
QUICK = {
    "rounds": 3,
    "get": (10000, 64), "pair_1": (8000, 64), "pair_128": (250, 16), "connect": (150, 8),
    "connections": (64,), "apart_requests": {64: 10000},
    "idle": 500, "half_load": False, "relay": relay.QUICK, "pools": None, "profiles": None,
    "apps": None, "transfers": None,
}
FULL = {
    "rounds": 5,
    "get": (20000, 64), "pair_1": (16000, 64), "pair_128": (500, 16), "connect": (300, 8),
    "connections": (1, 16, 64, 256, 1000),
    "apart_requests": {1: 3000, 16: 10000, 64: 16000, 256: 16000, 1000: 16000},
    "idle": 1000, "half_load": True, "relay": relay.FULL, "pools": pools.FULL,
    "profiles": profiles.FULL, "apps": apps.FULL, "transfers": transfers.FULL,
}


# Seconds of each part of the whole run; what one leaves the next ones have.
SHARES_S = {"gateways": 480, "relay": 360, "profiles": 150, "apps": 90, "transfers": 60, "pools": 300}
GRACE_S = 45  # for the round that a part is in when its time is up
LONGEST_S = sum(SHARES_S.values()) + GRACE_S


def pin(pid, cores):
    """Every thread of a process."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(task.name), cores)


def cpu_seconds(pid):
    """CPU time of all threads so far, finer than clock ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def keys_per_round(plan):
    """Keys that one round takes, both placements."""
    n = plan["pair_1"][0] + 128 * plan["pair_128"][0]
    n += sum(plan["apart_requests"][c] for c in plan["connections"])
    return n + (plan["pair_1"][0] if plan["half_load"] else 0)


class Bench:
    settings = {}  # of the gateways, beside those of the demo

    def __init__(self, plan):
        self.plan = plan
        self.quick = plan["pools"] is None
        self.results = {}  # name: [row of each round]
        self.begin_s, self.until_s = time.monotonic(), math.inf
        self.failed = []   # parts
        self.relay = []    # row of each line of gateways
        self.pools = None  # what a large stock costs
        self.profiles = {}  # profile: [row of each round]
        self.apps = {}      # likewise
        self.transfers = {}
        self.folder = FOLDER
        stock = keys_per_round(plan) * 5 // 4
        self.stock_needed = keys_per_round(plan) * 9 // 8

        def tweak(name, config):
            ready = stock if name == "kme-a" else 16384
            config["pool"] = {"ready_chunks": ready, "inbound_chunks": 4 * stock + 65536}
            config["sae_listener"]["address_handshakes_per_s"] = 0  # all clients are at one address
            config.update(self.settings)

        folder = FOLDER / "network"
        shutil.rmtree(folder, ignore_errors=True)
        make_pki(FOLDER / "pki")
        topology = pair(rate_bps=0, source={"max_bps": 0})
        self.network = Network(topology, folder, pki=FOLDER / "pki", tweak=tweak)
        self.placement = SAME
        pki, ports = self.network.pki, Ports()
        self.ceilings = {}  # server name: (port, process)
        for name, how in (("ceiling", "worker"), ("ceiling_single", "single"),
                          ("ceiling_checking", "checking")):
            port = ports.take()
            self.ceilings[name] = port, Process(folder, name, [
                BUILD / "bench" / "ceiling", how, port, pki / "kme-a.pem", pki / "kme-a.key",
                pki / "ca.pem", pki / "crl.pem"])

    # --- time ----------------------------------------------------------------------------------

    def rounds(self, most):
        """As range, but not beyond the time of the part: one round at least."""
        for i in range(most):
            if i == 0 or time.monotonic() < self.until_s:
                yield i

    def in_time(self, name, work):
        """What the part gives, or None when it fails. A quick run takes the time that it takes."""
        if self.quick:
            return work()
        names = list(SHARES_S)
        self.until_s = self.begin_s + sum(SHARES_S[part] for part in names[:names.index(name) + 1])
        left_s = self.until_s - time.monotonic()
        try:
            if left_s < 1:
                raise TimeoutError("no time left")
            signal.setitimer(signal.ITIMER_REAL, left_s + GRACE_S)
            return work()
        except (ProcessFailed, TimeoutError, OSError, subprocess.SubprocessError) as error:
            complain(f"bench: {name}: {error}")
            self.failed.append(name)
            return None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    # --- bringing up ---------------------------------------------------------------------------

    def start(self):
        """Gateways see one core when they start, and so serve with one thread."""
        self.network.prepare()
        os.sched_setaffinity(0, SERVER_CORE)
        for _, process in self.ceilings.values():
            process.start()
            process.wait_ready()
        self.network.start()
        for sim in self.network.sims.values():
            pin(sim.pid, CLIENT_CORE)
        os.sched_setaffinity(0, set(CORES))

    def stop(self):
        self.network.stop()
        for _, process in self.ceilings.values():
            if process.pid is not None:
                process.stop()

    def gateway(self, name):
        return self.network.gateways[name]

    def stocks(self):
        return self.network.stock("alice", "bob") + self.network.stock("bob", "alice")

    def fill(self):
        """Enough key for a round; nothing more comes in afterwards."""
        if self.network.stock("alice", "bob") < self.stock_needed:
            self.network.outage(False)
            self.network.wait_stock("alice", "bob", self.stock_needed, timeout_s=120)
        self.network.outage(True)
        time.sleep(0.3)

    def measure_intake(self):
        """Chunks that one gateway takes in and confirms, of both streams of the link, by second of
        its CPU."""
        pid = self.gateway("kme-a").pid
        chunks, cpu_s, begin_s = self.stocks(), cpu_seconds(pid), time.monotonic()
        wait_for("the first stock", lambda: self.network.stock("alice", "bob") >= self.stock_needed,
                 120, 0.05)
        chunks, cpu_s = self.stocks() - chunks, cpu_seconds(pid) - cpu_s
        self.note("intake", {"chunks_per_cpu_s": chunks / cpu_s,
                             "chunks_per_s": chunks / (time.monotonic() - begin_s)})

    # --- the load client -------------------------------------------------------------------------

    def note(self, name, row):
        self.results.setdefault(name, []).append(row)

    def load(self, mode, server, requests, connections, *more):
        """Runs the load client; its rows."""
        pki = self.network.pki
        if server in self.ceilings:
            port, process = self.ceilings[server]
            url, pid = f"https://{LOOPBACK}:{port}", process.pid
        else:
            url, pid = self.network.url(server), self.gateway(server).pid
        command = [BUILD / "bench" / "load", mode, "--url", url, "--pid", pid, "--ca", pki / "ca.pem",
                   "--certificate", pki / "alice.pem", "--key", pki / "alice.key",
                   "--requests", requests, "--connections", connections, *more]
        cores = SERVER_CORE if self.placement == SAME else CLIENT_CORE
        return self.command(command, f"{mode} at {server}", cores)

    @staticmethod
    def command(command, what, cores=frozenset(CORES)):
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True,
                              timeout=300, preexec_fn=lambda: os.sched_setaffinity(0, cores))
        if done.returncode != 0:
            raise ProcessFailed(f"the load client failed: {what}")
        return [json.loads(line) for line in done.stdout.splitlines()]

    def path(self, server):
        return "/" if server in self.ceilings else "/api/v1/keys/sae-bob/status"

    def get(self, server, requests, connections, *more):
        return self.load("get", server, requests, connections, "--path", self.path(server), *more)[0]

    def connect(self, server, *more):
        return self.load("connect", server, *self.plan["connect"], "--path", self.path(server), *more)[0]

    def pair(self, keys, requests, connections, *more):
        """Rows of enc_keys and dec_keys; the client compares every key with its twin."""
        pki = self.network.pki
        return self.load("pair", "kme-a", requests, connections, "--keys", keys,
                         "--master", "sae-alice", "--slave", "sae-bob",
                         "--far-url", self.network.url("kme-b"), "--far-pid", self.gateway("kme-b").pid,
                         "--far-certificate", pki / "bob.pem", "--far-key", pki / "bob.key", *more)

    def pair_between(self, network, first, last, master, slave, keys, requests, connections, *more):
        """The same over a network of its own; client and gateways on any core."""
        pki = network.pki
        command = [BUILD / "bench" / "load", "pair", "--url", network.url(first), "--pid",
                   network.gateways[first].pid, "--ca", pki / "ca.pem", "--certificate", pki / f"{master}.pem",
                   "--key", pki / f"{master}.key", "--requests", requests, "--connections", connections,
                   "--keys", keys, "--master", f"sae-{master}", "--slave", f"sae-{slave}",
                   "--far-url", network.url(last), "--far-pid", network.gateways[last].pid,
                   "--far-certificate", pki / f"{slave}.pem", "--far-key", pki / f"{slave}.key", *more]
        return self.command(command, f"pairs from {first} to {last}")

    @staticmethod
    def cpu_seconds(pid):
        return cpu_seconds(pid)

    @staticmethod
    def rss_bytes(pid):
        words = Path(f"/proc/{pid}/statm").read_text().split()
        return int(words[1]) * os.sysconf("SC_PAGE_SIZE")

    # --- one round -------------------------------------------------------------------------------

    def note_pair(self, name, rows):
        for what, row in zip(("enc_keys", "dec_keys"), rows):
            self.note(f"{what}_{name}", row)

    def round_same(self):
        self.placement = SAME
        for how, more in (("full", ()), ("resumed", ("--resume",))):
            self.note(f"ceiling_{how}", self.connect("ceiling", *more))
            self.note(f"handshake_{how}", self.connect("kme-a", *more))
        self.note("ceiling_resumed_checking", self.connect("ceiling_checking", "--resume"))
        self.note("ceiling", self.get("ceiling", *self.plan["get"]))
        self.note("ceiling_single", self.get("ceiling_single", *self.plan["get"]))
        self.note("status", self.get("kme-a", *self.plan["get"]))
        self.note_pair("1", self.pair(1, *self.plan["pair_1"]))
        self.note_pair("128", self.pair(128, *self.plan["pair_128"]))

    def round_apart(self):
        self.placement = APART
        for n in self.plan["connections"]:
            requests = self.plan["apart_requests"][n]
            self.note(f"ceiling_at_{n}", self.get("ceiling", requests, n))
            self.note_pair(f"1_at_{n}", self.pair(1, requests, n))

    def round_half(self):
        """Open loop at half of what each can do with 64 connections."""
        self.placement = APART
        requests = self.plan["pair_1"][0]
        slowest = min(self.median("enc_keys_1_at_64", "per_s"), self.median("dec_keys_1_at_64", "per_s"))
        rate = ("--rate", slowest / 2)
        self.note("ceiling_half", self.get("ceiling", requests, 64, *rate))
        self.note_pair("1_half", self.pair(1, requests, 64, *rate))

    def memory(self):
        self.placement = SAME
        n = self.plan["idle"]
        for server, name in (("ceiling", "idle_ceiling"), ("kme-a", "idle_gateway")):
            row = self.load("idle", server, 1, n, "--path", self.path(server))[0]
            self.note(name, row)

    def run(self):
        self.start()
        self.measure_intake()
        self.memory()
        for i in self.rounds(self.plan["rounds"]):
            self.fill()
            self.round_same()
            self.round_apart()
            if self.plan["half_load"]:
                self.round_half()
            print(f"round {i + 1} of {self.plan['rounds']} done", file=sys.stderr)

    # --- the sum of it ---------------------------------------------------------------------------

    def median(self, name, member):
        return statistics.median(row[member] for row in self.results[name])

    def ratio(self, name, ceiling, member):
        pairs = zip(self.results[name], self.results[ceiling])
        return statistics.median(a[member] / b[member] for a, b in pairs)

    def summary(self):
        cpu = "server_cpu_us"
        ratios = {
            "enc_keys_1_cpu": self.ratio("enc_keys_1", "ceiling", cpu),
            "dec_keys_1_cpu": self.ratio("dec_keys_1", "ceiling", cpu),
            "dec_keys_1_throughput_64": self.ratio("dec_keys_1_at_64", "ceiling_at_64", "per_s"),
            "handshake_full_cpu": self.ratio("handshake_full", "ceiling_full", cpu),
            "handshake_resumed_cpu": self.ratio("handshake_resumed", "ceiling_resumed_checking", cpu),
        }
        figures = {
            "ceiling_us": self.median("ceiling", cpu),
            "enc_keys_128_us_per_key": self.median("enc_keys_128", cpu) / 128,
            "intake_chunks_per_s": self.median("intake", "chunks_per_cpu_s"),
        }
        if self.relay:
            figures["relay_us_per_key_hop"] = relay.hop_us(self.relay)
        if self.pools is not None:
            figures["pool_1e7_vs_1e3_cpu"] = self.pools["enc_keys_cpu"]
        return {"ratios": rounded(ratios), "figures": rounded(figures), "more": rounded(self.more()),
                "rounds": len(self.results["ceiling"]), "failed": self.failed, "cores": len(CORES), "results": self.results,
                "relay": self.relay, "pools": self.pools,
                "profiles": self.profiles, "apps": self.apps, "transfers": self.transfers}

    def more(self):
        """What has no line to reach, and what the figures above rest on."""
        cpu = "server_cpu_us"
        more = {
            "status_cpu": self.ratio("status", "ceiling", cpu),
            "enc_keys_1_throughput_64": self.ratio("enc_keys_1_at_64", "ceiling_at_64", "per_s"),
            "handshake_resumed_unchecked_cpu": self.ratio("handshake_resumed", "ceiling_resumed", cpu),
            "ceiling_single_threaded_us": self.median("ceiling_single", cpu),
            "status_us": self.median("status", cpu),
            "enc_keys_1_us": self.median("enc_keys_1", cpu),
            "dec_keys_1_us": self.median("dec_keys_1", cpu),
            "dec_keys_128_us_per_key": self.median("dec_keys_128", cpu) / 128,
            "handshake_full_us": self.median("handshake_full", cpu),
            "handshake_resumed_us": self.median("handshake_resumed", cpu),
            "idle_connection_bytes": self.median("idle_gateway", "bytes_per_connection"),
            "idle_connection_ceiling_bytes": self.median("idle_ceiling", "bytes_per_connection"),
            "rss_bytes": self.median("idle_gateway", "rss_before"),
        }
        if self.plan["half_load"]:
            more["enc_keys_1_p99_half"] = self.ratio("enc_keys_1_half", "ceiling_half", "p99_us")
            more["dec_keys_1_p99_half"] = self.ratio("dec_keys_1_half", "ceiling_half", "p99_us")
        if self.pools is not None:
            more.update({f"pool_{name}": value for name, value in self.pools.items()})
        more.update(profiles.figures(self.profiles))
        more.update(apps.figures(self.apps))
        more.update(transfers.figures(self.transfers))
        if self.relay:
            more.update(relay.figures(self.relay))
        return more

    def print_table(self, summary):
        columns = ("per_s", "p50_us", "p99_us", "p999_us", "server_cpu_us")
        print(f"{'':22}" + "".join(f"{c:>14}" for c in columns))
        for name, rows in self.results.items():
            if "per_s" in rows[0]:
                print(f"{name:22}" + "".join(f"{self.median(name, c):14.1f}" for c in columns))
        if self.relay:
            relay.print_table(self.relay)
        if self.profiles:
            profiles.print_table(self.profiles)
        if self.apps:
            apps.print_table(self.apps)
        if self.transfers:
            transfers.print_table(self.transfers)
        for part in ("ratios", "figures", "more"):
            print(f"\n{part}")
            for name, value in summary[part].items():
                print(f"  {name:32}{value:14}")


def rounded(values):
    return {k: float(f"{v:.4g}") if v < 1000 else round(v) for k, v in values.items()}


def in_a_namespace():
    """As root: starts this program again where there is no network but its own loopback."""
    inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    if os.geteuid() != 0 or "QKDGATE_BENCH_NETNS" in os.environ:
        return
    if subprocess.run([*inside, "true"], check=False, capture_output=True).returncode == 0:
        os.environ["QKDGATE_BENCH_NETNS"] = "1"
        os.execvp(inside[0], [*inside, sys.executable, *sys.argv])


# In the order in which they are measured.
PARTS = {"relay": relay, "profiles": profiles, "apps": apps, "transfers": transfers, "pools": pools}


def only(bench, name):
    part = PARTS[name]
    rows = part.run(bench, bench.plan[name] or part.QUICK)
    part.print_table(rows)
    summary = {"figures": rounded(part.figures(rows)), "cores": len(CORES), name: rows}
    (FOLDER / f"{name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    return 0


def on_alarm(_signal, _frame):
    raise TimeoutError("no time left")


def gateways(bench):
    try:
        bench.run()
    finally:
        bench.stop()
    return bench.results


def measure(bench, out):
    """Whether there is anything to report. The file has what is there after each part."""
    if bench.in_time("gateways", lambda: gateways(bench)) is None:
        return False
    for name, part in PARTS.items():
        if bench.plan[name] is None:
            continue
        print(f"now {name}", file=sys.stderr)
        rows = bench.in_time(name, lambda part=part, name=name: part.run(bench, bench.plan[name]))
        if rows is not None:
            setattr(bench, name, rows)
        out.write_text(json.dumps(bench.summary(), indent=1) + "\n")
    return True


def report(bench, out):
    summary = bench.summary()
    out.write_text(json.dumps(summary, indent=1) + "\n")
    bench.print_table(summary)
    if summary["figures"]["ceiling_us"] > SLOWEST_CEILING_US:
        complain(f"bench: the ceiling needs more than {SLOWEST_CEILING_US} us: these ratios are worth nothing")
        return 3
    return 1 if bench.failed else 0


def main():
    in_a_namespace()
    parser = argparse.ArgumentParser(description="The gateway's speed against the ceiling of its libraries.")
    parser.add_argument("--quick", action="store_true", help="about a minute")
    parser.add_argument("--rounds", type=int, help="how often everything is measured")
    parser.add_argument("--only", choices=tuple(PARTS), help="this part alone; its results go to PART.json")
    options = parser.parse_args()
    plan = dict(QUICK if options.quick else FULL)
    if options.rounds:
        plan["rounds"] = options.rounds
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    bench = Bench(plan)
    if options.only:
        return only(bench, options.only)
    signal.signal(signal.SIGALRM, on_alarm)
    out = FOLDER / ("quick.json" if options.quick else "full.json")
    return report(bench, out) if measure(bench, out) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ProcessFailed, TimeoutError, OSError, subprocess.SubprocessError) as error:
        complain(f"bench: {error}")
        sys.exit(1)
