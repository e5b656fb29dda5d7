# SPDX-License-Identifier: Apache-2.0
"""For tests/stutter --lines: a plugin of pytest that waits between lines of the tests, more seldom of what
they share. A line waits at most once a test, and none in the loops of processes.py, which wait themselves."""

import os
import random
import sys
import time
from pathlib import Path

import pytest

SEED, PROBABILITY, LOW, HIGH = (float(x) for x in os.environ["QG_STUTTER"].split())
HERE = Path(__file__).resolve().parent
FOLDERS = tuple(f"{HERE / name}{os.sep}" for name in ("e2e", "demo", "docker", "fault"))
SHARED = 0.1  # of the probability
LOOPS = {"wait_for", "probe", "log", "lines", "pid", "_state_of", "_arguments_of"}


class Waits:
    """Of one test, told by its name: the same seed waits at the same lines."""

    def __init__(self, name):
        self._rng = random.Random(f"{SEED} {name}")
        self._seen = set()
        self.said = []

    def __call__(self, frame, event, _):
        code = frame.f_code
        if not code.co_filename.startswith(FOLDERS) or code.co_name in LOOPS:
            return None
        if event == "line" and (at := (code.co_filename, frame.f_lineno)) not in self._seen:
            self._seen.add(at)
            of_test = Path(at[0]).name.startswith("test_")
            if self._rng.random() < PROBABILITY * (1 if of_test else SHARED):
                pause_s = self._rng.uniform(LOW, HIGH)
                self.said.append(f"{Path(at[0]).name}:{at[1]} for {pause_s:.2f} s")
                time.sleep(pause_s)
        return self


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    waits = Waits(item.name)
    sys.settrace(waits)
    try:
        yield
    finally:
        sys.settrace(None)
        item.add_report_section("call", "stutter", "\n".join(waits.said))
