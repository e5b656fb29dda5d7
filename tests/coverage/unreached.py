#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Holds the branches that did not run against those that tests/coverage/unreached explains: every
one of src/core and src/east stands there with a reason, and none that stands there runs. A branch is
found by its file, its function and the text of its line.
usage: unreached.py LINES LIST        the lines of gcovr's JSON
       unreached.py --new LINES LIST  prints what is not listed, as lines of the list"""

import bisect
import json
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

LAYERS = ("src/core/", "src/east/")


@dataclass
class Group:
    """`by_chance`: the order of events decides, so a run may reach it."""

    name: str
    by_chance: bool
    reason: list = field(default_factory=list)


def unreached(path):
    """{(file, function, text): branches that did not run}, and the same for every line with branches."""
    missing, all_lines = Counter(), set()
    for file in json.load(open(path, encoding="utf-8"))["files"]:
        name = file["file"]
        if not name.startswith(LAYERS):
            continue
        text = Path(name).read_text(encoding="utf-8").splitlines()
        starts = sorted((f["lineno"], f["name"]) for f in file["functions"])
        for line in file["lines"]:
            if not line["branches"] or line.get("gcovr/noncode"):
                continue
            at = bisect.bisect_right(starts, (line["line_number"], "~")) - 1
            key = (name, starts[at][1], text[line["line_number"] - 1].strip())
            all_lines.add(key)
            missing[key] += sum(b["count"] == 0 for b in line["branches"])
    return +missing, all_lines


def listed(path):
    """{(file, function, text): (how many branches at most, group)} of the list."""
    entries, group = {}, None
    for number, line in enumerate(open(path, encoding="utf-8"), 1):
        line = line.rstrip("\n")
        if line.startswith("= "):
            name, _, chance = line[2:].partition(", ")
            group = Group(name, chance == "by chance")
        elif line.startswith("  "):
            group.reason.append(line.strip())
        elif line and not line.startswith("#"):
            file, function, count, text = line.split(" ", 3)
            key = (file, function, text)
            if key in entries or not group.reason:
                sys.exit(f"{path}:{number}: {'listed twice' if key in entries else 'a group without a reason'}")
            entries[key] = (int(count), group)
    return entries


def findings(missing, all_lines, entries):
    for key in sorted(missing):
        allowed = entries[key][0] if key in entries else 0
        if missing[key] > allowed:
            yield f"{' '.join(key)}: {missing[key]} branches did not run, {allowed} are explained"
    for key, (_, group) in sorted(entries.items(), key=lambda e: e[0]):
        if key not in all_lines:
            yield f"{' '.join(key)}: explained, and there is no such line"
        elif key not in missing and not group.by_chance:
            yield f"{' '.join(key)}: explained, and it ran"


def main():
    new = sys.argv[1] == "--new"
    missing, all_lines = unreached(sys.argv[-2])
    entries = listed(sys.argv[-1])
    if new:
        for key in sorted(missing):
            if missing[key] > (entries[key][0] if key in entries else 0):
                print(*key[:2], missing[key], key[2])
        return 0
    groups = Counter()
    for key, number in missing.items():
        if key in entries:
            groups[entries[key][1].name] += min(number, entries[key][0])
    for name, number in groups.most_common():
        print(f"  {number:5} branches of core and east did not run: {name}")
    found = list(findings(missing, all_lines, entries))
    for finding in found:
        print(f"FAILED {finding}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
