#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Instructions of the gateway by request, counted by callgrind on fixed scripts of requests:
instructions.py [--save] [--keep]. The noise-free figure: other users of the machine do not change it.

Each script is run with two numbers of requests; what it takes by request is the difference by the
difference, so that start, handshakes and timers drop out as far as they do not grow. Compared with
bench/instructions.json, which --save writes anew. --keep leaves callgrind's files for callgrind_annotate."""

import argparse
import json
import os
import re
import resource
import subprocess
import sys

sys.dont_write_bytecode = True  # leave no __pycache__ behind
import run  # noqa: E402  also finds the modules of the demo
from network import complain, make_pki  # noqa: E402
from processes import ProcessFailed  # noqa: E402

BASELINE = run.Path(__file__).with_suffix(".json")
TOLERANCE = 0.10  # above the baseline
WAIT_S = 120      # callgrind is some fifty times slower

# Requests of the short and of the long script, connections, keys by request.
SCRIPTS = {
    "enc_keys_1": (200, 1200, 4, 1),
    "dec_keys_1": (200, 1200, 4, 1),
    "enc_keys_128": (4, 24, 1, 128),
    "dec_keys_128": (4, 24, 1, 128),
    "handshake_full": (10, 40, 1, 0),
    "handshake_resumed": (10, 40, 1, 0),
}


class Counted(run.Bench):
    """A pair of gateways, one of them under callgrind."""

    settings = {"process": {"sandbox": False}}  # valgrind does not know the call

    def __init__(self, name):
        plan = dict(run.QUICK, rounds=1, get=(0, 0), pair_1=(2000, 4), pair_128=(40, 1), connections=())
        super().__init__(plan)
        self.counted = name
        self.out = self.folder / f"callgrind.{name}"
        for old in self.folder.glob(f"callgrind.{name}*"):
            old.unlink()
        process = self.network.gateways[name]
        process.arguments = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--separate-threads=no",
                             f"--callgrind-out-file={self.out}", *process.arguments]

    def control(self, *options):
        subprocess.run(["callgrind_control", *options, str(self.gateway(self.counted).pid)], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=WAIT_S)

    def count(self, what, requests, connections, keys):
        """Instructions while the script runs."""
        self.control("-z")
        self.control("-i", "on")
        if keys > 0:
            self.pair(keys, requests, connections)
        else:
            self.load("connect", self.counted, requests, connections, "--path", self.path(self.counted),
                      *(["--resume"] if what.endswith("resumed") else []))
        self.control("-i", "off")
        before = set(self.folder.glob(f"callgrind.{self.counted}.*"))
        self.control(f"--dump={what}")
        new = set(self.folder.glob(f"callgrind.{self.counted}.*")) - before
        return sum(int(re.search(r"^totals: (\d+)", p.read_text(), re.M)[1]) for p in new)


def measure(name, scripts):
    bench = Counted(name)
    out = {}
    try:
        bench.start()
        bench.fill()
        for what in scripts:
            short, long, connections, keys = SCRIPTS[what]
            counts = [bench.count(what, n, connections, keys) for n in (short, long)]
            out[what] = round((counts[1] - counts[0]) / (long - short))
    finally:
        bench.stop()
    return out


def main():
    run.in_a_namespace()
    parser = argparse.ArgumentParser(description="Instructions by request, against the committed baseline.")
    parser.add_argument("--save", action="store_true", help="make these the baseline")
    parser.add_argument("--keep", action="store_true", help="keep callgrind's files")
    parser.add_argument("--only", help="one script")
    options = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    os.makedirs(run.FOLDER, exist_ok=True)
    make_pki(run.FOLDER / "pki")
    counted = {}
    for name, far in (("kme-a", False), ("kme-b", True)):
        scripts = [s for s in SCRIPTS if s.startswith("dec") == far and options.only in (None, s)]
        if scripts:
            counted.update(measure(name, scripts))
    base = json.loads(BASELINE.read_text()) if BASELINE.exists() else {}
    bad = []
    for what, n in counted.items():
        print(f"{what:24}{n:14}{base.get(what, 0):14}")
        if n > base.get(what, 0) * (1 + TOLERANCE):
            bad.append(what)
    if options.save:
        BASELINE.write_text(json.dumps({**base, **counted}, indent=1) + "\n")
    elif bad:
        complain(f"bench: more instructions than {BASELINE.name} allows: {', '.join(bad)}")
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ProcessFailed, TimeoutError, OSError, subprocess.SubprocessError) as error:
        complain(f"bench: {error}")
        sys.exit(1)
