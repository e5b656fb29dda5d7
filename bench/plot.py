#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""The plots of docs/performance.md out of the bench's JSON: plot.py FULL.JSON [FOLDER].

ratios.svg: each ratio to the ceiling, with the line it has to reach. connections.svg: requests per
second over the number of connections."""

import json
import statistics
import sys
from pathlib import Path

# Name in the JSON, what it is called, its line, and whether more is better.
RATIOS = (
    ("enc_keys_1_cpu", "enc_keys, CPU", 1.35, False),
    ("dec_keys_1_cpu", "dec_keys, CPU", 1.6, False),
    ("dec_keys_1_throughput_64", "dec_keys, throughput", 0.5, True),
    ("handshake_full_cpu", "full handshake, CPU", 0.7, False),
    ("handshake_resumed_cpu", "resumed handshake, CPU", 0.5, False),
)
SERIES = (("ceiling_at_{}", "ceiling", "#888"), ("enc_keys_1_at_{}", "enc_keys", "#1f6fb4"),
          ("dec_keys_1_at_{}", "dec_keys", "#c2551b"))
WIDTH, LEFT, RIGHT = 640, 190, 30


def svg(height, body):
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">\n'
            f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n' + "\n".join(body) + "\n</svg>\n")


def text(x, y, words, anchor="start", colour="#222"):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{words}</text>'


def line(x1, y1, x2, y2, colour, dash=""):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dash}/>'


def ratios(summary):
    """One bar for each; the mark is the line."""
    known = {**summary["more"], **summary["ratios"]}
    most = max(max(known[name], goal) for name, _, goal, _ in RATIOS) * 1.15
    scale = (WIDTH - LEFT - RIGHT) / most
    body, y = [text(LEFT, 20, "ratio to the ceiling; the mark is the line to reach")], 36
    for name, label, goal, more in RATIOS:
        value = known[name]
        good = value >= goal if more else value <= goal
        body.append(text(LEFT - 10, y + 15, label, "end"))
        body.append(f'<rect x="{LEFT}" y="{y}" width="{value * scale:.1f}" height="20" '
                    f'fill="{"#3d8b40" if good else "#c2551b"}"/>')
        body.append(line(LEFT + goal * scale, y - 4, LEFT + goal * scale, y + 24, "#000"))
        body.append(text(LEFT + max(value, goal) * scale + 6, y + 15, f"{value:.2f}"))
        y += 36
    return svg(y + 4, body)


def connections(summary):
    """Requests per second; the counts of connections stand at even distances."""
    results = summary["results"]
    counts = sorted(int(name.rpartition("_")[2]) for name in results if name.startswith("ceiling_at_"))
    lines = [(label, colour, [statistics.median(row["per_s"] for row in results[name.format(n)]) for n in counts])
             for name, label, colour in SERIES]
    most = max(max(values) for _, _, values in lines) * 1.05
    top, bottom, left = 36, 300, 80
    step = (WIDTH - left - RIGHT - 70) / max(len(counts) - 1, 1)

    def x(i):
        return left + i * step

    def y(value):
        return bottom - (bottom - top) * value / most

    body = [text(left, 20, "requests per second over the number of connections")]
    for part in range(5):
        value = most * part / 4
        body += [line(left, y(value), x(len(counts) - 1), y(value), "#ddd"),
                 text(left - 8, y(value) + 4, f"{value / 1000:.0f} k", "end")]
    body += [text(x(i), bottom + 20, str(n), "middle") for i, n in enumerate(counts)]
    for label, colour, values in lines:
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
        body += [f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>',
                 text(x(len(counts) - 1) + 8, y(values[-1]) + 4, label, colour=colour)]
    return svg(bottom + 34, body)


def main():
    if len(sys.argv) not in (2, 3):
        print("usage: plot.py FULL.JSON [FOLDER]", file=sys.stderr)
        return 2
    summary = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(sys.argv[2]) if len(sys.argv) == 3 else Path(__file__).resolve().parents[1] / "docs" / "img"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ratios.svg").write_text(ratios(summary))
    (folder / "connections.svg").write_text(connections(summary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
