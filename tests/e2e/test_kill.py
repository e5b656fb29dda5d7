# SPDX-License-Identifier: Apache-2.0
"""kill -9 at random moments under load: no key twice, no pair that differs, nothing lost that was
not in a request whose answer was lost.

QKDGATE_KILLS (default 200) and QKDGATE_SEED set how often and which."""

import http.client
import os
import queue
import random
import threading
import time

from ledger import Ledger

KILLS = int(os.environ.get("QKDGATE_KILLS", "200"))
SEED = int(os.environ.get("QKDGATE_SEED") or random.SystemRandom().randrange(2**32))
BROKEN = (OSError, http.client.HTTPException)  # ssl.SSLError is an OSError
SIZES = (64, 128, 256, 256, 256, 512, 1024)


class Load:
    """A master at one node and its slave at the other; both go on over broken connections."""

    def __init__(self, net, ledger, master, slave, seed):
        self.net, self.ledger, self.master, self.slave = net, ledger, master, slave
        self.rng = random.Random(seed)
        self.waiting = queue.Queue()
        self.missing = set()  # dec_keys answered 400 for an ID of which no answer was ever lost
        self.unexpected = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._issue), threading.Thread(target=self._fetch)]

    def _issue(self):
        with self.net.client(self.master, timeout_s=5) as client:
            while not self.ending.is_set():
                number = self.rng.choice((1, 1, 2, 5))
                try:
                    answer = client.enc(f"sae-{self.slave}", number=number, size=self.rng.choice(SIZES))
                except BROKEN:
                    time.sleep(0.01)
                    continue
                if answer.status == 200:
                    keys = answer.keys()
                    self.ledger.issue(keys)
                    self.waiting.put([i for i, _ in keys])
                elif answer.status != 503:
                    self.unexpected.append(f"enc_keys {answer.status} {answer.body!r}")
                time.sleep(0.002 if answer.status == 200 else 0.03)
        self.waiting.put(None)

    def _fetch(self):
        with self.net.client(self.slave, timeout_s=5) as client:
            while (ids := self.waiting.get()) is not None:
                self._fetch_one(client, ids)

    def _fetch_one(self, client, ids):
        """Asks until there is an answer; after a delivery, sometimes once more."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            self.ledger.ask(ids)
            try:
                answer = client.dec(f"sae-{self.master}", *ids)
            except BROKEN as error:
                if not isinstance(error, ConnectionRefusedError):
                    self.ledger.lose(ids)
                time.sleep(0.01)
                continue
            if answer.status == 200:
                self.ledger.deliver(ids, answer.keys())
                if self.rng.random() < 0.3:
                    self._fetch_again(client, ids)
                return
            if answer.status == 400:
                if not self.ledger.lost.intersection(ids):
                    self.missing.update(ids)
                return
            if answer.status != 503:
                self.unexpected.append(f"dec_keys {answer.status} {answer.body!r}")
                return
            time.sleep(0.05)
        self.unexpected.append(f"no answer for {ids} in 30 s")

    def _fetch_again(self, client, ids):
        """A second delivery would be entered in the ledger, which refuses it."""
        try:
            answer = client.dec(f"sae-{self.master}", *ids)
        except BROKEN:
            return
        if answer.status == 200:
            self.ledger.deliver(ids, answer.keys())


def kill_at_random(net, rng, kills):
    """Kills one gateway after the other at a random moment, also while it starts."""
    for _ in range(kills):
        time.sleep(rng.uniform(0, rng.choice((0.1, 0.4, 0.8))))
        victim = net.gateways[rng.choice(sorted(net.gateways))]
        victim.kill()
        time.sleep(rng.choice((0, 0, 0.05)))
        victim.start()


def test_kills_at_random_moments_deliver_nothing_twice_and_nothing_wrong(make_network):
    print(f"QKDGATE_SEED={SEED} QKDGATE_KILLS={KILLS}")
    net = make_network(pool={"ready_chunks": 2048, "inbound_chunks": 65536})
    ledger = Ledger()
    loads = [Load(net, ledger, "alice", "bob", SEED + 1), Load(net, ledger, "bob", "alice", SEED + 2)]
    for load in loads:
        for thread in load.threads:
            thread.start()
    kill_at_random(net, random.Random(SEED), KILLS)
    for gateway in net.gateways.values():
        gateway.wait_ready(30)
    net.wait_stock("alice", "bob", timeout_s=60)
    net.wait_stock("bob", "alice", timeout_s=60)
    time.sleep(1)
    for load in loads:
        load.ending.set()
    for load in loads:
        for thread in load.threads:
            thread.join(90)
    print(f"{len(ledger.issued)} keys issued, {len(ledger.delivered)} delivered, "
          f"{len(ledger.lost)} in requests without an answer")
    ledger.check()
    assert [load.unexpected for load in loads] == [[], []]
    assert [sorted(load.missing)[:10] for load in loads] == [[], []]
    assert len(ledger.delivered) > KILLS  # the load did run between the kills
    assert_exchange(net)


def assert_exchange(net):
    with net.client("alice") as alice, net.client("bob") as bob:
        for master, slave, names in ((alice, bob, ("alice", "bob")), (bob, alice, ("bob", "alice"))):
            keys = master.enc(f"sae-{names[1]}", number=20).keys()
            assert slave.dec(f"sae-{names[0]}", *(i for i, _ in keys)).keys() == keys


def test_killed_simulators_end_epochs_and_key_flows_again(make_network):
    """The links lose their state several times; gateways open new streams by themselves."""
    net = make_network(pool={"ready_chunks": 512, "inbound_chunks": 65536})
    ledger = Ledger()
    for name in ("sim-a", "sim-b", "sim-a"):
        net.sims[name].kill()
        net.sims[name].start()
        net.sims[name].wait_ready()
        goal = len(ledger.delivered) + 1500  # three times what the pool holds
        end = time.monotonic() + 60
        with net.client("alice") as alice, net.client("bob") as bob:
            while len(ledger.delivered) < goal:
                assert time.monotonic() < end, net.gateways["kme-a"].log()[-3000:]
                answer = alice.enc("sae-bob", number=64)
                if answer.status == 503:
                    time.sleep(0.1)
                    continue
                keys = answer.keys()
                ids = [i for i, _ in keys]
                ledger.issue(keys)
                got = bob.dec("sae-alice", *ids)
                assert got.status == 200, got.body
                ledger.deliver(ids, got.keys())
    ledger.check()
