# SPDX-License-Identifier: Apache-2.0
"""What became of each fault: a file of lines that a sweep goes on from, and the table made of it."""

import json
from collections import Counter
from pathlib import Path

from control import FUNCTIONS

KINDS = {  # of the table in docs/testing.md
    "memory": ("malloc", "calloc", "realloc", "reallocarray", "strdup", "strndup", "vasprintf", "open_memstream",
               "sodium_malloc", *(f for f in FUNCTIONS if f.startswith("json")),
               "MHD_create_response_from_buffer", "MHD_create_response_from_buffer_with_free_callback_cls",
               "MHD_add_response_header", "MHD_queue_response"),
    "files": ("open", "read", "pread", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "flock",
              "fcntl", "unlink", "statvfs", "opendir"),
    "SQLite": tuple(f for f in FUNCTIONS if f.startswith("sqlite3")),
    "GnuTLS": tuple(f for f in FUNCTIONS if f.startswith("gnutls")),
    "curl": tuple(f for f in FUNCTIONS if f.startswith("curl")),
    "descriptors, sockets": ("socket", "accept4", "bind", "listen", "connect", "setsockopt", "send", "sendmsg",
                             "recv", "epoll_create1", "epoll_ctl", "epoll_wait", "poll", "eventfd", "getsockname",
                             "getaddrinfo"),
    "threads": ("pthread_create",),
    "clocks": ("clock_gettime",),
}
KIND_OF = {function: kind for kind, functions in KINDS.items() for function in functions}
assert set(KIND_OF) == set(FUNCTIONS)
OUTCOMES = ("went on", "answered an error", "until a restart", "refused to start", "ended in order",
            "library ended it", "not reached", "DEFECT")


class Journal:
    """Lines of JSON in one file, to which several processes append."""

    def __init__(self, path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def note(self, **what):
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")

    def _lines(self):
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def done(self, case):
        """Of each fault that was tried, by its text, what came of it last."""
        return {x["fault"]: x for x in self._lines() if x.get("case") == case and "fault" in x}

    def planned(self, case):
        """The texts of all faults that were ever planned."""
        return {text for x in self._lines() if x.get("case") == case for text in x.get("plan", ())}

    def cases(self):
        return sorted({x["case"] for x in self._lines()})

    def keys(self):
        return sum(x.get("keys", 0) for x in self._lines())

    def report(self):
        """A table for each case, one of all, and how many of how many."""
        total, parts = Counter(), []
        for case in self.cases():
            done, planned = self.done(case), self.planned(case)
            counts = Counter((x["kind"], x["outcome"]) for x in done.values())
            total += counts
            own = [sum(".so" not in text for text in some) for some in (done, planned | set(done))]
            parts.append(f"{case}: {len(done)} of {len(planned | set(done))} faults, "
                         f"{own[0]} of {own[1]} at calls of its own\n{_table(counts)}")
        parts.append(f"all: {sum(total.values())} faults, {self.keys()} keys passed\n{_table(total)}")
        return "\n\n".join(parts)


def _table(counts):
    lines = ["| kind | " + " | ".join(("faults", *OUTCOMES)) + " |", "|---" * (len(OUTCOMES) + 2) + "|"]
    for kind in KINDS:
        row = [counts[(kind, outcome)] for outcome in OUTCOMES]
        lines.append(f"| {kind} | " + " | ".join(map(str, (sum(row), *row))) + " |")
    return "\n".join(lines)
