# SPDX-License-Identifier: Apache-2.0
"""What the checks share: the files of the tree, and how findings are told."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
# The layers from the left to the right of docs/architecture.md; those of one
# row never use each other.
ROWS = [("app",), ("north", "east", "south"), ("core",), ("platform",), ("wire",), ("base",)]
LAYERS = [layer for row in ROWS for layer in row]


def tree():
    """Every file that is, or would be, under version control."""
    try:
        out = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, check=True, capture_output=True).stdout
        names = [ROOT / n for n in out.decode().split("\0") if n]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive
        skip = {"build", ".git", "__pycache__", ".pytest_cache"}
        names = [p for p in ROOT.rglob("*") if not skip & set(p.relative_to(ROOT).parts)]
    return sorted(p for p in set(names) if p.is_file())


def files(folder, *suffixes):
    """The tree's files under a folder; none at all is a finding of its own."""
    base = ROOT / folder
    found = [p for p in tree() if base in p.parents and p.suffix in suffixes]
    if not found:
        sys.exit(f"{folder}: no {' or '.join(suffixes)} file: nothing to check")
    return found


def name(path):
    return str(path.relative_to(ROOT))


def need(path):
    """The text of a file that must be there."""
    try:
        return (ROOT / path).read_text()
    except OSError as e:
        sys.exit(f"{path}: {e.strerror}")


def report(findings):
    for f in findings:
        print(f)
    sys.exit(1 if findings else 0)


def unit_cases():
    """The names of the cases of all unit programs."""
    return {name for path in files("tests/unit", ".c")
            for name in re.findall(r"^(?:static void )?(\w+)\(void \*\*state\)", path.read_text(), re.M)}


def e2e_tests():
    """The names of all end-to-end tests."""
    return {name for path in files("tests/e2e", ".py")
            for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)}
