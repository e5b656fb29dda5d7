#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Keys between networks (ETSI GS QKD 020): how many a second, and what CPU the border needs for one.

One gateway with alice, and another network played by this script. `in`: the other one hands over
keys for alice, synchronously. `out`: alice asks for keys for an SAE there, which answers at once.
Throughput is of gateway and player together on the cores there are; CPU is of the gateway alone.
"""

import argparse
import http.client
import json
import shutil
import sys
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True  # leave no __pycache__ behind
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "demo"), str(ROOT / "tests" / "e2e")]

from network import LOOPBACK, Network, Ports, build_folder, complete_pki, make_pki  # noqa: E402
from peer020 import EXT_KEYS, TYPE, Peer, _context, container, new_key  # noqa: E402
from topology import pair  # noqa: E402

FOLDER = build_folder() / "bench" / "transfers"
BATCHES = (1, 128, 1024)


def cpu_seconds(pid):
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


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


def measure(network, peer, way, batch, requests, threads):
    pid = network.gateways["kme-a"].pid
    if way == "in":
        items = [json.dumps(container([new_key() for _ in range(batch)], "sae-zoe", ["sae-alice"])).encode()
                 for _ in range(requests)]
        work = lambda: giver(peer)  # noqa: E731
    else:
        items, work = [batch] * requests, lambda: asker(network)
    in_threads(work, items[:0], threads)
    before = cpu_seconds(pid)
    seconds = in_threads(work, items, threads)
    keys = batch * requests
    return keys / seconds, (cpu_seconds(pid) - before) / keys * 1e6


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--requests", type=int, default=600, help="of one key; of more keys fewer")
    arguments.add_argument("--threads", type=int, default=8)
    options = arguments.parse_args()
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    topology = pair()
    complete_pki(FOLDER / "pki", topology)
    make_pki(FOLDER / "pki", "kme-net1")
    peer = Peer(FOLDER / "pki", "kme-net1")
    peer.on_keys = peer.answer_outcome
    port = Ports().take()
    peer.gateway = (LOOPBACK, port)
    network = Network(topology, FOLDER, tweak=lambda name, config: configure(name, config, peer, port))
    network.prepare()
    network.start()
    try:
        print("| way | keys in a request | keys a second | CPU of the border, µs a key |\n|---|---|---|---|")
        for way in ("in", "out"):
            for batch in BATCHES:
                requests = max(8, options.requests // max(1, batch // 8))
                rate, cpu = measure(network, peer, way, batch, requests, min(options.threads, requests))
                print(f"| {way} | {batch} | {rate:,.0f} | {cpu:,.1f} |", flush=True)
    finally:
        network.stop()
        peer.end()


if __name__ == "__main__":
    main()
