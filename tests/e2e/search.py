# SPDX-License-Identifier: Apache-2.0
"""Looks for pieces of keys: any eight bytes in a row, raw, in hex or in base64."""

import base64
import re

PIECE = 8
EMPTY = bytes(4096)
LARGEST = 1 << 30  # of a piece of memory; what is larger belongs to a sanitizer
HEX = re.compile(rb"[0-9A-Fa-f]{16,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{12,}")


def pieces(keys):
    """Every piece of every key as the number that words() sees."""
    found = set()
    for key in keys:
        found |= words(key)
    return found


def words(data):
    """Every piece of the data as a number."""
    found = set()
    for shift in range(PIECE):
        whole = (len(data) - shift) // PIECE * PIECE
        if whole > 0:
            found.update(memoryview(data)[shift:shift + whole].cast("Q"))
    return found


def holds(wanted, data):
    """Those of the wanted pieces that stand in the data, raw."""
    found = set()
    for shift in range(PIECE):
        whole = (len(data) - shift) // PIECE * PIECE
        if whole > 0:
            found.update(wanted.intersection(memoryview(data)[shift:shift + whole].cast("Q")))
    return found


def decoded(data):
    """What the data is when read as hex or as base64, from wherever a group may begin."""
    for run in HEX.findall(data):
        for shift in range(2):
            yield bytes.fromhex(run[shift:len(run) - (len(run) - shift) % 2].decode())
    for run in BASE64.findall(data):
        run = run.translate(bytes.maketrans(b"-_", b"+/"))
        for shift in range(4):
            whole = run[shift:shift + (len(run) - shift) // 4 * 4]
            yield base64.b64decode(whole)


def holds_in_any_form(wanted, data):
    return holds(wanted, data) or holds(wanted, b"".join(b"\0" * PIECE + d for d in decoded(data)))


def files_that_hold(wanted, *folders):
    """The files below the folders in which any piece stands in any form."""
    found = []
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            try:
                data = path.read_bytes()
            except OSError:
                continue  # a temporary file that was renamed meanwhile
            if holds_in_any_form(wanted, data):
                found.append(path)
    return found


def memory_of(pid):
    """What can be read of the memory that a process can write to, without empty pages."""
    parts = []
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights = line.split()[:2]
            begin, end = (int(x, 16) for x in span.split("-"))
            if rights[:2] != "rw" or end - begin > LARGEST:
                continue
            try:
                memory.seek(begin)
                data = memory.read(end - begin)
            except (OSError, OverflowError, ValueError):
                continue
            parts += [page for i in range(0, len(data), len(EMPTY)) if (page := data[i:i + len(EMPTY)]) != EMPTY]
    return b"".join(parts)
