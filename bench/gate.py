#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The gate of `make bench-quick`.

Ratios of the quick run against bench/gate.json: a ratio fails when it is beyond its limit in each of up
to two runs. The limits are what was measured and a margin that noise on a shared machine does not
reach, so they catch what grows by a third and not what grows by a tenth; that is for
instructions.py. Where the machine is too busy for the ceiling to keep its 12 us, ratios say
nothing: then nothing is judged by them, and that is said."""

import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIMITS = json.loads((HERE / "gate.json").read_text())
RUNS = 2
TOO_SLOW = 3  # exit status of run.py


def beyond(ratios):
    """Names of the ratios that are worse than their limit: those of throughput may not be lower."""
    return {name for name, limit in LIMITS.items()
            if (ratios[name] < limit if "throughput" in name else ratios[name] > limit)}


def judge_ratios(folder):
    """Whether some ratio is bad in every run that could be judged."""
    bad, judged = set(LIMITS), 0
    for i in range(RUNS):
        status = subprocess.run([sys.executable, HERE / "run.py", "--quick"], check=False).returncode
        if status not in (0, TOO_SLOW):
            return False
        if status == 0:
            judged += 1
            bad &= beyond(json.loads((folder / "quick.json").read_text())["ratios"])
            if not bad:
                print("gate: no ratio is beyond its limit")
                return True
        print(f"gate: run {i + 1} of {RUNS}: "
              + ("the ceiling was too slow" if status else f"beyond their limits: {', '.join(sorted(bad))}"))
    if judged == 0:
        print("gate: the machine is too busy for ratios: none were judged")
    return judged == 0


def main():
    sys.path.insert(0, str(HERE))
    sys.dont_write_bytecode = True
    import run
    return 0 if judge_ratios(run.FOLDER) else 1


if __name__ == "__main__":
    sys.exit(main())
