# SPDX-License-Identifier: Apache-2.0
"""What the gateway is for, shown so that nothing easier passes for it."""

import base64
import os
import random
import re
import signal
import socket
import ssl
import threading
import time
from statistics import median

from between import RecordCounter
from ledger import Ledger
from links import database, issue, steady_stock
from processes import wait_for

NOT_FOUND = "one or more keys specified are not found on KME"
PAIRS = int(os.environ.get("QKDGATE_PAIRS", "10000"))


def counts_of(log_line):
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)\b", log_line)}


def test_dec_keys_answers_while_the_other_gateway_stands_still(make_network):
    net = make_network()
    with net.client("alice") as alice, net.client("bob") as bob:
        bob.status("sae-alice")
        keys = issue(alice, number=20)
        net.gateways["kme-a"].signal(signal.SIGSTOP)
        try:
            begin = time.monotonic()
            assert bob.dec("sae-alice", *(i for i, _ in keys[:10])).keys() == keys[:10]
            took = [time.monotonic() - begin]
            for key_id, key in keys[10:]:
                begin = time.monotonic()
                assert bob.get_dec("sae-alice", key_id).keys() == [(key_id, key)]
                took.append(time.monotonic() - begin)
            assert median(took) < 1, took
        finally:
            net.gateways["kme-a"].signal(signal.SIGCONT)


def pass_pairs(net, number, each=100):
    """Hands `number` keys from alice to bob; returns how many matched."""
    ledger = Ledger()
    with net.client("alice") as alice, net.client("bob") as bob:
        for _ in range(number // each):
            answer = alice.enc("sae-bob", number=each)
            assert answer.status == 200, answer.body
            keys = answer.keys()
            ledger.issue(keys)
            ids = [i for i, _ in keys]
            ledger.deliver(ids, bob.dec("sae-alice", *ids).keys())
    ledger.check()
    return len(ledger.delivered)


def test_ten_thousand_pairs_cause_no_message_between_the_gateways(make_network):
    """Keys are in stock, the link stands still: 10,000 pairs pass, and both connections between
    the gateways are counted record by record. Then the daemons' own counters must account for
    every message ever sent: confirmations, hand-overs and the questions of the start."""
    net = make_network(start=False, pool={"ready_chunks": PAIRS + 2000, "inbound_chunks": 4 * PAIRS,
                                          "reserve_percent": 0})
    counters = {}
    for node, neighbour in (("kme-a", "kme-b"), ("kme-b", "kme-a")):
        counters[node] = RecordCounter(net.endpoints[f"{neighbour}/kms"])
        net.put_between(node, neighbour, "https://127.0.0.1:%d" % counters[node].address[1])
    net.start()
    net.wait_stock("alice", "bob", PAIRS + 500, timeout_s=90)
    for pair_ in (("alice", "bob"), ("bob", "alice")):
        steady_stock(net, *pair_)  # the pools are full: nothing waits to be confirmed
    net.outage(True)
    wait_quiet(counters)
    before = {node: counter.records for node, counter in counters.items()}
    assert pass_pairs(net, PAIRS) == PAIRS
    time.sleep(1)
    assert {node: counter.records for node, counter in counters.items()} == before
    net.stop()
    for node in net.gateways:
        check_counts(net, node)
    for counter in counters.values():
        counter.end()


def wait_quiet(counters):
    """Until no record passed for two seconds."""
    last, since = None, time.monotonic()
    def quiet():
        nonlocal last, since
        now = [c.records for c in counters.values()]
        if now != last:
            last, since = now, time.monotonic()
        return time.monotonic() - since > 2
    wait_for("silence between the gateways", quiet, 60, 0.1)


def check_counts(net, node):
    """Every message of the gateway's whole life: a few per segment and per stream, none per key."""
    (line,) = net.gateways[node].lines("event=counts")
    sent = {name.removeprefix("sent_"): n for name, n in counts_of(line).items() if name.startswith("sent_")}
    own = f"{node[-1]}-to-%"
    segments = sum(n // size for n, size in database(
        net, node, f"SELECT next_index, segment_chunks FROM epoch WHERE stream LIKE '{own}'"))
    print(f"{node}: {segments} segments of its own, sent {sent}")
    assert segments > 0
    assert segments - 1 <= sent.pop("new_key_batch") <= 3 * segments + 10  # the last may be cut off by the stop
    assert sum(sent.values()) <= 20


def test_erin_does_not_get_bobs_key_and_bob_does(network, alice, bob, erin):
    (key,) = issue(alice)
    for answer in (erin.get_dec("sae-alice", key[0]), erin.dec("sae-alice", key[0])):
        assert (answer.status, answer.body) == (401, b"")
    assert alice.enc("sae-erin").status == 200  # erin is an allowed SAE
    assert bob.get_dec("sae-alice", key[0]).keys() == [key]


def test_the_pool_drains_to_503_and_refills(make_network):
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 65536})
    ledger = Ledger()
    with net.client("alice") as alice, net.client("bob") as bob:
        for sim in net.sims.values():
            sim.stop()
        answer = drain(alice, bob, ledger)
        assert answer.message == "insufficient key material"
        assert 1 <= int(answer.headers["Retry-After"]) <= 3600
        assert 0 < len(ledger.delivered) <= 4096
        def drained():
            """Also of what was confirmed only now."""
            drain(alice, bob, ledger)
            return alice.status("sae-bob").json["stored_key_count"] < 128
        wait_for("an empty pool", drained, 20)
        for sim in net.sims.values():
            sim.start()
        for sim in net.sims.values():
            sim.wait_ready()
        net.wait_stock("alice", "bob", 200, timeout_s=60)
        keys = issue(alice, number=100)
        ledger.issue(keys)
        ledger.deliver([i for i, _ in keys], bob.dec("sae-alice", *(i for i, _ in keys)).keys())
    ledger.check()


def drain(alice, bob, ledger):
    """Passes keys until the pool is empty; the answer that says so."""
    number = 64
    while True:
        answer = alice.enc("sae-bob", number=number)
        if answer.status == 503:
            if number == 1:
                return answer
            number = 1
            continue
        assert answer.status == 200, answer.body
        keys = answer.keys()
        ledger.issue(keys)
        ledger.deliver([i for i, _ in keys], bob.dec("sae-alice", *(i for i, _ in keys)).keys())


def test_a_key_delivered_before_a_kill_is_not_delivered_after_it(make_network):
    net = make_network()
    gateway = net.gateways["kme-b"]
    with net.client("alice") as alice:
        for _ in range(3):
            keys = issue(alice, number=2)
            with net.client("bob") as bob:
                assert bob.get_dec("sae-alice", keys[0][0]).keys() == keys[:1]
                gateway.kill()
            net.restart("kme-b")
            with net.client("bob") as bob:
                again = bob.get_dec("sae-alice", keys[0][0])
                assert again.status == 400 and again.message == NOT_FOUND
                assert bob.get_dec("sae-alice", keys[1][0]).keys() == keys[1:]


def test_a_mismatched_segment_is_named_and_nothing_wrong_is_delivered(make_network):
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 65536})
    ledger = Ledger()
    with Passers(net, ledger) as passers:
        for sim in ("sim-a", "sim-b"):
            named = len(mismatches(net))
            net.sims[sim].signal(signal.SIGUSR1)
            wait_for(f"mismatch at {sim} named in a log",
                     lambda: passers.step() and len(mismatches(net)) > named, 120)
        delivered = len(ledger.delivered)
        wait_for("keys of later segments",
                 lambda: passers.step() and len(ledger.delivered) > delivered + 4096, 120)
    assert re.search(r"segment=\d+", mismatches(net)[0]), mismatches(net)
    ledger.check()


class Passers:
    """Keys in both directions, up to 128 at a step; an empty pool is no fault."""

    def __init__(self, net, ledger):
        self._ledger = ledger
        self._alice, self._bob = net.client("alice"), net.client("bob")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._alice.close()
        self._bob.close()

    def step(self):
        passed = [pass_some(self._alice, self._bob, ("alice", "bob"), self._ledger),
                  pass_some(self._bob, self._alice, ("bob", "alice"), self._ledger)]
        if not any(passed):
            time.sleep(0.05)
        return True


def mismatches(net):
    return [line for gateway in net.gateways.values() for line in gateway.lines("event=", "mismatch")]


def pass_some(master, slave, names, ledger):
    """How many keys were passed; every one issued has to be delivered."""
    answer = master.enc(f"sae-{names[1]}", number=128)
    if answer.status == 503:
        answer = master.enc(f"sae-{names[1]}", number=8)
    if answer.status == 503:
        return 0
    keys = answer.keys()
    ids = [i for i, _ in keys]
    ledger.issue(keys)
    got = slave.dec(f"sae-{names[0]}", *ids)
    assert got.status == 200, got.body
    ledger.deliver(ids, got.keys())
    return len(ids)


def test_frequent_mismatches_deliver_nothing_wrong(make_network):
    """Every few thousand chunks one end of the link is wrong, for the whole test."""
    net = make_network(start=False, pool={"ready_chunks": 1024, "inbound_chunks": 65536})
    net.sims["sim-b"].arguments += ["--mismatch-every", "1500"]
    net.start()
    ledger = Ledger()
    with Passers(net, ledger) as passers:
        wait_for("5000 keys", lambda: passers.step() and len(ledger.delivered) >= 5000, 120, 0)
    ledger.check()
    assert mismatches(net)


def test_no_delivered_key_is_found_in_any_file(make_network):
    """Raw, hex and base64, in every file of the network, while it runs and after it stopped."""
    net = make_network(tweak=lambda name, config: config["log"].update(level="debug"))
    keys = []
    with net.client("alice") as alice, net.client("bob") as bob, net.client("dave") as dave:
        for size in (128, 256, 512):
            got = issue(alice, number=40, size=size)
            assert bob.dec("sae-alice", *(i for i, _ in got)).status == 200
            keys += [key for _, key in got]
        same = issue(alice, "sae-dave", 10)
        assert dave.dec("sae-alice", *(i for i, _ in same)).status == 200
        keys += [key for _, key in same]
        keys += [key for _, key in issue(alice, number=10)]  # not fetched
    time.sleep(2.5)
    assert scan(net.folder, keys) == []
    net.stop()
    assert scan(net.folder, keys) == []
    planted = net.folder / "planted"
    planted.write_text("x" * 100 + keys[7].hex())
    assert scan(net.folder, keys) == [planted]  # the search does find what is there


def scan(folder, keys):
    """The files in which any key stands in any of the forms."""
    found = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            continue  # a temporary one that was renamed meanwhile
        lower = data.lower()
        if any(key in data or key.hex().encode() in lower or encoded(key) in data
               or base64.b64encode(key).rstrip(b"=") in data for key in keys):
            found.append(path)
    return found


def encoded(key):
    return base64.urlsafe_b64encode(key).rstrip(b"=")


def client_hello():
    """The first flight of a TLS client, and nothing after it."""
    out = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost")
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return out.read()


def test_fifty_stalled_handshakes_cost_little(make_network):
    net = make_network(pool={"ready_chunks": 1024, "inbound_chunks": 65536})
    gateway = net.gateways["kme-a"]
    net.outage(True)
    time.sleep(1)
    hello = client_hello()
    stalled = []
    for _ in range(50):
        sock = socket.create_connection(net.endpoints["kme-a/sae"], timeout=60)
        sock.sendall(hello)
        stalled.append(sock)
    time.sleep(1)
    before, begin = gateway.cpu_seconds(), time.monotonic()
    time.sleep(5)
    share = (gateway.cpu_seconds() - before) / (time.monotonic() - begin)
    with net.client("alice") as alice:
        issue(alice)
    for sock in stalled:
        sock.close()
    assert share < 0.15, f"{share:.1%} of a core"


def test_ten_thousand_keys_fetched_concurrently_at_both_ends(make_network):
    """Both directions at once, several connections at each end, keys of several sizes."""
    net = make_network(pool={"ready_chunks": 16384, "inbound_chunks": 262144}, stock=4000)
    ledger = Ledger()
    workers = [threading.Thread(target=exchange, args=(net, ledger, *who, PAIRS // 6, seed))
               for seed, who in enumerate([("alice", "bob"), ("bob", "alice"), ("dave", "bob"),
                                           ("bob", "dave"), ("alice", "erin"), ("erin", "dave")])]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ledger.check()
    assert len(ledger.delivered) == len(ledger.issued) >= PAIRS // 6 * 6


def exchange(net, ledger, master, slave, number, seed):
    """Passes keys one to eight at a time until `number` matched at both ends."""
    rng = random.Random(seed)
    done = 0
    with net.client(master) as m, net.client(slave) as s:
        while done < number:
            n = rng.choice((1, 1, 2, 8, 32))
            answer = m.enc(f"sae-{slave}", number=n, size=rng.choice((64, 128, 256, 256, 256, 512)))
            if answer.status == 503:
                time.sleep(0.1)
                continue
            keys = answer.keys()
            ids = [i for i, _ in keys]
            ledger.issue(keys)
            rng.shuffle(ids)
            got = s.dec(f"sae-{master}", *ids)
            if got.status != 200:
                ledger.faults.append(f"{slave} got {got.status} {got.body!r}")
                return
            ledger.deliver(ids, got.keys())
            done += n
