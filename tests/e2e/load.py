# SPDX-License-Identifier: Apache-2.0
"""Masters and slaves that pass keys without end while gateways are killed or links cut."""

import http.client
import queue
import random
import threading
import time

BROKEN = (OSError, http.client.HTTPException)  # ssl.SSLError is an OSError
ANSWER_S = 120  # until a gateway that was killed answers again
SIZES = (64, 128, 256, 256, 256, 512, 1024)


class Load:
    """A master at one node and its slave at another; both go on over broken connections. What a
    gateway that was killed in between has lost for good is no fault; all else is."""

    def __init__(self, net, ledger, master, slave, seed):
        self.net, self.ledger, self.master, self.slave = net, ledger, master, slave
        self.rng = random.Random(seed)
        self.waiting = queue.Queue()
        self.missing = set()  # dec_keys answered 400 for an ID of which no answer was ever lost
        self.unexpected = []
        self.ending = threading.Event()
        self._threads = [threading.Thread(target=self._issue), threading.Thread(target=self._fetch)]

    def start(self):
        for thread in self._threads:
            thread.start()

    def join(self, timeout_s):
        for thread in self._threads:
            thread.join(timeout_s)
            assert not thread.is_alive()

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
        end = time.monotonic() + ANSWER_S
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
        self.unexpected.append(f"no answer for {ids} in {ANSWER_S} s")

    def _fetch_again(self, client, ids):
        """A second delivery would be entered in the ledger, which refuses it."""
        try:
            answer = client.dec(f"sae-{self.master}", *ids)
        except BROKEN:
            return
        if answer.status == 200:
            self.ledger.deliver(ids, answer.keys())


def end_all(loads):
    for load in loads:
        load.ending.set()
    for load in loads:
        load.join(3 * ANSWER_S)


def assert_faultless(loads):
    """Every answer was one that may be given, and no key is missing without a reason."""
    assert [load.unexpected for load in loads] == [[] for _ in loads]
    assert [sorted(load.missing)[:10] for load in loads] == [[] for _ in loads]
