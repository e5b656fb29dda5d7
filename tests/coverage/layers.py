# SPDX-License-Identifier: Apache-2.0
"""Adds up a summary of gcovr per layer and holds it against the least lines in per cent.
usage: layers.py SUMMARY MINIMUM"""

import json
import sys

COUNTS = ("line_covered", "line_total", "branch_covered", "branch_total")


def least(path):
    lines = (line.split() for line in open(path, encoding="ascii") if not line.startswith("#"))
    return {layer: float(per_cent) for layer, per_cent in lines}


def layers(path):
    sums = {}
    for file in json.load(open(path, encoding="utf-8"))["files"]:
        parts = file["filename"].split("/")
        if parts[0] == "src" and len(parts) > 2:
            counts = sums.setdefault(parts[1], dict.fromkeys(COUNTS, 0))
            for name in COUNTS:
                counts[name] += file[name]
    return sums


def main():
    limits = least(sys.argv[2])
    low = []
    for layer, c in sorted(layers(sys.argv[1]).items()):
        lines = 100 * c["line_covered"] / max(c["line_total"], 1)
        branches = 100 * c["branch_covered"] / max(c["branch_total"], 1)
        limit = limits.pop(layer, 0)
        if lines < limit:
            low.append(layer)
        print(f"{'FAILED' if lines < limit else 'ok    '} src/{layer}: lines {lines:.1f} % of {c['line_total']}"
              f" (at least {limit:.0f} %), branches {branches:.1f} % of {c['branch_total']}")
    for layer in limits:
        print(f"FAILED src/{layer}: nothing of it was measured")
    return 1 if low or limits else 0


if __name__ == "__main__":
    sys.exit(main())
