# SPDX-License-Identifier: Apache-2.0
"""The book in which tests enter every key handed out and delivered, and what must hold in it."""

import threading
from collections import Counter, defaultdict

CHUNK = 32
MARK = 8  # bytes by which a chunk is told from any other: keys have at least 64 bits


class Ledger:
    def __init__(self):
        self._lock = threading.Lock()
        self.issued = {}                    # key ID -> key
        self.delivered = defaultdict(list)  # key ID -> keys that dec_keys answered with 200
        self._taken = Counter()             # (who, key ID) -> how often it was delivered
        self.asked = Counter()              # dec_keys requests sent per key ID
        self.lost = set()                   # IDs of requests whose answer never came
        self.void = set()                   # IDs of keys that a gateway made void before it gave them out
        self.faults = []

    def issue(self, keys):
        with self._lock:
            for key_id, key in keys:
                if key_id in self.issued:
                    self.faults.append(f"{key_id} issued twice")
                self.issued[key_id] = key

    def ask(self, ids):
        with self._lock:
            self.asked.update(ids)

    def lose(self, ids):
        with self._lock:
            self.lost.update(ids)

    def deliver(self, ids, keys, to=""):
        """`to` tells the slaves of one key apart, each of whom may have it once."""
        with self._lock:
            if [i for i, _ in keys] != list(ids):
                self.faults.append(f"asked for {ids}, got {[i for i, _ in keys]}")
            for key_id, key in keys:
                self.delivered[key_id].append(key)
                self._taken[(to, key_id)] += 1

    def make_void(self, ids):
        with self._lock:
            self.void.update(ids)

    def check(self):
        """No ID or chunk twice, no ID delivered twice to one side, the same key at all ends, nothing void
        given to anybody."""
        faults = list(self.faults)
        faults += [f"{key_id} is void and was given out" for key_id in self.void
                   if key_id in self.issued or key_id in self.delivered]
        faults += [f"{key_id} delivered {n} times" for (_, key_id), n in self._taken.items() if n > 1]
        for key_id, keys in self.delivered.items():
            if key_id not in self.issued:
                faults.append(f"{key_id} delivered, never issued")
            elif any(key != self.issued[key_id] for key in keys):
                faults.append(f"{key_id} differs at the two ends")
        marks = Counter(key[i:i + MARK] for key in self.issued.values()
                        for i in range(0, len(key) - MARK + 1, CHUNK))
        faults += [f"chunk {mark.hex()} issued {n} times" for mark, n in marks.items() if n > 1]
        assert not faults, "\n".join(faults[:20])
