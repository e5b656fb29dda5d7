#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Lets calls of a gateway fail, each call site in turn, and says what became of it: make faults.

A call site is a function of the C library or another one, and where it is called from: first the
sites are counted while a network starts, serves and stops, then each fails in each of these phases.
What became of each fault is kept in a file; a sweep that was ended goes on where it was."""

import argparse
import itertools
import math
import multiprocessing
import os
import random
import re
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e"), str(HERE.parent / "demo")]

from control import FOREVER, FUNCTIONS  # noqa: E402
from journal import KIND_OF, Journal  # noqa: E402
from network import build_folder  # noqa: E402
from processes import ProcessFailed  # noqa: E402
from scenario import CASES, Defect, Ended, Scenario  # noqa: E402

PHASES = ("first start", "start", "serve", "reload", "stop")
MANY = 4  # calls of a site beyond which later ones fail too
A_WHILE = 20  # calls that fail in a row, where a fault is to last
DISK = ("files", "SQLite")  # kinds that last until the gateway is killed at once: what it said must be true
MANY_KEYS = 120  # that are asked for at once, more than one lease has
TRIES = 3  # how often a call that did not come is waited for
TOGETHER = 24  # faults that are put in the order of their phases
RESTART = 8  # faults after which at the latest the gateway is started without one
ACCOUNT = 48  # faults after which the network is ended, its accounts looked over, and another made


@dataclass(frozen=True)
class Fault:
    phase: str
    site: object
    error: object
    skip: int = 0
    times: int = 1

    def __str__(self):
        after = f" after {self.skip} calls" if self.skip else ""
        times = {1: "", FOREVER: ", from then on"}.get(self.times, f", {self.times} times")
        return f"{self.phase}: {self.site}: {self.error.name}{after}{times}"


def _later(site, rng):
    """How many calls go well before one fails: of a site that is called often some, more of those
    through which all memory of a library comes."""
    if site.calls <= MANY:
        return ()
    return sorted({rng.randrange(1, site.calls) for _ in range(int(math.log2(site.calls)) - 1)})


def _faults(phase, site, rng, library_share):
    errors = FUNCTIONS[site.function]
    if not site.own and rng.random() >= library_share:
        return
    for error in errors if site.own else (rng.choice(errors),):
        yield Fault(phase, site, error)
    for skip in _later(site, rng):
        yield Fault(phase, site, rng.choice(errors), skip)
    if phase in ("serve", "reload") and site.function != "clock_gettime":
        yield Fault(phase, site, rng.choice(errors),
                    times=FOREVER if KIND_OF[site.function] in DISK else A_WHILE)


def plan(seen, seed, library_share):
    """The faults for the sites that were seen in each phase: the gateway's own calls first, of these the
    first call of each site, then what lasts, then later calls; else in random order, but some of a phase
    in a row. Those of one site are the same whatever else was seen."""
    faults = [fault for phase in PHASES for site in seen[phase]
              for fault in _faults(phase, site, random.Random(f"{seed} {phase} {site}"), library_share)]
    random.Random(seed).shuffle(faults)
    faults.sort(key=lambda fault: (not fault.site.own, fault.skip > 0, fault.times > 1))
    order = {id(fault): (n // TOGETHER, PHASES.index(fault.phase)) for n, fault in enumerate(faults)}
    return sorted(faults, key=lambda fault: order[id(fault)])


def _without(sites, known):
    return {where: site for where, site in sites.items() if where not in known}


class Sweep:
    """One case: its network, made anew after a defect and now and then."""

    def __init__(self, case, folder, pki, restart=RESTART):
        self.case, self.folder, self.pki, self.restart = case, Path(folder), pki, restart
        self.made = self.injected = self.starts = 0
        self.scenario = None
        self.since = []  # faults since the last start without one
        self.last_words = ""  # of a gateway that a library ended
        self.keys = 0

    def _prepare(self):
        self.made += 1
        self.scenario = Scenario(self.case, self.folder / str(self.made), self.pki)
        self.scenario.start_others()

    # --- which calls there are ---------------------------------------------------------------

    def begin(self):
        """The scenario, with everything at work."""
        self._prepare()
        self._again()
        return self.scenario

    def count(self, rounds=2):
        """The call sites of each phase, and the fewest calls of each in a round."""
        self.begin()
        seen = {"first start": self._noted({})}
        for _ in range(rounds):
            self._count_once(seen)
        known = {**seen["start"], **seen["serve"], **seen["reload"], **seen["stop"], **seen["late"]}
        seen["first start"] = _without(seen["first start"], known)
        seen["reload"] = _without(seen["reload"], seen["serve"])
        seen["start"].update(_without(seen.pop("late"), {**seen["start"], **seen["serve"], **seen["reload"]}))
        return {phase: list(seen[phase].values()) for phase in PHASES}

    def _noted(self, before):
        """With the sites that were seen since the last time."""
        for site in self.scenario.control.sites():
            before[site.where] = min(before.get(site.where, site), site, key=lambda s: s.calls)
        self.scenario.control.forget_sites()
        return before

    def _count_once(self, seen):
        s = self.scenario

        def note(phase):
            seen[phase] = self._noted(seen.get(phase, {}))
        s.disturbed()
        note("serve")
        s.reload()
        s.disturbed()
        time.sleep(1)  # for what is done now and then
        note("reload")
        s.stop()
        note("stop")
        s.start()
        note("start")
        s.works()
        note("late")

    # --- one fault -----------------------------------------------------------------------------

    def _again(self, cold=False, crash=None):
        """A start without a fault, after a stop or a crash, by turns where nothing else is said:
        everything works, and nothing was lost, or is delivered once more."""
        s = self.scenario
        self.starts += 1
        if self.starts % 2 if crash is None else crash:
            s.crash()
            s.control.disarm()
        else:
            s.control.disarm()
            s.stop()
        s.control.step_clock(0)
        s.control.freeze_clocks(False)
        if not s.start():
            raise Defect(f"no start without a fault:\n{s.target.log()[-3000:]}")
        if cold:
            return
        try:
            s.fetch_again()
            s.works()
        except Ended as error:
            raise Defect(f"without a fault: {error}") from None
        self.since.clear()

    def inject(self, fault):
        """What became of it; a defect is raised."""
        self.injected += 1
        if self.injected % ACCOUNT == 0:
            self.end()
        for again in range(TRIES):
            outcome = self._checked(replace(fault, skip=fault.skip >> again), again > 0)
            if outcome != "not reached":
                break
        return outcome

    def _checked(self, fault, cold):
        try:
            outcome = self._inject(fault, cold)
            self.since.append(fault)
            if outcome == "library ended it" or len(self.since) >= self.restart:
                self._again()
        except (Defect, AssertionError, ProcessFailed, TimeoutError) as error:
            before = "".join(f"\nsince the last restart: {f}" for f in self.since)
            raise Defect(f"{error}{before}") from None
        return outcome

    def _inject(self, fault, cold):
        self._get_ready(fault, cold)
        s = self.scenario
        s.answers.clear()
        s.library_died = ""
        s.control.arm(fault.site.function, fault.error, fault.site, skip=fault.skip, times=fault.times)
        try:
            outcome = getattr(self, f"_{fault.phase.split()[-1]}")(s, fault)
        except Ended:
            outcome = "ended in order"
        s.control.disarm()
        s.control.step_clock(0)
        s.control.freeze_clocks(False)
        self.last_words = s.library_died
        return "library ended it" if s.library_died else outcome

    def _get_ready(self, fault, cold):
        """Cold: nothing was asked of it since it started."""
        if fault.phase == "first start":
            self.end()
            self._prepare()
            return
        if self.scenario is None:
            self.begin()
        if fault.phase == "start":
            self.scenario.stop()
        elif self.scenario.target.pid is None or cold:
            self._again(cold)

    def _start(self, s, fault):
        if not s.start():
            return "refused to start"
        return self._serve(s, fault)

    def _serve(self, s, fault):
        s.disturbed(fault.times, MANY_KEYS if fault.times == FOREVER else 2)
        if not s.control.fired and not s.ended():
            time.sleep(1)  # for what is done now and then
        return self._lived(s, KIND_OF[fault.site.function] in DISK)

    def _reload(self, s, fault):
        s.reload()
        return self._serve(s, fault)

    def _lived(self, s, crash):
        if s.ended():
            return "ended in order"
        if not s.control.fired:
            return "not reached"
        refused = any(what in (401, 500, 503) or isinstance(what, str) for _, what in s.answers)
        waits = s.waits_for_restart()
        if crash or waits:
            self._again(crash=crash)
        else:
            s.control.disarm()
            s.works()
        return "until a restart" if waits else "answered an error" if refused else "went on"

    def _stop(self, s, _):
        s.stop()
        return "ended in order" if s.control.fired else "not reached"

    def broke(self):
        """After a defect: nothing of this network goes on."""
        if self.scenario is None:
            return
        self.scenario.control.disarm()
        for process in self.scenario.net.processes():
            if process.pid is not None:
                process.kill()
        self.scenario = None
        self.since.clear()

    def end(self):
        """Ends the network; nothing may have been lost."""
        if self.scenario is not None:
            if self.since:
                self._again()
            self.keys += len(self.scenario.ledger.issued)
            self.scenario.end()
            self.scenario = None


class Worker:
    """One of several that take the faults of a case in turn."""

    def __init__(self, sweep, journal, faults, taken, until):
        self.sweep, self.journal, self.faults, self.taken, self.until = sweep, journal, faults, taken, until

    def _next(self):
        with self.taken.get_lock():
            self.taken.value += 1
            return self.faults[self.taken.value - 1] if self.taken.value <= len(self.faults) else None

    def run(self):
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
        try:
            while time.monotonic() < self.until and (fault := self._next()):
                self._try(fault)
            self._guarded("end of the network", self.sweep.end)
        finally:
            self.sweep.broke()

    def _try(self, fault):
        begin, keys = time.monotonic(), self.sweep.keys
        outcome, why = self._guarded(str(fault), lambda: self.sweep.inject(fault))
        if outcome == "library ended it":
            why = {"why": self.sweep.last_words}
        self.journal.note(case=self.sweep.case, fault=str(fault), kind=KIND_OF[fault.site.function], outcome=outcome,
                          seconds=round(time.monotonic() - begin, 1),
                          keys=self.sweep.keys - keys, **why)
        print(f"{outcome:<18}{fault}", flush=True)

    def _guarded(self, what, call):
        """The outcome, and of a defect what there is to know."""
        try:
            return call(), {}
        except (Defect, AssertionError, ProcessFailed, TimeoutError) as defect:
            where = f"{self.sweep.folder}/{self.sweep.made}"
            print(f"DEFECT {self.sweep.case}: {what}\n{defect}\n{where}", flush=True)
            self.sweep.broke()
            return "DEFECT", {"why": str(defect)[-6000:], "where": where}


def _without_count(text):
    return re.sub(" after [0-9]+ calls", " later", text)


def run_case(case, folder, pki, journal, o, until):
    """Plans the faults of a case and injects those that are not in the journal yet."""
    sweep = Sweep(case, folder / case, pki)
    try:
        seen = sweep.count()
        sweep.end()
    finally:
        sweep.broke()
    done = journal.done(case)
    again = {text for text, x in done.items() if o.again and re.search(o.again, x["outcome"])}
    faults = [f for f in plan(seen, o.seed, o.libraries) if re.search(o.only, str(f))]
    others = [other for other in journal.cases() if o.once and other != case]
    elsewhere = {_without_count(text) for other in others for text in journal.planned(other)}
    faults = [f for f in faults if _without_count(str(f)) not in elsewhere]
    rest = [f for f in faults if str(f) not in done or str(f) in again]
    print(f"{case}: {len(faults)} faults at {sum(map(len, seen.values()))} sites, {len(rest)} to do", flush=True)
    if o.list:
        print("\n".join(map(str, rest)))
        return
    journal.note(case=case, plan=[str(f) for f in faults])
    taken = multiprocessing.Value("l", 0)
    several = [Sweep(case, folder / f"{case}-{n}", pki, o.restart) for n in range(o.jobs)]
    workers = [multiprocessing.Process(target=Worker(one, journal, rest, taken, until).run) for one in several]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        sys.exit("a worker failed")


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--case", choices=[*CASES, "all"], default="all")
    options.add_argument("--only", default="", help="a pattern that the fault's text must match")
    options.add_argument("--libraries", type=float, default=0.2, help="share of the sites in libraries")
    options.add_argument("--minutes", type=float, default=1e6)
    options.add_argument("--jobs", type=int, default=1, help="networks side by side")
    options.add_argument("--restart", type=int, default=RESTART, help="faults between two starts without one")
    options.add_argument("--seed", type=int, default=int(os.environ.get("QKDGATE_SEED", random.randrange(2 ** 31))))
    options.add_argument("--journal", help="what became of each fault; goes on where it ends")
    options.add_argument("--again", help="do those again whose outcome matches this pattern")
    options.add_argument("--once", action="store_true", help="not what another case has in its plan")
    options.add_argument("--list", action="store_true", help="only say what would fail")
    options.add_argument("--report", action="store_true", help="only say what the journal has")
    o = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    print(f"QKDGATE_SEED={o.seed}")
    folder = build_folder() / "fault" / f"{os.getpid()}"
    journal = Journal(o.journal or build_folder() / "fault" / f"journal-{o.seed}")
    until = time.monotonic() + 60 * o.minutes
    pki = folder / "pki"
    pki.mkdir(parents=True)
    for case in () if o.report else CASES if o.case == "all" else (o.case,):
        run_case(case, folder, pki, journal, o, until)
    print(journal.report())
    return 1 if any(x["outcome"] == "DEFECT" for case in journal.cases() for x in journal.done(case).values()) else 0


if __name__ == "__main__":
    sys.exit(main())
