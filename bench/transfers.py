# SPDX-License-Identifier: Apache-2.0
"""Keys between networks (ETSI GS QKD 020): how many a second, and what CPU the border needs for one. Used by
run.py.

One gateway with alice, and another network played by this script. `in`: the other one hands over
keys for alice, synchronously. `out`: alice asks for keys for an SAE there, which answers at once.
Throughput is of gateway and player together on the cores there are; CPU is of the gateway alone.
"""

import http.client
import json
import shutil
import statistics
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))

from network import LOOPBACK, Network, Ports, complete_pki, make_pki  # noqa: E402
from peer020 import EXT_KEYS, TYPE, Peer, _context, container, new_key  # noqa: E402
from topology import pair  # noqa: E402

BATCHES = (1, 128, 1024)
QUICK = {"requests": 200, "threads": 8, "rounds": 1}
FULL = {"requests": 400, "threads": 8, "rounds": 2}


def configure(name, config, peer, port):
    config["policy"] = [{"master": "sae-zoe", "slaves": ["sae-alice"], "max_keys": 1024}]
    config["pool"] = {"ready_chunks": 16384, "inbound_chunks": 262144}
    if name != "kme-a":
        return
    config["kxi_listener"] = {"listen": f"{LOOPBACK}:{port}", "certificate": "pki/kme-a.pem",
                              "key": "pki/kme-a.key", "ca": "pki/ca.pem"}
    config["limits"] = {"body_bytes": 1048576}
    config["peers"] = [{"id": "net1", "url": peer.url, "certificate": {"dns": "kme-net1.demo"}, "link": "kxi-prime",
                        "mode": "synchronous", "saes": ["sae-zoe"], "reach": ["sae-alice"],
                        "outstanding_keys": 1000000}]


def in_threads(work, items, threads):
    """Shares the items among threads, each with what `work` made for it; the seconds it took."""
    makers = [work() for _ in range(threads)]
    shares = [items[i::threads] for i in range(threads)]
    running = [threading.Thread(target=lambda m=m, s=s: [m(x) for x in s]) for m, s in zip(makers, shares)]
    begin = time.monotonic()
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return time.monotonic() - begin


def giver(peer):
    connection = http.client.HTTPSConnection(*peer.gateway, timeout=120,
                                             context=_context(peer.pki, peer.name, False))

    def give(body):
        connection.request("POST", EXT_KEYS, body, {"Content-Type": TYPE})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 200, text[:300]
    return give


def asker(network):
    client = network.client("alice", timeout_s=120)

    def ask(number):
        answer = client.enc("sae-zoe", number=number, size=256)
        assert answer.status == 200, answer.body
    return ask


def measure(bench, network, peer, way, batch, requests, threads):
    pid = network.gateways["kme-a"].pid
    if way == "in":
        items = [json.dumps(container([new_key() for _ in range(batch)], "sae-zoe", ["sae-alice"])).encode()
                 for _ in range(requests)]
        work = lambda: giver(peer)  # noqa: E731
    else:
        items, work = [batch] * requests, lambda: asker(network)
    in_threads(work, items[:0], threads)
    before = bench.cpu_seconds(pid)
    seconds = in_threads(work, items, threads)
    keys = batch * requests
    return {"keys_per_s": keys / seconds, "cpu_us": (bench.cpu_seconds(pid) - before) / keys * 1e6}


def run(bench, plan):
    """Rows by way and keys in a request, in turns."""
    folder = bench.folder / "transfers"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    topology = pair()
    complete_pki(folder / "pki", topology)
    make_pki(folder / "pki", "kme-net1")
    peer = Peer(folder / "pki", "kme-net1")
    peer.on_keys = peer.answer_outcome
    port = Ports().take()
    peer.gateway = (LOOPBACK, port)
    network = Network(topology, folder, tweak=lambda name, config: configure(name, config, peer, port))
    rows = {}
    network.prepare()
    network.start()
    try:
        for _ in bench.rounds(plan["rounds"]):
            for way in ("in", "out"):
                for batch in BATCHES:
                    requests = max(8, plan["requests"] // max(1, batch // 8))
                    row = measure(bench, network, peer, way, batch, requests, min(plan["threads"], requests))
                    rows.setdefault(f"{way} {batch}", []).append(row)
    finally:
        network.stop()
        peer.end()
    return rows


def figures(rows):
    out = {}
    for name, measured in rows.items():
        key = "transfer_" + name.replace(" ", "_")
        for member in ("keys_per_s", "cpu_us"):
            unit = member.replace("cpu_us", "us_per_key")
            out[f"{key}_{unit}"] = statistics.median(row[member] for row in measured)
    return out


def print_table(rows):
    columns = ("keys_per_s", "cpu_us")
    print(f"\n{'way, keys a request':22}" + "".join(f"{c:>16}" for c in columns))
    for name, measured in rows.items():
        print(f"{name:22}" + "".join(f"{statistics.median(row[c] for row in measured):16.1f}" for c in columns))
