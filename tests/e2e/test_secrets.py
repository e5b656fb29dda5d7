# SPDX-License-Identifier: Apache-2.0
"""Where key is and is not: known keys go every way there is, and then the memory of every gateway and all
files are searched for any eight bytes of them in a row, raw, in hex and in base64. The tests are root, who
may read all memory."""

import contextlib
import re
import resource
import shutil
import signal
import uuid
from pathlib import Path

import pytest

import search
from app004 import App, JsonApp, app, uri
from app_http_push import HttpApp, Taker
from links import issue
from processes import wait_for
from scenario import Scenario
from topology import pair

PUSHED = "qkd://alice@KME-A#pushed"


def quickly(name, config):
    """What is on its way to the disk is soon there. One border tells outcomes at once, the other later
    or, where they share no link, in the form of the draft."""
    config["store"].update(flush_ms=200)
    for peer in config.get("peers", ()):
        if name == "kme-g2":
            peer["mode"] = "synchronous"
            del peer["our_callback_url"]
        elif name == "kme-g1" and peer["link"] == "kxi-prime":
            peer["dialect"] = "draft-url"
            del peer["our_callback_url"]


@pytest.fixture
def scenario(request, e2e_folder, pki):
    made = []

    def make(case):
        folder = e2e_folder / re.sub(r"[^\w.-]+", "_", request.node.name)
        shutil.rmtree(folder, ignore_errors=True)
        made.append(Scenario(case, folder, pki, faults=False, tweak=quickly))
        made[-1].start_network()
        return made[-1]
    yield make
    for s in made:
        s.end()


def holders(net, wanted):
    """{gateway: number of pieces found in its memory} of those that hold any."""
    found = {name: len(search.holds_in_any_form(wanted, search.memory_of(g.pid))) for name, g in net.gateways.items()}
    return {name: n for name, n in found.items() if n}


def check_nowhere(net, keys):
    wanted = search.pieces(keys)
    wait_for("delivered keys to leave memory", lambda: not holders(net, wanted), 20, 0.5)
    assert search.files_that_hold(wanted, net.folder) == []
    net.stop()
    assert search.files_that_hold(wanted, net.folder) == []


@pytest.mark.parametrize("case", ["source", "border", "kxi"])
def test_no_delivered_key_is_left_anywhere(scenario, case):
    """Keys over a link, relayed, for several slaves, on one node, to another network, also masked; key
    streams."""
    s = scenario(case)
    for _ in range(2):
        s.works()
    assert len(s.ledger.issued) >= 12 and set(map(type, s.ledger.issued)) >= {str}
    check_nowhere(s.net, s.ledger.issued.values())


def both_get(alice, bob, ksid, pushed):
    """Three chunks of a stream, which alice is pushed or asks for."""
    if pushed:
        alice.tell_get(ksid, 0)
    for index in range(3):
        key = alice.chunk().key if pushed else alice.get(ksid, index).key
        assert key and key == bob.get(ksid, index).key
        yield key


def end(alice, ksid, pushed):
    """The status; what is on its way is pushed before it."""
    if not pushed:
        return alice.close(ksid)
    alice.tell("CLOSE", {"key_stream_id": str(uuid.UUID(bytes=ksid))})
    while "index" in (answer := alice.hear().get("data", {}) if alice.wrapped else alice.hear()):
        pass
    return answer["status"]


def streamed(net, profile, pushed=False):
    """The keys of a stream of alice, over that profile, and bob."""
    where = net.endpoints["kme-a/app"], None if pushed else net.pki, "alice"
    alice = JsonApp(*where, wrapped=profile != "json") if profile.startswith("json") else App(*where, profile[-1])
    bob = app(net, "bob")
    names = PUSHED if pushed else uri(net, "alice"), uri(net, "bob")
    with contextlib.closing(alice.connect()), contextlib.closing(bob.connect()):
        ksid = alice.open(*names).ksid
        assert bob.open(*reversed(names), ksid).status == 0
        keys = list(both_get(alice, bob, ksid, pushed))
        assert end(alice, ksid, pushed) == 0 and bob.close(ksid) in (0, 3)
    return keys


def posted(net, taker):
    """The keys of a stream of alice, to whose listener they are posted, and bob."""
    alice, bob = HttpApp(net, "alice"), app(net, "bob")
    status, _, ksid = alice.open(uri(net, "alice"), uri(net, "bob"), max_bps=256 * 400)
    assert status == 201 and bob.open(uri(net, "bob"), uri(net, "alice"), ksid).status == 0
    assert alice.get(ksid, 0)[1] == 0
    wait_for("pushed chunks", lambda: len(taker.indexes(ksid)) >= 3, 60, 0.05)
    keys = [taker.keys(ksid)[index] for index in range(3)]
    assert [bob.get(ksid, index).key for index in range(3)] == keys
    assert alice.close(ksid)[1] == 0 and bob.close(ksid) in (0, 3)
    return keys


def test_no_key_of_any_profile_is_left_anywhere(make_network, pki):
    """Modules push the key that applications get over HTTP and over every profile of ETSI GS QKD 004."""
    taker = Taker(pki)

    def tweak(name, config):
        quickly(name, config)
        for sae in config["saes"]:
            if sae["id"] == "sae-alice":
                sae.update(push_to=taker.url, push=[PUSHED], applications=[*sae["applications"], PUSHED])
        for entry in config["directory"]:
            if entry["sae"] == "sae-alice":
                entry["applications"].append(PUSHED)
    try:
        net = make_network(pair(segment_chunks=64, dialect="http-push"), tweak=tweak, stock=200,
                           pool={"ready_chunks": 512, "inbound_chunks": 8192})
        keys = [key for profile in ("bin-a", "bin-b", "json", "json-netxpto") for key in streamed(net, profile)]
        keys += [*streamed(net, "json", True), *streamed(net, "json-netxpto", True), *posted(net, taker)]
        with net.client("alice") as alice, net.client("bob") as bob:
            issued = issue(alice, number=20)
            assert bob.dec("sae-alice", *(i for i, _ in issued)).keys() == issued
        check_nowhere(net, [*keys, *(key for _, key in issued)])
    finally:
        taker.end()


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
