# SPDX-License-Identifier: Apache-2.0
"""Where key is and is not: known keys go every way there is, and then the memory of every gateway and all
files are searched for any eight bytes of them in a row, raw, in hex and in base64. The tests are root, who
may read all memory."""

import re
import resource
import shutil
import signal
from pathlib import Path

import pytest

import search
from links import issue
from processes import wait_for
from scenario import Scenario


@pytest.fixture
def scenario(request, e2e_folder, pki):
    made = []

    def make(case):
        folder = e2e_folder / re.sub(r"[^\w.-]+", "_", request.node.name)
        shutil.rmtree(folder, ignore_errors=True)
        made.append(Scenario(case, folder, pki, faults=False,
                             tweak=lambda name, config: config["store"].update(flush_ms=200)))
        made[-1].start_network()
        return made[-1]
    yield make
    for s in made:
        s.end()


def holders(net, wanted):
    """{gateway: number of pieces found in its memory} of those that hold any."""
    found = {name: len(search.holds_in_any_form(wanted, search.memory_of(g.pid))) for name, g in net.gateways.items()}
    return {name: n for name, n in found.items() if n}


@pytest.mark.parametrize("case", ["source", "border"])
def test_no_delivered_key_is_left_anywhere(scenario, case):
    """Keys over a link, relayed, for several slaves, on one node, to another network; key streams."""
    s = scenario(case)
    for _ in range(2):
        s.works()
    wanted = search.pieces(s.ledger.issued.values())
    assert len(s.ledger.issued) >= 12 and set(map(type, s.ledger.issued)) >= {str}
    wait_for("delivered keys to leave memory", lambda: not holders(s.net, wanted), 20, 0.5)
    assert search.files_that_hold(wanted, s.net.folder) == []
    s.net.stop()
    assert search.files_that_hold(wanted, s.net.folder) == []


def spots(pid, needle):
    """The flags of each mapping in which the bytes stand."""
    found, flags = [], {}
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if span := re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line):
            current = tuple(int(x, 16) for x in span.groups())
        elif re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            current = None
        elif line.startswith("VmFlags:") and current:
            flags[current] = line.split()[1:]
    with open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for (begin, end), words in flags.items():
            try:
                memory.seek(begin)
                if needle in memory.read(end - begin):
                    found.append(words)
            except (OSError, OverflowError, ValueError):
                continue
    return found


def test_key_in_stock_rests_in_locked_memory_and_in_no_dump(scenario):
    """Issued and not fetched it is in the far end's memory (so the search sees it there), in pages that are
    never swapped and not in core dumps, of which there are none."""
    s = scenario("source")
    gateway = s.net.gateways["kme-b"]
    with s.net.client("alice") as alice:
        ((key_id, key),) = issue(alice)
    found = spots(gateway.pid, key)
    assert found, "the search does not find what is there"
    assert all({"lo", "dd"} <= set(flags) for flags in found), found
    assert search.files_that_hold(search.pieces([key]), s.net.folder) == []
    with s.net.client("bob") as bob:
        assert bob.dec("sae-alice", key_id).keys() == [(key_id, key)]
    wait_for("the key to leave memory", lambda: not spots(gateway.pid, key), 20, 0.2)
    assert resource.prlimit(gateway.pid, resource.RLIMIT_CORE) == (0, 0)
    gateway.signal(signal.SIGABRT)
    gateway.wait_end()
    assert not [p for p in s.net.folder.rglob("*core*") if p.is_file()]
    gateway.start()
    gateway.wait_ready(60)
