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
        self.asked = Counter()              # dec_keys requests sent per key ID
        self.lost = set()                   # IDs of requests whose answer never came
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

    def deliver(self, ids, keys):
        with self._lock:
            if [i for i, _ in keys] != list(ids):
                self.faults.append(f"asked for {ids}, got {[i for i, _ in keys]}")
            for key_id, key in keys:
                self.delivered[key_id].append(key)

    def check(self):
        """No ID or chunk twice, no ID delivered twice, the same key at both ends."""
        faults = list(self.faults)
        for key_id, keys in self.delivered.items():
            if len(keys) > 1:
                faults.append(f"{key_id} delivered {len(keys)} times")
            if key_id not in self.issued:
                faults.append(f"{key_id} delivered, never issued")
            elif keys[0] != self.issued[key_id]:
                faults.append(f"{key_id} differs at the two ends")
        marks = Counter(key[i:i + MARK] for key in self.issued.values()
                        for i in range(0, len(key) - MARK + 1, CHUNK))
        faults += [f"chunk {mark.hex()} issued {n} times" for mark, n in marks.items() if n > 1]
        assert not faults, "\n".join(faults[:20])
