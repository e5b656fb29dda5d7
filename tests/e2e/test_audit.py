# SPDX-License-Identifier: Apache-2.0
"""The audit log for operators: shown, checked, gone on with in another file, and what stands in it."""

import json
import threading

import pytest

from admin import ctl, local, over_https
from links import audit_lines, exchange, issue
from processes import wait_for


@pytest.fixture(scope="module")
def net(make_shared):
    return make_shared(admin=True, stock=2000)


def files(net, node="kme-a"):
    return sorted((net.folder / node).glob("audit.log.*")) + [net.folder / node / "audit.log"]


def lines(net, node="kme-a"):
    return audit_lines(*files(net, node))


def master_key(net, node="kme-a"):
    return ["--master-key", net.folder / f"{node}.master"]


def offline(net, *arguments, paths=None):
    return ctl(net, *master_key(net), *arguments, "audit", "verify", *(paths or files(net)))


def test_there_is_one_line_for_every_key(net):
    with net.client("alice") as alice, net.client("bob") as bob, net.client("dave") as dave:
        keys = issue(alice, number=7)
        ids = [i for i, _ in keys]
        assert bob.dec("sae-alice", *ids[:5]).status == 200
        assert bob.dec("sae-alice", ids[0]).status == 400  # had it already
        assert dave.dec("sae-alice", ids[6]).status == 401
        same = dave.enc("sae-alice", number=1)
    local(net).get("/api/v1/audit"), local(net, "kme-b").get("/api/v1/audit")  # are written up to here
    here, there = lines(net), lines(net, "kme-b")
    for i in ids:
        assert [(x["caller"], x["peer"], x["bits"]) for x in here if x["act"] == "issued" and x["id"] == i] == \
            [("sae-alice", "sae-bob", 256)]
        assert len([x for x in there if x["act"] == "fetched" and x["id"] == i]) == (i in ids[:5])
    assert [x["caller"] for x in there if x["act"] == "refused" and x["id"] == ids[0]] == ["sae-bob"]
    assert [x["caller"] for x in here if x["act"] == "refused" and x["id"] == ids[6]] == ["sae-dave"]
    for key in (same.keys() if same.status == 200 else []):
        assert len([x for x in here if x.get("id") == key[0]]) == 1
    assert ctl(net, "log", "audit", "debug")[0] == 0 and ctl(net, "log", "audit", "default")[0] == 0
    shown = local(net).get("/api/v1/audit?act=admin&lines=2")["lines"]
    assert [x["reason"] for x in shown] == ["log level debug", "log level default"]


def test_lines_are_chosen(net):
    exchange(net)
    with net.client("alice") as alice:
        ((key_id, _),) = issue(alice)
    status, out, _ = ctl(net, "--json", "--id", key_id.upper(), "audit")
    answer = json.loads(out)
    assert status == 0 and [(x["act"], x["id"]) for x in answer["lines"]] == [("issued", key_id)] and not answer["more"]
    status, out, _ = ctl(net, "--sae", "sae-alice", "--act", "issued", "--lines", "3", "--since", "1h", "audit")
    rows = out.splitlines()
    assert status == 0 and len(rows) == 4 and all("issued" in r and "sae-alice" in r for r in rows[1:])
    assert ctl(net, "--since", "2099", "audit")[1] == "no such lines\n"
    assert ctl(net, "audit", where=over_https(net, "admin-viewer"))[0] == 0
    def numbers(*arguments):
        return [r.split()[0] for r in ctl(net, "--lines", "5", "audit", *arguments)[1].splitlines()]

    def same():
        """Of the gateway and of the files, unless a line came in between."""
        before, told, after = numbers(*files(net)), numbers(), numbers(*files(net))
        return before == after and (told, before)
    told, read = wait_for("a moment without another line", same, 20, 0)
    assert told == read and len(told) == 6


@pytest.mark.parametrize("arguments,status,said", [
    (["--act", "isued", "audit"], 2, "is issued meant?"), (["--since", "yesterday", "audit"], 1, "since: give"),
    (["--id", "17", "audit"], 1, "id: give"), (["--lines", "5000", "audit"], 2, "up to 1000"),
    (["--sae", "x" * 300, "audit"], 1, "sae: give"), (["audit", "verify", "/nonexistent"], 2, "--master-key"),
    (["--master-key", "/nonexistent", "audit", "verify", "/nonexistent"], 3, "/nonexistent")])
def test_what_cannot_be_asked(net, arguments, status, said):
    got, out, err = ctl(net, *arguments)
    assert got == status and said in err, (got, out, err)


def test_unknown_arguments_are_refused(net):
    answer = local(net).request("GET", "/api/v1/audit?line=5")
    assert answer.status == 400 and "is lines meant?" in answer.message
    for query in ("lines=0", "lines=-1", "lines=1e3", "act=", "sae=", "since=20", "since=2026-01-01T00:00:00.000Zx"):
        assert local(net).request("GET", f"/api/v1/audit?{query}").status == 400, query


def test_the_log_goes_on_in_another_file_under_load(net):
    faults, end = [], threading.Event()

    def load():
        try:
            with net.client("alice") as alice, net.client("bob") as bob:
                while not end.is_set():
                    keys = issue(alice, number=5)
                    assert bob.dec("sae-alice", *(i for i, _ in keys)).keys() == keys
        except Exception as error:  # every kind counts
            faults.append(repr(error))

    thread = threading.Thread(target=load)
    thread.start()
    before = len(files(net))
    for _ in range(5):
        assert ctl(net, "audit", "rotate")[:2] == (0, "done: rotate-audit\n")
        exchange(net)
        status, out, err = ctl(net, "audit", "verify")
        assert status == 0 and out.startswith("good: lines 1 to "), (out, err)
        assert offline(net)[0] == 0
    end.set()
    thread.join(60)
    assert not faults and len(files(net)) == before + 5
    seen = [x["seq"] for x in lines(net)]
    assert seen == list(range(1, len(seen) + 1))
    status, _, err = ctl(net, "audit", "rotate", where=over_https(net, "admin-viewer"))
    assert status == 4 and "may look" in err


def change(rows):
    rows[5] = rows[5].replace("sae-", "sAe-", 1) if "sae-" in rows[5] else rows[5].replace("20", "21", 1)
    return 6


def cut(rows):
    del rows[7]
    return 8


def repeat(rows):
    rows.insert(4, rows[3])
    return 5


def swap(rows):
    rows[3], rows[4] = rows[4], rows[3]
    return 4


@pytest.mark.parametrize("tamper", [change, cut, repeat, swap])
@pytest.mark.parametrize("of", [0, 1])
def test_tampering_is_found_at_its_line(make_network, tamper, of, tmp_path):
    net = _tampered_net(make_network)
    copies = []
    for path in files(net):
        copies.append(tmp_path / path.name)
        copies[-1].write_text(path.read_text())
    assert offline(net, paths=copies)[0] == 0
    rows = copies[of].read_text().splitlines(keepends=True)
    line = tamper(rows)
    copies[of].write_text("".join(rows))
    status, out, _ = offline(net, paths=copies)
    assert status == 1 and out.startswith(f"{copies[of]}:{line}: "), out
    status, out, _ = offline(net, "--json", paths=copies)
    assert status == 1 and (json.loads(out)["file"], json.loads(out)["line"]) == (str(copies[of]), line)


_made = {}


def _tampered_net(make_network):
    """One network for all kinds: its files are only copied."""
    if "net" not in _made:
        net = make_network(admin=True, stock=100)
        exchange(net)
        assert ctl(net, "audit", "rotate")[0] == 0
        exchange(net)
        wait_for("lines", lambda: len(files(net)[-1].read_text().splitlines()) > 10, 20)
        net.stop()
        _made["net"] = net
    return _made["net"]


def test_a_running_gateway_notices_what_was_done_to_its_files(make_network):
    net = make_network(admin=True, stock=100)
    exchange(net)
    head = local(net).get("/api/v1/audit")["head"]
    path = files(net)[-1]
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:4]) + rows[4].replace(b"sae-", b"sAe-").replace(b"KME", b"KmE") + b"".join(rows[5:]))
    status, out, _ = ctl(net, "audit", "verify")
    assert status == 1 and f"{path}:5: this line was changed" in out
    net.stop()
    # Cut at the end: the chain is good, and whoever kept the head knows better.
    path.write_bytes(b"".join(rows[:10]))
    assert offline(net)[0] == 0
    status, out, _ = offline(net, "--head", f"{head['seq']}:{head['tag']}")
    assert status == 1 and "the end was cut off: lines 11 to" in out
    assert offline(net, "--head", "5")[0] == 2
    path.write_bytes(b"".join(rows))
    assert offline(net, "--head", f"{head['seq']}:{head['tag']}")[0] == 0


def test_files_are_changed_by_size_and_survive_kills(make_network):
    net = make_network(admin=True, stock=4000, tweak=lambda name, c: c["audit"].update(rotate_mib=1),
                       pool={"ready_chunks": 16384, "inbound_chunks": 262144})
    with net.client("alice") as alice:
        for _ in range(60):
            issue(alice, number=128)
    wait_for("another file", lambda: len(files(net)) > 1, 30)
    for _ in range(2):
        net.gateways["kme-a"].kill()
        net.restart("kme-a")
        assert ctl(net, "audit", "rotate")[0] == 0
        status, out, err = ctl(net, "audit", "verify")
        assert status == 0, (out, err)


def test_a_start_notices_that_lines_were_cut_off(make_network):
    net = make_network(admin=True, stock=100)
    exchange(net)
    net.gateways["kme-a"].stop()
    path = files(net)[-1]
    rows = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(rows[:-3]))
    net.restart("kme-a")
    (said,) = net.gateways["kme-a"].lines("event=audit_cut")
    assert f"behind line {len(rows) - 3}" in said
    (cut,) = local(net).get("/api/v1/audit?act=cut")["lines"]
    assert cut["seq"] == len(rows) - 2 and "missing behind line" in cut["reason"]
    net.gateways["kme-a"].kill()
    net.restart("kme-a")
    net.gateways["kme-a"].stop()
    net.restart("kme-a")
    assert len(net.gateways["kme-a"].lines("event=audit_cut")) <= 1  # told once, not at every start
