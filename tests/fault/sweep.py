#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Lets calls of a gateway fail, each call site in turn, and says what became of it: make faults.

A call site is a function of the C library or another one, and where it is called from: first the
sites are counted while a network starts, serves and stops, then each fails in each of these phases.
Calls of the program itself are swept whole; those of libraries, told apart by the address that calls,
are sampled."""

import argparse
import os
import random
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "demo")]

from control import FUNCTIONS  # noqa: E402
from network import build_folder  # noqa: E402
from scenario import CASES, Defect, Scenario  # noqa: E402

PHASES = ("start", "serve", "stop")
KINDS = {  # of the table in docs/testing.md
    "memory": ("malloc", "calloc", "realloc", "reallocarray", "strdup", "open_memstream", "sodium_malloc",
               "MHD_create_response_from_buffer", "MHD_create_response_from_buffer_with_free_callback_cls",
               "MHD_add_response_header", "MHD_queue_response"),
    "files": ("open", "read", "pread", "write", "pwrite", "fsync", "fdatasync", "ftruncate", "rename", "flock",
              "fcntl"),
    "SQLite": tuple(f for f in FUNCTIONS if f.startswith("sqlite3")),
    "GnuTLS": tuple(f for f in FUNCTIONS if f.startswith("gnutls")),
    "curl": tuple(f for f in FUNCTIONS if f.startswith("curl")),
    "descriptors, sockets": ("socket", "accept4", "bind", "listen", "connect", "setsockopt", "send", "sendmsg",
                             "recv", "epoll_create1", "epoll_ctl", "eventfd"),
    "threads": ("pthread_create",),
}
KIND_OF = {function: kind for kind, functions in KINDS.items() for function in functions}
MANY = 4  # calls of a site beyond which a later one fails too
A_WHILE = 20  # calls that fail in a row, where a fault is to last


@dataclass(frozen=True)
class Fault:
    phase: str
    site: object
    error: object
    skip: int = 0
    times: int = 1

    def __str__(self):
        after = f" after {self.skip} calls" if self.skip else ""
        times = f", {self.times} times" if self.times > 1 else ""
        return f"{self.phase}: {self.site}: {self.error.name}{after}{times}"




def plan(seen, rng, library_share):
    """The faults for the sites that were seen in each phase, in random order."""
    faults = []
    for phase in PHASES:
        for site in seen[phase]:
            if not site.own and rng.random() >= library_share:
                continue
            errors = FUNCTIONS[site.function]
            for error in errors if site.own else (rng.choice(errors),):
                faults.append(Fault(phase, site, error))
            if site.own and site.calls > MANY:
                faults.append(Fault(phase, site, rng.choice(errors), rng.randrange(1, site.calls)))
            if site.own and phase == "serve":
                faults.append(Fault(phase, site, rng.choice(errors), times=A_WHILE))
    rng.shuffle(faults)
    return faults


class Sweep:
    """One case: its network, made anew after a defect."""

    def __init__(self, case, folder, pki, rng):
        self.case, self.folder, self.pki, self.rng = case, Path(folder), pki, rng
        self.made = 0
        self.scenario = None
        self.keys = 0

    def _network(self):
        self.made += 1
        self.scenario = Scenario(self.case, self.folder / str(self.made), self.pki)
        self.scenario.start_network()

    def count(self):
        """The call sites of each phase."""
        self._network()
        s, seen = self.scenario, {}
        seen["start"] = s.control.sites()
        s.control.forget_sites()
        s.disturbed()
        seen["serve"] = s.control.sites()
        s.control.forget_sites()
        s.stop()
        seen["stop"] = s.control.sites()
        self._again()
        return seen

    def _again(self):
        """A start without a fault: everything works, and nothing was lost."""
        self.scenario.control.disarm()
        if not self.scenario.start():
            raise Defect(f"no start without a fault:\n{self.scenario.target.log()[-3000:]}")
        self.scenario.works()

    def inject(self, fault):
        """What became of it; a defect is raised."""
        s = self.scenario
        if s is None:
            self._network()
            s = self.scenario
        s.answers.clear()
        s.library_died = False
        if fault.phase == "start":
            s.stop()
        s.control.arm(fault.site.function, fault.error, fault.site, skip=fault.skip, times=fault.times)
        outcome = getattr(self, f"_{fault.phase}")(s)
        fired = s.control.fired
        s.stop()
        self._again()
        return "library ended it" if s.library_died else outcome if fired else "not reached"

    @staticmethod
    def _start(s):
        if not s.start():
            return "refused to start"
        s.disturbed()
        return Sweep._lived(s)

    @staticmethod
    def _serve(s):
        s.disturbed()
        return Sweep._lived(s)

    @staticmethod
    def _lived(s):
        if s.ended():
            return "ended in order"
        if not s.control.fired:
            return "not reached"
        s.control.disarm()
        if s.waits_for_restart():
            return "until a restart"
        s.works()
        refused = any(what in (401, 500, 503) or isinstance(what, str) for _, what in s.answers)
        return "answered an error" if refused else "went on"

    @staticmethod
    def _stop(s):
        s.stop()
        return "ended in order"

    def broke(self):
        """After a defect: nothing of this network goes on."""
        if self.scenario is None:
            return
        self.scenario.control.disarm()
        for process in self.scenario.net.processes():
            if process.pid is not None:
                process.kill()
        self.scenario = None

    def end(self):
        if self.scenario is not None:
            self.keys += len(self.scenario.ledger.issued)
            self.scenario.end()
            self.scenario = None


def run(sweep, faults, until, tell):
    """Injects until the time; outcomes by kind, and the defects."""
    outcomes, defects = {}, []
    for fault in faults:
        if time.monotonic() >= until:
            break
        try:
            outcome = sweep.inject(fault)
        except (Defect, AssertionError) as defect:
            outcome = "DEFECT"
            defects.append((fault, defect))
            tell(f"DEFECT {sweep.case}: {fault}\n{defect}\n{sweep.folder}/{sweep.made}")
            sweep.broke()
        except Exception:
            sweep.broke()
            raise
        outcomes.setdefault(KIND_OF[fault.site.function], Counter())[outcome] += 1
        tell(f"{outcome:<18}{fault}")
    return outcomes, defects


def table(outcomes):
    columns = ("went on", "answered an error", "until a restart", "refused to start", "ended in order", "library ended it", "not reached", "DEFECT")
    lines = ["| kind | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for kind in KINDS:
        row = outcomes.get(kind, Counter())
        lines.append(f"| {kind} | " + " | ".join(str(row[c]) for c in columns) + " |")
    return "\n".join(lines)


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--case", choices=[*CASES, "all"], default="all")
    options.add_argument("--only", default="", help="a pattern that the fault's text must match")
    options.add_argument("--libraries", type=float, default=0.2, help="share of the sites in libraries")
    options.add_argument("--minutes", type=float, default=1e6)
    options.add_argument("--seed", type=int, default=int(os.environ.get("QKDGATE_SEED", random.randrange(2 ** 31))))
    options.add_argument("--list", action="store_true", help="only say what would fail")
    o = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    print(f"QKDGATE_SEED={o.seed}")
    folder = build_folder() / "fault" / f"{os.getpid()}"
    until = time.monotonic() + 60 * o.minutes
    total, defects, sites, keys = {}, [], 0, 0
    for case in CASES if o.case == "all" else (o.case,):
        rng = random.Random(f"{o.seed} {case}")
        sweep = Sweep(case, folder / case, None, rng)
        try:
            seen = sweep.count()
            sites += sum(s.own for found in seen.values() for s in found)
            faults = [f for f in plan(seen, rng, o.libraries) if re.search(o.only, str(f))]
            print(f"{case}: {len(faults)} faults", flush=True)
            if o.list:
                print("\n".join(map(str, faults)))
                continue
            outcomes, found = run(sweep, faults, until, lambda text: print(text, flush=True))
            for kind, counts in outcomes.items():
                total.setdefault(kind, Counter()).update(counts)
            defects += [(case, *d) for d in found]
        except BaseException:
            sweep.broke()
            raise
        finally:
            sweep.end()
            keys += sweep.keys
    print(table(total))
    print(f"{sum(sum(c.values()) for c in total.values())} faults at {sites} sites of its own, {keys} keys passed, "
          f"{len(defects)} defects")
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())
